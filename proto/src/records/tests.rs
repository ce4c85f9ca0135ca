//! Batches against Kafka's own bytes, against another implementation, and against damage.

use bytes::{Bytes, BytesMut};
use kafka_protocol::records as other;
use proptest::prelude::*;

use super::error::RecordFault;
use super::header::{AT_ATTRIBUTES, AT_CRC};
use super::read::Records;
use super::*;
use crate::errors::ErrorCode;

const MAX: usize = 1 << 24;

/// Batches written by the Java client 4.3.1, one line for each codec: `name hex`.
const JAVA: &str = include_str!("../../tests/golden/record-batches.txt");

fn java(name: &str) -> Vec<u8> {
    let (_, hex) =
        JAVA.lines().filter_map(|line| line.split_once(' ')).find(|(of, _)| *of == name).expect("it is there");
    (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).expect("hex")).collect()
}

/// A record that owns what it holds.
#[derive(Debug, Clone, PartialEq)]
struct Owned {
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

fn owned(timestamp: i64, key: Option<&str>, value: Option<&[u8]>) -> Owned {
    Owned { timestamp, key: key.map(|key| key.into()), value: value.map(<[u8]>::to_vec), headers: vec![] }
}

fn append(builder: &mut BatchBuilder, record: &Owned) {
    let headers: Vec<Header<'_>> =
        record.headers.iter().map(|(key, value)| Header { key, value: value.as_deref() }).collect();
    builder.append(record.timestamp, record.key.as_deref(), record.value.as_deref(), &headers);
}

fn build(mut builder: BatchBuilder, records: &[Owned]) -> Bytes {
    records.iter().for_each(|record| append(&mut builder, record));
    builder.build()
}

fn decode(batch: &[u8]) -> Vec<Owned> {
    let batch = BatchRef::first(batch).expect("a batch");
    let mut records = Vec::new();
    for_each_record(&batch, MAX, |record| {
        records.push(Owned {
            timestamp: record.timestamp,
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers: record.headers.map(|(key, value)| (key.to_vec(), value.map(<[u8]>::to_vec))).collect(),
        });
    })
    .expect("well-formed records");
    records
}

/// What the Java batches hold.
fn golden_records() -> Vec<Owned> {
    let big: Vec<u8> = (0..300_u32).map(|at| (at % 7) as u8).collect();
    let mut with_headers = owned(1_699_999_999_000, Some("key-2"), None);
    with_headers.headers = vec![(b"h1".to_vec(), Some(vec![1, 2, 3])), (b"h2".to_vec(), None)];
    vec![
        owned(1_700_000_000_000, Some("key-0"), Some(b"value-0")),
        owned(1_700_000_000_123, None, Some(&big)),
        with_headers,
        owned(1_700_000_000_999, Some(""), Some(b"")),
    ]
}

#[test]
fn the_size_with_a_record_is_known_before_it_is_appended() {
    let mut builder = BatchBuilder::new();
    let mut records = golden_records();
    records.push(owned(i64::MAX, None, Some(&vec![b'v'; 70_000])));
    for record in records.iter().cycle().take(300) {
        let Owned { timestamp, key, value, .. } = record;
        let headers: Vec<Header<'_>> =
            record.headers.iter().map(|(key, value)| Header { key, value: value.as_deref() }).collect();
        let expected = builder.size_with(*timestamp, key.as_deref(), value.as_deref(), &headers);
        append(&mut builder, record);
        assert_eq!(builder.size(), expected);
    }
}

fn golden_builder() -> BatchBuilder {
    BatchBuilder::new().base_offset(42).leader_epoch(5).producer(4711, 3, 17)
}

#[test]
fn an_uncompressed_batch_is_javas_byte_for_byte() {
    assert_eq!(build(golden_builder(), &golden_records()).as_ref(), java("none"));
}

#[test]
fn a_transaction_marker_is_javas_byte_for_byte() {
    let mut marker = BatchBuilder::end_transaction(4711, 3, true, 9, 1_700_000_000_000).to_vec();
    patch_base_offset_and_epoch(&mut marker, 100, 5);
    assert_eq!(marker, java("commit"));
    let batch = BatchRef::first(&marker).expect("a batch");
    assert_eq!(control_record(&batch), Ok(Some(ControlRecord::Commit { coordinator_epoch: 9 })));
    let abort = BatchBuilder::end_transaction(4711, 3, false, 8, 0);
    let batch = BatchRef::first(&abort).expect("a batch");
    assert_eq!(control_record(&batch), Ok(Some(ControlRecord::Abort { coordinator_epoch: 8 })));
}

#[test]
fn javas_batches_of_every_codec_are_read() {
    for codec in Codec::ALL {
        let batch = java(codec.name());
        let info = validate(&batch, &Limits::default()).expect("valid");
        assert_eq!((info.codec, info.record_count, info.last_offset_delta), (codec, 4, 3));
        assert_eq!(
            (info.producer_id, info.producer_epoch, info.base_sequence, info.last_sequence()),
            (4711, 3, 17, 20)
        );
        assert_eq!((info.max_timestamp, info.fix_max_timestamp), (1_700_000_000_999, false));
        assert_eq!((info.base_offset, info.last_offset(), info.leader_epoch), (42, 45, 5));
        assert_eq!(check(&batch), Ok(info));
        assert_eq!(decode(&batch), golden_records());
    }
}

#[test]
fn a_bare_snappy_block_is_read() {
    let records = golden_records();
    let plain = build(golden_builder(), &records);
    let block = snap::raw::Encoder::new().compress_vec(&plain[HEADER_LEN..]).expect("fits");
    let batch = with_body(&plain, Codec::Snappy, &block);
    assert!(validate(&batch, &Limits::default()).is_ok());
    assert_eq!(decode(&batch), records);
}

#[test]
fn zstd_with_a_window_above_8_mib_is_read() {
    let mut builder = BatchBuilder::new().codec(Compression { codec: Codec::Zstd, level: Some(3) });
    let value = vec![7; 9 << 20];
    builder.append(0, None, Some(&value), &[]);
    let batch = builder.build();
    assert!(validate(&batch, &Limits::default()).is_ok());
}

/// `plain` with another body and codec, and a header that fits.
fn with_body(plain: &[u8], codec: Codec, body: &[u8]) -> Vec<u8> {
    let mut header = BatchHeader::parse(plain).expect("a header");
    header.attributes = (header.attributes & !0b111) | i16::from(codec.number());
    header.length = (HEADER_LEN - LENGTH_PREFIX + body.len()) as i32;
    resealed(&header, body)
}

/// The batch with that header and body, under the right CRC.
fn resealed(header: &BatchHeader, body: &[u8]) -> Vec<u8> {
    let mut batch = [&header.to_bytes(), body].concat();
    let crc = crc32c::crc32c(&batch[AT_ATTRIBUTES..]);
    batch[AT_CRC..AT_CRC + 4].copy_from_slice(&crc.to_be_bytes());
    batch
}

/// The plain golden batch from a producer, with its header changed.
fn changed(change: impl FnOnce(&mut BatchHeader)) -> Vec<u8> {
    let plain = build(BatchBuilder::new().producer(4711, 3, 17), &golden_records());
    let mut header = BatchHeader::parse(&plain).expect("a header");
    change(&mut header);
    resealed(&header, &plain[HEADER_LEN..])
}

fn code(batch: &[u8]) -> ErrorCode {
    match validate_produce(batch, &Limits::default()) {
        Ok(_) => ErrorCode::None,
        Err(error) => error.code(),
    }
}

/// The answers of a Kafka 4.3.1 broker to the same damage.
#[test]
fn damage_is_answered_as_kafka_does() {
    use ErrorCode::{CorruptMessage, InvalidRecord, None};
    assert_eq!(code(&changed(|_| ())), None);
    assert_eq!(code(&changed(|header| header.record_count = 3)), InvalidRecord);
    assert_eq!(code(&changed(|header| header.record_count = 5)), InvalidRecord);
    assert_eq!(code(&changed(|header| header.record_count = -1)), InvalidRecord);
    assert_eq!(code(&changed(|header| (header.record_count, header.last_offset_delta) = (0, -1))), InvalidRecord);
    assert_eq!(code(&changed(|header| (header.record_count, header.last_offset_delta) = (5, 4))), InvalidRecord);
    assert_eq!(code(&changed(|header| (header.record_count, header.last_offset_delta) = (3, 2))), InvalidRecord);
    assert_eq!(code(&changed(|header| header.last_offset_delta = i32::MAX)), InvalidRecord);
    assert_eq!(code(&changed(|header| header.base_offset = 5)), InvalidRecord);
    assert_eq!(code(&changed(|header| header.attributes |= 1 << 5)), InvalidRecord);
    assert_eq!(code(&changed(|header| header.base_sequence = -1)), InvalidRecord);
    assert_eq!(code(&changed(|header| header.leader_epoch = 9)), None);
    assert_eq!(code(&changed(|header| header.magic = 0)), InvalidRecord);
    assert_eq!(code(&changed(|header| header.magic = 1)), InvalidRecord);
    assert_eq!(code(&changed(|header| header.magic = 3)), CorruptMessage);
    assert_eq!(code(&changed(|header| header.length = -100)), CorruptMessage);
    assert_eq!(code(&changed(|header| header.length = 10)), CorruptMessage);
    assert_eq!(code(&changed(|header| header.length += 5)), InvalidRecord);
    let whole = changed(|_| ());
    assert_eq!(code(&[]), InvalidRecord);
    assert_eq!(code(b"abc"), InvalidRecord);
    assert_eq!(code(&whole[..whole.len() - 3]), InvalidRecord);
    assert_eq!(code(&[whole.clone(), whole.clone()].concat()), InvalidRecord);
    let mut bad_crc = whole;
    bad_crc[AT_CRC] ^= 1;
    assert_eq!(code(&bad_crc), CorruptMessage);
    assert_eq!(code(&changed(|header| header.attributes |= 5)), ErrorCode::UnsupportedCompressionType);
}

/// Bodies that lie, each with the fault it must be refused for; plain and gzipped alike.
#[test]
fn malformed_records_are_named() {
    use RecordFault::{Length, Negative, OffsetDelta, Short, Varint};
    let record = |index, why| BatchError::Record { index, why };
    let good: &[u8] = &[16, 0, 0, 0, 2, b'k', 2, b'v', 0];
    let cases: [(&str, Vec<u8>, BatchError); 9] = [
        ("cut short", good[..7].to_vec(), record(0, Short)),
        ("negative length", [&[9], &good[1..]].concat(), record(0, Negative)),
        ("length too big", [&[18], &good[1..], &[0]].concat(), record(0, Length)),
        ("offset delta 1", [&good[..3], &[2], &good[4..]].concat(), record(0, OffsetDelta)),
        ("negative header count", [&good[..8], &[1]].concat(), record(0, Negative)),
        ("header without key", [&[20], &good[1..8], &[2, 1, 1]].concat(), record(0, Negative)),
        ("endless varint", vec![0xff; 12], record(0, Varint)),
        ("value past the end", [&good[..6], &[0x7e], &good[7..]].concat(), record(0, Short)),
        ("bytes left over", [good, b"xx"].concat(), BatchError::Leftover(1)),
    ];
    let plain = build(BatchBuilder::new(), &[owned(0, None, None)]);
    assert!(validate(&with_body(&plain, Codec::None, good), &Limits::default()).is_ok());
    for (name, body, expected) in cases {
        let batch = with_body(&plain, Codec::None, &body);
        assert_eq!(validate(&batch, &Limits::default()), Err(expected.clone()), "{name}");
        let mut packed = encode::Bounded::new(Vec::new(), 1 << 20);
        encode::compress(Codec::Gzip.into(), &mut &body[..], None, &mut packed).expect("memory");
        let batch = with_body(&plain, Codec::Gzip, &packed.bytes);
        assert_eq!(validate(&batch, &Limits::default()), Err(expected), "{name}, gzipped");
    }
}

#[test]
fn limits_hold() {
    let batch = build(BatchBuilder::new(), &[owned(5, Some("k"), None), owned(50, None, None)]);
    let limits = Limits { max_batch_bytes: batch.len() - 1, ..Limits::default() };
    let error = validate(&batch, &limits).expect_err("too large");
    assert_eq!((error.code(), error.record_index()), (ErrorCode::MessageTooLarge, None));
    let limits = Limits { timestamps: Some(Limits::timestamp_range(30, 25, 10)), ..Limits::default() };
    let error = validate(&batch, &limits).expect_err("50 is later than 40");
    assert_eq!((error.code(), error.record_index()), (ErrorCode::InvalidTimestamp, Some(1)));
    let limits = Limits { needs_key: true, ..Limits::default() };
    assert_eq!(validate(&batch, &limits), Err(BatchError::NoKey(1)));
    let zstd = build(BatchBuilder::new().codec(Codec::Zstd), &[owned(5, None, None)]);
    let limits = Limits { zstd: false, ..Limits::default() };
    assert_eq!(validate(&zstd, &limits), Err(BatchError::CodecNotAllowed(Codec::Zstd)));
}

#[test]
fn a_bomb_is_refused_while_it_unfolds() {
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let batch = build(BatchBuilder::new().codec(codec), &[owned(0, None, Some(&vec![0; 8 << 20]))]);
        let limits = Limits { max_uncompressed_bytes: 1 << 20, ..Limits::default() };
        assert_eq!(validate(&batch, &limits), Err(BatchError::Bomb(1 << 20)), "{codec}");
        let batch = BatchRef::first(&batch).expect("a batch");
        assert_eq!(Records::new(&batch, 1 << 20).err(), Some(BatchError::Bomb(1 << 20)), "{codec}");
    }
}

