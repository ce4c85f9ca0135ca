//! Tests of the planner.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proto::ids::{DirectoryId, NodeId, TopicId, TopicPartition, Uuid};
use proto::metadata::{Broker, Image, MetadataRecord, PartitionState, Recovery, Share};

use super::*;

/// A cluster: racks of its brokers (empty for none), and the replicas of each partition.
pub(crate) fn image(racks: &[&str], partitions: &[&[i32]]) -> Image {
    let mut image = Image::default();
    for (id, rack) in (0..).zip(racks) {
        image.apply(&MetadataRecord::BrokerSet(broker(id, rack)));
    }
    let topic = TopicId(Uuid::from_u128(1));
    image.apply(&MetadataRecord::TopicCreated { id: topic, name: "t".to_owned(), created_at: 0 });
    for (index, replicas) in (0..).zip(partitions) {
        let replicas: Vec<NodeId> = replicas.iter().copied().map(NodeId).collect();
        let state = PartitionState {
            directories: vec![DirectoryId::UNASSIGNED; replicas.len()],
            isr: replicas.clone(),
            elr: Vec::new(),
            leader: replicas.first().copied(),
            leader_epoch: 0,
            partition_epoch: 0,
            adding: Vec::new(),
            removing: Vec::new(),
            last_known_leader: None,
            recovery: Recovery::Recovered,
            replicas,
        };
        image.apply(&MetadataRecord::PartitionSet { tp: TopicPartition::new(topic, index), state });
    }
    image
}

pub(crate) fn broker(id: i32, rack: &str) -> Broker {
    Broker {
        id: NodeId(id),
        epoch: 0,
        incarnation: Uuid::nil(),
        endpoints: Vec::new(),
        rack: (!rack.is_empty()).then(|| rack.to_owned()),
        directories: Vec::new(),
        fenced: false,
        shutting_down: false,
        features: Vec::new(),
        share: Share::Kept,
    }
}

pub(crate) fn tp(index: i32) -> TopicPartition {
    TopicPartition::new(TopicId(Uuid::from_u128(1)), index)
}

/// The image after the plan's reassignments.
fn carried_out(image: &Image, plan: &Plan) -> Image {
    let mut image = image.clone();
    for (tp, target) in &plan.targets {
        let mut state = PartitionState::clone(image.partition(*tp).unwrap());
        state.replicas.clone_from(target);
        state.directories = vec![DirectoryId::UNASSIGNED; target.len()];
        state.isr.clone_from(target);
        state.leader = target.first().copied();
        image.apply(&MetadataRecord::PartitionSet { tp: *tp, state });
    }
    image
}

/// Replicas and preferred leaders of each broker.
fn counts(image: &Image, brokers: i32) -> Vec<(usize, usize)> {
    let leads = |id| {
        let states = image.topics().flat_map(|topic| topic.partitions.iter());
        states.filter(|state| state.replicas.first() == Some(&id)).count()
    };
    (0..brokers).map(NodeId).map(|id| (image.replica_count(id), leads(id))).collect()
}

fn hot(bytes: u64) -> PartitionLoad {
    PartitionLoad { bytes_in: bytes, bytes_out: 0, hot: bytes }
}

fn tell(image: &Image, partitions: &[(i32, PartitionLoad)]) -> Loads {
    let mut loads = Loads::default();
    let partitions = partitions.iter().map(|(index, load)| (tp(*index), *load)).collect();
    loads.tell(image, NodeId(0), &Load { disk: Disk::default(), partitions });
    loads
}

#[test]
fn a_balanced_cluster_is_left_alone() {
    let image = image(&["", "", ""], &[&[0, 1], &[1, 2], &[2, 0]]);
    assert_eq!(plan(&image, &Loads::default(), Goals::ALL, Limits::default()), Plan::default());
}

#[test]
fn a_new_broker_gets_its_share_and_nothing_else_moves() {
    let before = image(&["", "", ""], &[&[0, 1], &[1, 0], &[0, 1], &[1, 0], &[0, 1], &[1, 0]]);
    let plan = plan(&before, &Loads::default(), Goals::ALL, Limits::default());
    assert_eq!(plan.moves.len(), 4, "{plan:?}");
    assert!(plan.moves.iter().all(|step| step.to == NodeId(2) && step.reason == Reason::Replicas), "{plan:?}");
    assert_eq!(counts(&carried_out(&before, &plan), 3), [(4, 2), (4, 2), (4, 2)]);
}

