//! Record batches that are not what they say.

use super::stand::{Stand, Table, Witness, batch, code, make, unique};
use bytes::{Bytes, BytesMut};
use integration::calls::{ACKS_ALL, PRODUCE_BY_NAME, produce_request, produced};
use integration::client::Client;
use proto::errors::ErrorCode;
use proto::host::{Clock, SystemClock};
use proto::ids::Millis;
use proto::records::{BatchBuilder, BatchRef, Codec};

const AT_LENGTH: usize = 8;
const AT_MAGIC: usize = 16;
const AT_CRC: usize = 17;
const AT_ATTRIBUTES: usize = 21;
const AT_LAST_DELTA: usize = 23;
const AT_COUNT: usize = 57;
const AT_RECORDS: usize = 61;

fn now() -> Millis {
    SystemClock.now_ms()
}

/// Three records.
fn three() -> BatchBuilder {
    let mut batch = BatchBuilder::new();
    for value in [b"one", b"two", b"six"] {
        batch.append(now(), None, Some(value), &[]);
    }
    batch
}

/// `batch` with other bytes at `at`, under a CRC that fits.
fn forged(batch: &Bytes, at: usize, with: &[u8]) -> Bytes {
    sealed(patched(batch, at, with))
}

fn patched(batch: &Bytes, at: usize, with: &[u8]) -> Bytes {
    let mut bytes = BytesMut::from(&batch[..]);
    bytes[at..at + with.len()].copy_from_slice(with);
    bytes.freeze()
}

fn sealed(batch: Bytes) -> Bytes {
    let crc = BatchRef::first(&batch).map(|batch| batch.compute_crc()).expect("a batch by its length");
    patched(&batch, AT_CRC, &crc.to_be_bytes())
}

/// A batch whose records are `compressed`, whatever that is.
fn compressed(codec: Codec, count: i32, compressed: &[u8]) -> Bytes {
    let mut bytes = BytesMut::from(&three().build()[..AT_RECORDS]);
    bytes.extend_from_slice(compressed);
    let length = i32::try_from(bytes.len() - 12).expect("small");
    bytes[AT_LENGTH..AT_LENGTH + 4].copy_from_slice(&length.to_be_bytes());
    bytes[AT_ATTRIBUTES..AT_LAST_DELTA].copy_from_slice(&i16::from(codec.number()).to_be_bytes());
    bytes[AT_LAST_DELTA..AT_LAST_DELTA + 4].copy_from_slice(&(count - 1).to_be_bytes());
    bytes[AT_COUNT..AT_RECORDS].copy_from_slice(&count.to_be_bytes());
    sealed(bytes.freeze())
}

async fn answer(client: &mut Client, topic: &str, batch: Bytes) -> Option<ErrorCode> {
    code(client.produce(topic, 0, batch).await)
}

