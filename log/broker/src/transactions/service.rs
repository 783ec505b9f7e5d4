//! The transaction coordinator: the state machine, the topic it is written to, and the hands that follow its steps.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use logmill_protocol::{Offset, ProducerId, Timestamp};
use logmill_storage::Flusher;
use parking_lot::Mutex;
use tokio::sync::RwLock;

use crate::batches::{self, Stamp};
use crate::blocking;
use crate::clock::Clock;
use crate::error::{BrokerError, Result};
use crate::groups::{GroupService, TransactionSequence};
use crate::internal::{self, Entry, KeyValue};
use crate::offline::Slot;
use crate::partition::{Partition, make_durable};
use crate::producer_ids::ProducerIds;
use crate::topics::Topics;
use crate::transactions::records;
use crate::transactions::state::{EndRequest, Ending, InitStep, Step, Transaction, Transactions, TxnError, TxnStatus};
use crate::types::{Membership, OfflinePartition, ProducerSession, TopicPartition};

/// A transaction that cannot be ended within this time is left to go on by itself.
const STUCK_AFTER: Duration = Duration::from_secs(30);
/// A transactional id without a transaction for this long is forgotten (`transactional.id.expiration.ms`): 7 days.
const IDLE_MS: u64 = 7 * 24 * 3_600_000;

/// Transactions, and where they are kept.
pub(crate) struct TransactionService {
    pub(super) topics: Arc<Topics>,
    groups: Arc<GroupService>,
    pub(super) partitions: Vec<Slot>,
    pub(super) flusher: Arc<Flusher>,
    clock: Arc<dyn Clock>,
    /// Held while a record is appended, so that the log and the state have the same order.
    pub(super) state: Mutex<Transactions>,
    /// Records that are appended and must be durable before they are applied. Changed only while `state` is held.
    unapplied: Mutex<HashMap<String, Unapplied>>,
    producers: Mutex<HashMap<String, Arc<Producer>>>,
    /// Transactions that are being ended because they are due.
    ending: Mutex<HashSet<String>>,
    producer_ids: ProducerIds,
}

/// A transactional id's newest record, which the state does not have yet.
struct Unapplied {
    offset: Offset,
    record: Transaction,
}

/// What one transactional id does at the moment.
#[derive(Default)]
struct Producer {
    /// Shared by appends, exclusive to ends: no append overlaps the end of its transaction. An append that its caller
    /// has given up holds it until it is over.
    gate: Arc<RwLock<()>>,
    /// The next sequence in each partition of the open transaction. Each transaction has an epoch, and an epoch's
    /// sequences start at 0.
    sequences: Mutex<HashMap<TopicPartition, Arc<Mutex<i32>>>>,
    /// The offsets that the open transaction commits: what lies before them must be durable first.
    sources: Mutex<BTreeMap<TopicPartition, Offset>>,
}

impl Producer {
    fn sequence(&self, partition: &TopicPartition) -> Arc<Mutex<i32>> {
        Arc::clone(self.sequences.lock().entry(partition.clone()).or_default())
    }

    /// Forgets the transaction that has ended.
    fn reset(&self) {
        self.sequences.lock().clear();
        self.sources.lock().clear();
    }
}

impl TransactionService {
    /// Replays the topic. A partition that cannot be understood is taken offline.
    pub(crate) fn open(
        topics: Arc<Topics>,
        groups: Arc<GroupService>,
        mut partitions: Vec<Slot>,
        flusher: Arc<Flusher>,
        clock: Arc<dyn Clock>,
    ) -> (Self, Vec<Arc<OfflinePartition>>) {
        let mut state = Transactions::default();
        let take_offline = |partition: &TopicPartition, error: &BrokerError| topics.take_offline(partition, error);
        let failed = internal::replay_all(&mut partitions, take_offline, |entry| {
            if let Entry::Record { key, value, .. } = entry {
                let (id, transaction) = records::decode(key, value)?;
                state.apply(&id, transaction);
            }
            Ok::<_, crate::wire::WireError>(())
        });
        let ids = state.iter().map(|(_, transaction)| transaction.producer_id);
        let producer_ids = ProducerIds::new(Arc::clone(&topics), ids);
        let this = Self {
            topics,
            groups,
            partitions,
            flusher,
            clock,
            state: Mutex::new(state),
            unapplied: Mutex::default(),
            producers: Mutex::default(),
            ending: Mutex::default(),
            producer_ids,
        };
        (this, failed)
    }

