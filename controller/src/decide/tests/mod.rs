//! Tests of decide: each asserts whole answers and what the image looks like afterwards.

use std::collections::BTreeMap;

use proto::ids::{DirectoryId, NodeId, TopicId, TopicPartition, Uuid};
use proto::metadata::{
    ConfigResource, Image, ObjectFormat, ObjectKey, ObjectRef, PartitionState, Recovery, Share, TailEntry, TierPointer,
};

use super::*;
use crate::command::*;

mod brokers;
mod change;
mod cluster;
mod isr;
mod property;
mod reassign;

const NOW: i64 = 1_000;

/// An image that commands are carried out on.
#[derive(Default)]
struct World {
    image: Image,
    now: i64,
    policy: Policy,
}

impl World {
    /// With brokers 0..n in service, the even ones in rack "a", the others in "b".
    fn with_brokers(count: i32) -> Self {
        let mut world = Self { now: NOW, ..Self::default() };
        for id in 0..count {
            world.register(id, u128::from(id.unsigned_abs()) + 1);
            world.set_state(id, BrokerState::Active);
        }
        world
    }

    fn run(&mut self, command: Command) -> Result<Outcome, Refusal> {
        let decision = decide(&self.image, &command, self.now, &self.policy)?;
        for record in &decision.records {
            self.image.apply(record);
        }
        Ok(decision.outcome)
    }

    fn register(&mut self, id: i32, incarnation: u128) -> i64 {
        match self.run(Command::RegisterBroker(registration(id, incarnation))) {
            Ok(Outcome::RegisterBroker(epoch)) => epoch,
            other => panic!("{other:?}"),
        }
    }

    /// Creates a topic of one partition with these replicas.
    fn create_on(&mut self, name: &str, replicas: &[i32]) -> TopicPartition {
        let topic = NewTopic { assignments: BTreeMap::from([(0, nodes(replicas))]), ..topic(name) };
        let id = topic.id;
        for answer in self.create(vec![topic]) {
            answer.expect("the topic is fine");
        }
        TopicPartition::new(id, 0)
    }

    fn set_config(&mut self, resource: ConfigResource, key: &str, value: &str) -> Result<(), Refusal> {
        let change = ConfigChange::Incremental(vec![(key.to_owned(), ConfigOp::Set(value.to_owned()))]);
        let command = Command::AlterConfigs(AlterConfigs { resources: vec![(resource, change)], mode: Mode::Commit });
        match self.run(command) {
            Ok(Outcome::AlterConfigs(mut answers)) => answers.remove(0),
            other => panic!("{other:?}"),
        }
    }

    /// The cluster's `min.insync.replicas`.
    fn require_in_sync(&mut self, count: usize) {
        let all = ConfigResource::all_brokers();
        assert_eq!(self.set_config(all, "min.insync.replicas", &count.to_string()), Ok(()));
    }

    /// The leader of `tp` asks for these in-sync replicas.
    fn ask_isr(&mut self, tp: TopicPartition, isr: &[i32], recovered: bool) -> Result<(), Refusal> {
        let state = self.at(tp);
        let change = IsrChange {
            tp,
            leader_epoch: state.leader_epoch,
            partition_epoch: state.partition_epoch,
            isr: isr.iter().map(|id| (NodeId(*id), -1)).collect(),
            recovered,
        };
        let broker = state.leader.expect("it is led");
        let alter = AlterPartitions { broker, broker_epoch: self.epoch(broker.0), partitions: vec![change] };
        match self.run(Command::AlterPartitions(alter)) {
            Ok(Outcome::AlterPartitions(mut answers)) => answers.remove(0),
            other => panic!("{other:?}"),
        }
    }

    fn at(&self, tp: TopicPartition) -> &PartitionState {
        self.image.partition(tp).expect("it exists")
    }

    /// Leader, in-sync and eligible replicas in one line: `1 [1, 2] [3]`.
    fn sets(&self, tp: TopicPartition) -> String {
        let state = self.at(tp);
        let ids = |ids: &[NodeId]| ids.iter().map(|id| id.0).collect::<Vec<_>>();
        let leader = state.leader.map_or("-".to_owned(), |id| id.to_string());
        format!("{leader} {:?} {:?}", ids(&state.isr), ids(&state.elr))
    }

