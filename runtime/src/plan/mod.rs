//! The plan: a pipeline whose whole graph is typed, from the columns of its sources to those of its sinks.
//!
//! ```text
//!   declared, pinned or sampled columns ─▶ sources ─▶ SQL, in topological order ─▶ sinks
//!                                            ▲                                       │
//!                                            └── only the columns that are needed ◀──┘
//! ```
//!
//! What an operator computes is a [`OperatorBody`], whatever it is written in. An operator has one output that goes by its own
//! name, and may have others: `scored.rejects`.
//!
//! Columns of a source without a declared schema are unknown to `check`, which does no I/O; so is all that follows from
//! them. A run samples first, and plans with nothing unknown.

mod body;
mod builder;
mod fingerprint;
mod sample;

use std::collections::BTreeMap;

use arrow::datatypes::SchemaRef;
use logmill_connectors::registry::Registry;
use logmill_operators::sql;
use logmill_operators::wasm::WasmFunction;
use logmill_pipelines::{Diagnostic, Diagnostics, Graph, OperatorSpec, Pipeline, SinkSpec, SourceSpec, TableRef};

pub use body::{BodyInput, OperatorBody, WasmBody};
use builder::{Builder, at_place};
pub use fingerprint::{PlanFingerprint, SinkPrint, Verdict, compare};
pub(crate) use sample::NoTransaction;
pub use sample::{Sample, sample};

use crate::modules::Modules;
use logmill_wasm::Limits;

/// The schemas of sources and tables that were declared, pinned or sampled, by name.
pub type Schemas = BTreeMap<String, SchemaRef>;

/// A pipeline with its columns.
pub struct Plan {
    /// What was planned.
    pub pipeline: Pipeline,
    /// Its modules.
    pub modules: Modules,
    /// The sources, in the order of the file.
    pub sources: Vec<PlannedSource>,
    /// The static tables, in the order of the file; `None` where the columns are unknown.
    pub tables: Vec<(String, Option<SchemaRef>)>,
    /// The functions that queries may call, in the order of the file.
    pub functions: Vec<PlannedFunction>,
    /// The operators, each after all that it reads.
    pub operators: Vec<PlannedOperator>,
    /// The sinks, in the order of the file.
    pub sinks: Vec<PlannedSink>,
    /// What is probably not as meant.
    pub warnings: Vec<Diagnostic>,
    digests: BTreeMap<String, String>,
}

/// A source with its columns.
pub struct PlannedSource {
    /// Its name.
    pub name: String,
    /// What the file says of it.
    pub spec: SourceSpec,
    /// All its columns, without meta columns; `None` if unknown.
    pub schema: Option<SchemaRef>,
    /// The columns that somebody needs, meta columns included.
    pub columns: Vec<String>,
}

/// A function that queries may call.
pub struct PlannedFunction {
    /// What SQL calls it.
    pub name: String,
    /// The path of its module.
    pub module: String,
    /// What the module says of it.
    pub function: WasmFunction,
    /// What an instance may use.
    pub limits: Limits,
}

/// An operator with what it computes.
pub struct PlannedOperator {
    /// Its name.
    pub name: String,
    /// What it computes, `None` if it reads something whose columns are unknown.
    pub body: Option<OperatorBody>,
    /// The relations it reads: parts, or `part.output`.
    pub inputs: Vec<String>,
}

/// A sink with its columns.
pub struct PlannedSink {
    /// Its name.
    pub name: String,
    /// What it writes.
    pub input: String,
    /// What the file says of it.
    pub spec: SinkSpec,
    /// Its columns; `None` if unknown.
    pub schema: Option<SchemaRef>,
}

