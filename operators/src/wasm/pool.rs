//! The instances of a module with functions, and how its calls are cut so that each is done in time.
//!
//! A call of a query is cut into as many calls of the guest as it takes for a slow one to be done with each. A row on which
//! the guest hangs fails the query's call; as whoever runs the query looks for that row by calling again with fewer rows, the
//! pool remembers it for a while, and what contains it fails without another wait.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::concat;
use arrow::datatypes::SchemaRef;
use arrow::row::{RowConverter, SortField};
use datafusion::common::{DataFusionError, Result, exec_err};
use logmill_wasm::{CallError, FunctionSignature, Guest, GuestLog, Instance, Limits};
use xxhash_rust::xxh3::xxh3_64;
use xxhash_rust::xxh3::xxh3_128_with_seed;

use super::ipc::{self, Budget};
use super::live::{Failure, FailureKind, Moments, ample};
use super::patience::{Patience, Search};
use super::plan::moment;
use crate::operator::system_time_us;

/// How many instances wait for calls at most: as many as workers are likely to call at once.
const MAX_IDLE_INSTANCES: usize = 16;
/// What all results of a query's call may take: each call of the guest may give as much as its memory holds.
const MOST_RESULT_BYTES: usize = 256 * 1024 * 1024;
/// How many rows are remembered on which the guest hung, and for how long: until they have been found by whoever looks.
const MAX_HANGING_ROWS: usize = 64;
const REMEMBERED_US: i64 = 60_000_000;

/// The instances of a module that no call uses.
pub(super) struct Pool {
    pub(super) guest: Guest,
    pub(super) config: String,
    limits: Limits,
    log: Arc<dyn GuestLog>,
    /// What every instance must say of itself.
    signatures: Vec<FunctionSignature>,
    idle: Mutex<Idle>,
    patience: Mutex<Patience>,
}

struct Idle {
    instances: Vec<Instance>,
    moments: Moments,
    hanging: VecDeque<HangingRow>,
}

struct HangingRow {
    row: u128,
    until_us: i64,
    message: String,
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    // What it guards is whole between any two lines of ours.
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    /// A pool that has the instance which was asked for its functions.
    pub(super) fn new(
        guest: Guest,
        config: String,
        limits: Limits,
        log: Arc<dyn GuestLog>,
        first: (Instance, Vec<FunctionSignature>),
    ) -> Self {
        let (instance, signatures) = first;
        let moments = Moments::new(Arc::new(system_time_us), &format!("{} {config}", guest.digest()), 0);
        let idle = Mutex::new(Idle { instances: vec![instance], moments, hanging: VecDeque::new() });
        Self { guest, config, limits, log, signatures, idle, patience: Mutex::new(Patience::default()) }
    }

    /// From now on calls are made at these moments.
    pub(super) fn set_moments(&self, moments: Moments) {
        lock(&self.idle).moments = moments;
    }

    /// Computes a function over columns of its argument types, of which there is at least one row.
    pub(super) fn call(&self, name: &str, returns: &SchemaRef, arguments: &RecordBatch) -> Result<ArrayRef> {
        if let Some(message) = self.hangs_on(name, arguments) {
            return exec_err!("`{name}`: {message}");
        }
        let mut result_bytes = 0;
        let invoke = |offset: usize, rows: usize| {
            let result = self.invoke(name, returns, &arguments.slice(offset, rows))?;
            result_bytes += result.as_ref().map_or(0, |column| column.get_array_memory_size());
            match result_bytes > MOST_RESULT_BYTES {
                true => exec_err!("`{name}`: its results take more than {MOST_RESULT_BYTES} bytes for one batch"),
                false => Ok(result),
            }
        };
        let results = match in_pieces(arguments.num_rows(), &self.patience, invoke)? {
            Ok(results) => results,
            Err(Stopped::Impatient(message)) => return Err(DataFusionError::ResourcesExhausted(message)),
            Err(Stopped::Failed { row, failure }) => {
                if let (Some(row), FailureKind::Deadline) = (row, failure.kind) {
                    self.remember(name, &arguments.slice(row, 1), &failure.message);
                }
                return exec_err!("`{name}`: {}", failure.message);
            }
        };
        match results.as_slice() {
            [only] => Ok(Arc::clone(only)),
            results => Ok(concat(&results.iter().map(AsRef::as_ref).collect::<Vec<&dyn Array>>())?),
        }
    }

