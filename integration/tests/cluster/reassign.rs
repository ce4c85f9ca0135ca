//! What operators ask for through Kafka's API: partitions reassigned, throttled and taken back, leaders elected, voters added and removed.

use crate::stand::{alone, home, plan, until};
use integration::client::Client;
use integration::cluster::{Cluster, Shape};
use proto::errors::ErrorCode;
use proto::host::{Clock, SystemClock};
use proto::messages::add_raft_voter_request::Listener;
use proto::messages::alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic};
use proto::messages::create_topics_request::{CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig};
use proto::messages::describe_log_dirs_request::DescribableLogDirTopic;
use proto::messages::elect_leaders_request::TopicPartitions;
use proto::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use proto::messages::list_partition_reassignments_request::ListPartitionReassignmentsTopics;
use proto::messages::list_partition_reassignments_response::OngoingPartitionReassignment;
use proto::messages::{
    AddRaftVoterRequest, AlterPartitionReassignmentsRequest, CreateTopicsRequest, DescribeLogDirsRequest,
    DescribeQuorumRequest, ElectLeadersRequest, IncrementalAlterConfigsRequest, ListPartitionReassignmentsRequest,
    RemoveRaftVoterRequest,
};
use proto::records::BatchBuilder;
use std::time::Duration;
use tokio::sync::MutexGuard;
use tokio::time::Instant;

/// Kafka's numbers of resource types.
const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const MIB: i64 = 1 << 20;

/// Three combined nodes without load, whose brokers are left as they are placed.
struct Desk {
    cluster: Cluster,
    _home: tempfile::TempDir,
    _alone: MutexGuard<'static, ()>,
}

fn known(code: i16) -> ErrorCode {
    ErrorCode::from_code(code).expect("a code of Kafka's")
}

impl Desk {
    async fn new() -> Desk {
        let (alone, home) = (alone().await, home());
        let mut plan = plan(home.path(), Shape::Combined(3));
        for (name, value) in [("firn.balance.enable", "false"), ("auto.leader.rebalance.enable", "false")] {
            plan.settings.push((name.to_owned(), value.to_owned()));
        }
        let cluster = Cluster::start(plan).await.unwrap_or_else(|error| panic!("the cluster does not start: {error}"));
        Desk { cluster, _home: home, _alone: alone }
    }

    async fn client(&self) -> Client {
        self.cluster.connect(Duration::from_secs(30)).await.expect("a node answers")
    }

    /// A topic whose partitions have these replicas, and whose records stay on local disks.
    async fn create(&self, name: &str, replicas: &[&[i32]]) {
        let assignments = (0..).zip(replicas).map(|(partition_index, replicas)| CreatableReplicaAssignment {
            partition_index,
            broker_ids: replicas.to_vec(),
        });
        let local = CreatableTopicConfig { name: "remote.storage.enable".to_owned(), value: Some("false".to_owned()) };
        let topic = CreatableTopic {
            name: name.to_owned(),
            num_partitions: -1,
            replication_factor: -1,
            assignments: assignments.collect(),
            configs: vec![local],
        };
        let request = CreateTopicsRequest { topics: vec![topic], timeout_ms: 30_000, validate_only: false };
        let answer = self.client().await.call(&request).await.expect("an answer");
        assert_eq!(known(answer.topics[0].error_code), ErrorCode::None, "{answer:?}");
        self.until_replicas(name, |partitions| partitions.iter().all(|one| one.1 == one.2)).await;
    }

    /// Leader, replicas and those in sync of each partition.
    async fn replicas(&self, topic: &str) -> Option<Vec<(i32, Vec<i32>, Vec<i32>)>> {
        let partitions = self.client().await.partitions(topic).await.ok()?;
        let sorted = |mut ids: Vec<i32>| {
            ids.sort_unstable();
            ids
        };
        let all = partitions.into_iter().map(|one| (one.leader, sorted(one.replicas), sorted(one.in_sync)));
        Some(all.collect())
    }

    async fn until_replicas(&self, topic: &str, is_so: impl Fn(&[(i32, Vec<i32>, Vec<i32>)]) -> bool) {
        until("replicas as they should be", async || is_so(&self.replicas(topic).await?).then_some(())).await;
    }

