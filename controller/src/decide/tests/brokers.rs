//! Registration: who is taken for whom, and what a new process means for the replicas of the old one.

use super::*;

#[test]
fn the_only_broker_is_in_service_at_once_any_other_when_it_says_so() {
    let mut world = World { now: NOW, ..World::default() };
    world.register(0, 1);
    world.register(1, 2);
    let fenced = |world: &World, id| world.image.broker(NodeId(id)).unwrap().fenced;
    assert!(!fenced(&world, 0) && fenced(&world, 1));
    world.set_state(1, BrokerState::Active);
    let tp = world.create_on("a", &[0, 1]);
    world.register(0, 3);
    assert!(fenced(&world, 0), "there is another one that serves");
    assert_eq!(world.sets(tp), "1 [1] []");
    world.register(1, 4);
    assert_eq!((world.sets(tp).as_str(), world.at(tp).leader_epoch), ("- [] [1]", 2));
    world.set_state(1, BrokerState::Active);
    assert_eq!((world.sets(tp).as_str(), world.at(tp).leader_epoch), ("1 [1] []", 3));
}

#[test]
fn a_second_process_is_refused_while_the_first_one_lives() {
    let mut world = World::with_brokers(2);
    let epoch = world.epoch(1);
    let other_disk = RegisterBroker { directories: vec![directory(7, 0)], ..registration(1, 50) };
    let ask = |world: &mut World, register: &RegisterBroker| world.run(Command::RegisterBroker(register.clone()));
    let refusal = Refusal::DuplicateBroker { id: NodeId(1), address: None };
    assert_eq!(ask(&mut world, &other_disk), Err(refusal.clone()));
    let copied = RegisterBroker { previous_epoch: Some(epoch - 1), ..registration(1, 51) };
    assert_eq!(ask(&mut world, &copied), Err(refusal));
    let successor = RegisterBroker { previous_epoch: Some(epoch), ..registration(1, 52) };
    assert!(ask(&mut world, &successor).is_ok(), "it holds the disks of the first one");
    assert!(ask(&mut world, &other_disk).is_ok(), "the first one is fenced");
}

#[test]
fn a_replaced_disk_costs_the_replicas_on_it_their_place() {
    let mut world = World::with_brokers(3);
    world.require_in_sync(2);
    let tp = world.create_on("a", &[0, 1, 2]);
    for id in [2, 1] {
        world.set_state(id, BrokerState::Fenced);
    }
    assert_eq!(world.sets(tp), "0 [0] [1]", "2 left while there were enough without it");
    let lies = world.at(tp).directories[1];
    let new_disk = || vec![directory(8, 0), directory(8, 1)];

    let unsure = RegisterBroker { directories: new_disk(), offline_directories: 1, ..registration(1, 60) };
    assert!(world.run(Command::RegisterBroker(unsure)).is_ok());
    assert_eq!(world.sets(tp), "0 [0] [1]", "it may come back");
    world.set_state(1, BrokerState::Active);
    assert_eq!(world.ask_isr(tp, &[0, 1], false), Err(Refusal::IneligibleReplica(NodeId(1))), "it lies offline");
    world.set_state(1, BrokerState::Fenced);

    let replaced = RegisterBroker { directories: new_disk(), ..registration(1, 61) };
    assert!(world.run(Command::RegisterBroker(replaced)).is_ok());
    assert_eq!(world.sets(tp), "0 [0] []");
    assert_ne!(lies, DirectoryId::UNASSIGNED);
    assert_eq!(world.at(tp).directories[1], DirectoryId::UNASSIGNED);

    let broker_epoch = world.epoch(1);
    let assign = |directory| {
        let places = vec![(tp, directory)];
        Command::AssignDirectories(AssignDirectories { broker: NodeId(1), broker_epoch, places })
    };
    let answered = |outcome| match outcome {
        Ok(Outcome::AssignDirectories(mut answers)) => answers.remove(0),
        other => panic!("{other:?}"),
    };
    assert!(matches!(answered(world.run(assign(lies))), Err(Refusal::InvalidRequest(_))));
    assert_eq!(answered(world.run(assign(directory(8, 1)))), Ok(()));
    assert_eq!(world.at(tp).directories[1], directory(8, 1));
    world.set_state(1, BrokerState::Active);
    assert_eq!(world.ask_isr(tp, &[0, 1], false), Ok(()));
}

#[test]
fn a_power_loss_costs_those_their_place_that_did_not_sync() {
    let mut world = World::with_brokers(2);
    let synced = world.create_on("synced", &[0, 1]);
    let unsynced = world.create_on("unsynced", &[0, 1]);
    let only = world.create_on("only", &[0]);
    for topic in ["unsynced", "only"] {
        assert_eq!(world.set_config(ConfigResource::topic(topic), "firn.flush", "os"), Ok(()));
    }
    for tp in [synced, unsynced] {
        assert_eq!(world.ask_isr(tp, &[0], false), Ok(()));
    }
    let cut = |clean| RegisterBroker { clean, ..registration(0, 70 + clean as u128) };
    for clean in [Clean::Yes, Clean::SameBoot] {
        assert!(world.run(Command::RegisterBroker(cut(clean))).is_ok());
        assert_eq!([synced, unsynced, only].map(|tp| world.sets(tp)), ["- [] [0]"; 3]);
    }
    assert!(world.run(Command::RegisterBroker(cut(Clean::No))).is_ok());
    assert_eq!([synced, unsynced, only].map(|tp| world.sets(tp)), ["- [] [0]", "- [] []", "- [] [0]"]);
    world.set_state(0, BrokerState::Active);
    assert_eq!([synced, unsynced, only].map(|tp| world.sets(tp)), ["0 [0] []"; 3]);
    let recovering = |tp| world.at(tp).recovery == Recovery::Recovering;
    assert_eq!([synced, unsynced, only].map(recovering), [false, true, false]);
}

