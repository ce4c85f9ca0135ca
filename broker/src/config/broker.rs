//! The typed view of a broker's configuration, for code that acts on it.

use std::net::IpAddr;

use proto::ids::Millis;

use super::layers::BrokerLayers;
use super::topic::TopicConfig;
use super::values::{self, FromConfig};

/// What one broker is configured to do: its file, environment and flags, with what was altered at run time laid over.
#[derive(Debug, Clone, PartialEq)]
pub struct BrokerConfig {
    /// `num.partitions` of a topic that does not say.
    pub num_partitions: i32,
    /// `default.replication.factor` of a topic that does not say.
    pub default_replication_factor: i16,
    /// `auto.create.topics.enable`.
    pub auto_create_topics: bool,
    /// `delete.topic.enable`.
    pub delete_topics: bool,
    /// `message.max.bytes` and the other topic defaults.
    pub topic_defaults: TopicConfig,
    /// `log.retention.check.interval.ms`.
    pub retention_check_interval_ms: Millis,
    /// Network.
    pub net: NetConfig,
    /// What keeps the nodes of a cluster together.
    pub cluster: ClusterConfig,
    /// Classic groups and committed offsets.
    pub groups: GroupConfig,
    /// Producers.
    pub producers: ProducerConfig,
    /// Following leaders on other brokers.
    pub replication: ReplicationConfig,
    /// Memory, journal and tiering: what is Firn's own.
    pub firn: FirnConfig,
}

/// Connections and requests.
#[derive(Debug, Clone, PartialEq)]
pub struct NetConfig {
    /// `connections.max.idle.ms`; negative never closes.
    pub connections_max_idle_ms: i64,
    /// `max.connections` of the broker.
    pub max_connections: usize,
    /// `max.connections.per.ip`.
    pub max_connections_per_ip: usize,
    /// `max.connections.per.ip.overrides`, as (address, limit).
    pub max_connections_per_ip_overrides: Vec<(IpAddr, usize)>,
    /// `socket.request.max.bytes`: largest frame, inclusive.
    pub socket_request_max_bytes: usize,
    /// `fetch.max.bytes`: most bytes a fetch response is filled to.
    pub fetch_max_bytes: usize,
    /// `max.incremental.fetch.session.cache.slots`.
    pub fetch_session_slots: usize,
    /// `max.request.partition.size.limit`: partitions in a DescribeTopicPartitions response.
    pub max_request_partitions: usize,
}

/// The metadata quorum and the life of brokers in it. All durations are in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClusterConfig {
    /// `controller.quorum.fetch.timeout.ms`: silence of the leader after which a voter stands for election.
    pub quorum_fetch_timeout_ms: u64,
    /// `controller.quorum.election.backoff.max.ms`: most that is drawn on top of it.
    pub election_backoff_max_ms: u64,
    /// `broker.session.timeout.ms`: silence after which a broker is fenced.
    pub session_timeout_ms: u64,
    /// `broker.heartbeat.interval.ms`.
    pub heartbeat_interval_ms: u64,
    /// `initial.broker.registration.timeout.ms`: how long a start waits for the quorum.
    pub registration_timeout_ms: u64,
    /// `unclean.leader.election.interval.ms`: how often partitions that nobody leads are looked at.
    pub unclean_interval_ms: u64,
    /// `leader.imbalance.check.interval.seconds`, as ms: how often preferred leaders are restored; none to leave them
    /// (`auto.leader.rebalance.enable`).
    pub preferred_interval_ms: Option<u64>,
    /// `firn.balance.enable`: whether brokers that come get their share.
    pub balance: bool,
    /// `firn.balance.moves`: partitions on the move at a time.
    pub balance_moves: usize,
}

