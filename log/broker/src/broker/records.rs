//! Writing, reading and waiting for records.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use logmill_protocol::Offset;

use crate::batches;
use crate::blocking;
use crate::broker::Broker;
use crate::error::{BrokerError, Refusal, Result};
use crate::partition::Partition;
use crate::topic_config::Flush;
use crate::types::{FetchRequest, Fetched, Isolation, OffsetAt, TopicPartition};

impl Broker {
    /// Where a place is.
    ///
    /// # Errors
    /// `UnknownTopic`, `UnknownPartition`; `Storage` if a search by time meets damage.
    pub async fn offset(&self, partition: &TopicPartition, at: OffsetAt) -> Result<Offset> {
        let _call = self.inner.enter()?;
        let partition = self.inner.topics.partition(partition)?;
        match at {
            OffsetAt::Time(_) => blocking::decompressing(move || partition.offset(at)).await,
            _ => partition.offset(at),
        }
    }

    /// Reads; returns at once, with empty `batches` where nothing is to be read yet. A read ends with its segment, so
    /// it may return less than there is.
    ///
    /// # Errors
    /// `OffsetOutOfRange` below the log start or above the log end; `UnknownTopic`, `UnknownPartition`, `Storage`.
    pub async fn fetch(&self, request: &FetchRequest) -> Result<Fetched> {
        let _call = self.inner.enter()?;
        let partition = self.inner.topics.partition(&request.partition)?;
        let (offset, max_bytes, isolation) = (request.offset, request.max_bytes, request.isolation);
        blocking::unless_small(max_bytes, move || {
            let log = partition.log();
            // The end first: an abort that it covers is in the index before the end moves past it.
            let end = partition.visible_end(isolation);
            let read = partition.stored(log.read(offset, max_bytes, end))?;
            let mut aborted = Vec::new();
            if isolation == Isolation::ReadCommitted && !read.bytes.is_empty() {
                let overlapping = partition.stored(log.aborted_transactions(offset, read.next_offset))?;
                aborted.extend(overlapping.iter().map(|txn| (txn.producer_id, txn.first_offset)));
                aborted.sort_unstable_by_key(|(id, first)| (*first, *id));
            }
            Ok(Fetched {
                batches: read.bytes,
                next_offset: read.next_offset,
                aborted,
                high_watermark: log.high_watermark(),
                last_stable_offset: log.last_stable_offset(),
                log_start: log.log_start(),
            })
        })
        .await
    }

    /// Waits until the partition can be read past `offset` under the isolation. Cancel-safe; does not poll.
    ///
    /// # Errors
    /// `UnknownTopic` (also when it is deleted meanwhile), `UnknownPartition`, `Closed`.
    pub async fn wait(&self, partition: &TopicPartition, offset: Offset, isolation: Isolation) -> Result<()> {
        // Not counted as a call: closing wakes who waits instead of waiting for them.
        let partition = self.inner.topics.partition(partition)?;
        partition.readable(offset, isolation, &self.inner.closed).await
    }

    /// Moves the log start offset up; what lies below may be deleted. An offset below the log start changes nothing.
    ///
    /// # Errors
    /// `OffsetOutOfRange` above the high watermark; `UnknownTopic`, `UnknownPartition`, `Storage`.
    pub async fn delete_records(&self, partition: &TopicPartition, before: Offset) -> Result<()> {
        let _call = self.inner.enter()?;
        let partition = self.inner.topics.partition(partition)?;
        blocking::run(move || partition.stored(partition.log().delete_records_before(before)).map(drop)).await
    }

    /// Moves the log starts of several partitions up, side by side, since each waits for the disk. Returns the new log
    /// starts, in order.
    pub(crate) async fn delete_records_of(
        &self,
        partitions: Vec<(Arc<Partition>, Offset)>,
    ) -> Result<Vec<Result<Offset>>> {
        let _call = self.inner.enter()?;
        blocking::run(move || {
            blocking::side_by_side(&partitions, |(partition, before)| {
                Ok(partition.stored(partition.log().delete_records_before(*before)))
            })
        })
        .await
    }

    /// Appends record batches without a transaction and returns the base offset of the first once they are durable
    /// (`acks=all`), or in the page cache if the topic says `flush: os`.
    ///
    /// # Errors
    /// `Refused` for what is no acceptable batch; `UnknownTopic`, `UnknownPartition`, `DiskFull`, `Storage`.
    pub async fn produce(&self, partition: &TopicPartition, batch: Bytes) -> Result<Offset> {
        let _call = self.inner.enter()?;
        let invalid = |error| BrokerError::batch(partition, &error);
        if crate::names::is_internal(&partition.topic) {
            return Err(internal(&partition.topic));
        }
        if batches::is_transactional(&batch).map_err(invalid)? {
            let reason = "a transactional batch must be appended to its producer's transaction";
            return Err(BrokerError::refused(Refusal::InvalidTransactionState, partition, reason));
        }
        let (open, batch) = (self.inner.topics.partition(partition)?, self.stored_form(partition, batch).await?);
        let (target, now, size) = (open.clone(), self.inner.now(), batch.len());
        let append = move || target.append(&mut batches::own(batch), now);
        let appended = blocking::unless_small(size, append).await?;
        if self.inner.topics.topic(&partition.topic)?.config.flush == Flush::Sync || open.must_flush() {
            open.flush(&self.inner.flusher).await?;
        }
        Ok(appended.base_offset)
    }

    /// The batch as the topic wants it stored (`compression.type`).
    pub(super) async fn stored_form(&self, partition: &TopicPartition, batch: Bytes) -> Result<Bytes> {
        let config = self.inner.topics.topic(&partition.topic)?.config;
        let Some(codec) = config.compression else { return Ok(batch) };
        let name = partition.clone();
        blocking::decompressing(move || match batches::recompress(&batch, codec, config.level()) {
            Ok(built) => Ok(built.map_or(batch, BytesMut::freeze)),
            Err(error) => Err(BrokerError::batch(&name, &error)),
        })
        .await
    }
}

/// Why clients may not write to the broker's own topic.
pub(crate) fn internal(topic: &str) -> BrokerError {
    let message = format!("topic `{topic}` is written by the broker only");
    BrokerError::Refused { kind: Refusal::InvalidTopic, message, record: None }
}