#[test]
fn a_drained_broker_is_emptied_with_as_many_moves_as_it_has_replicas() {
    let mut before = image(&["", "", ""], &[&[0, 1], &[1, 2], &[2, 0], &[0, 2]]);
    before.apply(&MetadataRecord::BrokerSet(Broker { share: Share::Drained, ..broker(2, "") }));
    let done = plan(&before, &Loads::default(), Goals::ALL, Limits::default());
    assert_eq!(done.moves.len(), 3, "{done:?}");
    assert!(done.moves.iter().all(|step| step.from == NodeId(2) && step.reason == Reason::Drain));
    assert_eq!(counts(&carried_out(&before, &done), 3), [(4, 2), (4, 2), (0, 0)]);
    assert_eq!(done.stuck, []);

    before.apply(&MetadataRecord::BrokerSet(Broker { share: Share::Drained, ..broker(1, "") }));
    let stuck = plan(&before, &Loads::default(), Goals::ALL, Limits::default());
    assert_eq!(stuck.stuck.len(), 4, "{stuck:?}");
    assert!(stuck.stuck.iter().all(|one| one.why == Obstacle::Brokers), "{stuck:?}");
    let bounded = plan(&before, &Loads::default(), Goals::ALL, Limits { moves: 1, ..Limits::default() });
    assert_eq!(bounded.moves.len(), 1);
}

#[test]
fn a_replica_of_a_broker_that_is_gone_goes_elsewhere() {
    let mut before = image(&["", "", ""], &[&[0, 1]]);
    before.apply(&MetadataRecord::BrokerRemoved { id: NodeId(1) });
    let plan = plan(&before, &Loads::default(), Goals::AUTOMATIC, Limits::default());
    assert_eq!(plan.targets.get(&tp(0)), Some(&vec![NodeId(0), NodeId(2)]));
}

#[test]
fn racks_are_kept_apart_where_there_are_enough() {
    let before = image(&["a", "a", "b", "b"], &[&[0, 1], &[2, 3], &[0, 2], &[1, 3]]);
    let plan = plan(&before, &Loads::default(), Goals::ALL, Limits::default());
    let after = carried_out(&before, &plan);
    for topic in after.topics() {
        for state in &topic.partitions {
            let racks: BTreeSet<bool> = state.replicas.iter().map(|id| id.0 < 2).collect();
            assert_eq!(racks.len(), 2, "{plan:?}");
        }
    }
    assert_eq!(plan.moves.len(), 2, "{plan:?}");
    assert!(counts(&after, 4).iter().all(|count| *count == (2, 1)), "{plan:?}");
    let three = image(&["a", "a", "b"], &[&[0, 1, 2]]);
    let none = super::plan(&three, &Loads::default(), Goals::ALL, Limits::default());
    assert_eq!(none, Plan::default(), "two racks cannot hold three apart");
}

#[test]
fn leaders_are_evened_out_without_copying_anything() {
    let before = image(&["", ""], &[&[0, 1], &[0, 1], &[0, 1], &[0, 1]]);
    let plan = plan(&before, &Loads::default(), Goals::ALL, Limits::default());
    assert_eq!(plan.moves, []);
    assert_eq!(plan.leaders.len(), 2);
    assert_eq!(counts(&carried_out(&before, &plan), 2), [(4, 2), (4, 2)]);
}

#[test]
fn two_hot_partitions_are_parted() {
    let before = image(&["", ""], &[&[0], &[0], &[1], &[1]]);
    let loads = tell(&before, &[(0, hot(100)), (1, hot(100)), (2, hot(1)), (3, hot(1))]);
    let plan = plan(&before, &loads, Goals::ALL, Limits::default());
    assert_eq!(plan.moves.len(), 2, "{plan:?}");
    assert!(plan.moves.iter().all(|step| step.reason == Reason::BytesIn));
    let after = carried_out(&before, &plan);
    assert_ne!(after.partition(tp(0)).unwrap().replicas, after.partition(tp(1)).unwrap().replicas);
    assert_eq!(counts(&after, 2), [(2, 2), (2, 2)]);
    let one = tell(&before, &[(0, hot(100))]);
    assert_eq!(super::plan(&before, &one, Goals::ALL, Limits::default()), Plan::default(), "it is hot wherever it is");
}