#[tokio::test]
async fn each_lie_gets_its_code_and_nothing_of_it_is_kept() {
    use ErrorCode::{
        CorruptMessage, InvalidRecord, InvalidTimestamp, MessageTooLarge, TransactionalIdAuthorizationFailed,
    };
    let stand = Stand::any().await;
    let mut witness = Witness::at(stand.address(), &[]).await;
    let topic = unique("lies");
    let mut client = stand.client().await;
    let limits = [("max.message.bytes", "100000"), ("message.timestamp.before.max.ms", "86400000")];
    make(&mut client, &topic, 1, &limits).await;
    let good = three().build();
    let older = |days: i64| {
        let mut batch = BatchBuilder::new();
        batch.append(now() - days * 86_400_000, None, Some(b"old"), &[]);
        batch.build()
    };
    let mut control = BatchBuilder::new().control();
    control.append(now(), Some(&[0, 0, 0, 1]), Some(&[0; 6]), &[]);
    let mut transactional = BatchBuilder::new().producer(1, 0, 0).transactional();
    transactional.append(now(), None, Some(b"x"), &[]);
    let cases: Vec<(&str, ErrorCode, Bytes)> = vec![
        ("a wrong CRC", CorruptMessage, patched(&good, AT_CRC, b"\0\0\0\0")),
        ("a flipped bit in a record", CorruptMessage, patched(&good, AT_RECORDS + 8, b"\xff")),
        ("cut short", InvalidRecord, good.slice(..good.len() - 3)),
        ("cut in the header", InvalidRecord, good.slice(..40)),
        ("a length beyond its end", InvalidRecord, patched(&good, AT_LENGTH, &1_000_000_i32.to_be_bytes())),
        ("a length that cannot be", CorruptMessage, patched(&good, AT_LENGTH, &3_i32.to_be_bytes())),
        ("a negative length", CorruptMessage, patched(&good, AT_LENGTH, &(-3_i32).to_be_bytes())),
        ("magic 0", InvalidRecord, patched(&good, AT_MAGIC, &[0])),
        ("magic 1", InvalidRecord, patched(&good, AT_MAGIC, &[1])),
        (
            "more records than it holds",
            InvalidRecord,
            forged(&forged(&good, AT_COUNT, &9_i32.to_be_bytes()), AT_LAST_DELTA, &8_i32.to_be_bytes()),
        ),
        (
            "fewer records than it holds",
            InvalidRecord,
            forged(&forged(&good, AT_COUNT, &2_i32.to_be_bytes()), AT_LAST_DELTA, &1_i32.to_be_bytes()),
        ),
        (
            "two billion records",
            InvalidRecord,
            forged(&forged(&good, AT_COUNT, &i32::MAX.to_be_bytes()), AT_LAST_DELTA, &(i32::MAX - 1).to_be_bytes()),
        ),
        ("a negative count", InvalidRecord, forged(&good, AT_COUNT, &(-3_i32).to_be_bytes())),
        ("offsets that do not fit the count", InvalidRecord, forged(&good, AT_LAST_DELTA, &7_i32.to_be_bytes())),
        ("no record at all", InvalidRecord, BatchBuilder::new().build()),
        ("two batches", InvalidRecord, [good.clone(), good.clone()].concat().into()),
        ("a control batch", InvalidRecord, control.build()),
        ("a transaction that nobody began", TransactionalIdAuthorizationFailed, transactional.build()),
        ("a record longer than the batch", InvalidRecord, forged(&good, AT_RECORDS, b"\xfe\xff\xff\x7f")),
        ("larger than max.message.bytes", MessageTooLarge, batch(&vec![1; 200_000])),
        ("older than allowed", InvalidTimestamp, older(3)),
        ("from the future", InvalidTimestamp, older(-3)),
    ];
    let mut table = Table::default();
    for (case, expected, batch) in cases {
        table.expect(case, expected, answer(&mut client, &topic, batch).await);
    }
    if stand.is_ours() {
        // Kafka stumbles over it (UNKNOWN_SERVER_ERROR).
        let unknown = forged(&good, AT_ATTRIBUTES, &7_i16.to_be_bytes());
        let got = answer(&mut client, &topic, unknown).await;
        table.expect("an unknown codec", ErrorCode::UnsupportedCompressionType, got);
    }
    table.check();
    assert_eq!(answer(&mut client, &topic, good).await, Some(ErrorCode::None));
    assert_eq!(client.offset(&topic, 0, -1).await.expect("the end"), 3, "only the good batch is there");
    witness.is_well().await;
}

#[tokio::test]
async fn what_cannot_be_decompressed_is_refused() {
    let stand = Stand::any().await;
    let mut witness = Witness::at(stand.address(), &[]).await;
    let topic = unique("garbled");
    let mut client = stand.client().await;
    make(&mut client, &topic, 1, &[]).await;
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        for garbage in [&b""[..], b"\0", b"not compressed at all", &[0xff; 300]] {
            let got = answer(&mut client, &topic, compressed(codec, 3, garbage)).await;
            assert!(got.is_some_and(|code| code != ErrorCode::None), "{codec:?} of {garbage:?}: {got:?}");
        }
    }
    witness.is_well().await;
}

/// Many times as much as its batch measures, and as a broker may ever want to hold.
#[tokio::test]
async fn a_bomb_does_not_go_off() {
    let mut stand = Stand::firn(|firn| firn).await;
    let mut witness = Witness::at(stand.address(), &[]).await;
    let topic = unique("bombs");
    let mut client = stand.client().await;
    make(&mut client, &topic, 1, &[("max.message.bytes", "8000000")]).await;
    let before = stand.running().expect("our own").peak_resident_bytes().expect("known");
    for (codec, mebibytes) in [(Codec::Zstd, 64), (Codec::Lz4, 24), (Codec::Gzip, 2)] {
        let mut bomb = BatchBuilder::new().codec(codec);
        let zeros = vec![0; mebibytes << 20];
        bomb.append(now(), None, Some(&zeros), &[]);
        let got = answer(&mut client, &topic, bomb.build()).await;
        let fine = [Some(ErrorCode::None), Some(ErrorCode::InvalidRecord), Some(ErrorCode::MessageTooLarge)];
        assert!(fine.contains(&got), "{codec:?}: {got:?}");
    }
    let grown = stand.running().expect("our own").peak_resident_bytes().expect("known") - before;
    assert!(grown < 12 << 20, "grew by {} MiB", grown >> 20);
    witness.is_well().await;
}

