//! The plan: a pipeline whose whole graph is typed, from the columns of its sources to those of its sinks.
//!
//! ```text
//!   declared, pinned or sampled columns ─▶ sources ─▶ SQL, in topological order ─▶ sinks
//!                                            ▲                                       │
//!                                            └── only the columns that are needed ◀──┘
//! ```
//!
//! Columns of a source without a declared schema are unknown to `check`, which does no I/O; so is all that follows from
//! them. A run samples first, and plans with nothing unknown.

mod fingerprint;
mod sample;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use logmill_connectors::registry::Registry;
use logmill_operators::sql::{self, Functions, Relation, RelationKind, SqlError, SqlPlan};
use logmill_pipelines::{
    Diagnostic, Diagnostics, Graph, NodeKind, OperatorSpec, Pipeline, SinkSpec, SourceSpec, TableRef,
};

pub use fingerprint::{PlanFingerprint, Verdict, compare};
pub(crate) use sample::NoTransaction;
pub use sample::{Sample, sample};

/// The schemas of sources and tables that were declared, pinned or sampled, by name.
pub type Schemas = BTreeMap<String, SchemaRef>;

/// A pipeline with its columns.
pub struct Plan {
    /// What was planned.
    pub pipeline: Pipeline,
    /// The sources, in the order of the file.
    pub sources: Vec<PlannedSource>,
    /// The static tables, in the order of the file; `None` where the columns are unknown.
    pub tables: Vec<(String, Option<SchemaRef>)>,
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

/// An operator with its query.
pub struct PlannedOperator {
    /// Its name.
    pub name: String,
    /// The query, `None` if it reads something whose columns are unknown.
    pub sql: Option<SqlPlan>,
    /// What it reads.
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

/// Types the whole graph.
///
/// # Errors
/// Every mistake that can be found with what is known, at its place in the file.
pub fn plan(pipeline: Pipeline, registry: &Registry, schemas: &Schemas) -> Result<Plan, Diagnostics> {
    let mut found = pipeline.diagnostics();
    let mut references: BTreeMap<String, Vec<TableRef>> = BTreeMap::new();
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
            Err(errors) => found.extend(errors.iter().map(|error| at_place(&pipeline, name, error))),
        }
    }
    let (graph, more) = Graph::follow(&pipeline, &|name| references.get(name).cloned().unwrap_or_default());
    found.extend(more.items().iter().cloned());
    let mut builder = Builder { pipeline: &pipeline, registry, known: BTreeMap::new(), found };
    builder.leaves(schemas);
    // What a mistake reaches would only repeat it; everything else is typed all the same.
    let operators = builder.operators(&graph, |name| references.contains_key(name) && !graph.incomplete.contains(name));
    let sinks = builder.sinks();
    let Builder { known, mut found, .. } = builder;
    if found.has_errors() {
        found.extend(graph.warnings);
        return Err(found);
    }
    let warnings = graph.warnings.into_iter().chain(found.items().iter().cloned()).collect();
    let spec = &pipeline.spec;
    let schema_of = |name: &String| known.get(name).and_then(Clone::clone);
    let tables = spec.tables.keys().map(|name| (name.clone(), schema_of(name))).collect();
    let sources = spec.sources.iter().map(|(name, spec)| {
        let schema = schema_of(name);
        let columns = needed_columns(name, schema.as_ref(), &operators, &sinks);
        PlannedSource { name: name.clone(), spec: spec.clone(), schema, columns }
    });
    let sources = sources.collect();
    Ok(Plan { sources, tables, operators, sinks, warnings, digests: BTreeMap::new(), pipeline })
}

impl Plan {
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

struct Builder<'a> {
    pipeline: &'a Pipeline,
    registry: &'a Registry,
    /// The columns of each relation so far; `None` if unknown.
    known: BTreeMap<String, Option<SchemaRef>>,
    found: Diagnostics,
}