/// Classic consumer groups (`group.*`) and their offsets (`offsets.*`).
#[derive(Debug, Clone, PartialEq)]
pub struct GroupConfig {
    /// `group.min.session.timeout.ms`.
    pub min_session_timeout_ms: i32,
    /// `group.max.session.timeout.ms`.
    pub max_session_timeout_ms: i32,
    /// `group.initial.rebalance.delay.ms`.
    pub initial_rebalance_delay_ms: i32,
    /// `group.max.size`: members of a group.
    pub max_size: usize,
    /// `offset.metadata.max.bytes`.
    pub offset_metadata_max_bytes: usize,
    /// `offsets.commit.timeout.ms`: how long what a group writes down may take to be replicated.
    pub offsets_commit_timeout_ms: Millis,
    /// An eighth of `firn.request.memory.bytes`: what the members of all groups may hold in memory.
    pub members_memory_bytes: usize,
    /// `message.max.bytes`: what a group may write down at once.
    pub max_write_bytes: usize,
    /// `offsets.retention.minutes`, as ms.
    pub offsets_retention_ms: Millis,
    /// `offsets.retention.check.interval.ms`.
    pub offsets_retention_check_interval_ms: Millis,
}

/// Producer ids (`producer.*`).
#[derive(Debug, Clone, PartialEq)]
pub struct ProducerConfig {
    /// `producer.id.expiration.ms`.
    pub id_expiration_ms: Millis,
}

/// How replicas follow their leaders (`replica.*`).
#[derive(Debug, Clone, PartialEq)]
pub struct ReplicationConfig {
    /// `num.replica.fetchers`: connections to each leader.
    pub fetchers: usize,
    /// `replica.fetch.backoff.ms`: the longest pause after a failure.
    pub fetch_backoff_ms: Millis,
    /// `replica.fetch.max.bytes`: of one partition.
    pub fetch_partition_bytes: i32,
    /// `replica.fetch.min.bytes`.
    pub fetch_min_bytes: i32,
    /// `replica.fetch.response.max.bytes`: of all partitions together.
    pub fetch_response_bytes: i32,
    /// `replica.fetch.wait.max.ms`.
    pub fetch_wait_ms: i32,
    /// `replica.socket.timeout.ms`.
    pub socket_timeout_ms: u64,
    /// `leader.replication.throttled.rate`: bytes in a second that throttled replicas may take from here, if it is bounded.
    pub leader_rate: Option<u64>,
    /// `follower.replication.throttled.rate`: bytes in a second that throttled replicas here may take, if it is bounded.
    pub follower_rate: Option<u64>,
    /// `replica.lag.time.max.ms`: lag after which a follower is not in sync any more.
    pub lag_max_ms: Millis,
    /// `replica.selector.class` is Kafka's rack-aware one: leaders send consumers to a replica in their own rack (KIP-392).
    pub nearest_replica: bool,
}

/// Firn's own settings (`firn.*`).
#[derive(Debug, Clone, PartialEq)]
pub struct FirnConfig {
    /// `firn.memory.bytes`: all buffers together.
    pub memory_bytes: usize,
    /// `firn.tail.cache.bytes`: group buffers, from the append until no reader finds them any more.
    pub tail_cache_bytes: usize,
    /// `firn.request.memory.bytes`: request frames being read or handled.
    pub request_memory_bytes: usize,
    /// `firn.chunk.cache.bytes`: chunks of cold history.
    pub chunk_cache_bytes: usize,
    /// Objects being uploaded: an eighth of `firn.memory.bytes`.
    pub upload_bytes: usize,
    /// Each of answers to replicas and answers of leaders until they are copied: a 32nd of `firn.memory.bytes`.
    pub replica_memory_bytes: usize,
    /// Each of what finds cold records (footers, roots, leaves), of manifests being changed, and of unused buffers of
    /// downloads: a 64th of `firn.memory.bytes`.
    pub index_bytes: usize,
    /// `firn.remote.read.bytes`: downloads of cold history in flight.
    pub remote_read_bytes: usize,
    /// `firn.writeback.bytes`: bytes not yet in segment files.
    pub writeback_bytes: usize,
    /// `firn.journal.bytes`: all files of one data directory's journal.
    pub journal_bytes: u64,
    /// `firn.journal.file.bytes`: one of them.
    pub journal_file_bytes: u64,
    /// `firn.disk.reserve.bytes`: produce is refused when a directory has less free beside its journal, and uploads when
    /// the disk of a local store has.
    pub disk_reserve_bytes: u64,
    /// `firn.tier.check.interval.ms`: how often partitions are looked at for uploads, trims and expiry.
    pub tier_check_interval_ms: Millis,
    /// `firn.tier.delete.grace.ms`: how long an object outlives the manifest that no longer names it.
    pub tier_delete_grace_ms: Millis,
    /// `firn.tier.uploads`: uploads at a time.
    pub tier_uploads: usize,
    /// `firn.remote.gets`: GETs at a time.
    pub remote_gets: usize,
}

