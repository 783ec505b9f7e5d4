//! A worker's instance of a planned query.
//!
//! A batch runs through its port's chains as a whole. Where that fails, it is halved until the failing rows are
//! alone: those are rejected with their reasons, all others flow on, in their order. An input row is one unit: if one
//! of the rows it is joined or unnested into fails, or one of the branches of a UNION ALL that it goes through, none of
//! them comes out, and it is rejected once.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Int8Array, RecordBatch};
use arrow::compute::{cast, concat, concat_batches};
use arrow::datatypes::{FieldRef, SchemaRef};
use datafusion::common::{DataFusionError, Result as DataFusionResult, exec_err};
use logmill_pipelines::flow::{CheckpointEpoch, Origin, RowBatch, Watermark};

use super::chain::{Chain, Flow, Source, Step, Tables, batch, run};
use super::join::{BuildSide, Built};
use super::parse::{lowercase_first, without_kind};
use super::plan::Planned;
use crate::error::OperatorError;
use crate::operator::{
    OpenContext, Operator, Output, Port, PortSchema, Progress, StateBuffer, StaticTable, exact_origin,
};

/// How many rows run at once: enough to pay for a call, and few enough that what they become fits into caches.
const BATCH_ROWS: usize = 64 * 1024;
/// How many where each row may become many.
const FAN_OUT_ROWS: usize = 16 * 1024;

/// A planned query at work.
pub(super) struct SqlOperator {
    plan: Arc<Planned>,
    inputs: Vec<PortSchema>,
    outputs: Vec<PortSchema>,
    /// The chains of each port.
    ports: Vec<Vec<PortChain>>,
    /// The hash tables of the joins; `None` until it is opened.
    tables: Option<Arc<Tables>>,
    work: Option<Work>,
    pending: VecDeque<Put>,
}

/// A chain and the columns it picks from its port's batches.
struct PortChain {
    chain: usize,
    wanted: SchemaRef,
    /// The schema of the last batch, and where the wanted columns are in it.
    found: Option<(SchemaRef, Vec<usize>)>,
}

/// A batch that is not done with.
struct Work {
    port: Port,
    batch: RowBatch,
    next_row: usize,
    rows_at_once: usize,
}

/// Something to say to the output.
enum Put {
    Emit(RowBatch),
    Reject(RowBatch, String),
}

impl SqlOperator {
    pub(super) fn new(plan: Arc<Planned>) -> Self {
        let port = |(input, schema): (&super::plan::SqlInput, &SchemaRef)| PortSchema {
            name: Arc::clone(&input.relation),
            schema: Arc::clone(schema),
        };
        let inputs = plan.inputs.iter().zip(&plan.input_schemas).map(port).collect();
        let outputs = vec![PortSchema { name: Arc::clone(&plan.operator), schema: Arc::clone(&plan.output_schema) }];
        let chains_of = |relation: &Arc<str>| {
            let chains = plan.chains.iter().enumerate();
            let of_relation = chains.filter_map(|(index, chain)| match &chain.source {
                Source::Relation { name, schema } if name == relation => {
                    Some(PortChain { chain: index, wanted: Arc::clone(schema), found: None })
                }
                _ => None,
            });
            of_relation.collect::<Vec<_>>()
        };
        let ports = plan.inputs.iter().map(|input| chains_of(&input.relation)).collect();
        Self { inputs, outputs, ports, tables: None, work: None, pending: VecDeque::new(), plan }
    }

    fn failed(&self, message: impl Into<String>) -> OperatorError {
        OperatorError::Failed { operator: self.plan.operator.to_string(), message: message.into() }
    }

    fn execution(&self, source: DataFusionError) -> OperatorError {
        OperatorError::Execution { operator: self.plan.operator.to_string(), source: Box::new(source) }
    }

    /// Puts out what is pending and goes on with the work at hand, until the output is full or nothing is left.
    fn drive(&mut self, out: &mut dyn Output) -> Result<Progress, OperatorError> {
        loop {
            while let Some(put) = self.pending.pop_front() {
                if out.is_full() {
                    self.pending.push_front(put);
                    return Ok(Progress::More);
                }
                match put {
                    Put::Emit(batch) => out.emit(0, batch),
                    Put::Reject(batch, reason) => out.reject(batch, &reason),
                }
            }
            let Some(mut work) = self.work.take() else { return Ok(Progress::Done) };
            let rows = work.rows_at_once.min(work.batch.num_rows() - work.next_row);
            if rows == 0 {
                continue;
            }
            let flow = Flow { rows: work.batch.rows.clone(), ops: work.batch.ops.clone() }.slice(work.next_row, rows);
            let (port, origin) = (work.port, work.batch.origin.clone());
            work.next_row += rows;
            self.work = Some(work);
            self.process(port, &flow, origin.as_ref())?;
        }
    }

