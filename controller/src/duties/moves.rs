//! Replicas that move without an operator naming them: away from brokers that are to be emptied or are gone, and to brokers
//! that came, until they have their share. Pure.
//!
//! Internal topics get the replicas they should have as soon as there are brokers for them: the first broker makes them alone, and what
//! groups have committed is to outlive it.
//!
//! Nothing else moves by itself. What operators place stays where they placed it (of an internal topic fewer replicas than are configured do
//! not): a partition that is being reassigned is
//! left alone, one that was reassigned is left alone for an hour after, and while any is nobody gets a share. A move is
//! planned on one state of its partition and refused on another, so that a reassignment which comes in between counts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proto::ids::{Millis, NodeId, TopicPartition};
use proto::metadata::{Broker, Image, PartitionState, Share, TopicChange};

use super::Settings;
use crate::balance::{Around, Goals, Limits, Loads, Plan, plan_around};
use crate::command::{AlterReassignments, Command, Elections};

/// Time between the first look and the first move: brokers need some to come back after a restart of the cluster.
const GRACE: Millis = 5_000;
/// After so long a broker that is down is not waited for where it holds up the emptying of another.
const GONE_FOR: Millis = 60_000;
/// How long a partition stays where an operator has placed it, whoever comes.
const HANDS_OFF: Millis = 3_600_000;

/// What moves, and what must not.
#[derive(Debug)]
pub(super) struct Moves {
    /// Whether brokers that come get a share.
    shares: bool,
    /// How many partitions may be on the move at a time.
    most: usize,
    /// Topics made with what brokers there were, and how many replicas they are to have.
    factors: BTreeMap<String, usize>,
    /// Whether preferred leaders are restored by themselves.
    restores_leaders: bool,
    /// When it was looked first.
    since: Option<Millis>,
    /// The image at the last look.
    seen: Option<Arc<Image>>,
    /// Partitions that were set in motion here, and the replicas they are to have.
    ours: BTreeMap<TopicPartition, Vec<NodeId>>,
    /// Partitions that an operator has placed, and when that was seen.
    placed: BTreeMap<TopicPartition, Millis>,
    /// Brokers that do not serve, and when that was seen.
    down: BTreeMap<NodeId, Millis>,
}

/// What goes on in the cluster as far as moves have to mind it.
#[derive(Debug, Default)]
struct Survey {
    /// Partitions on the move.
    moving: BTreeSet<TopicPartition>,
    /// Those of them that are on their way to a broker that is gone.
    lost: BTreeSet<TopicPartition>,
    /// Those of the lost ones that hold up the emptying of a broker: they are planned anew.
    stalled: BTreeSet<TopicPartition>,
    /// Brokers that replicas are on their way to.
    awaited: BTreeSet<NodeId>,
    /// Somebody else set partitions in motion.
    others_move: bool,
    /// A partition has no leader, or fewer in sync than it should.
    is_short: bool,
    /// A broker that has replicas is to be emptied, or is not registered any more.
    leaves: bool,
}

