//! Follows the metadata image: partitions come, change and go, settings and pointers reach whoever acts on them.

use super::settings;
use crate::api::services::Services;
use crate::partition::core::Leadership;
use crate::partition::{PartitionHandle, Partitions};
use proto::ids::{DirectoryId, TopicPartition};
use proto::metadata::image::TopicChange;
use proto::metadata::{Image, PartitionState, Topic};
use std::sync::Arc;
use tiering::runner::RunnerHandle;
use tokio::sync::watch;

/// Applies images one after another, each as its difference to the last.
pub struct Follower {
    pub services: Arc<Services>,
    pub tier: RunnerHandle,
    pub images: watch::Receiver<Arc<Image>>,
    /// The image that the partitions already follow.
    pub seen: Arc<Image>,
    /// Tells how far the partitions have come.
    pub applied: watch::Sender<u64>,
}

impl Follower {
    /// Applies the newest image; done once before clients are served.
    pub async fn catch_up(&mut self) {
        let image = Arc::clone(&self.images.borrow_and_update());
        self.apply(&image).await;
        self.seen = image;
        self.applied.send_replace(self.seen.offset());
    }

    /// Follows until the controller is gone.
    pub async fn run(mut self) {
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
        for change in topics {
            match change {
                TopicChange::Added(topic) => self.take(topic, 0).await,
                TopicChange::Changed { old, new } => {
                    self.lead(old, new);
                    self.take(new, old.partitions.len()).await;
                }
                TopicChange::Removed(topic) => self.drop_topic(topic).await,
            }
        }
        if configs_changed {
            self.configure(image);
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
        for partition in self.services.partitions.all() {
            let tp = partition.tp();
            if image.topic(tp.topic).is_some() {
                partition.configure(settings::log(&self.services.topic_config(tp.topic), expiration));
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
pub fn lead_one(services: &Services, partition: &PartitionHandle, state: &PartitionState) {
    partition.lead(leadership(services, state));
}

fn leadership(services: &Services, state: &PartitionState) -> Leadership {
    Leadership {
        epoch: state.leader_epoch,
        leads: state.leader == Some(services.node_id),
        isr: state.isr.clone(),
    }
}

/// Whether the partitions that exist on disk are all known to the image; used at start to drop those of deleted topics.
pub async fn drop_unknown(partitions: &Partitions, image: &Image) {
    for partition in partitions.all() {
        if image.partition(partition.tp()).is_none() {
            partitions.remove(partition.tp()).await;
        }
    }
}
