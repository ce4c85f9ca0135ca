//! What the runner tells about itself.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use proto::ids::{Millis, Offset, TopicPartition};
use tokio::sync::watch;

use super::lane::Lane;
use crate::plan;
use crate::ports::LocalState;

/// A partition's way down, at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionStatus {
    /// The partition.
    pub tp: TopicPartition,
    /// Generation of the pointer.
    pub generation: u64,
    /// First readable offset.
    pub log_start: Offset,
    /// First tiered offset.
    pub tier_start: Offset,
    /// First offset that is not tiered.
    pub tier_end: Offset,
    /// First offset on local disk.
    pub local_start: Offset,
    /// First offset that is not stable.
    pub last_stable: Offset,
    /// First offset not yet appended.
    pub log_end: Offset,
    /// Bytes of record data in the object store.
    pub tiered_bytes: u64,
    /// Objects with record data; None until the manifest was read.
    pub objects: Option<u64>,
    /// Bytes that exist only locally.
    pub lag_bytes: u64,
    /// For how long the oldest of them has.
    pub lag_ms: Millis,
    /// Objects that wait for their deletion.
    pub doomed: usize,
    /// What is wrong: why the last round failed, or the last request of the present one.
    pub error: Option<String>,
}

impl PartitionStatus {
    pub(super) fn new(lane: &Lane, local: &LocalState, now: Millis) -> Self {
        let pointer = &lane.pointer;
        let objects = match pointer.root {
            None => Some(pointer.tail.len() as u64),
            Some(_) => lane.entries,
        };
        Self {
            tp: lane.tp,
            generation: pointer.generation,
            log_start: pointer.log_start.max(if pointer.is_empty() { local.log_start } else { 0 }),
            tier_start: pointer.tier_start,
            tier_end: plan::next_base(local, pointer),
            local_start: local.local_start,
            last_stable: local.last_stable,
            log_end: local.log_end,
            tiered_bytes: pointer.bytes,
            objects,
            lag_bytes: local.untiered_bytes,
            lag_ms: local.oldest_untiered_ms.map_or(0, |oldest| now.saturating_sub(oldest).max(0)),
            doomed: lane.doomed.len(),
            error: lane.last_error.clone(),
        }
    }

    /// What can be told while the partition's round runs: the local side is known, the tier's is as it was.
    pub(super) fn meanwhile(self, local: &LocalState, now: Millis, error: Option<String>) -> Self {
        Self {
            local_start: local.local_start,
            last_stable: local.last_stable,
            log_end: local.log_end,
            lag_bytes: local.untiered_bytes,
            lag_ms: local.oldest_untiered_ms.map_or(0, |oldest| now.saturating_sub(oldest).max(0)),
            error,
            ..self
        }
    }
}

/// The latest status of each partition; whoever waits for one is woken by changes.
#[derive(Debug)]
pub(super) struct Board {
    statuses: Mutex<BTreeMap<TopicPartition, PartitionStatus>>,
    version: watch::Sender<u64>,
}

impl Board {
    pub(super) fn new() -> Self {
        Self { statuses: Mutex::default(), version: watch::Sender::new(0) }
    }

    pub(super) fn post(&self, status: PartitionStatus) {
        let changed = self.statuses.lock().insert(status.tp, status.clone()).as_ref() != Some(&status);
        if changed {
            self.version.send_modify(|version| *version += 1);
        }
    }

    pub(super) fn remove(&self, tp: TopicPartition) {
        if self.statuses.lock().remove(&tp).is_some() {
            self.version.send_modify(|version| *version += 1);
        }
    }

    pub(super) fn get(&self, tp: TopicPartition) -> Option<PartitionStatus> {
        self.statuses.lock().get(&tp).cloned()
    }

    pub(super) fn all(&self) -> Vec<PartitionStatus> {
        self.statuses.lock().values().cloned().collect()
    }

    pub(super) fn watch(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }
}
