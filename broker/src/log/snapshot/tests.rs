use proptest::prelude::*;
use proto::records::ControlRecord;

use super::*;
use crate::log::batch::BatchMeta;

fn batch(producer_id: i64, base_sequence: i32, transactional: bool) -> BatchMeta {
    BatchMeta {
        size: 100,
        base_offset: 0,
        last_offset_delta: 1,
        max_timestamp: 77,
        leader_epoch: 0,
        producer_id,
        producer_epoch: 3,
        base_sequence,
        transactional,
        control: None,
    }
}

fn snapshot() -> Snapshot {
    let mut producers = Producers::default();
    producers.apply(&batch(1, 0, false), 10, 1000);
    producers.apply(&batch(2, 0, true), 12, 1001);
    producers.apply(&batch(3, 0, true), 14, 1002);
    let control = Some(ControlRecord::Abort { coordinator_epoch: 9 });
    let marker = BatchMeta { last_offset_delta: 0, control, ..batch(2, -1, true) };
    producers.apply(&marker, 16, 1003);
    let epochs = vec![EpochEntry { epoch: 2, start: 0 }, EpochEntry { epoch: 5, start: 12 }];
    Snapshot {
        offset: 17,
        segment_base: 10,
        position: 4242,
        epochs: EpochCache::from_entries(epochs).expect("ascending"),
        producers,
    }
}

#[test]
fn the_snapshot_file_is_what_it_was() {
    let bytes = snapshot().encode();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let golden = include_str!("golden-v1.hex");
    assert_eq!(hex, golden.split_whitespace().collect::<String>());
    assert_eq!(Snapshot::decode(&bytes), Ok(snapshot()));
}

#[test]
fn what_is_open_stays_open() {
    let again = Snapshot::decode(&snapshot().encode()).expect("valid");
    assert_eq!(again.producers.first_unstable(), Some(12), "decided, not replicated");
    let mut producers = again.producers;
    producers.replicated(17);
    assert_eq!(producers.first_unstable(), Some(14), "open");
    assert_eq!(producers.aborted().count(), 1);
}

proptest! {
    /// Any history of batches and markers that producers' rules allow.
    #[test]
    fn snapshots_read_back_as_they_were_written(
        steps in prop::collection::vec((0i64..6, any::<bool>(), 0u8..8, 1i32..9), 0..60),
        epochs in prop::collection::btree_set(0i64..1 << 40, 0..20),
    ) {
        let mut producers = Producers::default();
        let (mut sequences, mut offset) = ([0i32; 6], 10);
        for (id, transactional, kind, count) in steps {
            let mut next = BatchMeta { last_offset_delta: count - 1, ..batch(id, sequences[id as usize], transactional) };
            if kind == 0 {
                let control = if count % 2 == 0 {
                    ControlRecord::Abort { coordinator_epoch: 9 }
                } else {
                    ControlRecord::Commit { coordinator_epoch: 9 }
                };
                next = BatchMeta { last_offset_delta: 0, control: Some(control), ..batch(id, -1, true) };
            } else {
                sequences[id as usize] += count;
            }
            producers.apply(&next, offset, 1000 + offset);
            offset += i64::from(next.last_offset_delta) + 1;
        }
        let epochs = (0..).zip(epochs).map(|(epoch, start)| EpochEntry { epoch, start }).collect();
        let written = Snapshot {
            offset,
            segment_base: 10,
            position: 4242,
            epochs: EpochCache::from_entries(epochs).expect("ascending"),
            producers,
        };
        prop_assert_eq!(Snapshot::decode(&written.encode()), Ok(written));
    }

    #[test]
    fn damage_is_noticed(at in 0usize..512, flip in 1u8..) {
        let mut bytes = snapshot().encode().to_vec();
        let at = at % bytes.len();
        bytes[at] ^= flip;
        prop_assert!(Snapshot::decode(&bytes).is_err());
        prop_assert!(Snapshot::decode(&bytes[..at]).is_err());
    }

    /// With a right checksum in front of the parser, nothing makes it panic or reserve too much.
    #[test]
    fn any_bytes_are_survived(body in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&body);
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_be_bytes());
        let _ = Snapshot::decode(&bytes);
    }
}
