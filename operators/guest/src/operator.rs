//! Operators over Arrow batches: without state, with state that is committed with everything else, and with event time.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use crate::arrow::array::RecordBatch;
use crate::arrow::datatypes::{Schema, SchemaRef};
use crate::arrow::error::ArrowError;
use serde::de::DeserializeOwned;

use crate::ipc;
use crate::wit::batch::logmill::operator::types;

/// An operator that takes batches of rows.
///
/// Without state, one is made by each worker, and the engine may replace it at any time. Export it with
/// [`operator!`](crate::operator!).
pub trait Operator: Sized + 'static {
    /// What the operator's `config:` is read into; `()` if there is none.
    type Config: DeserializeOwned;

    /// Called when a pipeline is checked and for each instance, with all columns that the input has.
    ///
    /// # Errors
    /// What does not fit, in words for the pipeline's author; the pipeline is invalid then.
    fn new(input: &Schema, config: Self::Config) -> Result<(Self, Signature), String>;

    /// Takes a batch of the columns that the signature reads and puts out any number of batches.
    ///
    /// # Errors
    /// Why it failed, and on which row if that is known. Without it the engine searches: it calls again with parts of the
    /// batch until it has found the rows, which are then set aside.
    fn on_batch(&mut self, batch: RecordBatch, out: &mut Outputs) -> Result<(), Failure>;
}

/// An operator that remembers something from batch to batch.
///
/// One is made for each shard of its input. What `snapshot` gives is committed together with the outputs and the positions
/// of the input; after a crash, or a row that failed, an instance starts from there. Export it with
/// [`stateful_operator!`](crate::stateful_operator!).
pub trait StatefulOperator: Operator {
    /// The version of the state that `snapshot` gives. Raise it when its form changes.
    const VERSION: u32;

    /// The state as bytes.
    ///
    /// # Errors
    /// Why it cannot be given; the pipeline stops.
    fn snapshot(&self) -> Result<Vec<u8>, String>;

    /// Takes over a state that `snapshot` gave, of this module or of an earlier build of it, before any rows.
    ///
    /// # Errors
    /// Why this state is refused; the pipeline does not start.
    fn restore(&mut self, version: u32, state: &[u8]) -> Result<(), String>;
}

/// An operator with state that waits for event time. Export it with [`windowed_operator!`](crate::windowed_operator!).
pub trait WindowedOperator: StatefulOperator {
    /// Event time has reached this time, in microseconds since the Unix epoch: no older row is expected. The largest `i64`
    /// means that the input has ended.
    ///
    /// # Errors
    /// Why it failed.
    fn on_watermark(&mut self, time_us: i64, out: &mut Outputs) -> Result<(), Failure>;
}

/// What an operator reads and puts out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    reads: Option<Vec<String>>,
    outputs: Vec<(String, SchemaRef)>,
}

impl Signature {
    /// One output, which goes by the operator's own name whatever it is called here. All columns are read.
    #[must_use]
    pub fn new(output: &str, schema: impl Into<SchemaRef>) -> Self {
        Signature { reads: None, outputs: vec![(output.to_owned(), schema.into())] }
    }

    /// One more output, which goes by `operator.name`.
    #[must_use]
    pub fn output(mut self, name: &str, schema: impl Into<SchemaRef>) -> Self {
        self.outputs.push((name.to_owned(), schema.into()));
        self
    }

    /// Reads these columns alone, in this order. Columns that begin with `_` (`_key`, `_timestamp`, `_partition`, `_offset`,
    /// `_headers`) can be had where the input is a source of records.
    #[must_use]
    pub fn reads<N: Into<String>>(mut self, columns: impl IntoIterator<Item = N>) -> Self {
        self.reads = Some(columns.into_iter().map(Into::into).collect());
        self
    }
}

/// Why rows could not be processed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What went wrong.
    pub message: String,
    /// The row to blame, counted from 0 within the batch, where it is known.
    pub row: Option<u32>,
}

impl Failure {
    /// A failure of one row.
    #[must_use]
    pub fn at(row: usize, message: impl fmt::Display) -> Self {
        Failure { message: message.to_string(), row: u32::try_from(row).ok() }
    }
}

