//! The broker: everything that runs in a `firn` process.

pub mod net;
