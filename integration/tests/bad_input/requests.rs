//! Requests that are well formed and wrong.

use super::stand::{Stand, Table, Witness, code, make, unique};
use integration::calls::{CallError, FETCH_BY_NAME, fetch_request};
use integration::client::Client;
use proto::errors::ErrorCode;
use proto::messages::alter_configs_request as plain;
use proto::messages::create_partitions_request::CreatePartitionsTopic;
use proto::messages::create_topics_request::{CreatableReplicaAssignment, CreatableTopic};
use proto::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use proto::messages::join_group_request::JoinGroupRequestProtocol;
use proto::messages::metadata_request::MetadataRequestTopic;
use proto::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use proto::messages::{
    AlterConfigsRequest, CreatePartitionsRequest, CreateTopicsRequest, FetchRequest, HeartbeatRequest,
    IncrementalAlterConfigsRequest, JoinGroupRequest, MetadataRequest, OffsetCommitRequest,
};
use uuid::Uuid;

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const SET: i8 = 0;
const APPEND: i8 = 2;

fn known(code: i16) -> Option<ErrorCode> {
    ErrorCode::from_code(code)
}

async fn create(client: &mut Client, topics: Vec<CreatableTopic>) -> Option<ErrorCode> {
    let request = CreateTopicsRequest { topics, timeout_ms: 30_000, validate_only: false };
    let answer = client.call(&request).await.expect("an answer");
    known(answer.topics.first().expect("the topic").error_code)
}

fn topic(name: &str, num_partitions: i32, replication_factor: i16) -> CreatableTopic {
    CreatableTopic { name: name.to_owned(), num_partitions, replication_factor, ..Default::default() }
}

#[tokio::test]
async fn topics_that_cannot_be_are_not_made() {
    let stand = Stand::any().await;
    let mut witness = Witness::at(stand.address(), &[]).await;
    let mut client = stand.client().await;
    let there = witness.topic.clone();
    let dotted = unique("a.b");
    make(&mut client, &dotted, 1, &[]).await;
    let mut table = Table::default();
    for name in ["", ".", "..", "a b", "a/b", "ä", "a\n", "a:b", &"x".repeat(250)] {
        table.expect(name, ErrorCode::InvalidTopicException, code(client.create_topic(name, 1, &[]).await));
    }
    let similar = dotted.replace('.', "_");
    let cases = [
        ("the same again", ErrorCode::TopicAlreadyExists, topic(&there, 1, 1)),
        ("all but the same", ErrorCode::InvalidTopicException, topic(&similar, 1, 1)),
        ("no partitions", ErrorCode::InvalidPartitions, topic("t", 0, 1)),
        ("a negative number of partitions", ErrorCode::InvalidPartitions, topic("t", -7, 1)),
        ("no replicas", ErrorCode::InvalidReplicationFactor, topic("t", 1, 0)),
        ("more replicas than brokers", ErrorCode::InvalidReplicationFactor, topic("t", 1, 3)),
        ("two billion partitions", ErrorCode::PolicyViolation, topic("t", i32::MAX, 1)),
    ];
    for (case, expected, topic) in cases {
        table.expect(case, expected, create(&mut client, vec![topic]).await);
    }
    let twice = vec![topic("twice", 1, 1), topic("twice", 1, 1)];
    table.expect("the same twice in a request", ErrorCode::InvalidRequest, create(&mut client, twice).await);
    let mut assigned = topic("t", 1, 1);
    assigned.assignments = vec![CreatableReplicaAssignment { partition_index: 0, broker_ids: vec![77] }];
    table.expect(
        "partitions and assignments",
        ErrorCode::InvalidRequest,
        create(&mut client, vec![assigned.clone()]).await,
    );
    (assigned.num_partitions, assigned.replication_factor) = (-1, -1);
    table.expect(
        "assigned to a broker that is not there",
        ErrorCode::InvalidReplicaAssignment,
        create(&mut client, vec![assigned]).await,
    );
    for (name, value) in [
        ("no.such.config", "1"),
        ("retention.ms", "soon"),
        ("retention.ms", "-2"),
        ("segment.bytes", "1"),
        ("segment.bytes", "99999999999"),
        ("cleanup.policy", "shred"),
        ("compression.type", "brotli"),
        ("min.insync.replicas", "0"),
        ("max.message.bytes", "-1"),
    ] {
        let made = client.create_topic("wrong-config", 1, &[(name, value)]).await;
        table.expect(&format!("{name}={value}"), ErrorCode::InvalidConfig, code(made));
    }
    table.check();
    let topics = client.topics().await.expect("topics");
    assert!(topics.iter().all(|name| !["t", "twice", "wrong-config"].contains(&&name[..])), "{topics:?}");
    witness.is_well().await;
}

