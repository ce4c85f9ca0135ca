use proptest::prelude::*;

use super::*;

fn entry(offset: i64, position: u64, timestamp: i64) -> IndexEntry {
    IndexEntry { offset, position, timestamp }
}

fn summary() -> SegmentSummary {
    let mut index = SparseIndex::new(4096);
    index.offer(entry(100, 0, 5));
    index.offer(entry(110, 4096, 9));
    SegmentSummary {
        base: 100,
        end: 130,
        bytes: 9000,
        max_timestamp: 12,
        max_timestamp_offset: 120,
        last_append_ms: 77,
        index,
    }
}

#[test]
fn entries_keep_their_distance_and_are_found() {
    let mut index = SparseIndex::new(100);
    index.offer(entry(10, 0, 5));
    index.offer(entry(11, 99, 6));
    index.offer(entry(12, 100, 6));
    index.offer(entry(20, 250, 9));
    assert_eq!(index.entries(), [entry(10, 0, 5), entry(12, 100, 6), entry(20, 250, 9)]);
    assert_eq!([9, 10, 11, 12, 19, 20, 99].map(|at| index.floor(at)), [0, 0, 0, 100, 100, 250, 250]);
    let before = [4, 5, 6, 7, 9, 10].map(|at| index.offset_before_time(at));
    assert_eq!(before, [None, None, Some(10), Some(12), Some(12), Some(20)]);
    assert_eq!(index.floor_entry(19), Some((12, 100)));
    index.truncate(20);
    assert_eq!(index.floor(99), 100);
}

#[test]
fn a_full_index_grows_coarser_instead_of_longer() {
    let mut index = SparseIndex::new(1);
    for at in 0..=MAX_ENTRIES as u64 {
        index.offer(entry(at as i64, at, 0));
    }
    assert_eq!(index.entries().len(), MAX_ENTRIES / 2 + 1);
    assert_eq!(index.floor(7), 6);
    index.offer(entry(1_000_000, MAX_ENTRIES as u64 + 1, 0));
    assert_eq!(index.entries().len(), MAX_ENTRIES / 2 + 1, "the interval is two now");
}

#[test]
fn the_index_file_is_what_it_was() {
    let bytes = summary().encode();
    let golden = concat!(
        "4649524e494458310000000000000064000000000000008200000000000023280000000000",
        "00000c0000000000000078000000000000004d000000000000100000000002000000000000",
        "006400000000000000000000000000000005000000000000006e0000000000001000000000",
        "0000000009",
    );
    let hex: String = bytes[..bytes.len() - 4].iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, golden);
    assert_eq!(SegmentSummary::decode(&bytes), Ok(summary()));
}

proptest! {
    #[test]
    fn summaries_read_back_as_they_were_written(
        base in 0i64..1 << 60,
        bytes in 1u64..1 << 40,
        steps in prop::collection::vec((1i64..1000, 1u64..10_000, 0i64..1 << 50), 0..50),
    ) {
        let mut index = SparseIndex::new(4096);
        let (mut at, mut newest) = (entry(base, 0, 0), 0);
        for (offsets, bytes, timestamp) in steps {
            newest = newest.max(timestamp);
            index.offer(entry(at.offset, at.position, newest));
            (at.offset, at.position) = (at.offset + offsets, at.position + bytes);
        }
        let written = SegmentSummary {
            base,
            end: at.offset + 1,
            bytes: at.position + bytes,
            max_timestamp: newest,
            max_timestamp_offset: at.offset,
            last_append_ms: 77,
            index,
        };
        prop_assert_eq!(SegmentSummary::decode(&written.encode()), Ok(written));
    }

    #[test]
    fn damage_is_noticed(at in 0usize..128, flip in 1u8..) {
        let mut bytes = summary().encode().to_vec();
        let at = at % bytes.len();
        bytes[at] ^= flip;
        prop_assert!(SegmentSummary::decode(&bytes).is_err());
        prop_assert!(SegmentSummary::decode(&bytes[..at]).is_err());
    }

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(SegmentSummary::decode(&bytes).is_err());
    }
}
