//! Why the controller does not do what it is asked.

use std::sync::Arc;

use proto::ids::{DirectoryId, LeaderEpoch, NodeId};
use proto::metadata::TierPointer;

/// Why the controller did not do what it was asked. The broker maps each to one of Kafka's codes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// INVALID_TOPIC_EXCEPTION
    #[error("{0}")]
    InvalidTopicName(String),
    /// TOPIC_ALREADY_EXISTS
    #[error("Topic '{0}' already exists.")]
    TopicExists(String),
    /// INVALID_TOPIC_EXCEPTION: differs from another topic in '.' and '_' only.
    #[error("Topic '{name}' collides with existing topic: {existing}")]
    TopicCollides {
        /// Name asked for.
        name: String,
        /// Name of the other topic.
        existing: String,
    },
    /// UNKNOWN_TOPIC_OR_PARTITION
    #[error("This server does not host this topic-partition.")]
    UnknownTopic,
    /// UNKNOWN_TOPIC_ID
    #[error("This server does not host this topic ID.")]
    UnknownTopicId,
    /// INVALID_PARTITIONS
    #[error("{0}")]
    InvalidPartitions(String),
    /// INVALID_REPLICATION_FACTOR
    #[error("{0}")]
    InvalidReplicationFactor(String),
    /// INVALID_REPLICA_ASSIGNMENT
    #[error("{0}")]
    InvalidReplicaAssignment(String),
    /// INVALID_REQUEST
    #[error("{0}")]
    InvalidRequest(String),
    /// INVALID_CONFIG
    #[error("{0}")]
    InvalidConfig(String),
    /// POLICY_VIOLATION: a bound of Firn itself.
    #[error("{0}")]
    TooMany(String),
    /// BROKER_ID_NOT_REGISTERED
    #[error("broker {0} is not registered")]
    BrokerNotRegistered(NodeId),
    /// STALE_BROKER_EPOCH
    #[error("broker epoch {asked} is stale, the broker is registered with {current}")]
    StaleBrokerEpoch {
        /// Epoch given.
        asked: i64,
        /// Epoch of the registration.
        current: i64,
    },
    /// FENCED_LEADER_EPOCH
    #[error("leader epoch {asked} is fenced, the partition is at {current}")]
    FencedLeaderEpoch {
        /// Epoch given.
        asked: LeaderEpoch,
        /// Epoch of the partition.
        current: LeaderEpoch,
    },
    /// INVALID_UPDATE_VERSION
    #[error("the partition's state has changed since")]
    InvalidUpdateVersion,
    /// INELIGIBLE_REPLICA
    #[error("replica {0} may not join the in-sync replicas")]
    IneligibleReplica(NodeId),
    /// ELECTION_NOT_NEEDED
    #[error("The leader is already the right one.")]
    ElectionNotNeeded,
    /// PREFERRED_LEADER_NOT_AVAILABLE
    #[error("The preferred leader is not available.")]
    PreferredLeaderNotAvailable,
    /// ELIGIBLE_LEADERS_NOT_AVAILABLE
    #[error("No eligible leader is available.")]
    EligibleLeadersNotAvailable,
    /// DUPLICATE_BROKER_REGISTRATION
    #[error("node id {id} is taken by a running broker{}", at(address))]
    DuplicateBroker {
        /// The id asked for.
        id: NodeId,
        /// Where the broker that has it is reached, `host:port`, if it told.
        address: Option<String>,
    },
    /// UNSUPPORTED_VERSION
    #[error("{0}")]
    UnsupportedVersion(String),
    /// FEATURE_UPDATE_FAILED
    #[error("{0}")]
    FeatureUpdateFailed(String),
    /// NO_REASSIGNMENT_IN_PROGRESS
    #[error("No reassignment is in progress.")]
    NoReassignmentInProgress,
    /// NOT_CONTROLLER: who asks knows more than the image; it is to ask again.
    #[error("leader epoch {asked} is newer than the partition's, {current}")]
    UnknownLeaderEpoch {
        /// Epoch given.
        asked: LeaderEpoch,
        /// Epoch of the partition.
        current: LeaderEpoch,
    },
    /// INVALID_REQUEST
    #[error("the duty was asked for under epoch {asked}, it is at {current}")]
    StaleDuty {
        /// Epoch given.
        asked: i32,
        /// Epoch of the duty.
        current: i32,
    },
    /// DUPLICATE_VOTER
    #[error("voter {id} is bound to the metadata directory {known}: remove it and add it again if that disk is lost")]
    VoterBound {
        /// The voter.
        id: NodeId,
        /// The directory it was seen with first.
        known: DirectoryId,
    },
}

fn at(address: &Option<String>) -> String {
    address.as_ref().map(|address| format!(" at {address}")).unwrap_or_default()
}

/// Why a pointer was not moved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TierRefusal {
    /// The pointer has moved since the change was planned. It now is:
    #[error("the tier pointer has moved to another generation")]
    Stale(Option<Arc<TierPointer>>),
    /// The committer does not lead the partition any more (invariant FENCED).
    #[error("leader epoch {asked} is fenced, the partition is at {current}")]
    Fenced {
        /// Epoch of the committer.
        asked: LeaderEpoch,
        /// Epoch of the partition.
        current: LeaderEpoch,
    },
    /// The topic does not exist any more.
    #[error("the partition does not exist")]
    Gone,
    /// The pointer breaks an invariant: a defect of the committer.
    #[error("the tier pointer is not valid: {0}")]
    Invalid(&'static str),
}