#[test]
fn recompression_is_bounded_on_both_sides() {
    let bomb = build(BatchBuilder::new().codec(Codec::Zstd), &[owned(0, None, Some(&vec![0; 8 << 20]))]);
    let bomb = BatchRef::first(&bomb).expect("a batch");
    for to in Codec::ALL {
        let limits = Limits { max_uncompressed_bytes: 1 << 20, ..Limits::default() };
        let error = recompress(&bomb, to.into(), &limits).expect_err("the records are too large");
        assert_eq!(error.code(), ErrorCode::MessageTooLarge, "{to}");
    }
    let error = recompress(&bomb, Codec::None.into(), &Limits::default()).expect_err("the batch is too large");
    assert!(matches!(error, BatchError::TooLarge { max: 1_048_588, .. }), "{error}");
    let noise: Vec<u8> = (0..400_u32).flat_map(|at| at.wrapping_mul(2_654_435_761).to_be_bytes()).collect();
    let plain = build(BatchBuilder::new(), &[owned(0, None, Some(&noise))]);
    for to in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let limits = Limits { max_batch_bytes: 200, ..Limits::default() };
        let error = recompress(&BatchRef::first(&plain).expect("a batch"), to.into(), &limits).expect_err("no room");
        assert!(matches!(error, BatchError::TooLarge { max: 200, .. }), "{to}: {error}");
    }
}