    fn set_state(&mut self, id: i32, state: BrokerState) {
        let broker_epoch = self.epoch(id);
        let change = SetBrokerState { id: NodeId(id), broker_epoch, state, directories: None };
        assert_eq!(self.run(Command::SetBrokerState(change)), Ok(Outcome::SetBrokerState));
    }

    fn epoch(&self, id: i32) -> i64 {
        self.image.broker(NodeId(id)).expect("it is registered").epoch
    }

    fn create(&mut self, topics: Vec<NewTopic>) -> Vec<Result<CreatedTopic, Refusal>> {
        match self.run(Command::CreateTopics(creation(topics))) {
            Ok(Outcome::CreateTopics(answers)) => answers,
            other => panic!("{other:?}"),
        }
    }

    fn create_ok(&mut self, name: &str, partitions: i32, factor: i16) -> TopicId {
        let topic = NewTopic { partitions, replication_factor: factor, ..topic(name) };
        let id = topic.id;
        for answer in self.create(vec![topic]) {
            answer.expect("the topic is fine");
        }
        id
    }

    fn commit(&mut self, commit: TierCommit) -> Result<TierPointer, TierRefusal> {
        match self.run(Command::CommitTier(vec![commit])) {
            Ok(Outcome::CommitTier(mut answers)) => answers.remove(0).map(|pointer| (*pointer).clone()),
            other => panic!("{other:?}"),
        }
    }

    fn state(&self, topic: TopicId, partition: i32) -> &PartitionState {
        self.image.partition(TopicPartition::new(topic, partition)).expect("it exists")
    }
}

/// A process of broker `id` with its two directories, the even ones in rack "a", the others in "b".
fn registration(id: i32, incarnation: u128) -> RegisterBroker {
    RegisterBroker {
        id: NodeId(id),
        incarnation: Uuid::from_u128(incarnation),
        previous_epoch: None,
        clean: Clean::Yes,
        endpoints: Vec::new(),
        rack: Some(if id % 2 == 0 { "a" } else { "b" }.to_owned()),
        directories: vec![directory(id, 0), directory(id, 1)],
        offline_directories: 0,
        features: supported_features(),
    }
}

fn directory(broker: i32, number: u128) -> DirectoryId {
    DirectoryId(Uuid::from_u128(1_000 + 10 * u128::from(broker.unsigned_abs()) + number))
}

fn creation(topics: Vec<NewTopic>) -> CreateTopics {
    CreateTopics { topics, default_partitions: 2, default_replication_factor: 1, mode: Mode::Commit }
}

/// A topic whose id follows from its name.
fn topic(name: &str) -> NewTopic {
    let id = name.bytes().fold(1u128, |id, byte| (id << 8 | u128::from(byte)) % (1 << 96));
    NewTopic {
        id: TopicId(Uuid::from_u128(id)),
        name: name.to_owned(),
        partitions: -1,
        replication_factor: -1,
        shortage: Shortage::Refuse,
        assignments: BTreeMap::new(),
        configs: BTreeMap::new(),
    }
}

fn nodes(ids: &[i32]) -> Vec<NodeId> {
    ids.iter().copied().map(NodeId).collect()
}

#[test]
fn names_are_checked_as_kafka_does() {
    for name in ["a", "A.b_c-9", "...", &"x".repeat(249)] {
        assert_eq!(check_topic_name(name), Ok(()), "{name}");
    }
    for name in ["", ".", "..", "a b", "a/b", "ä", "a\0", &"x".repeat(250)] {
        assert!(check_topic_name(name).is_err(), "{name}");
    }
}

