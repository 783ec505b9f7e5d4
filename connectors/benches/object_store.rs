//! The object_store sink beside the Parquet writer alone, on the same rows in the same run.
//!
//! `cargo bench -p logmill-connectors --bench object_store [-- ROWS]`. Rows are made from a seed and look like flights:
//! five integers, two strings of few values, one of many, a timestamp and a float.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{AsArray, Float64Array, Int32Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::compute::filter_record_batch;
use arrow::compute::kernels::cmp::eq;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use logmill_connectors::object_store::{Config, FileFormat, Roll, SinkContext, sink, system_clock};
use logmill_connectors::sink::{Attempt, OpenWriter};
use logmill_pipelines::flow::{CheckpointEpoch, RowBatch};
use logmill_pipelines::{ByteSize, DurationSpec};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

const BATCH_ROWS: usize = 8192;

fn schema() -> SchemaRef {
    let integer = |name: &str| Field::new(name, DataType::Int32, true);
    Arc::new(Schema::new(vec![
        Field::new("carrier", DataType::Utf8, true),
        Field::new("origin", DataType::Utf8, true),
        Field::new("tailnum", DataType::Utf8, true),
        integer("flight"),
        integer("dep_delay"),
        integer("arr_delay"),
        integer("air_time"),
        integer("distance"),
        Field::new("scheduled", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true),
        Field::new("speed", DataType::Float64, true),
    ]))
}

fn batches(rows: usize) -> Vec<RecordBatch> {
    let mut rng = fastrand::Rng::with_seed(1);
    let carriers: Vec<String> = (0..16).map(|n| format!("{}{}", (b'A' + n) as char, n % 3)).collect();
    let mut time = 1_357_000_000_000_000;
    (0..rows.div_ceil(BATCH_ROWS))
        .map(|_| {
            let mut integers = |range: std::ops::Range<i32>| -> Arc<Int32Array> {
                Arc::new((0..BATCH_ROWS).map(|_| (rng.u8(..) > 6).then(|| rng.i32(range.clone()))).collect())
            };
            let (flight, dep, arr) = (integers(1..6000), integers(-20..300), integers(-60..300));
            let (air, distance) = (integers(20..600), integers(80..4000));
            let carrier: StringArray = (0..BATCH_ROWS).map(|_| Some(carriers[rng.usize(..16)].as_str())).collect();
            let origin: StringArray = (0..BATCH_ROWS).map(|_| Some(["EWR", "JFK", "LGA"][rng.usize(..3)])).collect();
            let tail: StringArray = (0..BATCH_ROWS).map(|_| Some(format!("N{}AA", rng.u32(100..4100)))).collect();
            let scheduled: TimestampMicrosecondArray = (0..BATCH_ROWS)
                .map(|_| {
                    time += rng.i64(0..60_000_000);
                    Some(time)
                })
                .collect();
            let speed: Float64Array = (0..BATCH_ROWS).map(|_| Some(rng.f64() * 600.0)).collect();
            RecordBatch::try_new(
                schema(),
                vec![
                    Arc::new(carrier),
                    Arc::new(origin),
                    Arc::new(tail),
                    flight,
                    dep,
                    arr,
                    air,
                    distance,
                    Arc::new(scheduled.with_timezone("UTC")),
                    Arc::new(speed),
                ],
            )
            .unwrap()
        })
        .collect()
}

/// The limit: Parquet files in the same folder, synced, of rows that are cut before the clock starts.
fn arrow_writer(files: &[Vec<RecordBatch>], folder: &std::path::Path) -> Duration {
    let start = Instant::now();
    for (number, batches) in files.iter().enumerate() {
        let file = std::fs::File::create(folder.join(format!("{number}.parquet"))).unwrap();
        let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
        let mut writer = ArrowWriter::try_new(file, batches[0].schema(), Some(properties)).unwrap();
        for batch in batches {
            writer.write(batch).unwrap();
        }
        writer.into_inner().unwrap().sync_all().unwrap();
    }
    start.elapsed()
}

