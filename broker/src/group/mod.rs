//! Consumer groups, classic protocol: the coordinator of the groups whose records are in partitions of
//! `__consumer_offsets` that this broker leads.
//!
//! - `core`: one group; pure.
//! - `shard`: the groups of one partition; pure, too.
//! - `task`: owns a shard, gives it time, writes and answers for it.
//! - [`GroupHandle`]: finds the shard of a group and asks it.
//! - `records`: how groups are written down, in Kafka's schemas; [`log`]: where.

mod core;
mod handle;
pub mod log;
mod records;
mod room;
mod shard;
mod task;
#[cfg(test)]
mod tests;
pub mod types;

pub use handle::GroupHandle;
pub use records::partition_for;

/// The topic that groups are written down in.
pub const OFFSETS_TOPIC: &str = crate::config::internal::OFFSETS;