#[test]
fn topics_get_defaults_configs_and_leaders() {
    let mut world = World::with_brokers(1);
    let configs = BTreeMap::from([("retention.ms".to_owned(), "5".to_owned())]);
    let answers = world.create(vec![NewTopic { configs: configs.clone(), ..topic("a") }]);
    let id = topic("a").id;
    let created = CreatedTopic { id, name: "a".to_owned(), partitions: 2, replication_factor: 1 };
    assert_eq!(answers, [Ok(created)]);
    let expected = |number| PartitionState {
        replicas: nodes(&[0]),
        directories: vec![directory(0, number)],
        isr: nodes(&[0]),
        elr: Vec::new(),
        leader: Some(NodeId(0)),
        leader_epoch: 0,
        partition_epoch: 0,
        adding: Vec::new(),
        removing: Vec::new(),
        last_known_leader: None,
        recovery: Recovery::Recovered,
    };
    assert_eq!(*world.state(id, 0), expected(0));
    assert_eq!(*world.state(id, 1), expected(1));
    let set = world.image.configs(&ConfigResource::topic("a")).expect("configs were given");
    assert_eq!(**set, configs);
    assert_eq!(world.image.topic(id).expect("it exists").created_at, NOW);
}

#[test]
fn topics_are_refused_one_by_one() {
    let mut world = World::with_brokers(1);
    world.create_ok("was.there", 1, 1);
    let named = |name: &str, partitions, replication_factor| NewTopic { partitions, replication_factor, ..topic(name) };
    let other_id = NewTopic { id: TopicId(Uuid::from_u128(99)), ..topic("was.there") };
    let assigned = |name: &str, assignments: &[(i32, &[i32])], partitions, factor| NewTopic {
        assignments: assignments.iter().map(|(index, ids)| (*index, nodes(ids))).collect(),
        ..named(name, partitions, factor)
    };
    let answers = world.create(vec![
        topic("bad name"),
        other_id,
        topic("was_there"),
        named("zero", 0, -1),
        named("negative", -2, -1),
        named("none", -1, 0),
        named("many", -1, 2),
        topic("twice"),
        topic("twice"),
        assigned("both", &[(0, &[0])], 1, -1),
        assigned("both2", &[(0, &[0])], -1, 1),
        assigned("gap", &[(1, &[0])], -1, -1),
        assigned("nobody", &[(0, &[])], -1, -1),
        assigned("doubled", &[(0, &[0, 0])], -1, -1),
        assigned("stranger", &[(0, &[7])], -1, -1),
        assigned("fine", &[(0, &[0]), (1, &[0])], -1, -1),
    ]);
    let kinds: Vec<&str> = answers
        .iter()
        .map(|answer| match answer {
            Ok(_) => "ok",
            Err(Refusal::InvalidTopicName(_)) => "name",
            Err(Refusal::TopicExists(_)) => "exists",
            Err(Refusal::TopicCollides { .. }) => "collides",
            Err(Refusal::InvalidPartitions(_)) => "partitions",
            Err(Refusal::InvalidReplicationFactor(_)) => "factor",
            Err(Refusal::InvalidRequest(_)) => "request",
            Err(Refusal::InvalidReplicaAssignment(_)) => "assignment",
            Err(other) => panic!("{other}"),
        })
        .collect();
    assert_eq!(
        kinds,
        [
            "name",
            "exists",
            "collides",
            "partitions",
            "partitions",
            "factor",
            "factor",
            "request",
            "request",
            "request",
            "request",
            "assignment",
            "assignment",
            "assignment",
            "assignment",
            "ok",
        ]
    );
    assert_eq!(world.image.topic_count(), 2);
}

#[test]
fn creating_a_topic_again_under_its_id_is_answered_as_done() {
    let mut world = World::with_brokers(1);
    let first = world.create(vec![topic("a")]);
    let offset = world.image.offset();
    assert_eq!(world.create(vec![topic("a")]), first);
    assert_eq!(world.image.offset(), offset);
}

