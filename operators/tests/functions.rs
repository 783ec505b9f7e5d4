//! Whatever a function is called with, a row is put out or put aside: nothing panics, aborts or takes the memory of the
//! machine.
//!
//! Every scalar function is called with arguments of the types that it takes, drawn at random with a seed: columns and
//! constants that hold the extreme values of their types. `LOGMILL_TEST_SEED` chooses another seed.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::alloc::System;
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, FieldRef, IntervalMonthDayNano, IntervalUnit, Schema};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::ScalarUDF;
use datafusion::logical_expr::type_coercion::functions::fields_with_udf;
use datafusion::prelude::SessionContext;
use logmill_operators::error::OperatorError;
use logmill_operators::operator::{OpenContext, Output, Port, Progress};
use logmill_operators::sql::{Functions, Relation, RelationKind, plan, register_functions};
use logmill_pipelines::flow::RowBatch;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// How many calls of each function are tried.
const CALLS: usize = 6;
/// Of how many lists of arguments they are drawn; most have types that the function does not take.
const DRAWN: usize = 400;
/// What one query may allocate in all, in bytes: a few times what a batch may become.
const QUERY_BYTES: usize = 4 << 30;

fn texts(values: &[&str]) -> Vec<ScalarValue> {
    values.iter().map(|text| ScalarValue::from(*text)).collect()
}

fn list(values: &[ScalarValue], item: &DataType) -> ScalarValue {
    ScalarValue::List(ScalarValue::new_list_nullable(values, item))
}

/// The columns of the input: each type with its extreme values.
fn columns() -> Vec<(&'static str, Vec<ScalarValue>)> {
    let micros = |value| ScalarValue::TimestampMicrosecond(Some(value), Some("UTC".into()));
    let interval =
        |(months, days, nanos)| ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano::new(months, days, nanos)));
    let numbers =
        |values: &[i64]| list(&values.iter().map(|n| ScalarValue::from(*n)).collect::<Vec<_>>(), &DataType::Int64);
    let words = |values: &[&str]| list(&texts(values), &DataType::Utf8);
    let binary = |bytes: &[u8]| ScalarValue::Binary(Some(bytes.to_vec()));
    let long = "x".repeat(100_000);
    let intervals = [(i32::MIN, i32::MIN, i64::MIN), (i32::MAX, 0, 0), (0, 0, 1), (0, 0, 0), (1, -30, 0), (0, 1, 0)];
    vec![
        ("i64", [i64::MIN, i64::MAX, -1, 0, 1, 7].map(ScalarValue::from).to_vec()),
        ("i32", [i32::MIN, i32::MAX, -1, 0, 1, 7].map(ScalarValue::from).to_vec()),
        ("f64", [f64::MIN, f64::MAX, f64::NAN, f64::NEG_INFINITY, -0.0, 1.5].map(ScalarValue::from).to_vec()),
        ("b", [true, false, true, false, true, false].map(ScalarValue::from).to_vec()),
        ("s", texts(&["", "é\u{0}%_\\", "9223372036854775807", "2013-01-01T05:00:00Z", "(", &long])),
        ("bin", [&b""[..], b"\xff\xfe", b"abc", b"0", b"\0", b"[1]"].map(binary).to_vec()),
        ("ts", [i64::MIN, i64::MAX, -1, 0, 1, 1_356_998_400_000_000].map(micros).to_vec()),
        ("d", [i32::MIN, i32::MAX, -1, 0, 1, 15_000].map(|day| ScalarValue::Date32(Some(day))).to_vec()),
        ("iv", intervals.map(interval).to_vec()),
        ("li", [&[][..], &[i64::MIN, i64::MAX], &[0; 1000], &[1, 1, 2], &[-1], &[7, 8]].map(numbers).to_vec()),
        ("ls", [&[][..], &["a", "", "é"], &[&long, &long], &["a"; 100], &["("], &["%"]].map(words).to_vec()),
    ]
}

