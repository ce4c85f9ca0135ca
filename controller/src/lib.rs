//! The controller: the quorum that owns the cluster's metadata.
//!
//! - [`command`]: what one can ask for, and the answers.
//! - [`decide`]: pure; a command and an image become records, or a refusal. It never changes the
//!   image: `proto::metadata` applies what the quorum has agreed on, here and on every broker.
//! - `raft`: the one module that knows openraft: log and votes on redb, the state machine, the
//!   network to the other voters.
//! - `task`: the queue in front of the quorum, one proposal in flight.
//! - [`ControllerHandle`], [`ControllerNode`]: what the rest of Firn holds.
//!
//! Metadata only: no record data ever passes through here.

pub mod command;
pub mod decide;
mod handle;
mod node;
mod raft;
mod task;

pub use command::{Command, Outcome, Refusal};
pub use decide::{Decision, decide};
pub use handle::{ControllerHandle, SubmitError};
pub use node::{ControllerNode, NodeConfig, StartError};
