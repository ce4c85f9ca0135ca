//! The quorum, and the only module that knows openraft: log and votes on redb ([`store`]), the state
//! machine that applies batches to the image ([`state`]), the way to the other voters ([`network`]), and
//! when to stand for election ([`elections`], [`pacemaker`]).
//!
//! The only voter takes the lead at once instead of waiting for an election timeout.

mod elections;
mod encoding;
mod members;
mod network;
mod pacemaker;
mod rpc;
mod serve;
mod slack;
mod state;
mod store;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io::Cursor;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use openraft::error::{CheckIsLeaderError, ForwardToLeader, RaftError};
use openraft::{Config, Raft, ServerState, SnapshotPolicy};
use parking_lot::Mutex;
use proto::host::Spawner;
use proto::ids::{DirectoryId, NodeId};
use proto::metadata::{Batch, BatchRejected, Image};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::handle::SubmitError;
use crate::peers::Peers;
pub use elections::Timings;
use network::Links;
pub(crate) use pacemaker::{Heard, Pacemaker};
pub(crate) use slack::{Level, Slack};
pub(crate) use state::StateMachine;
pub(crate) use store::{Store, StoreError};

openraft::declare_raft_types!(
    /// What openraft agrees on.
    pub(crate) TypeConfig:
        D = Batch,
        R = Applied,
        NodeId = u64,
        Node = Voter,
);

/// A member of the quorum, as the others reach it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Voter {
    /// `host:port` of its control listener; empty for the only voter of a quorum that has none.
    pub(crate) address: String,
    /// The directory with its metadata, if it was known when it became a member.
    pub(crate) directory: DirectoryId,
}

type LogId = openraft::LogId<u64>;
type Vote = openraft::Vote<u64>;
type Membership = openraft::Membership<u64, Voter>;
type StoredMembership = openraft::StoredMembership<u64, Voter>;
type SnapshotMeta = openraft::SnapshotMeta<u64, Voter>;
type Entry = openraft::Entry<TypeConfig>;
type StorageError = openraft::StorageError<u64>;
type Metrics = openraft::RaftMetrics<u64, Voter>;
type AppendRequest = openraft::raft::AppendEntriesRequest<TypeConfig>;
type AppendResponse = openraft::raft::AppendEntriesResponse<u64>;
type VoteRequest = openraft::raft::VoteRequest<u64>;
type VoteResponse = openraft::raft::VoteResponse<u64>;
type InstallRequest = openraft::raft::InstallSnapshotRequest<TypeConfig>;

/// Whether a member leads. That it is known as the leader is not enough: one that was removed knows of nobody after it.
fn is_leader(metrics: &Metrics) -> bool {
    metrics.state == ServerState::Leader
}

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

/// Bytes in raft entries between two snapshots.
const SNAPSHOT_EVERY_BYTES: u64 = 32 << 20;
/// Bytes of a snapshot that are sent at a time.
const SNAPSHOT_CHUNK_BYTES: u64 = 1 << 20;
/// How long one of them may take.
const SNAPSHOT_CHUNK_MS: u64 = 5_000;
/// A leader that a majority has not answered for this many leases may have a successor: it does not take commands.
const LEASES_WITHOUT_QUORUM: u64 = 3;

/// A member that neither leads nor has heard a leader for so long has nothing new to tell.
const OUT_OF_TOUCH: Duration = Duration::from_secs(2);

/// Who forms the quorum, and how they reach each other.
#[derive(Debug, Clone)]
pub(crate) struct Electorate {
    /// The voters a fresh store begins with, by id: the same at all of them. Empty for who is to be added later.
    pub(crate) voters: BTreeMap<NodeId, Voter>,
    /// The way to them.
    pub(crate) peers: Peers,
    /// How long things take.
    pub(crate) timings: Timings,
}

/// The running quorum member.
#[derive(Clone)]
pub(crate) struct Quorum {
    raft: Raft<TypeConfig>,
    id: u64,
    /// Until the member has ended: its file is free for the next one then, whoever still holds a handle.
    store: Arc<Mutex<Option<Store>>>,
    bytes_since_snapshot: Arc<AtomicU64>,
    lease_ms: u64,
    /// It hands the lead over: it takes no commands any more.
    resigning: Arc<AtomicBool>,
    /// Held while this member changes the voters, which takes two steps.
    changing: Arc<tokio::sync::Mutex<()>>,
    heard: Arc<Heard>,
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
    /// It may have been applied, or be applied yet.
    Unknown,
}

