//! How often a guest may run into its deadline.
//!
//! Finding one row on which a guest never ends takes a deadline for each halving. A guest that never ends on any row
//! would hold the pipeline up for hours that way, so deadlines must be paid for by rows that went well.

use super::live::{Failure, FailureKind};

/// How many deadlines a guest may run into at first, and at most: enough to find two or three rows of a full batch.
const MOST_DEADLINES: f64 = 48.0;
/// How many rows that went well pay for one more.
const ROWS_A_DEADLINE: f64 = 1000.0;

/// What is left of the patience with a guest.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    deadlines: f64,
}

impl Default for Patience {
    fn default() -> Self {
        Self { deadlines: MOST_DEADLINES }
    }
}

impl Patience {
    /// Rows went well.
    pub(super) fn rewarded(&mut self, rows: usize) {
        let rows = u32::try_from(rows).unwrap_or(u32::MAX);
        self.deadlines = (self.deadlines + f64::from(rows) / ROWS_A_DEADLINE).min(MOST_DEADLINES);
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
