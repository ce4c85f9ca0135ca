//! Records that left the local disk: a client cannot tell where they came from.

use crate::client::{Client, code};
use crate::world::{COLD, CREATE, FETCH, World, batch, create, fetch, filled, read, size, sized, t0, unique};
use broker::http::Control;
use proto::errors::ErrorCode;
use proto::messages::fetch_response::PartitionData;
use proto::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use proto::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use proto::messages::offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use proto::messages::{FetchRequest, IncrementalAlterConfigsRequest, ListOffsetsRequest, OffsetForLeaderEpochRequest};
use proto::records::{BatchBuilder, Codec};
use std::collections::BTreeMap;
use std::time::Duration;

/// Longer than any test may take.
const FOR_EVER_MS: i32 = 600_000;

/// Partition and what was found of it, with the answer's order.
async fn ask(client: &mut Client, request: &FetchRequest) -> Vec<PartitionData> {
    let answer = client.call(FETCH, request).await;
    assert_eq!(code(answer.error_code), ErrorCode::None);
    answer.responses.into_iter().flat_map(|topic| topic.partitions).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cold_records_read_as_hot_ones_do() {
    let Some(mut world) = World::firn(&[]).await else { return };
    let topic = world.topic(1, COLD).await;
    let mut client = world.client().await;
    let mut expected = Vec::new();
    for (round, codec) in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd].into_iter().enumerate() {
        let values: Vec<Vec<u8>> = (0..20).map(|at| format!("{round}-{at}").into_bytes()).collect();
        let slices: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
        client.produced(&topic, 0, filled(BatchBuilder::new().codec(codec), &slices)).await;
        expected.extend(values);
        if round < 3 {
            world.cool(&topic).await;
        }
    }
    // 60 records are cold, 40 are hot.
    let check = async |client: &mut Client| {
        assert_eq!(client.values(&topic, 0, 0).await, expected);
        for offset in [1, 19, 20, 21, 59, 60, 99] {
            let from = usize::try_from(offset).expect("small");
            assert_eq!(client.values(&topic, 0, offset).await, expected[from..], "from {offset}");
        }
    };
    check(&mut client).await;
    let request =
        FetchRequest { max_wait_ms: FOR_EVER_MS, min_bytes: 1, isolation_level: 1, ..fetch(&topic, &[(0, 5)]) };
    let found = &ask(&mut client, &request).await[0];
    assert_eq!((found.high_watermark, found.last_stable_offset, found.log_start_offset), (100, 100, 0));
    assert_eq!(found.aborted_transactions.as_ref().map(Vec::len), Some(0));
    assert_eq!(read(found).first().map(|(offset, _)| *offset), Some(0), "the whole batch that holds it");
    world.restart().await;
    check(&mut world.client().await).await;
}

/// A trim waits for no timer: it comes with the image that carries the pointer. Creating a topic answers once this broker follows an
/// image that is younger still, so by then it has happened.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trimming_comes_with_the_pointer() {
    let Some(world) = World::firn(&[]).await else { return };
    let topic = world.topic(1, COLD).await;
    let mut client = world.client().await;
    for round in 1..=3 {
        for _ in 0..10 {
            client.produced(&topic, 0, batch(&[b"soon elsewhere"])).await;
        }
        let control = world.node().control().expect("a broker");
        control.tier_flush(topic.clone(), Duration::from_secs(30)).await.expect("tiered");
        let later = client.call(CREATE, &create(&unique("later"), 1, &[])).await;
        assert_eq!(code(later.topics[0].error_code), ErrorCode::None);
        let status = control.tier_status(Some(&topic)).expect("a topic that exists");
        assert_eq!((status[0].tier_end, status[0].local_start), (round * 10, round * 10), "round {round}");
    }
}

