//! Bounds on replication while partitions are moved: Kafka's `leader.replication.throttled.rate` and `follower.replication.throttled.rate`, and for
//! each topic the replicas they hold for. Pure: time comes in.
//!
//! What an answer will hold is not known before it is read, so that the bound is kept by debt: as long as there is credit, an answer may take any
//! amount, and nothing more is taken until time has paid for it. Replicas in sync are never held up: that would hold up acknowledgements.

use proto::ids::{Millis, NodeId};
use std::collections::BTreeSet;

/// Credit that may gather while nothing is taken, in milliseconds of the rate.
const BURST_MS: i64 = 1_000;

/// Credit in bytes that grows with time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Throttle {
    /// Bytes in a second; unbounded if none.
    rate: Option<u64>,
    /// In thousandths of a byte, so that nothing is lost between two looks; negative is debt.
    credit: i128,
    /// When it was reckoned.
    at: Millis,
}

impl Throttle {
    /// One that lets everything through.
    pub const fn open() -> Throttle {
        Throttle { rate: None, credit: 0, at: 0 }
    }

    /// Bounds what is taken from `now` on to `rate` bytes in a second; not at all if there is none. A debt stays.
    pub fn set(&mut self, now: Millis, rate: Option<u64>) {
        self.reckon(now);
        if self.rate.is_none() {
            self.credit = burst(rate);
        }
        self.rate = rate;
        self.credit = self.credit.min(burst(rate));
    }

    /// Whether anything is bounded.
    pub const fn is_set(&self) -> bool {
        self.rate.is_some()
    }

    /// Whether more may be taken now.
    pub fn is_free(&mut self, now: Millis) -> bool {
        self.reckon(now);
        self.rate.is_none() || self.credit > 0
    }

    /// `bytes` were taken.
    pub fn take(&mut self, now: Millis, bytes: u64) {
        self.reckon(now);
        if self.rate.is_some() {
            self.credit -= i128::from(bytes) * 1_000;
        }
    }

    /// When more may be taken; none if at once, or never.
    pub fn free_at(&self) -> Option<Millis> {
        let rate = i128::from(self.rate?);
        if self.credit > 0 || rate == 0 {
            return None;
        }
        let wait = (1 - self.credit + rate - 1) / rate;
        Some(self.at.saturating_add(Millis::try_from(wait).unwrap_or(Millis::MAX)))
    }

    fn reckon(&mut self, now: Millis) {
        let passed = now.saturating_sub(self.at).max(0);
        self.at = self.at.max(now);
        if let Some(rate) = self.rate {
            // A byte a second is a thousandth of one each millisecond.
            let earned = i128::from(rate) * i128::from(passed);
            self.credit = (self.credit + earned).min(burst(self.rate));
        }
    }
}

fn burst(rate: Option<u64>) -> i128 {
    rate.map_or(0, |rate| i128::from(rate) * i128::from(BURST_MS))
}

/// Replicas of a topic that a bound holds for: `leader.replication.throttled.replicas` and its sister.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Throttled {
    /// None of them.
    #[default]
    None,
    /// All of them: `*`.
    All,
    /// These: partition and broker.
    Some(BTreeSet<(i32, NodeId)>),
}

impl Throttled {
    /// Reads `partition:broker,..`, `*`, or nothing. What is not such a pair holds for nothing: settings are checked when they are made.
    pub fn parse(text: &str) -> Throttled {
        let text = text.trim();
        if text == "*" {
            return Throttled::All;
        }
        let pair = |pair: &str| {
            let (partition, broker) = pair.trim().split_once(':')?;
            Some((partition.trim().parse().ok()?, NodeId(broker.trim().parse().ok()?)))
        };
        let pairs: BTreeSet<(i32, NodeId)> = text.split(',').filter_map(pair).collect();
        if pairs.is_empty() { Throttled::None } else { Throttled::Some(pairs) }
    }

    /// Whether the bound holds for the replica of `partition` on `broker`.
    pub fn has(&self, partition: i32, broker: NodeId) -> bool {
        match self {
            Throttled::None => false,
            Throttled::All => true,
            Throttled::Some(pairs) => pairs.contains(&(partition, broker)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_paid_for_by_time() {
        let mut throttle = Throttle::open();
        assert!(throttle.is_free(0));
        throttle.set(0, Some(1_000));
        assert!(throttle.is_free(0));
        // One answer may be larger than all the credit.
        throttle.take(0, 3_000);
        assert_eq!((throttle.is_free(0), throttle.free_at()), (false, Some(2_001)));
        assert!(!throttle.is_free(2_000));
        assert!(throttle.is_free(2_001));
        throttle.take(2_001, 1);
        assert_eq!(throttle.free_at(), Some(2_002));
    }

    #[test]
    fn over_time_the_rate_holds() {
        let mut throttle = Throttle::open();
        throttle.set(0, Some(10_000));
        let mut taken = 0;
        for now in 0..60_000 {
            if throttle.is_free(now) {
                throttle.take(now, 1_777);
                taken += 1_777;
            }
        }
        let most = 60 * 10_000 + 10_000 + 1_777;
        assert!((600_000..=most).contains(&taken), "{taken}");
    }

    #[test]
    fn credit_does_not_grow_without_end_and_a_clock_that_steps_back_gives_none() {
        let mut throttle = Throttle::open();
        throttle.set(0, Some(1_000));
        assert!(throttle.is_free(1_000_000));
        throttle.take(1_000_000, 1_000);
        assert!(!throttle.is_free(500_000));
        assert!(!throttle.is_free(1_000_000));
        assert!(throttle.is_free(1_000_001));
    }

    #[test]
    fn a_bound_can_be_lifted_and_set_anew() {
        let mut throttle = Throttle::open();
        throttle.set(0, Some(1));
        throttle.take(0, 1_000_000);
        assert!(!throttle.is_free(1));
        throttle.set(1, None);
        assert!(throttle.is_free(1) && !throttle.is_set());
        throttle.take(1, 1_000_000);
        throttle.set(2, Some(1_000));
        assert!(throttle.is_free(2));
        throttle.set(2, Some(0));
        assert_eq!((throttle.is_free(9), throttle.free_at()), (false, None), "nothing at all");
    }

    #[test]
    fn replicas_are_named_one_by_one_or_all() {
        assert_eq!(Throttled::parse(""), Throttled::None);
        assert!(Throttled::parse("*").has(3, NodeId(9)));
        let some = Throttled::parse("0:1, 2:3,x,4");
        assert!(some.has(0, NodeId(1)) && some.has(2, NodeId(3)));
        assert!(!some.has(0, NodeId(3)) && !some.has(4, NodeId(0)));
    }
}
