//! A worker's instance of a planned query.
//!
//! A batch runs through its port's chains as a whole. Rows that fail are rejected with their reasons, all others flow
//! on, in their order. An input row is one unit: if one of the rows it is joined or unnested into fails, or one of the
//! branches of a UNION ALL that it goes through, none of them comes out, and it is rejected once.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, BooleanBufferBuilder, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{FieldRef, SchemaRef};
use datafusion::common::{DataFusionError, Result as DataFusionResult, exec_datafusion_err, exec_err};
use logmill_pipelines::flow::{CheckpointEpoch, RowBatch, Watermark};

use super::chain::{CHUNK_ROWS, Chain, Flow, Outcome, Source, Step, Tables, batch as with_schema, run};
use super::evaluation::Evaluation;
use super::join::{BuildSide, Built};
use super::narrow::{Pace, narrow};
use super::plan::Planned;
use crate::error::OperatorError;
use crate::operator::{
    OpenContext, Operator, Output, Port, PortSchema, Progress, StateBuffer, StaticTable, exact_origin,
};
use crate::panics::catch;

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
    pace: Pace,
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
                    Some(PortChain { chain: index, wanted: Arc::clone(schema), found: None, pace: Pace::of(chain) })
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
            let (port, piece) = (work.port, work.batch.slice(work.next_row, rows));
            work.next_row += rows;
            self.work = Some(work);
            self.process(port, &piece)?;
        }
    }

    /// Runs rows through the chains of their port. What comes of a row that fails in one of them is left out of all.
    fn process(&mut self, port: Port, batch: &RowBatch) -> Result<(), OperatorError> {
        let Some(tables) = self.tables.clone() else { return Err(self.failed("it is not open")) };
        let plan = Arc::clone(&self.plan);
        let flow = Flow::of_input(batch.rows.clone(), batch.ops.clone());
        let (mut flows, mut failed) = (Vec::new(), BTreeMap::new());
        for port_chain in self.ports.get_mut(port).into_iter().flatten() {
            let Some(chain) = plan.chains.get(port_chain.chain) else { continue };
            let selected = port_chain.select(&flow).map_err(|e| execution(&plan, e))?;
            let narrowed = narrow(chain, &selected, &tables, &mut port_chain.pace);
            flows.extend(narrowed.flows);
            for (row, reason) in narrowed.failed {
                failed.entry(row).or_insert(reason);
            }
        }
        for flow in flows {
            let flow = without(&flow, &failed).map_err(|e| execution(&plan, e))?;
            self.pending.extend(put(&plan, batch, flow)?);
        }
        self.reject(batch, failed);
        Ok(())
    }

    /// Puts the rows that failed aside: neighbours for the same reason at once.
    fn reject(&mut self, batch: &RowBatch, failed: BTreeMap<usize, String>) {
        let mut failed = failed.into_iter().peekable();
        while let Some((first, reason)) = failed.next() {
            let mut rows = 1;
            while failed.next_if(|(row, why)| *row == first + rows && *why == reason).is_some() {
                rows += 1;
            }
            let failed = batch.slice(first, rows);
            let origin = failed.origin.as_ref().map(|origin| exact_origin(origin, &failed.rows));
            self.pending.push_back(Put::Reject(RowBatch { origin, ..failed }, reason));
        }
    }
}

/// What comes of the rows that did not fail.
fn without(flow: &Flow, failed: &BTreeMap<usize, String>) -> DataFusionResult<Flow> {
    if failed.is_empty() {
        return Ok(flow.clone());
    }
    let rows = flow.rows.num_rows();
    let mut passing = BooleanBufferBuilder::new(rows);
    match &flow.input_rows {
        None => {
            passing.append_n(rows, true);
            failed.keys().filter(|row| **row < rows).for_each(|row| passing.set_bit(*row, false));
        }
        Some(input_rows) => {
            // A table by row number, as any number of rows may have failed.
            let last = failed.last_key_value().map_or(0, |(row, _)| *row);
            let mut has_failed = vec![false; last + 1];
            failed.keys().for_each(|row| has_failed[*row] = true);
            let passes = |row: &u32| !has_failed.get(*row as usize).copied().unwrap_or(false);
            input_rows.values().iter().for_each(|row| passing.append(passes(row)));
        }
    }
    let mask = BooleanArray::new(passing.finish(), None);
    if mask.has_false() { flow.filter(&mask, None, flow.rows.schema_ref()) } else { Ok(flow.clone()) }
}

/// Rows that came of a batch, to be put out.
fn put(plan: &Planned, of: &RowBatch, flow: Flow) -> Result<Option<Put>, OperatorError> {
    if flow.rows.num_rows() == 0 {
        return Ok(None);
    }
    let rows = output_rows(&flow, &plan.output_schema).map_err(|e| execution(plan, e))?;
    let lineage = of.lineage.as_ref().map(|lineage| match &flow.input_rows {
        Some(input_rows) => lineage.take(input_rows),
        None => lineage.clone(),
    });
    Ok(Some(Put::Emit(RowBatch { rows, ops: flow.ops, origin: of.origin.clone(), lineage })))
}

fn execution(plan: &Planned, source: DataFusionError) -> OperatorError {
    OperatorError::Execution { operator: plan.operator.to_string(), source: Box::new(source) }
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
            build_tables(chain, &context.tables, &mut built).map_err(|e| execution(&self.plan, e))?;
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
        let most = if fans_out { FAN_OUT_ROWS } else { BATCH_ROWS };
        let rows_at_once = chains.iter().map(|chain| chain.pace.rows_at_once(most)).min().unwrap_or(most);
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
                "it keeps no state, but is given the state of table `{}`: undo the edit of the pipeline, or give the edited one another name",
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
        let build = || catch(|| build(side, &rows, built)).map_err(|panic| exec_datafusion_err!("{panic}"))?;
        let table = side.shared.get_or_build(identity, build)?;
        built.insert(side.id, table);
    }
    Ok(())
}

fn build(side: &BuildSide, sources: &[Vec<RecordBatch>], built: &Tables) -> DataFusionResult<Built> {
    let mut batches = Vec::new();
    for (chain, rows) in side.chains.iter().zip(sources) {
        for rows in rows {
            let mut out = Outcome::unbounded();
            run(&chain.steps, Flow::of_input(rows.clone(), None), built, &Evaluation::fast(CHUNK_ROWS), &mut out)?;
            for flow in out.flows {
                batches.push(with_schema(&side.schema, flow.rows.columns().to_vec(), flow.rows.num_rows())?);
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
        Ok(pick_columns(&Flow::of_input(rows.clone(), None), &indices, wanted)?.rows)
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
    with_schema(schema, columns, flow.rows.num_rows())
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
