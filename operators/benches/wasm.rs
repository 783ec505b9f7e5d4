//! What guests cost, beside the same without them, on one core.
//!
//! ```text
//!   row batches   NDJSON is decoded, then filtered by the sql operator; with and without an identity in between
//!   records       the rows of a batch through a transform that copies them; texts of JSON through one that reads and writes them
//!                 with serde, beside the same in Rust
//!   functions     a function of a module beside the same in Rust, over the same columns
//! ```
//!
//! The ratios and the times a row are what counts; both sides of each run alternate, and the fastest round of each is taken.
#![allow(clippy::expect_used, missing_docs)]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Float64Type, Schema, SchemaRef};
use arrow::json::ReaderBuilder;
use arrow::json::writer::{LineDelimited, WriterBuilder};
use datafusion::common::config::ConfigOptions;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF};
use logmill_operators::operator::{OpenContext, Operator, Output, Port, Progress};
use logmill_operators::sql::{Functions, Relation, RelationKind};
use logmill_operators::wasm::{WasmPlan, WasmRequest, functions, plan};
use logmill_pipelines::flow::RowBatch;
use logmill_wasm::{Guest, GuestLog, Host, Level, Limits};
use serde::{Deserialize, Serialize};

const BATCH_ROWS: usize = 8 * 1024;
/// Rounds of each side.
const ROUNDS: usize = 7;
const LIMITS: Limits = Limits { memory_bytes: 128 * 1024 * 1024, deadline: Duration::from_secs(60) };

fn main() {
    // `cargo bench` says so; anything else only wants to see that it runs.
    let batches = if std::env::args().any(|arg| arg == "--bench") { 64 } else { 2 };
    let host = Host::new(None).expect("a host for guests");
    println!("batches of {BATCH_ROWS} rows");
    println!("{:<44} {:>9} {:>9} {:>7}", "", "without", "with", "ratio");
    row_batches(&host, batches);
    records(&host, batches);
    calls(&host, batches);
    instances(&host);
}

struct Silent;

impl GuestLog for Silent {
    fn line(&self, _: Level, _: &str) {}
}

fn guest(host: &Host, name: &str) -> Guest {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/guests/built").join(format!("{name}.wasm"));
    host.load(&std::fs::read(path).expect("a module that is built")).expect("a module that loads")
}

fn flights_schema() -> SchemaRef {
    let field = |name, kind| Field::new(name, kind, true);
    Arc::new(Schema::new(vec![
        field("carrier", DataType::Utf8),
        field("flight", DataType::Int32),
        field("tailnum", DataType::Utf8),
        field("dep_delay", DataType::Float64),
        field("distance", DataType::Int64),
        field("origin", DataType::Utf8),
        field("remark", DataType::Utf8),
    ]))
}

/// Flights of about 200 bytes as JSON.
fn flights(batch: usize) -> RecordBatch {
    let scrambled = |n: usize| n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
    let numbers = || (batch * BATCH_ROWS..(batch + 1) * BATCH_ROWS).map(scrambled);
    let carriers = ["AA", "UA", "DL", "B6", "WN", "EV", "MQ", "YV"];
    let remark = |n: usize| format!("gate {} changed at short notice, crew {} informed by the desk", n % 60, n % 991);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(numbers().map(|n| carriers[n % carriers.len()]))),
        Arc::new(Int32Array::from_iter_values(numbers().map(|n| (n % 6000) as i32))),
        Arc::new(StringArray::from_iter_values(numbers().map(|n| format!("N{:05}", n % 100_000)))),
        Arc::new(Float64Array::from_iter_values(numbers().map(|n| (n % 90) as f64 - 45.0))),
        Arc::new(Int64Array::from_iter_values(numbers().map(|n| 1 + (n % 2900) as i64))),
        Arc::new(StringArray::from_iter_values(numbers().map(|n| ["EWR", "JFK", "LGA"][n % 3]))),
        Arc::new(StringArray::from_iter_values(numbers().map(remark))),
    ];
    RecordBatch::try_new(flights_schema(), columns).expect("columns of one length")
}

