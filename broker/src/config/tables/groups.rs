//! Broker configs of classic and consumer groups and of committed offsets.

use super::super::definition::Check::*;
use super::super::definition::Definition;
use super::effects::*;
use super::table;

table! {
    /// Broker configs of classic and consumer groups and of committed offsets.
    pub(super) ROWS
    Int "group.consumer.assignment.interval.ms" = "1000", AtLeast(0), Medium ClusterWide, KIP848,
        "Shortest time between two assignments of a consumer group.";
    List "group.consumer.assignors" = "uniform,range", NotEmpty, Medium ReadOnly, KIP848,
        "Server-side assignors, the default one first.";
    Int "group.consumer.heartbeat.interval.ms" = "5000", AtLeast(1), Medium ReadOnly, KIP848,
        "Heartbeat interval told to members.";
    Int "group.consumer.max.assignment.interval.ms" = "15000", AtLeast(0), Medium ReadOnly, KIP848,
        "Upper bound for a group's assignment interval.";
    Int "group.consumer.max.heartbeat.interval.ms" = "15000", AtLeast(1), Medium ReadOnly, KIP848,
        "Upper bound for a group's heartbeat interval.";
    Int "group.consumer.max.session.timeout.ms" = "60000", AtLeast(1), Medium ReadOnly, KIP848,
        "Upper bound for a group's session timeout.";
    Int "group.consumer.max.size" = "2147483647", AtLeast(1), Medium ReadOnly, KIP848,
        "Members a consumer group may have.";
    String "group.consumer.migration.policy" = "bidirectional", OneOfAnyCase(&["DISABLED", "DOWNGRADE", "UPGRADE", "BIDIRECTIONAL"]), Medium ReadOnly, KIP848,
        "Which conversions between classic and consumer groups happen while in use.";
    Int "group.consumer.min.assignment.interval.ms" = "0", AtLeast(0), Medium ReadOnly, KIP848,
        "Lower bound for a group's assignment interval.";
    Int "group.consumer.min.heartbeat.interval.ms" = "5000", AtLeast(1), Medium ReadOnly, KIP848,
        "Lower bound for a group's heartbeat interval.";
    Int "group.consumer.min.session.timeout.ms" = "45000", AtLeast(1), Medium ReadOnly, KIP848,
        "Lower bound for a group's session timeout.";
    Int "group.consumer.regex.refresh.interval.ms" = "600000", AtLeast(10000), Medium ReadOnly internal, KIP848,
        "How often subscriptions by pattern are matched again.";
    Int "group.consumer.session.timeout.ms" = "45000", AtLeast(1), Medium ReadOnly, KIP848,
        "Silence after which a member is dropped.";
    Int "group.coordinator.append.linger.ms" = "-1", AtLeast(-1), Medium ReadOnly, COORDINATOR,
        "Time a coordinator collects writes; -1 adapts.";
    Int "group.coordinator.background.threads" = "2", AtLeast(1), High ReadOnly, THREADS,
        "Threads for the coordinator's background work.";
    Int "group.coordinator.cached.buffer.max.bytes" = "1048588", AtLeast(524288), Medium ClusterWide, COORDINATOR,
        "Largest write buffer a coordinator keeps for reuse.";
    List "group.coordinator.rebalance.protocols" = "classic,consumer,streams", SomeOf(&["consumer", "classic", "share", "streams"]), Medium ReadOnly, PROTOCOLS,
        "Group protocols that are served; Firn serves classic.";
    Int "group.coordinator.threads" = "4", AtLeast(1), High ReadOnly, THREADS,
        "Threads of the group coordinator.";
    Int "group.initial.rebalance.delay.ms" = "3000", Any, Medium ReadOnly, ACTED,
        "Wait for more members before an empty group's first rebalance.";
    Int "group.max.session.timeout.ms" = "1800000", Any, Medium ReadOnly, ACTED,
        "Longest session timeout a member may ask for.";
    Int "group.max.size" = "2147483647", AtLeast(1), Medium ReadOnly, ACTED,
        "Members a classic group may have.";
    Int "group.min.session.timeout.ms" = "6000", Any, Medium ReadOnly, ACTED,
        "Shortest session timeout a member may ask for.";
    Int "offset.metadata.max.bytes" = "4096", Any, High ReadOnly, ACTED,
        "Most bytes of metadata with a committed offset.";
    Int "offsets.commit.timeout.ms" = "5000", AtLeast(1), High ReadOnly, ACTED,
        "How long a commit or an assignment may take to be replicated, before its client is told to try again.";
    Int "offsets.load.buffer.size" = "5242880", AtLeast(1), High ReadOnly, COORDINATOR,
        "Bytes read at a time when offsets are loaded.";
    Long "offsets.retention.check.interval.ms" = "600000", AtLeast(1), High ReadOnly, ACTED,
        "How often committed offsets are looked at for expiry.";
    Int "offsets.retention.minutes" = "10080", AtLeast(1), High ReadOnly, ACTED,
        "How long offsets of a group without members are kept.";
    Int "offsets.topic.compression.codec" = "0", Any, High ReadOnly, COORDINATOR,
        "Codec number of the offsets topic's batches.";
    Int "offsets.topic.num.partitions" = "50", AtLeast(1), High ReadOnly, ACTED,
        "Partitions of the offsets topic when it is created.";
    Short "offsets.topic.replication.factor" = "3", AtLeast(1), High ReadOnly, ACTED,
        "Replicas of the offsets topic when it is created.";
    Int "offsets.topic.segment.bytes" = "104857600", AtLeast(1), High ReadOnly, ACTED,
        "Segment size of the offsets topic when it is created.";
}