/// Types the whole graph. `modules` are those that the pipeline names, loaded.
///
/// # Errors
/// Every mistake that can be found with what is known, at its place in the file.
pub fn plan(
    pipeline: Pipeline,
    registry: &Registry,
    schemas: &Schemas,
    modules: &Modules,
) -> Result<Plan, Diagnostics> {
    let (references, mut found) = references(&pipeline);
    let (graph, more) = Graph::follow(&pipeline, &|name| references.get(name).cloned().unwrap_or_default());
    found.extend(more.items().iter().cloned());
    let mut builder = Builder {
        pipeline: &pipeline,
        registry,
        modules,
        references: &references,
        known: BTreeMap::new(),
        found,
        lost_functions: Default::default(),
    };
    builder.leaves(schemas);
    let (functions, planned_functions) = builder.functions();
    let operators = builder.operators(&graph, &functions);
    let sinks = builder.sinks();
    builder.tests();
    let Builder { known, mut found, .. } = builder;
    if found.has_errors() {
        found.extend(graph.warnings);
        return Err(found);
    }
    let warnings = graph.warnings.into_iter().chain(found.items().iter().cloned()).collect();
    let spec = &pipeline.spec;
    let schema_of = |name: &String| known.get(name).and_then(Option::as_ref).map(|known| known.schema.clone());
    let tables = spec.tables.keys().map(|name| (name.clone(), schema_of(name))).collect();
    let sources = spec.sources.iter().map(|(name, spec)| {
        let schema = schema_of(name);
        let columns = needed_columns(name, &operators, &sinks);
        PlannedSource { name: name.clone(), spec: spec.clone(), schema, columns }
    });
    let sources = sources.collect();
    Ok(Plan {
        functions: planned_functions,
        sources,
        tables,
        operators,
        sinks,
        warnings,
        digests: BTreeMap::new(),
        modules: modules.clone(),
        pipeline,
    })
}

/// The relations that each query names; nothing for a text that is no query, and what is wrong with it.
fn references(pipeline: &Pipeline) -> (BTreeMap<String, Vec<TableRef>>, Diagnostics) {
    let (mut references, mut found) = (BTreeMap::new(), pipeline.diagnostics());
    for (name, operator) in &pipeline.spec.operators {
        let OperatorSpec::Sql(text) = operator else { continue };
        match sql::table_refs(text) {
            Ok(tables) => {
                let tables = tables.into_iter().map(|table| TableRef {
                    name: table.name,
                    line: table.line as usize,
                    column: table.column as usize,
                });
                references.insert(name.clone(), tables.collect());
            }
            Err(errors) => found.extend(errors.iter().map(|error| at_place(pipeline, name, error))),
        }
    }
    (references, found)
}

impl Plan {
    /// Whether an operator remembers something from batch to batch.
    pub fn is_stateful(&self) -> bool {
        self.operators.iter().filter_map(|operator| operator.body.as_ref()).any(OperatorBody::is_stateful)
    }

    /// Notes the digests of the contents of static tables, which are part of what a run computes.
    #[must_use]
    pub fn with_table_digests(mut self, digests: BTreeMap<String, String>) -> Self {
        self.digests = digests;
        self
    }

    /// What a later run compares itself with.
    pub fn fingerprint(&self) -> PlanFingerprint {
        PlanFingerprint::of(self, &self.digests)
    }
}

/// The columns of a source that an operator names; all of them where a sink takes its rows as they are.
fn needed_columns(name: &str, operators: &[PlannedOperator], sinks: &[PlannedSink]) -> Vec<String> {
    let mut columns: Vec<String> = Vec::new();
    for sink in sinks.iter().filter(|sink| sink.input == name) {
        let wanted = sink.schema.iter().flat_map(|schema| schema.fields().iter().map(|field| field.name().clone()));
        wanted.for_each(|column| note(column, &mut columns));
    }
    let inputs = operators.iter().filter_map(|operator| operator.body.as_ref()).flat_map(OperatorBody::inputs);
    for input in inputs.filter(|input| input.relation == name) {
        input.columns.iter().cloned().for_each(|column| note(column, &mut columns));
    }
    columns
}

fn note(column: String, columns: &mut Vec<String>) {
    if !columns.contains(&column) {
        columns.push(column);
    }
}
