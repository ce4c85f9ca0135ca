//! Whole clusters in one process and one thread: nodes as they are in production, on a simulated network, clock, disk and object store,
//! under [`load`](crate::load) and under faults that all follow from one seed.
//!
//! - [`faults`]: what goes wrong, when: pure.
//! - [`net`], [`objects`], [`store`]: what nodes are handed in place of a network, an object store and a file of the quorum's; the disk is
//!   the broker's own `SimDisk`.
//! - [`world`]: the machines, and what faults do to them.
//! - [`monitor`]: what must hold of the metadata on all nodes, of replicas and of votes.
//! - [`run`]: one run from start to verdict.
//! - [`trace`]: what happened, as one number.
//!
//! The invariant is REPLAY: the same seed gives the same trace. It holds only in a process of its own, whose clock and randomness are
//! taken away before anything else runs (the binary `sim`).

pub mod faults;
pub mod monitor;
pub mod net;
pub mod objects;
pub mod run;
pub mod store;
pub mod trace;
pub mod world;
