//! Watched expressions: rows on which a step of an expression fails are noted, and the evaluation goes on without them.
//!
//! ```text
//!   CASE WHEN n > 0 THEN CAST(s AS int) END          n, s, row number
//!                        ╰── fails on two rows: bisected over the values of s, and nothing else is computed again
//! ```
//!
//! The rows that a step sees may be some of the batch's, as inside CASE: so the batch has a further column that numbers
//! its rows, which each guard reads. AND and OR decide row by row whether their right side is evaluated, so a row fails
//! if and only if it fails alone.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array, new_null_array,
};
use arrow::compute::kernels::boolean::{and_kleene, or_kleene};
use arrow::compute::{and, concat, is_not_null, is_null};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, UInt32Type};
use datafusion::common::{DataFusionError, Result, exec_datafusion_err, exec_err, internal_err};
use datafusion::logical_expr::{ColumnarValue, Operator};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{
    BinaryExpr, CaseExpr, CastExpr, Column, IsNotNullExpr, IsNullExpr, LambdaExpr, Literal, NotExpr, TryCastExpr,
};

use super::compile::Compiled;
use super::narrow::reason;
use crate::panics::catch;

/// The rows of a batch on which a step failed, and why; of each row the first reason.
#[derive(Clone, Debug, Default)]
pub(super) struct Failures(Arc<Mutex<BTreeMap<u32, String>>>);

impl Failures {
    fn note(&self, row: u32, reason: &str) {
        // A note is one insertion, so a panic elsewhere leaves none half written.
        let mut rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        rows.entry(row).or_insert_with(|| reason.to_owned());
    }

    /// What was noted.
    pub(super) fn take(&self) -> impl Iterator<Item = (usize, String)> {
        let rows = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        rows.into_iter().map(|(row, reason)| (row as usize, reason))
    }
}

/// The rows with a further column that numbers them.
pub(super) fn with_row_numbers(rows: &RecordBatch) -> Result<RecordBatch> {
    let mut fields: Vec<FieldRef> = rows.schema_ref().fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new("row number", DataType::UInt32, false)));
    let mut columns = rows.columns().to_vec();
    columns.push(Arc::new(UInt32Array::from_iter_values(0..rows.num_rows() as u32)));
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

/// An expression, watched. `numbers` is the index of the column of row numbers.
pub(super) fn guard(expr: &Compiled, numbers: usize, failures: &Failures) -> Result<Compiled> {
    let row: Compiled = Arc::new(Column::new("row number", numbers));
    guard_with(expr, &row, failures)
}

fn guard_with(expr: &Compiled, row: &Compiled, failures: &Failures) -> Result<Compiled> {
    if expr.children().is_empty() && (expr.is::<Column>() || expr.is::<Literal>()) {
        return Ok(Arc::clone(expr));
    }
    let node = if expr.children().is_empty() {
        Arc::clone(expr)
    } else {
        let children = expr.children().into_iter().map(|child| guard_with(child, row, failures));
        Arc::clone(expr).with_new_children(children.collect::<Result<_>>()?)?
    };
    if let Some(binary) = node.downcast_ref::<BinaryExpr>()
        && matches!(binary.op(), Operator::And | Operator::Or)
    {
        let (left, right) = (Arc::clone(binary.left()), Arc::clone(binary.right()));
        return Ok(Arc::new(Decided { is_and: *binary.op() == Operator::And, left, right }));
    }
    if cannot_fail(&node) {
        return Ok(node);
    }
    Ok(Arc::new(Guard { node, row: Arc::clone(row), failures: failures.clone() }))
}

/// Whether only the parts of an expression can fail, which are watched themselves.
fn cannot_fail(node: &Compiled) -> bool {
    let is_comparison = node.downcast_ref::<BinaryExpr>().is_some_and(|binary| is_comparison(*binary.op()));
    node.is::<CaseExpr>()
        || node.is::<IsNullExpr>()
        || node.is::<IsNotNullExpr>()
        || node.is::<NotExpr>()
        || is_comparison
}

