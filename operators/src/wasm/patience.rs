//! How often a guest may run into its deadline, and what is learnt from it.
//!
//! Finding one row on which a guest never ends takes a deadline for each halving. A guest that never ends on any row
//! would hold the pipeline up for hours that way, so deadlines must be paid for by rows that went well. One that merely
//! needs longer for a batch than it may gets smaller ones from then on.

use super::live::{Failure, FailureKind};

/// How many deadlines a guest may run into at first, and at most: enough to find two or three rows of a full batch.
const MOST_DEADLINES: f64 = 48.0;
/// How many rows that went well pay for one more.
const ROWS_A_DEADLINE: f64 = 1000.0;

/// How many rows a guest gets at once.
pub(super) const BATCH_ROWS: usize = 64 * 1024;
/// After how many calls that went well a guest that got fewer gets twice as many.
const CALLS_UNTIL_MORE: u32 = 64;

/// What is left of the patience with a guest.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    deadlines: f64,
    rows_at_once: usize,
    good_calls: u32,
}

impl Default for Patience {
    fn default() -> Self {
        Self { deadlines: MOST_DEADLINES, rows_at_once: BATCH_ROWS, good_calls: 0 }
    }
}

impl Patience {
    /// How many rows the guest is likely to be done with before its deadline.
    pub(super) fn rows_at_once(&self) -> usize {
        self.rows_at_once
    }

    /// The guest ran into its deadline on no row in particular, and was done with this many.
    pub(super) fn slow(&mut self, rows_in_time: usize) {
        self.rows_at_once = rows_in_time.clamp(1, BATCH_ROWS);
        self.good_calls = 0;
    }

    /// Rows went well.
    pub(super) fn rewarded(&mut self, rows: usize) {
        let rows = u32::try_from(rows).unwrap_or(u32::MAX);
        self.deadlines = (self.deadlines + f64::from(rows) / ROWS_A_DEADLINE).min(MOST_DEADLINES);
        self.good_calls += 1;
        if self.good_calls >= CALLS_UNTIL_MORE {
            self.good_calls = 0;
            self.rows_at_once = (self.rows_at_once * 2).min(BATCH_ROWS);
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
