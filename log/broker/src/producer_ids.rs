//! Producer ids: which have been handed out, and which belong to transactional producers.
//!
//! A client may write only under an id that this cluster handed out, and never under a transactional producer's: a batch
//! with somebody else's id and the largest epoch would fence that producer for good.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use logmill_protocol::{ProducerId, Timestamp};
use parking_lot::RwLock;
use tokio::sync::Mutex;

use crate::blocking;
use crate::error::{Refusal, Result};
use crate::topics::Topics;

/// Producer ids taken from the metadata at once.
pub(crate) const BLOCK: i64 = 1000;

/// The producer ids of this cluster.
pub(crate) struct ProducerIds {
    topics: Arc<Topics>,
    /// Allocated ids that no client has yet. Locked while more are allocated, so that ids only ascend.
    free: Mutex<Range<i64>>,
    /// Every id below this one has been handed out, or never will be.
    end: AtomicI64,
    /// The ids of transactional producers.
    transactional: RwLock<HashSet<ProducerId>>,
}

impl ProducerIds {
    /// The ids of the metadata. What earlier processes took and did not hand out is never handed out.
    pub(crate) fn new(topics: Arc<Topics>, transactional: impl Iterator<Item = ProducerId>) -> Self {
        let end = AtomicI64::new(topics.next_producer_id());
        let (free, transactional) = (Mutex::new(0..0), RwLock::new(transactional.collect()));
        Self { topics, free, end, transactional }
    }

    /// Begins with this id: more have been skipped than the metadata said at first.
    pub(crate) fn begin_at(&self, next: i64) {
        self.end.fetch_max(next, Ordering::AcqRel);
    }

    /// Hands out an id for a client.
    pub(crate) async fn take(&self, now: Timestamp) -> Result<ProducerId> {
        self.take_as(now, false).await
    }

    /// Hands out an id for a transactional producer. It is one until [`ProducerIds::replace`] says otherwise.
    pub(crate) async fn take_transactional(&self, now: Timestamp) -> Result<ProducerId> {
        self.take_as(now, true).await
    }

    async fn take_as(&self, now: Timestamp, transactional: bool) -> Result<ProducerId> {
        let mut free = self.free.lock().await;
        if free.is_empty() {
            let topics = Arc::clone(&self.topics);
            let first = blocking::run(move || topics.allocate_producer_ids(BLOCK, now)).await?;
            *free = first..first.saturating_add(BLOCK);
        }
        let id = free.start;
        free.start += 1;
        if transactional {
            // Before clients may use it.
            self.transactional.write().insert(ProducerId(id));
        }
        self.end.store(free.start, Ordering::Release);
        Ok(ProducerId(id))
    }

    /// Notes that a transactional producer has another id than before. A retired id is of no more use to anyone.
    pub(crate) fn replace(&self, old: Option<ProducerId>, new: Option<ProducerId>) {
        if old == new {
            return;
        }
        let mut transactional = self.transactional.write();
        old.map(|old| transactional.remove(&old));
        transactional.extend(new);
    }

    /// Checks that a client may write under the id.
    ///
    /// # Errors
    /// What to refuse its batch for.
    pub(crate) fn check_client(&self, id: ProducerId) -> Result<(), (Refusal, &'static str)> {
        if id.0 >= self.end.load(Ordering::Acquire) {
            return Err((Refusal::UnknownProducer, "this cluster has not handed out its producer id; get a new one"));
        }
        match self.transactional.read().contains(&id) {
            true => Err((Refusal::ForeignProducer, "its producer id is that of a transactional producer")),
            false => Ok(()),
        }
    }
}
