//! What remote reads did, in numbers that only rise (and a few that say how much is going on now).

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::source::SourceError;

/// How a GET ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Ok,
    NotFound,
    Failed,
    TimedOut,
}

impl Outcome {
    pub(super) fn of(error: &SourceError) -> Self {
        match error {
            SourceError::NotFound => Self::NotFound,
            SourceError::Transient(_) | SourceError::Permanent(_) => Self::Failed,
        }
    }
}

/// Counters of one reader. Read them with `snapshot`.
#[derive(Debug, Default)]
pub(super) struct Stats {
    gets_ok: AtomicU64,
    gets_not_found: AtomicU64,
    gets_failed: AtomicU64,
    gets_timed_out: AtomicU64,
    gets_started: AtomicU64,
    get_micros: AtomicU64,
    bytes_fetched: AtomicU64,
    bytes_asked: AtomicU64,
    bytes_served: AtomicU64,
    bytes_from_cache: AtomicU64,
    bytes_shared: AtomicU64,
    corrupt: AtomicU64,
}

/// The counters at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StatsSnapshot {
    /// GETs that succeeded.
    pub gets_ok: u64,
    /// GETs answered with "no such object".
    pub gets_not_found: u64,
    /// GETs that failed otherwise.
    pub gets_failed: u64,
    /// GETs that took too long to answer or to go on.
    pub gets_timed_out: u64,
    /// GETs running now.
    pub gets_in_flight: u64,
    /// Microseconds spent in GETs that ended, summed.
    pub get_micros: u64,
    /// Bytes received from the store.
    pub bytes_fetched: u64,
    /// Bytes that callers asked for (their limits, summed).
    pub bytes_asked: u64,
    /// Bytes of whole batches handed to callers.
    pub bytes_served: u64,
    /// Bytes that a stream wanted and found in the cache.
    pub bytes_from_cache: u64,
    /// Bytes that a stream wanted and another's GET was already bringing.
    pub bytes_shared: u64,
    /// Times that bytes did not match their checksum.
    pub corrupt: u64,
    /// Bytes that streams hold or have on their way now.
    pub window_bytes: u64,
    /// Bytes in the chunk cache now.
    pub cache_bytes: u64,
    /// Read streams alive now.
    pub streams: u64,
}

impl Stats {
    pub(super) fn get_started(&self) {
        self.gets_started.fetch_add(1, Relaxed);
    }

    pub(super) fn get_ended(&self, outcome: Outcome, bytes: u64, took: Duration) {
        let counter = match outcome {
            Outcome::Ok => &self.gets_ok,
            Outcome::NotFound => &self.gets_not_found,
            Outcome::Failed => &self.gets_failed,
            Outcome::TimedOut => &self.gets_timed_out,
        };
        counter.fetch_add(1, Relaxed);
        self.bytes_fetched.fetch_add(bytes, Relaxed);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.get_micros.fetch_add(micros, Relaxed);
    }

    pub(super) fn asked(&self, bytes: u64) {
        self.bytes_asked.fetch_add(bytes, Relaxed);
    }

    pub(super) fn served(&self, bytes: u64) {
        self.bytes_served.fetch_add(bytes, Relaxed);
    }

    pub(super) fn cached(&self, bytes: u64) {
        self.bytes_from_cache.fetch_add(bytes, Relaxed);
    }

    pub(super) fn shared(&self, bytes: u64) {
        self.bytes_shared.fetch_add(bytes, Relaxed);
    }

    pub(super) fn corrupt(&self) {
        self.corrupt.fetch_add(1, Relaxed);
    }

    /// The counters now. What streams and cache hold is filled in by the reader.
    pub(super) fn snapshot(&self) -> StatsSnapshot {
        let ended = [&self.gets_ok, &self.gets_not_found, &self.gets_failed, &self.gets_timed_out]
            .map(|counter| counter.load(Relaxed));
        let [gets_ok, gets_not_found, gets_failed, gets_timed_out] = ended;
        StatsSnapshot {
            gets_ok,
            gets_not_found,
            gets_failed,
            gets_timed_out,
            gets_in_flight: self.gets_started.load(Relaxed).saturating_sub(ended.iter().sum()),
            get_micros: self.get_micros.load(Relaxed),
            bytes_fetched: self.bytes_fetched.load(Relaxed),
            bytes_asked: self.bytes_asked.load(Relaxed),
            bytes_served: self.bytes_served.load(Relaxed),
            bytes_from_cache: self.bytes_from_cache.load(Relaxed),
            bytes_shared: self.bytes_shared.load(Relaxed),
            corrupt: self.corrupt.load(Relaxed),
            ..StatsSnapshot::default()
        }
    }
}
