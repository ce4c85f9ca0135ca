//! What one can ask of the controller, and what it answers.
//!
//! A command carries all that is random or depends on time and place: ids are drawn by whoever
//! submits it. Submitting the *same* command again after an unknown outcome is safe: a topic that
//! already exists under the id asked for, a pointer that already carries the request's id, an
//! incarnation that is already registered, are answered as done.

use std::collections::BTreeMap;
use std::sync::Arc;

use proto::ids::{DirectoryId, LeaderEpoch, NodeId, Offset, TopicId, TopicPartition, Uuid};
use proto::metadata::{ConfigResource, Endpoint, TierPointer};

use crate::raft::Level;

/// A change one asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Gives the cluster its id and features. Done once.
    FormCluster(FormCluster),
    /// A broker process reports for duty.
    RegisterBroker(RegisterBroker),
    /// A broker comes into, or goes out of, service.
    SetBrokerState(SetBrokerState),
    /// Creates topics, each for itself: some may be refused.
    CreateTopics(CreateTopics),
    /// Deletes topics.
    DeleteTopics(DeleteTopics),
    /// Adds partitions to topics.
    CreatePartitions(CreatePartitions),
    /// Changes configs. Values have been validated by the broker.
    AlterConfigs(AlterConfigs),
    /// Takes a block of producer ids.
    AllocateProducerIds {
        /// The broker that takes it.
        broker: NodeId,
        /// Its epoch.
        broker_epoch: i64,
    },
    /// Moves tier pointers.
    CommitTier(Vec<TierCommit>),
    /// Moves the log start of partitions whose history may be tiered.
    DeleteRecords(Vec<DeleteRecords>),
    /// Changes in-sync replicas.
    AlterPartitions(AlterPartitions),
    /// Elects leaders.
    ElectLeaders(ElectLeaders),
    /// Nothing is left in the tier of these deleted topics.
    FinishDeletions(Vec<TopicId>),
}

impl Command {
    /// How much slack there must be left on a full disk for it to be carried out: what makes room has precedence over
    /// what takes some.
    pub(crate) fn needs(&self) -> Level {
        match self {
            Self::FormCluster(_) | Self::RegisterBroker(_) | Self::SetBrokerState(_) => Level::Low,
            Self::DeleteTopics(_)
            | Self::CommitTier(_)
            | Self::DeleteRecords(_)
            | Self::FinishDeletions(_)
            | Self::AlterPartitions(_)
            | Self::ElectLeaders(_) => Level::Some,
            Self::CreateTopics(_)
            | Self::CreatePartitions(_)
            | Self::AlterConfigs(_)
            | Self::AllocateProducerIds { .. } => Level::Whole,
        }
    }

    /// Whether it may be submitted again after an unknown outcome, and is then answered as the first one would have been.
    pub fn is_repeatable(&self) -> bool {
        match self {
            Self::DeleteTopics(delete) => delete.topics.iter().all(|topic| matches!(topic, TopicSelector::Id(_))),
            Self::ElectLeaders(elect) => elect.partitions.is_some(),
            Self::CreatePartitions(_) => false,
            Self::FormCluster(_)
            | Self::RegisterBroker(_)
            | Self::SetBrokerState(_)
            | Self::CreateTopics(_)
            | Self::AlterConfigs(_)
            | Self::AllocateProducerIds { .. }
            | Self::CommitTier(_)
            | Self::DeleteRecords(_)
            | Self::AlterPartitions(_)
            | Self::FinishDeletions(_) => true,
        }
    }