#[test]
fn a_snappy_block_cannot_reserve_what_it_cannot_fill() {
    // A preamble that claims 100 MiB and three bytes behind it.
    let plain = build(BatchBuilder::new(), &[owned(0, None, None)]);
    let batch = with_body(&plain, Codec::Snappy, &[0x80, 0x80, 0x80, 0x32, 0, 0, 0]);
    assert!(matches!(validate(&batch, &Limits::default()), Err(BatchError::Compression { .. })));
}

#[test]
fn a_wrong_max_timestamp_is_found_and_repaired() {
    let mut batch = changed(|header| header.max_timestamp = 77);
    let info = validate(&batch, &Limits::default()).expect("valid otherwise");
    assert_eq!((info.max_timestamp, info.fix_max_timestamp), (1_700_000_000_999, true));
    set_max_timestamp(&mut batch, info.max_timestamp).expect("whole");
    let info = validate(&batch, &Limits::default()).expect("repaired");
    assert!(!info.fix_max_timestamp);
}

#[test]
fn log_append_time_covers_all_records() {
    let mut batch = changed(|_| ());
    set_log_append_time(&mut batch, 1234).expect("whole");
    assert!(check(&batch).is_ok());
    assert_eq!(validate(&batch, &Limits::default()), Err(BatchError::TimestampType));
    assert!(decode(&batch).iter().all(|record| record.timestamp == 1234));
    let batch = BatchRef::first(&batch).expect("a batch");
    assert_eq!(find_timestamp(&batch, 1234, MAX), Ok(Some((0, 1234))));
    assert_eq!(find_timestamp(&batch, 1235, MAX), Ok(None));
    assert_eq!(max_timestamp_and_offset(&batch, MAX), Ok(Some((1234, 0))));
}

