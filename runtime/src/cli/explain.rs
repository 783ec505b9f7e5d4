//! `logmill explain`: a pipeline's plan, with the columns that flow.

use std::fmt::Write;
use std::path::PathBuf;

use arrow::datatypes::{Field, SchemaRef};
use logmill_operators::operator::PortSchema;
use logmill_pipelines::flow::STATE_SHARDS;
use logmill_pipelines::{ByteSize, ColumnType, DurationSpec, OperatorSpec};

use super::address::Said;
use super::check::examine;
use super::connect::connect;
use super::{print, runtime, told};
use crate::modules;
use logmill_wasm::Limits;

use crate::plan::{OperatorBody, Plan, PlannedOperator, WasmBody};

/// Show a pipeline's plan, with the columns that flow.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The pipeline, or `-` for stdin.
    path: PathBuf,
    /// Look at the data of sources and tables for the columns that are not declared.
    #[arg(long)]
    connect: bool,
    /// Print the plan as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn execute(arguments: &Arguments, said: &Said) -> anyhow::Result<()> {
    let data_dir = said.pipeline_data_dir("explain", &arguments.path)?;
    let (plan, found, inferred) = match arguments.connect {
        true => {
            let connected = runtime()?.block_on(connect(&arguments.path, &data_dir))?;
            (connected.plan, connected.found, connected.inferred)
        }
        false => {
            let (plan, found) = examine(&arguments.path, modules::cache_dir(&data_dir).as_deref())?;
            (plan, found, None)
        }
    };
    let Some(plan) = plan else { return Err(told(&found)) };
    match arguments.json {
        true => print(&format!("{}\n", serde_json::to_string_pretty(&json(&plan))?)),
        false => print(&format!("{}{}", text(&plan), inferred.map(|yaml| format!("\n{yaml}")).unwrap_or_default())),
    }
}

/// The columns as `schema:` writes them.
pub(super) fn columns(schema: Option<&SchemaRef>) -> Vec<(String, String)> {
    let fields = schema.into_iter().flat_map(|schema| schema.fields().iter());
    fields.map(|field| (field.name().clone(), kind(field))).collect()
}

/// A column's type as `schema:` writes it.
fn kind(field: &Field) -> String {
    match ColumnType::from_field(field) {
        Ok(kind) => kind.to_string(),
        Err(_) => field.data_type().to_string(),
    }
}

