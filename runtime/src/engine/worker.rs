//! A worker: one thread that decodes the records of its splits and runs them through the operators.
//!
//! A barrier reaches it beside the queue of its input, not in it: the splits' positions at the barrier are those after the
//! last chunks it processed, and what still waits in the queue belongs to the next epoch.

use std::collections::HashMap;
use std::sync::Arc;

use logmill_connectors::decode::Decoded;
use logmill_connectors::source::{Chunk, ChunkData, Records, RejectedRow};
use logmill_pipelines::flow::{Origin, Position, RowBatch, SplitId};
use logmill_pipelines::lineage::Lineage;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::dead_letter::{DeadLetter, FailedRows, OnError, Part, Provenance};
use super::decoding::FeedDecoder;
use super::error::EngineError;
use super::event::{Barrier, Event, FeedId, Watchdog, WriterId};
use super::feed::Input;
use super::graph::{Exit, Graph, Rejected};
use super::in_flight::{InFlight, lineage_of_decoded};
use super::queue::{Receiver, Sender};
use super::state::OperatorState;
use super::writer::Item;
use crate::metrics::Metrics;

/// One worker, before it starts.
pub(crate) struct Worker {
    pub(crate) pipeline: Arc<str>,
    pub(crate) feeds: Vec<FeedDecoder>,
    pub(crate) graph: Graph,
    /// How many chunks it has taken.
    pub(crate) chunks: u64,
    pub(crate) operators: Vec<String>,
    pub(crate) input: Receiver<Input>,
    pub(crate) barriers: mpsc::UnboundedReceiver<Barrier>,
    pub(crate) exit: WorkerExit,
    pub(crate) events: mpsc::UnboundedSender<Event>,
    pub(crate) metrics: Arc<Metrics>,
}

/// The queues that a worker fills.
pub(crate) struct WorkerExit {
    pub(crate) writers: Vec<Sender<Item>>,
    pub(crate) letters: Option<WriterId>,
    pub(crate) runtime: Handle,
    /// Told what is put aside.
    pub(crate) metrics: Arc<Metrics>,
}

enum Step {
    Barrier(Barrier),
    Input(super::queue::Lease<Input>),
    End,
}

impl Worker {
    /// Starts the thread.
    pub(crate) fn start(self, number: usize) -> std::io::Result<std::thread::JoinHandle<()>> {
        let watchdog = Watchdog::new("a worker", self.events.clone());
        std::thread::Builder::new().name(format!("worker-{number}")).spawn(move || watchdog.finish(self.run()))
    }

    fn run(mut self) -> Result<(), EngineError> {
        let runtime = self.exit.runtime.clone();
        let mut reached: HashMap<(FeedId, SplitId), Position> = HashMap::new();
        let mut rows_read = 0;
        loop {
            let step = runtime.block_on(async {
                tokio::select! {
                    biased;
                    barrier = self.barriers.recv() => barrier.map_or(Step::End, Step::Barrier),
                    Some(lease) = self.input.recv() => Step::Input(lease),
                }
            });
            match step {
                Step::End => return Ok(()),
                Step::Barrier(barrier) => {
                    let states = self.pass(barrier)?;
                    let reached = reached.drain().map(|((feed, split), position)| (feed, split, position)).collect();
                    let rows_read = std::mem::take(&mut rows_read);
                    let _ = self.events.send(Event::Passed { epoch: barrier.epoch, reached, rows_read, states });
                    if barrier.halts() {
                        // What waits in the queue is for a later run.
                        return Ok(());
                    }
                }
                Step::Input(lease) => match lease.item {
                    Input::SplitEnd { feed } => {
                        let _ = self.events.send(Event::SplitProcessed { feed });
                    }
                    Input::Chunk { feed, split, chunk } => {
                        let position = chunk.position.clone();
                        rows_read += self.process(feed, &split, *chunk)?;
                        reached.insert((feed, split), position);
                    }
                },
            }
        }
    }

    /// Ends an epoch: what comes out at the end of the input is part of it, and so is what the operators remember then,
    /// by which they know in a later run what they have put out already.
    fn pass(&mut self, barrier: Barrier) -> Result<Vec<OperatorState>, EngineError> {
        if barrier.ends_input() {
            let mut leaving =
                Leaving { exit: &self.exit, names: &self.operators, pipeline: &self.pipeline, chunk: None };
            self.graph.end(&mut leaving)?;
        }
        let snapshots = self.graph.snapshot(barrier.epoch)?;
        self.exit.send_barrier(barrier);
        let name = |operator: usize| self.operators.get(operator).cloned().unwrap_or_default();
        let states =
            snapshots.into_iter().map(|(operator, buffers)| OperatorState { operator: name(operator), buffers });
        Ok(states.collect())
    }

