//! Partitions: one log each, led or followed, behind a cheap handle.

pub mod types;
