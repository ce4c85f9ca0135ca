//! A store that fails, hangs, breaks off, lies, or has lost an object.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::world::{Fault, MIB, World};
use crate::reader::{ReaderSettings, RemoteError, Span};

const LATENCY: Duration = Duration::from_millis(10);

async fn world() -> World {
    World::with(2, 4 * MIB, LATENCY, ReaderSettings::default()).await
}

#[tokio::test(start_paused = true)]
async fn failed_gets_are_tried_again() {
    let world = world().await;
    for kind in ["data", "footer", "data"] {
        world.source.fault(kind, Fault::Fail);
    }
    world.consume(0, world.pointer.tier_end).await;
    assert_eq!(world.reader.stats().gets_failed, 3);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_breaks_off_is_resumed_where_it_broke() {
    let world = world().await;
    let next = world.read(0, 1 << 20).await.unwrap().next;
    let before = world.source.gets("data").len();
    world.source.fault("data", Fault::Break(1_300_000));
    world.consume(next, world.pointer.tier_end).await;
    let gets = world.source.gets("data");
    let spans: Vec<_> = gets[before..]
        .iter()
        .map(|span| match span {
            Span::Range(range) => range.clone(),
            Span::From(_) | Span::All => panic!("{span:?}"),
        })
        .collect();
    let resumed =
        spans.iter().any(|span| spans.iter().any(|other| other.end == span.end && other.start + MIB == span.start));
    assert!(resumed, "{spans:?}");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_down_is_a_retriable_error_for_all_who_wait() {
    let world = world().await;
    for _ in 0..100 {
        world.source.fault("data", Fault::Fail);
        world.source.fault("footer", Fault::Fail);
    }
    let (one, two) = tokio::join!(world.read(0, 1 << 20), world.read(0, 1 << 20));
    for error in [one.unwrap_err(), two.unwrap_err()] {
        assert_eq!(error, RemoteError::Unavailable { reason: "try again".into() });
        assert!(error.is_retriable());
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    let attempts = world.source.gets("data").len();
    assert_eq!(attempts, 2 * 5, "two GETs, five attempts each, shared by both readers");
}

#[tokio::test(start_paused = true)]
async fn after_the_store_is_back_the_same_reader_goes_on() {
    let world = world().await;
    for _ in 0..10 {
        world.source.fault("data", Fault::Fail);
    }
    assert!(world.read(0, 1 << 20).await.is_err());
    tokio::time::sleep(Duration::from_secs(30)).await;
    world.consume(0, world.pointer.tier_end).await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_costs_a_bounded_time() {
    let world = world().await;
    for _ in 0..100 {
        world.source.fault("data", Fault::Hang);
        world.source.fault("footer", Fault::Hang);
    }
    let started = Instant::now();
    let error = world.read(0, 1 << 20).await.unwrap_err();
    assert!(error.is_retriable(), "{error}");
    assert_eq!(started.elapsed(), ReaderSettings::default().read_timeout);
}

#[tokio::test(start_paused = true)]
async fn one_get_that_hangs_is_replaced() {
    let world = world().await;
    world.source.fault("data", Fault::Hang);
    let data = world.read(0, 1 << 20).await.unwrap();
    world.assert_data(0, &data);
    assert_eq!(world.reader.stats().gets_timed_out, 1);
}

#[tokio::test(start_paused = true)]
async fn a_wrong_bit_in_the_first_get_is_seen_without_the_footer() {
    let world = world().await;
    world.source.fault("footer", Fault::Fail);
    world.source.fault("data", Fault::Flip(5000));
    let data = world.read(0, 1 << 20).await.unwrap();
    world.assert_data(0, &data);
    assert_eq!(world.reader.stats().corrupt, 1);
}

#[tokio::test(start_paused = true)]
async fn a_wrong_bit_later_is_seen_on_the_way_in_and_fetched_once_more() {
    let world = world().await;
    world.consume(0, 120).await;
    world.source.fault("data", Fault::Flip(70_000));
    world.consume(120, world.pointer.tier_end).await;
    assert_eq!(world.reader.stats().corrupt, 1);
}

#[tokio::test(start_paused = true)]
async fn bytes_that_stay_wrong_are_an_error_and_never_served() {
    let world = world().await;
    for _ in 0..50 {
        world.source.fault("data", Fault::Flip(5000));
    }
    let error = world.read(0, 1 << 20).await.unwrap_err();
    assert!(matches!(error, RemoteError::Corrupt { .. }), "{error}");
    assert!(!error.is_retriable());
}

#[tokio::test(start_paused = true)]
async fn a_damaged_footer_does_not_keep_records_that_are_sound_from_being_read() {
    let world = world().await;
    for _ in 0..50 {
        world.source.fault("footer", Fault::Flip(3));
    }
    world.consume(0, world.pointer.tier_end).await;
}

#[tokio::test(start_paused = true)]
async fn a_rewritten_object_is_found_through_a_fresh_pointer() {
    let world = world().await;
    let old = world.pointer.tail[1].clone();
    let from = old.base;
    world.consume(from, from + 80).await;
    // Another leader merged or rewrote it, and the sweeper deleted it.
    let data = Bytes::copy_from_slice(&world.log[world.log.len() - old.object.length as usize..]);
    let new = world.put(old.base, old.end, &data, &[]).await;
    let mut fresh = world.pointer.clone();
    fresh.generation += 1;
    fresh.tail[1] = new;
    *world.pointers.fresh.lock() = Some(fresh);
    world.delete(&old).await;
    let last = world.pointer.tier_end - 1;
    let data = world.read(last, 1 << 20).await.unwrap();
    world.assert_data(last, &data);
    assert_eq!(world.pointers.reads.load(SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn an_object_that_a_fresh_pointer_still_names_is_missing() {
    let world = world().await;
    world.delete(&world.pointer.tail[0].clone()).await;
    let error = world.read(0, 1 << 20).await.unwrap_err();
    assert!(matches!(error, RemoteError::Missing { .. }), "{error}");
    assert_eq!(world.pointers.reads.load(SeqCst), 1, "after it looked again");
}

#[tokio::test(start_paused = true)]
async fn an_object_that_expired_meanwhile_is_out_of_range() {
    let world = world().await;
    let gone = world.pointer.tail[0].clone();
    world.delete(&gone).await;
    let mut fresh = world.pointer.clone();
    fresh.generation += 1;
    fresh.tail.remove(0);
    fresh.tier_start = gone.end;
    fresh.log_start = gone.end;
    *world.pointers.fresh.lock() = Some(fresh);
    let error = world.read(0, 1 << 20).await.unwrap_err();
    let end = world.pointer.tier_end;
    assert_eq!(error, RemoteError::OutOfRange { offset: 0, start: gone.end, end });
}
