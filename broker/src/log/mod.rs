//! The local log: what a partition keeps on disk and what it must remember of it.

pub mod batch;
pub mod epochs;
pub mod producers;
