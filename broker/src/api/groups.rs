//! ListGroups (KIP-518, KIP-848), DescribeGroups, DeleteGroups (KIP-229).

use super::Context;
use super::metadata::NO_OPERATIONS;
use crate::group::types::{GroupDescription, GroupError, GroupListing, GroupState};
use indexmap::IndexSet;
use proto::errors::ErrorCode;
use proto::messages::delete_groups_response::DeletableGroupResult;
use proto::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use proto::messages::list_groups_response::ListedGroup;
use proto::messages::{
    DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest, DescribeGroupsResponse, ListGroupsRequest,
    ListGroupsResponse,
};

/// The type of all groups that there are (KIP-848).
const CLASSIC: &str = "classic";
/// From this version on a group that does not exist is an error; before, it is dead (KIP-1043).
const NOT_FOUND: i16 = 6;
/// From this version on an error comes with words.
const SAYS_WHY: i16 = 6;
/// READ, DELETE, DESCRIBE, DESCRIBE_CONFIGS and ALTER_CONFIGS, as bits of Kafka's ACL operations: what everyone may do to a
/// group while there are no ACLs.
const GROUP_OPERATIONS: i32 = 0b1101_0100_1000;

/// Answers the groups of this broker that pass the filters.
pub(super) async fn list(context: &Context<'_>, request: ListGroupsRequest) -> ListGroupsResponse {
    let groups = match context.services.groups.list().await {
        Ok(groups) => groups,
        Err(error) => return ListGroupsResponse { error_code: error.code().code(), ..Default::default() },
    };
    let wanted = |filter: &[String], value: &str| {
        filter.is_empty() || filter.iter().any(|wanted| wanted.eq_ignore_ascii_case(value))
    };
    let passes = |group: &GroupListing| {
        wanted(&request.states_filter, group.state.name()) && wanted(&request.types_filter, CLASSIC)
    };
    ListGroupsResponse {
        groups: groups
            .into_iter()
            .filter(passes)
            .map(|group| ListedGroup {
                group_id: group.group_id,
                protocol_type: group.protocol_type,
                group_state: group.state.name().to_owned(),
                group_type: CLASSIC.to_owned(),
            })
            .collect(),
        ..Default::default()
    }
}

/// What a member takes in an answer beside its metadata and assignment, about.
const MEMBER_BYTES: usize = 256;

/// Answers each group in detail, once, however often it is named.
pub(super) async fn describe(context: &Context<'_>, request: DescribeGroupsRequest) -> DescribeGroupsResponse {
    let operations = if request.include_authorized_operations { GROUP_OPERATIONS } else { NO_OPERATIONS };
    let version = context.caller.version;
    let asked: IndexSet<String> = request.groups.into_iter().collect();
    let mut groups = Vec::with_capacity(asked.len());
    for group_id in asked {
        groups.push(match context.services.groups.describe(&group_id).await {
            Ok(Some(description)) => described(description, operations),
            Ok(None) => absent(group_id, version, operations),
            Err(error) => refused(group_id, error.code(), error, version),
        });
    }
    // Up to here metadata and assignments are those that the groups hold; now they are copied.
    let members = groups.iter().flat_map(|group| &group.members);
    let bytes =
        members.map(|member| MEMBER_BYTES + member.member_metadata.len() + member.member_assignment.len()).sum();
    context.admit_answer(bytes).await;
    DescribeGroupsResponse { groups, ..Default::default() }
}

fn described(group: GroupDescription, authorized_operations: i32) -> DescribedGroup {
    let members = group.members.into_iter().map(|member| DescribedGroupMember {
        member_id: member.member.member_id,
        group_instance_id: member.member.instance_id,
        client_id: member.client_id,
        client_host: member.client_host,
        member_metadata: member.metadata,
        member_assignment: member.assignment,
    });
    DescribedGroup {
        error_code: ErrorCode::None.code(),
        error_message: None,
        group_id: group.group_id,
        group_state: group.state.name().to_owned(),
        protocol_type: group.protocol_type,
        protocol_data: group.protocol,
        members: members.collect(),
        authorized_operations,
    }
}

fn absent(group_id: String, version: i16, authorized_operations: i32) -> DescribedGroup {
    let mut described = if version >= NOT_FOUND {
        refused(group_id, ErrorCode::GroupIdNotFound, GroupError::NotFound, version)
    } else {
        DescribedGroup { group_id, authorized_operations, ..Default::default() }
    };
    GroupState::Dead.name().clone_into(&mut described.group_state);
    described
}

fn refused(group_id: String, code: ErrorCode, error: GroupError, version: i16) -> DescribedGroup {
    DescribedGroup {
        error_code: code.code(),
        error_message: (version >= SAYS_WHY).then(|| error.to_string()),
        group_id,
        authorized_operations: NO_OPERATIONS,
        ..Default::default()
    }
}

/// Deletes groups that have no members.
pub(super) async fn delete(context: &Context<'_>, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
    let mut results = Vec::with_capacity(request.groups_names.len());
    for group_id in request.groups_names {
        let deleted = context.services.groups.delete(&group_id).await;
        let code = deleted.map_or_else(GroupError::code, |()| ErrorCode::None);
        results.push(DeletableGroupResult { group_id, error_code: code.code() });
    }
    DeleteGroupsResponse { results, ..Default::default() }
}
