//! What clients of a cluster were told, and whether all of it can be true at once.
//!
//! - [`model`]: the history: one entry for everything a client did or heard, in the order of hearing. It is written and read as JSON
//!   lines, so that clients in any language can be checked.
//! - [`check`]: pure; a history becomes the anomalies in it, in the manner of Jepsen's Kafka workload.
//! - [`ledger`]: one partition's promises down to the bytes, for suites that read a log back themselves.

pub mod check;
pub mod ledger;
pub mod model;

#[cfg(test)]
mod tests;

pub use check::{Anomaly, Report, check};
pub use model::{Acks, Entry, Event, History, Place};
