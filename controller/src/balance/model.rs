//! The cluster as the planner sees it: who carries what, kept up to date with each step it considers.

use std::collections::{BTreeMap, BTreeSet};

use proto::ids::{NodeId, TopicPartition};
use proto::metadata::{Image, Share};

use super::load::{Disk, Loads, PartitionLoad};
use super::plan::{Around, Limits};

/// A partition as it will be.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) tp: TopicPartition,
    /// The first one is preferred as leader.
    pub(super) replicas: Vec<NodeId>,
    /// Where it goes as long as nobody decides otherwise: its replicas, unless its way is taken back.
    pub(super) bound_for: Vec<NodeId>,
    pub(super) in_sync: Vec<NodeId>,
    pub(super) load: PartitionLoad,
    /// A reassignment is under way, or nobody leads: it is counted where it goes, and left alone.
    pub(super) moving: bool,
    /// An operator placed it: it moves only where it cannot stay.
    pub(super) pinned: bool,
}

/// What a broker carries.
#[derive(Debug, Clone, Default)]
pub(super) struct Carried {
    pub(super) rack: Option<String>,
    /// Whether replicas may go there.
    pub(super) receives: bool,
    /// Whether its replicas have to go away.
    pub(super) leaves: bool,
    /// Whether it is to get as much as the others have.
    pub(super) fills: bool,
    pub(super) disk: Disk,
    pub(super) leaders: u64,
    pub(super) replicas: u64,
    pub(super) bytes_in: u64,
    pub(super) hot: u64,
}

#[derive(Debug, Clone)]
pub(super) struct Model {
    pub(super) parts: Vec<Part>,
    pub(super) brokers: BTreeMap<NodeId, Carried>,
    /// Parts by the brokers that have a replica.
    by_broker: BTreeMap<NodeId, BTreeSet<usize>>,
    /// Racks that replicas may go to. A broker that tells none is a rack of its own.
    racks: usize,
    max_disk_percent: u64,
}

impl Model {
    pub(super) fn new(image: &Image, loads: &Loads, limits: &Limits, around: &Around) -> Self {
        let mut brokers: BTreeMap<NodeId, Carried> = BTreeMap::new();
        for broker in image.brokers() {
            let carried = Carried {
                rack: broker.rack.clone(),
                receives: broker.is_active() && !broker.is_draining(),
                leaves: broker.is_draining(),
                fills: broker.is_active() && broker.share == Share::Filled,
                disk: loads.disk(broker.id),
                ..Carried::default()
            };
            brokers.insert(broker.id, carried);
        }
        let receiving = || brokers.iter().filter(|(_, broker)| broker.receives);
        let named: BTreeSet<&str> = receiving().filter_map(|(_, broker)| broker.rack.as_deref()).collect();
        let racks = named.len() + receiving().filter(|(_, broker)| broker.rack.is_none()).count();
        let mut model = Self {
            parts: Vec::new(),
            brokers,
            by_broker: BTreeMap::new(),
            racks,
            max_disk_percent: limits.max_disk_percent,
        };
        for topic in image.topics() {
            for (index, state) in topic.indexed() {
                let tp = TopicPartition::new(topic.id, index);
                let stalls = around.stalled.contains(&tp);
                let all = || state.replicas.iter().copied();
                let bound_for: Vec<NodeId> = all().filter(|id| !state.removing.contains(id)).collect();
                let settled = || all().filter(|id| !state.adding.contains(id)).collect();
                let moves = !stalls && (!state.adding.is_empty() || !state.removing.is_empty());
                model.add(Part {
                    tp,
                    replicas: if stalls { settled() } else { bound_for.clone() },
                    bound_for,
                    in_sync: state.isr.clone(),
                    load: loads.partition(tp),
                    moving: moves || state.leader.is_none(),
                    pinned: stalls || around.pinned.contains(&tp),
                });
            }
        }
        model
    }

    fn add(&mut self, part: Part) {
        let index = self.parts.len();
        for id in &part.replicas {
            let carried = self.brokers.entry(*id).or_insert_with(|| Carried { leaves: true, ..Carried::default() });
            carried.replicas += 1;
            carried.bytes_in += part.load.bytes_in;
            carried.hot += part.load.hot;
            self.by_broker.entry(*id).or_default().insert(index);
        }
        if let Some(carried) = part.replicas.first().and_then(|id| self.brokers.get_mut(id)) {
            carried.leaders += 1;
        }
        self.parts.push(part);
    }

