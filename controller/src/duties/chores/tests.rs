//! Chores on images, as time goes by: what is left alone, and what is not.

use std::collections::BTreeMap;

use proto::ids::TopicPartition;
use proto::metadata::{Broker, MetadataRecord, Share};

use super::*;
use crate::balance::tests::{broker, image, tp};
use crate::command::AlterReassignments;
use crate::decide::{Policy, decide};

/// A cluster at the newest level that carries out what its chores ask for.
struct World {
    image: Arc<Image>,
    chores: Chores,
    now: Millis,
    /// Partitions that the chores have moved, each time they did.
    moved: Vec<TopicPartition>,
}

impl World {
    fn new(brokers: usize, partitions: &[&[i32]]) -> Self {
        let mut image = image(&vec![""; brokers], partitions);
        image.apply(&MetadataRecord::FeatureSet { name: proto::metadata::FEATURE.to_owned(), level: 1 });
        for duty in BROKERS_DUTIES {
            image.apply(&MetadataRecord::DutyAssigned { duty, node: Some(NodeId(0)), epoch: 1 });
        }
        let chores = Chores::new(&Settings::default());
        Self { image: Arc::new(image), chores, now: 0, moved: Vec::new() }
    }

    fn share(mut self, id: i32, share: Share) -> Self {
        self.set(id, share);
        self
    }

    fn set(&mut self, id: i32, share: Share) {
        self.apply(&MetadataRecord::BrokerSet(Broker { share, ..broker(id, "") }));
    }

    fn apply(&mut self, record: &MetadataRecord) {
        Arc::make_mut(&mut self.image).apply(record);
    }

    fn run(&mut self, command: &Command) {
        let decision = decide(&self.image, command, self.now, &Policy::default()).unwrap();
        decision.records.iter().for_each(|record| self.apply(record));
    }

    /// An operator's reassignment.
    fn reassign(&mut self, index: i32, target: &[i32]) {
        self.reassign_to(index, target, false);
    }

    fn reassign_to(&mut self, index: i32, target: &[i32], allow_factor_change: bool) {
        let changes = vec![(tp(index), Some(target.iter().copied().map(NodeId).collect()))];
        let alter = AlterReassignments { changes, allow_factor_change, planned_on: Vec::new() };
        self.run(&Command::AlterReassignments(alter));
    }

    /// What is added comes in sync, whoever added it.
    fn copy(&mut self) {
        let moving: Vec<TopicPartition> = self.partitions().filter(|tp| !self.at(*tp).adding.is_empty()).collect();
        for tp in moving {
            let mut state = self.at(tp).clone();
            state.replicas.retain(|id| !state.removing.contains(id));
            state.isr.clone_from(&state.replicas);
            state.directories.truncate(state.replicas.len());
            state.leader = state.leader.filter(|id| state.isr.contains(id)).or(state.replicas.first().copied());
            (state.adding, state.removing) = (Vec::new(), Vec::new());
            state.partition_epoch += 1;
            self.apply(&MetadataRecord::PartitionSet { tp, state });
        }
    }

    fn at(&self, tp: TopicPartition) -> &proto::metadata::PartitionState {
        self.image.partition(tp).unwrap()
    }

    fn partitions(&self) -> impl Iterator<Item = TopicPartition> + '_ {
        self.image.topics().flat_map(|topic| topic.indexed().map(|(index, _)| TopicPartition::new(topic.id, index)))
    }

    /// One second: what is due is carried out.
    fn second(&mut self) -> Vec<Command> {
        self.now += 1000;
        let commands = self.chores.due(self.now, &self.image, &Loads::default());
        for command in &commands {
            if let Command::AlterReassignments(alter) = command {
                self.moved.extend(alter.changes.iter().map(|(tp, _)| *tp));
            }
            self.run(command);
            self.chores.done();
        }
        commands
    }

    /// A minute in which replicas are copied within a second.
    fn minute(&mut self) {
        for _ in 0..60 {
            self.second();
            self.copy();
        }
    }

    /// Replicas and led partitions of each broker.
    fn counts(&self, brokers: i32) -> Vec<(usize, usize)> {
        let leads = |id| self.partitions().filter(|tp| self.at(*tp).leader == Some(id)).count();
        (0..brokers).map(NodeId).map(|id| (self.image.replica_count(id), leads(id))).collect()
    }

    fn replicas(&self, index: i32) -> Vec<i32> {
        self.at(tp(index)).replicas.iter().map(|id| id.0).collect()
    }

    fn share_of(&self, id: i32) -> Share {
        self.image.broker(NodeId(id)).unwrap().share
    }
}