/// Cold and hot partitions in one fetch are under the same limits: no answer passes any, but for a first batch that
/// alone does; and what is left out comes later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn byte_limits_hold_over_cold_and_hot_together() {
    const BATCH: usize = 1000;
    let Some(world) = World::firn(&[]).await else { return };
    let topic = world.topic(4, COLD).await;
    let mut client = world.client().await;
    // 0 and 2 are cold, 1 and 3 are hot; 4 would be empty.
    for cold in [true, false] {
        for partition in (0..4).filter(|partition| (partition % 2 == 0) == cold) {
            for _ in 0..10 {
                client.produced(&topic, partition, sized(BATCH)).await;
            }
        }
        if cold {
            world.cool(&topic).await;
        }
    }
    for (max_bytes, each) in [
        (1_000_000, 1_000_000),
        (1_000_000, 2_500),
        (5_500, 3_000),
        (4_999, 3_000),
        (1_000, 1_000_000),
        (999, 1_000_000),
        (1_000_000, 999),
        (0, 0),
    ] {
        let mut next: BTreeMap<i32, i64> = (0..4).map(|partition| (partition, 0)).collect();
        // Those that got something go last, as a consumer's fetcher has it.
        let mut order: Vec<i32> = (0..4).collect();
        while next.values().any(|offset| *offset < 10) {
            let from: Vec<(i32, i64)> = order.iter().map(|one| (*one, next[one])).filter(|one| one.1 < 10).collect();
            let mut request =
                FetchRequest { max_bytes, min_bytes: 1, max_wait_ms: FOR_EVER_MS, ..fetch(&topic, &from) };
            request.topics[0].partitions.iter_mut().for_each(|one| one.partition_max_bytes = each);
            let found = ask(&mut client, &request).await;
            let what = format!("max_bytes {max_bytes}, partition_max_bytes {each}, from {from:?}");
            let sizes: Vec<usize> = found.iter().map(size).collect();
            let total: usize = sizes.iter().sum();
            assert!(total > 0, "{what}: something must come");
            let limit = |max: i32| usize::try_from(max).expect("not negative");
            let first_alone = sizes.iter().filter(|size| **size > 0).count() == 1 && total == BATCH;
            assert!(total <= limit(max_bytes) || first_alone, "{what}: {sizes:?}");
            let largest = sizes.iter().copied().max().unwrap_or(0);
            assert!(largest <= limit(each) || largest == BATCH, "{what}: {sizes:?}");
            let over = sizes.iter().filter(|size| **size > limit(each)).count();
            assert!(over <= 1, "{what}: {sizes:?}");
            for one in &found {
                assert_eq!(code(one.error_code), ErrorCode::None, "{what}");
                for (offset, _) in read(one) {
                    let expected = next.get_mut(&one.partition_index).expect("asked for");
                    assert_eq!(offset, *expected, "{what}");
                    *expected += 1;
                }
                if size(one) > 0 {
                    order.retain(|partition| *partition != one.partition_index);
                    order.push(one.partition_index);
                }
            }
        }
    }
}

/// The object store being gone affects only what needs it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hot_partitions_are_read_while_cold_ones_cannot_be() {
    let Some(world) = World::firn(&[]).await else { return };
    let (cold, hot) = (world.topic(3, COLD).await, world.topic(1, &[]).await);
    let mut client = world.client().await;
    for partition in 0..3 {
        client.produced(&cold, partition, sized(1000)).await;
    }
    world.cool(&cold).await;
    std::fs::remove_dir_all(world.bucket()).expect("the bucket is there");
    // Larger than what a fetch of its own would bring, were it not the first.
    client.produced(&hot, 0, sized(5000)).await;
    let mut request =
        FetchRequest { max_bytes: 4000, max_wait_ms: 500, min_bytes: 1, ..fetch(&cold, &[(0, 0), (1, 0), (2, 0)]) };
    request.topics.extend(fetch(&hot, &[(0, 0)]).topics);
    request.topics.iter_mut().flat_map(|topic| &mut topic.partitions).for_each(|one| one.partition_max_bytes = 2000);
    let found = ask(&mut client, &request).await;
    assert_eq!(found.iter().map(size).collect::<Vec<_>>(), [0, 0, 0, 5000]);
    // What is hot is written and read on, and the cold ones say what is wrong once they know.
    assert_eq!(client.produced(&hot, 0, batch(&[b"on"])).await, 1);
    let request = FetchRequest { max_wait_ms: FOR_EVER_MS, min_bytes: 1, ..fetch(&cold, &[(0, 0)]) };
    let found = ask(&mut client, &request).await;
    assert_eq!((code(found[0].error_code), size(&found[0])), (ErrorCode::KafkaStorageError, 0));
}

/// A partition that always has something new must not keep a cold one in the same fetch from ever being read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cold_partitions_come_along_though_hot_ones_are_busy() {
    let Some(world) = World::firn(&[]).await else { return };
    let (cold, hot) = (world.topic(1, COLD).await, world.topic(1, &[]).await);
    let mut client = world.client().await;
    for _ in 0..10 {
        client.produced(&cold, 0, sized(1000)).await;
    }
    world.cool(&cold).await;
    client.produced(&hot, 0, sized(1000)).await;
    let mut offset = 0;
    let mut fetches = 0;
    while offset < 10 {
        // The hot one is asked for from its start again and again: it always has enough for an answer.
        let mut request = FetchRequest { max_bytes: 5000, max_wait_ms: 100, min_bytes: 1, ..fetch(&hot, &[(0, 0)]) };
        request.topics.extend(fetch(&cold, &[(0, offset)]).topics);
        let found = ask(&mut client, &request).await;
        assert_eq!(size(&found[0]), 1000);
        offset += i64::try_from(read(&found[1]).len()).expect("few");
        fetches += 1;
        assert!(fetches < 10_000, "the cold partition makes no progress");
    }
}

/// Offset, timestamp and leader epoch that ListOffsets answers.
async fn listed(client: &mut Client, topic: &str, timestamp: i64) -> (i64, i64, i32) {
    let partitions = vec![ListOffsetsPartition { timestamp, current_leader_epoch: -1, ..Default::default() }];
    let topics = vec![ListOffsetsTopic { name: topic.to_owned(), partitions }];
    let request = ListOffsetsRequest { replica_id: -1, topics, timeout_ms: 30_000, ..Default::default() };
    let answer = client.call(10, &request).await;
    let found = &answer.topics[0].partitions[0];
    assert_eq!(code(found.error_code), ErrorCode::None, "{timestamp}");
    (found.offset, found.timestamp, found.leader_epoch)
}

