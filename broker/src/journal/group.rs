//! A group: the records that went to disk with one sync, and the memory that holds them.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proto::ids::{Offset, TopicPartition};

use super::record::{Kind, Lsn, Owner};

/// Number of a group, dense per journal, from 1; journaled and unjournaled groups share the count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupSeq(pub u64);

/// Where a record's payload lies: the batch of an Append, with offset and epoch patched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Slice {
    /// In which group.
    pub group: GroupSeq,
    /// First byte, counted from the start of the group.
    pub start: u32,
    /// Length in bytes.
    pub len: u32,
}

impl Slice {
    /// The bytes of the group that it covers.
    pub const fn range(&self) -> Range<usize> {
        self.start as usize..self.start as usize + self.len as usize
    }
}

/// One record of a group.
#[derive(Clone)]
pub struct GroupEntry {
    /// The partition it is about.
    pub tp: TopicPartition,
    /// Who appended it. `Arc<dyn Owner>` upcasts to `Arc<dyn Any>`.
    pub owner: Arc<dyn Owner>,
    /// What it is.
    pub kind: Kind,
    /// Its position in the journal. Of an unjournaled entry: the last position given out before it.
    pub lsn: Lsn,
    /// Append: the batch's first offset. TruncateTail, TrimHead, Reset: the offset they name. Delete: -1.
    pub base_offset: Offset,
    /// Append: the batch's last offset, inclusive. Others: as `base_offset`.
    pub last_offset: Offset,
    /// Its payload, in bytes from the start of the group: the batch of an Append.
    pub range: Range<u32>,
}

impl fmt::Debug for GroupEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupEntry")
            .field("tp", &self.tp)
            .field("kind", &self.kind)
            .field("lsn", &self.lsn)
            .field("base_offset", &self.base_offset)
            .field("last_offset", &self.last_offset)
            .field("range", &self.range)
            .finish_non_exhaustive()
    }
}

/// What is known about a group once it is full.
#[derive(Debug)]
pub struct Group {
    /// Its number.
    pub seq: GroupSeq,
    /// Whether it is durable in the journal. If not, it is only in memory (`firn.flush = os`).
    pub journaled: bool,
    /// Position of its first record (unjournaled: as for its entries).
    pub first_lsn: Lsn,
    /// Position of its last record, inclusive.
    pub last_lsn: Lsn,
    /// Its records, in the order they were appended.
    pub entries: Vec<GroupEntry>,
    /// How long the write with its sync took; zero for an unjournaled group.
    pub sync_time: Duration,
    pub(super) bytes: Bytes,
    pub(super) unused: usize,
}

impl Group {
    /// A part of it, without copying. The whole block of memory lives as long as any part of it.
    ///
    /// # Panics
    /// If the range ends past the group's end.
    pub fn slice(&self, range: Range<usize>) -> Bytes {
        self.bytes.slice(range)
    }

    /// The payload of an entry of this group.
    pub fn payload(&self, entry: &GroupEntry) -> Bytes {
        self.bytes.slice(entry.range.start as usize..entry.range.end as usize)
    }

    /// Memory it pins, in bytes: its own, and what its block could not use.
    pub fn bytes(&self) -> usize {
        self.bytes.len() + self.unused
    }
}