#[test]
fn what_brokers_got_is_theirs_however_uneven_it_is() {
    let mut world = World::new(3, &[&[0, 1], &[0, 1], &[0, 1], &[0, 2]]);
    world.minute();
    assert_eq!(world.moved, []);
}

#[test]
fn a_broker_that_comes_gets_its_share_and_then_keeps_it() {
    let partitions: Vec<&[i32]> = vec![&[0, 1], &[1, 0], &[0, 1], &[1, 0], &[0, 1], &[1, 0]];
    let mut world = World::new(3, &partitions).share(2, Share::Filled);
    world.minute();
    assert_eq!(world.counts(3), [(4, 2), (4, 2), (4, 2)]);
    assert_eq!((world.moved.len(), world.share_of(2)), (4, Share::Kept));
    for index in 0..6 {
        world.reassign(index, &[0, 1]);
    }
    world.copy();
    world.minute();
    assert_eq!((world.moved.len(), world.counts(3)[2].0), (4, 0), "an operator emptied it, and meant it");
}

#[test]
fn two_that_come_together_take_from_the_old_ones_only() {
    let partitions: Vec<Vec<i32>> = (0..30).map(|index| vec![index % 3, (index + 1) % 3, (index + 2) % 3]).collect();
    let slices: Vec<&[i32]> = partitions.iter().map(Vec::as_slice).collect();
    let mut world = World::new(5, &slices).share(3, Share::Filled).share(4, Share::Filled);
    world.minute();
    assert_eq!(world.counts(5).iter().map(|count| count.0).collect::<Vec<_>>(), [18, 18, 18, 18, 18]);
    assert!(world.counts(5).iter().all(|count| (5..=7).contains(&count.1)), "{:?}", world.counts(5));
    let kept =
        (0..30).map(|index| partitions[index as usize].iter().filter(|id| world.replicas(index).contains(id)).count());
    assert_eq!(kept.sum::<usize>(), 90 - 36, "nothing moved among the old ones");
}

#[test]
fn nobody_gets_a_share_while_an_operator_moves_and_what_was_moved_stays() {
    let mut world = World::new(3, &[&[0, 1], &[0, 1], &[0, 1], &[0, 1]]).share(2, Share::Filled);
    for _ in 0..5 {
        world.second();
    }
    world.reassign(0, &[1, 2]);
    for _ in 0..20 {
        world.second();
    }
    assert_eq!(world.moved, []);
    world.copy();
    world.minute();
    assert_eq!(world.replicas(0), [1, 2]);
    assert!(!world.moved.contains(&tp(0)) && !world.moved.is_empty(), "{:?}", world.moved);
}

#[test]
fn a_reassignment_between_plan_and_move_counts() {
    let mut world = World::new(3, &[&[0, 1], &[0, 1], &[0, 1], &[0, 1]]).share(2, Share::Filled);
    for _ in 0..4 {
        world.second();
    }
    let planned = Arc::clone(&world.image);
    world.reassign(0, &[1, 0]);
    world.now += 2000;
    let commands = world.chores.due(world.now, &planned, &Loads::default());
    let changes = commands.iter().filter(|command| matches!(command, Command::AlterReassignments(_))).count();
    assert_eq!(changes, 1);
    commands.iter().for_each(|command| world.run(command));
    assert_eq!(world.replicas(0), [1, 0]);
}

#[test]
fn a_broker_that_leaves_is_emptied_even_where_nobody_gets_a_share() {
    let mut world = World::new(3, &[&[0, 1], &[1, 2], &[2, 0]]).share(2, Share::Drained);
    world.chores = Chores::new(&Settings { balance: false, balance_moves: 1, ..Settings::default() });
    for _ in 0..10 {
        world.second();
    }
    assert_eq!(world.moved.len(), 1, "one at a time");
    world.minute();
    assert_eq!(world.counts(3).iter().map(|count| count.0).collect::<Vec<_>>(), [3, 3, 0]);
    let mut gone = World::new(3, &[&[0, 1], &[1, 0]]);
    gone.apply(&MetadataRecord::BrokerRemoved { id: NodeId(1) });
    gone.minute();
    assert_eq!(gone.counts(3).iter().map(|count| count.0).collect::<Vec<_>>(), [2, 0, 2]);
}

#[test]
fn nothing_moves_by_itself_while_partitions_are_short_of_replicas() {
    let mut world = World::new(3, &[&[0, 1], &[0, 1], &[0, 1]]).share(2, Share::Filled);
    let mut state = world.at(tp(0)).clone();
    (state.isr, state.elr) = (vec![NodeId(0)], vec![NodeId(1)]);
    world.apply(&MetadataRecord::PartitionSet { tp: tp(0), state });
    world.minute();
    assert_eq!((world.moved.len(), world.share_of(2)), (0, Share::Filled));
}

