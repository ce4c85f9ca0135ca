//! The planner: what has to move first, then exchanges that help, as long as one helps enough.

use std::collections::{BTreeMap, BTreeSet};

use proto::ids::{NodeId, TopicPartition};
use proto::metadata::Image;

use super::load::Loads;
use super::model::{Carried, Model, Obstacle};

/// What a plan is to reach. Brokers that are to be emptied are emptied in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Goals {
    /// Whom replicas and leaders may go to, and away from whom.
    pub scope: Scope,
    /// Brokers are preferred for equally many partitions.
    pub leaders: bool,
    /// Brokers have equally many replicas.
    pub replicas: bool,
    /// Brokers take in equally many bytes and hold equally many.
    pub traffic: bool,
}

impl Goals {
    /// All of them: what an operator asks for.
    pub const ALL: Self = Self { scope: Scope::All, leaders: true, replicas: true, traffic: true };
    /// What happens by itself: brokers that came get their share, by counts alone.
    pub const AUTOMATIC: Self = Self { scope: Scope::Newcomers, leaders: true, replicas: true, traffic: false };
}

/// Which brokers a plan evens out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// All of them, and replicas are spread over racks.
    All,
    /// Those that came and have less than their share get it ([`Share::Filled`](proto::metadata::Share::Filled)); nothing
    /// changes among the others.
    Newcomers,
}

/// Bounds of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How many replicas it moves at most.
    pub moves: usize,
    /// A move must not fill a disk above this, in percent.
    pub max_disk_percent: u64,
    /// An exchange has to bring the two brokers closer to each other by more than this, in percent of what all of them
    /// carry on average.
    pub least_gain_percent: u64,
}

impl Limits {
    /// What happens by itself.
    pub const fn automatic(moves: usize) -> Self {
        Self { moves, max_disk_percent: 85, least_gain_percent: 0 }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { moves: 10_000, max_disk_percent: 85, least_gain_percent: 5 }
    }
}

/// Why something moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// The broker is to be emptied, or is not registered any more.
    Drain,
    /// Two replicas are in one rack, and there is another one.
    Rack,
    /// The broker is preferred for too many partitions.
    Leaders,
    /// The broker has too many replicas.
    Replicas,
    /// The broker takes in too many bytes.
    BytesIn,
    /// The broker holds too many bytes.
    Disk,
}

/// A replica that goes from one broker to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Move {
    /// Its partition.
    pub tp: TopicPartition,
    /// Where it is.
    pub from: NodeId,
    /// Where it goes.
    pub to: NodeId,
    /// Bytes that have to be copied, as far as known.
    pub bytes: u64,
    /// Why.
    pub reason: Reason,
}

/// A replica that has to move, and nobody can take it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stuck {
    /// Its partition.
    pub tp: TopicPartition,
    /// Where it is.
    pub broker: NodeId,
    /// Why nobody can.
    pub why: Obstacle,
}

/// What to do, and what comes of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// Replicas that move, in this order.
    pub moves: Vec<Move>,
    /// Partitions that get another preferred leader among the replicas they have.
    pub leaders: Vec<(TopicPartition, NodeId)>,
    /// Replicas of each partition that changes, preferred leader first: the reassignment to ask for.
    pub targets: BTreeMap<TopicPartition, Vec<NodeId>>,
    /// Replicas that have to move, and nobody can take them.
    pub stuck: Vec<Stuck>,
    /// Partitions that keep two replicas in one rack although there are enough racks.
    pub crowded: Vec<TopicPartition>,
}

/// Plans for `image`.
pub fn plan(image: &Image, loads: &Loads, goals: Goals, limits: Limits) -> Plan {
    plan_around(image, loads, goals, limits, &Around::default())
}

/// What a plan has to mind.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Around {
    /// Partitions that stay where they are, unless they have a replica on a broker that is to be emptied.
    pub pinned: BTreeSet<TopicPartition>,
    /// Partitions on their way to brokers that are gone: the way is taken back, and they are planned from where they are.
    pub stalled: BTreeSet<TopicPartition>,
}

