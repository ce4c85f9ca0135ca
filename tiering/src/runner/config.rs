//! Settings of the runner.

use std::time::Duration;

use proto::ids::Millis;

use super::backoff::Backoff;
use crate::manifest::LEAF_ENTRIES;

/// Settings of the runner, the same for all partitions. Topics' own settings come with
/// [`LocalState`](crate::ports::LocalState).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunnerConfig {
    /// Most bytes of record data in one object; a larger segment becomes several objects. A single
    /// batch may exceed it.
    pub max_object_bytes: u64,
    /// Bytes of objects in memory at once, over all partitions (BOUNDED). At least one object fits,
    /// however large.
    pub upload_budget_bytes: u64,
    /// Objects of one partition under way at once.
    pub objects_at_once: usize,
    /// Partitions worked on at once.
    pub partitions_at_once: usize,
    /// Bytes asked of the local log in one read.
    pub read_chunk_bytes: usize,
    /// How often partitions are looked at without being told to.
    pub tick: Duration,
    /// How often retention is checked (`log.retention.check.interval.ms`).
    pub retention_check_ms: Millis,
    /// How long an object that nothing refers to any more is kept for readers that still do.
    pub grace_ms: Millis,
    /// How often a partition's prefix is listed to find what crashed leaders left behind.
    pub sweep_interval_ms: Millis,
    /// Entries in a manifest leaf.
    pub leaf_entries: usize,
    /// Bytes of roots and leaves kept decoded.
    pub manifest_cache_bytes: u64,
    /// Attempts at one request before the partition's round is given up.
    pub attempts: u32,
    /// Waits between attempts, and between failed rounds.
    pub backoff: Backoff,
}

impl Default for RunnerConfig {
    fn default() -> Self {
        Self {
            max_object_bytes: 64 << 20,
            upload_budget_bytes: 128 << 20,
            objects_at_once: 4,
            partitions_at_once: 16,
            read_chunk_bytes: 1 << 20,
            tick: Duration::from_secs(1),
            retention_check_ms: 5 * 60 * 1000,
            grace_ms: 60 * 60 * 1000,
            sweep_interval_ms: 6 * 60 * 60 * 1000,
            leaf_entries: LEAF_ENTRIES,
            manifest_cache_bytes: 32 << 20,
            attempts: 4,
            backoff: Backoff { first: Duration::from_millis(200), cap: Duration::from_secs(30) },
        }
    }
}
