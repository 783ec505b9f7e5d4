//! A writer's task: takes rows from all workers, aligns their barriers, and prepares the epoch.
//!
//! ```text
//!   worker 0 ──r r │N r──▶ ┐  once one worker's barrier N is there, its queue waits
//!   worker 1 ──r r r │N──▶ ┴▶ until all are; then the writer prepares epoch N
//! ```

use std::sync::Arc;

use logmill_connectors::error::ConnectorError;
use logmill_connectors::sink::{Prepared, Writer, Written};
use logmill_pipelines::flow::RowBatch;
use logmill_protocol::Timestamp;
use tokio::sync::mpsc;

use super::dead_letter::DeadLetter;
use super::error::EngineError;
use super::event::{Barrier, Event, Watchdog, WriterId};
use super::queue::{Lease, Receiver};
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
    pub(crate) metrics: Arc<Metrics>,
}

impl WriterTask {
    /// Writes until all workers are gone.
    pub(crate) async fn run(mut self) {
        let watchdog = Watchdog::new("a writer", self.events.clone());
        let result = self.write_all().await.map_err(|error| EngineError::sink(&self.name, error));
        watchdog.finish(result);
    }

    async fn write_all(&mut self) -> Result<(), ConnectorError> {
        let mut told = Written::default();
        loop {
            let Some(barrier) = self.write_epoch(&mut told).await? else { return Ok(()) };
            let prepared = match &mut self.target {
                Target::Sink(writer) => writer.prepare(barrier.epoch, barrier.ends_input()).await?,
                Target::Letters(records) => {
                    records.prepare(barrier.epoch).await?;
                    Prepared::default()
                }
            };
            self.tell(&mut told);
            let _ = self.events.send(Event::Prepared { epoch: barrier.epoch, writer: self.id, prepared });
            if barrier.halts() {
                return Ok(());
            }
        }
    }

    /// Writes until every worker's barrier is there; `None` once the workers are gone.
    async fn write_epoch(&mut self, told: &mut Written) -> Result<Option<Barrier>, ConnectorError> {
        let mut aligned = vec![false; self.inputs.len()];
        let mut barrier = None;
        while aligned.contains(&false) {
            let waiting = self.inputs.iter_mut().enumerate().filter(|(input, _)| aligned.get(*input) == Some(&false));
            let receives: Vec<_> =
                waiting.map(|(input, receiver)| Box::pin(async move { (input, receiver.recv().await) })).collect();
            let ((input, received), ..) = futures::future::select_all(receives).await;
            let Some(lease) = received else { return Ok(None) };
            let Lease { item, .. } = &lease;
            match item {
                Item::Barrier(found) => {
                    barrier = Some(*found);
                    if let Some(slot) = aligned.get_mut(input) {
                        *slot = true;
                    }
                }
                Item::Rows(batch) => self.write_rows(batch.clone()).await?,
                Item::Letters(letters) => {
                    if let Target::Letters(records) = &mut self.target {
                        write_letters(records, letters).await?;
                    }
                }
            }
            self.tell(told);
        }
        Ok(barrier)
    }

    async fn write_rows(&mut self, batch: RowBatch) -> Result<(), ConnectorError> {
        match &mut self.target {
            Target::Sink(writer) => writer.write(batch).await,
            Target::Letters(_) => Ok(()),
        }
    }

    fn tell(&self, told: &mut Written) {
        if let Target::Sink(writer) = &self.target {
            let now = writer.written();
            let (rows, bytes) = (now.rows.saturating_sub(told.rows), now.bytes.saturating_sub(told.bytes));
            self.metrics.written(self.id.0, rows, bytes);
            *told = now;
        }
    }
}

async fn write_letters(records: &mut RecordWriter, letters: &[DeadLetter]) -> Result<(), ConnectorError> {
    for letter in letters {
        let headers: Vec<_> = letter.headers.iter().map(|(name, value)| (*name, Some(value.as_bytes()))).collect();
        let timestamp = Timestamp(letter.timestamp_ms);
        records.append(letter.key.as_deref(), letter.value.as_deref(), &headers, timestamp).await?;
    }
    Ok(())
}
