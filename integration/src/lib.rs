//! What the suites in `tests/` are made with: real processes, a client that may misbehave, an S3 that fails on purpose, a history of
//! what clients were told and its checker, and clusters of simulated machines.
//!
//! Only [`sim`] hands the broker anything but its ports and its files.

pub mod calls;
pub mod client;
pub mod cluster;
pub mod dice;
pub mod history;
pub mod load;
pub mod process;
pub mod s3;
pub mod sim;
pub mod typed;
