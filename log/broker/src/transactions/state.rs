//! The transaction coordinator's state machine: no clock, no I/O, no randomness.
//!
//! The caller asks [`Transactions::step`] what to do next, does it, and applies the step's record; so a transaction that
//! was cut short by an error or by a restart is ended by asking again. Every step may be repeated.
//!
//! Each end of a transaction bumps the producer epoch (KIP-890): markers carry the bumped epoch, so a late append of the
//! ended transaction is fenced by the partition itself. Before the epoch would leave its 16 bits, the producer gets a
//! new producer id: clients use epochs up to 32,766, and 32,767 is left for the marker that ends the last of them.

use std::collections::{BTreeMap, BTreeSet};

use logmill_protocol::{ControlKind, ProducerEpoch, ProducerId, Timestamp};

use crate::types::{ProducerSession, TopicPartition};

/// The last epoch that a client gets; the one after it only fences.
pub const LAST_CLIENT_EPOCH: ProducerEpoch = ProducerEpoch(i16::MAX - 1);

/// Where a transactional id stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TxnStatus {
    /// A producer was initialised; nothing has been written yet.
    Empty,
    /// A transaction is open.
    Ongoing,
    /// It is decided: it commits, whatever happens.
    PrepareCommit,
    /// It is decided: it aborts, whatever happens.
    PrepareAbort,
    /// The last transaction has committed.
    CompleteCommit,
    /// The last transaction has aborted.
    CompleteAbort,
}

/// How to end a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Make it visible.
    Commit,
    /// Drop it.
    Abort,
}

impl Ending {
    /// The marker that says so.
    #[must_use]
    pub fn marker(self) -> ControlKind {
        match self {
            Self::Commit => ControlKind::Commit,
            Self::Abort => ControlKind::Abort,
        }
    }

    fn prepared(self) -> TxnStatus {
        match self {
            Self::Commit => TxnStatus::PrepareCommit,
            Self::Abort => TxnStatus::PrepareAbort,
        }
    }

    fn completed(self) -> TxnStatus {
        match self {
            Self::Commit => TxnStatus::CompleteCommit,
            Self::Abort => TxnStatus::CompleteAbort,
        }
    }
}

/// A transactional id's producer and its latest transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// The producer.
    pub producer_id: ProducerId,
    /// Its epoch; that of the markers while the transaction is being ended.
    pub epoch: ProducerEpoch,
    /// An open transaction is aborted after this long.
    pub timeout_ms: u64,
    /// Where it stands.
    pub status: TxnStatus,
    /// The partitions that the transaction has written to.
    pub partitions: BTreeSet<TopicPartition>,
    /// When the record was made.
    pub updated_at: Timestamp,
    /// When the transaction was opened.
    pub started_at: Timestamp,
}

impl Transaction {
    /// Whether its end is not yet marked everywhere.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.status, TxnStatus::Ongoing | TxnStatus::PrepareCommit | TxnStatus::PrepareAbort)
    }
}

/// Why the coordinator refuses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TxnError {
    /// A newer producer is at work under the transactional id, or the transaction timed out.
    #[error("producer `{0}` was fenced")]
    Fenced(String),
    /// The transaction is being ended the other way.
    #[error("the transaction of `{0}` is being ended the other way already")]
    OtherEnding(String),
}

/// What `init_producer` comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InitStep {
    /// Ask again with a producer id that nobody has.
    NeedProducerId,
    /// First end what the predecessor left open, then ask again.
    End(Ending),
    /// Make this record durable and apply it: the new producer's.
    Begin(Transaction),
}

/// What to do next to end a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Done,
    /// Ask again with a producer id that nobody has.
    NeedProducerId,
    /// Sync the partitions, then make the record durable, then apply it.
    Prepare {
        /// What the transaction wrote to, if it commits.
        sync: BTreeSet<TopicPartition>,
        /// The decision.
        record: Transaction,
    },
    /// Append the marker to each partition, sync them, then append and apply the record.
    Complete {
        /// The partitions that wait for the marker.
        partitions: BTreeSet<TopicPartition>,
        /// Commit or abort.
        ending: Ending,
        /// The marker's producer.
        producer_id: ProducerId,
        /// The marker's epoch: one more than the transaction's records have.
        epoch: ProducerEpoch,
        /// The producer after the transaction.
        record: Transaction,
    },
}

/// What a request to end a transaction comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndRequest {
    /// No transaction is open, or it has been ended this way already: nothing is to be done.
    Nothing,
    /// Follow the steps.
    Proceed,
}

