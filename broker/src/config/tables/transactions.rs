//! Broker configs of producers and transactions.

use super::super::definition::Check::*;
use super::super::definition::Definition;
use super::effects::*;
use super::table;

table! {
    /// Broker configs of producers and transactions.
    pub(super) ROWS
    Int "add.partitions.to.txn.retry.backoff.max.ms" = "100", AtLeast(0), High ReadOnly, TRANSACTIONS,
        "Longest pause between tries to add partitions to a transaction.";
    Int "add.partitions.to.txn.retry.backoff.ms" = "20", AtLeast(1), High ReadOnly, TRANSACTIONS,
        "First pause between tries to add partitions to a transaction.";
    Int "producer.id.expiration.check.interval.ms" = "600000", AtLeast(1), Low ReadOnly internal, EXPIRY,
        "How often producer ids are looked at for expiry.";
    Int "producer.id.expiration.ms" = "86400000", AtLeast(1), Low ClusterWide, ACTED,
        "How long a partition remembers an idempotent producer that stopped writing.";
    Int "transaction.abort.timed.out.transaction.cleanup.interval.ms" = "10000", AtLeast(1), Low ReadOnly, TRANSACTIONS,
        "How often transactions are looked at for timeouts.";
    Int "transaction.max.timeout.ms" = "900000", AtLeast(1), High ReadOnly, TRANSACTIONS,
        "Longest transaction timeout a producer may ask for.";
    Boolean "transaction.partition.verification.enable" = "true", Any, Low ClusterWide, TRANSACTIONS,
        "Whether the coordinator is asked before a transaction's first write to a partition.";
    Int "transaction.remove.expired.transaction.cleanup.interval.ms" = "3600000", AtLeast(1), Low ReadOnly, TRANSACTIONS,
        "How often expired transactional ids are removed.";
    Int "transaction.state.log.load.buffer.size" = "5242880", AtLeast(1), High ReadOnly, TRANSACTIONS,
        "Bytes read at a time when transactions are loaded.";
    Int "transaction.state.log.min.isr" = "2", AtLeast(1), High ReadOnly, ACTED,
        "min.insync.replicas of the transaction topic.";
    Int "transaction.state.log.num.partitions" = "50", AtLeast(1), High ReadOnly, ACTED,
        "Partitions of the transaction topic when it is created.";
    Short "transaction.state.log.replication.factor" = "3", AtLeast(1), High ReadOnly, ACTED,
        "Replicas of the transaction topic when it is created, or as many as there are brokers.";
    Int "transaction.state.log.segment.bytes" = "104857600", AtLeast(1), High ReadOnly, ACTED,
        "Segment size of the transaction topic when it is created.";
    Boolean "transaction.two.phase.commit.enable" = "false", Any, Low ReadOnly, LATER,
        "Whether transactions may take part in a two-phase commit.";
    Int "transactional.id.expiration.ms" = "604800000", AtLeast(1), High ReadOnly, TRANSACTIONS,
        "How long an unused transactional id is kept.";
}
