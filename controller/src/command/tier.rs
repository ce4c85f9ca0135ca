//! Commands about what is tiered.

use proto::ids::{LeaderEpoch, Offset, TopicPartition, Uuid};
use proto::metadata::TierPointer;

/// A change of one tier pointer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TierCommit {
    /// Which partition.
    pub tp: TopicPartition,
    /// Epoch in which the committer leads it.
    pub leader_epoch: LeaderEpoch,
    /// Generation of the pointer the change was planned on, 0 if there was none.
    pub expected_generation: u64,
    /// Drawn once per change, kept when submitting again.
    pub request: Uuid,
    /// The pointer to be. Its `generation`, `leader_epoch`, `committed_at` and `request` are filled
    /// in by the controller.
    pub pointer: TierPointer,
}

/// A log start to be moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeleteRecords {
    /// Which partition. If nothing of it is tiered yet it gets a pointer that says only this.
    pub tp: TopicPartition,
    /// Epoch in which the committer leads it.
    pub leader_epoch: LeaderEpoch,
    /// First offset that stays. Nothing happens if the log starts there or later.
    pub log_start: Offset,
}
