use bytes::Bytes;
use proptest::prelude::*;
use proto::ids::Offset;

use super::*;
use crate::fixtures::batch;

/// An object of `count` batches of `records` records.
fn sealed(base: Offset, count: i64, records: i64, bytes: usize) -> Sealed {
    let mut builder = ObjectBuilder::new(base);
    for index in 0..count {
        let chunk = batch(base + index * records, 3, records, bytes, 1_000_000 + index * 10);
        assert_eq!(builder.push(&chunk, Offset::MAX, u64::MAX).unwrap(), chunk.len());
    }
    let epochs = EpochHistory { entries: vec![(1, 0), (3, base)] };
    let aborted = vec![AbortedTxn { first_offset: base + 1, last_offset: base + 90, producer_id: 77 }];
    builder.seal(epochs, aborted, Bytes::from_static(b"producers")).unwrap()
}

fn object(sealed: &Sealed) -> Vec<u8> {
    sealed.chunks.iter().flat_map(|chunk| chunk.iter().copied()).collect()
}

#[test]
fn golden_bytes_of_version_1() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/segment-v1.seg");
    let written = object(&sealed(100, 3, 2, 20));
    if std::env::var_os("FIRN_UPDATE_GOLDEN").is_some() {
        std::fs::write(path, &written).unwrap();
    }
    assert_eq!(std::fs::read(path).unwrap(), written, "the format changed: that needs a new version");
}

#[test]
fn the_data_is_verbatim_and_the_footer_says_where_everything_is() {
    let built = sealed(100, 300, 4, 100);
    let bytes = Bytes::from(object(&built));
    assert_eq!(bytes.len() as u64, built.length);
    let footer = Footer::decode(&bytes.slice(built.data_length as usize..)).unwrap();
    assert_eq!(footer, built.footer);
    assert_eq!((footer.base, footer.end), (100, 1300));
    let expected: Vec<u8> =
        (0..300).flat_map(|index| batch(100 + index * 4, 3, 4, 100, 1_000_000 + index * 10).to_vec()).collect();
    assert_eq!(bytes.slice(..built.data_length as usize), expected);
    assert!(footer.offset_index.entries.len() > 5);
    for entry in &footer.offset_index.entries {
        let header = proto::records::BatchHeader::parse(&bytes[entry.position as usize..]).unwrap();
        assert_eq!(header.base_offset, entry.offset);
    }
    assert_eq!(footer.checksums.crcs.len() as u64, built.data_length.div_ceil(65536));
    footer.checksums.verify(0, &expected, built.data_length).unwrap();
    footer.checksums.verify(65536, &expected[65536..131_072], built.data_length).unwrap();
    let mut damaged = expected;
    damaged[70_000] ^= 1;
    assert_eq!(footer.checksums.verify(0, &damaged, built.data_length), Err(FormatError::Checksum { what: "data" }));
}

#[test]
fn lookups_find_the_batch_before() {
    let built = sealed(100, 300, 4, 100);
    let index = &built.footer.offset_index;
    assert_eq!(index.floor(99), None);
    assert_eq!(index.floor(100).unwrap().position, 0);
    for offset in 100..1300 {
        let floor = index.floor(offset).unwrap();
        assert!(floor.offset <= offset);
        let next = index.ceiling_position(floor.position);
        assert!(next.is_none_or(|next| next.offset > offset && next.position > floor.position));
    }
    let times = &built.footer.time_index;
    for timestamp in [999_999, 1_000_000, 1_000_001, 1_001_000, 1_002_990, 1_002_991] {
        // Batch i has the timestamp 1,000,000 + 10 i: no batch before the answer reaches the wanted one.
        let from = times.search_from(timestamp).unwrap_or(100);
        let first = (0..300).find(|index| 1_000_000 + index * 10 >= timestamp);
        assert!(from <= first.map_or(1300, |index| 100 + index * 4), "{timestamp}: {from}");
    }
    assert_eq!(times.reached_at(99), -1);
    assert_eq!(times.reached_at(100), 1_000_000);
}

#[test]
fn points_are_few_and_spread() {
    let built = sealed(0, 3000, 1, 1000);
    let points = built.points(32);
    assert!((17..=32).contains(&points.len()), "{}", points.len());
    assert_eq!(points[0].position, 0);
    assert!(points.windows(2).all(|pair| pair[0].offset < pair[1].offset && pair[0].timestamp <= pair[1].timestamp));
    assert!(points.last().unwrap().position > built.data_length * 3 / 4);
}

#[test]
fn an_object_takes_whole_batches_up_to_its_bounds() {
    let chunk: Bytes = (0..10).flat_map(|index| batch(index * 5, 1, 5, 50, 7).to_vec()).collect::<Vec<u8>>().into();
    let one = chunk.len() / 10;
    let mut builder = ObjectBuilder::new(0);
    assert_eq!(builder.push(&chunk, 18, u64::MAX).unwrap(), 3 * one, "the batch over 18 stays");
    assert_eq!(builder.end(), 15);
    assert_eq!(builder.push(&chunk.slice(3 * one..), 50, 5 * one as u64 + 1).unwrap(), 2 * one, "full");
    let mut single = ObjectBuilder::new(0);
    assert_eq!(single.push(&chunk, 50, 1).unwrap(), one, "the first batch goes in whatever its size");
    let gap = ObjectBuilder::new(25).push(&chunk, 50, u64::MAX);
    assert_eq!(gap, Err(BuildError::Order { expected: 25, got: 0 }));
    let empty = ObjectBuilder::new(0).seal(EpochHistory::default(), Vec::new(), Bytes::new());
    assert_eq!(empty, Err(BuildError::Empty));
}

