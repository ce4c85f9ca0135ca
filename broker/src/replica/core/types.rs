//! What happens to a follower, and what it asks for.

use super::super::session::Ask;
use crate::log::epochs::EpochEnd;
use bytes::Bytes;
use proto::errors::ErrorCode;
use proto::ids::{DirectoryId, LeaderEpoch, Millis, Offset, TopicPartition};

/// A partition to follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Followed {
    /// Which.
    pub tp: TopicPartition,
    /// The leader's epoch, as the image says.
    pub epoch: LeaderEpoch,
    /// The directory in which the replica lies.
    pub directory: DirectoryId,
    /// The bound on replication holds for it. Never for a replica in sync.
    pub throttled: bool,
}

/// Where a log at rest stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The log's end; everything below it is durable.
    pub end: Offset,
    /// Epoch of the last batch, -1 if none is known.
    pub last_epoch: LeaderEpoch,
    /// First offset that may be read.
    pub log_start: Offset,
    /// The high watermark as known here.
    pub high_watermark: Offset,
}

/// What the leader says of a partition besides records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Said {
    /// Its high watermark.
    pub high_watermark: Offset,
    /// Its log start.
    pub log_start: Offset,
}

/// What an answer says of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionAnswer {
    /// Which.
    pub tp: TopicPartition,
    /// Why there are no records, or none.
    pub error: ErrorCode,
    /// Offsets; -1 where an error says nothing of them.
    pub said: Said,
    /// Where our history leaves the leader's.
    pub diverging: Option<EpochEnd>,
    /// Whole batches, unchecked.
    pub records: Bytes,
}

/// A leader's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Why there is nothing else, or none.
    pub error: ErrorCode,
    /// The session from now on, 0 if there is none.
    pub session_id: i32,
    /// In a session only what changed.
    pub partitions: Vec<PartitionAnswer>,
}

/// Names a piece of work, so that what becomes of one that is of no interest any more is told from the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// Why a piece of work did not succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The leader epoch is not what it was.
    Moved,
    /// What the leader sent does not check out.
    Corrupt,
    /// What the leader sent does not continue the log.
    OutOfOrder,
    /// The data directory has no room.
    Full,
    /// The data directory failed, or the partition left it.
    Gone,
    /// Something else that may pass: the object store, the quorum.
    Other,
}

/// How a piece of work ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The log is at rest here.
    At(Position),
    /// The log is at rest, and lacks what the tier holds, or may.
    Behind,
    /// Its history and the leader's part below what is here.
    Apart,
    /// It failed.
    Failed(Failure),
}

/// Why a log starts over, unless it is found not to have to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Because {
    /// The tier may hold what it lacks, or hold something else instead.
    OfTier,
    /// It ends before the leader's log start, which is this. What is tiered counts first.
    BeforeStart(Offset),
    /// Its history and the leader's part below what is here; the leader's log start is this. What is tiered counts first.
    Apart(Offset),
}

/// All that can happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// These are to be followed from now on, or under another epoch.
    Assigned(Vec<Followed>),
    /// These are not followed any more.
    Dropped(Vec<TopicPartition>),
    /// The request under way was answered.
    Answered(Answer),
    /// The request under way will not be answered.
    Broke,
    /// A piece of work ended.
    Done(TopicPartition, Ticket, Outcome),
    /// The bound on replication is reached, or is not any more.
    Held(bool),
    /// Time passed.
    Tick,
}

/// All that can be asked for. Each that carries a ticket ends with [`Event::Done`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Wait until all that was appended is durable.
    Settle(TopicPartition, Ticket),
    /// Check the batches and append them, durably.
    Append {
        /// Where.
        tp: TopicPartition,
        /// See [`Ticket`].
        ticket: Ticket,
        /// The leader's epoch.
        epoch: LeaderEpoch,
        /// Whole batches.
        records: Bytes,
        /// To be learnt once they are appended.
        said: Said,
    },
    /// Learn what the leader says; ends at once.
    Learn(TopicPartition, LeaderEpoch, Said),
    /// Cut what the leader does not have, whose history ours leaves at this end of an epoch.
    Cut {
        /// Where.
        tp: TopicPartition,
        /// See [`Ticket`].
        ticket: Ticket,
        /// The leader's epoch.
        epoch: LeaderEpoch,
        /// What the leader has.
        end: EpochEnd,
    },
    /// Find out what the tier holds now, and start over at its end, or at the leader's log start if nothing is tiered.
    StartOver {
        /// Where.
        tp: TopicPartition,
        /// See [`Ticket`].
        ticket: Ticket,
        /// The leader's epoch.
        epoch: LeaderEpoch,
        /// Why.
        because: Because,
    },
    /// The partition was dropped, and nothing touches it any more.
    Left(TopicPartition),
    /// Give the request under way up.
    Abandon,
    /// Send this request. Ends with [`Event::Answered`] or [`Event::Broke`].
    Fetch(Ask),
}

/// Why a partition is not fetched for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The leader answered with this.
    Answered(ErrorCode),
    /// Work here failed.
    Failed(Failure),
}

/// What a partition is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Work that a request could overtake: waiting for durability.
    Settling(Ticket),
    /// Fetched by requests from this number on.
    Fetching {
        /// Number of the first request whose answer counts.
        since: u64,
    },
    /// What an answer brought is being appended.
    Syncing(Ticket),
    /// Its tail is being cut.
    Cutting(Ticket),
    /// It starts over.
    StartingOver(Ticket),
    /// Not fetched before then.
    Waiting {
        /// When it is looked at again.
        until: Millis,
        /// Why.
        why: Trouble,
    },
    /// Not fetched before the bound on replication allows it.
    Paused,
    /// Not fetched until it is assigned again.
    Stopped(Trouble),
}
