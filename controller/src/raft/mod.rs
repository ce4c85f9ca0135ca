//! The quorum, and the only module that knows openraft: log and votes on redb ([`store`]), the state
//! machine that applies batches to the image ([`state`]), the way to the other voters ([`network`]).
//!
//! The only voter takes the lead at once instead of waiting for an election timeout.

mod encoding;
mod network;
mod slack;
mod state;
mod store;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io::Cursor;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use openraft::error::{CheckIsLeaderError, ClientWriteError, ForwardToLeader, RaftError};
use openraft::{BasicNode, Config, Raft, SnapshotPolicy};
use proto::host::Spawner;
use proto::ids::NodeId;
use proto::metadata::{Batch, BatchRejected, Image};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::handle::SubmitError;
use network::Network;
pub(crate) use slack::{Level, Slack};
use state::StateMachine;
pub(crate) use store::{Store, StoreError};

openraft::declare_raft_types!(
    /// What openraft agrees on.
    pub(crate) TypeConfig:
        D = Batch,
        R = Applied,
        NodeId = u64,
        Node = BasicNode,
);

type LogId = openraft::LogId<u64>;
type Vote = openraft::Vote<u64>;
type StoredMembership = openraft::StoredMembership<u64, BasicNode>;
type SnapshotMeta = openraft::SnapshotMeta<u64, BasicNode>;
type Entry = openraft::Entry<TypeConfig>;
type StorageError = openraft::StorageError<u64>;

/// What became of a raft entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Applied {
    /// It carried no batch.
    Nothing,
    /// The batch was applied.
    Batch,
    /// The batch was decided on another state: nothing of it was applied.
    Rejected(BatchRejected),
}

/// Raft entries between two snapshots.
const SNAPSHOT_EVERY_ENTRIES: u64 = 4096;
/// Bytes in raft entries between two snapshots.
const SNAPSHOT_EVERY_BYTES: u64 = 32 << 20;
/// Raft entries kept behind a snapshot, for a voter that is slightly behind.
const KEEP_ENTRIES: u64 = 256;

/// The running quorum member.
#[derive(Clone)]
pub(crate) struct Quorum {
    raft: Raft<TypeConfig>,
    id: u64,
    bytes_since_snapshot: Arc<AtomicU64>,
}

impl std::fmt::Debug for Quorum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Quorum").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Why a proposal was not applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ProposeError {
    /// Decided on a state that is not the current one any more. Definite: decide again.
    Rejected,
    /// Not the leader. Definite.
    NotLeader(Option<NodeId>),
    /// It may have been applied, or be applied yet.
    Unknown,
}

impl Quorum {
    /// Opens the quorum in `store` and, as its only voter, takes the lead. Returns when the image
    /// shows all that was ever committed.
    pub(crate) async fn start(
        id: NodeId,
        store: Store,
        spawner: &Spawner,
    ) -> Result<(Self, watch::Receiver<Arc<Image>>), StoreError> {
        let id = raft_id(id)?;
        let (machine, images) = StateMachine::open(store.clone())?;
        let config = Config {
            cluster_name: "firn".to_owned(),
            // Nobody listens to the only voter's heartbeats, and nobody competes with it.
            enable_heartbeat: false,
            heartbeat_interval: 1_000,
            election_timeout_min: 2_000,
            election_timeout_max: 4_000,
            snapshot_policy: SnapshotPolicy::LogsSinceLast(SNAPSHOT_EVERY_ENTRIES),
            max_in_snapshot_log_to_keep: KEEP_ENTRIES,
            purge_batch_size: 64,
            ..Config::default()
        };
        // openraft spawns its tasks where it is called: on the runtime of the acknowledged path.
        let raft = spawner
            .spawn_hot(async move { Raft::new(id, Arc::new(config), Network, store, machine).await })
            .await
            .map_err(|error| StoreError::Raft(error.to_string()))?
            .map_err(|error| StoreError::Raft(error.to_string()))?;
        let quorum = Self { raft, id, bytes_since_snapshot: Arc::default() };
        quorum.take_the_lead().await?;
        Ok((quorum, images))
    }

