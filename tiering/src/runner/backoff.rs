//! How long to wait before trying again.

use std::time::Duration;

use proto::host::Entropy;

/// Exponential with full jitter: the n-th wait is uniform in `(0, first · 2ⁿ]`, at most `cap`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// Bound of the first wait.
    pub first: Duration,
    /// Bound of every wait.
    pub cap: Duration,
}

impl Backoff {
    /// The wait after `failures` failures in a row (at least 1).
    pub fn wait(&self, failures: u32, entropy: &dyn Entropy) -> Duration {
        let doubled = self.first.saturating_mul(1u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX));
        let bound = doubled.min(self.cap).as_millis().max(1) as u64;
        Duration::from_millis(1 + entropy.next_u64() % bound)
    }
}