/// Plans for `image` and minds what is `around`.
pub fn plan_around(image: &Image, loads: &Loads, goals: Goals, limits: Limits, around: &Around) -> Plan {
    let model = Model::new(image, loads, &limits, around);
    let mut planner = Planner {
        before: model.parts.iter().map(|part| part.bound_for.clone()).collect(),
        model,
        scope: goals.scope,
        limits,
        plan: Plan::default(),
    };
    planner.empty_those_that_leave();
    if goals.scope == Scope::All {
        planner.spread_over_racks();
    }
    if goals.leaders {
        planner.even_out_leaders();
    }
    if goals.replicas {
        planner.even_out(Reason::Replicas, |broker| broker.replicas);
    }
    if goals.traffic {
        planner.exchange(Reason::BytesIn, |broker| broker.bytes_in, |load| load.bytes_in);
        planner.exchange(Reason::Disk, |broker| broker.hot, |load| load.hot);
    }
    if goals.leaders {
        planner.even_out_leaders();
    }
    planner.finish()
}

struct Planner {
    model: Model,
    before: Vec<Vec<NodeId>>,
    scope: Scope,
    limits: Limits,
    plan: Plan,
}

impl Planner {
    fn has_moves_left(&self) -> bool {
        self.plan.moves.len() < self.limits.moves
    }

    fn shift(&mut self, index: usize, from: NodeId, to: NodeId, reason: Reason) {
        let Some(part) = self.model.parts.get(index) else { return };
        self.plan.moves.push(Move { tp: part.tp, from, to, bytes: part.load.hot, reason });
        self.model.shift(index, from, to);
    }

    /// The best broker for the replica of part `index` on `from`: least crowded rack, fewest replicas, fewest bytes.
    fn best_target(&self, index: usize, from: NodeId) -> Option<NodeId> {
        let part = self.model.parts.get(index)?;
        let leads = part.replicas.first() == Some(&from);
        let cost = |id: NodeId, broker: &Carried| {
            let replicas = super::model::replaced(&part.replicas, from, id);
            let led = if leads { broker.leaders } else { 0 };
            (self.model.crowded(&replicas), broker.replicas, led, broker.bytes_in, broker.hot, id)
        };
        let fitting = self.model.receivers().filter(|(id, _)| self.model.fits(part, from, *id));
        fitting.min_by_key(|(id, broker)| cost(*id, broker)).map(|(id, _)| id)
    }

    fn empty_those_that_leave(&mut self) {
        let leaving: Vec<NodeId> =
            self.model.brokers.iter().filter(|(_, broker)| broker.leaves).map(|(id, _)| *id).collect();
        for from in leaving {
            let parts: Vec<usize> = self.model.on(from).collect();
            for index in parts {
                if !self.has_moves_left() {
                    return;
                }
                let Some(part) = self.model.parts.get(index).filter(|part| !part.moving) else { continue };
                let tp = part.tp;
                match self.best_target(index, from) {
                    Some(to) => self.shift(index, from, to, Reason::Drain),
                    None => {
                        let why = self.model.obstacle(part, from);
                        self.plan.stuck.push(Stuck { tp, broker: from, why });
                    }
                }
            }
        }
    }

    fn spread_over_racks(&mut self) {
        for index in 0..self.model.parts.len() {
            let Some(part) = self.model.parts.get(index).cloned() else { continue };
            let crowded = self.model.crowded(&part.replicas);
            if part.moving || crowded == 0 || !self.model.could_spread(&part) {
                continue;
            }
            // From where there are many to where there are few; followers before the leader.
            let count = |id: &NodeId| self.model.brokers.get(id).map_or(0, |broker| broker.replicas);
            let steps = part.replicas.iter().rev().enumerate().filter_map(|(rank, from)| {
                let to = self.best_target(index, *from)?;
                let after = self.model.crowded(&super::model::replaced(&part.replicas, *from, to));
                let tilt = i128::from(count(&to)) - i128::from(count(from));
                (after < crowded).then_some((after, tilt, rank, *from, to))
            });
            let better = steps.min().map(|(_, _, _, from, to)| (from, to));
            match better {
                Some((from, to)) if self.has_moves_left() => self.shift(index, from, to, Reason::Rack),
                Some(_) | None => self.plan.crowded.push(part.tp),
            }
        }
    }

