//! The columns that a pipeline does not declare, inferred from a sample of its data, without running anything.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use logmill_connectors::error::{ConnectorError, LogError};
use logmill_connectors::log::{Log, TopicPartition};
use logmill_connectors::registry::{ConnectorContext, Registry};
use logmill_connectors::transaction::Transaction;
use logmill_pipelines::flow::CheckpointEpoch;
use logmill_pipelines::{Diagnostics, Pipeline};

use super::Schemas;

/// What a look at the data has found.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// The columns of all sources and tables, by name.
    pub schemas: Schemas,
    /// The sources whose columns are inferred, in the order of the file.
    pub sources: Vec<String>,
    /// The tables whose columns are inferred, in the order of the file.
    pub tables: Vec<String>,
}

/// Opens all sources and tables of a pipeline for as long as it takes to tell their columns. Relative paths start from
/// `base_dir`.
///
/// # Errors
/// What cannot be opened or understood, all of it, each at the place of the source or table in the file.
pub async fn sample(
    pipeline: &Pipeline,
    registry: &Registry,
    log: Arc<dyn Log>,
    base_dir: PathBuf,
) -> Result<Sample, Diagnostics> {
    let name = pipeline.spec.pipeline.clone();
    let context = ConnectorContext {
        log,
        transaction: Arc::new(NoTransaction),
        base_dir,
        deployment: String::new(),
        pipeline: name,
    };
    let (mut sample, mut found) = (Sample::default(), pipeline.diagnostics());
    for (name, spec) in &pipeline.spec.sources {
        match registry.open_source(name, spec, None, &context).await {
            Ok(opened) => {
                sample.schemas.insert(name.clone(), opened.schema);
                if opened.inferred {
                    sample.sources.push(name.clone());
                }
            }
            Err(error) => found.push(pipeline.error_at(&["sources", name], &with_causes(&error))),
        }
    }
    for (name, spec) in &pipeline.spec.tables {
        match registry.load_table(spec, &context).await {
            Ok(table) => {
                sample.schemas.insert(name.clone(), table.schema);
                if registry.declared_table_schema(spec).is_none() {
                    sample.tables.push(name.clone());
                }
            }
            Err(error) => found.push(pipeline.error_at(&["tables", name], &with_causes(&error))),
        }
    }
    if found.has_errors() { Err(found) } else { Ok(sample) }
}

fn with_causes(error: &ConnectorError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        let next_text = next.to_string();
        if !text.contains(&next_text) {
            text = format!("{text}: {next_text}");
        }
        cause = next.source();
    }
    text
}

/// Writes nothing: for looking at data.
pub(crate) struct NoTransaction;

#[async_trait]
impl Transaction for NoTransaction {
    async fn append(&self, _: CheckpointEpoch, _: &TopicPartition, _: Bytes) -> Result<(), ConnectorError> {
        Err(LogError::Invalid("no transaction is open while data is only looked at".to_owned()).into())
    }
}
