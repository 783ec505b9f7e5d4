//! How the expressions of a chain are evaluated: fast, or so that the rows on which one fails are found.
//!
//! The fast way evaluates an expression over whole columns and gives a column or an error, which does not say on which row.
//! Rows are then evaluated again carefully: each step of an expression is watched (see [`super::guard`]), a row on which one
//! fails is noted and gets null, and the others get the same values as before. Noted rows are left out of the output.

use std::cell::RefCell;
use std::collections::BTreeMap;

use arrow::array::{ArrayRef, BooleanArray};
use arrow::datatypes::Field;
use datafusion::common::{Result, exec_err};
use logmill_columns::column_out_of_range;

use super::chain::Flow;
use super::compile::{self, Compiled, as_column};
use super::guard::{Failures, find_failing, guard, has_lambda, with_row_numbers};

/// How expressions are evaluated during one run of a chain, and the rows on which one failed.
#[derive(Debug)]
pub(super) struct Evaluation {
    careful: bool,
    /// The reasons, by the rows of the operator's input; of each row the first.
    failed: RefCell<BTreeMap<usize, String>>,
    /// How many rows a step that multiplies rows hands on at once, at most.
    chunk_rows: usize,
}

/// What steps that multiply rows hand on at once, in bytes.
const CHUNK_BYTES: usize = 64 << 20;

impl Evaluation {
    /// An expression that fails on a row fails as a whole. Steps hand on `chunk_rows` at once, at most.
    pub(super) fn fast(chunk_rows: usize) -> Self {
        Self { careful: false, failed: RefCell::default(), chunk_rows }
    }

    /// Rows on which an expression fails are noted.
    pub(super) fn careful(chunk_rows: usize) -> Self {
        Self { careful: true, ..Self::fast(chunk_rows) }
    }

    /// How many rows of so many bytes a step hands on at once.
    pub(super) fn rows_of_bytes(&self, row_bytes: usize) -> usize {
        (CHUNK_BYTES / row_bytes.max(1)).clamp(1, self.chunk_rows)
    }

    /// The rows of the operator's input on which an expression failed, and why.
    pub(super) fn into_failed(self) -> BTreeMap<usize, String> {
        self.failed.into_inner()
    }

    /// The value of an expression for each row; null where it failed and that was noted.
    pub(super) fn evaluate(&self, expr: &Compiled, flow: &Flow) -> Result<ArrayRef> {
        if !self.careful || as_column(expr).is_some() {
            return compile::evaluate(expr, &flow.rows);
        }
        if has_lambda(expr) {
            let mut note = |row: usize, reason: &str| self.note(flow.input_row(row), reason.to_owned());
            return find_failing(expr, &flow.rows, &mut note);
        }
        let failures = Failures::default();
        let guarded = guard(expr, flow.rows.num_columns(), &failures)?;
        let values = compile::evaluate(&guarded, &with_row_numbers(&flow.rows)?)?;
        failures.take().for_each(|(row, reason)| self.note(flow.input_row(row), reason));
        Ok(values)
    }

    /// The rows for which a condition is true; `None` means all.
    pub(super) fn select(&self, predicate: &Compiled, flow: &Flow) -> Result<Option<BooleanArray>> {
        compile::passing(predicate, &self.evaluate(predicate, flow)?)
    }

    /// Fails on values of a computed column that nothing can show, or notes their rows. Columns that came with the rows
    /// were checked where they came from.
    pub(super) fn check_range(&self, field: &Field, column: &ArrayRef, flow: &Flow) -> Result<()> {
        for bad in column_out_of_range(field, column) {
            if !self.careful {
                return exec_err!("{}", bad.message);
            }
            self.note(flow.input_row(bad.row), bad.message);
        }
        Ok(())
    }

    fn note(&self, input_row: usize, reason: String) {
        self.failed.borrow_mut().entry(input_row).or_insert(reason);
    }
}
