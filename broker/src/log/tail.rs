//! The tail cache of a data directory: the groups last sealed, in memory, oldest first.
//!
//! What is read back soon after it was written (most of what is ever read) is served from here without a copy.
//! A group whose records are not in segments yet is *pinned*; the others stay while there is room.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::journal::{Group, GroupSeq};

/// What a record costs beside its bytes: its entries in the group and in its partition's list.
const ENTRY_BYTES: usize = 176;

/// Memory that a group holds, in bytes.
fn cost(group: &Group) -> usize {
    group.bytes() + group.entries.len() * ENTRY_BYTES
}

/// FIFO of groups. Groups may arrive out of order: journaled and unjournaled ones share the
/// count but not the pace.
#[derive(Debug, Default)]
pub struct TailCache {
    inner: RwLock<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Number of the first slot.
    first: u64,
    slots: VecDeque<Option<Arc<Group>>>,
    bytes: usize,
    /// Number of the first group that is pinned.
    pin_floor: u64,
    /// Bytes of the groups at or above it.
    pinned: usize,
}

impl TailCache {
    /// Takes a group in. One that was let go before stays out.
    pub fn insert(&self, group: Arc<Group>) {
        let mut inner = self.inner.write();
        if inner.slots.is_empty() && inner.first == 0 {
            // Group numbers start at 1.
            inner.first = 1;
            inner.pin_floor = 1;
        }
        let Some(at) = group.seq.0.checked_sub(inner.first).and_then(|at| usize::try_from(at).ok()) else {
            return;
        };
        if inner.slots.len() <= at {
            inner.slots.resize(at + 1, None);
        }
        let bytes = cost(&group);
        inner.bytes += bytes;
        if group.seq.0 >= inner.pin_floor {
            inner.pinned += bytes;
        }
        if let Some(slot) = inner.slots.get_mut(at) {
            *slot = Some(group);
        }
    }

    /// The group of this number, if it is here.
    pub fn get(&self, seq: GroupSeq) -> Option<Arc<Group>> {
        self.inner.read().get(seq).cloned()
    }

    /// Looks at several groups under one lock.
    pub fn with<R>(&self, look: impl FnOnce(&dyn Fn(GroupSeq) -> Option<Arc<Group>>) -> R) -> R {
        let inner = self.inner.read();
        look(&|seq| inner.get(seq).cloned())
    }

    /// Groups below `floor` need no longer stay; the oldest of them are let go until at most
    /// `capacity_bytes` are left. Answers those, and the first that stays.
    pub fn unpin(&self, floor: GroupSeq, capacity_bytes: usize) -> (Vec<Arc<Group>>, GroupSeq) {
        let mut inner = self.inner.write();
        inner.unpin(floor.0);
        (inner.evict(capacity_bytes), GroupSeq(inner.first))
    }

    /// Lets go of all groups, and takes none from here on: the directory is closed or offline. They hold on to their
    /// owners, which hold on to this.
    pub fn close(&self) {
        let mut inner = self.inner.write();
        *inner = Inner { first: u64::MAX, pin_floor: u64::MAX, ..Inner::default() };
    }

    /// Bytes of memory that the groups here hold.
    pub fn bytes(&self) -> usize {
        self.inner.read().bytes
    }

    /// Bytes of the groups that have to stay.
    pub fn pinned_bytes(&self) -> usize {
        self.inner.read().pinned
    }
}

impl Inner {
    fn get(&self, seq: GroupSeq) -> Option<&Arc<Group>> {
        let at = usize::try_from(seq.0.checked_sub(self.first)?).ok()?;
        self.slots.get(at)?.as_ref()
    }

    fn unpin(&mut self, floor: u64) {
        let end = self.first + self.slots.len() as u64;
        while self.pin_floor < floor.min(end) {
            if let Some(group) = self.get(GroupSeq(self.pin_floor)) {
                self.pinned -= cost(group);
            }
            self.pin_floor += 1;
        }
    }

    fn evict(&mut self, capacity_bytes: usize) -> Vec<Arc<Group>> {
        let mut gone = Vec::new();
        while self.bytes > capacity_bytes && self.first < self.pin_floor {
            match self.slots.pop_front() {
                Some(Some(group)) => {
                    self.bytes -= cost(&group);
                    self.first += 1;
                    gone.push(group);
                }
                // A group that never came: it was lost with its journal.
                Some(None) => self.first += 1,
                None => break,
            }
        }
        gone
    }
}
