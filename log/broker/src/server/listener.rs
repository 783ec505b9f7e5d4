//! Accepting connections, up to a bound, until the server is told to stop.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use crate::broker::Broker;
use crate::open_files;
use crate::server::config::{Advertised, ServerConfig};
use crate::server::connection;
use crate::server::context::Node;
use crate::server::fetch::FetchState;
use crate::server::limits::{Addresses, Counted, RequestMemory};
use crate::server::security::Listener;

/// A peer that is silent for so long is asked whether it is still there: its machine may have died without a word.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);
/// How often it is asked, `KEEPALIVE_RETRIES` times, before the connection counts as lost.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(15);
const KEEPALIVE_RETRIES: u32 = 4;

/// How long to wait after a connection could not be accepted, and how often to say so.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(100);
const WARN_EVERY: Duration = Duration::from_secs(10);

/// A server that accepts connections until [`Server::shutdown`]. Dropping it ends all of them at once.
#[derive(Debug)]
pub struct Server {
    addresses: Vec<SocketAddr>,
    stop: watch::Sender<bool>,
    drain_timeout: Duration,
    listeners: JoinSet<()>,
}

impl Server {
    /// Listens and serves the broker's topics.
    ///
    /// # Errors
    /// If an address cannot be listened on, or asks for a security protocol that is not served.
    pub async fn start(broker: Broker, config: ServerConfig) -> io::Result<Self> {
        let mut sockets = Vec::with_capacity(config.listen.len());
        for listen in &config.listen {
            let listener = Listener::parse(listen)?;
            let named = |error: io::Error| io::Error::new(error.kind(), format!("cannot listen on {listen}: {error}"));
            let socket = TcpListener::bind(&listener.address).await.map_err(named)?;
            let address = socket.local_addr()?;
            tracing::info!(listener = listener.name, protocol = ?listener.protocol, %address, "listening");
            sockets.push((listener, socket, address));
        }
        let addresses: Vec<_> = sockets.iter().map(|(.., address)| *address).collect();
        let first = addresses.first().copied();
        let own = || first.map(|own| Advertised { host: own.ip().to_string(), port: own.port() });
        let Some(advertised) = config.advertise.clone().or_else(own) else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "there is no address to listen on"));
        };
        let (stop, stopping) = watch::channel(false);
        let drain_timeout = Duration::from_millis(config.drain_timeout_ms);
        let limits =
            Limits { connections: Arc::new(Semaphore::new(most_connections(&config))), addresses: Arc::default() };
        let memory = RequestMemory::new(config.max_request_bytes);
        let node = Arc::new(Node { broker, config, advertised, memory, fetches: FetchState::default(), stopping });
        let mut listeners = JoinSet::new();
        for (listener, socket, _) in sockets {
            listeners.spawn(accept(listener, socket, Arc::clone(&node), limits.clone()));
        }
        Ok(Self { addresses, stop, drain_timeout, listeners })
    }

    /// The addresses listened on, in the order of the config.
    #[must_use]
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Accepts no more connections and no more requests, and returns when what was begun has been answered, or after
    /// `drain_timeout_ms`.
    pub async fn shutdown(mut self) {
        self.stop.send_replace(true);
        let drained = async { while self.listeners.join_next().await.is_some() {} };
        if tokio::time::timeout(self.drain_timeout, drained).await.is_err() {
            tracing::warn!("closing connections that did not end in time");
            self.listeners.shutdown().await;
        }
    }
}

/// How many connections are served at a time: as many as the config says, or as there are files for.
fn most_connections(config: &ServerConfig) -> usize {
    let possible = open_files::connections_at_most().unwrap_or(usize::MAX);
    if possible < config.max_connections {
        let wanted = config.max_connections;
        tracing::info!(possible, wanted, "the limit of open files (ulimit -n) bounds the number of connections");
    }
    config.max_connections.min(possible).min(Semaphore::MAX_PERMITS)
}

/// The bounds on connections.
#[derive(Clone)]
struct Limits {
    connections: Arc<Semaphore>,
    addresses: Arc<Addresses>,
}

impl Limits {
    fn admit(&self, peer: SocketAddr, max_per_ip: usize) -> Result<(OwnedSemaphorePermit, Counted), &'static str> {
        let permit = Arc::clone(&self.connections).try_acquire_owned().map_err(|_| "too many connections")?;
        let counted = self.addresses.count(peer.ip(), max_per_ip).ok_or("too many connections from its address")?;
        Ok((permit, counted))
    }
}

async fn accept(listener: Listener, socket: TcpListener, node: Arc<Node>, limits: Limits) {
    let mut open = JoinSet::new();
    let mut warned = None;
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            Some(ended) = open.join_next() => {
                report(ended);
                continue;
            }
            () = node.drains() => break,
        };
        match accepted {
            Ok((stream, peer)) => match limits.admit(peer, node.config.max_connections_per_ip) {
                Ok(admitted) => {
                    set_options(&stream, peer);
                    let principal = listener.authenticator.authenticate(&stream);
                    let node = Arc::clone(&node);
                    open.spawn(async move {
                        connection::serve(stream, peer, principal, node).await;
                        drop(admitted);
                    });
                }
                Err(reason) => tracing::warn!(%peer, reason, "closing a new connection"),
            },
            Err(error) => {
                // Out of files, most likely: they come back when connections end.
                if warned.is_none_or(|at: Instant| at.elapsed() >= WARN_EVERY) {
                    tracing::warn!(%error, "cannot accept connections, trying again");
                    warned = Some(Instant::now());
                }
                tokio::time::sleep(ACCEPT_AGAIN_AFTER).await;
            }
        }
    }
    drop(socket);
    while let Some(ended) = open.join_next().await {
        report(ended);
    }
}

fn set_options(stream: &TcpStream, peer: SocketAddr) {
    let keepalive =
        TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(KEEPALIVE_EVERY).with_retries(KEEPALIVE_RETRIES);
    // Replies are written whole: waiting for more to send only delays them.
    let set = stream.set_nodelay(true).and_then(|()| SockRef::from(stream).set_tcp_keepalive(&keepalive));
    if let Err(error) = set {
        tracing::debug!(%peer, %error, "cannot set a connection's options");
    }
}

/// A connection's panic is its own end only.
fn report(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a connection ended by a panic");
    }
}
