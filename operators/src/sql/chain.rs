//! The way of rows from one scan to the output: a chain of steps, each over whole columns, none of which keeps state.
//!
//! A filter evaluates its condition over all columns, but copies only those that the steps after it read. A join and
//! an unnest may make many rows of one, so they hand on batches of about [`CHUNK_ROWS`] one after the other.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Int8Array, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::{FilterBuilder, take};
use arrow::datatypes::{FieldRef, SchemaRef};
use datafusion::common::{Result, internal_datafusion_err, resources_err};

use super::compile::{Compiled, as_column};
use super::evaluation::Evaluation;
use super::join::{Built, Join};
use super::unnest::Unnest;

/// About how many rows a step that multiplies rows hands on at once.
pub(super) const CHUNK_ROWS: usize = 32 * 1024;

/// What comes of a row, or of some rows at once, takes no more memory than this, in bytes.
pub(super) const OUTCOME_BYTES: usize = 256 << 20;

/// Rows on their way, and what each does to a changelog.
#[derive(Clone, Debug)]
pub(super) struct Flow {
    pub(super) rows: RecordBatch,
    pub(super) ops: Option<Int8Array>,
    /// The row of the operator's input that each row was made from; `None` while that is the row of the same number.
    pub(super) input_rows: Option<UInt32Array>,
}

impl Flow {
    /// Rows of the operator's input, as they are.
    pub(super) fn of_input(rows: RecordBatch, ops: Option<Int8Array>) -> Self {
        Self { rows, ops, input_rows: None }
    }

    /// Some of the rows, without copying.
    pub(super) fn slice(&self, offset: usize, length: usize) -> Self {
        let ops = self.ops.as_ref().map(|ops| ops.slice(offset, length));
        let input_rows = match &self.input_rows {
            Some(input_rows) => Some(input_rows.slice(offset, length)),
            None if offset == 0 => None,
            None => Some((offset..offset + length).map(|row| row as u32).collect()),
        };
        Self { rows: self.rows.slice(offset, length), ops, input_rows }
    }

    /// The row of the operator's input that a row was made from.
    pub(super) fn input_row(&self, row: usize) -> usize {
        let input_rows = self.input_rows.as_ref().map(UInt32Array::values);
        input_rows.and_then(|rows| rows.get(row)).map_or(row, |row| *row as usize)
    }

    /// Other columns for the same rows.
    pub(super) fn with_columns(&self, columns: Vec<ArrayRef>, schema: &SchemaRef) -> Result<Self> {
        let rows = batch(schema, columns, self.rows.num_rows())?;
        Ok(Self { rows, ops: self.ops.clone(), input_rows: self.input_rows.clone() })
    }

    /// What comes of the rows at some indices: `columns`, which are made for them already.
    pub(super) fn at(&self, indices: &UInt32Array, columns: Vec<ArrayRef>, schema: &SchemaRef) -> Result<Self> {
        let ops = match &self.ops {
            Some(ops) => take(ops, indices, None)?.as_any().downcast_ref::<Int8Array>().cloned(),
            None => None,
        };
        let input_rows = match &self.input_rows {
            Some(rows) => take(rows, indices, None)?.as_any().downcast_ref::<UInt32Array>().cloned(),
            None => Some(indices.clone()),
        };
        Ok(Self { rows: batch(schema, columns, indices.len())?, ops, input_rows })
    }

