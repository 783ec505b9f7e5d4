//! One connection: frames in, replies out in the same order.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, watch};

use crate::server::api::{self, Begun, Refused};
use crate::server::context::{Node, Principal, RequestContext};
use crate::server::reply::{Chunk, Reply};

/// A request that was begun, in the order of arrival.
struct Pending {
    correlation_id: i32,
    header_version: i16,
    begun: Begun,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("a frame of {bytes} bytes, more than the limit of {max}")]
    FrameTooLarge { bytes: i64, max: usize },
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("no request for too long")]
    Idle,
    /// By the client between two requests, or by the server.
    #[error("closed")]
    Closed,
}

/// Serves a connection until either end closes it.
pub(super) async fn serve(stream: TcpStream, peer: SocketAddr, node: Arc<Node>, mut stop: watch::Receiver<bool>) {
    // Replies are written whole: waiting for more to send only delays them.
    let _ = stream.set_nodelay(true);
    let (read, write) = stream.into_split();
    let (pending, replies) = mpsc::channel(node.config.max_in_flight.max(1));
    let writer = tokio::spawn(write_replies(write, replies));
    let ended = tokio::select! {
        ended = read_requests(read, peer, node, pending) => ended,
        _ = stop.wait_for(|stop| *stop) => Ended::Closed,
    };
    match ended {
        Ended::Closed | Ended::Idle => tracing::debug!(%peer, reason = %ended, "connection ended"),
        Ended::Io(error) => tracing::debug!(%peer, %error, "connection lost"),
        ended => tracing::warn!(%peer, reason = %ended, "closing a connection"),
    }
    // What was begun is answered, if the client still reads.
    let _ = writer.await;
}

async fn read_requests(
    mut read: OwnedReadHalf,
    peer: SocketAddr,
    node: Arc<Node>,
    pending: mpsc::Sender<Pending>,
) -> Ended {
    loop {
        // Room for the reply first: a client that does not read its replies is not read from either.
        let Ok(slot) = pending.reserve().await else { return Ended::Closed };
        let mut frame = match read_frame(&mut read, &node).await {
            Ok(frame) => frame,
            Err(ended) => return ended,
        };
        let begun = async {
            let header = api::header(&mut frame)?;
            let context = RequestContext {
                node: Arc::clone(&node),
                principal: Principal::Anonymous,
                peer,
                client_id: header.client_id.clone(),
            };
            let begun = api::begin(&context, &header, frame).await?;
            let header_version = header.response_header_version();
            Ok::<_, Refused>(Pending { correlation_id: header.correlation_id, header_version, begun })
        };
        match begun.await {
            Ok(begun) => slot.send(begun),
            Err(refused) => return refused.into(),
        }
    }
}

async fn read_frame(read: &mut OwnedReadHalf, node: &Node) -> Result<BytesMut, Ended> {
    let max = node.config.max_frame_bytes;
    let mut size = [0; 4];
    let idle = Duration::from_millis(node.config.max_idle_ms);
    match tokio::time::timeout(idle, read.read_exact(&mut size)).await {
        Err(_) => return Err(Ended::Idle),
        Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(Ended::Closed),
        Ok(result) => drop(result?),
    }
    let size = i32::from_be_bytes(size);
    let Some(len) = usize::try_from(size).ok().filter(|len| *len <= max) else {
        return Err(Ended::FrameTooLarge { bytes: size.into(), max });
    };
    let mut frame = BytesMut::zeroed(len);
    read.read_exact(&mut frame).await?;
    Ok(frame)
}

async fn write_replies(mut write: OwnedWriteHalf, mut replies: mpsc::Receiver<Pending>) {
    while let Some(Pending { correlation_id, header_version, begun }) = replies.recv().await {
        let reply = match begun {
            Begun::Done(reply) => reply,
            Begun::Later(reply) => match reply.await {
                Ok(reply) => reply,
                Err(error) => {
                    tracing::error!(%error, "closing a connection");
                    return;
                }
            },
            Begun::Unanswered => continue,
        };
        let prefix = reply.prefix(correlation_id, header_version);
        if write_reply(&mut write, prefix, reply).await.is_err() {
            return;
        }
    }
}

async fn write_reply(write: &mut OwnedWriteHalf, prefix: Bytes, reply: Reply) -> io::Result<()> {
    write.write_all(&prefix).await?;
    for chunk in reply.chunks {
        match chunk {
            Chunk::Bytes(bytes) => write.write_all(&bytes).await?,
        }
    }
    Ok(())
}
