//! One connection, one task: frames in, requests begun one after another, replies out in the same order.
//!
//! ```text
//!  socket ─▶ frames ─▶ queue ─▶ running ─▶ pending ─▶ outbox ─▶ socket
//!            read ahead         one at     begun, and  replies that the
//!            within bounds      a time     waiting     client has not read
//! ```
//! Every stage is bounded, and a full one holds up those before it, down to the client's own socket. Reading ahead is
//! what notices that the client has gone while a request waits.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use kafka_protocol::messages::ApiKey;
use kafka_protocol::protocol::StrBytes;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::server::api::{self, Begun, Refused};
use crate::server::context::{Node, Principal, RequestContext};
use crate::server::frames::{Frame, FrameError, Frames, Read};
use crate::server::header::Header;
use crate::server::outbox::Outbox;
use crate::server::reply::Unencodable;

/// The next request of a connection is begun once less than this, in bytes, of its earlier replies is unread.
const REPLY_BACKLOG_BYTES: usize = 1 << 20;
/// The next request of a connection is read ahead while those that wait have less than this, in bytes.
const READ_AHEAD_BYTES: usize = 1 << 20;

/// A request up to this size, in bytes, takes less time than to send a reply.
const QUICK_REQUEST_BYTES: usize = 32 << 10;
/// A request has a millisecond for so many bytes, beyond the time that every request has: about 4 Mbit/s, so that one of the
/// largest that only trickles in gives its memory back within minutes.
const MIN_BYTES_PER_MS: u64 = 512;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("no request for too long")]
    Idle,
    #[error("a request that does not arrive whole")]
    SlowRequest,
    #[error("the client does not read its replies")]
    SlowReader,
    /// By the client between two requests.
    #[error("closed")]
    Closed,
    #[error("the server stops")]
    Stopping,
}

type Running = Pin<Box<dyn Future<Output = Result<Begun, Refused>> + Send>>;

/// The request that is being begun.
struct Current {
    correlation_id: i32,
    header_version: i16,
    api: ApiKey,
    running: Running,
}

/// A request that was begun, in the order of arrival.
struct Pending {
    correlation_id: i32,
    header_version: i16,
    begun: Begun,
}

struct Connection {
    node: Arc<Node>,
    peer: SocketAddr,
    principal: Principal,
    client_id: Option<StrBytes>,
    queue: VecDeque<Frame>,
    queued_bytes: usize,
    current: Option<Current>,
    pending: VecDeque<Pending>,
    outbox: Outbox,
    /// Why no more is read; what was begun is still answered.
    ending: Option<Ended>,
    /// When a request came, or an answer went out, last.
    active: Instant,
    /// When the outbox was filled, or the client last read of it.
    writing: Option<Instant>,
    /// When a frame that is not whole began to arrive, and until when it must be.
    reading: Option<(Instant, Instant)>,
}

/// Serves a connection until either end closes it.
pub(super) async fn serve(mut stream: TcpStream, peer: SocketAddr, principal: Principal, node: Arc<Node>) {
    let mut connection = Connection {
        node,
        peer,
        principal,
        client_id: None,
        queue: VecDeque::new(),
        queued_bytes: 0,
        current: None,
        pending: VecDeque::new(),
        outbox: Outbox::default(),
        ending: None,
        active: Instant::now(),
        writing: None,
        reading: None,
    };
    match connection.run(&mut stream).await {
        reason @ (Ended::Closed | Ended::Idle | Ended::Stopping | Ended::Io(_) | Ended::Frame(FrameError::Io(_))) => {
            tracing::debug!(%peer, %reason, "connection ended");
        }
        reason => {
            let client = connection.client_id.as_deref().unwrap_or_default();
            tracing::warn!(%peer, client, %reason, "closing a connection");
        }
    }
}