#[test]
fn nothing_goes_where_it_does_not_fit() {
    let mut before = image(&["", "", ""], &[&[0], &[0], &[0], &[0], &[0], &[0]]);
    let mut loads = tell(&before, &[]);
    let load = Load { disk: Disk { used: 86, total: 100 }, partitions: Vec::new() };
    loads.tell(&before, NodeId(1), &load);
    before.apply(&MetadataRecord::BrokerSet(Broker { fenced: true, ..broker(2, "") }));
    assert_eq!(plan(&before, &loads, Goals::ALL, Limits::default()).moves, []);
    before.apply(&MetadataRecord::BrokerSet(broker(2, "")));
    let plan = plan(&before, &loads, Goals::ALL, Limits::default());
    assert!(!plan.moves.is_empty() && plan.moves.iter().all(|step| step.to == NodeId(2)), "{plan:?}");
}

#[test]
fn a_full_disk_takes_what_comes_from_one_that_is_as_full_or_has_to_be_emptied() {
    let full = |used| Load { disk: Disk { used, total: 100 }, partitions: Vec::new() };
    let mut before = image(&["", ""], &[&[0], &[0]]);
    let mut loads = tell(&before, &[]);
    loads.tell(&before, NodeId(1), &full(90));
    assert_eq!(plan(&before, &loads, Goals::ALL, Limits::default()).moves, []);
    loads.tell(&before, NodeId(0), &full(90));
    assert_eq!(plan(&before, &loads, Goals::ALL, Limits::default()).moves.len(), 1);
    loads.tell(&before, NodeId(0), &full(10));
    before.apply(&MetadataRecord::BrokerSet(Broker { share: Share::Drained, ..broker(0, "") }));
    assert_eq!(plan(&before, &loads, Goals::ALL, Limits::default()).moves.len(), 2);
    loads.tell(&before, NodeId(1), &full(96));
    let stuck = plan(&before, &loads, Goals::ALL, Limits::default()).stuck;
    assert_eq!(stuck.iter().map(|one| one.why).collect::<Vec<_>>(), [Obstacle::Disks; 2]);
}

#[test]
fn a_drained_broker_is_emptied_even_if_two_replicas_then_share_a_rack() {
    let mut before = image(&["a", "a", "b"], &[&[0, 2]]);
    before.apply(&MetadataRecord::BrokerSet(Broker { share: Share::Drained, ..broker(2, "b") }));
    let plan = plan(&before, &Loads::default(), Goals::AUTOMATIC, Limits::default());
    assert_eq!(plan.targets.get(&tp(0)), Some(&vec![NodeId(0), NodeId(1)]));
}

#[test]
fn what_is_under_way_is_counted_where_it_goes_and_left_alone() {
    let mut before = image(&["", ""], &[&[0], &[0]]);
    let mut state = PartitionState::clone(before.partition(tp(0)).unwrap());
    state.replicas = vec![NodeId(1), NodeId(0)];
    state.directories = vec![DirectoryId::UNASSIGNED; 2];
    (state.adding, state.removing) = (vec![NodeId(1)], vec![NodeId(0)]);
    before.apply(&MetadataRecord::PartitionSet { tp: tp(0), state });
    assert_eq!(plan(&before, &Loads::default(), Goals::ALL, Limits::default()), Plan::default());
}

/// The fewest replicas that have to move for all brokers to have equally many, whatever leads: what the ones above the share
/// have too many.
fn fewest_moves(image: &Image, brokers: i32) -> usize {
    let replicas: Vec<usize> = counts(image, brokers).iter().map(|(replicas, _)| *replicas).collect();
    let (total, count) = (replicas.iter().sum::<usize>(), replicas.len());
    let (share, rest) = (total / count, total % count);
    let mut sorted = replicas;
    sorted.sort_unstable_by(|a, b| b.cmp(a));
    sorted.iter().enumerate().map(|(rank, has)| has.saturating_sub(share + usize::from(rank < rest))).sum()
}

