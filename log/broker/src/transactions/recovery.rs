//! What a restart does about transactions: decided ones are ended as decided, and those of which the disk lost a part
//! are aborted.
//!
//! ```text
//!   coordinator, on disk:   Ongoing e ─ Prepare e+1          (Complete e+1, Ongoing e+1: lost with the power)
//!   partition, on disk:     records e ─ marker e+1 ─ records e+1
//!                           `- of the prepared one        `- of a later one: must not be ended by the marker e+1
//! ```
//! Each transaction has an epoch of its own in a partition, so the epoch of an open one's records says whose it is.

use std::collections::BTreeSet;
use std::sync::Arc;

use logmill_protocol::{ProducerEpoch, ProducerId};

use crate::error::Result;
use crate::offline::Slot;
use crate::partition::{Partition, make_durable};
use crate::transactions::service::{TransactionService, to_their_ends};
use crate::transactions::state::{Ending, Transaction, TxnStatus};
use crate::types::TopicPartition;

/// What the recovery of transactions did.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Recovered {
    pub(crate) completed: usize,
    pub(crate) orphans_aborted: usize,
}

/// Transactions that were aborted because the coordinator does not know them: where, and whose.
type Aborted = Vec<(Arc<Partition>, ProducerId)>;

impl TransactionService {
    /// Ends what a crash cut short: decided transactions as decided, and by aborting them those that the coordinator
    /// does not know, as power loss leaves them. Open ones stay open until their producer is back or their time is up. What
    /// cannot be done now is tried again by [`TransactionService::tick`], or at the next start.
    pub(crate) async fn recover(self: &Arc<Self>) -> Recovered {
        let aborted = self.abort_orphans().await;
        // Before their producers go on: with their next transaction they could not be told apart from it.
        let partitions: Vec<_> = aborted.iter().map(|(partition, _)| Arc::clone(partition)).collect();
        if let Err(error) = make_durable(to_their_ends(&partitions), &self.flusher).await {
            tracing::warn!(%error, "cannot abort forgotten transactions");
        }
        let mut completed = 0;
        let prepared = self.state.lock().prepared();
        for id in prepared {
            match self.drive(&id, None).await {
                Ok(()) => completed += 1,
                Err(error) => {
                    tracing::warn!(transactional_id = id, %error, "cannot end a transaction, trying again later");
                }
            }
        }
        if let Err(error) = self.fence(&aborted.iter().map(|(_, id)| *id).collect()).await {
            tracing::warn!(%error, "cannot fence the producers of transactions that are lost");
        }
        Recovered { completed, orphans_aborted: aborted.len() }
    }

    async fn abort_orphans(&self) -> Aborted {
        let mut aborted = Vec::new();
        if self.partitions.iter().any(Slot::is_offline) {
            // Its transactions look as if nobody owned them.
            tracing::warn!("transactions may be kept in a partition that is offline; what they hold stays undecided");
            return aborted;
        }
        for partition in self.topics.partitions() {
            if let Err(error) = self.abort_orphans_of(&partition, &mut aborted).await {
                tracing::warn!(partition = %partition.name(), %error, "cannot abort forgotten transactions");
            }
        }
        aborted
    }

    /// Aborts the partition's open transactions that are not the coordinator's.
    async fn abort_orphans_of(&self, partition: &Arc<Partition>, aborted: &mut Aborted) -> Result<()> {
        for open in partition.log().open_transactions() {
            let producer_id = open.producer_id;
            let epoch = partition.log().producer_state(producer_id).map(|p| p.epoch).unwrap_or_default();
            if self.is_owned(partition.name(), producer_id, epoch)? {
                continue;
            }
            tracing::warn!(partition = %partition.name(), %producer_id,
                "aborting a transaction whose beginning or end is lost");
            self.mark(partition, producer_id, epoch, Ending::Abort).await?;
            aborted.push((Arc::clone(partition), producer_id));
        }
        Ok(())
    }

    /// Whether the producer's open transaction is the coordinator's; if so, the partition is part of it, also if the record
    /// that added it is lost.
    fn is_owned(&self, partition: &TopicPartition, producer_id: ProducerId, epoch: ProducerEpoch) -> Result<bool> {
        let mut state = self.state.lock();
        let owner = state.iter().find(|(_, t)| t.producer_id == producer_id && has_records(t, epoch));
        let Some((id, mut transaction)) = owner.map(|(id, t)| (id.to_owned(), t.clone())) else { return Ok(false) };
        if transaction.partitions.insert(partition.clone()) {
            self.write(&mut state, &id, Some(transaction))?;
        }
        Ok(true)
    }

    /// Ends the epochs of producers that have lost a transaction: they must not go on with what is left of it.
    async fn fence(&self, producers: &BTreeSet<ProducerId>) -> Result<()> {
        let lost: Vec<_> = {
            let state = self.state.lock();
            let known = state.iter().filter(|(_, t)| producers.contains(&t.producer_id) && !t.is_open());
            known.map(|(id, t)| (id.to_owned(), t.clone())).collect()
        };
        for (id, mut record) in lost {
            record.epoch = ProducerEpoch(record.epoch.0.saturating_add(1));
            self.write_durably(&id, record).await?;
        }
        Ok(())
    }
}

/// Whether the open transaction's records have this epoch. A marker's epoch is one higher.
fn has_records(transaction: &Transaction, epoch: ProducerEpoch) -> bool {
    match transaction.status {
        TxnStatus::Ongoing => epoch == transaction.epoch,
        TxnStatus::PrepareCommit | TxnStatus::PrepareAbort => epoch.0.checked_add(1) == Some(transaction.epoch.0),
        TxnStatus::Empty | TxnStatus::CompleteCommit | TxnStatus::CompleteAbort => false,
    }
}