    /// Calls the guest once. The inner error is about the rows, the outer one is not.
    fn invoke(&self, name: &str, returns: &SchemaRef, rows: &RecordBatch) -> Result<Result<ArrayRef, Failure>> {
        let stream = ipc::encode_rows(rows)?;
        let mut result = None;
        let mut budget = Budget::new(self.limits.memory_bytes);
        let mut take = |stream: Vec<u8>| {
            let batches = ipc::decode_rows(stream, returns, &mut budget)?;
            let columns: Vec<&dyn Array> =
                batches.iter().filter_map(|rows| Some(rows.columns().first()?.as_ref())).collect();
            let given: usize = columns.iter().map(|column| column.len()).sum();
            if given != rows.num_rows() {
                return Err(format!("it gave {given} values for {} rows", rows.num_rows()));
            }
            result = Some(concat(&columns).map_err(|error| error.to_string())?);
            Ok(())
        };
        let (instance, at) = {
            let mut idle = lock(&self.idle);
            (idle.instances.pop(), idle.moments.next())
        };
        let mut instance = match instance {
            Some(instance) => instance,
            None => self.instantiate()?,
        };
        let invoked = instance.invoke(at, name, &stream, &mut take);
        if matches!(invoked, Ok(()) | Err(CallError::Refused { .. })) {
            let mut idle = lock(&self.idle);
            if idle.instances.len() < MAX_IDLE_INSTANCES {
                idle.instances.push(instance);
            }
        }
        match (invoked, result) {
            (Ok(()), Some(result)) => Ok(Ok(result)),
            (Ok(()), None) => exec_err!("the guest gave no result"),
            (Err(error), _) => Ok(Err(Failure::from(error))),
        }
    }

    fn instantiate(&self) -> Result<Instance> {
        let internal = |message: String| DataFusionError::ResourcesExhausted(message);
        let limits = Limits { deadline: ample(self.limits.deadline), ..self.limits };
        let instance = self.guest.instantiate(&limits, Arc::clone(&self.log));
        let mut instance = instance.map_err(|error| internal(error.to_string()))?;
        let signatures = instance.functions(moment(), &self.config).map_err(|error| internal(error.to_string()))?;
        instance.set_deadline(self.limits.deadline);
        if signatures == self.signatures {
            Ok(instance)
        } else {
            Err(internal("an instance of the module has other functions than the one that was asked first".to_owned()))
        }
    }

    /// What was said about one of these rows, if the guest hung on it not long ago.
    fn hangs_on(&self, name: &str, rows: &RecordBatch) -> Option<String> {
        if lock(&self.idle).hanging.is_empty() {
            return None;
        }
        let rows = digests(name, rows)?;
        let now_us = system_time_us();
        let hanging = &mut lock(&self.idle).hanging;
        hanging.retain(|known| now_us < known.until_us);
        let known = hanging.iter().find(|known| rows.contains(&known.row));
        known.map(|known| known.message.clone())
    }

    fn remember(&self, name: &str, row: &RecordBatch, message: &str) {
        let Some(row) = digests(name, row).and_then(|rows| rows.first().copied()) else { return };
        let until_us = system_time_us().saturating_add(REMEMBERED_US);
        let hanging = &mut lock(&self.idle).hanging;
        hanging.push_back(HangingRow { row, until_us, message: message.to_owned() });
        if hanging.len() > MAX_HANGING_ROWS {
            hanging.pop_front();
        }
    }
}

/// What tells the arguments of rows apart; nothing if they have types that cannot be compared.
fn digests(name: &str, rows: &RecordBatch) -> Option<Vec<u128>> {
    let fields = rows.columns().iter().map(|column| SortField::new(column.data_type().clone())).collect();
    let seed = xxh3_64(name.as_bytes());
    let rows = RowConverter::new(fields).ok()?.convert_columns(rows.columns()).ok()?;
    Some(rows.iter().map(|row| xxh3_128_with_seed(row.as_ref(), seed)).collect())
}

/// Why not all pieces were done.
enum Stopped {
    /// The guest was late too often.
    Impatient(String),
    /// A call failed, because of this row if that is known.
    Failed { row: Option<usize>, failure: Failure },
}

