//! Finds the rows that a guest fails on, and nothing but those.
//!
//! ```text
//!   rows 0..8 fail ─▶ 0..4 fine ─▶ 4..8 fail ─▶ 4..6 fail ─▶ 4 fine, 5 fails: rejected ─▶ 6..8 fine
//! ```
//!
//! A batch that fails is halved until the failing rows are alone. A guest that says which row is to blame spares the
//! search: what is before it is run, and then what is after it, in halves, as there may be many such rows. A row that was
//! late, or for which there was no memory, is tried a second time before it is rejected: that may have been no fault of its.

use arrow::array::RecordBatch;

use super::live::{Failure, FailureKind, Made};
use super::patience::{Patience, Search};
use crate::error::OperatorError;

/// What running rows gives: the outer error stops the pipeline, the inner one is about the rows.
pub(super) type Ran = Result<Result<Made, Failure>, OperatorError>;

/// Runs rows on a guest that is as if no failed call had happened.
pub(super) trait Runner {
    /// Runs some rows.
    fn run(&mut self, rows: &RecordBatch) -> Ran;

    /// Runs one row again that failed by itself, for a reason that may pass.
    fn run_again(&mut self, row: &RecordBatch, failure: &Failure) -> Ran;

    /// How long the guest may go on running into its deadline.
    fn patience(&mut self) -> &mut Patience;

    /// The operator's name.
    fn operator(&self) -> &str;
}

/// What a guest may make of a batch, over all its calls, before that flows on and the rest of the rows must wait: each call
/// may make as much as the guest's memory holds, and there may be as many calls as rows.
const MOST_MADE_BYTES: usize = 64 * 1024 * 1024;

/// What came of the first rows of a batch.
pub(super) struct Narrowed {
    pub(super) made: Made,
    /// How many these are; at least one.
    pub(super) done: usize,
}

/// Runs rows, all of them unless the guest makes very much of the first; what fails is narrowed to single rows, which are
/// rejected.
pub(super) fn narrow(runner: &mut impl Runner, rows: &RecordBatch) -> Result<Narrowed, OperatorError> {
    let mut narrowing = Narrowing::default();
    narrowing.push(0, rows.num_rows());
    let mut pieces = 0;
    while let Some((offset, count)) = narrowing.next(runner.patience().rows_at_once()) {
        let piece = rows.slice(offset, count);
        let mut ran = runner.run(&piece)?;
        paid(runner, &ran, count)?;
        if count == 1
            && let Err(failure) = &ran
            && failure.kind.may_pass()
            && narrowing.named != Some(offset)
        {
            ran = runner.run_again(&piece, failure)?;
            paid(runner, &ran, count)?;
        }
        match ran {
            Ok(later) => {
                narrowing.made.append(later, offset);
                pieces += 1;
            }
            Err(failure) => narrowing.failed(offset, count, failure),
        }
        if let Some(rows) = narrowing.search.done_until(narrowing.done(rows.num_rows())) {
            runner.patience().too_many(rows);
        }
        if narrowing.made.bytes > MOST_MADE_BYTES && narrowing.done(rows.num_rows()) > 0 {
            break;
        }
    }
    let done = narrowing.done(rows.num_rows());
    let mut made = narrowing.made;
    // Rows that were named before their turn are named again.
    made.rejected.retain(|rejected| rejected.first < done);
    made.merge_rejected();
    if pieces > 1 {
        let operator = || runner.operator().to_owned();
        made.merge_rows().map_err(|e| OperatorError::Execution { operator: operator(), source: Box::new(e) })?;
    }
    Ok(Narrowed { made, done })
}

/// Takes a call into account; fails if it was one too many.
fn paid(runner: &mut impl Runner, ran: &Result<Made, Failure>, rows: usize) -> Result<(), OperatorError> {
    let patience = runner.patience();
    let tried = match ran {
        Ok(_) => {
            patience.rewarded(rows);
            Ok(())
        }
        Err(failure) => patience.tried(failure),
    };
    tried.map_err(|message| OperatorError::Failed { operator: runner.operator().to_owned(), message })
}

#[derive(Default)]
struct Narrowing {
    /// What is to be tried, as first row and number of rows; the first rows last.
    ranges: Vec<(usize, usize)>,
    search: Search,
    /// The row that was last named as the one that was late, in a call of its own: it has had its first try.
    named: Option<usize>,
    made: Made,
}

impl Narrowing {
    /// The next rows to try, no more than may be at once.
    fn next(&mut self, at_once: usize) -> Option<(usize, usize)> {
        let (offset, count) = self.ranges.pop()?;
        let now = count.min(at_once.max(1));
        self.push(offset + now, count - now);
        Some((offset, now))
    }

    fn push(&mut self, offset: usize, count: usize) {
        if count > 0 {
            self.ranges.push((offset, count));
        }
    }

    /// All rows before this one are done with.
    fn done(&self, rows: usize) -> usize {
        self.ranges.last().map_or(rows, |(offset, _)| *offset)
    }

    /// Says what to try next of some rows that failed.
    fn failed(&mut self, offset: usize, count: usize, failure: Failure) {
        match (failure.kind, failure.row) {
            (FailureKind::Deadline, _) if count <= 1 => self.search.blame_one(),
            // A guest that takes a record at a time has its deadline for each, so that no number of them is too many.
            (FailureKind::Deadline, None) => self.search.late(offset, count),
            _ => {}
        }
        match failure.row.filter(|row| *row < count) {
            _ if count <= 1 => self.made.reject(offset, failure.message),
            Some(row) => {
                let after = offset + row + 1;
                let half = (count - row - 1) / 2;
                self.push(after + half, count - row - 1 - half);
                self.push(after, half);
                match failure.kind.may_pass() {
                    true => {
                        self.named = (failure.kind == FailureKind::Deadline).then_some(offset + row);
                        self.push(offset + row, 1);
                    }
                    false => self.made.reject(offset + row, failure.message),
                }
                self.push(offset, row);
            }
            None => {
                let half = count / 2;
                self.push(offset + half, count - half);
                self.push(offset, half);
            }
        }
    }
}
