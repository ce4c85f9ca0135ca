//! Broker configs that Kafka keeps beside its table: they exist only while they are set, by `kafka-reassign-partitions` as a rule.

use super::super::definition::Check::*;
use super::super::definition::Definition;
use super::effects::*;
use super::table;

table! {
    /// Bounds on replication.
    pub(super) ROWS
    Long "follower.replication.throttled.rate" = "9223372036854775807", AtLeast(0), Medium ClusterWide internal, ACTED,
        "Bytes in a second that this broker takes from leaders for replicas that are not in sync, where topics say so.";
    Long "leader.replication.throttled.rate" = "9223372036854775807", AtLeast(0), Medium ClusterWide internal, ACTED,
        "Bytes in a second that replicas which are not in sync take from this broker, where topics say so.";
    Long "replica.alter.log.dirs.io.max.bytes.per.second" = "9223372036854775807", AtLeast(0), Medium ClusterWide internal, ONE_DIR,
        "Bytes in a second that move between directories of this broker.";
}