    async fn take_the_lead(&self) -> Result<(), StoreError> {
        let failed = |error: &dyn std::fmt::Display| StoreError::Raft(error.to_string());
        let initialized = self.raft.is_initialized().await.map_err(|error| failed(&error))?;
        if !initialized {
            let members = BTreeMap::from([(self.id, BasicNode::default())]);
            self.raft.initialize(members).await.map_err(|error| failed(&error))?;
        } else if self.term_if_leader().is_none() {
            self.raft.trigger().elect().await.map_err(|error| failed(&error))?;
        }
        self.raft
            .wait(None)
            .metrics(
                |metrics| {
                    metrics.current_leader == Some(self.id)
                        && metrics.last_applied.map(|applied| applied.index) == metrics.last_log_index
                },
                "the only voter leads",
            )
            .await
            .map_err(|error| failed(&error))?;
        Ok(())
    }

    /// The current term if this member leads in it, as far as it knows.
    pub(crate) fn term_if_leader(&self) -> Option<u64> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        (metrics.current_leader == Some(self.id)).then_some(metrics.current_term)
    }

    /// Who leads, as far as this member knows.
    pub(crate) fn leader(&self) -> Option<NodeId> {
        self.raft.metrics().borrow().current_leader.and_then(node_id)
    }

    /// Has the quorum agree on `batch`, and applies it here.
    pub(crate) async fn propose(&self, batch: Batch) -> Result<(), ProposeError> {
        let bytes = batch.records.len() as u64 * 128;
        let written = self.raft.client_write(batch).await.map_err(|error| match error {
            RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => {
                ProposeError::NotLeader(forward_id(&forward))
            }
            RaftError::APIError(ClientWriteError::ChangeMembershipError(_)) | RaftError::Fatal(_) => {
                ProposeError::Unknown
            }
        })?;
        self.count(bytes).await;
        match written.data {
            Applied::Nothing | Applied::Batch => Ok(()),
            Applied::Rejected(_) => Err(ProposeError::Rejected),
        }
    }

    /// Snapshots by bytes; openraft itself counts entries only.
    async fn count(&self, bytes: u64) {
        let total = self.bytes_since_snapshot.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if total >= SNAPSHOT_EVERY_BYTES {
            self.bytes_since_snapshot.store(0, Ordering::Relaxed);
            if let Err(error) = self.raft.trigger().snapshot().await {
                tracing::warn!(%error, "cannot ask for a metadata snapshot");
            }
        }
    }

    /// Returns when this member, as the leader, has applied all that was committed before the call.
    pub(crate) async fn ensure_linearizable(&self) -> Result<(), SubmitError> {
        match self.raft.ensure_linearizable().await {
            Ok(_) => Ok(()),
            Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(forward))) => {
                Err(SubmitError::NotLeader { leader: forward_id(&forward) })
            }
            Err(RaftError::APIError(CheckIsLeaderError::QuorumNotEnough(_))) => {
                Err(SubmitError::NotLeader { leader: None })
            }
            Err(RaftError::Fatal(_)) => Err(SubmitError::Ended),
        }
    }

    /// Returns when the member has stopped, with the reason.
    pub(crate) async fn ended(&self) -> String {
        let mut metrics = self.raft.metrics();
        loop {
            if let Err(fatal) = &metrics.borrow_and_update().running_state {
                return fatal.to_string();
            }
            if metrics.changed().await.is_err() {
                return "the quorum member was shut down".to_owned();
            }
        }
    }

    /// Stops the member. What is committed stays.
    pub(crate) async fn shutdown(&self) {
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(%error, "the quorum member did not end cleanly");
        }
    }

    /// Takes a snapshot now and returns when it is written.
    #[cfg(test)]
    pub(crate) async fn snapshot(&self) {
        let applied = self.raft.metrics().borrow().last_applied;
        self.raft.trigger().snapshot().await.expect("raft runs");
        let done = |metrics: &openraft::RaftMetrics<u64, BasicNode>| metrics.snapshot >= applied;
        self.raft.wait(None).metrics(done, "snapshot").await.expect("raft runs");
    }
}

fn raft_id(id: NodeId) -> Result<u64, StoreError> {
    u64::try_from(id.0).map_err(|_| StoreError::InvalidNodeId(id))
}

fn node_id(id: u64) -> Option<NodeId> {
    i32::try_from(id).ok().map(NodeId)
}

fn forward_id(forward: &ForwardToLeader<u64, BasicNode>) -> Option<NodeId> {
    forward.leader_id.and_then(node_id)
}
