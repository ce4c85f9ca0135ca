//! The broker: everything that runs in a `firn` process.

pub mod api;
pub mod cli;
pub mod http;
pub mod log;
pub mod metrics;
pub mod net;
pub mod partition;
pub mod telemetry;
