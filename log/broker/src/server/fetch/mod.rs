//! Fetch: batches from the log's files to the socket, once there are enough of them.
//!
//! ```text
//!  request ─▶ session ─▶ reading: where each partition's bytes lie ─┬─ enough ──────▶ response ─▶ outbox: sendfile
//!                          ▲                                        │
//!                          └── told by a partition that grew ◀── wait, at most `max_wait_ms`
//! ```

mod reading;
mod response;
mod session;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use kafka_protocol::messages::{FetchRequest, TopicName};
use tokio::time::Instant;
use uuid::Uuid;

use self::reading::{Reading, Slot, Terms};
use self::response::Leader;
use self::session::{Asked, SessionCache, SessionRequest, Summary, TopicKey, Wanted};
use crate::server::api::{Refused, decode, malformed};
use crate::server::context::{Node, RequestContext};
use crate::server::reply::Reply;
use crate::types::Isolation;

/// Most bytes of records in a response (`fetch.max.bytes`).
const MAX_RESPONSE_BYTES: usize = 55 << 20;
/// Sessions kept (`max.incremental.fetch.session.cache.slots`).
const SESSION_SLOTS: usize = 1_000;
/// How long a fetch waits whose only answer is that partitions are offline or damaged, unless another of its partitions grows.
const BACK_OFF: Duration = Duration::from_millis(500);
/// Most partitions of one request.
const MAX_PARTITIONS: usize = 100_000;
/// The first version that names topics by their ids.
const BY_ID_VERSION: i16 = 13;

/// What fetches keep between them.
#[derive(Debug)]
pub(super) struct FetchState {
    sessions: SessionCache,
    started: Instant,
}

impl Default for FetchState {
    fn default() -> Self {
        Self { sessions: SessionCache::new(SESSION_SLOTS), started: Instant::now() }
    }
}

impl FetchState {
    fn now_ms(&self) -> i64 {
        i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX)
    }
}

/// Answers a Fetch request, once there is enough to tell or its time is up.
pub(super) async fn fetch(context: &RequestContext, version: i16, body: BytesMut) -> Result<Reply, Refused> {
    let request: FetchRequest = decode(body, version)?;
    let terms = terms(&request, version);
    let max_wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
    let state = &context.node.fetches;
    let turn = match state.sessions.begin(session_request(request, version)?, state.now_ms()) {
        Ok(turn) => turn,
        Err(error) => return Ok(response::refusal(version, error.code())),
    };
    let reading = Reading::new(context, terms, turn.wanted.clone()).read_all().await;
    let max_wait = if reading.is_refused() { BACK_OFF } else { max_wait };
    let reading =
        if reading.is_enough() || max_wait.is_zero() { reading } else { wait(context, reading, max_wait).await };
    let summaries: Vec<Summary> = reading.slots().iter().map(Slot::summary).collect();
    let answer = match state.sessions.finish(&turn, &summaries, state.now_ms(), random_id) {
        Ok(answer) => answer,
        Err(error) => return Ok(response::refusal(version, error.code())),
    };
    let included = reading.slots().iter().zip(&answer.included);
    let slots: Vec<&Slot> = included.filter(|(_, is_included)| **is_included).map(|(slot, _)| slot).collect();
    Ok(response::response(version, answer.session_id, &slots, leader(&context.node)))
}

/// This node leads every partition.
fn leader(node: &Node) -> Leader<'_> {
    Leader {
        id: node.config.node_id,
        epoch: node.broker.leader_epoch(),
        host: &node.advertised.host,
        port: node.advertised.port,
        rack: node.config.rack.as_deref(),
    }
}

/// Waits until there is enough, the time is up, or the server drains.
async fn wait(context: &RequestContext, reading: Reading, max_wait: Duration) -> Reading {
    let until = Instant::now() + max_wait;
    let mut time_up = std::pin::pin!(tokio::time::sleep_until(until));
    let mut drains = std::pin::pin!(context.node.drains());
    let mut reading = reading;
    while !reading.is_enough() {
        reading.watch_all();
        tokio::select! {
            ready = reading.ready() => reading = reading.read_again(ready).await,
            () = &mut time_up => break,
            () = &mut drains => break,
        }
    }
    reading
}

