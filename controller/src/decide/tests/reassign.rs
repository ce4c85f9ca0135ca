//! Replicas that move.

use super::*;

fn alter(world: &mut World, tp: TopicPartition, target: Option<&[i32]>, resize: bool) -> Result<(), Refusal> {
    let changes = vec![(tp, target.map(nodes))];
    match world.run(Command::AlterReassignments(AlterReassignments {
        changes,
        allow_factor_change: resize,
        planned_on: Vec::new(),
    })) {
        Ok(Outcome::AlterReassignments(mut answers)) => answers.remove(0),
        other => panic!("{other:?}"),
    }
}

/// Replicas, those added, those removed: `[1, 2] [2] [1]`.
fn replicas(world: &World, tp: TopicPartition) -> String {
    let ids = |ids: &[NodeId]| ids.iter().map(|id| id.0).collect::<Vec<_>>();
    let state = world.at(tp);
    assert_eq!(state.directories.len(), state.replicas.len());
    format!("{:?} {:?} {:?}", ids(&state.replicas), ids(&state.adding), ids(&state.removing))
}

#[test]
fn replicas_move_once_all_that_are_added_are_in_sync() {
    let mut world = World::with_brokers(6);
    let tp = world.create_on("a", &[1, 2, 3]);
    assert_eq!(alter(&mut world, tp, Some(&[3, 4, 5]), false), Ok(()));
    assert_eq!(replicas(&world, tp), "[3, 4, 5, 1, 2] [4, 5] [1, 2]");
    assert_eq!((world.sets(tp).as_str(), world.at(tp).leader_epoch), ("1 [1, 2, 3] []", 0));
    assert!(world.at(tp).directories.iter().all(|directory| *directory != DirectoryId::UNASSIGNED));
    assert_eq!(world.ask_isr(tp, &[1, 2, 3, 4], false), Ok(()));
    assert_eq!(replicas(&world, tp), "[3, 4, 5, 1, 2] [4, 5] [1, 2]");
    assert_eq!(world.ask_isr(tp, &[1, 2, 3, 4, 5], false), Ok(()));
    assert_eq!(replicas(&world, tp), "[3, 4, 5] [] []");
    assert_eq!((world.sets(tp).as_str(), world.at(tp).leader_epoch), ("3 [3, 4, 5] []", 1));
    assert_eq!(world.image.replicas_of(NodeId(1)).count(), 0);
    assert_eq!(alter(&mut world, tp, None, false), Err(Refusal::NoReassignmentInProgress));
}

#[test]
fn a_second_call_replaces_the_first_and_a_cancel_takes_it_back() {
    let mut world = World::with_brokers(6);
    let tp = world.create_on("a", &[1, 2, 3]);
    assert_eq!(alter(&mut world, tp, Some(&[1, 2, 4]), false), Ok(()));
    assert_eq!(world.ask_isr(tp, &[1, 2], false), Ok(()));
    assert_eq!(alter(&mut world, tp, Some(&[5, 2, 1]), false), Ok(()));
    assert_eq!(replicas(&world, tp), "[5, 2, 1, 3] [5] [3]");
    assert_eq!(world.at(tp).leader_epoch, 1, "4 is gone: what it still says is told apart");
    assert_eq!(alter(&mut world, tp, None, false), Ok(()));
    assert_eq!(replicas(&world, tp), "[2, 1, 3] [] []");
    assert_eq!(world.sets(tp), "1 [1, 2] []");
}

#[test]
fn nobody_is_given_up_who_alone_has_what_was_committed() {
    let mut world = World::with_brokers(4);
    let tp = world.create_on("a", &[1, 2]);
    assert_eq!(alter(&mut world, tp, Some(&[3, 0]), false), Ok(()));
    assert_eq!(world.ask_isr(tp, &[1, 2, 3], false), Ok(()));
    world.set_state(1, BrokerState::Fenced);
    world.set_state(2, BrokerState::Fenced);
    assert_eq!(world.sets(tp), "3 [3] []");
    assert!(matches!(alter(&mut world, tp, None, false), Err(Refusal::InvalidReplicaAssignment(_))));
    assert!(matches!(alter(&mut world, tp, Some(&[1, 2]), false), Err(Refusal::InvalidReplicaAssignment(_))));
    world.set_config(ConfigResource::topic("a"), "unclean.leader.election.enable", "true").unwrap();
    world.set_state(2, BrokerState::Active);
    assert_eq!(alter(&mut world, tp, None, false), Ok(()));
    assert_eq!(world.sets(tp), "2 [2] []");
    assert_eq!(world.at(tp).recovery, Recovery::Recovering);
}

#[test]
fn the_number_of_replicas_changes_only_when_it_may() {
    let mut world = World::with_brokers(4);
    let tp = world.create_on("a", &[1, 2]);
    assert!(matches!(alter(&mut world, tp, Some(&[1]), false), Err(Refusal::InvalidReplicationFactor(_))));
    assert_eq!(alter(&mut world, tp, Some(&[1, 2, 3]), true), Ok(()));
    assert_eq!(replicas(&world, tp), "[1, 2, 3] [3] []");
    assert_eq!(world.ask_isr(tp, &[1, 2, 3], false), Ok(()));
    assert_eq!(replicas(&world, tp), "[1, 2, 3] [] []");
    assert_eq!(alter(&mut world, tp, Some(&[2]), true), Ok(()));
    assert_eq!((replicas(&world, tp).as_str(), world.sets(tp).as_str()), ("[2] [] []", "2 [2] []"));
}

#[test]
fn a_move_alone_never_takes_a_partition_below_what_it_needs() {
    let mut world = World::with_brokers(4);
    world.require_in_sync(2);
    let tp = world.create_on("a", &[1, 2, 3]);
    assert_eq!(world.ask_isr(tp, &[1, 3], false), Ok(()));
    assert_eq!(alter(&mut world, tp, Some(&[1, 2]), true), Ok(()));
    assert_eq!((replicas(&world, tp).as_str(), world.sets(tp).as_str()), ("[1, 2, 3] [] [3]", "1 [1, 3] []"));
    assert_eq!(world.ask_isr(tp, &[1, 3, 2], false), Ok(()));
    assert_eq!((replicas(&world, tp).as_str(), world.sets(tp).as_str()), ("[1, 2] [] []", "1 [1, 2] []"));
}

#[test]
fn targets_are_checked() {
    let mut world = World::with_brokers(3);
    let tp = world.create_on("a", &[0, 1]);
    for bad in [&[][..], &[0, 0], &[0, 9], &[-1, 0]] {
        let refused = alter(&mut world, tp, Some(bad), true);
        assert!(matches!(refused, Err(Refusal::InvalidReplicaAssignment(_))), "{bad:?}: {refused:?}");
    }
    world.run(Command::SetShare { id: NodeId(2), share: Share::Drained }).unwrap();
    assert!(matches!(alter(&mut world, tp, Some(&[0, 2]), false), Err(Refusal::InvalidReplicaAssignment(_))));
    let nowhere = TopicPartition::new(tp.topic, 7);
    assert_eq!(alter(&mut world, nowhere, Some(&[0, 1]), false), Err(Refusal::UnknownTopic));
    assert_eq!(alter(&mut world, tp, Some(&[1, 0]), false), Ok(()), "an order is a reassignment, too");
    assert_eq!(replicas(&world, tp), "[1, 0] [] []");
}
