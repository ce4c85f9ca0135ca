//! Fetch: how long it waits, how much it brings, what it refuses.

use crate::client::{Client, code};
use crate::world::{FETCH, World, batch, fetch, produce, read, size, sized};
use proto::errors::ErrorCode;
use proto::messages::fetch_request::{FetchPartition, FetchTopic};
use proto::messages::{DeleteTopicsRequest, FetchRequest};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Longer than any test may take: an answer that comes did not wait for this.
const FOR_EVER_MS: i32 = 600_000;

/// Sends a fetch and makes sure that it waits.
async fn send_waiting(client: &mut Client, request: &FetchRequest) -> i32 {
    let id = client.send(FETCH, request).await;
    assert!(client.is_silent().await, "nothing to answer yet");
    id
}

async fn sizes(client: &mut Client, id: i32) -> Vec<usize> {
    let answer = client.receive::<FetchRequest>(FETCH, id).await;
    assert!(answer.responses.iter().all(|topic| topic.partitions.iter().all(|one| one.error_code == 0)));
    answer.responses.iter().flat_map(|topic| topic.partitions.iter().map(size)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fetch_of_nothing_waits_as_long_as_it_was_told() {
    let world = World::start().await;
    let topic = world.topic(1, &[]).await;
    let mut client = world.client().await;
    let request = FetchRequest { max_wait_ms: 300, min_bytes: 1, ..fetch(&topic, &[(0, 0)]) };
    let began = Instant::now();
    let found = client.fetched(&request).await;
    assert!(began.elapsed() >= Duration::from_millis(300));
    assert_eq!((code(found[0].error_code), size(&found[0]), found[0].high_watermark), (ErrorCode::None, 0, 0));
    // Too little is answered at the end of the wait, too.
    client.produced(&topic, 0, batch(&[b"x"])).await;
    let request = FetchRequest { max_wait_ms: 300, min_bytes: 100_000, ..fetch(&topic, &[(0, 0)]) };
    let began = Instant::now();
    assert_eq!(read(&client.fetched(&request).await[0]).len(), 1);
    assert!(began.elapsed() >= Duration::from_millis(300));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fetch_returns_as_soon_as_enough_is_there() {
    let world = World::start().await;
    let topic = world.topic(2, &[]).await;
    let (mut reader, mut writer) = (world.client().await, world.client().await);
    let waiting = |min_bytes, from| FetchRequest { max_wait_ms: FOR_EVER_MS, min_bytes, ..fetch(&topic, from) };

    // One byte: the first batch will do.
    let id = send_waiting(&mut reader, &waiting(1, &[(0, 0), (1, 0)])).await;
    writer.produced(&topic, 1, sized(200)).await;
    assert_eq!(sizes(&mut reader, id).await, [0, 200]);

    // Several batches of several partitions count together.
    let id = send_waiting(&mut reader, &waiting(1000, &[(0, 0), (1, 1)])).await;
    for (partition, bytes) in [(0, 300), (1, 300), (0, 399)] {
        writer.produced(&topic, partition, sized(bytes)).await;
    }
    // 999 bytes are not 1000: the answer will hold what comes now.
    writer.produced(&topic, 1, sized(100)).await;
    assert_eq!(sizes(&mut reader, id).await, [699, 400]);

    // What is there already is not waited for.
    let id = reader.send(FETCH, &waiting(1099, &[(0, 0), (1, 1)])).await;
    assert_eq!(sizes(&mut reader, id).await, [699, 400]);
    // Nobody waits for nothing.
    let id = reader.send(FETCH, &waiting(0, &[(0, 2)])).await;
    assert_eq!(sizes(&mut reader, id).await, [0]);
    let nothing = FetchRequest { topics: vec![], ..waiting(1, &[]) };
    assert!(reader.call(FETCH, &nothing).await.responses.is_empty());
    // More than max.bytes is never waited for.
    let id = reader.send(FETCH, &FetchRequest { max_bytes: 250, ..waiting(10_000, &[(0, 0)]) }).await;
    assert_eq!(sizes(&mut reader, id).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_is_answered_at_once() {
    let world = World::start().await;
    let topic = world.topic(2, &[]).await;
    let mut client = world.client().await;
    client.produced(&topic, 0, batch(&[b"a", b"b"])).await;
    for offset in [3, -1, i64::MAX] {
        let from = fetch(&topic, &[(1, 0), (0, offset)]);
        let found = client.fetched(&FetchRequest { max_wait_ms: FOR_EVER_MS, min_bytes: 1, ..from }).await;
        let refused = found.iter().find(|one| one.partition_index == 0).expect("asked for");
        assert_eq!(code(refused.error_code), ErrorCode::OffsetOutOfRange, "offset {offset}");
        assert_eq!((refused.high_watermark, refused.log_start_offset, size(refused)), (-1, -1, 0));
    }
    assert_eq!(code(client.fetch(&topic, 0, 2).await.error_code), ErrorCode::None, "the end is in range");
    // Nothing else is asked for: there is nothing to wait for.
    let from = fetch("no-such-topic", &[(0, 0)]);
    let found = client.fetched(&FetchRequest { max_wait_ms: FOR_EVER_MS, min_bytes: 1, ..from }).await;
    assert_eq!(code(found[0].error_code), ErrorCode::UnknownTopicOrPartition);
    let from = fetch(&topic, &[(9, 0)]);
    let found = client.fetched(&FetchRequest { max_wait_ms: FOR_EVER_MS, min_bytes: 1, ..from }).await;
    assert_eq!(code(found[0].error_code), ErrorCode::UnknownTopicOrPartition);
}

/// A consumer that goes on asking for a topic that is gone, beside others, must not turn its long polls into a busy loop: what does not
/// exist is answered together with the rest.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_exist_does_not_cut_the_wait_short() {
    let world = World::start().await;
    let topic = world.topic(1, &[]).await;
    let id = world.id(&topic).await;
    let mut client = world.client().await;
    let mut by_name = FetchRequest { max_wait_ms: 300, min_bytes: 1, ..fetch(&topic, &[(0, 0), (7, 0)]) };
    by_name.topics.extend(fetch("no-such-topic", &[(0, 0)]).topics);
    let mut by_id = FetchRequest { max_wait_ms: 300, min_bytes: 1, ..fetch("", &[(0, 0), (7, 0)]) };
    by_id.topics[0].topic_id = id;
    by_id.topics.push(FetchTopic {
        topic_id: Uuid::from_u128(9),
        partitions: vec![FetchPartition { partition_max_bytes: 100, ..Default::default() }],
        ..Default::default()
    });
    for (version, request, missing) in
        [(12, by_name, ErrorCode::UnknownTopicOrPartition), (13, by_id, ErrorCode::UnknownTopicId)]
    {
        let began = Instant::now();
        let answer = client.call(version, &request).await;
        assert!(began.elapsed() >= Duration::from_millis(300), "version {version}");
        let mut codes: Vec<_> =
            answer.responses.iter().flat_map(|topic| topic.partitions.iter().map(|one| code(one.error_code))).collect();
        codes.sort_by_key(|code| code.code());
        let mut expected = vec![ErrorCode::None, ErrorCode::UnknownTopicOrPartition, missing];
        expected.sort_by_key(|code| code.code());
        assert_eq!(codes, expected, "version {version}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn max_bytes_holds_but_for_the_first_batch() {
    let Some(world) = World::firn(&[]).await else { return };
    let topic = world.topic(4, &[]).await;
    let mut client = world.client().await;
    // Partition 0 is empty, the others have ten batches of 1000 bytes.
    for partition in 1..4 {
        for _ in 0..10 {
            client.produced(&topic, partition, sized(1000)).await;
        }
    }
    let from = [(0, 0), (1, 0), (2, 0), (3, 0)];
    for (max_bytes, each, expected) in [
        (1_000_000, 1_000_000, [0, 10_000, 10_000, 10_000]),
        (1_000_000, 2_500, [0, 2_000, 2_000, 2_000]),
        (1_000_000, 3_000, [0, 3_000, 3_000, 3_000]),
        (5_500, 3_000, [0, 3_000, 2_000, 0]),
        (5_000, 3_000, [0, 3_000, 2_000, 0]),
        (4_999, 3_000, [0, 3_000, 1_000, 0]),
        (1_000, 1_000_000, [0, 1_000, 0, 0]),
        // The first batch comes whatever its size, and nothing else then.
        (999, 1_000_000, [0, 1_000, 0, 0]),
        (1_000_000, 999, [0, 1_000, 0, 0]),
        (0, 0, [0, 1_000, 0, 0]),
        (-1, -1, [0, 1_000, 0, 0]),
        (i32::MAX, i32::MAX, [0, 10_000, 10_000, 10_000]),
    ] {
        for min_bytes in [0, 1] {
            let mut request = FetchRequest { max_bytes, min_bytes, max_wait_ms: FOR_EVER_MS, ..fetch(&topic, &from) };
            request.topics[0].partitions.iter_mut().for_each(|one| one.partition_max_bytes = each);
            let found: Vec<usize> = client.fetched(&request).await.iter().map(size).collect();
            assert_eq!(found, expected, "max_bytes {max_bytes}, partition_max_bytes {each}, min_bytes {min_bytes}");
        }
    }
    // In the middle of a batch: the whole batch comes.
    let found = client.fetch(&topic, 1, 9).await;
    assert_eq!(read(&found).len(), 1);
}

/// The first batch may pass the limit of its partition; the others have what the whole fetch may bring, and those who wait for more do
/// wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_batch_beyond_the_limit_of_its_partition_takes_nothing_from_the_others() {
    let Some(world) = World::firn(&[]).await else { return };
    let topic = world.topic(2, &[]).await;
    let mut client = world.client().await;
    client.produced(&topic, 0, sized(1_000)).await;
    for _ in 0..3 {
        client.produced(&topic, 1, sized(100)).await;
    }
    let from = |max_bytes, min_bytes, max_wait_ms| {
        let mut request = FetchRequest { max_bytes, min_bytes, max_wait_ms, ..fetch(&topic, &[(0, 0), (1, 0)]) };
        request.topics[0].partitions.iter_mut().for_each(|one| one.partition_max_bytes = 500);
        request
    };
    for (max_bytes, expected) in
        [(1_000_000, [1_000, 300]), (1_250, [1_000, 200]), (1_099, [1_000, 0]), (700, [1_000, 0])]
    {
        let found: Vec<usize> = client.fetched(&from(max_bytes, 1, FOR_EVER_MS)).await.iter().map(size).collect();
        assert_eq!(found, expected, "max_bytes {max_bytes}");
    }
    let mut reader = world.client().await;
    // 1,300 bytes are not 1,400.
    let id = send_waiting(&mut reader, &from(1_000_000, 1_400, FOR_EVER_MS)).await;
    client.produced(&topic, 1, sized(100)).await;
    assert_eq!(sizes(&mut reader, id).await, [1_000, 400]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_given_whole_wherever_in_it_one_begins() {
    let world = World::start().await;
    let topic = world.topic(1, &[]).await;
    let mut client = world.client().await;
    client.produced(&topic, 0, batch(&[b"a", b"b", b"c"])).await;
    client.produced(&topic, 0, batch(&[b"d"])).await;
    for offset in 0..3 {
        assert_eq!(read(&client.fetch(&topic, 0, offset).await).len(), 4, "from {offset}");
    }
    assert_eq!(read(&client.fetch(&topic, 0, 3).await), [(3, b"d".to_vec())]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn isolation_levels_differ_in_what_they_say_of_aborted_transactions() {
    let world = World::start().await;
    let topic = world.topic(1, &[]).await;
    let mut client = world.client().await;
    client.produced(&topic, 0, batch(&[b"a"])).await;
    for (isolation_level, expected) in [(0, None), (1, Some(0))] {
        let request = FetchRequest { isolation_level, ..fetch(&topic, &[(0, 0)]) };
        let found = client.fetched(&request).await;
        assert_eq!(found[0].aborted_transactions.as_ref().map(Vec::len), expected);
        assert_eq!((found[0].last_stable_offset, read(&found[0]).len()), (1, 1));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_of_another_leader_epoch_are_told() {
    let world = World::start().await;
    let topic = world.topic(1, &[]).await;
    let mut client = world.client().await;
    client.produced(&topic, 0, batch(&[b"a"])).await;
    let mut request = FetchRequest { max_wait_ms: FOR_EVER_MS, min_bytes: 1, ..fetch(&topic, &[(0, 1)]) };
    request.topics[0].partitions[0].current_leader_epoch = 99;
    let found = client.fetched(&request).await;
    assert_eq!(code(found[0].error_code), ErrorCode::UnknownLeaderEpoch);
    // Who read in an epoch that never was has read something else.
    let mut request = fetch(&topic, &[(0, 1)]);
    request.topics[0].partitions[0].last_fetched_epoch = 99;
    let found = client.fetched(&request).await;
    assert_eq!(code(found[0].error_code), ErrorCode::OffsetOutOfRange);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_leader_epoch_is_fenced_and_a_diverging_history_shown() {
    let Some(mut world) = World::firn(&[]).await else { return };
    let topic = world.topic(1, &[]).await;
    world.client().await.produced(&topic, 0, batch(&[b"a", b"b"])).await;
    world.restart().await;
    let mut client = world.client().await;
    client.produced(&topic, 0, batch(&[b"c"])).await;
    let mut request = FetchRequest { max_wait_ms: FOR_EVER_MS, min_bytes: 1, ..fetch(&topic, &[(0, 3)]) };
    request.topics[0].partitions[0].current_leader_epoch = 0;
    for version in [9, 12, 16] {
        if version >= 13 {
            request.topics[0].topic_id = world.id(&topic).await;
            request.topics[0].topic = String::new();
        }
        let answer = client.call(version, &request).await;
        let found = &answer.responses[0].partitions[0];
        assert_eq!(code(found.error_code), ErrorCode::FencedLeaderEpoch);
        if version >= 12 {
            assert_eq!((found.current_leader.leader_id, found.current_leader.leader_epoch), (0, 1));
        }
        assert_eq!(answer.node_endpoints.len(), usize::from(version >= 16));
    }

    // Epoch 0 ended at 2: who has read up to 3 in it has something that is not here.
    let mut request = FetchRequest { max_wait_ms: FOR_EVER_MS, min_bytes: 1, ..fetch(&topic, &[(0, 3)]) };
    request.topics[0].partitions[0].last_fetched_epoch = 0;
    let found = &client.fetched(&request).await[0];
    assert_eq!(code(found.error_code), ErrorCode::None);
    assert_eq!((found.diverging_epoch.epoch, found.diverging_epoch.end_offset, size(found)), (0, 2, 0));
    // Up to 2 it is the same history.
    request.topics[0].partitions[0].fetch_offset = 2;
    let found = &client.fetched(&request).await[0];
    assert_eq!((found.diverging_epoch.epoch, read(found).len()), (-1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_go_by_their_id_from_version_13_on() {
    let world = World::start().await;
    let topic = world.topic(1, &[]).await;
    let mut client = world.client().await;
    client.produced(&topic, 0, batch(&[b"a"])).await;
    let mut request = fetch("", &[(0, 0)]);
    request.topics[0].topic_id = world.id(&topic).await;
    let answer = client.call(13, &request).await;
    assert_eq!(answer.responses[0].topic_id, request.topics[0].topic_id);
    assert_eq!(read(&answer.responses[0].partitions[0]).len(), 1);
    // The same name is another topic once it was deleted.
    let gone = DeleteTopicsRequest { topic_names: vec![topic.clone()], timeout_ms: 30_000, ..Default::default() };
    assert_eq!(code(client.call(5, &gone).await.responses[0].error_code), ErrorCode::None);
    for id in [request.topics[0].topic_id, Uuid::from_u128(3), Uuid::nil()] {
        request.topics[0].topic_id = id;
        let mut said = code(client.call(13, &request).await.responses[0].partitions[0].error_code);
        // Kafka's brokers hear of it later.
        for _ in 0..100 {
            if said == ErrorCode::UnknownTopicId || world.is_firn() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
            said = code(client.call(13, &request).await.responses[0].partitions[0].error_code);
        }
        assert_eq!(said, ErrorCode::UnknownTopicId);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_named_twice_is_read_once() {
    let world = World::start().await;
    let topic = world.topic(1, &[]).await;
    let mut client = world.client().await;
    client.produced(&topic, 0, batch(&[b"a"])).await;
    client.produced(&topic, 0, batch(&[b"b"])).await;
    for session_epoch in [-1, 0] {
        let request = FetchRequest { session_epoch, ..fetch(&topic, &[(0, 0), (0, 1)]) };
        let answer = client.call(FETCH, &request).await;
        let found: Vec<_> = answer.responses.iter().flat_map(|topic| &topic.partitions).collect();
        assert_eq!(found.len(), 1);
        assert_eq!(read(found[0]), [(1, b"b".to_vec())], "what was said last counts");
    }
}

/// Thousands of partitions in one fetch, most of them idle: one answer with what there is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fetch_may_name_many_partitions() {
    let Some(world) = World::firn(&[]).await else { return };
    let topic = world.topic(500, &[]).await;
    let (mut reader, mut writer) = (world.client().await, world.client().await);
    let from: Vec<(i32, i64)> = (0..500).map(|partition| (partition, 0)).collect();
    let waiting = FetchRequest { max_wait_ms: FOR_EVER_MS, min_bytes: 1, ..fetch(&topic, &from) };
    let id = send_waiting(&mut reader, &waiting).await;
    writer.call(9, &produce(&topic, -1, &[(499, sized(100)), (3, sized(100))])).await;
    let found = sizes(&mut reader, id).await;
    assert_eq!(found.len(), 500);
    assert!(found.iter().sum::<usize>() >= 100);
}
