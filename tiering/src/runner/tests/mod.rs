//! The runner against a store and a quorum that fail.

mod world;

use std::time::Duration;

use proto::ids::{Millis, Offset, TopicPartition};
use world::{CommitFaults, EPOCH_MS, GRACE_MS, World, pass};

use crate::fixtures::partition;
use crate::plan::Hold;
use crate::ports::LocalLog;
use crate::store::faulty::Faults;

const P0: fn() -> TopicPartition = || partition(0);

/// Appends `count` full segments' worth of batches, four to a segment.
fn fill(world: &World, tp: TopicPartition, segments: usize) {
    for _ in 0..segments * 4 {
        world.locals.append(tp, 10, 80);
    }
    world.locals.roll(tp);
}

#[tokio::test(start_paused = true)]
async fn a_full_segment_goes_up_and_is_trimmed_within_two_seconds() {
    let mut world = World::new(1, 1);
    let runner = world.start();
    pass(1500).await;
    fill(&world, P0(), 1);
    runner.nudge(P0());
    pass(2000).await;
    let end = world.locals.end(P0());
    assert_eq!(world.quorum.pointer(P0()).tier_end, end);
    assert_eq!(world.locals.local_start(P0()), end);
    assert_eq!(world.store.objects().len(), 1, "one segment, one object, no root");
    world.check();
    let status = &runner.status()[0];
    assert_eq!((status.tier_end, status.lag_bytes, status.objects, &status.error), (end, 0, Some(1), &None));
}

#[tokio::test(start_paused = true)]
async fn without_a_nudge_the_tick_finds_it() {
    let mut world = World::new(2, 3);
    let _runner = world.start();
    for index in 0..3 {
        fill(&world, partition(index), 2);
    }
    pass(3000).await;
    for index in 0..3 {
        assert_eq!(world.quorum.pointer(partition(index)).tier_end, world.locals.end(partition(index)));
    }
    world.check();
}

#[tokio::test(start_paused = true)]
async fn an_open_segment_waits_for_the_lag_bound() {
    let mut world = World::new(3, 1);
    let _runner = world.start();
    world.locals.append(P0(), 5, 50);
    pass(59_000).await;
    assert_eq!(world.quorum.pointer(P0()).tier_end, 0);
    pass(3000).await;
    assert_eq!(world.quorum.pointer(P0()).tier_end, 5);
    world.check();
}

#[tokio::test(start_paused = true)]
async fn a_round_that_panics_takes_no_other_with_it_and_is_tried_again() {
    let mut world = World::new(14, 2);
    world.locals.defects.lock().insert(P0());
    let runner = world.start();
    fill(&world, P0(), 1);
    fill(&world, partition(1), 1);
    let flush = runner.flush(P0().topic, Duration::from_secs(5), |_| {}).await;
    let held = flush.expect_err("it waits before it tries again").held;
    assert!(matches!(&held[..], [(tp, Some(Hold::Failing(why)))] if *tp == P0() && why.contains("defect")), "{held:?}");
    assert_eq!(world.quorum.pointer(partition(1)).tier_end, world.locals.end(partition(1)));
    pass(60_000).await;
    assert_eq!(
        world.quorum.pointer(P0()).tier_end,
        world.locals.end(P0()),
        "what the flush asked for is not forgotten"
    );
    world.check();
}

#[tokio::test(start_paused = true)]
async fn few_requests_for_many_segments() {
    let mut world = World::new(4, 1);
    world.config.objects_at_once = 1;
    let runner = world.start();
    for _ in 0..8 {
        fill(&world, P0(), 1);
        runner.nudge(P0());
        pass(1500).await;
    }
    assert_eq!(world.quorum.pointer(P0()).tier_end, world.locals.end(P0()));
    assert_eq!(world.store.counts().puts, 8, "eight segments, eight PUTs: their entries wait in the pointer");
    for _ in 8..34 {
        fill(&world, P0(), 1);
        runner.nudge(P0());
        pass(1500).await;
    }
    let puts = world.store.counts().puts;
    assert_eq!(puts, 34 + 2 + 6, "a root for 17 segments each, and a leaf for five entries");
    world.check();
}

