//! Makes a plan: from the columns of the leaves through the operators, in topological order, to the sinks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use logmill_connectors::format::meta_field;
use logmill_connectors::registry::Registry;
use logmill_operators::sql::{self, FunctionNameError, Functions, Relation, RelationKind, SqlError};
use logmill_operators::wasm::{self, PlanError, WasmRequest};
use logmill_pipelines::{
    Diagnostic, Diagnostics, FunctionSpec, Graph, GraphNode, NodeKind, OperatorSpec, Pipeline, Span, TableRef,
    WasmSpec, nearest, relation_parts,
};
use serde_json::Value;

use super::body::{OperatorBody, WasmBody};
use super::{PlannedFunction, PlannedOperator, PlannedSink, Schemas};
use crate::guest_log::guest_log;
use crate::modules::{self, Modules};

/// What is known so far while a plan is made.
pub(super) struct Builder<'a> {
    pub(super) pipeline: &'a Pipeline,
    pub(super) registry: &'a Registry,
    pub(super) modules: &'a Modules,
    /// Where each query names what it reads; nothing for a text that is no query.
    pub(super) references: &'a BTreeMap<String, Vec<TableRef>>,
    /// Each relation so far; `None` if its columns are unknown.
    pub(super) known: BTreeMap<String, Option<Known>>,
    pub(super) found: Diagnostics,
    /// Functions that cannot be called, for reasons that were said.
    pub(super) lost_functions: BTreeSet<String>,
}

/// What is known of a relation.
#[derive(Clone)]
pub(super) struct Known {
    pub(super) schema: SchemaRef,
    /// Whether the meta columns may be named as well.
    has_meta: bool,
}

impl Known {
    /// The columns, and those meta columns that are named.
    fn with_meta(&self, names: Vec<String>) -> SchemaRef {
        let missing = |name: &String| self.has_meta && self.schema.column_with_name(name).is_none();
        let more: Vec<FieldRef> =
            names.iter().filter(|name| missing(name)).filter_map(|name| Some(Arc::new(meta_field(name)?))).collect();
        match more.is_empty() {
            true => self.schema.clone(),
            false => Arc::new(Schema::new(self.schema.fields().iter().cloned().chain(more).collect::<Vec<_>>())),
        }
    }
}