    /// The largest producer id that any transactional id has.
    pub(crate) fn largest_producer_id(&self) -> Option<i64> {
        self.state.lock().iter().map(|(_, transaction)| transaction.producer_id.0).max()
    }

    /// Begins a producer's life: ends what its predecessor left open and fences it.
    pub(crate) async fn init(self: &Arc<Self>, id: &str, timeout_ms: u64) -> Result<ProducerSession> {
        let (this, id) = (Arc::clone(self), id.to_owned());
        uncancelled(async move {
            let producer = this.producer(&id);
            let _gate = producer.gate.write().await;
            this.settle(&id).await?;
            let mut fresh = None;
            loop {
                let step = this.state.lock().init(&id, timeout_ms, this.clock.now(), fresh);
                match step {
                    InitStep::NeedProducerId => {
                        fresh = Some(this.producer_ids.take_transactional(this.clock.now()).await?)
                    }
                    InitStep::End(ending) => this.drive(&id, Some(ending)).await?,
                    InitStep::Begin(record) => {
                        this.write_durably(&id, record).await?;
                        producer.reset();
                        return this.session(&id);
                    }
                }
            }
        })
        .await
    }

    /// Appends to the session's transaction.
    pub(crate) async fn append(
        &self,
        session: &ProducerSession,
        partition: Arc<Partition>,
        batch: Bytes,
    ) -> Result<Offset> {
        self.state.lock().current(session)?;
        let producer = self.producer(&session.transactional_id);
        let gate = Arc::clone(&producer.gate).read_owned().await;
        self.add_partition(session, partition.name())?;
        let sequence = producer.sequence(partition.name());
        let (id, epoch, now) = (session.id, session.epoch, self.clock.now());
        let size = batch.len();
        let append = move || {
            let _gate = gate;
            let mut next = sequence.lock();
            let mut batch = batches::own(batch);
            let stamped = batches::stamp(&mut batch, Stamp { id, epoch, sequence: *next });
            let after = stamped.map_err(|error| BrokerError::batch(partition.name(), &error))?;
            let appended = partition.append(&mut batch, now)?;
            *next = after;
            Ok(appended.base_offset)
        };
        blocking::unless_small(size, append).await.map_err(|error| fenced_by_id(error, session))
    }

    /// Commits offsets with the session's transaction, fenced by the member's generation.
    pub(crate) async fn commit_offsets(
        &self,
        session: &ProducerSession,
        membership: &Membership,
        offsets: &[(TopicPartition, Offset)],
    ) -> Result<()> {
        self.state.lock().current(session)?;
        let producer = self.producer(&session.transactional_id);
        let gate = Arc::clone(&producer.gate).read_owned().await;
        // A worker that was fenced leaves the transaction as it is.
        self.groups.check_member(membership)?;
        if offsets.is_empty() {
            return Ok(self.state.lock().current(session).map(drop)?);
        }
        let partition = self.groups.partition(&membership.group)?;
        self.add_partition(session, partition.name())?;
        {
            // Noted first: who gives up waiting has written them all the same.
            let mut sources = producer.sources.lock();
            for (source, offset) in offsets {
                let end = sources.entry(source.clone()).or_default();
                *end = (*end).max(*offset);
            }
        }
        let next = producer.sequence(partition.name());
        let sequence = TransactionSequence { id: session.id, epoch: session.epoch, next, _gate: gate };
        let written = self.groups.commit_in_transaction(membership, offsets, sequence, self.clock.now()).await;
        written.map_err(|error| fenced_by_id(error, session))
    }

    /// Ends the session's transaction and returns the session to go on with.
    pub(crate) async fn end(self: &Arc<Self>, session: &ProducerSession, ending: Ending) -> Result<ProducerSession> {
        self.state.lock().request_end(session, ending)?;
        let (this, session) = (Arc::clone(self), session.clone());
        uncancelled(async move {
            let producer = this.producer(&session.transactional_id);
            let _gate = producer.gate.write().await;
            // A call that failed may have decided the ending all the same.
            this.settle(&session.transactional_id).await?;
            if this.state.lock().request_end(&session, ending)? == EndRequest::Proceed {
                this.drive(&session.transactional_id, Some(ending)).await?;
            }
            producer.reset();
            this.session(&session.transactional_id)
        })
        .await
    }

