//! What is asked of a partition and what it answers.
//!
//! One enum per operation says how it may fail; the map from these to Kafka's error codes is in one
//! place, `broker::api`.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::BoxFuture;
use proto::ids::{LeaderEpoch, Millis, NodeId, Offset};
use proto::records::{BatchError, BatchInfo};
use tokio::sync::oneshot;

use crate::log::epochs::EpochEnd;
pub use crate::log::producers::AbortedTxn;

/// Who appends: decides which checks apply (Kafka's `AppendOrigin`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A producer: epochs and sequences are checked.
    Client,
    /// A coordinator of this broker: epochs are checked, sequences are not.
    Coordinator,
    /// A leader we follow: what it assigned is taken as it is.
    Replica,
}

/// What an acknowledgement waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acks {
    /// Nobody waits.
    None,
    /// The leader's own log (`acks=1`).
    Leader,
    /// Every in-sync replica's log (`acks=all`).
    All,
}

/// A request to append.
#[derive(Debug, Clone)]
pub struct Append<'a> {
    /// The epoch the writer believes the leader to have, if it said so.
    pub leader_epoch: Option<LeaderEpoch>,
    /// Validated batches, back to back. Base offsets and leader epochs in them are patched in the
    /// log's own copy, except with [`Origin::Replica`].
    pub batches: Bytes,
    /// One entry per batch of `batches`, in order; the sizes add up to its length.
    pub info: &'a [BatchInfo],
    /// Who asks.
    pub origin: Origin,
    /// What [`Appended::acked`] waits for.
    pub acks: Acks,
    /// Wall clock, Unix milliseconds.
    pub now_ms: Millis,
    /// The time stamped into the batches when the topic says LogAppendTime; comes back in
    /// [`Appended`].
    pub log_append_time: Option<Millis>,
}

/// What an append did.
#[derive(Debug)]
pub struct Appended {
    /// Offset of the first record; of the original's first record for a duplicate.
    pub base_offset: Offset,
    /// Offset of the last record, inclusive.
    pub last_offset: Offset,
    /// As in Produce: none with CreateTime.
    pub log_append_time: Option<Millis>,
    /// First offset of the partition that may be read.
    pub log_start: Offset,
    /// Whether an idempotent producer sent this batch before; nothing was appended then.
    pub duplicate: bool,
    /// Resolves when the acknowledgement may be sent.
    pub acked: AckFuture,
}

/// Why an append was refused. Nothing of it is in the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// This broker does not lead the partition.
    #[error("not the leader")]
    NotLeader,
    /// The writer's leader epoch is older than ours.
    #[error("leader epoch is older than {current}")]
    FencedLeaderEpoch {
        /// Ours.
        current: LeaderEpoch,
    },
    /// The writer's leader epoch is newer than ours.
    #[error("leader epoch is newer than {current}")]
    UnknownLeaderEpoch {
        /// Ours.
        current: LeaderEpoch,
    },
    /// Fewer replicas are in sync than `min.insync.replicas` (checked with [`Acks::All`]).
    #[error("{in_sync} replicas in sync, {required} required")]
    NotEnoughReplicas {
        /// Replicas in sync now.
        in_sync: usize,
        /// What the topic asks for.
        required: usize,
    },
    /// The data directory failed.
    #[error("the partition's data directory is offline")]
    Offline,
    /// The data directory has no room that is not reserved.
    #[error("the data directory is full")]
    DiskFull,
    /// The partition was deleted.
    #[error("the partition is gone")]
    Deleted,
    /// The producer's epoch was replaced by a newer one.
    #[error("producer {producer_id} has epoch {current}, request has {got}")]
    InvalidProducerEpoch {
        /// The producer.
        producer_id: i64,
        /// Epoch known here.
        current: i16,
        /// Epoch of the request.
        got: i16,
    },
    /// The sequence does not follow the producer's last one.
    #[error("producer {producer_id}: sequence {got} after {last}")]
    OutOfOrderSequence {
        /// The producer.
        producer_id: i64,
        /// Last sequence known here, -1 if none.
        last: i32,
        /// First sequence of the request.
        got: i32,
    },
    /// The batch does not fit the state of the producer's transaction.
    #[error("invalid transaction state of producer {producer_id}")]
    InvalidTxnState {
        /// The producer.
        producer_id: i64,
    },
    /// A marker from a coordinator that was replaced.
    #[error("coordinator epoch is older than {current}")]
    CoordinatorFenced {
        /// Coordinator epoch known here.
        current: i32,
    },
    /// A replica's batches do not continue the log.
    #[error("expected offset {expected}, got {got}")]
    OutOfOrderOffset {
        /// The log's end.
        expected: Offset,
        /// Base offset of the batch.
        got: Offset,
    },
    /// What a leader sent is damaged, or no batch.
    #[error("a batch from the leader does not check out: {0}")]
    Corrupt(BatchError),
    /// `info` does not describe `batches`: a defect of the caller.
    #[error("batch descriptions do not match the bytes")]
    Mismatch,
}

