//! Runs a module on generated rows several times, and compares the results.
//!
//! ```text
//!   operator   rows ─▶ once ─▶ again: must be the same
//!                   ─▶ a snapshot after each batch, restored into a new instance: must be the same
//!                   ─▶ in other batches: may differ, which is reported
//!   function   rows ─▶ all at once ─▶ one by one, at other moments: must be the same if it says that it is deterministic
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use arrow::array::RecordBatch;
use logmill_pipelines::flow::{Origin, RowBatch, SplitId, Watermark};
use logmill_wasm::readable;

use super::function::WasmFunction;
use super::live::Moments;
use super::plan::WasmPlan;
use super::sample;
use crate::conformance::{Case, Event, Said, as_text, play, play_in_pieces, play_restored};
use crate::operator::{OpenContext, Operator};

/// How many rows are made up, and in how many batches they come, in turn from two splits.
const ROWS: usize = 64;
const BATCHES: usize = 4;
/// How many rows other batches have.
const PIECE_ROWS: usize = 3;
/// The moment of all calls of an operator, and the step between those of a function: a day and some.
const NOW_US: i64 = 1_700_000_000_000_000;
const STEP_US: i64 = 93_784_005_006;

/// What was found out about a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rehearsal {
    /// How many rows it was given.
    pub rows: usize,
    /// How many of them it refused.
    pub refused: usize,
    /// How what it makes depends on the batches in which rows come, if it does.
    pub depends_on_batches: Option<String>,
}

/// Tries an operator or a transform.
///
/// # Errors
/// A message that it does not do the same twice, does not continue from its snapshot as before, or stops.
pub fn rehearse(plan: &WasmPlan) -> Result<Rehearsal, String> {
    let make = || plan.rehearsed();
    let events = events(&*make(), plan)?;
    let open = OpenContext { tables: Vec::new(), clock: Arc::new(|| NOW_US) };
    let case = Case { make: &make, open, events, ordered: true };
    let first = play(&case)?;
    same(&first, &play(&case)?).map_err(|how| format!("given the same rows again, {how}"))?;
    if plan.is_stateful() {
        let restored =
            play_restored(&case).map_err(|error| format!("restored from its snapshot, it fails: {error}"))?;
        same(&first, &restored).map_err(|how| {
            format!("restored from its snapshot, {how}; a snapshot must hold all that the guest remembers")
        })?;
    }
    let depends_on_batches = match play_in_pieces(&case, PIECE_ROWS) {
        Ok(said) => same(&first, &said).err(),
        Err(error) => Some(format!("it fails: {error}")),
    };
    Ok(Rehearsal { rows: ROWS, refused: first.rejected.len(), depends_on_batches })
}

/// The rows, in batches, and event time between them for who waits for it.
fn events(operator: &dyn Operator, plan: &WasmPlan) -> Result<Vec<Event>, String> {
    let schema = operator.inputs().first().map(|port| Arc::clone(&port.schema)).ok_or("it has no input")?;
    let mut events = Vec::new();
    for number in 0..BATCHES {
        let first = number * ROWS / BATCHES;
        let rows = sample::rows(&schema, first, ROWS / BATCHES)?;
        let offset = i64::try_from(first).unwrap_or(i64::MAX);
        let origin = Origin { source: "made up".into(), split: SplitId::new((number % 2).to_string()), offset };
        events.push(Event::Batch(0, RowBatch { rows, ops: None, origin: Some(origin), lineage: None }));
        if plan.waits_for_event_time() && number + 1 < BATCHES {
            events.push(Event::Watermark(0, Watermark(NOW_US - STEP_US + offset)));
        }
    }
    Ok(events)
}

/// How what was said differs from what was said first. Reasons of refused rows may: they may name a place in a batch.
fn same(first: &Said, again: &Said) -> Result<(), String> {
    for (wanted, found) in first.rows.iter().zip(&again.rows) {
        compare(wanted, found)?;
    }
    match (first.rejected.len(), again.rejected.len()) {
        (wanted, found) if wanted == found => Ok(()),
        (wanted, found) => Err(format!("it refuses {found} rows instead of {wanted}")),
    }
}

fn compare(wanted: &[String], found: &[String]) -> Result<(), String> {
    let sorted = |rows: &[String]| {
        let mut rows = rows.to_vec();
        rows.sort_unstable();
        rows
    };
    let (wanted, found) = (sorted(wanted), sorted(found));
    if wanted == found {
        return Ok(());
    }
    let row = |rows: &[String], others: &[String]| {
        let other = rows.iter().find(|row| others.binary_search(row).is_err());
        other.map_or_else(|| format!("{} rows", rows.len()), |row| format!("`{}`", readable(row)))
    };
    Err(format!("it gives {} instead of {}", row(&found, &wanted), row(&wanted, &found)))
}

impl WasmFunction {
    /// Tries the function, if it says that its results depend on its arguments alone.
    ///
    /// # Errors
    /// They do not; in words.
    pub fn rehearse(&self) -> Result<(), String> {
        if !self.is_deterministic() {
            return Ok(());
        }
        let rows = sample::rows(self.arguments(), 0, ROWS)?;
        let rows = RecordBatch::try_new(Arc::clone(self.arguments()), rows.columns().to_vec());
        let rows = rows.map_err(|error| error.to_string())?;
        let now_us = AtomicI64::new(NOW_US);
        let clock = Arc::new(move || now_us.fetch_add(STEP_US, Ordering::Relaxed));
        self.set_moments(Moments::new(clock, self.name(), 0));
        // Each row in a call of its own, the last one first, and then some at once.
        let alone: Vec<Option<String>> =
            (0..ROWS).rev().map(|row| self.results(&rows.slice(row, 1))).collect::<Vec<_>>();
        let alone: Vec<Option<String>> = alone.into_iter().rev().collect();
        let pieces = (0..ROWS).step_by(PIECE_ROWS).map(|first| (first, PIECE_ROWS.min(ROWS - first)));
        for (first, count) in (0..ROWS).map(|row| (row, 1)).chain(pieces) {
            let Some(wanted) = alone.get(first..first + count) else { continue };
            // A call fails as a whole for any of its rows.
            let Some(wanted) = wanted.iter().cloned().collect::<Option<Vec<String>>>() else { continue };
            let found = self.results(&rows.slice(first, count)).unwrap_or_else(|| "an error".to_owned());
            let wanted = wanted.join("\n");
            if found != wanted {
                return Err(other_result(&rows.slice(first, count), &wanted, &found));
            }
        }
        Ok(())
    }

    /// What a call gives, a line for each row; nothing if it fails.
    fn results(&self, rows: &RecordBatch) -> Option<String> {
        let results = self.call(rows).ok()?;
        let results = RecordBatch::try_from_iter_with_nullable([("result", results, true)]).ok()?;
        Some(as_text(&results, None).join("\n"))
    }
}

fn other_result(rows: &RecordBatch, wanted: &str, found: &str) -> String {
    let arguments = as_text(rows, None);
    let pairs = arguments.iter().zip(wanted.lines().zip(found.lines().chain(std::iter::repeat("an error"))));
    let differing = pairs.into_iter().find(|(_, (wanted, found))| wanted != found);
    let (arguments, (wanted, found)) = differing.map_or(("", (wanted, found)), |(arguments, pair)| (arguments, pair));
    format!(
        "it says that it is deterministic, and gives {} instead of {} when it is called again with {}: its results depend on \
         earlier calls, on the other rows of a call, or on the moment",
        readable(found),
        readable(wanted),
        readable(arguments)
    )
}
