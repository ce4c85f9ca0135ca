//! What administrators ask for: the cluster, its topics, their partitions, records and directories.

use crate::client::{Client, code, versions};
use crate::world::{CREATE, World, batch, create, fetch, produce, unique};
use proto::errors::ErrorCode;
use proto::messages::create_partitions_request::{CreatePartitionsAssignment, CreatePartitionsTopic};
use proto::messages::create_topics_request::CreatableReplicaAssignment;
use proto::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use proto::messages::delete_topics_request::DeleteTopicState;
use proto::messages::describe_log_dirs_request::DescribableLogDirTopic;
use proto::messages::describe_topic_partitions_request::{Cursor, TopicRequest};
use proto::messages::metadata_request::MetadataRequestTopic;
use proto::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use proto::messages::*;
use uuid::Uuid;

/// The topic that groups are written down in.
const OFFSETS: &str = "__consumer_offsets";

/// Makes [`OFFSETS`], as the first consumer that looks for its coordinator does.
async fn with_groups(world: &World) {
    let find = FindCoordinatorRequest { coordinator_keys: vec![unique("group")], ..Default::default() };
    let mut client = world.client().await;
    for _ in 0..500 {
        if client.call(4, &find).await.coordinators[0].error_code == 0 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("no coordinator");
}

fn grow(topic: &str, count: i32, assignments: Option<&[&[i32]]>) -> CreatePartitionsRequest {
    let assignments = assignments.map(|all| {
        let one = |brokers: &&[i32]| CreatePartitionsAssignment { broker_ids: brokers.to_vec() };
        all.iter().map(one).collect()
    });
    CreatePartitionsRequest {
        topics: vec![CreatePartitionsTopic { name: topic.to_owned(), count, assignments }],
        timeout_ms: 30_000,
        validate_only: false,
    }
}

fn delete_records(topic: &str, wanted: &[(i32, i64)]) -> DeleteRecordsRequest {
    let one = |(partition_index, offset): &(i32, i64)| DeleteRecordsPartition {
        partition_index: *partition_index,
        offset: *offset,
    };
    let topics = vec![DeleteRecordsTopic { name: topic.to_owned(), partitions: wanted.iter().map(one).collect() }];
    DeleteRecordsRequest { topics, timeout_ms: 30_000 }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_are_added_in_every_version() {
    let world = World::start().await;
    let mut client = world.client().await;
    let broker = client.call(12, &MetadataRequest::default()).await.brokers[0].node_id;
    for version in versions(ApiKey::CreatePartitions) {
        let topic = world.topic(2, &[]).await;
        client.produced(&topic, 1, batch(&[b"stays"])).await;
        for (count, assignments, expected) in [
            (2, None, ErrorCode::InvalidPartitions),
            (1, None, ErrorCode::InvalidPartitions),
            (3, Some(&[&[broker][..], &[broker]][..]), ErrorCode::InvalidReplicaAssignment),
            (3, Some(&[&[broker + 1000][..]][..]), ErrorCode::InvalidReplicaAssignment),
            (3, Some(&[&[broker, broker][..]][..]), ErrorCode::InvalidReplicaAssignment),
        ] {
            let answer = client.call(version, &grow(&topic, count, assignments)).await;
            assert_eq!(code(answer.results[0].error_code), expected, "{count} {assignments:?} in version {version}");
        }
        let missing = client.call(version, &grow(&unique("missing"), 3, None)).await;
        assert_eq!(code(missing.results[0].error_code), ErrorCode::UnknownTopicOrPartition);
        let mut twice = grow(&topic, 3, None);
        twice.topics.push(twice.topics[0].clone());
        let answer = client.call(version, &twice).await;
        assert!(answer.results.iter().all(|one| code(one.error_code) == ErrorCode::InvalidRequest), "{answer:?}");

        let checked = CreatePartitionsRequest { validate_only: true, ..grow(&topic, 4, None) };
        assert_eq!(code(client.call(version, &checked).await.results[0].error_code), ErrorCode::None);
        assert_eq!(world.partitions(&topic).await, 2, "validated, not done");
        let answer = client.call(version, &grow(&topic, 4, Some(&[&[broker], &[broker]]))).await;
        assert_eq!(code(answer.results[0].error_code), ErrorCode::None, "{answer:?}");
        world.has_partitions(&topic, 4).await;
        client.produced(&topic, 3, batch(&[b"new"])).await;
        assert_eq!(client.values(&topic, 3, 0).await, [b"new"]);
        assert_eq!(client.values(&topic, 1, 0).await, [b"stays"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_are_where_they_are_assigned() {
    let world = World::start().await;
    let mut client = world.client().await;
    let broker = client.call(12, &MetadataRequest::default()).await.brokers[0].node_id;
    let assigned = |partitions: &[(i32, &[i32])], count: i32, factor: i16| {
        let name = unique("assigned");
        let mut request = create(&name, count, &[]);
        request.topics[0].replication_factor = factor;
        let one = |(partition_index, brokers): &(i32, &[i32])| CreatableReplicaAssignment {
            partition_index: *partition_index,
            broker_ids: brokers.to_vec(),
        };
        request.topics[0].assignments = partitions.iter().map(one).collect();
        request
    };
    let here: &[i32] = &[broker];
    for (request, expected) in [
        (assigned(&[(0, here), (1, here)], -1, -1), ErrorCode::None),
        (assigned(&[(0, here)], 1, -1), ErrorCode::InvalidRequest),
        (assigned(&[(0, here)], -1, 1), ErrorCode::InvalidRequest),
        (assigned(&[(1, here)], -1, -1), ErrorCode::InvalidReplicaAssignment),
        (assigned(&[(0, here), (0, here)], -1, -1), ErrorCode::InvalidReplicaAssignment),
        (assigned(&[(0, &[broker, broker])], -1, -1), ErrorCode::InvalidReplicaAssignment),
        (assigned(&[(0, &[broker + 1000])], -1, -1), ErrorCode::InvalidReplicaAssignment),
        (assigned(&[(0, &[])], -1, -1), ErrorCode::InvalidReplicaAssignment),
        (assigned(&[], 1, 2), ErrorCode::InvalidReplicationFactor),
    ] {
        let answer = client.call(CREATE, &request).await;
        assert_eq!(code(answer.topics[0].error_code), expected, "{request:?}");
        if expected == ErrorCode::None {
            assert_eq!((answer.topics[0].num_partitions, answer.topics[0].replication_factor), (2, 1));
            world.has_partitions(&request.topics[0].name, 2).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_are_deleted_in_every_version() {
    let world = World::start().await;
    let mut client = world.client().await;
    for version in versions(ApiKey::DeleteRecords) {
        let topic = world.topic(3, &[]).await;
        for partition in 0..3 {
            client.produced(&topic, partition, batch(&[b"a", b"b", b"c", b"d"])).await;
        }
        let said = client.call(version, &delete_records(&topic, &[(0, 2), (1, -1), (2, 5), (3, 0)])).await;
        let mut said: Vec<_> = said.topics[0]
            .partitions
            .iter()
            .map(|one| (one.partition_index, code(one.error_code), one.low_watermark))
            .collect();
        said.sort_unstable_by_key(|one| one.0);
        let expected = [
            (0, ErrorCode::None, 2),
            (1, ErrorCode::None, 4),
            (2, ErrorCode::OffsetOutOfRange, -1),
            (3, ErrorCode::UnknownTopicOrPartition, -1),
        ];
        assert_eq!(said, expected, "version {version}");
        let lower = client.call(version, &delete_records(&topic, &[(0, 1)])).await;
        let lower = &lower.topics[0].partitions[0];
        assert_eq!((code(lower.error_code), lower.low_watermark), (ErrorCode::None, 2), "what is gone stays gone");
        assert_eq!(client.values(&topic, 0, 2).await, [b"c", b"d"]);
        assert_eq!(code(client.fetch(&topic, 0, 1).await.error_code), ErrorCode::OffsetOutOfRange);
        let at = client.fetched(&fetch(&topic, &[(1, 4)])).await;
        assert_eq!((at[0].log_start_offset, at[0].high_watermark), (4, 4));
    }
    let compacted = world.topic(1, &[("cleanup.policy", "compact")]).await;
    let said = client.call(2, &delete_records(&compacted, &[(0, 0)])).await;
    assert_eq!(code(said.topics[0].partitions[0].error_code), ErrorCode::PolicyViolation);
    with_groups(&world).await;
    let said = client.call(2, &delete_records(OFFSETS, &[(0, 0)])).await;
    assert_eq!(code(said.topics[0].partitions[0].error_code), ErrorCode::InvalidTopicException);
}

/// Not as in Kafka, which lets go of the groups with the topic: whoever deletes or grows it by mistake loses every committed
/// offset.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_topic_of_groups_is_neither_deleted_nor_grown() {
    let Some(world) = World::firn(&[]).await else { return };
    with_groups(&world).await;
    let mut client = world.client().await;
    let id = world.id(OFFSETS).await;
    for (name, topic_id) in [(Some(OFFSETS.to_owned()), Uuid::nil()), (None, id)] {
        let request = DeleteTopicsRequest {
            topics: vec![DeleteTopicState { name: name.clone(), topic_id }],
            timeout_ms: 30_000,
            ..Default::default()
        };
        let said = client.call(6, &request).await;
        assert_eq!(code(said.responses[0].error_code), ErrorCode::InvalidTopicException, "{name:?} {topic_id}");
    }
    assert_eq!(world.id(OFFSETS).await, id);
    let said = client.call(3, &grow(OFFSETS, 60, None)).await;
    assert_eq!(code(said.results[0].error_code), ErrorCode::InvalidTopicException);
    assert_eq!(world.partitions(OFFSETS).await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cluster_is_described_in_every_version() {
    let world = World::start().await;
    let mut client = world.client().await;
    let metadata =
        MetadataRequest { include_cluster_authorized_operations: true, topics: Some(vec![]), ..Default::default() };
    let known = client.call(9, &metadata).await;
    for version in versions(ApiKey::DescribeCluster) {
        let request = DescribeClusterRequest {
            include_cluster_authorized_operations: true,
            endpoint_type: 1,
            include_fenced_brokers: version >= 2,
        };
        let said = client.call(version, &request).await;
        assert_eq!(code(said.error_code), ErrorCode::None);
        assert_eq!(Some(&said.cluster_id), known.cluster_id.as_ref());
        let brokers: Vec<_> = said.brokers.iter().map(|one| (one.broker_id, one.host.clone(), one.port)).collect();
        let named: Vec<_> = known.brokers.iter().map(|one| (one.node_id, one.host.clone(), one.port)).collect();
        assert_eq!((brokers, said.brokers[0].is_fenced), (named, false));
        // CREATE, ALTER, DESCRIBE, CLUSTER_ACTION, DESCRIBE_CONFIGS, ALTER_CONFIGS, IDEMPOTENT_WRITE
        let operations = [5, 7, 8, 9, 10, 11, 12].iter().map(|bit| 1 << bit).sum::<i32>();
        assert_eq!(said.cluster_authorized_operations, operations);
        assert_eq!(known.cluster_authorized_operations, operations);
        let quiet = DescribeClusterRequest { include_cluster_authorized_operations: false, ..request.clone() };
        assert_eq!(client.call(version, &quiet).await.cluster_authorized_operations, i32::MIN);
        if version >= 1 {
            let controllers = DescribeClusterRequest { endpoint_type: 2, ..request };
            let said = client.call(version, &controllers).await;
            assert_eq!(code(said.error_code), ErrorCode::MismatchedEndpointType);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_say_what_may_be_done_to_them() {
    let world = World::start().await;
    with_groups(&world).await;
    let mut client = world.client().await;
    let topic = world.topic(1, &[]).await;
    let (group, none) = (unique("group"), unique("no-group"));
    let commit = OffsetCommitRequest {
        group_id: group.clone(),
        generation_id_or_member_epoch: -1,
        topics: vec![OffsetCommitRequestTopic {
            name: topic,
            partitions: vec![OffsetCommitRequestPartition { committed_offset: 1, ..Default::default() }],
            ..Default::default()
        }],
        ..Default::default()
    };
    let committed = async |client: &mut Client| client.call(8, &commit).await.topics[0].partitions[0].error_code;
    let loaded = async {
        while committed(&mut client).await != 0 {
            // The coordinator is loading.
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), loaded).await.expect("loads");
    for version in 3..=*versions(ApiKey::DescribeGroups).end() {
        let asked = [&group, &none].map(String::clone).to_vec();
        let request = DescribeGroupsRequest { groups: asked, include_authorized_operations: true };
        let said = client.call(version, &request).await;
        // READ, DELETE, DESCRIBE, DESCRIBE_CONFIGS, ALTER_CONFIGS
        let operations = [3, 6, 8, 10, 11].iter().map(|bit| 1 << bit).sum::<i32>();
        let of = |group: &str| {
            let found = said.groups.iter().find(|one| one.group_id == group).expect("said");
            (found.group_state.as_str(), found.authorized_operations)
        };
        assert_eq!(of(&group), ("Empty", operations), "version {version}");
        // Before version 6 a group that does not exist is no error.
        let of_none = if version < 6 { operations } else { i32::MIN };
        assert_eq!(of(&none), ("Dead", of_none), "version {version}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn directories_are_described_in_every_version() {
    let world = World::start().await;
    let mut client = world.client().await;
    let topic = world.topic(3, &[]).await;
    client.produced(&topic, 1, batch(&[b"some bytes"])).await;
    for version in versions(ApiKey::DescribeLogDirs) {
        let asked =
            |partitions: &[i32]| DescribableLogDirTopic { topic: topic.clone(), partitions: partitions.to_vec() };
        let mut of = async |topics: Option<Vec<DescribableLogDirTopic>>| {
            let said = client.call(version, &DescribeLogDirsRequest { topics }).await;
            assert!(!said.results.is_empty());
            if version >= 4 {
                assert!(said.results.iter().all(|dir| dir.total_bytes > 0 && dir.usable_bytes > 0));
            }
            let found = said.results.into_iter().flat_map(|dir| dir.topics).filter(|found| found.name == topic);
            let mut sizes: Vec<_> = found
                .flat_map(|found| found.partitions)
                .map(|one| (one.partition_index, one.partition_size > 0, one.offset_lag, one.is_future_key))
                .collect();
            sizes.sort_unstable();
            sizes
        };
        let (zero, one, two) = ((0, false, 0, false), (1, true, 0, false), (2, false, 0, false));
        assert_eq!(of(None).await, [zero, one, two], "version {version}");
        assert_eq!(of(Some(vec![asked(&[1])])).await, [one]);
        assert_eq!(of(Some(vec![asked(&[1, 1]), asked(&[2, 7])])).await, [one, two], "named in two places");
        assert_eq!(of(Some(vec![])).await, []);
    }
}

fn page(topics: &[&str], limit: i32, cursor: Option<(&str, i32)>) -> DescribeTopicPartitionsRequest {
    DescribeTopicPartitionsRequest {
        topics: topics.iter().map(|name| TopicRequest { name: (*name).to_owned() }).collect(),
        response_partition_limit: limit,
        cursor: cursor.map(|(name, partition_index)| Cursor { topic_name: name.to_owned(), partition_index }),
    }
}

/// Topics with their partitions, and where the next page begins.
type Page = (Vec<(String, ErrorCode, Vec<i32>)>, Option<(String, i32)>);

fn read_page(said: DescribeTopicPartitionsResponse) -> Page {
    let topics = said.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|one| one.partition_index).collect();
        (topic.name.unwrap_or_default(), code(topic.error_code), partitions)
    });
    (topics.collect(), said.next_cursor.map(|next| (next.topic_name, next.partition_index)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_are_described_page_by_page() {
    let world = World::start().await;
    let mut client = world.client().await;
    let mut topics = [world.topic(2, &[]).await, world.topic(2, &[]).await, world.topic(1, &[]).await];
    topics.sort();
    let counts = [world.partitions(&topics[0]).await, world.partitions(&topics[1]).await];
    let [a, b, c] = topics.each_ref().map(String::as_str);
    let whole = |name: &str, partitions: &[i32]| (name.to_owned(), ErrorCode::None, partitions.to_vec());
    let all = |count: usize| (0..i32::try_from(count).expect("few")).collect::<Vec<_>>();
    let none = |name: &str, why| (name.to_owned(), why, vec![]);
    let next = |name: &str, partition: i32| Some((name.to_owned(), partition));

    // Only c and a are asked for, so b is never the next: not even when a page ends with a.
    let limit = i32::try_from(counts[0]).expect("few");
    let said = read_page(client.call(0, &page(&[c, a, a], limit, None)).await);
    assert_eq!(said, (vec![whole(a, &all(counts[0]))], next(c, 0)));
    let said = read_page(client.call(0, &page(&[a], limit, None)).await);
    assert_eq!(said, (vec![whole(a, &all(counts[0]))], None), "nothing else was asked for");
    let said = read_page(client.call(0, &page(&[a, b], 1, Some((b, 0)))).await);
    let rest = (counts[1] > 1).then(|| (b.to_owned(), 1));
    assert_eq!(said, (vec![whole(b, &[0])], rest));

    // What does not exist counts for nothing, and may be what the next page begins with.
    let (missing, illegal) = (format!("{a}-missing"), format!("{a}-no/such"));
    let said = read_page(client.call(0, &page(&[a, &missing, &illegal], limit, None)).await);
    assert_eq!(said, (vec![whole(a, &all(counts[0]))], next(&missing, 0)));
    let said = read_page(client.call(0, &page(&[a, &missing], limit, Some((&missing, 0)))).await);
    assert_eq!(said, (vec![none(&missing, ErrorCode::UnknownTopicOrPartition)], None));
    let said = read_page(client.call(0, &page(&[&illegal], 10, None)).await);
    assert_eq!(said, (vec![none(&illegal, ErrorCode::InvalidTopicException)], None));

    let said = read_page(client.call(0, &page(&[a], 10, Some((b, 0)))).await);
    assert_eq!(said, (vec![none(a, ErrorCode::InvalidRequest)], None), "the cursor is not among the topics");
    let said = read_page(client.call(0, &page(&[a], 10, Some((a, -1)))).await);
    assert_eq!(said, (vec![none(a, ErrorCode::InvalidRequest)], None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_topics_are_described_page_by_page() {
    let world = World::start().await;
    let mut client = world.client().await;
    for _ in 0..3 {
        world.topic(2, &[]).await;
    }
    let listed = client.call(12, &MetadataRequest { topics: None, ..Default::default() }).await;
    let mut expected: Vec<_> =
        listed.topics.iter().map(|topic| (topic.name.clone().unwrap_or_default(), topic.partitions.len())).collect();
    expected.sort();
    for limit in [1, 2, 3, 1000] {
        let (mut seen, mut cursor) = (Vec::<(String, usize)>::new(), None::<(String, i32)>);
        loop {
            let at = cursor.as_ref().map(|(name, partition)| (name.as_str(), *partition));
            let (topics, next) = read_page(client.call(0, &page(&[], limit, at)).await);
            for (name, why, partitions) in topics {
                assert_eq!(why, ErrorCode::None);
                match seen.last_mut() {
                    Some(last) if last.0 == name => last.1 += partitions.len(),
                    _ => seen.push((name, partitions.len())),
                }
            }
            match next {
                Some(next) => cursor = Some(next),
                None => break,
            }
        }
        if world.is_firn() {
            assert_eq!(seen, expected, "{limit} at a time");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_do_not_come_by_themselves_where_that_is_off() {
    let Some(world) = World::firn(&[("auto.create.topics.enable", "false")]).await else { return };
    let mut client = world.client().await;
    let name = unique("auto");
    let asked = MetadataRequestTopic { name: Some(name.clone()), ..Default::default() };
    let request = MetadataRequest { topics: Some(vec![asked]), allow_auto_topic_creation: true, ..Default::default() };
    for version in versions(ApiKey::Metadata) {
        let said = client.call(version, &request).await;
        assert_eq!(code(said.topics[0].error_code), ErrorCode::UnknownTopicOrPartition, "version {version}");
    }
    let said = client.produce(&name, 0, batch(&[b"x"])).await;
    assert_eq!(code(said.error_code), ErrorCode::UnknownTopicOrPartition);
    with_groups(&world).await;
}

/// Which topics Firn makes for itself, and how, is for Firn to say, not for whoever names them first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn internal_topics_come_with_their_own_settings() {
    let settings = [
        ("transaction.state.log.num.partitions", "3"),
        ("transaction.state.log.segment.bytes", "2097152"),
        ("share.coordinator.state.topic.num.partitions", "4"),
    ];
    let Some(world) = World::firn(&settings).await else { return };
    let mut client = world.client().await;
    let names = [(OFFSETS, 2, "compact"), ("__transaction_state", 3, "compact"), ("__share_group_state", 4, "delete")];
    for (name, partitions, policy) in names {
        let asked = MetadataRequestTopic { name: Some(name.to_owned()), ..Default::default() };
        let request =
            MetadataRequest { topics: Some(vec![asked]), allow_auto_topic_creation: true, ..Default::default() };
        client.call(12, &request).await;
        assert_eq!(world.partitions(name).await, partitions, "{name}");
        assert_eq!(world.config(name, "cleanup.policy").await, policy, "{name}");
        assert_eq!(world.config(name, "remote.storage.enable").await, "false", "{name}");
    }
    assert_eq!(world.config("__transaction_state", "segment.bytes").await, "2097152");
    assert_eq!(world.config("__transaction_state", "compression.type").await, "uncompressed");
    assert_eq!(world.config("__share_group_state", "retention.ms").await, "-1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_acknowledges_whatever_the_timeout() {
    let world = World::start().await;
    let topic = world.topic(1, &[]).await;
    let mut client = world.client().await;
    for version in versions(ApiKey::Produce).filter(|version| *version < 13) {
        let request = ProduceRequest { timeout_ms: 0, ..produce(&topic, 1, &[(0, batch(&[b"x"]))]) };
        let said = client.call(version, &request).await;
        let said = &said.responses[0].partition_responses[0];
        assert_eq!((code(said.error_code), said.base_offset >= 0), (ErrorCode::None, true), "version {version}");
    }
}
