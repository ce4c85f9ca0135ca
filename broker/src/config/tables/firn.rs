//! Firn's own broker configs; the first few are topic configs, too.

use super::super::definition::Check::*;
use super::super::definition::Definition;
use super::effects::*;
use super::table;

table! {
    /// Firn's topic configs; the broker configs of the same names are their defaults.
    pub(super) FIRN_TOPIC
    String "firn.flush" = "fsync", OneOf(&["fsync", "os"]), High ClusterWide, ACTED,
        "What an acknowledgement stands for: `fsync` that the record is synced to disk, `os` that the operating system has it, as in Kafka.";
    Long "firn.tier.max.lag.ms" = "600000", AtLeast(1000), Medium ClusterWide, ACTED,
        "How long a record may exist only on local disk before it is uploaded, even if its segment is not full.";
}

table! {
    /// Firn's broker configs beside the defaults of its topic configs.
    pub(super) FIRN_BROKER
    Boolean "firn.balance.enable" = "true", Any, High ReadOnly, ACTED,
        "Whether a broker that joins a cluster gets its share of replicas and leaders by itself. What operators placed stays where it is, and nothing moves among brokers that were there before.";
    Int "firn.balance.moves" = "20", Between(1, 10000), Medium ReadOnly, ACTED,
        "Partitions that may be on the move at a time because a broker came or is to be emptied.";
    Long "firn.chunk.cache.bytes" = NULL, AtLeast(1048576), Medium ReadOnly, ACTED,
        "Memory for chunks of cold history that were read; three 64ths of firn.memory.bytes if unset.";
    Long "firn.disk.reserve.bytes" = "268435456", AtLeast(0), Medium ReadOnly, ACTED,
        "Free space a data directory must keep beside its journal; below it, records are refused. Objects in a \
         local directory keep off as much of its disk.";
    List "firn.http.listeners" = "127.0.0.1:9644", Any, High ReadOnly, ACTED,
        "Addresses, as host:port, where metrics, health and the tier commands are served; empty serves none.";
    Long "firn.journal.bytes" = "1073741824", AtLeast(33554432), Medium ReadOnly, ACTED,
        "Disk space for the journal of each data directory.";
    Long "firn.journal.file.bytes" = "67108864", AtLeast(1048576), Low ReadOnly, ACTED,
        "Size of one journal file.";
    String "firn.log.filter" = "info,openraft=off", NotEmpty, Medium ReadOnly, ACTED,
        "Which log lines are written, such as `info` or `info,broker::journal=debug`.";
    String "firn.log.format" = "text", OneOf(&["text", "json"]), Low ReadOnly, ACTED,
        "Whether log lines are text or JSON.";
    Long "firn.memory.bytes" = "536870912", AtLeast(67108864), High ReadOnly, ACTED,
        "Memory for all buffers and caches together; the other budgets must fit in it, beside an eighth of it for uploads and five 64ths for indexes of the remote tier.";
    String "firn.object.store" = NULL, NotEmpty, High ReadOnly, ACTED,
        "Where cold history goes: file:///dir, memory: or s3://bucket/prefix; the folder `bucket` in the first data directory if unset.";
    String "firn.otlp.endpoint" = NULL, NotEmpty, Low ReadOnly, ACTED,
        "OTLP/HTTP address of a collector of traces, such as http://127.0.0.1:4318/v1/traces; none if unset.";
    Int "firn.remote.gets" = "32", Between(1, 1024), Low ReadOnly, ACTED,
        "Requests to the object store for reading at a time.";
    Long "firn.remote.read.bytes" = NULL, AtLeast(4194304), Medium ReadOnly, ACTED,
        "Memory for downloads of cold history that are under way; three sixteenths of firn.memory.bytes if unset.";
    Long "firn.request.memory.bytes" = NULL, AtLeast(4194304), Medium ReadOnly, ACTED,
        "Memory for requests that are being read or handled (three eighths of it), for members of groups (an eighth), and for records in answers that are not sent yet (a quarter each for local and for remote ones); a connection waits until its next request fits. A quarter of firn.memory.bytes if unset.";
    Long "firn.tail.cache.bytes" = NULL, AtLeast(16777216), Medium ReadOnly, ACTED,
        "Memory for the newest records, from which consumers at the tail are served; five sixteenths of firn.memory.bytes if unset.";
    Long "firn.tier.check.interval.ms" = "1000", AtLeast(10), Low ReadOnly, ACTED,
        "How often partitions are looked at for what to upload, trim and expire.";
    Long "firn.tier.delete.grace.ms" = "3600000", AtLeast(0), Medium ReadOnly, ACTED,
        "How long an object stays after the history no longer names it, for readers that still do.";
    Int "firn.tier.uploads" = "4", Between(1, 256), Low ReadOnly, ACTED,
        "Uploads to the object store at a time.";
    Long "firn.writeback.bytes" = NULL, AtLeast(8388608), Low ReadOnly, ACTED,
        "Records that may be in the journal but not yet in segment files, a part of firn.tail.cache.bytes; two thirds of it if unset.";
}
