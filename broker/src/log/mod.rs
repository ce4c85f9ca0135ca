//! The local log: what a partition keeps on disk and what it must remember of it.
//!
//! One [`dir::LogDir`] per data directory: its journal, its tail cache and its writer, which settles what the
//! journal made durable in segments. Everything that decides (layout, producers, epochs) is pure.

pub mod batch;
pub mod config;
pub mod dir;
pub mod epochs;
pub mod folder;
pub mod index;
pub mod layout;
pub mod life;
pub mod observer;
pub mod producers;
pub mod recovery;
pub mod scan;
pub mod segment;
pub mod snapshot;
pub mod tail;
pub(crate) mod writer;
