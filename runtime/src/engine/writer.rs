//! A writer's task: takes rows from all workers, aligns their barriers, and prepares the epoch.
//!
//! ```text
//!   worker 0 ──r r │N r──▶ ┐  once one worker's barrier N is there, its queue waits
//!   worker 1 ──r r r │N──▶ ┴▶ until all are; then the writer prepares epoch N
//! ```
//!
//! Rows that a sink refuses go to the writer of the dead letters, which has an input from each sink's writer beside those
//! from the workers. A sink's writer passes the barrier on to it once it has prepared the epoch.

use std::sync::Arc;

use bytes::Bytes;
use logmill_connectors::error::ConnectorError;
use logmill_connectors::sink::{Prepared, RefusedRows, Writer};
use logmill_pipelines::flow::RowBatch;
use logmill_protocol::Timestamp;
use tokio::sync::mpsc;

use super::dead_letter::DeadLetter;
use super::error::EngineError;
use super::event::{Barrier, Event, Watchdog, WriterId};
use super::manifest::StateRef;
use super::queue::{Lease, Receiver, Sender};
use super::refused;
use super::sinks::HandedOver;
use super::store::CheckpointStore;
use crate::metrics::Metrics;
use logmill_connectors::topic::RecordWriter;

/// What a worker hands to a writer.
pub(crate) enum Item {
    /// Rows of the sink's schema.
    Rows(RowBatch),
    /// Records put aside.
    Letters(Vec<DeadLetter>),
    /// The end of an epoch.
    Barrier(Barrier),
}

/// What a writer's task writes to.
pub(crate) enum Target {
    /// A sink.
    Sink(Box<dyn Writer>),
    /// The topic of the dead letters.
    Letters(RecordWriter),
}

/// A writer's task, before it starts.
pub(crate) struct WriterTask {
    pub(crate) id: WriterId,
    pub(crate) name: String,
    pub(crate) target: Target,
    pub(crate) inputs: Vec<Receiver<Item>>,
    pub(crate) events: mpsc::UnboundedSender<Event>,
    pub(crate) side: WriterSide,
}

/// Where a writer's task puts what is neither rows nor tokens.
pub(crate) struct WriterSide {
    pub(crate) pipeline: Arc<str>,
    /// The writer of the dead letters, for rows that the sink refuses; without it, they stop the run.
    pub(crate) letters: Option<Sender<Item>>,
    pub(crate) metrics: Arc<Metrics>,
    /// Takes the rows that are kept for tokens.
    pub(crate) store: CheckpointStore,
    /// Part of the names of what is kept.
    pub(crate) attempt: String,
    /// How much was kept in this run.
    pub(crate) kept: u64,
}

impl WriterTask {
    /// Writes until all workers are gone.
    pub(crate) async fn run(mut self) {
        let watchdog = Watchdog::new("a writer", self.events.clone());
        let result = self.write_all().await;
        watchdog.finish(result);
    }

    fn failed(&self, error: ConnectorError) -> EngineError {
        EngineError::sink(&self.name, error)
    }

    async fn write_all(&mut self) -> Result<(), EngineError> {
        loop {
            let mut kept = Vec::new();
            let Some(barrier) = self.write_epoch(&mut kept).await? else { return Ok(()) };
            let prepared = match &mut self.target {
                Target::Sink(writer) => writer.prepare(barrier.epoch, barrier.ends_input()).await,
                Target::Letters(records) => records.prepare(barrier.epoch).await.map(|()| Prepared::default()),
            };
            let mut prepared = prepared.map_err(|error| self.failed(error))?;
            self.side.refuse(&self.name, std::mem::take(&mut prepared.refused)).await?;
            if let Some(rows) = prepared.kept.take() {
                kept.push(self.side.keep(&self.name, rows).await?);
            }
            if let Some(letters) = &self.side.letters {
                // If it is gone, it has told why.
                let _ = letters.send_weightless(Item::Barrier(barrier));
            }
            let handed = HandedOver { prepared, kept };
            let _ = self.events.send(Event::Prepared { epoch: barrier.epoch, writer: self.id, handed });
            if barrier.halts() {
                return Ok(());
            }
        }
    }

    /// Writes until every worker's barrier is there; `None` once the workers are gone. Adds to `kept` what is kept.
    async fn write_epoch(&mut self, kept: &mut Vec<StateRef>) -> Result<Option<Barrier>, EngineError> {
        let mut aligned = vec![false; self.inputs.len()];
        let mut barrier = None;
        while aligned.contains(&false) {
            let waiting = self.inputs.iter_mut().enumerate().filter(|(input, _)| aligned.get(*input) == Some(&false));
            let receives: Vec<_> =
                waiting.map(|(input, receiver)| Box::pin(async move { (input, receiver.recv().await) })).collect();
            let ((input, received), ..) = futures::future::select_all(receives).await;
            let Some(lease) = received else { return Ok(None) };
            let Lease { item, .. } = &lease;
            match (item, &mut self.target) {
                (Item::Barrier(found), _) => {
                    barrier = Some(*found);
                    if let Some(slot) = aligned.get_mut(input) {
                        *slot = true;
                    }
                }
                (Item::Rows(batch), Target::Sink(writer)) => {
                    let taken = writer.write(batch.clone()).await.map_err(|error| self.failed(error))?;
                    self.side.refuse(&self.name, taken.refused).await?;
                    if let Some(rows) = taken.kept {
                        kept.push(self.side.keep(&self.name, rows).await?);
                    }
                }
                (Item::Letters(letters), Target::Letters(records)) => {
                    let written = write_letters(records, letters).await;
                    written.map_err(|error| self.failed(error))?;
                }
                (Item::Rows(_), Target::Letters(_)) | (Item::Letters(_), Target::Sink(_)) => {
                    return Err(EngineError::Defect("the wiring of the writers"));
                }
            }
        }
        Ok(barrier)
    }
}

