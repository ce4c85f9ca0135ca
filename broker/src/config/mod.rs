//! Configuration: one table of Kafka 4.3's broker and topic configs and Firn's own, and what follows from it.
//!
//! * [`definition`] and [`tables`]: each config's facts, and whether Firn acts on it. No name Kafka knows is missing,
//!   so that none is ever silently ignored: it acts, is accepted with a reason why it has no effect, or is refused.
//! * [`synonyms`] and [`layers`]: where an effective value comes from.
//! * [`TopicConfig`] and [`BrokerConfig`]: typed views, computed when something changes, cheap to read.
//! * [`describe`](mod@describe) and [`alter`](mod@alter): what DescribeConfigs and IncrementalAlterConfigs need, as pure functions.
//! * [`internal`]: the topics that only Firn itself writes.
//! * [`server`]: the configuration file, environment and flags of a process.

pub mod alter;
pub mod broker;
pub mod definition;
pub mod describe;
pub mod error;
pub mod internal;
pub mod layers;
pub mod server;
pub mod synonyms;
pub mod tables;
pub mod topic;

mod near;
mod values;

pub use alter::{
    Alteration, FOR_ALL, Operation, Reach, Settings, alter_broker, alter_topic, inherited_topic, replace_broker,
    replace_topic, validate_topic, validate_topic_on, validate_topic_set,
};
pub use broker::{BrokerConfig, ClusterConfig, FirnConfig, GroupConfig, NetConfig, ProducerConfig, ReplicationConfig};
pub use definition::{Definition, Effect, Kind};
pub use describe::{Entry, Source, SynonymEntry, describe_broker, describe_cluster, describe_topic};
pub use error::{ConfigError, Fault, Origin, Scope};
pub use layers::{BrokerLayers, Lookup};
pub use server::{Listener, ServerConfig, Sources};
pub use topic::{CleanupPolicy, Flush, TopicConfig};

#[cfg(test)]
mod tests;
