//! How often a guest may run into its deadline, and how many rows it is given at once.
//!
//! A guest may be late because one row keeps it for ever, because it is given more than it can do in time, or because the
//! machine stood still. Which of them it was shows when the rows of the late call are tried again in parts:
//!
//! ```text
//!   8 rows late ─▶ 4 fine ─▶ 4 late ─▶ 2 late ─▶ 1 late, and late again: that row is to blame, for all three
//!   8 rows late ─▶ 4 late ─▶ 2 fine ─▶ 2 fine: no row of the 4 is to blame, they are too many at once
//! ```
//!
//! A guest that never comes back would hold the pipeline up for hours that way, so deadlines must be paid for by rows that
//! went well. Where it is known how many rows are too many, that many rows are worth a deadline, as they take one: a guest
//! that is done with at least one row within its deadline is never stopped, however slow it is.

use super::live::{Failure, FailureKind};

/// How many deadlines a guest may run into at first, and at most: enough to find two or three rows of a full batch.
const MOST_DEADLINES: f64 = 48.0;
/// How many rows that went well pay for one more, however fast they are.
const ROWS_A_DEADLINE: f64 = 1000.0;

/// How many rows a guest gets at once.
pub(super) const BATCH_ROWS: usize = 64 * 1024;
/// After how many calls that went well a guest that gets fewer is tried with twice as many.
const CALLS_UNTIL_MORE: u32 = 64;
/// The same, after many trials that did not go well.
const MOST_CALLS_UNTIL_MORE: u32 = 4096;

/// What is left of the patience with a guest, and what is known of its speed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    deadlines: f64,
    rows_at_once: usize,
    /// Calls of as many rows as it gets at once, since that number changed.
    good_calls: u32,
    calls_until_more: u32,
}

impl Default for Patience {
    fn default() -> Self {
        let (rows_at_once, calls_until_more) = (BATCH_ROWS, CALLS_UNTIL_MORE);
        Self { deadlines: MOST_DEADLINES, rows_at_once, good_calls: 0, calls_until_more }
    }
}

impl Patience {
    /// How many rows the guest is likely to be done with before its deadline; at least one.
    pub(super) fn rows_at_once(&self) -> usize {
        self.rows_at_once
    }

    /// So many rows are too many at once.
    pub(super) fn too_many(&mut self, rows: usize) {
        let fewer = (rows / 2).max(1);
        if fewer < self.rows_at_once {
            self.rows_at_once = fewer;
            self.good_calls = 0;
            self.calls_until_more = self.calls_until_more.saturating_mul(4).min(MOST_CALLS_UNTIL_MORE);
        }
    }

    /// A call with so many rows went well.
    pub(super) fn rewarded(&mut self, rows: usize) {
        let of = |rows: usize| f64::from(u32::try_from(rows).unwrap_or(u32::MAX));
        let is_slow = self.rows_at_once < BATCH_ROWS;
        // Twice as many as it gets were, or may be, too many.
        let worth = if is_slow { of(rows) / of(self.rows_at_once * 2) } else { 0.0 };
        self.deadlines = (self.deadlines + worth.max(of(rows) / ROWS_A_DEADLINE)).min(MOST_DEADLINES);
        // Of how many more it could do, smaller calls tell nothing.
        if is_slow && rows * 2 > self.rows_at_once {
            self.good_calls += 1;
        }
        if self.good_calls >= self.calls_until_more {
            self.good_calls = 0;
            self.rows_at_once = (self.rows_at_once * 2).min(BATCH_ROWS);
            self.calls_until_more = (self.calls_until_more / 2).max(CALLS_UNTIL_MORE);
        }
    }

    /// A call failed; the error says that it was one too many.
    pub(super) fn tried(&mut self, failure: &Failure) -> Result<(), String> {
        if failure.kind != FailureKind::Deadline {
            return Ok(());
        }
        self.deadlines -= 1.0;
        if self.deadlines > 0.0 {
            return Ok(());
        }
        Err(format!(
            "its guest runs into its deadline too often to look for the rows that are to blame: {}; raise `deadline:` if \
             it only needs longer",
            failure.message
        ))
    }
}

/// The late calls whose rows are being tried again in parts, in order; the innermost last.
#[derive(Debug, Default)]
pub(super) struct Search {
    late: Vec<LateCall>,
}

#[derive(Debug)]
struct LateCall {
    rows: usize,
    /// The row after its last.
    end: usize,
}

impl Search {
    /// A call with these rows was late, and there is more than one.
    pub(super) fn late(&mut self, offset: usize, rows: usize) {
        self.late.push(LateCall { rows, end: offset + rows });
    }

    /// A row by itself was late: whatever was late with it was so because of it.
    pub(super) fn blame_one(&mut self) {
        self.late.clear();
    }

    /// All rows before this one are done with. How many rows were too many at once, if that shows now.
    pub(super) fn done_until(&mut self, row: usize) -> Option<usize> {
        let mut too_many = None;
        while let Some(call) = self.late.pop_if(|call| call.end <= row) {
            too_many = Some(too_many.map_or(call.rows, |rows: usize| rows.min(call.rows)));
        }
        too_many
    }
}