    /// Runs rows through the chains of their port. A row that fails in one of them is left out of all: those that ran
    /// before it was known run again without it.
    fn process(&mut self, port: Port, flow: &Flow, origin: Option<&Origin>) -> Result<(), OperatorError> {
        let chains = self.ports.get(port).map_or(0, Vec::len);
        let Some(tables) = self.tables.clone() else { return Err(self.failed("it is not open")) };
        let mut failed = BTreeMap::new();
        // What each chain made, and how many rows were left out then.
        let mut made: Vec<Option<(Vec<Flow>, usize)>> = (0..chains).map(|_| None).collect();
        loop {
            let is_done =
                |made: &Option<(Vec<Flow>, usize)>| made.as_ref().is_some_and(|(_, out)| *out == failed.len());
            let Some(index) = made.iter().position(|made| !is_done(made)) else { break };
            let flows = self.run_chain((port, index), flow, &tables, &mut failed).map_err(|e| self.execution(e))?;
            if let Some(made) = made.get_mut(index) {
                *made = Some((flows, failed.len()));
            }
        }
        for made in made.into_iter().flatten().flat_map(|(flows, _)| flows) {
            let rows = output_rows(&made, &self.plan.output_schema).map_err(|e| self.execution(e))?;
            self.pending.push_back(Put::Emit(RowBatch { rows, ops: made.ops, origin: origin.cloned() }));
        }
        let mut failed = failed.into_iter().peekable();
        while let Some((first, reason)) = failed.next() {
            let mut rows = 1;
            while failed.next_if(|(row, why)| *row == first + rows && *why == reason).is_some() {
                rows += 1;
            }
            let Flow { rows, ops } = flow.slice(first, rows);
            let origin = origin.map(|origin| exact_origin(origin, &rows));
            self.pending.push_back(Put::Reject(RowBatch { rows, ops, origin }, reason));
        }
        Ok(())
    }

    /// Runs the rows that have not failed through one chain of their port; those that fail there are added.
    fn run_chain(
        &mut self,
        (port, index): (Port, usize),
        flow: &Flow,
        tables: &Tables,
        failed: &mut BTreeMap<usize, String>,
    ) -> DataFusionResult<Vec<Flow>> {
        let plan = Arc::clone(&self.plan);
        let port_chain = self.ports.get_mut(port).and_then(|chains| chains.get_mut(index));
        let Some(port_chain) = port_chain else { return Ok(Vec::new()) };
        let Some(chain) = plan.chains.get(port_chain.chain) else { return Ok(Vec::new()) };
        // The places of the rows that are left, if not all are.
        let left = (!failed.is_empty())
            .then(|| (0..flow.rows.num_rows()).filter(|row| !failed.contains_key(row)).collect::<Vec<_>>());
        let selected = match &left {
            None => port_chain.select(flow)?,
            Some(_) => {
                let mask: BooleanArray =
                    (0..flow.rows.num_rows()).map(|row| Some(!failed.contains_key(&row))).collect();
                port_chain.select(&flow.filter(&mask, None, flow.rows.schema_ref())?)?
            }
        };
        let mut found = Vec::new();
        narrow(chain, &selected, tables, &mut found)?;
        let mut flows = Vec::with_capacity(found.len());
        for outcome in found {
            match outcome {
                Outcome::Rows(flow) => flows.push(flow),
                Outcome::Failed { row, reason } => {
                    let place = left.as_ref().map_or(Some(row), |left| left.get(row).copied());
                    failed.extend(place.map(|place| (place, reason)));
                }
            }
        }
        Ok(flows)
    }
}

impl PortChain {
    /// The columns that the chain reads. They are looked up by name once a schema.
    fn select(&mut self, flow: &Flow) -> DataFusionResult<Flow> {
        let schema = flow.rows.schema_ref();
        let known = self.found.take().filter(|(of, _)| Arc::ptr_eq(of, schema));
        let (of, indices) = match known {
            Some(known) => known,
            None => (Arc::clone(schema), find_columns(schema, &self.wanted)?),
        };
        let selected = pick_columns(flow, &indices, &self.wanted);
        self.found = Some((of, indices));
        selected
    }
}

/// What became of some rows.
enum Outcome {
    Rows(Flow),
    /// A row of the input, by its place in it.
    Failed {
        row: usize,
        reason: String,
    },
}