impl Quorum {
    /// Opens the quorum in `store` and, as its only voter, takes the lead. Returns when the image
    /// shows all that was ever committed.
    pub(crate) async fn start_alone(
        id: NodeId,
        store: Store,
        spawner: &Spawner,
    ) -> Result<(Self, watch::Receiver<Arc<Image>>), StoreError> {
        let (machine, images) = StateMachine::open(store.clone())?;
        let config = Config {
            // Nobody listens to the only voter's heartbeats, and nobody competes with it.
            enable_heartbeat: false,
            heartbeat_interval: 1_000,
            election_timeout_min: 2_000,
            election_timeout_max: 4_000,
            ..config(&store)
        };
        let links = Links { peers: None, pause: Duration::from_millis(500) };
        let lease_ms = config.election_timeout_max;
        let quorum = Self::open(id, config, links, (store, machine), lease_ms, spawner).await?;
        quorum.take_the_lead().await?;
        Ok((quorum, images))
    }

    /// Opens the quorum in `store` as one of several members, or of one that may become several. Returns at once: who
    /// leads shows later. The state machine comes from [`Quorum::prepare`].
    pub(crate) async fn start_member(
        id: NodeId,
        (store, machine): (Store, StateMachine),
        electorate: &Electorate,
        spawner: &Spawner,
    ) -> Result<Self, StoreError> {
        let timings = electorate.timings;
        let config = Config {
            // Ours decides: see `elections`.
            enable_elect: false,
            heartbeat_interval: timings.heartbeat_ms,
            election_timeout_min: timings.vote_ms(),
            election_timeout_max: timings.lease_at_least_ms(),
            ..config(&store)
        };
        let pause = Duration::from_millis(timings.heartbeat_ms);
        let links = Links { peers: Some(electorate.peers.clone()), pause };
        let quorum = Self::open(id, config, links, (store, machine), timings.lease_ms, spawner).await?;
        let initialized = quorum.raft.is_initialized().await.map_err(|error| StoreError::Raft(error.to_string()))?;
        if !initialized && !electorate.voters.is_empty() {
            let mut voters = BTreeMap::new();
            for (id, voter) in &electorate.voters {
                voters.insert(raft_id(*id)?, voter.clone());
            }
            quorum.raft.initialize(voters).await.map_err(|error| StoreError::Raft(error.to_string()))?;
        }
        Ok(quorum)
    }

    /// The state machine on `store`, and its images. Blocks.
    pub(crate) fn prepare(store: &Store) -> Result<(StateMachine, watch::Receiver<Arc<Image>>), StoreError> {
        StateMachine::open(store.clone())
    }

    async fn open(
        id: NodeId,
        config: Config,
        links: Links,
        (store, machine): (Store, StateMachine),
        lease_ms: u64,
        spawner: &Spawner,
    ) -> Result<Self, StoreError> {
        let id = raft_id(id)?;
        let config = config.validate().map_err(|error| StoreError::Raft(error.to_string()))?;
        // openraft spawns its tasks where it is called: on the runtime of the acknowledged path.
        let log = store.clone();
        let raft = spawner
            .spawn_hot(async move { Raft::new(id, Arc::new(config), links, log, machine).await })
            .await
            .map_err(|error| StoreError::Raft(error.to_string()))?
            .map_err(|error| StoreError::Raft(error.to_string()))?;
        let store = Arc::new(Mutex::new(Some(store)));
        let (bytes_since_snapshot, resigning, changing, heard) = Default::default();
        Ok(Self { raft, id, store, bytes_since_snapshot, lease_ms, resigning, changing, heard })
    }

    async fn take_the_lead(&self) -> Result<(), StoreError> {
        let failed = |error: &dyn std::fmt::Display| StoreError::Raft(error.to_string());
        let initialized = self.raft.is_initialized().await.map_err(|error| failed(&error))?;
        if !initialized {
            let members = BTreeMap::from([(self.id, Voter::default())]);
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

    /// The current term if this member leads in it, as far as it knows: a leader that has not heard from a majority for a
    /// while does not know.
    pub(crate) fn term_if_leader(&self) -> Option<u64> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        if !is_leader(&metrics) || self.resigning.load(Ordering::Relaxed) {
            return None;
        }
        let alone = metrics.membership_config.membership().voter_ids().count() <= 1;
        let silent_ms = metrics.millis_since_quorum_ack.unwrap_or(u64::MAX);
        (alone || silent_ms <= LEASES_WITHOUT_QUORUM * self.lease_ms).then_some(metrics.current_term)
    }

    /// When this member heard the leader.
    pub(crate) fn heard(&self) -> &Arc<Heard> {
        &self.heard
    }

    /// Whether this member learns what the quorum decides: it leads, or has heard the leader within [`OUT_OF_TOUCH`]. One that
    /// was cut off does not, nor one that was removed or not added yet.
    pub(crate) fn is_in_touch(&self) -> bool {
        self.term_if_leader().is_some() || self.heard.within(OUT_OF_TOUCH.as_millis() as u64)
    }

    /// Whether this member belongs to a quorum, as a voter or not: it may have been removed since.
    pub(crate) fn belongs(&self) -> bool {
        self.membership().nodes().next().is_some()
    }

    /// Returns when this member belongs to a quorum, or has ended: whether it does.
    pub(crate) async fn joined(&self) -> bool {
        let mut metrics = self.raft.metrics();
        let joined = |metrics: &Metrics| metrics.membership_config.membership().nodes().next().is_some();
        metrics.wait_for(joined).await.is_ok()
    }

    /// Whether this member leads, and has applied an entry of its own term: its image shows all that was committed before.
    pub(crate) fn leads_for_sure(&self) -> bool {
        let term = self.term_if_leader();
        let applied = self.raft.metrics().borrow().last_applied;
        term.is_some() && applied.map(|applied| applied.leader_id.term) == term
    }

    /// Who leads, as far as this member knows. Not itself if it does not take commands.
    pub(crate) fn leader(&self) -> Option<NodeId> {
        let leader = self.raft.metrics().borrow().current_leader?;
        if leader == self.id && self.term_if_leader().is_none() {
            return None;
        }
        node_id(leader)
    }

    /// The voters and their addresses, as far as this member knows.
    pub(crate) fn voters(&self) -> Vec<(NodeId, String)> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        let membership = metrics.membership_config.membership();
        let voter = |id: u64| Some((node_id(id)?, membership.get_node(&id)?.address.clone()));
        membership.voter_ids().filter_map(voter).collect()
    }

