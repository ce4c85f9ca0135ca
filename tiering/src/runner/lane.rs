//! What is remembered of a partition between rounds. All of it may be lost in a crash: the pointer is
//! read again, and a listing finds leftovers.

use std::collections::BTreeMap;

use proto::ids::{LeaderEpoch, Millis, Offset, TopicPartition};
use proto::metadata::{TierPoint, TierPointer};
use uuid::Uuid;

use super::settle::Attempt;
use crate::plan::Head;
use crate::store::Key;

/// A partition on its way down.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) tp: TopicPartition,
    /// Epoch under which the pointer was read linearizably; none before that.
    pub(super) epoch: Option<LeaderEpoch>,
    /// Newest pointer known.
    pub(super) pointer: TierPointer,
    /// A commit whose outcome is not known. Nothing is planned before that is settled.
    pub(super) in_doubt: Option<Box<Attempt>>,
    /// Full points of the entries in the pointer's tail.
    pub(super) points: BTreeMap<Uuid, Vec<TierPoint>>,
    /// Objects to delete, each from a time on.
    pub(super) doomed: Vec<Doomed>,
    /// The oldest entry, if it was looked at since the tier start last moved.
    pub(super) head: Option<Head>,
    pub(super) retention_due: Millis,
    pub(super) sweep_due: Millis,
    /// Somebody waits for `[.., target)` to be tiered.
    pub(super) flush_to: Option<Offset>,
    /// Failed rounds in a row, and until when to wait because of them.
    pub(super) failures: u32,
    pub(super) not_before: Millis,
    pub(super) last_error: Option<String>,
    /// Live entries, known once the root was read.
    pub(super) entries: Option<u64>,
}

/// An object that nothing will ever refer to again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Doomed {
    pub(super) key: Key,
    pub(super) uuid: Uuid,
    pub(super) due: Millis,
}

impl Lane {
    pub(super) fn new(tp: TopicPartition) -> Self {
        Self {
            tp,
            epoch: None,
            pointer: TierPointer::default(),
            in_doubt: None,
            points: BTreeMap::new(),
            doomed: Vec::new(),
            head: None,
            retention_due: 0,
            sweep_due: 0,
            flush_to: None,
            failures: 0,
            not_before: 0,
            last_error: None,
            entries: None,
        }
    }

    /// Takes a pointer if it is newer.
    pub(super) fn learn(&mut self, pointer: TierPointer) {
        if pointer.generation >= self.pointer.generation {
            self.pointer = pointer;
        }
        let start = self.pointer.tier_start;
        self.head = self.head.filter(|head| head.base == start);
        let tail = &self.pointer.tail;
        self.points.retain(|uuid, _| tail.iter().any(|entry| entry.object.key.uuid == *uuid));
    }

    pub(super) fn doom(&mut self, objects: impl IntoIterator<Item = (Key, Uuid)>, due: Millis) {
        self.doomed.extend(objects.into_iter().map(|(key, uuid)| Doomed { key, uuid, due }));
    }
}
