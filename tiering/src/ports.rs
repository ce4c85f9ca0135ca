//! What tiering needs from the parts above it. The broker implements these over its controller handle
//! and its partitions; tests implement them in memory.

use async_trait::async_trait;
use bytes::Bytes;
use proto::ids::{LeaderEpoch, Millis, Offset, TopicPartition};
use proto::metadata::TierPointer;
use uuid::Uuid;

use crate::format::{AbortedTxn, EpochHistory};

/// A change to one partition's pointer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// The partition.
    pub tp: TopicPartition,
    /// Epoch of the leader that asks. An older one than the partition's is refused (FENCED).
    pub leader_epoch: LeaderEpoch,
    /// Generation the change was planned on. If the stored one differs it is refused, unless it is
    /// this very request that made it.
    pub expected_generation: u64,
    /// Names the request: asked again, it is answered and not repeated.
    pub request: Uuid,
    /// The pointer to store.
    pub pointer: TierPointer,
}

/// Why a pointer did not move, or may have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// Another change came first: read the pointer and plan again.
    #[error("the pointer moved on")]
    Stale,
    /// Another broker leads the partition, under a newer epoch.
    #[error("fenced by a newer leader")]
    Fenced,
    /// The partition is no more.
    #[error("the partition was deleted")]
    Gone,
    /// It was refused for another reason; it did not happen.
    #[error("refused: {0}")]
    Refused(String),
    /// It may have happened or may still happen.
    #[error("outcome unknown: {0}")]
    Unknown(String),
}

/// Why a pointer could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PointerError {
    /// The partition is no more.
    #[error("the partition was deleted")]
    Gone,
    /// The quorum does not answer.
    #[error("the metadata quorum does not answer: {0}")]
    Unavailable(String),
}

/// A partition of a deleted topic whose objects this broker is to sweep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeletedPartition {
    /// The partition.
    pub tp: TopicPartition,
    /// When its topic was deleted.
    pub deleted_at: Millis,
}

/// The pointers in the metadata quorum.
#[async_trait]
pub trait Pointers: Send + Sync {
    /// The pointer in the image this broker holds, which may lag. A partition that exists and has never
    /// tiered anything has the default pointer. None: the partition is not known.
    fn current(&self, tp: TopicPartition) -> Option<TierPointer>;

    /// The pointer as of now: linearizable.
    async fn read_fresh(&self, tp: TopicPartition) -> Result<TierPointer, PointerError>;

    /// Commits changes, each by itself; answers in the order of the requests. An accepted change is
    /// answered with the pointer as stored.
    async fn commit(&self, commits: Vec<Commit>) -> Vec<Result<TierPointer, CommitError>>;

    /// Partitions of deleted topics that this broker is charged with sweeping.
    fn deleted(&self) -> Vec<DeletedPartition>;

    /// Nothing is left of these in the object store.
    async fn swept(&self, partitions: Vec<TopicPartition>);

    /// Older pointers of `tp` that a retained cluster snapshot could restore (ROOTED): what they cover
    /// is not deleted.
    fn retained(&self, _tp: TopicPartition) -> Vec<TierPointer> {
        Vec::new()
    }

    /// False while this broker's clock is known to be off by more than five minutes: retention and
    /// sweeping pause.
    fn clock_is_sound(&self) -> bool {
        true
    }
}

/// Bounds of one local segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentBounds {
    /// First offset. Inclusive.
    pub base: Offset,
    /// First offset after it. Exclusive; a batch border.
    pub end: Offset,
    /// Bytes.
    pub bytes: u64,
    /// Greatest timestamp, -1 if there is none.
    pub max_timestamp: Millis,
}

/// Settings of a topic that tiering acts on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TierSettings {
    /// `remote.storage.enable`, for a topic that can be tiered. If false nothing is uploaded, and what
    /// is tiered already only expires.
    pub enabled: bool,
    /// `segment.bytes`: an object is uploaded when this much is waiting.
    pub segment_bytes: u64,
    /// `firn.tier.max.lag.ms`.
    pub max_lag_ms: Millis,
    /// `retention.ms`, None if unlimited or if `cleanup.policy` does not delete.
    pub retention_ms: Option<Millis>,
    /// `retention.bytes`, None if unlimited or if `cleanup.policy` does not delete.
    pub retention_bytes: Option<u64>,
}

/// A partition's local log at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalState {
    /// Epoch of the partition's leader. Grows also when the same broker leads again after a restart:
    /// the sweeper relies on it.
    pub leader_epoch: LeaderEpoch,
    /// Whether this broker leads. Otherwise nothing happens.
    pub is_leader: bool,
    /// First readable offset, as far as the local log knows.
    pub log_start: Offset,
    /// First offset on local disk.
    pub local_start: Offset,
    /// Nothing at or above this is uploaded. A batch border.
    pub last_stable: Offset,
    /// End of what is committed in the log; at or above `last_stable`.
    pub high_watermark: Offset,
    /// First offset not yet appended.
    pub log_end: Offset,
    /// Segments that are no longer appended to, ascending.
    pub rolled: Vec<SegmentBounds>,
    /// Bytes on disk at or above the tier's end, an estimate that is never too low by more than one
    /// segment.
    pub untiered_bytes: u64,
    /// When the oldest record at or above the tier's end was appended (broker's time, not the
    /// record's), None if there is none.
    pub oldest_untiered_ms: Option<Millis>,
    /// The topic's settings.
    pub settings: TierSettings,
}

/// What an object's footer needs to know besides its batches.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LocalSections {
    /// The leader-epoch cache up to the end of the range, older epochs included.
    pub epochs: EpochHistory,
    /// Aborted transactions that overlap the range, wherever their markers are.
    pub aborted: Vec<AbortedTxn>,
    /// Producer snapshot at the end of the range, with the open transactions; self-describing.
    pub producers: Bytes,
}

/// Why the local log did not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LocalError {
    /// The range is not local (any more), or the partition is not here.
    #[error("the range is not in the local log")]
    OutOfRange,
    /// The data directory is offline or reading failed.
    #[error("reading the local log: {0}")]
    Io(String),
}

/// The local logs of this broker.
#[async_trait]
pub trait LocalLog: Send + Sync {
    /// Partitions this broker leads and that are or were tiered.
    fn led(&self) -> Vec<TopicPartition>;

    /// A partition's state; None if it is not here.
    fn state(&self, tp: TopicPartition) -> Option<LocalState>;

    /// Whole batches from the one that holds `from` (a batch border), none of which ends above `to`:
    /// at least one batch if there is one, else at most `max_bytes`. Empty at `to`.
    async fn read(
        &self,
        tp: TopicPartition,
        from: Offset,
        to: Offset,
        max_bytes: usize,
    ) -> Result<Vec<Bytes>, LocalError>;

    /// What the footer of `[from, to)` needs.
    async fn sections(&self, tp: TopicPartition, from: Offset, to: Offset) -> Result<LocalSections, LocalError>;

    /// The pointer was committed: trim what it allows, move the log start. Called at once after each
    /// commit; must not block.
    fn committed(&self, tp: TopicPartition, pointer: &TierPointer);
}
