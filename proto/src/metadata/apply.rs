//! `apply`: the only code that changes an image.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::image::{Assignment, DeletedTopic, Image, Topic, metric_name};
use super::record::{ConfigResource, MetadataRecord, PartitionState};
use super::tier::TierPointer;
use crate::ids::{DirectoryId, Millis, NodeId, TopicId, TopicPartition};

impl Image {
    /// Applies one record. Total and deterministic: a record that contradicts the image (a second
    /// topic of one name or of one that differs in '.' and '_' only, a partition of no topic) is skipped, the same way everywhere.
    pub fn apply(&mut self, record: &MetadataRecord) {
        self.offset += 1;
        match record {
            MetadataRecord::ClusterFormed { cluster_id } => {
                self.cluster_id.get_or_insert_with(|| cluster_id.as_str().into());
            }
            MetadataRecord::FeatureSet { name, level: 0 } => {
                self.features.remove(name.as_str());
            }
            MetadataRecord::FeatureSet { name, level } => {
                self.features.insert(name.as_str().into(), *level);
            }
            MetadataRecord::BrokerSet(broker) => {
                self.brokers.insert(broker.id, Arc::new(broker.clone()));
            }
            MetadataRecord::BrokerRemoved { id } => {
                self.brokers.remove(id);
            }
            MetadataRecord::TopicCreated { id, name, created_at } => {
                self.create_topic(*id, name, *created_at);
            }
            MetadataRecord::PartitionSet { tp, state } => self.set_partition(*tp, state),
            MetadataRecord::TopicDeleted { id, deleted_at } => self.delete_topic(*id, *deleted_at),
            MetadataRecord::DeletionFinished { id } => {
                self.pending_deletes.remove(id);
            }
            MetadataRecord::ConfigSet { resource, key, value } => {
                self.set_config(resource, key, value.as_deref());
            }
            MetadataRecord::ProducerIdsAllocated { next } => {
                self.next_producer_id = self.next_producer_id.max(*next);
            }
            MetadataRecord::TierPointerSet { tp, pointer } => {
                if self.partition(*tp).is_some() {
                    self.tiers.insert(*tp, Arc::new(pointer.clone()));
                }
            }
            MetadataRecord::DeletionPending(deleted) => {
                self.pending_deletes.insert(deleted.id, Arc::new(deleted.clone()));
            }
            MetadataRecord::DutyAssigned { duty, node, epoch } => {
                self.duties.insert(*duty, Assignment { node: *node, epoch: *epoch });
            }
            MetadataRecord::VoterBound { id, directory: DirectoryId::UNASSIGNED } => {
                self.voters.remove(id);
            }
            MetadataRecord::VoterBound { id, directory } => {
                self.voters.insert(*id, *directory);
            }
        }
    }

    fn create_topic(&mut self, id: TopicId, name: &str, created_at: Millis) {
        let metric_name = metric_name(name);
        if self.topics.contains_key(&id) || self.metric_names.contains_key(&metric_name) {
            return;
        }
        let name: Arc<str> = name.into();
        self.metric_names.insert(metric_name, id);
        self.names.insert(Arc::clone(&name), id);
        let topic = Topic { id, name, created_at, partitions: Vec::new() };
        self.topics.insert(id, Arc::new(topic));
    }

    fn set_partition(&mut self, tp: TopicPartition, state: &PartitionState) {
        let Some(topic) = self.topics.get_mut(&tp.topic) else {
            return;
        };
        let Ok(index) = usize::try_from(tp.partition) else {
            return;
        };
        if index > topic.partitions.len() {
            return;
        }
        let topic = Arc::make_mut(topic);
        let state = Arc::new(state.clone());
        let old = match topic.partitions.get_mut(index) {
            Some(slot) => Some(std::mem::replace(slot, Arc::clone(&state))),
            None => {
                topic.partitions.push(Arc::clone(&state));
                self.partition_count += 1;
                None
            }
        };
        let had: &[NodeId] = old.as_ref().map_or(&[], |old| &old.replicas);
        if had != state.replicas {
            self.unindex(tp, had.iter().filter(|id| !state.replicas.contains(id)));
            for id in state.replicas.iter().filter(|id| !had.contains(id)) {
                self.replicas.entry(*id).or_default().insert(tp);
            }
        }
    }

