//! Configuration: one table of Kafka 4.3's broker and topic configs and Firn's own, and what follows from it.
//!
//! * [`definition`] and [`tables`]: each config's facts, and whether Firn acts on it. No name Kafka knows is missing,
//!   so that none is ever silently ignored: it acts, is accepted with a reason why it has no effect, or is refused.
//! * [`synonyms`] and [`layers`]: where an effective value comes from.
//! * [`TopicConfig`] and [`BrokerConfig`]: typed views, computed when something changes, cheap to read.

pub mod broker;
pub mod definition;
pub mod layers;
pub mod synonyms;
pub mod tables;
pub mod topic;

mod values;

pub use broker::{BrokerConfig, FirnConfig, GroupConfig, NetConfig, ProducerConfig};
pub use definition::{Definition, Effect, Kind};
pub use layers::{BrokerLayers, Lookup};
pub use topic::{CleanupPolicy, Flush, TopicConfig};

#[cfg(test)]
mod tests;