fn terms(request: &FetchRequest, version: i16) -> Terms {
    let size = |bytes: i32| usize::try_from(bytes).unwrap_or(0);
    let max_bytes = size(request.max_bytes).min(MAX_RESPONSE_BYTES);
    let replica_id = if version >= 15 { request.replica_state.replica_id } else { request.replica_id };
    Terms {
        version,
        isolation: if request.isolation_level == 1 { Isolation::ReadCommitted } else { Isolation::ReadUncommitted },
        max_bytes,
        min_bytes: size(request.min_bytes).min(max_bytes),
        is_replica: replica_id.0 >= 0,
    }
}

fn session_request(request: FetchRequest, version: i16) -> Result<SessionRequest, Refused> {
    let partitions: usize = request.topics.iter().map(|topic| topic.partitions.len()).sum();
    if partitions > MAX_PARTITIONS {
        return Err(malformed(format_args!("it names {partitions} partitions, more than {MAX_PARTITIONS}")));
    }
    let by_id = version >= BY_ID_VERSION;
    let key =
        |name: &TopicName, id: Uuid| if by_id { TopicKey::Id(id) } else { TopicKey::Name(Arc::from(name.as_str())) };
    let mut wanted = Vec::with_capacity(partitions);
    for topic in &request.topics {
        let key = key(&topic.topic, topic.topic_id);
        wanted.extend(topic.partitions.iter().map(|partition| Wanted {
            topic: key.clone(),
            partition: partition.partition,
            asked: Asked {
                offset: partition.fetch_offset,
                max_bytes: partition.partition_max_bytes,
                current_leader_epoch: partition.current_leader_epoch,
                last_fetched_epoch: partition.last_fetched_epoch,
            },
        }));
    }
    if has_repeated(&request) {
        wanted = once_each(wanted);
    }
    let mut forgotten = Vec::new();
    for topic in &request.forgotten_topics_data {
        let key = key(&topic.topic, topic.topic_id);
        forgotten.extend(topic.partitions.iter().map(|partition| (key.clone(), *partition)));
    }
    Ok(SessionRequest { id: request.session_id, epoch: request.session_epoch, by_id, wanted, forgotten })
}

/// Whether the request may name a partition more than once, which no client does.
fn has_repeated(request: &FetchRequest) -> bool {
    let mut topics = HashSet::with_capacity(request.topics.len());
    let mut indexes: Vec<i32> = Vec::new();
    request.topics.iter().any(|topic| {
        indexes.clear();
        indexes.extend(topic.partitions.iter().map(|partition| partition.partition));
        indexes.sort_unstable();
        !topics.insert((topic.topic.as_str(), topic.topic_id)) || indexes.windows(2).any(|pair| pair[0] == pair[1])
    })
}

/// Each partition once, at its first place, with what was asked of it last, as Kafka has it. So what a fetch takes to
/// wait is bounded by the partitions that there are.
fn once_each(wanted: Vec<Wanted>) -> Vec<Wanted> {
    let mut places = HashMap::with_capacity(wanted.len());
    let mut once: Vec<Wanted> = Vec::new();
    for wanted in wanted {
        let place = *places.entry((wanted.topic.clone(), wanted.partition)).or_insert(once.len());
        match once.get_mut(place) {
            Some(earlier) => *earlier = wanted,
            None => once.push(wanted),
        }
    }
    once
}

/// An id that nobody can guess, so that nobody takes another's session by accident.
fn random_id() -> i32 {
    // The lower half of a random UUID is random but for its first two bits.
    (Uuid::new_v4().as_u64_pair().1 & 0x7fff_ffff) as i32
}
