//! What the log tells of itself while it works, to whoever counts it. States (sizes, what is unsynced) are read from
//! their owners instead.

use std::fmt;
use std::time::Duration;

/// Hears of events in journals and partitions. Called on hot paths, some of them under a lock of theirs: must be quick
/// and must not call back.
pub trait Observer: Send + Sync + 'static {
    /// The journal made a group of `bytes` durable with one sync, which took `took`.
    fn synced(&self, bytes: usize, took: Duration);

    /// A reader got `memory_bytes` of batches from the tail cache and `segment_bytes` from segments.
    fn read(&self, memory_bytes: usize, segment_bytes: usize);

    /// Something failed.
    fn failed(&self, failure: Failure);
}

/// What may fail in a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// A data directory went offline.
    Directory,
    /// What was read from a segment is not what was written.
    Corrupt,
    /// A log was cut below its high watermark, after an unclean election.
    Uncommitted,
}

/// Counts nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unobserved;

impl Observer for Unobserved {
    fn synced(&self, _bytes: usize, _took: Duration) {}

    fn read(&self, _memory_bytes: usize, _segment_bytes: usize) {}

    fn failed(&self, _failure: Failure) {}
}

impl fmt::Debug for dyn Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observer")
    }
}