#[test]
fn validating_changes_nothing() {
    let mut world = World::with_brokers(1);
    let id = world.create_ok("a", 1, 1);
    let before = world.image.clone();
    let create = CreateTopics { mode: Mode::Validate, ..creation(vec![topic("b"), topic("a")]) };
    let create = Command::CreateTopics(CreateTopics {
        topics: vec![topic("b"), NewTopic { id: TopicId(Uuid::from_u128(5)), ..topic("a") }],
        ..create
    });
    let Ok(Outcome::CreateTopics(answers)) = world.run(create) else { panic!("it is decided") };
    assert!(matches!(answers.as_slice(), [Ok(_), Err(Refusal::TopicExists(_))]), "{answers:?}");
    let grow = Command::CreatePartitions(CreatePartitions {
        topics: vec![NewPartitions { name: "a".to_owned(), count: 3, assignments: None }],
        mode: Mode::Validate,
    });
    assert_eq!(world.run(grow), Ok(Outcome::CreatePartitions(vec![Ok(())])));
    assert_eq!(world.image, before);
    assert_eq!(world.image.topic(id).expect("it exists").partitions.len(), 1);
}

#[test]
fn a_command_of_too_many_partitions_is_refused_as_a_whole() {
    let mut world = World::with_brokers(1);
    let command = Command::CreateTopics(creation(vec![
        NewTopic { partitions: 10_000, ..topic("a") },
        NewTopic { partitions: 1, ..topic("b") },
    ]));
    assert!(matches!(world.run(command), Err(Refusal::TooMany(_))));
    let command = Command::CreateTopics(creation(vec![NewTopic { partitions: i32::MAX, ..topic("a") }]));
    assert!(matches!(world.run(command), Err(Refusal::TooMany(_))));
}

#[test]
fn replicas_take_turns_between_racks_and_followers_differ() {
    let mut world = World::with_brokers(4);
    let id = world.create_ok("a", 8, 2);
    let replicas: Vec<Vec<i32>> =
        (0..8).map(|index| world.state(id, index).replicas.iter().map(|id| id.0).collect()).collect();
    assert_eq!(replicas, [[0, 1], [1, 2], [2, 3], [3, 0], [0, 2], [1, 3], [2, 0], [3, 1]].map(Vec::from));
}

#[test]
fn topics_are_deleted_by_name_and_by_id() {
    let mut world = World::with_brokers(1);
    let a = world.create_ok("a", 1, 1);
    let b = world.create_ok("b", 1, 1);
    let delete = Command::DeleteTopics(DeleteTopics {
        topics: vec![
            TopicSelector::Name("a".to_owned()),
            TopicSelector::Id(b),
            TopicSelector::Name("a".to_owned()),
            TopicSelector::Id(b),
        ],
    });
    assert_eq!(
        world.run(delete),
        Ok(Outcome::DeleteTopics(vec![
            Ok((a, "a".to_owned())),
            Ok((b, "b".to_owned())),
            Err(Refusal::UnknownTopic),
            Err(Refusal::UnknownTopicId),
        ]))
    );
    assert_eq!(world.image.topic_count(), 0);
}

#[test]
fn partitions_only_ever_grow() {
    let mut world = World::with_brokers(1);
    let id = world.create_ok("a", 2, 1);
    let grow = |name: &str, count, assignments: Option<Vec<Vec<NodeId>>>| NewPartitions {
        name: name.to_owned(),
        count,
        assignments,
    };
    let asked = [
        (grow("a", 2, None), "partitions"),
        (grow("a", 1, None), "partitions"),
        (grow("a", -5, None), "partitions"),
        (grow("a", 4, Some(vec![nodes(&[0])])), "assignment"),
        (grow("a", 3, Some(vec![nodes(&[9])])), "assignment"),
        (grow("b", 4, None), "unknown"),
        (grow("a", 4, None), "ok"),
    ];
    for (topic, expected) in asked {
        let command = Command::CreatePartitions(CreatePartitions { topics: vec![topic], mode: Mode::Commit });
        let Ok(Outcome::CreatePartitions(answers)) = world.run(command) else { panic!("it is decided") };
        let kind = match answers.as_slice() {
            [Ok(())] => "ok",
            [Err(Refusal::InvalidPartitions(_))] => "partitions",
            [Err(Refusal::InvalidReplicaAssignment(_))] => "assignment",
            [Err(Refusal::UnknownTopic)] => "unknown",
            other => panic!("{other:?}"),
        };
        assert_eq!(kind, expected);
    }
    assert_eq!(world.image.topic(id).expect("it exists").partitions.len(), 4);
}

