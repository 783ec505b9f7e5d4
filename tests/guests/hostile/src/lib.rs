//! A guest that does what it should not, when and where its configuration says, and is otherwise an identity.
//!
//! ```text
//! config: { mode: loop, when: { column: flight, equals: 461 } }    with `where: batch`, the default: on a row of this value,
//!         { mode: panic, when: { row: 1000 } }                     or on this row of the instance's, counted from 0
//!         { mode: stack, where: signature }                        or in another call: signature, snapshot, restore, watermark
//!
//! loop      never returns                      blind      an error that names no row
//! memory    takes all it can get               garbage    rows that are no Arrow stream
//! stack     fills its stack, in memory         truncated  rows whose stream ends early
//! calls     calls itself for ever              huge       `bytes` (1 GiB) of output
//! panic     panics                             name       rows for an output that there is not
//! abort     ends by an unreachable             schema     rows with another column than was said
//! error     an error that names the row        log        `lines` (100000) lines of log, then goes on
//! hidden    puts out more in the second call of an instance, and every second one
//! ```
//!
//! With the feature `stateful` it also counts the rows it has seen: rows get a column `seen: int64`, and the count is its state.

use std::cell::Cell;
use std::hint::black_box;
use std::sync::Arc;

use logmill_guest::Level;
use logmill_guest::arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch};
use logmill_guest::arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, SchemaRef};
use logmill_guest::operator::{Failure, Operator, Outputs, Signature, StatefulOperator, WindowedOperator};
use logmill_guest::wit::batch::logmill::operator::types;

#[derive(Clone, Copy, PartialEq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    Loop,
    Memory,
    Stack,
    Calls,
    Panic,
    Abort,
    Error,
    Blind,
    Garbage,
    Truncated,
    Huge,
    Name,
    Schema,
    Log,
    Hidden,
}

#[derive(Clone, Copy, Default, PartialEq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
enum Where {
    Signature,
    #[default]
    Batch,
    Snapshot,
    Restore,
    Watermark,
}

#[derive(Clone, serde::Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum When {
    Row { row: usize },
    Value { column: String, equals: serde_json::Value },
}

#[derive(Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    mode: Mode,
    #[serde(default, rename = "where")]
    place: Where,
    when: Option<When>,
    #[serde(default = "gibibyte")]
    bytes: usize,
    #[serde(default = "many")]
    lines: usize,
}

fn gibibyte() -> usize {
    1 << 30
}

fn many() -> usize {
    100_000
}

struct Hostile {
    config: Config,
    schema: SchemaRef,
    rows: usize,
    calls: usize,
    seen: i64,
}

/// Keeps something in memory from call to call, until the part of it that is the stack is full.
#[inline(never)]
#[expect(unconditional_recursion, reason = "what it is for")]
fn deeper(depth: u64) -> u64 {
    let ballast = black_box([depth; 64]);
    deeper(depth + 1) + ballast[black_box(7)]
}

/// Keeps nothing in memory, so that the calls themselves are what there is no room for.
#[inline(never)]
fn nested(depth: u64, end: u64) -> u64 {
    if depth == end { depth } else { nested(depth + 1, end).wrapping_mul(3) ^ depth }
}

/// Does what ends a call from within, or says what the row is blamed for.
fn misbehave(config: &Config) -> Result<(), &'static str> {
    match config.mode {
        Mode::Loop => loop {
            black_box(());
        },
        Mode::Memory => {
            let mut taken = Vec::new();
            loop {
                taken.push(black_box(vec![1u8; 1 << 20]));
            }
        }
        Mode::Stack => {
            black_box(deeper(0));
        }
        Mode::Calls => {
            black_box(nested(0, black_box(u64::MAX)));
        }
        Mode::Panic => panic!("hostile as it was told to be"),
        Mode::Abort => std::process::abort(),
        Mode::Error | Mode::Blind => return Err("refused as it was told to"),
        Mode::Log => (0..config.lines).for_each(|line| logmill_guest::log(Level::Warn, &format!("line {line}"))),
        Mode::Garbage | Mode::Truncated | Mode::Huge | Mode::Name | Mode::Schema | Mode::Hidden => {}
    }
    Ok(())
}

/// A value of the types that conditions are written for.
fn value(column: &ArrayRef, row: usize) -> serde_json::Value {
    if column.is_null(row) {
        return serde_json::Value::Null;
    }
    match column.data_type() {
        DataType::Int32 => column.as_primitive::<Int32Type>().value(row).into(),
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row).into(),
        DataType::Utf8 => column.as_string::<i32>().value(row).into(),
        _ => serde_json::Value::Null,
    }
}

impl Hostile {
    fn at(&self, place: Where) -> Result<(), &'static str> {
        if self.config.place == place { misbehave(&self.config) } else { Ok(()) }
    }

    /// The row of this batch that is to be misbehaved on; without a condition the first.
    fn trigger(&self, batch: &RecordBatch) -> Result<Option<usize>, Failure> {
        if self.config.place != Where::Batch {
            return Ok(None);
        }
        match &self.config.when {
            None => Ok(Some(0)),
            Some(When::Row { row }) => Ok(row.checked_sub(self.rows).filter(|row| *row < batch.num_rows())),
            Some(When::Value { column, equals }) => {
                let column = batch.column_by_name(column).ok_or_else(|| format!("there is no column `{column}`"))?;
                Ok((0..batch.num_rows()).find(|row| value(column, *row) == *equals))
            }
        }
    }
}

