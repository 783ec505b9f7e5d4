//! One test at work: rows go through the operators as the engine wires them, and what each puts out is kept.
//!
//! Nothing else is real: no source is opened, no sink written, no checkpoint taken, and the clock stands still.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use arrow::array::RecordBatch;
use logmill_connectors::registry::{ConnectorContext, registry};
use logmill_operators::operator::StaticTable;
use logmill_pipelines::flow::{Origin, RowBatch, SplitId};
use logmill_pipelines::spec::{OnError, SinkSpec, TestRow, TestSpec};
use logmill_pipelines::{Pipeline, Severity};
use serde_json::Value;

use super::diff::{Row, compare};
use super::rows::{Input, as_it_would_come, encode};
use crate::cli::{chain, with_log};
use crate::engine::{EngineError, Exit, FeedId, GraphStart, Rejected, WriterId, open_graph};
use crate::modules::Modules;
use crate::plan::{self, NoTransaction, Plan, PlannedSink, Schemas};

/// A pipeline whose tests can be run.
pub(super) struct Stage<'a> {
    pipeline: &'a Pipeline,
    modules: &'a Modules,
    tables: BTreeMap<String, StaticTable>,
    schemas: Schemas,
}

impl<'a> Stage<'a> {
    /// Loads the static tables, which tests share with runs.
    pub(super) async fn load(pipeline: &'a Pipeline, modules: &'a Modules, base_dir: PathBuf) -> anyhow::Result<Self> {
        let mut stage = Self { pipeline, modules, tables: BTreeMap::new(), schemas: Schemas::new() };
        if pipeline.spec.tables.is_empty() {
            return Ok(stage);
        }
        // Tables are loaded without the log; a scratch one leaves the data dir alone, which may be in use.
        let scratch = tempfile::tempdir().context("could not make a temporary folder")?;
        with_log(scratch.path(), async |log| {
            let context = ConnectorContext {
                log,
                transaction: Arc::new(NoTransaction),
                base_dir,
                deployment: String::new(),
                pipeline: pipeline.spec.pipeline.clone(),
            };
            for (name, spec) in &pipeline.spec.tables {
                let loaded = registry().load_table(spec, &context).await;
                let loaded = loaded.with_context(|| format!("could not load the table `{name}`"))?;
                stage.schemas.insert(name.clone(), loaded.schema.clone());
                let table = StaticTable { name: name.as_str().into(), schema: loaded.schema, batches: loaded.batches };
                stage.tables.insert(name.clone(), table);
            }
            Ok(())
        })
        .await?;
        Ok(stage)
    }

    /// Runs a test. Gives what is wrong, each thing with a line that says where; nothing if it passes.
    pub(super) fn run(&self, test: &TestSpec) -> Vec<String> {
        self.attempt(test).unwrap_or_else(|problems| problems)
    }

    fn attempt(&self, test: &TestSpec) -> Result<Vec<String>, Vec<String>> {
        let one = |problem: String| vec![problem];
        let inputs: Vec<Input<'_>> = self.inputs(test).collect();
        let mut plan = self.plan(&inputs)?;
        let letters = match &self.pipeline.spec.on_error {
            OnError::DeadLetter(topic) => Some(topic.as_str()),
            OnError::Stop => None,
        };
        let is_relation = |name: &str| self.is_relation(name);
        let relations: Vec<&String> = test.expect.keys().filter(|name| is_relation(name)).collect();
        plan.sinks = relations.iter().map(|name| keeper(name)).collect();
        let mut kept = Kept { rows: vec![Vec::new(); relations.len()], rejected: Vec::new() };
        let start = GraphStart { clock: Some(Arc::new(|| 0)), ..GraphStart::default() };
        let mut graph = open_graph(&plan, &self.tables, start).map_err(|error| one(chain(&error.into())))?;
        for input in &inputs {
            let Some(number) = plan.sources.iter().position(|source| source.name == input.name) else { continue };
            let schema = plan.sources.get(number).and_then(|source| source.schema.clone());
            let schema = schema.ok_or_else(|| one(format!("the columns of `{}` are not known", input.name)))?;
            let rows = input.decode(&schema).map_err(|error| one(format!("input {}: {error}", input.name)))?;
            let origin = Origin { source: input.name.into(), split: SplitId::new("0"), offset: 0 };
            let batch = RowBatch { rows, ops: None, origin: Some(origin), lineage: None };
            graph.push(FeedId(number), batch, &mut kept).map_err(|error| one(chain(&error.into())))?;
        }
        graph.end(&mut kept).map_err(|error| one(chain(&error.into())))?;
        let mut problems = Vec::new();
        for (name, batches) in relations.into_iter().zip(&kept.rows) {
            let expected = test.expect.get(name).map_or(&[][..], Vec::as_slice);
            problems.extend(difference(name, expected, batches));
        }
        problems.extend(rejections(&plan, &kept.rejected, letters, test));
        Ok(problems)
    }