impl<M: Into<String>> From<M> for Failure {
    fn from(message: M) -> Self {
        Failure { message: message.into(), row: None }
    }
}

/// What an operator puts out in a call.
#[derive(Debug, Default)]
pub struct Outputs {
    /// `None` for the first output, whose name the operator need not repeat.
    batches: Vec<(Option<String>, RecordBatch)>,
}

impl Outputs {
    /// Puts a batch into the first output.
    pub fn push(&mut self, batch: RecordBatch) {
        self.batches.push((None, batch));
    }

    /// Puts a batch into the output of this name.
    pub fn push_to(&mut self, output: &str, batch: RecordBatch) {
        self.batches.push((Some(output.to_owned()), batch));
    }

    /// What was put out so far: the output's name, none for the first, with the batch.
    pub fn batches(&self) -> impl Iterator<Item = (Option<&str>, &RecordBatch)> {
        self.batches.iter().map(|(name, batch)| (name.as_deref(), batch))
    }
}

/// An operator at work in an instance: what the macros export.
#[doc(hidden)]
#[derive(Debug)]
pub struct Running<T>(RefCell<Option<State<T>>>);

#[derive(Debug)]
struct State<T> {
    guest: T,
    outputs: Vec<(String, SchemaRef)>,
}

const NOT_STARTED: &str = "`signature` has not been called";

impl<T: Operator> Running<T> {
    #[expect(clippy::new_without_default, reason = "a constant")]
    pub const fn new() -> Self {
        Running(RefCell::new(None))
    }

    pub fn signature(&self, input: &[u8], config: &str) -> Result<types::Signature, String> {
        crate::host::report_panics();
        let input = ipc::schema(input).map_err(|error| format!("the input's columns: {error}"))?;
        let (guest, Signature { reads, outputs }) = T::new(&input, crate::host::config(config)?)?;
        let port = |(name, schema): &(String, SchemaRef)| {
            let schema = ipc::write(schema, &[]).map_err(|error| error.to_string())?;
            Ok(types::Port { name: name.clone(), schema })
        };
        let ports = outputs.iter().map(port).collect::<Result<_, String>>()?;
        *self.0.borrow_mut() = Some(State { guest, outputs });
        Ok(types::Signature { reads, outputs: ports })
    }

    pub fn on_batch(&self, rows: Vec<u8>) -> Result<Vec<types::Output>, types::Failure> {
        let rows = ipc::read(rows).map_err(|error| failure(error.to_string()))?;
        self.call(|guest, out| rows.into_iter().try_for_each(|batch| guest.on_batch(batch, out)))
    }

    fn call(
        &self,
        work: impl FnOnce(&mut T, &mut Outputs) -> Result<(), Failure>,
    ) -> Result<Vec<types::Output>, types::Failure> {
        let mut state = self.0.borrow_mut();
        let State { guest, outputs } = state.as_mut().ok_or_else(|| failure(NOT_STARTED))?;
        let mut out = Outputs::default();
        work(guest, &mut out).map_err(|Failure { message, row }| types::Failure { message, row })?;
        let encode = |(name, batch): (Option<String>, RecordBatch)| {
            let first = outputs.first().map(|(first, _)| first.clone());
            let name = name.or(first).unwrap_or_default();
            let rows = ipc::write(&batch.schema(), std::slice::from_ref(&batch))
                .map_err(|error| failure(error.to_string()))?;
            Ok(types::Output { name, rows })
        };
        out.batches.into_iter().map(encode).collect()
    }
}

impl<T: StatefulOperator> Running<T> {
    pub fn snapshot(&self) -> Result<Vec<u8>, String> {
        self.0.borrow().as_ref().ok_or(NOT_STARTED)?.guest.snapshot()
    }

    pub fn restore(&self, version: u32, state: &[u8]) -> Result<(), String> {
        self.0.borrow_mut().as_mut().ok_or(NOT_STARTED)?.guest.restore(version, state)
    }
}

