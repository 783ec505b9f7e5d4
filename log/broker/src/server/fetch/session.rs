//! Fetch sessions (KIP-227): a client that fetches from many partitions names them once, and is told of those that
//! changed. Nothing here does I/O or reads the clock.
//!
//! ```text
//!  client                         cache
//!  epoch 0, all partitions   ─▶   a session, if there is a slot: its id
//!  epoch 1, what changed     ─▶   the session's partitions, in order; those that return records move to the back
//!  epoch 2, …
//! ```

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use kafka_protocol::ResponseError;
use parking_lot::Mutex;
use uuid::Uuid;

/// No session.
const NO_SESSION: i32 = 0;
/// The epoch of a request that begins a session.
const INITIAL_EPOCH: i32 = 0;
/// The epoch of a request that wants no session, or ends its own.
const FINAL_EPOCH: i32 = -1;
/// A session that was used within this many milliseconds is not stale; one that is younger gives way to none.
const MIN_EVICTION_MS: i64 = 120_000;
/// Most partitions in all sessions together. A client beyond it goes on without a session.
const MAX_PARTITIONS: usize = 1_000_000;

/// A topic, as the client names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum TopicKey {
    Name(Arc<str>),
    Id(Uuid),
}

/// What a client wants of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) offset: i64,
    pub(super) max_bytes: i32,
    pub(super) current_leader_epoch: i32,
    pub(super) last_fetched_epoch: i32,
}

/// A partition of a request or session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) topic: TopicKey,
    pub(super) partition: i32,
    pub(super) asked: Asked,
}

/// What a request says of its session.
#[derive(Debug)]
pub(super) struct SessionRequest {
    pub(super) id: i32,
    pub(super) epoch: i32,
    /// Whether it names topics by their ids.
    pub(super) by_id: bool,
    pub(super) wanted: Vec<Wanted>,
    pub(super) forgotten: Vec<(TopicKey, i32)>,
}

/// What was read of a partition, as far as sessions care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) is_error: bool,
    pub(super) has_records: bool,
    pub(super) diverges: bool,
    pub(super) high_watermark: i64,
    pub(super) log_start: i64,
}

/// A request whose session is found.
#[derive(Debug)]
pub(super) struct Turn {
    /// The partitions to read, in order.
    pub(super) wanted: Vec<Wanted>,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Sessionless,
    Full { by_id: bool },
    Incremental { id: i32, epoch: i32, session: Arc<Mutex<Session>> },
}

/// What to answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) session_id: i32,
    /// Whether each partition of the turn is in the response.
    pub(super) included: Vec<bool>,
}

#[derive(Debug)]
struct Session {
    epoch: i32,
    by_id: bool,
    partitions: Partitions,
}

#[derive(Debug)]
struct Tracked {
    wanted: Wanted,
    /// What the client was told last; -1 before.
    high_watermark: i64,
    log_start: i64,
}

/// Partitions in the order they are served.
#[derive(Debug, Default)]
struct Partitions {
    places: HashMap<(TopicKey, i32), u64>,
    in_order: BTreeMap<u64, Tracked>,
    next: u64,
}

impl Partitions {
    /// Adds a partition at the back, or changes what is asked of it.
    fn put(&mut self, wanted: Wanted) {
        let key = (wanted.topic.clone(), wanted.partition);
        match self.places.get(&key).and_then(|place| self.in_order.get_mut(place)) {
            Some(tracked) => tracked.wanted = wanted,
            None => {
                self.places.insert(key, self.next);
                self.in_order.insert(self.next, Tracked { wanted, high_watermark: -1, log_start: -1 });
                self.next += 1;
            }
        }
    }

    fn remove(&mut self, key: &(TopicKey, i32)) {
        if let Some(place) = self.places.remove(key) {
            self.in_order.remove(&place);
        }
    }

