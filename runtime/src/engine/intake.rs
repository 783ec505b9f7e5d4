//! The intake of a source that is played `through:` a topic: its records are appended to the topic in the epoch's
//! transaction, together with the positions they were read up to, and the operators read the topic.
//!
//! Records without a key go to the partition that their split falls on. So a split keeps its order, and which rows meet
//! in a shard of an operator's state is the same in every run.
//!
//! A record that the topic can never take becomes a dead letter of the same transaction, or stops the run.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::BytesMut;
use logmill_connectors::decode::Encoder;
use logmill_connectors::error::ConnectorError;
use logmill_connectors::source::{ChunkData, Records, RejectedRow, Rows};
use logmill_connectors::topic::RecordWriter;
use logmill_pipelines::flow::{Position, SplitId, state_shard};
use logmill_protocol::Timestamp;
use tokio::sync::mpsc;

use super::dead_letter::{Provenance, Record};
use super::error::EngineError;
use super::event::{Barrier, Event, FeedId, Watchdog};
use super::feed::Input;
use super::queue::{Receiver, Sender};
use super::writer::Item;
use crate::metrics::Metrics;

/// An intake's task, before it starts.
pub(crate) struct Intake {
    pub(crate) provenance: Provenance,
    pub(crate) records: RecordWriter,
    /// Turns rows into values, where the source delivers rows.
    pub(crate) encoder: Option<Box<dyn Encoder>>,
    /// The writer of the dead letters, for records that the topic refuses; without it, they stop the run.
    pub(crate) letters: Option<Sender<Item>>,
    pub(crate) input: Receiver<Input>,
    pub(crate) barriers: mpsc::UnboundedReceiver<Barrier>,
    pub(crate) events: mpsc::UnboundedSender<Event>,
    pub(crate) metrics: Arc<Metrics>,
}

impl Intake {
    /// Appends until the coordinator is gone.
    pub(crate) async fn run(mut self) {
        let watchdog = Watchdog::new("an intake", self.events.clone());
        let result = self.append_all().await;
        watchdog.finish(result);
    }

    fn failed(&self, error: ConnectorError) -> EngineError {
        EngineError::source(&self.provenance.source, error)
    }

    async fn append_all(&mut self) -> Result<(), EngineError> {
        let mut reached: HashMap<(FeedId, SplitId), Position> = HashMap::new();
        loop {
            tokio::select! {
                biased;
                barrier = self.barriers.recv() => {
                    let Some(barrier) = barrier else { return Ok(()) };
                    self.records.prepare(barrier.epoch).await.map_err(|error| self.failed(error))?;
                    if let Some(letters) = &self.letters {
                        // If it is gone, it has told why.
                        let _ = letters.send_weightless(Item::Barrier(barrier));
                    }
                    let reached = reached.drain().map(|((feed, split), position)| (feed, split, position)).collect();
                    let passed = Event::Passed { epoch: barrier.epoch, reached, rows_read: 0, states: Vec::new() };
                    let _ = self.events.send(passed);
                    if barrier.halts() {
                        return Ok(());
                    }
                }
                Some(lease) = self.input.recv() => match lease.item {
                    Input::SplitEnd { feed } => {
                        let _ = self.events.send(Event::SplitProcessed { feed });
                    }
                    Input::Chunk { feed, split, chunk } => {
                        let rows = self.append(&split, &chunk.data).await?;
                        self.metrics.taken_in(rows, chunk.bytes_read);
                        reached.insert((feed, split), chunk.position);
                    }
                },
            }
        }
    }

    async fn append(&mut self, split: &SplitId, data: &ChunkData) -> Result<u64, EngineError> {
        self.records.send_unkeyed_to(state_shard(split));
        match data {
            ChunkData::Records(records) => self.append_records(records).await,
            ChunkData::Rows(batch, rejected) => self.append_rows(split, batch, rejected).await,
        }
    }

