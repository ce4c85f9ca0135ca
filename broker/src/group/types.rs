//! What one asks of a group and what it answers, apart from how it looks on the wire.

use std::collections::BTreeMap;

use bytes::Bytes;
use proto::errors::ErrorCode;
use proto::ids::{LeaderEpoch, Millis, Offset};

/// Why a group does not do what it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// The group id is empty where it may not be.
    #[error("the group id is not valid")]
    InvalidGroupId,
    /// The session timeout is outside what the broker allows.
    #[error("the session timeout is out of bounds")]
    InvalidSessionTimeout,
    /// Join again with the member id that came with this (KIP-394).
    #[error("a member id is required")]
    MemberIdRequired,
    /// The group does not know the member.
    #[error("unknown member")]
    UnknownMember,
    /// Another process took over the static member (KIP-345).
    #[error("the static member was taken over")]
    FencedInstance,
    /// The member is in another generation than the group.
    #[error("illegal generation")]
    IllegalGeneration,
    /// The group rebalances: join again.
    #[error("a rebalance is in progress")]
    RebalanceInProgress,
    /// No protocol that all members could agree on, or another one than agreed on.
    #[error("inconsistent group protocol")]
    InconsistentProtocol,
    /// `group.max.size`
    #[error("the group is full")]
    MaxSizeReached,
    /// There is no such group.
    #[error("no such group")]
    NotFound,
    /// The group has members.
    #[error("the group is not empty")]
    NotEmpty,
    /// A member reads the topic.
    #[error("the group is subscribed to the topic")]
    SubscribedToTopic,
    /// `offset.metadata.max.bytes`
    #[error("the metadata of an offset is too large")]
    OffsetMetadataTooLarge,
    /// Another broker coordinates the group.
    #[error("not the coordinator")]
    NotCoordinator,
    /// The group's records are still being read.
    #[error("the coordinator is loading")]
    LoadInProgress,
    /// What should have been written down could not be, or it is not known whether it was.
    #[error("the coordinator is not available")]
    NotAvailable,
    /// What should have been written down never can be.
    #[error("the coordinator cannot store this")]
    Unstorable,
    /// What should have been written down at once is more than `message.max.bytes`.
    #[error("this is larger than the coordinator may store at once")]
    TooLarge,
}

impl GroupError {
    /// Kafka's code.
    pub const fn code(self) -> ErrorCode {
        match self {
            Self::InvalidGroupId => ErrorCode::InvalidGroupId,
            Self::InvalidSessionTimeout => ErrorCode::InvalidSessionTimeout,
            Self::MemberIdRequired => ErrorCode::MemberIdRequired,
            Self::UnknownMember => ErrorCode::UnknownMemberId,
            Self::FencedInstance => ErrorCode::FencedInstanceId,
            Self::IllegalGeneration => ErrorCode::IllegalGeneration,
            Self::RebalanceInProgress => ErrorCode::RebalanceInProgress,
            Self::InconsistentProtocol => ErrorCode::InconsistentGroupProtocol,
            Self::MaxSizeReached => ErrorCode::GroupMaxSizeReached,
            Self::NotFound => ErrorCode::GroupIdNotFound,
            Self::NotEmpty => ErrorCode::NonEmptyGroup,
            Self::SubscribedToTopic => ErrorCode::GroupSubscribedToTopic,
            Self::OffsetMetadataTooLarge => ErrorCode::OffsetMetadataTooLarge,
            Self::NotCoordinator => ErrorCode::NotCoordinator,
            Self::LoadInProgress => ErrorCode::CoordinatorLoadInProgress,
            Self::NotAvailable => ErrorCode::CoordinatorNotAvailable,
            // Of the whole group; for offsets there is a code of its own.
            Self::Unstorable | Self::TooLarge => ErrorCode::UnknownServerError,
        }
    }
}

/// A member, as it names itself in each request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MemberRef {
    /// Empty before the first join.
    pub member_id: String,
    /// Of static members (KIP-345).
    pub instance_id: Option<String>,
}

/// JoinGroup.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Join {
    /// Who joins.
    pub member: MemberRef,
    /// As in the request's header.
    pub client_id: String,
    /// Address of the client, as Kafka shows it.
    pub client_host: String,
    /// How long the group waits for this member in a rebalance.
    pub rebalance_timeout_ms: i32,
    /// How long the member may be silent.
    pub session_timeout_ms: i32,
    /// What kind of group, `consumer` or `connect`.
    pub protocol_type: String,
    /// Protocols by preference, with the member's metadata for each.
    pub protocols: Vec<(String, Bytes)>,
    /// Whether a member without an id is to be told one and to come back with it (version 4, KIP-394).
    pub requires_member_id: bool,
    /// Whether the leader may be told to skip the assignment (version 9, KIP-814).
    pub can_skip_assignment: bool,
}

/// The answer to a join.
pub type JoinAnswer = Result<Joined, JoinRefused>;

