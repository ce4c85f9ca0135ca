//! The settings of one partition's log, resolved from topic and broker configs.

use proto::ids::Millis;

/// When an append counts as safe on this broker (`firn.flush`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Flush {
    /// Once it is durable in the journal.
    #[default]
    Fsync,
    /// Once the operating system has it, as Kafka does: a power cut may lose it.
    Os,
}

/// Settings of a log under Kafka's names; -1 means "no limit" where Kafka says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// `segment.bytes`: a segment is rolled before it grows beyond this.
    pub segment_bytes: u64,
    /// `segment.ms`: a segment is rolled when an append comes that much after its first.
    pub segment_ms: Millis,
    /// `index.interval.bytes`: distance of index entries.
    pub index_interval_bytes: u64,
    /// `retention.bytes`, -1 for none.
    pub retention_bytes: i64,
    /// `retention.ms`, -1 for none.
    pub retention_ms: Millis,
    /// `local.retention.bytes`, -2 to follow `retention.bytes`.
    pub local_retention_bytes: i64,
    /// `local.retention.ms`, -2 to follow `retention.ms`.
    pub local_retention_ms: Millis,
    /// `remote.storage.enable`: old segments settle in the object store.
    pub remote: bool,
    /// Not `remote.log.copy.disable`: what is not in the object store yet goes there (KIP-950). Without it, what is there
    /// stays readable, and `retention.*` bounds the local log, too.
    pub remote_copy: bool,
    /// `firn.tier.max.lag.ms`: how long a record may exist only here before it is uploaded.
    pub tier_max_lag_ms: Millis,
    /// Whether `cleanup.policy` has `delete`: without it retention removes nothing.
    pub delete: bool,
    /// `firn.flush`.
    pub flush: Flush,
    /// `min.insync.replicas`.
    pub min_insync_replicas: usize,
    /// `producer.id.expiration.ms` of the broker.
    pub producer_expiration_ms: Millis,
    /// `replica.lag.time.max.ms` of the broker: who has not caught up for that long is not in sync.
    pub replica_lag_max_ms: Millis,
}

impl Default for LogConfig {
    /// Kafka's defaults, tiered.
    fn default() -> Self {
        Self {
            segment_bytes: 1 << 30,
            segment_ms: 7 * 24 * 3_600_000,
            index_interval_bytes: 4096,
            retention_bytes: -1,
            retention_ms: 7 * 24 * 3_600_000,
            local_retention_bytes: -2,
            local_retention_ms: -2,
            remote: true,
            remote_copy: true,
            tier_max_lag_ms: 3_600_000,
            delete: true,
            flush: Flush::Fsync,
            min_insync_replicas: 1,
            producer_expiration_ms: 24 * 3_600_000,
            replica_lag_max_ms: 30_000,
        }
    }
}

impl LogConfig {
    /// How long local segments are kept by age: (milliseconds, bytes), none for "no limit".
    pub fn local_limits(&self) -> (Option<Millis>, Option<u64>) {
        let follow = |local: i64, whole: i64| if self.remote && local != -2 { local } else { whole };
        let ms = follow(self.local_retention_ms, self.retention_ms);
        let bytes = follow(self.local_retention_bytes, self.retention_bytes);
        ((ms >= 0).then_some(ms), u64::try_from(bytes).ok())
    }
}
