//! Broker configs of share groups (KIP-932) and streams groups (KIP-1071).

use super::super::definition::Check::*;
use super::super::definition::Definition;
use super::effects::*;
use super::table;

table! {
    /// Broker configs of share groups (KIP-932) and streams groups (KIP-1071).
    pub(super) ROWS
    Int "group.share.assignment.interval.ms" = "1000", AtLeast(0), Medium ClusterWide, SHARE,
        "Shortest time between two assignments of a share group.";
    List "group.share.assignors" = "simple", NotEmpty, Medium ReadOnly, SHARE,
        "Server-side assignors of share groups.";
    Int "group.share.delivery.count.limit" = "5", Between(2, 10), Medium ReadOnly, SHARE,
        "Deliveries of a record before it is given up.";
    Int "group.share.heartbeat.interval.ms" = "5000", AtLeast(1), Medium ReadOnly, SHARE,
        "Heartbeat interval told to members.";
    Int "group.share.initialize.retry.interval.ms" = "30000", AtLeast(1), Low ReadOnly internal, SHARE,
        "Pause before the state of a share partition is initialized again.";
    Int "group.share.max.assignment.interval.ms" = "15000", AtLeast(0), Medium ReadOnly, SHARE,
        "Upper bound for a group's assignment interval.";
    Int "group.share.max.delivery.count.limit" = "10", Between(5, 25), Medium ReadOnly, SHARE,
        "Upper bound for a group's delivery limit.";
    Int "group.share.max.heartbeat.interval.ms" = "15000", AtLeast(1), Medium ReadOnly, SHARE,
        "Upper bound for a group's heartbeat interval.";
    Int "group.share.max.partition.max.record.locks" = "4000", Between(2000, 10000), Medium ReadOnly, SHARE,
        "Upper bound for a group's record locks.";
    Int "group.share.max.record.lock.duration.ms" = "60000", Between(30000, 3600000), Medium ReadOnly, SHARE,
        "Upper bound for a group's lock duration.";
    Int "group.share.max.session.timeout.ms" = "60000", AtLeast(1), Medium ReadOnly, SHARE,
        "Upper bound for a group's session timeout.";
    Int "group.share.max.share.sessions" = "2000", AtLeast(1), Medium ReadOnly, SHARE,
        "Share sessions a broker keeps.";
    Int "group.share.max.size" = "200", Between(1, 1000), Medium ReadOnly, SHARE,
        "Members a share group may have.";
    Int "group.share.min.assignment.interval.ms" = "0", AtLeast(0), Medium ReadOnly, SHARE,
        "Lower bound for a group's assignment interval.";
    Int "group.share.min.delivery.count.limit" = "2", Between(2, 5), Medium ReadOnly, SHARE,
        "Lower bound for a group's delivery limit.";
    Int "group.share.min.heartbeat.interval.ms" = "5000", AtLeast(1), Medium ReadOnly, SHARE,
        "Lower bound for a group's heartbeat interval.";
    Int "group.share.min.partition.max.record.locks" = "100", Between(100, 2000), Medium ReadOnly, SHARE,
        "Lower bound for a group's record locks.";
    Int "group.share.min.record.lock.duration.ms" = "15000", Between(1000, 30000), Medium ReadOnly, SHARE,
        "Lower bound for a group's lock duration.";
    Int "group.share.min.session.timeout.ms" = "45000", AtLeast(1), Medium ReadOnly, SHARE,
        "Lower bound for a group's session timeout.";
    Int "group.share.partition.max.record.locks" = "2000", Between(100, 10000), Medium ReadOnly, SHARE,
        "Records of a share partition in delivery at a time.";
    String "group.share.persister.class.name" = "org.apache.kafka.server.share.persister.DefaultStatePersister", Any, Medium ReadOnly internal, JAVA,
        "Class that keeps the state of share groups.";
    Int "group.share.record.lock.duration.ms" = "30000", Between(1000, 3600000), Medium ReadOnly, SHARE,
        "How long a delivered record is locked for its consumer.";
    Int "group.share.session.timeout.ms" = "45000", AtLeast(1), Medium ReadOnly, SHARE,
        "Silence after which a member is dropped.";
    Int "group.streams.assignment.interval.ms" = "1000", AtLeast(0), Medium ClusterWide, STREAMS,
        "Shortest time between two assignments of a streams group.";
    Int "group.streams.heartbeat.interval.ms" = "5000", AtLeast(1), Medium ReadOnly, STREAMS,
        "Heartbeat interval told to members.";
    Int "group.streams.initial.rebalance.delay.ms" = "3000", AtLeast(0), Medium ReadOnly, STREAMS,
        "Wait for more members before an empty group's first assignment.";
    Int "group.streams.max.assignment.interval.ms" = "15000", AtLeast(0), Medium ReadOnly, STREAMS,
        "Upper bound for a group's assignment interval.";
    Int "group.streams.max.heartbeat.interval.ms" = "15000", AtLeast(1), Medium ReadOnly, STREAMS,
        "Upper bound for a group's heartbeat interval.";
    Int "group.streams.max.session.timeout.ms" = "60000", AtLeast(1), Medium ReadOnly, STREAMS,
        "Upper bound for a group's session timeout.";
    Int "group.streams.max.size" = "2147483647", AtLeast(1), Medium ReadOnly, STREAMS,
        "Members a streams group may have.";
    Int "group.streams.max.standby.replicas" = "2", AtLeast(0), Medium ReadOnly, STREAMS,
        "Upper bound for a group's standby replicas.";
    Int "group.streams.min.assignment.interval.ms" = "0", AtLeast(0), Medium ReadOnly, STREAMS,
        "Lower bound for a group's assignment interval.";
    Int "group.streams.min.heartbeat.interval.ms" = "5000", AtLeast(1), Medium ReadOnly, STREAMS,
        "Lower bound for a group's heartbeat interval.";
    Int "group.streams.min.session.timeout.ms" = "45000", AtLeast(1), Medium ReadOnly, STREAMS,
        "Lower bound for a group's session timeout.";
    Int "group.streams.num.standby.replicas" = "0", AtLeast(0), Medium ReadOnly, STREAMS,
        "Standby replicas of each task.";
    Int "group.streams.session.timeout.ms" = "45000", AtLeast(1), Medium ReadOnly, STREAMS,
        "Silence after which a member is dropped.";
    Int "share.coordinator.append.linger.ms" = "-1", AtLeast(-1), Medium ReadOnly, SHARE,
        "Time a share coordinator collects writes; -1 adapts.";
    Int "share.coordinator.cached.buffer.max.bytes" = "1048588", AtLeast(524288), Medium ClusterWide, SHARE,
        "Largest write buffer a share coordinator keeps for reuse.";
    Int "share.coordinator.cold.partition.snapshot.interval.ms" = "300000", AtLeast(1), Low ReadOnly internal, SHARE,
        "How often the state of quiet share partitions is written in full.";
    Int "share.coordinator.load.buffer.size" = "5242880", AtLeast(1), High ReadOnly, SHARE,
        "Bytes read at a time when share state is loaded.";
    Int "share.coordinator.snapshot.update.records.per.snapshot" = "500", Between(0, 500), Medium ReadOnly, SHARE,
        "Updates written between two snapshots of a share partition.";
    Int "share.coordinator.state.topic.compression.codec" = "0", Any, High ReadOnly, SHARE,
        "Codec number of the share state topic's batches.";
    Short "share.coordinator.state.topic.min.isr" = "2", AtLeast(1), High ReadOnly, ACTED,
        "min.insync.replicas of the share state topic.";
    Int "share.coordinator.state.topic.num.partitions" = "50", AtLeast(1), High ReadOnly, ACTED,
        "Partitions of the share state topic when it is created.";
    Int "share.coordinator.state.topic.prune.interval.ms" = "300000", AtLeast(1), Low ReadOnly internal, SHARE,
        "How often the share state topic is trimmed.";
    Short "share.coordinator.state.topic.replication.factor" = "3", AtLeast(1), High ReadOnly, SHARE,
        "Replicas of the share state topic when it is created.";
    Int "share.coordinator.state.topic.segment.bytes" = "104857600", AtLeast(1), High ReadOnly, ACTED,
        "Segment size of the share state topic when it is created.";
    Int "share.coordinator.threads" = "1", AtLeast(1), Medium ReadOnly, SHARE,
        "Threads of the share coordinator.";
    Int "share.coordinator.write.timeout.ms" = "5000", AtLeast(1), High ReadOnly, SHARE,
        "Time a write of share state may take to be replicated.";
    Int "share.fetch.purgatory.purge.interval.requests" = "1000", Any, Medium ReadOnly, PURGATORY,
        "Waiting share fetches between two purges.";
}
