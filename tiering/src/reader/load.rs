//! Small immutable things (roots, leaves, footers) loaded once for all who ask, and kept while used.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;
use proto::host::Spawner;
use tokio::sync::watch;

use super::RemoteError;

type Outcome<V> = Result<(V, u64), RemoteError>;

/// Loads values by key; keeps the most recently used ones within a bound on their weight in bytes.
/// A load is a task: that everybody who waited for it went away does not stop it.
#[derive(Debug)]
pub(super) struct Loads<K, V> {
    state: Arc<Mutex<State<K, V>>>,
    spawner: Spawner,
}

#[derive(Debug)]
struct State<K, V> {
    capacity: u64,
    weight: u64,
    uses: u64,
    kept: HashMap<K, Kept<V>>,
    by_use: BTreeMap<u64, K>,
    loading: HashMap<K, watch::Receiver<Option<Outcome<V>>>>,
}

#[derive(Debug)]
struct Kept<V> {
    value: V,
    weight: u64,
    used: u64,
}

/// A value that is here or on its way.
#[derive(Debug, Clone)]
pub(super) enum Load<V> {
    Here(V),
    Coming(watch::Receiver<Option<Outcome<V>>>),
}

impl<V: Clone> Load<V> {
    /// The value, if it is here by now.
    pub(super) fn now(&self) -> Option<V> {
        match self {
            Self::Here(value) => Some(value.clone()),
            Self::Coming(receiver) => match &*receiver.borrow() {
                Some(Ok((value, _))) => Some(value.clone()),
                Some(Err(_)) | None => None,
            },
        }
    }

    /// Waits for the value.
    pub(super) async fn wait(&mut self) -> Result<V, RemoteError> {
        match self {
            Self::Here(value) => Ok(value.clone()),
            Self::Coming(receiver) => match receiver.wait_for(Option::is_some).await {
                Ok(outcome) => match &*outcome {
                    Some(Ok((value, _))) => Ok(value.clone()),
                    Some(Err(error)) => Err(error.clone()),
                    None => Err(RemoteError::closed()),
                },
                Err(_) => Err(RemoteError::closed()),
            },
        }
    }

    /// Whether loading it failed.
    pub(super) fn failed(&self) -> bool {
        match self {
            Self::Here(_) => false,
            Self::Coming(receiver) => matches!(&*receiver.borrow(), Some(Err(_))),
        }
    }
}

impl<K, V> Loads<K, V>
where
    K: Copy + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    pub(super) fn new(capacity: u64, spawner: Spawner) -> Self {
        Self {
            state: Arc::new(Mutex::new(State {
                capacity,
                weight: 0,
                uses: 0,
                kept: HashMap::new(),
                by_use: BTreeMap::new(),
                loading: HashMap::new(),
            })),
            spawner,
        }
    }

    /// The value of `key`; begins `load` (which also tells the value's weight) if nobody has yet.
    pub(super) fn get<F>(&self, key: K, load: impl FnOnce() -> F) -> Load<V>
    where
        F: Future<Output = Outcome<V>> + Send + 'static,
    {
        let mut state = self.state.lock();
        if let Some(value) = state.touch(&key) {
            return Load::Here(value);
        }
        if let Some(coming) = state.loading.get(&key) {
            return Load::Coming(coming.clone());
        }
        let (sender, receiver) = watch::channel(None);
        state.loading.insert(key, receiver.clone());
        let (shared, task) = (Arc::clone(&self.state), load());
        self.spawner.spawn_cold(async move {
            let outcome = task.await;
            {
                let mut state = shared.lock();
                state.loading.remove(&key);
                if let Ok((value, weight)) = &outcome {
                    state.keep(key, value.clone(), *weight);
                }
            }
            sender.send_replace(Some(outcome));
        });
        Load::Coming(receiver)
    }

    /// The value of `key` if it is here.
    pub(super) fn peek(&self, key: &K) -> Option<V> {
        self.state.lock().touch(key)
    }

    /// Forgets the value of `key`.
    pub(super) fn remove(&self, key: &K) {
        self.state.lock().remove(key);
    }
}

impl<K: Copy + Eq + Hash, V: Clone> State<K, V> {
    fn touch(&mut self, key: &K) -> Option<V> {
        self.uses += 1;
        let uses = self.uses;
        let kept = self.kept.get_mut(key)?;
        self.by_use.remove(&kept.used);
        self.by_use.insert(uses, *key);
        kept.used = uses;
        Some(kept.value.clone())
    }

    fn keep(&mut self, key: K, value: V, weight: u64) {
        self.remove(&key);
        self.uses += 1;
        self.weight += weight;
        self.by_use.insert(self.uses, key);
        let used = self.uses;
        self.kept.insert(key, Kept { value, weight, used });
        while self.weight > self.capacity && self.kept.len() > 1 {
            let Some((_, oldest)) = self.by_use.first_key_value() else {
                break;
            };
            let oldest = *oldest;
            self.remove(&oldest);
        }
    }

    fn remove(&mut self, key: &K) {
        if let Some(kept) = self.kept.remove(key) {
            self.weight -= kept.weight;
            self.by_use.remove(&kept.used);
        }
    }
}
