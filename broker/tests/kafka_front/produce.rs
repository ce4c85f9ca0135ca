//! Produce: what is taken, what is refused and how, and what is stored of it.

use crate::client::{Client, code, versions};
use crate::world::{PRODUCE, World, batch, fetch, filled, produce, read, t0};
use bytes::{Bytes, BytesMut};
use proto::errors::ErrorCode;
use proto::messages::produce_request::{PartitionProduceData, TopicProduceData};
use proto::messages::produce_response::PartitionProduceResponse;
use proto::messages::{ApiKey, FetchRequest, FindCoordinatorRequest, InitProducerIdRequest, ProduceRequest};
use proto::records::{BatchBuilder, Codec, Header, TimestampType, batches, for_each_record};
use uuid::Uuid;

fn init(transactional_id: Option<&str>) -> InitProducerIdRequest {
    InitProducerIdRequest {
        transactional_id: transactional_id.map(str::to_owned),
        transaction_timeout_ms: 60_000,
        ..Default::default()
    }
}

/// Produces with one version; by id where the version names topics so.
async fn produce_in(
    client: &mut Client,
    version: i16,
    topic: &str,
    id: Uuid,
    records: Bytes,
) -> PartitionProduceResponse {
    let mut request = produce(topic, -1, &[(0, records)]);
    if version >= 13 {
        let asked = request.topic_data.first_mut().expect("one topic");
        (asked.name, asked.topic_id) = (String::new(), id);
    }
    let answer = client.call(version, &request).await;
    let topic = answer.responses.into_iter().next().expect("a topic");
    topic.partition_responses.into_iter().next().expect("a partition")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_version_produces_with_every_acks() {
    let world = World::start().await;
    let topic = world.topic(1, &[]).await;
    let id = world.id(&topic).await;
    let mut client = world.client().await;
    let mut expected = Vec::new();
    for version in versions(ApiKey::Produce) {
        // The last one is waited for: what came before it is visible then.
        for acks in [0, 1, -1] {
            let value = format!("v{version} acks {acks}");
            let mut request = produce(&topic, acks, &[(0, batch(&[value.as_bytes()]))]);
            if version >= 13 {
                request.topic_data[0].name = String::new();
                request.topic_data[0].topic_id = id;
            }
            let sent = client.send(version, &request).await;
            if acks != 0 {
                let answer = client.receive::<ProduceRequest>(version, sent).await;
                let said = &answer.responses[0].partition_responses[0];
                assert_eq!(code(said.error_code), ErrorCode::None, "{value}");
                assert_eq!(said.base_offset, i64::try_from(expected.len()).expect("few"), "{value}");
                assert_eq!((said.log_append_time_ms, said.record_errors.len()), (-1, 0), "{value}");
                if version >= 5 {
                    assert_eq!(said.log_start_offset, 0, "{value}");
                }
                assert_eq!(answer.responses[0].topic_id, if version >= 13 { id } else { Uuid::nil() });
            }
            expected.push(value.into_bytes());
        }
    }
    assert_eq!(client.values(&topic, 0, 0).await, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_partition_is_answered_for_itself() {
    let world = World::start().await;
    let (good, small) = (world.topic(2, &[]).await, world.topic(1, &[("max.message.bytes", "100")]).await);
    let mut client = world.client().await;
    let one = batch(&[&[b'x'; 200]]);
    let data = |index| PartitionProduceData { index, records: Some(one.clone()) };
    let topic = |name: &str, partitions: &[i32]| TopicProduceData {
        name: name.to_owned(),
        partition_data: partitions.iter().map(|index| data(*index)).collect(),
        ..Default::default()
    };
    let request = ProduceRequest {
        acks: -1,
        timeout_ms: 30_000,
        topic_data: vec![topic("no-such-topic", &[0]), topic(&small, &[0]), topic(&good, &[0, 7, 1, -1])],
        ..Default::default()
    };
    let answer = client.call(PRODUCE, &request).await;
    let mut said: Vec<_> = answer
        .responses
        .iter()
        .flat_map(|topic| {
            topic.partition_responses.iter().map(|one| (topic.name.clone(), one.index, code(one.error_code)))
        })
        .collect();
    said.sort_by_key(|(name, index, _)| (name.clone(), *index));
    let mut expected = vec![
        ("no-such-topic".to_owned(), 0, ErrorCode::UnknownTopicOrPartition),
        (small.clone(), 0, ErrorCode::MessageTooLarge),
        (good.clone(), -1, ErrorCode::UnknownTopicOrPartition),
        (good.clone(), 0, ErrorCode::None),
        (good.clone(), 1, ErrorCode::None),
        (good.clone(), 7, ErrorCode::UnknownTopicOrPartition),
    ];
    expected.sort_by_key(|(name, index, _)| (name.clone(), *index));
    assert_eq!(said, expected);

    let by_id = produce_in(&mut client, 13, "", Uuid::from_u128(7), one.clone()).await;
    assert_eq!(code(by_id.error_code), ErrorCode::UnknownTopicId);
    let by_nobody = produce_in(&mut client, 13, "", Uuid::nil(), one.clone()).await;
    assert_eq!(code(by_nobody.error_code), ErrorCode::UnknownTopicId);

    for acks in [2, -2, i16::MAX] {
        let answer = client.call(PRODUCE, &produce(&good, acks, &[(0, one.clone())])).await;
        let said = &answer.responses[0].partition_responses[0];
        assert_eq!((code(said.error_code), said.base_offset), (ErrorCode::InvalidRequiredAcks, -1));
    }
    assert_eq!(client.values(&good, 0, 0).await.len(), 1, "nothing that was refused was stored");
}

/// A batch with some bytes of its header replaced, and its CRC set right.
fn forged(batch: &Bytes, at: usize, bytes: &[u8]) -> Bytes {
    let mut forged = BytesMut::from(&batch[..]);
    forged[at..at + bytes.len()].copy_from_slice(bytes);
    let crc = crc32c::crc32c(&forged[21..]);
    forged[17..21].copy_from_slice(&crc.to_be_bytes());
    forged.freeze()
}

fn joined(parts: &[&[u8]]) -> Bytes {
    Bytes::from(parts.concat())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_batches_get_the_code_that_says_why() {
    let world = World::start().await;
    let topic = world.topic(1, &[]).await;
    let id = world.id(&topic).await;
    let mut client = world.client().await;
    let good = batch(&[b"one", b"two"]);
    let mut flipped = BytesMut::from(&good[..]);
    let last = flipped.len() - 1;
    flipped[last] ^= 1;
    let cases: Vec<(&str, Bytes, ErrorCode)> = vec![
        ("a wrong CRC", flipped.freeze(), ErrorCode::CorruptMessage),
        ("two batches", joined(&[&good, &good]), ErrorCode::InvalidRecord),
        ("no batch", Bytes::new(), ErrorCode::InvalidRecord),
        ("a base offset", forged(&good, 0, &5i64.to_be_bytes()), ErrorCode::InvalidRecord),
        ("magic 1", forged(&good, 16, &[1]), ErrorCode::InvalidRecord),
        ("a record count too high", forged(&good, 57, &3i32.to_be_bytes()), ErrorCode::InvalidRecord),
        ("a record count too low", forged(&good, 57, &1i32.to_be_bytes()), ErrorCode::InvalidRecord),
        ("a negative record count", forged(&good, 57, &(-1i32).to_be_bytes()), ErrorCode::InvalidRecord),
        ("a last offset delta too high", forged(&good, 23, &9i32.to_be_bytes()), ErrorCode::InvalidRecord),
        ("a control batch", filled(BatchBuilder::new().control(), &[b"x"]), ErrorCode::InvalidRecord),
        ("less than a header", good.slice(..40), ErrorCode::InvalidRecord),
        ("a batch cut short", good.slice(..good.len() - 3), ErrorCode::InvalidRecord),
    ];
    let lax: Vec<(&str, Bytes, ErrorCode)> = vec![
        (
            "a producer without an epoch",
            filled(BatchBuilder::new().producer(5, -1, 0), &[b"x"]),
            ErrorCode::InvalidRecord,
        ),
        (
            "the broker's timestamp type",
            filled(BatchBuilder::new().log_append_time(t0()), &[b"x"]),
            ErrorCode::InvalidTimestamp,
        ),
        ("bytes after the batch", joined(&[&good, b"more"]), ErrorCode::InvalidRecord),
        ("a length that cannot be", forged(&good, 8, &20i32.to_be_bytes()), ErrorCode::CorruptMessage),
        ("a codec nobody knows", forged(&good, 21, &6i16.to_be_bytes()), ErrorCode::UnsupportedCompressionType),
    ];
    // Kafka takes these as they are, or answers UNKNOWN_SERVER_ERROR, or nothing at all.
    let cases = cases.into_iter().chain(lax.into_iter().filter(|_| world.is_firn()));
    let mut wrong = Vec::new();
    for (what, records, expected) in cases {
        for version in [3, 8, 13] {
            let said = produce_in(&mut client, version, &topic, id, records.clone()).await;
            if (code(said.error_code), said.base_offset) != (expected, -1) {
                wrong.push(format!(
                    "{what}, version {version}: {}, not {}",
                    code(said.error_code).name(),
                    expected.name()
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    if world.is_firn() {
        let mut request = produce(&topic, -1, &[(0, good)]);
        request.topic_data[0].partition_data = vec![PartitionProduceData { index: 0, records: None }];
        let answer = client.call(PRODUCE, &request).await;
        assert_eq!(code(answer.responses[0].partition_responses[0].error_code), ErrorCode::InvalidRecord, "null");
    }
    assert_eq!(client.produced(&topic, 0, batch(&[b"fine"])).await, 0, "nothing was stored and the partition is well");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_that_are_refused_are_named() {
    let world = World::start().await;
    let limits = [("message.timestamp.before.max.ms", "7200000"), ("message.timestamp.after.max.ms", "60000")];
    let timed = world.topic(1, &limits).await;
    let compacted = world.topic(1, &[("cleanup.policy", "compact")]).await;
    let mut client = world.client().await;
    let records = |timestamps: &[i64]| {
        let mut builder = BatchBuilder::new();
        for timestamp in timestamps {
            builder.append(*timestamp, Some(b"key"), Some(b"value"), &[]);
        }
        builder.build()
    };
    let named =
        |said: &PartitionProduceResponse| said.record_errors.iter().map(|one| one.batch_index).collect::<Vec<_>>();
    let (day, now) = (86_400_000, t0() + 3_600_000);
    let said = client.produce(&timed, 0, records(&[now, now - day, now, now + day])).await;
    assert_eq!((code(said.error_code), named(&said)), (ErrorCode::InvalidTimestamp, vec![1, 3]));
    assert!(said.error_message.is_some(), "and says why");
    assert!(said.record_errors.iter().all(|one| one.batch_index_error_message.is_some()), "for each record, too");
    client.produced(&timed, 0, records(&[now, now - 3_600_000])).await;
    // No timestamp is no wrong timestamp.
    client.produced(&timed, 0, records(&[-1])).await;

    let mut builder = BatchBuilder::new();
    for key in [Some(&b"key"[..]), None, Some(b""), None] {
        builder.append(now, key, Some(b"value"), &[]);
    }
    let said = client.produce(&compacted, 0, builder.build()).await;
    assert_eq!((code(said.error_code), named(&said)), (ErrorCode::InvalidRecord, vec![1, 3]));
    assert_eq!(client.produced(&compacted, 0, records(&[now])).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn zstd_needs_version_7() {
    let world = World::start().await;
    let topic = world.topic(1, &[]).await;
    let id = world.id(&topic).await;
    let mut client = world.client().await;
    let packed = filled(BatchBuilder::new().codec(Codec::Zstd), &[b"small"]);
    let said = produce_in(&mut client, 6, &topic, id, packed.clone()).await;
    assert_eq!(code(said.error_code), ErrorCode::UnsupportedCompressionType);
    let said = produce_in(&mut client, 7, &topic, id, packed).await;
    assert_eq!(code(said.error_code), ErrorCode::None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idempotent_producers_are_held_to_their_sequence() {
    let world = World::start().await;
    let topic = world.topic(1, &[]).await;
    let mut client = world.client().await;
    let given = client.call(4, &init(None)).await;
    assert_eq!((code(given.error_code), given.producer_epoch), (ErrorCode::None, 0));
    let pid = given.producer_id;
    assert!(pid >= 0);
    let sent = |epoch, sequence, values: &[&[u8]]| filled(BatchBuilder::new().producer(pid, epoch, sequence), values);
    let refused = |said: &PartitionProduceResponse| (code(said.error_code), said.base_offset);

    assert_eq!(client.produced(&topic, 0, sent(0, 0, &[b"a", b"b"])).await, 0);
    assert_eq!(client.produced(&topic, 0, sent(0, 2, &[b"c"])).await, 2);
    assert_eq!(client.produced(&topic, 0, sent(0, 0, &[b"a", b"b"])).await, 0, "a retry gets its first answer again");
    assert_eq!(client.produced(&topic, 0, sent(0, 2, &[b"c"])).await, 2);
    let said = client.produce(&topic, 0, sent(0, 4, &[b"gap"])).await;
    assert_eq!(refused(&said), (ErrorCode::OutOfOrderSequenceNumber, -1));
    let said = client.produce(&topic, 0, sent(0, 0, &[b"a", b"b", b"other length"])).await;
    assert_eq!(refused(&said), (ErrorCode::OutOfOrderSequenceNumber, -1));
    let said = client.produce(&topic, 0, sent(1, 3, &[b"new epoch, old sequence"])).await;
    assert_eq!(refused(&said), (ErrorCode::OutOfOrderSequenceNumber, -1));
    assert_eq!(client.produced(&topic, 0, sent(1, 0, &[b"d"])).await, 3, "a new epoch begins at 0");
    let said = client.produce(&topic, 0, sent(0, 3, &[b"old epoch"])).await;
    assert_eq!(refused(&said), (ErrorCode::InvalidProducerEpoch, -1));

    // Five batches are remembered, a sixth is not.
    for sequence in 1..=5 {
        assert_eq!(client.produced(&topic, 0, sent(1, sequence, &[b"x"])).await, 3 + i64::from(sequence));
    }
    assert_eq!(client.produced(&topic, 0, sent(1, 1, &[b"x"])).await, 4);
    let said = client.produce(&topic, 0, sent(1, 0, &[b"d"])).await;
    assert_eq!(refused(&said), (ErrorCode::OutOfOrderSequenceNumber, -1));
    // A producer nobody knows here may have been forgotten: it goes on where it is.
    let stranger = filled(BatchBuilder::new().producer(pid + 1_000_000, 3, 17), &[b"stranger"]);
    assert_eq!(client.produced(&topic, 0, stranger).await, 9);
    // Sequences wrap around.
    let last = filled(BatchBuilder::new().producer(pid + 2_000_000, 0, i32::MAX), &[b"last"]);
    assert_eq!(client.produced(&topic, 0, last).await, 10);
    let first = filled(BatchBuilder::new().producer(pid + 2_000_000, 0, 0), &[b"first"]);
    assert_eq!(client.produced(&topic, 0, first).await, 11);
    let values = client.values(&topic, 0, 0).await;
    let expected: Vec<&[u8]> =
        vec![b"a", b"b", b"c", b"d", b"x", b"x", b"x", b"x", b"x", b"stranger", b"last", b"first"];
    assert_eq!(values, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn producer_ids_are_never_given_twice() {
    let Some(world) = World::firn(&[]).await else { return };
    let mut given = std::collections::BTreeSet::new();
    for version in versions(ApiKey::InitProducerId) {
        let mut client = world.client().await;
        for _ in 0..300 {
            let answer = client.call(version, &init(None)).await;
            assert_eq!((code(answer.error_code), answer.producer_epoch), (ErrorCode::None, 0));
            assert!(given.insert(answer.producer_id), "{} was given twice", answer.producer_id);
        }
    }
    let mut client = world.client().await;
    let answer = client.call(4, &init(Some(""))).await;
    assert_eq!(
        (code(answer.error_code), answer.producer_id, answer.producer_epoch),
        (ErrorCode::InvalidRequest, -1, -1)
    );
}

/// Transactions are not coordinated yet. A transactional producer fails at its start, and records that claim a
/// transaction are refused: it would stay open for ever and hold back every reader of committed records.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_are_refused_clearly() {
    let Some(world) = World::firn(&[]).await else { return };
    let topic = world.topic(1, &[]).await;
    let mut client = world.client().await;
    let find = FindCoordinatorRequest { key: "txn".to_owned(), key_type: 1, ..Default::default() };
    let answer = client.call(3, &find).await;
    assert_ne!(code(answer.error_code), ErrorCode::None);
    assert!(!answer.error_message.unwrap_or_default().is_empty());
    let answer = client.call(4, &init(Some("txn"))).await;
    assert_eq!(code(answer.error_code), ErrorCode::TransactionalIdAuthorizationFailed);

    let within = filled(BatchBuilder::new().producer(1, 0, 0).transactional(), &[b"x"]);
    let said = client.produce(&topic, 0, within.clone()).await;
    assert_eq!((code(said.error_code), said.base_offset), (ErrorCode::TransactionalIdAuthorizationFailed, -1));
    let mut request = produce(&topic, -1, &[(0, within)]);
    request.transactional_id = Some("txn".to_owned());
    let answer = client.call(PRODUCE, &request).await;
    assert_ne!(code(answer.responses[0].partition_responses[0].error_code), ErrorCode::None);
    let found = client.fetch(&topic, 0, 0).await;
    assert_eq!((found.high_watermark, found.last_stable_offset), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_acks_nothing_is_answered_and_an_error_ends_the_connection() {
    let world = World::start().await;
    let topic = world.topic(1, &[]).await;
    let mut client = world.client().await;
    client.send(PRODUCE, &produce(&topic, 0, &[(0, batch(&[b"kept"]))])).await;
    // On the same connection: the next answer is the one to the next request.
    assert_eq!(client.values(&topic, 0, 0).await, [b"kept"]);
    let mut flipped = BytesMut::from(&batch(&[b"broken"])[..]);
    flipped[40] ^= 1;
    client.send(PRODUCE, &produce(&topic, 0, &[(0, flipped.freeze())])).await;
    client.expect_closed().await;
    assert_eq!(world.client().await.values(&topic, 0, 0).await, [b"kept"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_broker_stamps_records_where_the_topic_says_so() {
    let world = World::start().await;
    let topic = world.topic(1, &[("message.timestamp.type", "LogAppendTime")]).await;
    let mut client = world.client().await;
    for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let mut builder = BatchBuilder::new().codec(codec);
        // Times that a producer could not set itself.
        for timestamp in [5, i64::MAX / 2] {
            builder.append(timestamp, None, Some(b"value"), &[]);
        }
        let said = client.produce(&topic, 0, builder.build()).await;
        assert_eq!(code(said.error_code), ErrorCode::None, "{codec}");
        assert!(said.log_append_time_ms > t0(), "{codec}: {}", said.log_append_time_ms);
        let found = client.fetch(&topic, 0, said.base_offset).await;
        let bytes = found.records.expect("records").to_bytes();
        let stored = batches(&bytes).next().expect("a batch").expect("a whole one");
        assert_eq!(stored.header.timestamp_type(), TimestampType::LogAppendTime);
        assert_eq!(stored.header.max_timestamp, said.log_append_time_ms);
        assert_eq!(stored.compute_crc(), stored.header.crc);
        let mut seen = Vec::new();
        for_each_record(&stored, 1 << 20, |record| seen.push(record.timestamp)).expect("readable");
        assert_eq!(seen, [said.log_append_time_ms; 2]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_may_force_its_codec() {
    let world = World::start().await;
    let mut client = world.client().await;
    let names = ["uncompressed", "gzip", "snappy", "lz4", "zstd", "producer"];
    let codecs = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];
    for (at, name) in names.into_iter().enumerate() {
        let topic = world.topic(1, &[("compression.type", name)]).await;
        for sent in codecs {
            let mut builder = BatchBuilder::new().codec(sent);
            let value = [b'v'; 500];
            let header = Header { key: b"h", value: Some(b"1") };
            builder.append(t0(), Some(b"k"), Some(&value), &[header]);
            builder.append(t0() + 1, None, None, &[Header { key: b"", value: None }]);
            builder.append(t0() + 2, Some(b""), Some(b""), &[]);
            let offset = client.produced(&topic, 0, builder.build()).await;
            let found = client.fetch(&topic, 0, offset).await;
            let bytes = found.records.expect("records").to_bytes();
            let stored = batches(&bytes).next().expect("a batch").expect("a whole one");
            assert_eq!(
                stored.header.codec().expect("a codec"),
                *codecs.get(at).unwrap_or(&sent),
                "{name}, sent {sent}"
            );
            let mut seen = Vec::new();
            for_each_record(&stored, 1 << 20, |record| {
                let headers = record.headers.map(|(key, value)| (key.to_vec(), value.map(<[u8]>::to_vec)));
                seen.push((
                    record.offset - offset,
                    record.timestamp - t0(),
                    record.key.map(<[u8]>::to_vec),
                    record.value.map(<[u8]>::to_vec),
                    headers.collect::<Vec<_>>(),
                ));
            })
            .expect("readable");
            let expected = [
                (0, 0, Some(b"k".to_vec()), Some(value.to_vec()), vec![(b"h".to_vec(), Some(b"1".to_vec()))]),
                (1, 1, None, None, vec![(vec![], None)]),
                (2, 2, Some(vec![]), Some(vec![]), vec![]),
            ];
            assert_eq!(seen, expected, "{name}, sent {sent}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_may_be_as_large_as_the_topic_allows_and_no_larger() {
    let world = World::start().await;
    let one = |bytes: usize| batch(&[&vec![b'x'; bytes]]);
    let largest = one(1000);
    let topic = world.topic(1, &[("max.message.bytes", &largest.len().to_string())]).await;
    let mut client = world.client().await;
    assert_eq!(client.produced(&topic, 0, largest).await, 0);
    let said = client.produce(&topic, 0, one(1001)).await;
    assert_eq!((code(said.error_code), said.base_offset), (ErrorCode::MessageTooLarge, -1));
    // What counts is what is sent: a small batch may hold large records.
    let zeros = vec![0; 100_000];
    let packed = filled(BatchBuilder::new().codec(Codec::Gzip), &[&zeros]);
    assert_eq!(client.produced(&topic, 0, packed.clone()).await, 1);
    // What the topic's codec makes of it counts, too.
    let plain = world.topic(1, &[("max.message.bytes", "2000"), ("compression.type", "uncompressed")]).await;
    let said = client.produce(&plain, 0, packed).await;
    assert_eq!((code(said.error_code), said.base_offset), (ErrorCode::MessageTooLarge, -1));
}

/// As in Kafka, no partition can be asked for more in-sync replicas than it has replicas.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn min_insync_replicas_does_not_ask_for_more_than_there_are() {
    let world = World::start().await;
    let topic = world.topic(1, &[("min.insync.replicas", "2")]).await;
    let mut client = world.client().await;
    for acks in [1, -1] {
        let answer = client.call(PRODUCE, &produce(&topic, acks, &[(0, batch(&[b"x"]))])).await;
        assert_eq!(code(answer.responses[0].partition_responses[0].error_code), ErrorCode::None, "acks {acks}");
    }
    assert_eq!(client.values(&topic, 0, 0).await.len(), 2, "and both are visible");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn internal_topics_are_not_written_by_clients() {
    let world = World::start().await;
    let mut client = world.client().await;
    let find = FindCoordinatorRequest { coordinator_keys: vec!["group".to_owned()], ..Default::default() };
    client.call(4, &find).await;
    let said = client.produce("__consumer_offsets", 0, batch(&[b"x"])).await;
    let expected = [ErrorCode::InvalidTopicException, ErrorCode::UnknownTopicOrPartition];
    assert!(expected.contains(&code(said.error_code)), "{}", code(said.error_code).name());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_comes_at_the_time_out_at_the_latest() {
    let world = World::start().await;
    let topic = world.topic(1, &[]).await;
    let mut client = world.client().await;
    // Whether it times out or is taken in time, it is answered, and the connection goes on.
    for timeout_ms in [0, -1, 1] {
        let mut request = produce(&topic, -1, &[(0, batch(&[b"x"]))]);
        request.timeout_ms = timeout_ms;
        let answer = client.call(PRODUCE, &request).await;
        let said = code(answer.responses[0].partition_responses[0].error_code);
        assert!([ErrorCode::None, ErrorCode::RequestTimedOut].contains(&said), "{}", said.name());
    }
    client.produced(&topic, 0, batch(&[b"x"])).await;
    assert_eq!(client.values(&topic, 0, 0).await.len(), 4, "a time-out says nothing about what is stored");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn produced_records_are_read_by_every_fetch_version() {
    let world = World::start().await;
    let topic = world.topic(1, &[]).await;
    let id = world.id(&topic).await;
    let mut client = world.client().await;
    client.produced(&topic, 0, batch(&[b"a", b"b"])).await;
    for version in versions(ApiKey::Fetch) {
        let mut request: FetchRequest = fetch(&topic, &[(0, 1)]);
        if version >= 13 {
            (request.topics[0].topic, request.topics[0].topic_id) = (String::new(), id);
        }
        let answer = client.call(version, &request).await;
        let found = &answer.responses[0].partitions[0];
        assert_eq!(code(found.error_code), ErrorCode::None, "version {version}");
        let values: Vec<_> = read(found).into_iter().filter(|(offset, _)| *offset >= 1).collect();
        assert_eq!(values, [(1, b"b".to_vec())], "version {version}");
        assert_eq!((found.high_watermark, found.last_stable_offset), (2, 2), "version {version}");
    }
}
