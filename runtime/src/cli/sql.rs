//! `logmill sql`: one query over topics and files, answered and printed.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail};
use arrow::csv::WriterBuilder;
use arrow::json::LineDelimitedWriter;
use arrow::util::pretty::pretty_format_batches_with_schema;
use futures::TryStreamExt;
use logmill_connectors::log::Log;
use logmill_connectors::registry::registry;
use logmill_operators::sql::Functions;

use super::address::Address;
use super::print;
use crate::query::{self, Answer, Query, QueryError};

/// Answer a query over topics ("late-flights") and files ('out/late-flights', 's3://bucket/prefix').
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The query.
    #[arg(required_unless_present = "file")]
    query: Option<String>,
    /// Read the query from a file; `-` is stdin.
    #[arg(short, long, conflicts_with = "query")]
    file: Option<PathBuf>,
    /// How to print the rows.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// A table for people.
    Table,
    /// A JSON object a row; nulls are left out.
    Json,
    /// Comma-separated values under a header.
    Csv,
}

pub(super) async fn execute(arguments: Arguments, address: &Address) -> anyhow::Result<()> {
    let sql = text(&arguments)?;
    // Files alone need no log, which another process may hold open; and asking makes no log where there is none.
    let is_there = match address {
        Address::DataDir(data_dir) => data_dir.exists(),
        Address::Bootstrap(_) => true,
    };
    if is_there && query::reads_topics(&sql)? {
        address.with_log(async |log| answer(&sql, arguments.format, Some(log)).await).await
    } else {
        answer(&sql, arguments.format, None).await
    }
}

fn text(arguments: &Arguments) -> anyhow::Result<String> {
    let mut text = String::new();
    match (&arguments.query, &arguments.file) {
        (Some(query), _) => text.push_str(query),
        (None, Some(path)) if path.as_os_str() == "-" => {
            std::io::stdin().read_to_string(&mut text).context("could not read stdin")?;
        }
        (None, Some(path)) => {
            text = std::fs::read_to_string(path).with_context(|| format!("could not read `{}`", path.display()))?;
        }
        (None, None) => bail!("there is no query"),
    }
    Ok(text)
}

async fn answer(sql: &str, format: Format, log: Option<Arc<dyn Log>>) -> anyhow::Result<()> {
    let answer = Query { log, registry: registry(), functions: Functions::default() }.run(sql).await?;
    match format {
        Format::Table => {
            let schema = answer.schema.clone();
            let rows = answer.collect().await?;
            print(&format!("{}\n", pretty_format_batches_with_schema(schema, &rows)?))
        }
        Format::Json => print_json(answer).await,
        Format::Csv => print_csv(answer).await,
    }
}

async fn print_json(mut answer: Answer) -> anyhow::Result<()> {
    while let Some(rows) = next(&mut answer).await? {
        let mut writer = LineDelimitedWriter::new(Vec::new());
        writer.write(&rows)?;
        writer.finish()?;
        std::io::stdout().lock().write_all(&writer.into_inner())?;
    }
    Ok(())
}

async fn print_csv(mut answer: Answer) -> anyhow::Result<()> {
    let header = arrow::array::RecordBatch::new_empty(answer.schema.clone());
    std::io::stdout().lock().write_all(&csv(&header, true)?)?;
    while let Some(rows) = next(&mut answer).await? {
        std::io::stdout().lock().write_all(&csv(&rows, false)?)?;
    }
    Ok(())
}

fn csv(rows: &arrow::array::RecordBatch, header: bool) -> anyhow::Result<Vec<u8>> {
    let mut text = Vec::new();
    WriterBuilder::new().with_header(header).build(&mut text).write(rows)?;
    Ok(text)
}

async fn next(answer: &mut Answer) -> Result<Option<arrow::array::RecordBatch>, QueryError> {
    answer.rows.try_next().await.map_err(|error| QueryError::running(&error))
}