/// Why an appended batch will not be acknowledged. It may or may not survive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AckError {
    /// The data directory failed before the batch was safe.
    #[error("the data directory went offline")]
    Offline,
    /// Leadership moved away before the batch was safe.
    #[error("leadership was lost")]
    NotLeader,
    /// The partition was deleted meanwhile.
    #[error("the partition is gone")]
    Deleted,
}

/// Resolves once when the batch is as safe as asked for, or will not become so.
#[derive(Debug)]
pub struct AckFuture(AckState);

#[derive(Debug)]
enum AckState {
    Ready(Result<(), AckError>),
    Waiting(oneshot::Receiver<Result<(), AckError>>),
}

impl AckFuture {
    /// Already decided.
    pub const fn ready(outcome: Result<(), AckError>) -> Self {
        Self(AckState::Ready(outcome))
    }

    /// To be decided through the sender.
    pub const fn waiting(receiver: oneshot::Receiver<Result<(), AckError>>) -> Self {
        Self(AckState::Waiting(receiver))
    }
}

impl Future for AckFuture {
    type Output = Result<(), AckError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            AckState::Ready(outcome) => Poll::Ready(*outcome),
            AckState::Waiting(receiver) => Pin::new(receiver)
                .poll(context)
                // A sender that is dropped belonged to a partition that is going away.
                .map(|outcome| outcome.unwrap_or(Err(AckError::Deleted))),
        }
    }
}

/// Which records a reader may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// Up to the high watermark.
    ReadUncommitted,
    /// Up to the last stable offset; the answer lists aborted transactions.
    ReadCommitted,
    /// Up to the log end: for replicas only.
    LogEnd,
}

/// Who reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// A consumer that wants the leader, or somebody on this broker.
    Consumer,
    /// A consumer that takes any replica (KIP-392): a follower shows it what it knows to be committed.
    NearConsumer,
    /// A replica that follows.
    Follower(NodeId),
}

/// A request to read.
#[derive(Debug, Clone, Copy)]
pub struct Read {
    /// First offset wanted, inclusive.
    pub offset: Offset,
    /// Bytes of batches at most; see `min_one`.
    pub max_bytes: usize,
    /// Whether the first batch is handed out even if it alone exceeds `max_bytes` (KIP-74).
    pub min_one: bool,
    /// What may be seen.
    pub isolation: Isolation,
    /// The leader epoch the reader believes in, if it said so.
    pub leader_epoch: Option<LeaderEpoch>,
    /// Epoch of the last record the reader has (KIP-595 diverging epochs), if it said so.
    pub last_fetched_epoch: Option<LeaderEpoch>,
    /// Who reads.
    pub reader: Reader,
}

/// A list of slices that are sent as one.
pub type Chunks = Vec<Bytes>;

/// What a read found.
#[derive(Debug)]
pub struct ReadResult {
    /// The records, or where they are.
    pub data: ReadData,
    /// First offset that is not replicated everywhere, exclusive end for most readers.
    pub high_watermark: Offset,
    /// First offset of an undecided transaction, or the high watermark.
    pub last_stable: Offset,
    /// First offset that may be read, wherever it is.
    pub log_start: Offset,
    /// Transactions aborted in the range read ([`Isolation::ReadCommitted`]). With
    /// [`ReadData::Disk`] they are a superset: those up to the end of what may be read.
    pub aborted: Vec<AbortedTxn>,
    /// Where the reader's history leaves ours, if it does (KIP-595); `data` is empty then.
    pub diverging: Option<EpochEnd>,
    /// The end that bounded this read: pass it to `PartitionHandle::subscribe`.
    pub visible_end: Offset,
}

