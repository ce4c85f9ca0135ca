//! The object store of a simulated cluster: one for all nodes, in memory, failing on command.
//!
//! It keeps DESIGN.md's IMMUTABLE: nobody may put other bytes under a name that is known. Whoever does is found at the end.

use async_trait::async_trait;
use bytes::Bytes;
use object_store::path::Path;
use parking_lot::Mutex;
use proto::host::SeededEntropy;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tiering::store::faulty::{Faults, FaultyStore, Fuse};
use tokio::sync::watch;

/// The longest a request takes while nothing is wrong.
const LATENCY: Duration = Duration::from_millis(30);

/// The store; clones share everything.
#[derive(Clone, Debug)]
pub struct SimObjects {
    store: FaultyStore,
    hangs: watch::Sender<bool>,
    known: Arc<Mutex<Known>>,
}

#[derive(Debug, Default)]
struct Known {
    /// What each name held when it was first looked at.
    objects: BTreeMap<Path, Bytes>,
    /// Those that held something else later.
    changed: BTreeSet<Path>,
}

/// Lets nothing through while the store hangs.
struct Hang(watch::Receiver<bool>);

#[async_trait]
impl Fuse for Hang {
    async fn step(&self) {
        let mut hangs = self.0.clone();
        // The sender lives as long as the store does.
        let _ = hangs.wait_for(|hangs| !hangs).await;
    }
}

impl SimObjects {
    /// An empty store whose draws follow from `seed`.
    pub fn new(seed: u64) -> SimObjects {
        let (hangs, seen) = watch::channel(false);
        let store = FaultyStore::new(Arc::new(SeededEntropy::new(seed)), Arc::new(Hang(seen)), LATENCY);
        SimObjects { store, hangs, known: Arc::default() }
    }

    /// What nodes are given.
    pub fn client(&self) -> Arc<dyn object_store::ObjectStore> {
        Arc::new(self.store.clone())
    }

    /// From now on so many of 1000 requests go wrong: a third is refused, a third has its answer lost, a third is applied late.
    pub fn set_errors(&self, per_mille: u32) {
        let third = per_mille / 3;
        self.store.set_faults(Faults { throttle: third, lost_answer: third, late: third, ..Faults::default() });
    }

    /// From now on no request is answered, or they are again.
    pub fn set_hanging(&self, hangs: bool) {
        self.hangs.send_replace(hangs);
    }

    /// Every object there is.
    pub fn objects(&self) -> BTreeMap<Path, Bytes> {
        self.store.objects()
    }

    /// Looks at every object; the names whose bytes were not what they had been, so far (IMMUTABLE).
    pub fn changed(&self) -> BTreeSet<Path> {
        let mut known = self.known.lock();
        let known = &mut *known;
        for (path, bytes) in self.store.objects() {
            // The very same memory, most of the time.
            let before = known.objects.entry(path.clone()).or_insert_with(|| bytes.clone());
            if before.as_ptr() != bytes.as_ptr() && *before != bytes {
                known.changed.insert(path);
            }
        }
        known.changed.clone()
    }
}
