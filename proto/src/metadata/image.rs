//! The image: all that the records add up to, in maps that share what did not change, so that a
//! clone is cheap and readers keep theirs as long as they like.

use std::collections::BTreeMap;
use std::sync::Arc;

use imbl::ordmap::DiffItem;
use imbl::{OrdMap, OrdSet};
use serde::{Deserialize, Serialize};

use super::encode::FEATURE;
use super::record::{Broker, ConfigResource, Duty, PartitionState};
use super::tier::TierPointer;
use crate::ids::{DirectoryId, Millis, NodeId, TopicId, TopicPartition};

/// The cluster's metadata at one offset.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Image {
    pub(super) offset: u64,
    pub(super) cluster_id: Option<Arc<str>>,
    pub(super) features: OrdMap<Arc<str>, i16>,
    pub(super) brokers: OrdMap<NodeId, Arc<Broker>>,
    pub(super) topics: OrdMap<TopicId, Arc<Topic>>,
    pub(super) names: OrdMap<Arc<str>, TopicId>,
    /// Topic names with '.' written as '_': two topics may not share one.
    pub(super) metric_names: OrdMap<String, TopicId>,
    pub(super) partition_count: u64,
    pub(super) configs: OrdMap<ConfigResource, Arc<BTreeMap<String, String>>>,
    pub(super) next_producer_id: i64,
    pub(super) tiers: OrdMap<TopicPartition, Arc<TierPointer>>,
    pub(super) pending_deletes: OrdMap<TopicId, Arc<DeletedTopic>>,
    pub(super) duties: OrdMap<Duty, Assignment>,
    pub(super) voters: OrdMap<NodeId, DirectoryId>,
    /// Partitions by the brokers that have a replica: what an event of one broker has to look at.
    pub(super) replicas: OrdMap<NodeId, OrdSet<TopicPartition>>,
}

/// Who has a duty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Assignment {
    pub(super) node: Option<NodeId>,
    pub(super) epoch: i32,
}

/// A topic and its partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Its id.
    pub id: TopicId,
    /// Its name.
    pub name: Arc<str>,
    /// When it was created.
    pub created_at: Millis,
    /// By partition index.
    pub partitions: Vec<Arc<PartitionState>>,
}

impl Topic {
    /// The partition with that index. Indexes come from clients, so they may be anything.
    pub fn partition(&self, index: i32) -> Option<&Arc<PartitionState>> {
        usize::try_from(index).ok().and_then(|index| self.partitions.get(index))
    }

    /// Indexes and states.
    pub fn indexed(&self) -> impl Iterator<Item = (i32, &Arc<PartitionState>)> {
        (0..).zip(&self.partitions)
    }
}

/// A deleted topic that may still have objects in the tier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeletedTopic {
    /// Its id.
    pub id: TopicId,
    /// The name it had.
    pub name: String,
    /// When it was deleted: objects wait a grace from here.
    pub deleted_at: Millis,
    /// Last pointer of each of its partitions that had one.
    pub tiers: Vec<(i32, TierPointer)>,
}

/// A topic that differs between two images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopicChange<'a> {
    /// Only in the newer one.
    Added(&'a Arc<Topic>),
    /// In both, with another state.
    Changed {
        /// As it was.
        old: &'a Arc<Topic>,
        /// As it is.
        new: &'a Arc<Topic>,
    },
    /// Only in the older one.
    Removed(&'a Arc<Topic>),
}

/// A tier pointer that differs between two images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TierChange<'a> {
    /// Which partition.
    pub tp: TopicPartition,
    /// The pointer in the newer image; none if the topic is gone.
    pub pointer: Option<&'a Arc<TierPointer>>,
}

impl Image {
    /// How many records went into it: the metadata offset of the next one.
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// The cluster's id, once it has one.
    pub fn cluster_id(&self) -> Option<&str> {
        self.cluster_id.as_deref()
    }

    /// Level of a feature, 0 if it is not set.
    pub fn feature(&self, name: &str) -> i16 {
        self.features.get(name).copied().unwrap_or(0)
    }

    /// All features that are set, by name.
    pub fn features(&self) -> impl Iterator<Item = (&str, i16)> {
        self.features.iter().map(|(name, level)| (&**name, *level))
    }

    /// Level of the feature [`FEATURE`]: which records may be written.
    pub fn level(&self) -> i16 {
        self.feature(FEATURE)
    }

    /// A broker's registration.
    pub fn broker(&self, id: NodeId) -> Option<&Arc<Broker>> {
        self.brokers.get(&id)
    }

    /// All registered brokers by id, fenced ones too.
    pub fn brokers(&self) -> impl Iterator<Item = &Arc<Broker>> {
        self.brokers.values()
    }

    /// A topic by id.
    pub fn topic(&self, id: TopicId) -> Option<&Arc<Topic>> {
        self.topics.get(&id)
    }

    /// A topic by name.
    pub fn topic_named(&self, name: &str) -> Option<&Arc<Topic>> {
        self.names.get(name).and_then(|id| self.topics.get(id))
    }

