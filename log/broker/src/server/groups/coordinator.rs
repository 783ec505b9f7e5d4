//! FindCoordinator: on a single node, every group's coordinator is this one.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::{BrokerId, FindCoordinatorRequest, FindCoordinatorResponse};
use kafka_protocol::protocol::StrBytes;

use crate::server::context::RequestContext;
use crate::server::groups::text;

/// What a key is, by `key_type`.
const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;
/// The first version that asks for many keys at once (KIP-699).
const MANY_VERSION: i16 = 4;

/// Answers a FindCoordinator request.
pub(in crate::server) async fn find_coordinator(
    context: &RequestContext,
    version: i16,
    request: FindCoordinatorRequest,
) -> FindCoordinatorResponse {
    if version >= MANY_VERSION {
        let found = request.coordinator_keys.into_iter().map(|key| find(context, key, request.key_type));
        return FindCoordinatorResponse::default().with_coordinators(found.collect());
    }
    let found = find(context, request.key, request.key_type);
    let response = FindCoordinatorResponse::default()
        .with_error_code(found.error_code)
        .with_node_id(found.node_id)
        .with_host(found.host)
        .with_port(found.port);
    if version >= 1 { response.with_error_message(found.error_message) } else { response }
}

fn find(context: &RequestContext, key: StrBytes, key_type: i8) -> Coordinator {
    let node = &context.node;
    let (code, refusal) = match key_type {
        GROUP if is_offline(context, &key) => {
            (ResponseError::CoordinatorNotAvailable, "the partition that holds the group is offline".to_owned())
        }
        GROUP => {
            return Coordinator::default()
                .with_key(key)
                .with_node_id(BrokerId(node.config.node_id))
                .with_host(text(&node.advertised.host))
                .with_port(node.advertised.port.into());
        }
        // Of the codes that librdkafka takes for final, instead of asking again, the one with which Java shows the text.
        TRANSACTION => {
            let refusal = "transactions over the Kafka protocol are not supported yet".to_owned();
            (ResponseError::ClusterAuthorizationFailed, refusal)
        }
        other => (ResponseError::InvalidRequest, format!("there are no coordinators of type {other}")),
    };
    Coordinator::default()
        .with_key(key)
        .with_node_id(BrokerId(-1))
        .with_port(-1)
        .with_error_code(code.code())
        .with_error_message(Some(text(refusal)))
}

/// Whether the group cannot be read or written, though the node serves others.
fn is_offline(context: &RequestContext, group: &str) -> bool {
    let coordinator = context.broker().coordinator();
    coordinator.is_ok_and(|coordinator| coordinator.service.partition(group).is_err())
}
