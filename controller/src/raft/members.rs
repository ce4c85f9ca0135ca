//! Changes of the voters. Each goes through a joint configuration, in which majorities of both sets are needed; one that
//! a leader left behind half done is finished by the next.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::error::{ChangeMembershipError, ClientWriteError, RaftError};
use proto::ids::{DirectoryId, NodeId};

use super::{Membership, Metrics, Quorum, Voter, node_id, raft_id};
use crate::view::{MemberView, QuorumView, VoterChange, VoterError};

/// How long a new voter has to catch up.
const CATCH_UP: Duration = Duration::from_secs(60);
/// Entries it may be behind then: they come with the next few heartbeats.
const NEAR: u64 = 64;

impl Quorum {
    /// The quorum as this member sees it.
    pub(crate) fn view(&self) -> QuorumView {
        let metrics = self.raft.metrics().borrow().clone();
        let membership = metrics.membership_config.membership();
        let log_end = |id: u64| {
            if id == self.id {
                return metrics.last_log_index;
            }
            let known = metrics.replication.as_ref()?.get(&id)?;
            known.map(|log_id| log_id.index)
        };
        let member = |id: u64| {
            let node = membership.get_node(&id)?;
            let (directory, address) = (node.directory, node.address.clone());
            Some(MemberView { id: node_id(id)?, directory, address, log_end: log_end(id) })
        };
        QuorumView {
            leader: self.leader(),
            epoch: metrics.current_term,
            committed: metrics.last_applied.map(|applied| applied.index),
            voters: membership.voter_ids().filter_map(member).collect(),
            observers: membership.learner_ids().filter_map(member).collect(),
        }
    }

    /// Changes the voters, as their leader.
    pub(crate) async fn change_voters(&self, change: VoterChange) -> Result<(), VoterError> {
        if self.term_if_leader().is_none() {
            return Err(VoterError::NoLeader);
        }
        let _one_at_a_time = self.changing.try_lock().map_err(|_| VoterError::InProgress)?;
        let membership = self.membership();
        let voters: BTreeSet<u64> = membership.voter_ids().collect();
        match change {
            VoterChange::Add { id, directory, address } => {
                let id = raft_id(id).map_err(|_| VoterError::NotFound)?;
                if voters.contains(&id) {
                    return Err(VoterError::Duplicate);
                }
                if membership.get_node(&id).is_some() {
                    // It may have come back with an empty disk: what it had as an observer must not count.
                    self.change(ChangeMembers::RemoveNodes(BTreeSet::from([id])), false).await?;
                }
                let node = Voter { address, directory };
                self.change(ChangeMembers::SetNodes(BTreeMap::from([(id, node)])), true).await?;
                self.caught_up(id).await?;
                self.change(ChangeMembers::AddVoterIds(BTreeSet::from([id])), true).await
            }
            VoterChange::Remove { id, directory } => {
                let id = self.removable(id, directory)?;
                self.change(ChangeMembers::RemoveVoters(BTreeSet::from([id])), false).await
            }
            VoterChange::Move { id, directory, address } => {
                let (id, known) = voter(&membership, id, directory)?;
                let directory = if directory == DirectoryId::UNASSIGNED { known.directory } else { directory };
                let node = Voter { address, directory };
                self.change(ChangeMembers::SetNodes(BTreeMap::from([(id, node)])), true).await
            }
        }
    }

    /// The id of a voter that can be removed.
    pub(crate) fn removable(&self, id: NodeId, directory: DirectoryId) -> Result<u64, VoterError> {
        let membership = self.membership();
        let (id, _) = voter(&membership, id, directory)?;
        if membership.voter_ids().count() == 1 { Err(VoterError::LastVoter) } else { Ok(id) }
    }

