//! The records: each one fact, each with a stable number.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::image::DeletedTopic;
use super::tier::TierPointer;
use crate::ids::{DirectoryId, LeaderEpoch, Millis, NodeId, TopicId, TopicPartition};

/// A change of the cluster's metadata.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MetadataRecord {
    /// The cluster got its id. Only the first one counts.
    ClusterFormed {
        /// The id, as clients see it.
        cluster_id: String,
    },
    /// A feature was set to a level.
    FeatureSet {
        /// Kafka's name of the feature.
        name: String,
        /// 0 removes it.
        level: i16,
    },
    /// A broker registered, or its registration changed. The whole of it.
    BrokerSet(Broker),
    /// A broker is gone for good.
    BrokerRemoved {
        /// Its node id.
        id: NodeId,
    },
    /// A topic, without partitions yet.
    TopicCreated {
        /// Its id.
        id: TopicId,
        /// Its name.
        name: String,
        /// When the controller decided so.
        created_at: Millis,
    },
    /// A partition was added (the next index), or its state changed. The whole of it.
    PartitionSet {
        /// Which one.
        tp: TopicPartition,
        /// Its state from here on.
        state: PartitionState,
    },
    /// A topic is gone, with its configs. What it has in the tier waits in the pending deletes.
    TopicDeleted {
        /// Its id.
        id: TopicId,
        /// When the controller decided so.
        deleted_at: Millis,
    },
    /// Nothing is left of a deleted topic in the tier.
    DeletionFinished {
        /// The topic's id.
        id: TopicId,
    },
    /// A config was set, or removed.
    ConfigSet {
        /// Whose config.
        resource: ConfigResource,
        /// Kafka's name.
        key: String,
        /// None removes it.
        value: Option<String>,
    },
    /// Producer ids below `next` are given away.
    ProducerIdsAllocated {
        /// First id that is free.
        next: i64,
    },
    /// A partition's pointer moved.
    TierPointerSet {
        /// Which partition.
        tp: TopicPartition,
        /// The pointer from here on.
        pointer: TierPointer,
    },
    /// A pending delete, as a snapshot tells it.
    DeletionPending(DeletedTopic),
    /// A duty of the cluster went to a node, or to none.
    DutyAssigned {
        /// Which duty.
        duty: Duty,
        /// Who has it from here on.
        node: Option<NodeId>,
        /// One more with every change: whoever acts under an older one is refused.
        epoch: i32,
    },
    /// The disk of a voter was seen for the first time: another one under its id is not this voter.
    VoterBound {
        /// The voter.
        id: NodeId,
        /// Its directory; [`DirectoryId::UNASSIGNED`] forgets the one that was bound.
        directory: DirectoryId,
    },
}

/// Work that one node does for the whole cluster. The numbers are durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Duty {
    /// Removes from the object store what deleted topics left there.
    Sweeper,
    /// Writes snapshots of the cluster's metadata to the object store.
    SnapshotWriter,
    /// Moves replicas and leaders where they balance.
    Balancer,
}

/// A broker's registration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Broker {
    /// Node id.
    pub id: NodeId,
    /// Metadata offset of its registration: tells incarnations apart (KIP-903).
    pub epoch: i64,
    /// Drawn by the process when it starts.
    pub incarnation: Uuid,
    /// Where clients and brokers reach it.
    pub endpoints: Vec<Endpoint>,
    /// Failure domain, if told.
    pub rack: Option<String>,
    /// Its data directories that are online.
    pub directories: Vec<DirectoryId>,
    /// Fenced brokers lead nothing and are not shown to clients.
    pub fenced: bool,
    /// It asked to go: it leads nothing new.
    pub shutting_down: bool,
    /// Levels of features that its process understands.
    pub features: Vec<FeatureRange>,
    /// What part of the cluster's replicas it is to have.
    pub share: Share,
}

/// What part of a cluster's replicas a broker is to have. The numbers are durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Share {
    /// Those it has: whoever placed them meant it so.
    #[default]
    Kept,
    /// None: it is to leave the cluster. No replica goes there any more, those it has move away.
    Drained,
    /// As many as the others: it came, or came back, when there were partitions already. Once it has them it keeps them.
    Filled,
}