#[tokio::test]
async fn topics_that_are_not_there_are_not_changed() {
    let stand = Stand::any().await;
    let mut client = stand.client().await;
    let two = unique("two");
    make(&mut client, &two, 2, &[]).await;
    let mut table = Table::default();
    table.expect("deleting", ErrorCode::UnknownTopicOrPartition, code(client.delete_topic("not-there").await));
    table.expect(
        "deleting records",
        ErrorCode::UnknownTopicOrPartition,
        code(client.delete_records("not-there", 0, 1).await),
    );
    table.expect("beyond the end", ErrorCode::OffsetOutOfRange, code(client.delete_records(&two, 0, 1).await));
    table.expect("offsets", ErrorCode::UnknownTopicOrPartition, code(client.offset("not-there", 0, -1).await));
    table.expect("offsets of no partition", ErrorCode::UnknownTopicOrPartition, code(client.offset(&two, 9, -1).await));
    for (name, count, expected) in [
        ("not-there", 3, ErrorCode::UnknownTopicOrPartition),
        (&two[..], 1, ErrorCode::InvalidPartitions),
        (&two, 2, ErrorCode::InvalidPartitions),
        (&two, -1, ErrorCode::InvalidPartitions),
    ] {
        let topics = vec![CreatePartitionsTopic { name: name.to_owned(), count, assignments: None }];
        let request = CreatePartitionsRequest { topics, timeout_ms: 30_000, validate_only: false };
        let answer = client.call(&request).await.expect("an answer");
        table.expect(&format!("{count} partitions"), expected, known(answer.results[0].error_code));
    }
    for (name, expected) in
        [("not-there", ErrorCode::UnknownTopicOrPartition), ("not/there", ErrorCode::InvalidTopicException)]
    {
        let topics = Some(vec![MetadataRequestTopic { name: Some(name.to_owned()), ..Default::default() }]);
        let answer = client
            .call(&MetadataRequest { topics, allow_auto_topic_creation: false, ..Default::default() })
            .await
            .expect("an answer");
        table.expect(&format!("metadata of {name}"), expected, known(answer.topics[0].error_code));
    }
    let topics = Some(vec![MetadataRequestTopic { name: None, topic_id: Uuid::from_u128(7) }]);
    let answer = client
        .call(&MetadataRequest { topics, allow_auto_topic_creation: false, ..Default::default() })
        .await
        .expect("an answer");
    table.expect("metadata of an unknown id", ErrorCode::UnknownTopicId, known(answer.topics[0].error_code));
    table.check();
}

async fn alter(client: &mut Client, kind: i8, resource: &str, name: &str, op: i8, value: &str) -> Option<ErrorCode> {
    let config = AlterableConfig { name: name.to_owned(), config_operation: op, value: Some(value.to_owned()) };
    let resource =
        AlterConfigsResource { resource_type: kind, resource_name: resource.to_owned(), configs: vec![config] };
    let request = IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false };
    known(client.call(&request).await.expect("an answer").responses.first().expect("the resource").error_code)
}

