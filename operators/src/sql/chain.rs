//! The way of rows from one scan to the output: a chain of steps, each over whole columns, none of which keeps state.
//!
//! A filter evaluates its condition over all columns, but copies only those that the steps after it read. A join and
//! an unnest may make many rows of one, so they hand on batches of about [`CHUNK_ROWS`] one after the other.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Int8Array, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::{FilterBuilder, take};
use arrow::datatypes::SchemaRef;
use datafusion::common::{Result, exec_err, internal_datafusion_err};
use logmill_columns::out_of_range;

use super::compile::{Compiled, as_column, evaluate, select};
use super::join::{Built, Join};
use super::unnest::Unnest;

/// About how many rows a step that multiplies rows hands on at once.
pub(super) const CHUNK_ROWS: usize = 32 * 1024;

/// Rows on their way, and what each does to a changelog.
#[derive(Clone, Debug)]
pub(super) struct Flow {
    pub(super) rows: RecordBatch,
    pub(super) ops: Option<Int8Array>,
}

impl Flow {
    /// Some of the rows, without copying.
    pub(super) fn slice(&self, offset: usize, length: usize) -> Self {
        let ops = self.ops.as_ref().map(|ops| ops.slice(offset, length));
        Self { rows: self.rows.slice(offset, length), ops }
    }

    /// Other columns for the same rows.
    pub(super) fn with_columns(&self, columns: Vec<ArrayRef>, schema: &SchemaRef) -> Result<Self> {
        let rows = batch(schema, columns, self.rows.num_rows())?;
        Ok(Self { rows, ops: self.ops.clone() })
    }

    /// The changelog ops at some indices.
    pub(super) fn take_ops(&self, indices: &UInt32Array) -> Result<Option<Int8Array>> {
        let Some(ops) = &self.ops else { return Ok(None) };
        Ok(take(ops, indices, None)?.as_any().downcast_ref::<Int8Array>().cloned())
    }

    /// The rows that a mask selects, with only the columns `keep`.
    pub(super) fn filter(&self, mask: &BooleanArray, keep: Option<&[usize]>, schema: &SchemaRef) -> Result<Self> {
        let filter = FilterBuilder::new(mask).optimize().build();
        let columns = kept(&self.rows, keep).map(|column| filter.filter(column)).collect::<Result<Vec<_>, _>>()?;
        let ops = match &self.ops {
            Some(ops) => filter.filter(ops)?.as_any().downcast_ref::<Int8Array>().cloned(),
            None => None,
        };
        Ok(Self { rows: batch(schema, columns, filter.count())?, ops })
    }
}

/// A batch of columns, or of rows without columns.
pub(super) fn batch(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}

fn kept<'a>(rows: &'a RecordBatch, keep: Option<&'a [usize]>) -> Box<dyn Iterator<Item = &'a ArrayRef> + 'a> {
    match keep {
        Some(indices) => Box::new(indices.iter().filter_map(|index| rows.columns().get(*index))),
        None => Box::new(rows.columns().iter()),
    }
}

/// The hash tables of a query's joins, by the ids of their static sides.
pub(super) type Tables = HashMap<usize, Arc<Built>>;

/// Where a chain's rows come from.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// A stream or a static table; these of its columns.
    Relation { name: Arc<str>, schema: SchemaRef },
    /// Rows that the query itself spells out.
    Rows(RecordBatch),
}

/// A scan and the steps after it.
#[derive(Clone, Debug)]
pub(super) struct Chain {
    pub(super) source: Source,
    pub(super) steps: Vec<Step>,
    /// What comes out.
    pub(super) schema: SchemaRef,
}

impl Chain {
    /// The chains of the static sides of its joins.
    pub(super) fn static_chains(&self) -> impl Iterator<Item = &Chain> {
        let joins = self.steps.iter().filter_map(|step| match step {
            Step::Join(join) => Some(join),
            _ => None,
        });
        joins.flat_map(|join| &join.build.chains)
    }
}

/// A computation on some rows.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Lets the rows pass for which the condition is true.
    Filter(Filter),
    /// Computes columns.
    Project(Project),
    /// Finds the rows of a static table that belong to each row.
    Join(Arc<Join>),
    /// Makes a row of each item of a list.
    Unnest(Arc<Unnest>),
}

/// A condition.
#[derive(Clone, Debug)]
pub(super) struct Filter {
    pub(super) predicate: Compiled,
    /// The columns that are read after it, if not all are.
    pub(super) keep: Option<Vec<usize>>,
    /// The columns kept.
    pub(super) schema: SchemaRef,
    /// The condition, for people.
    pub(super) text: String,
}

/// Computed columns.
#[derive(Clone, Debug)]
pub(super) struct Project {
    pub(super) exprs: Vec<Compiled>,
    pub(super) schema: SchemaRef,
    /// Each column, for people.
    pub(super) text: Vec<String>,
}

impl Filter {
    fn apply(&self, flow: &Flow) -> Result<Flow> {
        match select(&self.predicate, &flow.rows)? {
            Some(mask) => flow.filter(&mask, self.keep.as_deref(), &self.schema),
            None => flow.with_columns(kept(&flow.rows, self.keep.as_deref()).cloned().collect(), &self.schema),
        }
    }
}

impl Project {
    fn apply(&self, flow: &Flow) -> Result<Flow> {
        let column = |expr: &Compiled| match as_column(expr).and_then(|index| flow.rows.columns().get(index)) {
            Some(column) => Ok(Arc::clone(column)),
            None => evaluate(expr, &flow.rows),
        };
        flow.with_columns(self.exprs.iter().map(column).collect::<Result<_>>()?, &self.schema)
    }
}

/// Sends rows through steps and puts what comes out, in order, into `out`.
pub(super) fn run(steps: &[Step], flow: Flow, tables: &Tables, out: &mut Vec<Flow>) -> Result<()> {
    let mut flow = flow;
    for (index, step) in steps.iter().enumerate() {
        if flow.rows.num_rows() == 0 {
            return Ok(());
        }
        let rest = steps.get(index + 1..).unwrap_or_default();
        match step {
            Step::Filter(filter) => flow = filter.apply(&flow)?,
            Step::Project(project) => flow = project.apply(&flow)?,
            Step::Join(join) => {
                let table =
                    tables.get(&join.build.id).ok_or_else(|| internal_datafusion_err!("a table is not built"))?;
                return join.probe(&flow, table, &mut |joined| run(rest, joined, tables, out));
            }
            Step::Unnest(unnest) => return unnest.apply(&flow, &mut |items| run(rest, items, tables, out)),
        }
    }
    if let Some(bad) = out_of_range(&flow.rows).into_iter().next() {
        return exec_err!("{}", bad.message);
    }
    if flow.rows.num_rows() > 0 {
        out.push(flow);
    }
    Ok(())
}