impl Default for BrokerConfig {
    fn default() -> Self {
        Self::resolve(&BrokerLayers::none())
    }
}

impl BrokerConfig {
    /// The configuration of a broker with these layers.
    pub fn resolve(layers: &BrokerLayers<'_>) -> Self {
        let read = Read { layers };
        let ms = |name| u64::try_from(read.value::<i32>(name)).unwrap_or(0);
        Self {
            num_partitions: read.value("num.partitions"),
            default_replication_factor: read.value("default.replication.factor"),
            auto_create_topics: read.value("auto.create.topics.enable"),
            delete_topics: read.value("delete.topic.enable"),
            topic_defaults: TopicConfig::resolve(layers, &()),
            retention_check_interval_ms: read.value("log.retention.check.interval.ms"),
            cluster: ClusterConfig {
                quorum_fetch_timeout_ms: ms("controller.quorum.fetch.timeout.ms"),
                election_backoff_max_ms: ms("controller.quorum.election.backoff.max.ms"),
                session_timeout_ms: ms("broker.session.timeout.ms"),
                heartbeat_interval_ms: ms("broker.heartbeat.interval.ms"),
                registration_timeout_ms: ms("initial.broker.registration.timeout.ms"),
                unclean_interval_ms: read.size("unclean.leader.election.interval.ms") as u64,
                preferred_interval_ms: read
                    .value::<bool>("auto.leader.rebalance.enable")
                    .then(|| read.size("leader.imbalance.check.interval.seconds") as u64)
                    .map(|seconds| seconds.saturating_mul(1000)),
                balance: read.value("firn.balance.enable"),
                balance_moves: read.size("firn.balance.moves"),
            },
            net: NetConfig::read(&read),
            groups: GroupConfig::read(&read),
            producers: ProducerConfig::read(&read),
            replication: ReplicationConfig::read(&read),
            firn: FirnConfig::read(&read),
        }
    }
}

impl NetConfig {
    fn read(read: &Read<'_>) -> Self {
        Self {
            connections_max_idle_ms: read.value("connections.max.idle.ms"),
            max_connections: read.size("max.connections"),
            max_connections_per_ip: read.size("max.connections.per.ip"),
            max_connections_per_ip_overrides: read.value::<values::PerIp>("max.connections.per.ip.overrides").0,
            socket_request_max_bytes: read.size("socket.request.max.bytes"),
            fetch_max_bytes: read.size("fetch.max.bytes"),
            fetch_session_slots: read.size("max.incremental.fetch.session.cache.slots"),
            max_request_partitions: read.size("max.request.partition.size.limit"),
        }
    }
}

impl GroupConfig {
    fn read(read: &Read<'_>) -> Self {
        Self {
            min_session_timeout_ms: read.value("group.min.session.timeout.ms"),
            max_session_timeout_ms: read.value("group.max.session.timeout.ms"),
            initial_rebalance_delay_ms: read.value("group.initial.rebalance.delay.ms"),
            max_size: read.size("group.max.size"),
            offset_metadata_max_bytes: read.size("offset.metadata.max.bytes"),
            offsets_commit_timeout_ms: read.value("offsets.commit.timeout.ms"),
            members_memory_bytes: read.size_or("firn.request.memory.bytes", read.size("firn.memory.bytes") / 4) / 8,
            max_write_bytes: read.size("message.max.bytes"),
            offsets_retention_ms: read.value::<i64>("offsets.retention.minutes") * 60_000,
            offsets_retention_check_interval_ms: read.value("offsets.retention.check.interval.ms"),
        }
    }
}