fn is_comparison(operator: Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
    matches!(operator, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
}

/// An expression whose parts are watched, and which is watched itself.
#[derive(Debug)]
struct Guard {
    node: Compiled,
    row: Compiled,
    failures: Failures,
}

impl Guard {
    /// The expression over the values of its parts, and those values.
    fn over_values(&self, batch: &RecordBatch) -> Result<(Compiled, RecordBatch)> {
        let (mut children, mut fields, mut columns) = (Vec::<Compiled>::new(), Vec::new(), Vec::new());
        for child in self.node.children() {
            if child.is::<Literal>() {
                children.push(Arc::clone(child));
                continue;
            }
            match child.evaluate(batch)? {
                ColumnarValue::Scalar(value) => children.push(Arc::new(Literal::new(value))),
                ColumnarValue::Array(array) => {
                    let field = child.return_field(batch.schema_ref())?;
                    let field =
                        Field::new("value", array.data_type().clone(), true).with_metadata(field.metadata().clone());
                    children.push(Arc::new(Column::new("value", fields.len())));
                    fields.push(field);
                    columns.push(array);
                }
            }
        }
        let node = if children.is_empty() {
            Arc::clone(&self.node)
        } else {
            Arc::clone(&self.node).with_new_children(children)?
        };
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        Ok((node, RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)?))
    }
}

/// Whether an expression calls a function that takes a lambda, whose parts see other rows.
pub(super) fn has_lambda(expr: &Compiled) -> bool {
    expr.is::<LambdaExpr>() || expr.children().into_iter().any(has_lambda)
}

/// The value of an expression for each row. A row on which it fails gets null and is passed to `note`.
pub(super) fn find_failing(
    node: &Compiled,
    values: &RecordBatch,
    note: &mut dyn FnMut(usize, &str),
) -> Result<ArrayRef> {
    if let Some(cast) = node.downcast_ref::<CastExpr>()
        && let Some(array) = find_uncastable(cast, values, note)?
    {
        return Ok(array);
    }
    let data_type = node.data_type(values.schema_ref())?;
    let mut pieces: Vec<ArrayRef> = Vec::new();
    let mut ranges = vec![(0, values.num_rows())];
    while let Some((offset, rows)) = ranges.pop() {
        match try_evaluate(node, &values.slice(offset, rows)) {
            Ok(value) => pieces.push(value.into_array(rows)?),
            Err(error) if is_too_much(&error) => return Err(error),
            Err(error) if rows <= 1 => {
                note(offset, &reason(&error));
                pieces.push(new_null_array(&data_type, rows));
            }
            Err(_) => {
                let half = rows / 2;
                ranges.push((offset + half, rows - half));
                ranges.push((offset, half));
            }
        }
    }
    Ok(concat(&pieces.iter().map(|piece| piece.as_ref() as &dyn Array).collect::<Vec<_>>())?)
}

/// A cast that gives null instead of failing finds all bad values at once. `None` where null says too little.
fn find_uncastable(
    cast: &CastExpr,
    values: &RecordBatch,
    note: &mut dyn FnMut(usize, &str),
) -> Result<Option<ArrayRef>> {
    let Some(input) = cast.expr().downcast_ref::<Column>().and_then(|c| values.columns().get(c.index())) else {
        return Ok(None);
    };
    if input.data_type().is_nested() || cast.cast_type().is_nested() {
        return Ok(None);
    }
    let lenient: Compiled = Arc::new(TryCastExpr::new(Arc::clone(cast.expr()), cast.cast_type().clone()));
    let Ok(array) = try_evaluate(&lenient, values).and_then(|value| value.into_array(values.num_rows())) else {
        return Ok(None);
    };
    let suspects = and(&is_null(array.as_ref())?, &is_not_null(input.as_ref())?)?;
    if suspects.true_count() == 0 {
        // The cast failed, and no null says where.
        return Ok(None);
    }
    for row in suspects.values().set_indices() {
        // The cast alone: a batch and an expression for each row would take longer than the cast.
        let value = ColumnarValue::Array(input.slice(row, 1));
        match catch(|| value.cast_to(cast.cast_type(), Some(cast.cast_options()))) {
            Ok(Ok(_)) => return Ok(None),
            Ok(Err(error)) => note(row, &reason(&error)),
            Err(panic) => note(row, &panic),
        }
    }
    Ok(Some(array))
}

/// Evaluates an expression; a panic is an error.
fn try_evaluate(node: &Compiled, values: &RecordBatch) -> Result<ColumnarValue> {
    let value = catch(|| node.evaluate(values)).map_err(|panic| exec_datafusion_err!("{panic}"))??;
    match &value {
        ColumnarValue::Array(array) if array.len() != values.num_rows() => {
            exec_err!("{node} gave {} values for {} rows", array.len(), values.num_rows())
        }
        _ => Ok(value),
    }
}

