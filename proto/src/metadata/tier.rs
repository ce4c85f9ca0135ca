//! The pointer: where a partition's tiered history begins, ends, and is written down.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::ids::{LeaderEpoch, Millis, Offset, TopicPartition};

/// How many entries a pointer may hold before they have to go into a manifest root.
pub const MAX_TAIL_ENTRIES: usize = 16;

/// How many points an entry may carry.
pub const MAX_POINTS: usize = 32;

/// What the quorum stores of one partition's tiered history.
///
/// Ranges are half open. `log_start <= tier_end` need not hold between `log_start` and `tier_start`:
/// DeleteRecords moves `log_start` at once, the expiry of objects follows. Between them
/// `[tier_start, tier_end)` is covered without gap by the root's entries followed by `tail`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TierPointer {
    /// One more with every committed change; 0 before the first.
    pub generation: u64,
    /// The manifest root, none while everything fits into `tail`.
    pub root: Option<RootRef>,
    /// First offset that may be read. Inclusive.
    pub log_start: Offset,
    /// First offset in the tier. Inclusive.
    pub tier_start: Offset,
    /// First offset not in the tier. Exclusive end of what is tiered.
    pub tier_end: Offset,
    /// Entries that are not in the root yet, ascending, at most [`MAX_TAIL_ENTRIES`].
    pub tail: Vec<TailEntry>,
    /// Bytes of record data in the tier.
    pub bytes: u64,
    /// Leader epoch of the leader that committed this generation.
    pub leader_epoch: LeaderEpoch,
    /// When the controller accepted this generation: what it dropped waits a grace from here.
    pub committed_at: Millis,
    /// The request that committed this generation: asking again is answered, not repeated.
    pub request: Uuid,
    /// Leader epoch of the last tiered record, that at `tier_end - 1`. -1 if nothing is tiered or if it was not
    /// written down: the footer of the last entry has it.
    pub end_epoch: LeaderEpoch,
}

impl Default for TierPointer {
    fn default() -> Self {
        Self {
            generation: 0,
            root: None,
            log_start: 0,
            tier_start: 0,
            tier_end: 0,
            tail: Vec::new(),
            bytes: 0,
            leader_epoch: 0,
            committed_at: 0,
            request: Uuid::nil(),
            end_epoch: -1,
        }
    }
}

impl TierPointer {
    /// Whether nothing is tiered.
    pub const fn is_empty(&self) -> bool {
        self.tier_start >= self.tier_end
    }
}

/// A manifest root: immutable, named by the generation and epoch that wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootRef {
    /// Name of the object.
    pub uuid: Uuid,
    /// Pointer generation it was written for.
    pub generation: u64,
    /// Leader epoch of its writer.
    pub leader_epoch: LeaderEpoch,
    /// Length in bytes.
    pub size: u64,
    /// CRC-32C of the whole object.
    pub crc: u32,
}

/// One range of offsets in the tier: the mirror of a manifest entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TailEntry {
    /// First offset. Inclusive.
    pub base: Offset,
    /// First offset after the range. Exclusive.
    pub end: Offset,
    /// Greatest timestamp of a record in it, -1 if none has one.
    pub max_timestamp: Millis,
    /// Where the bytes are.
    pub object: ObjectRef,
    /// Where this range's footer sections begin in the object, in bytes from the object's start.
    pub footer_position: u64,
    /// Leader epochs in the range: (epoch, first offset), ascending; the first begins at or below `base`.
    pub epochs: Vec<(LeaderEpoch, Offset)>,
    /// How the object is encoded.
    pub format: ObjectFormat,
    /// Whether an aborted transaction overlaps the range.
    pub has_aborted: bool,
    /// Coarse index, ascending, at most [`MAX_POINTS`].
    pub points: Vec<TierPoint>,
}

/// A slice of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectRef {
    /// The object.
    pub key: ObjectKey,
    /// First byte of the range's data in it.
    pub start: u64,
    /// Bytes of data.
    pub length: u64,
}

/// All that goes into an object's name. It is stored, never derived from the partition that refers
/// to it, so that several quiet partitions can share an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectKey {
    /// Partition under whose prefix it lies.
    pub owner: TopicPartition,
    /// First offset, as in its name.
    pub base_offset: Offset,
    /// Leader epoch of the leader that wrote it.
    pub leader_epoch: LeaderEpoch,
    /// What makes the name unique.
    pub uuid: Uuid,
}

/// Encoding of an object. The numbers are durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum ObjectFormat {
    /// Record batches verbatim (`.seg`).
    Segment = 1,
    /// Parquet (`.parquet`).
    Parquet = 2,
}

/// A known place inside an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TierPoint {
    /// Base offset of a batch.
    pub offset: Offset,
    /// Greatest timestamp in batches before this point in the entry and in this batch.
    pub timestamp: Millis,
    /// Byte position of the batch, relative to the start of the entry's data.
    pub position: u64,
}
