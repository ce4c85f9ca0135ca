//! The quorum as it is shown to operators, and how its voters are changed.

use proto::ids::{DirectoryId, NodeId};
use proto::{durable_enum, durable_struct};

use crate::wire::durable_union;

/// The quorum as one member sees it (`DescribeQuorum`, metrics, `firn cluster status`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct QuorumView {
    /// Who leads, if that member knows.
    pub leader: Option<NodeId>,
    /// Raft's term: goes up with each election.
    pub epoch: u64,
    /// Index of the last raft entry that this member knows to be committed and has applied, if there is one.
    pub committed: Option<u64>,
    /// Who votes, by id.
    pub voters: Vec<MemberView>,
    /// Who only listens: members that are about to become voters.
    pub observers: Vec<MemberView>,
}

/// One member of the quorum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberView {
    /// Its node id.
    pub id: NodeId,
    /// Its metadata directory; unassigned if that is not known yet.
    pub directory: DirectoryId,
    /// `host:port` of its control listener; empty for the only voter of a quorum that has none.
    pub address: String,
    /// Index of the last raft entry it is known to have. Only the leader knows it of others.
    pub log_end: Option<u64>,
}

/// A change of the voters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VoterChange {
    /// A member that runs and has no vote gets one, when it has caught up.
    Add {
        /// Its node id.
        id: NodeId,
        /// Its metadata directory.
        directory: DirectoryId,
        /// `host:port` of its control listener.
        address: String,
    },
    /// A voter loses its vote, whether it is there or not.
    Remove {
        /// Its node id.
        id: NodeId,
        /// Its metadata directory; unassigned to remove it whichever it has.
        directory: DirectoryId,
    },
    /// A voter listens elsewhere from here on.
    Move {
        /// Its node id.
        id: NodeId,
        /// Its metadata directory; unassigned to move it whichever it has.
        directory: DirectoryId,
        /// `host:port` of its control listener.
        address: String,
    },
}

/// Why the voters were not changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VoterError {
    /// DUPLICATE_VOTER
    #[error("the node is a voter already")]
    Duplicate,
    /// VOTER_NOT_FOUND
    #[error("there is no such voter")]
    NotFound,
    /// INVALID_REQUEST: nobody would be left to vote.
    #[error("the last voter cannot be removed")]
    LastVoter,
    /// REQUEST_TIMED_OUT: another change is under way.
    #[error("another change of the voters is under way")]
    InProgress,
    /// REQUEST_TIMED_OUT: it has not caught up, and stays an observer.
    #[error("the new voter has not caught up with the metadata yet; try again")]
    Behind,
    /// NOT_CONTROLLER: no leader was found in time. Definite.
    #[error("no leader of the quorum is known")]
    NoLeader,
    /// REQUEST_TIMED_OUT: it may be done, or be done yet.
    #[error("the outcome of the change is unknown")]
    Unknown,
}

durable_struct!(
    QuorumView { leader, epoch, committed, voters, observers }
    MemberView { id, directory, address, log_end }
);
durable_union!(VoterChange {
    1 = Add { id, directory, address },
    2 = Remove { id, directory },
    3 = Move { id, directory, address },
});
durable_enum!(VoterError {
    Duplicate = 1,
    NotFound = 2,
    LastVoter = 3,
    InProgress = 4,
    Behind = 5,
    NoLeader = 6,
    Unknown = 7,
});
