//! The records: each one fact, each with a stable number.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::codec::{DecodeError, Durable, durable_enum, durable_struct, take_bytes};
use super::image::DeletedTopic;
use super::tier::{ObjectFormat, ObjectKey, ObjectRef, RootRef, TailEntry, TierPoint, TierPointer};
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
}

impl Broker {
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
    /// One more with every change of leader or of its incarnation.
    pub leader_epoch: LeaderEpoch,
    /// One more with every change of this state.
    pub partition_epoch: i32,
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

durable_enum!(
    SecurityProtocol { Plaintext = 0, Ssl = 1, SaslPlaintext = 2, SaslSsl = 3 }
    ConfigKind { Topic = 2, Broker = 4, BrokerLogger = 8, ClientMetrics = 16, Group = 32 }
    ObjectFormat { Segment = 1, Parquet = 2 }
);
durable_struct!(
    Endpoint { listener, host, port, protocol }
    Broker { id, epoch, incarnation, endpoints, rack, directories, fenced, shutting_down }
    PartitionState { replicas, directories, isr, elr, leader, leader_epoch, partition_epoch }
    ConfigResource { kind, name }
    TierPointer {
        generation, root, log_start, tier_start, tier_end, tail, bytes, leader_epoch, committed_at, request
    }
    RootRef { uuid, generation, leader_epoch, size, crc }
    TailEntry {
        base, end, max_timestamp, object, footer_position, epochs, format, has_aborted, points
    }
    ObjectRef { key, start, length }
    ObjectKey { owner, base_offset, leader_epoch, uuid }
    TierPoint { offset, timestamp, position }
    DeletedTopic { id, name, deleted_at, tiers }
);

/// Version that this Firn writes and the newest it reads, of every record.
const VERSION: u64 = 0;

impl Durable for MetadataRecord {
    fn put(&self, out: &mut Vec<u8>) {
        let mut body = Vec::with_capacity(64);
        let number: u64 = self.put_body(&mut body);
        number.put(out);
        VERSION.put(out);
        (body.len() as u64).put(out);
        out.extend_from_slice(&body);
    }

    fn take(input: &mut &[u8]) -> Result<Self, DecodeError> {
        let number = u64::take(input)?;
        let version = u64::take(input)?;
        if version > VERSION {
            return Err(DecodeError::UnknownVersion { number, version });
        }
        let length = usize::try_from(u64::take(input)?).map_err(|_| DecodeError::OutOfRange)?;
        let mut body = take_bytes(input, length)?;
        let record = Self::take_body(number, &mut body)?;
        if !body.is_empty() {
            return Err(DecodeError::LeftOver { number, left: body.len() });
        }
        Ok(record)
    }
}

/// Ties each record to its number. A number is never used for anything else.
macro_rules! records {
    ($($number:literal => $variant:ident $({ $($field:ident),* })? $(( $inner:ident ))?;)*) => {
        impl MetadataRecord {
            fn put_body(&self, out: &mut Vec<u8>) -> u64 {
                match self {
                    $(Self::$variant $({ $($field),* })? $(($inner))? => {
                        $($($field.put(out);)*)?
                        $($inner.put(out);)?
                        $number
                    })*
                }
            }

            fn take_body(number: u64, body: &mut &[u8]) -> Result<Self, DecodeError> {
                match number {
                    $($number => Ok(Self::$variant
                        $({ $($field: Durable::take(body)?),* })?
                        $(({ let $inner = Durable::take(body)?; $inner }))?
                    ),)*
                    number => Err(DecodeError::UnknownVariant { what: "record", number }),
                }
            }
        }
    };
}

records!(
    1 => ClusterFormed { cluster_id };
    2 => FeatureSet { name, level };
    3 => BrokerSet(broker);
    4 => BrokerRemoved { id };
    5 => TopicCreated { id, name, created_at };
    6 => PartitionSet { tp, state };
    7 => TopicDeleted { id, deleted_at };
    8 => DeletionFinished { id };
    9 => ConfigSet { resource, key, value };
    10 => ProducerIdsAllocated { next };
    11 => TierPointerSet { tp, pointer };
    12 => DeletionPending(deleted);
);