/// A row of each value, and one of nulls.
fn rows(columns: &[(&'static str, Vec<ScalarValue>)]) -> RecordBatch {
    let column = |(name, values): &(&'static str, Vec<ScalarValue>)| {
        let null = ScalarValue::try_from(values[0].data_type()).unwrap();
        let array = ScalarValue::iter_to_array(values.iter().cloned().chain([null])).unwrap();
        (Field::new(*name, array.data_type().clone(), true), array)
    };
    let (fields, arrays): (Vec<_>, Vec<_>) = columns.iter().map(column).unzip();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap()
}

/// Constants as SQL writes them, beside the columns: those that functions take no column for, and extreme ones.
const CONSTANTS: [(&str, DataType); 12] = [
    ("9223372036854775807", DataType::Int64),
    ("(-9223372036854775807 - 1)", DataType::Int64),
    ("1000000000", DataType::Int64),
    ("-1", DataType::Int64),
    ("'day'", DataType::Utf8),
    ("'sha256'", DataType::Utf8),
    ("'hex'", DataType::Utf8),
    ("''", DataType::Utf8),
    ("'%Y'", DataType::Utf8),
    ("'Int32'", DataType::Utf8),
    ("'g'", DataType::Utf8),
    ("INTERVAL '1 nanosecond'", DataType::Interval(IntervalUnit::MonthDayNano)),
];

#[derive(Default)]
struct Counted {
    emitted: usize,
    rejected: usize,
    reasons: Vec<String>,
}

impl Output for Counted {
    fn emit(&mut self, _: Port, batch: RowBatch) {
        self.emitted += batch.num_rows();
    }

    fn reject(&mut self, batch: RowBatch, reason: &str) {
        assert!(!reason.is_empty());
        self.rejected += batch.num_rows();
        self.reasons.push(reason.to_owned());
    }

    fn is_full(&self) -> bool {
        false
    }
}

/// Runs a query over rows; the first error is that it is refused.
fn run(sql: &str, rows: &RecordBatch) -> Result<Result<Counted, OperatorError>, String> {
    let relation = Relation { name: "t".into(), schema: rows.schema(), kind: RelationKind::Stream, has_meta: false };
    let plan = plan("op", sql, &[relation], &Functions::default()).map_err(|errors| format!("{errors:?}"))?;
    let mut counted = Counted::default();
    let mut operator = plan.operator();
    let mut play = || {
        operator.open(OpenContext::default())?;
        let mut progress = operator.on_batch(0, RowBatch::inserts(rows.clone()), &mut counted)?;
        while progress == Progress::More {
            progress = operator.resume(&mut counted)?;
        }
        Ok(())
    };
    let played = play();
    Ok(played.map(|()| counted))
}

/// Every scalar function, by its name; aliases are left out.
fn functions() -> BTreeMap<String, Arc<ScalarUDF>> {
    let context = SessionContext::new();
    register_functions(&context, &Functions::default());
    let functions = context.state().scalar_functions().clone();
    functions.into_values().map(|function| (function.name().to_owned(), function)).collect()
}

#[test]
fn no_function_panics_aborts_or_takes_all_memory_whatever_it_is_given() {
    let seed = std::env::var("LOGMILL_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(7);
    let mut random = fastrand::Rng::with_seed(seed);
    let columns = columns();
    let once = rows(&columns);
    let rows = concat_batches(&once.schema(), &vec![once; 3]).unwrap();
    let column = |(name, values): &(&'static str, Vec<ScalarValue>)| (*name, values[0].data_type());
    let arguments: Vec<(&str, FieldRef)> = columns
        .iter()
        .map(column)
        .chain(CONSTANTS)
        .map(|(text, data_type)| (text, Arc::new(Field::new(text, data_type, true))))
        .collect();
    let (mut called, mut rejected) = (0, 0);
    for (name, function) in functions() {
        let mut calls = 0;
        for drawn in 0..DRAWN {
            let count = if drawn == 0 { 0 } else { random.usize(1..=4) };
            let drawn: Vec<_> = (0..count).map(|_| &arguments[random.usize(..arguments.len())]).collect();
            let fields: Vec<FieldRef> = drawn.iter().map(|(_, field)| Arc::clone(field)).collect();
            if fields_with_udf(&fields, function.as_ref()).is_err() {
                continue;
            }
            let list: Vec<&str> = drawn.iter().map(|(text, _)| *text).collect();
            let sql = format!("SELECT {name}({}) AS x FROM t", list.join(", "));
            let region = Region::new(ALLOCATOR);
            let Ok(outcome) = run(&sql, &rows) else { continue };
            let counted = outcome.unwrap_or_else(|error| panic!("seed {seed}: {sql}: {error:?}"));
            assert_eq!(counted.emitted + counted.rejected, rows.num_rows(), "seed {seed}: {sql}");
            let bytes = region.change().bytes_allocated;
            assert!(bytes < QUERY_BYTES, "seed {seed}: {sql} allocates {bytes} bytes");
            rejected += counted.rejected;
            called += 1;
            calls += 1;
            if calls == CALLS {
                break;
            }
        }
    }
    assert!(called > 300 && rejected > 300, "only {called} calls were tried, which rejected {rejected} rows");
}

/// What stopped runs: these rows fail, and none of the others.
#[test]
fn operators_casts_and_functions_fail_on_their_rows_alone() {
    let rows = rows(&columns());
    let mut wrong = Vec::new();
    for (sql, rejected) in [
        ("abs(i64)", 1),
        ("i64 / -1", 1),
        ("100 / i64", 1),
        ("CAST(s AS bigint)", 5),
        ("lpad(s, i64)", 1),
        ("rpad(s, i64, 'é')", 1),
        ("repeat(s, i64)", 1),
        ("array_resize(li, i64)", 3),
        ("array_repeat(i64, i64)", 1),
        ("range(i64)", 1),
        ("generate_series(0, i64, 1)", 1),
        ("range(ts, ts + INTERVAL '400 years', INTERVAL '1 nanosecond')", 6),
        ("CASE WHEN i64 > 0 THEN CAST(s AS bigint) END", 3),
        ("i64 <> 0 AND 10 / i64 > 1", 0),
        ("i64 = 0 OR CAST(s AS bigint) > 1", 4),
    ] {
        let counted = run(&format!("SELECT {sql} AS x, i64 FROM t"), &rows);
        let counted = counted.unwrap_or_else(|refused| panic!("{sql}: {refused}"));
        let counted = counted.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        if (counted.rejected, counted.emitted) != (rejected, rows.num_rows() - rejected) {
            wrong.push(format!("{sql}: {} rows are rejected, not {rejected}: {:?}", counted.rejected, counted.reasons));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// What can only fail is refused when it is planned.
#[test]
fn what_can_only_fail_is_refused() {
    let rows = rows(&columns());
    let mut wrong = Vec::new();
    for sql in [
        "digest('x', 'nosuch')",
        "CAST('a' AS int)",
        "1 / 0",
        "i64 + abs(-9223372036854775807 - 1)",
        "lpad('x', 9223372036854775807)",
        "repeat('x', 9223372036854775807)",
        "array_resize([1], -1)",
        "range(9223372036854775807)",
        "date_trunc(s, ts)",
        "encode(s, s)",
        "regexp_like(s, '(')",
    ] {
        match run(&format!("SELECT i64,\n  {sql} AS x FROM t"), &rows).err() {
            Some(refused) if refused.contains("line: 2") => {}
            other => wrong.push(format!("{sql}: {other:?}")),
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
