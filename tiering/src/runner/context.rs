//! What every round needs, and requests that are tried more than once.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use proto::host::{Clock, Entropy};
use proto::ids::TopicPartition;
use proto::metadata::RootRef;
use proto::planted::{Bug, planted};
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::committer::Committer;
use super::config::RunnerConfig;
use super::error::RoundError;
use crate::manifest::{Leaf, LeafRef, Manifest};
use crate::ports::{LocalLog, Pointers};
use crate::store::{Key, Store, StoreError};

/// Shared by all rounds.
pub(super) struct Context {
    pub(super) config: RunnerConfig,
    pub(super) store: Store,
    pub(super) pointers: Arc<dyn Pointers>,
    pub(super) locals: Arc<dyn LocalLog>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) entropy: Arc<dyn Entropy>,
    pub(super) committer: Committer,
    /// One permit per KiB of objects in memory.
    pub(super) budget: Arc<Semaphore>,
    pub(super) manifests: ManifestCache,
    /// The last failure of a request in each round that is under way.
    pub(super) troubles: Mutex<BTreeMap<TopicPartition, String>>,
}

impl Context {
    /// Tries a request until it is done, refused for good, or has been tried often enough. An unknown
    /// outcome is tried again like a failed one, so the request must be one that may be repeated: all
    /// of ours are, because names are unique and objects immutable. Attempts take long when the store
    /// hangs, so what is wrong can be seen before the last one has failed.
    pub(super) async fn insist<T, F>(
        &self,
        tp: TopicPartition,
        doing: &'static str,
        request: impl Fn() -> F,
    ) -> Result<T, RoundError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let mut failures = 0;
        loop {
            let error = match request().await {
                Ok(done) => {
                    if failures > 0 {
                        self.troubles.lock().remove(&tp);
                    }
                    return Ok(done);
                }
                Err(error) => RoundError::Store { doing, error },
            };
            failures += 1;
            if failures >= self.config.attempts || !error.may_pass() {
                return Err(error);
            }
            tracing::debug!(partition = %tp, %error, failures, "object store request failed, trying again");
            self.troubles.lock().insert(tp, error.to_string());
            tokio::time::sleep(self.config.backoff.wait(failures, &*self.entropy)).await;
        }
    }

    pub(super) async fn create(
        &self,
        tp: TopicPartition,
        doing: &'static str,
        key: &Key,
        chunks: &[Bytes],
    ) -> Result<(), RoundError> {
        if planted(Bug::UnknownPutDone) {
            let done = self.store.create(key, chunks).await;
            return done.map(drop).or_else(|error| {
                if matches!(error, StoreError::Unknown { .. }) {
                    Ok(())
                } else {
                    Err(RoundError::Store { doing, error })
                }
            });
        }
        self.insist(tp, doing, || self.store.create(key, chunks)).await.map(drop)
    }

    /// What a planted bug does instead of waiting for [`Context::create`]: the object comes when it comes, or never.
    pub(super) fn create_too_late(&self, key: &Key, chunks: &[Bytes]) {
        let (store, key, chunks) = (self.store.clone(), key.clone(), chunks.to_vec());
        tokio::spawn(async move {
            tokio::time::sleep(std::time::Duration::from_secs(2)).await;
            drop(store.create(&key, &chunks).await);
        });
    }

    /// The root that `reference` names.
    pub(super) async fn root(&self, tp: TopicPartition, reference: &RootRef) -> Result<Arc<Manifest>, RoundError> {
        if let Some(Cached::Root(root)) = self.manifests.get(reference.uuid) {
            return Ok(root);
        }
        let key = self.store.layout().root(tp, reference);
        let bytes = self.insist(tp, "reading a manifest root", || self.store.get_whole(&key, reference.size)).await?;
        let root = Arc::new(Manifest::decode_referenced(&bytes, tp, reference)?);
        self.manifests.put(reference.uuid, Cached::Root(root.clone()), reference.size);
        Ok(root)
    }

    /// The leaf that `reference` names.
    pub(super) async fn leaf(&self, tp: TopicPartition, reference: &LeafRef) -> Result<Arc<Leaf>, RoundError> {
        if let Some(Cached::Leaf(leaf)) = self.manifests.get(reference.uuid) {
            return Ok(leaf);
        }
        let key = self.store.layout().leaf(tp, reference);
        let bytes = self.insist(tp, "reading a manifest leaf", || self.store.get_whole(&key, reference.size)).await?;
        let leaf = Arc::new(Leaf::decode(&bytes, tp, reference)?);
        self.manifests.put(reference.uuid, Cached::Leaf(leaf.clone()), reference.size);
        Ok(leaf)
    }
}

/// A few decoded roots and leaves, oldest out first.
pub(super) struct ManifestCache {
    limit_bytes: u64,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    bytes: u64,
    items: VecDeque<(Uuid, Cached, u64)>,
}

#[derive(Clone)]
pub(super) enum Cached {
    Root(Arc<Manifest>),
    Leaf(Arc<Leaf>),
}

impl ManifestCache {
    pub(super) fn new(limit_bytes: u64) -> Self {
        Self { limit_bytes, held: Mutex::default() }
    }

    pub(super) fn get(&self, uuid: Uuid) -> Option<Cached> {
        let mut held = self.held.lock();
        let at = held.items.iter().position(|(held, _, _)| *held == uuid)?;
        let item = held.items.remove(at)?;
        let cached = item.1.clone();
        held.items.push_back(item);
        Some(cached)
    }

    /// `size` is the encoded length; decoded it is about three times as much, which is accounted for.
    pub(super) fn put(&self, uuid: Uuid, item: Cached, size: u64) {
        let weight = size.saturating_mul(3);
        let mut held = self.held.lock();
        held.bytes += weight;
        held.items.push_back((uuid, item, weight));
        while held.bytes > self.limit_bytes {
            let Some((_, _, weight)) = held.items.pop_front() else { return };
            held.bytes -= weight;
        }
    }
}
