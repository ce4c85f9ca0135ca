//! What must hold whatever clients see. Of the metadata on every node: the same at the same offset, one leader in a term, leaders only from
//! among those that hold everything, tier pointers that only go forward, each by the leader of its time. Of the replicas: whoever is in sync
//! or eligible durably holds all that was ever committed. Of voters: their votes only go forward, whatever their machines forget.

use super::trace::Given;
use broker::partition::{Partitions, WeakPartitions};
use bytes::Bytes;
use object_store::path::Path;
use parking_lot::Mutex;
use proto::ids::{LeaderEpoch, NodeId, Offset, TopicPartition};
use proto::metadata::{Image, PartitionState, Recovery, TierPointer};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tiering::store::Layout;
use tokio::sync::watch;

/// Looks at what all nodes have and know. Clones are the same monitor.
#[derive(Clone, Default)]
pub struct Monitor(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    /// The first image that was seen of each offset.
    images: BTreeMap<u64, Arc<Image>>,
    leaders: BTreeMap<(TopicPartition, LeaderEpoch), NodeId>,
    pointers: BTreeMap<(TopicPartition, u64), Arc<TierPointer>>,
    /// The process that runs on each node, as far as it serves.
    nodes: BTreeMap<usize, Watched>,
    /// The greatest high watermark that any leader had.
    committed: BTreeMap<TopicPartition, Offset>,
    /// The last vote that each voter told of.
    votes: BTreeMap<String, Vote>,
    wrong: BTreeSet<String>,
}

struct Watched {
    images: watch::Receiver<Arc<Image>>,
    /// Gone with the process.
    partitions: WeakPartitions,
}

/// Term and candidate: votes are ordered by both.
type Vote = (u64, u64);

