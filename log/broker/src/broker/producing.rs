//! Appending what clients send, in the bytes it came in, and telling when it is durable.

use std::sync::Arc;

use logmill_protocol::{Offset, ProducerId, Timestamp};
use logmill_storage::Appended;

use crate::batches;
use crate::broker::{Broker, Inner};
use crate::error::{BrokerError, Refusal, Result};
use crate::names::check_not_of_engine;
use crate::partition::{FlushRequest, Partition};
use crate::topic_config::Flush;
use crate::topics::OpenTopic;

/// In-sync replicas of every partition: there is one node.
const REPLICAS: i32 = 1;

/// How many replicas a client wants to have its batches before it is answered (`acks`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Acks {
    /// None: there is no answer.
    None,
    /// The leader, in its page cache.
    Leader,
    /// All in-sync replicas, on disk.
    All,
}

/// A call that appends; the broker does not close while it is held.
pub(crate) struct Producing {
    inner: Arc<Inner>,
    now: Timestamp,
}

impl Drop for Producing {
    fn drop(&mut self) {
        self.inner.leave();
    }
}

/// Batches that were appended, and are acknowledged once they are durable.
pub(crate) struct Acknowledged {
    pub(crate) appended: Appended,
    pub(crate) log_start: Offset,
    durable: Option<(Arc<Partition>, logmill_storage::Result<FlushRequest>)>,
}

impl Acknowledged {
    /// Whether there is something to wait for.
    pub(crate) fn waits(&self) -> bool {
        self.durable.is_some()
    }

    /// Waits until the batches are durable, if the producer asked for it.
    ///
    /// # Errors
    /// If the disk refuses; the batches may be there all the same.
    pub(crate) async fn durable(&mut self) -> Result<()> {
        match self.durable.take() {
            Some((partition, request)) => partition.requested(request).await,
            None => Ok(()),
        }
    }
}

impl Broker {
    /// Begins a call that appends.
    pub(crate) fn producing(&self) -> Result<Producing> {
        // The count is given back by `Producing`, not by the call.
        std::mem::forget(self.inner.enter()?);
        Ok(Producing { inner: Arc::clone(&self.inner), now: self.inner.now() })
    }

    /// Allocates a producer id for a client.
    ///
    /// # Errors
    /// `DiskFull`, `Storage`: ids that are handed out are noted first.
    pub(crate) async fn new_producer_id(&self) -> Result<ProducerId> {
        let _call = self.inner.enter()?;
        self.inner.transactions.producer_ids().take(self.inner.now()).await
    }
}

impl Producing {
    /// A partition that clients may write to.
    ///
    /// # Errors
    /// `Refused` if it is the broker's or the engine's own; `UnknownPartition`.
    pub(crate) fn partition<'a>(&self, topic: &'a OpenTopic, index: i32) -> Result<&'a Arc<Partition>> {
        check_not_of_engine(&topic.name)?;
        match topic.internal {
            true => Err(super::internal(&topic.name)),
            false => topic.partition(index),
        }
    }

    /// Appends a client's batches to the page cache, patching what the log assigns into them. May wait for the disk.
    ///
    /// # Errors
    /// `Refused` for what may not be appended; `Fenced`, `DiskFull`, `Storage`, `Closed`; `UnknownTopic` if it has just
    /// been deleted.
    pub(crate) fn append(
        &self,
        topic: &OpenTopic,
        partition: &Arc<Partition>,
        batches: &mut [u8],
        acks: Acks,
    ) -> Result<Acknowledged> {
        if acks == Acks::All && topic.config.min_insync_replicas > REPLICAS {
            let wanted = topic.config.min_insync_replicas;
            let reason = format!("min.insync.replicas is {wanted}, and this node is the only replica");
            return Err(BrokerError::refused(Refusal::NotEnoughReplicas, partition.name(), reason));
        }
        let invalid = |error| BrokerError::batch(partition.name(), &error);
        self.check_producers(partition, batches)?;
        let codec = topic.config.compression;
        let rebuilt = codec
            .map(|codec| batches::recompress(batches, codec, topic.config.level()).map_err(invalid))
            .transpose()?;
        let appended = match rebuilt.flatten() {
            Some(mut rebuilt) => partition.append(&mut rebuilt, self.now)?,
            None => partition.append(batches, self.now)?,
        };
        // Also for what was sent again: the first time may not have become durable yet.
        let must_wait = match acks {
            Acks::None => false,
            Acks::Leader => partition.must_flush(),
            Acks::All => topic.config.flush == Flush::Sync || partition.must_flush(),
        };
        let durable = must_wait.then(|| {
            let request = partition.request_durable(&self.inner.flusher, appended.last_offset.next());
            (Arc::clone(partition), request)
        });
        Ok(Acknowledged { appended, log_start: partition.log().log_start(), durable })
    }
}

impl Producing {
    /// Checks that the batches' producer ids are such as clients may write under.
    fn check_producers(&self, partition: &Partition, batches: &[u8]) -> Result<()> {
        for batch in logmill_protocol::batches(batches) {
            let header = *batch.map_err(|error| BrokerError::batch(partition.name(), &error))?.header();
            // Other negative ids are refused with the batch.
            if header.producer_id.0 >= 0 {
                let checked = self.inner.transactions.producer_ids().check_client(header.producer_id);
                checked.map_err(|(kind, reason)| {
                    BrokerError::refused(kind, partition.name(), format_args!("{reason} ({})", header.producer_id))
                })?;
            }
        }
        Ok(())
    }
}

impl Acks {
    /// Reads a request's field.
    ///
    /// # Errors
    /// `Refused` for anything but -1, 0 and 1.
    pub(crate) fn parse(acks: i16) -> Result<Self> {
        match acks {
            -1 => Ok(Self::All),
            0 => Ok(Self::None),
            1 => Ok(Self::Leader),
            _ => Err(BrokerError::Refused {
                kind: Refusal::InvalidRequiredAcks,
                message: format!("acks is {acks}, it must be -1, 0 or 1"),
                record: None,
            }),
        }
    }
}