#[test]
fn what_was_made_with_too_few_brokers_gets_its_replicas_when_there_are_more() {
    let factors = BTreeMap::from([("t".to_owned(), 3)]);
    let mut world = World::new(2, &[&[0], &[0]]);
    world.chores = Chores::new(&Settings { factors: factors.clone(), ..Settings::default() });
    world.minute();
    assert_eq!((world.replicas(0), world.replicas(1)), (vec![0, 1], vec![0, 1]), "as many as there are");
    world.set(2, Share::Kept);
    world.minute();
    assert_eq!((world.replicas(0), world.replicas(1)), (vec![0, 1, 2], vec![0, 1, 2]));
    // What an operator wants otherwise, and where nothing is to be balanced.
    world.reassign_to(0, &[2, 1], true);
    world.minute();
    assert_eq!(world.replicas(0), [2, 1]);
    let mut manual = World::new(2, &[&[0]]);
    manual.chores = Chores::new(&Settings { factors, balance: false, ..Settings::default() });
    manual.minute();
    assert_eq!(manual.replicas(0), [0]);
}

#[test]
fn replicas_that_are_added_hold_up_nobody_who_leaves_and_are_given_up_with_their_broker() {
    let factors = BTreeMap::from([("t".to_owned(), 3)]);
    let start = |brokers, partitions: &[&[i32]]| {
        let mut world = World::new(brokers, partitions);
        world.chores = Chores::new(&Settings { factors: factors.clone(), ..Settings::default() });
        world
    };
    // One of its brokers is not registered any more: it is replaced, and only then there is one more.
    let mut world = start(3, &[&[0, 1]]);
    world.apply(&MetadataRecord::BrokerRemoved { id: NodeId(1) });
    world.minute();
    assert_eq!(world.replicas(0), [0, 2]);
    // One that is being emptied is emptied.
    let mut world = start(3, &[&[0, 1]]).share(1, Share::Drained);
    world.minute();
    assert_eq!(world.replicas(0), [0, 2]);
    // One that came and went again is not waited for.
    let mut world = start(2, &[&[0]]);
    while world.at(tp(0)).adding.is_empty() {
        world.second();
    }
    world.apply(&MetadataRecord::BrokerSet(Broker { fenced: true, ..broker(1, "") }));
    for _ in 0..90 {
        world.second();
    }
    assert_eq!((world.replicas(0), world.at(tp(0)).adding.len()), (vec![0], 0));
}

/// An operator's move to a broker that then died, in the way of emptying another one.
#[test]
fn a_move_to_a_broker_that_is_gone_holds_up_nobody_who_leaves() {
    // Away from the one that leaves, and beside it; a third one concerns nobody who leaves.
    for (target, expected) in [(&[4, 1, 2][..], &[1, 2, 3][..]), (&[0, 1, 4], &[1, 2, 3])] {
        let mut world = World::new(5, &[&[0, 1, 2], &[1, 2, 3]]);
        world.chores = Chores::new(&Settings { balance_moves: 1, ..Settings::default() });
        world.second();
        world.reassign(0, target);
        world.reassign(1, &[1, 2, 4]);
        world.apply(&MetadataRecord::BrokerSet(Broker { fenced: true, ..broker(4, "") }));
        world.set(0, Share::Drained);
        for _ in 0..50 {
            world.second();
        }
        assert_eq!(world.moved, [], "it may come back");
        for _ in 0..30 {
            world.second();
        }
        assert_eq!(world.moved, [tp(0)]);
        let mut state = world.at(tp(0)).clone();
        state.replicas.retain(|id| !state.removing.contains(id));
        state.replicas.sort_unstable();
        assert_eq!(state.replicas.iter().map(|id| id.0).collect::<Vec<_>>(), expected);
        assert_eq!(world.at(tp(1)).adding, [NodeId(4)], "it is in nobody's way");
    }
    // One that was on its way when its target was unregistered does not wait at all.
    let mut world = World::new(4, &[&[0, 1]]);
    world.second();
    world.reassign(0, &[3, 1]);
    world.apply(&MetadataRecord::BrokerRemoved { id: NodeId(3) });
    world.set(0, Share::Drained);
    for _ in 0..10 {
        world.second();
    }
    assert_eq!(world.at(tp(0)).adding, [NodeId(2)]);
}