    /// Aborts transactions that are out of time, ends decided ones that an error cut short, forgets idle ids.
    pub(crate) async fn tick(self: &Arc<Self>) -> Result<()> {
        let now = self.clock.now();
        let (timed_out, unfinished) = {
            let state = self.state.lock();
            let mut unfinished = state.prepared();
            unfinished.extend(self.unapplied.lock().keys().cloned());
            (state.timed_out(now), unfinished)
        };
        // Side by side, so that one that is stuck holds up no other.
        let due = timed_out.into_iter().chain(unfinished).filter(|id| self.ending.lock().insert(id.clone()));
        let ends: Vec<_> = due.map(|id| (id.clone(), tokio::spawn(Arc::clone(self).end_due(id)))).collect();
        let mut first = Ok(());
        for (id, end) in ends {
            match tokio::time::timeout(STUCK_AFTER, end).await {
                Ok(ended) => first = first.and(blocking::joined(ended)),
                Err(_) => tracing::warn!(transactional_id = id, "the transaction is stuck"),
            }
        }
        first.and(self.forget_idle(now))
    }

    /// Ends a transaction that is out of time, or was decided and cut short.
    async fn end_due(self: Arc<Self>, id: String) -> Result<()> {
        let ended = self.try_end_due(&id).await;
        self.ending.lock().remove(&id);
        if let Err(error) = &ended {
            tracing::warn!(transactional_id = id, %error, "cannot end the transaction, trying again later");
        }
        ended
    }

    async fn try_end_due(&self, id: &str) -> Result<()> {
        let producer = self.producer(id);
        let _gate = producer.gate.write().await;
        self.settle(id).await?;
        // Looked at again: its producer may have been faster.
        let is_over = self.state.lock().timed_out(self.clock.now()).iter().any(|over| over == id);
        if is_over {
            tracing::warn!(transactional_id = id, "the transaction is out of time, aborting it");
        }
        self.drive(id, is_over.then_some(Ending::Abort)).await?;
        producer.reset();
        Ok(())
    }

    fn forget_idle(&self, now: Timestamp) -> Result<()> {
        let mut state = self.state.lock();
        for id in state.idle(now, IDLE_MS) {
            let mut producers = self.producers.lock();
            // Someone is at work under the id, and may have written a record that is not applied yet.
            let is_used = producers.get(&id).is_some_and(|producer| Arc::strong_count(producer) > 1);
            if !is_used && !self.unapplied.lock().contains_key(&id) {
                self.write(&mut state, &id, None)?;
                producers.remove(&id);
            }
        }
        Ok(())
    }

    /// Rewrites the topic's partitions whose dead records far outnumber the live ones. Waits for the disk.
    ///
    /// A record that is not applied yet is newer than what the state has under its id: it stays where it is, and the
    /// state is not written after it.
    pub(crate) fn trim(&self) -> Result<()> {
        for partition in self.partitions.iter().filter_map(Slot::online) {
            let start = {
                let state = self.state.lock();
                if !internal::is_bloated(partition, state.len()) {
                    continue;
                }
                let unapplied = self.unapplied.lock();
                let is_here =
                    |id: &str| internal::partition_of(id, &self.partitions).is_ok_and(|p| Arc::ptr_eq(p, partition));
                let oldest = unapplied.iter().filter(|(id, _)| is_here(id)).map(|(_, record)| record.offset).min();
                let end = partition.log().log_end();
                let written = state.iter().filter(|(id, _)| is_here(id) && !unapplied.contains_key(*id));
                let records = written.map(|(id, t)| key_value(id, Some(t)));
                internal::append(partition, records, None, self.clock.now())?;
                oldest.map_or(end, |oldest| oldest.min(end))
            };
            partition.stored(partition.log().sync())?;
            partition.stored(partition.log().delete_records_before(start))?;
        }
        Ok(())
    }

