//! What every part of Firn shares: ids and units, the seams to the host, the Kafka wire protocol and
//! the cluster's metadata. Depends on nothing of ours.

pub mod errors;
pub mod host;
pub mod ids;
pub mod messages;
pub mod metadata;
pub mod planted;
pub mod records;
pub mod wire;
