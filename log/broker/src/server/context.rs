//! What a handler knows besides the request: the broker, the node, and who asks.

use std::net::SocketAddr;
use std::sync::Arc;

use kafka_protocol::protocol::StrBytes;
use tokio::sync::watch;

use crate::broker::Broker;
use crate::server::config::{Advertised, ServerConfig};
use crate::server::fetch::FetchState;
use crate::server::limits::RequestMemory;
pub(super) use crate::server::security::Principal;

/// What all connections share.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) broker: Broker,
    pub(super) config: ServerConfig,
    /// Where clients are told to find this node.
    pub(super) advertised: Advertised,
    pub(super) memory: RequestMemory,
    pub(super) fetches: FetchState,
    /// True once the server drains.
    pub(super) stopping: watch::Receiver<bool>,
}

impl Node {
    /// Returns when the server drains: what waits for something to happen is to answer with what it has.
    pub(super) async fn drains(&self) {
        // An error means that the server is gone altogether.
        let _ = self.stopping.clone().wait_for(|stopping| *stopping).await;
    }
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
