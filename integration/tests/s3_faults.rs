//! The tier against an S3 that fails: it refuses, hangs, cuts connections and answers short, applies writes and loses the
//! answer, applies them after their client gave up, or does not know conditional writes. Runner and reader are the real ones, over the real client and HTTP.

#[path = "s3_faults/world.rs"]
mod world;

use std::time::Duration;

use bytes::Bytes;
use integration::s3::{BucketSettings, Conditions, Fault, Faults, Operation};
use proto::metadata::{ObjectFormat, ObjectKey};
use tiering::store::{Created, MULTIPART_ABOVE_BYTES, StoreError};
use uuid::Uuid;
use world::{SEGMENT_BYTES, World, partition, until, within};

/// Appends so many segments to a partition, lets them settle and reads them back.
async fn one_round(world: &World, segments: usize) {
    let runner = world.start();
    for _ in 0..segments {
        world.locals.append_segment(partition(0));
    }
    world.settle(&runner).await;
    world.check();
    world.read_back(&world.reader()).await;
    assert_eq!(world.server.scripted(), 0, "a scripted fault met no request");
    runner.stop().await;
}

#[tokio::test]
async fn without_faults_each_segment_is_one_put() {
    let world = World::new(1, 1).await;
    one_round(&world, 3).await;
    assert_eq!(world.server.requests()[&Operation::Put], 3);
    assert_eq!(world.server.objects().len(), 3);
    assert_eq!(world.locals.local_start(partition(0)), world.locals.end(partition(0)), "trimmed up to the pointer");
}

#[tokio::test]
async fn a_put_whose_answer_was_lost_is_found_done() {
    let world = World::new(2, 1).await;
    world.server.script(Operation::Put, [Fault::LoseAnswer, Fault::LoseAnswer, Fault::LoseAnswer]);
    one_round(&world, 2).await;
    assert_eq!(world.server.objects().len(), 2, "no second copy under another name");
}

#[tokio::test]
async fn a_put_that_lands_after_its_client_gave_up_changes_nothing() {
    let world = World::new(3, 1).await;
    world.server.script(Operation::Put, [Fault::Late, Fault::Late]);
    one_round(&world, 2).await;
    let before = world.server.objects();
    assert_eq!(before.len(), 2);
    // The late ones have long been refused or accepted by then; either way it is the same object.
    one_round(&world, 0).await;
    assert_eq!(world.server.objects(), before);
}

#[tokio::test]
async fn refusals_and_hangs_only_delay() {
    let world = World::new(4, 1).await;
    let slow = Fault::Slow(Duration::from_millis(200));
    let faults = [Fault::Refuse, Fault::Hang, Fault::Fail, slow, Fault::Close, Fault::Refuse];
    world.server.script(Operation::Put, faults);
    one_round(&world, 3).await;
    assert_eq!(world.server.objects().len(), 3);
}

#[tokio::test]
async fn bodies_that_break_off_are_fetched_again() {
    let world = World::new(5, 1).await;
    let runner = world.start();
    for _ in 0..40 {
        world.locals.append_segment(partition(0));
    }
    world.settle(&runner).await;
    let slow = Fault::Slow(Duration::from_millis(50));
    let faults = [
        Fault::Truncate,
        Fault::Refuse,
        Fault::Stall,
        Fault::Fail,
        slow,
        Fault::LoseAnswer,
        Fault::Close,
        Fault::Stall,
    ];
    world.server.script(Operation::Get, faults);
    world.read_back(&world.reader()).await;
    assert_eq!(world.server.scripted(), 0);
    world.check();
    runner.stop().await;
}

#[tokio::test]
async fn while_the_store_is_down_nothing_is_trimmed_and_a_flush_says_why() {
    let world = World::new(6, 2).await;
    world.server.set_faults(Faults::DOWN);
    let runner = world.start();
    world.locals.append_segment(partition(0));
    world.locals.append_segment(partition(1));
    let flushed = runner.flush(partition(0).topic, Duration::from_millis(500), |_| {}).await;
    let error = flushed.expect_err("nothing can be uploaded").to_string();
    assert!(error.contains("slow down"), "{error}");
    assert_eq!((world.locals.local_start(partition(0)), world.locals.local_start(partition(1))), (0, 0));
    world.server.set_faults(Faults::NONE);
    runner.flush(partition(0).topic, Duration::from_secs(30), |_| {}).await.expect("the store is back");
    world.settle(&runner).await;
    world.check();
    world.read_back(&world.reader()).await;
    runner.stop().await;
}

#[tokio::test]
async fn with_a_store_that_never_answers_everything_still_ends() {
    let world = World::new(8, 1).await;
    let runner = world.start();
    world.locals.append_segment(partition(0));
    world.settle(&runner).await;
    world.server.set_faults(Faults::DEAD);
    world.locals.append_segment(partition(0));
    let flush = runner.flush(partition(0).topic, Duration::from_secs(1), |_| {});
    let error = within("a flush", flush).await.expect_err("nothing can be uploaded").to_string();
    assert!(error.contains("no answer"), "{error}");
    let reader = world.reader();
    let pointer = world.quorum.pointer(partition(0));
    let read = within("a read", reader.read(partition(0), &pointer, 0, 1 << 20, true)).await;
    let error = read.expect_err("nothing can be read");
    assert!(error.is_retriable(), "{error}");
    world.server.set_faults(Faults::NONE);
    // The same reader is none the worse for it.
    world.read_back(&reader).await;
    world.server.set_faults(Faults::DEAD);
    world.locals.append_segment(partition(0));
    runner.nudge(partition(0));
    within("stopping", runner.stop()).await;
    world.check();
}