#[test]
fn configs_are_replaced_or_changed_one_by_one() {
    let mut world = World::with_brokers(1);
    world.create_ok("a", 1, 1);
    let resource = ConfigResource::topic("a");
    let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    let mut alter = |change| {
        let command = Command::AlterConfigs(AlterConfigs {
            resources: vec![(ConfigResource::topic("a"), change)],
            mode: Mode::Commit,
        });
        assert_eq!(world.run(command), Ok(Outcome::AlterConfigs(vec![Ok(())])));
        world.image.configs(&resource).map(|set| (**set).clone()).unwrap_or_default()
    };
    let list = |items: &str| (items.to_owned(), "delete".to_owned());

    let replace = ConfigChange::Replace(map(&[("retention.ms", "1"), ("segment.ms", "2")]));
    assert_eq!(alter(replace), map(&[("retention.ms", "1"), ("segment.ms", "2")]));

    let (items, inherited) = list("compact,delete");
    let set = alter(ConfigChange::Incremental(vec![
        ("retention.ms".to_owned(), ConfigOp::Set("9".to_owned())),
        ("segment.ms".to_owned(), ConfigOp::Delete),
        ("cleanup.policy".to_owned(), ConfigOp::Append { items, inherited }),
    ]));
    assert_eq!(set, map(&[("cleanup.policy", "delete,compact"), ("retention.ms", "9")]));

    let (items, inherited) = list("delete");
    let op = ConfigOp::Subtract { items, inherited };
    let set = alter(ConfigChange::Incremental(vec![("cleanup.policy".to_owned(), op)]));
    assert_eq!(set, map(&[("cleanup.policy", "compact"), ("retention.ms", "9")]));

    assert_eq!(alter(ConfigChange::Replace(map(&[]))), map(&[]));
}

#[test]
fn configs_of_nothing_are_refused() {
    let mut world = World::with_brokers(1);
    let change = || ConfigChange::Replace(BTreeMap::new());
    let broker = |name: &str| ConfigResource { kind: proto::metadata::ConfigKind::Broker, name: name.to_owned() };
    let command = Command::AlterConfigs(AlterConfigs {
        resources: vec![
            (ConfigResource::topic("a"), change()),
            (broker("x"), change()),
            (ConfigResource::all_brokers(), change()),
        ],
        mode: Mode::Commit,
    });
    let Ok(Outcome::AlterConfigs(answers)) = world.run(command) else { panic!("it is decided") };
    assert!(matches!(answers.as_slice(), [Err(Refusal::UnknownTopic), Err(Refusal::InvalidRequest(_)), Ok(())]));
}

#[test]
fn producer_ids_come_in_blocks_to_those_who_are_registered() {
    let mut world = World::with_brokers(1);
    let broker_epoch = world.epoch(0);
    let ask = |broker_epoch| Command::AllocateProducerIds { broker: NodeId(0), broker_epoch };
    for first in [0, 1000] {
        let block = ProducerIdBlock { first, count: 1000 };
        assert_eq!(world.run(ask(broker_epoch)), Ok(Outcome::AllocateProducerIds(block)));
    }
    assert_eq!(
        world.run(ask(broker_epoch + 1)),
        Err(Refusal::StaleBrokerEpoch { asked: broker_epoch + 1, current: broker_epoch })
    );
}

#[test]
fn the_cluster_is_formed_once() {
    let mut world = World::default();
    let form = |id: &str| Command::FormCluster(FormCluster { cluster_id: id.to_owned(), features: Vec::new() });
    assert_eq!(world.run(form("a")), Ok(Outcome::FormCluster("a".to_owned())));
    assert_eq!(world.run(form("b")), Ok(Outcome::FormCluster("a".to_owned())));
    assert_eq!(world.image.offset(), 1);
}