impl Moves {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            shares: settings.balance,
            most: settings.balance_moves.max(1),
            factors: settings.factors.clone(),
            restores_leaders: settings.preferred_every.is_some(),
            since: None,
            seen: None,
            ours: BTreeMap::new(),
            placed: BTreeMap::new(),
            down: BTreeMap::new(),
        }
    }

    /// What to do next.
    pub(super) fn next(&mut self, now: Millis, image: &Arc<Image>, loads: &Loads) -> Vec<Command> {
        self.look(now, image);
        let since = *self.since.get_or_insert(now);
        if now - since < GRACE || image.level() < 1 {
            return Vec::new();
        }
        let newcomers: BTreeSet<NodeId> = image
            .brokers()
            .filter(|broker| broker.share == Share::Filled && broker.is_active())
            .map(|broker| broker.id)
            .collect();
        let survey = self.survey(now, image);
        self.ours.retain(|tp, _| survey.moving.contains(tp));
        let may_share = self.shares && !newcomers.is_empty() && !survey.others_move && !survey.is_short;
        // What does not arrive takes no place of what does.
        let room = self.most.saturating_sub(survey.moving.len() - survey.lost.len());
        let mut commands: Vec<Command> = self.take_back(image, &survey).into_iter().collect();
        let added = self.add_replicas(image, &survey, room);
        let room = room.saturating_sub(added.len());
        let mut pinned: BTreeSet<TopicPartition> = self.placed.keys().copied().collect();
        pinned.extend(added.keys());
        if !added.is_empty() {
            commands.push(self.move_to(image, added, true));
        }
        if room == 0 || !(may_share || survey.leaves) {
            return commands;
        }
        let goals = Goals { leaders: may_share, replicas: may_share, ..Goals::AUTOMATIC };
        let around = Around { pinned, stalled: survey.stalled.clone() };
        let plan = plan_around(image, loads, goals, Limits::automatic(room), &around);
        if may_share && plan.moves.len() < room {
            commands.extend(self.settle(&newcomers, &survey, &plan));
        }
        commands.extend(self.carry_out(image, plan));
        commands
    }

    /// Gives up replicas that were added here, to brokers that are gone: while they are awaited, more have to be in sync.
    fn take_back(&mut self, image: &Image, survey: &Survey) -> Option<Command> {
        let only_adds = |tp: &&TopicPartition| image.partition(**tp).is_some_and(|state| state.removing.is_empty());
        let ours = survey.lost.iter().filter(|tp| self.ours.contains_key(*tp)).filter(only_adds);
        let changes: Vec<_> = ours.map(|tp| (*tp, None)).collect();
        if changes.is_empty() {
            return None;
        }
        let planned_on =
            changes.iter().filter_map(|(tp, _)| Some((*tp, image.partition(*tp)?.partition_epoch))).collect();
        for (tp, _) in &changes {
            if let Some(state) = image.partition(*tp) {
                let without = state.replicas.iter().copied().filter(|id| !state.adding.contains(id)).collect();
                self.ours.insert(*tp, without);
            }
        }
        Some(Command::AlterReassignments(AlterReassignments { changes, allow_factor_change: true, planned_on }))
    }

    /// What was made with too few replicas, and those it gets now, as far as there are brokers for them. A partition that has to
    /// leave a broker first is left to that.
    fn add_replicas(&self, image: &Image, survey: &Survey, room: usize) -> BTreeMap<TopicPartition, Vec<NodeId>> {
        let mut targets: BTreeMap<TopicPartition, Vec<NodeId>> = BTreeMap::new();
        if !self.shares {
            return targets;
        }
        let stays = |id: &NodeId| image.broker(*id).is_some_and(|broker| !broker.is_draining());
        let serve: Vec<&Broker> =
            image.brokers().map(|broker| &**broker).filter(|broker| broker.is_active() && stays(&broker.id)).collect();
        let mut counts: BTreeMap<NodeId, usize> =
            serve.iter().map(|broker| (broker.id, image.replica_count(broker.id))).collect();
        for (name, factor) in &self.factors {
            let Some(topic) = image.topic_named(name) else { continue };
            let factor = serve.len().min(*factor);
            for (index, state) in topic.indexed() {
                let tp = TopicPartition::new(topic.id, index);
                let left_alone = survey.moving.contains(&tp) || self.placed.contains_key(&tp);
                if targets.len() >= room || left_alone || state.leader.is_none() || !state.replicas.iter().all(stays) {
                    continue;
                }
                let mut target = state.replicas.clone();
                while target.len() < factor {
                    let Some(id) = least_loaded(image, &serve, &counts, &target) else { break };
                    target.push(id);
                    *counts.entry(id).or_default() += 1;
                }
                if target.len() > state.replicas.len() {
                    targets.insert(tp, target);
                }
            }
        }
        if !targets.is_empty() {
            tracing::info!(
                partitions = targets.len(),
                "internal topics get the replicas that there were no brokers for"
            );
        }
        targets
    }

    /// Sees what others have placed since the last look.
    fn look(&mut self, now: Millis, image: &Arc<Image>) {
        self.down.retain(|id, _| image.broker(*id).is_some_and(|broker| broker.fenced));
        for broker in image.brokers().filter(|broker| broker.fenced) {
            self.down.entry(broker.id).or_insert(now);
        }
        self.placed.retain(|tp, at| now - *at < HANDS_OFF && image.partition(*tp).is_some());
        match self.seen.replace(Arc::clone(image)) {
            None => {
                // Whoever set them in motion: a leader before this one, or an operator.
                let moving = partitions(image).filter(|(_, state)| moves(state)).map(|(tp, _)| (tp, now));
                self.placed.extend(moving);
            }
            Some(seen) if Arc::ptr_eq(&seen, image) => {}
            Some(seen) => {
                for change in image.topics_changed(&seen) {
                    let TopicChange::Changed { old, new } = change else { continue };
                    for (index, state) in new.indexed() {
                        let tp = TopicPartition::new(new.id, index);
                        let target = target(state);
                        let same = old.partition(index).is_none_or(|old| self::target(old) == target);
                        if !same && self.ours.get(&tp) != Some(&target) {
                            self.ours.remove(&tp);
                            self.placed.insert(tp, now);
                        }
                    }
                }
            }
        }
    }

    fn survey(&self, now: Millis, image: &Image) -> Survey {
        let mut survey = Survey::default();
        let stay: BTreeSet<NodeId> = image.brokers().filter(|broker| !broker.is_draining()).map(|b| b.id).collect();
        let is_gone =
            |id: &NodeId| image.broker(*id).is_none() || self.down.get(id).is_some_and(|since| now - since >= GONE_FOR);
        for (tp, state) in partitions(image) {
            if moves(state) {
                survey.moving.insert(tp);
                survey.awaited.extend(&state.adding);
                if state.adding.iter().any(is_gone) {
                    survey.lost.insert(tp);
                    if state.replicas.iter().any(|id| !stay.contains(id)) {
                        survey.stalled.insert(tp);
                        survey.leaves = true;
                    }
                }
                survey.others_move |= !self.ours.contains_key(&tp);
            }
            survey.is_short |= state.leader.is_none() || !state.elr.is_empty();
            survey.leaves |= state.replicas.iter().any(|id| !stay.contains(id) && !state.removing.contains(id));
        }
        survey
    }

    /// Newcomers to whom nothing more is to go, and nothing is on its way, have their share.
    fn settle(&self, newcomers: &BTreeSet<NodeId>, survey: &Survey, plan: &Plan) -> Vec<Command> {
        let gains = |id: &NodeId| {
            survey.awaited.contains(id)
                || plan.moves.iter().any(|step| step.to == *id)
                || plan.leaders.iter().any(|(_, leader)| leader == id)
        };
        let settled: Vec<NodeId> = newcomers.iter().copied().filter(|id| !gains(id)).collect();
        let mut commands: Vec<Command> =
            settled.into_iter().map(|id| Command::SetShare { id, share: Share::Kept }).collect();
        if !commands.is_empty() && self.restores_leaders {
            // They lead what they are preferred for from now on, not only when it is looked at that next.
            commands.push(Command::Sweep(Elections { unclean: false, preferred: true }));
        }
        commands
    }

    fn carry_out(&mut self, image: &Image, plan: Plan) -> Option<Command> {
        if plan.targets.is_empty() {
            return None;
        }
        let partitions = plan.targets.len();
        tracing::info!(partitions, "replicas move to brokers that came, or away from brokers that leave");
        Some(self.move_to(image, plan.targets, false))
    }

    fn move_to(
        &mut self,
        image: &Image,
        targets: BTreeMap<TopicPartition, Vec<NodeId>>,
        allow_factor_change: bool,
    ) -> Command {
        let epoch = |tp: &TopicPartition| Some((*tp, image.partition(*tp)?.partition_epoch));
        let planned_on = targets.keys().filter_map(epoch).collect();
        self.ours.extend(targets.iter().map(|(tp, target)| (*tp, target.clone())));
        let changes = targets.into_iter().map(|(tp, target)| (tp, Some(target))).collect();
        Command::AlterReassignments(AlterReassignments { changes, allow_factor_change, planned_on })
    }
}

