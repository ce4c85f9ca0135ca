//! LeaveGroup: members go without waiting for their session to end; from version 3 many at once (KIP-345).

use super::Context;
use crate::group::types::{GroupError, MemberRef};
use proto::errors::ErrorCode;
use proto::messages::leave_group_response::MemberResponse;
use proto::messages::{LeaveGroupRequest, LeaveGroupResponse};

/// From this version on a request names many members.
const MANY_MEMBERS: i16 = 3;

/// Answers for each member.
pub(super) async fn handle(context: &Context<'_>, request: LeaveGroupRequest) -> LeaveGroupResponse {
    let many = context.caller.version >= MANY_MEMBERS;
    let members = if many {
        for member in &request.members {
            if let Some(reason) = &member.reason {
                tracing::debug!(group = %request.group_id, member = %member.member_id, %reason, "a member leaves");
            }
        }
        let named = request.members.into_iter();
        named.map(|member| MemberRef { member_id: member.member_id, instance_id: member.group_instance_id }).collect()
    } else {
        vec![MemberRef { member_id: request.member_id, instance_id: None }]
    };
    let code = |answer: Result<(), GroupError>| answer.map_or_else(GroupError::code, |()| ErrorCode::None).code();
    let answers = match context.services.groups.leave(&request.group_id, members).await {
        Ok(answers) => answers,
        Err(error) => return LeaveGroupResponse { error_code: error.code().code(), ..Default::default() },
    };
    if !many {
        let only = answers.into_iter().next().map_or(Ok(()), |(_, answer)| answer);
        return LeaveGroupResponse { error_code: code(only), ..Default::default() };
    }
    LeaveGroupResponse {
        members: answers
            .into_iter()
            .map(|(member, answer)| MemberResponse {
                member_id: member.member_id,
                group_instance_id: member.instance_id,
                error_code: code(answer),
            })
            .collect(),
        ..Default::default()
    }
}
