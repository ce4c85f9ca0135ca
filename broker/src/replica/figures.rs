//! What replication counts, for whoever shows it.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts since the start.
#[derive(Debug, Default)]
pub struct Figures {
    /// Bytes of batches that came from leaders.
    pub bytes: AtomicU64,
    /// Answers to fetches.
    pub answers: AtomicU64,
    /// Requests that were not answered: connections refused, broken or silent.
    pub unanswered: AtomicU64,
    /// Times that a leader's answer about a partition was an error.
    pub refused: AtomicU64,
    /// Times that what a leader sent did not check out or did not fit.
    pub corrupt: AtomicU64,
    /// Logs that were cut where their history left their leader's.
    pub cuts: AtomicU64,
    /// Logs that started over, at the end of the tier or at their leader's start.
    pub started_over: AtomicU64,
}

impl Figures {
    pub(super) fn add(counter: &AtomicU64, by: u64) {
        counter.fetch_add(by, Ordering::Relaxed);
    }
}
