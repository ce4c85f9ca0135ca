//! Commands about topics and configs.

use std::collections::BTreeMap;

use proto::ids::{NodeId, TopicId};
use proto::metadata::ConfigResource;

use super::Mode;

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
    /// What to do if fewer brokers are there than it is to have replicas.
    pub shortage: Shortage,
    /// Replicas of each partition by index; empty to leave it to the controller.
    pub assignments: BTreeMap<i32, Vec<NodeId>>,
    /// Configs, validated.
    pub configs: BTreeMap<String, String>,
}

/// What to do with a topic for whose replicas there are too few brokers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Shortage {
    /// Do not create it.
    #[default]
    Refuse,
    /// Create it with as many replicas as there are brokers: what a broker's own topics need to come into being in a
    /// small cluster.
    Shrink,
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
    pub(super) fn weight(&self) -> usize {
        match self {
            Self::Set(value) => value.len(),
            Self::Delete => 0,
            Self::Append { items, inherited } | Self::Subtract { items, inherited } => items.len() + inherited.len(),
        }
    }
}
