//! Kafka's broker configs of tiered storage (KIP-405).

use super::super::definition::Check::*;
use super::super::definition::Definition;
use super::effects::*;
use super::table;

table! {
    /// Kafka's broker configs of tiered storage (KIP-405).
    pub(super) ROWS
    Boolean "follower.fetch.last.tiered.offset.enable" = "false", Any, Medium ClusterWide, FROM_TIER,
        "Whether a new replica starts at the tiered offset; Firn's always do.";
    Int "remote.fetch.max.wait.ms" = "500", AtLeast(1), Medium ClusterWide, REMOTE_WAIT,
        "Longest a fetch waits for cold data.";
    Long "remote.list.offsets.request.timeout.ms" = "30000", AtLeast(1), Medium ClusterWide, REMOTE_WAIT,
        "Longest a look-up of offsets waits for cold data.";
    Long "remote.log.index.file.cache.total.size.bytes" = "1073741824", AtLeast(1), Low ClusterWide, CHUNKS,
        "Disk space for indexes of cold segments.";
    Long "remote.log.index.file.cache.ttl.ms" = "900000", AtLeast(-1), Low ReadOnly internal, CHUNKS,
        "Time an unused index of a cold segment is kept.";
    Int "remote.log.manager.copier.thread.pool.size" = "10", AtLeast(1), Medium ClusterWide, TIER_TASKS,
        "Threads that upload.";
    Long "remote.log.manager.copy.max.bytes.per.second" = "9223372036854775807", AtLeast(1), Medium ClusterWide, TIER_RATE,
        "Bound on upload traffic.";
    Int "remote.log.manager.copy.quota.window.num" = "11", AtLeast(1), Medium ReadOnly, TIER_RATE,
        "Windows kept for the upload bound.";
    Int "remote.log.manager.copy.quota.window.size.seconds" = "1", AtLeast(1), Medium ReadOnly, TIER_RATE,
        "Length of a window for the upload bound.";
    Int "remote.log.manager.expiration.thread.pool.size" = "10", AtLeast(1), Medium ClusterWide, TIER_TASKS,
        "Threads that expire cold segments.";
    Long "remote.log.manager.fetch.max.bytes.per.second" = "9223372036854775807", AtLeast(1), Medium ClusterWide, TIER_RATE,
        "Bound on download traffic.";
    Int "remote.log.manager.fetch.quota.window.num" = "11", AtLeast(1), Medium ReadOnly, TIER_RATE,
        "Windows kept for the download bound.";
    Int "remote.log.manager.fetch.quota.window.size.seconds" = "1", AtLeast(1), Medium ReadOnly, TIER_RATE,
        "Length of a window for the download bound.";
    Int "remote.log.manager.follower.thread.pool.size" = "2", AtLeast(1), Medium ClusterWide, TIER_TASKS,
        "Threads for what followers do with tiered partitions.";
    Long "remote.log.manager.task.interval.ms" = "30000", AtLeast(1), Low ReadOnly, TIER_INTERVAL,
        "How often Kafka looks for what to upload and expire.";
    Long "remote.log.manager.task.retry.backoff.max.ms" = "30000", AtLeast(1), Low ReadOnly internal, TIER_INTERVAL,
        "Longest pause before a failed upload is tried again.";
    Long "remote.log.manager.task.retry.backoff.ms" = "500", AtLeast(1), Low ReadOnly internal, TIER_INTERVAL,
        "First pause before a failed upload is tried again.";
    Double "remote.log.manager.task.retry.jitter" = "0.2", Within(0.0, 0.5), Low ReadOnly internal, TIER_INTERVAL,
        "Random share of that pause.";
    Int "remote.log.manager.thread.pool.size" = "2", AtLeast(1), Medium ReadOnly, TIER_TASKS,
        "Threads for all tiering tasks.";
    Int "remote.log.metadata.custom.metadata.max.bytes" = "128", AtLeast(0), Low ReadOnly, TIER_PLUGIN,
        "Bytes of metadata a storage plugin may add.";
    String "remote.log.metadata.manager.class.name" = "org.apache.kafka.server.log.remote.metadata.storage.TopicBasedRemoteLogMetadataManager", NotEmpty, Medium ReadOnly, TIER_JAVA,
        "Class that keeps the metadata of cold segments.";
    String "remote.log.metadata.manager.class.path" = NULL, Any, Medium ReadOnly, TIER_JAVA,
        "Where that class is found.";
    String "remote.log.metadata.manager.impl.prefix" = "rlmm.config.", NotEmpty, Medium ReadOnly, TIER_PLUGIN,
        "Prefix of that class's own settings.";
    String "remote.log.metadata.manager.listener.name" = NULL, NotEmpty, Medium ReadOnly, TIER_PLUGIN,
        "Listener through which that class reaches its topic.";
    Int "remote.log.reader.max.pending.tasks" = "100", AtLeast(1), Medium ReadOnly, TIER_TASKS,
        "Cold reads that may wait.";
    Int "remote.log.reader.threads" = "10", AtLeast(1), Medium ClusterWide, TIER_TASKS,
        "Threads that read cold segments.";
    String "remote.log.storage.manager.class.name" = NULL, NotEmpty, Medium ReadOnly, TIER_JAVA,
        "Class that reaches the object store.";
    String "remote.log.storage.manager.class.path" = NULL, Any, Medium ReadOnly, TIER_JAVA,
        "Where that class is found.";
    String "remote.log.storage.manager.impl.prefix" = "rsm.config.", NotEmpty, Medium ReadOnly, TIER_PLUGIN,
        "Prefix of that class's own settings.";
    Boolean "remote.log.storage.system.enable" = "true", Any, Medium ReadOnly, TIER_ALWAYS,
        "Whether the cluster tiers at all.";
}
