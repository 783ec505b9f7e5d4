//! Collects records into a batch a partition, and appends the full ones to the epoch's transaction.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use logmill_pipelines::flow::CheckpointEpoch;
use logmill_protocol::{BatchBuilder, BatchOptions, Compression, Timestamp, partition_for_key};

use crate::error::ConnectorError;
use crate::log::{TopicInfo, TopicPartition};
use crate::transaction::Transaction;

/// About how large a batch becomes before it is compressed, in bytes, unless the sink says otherwise.
pub(super) const BATCH_BYTES: usize = 256 << 10;

/// The limit of a batch where the topic does not say, in bytes: Kafka's.
const MAX_BATCH_BYTES: usize = 1_048_588;

/// How large the batches of a topic may be.
#[derive(Clone, Copy, Debug)]
pub struct BatchLimit {
    /// `max.message.bytes` of the topic.
    max_bytes: usize,
    /// Whether the topic stores batches as they are sent, not compressed anew.
    as_sent: bool,
}

impl Default for BatchLimit {
    fn default() -> Self {
        Self { max_bytes: MAX_BATCH_BYTES, as_sent: true }
    }
}

impl BatchLimit {
    /// The limit of a topic.
    pub fn of(topic: &TopicInfo) -> Self {
        let config = |name: &str| topic.configs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        Self {
            max_bytes: config("max.message.bytes").and_then(|value| value.parse().ok()).unwrap_or(MAX_BATCH_BYTES),
            as_sent: config("compression.type").is_none_or(|codec| codec == "producer"),
        }
    }

    /// A batch of this size before compression fits, even if a codec adds its framing to bytes that it cannot compress.
    fn safe_bytes(self) -> usize {
        self.max_bytes - self.max_bytes / 64
    }

    /// The size that counts of a batch of one record.
    fn counted_bytes(self, uncompressed: usize, batch: &Bytes) -> usize {
        if self.as_sent { batch.len() } else { uncompressed }
    }
}

/// Batches being built, one a partition.
pub(super) struct Batches {
    builders: Vec<BatchBuilder>,
    batch_bytes: usize,
    limit: BatchLimit,
    /// Where records without a key go until that partition's batch is full: fewer, larger batches (KIP-480).
    sticky: usize,
    /// Where records without a key go instead, if that is said.
    unkeyed: Option<usize>,
}

/// A batch, and the partition it is for.
pub(super) type FullBatch = (i32, Bytes);

/// A record to be written.
#[derive(Clone, Copy)]
pub(super) struct Record<'a> {
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: Option<&'a [u8]>,
    pub(super) headers: &'a [(&'a str, Option<&'a [u8]>)],
    pub(super) timestamp: Timestamp,
}

impl Record<'_> {
    /// An upper bound of what it adds to a batch.
    fn size_bytes(&self) -> usize {
        let field = |bytes: Option<&[u8]>| FIELD_BYTES + bytes.map_or(0, <[u8]>::len);
        let headers = self.headers.iter().map(|(name, value)| FIELD_BYTES + name.len() + field(*value));
        RECORD_BYTES + field(self.key) + field(self.value) + headers.sum::<usize>()
    }
}

/// The most that the length of a field takes.
const FIELD_BYTES: usize = 5;

/// The most that a record takes beside its fields: length, attributes, timestamp, offset, number of headers.
const RECORD_BYTES: usize = 26;

impl Batches {
    /// Batches for this many partitions.
    pub(super) fn new(partitions: i32, compression: Compression, batch_bytes: usize, limit: BatchLimit) -> Self {
        let options = BatchOptions { compression, ..BatchOptions::default() };
        let builders = (0..partitions.max(1)).map(|_| BatchBuilder::new(options)).collect();
        Self { builders, batch_bytes: batch_bytes.min(limit.safe_bytes()), limit, sticky: 0, unkeyed: None }
    }

    /// Adds a record; appends to `full` the partition's batches that are full now. Returns why the topic cannot take
    /// the record, if it cannot.
    pub(super) fn append(&mut self, record: Record<'_>, full: &mut Vec<FullBatch>) -> Option<String> {
        let index = match record.key {
            Some(key) => partition_for_key(key, self.partitions()) as usize,
            None => self.unkeyed.unwrap_or(self.sticky),
        };
        let limit = self.limit;
        let builder = self.builders.get_mut(index)?;
        let finish = |builder: &mut BatchBuilder| builder.finish().map(|batch| (index as i32, batch));
        if builder.size_bytes().saturating_add(record.size_bytes()) > limit.safe_bytes() {
            full.extend(finish(builder));
        }
        if let Err(error) = builder.append(record.timestamp, record.key, record.value, record.headers) {
            return Some(error.to_string());
        }
        let uncompressed = builder.size_bytes();
        if uncompressed < self.batch_bytes {
            return None;
        }
        let (partition, batch) = finish(builder)?;
        let counted = limit.counted_bytes(uncompressed, &batch);
        // Only a batch of one record can be so large.
        if uncompressed > limit.safe_bytes() && counted > limit.max_bytes {
            return Some(format!(
                "the record makes a batch of {counted} bytes, and the topic takes {} at most; raise its \
                 max.message.bytes",
                limit.max_bytes
            ));
        }
        full.push((partition, batch));
        if index == self.sticky {
            self.turn();
        }
        None
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
            batches: Batches::new(partitions, Compression::Lz4, BATCH_BYTES, BatchLimit::default()),
            appender: Appender::new(transaction, topic, epoch),
        }
    }

    /// Minds the topic's own limit of batches.
    #[must_use]
    pub fn with_limit(mut self, limit: BatchLimit) -> Self {
        self.batches.limit = limit;
        self.batches.batch_bytes = BATCH_BYTES.min(limit.safe_bytes());
        self
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
    /// Where the transaction takes no more, or the topic cannot take the record.
    pub async fn append(
        &mut self,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&str, Option<&[u8]>)],
        timestamp: Timestamp,
    ) -> Result<(), ConnectorError> {
        match self.append_or_refuse(key, value, headers, timestamp).await? {
            None => Ok(()),
            Some(reason) => {
                Err(ConnectorError::Data { place: format!("topic `{}`", self.appender.topic), message: reason })
            }
        }
    }

    /// Writes a record, or returns why the topic can never take it.
    ///
    /// # Errors
    /// Where the transaction takes no more.
    pub async fn append_or_refuse(
        &mut self,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&str, Option<&[u8]>)],
        timestamp: Timestamp,
    ) -> Result<Option<String>, ConnectorError> {
        let timestamp = if timestamp == Timestamp::NONE { now() } else { timestamp };
        let mut full = Vec::new();
        let refused = self.batches.append(Record { key, value, headers, timestamp }, &mut full);
        for full in full {
            self.appender.append(full).await?;
        }
        Ok(refused)
    }

    /// How many partitions the topic has.
    pub fn partitions(&self) -> i32 {
        self.batches.partitions()
    }

    /// A size that a record can have, in bytes of key, value and headers together.
    pub fn safe_record_bytes(&self) -> usize {
        self.batches.limit.safe_bytes() / 2
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