/// The fastest rounds of two ways to do the same.
fn side_by_side(mut one: impl FnMut() -> usize, mut other: impl FnMut() -> usize) -> (Duration, Duration) {
    let (mut fastest, mut rows) = ((Duration::MAX, Duration::MAX), (0, 0));
    for _ in 0..ROUNDS {
        let start = Instant::now();
        rows.0 = one();
        fastest.0 = fastest.0.min(start.elapsed());
        let start = Instant::now();
        rows.1 = other();
        fastest.1 = fastest.1.min(start.elapsed());
    }
    assert_eq!(rows.0, rows.1, "both give as many rows");
    fastest
}

fn per_row_ns(time: Duration, rows: usize) -> f64 {
    time.as_secs_f64() * 1e9 / rows as f64
}

fn report(what: &str, rows: usize, (without, with): (Duration, Duration)) {
    let ratio = without.as_secs_f64() / with.as_secs_f64();
    let (without, with) = (per_row_ns(without, rows), per_row_ns(with, rows));
    println!("{what:<44} {without:>6.1} ns {with:>6.1} ns {ratio:>6.2}x");
}

/// Hands everything on to the next operator, or counts and drops it.
struct Next<'a> {
    operator: Option<&'a mut dyn Operator>,
    rows: usize,
}

impl Output for Next<'_> {
    fn emit(&mut self, _: Port, batch: RowBatch) {
        match &mut self.operator {
            Some(operator) => self.rows += run(*operator, batch, None),
            None => self.rows += batch.num_rows(),
        }
    }

    fn reject(&mut self, _: RowBatch, reason: &str) {
        eprintln!("rejected: {reason}");
    }

    fn is_full(&self) -> bool {
        false
    }
}

fn run(operator: &mut dyn Operator, batch: RowBatch, next: Option<&mut dyn Operator>) -> usize {
    let mut out = Next { operator: next, rows: 0 };
    let mut progress = operator.on_batch(0, batch, &mut out).expect("rows that can be processed");
    while progress == Progress::More {
        progress = operator.resume(&mut out).expect("rows that can be processed");
    }
    out.rows
}

fn opened(mut operator: Box<dyn Operator>) -> Box<dyn Operator> {
    operator.open(OpenContext::default()).expect("an operator that opens");
    operator
}

fn planned(host: &Host, name: &str, schema: SchemaRef) -> WasmPlan {
    let input = Relation { name: "flights".into(), schema, kind: RelationKind::Stream, has_meta: false };
    let (guest, log) = (guest(host, name), Arc::new(Silent));
    let request = WasmRequest { operator: name, guest: &guest, input: &input, config: None, limits: LIMITS, log };
    plan(request).expect("a module that fits")
}

fn row_batches(host: &Host, batches: usize) {
    let all: Vec<RecordBatch> = (0..batches).map(flights).collect();
    let identity = planned(host, "identity", flights_schema());
    let rows = batches * BATCH_ROWS;
    let mut guest = opened(identity.operator().expect("an operator"));
    let count = || all.iter().map(RecordBatch::num_rows).sum();
    let mut through = || all.iter().map(|rows| run(guest.as_mut(), RowBatch::inserts(rows.clone()), None)).sum();
    report("identity alone", rows, side_by_side(count, &mut through));

    let texts: Vec<Vec<u8>> = all.iter().map(ndjson).collect();
    let input =
        Relation { name: "flights".into(), schema: flights_schema(), kind: RelationKind::Stream, has_meta: false };
    let sql = "SELECT carrier, flight, dep_delay * 60 AS seconds FROM flights WHERE dep_delay > 15";
    let sql = logmill_operators::sql::plan("late", sql, &[input], &Functions::default()).expect("a query");
    let (mut alone, mut after) = (opened(sql.operator()), opened(sql.operator()));
    let native = || texts.iter().map(|text| run(alone.as_mut(), decode(text), None)).sum();
    let with = || texts.iter().map(|text| run(guest.as_mut(), decode(text), Some(after.as_mut()))).sum();
    report("NDJSON to filter, an identity in between", rows, side_by_side(native, with));
}

