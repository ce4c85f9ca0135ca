//! JoinGroup: waits until the members of a group have come together.

use super::Context;
use crate::group::types::{Join, MemberRef};
use bytes::Bytes;
use proto::errors::ErrorCode;
use proto::messages::join_group_response::JoinGroupResponseMember;
use proto::messages::{JoinGroupRequest, JoinGroupResponse};

/// From this version on a member is told its id before it joins (KIP-394).
const REQUIRES_MEMBER_ID: i16 = 4;
/// From this version on the protocol may be null.
const NULLABLE_PROTOCOL: i16 = 7;
/// From this version on the leader may be told to skip the assignment (KIP-814).
const CAN_SKIP: i16 = 9;
/// Version 0 had one timeout for both.
const REBALANCE_TIMEOUT: i16 = 1;

/// Answers with the generation that the member is in.
pub(super) async fn handle(context: &mut Context<'_>, request: JoinGroupRequest) -> JoinGroupResponse {
    let version = context.caller.version;
    let join = Join {
        requires_member_id: version >= REQUIRES_MEMBER_ID && request.group_instance_id.is_none(),
        can_skip_assignment: version >= CAN_SKIP,
        member: MemberRef { member_id: request.member_id, instance_id: request.group_instance_id },
        client_id: context.caller.client_id.clone().unwrap_or_default(),
        client_host: format!("/{}", context.caller.peer.ip()),
        rebalance_timeout_ms: if version >= REBALANCE_TIMEOUT {
            request.rebalance_timeout_ms
        } else {
            request.session_timeout_ms
        },
        session_timeout_ms: request.session_timeout_ms,
        protocol_type: request.protocol_type,
        // Copied: the group keeps it for as long as it has the member, and a slice would keep the whole frame.
        protocols: request
            .protocols
            .into_iter()
            .map(|protocol| (protocol.name, Bytes::copy_from_slice(&protocol.metadata)))
            .collect(),
    };
    let nullable = |protocol: Option<String>| {
        if version >= NULLABLE_PROTOCOL { protocol } else { Some(protocol.unwrap_or_default()) }
    };
    // All of the request was moved or copied: whoever waits for others holds nothing that they may need.
    context.memory = None;
    match context.services.groups.join(&request.group_id, join).await {
        Ok(joined) => JoinGroupResponse {
            error_code: ErrorCode::None.code(),
            generation_id: joined.generation,
            protocol_type: joined.protocol_type,
            protocol_name: nullable(joined.protocol),
            leader: joined.leader,
            skip_assignment: joined.skip_assignment,
            member_id: joined.member_id,
            members: joined
                .members
                .into_iter()
                .map(|member| JoinGroupResponseMember {
                    member_id: member.member.member_id,
                    group_instance_id: member.member.instance_id,
                    metadata: member.metadata,
                })
                .collect(),
            ..Default::default()
        },
        Err(refused) => JoinGroupResponse {
            error_code: refused.error.code().code(),
            generation_id: -1,
            protocol_type: None,
            protocol_name: nullable(None),
            member_id: refused.member_id,
            ..Default::default()
        },
    }
}
