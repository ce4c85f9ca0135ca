//! Partitions: one log each, led or followed, behind a cheap handle.

pub mod core;
pub mod following;
pub mod handle;
pub mod isr;
mod lookup;
mod read;
pub mod registry;
pub mod rewind;
pub(crate) mod shared;
pub mod space;
mod tier_port;
pub mod types;
pub mod waiters;

pub use core::{Contradiction, Cut, Leadership, Loss, ReplicaInfo, ReplicaView, Truncation};
pub use following::{FetchPosition, FollowerAppend, ReplicaFetch};
pub use handle::{Deletion, PartitionHandle, describe};
pub use registry::{DirSpec, Directory, NoDirectory, Open, Partitions, WeakPartitions};
pub use rewind::{Anew, RewindError};
pub use shared::Traffic;
pub use types::*;
pub use waiters::FetchWaiter;

#[cfg(test)]
mod tests;