    /// The rows that a mask without nulls selects, with only the columns `keep`.
    pub(super) fn filter(&self, mask: &BooleanArray, keep: Option<&[usize]>, schema: &SchemaRef) -> Result<Self> {
        let filter = FilterBuilder::new(mask).optimize().build();
        let columns = kept(&self.rows, keep).map(|column| filter.filter(column)).collect::<Result<Vec<_>, _>>()?;
        let ops = match &self.ops {
            Some(ops) => filter.filter(ops)?.as_any().downcast_ref::<Int8Array>().cloned(),
            None => None,
        };
        let input_rows = match &self.input_rows {
            Some(rows) => filter.filter(rows)?.as_any().downcast_ref::<UInt32Array>().cloned(),
            None => Some(UInt32Array::from_iter_values(mask.values().set_indices_u32())),
        };
        Ok(Self { rows: batch(schema, columns, filter.count())?, ops, input_rows })
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

impl Step {
    /// Its expressions over rows of the stream.
    pub(super) fn expressions(&self) -> impl Iterator<Item = &Compiled> {
        let (condition, columns) = match self {
            Self::Filter(filter) => (Some(&filter.predicate), None),
            Self::Project(project) => (None, Some(&project.exprs)),
            Self::Join(join) => (join.filter.as_ref().map(|filter| &filter.predicate), Some(&join.keys)),
            Self::Unnest(_) => (None, None),
        };
        condition.into_iter().chain(columns.into_iter().flatten())
    }
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
    fn apply(&self, flow: &Flow, evaluation: &Evaluation) -> Result<Flow> {
        match evaluation.select(&self.predicate, flow)? {
            Some(mask) => flow.filter(&mask, self.keep.as_deref(), &self.schema),
            None => flow.with_columns(kept(&flow.rows, self.keep.as_deref()).cloned().collect(), &self.schema),
        }
    }
}

impl Project {
    fn apply(&self, flow: &Flow, evaluation: &Evaluation) -> Result<Flow> {
        let column = |(expr, field): (&Compiled, &FieldRef)| {
            if let Some(column) = as_column(expr).and_then(|index| flow.rows.columns().get(index)) {
                return Ok(Arc::clone(column));
            }
            let column = evaluation.evaluate(expr, flow)?;
            evaluation.check_range(field, &column, flow)?;
            Ok(column)
        };
        let columns = self.exprs.iter().zip(self.schema.fields()).map(column);
        flow.with_columns(columns.collect::<Result<_>>()?, &self.schema)
    }
}

/// What comes out of a chain for some rows.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) flows: Vec<Flow>,
    bytes: usize,
    most_bytes: usize,
}

impl Outcome {
    /// Of rows of a stream: so much at once as fits into memory.
    pub(super) fn bounded() -> Self {
        Self { flows: Vec::new(), bytes: 0, most_bytes: OUTCOME_BYTES }
    }

    /// Of a static table, which is kept as a whole.
    pub(super) fn unbounded() -> Self {
        Self { most_bytes: usize::MAX, ..Self::bounded() }
    }

    fn push(&mut self, flow: Flow) -> Result<()> {
        self.bytes += flow.rows.get_array_memory_size();
        self.flows.push(flow);
        // One batch is bounded by its input and by what functions may make; rows that multiply are not.
        if self.flows.len() > 1 && self.bytes > self.most_bytes {
            return resources_err!("what comes of it takes more than {} MiB", self.most_bytes >> 20);
        }
        Ok(())
    }
}

/// Sends rows through steps and puts what comes out, in order, into `out`.
pub(super) fn run(
    steps: &[Step],
    flow: Flow,
    tables: &Tables,
    evaluation: &Evaluation,
    out: &mut Outcome,
) -> Result<()> {
    let mut flow = flow;
    for (index, step) in steps.iter().enumerate() {
        if flow.rows.num_rows() == 0 {
            return Ok(());
        }
        let rest = steps.get(index + 1..).unwrap_or_default();
        match step {
            Step::Filter(filter) => flow = filter.apply(&flow, evaluation)?,
            Step::Project(project) => flow = project.apply(&flow, evaluation)?,
            Step::Join(join) => {
                let table =
                    tables.get(&join.build.id).ok_or_else(|| internal_datafusion_err!("a table is not built"))?;
                return join.probe(&flow, table, evaluation, &mut |joined| run(rest, joined, tables, evaluation, out));
            }
            Step::Unnest(unnest) => {
                return unnest.apply(&flow, evaluation, &mut |items| run(rest, items, tables, evaluation, out));
            }
        }
    }
    if flow.rows.num_rows() > 0 { out.push(flow) } else { Ok(()) }
}
