//! Follows the metadata image: partitions come, change and go, settings and pointers reach whoever acts on them.

use super::settings;
use crate::api::partitions::directory_of;
use crate::api::services::Services;
use crate::config::internal::is_internal;
use crate::group::OFFSETS_TOPIC;
use crate::group::log::PartitionLog;
use crate::log::epochs::EpochEntry;
use crate::partition::{Contradiction, Leadership, PartitionHandle, ReplicaInfo, RewindError};
use proto::ids::{NodeId, TopicPartition};
use proto::metadata::{Image, PartitionState, Topic, TopicChange};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tiering::runner::RunnerHandle;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Pause before what the tier holds is asked for again; doubled from the first to the last.
const ASK_AGAIN: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(5)];

/// Applies images one after another, each as its difference to the last.
pub(super) struct Follower {
    services: Arc<Services>,
    tier: RunnerHandle,
    images: watch::Receiver<Arc<Image>>,
    /// The image that the partitions already follow.
    seen: Arc<Image>,
    /// Tells how far the partitions have come.
    applied: watch::Sender<u64>,
    /// Partitions whose log ends before the tier does: they are not led before it starts over there (TIER-IS-TRUTH).
    behind: BTreeSet<TopicPartition>,
    /// What lets them start over; each ends with its partition.
    leveling: JoinSet<TopicPartition>,
}

