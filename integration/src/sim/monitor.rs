//! What every node's image of the metadata must be, whatever clients see: the same at the same offset, with one leader in a term, leaders
//! only from among those that hold everything, and tier pointers that only go forward.

use parking_lot::Mutex;
use proto::ids::{LeaderEpoch, NodeId, TopicPartition};
use proto::metadata::{Image, PartitionState, Recovery, TierPointer};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::watch;

/// Looks at the images of all nodes. Clones are the same monitor.
#[derive(Clone, Default)]
pub struct Monitor(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    /// The first image that was seen of each offset.
    images: BTreeMap<u64, Arc<Image>>,
    leaders: BTreeMap<(TopicPartition, LeaderEpoch), NodeId>,
    pointers: BTreeMap<(TopicPartition, u64), Arc<TierPointer>>,
    wrong: BTreeSet<String>,
}

impl Monitor {
    /// Looks at each image that `node` comes to have, until the node ends. Some may be passed over.
    pub async fn follow(self, node: usize, mut images: watch::Receiver<Arc<Image>>) {
        loop {
            let image = Arc::clone(&images.borrow_and_update());
            self.see(node, &image);
            if images.changed().await.is_err() {
                return;
            }
        }
    }

    /// All that must not be, so far.
    pub fn wrong(&self) -> Vec<String> {
        self.0.lock().wrong.iter().cloned().collect()
    }

    fn see(&self, node: usize, image: &Arc<Image>) {
        let mut seen = self.0.lock();
        if let Some(known) = seen.images.get(&image.offset()) {
            if known != image {
                let what = format!("node {node} has other metadata at offset {} than another node", image.offset());
                seen.wrong.insert(what);
            }
            return;
        }
        let before = seen.images.range(..image.offset()).next_back().map(|(_, before)| Arc::clone(before));
        seen.images.insert(image.offset(), Arc::clone(image));
        for topic in image.topics() {
            for (index, state) in topic.indexed() {
                let tp = TopicPartition::new(topic.id, index);
                seen.look_at(tp, state);
                if let Some(old) = before.as_ref().and_then(|before| before.partition(tp)) {
                    seen.compare(tp, old, state);
                }
            }
        }
        for (tp, pointer) in image.tiers() {
            seen.point(*tp, pointer);
        }
    }
}

impl Seen {
    fn look_at(&mut self, tp: TopicPartition, state: &PartitionState) {
        let Some(leader) = state.leader else { return };
        let first = *self.leaders.entry((tp, state.leader_epoch)).or_insert(leader);
        if first != leader {
            let epoch = state.leader_epoch;
            self.wrong.insert(format!("{first} and {leader} lead {tp} in epoch {epoch} (ONE-LEADER)"));
        }
    }

    /// Two states of a partition, between which there may have been others.
    fn compare(&mut self, tp: TopicPartition, old: &PartitionState, new: &PartitionState) {
        let next = new.partition_epoch == old.partition_epoch + 1;
        let Some(leader) = new.leader.filter(|leader| next && old.leader != Some(*leader)) else { return };
        // The last step of a reassignment lets in whom it adds and makes one of them leader at once.
        let held_all = [&old.isr, &old.elr, &old.adding].into_iter().any(|ids| ids.contains(&leader));
        if !held_all && new.recovery == Recovery::Recovered {
            let what =
                format!("{leader} leads {tp}, which was neither in sync nor eligible: {:?}, {:?}", old.isr, old.elr);
            self.wrong.insert(what);
        }
    }

    fn point(&mut self, tp: TopicPartition, pointer: &Arc<TierPointer>) {
        if self.pointers.insert((tp, pointer.generation), Arc::clone(pointer)).is_some() {
            return;
        }
        let earlier = self.pointers.range((tp, 0)..(tp, pointer.generation)).next_back();
        let later = self.pointers.range((tp, pointer.generation + 1)..=(tp, u64::MAX)).next();
        let pairs = earlier.map(|(_, earlier)| (earlier, pointer)).into_iter();
        let pairs = pairs.chain(later.map(|(_, later)| (pointer, later)));
        let back: Vec<String> = pairs
            .filter(|(old, new)| goes_back(old, new))
            .map(|(old, new)| {
                format!(
                    "the pointer of {tp} goes back from generation {} to {} (FENCED)",
                    old.generation, new.generation
                )
            })
            .collect();
        self.wrong.extend(back);
    }
}

fn goes_back(old: &TierPointer, new: &TierPointer) -> bool {
    new.leader_epoch < old.leader_epoch
        || new.log_start < old.log_start
        || new.tier_start < old.tier_start
        || new.tier_end < old.tier_end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_go_forward_whatever_the_order_they_are_seen_in() {
        let tp = TopicPartition::default();
        let pointer =
            |generation, leader_epoch| Arc::new(TierPointer { generation, leader_epoch, ..TierPointer::default() });
        let mut seen = Seen::default();
        for (generation, epoch) in [(1, 1), (5, 3), (3, 2)] {
            seen.point(tp, &pointer(generation, epoch));
        }
        assert!(seen.wrong.is_empty(), "{:?}", seen.wrong);
        seen.point(tp, &pointer(4, 1));
        assert_eq!(seen.wrong.len(), 1);
    }
}
