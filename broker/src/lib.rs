//! The broker: everything that runs in a `firn` process.

pub mod api;
pub mod cli;
pub mod config;
pub mod disk;
pub mod group;
pub mod http;
pub mod journal;
pub mod log;
pub mod metrics;
pub mod net;
pub mod node;
pub mod partition;
pub mod process;
pub mod replica;
pub mod telemetry;