#[test]
fn timestamps_are_found() {
    for name in ["none", "zstd"] {
        let batch = java(name);
        let batch = BatchRef::first(&batch).expect("a batch");
        assert_eq!(find_timestamp(&batch, 0, MAX), Ok(Some((42, 1_700_000_000_000))));
        assert_eq!(find_timestamp(&batch, 1_700_000_000_001, MAX), Ok(Some((43, 1_700_000_000_123))));
        assert_eq!(find_timestamp(&batch, 1_700_000_000_999, MAX), Ok(Some((45, 1_700_000_000_999))));
        assert_eq!(find_timestamp(&batch, 1_700_000_001_000, MAX), Ok(None));
        assert_eq!(max_timestamp_and_offset(&batch, MAX), Ok(Some((1_700_000_000_999, 45))));
    }
}

#[test]
fn compaction_keeps_offsets_and_the_span() {
    let mut builder = BatchBuilder::new().base_offset(100).last_offset_at_least(120);
    builder.append_at(103, 5, Some(b"a"), None, &[]);
    builder.append_at(110, 6, Some(b"b"), None, &[]);
    let batch = builder.build();
    let info = check(&batch).expect("a broker's batch need not be dense");
    assert_eq!((info.record_count, info.base_offset, info.last_offset()), (2, 100, 120));
    let mut offsets = Vec::new();
    let batch = BatchRef::first(&batch).expect("a batch");
    for_each_record(&batch, MAX, |record| offsets.push(record.offset)).expect("well-formed");
    assert_eq!(offsets, [103, 110]);
    assert!(matches!(validate(batch.bytes, &Limits::default()), Err(BatchError::Count { .. })));
}