    /// Asks to have partitions of a topic moved (none takes a move back); what is answered, for all and for each.
    async fn reassign(&self, topic: &str, moves: &[(i32, Option<&[i32]>)]) -> (ErrorCode, Vec<ErrorCode>) {
        let partitions = moves.iter().map(|(partition_index, replicas)| ReassignablePartition {
            partition_index: *partition_index,
            replicas: replicas.map(<[i32]>::to_vec),
        });
        let topics = vec![ReassignableTopic { name: topic.to_owned(), partitions: partitions.collect() }];
        let request = AlterPartitionReassignmentsRequest { timeout_ms: 30_000, topics, ..Default::default() };
        let answer = self.client().await.call(&request).await.expect("an answer");
        let each = answer.responses.iter().flat_map(|topic| &topic.partitions).map(|one| known(one.error_code));
        (known(answer.error_code), each.collect())
    }

    /// What is on the move, of one partition or all.
    async fn moving(&self, asked: Option<(&str, i32)>) -> Vec<OngoingPartitionReassignment> {
        let topics = asked.map(|(name, partition)| {
            vec![ListPartitionReassignmentsTopics { name: name.to_owned(), partition_indexes: vec![partition] }]
        });
        let request = ListPartitionReassignmentsRequest { timeout_ms: 30_000, topics };
        let answer = self.client().await.call(&request).await.expect("an answer");
        assert_eq!(known(answer.error_code), ErrorCode::None);
        answer.topics.into_iter().flat_map(|topic| topic.partitions).collect()
    }

    async fn settled(&self) {
        until("nothing on the move", async || self.moving(None).await.is_empty().then_some(())).await;
    }

