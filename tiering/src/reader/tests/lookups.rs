//! Timestamps, epochs, aborted transactions, the tier's end.

use proto::records::BatchBuilder;

use super::world::{MIB, World};
use crate::format::AbortedTxn;
use crate::reader::{EpochEnd, FoundTimestamp};

/// Four objects: one in a leaf, two in the root, one in the tail.
async fn world() -> World {
    let mut world = World::new(3, MIB).await;
    world.fold(1).await;
    world.upload(MIB, &[]).await;
    world
}

#[tokio::test(start_paused = true)]
async fn offsets_by_timestamp() {
    let world = world().await;
    let end = world.pointer.tier_end;
    for offset in (0..end).step_by(11).chain([end - 1]) {
        // Timestamps are ten times the offset.
        let found = world.reader.offset_for_timestamp(world.tp, &world.pointer, offset * 10 - 5).await;
        let leader_epoch = if offset < 100 { 3 } else { 5 };
        let expected = FoundTimestamp { offset, timestamp: offset * 10, leader_epoch };
        assert_eq!(found, Ok(Some(expected)));
    }
    let beyond = world.reader.offset_for_timestamp(world.tp, &world.pointer, end * 10).await;
    assert_eq!(beyond, Ok(None));
}

#[tokio::test(start_paused = true)]
async fn the_log_s_start_bounds_timestamps() {
    let mut world = world().await;
    world.pointer.log_start = 6;
    let found = world.reader.offset_for_timestamp(world.tp, &world.pointer, 0).await.unwrap();
    assert_eq!(found.map(|found| found.offset), Some(6), "in the middle of a batch");
}

#[tokio::test(start_paused = true)]
async fn the_greatest_timestamp() {
    let world = world().await;
    let last = world.pointer.tier_end - 1;
    let found = world.reader.max_timestamp(world.tp, &world.pointer).await.unwrap();
    assert_eq!(found, Some(FoundTimestamp { offset: last, timestamp: last * 10, leader_epoch: 5 }));
}

#[tokio::test(start_paused = true)]
async fn the_greatest_timestamp_of_what_is_not_deleted() {
    let mut world = World::new(0, 0).await;
    // Two objects of a batch each; a timestamp for each record.
    for (base, timestamps) in [(0, [5_000, 100, 4_000, 300]), (4, [200, 300, 250, 300])] {
        let mut batch = BatchBuilder::new().base_offset(base);
        for timestamp in timestamps {
            batch.append(timestamp, None, Some(b"value"), &[]);
        }
        let end = base + timestamps.len() as i64;
        let entry = world.put(base, end, &batch.build(), &[]).await;
        world.pointer.tail.push(entry);
        world.pointer.tier_end = end;
    }
    for (log_start, offset, timestamp) in [(0, 0, 5_000), (1, 2, 4_000), (3, 3, 300), (4, 5, 300), (6, 7, 300)] {
        world.pointer.log_start = log_start;
        let found = world.reader.max_timestamp(world.tp, &world.pointer).await.unwrap();
        let found = found.map(|found| (found.offset, found.timestamp));
        assert_eq!(found, Some((offset, timestamp)), "the log begins at {log_start}");
    }
}

#[tokio::test(start_paused = true)]
async fn ends_of_epochs() {
    let world = world().await;
    let end = |epoch| world.reader.epoch_end(world.tp, &world.pointer, epoch);
    assert_eq!(end(2).await, Ok(None), "before all that is tiered");
    let third = EpochEnd { epoch: 3, end: 100, open: false };
    assert_eq!(end(3).await, Ok(Some(third)));
    assert_eq!(end(4).await, Ok(Some(third)), "the greatest epoch below");
    let last = EpochEnd { epoch: 5, end: world.pointer.tier_end, open: true };
    assert_eq!(end(5).await, Ok(Some(last)));
    assert_eq!(end(9).await, Ok(Some(last)));
}

#[tokio::test(start_paused = true)]
async fn aborted_transactions_come_with_the_records_they_overlap() {
    let mut world = World::new(1, MIB).await;
    let base = world.pointer.tier_end;
    let early = AbortedTxn { first_offset: base + 2, last_offset: base + 9, producer_id: 1 };
    let late = AbortedTxn { first_offset: base + 100, last_offset: base + 120, producer_id: 2 };
    world.upload(MIB, &[early, late]).await;
    let data = world.read(base, 40_000).await.unwrap();
    assert_eq!((data.next, data.aborted), (base + 8, vec![early]));
    let data = world.read(base + 12, 40_000).await.unwrap();
    assert_eq!(data.aborted, vec![]);
    let list = |from, to| world.reader.aborted(world.tp, &world.pointer, from..to);
    assert_eq!(list(0, base).await, Ok(vec![]));
    assert_eq!(list(0, base + 3).await, Ok(vec![early]));
    assert_eq!(list(base + 9, i64::MAX).await, Ok(vec![early, late]));
    assert_eq!(list(base + 10, base + 100).await, Ok(vec![]));
}

#[tokio::test(start_paused = true)]
async fn the_tier_s_end() {
    let world = world().await;
    let end = world.reader.tier_end(world.tp, &world.pointer).await.unwrap().unwrap();
    assert_eq!(end.end, world.pointer.tier_end);
    assert_eq!(end.epochs.entries, vec![(3, 0), (5, 100)]);
    assert_eq!(end.producers, format!("producers at {}", end.end).as_bytes());
    let empty = proto::metadata::TierPointer::default();
    assert_eq!(world.reader.tier_end(world.tp, &empty).await, Ok(None));
    assert_eq!(world.reader.epoch_end(world.tp, &empty, 3).await, Ok(None));
    assert_eq!(world.reader.offset_for_timestamp(world.tp, &empty, 0).await, Ok(None));
}