/// Runs rows, and halves them where they fail until only the failing ones are left out.
fn narrow(chain: &Chain, flow: &Flow, tables: &Tables, found: &mut Vec<Outcome>) -> DataFusionResult<()> {
    let mut ranges = vec![(0, flow.rows.num_rows())];
    while let Some((offset, rows)) = ranges.pop() {
        let mut out = Vec::new();
        match run(&chain.steps, flow.slice(offset, rows), tables, &mut out) {
            Ok(()) => found.extend(out.into_iter().map(Outcome::Rows)),
            Err(error) if !is_about_rows(&error) => return Err(error),
            Err(error) if rows == 1 => found.push(Outcome::Failed { row: offset, reason: reason(&error) }),
            Err(_) => {
                let half = rows / 2;
                ranges.push((offset + half, rows - half));
                ranges.push((offset, half));
            }
        }
    }
    if found.iter().any(|outcome| matches!(outcome, Outcome::Failed { .. })) { mend(found) } else { Ok(()) }
}

/// Puts the pieces between failing rows together again, so that a few bad rows do not make small batches.
fn mend(found: &mut Vec<Outcome>) -> DataFusionResult<()> {
    let mut pieces = Vec::new();
    let mut failed = Vec::new();
    for outcome in found.drain(..) {
        match outcome {
            Outcome::Rows(flow) => pieces.push(flow),
            outcome => failed.push(outcome),
        }
    }
    if let Some(first) = pieces.first() {
        let schema = first.rows.schema();
        let rows = concat_batches(&schema, pieces.iter().map(|piece| &piece.rows))?;
        let ops: Vec<&dyn Array> = pieces.iter().filter_map(|piece| piece.ops.as_ref()).map(|ops| ops as _).collect();
        let ops = if ops.is_empty() { None } else { concat(&ops)?.as_any().downcast_ref::<Int8Array>().cloned() };
        found.push(Outcome::Rows(Flow { rows, ops }));
    }
    found.append(&mut failed);
    Ok(())
}

/// Whether an error may be the fault of some rows, and not of the plan or the machine.
fn is_about_rows(error: &DataFusionError) -> bool {
    !matches!(
        error.find_root(),
        DataFusionError::Internal(_)
            | DataFusionError::NotImplemented(_)
            | DataFusionError::Plan(_)
            | DataFusionError::ResourcesExhausted(_)
            | DataFusionError::SchemaError(..)
    )
}

/// An error as the reason why a row was rejected.
fn reason(error: &DataFusionError) -> String {
    let message = error.find_root().message();
    let line = without_kind(&message).lines().next().unwrap_or_default();
    lowercase_first(line.trim_end_matches('.'))
}

impl Operator for SqlOperator {
    fn inputs(&self) -> &[PortSchema] {
        &self.inputs
    }

    fn outputs(&self) -> &[PortSchema] {
        &self.outputs
    }

    fn open(&mut self, context: OpenContext) -> Result<(), OperatorError> {
        let plan = Arc::clone(&self.plan);
        let mut built = Tables::new();
        for chain in &plan.chains {
            build_tables(chain, &context.tables, &mut built).map_err(|e| self.execution(e))?;
        }
        self.tables = Some(Arc::new(built));
        Ok(())
    }

    fn on_batch(&mut self, port: Port, batch: RowBatch, out: &mut dyn Output) -> Result<Progress, OperatorError> {
        if self.work.is_some() || !self.pending.is_empty() {
            return Err(self.failed("a batch came before the last one was done"));
        }
        let Some(chains) = self.ports.get(port) else {
            return Err(self.failed(format!("it has no input port {port}")));
        };
        let mut steps = chains.iter().filter_map(|c| self.plan.chains.get(c.chain)).flat_map(|chain| &chain.steps);
        let fans_out = steps.any(|step| matches!(step, Step::Join(_) | Step::Unnest(_)));
        let rows_at_once = if fans_out { FAN_OUT_ROWS } else { BATCH_ROWS };
        self.work = Some(Work { port, batch, next_row: 0, rows_at_once });
        self.drive(out)
    }

    fn resume(&mut self, out: &mut dyn Output) -> Result<Progress, OperatorError> {
        self.drive(out)
    }

    fn on_watermark(&mut self, _: Port, _: Watermark, _: &mut dyn Output) -> Result<Progress, OperatorError> {
        Ok(Progress::Done)
    }

    fn on_timer(&mut self, _: i64, _: &mut dyn Output) -> Result<Progress, OperatorError> {
        Ok(Progress::Done)
    }

    fn next_timer(&self) -> Option<i64> {
        None
    }