#[test]
fn a_new_incarnation_gets_a_new_broker_epoch_and_new_leader_epochs() {
    let mut world = World::with_brokers(1);
    let id = world.create_ok("a", 1, 1);
    let first = world.epoch(0);
    assert_eq!(world.register(0, 1), first, "the same incarnation registers once");
    assert_eq!(world.state(id, 0).leader_epoch, 0);

    assert!(world.register(0, 77) > first);
    assert_eq!(world.state(id, 0).leader, Some(NodeId(0)));
    assert_eq!((world.state(id, 0).leader_epoch, world.state(id, 0).partition_epoch), (1, 1));
}

#[test]
fn a_broker_that_registers_unready_leads_when_it_says_so() {
    let mut world = World::with_brokers(1);
    let id = world.create_ok("a", 1, 1);
    world.set_state(0, BrokerState::Fenced);
    assert_eq!((world.state(id, 0).leader, world.state(id, 0).leader_epoch), (None, 1));
    assert_eq!(world.sets(TopicPartition::new(id, 0)), "- [] [0]", "the last in-sync replica stays eligible");
    world.set_state(0, BrokerState::Active);
    assert_eq!((world.state(id, 0).leader, world.state(id, 0).leader_epoch), (Some(NodeId(0)), 2));
}

#[test]
fn who_shuts_down_hands_over_but_the_last_one_goes_on() {
    let mut world = World::with_brokers(2);
    let both = world.create_ok("both", 1, 2);
    let first = world.state(both, 0).replicas[0].0;
    world.set_state(first, BrokerState::ShuttingDown);
    let state = world.state(both, 0).clone();
    assert_eq!(state.leader, Some(NodeId(1 - first)));
    assert_eq!(state.isr, nodes(&[1 - first]), "nobody waits for it");

    let mut alone = World::with_brokers(1);
    let id = alone.create_ok("a", 1, 1);
    alone.set_state(0, BrokerState::ShuttingDown);
    assert_eq!((alone.state(id, 0).leader, alone.state(id, 0).leader_epoch), (Some(NodeId(0)), 0));
}

#[test]
fn a_lost_directory_takes_only_its_own_partitions_offline() {
    let mut world = World::with_brokers(1);
    let id = world.create_ok("a", 2, 1);
    let lose = |world: &World, directories| {
        Command::SetBrokerState(SetBrokerState {
            id: NodeId(0),
            broker_epoch: world.epoch(0),
            state: BrokerState::Active,
            directories: Some(directories),
        })
    };
    let command = lose(&world, vec![directory(0, 1)]);
    assert_eq!(world.run(command), Ok(Outcome::SetBrokerState));
    assert_eq!(world.state(id, 0).leader, None);
    assert_eq!(world.state(id, 1).leader, Some(NodeId(0)));

    let command = lose(&world, vec![directory(0, 0), directory(0, 1)]);
    assert_eq!(world.run(command), Ok(Outcome::SetBrokerState));
    assert_eq!(world.state(id, 0).leader, Some(NodeId(0)));
}

#[test]
fn in_sync_replicas_change_only_for_the_leader_on_what_it_saw() {
    let mut world = World::with_brokers(2);
    let id = world.create_ok("a", 1, 2);
    let tp = TopicPartition::new(id, 0);
    let leader = world.state(id, 0).leader.expect("it is led");
    let follower = NodeId(1 - leader.0);
    let epochs = (world.epoch(leader.0), world.epoch(follower.0));
    let ask = |partition_epoch, isr: Vec<(NodeId, i64)>| {
        Command::AlterPartitions(AlterPartitions {
            broker: leader,
            broker_epoch: epochs.0,
            partitions: vec![IsrChange { tp, leader_epoch: 0, partition_epoch, isr, recovered: false }],
        })
    };
    let answer = |outcome: Vec<Result<(), Refusal>>| Ok(Outcome::AlterPartitions(outcome));

    assert_eq!(world.run(ask(0, vec![(leader, epochs.0)])), answer(vec![Ok(())]));
    assert_eq!(world.state(id, 0).isr, [leader]);
    assert_eq!(world.run(ask(0, vec![(leader, epochs.0)])), answer(vec![Err(Refusal::InvalidUpdateVersion)]));
    let stale = vec![(leader, epochs.0), (follower, epochs.1 + 1)];
    assert_eq!(world.run(ask(1, stale)), answer(vec![Err(Refusal::IneligibleReplica(follower))]));
    let back = || vec![(leader, epochs.0), (follower, epochs.1)];
    assert_eq!(
        world.run(ask(1, back())),
        answer(vec![Err(Refusal::InvalidUpdateVersion)]),
        "what was on its way when another was refused comes too late"
    );
    assert_eq!(world.run(ask(2, back())), answer(vec![Ok(())]));
    assert_eq!(world.state(id, 0).isr, [leader, follower]);
}

