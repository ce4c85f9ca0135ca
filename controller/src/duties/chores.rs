//! What is due from time to time: elections, duties of brokers that are gone, moves for the sake of balance. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use proto::ids::{Millis, NodeId, TopicPartition};
use proto::metadata::{Duty, Image};

use super::Settings;
use crate::balance::{Goals, Limits, Loads, plan};
use crate::command::{AlterReassignments, Command, Elections};

/// How often the balance is looked at.
const BALANCE_EVERY: Millis = 10_000;
/// Duties that go to a broker.
const BROKERS_DUTIES: [Duty; 2] = [Duty::Sweeper, Duty::SnapshotWriter];

/// When what was done last.
#[derive(Debug)]
pub(super) struct Chores {
    unclean: Recurring,
    preferred: Option<Recurring>,
    balance: Option<(usize, Recurring)>,
    /// How many were asked for and are not done.
    under_way: usize,
    /// Partitions that were set in motion here.
    moving: BTreeSet<TopicPartition>,
}

#[derive(Debug)]
struct Recurring {
    every: Millis,
    last: Option<Millis>,
}

impl Recurring {
    fn every(every: Duration) -> Self {
        Self { every: Millis::try_from(every.as_millis()).unwrap_or(Millis::MAX), last: None }
    }

    /// Whether it is due; then it is done. The first time is one period after it was looked at first: brokers need time
    /// to come back after a restart.
    fn is_due(&mut self, now: Millis) -> bool {
        let last = *self.last.get_or_insert(now);
        let due = now - last >= self.every;
        if due {
            self.last = Some(now);
        }
        due
    }
}

impl Chores {
    pub(super) fn new(settings: &Settings) -> Self {
        let balance = |moves| (moves, Recurring { every: BALANCE_EVERY, last: None });
        Self {
            unclean: Recurring::every(settings.unclean_every),
            preferred: settings.preferred_every.map(Recurring::every),
            balance: settings.balance_moves.filter(|moves| *moves > 0).map(balance),
            under_way: 0,
            moving: BTreeSet::new(),
        }
    }

    /// One of those that were asked for is done.
    pub(super) fn done(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    /// What is due now. Nothing while something is under way.
    pub(super) fn due(&mut self, now: Millis, image: &Image, loads: &Loads) -> Vec<Command> {
        if self.under_way > 0 {
            return Vec::new();
        }
        let unclean = self.unclean.is_due(now) && has_leaderless(image);
        let preferred = self.preferred.as_mut().is_some_and(|preferred| preferred.is_due(now)) && has_displaced(image);
        let mut commands = Vec::new();
        if unclean || preferred {
            commands.push(Command::Sweep(Elections { unclean, preferred }));
        }
        commands.extend(unassigned(image));
        if let Some((moves, recurring)) = &mut self.balance
            && recurring.is_due(now)
        {
            let moves = *moves;
            commands.extend(self.balance(image, loads, moves));
        }
        self.under_way = commands.len();
        commands
    }

    /// The next moves. None while users move replicas, or a partition has too few in sync to lose another.
    fn balance(&mut self, image: &Image, loads: &Loads, moves: usize) -> Option<Command> {
        if image.level() < 1 || image.brokers().count() < 2 {
            return None;
        }
        let states = image
            .topics()
            .flat_map(|topic| topic.indexed().map(|(index, state)| (TopicPartition::new(topic.id, index), state)));
        let mut under_way = BTreeSet::new();
        for (tp, state) in states {
            let moves = !state.adding.is_empty() || !state.removing.is_empty();
            if state.leader.is_none() || !state.elr.is_empty() || (moves && !self.moving.contains(&tp)) {
                return None;
            }
            if moves {
                under_way.insert(tp);
            }
        }
        self.moving = under_way;
        let room = moves.saturating_sub(self.moving.len());
        if room == 0 {
            return None;
        }
        let plan = plan(image, loads, Goals::AUTOMATIC, Limits::automatic(room));
        let changes: Vec<_> = plan.targets.into_iter().map(|(tp, target)| (tp, Some(target))).collect();
        if changes.is_empty() {
            return None;
        }
        tracing::info!(partitions = changes.len(), "replicas move to even out what brokers carry");
        self.moving.extend(changes.iter().map(|(tp, _)| *tp));
        Some(Command::AlterReassignments(AlterReassignments { changes, allow_factor_change: false }))
    }
}

fn has_leaderless(image: &Image) -> bool {
    image.topics().any(|topic| topic.partitions.iter().any(|state| state.leader.is_none()))
}

fn has_displaced(image: &Image) -> bool {
    let displaced = |topic: &proto::metadata::Topic| {
        topic.partitions.iter().any(|state| state.leader.is_some() && state.leader.as_ref() != state.replicas.first())
    };
    image.topics().any(|topic| displaced(topic))
}

/// Gives duties that no broker in service has to one that is.
fn unassigned(image: &Image) -> Option<Command> {
    if image.level() < 1 {
        return None;
    }
    let serves = |id: NodeId| image.broker(id).is_some_and(|broker| broker.is_active());
    let candidate = image.brokers().find(|broker| broker.is_active())?.id;
    let duties: Vec<_> = BROKERS_DUTIES
        .into_iter()
        .filter(|duty| image.duty(*duty).is_none_or(|(node, _)| !serves(node)))
        .map(|duty| (duty, candidate))
        .collect();
    (!duties.is_empty()).then_some(Command::AssignDuties(duties))
}
