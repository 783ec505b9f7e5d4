//! `logmill explain`: a pipeline's plan, with the columns that flow.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use bytes::Bytes;
use logmill_connectors::error::ConnectorError;
use logmill_connectors::log::{Log, TopicPartition};
use logmill_connectors::registry::{ConnectorContext, registry};
use logmill_connectors::transaction::Transaction;
use logmill_pipelines::flow::CheckpointEpoch;
use logmill_pipelines::ColumnType;

use super::check::examine;
use super::{pipeline_file, print, told, with_log};
use crate::plan::{self, Plan, Schemas};

/// Show a pipeline's plan, with the columns that flow.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The pipeline, or `-` for stdin.
    path: PathBuf,
    /// Print the plan as JSON.
    #[arg(long)]
    json: bool,
    /// Read a sample of each source and table whose columns are not declared, and print them to be pasted as `schema:`.
    #[arg(long)]
    sample: bool,
}

/// Reading a sample writes nothing.
struct ReadOnly;

#[async_trait]
impl Transaction for ReadOnly {
    async fn append(&self, _: CheckpointEpoch, _: &TopicPartition, _: Bytes) -> Result<(), ConnectorError> {
        Err(ConnectorError::Config("a sample was to be read, not written".to_owned()))
    }
}

pub(super) async fn execute(arguments: Arguments, data_dir: &Path) -> anyhow::Result<()> {
    let (plan, found) = examine(&arguments.path)?;
    let Some(mut plan) = plan else { return Err(told(&found)) };
    if arguments.sample {
        let base_dir = pipeline_file::base_dir(&arguments.path);
        let sampled = with_log(data_dir, async |log| sample(&plan, log, base_dir).await).await?;
        plan = plan::plan(plan.pipeline, &registry(), &sampled).map_err(|found| told(&found))?;
        if !arguments.json {
            for (name, schema) in &sampled {
                let columns = columns(Some(schema));
                let lines: String = columns.iter().map(|(name, kind)| format!("      {name}: {kind}\n")).collect();
                print(&format!("# {name}, from a sample:\n    schema:\n{lines}\n"))?;
            }
        }
    }
    match arguments.json {
        true => print(&format!("{}\n", serde_json::to_string_pretty(&json(&plan))?)),
        false => print(&text(&plan)),
    }
}

/// The columns of what has none declared, by name.
async fn sample(plan: &Plan, log: Arc<dyn Log>, base_dir: PathBuf) -> anyhow::Result<Schemas> {
    let (registry, spec) = (registry(), &plan.pipeline.spec);
    let context = ConnectorContext { log, transaction: Arc::new(ReadOnly), base_dir, pipeline: spec.pipeline.clone() };
    let mut sampled = Schemas::new();
    for source in plan.sources.iter().filter(|source| source.schema.is_none()) {
        let opened = registry.open_source(&source.name, &source.spec, None, &context).await;
        let opened = opened.with_context(|| format!("source `{}`", source.name))?;
        sampled.insert(source.name.clone(), opened.schema);
    }
    for (name, _) in plan.tables.iter().filter(|(_, schema)| schema.is_none()) {
        let Some(table) = spec.tables.get(name) else { continue };
        let loaded = registry.load_table(table, &context).await.with_context(|| format!("table `{name}`"))?;
        sampled.insert(name.clone(), loaded.schema);
    }
    Ok(sampled)
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
        None => "columns unknown until a sample is read; declare them with `schema:`".to_owned(),
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