#[test]
fn preferred_leaders_are_restored() {
    let mut world = World::with_brokers(2);
    let id = world.create_ok("a", 1, 2);
    let tp = TopicPartition::new(id, 0);
    let preferred = world.state(id, 0).replicas[0];
    let elect = |partitions| Command::ElectLeaders(ElectLeaders { election: Election::Preferred, partitions });
    assert_eq!(
        world.run(elect(Some(vec![tp]))),
        Ok(Outcome::ElectLeaders(vec![(tp, Err(Refusal::ElectionNotNeeded))]))
    );
    assert_eq!(world.run(elect(None)), Ok(Outcome::ElectLeaders(Vec::new())));
    world.set_state(preferred.0, BrokerState::ShuttingDown);
    assert_eq!(
        world.run(elect(None)),
        Ok(Outcome::ElectLeaders(vec![(tp, Err(Refusal::PreferredLeaderNotAvailable))]))
    );
    world.set_state(preferred.0, BrokerState::Active);
    assert_eq!(world.ask_isr(tp, &[1 - preferred.0, preferred.0], false), Ok(()));
    assert_ne!(world.state(id, 0).leader, Some(preferred));
    assert_eq!(world.run(elect(None)), Ok(Outcome::ElectLeaders(vec![(tp, Ok(()))])));
    assert_eq!(world.state(id, 0).leader, Some(preferred));
}

fn entry(tp: TopicPartition, base: i64, end: i64) -> TailEntry {
    TailEntry {
        base,
        end,
        max_timestamp: end,
        object: ObjectRef {
            key: ObjectKey {
                owner: tp,
                base_offset: base,
                leader_epoch: 0,
                uuid: Uuid::from_u128(base.unsigned_abs().into()),
            },
            start: 0,
            length: 100,
        },
        footer_position: 100,
        epochs: vec![(0, 0)],
        format: ObjectFormat::Segment,
        has_aborted: false,
        points: Vec::new(),
    }
}

/// A pointer that covers `[bounds[0], bounds.last())` with an entry between each two bounds.
fn pointer(tp: TopicPartition, bounds: &[i64]) -> TierPointer {
    TierPointer {
        log_start: bounds[0],
        tier_start: bounds[0],
        tier_end: *bounds.last().expect("there are bounds"),
        tail: bounds.windows(2).map(|pair| entry(tp, pair[0], pair[1])).collect(),
        ..TierPointer::default()
    }
}

fn commit(tp: TopicPartition, generation: u64, request: u128, pointer: TierPointer) -> TierCommit {
    TierCommit { tp, leader_epoch: 0, expected_generation: generation, request: Uuid::from_u128(request), pointer }
}

#[test]
fn pointers_move_once_per_request_from_the_generation_planned_on() {
    let mut world = World::with_brokers(1);
    let tp = TopicPartition::new(world.create_ok("a", 1, 1), 0);
    let first = world.commit(commit(tp, 0, 1, pointer(tp, &[0, 10]))).expect("it is the first");
    assert_eq!((first.generation, first.committed_at), (1, NOW));
    assert_eq!(first.request, Uuid::from_u128(1));

    world.now = NOW + 5;
    let again = world.commit(commit(tp, 0, 1, pointer(tp, &[0, 10]))).expect("it was done");
    assert_eq!(again, first);
    let stale = world.commit(commit(tp, 0, 2, pointer(tp, &[0, 20])));
    assert_eq!(stale, Err(TierRefusal::Stale(Some(first.into()))));
    let second = world.commit(commit(tp, 1, 3, pointer(tp, &[0, 10, 20]))).expect("it follows");
    assert_eq!((second.generation, second.committed_at), (2, NOW + 5));
}

