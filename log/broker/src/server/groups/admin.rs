//! DescribeGroups, ListGroups and DeleteGroups.

use std::collections::HashSet;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::{
    DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest, DescribeGroupsResponse, GroupId,
    ListGroupsRequest, ListGroupsResponse,
};
use kafka_protocol::protocol::StrBytes;

use crate::groups::{GroupDescription, GroupError, GroupListing, Groups, MemberDescription};
use crate::server::context::RequestContext;
use crate::server::errors;
use crate::server::groups::{code, text};

/// A response has no more groups once it has so many bytes of members, in about.
const MAX_DESCRIBED_BYTES: usize = 32 << 20;
/// What there is no group left of.
const DEAD: StrBytes = StrBytes::from_static_str("Dead");
/// The kind of group protocol that all our groups use, as listings say it (KIP-848).
const CLASSIC: StrBytes = StrBytes::from_static_str("classic");
/// All operations on a group, as a bit field (KIP-430): READ, DELETE, DESCRIBE, DESCRIBE_CONFIGS, ALTER_CONFIGS.
const OPERATIONS: i32 = 1 << 3 | 1 << 6 | 1 << 8 | 1 << 10 | 1 << 11;

/// Answers a DescribeGroups request.
pub(in crate::server) async fn describe_groups(
    context: &RequestContext,
    version: i16,
    request: DescribeGroupsRequest,
) -> DescribeGroupsResponse {
    let coordinator = context.broker().coordinator();
    let mut left = MAX_DESCRIBED_BYTES;
    let mut seen = HashSet::new();
    let groups = request.groups.into_iter().filter(|group| seen.insert(group.clone()));
    let groups = groups.map(|group| {
        if left == 0 {
            return beyond(version, group);
        }
        let found = match &coordinator {
            Ok(coordinator) => coordinator.service.read(|groups| groups.describe(&group)),
            Err(error) => return DescribedGroup::default().with_group_id(group).with_error_code(code(error)),
        };
        match found {
            Some(found) => {
                left = left.saturating_sub(found.bytes());
                let operations = version >= 3 && request.include_authorized_operations;
                let described = described(version, group, found);
                if operations { described.with_authorized_operations(OPERATIONS) } else { described }
            }
            None => unknown(version, group),
        }
    });
    DescribeGroupsResponse::default().with_groups(groups.collect())
}

/// A group that the response has no room for.
fn beyond(version: i16, group: GroupId) -> DescribedGroup {
    let described =
        DescribedGroup::default().with_group_id(group).with_error_code(ResponseError::InvalidRequest.code());
    match version >= 6 {
        true => described.with_error_message(Some(text("the request names too many groups at once"))),
        false => described,
    }
}

/// A group that does not exist is dead; since version 6 that is an error (KIP-1043).
fn unknown(version: i16, group: GroupId) -> DescribedGroup {
    let error = GroupError::GroupNotFound(group.as_str().to_owned());
    let dead = DescribedGroup::default().with_group_id(group).with_group_state(DEAD);
    match version >= 6 {
        true => dead.with_error_code(error.code()).with_error_message(Some(errors::message(error.to_string()))),
        false => dead,
    }
}

fn described(version: i16, group: GroupId, found: GroupDescription) -> DescribedGroup {
    let members = found.members.into_iter().map(|member| described_member(version, member));
    DescribedGroup::default()
        .with_group_id(group)
        .with_group_state(StrBytes::from_static_str(found.state.name()))
        .with_protocol_type(text(found.protocol_type))
        .with_protocol_data(text(found.protocol))
        .with_members(members.collect())
}

fn described_member(version: i16, member: MemberDescription) -> DescribedGroupMember {
    let described = DescribedGroupMember::default()
        .with_member_id(text(member.member))
        .with_client_id(text(member.client_id))
        .with_client_host(text(member.client_host))
        .with_member_metadata(member.metadata)
        .with_member_assignment(member.assignment);
    if version >= 4 { described.with_group_instance_id(member.instance.map(text)) } else { described }
}

/// Answers a ListGroups request.
pub(in crate::server) async fn list_groups(
    context: &RequestContext,
    version: i16,
    request: ListGroupsRequest,
) -> ListGroupsResponse {
    let groups = match context.broker().coordinator() {
        Ok(coordinator) => coordinator.service.read(Groups::list),
        Err(error) => return ListGroupsResponse::default().with_error_code(code(&error)),
    };
    let is_wanted = |filter: &[StrBytes], value: &str| {
        filter.is_empty() || filter.iter().any(|wanted| wanted.as_str().eq_ignore_ascii_case(value))
    };
    let groups = groups.into_iter().filter(|group| is_wanted(&request.states_filter, group.state.name()));
    let groups = groups.filter(|_| is_wanted(&request.types_filter, &CLASSIC));
    ListGroupsResponse::default().with_groups(groups.map(|group| listed(version, group)).collect())
}

fn listed(version: i16, group: GroupListing) -> ListedGroup {
    let mut listed =
        ListedGroup::default().with_group_id(GroupId(text(group.group))).with_protocol_type(text(group.protocol_type));
    if version >= 4 {
        listed.group_state = StrBytes::from_static_str(group.state.name());
    }
    if version >= 5 {
        listed.group_type = CLASSIC;
    }
    listed
}

/// Answers a DeleteGroups request.
pub(in crate::server) async fn delete_groups(
    context: &RequestContext,
    _version: i16,
    request: DeleteGroupsRequest,
) -> DeleteGroupsResponse {
    let mut results = Vec::new();
    let mut seen = HashSet::new();
    for group in request.groups_names {
        if !seen.insert(group.clone()) {
            continue;
        }
        let error_code = match context.broker().coordinator() {
            Ok(coordinator) => match coordinator.service.delete(&group, coordinator.now.wall).await {
                Ok(result) => super::result_code(&result),
                Err(error) => code(&error),
            },
            Err(error) => code(&error),
        };
        results.push(DeletableGroupResult::default().with_group_id(group).with_error_code(error_code));
    }
    DeleteGroupsResponse::default().with_results(results)
}