impl Follower {
    /// One that has seen nothing yet.
    pub(super) fn new(
        services: Arc<Services>,
        tier: RunnerHandle,
        images: watch::Receiver<Arc<Image>>,
        applied: watch::Sender<u64>,
    ) -> Follower {
        let seen = Arc::new(Image::default());
        Follower { services, tier, images, seen, applied, behind: BTreeSet::new(), leveling: JoinSet::new() }
    }

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
        loop {
            tokio::select! {
                biased;
                changed = self.images.changed() => match changed {
                    Ok(()) => self.catch_up().await,
                    Err(_) => return,
                },
                Some(level) = self.leveling.join_next() => match level {
                    Ok(tp) => self.is_level(tp),
                    Err(error) => tracing::error!(%error, "a log that lacks what is tiered is not led until the next start"),
                },
            }
        }
    }

    /// A log started over at the end of the tier: it may be led now.
    fn is_level(&mut self, tp: TopicPartition) {
        self.behind.remove(&tp);
        let (Some(state), Some(handle)) = (self.seen.partition(tp), self.services.partitions.get(tp)) else { return };
        handle.lead(leadership(&self.services, &self.seen, state));
        if let Some(pointer) = self.seen.tier(tp) {
            handle.apply_pointer(pointer, self.services.clock.now_ms());
        }
        self.tier.nudge(tp);
    }

    async fn apply(&mut self, image: &Arc<Image>) {
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
                TopicChange::Added(topic) => self.take(image, topic, 0).await,
                TopicChange::Changed { old, new } => {
                    self.lead(image, old, new);
                    self.take(image, new, old.partitions.len()).await;
                }
                TopicChange::Removed(topic) => {
                    removed.insert(topic.name.to_string());
                    self.drop_topic(topic).await;
                }
            }
        }
        if !image.brokers().eq(seen.brokers()) {
            self.tell_of_brokers(image);
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
        for change in image.tiers_changed(&seen).filter(|change| !self.behind.contains(&change.tp)) {
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
    async fn take(&mut self, image: &Image, topic: &Topic, first: usize) {
        let expiration = self.services.config.load().producers.id_expiration_ms;
        let settings = self.services.topic_config(topic.id);
        if settings.cleanup.compact && !is_internal(&topic.name) {
            let topic = &*topic.name;
            tracing::warn!(
                topic,
                "cleanup.policy=compact is not carried out yet: the topic stays on local disk and keeps its records"
            );
        }
        let config = settings::log(&settings, expiration);
        for (partition, state) in topic.indexed().skip(first) {
            let tp = TopicPartition { topic: topic.id, partition };
            let Some(directory) = directory_of(self.services.node_id, state) else { continue };
            let taken = self.services.partitions.create(tp, &topic.name, directory, config.clone()).await;
            match taken {
                Ok(handle) => self.lead_one(image, &handle, state),
                Err(error) => tracing::error!(partition = %tp, %error, "a partition could not be made"),
            }
        }
    }

    fn lead(&mut self, image: &Image, old: &Topic, new: &Topic) {
        for ((partition, before), (_, after)) in old.indexed().zip(new.indexed()) {
            if Arc::ptr_eq(before, after) || before == after {
                continue;
            }
            let tp = TopicPartition { topic: new.id, partition };
            if let Some(handle) = self.services.partitions.get(tp) {
                self.lead_one(image, &handle, after);
            }
        }
    }

    /// Brokers came, went, or came again: leaders go by that when they let replicas join.
    fn tell_of_brokers(&mut self, image: &Image) {
        for handle in self.services.partitions.all() {
            if let Some(state) = image.partition(handle.tp()).filter(|state| state.replicas.len() > 1) {
                self.lead_one(image, &handle, state);
            }
        }
    }

    /// Tells a partition who leads it; one that this broker leads must hold all that the tier does first.
    fn lead_one(&mut self, image: &Image, handle: &PartitionHandle, state: &PartitionState) {
        let tp = handle.tp();
        let leadership = leadership(&self.services, image, state);
        let lacks = |pointer| {
            matches!(handle.contradiction(pointer, None), Contradiction::EndsBefore | Contradiction::OtherEpoch)
        };
        let behind = leadership.leads && image.tier(tp).is_some_and(|pointer| lacks(pointer));
        if !behind {
            // Still in the making, then: the newest state is looked up once it is done.
            if !self.behind.contains(&tp) {
                handle.lead(leadership);
            }
            return;
        }
        if self.behind.insert(tp) {
            let (services, images) = (Arc::clone(&self.services), self.images.clone());
            let handle = handle.clone();
            self.leveling.spawn(async move {
                start_over(&services, &images, &handle).await;
                handle.tp()
            });
        }
    }

    /// Groups live in the partitions of one topic: whoever leads one coordinates its groups.
    fn lead_groups(&self, image: &Image) {
        let services = &self.services;
        let Some(topic) = image.topic_named(OFFSETS_TOPIC) else {
            services.groups.set_partitions(0);
            for partition in services.groups.led() {
                services.groups.resigned(partition);
            }
            return;
        };
        services.groups.set_partitions(i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX));
        for (index, state) in topic.indexed() {
            let tp = TopicPartition { topic: topic.id, partition: index };
            match services.partitions.get(tp) {
                Some(partition) if state.leader == Some(services.node_id) => {
                    let log = PartitionLog::new(partition, state.leader_epoch, Arc::clone(&services.clock));
                    services.groups.elected(topic.id, index, state.leader_epoch, Arc::new(log));
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

/// Starts a log over at the end of the tier, for as long as it takes until the object store says what is known there.
async fn start_over(services: &Services, images: &watch::Receiver<Arc<Image>>, handle: &PartitionHandle) {
    let tp = handle.tp();
    let [mut pause, longest] = ASK_AGAIN;
    loop {
        let Some(pointer) = images.borrow().tier(tp).cloned() else { return };
        let why = match services.remote.tier_end(tp, &pointer).await {
            Ok(Some(end)) => {
                let entry = |(epoch, start): &(_, _)| EpochEntry { epoch: *epoch, start: *start };
                let epochs: Vec<EpochEntry> = end.epochs.entries.iter().map(entry).collect();
                match handle.reset(end.end, &epochs, &end.producers).await {
                    Ok(()) => {
                        tracing::warn!(%tp, offset = end.end, "the local log lacked what is tiered and goes on behind it");
                        return;
                    }
                    // The directory failed: it answers for the partition from here on.
                    Err(RewindError::Lost(_)) => return,
                    Err(error) => error.to_string(),
                }
            }
            Ok(None) => "nothing is there".to_owned(),
            Err(error) => error.to_string(),
        };
        tracing::error!(%tp, why, "the local log lacks what is tiered, and the end of the tier cannot be read: not led");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(longest);
    }
}

/// What a replica has to know of its partition and of the brokers that hold the others.
fn leadership(services: &Services, image: &Image, state: &PartitionState) -> Leadership {
    let info = |id: &NodeId| {
        let broker = image.broker(*id);
        ReplicaInfo {
            id: *id,
            broker_epoch: broker.map_or(-1, |broker| broker.epoch),
            eligible: broker.is_some_and(|broker| broker.is_active()),
            rack: broker.and_then(|broker| broker.rack.as_deref()).map(Arc::from),
        }
    };
    Leadership {
        epoch: state.leader_epoch,
        partition_epoch: state.partition_epoch,
        leader: state.leader,
        leads: state.leader == Some(services.node_id),
        isr: state.isr.clone(),
        replicas: state.replicas.iter().map(info).collect(),
        recovering: false,
    }
}
