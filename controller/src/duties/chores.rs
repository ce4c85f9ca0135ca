//! What is due from time to time: elections, duties of brokers that are gone, moves to and from brokers. Pure.

use std::sync::Arc;
use std::time::Duration;

use proto::ids::{Millis, NodeId};
use proto::metadata::{Duty, Image};

use super::Settings;
use super::moves::Moves;
use crate::balance::Loads;
use crate::command::{Command, Elections};

/// Duties that go to a broker.
const BROKERS_DUTIES: [Duty; 2] = [Duty::Sweeper, Duty::SnapshotWriter];

/// When what was done last.
#[derive(Debug)]
pub(super) struct Chores {
    unclean: Recurring,
    preferred: Option<Recurring>,
    moves: Moves,
    /// How many were asked for and are not done.
    under_way: usize,
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
        Self {
            unclean: Recurring::every(settings.unclean_every),
            preferred: settings.preferred_every.map(Recurring::every),
            moves: Moves::new(settings),
            under_way: 0,
        }
    }

    /// One of those that were asked for is done.
    pub(super) fn done(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    /// What is due now. Nothing while something is under way.
    pub(super) fn due(&mut self, now: Millis, image: &Arc<Image>, loads: &Loads) -> Vec<Command> {
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
        commands.extend(self.moves.next(now, image, loads));
        self.under_way = commands.len();
        commands
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

#[cfg(test)]
mod tests;
