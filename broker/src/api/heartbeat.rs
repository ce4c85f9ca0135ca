//! Heartbeat: a member lives, and learns of a rebalance.

use super::Context;
use crate::group::types::{Heartbeat, MemberRef};
use proto::errors::ErrorCode;
use proto::messages::{HeartbeatRequest, HeartbeatResponse};

/// Answers whether the member's generation is current.
pub(super) async fn handle(context: &Context<'_>, request: HeartbeatRequest) -> HeartbeatResponse {
    let heartbeat = Heartbeat {
        member: MemberRef { member_id: request.member_id, instance_id: request.group_instance_id },
        generation: request.generation_id,
    };
    let beaten = context.services.groups.heartbeat(&request.group_id, heartbeat).await;
    let code = beaten.map_or_else(|error| error.code(), |()| ErrorCode::None);
    HeartbeatResponse { error_code: code.code(), ..Default::default() }
}
