//! Looks at a pipeline's data before it runs: the columns that it does not declare, and what they say about the rest.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use indexmap::IndexMap;
use logmill_connectors::log::Log;
use logmill_connectors::registry::registry;
use logmill_pipelines::{Diagnostics, Pipeline};

use super::check::examine;
use super::{explain, pipeline_file, with_log};
use crate::modules;
use crate::plan::{self, Plan, Sample, sample};

/// What is found by reading a pipeline and its data.
pub(super) struct Connected {
    /// The plan, if there is no mistake.
    pub(super) plan: Option<Plan>,
    /// What is wrong.
    pub(super) found: Diagnostics,
    /// The columns that were inferred, as YAML to be pasted; `None` if all are declared.
    pub(super) inferred: Option<String>,
}

/// Plans a pipeline with the columns of its data.
pub(super) async fn connect(file: &Path, data_dir: &Path) -> anyhow::Result<Connected> {
    let (plan, mut found) = examine(file, modules::cache_dir(data_dir).as_deref())?;
    let Some(Plan { pipeline, modules, .. }) = plan else { return Ok(Connected { plan: None, found, inferred: None }) };
    let base_dir = pipeline_file::base_dir(file);
    let look = async |log: Arc<dyn Log>| Ok(sample(&pipeline, &registry(), log, base_dir).await);
    let sampled = if data_dir.exists() && reads_topics(&pipeline) {
        with_log(data_dir, look).await?
    } else {
        // No topic is asked for, or there is none: a log of its own leaves the data dir alone, which may be in use.
        let scratch = tempfile::tempdir().context("could not make a temporary folder")?;
        with_log(scratch.path(), look).await?
    };
    let planned = sampled.and_then(|sample| {
        let plan = plan::plan(pipeline, &registry(), &sample.schemas, &modules)?;
        Ok::<_, Diagnostics>((plan, sample))
    });
    match planned {
        Ok((plan, sample)) => {
            let known: Vec<String> = found.items().iter().map(|item| item.message.clone()).collect();
            found.extend(plan.warnings.iter().filter(|warning| !known.contains(&warning.message)).cloned());
            Ok(Connected { inferred: inferred(&plan, &sample)?, plan: Some(plan), found })
        }
        Err(more) => {
            found.extend(more.items().iter().cloned());
            Ok(Connected { plan: None, found, inferred: None })
        }
    }
}

fn reads_topics(pipeline: &Pipeline) -> bool {
    pipeline.spec.sources.values().any(|source| source.r#type == "topic")
}

/// The inferred columns as YAML.
fn inferred(plan: &Plan, sample: &Sample) -> anyhow::Result<Option<String>> {
    type Parts = IndexMap<String, IndexMap<&'static str, IndexMap<String, String>>>;
    let parts = |names: &[String]| -> Parts {
        let part = |name: &String| {
            let columns = explain::columns(sample.schemas.get(name)).into_iter().collect();
            (name.clone(), IndexMap::from([("schema", columns)]))
        };
        names.iter().map(part).collect()
    };
    let mut yaml = IndexMap::from([("sources", parts(&sample.sources)), ("tables", parts(&sample.tables))]);
    yaml.retain(|_, parts| !parts.is_empty());
    if yaml.is_empty() {
        return Ok(None);
    }
    let name = &plan.pipeline.spec.pipeline;
    Ok(Some(format!(
        "# columns inferred from the data of {name}; paste to declare them\n{}",
        serde_yaml::to_string(&yaml)?
    )))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    async fn check(rows: &str, sql: &str) -> Connected {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("rows.ndjson"), rows).unwrap();
        std::fs::write(dir.path().join("names.csv"), "id,name\n1,one\n").unwrap();
        let yaml = format!(
            "pipeline: p\nsources:\n  rows: {{ type: file, path: rows.ndjson, format: json }}\n\
             tables:\n  names: {{ type: file, path: names.csv, format: csv }}\n\
             operators:\n  some: {{ sql: \"{sql}\" }}\nsinks:\n  out: {{ type: blackhole, input: some }}\n"
        );
        let file = dir.path().join("p.yaml");
        std::fs::write(&file, yaml).unwrap();
        let data_dir = dir.path().join("data");
        let connected = connect(&file, &data_dir).await.unwrap();
        assert!(!data_dir.exists(), "a look at files makes no log");
        connected
    }

    #[tokio::test]
    async fn inferred_columns_can_be_pasted() {
        let connected =
            check("{\"id\":1,\"a b\":\"x\"}\n", "SELECT name FROM rows JOIN names ON rows.id = names.id").await;
        assert!(!connected.found.has_errors(), "{}", connected.found.render(false));
        let expected: serde_yaml::Value = serde_yaml::from_str(
            "sources: { rows: { schema: { id: int64, 'a b': string } } }\n\
             tables: { names: { schema: { id: int64, name: string } } }",
        )
        .unwrap();
        let inferred: serde_yaml::Value = serde_yaml::from_str(&connected.inferred.unwrap()).unwrap();
        assert_eq!(inferred, expected);
        let plan = connected.plan.unwrap();
        assert!(plan.sinks.iter().all(|sink| sink.schema.is_some()));
    }

    #[tokio::test]
    async fn what_the_data_does_not_have_is_found_before_a_run() {
        let sql = "SELECT idd FROM rows, names";
        let connected = check("{\"id\":1}\n", sql).await;
        assert!(connected.plan.is_none());
        let text = connected.found.render(false);
        assert!(text.contains("idd") && text.contains("p.yaml:7"), "{text}");
    }

    #[tokio::test]
    async fn data_without_rows_cannot_be_sampled_and_the_source_is_named() {
        let connected = check("", "SELECT id FROM rows").await;
        assert!(connected.plan.is_none());
        let text = connected.found.render(false);
        assert!(text.contains("p.yaml:3"), "{text}");
    }
}
