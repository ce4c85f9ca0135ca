//! Consumers of a tier: what they get, and what it costs in GETs, bytes and round trips.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::world::{Disk, MIB, World, slow};
use crate::reader::{NoRootStore, ReaderSettings, RemoteError, Span};

const LATENCY: Duration = Duration::from_millis(100);

#[tokio::test(start_paused = true)]
async fn every_record_comes_back_across_objects() {
    let world = World::new(5, 3 * MIB).await;
    let end = world.pointer.tier_end;
    let bytes = world.consume(0, end).await;
    assert_eq!(bytes, world.log.len() as u64);
    let stats = world.reader.stats();
    assert_eq!(stats.bytes_served, bytes);
    assert_eq!(stats.gets_in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn any_offset_can_be_read_first() {
    let world = World::new(2, 2 * MIB).await;
    for from in (0..world.pointer.tier_end).step_by(7) {
        let data = world.read(from, 100_000).await.unwrap();
        world.assert_data(from, &data);
        assert!(data.bytes <= 100_000);
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_record_costs_one_round_trip() {
    let world = World::with(1, 32 * MIB, LATENCY, ReaderSettings::default()).await;
    for from in [0, 1234, world.pointer.tier_end - 1] {
        let started = Instant::now();
        let data = world.read(from, 1 << 20).await.unwrap();
        world.assert_data(from, &data);
        assert_eq!(started.elapsed(), LATENCY, "from {from}");
    }
    let first = world.source.gets("data").into_iter().next();
    assert_eq!(first, Some(Span::Range(0..256 << 10)), "small");
    assert_eq!(world.source.gets("footer").len(), 1, "fetched once, beside the data");
}

/// What a broker gives its reader that was told nothing else. The chunk cache gets 24 MiB.
fn as_in_the_broker() -> ReaderSettings {
    ReaderSettings {
        window_budget: 96 * MIB,
        max_gets: 32,
        index_bytes: 8 * MIB,
        pool_bytes: 8 * MIB,
        ..ReaderSettings::default()
    }
}

#[tokio::test(start_paused = true)]
async fn the_window_hides_the_latency() {
    let mut world = World::with(7, 32 * MIB, LATENCY, as_in_the_broker()).await;
    // One GET at a time would make 38 MiB/s.
    slow(&mut world, Duration::from_millis(1), as_in_the_broker());
    world.limit_cache(as_in_the_broker(), 24 * MIB);
    let end = world.starts.iter().find(|(_, at)| *at as u64 > 192 * MIB).unwrap().0;
    let started = Instant::now();
    let mut free = started;
    let mut next = 0;
    let mut bytes = 0;
    while next < end {
        let data = world.read(next, 1 << 20).await.unwrap();
        world.assert_data(next, &data);
        next = data.next;
        bytes += data.bytes;
        // A client that takes 1,000 MiB/s.
        free = free.max(Instant::now()) + Duration::from_micros(data.bytes / 1049);
        tokio::time::sleep_until(free - Duration::from_micros(999)).await;
    }
    let rate = bytes as f64 / MIB as f64 / started.elapsed().as_secs_f64();
    assert!(rate > 400.0, "{rate} MiB/s");
    let stats = world.reader.stats();
    let gets = world.source.gets("data").len() + world.source.gets("footer").len();
    assert!(gets <= 100, "{gets} GETs");
    assert!(world.source.most_in_flight() >= 6, "{} GETs in flight", world.source.most_in_flight());
    assert!(stats.window_bytes <= as_in_the_broker().window_budget, "{} bytes", stats.window_bytes);
}

#[tokio::test(start_paused = true)]
async fn a_near_store_needs_little_ahead() {
    let world = World::with(7, 32 * MIB, Duration::from_millis(2), ReaderSettings::default()).await;
    let end = world.starts.iter().find(|(_, at)| *at as u64 > 192 * MIB).unwrap().0;
    let mut next = 0;
    let mut bytes = 0;
    while next < end {
        let data = world.read(next, 1 << 20).await.unwrap();
        next = data.next;
        bytes += data.bytes;
        // A client that takes 500 MiB/s.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let stats = world.reader.stats();
    let ratio = stats.bytes_fetched as f64 / bytes as f64;
    assert!(ratio <= 1.05, "{ratio} bytes fetched per byte read");
    let gets = world.source.gets("data").len() + world.source.gets("footer").len();
    assert!(gets <= 100, "{gets} GETs");
}

#[tokio::test(start_paused = true)]
async fn a_single_read_fetches_little() {
    let world = World::with(2, 32 * MIB, LATENCY, ReaderSettings::default()).await;
    world.read(0, 1 << 20).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let fetched: u64 = world.reader.stats().bytes_fetched;
    assert!(fetched < 3 * MIB, "{fetched}");
}

#[tokio::test(start_paused = true)]
async fn reading_to_the_end_fetches_nothing_twice() {
    let world = World::with(3, 8 * MIB, LATENCY, ReaderSettings::default()).await;
    world.consume(0, world.pointer.tier_end).await;
    let data: u64 = world
        .source
        .gets("data")
        .iter()
        .map(|span| match span {
            Span::Range(range) => range.end - range.start,
            Span::From(_) | Span::All => panic!("{span:?}"),
        })
        .sum();
    assert_eq!(data, world.log.len() as u64);
    assert_eq!(world.source.gets("footer").len(), 3);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_tier_is_not_the_end_of_the_stream() {
    let mut world = World::new(1, MIB).await;
    let end = world.pointer.tier_end;
    world.consume(0, end).await;
    let out = RemoteError::OutOfRange { offset: end, start: 0, end };
    assert_eq!(world.read(end, 1 << 20).await, Err(out));
    world.upload(MIB, &[]).await;
    let before = world.reader.stats().streams;
    world.consume(end, world.pointer.tier_end).await;
    assert_eq!(world.reader.stats().streams, before, "the same stream goes on");
}

#[tokio::test(start_paused = true)]
async fn limits_hold_and_a_batch_beyond_them_comes_alone_if_it_must() {
    let world = World::new(1, MIB).await;
    let read = |max, min_one| world.reader.read(world.tp, &world.pointer, 0, max, min_one);
    let none = read(1000, false).await.unwrap();
    assert_eq!((none.bytes, none.next, none.chunks.len()), (0, 0, 0));
    let one = read(1000, true).await.unwrap();
    assert_eq!(one.next, 4);
    let many = read(100_000, false).await.unwrap();
    assert!(many.bytes <= 100_000 && many.bytes > 80_000, "{}", many.bytes);
    world.assert_data(0, &many);
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_can_be_read_again() {
    let world = World::with(1, 8 * MIB, LATENCY, ReaderSettings::default()).await;
    world.read(0, 1 << 20).await.unwrap();
    let next = world.read(0, 1 << 20).await.unwrap().next;
    let first = world.read(next, 1 << 20).await.unwrap();
    let again = world.read(next, 1 << 20).await.unwrap();
    world.assert_data(next, &again);
    assert!(again.bytes >= first.bytes);
    assert_eq!(world.reader.stats().streams, 1);
}

#[tokio::test(start_paused = true)]
async fn roots_and_leaves_are_loaded_once_and_the_tail_needs_neither() {
    let mut world = World::with(6, 2 * MIB, LATENCY, ReaderSettings::default()).await;
    world.fold(3).await;
    let tail = world.pointer.tier_end;
    world.upload(2 * MIB, &[]).await;

    world.read(tail, 1 << 20).await.unwrap();
    assert_eq!(world.source.gets("root"), vec![], "the tail is in the pointer");

    world.consume(0, world.pointer.tier_end).await;
    assert_eq!(world.source.gets("root").len(), 1);
    assert_eq!(world.source.gets("leaf").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_root_on_local_disk_saves_the_round_trip() {
    let mut world = World::with(2, 2 * MIB, LATENCY, ReaderSettings::default()).await;
    world.fold(0).await;
    let disk = Arc::new(Disk::default());
    world.restart(ReaderSettings::default(), Arc::<Disk>::clone(&disk));
    world.read(0, 1 << 20).await.unwrap();
    assert_eq!(world.source.gets("root").len(), 1);
    world.restart(ReaderSettings::default(), disk);
    let started = Instant::now();
    world.read(0, 1 << 20).await.unwrap();
    assert_eq!(started.elapsed(), LATENCY);
    assert_eq!(world.source.gets("root").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn streams_that_nobody_reads_are_given_up() {
    let world = World::new(1, 8 * MIB).await;
    world.consume(0, 400).await;
    assert_eq!(world.reader.stats().streams, 1);
    assert!(world.reader.stats().window_bytes > 0);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let stats = world.reader.stats();
    assert_eq!((stats.streams, stats.window_bytes), (0, 0));
    world.consume(400, 800).await;
    assert_eq!(world.reader.stats().streams, 1);
    world.reader.forget(world.tp);
    let stats = world.reader.stats();
    assert_eq!((stats.streams, stats.window_bytes), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn the_budget_bounds_all_streams_together() {
    let settings = ReaderSettings { window_budget: 8 * MIB, ..ReaderSettings::default() };
    let mut world = World::with(8, 8 * MIB, LATENCY, settings).await;
    world.restart(settings, Arc::new(NoRootStore));
    let world = Arc::new(world);
    let end = world.pointer.tier_end;
    let consumers: Vec<_> = (0..8)
        .map(|index| {
            let world = Arc::clone(&world);
            tokio::spawn(async move {
                let from = index * end / 8;
                let (mut next, mut most) = (from, 0);
                while next < (index + 1) * end / 8 {
                    let data = world.read(next, 1 << 20).await.unwrap();
                    world.assert_data(next, &data);
                    next = data.next;
                    most = most.max(world.reader.stats().window_bytes);
                }
                most
            })
        })
        .collect();
    for consumer in consumers {
        let most = consumer.await.unwrap();
        assert!(most <= 8 * MIB, "{most} bytes held");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_waits_takes_room_from_streams_that_run_ahead_for_nobody() {
    let settings =
        ReaderSettings { window_budget: 4 * MIB, idle: Duration::from_secs(3600), ..ReaderSettings::default() };
    let mut world = World::with(4, 8 * MIB, Duration::from_millis(1), settings).await;
    world.restart(settings, Arc::new(NoRootStore));
    let end = world.pointer.tier_end;
    for index in 0..12 {
        let from = index * end / 12;
        let data = world.read(from, 1 << 20).await.unwrap();
        world.assert_data(from, &data);
        assert!(world.reader.stats().window_bytes <= 4 * MIB);
    }
}

#[tokio::test(start_paused = true)]
async fn a_consumer_that_left_does_not_slow_the_next_one_down() {
    let settings =
        ReaderSettings { window_budget: 16 * MIB, idle: Duration::from_secs(3600), ..ReaderSettings::default() };
    let mut world = World::with(8, 8 * MIB, LATENCY, settings).await;
    world.restart(settings, Arc::new(NoRootStore));
    let end = world.pointer.tier_end;
    let mut took = Vec::new();
    for from in [0, end / 3, end / 3 * 2] {
        let started = Instant::now();
        // It leaves before the end, with much ahead of it.
        world.consume(from, from + end / 4).await;
        took.push(started.elapsed());
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    assert!(took.iter().all(|time| *time < took[0] * 3 / 2), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn consumers_that_pause_do_not_take_each_other_s_room() {
    let settings = ReaderSettings { window_budget: 16 * MIB, ..ReaderSettings::default() };
    let mut world = World::with(8, 8 * MIB, LATENCY, settings).await;
    // Nothing is found again in the cache.
    world.limit_cache(settings, MIB);
    let world = Arc::new(world);
    let end = world.pointer.tier_end;
    let consumer = |after: u64, from: i64, to: i64| {
        let world = Arc::clone(&world);
        async move {
            tokio::time::sleep(Duration::from_millis(after)).await;
            let (mut next, mut bytes, mut reads) = (from, 0, 0);
            while next < to {
                let data = world.read(next, 1 << 20).await.unwrap();
                (next, bytes, reads) = (data.next, bytes + data.bytes, reads + 1);
                // Works on what it has for longer than a consumer that left is waited for.
                let works = if reads % 8 == 0 { Duration::from_millis(800) } else { Duration::from_millis(1) };
                tokio::time::sleep(works).await;
            }
            bytes
        }
    };
    let (first, second) = tokio::join!(consumer(0, 0, end / 2), consumer(600, end / 2, end));
    let fetched = world.reader.stats().bytes_fetched;
    let ratio = fetched as f64 / (first + second) as f64;
    // Each may be taken for gone once, before it is known how it works.
    assert!(ratio < 1.4, "{ratio} bytes fetched per byte read");
}

#[tokio::test(start_paused = true)]
async fn without_room_a_lost_answer_is_read_again_all_the_same() {
    // Barely room for one chunk: what was read has to go before the next can come.
    let settings = ReaderSettings { window_budget: MIB + MIB / 4, ..ReaderSettings::default() };
    let world = World::with(1, 8 * MIB, LATENCY, settings).await;
    let mut last = 0;
    let mut next = 0;
    while next < world.pointer.tier_end {
        let data = world.read(next, 1 << 20).await.unwrap();
        world.assert_data(next, &data);
        let again = world.read(last, 1 << 20).await.unwrap();
        world.assert_data(last, &again);
        assert!(world.reader.stats().window_bytes <= settings.window_budget);
        (last, next) = (next, data.next);
    }
}