#[tokio::test]
async fn requests_to_produce_that_make_no_sense_get_their_codes() {
    let stand = Stand::any().await;
    let mut witness = Witness::at(stand.address(), &[]).await;
    let topic = witness.topic.clone();
    let mut client = stand.client().await;
    let mut table = Table::default();
    for (case, expected, topic, partition, acks) in [
        ("acks of 7", ErrorCode::InvalidRequiredAcks, &topic[..], 0, 7),
        ("a partition too high", ErrorCode::UnknownTopicOrPartition, &topic, 1, -1),
        ("a negative partition", ErrorCode::UnknownTopicOrPartition, &topic, -1, -1),
        ("a topic that is not there", ErrorCode::UnknownTopicOrPartition, "not-there", 0, -1),
        ("a name that cannot be", ErrorCode::UnknownTopicOrPartition, "not/there", 0, -1),
    ] {
        let request = produce_request(topic, partition, acks, batch(b"x"));
        let got = client.call_in(&request, PRODUCE_BY_NAME).await.expect("an answer");
        table.expect(case, expected, code(produced(got)));
    }
    for (case, version, codec, expected) in [
        ("zstd from a client that cannot know it", 6, Codec::Zstd, ErrorCode::UnsupportedCompressionType),
        ("lz4 from the same", 6, Codec::Lz4, ErrorCode::None),
    ] {
        let mut records = BatchBuilder::new().codec(codec);
        records.append(now(), None, Some(b"x"), &[]);
        let other = unique("codecs");
        make(&mut client, &other, 1, &[]).await;
        let request = produce_request(&other, 0, ACKS_ALL, records.build());
        table.expect(case, expected, code(produced(client.call_in(&request, version).await.expect("an answer"))));
    }
    let mut empty = produce_request(&topic, 0, ACKS_ALL, Bytes::new());
    table.expect(
        "no batch",
        ErrorCode::InvalidRecord,
        code(produced(client.call_in(&empty, PRODUCE_BY_NAME).await.expect("an answer"))),
    );
    empty.topic_data.clear();
    assert!(client.call_in(&empty, PRODUCE_BY_NAME).await.expect("an answer").responses.is_empty());
    table.check();
    witness.is_well().await;
}

#[tokio::test]
async fn sequences_that_cannot_be_get_their_codes() {
    let stand = Stand::any().await;
    let mut client = stand.client().await;
    let topic = unique("sequences");
    make(&mut client, &topic, 1, &[]).await;
    let (id, epoch) = loop {
        match client.producer_id().await {
            Err(error) if error.code().is_some_and(ErrorCode::is_retriable) => {}
            found => break found.expect("an id"),
        }
    };
    let sent = |epoch: i16, sequence: i32| {
        let mut batch = BatchBuilder::new().producer(id, epoch, sequence);
        batch.append(1_700_000_000_000, None, Some(b"x"), &[]);
        batch.build()
    };
    let mut table = Table::default();
    for (case, expected, batch) in [
        ("the first", ErrorCode::None, sent(epoch, 0)),
        ("the second", ErrorCode::None, sent(epoch, 1)),
        ("the second again", ErrorCode::None, sent(epoch, 1)),
        ("a hole", ErrorCode::OutOfOrderSequenceNumber, sent(epoch, 5)),
        ("a new epoch from its middle", ErrorCode::OutOfOrderSequenceNumber, sent(epoch + 1, 3)),
        ("a new epoch", ErrorCode::None, sent(epoch + 1, 0)),
        ("the epoch before", ErrorCode::InvalidProducerEpoch, sent(epoch, 2)),
    ] {
        table.expect(case, expected, answer(&mut client, &topic, batch).await);
    }
    table.check();
    assert_eq!(client.offset(&topic, 0, -1).await.expect("the end"), 3, "the repeated batch is there once");
}