#[tokio::test]
async fn a_store_that_hangs_is_not_sent_more_than_the_budget() {
    let mut world = World::new(9, 12).await;
    let budget = 6 * SEGMENT_BYTES;
    world.config.upload_budget_bytes = budget;
    for index in 0..12 {
        for _ in 0..6 {
            world.locals.append_segment(partition(index));
        }
    }
    // As long as nobody gives up, all that hangs counts; that is what is compared with the budget.
    world.patient();
    world.server.set_faults(Faults::DEAD);
    let runner = world.start();
    let waiting = || world.server.requests().get(&Operation::Put).copied().unwrap_or(0) >= 4;
    until("some uploads hang", waiting).await;
    world.server.set_faults(Faults::NONE);
    world.settle(&runner).await;
    let most = world.server.most_bytes_under_way();
    assert!((SEGMENT_BYTES..=budget).contains(&most), "BOUNDED: {most} of {budget} bytes");
    world.check();
    world.read_back(&world.reader()).await;
    runner.stop().await;
}

#[tokio::test]
async fn a_store_that_ignores_conditions_serves_as_well() {
    let world = World::new(10, 1).await;
    world.server.set_bucket(BucketSettings { conditions: Conditions::Ignored, ..BucketSettings::default() });
    world.server.script(Operation::Put, [Fault::LoseAnswer, Fault::Late, Fault::LoseAnswer]);
    one_round(&world, 3).await;
    assert_eq!(world.server.objects().len(), 3);
}

#[tokio::test]
async fn a_store_that_refuses_conditions_is_named_as_the_cause_and_nothing_is_lost() {
    let world = World::new(11, 1).await;
    world.server.set_bucket(BucketSettings { conditions: Conditions::Refused, ..BucketSettings::default() });
    let runner = world.start();
    world.locals.append_segment(partition(0));
    let flush = runner.flush(partition(0).topic, Duration::from_secs(1), |_| {});
    let error = within("a flush", flush).await.expect_err("nothing can be uploaded").to_string();
    assert!(error.contains("501"), "{error}");
    assert_eq!(world.locals.local_start(partition(0)), 0);
    world.server.set_bucket(BucketSettings::default());
    world.settle(&runner).await;
    world.check();
    world.read_back(&world.reader()).await;
    runner.stop().await;
}

/// Everything at once, over several incarnations of the broker, with retention and roots and leaves.
async fn storm(seed: u64) {
    println!("seed {seed}");
    let world = World::new(seed, 3).await;
    world.server.set_faults(Faults::STORM);
    let mut runner = world.start();
    for round in 0..14 {
        for index in 0..3 {
            for _ in 0..world.random(5) {
                world.locals.append_segment(partition(index));
            }
        }
        match round {
            3 | 6 | 9 | 12 => {
                // Mid-work: what the old incarnation left in doubt is the new one's to find.
                runner.stop().await;
                runner = world.start();
            }
            7 => world.locals.retain(Some(500_000)),
            8 => world.locals.retain(None),
            _ => world.settle(&runner).await,
        }
        world.check();
    }
    world.settle(&runner).await;
    world.read_back(&world.reader()).await;
    let happened = world.server.happened();
    for fault in [Fault::Refuse, Fault::Fail, Fault::Close, Fault::Truncate, Fault::LoseAnswer, Fault::Late] {
        assert!(happened.contains_key(&fault), "seed {seed} never met {fault:?}: {happened:?}");
    }
    world.server.set_faults(Faults::NONE);
    // What this incarnation's lost requests left under its own epoch, the next one finds.
    runner.stop().await;
    let runner = world.start();
    until("nothing is left that no pointer leads to", || world.orphans().is_empty()).await;
    world.settle(&runner).await;
    world.check();
    world.read_back(&world.reader()).await;
    runner.stop().await;
}

#[tokio::test]
async fn a_storm_of_faults_converges_without_gap_or_orphan() {
    // More with FIRN_TEST_SEEDS.
    let seeds = std::env::var("FIRN_TEST_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(2);
    for seed in 100..100 + seeds {
        storm(seed).await;
    }
}

#[tokio::test]
async fn a_large_object_goes_up_in_parts_and_a_lost_completion_is_found_done() {
    let mut world = World::new(7, 1).await;
    // This one waits for real megabytes, hashed without optimization.
    world.patient();
    let store = world.store();
    let object = ObjectKey { owner: partition(0), base_offset: 0, leader_epoch: 1, uuid: Uuid::from_u128(9) };
    let key = store.layout().object(&object, ObjectFormat::Segment);
    let chunks: Vec<Bytes> = (0..=MULTIPART_ABOVE_BYTES >> 20).map(|i| Bytes::from(vec![i as u8; 1 << 20])).collect();
    world.server.script(Operation::Multipart, [Fault::Slow(Duration::ZERO), Fault::LoseAnswer]);
    let first = store.create(&key, &chunks).await;
    assert!(matches!(first, Err(StoreError::Unknown { .. })), "{first:?}");
    assert_eq!(store.create(&key, &chunks).await, Ok(Created::Before));
    let stored = &world.server.objects()[&key.to_string()];
    assert_eq!(stored.len(), chunks.len() << 20);
    assert!(chunks.iter().enumerate().all(|(i, chunk)| stored[i << 20..(i + 1) << 20] == chunk[..]), "other bytes");
}