#[test]
fn sequences_wrap_as_kafkas() {
    assert_eq!(add_sequence(i32::MAX, 1), 0);
    assert_eq!(add_sequence(i32::MAX - 2, 5), 2);
    assert_eq!(add_sequence(0, 4), 4);
}

#[test]
fn a_cut_tail_ends_the_walk_with_its_position() {
    let all = [java("none"), java("lz4"), java("zstd")].concat();
    let cut = &all[..all.len() - 1];
    let mut walk = batches(cut);
    let sizes: Vec<usize> = walk.by_ref().map_while(Result::ok).map(|batch| batch.bytes.len()).collect();
    assert_eq!(sizes, [java("none").len(), java("lz4").len()]);
    assert_eq!(walk.position(), java("none").len() + java("lz4").len());
    assert!(walk.next().is_none(), "an error is the last item");
    assert_eq!(batches(&all).filter(Result::is_ok).count(), 3);
}

fn any_bytes() -> impl Strategy<Value = Option<Vec<u8>>> {
    prop::option::weighted(0.8, prop::collection::vec(any::<u8>(), 0..200))
}

fn any_record() -> impl Strategy<Value = Owned> {
    let header = ("[a-z]{0,8}", any_bytes()).prop_map(|(key, value)| (key.into_bytes(), value));
    (0..1_i64 << 50, any_bytes(), any_bytes(), prop::collection::vec(header, 0..4))
        .prop_map(|(timestamp, key, value, headers)| Owned { timestamp, key, value, headers })
}

fn any_codec() -> impl Strategy<Value = Codec> {
    prop::sample::select(Codec::ALL.to_vec())
}

