//! Tiered storage: what has settled in the local log goes to the object store, and comes back when it
//! is read.
//!
//! - [`format`]: the object, batches with a footer.
//! - [`manifest`]: which object holds which offsets; pure, with named invariants.
//! - [`plan`]: what to upload, expire and sweep; pure.
//! - [`runner`]: does what was planned.
//! - [`store`]: the object store, with outcomes that may be unknown.
//! - [`reader`]: remote reads ahead of their consumers, through the chunk [`cache`].
//! - [`bucket`]: looking at a bucket before trusting it, and creating it.
//! - [`ports`]: what the broker provides.

pub mod bucket;
pub mod cache;
#[cfg(test)]
mod fixtures;
pub mod format;
pub mod manifest;
pub mod plan;
pub mod ports;
pub mod reader;
pub mod runner;
pub mod store;