impl WriterSide {
    /// Puts rows aside that the sink refuses, or stops the run for them.
    async fn refuse(&self, sink: &str, refused: Vec<RefusedRows>) -> Result<(), EngineError> {
        for refused in refused {
            let Some(writer) = &self.letters else { return Err(refused::stop(&self.pipeline, sink, &refused)?) };
            let letters = refused::letters(&self.pipeline, sink, &refused)?;
            self.metrics.dead_letters(letters.len() as u64);
            let bytes = letters.iter().map(DeadLetter::size_bytes).sum();
            // If it is gone, it has told why.
            let _ = writer.send(Item::Letters(letters), bytes).await;
        }
        Ok(())
    }

    /// Stores rows that tokens are made from.
    async fn keep(&mut self, sink: &str, rows: Bytes) -> Result<StateRef, EngineError> {
        self.kept += 1;
        let name = format!("{}-kept-{sink}-{}", self.attempt, self.kept);
        self.store.put(name.clone(), vec![rows]).await?;
        Ok(StateRef(name))
    }
}

/// The header of a dead letter whose value was too large for the topic: the length that it had.
const TRUNCATED: &str = "logmill.truncated";

/// The most of each header that is kept of a dead letter that is too large for the topic, in bytes.
const TRUNCATED_HEADER_BYTES: usize = 256;

async fn write_letters(records: &mut RecordWriter, letters: &[DeadLetter]) -> Result<(), ConnectorError> {
    for letter in letters {
        let headers: Vec<_> = letter.headers.iter().map(|(name, value)| (*name, Some(value.as_bytes()))).collect();
        let (key, value, timestamp) = (letter.key.as_deref(), letter.value.as_deref(), Timestamp(letter.timestamp_ms));
        if records.append_or_refuse(key, value, &headers, timestamp).await?.is_some() {
            write_truncated(records, letter).await?;
        }
    }
    Ok(())
}

/// Writes as much of a dead letter as the topic takes: the reason matters more than the complete record.
async fn write_truncated(records: &mut RecordWriter, letter: &DeadLetter) -> Result<(), ConnectorError> {
    let length = letter.value.as_ref().map_or(0, Bytes::len).to_string();
    let cut = |value: &str| value.as_bytes().get(..TRUNCATED_HEADER_BYTES).unwrap_or(value.as_bytes()).to_vec();
    let mut headers: Vec<(&str, Vec<u8>)> = letter.headers.iter().map(|(name, value)| (*name, cut(value))).collect();
    headers.push((TRUNCATED, length.into_bytes()));
    let used: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    let room = records.safe_record_bytes().saturating_sub(used) / 2;
    let head = |bytes: &Bytes| bytes.slice(..room.min(bytes.len()));
    let (key, value) = (letter.key.as_ref().map(head), letter.value.as_ref().map(head));
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, Some(value.as_slice()))).collect();
    records.append(key.as_deref(), value.as_deref(), &headers, Timestamp(letter.timestamp_ms)).await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use logmill_connectors::conformance::memory_log::{MemoryLog, MemoryTransaction};
    use logmill_connectors::log::{FetchRequest, Isolation, Log, NewTopic, TopicInfo, TopicPartition};
    use logmill_connectors::topic::BatchLimit;
    use logmill_pipelines::flow::CheckpointEpoch;
    use logmill_protocol::{BatchLimits, Offset, batches};

    use super::*;

    #[tokio::test]
    async fn a_dead_letter_that_is_too_large_is_cut_and_says_so() {
        let log = Arc::new(MemoryLog::default());
        log.create_topic(NewTopic { name: "letters".into(), partitions: 1, configs: Vec::new() }).await.unwrap();
        let transaction = Arc::new(MemoryTransaction::begin(log.clone()).await.unwrap());
        let configs = vec![("max.message.bytes".to_owned(), "2000".to_owned())];
        let info = TopicInfo { name: "letters".into(), partitions: 1, internal: false, configs };
        let records = RecordWriter::new(transaction.clone(), "letters", 1, CheckpointEpoch(1));
        let mut records = records.with_limit(BatchLimit::of(&info));
        let value: Vec<u8> = (0..50_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        let letter = |value: &[u8]| DeadLetter {
            key: None,
            value: Some(Bytes::copy_from_slice(value)),
            timestamp_ms: 5,
            headers: vec![("logmill.error", "e".repeat(10_000))],
        };
        write_letters(&mut records, &[letter(b"small"), letter(&value)]).await.unwrap();
        records.prepare(CheckpointEpoch(1)).await.unwrap();
        transaction.end(true).await.unwrap();
        let partition = TopicPartition { topic: "letters".into(), partition: 0 };
        let isolation = Isolation::ReadCommitted;
        let request = FetchRequest { partition, offset: Offset(0), max_bytes: 1 << 20, isolation };
        let fetched = log.fetch(&request).await.unwrap();
        let (mut seen, mut scratch) = (Vec::new(), Vec::new());
        for batch in batches(&fetched.batches).map(Result::unwrap).filter(|batch| !batch.header().is_control()) {
            assert!(batch.bytes().len() <= 2000);
            for record in batch.records(&mut scratch, &BatchLimits::STORED).unwrap().map(Result::unwrap) {
                seen.push((record.value.unwrap().to_vec(), record.headers().count()));
            }
        }
        assert_eq!(seen.len(), 2);
        assert_eq!(seen[0], (b"small".to_vec(), 1));
        assert!(!seen[1].0.is_empty() && value.starts_with(&seen[1].0), "the value begins as it did");
        assert_eq!(seen[1].1, 2, "a header says how long the value was");
    }
}