impl Builder<'_> {
    pub(super) fn leaves(&mut self, schemas: &Schemas) {
        for (name, source) in &self.pipeline.spec.sources {
            let schema = schemas.get(name).cloned().or_else(|| self.registry.declared_schema(source));
            let has_meta = self.registry.has_meta(source);
            self.known.insert(name.clone(), schema.map(|schema| Known { schema, has_meta }));
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
            self.known.insert(name.clone(), schema.map(|schema| Known { schema, has_meta: false }));
            if let Err(error) = self.registry.check_table(table) {
                self.found.push(self.pipeline.error_at(&["tables", name], &error.to_string()));
            }
        }
    }

    /// The functions that queries may call.
    pub(super) fn functions(&mut self) -> (Functions, Vec<PlannedFunction>) {
        let (mut functions, mut planned) = (Functions::default(), Vec::new());
        self.lost_functions.clone_from(self.pipeline.broken_functions());
        for (name, spec) in &self.pipeline.spec.functions {
            match self.function(name, spec, &mut functions) {
                Ok(function) => planned.push(function),
                Err(diagnostic) => {
                    self.found.push(diagnostic);
                    self.lost_functions.insert(name.clone());
                }
            }
        }
        (functions, planned)
    }

    fn function(
        &self,
        name: &str,
        spec: &FunctionSpec,
        functions: &mut Functions,
    ) -> Result<PlannedFunction, Diagnostic> {
        let at = |key: &str, message: &str| self.pipeline.error_at(&["functions", name, key], message);
        let guest = self.modules.get(&spec.wasm).map_err(|why| at("wasm", &why))?;
        let limits = modules::limits(spec.memory, spec.deadline);
        let log = guest_log(&self.pipeline.spec.pipeline, name);
        let found = wasm::functions(guest, spec.config.as_ref(), limits, log);
        let found = found.map_err(|error| self.refused(&["functions", name], "wasm", spec.config.as_ref(), &error))?;
        let wanted = spec.function.as_deref().unwrap_or(name);
        let Some(function) = found.iter().find(|function| function.name() == wanted) else {
            let names: Vec<&str> = found.iter().map(|function| function.name()).collect();
            let key = if spec.function.is_some() { "function" } else { "wasm" };
            let hint = match (nearest(wanted, names.iter().copied()), spec.function.is_some()) {
                (Some(near), true) => format!("did you mean `{near}`?"),
                _ => format!("say which with `function:`; there are {}", quoted(&names)),
            };
            return Err(at(key, &format!("the module has no function `{wanted}`")).with_hint(hint));
        };
        let inserted = functions.insert(function.udf(name), &function.fingerprint());
        let unfit = |error: FunctionNameError| {
            Diagnostic::error(self.pipeline.spans.key(&["functions", name]), error.to_string())
        };
        inserted.map_err(unfit)?;
        Ok(PlannedFunction { name: name.to_owned(), module: spec.wasm.clone(), function: function.clone(), limits })
    }

    /// A module that does not fit, at its place: that of its configuration if the module speaks of it.
    fn refused(&self, path: &[&str], key: &str, config: Option<&Value>, error: &PlanError) -> Diagnostic {
        let hint = error.hint.as_ref().map(|hint| self.pipeline.redact(hint));
        let (key, hint) = match (wasm::is_about_config(error), config) {
            (true, Some(_)) => ("config", hint),
            (true, None) => (key, hint.or_else(|| Some("it is configured with `config:`".to_owned()))),
            (false, _) => (key, hint),
        };
        self.pipeline.error_at(&[path, &[key]].concat(), &error.message).with_hint_opt(hint)
    }

    pub(super) fn operators(&mut self, graph: &Graph, functions: &Functions) -> Vec<PlannedOperator> {
        let mut planned = Vec::new();
        for (name, node) in graph.nodes.iter().filter(|(_, node)| node.kind == NodeKind::Operator) {
            // What a mistake reaches would only repeat it; everything else is typed all the same.
            let sound = !graph.incomplete.contains(name);
            let body = match self.pipeline.spec.operators.get(name) {
                None => continue,
                Some(OperatorSpec::Sql(text)) => self.query(name, text, node, functions, sound),
                Some(OperatorSpec::Wasm(wasm)) => self.module(name, wasm, node, sound),
            };
            match &body {
                None => drop(self.known.insert(name.clone(), None)),
                Some(body) => {
                    let known = |schema| Some(Known { schema, has_meta: body.has_meta() });
                    let outputs = body.outputs(name).into_iter();
                    self.known.extend(outputs.map(|output| (output.name.to_string(), known(output.schema))));
                }
            }
            planned.push(PlannedOperator { name: name.clone(), body, inputs: node.relations.clone() });
        }
        planned
    }

    fn query(
        &mut self,
        name: &str,
        text: &str,
        node: &GraphNode,
        functions: &Functions,
        sound: bool,
    ) -> Option<OperatorBody> {
        let path = ["operators", name, "sql"];
        let mut complete = true;
        for reference in self.references.get(name)? {
            let span = self.pipeline.spans.inside_block(&path, reference.line, reference.column);
            complete &= self.has_output(&reference.name, span);
        }
        let relations = self.relations(&node.relations).filter(|_| complete && sound)?;
        match sql::plan(name, text, &relations, functions) {
            Ok(sql) => Some(OperatorBody::Sql(sql)),
            Err(errors) => {
                // Why a function is not there was said where it is declared.
                let lost = |error: &&SqlError| self.lost_functions.iter().any(|name| error.message.contains(name));
                let new = errors.iter().filter(|error| !lost(error));
                self.found.extend(new.map(|error| at_place(self.pipeline, name, error)).collect::<Vec<_>>());
                None
            }
        }
    }

    fn module(&mut self, name: &str, wasm: &WasmSpec, node: &GraphNode, sound: bool) -> Option<OperatorBody> {
        let path = ["operators", name, "wasm", "module"];
        let guest = match self.modules.get(&wasm.module) {
            Ok(guest) => guest,
            Err(why) => {
                self.found.push(self.pipeline.error_at(&path, &why));
                return None;
            }
        };
        let span = self.pipeline.spans.of(&["operators", name, "wasm", "input"]);
        let relations = self.relations(&node.relations).filter(|_| self.has_output(&wasm.input, span) && sound)?;
        let limits = modules::limits(wasm.memory, wasm.deadline);
        let planned = wasm::plan(WasmRequest {
            operator: name,
            guest,
            input: relations.first()?,
            config: wasm.config.as_ref(),
            limits,
            log: guest_log(&self.pipeline.spec.pipeline, name),
        });
        match planned {
            Ok(plan) => Some(OperatorBody::Wasm(WasmBody { input: wasm.input.clone(), plan, limits })),
            Err(error) => {
                let (path, config) = (["operators", name, "wasm"], wasm.config.as_ref());
                self.found.push(self.refused(&path, "module", config, &error));
                None
            }
        }
    }

    /// Says so if a module is known to have no such output; returns whether it may have one.
    fn has_output(&mut self, relation: &str, span: Span) -> bool {
        let (part, Some(output)) = relation_parts(relation) else { return true };
        let is_module = matches!(self.pipeline.spec.operators.get(part), Some(OperatorSpec::Wasm(_)));
        let is_typed = matches!(self.known.get(part), Some(Some(_)));
        if !is_module || !is_typed || self.known.contains_key(relation) {
            return true;
        }
        let of_part = self.known.keys().filter(|known| relation_parts(known).0 == part);
        let others: Vec<&str> = of_part.map(String::as_str).collect();
        let hint = match nearest(relation, others.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None if others.len() == 1 => format!("it has one output: `{part}`"),
            None => format!("there are {}", quoted(&others)),
        };
        let message = format!("the operator `{part}` has no output `{output}`");
        self.found.push(Diagnostic::error(span, message).with_hint(hint));
        false
    }

    /// What an operator reads; `None` if the columns of one are unknown.
    fn relations(&self, inputs: &[String]) -> Option<Vec<Relation>> {
        let spec = &self.pipeline.spec;
        let relation = |name: &String| {
            let kind = if spec.tables.contains_key(name) { RelationKind::Table } else { RelationKind::Stream };
            let Known { schema, has_meta } = self.known.get(name)?.clone()?;
            Some(Relation { name: Arc::from(name.as_str()), schema, kind, has_meta })
        };
        inputs.iter().map(relation).collect()
    }

    pub(super) fn sinks(&mut self) -> Vec<PlannedSink> {
        let mut planned = Vec::new();
        for (name, sink) in &self.pipeline.spec.sinks {
            let span = self.pipeline.spans.of(&["sinks", name, "input"]);
            self.has_output(&sink.input, span);
            let known = self.known.get(&sink.input).and_then(Option::as_ref);
            let schema = known.map(|known| known.with_meta(self.registry.meta_columns(sink)));
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

    /// What tests expect of an output that is not there would never come, and so be fulfilled by nothing.
    pub(super) fn tests(&mut self) {
        for (index, test) in self.pipeline.spec.tests.iter().enumerate() {
            for name in test.expect.keys() {
                let span = self.pipeline.spans.key(&["tests", &index.to_string(), "expect", name]);
                self.has_output(name, span);
            }
        }
    }
}

/// Names in backquotes, with commas.
fn quoted(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// A SQL error at its place in the pipeline's file.
pub(super) fn at_place(pipeline: &Pipeline, operator: &str, error: &SqlError) -> Diagnostic {
    let from = (error.line as usize, error.column as usize);
    let until = (from.0, from.1 + error.length as usize);
    let span = pipeline.spans.inside_range(&["operators", operator, "sql"], from, until);
    Diagnostic::error(span, pipeline.redact(&error.message)).with_hint_opt(error.hint.clone())
}
