//! DescribeCluster: this node is all of it.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::{BrokerId, DescribeClusterRequest, DescribeClusterResponse};

use super::{operations, text};
use crate::server::context::RequestContext;

/// A request about brokers, and one about controllers.
const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

/// Answers a DescribeCluster request.
pub(in crate::server) async fn describe_cluster(
    context: &RequestContext,
    version: i16,
    request: DescribeClusterRequest,
) -> DescribeClusterResponse {
    let node = &context.node;
    let id = BrokerId(node.config.node_id);
    let mut response = DescribeClusterResponse::default();
    if version >= 1 && request.endpoint_type != BROKERS {
        let (error, message) = match request.endpoint_type {
            CONTROLLERS => (ResponseError::MismatchedEndpointType, "this listener is a broker's, not a controller's"),
            _ => (ResponseError::UnsupportedEndpointType, "the type of endpoint is unknown"),
        };
        return response
            .with_error_code(error.code())
            .with_error_message(Some(text(message)))
            .with_endpoint_type(request.endpoint_type);
    }
    let broker = DescribeClusterBroker::default()
        .with_broker_id(id)
        .with_host(text(&node.advertised.host))
        .with_port(node.advertised.port.into())
        .with_rack(node.config.rack.as_deref().map(text));
    response.cluster_id = text(node.broker.cluster_id());
    response.controller_id = id;
    response.brokers = vec![broker];
    if request.include_cluster_authorized_operations {
        response.cluster_authorized_operations = operations::on_cluster(context.principal);
    }
    response
}
