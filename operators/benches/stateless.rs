//! How fast the `sql` operator is, beside DataFusion's batch engine on the same rows in memory, on one core.
//!
//! Both run a query that is already planned, over the same batches, and drop what comes out. The ratio is what
//! counts: it says what the operator costs over the expressions that both evaluate.
#![allow(clippy::expect_used, missing_docs)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{Float64Array, Int32Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::datasource::MemTable;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::StreamExt;
use logmill_operators::operator::{OpenContext, Output, Port, Progress, StaticTable};
use logmill_operators::sql::{Functions, Relation, RelationKind, plan, register_functions};
use logmill_pipelines::flow::RowBatch;

const BATCH_ROWS: usize = 8 * 1024;
/// Rounds of each side; they alternate, and the fastest counts.
const ROUNDS: usize = 7;

const QUERIES: [(&str, &str); 5] = [
    ("all columns", "SELECT * FROM flights"),
    ("filter", "SELECT * FROM flights WHERE delay > 15"),
    (
        "filter and project",
        "SELECT carrier, flight, delay * 60 AS seconds, date_trunc('hour', scheduled) AS hour,
                CASE WHEN delay > 60 THEN 'very late' ELSE 'late' END AS class
         FROM flights WHERE delay > 15 AND carrier <> 'ZZ'",
    ),
    (
        "join a table",
        "SELECT f.flight, f.delay, a.name FROM flights f JOIN airlines a ON a.carrier = f.carrier WHERE f.delay > 15",
    ),
    ("read JSON", "SELECT flight, body->>'gate' AS gate, json_get_int(body, 'bags') AS bags FROM flights"),
];

/// What bad rows cost: a cast inside a CASE, over columns of which no row is bad, one in a hundred, and one in two.
const BAD_ROWS: [(&str, usize); 3] = [("no bad row", 0), ("1 % bad rows", 100), ("50 % bad rows", 2)];
const CAST: &str = "SELECT flight, CASE WHEN delay > -100 THEN CAST(carrier AS INT) END AS n FROM flights";

/// Rows of which every `every`-th has a text that is no number.
fn with_bad_rows(batch: &RecordBatch, every: usize) -> RecordBatch {
    let text = |n: usize| if every > 0 && n.is_multiple_of(every) { format!("x{n}") } else { n.to_string() };
    let text = StringArray::from_iter_values((0..batch.num_rows()).map(text));
    let mut columns = batch.columns().to_vec();
    columns[0] = Arc::new(text);
    RecordBatch::try_new(batch.schema(), columns).expect("columns of one length")
}

fn bad_rows(flights: &[RecordBatch]) {
    println!("\nmillion rows a second, bad rows put aside");
    let mut first = None;
    for (name, every) in BAD_ROWS {
        let flights: Vec<RecordBatch> = flights.iter().map(|batch| with_bad_rows(batch, every)).collect();
        let rows = flights.iter().map(RecordBatch::num_rows).sum::<usize>();
        let mut fastest = Duration::MAX;
        for _ in 0..ROUNDS {
            let (time, out) = run_operator(CAST, &flights);
            let bad = flights.iter().map(|batch| if every > 0 { batch.num_rows().div_ceil(every) } else { 0 });
            assert_eq!(out, rows - bad.sum::<usize>(), "{name}: the others come out");
            fastest = fastest.min(time);
        }
        let rate = rows as f64 / fastest.as_secs_f64() / 1e6;
        let first = *first.get_or_insert(rate);
        println!("{name:<20} {rate:>10.1} {:>18.2}x", rate / first);
    }
}

fn main() {
    // `cargo bench` says so; anything else only wants to see that it runs.
    let batches = if std::env::args().any(|arg| arg == "--bench") { 256 } else { 4 };
    let flights: Vec<RecordBatch> = (0..batches).map(flights).collect();
    let rows = flights.iter().map(RecordBatch::num_rows).sum::<usize>();
    println!("{rows} rows in batches of {BATCH_ROWS}, million rows a second");
    println!("{:<20} {:>10} {:>10} {:>7}", "query", "operator", "batch", "ratio");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    for (name, sql) in QUERIES {
        let (context, physical) = runtime.block_on(batch_plan(sql, &flights));
        let (mut ours, mut theirs) = (Duration::MAX, Duration::MAX);
        for _ in 0..ROUNDS {
            let (time, out) = run_operator(sql, &flights);
            ours = ours.min(time);
            let start = Instant::now();
            let batch_out = runtime.block_on(run_batch(&context, &physical));
            theirs = theirs.min(start.elapsed());
            assert_eq!(out, batch_out, "{name}: both give as many rows");
        }
        let rate = |time: Duration| rows as f64 / time.as_secs_f64() / 1e6;
        println!("{name:<20} {:>10.1} {:>10.1} {:>6.2}x", rate(ours), rate(theirs), rate(ours) / rate(theirs));
    }
    bad_rows(&flights);
}

fn flights_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("carrier", DataType::Utf8, true),
        Field::new("flight", DataType::Int32, true),
        Field::new("scheduled", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true),
        Field::new("delay", DataType::Float64, true),
        Field::new("body", DataType::Utf8, true),
    ]))
}