    /// Parts with a replica on `id`.
    pub(super) fn on(&self, id: NodeId) -> impl Iterator<Item = usize> + '_ {
        self.by_broker.get(&id).into_iter().flat_map(|parts| parts.iter().copied())
    }

    /// Brokers that replicas may go to.
    pub(super) fn receivers(&self) -> impl Iterator<Item = (NodeId, &Carried)> {
        self.brokers.iter().filter(|(_, broker)| broker.receives).map(|(id, broker)| (*id, broker))
    }

    /// How many replicas of the part share a rack with one before them.
    pub(super) fn crowded(&self, replicas: &[NodeId]) -> usize {
        let rack = |id: &NodeId| match self.brokers.get(id).and_then(|broker| broker.rack.as_deref()) {
            Some(rack) => (Some(rack), None),
            None => (None, Some(*id)),
        };
        let distinct: BTreeSet<_> = replicas.iter().map(rack).collect();
        replicas.len() - distinct.len()
    }

    /// Whether racks would let the part have no two replicas in one.
    pub(super) fn could_spread(&self, part: &Part) -> bool {
        part.replicas.len() <= self.racks
    }

    /// Whether the replica of `part` on `from` may go to `to`.
    pub(super) fn fits(&self, part: &Part, from: NodeId, to: NodeId) -> bool {
        let Some(target) = self.brokers.get(&to).filter(|target| target.receives) else { return false };
        if part.moving || part.replicas.contains(&to) || !part.replicas.contains(&from) {
            return false;
        }
        let as_crowded = self.crowded(&part.replicas).max(part.replicas.len().saturating_sub(self.racks));
        self.has_room(part, from, target) && self.crowded(&replaced(&part.replicas, from, to)) <= as_crowded
    }

    /// Whether what `part` has on `from` fits on the disks of `target`.
    fn has_room(&self, part: &Part, from: NodeId, target: &Carried) -> bool {
        let source = self.brokers.get(&from);
        let most = match source {
            Some(source) if source.leaves => self.max_disk_percent.max(FULL_PERCENT),
            // What goes from a disk to one that is no fuller makes nothing worse.
            Some(source) => self.max_disk_percent.max(percent(source.disk.used, source.disk)),
            None => self.max_disk_percent,
        };
        let after = target.disk.used.saturating_add(part.load.hot);
        percent(after, target.disk) <= most
    }

    /// Why nobody can take the replica of `part` on `from`, though it has to leave.
    pub(super) fn obstacle(&self, part: &Part, from: NodeId) -> Obstacle {
        let others = || self.receivers().filter(|(id, _)| !part.replicas.contains(id));
        if others().next().is_none() {
            Obstacle::Brokers
        } else if others().all(|(_, target)| !self.has_room(part, from, target)) {
            Obstacle::Disks
        } else {
            Obstacle::Racks
        }
    }

    /// Moves the replica of part `index` from `from` to `to`.
    pub(super) fn shift(&mut self, index: usize, from: NodeId, to: NodeId) {
        let Some(part) = self.parts.get_mut(index) else { return };
        let leads = part.replicas.first() == Some(&from);
        part.replicas = replaced(&part.replicas, from, to);
        let load = part.load;
        if let Some(source) = self.brokers.get_mut(&from) {
            source.replicas -= 1;
            source.leaders -= u64::from(leads);
            source.bytes_in -= load.bytes_in;
            source.hot -= load.hot;
            source.disk.used = source.disk.used.saturating_sub(load.hot);
        }
        if let Some(target) = self.brokers.get_mut(&to) {
            target.replicas += 1;
            target.leaders += u64::from(leads);
            target.bytes_in += load.bytes_in;
            target.hot += load.hot;
            target.disk.used += load.hot;
        }
        self.by_broker.entry(from).or_default().remove(&index);
        self.by_broker.entry(to).or_default().insert(index);
    }

    /// Makes `to` the preferred leader of part `index`.
    pub(super) fn prefer(&mut self, index: usize, to: NodeId) {
        let Some(part) = self.parts.get_mut(index) else { return };
        let Some(position) = part.replicas.iter().position(|id| *id == to) else { return };
        let from = part.replicas.first().copied();
        part.replicas.swap(0, position);
        if let Some(source) = from.and_then(|id| self.brokers.get_mut(&id)) {
            source.leaders -= 1;
        }
        if let Some(target) = self.brokers.get_mut(&to) {
            target.leaders += 1;
        }
    }
}

/// What has to go somewhere may fill a disk up to this, in percent.
pub const FULL_PERCENT: u64 = 95;

/// Why nobody can take a replica that has to leave a broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Obstacle {
    /// Each broker that serves and stays has a replica already.
    Brokers,
    /// Each other one would have a disk fuller than [`FULL_PERCENT`].
    Disks,
    /// Whoever has room is in a rack that has a replica already, though there are enough racks.
    Racks,
}

/// How much of a disk are `used` bytes, rounded down; 0 if its size is not known.
fn percent(used: u64, disk: Disk) -> u64 {
    let percent = (u128::from(used) * 100).checked_div(u128::from(disk.total)).unwrap_or(0);
    u64::try_from(percent).unwrap_or(u64::MAX)
}

/// `replicas` with `to` in the place of `from`.
pub(super) fn replaced(replicas: &[NodeId], from: NodeId, to: NodeId) -> Vec<NodeId> {
    replicas.iter().map(|id| if *id == from { to } else { *id }).collect()
}