/// Does rows in order, as many at once as can be done in time; what is late is tried again in halves, and a row by itself a
/// second time. The outer error is no fault of the rows.
fn in_pieces<T>(
    rows: usize,
    patience: &Mutex<Patience>,
    mut run: impl FnMut(usize, usize) -> Result<Result<T, Failure>>,
) -> Result<Result<Vec<T>, Stopped>> {
    let (mut ranges, mut search, mut done) = (vec![(0, rows)], Search::default(), Vec::new());
    let mut tried_alone = None;
    while let Some((offset, count)) = ranges.pop() {
        let now = count.min(lock(patience).rows_at_once());
        if now < count {
            ranges.push((offset + now, count - now));
        }
        let ran = run(offset, now)?;
        let mut patience = lock(patience);
        let failure = match ran {
            Ok(result) => {
                done.push(result);
                patience.rewarded(now);
                if let Some(rows) = search.done_until(offset + now) {
                    patience.too_many(rows);
                }
                continue;
            }
            Err(failure) => failure,
        };
        if let Err(message) = patience.tried(&failure) {
            return Ok(Err(Stopped::Impatient(message)));
        }
        let is_alone = now <= 1;
        if !failure.kind.may_pass() || (is_alone && tried_alone == Some(offset)) {
            return Ok(Err(Stopped::Failed { row: is_alone.then_some(offset), failure }));
        }
        if is_alone {
            tried_alone = Some(offset);
            ranges.push((offset, now));
            continue;
        }
        if failure.kind == FailureKind::Deadline {
            search.late(offset, now);
        }
        let half = now / 2;
        ranges.push((offset + half, now - half));
        ranges.push((offset, half));
    }
    Ok(Ok(done))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    /// Calls a function that takes so long for each row; says how many calls were late.
    fn late_calls(patience: &Mutex<Patience>, times: &[i64], deadline: i64) -> std::result::Result<usize, String> {
        let mut late = 0;
        let run = |offset: usize, rows: usize| {
            if times[offset..offset + rows].iter().sum::<i64>() <= deadline {
                return Ok(Ok((offset, rows)));
            }
            late += 1;
            Ok(Err(Failure { kind: FailureKind::Deadline, message: "late".to_owned(), row: None }))
        };
        match in_pieces(times.len(), patience, run).unwrap() {
            Ok(done) => {
                let mut next = 0;
                for (offset, rows) in done {
                    assert_eq!(offset, next);
                    next += rows;
                }
                assert_eq!(next, times.len());
                Ok(late)
            }
            Err(Stopped::Impatient(message)) => Err(message),
            Err(Stopped::Failed { row, failure }) => Err(format!("row {row:?}: {}", failure.message)),
        }
    }

    #[test]
    fn slow_functions_are_called_with_as_many_rows_as_they_can_do() {
        let patience = Mutex::new(Patience::default());
        let late: Vec<usize> = (0..20).map(|_| late_calls(&patience, &[5; 8192], 1000).unwrap()).collect();
        assert_eq!(late[0], 6, "8192, 4096, 2048, 1024, 512 and 256 rows are too many");
        assert!(late[1..].iter().sum::<usize>() <= 20, "{late:?}");
    }

    #[test]
    fn a_row_that_hangs_is_found() {
        let patience = Mutex::new(Patience::default());
        let mut times = vec![0; 8192];
        times[5000] = 2000;
        assert_eq!(late_calls(&patience, &times, 1000).unwrap_err(), "row Some(5000): late");
        assert_eq!(late_calls(&patience, &times[5001..], 1000).unwrap(), 0);
    }

    #[test]
    fn a_function_that_hangs_on_every_row_is_given_up() {
        let patience = Mutex::new(Patience::default());
        let errors: Vec<String> = (0..50).map(|_| late_calls(&patience, &[2000], 1000).unwrap_err()).collect();
        assert!(errors[0].starts_with("row Some(0)"), "{}", errors[0]);
        assert!(errors[49].contains("too often"), "{}", errors[49]);
    }

    #[test]
    fn rows_are_told_apart_by_their_arguments_and_function() {
        let rows = |numbers: Vec<Option<i64>>| {
            let column: ArrayRef = Arc::new(arrow::array::Int64Array::from(numbers));
            RecordBatch::try_from_iter([("n", column)]).unwrap()
        };
        let all = digests("f", &rows(vec![Some(0), None, Some(0)])).unwrap();
        assert!(all[0] == all[2] && all[0] != all[1]);
        assert_eq!(digests("f", &rows(vec![None])).unwrap(), all[1..2]);
        assert_ne!(digests("g", &rows(vec![None])).unwrap(), all[1..2]);
    }
}
