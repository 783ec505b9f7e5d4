//! The intake of a source that is played `through:` a topic: its records are appended to the topic in the epoch's
//! transaction, together with the positions they were read up to, and the operators read the topic.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::BytesMut;
use logmill_connectors::decode::Encoder;
use logmill_connectors::error::ConnectorError;
use logmill_connectors::source::{ChunkData, Records};
use logmill_connectors::topic::RecordWriter;
use logmill_pipelines::flow::{Position, RowBatch, SplitId};
use logmill_protocol::Timestamp;
use tokio::sync::mpsc;

use super::error::EngineError;
use super::event::{Barrier, Event, FeedId, Watchdog};
use super::feed::Input;
use super::queue::Receiver;
use crate::metrics::Metrics;

/// An intake's task, before it starts.
pub(crate) struct Intake {
    pub(crate) name: String,
    pub(crate) records: RecordWriter,
    /// Turns rows into values, where the source delivers rows.
    pub(crate) encoder: Option<Box<dyn Encoder>>,
    pub(crate) input: Receiver<Input>,
    pub(crate) barriers: mpsc::UnboundedReceiver<Barrier>,
    pub(crate) events: mpsc::UnboundedSender<Event>,
    pub(crate) metrics: Arc<Metrics>,
}

impl Intake {
    /// Appends until the coordinator is gone.
    pub(crate) async fn run(mut self) {
        let watchdog = Watchdog::new("an intake", self.events.clone());
        let result = self.append_all().await.map_err(|error| EngineError::source(&self.name, error));
        watchdog.finish(result);
    }

    async fn append_all(&mut self) -> Result<(), ConnectorError> {
        let mut reached: HashMap<(FeedId, SplitId), Position> = HashMap::new();
        loop {
            tokio::select! {
                biased;
                barrier = self.barriers.recv() => {
                    let Some(barrier) = barrier else { return Ok(()) };
                    self.records.prepare(barrier.epoch).await?;
                    let reached = reached.drain().map(|((feed, split), position)| (feed, split, position)).collect();
                    let _ = self.events.send(Event::Passed { epoch: barrier.epoch, reached, states: Vec::new() });
                }
                Some(lease) = self.input.recv() => match lease.item {
                    Input::SplitEnd { feed } => {
                        let _ = self.events.send(Event::SplitProcessed { feed });
                    }
                    Input::Chunk { feed, split, chunk } => {
                        let rows = match &chunk.data {
                            ChunkData::Records(records) => self.append_records(records).await?,
                            ChunkData::Rows(batch) => self.append_rows(batch).await?,
                        };
                        self.metrics.taken_in(rows, chunk.bytes_read);
                        reached.insert((feed, split), chunk.position);
                    }
                },
            }
        }
    }

    async fn append_records(&mut self, records: &Records) -> Result<u64, ConnectorError> {
        for index in 0..records.len() {
            let timestamp = records.timestamps.get(index).copied().unwrap_or(-1);
            self.records.append(records.key(index), records.value(index), &[], Timestamp(timestamp)).await?;
        }
        Ok(records.len() as u64)
    }

    async fn append_rows(&mut self, batch: &RowBatch) -> Result<u64, ConnectorError> {
        let mut buffer = BytesMut::new();
        let mut values = Vec::with_capacity(batch.num_rows());
        if let Some(encoder) = &mut self.encoder {
            encoder.encode(&batch.rows, &mut buffer, &mut values)?;
        }
        for range in values {
            self.records.append(None, buffer.get(range), &[], Timestamp::NONE).await?;
        }
        Ok(batch.num_rows() as u64)
    }
}
