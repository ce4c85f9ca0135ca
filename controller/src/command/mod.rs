//! What one can ask of the controller, and what it answers.
//!
//! A command carries all that is random or depends on time and place: ids are drawn by whoever
//! submits it. Submitting the *same* command again after an unknown outcome is safe: a topic that
//! already exists under the id asked for, a pointer that already carries the request's id, an
//! incarnation that is already registered, are answered as done. What cannot be told apart from a second request is
//! named by [`Command::is_repeatable`].

use std::collections::BTreeMap;
use std::sync::Arc;

use proto::ids::{DirectoryId, NodeId, TopicId, TopicPartition};
use proto::metadata::{Duty, Share, TierPointer};

use crate::raft::Level;

mod brokers;
mod partitions;
mod refusal;
mod tier;
mod topics;

pub use brokers::{
    BrokerState, Clean, Direction, FeatureUpdate, FormCluster, RegisterBroker, SetBrokerState, UpdateFeatures,
};
pub use partitions::{
    AlterPartitions, AlterReassignments, AssignDirectories, ElectLeaders, Election, Elections, FinishDeletions,
    IsrChange,
};
pub use refusal::{Refusal, TierRefusal};
pub use tier::{DeleteRecords, TierCommit};
pub use topics::{
    AlterConfigs, ConfigChange, ConfigOp, CreatePartitions, CreateTopics, CreatedTopic, DeleteTopics, NewPartitions,
    NewTopic, Shortage, TopicSelector,
};

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
    FinishDeletions(FinishDeletions),
    /// Moves replicas, or takes back a move that is under way (KIP-455).
    AlterReassignments(AlterReassignments),
    /// Tells in which directories replicas lie (KIP-858).
    AssignDirectories(AssignDirectories),
    /// Takes a broker out of the cluster for good.
    UnregisterBroker(NodeId),
    /// Says what part of the replicas a broker is to have.
    SetShare {
        /// The broker.
        id: NodeId,
        /// Its part.
        share: Share,
    },
    /// Raises or lowers the levels of features.
    UpdateFeatures(UpdateFeatures),
    /// Binds the id of a voter to its disk, seen for the first time. [`DirectoryId::UNASSIGNED`] forgets the disk that was
    /// bound: the voter was removed.
    BindVoter {
        /// The voter.
        id: NodeId,
        /// Its metadata directory.
        directory: DirectoryId,
    },
    /// Gives duties to nodes.
    AssignDuties(Vec<(Duty, NodeId)>),
    /// Looks for partitions that need an election, from time to time.
    Sweep(Elections),
}

impl Command {
    /// How much slack there must be left on a full disk for it to be carried out: what makes room has precedence over
    /// what takes some.
    pub(crate) fn needs(&self) -> Level {
        match self {
            Self::FormCluster(_) | Self::RegisterBroker(_) | Self::SetBrokerState(_) => Level::Low,
            Self::BindVoter { .. } | Self::UnregisterBroker(_) | Self::AssignDuties(_) => Level::Low,
            Self::DeleteTopics(_)
            | Self::CommitTier(_)
            | Self::DeleteRecords(_)
            | Self::FinishDeletions(_)
            | Self::AlterPartitions(_)
            | Self::AssignDirectories(_)
            | Self::Sweep(_)
            | Self::SetShare { .. }
            | Self::ElectLeaders(_) => Level::Some,
            Self::CreateTopics(_)
            | Self::CreatePartitions(_)
            | Self::AlterConfigs(_)
            | Self::AlterReassignments(_)
            | Self::UpdateFeatures(_)
            | Self::AllocateProducerIds { .. } => Level::Whole,
        }
    }

    /// Whether submitting it again, after its outcome was lost, comes to the same as if it had been submitted once. The
    /// answer may differ only where the first one's would be just as true (an election that is not needed any more).
    pub fn is_repeatable(&self) -> bool {
        match self {
            // A topic of that name may have been created since.
            Self::DeleteTopics(delete) => delete.topics.iter().all(|selector| matches!(selector, TopicSelector::Id(_))),
            // All partitions whose leader changed are named in the answer: the second one would not name them.
            Self::ElectLeaders(elect) => elect.partitions.is_some(),
            // The id may have been registered anew; partitions that were added are not added to a second time, and that
            // is answered with an error.
            Self::UnregisterBroker(_) | Self::CreatePartitions(_) => false,
            Self::FormCluster(_)
            | Self::RegisterBroker(_)
            | Self::SetBrokerState(_)
            | Self::CreateTopics(_)
            | Self::AlterConfigs(_)
            | Self::AllocateProducerIds { .. }
            | Self::CommitTier(_)
            | Self::DeleteRecords(_)
            | Self::AlterPartitions(_)
            | Self::FinishDeletions(_)
            | Self::AlterReassignments(_)
            | Self::AssignDirectories(_)
            | Self::SetShare { .. }
            | Self::UpdateFeatures(_)
            | Self::BindVoter { .. }
            | Self::AssignDuties(_)
            | Self::Sweep(_) => true,
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
            Self::FinishDeletions(finish) => finish.topics.len() * size_of::<TopicId>(),
            Self::AlterReassignments(alter) => {
                alter.changes.iter().map(|(_, target)| 64 + 4 * target.as_ref().map_or(0, Vec::len)).sum()
            }
            Self::AssignDirectories(assign) => assign.places.len() * 48,
            Self::UpdateFeatures(update) => update.updates.iter().map(|update| 64 + update.name.len()).sum(),
            Self::AssignDuties(duties) => duties.len() * 16,
            Self::UnregisterBroker(_) | Self::SetShare { .. } | Self::BindVoter { .. } | Self::Sweep(_) => 0,
            Self::FormCluster(_)
            | Self::RegisterBroker(_)
            | Self::SetBrokerState(_)
            | Self::AllocateProducerIds { .. } => 1024,
        };
        size_of::<Self>() + items
    }
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
    /// In the order asked.
    AlterReassignments(Vec<Result<(), Refusal>>),
    /// In the order asked.
    AssignDirectories(Vec<Result<(), Refusal>>),
    /// Done.
    UnregisterBroker,
    /// Done.
    SetShare,
    /// In the order asked. If one is refused none is carried out.
    UpdateFeatures(Vec<Result<(), Refusal>>),
    /// The voter is bound to the directory asked for.
    BindVoter,
    /// Epochs of the duties, in the order asked.
    AssignDuties(Vec<i32>),
    /// How many partitions got another leader.
    Sweep(u32),
}