    async fn append_records(&mut self, records: &Records) -> Result<u64, EngineError> {
        for index in 0..records.len() {
            let timestamp = Timestamp(records.timestamps.get(index).copied().unwrap_or(-1));
            let named = headers(records, index);
            let headers: Vec<_> = named.iter().map(|(name, value)| (&**name, *value)).collect();
            let (key, value) = (records.key(index), records.value(index));
            let refused = self.records.append_or_refuse(key, value, &headers, timestamp).await;
            if let Some(reason) = refused.map_err(|error| self.failed(error))? {
                self.refuse(Record::of(records, index), &reason).await?;
            }
        }
        Ok(records.len() as u64)
    }

    /// Appends rows as JSON. Those that the source rejects go along as they are: whoever decodes the topic rejects them again,
    /// and says where they lie in it.
    async fn append_rows(
        &mut self,
        split: &SplitId,
        batch: &Rows,
        rejected: &[RejectedRow],
    ) -> Result<u64, EngineError> {
        let mut buffer = BytesMut::new();
        let mut values = Vec::with_capacity(batch.len());
        if let Some(encoder) = &mut self.encoder {
            let encoded = encoder.encode(&batch.rows, &mut buffer, &mut values);
            encoded.map_err(|error| EngineError::source(&self.provenance.source, error))?;
        }
        for (index, range) in values.into_iter().enumerate() {
            if let Some(reason) = self.append_value(buffer.get(range)).await? {
                self.refuse(Record::of_row(split, batch, rejected, index)?, &reason).await?;
            }
        }
        for row in rejected {
            if let Some(reason) = self.append_value(Some(&row.value)).await? {
                self.refuse(Record::rejected(row), &reason).await?;
            }
        }
        Ok((batch.len() + rejected.len()) as u64)
    }

    /// Appends a value alone, or returns why the topic can never take it.
    async fn append_value(&mut self, value: Option<&[u8]>) -> Result<Option<String>, EngineError> {
        let refused = self.records.append_or_refuse(None, value, &[], Timestamp::NONE).await;
        refused.map_err(|error| self.failed(error))
    }

    /// Makes a dead letter of a record that the topic refuses, or stops the run for it.
    async fn refuse(&mut self, record: Record, reason: &str) -> Result<(), EngineError> {
        let Some(letters) = &self.letters else { return Err(self.provenance.stop_at(record, reason)) };
        self.metrics.dead_letters(1);
        let letter = self.provenance.letter(record, reason);
        let bytes = letter.size_bytes();
        // If the writer is gone, it has told why.
        let _ = letters.send(Item::Letters(vec![letter]), bytes).await;
        Ok(())
    }
}