#[tokio::test(start_paused = true)]
async fn partitions_share_commits_and_the_budget_holds() {
    let mut world = World::new(5, 40);
    world.config.upload_budget_bytes = 9 << 10;
    world.config.partitions_at_once = 40;
    for index in 0..40 {
        fill(&world, partition(index), 1);
    }
    let _runner = world.start();
    pass(5000).await;
    for index in 0..40 {
        assert_eq!(world.quorum.pointer(partition(index)).tier_end, world.locals.end(partition(index)));
    }
    assert!(world.quorum.requests() <= 40);
    world.check();
}

#[tokio::test(start_paused = true)]
async fn a_flush_uploads_everything_and_says_how_far_it_is() {
    let mut world = World::new(6, 2);
    let runner = world.start();
    pass(1000).await;
    world.locals.append(partition(0), 5, 50);
    world.locals.append(partition(1), 7, 50);
    let mut seen = Vec::new();
    let done = runner.flush(P0().topic, Duration::from_secs(60), |progress| seen.push(progress)).await.unwrap();
    assert_eq!((done.partitions, done.done, done.records_left), (2, 2, 0));
    assert_eq!((seen[0].done, seen[0].records_left), (0, 12));
    assert_eq!(world.quorum.pointer(partition(1)).tier_end, 7);
    world.check();
}

#[tokio::test(start_paused = true)]
async fn a_flush_that_cannot_end_names_what_holds_it_back() {
    let mut world = World::new(7, 2);
    let runner = world.start();
    world.locals.append(partition(0), 5, 50);
    world.locals.append(partition(0), 5, 50);
    world.locals.hold_from(partition(0), Some(5));
    let error = runner.flush(P0().topic, Duration::from_secs(60), |_| {}).await.unwrap_err();
    assert_eq!(error.held, vec![(partition(0), Some(Hold::OpenTransaction { from: 5, to: 10 }))]);
    assert!(error.to_string().contains("open transaction"), "{error}");
    assert_eq!(world.quorum.pointer(partition(0)).tier_end, 5, "what is stable went up");
    world.locals.hold_from(partition(0), None);
    world.store.set_faults(Faults { throttle: 1000, ..Faults::default() });
    let error = runner.flush(P0().topic, Duration::from_secs(60), |_| {}).await.unwrap_err().to_string();
    assert!(error.contains("slow down"), "{error}");
    world.store.set_faults(Faults::default());
    runner.flush(P0().topic, Duration::from_secs(60), |_| {}).await.unwrap();
    world.check();
}

