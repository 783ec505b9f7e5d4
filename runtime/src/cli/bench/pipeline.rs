//! A file of JSON lines through a SQL filter into Parquet, beside DataFusion's batch query over the same file; and the
//! decoder, which is most of that work, beside arrow-json.

use std::fs::File;
use std::hint::black_box;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use bytes::Bytes;
use datafusion::common::config::TableParquetOptions;
use datafusion::dataframe::DataFrameWriteOptions;
use datafusion::prelude::{JsonReadOptions, SessionConfig, SessionContext};
use logmill_broker::{Broker, BrokerConfig};
use logmill_connectors::format::Format;
use logmill_connectors::registry::registry;
use logmill_connectors::source::{CHUNK_BYTES, Records};
use logmill_pipelines::{MemoryEnvironment, Pipeline, UnknownFields};
use parquet::file::reader::{FileReader, SerializedFileReader};
use tokio::sync::watch;

use super::report::Report;
use crate::embedded_log::EmbeddedLog;
use crate::engine::Run;
use crate::metrics::Metrics;
use crate::modules::Modules;

/// Rows of a batch of arrow-json; DataFusion's own size.
const BATCH_ROWS: usize = 8192;

/// What both of them answer: half of the rows, most of the columns.
const SQL: &str = "SELECT scheduled, carrier, tailnum, distance, dep_delay / 60 AS delay_hours FROM flights \
                   WHERE dep_delay > 15";

/// What is run.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Shape {
    /// How many rows, of about 150 bytes each.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    rows: u64,
}

pub(super) async fn measure(shape: &Shape, rounds: u32, scratch: &Path) -> anyhow::Result<Report> {
    let file = scratch.join("flights.ndjson");
    let bytes = write_rows(&file, shape.rows).with_context(|| format!("could not write `{}`", file.display()))?;
    let chunks = chunks(&file)?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut report = Report::new(format!("pipeline: {} rows, {:.0} MB of JSON lines", shape.rows, bytes as f64 / 1e6));
    let arrow_json = report.figure("decode, arrow-json alone", bytes, shape.rows, None);
    let decoder = report.figure("decode, Logmill's decoder alone", bytes, shape.rows, Some(arrow_json));
    let batch = report.figure("file to filter to Parquet, DataFusion on one core", bytes, shape.rows, None);
    let all_cores = (cores > 1).then(|| {
        let name = format!("file to filter to Parquet, DataFusion on {cores} cores");
        report.figure(&name, bytes, shape.rows, Some(batch))
    });
    let run = report.figure("file to filter to Parquet, logmill run", bytes, shape.rows, Some(batch));
    for round in 0..rounds {
        report.took(arrow_json, arrow_json_alone(&chunks, shape.rows)?);
        report.took(decoder, decoder_alone(&chunks, shape.rows)?);
        let out = scratch.join(format!("batch-{round}"));
        report.took(batch, datafusion(&file, &out, 1).await?);
        let expected = rows_below(&out)?;
        if let Some(figure) = all_cores {
            report.took(figure, datafusion(&file, &scratch.join(format!("all-{round}")), cores).await?);
        }
        let out = scratch.join(format!("run-{round}"));
        report.took(run, logmill(&file, &out, &scratch.join(format!("data-{round}"))).await?);
        let written = rows_below(&out)?;
        ensure!(written == expected, "the pipeline wrote {written} rows, the batch query {expected}");
    }
    report.note("read", "MB/s are of the JSON lines; all of them write ZSTD, and only the pipeline syncs".to_owned());
    Ok(report)
}

fn schema() -> SchemaRef {
    let field = |name: &str, kind: DataType| Field::new(name, kind, true);
    Arc::new(Schema::new(vec![
        field("scheduled", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))),
        field("carrier", DataType::Utf8),
        field("flight", DataType::Int32),
        field("tailnum", DataType::Utf8),
        field("distance", DataType::Int32),
        field("dep_delay", DataType::Float64),
    ]))
}

/// Makes the rows, always the same; returns how many bytes they have.
fn write_rows(path: &Path, rows: u64) -> std::io::Result<u64> {
    let mut random = fastrand::Rng::with_seed(1);
    let mut file = BufWriter::new(File::create(path)?);
    for row in 0..rows {
        let (minute, hour, day) = (row % 60, row / 60 % 24, row / 1440 % 28 + 1);
        let carrier = random.choice(["AA", "B6", "DL", "EV", "MQ", "UA", "WN"]).unwrap_or("AA");
        let (flight, tail, distance) = (random.u32(1..6000), random.u32(100..4100), random.u32(80..4000));
        let delay = f64::from(random.i32(-300..900)) / 10.0 - 15.0;
        writeln!(
            file,
            "{{\"scheduled\":\"2013-01-{day:02}T{hour:02}:{minute:02}:00Z\",\"carrier\":\"{carrier}\",\
             \"flight\":{flight},\"tailnum\":\"N{tail}AA\",\"distance\":{distance},\"dep_delay\":{delay:.1}}}"
        )?;
    }
    file.flush()?;
    Ok(file.into_inner().map_err(std::io::IntoInnerError::into_error)?.metadata()?.len())
}