    /// Whether a gap between two brokers may be worth closing, where all carry `average`.
    fn is_notable(&self, gap: u64, average: u64) -> bool {
        u128::from(gap) * 100 > u128::from(average) * u128::from(self.limits.least_gain_percent)
    }

    fn average(&self, carried: impl Fn(&Carried) -> u64) -> u64 {
        let (sum, count) =
            self.model.receivers().fold((0, 0), |(sum, count), (_, broker)| (sum + carried(broker), count + 1));
        sum.checked_div(count).unwrap_or(0)
    }

    /// Whether `to` may get more in order to be even with others.
    fn may_gain(&self, to: NodeId) -> bool {
        match self.scope {
            Scope::All => true,
            Scope::Newcomers => self.model.brokers.get(&to).is_some_and(|broker| broker.fills),
        }
    }

    /// Whether `from` may lose something to others.
    fn may_lose(&self, from: NodeId) -> bool {
        match self.scope {
            Scope::All => true,
            Scope::Newcomers => self.model.brokers.get(&from).is_some_and(|broker| !broker.fills),
        }
    }

    /// Receivers by what they carry, the least loaded first.
    fn by_load(&self, carried: impl Fn(&Carried) -> u64) -> Vec<(u64, NodeId)> {
        let mut brokers: Vec<_> = self.model.receivers().map(|(id, broker)| (carried(broker), id)).collect();
        brokers.sort_unstable();
        brokers
    }

    /// Changes preferred leaders from brokers with many to brokers with at least two less.
    fn even_out_leaders(&mut self) {
        let average = self.average(|broker| broker.leaders);
        while let Some((index, to)) = self.better_leader(average) {
            self.model.prefer(index, to);
        }
    }

    fn better_leader(&self, average: u64) -> Option<(usize, NodeId)> {
        let brokers = self.by_load(|broker| broker.leaders);
        brokers.iter().rev().filter(|(_, from)| self.may_lose(*from)).find_map(|(most, from)| {
            let leads = |index: &usize| {
                let part = self.model.parts.get(*index);
                part.is_some_and(|p| p.replicas.first() == Some(from) && !p.moving && !p.pinned)
            };
            let mut best: Option<(u64, usize, NodeId)> = None;
            for index in self.model.on(*from).filter(leads) {
                let part = self.model.parts.get(index)?;
                for id in part.replicas.iter().skip(1) {
                    // One that was planned to come has no records yet, but will have by then.
                    let ready = part.in_sync.contains(id) || !self.before.get(index).is_some_and(|b| b.contains(id));
                    let Some(other) =
                        self.model.brokers.get(id).filter(|other| other.receives && ready && self.may_gain(*id))
                    else {
                        continue;
                    };
                    let gains = other.leaders + 1 < *most && self.is_notable(most - other.leaders - 1, average);
                    let candidate = (other.leaders, index, *id);
                    if gains && best.is_none_or(|best| candidate < best) {
                        best = Some(candidate);
                    }
                }
            }
            best.map(|(_, index, id)| (index, id))
        })
    }

    /// Moves replicas from brokers that carry much to those that carry at least two less.
    fn even_out(&mut self, reason: Reason, carried: impl Fn(&Carried) -> u64 + Copy) {
        let average = self.average(carried);
        while self.has_moves_left() {
            let brokers = self.by_load(carried);
            let step = brokers.iter().rev().filter(|(_, from)| self.may_lose(*from)).find_map(|(most, from)| {
                brokers.iter().filter(|(_, to)| self.may_gain(*to)).find_map(|(least, to)| {
                    let gap = most.saturating_sub(*least);
                    let helps = gap >= 2 && self.is_notable(gap - 1, average);
                    let index = helps.then(|| self.cheapest(*from, *to)).flatten()?;
                    Some((index, *from, *to))
                })
            });
            let Some((index, from, to)) = step else { return };
            self.shift(index, from, to, reason);
        }
    }

