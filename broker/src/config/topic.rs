//! The typed view of one topic's configuration, for code that acts on it.

use proto::ids::Millis;
use proto::records::{Compression, TimestampType};

use super::layers::{BrokerLayers, Lookup};
use super::values::{self, FromConfig};

/// What one topic is configured to do, with broker defaults filled in. Plain values: resolve once when the
/// topic's, the broker's or the cluster's configs change, read as often as you like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TopicConfig {
    /// `max.message.bytes`: largest batch as sent or stored, inclusive.
    pub max_message_bytes: usize,
    /// `compression.type` with the level of that codec; `None` is `producer`: store what came.
    pub compression: Option<Compression>,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`: how far a timestamp may lie in the past.
    pub timestamp_before_max_ms: Millis,
    /// `message.timestamp.after.max.ms`: how far a timestamp may lie in the future.
    pub timestamp_after_max_ms: Millis,
    /// `min.insync.replicas`, at least 1.
    pub min_insync_replicas: usize,
    /// `unclean.leader.election.enable`: a replica that may lack records may lead when there is no other.
    pub unclean_leader_election: bool,
    /// `cleanup.policy`.
    pub cleanup: CleanupPolicy,
    /// `retention.ms` of the whole history; `None` keeps it for ever.
    pub retention_ms: Option<Millis>,
    /// `retention.bytes` of the whole history of a partition; `None` is unlimited.
    pub retention_bytes: Option<u64>,
    /// `local.retention.ms` of what is tiered; -2 has become `retention_ms`, `None` is unlimited.
    pub local_retention_ms: Option<Millis>,
    /// `local.retention.bytes` of a partition; -2 has become `retention_bytes`, `None` is unlimited.
    pub local_retention_bytes: Option<u64>,
    /// `segment.bytes`: a segment is rolled before it passes this.
    pub segment_bytes: u64,
    /// `segment.ms`: a segment whose first record is older is rolled.
    pub segment_ms: Millis,
    /// `index.interval.bytes`: one entry of the offset index for about so many bytes.
    pub index_interval_bytes: usize,
    /// Whether the topic is tiered: `remote.storage.enable`, which is true unless told otherwise (Kafka: false), and not
    /// compacted, since the tier cannot compact yet. What was tiered before a topic became compacted stays readable.
    pub remote_storage_enable: bool,
    /// `remote.log.copy.disable`: tiered history is kept and read, but nothing is added.
    pub remote_copy_disable: bool,
    /// `firn.flush`: what an acknowledgement stands for.
    pub flush: Flush,
    /// `firn.tier.max.lag.ms`: how long a record may exist only locally before an upload is started.
    pub tier_max_lag_ms: Millis,
}

/// `cleanup.policy`, which may be both or neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CleanupPolicy {
    /// Retention by time and size applies.
    pub delete: bool,
    /// Only the last record of each key is kept.
    pub compact: bool,
}

/// `firn.flush`: what has happened to a record when it is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Flush {
    /// It was synced to disk.
    #[default]
    Fsync,
    /// The operating system has it, as in Kafka.
    Os,
}

impl Default for TopicConfig {
    fn default() -> Self {
        Self::resolve(&BrokerLayers::none(), &())
    }
}

impl TopicConfig {
    /// The configuration of a topic with `overrides` of its own on a broker with `broker`'s layers.
    pub fn resolve(broker: &BrokerLayers<'_>, overrides: &dyn Lookup) -> Self {
        let read = Read { broker, overrides };
        let cleanup: CleanupPolicy = read.value("cleanup.policy");
        let retention_ms = read.limit("retention.ms");
        let retention_bytes = read.limit("retention.bytes");
        let local_ms: i64 = read.value("local.retention.ms");
        let local_bytes: i64 = read.value("local.retention.bytes");
        Self {
            max_message_bytes: read.size("max.message.bytes"),
            compression: read.compression(),
            timestamp_type: read.value("message.timestamp.type"),
            timestamp_before_max_ms: read.value("message.timestamp.before.max.ms"),
            timestamp_after_max_ms: read.value("message.timestamp.after.max.ms"),
            min_insync_replicas: read.size("min.insync.replicas"),
            unclean_leader_election: read.value("unclean.leader.election.enable"),
            cleanup,
            retention_ms,
            retention_bytes: retention_bytes.map(i64::unsigned_abs),
            local_retention_ms: local_limit(local_ms, retention_ms),
            local_retention_bytes: local_limit(local_bytes, retention_bytes).map(i64::unsigned_abs),
            segment_bytes: read.value::<i64>("segment.bytes").unsigned_abs(),
            segment_ms: read.value("segment.ms"),
            index_interval_bytes: read.size("index.interval.bytes"),
            remote_storage_enable: read.value("remote.storage.enable") && !cleanup.compact,
            remote_copy_disable: read.value("remote.log.copy.disable"),
            flush: read.value("firn.flush"),
            tier_max_lag_ms: read.value("firn.tier.max.lag.ms"),
        }
    }
}

/// A local limit: -2 follows the limit of the whole history, -1 is none.
fn local_limit(local: i64, whole: Option<i64>) -> Option<i64> {
    match local {
        -2 => whole,
        limit => (limit >= 0).then_some(limit),
    }
}

/// Reads one topic's effective values.
struct Read<'a> {
    broker: &'a BrokerLayers<'a>,
    overrides: &'a dyn Lookup,
}

impl Read<'_> {
    fn value<T: FromConfig>(&self, name: &str) -> T {
        values::topic_value(self.broker, self.overrides, name)
    }

    fn size(&self, name: &str) -> usize {
        usize::try_from(self.value::<i64>(name)).unwrap_or(0)
    }

    fn limit(&self, name: &str) -> Option<i64> {
        let limit = self.value(name);
        (limit >= 0).then_some(limit)
    }

    fn compression(&self) -> Option<Compression> {
        let codec = self.value::<values::TopicCodec>("compression.type").0?;
        let level = match codec {
            proto::records::Codec::Gzip => Some(self.value("compression.gzip.level")),
            proto::records::Codec::Zstd => Some(self.value("compression.zstd.level")),
            proto::records::Codec::None | proto::records::Codec::Snappy | proto::records::Codec::Lz4 => None,
        };
        Some(Compression { codec, level })
    }
}
