//! Why some configs have no effect in Firn, or are refused; each reason is shown to users.

use super::super::definition::Effect::{self, Refused, WithoutEffect};

pub(super) const ACTED: Effect = Effect::Acted;

pub(super) const BETWEEN: Effect = WithoutEffect(
    "brokers wait for each other as long as replica.socket.timeout.ms says, and for the quorum as its own timing does",
);
pub(super) const BUDGET: Effect = WithoutEffect("memory for requests is one budget, firn.request.memory.bytes");
pub(super) const CHUNKS: Effect = WithoutEffect("what is cached of cold history is bounded by firn.chunk.cache.bytes");
pub(super) const COMPACTION: Effect = WithoutEffect("topics are not compacted yet");
pub(super) const COORDINATOR: Effect = WithoutEffect("coordinators write through the same journal as everything else");
pub(super) const DIRS: Effect = WithoutEffect("a failed directory takes only its own partitions offline, at once");
pub(super) const EXPIRY: Effect = WithoutEffect("producers are looked at for expiry whenever their partition is");
pub(super) const FILES: Effect =
    WithoutEffect("journal files are always filled ahead, segment files grow in large writes");
pub(super) const FLUSH: Effect =
    WithoutEffect("firn.flush says when a record is on disk: before it is acknowledged, or when the system writes it");
pub(super) const FROM_TIER: Effect = WithoutEffect("a new replica always begins behind what is tiered");
pub(super) const HANDOVER: Effect = WithoutEffect("a broker that stops always hands over first what it leads");
pub(super) const INDEX: Effect = WithoutEffect("indexes grow with their segment");
pub(super) const INTERNAL: Effect = WithoutEffect("it exists for Kafka's own tests and diagnostics");
pub(super) const JITTER: Effect =
    WithoutEffect("rolling a segment is cheap, and uploads are bounded however many are due at a time");
pub(super) const JOURNAL: Effect = WithoutEffect("the journal keeps this with every group it syncs");
pub(super) const KIP848: Effect = WithoutEffect("the consumer protocol of KIP-848 is not served yet");
pub(super) const LISTENERS: Effect = WithoutEffect("all listeners open together once the log is recovered");
pub(super) const LZ4: Effect = WithoutEffect("Firn writes lz4 at its one, fast level");
pub(super) const METRICS: Effect = WithoutEffect("metrics are served at /metrics in Prometheus form");
pub(super) const ONE_DIR: Effect = WithoutEffect("replicas do not move between directories of a broker");
pub(super) const PROTOCOLS: Effect = WithoutEffect("only the classic protocol is served yet");
pub(super) const PURGATORY: Effect = WithoutEffect("waiting requests are dropped the moment they are answered");
pub(super) const QUORUM: Effect = WithoutEffect("Firn's quorum has its own log and timing");
pub(super) const QUOTAS: Effect = WithoutEffect("quotas are not enforced yet");
pub(super) const REMOTE_WAIT: Effect = WithoutEffect(
    "a download is never given up: the fetch is answered in its own max.wait, the data is kept for the next",
);
pub(super) const SHARE: Effect = WithoutEffect("share groups (KIP-932) are not served yet");
pub(super) const SOCKETS: Effect =
    WithoutEffect("the operating system sizes the buffers and queues of sockets, and tunes them as they are used");
pub(super) const STREAMS: Effect = WithoutEffect("streams groups (KIP-1071) are not served yet");
pub(super) const TELEMETRY: Effect = WithoutEffect("pushes of client metrics (KIP-714) are not taken yet");
pub(super) const THREADS: Effect = WithoutEffect("tasks share a few threads sized to the machine");
pub(super) const THROTTLE: Effect =
    WithoutEffect("the bound on replication keeps one account, which allows for a second at most");
pub(super) const TIER_ALWAYS: Effect =
    WithoutEffect("Firn always can tier; remote.storage.enable says for each topic whether it does");
pub(super) const TIER_INTERVAL: Effect =
    WithoutEffect("uploads start when they are due, firn.tier.check.interval.ms says how often that is looked at");
pub(super) const TIER_PLUGIN: Effect = WithoutEffect("it is a setting of a Java plugin that Firn does not load");
pub(super) const TIER_RATE: Effect = WithoutEffect("tiering is bounded by memory and requests in flight, not by rate");
pub(super) const TIER_TASKS: Effect = WithoutEffect("firn.tier.uploads and firn.remote.gets bound what runs at a time");
pub(super) const TRANSACTIONS: Effect = WithoutEffect("transactions are not served yet");
pub(super) const UNLINK: Effect =
    WithoutEffect("files of dropped segments are deleted at once; reads that have begun on them end well");
pub(super) const UNSTABLE: Effect = WithoutEffect("Firn advertises finished versions only");

pub(super) const JAVA: Effect = Refused("Firn does not load Java classes");
pub(super) const KERBEROS: Effect = Refused("Kerberos is not supported");
pub(super) const LATER: Effect = Refused("it is not supported yet");
pub(super) const SECURITY: Effect =
    Refused("TLS, SASL and authorization are not supported yet, and a broker that ignored this would be open");
pub(super) const TIER_JAVA: Effect =
    Refused("Firn does not load Java classes; name the object store with firn.object.store");
