//! Batch queries: one SELECT over topics of the log and over files, planned and run by DataFusion.
//!
//! ```text
//!   text ──parse──▶ names ──┬─ 'out/flights', 's3://…' ─▶ files.rs   Parquet, CSV, NDJSON
//!                           └─ "late-flights"          ─▶ topic.rs   log start ─▶ last stable offset, now
//!   relations ──plan──▶ physical plan ──▶ record batches, streamed
//! ```
//!
//! A name is a path if it looks like one: with a `/`, a `*`, or the ending of a kind of file. What is inferred of the
//! data is inferred as for sources of pipelines, so that a query moved from here into a pipeline means the same.

mod alias;
mod error;
mod files;
mod meta;
mod panics;
mod relations;
mod topic;
mod visible;

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::prelude::{SQLOptions, SessionConfig, SessionContext};
use futures::TryStreamExt;
use logmill_connectors::log::Log;
use logmill_connectors::registry::Registry;
use logmill_operators::sql::{Functions, in_microseconds, register_functions};
use logmill_pipelines::nearest;

pub use error::QueryError;
use panics::{caught, caught_rows};
use relations::Parsed;

/// What queries can see.
pub struct Query {
    /// The log whose topics can be read; without one there are files only.
    pub log: Option<Arc<dyn Log>>,
    /// What decodes the records of topics.
    pub registry: Registry,
    /// Functions that can be called besides DataFusion's own.
    pub functions: Functions,
}

/// What a query answers, as it becomes known.
pub struct Answer {
    /// The columns.
    pub schema: SchemaRef,
    /// The rows.
    pub rows: SendableRecordBatchStream,
}

impl Answer {
    /// All the rows.
    ///
    /// # Errors
    /// Where reading or computing fails on the way.
    pub async fn collect(self) -> Result<Vec<RecordBatch>, QueryError> {
        self.rows.try_collect().await.map_err(|error| QueryError::running(&error))
    }
}

impl Query {
    /// Begins to answer a query. Topics are read as they are now: what is committed later is not seen.
    ///
    /// # Errors
    /// Where the text is not one query, names what is not there, or does not fit the data.
    pub async fn run(&self, sql: &str) -> Result<Answer, QueryError> {
        let context = session(&self.functions);
        let mut parsed = relations::parse(&context, sql)?;
        let relations = relations::register(&context, self, &parsed, sql).await?;
        meta::hide(&mut parsed.statement, &relations);
        let failed = |error| {
            let hint = match error::unknown_function(&error) {
                Some(name) => function_near(&context, name).map(|near| format!("did you mean `{near}`?")),
                None => relations.hint(),
            };
            QueryError::of(&error, sql).with_hint(hint)
        };
        let plan = caught(context.state().statement_to_plan(parsed.statement)).await;
        let plan = plan.and_then(in_microseconds).map_err(failed)?;
        let only_queries = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        only_queries.verify_plan(&plan).map_err(failed)?;
        let frame = caught(context.execute_logical_plan(plan)).await.map_err(failed)?;
        let rows = caught_rows(caught(frame.execute_stream()).await.map_err(failed)?);
        Ok(Answer { schema: rows.schema(), rows })
    }
}

/// Whether a query reads anything besides files, and so needs the log.
///
/// # Errors
/// Where the text is not one query.
pub fn reads_topics(sql: &str) -> Result<bool, QueryError> {
    let Parsed { names, .. } = relations::parse(&session(&Functions::default()), sql)?;
    Ok(names.iter().any(|name| !files::is_path(name.table()) && !files::exists(name.table())))
}

/// The function that was meant by a name that none has. DataFusion's own guess changes from run to run where two are as
/// near.
fn function_near(context: &SessionContext, name: &str) -> Option<String> {
    let state = context.state();
    let scalar = state.scalar_functions().keys();
    let known = scalar.chain(state.aggregate_functions().keys()).chain(state.window_functions().keys());
    nearest(name, known.map(String::as_str)).map(str::to_owned)
}

/// A session with the functions that pipelines have, and text as plain strings.
fn session(functions: &Functions) -> SessionContext {
    let mut config = SessionConfig::new();
    let options = config.options_mut();
    options.sql_parser.collect_spans = true;
    options.sql_parser.map_string_types_to_utf8view = false;
    options.execution.parquet.schema_force_view_types = false;
    let context = SessionContext::new_with_config(config);
    register_functions(&context, functions);
    context
}

#[cfg(test)]
mod tests;
