//! What a handler knows besides the request: the broker, the node, and who asks.

use std::net::SocketAddr;
use std::sync::Arc;

use kafka_protocol::protocol::StrBytes;

use crate::broker::Broker;
use crate::server::config::{Advertised, ServerConfig};

/// What all connections share.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) broker: Broker,
    pub(super) config: ServerConfig,
    /// Where clients are told to find this node.
    pub(super) advertised: Advertised,
}

/// On whose behalf a request is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Principal {
    /// Nobody in particular: the listener asks for no proof.
    Anonymous,
}

/// The circumstances of one request.
#[derive(Clone, Debug)]
pub(super) struct RequestContext {
    pub(super) node: Arc<Node>,
    pub(super) principal: Principal,
    /// The other end of the connection.
    pub(super) peer: SocketAddr,
    /// What the client calls itself.
    pub(super) client_id: Option<StrBytes>,
}

impl RequestContext {
    pub(super) fn broker(&self) -> &Broker {
        &self.node.broker
    }
}