/// The file in memory as the file source reads it: chunks of whole lines.
fn chunks(path: &Path) -> anyhow::Result<Vec<Records>> {
    let all = Bytes::from(std::fs::read(path)?);
    let (mut chunks, mut start) = (Vec::new(), 0);
    while start < all.len() {
        let limit = all.len().min(start + CHUNK_BYTES);
        let piece = all.get(start..limit).unwrap_or_default();
        let end = piece.iter().rposition(|byte| *byte == b'\n').map_or(limit, |at| start + at + 1);
        let buffer = all.slice(start..end);
        let mut at = 0_u32;
        let values = buffer.split_inclusive(|byte| *byte == b'\n').map(|line| {
            let from = at;
            at += line.len() as u32;
            Some(from..at - 1)
        });
        let values: Vec<_> = values.collect();
        chunks.push(Records { buffer: buffer.clone(), values, partition: -1, ..Records::default() });
        start = end;
    }
    Ok(chunks)
}

fn arrow_json_alone(chunks: &[Records], rows: u64) -> anyhow::Result<Duration> {
    let start = Instant::now();
    let mut decoder = arrow::json::ReaderBuilder::new(schema()).with_batch_size(BATCH_ROWS).build_decoder()?;
    let mut decoded = 0;
    for chunk in chunks {
        let mut rest: &[u8] = &chunk.buffer;
        while !rest.is_empty() {
            let taken = decoder.decode(rest)?;
            rest = rest.get(taken..).unwrap_or_default();
            // Fewer bytes taken than given means that the batch is full.
            if !rest.is_empty() {
                decoded += decoder.flush()?.map_or(0, |batch| batch.num_rows());
            }
        }
    }
    decoded += decoder.flush()?.map_or(0, |batch| batch.num_rows());
    ensure!(decoded as u64 == rows, "arrow-json decoded {decoded} of {rows} rows");
    Ok(start.elapsed())
}

fn decoder_alone(chunks: &[Records], rows: u64) -> anyhow::Result<Duration> {
    let schema = schema();
    let columns: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
    let start = Instant::now();
    let mut decoder = Format::Json.decoder(&schema, &columns, UnknownFields::Ignore)?;
    let mut decoded = 0;
    for chunk in chunks {
        decoded += black_box(decoder.decode(chunk)?).rows.num_rows();
    }
    ensure!(decoded as u64 == rows, "the decoder decoded {decoded} of {rows} rows");
    Ok(start.elapsed())
}

async fn datafusion(file: &Path, out: &Path, partitions: usize) -> anyhow::Result<Duration> {
    let start = Instant::now();
    let mut config = SessionConfig::new().with_target_partitions(partitions);
    config.options_mut().sql_parser.map_string_types_to_utf8view = false;
    let context = SessionContext::new_with_config(config);
    let schema = schema();
    let options = JsonReadOptions::default().schema(&schema).file_extension(".ndjson");
    context.register_json("flights", file.display().to_string(), options).await?;
    let mut parquet = TableParquetOptions::default();
    parquet.global.compression = Some("zstd(1)".to_owned());
    let rows = context.sql(SQL).await?;
    // The slash at the end makes it a folder.
    rows.write_parquet(&format!("{}/", out.display()), DataFrameWriteOptions::new(), Some(parquet)).await?;
    Ok(start.elapsed())
}

async fn logmill(file: &Path, out: &Path, data_dir: &Path) -> anyhow::Result<Duration> {
    let pipeline = read(file, out)?;
    let start = Instant::now();
    let (broker, _) = Broker::open(BrokerConfig::new(data_dir)).await?;
    let (_keep, stop) = watch::channel(false);
    let run = Run {
        modules: Modules::default(),
        pipeline,
        log: Arc::new(EmbeddedLog::new(broker.clone())),
        data_dir: data_dir.to_owned(),
        base_dir: std::path::absolute(".")?,
        fresh: None,
        metrics: Arc::new(Metrics::new()),
        stop,
        on_start: Box::new(|_| {}),
    };
    run.execute().await?;
    broker.close().await?;
    Ok(start.elapsed())
}

fn read(file: &Path, out: &Path) -> anyhow::Result<Pipeline> {
    let (file, out) = (std::path::absolute(file)?, std::path::absolute(out)?);
    // A JSON text is a YAML text too, with all quoting done.
    let text = serde_json::json!({
        "pipeline": "bench",
        "sources": { "flights": {
            "type": "file",
            "path": file.display().to_string(),
            "format": "json",
            "schema": {
                "scheduled": "timestamp",
                "carrier": "string",
                "flight": "int32",
                "tailnum": "string",
                "distance": "int32",
                "dep_delay": "float64",
            },
        } },
        "operators": { "late": { "sql": SQL } },
        "sinks": { "lake": {
            "type": "object_store",
            "input": "late",
            "url": out.display().to_string(),
            "format": "parquet",
            "roll": { "every": "1h", "bytes": "1GiB" },
        } },
    });
    let text = text.to_string().replace('$', "$$");
    let read = logmill_pipelines::parse("bench", &text, &registry().catalog(), &MemoryEnvironment::default());
    read.map_err(|found| anyhow!("{}", found.render(false)))
}

/// How many rows the Parquet files below a folder have.
fn rows_below(folder: &Path) -> anyhow::Result<i64> {
    let mut rows = 0;
    for entry in std::fs::read_dir(folder).with_context(|| format!("could not read `{}`", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            rows += rows_below(&path)?;
        } else if path.extension().is_some_and(|extension| extension == "parquet") {
            rows += SerializedFileReader::new(File::open(&path)?)?.metadata().file_metadata().num_rows();
        }
    }
    Ok(rows)
}