    /// About how many bytes it takes in the queue.
    pub(crate) fn weight(&self) -> usize {
        let configs = |configs: &BTreeMap<String, String>| -> usize {
            configs.iter().map(|(key, value)| key.len() + value.len() + 64).sum()
        };
        let items: usize = match self {
            Self::CreateTopics(create) => create
                .topics
                .iter()
                .map(|topic| {
                    let replicas: usize = topic.assignments.values().map(|r| 32 + 4 * r.len()).sum();
                    256 + topic.name.len() + replicas + configs(&topic.configs)
                })
                .sum(),
            Self::DeleteTopics(delete) => delete.topics.len() * 256,
            Self::CreatePartitions(create) => create
                .topics
                .iter()
                .map(|topic| {
                    let assigned = topic.assignments.as_deref().unwrap_or_default();
                    128 + topic.name.len() + assigned.iter().map(|r| 32 + 4 * r.len()).sum::<usize>()
                })
                .sum(),
            Self::AlterConfigs(alter) => alter
                .resources
                .iter()
                .map(|(resource, change)| {
                    let change: usize = match change {
                        ConfigChange::Replace(values) => configs(values),
                        ConfigChange::Incremental(ops) => {
                            ops.iter().map(|(key, op)| 64 + key.len() + op.weight()).sum()
                        }
                    };
                    64 + resource.name.len() + change
                })
                .sum(),
            Self::CommitTier(commits) => commits
                .iter()
                .map(|commit| {
                    let entries = commit.pointer.tail.iter();
                    256 + entries.map(|e| 192 + 16 * e.epochs.len() + 24 * e.points.len()).sum::<usize>()
                })
                .sum(),
            Self::DeleteRecords(deletes) => deletes.len() * size_of::<DeleteRecords>(),
            Self::AlterPartitions(alter) => alter.partitions.iter().map(|change| 64 + 16 * change.isr.len()).sum(),
            Self::ElectLeaders(elect) => elect.partitions.as_ref().map_or(0, |p| p.len() * 32),
            Self::FinishDeletions(topics) => topics.len() * size_of::<TopicId>(),
            Self::FormCluster(_)
            | Self::RegisterBroker(_)
            | Self::SetBrokerState(_)
            | Self::AllocateProducerIds { .. } => 1024,
        };
        size_of::<Self>() + items
    }
}

/// See [`Command::FormCluster`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormCluster {
    /// The id to take, if there is none yet.
    pub cluster_id: String,
    /// Features and their levels to set.
    pub features: Vec<(String, i16)>,
}

/// See [`Command::RegisterBroker`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisterBroker {
    /// Node id.
    pub id: NodeId,
    /// Drawn once by the process.
    pub incarnation: Uuid,
    /// Where it can be reached.
    pub endpoints: Vec<Endpoint>,
    /// Failure domain.
    pub rack: Option<String>,
    /// Data directories that are online.
    pub directories: Vec<DirectoryId>,
    /// Whether it can lead at once. Otherwise it is fenced until [`SetBrokerState`] says so.
    pub ready: bool,
}

/// See [`Command::SetBrokerState`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetBrokerState {
    /// Node id.
    pub id: NodeId,
    /// Epoch of its registration.
    pub broker_epoch: i64,
    /// What it wants to be.
    pub state: BrokerState,
    /// Data directories that are online, if that changed.
    pub directories: Option<Vec<DirectoryId>>,
}

/// Whether a broker serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BrokerState {
    /// Serves.
    Active,
    /// Still serves, but hands over what it leads.
    ShuttingDown,
    /// Serves nothing.
    Fenced,
}

/// Whether a command is carried out or only tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Carry it out.
    #[default]
    Commit,
    /// Answer as if, change nothing (`validate_only`).
    Validate,
}

/// See [`Command::CreateTopics`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateTopics {
    /// What to create.
    pub topics: Vec<NewTopic>,
    /// Partitions of topics that do not say (`num.partitions`).
    pub default_partitions: i32,
    /// Replication factor of topics that do not say (`default.replication.factor`).
    pub default_replication_factor: i16,
    /// Whether to do it.
    pub mode: Mode,
}