impl Monitor {
    /// Looks at each image that `node` comes to have, until the node ends. Some may be passed over.
    pub async fn follow(self, node: usize, mut images: watch::Receiver<Arc<Image>>, partitions: WeakPartitions) {
        self.0.lock().nodes.insert(node, Watched { images: images.clone(), partitions });
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

    /// Whether nothing was wrong so far.
    pub fn is_content(&self) -> bool {
        self.0.lock().wrong.is_empty()
    }

    /// Looks at the replicas of all nodes.
    pub fn look(&self) {
        let known: Vec<(usize, Arc<Image>)> =
            self.0.lock().nodes.iter().map(|(node, watched)| (*node, Arc::clone(&watched.images.borrow()))).collect();
        for (node, image) in known {
            self.see(node, &image);
        }
        self.0.lock().look();
    }

    /// Looks whether all that the pointers of the newest image name is there (POINTED): it was before it was named, and stays for a
    /// while after it is named no more.
    pub fn look_at_objects(&self, layout: &Layout, objects: &BTreeMap<Path, Bytes>) {
        let mut seen = self.0.lock();
        let Some((_, image)) = seen.images.last_key_value() else { return };
        let image = Arc::clone(image);
        for (tp, pointer) in image.tiers() {
            let data = pointer.tail.iter().map(|entry| layout.object(&entry.object.key, entry.format));
            let root = pointer.root.map(|root| layout.root(*tp, &root));
            for key in data.chain(root).filter(|key| !objects.contains_key(key.path())) {
                let generation = pointer.generation;
                seen.wrong
                    .insert(format!("pointer {generation} of {tp} names {}, which is not there (POINTED)", key.path()));
            }
        }
    }

    /// A voter told a candidate that it has its vote.
    pub fn voted(&self, given: &Given) {
        let mut seen = self.0.lock();
        let (voter, vote) = (&given.voter, (given.term, given.candidate));
        let before = seen.votes.insert(voter.clone(), vote).unwrap_or_default();
        if vote < before {
            let what = format!("{voter} votes for {vote:?} (term, candidate) after it voted for {before:?} (ONE-VOTE)");
            seen.wrong.insert(what);
        }
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
            if let Some(before) = &before {
                seen.point_by_leader(*tp, pointer, before);
            }
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
        let held_all = old.isr.contains(&leader) || old.elr.contains(&leader) || joins_and_leads(old, new, leader);
        if !held_all && new.recovery == Recovery::Recovered {
            let what =
                format!("{leader} leads {tp}, which was neither in sync nor eligible: {:?}, {:?}", old.isr, old.elr);
            self.wrong.insert(what);
        }
    }

    /// Whoever the newest image counts as in sync or eligible durably holds all that any leader ever called committed (ACKED). A leader
    /// only has what it may go by from an older image, and elections take from these two sets.
    fn look(&mut self) {
        let Some((_, image)) = self.images.last_key_value() else { return };
        let image = Arc::clone(image);
        let live: Vec<(NodeId, Partitions)> = self
            .nodes
            .iter()
            .filter_map(|(node, watched)| Some((NodeId(i32::try_from(*node).ok()?), watched.partitions.upgrade()?)))
            .collect();
        for topic in image.topics() {
            for (index, state) in topic.indexed() {
                self.look_at_replicas(TopicPartition::new(topic.id, index), state, &live);
            }
        }
    }

    fn look_at_replicas(&mut self, tp: TopicPartition, state: &PartitionState, live: &[(NodeId, Partitions)]) {
        if state.recovery == Recovery::Recovering {
            // What was committed may be gone.
            self.committed.remove(&tp);
            return;
        }
        let here: Vec<_> = live
            .iter()
            .filter_map(|(node, partitions)| Some((*node, partitions.get(tp)?)))
            .filter(|(_, replica)| replica.is_here())
            .map(|(node, replica)| (node, replica.leadership().leads, replica.offsets()))
            .collect();
        let told = here.iter().filter(|(_, leads, _)| *leads).map(|(_, _, ends)| ends.high_watermark).max();
        let committed = self.committed.entry(tp).or_default();
        *committed = (*committed).max(told.unwrap_or(0));
        let committed = *committed;
        for (node, _, ends) in here {
            let counts = state.isr.contains(&node) || state.elr.contains(&node);
            if counts && ends.synced_end < committed {
                let end = ends.synced_end;
                let (isr, elr) = (&state.isr, &state.elr);
                self.wrong.insert(format!(
                    "{node} holds {tp} up to {end}, and {committed} was committed: in sync {isr:?}, eligible {elr:?} (ACKED)"
                ));
            }
        }
    }

    /// A pointer that came after `before` is of a term that was not over then.
    fn point_by_leader(&mut self, tp: TopicPartition, pointer: &TierPointer, before: &Image) {
        let generation = before.tier(tp).map_or(0, |known| known.generation);
        let Some(state) = before.partition(tp).filter(|_| generation < pointer.generation) else { return };
        if pointer.leader_epoch < state.leader_epoch {
            let (generation, epoch, current) = (pointer.generation, pointer.leader_epoch, state.leader_epoch);
            let what = format!("pointer {generation} of {tp} is of epoch {epoch}, and {current} had begun (FENCED)");
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

/// Whether `leader` was let in by the last step of a reassignment, and leads at once as the old leader goes. Only the leader before, in its
/// term and on the version that stood, can make it that step: by saying that all it adds are in sync.
fn joins_and_leads(old: &PartitionState, new: &PartitionState, leader: NodeId) -> bool {
    let target = old.replicas.iter().filter(|id| !old.removing.contains(id));
    let complete = new.adding.is_empty() && new.removing.is_empty() && target.eq(&new.replicas);
    let let_in = old.adding.iter().all(|id| new.isr.contains(id));
    complete && let_in && old.adding.contains(&leader) && old.leader.is_some()
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
    fn leads_only_who_held_everything_or_was_just_let_in() {
        let [a, b, c, d] = [0, 1, 2, 3].map(NodeId);
        let moving = PartitionState {
            replicas: vec![a, b, d],
            isr: vec![a, b],
            elr: Vec::new(),
            leader: Some(a),
            leader_epoch: 3,
            partition_epoch: 7,
            adding: vec![d],
            removing: vec![a],
            directories: Vec::new(),
            last_known_leader: None,
            recovery: Recovery::Recovered,
        };
        let next = |replicas: &[NodeId], isr: &[NodeId], leader| PartitionState {
            replicas: replicas.to_vec(),
            isr: isr.to_vec(),
            leader: Some(leader),
            adding: Vec::new(),
            removing: Vec::new(),
            partition_epoch: moving.partition_epoch + 1,
            ..moving.clone()
        };
        let wrong = |new: &PartitionState| {
            let mut seen = Seen::default();
            seen.compare(TopicPartition::default(), &moving, new);
            !seen.wrong.is_empty()
        };
        assert!(!wrong(&next(&[b, d], &[b, d], b)));
        assert!(!wrong(&next(&[b, d], &[b, d], d)), "its last step lets it in, and the old leader goes");
        assert!(wrong(&next(&[b, d], &[b], d)), "it was not let in");
        assert!(wrong(&PartitionState { adding: vec![d], ..next(&[a, b, d], &[a, b, d], d) }), "it is under way");
        assert!(wrong(&next(&[b, c], &[b, c], c)), "nobody added it");
    }

    #[test]
    fn votes_go_forward() {
        let monitor = Monitor::default();
        let vote = |term, candidate| monitor.voted(&Given { voter: "a".to_owned(), term, candidate });
        [(1, 2), (1, 2), (2, 0), (2, 1)].into_iter().for_each(|(term, candidate)| vote(term, candidate));
        assert!(monitor.is_content());
        vote(2, 0);
        assert_eq!(monitor.wrong().len(), 1);
    }

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
