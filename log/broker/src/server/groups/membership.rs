//! JoinGroup, SyncGroup, Heartbeat and LeaveGroup.

use bytes::Bytes;
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::{
    HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse,
    SyncGroupRequest, SyncGroupResponse,
};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use crate::error::{BrokerError, Result};
use crate::groups::{JoinRequest, Joined, Leaver, Protocol, Reply, SyncRequest, Synced, Waiter};
use crate::server::context::RequestContext;
use crate::server::groups::{code, owned, result_code, text};

/// The generation of those who have none.
const NO_GENERATION: i32 = -1;
/// Characters of a client's own name that its member id repeats: ids must fit Kafka's strings.
const NAME_LEN: usize = 255;

/// Answers a JoinGroup request, once the group's next generation begins.
pub(in crate::server) async fn join_group(
    context: &RequestContext,
    version: i16,
    request: JoinGroupRequest,
) -> JoinGroupResponse {
    let member = request.member_id.clone();
    let refused = |error_code: i16, member: StrBytes| {
        let response = JoinGroupResponse::default().with_error_code(error_code).with_member_id(member);
        // Empty, not null, which older clients cannot read.
        response.with_generation_id(NO_GENERATION).with_protocol_name(Some(StrBytes::new()))
    };
    match join(context, version, request).await {
        Ok(Reply::Join(Ok(joined))) => joined_response(version, joined),
        Ok(Reply::Join(Err(refusal))) => refused(refusal.error.code(), text(refusal.member)),
        Ok(Reply::Sync(_)) => refused(kafka_protocol::ResponseError::UnknownServerError.code(), member),
        Err(error) => refused(code(&error), member),
    }
}

/// Waits for other members, but not once the server drains: its clients go on with their groups when it is back.
async fn unless_drained(context: &RequestContext, reply: impl Future<Output = Result<Reply>>) -> Result<Reply> {
    tokio::select! {
        biased;
        reply = reply => reply,
        () = context.node.drains() => Err(BrokerError::Closed),
    }
}

async fn join(context: &RequestContext, version: i16, request: JoinGroupRequest) -> Result<Reply> {
    let coordinator = context.broker().coordinator()?;
    let client_id = context.client_id.as_ref().map(|id| id.as_str().to_owned()).unwrap_or_default();
    let instance = owned(request.group_instance_id.as_ref());
    // Kafka's member ids: what the client calls itself, and something nobody else has.
    let name: String = instance.as_ref().unwrap_or(&client_id).chars().take(NAME_LEN).collect();
    let protocol = |protocol: kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol| Protocol {
        name: protocol.name.as_str().to_owned(),
        // Copied: the group keeps it for long, and the rest of the request must not be kept with it.
        metadata: Bytes::copy_from_slice(&protocol.metadata),
    };
    let join = JoinRequest {
        group: request.group_id.as_str().to_owned(),
        member: request.member_id.as_str().to_owned(),
        new_member: format!("{name}-{}", Uuid::new_v4()),
        instance,
        client_id,
        client_host: format!("/{}", context.peer.ip()),
        session_timeout_ms: request.session_timeout_ms,
        rebalance_timeout_ms: if version >= 1 { request.rebalance_timeout_ms } else { request.session_timeout_ms },
        protocol_type: request.protocol_type.as_str().to_owned(),
        protocols: request.protocols.into_iter().map(protocol).collect(),
        knows_required_id: version >= 4,
        knows_skipped_assignment: version >= 9,
        waiter: Waiter::default(),
    };
    unless_drained(context, coordinator.service.join(join, coordinator.now)).await
}

fn joined_response(version: i16, joined: Joined) -> JoinGroupResponse {
    let members = joined.members.into_iter().map(|peer| {
        let member = JoinGroupResponseMember::default().with_member_id(text(peer.member)).with_metadata(peer.metadata);
        if version >= 5 { member.with_group_instance_id(peer.instance.map(text)) } else { member }
    });
    let mut response = JoinGroupResponse::default()
        .with_generation_id(joined.generation)
        .with_protocol_name(Some(text(joined.protocol.unwrap_or_default())))
        .with_leader(text(joined.leader))
        .with_member_id(text(joined.member))
        .with_members(members.collect());
    if version >= 7 {
        response.protocol_type = joined.protocol_type.map(text);
    }
    if version >= 9 {
        response.skip_assignment = joined.skip_assignment;
    }
    response
}

