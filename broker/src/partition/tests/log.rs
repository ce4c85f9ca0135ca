//! The life of a log: append, roll, recover, trim, fail.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use proto::ids::NodeId;

use super::world::*;
use crate::disk::Disk;
use crate::log::config::LogConfig;
use crate::log::folder::Folder;
use crate::log::life::Stop;
use crate::log::observer::{Failure, Observer};
use crate::log::segment::{FileKind, file_name};
use crate::partition::*;

fn value(at: i64) -> Vec<u8> {
    format!("value {at:06} {}", "x".repeat((at % 97) as usize)).into_bytes()
}

async fn fill(world: &World, handle: &PartitionHandle, count: i64) {
    let from = handle.offsets().log_end;
    for at in (from..from + count).step_by(2) {
        let values = [value(at), value(at + 1)];
        world.clock.set(1_000_000 + at);
        produce(world, handle, &[&values[0], &values[1]]).await;
    }
}

fn expected(from: i64, to: i64) -> Vec<(i64, Vec<u8>)> {
    (from..to).map(|at| (at, value(at))).collect()
}

/// Lets the writer's clock run, so that everything sealed is written and settled.
async fn settle() {
    tokio::time::sleep(Duration::from_secs(10)).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_acknowledged_is_read_back_from_memory_and_from_segments() {
    let world = World::new(1).await;
    let handle = world.lead(0, local()).await;
    fill(&world, &handle, 400).await;
    assert_eq!(read_all(&handle, 0, 4096).await, expected(0, 400));
    settle().await;
    assert!(handle.segments().len() > 5);
    for (from, max_bytes) in [(0, 1), (7, 100), (200, 3000), (398, 1 << 20), (0, 1 << 20)] {
        assert_eq!(read_all(&handle, from, max_bytes).await, expected(from, 400), "from {from}, {max_bytes} bytes");
    }
}

#[tokio::test(start_paused = true)]
async fn byte_limits_hold_but_for_a_first_batch() {
    let world = World::new(2).await;
    let handle = world.lead(0, local()).await;
    fill(&world, &handle, 100).await;
    settle().await;
    let size = |chunks: Chunks| chunks.iter().map(bytes::Bytes::len).sum::<usize>();
    let one = size(read_once(&handle, 10, 1).await.expect("readable"));
    assert!(one > 61);
    for max_bytes in [one, one + 1, 1000, 5000] {
        let got = size(read_once(&handle, 10, max_bytes).await.expect("readable"));
        assert!((one..=max_bytes).contains(&got), "{got} of {max_bytes}");
    }
    let none = handle.read(Read {
        offset: 10,
        max_bytes: one - 1,
        min_one: false,
        isolation: Isolation::ReadUncommitted,
        leader_epoch: None,
        last_fetched_epoch: None,
        reader: Reader::Consumer,
    });
    assert!(matches!(none.expect("in range").data, ReadData::Empty | ReadData::Disk(_)));
}

/// Under load the newest batch is always on its way to disk: what is visible still has a greatest timestamp.
#[tokio::test(start_paused = true)]
async fn the_newest_visible_record_is_found_while_newer_ones_are_on_their_way() {
    let world = World::new(6).await;
    let handle = world.lead(0, local()).await;
    let newest = async |handle: &PartitionHandle| {
        let found = handle.max_timestamp(Isolation::ReadUncommitted).await.expect("readable");
        found.map(|found| (found.offset, found.timestamp))
    };
    let first = append(&world, &handle, &batch(5_000, &[b"a"])).expect("taken");
    assert_eq!(handle.offsets().high_watermark, 0, "the journal's task has not run");
    let hidden = handle.max_timestamp(Isolation::ReadUncommitted);
    assert_eq!(hidden.await.expect("readable"), None, "nothing is visible yet");
    first.acked.await.expect("acknowledged");
    for (offset, timestamp) in (1..60).map(|at| (at, 5_000 + at * 10)) {
        let known = newest(&handle).await;
        assert_eq!(known, Some((offset - 1, timestamp - 10)));
        let pending = append(&world, &handle, &batch(timestamp, &[&[b'x'; 200]])).expect("taken");
        assert_eq!(handle.offsets().high_watermark, offset, "the journal's task has not run");
        let hidden = handle.max_timestamp(Isolation::ReadUncommitted).await.expect("readable");
        let still = hidden.map(|found| (found.offset, found.timestamp));
        assert!(still == known || still == Some((offset, timestamp)), "{still:?} after {known:?}");
        pending.acked.await.expect("acknowledged");
    }
    assert!(handle.segments().len() > 2);
}

#[tokio::test(start_paused = true)]
async fn a_clean_stop_leaves_nothing_to_repeat() {
    let mut world = World::new(3).await;
    let handle = world.lead(0, local()).await;
    fill(&world, &handle, 200).await;
    world.partitions.close().await.expect("closed");
    world.reopen().await.expect("opened");
    let handle = world.lead(0, local()).await;
    assert_eq!(handle.topic().as_ref(), "flights");
    assert_eq!(handle.offsets().log_end, 200);
    fill(&world, &handle, 50).await;
    assert_eq!(read_all(&handle, 0, 1000).await, expected(0, 250));
}

#[tokio::test(start_paused = true)]
async fn a_power_cut_costs_nothing_that_was_acknowledged() {
    for wait in [0, 150, 2_500] {
        let mut world = World::new(4).await;
        for round in 0..4 {
            let handle = world.lead(0, local()).await;
            fill(&world, &handle, 100).await;
            tokio::time::sleep(Duration::from_millis(wait)).await;
            world.disk.cut_power();
            world.reopen().await.expect("recovers");
            let handle = world.lead(0, local()).await;
            assert_eq!(read_all(&handle, 0, 1500).await, expected(0, 100 * (round + 1)), "waited {wait}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn producers_are_known_again_after_a_crash() {
    let mut world = World::new(5).await;
    let sent = |sequence| {
        let mut builder = proto::records::BatchBuilder::new().producer(9, 0, sequence);
        builder.append(1, None, Some(b"x"), &[]);
        builder.build()
    };
    let handle = world.lead(0, local()).await;
    for sequence in 0..3 {
        append(&world, &handle, &sent(sequence)).expect("in order").acked.await.expect("safe");
    }
    world.disk.cut_power();
    world.reopen().await.expect("recovers");
    let handle = world.lead(0, local()).await;
    let again = append(&world, &handle, &sent(1)).expect("known");
    assert_eq!((again.base_offset, again.duplicate), (1, true));
    assert!(matches!(append(&world, &handle, &sent(7)), Err(AppendError::OutOfOrderSequence { last: 2, got: 7, .. })));
    assert_eq!(append(&world, &handle, &sent(3)).expect("next").base_offset, 3);
}

#[tokio::test(start_paused = true)]
async fn retention_drops_whole_segments_and_the_log_start_stays_where_it_went() {
    let mut world = World::new(6).await;
    let config = LogConfig { retention_bytes: 9000, ..local() };
    let handle = world.lead(0, config.clone()).await;
    fill(&world, &handle, 400).await;
    handle.trim(world_now(&world));
    let start = handle.offsets().log_start;
    assert!(start > 0 && handle.size_bytes() >= 9000 && handle.size_bytes() < 9000 + 4096);
    assert_eq!(read_all(&handle, start, 1000).await, expected(start, 400));
    let below = read_once(&handle, start - 1, 1000).await;
    assert_eq!(below, Err(ReadError::OffsetOutOfRange { log_start: start, log_end: 400, high_watermark: 400 }));
    settle().await;
    world.disk.cut_power();
    world.reopen().await.expect("recovers");
    let handle = world.lead(0, config).await;
    assert_eq!(handle.offsets().log_start, start);
    assert_eq!(read_all(&handle, start, 1000).await, expected(start, 400));
}

fn world_now(world: &World) -> i64 {
    proto::host::Clock::now_ms(&*world.clock)
}

#[tokio::test(start_paused = true)]
async fn deleted_records_stay_deleted() {
    let mut world = World::new(7).await;
    let handle = world.lead(0, local()).await;
    fill(&world, &handle, 100).await;
    let Ok(Deletion::Local(done, 41)) = handle.delete_records(41) else { panic!("not tiered") };
    done.await.expect("durable");
    world.disk.cut_power();
    world.reopen().await.expect("recovers");
    let handle = world.lead(0, local()).await;
    assert_eq!(handle.offsets().log_start, 41);
    assert_eq!(read_all(&handle, 41, 1000).await, expected(41, 100));
    settle().await;
    world.partitions.close().await.expect("closed");
    world.reopen().await.expect("opened");
    assert_eq!(world.lead(0, local()).await.offsets().log_start, 41);
    assert!(matches!(
        world.lead(0, local()).await.delete_records(101),
        Err(ReadError::OffsetOutOfRange { high_watermark: 100, .. })
    ));
}

#[tokio::test(start_paused = true)]
async fn times_are_found() {
    let world = World::new(8).await;
    let handle = world.lead(0, local()).await;
    fill(&world, &handle, 300).await;
    settle().await;
    for at in [0, 1, 57, 150, 298] {
        let found = handle.offset_for_timestamp(1_000_000 + at, Isolation::ReadUncommitted).await;
        let Ok(TimestampAnswer::Found(found)) = found else { panic!("{found:?}") };
        assert_eq!((found.offset, found.timestamp, found.leader_epoch), (at, 1_000_000 + at, 0));
    }
    let after = handle.offset_for_timestamp(1_000_300, Isolation::ReadUncommitted).await;
    assert_eq!(after, Ok(TimestampAnswer::None));
    let newest = handle.max_timestamp(Isolation::ReadUncommitted).await.expect("readable").expect("a record");
    assert_eq!((newest.offset, newest.timestamp), (299, 1_000_299));
}

#[tokio::test(start_paused = true)]
async fn acknowledgements_from_the_page_cache_survive_the_process() {
    let os = LogConfig { flush: crate::log::config::Flush::Os, ..local() };
    let mut world = World::new(9).await;
    let handle = world.lead(0, os.clone()).await;
    fill(&world, &handle, 120).await;
    assert_eq!(read_all(&handle, 0, 1000).await, expected(0, 120));
    settle().await;
    world.disk.cut_power();
    world.reopen().await.expect("recovers");
    let handle = world.lead(0, os).await;
    assert_eq!(handle.offsets().log_end, 120, "it was settled long ago");
    assert_eq!(read_all(&handle, 0, 1000).await, expected(0, 120));
}

#[tokio::test(start_paused = true)]
async fn a_tail_is_cut_and_stays_cut() {
    for wait in [0, 10] {
        let mut world = World::new(10).await;
        let handle = world.lead(0, local()).await;
        fill(&world, &handle, 100).await;
        // Two replicas: nothing beyond 100 is committed.
        let isr = vec![NODE, NodeId(1)];
        handle.lead(Leadership::of(NODE, 0, &isr, &isr));
        for at in (100..200).step_by(2) {
            let values = [b"to be cut".to_vec(), value(at)];
            drop(append(&world, &handle, &batch(5, &[&values[0], &values[1]])).expect("taken"));
        }
        tokio::time::sleep(Duration::from_secs(wait)).await;
        let why = Cut { term: 1, loss: Loss::Uncommitted };
        assert_eq!(handle.truncate(150, why).await, Err(RewindError::Lost(AckError::NotLeader)), "it leads");
        let other = Leadership { leads: false, leader: Some(NodeId(1)), ..Leadership::of(NODE, 1, &isr, &isr) };
        handle.lead(other);
        assert!(matches!(handle.truncate(98, why).await, Err(RewindError::Committed { .. })));
        handle.truncate(150, why).await.expect("cut");
        handle.truncate(100, why).await.expect("cut");
        assert_eq!(handle.offsets().log_end, 100);
        handle.lead(Leadership::alone(NODE, 2));
        fill(&world, &handle, 30).await;
        assert_eq!(read_all(&handle, 0, 1000).await, expected(0, 130));
        world.disk.cut_power();
        world.reopen().await.expect("recovers");
        let handle = world.lead(0, local()).await;
        assert_eq!(read_all(&handle, 0, 1000).await, expected(0, 130));
    }
}

#[tokio::test(start_paused = true)]
async fn a_log_starts_over_at_the_end_of_the_tier() {
    let mut world = World::new(11).await;
    let handle = world.lead(0, local()).await;
    fill(&world, &handle, 100).await;
    let state = handle.state_at(60).await.expect("a batch border");
    let epochs = [crate::log::epochs::EpochEntry { epoch: 0, start: 0 }];
    let producers = state.encode();
    let anew = Anew { start: 500, log_start: 500, epochs: &epochs, producers: &producers };
    let refused = handle.reset(0, anew).await;
    assert_eq!(refused, Err(RewindError::Lost(AckError::NotLeader)), "a leader drops nothing");
    let leads = handle.leadership();
    handle.lead(Leadership { leads: false, ..leads.clone() });
    handle.reset(leads.epoch, anew).await.expect("reset");
    handle.lead(leads);
    assert_eq!((handle.offsets().local_start, handle.offsets().log_end), (500, 500));
    fill(&world, &handle, 20).await;
    for _ in 0..2 {
        world.disk.cut_power();
        world.reopen().await.expect("recovers");
        let handle = world.lead(0, local()).await;
        assert_eq!(handle.offsets().local_start, 500);
        assert_eq!(read_all(&handle, 500, 1000).await, expected(500, 520));
        settle().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_begun_for_a_replica_that_left_touches_none_that_comes_after_it() {
    let mut world = World::new(14).await;
    let old = world.lead(0, local()).await;
    fill(&world, &old, 30).await;
    old.lead(Leadership { leads: false, ..old.leadership() });
    world.partitions.remove(tp(0)).await;
    let new = world.lead(0, local()).await;
    fill(&world, &new, 20).await;
    let anew = Anew { start: 500, log_start: 500, ..Anew::default() };
    assert_eq!(old.reset(0, anew).await, Err(RewindError::Lost(AckError::Deleted)));
    let why = Cut { term: 0, loss: Loss::Uncommitted };
    assert_eq!(old.truncate(10, why).await, Err(RewindError::Lost(AckError::Deleted)));
    settle().await;
    assert_eq!(read_all(&new, 0, 1000).await, expected(0, 20));
    world.disk.cut_power();
    world.reopen().await.expect("recovers");
    let new = world.lead(0, local()).await;
    assert_eq!(read_all(&new, 0, 1000).await, expected(0, 20));
}

#[tokio::test(start_paused = true)]
async fn a_failed_directory_takes_only_its_own_partitions() {
    let mut world = World::with_dirs(12, 2).await;
    let first = world.lead(0, local()).await;
    let second = world.partitions.create(tp(1), "flights", world.dirs[1].id, local()).await.expect("online");
    second.lead(Leadership::alone(NODE, 0));
    fill(&world, &first, 10).await;
    fill(&world, &second, 10).await;
    world.disk.inject(crate::disk::sim::Fault {
        operation: crate::disk::Operation::WriteSync,
        path: "/data0/".into(),
        skip: 0,
        times: u64::MAX,
        errno: rustix::io::Errno::IO,
    });
    let lost = append(&world, &first, &batch(1, &[b"lost"])).expect("taken");
    assert_eq!(lost.acked.await, Err(AckError::Offline));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(append(&world, &first, &batch(1, &[b"no"])).err(), Some(AppendError::Offline));
    assert_eq!(read_once(&first, 0, 100).await, Err(ReadError::Offline));
    fill(&world, &second, 10).await;
    assert_eq!(read_all(&second, 0, 1000).await, expected(0, 20));
    assert!(!world.partitions.all_offline());
    world.disk.cut_power();
    world.disk.heal();
    world.reopen().await.expect("recovers");
    let first = world.lead(0, local()).await;
    assert_eq!(read_all(&first, 0, 1000).await[..10], expected(0, 10));
}

/// Free space is looked at once a second: what comes in between must not fill the disk either.
#[tokio::test(start_paused = true)]
async fn a_burst_stops_at_the_reserve() {
    const ROOM: usize = 1 << 20;
    let world = World::new(25).await;
    let handle = world.lead(0, local()).await;
    fill(&world, &handle, 10).await;
    settle().await;
    let space = world.disk.space(&world.dirs[0].path).await.expect("known");
    world.disk.set_capacity(space.total - space.free + ROOM as u64);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let batch = batch(0, &[&[7; 1000]]);
    let mut acked = Vec::new();
    let refused = loop {
        match append(&world, &handle, &batch) {
            Ok(appended) => acked.push(appended.acked),
            Err(refused) => break refused,
        }
        assert!(acked.len() * batch.len() <= ROOM, "more was taken than fits");
    };
    assert_eq!(refused, AppendError::DiskFull);
    assert!(acked.len() > 50, "{} were taken", acked.len());
    for acked in acked {
        acked.await.expect("it fits");
    }
    settle().await;
    assert!(!handle.dir().is_offline());
    world.disk.set_capacity(u64::MAX);
    tokio::time::sleep(Duration::from_secs(2)).await;
    append(&world, &handle, &batch).expect("room was noticed").acked.await.expect("acknowledged");
}

#[tokio::test(start_paused = true)]
async fn removed_partitions_are_gone_from_disk() {
    let mut world = World::new(13).await;
    let handle = world.lead(0, local()).await;
    fill(&world, &handle, 100).await;
    settle().await;
    world.partitions.remove(tp(0)).await;
    assert_eq!(append(&world, &handle, &batch(1, &[b"no"])).err(), Some(AppendError::Deleted));
    settle().await;
    world.disk.cut_power();
    world.reopen().await.expect("recovers");
    assert_eq!(world.partitions.all().len(), 0);
    assert_eq!(world.lead(0, local()).await.offsets().log_end, 0);
}

#[tokio::test(start_paused = true)]
async fn a_start_knows_how_the_last_life_ended() {
    let mut world = World::with_dirs(31, 2).await;
    assert_eq!(world.partitions.last_stop(), Stop::Clean(-1), "there was none");
    world.partitions.registered(7);
    let handle = world.lead(0, local()).await;
    fill(&world, &handle, 10).await;
    world.partitions.close().await.expect("closed");
    world.reopen().await.expect("opens");
    assert_eq!(world.partitions.last_stop(), Stop::Clean(7));
    world.disk.cut_power();
    world.reopen().await.expect("recovers");
    assert_eq!(world.partitions.last_stop(), Stop::SameBoot, "as the machine says");
    world.partitions.close().await.expect("closed");
    world.reopen().await.expect("opens");
    assert_eq!(world.partitions.last_stop(), Stop::Clean(-1), "it was not registered");
}

#[tokio::test(start_paused = true)]
async fn a_follower_waits_at_the_log_end_and_hears_of_the_high_watermark() {
    let world = World::new(32).await;
    let handle = world.lead(0, local()).await;
    handle.lead(Leadership::of(NODE, 1, &[NODE, NodeId(1)], &[NODE, NodeId(1)]));
    let follower = Reader::Follower(NodeId(1));
    let (at_end, consumer) = (FetchWaiter::new(1), FetchWaiter::new(1));
    handle.subscribe(&at_end, follower, Isolation::LogEnd, 0);
    handle.subscribe(&consumer, Reader::Consumer, Isolation::ReadUncommitted, 0);
    let appended = append(&world, &handle, &batch(1, &[b"one"])).expect("taken");
    assert!(at_end.is_done(), "before anything is synced");
    assert!(!consumer.is_done());
    let lagging = FetchWaiter::new(1);
    handle.subscribe(&lagging, follower, Isolation::LogEnd, 1);
    assert!(lagging.watermark_moved().now_or_never().is_none());
    let fetch = ReplicaFetch {
        replica: NodeId(1),
        broker_epoch: 1,
        leader_epoch: Some(1),
        last_fetched_epoch: Some(1),
        offset: 1,
        log_start: 0,
    };
    assert_eq!(handle.replica_fetched(fetch), Ok(()));
    settle().await;
    appended.acked.await.expect("on both");
    lagging.watermark_moved().await;
    assert!(consumer.is_done() && !lagging.is_done(), "there are no records for it");
    let stranger = ReplicaFetch { replica: NodeId(9), ..fetch };
    assert_eq!(handle.replica_fetched(stranger), Err(ReadError::UnknownLeaderEpoch { current: 1 }));
    let views: Vec<_> = handle.replicas().iter().map(|view| (view.id, view.synced_end, view.lag_ms)).collect();
    assert_eq!(views, [(NODE, Some(1), Some(0)), (NodeId(1), Some(1), Some(0))]);
}

#[tokio::test(start_paused = true)]
async fn a_deletion_is_done_when_the_other_replica_has_carried_it_out() {
    let world = World::new(33).await;
    let handle = world.lead(0, local()).await;
    fill(&world, &handle, 10).await;
    handle.lead(Leadership::of(NODE, 1, &[NODE, NodeId(1)], &[NODE, NodeId(1)]));
    let Ok(Deletion::Local(mut done, 6)) = handle.delete_records(6) else { panic!("it is not tiered") };
    settle().await;
    assert_eq!((&mut done).now_or_never(), None, "durable here only");
    let fetch = ReplicaFetch {
        replica: NodeId(1),
        broker_epoch: 1,
        leader_epoch: Some(1),
        last_fetched_epoch: Some(0),
        offset: 10,
        log_start: 6,
    };
    handle.replica_fetched(fetch).expect("led here");
    done.await.expect("deleted");
    // Whoever does not lead any more cannot tell.
    let Ok(Deletion::Local(done, 8)) = handle.delete_records(8) else { panic!("it is not tiered") };
    let gone = Leadership { leads: false, leader: Some(NodeId(1)), ..Leadership::of(NODE, 2, &[NODE], &[NODE]) };
    handle.lead(gone);
    assert_eq!(done.await, Err(AckError::NotLeader));
}

#[tokio::test(start_paused = true)]
async fn a_fetch_waits_for_bytes_on_any_of_its_partitions() {
    let world = World::new(14).await;
    let (a, b) = (world.lead(0, local()).await, world.lead(1, local()).await);
    let waiter = FetchWaiter::new(200);
    a.subscribe(&waiter, Reader::Consumer, Isolation::ReadUncommitted, 0);
    b.subscribe(&waiter, Reader::Consumer, Isolation::ReadUncommitted, 0);
    produce(&world, &a, &[b"less than two hundred"]).await;
    assert!(!waiter.is_done());
    produce(&world, &b, &[&[7; 150]]).await;
    tokio::time::timeout(Duration::from_secs(1), waiter.wait()).await.expect("enough");
    let late = FetchWaiter::new(1);
    a.subscribe(&late, Reader::Consumer, Isolation::ReadUncommitted, 0);
    assert!(late.is_done(), "what became visible before the subscription counts");
    assert_eq!(a.available_bytes(0, Isolation::ReadUncommitted), Some(a.size_bytes()));
}

/// What an observer heard: syncs, bytes of these, bytes read from memory and from segments, failures.
#[derive(Default)]
struct Counted(parking_lot::Mutex<(u64, usize, usize, usize, Vec<Failure>)>);

impl Observer for Counted {
    fn synced(&self, bytes: usize, _took: Duration) {
        let mut counted = self.0.lock();
        counted.0 += 1;
        counted.1 += bytes;
    }

    fn read(&self, memory_bytes: usize, segment_bytes: usize) {
        let mut counted = self.0.lock();
        counted.2 += memory_bytes;
        counted.3 += segment_bytes;
    }

    fn failed(&self, failure: Failure) {
        self.0.lock().4.push(failure);
    }
}

#[tokio::test(start_paused = true)]
async fn what_happens_is_told() {
    let mut world = World::new(15).await;
    world.partitions.close().await.expect("closed");
    let counted = Arc::new(Counted::default());
    world.disk = world.disk.restart();
    let observer = Arc::<Counted>::clone(&counted);
    world.partitions = open_observed(&world.disk, &world.dirs, &world.clock, observer).await.expect("opens");
    let handle = world.lead(0, local()).await;
    fill(&world, &handle, 20).await;
    let size = usize::try_from(handle.size_bytes()).expect("small");
    assert_eq!(read_all(&handle, 0, 1 << 20).await, expected(0, 20));
    {
        let counted = counted.0.lock();
        assert_eq!(counted.0, 10, "each waited for its own sync");
        assert!(counted.1 > size, "{} bytes with heads, {size} without", counted.1);
        assert_eq!(counted.2 + counted.3, size);
        assert!(counted.2 > 0, "the last ones are in memory");
    }
    fill(&world, &handle, 400).await;
    settle().await;
    let before = counted.0.lock().3;
    read_all(&handle, 0, 1 << 20).await;
    assert!(counted.0.lock().3 > before, "the first records are in segments only");
    let path = world.dirs[0].path.join(Folder::name(tp(0))).join(file_name(0, FileKind::Log));
    world.disk.corrupt(&path, 16, 0xff).expect("there");
    let torn = read_once(&handle, 0, 100).await;
    assert!(matches!(torn, Err(ReadError::Corrupt(_))), "{torn:?}");
    assert_eq!(counted.0.lock().4, [Failure::Corrupt]);
    world.partitions.dirs()[0].fail("for a test");
    assert_eq!(counted.0.lock().4, [Failure::Corrupt, Failure::Directory]);
}
