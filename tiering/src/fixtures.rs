//! Batches, entries and identities for this crate's tests.

use bytes::Bytes;
use proto::ids::{Millis, Offset, TopicId, TopicPartition, Uuid};
use proto::metadata::{ObjectFormat, ObjectKey, ObjectRef, TierPoint};
use proto::records::BatchBuilder;

use crate::manifest::Entry;

/// Partition `partition` of the one topic of the tests.
pub(crate) fn partition(partition: i32) -> TopicPartition {
    TopicPartition::new(TopicId(Uuid::from_u128(0x1234_5678_9abc_4def_8123_4567_89ab_cdef)), partition)
}

/// A batch of `records` records of `bytes` bytes each, whose content depends on all arguments.
pub(crate) fn batch(base: Offset, epoch: i32, records: i64, bytes: usize, timestamp: Millis) -> Bytes {
    let mut builder = BatchBuilder::new().base_offset(base).leader_epoch(epoch);
    for index in 0..records {
        let seed = (base + index) as u8;
        let value: Vec<u8> = (0..bytes).map(|at| seed.wrapping_mul(31).wrapping_add(at as u8)).collect();
        builder.append(timestamp, None, Some(&value), &[]);
    }
    builder.build()
}

/// A sound entry over `[base, end)`.
pub(crate) fn entry(base: Offset, end: Offset) -> Entry {
    let length = (end - base) as u64 * 100;
    Entry {
        base,
        end,
        max_timestamp: 1_000_000 + end,
        object: ObjectRef {
            key: ObjectKey {
                owner: partition(0),
                base_offset: base,
                leader_epoch: 3,
                uuid: Uuid::from_u128(0xa000_0000_0000_4000_8000_0000_0000_0000 + base as u128),
            },
            start: 0,
            length,
        },
        footer_position: length,
        epochs: vec![(3, base.min(5))],
        format: ObjectFormat::Segment,
        has_aborted: base % 2 == 1,
        points: vec![TierPoint { offset: base, timestamp: 1_000_000 + base, position: 0 }],
    }
}

/// Contiguous entries of `length` offsets each.
pub(crate) fn entries(from: Offset, count: i64, length: i64) -> Vec<Entry> {
    (0..count).map(|index| entry(from + index * length, from + (index + 1) * length)).collect()
}
