//! Follows the metadata image: partitions come, change and go, settings and pointers reach whoever acts on them.

use super::settings;
use crate::api::partitions::directory_of;
use crate::api::services::Services;
use crate::config::internal::is_internal;
use crate::group::OFFSETS_TOPIC;
use crate::group::log::PartitionLog;
use crate::partition::{Contradiction, Leadership, PartitionHandle, ReplicaInfo, RewindError};
use crate::replica::core::Because;
use crate::replica::start_over::{StartOverError, Tier, start_over};
use crate::replica::{Following, Replication};
use proto::ids::{NodeId, TopicPartition};
use proto::metadata::{Image, PartitionState, Recovery, Topic, TopicChange};
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
    /// What the tier holds, for logs that lack it.
    truth: Arc<dyn Tier>,
    images: watch::Receiver<Arc<Image>>,
    /// The image that the partitions already follow.
    seen: Arc<Image>,
    /// Tells how far the partitions have come.
    applied: watch::Sender<u64>,
    /// Partitions to lead whose log is not what the tier holds: it starts over there first (TIER-IS-TRUTH).
    behind: BTreeSet<TopicPartition>,
    /// What lets them start over; each ends with its partition.
    leveling: JoinSet<TopicPartition>,
}

/// What an image means for replication: told to it all at once.
#[derive(Default)]
struct Moves {
    follow: Vec<Following>,
    unfollow: Vec<TopicPartition>,
}

impl Moves {
    fn tell(self, replication: &Replication) {
        // Nobody waits for the last touch: what an answer still brings is refused by its leader epoch.
        drop(replication.drop(self.unfollow));
        replication.assign(self.follow);
    }
}

impl Follower {
    /// One that has seen nothing yet.
    pub(super) fn new(
        services: Arc<Services>,
        tier: RunnerHandle,
        truth: Arc<dyn Tier>,
        applied: watch::Sender<u64>,
    ) -> Follower {
        let images = services.controller.watch();
        let seen = Arc::new(Image::default());
        Follower { services, tier, truth, images, seen, applied, behind: BTreeSet::new(), leveling: JoinSet::new() }
    }