    /// The part whose replica goes from `from` to `to` at the least cost: one that leads if the other leads less, few
    /// bytes.
    fn cheapest(&self, from: NodeId, to: NodeId) -> Option<usize> {
        let leaders = |id: NodeId| self.model.brokers.get(&id).map_or(0, |broker| broker.leaders);
        let wants_leader = leaders(from) > leaders(to) + 1;
        let fitting = self.model.on(from).filter_map(|index| {
            let part = self.model.parts.get(index)?;
            // What came in this plan stays where it came to.
            let moved = self.before.get(index).is_some_and(|before| !before.contains(&from));
            (!moved && !part.pinned && self.model.fits(part, from, to)).then(|| {
                let leads = part.replicas.first() == Some(&from);
                (leads != wants_leader, part.load.hot, index)
            })
        });
        fitting.min().map(|(_, _, index)| index)
    }

    /// Exchanges replicas between the broker that carries most and others, so that counts stay as they are.
    fn exchange(
        &mut self,
        reason: Reason,
        carried: impl Fn(&Carried) -> u64 + Copy,
        load: impl Fn(&super::load::PartitionLoad) -> u64 + Copy,
    ) {
        let average = self.average(carried);
        while self.plan.moves.len() + 2 <= self.limits.moves {
            let brokers = self.by_load(carried);
            let step = brokers.iter().rev().find_map(|(most, from)| {
                let others = brokers.iter().take_while(|(least, _)| least < most);
                others.into_iter().find_map(|(least, to)| {
                    let gap = most - least;
                    let (out, back) = self.best_exchange(*from, *to, gap, load)?;
                    let (given, taken) = (self.load_of(out, load), self.load_of(back, load));
                    let gain = gap - gap.abs_diff(2 * (given - taken));
                    self.is_notable(gain, average).then_some((out, back, *from, *to))
                })
            });
            let Some((out, back, from, to)) = step else { return };
            self.shift(out, from, to, reason);
            self.shift(back, to, from, reason);
        }
    }

    fn load_of(&self, index: usize, load: impl Fn(&super::load::PartitionLoad) -> u64) -> u64 {
        self.model.parts.get(index).map_or(0, |part| load(&part.load))
    }

    /// Two parts whose exchange brings `from` and `to`, now `gap` apart, closest together.
    fn best_exchange(
        &self,
        from: NodeId,
        to: NodeId,
        gap: u64,
        load: impl Fn(&super::load::PartitionLoad) -> u64 + Copy,
    ) -> Option<(usize, usize)> {
        /// So many of the heaviest of one broker are tried against as many of the lightest of the other.
        const TRIED: usize = 64;
        let still = |index: &usize, id: NodeId| self.before.get(*index).is_some_and(|before| before.contains(&id));
        let listed = |id: NodeId, other: NodeId| -> Vec<(u64, usize)> {
            let fits = |index: &usize| {
                self.model.parts.get(*index).is_some_and(|part| !part.pinned && self.model.fits(part, id, other))
            };
            let mut parts: Vec<_> = self
                .model
                .on(id)
                .filter(|index| still(index, id) && fits(index))
                .map(|index| (self.load_of(index, load), index))
                .collect();
            parts.sort_unstable();
            parts
        };
        let (heavy, light) = (listed(from, to), listed(to, from));
        let pairs =
            heavy.iter().rev().take(TRIED).flat_map(|out| light.iter().take(TRIED).map(move |back| (out, back)));
        let leads =
            |index: usize, id: NodeId| self.model.parts.get(index).is_some_and(|p| p.replicas.first() == Some(&id));
        pairs
            .filter(|((given, out), (taken, back))| {
                given > taken && given - taken < gap && leads(*out, from) == leads(*back, to)
            })
            .map(|((given, out), (taken, back))| (gap.abs_diff(2 * (given - taken)), *out, *back))
            .min()
            .map(|(_, out, back)| (out, back))
    }

    fn finish(mut self) -> Plan {
        for (part, before) in self.model.parts.iter().zip(&self.before) {
            if part.replicas == *before {
                continue;
            }
            self.plan.targets.insert(part.tp, part.replicas.clone());
            let new_leader = part.replicas.first().filter(|id| before.contains(id) && before.first() != Some(*id));
            if let Some(id) = new_leader {
                self.plan.leaders.push((part.tp, *id));
            }
        }
        self.plan
    }
}