const CARRIERS: [&str; 8] = ["AA", "UA", "DL", "B6", "WN", "EV", "MQ", "ZZ"];

/// A batch whose every third flight is late.
fn flights(batch: usize) -> RecordBatch {
    let numbers = || (batch * BATCH_ROWS)..((batch + 1) * BATCH_ROWS);
    let scrambled = |n: usize| n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
    let carrier = StringArray::from_iter_values(numbers().map(|n| CARRIERS[scrambled(n) % CARRIERS.len()]));
    let flight = Int32Array::from_iter_values(numbers().map(|n| (scrambled(n) % 6000) as i32));
    let scheduled = numbers().map(|n| 1_356_998_400_000_000 + n as i64 * 1_000_000);
    let scheduled = TimestampMicrosecondArray::from_iter_values(scheduled).with_timezone("UTC");
    let delay = Float64Array::from_iter_values(numbers().map(|n| (scrambled(n) % 90) as f64 - 45.0));
    let body = numbers().map(|n| format!("{{\"gate\":\"A{}\",\"bags\":{}}}", n % 40, n % 200));
    let columns: Vec<arrow::array::ArrayRef> = vec![
        Arc::new(carrier),
        Arc::new(flight),
        Arc::new(scheduled),
        Arc::new(delay),
        Arc::new(StringArray::from_iter_values(body)),
    ];
    RecordBatch::try_new(flights_schema(), columns).expect("columns of one length")
}

fn airlines() -> RecordBatch {
    let fields = ["carrier", "name"].map(|name| Field::new(name, DataType::Utf8, true));
    let names = CARRIERS.map(|carrier| format!("Airline {carrier}"));
    let columns: Vec<arrow::array::ArrayRef> =
        vec![Arc::new(StringArray::from_iter_values(CARRIERS)), Arc::new(StringArray::from_iter_values(names))];
    RecordBatch::try_new(Arc::new(Schema::new(fields.to_vec())), columns).expect("columns of one length")
}

/// Counts rows and drops them.
#[derive(Default)]
struct Drain {
    rows: usize,
    rejected: usize,
}

impl Output for Drain {
    fn emit(&mut self, _: Port, batch: RowBatch) {
        self.rows += batch.num_rows();
    }

    fn reject(&mut self, batch: RowBatch, _: &str) {
        self.rejected += batch.num_rows();
    }

    fn is_full(&self) -> bool {
        false
    }
}

fn run_operator(sql: &str, flights: &[RecordBatch]) -> (Duration, usize) {
    let relation = |name: &str, schema, kind| Relation { name: name.into(), schema, kind, has_meta: true };
    let airlines = airlines();
    let relations = [
        relation("flights", flights_schema(), RelationKind::Stream),
        relation("airlines", airlines.schema(), RelationKind::Table),
    ];
    let plan = plan("bench", sql, &relations, &Functions::default()).expect("a query that can be planned");
    let mut operator = plan.operator();
    let table = StaticTable { name: "airlines".into(), schema: airlines.schema(), batches: vec![airlines] };
    operator.open(OpenContext { tables: vec![table], ..OpenContext::default() }).expect("an operator that opens");
    let mut out = Drain::default();
    let start = Instant::now();
    for batch in flights {
        let batch = RowBatch::inserts(batch.clone());
        let mut progress = operator.on_batch(0, batch, &mut out).expect("rows that can be processed");
        while progress == Progress::More {
            progress = operator.resume(&mut out).expect("rows that can be processed");
        }
    }
    assert!(out.rejected == 0 || sql == CAST, "{} rows were rejected", out.rejected);
    (start.elapsed(), out.rows)
}

async fn batch_plan(sql: &str, flights: &[RecordBatch]) -> (SessionContext, Arc<dyn ExecutionPlan>) {
    let mut config = SessionConfig::new().with_target_partitions(1).with_batch_size(BATCH_ROWS);
    config.options_mut().sql_parser.map_string_types_to_utf8view = false;
    let context = SessionContext::new_with_config(config);
    register_functions(&context, &Functions::default());
    for (name, batches) in [("flights", flights.to_vec()), ("airlines", vec![airlines()])] {
        let schema = batches.first().map_or_else(flights_schema, RecordBatch::schema);
        let table = MemTable::try_new(schema, vec![batches]).expect("batches of one schema");
        context.register_table(name, Arc::new(table)).expect("a name that is free");
    }
    let frame = context.sql(sql).await.expect("a query that can be planned");
    let physical = frame.create_physical_plan().await.expect("a query that can be planned");
    (context, physical)
}

async fn run_batch(context: &SessionContext, physical: &Arc<dyn ExecutionPlan>) -> usize {
    // Nodes keep what they built; a fresh copy of the plan builds it again, as the operator does when it opens.
    let fresh = datafusion::physical_plan::execution_plan::reset_plan_states(Arc::clone(physical)).expect("a plan");
    let mut stream = execute_stream(fresh, context.task_ctx()).expect("a plan that runs");
    let mut rows = 0;
    while let Some(batch) = stream.next().await {
        rows += batch.expect("rows that can be processed").num_rows();
    }
    rows
}