impl Connection {
    async fn run(&mut self, stream: &mut TcpStream) -> Ended {
        let (mut read, mut write) = stream.split();
        let node = Arc::clone(&self.node);
        let mut frames = Frames::new(node.config.max_frame_bytes);
        let mut drains = std::pin::pin!(node.drains());
        let mut timer = std::pin::pin!(tokio::time::sleep_until(self.deadline()));
        loop {
            if self.ending.is_none() && *node.stopping.borrow() {
                self.stop(Ended::Stopping);
            }
            self.take(&mut frames);
            self.begin_next();
            self.answer();
            if self.is_done()
                && let Some(ended) = self.ending.take()
            {
                return ended;
            }
            let may_read = self.may_read();
            let is_awaited = may_read && frames.is_within_frame();
            self.reading = is_awaited.then(|| self.whole_by(frames.size()));
            self.writing = (!self.outbox.is_empty()).then(|| self.writing.unwrap_or_else(Instant::now));
            if self.deadline() < timer.deadline() {
                timer.as_mut().reset(self.deadline());
            }
            tokio::select! {
                biased;
                begun = run(&mut self.current), if self.current.is_some() => self.begun(begun),
                answered = answered(&mut self.pending), if !self.pending.is_empty() => {
                    if let Err(error) = answered {
                        self.lose(Refused::from(error).into());
                    }
                }
                // After the requests that are there already, so that one call sends the replies to all of them.
                written = self.outbox.write_some(&mut write), if !self.outbox.is_empty() => match written {
                    Ok(()) => (self.active, self.writing) = (Instant::now(), None),
                    Err(error) => self.lose(error.into()),
                },
                read = frames.read(&mut read, &node.memory), if may_read => self.read(read),
                () = &mut drains, if self.ending.is_none() => self.stop(Ended::Stopping),
                () = &mut timer => {
                    if let Err(ended) = self.check_time() {
                        return ended;
                    }
                    timer.as_mut().reset(self.deadline());
                }
            }
        }
    }

    /// When the frame of this size that is being read began to arrive, and until when it must be whole.
    fn whole_by(&self, size: usize) -> (Instant, Instant) {
        let since = self.reading.map_or_else(Instant::now, |(since, _)| since);
        let allowed_ms = self.node.config.frame_timeout_ms.saturating_add(size as u64 / MIN_BYTES_PER_MS);
        (since, since + Duration::from_millis(allowed_ms))
    }

    fn may_read(&self) -> bool {
        let requests = self.queue.len() + self.pending.len() + usize::from(self.current.is_some());
        self.ending.is_none()
            && requests < self.node.config.max_in_flight.max(1)
            && self.queued_bytes < READ_AHEAD_BYTES
    }

    /// Queues the requests that have been read, within bounds.
    fn take(&mut self, frames: &mut Frames) {
        while self.may_read() {
            let is_next = self.queue.is_empty() && self.current.is_none();
            match frames.take(&self.node.memory, is_next) {
                Ok(Some(frame)) => {
                    (self.active, self.reading) = (Instant::now(), None);
                    self.queued_bytes += frame.bytes.len();
                    self.queue.push_back(frame);
                }
                Ok(None) => return,
                Err(error) => self.stop(error.into()),
            }
        }
    }

    fn read(&mut self, read: Result<Read, FrameError>) {
        match read {
            Ok(Read::Part) => {}
            Ok(Read::End) => self.stop(Ended::Closed),
            Err(FrameError::Io(error)) => self.lose(error.into()),
            Err(error) => self.stop(error.into()),
        }
    }

    /// Begins the next request, if none is being begun and the client reads its replies.
    fn begin_next(&mut self) {
        while self.current.is_none() && self.may_begin() {
            let Some(Frame { bytes: mut body, room }) = self.queue.pop_front() else { return };
            self.queued_bytes -= body.len();
            let header = match Header::take(&mut body, self.client_id.as_ref()) {
                Ok(header) => header,
                Err(refused) => return self.refuse(refused),
            };
            self.client_id.clone_from(&header.client_id);
            if waits(header.api) && self.ending.is_some() {
                continue;
            }
            let context = RequestContext {
                node: Arc::clone(&self.node),
                principal: self.principal,
                peer: self.peer,
                client_id: header.client_id.clone(),
            };
            let (api, correlation_id, header_version) =
                (header.api, header.correlation_id, header.response_header_version());
            // A request that waits is decoded at once: it must not keep others out of the memory that it has no use for.
            let room = (!waits(api)).then_some(room);
            let running: Running = Box::pin(async move {
                fail::fail_point!("server::begin");
                let begun = api::begin(&context, &header, body).await;
                drop(room);
                begun
            });
            self.current = Some(Current { api, correlation_id, header_version, running });
        }
    }

    /// Replies that are ready wait for requests that take no time, and for no others.
    fn may_begin(&self) -> bool {
        let is_quick = self.queue.front().is_some_and(|next| next.bytes.len() <= QUICK_REQUEST_BYTES);
        self.outbox.len() < if is_quick { REPLY_BACKLOG_BYTES } else { 1 }
    }