    fn on_end(&mut self, _: Port, _: &mut dyn Output) -> Result<Progress, OperatorError> {
        Ok(Progress::Done)
    }

    fn snapshot(&mut self, _: CheckpointEpoch) -> Result<Vec<StateBuffer>, OperatorError> {
        if self.work.is_some() || !self.pending.is_empty() {
            return Err(self.failed("a snapshot was asked for while rows are outstanding"));
        }
        Ok(Vec::new())
    }

    fn restore(&mut self, state: Vec<StateBuffer>) -> Result<(), OperatorError> {
        match state.first() {
            None => Ok(()),
            Some(buffer) => Err(self.failed(format!(
                "it keeps no state, but is given the state of table `{}`: was the pipeline edited? start anew with `--fresh`",
                buffer.table
            ))),
        }
    }
}

/// Builds the hash tables of a chain's joins, those inside their static sides first.
fn build_tables(chain: &Chain, tables: &[StaticTable], built: &mut Tables) -> DataFusionResult<()> {
    for step in &chain.steps {
        let Step::Join(join) = step else { continue };
        let side = &join.build;
        // Chains of a UNION ALL share their joins.
        if built.contains_key(&side.id) {
            continue;
        }
        for nested in &side.chains {
            build_tables(nested, tables, built)?;
        }
        let rows = side.chains.iter().map(|chain| source_rows(&chain.source, tables));
        let rows = rows.collect::<DataFusionResult<Vec<_>>>()?;
        let identity = rows.iter().flatten().flat_map(|rows| rows.columns().iter().cloned()).collect();
        let table = side.shared.get_or_build(identity, || build(side, &rows, built))?;
        built.insert(side.id, table);
    }
    Ok(())
}

fn build(side: &BuildSide, sources: &[Vec<RecordBatch>], built: &Tables) -> DataFusionResult<Built> {
    let mut batches = Vec::new();
    for (chain, rows) in side.chains.iter().zip(sources) {
        for rows in rows {
            let mut out = Vec::new();
            run(&chain.steps, Flow { rows: rows.clone(), ops: None }, built, &mut out)?;
            for flow in out {
                batches.push(batch(&side.schema, flow.rows.columns().to_vec(), flow.rows.num_rows())?);
            }
        }
    }
    Built::new(side, &batches)
}

/// The rows of a static source, with the columns that its chain reads.
fn source_rows(source: &Source, tables: &[StaticTable]) -> DataFusionResult<Vec<RecordBatch>> {
    let (name, wanted) = match source {
        Source::Rows(rows) => return Ok(vec![rows.clone()]),
        Source::Relation { name, schema } => (name, schema),
    };
    let Some(table) = tables.iter().find(|table| table.name == *name) else {
        return exec_err!("the static table `{name}` was not loaded");
    };
    let select = |rows: &RecordBatch| {
        let indices = find_columns(&rows.schema(), wanted)?;
        Ok(pick_columns(&Flow { rows: rows.clone(), ops: None }, &indices, wanted)?.rows)
    };
    table.batches.iter().map(select).collect()
}

/// The rows under the schema of the output, whose nested fields may be marked otherwise than an expression made them.
fn output_rows(flow: &Flow, schema: &SchemaRef) -> DataFusionResult<RecordBatch> {
    let column = |(column, field): (&ArrayRef, &FieldRef)| match column.data_type() == field.data_type() {
        true => Ok(Arc::clone(column)),
        false => cast(column, field.data_type()),
    };
    let columns = flow.rows.columns().iter().zip(schema.fields()).map(column).collect::<Result<Vec<_>, _>>()?;
    batch(schema, columns, flow.rows.num_rows())
}

/// Where the wanted columns are, by their names.
fn find_columns(schema: &SchemaRef, wanted: &SchemaRef) -> DataFusionResult<Vec<usize>> {
    Ok(wanted.fields().iter().map(|field| schema.index_of(field.name())).collect::<Result<_, _>>()?)
}

/// The wanted columns, in the types that the plan was made for.
fn pick_columns(flow: &Flow, indices: &[usize], wanted: &SchemaRef) -> DataFusionResult<Flow> {
    let pick = |(index, field): (&usize, &FieldRef)| {
        let column = flow.rows.column(*index);
        if column.data_type() == field.data_type() { Ok(Arc::clone(column)) } else { cast(column, field.data_type()) }
    };
    let columns = indices.iter().zip(wanted.fields()).map(pick).collect::<Result<Vec<ArrayRef>, _>>()?;
    flow.with_columns(columns, wanted)
}