#[test]
fn sections_of_a_later_version_are_passed_over() {
    let built = sealed(0, 2, 1, 10);
    let footer = built.chunks.last().unwrap();
    let trailer = Trailer::decode(&footer[footer.len() - TRAILER_BYTES..]).unwrap();
    let at = trailer.directory_position as usize;
    let mut directory = Directory::decode(&footer[at..footer.len() - TRAILER_BYTES]).unwrap();
    let mut out = footer[..at].to_vec();
    out.extend_from_slice(b"what later versions know");
    directory.entries.insert(0, DirectoryEntry { kind: 999, position: at as u64, length: 24, crc: 0 });
    let position = out.len();
    directory.encode(&mut out);
    let encoded = &out[position..];
    let trailer = Trailer {
        directory_position: position as u64,
        directory_length: encoded.len() as u32,
        directory_crc: crc32c::crc32c(encoded),
        ..trailer
    };
    trailer.encode(&mut out);
    assert_eq!(Footer::decode(&Bytes::from(out)).unwrap(), built.footer);
}

#[test]
fn epochs_are_clipped_to_the_range() {
    let history = EpochHistory { entries: vec![(1, 0), (4, 10), (5, 20)] };
    assert_eq!(history.clipped(0, 10), vec![(1, 0)]);
    assert_eq!(history.clipped(12, 20), vec![(4, 10)]);
    assert_eq!(history.clipped(12, 21), vec![(4, 10), (5, 20)]);
}

proptest! {
    #[test]
    fn footers_round_trip(
        base in 0i64..1 << 40,
        shape in proptest::collection::vec((1i64..20, 0usize..300, -1i64..1 << 40), 1..60),
        epochs in proptest::collection::btree_map(0i32..1000, 0i64..1000, 0..5),
        producers in proptest::collection::vec(any::<u8>(), 0..100),
        aborted in proptest::collection::vec((0i64..1000, 0i64..1000, any::<i64>()), 0..5),
    ) {
        let mut builder = ObjectBuilder::new(base);
        let mut next = base;
        for (records, bytes, timestamp) in shape {
            let chunk = batch(next, 1, records, bytes, timestamp);
            builder.push(&chunk, Offset::MAX, u64::MAX).unwrap();
            next += records;
        }
        let mut start = 0;
        let entries = epochs.into_iter().map(|(epoch, step)| { start += step; (epoch, start) }).collect();
        let aborted = aborted
            .into_iter()
            .map(|(first, length, producer_id)| AbortedTxn { first_offset: first, last_offset: first + length, producer_id })
            .collect();
        let built = builder.seal(EpochHistory { entries }, aborted, Bytes::from(producers)).unwrap();
        let footer = built.chunks.last().unwrap();
        prop_assert_eq!(Footer::decode(footer).unwrap(), built.footer);
    }

    #[test]
    fn trailers_and_directories_round_trip(
        range in (0i64..i64::MAX, 1i64..1 << 40),
        lengths in (any::<u64>(), any::<u64>(), any::<u32>(), any::<u32>()),
        sections in proptest::collection::vec((any::<u16>(), any::<u64>(), any::<u32>(), any::<u32>()), 0..40),
    ) {
        let (data_length, directory_position, directory_length, directory_crc) = lengths;
        let base = range.0.min(i64::MAX - range.1);
        let trailer =
            Trailer { base, end: base + range.1, data_length, directory_position, directory_length, directory_crc };
        let mut bytes = Vec::new();
        trailer.encode(&mut bytes);
        prop_assert_eq!(bytes.len(), TRAILER_BYTES);
        prop_assert_eq!(Trailer::decode(&bytes), Ok(trailer));
        let entries =
            sections.into_iter().map(|(kind, position, length, crc)| DirectoryEntry { kind, position, length, crc });
        let directory = Directory { entries: entries.collect() };
        let mut bytes = Vec::new();
        directory.encode(&mut bytes);
        prop_assert_eq!(Directory::decode(&bytes), Ok(directory));
    }

    #[test]
    fn one_flipped_bit_is_always_seen(at in any::<proptest::sample::Index>(), bit in 0u8..8) {
        let built = sealed(100, 20, 2, 30);
        let mut footer = built.chunks.last().unwrap().to_vec();
        let at = at.index(footer.len());
        footer[at] ^= 1 << bit;
        prop_assert!(Footer::decode(&Bytes::from(footer)).is_err());
    }

    #[test]
    fn garbage_and_truncation_are_errors(bytes in proptest::collection::vec(any::<u8>(), 0..300), cut in any::<proptest::sample::Index>()) {
        prop_assert!(Footer::decode(&Bytes::from(bytes)).is_err());
        let built = sealed(0, 5, 2, 30);
        let footer = built.chunks.last().unwrap();
        let cut = cut.index(footer.len());
        prop_assert!(Footer::decode(&footer.slice(..cut)).is_err());
    }

    #[test]
    fn sections_decode_or_fail_on_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let most = bytes.len();
        prop_assert!(OffsetIndex::decode(&bytes).map_or(0, |index| index.entries.len()) <= most);
        prop_assert!(TimeIndex::decode(&bytes).map_or(0, |index| index.entries.len()) <= most);
        prop_assert!(EpochHistory::decode(&bytes).map_or(0, |history| history.entries.len()) <= most);
        prop_assert!(aborted::decode(&bytes).map_or(0, |aborted| aborted.len()) <= most);
        prop_assert!(Checksums::decode(&bytes).map_or(0, |checksums| checksums.crcs.len()) <= most);
        prop_assert!(Directory::decode(&bytes).map_or(0, |directory| directory.entries.len()) <= most);
    }
}
