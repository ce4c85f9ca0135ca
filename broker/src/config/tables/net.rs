//! Broker configs of listeners, connections, requests, quotas and metrics.

use super::super::definition::Check::*;
use super::super::definition::Definition;
use super::effects::*;
use super::table;

table! {
    /// Broker configs of listeners, connections, requests, quotas and metrics.
    pub(super) ROWS
    List "advertised.listeners" = NULL, NotEmpty, High ReadOnly, ACTED,
        "Address that clients are told to connect to, for each listener by its name; the listeners themselves if unset. An empty host is the machine's name.";
    Int "background.threads" = "10", AtLeast(1), High ClusterWide, THREADS,
        "Threads for background work.";
    Class "client.quota.callback.class" = NULL, Any, Low ReadOnly, JAVA,
        "Class that computes client quotas.";
    Int "connection.failed.authentication.delay.ms" = "100", AtLeast(0), Low ReadOnly, SECURITY,
        "Wait before a connection that failed to authenticate is closed.";
    Long "connections.max.idle.ms" = "600000", Any, Medium ReadOnly, ACTED,
        "A connection without requests for so long is closed.";
    Long "connections.max.reauth.ms" = "0", Any, Medium ReadOnly, SECURITY,
        "Lifetime of a SASL session before it must authenticate again.";
    Int "controller.quota.window.num" = "11", AtLeast(1), Low ReadOnly, QUOTAS,
        "Windows kept for quotas on topic changes.";
    Int "controller.quota.window.size.seconds" = "1", AtLeast(1), Low ReadOnly, QUOTAS,
        "Length of a window for quotas on topic changes.";
    Int "delete.records.purgatory.purge.interval.requests" = "1", Any, Medium ReadOnly, PURGATORY,
        "Waiting DeleteRecords requests between two purges.";
    List "early.start.listeners" = NULL, Any, High ReadOnly, LISTENERS,
        "Listeners opened before start-up is complete.";
    Int "fetch.max.bytes" = "57671680", AtLeast(1024), Medium ReadOnly, ACTED,
        "Most bytes a fetch response is filled to, whatever the client allows.";
    Int "fetch.purgatory.purge.interval.requests" = "1000", Any, Medium ReadOnly, PURGATORY,
        "Waiting fetches between two purges.";
    String "inter.broker.listener.name" = NULL, Any, Medium ReadOnly, ACTED,
        "Listener that brokers use among themselves; the one called PLAINTEXT if unset, else the first.";
    Int "kafka.metrics.polling.interval.secs" = "10", AtLeast(1), Low ReadOnly, METRICS,
        "Polling interval of metrics reporters.";
    List "kafka.metrics.reporters" = "", Any, Low ReadOnly, METRICS,
        "Reporter classes of Kafka's older metrics.";
    String "listener.security.protocol.map" = "SASL_SSL:SASL_SSL,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT", Any, Low PerBroker, ACTED,
        "Security protocol of each listener name; only PLAINTEXT is served.";
    List "listeners" = "PLAINTEXT://127.0.0.1:9092", NotEmpty, High PerBroker, ACTED,
        "Addresses to listen on, as name://host:port.";
    Int "max.connection.creation.rate" = "2147483647", AtLeast(0), Medium ClusterWide, QUOTAS,
        "New connections per second.";
    Int "max.connections" = "2147483647", AtLeast(0), Medium ClusterWide, ACTED,
        "Connections open at a time.";
    Int "max.connections.per.ip" = "2147483647", AtLeast(0), Medium ClusterWide, ACTED,
        "Connections open at a time from one address.";
    String "max.connections.per.ip.overrides" = "", PerIp, Medium ClusterWide, ACTED,
        "Exceptions to max.connections.per.ip, as address:limit pairs. Addresses are given as numbers, not as names.";
    Int "max.incremental.fetch.session.cache.slots" = "1000", AtLeast(0), Medium ReadOnly, ACTED,
        "Fetch sessions kept; 0 serves full fetches only.";
    Int "max.request.partition.size.limit" = "2000", AtLeast(1), Medium ReadOnly, ACTED,
        "Partitions in one DescribeTopicPartitions response.";
    List "metric.reporters" = "org.apache.kafka.common.metrics.JmxReporter", Any, Low ClusterWide, METRICS,
        "Reporter classes.";
    Int "metrics.num.samples" = "2", AtLeast(1), Low ReadOnly, METRICS,
        "Samples kept for a metric.";
    String "metrics.recording.level" = "INFO", Any, Low ReadOnly, METRICS,
        "Finest level of metrics that is recorded.";
    Long "metrics.sample.window.ms" = "30000", AtLeast(1), Low ReadOnly, METRICS,
        "Time a metric's sample covers.";
    Int "num.io.threads" = "8", AtLeast(1), High ClusterWide, THREADS,
        "Threads that handle requests.";
    Int "num.network.threads" = "3", AtLeast(1), High ClusterWide, THREADS,
        "Threads that read and write sockets.";
    Int "producer.purgatory.purge.interval.requests" = "1000", Any, Medium ReadOnly, PURGATORY,
        "Waiting produce requests between two purges.";
    Long "queued.max.request.bytes" = "-1", Any, Medium ReadOnly, BUDGET,
        "Bytes of requests that may wait; -1 is unlimited.";
    Int "queued.max.requests" = "500", AtLeast(1), High ReadOnly, BUDGET,
        "Requests that may wait before sockets are no longer read.";
    Int "quota.window.num" = "11", AtLeast(1), Low ReadOnly, QUOTAS,
        "Windows kept for client quotas.";
    Int "quota.window.size.seconds" = "1", AtLeast(1), Low ReadOnly, QUOTAS,
        "Length of a window for client quotas.";
    Int "request.timeout.ms" = "30000", Any, High ReadOnly, BETWEEN,
        "How long this broker waits for answers to its own requests.";
    Long "server.max.startup.time.ms" = "9223372036854775807", AtLeast(0), Medium ReadOnly internal, INTERNAL,
        "Time a server may take to start.";
    Long "socket.connection.setup.timeout.max.ms" = "30000", Any, Medium ReadOnly, BETWEEN,
        "Longest wait for a connection to another broker.";
    Long "socket.connection.setup.timeout.ms" = "10000", Any, Medium ReadOnly, BETWEEN,
        "First wait for a connection to another broker.";
    Int "socket.listen.backlog.size" = "50", AtLeast(1), Medium ReadOnly, SOCKETS,
        "Connections the system may queue before they are accepted.";
    Int "socket.receive.buffer.bytes" = "102400", Any, High ReadOnly, SOCKETS,
        "Receive buffer of a socket; -1 leaves it to the system.";
    Int "socket.request.max.bytes" = "104857600", AtLeast(1), High ReadOnly, ACTED,
        "Largest request; a bigger one ends its connection.";
    Int "socket.send.buffer.bytes" = "102400", Any, High ReadOnly, SOCKETS,
        "Send buffer of a socket; -1 leaves it to the system.";
    Int "telemetry.max.bytes" = "1048576", AtLeast(1), Low ReadOnly, TELEMETRY,
        "Largest push of client metrics.";
    Boolean "unstable.api.versions.enable" = "false", Any, High ReadOnly internal, UNSTABLE,
        "Whether unfinished request versions are served.";
    Boolean "unstable.feature.versions.enable" = "false", Any, High ReadOnly internal, UNSTABLE,
        "Whether unfinished feature levels are served.";
}