    /// Drops what lies on the disks of replicas that were deleted or moved away while this broker was down. The image must
    /// be at or past this broker's registration: an older one does not know what it was given since.
    pub(super) async fn drop_strays(&self, image: &Image) {
        let partitions = &self.services.partitions;
        for partition in partitions.all() {
            let tp = partition.tp();
            let held = image.partition(tp).is_some_and(|state| state.replicas.contains(&self.services.node_id));
            if !held {
                tracing::info!(%tp, "dropping a replica whose topic was deleted, or that was moved away");
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

    /// A log started over at the end of the tier: it may be led now, or followed, if another broker leads by now.
    fn is_level(&mut self, tp: TopicPartition) {
        self.behind.remove(&tp);
        let seen = Arc::clone(&self.seen);
        let (Some(state), Some(handle)) = (seen.partition(tp), self.services.partitions.get(tp)) else { return };
        let mut moves = Moves::default();
        self.lead_one(&seen, &handle, state, &mut moves);
        moves.tell(&self.services.replication);
        if let Some(pointer) = seen.tier(tp) {
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
        let mut moves = Moves::default();
        for change in topics {
            match change {
                TopicChange::Added(topic) => self.take(image, topic, &mut moves).await,
                TopicChange::Changed { old, new } => self.change(image, old, new, &mut moves).await,
                TopicChange::Removed(topic) => {
                    removed.insert(topic.name.to_string());
                    for (partition, _) in topic.indexed() {
                        self.leave(TopicPartition { topic: topic.id, partition }, &mut moves).await;
                    }
                }
            }
        }
        if !image.brokers().eq(seen.brokers()) {
            self.tell_of_brokers(image, &mut moves);
        }
        moves.tell(&self.services.replication);
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

    /// Takes on the replicas of a new topic that this broker holds.
    async fn take(&mut self, image: &Image, topic: &Topic, moves: &mut Moves) {
        if self.services.topic_config(topic.id).cleanup.compact && !is_internal(&topic.name) {
            let topic = &*topic.name;
            tracing::warn!(
                topic,
                "cleanup.policy=compact is not carried out yet: the topic stays on local disk and keeps its records"
            );
        }
        for (partition, state) in topic.indexed() {
            self.take_one(image, topic, (partition, state), moves).await;
        }
    }

    async fn take_one(
        &mut self,
        image: &Image,
        topic: &Topic,
        (partition, state): (i32, &PartitionState),
        moves: &mut Moves,
    ) {
        let tp = TopicPartition { topic: topic.id, partition };
        let Some(directory) = directory_of(self.services.node_id, state) else { return };
        let expiration = self.services.config.load().producers.id_expiration_ms;
        let config = settings::log(&self.services.topic_config(topic.id), expiration);
        match self.services.partitions.create(tp, &topic.name, directory, config).await {
            Ok(handle) => self.lead_one(image, &handle, state, moves),
            Err(error) => tracing::error!(partition = %tp, %error, "a partition could not be made"),
        }
    }

    /// Replicas of a topic came, went, or have another leader.
    async fn change(&mut self, image: &Image, old: &Topic, new: &Topic, moves: &mut Moves) {
        let held = |state: &PartitionState| state.replicas.contains(&self.services.node_id);
        let mut changed = Vec::new();
        for (partition, after) in new.indexed() {
            let before = old.partition(partition);
            if before.is_none_or(|before| !Arc::ptr_eq(before, after) && before != after) {
                changed.push((partition, before.is_some_and(|before| held(before)), held(after), after));
            }
        }
        for (partition, was_held, is_held, state) in changed {
            let tp = TopicPartition { topic: new.id, partition };
            match (self.services.partitions.get(tp), was_held, is_held) {
                (Some(handle), true, true) => self.lead_one(image, &handle, state, moves),
                (_, true, false) => self.leave(tp, moves).await,
                (_, _, true) => self.take_one(image, new, (partition, state), moves).await,
                (_, false, false) => {}
            }
        }
    }

    /// This broker holds the replica no more.
    async fn leave(&mut self, tp: TopicPartition, moves: &mut Moves) {
        moves.unfollow.push(tp);
        self.services.partitions.remove(tp).await;
        self.services.remote.forget(tp);
    }

    /// Brokers came, went, or came again: leaders go by that when they let replicas join.
    fn tell_of_brokers(&mut self, image: &Image, moves: &mut Moves) {
        for handle in self.services.partitions.all() {
            if let Some(state) = image.partition(handle.tp()).filter(|state| state.replicas.len() > 1) {
                self.lead_one(image, &handle, state, moves);
            }
        }
    }

    /// Tells a partition who leads it, and what follows from it: one that this broker leads must hold all that the tier does
    /// first, one that another leads is fetched from there.
    fn lead_one(&mut self, image: &Image, handle: &PartitionHandle, state: &PartitionState, moves: &mut Moves) {
        let tp = handle.tp();
        // Still in the making: the newest state is looked up once it is done.
        if self.behind.contains(&tp) {
            return;
        }
        let leadership = leadership(&self.services, image, state);
        let (epoch, leads) = (leadership.epoch, leadership.leads);
        let lacks = |pointer| {
            matches!(handle.contradiction(pointer, None), Contradiction::EndsBefore | Contradiction::OtherEpoch)
        };
        match state.leader.filter(|_| !leads) {
            Some(leader) => {
                handle.lead(leadership);
                moves.follow.push(Following { tp, leader, epoch, partition: handle.clone(), throttled: false });
                return;
            }
            None => moves.unfollow.push(tp),
        }
        if !(leads && image.tier(tp).is_some_and(|pointer| lacks(pointer))) {
            handle.lead(leadership);
            return;
        }
        self.behind.insert(tp);
        let (truth, handle) = (Arc::clone(&self.truth), handle.clone());
        self.leveling.spawn(async move {
            level(truth.as_ref(), &handle).await;
            tp
        });
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
}

/// Starts a log over at the end of the tier, for as long as it takes until the object store says what is known there.
async fn level(truth: &dyn Tier, handle: &PartitionHandle) {
    let tp = handle.tp();
    let [mut pause, longest] = ASK_AGAIN;
    loop {
        let why = match start_over(handle, truth, Because::OfTier).await {
            // The directory failed: it answers for the partition from here on.
            Ok(_) | Err(StartOverError::Local(RewindError::Lost(_))) => return,
            Err(error) => error,
        };
        tracing::error!(%tp, %why, "the local log is not what is tiered, and cannot start over behind it yet: not led");
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
        recovering: state.recovery == Recovery::Recovering,
    }
}
