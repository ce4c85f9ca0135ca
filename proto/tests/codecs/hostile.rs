//! Bytes from someone who means harm, or from a broken connection.

use bytes::Bytes;
use proptest::prelude::*;
use proto::{
    messages::{
        codecs::{CODECS, Codec},
        share_fetch_response,
    },
    wire::{Decoder, Encoder, WireError},
};

use crate::{agreement::all, memory::peak, random::Random};

/// Decoding and showing nothing: what is measured is what the message itself takes.
fn decode(codec: &Codec, frame: &Bytes, version: i16, limit: Option<usize>) -> (usize, Result<(), WireError>) {
    let frame = frame.clone();
    peak(|| {
        let mut d = match limit {
            Some(limit) => Decoder::with_limit(frame, limit),
            None => Decoder::new(frame),
        };
        (codec.check)(&mut d, version)
    })
}

/// The bounds that [`Decoder`] promises.
///
/// Reserved ahead of its data is at most the frame's size, and strings are copies of parts of the frame: with a limit of the frame's size,
/// nothing else is there, since no array may then grow beyond what was reserved. With the usual limit arrays may grow with
/// the elements that are really there, which doubles a vector at most and keeps the old one while it is copied.
fn check(codec: &Codec, frame: &Bytes, version: i16) -> Result<(), WireError> {
    let n = frame.len();
    let (strict, tight) = decode(codec, frame, version, Some(n));
    assert!(strict <= 2 * n, "{} version {version}: {strict} bytes for a frame of {n}", codec.name);
    let (usual, result) = decode(codec, frame, version, None);
    let limit = 16 * n + 64 * 1024;
    assert!(usual <= 2 * n + 3 * limit, "{} version {version}: {usual} bytes for a frame of {n}", codec.name);
    match tight {
        Err(WireError::TooDense { .. }) => {}
        tight => assert_eq!(tight, result, "the limit changes nothing else"),
    }
    result
}

#[test]
fn every_truncation_is_an_error() {
    for (schema, codec) in all() {
        for version in schema.versions.min..=schema.versions.max {
            let bytes = Bytes::from(schema.make(&mut Random::for_message(&schema.name, version), version, 2));
            assert_eq!(check(&codec, &bytes, version), Ok(()), "{} version {version}", schema.name);
            for end in 0..bytes.len() {
                let result = check(&codec, &bytes.slice(..end), version);
                assert!(result.is_err(), "{} version {version} cut at {end} of {}", schema.name, bytes.len());
            }
        }
    }
}

/// Wherever a count may stand, a lie about it reserves no more than the frame's own size; beyond that there are only the strings before it.
#[test]
fn a_lying_count_reserves_nothing() {
    for (schema, codec) in all() {
        let n = 4096;
        for version in schema.versions.min..=schema.versions.max {
            let bytes = schema.make(&mut Random::for_message(&schema.name, version), version, 2);
            for at in 0..bytes.len().min(200) {
                for lie in [
                    &[0x7f, 0xff, 0xff, 0xff][..],
                    &[0x00, 0x00, 0x0f, 0xff],
                    &[0xff, 0xff, 0xff, 0xff, 0x0f],
                    &[0xff, 0x1f],
                ] {
                    let mut frame = bytes[..at].to_vec();
                    frame.extend(lie);
                    frame.resize(n.max(frame.len()), 0xff);
                    let frame = Bytes::from(frame);
                    let (taken, _) = decode(&codec, &frame, version, Some(frame.len()));
                    assert!(taken <= frame.len() + at, "{} version {version} at {at}: {taken}", codec.name);
                }
            }
        }
    }
}

/// A records field is a slice of the frame: it takes nothing beyond its place in the structure it stands in, however
/// few bytes it has.
#[test]
fn a_records_field_takes_no_memory_of_its_own() {
    let partition = share_fetch_response::PartitionData {
        error_message: Some("x".repeat(size_of::<share_fetch_response::PartitionData>())),
        records: Some(Bytes::from_static(b"x").into()),
        ..Default::default()
    };
    let topic =
        share_fetch_response::ShareFetchableTopicResponse { partitions: vec![partition; 100], ..Default::default() };
    let response = share_fetch_response::ShareFetchResponse { responses: vec![topic], ..Default::default() };
    let mut e = Encoder::new();
    response.encode(&mut e, 1).expect("a valid response");
    let codec = CODECS.iter().find(|codec| codec.name == "ShareFetchResponse").expect("it is one of Kafka's");
    assert_eq!(check(codec, &e.into_bytes().expect("it is short"), 1), Ok(()));
}

/// As many cases as `PROPTEST_CASES` asks for, at least 4,000.
fn config() -> ProptestConfig {
    let asked = ProptestConfig::default();
    ProptestConfig { cases: asked.cases.max(4_000), failure_persistence: None, ..asked }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn arbitrary_bytes_neither_panic_nor_blow_up(
        codec in proptest::sample::select(CODECS),
        version in any::<proptest::sample::Index>(),
        frame in proptest::collection::vec(any::<u8>(), 0..600),
    ) {
        let range: Vec<i16> = (codec.versions.min..=codec.versions.max).collect();
        accepted_or_refused(&codec, version.get(&range).to_owned(), frame);
    }

    #[test]
    fn damaged_messages_neither_panic_nor_blow_up(
        which in any::<proptest::sample::Index>(),
        version in any::<proptest::sample::Index>(),
        seed in any::<u64>(),
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let all = ALL.get_or_init(all);
        let (schema, codec) = which.get(all);
        let range: Vec<i16> = (schema.versions.min..=schema.versions.max).collect();
        let version = *version.get(&range);
        let mut frame = schema.make(&mut Random(seed), version, 3);
        if !frame.is_empty() {
            for (at, byte) in damage {
                let at = at.index(frame.len());
                frame[at] = byte;
            }
        }
        accepted_or_refused(codec, version, frame);
    }
}

static ALL: std::sync::OnceLock<Vec<(crate::facts::Schema, Codec)>> = std::sync::OnceLock::new();

/// What is accepted can be written and read again, to the same bytes.
fn accepted_or_refused(codec: &Codec, version: i16, frame: Vec<u8>) {
    let frame = Bytes::from(frame);
    if check(codec, &frame, version).is_err() {
        return;
    }
    let mut e = Encoder::new();
    (codec.transcode)(&mut Decoder::new(frame), &mut e, version).expect("what was read can be written");
    let first = e.into_bytes().expect("it is short");
    let mut e = Encoder::new();
    (codec.transcode)(&mut Decoder::new(first.clone()), &mut e, version).expect("what was written can be read");
    assert_eq!(e.into_bytes().expect("it is short"), first, "{} version {version}", codec.name);
}