    fn move_to_back(&mut self, key: &(TopicKey, i32)) {
        if let Some(place) = self.places.get_mut(key)
            && let Some(tracked) = self.in_order.remove(place)
        {
            *place = self.next;
            self.in_order.insert(self.next, tracked);
            self.next += 1;
        }
    }

    /// Notes what a partition's client is to be told. Returns whether that is anything new.
    fn tell(&mut self, key: &(TopicKey, i32), summary: &Summary) -> bool {
        let Some(tracked) = self.places.get(key).and_then(|place| self.in_order.get_mut(place)) else { return true };
        let is_new = summary.is_error
            || summary.has_records
            || summary.diverges
            || tracked.high_watermark != summary.high_watermark
            || tracked.log_start != summary.log_start;
        // After an error the partition is told of again, whatever its marks.
        tracked.high_watermark = if summary.is_error { -1 } else { summary.high_watermark };
        tracked.log_start = summary.log_start;
        if summary.has_records {
            self.move_to_back(key);
        }
        is_new
    }

    fn wanted(&self) -> Vec<Wanted> {
        self.in_order.values().map(|tracked| tracked.wanted.clone()).collect()
    }

    fn len(&self) -> usize {
        self.in_order.len()
    }
}

#[derive(Debug)]
struct Slot {
    session: Arc<Mutex<Session>>,
    created_ms: i64,
    used_ms: i64,
    partitions: usize,
}

/// The sessions of all clients, as many as there are slots.
#[derive(Debug)]
pub(super) struct SessionCache {
    slots: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    sessions: HashMap<i32, Slot>,
    /// (last use, id).
    by_use: BTreeSet<(i64, i32)>,
    /// (partitions, id) of those that are old enough to give way to larger ones.
    evictable: BTreeSet<(usize, i32)>,
    partitions: usize,
}

impl State {
    fn remove(&mut self, id: i32) {
        if let Some(slot) = self.sessions.remove(&id) {
            self.by_use.remove(&(slot.used_ms, id));
            self.evictable.remove(&(slot.partitions, id));
            self.partitions -= slot.partitions;
        }
    }

    /// Notes that a session was used, and how large it is.
    fn touch(&mut self, id: i32, now_ms: i64, partitions: usize) {
        let Some(slot) = self.sessions.get_mut(&id) else { return };
        self.by_use.remove(&(slot.used_ms, id));
        self.evictable.remove(&(slot.partitions, id));
        self.partitions = self.partitions - slot.partitions + partitions;
        (slot.used_ms, slot.partitions) = (now_ms, partitions);
        self.by_use.insert((now_ms, id));
        if now_ms - slot.created_ms > MIN_EVICTION_MS {
            self.evictable.insert((partitions, id));
        }
    }

    /// Makes room for a session of so many partitions, if one that is stale or smaller can go.
    fn evict_for(&mut self, partitions: usize, now_ms: i64) -> bool {
        let stale = self.by_use.first().filter(|(used_ms, _)| now_ms - used_ms > MIN_EVICTION_MS).map(|(_, id)| *id);
        let smaller = || self.evictable.first().filter(|(size, _)| *size < partitions).map(|(_, id)| *id);
        match stale.or_else(smaller) {
            Some(id) => {
                self.remove(id);
                true
            }
            None => false,
        }
    }
}

impl SessionCache {
    /// A cache of `slots` sessions (`max.incremental.fetch.session.cache.slots`).
    pub(super) fn new(slots: usize) -> Self {
        Self { slots, state: Mutex::default() }
    }

