//! Features, duties, voters, and what is refused.

use proto::metadata::{Duty, FEATURE};

use super::*;

fn update(world: &mut World, name: &str, level: i16, direction: Direction) -> Result<(), Refusal> {
    let updates = vec![FeatureUpdate { name: name.to_owned(), level, direction }];
    match world.run(Command::UpdateFeatures(UpdateFeatures { updates, mode: Mode::Commit })) {
        Ok(Outcome::UpdateFeatures(mut answers)) => answers.remove(0),
        other => panic!("{other:?}"),
    }
}

fn old_binary(id: i32) -> Command {
    Command::RegisterBroker(RegisterBroker { features: Vec::new(), ..registration(id, 1_000) })
}

#[test]
fn a_cluster_of_one_upgrades_itself_a_larger_one_only_if_all_can() {
    let mut world = World { now: NOW, ..World::default() };
    world.run(old_binary(0)).expect("it is the first");
    assert_eq!(world.image.level(), 0);
    world.register(1, 1);
    assert_eq!(world.image.level(), 0, "there is another one");
    let refused = update(&mut world, FEATURE, 1, Direction::Upgrade);
    assert!(matches!(&refused, Err(Refusal::FeatureUpdateFailed(why)) if why.contains("Broker 0")), "{refused:?}");
    let reassign = AlterReassignments { changes: Vec::new(), allow_factor_change: false, planned_on: Vec::new() };
    let refused = world.run(Command::AlterReassignments(reassign));
    assert!(matches!(refused, Err(Refusal::UnsupportedVersion(_))), "{refused:?}");
    world.run(Command::UnregisterBroker(NodeId(1))).expect("it was there");
    world.register(0, 2);
    assert_eq!(world.image.level(), 1);
    assert_eq!(update(&mut world, FEATURE, 1, Direction::Upgrade), Ok(()));
    assert!(matches!(world.run(old_binary(2)), Err(Refusal::UnsupportedVersion(_))));

    for (name, level, direction) in [
        (FEATURE, 0, Direction::Upgrade),
        (FEATURE, 2, Direction::Upgrade),
        (FEATURE, 0, Direction::SafeDowngrade),
        ("metadata.version", 28, Direction::Upgrade),
        ("group.version", 1, Direction::Upgrade),
    ] {
        let refused = update(&mut world, name, level, direction);
        assert!(matches!(refused, Err(Refusal::FeatureUpdateFailed(_))), "{name} {level}: {refused:?}");
    }
}

#[test]
fn at_the_old_level_nothing_is_written_that_old_members_cannot_read() {
    let mut world = World { now: NOW, ..World::default() };
    world.run(old_binary(0)).expect("it is the first");
    world.register(1, 1);
    world.set_state(1, BrokerState::Active);
    let tp = world.create_on("a", &[0, 1]);
    assert_eq!(world.ask_isr(tp, &[0], false), Ok(()));
    world.set_state(0, BrokerState::Fenced);
    world.set_config(ConfigResource::topic("a"), "unclean.leader.election.enable", "true").unwrap();
    world.run(Command::Sweep(Elections { unclean: true, preferred: false })).unwrap();
    assert_eq!(world.sets(tp), "1 [1] []");
    assert!(world.image.to_records().all(|record| record.level() == 0));
}

#[test]
fn duties_have_an_epoch_that_fences() {
    let mut world = World::with_brokers(2);
    let assign = |id| Command::AssignDuties(vec![(Duty::Sweeper, NodeId(id)), (Duty::Balancer, NodeId(0))]);
    assert_eq!(world.run(assign(0)), Ok(Outcome::AssignDuties(vec![1, 1])));
    assert_eq!(world.run(assign(0)), Ok(Outcome::AssignDuties(vec![1, 1])));
    assert_eq!(world.run(assign(1)), Ok(Outcome::AssignDuties(vec![2, 1])));
    assert_eq!(world.image.duty(Duty::Sweeper), Some((NodeId(1), 2)));
    let finish = |duty_epoch| Command::FinishDeletions(FinishDeletions { topics: Vec::new(), duty_epoch });
    assert_eq!(world.run(finish(1)), Err(Refusal::StaleDuty { asked: 1, current: 2 }));
    assert_eq!(world.run(finish(2)), Ok(Outcome::FinishDeletions));
}

#[test]
fn a_voter_is_bound_to_its_first_disk_until_it_is_forgotten() {
    let mut world = World::with_brokers(1);
    let (first, second) = (directory(1, 0), directory(1, 1));
    let bind = |directory| Command::BindVoter { id: NodeId(1), directory };
    for _ in 0..2 {
        assert_eq!(world.run(bind(first)), Ok(Outcome::BindVoter));
    }
    assert_eq!(world.run(bind(second)), Err(Refusal::VoterBound { id: NodeId(1), known: first }));
    assert_eq!(world.run(bind(DirectoryId::UNASSIGNED)), Ok(Outcome::BindVoter));
    assert_eq!(world.run(bind(second)), Ok(Outcome::BindVoter));
    assert_eq!(world.image.voter(NodeId(1)), Some(second));
}

#[test]
fn more_in_sync_than_there_are_replicas_is_refused_where_both_are_said() {
    let mut world = World::with_brokers(2);
    let configs = |value: &str| BTreeMap::from([("min.insync.replicas".to_owned(), value.to_owned())]);
    let named = |name: &str, factor, value: &str| NewTopic {
        replication_factor: factor,
        configs: configs(value),
        ..topic(name)
    };
    let answers = world.create(vec![
        named("a", 1, "2"),
        NewTopic { assignments: BTreeMap::from([(0, nodes(&[0]))]), ..named("b", -1, "2") },
        named("c", -1, "2"),
        named("d", 2, "2"),
        NewTopic { shortage: Shortage::Shrink, ..named("e", 3, "3") },
    ]);
    let refused: Vec<bool> = answers.iter().map(|a| matches!(a, Err(Refusal::InvalidConfig(_)))).collect();
    assert_eq!(refused, [true, true, false, false, false], "{answers:?}");
    assert_eq!(answers[4].as_ref().unwrap().replication_factor, 2, "as many as there are brokers");
    assert!(matches!(
        world.set_config(ConfigResource::topic("d"), "min.insync.replicas", "3"),
        Err(Refusal::InvalidConfig(_))
    ));
    assert_eq!(world.set_config(ConfigResource::topic("d"), "min.insync.replicas", "1"), Ok(()));
    assert_eq!(world.set_config(ConfigResource::all_brokers(), "min.insync.replicas", "3"), Ok(()));
}

#[test]
fn too_few_brokers_are_counted() {
    let mut world = World::with_brokers(2);
    let answers = world.create(vec![NewTopic { replication_factor: 3, ..topic("a") }]);
    let expected = "Replication factor: 3 larger than available brokers: 2.".to_owned();
    assert_eq!(answers, [Err(Refusal::InvalidReplicationFactor(expected))]);
}