    /// Returns when this member comes to know another leader than `leader`, and than the one it knows now.
    pub(crate) async fn another_leads(&self, leader: NodeId) {
        let mut metrics = self.raft.metrics();
        let known = |metrics: &Metrics| metrics.current_leader.and_then(node_id);
        let now = known(&metrics.borrow());
        let another = |metrics: &Metrics| known(metrics).is_some_and(|known| known != leader && Some(known) != now);
        if metrics.wait_for(another).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Returns a while after this member knows another leader.
    async fn another_leads_for_long(&self) {
        if let Some(id) = node_id(self.id) {
            self.another_leads(id).await;
        }
        tokio::time::sleep(Duration::from_millis(LEASES_WITHOUT_QUORUM * self.lease_ms)).await;
    }

    /// Returns when this member does not lead any more.
    pub(crate) async fn leads_no_more(&self) {
        // An end of the metrics is the end of the member.
        let mut metrics = self.raft.metrics();
        let _ = metrics.wait_for(|metrics| !is_leader(metrics)).await;
    }

    /// Has the quorum agree on `batch`, and applies it here.
    pub(crate) async fn propose(&self, batch: Batch) -> Result<(), ProposeError> {
        let bytes = batch.records.len() as u64 * 128;
        let writing = self.raft.client_write(batch);
        let written = tokio::select! {
            biased;
            // An error is said at once, or after the entry was written and another leader turned up, who may commit it.
            written = writing => written.map_err(|_| ProposeError::Unknown)?,
            // Nobody says what became of entries that a snapshot of another leader's has taken the place of.
            () = self.another_leads_for_long() => return Err(ProposeError::Unknown),
        };
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
        if self.resigning.load(Ordering::Relaxed) {
            return Err(SubmitError::NotLeader { leader: None });
        }
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
        self.store.lock().take();
    }

    /// Takes a snapshot now and returns when it is written.
    #[cfg(test)]
    pub(crate) async fn snapshot(&self) {
        let applied = self.raft.metrics().borrow().last_applied;
        self.raft.trigger().snapshot().await.expect("raft runs");
        let done = |metrics: &Metrics| metrics.snapshot >= applied;
        self.raft.wait(None).metrics(done, "snapshot").await.expect("raft runs");
    }

    /// Returns when entries behind a snapshot are gone.
    #[cfg(test)]
    pub(crate) async fn purged(&self) {
        let purged = |metrics: &Metrics| metrics.purged.is_some();
        self.raft.wait(None).metrics(purged, "purged").await.expect("raft runs");
    }
}

/// What all quorums have in common.
fn config(store: &Store) -> Config {
    let (snapshot_every, keep) = store.pace();
    Config {
        cluster_name: "firn".to_owned(),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(snapshot_every),
        max_in_snapshot_log_to_keep: keep,
        purge_batch_size: 64,
        snapshot_max_chunk_size: SNAPSHOT_CHUNK_BYTES,
        install_snapshot_timeout: SNAPSHOT_CHUNK_MS,
        ..Config::default()
    }
}

fn raft_id(id: NodeId) -> Result<u64, StoreError> {
    u64::try_from(id.0).map_err(|_| StoreError::InvalidNodeId(id))
}

fn node_id(id: u64) -> Option<NodeId> {
    i32::try_from(id).ok().map(NodeId)
}

fn forward_id(forward: &ForwardToLeader<u64, Voter>) -> Option<NodeId> {
    forward.leader_id.and_then(node_id)
}