    /// Follows the steps until nothing is left to do. May be called again after an error.
    pub(super) async fn drive(&self, id: &str, ending: Option<Ending>) -> Result<()> {
        let mut fresh = None;
        loop {
            let step = self.state.lock().step(id, ending, self.clock.now(), fresh);
            match step {
                Step::Done => return Ok(()),
                Step::NeedProducerId => fresh = Some(self.producer_ids.take_transactional(self.clock.now()).await?),
                Step::Prepare { sync, record } => {
                    fail::fail_point!("broker::before_prepare", are_for_us(), |_| Err(BrokerError::Closed));
                    let mut ends = to_their_ends(&self.existing(sync)?);
                    if record.status == TxnStatus::PrepareCommit {
                        ends.extend(self.sources(id)?);
                    }
                    make_durable(ends, &self.flusher).await?;
                    self.write_durably(id, record).await?;
                    fail::fail_point!("broker::after_prepare", are_for_us(), |_| Err(BrokerError::Closed));
                }
                Step::Complete { partitions, ending, producer_id, epoch, record } => {
                    let partitions = self.existing(partitions)?;
                    for (n, partition) in partitions.iter().enumerate() {
                        if n > 0 {
                            fail::fail_point!("broker::between_markers", are_for_us(), |_| Err(BrokerError::Closed));
                        }
                        self.mark(partition, producer_id, epoch, ending).await?;
                    }
                    // Were the completion to reach the disk before the markers, a restart would not write them again.
                    make_durable(to_their_ends(&partitions), &self.flusher).await?;
                    fail::fail_point!("broker::after_markers", are_for_us(), |_| Err(BrokerError::Closed));
                    self.write(&mut self.state.lock(), id, Some(record))?;
                    fail::fail_point!("broker::after_complete", are_for_us(), |_| Err(BrokerError::Closed));
                }
            }
        }
    }

    /// Appends a marker. One that commits ends records of the epoch before its own: a transaction of the marker's epoch is a
    /// later one, of which power loss has taken a part.
    pub(super) async fn mark(
        &self,
        partition: &Arc<Partition>,
        producer_id: ProducerId,
        epoch: logmill_protocol::ProducerEpoch,
        ending: Ending,
    ) -> Result<()> {
        let now = self.clock.now();
        let open = partition.log().producer_state(producer_id).filter(|state| state.txn_first_offset.is_some());
        let kind = if open.is_some_and(|open| open.epoch >= epoch) { Ending::Abort } else { ending }.marker();
        match self.groups.owns(partition.name()) {
            true => self.groups.append_marker(partition, producer_id, epoch, kind, now).await,
            false => partition.append_marker(producer_id, epoch, kind, now).map(drop),
        }
    }

    /// The partition; `None` if it has been deleted meanwhile.
    fn open_partition(&self, name: &TopicPartition) -> Result<Option<Arc<Partition>>> {
        match self.topics.partition(name) {
            Err(BrokerError::UnknownTopic(_) | BrokerError::UnknownPartition { .. }) => Ok(None),
            found => found.map(Some),
        }
    }

    /// The partitions that have not been deleted meanwhile. One that is offline is not deleted: its transaction waits.
    fn existing(&self, partitions: impl IntoIterator<Item = TopicPartition>) -> Result<Vec<Arc<Partition>>> {
        partitions.into_iter().filter_map(|name| self.open_partition(&name).transpose()).collect()
    }

    /// What the transaction's offsets say has been read, and how far. A partition that is offline has nothing that is not on
    /// disk.
    fn sources(&self, id: &str) -> Result<Vec<(Arc<Partition>, Offset)>> {
        let sources = self.producer(id).sources.lock().clone();
        let mut ends = Vec::with_capacity(sources.len());
        for (name, offset) in sources {
            match self.open_partition(&name) {
                Err(BrokerError::Offline(_)) => {}
                found => ends.extend(found?.map(|partition| (partition, offset))),
            }
        }
        Ok(ends)
    }

    fn add_partition(&self, session: &ProducerSession, partition: &TopicPartition) -> Result<()> {
        let mut state = self.state.lock();
        if self.unapplied.lock().contains_key(&session.transactional_id) {
            // Whatever the record says, it ends the session's epoch.
            return Err(BrokerError::Fenced(session.transactional_id.clone()));
        }
        match state.add_partition(session, partition, self.clock.now())? {
            Some(record) => self.write(&mut state, &session.transactional_id, Some(record)),
            None => Ok(()),
        }
    }

