//! Bytes on disk: golden, round trips, and input that is anything.

use proptest::collection::vec;
use proptest::prelude::*;
use proto::ids::{DirectoryId, TopicId, TopicPartition, Uuid};

use super::super::buffer::Pool;
use super::super::format::*;
use super::super::lane::{Lane, Purpose};
use super::super::task::group_of;
use super::*;

const HEADER: &[u8] = include_bytes!("../../../tests/golden/journal-file-header-v1.bin");
const FRAME: &[u8] = include_bytes!("../../../tests/golden/journal-frame-v1.bin");
const CHECKPOINT: &[u8] = include_bytes!("../../../tests/golden/checkpoint-v1.bin");

/// The ids that the golden files were made with.
fn golden() -> (FileHeader, TopicPartition) {
    let count = |from: u8| Uuid::from_bytes(std::array::from_fn(|index| from + index as u8));
    let header = FileHeader { directory: DirectoryId(count(0)), sequence: 7, capacity: 1 << 16 };
    (header, TopicPartition::new(TopicId(count(0x10)), 5))
}

fn golden_batch() -> Vec<u8> {
    let mut batch: Vec<u8> = (0..61).collect();
    batch[23..27].copy_from_slice(&9i32.to_be_bytes());
    let crc = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch
}

const EPOCHS: [EpochStart; 2] = [EpochStart { epoch: 1, start: 0 }, EpochStart { epoch: 3, start: 1500 }];

