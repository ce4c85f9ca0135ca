//! Which number each record has, and what its versions can say.
//!
//! A record is framed as `number, version, length, body`. It is written at the oldest version that can say all of
//! it, so that a reader is never confronted with a newer one without need. Which versions may be needed at all is
//! the matter of the feature [`FEATURE`]: while some member of the cluster may be older, its level is kept down,
//! and what is decided keeps to [`MetadataRecord::at_level`].

use super::codec::{DecodeError, Durable, take_bytes, take_list};
use super::image::DeletedTopic;
use super::record::{
    Broker, ConfigKind, ConfigResource, Duty, Endpoint, FeatureRange, MetadataRecord, PartitionState, Recovery,
    SecurityProtocol, Share,
};
use super::tier::{ObjectFormat, ObjectKey, ObjectRef, RootRef, TailEntry, TierPoint, TierPointer};
use crate::ids::{DirectoryId, NodeId, TopicId, TopicPartition};
use crate::{durable_enum, durable_struct};

/// Name of the feature whose level says which records may be written.
pub const FEATURE: &str = "firn.metadata";
/// Highest level of [`FEATURE`] that this Firn understands. At level N, records are written at version N at most.
pub const NEWEST_LEVEL: i16 = 1;

durable_enum!(
    SecurityProtocol { Plaintext = 0, Ssl = 1, SaslPlaintext = 2, SaslSsl = 3 }
    ConfigKind { Topic = 2, Broker = 4, BrokerLogger = 8, ClientMetrics = 16, Group = 32 }
    ObjectFormat { Segment = 1, Parquet = 2 }
    Duty { Sweeper = 1, SnapshotWriter = 2, Balancer = 3 }
    Recovery { Recovered = 0, Recovering = 1 }
    Share { Kept = 0, Drained = 1, Filled = 2 }
);
durable_struct!(
    Endpoint { listener, host, port, protocol }
    FeatureRange { name, min, max }
    ConfigResource { kind, name }
    RootRef { uuid, generation, leader_epoch, size, crc }
    TailEntry {
        base, end, max_timestamp, object, footer_position, epochs, format, has_aborted, points
    }
    ObjectRef { key, start, length }
    ObjectKey { owner, base_offset, leader_epoch, uuid }
    TierPoint { offset, timestamp, position }
);

/// A field of a record. What is encoded of it may depend on the record's version.
trait Field: Sized {
    /// The oldest version that can say all of it.
    fn version(&self) -> u64;
    fn put_at(&self, version: u64, out: &mut Vec<u8>);
    /// What the version does not say has its default.
    fn take_at(version: u64, input: &mut &[u8]) -> Result<Self, DecodeError>;
    /// Gives up what `version` cannot say.
    fn lower(&mut self, version: u64);
}

/// Fields that are the same in every version.
macro_rules! unversioned {
    ($($name:ty),* $(,)?) => {$(
        impl Field for $name {
            fn version(&self) -> u64 {
                0
            }

            fn put_at(&self, _version: u64, out: &mut Vec<u8>) {
                self.put(out);
            }

            fn take_at(_version: u64, input: &mut &[u8]) -> Result<Self, DecodeError> {
                <Self as Durable>::take(input)
            }

            fn lower(&mut self, _version: u64) {}
        }
    )*};
}
unversioned!(
    String,
    Option<String>,
    i16,
    i32,
    i64,
    NodeId,
    Option<NodeId>,
    TopicId,
    DirectoryId,
    TopicPartition,
    ConfigResource,
    Duty
);

/// Structs that got fields in version 1, each with the default it has for a reader of version 0. By itself, outside
/// of a record, such a struct is encoded with all its fields.
macro_rules! versioned {
    ($($name:ident { $($field:ident),* $(,)? } 1 { $($new:ident: $default:expr),* $(,)? })*) => {$(
        impl Field for $name {
            fn version(&self) -> u64 {
                u64::from($(self.$new != $default)||*)
            }

            fn put_at(&self, version: u64, out: &mut Vec<u8>) {
                $(self.$field.put(out);)*
                if version >= 1 {
                    $(self.$new.put(out);)*
                }
            }

            fn take_at(version: u64, input: &mut &[u8]) -> Result<Self, DecodeError> {
                $(let $field = Durable::take(input)?;)*
                $(let $new = if version >= 1 { Durable::take(input)? } else { $default };)*
                Ok(Self { $($field,)* $($new),* })
            }

            fn lower(&mut self, version: u64) {
                if version < 1 {
                    $(self.$new = $default;)*
                }
            }
        }

        impl Durable for $name {
            fn put(&self, out: &mut Vec<u8>) {
                self.put_at(1, out);
            }

            fn take(input: &mut &[u8]) -> Result<Self, DecodeError> {
                Self::take_at(1, input)
            }
        }
    )*};
}
versioned!(
    Broker { id, epoch, incarnation, endpoints, rack, directories, fenced, shutting_down }
        1 { features: Vec::new(), share: Share::Kept }
    PartitionState { replicas, directories, isr, elr, leader, leader_epoch, partition_epoch }
        1 { adding: Vec::new(), removing: Vec::new(), last_known_leader: None, recovery: Recovery::Recovered }
    TierPointer {
        generation, root, log_start, tier_start, tier_end, tail, bytes, leader_epoch, committed_at, request
    }
        1 { end_epoch: -1 }
);