/// The headers of a record. Their names are text by Kafka's rules; what is none is kept as far as it is.
fn headers(records: &Records, index: usize) -> Vec<(Cow<'_, str>, Option<&[u8]>)> {
    let part = |range: &Range<u32>| records.buffer.get(range.start as usize..range.end as usize);
    let of_record = records.headers.get(index).into_iter().flatten();
    let header = |(name, value): &(Range<u32>, Option<Range<u32>>)| {
        (String::from_utf8_lossy(part(name).unwrap_or_default()), value.as_ref().and_then(part))
    };
    of_record.map(header).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use logmill_connectors::conformance::memory_log::{MemoryLog, MemoryTransaction};
    use logmill_connectors::log::{Log, NewTopic};
    use logmill_connectors::topic::bounded_source;
    use logmill_pipelines::flow::CheckpointEpoch;
    use tokio::sync::watch;

    const TOPIC: &str = "in";

    /// A record: key, value, and the value of its header `h`, if it has one.
    type Seen = (Option<String>, String, Option<String>);

    fn records(of: &[(&str, &str, Option<&str>)]) -> ChunkData {
        let mut records = Records::default();
        let mut buffer = Vec::new();
        let mut put = |text: &str| {
            let start = buffer.len() as u32;
            buffer.extend_from_slice(text.as_bytes());
            start..buffer.len() as u32
        };
        for (key, value, header) in of {
            records.keys.push((!key.is_empty()).then(|| put(key)));
            records.values.push(Some(put(value)));
            records.headers.push(header.iter().map(|header| (put("h"), Some(put(header)))).collect());
        }
        records.buffer = buffer.into();
        ChunkData::Records(records)
    }

    /// What each of three partitions holds after the chunks were taken in, an epoch having ended after `cut` of them.
    async fn taken_in(chunks: &[(&str, ChunkData)], cut: usize) -> Vec<Vec<Seen>> {
        let log = Arc::new(MemoryLog::default());
        log.create_topic(NewTopic { name: TOPIC.into(), partitions: 3, configs: Vec::new() }).await.unwrap();
        let transaction = Arc::new(MemoryTransaction::begin(log.clone()).await.unwrap());
        let (events, _told) = mpsc::unbounded_channel();
        let mut intake = Intake {
            provenance: Provenance { pipeline: "p".into(), source: "s".into() },
            records: RecordWriter::new(transaction.clone(), TOPIC, 3, CheckpointEpoch(1)),
            encoder: None,
            letters: None,
            input: super::super::queue::channel(1 << 20).1,
            barriers: mpsc::unbounded_channel().1,
            events,
            metrics: Arc::new(Metrics::new()),
        };
        for (number, (split, data)) in chunks.iter().enumerate() {
            if number == cut {
                intake.records.prepare(CheckpointEpoch(1)).await.unwrap();
            }
            intake.append(&SplitId::new(*split), data).await.unwrap();
        }
        intake.records.prepare(CheckpointEpoch(2)).await.unwrap();
        transaction.end(true).await.unwrap();
        let ends = (0..3).map(|partition| (partition, i64::MAX)).collect();
        let source = bounded_source(log.clone(), TOPIC, watch::channel(Some(ends)).1);
        let mut partitions = Vec::new();
        for partition in 0..3 {
            partitions.push(read(&*source, partition, &log).await);
        }
        partitions
    }

    async fn read(source: &dyn logmill_connectors::source::Source, partition: i32, log: &MemoryLog) -> Vec<Seen> {
        use logmill_connectors::log::{Isolation, OffsetAt, TopicPartition};
        let place = TopicPartition { topic: TOPIC.into(), partition };
        let end = log.offset(&place, OffsetAt::Latest(Isolation::ReadCommitted)).await.unwrap().0;
        let mut reader = source.open(&SplitId::new(partition.to_string()), None).await.unwrap();
        let mut seen = Vec::new();
        let mut at = 0;
        while at < end {
            let chunk = reader.next().await.unwrap().unwrap();
            at = chunk.position.0["offset"].as_i64().unwrap();
            let ChunkData::Records(records) = chunk.data else { panic!("rows") };
            let text = |bytes: Option<&[u8]>| bytes.map(|bytes| String::from_utf8(bytes.to_vec()).unwrap());
            seen.extend((0..records.len()).map(|index| {
                let header = headers(&records, index).first().and_then(|(name, value)| {
                    assert_eq!(name, "h");
                    text(*value)
                });
                (text(records.key(index)), text(records.value(index)).unwrap(), header)
            }));
        }
        seen
    }

    #[tokio::test]
    async fn records_without_a_key_lie_by_their_split_wherever_epochs_end() {
        let chunks = [
            ("1", records(&[("", "a", None), ("", "b", None)])),
            ("2", records(&[("", "c", None)])),
            ("1", records(&[("", "d", None)])),
            ("4", records(&[("", "e", None)])),
        ];
        for cut in 0..chunks.len() {
            let values = taken_in(&chunks, cut).await.into_iter();
            let values: Vec<Vec<_>> =
                values.map(|seen| seen.into_iter().map(|(_, value, _)| value).collect()).collect();
            assert_eq!(values, [vec![], vec!["a", "b", "d", "e"], vec!["c"]], "cut after {cut}");
        }
    }

    #[tokio::test]
    async fn keys_and_headers_come_along() {
        let chunks = [("0", records(&[("k", "a", Some("x")), ("k", "b", None), ("k", "c", Some(""))]))];
        let seen: Vec<_> = taken_in(&chunks, 0).await.into_iter().flatten().collect();
        let expected = [("a", Some("x")), ("b", None), ("c", Some(""))];
        let expected =
            expected.map(|(value, header)| (Some("k".to_owned()), value.to_owned(), header.map(str::to_owned)));
        assert_eq!(seen, expected);
    }
}