    /// Finishes a change that another leader left half done, or whose caller went away; tells the others where this member
    /// listens, if they think elsewhere: it was the only voter, or it was moved.
    pub(crate) async fn tidy_up(&self, listens_at: &str) {
        // One that is being carried out would fail if its second step were done by somebody else.
        let Ok(_own) = self.changing.try_lock() else { return };
        let membership = self.membership();
        if let [_, .., target] = membership.get_joint_config().as_slice() {
            tracing::info!(voters = ?target, "finishing a change of the quorum's voters");
            let _ = self.change(ChangeMembers::ReplaceAllVoters(target.clone()), false).await;
        } else if let Some(node) = membership.get_node(&self.id)
            && !listens_at.is_empty()
            && node.address != listens_at
        {
            let node = Voter { address: listens_at.to_owned(), directory: node.directory };
            let _ = self.change(ChangeMembers::SetNodes(BTreeMap::from([(self.id, node)])), true).await;
        }
    }

    /// Whether there is something for [`Quorum::tidy_up`].
    pub(super) fn is_untidy(&self, listens_at: &str) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        let membership = metrics.membership_config.membership();
        let elsewhere = membership.get_node(&self.id).is_some_and(|node| node.address != listens_at);
        membership.get_joint_config().len() > 1 || (elsewhere && !listens_at.is_empty())
    }

    /// Hands the lead over as well as can be: stops to lead, waits until its lease has run out, and calls the voter that
    /// is closest behind. `call` asks a voter to stand for election.
    pub(crate) async fn hand_over<F: Future<Output = ()>>(&self, call: impl FnOnce(NodeId, String) -> F) {
        if self.term_if_leader().is_none() {
            return;
        }
        let view = self.view();
        let successors = view.voters.into_iter().filter(|voter| Some(voter.id) != node_id(self.id));
        let Some(successor) = successors.max_by_key(|voter| (voter.log_end, std::cmp::Reverse(voter.id))) else {
            return;
        };
        self.resigning.store(true, Ordering::Relaxed);
        self.raft.runtime_config().heartbeat(false);
        tokio::time::sleep(Duration::from_millis(self.lease_ms)).await;
        call(successor.id, successor.address).await;
    }

    /// Another leads, or will: this member may lead again later.
    pub(super) fn has_resigned(&self) {
        if self.resigning.swap(false, Ordering::Relaxed) {
            self.raft.runtime_config().heartbeat(true);
        }
    }

    pub(super) fn membership(&self) -> Membership {
        self.raft.metrics().borrow().membership_config.membership().clone()
    }

    async fn change(&self, change: ChangeMembers<u64, Voter>, retain: bool) -> Result<(), VoterError> {
        match self.raft.change_membership(change, retain).await {
            Ok(_) => Ok(()),
            Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(error))) => Err(match error {
                ChangeMembershipError::InProgress(_) => VoterError::InProgress,
                ChangeMembershipError::EmptyMembership(_) => VoterError::LastVoter,
                ChangeMembershipError::LearnerNotFound(_) => VoterError::NotFound,
            }),
            // The entry may have been written, and another leader may commit it.
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_)) | RaftError::Fatal(_)) => {
                Err(VoterError::Unknown)
            }
        }
    }

    /// Waits until `id` has about all there is.
    async fn caught_up(&self, id: u64) -> Result<(), VoterError> {
        self.raft
            .wait(Some(CATCH_UP))
            .metrics(|metrics| is_near(metrics, id), "the new voter has caught up")
            .await
            .map(drop)
            .map_err(|_| VoterError::Behind)
    }
}

/// A voter by its id and, if that is given and known, its disk.
fn voter(membership: &Membership, id: NodeId, directory: DirectoryId) -> Result<(u64, Voter), VoterError> {
    let found = raft_id(id).ok().filter(|id| membership.voter_ids().any(|voter| voter == *id));
    let id = found.ok_or(VoterError::NotFound)?;
    let known = membership.get_node(&id).ok_or(VoterError::NotFound)?;
    let unassigned = DirectoryId::UNASSIGNED;
    let same = directory == unassigned || known.directory == unassigned || directory == known.directory;
    if same { Ok((id, known.clone())) } else { Err(VoterError::NotFound) }
}

/// Whether a member has nearly all that the leader, whose metrics these are, has.
fn is_near(metrics: &Metrics, id: u64) -> bool {
    let known = metrics.replication.as_ref().and_then(|replication| replication.get(&id).copied().flatten());
    known.is_some_and(|known| known.index + NEAR >= metrics.last_log_index.unwrap_or(0))
}
