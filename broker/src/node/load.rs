//! What this broker tells the leader of the quorum of its load: bytes on its disks, and what the partitions it leads carry.
//!
//! Only what is new or has changed by more than a tenth is told, and at most [`MOST`] partitions in one beat: the rest comes with
//! the next ones.

use crate::api::services::Services;
use controller::balance::{Disk, Load, PartitionLoad};
use proto::ids::TopicPartition;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// How often it is measured.
const EVERY: Duration = Duration::from_secs(10);
/// Partitions that one beat tells of.
const MOST: usize = 2000;
/// How much of the last measure a rate keeps, in quarters.
const KEPT: u64 = 3;

/// What a partition has carried since the process began, and what lies on its disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Count {
    tp: TopicPartition,
    brought: u64,
    taken: u64,
    hot: u64,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    count: Count,
    /// None before it was measured once: what it carried before this broker led it is somebody else's, who told of it.
    load: Option<PartitionLoad>,
    /// What the leader of the quorum was told last.
    told: Option<PartitionLoad>,
}

/// Measures, and knows what was told.
#[derive(Debug, Default)]
pub(super) struct Meter {
    seen: BTreeMap<TopicPartition, Seen>,
    disk: Disk,
    at: Option<Instant>,
    /// There is more to tell.
    left: bool,
}

impl Meter {
    /// Another leader of the quorum knows nothing yet.
    pub(super) fn forget_told(&mut self) {
        self.seen.values_mut().for_each(|seen| seen.told = None);
        self.left = true;
    }

    /// What to tell with the next beat, if there is anything.
    pub(super) fn tell(&mut self, services: &Services) -> Option<Load> {
        let now = Instant::now();
        let passed = self.at.map(|at| now.saturating_duration_since(at));
        if passed.is_none_or(|passed| passed >= EVERY) {
            self.at = Some(now);
            self.disk = disk(services);
            self.measure(counts(services), passed.unwrap_or(EVERY));
        } else if !self.left {
            return None;
        }
        Some(Load { disk: self.disk, partitions: self.untold() })
    }

    /// Takes in what partitions have carried; `passed` since the last time.
    fn measure(&mut self, counts: Vec<Count>, passed: Duration) {
        let ms = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX).max(1);
        let rate = |bytes: u64| bytes.saturating_mul(1000) / ms;
        let mut seen = BTreeMap::new();
        for count in counts {
            let before = self.seen.get(&count.tp);
            let load = before.map(|Seen { count: last, load, .. }| {
                let now = PartitionLoad {
                    bytes_in: rate(count.brought.saturating_sub(last.brought)),
                    bytes_out: rate(count.taken.saturating_sub(last.taken)),
                    hot: count.hot,
                };
                load.map_or(now, |load| smoothed(load, now))
            });
            seen.insert(count.tp, Seen { count, load, told: before.and_then(|seen| seen.told) });
        }
        self.seen = seen;
        self.left = true;
    }

    /// What the leader of the quorum does not know yet.
    fn untold(&mut self) -> Vec<(TopicPartition, PartitionLoad)> {
        let mut untold = Vec::new();
        self.left = false;
        for (tp, seen) in &mut self.seen {
            let Some(load) = seen.load.filter(|load| seen.told.is_none_or(|told| is_notable(told, *load))) else {
                continue;
            };
            if untold.len() == MOST {
                self.left = true;
                break;
            }
            seen.told = Some(load);
            untold.push((*tp, load));
        }
        untold
    }
}

/// Sizes are as they are, rates change slowly.
fn smoothed(before: PartitionLoad, now: PartitionLoad) -> PartitionLoad {
    let smooth = |before: u64, now: u64| before.saturating_mul(KEPT).saturating_add(now) / (KEPT + 1);
    PartitionLoad {
        bytes_in: smooth(before.bytes_in, now.bytes_in),
        bytes_out: smooth(before.bytes_out, now.bytes_out),
        hot: now.hot,
    }
}

/// Whether one of the figures differs by more than a tenth.
fn is_notable(told: PartitionLoad, now: PartitionLoad) -> bool {
    let differs = |told: u64, now: u64| told.abs_diff(now) > told / 10;
    differs(told.bytes_in, now.bytes_in) || differs(told.bytes_out, now.bytes_out) || differs(told.hot, now.hot)
}

fn counts(services: &Services) -> Vec<Count> {
    let led = services.partitions.all().into_iter().filter(|partition| partition.leadership().leads);
    led.map(|partition| Count {
        tp: partition.tp(),
        brought: partition.traffic().brought(),
        taken: partition.traffic().taken(),
        hot: partition.size_bytes(),
    })
    .collect()
}

fn disk(services: &Services) -> Disk {
    let spaces = services.partitions.dirs().iter().filter_map(|dir| dir.space());
    spaces.fold(Disk::default(), |disk, space| Disk {
        used: disk.used.saturating_add(space.total.saturating_sub(space.free)),
        total: disk.total.saturating_add(space.total),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::ids::{TopicId, Uuid};

    fn count(partition: i32, brought: u64, hot: u64) -> Count {
        let tp = TopicPartition { topic: TopicId(Uuid::from_u128(1)), partition };
        Count { tp, brought, taken: 0, hot }
    }

    #[test]
    fn rates_are_smoothed_and_told_when_they_change() {
        let mut meter = Meter::default();
        meter.measure(vec![count(0, 1_000_000, 50)], EVERY);
        assert_eq!(meter.untold(), [], "nobody knows its rates yet, and its former leader told of them");
        meter.measure(vec![count(0, 1_400_000, 51)], EVERY);
        assert_eq!(meter.untold()[0].1, PartitionLoad { bytes_in: 40_000, bytes_out: 0, hot: 51 });
        meter.measure(vec![count(0, 1_820_000, 52)], EVERY);
        assert_eq!(meter.untold(), [], "nearly as before, and a byte of fifty more");
        meter.measure(vec![count(0, 1_820_000, 52)], EVERY);
        assert_eq!(meter.untold()[0].1.bytes_in, 30_375, "a quarter less of 40,500");
        meter.forget_told();
        assert_eq!(meter.untold().len(), 1, "another leader has to be told");
        meter.measure(vec![], EVERY);
        assert_eq!(meter.untold(), [], "led no more");
    }

    #[test]
    fn one_beat_tells_of_a_bounded_number() {
        let mut meter = Meter::default();
        for _ in 0..2 {
            meter.measure((0..4500).map(|partition| count(partition, 0, 100)).collect(), EVERY);
        }
        let told: Vec<usize> = (0..4).map(|_| meter.untold().len()).collect();
        assert_eq!(told, [MOST, MOST, 500, 0]);
        assert!(!meter.left);
    }
}