/// Where an epoch ends.
async fn epoch_end(client: &mut Client, topic: &str, leader_epoch: i32) -> (i32, i64) {
    let partitions = vec![OffsetForLeaderPartition { leader_epoch, current_leader_epoch: -1, ..Default::default() }];
    let topics = vec![OffsetForLeaderTopic { topic: topic.to_owned(), partitions }];
    let answer = client.call(4, &OffsetForLeaderEpochRequest { replica_id: -1, topics }).await;
    let found = &answer.topics[0].partitions[0];
    assert_eq!(code(found.error_code), ErrorCode::None);
    (found.leader_epoch, found.end_offset)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offsets_and_epochs_are_known_of_what_is_cold() {
    let Some(mut world) = World::firn(&[]).await else { return };
    let topic = world.topic(1, COLD).await;
    let mut client = world.client().await;
    client.produced(&topic, 0, filled(BatchBuilder::new().codec(Codec::Zstd), &[b"a", b"b", b"c"])).await;
    world.cool(&topic).await;
    world.restart().await;
    let mut client = world.client().await;
    // The same timestamps again, under another leader epoch.
    client.produced(&topic, 0, batch(&[b"d", b"e"])).await;
    let (end, _, epoch) = listed(&mut client, &topic, -1).await;
    assert!(end == 5 && epoch > 0, "{end} {epoch}");
    for cold in [3, 5] {
        if cold == 5 {
            world.cool(&topic).await;
        }
        for (asked, expected) in [
            (-2, (0, -1, 0)),
            (-4, (cold, -1, epoch)),
            (-5, (cold - 1, -1, if cold == 3 { 0 } else { epoch })),
            (-3, (2, t0() + 2, 0)),
            (0, (0, t0(), 0)),
            (t0() + 1, (1, t0() + 1, 0)),
            (t0() + 2, (2, t0() + 2, 0)),
            (t0() + 3, (-1, -1, -1)),
        ] {
            assert_eq!(listed(&mut client, &topic, asked).await, expected, "{asked} with {cold} of 5 cold");
        }
        assert_eq!(epoch_end(&mut client, &topic, 0).await, (0, 3), "{cold} of 5 cold");
        assert_eq!(epoch_end(&mut client, &topic, epoch).await, (epoch, 5), "{cold} of 5 cold");
        assert_eq!(epoch_end(&mut client, &topic, epoch + 1).await, (-1, -1), "{cold} of 5 cold");
    }
}

/// KIP-950: what is tiered stays readable, nothing is added, and what is local is kept as long as the whole history.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_copies_history_stays_where_it_is() {
    let Some(world) = World::firn(&[("log.retention.check.interval.ms", "50")]).await else { return };
    let topic = world.topic(1, COLD).await;
    let mut client = world.client().await;
    client.produced(&topic, 0, batch(&[b"cold"])).await;
    world.cool(&topic).await;
    let alter = |settings: &[(&str, i8, &str)]| {
        let one = |(name, config_operation, value): &(&str, i8, &str)| AlterableConfig {
            name: (*name).to_owned(),
            config_operation: *config_operation,
            value: Some((*value).to_owned()),
        };
        let resource = AlterConfigsResource {
            resource_type: 2,
            resource_name: topic.clone(),
            configs: settings.iter().map(one).collect(),
        };
        IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false }
    };
    let said = client
        .call(
            1,
            &alter(&[("remote.log.copy.disable", 0, "true"), ("local.retention.ms", 1, ""), ("segment.ms", 0, "1")]),
        )
        .await;
    assert_eq!((code(said.responses[0].error_code), &said.responses[0].error_message), (ErrorCode::None, &None));
    let later = |at: i64| {
        // Records' own time rolls segments.
        let mut builder = BatchBuilder::new();
        builder.append(t0() + at * 1000, None, Some(at.to_string().as_bytes()), &[]);
        builder.build()
    };
    for at in 1..4 {
        client.produced(&topic, 0, later(at)).await;
    }
    let control = world.node().control().expect("a broker");
    let refused = control.tier_flush(topic.clone(), Duration::from_secs(30)).await;
    assert!(refused.is_err_and(|why| why.to_string().contains("remote.log.copy.disable")));
    assert_eq!(listed(&mut client, &topic, -5).await.0, 0, "nothing was added");
    assert_eq!(client.values(&topic, 0, 0).await, [&b"cold"[..], b"1", b"2", b"3"]);
    // Retention goes over both: the last segment is open, and stays.
    let said = client.call(1, &alter(&[("retention.ms", 0, "1")])).await;
    assert_eq!(code(said.responses[0].error_code), ErrorCode::None);
    client.produced(&topic, 0, later(4)).await;
    let expired = async {
        while listed(&mut client, &topic, -2).await.0 < 4 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), expired).await.expect("expires");
    assert_eq!(client.values(&topic, 0, 4).await, [b"4"]);
}