impl<T: WindowedOperator> Running<T> {
    pub fn on_watermark(&self, time_us: i64) -> Result<Vec<types::Output>, types::Failure> {
        self.call(|guest, out| guest.on_watermark(time_us, out))
    }
}

fn failure(message: impl Into<String>) -> types::Failure {
    types::Failure { message: message.into(), row: None }
}

/// A batch of these columns, which must be what the schema says.
///
/// # Errors
/// If they are not.
pub fn batch(schema: &SchemaRef, columns: Vec<crate::arrow::array::ArrayRef>) -> Result<RecordBatch, Failure> {
    RecordBatch::try_new(Arc::clone(schema), columns).map_err(|error: ArrowError| error.to_string().into())
}

/// Exports an [`Operator`](crate::operator::Operator).
#[macro_export]
macro_rules! operator {
    ($guest:ty) => {
        // For the machine itself: the guest counts as used.
        #[cfg(not(target_arch = "wasm32"))]
        const _: fn() = || {
            let _ = $crate::operator::Running::<$guest>::new();
        };

        #[cfg(target_arch = "wasm32")]
        const _: () = {
            $crate::operator!(@batch $guest);
        };
    };
    (@batch $guest:ty) => {
        use $crate::wit::batch::exports::logmill::operator::batch;
        use $crate::wit::batch::logmill::operator::types;

        struct Exported;

        thread_local! {
            static RUNNING: $crate::operator::Running<$guest> = const { $crate::operator::Running::new() };
        }

        impl batch::Guest for Exported {
            fn signature(input: Vec<u8>, config: String) -> Result<types::Signature, String> {
                RUNNING.with(|running| running.signature(&input, &config))
            }

            fn on_batch(rows: Vec<u8>) -> Result<Vec<types::Output>, types::Failure> {
                RUNNING.with(|running| running.on_batch(rows))
            }
        }

        $crate::wit::batch::export_batch!(Exported with_types_in $crate::wit::batch);
    };
    (@state $guest:ty) => {
        impl $crate::wit::state::exports::logmill::operator::state::Guest for Exported {
            fn state_version() -> u32 {
                <$guest as $crate::operator::StatefulOperator>::VERSION
            }

            fn snapshot() -> Result<Vec<u8>, String> {
                RUNNING.with(|running| running.snapshot())
            }

            fn restore(version: u32, state: Vec<u8>) -> Result<(), String> {
                RUNNING.with(|running| running.restore(version, &state))
            }
        }

        $crate::wit::state::export_state!(Exported with_types_in $crate::wit::state);
    };
    (@watermark $guest:ty) => {
        impl $crate::wit::watermark::exports::logmill::operator::watermark::Guest for Exported {
            fn on_watermark(time: i64) -> Result<Vec<types::Output>, types::Failure> {
                RUNNING.with(|running| running.on_watermark(time))
            }
        }

        $crate::wit::watermark::export_watermark!(Exported with_types_in $crate::wit::watermark);
    };
}

/// Exports a [`StatefulOperator`](crate::operator::StatefulOperator).
#[macro_export]
macro_rules! stateful_operator {
    ($guest:ty) => {
        // For the machine itself: the guest counts as used.
        #[cfg(not(target_arch = "wasm32"))]
        const _: fn() = || {
            let _ = $crate::operator::Running::<$guest>::new();
        };

        #[cfg(target_arch = "wasm32")]
        const _: () = {
    $crate::operator!(@batch $guest);
    $crate::operator!(@state $guest);
        };
    };
}

/// Exports a [`WindowedOperator`](crate::operator::WindowedOperator).
#[macro_export]
macro_rules! windowed_operator {
    ($guest:ty) => {
        // For the machine itself: the guest counts as used.
        #[cfg(not(target_arch = "wasm32"))]
        const _: fn() = || {
            let _ = $crate::operator::Running::<$guest>::new();
        };

        #[cfg(target_arch = "wasm32")]
        const _: () = {
    $crate::operator!(@batch $guest);
    $crate::operator!(@state $guest);
    $crate::operator!(@watermark $guest);
        };
    };
}