/// A topic to be created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTopic {
    /// Drawn by whoever submits, kept when submitting again.
    pub id: TopicId,
    /// Its name.
    pub name: String,
    /// How many partitions, -1 for the default or if `assignments` say it.
    pub partitions: i32,
    /// How many replicas, -1 for the default or if `assignments` say it.
    pub replication_factor: i16,
    /// Replicas of each partition by index; empty to leave it to the controller.
    pub assignments: BTreeMap<i32, Vec<NodeId>>,
    /// Configs, validated.
    pub configs: BTreeMap<String, String>,
}

/// A topic that was created, or would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreatedTopic {
    /// Its id.
    pub id: TopicId,
    /// Its name.
    pub name: String,
    /// How many partitions it has.
    pub partitions: i32,
    /// How many replicas each of them has.
    pub replication_factor: i16,
}

/// See [`Command::DeleteTopics`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeleteTopics {
    /// Which ones.
    pub topics: Vec<TopicSelector>,
}

/// A topic by one of its names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum TopicSelector {
    /// By id.
    Id(TopicId),
    /// By name.
    Name(String),
}

/// See [`Command::CreatePartitions`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreatePartitions {
    /// Which topics, to how many.
    pub topics: Vec<NewPartitions>,
    /// Whether to do it.
    pub mode: Mode,
}

/// A topic that gets more partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPartitions {
    /// Name of the topic.
    pub name: String,
    /// How many partitions it has afterwards.
    pub count: i32,
    /// Replicas of the new ones, none to leave it to the controller.
    pub assignments: Option<Vec<Vec<NodeId>>>,
}

/// See [`Command::AlterConfigs`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlterConfigs {
    /// Changes, each resource for itself.
    pub resources: Vec<(ConfigResource, ConfigChange)>,
    /// Whether to do it.
    pub mode: Mode,
}

/// How the configs of a resource change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigChange {
    /// They are exactly these from here on (`AlterConfigs`).
    Replace(BTreeMap<String, String>),
    /// These change, in this order (`IncrementalAlterConfigs`, KIP-339).
    Incremental(Vec<(String, ConfigOp)>),
}

/// One change of one config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigOp {
    /// Has this value.
    Set(String),
    /// Is no longer set.
    Delete,
    /// A list gets these items (comma separated) unless it has them. `inherited` is the value that
    /// counts if none is set.
    Append {
        /// Items.
        items: String,
        /// What the list is while it is not set.
        inherited: String,
    },
    /// A list loses these items.
    Subtract {
        /// Items.
        items: String,
        /// What the list is while it is not set.
        inherited: String,
    },
}

impl ConfigOp {
    fn weight(&self) -> usize {
        match self {
            Self::Set(value) => value.len(),
            Self::Delete => 0,
            Self::Append { items, inherited } | Self::Subtract { items, inherited } => items.len() + inherited.len(),
        }
    }
}

/// How many producer ids a block has.
pub const PRODUCER_ID_BLOCK: i64 = 1000;

/// A block of producer ids: `first .. first + count`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerIdBlock {
    /// First id.
    pub first: i64,
    /// How many.
    pub count: i64,
}

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

/// Why a pointer was not moved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TierRefusal {
    /// The pointer has moved since the change was planned. It now is:
    #[error("the tier pointer has moved to another generation")]
    Stale(Option<Arc<TierPointer>>),
    /// The committer does not lead the partition any more (invariant FENCED).
    #[error("leader epoch {asked} is fenced, the partition is at {current}")]
    Fenced {
        /// Epoch of the committer.
        asked: LeaderEpoch,
        /// Epoch of the partition.
        current: LeaderEpoch,
    },
    /// The topic does not exist any more.
    #[error("the partition does not exist")]
    Gone,
    /// The pointer breaks an invariant: a defect of the committer.
    #[error("the tier pointer is not valid: {0}")]
    Invalid(&'static str),
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

/// The answer to a command, of the same name.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The cluster's id, whether it is new or was there.
    FormCluster(String),
    /// The broker's epoch.
    RegisterBroker(i64),
    /// Done.
    SetBrokerState,
    /// In the order asked.
    CreateTopics(Vec<Result<CreatedTopic, Refusal>>),
    /// In the order asked: id and name.
    DeleteTopics(Vec<Result<(TopicId, String), Refusal>>),
    /// In the order asked.
    CreatePartitions(Vec<Result<(), Refusal>>),
    /// In the order asked.
    AlterConfigs(Vec<Result<(), Refusal>>),
    /// The block.
    AllocateProducerIds(ProducerIdBlock),
    /// In the order asked: the pointer as committed.
    CommitTier(Vec<Result<Arc<TierPointer>, TierRefusal>>),
    /// In the order asked: the pointer as it is from here on.
    DeleteRecords(Vec<Result<Arc<TierPointer>, Refusal>>),
    /// In the order asked.
    AlterPartitions(Vec<Result<(), Refusal>>),
    /// In the order asked, or for all partitions whose leader was not the right one.
    ElectLeaders(Vec<(TopicPartition, Result<(), Refusal>)>),
    /// Done.
    FinishDeletions,
}

