//! The configs of a topic. Their broker-wide defaults are named in [`super::super::synonyms`].

use super::super::definition::Check::*;
use super::super::definition::Definition;
use super::effects::*;
use super::table;

table! {
    /// The configs of a topic.
    pub(super) ROWS
    List "cleanup.policy" = "delete", EachOf(&["compact", "delete"]), Medium ClusterWide, ACTED,
        "What becomes of old records: `delete` drops them by time and size. `compact` is to keep the last of each key; it is taken, but not carried out yet: such a topic stays on local disk, and without `delete` it keeps every record. Both may be named.";
    Int "compression.gzip.level" = "-1", BetweenOr(1, 9, -1), Medium ClusterWide, ACTED,
        "Level Firn uses when it compresses this topic's batches with gzip itself.";
    Int "compression.lz4.level" = "9", Between(1, 17), Medium ClusterWide, LZ4,
        "Level at which Firn compresses with lz4 itself.";
    String "compression.type" = "producer", OneOf(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]), Medium ClusterWide, ACTED,
        "Codec in which batches are stored; `producer` stores them as they came.";
    Int "compression.zstd.level" = "3", Between(-131072, 22), Medium ClusterWide, ACTED,
        "Level Firn uses when it compresses this topic's batches with zstd itself.";
    Long "delete.retention.ms" = "86400000", AtLeast(0), Medium ClusterWide, COMPACTION,
        "How long the tombstones of a compacted topic can still be read.";
    Long "file.delete.delay.ms" = "60000", AtLeast(0), Medium ClusterWide, UNLINK,
        "Wait between dropping a segment and deleting its files.";
    Long "flush.messages" = "9223372036854775807", AtLeast(1), Medium ClusterWide, FLUSH,
        "Number of records after which Kafka forces a sync.";
    Long "flush.ms" = "9223372036854775807", AtLeast(0), Medium ClusterWide, FLUSH,
        "Time after which Kafka forces a sync.";
    List "follower.replication.throttled.replicas" = "", Throttled, Medium ClusterWide, ACTED,
        "Replicas whose followers are throttled, as partition:broker pairs, or `*`.";
    Int "index.interval.bytes" = "4096", AtLeast(0), Medium ClusterWide, ACTED,
        "Bytes of records for each entry of a segment's offset index.";
    Int "internal.segment.bytes" = NULL, Any, Medium ClusterWide internal, INTERNAL,
        "Segment size in Kafka's own tests, without a lower bound.";
    List "leader.replication.throttled.replicas" = "", Throttled, Medium ClusterWide, ACTED,
        "Replicas whose leaders are throttled, as partition:broker pairs, or `*`.";
    Long "local.retention.bytes" = "-2", AtLeast(-2), Medium ClusterWide, ACTED,
        "Bytes of a partition kept on local disk once tiered; -2 follows retention.bytes, -1 is unlimited.";
    Long "local.retention.ms" = "-2", AtLeast(-2), Medium ClusterWide, ACTED,
        "How long records stay on local disk once tiered; -2 follows retention.ms, -1 is for ever.";
    Long "max.compaction.lag.ms" = "9223372036854775807", AtLeast(1), Medium ClusterWide, COMPACTION,
        "Age at which a record is compacted whatever the dirty ratio is.";
    Int "max.message.bytes" = "1048588", AtLeast(0), Medium ClusterWide, ACTED,
        "Largest batch, as sent and stored, that the topic takes.";
    Long "message.timestamp.after.max.ms" = "3600000", AtLeast(0), Medium ClusterWide, ACTED,
        "How far ahead of the broker's clock a producer's timestamp may be.";
    Long "message.timestamp.before.max.ms" = "9223372036854775807", AtLeast(0), Medium ClusterWide, ACTED,
        "How far behind the broker's clock a producer's timestamp may be.";
    String "message.timestamp.type" = "CreateTime", OneOf(&["CreateTime", "LogAppendTime"]), Medium ClusterWide, ACTED,
        "Whether records keep the producer's time or get the broker's when appended.";
    Double "min.cleanable.dirty.ratio" = "0.5", Within(0.0, 1.0), Medium ClusterWide, COMPACTION,
        "Share of a compacted log that must be dirty before it is cleaned.";
    Long "min.compaction.lag.ms" = "0", AtLeast(0), Medium ClusterWide, COMPACTION,
        "Age a record must have before it may be compacted away.";
    Int "min.insync.replicas" = "1", AtLeast(1), Medium ClusterWide, ACTED,
        "In-sync replicas needed for a write with acks=all.";
    Boolean "preallocate" = "false", Any, Medium ClusterWide, FILES,
        "Whether segment files are allocated in full when they are created.";
    Boolean "remote.log.copy.disable" = "false", Any, Medium ClusterWide, ACTED,
        "Stops uploads while what is tiered stays readable.";
    Boolean "remote.log.delete.on.disable" = "false", Any, Medium ClusterWide, LATER,
        "Whether the tiered history is deleted when tiering is switched off.";
    Boolean "remote.storage.enable" = "true", Any, Medium ClusterWide, ACTED,
        "Whether the topic's history settles in object storage. Firn's default is true, Kafka's false.";
    Long "retention.bytes" = "-1", Any, Medium ClusterWide, ACTED,
        "Bytes of a partition's whole history, hot and cold, that are kept; -1 is unlimited.";
    Long "retention.ms" = "604800000", AtLeast(-1), Medium ClusterWide, ACTED,
        "How long records are kept, hot and cold; -1 is for ever.";
    Int "segment.bytes" = "1073741824", AtLeast(1048576), Medium ClusterWide, ACTED,
        "Size at which a segment is closed and may be uploaded.";
    Int "segment.index.bytes" = "10485760", AtLeast(4), Medium ClusterWide, INDEX,
        "Largest size of one index file.";
    Long "segment.jitter.ms" = "0", AtLeast(0), Medium ClusterWide, JITTER,
        "Largest random span taken off segment.ms so that partitions do not roll together.";
    Long "segment.ms" = "604800000", AtLeast(1), Medium ClusterWide, ACTED,
        "Age at which a segment is closed even if it is not full.";
    Boolean "unclean.leader.election.enable" = "false", Any, Medium ClusterWide, ACTED,
        "Whether a replica that is not in sync may lead when no other is left, losing records.";
}