fn ndjson(rows: &RecordBatch) -> Vec<u8> {
    let mut writer = WriterBuilder::new().build::<_, LineDelimited>(Vec::new());
    writer.write(rows).expect("rows as JSON");
    writer.finish().expect("rows as JSON");
    writer.into_inner()
}

fn decode(text: &[u8]) -> RowBatch {
    let reader = ReaderBuilder::new(flights_schema()).with_batch_size(BATCH_ROWS).build(text);
    let rows = reader.expect("a reader").next().expect("a batch").expect("JSON");
    RowBatch::inserts(rows)
}

fn records(host: &Host, batches: usize) {
    let all: Vec<RecordBatch> = (0..batches).map(flights).collect();
    let texts = all.iter().map(|rows| {
        let text = ndjson(rows);
        let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let lines = lines.map(|line| std::str::from_utf8(line).expect("JSON is UTF-8"));
        let column: ArrayRef = Arc::new(StringArray::from_iter_values(lines));
        RecordBatch::try_from_iter_with_nullable([("value", column, true)]).expect("a column")
    });
    let texts: Vec<RecordBatch> = texts.collect();
    let rows = batches * BATCH_ROWS;
    for (what, name, input) in
        [("record at a time, copied as text", "copy", &texts), ("record at a time, copied as JSON", "copy", &all)]
    {
        let mut guest = guest_of(host, name, input);
        let count = || input.iter().map(RecordBatch::num_rows).sum();
        report(what, rows, side_by_side(count, || through(guest.as_mut(), input)));
    }
    let mut guest = guest_of(host, "records", &texts);
    let native = || texts.iter().map(|texts| rated(texts).num_rows()).sum();
    report("record at a time, JSON with serde", rows, side_by_side(native, || through(guest.as_mut(), &texts)));
}

fn guest_of(host: &Host, name: &str, input: &[RecordBatch]) -> Box<dyn Operator> {
    opened(planned(host, name, input[0].schema()).operator().expect("an operator"))
}

fn through(guest: &mut dyn Operator, input: &[RecordBatch]) -> usize {
    input.iter().map(|rows| run(guest, RowBatch::inserts(rows.clone()), None)).sum()
}

#[derive(Deserialize)]
struct Flight<'a> {
    carrier: &'a str,
    flight: i32,
    tailnum: Option<&'a str>,
    dep_delay: Option<f64>,
    distance: i64,
}

#[derive(Serialize)]
struct Rated {
    carrier: String,
    flight: i32,
    tailnum: Option<String>,
    minutes_per_mile: Option<f64>,
}

/// What the guest `records` does, and what becomes of it: texts of JSON to structs, to texts of JSON, to columns.
fn rated(texts: &RecordBatch) -> RecordBatch {
    let mut out = Vec::new();
    for text in texts.column(0).as_string::<i32>().iter().flatten() {
        let flight: Flight<'_> = serde_json::from_str(text).expect("a flight");
        let rated = Rated {
            carrier: flight.carrier.to_owned(),
            flight: flight.flight,
            tailnum: flight.tailnum.map(str::to_owned),
            minutes_per_mile: flight.dep_delay.map(|delay| delay / flight.distance as f64),
        };
        serde_json::to_writer(&mut out, &rated).expect("a struct as JSON");
        out.push(b'\n');
    }
    let field = |name, kind| Field::new(name, kind, true);
    let schema = Schema::new(vec![
        field("carrier", DataType::Utf8),
        field("flight", DataType::Int32),
        field("tailnum", DataType::Utf8),
        field("minutes_per_mile", DataType::Float64),
    ]);
    let reader = ReaderBuilder::new(Arc::new(schema)).with_batch_size(BATCH_ROWS).build(out.as_slice());
    reader.expect("a reader").next().expect("a batch").expect("JSON")
}

