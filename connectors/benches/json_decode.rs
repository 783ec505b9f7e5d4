//! NDJSON into columns: our decoder beside Arrow's on the same bytes in the same run, in MB/s of NDJSON.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::datatypes::{Schema, SchemaRef};
use arrow::json::ReaderBuilder;
use logmill_connectors::format::Format;
use logmill_connectors::source::{CHUNK_BYTES, Records};
use logmill_pipelines::{ColumnType, UnknownFields};

/// Records like those of departing flights: short texts, numbers, nulls and a time.
const COLUMNS: [(&str, &str); 12] = [
    ("time_hour", "timestamp"),
    ("carrier", "string"),
    ("flight", "int32"),
    ("tailnum", "string"),
    ("origin", "string"),
    ("dest", "string"),
    ("dep_time", "int32"),
    ("dep_delay", "float64"),
    ("arr_time", "int32"),
    ("arr_delay", "float64"),
    ("air_time", "float64"),
    ("distance", "int32"),
];
/// How long each decoder runs.
const MEASURED: Duration = Duration::from_secs(3);

fn schema(columns: &[&str]) -> SchemaRef {
    let chosen = COLUMNS.iter().filter(|(name, _)| columns.contains(name));
    let fields = chosen.map(|(name, kind)| kind.parse::<ColumnType>().unwrap().to_field(name));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn record(number: usize) -> String {
    let delay = match number % 37 {
        0 => "null".to_owned(),
        odd => format!("{}.0", odd as i64 - 12),
    };
    let (day, hour, flight) = (number / 900 % 28 + 1, number % 24, number * 7 % 6000 + 1);
    let (carrier, dest) = (["UA", "AA", "B6", "DL", "EV"][number % 5], ["IAH", "MIA", "BQN", "ATL", "ORD"][number % 5]);
    let (departure, arrival) = (number % 2400, (number + 317) % 2400);
    format!(
        "{{\"time_hour\":\"2013-01-{day:02}T{hour:02}:00:00Z\",\"carrier\":\"{carrier}\",\"flight\":{flight},\
         \"tailnum\":\"N{flight}UA\",\"origin\":\"EWR\",\"dest\":\"{dest}\",\"dep_time\":{departure},\
         \"dep_delay\":{delay},\"arr_time\":{arrival},\"arr_delay\":{delay},\"air_time\":{}.0,\"distance\":{}}}",
        number % 400 + 20,
        number * 13 % 4900 + 80
    )
}

/// Chunks as the file source makes them.
fn chunks() -> Vec<Records> {
    let (mut chunks, mut buffer, mut records) = (Vec::new(), Vec::new(), Records::default());
    for number in 0..200_000 {
        let start = buffer.len();
        buffer.extend_from_slice(record(number).as_bytes());
        records.values.push(Some(start as u32..buffer.len() as u32));
        records.offsets.push(start as i64);
        buffer.push(b'\n');
        if buffer.len() >= CHUNK_BYTES {
            let buffer = std::mem::take(&mut buffer).into();
            chunks.push(Records { buffer, ..std::mem::take(&mut records) });
        }
    }
    chunks
}

/// MB/s of a function over all chunks.
fn measure(chunks: &[Records], mut decode: impl FnMut(&Records) -> usize) -> f64 {
    let expected: usize = chunks.iter().map(Records::len).sum();
    let bytes: usize = chunks.iter().map(|chunk| chunk.buffer.len()).sum();
    let mut run = || assert_eq!(chunks.iter().map(&mut decode).sum::<usize>(), expected);
    run();
    let (started, mut rounds) = (Instant::now(), 0);
    while started.elapsed() < MEASURED {
        run();
        rounds += 1;
    }
    (bytes * rounds) as f64 / started.elapsed().as_secs_f64() / 1e6
}

fn main() {
    let chunks = chunks();
    let all = COLUMNS.map(|(name, _)| name);
    let everything = schema(&all);
    println!("{:<28} {:>12} {:>12} {:>8}", "columns", "ours MB/s", "arrow MB/s", "ratio");
    for (label, columns) in [
        ("all 12", &all[..]),
        ("4, the last one late", &["carrier", "flight", "dep_delay", "distance"]),
        ("2, early", &["carrier", "flight"]),
        ("1 time", &["time_hour"]),
        ("none, rows are counted", &[]),
    ] {
        let wanted = schema(columns);
        let names: Vec<String> = wanted.fields().iter().map(|field| field.name().clone()).collect();
        let mut decoder = Format::Json.decoder(&everything, &names, UnknownFields::Ignore).unwrap();
        let ours = measure(&chunks, |records| black_box(decoder.decode(records).unwrap().rows).num_rows());
        let arrow = measure(&chunks, |records| {
            let builder = ReaderBuilder::new(wanted.clone()).with_batch_size(records.len() + 1);
            let mut decoder = builder.build_decoder().unwrap();
            assert_eq!(decoder.decode(&records.buffer).unwrap(), records.buffer.len());
            black_box(decoder.flush().unwrap().unwrap()).num_rows()
        });
        println!("{label:<28} {ours:>12.0} {arrow:>12.0} {:>8.2}", ours / arrow);
    }
}