    /// Runs a chunk through the operators; returns how many rows or records it held.
    fn process(&mut self, feed: FeedId, split: &SplitId, chunk: Chunk) -> Result<u64, EngineError> {
        let Some(feed_decoder) = self.feeds.get_mut(feed.0) else { return Ok(0) };
        self.chunks += 1;
        let source = feed_decoder.provenance.source.clone();
        let origin = |offset| Some(Origin { source, split: split.clone(), offset });
        let count = match &chunk.data {
            ChunkData::Rows(rows, rejected) => (rows.len() + rejected.len()) as u64,
            ChunkData::Records(records) => records.len() as u64,
        };
        self.metrics.read(count, chunk.bytes_read);
        let batch = match &chunk.data {
            ChunkData::Rows(rows, rejected) => {
                put_rejected_aside(&feed_decoder.provenance, rejected, &self.exit)?;
                let lineage = Some(Lineage::of_chunk(self.chunks));
                RowBatch { rows: rows.rows.clone(), ops: None, origin: origin(-1), lineage }
            }
            ChunkData::Records(records) => {
                let Decoded { rows, errors } = decode(feed_decoder, records, &self.exit)?;
                let lineage = lineage_of_decoded(self.chunks, records, &rows, &errors);
                let origin = origin(records.offsets.first().copied().unwrap_or(-1));
                RowBatch { rows, ops: None, origin, lineage }
            }
        };
        let provenance = &feed_decoder.provenance;
        let in_flight = InFlight { chunk: self.chunks, provenance, split, data: &chunk.data };
        let (names, pipeline) = (&self.operators, &*self.pipeline);
        let mut leaving = Leaving { exit: &self.exit, names, pipeline, chunk: Some(in_flight) };
        self.graph.push(feed, batch, &mut leaving)?;
        Ok(count)
    }
}

fn decode(feed: &mut FeedDecoder, records: &Records, exit: &WorkerExit) -> Result<Decoded, EngineError> {
    let decoded = feed.decode(records)?;
    if let Some(first) = decoded.errors.first() {
        if exit.on_error() == OnError::Stop {
            return Err(feed.provenance.stop(records, first));
        }
        let letters = decoded.errors.iter().map(|error| feed.provenance.undecoded(records, error)).collect();
        exit.put_aside(letters)?;
    }
    Ok(decoded)
}

/// Puts rows aside that a source of rows could not hand on.
fn put_rejected_aside(provenance: &Provenance, rejected: &[RejectedRow], exit: &WorkerExit) -> Result<(), EngineError> {
    let Some(first) = rejected.first() else { return Ok(()) };
    match exit.on_error() {
        OnError::Stop => Err(provenance.stop_at_row(first)),
        OnError::DeadLetter => exit.put_aside(rejected.iter().map(|row| provenance.rejected(row)).collect()),
    }
}

impl WorkerExit {
    fn on_error(&self) -> OnError {
        if self.letters.is_some() { OnError::DeadLetter } else { OnError::Stop }
    }

    fn send_barrier(&self, barrier: Barrier) {
        for writer in &self.writers {
            // A writer that is gone has told the coordinator why.
            let _ = writer.send_weightless(Item::Barrier(barrier));
        }
    }

    fn put_aside(&self, letters: Vec<DeadLetter>) -> Result<(), EngineError> {
        let Some(writer) = self.letters else { return Ok(()) };
        self.metrics.dead_letters(letters.len() as u64);
        let bytes = letters.iter().map(DeadLetter::size_bytes).sum();
        self.send(writer, Item::Letters(letters), bytes)
    }

    fn send(&self, writer: WriterId, item: Item, bytes: usize) -> Result<(), EngineError> {
        let Some(sender) = self.writers.get(writer.0) else { return Ok(()) };
        // A writer that is gone has told the coordinator why, which ends this worker too.
        let _ = self.runtime.block_on(sender.send(item, bytes));
        Ok(())
    }
}

/// The way out of the graph during one call.
struct Leaving<'a> {
    exit: &'a WorkerExit,
    names: &'a [String],
    pipeline: &'a str,
    /// What runs through; nothing at the end of the input.
    chunk: Option<InFlight<'a>>,
}

impl Exit for Leaving<'_> {
    fn deliver(&mut self, writer: WriterId, batch: RowBatch) -> Result<(), EngineError> {
        let bytes = batch.size_bytes();
        self.exit.send(writer, Item::Rows(batch), bytes)
    }

    fn reject(&mut self, rejected: Rejected) -> Result<(), EngineError> {
        let name = self.names.get(rejected.operator).map_or("", String::as_str);
        let (batch, reason) = (&rejected.batch, rejected.reason.as_str());
        let failed = FailedRows {
            pipeline: self.pipeline,
            part: Part::Operator(name),
            batch,
            reason,
            chunk: self.chunk.as_ref(),
        };
        match self.exit.on_error() {
            OnError::Stop => Err(failed.stop()?),
            OnError::DeadLetter => self.exit.put_aside(failed.letters()?),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use arrow::array::{ArrayRef, Int32Array, RecordBatch};

    /// An exit with one writer, of dead letters if they are wanted, and the way to it.
    fn exit(runtime: &Handle, letters: bool) -> (WorkerExit, Receiver<Item>) {
        let (sender, receiver) = super::super::queue::channel(1 << 20);
        let letters = letters.then_some(WriterId(0));
        let metrics = Arc::new(Metrics::new());
        (WorkerExit { writers: vec![sender], letters, runtime: runtime.clone(), metrics }, receiver)
    }

    #[test]
    fn rows_that_an_operator_rejects_count_as_put_aside() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let numbers: ArrayRef = Arc::new(Int32Array::from(vec![1, 2, 3]));
        let rows = RecordBatch::try_from_iter([("n", numbers)]).unwrap();
        for (letters, expected) in [(true, 3), (false, 0)] {
            let (exit, _receiver) = exit(runtime.handle(), letters);
            let mut leaving = Leaving { exit: &exit, names: &["scored".to_owned()], pipeline: "p", chunk: None };
            let batch = RowBatch::inserts(rows.clone());
            let result = leaving.reject(Rejected { operator: 0, batch, reason: "too late".to_owned() });
            assert_eq!(result.is_ok(), letters);
            assert_eq!(exit.metrics.snapshot().dead_letters, expected);
        }
    }
}
