//! Where the replicas of new partitions go.
//!
//! Brokers that may lead form a ring in which racks take turns, so that neighbours are in different
//! racks as far as there are several. The first replica of each next partition is the next broker of
//! the ring; the followers come after it, at a distance that grows by one with each round, so that
//! the partitions led by one broker are followed by different ones.

use std::collections::BTreeMap;

use proto::ids::{DirectoryId, NodeId};
use proto::metadata::{Broker, Image, PartitionState, Recovery};

use crate::command::Refusal;

/// Brokers to place replicas on.
pub(super) struct Ring {
    brokers: Vec<NodeId>,
}

impl Ring {
    /// The brokers of `image` that may lead and are not being drained.
    pub(super) fn new(image: &Image) -> Self {
        let mut racks: BTreeMap<Option<&str>, Vec<NodeId>> = BTreeMap::new();
        for broker in image.brokers().filter(|broker| broker.is_active() && !broker.is_draining()) {
            racks.entry(broker.rack.as_deref()).or_default().push(broker.id);
        }
        let deepest = racks.values().map(Vec::len).max().unwrap_or(0);
        let brokers =
            (0..deepest).flat_map(|depth| racks.values().filter_map(move |rack| rack.get(depth))).copied().collect();
        Self { brokers }
    }

    /// Refuses a replication factor that cannot be reached.
    pub(super) fn check(&self, replication_factor: usize) -> Result<(), Refusal> {
        if replication_factor <= self.brokers.len() {
            return Ok(());
        }
        Err(Refusal::InvalidReplicationFactor(format!(
            "Replication factor: {replication_factor} larger than available brokers: {}.",
            self.brokers.len()
        )))
    }

    /// How many brokers there are to place replicas on.
    pub(super) fn len(&self) -> usize {
        self.brokers.len()
    }

    /// Replicas of the `number`th partition. At most as many as there are brokers.
    pub(super) fn replicas(&self, number: usize, replication_factor: usize) -> Vec<NodeId> {
        let count = self.brokers.len();
        if count == 0 {
            return Vec::new();
        }
        let first = number % count;
        let followers = count - 1;
        let shift = if followers == 0 { 0 } else { number / count % followers };
        std::iter::once(first)
            .chain((0..followers).map(|step| (first + 1 + (shift + step) % followers) % count))
            .take(replication_factor)
            .filter_map(|index| self.brokers.get(index).copied())
            .collect()
    }
}

/// State of a new partition with these replicas; `number` spreads partitions over directories.
pub(super) fn new_partition(image: &Image, replicas: Vec<NodeId>, number: usize) -> PartitionState {
    let isr: Vec<NodeId> =
        replicas.iter().copied().filter(|id| image.broker(*id).is_some_and(|broker| broker.is_active())).collect();
    let directories =
        replicas.iter().map(|id| image.broker(*id).map_or(DirectoryId::UNASSIGNED, |b| directory(b, number))).collect();
    PartitionState {
        leader: isr.first().copied(),
        replicas,
        directories,
        isr,
        elr: Vec::new(),
        leader_epoch: 0,
        partition_epoch: 0,
        adding: Vec::new(),
        removing: Vec::new(),
        last_known_leader: None,
        recovery: Recovery::Recovered,
    }
}

pub(super) fn directory(broker: &Broker, number: usize) -> DirectoryId {
    match broker.directories.len() {
        0 => DirectoryId::UNASSIGNED,
        count => broker.directories.get(number % count).copied().unwrap_or(DirectoryId::UNASSIGNED),
    }
}

/// Checks the replicas that someone chose by hand for one new partition.
pub(super) fn check_manual(image: &Image, replicas: &[NodeId]) -> Result<(), Refusal> {
    check_replicas(image, replicas)?;
    if !replicas.iter().any(|id| image.broker(*id).is_some_and(|broker| broker.is_active())) {
        return Err(Refusal::InvalidReplicaAssignment(
            "All brokers of the manual partition assignment are fenced.".to_owned(),
        ));
    }
    Ok(())
}

/// Checks the replicas that someone chose by hand: each of them known, none twice, one at least.
pub(super) fn check_replicas(image: &Image, replicas: &[NodeId]) -> Result<(), Refusal> {
    let refuse = |why: String| Err(Refusal::InvalidReplicaAssignment(why));
    if replicas.is_empty() {
        return refuse("The manual partition assignment includes an empty replica list.".to_owned());
    }
    let mut sorted = replicas.to_vec();
    sorted.sort_unstable();
    if let Some(negative) = sorted.first().filter(|id| id.0 < 0) {
        return refuse(format!(
            "The manual partition assignment includes the broker id {negative}, which is negative."
        ));
    }
    if let Some(twice) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        return refuse(format!("The manual partition assignment includes broker {} more than once.", twice[0]));
    }
    if let Some(unknown) = replicas.iter().find(|id| image.broker(**id).is_none()) {
        return refuse(format!(
            "The manual partition assignment includes broker {unknown}, but no such broker is registered."
        ));
    }
    Ok(())
}