fn haversine_km(args: &[&Float64Array], row: usize) -> f64 {
    let [lat_a, lon_a, lat_b, lon_b] = [0, 1, 2, 3].map(|arg| args[arg].value(row));
    let (from, to) = (lat_a.to_radians(), lat_b.to_radians());
    let (half_north, half_east) = ((to - from) / 2.0, (lon_b - lon_a).to_radians() / 2.0);
    let chord = half_north.sin().powi(2) + from.cos() * to.cos() * half_east.sin().powi(2);
    2.0 * 6_371.008_8 * chord.sqrt().min(1.0).asin()
}

fn multiply_add(args: &[&Float64Array], row: usize) -> f64 {
    args[0].value(row) * args[1].value(row) + args[2].value(row)
}

fn native(columns: &[ArrayRef], compute: fn(&[&Float64Array], usize) -> f64) -> ArrayRef {
    let args: Vec<&Float64Array> = columns.iter().map(|column| column.as_primitive::<Float64Type>()).collect();
    let valid = |row: usize| args.iter().all(|arg| arg.is_valid(row));
    Arc::new(Float64Array::from_iter((0..columns[0].len()).map(|row| valid(row).then(|| compute(&args, row)))))
}

fn call(udf: &ScalarUDF, columns: &[ArrayRef]) -> ArrayRef {
    let args: Vec<ColumnarValue> = columns.iter().map(|column| ColumnarValue::Array(Arc::clone(column))).collect();
    let field = || Arc::new(Field::new("argument", DataType::Float64, true));
    let called = udf.invoke_with_args(ScalarFunctionArgs {
        arg_fields: args.iter().map(|_| field()).collect(),
        args,
        number_rows: columns[0].len(),
        return_field: field(),
        config_options: Arc::new(ConfigOptions::new()),
    });
    called.and_then(|result| result.into_array(columns[0].len())).expect("a function that does not fail")
}

fn calls(host: &Host, batches: usize) {
    let all = functions(&guest(host, "functions"), None, LIMITS, Arc::new(Silent)).expect("functions");
    let column = |seed: usize| {
        let number = |n: usize| ((n * 7919 + seed * 104_729) % 18_000) as f64 / 100.0 - 90.0;
        Arc::new(Float64Array::from_iter_values((0..BATCH_ROWS).map(number))) as ArrayRef
    };
    for (name, arguments, compute) in
        [("haversine_km", 4, haversine_km as fn(&[&Float64Array], usize) -> f64), ("multiply_add", 3, multiply_add)]
    {
        let columns: Vec<ArrayRef> = (0..arguments).map(column).collect();
        let function = all.iter().find(|function| function.name() == name).expect("a function of the module");
        let udf = function.udf(name);
        assert_eq!(call(&udf, &columns).len(), native(&columns, compute).len());
        let ours = || (0..batches).map(|_| native(&columns, compute).len()).sum();
        let theirs = || (0..batches).map(|_| call(&udf, &columns).len()).sum();
        report(&format!("function {name}"), batches * BATCH_ROWS, side_by_side(ours, theirs));
    }
}

/// Making an instance of a module that is loaded, its signature asked.
fn instances(host: &Host) {
    let plan = planned(host, "identity", flights_schema());
    let one_row = flights(0).slice(0, 1);
    let mut fastest = Duration::MAX;
    for _ in 0..ROUNDS {
        let mut operator = opened(plan.operator().expect("an operator"));
        let start = Instant::now();
        run(operator.as_mut(), RowBatch::inserts(one_row.clone()), None);
        fastest = fastest.min(start.elapsed());
    }
    println!("a new instance, its signature and a first row: {:.0} µs", fastest.as_secs_f64() * 1e6);
}