proptest! {
    #[test]
    fn plans_keep_what_must_hold_and_never_make_it_worse(
        racks in proptest::collection::vec(prop_oneof![Just(""), Just("a"), Just("b")], 2..5),
        placed in proptest::collection::vec((0usize..5, 1usize..4, 0u64..50), 1..12),
        drained in 0i32..8,
    ) {
        let brokers = racks.len();
        let replicas: Vec<Vec<i32>> = placed
            .iter()
            .map(|(first, factor, _)| (0..*factor.min(&brokers)).map(|step| ((first + step) % brokers) as i32).collect())
            .collect();
        let slices: Vec<&[i32]> = replicas.iter().map(Vec::as_slice).collect();
        let mut before = image(&racks, &slices);
        if drained < brokers as i32 {
            before.apply(&MetadataRecord::BrokerSet(Broker { share: Share::Drained, ..broker(drained, racks[drained as usize]) }));
        }
        let partitions: Vec<_> = (0..).zip(&placed).map(|(index, (_, _, load))| (index, hot(*load))).collect();
        let loads = tell(&before, &partitions);
        let plan = plan(&before, &loads, Goals::ALL, Limits::default());
        prop_assert_eq!(&plan, &super::plan(&before, &loads, Goals::ALL, Limits::default()));
        let after = carried_out(&before, &plan);
        for (old, new) in before.topics().zip(after.topics()) {
            for (old, new) in old.partitions.iter().zip(&new.partitions) {
                let distinct: BTreeSet<_> = new.replicas.iter().collect();
                prop_assert_eq!(distinct.len(), old.replicas.len());
                let rack = |id: &NodeId| if racks[id.0 as usize].is_empty() { id.to_string() } else { racks[id.0 as usize].to_owned() };
                let left: BTreeSet<_> = (0..brokers as i32).filter(|id| *id != drained).map(|id| rack(&NodeId(id))).collect();
                let crowded = |state: &PartitionState| {
                    state.replicas.len() - state.replicas.iter().map(rack).collect::<BTreeSet<_>>().len()
                };
                prop_assert!(crowded(new) <= crowded(old).max(new.replicas.len().saturating_sub(left.len())));
            }
        }
        let moved: usize = before
            .topics()
            .zip(after.topics())
            .flat_map(|(old, new)| old.partitions.iter().zip(&new.partitions))
            .map(|(old, new)| new.replicas.iter().filter(|id| !old.replicas.contains(id)).count())
            .sum();
        prop_assert!(moved <= plan.moves.len());
        if drained >= brokers as i32 {
            let spread = |image: &Image| {
                let counts: Vec<usize> = counts(image, brokers as i32).iter().map(|(replicas, _)| *replicas).collect();
                counts.iter().max().unwrap() - counts.iter().min().unwrap()
            };
            prop_assert!(spread(&after) <= spread(&before).max(1) || plan.moves.iter().any(|m| m.reason == Reason::Rack));
        } else {
            prop_assert_eq!(after.replica_count(NodeId(drained)), plan.stuck.len());
        }
    }

    #[test]
    fn counts_are_evened_out_with_the_fewest_moves(
        placed in proptest::collection::vec((0i32..4, 1i32..4), 1..12),
    ) {
        let replicas: Vec<Vec<i32>> = placed.iter().map(|(first, _)| vec![*first]).collect();
        let slices: Vec<&[i32]> = replicas.iter().map(Vec::as_slice).collect();
        let before = image(&["", "", "", ""], &slices);
        let goals = Goals { leaders: false, traffic: false, ..Goals::ALL };
        let plan = plan(&before, &Loads::default(), goals, Limits::default());
        prop_assert_eq!(plan.moves.len(), fewest_moves(&before, 4));
        let after: Vec<usize> = counts(&carried_out(&before, &plan), 4).iter().map(|(replicas, _)| *replicas).collect();
        prop_assert!(after.iter().max().unwrap() - after.iter().min().unwrap() <= 1);
    }
}
