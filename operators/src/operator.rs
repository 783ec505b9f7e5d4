//! The Operator trait: synchronous, vectorised, push-based computation on row batches.
//!
//! An operator runs on one worker thread, which calls it in this order:
//!
//! ```text
//!   open ─▶ restore ─▶ ( on_batch [resume…] | on_watermark [resume…] | on_timer [resume…] | snapshot )* ─▶ on_end(port)…
//! ```
//!
//! It never waits, performs no I/O and keeps no clock of its own: what it needs is given to it. Whatever it wants to say, it
//! says to the `Output`; when it has more to say than fits, it returns [`Progress::More`] and is called with
//! `resume` once there is room, before any other call. A snapshot is taken between two calls, never while `More`
//! is outstanding.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, SchemaRef};
use logmill_pipelines::flow::{CheckpointEpoch, Origin, RowBatch, Watermark};

use crate::error::OperatorError;

/// An input or output of an operator, counted from 0 in the order of `Operator::inputs` and `Operator::outputs`.
pub type Port = usize;

/// Whether an operator is ready for its next call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It is.
    Done,
    /// It has more to put out: call `resume` when there is room.
    More,
}

/// Where an operator puts what it makes.
pub trait Output {
    /// Hands a batch of the port's schema on. Order within a port is kept.
    fn emit(&mut self, port: Port, batch: RowBatch);

    /// Puts aside rows that the operator failed on, with the reason for each; the pipeline's `on_error` decides
    /// what becomes of them. `batch` holds the rows as the operator saw them.
    fn reject(&mut self, batch: RowBatch, reason: &str);

    /// Whether the operator should return `More` instead of emitting again.
    fn is_full(&self) -> bool;
}

/// A named port and the columns that flow through it.
#[derive(Clone, Debug)]
pub struct PortSchema {
    /// The relation's name, as SQL or the YAML calls it.
    pub name: Arc<str>,
    /// Its columns.
    pub schema: SchemaRef,
}

/// A bounded relation, loaded whole before the operator opens: an airline table, a list of codes.
#[derive(Clone, Debug)]
pub struct StaticTable {
    /// The relation's name.
    pub name: Arc<str>,
    /// Its columns.
    pub schema: SchemaRef,
    /// Its rows.
    pub batches: Vec<RecordBatch>,
}

/// The state of one shard of one table, frozen at a barrier.
#[derive(Clone, Debug)]
pub struct StateBuffer {
    /// The state table's name.
    pub table: Arc<str>,
    /// The shard, below the pipeline's number of shards.
    pub shard: u32,
    /// Its content, in the operator's own versioned format.
    pub data: bytes::Bytes,
}

/// Says what time it is, in µs since the Unix epoch: the system's clock, or the virtual one of a test.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// What an operator is given when it opens.
#[derive(Clone)]
pub struct OpenContext {
    /// The static tables the operator asked for.
    pub tables: Vec<StaticTable>,
    /// The engine's clock, for what a guest asks it.
    pub clock: Clock,
}

impl Default for OpenContext {
    /// No tables, and the system's clock.
    fn default() -> Self {
        Self { tables: Vec::new(), clock: Arc::new(system_time_us) }
    }
}

impl fmt::Debug for OpenContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenContext").field("tables", &self.tables).finish_non_exhaustive()
    }
}

/// The system's time, in µs since the Unix epoch.
pub(crate) fn system_time_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// The origin of some rows of a batch: exact, if their offsets are at hand.
pub(crate) fn exact_origin(origin: &Origin, rows: &RecordBatch) -> Origin {
    let offsets = rows.column_by_name("_offset").and_then(|column| column.as_primitive_opt::<Int64Type>());
    let offset =
        offsets.filter(|offsets| offsets.null_count() == 0).and_then(|offsets| offsets.values().first().copied());
    Origin { offset: offset.unwrap_or(origin.offset), ..origin.clone() }
}

/// A computation on streams of row batches.
pub trait Operator: Send {
    /// The input ports, in the order of their numbers.
    fn inputs(&self) -> &[PortSchema];

    /// The output ports, in the order of their numbers.
    fn outputs(&self) -> &[PortSchema];

    /// Called once, before anything flows.
    fn open(&mut self, context: OpenContext) -> Result<(), OperatorError>;

    /// Takes a batch of the port's schema. Rows it cannot process go to `Output::reject`; an error stops the pipeline.
    fn on_batch(&mut self, port: Port, batch: RowBatch, out: &mut dyn Output) -> Result<Progress, OperatorError>;

    /// Goes on after `More`.
    fn resume(&mut self, out: &mut dyn Output) -> Result<Progress, OperatorError>;

    /// Event time has reached `watermark` on the port: channels and splits are merged already, idle ones are out.
    fn on_watermark(
        &mut self,
        port: Port,
        watermark: Watermark,
        out: &mut dyn Output,
    ) -> Result<Progress, OperatorError>;

    /// Processing time has reached the time the operator asked for through `next_timer`, in µs since the Unix epoch.
    fn on_timer(&mut self, now: i64, out: &mut dyn Output) -> Result<Progress, OperatorError>;

    /// When `on_timer` shall be called next, in µs since the Unix epoch.
    fn next_timer(&self) -> Option<i64>;

    /// Nothing more comes on the port in this run. A later run may go on from the state after it, with more input or
    /// none, and say so again: an operator that puts something out at the end remembers that it did.
    fn on_end(&mut self, port: Port, out: &mut dyn Output) -> Result<Progress, OperatorError>;

    /// Freezes the state at a barrier. Empty for a stateless operator.
    fn snapshot(&mut self, epoch: CheckpointEpoch) -> Result<Vec<StateBuffer>, OperatorError>;

    /// Takes over the state of some shards, right after `open`.
    fn restore(&mut self, state: Vec<StateBuffer>) -> Result<(), OperatorError>;
}