    /// All topics in order of their names.
    pub fn topics(&self) -> impl Iterator<Item = &Arc<Topic>> {
        self.names.values().filter_map(|id| self.topics.get(id))
    }

    /// Topics in order of their names, from the first whose name is not less than `name`.
    pub fn topics_from(&self, name: &str) -> impl Iterator<Item = &Arc<Topic>> {
        self.names
            .range::<_, str>((std::ops::Bound::Included(name), std::ops::Bound::Unbounded))
            .filter_map(|(_, id)| self.topics.get(id))
    }

    /// How many topics there are.
    pub fn topic_count(&self) -> usize {
        self.topics.len()
    }

    /// How many partitions all topics have together.
    pub const fn partition_count(&self) -> u64 {
        self.partition_count
    }

    /// The topic whose name equals `name` if one does not tell '.' from '_': both would give the
    /// same metric names.
    pub fn topic_colliding_with(&self, name: &str) -> Option<&Arc<Topic>> {
        self.metric_names.get(metric_name(name).as_str()).and_then(|id| self.topics.get(id))
    }

    /// State of a partition.
    pub fn partition(&self, tp: TopicPartition) -> Option<&Arc<PartitionState>> {
        self.topic(tp.topic)?.partition(tp.partition)
    }

    /// What was set for a resource itself; nothing inherited.
    pub fn configs(&self, resource: &ConfigResource) -> Option<&Arc<BTreeMap<String, String>>> {
        self.configs.get(resource)
    }

    /// All resources that something was set for.
    pub fn configured(&self) -> impl Iterator<Item = (&ConfigResource, &Arc<BTreeMap<String, String>>)> {
        self.configs.iter()
    }

    /// First producer id not given away yet.
    pub const fn next_producer_id(&self) -> i64 {
        self.next_producer_id
    }

    /// The pointer of a partition that has been tiered.
    pub fn tier(&self, tp: TopicPartition) -> Option<&Arc<TierPointer>> {
        self.tiers.get(&tp)
    }

    /// All pointers.
    pub fn tiers(&self) -> impl Iterator<Item = (&TopicPartition, &Arc<TierPointer>)> {
        self.tiers.iter()
    }

    /// Deleted topics whose objects may still be in the tier.
    pub fn pending_deletes(&self) -> impl Iterator<Item = &Arc<DeletedTopic>> {
        self.pending_deletes.values()
    }

    /// A deleted topic whose objects may still be in the tier.
    pub fn pending_delete(&self, id: TopicId) -> Option<&Arc<DeletedTopic>> {
        self.pending_deletes.get(&id)
    }

    /// The node that has a duty, and the epoch under which it has it.
    pub fn duty(&self, duty: Duty) -> Option<(NodeId, i32)> {
        let assignment = self.duties.get(&duty)?;
        assignment.node.map(|node| (node, assignment.epoch))
    }

    /// Epoch of the last assignment of a duty, 0 before the first.
    pub fn duty_epoch(&self, duty: Duty) -> i32 {
        self.duties.get(&duty).map_or(0, |assignment| assignment.epoch)
    }

    /// The disk a voter is bound to, if one was.
    pub fn voter(&self, id: NodeId) -> Option<DirectoryId> {
        self.voters.get(&id).copied()
    }

    /// Partitions of which `id` has a replica, in order.
    pub fn replicas_of(&self, id: NodeId) -> impl Iterator<Item = TopicPartition> {
        self.replicas.get(&id).into_iter().flat_map(|partitions| partitions.iter().copied())
    }

    /// How many replicas `id` has.
    pub fn replica_count(&self, id: NodeId) -> usize {
        self.replicas.get(&id).map_or(0, OrdSet::len)
    }

    /// Topics that differ from those of `older`, in order of their ids. Cheap when the images share
    /// most of their nodes, as successive ones do.
    pub fn topics_changed<'a>(&'a self, older: &'a Self) -> impl Iterator<Item = TopicChange<'a>> + 'a {
        older.topics.diff(&self.topics).map(|item| match item {
            DiffItem::Add(_, topic) => TopicChange::Added(topic),
            DiffItem::Update { old, new } => TopicChange::Changed { old: old.1, new: new.1 },
            DiffItem::Remove(_, topic) => TopicChange::Removed(topic),
        })
    }

    /// Pointers that differ from those of `older`.
    pub fn tiers_changed<'a>(&'a self, older: &'a Self) -> impl Iterator<Item = TierChange<'a>> + 'a {
        older.tiers.diff(&self.tiers).map(|item| match item {
            DiffItem::Add(tp, pointer) | DiffItem::Update { new: (tp, pointer), .. } => {
                TierChange { tp: *tp, pointer: Some(pointer) }
            }
            DiffItem::Remove(tp, _) => TierChange { tp: *tp, pointer: None },
        })
    }

    /// Whether configs differ from those of `older`. Constant time when they are shared.
    pub fn configs_changed(&self, older: &Self) -> bool {
        !self.configs.ptr_eq(&older.configs) && self.configs != older.configs
    }
}

/// A topic's name as it appears in metric names.
pub(super) fn metric_name(name: &str) -> String {
    name.replace('.', "_")
}
