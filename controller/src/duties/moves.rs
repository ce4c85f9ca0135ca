//! Replicas that move without an operator naming them: away from brokers that are to be emptied or are gone, and to brokers
//! that came, until they have their share. Pure.
//!
//! Nothing else moves by itself. What operators place stays where they placed it: a partition that is being reassigned is
//! left alone, one that was reassigned is left alone for an hour after, and while any is nobody gets a share. A move is
//! planned on one state of its partition and refused on another, so that a reassignment which comes in between counts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proto::ids::{Millis, NodeId, TopicPartition};
use proto::metadata::{Image, PartitionState, Share, TopicChange};

use super::Settings;
use crate::balance::{Goals, Limits, Loads, Plan, plan_around};
use crate::command::{AlterReassignments, Command, Elections};

/// Time between the first look and the first move: brokers need some to come back after a restart of the cluster.
const GRACE: Millis = 5_000;
/// How long a partition stays where an operator has placed it, whoever comes.
const HANDS_OFF: Millis = 3_600_000;

/// What moves, and what must not.
#[derive(Debug)]
pub(super) struct Moves {
    /// Whether brokers that come get a share.
    shares: bool,
    /// How many partitions may be on the move at a time.
    most: usize,
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
}

/// What goes on in the cluster as far as moves have to mind it.
#[derive(Debug, Default)]
struct Survey {
    /// Partitions on the move.
    moving: BTreeSet<TopicPartition>,
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
            restores_leaders: settings.preferred_every.is_some(),
            since: None,
            seen: None,
            ours: BTreeMap::new(),
            placed: BTreeMap::new(),
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
        let survey = self.survey(image);
        self.ours.retain(|tp, _| survey.moving.contains(tp));
        let may_share = self.shares && !newcomers.is_empty() && !survey.others_move && !survey.is_short;
        let room = self.most.saturating_sub(survey.moving.len());
        if room == 0 || !(may_share || survey.leaves) {
            return Vec::new();
        }
        let goals = Goals { leaders: may_share, replicas: may_share, ..Goals::AUTOMATIC };
        let pinned = self.placed.keys().copied().collect();
        let plan = plan_around(image, loads, goals, Limits::automatic(room), &pinned);
        let mut commands = Vec::new();
        if may_share && plan.moves.len() < room {
            commands.extend(self.settle(&newcomers, &survey, &plan));
        }
        commands.extend(self.carry_out(image, plan));
        commands
    }

    /// Sees what others have placed since the last look.
    fn look(&mut self, now: Millis, image: &Arc<Image>) {
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

    fn survey(&self, image: &Image) -> Survey {
        let mut survey = Survey::default();
        let stay: BTreeSet<NodeId> = image.brokers().filter(|broker| !broker.is_draining()).map(|b| b.id).collect();
        for (tp, state) in partitions(image) {
            if moves(state) {
                survey.moving.insert(tp);
                survey.awaited.extend(&state.adding);
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
        let epoch = |tp: &TopicPartition| Some((*tp, image.partition(*tp)?.partition_epoch));
        let planned_on = plan.targets.keys().filter_map(epoch).collect();
        self.ours.extend(plan.targets.iter().map(|(tp, target)| (*tp, target.clone())));
        let changes = plan.targets.into_iter().map(|(tp, target)| (tp, Some(target))).collect();
        Some(Command::AlterReassignments(AlterReassignments { changes, allow_factor_change: false, planned_on }))
    }
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
