//! Commands about partitions: who is in sync, who leads, where replicas lie.

use proto::ids::{DirectoryId, LeaderEpoch, NodeId, TopicId, TopicPartition};

/// See [`Command::AlterPartitions`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlterPartitions {
    /// The leader that asks.
    pub broker: NodeId,
    /// Epoch of its registration.
    pub broker_epoch: i64,
    /// What it asks for.
    pub partitions: Vec<IsrChange>,
}

/// A change of the in-sync replicas of a partition (KIP-497).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IsrChange {
    /// Which partition.
    pub tp: TopicPartition,
    /// Leader epoch of the leader that asks.
    pub leader_epoch: LeaderEpoch,
    /// State the change was planned on.
    pub partition_epoch: i32,
    /// In-sync replicas from here on, with the broker epoch the leader knows of each (KIP-903), -1
    /// if it knows none.
    pub isr: Vec<(NodeId, i64)>,
    /// The leader has settled what it has after an unclean election. Until it says so it is alone in the set.
    pub recovered: bool,
}

/// See [`Command::ElectLeaders`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ElectLeaders {
    /// How.
    pub election: Election,
    /// Which partitions; none for all.
    pub partitions: Option<Vec<TopicPartition>>,
}

/// Kinds of election (KIP-460).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Election {
    /// The first replica, if it is in sync.
    Preferred,
    /// Any live replica, if there is no leader. May lose records.
    Unclean,
}

/// See [`Command::Sweep`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Elections {
    /// Gives partitions without a leader any live replica, where the config of their topic allows it. May lose records.
    pub unclean: bool,
    /// Restores preferred leaders of brokers that lead too few of those they are preferred for.
    pub preferred: bool,
}

/// See [`Command::AlterReassignments`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlterReassignments {
    /// Replicas to be of each partition, preferred leader first; none takes back what is under way.
    pub changes: Vec<(TopicPartition, Option<Vec<NodeId>>)>,
    /// Whether the number of replicas may change (KIP-860).
    pub allow_factor_change: bool,
    /// Partition epochs that changes were planned on: where one has moved on, the change is refused. None of an operator's,
    /// whose word counts whatever happened meanwhile.
    pub planned_on: Vec<(TopicPartition, i32)>,
}

/// See [`Command::AssignDirectories`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssignDirectories {
    /// The broker whose replicas they are.
    pub broker: NodeId,
    /// Epoch of its registration.
    pub broker_epoch: i64,
    /// Partitions and the directory each of them lies in.
    pub places: Vec<(TopicPartition, DirectoryId)>,
}

/// See [`Command::FinishDeletions`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FinishDeletions {
    /// Deleted topics of which nothing is left.
    pub topics: Vec<TopicId>,
    /// Epoch under which whoever asks has the duty of the sweeper, 0 while nobody was given it.
    pub duty_epoch: i32,
}