    /// Finds the session of a request, and what is to be read for it.
    pub(super) fn begin(&self, request: SessionRequest, now_ms: i64) -> Result<Turn, ResponseError> {
        let SessionRequest { id, epoch, by_id, wanted, forgotten } = request;
        if epoch == INITIAL_EPOCH || epoch == FINAL_EPOCH {
            if id != NO_SESSION {
                self.state.lock().remove(id);
            }
            let kind = if epoch == FINAL_EPOCH { Kind::Sessionless } else { Kind::Full { by_id } };
            return Ok(Turn { wanted, kind });
        }
        let mut state = self.state.lock();
        let session = state.sessions.get(&id).map(|slot| Arc::clone(&slot.session));
        let session = session.ok_or(ResponseError::FetchSessionIdNotFound)?;
        let mut open = session.lock();
        if open.epoch != epoch {
            return Err(ResponseError::InvalidFetchSessionEpoch);
        }
        if open.by_id != by_id {
            return Err(ResponseError::FetchSessionTopicIdError);
        }
        for wanted in wanted {
            open.partitions.put(wanted);
        }
        for key in &forgotten {
            open.partitions.remove(key);
        }
        let partitions = open.partitions.len();
        if partitions == 0 {
            state.remove(id);
            return Ok(Turn { wanted: Vec::new(), kind: Kind::Sessionless });
        }
        state.touch(id, now_ms, partitions);
        if state.partitions > MAX_PARTITIONS {
            state.remove(id);
            return Err(ResponseError::FetchSessionIdNotFound);
        }
        open.epoch = next_epoch(epoch);
        let (wanted, epoch) = (open.partitions.wanted(), open.epoch);
        drop(open);
        Ok(Turn { wanted, kind: Kind::Incremental { id, epoch, session } })
    }

    /// Says which of the turn's partitions, of which `read` was read, the response tells of.
    pub(super) fn finish(
        &self,
        turn: &Turn,
        read: &[Summary],
        now_ms: i64,
        random_id: impl FnMut() -> i32,
    ) -> Result<Answer, ResponseError> {
        match &turn.kind {
            Kind::Sessionless => Ok(Answer { session_id: NO_SESSION, included: vec![true; read.len()] }),
            Kind::Full { by_id } => {
                let session_id = self.open(turn, *by_id, read, now_ms, random_id);
                Ok(Answer { session_id, included: vec![true; read.len()] })
            }
            Kind::Incremental { id, epoch, session } => {
                let mut session = session.lock();
                // Someone else went on with it meanwhile.
                if session.epoch != *epoch {
                    return Err(ResponseError::InvalidFetchSessionEpoch);
                }
                let tell = |(wanted, summary): (&Wanted, &Summary)| {
                    session.partitions.tell(&(wanted.topic.clone(), wanted.partition), summary)
                };
                Ok(Answer { session_id: *id, included: turn.wanted.iter().zip(read).map(tell).collect() })
            }
        }
    }

    /// Opens a session if there is room for it.
    fn open(&self, turn: &Turn, by_id: bool, read: &[Summary], now_ms: i64, mut random_id: impl FnMut() -> i32) -> i32 {
        let mut partitions = Partitions::default();
        for (wanted, summary) in turn.wanted.iter().zip(read) {
            let key = (wanted.topic.clone(), wanted.partition);
            partitions.put(wanted.clone());
            partitions.tell(&key, summary);
        }
        let size = partitions.len();
        let mut state = self.state.lock();
        let is_full = state.sessions.len() >= self.slots;
        if size == 0 || state.partitions + size > MAX_PARTITIONS || (is_full && !state.evict_for(size, now_ms)) {
            return NO_SESSION;
        }
        let id = loop {
            let id = random_id();
            if id > NO_SESSION && !state.sessions.contains_key(&id) {
                break id;
            }
        };
        let session = Arc::new(Mutex::new(Session { epoch: next_epoch(INITIAL_EPOCH), by_id, partitions }));
        state.sessions.insert(id, Slot { session, created_ms: now_ms, used_ms: now_ms, partitions: 0 });
        state.touch(id, now_ms, size);
        id
    }
}

/// Epochs count from 1 for ever.
fn next_epoch(epoch: i32) -> i32 {
    epoch.checked_add(1).unwrap_or(1)
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
