//! One GET for all who want the same bytes; nothing is cancelled, nothing is fetched twice.

use std::sync::Arc;
use std::time::Duration;

use super::world::{MIB, World};
use crate::reader::ReaderSettings;

const LATENCY: Duration = Duration::from_millis(100);

async fn world() -> World {
    World::with(3, 4 * MIB, LATENCY, ReaderSettings::default()).await
}

#[tokio::test(start_paused = true)]
async fn two_readers_of_the_same_bytes_cause_one_get() {
    let world = world().await;
    let (one, two) = tokio::join!(world.read(0, 1 << 20), world.read(0, 1 << 20));
    world.assert_data(0, &one.unwrap());
    world.assert_data(0, &two.unwrap());
    let gets = world.source.gets("data");
    assert_eq!(gets.len(), 2, "{gets:?}: the first 256 KiB and the rest of the chunk");
}

#[tokio::test(start_paused = true)]
async fn readers_of_overlapping_ranges_share_what_overlaps() {
    let world = world().await;
    // Streams that begin 200 KiB apart.
    let (one, two) = tokio::join!(world.read(0, 1 << 20), world.read(48, 1 << 20));
    world.assert_data(0, &one.unwrap());
    world.assert_data(48, &two.unwrap());
    let stats = world.reader.stats();
    assert_eq!(stats.streams, 2);
    assert!(stats.bytes_shared > 512 << 10, "{}", stats.bytes_shared);
    tokio::time::sleep(LATENCY).await;
    let fetched = world.reader.stats().bytes_fetched;
    assert!(fetched < 2 * MIB, "{fetched}");
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_goes_away_cancels_nothing_and_nothing_is_fetched_again() {
    let world = world().await;
    let gone = tokio::time::timeout(LATENCY / 2, world.read(0, 1 << 20)).await;
    assert!(gone.is_err(), "it gave up");
    let gets = world.source.gets("data");
    tokio::time::sleep(LATENCY).await;
    let data = world.read(0, 1 << 20).await.unwrap();
    world.assert_data(0, &data);
    assert_eq!(data.bytes / MIB, 0);
    assert_eq!(world.source.gets("data")[..gets.len()], gets[..]);
    let stats = world.reader.stats();
    assert_eq!(stats.gets_failed + stats.gets_timed_out, 0);
    let total: usize = world.source.gets("data").len();
    assert_eq!(total, gets.len(), "it was all there");
}

#[tokio::test(start_paused = true)]
async fn a_waiting_reader_that_is_polled_and_dropped_over_and_over_still_gets_there() {
    let world = world().await;
    let mut tries = 0;
    let data = loop {
        tries += 1;
        // As a fetch with a max wait of 30 ms does.
        let wait = Duration::from_millis(30);
        if let Ok(data) = tokio::time::timeout(wait, world.read(0, 1 << 20)).await {
            break data.unwrap();
        }
    };
    world.assert_data(0, &data);
    assert_eq!(tries, 4);
    assert_eq!(world.source.gets("data").len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_second_consumer_is_served_from_the_cache() {
    let world = world().await;
    let end = world.pointer.tier_end;
    world.consume(0, end).await;
    let gets = world.source.gets("data").len();
    world.consume(0, end).await;
    assert_eq!(world.source.gets("data").len(), gets);
    let stats = world.reader.stats();
    assert_eq!(stats.bytes_from_cache, world.log.len() as u64);
}

#[tokio::test(start_paused = true)]
async fn followers_in_step_share_a_stream() {
    let world = Arc::new(world().await);
    let end = world.pointer.tier_end;
    let followers: Vec<_> = (0..3)
        .map(|_| {
            let world = Arc::clone(&world);
            tokio::spawn(async move { world.consume(0, end).await })
        })
        .collect();
    for follower in followers {
        assert_eq!(follower.await.unwrap(), world.log.len() as u64);
    }
    assert_eq!(world.reader.stats().bytes_fetched / MIB, world.log.len() as u64 / MIB);
}