/// Levels of one feature that a process understands, both ends inclusive.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FeatureRange {
    /// Name of the feature.
    pub name: String,
    /// Lowest level.
    pub min: i16,
    /// Highest level.
    pub max: i16,
}

impl Broker {
    /// Whether it understands `level` of the feature `name`. Level 0 is the feature's absence, and what a process
    /// says nothing about it does not know.
    pub fn supports(&self, name: &str, level: i16) -> bool {
        match self.features.iter().find(|range| range.name == name) {
            Some(range) => (range.min..=range.max).contains(&level),
            None => level == 0,
        }
    }

    /// Whether it is to leave the cluster.
    pub fn is_draining(&self) -> bool {
        self.share == Share::Drained
    }

    /// Whether it may lead partitions.
    pub const fn is_active(&self) -> bool {
        !self.fenced && !self.shutting_down
    }

    /// Where clients that came through `listener` (a listener's name) reach it.
    pub fn endpoint(&self, listener: &str) -> Option<&Endpoint> {
        self.endpoints.iter().find(|endpoint| endpoint.listener == listener)
    }
}

/// An address a broker listens on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Listener name, such as `PLAINTEXT`.
    pub listener: String,
    /// Host as advertised.
    pub host: String,
    /// TCP port as advertised.
    pub port: u16,
    /// How one talks on it.
    pub protocol: SecurityProtocol,
}

impl Endpoint {
    /// `host:port`, see [`host_and_port`].
    pub fn address(&self) -> String {
        host_and_port(&self.host, self.port)
    }
}

/// `host:port`; an IPv6 address is told from its port by brackets.
pub fn host_and_port(host: &str, port: impl std::fmt::Display) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Kafka's security protocols, by Kafka's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum SecurityProtocol {
    /// Neither TLS nor SASL.
    Plaintext,
    /// TLS.
    Ssl,
    /// SASL without TLS.
    SaslPlaintext,
    /// SASL over TLS.
    SaslSsl,
}

/// State of a partition as the quorum knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionState {
    /// Replicas, preferred leader first.
    pub replicas: Vec<NodeId>,
    /// Data directory of each replica, in the same order.
    pub directories: Vec<DirectoryId>,
    /// In-sync replicas.
    pub isr: Vec<NodeId>,
    /// Eligible leader replicas outside the ISR (KIP-966).
    pub elr: Vec<NodeId>,
    /// None while no replica may lead.
    pub leader: Option<NodeId>,
    /// One more with every change of leader or of its incarnation, and when replicas go.
    pub leader_epoch: LeaderEpoch,
    /// One more with every change of this state.
    pub partition_epoch: i32,
    /// Replicas that a reassignment adds (KIP-455). All of them are in `replicas`.
    pub adding: Vec<NodeId>,
    /// Replicas that go once the reassignment is complete. All of them are in `replicas`.
    pub removing: Vec<NodeId>,
    /// Who led last, while in-sync and eligible replicas are both used up (KIP-966).
    pub last_known_leader: Option<NodeId>,
    /// Whether its leader was elected without being known to have all records.
    pub recovery: Recovery,
}

/// Whether the in-sync replicas hold what was committed before. The numbers are durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Recovery {
    /// They do.
    #[default]
    Recovered,
    /// The leader was elected unclean and has not told yet that it settled what it has.
    Recovering,
}

/// What kind of thing has configs, by Kafka's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ConfigKind {
    /// A topic.
    Topic,
    /// A broker; the empty name is the default of all brokers.
    Broker,
    /// Log levels of a broker.
    BrokerLogger,
    /// A subscription to client metrics (KIP-714).
    ClientMetrics,
    /// A consumer group.
    Group,
}

/// Whose configs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ConfigResource {
    /// What it is.
    pub kind: ConfigKind,
    /// Its name: topic name, node id in digits, group id.
    pub name: String,
}

impl ConfigResource {
    /// Configs of the topic `name`.
    pub fn topic(name: impl Into<String>) -> Self {
        Self { kind: ConfigKind::Topic, name: name.into() }
    }

    /// Configs of one broker.
    pub fn broker(id: NodeId) -> Self {
        Self { kind: ConfigKind::Broker, name: id.to_string() }
    }

    /// Defaults of all brokers.
    pub const fn all_brokers() -> Self {
        Self { kind: ConfigKind::Broker, name: String::new() }
    }
}