/// A member of the next generation.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Joined {
    /// The generation.
    pub generation: i32,
    /// What kind of group it is.
    pub protocol_type: Option<String>,
    /// The protocol agreed on.
    pub protocol: Option<String>,
    /// Who makes the assignment.
    pub leader: String,
    /// Whether the leader need not make one.
    pub skip_assignment: bool,
    /// The member's id.
    pub member_id: String,
    /// For the leader: all members with their metadata for the protocol.
    pub members: Vec<JoinedMember>,
}

/// A member as its leader sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JoinedMember {
    /// Who.
    pub member: MemberRef,
    /// Metadata for the protocol agreed on.
    pub metadata: Bytes,
}

/// Why a member did not join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinRefused {
    /// Why.
    pub error: GroupError,
    /// The id to come back with, with [`GroupError::MemberIdRequired`]; otherwise as it came.
    pub member_id: String,
}

/// SyncGroup.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sync {
    /// Who.
    pub member: MemberRef,
    /// Generation it joined.
    pub generation: i32,
    /// What kind of group it takes it for (version 5, KIP-559).
    pub protocol_type: Option<String>,
    /// What protocol it takes to be agreed on (version 5, KIP-559).
    pub protocol: Option<String>,
    /// From the leader: what each member gets.
    pub assignments: BTreeMap<String, Bytes>,
}

/// The answer to a sync.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Synced {
    /// What kind of group it is.
    pub protocol_type: Option<String>,
    /// The protocol agreed on.
    pub protocol: Option<String>,
    /// What the member gets.
    pub assignment: Bytes,
}

/// Heartbeat.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Heartbeat {
    /// Who.
    pub member: MemberRef,
    /// Generation it is in.
    pub generation: i32,
}

/// The answer to LeaveGroup, in the order asked.
pub type LeaveAnswer = Result<Vec<(MemberRef, Result<(), GroupError>)>, GroupError>;

/// A partition by its topic's name, as groups know it.
pub type NamedPartition = (String, i32);

/// An offset that a group has committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedOffset {
    /// Next offset to be read.
    pub offset: Offset,
    /// Leader epoch of the last record read, -1 if not told.
    pub leader_epoch: LeaderEpoch,
    /// Whatever the client wants to keep with it.
    pub metadata: String,
    /// When it was committed, Unix ms.
    pub commit_timestamp: Millis,
    /// When it expires, if the client said so (`retention_time_ms` up to version 4).
    pub expire_timestamp: Option<Millis>,
}

/// OffsetCommit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Commit {
    /// Who; empty for those who manage their partitions themselves.
    pub member: MemberRef,
    /// Generation it is in, negative for those who manage their partitions themselves.
    pub generation: i32,
    /// How long to keep them, if the client said so.
    pub retention_ms: Option<Millis>,
    /// What to commit.
    pub offsets: Vec<(NamedPartition, OffsetToCommit)>,
}

/// One offset of a commit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OffsetToCommit {
    /// Next offset to be read.
    pub offset: Offset,
    /// Leader epoch of the last record read, -1 if not told.
    pub leader_epoch: LeaderEpoch,
    /// Whatever the client wants to keep with it.
    pub metadata: String,
}

/// The answer for each partition, in the order asked.
pub type PerPartition = Vec<(NamedPartition, Result<(), GroupError>)>;

/// OffsetDelete: the whole of it may be refused, or some of it.
pub type DeleteOffsetsAnswer = Result<PerPartition, GroupError>;

/// States of a group, by Kafka's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum GroupState {
    /// No members; maybe offsets.
    Empty,
    /// Members join.
    PreparingRebalance,
    /// The leader makes the assignment.
    CompletingRebalance,
    /// Members have their assignments.
    Stable,
    /// Gone.
    Dead,
}

impl GroupState {
    /// Kafka's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
            Self::Dead => "Dead",
        }
    }
}

/// A group in a list of groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupListing {
    /// Its id.
    pub group_id: String,
    /// What kind of group, empty if it only has offsets.
    pub protocol_type: String,
    /// Its state.
    pub state: GroupState,
}

/// A group in detail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupDescription {
    /// Its id.
    pub group_id: String,
    /// Its state.
    pub state: GroupState,
    /// What kind of group, empty if it only has offsets.
    pub protocol_type: String,
    /// The protocol agreed on; empty unless stable.
    pub protocol: String,
    /// Its members.
    pub members: Vec<MemberDescription>,
}

/// A member in detail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberDescription {
    /// Who.
    pub member: MemberRef,
    /// As in its requests' headers.
    pub client_id: String,
    /// Address of the client.
    pub client_host: String,
    /// Metadata for the protocol agreed on; empty unless stable.
    pub metadata: Bytes,
    /// What it got; empty unless stable.
    pub assignment: Bytes,
}

/// Which offsets one wants to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OffsetsWanted {
    /// All there are.
    All,
    /// Those of these partitions.
    Of(Vec<NamedPartition>),
}

/// Offsets in the order asked, none where nothing is committed.
pub type FetchedOffsets = Vec<(NamedPartition, Option<CommittedOffset>)>;