#[test]
fn pointers_of_fenced_leaders_and_gone_topics_stay() {
    let mut world = World::with_brokers(1);
    let id = world.create_ok("a", 1, 1);
    let tp = TopicPartition::new(id, 0);
    world.register(0, 99);
    let fenced = world.commit(commit(tp, 0, 1, pointer(tp, &[0, 10])));
    assert_eq!(fenced, Err(TierRefusal::Fenced { asked: 0, current: 1 }));
    let delete = DeleteTopics { topics: vec![TopicSelector::Id(id)] };
    world.run(Command::DeleteTopics(delete)).expect("it is decided");
    let gone = world.commit(commit(tp, 0, 1, pointer(tp, &[0, 10])));
    assert_eq!(gone, Err(TierRefusal::Gone));
}

#[test]
fn pointers_that_break_an_invariant_are_refused() {
    let mut world = World::with_brokers(1);
    let tp = TopicPartition::new(world.create_ok("a", 1, 1), 0);
    world.commit(commit(tp, 0, 1, pointer(tp, &[5, 10, 20]))).expect("it is fine");
    let fine = pointer(tp, &[5, 10, 20]);
    let mut gap = fine.clone();
    gap.tail[1].base = 12;
    let mut uncovered = fine.clone();
    uncovered.tail.clear();
    let broken = [
        gap,
        uncovered,
        pointer(tp, &[5, 10]),
        pointer(tp, &[0, 10, 20]),
        TierPointer { log_start: 4, ..fine.clone() },
        TierPointer { tier_end: 21, ..fine.clone() },
        TierPointer { tier_start: 30, ..fine.clone() },
        pointer(tp, &(5..=5 + 17).collect::<Vec<_>>()),
    ];
    for (number, pointer) in (2..).zip(broken) {
        let outcome = world.commit(commit(tp, 1, number, pointer.clone()));
        assert!(matches!(outcome, Err(TierRefusal::Invalid(_))), "{pointer:?}: {outcome:?}");
    }
    world.commit(commit(tp, 1, 100, fine)).expect("an unchanged range is fine");
}

#[test]
fn delete_records_moves_the_log_start_forward_only() {
    let mut world = World::with_brokers(1);
    let id = world.create_ok("a", 2, 1);
    let tp = TopicPartition::new(id, 0);
    world.commit(commit(tp, 0, 1, pointer(tp, &[0, 10]))).expect("it is the first");
    let mut delete = |tp, log_start| {
        let delete = DeleteRecords { tp, leader_epoch: 0, log_start };
        match world.run(Command::DeleteRecords(vec![delete])) {
            Ok(Outcome::DeleteRecords(mut answers)) => {
                answers.remove(0).map(|pointer| (pointer.generation, pointer.log_start))
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(delete(tp, 7), Ok((2, 7)));
    assert_eq!(delete(tp, 3), Ok((2, 7)));
    assert_eq!(delete(TopicPartition::new(id, 1), 0), Ok((0, 0)));
    assert_eq!(delete(TopicPartition::new(id, 1), 3), Ok((1, 3)));
    assert_eq!(delete(TopicPartition::new(id, 2), 3), Err(Refusal::UnknownTopic));
}

#[test]
fn deletions_are_finished_once_the_tier_is_swept() {
    let mut world = World::with_brokers(1);
    let id = world.create_ok("a", 1, 1);
    let tp = TopicPartition::new(id, 0);
    world.commit(commit(tp, 0, 1, pointer(tp, &[0, 10]))).expect("it is the first");
    let delete = DeleteTopics { topics: vec![TopicSelector::Id(id)] };
    world.run(Command::DeleteTopics(delete)).expect("it is decided");
    assert_eq!(world.image.pending_deletes().count(), 1);
    for _ in 0..2 {
        let finish = Command::FinishDeletions(FinishDeletions { topics: vec![id], duty_epoch: 0 });
        assert_eq!(world.run(finish), Ok(Outcome::FinishDeletions));
    }
    assert_eq!(world.image.pending_deletes().count(), 0);
}
