//! Metadata, offsets and topics: every version with something to say.

use crate::client::{code, versions};
use crate::world::{CREATE, World, batch, creatable, create, t0, unique};
use proto::errors::ErrorCode;
use proto::messages::delete_topics_request::DeleteTopicState;
use proto::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use proto::messages::metadata_request::MetadataRequestTopic;
use proto::messages::offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use proto::messages::{
    ApiKey, CreateTopicsRequest, DeleteTopicsRequest, ListOffsetsRequest, MetadataRequest, OffsetForLeaderEpochRequest,
};
use uuid::Uuid;

fn named(topics: &[&str]) -> Option<Vec<MetadataRequestTopic>> {
    let asked = |name: &&str| MetadataRequestTopic { name: Some((*name).to_owned()), ..Default::default() };
    Some(topics.iter().map(asked).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metadata_describes_topics_in_every_version() {
    let world = World::start().await;
    let topic = world.topic(2, &[]).await;
    let id = world.id(&topic).await;
    let mut client = world.client().await;
    for version in versions(ApiKey::Metadata) {
        // Named twice, said once: an answer is no larger than what there is.
        let request = MetadataRequest {
            topics: named(&[&topic, "no/such topic", "missing", &topic]),
            allow_auto_topic_creation: version < 4,
            include_topic_authorized_operations: (8..).contains(&version),
            ..Default::default()
        };
        // Versions that cannot say no make topics of what they name.
        let request =
            if version < 4 { MetadataRequest { topics: named(&[&topic, &topic]), ..request } } else { request };
        let answer = client.call(version, &request).await;
        let mine: Vec<_> = answer.topics.iter().filter(|one| one.name.as_deref() == Some(&topic)).collect();
        assert_eq!(mine.len(), 1, "version {version}");
        assert_eq!((code(mine[0].error_code), mine[0].partitions.len()), (ErrorCode::None, 2), "version {version}");
        assert_eq!(mine[0].topic_id, if version >= 10 { id } else { Uuid::nil() });
        if version >= 4 {
            let of = |name: &str| answer.topics.iter().find(|one| one.name.as_deref() == Some(name)).expect("said");
            assert_eq!(code(of("no/such topic").error_code), ErrorCode::InvalidTopicException);
            assert_eq!(code(of("missing").error_code), ErrorCode::UnknownTopicOrPartition);
        }
        let all = MetadataRequest { topics: if version > 0 { None } else { Some(vec![]) }, ..Default::default() };
        let answer = client.call(version, &all).await;
        assert!(answer.topics.iter().any(|one| one.name.as_deref() == Some(&topic)), "version {version}");
    }
    let by_id = |topic_id| MetadataRequest {
        topics: Some(vec![MetadataRequestTopic { topic_id, name: None }]),
        allow_auto_topic_creation: false,
        ..Default::default()
    };
    for version in 12..=13 {
        let answer = client.call(version, &by_id(id)).await;
        assert_eq!(answer.topics[0].name.as_deref(), Some(&*topic));
        let answer = client.call(version, &by_id(Uuid::from_u128(5))).await;
        assert_eq!((code(answer.topics[0].error_code), &answer.topics[0].name), (ErrorCode::UnknownTopicId, &None));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offsets_are_listed_in_every_version() {
    let world = World::start().await;
    let topic = world.topic(1, &[]).await;
    let mut client = world.client().await;
    client.produced(&topic, 0, batch(&[b"a", b"b", b"c"])).await;
    let ask = |timestamps: &[i64]| ListOffsetsRequest {
        replica_id: -1,
        topics: vec![ListOffsetsTopic {
            name: topic.clone(),
            partitions: timestamps
                .iter()
                .map(|timestamp| ListOffsetsPartition { timestamp: *timestamp, ..Default::default() })
                .collect(),
        }],
        ..Default::default()
    };
    for version in versions(ApiKey::ListOffsets) {
        for (timestamp, since, offset, said) in [
            (-1, 1, 3, -1),
            (-2, 1, 0, -1),
            (-3, 7, 2, t0() + 2),
            (-4, 8, 0, -1),
            (-5, 9, -1, -1),
            (t0() + 1, 1, 1, t0() + 1),
            (0, 1, 0, t0()),
            (t0() + 3, 1, -1, -1),
            (-6, 11, 0, 0),
        ] {
            let answer = client.call(version, &ask(&[timestamp])).await;
            let found = &answer.topics[0].partitions[0];
            if version < since {
                assert_eq!(code(found.error_code), ErrorCode::UnsupportedVersion, "{timestamp} in version {version}");
                continue;
            }
            assert_eq!(code(found.error_code), ErrorCode::None, "{timestamp} in version {version}");
            assert_eq!((found.offset, found.timestamp), (offset, said), "{timestamp} in version {version}");
            if version >= 4 && offset >= 0 {
                assert_eq!(found.leader_epoch, 0, "{timestamp} in version {version}");
            }
        }
        let twice = client.call(version, &ask(&[-1, -2])).await;
        assert!(twice.topics[0].partitions.iter().all(|one| code(one.error_code) == ErrorCode::InvalidRequest));
    }
    for version in versions(ApiKey::OffsetForLeaderEpoch) {
        for (epoch, expected) in [(0, (0, 3)), (7, (-1, -1))] {
            let partitions = vec![OffsetForLeaderPartition { leader_epoch: epoch, ..Default::default() }];
            let topics = vec![OffsetForLeaderTopic { topic: topic.clone(), partitions }];
            let request = OffsetForLeaderEpochRequest { replica_id: -1, topics };
            let answer = client.call(version, &request).await;
            let found = &answer.topics[0].partitions[0];
            assert_eq!((found.leader_epoch, found.end_offset), expected, "version {version}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_come_and_go_in_every_version() {
    let world = World::start().await;
    let mut client = world.client().await;
    let taken = world.topic(1, &[]).await;
    for version in versions(ApiKey::CreateTopics) {
        let (good, twice, bad) = (unique("good"), unique("twice"), unique("bad"));
        let topics = vec![
            creatable(&good, if version < 4 { 1 } else { -1 }, &[("retention.ms", "1000")]),
            creatable(&twice, 1, &[]),
            creatable(&twice, 1, &[]),
            creatable(&bad, 1, &[("no.such.config", "1")]),
            creatable("no/such", 1, &[]),
            creatable(&taken, 1, &[]),
            creatable(&unique("none"), 0, &[]),
        ];
        let mut request = CreateTopicsRequest { topics, timeout_ms: 30_000, validate_only: true };
        if version < 4 {
            request.topics.iter_mut().for_each(|topic| topic.replication_factor = 1);
        }
        for validate_only in [true, false] {
            request.validate_only = validate_only;
            let answer = client.call(version, &request).await;
            let of = |name: &str| {
                let said: Vec<_> = answer.topics.iter().filter(|one| one.name == name).collect();
                assert_eq!(said.len(), 1, "{name} in version {version}");
                code(said[0].error_code)
            };
            assert_eq!(of(&good), ErrorCode::None, "version {version}");
            assert_eq!(of(&twice), ErrorCode::InvalidRequest, "version {version}");
            assert_eq!(of(&bad), ErrorCode::InvalidConfig, "version {version}");
            assert_eq!(of("no/such"), ErrorCode::InvalidTopicException, "version {version}");
            assert_eq!(of(&taken), ErrorCode::TopicAlreadyExists, "version {version}");
            assert!(answer.topics.iter().any(|one| code(one.error_code) == ErrorCode::InvalidPartitions));
        }
        let (dotted, scored) = (good.replace("good", "a.b"), good.replace("good", "a_b"));
        assert_eq!(client.call(CREATE, &create(&dotted, 1, &[])).await.topics[0].error_code, 0);
        let answer = client.call(CREATE, &create(&scored, 1, &[])).await;
        assert_eq!(code(answer.topics[0].error_code), ErrorCode::InvalidTopicException, "names that collide");
    }
    for version in versions(ApiKey::DeleteTopics) {
        let topic = world.topic(1, &[]).await;
        let id = world.id(&topic).await;
        let delete = |names: &[&str], id: Option<Uuid>| {
            if version < 6 {
                let topic_names = names.iter().map(|name| (*name).to_owned()).collect();
                return DeleteTopicsRequest { topic_names, timeout_ms: 30_000, ..Default::default() };
            }
            let by_name = names.iter().map(|name| (Some((*name).to_owned()), Uuid::nil()));
            let topics = by_name.chain(id.map(|id| (None, id)));
            let topics = topics.map(|(name, topic_id)| DeleteTopicState { name, topic_id }).collect();
            DeleteTopicsRequest { topics, timeout_ms: 30_000, ..Default::default() }
        };
        let answer = client.call(version, &delete(&[&topic, &topic, "missing"], None)).await;
        let codes: Vec<_> = answer.responses.iter().map(|one| (one.name.clone(), code(one.error_code))).collect();
        assert!(codes.contains(&(Some(topic.clone()), ErrorCode::InvalidRequest)), "named twice: {codes:?}");
        assert!(codes.contains(&(Some("missing".to_owned()), ErrorCode::UnknownTopicOrPartition)), "{codes:?}");
        let alone = [&*topic];
        let answer = client.call(version, &delete(if version < 6 { &alone } else { &[] }, Some(id))).await;
        let said = &answer.responses[0];
        assert_eq!((said.name.as_deref(), code(said.error_code)), (Some(&*topic), ErrorCode::None));
        if version >= 6 {
            let answer = client.call(version, &delete(&[], Some(Uuid::from_u128(3)))).await;
            assert_eq!(code(answer.responses[0].error_code), ErrorCode::UnknownTopicId);
        }
    }
}