#[tokio::test]
async fn configs_that_cannot_be_are_not_set() {
    let stand = Stand::any().await;
    let mut witness = Witness::at(stand.address(), &[]).await;
    let topic = witness.topic.clone();
    let mut client = stand.client().await;
    let mut table = Table::default();
    for (case, kind, resource, name, op, value, expected) in [
        ("unknown", TOPIC, &topic[..], "no.such.config", SET, "1", ErrorCode::InvalidConfig),
        ("invalid", TOPIC, &topic, "retention.ms", SET, "soon", ErrorCode::InvalidConfig),
        ("too small", TOPIC, &topic, "segment.bytes", SET, "1", ErrorCode::InvalidConfig),
        ("no list", TOPIC, &topic, "retention.ms", APPEND, "1", ErrorCode::InvalidConfig),
        ("no topic", TOPIC, "not-there", "retention.ms", SET, "1", ErrorCode::UnknownTopicOrPartition),
        ("a topic that cannot be", TOPIC, "not/there", "retention.ms", SET, "1", ErrorCode::InvalidTopicException),
        ("no broker", BROKER, "99", "log.retention.ms", SET, "1", ErrorCode::InvalidRequest),
        ("no number", BROKER, "me", "log.retention.ms", SET, "1", ErrorCode::InvalidRequest),
        ("read only", BROKER, "", "node.id", SET, "5", ErrorCode::InvalidRequest),
        ("no resource", 77, "x", "retention.ms", SET, "1", ErrorCode::InvalidRequest),
    ] {
        table.expect(case, expected, alter(&mut client, kind, resource, name, op, value).await);
    }
    if stand.is_ours() {
        // Kafka stumbles over it (UNKNOWN_SERVER_ERROR).
        let got = alter(&mut client, TOPIC, &topic, "retention.ms", 9, "1").await;
        table.expect("no operation", ErrorCode::InvalidRequest, got);
    }
    let config = plain::AlterableConfig { name: "no.such.config".to_owned(), value: Some("1".to_owned()) };
    let resource =
        plain::AlterConfigsResource { resource_type: TOPIC, resource_name: topic.clone(), configs: vec![config] };
    let request = AlterConfigsRequest { resources: vec![resource], validate_only: false };
    let answer = client.call(&request).await.expect("an answer");
    table.expect("unknown, the older way", ErrorCode::InvalidConfig, known(answer.responses[0].error_code));
    table.check();
    witness.is_well().await;
}

async fn fetched(client: &mut Client, request: &FetchRequest, version: i16) -> Option<ErrorCode> {
    let answer = client.call_in(request, version).await.expect("an answer");
    if answer.error_code != 0 {
        return known(answer.error_code);
    }
    known(answer.responses.first()?.partitions.first()?.error_code)
}

#[tokio::test]
async fn fetches_that_miss_get_their_codes() {
    let stand = Stand::any().await;
    let mut witness = Witness::at(stand.address(), &[]).await;
    let topic = witness.topic.clone();
    let mut client = stand.client().await;
    let mut table = Table::default();
    for (case, topic, partition, offset, expected) in [
        ("beyond the end", &topic[..], 0, 100, ErrorCode::OffsetOutOfRange),
        ("far beyond the end", &topic, 0, i64::MAX, ErrorCode::OffsetOutOfRange),
        ("before the start", &topic, 0, -5, ErrorCode::OffsetOutOfRange),
        ("no partition", &topic, 5, 0, ErrorCode::UnknownTopicOrPartition),
        ("a negative partition", &topic, -1, 0, ErrorCode::UnknownTopicOrPartition),
        ("no topic", "not-there", 0, 0, ErrorCode::UnknownTopicOrPartition),
    ] {
        let request = fetch_request(topic, partition, offset, 1000);
        table.expect(case, expected, fetched(&mut client, &request, FETCH_BY_NAME).await);
    }
    let mut request = fetch_request("", 0, 0, 1000);
    request.topics[0].topic_id = Uuid::from_u128(99);
    table.expect("an unknown id", ErrorCode::UnknownTopicId, fetched(&mut client, &request, 13).await);
    let mut request = fetch_request(&topic, 0, 0, 1000);
    (request.session_id, request.session_epoch) = (12_345, 3);
    let lost = fetched(&mut client, &request, FETCH_BY_NAME).await;
    table.expect("no session", ErrorCode::FetchSessionIdNotFound, lost);
    let mut request = fetch_request(&topic, 0, 0, 1000);
    request.topics[0].partitions[0].current_leader_epoch = 1_000;
    let early = fetched(&mut client, &request, FETCH_BY_NAME).await;
    table.expect("an epoch that has not begun", ErrorCode::UnknownLeaderEpoch, early);
    table.check();
    // Limits that make no sense still bring a record, or nothing, but no error.
    for max_bytes in [0, 1] {
        let mut request = fetch_request(&topic, 0, 0, max_bytes);
        (request.max_wait_ms, request.min_bytes) = (-1, i32::MAX);
        assert_eq!(fetched(&mut client, &request, FETCH_BY_NAME).await, Some(ErrorCode::None), "{max_bytes}");
    }
    witness.is_well().await;
}