    /// `ids` have no replica of `tp` any more.
    fn unindex<'a>(&mut self, tp: TopicPartition, ids: impl Iterator<Item = &'a NodeId>) {
        for id in ids {
            let Some(partitions) = self.replicas.get_mut(id) else { continue };
            partitions.remove(&tp);
            if partitions.is_empty() {
                self.replicas.remove(id);
            }
        }
    }

    fn delete_topic(&mut self, id: TopicId, deleted_at: Millis) {
        let Some(topic) = self.topics.remove(&id) else {
            return;
        };
        self.names.remove(&topic.name);
        self.metric_names.remove(&metric_name(&topic.name));
        self.partition_count -= topic.partitions.len() as u64;
        for (index, state) in topic.indexed() {
            self.unindex(TopicPartition::new(id, index), state.replicas.iter());
        }
        let configs = self.configs.remove(&ConfigResource::topic(&*topic.name));
        let local = configs.is_some_and(|configs| {
            configs.get("remote.storage.enable").is_some_and(|value| value.eq_ignore_ascii_case("false"))
        });
        // Without a pointer there may be objects, too: of an upload that was cut off before its commit.
        let tiers: Vec<_> = topic
            .indexed()
            .filter_map(|(index, _)| match self.tiers.remove(&TopicPartition::new(id, index)) {
                Some(pointer) => Some((index, Arc::unwrap_or_clone(pointer))),
                None => (!local).then(|| (index, TierPointer::default())),
            })
            .collect();
        if !tiers.is_empty() {
            let deleted = DeletedTopic { id, name: topic.name.to_string(), deleted_at, tiers };
            self.pending_deletes.insert(id, Arc::new(deleted));
        }
    }

    fn set_config(&mut self, resource: &ConfigResource, key: &str, value: Option<&str>) {
        let mut values: BTreeMap<String, String> =
            self.configs.get(resource).map(|values| (**values).clone()).unwrap_or_default();
        match value {
            Some(value) => values.insert(key.to_owned(), value.to_owned()),
            None => values.remove(key),
        };
        if values.is_empty() {
            self.configs.remove(resource);
        } else {
            self.configs.insert(resource.clone(), Arc::new(values));
        }
    }

    /// The records that make this image out of an empty one, in an order that applies.
    pub fn to_records(&self) -> impl Iterator<Item = MetadataRecord> + '_ {
        let cluster = self
            .cluster_id
            .iter()
            .map(|cluster_id| MetadataRecord::ClusterFormed { cluster_id: cluster_id.to_string() });
        let features = self
            .features
            .iter()
            .map(|(name, level)| MetadataRecord::FeatureSet { name: name.to_string(), level: *level });
        let brokers = self.brokers.values().map(|broker| MetadataRecord::BrokerSet((**broker).clone()));
        let topics = self.topics.values().flat_map(|topic| {
            let created = MetadataRecord::TopicCreated {
                id: topic.id,
                name: topic.name.to_string(),
                created_at: topic.created_at,
            };
            let partitions = topic.indexed().map(|(index, state)| MetadataRecord::PartitionSet {
                tp: TopicPartition::new(topic.id, index),
                state: (**state).clone(),
            });
            std::iter::once(created).chain(partitions)
        });
        let configs = self.configs.iter().flat_map(|(resource, values)| {
            values.iter().map(|(key, value)| MetadataRecord::ConfigSet {
                resource: resource.clone(),
                key: key.clone(),
                value: Some(value.clone()),
            })
        });
        let producer_ids = std::iter::once(MetadataRecord::ProducerIdsAllocated { next: self.next_producer_id });
        let tiers = self
            .tiers
            .iter()
            .map(|(tp, pointer)| MetadataRecord::TierPointerSet { tp: *tp, pointer: (**pointer).clone() });
        let pending = self.pending_deletes.values().map(|deleted| MetadataRecord::DeletionPending((**deleted).clone()));
        let duties = self.duties.iter().map(|(duty, assignment)| MetadataRecord::DutyAssigned {
            duty: *duty,
            node: assignment.node,
            epoch: assignment.epoch,
        });
        let voters =
            self.voters.iter().map(|(id, directory)| MetadataRecord::VoterBound { id: *id, directory: *directory });
        cluster
            .chain(features)
            .chain(brokers)
            .chain(topics)
            .chain(configs)
            .chain(producer_ids)
            .chain(tiers)
            .chain(pending)
            .chain(duties)
            .chain(voters)
    }
}