/// Why the controller did not do what it was asked. The broker maps each to one of Kafka's codes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// INVALID_TOPIC_EXCEPTION
    #[error("{0}")]
    InvalidTopicName(String),
    /// TOPIC_ALREADY_EXISTS
    #[error("Topic '{0}' already exists.")]
    TopicExists(String),
    /// INVALID_TOPIC_EXCEPTION: differs from another topic in '.' and '_' only.
    #[error("Topic '{name}' collides with existing topic: {existing}")]
    TopicCollides {
        /// Name asked for.
        name: String,
        /// Name of the other topic.
        existing: String,
    },
    /// UNKNOWN_TOPIC_OR_PARTITION
    #[error("This server does not host this topic-partition.")]
    UnknownTopic,
    /// UNKNOWN_TOPIC_ID
    #[error("This server does not host this topic ID.")]
    UnknownTopicId,
    /// INVALID_PARTITIONS
    #[error("{0}")]
    InvalidPartitions(String),
    /// INVALID_REPLICATION_FACTOR
    #[error("{0}")]
    InvalidReplicationFactor(String),
    /// INVALID_REPLICA_ASSIGNMENT
    #[error("{0}")]
    InvalidReplicaAssignment(String),
    /// INVALID_REQUEST
    #[error("{0}")]
    InvalidRequest(String),
    /// INVALID_CONFIG
    #[error("{0}")]
    InvalidConfig(String),
    /// POLICY_VIOLATION: a bound of Firn itself.
    #[error("{0}")]
    TooMany(String),
    /// BROKER_ID_NOT_REGISTERED
    #[error("broker {0} is not registered")]
    BrokerNotRegistered(NodeId),
    /// STALE_BROKER_EPOCH
    #[error("broker epoch {asked} is stale, the broker is registered with {current}")]
    StaleBrokerEpoch {
        /// Epoch given.
        asked: i64,
        /// Epoch of the registration.
        current: i64,
    },
    /// FENCED_LEADER_EPOCH
    #[error("leader epoch {asked} is fenced, the partition is at {current}")]
    FencedLeaderEpoch {
        /// Epoch given.
        asked: LeaderEpoch,
        /// Epoch of the partition.
        current: LeaderEpoch,
    },
    /// INVALID_UPDATE_VERSION
    #[error("the partition's state has changed since")]
    InvalidUpdateVersion,
    /// INELIGIBLE_REPLICA
    #[error("replica {0} may not join the in-sync replicas")]
    IneligibleReplica(NodeId),
    /// ELECTION_NOT_NEEDED
    #[error("The leader is already the right one.")]
    ElectionNotNeeded,
    /// PREFERRED_LEADER_NOT_AVAILABLE
    #[error("The preferred leader is not available.")]
    PreferredLeaderNotAvailable,
    /// ELIGIBLE_LEADERS_NOT_AVAILABLE
    #[error("No eligible leader is available.")]
    EligibleLeadersNotAvailable,
}
