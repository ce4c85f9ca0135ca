//! Follows the metadata image: partitions come, change and go, settings and pointers reach whoever acts on them.

use super::settings;
use crate::api::services::Services;
use crate::group::OFFSETS_TOPIC;
use crate::group::log::PartitionLog;
use crate::partition::PartitionHandle;
use crate::partition::core::Leadership;
use proto::ids::{DirectoryId, TopicPartition};
use proto::metadata::{Image, PartitionState, Topic, TopicChange};
use std::collections::BTreeSet;
use std::sync::Arc;
use tiering::runner::RunnerHandle;
use tokio::sync::watch;

/// Applies images one after another, each as its difference to the last.
pub(super) struct Follower {
    pub services: Arc<Services>,
    pub tier: RunnerHandle,
    pub images: watch::Receiver<Arc<Image>>,
    /// The image that the partitions already follow.
    pub seen: Arc<Image>,
    /// Tells how far the partitions have come.
    pub applied: watch::Sender<u64>,
}

impl Follower {
    /// Drops what lies on the disks of topics that were deleted while this broker was down. The image must be complete.
    pub(super) async fn drop_strays(&self, image: &Image) {
        let partitions = &self.services.partitions;
        for partition in partitions.all() {
            let tp = partition.tp();
            if image.partition(tp).is_none() {
                tracing::info!(%tp, "dropping a partition whose topic was deleted");
                partitions.remove(tp).await;
            }
        }
    }

    /// Applies the newest image; done once before clients are served.
    pub(super) async fn catch_up(&mut self) {
        let image = Arc::clone(&self.images.borrow_and_update());
        self.apply(&image).await;
        self.seen = image;
        self.applied.send_replace(self.seen.offset());
    }

    /// Follows until the controller is gone.
    pub(super) async fn run(mut self) {
        while self.images.changed().await.is_ok() {
            self.catch_up().await;
        }
    }

    async fn apply(&self, image: &Arc<Image>) {
        let seen = Arc::clone(&self.seen);
        let configs_changed = image.configs_changed(&seen);
        let topics: Vec<TopicChange<'_>> = image.topics_changed(&seen).collect();
        if configs_changed || !topics.is_empty() {
            self.resolve(image);
        }
        let topics_same = topics.is_empty();
        let mut removed = BTreeSet::new();
        for change in topics {
            match change {
                TopicChange::Added(topic) => self.take(topic, 0).await,
                TopicChange::Changed { old, new } => {
                    self.lead(old, new);
                    self.take(new, old.partitions.len()).await;
                }
                TopicChange::Removed(topic) => {
                    removed.insert(topic.name.to_string());
                    self.drop_topic(topic).await;
                }
            }
        }
        if configs_changed {
            self.configure(image);
        }
        if !topics_same {
            self.lead_groups(image);
        }
        if !removed.is_empty() {
            self.services.groups.topics_deleted(&removed).await;
        }
        let now = self.services.clock.now_ms();
        for change in image.tiers_changed(&seen) {
            if let (Some(pointer), Some(partition)) = (change.pointer, self.services.partitions.get(change.tp)) {
                partition.apply_pointer(pointer, now);
            }
        }
    }

    /// Resolves the settings of the broker and of every topic.
    fn resolve(&self, image: &Image) {
        let services = &self.services;
        let fixed = &services.static_config;
        services.config.store(Arc::new(settings::broker(image, services.node_id, fixed)));
        services.topic_configs.store(Arc::new(settings::topics(image, services.node_id, fixed)));
    }

    fn configure(&self, image: &Image) {
        let expiration = self.services.config.load().producers.id_expiration_ms;
        let now = self.services.clock.now_ms();
        for partition in self.services.partitions.all() {
            let tp = partition.tp();
            if image.topic(tp.topic).is_some() {
                partition.configure(settings::log(&self.services.topic_config(tp.topic), expiration));
                partition.trim(now);
                self.tier.nudge(tp);
            }
        }
    }

    /// Takes on the partitions of `topic` from index `first` on that this broker holds.
    async fn take(&self, topic: &Topic, first: usize) {
        let expiration = self.services.config.load().producers.id_expiration_ms;
        let config = settings::log(&self.services.topic_config(topic.id), expiration);
        for (partition, state) in topic.indexed().skip(first) {
            let tp = TopicPartition { topic: topic.id, partition };
            let Some(directory) = directory_of(&self.services, state) else { continue };
            let taken = self.services.partitions.create(tp, &topic.name, directory, config.clone()).await;
            match taken {
                Ok(handle) => lead_one(&self.services, &handle, state),
                Err(error) => tracing::error!(partition = %tp, %error, "a partition could not be made"),
            }
        }
    }

    fn lead(&self, old: &Topic, new: &Topic) {
        for ((partition, before), (_, after)) in old.indexed().zip(new.indexed()) {
            if Arc::ptr_eq(before, after) || before == after {
                continue;
            }
            let tp = TopicPartition { topic: new.id, partition };
            if let Some(handle) = self.services.partitions.get(tp) {
                lead_one(&self.services, &handle, after);
            }
        }
    }

    /// Groups live in the partitions of one topic: whoever leads one coordinates its groups.
    fn lead_groups(&self, image: &Image) {
        let services = &self.services;
        let Some(topic) = image.topic_named(OFFSETS_TOPIC) else { return };
        services.groups.set_partitions(i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX));
        for (index, state) in topic.indexed() {
            let tp = TopicPartition { topic: topic.id, partition: index };
            match services.partitions.get(tp) {
                Some(partition) if state.leader == Some(services.node_id) => {
                    let log = PartitionLog::new(partition, state.leader_epoch, Arc::clone(&services.clock));
                    services.groups.elected(index, state.leader_epoch, Arc::new(log));
                }
                Some(_) | None => services.groups.resigned(index),
            }
        }
    }

    async fn drop_topic(&self, topic: &Topic) {
        for (partition, _) in topic.indexed() {
            let tp = TopicPartition { topic: topic.id, partition };
            self.services.partitions.remove(tp).await;
            self.services.remote.forget(tp);
        }
    }
}

fn directory_of(services: &Services, state: &PartitionState) -> Option<DirectoryId> {
    let at = state.replicas.iter().position(|replica| *replica == services.node_id)?;
    state.directories.get(at).copied()
}

/// Tells a partition who leads it.
pub(super) fn lead_one(services: &Services, partition: &PartitionHandle, state: &PartitionState) {
    partition.lead(leadership(services, state));
}

fn leadership(services: &Services, state: &PartitionState) -> Leadership {
    Leadership {
        epoch: state.leader_epoch,
        leads: state.leader == Some(services.node_id),
        isr: state.isr.clone(),
        replicas: state.replicas.len(),
    }
}