/// The rows of each carrier, without that column.
fn cut(batches: &[RecordBatch]) -> Vec<Vec<RecordBatch>> {
    let mut files: BTreeMap<String, Vec<RecordBatch>> = BTreeMap::new();
    for batch in batches {
        let carriers = batch.column(0).as_string::<i32>();
        let rest = batch.project(&(1..batch.num_columns()).collect::<Vec<_>>()).unwrap();
        let seen: BTreeSet<&str> = carriers.iter().flatten().collect();
        for carrier in seen {
            let mask = eq(carriers, &StringArray::new_scalar(carrier)).unwrap();
            files.entry(carrier.to_owned()).or_default().push(filter_record_batch(&rest, &mask).unwrap());
        }
    }
    files.into_values().collect()
}

/// The sink: `epoch` batches between two barriers.
async fn through_sink(batches: &[RecordBatch], folder: &std::path::Path, by: &[&str], epoch: usize) -> Duration {
    let config = Config {
        url: folder.join(uuid::Uuid::new_v4().to_string()).display().to_string(),
        partition_by: by.iter().map(ToString::to_string).collect(),
        roll: Roll { every: DurationSpec::from_secs(3600), bytes: ByteSize::from_mib(1024), rows: None },
        compression: None,
        options: Default::default(),
    };
    let context = SinkContext {
        deployment: "bench".into(),
        pipeline: "bench".into(),
        sink: "lake".into(),
        base_dir: folder.into(),
        schema: schema(),
        clock: system_clock(),
    };
    let start = Instant::now();
    let sink = sink(&config, FileFormat::Parquet, &context).unwrap();
    let open =
        OpenWriter { shard: 0, attempt: Attempt("bench".into()), epoch: CheckpointEpoch(1), carried: Vec::new() };
    let mut writer = sink.open(open).await.unwrap();
    let epochs: Vec<_> = batches.chunks(epoch).collect();
    for (number, rows) in (1..).zip(&epochs) {
        for batch in *rows {
            writer.write(RowBatch::inserts(batch.clone())).await.unwrap();
        }
        let prepared = writer.prepare(CheckpointEpoch(number), number == epochs.len() as u64).await.unwrap();
        for token in &prepared.tokens {
            sink.commit(token).await.unwrap();
        }
    }
    start.elapsed()
}

/// The processor time this process has used, in clock ticks of 10 ms: steadier than the wall on a busy machine.
fn processor_ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    fields.filter_map(|field| field.parse::<u64>().ok()).sum()
}

#[tokio::main]
async fn main() {
    let rows = std::env::args().filter_map(|argument| argument.parse().ok()).next().unwrap_or(2_000_000);
    let batches = batches(rows);
    let megabytes = batches.iter().map(RecordBatch::get_array_memory_size).sum::<usize>() as f64 / 1e6;
    let folder = tempfile::tempdir().unwrap();
    println!("{rows} rows, {megabytes:.0} MB in memory");
    for (name, by) in [("one folder", &[][..]), ("by carrier", &["carrier"][..])] {
        let files = if by.is_empty() { vec![batches.clone()] } else { cut(&batches) };
        let mut alone = Duration::MAX;
        let before = processor_ticks();
        for _ in 0..3 {
            alone = alone.min(arrow_writer(&files, folder.path()));
        }
        let alone_ticks = processor_ticks() - before;
        println!("{:<36}{:>6.0} MB/s", format!("{name}, ArrowWriter alone"), megabytes / alone.as_secs_f64());
        for (epochs, epoch) in [("one epoch", usize::MAX), ("16 epochs", batches.len().div_ceil(16))] {
            let mut best = Duration::MAX;
            let before = processor_ticks();
            for _ in 0..3 {
                best = best.min(through_sink(&batches, folder.path(), by, epoch).await);
            }
            let ratio = 100.0 * alone.as_secs_f64() / best.as_secs_f64();
            let cost = 100.0 * alone_ticks as f64 / (processor_ticks() - before).max(1) as f64;
            let speed = megabytes / best.as_secs_f64();
            let name = format!("{name}, sink, {epochs}");
            println!("{name:<36}{speed:>6.0} MB/s, {ratio:.0} % of its speed, {cost:.0} % by processor time");
        }
    }
}
