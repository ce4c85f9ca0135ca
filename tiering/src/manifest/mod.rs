//! The manifest: which object holds which offsets of a partition.
//!
//! A pointer in the quorum names a *root*, an immutable object that holds the recent entries and, for
//! older history, references to *leaves* of about [`LEAF_ENTRIES`] entries each. The newest entries are
//! in the pointer itself until they are folded into the next root. Everything here is pure: a change is
//! `Manifest × Change → Result<Manifest, Violation>`, and [`invariants`] are checked by it and again
//! before each commit ([`check_commit`]).
//!
//! Retention moves only the pointer's tier start; the root keeps listing what expired until it is next
//! written. Look through a [`View`], which knows.

mod change;
mod entry;
mod envelope;
pub mod invariants;
mod leaf;
mod root;
mod view;

#[cfg(test)]
mod tests;

use proto::ids::{LeaderEpoch, Millis, Offset};
use uuid::Uuid;

pub use change::Change;
pub use invariants::{Invariant, Violation, check_commit, check_pointer};
pub use leaf::Leaf;
/// One range of offsets and where its bytes lie; the same type in pointer, root and leaf.
pub use proto::metadata::TailEntry as Entry;
pub use view::{Found, View, by_epoch_above, by_offset, by_timestamp};

/// Entries in a full leaf.
pub const LEAF_ENTRIES: usize = 10_000;

/// Content of a root: leaves first, then entries, contiguous throughout.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Manifest {
    /// Spilled history, ascending.
    pub leaves: Vec<LeafRef>,
    /// Entries in the root itself, ascending, after the leaves.
    pub entries: Vec<Entry>,
}

/// A leaf as the root knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeafRef {
    /// Name of the object.
    pub uuid: Uuid,
    /// Leader epoch of its writer, part of the name: what a sweeper goes by.
    pub leader_epoch: LeaderEpoch,
    /// Length in bytes.
    pub size: u64,
    /// CRC-32C of the whole object.
    pub crc: u32,
    /// First offset. Inclusive.
    pub base: Offset,
    /// First offset after it. Exclusive.
    pub end: Offset,
    /// How many entries it has.
    pub entries: u32,
    /// Bytes of record data that its entries cover.
    pub bytes: u64,
    /// Greatest timestamp in its entries.
    pub max_timestamp: Millis,
    /// Last leader epoch in its entries.
    pub last_epoch: LeaderEpoch,
}
