//! Broker configs of the node, the quorum and replication.

use super::super::definition::Check::*;
use super::super::definition::Definition;
use super::effects::*;
use super::table;

table! {
    /// Broker configs of the node, the quorum and replication.
    pub(super) ROWS
    Class "alter.config.policy.class.name" = NULL, Any, Low ReadOnly, JAVA,
        "Class that may veto changes of configs.";
    Int "alter.log.dirs.replication.quota.window.num" = "11", AtLeast(1), Low ReadOnly, ONE_DIR,
        "Windows kept for the bound on moves between directories.";
    Int "alter.log.dirs.replication.quota.window.size.seconds" = "1", AtLeast(1), Low ReadOnly, ONE_DIR,
        "Length of a window for the bound on moves between directories.";
    Boolean "auto.leader.rebalance.enable" = "true", Any, High ReadOnly, ACTED,
        "Whether partitions go back to their preferred leaders by themselves.";
    Int "broker.heartbeat.interval.ms" = "500", Any, Medium ReadOnly, ACTED,
        "How often a broker tells the controller that it is alive.";
    Int "broker.id" = "-1", Any, High ReadOnly, ACTED,
        "Older name of node.id.";
    String "broker.rack" = NULL, Any, Medium ReadOnly, ACTED,
        "Where this broker stands, told to clients.";
    Int "broker.session.timeout.ms" = "3000", Any, Medium ReadOnly, ACTED,
        "Silence after which a broker is fenced.";
    List "config.providers" = "", Any, Low ClusterWide, LATER,
        "Classes that fetch parts of values from elsewhere.";
    Boolean "controlled.shutdown.enable" = "true", Any, Medium ReadOnly, HANDOVER,
        "Whether leadership is handed over before a broker stops.";
    List "controller.listener.names" = "", Any, High ReadOnly, ACTED,
        "Those of the listeners on which a controller serves the other nodes.";
    Long "controller.performance.always.log.threshold.ms" = "2000", AtLeast(0), Medium ReadOnly internal, INTERNAL,
        "Duration above which a controller's event is logged.";
    Long "controller.performance.sample.period.ms" = "60000", AtLeast(100), Medium ReadOnly internal, INTERNAL,
        "How often the controller's slowest events are logged.";
    Int "controller.quorum.append.linger.ms" = "25", AtLeast(0), Medium ReadOnly, QUORUM,
        "Time the quorum's leader collects writes.";
    Boolean "controller.quorum.auto.join.enable" = "false", Any, Low ReadOnly, QUORUM,
        "Whether a controller joins the voters by itself.";
    List "controller.quorum.bootstrap.servers" = "", Any, High ReadOnly, ACTED,
        "Addresses of controllers to start from.";
    Int "controller.quorum.election.backoff.max.ms" = "300", AtLeast(0), High ReadOnly, ACTED,
        "Longest pause before another election.";
    Int "controller.quorum.election.timeout.ms" = "1000", AtLeast(0), High ReadOnly, QUORUM,
        "Time an election may take.";
    Int "controller.quorum.fetch.max.bytes" = "1048576", AtLeast(1), Low ReadOnly, QUORUM,
        "Bytes of metadata a follower fetches at a time.";
    Int "controller.quorum.fetch.snapshot.max.bytes" = "1048576", AtLeast(1), Low ReadOnly, QUORUM,
        "Bytes of a metadata snapshot fetched at a time.";
    Int "controller.quorum.fetch.timeout.ms" = "500", AtLeast(0), High ReadOnly, ACTED,
        "Silence of the leader after which an election starts.";
    Int "controller.quorum.request.timeout.ms" = "2000", AtLeast(0), Medium ReadOnly, QUORUM,
        "Time a request within the quorum may take.";
    Int "controller.quorum.retry.backoff.ms" = "20", AtLeast(0), Low ReadOnly, QUORUM,
        "Pause before a request within the quorum is repeated.";
    List "controller.quorum.voters" = "", Any, High ReadOnly, ACTED,
        "The voters, as id@host:port.";
    Int "controller.socket.timeout.ms" = "30000", Any, Medium ReadOnly, QUORUM,
        "Time a request to the controller may take.";
    Class "create.topic.policy.class.name" = NULL, Any, Low ReadOnly, JAVA,
        "Class that may veto new topics.";
    Int "initial.broker.registration.timeout.ms" = "60000", Any, Medium ReadOnly, ACTED,
        "Time a broker may take to register.";
    Long "leader.imbalance.check.interval.seconds" = "300", AtLeast(1), High ReadOnly, ACTED,
        "How often leadership is looked at for balance.";
    String "metadata.log.dir" = NULL, Any, High ReadOnly, QUORUM,
        "Directory of the metadata log; the first data directory if unset.";
    Long "metadata.log.max.record.bytes.between.snapshots" = "20971520", AtLeast(1), High ReadOnly, QUORUM,
        "Bytes of metadata records after which a snapshot is taken.";
    Long "metadata.log.max.snapshot.interval.ms" = "3600000", AtLeast(0), High ReadOnly, QUORUM,
        "Time after which a snapshot is taken.";
    Int "metadata.log.segment.bytes" = "1073741824", AtLeast(8388608), High ReadOnly, QUORUM,
        "Size of a metadata segment.";
    Long "metadata.log.segment.ms" = "604800000", Any, High ReadOnly, QUORUM,
        "Age at which a metadata segment is closed.";
    Int "metadata.max.idle.interval.ms" = "500", AtLeast(0), Low ReadOnly, QUORUM,
        "How often an idle leader writes an empty record.";
    Long "metadata.max.retention.bytes" = "104857600", Any, High ReadOnly, QUORUM,
        "Bytes of old metadata that are kept.";
    Long "metadata.max.retention.ms" = "604800000", Any, High ReadOnly, QUORUM,
        "How long old metadata is kept.";
    Int "node.id" = "0", AtLeast(0), High ReadOnly, ACTED,
        "Number of this node, unique in the cluster.";
    Int "num.replica.fetchers" = "1", AtLeast(1), High ClusterWide, ACTED,
        "Threads that fetch from each other broker.";
    List "process.roles" = "broker,controller", SomeOf(&["broker", "controller"]), High ReadOnly, ACTED,
        "What this process is: broker, controller, or both.";
    Int "replica.fetch.backoff.ms" = "1000", AtLeast(0), Medium ReadOnly, ACTED,
        "Pause after a failed fetch of a follower.";
    Int "replica.fetch.max.bytes" = "1048576", AtLeast(0), Medium ReadOnly, ACTED,
        "Bytes of a partition a follower fetches at a time.";
    Int "replica.fetch.min.bytes" = "1", Any, High ReadOnly, ACTED,
        "Bytes a follower waits for.";
    Int "replica.fetch.response.max.bytes" = "10485760", AtLeast(0), Medium ReadOnly, ACTED,
        "Bytes a follower fetches at a time.";
    Int "replica.fetch.wait.max.ms" = "500", Any, High ReadOnly, ACTED,
        "Longest a follower's fetch waits for more.";
    Long "replica.high.watermark.checkpoint.interval.ms" = "5000", Any, High ReadOnly, JOURNAL,
        "How often high watermarks are written to disk.";
    Long "replica.lag.time.max.ms" = "30000", Any, High ReadOnly, ACTED,
        "Lag after which a follower leaves the in-sync replicas.";
    String "replica.selector.class" = NULL, OneOf(&["org.apache.kafka.common.replica.LeaderSelector", "org.apache.kafka.common.replica.RackAwareReplicaSelector"]), Medium ReadOnly, ACTED,
        "Which replica a consumer reads from, by the names of Kafka's two classes: the leader, which is the default, or one in the consumer's rack.";
    Int "replica.socket.receive.buffer.bytes" = "65536", Any, High ReadOnly, SOCKETS,
        "Receive buffer of a follower's socket.";
    Int "replica.socket.timeout.ms" = "30000", Any, High ReadOnly, ACTED,
        "Time a follower's request may take.";
    Int "replication.quota.window.num" = "11", AtLeast(1), Low ReadOnly, THROTTLE,
        "Windows kept for the bound on replication.";
    Int "replication.quota.window.size.seconds" = "1", AtLeast(1), Low ReadOnly, THROTTLE,
        "Length of a window for the bound on replication.";
    Boolean "unclean.leader.election.enable" = "false", Any, High ClusterWide, ACTED,
        "Default of the topic config of that name.";
    Long "unclean.leader.election.interval.ms" = "300000", AtLeast(1), Medium ReadOnly internal, ACTED,
        "How often partitions without a leader are looked at.";
}