/// Whether an error says that what comes of the rows is too much at once, which fewer rows may not be.
pub(super) fn is_too_much(error: &DataFusionError) -> bool {
    matches!(error.find_root(), DataFusionError::ResourcesExhausted(_))
}

impl PhysicalExpr for Guard {
    fn data_type(&self, schema: &Schema) -> Result<DataType> {
        self.node.data_type(schema)
    }

    fn nullable(&self, _: &Schema) -> Result<bool> {
        Ok(true)
    }

    fn return_field(&self, schema: &Schema) -> Result<FieldRef> {
        Ok(Arc::new(self.node.return_field(schema)?.as_ref().clone().with_nullable(true)))
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        let (node, values) = self.over_values(batch)?;
        let error = match try_evaluate(&node, &values) {
            Ok(value) => return Ok(value),
            Err(error) if is_too_much(&error) => return Err(error),
            Err(error) => error,
        };
        let numbers = self.row.evaluate(batch)?.into_array(batch.num_rows())?;
        let numbers = numbers.as_primitive::<UInt32Type>();
        if values.num_columns() == 0 {
            // It depends on no column: what fails for one row fails for all.
            let reason = reason(&error);
            numbers.values().iter().for_each(|row| self.failures.note(*row, &reason));
            let data_type = node.data_type(values.schema_ref())?;
            return Ok(ColumnarValue::Array(new_null_array(&data_type, batch.num_rows())));
        }
        let mut note = |row: usize, reason: &str| self.failures.note(numbers.value(row), reason);
        find_failing(&node, &values, &mut note).map(ColumnarValue::Array)
    }

    fn children(&self) -> Vec<&Compiled> {
        let mut children = self.node.children();
        children.push(&self.row);
        children
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Compiled>) -> Result<Compiled> {
        let Some(row) = children.pop() else { return internal_err!("a guard without its row numbers") };
        let node = match children.is_empty() {
            true => Arc::clone(&self.node),
            false => Arc::clone(&self.node).with_new_children(children)?,
        };
        Ok(Arc::new(Self { node, row, failures: self.failures.clone() }))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.node.fmt_sql(f)
    }
}

impl PartialEq for Guard {
    fn eq(&self, other: &Self) -> bool {
        self.node.eq(&other.node)
    }
}

impl Eq for Guard {}

impl Hash for Guard {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.node.hash(state);
    }
}

impl fmt::Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.node.fmt(f)
    }
}

/// AND or OR whose right side is evaluated for just the rows that the left side does not decide.
#[derive(Debug, Eq)]
struct Decided {
    is_and: bool,
    left: Compiled,
    right: Compiled,
}

impl PartialEq for Decided {
    fn eq(&self, other: &Self) -> bool {
        self.is_and == other.is_and && self.left.eq(&other.left) && self.right.eq(&other.right)
    }
}

impl Hash for Decided {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.left.hash(state);
        self.right.hash(state);
    }
}

impl PhysicalExpr for Decided {
    fn data_type(&self, _: &Schema) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn nullable(&self, _: &Schema) -> Result<bool> {
        Ok(true)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        let left = self.left.evaluate(batch)?.into_array(batch.num_rows())?;
        let Some(left) = left.as_boolean_opt() else {
            return exec_err!("{} is {}, not a boolean", self.left, left.data_type());
        };
        let is_open = |value: Option<bool>| Some(value != Some(!self.is_and));
        let open: BooleanArray = left.iter().map(is_open).collect();
        if !open.has_true() {
            return Ok(ColumnarValue::Array(Arc::new(left.clone())));
        }
        let right = self.right.evaluate_selection(batch, &open)?.into_array(batch.num_rows())?;
        let Some(right) = right.as_boolean_opt() else {
            return exec_err!("{} is {}, not a boolean", self.right, right.data_type());
        };
        let both = if self.is_and { and_kleene(left, right)? } else { or_kleene(left, right)? };
        Ok(ColumnarValue::Array(Arc::new(both)))
    }

    fn children(&self) -> Vec<&Compiled> {
        vec![&self.left, &self.right]
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Compiled>) -> Result<Compiled> {
        match <[Compiled; 2]>::try_from(children) {
            Ok([left, right]) => Ok(Arc::new(Self { is_and: self.is_and, left, right })),
            Err(_) => internal_err!("AND and OR have two sides"),
        }
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Decided {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.left, if self.is_and { "AND" } else { "OR" }, self.right)
    }
}
