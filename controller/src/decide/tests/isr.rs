//! What leaders may ask for, and elections.

use proto::metadata::Recovery;

use super::*;

fn elect(world: &mut World, election: Election, tp: TopicPartition) -> Result<(), Refusal> {
    let command = Command::ElectLeaders(ElectLeaders { election, partitions: Some(vec![tp]) });
    match world.run(command) {
        Ok(Outcome::ElectLeaders(mut answers)) => answers.remove(0).1,
        other => panic!("{other:?}"),
    }
}

#[test]
fn in_sync_replicas_are_checked_one_by_one() {
    let mut world = World::with_brokers(4);
    let tp = world.create_on("a", &[0, 1, 2]);
    world.set_state(2, BrokerState::Fenced);
    let epoch = |world: &World, id| (NodeId(id), world.epoch(id));
    let all: Vec<(NodeId, i64)> = (0..4).map(|id| epoch(&world, id)).collect();
    let mut ask = |leader_epoch, broker: i32, isr: Vec<(NodeId, i64)>| {
        let partition_epoch = world.at(tp).partition_epoch;
        let change = IsrChange { tp, leader_epoch, partition_epoch, isr, recovered: false };
        let alter =
            AlterPartitions { broker: NodeId(broker), broker_epoch: all[broker as usize].1, partitions: vec![change] };
        match world.run(Command::AlterPartitions(alter)) {
            Ok(Outcome::AlterPartitions(mut answers)) => answers.remove(0),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(ask(-1, 0, vec![all[0]]), Err(Refusal::FencedLeaderEpoch { asked: -1, current: 0 }));
    assert_eq!(ask(0, 1, vec![all[1]]), Err(Refusal::FencedLeaderEpoch { asked: 0, current: 0 }), "it does not lead");
    assert_eq!(ask(1, 0, vec![all[0]]), Err(Refusal::UnknownLeaderEpoch { asked: 1, current: 0 }));
    assert!(matches!(ask(0, 0, vec![all[1]]), Err(Refusal::InvalidRequest(_))), "without itself");
    assert!(matches!(ask(0, 0, vec![all[0], all[0]]), Err(Refusal::InvalidRequest(_))), "twice");
    assert_eq!(ask(0, 0, vec![all[0], all[2]]), Err(Refusal::IneligibleReplica(NodeId(2))), "fenced");
    assert_eq!(ask(0, 0, vec![all[0], all[3]]), Err(Refusal::IneligibleReplica(NodeId(3))), "no replica");
    let stale = (NodeId(1), all[1].1 - 1);
    assert_eq!(ask(0, 0, vec![all[0], stale]), Err(Refusal::IneligibleReplica(NodeId(1))), "an old process");
    assert_eq!(ask(0, 0, vec![all[0]]), Ok(()));
    assert_eq!(ask(0, 0, vec![all[0], (NodeId(1), -1)]), Ok(()), "who does not know the epoch is believed");
}

#[test]
fn a_leader_on_its_way_out_may_take_others_in_while_it_leads() {
    let mut world = World::with_brokers(2);
    let tp = world.create_on("a", &[0, 1]);
    assert_eq!(world.ask_isr(tp, &[0], false), Ok(()));
    world.set_state(0, BrokerState::ShuttingDown);
    assert_eq!(world.sets(tp), "0 [0] []", "nobody else could lead");
    assert_eq!(world.ask_isr(tp, &[0, 1], false), Ok(()));
    assert_eq!(world.sets(tp), "1 [0, 1] []", "it hands over as soon as it can");
    world.set_state(0, BrokerState::Fenced);
    assert_eq!(world.sets(tp), "1 [1] []");
}

#[test]
fn who_is_needed_stays_in_sync_until_it_is_gone() {
    let mut world = World::with_brokers(2);
    world.require_in_sync(2);
    let tp = world.create_on("a", &[0, 1]);
    world.set_state(0, BrokerState::ShuttingDown);
    assert_eq!(world.sets(tp), "1 [0, 1] []");
    world.set_state(0, BrokerState::Fenced);
    assert_eq!(world.sets(tp), "1 [1] [0]");
}

#[test]
fn unclean_elections_are_held_when_asked_for_or_allowed() {
    let mut world = World::with_brokers(2);
    let tp = world.create_on("a", &[0, 1]);
    assert_eq!(elect(&mut world, Election::Unclean, tp), Err(Refusal::ElectionNotNeeded));
    assert_eq!(world.ask_isr(tp, &[0], false), Ok(()));
    world.set_state(0, BrokerState::Fenced);
    assert_eq!(world.sets(tp), "- [] [0]");
    let unclean = || Command::Sweep(Elections { unclean: true, preferred: true });
    assert_eq!(world.run(unclean()), Ok(Outcome::Sweep(0)), "it is not allowed");
    assert_eq!(world.set_config(ConfigResource::topic("a"), "unclean.leader.election.enable", "true"), Ok(()));
    assert_eq!(world.run(unclean()), Ok(Outcome::Sweep(1)));
    assert_eq!((world.sets(tp).as_str(), world.at(tp).recovery), ("1 [1] []", Recovery::Recovering));

    world.set_state(0, BrokerState::Active);
    assert!(matches!(world.ask_isr(tp, &[1, 0], false), Err(Refusal::InvalidRequest(_))));
    assert_eq!(world.ask_isr(tp, &[1], true), Ok(()));
    assert_eq!(world.at(tp).recovery, Recovery::Recovered);
    assert_eq!(world.ask_isr(tp, &[1, 0], false), Ok(()));
    world.set_state(1, BrokerState::Fenced);
    world.set_state(0, BrokerState::Fenced);
    world.set_state(1, BrokerState::Active);
    assert_eq!(world.sets(tp), "1 [1] []", "it need not wait for the sweep");
    world.set_state(1, BrokerState::Fenced);
    world.set_state(0, BrokerState::Active);
    assert_eq!(world.sets(tp), "0 [0] []");
    assert_eq!(world.ask_isr(tp, &[0], true), Ok(()));
    assert_eq!(world.set_config(ConfigResource::topic("a"), "unclean.leader.election.enable", "false"), Ok(()));
    world.set_state(0, BrokerState::Fenced);
    assert_eq!(elect(&mut world, Election::Unclean, tp), Err(Refusal::EligibleLeadersNotAvailable));
    world.set_state(1, BrokerState::Active);
    assert_eq!(elect(&mut world, Election::Unclean, tp), Ok(()));
    assert_eq!(world.sets(tp), "1 [1] []");
}

#[test]
fn preferred_leaders_are_restored_where_too_many_are_missing() {
    let mut world = World::with_brokers(2);
    let tps: Vec<_> = ["a", "b", "c", "d"].iter().map(|name| world.create_on(name, &[0, 1])).collect();
    world.set_state(0, BrokerState::Fenced);
    world.set_state(0, BrokerState::Active);
    for tp in &tps {
        assert_eq!(world.ask_isr(*tp, &[1, 0], false), Ok(()));
    }
    let sweep = || Command::Sweep(Elections { unclean: false, preferred: true });
    world.policy.leader_imbalance_percent = 100;
    assert_eq!(world.run(sweep()), Ok(Outcome::Sweep(0)));
    world.policy.leader_imbalance_percent = 10;
    assert_eq!(world.run(sweep()), Ok(Outcome::Sweep(4)));
    assert!(tps.iter().all(|tp| world.at(*tp).leader == Some(NodeId(0))));
    assert_eq!(world.run(sweep()), Ok(Outcome::Sweep(0)));
}
