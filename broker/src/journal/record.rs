//! What the journal records.

use std::any::Any;
use std::fmt;

use bytes::Bytes;
use proto::ids::{LeaderEpoch, Offset, TopicPartition};

/// Position of a record in a journal: dense, starts at 1, never reused. 0 stands for "nothing".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub u64);

impl Lsn {
    /// The first record's.
    pub const FIRST: Self = Self(1);

    /// No journal gets as far as this: bytes that speak of it, or of what lies behind, are damaged.
    pub const END: Self = Self(1 << 63);

    /// The one after this.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The one before this; nothing comes before nothing.
    #[must_use]
    pub const fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The first offset of a leader epoch (KIP-101).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EpochStart {
    /// The epoch.
    pub epoch: LeaderEpoch,
    /// Its first offset, inclusive.
    pub start: Offset,
}

/// One thing that happened to a partition's log, to be recorded.
#[derive(Debug, Clone, Copy)]
pub enum Record<'a> {
    /// A record batch was appended.
    Append {
        /// To which partition.
        tp: TopicPartition,
        /// Written over the batch's own base offset, in the copy.
        base_offset: Offset,
        /// Written over the batch's own leader epoch, in the copy.
        leader_epoch: LeaderEpoch,
        /// One whole magic-2 batch *whose CRC has been checked*: the frame's CRC is computed with its help,
        /// so a lie here makes the frame unreadable after a restart.
        batch: &'a [u8],
    },
    /// The end of the log was cut off.
    TruncateTail {
        /// Whose.
        tp: TopicPartition,
        /// The new end, exclusive.
        to: Offset,
    },
    /// The start of the log was cut off.
    TrimHead {
        /// Whose.
        tp: TopicPartition,
        /// The new local start, inclusive.
        to: Offset,
    },
    /// The local log was dropped and starts anew (KIP-1023).
    Reset {
        /// Whose.
        tp: TopicPartition,
        /// The new local start and end.
        start: Offset,
        /// The leader epochs up to `start`.
        epochs: &'a [EpochStart],
        /// A producer snapshot as of `start`, in the form of `log::producers`.
        producer_state: &'a [u8],
    },
    /// The partition left this directory.
    Delete {
        /// Which.
        tp: TopicPartition,
    },
}

impl Record<'_> {
    /// The partition it is about.
    pub const fn tp(&self) -> TopicPartition {
        match self {
            Self::Append { tp, .. }
            | Self::TruncateTail { tp, .. }
            | Self::TrimHead { tp, .. }
            | Self::Reset { tp, .. }
            | Self::Delete { tp } => *tp,
        }
    }

    /// Which kind of record it is.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Append { .. } => Kind::Append,
            Self::TruncateTail { .. } => Kind::TruncateTail,
            Self::TrimHead { .. } => Kind::TrimHead,
            Self::Reset { .. } => Kind::Reset,
            Self::Delete { .. } => Kind::Delete,
        }
    }
}

/// A [`Record`] read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OwnedRecord {
    /// See [`Record::Append`]; offset and epoch are in the batch.
    Append {
        /// To which partition.
        tp: TopicPartition,
        /// The batch as it was placed.
        batch: Bytes,
    },
    /// See [`Record::TruncateTail`].
    TruncateTail {
        /// Whose.
        tp: TopicPartition,
        /// The new end, exclusive.
        to: Offset,
    },
    /// See [`Record::TrimHead`].
    TrimHead {
        /// Whose.
        tp: TopicPartition,
        /// The new local start, inclusive.
        to: Offset,
    },
    /// See [`Record::Reset`].
    Reset {
        /// Whose.
        tp: TopicPartition,
        /// The new local start and end.
        start: Offset,
        /// The leader epochs up to `start`.
        epochs: Vec<EpochStart>,
        /// The producer snapshot as of `start`.
        producer_state: Bytes,
    },
    /// See [`Record::Delete`].
    Delete {
        /// Which.
        tp: TopicPartition,
    },
}

impl OwnedRecord {
    /// The partition it is about.
    pub const fn tp(&self) -> TopicPartition {
        match self {
            Self::Append { tp, .. }
            | Self::TruncateTail { tp, .. }
            | Self::TrimHead { tp, .. }
            | Self::Reset { tp, .. }
            | Self::Delete { tp } => *tp,
        }
    }
}

/// The kinds of records, with their numbers on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// See [`Record::Append`].
    Append = 1,
    /// See [`Record::TruncateTail`].
    TruncateTail = 2,
    /// See [`Record::TrimHead`].
    TrimHead = 3,
    /// See [`Record::Reset`].
    Reset = 4,
    /// See [`Record::Delete`].
    Delete = 5,
}

/// Who is told what became of a record; as a rule the partition. Called from the journal's thread: must
/// be quick, must not wait, and must not call back into the journal's `admit`.
pub trait Owner: Any + Send + Sync {
    /// Everything this owner appended up to and including `up_to` is durable. Once per group.
    fn synced(&self, up_to: Lsn);

    /// The journal is offline: whatever was not yet reported synced never will be, its outcome is
    /// unknown. Called once for an owner that had something in flight, with the reason.
    fn failed(&self, cause: &str);
}
