//! DescribeQuorum (KIP-595, KIP-853), AddRaftVoter and RemoveRaftVoter (KIP-853): the metadata quorum, in Kafka's terms.
//!
//! Offsets are those of entries of the quorum's own log, which Kafka's metadata topic stands for here.

use super::Context;
use controller::{MemberView, VoterChange, VoterError};
use proto::errors::ErrorCode;
use proto::ids::{DirectoryId, NodeId};
use proto::messages::describe_quorum_response::{Listener, Node, PartitionData, ReplicaState, TopicData};
use proto::messages::{
    AddRaftVoterRequest, AddRaftVoterResponse, DescribeQuorumRequest, DescribeQuorumResponse, RemoveRaftVoterRequest,
    RemoveRaftVoterResponse,
};
use proto::metadata::{Image, host_and_port};
use std::time::Duration;

/// The only partition that Kafka's tools ask about.
const METADATA_TOPIC: &str = "__cluster_metadata";
/// How long a leader is looked for before this node says what it knows by itself.
const FIND_LEADER: Duration = Duration::from_secs(2);
/// How long a change of voters may take where the client does not say.
const CHANGE: Duration = Duration::from_secs(30);
/// What Kafka says of a time that is not known. The leader, which has all there is at any time, is the only one of whom it is: raft
/// here is not fetched, and how far others have come says nothing of when that was.
const UNKNOWN_TIME: i64 = -1;

/// Answers who leads the quorum, who votes, and how far each has come.
pub(super) async fn describe(context: &Context<'_>, request: DescribeQuorumRequest) -> DescribeQuorumResponse {
    let asked = |topic: &proto::messages::describe_quorum_request::TopicData| {
        topic.topic_name == METADATA_TOPIC && topic.partitions.iter().all(|partition| partition.partition_index == 0)
    };
    if !request.topics.iter().all(asked) {
        return DescribeQuorumResponse {
            error_code: ErrorCode::InvalidRequest.code(),
            error_message: Some(format!("the quorum has one partition, {METADATA_TOPIC}-0")),
            ..Default::default()
        };
    }
    let view = context.services.controller.describe_quorum(FIND_LEADER).await;
    let Some(leader) = view.leader else {
        return DescribeQuorumResponse {
            error_code: ErrorCode::NotLeaderOrFollower.code(),
            error_message: Some("nobody leads the quorum now".to_owned()),
            ..Default::default()
        };
    };
    let now = context.services.clock.now_ms();
    let committed = view.committed.map_or(0, offset_after);
    let image = context.services.controller.image();
    let state = |member: &MemberView| {
        let end = member.log_end.map_or(-1, offset_after);
        ReplicaState {
            replica_id: member.id.0,
            replica_directory_id: directory(&image, member).0,
            log_end_offset: end,
            last_fetch_timestamp: if member.id == leader { now } else { UNKNOWN_TIME },
            last_caught_up_timestamp: if member.id == leader { now } else { UNKNOWN_TIME },
        }
    };
    let node = |member: &MemberView| {
        let (host, port) = member.address.rsplit_once(':')?;
        let listener = Listener { name: "CONTROLLER".to_owned(), host: host.to_owned(), port: port.parse().ok()? };
        Some(Node { node_id: member.id.0, listeners: vec![listener] })
    };
    let partition = PartitionData {
        partition_index: 0,
        leader_id: leader.0,
        leader_epoch: i32::try_from(view.epoch).unwrap_or(i32::MAX),
        high_watermark: committed,
        current_voters: view.voters.iter().map(state).collect(),
        observers: view.observers.iter().map(state).collect(),
        ..Default::default()
    };
    DescribeQuorumResponse {
        topics: vec![TopicData { topic_name: METADATA_TOPIC.to_owned(), partitions: vec![partition] }],
        nodes: view.voters.iter().chain(&view.observers).filter_map(node).collect(),
        ..Default::default()
    }
}

/// The disk of a member. Voters of a new cluster are known by their addresses first, and by their disks once they were met.
fn directory(image: &Image, member: &MemberView) -> DirectoryId {
    match member.directory {
        DirectoryId::UNASSIGNED => image.voter(member.id).unwrap_or(DirectoryId::UNASSIGNED),
        known => known,
    }
}

/// The offset behind the entry at `index`.
fn offset_after(index: u64) -> i64 {
    i64::try_from(index).map_or(i64::MAX, |index| index.saturating_add(1))
}

/// Gives a controller that runs a vote.
pub(super) async fn add_voter(context: &Context<'_>, request: AddRaftVoterRequest) -> AddRaftVoterResponse {
    let failed = |(code, why): (ErrorCode, String)| AddRaftVoterResponse {
        error_code: code.code(),
        error_message: Some(why),
        ..Default::default()
    };
    if let Err(refused) = own(context, request.cluster_id.as_deref()) {
        return failed(refused);
    }
    let Some(listener) = request.listeners.first() else {
        return failed((ErrorCode::InvalidRequest, "a voter has to have a listener".to_owned()));
    };
    let change = VoterChange::Add {
        id: NodeId(request.voter_id),
        directory: DirectoryId(request.voter_directory_id),
        address: host_and_port(&listener.host, listener.port),
    };
    let within = u64::try_from(request.timeout_ms).map_or(CHANGE, Duration::from_millis);
    match context.services.controller.change_voters(change, within).await {
        Ok(()) => AddRaftVoterResponse::default(),
        Err(error) => failed((code(error), error.to_string())),
    }
}

/// Takes the vote of a controller, whether it runs or not.
pub(super) async fn remove_voter(context: &Context<'_>, request: RemoveRaftVoterRequest) -> RemoveRaftVoterResponse {
    let failed = |(code, why): (ErrorCode, String)| RemoveRaftVoterResponse {
        error_code: code.code(),
        error_message: Some(why),
        ..Default::default()
    };
    if let Err(refused) = own(context, request.cluster_id.as_deref()) {
        return failed(refused);
    }
    let (id, asked) = (NodeId(request.voter_id), DirectoryId(request.voter_directory_id));
    let view = context.services.controller.describe_quorum(FIND_LEADER).await;
    let image = context.services.controller.image();
    let known = view.voters.iter().find(|member| member.id == id).map(|member| directory(&image, member));
    // The quorum itself does not know the disks of the voters that it began with.
    if known.is_some_and(|known| ![asked, DirectoryId::UNASSIGNED].contains(&known)) && asked != DirectoryId::UNASSIGNED
    {
        return failed((code(VoterError::NotFound), VoterError::NotFound.to_string()));
    }
    match context.services.controller.change_voters(VoterChange::Remove { id, directory: asked }, CHANGE).await {
        Ok(()) => RemoveRaftVoterResponse::default(),
        Err(error) => failed((code(error), error.to_string())),
    }
}

/// Refuses what is meant for another cluster.
fn own(context: &Context<'_>, cluster_id: Option<&str>) -> Result<(), (ErrorCode, String)> {
    let own = &context.services.cluster_id;
    match cluster_id {
        Some(asked) if asked != own => {
            Err((ErrorCode::InconsistentClusterId, format!("this is cluster {own}, not {asked}")))
        }
        _ => Ok(()),
    }
}

fn code(error: VoterError) -> ErrorCode {
    match error {
        VoterError::Duplicate => ErrorCode::DuplicateVoter,
        VoterError::NotFound => ErrorCode::VoterNotFound,
        VoterError::LastVoter => ErrorCode::InvalidRequest,
        VoterError::InProgress | VoterError::Behind | VoterError::Unknown => ErrorCode::RequestTimedOut,
        VoterError::NoLeader => ErrorCode::NotController,
    }
}