    fn inputs<'b>(&self, test: &'b TestSpec) -> impl Iterator<Item = Input<'b>>
    where
        'a: 'b,
    {
        let sources = &self.pipeline.spec.sources;
        test.input.iter().filter_map(move |(name, rows)| {
            let spec = sources.get(name)?;
            Some(Input { name, spec, has_meta: registry().has_meta(spec), rows })
        })
    }

    /// The plan with the columns that the sources declare, or else those of the test's rows.
    fn plan(&self, inputs: &[Input<'_>]) -> Result<Plan, Vec<String>> {
        let mut schemas = self.schemas.clone();
        for (name, spec) in &self.pipeline.spec.sources {
            if registry().declared_schema(spec).is_some() {
                continue;
            }
            let rows = inputs.iter().find(|input| input.name == name && !input.rows.is_empty());
            let Some(rows) = rows else {
                return Err(vec![format!(
                    "the columns of `{name}` are not known: declare them with `schema:`, or give the test rows of it"
                )]);
            };
            let schema = rows.infer().map_err(|error| vec![format!("input {name}: {error}")])?;
            schemas.insert(name.clone(), schema);
        }
        let planned = plan::plan(self.pipeline.clone(), &registry(), &schemas, self.modules);
        planned.map_err(|found| {
            let errors = found.items().iter().filter(|item| item.severity == Severity::Error);
            errors
                .map(|error| match &error.hint {
                    Some(hint) => format!("{}; {hint}", error.message),
                    None => error.message.clone(),
                })
                .collect()
        })
    }

    /// Whether a name is that of a source or of an operator's output.
    fn is_relation(&self, name: &str) -> bool {
        let part = name.split_once('.').map_or(name, |(part, _)| part);
        self.pipeline.spec.sources.contains_key(part) || self.pipeline.spec.operators.contains_key(part)
    }
}

/// What stands where the sinks would, so that the engine's wiring leads to it.
fn keeper(relation: &str) -> PlannedSink {
    let spec = SinkSpec { r#type: "blackhole".into(), input: relation.into(), format: None, rest: Default::default() };
    PlannedSink { name: relation.into(), input: relation.into(), spec, schema: None }
}

/// What left the operators.
struct Kept {
    rows: Vec<Vec<RecordBatch>>,
    rejected: Vec<Rejected>,
}

impl Exit for Kept {
    fn deliver(&mut self, writer: WriterId, batch: RowBatch) -> Result<(), EngineError> {
        if let Some(rows) = self.rows.get_mut(writer.0) {
            rows.push(batch.rows);
        }
        Ok(())
    }

    fn reject(&mut self, rejected: Rejected) -> Result<(), EngineError> {
        self.rejected.push(rejected);
        Ok(())
    }
}

/// Where the rows of a relation are not those expected.
fn difference(name: &str, expected: &[TestRow], batches: &[RecordBatch]) -> Vec<String> {
    let mut got: Vec<Row> = Vec::new();
    for batch in batches {
        match encode(batch) {
            Ok(rows) => got.extend(rows),
            Err(error) => return vec![format!("{name}: {error}")],
        }
    }
    let (mut rows, mut problems) = (Vec::with_capacity(expected.len()), Vec::new());
    for (number, row) in expected.iter().enumerate() {
        // Without a row there are no types to hold it to, and nothing that it could equal.
        let row = batches.first().map_or_else(|| Ok(row.clone()), |batch| as_it_would_come(row, batch.schema_ref()));
        match row {
            Ok(row) => rows.push(row),
            Err(error) => problems.push(format!("{name}: expected row {}: {error}", number + 1)),
        }
    }
    if problems.is_empty() {
        problems.extend(compare(&rows, &got).map(|text| format!("{name}:\n{}", text.trim_end_matches('\n'))));
    }
    problems
}

/// What is wrong with the rows that operators failed on. Those of a pipeline with a dead-letter topic can be expected
/// under its name, with the operator and its reason beside their columns.
fn rejections(plan: &Plan, rejected: &[Rejected], letters: Option<&str>, test: &TestSpec) -> Vec<String> {
    let (mut rows, mut problems) = (Vec::new(), Vec::new());
    for Rejected { operator, batch, reason } in rejected {
        let operator = plan.operators.get(*operator).map_or("", |operator| operator.name.as_str());
        match encode(&batch.rows) {
            Ok(failed) => rows.extend(failed.into_iter().map(|row| (operator, row, reason))),
            Err(error) => problems.push(format!("{operator}: {error}")),
        }
    }
    match letters.and_then(|topic| Some((topic, test.expect.get(topic)?))) {
        Some((topic, expected)) => {
            let rows = rows.into_iter().map(|(operator, mut row, reason)| {
                row.insert("_operator".into(), Value::String(operator.into()));
                row.insert("_error".into(), Value::String(reason.clone()));
                row
            });
            let difference = compare(expected, &rows.collect::<Vec<_>>());
            problems.extend(difference.map(|text| format!("{topic}:\n{}", text.trim_end_matches('\n'))));
        }
        None => problems.extend(rows.into_iter().map(|(operator, row, reason)| {
            format!("operator `{operator}` failed on a row: {reason}\n      {}", Value::Object(row))
        })),
    }
    problems
}
