//! Collects records into a batch a partition, and appends the full ones to the epoch's transaction.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use logmill_pipelines::flow::CheckpointEpoch;
use logmill_protocol::{BatchBuilder, BatchError, BatchOptions, Compression, Timestamp, partition_for_key};

use crate::error::ConnectorError;
use crate::log::TopicPartition;
use crate::transaction::Transaction;

/// About how large a batch becomes before it is compressed, in bytes, unless the sink says otherwise.
pub(super) const BATCH_BYTES: usize = 256 << 10;

/// Batches being built, one a partition.
pub(super) struct Batches {
    builders: Vec<BatchBuilder>,
    batch_bytes: usize,
    /// Where records without a key go until that partition's batch is full: fewer, larger batches (KIP-480).
    sticky: usize,
    /// Where records without a key go instead, if that is said.
    unkeyed: Option<usize>,
}

/// A batch, and the partition it is for.
pub(super) type FullBatch = (i32, Bytes);

impl Batches {
    /// Batches for this many partitions.
    pub(super) fn new(partitions: i32, compression: Compression, batch_bytes: usize) -> Self {
        let options = BatchOptions { compression, ..BatchOptions::default() };
        let builders = (0..partitions.max(1)).map(|_| BatchBuilder::new(options)).collect();
        Self { builders, batch_bytes, sticky: 0, unkeyed: None }
    }

    /// Adds a record; returns the partition's batch if it is full now.
    pub(super) fn append(
        &mut self,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&str, Option<&[u8]>)],
        timestamp: Timestamp,
    ) -> Result<Option<FullBatch>, BatchError> {
        let index = match key {
            Some(key) => partition_for_key(key, self.partitions()) as usize,
            None => self.unkeyed.unwrap_or(self.sticky),
        };
        let Some(builder) = self.builders.get_mut(index) else { return Ok(None) };
        builder.append(timestamp, key, value, headers)?;
        if builder.size_bytes() < self.batch_bytes {
            return Ok(None);
        }
        let full = builder.finish().map(|batch| (index as i32, batch));
        if index == self.sticky {
            self.turn();
        }
        Ok(full)
    }

    /// Takes every batch that holds records.
    pub(super) fn drain(&mut self) -> Vec<FullBatch> {
        let drained = (0_i32..).zip(&mut self.builders);
        let drained: Vec<_> = drained.filter_map(|(partition, builder)| Some((partition, builder.finish()?))).collect();
        if !drained.is_empty() {
            self.turn();
        }
        drained
    }

    fn partitions(&self) -> i32 {
        self.builders.len() as i32
    }

    fn turn(&mut self) {
        self.sticky = (self.sticky + 1) % self.builders.len();
    }
}

/// Appends a topic's full batches to the transaction of the current epoch.
pub(super) struct Appender {
    transaction: Arc<dyn Transaction>,
    topic: String,
    epoch: CheckpointEpoch,
}

impl Appender {
    /// Appends to `topic`, in `epoch` at first.
    pub(super) fn new(transaction: Arc<dyn Transaction>, topic: &str, epoch: CheckpointEpoch) -> Self {
        Self { transaction, topic: topic.to_owned(), epoch }
    }

    /// Appends a batch.
    pub(super) async fn append(&self, (partition, batch): FullBatch) -> Result<(), ConnectorError> {
        let partition = TopicPartition { topic: self.topic.clone(), partition };
        self.transaction.append(self.epoch, &partition, batch).await
    }

    /// What is appended from now on belongs to the epoch after `epoch`.
    pub(super) fn end_epoch(&mut self, epoch: CheckpointEpoch) {
        self.epoch = epoch.next();
    }

    /// A record that does not fit a batch.
    pub(super) fn too_large(&self, error: BatchError) -> ConnectorError {
        ConnectorError::Permanent {
            context: format!("cannot write a record to topic `{}`", self.topic),
            source: error.into(),
        }
    }
}

/// Writes records as they are into a topic, in the epoch's transaction: dead letters, manifests, and sources that are
/// played through a topic.
pub struct RecordWriter {
    batches: Batches,
    appender: Appender,
}

impl RecordWriter {
    /// Writes to a topic of this many partitions. The first records belong to `epoch`.
    pub fn new(transaction: Arc<dyn Transaction>, topic: &str, partitions: i32, epoch: CheckpointEpoch) -> Self {
        Self {
            batches: Batches::new(partitions, Compression::Lz4, BATCH_BYTES),
            appender: Appender::new(transaction, topic, epoch),
        }
    }

    /// From now on, records without a key go to the partition that `number` falls on: always the same one, so that they
    /// keep their order, and where they lie does not depend on when they were written.
    pub fn send_unkeyed_to(&mut self, number: u32) {
        let partitions = self.batches.builders.len().max(1);
        self.batches.unkeyed = Some(number as usize % partitions);
    }

    /// Writes a record: to the partition of its key as Kafka's clients choose it, else to any, unless one was said.
    /// Without a timestamp it gets the present time, as Kafka's clients do it.
    ///
    /// # Errors
    /// Where the transaction takes no more, or the record is too large for a batch.
    pub async fn append(
        &mut self,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&str, Option<&[u8]>)],
        timestamp: Timestamp,
    ) -> Result<(), ConnectorError> {
        let timestamp = if timestamp == Timestamp::NONE { now() } else { timestamp };
        let full = self.batches.append(key, value, headers, timestamp);
        match full.map_err(|error| self.appender.too_large(error))? {
            Some(full) => self.appender.append(full).await,
            None => Ok(()),
        }
    }

    /// Appends what is left to the transaction of `epoch`, which ends.
    ///
    /// # Errors
    /// Where the transaction takes no more.
    pub async fn prepare(&mut self, epoch: CheckpointEpoch) -> Result<(), ConnectorError> {
        for full in self.batches.drain() {
            self.appender.append(full).await?;
        }
        self.appender.end_epoch(epoch);
        Ok(())
    }
}

/// The present time.
pub(super) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
