//! SyncGroup: the leader brings the assignment, every member gets its part.

use super::Context;
use crate::group::types::{MemberRef, Sync};
use bytes::Bytes;
use proto::errors::ErrorCode;
use proto::messages::{SyncGroupRequest, SyncGroupResponse};

/// Answers with the member's assignment.
pub(super) async fn handle(context: &mut Context<'_>, request: SyncGroupRequest) -> SyncGroupResponse {
    let sync = Sync {
        member: MemberRef { member_id: request.member_id, instance_id: request.group_instance_id },
        generation: request.generation_id,
        protocol_type: request.protocol_type,
        protocol: request.protocol_name,
        // Copied: the group keeps them for as long as it has the members, and a slice would keep the whole frame.
        assignments: request
            .assignments
            .into_iter()
            .map(|one| (one.member_id, Bytes::copy_from_slice(&one.assignment)))
            .collect(),
    };
    // As for JoinGroup.
    context.memory = None;
    match context.services.groups.sync(&request.group_id, sync).await {
        Ok(synced) => SyncGroupResponse {
            error_code: ErrorCode::None.code(),
            protocol_type: synced.protocol_type,
            protocol_name: synced.protocol,
            assignment: synced.assignment,
            ..Default::default()
        },
        Err(error) => SyncGroupResponse { error_code: error.code().code(), ..Default::default() },
    }
}