impl ProducerConfig {
    fn read(read: &Read<'_>) -> Self {
        Self { id_expiration_ms: read.value("producer.id.expiration.ms") }
    }
}

/// The class of Kafka's that [`ReplicationConfig::nearest_replica`] stands for; its other one, and none, is the leader always.
const RACK_AWARE: &str = "org.apache.kafka.common.replica.RackAwareReplicaSelector";

impl ReplicationConfig {
    fn read(read: &Read<'_>) -> Self {
        Self {
            fetchers: read.size("num.replica.fetchers").max(1),
            fetch_backoff_ms: i64::from(read.value::<i32>("replica.fetch.backoff.ms")),
            fetch_partition_bytes: read.value("replica.fetch.max.bytes"),
            fetch_min_bytes: read.value("replica.fetch.min.bytes"),
            fetch_response_bytes: read.value("replica.fetch.response.max.bytes"),
            fetch_wait_ms: read.value("replica.fetch.wait.max.ms"),
            socket_timeout_ms: u64::try_from(read.value::<i32>("replica.socket.timeout.ms")).unwrap_or(0),
            leader_rate: read.rate("leader.replication.throttled.rate"),
            follower_rate: read.rate("follower.replication.throttled.rate"),
            lag_max_ms: read.value("replica.lag.time.max.ms"),
            nearest_replica: read.text("replica.selector.class").as_deref() == Some(RACK_AWARE),
        }
    }
}

impl FirnConfig {
    fn read(read: &Read<'_>) -> Self {
        let memory_bytes = read.size("firn.memory.bytes");
        // 64 parts in all; one each for the three indexes of the remote tier, its manifests, and its unused buffers.
        let parts = |name, count| read.size_or(name, memory_bytes / 64 * count);
        let tail_cache_bytes = parts("firn.tail.cache.bytes", 20);
        Self {
            memory_bytes,
            tail_cache_bytes,
            request_memory_bytes: parts("firn.request.memory.bytes", 16),
            chunk_cache_bytes: parts("firn.chunk.cache.bytes", 3),
            upload_bytes: memory_bytes / 8,
            replica_memory_bytes: memory_bytes / 32,
            index_bytes: memory_bytes / 64,
            remote_read_bytes: parts("firn.remote.read.bytes", 12),
            writeback_bytes: read.size_or("firn.writeback.bytes", tail_cache_bytes / 3 * 2),
            journal_bytes: read.size("firn.journal.bytes") as u64,
            journal_file_bytes: read.size("firn.journal.file.bytes") as u64,
            disk_reserve_bytes: read.size("firn.disk.reserve.bytes") as u64,
            tier_check_interval_ms: read.value("firn.tier.check.interval.ms"),
            tier_delete_grace_ms: read.value("firn.tier.delete.grace.ms"),
            tier_uploads: read.size("firn.tier.uploads"),
            remote_gets: read.size("firn.remote.gets"),
        }
    }
}

/// Reads one broker's effective values.
struct Read<'a> {
    layers: &'a BrokerLayers<'a>,
}

impl Read<'_> {
    fn value<T: FromConfig>(&self, name: &str) -> T {
        values::broker_value(self.layers, name)
    }

    fn text(&self, name: &str) -> Option<String> {
        values::broker_value_if_any(self.layers, name)
    }

    fn size(&self, name: &str) -> usize {
        usize::try_from(self.value::<i64>(name)).unwrap_or(0)
    }

    /// A rate; the largest number stands for none.
    fn rate(&self, name: &str) -> Option<u64> {
        let rate = self.value::<i64>(name);
        u64::try_from(rate).ok().filter(|_| rate != i64::MAX)
    }

    /// A size that follows from others while it is not set.
    fn size_or(&self, name: &str, otherwise: usize) -> usize {
        let set = values::broker_value_if_any::<i64>(self.layers, name);
        set.map_or(otherwise, |size| usize::try_from(size).unwrap_or(0))
    }
}
