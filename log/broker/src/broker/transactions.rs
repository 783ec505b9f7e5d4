//! Transactions, as clients see them.

use bytes::Bytes;
use logmill_protocol::Offset;

use crate::broker::Broker;
use crate::broker::records::internal;
use crate::error::{BrokerError, Result};
use crate::names::{check_id, is_internal};
use crate::transactions::Ending;
use crate::types::{Membership, ProducerSession, TopicPartition};

impl Broker {
    /// Begins a producer's life under a transactional id: aborts what its predecessor left open and fences it. A
    /// transaction that stays open for longer than `timeout_ms` is aborted and its producer fenced.
    ///
    /// # Errors
    /// `Invalid` for an empty id or a timeout beyond the broker's limit; `DiskFull`, `Storage`.
    pub async fn init_producer(&self, transactional_id: &str, timeout_ms: u64) -> Result<ProducerSession> {
        let _call = self.inner.enter()?;
        check_id("transactional id", transactional_id)?;
        let limit = self.inner.config.transaction_max_timeout_ms;
        if timeout_ms == 0 || timeout_ms > limit {
            return Err(BrokerError::Invalid(format!(
                "the transaction timeout of `{transactional_id}` is {timeout_ms} ms, it must be 1 to {limit}"
            )));
        }
        self.inner.transactions.init(transactional_id, timeout_ms).await
    }

    /// Appends a batch to the session's transaction, which it opens if need be. The batch is stamped with the session's
    /// producer id, epoch and sequence. It is in the page cache when this returns; the commit makes it durable. Keep
    /// one append at a time for each partition, or their order is anyone's guess.
    ///
    /// # Errors
    /// `Fenced` if the session is not the current one of its transactional id; `Refused` for what is no acceptable
    /// batch; `UnknownTopic`, `UnknownPartition`, `DiskFull`, `Storage`.
    pub async fn append(&self, session: &ProducerSession, partition: &TopicPartition, batch: Bytes) -> Result<Offset> {
        let _call = self.inner.enter()?;
        if is_internal(&partition.topic) {
            return Err(internal(&partition.topic));
        }
        let open = self.inner.topics.partition(partition)?;
        let batch = self.stored_form(partition, batch).await?;
        self.inner.transactions.append(session, open, batch).await
    }

    /// Commits a group's offsets with the session's transaction (KIP-447).
    ///
    /// # Errors
    /// `IllegalGeneration` if the member is none of the group's current generation: the transaction is left as it was.
    /// `Fenced`, `UnknownTopic`, `UnknownPartition`, `DiskFull`, `Storage`.
    pub async fn commit_offsets_in_transaction(
        &self,
        session: &ProducerSession,
        membership: &Membership,
        offsets: &[(TopicPartition, Offset)],
    ) -> Result<()> {
        let _call = self.inner.enter()?;
        self.check_partitions(offsets)?;
        self.inner.transactions.commit_offsets(session, membership, offsets).await
    }

    /// Ends the transaction: once it returns, all of its records and offsets are durable and visible, or (`commit` is
    /// false) none ever will be. Without an open transaction it does nothing. Returns the session to go on with: the
    /// producer epoch has been bumped, or the producer id rotated.
    ///
    /// A call that failed may be made again with the same session. One that was cancelled goes on all the same.
    ///
    /// # Errors
    /// `Fenced` if the session is not the current one; `Invalid` if it is being ended the other way already;
    /// `DiskFull`, `Storage`.
    pub async fn end_transaction(&self, session: &ProducerSession, commit: bool) -> Result<ProducerSession> {
        let _call = self.inner.enter()?;
        let ending = if commit { Ending::Commit } else { Ending::Abort };
        self.inner.transactions.end(session, ending).await
    }
}