    /// Sets some configs of a topic or broker, or removes them.
    async fn configure(&self, kind: i8, name: &str, configs: &[(&str, Option<&str>)]) {
        let configs = configs.iter().map(|(name, value)| AlterableConfig {
            name: (*name).to_owned(),
            config_operation: i8::from(value.is_none()),
            value: value.map(str::to_owned),
        });
        let resource =
            AlterConfigsResource { resource_type: kind, resource_name: name.to_owned(), configs: configs.collect() };
        let request = IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false };
        // What is a broker's own is said to that one.
        let mut client = match name.parse() {
            Ok(broker) if kind == BROKER => self.cluster.connect_to(broker).await.expect("it answers"),
            _ => self.client().await,
        };
        let answer = client.call(&request).await.expect("an answer");
        assert_eq!(known(answer.responses[0].error_code), ErrorCode::None, "{answer:?}");
    }

    /// Bytes of a replica on a broker; none if it has none.
    async fn size(&self, broker: i32, topic: &str, partition: i32) -> Option<i64> {
        let asked = DescribableLogDirTopic { topic: topic.to_owned(), partitions: vec![partition] };
        let request = DescribeLogDirsRequest { topics: Some(vec![asked]) };
        let answer = self.cluster.connect_to(broker).await.ok()?.call(&request).await.ok()?;
        let mut found = answer.results.iter().flat_map(|dir| &dir.topics).flat_map(|topic| &topic.partitions);
        found.next().map(|one| one.partition_size)
    }

    /// Produces so many batches of about a MiB to a partition.
    async fn fill(&self, topic: &str, partition: i32, leader: i32, batches: usize) {
        let mut client = self.cluster.connect_to(leader).await.expect("it serves");
        let value = vec![7; 1 << 19];
        for _ in 0..batches {
            let mut batch = BatchBuilder::new();
            let now = SystemClock.now_ms();
            batch.append(now, None, Some(&value), &[]);
            batch.append(now, None, Some(&value[..(1 << 19) - 4096]), &[]);
            client.produce(topic, partition, batch.build()).await.expect("acknowledged");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_go_where_kafkas_api_says() {
    let desk = Desk::new().await;
    desk.create("t", &[&[0, 1], &[1, 2], &[2, 0]]).await;
    desk.fill("t", 0, 0, 1).await;
    let whole = ErrorCode::None;
    // To another broker, to fewer replicas, to more.
    let moves: [(i32, Option<&[i32]>); 3] = [(0, Some(&[2, 1])), (1, Some(&[2])), (2, Some(&[0, 1, 2]))];
    assert_eq!(desk.reassign("t", &moves).await, (whole, vec![ErrorCode::None; 3]));
    desk.settled().await;
    let expected: [&[i32]; 3] = [&[1, 2], &[2], &[0, 1, 2]];
    desk.until_replicas("t", |found| found.iter().zip(expected).all(|(one, all)| one.1 == all && one.2 == all)).await;
    until("the replica that left to be deleted", async || desk.size(0, "t", 0).await.is_none().then_some(())).await;
    assert!(desk.size(2, "t", 0).await > Some(MIB / 2), "it went along");

    // What cannot be is refused, each partition by itself, and changes nothing.
    let invalid = ErrorCode::InvalidReplicaAssignment;
    let cases: [(&str, i32, Option<&[i32]>, ErrorCode); 7] = [
        ("an unknown broker", 0, Some(&[2, 99]), invalid),
        ("a negative one", 0, Some(&[-1]), invalid),
        ("one twice", 0, Some(&[2, 2]), invalid),
        ("nobody", 0, Some(&[]), invalid),
        ("an unknown partition", 7, Some(&[0]), ErrorCode::UnknownTopicOrPartition),
        ("a cancel of nothing", 0, None, ErrorCode::NoReassignmentInProgress),
        ("a cancel of an unknown partition", 7, None, ErrorCode::UnknownTopicOrPartition),
    ];
    for (what, partition, replicas, expected) in cases {
        assert_eq!(desk.reassign("t", &[(partition, replicas)]).await, (whole, vec![expected]), "{what}");
    }
    let unknown = desk.reassign("nothing", &[(0, Some(&[0]))]).await;
    assert_eq!(unknown, (whole, vec![ErrorCode::UnknownTopicOrPartition]));
    assert_eq!(desk.moving(None).await, []);
    assert_eq!(desk.moving(Some(("nothing", 3))).await, []);
    desk.until_replicas("t", |found| found.iter().zip(expected).all(|(one, all)| one.1 == all)).await;
}

/// What comes of a move is counted: however long it takes, no more than the rate allows has come at any time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_move_keeps_to_its_throttle_on_either_side_and_is_taken_back() {
    const RATE: i64 = 512 << 10;
    let desk = Desk::new().await;
    desk.create("heavy", &[&[0]]).await;
    desk.fill("heavy", 0, 0, 16).await;
    let size = desk.size(0, "heavy", 0).await.expect("a replica");
    assert!(size > 15 * MIB, "{size}");
    for (side, broker) in [("leader", "0"), ("follower", "1")] {
        let rate = format!("{side}.replication.throttled.rate");
        let replicas = format!("{side}.replication.throttled.replicas");
        desk.configure(BROKER, broker, &[(&rate, Some(&RATE.to_string()))]).await;
        desk.configure(TOPIC, "heavy", &[(&replicas, Some(&format!("0:{broker}")))]).await;
        let begun = Instant::now();
        assert_eq!(desk.reassign("heavy", &[(0, Some(&[1]))]).await.1, [ErrorCode::None]);
        // What came within a second of silence, one answer beyond, and what the rate allows.
        let allowed = || RATE * (1 + i64::try_from(begun.elapsed().as_millis()).expect("small") / 1_000 + 1) + 2 * MIB;
        let mut seen = 0;
        while seen < 4 * MIB {
            seen =
                until("more of the replica", async || desk.size(1, "heavy", 0).await.filter(|now| *now > seen)).await;
            assert!(seen <= allowed(), "{side}: {seen} bytes came, {} are allowed", allowed());
        }
        assert!(seen < size, "{side}: it is not all there");
        let going = desk.moving(Some(("heavy", 0))).await;
        assert_eq!((&going[0].adding_replicas, &going[0].removing_replicas), (&vec![1], &vec![0]), "{side}");

        // Taken back: the partition is as it was, and nothing of it is left where it went.
        assert_eq!(desk.reassign("heavy", &[(0, None)]).await, (ErrorCode::None, vec![ErrorCode::None]));
        assert_eq!(desk.moving(None).await, [], "{side}");
        desk.until_replicas("heavy", |found| found[0] == (0, vec![0], vec![0])).await;
        until("its pieces to be deleted", async || desk.size(1, "heavy", 0).await.is_none().then_some(())).await;
        desk.configure(BROKER, broker, &[(&rate, None)]).await;
        desk.configure(TOPIC, "heavy", &[(&replicas, None)]).await;
    }
    // Without a throttle it goes through.
    assert_eq!(desk.reassign("heavy", &[(0, Some(&[1]))]).await.1, [ErrorCode::None]);
    desk.settled().await;
    desk.until_replicas("heavy", |found| found[0] == (1, vec![1], vec![1])).await;
    assert_eq!(desk.size(1, "heavy", 0).await, Some(size));
}

/// Asks for an election of one kind; the code of each partition that is answered.
async fn elect(desk: &Desk, kind: i8, asked: Option<(&str, &[i32])>) -> Vec<(i32, ErrorCode)> {
    let topic_partitions = asked
        .map(|(topic, partitions)| vec![TopicPartitions { topic: topic.to_owned(), partitions: partitions.to_vec() }]);
    let request = ElectLeadersRequest { election_type: kind, topic_partitions, timeout_ms: 30_000 };
    let answer = desk.client().await.call(&request).await.expect("an answer");
    assert_eq!(known(answer.error_code), ErrorCode::None);
    let each = answer.replica_election_results.iter().flat_map(|topic| &topic.partition_result);
    each.map(|one| (one.partition_id, known(one.error_code))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaders_are_elected_as_kafkas_api_says() {
    const PREFERRED: i8 = 0;
    const UNCLEAN: i8 = 1;
    let mut desk = Desk::new().await;
    desk.create("t", &[&[0, 1, 2], &[1, 2, 0]]).await;
    desk.create("lonely", &[&[0, 1]]).await;
    assert_eq!(elect(&desk, PREFERRED, Some(("t", &[0]))).await, [(0, ErrorCode::ElectionNotNeeded)]);
    assert_eq!(elect(&desk, UNCLEAN, Some(("t", &[0]))).await, [(0, ErrorCode::ElectionNotNeeded)]);
    assert_eq!(elect(&desk, PREFERRED, Some(("t", &[9]))).await, [(9, ErrorCode::UnknownTopicOrPartition)]);
    assert_eq!(elect(&desk, PREFERRED, None).await, []);

    desk.cluster.kill(0).await.expect("it runs");
    desk.until_replicas("t", |found| found.iter().all(|one| one.0 > 0 && !one.2.contains(&0))).await;
    let refused = elect(&desk, PREFERRED, Some(("t", &[0]))).await;
    assert_eq!(refused, [(0, ErrorCode::PreferredLeaderNotAvailable)]);
    // Broker 1 has what 0 has not seen; with it gone, too, nobody may lead who does not have it.
    desk.until_replicas("lonely", |found| found[0].0 == 1 && found[0].2 == [1]).await;
    desk.fill("lonely", 0, 1, 1).await;
    desk.cluster.restart(0).await.unwrap_or_else(|error| panic!("it does not start: {error}"));
    desk.until_replicas("t", |found| found.iter().all(|one| one.2.len() == 3)).await;
    desk.until_replicas("lonely", |found| found[0].2.len() == 2).await;
    assert_eq!(elect(&desk, PREFERRED, None).await.iter().map(|one| one.1).collect::<Vec<_>>(), [ErrorCode::None; 2]);
    desk.until_replicas("t", |found| found[0].0 == 0 && found[1].0 == 1).await;
    desk.until_replicas("lonely", |found| found[0] == (0, vec![0, 1], vec![0, 1])).await;

    // One that was away when a record came is elected only when that is asked for.
    desk.cluster.kill(1).await.expect("it runs");
    desk.until_replicas("lonely", |found| found[0] == (0, vec![0, 1], vec![0])).await;
    desk.fill("lonely", 0, 0, 1).await;
    desk.cluster.kill(0).await.expect("it runs");
    desk.cluster.restart(1).await.unwrap_or_else(|error| panic!("it does not start: {error}"));
    desk.until_replicas("lonely", |found| found[0].0 < 0).await;
    let refused = elect(&desk, PREFERRED, Some(("lonely", &[0]))).await;
    assert_eq!(refused, [(0, ErrorCode::PreferredLeaderNotAvailable)]);
    assert_eq!(elect(&desk, UNCLEAN, Some(("lonely", &[0]))).await, [(0, ErrorCode::None)]);
    desk.until_replicas("lonely", |found| found[0].0 == 1).await;
}

/// Voters by id, as DescribeQuorum tells them, with their directories.
async fn voters(desk: &Desk, ask: i32) -> Option<Vec<(i32, proto::ids::Uuid)>> {
    let topic = proto::messages::describe_quorum_request::TopicData {
        topic_name: "__cluster_metadata".to_owned(),
        partitions: vec![proto::messages::describe_quorum_request::PartitionData { partition_index: 0 }],
    };
    let request = DescribeQuorumRequest { topics: vec![topic] };
    let answer = desk.cluster.connect_to(ask).await.ok()?.call(&request).await.ok()?;
    let partition = answer.topics.first()?.partitions.first()?;
    Some(partition.current_voters.iter().map(|one| (one.replica_id, one.replica_directory_id)).collect())
}

async fn until_voters(desk: &Desk, ask: i32, expected: &[i32]) -> Vec<(i32, proto::ids::Uuid)> {
    until("the voters", async || {
        let found = voters(desk, ask).await?;
        let mut ids: Vec<i32> = found.iter().map(|one| one.0).collect();
        ids.sort_unstable();
        // Their disks are known once they were met.
        (ids == expected && found.iter().all(|one| !one.1.is_nil())).then_some(found)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn voters_come_and_go_through_kafkas_api() {
    let desk = Desk::new().await;
    let found = until_voters(&desk, 0, &[0, 1, 2]).await;
    let directory = found.iter().find(|one| one.0 == 2).expect("it votes").1;
    let address = desk.cluster.control().get(2).cloned().expect("three of them");
    let (host, port) = address.rsplit_once('@').map_or(&*address, |(_, at)| at).rsplit_once(':').expect("an address");
    let listener =
        Listener { name: "CONTROLLER".to_owned(), host: host.to_owned(), port: port.parse().expect("a port") };
    let remove =
        |voter_id, voter_directory_id| RemoveRaftVoterRequest { cluster_id: None, voter_id, voter_directory_id };
    let add = |voter_id: i32, voter_directory_id| AddRaftVoterRequest {
        cluster_id: None,
        timeout_ms: 30_000,
        voter_id,
        voter_directory_id,
        listeners: vec![listener.clone()],
        ..Default::default()
    };
    let nobody = proto::ids::Uuid::from_u128(77);
    for (what, request, expected) in [
        ("one that does not vote", remove(9, directory), ErrorCode::VoterNotFound),
        ("another disk", remove(2, nobody), ErrorCode::VoterNotFound),
        (
            "another cluster",
            RemoveRaftVoterRequest { cluster_id: Some("another".to_owned()), ..remove(2, directory) },
            ErrorCode::InconsistentClusterId,
        ),
    ] {
        let answer = desk.client().await.call(&request).await.expect("an answer");
        assert_eq!(known(answer.error_code), expected, "{what}: {answer:?}");
    }
    let answer = desk.client().await.call(&add(2, directory)).await.expect("an answer");
    assert_eq!(known(answer.error_code), ErrorCode::DuplicateVoter, "{answer:?}");

    let answer = desk.client().await.call(&remove(2, directory)).await.expect("an answer");
    assert_eq!(known(answer.error_code), ErrorCode::None, "{answer:?}");
    until_voters(&desk, 0, &[0, 1]).await;
    // It goes on as a broker, and may vote again.
    until("it to vote again", async || {
        let answer = desk.client().await.call(&add(2, directory)).await.ok()?;
        (known(answer.error_code) == ErrorCode::None).then_some(())
    })
    .await;
    until_voters(&desk, 1, &[0, 1, 2]).await;
}