/// The records as one frame without padding.
fn frame(records: &[Record<'_>], first_lsn: Lsn, synced_to: Lsn, seed: Seed) -> Bytes {
    let config = Config { max_group_bytes: usize::MAX, ..small() };
    let mut lane = Lane::new(Purpose::Journal);
    let need = records.iter().map(|record| payload_len(record) + ENTRY_HEADER);
    // One block for all: a lane would begin another group instead.
    let pool = Pool::new(need.sum::<usize>() + FRAME_HEADER, 0);
    let (_, owner) = Waiter::new();
    for (lsn, record) in (first_lsn.0..).map(Lsn).zip(records) {
        let seq = GroupSeq(1);
        lane.place(record, &owner, lsn, seq, &config, &pool);
    }
    let sealed = lane.next().expect("something was placed");
    assert_eq!(sealed.entries.len(), records.len(), "one group");
    let length = sealed.closed.len();
    let entries = sealed.closed.view(FRAME_HEADER..length);
    let batches: Vec<_> = sealed
        .entries
        .iter()
        .filter(|entry| entry.kind == Kind::Append)
        .map(|entry| BatchRange {
            start: entry.range.start as usize - FRAME_HEADER,
            end: entry.range.end as usize - FRAME_HEADER,
        })
        .collect();
    let header = FrameHeader { length: length as u64, first_lsn, synced_to, count: records.len() as u32 };
    let head = header.encode(seed, &entries, &batches);
    let group = group_of(sealed, &head, None);
    group.slice(0..length)
}

#[test]
fn the_file_header_has_its_golden_bytes() {
    let (header, _) = golden();
    let block = header.encode();
    let (start, rest) = block.split_at(HEADER.len());
    assert_eq!(start, HEADER);
    assert!(rest.iter().all(|byte| *byte == 0));
    assert_eq!(FileHeader::decode(HEADER), Ok(header));
}

#[test]
fn a_frame_with_every_kind_has_its_golden_bytes() {
    let (header, tp) = golden();
    let batch = golden_batch();
    let records = [
        Record::Append { tp, base_offset: 1000, leader_epoch: 3, batch: &batch },
        Record::TruncateTail { tp, to: 990 },
        Record::TrimHead { tp, to: 12 },
        Record::Reset { tp, start: 2000, epochs: &EPOCHS, producer_state: b"producers" },
        Record::Delete { tp },
    ];
    let bytes = frame(&records, Lsn(42), Lsn(41), header.seed());
    assert_eq!(bytes, FRAME);
    let read = decode_frame(&bytes, header.seed()).expect("it validates");
    assert_eq!(read.header.next_lsn(), Lsn(47));
    let batch = placed(&batch, 1000, 3);
    assert_eq!(
        read.records,
        [
            OwnedRecord::Append { tp, batch },
            OwnedRecord::TruncateTail { tp, to: 990 },
            OwnedRecord::TrimHead { tp, to: 12 },
            OwnedRecord::Reset {
                tp,
                start: 2000,
                epochs: EPOCHS.to_vec(),
                producer_state: Bytes::from_static(b"producers"),
            },
            OwnedRecord::Delete { tp },
        ]
    );
}

#[test]
fn a_frame_belongs_to_one_use_of_one_file() {
    let (header, _) = golden();
    let bytes = Bytes::from_static(FRAME);
    let other = FileHeader { sequence: 8, ..header };
    let foreign = FileHeader { directory: DIRECTORY, ..header };
    for file in [other, foreign] {
        let refused = decode_frame(&bytes, file.seed());
        assert_eq!(refused, Err(FrameError::Checksum));
    }
}

#[test]
fn the_checkpoint_has_its_golden_bytes() {
    let (header, tp) = golden();
    let mark = |segment, position, lsn| Mark { segment, position, lsn: Lsn(lsn) };
    let checkpoint = Checkpoint {
        replay_from: Lsn(40),
        partitions: [(TopicPartition::new(tp.topic, 0), mark(100, 4096, 41)), (tp, mark(0, 77, 39))].into(),
    };
    assert_eq!(checkpoint.encode(header.directory), CHECKPOINT);
    let read = Checkpoint::decode(CHECKPOINT).expect("it validates");
    assert_eq!(read, (header.directory, checkpoint));
}

#[test]
fn every_flipped_bit_is_noticed() {
    let (header, _) = golden();
    for (golden, read) in [
        (HEADER, (|b: &Bytes, _| FileHeader::decode(b).is_ok()) as fn(&Bytes, Seed) -> bool),
        (FRAME, |b, seed| decode_frame(b, seed).is_ok()),
        (CHECKPOINT, |b, _| Checkpoint::decode(b).is_ok()),
    ] {
        assert!(read(&Bytes::from_static(golden), header.seed()));
        for bit in 0..golden.len() * 8 {
            let mut bytes = golden.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(!read(&bytes.into(), header.seed()), "bit {bit}");
        }
        for len in 0..golden.len() {
            let cut = Bytes::from_static(golden).slice(..len);
            assert!(!read(&cut, header.seed()), "cut to {len}");
        }
    }
}

/// What goes on behind such a number would overflow, or not be read back.
#[test]
fn numbers_that_no_journal_reaches_are_damage() {
    let (header, tp) = golden();
    for sequence in [u64::MAX, SEQUENCES] {
        let read = FileHeader::decode(&FileHeader { sequence, ..header }.encode());
        assert_eq!(read, Err(FileHeaderError::Damaged), "file {sequence}");
    }
    let last = FileHeader { sequence: SEQUENCES - 1, ..header };
    assert_eq!(FileHeader::decode(&last.encode()), Ok(last));

    let two = [Record::Delete { tp }, Record::Delete { tp }];
    for first in [3 << 62, Lsn::END.0 - 1] {
        let bytes = frame(&two, Lsn(first), Lsn(0), header.seed());
        assert_eq!(decode_frame(&bytes, header.seed()), Err(FrameError::NotAFrame), "frame at {first}");
    }
    let bytes = frame(&two, Lsn(Lsn::END.0 - 2), Lsn(0), header.seed());
    assert!(decode_frame(&bytes, header.seed()).is_ok());

    let from = |from| Checkpoint { replay_from: Lsn(from), ..Checkpoint::default() };
    for nowhere in [0, Lsn::END.0, u64::MAX] {
        let read = Checkpoint::decode(&from(nowhere).encode(DIRECTORY));
        assert_eq!(read, Err(checkpoint::Undecodable::Damaged), "from {nowhere}");
    }
    let last = from(Lsn::END.0 - 1);
    assert_eq!(Checkpoint::decode(&last.encode(DIRECTORY)), Ok((DIRECTORY, last)));
}

/// Records of all kinds, batches short and long enough for their CRC to be made use of.
fn records() -> impl Strategy<Value = Vec<OwnedRecord>> {
    let lens = prop_oneof![61..200usize, 40_000..80_000usize];
    let append = (0..3i32, lens, any::<u8>(), any::<i64>())
        .prop_map(|(p, len, fill, base)| OwnedRecord::Append { tp: tp(p), batch: placed(&batch(len, fill), base, 4) });
    let epoch = (any::<i32>(), any::<i64>()).prop_map(|(epoch, start)| EpochStart { epoch, start });
    let reset = (any::<i64>(), vec(epoch, 0..5), vec(any::<u8>(), 0..50)).prop_map(|(start, epochs, state)| {
        OwnedRecord::Reset { tp: tp(1), start, epochs, producer_state: state.into() }
    });
    let record = prop_oneof![
        4 => append,
        1 => reset,
        1 => any::<i64>().prop_map(|to| OwnedRecord::TruncateTail { tp: tp(0), to }),
        1 => any::<i64>().prop_map(|to| OwnedRecord::TrimHead { tp: tp(2), to }),
        1 => Just(OwnedRecord::Delete { tp: tp(0) }),
    ];
    vec(record, 1..8)
}

fn borrowed(record: &OwnedRecord) -> Record<'_> {
    match record {
        OwnedRecord::Append { tp, batch } => Record::Append {
            tp: *tp,
            base_offset: i64::from_be_bytes(batch[..8].try_into().expect("eight bytes")),
            leader_epoch: i32::from_be_bytes(batch[12..16].try_into().expect("four bytes")),
            batch,
        },
        OwnedRecord::TruncateTail { tp, to } => Record::TruncateTail { tp: *tp, to: *to },
        OwnedRecord::TrimHead { tp, to } => Record::TrimHead { tp: *tp, to: *to },
        OwnedRecord::Reset { tp, start, epochs, producer_state } => {
            Record::Reset { tp: *tp, start: *start, epochs, producer_state }
        }
        OwnedRecord::Delete { tp } => Record::Delete { tp: *tp },
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn frames_read_back_as_they_were_written(records in records(), first in 1..Lsn::END.0 - 8, seed: u32) {
        let borrowed: Vec<_> = records.iter().map(borrowed).collect();
        let bytes = frame(&borrowed, Lsn(first), Lsn(first - 1), Seed(seed));
        let read = decode_frame(&bytes, Seed(seed)).expect("it validates");
        prop_assert_eq!(read.header.first_lsn, Lsn(first));
        prop_assert_eq!(read.header.synced_to, Lsn(first - 1));
        prop_assert_eq!(read.records, records);
    }

    #[test]
    fn checkpoints_read_back_as_they_were_written(
        marks in proptest::collection::btree_map(any::<i32>(), any::<(i64, u64, u64)>(), 0..20),
        from in 1..Lsn::END.0,
    ) {
        let partitions = marks.into_iter().map(|(p, (segment, position, lsn))| {
            (tp(p), Mark { segment, position, lsn: Lsn(lsn) })
        });
        let checkpoint = Checkpoint { replay_from: Lsn(from), partitions: partitions.collect() };
        let read = Checkpoint::decode(&checkpoint.encode(DIRECTORY)).expect("it validates");
        prop_assert_eq!(read, (DIRECTORY, checkpoint));
    }

    #[test]
    fn anything_has_an_answer(bytes in vec(any::<u8>(), 0..600), seed: u32) {
        let _ = FileHeader::decode(&bytes);
        let _ = Checkpoint::decode(&bytes);
        let _ = decode_frame(&bytes.into(), Seed(seed));
    }

    /// Behind a CRC that holds, so that the entries are looked at.
    #[test]
    fn any_entries_have_an_answer(entries in vec(any::<u8>(), 0..300), kind in 0..7u8, count in 0..4u32) {
        let mut entries = entries;
        if let Some(byte) = entries.get_mut(4) {
            *byte = kind;
        }
        for high in [1, 2, 3] {
            if let Some(byte) = entries.get_mut(high) {
                *byte = 0;
            }
        }
        let header = FrameHeader {
            length: (FRAME_HEADER + entries.len()) as u64,
            first_lsn: Lsn(1),
            synced_to: Lsn(0),
            count,
        };
        let mut bytes = header.encode(Seed(9), &entries, &[]).to_vec();
        bytes.extend_from_slice(&entries);
        let _ = decode_frame(&bytes.into(), Seed(9));
    }
}