fn text(plan: &Plan) -> String {
    let mut out = format!("pipeline {}\n", plan.pipeline.spec.pipeline);
    let listed = |schema: Option<&SchemaRef>| match schema {
        None => {
            "columns unknown until a sample is read; declare them with `schema:`, or look with --connect".to_owned()
        }
        Some(_) => columns(schema).iter().map(|(name, kind)| format!("{name} {kind}")).collect::<Vec<_>>().join(", "),
    };
    for source in &plan.sources {
        let through = source.spec.through.as_ref().map(|topic| format!(", through topic {}", topic.as_str()));
        let _ = writeln!(out, "\nsource {} ({}{})", source.name, source.spec.r#type, through.unwrap_or_default());
        let _ = writeln!(out, "  columns: {}", listed(source.schema.as_ref()));
        if source.schema.is_some() {
            let _ = writeln!(out, "  decoded: {}", source.columns.join(", "));
        }
    }
    for (name, schema) in &plan.tables {
        let _ = writeln!(out, "\ntable {name}\n  columns: {}", listed(schema.as_ref()));
    }
    for planned in &plan.functions {
        let (function, limits) = (&planned.function, &planned.limits);
        let arguments = listed(Some(function.arguments()));
        let _ = writeln!(out, "\nfunction {}({arguments})", planned.name);
        let _ = writeln!(out, "  returns: {}", kind(function.returns()));
        out.push_str(&module_lines(&planned.module, function.digest(), limits));
    }
    for operator in &plan.operators {
        let _ = writeln!(out, "\noperator {} <- {}", operator.name, operator.inputs.join(", "));
        let Some(body) = &operator.body else {
            let _ = writeln!(out, "  columns: {}", listed(None));
            continue;
        };
        for output in body.outputs(&operator.name) {
            let of = if *output.name == *operator.name { String::new() } else { format!(" of {}", output.name) };
            let _ = writeln!(out, "  columns{of}: {}", listed(Some(&output.schema)));
        }
        match body {
            OperatorBody::Sql(sql) => {
                for line in sql.explain().lines() {
                    let _ = writeln!(out, "  {line}");
                }
            }
            OperatorBody::Wasm(wasm) => out.push_str(&module(plan, &operator.name, wasm)),
        }
    }
    for sink in &plan.sinks {
        let _ = writeln!(out, "\nsink {} ({}) <- {}", sink.name, sink.spec.r#type, sink.input);
        let _ = writeln!(out, "  columns: {}", listed(sink.schema.as_ref()));
    }
    out
}

/// What an operator puts out; nothing if that is unknown.
fn outputs(operator: &PlannedOperator) -> Vec<PortSchema> {
    operator.body.as_ref().map(|body| body.outputs(&operator.name)).unwrap_or_default()
}

/// What is to be said of a module.
fn module(plan: &Plan, name: &str, wasm: &WasmBody) -> String {
    let path = match plan.pipeline.spec.operators.get(name) {
        Some(OperatorSpec::Wasm(spec)) => spec.module.as_str(),
        _ => "",
    };
    let state = match wasm.plan.state_version() {
        Some(version) => format!("yes, of version {version}, in {STATE_SHARDS} shards"),
        None if wasm.plan.is_stateful() => format!("yes, in {STATE_SHARDS} shards"),
        None => "none".to_owned(),
    };
    let lines = module_lines(path, wasm.plan.digest(), &wasm.limits);
    format!("{lines}  reads: {}\n  state: {state}\n", wasm.plan.reads().join(", "))
}

fn module_lines(path: &str, digest: &str, limits: &Limits) -> String {
    let (memory, deadline) = (ByteSize(limits.memory_bytes), DurationSpec(limits.deadline));
    format!("  module: {path}, sha256 {digest}\n  limits: memory {memory}, {deadline} a call\n")
}

fn json(plan: &Plan) -> serde_json::Value {
    let listed = |schema: Option<&SchemaRef>| {
        schema.map(|_| columns(schema).into_iter().collect::<indexmap::IndexMap<String, String>>())
    };
    serde_json::json!({
        "pipeline": plan.pipeline.spec.pipeline,
        "sources": plan.sources.iter().map(|source| serde_json::json!({
            "name": source.name,
            "type": source.spec.r#type,
            "through": source.spec.through.as_ref().map(|topic| topic.as_str()),
            "columns": listed(source.schema.as_ref()),
            "decoded": source.columns,
        })).collect::<Vec<_>>(),
        "tables": plan.tables.iter().map(|(name, schema)| serde_json::json!({
            "name": name, "columns": listed(schema.as_ref()),
        })).collect::<Vec<_>>(),
        "functions": plan.functions.iter().map(|planned| serde_json::json!({
            "name": planned.name,
            "arguments": listed(Some(planned.function.arguments())),
            "returns": kind(planned.function.returns()),
            "module": {
                "path": planned.module,
                "sha256": planned.function.digest(),
                "memory_bytes": planned.limits.memory_bytes,
                "deadline_ms": planned.limits.deadline.as_millis() as u64,
            },
        })).collect::<Vec<_>>(),
        "operators": plan.operators.iter().map(|operator| serde_json::json!({
            "name": operator.name,
            "inputs": operator.inputs,
            "columns": listed(outputs(operator).first().map(|output| &output.schema)),
            "outputs": outputs(operator).iter().map(|output| (output.name.to_string(), listed(Some(&output.schema))))
                .collect::<indexmap::IndexMap<_, _>>(),
            "plan": operator.body.as_ref().and_then(|body| match body {
                OperatorBody::Sql(sql) => Some(sql.explain()),
                OperatorBody::Wasm(_) => None,
            }),
            "module": operator.body.as_ref().and_then(|body| match body {
                OperatorBody::Sql(_) => None,
                OperatorBody::Wasm(wasm) => Some(serde_json::json!({
                    "sha256": wasm.plan.digest(),
                    "reads": wasm.plan.reads(),
                    "stateful": wasm.plan.is_stateful(),
                    "state_version": wasm.plan.state_version(),
                    "memory_bytes": wasm.limits.memory_bytes,
                    "deadline_ms": wasm.limits.deadline.as_millis() as u64,
                })),
            }),
        })).collect::<Vec<_>>(),
        "sinks": plan.sinks.iter().map(|sink| serde_json::json!({
            "name": sink.name, "type": sink.spec.r#type, "input": sink.input, "columns": listed(sink.schema.as_ref()),
        })).collect::<Vec<_>>(),
    })
}
