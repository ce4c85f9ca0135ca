//! What other members ask of this one's raft, body to body.

use openraft::error::{InstallSnapshotError, RaftError};
use openraft::storage::RaftLogStorage;
use proto::metadata::DecodeError;

use super::rpc::{self, Installed};
use super::{AppendResponse, Heard, LogId, Quorum};
use crate::wire::calls::{Canvass, LogEnd, Refused};

fn malformed(error: &DecodeError) -> Refused {
    Refused::Malformed(error.to_string())
}

fn ended(error: &dyn std::fmt::Display) -> Refused {
    Refused::Cannot(format!("its quorum member has ended: {error}"))
}

/// A log id as it is said in a call.
pub(super) fn log_end(log_id: Option<LogId>) -> LogEnd {
    log_id.map(|log_id| (log_id.leader_id.term, (log_id.leader_id.node_id, log_id.index)))
}

impl Quorum {
    /// Entries, or a heartbeat.
    pub(crate) async fn append(&self, body: &[u8], heard: &Heard) -> Result<Vec<u8>, Refused> {
        let request = rpc::take_append(body).map_err(|error| malformed(&error))?;
        let leader = request.vote.leader_id.node_id;
        let entries = !request.entries.is_empty();
        if entries {
            // Writing them may take longer than the silence that is allowed.
            self.hear_current(leader, request.vote, heard);
        }
        let response = self.raft.append_entries(request).await.map_err(|error| ended(&error))?;
        if !matches!(response, AppendResponse::HigherVote(_)) {
            heard.from(leader);
        }
        Ok(rpc::put_append_response(&response))
    }

    /// Hears the leader if it is the one this member knows already.
    fn hear_current(&self, leader: u64, vote: super::Vote, heard: &Heard) {
        if self.raft.metrics().borrow().vote == vote {
            heard.from(leader);
        }
    }

    /// A request for a vote.
    pub(crate) async fn vote(&self, body: &[u8]) -> Result<Vec<u8>, Refused> {
        let request = rpc::take_vote_request(body).map_err(|error| malformed(&error))?;
        let asked = request.vote.leader_id;
        let response = self.raft.vote(request).await.map_err(|error| ended(&error))?;
        if response.vote_granted {
            tracing::debug!(term = asked.term, candidate = asked.node_id, "this voter gives its vote");
        }
        Ok(rpc::put_vote_response(&response))
    }

    /// A chunk of a snapshot.
    pub(crate) async fn install(&self, body: &[u8], heard: &Heard) -> Result<Vec<u8>, Refused> {
        let request = rpc::take_install(body).map_err(|error| malformed(&error))?;
        let (leader, vote) = (request.vote.leader_id.node_id, request.vote);
        self.hear_current(leader, vote, heard);
        let installed = match self.raft.install_snapshot(request).await {
            Ok(response) => {
                if response.vote == vote {
                    heard.from(leader);
                }
                Installed::Taken(response.vote)
            }
            Err(RaftError::APIError(InstallSnapshotError::SnapshotMismatch(mismatch))) => Installed::Mismatch(mismatch),
            Err(RaftError::Fatal(error)) => return Err(ended(&error)),
        };
        Ok(rpc::put_installed(&installed))
    }

    /// Whether this member would vote for the candidate: it has not heard a leader within its lease, and has no longer
    /// log. The term does not matter: a candidate whose term is too low learns the right one by standing for election.
    pub(crate) async fn would_vote(&self, canvass: &Canvass, heard: &Heard) -> bool {
        if heard.within(self.lease_ms) || self.term_if_leader().is_some() {
            return false;
        }
        self.last_log().await.is_some_and(|last| canvass.last >= last)
    }

    /// Where this member's log ends, as far as it is durable. None if that cannot be read.
    pub(super) async fn last_log(&self) -> Option<LogEnd> {
        let mut store = self.store.lock().clone()?;
        store.get_log_state().await.ok().map(|state| log_end(state.last_log_id))
    }
}