impl Builder<'_> {
    fn leaves(&mut self, schemas: &Schemas) {
        for (name, source) in &self.pipeline.spec.sources {
            let schema = schemas.get(name).cloned().or_else(|| self.registry.declared_schema(source));
            self.known.insert(name.clone(), schema);
            if source.event_time.is_some() {
                let span = self.pipeline.spans.key(&["sources", name, "event_time"]);
                let message = "event time has no effect yet: nothing that runs today depends on it";
                self.found.push(Diagnostic::warning(span, message));
            }
            if let Err(error) = self.registry.check_source(source) {
                self.found.push(self.pipeline.error_at(&["sources", name], &error.to_string()));
            }
        }
        for (name, table) in &self.pipeline.spec.tables {
            let schema = schemas.get(name).cloned().or_else(|| self.registry.declared_table_schema(table));
            self.known.insert(name.clone(), schema);
            if let Err(error) = self.registry.check_table(table) {
                self.found.push(self.pipeline.error_at(&["tables", name], &error.to_string()));
            }
        }
    }

    fn operators(&mut self, graph: &Graph, sound: impl Fn(&str) -> bool) -> Vec<PlannedOperator> {
        let mut planned = Vec::new();
        for (name, node) in &graph.nodes {
            let (NodeKind::Operator, Some(OperatorSpec::Sql(text))) =
                (node.kind, self.pipeline.spec.operators.get(name))
            else {
                continue;
            };
            let relations = self.relations(&node.inputs).filter(|_| sound(name));
            let sql = relations.and_then(|relations| match sql::plan(name, text, &relations, &Functions::default()) {
                Ok(sql) => Some(sql),
                Err(errors) => {
                    self.found.extend(errors.iter().map(|error| at_place(self.pipeline, name, error)));
                    None
                }
            });
            self.known.insert(name.clone(), sql.as_ref().map(SqlPlan::output_schema));
            planned.push(PlannedOperator { name: name.clone(), sql, inputs: node.inputs.clone() });
        }
        planned
    }

    /// What an operator reads; `None` if the columns of one are unknown.
    fn relations(&self, inputs: &[String]) -> Option<Vec<Relation>> {
        let spec = &self.pipeline.spec;
        let relation = |name: &String| {
            let kind = if spec.tables.contains_key(name) { RelationKind::Table } else { RelationKind::Stream };
            let schema = self.known.get(name)?.clone()?;
            let has_meta = spec.sources.get(name).is_some_and(|source| self.registry.has_meta(source));
            Some(Relation { name: Arc::from(name.as_str()), schema, kind, has_meta })
        };
        inputs.iter().map(relation).collect()
    }

    fn sinks(&mut self) -> Vec<PlannedSink> {
        let mut planned = Vec::new();
        for (name, sink) in &self.pipeline.spec.sinks {
            let schema = self.known.get(&sink.input).and_then(Clone::clone);
            for problem in self.registry.check_sink(sink, schema.as_ref()) {
                let keys = problem.key.split('.').filter(|key| !key.is_empty());
                let path: Vec<&str> = ["sinks", name].into_iter().chain(keys).collect();
                self.found.push(self.pipeline.error_at(&path, &problem.message).with_hint_opt(problem.hint));
            }
            let spec = sink.clone();
            planned.push(PlannedSink { name: name.clone(), input: sink.input.clone(), spec, schema });
        }
        planned
    }
}

/// The columns of a source that an operator names; all of them where a sink takes its rows as they are.
fn needed_columns(
    name: &str,
    schema: Option<&SchemaRef>,
    operators: &[PlannedOperator],
    sinks: &[PlannedSink],
) -> Vec<String> {
    let all = || schema.iter().flat_map(|schema| schema.fields().iter().map(|field| field.name().clone())).collect();
    let mut columns: Vec<String> = match sinks.iter().any(|sink| sink.input == name) {
        true => all(),
        false => Vec::new(),
    };
    let queries = operators.iter().filter_map(|operator| operator.sql.as_ref());
    for input in queries.flat_map(SqlPlan::inputs).filter(|input| input.relation.as_ref() == name) {
        for column in &input.columns {
            if !columns.contains(column) {
                columns.push(column.clone());
            }
        }
    }
    columns
}

/// A SQL error at its place in the pipeline's file.
fn at_place(pipeline: &Pipeline, operator: &str, error: &SqlError) -> Diagnostic {
    let from = (error.line as usize, error.column as usize);
    let until = (from.0, from.1 + error.length as usize);
    let span = pipeline.spans.inside_range(&["operators", operator, "sql"], from, until);
    Diagnostic::error(span, pipeline.redact(&error.message)).with_hint_opt(error.hint.clone())
}