impl Operator for Hostile {
    type Config = Config;

    fn new(input: &Schema, config: Config) -> Result<(Self, Signature), String> {
        if config.place == Where::Signature {
            misbehave(&config)?;
        }
        let mut fields: Vec<_> = input.fields().iter().cloned().collect();
        if cfg!(feature = "stateful") {
            fields.push(Field::new("seen", DataType::Int64, false).into());
        }
        let schema: SchemaRef = Schema::new(fields).into();
        let signature = Signature::new("out", Arc::clone(&schema));
        Ok((Hostile { config, schema, rows: 0, calls: 0, seen: 0 }, signature))
    }

    fn on_batch(&mut self, batch: RecordBatch, out: &mut Outputs) -> Result<(), Failure> {
        let trigger = self.trigger(&batch)?;
        if let Some(row) = trigger {
            misbehave(&self.config).map_err(|reason| match self.config.mode {
                Mode::Error => Failure::at(row, reason),
                _ => reason.into(),
            })?;
        }
        if trigger.is_some() {
            SPOIL.set(Some((self.config.mode, self.config.bytes)));
        }
        let first = self.seen + 1;
        self.rows += batch.num_rows();
        self.seen += batch.num_rows() as i64;
        self.calls += 1;
        let mut columns = batch.columns().to_vec();
        if cfg!(feature = "stateful") {
            columns.push(Arc::new(Int64Array::from_iter_values(first..=self.seen)) as ArrayRef);
        }
        let rows = logmill_guest::operator::batch(&self.schema, columns)?;
        match self.config.mode {
            Mode::Schema if trigger.is_some() => {
                let column: ArrayRef = Arc::new(Int64Array::from(vec![1; rows.num_rows()]));
                out.push(RecordBatch::try_from_iter([("unheard_of", column)]).map_err(|error| error.to_string())?);
            }
            Mode::Name if trigger.is_some() => out.push_to("unheard-of", rows),
            Mode::Hidden if self.calls.is_multiple_of(2) => {
                out.push(rows.clone());
                out.push(rows);
            }
            _ => out.push(rows),
        }
        Ok(())
    }
}

impl StatefulOperator for Hostile {
    const VERSION: u32 = 1;

    fn snapshot(&self) -> Result<Vec<u8>, String> {
        self.at(Where::Snapshot)?;
        Ok(self.seen.to_le_bytes().to_vec())
    }

    fn restore(&mut self, _version: u32, state: &[u8]) -> Result<(), String> {
        self.at(Where::Restore)?;
        self.seen = i64::from_le_bytes(state.try_into().map_err(|_| "a state of 8 bytes is wanted")?);
        Ok(())
    }
}

impl WindowedOperator for Hostile {
    fn on_watermark(&mut self, _time_us: i64, _out: &mut Outputs) -> Result<(), Failure> {
        Ok(self.at(Where::Watermark)?)
    }
}

thread_local! {
    /// Set by the call whose result is to be spoiled.
    static SPOIL: Cell<Option<(Mode, usize)>> = const { Cell::new(None) };
}

fn spoil(mode: Mode, bytes: usize, output: &mut types::Output) {
    match mode {
        Mode::Garbage => output.rows = vec![0xa5; 4096],
        Mode::Truncated => output.rows.truncate(output.rows.len() * 2 / 3),
        Mode::Huge => output.rows = vec![0; bytes],
        _ => {}
    }
}

// Exported by hand, because the macros let nobody put out what is not a batch.
#[cfg(target_arch = "wasm32")]
mod exported {
    use logmill_guest::operator::Running;
    use logmill_guest::wit::batch::exports::logmill::operator::batch;

    use super::{Hostile, SPOIL, spoil, types};

    thread_local! {
        static RUNNING: Running<Hostile> = const { Running::new() };
    }

    struct Exported;

    impl batch::Guest for Exported {
        fn signature(input: Vec<u8>, config: String) -> Result<types::Signature, String> {
            RUNNING.with(|running| running.signature(&input, &config))
        }

        fn on_batch(rows: Vec<u8>) -> Result<Vec<types::Output>, types::Failure> {
            let mut outputs = RUNNING.with(|running| running.on_batch(rows))?;
            if let Some((mode, bytes)) = SPOIL.take() {
                outputs.iter_mut().for_each(|output| spoil(mode, bytes, output));
            }
            Ok(outputs)
        }
    }

    logmill_guest::wit::batch::export_batch!(Exported with_types_in logmill_guest::wit::batch);
    #[cfg(feature = "stateful")]
    logmill_guest::operator!(@state Hostile);
    #[cfg(feature = "stateful")]
    logmill_guest::operator!(@watermark Hostile);
}
