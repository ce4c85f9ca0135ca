//! Frames, headers, versions, order.

use crate::client::{CLIENT_ID, Client, code, frame, versions};
use crate::world::{World, batch, produce};
use broker::api::SPOKEN;
use proto::errors::ErrorCode;
use proto::messages::api_table::Request;
use proto::messages::*;
use proto::wire::Decoder;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_api_answers_in_every_version_it_advertises() {
    let world = World::start().await;
    let mut client = world.client().await;

    /// The default request in each version that is advertised. What it says does not matter: the answer must have the right
    /// header, be readable in that version to its last byte, and leave the connection usable.
    async fn probe<R: Request + Default>(client: &mut Client, probed: &mut Vec<ApiKey>) {
        for version in versions(R::KEY) {
            client.call(version, &R::default()).await;
        }
        probed.push(R::KEY);
    }
    let mut probed = Vec::new();
    macro_rules! probe {
        ($($request:ty),* $(,)?) => { $(probe::<$request>(&mut client, &mut probed).await;)* };
    }
    probe!(
        FetchRequest,
        ListOffsetsRequest,
        MetadataRequest,
        OffsetCommitRequest,
        OffsetFetchRequest,
        FindCoordinatorRequest,
        JoinGroupRequest,
        HeartbeatRequest,
        LeaveGroupRequest,
        SyncGroupRequest,
        DescribeGroupsRequest,
        ListGroupsRequest,
        ApiVersionsRequest,
        CreateTopicsRequest,
        DeleteTopicsRequest,
        DeleteRecordsRequest,
        InitProducerIdRequest,
        OffsetForLeaderEpochRequest,
        DescribeConfigsRequest,
        AlterConfigsRequest,
        DescribeLogDirsRequest,
        CreatePartitionsRequest,
        DeleteGroupsRequest,
        IncrementalAlterConfigsRequest,
        OffsetDeleteRequest,
        DescribeClusterRequest,
        DescribeTopicPartitionsRequest,
        DescribeProducersRequest,
        ElectLeadersRequest,
        AlterPartitionReassignmentsRequest,
        ListPartitionReassignmentsRequest,
        UpdateFeaturesRequest,
        DescribeQuorumRequest,
        AddRaftVoterRequest,
        RemoveRaftVoterRequest,
        UnregisterBrokerRequest,
        AlterReplicaLogDirsRequest,
    );
    for version in versions(ApiKey::Produce) {
        client.call(version, &ProduceRequest { acks: -1, ..Default::default() }).await;
    }
    probed.push(ApiKey::Produce);
    for (key, _) in SPOKEN {
        assert!(probed.contains(key), "{} is advertised and was not asked", key.name());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_advertised_is_what_is_spoken() {
    let Some(world) = World::firn(&[]).await else { return };
    let mut client = world.client().await;
    for version in versions(ApiKey::ApiVersions) {
        let hello = ApiVersionsRequest {
            client_software_name: "front-test".to_owned(),
            client_software_version: "1.0".to_owned(),
        };
        let answer = client.call(version, &hello).await;
        assert_eq!(code(answer.error_code), ErrorCode::None);
        let said: Vec<_> = answer.api_keys.iter().map(|api| (api.api_key, api.min_version, api.max_version)).collect();
        let spoken: Vec<_> = SPOKEN
            .iter()
            .map(|(key, range)| (key.code(), if *key == ApiKey::Produce { 0 } else { range.min }, range.max))
            .collect();
        assert_eq!(said, spoken);
    }
}

/// librdkafka before 2.3 compresses nothing for a broker that does not say that it knows Produce version 0.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn produce_is_advertised_from_zero_and_served_from_three() {
    let world = World::start().await;
    let mut client = world.client().await;
    let answer = client.call(0, &ApiVersionsRequest::default()).await;
    let produce = answer.api_keys.iter().find(|api| api.api_key == ApiKey::Produce.code()).expect("advertised");
    assert_eq!((produce.min_version, produce.max_version), (0, 13));
    for version in 0..3 {
        let mut client = world.client().await;
        // acks=1, a timeout of a second, no topics
        let mut request = Vec::from(18_i32.to_be_bytes());
        request.extend(ApiKey::Produce.code().to_be_bytes());
        request.extend(i16::to_be_bytes(version));
        request.extend(5_i32.to_be_bytes());
        request.extend((-1_i16).to_be_bytes());
        request.extend(1_i16.to_be_bytes());
        request.extend(1000_i32.to_be_bytes());
        request.extend(0_i32.to_be_bytes());
        let length = i32::try_from(request.len() - 4).expect("short");
        request[..4].copy_from_slice(&length.to_be_bytes());
        client.write(&request).await;
        client.expect_closed().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn api_versions_checks_what_the_client_calls_itself() {
    let world = World::start().await;
    let mut client = world.client().await;
    for (name, version) in [("", "1"), ("a b", "1"), ("-a", "1"), ("a", ""), ("a", "1/2")] {
        let hello =
            ApiVersionsRequest { client_software_name: name.to_owned(), client_software_version: version.to_owned() };
        assert_eq!(code(client.call(3, &hello).await.error_code), ErrorCode::InvalidRequest, "{name:?} {version:?}");
    }
    // Before version 3 nobody said.
    assert_eq!(code(client.call(2, &ApiVersionsRequest::default()).await.error_code), ErrorCode::None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_is_too_new_learns_what_is_spoken() {
    let world = World::start().await;
    let mut client = world.client().await;
    for version in [5i16, 99, i16::MAX, -1] {
        // The body of a version nobody knows may be anything.
        let mut request = Vec::new();
        request.extend(ApiKey::ApiVersions.code().to_be_bytes());
        request.extend(version.to_be_bytes());
        request.extend(77i32.to_be_bytes());
        request.extend(i16::try_from(CLIENT_ID.len()).expect("short").to_be_bytes());
        request.extend(CLIENT_ID.as_bytes());
        request.extend(b"\0something new");
        let length = i32::try_from(request.len()).expect("short");
        client.write(&length.to_be_bytes()).await;
        client.write(&request).await;
        let mut body = Decoder::new(client.read_frame().await.expect("an answer"));
        assert_eq!(body.i32(), Ok(77), "the header is of version 0: a correlation id");
        let answer = ApiVersionsResponse::decode(&mut body, 0).expect("the answer is of version 0");
        body.finish().expect("nothing follows");
        assert_eq!(code(answer.error_code), ErrorCode::UnsupportedVersion);
        let known: Vec<_> = answer.api_keys.iter().map(|api| (api.api_key, api.min_version, api.max_version)).collect();
        assert_eq!(known, [(ApiKey::ApiVersions.code(), 0, 4)]);
    }
    // The connection goes on.
    assert_eq!(code(client.call(0, &ApiVersionsRequest::default()).await.error_code), ErrorCode::None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_answered_ends_its_own_connection_only() {
    let world = World::start().await;
    let mut other = world.client().await;
    let header = |key: i16, version: i16| {
        let mut frame = vec![0, 0, 0, 10];
        frame.extend(key.to_be_bytes());
        frame.extend(version.to_be_bytes());
        frame.extend([0, 0, 0, 1, 0xff, 0xff]);
        frame
    };
    let bad: Vec<(&str, Vec<u8>)> = vec![
        ("an unknown API key", header(999, 0)),
        ("a negative API key", header(-1, 0)),
        ("an API that Kafka has removed", header(ApiKey::LeaderAndIsr.code(), 0)),
        ("a version that is too old", header(ApiKey::Produce.code(), 2)),
        ("a version that is too new", header(ApiKey::Metadata.code(), 99)),
        ("an empty frame", vec![0, 0, 0, 0]),
        ("a header that is cut short", vec![0, 0, 0, 3, 0, 3, 0]),
        ("a negative length", vec![0xff, 0xff, 0xff, 0xff]),
        ("a length beyond every limit", vec![0x7f, 0xff, 0xff, 0xff]),
        ("a body that is cut short", header(ApiKey::Metadata.code(), 8)),
        ("an array longer than its frame", {
            let mut frame = vec![0, 0, 0, 14];
            frame.extend(ApiKey::Metadata.code().to_be_bytes());
            frame.extend([0, 1, 0, 0, 0, 1, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff]);
            frame
        }),
    ];
    for (what, bytes) in bad {
        let mut client = world.client().await;
        client.write(&bytes).await;
        assert_eq!(client.read_frame().await, None, "{what} ends the connection");
        assert_eq!(code(other.call(0, &ApiVersionsRequest::default()).await.error_code), ErrorCode::None, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipelined_requests_are_answered_in_order() {
    let world = World::start().await;
    let topic = world.topic(1, &[]).await;
    let mut client = world.client().await;
    // Produce requests wait for the disk, the others do not: all of them in one write.
    let mut bytes = Vec::new();
    for id in 0..40 {
        bytes.extend(match id % 4 {
            0 => frame(9, id, &produce(&topic, -1, &[(0, batch(&[b"x"]))])),
            1 => frame(4, id, &MetadataRequest { topics: Some(vec![]), ..Default::default() }),
            // Nobody answers this one.
            2 => frame(9, id, &produce(&topic, 0, &[(0, batch(&[b"y"]))])),
            _ => frame(0, id, &ApiVersionsRequest::default()),
        });
    }
    client.write(&bytes).await;
    let mut offsets = Vec::new();
    for id in (0..40).filter(|id| id % 4 != 2) {
        match id % 4 {
            0 => {
                let answer = client.receive::<ProduceRequest>(9, id).await;
                offsets.push(answer.responses[0].partition_responses[0].base_offset);
            }
            1 => drop(client.receive::<MetadataRequest>(4, id).await),
            _ => drop(client.receive::<ApiVersionsRequest>(0, id).await),
        }
    }
    assert_eq!(offsets, (0..20).step_by(2).collect::<Vec<i64>>(), "records lie in the order they were sent");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_may_come_byte_by_byte() {
    let world = World::start().await;
    let mut client = world.client().await;
    for byte in frame(
        3,
        5,
        &ApiVersionsRequest { client_software_name: "slow".to_owned(), client_software_version: "1".to_owned() },
    ) {
        client.write(&[byte]).await;
    }
    assert_eq!(code(client.receive::<ApiVersionsRequest>(3, 5).await.error_code), ErrorCode::None);
}