/// All transactional ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transactions {
    by_id: BTreeMap<String, Transaction>,
}

impl Transactions {
    /// Applies a record; `None` forgets the transactional id.
    pub fn apply(&mut self, transactional_id: &str, record: Option<Transaction>) {
        match record {
            Some(record) => self.by_id.insert(transactional_id.to_owned(), record),
            None => self.by_id.remove(transactional_id),
        };
    }

    /// What is known of a transactional id.
    #[must_use]
    pub fn get(&self, transactional_id: &str) -> Option<&Transaction> {
        self.by_id.get(transactional_id)
    }

    /// All transactional ids.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Transaction)> {
        self.by_id.iter().map(|(id, transaction)| (id.as_str(), transaction))
    }

    /// How many transactional ids there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there is no transactional id.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// The session of the producer as it stands now.
    #[must_use]
    pub fn session(&self, transactional_id: &str) -> Option<ProducerSession> {
        let transaction = self.by_id.get(transactional_id)?;
        Some(ProducerSession {
            transactional_id: transactional_id.to_owned(),
            id: transaction.producer_id,
            epoch: transaction.epoch,
        })
    }

    /// What a new producer under the transactional id needs.
    #[must_use]
    pub fn init(&self, transactional_id: &str, timeout_ms: u64, now: Timestamp, fresh: Option<ProducerId>) -> InitStep {
        let known = self.by_id.get(transactional_id);
        let bumped = match known.map(|transaction| (transaction, transaction.status)) {
            Some((_, TxnStatus::Ongoing | TxnStatus::PrepareAbort)) => return InitStep::End(Ending::Abort),
            Some((_, TxnStatus::PrepareCommit)) => return InitStep::End(Ending::Commit),
            Some((transaction, _)) => client_epoch(transaction.producer_id, transaction.epoch.0.checked_add(1)),
            None => None,
        };
        let Some((producer_id, epoch)) = bumped.or_else(|| Some((fresh?, ProducerEpoch(0)))) else {
            return InitStep::NeedProducerId;
        };
        InitStep::Begin(Transaction {
            producer_id,
            epoch,
            timeout_ms,
            status: TxnStatus::Empty,
            partitions: BTreeSet::new(),
            updated_at: now,
            started_at: Timestamp::NONE,
        })
    }

    /// Adds a partition to the session's transaction, opening one if there is none. The record is to be appended and
    /// applied before anything is written to the partition; `None` if the partition is part of it already.
    ///
    /// # Errors
    /// `Fenced` if the session is not the current one.
    pub fn add_partition(
        &self,
        session: &ProducerSession,
        partition: &TopicPartition,
        now: Timestamp,
    ) -> Result<Option<Transaction>, TxnError> {
        let current = self.current(session)?;
        if current.status == TxnStatus::Ongoing && current.partitions.contains(partition) {
            return Ok(None);
        }
        let mut record = current.clone();
        if record.status != TxnStatus::Ongoing {
            record.status = TxnStatus::Ongoing;
            record.started_at = now;
            record.partitions.clear();
        }
        record.updated_at = now;
        record.partitions.insert(partition.clone());
        Ok(Some(record))
    }

    /// Checks that the session may end its transaction so.
    ///
    /// A session whose call to end failed may call again: while the transaction is being ended, and after that, it still
    /// bears the epoch before the bump.
    ///
    /// # Errors
    /// `Fenced` if the session is not the current one; `OtherEnding` if it is being ended the other way.
    pub fn request_end(&self, session: &ProducerSession, ending: Ending) -> Result<EndRequest, TxnError> {
        let fenced = || TxnError::Fenced(session.transactional_id.clone());
        let current = self.by_id.get(&session.transactional_id).ok_or_else(fenced)?;
        if current.producer_id != session.id {
            return Err(fenced());
        }
        let is_current = current.epoch == session.epoch;
        let before_bump = session.epoch.0.checked_add(1) == Some(current.epoch.0);
        match current.status {
            TxnStatus::Ongoing if is_current => Ok(EndRequest::Proceed),
            TxnStatus::Empty | TxnStatus::CompleteCommit | TxnStatus::CompleteAbort if is_current => {
                Ok(EndRequest::Nothing)
            }
            TxnStatus::PrepareCommit | TxnStatus::PrepareAbort if before_bump => {
                match current.status == ending.prepared() {
                    true => Ok(EndRequest::Proceed),
                    false => Err(TxnError::OtherEnding(session.transactional_id.clone())),
                }
            }
            status if before_bump && status == ending.completed() => Ok(EndRequest::Nothing),
            _ => Err(fenced()),
        }
    }

    /// What to do next to end the transaction. `ending` decides over an open one only.
    #[must_use]
    pub fn step(
        &self,
        transactional_id: &str,
        ending: Option<Ending>,
        now: Timestamp,
        fresh: Option<ProducerId>,
    ) -> Step {
        let Some(current) = self.by_id.get(transactional_id) else { return Step::Done };
        let ending = match (current.status, ending) {
            (TxnStatus::Ongoing, Some(ending)) => return prepare(current, ending, now),
            (TxnStatus::PrepareCommit, _) => Ending::Commit,
            (TxnStatus::PrepareAbort, _) => Ending::Abort,
            _ => return Step::Done,
        };
        let next = client_epoch(current.producer_id, Some(current.epoch.0));
        let Some((producer_id, epoch)) = next.or_else(|| Some((fresh?, ProducerEpoch(0)))) else {
            return Step::NeedProducerId;
        };
        let record = Transaction {
            producer_id,
            epoch,
            status: ending.completed(),
            partitions: BTreeSet::new(),
            updated_at: now,
            ..current.clone()
        };
        Step::Complete {
            partitions: current.partitions.clone(),
            ending,
            producer_id: current.producer_id,
            epoch: current.epoch,
            record,
        }
    }

    /// Transactional ids whose transaction is decided but not ended everywhere.
    #[must_use]
    pub fn prepared(&self) -> Vec<String> {
        let is_prepared = |t: &Transaction| matches!(t.status, TxnStatus::PrepareCommit | TxnStatus::PrepareAbort);
        self.by_id.iter().filter(|(_, t)| is_prepared(t)).map(|(id, _)| id.clone()).collect()
    }

    /// Transactional ids whose transaction has been open for longer than its timeout.
    #[must_use]
    pub fn timed_out(&self, now: Timestamp) -> Vec<String> {
        let is_over = |t: &Transaction| {
            let open_ms = u64::try_from(now.0.saturating_sub(t.started_at.0)).unwrap_or(0);
            t.status == TxnStatus::Ongoing && open_ms > t.timeout_ms
        };
        self.by_id.iter().filter(|(_, t)| is_over(t)).map(|(id, _)| id.clone()).collect()
    }

    /// Transactional ids without an open transaction that have been idle for longer than `idle_ms`.
    #[must_use]
    pub fn idle(&self, now: Timestamp, idle_ms: u64) -> Vec<String> {
        let is_idle = |t: &Transaction| {
            let rest = matches!(t.status, TxnStatus::Empty | TxnStatus::CompleteCommit | TxnStatus::CompleteAbort);
            rest && u64::try_from(now.0.saturating_sub(t.updated_at.0)).unwrap_or(0) > idle_ms
        };
        self.by_id.iter().filter(|(_, t)| is_idle(t)).map(|(id, _)| id.clone()).collect()
    }

    /// Checks that the session is the current one of its transactional id and no transaction of it is being ended.
    ///
    /// # Errors
    /// `Fenced` if not.
    pub fn current(&self, session: &ProducerSession) -> Result<&Transaction, TxnError> {
        self.by_id
            .get(&session.transactional_id)
            .filter(|t| t.producer_id == session.id && t.epoch == session.epoch)
            .filter(|t| !matches!(t.status, TxnStatus::PrepareCommit | TxnStatus::PrepareAbort))
            .ok_or_else(|| TxnError::Fenced(session.transactional_id.clone()))
    }
}

fn prepare(current: &Transaction, ending: Ending, now: Timestamp) -> Step {
    let sync = match ending {
        Ending::Commit => current.partitions.clone(),
        Ending::Abort => BTreeSet::new(),
    };
    let record = Transaction {
        // Clients stop one before the last epoch, so this one exists.
        epoch: ProducerEpoch(current.epoch.0.saturating_add(1)),
        status: ending.prepared(),
        updated_at: now,
        ..current.clone()
    };
    Step::Prepare { sync, record }
}

/// The producer with this epoch, or `None` if the epoch is beyond what clients get.
fn client_epoch(producer_id: ProducerId, epoch: Option<i16>) -> Option<(ProducerId, ProducerEpoch)> {
    let epoch = ProducerEpoch(epoch?);
    (epoch <= LAST_CLIENT_EPOCH).then_some((producer_id, epoch))
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
