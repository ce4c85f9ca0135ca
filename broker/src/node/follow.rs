//! Follows the metadata image: partitions come, change and go, settings and pointers reach whoever acts on them.

use super::places::{Misplaced, misplaced};
use super::settings;
use crate::api::partitions::directory_of;
use crate::api::services::Services;
use crate::config::internal::is_internal;
use crate::group::OFFSETS_TOPIC;
use crate::group::log::PartitionLog;
use crate::partition::{Contradiction, Leadership, PartitionHandle, ReplicaInfo, RewindError};
use crate::replica::core::Because;
use crate::replica::start_over::{StartOverError, Tier, start_over};
use crate::replica::throttle::Throttled;
use crate::replica::{Following, Replication, Settings};
use proto::ids::{DirectoryId, LeaderEpoch, NodeId, TopicId, TopicPartition};
use proto::metadata::{ConfigKind, Image, PartitionState, Recovery, Topic, TopicChange};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tiering::runner::RunnerHandle;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

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
    behind: BTreeMap<TopicPartition, Leveling>,
    /// Replicas here that the bound on what they take holds for, by topic.
    slowed: BTreeMap<TopicId, Throttled>,
    /// What lets them start over; each ends with its partition and its number.
    leveling: JoinSet<(TopicPartition, u64)>,
    /// How many began to start over so far.
    leveled: u64,
    /// What waits until the former files of partitions are gone that came again; each ends with its partition.
    leaving: JoinSet<TopicPartition>,
    /// Those partitions: each is waited for once, however often the image changes them meanwhile.
    coming: BTreeSet<TopicPartition>,
    /// Replicas that lie elsewhere than the image says: told to whoever reports them.
    misplaced: watch::Sender<Misplaced>,
}

