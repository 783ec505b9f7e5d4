//! Finds the rows that a guest fails on, and nothing but those.
//!
//! ```text
//!   rows 0..8 fail ─▶ 0..4 fine ─▶ 4..8 fail ─▶ 4..6 fail ─▶ 4 fine, 5 fails: rejected ─▶ 6..8 fine
//! ```
//!
//! A batch that fails is halved until the failing rows are alone. A guest that says which row is to blame spares the
//! search: what is before it is run, and then what is after it, in halves, as there may be many such rows.

use arrow::array::RecordBatch;

use super::live::{Failure, FailureKind, Made};
use super::patience::Patience;
use crate::error::OperatorError;

/// Runs rows on a guest that is as if no failed call had happened.
pub(super) trait Runner {
    /// The outer error stops the pipeline, the inner one is about the rows.
    fn run(&mut self, rows: &RecordBatch) -> Result<Result<Made, Failure>, OperatorError>;

    /// How long the guest may go on running into its deadline.
    fn patience(&mut self) -> &mut Patience;

    /// The operator's name.
    fn operator(&self) -> &str;
}

/// Runs rows; what fails is narrowed to single rows, which are rejected.
pub(super) fn narrow(runner: &mut impl Runner, rows: &RecordBatch) -> Result<Made, OperatorError> {
    let at_once = runner.patience().rows_at_once();
    let starts = (0..rows.num_rows()).step_by(at_once).rev();
    let mut ranges: Vec<(usize, usize)> = starts.map(|start| (start, at_once.min(rows.num_rows() - start))).collect();
    let (mut made, mut pieces, mut in_time) = (Made::default(), 0, 0);
    // Whether many rows at once were late, and whether a row by itself was.
    let (mut late, mut late_row) = (false, false);
    while let Some((offset, count)) = ranges.pop() {
        match attempt(runner, &rows.slice(offset, count))? {
            Ok(later) => {
                made.append(later, offset);
                in_time = in_time.max(count);
                pieces += 1;
            }
            Err(failure) => {
                let is_late = failure.kind == FailureKind::Deadline;
                late |= is_late;
                late_row |= is_late && count == 1;
                split(offset, count, failure, &mut ranges, &mut made);
            }
        }
    }
    if late && !late_row {
        runner.patience().slow(in_time);
    }
    made.merge_rejected();
    if pieces > 1 {
        let operator = || runner.operator().to_owned();
        made.merge_rows().map_err(|e| OperatorError::Execution { operator: operator(), source: Box::new(e) })?;
    }
    Ok(made)
}

fn attempt(runner: &mut impl Runner, rows: &RecordBatch) -> Result<Result<Made, Failure>, OperatorError> {
    let ran = runner.run(rows)?;
    let patience = runner.patience();
    let ran_out = match &ran {
        Ok(_) => {
            patience.rewarded(rows.num_rows());
            return Ok(ran);
        }
        Err(failure) => patience.tried(failure),
    };
    match ran_out {
        Ok(()) => Ok(ran),
        Err(message) => Err(OperatorError::Failed { operator: runner.operator().to_owned(), message }),
    }
}

/// Says what to try next of some rows that failed: the last range first.
fn split(offset: usize, count: usize, failure: Failure, ranges: &mut Vec<(usize, usize)>, made: &mut Made) {
    let mut halves = |offset: usize, count: usize| {
        let half = count / 2;
        let pieces = [(offset + half, count - half), (offset, half)];
        ranges.extend(pieces.into_iter().filter(|(_, count)| *count > 0));
    };
    match failure.row.filter(|row| *row < count) {
        _ if count <= 1 => made.reject(offset, failure.message),
        Some(row) => {
            halves(offset + row + 1, count - row - 1);
            if row > 0 {
                ranges.push((offset, row));
            }
            made.reject(offset + row, failure.message);
        }
        None => halves(offset, count),
    }
}