/// Answers a SyncGroup request, once the leader has assigned partitions.
pub(in crate::server) async fn sync_group(
    context: &RequestContext,
    version: i16,
    request: SyncGroupRequest,
) -> SyncGroupResponse {
    let refused = |error_code: i16| SyncGroupResponse::default().with_error_code(error_code);
    match sync(context, request).await {
        Ok(Reply::Sync(Ok(synced))) => synced_response(version, synced),
        Ok(Reply::Sync(Err(error))) => refused(error.code()),
        Ok(Reply::Join(_)) => refused(kafka_protocol::ResponseError::UnknownServerError.code()),
        Err(error) => refused(code(&error)),
    }
}

async fn sync(context: &RequestContext, request: SyncGroupRequest) -> Result<Reply> {
    let coordinator = context.broker().coordinator()?;
    let assignments = request.assignments.into_iter();
    let sync = SyncRequest {
        group: request.group_id.as_str().to_owned(),
        member: request.member_id.as_str().to_owned(),
        instance: owned(request.group_instance_id.as_ref()),
        generation: request.generation_id,
        protocol_type: owned(request.protocol_type.as_ref()),
        protocol: owned(request.protocol_name.as_ref()),
        // Copied, as subscriptions are.
        assignments: assignments
            .map(|given| (given.member_id.as_str().to_owned(), Bytes::copy_from_slice(&given.assignment)))
            .collect(),
        waiter: Waiter::default(),
    };
    unless_drained(context, coordinator.service.sync(sync, coordinator.now)).await
}

fn synced_response(version: i16, synced: Synced) -> SyncGroupResponse {
    let response = SyncGroupResponse::default().with_assignment(synced.assignment);
    if version < 5 {
        return response;
    }
    response.with_protocol_type(synced.protocol_type.map(text)).with_protocol_name(synced.protocol.map(text))
}

/// Answers a Heartbeat request.
pub(in crate::server) async fn heartbeat(
    context: &RequestContext,
    _version: i16,
    request: HeartbeatRequest,
) -> HeartbeatResponse {
    let error_code = match context.broker().coordinator() {
        Ok(coordinator) => result_code(&coordinator.service.heartbeat(
            &request.group_id,
            &request.member_id,
            request.group_instance_id.as_deref(),
            request.generation_id,
            coordinator.now,
        )),
        Err(error) => code(&error),
    };
    HeartbeatResponse::default().with_error_code(error_code)
}

/// Answers a LeaveGroup request. Old versions name one member, and have one code for everything.
pub(in crate::server) async fn leave_group(
    context: &RequestContext,
    version: i16,
    request: LeaveGroupRequest,
) -> LeaveGroupResponse {
    let leavers: Vec<Leaver> = match version < 3 {
        true => vec![Leaver { member: request.member_id.as_str().to_owned(), instance: None }],
        false => request
            .members
            .iter()
            .map(|member| Leaver {
                member: member.member_id.as_str().to_owned(),
                instance: owned(member.group_instance_id.as_ref()),
            })
            .collect(),
    };
    let response = LeaveGroupResponse::default();
    let results = match context.broker().coordinator() {
        Ok(coordinator) => coordinator.service.leave(&request.group_id, &leavers, coordinator.now).await,
        Err(error) => return response.with_error_code(code(&error)),
    };
    match results {
        Err(error) => response.with_error_code(error.code()),
        Ok(results) if version < 3 => response.with_error_code(results.first().map_or(0, result_code)),
        Ok(results) => {
            let members = leavers.into_iter().zip(&results).map(|(leaver, result)| {
                MemberResponse::default()
                    .with_member_id(text(leaver.member))
                    .with_group_instance_id(leaver.instance.map(text))
                    .with_error_code(result_code(result))
            });
            response.with_members(members.collect())
        }
    }
}