#[tokio::test(start_paused = true)]
async fn retention_forgets_entries_first_and_objects_after_the_grace() {
    let mut world = World::new(8, 1);
    let _runner = world.start();
    for _ in 0..30 {
        fill(&world, P0(), 1);
        pass(10_000).await;
    }
    world.check();
    let pointer = world.quorum.pointer(P0());
    assert!(pointer.root.is_some());
    world.locals.settings.lock().retention_ms = Some(100_000);
    pass(30_000).await;
    let expired = world.quorum.pointer(P0());
    assert!(expired.tier_start > 0 && expired.log_start == expired.tier_start && expired.tier_end == pointer.tier_end);
    assert!(expired.bytes < pointer.bytes);
    assert!(!world.orphans().is_empty(), "objects stay for readers that hold the older pointer");
    world.check();
    world.locals.settings.lock().retention_ms = None;
    world.locals.settings.lock().retention_bytes = Some(8000);
    pass(2 * GRACE_MS as u64).await;
    let small = world.quorum.pointer(P0());
    assert!(small.bytes >= 8000 && small.bytes < 16_000, "{}", small.bytes);
    world.check();
    assert_eq!(world.orphans(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn delete_records_takes_tiered_history_with_it() {
    let mut world = World::new(9, 1);
    let _runner = world.start();
    fill(&world, P0(), 12);
    pass(10_000).await;
    let end = world.quorum.pointer(P0()).tier_end;
    world.quorum.delete_records(P0(), end / 2 + 3);
    pass(10_000).await;
    let pointer = world.quorum.pointer(P0());
    assert!(pointer.log_start == end / 2 + 3 && pointer.tier_start > 0 && pointer.tier_start <= pointer.log_start);
    world.check();
    // Beyond everything tiered, while nothing may go up: the tier starts over there.
    world.locals.append(P0(), 20, 10);
    world.quorum.delete_records(P0(), end + 20);
    world.locals.append(P0(), 20, 10);
    pass(120_000).await;
    let pointer = world.quorum.pointer(P0());
    assert_eq!((pointer.tier_start, pointer.tier_end, pointer.root), (end + 20, end + 40, None));
    pass(2 * GRACE_MS as u64).await;
    world.check();
    assert_eq!(world.orphans(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn deleting_into_a_batch_that_is_not_tiered_holds_nothing_up() {
    let mut world = World::new(11, 1);
    let _runner = world.start();
    world.locals.append(P0(), 20, 10);
    world.quorum.delete_records(P0(), 12);
    world.locals.append(P0(), 20, 10);
    pass(120_000).await;
    let pointer = world.quorum.pointer(P0());
    assert_eq!((pointer.log_start, pointer.tier_start, pointer.tier_end), (12, 12, 40));
    // The same once everything tiered is gone again.
    world.locals.append(P0(), 20, 10);
    world.quorum.delete_records(P0(), 52);
    pass(10_000).await;
    world.locals.append(P0(), 20, 10);
    pass(120_000).await;
    let pointer = world.quorum.pointer(P0());
    assert_eq!((pointer.log_start, pointer.tier_start, pointer.tier_end), (52, 52, 80));
    pass(2 * GRACE_MS as u64).await;
    world.check();
    assert_eq!(world.orphans(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn what_expires_before_it_is_tiered_is_never_uploaded() {
    let mut world = World::new(10, 1);
    let _runner = world.start();
    world.store.set_faults(Faults { throttle: 1000, ..Faults::default() });
    fill(&world, P0(), 3);
    world.locals.settings.lock().retention_ms = Some(60_000);
    pass(120_000).await;
    let pointer = world.quorum.pointer(P0());
    let end = world.locals.end(P0());
    assert_eq!((pointer.log_start, pointer.tier_start, pointer.tier_end), (end, end, end));
    world.store.set_faults(Faults::default());
    fill(&world, P0(), 1);
    pass(10_000).await;
    assert_eq!(world.quorum.pointer(P0()).tier_end, world.locals.end(P0()));
    world.check();
}

#[tokio::test(start_paused = true)]
async fn a_deleted_topic_leaves_nothing_after_the_grace() {
    let mut world = World::new(11, 2);
    let _runner = world.start();
    fill(&world, partition(0), 20);
    fill(&world, partition(1), 1);
    pass(20_000).await;
    let deleted_at = EPOCH_MS + 20_000;
    world.quorum.delete_topic(partition(0), deleted_at);
    let before = world.store.objects().len();
    pass(GRACE_MS as u64 - 30_000).await;
    assert_eq!(world.store.objects().len(), before, "the grace is kept");
    pass(60_000).await;
    assert_eq!(world.store.objects().len(), 1, "the other partition's object");
    pass(10_000).await;
    assert!(crate::ports::Pointers::deleted(&world.quorum).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_fenced_leader_changes_and_deletes_nothing_of_the_new_ones() {
    let mut world = World::new(12, 1);
    let old = world.start();
    fill(&world, P0(), 6);
    pass(5000).await;
    // The old leader does not know yet that it was replaced; a new one works under a newer epoch.
    let tp = P0();
    let generation = world.quorum.pointer(tp).generation;
    world.quorum.elect(tp, 99);
    fill(&world, tp, 6);
    pass(30_000).await;
    assert_eq!(world.quorum.pointer(tp).generation, generation, "FENCED");
    old.stop().await;
    world.quorum.elect(tp, 2);
    let _new = world.start();
    pass(3 * GRACE_MS as u64).await;
    assert_eq!(world.quorum.pointer(tp).tier_end, world.locals.end(tp));
    world.check();
    assert_eq!(world.orphans(), Vec::<String>::new());
}

/// A commit is answered to nobody, another leader builds on it, and the first one comes back: what it
/// had in doubt is part of history by then and must not be taken for a leftover.
#[tokio::test(start_paused = true)]
async fn what_another_leader_built_on_is_not_abandoned() {
    let mut world = World::new(14, 1);
    let (a, _runner_a) = world.seat();
    let (b, _runner_b) = world.seat();
    world.elect();
    a.lead(true);
    pass(2_000).await;
    world.quorum.set_faults(CommitFaults { lost_answer: 1000, ..CommitFaults::default() });
    fill(&world, P0(), 1);
    while world.quorum.requests() == 0 {
        pass(1).await;
    }
    a.cut_off(true);
    pass(1_000).await;
    assert_eq!(world.quorum.pointer(P0()).tier_end, world.locals.end(P0()), "it had landed");
    world.quorum.set_faults(CommitFaults::default());
    a.lead(false);
    world.elect();
    b.lead(true);
    for _ in 0..20 {
        fill(&world, P0(), 1);
        pass(2_000).await;
    }
    assert!(world.quorum.pointer(P0()).root.is_some_and(|root| root.leader_epoch == 2));
    b.lead(false);
    world.elect();
    a.cut_off(false);
    a.lead(true);
    fill(&world, P0(), 1);
    pass(4 * GRACE_MS as u64).await;
    assert_eq!(world.quorum.pointer(P0()).tier_end, world.locals.end(P0()));
    world.check();
    assert_eq!(world.orphans(), Vec::<String>::new());
}

/// Without a crash a leader knows what it abandoned, and needs no later one to find it.
#[tokio::test(start_paused = true)]
async fn a_steady_leader_clears_up_after_itself() {
    let mut world = World::new(15, 2);
    let _runner = world.start();
    world.store.set_faults(Faults { throttle: 350, lost_answer: 150, truncate: 100, ..Faults::default() });
    world.quorum.set_faults(CommitFaults { lost_request: 100, lost_answer: 150, late: 50 });
    for round in 0..80 {
        fill(&world, partition(round % 2), 1 + world.random(3) as usize);
        if round % 7 == 0 {
            let tp = partition(round % 2);
            let pointer = world.quorum.pointer(tp);
            world.quorum.delete_records(tp, (pointer.log_start + 5).min(pointer.tier_end));
        }
        pass(world.random(8_000)).await;
        world.check();
    }
    let leftovers = world.orphans().len();
    assert!(leftovers > 0, "nothing went wrong enough");
    world.store.set_faults(Faults::default());
    world.quorum.set_faults(CommitFaults::default());
    pass(3 * GRACE_MS as u64).await;
    world.check();
    assert_eq!(world.orphans(), Vec::<String>::new());
}

/// Time stands still for whoever is always busy: this would never end.
#[tokio::test(start_paused = true)]
async fn a_clock_that_is_off_keeps_nobody_busy_and_nothing_from_being_tiered() {
    let mut world = World::new(16, 1);
    let _runner = world.start();
    fill(&world, P0(), 2);
    pass(3000).await;
    world.quorum.delete_records(P0(), 10);
    world.quorum.set_clock_off(true);
    pass(3 * GRACE_MS as u64).await;
    fill(&world, P0(), 1);
    pass(3000).await;
    assert_eq!(world.quorum.pointer(P0()).tier_end, world.locals.end(P0()));
    world.quorum.set_clock_off(false);
    pass(3 * GRACE_MS as u64).await;
    world.check();
    assert_eq!(world.orphans(), Vec::<String>::new());
}

/// Crashes at the n-th step, for every n that a run takes, and again while recovering from it.
#[tokio::test(start_paused = true)]
async fn a_crash_between_any_two_steps_converges() {
    let mut crashes = 0;
    for at in 1..10_000 {
        let mut world = World::new(at, 1);
        let mut runner = world.start();
        world.fuse.arm(at);
        for (segments, expire) in [(18, false), (3, false), (3, true)] {
            fill(&world, P0(), segments);
            if expire {
                world.locals.settings.lock().retention_bytes = Some(30_000);
            }
            let crashed = tokio::select! {
                () = pass(25_000) => false,
                () = world.fuse.blown() => true,
            };
            world.check();
            if crashed {
                crashes += 1;
                runner.stop().await;
                runner = world.start();
                world.fuse.arm(1 + world.random(12));
                tokio::select! {
                    () = pass(5_000) => {}
                    () = world.fuse.blown() => {}
                }
                runner.stop().await;
                world.fuse.arm(u64::MAX);
                runner = world.start();
            }
        }
        let finished = world.fuse.taken() < at;
        pass(4 * GRACE_MS as u64).await;
        assert_eq!(world.quorum.pointer(P0()).tier_end, world.locals.end(P0()), "crash at step {at}");
        world.check();
        assert_eq!(world.orphans(), Vec::<String>::new(), "crash at step {at}");
        runner.stop().await;
        if finished {
            assert!(crashes > 35, "only {crashes} steps to crash at");
            return;
        }
    }
    panic!("the run never ends");
}

async fn storm(seed: u64) -> (Vec<String>, Millis) {
    let mut world = World::new(seed, 3);
    world.locals.settings.lock().max_lag_ms = 5_000;
    let mut runner = world.start();
    let faults = Faults { throttle: 100, hang: 20, lost_answer: 100, late: 60, truncate: 50 };
    world.store.set_faults(faults);
    world.quorum.set_faults(CommitFaults { lost_request: 60, lost_answer: 80, late: 60 });
    for _ in 0..60 {
        for index in 0..3 {
            for _ in 0..world.random(6) {
                world.locals.append(partition(index), 1 + world.random(9) as i64, 100);
            }
        }
        pass(world.random(20_000)).await;
        match world.random(8) {
            0 => {
                runner.stop().await;
                runner = world.start();
            }
            1 => {
                let tp = partition(world.random(3) as i32);
                let pointer = world.quorum.pointer(tp);
                let start = pointer.log_start + world.random(20) as Offset;
                world.quorum.delete_records(tp, start.min(world.locals.end(tp)));
            }
            2 => world.locals.settings.lock().retention_bytes = Some(20_000 + world.random(20_000)),
            _ => {}
        }
        world.check();
    }
    world.store.set_faults(Faults::default());
    world.quorum.set_faults(CommitFaults::default());
    pass(5 * GRACE_MS as u64).await;
    for tp in world.locals.led() {
        let (pointer, end) = (world.quorum.pointer(tp), world.locals.end(tp));
        assert_eq!(pointer.tier_end, end, "seed {seed}: {tp} did not converge");
        assert!(runner.status().iter().all(|status| status.error.is_none()));
    }
    world.check();
    // What this incarnation's lost requests left under its own epoch, the next one finds.
    runner.stop().await;
    let _runner = world.start();
    pass(4 * GRACE_MS as u64).await;
    assert_eq!(world.orphans(), Vec::<String>::new(), "seed {seed}");
    world.check();
    (world.store.objects().keys().map(ToString::to_string).collect(), proto::host::Clock::now_ms(&*world.clock))
}

#[tokio::test(start_paused = true)]
async fn faults_crashes_and_unknown_outcomes_converge() {
    // More with FIRN_TEST_SEEDS, as the long run does.
    let seeds = std::env::var("FIRN_TEST_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(6);
    for seed in 1..=seeds {
        storm(seed).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_objects() {
    let (first, second) = (storm(77).await, storm(77).await);
    assert_eq!(first, second);
}