impl Field for DeletedTopic {
    fn version(&self) -> u64 {
        self.tiers.iter().map(|(_, pointer)| pointer.version()).max().unwrap_or(0)
    }

    fn put_at(&self, version: u64, out: &mut Vec<u8>) {
        self.id.put(out);
        self.name.put(out);
        self.deleted_at.put(out);
        (self.tiers.len() as u64).put(out);
        for (index, pointer) in &self.tiers {
            index.put(out);
            pointer.put_at(version, out);
        }
    }

    fn take_at(version: u64, input: &mut &[u8]) -> Result<Self, DecodeError> {
        let (id, name, deleted_at) = (Durable::take(input)?, Durable::take(input)?, Durable::take(input)?);
        let tiers = take_list(input, |input| Ok((i32::take(input)?, TierPointer::take_at(version, input)?)))?;
        Ok(Self { id, name, deleted_at, tiers })
    }

    fn lower(&mut self, version: u64) {
        for (_, pointer) in &mut self.tiers {
            pointer.lower(version);
        }
    }
}

impl Durable for MetadataRecord {
    fn put(&self, out: &mut Vec<u8>) {
        let version = self.version();
        let mut body = Vec::with_capacity(64);
        let number: u64 = self.put_body(version, &mut body);
        number.put(out);
        version.put(out);
        (body.len() as u64).put(out);
        out.extend_from_slice(&body);
    }

    fn take(input: &mut &[u8]) -> Result<Self, DecodeError> {
        let number = u64::take(input)?;
        let version = u64::take(input)?;
        let length = usize::try_from(u64::take(input)?).map_err(|_| DecodeError::OutOfRange)?;
        let mut body = take_bytes(input, length)?;
        let record = Self::take_body(number, version, &mut body)?;
        if !body.is_empty() {
            return Err(DecodeError::LeftOver { number, left: body.len() });
        }
        Ok(record)
    }
}

impl MetadataRecord {
    /// The lowest level of [`FEATURE`] at which it may be written as it is.
    pub fn level(&self) -> i16 {
        match self {
            Self::DutyAssigned { .. } | Self::VoterBound { .. } => 1,
            known => i16::try_from(known.version()).unwrap_or(i16::MAX),
        }
    }

    /// The same without what `level` of [`FEATURE`] cannot say; none if it cannot say it at all.
    pub fn at_level(mut self, level: i16) -> Option<Self> {
        self.lower(u64::try_from(level).unwrap_or(0));
        (self.level() <= level).then_some(self)
    }
}

/// Ties each record to its number and its newest version. A number is never used for anything else.
macro_rules! records {
    ($($number:literal v $newest:literal => $variant:ident $({ $($field:ident),* })? $(( $inner:ident ))?;)*) => {
        impl MetadataRecord {
            fn version(&self) -> u64 {
                match self {
                    $(Self::$variant $({ $($field),* })? $(($inner))? => {
                        0 $($(.max($field.version()))*)? $(.max($inner.version()))?
                    })*
                }
            }

            fn put_body(&self, version: u64, out: &mut Vec<u8>) -> u64 {
                match self {
                    $(Self::$variant $({ $($field),* })? $(($inner))? => {
                        $($($field.put_at(version, out);)*)?
                        $($inner.put_at(version, out);)?
                        $number
                    })*
                }
            }

            fn take_body(number: u64, version: u64, body: &mut &[u8]) -> Result<Self, DecodeError> {
                match number {
                    $($number if version > $newest => Err(DecodeError::UnknownVersion { number, version }),
                    $number => Ok(Self::$variant
                        $({ $($field: Field::take_at(version, body)?),* })?
                        $(({ let $inner = Field::take_at(version, body)?; $inner }))?
                    ),)*
                    number => Err(DecodeError::UnknownVariant { what: "record", number }),
                }
            }

            fn lower(&mut self, version: u64) {
                match self {
                    $(Self::$variant $({ $($field),* })? $(($inner))? => {
                        $($($field.lower(version);)*)?
                        $($inner.lower(version);)?
                    })*
                }
            }
        }
    };
}

records!(
    1 v 0 => ClusterFormed { cluster_id };
    2 v 0 => FeatureSet { name, level };
    3 v 1 => BrokerSet(broker);
    4 v 0 => BrokerRemoved { id };
    5 v 0 => TopicCreated { id, name, created_at };
    6 v 1 => PartitionSet { tp, state };
    7 v 0 => TopicDeleted { id, deleted_at };
    8 v 0 => DeletionFinished { id };
    9 v 0 => ConfigSet { resource, key, value };
    10 v 0 => ProducerIdsAllocated { next };
    11 v 1 => TierPointerSet { tp, pointer };
    12 v 1 => DeletionPending(deleted);
    13 v 0 => DutyAssigned { duty, node, epoch };
    14 v 0 => VoterBound { id, directory };
);
