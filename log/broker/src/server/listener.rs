//! Accepting connections, up to a bound, until the server is told to stop.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::broker::Broker;
use crate::server::config::{Advertised, ServerConfig};
use crate::server::connection;
use crate::server::context::Node;

/// A server that accepts connections until [`Server::shutdown`]. Dropping it ends all of them at once.
#[derive(Debug)]
pub struct Server {
    addresses: Vec<SocketAddr>,
    stop: watch::Sender<bool>,
    listeners: JoinSet<()>,
}

impl Server {
    /// Listens and serves the broker's topics.
    ///
    /// # Errors
    /// If an address cannot be listened on.
    pub async fn start(broker: Broker, config: ServerConfig) -> io::Result<Self> {
        let mut sockets = Vec::with_capacity(config.listen.len());
        for address in &config.listen {
            let named = |error: io::Error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"));
            sockets.push(TcpListener::bind(address).await.map_err(named)?);
        }
        let addresses = sockets.iter().map(TcpListener::local_addr).collect::<io::Result<Vec<_>>>()?;
        let first = addresses.first().copied();
        let own = || first.map(|own| Advertised { host: own.ip().to_string(), port: own.port() });
        let Some(advertised) = config.advertise.clone().or_else(own) else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "there is no address to listen on"));
        };
        let (stop, stopped) = watch::channel(false);
        let connections = Arc::new(Semaphore::new(config.max_connections));
        let node = Arc::new(Node { broker, config, advertised });
        let mut listeners = JoinSet::new();
        for socket in sockets {
            listeners.spawn(accept(socket, Arc::clone(&node), Arc::clone(&connections), stopped.clone()));
        }
        Ok(Self { addresses, stop, listeners })
    }

    /// The addresses listened on, in the order of the config.
    #[must_use]
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Accepts no more connections and no more requests, and returns when what was begun has been answered.
    pub async fn shutdown(mut self) {
        self.stop.send_replace(true);
        while self.listeners.join_next().await.is_some() {}
    }
}

async fn accept(socket: TcpListener, node: Arc<Node>, connections: Arc<Semaphore>, mut stopped: watch::Receiver<bool>) {
    let mut open = JoinSet::new();
    let stop = stopped.clone();
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            Some(_) = open.join_next() => continue,
            _ = stopped.wait_for(|stopped| *stopped) => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let Ok(permit) = Arc::clone(&connections).try_acquire_owned() else {
                    tracing::warn!(%peer, "too many connections, closing a new one");
                    continue;
                };
                let (node, stop) = (Arc::clone(&node), stop.clone());
                open.spawn(async move {
                    connection::serve(stream, peer, node, stop).await;
                    drop(permit);
                });
            }
            Err(error) => {
                // Out of file descriptors, most likely: they come back when connections end.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
    drop(socket);
    while open.join_next().await.is_some() {}
}
