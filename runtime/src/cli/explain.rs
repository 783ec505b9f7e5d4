//! `logmill explain`: a pipeline's plan, with the columns that flow.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use arrow::datatypes::SchemaRef;
use logmill_pipelines::ColumnType;

use super::check::examine;
use super::connect::connect;
use super::{print, runtime, told};
use crate::plan::Plan;

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

pub(super) fn execute(arguments: &Arguments, data_dir: &Path) -> anyhow::Result<()> {
    let (plan, found, inferred) = match arguments.connect {
        true => {
            let connected = runtime()?.block_on(connect(&arguments.path, data_dir))?;
            (connected.plan, connected.found, connected.inferred)
        }
        false => {
            let (plan, found) = examine(&arguments.path)?;
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
    let kind = |field: &arrow::datatypes::FieldRef| match ColumnType::from_field(field) {
        Ok(kind) => kind.to_string(),
        Err(_) => field.data_type().to_string(),
    };
    let fields = schema.into_iter().flat_map(|schema| schema.fields().iter());
    fields.map(|field| (field.name().clone(), kind(field))).collect()
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
    for operator in &plan.operators {
        let _ = writeln!(out, "\noperator {} <- {}", operator.name, operator.inputs.join(", "));
        let schema = operator.sql.as_ref().map(|sql| sql.output_schema());
        let _ = writeln!(out, "  columns: {}", listed(schema.as_ref()));
        for line in operator.sql.iter().flat_map(|sql| sql.explain().lines().map(str::to_owned).collect::<Vec<_>>()) {
            let _ = writeln!(out, "  {line}");
        }
    }
    for sink in &plan.sinks {
        let _ = writeln!(out, "\nsink {} ({}) <- {}", sink.name, sink.spec.r#type, sink.input);
        let _ = writeln!(out, "  columns: {}", listed(sink.schema.as_ref()));
    }
    out
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
        "operators": plan.operators.iter().map(|operator| serde_json::json!({
            "name": operator.name,
            "inputs": operator.inputs,
            "columns": listed(operator.sql.as_ref().map(|sql| sql.output_schema()).as_ref()),
            "plan": operator.sql.as_ref().map(|sql| sql.explain()),
        })).collect::<Vec<_>>(),
        "sinks": plan.sinks.iter().map(|sink| serde_json::json!({
            "name": sink.name, "type": sink.spec.r#type, "input": sink.input, "columns": listed(sink.schema.as_ref()),
        })).collect::<Vec<_>>(),
    })
}
