//! Raft's way to the other voters: its questions become calls of the control protocol.

use std::time::Duration;

use bytes::Bytes;
use openraft::error::{InstallSnapshotError, NetworkError, RPCError, RaftError, RemoteError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::InstallSnapshotResponse;
use proto::metadata::DecodeError;

use super::rpc::{self, Installed};
use super::{AppendRequest, AppendResponse, InstallRequest, TypeConfig, VoteRequest, VoteResponse, Voter, node_id};
use crate::peers::{CallError, Peers};
use crate::wire::calls::Kind;

/// Who reaches nobody: the only voter of a quorum that has no control listener. It never asks.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("voter {target} cannot be reached: this quorum has one member")]
struct OnlyOneVoter {
    target: u64,
}

/// Makes links to voters.
#[derive(Debug, Clone)]
pub(super) struct Links {
    /// None in a quorum that has one member and no control listener.
    pub(super) peers: Option<Peers>,
    /// How long a voter is left alone that could not be reached.
    pub(super) pause: Duration,
}

/// The way to one voter. Cheap: connections are the transport's.
#[derive(Debug, Clone)]
pub(super) struct Link {
    peers: Option<Peers>,
    target: u64,
    address: String,
    pause: Duration,
    /// Whether the last attempt found nobody: said once, not with every heartbeat.
    is_lost: bool,
}

impl RaftNetworkFactory<TypeConfig> for Links {
    type Network = Link;

    async fn new_client(&mut self, target: u64, node: &Voter) -> Link {
        Link { peers: self.peers.clone(), target, address: node.address.clone(), pause: self.pause, is_lost: false }
    }
}

impl Link {
    async fn ask<T, E: std::error::Error>(
        &mut self,
        kind: Kind,
        body: Vec<u8>,
        within: Duration,
        take: impl FnOnce(&[u8]) -> Result<T, DecodeError>,
    ) -> Result<T, RPCError<u64, Voter, E>> {
        let Some(peers) = &self.peers else {
            return Err(RPCError::Unreachable(Unreachable::new(&OnlyOneVoter { target: self.target })));
        };
        let answer = peers.ask(&self.address, node_id(self.target), (kind, Bytes::from(body)), within).await;
        self.is_lost = self.say(answer.as_ref().err());
        match answer {
            Ok(answer) => take(&answer.body).map_err(|error| RPCError::Network(NetworkError::new(&error))),
            // Both would go on as they are: leave it alone for a while.
            Err(error @ (CallError::Unreachable(_) | CallError::Refused(_))) => {
                Err(RPCError::Unreachable(Unreachable::new(&error)))
            }
            Err(error @ CallError::Unknown(_)) => Err(RPCError::Network(NetworkError::new(&error))),
        }
    }

    /// Tells of a voter that is lost or found again. Answers whether it is lost now.
    fn say(&self, error: Option<&CallError>) -> bool {
        let Self { target: voter, address, .. } = self;
        match (self.is_lost, error) {
            (false, Some(error)) => tracing::warn!(voter, %address, %error, "a voter of the quorum does not answer"),
            (true, None) => tracing::info!(voter, %address, "a voter of the quorum answers again"),
            (false, None) | (true, Some(_)) => {}
        }
        error.is_some()
    }
}

impl RaftNetwork<TypeConfig> for Link {
    async fn append_entries(
        &mut self,
        request: AppendRequest,
        option: RPCOption,
    ) -> Result<AppendResponse, RPCError<u64, Voter, RaftError<u64>>> {
        self.ask(Kind::Append, rpc::put_append(&request), option.hard_ttl(), rpc::take_append_response).await
    }

    async fn install_snapshot(
        &mut self,
        request: InstallRequest,
        option: RPCOption,
    ) -> Result<InstallSnapshotResponse<u64>, RPCError<u64, Voter, RaftError<u64, InstallSnapshotError>>> {
        let body = rpc::put_install(&request);
        match self.ask(Kind::Install, body, option.hard_ttl(), rpc::take_installed).await? {
            Installed::Taken(vote) => Ok(InstallSnapshotResponse { vote }),
            Installed::Mismatch(mismatch) => {
                let error = RaftError::APIError(InstallSnapshotError::SnapshotMismatch(mismatch));
                Err(RPCError::RemoteError(RemoteError::new(self.target, error)))
            }
        }
    }

    async fn vote(
        &mut self,
        request: VoteRequest,
        option: RPCOption,
    ) -> Result<VoteResponse, RPCError<u64, Voter, RaftError<u64>>> {
        self.ask(Kind::Vote, rpc::put_vote_request(&request), option.hard_ttl(), rpc::take_vote_response).await
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(self.pause))
    }
}