/// What lets the log of a partition start over.
struct Leveling {
    /// Tells it from earlier ones of the same partition.
    number: u64,
    /// The term that the log is to be led in.
    epoch: LeaderEpoch,
    task: AbortHandle,
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
        Follower {
            services,
            tier,
            truth,
            images,
            seen,
            applied,
            behind: BTreeMap::new(),
            slowed: BTreeMap::new(),
            leveling: JoinSet::new(),
            leveled: 0,
            leaving: JoinSet::new(),
            coming: BTreeSet::new(),
            misplaced: watch::Sender::default(),
        }
    }

    /// Replicas that lie elsewhere than the image says.
    pub(super) fn misplaced(&self) -> watch::Receiver<Misplaced> {
        self.misplaced.subscribe()
    }

    /// Drops what lies on the disks of replicas that were deleted or moved away while this broker was down. The image must
    /// be at or past this broker's registration: an older one does not know what it was given since.
    pub(super) async fn drop_strays(&self, image: &Image) {
        let partitions = &self.services.partitions;
        if i64::try_from(image.offset()).is_ok_and(|offset| offset <= self.services.broker_epoch) {
            tracing::error!(
                offset = image.offset(),
                "the metadata is older than this broker's registration: nothing is dropped by it"
            );
            return;
        }
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
                    Ok((tp, number)) => self.is_level(tp, number),
                    Err(error) if error.is_cancelled() => {}
                    Err(error) => tracing::error!(%error, "a log that lacks what is tiered is not led until the next start"),
                },
                Some(left) = self.leaving.join_next() => match left {
                    Ok(tp) => self.came(tp).await,
                    Err(error) => tracing::error!(%error, "a partition that came again is not made before the next start"),
                },
            }
        }
    }

    /// A log started over at the end of the tier: it may be led now, or followed, if another broker leads by now.
    fn is_level(&mut self, tp: TopicPartition, number: u64) {
        if self.behind.get(&tp).is_none_or(|leveling| leveling.number != number) {
            return;
        }
        self.behind.remove(&tp);
        let seen = Arc::clone(&self.seen);
        let (Some(state), Some(handle)) = (seen.partition(tp), self.services.partitions.get(tp)) else { return };
        if !handle.is_here() {
            // Its directory failed meanwhile: nothing will make it level, and the image will name another leader.
            return;
        }
        let mut moves = Moves::default();
        self.lead_one(&seen, &handle, state, &mut moves);
        moves.tell(&self.services.replication);
        self.tier.nudge(tp);
    }

    /// The former files of a partition are gone that came again: it can be made now, if it is still to be.
    async fn came(&mut self, tp: TopicPartition) {
        self.coming.remove(&tp);
        let seen = Arc::clone(&self.seen);
        let (Some(topic), Some(state)) = (seen.topic(tp.topic), seen.partition(tp)) else { return };
        if self.services.partitions.get(tp).is_some() {
            return;
        }
        let mut moves = Moves::default();
        self.take_one(&seen, topic, (tp.partition, state), &mut moves).await;
        moves.tell(&self.services.replication);
        self.lead_groups(&seen);
    }

    async fn apply(&mut self, image: &Arc<Image>) {
        let seen = Arc::clone(&self.seen);
        let configs_changed = image.configs_changed(&seen);
        let topics: Vec<TopicChange<'_>> = image.topics_changed(&seen).collect();
        if configs_changed || !topics.is_empty() {
            self.resolve(image);
        }
        // One image may hold both, in any order: what commits less acts before who leads and who is in sync, what commits
        // more after it.
        if configs_changed {
            self.require_in_sync(image);
        }
        let slowed_before = if configs_changed { self.slow(image) } else { BTreeMap::new() };
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
        if configs_changed && slowed_before != self.slowed {
            self.tell_of_bounds(image, &slowed_before, &mut moves);
        }
        moves.tell(&self.services.replication);
        if configs_changed {
            self.configure(image);
        }
        if !topics_same {
            self.lead_groups(image);
        }
        if !removed.is_empty() {
            self.services.groups.topics_deleted(&removed);
        }
        let now = self.services.clock.now_ms();
        for change in image.tiers_changed(&seen).filter(|change| !self.behind.contains_key(&change.tp)) {
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

    fn require_in_sync(&self, image: &Image) {
        for partition in self.services.partitions.all() {
            let topic = partition.tp().topic;
            if image.topic(topic).is_some() {
                partition.require_in_sync(self.services.topic_config(topic).min_insync_replicas);
            }
        }
    }

    /// Takes up bounds on replication. Answers where they held before.
    fn slow(&mut self, image: &Image) -> BTreeMap<TopicId, Throttled> {
        let named = |key: &str| -> BTreeMap<TopicId, Throttled> {
            let topics = image.configured().filter(|(resource, _)| resource.kind == ConfigKind::Topic);
            let named = topics.filter_map(|(resource, set)| {
                let slowed = Throttled::parse(set.get(key)?);
                (slowed != Throttled::None).then_some((image.topic_named(&resource.name)?.id, slowed))
            });
            named.collect()
        };
        let config = self.services.config.load();
        let replication = &self.services.replication;
        replication.configure(Settings::of(&config.replication));
        replication.throttle(config.replication.follower_rate);
        replication.throttle_serving(config.replication.leader_rate, named("leader.replication.throttled.replicas"));
        std::mem::replace(&mut self.slowed, named("follower.replication.throttled.replicas"))
    }

    /// Bounds hold for other replicas than before.
    fn tell_of_bounds(&mut self, image: &Image, before: &BTreeMap<TopicId, Throttled>, moves: &mut Moves) {
        for handle in self.services.partitions.all() {
            let topic = handle.tp().topic;
            if before.get(&topic) != self.slowed.get(&topic)
                && let Some(state) = image.partition(handle.tp())
            {
                self.lead_one(image, &handle, state, moves);
            }
        }
    }

    fn configure(&self, image: &Image) {
        let broker = self.services.config.load();
        let now = self.services.clock.now_ms();
        for partition in self.services.partitions.all() {
            let tp = partition.tp();
            if image.topic(tp.topic).is_some() {
                partition.configure(settings::log(&self.services.topic_config(tp.topic), &broker));
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
        if let Some(left) = self.services.partitions.leaving(tp) {
            // Its disk may stand still. Nobody else's leader may be kept from being heard of by that.
            if self.coming.insert(tp) {
                self.leaving.spawn(async move {
                    left.cancelled().await;
                    tp
                });
            }
            return;
        }
        let config = settings::log(&self.services.topic_config(topic.id), &self.services.config.load());
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
            self.count_in_sync(before, after);
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

    /// Counts replicas that joined those in sync, and that left them, where this broker leads.
    fn count_in_sync(&self, before: Option<&Arc<PartitionState>>, after: &PartitionState) {
        let Some(before) = before.filter(|_| after.leader == Some(self.services.node_id)) else { return };
        let lacks = |all: &[NodeId], some: &[NodeId]| some.iter().any(|id| !all.contains(id));
        if lacks(&after.isr, &before.isr) {
            self.services.metrics.isr_shrinks.inc();
        }
        if lacks(&before.isr, &after.isr) {
            self.services.metrics.isr_expands.inc();
        }
    }

    /// This broker holds the replica no more.
    async fn leave(&mut self, tp: TopicPartition, moves: &mut Moves) {
        moves.unfollow.push(tp);
        self.level_no_more(tp);
        self.lies(tp, None);
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
        let leadership = leadership(&self.services, image, state);
        let (epoch, leads) = (leadership.epoch, leadership.leads);
        match self.behind.get(&tp) {
            // Still in the making: the newest state is looked up once it is done.
            Some(leveling) if leveling.epoch == epoch => {
                handle.lead(Leadership { leads: false, ..leadership });
                return;
            }
            // Its term is over, and with it all that it may still do.
            Some(_) => self.level_no_more(tp),
            None => {}
        }
        let elsewhere = misplaced(self.services.node_id, state, handle);
        self.lies(tp, elsewhere);
        match state.leader.filter(|_| !leads) {
            Some(leader) => {
                handle.lead(leadership);
                if elsewhere.is_some() {
                    // Nobody may count on what it holds yet.
                    moves.unfollow.push(tp);
                    return;
                }
                let own = self.services.node_id;
                // Who is in sync is not held up: that would hold up acknowledgements.
                let slowed = self.slowed.get(&tp.topic).is_some_and(|slowed| slowed.has(tp.partition, own));
                let throttled = slowed && !state.isr.contains(&own);
                moves.follow.push(Following { tp, leader, epoch, partition: handle.clone(), throttled });
                return;
            }
            None => moves.unfollow.push(tp),
        }
        let pointer = image.tier(tp);
        let lacks = |pointer| {
            matches!(handle.contradiction(pointer, None), Contradiction::EndsBefore | Contradiction::OtherEpoch)
        };
        if leads && handle.is_here() && pointer.is_some_and(|pointer| lacks(pointer)) {
            // In this term, but not as its leader yet: nothing is appended or read before the log is what is tiered.
            handle.lead(Leadership { leads: false, ..leadership });
            self.level(handle, epoch);
            return;
        }
        handle.lead(leadership);
        if let Some(pointer) = pointer {
            // While others led it may have been told of it with a log that did not reach that far, and have taken nothing from it.
            handle.apply_pointer(pointer, self.services.clock.now_ms());
        }
    }

    /// The replica lies in this directory, and the image does not say so; or it does.
    fn lies(&self, tp: TopicPartition, elsewhere: Option<DirectoryId>) {
        self.misplaced.send_if_modified(|misplaced| match elsewhere {
            Some(directory) => misplaced.insert(tp, directory) != elsewhere,
            None => misplaced.remove(&tp).is_some(),
        });
    }

    /// Lets a log start over that is to be led in the term `epoch`, and is not what the tier holds.
    fn level(&mut self, handle: &PartitionHandle, epoch: LeaderEpoch) {
        self.leveled += 1;
        let (tp, number) = (handle.tp(), self.leveled);
        let (truth, handle) = (Arc::clone(&self.truth), handle.clone());
        let task = self.leveling.spawn(async move {
            level(truth.as_ref(), &handle, epoch).await;
            (tp, number)
        });
        self.behind.insert(tp, Leveling { number, epoch, task });
    }

    /// What lets a log start over need not go on: it may wait for an object store that does not answer.
    fn level_no_more(&mut self, tp: TopicPartition) {
        if let Some(leveling) = self.behind.remove(&tp) {
            leveling.task.abort();
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
}

/// Starts a log over at the end of the tier, for as long as it takes until the object store says what is known there.
async fn level(truth: &dyn Tier, handle: &PartitionHandle, term: LeaderEpoch) {
    let tp = handle.tp();
    let [mut pause, longest] = ASK_AGAIN;
    while handle.is_here() && handle.leadership().epoch == term {
        let why = match start_over(handle, truth, term, Because::OfTier).await {
            // It failed, left, or is led in another term by now: the image says what is to be done about that.
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

#[cfg(test)]
mod tests;