#[tokio::test]
async fn members_that_are_none_get_their_codes() {
    let stand = Stand::any().await;
    let mut client = stand.client().await;
    let group = unique("group");
    loop {
        match client.find_coordinator(&group).await {
            Err(error) if error.code() == Some(ErrorCode::CoordinatorNotAvailable) => {}
            done => break done.expect("a coordinator"),
        }
    }
    let mut table = Table::default();
    let join = |group: &str, session_timeout_ms: i32, protocol_type: &str| JoinGroupRequest {
        group_id: group.to_owned(),
        session_timeout_ms,
        rebalance_timeout_ms: 30_000,
        protocol_type: protocol_type.to_owned(),
        protocols: vec![JoinGroupRequestProtocol { name: "range".to_owned(), ..Default::default() }],
        ..Default::default()
    };
    for (case, request, expected) in [
        ("a session too short", join(&group, 1, "consumer"), ErrorCode::InvalidSessionTimeout),
        ("a session too long", join(&group, i32::MAX, "consumer"), ErrorCode::InvalidSessionTimeout),
        ("no group", join("", 30_000, "consumer"), ErrorCode::InvalidGroupId),
        ("no protocol type", join(&group, 30_000, ""), ErrorCode::InconsistentGroupProtocol),
    ] {
        let answer = settled(&mut client, &request).await.expect("an answer");
        table.expect(case, expected, known(answer));
    }
    let heartbeat = HeartbeatRequest {
        group_id: group.clone(),
        member_id: "nobody".to_owned(),
        generation_id: 3,
        group_instance_id: None,
    };
    let answer = client.call(&heartbeat).await.expect("an answer");
    table.expect("a heartbeat of nobody", ErrorCode::UnknownMemberId, known(answer.error_code));
    let commit = |member: &str, generation: i32, metadata: String| OffsetCommitRequest {
        group_id: group.clone(),
        generation_id_or_member_epoch: generation,
        member_id: member.to_owned(),
        retention_time_ms: -1,
        topics: vec![OffsetCommitRequestTopic {
            name: "not-there".to_owned(),
            partitions: vec![OffsetCommitRequestPartition {
                partition_index: 0,
                committed_offset: 1,
                committed_leader_epoch: -1,
                committed_metadata: Some(metadata),
            }],
            ..Default::default()
        }],
        ..Default::default()
    };
    let committed = client.call_in(&commit("nobody", 3, String::new()), 9).await.expect("an answer");
    let got = known(committed.topics[0].partitions[0].error_code);
    // The topic is looked at before the member.
    table.expect("a commit to no topic", ErrorCode::UnknownTopicOrPartition, got);
    table.check();
}

/// The code of a join, once the coordinator has read its partition.
async fn settled(client: &mut Client, request: &JoinGroupRequest) -> Result<i16, CallError> {
    loop {
        let answer = client.call(request).await?;
        let unsettled = [ErrorCode::CoordinatorLoadInProgress.code(), ErrorCode::NotCoordinator.code()];
        if !unsettled.contains(&answer.error_code) {
            return Ok(answer.error_code);
        }
    }
}
