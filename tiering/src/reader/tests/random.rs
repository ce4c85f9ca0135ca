//! Any mix of reads, budgets, caches and faults gives the log's bytes or a retriable error.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::world::{Fault, MIB, World};
use crate::reader::{ReaderSettings, WindowSettings};

#[derive(Debug, Clone)]
struct Plan {
    settings: ReaderSettings,
    cache_bytes: u64,
    latency_ms: u64,
    consumers: Vec<Consumer>,
    faults: Vec<(&'static str, Fault)>,
}

/// Starts at a share of the log, reads so many times.
#[derive(Debug, Clone)]
struct Consumer {
    from_percent: i64,
    reads: usize,
    max_bytes: usize,
    /// Gives up on every read after this long, and asks again.
    patience_ms: u64,
    /// Reads every answer twice.
    stutters: bool,
}

fn consumer() -> impl Strategy<Value = Consumer> {
    (0i64..100, 1usize..40, 1usize..(2 << 20), 1u64..400, any::<bool>()).prop_map(
        |(from_percent, reads, max_bytes, patience_ms, stutters)| Consumer {
            from_percent,
            reads,
            max_bytes,
            patience_ms,
            stutters,
        },
    )
}

fn fault() -> impl Strategy<Value = (&'static str, Fault)> {
    let kind = prop_oneof![3 => Just("data"), 1 => Just("footer")];
    let what = prop_oneof![
        3 => Just(Fault::Fail),
        1 => Just(Fault::Hang),
        2 => (0u64..2_000_000).prop_map(Fault::Break),
        2 => (0u64..2_000_000).prop_map(Fault::Flip),
    ];
    (kind, what)
}

fn plan() -> impl Strategy<Value = Plan> {
    let sizes = (MIB / 2..16 * MIB, 0..8 * MIB, 1usize..5, 64 << 10..MIB);
    let consumers = prop::collection::vec(consumer(), 1..5);
    (sizes, 0u64..120, consumers, prop::collection::vec(fault(), 0..6)).prop_map(
        |((window_budget, cache_bytes, max_gets, first_get), latency_ms, consumers, faults)| Plan {
            settings: ReaderSettings {
                window_budget,
                max_gets,
                max_streams: 3,
                window: WindowSettings { first_get: first_get.next_multiple_of(64 << 10), ..WindowSettings::default() },
                ..ReaderSettings::default()
            },
            cache_bytes,
            latency_ms,
            consumers,
            faults,
        },
    )
}

async fn consume(world: &World, plan: &Consumer) {
    let mut next = world.pointer.tier_end * plan.from_percent / 100;
    let mut failures = 0;
    for _ in 0..plan.reads {
        if next >= world.pointer.tier_end {
            break;
        }
        for _ in 0..=usize::from(plan.stutters) {
            let patience = Duration::from_millis(plan.patience_ms);
            let read = world.read(next, plan.max_bytes);
            match tokio::time::timeout(patience, read).await {
                Ok(Ok(data)) => world.assert_data(next, &data),
                Ok(Err(error)) => {
                    // A bit that was wrong twice in a row is an error for that read, not for the next.
                    failures += 1;
                    assert!(failures < 20, "{error}");
                }
                Err(_) => {}
            }
        }
        if let Ok(data) = world.read(next, plan.max_bytes).await {
            world.assert_data(next, &data);
            next = data.next;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_bytes_are_right(plan in plan()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let latency = Duration::from_millis(plan.latency_ms);
            let mut world = World::with(3, 2 * MIB, latency, plan.settings).await;
            world.fold(1).await;
            world.limit_cache(plan.settings, plan.cache_bytes);
            for (kind, fault) in &plan.faults {
                world.source.fault(kind, *fault);
            }
            let world = Arc::new(world);
            let consumers: Vec<_> = plan.consumers.iter().cloned().map(|consumer| {
                let world = Arc::clone(&world);
                tokio::spawn(async move { consume(&world, &consumer).await })
            }).collect();
            for consumer in consumers {
                consumer.await.unwrap();
            }
            let stats = world.reader.stats();
            assert!(stats.window_bytes <= plan.settings.window_budget, "{stats:?}");
            // Everybody is gone: everything is given back.
            tokio::time::sleep(Duration::from_secs(120)).await;
            let stats = world.reader.stats();
            assert_eq!((stats.streams, stats.window_bytes, stats.gets_in_flight), (0, 0, 0));
        });
    }
}
