//! The controller: the quorum that owns the cluster's metadata.
//!
//! - [`command`]: what one can ask for, and the answers.
//! - [`decide`]: pure; a command and an image become records, or a refusal. It never changes the
//!   image: `proto::metadata` applies what the quorum has agreed on, here and on every broker.
//! - [`session`]: pure; which brokers live. [`balance`]: pure; where replicas should be.
//! - [`duties`]: what the quorum's leader does by itself: sessions, elections that are due, balance.
//! - `raft`: the one module that knows openraft: log and votes on redb, the state machine, the
//!   network to the other voters.
//! - `task`: the queue in front of the quorum, one proposal in flight.
//! - `router`: the way of a command to the leader, in this process or in another.
//! - `follow`: the metadata as a stream, for nodes without a member.
//! - `transport`, `wire`, `peers`, `member`: how nodes ask each other, in which bytes, who asks, and what is answered.
//! - [`ControllerHandle`], [`ControllerNode`]: what the rest of Firn holds.
//!
//! Metadata only: no record data ever passes through here.

pub mod balance;
mod binder;
pub mod command;
pub mod decide;
pub mod duties;
mod follow;
mod handle;
mod links;
mod member;
mod node;
mod peers;
mod raft;
mod router;
pub mod session;
mod shown;
pub mod storage;
mod task;
mod transport;
mod view;
mod wire;

#[cfg(test)]
mod tests;

pub use command::{Command, Outcome, Refusal};
pub use decide::{Decision, Policy, decide, supported_features};
pub use follow::client::{FollowConfig, Follower};
pub use handle::{ControllerHandle, SubmitError};
pub use links::SessionLink;
pub use node::{ControllerNode, Machine, MemberConfig, NodeConfig, StartError};
pub use raft::Timings;
pub use storage::Storage;
pub use transport::{Wire, probe};
pub use view::{MemberView, QuorumView, VoterChange, VoterError};