proptest! {
    #[test]
    fn any_records_come_back(records in prop::collection::vec(any_record(), 1..40), codec in any_codec(), to in any_codec()) {
        let batch = build(BatchBuilder::new().codec(codec).producer(1, 0, 7), &records);
        let info = validate_produce(&batch, &Limits::default()).expect("valid");
        prop_assert_eq!(info.size, batch.len());
        prop_assert_eq!(info.record_count as usize, records.len());
        prop_assert_eq!(info.max_timestamp, records.iter().map(|record| record.timestamp).max().expect("some"));
        prop_assert!(!info.fix_max_timestamp);
        prop_assert_eq!(&decode(&batch), &records);
        let again = recompress(&BatchRef::first(&batch).expect("a batch"), to.into(), &Limits::default()).expect("valid");
        let info = validate_produce(&again, &Limits::default()).expect("valid");
        prop_assert_eq!(info.codec, to);
        prop_assert_eq!(decode(&again), records);
    }

    #[test]
    fn another_implementation_writes_the_same_bytes(mut records in prop::collection::vec(any_record(), 1..20)) {
        // It counts timestamps from the smallest, Java and we from the first; its headers are a map.
        records.sort_by_key(|record| record.timestamp);
        records.iter_mut().for_each(|record| record.headers.dedup_by(|one, two| one.0 == two.0));
        records.iter_mut().for_each(|record| record.headers.truncate(1));
        let theirs: Vec<other::Record> = records.iter().enumerate().map(|(at, record)| other::Record {
            transactional: true, control: false, delete_horizon: false, partition_leader_epoch: -1, producer_id: 9,
            producer_epoch: 2, timestamp_type: other::TimestampType::Creation, offset: at as i64,
            sequence: 100 + at as i32, timestamp: record.timestamp,
            key: record.key.clone().map(Bytes::from), value: record.value.clone().map(Bytes::from),
            headers: record.headers.iter().map(|(key, value)| (
                kafka_protocol::protocol::StrBytes::from_string(String::from_utf8(key.clone()).expect("ascii")),
                value.clone().map(Bytes::from),
            )).collect(),
        }).collect();
        let options = other::RecordEncodeOptions { version: 2, compression: other::Compression::None };
        let mut expected = BytesMut::new();
        other::RecordBatchEncoder::encode(&mut expected, &theirs, &options).expect("encodes");
        let ours = build(BatchBuilder::new().producer(9, 2, 100).transactional(), &records);
        prop_assert_eq!(ours.as_ref(), expected.as_ref());
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = validate_produce(&bytes, &Limits::default());
        let _ = check(&bytes);
        let _ = batches(&bytes).count();
    }

    #[test]
    fn arbitrary_bodies_never_panic_nor_pass_their_limit(
        body in prop::collection::vec(any::<u8>(), 0..400), codec in any_codec(), count in 0..100_i32,
    ) {
        let mut plain = build(BatchBuilder::new(), &[owned(0, None, None)]).to_vec();
        plain[57..61].copy_from_slice(&count.to_be_bytes());
        plain[23..27].copy_from_slice(&(count - 1).to_be_bytes());
        let batch = with_body(&plain, codec, &body);
        let limits = Limits { max_uncompressed_bytes: 4096, ..Limits::default() };
        let valid = validate(&batch, &limits).is_ok();
        let batch = BatchRef::first(&batch).expect("whole");
        let records = Records::new(&batch, 4096);
        let read = records.as_ref().map(|records| records.iter().all(|record| record.is_ok()));
        // What validation lets through can be read.
        prop_assert!(!valid || read == Ok(true));
        let _ = find_timestamp(&batch, i64::MIN, 4096);
        let _ = control_record(&batch);
    }

    #[test]
    fn any_flipped_bit_is_found(records in prop::collection::vec(any_record(), 1..5), codec in any_codec(), bit in any::<prop::sample::Index>()) {
        let mut batch = build(BatchBuilder::new().codec(codec), &records).to_vec();
        let bit = bit.index(batch.len() * 8);
        // The leader epoch is the broker's to write: whatever a producer sends there is overwritten.
        prop_assume!(!(12..16).contains(&(bit / 8)));
        batch[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(validate_produce(&batch, &Limits::default()).is_err());
    }
}