/// Records that have to be waited for. Dropping it gives the read up.
pub struct DiskRead(BoxFuture<'static, Result<Chunks, ReadError>>);

impl DiskRead {
    pub fn new(work: impl Future<Output = Result<Chunks, ReadError>> + Send + 'static) -> Self {
        Self(Box::pin(work))
    }

    /// Reads, off this thread. Empty if nothing fits into the limit.
    ///
    /// # Errors
    /// The directory went offline, or what lies there is corrupt.
    pub async fn run(self) -> Result<Chunks, ReadError> {
        self.0.await
    }
}

/// Records of a read.
pub enum ReadData {
    /// Nothing at or above the offset may be seen yet, or nothing fits.
    Empty,
    /// In memory.
    Ready(Chunks),
    /// On disk and not in the page cache: `run` it.
    Disk(DiskRead),
    /// Below the local start, in the tier.
    Remote,
}

impl fmt::Debug for ReadData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("Empty"),
            Self::Ready(chunks) => {
                let bytes: usize = chunks.iter().map(Bytes::len).sum();
                write!(f, "Ready({bytes} bytes)")
            }
            Self::Disk(_) => f.write_str("Disk"),
            Self::Remote => f.write_str("Remote"),
        }
    }
}

/// Why nothing can be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// This broker does not lead the partition.
    #[error("not the leader")]
    NotLeader,
    /// The reader's leader epoch is older than ours.
    #[error("leader epoch is older than {current}")]
    FencedLeaderEpoch {
        /// Ours.
        current: LeaderEpoch,
    },
    /// The reader's leader epoch is newer than ours.
    #[error("leader epoch is newer than {current}")]
    UnknownLeaderEpoch {
        /// Ours.
        current: LeaderEpoch,
    },
    /// The operating system is short of descriptors or memory: to be asked again.
    #[error("the operating system is short of descriptors or memory")]
    Busy,
    /// Below the log start or above the log end.
    #[error("offset out of range [{log_start}, {log_end}]")]
    OffsetOutOfRange {
        /// First offset that may be read.
        log_start: Offset,
        /// End of the log, exclusive.
        log_end: Offset,
        /// Where consumers may read to.
        high_watermark: Offset,
    },
    /// This follower may not have got there yet (KIP-392): to be asked again.
    #[error("the offset is not known here yet")]
    OffsetNotAvailable,
    /// The data directory failed.
    #[error("the partition's data directory is offline")]
    Offline,
    /// The partition was deleted.
    #[error("the partition is gone")]
    Deleted,
    /// What lies on disk is not what was written.
    #[error("segment is corrupt: {0}")]
    Corrupt(String),
}

/// The ends of a partition, all exclusive except the starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offsets {
    /// First offset that may be read, local or tiered.
    pub log_start: Offset,
    /// First offset that is on local disk.
    pub local_start: Offset,
    /// First offset that is not in the tier; equals `log_start` or less if nothing is.
    pub tier_end: Offset,
    /// First offset that is not durable here.
    pub synced_end: Offset,
    /// First offset that is not durable on every in-sync replica.
    pub high_watermark: Offset,
    /// First offset of an undecided transaction, or the high watermark.
    pub last_stable: Offset,
    /// Offset that the next record gets.
    pub log_end: Offset,
}

/// A record found by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimestampOffset {
    /// Offset of the record.
    pub offset: Offset,
    /// Its timestamp, Unix milliseconds.
    pub timestamp: Millis,
    /// Epoch of the leader that wrote it, -1 if unknown.
    pub leader_epoch: LeaderEpoch,
}

/// The answer to a search by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestampAnswer {
    /// First record at or after the time, on local disk.
    Found(TimestampOffset),
    /// No record that is visible is that young.
    None,
    /// Something below the local start may be as young: search the tier, then, if nothing is found
    /// there, again with `offset_for_timestamp_local`.
    Remote,
}
