//! Partitions: one log each, led or followed, behind a cheap handle.

pub mod core;
pub mod handle;
mod read;
pub(crate) mod shared;
pub mod types;
pub mod waiters;

pub use handle::{Deletion, PartitionHandle, describe};
pub use types::*;
pub use waiters::FetchWaiter;
