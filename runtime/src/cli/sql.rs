//! `logmill sql`: one query over topics and files, answered and printed.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use arrow::csv::WriterBuilder;
use arrow::json::LineDelimitedWriter;
use arrow::util::pretty::pretty_format_batches_with_schema;
use futures::TryStreamExt;
use logmill_connectors::format::check_ranges;
use logmill_connectors::log::Log;
use logmill_connectors::registry::registry;
use logmill_operators::sql::Functions;
use logmill_operators::wasm;
use logmill_wasm::Limits;

use super::address::{Address, NO_DATA_DIR};
use super::print;
use crate::guest_log::guest_log;
use crate::modules;
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
    /// Let the query call a function of a WebAssembly module: `NAME=module.wasm`, and `#FUNCTION` after it if it has another
    /// name there; may be given several times.
    #[arg(long = "function", value_name = "NAME=MODULE[#FUNCTION]")]
    functions: Vec<String>,
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

pub(super) async fn execute(arguments: Arguments, address: Option<&Address>) -> anyhow::Result<()> {
    let sql = text(&arguments)?;
    // Files alone need no log, which another process may hold open; and asking makes no log where there is none.
    let there = address.filter(|address| match address {
        Address::DataDir(data_dir) => data_dir.exists(),
        Address::Bootstrap(_) => true,
    });
    let functions = functions(&arguments.functions, address)?;
    let reads_topics = query::reads_topics(&sql)?;
    match there {
        Some(address) if reads_topics => {
            address.with_log(async |log| answer(&sql, arguments.format, Some(log), functions).await).await
        }
        _ => {
            let result = answer(&sql, arguments.format, None, functions).await;
            match address {
                None if reads_topics => result.map_err(|error| anyhow!("{error}\n  hint: {NO_DATA_DIR}")),
                _ => result,
            }
        }
    }
}

/// The functions that are named on the command line.
fn functions(named: &[String], address: Option<&Address>) -> anyhow::Result<Functions> {
    let cache_dir = match address {
        Some(Address::DataDir(data_dir)) => modules::cache_dir(data_dir),
        Some(Address::Bootstrap(_)) | None => modules::user_cache_dir(),
    };
    let mut functions = Functions::default();
    for text in named {
        let (name, rest) =
            text.split_once('=').with_context(|| format!("--function {text}: write NAME=module.wasm"))?;
        let (path, wanted) = rest.rsplit_once('#').unwrap_or((rest, name));
        let wrong = |message: &dyn std::fmt::Display| anyhow!("--function {name}: {message}");
        let guest = modules::load(Path::new(path), path, cache_dir.as_deref()).map_err(|error| wrong(&error))?;
        let log = guest_log("sql", name);
        let found = wasm::functions(&guest, None, Limits::default(), log).map_err(|error| wrong(&error))?;
        let Some(function) = found.iter().find(|function| function.name() == wanted) else {
            let names = found.iter().map(|function| function.name()).collect::<Vec<_>>().join(", ");
            let message =
                format!("`{path}` has no function `{wanted}`; write {name}={path}#FUNCTION with one of {names}");
            return Err(wrong(&message));
        };
        functions.insert(function.udf(name), &function.fingerprint()).map_err(|error| wrong(&error))?;
    }
    Ok(functions)
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

async fn answer(sql: &str, format: Format, log: Option<Arc<dyn Log>>, functions: Functions) -> anyhow::Result<()> {
    let answer = Query { log, registry: registry(), functions }.run(sql).await?;
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
        check_ranges(&rows)?;
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