#[test]
fn brokers_leave_for_good() {
    let mut world = World::with_brokers(2);
    let tp = world.create_on("a", &[0, 1]);
    assert_eq!(world.run(Command::UnregisterBroker(NodeId(0))), Ok(Outcome::UnregisterBroker));
    assert_eq!(world.sets(tp), "1 [1] []");
    assert_eq!(world.image.broker(NodeId(0)), None);
    assert_eq!(world.run(Command::UnregisterBroker(NodeId(0))), Err(Refusal::BrokerNotRegistered(NodeId(0))));
}

#[test]
fn who_comes_when_there_is_something_to_share_gets_a_share() {
    let mut world = World::with_brokers(2);
    assert!((0..2).all(|id| world.image.broker(NodeId(id)).unwrap().share == Share::Kept), "there was nothing");
    world.create_on("a", &[0, 1]);
    world.register(2, 77);
    assert_eq!(world.image.broker(NodeId(2)).unwrap().share, Share::Filled);
    world.register(1, 78);
    assert_eq!(world.image.broker(NodeId(1)).unwrap().share, Share::Kept, "a new process of an old broker");
}

#[test]
fn a_broker_that_others_cannot_replace_is_not_emptied() {
    let mut world = World::with_brokers(3);
    world.create_on("a", &[0, 1, 2]);
    let drain = |id| Command::SetShare { id: NodeId(id), share: Share::Drained };
    let refused = world.run(drain(2)).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "Broker 2 cannot be emptied: a-0 has 3 replica(s), and without it there are only 2 broker(s) in service to hold \
         them."
    );
    world.register(3, 77);
    assert!(world.run(drain(2)).is_err(), "one that is not in service holds nothing");
    world.set_state(3, BrokerState::Active);
    assert_eq!(world.run(drain(2)), Ok(Outcome::SetShare));
    assert!(world.run(drain(3)).is_err(), "one of both has to stay");
}

#[test]
fn nothing_new_goes_to_a_broker_that_is_drained() {
    let mut world = World::with_brokers(3);
    let share = |share| Command::SetShare { id: NodeId(1), share };
    for _ in 0..2 {
        assert_eq!(world.run(share(Share::Drained)), Ok(Outcome::SetShare));
    }
    let id = world.create_ok("a", 4, 2);
    let placed: Vec<NodeId> = (0..4).flat_map(|index| world.state(id, index).replicas.clone()).collect();
    assert!(!placed.contains(&NodeId(1)), "{placed:?}");
    world.register(1, 99);
    assert!(world.image.broker(NodeId(1)).unwrap().is_draining(), "a new process changes nothing about it");
    world.set_state(1, BrokerState::Active);
    assert_eq!(world.run(share(Share::Kept)), Ok(Outcome::SetShare));
    let id = world.create_ok("b", 4, 2);
    assert!((0..4).any(|index| world.state(id, index).replicas.contains(&NodeId(1))));
}

#[test]
fn a_cluster_has_one_value_of_what_is_promised_and_elected_by() {
    let mut world = World { now: NOW, ..World::default() };
    world.policy.min_insync_replicas = 2;
    let all = ConfigResource::all_brokers();
    let set = |world: &World| world.image.configs(&all).map(|set| (**set).clone()).unwrap_or_default();
    world.register(0, 1);
    assert_eq!(set(&world), BTreeMap::new(), "the only broker goes by its own file");
    world.register(1, 2);
    let settled = |min: &str, flush: &str| {
        BTreeMap::from([("min.insync.replicas", min), ("firn.flush", flush)].map(|(k, v)| (k.to_owned(), v.to_owned())))
    };
    assert_eq!(set(&world), settled("2", "fsync"));
    // Another controller with other settings, an operator, and one who takes back what was set.
    world.policy = Policy { min_insync_replicas: 3, flush: Flush::Os, ..Policy::default() };
    world.register(2, 3);
    assert_eq!(set(&world), settled("2", "fsync"));
    assert_eq!(world.set_config(all.clone(), "min.insync.replicas", "1"), Ok(()));
    world.register(2, 4);
    assert_eq!(set(&world), settled("1", "fsync"));
    let change = ConfigChange::Incremental(vec![("min.insync.replicas".to_owned(), ConfigOp::Delete)]);
    let alter = AlterConfigs { resources: vec![(all.clone(), change)], mode: Mode::Commit };
    assert_eq!(world.run(Command::AlterConfigs(alter)), Ok(Outcome::AlterConfigs(vec![Ok(())])));
    assert_eq!(set(&world), settled("3", "fsync"));
}