/// Of those that do not hold the partition yet: one of a rack that has none of it, if there is one, and of these the one with the fewest
/// replicas.
fn least_loaded(
    image: &Image,
    serve: &[&Broker],
    counts: &BTreeMap<NodeId, usize>,
    holders: &[NodeId],
) -> Option<NodeId> {
    let racks: BTreeSet<&str> = holders.iter().filter_map(|id| image.broker(*id)?.rack.as_deref()).collect();
    let others = serve.iter().filter(|broker| !holders.contains(&broker.id));
    let cost = |broker: &Broker| {
        let known = broker.rack.as_deref().is_some_and(|rack| racks.contains(rack));
        (known, counts.get(&broker.id).copied().unwrap_or(0), broker.id)
    };
    others.map(|broker| cost(broker)).min().map(|(_, _, id)| id)
}

fn partitions(image: &Image) -> impl Iterator<Item = (TopicPartition, &Arc<PartitionState>)> {
    image.topics().flat_map(|topic| topic.indexed().map(|(index, state)| (TopicPartition::new(topic.id, index), state)))
}

fn moves(state: &PartitionState) -> bool {
    !state.adding.is_empty() || !state.removing.is_empty()
}

/// Replicas that the partition is to have in the end.
fn target(state: &PartitionState) -> Vec<NodeId> {
    state.replicas.iter().copied().filter(|id| !state.removing.contains(id)).collect()
}