    fn begun(&mut self, begun: Result<Begun, Refused>) {
        let Some(Current { correlation_id, header_version, .. }) = self.current.take() else { return };
        match begun {
            Ok(Begun::Unanswered) => {}
            Ok(begun) => self.pending.push_back(Pending { correlation_id, header_version, begun }),
            Err(refused) => self.refuse(refused),
        }
    }

    /// Sends the replies that are ready, in the order of their requests.
    fn answer(&mut self) {
        while let Some(Pending { begun: Begun::Done(reply), .. }) = self.pending.front_mut() {
            let reply = std::mem::take(reply);
            if let Some(Pending { correlation_id, header_version, .. }) = self.pending.pop_front() {
                self.outbox.push(correlation_id, header_version, reply);
            }
        }
    }

    /// Reads no more because of a request that cannot be answered; those before it are.
    fn refuse(&mut self, refused: Refused) {
        self.queue.clear();
        self.queued_bytes = 0;
        self.ending = Some(refused.into());
    }

    /// Reads no more. What the client sent takes effect, but nothing waits for its sake any longer.
    fn stop(&mut self, ended: Ended) {
        if matches!(ended, Ended::Stopping) {
            // Nothing of these has begun: the client may ask another node, or this one after its restart.
            self.queue.clear();
            self.queued_bytes = 0;
        }
        // A fetch answers a server that stops with what there is.
        let answers = |api| api == ApiKey::Fetch && matches!(ended, Ended::Stopping);
        self.current.take_if(|current| waits(current.api) && !answers(current.api));
        self.ending.get_or_insert(ended);
    }

    /// Reads and writes no more: the client has gone.
    fn lose(&mut self, ended: Ended) {
        self.stop(ended);
        self.pending.clear();
        self.outbox.clear();
    }

    fn is_done(&self) -> bool {
        self.ending.is_some()
            && self.queue.is_empty()
            && self.current.is_none()
            && self.pending.is_empty()
            && self.outbox.is_empty()
    }

    /// When to look at the time again.
    fn deadline(&self) -> Instant {
        let config = &self.node.config;
        let after = |since: Option<Instant>, ms| since.map(|since| since + Duration::from_millis(ms));
        let idle = self.active + Duration::from_millis(config.max_idle_ms);
        // Beyond its idle time a connection is looked at as often, until what keeps it busy ends.
        let idle =
            if self.is_idle() { idle } else { idle.max(Instant::now() + Duration::from_millis(config.max_idle_ms)) };
        let timeouts = [after(self.writing, config.write_timeout_ms), self.reading.map(|(_, until)| until)];
        timeouts.into_iter().flatten().fold(idle, Instant::min)
    }

    fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.current.is_none() && self.pending.is_empty()
    }

    fn check_time(&self) -> Result<(), Ended> {
        let config = &self.node.config;
        let is_over = |since: Instant, ms| since.elapsed() >= Duration::from_millis(ms);
        if self.writing.is_some_and(|since| is_over(since, config.write_timeout_ms)) {
            return Err(Ended::SlowReader);
        }
        if self.reading.is_some_and(|(_, until)| until <= Instant::now()) {
            return Err(Ended::SlowRequest);
        }
        match self.is_idle() && is_over(self.active, config.max_idle_ms) {
            true => Err(Ended::Idle),
            false => Ok(()),
        }
    }
}

/// Whether such a request may wait for something to happen, which no longer matters once the client has gone.
fn waits(api: ApiKey) -> bool {
    matches!(api, ApiKey::Fetch | ApiKey::JoinGroup | ApiKey::SyncGroup)
}

async fn run(current: &mut Option<Current>) -> Result<Begun, Refused> {
    match current {
        Some(current) => current.running.as_mut().await,
        None => std::future::pending().await,
    }
}

/// Waits for the first reply; takes those after it that are ready, too.
async fn answered(pending: &mut VecDeque<Pending>) -> Result<(), Unencodable> {
    poll_fn(|context| {
        let mut is_any = false;
        for Pending { begun, .. } in pending.iter_mut() {
            if let Begun::Later(reply) = begun {
                match reply.as_mut().poll(context) {
                    Poll::Ready(Ok(reply)) => *begun = Begun::Done(reply),
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => break,
                }
            }
            is_any = true;
        }
        if is_any { Poll::Ready(Ok(())) } else { Poll::Pending }
    })
    .await
}