    /// Appends a record and applies it.
    pub(super) fn write(&self, state: &mut Transactions, id: &str, record: Option<Transaction>) -> Result<()> {
        let partition = internal::partition_of(id, &self.partitions)?;
        internal::append(partition, [key_value(id, record.as_ref())], None, self.clock.now())?;
        self.apply(state, id, record);
        Ok(())
    }

    /// Appends a record, and applies it once it is durable. The caller holds the producer's gate.
    pub(super) async fn write_durably(&self, id: &str, record: Transaction) -> Result<()> {
        {
            let _state = self.state.lock();
            let partition = internal::partition_of(id, &self.partitions)?;
            let offset = partition.log().log_end();
            internal::append(partition, [key_value(id, Some(&record))], None, self.clock.now())?;
            self.unapplied.lock().insert(id.to_owned(), Unapplied { offset, record });
        }
        fail::fail_point!("broker::before_durable", are_for_us(), |_| Err(BrokerError::Closed));
        self.settle(id).await
    }

    /// Applies the record that is appended under the id, if there is one, as soon as it is durable. The caller holds the
    /// producer's gate.
    async fn settle(&self, id: &str) -> Result<()> {
        if !self.unapplied.lock().contains_key(id) {
            return Ok(());
        }
        internal::partition_of(id, &self.partitions)?.flush(&self.flusher).await?;
        let mut state = self.state.lock();
        if let Some(Unapplied { record, .. }) = self.unapplied.lock().remove(id) {
            self.apply(&mut state, id, Some(record));
        }
        Ok(())
    }

    /// Applies a record that was appended.
    fn apply(&self, state: &mut Transactions, id: &str, record: Option<Transaction>) {
        let (old, new) = (state.get(id).map(|t| t.producer_id), record.as_ref().map(|t| t.producer_id));
        state.apply(id, record);
        self.producer_ids.replace(old, new);
    }

    /// The producer ids of clients and transactional producers.
    pub(crate) fn producer_ids(&self) -> &ProducerIds {
        &self.producer_ids
    }

    fn producer(&self, id: &str) -> Arc<Producer> {
        Arc::clone(self.producers.lock().entry(id.to_owned()).or_default())
    }

    fn session(&self, id: &str) -> Result<ProducerSession> {
        self.state.lock().session(id).ok_or_else(|| BrokerError::Fenced(id.to_owned()))
    }
}

/// The partitions, each up to where it ends now.
pub(super) fn to_their_ends(partitions: &[Arc<Partition>]) -> Vec<(Arc<Partition>, Offset)> {
    partitions.iter().map(|partition| (Arc::clone(partition), partition.log().log_end())).collect()
}

fn key_value(id: &str, transaction: Option<&Transaction>) -> KeyValue {
    (records::key(id), transaction.map(records::value))
}

/// A partition knows producers by their ids; callers know transactional ids.
fn fenced_by_id(error: BrokerError, session: &ProducerSession) -> BrokerError {
    match error {
        BrokerError::Fenced(_) => BrokerError::Fenced(session.transactional_id.clone()),
        other => other,
    }
}

/// Runs to its end even if the caller goes away: a transaction is not left between two steps while the broker lives.
async fn uncancelled<T: Send + 'static>(work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    blocking::joined(tokio::spawn(work).await)
}

impl From<TxnError> for BrokerError {
    fn from(error: TxnError) -> Self {
        match error {
            TxnError::Fenced(id) => Self::Fenced(id),
            TxnError::OtherEnding(_) => Self::Invalid(error.to_string()),
        }
    }
}

/// Whether failpoints are meant for this thread: unit tests run beside each other in one process, and only one of them wants
/// to fail.
#[cfg(feature = "failpoints")]
fn are_for_us() -> bool {
    #[cfg(test)]
    return power_loss_tests::FAILS.get();
    #[cfg(not(test))]
    return true;
}

#[cfg(all(test, feature = "failpoints"))]
#[path = "power_loss_tests.rs"]
mod power_loss_tests;
#[cfg(test)]
#[path = "service_tests.rs"]
mod tests;
