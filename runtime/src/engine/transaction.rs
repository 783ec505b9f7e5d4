//! The one log transaction of each checkpoint epoch.
//!
//! ```text
//!   epoch N:   append … append │ barrier │ manifest, offsets, end │
//!   epoch N+1:                 │   append waits ················· │ append …
//! ```
//!
//! A producer has one open transaction at a time, so output of epoch N+1 waits until the transaction of N has ended;
//! its queue fills and slows the workers down.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use logmill_connectors::error::ConnectorError;
use logmill_connectors::log::{Log, Membership, ProducerSession, TopicPartition};
use logmill_connectors::transaction::Transaction;
use logmill_pipelines::flow::CheckpointEpoch;
use logmill_protocol::Offset;
use parking_lot::RwLock;
use tokio::sync::watch;

use super::error::EngineError;

/// The transactions of a pipeline's run, one an epoch.
pub(crate) struct EpochTransaction {
    log: Arc<dyn Log>,
    session: RwLock<ProducerSession>,
    current: watch::Sender<CheckpointEpoch>,
    appended: AtomicU64,
}

impl EpochTransaction {
    /// The transactions from `epoch` on, under a session that has just been initialised.
    pub(crate) fn new(log: Arc<dyn Log>, session: ProducerSession, epoch: CheckpointEpoch) -> Self {
        Self { log, session: RwLock::new(session), current: watch::channel(epoch).0, appended: AtomicU64::new(0) }
    }

    /// Whether anything was appended since the last end.
    pub(crate) fn has_output(&self) -> bool {
        self.appended.load(Ordering::Acquire) > 0
    }

    /// Commits the open transaction together with the offsets, which are refused where the generation has moved on. The
    /// next epoch appends once this one is passed.
    pub(crate) async fn commit(
        &self,
        membership: &Membership,
        offsets: &[(TopicPartition, Offset)],
    ) -> Result<(), EngineError> {
        let session = self.session.read().clone();
        if !offsets.is_empty() {
            self.log.commit_offsets_in_transaction(&session, membership, offsets).await?;
        }
        fail::fail_point!("engine::before_end_transaction");
        let next = self.log.end_transaction(&session, true).await?;
        fail::fail_point!("engine::after_end_transaction");
        *self.session.write() = next;
        self.appended.store(0, Ordering::Release);
        Ok(())
    }

    /// Gives up what is open: none of it will ever be visible.
    pub(crate) async fn abort(&self) -> Result<(), EngineError> {
        let session = self.session.read().clone();
        let next = self.log.end_transaction(&session, false).await?;
        *self.session.write() = next;
        self.appended.store(0, Ordering::Release);
        Ok(())
    }

    /// Ends an epoch, committed or without output, and lets the next one append.
    pub(crate) fn pass(&self, epoch: CheckpointEpoch) {
        self.appended.store(0, Ordering::Release);
        self.current.send_replace(epoch.next());
    }
}

#[async_trait]
impl Transaction for EpochTransaction {
    async fn append(
        &self,
        epoch: CheckpointEpoch,
        partition: &TopicPartition,
        batch: Bytes,
    ) -> Result<(), ConnectorError> {
        let mut current = self.current.subscribe();
        // The sender lives in `self`, so the wait cannot end by its being dropped.
        let _ = current.wait_for(|now| *now >= epoch).await;
        let session = self.session.read().clone();
        self.appended.fetch_add(1, Ordering::AcqRel);
        self.log.append(&session, partition, batch).await?;
        Ok(())
    }
}
