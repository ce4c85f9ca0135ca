//! Broker configs of topics and their logs.

use super::super::definition::Check::*;
use super::super::definition::Definition;
use super::effects::*;
use super::table;

table! {
    /// Broker configs of topics and their logs.
    pub(super) ROWS
    Boolean "auto.create.topics.enable" = "true", Any, High ReadOnly, ACTED,
        "Whether a topic that a client asks for by name is created.";
    Int "compression.gzip.level" = "-1", BetweenOr(1, 9, -1), Medium ClusterWide, ACTED,
        "Default of the topic config of that name.";
    Int "compression.lz4.level" = "9", Between(1, 17), Medium ClusterWide, LZ4,
        "Default of the topic config of that name.";
    String "compression.type" = "producer", OneOf(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]), High ClusterWide, ACTED,
        "Codec in which topics store batches unless they say otherwise.";
    Int "compression.zstd.level" = "3", Between(-131072, 22), Medium ClusterWide, ACTED,
        "Default of the topic config of that name.";
    List "cordoned.log.dirs" = "", Any, Medium PerBroker, LATER,
        "Data directories that get no new partitions.";
    Int "default.replication.factor" = "1", Any, Medium ReadOnly, ACTED,
        "Replicas of a topic that does not say how many.";
    Boolean "delete.topic.enable" = "true", Any, High ReadOnly, ACTED,
        "Whether topics may be deleted.";
    Long "internal.metadata.delete.delay.millis" = "60000", Any, Low ReadOnly internal, QUORUM,
        "Wait before old metadata files are deleted.";
    Int "internal.metadata.log.segment.bytes" = NULL, Any, Low ReadOnly internal, QUORUM,
        "Size of a metadata segment in Kafka's own tests.";
    Int "internal.metadata.max.batch.size.in.bytes" = "8388608", Any, Low ReadOnly internal, QUORUM,
        "Largest batch of the metadata log.";
    Long "log.cleaner.backoff.ms" = "15000", AtLeast(0), Medium ClusterWide, COMPACTION,
        "Pause of the cleaner when there is nothing to do.";
    Long "log.cleaner.dedupe.buffer.size" = "134217728", Any, Medium ClusterWide, COMPACTION,
        "Memory for the keys a cleaner compares.";
    Long "log.cleaner.delete.retention.ms" = "86400000", AtLeast(0), Medium ClusterWide, COMPACTION,
        "Default of delete.retention.ms.";
    Boolean "log.cleaner.enable" = "true", Any, Medium ReadOnly, COMPACTION,
        "Whether the cleaner runs.";
    Double "log.cleaner.io.buffer.load.factor" = "0.9", Any, Medium ClusterWide, COMPACTION,
        "How full the cleaner's table of keys may get.";
    Int "log.cleaner.io.buffer.size" = "524288", AtLeast(0), Medium ClusterWide, COMPACTION,
        "Memory for what the cleaner reads and writes.";
    Double "log.cleaner.io.max.bytes.per.second" = "1.7976931348623157E308", Any, Medium ClusterWide, COMPACTION,
        "Bound on the cleaner's reads and writes.";
    Long "log.cleaner.max.compaction.lag.ms" = "9223372036854775807", AtLeast(1), Medium ClusterWide, COMPACTION,
        "Default of max.compaction.lag.ms.";
    Double "log.cleaner.min.cleanable.ratio" = "0.5", Within(0.0, 1.0), Medium ClusterWide, COMPACTION,
        "Default of min.cleanable.dirty.ratio.";
    Long "log.cleaner.min.compaction.lag.ms" = "0", AtLeast(0), Medium ClusterWide, COMPACTION,
        "Default of min.compaction.lag.ms.";
    Int "log.cleaner.threads" = "1", AtLeast(0), Medium ClusterWide, COMPACTION,
        "Threads of the cleaner.";
    List "log.cleanup.policy" = "delete", EachOf(&["compact", "delete"]), Medium ClusterWide, ACTED,
        "Default of cleanup.policy: `delete`, or `compact`, which is not carried out yet.";
    List "log.dir" = "./firn-data", NotEmpty, High ReadOnly, ACTED,
        "Data directory, or several; log.dirs wins over it.";
    Long "log.dir.failure.timeout.ms" = "30000", AtLeast(1), Low ReadOnly, DIRS,
        "Time to tell the controller of a failed directory before the broker stops.";
    List "log.dirs" = NULL, NotEmpty, High ReadOnly, ACTED,
        "Data directories; each has a journal of its own.";
    Long "log.flush.interval.messages" = "9223372036854775807", AtLeast(1), High ClusterWide, FLUSH,
        "Default of flush.messages.";
    Long "log.flush.interval.ms" = NULL, Any, High ClusterWide, FLUSH,
        "Default of flush.ms.";
    Int "log.flush.offset.checkpoint.interval.ms" = "60000", AtLeast(0), High ReadOnly, JOURNAL,
        "How often Kafka writes the recovery point.";
    Long "log.flush.scheduler.interval.ms" = "9223372036854775807", Any, High ReadOnly, FLUSH,
        "How often Kafka looks for logs to sync.";
    Int "log.flush.start.offset.checkpoint.interval.ms" = "60000", AtLeast(0), High ReadOnly, JOURNAL,
        "How often Kafka writes log start offsets.";
    Int "log.index.interval.bytes" = "4096", AtLeast(0), Medium ClusterWide, ACTED,
        "Default of index.interval.bytes.";
    Int "log.index.size.max.bytes" = "10485760", AtLeast(4), Medium ClusterWide, INDEX,
        "Default of segment.index.bytes.";
    Long "log.initial.task.delay.ms" = "30000", AtLeast(0), Low ReadOnly internal, INTERNAL,
        "Wait after the start before background work on logs.";
    Long "log.local.retention.bytes" = "-2", AtLeast(-2), Medium ClusterWide, ACTED,
        "Default of local.retention.bytes.";
    Long "log.local.retention.ms" = "-2", AtLeast(-2), Medium ClusterWide, ACTED,
        "Default of local.retention.ms.";
    Long "log.message.timestamp.after.max.ms" = "3600000", AtLeast(0), Medium ClusterWide, ACTED,
        "Default of message.timestamp.after.max.ms.";
    Long "log.message.timestamp.before.max.ms" = "9223372036854775807", AtLeast(0), Medium ClusterWide, ACTED,
        "Default of message.timestamp.before.max.ms.";
    String "log.message.timestamp.type" = "CreateTime", OneOf(&["CreateTime", "LogAppendTime"]), Medium ClusterWide, ACTED,
        "Default of message.timestamp.type.";
    Boolean "log.preallocate" = "false", Any, Medium ClusterWide, FILES,
        "Default of preallocate.";
    Long "log.retention.bytes" = "-1", Any, High ClusterWide, ACTED,
        "Default of retention.bytes.";
    Long "log.retention.check.interval.ms" = "300000", AtLeast(1), Medium ReadOnly, ACTED,
        "How often logs are looked at for what retention drops.";
    Int "log.retention.hours" = "168", Any, High ReadOnly, ACTED,
        "Default of retention.ms, in hours; log.retention.minutes and log.retention.ms win over it.";
    Int "log.retention.minutes" = NULL, Any, High ReadOnly, ACTED,
        "Default of retention.ms, in minutes; log.retention.ms wins over it.";
    Long "log.retention.ms" = NULL, Any, High ClusterWide, ACTED,
        "Default of retention.ms.";
    Int "log.roll.hours" = "168", AtLeast(1), High ReadOnly, ACTED,
        "Default of segment.ms, in hours; log.roll.ms wins over it.";
    Int "log.roll.jitter.hours" = "0", AtLeast(0), High ReadOnly, JITTER,
        "Default of segment.jitter.ms, in hours; log.roll.jitter.ms wins over it.";
    Long "log.roll.jitter.ms" = NULL, Any, High ClusterWide, JITTER,
        "Default of segment.jitter.ms.";
    Long "log.roll.ms" = NULL, Any, High ClusterWide, ACTED,
        "Default of segment.ms.";
    Int "log.segment.bytes" = "1073741824", AtLeast(1048576), High ClusterWide, ACTED,
        "Default of segment.bytes.";
    Long "log.segment.delete.delay.ms" = "60000", AtLeast(0), High ClusterWide, UNLINK,
        "Default of file.delete.delay.ms.";
    Int "message.max.bytes" = "1048588", AtLeast(0), High ClusterWide, ACTED,
        "Default of max.message.bytes.";
    Int "min.insync.replicas" = "1", AtLeast(1), High ClusterWide, ACTED,
        "Default of the topic config of that name.";
    Int "num.partitions" = "1", AtLeast(1), Medium ReadOnly, ACTED,
        "Partitions of a topic that does not say how many.";
    Int "num.recovery.threads.per.data.dir" = "2", AtLeast(1), High ClusterWide, THREADS,
        "Threads that recover a data directory.";
    Int "num.replica.alter.log.dirs.threads" = NULL, Any, High ReadOnly, THREADS,
        "Threads that move replicas between directories.";
}
