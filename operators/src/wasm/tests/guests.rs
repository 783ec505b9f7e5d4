//! Guests that are WebAssembly: the modules of `tests/guests`, which `build.sh` there makes.

use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Schema};
use logmill_pipelines::ColumnType;
use logmill_pipelines::flow::{CheckpointEpoch, Origin, RowBatch, SplitId, Watermark};
use logmill_wasm::{Guest, GuestLog, Host, Level, Limits};
use serde_json::{Value, json};

use super::narrowing::message;
use crate::conformance::{Case, Event, Said, as_text, check, play};
use crate::operator::{OpenContext, Operator, Output, Port, Progress, StateBuffer};
use crate::sql::{Relation, RelationKind};
use crate::wasm::{PlanError, WasmPlan, WasmRequest, plan};

pub(super) static HOST: LazyLock<Host> = LazyLock::new(|| Host::new(None).unwrap());

pub(super) struct Silent;

impl GuestLog for Silent {
    fn line(&self, _: Level, _: &str) {}
}

/// For guests that end: however busy the machine is.
pub(super) const PATIENT: Limits = Limits { memory_bytes: 64 * 1024 * 1024, deadline: Duration::from_secs(60) };

pub(super) fn module(name: &str) -> Guest {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/guests/built").join(format!("{name}.wasm"));
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    HOST.load(&bytes).unwrap()
}

/// A module that several tests use; compiling one takes a while.
macro_rules! shared {
    ($($name:ident: $file:literal),*) => {
        $(static $name: LazyLock<Guest> = LazyLock::new(|| module($file));)*
    };
}

shared!(IDENTITY: "identity", HOSTILE: "hostile", COUNTER: "hostile-stateful", TALLY: "tally");

/// Flights, as a source of records has them.
fn flights(first: i64, rows: i64) -> RecordBatch {
    let numbers = || first..first + rows;
    let carrier = numbers().map(|n| ["UA", "AA", "B6"][usize::try_from(n % 3).unwrap()]);
    let delay = Float64Array::from_iter(numbers().map(|n| (n % 5 > 0).then_some(n as f64 / 2.0)));
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("carrier", Arc::new(StringArray::from_iter_values(carrier))),
        ("flight", Arc::new(Int64Array::from_iter_values(numbers()))),
        ("delay", Arc::new(delay)),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true))).unwrap()
}

pub(super) fn relation(schema: Arc<Schema>, has_meta: bool) -> Relation {
    Relation { name: "flights".into(), schema, kind: RelationKind::Stream, has_meta }
}

pub(super) fn planned_with(
    guest: &Guest,
    config: &Value,
    limits: Limits,
    input: &Relation,
) -> Result<WasmPlan, PlanError> {
    let config = (!config.is_null()).then_some(config);
    plan(WasmRequest { operator: "op", guest, input, config, limits, log: Arc::new(Silent) })
}

fn planned(guest: &Guest, config: Value) -> Result<WasmPlan, PlanError> {
    planned_with(guest, &config, PATIENT, &relation(flights(0, 1).schema(), true))
}

fn batch(partition: u32, first: i64, rows: i64) -> RowBatch {
    let origin = Origin { source: "flights".into(), split: SplitId::new(partition.to_string()), offset: first };
    RowBatch { rows: flights(first, rows), ops: None, origin: Some(origin), lineage: None }
}

fn case<'a>(make: &'a dyn Fn() -> Box<dyn Operator>, batches: &[RowBatch]) -> Case<'a> {
    let events = batches.iter().map(|batch| Event::Batch(0, batch.clone())).collect();
    Case { make, open: OpenContext::default(), events, ordered: true }
}

fn said(plan: &WasmPlan, batches: &[RowBatch]) -> Result<Said, String> {
    play(&case(&|| plan.operator().unwrap(), batches))
}

#[test]
fn an_identity_gives_what_it_gets() {
    let plan = planned(&IDENTITY, Value::Null).unwrap();
    let names: Vec<&str> = plan.outputs().iter().map(|port| &*port.name).collect();
    assert_eq!((names, plan.reads()), (vec!["op"], &["carrier", "flight", "delay"].map(str::to_owned)[..]));
    assert!(!plan.is_stateful() && !plan.hidden() && plan.state_version().is_none());
    assert!(plan.fingerprint().contains(plan.digest()));
    let make = || plan.operator().unwrap();
    let case = case(&make, &[batch(0, 0, 10), batch(1, 10, 7)]);
    check(&case).unwrap();
    assert_eq!(play(&case).unwrap().rows[0], as_text(&flights(0, 17), None));
}

#[test]
fn every_type_of_column_passes_through_a_guest() {
    let types = "boolean int8 int64 uint8 uint64 float32 float64 decimal(10,2) string binary json date time timestamp \
                 timestamp_local list<int32> struct{a:string,b:list<float64>}";
    let kinds: Vec<ColumnType> = types.split(' ').filter(|word| !word.is_empty()).map(|t| t.parse().unwrap()).collect();
    let fields: Vec<_> = kinds.iter().enumerate().map(|(n, kind)| kind.to_field(&format!("c{n}"))).collect();
    let schema = Arc::new(Schema::new(fields));
    let plan = planned_with(&IDENTITY, &Value::Null, PATIENT, &relation(schema.clone(), false)).unwrap();
    assert_eq!(plan.outputs()[0].schema, schema);
    let columns = schema.fields().iter().map(|field| arrow::array::new_null_array(field.data_type(), 3)).collect();
    let rows = RecordBatch::try_new(schema, columns).unwrap();
    assert_eq!(said(&plan, &[RowBatch::inserts(rows)]).unwrap().rows[0].len(), 3);
}

#[test]
fn outputs_have_names_and_the_module_says_what_does_not_fit() {
    let splitter = module("splitter");
    let plan = planned(&splitter, json!({"column": "delay", "from": 3})).unwrap();
    let names: Vec<&str> = plan.outputs().iter().map(|port| &*port.name).collect();
    assert_eq!(names, ["op", "op.rejects"]);
    let said = said(&plan, &[batch(0, 5, 4)]).unwrap();
    assert_eq!(said.rows[0], ["UA|6|3.0", "AA|7|3.5", "B6|8|4.0"]);
    assert_eq!(said.rows[1], ["B6|5|null|delay is null"]);
    for (config, expected) in [
        (json!({"column": "delays", "from": 3}), "the input has no column `delays`"),
        (json!({"column": "carrier", "from": 3}), "not a number"),
        (json!({"colum": "carrier"}), "colum"),
        (Value::Null, "config"),
    ] {
        let error = planned(&splitter, config).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_failing_row_is_rejected_however_the_guest_fails() {
    let short = Limits { memory_bytes: 32 * 1024 * 1024, deadline: Duration::from_millis(300) };
    for (mode, expected) in [
        ("panic", "hostile as it was told to be"),
        ("abort", "the guest failed"),
        ("error", "refused as it was told to"),
        ("blind", "refused as it was told to"),
        ("stack", "the guest"),
        ("memory", "for want of memory"),
        ("loop", "did not come back within"),
        ("garbage", "no valid Arrow IPC stream"),
        ("truncated", "no valid Arrow IPC stream"),
        ("huge", "the guest"),
        ("name", "for an output `unheard-of`"),
        ("schema", "the column `unheard_of`"),
    ] {
        let config = json!({"mode": mode, "when": {"column": "flight", "equals": 5}});
        let limits = if mode == "loop" { short } else { Limits { deadline: PATIENT.deadline, ..short } };
        for (guest, seen) in [(&*HOSTILE, false), (&*COUNTER, true)] {
            let plan = planned_with(guest, &config, limits, &relation(flights(0, 1).schema(), true)).unwrap();
            let said = said(&plan, &[batch(0, 0, 8), batch(0, 8, 2)]).unwrap();
            let good = [flights(0, 5), flights(6, 4)].map(|rows| as_text(&rows, None)).concat();
            let count = |(row, seen_so_far): (&String, usize)| format!("{row}|{seen_so_far}");
            let counted = good.iter().zip(1..).map(count).collect();
            assert_eq!(said.rows[0], if seen { counted } else { good }, "{mode}");
            let [rejected] = &said.rejected[..] else { panic!("{mode}: {:?}", said.rejected) };
            assert!(rejected.starts_with("B6|5|null: ") && rejected.contains(expected), "{mode}: {rejected}");
        }
    }
}

#[test]
fn a_stateful_guest_holds_the_contract_with_rows_it_fails_on() {
    for mode in ["panic", "error"] {
        let config = json!({"mode": mode, "when": {"column": "carrier", "equals": "AA"}});
        let plan = planned(&COUNTER, config).unwrap();
        assert!(plan.is_stateful() && plan.state_version() == Some(1));
        let make = || plan.operator().unwrap();
        check(&case(&make, &[batch(0, 0, 5), batch(1, 0, 4), batch(16, 5, 3), batch(3, 4, 1)])).unwrap();
    }
}

/// Keeps what is emitted as text.
struct Kept<'a>(&'a mut Vec<String>);

impl Output for Kept<'_> {
    fn emit(&mut self, port: Port, batch: RowBatch) {
        self.0.extend(as_text(&batch.rows, None).into_iter().map(|row| format!("{port}: {row}")));
    }

    fn reject(&mut self, batch: RowBatch, reason: &str) {
        self.0.extend(as_text(&batch.rows, None).into_iter().map(|row| format!("rejected: {row}: {reason}")));
    }

    fn is_full(&self) -> bool {
        false
    }
}

/// The state of a tally after some flights of two partitions.
fn tallied() -> Vec<StateBuffer> {
    let plan = planned(&TALLY, json!({"key": "carrier", "value": "flight"})).unwrap();
    let mut operator = plan.operator().unwrap();
    operator.open(OpenContext::default()).unwrap();
    let mut heard = Vec::new();
    operator.on_batch(0, batch(0, 0, 6), &mut Kept(&mut heard)).unwrap();
    operator.on_batch(0, batch(1, 0, 3), &mut Kept(&mut heard)).unwrap();
    assert_eq!(heard, ["0: AA|2|5", "0: B6|2|7", "0: UA|2|3", "0: AA|1|1", "0: B6|1|2", "0: UA|1|0"]);
    operator.snapshot(CheckpointEpoch(1)).unwrap()
}

#[test]
fn a_new_module_takes_over_the_state_of_the_old_one_or_refuses_it() {
    let state = tallied();
    assert_eq!(state.iter().map(|buffer| buffer.shard).collect::<Vec<_>>(), [0, 1]);
    let open = |name: &str| {
        let plan = planned(&module(name), json!({"key": "carrier", "value": "flight"})).unwrap();
        let mut operator = plan.operator().unwrap();
        operator.open(OpenContext::default()).unwrap();
        operator
    };
    let mut second = open("tally-v2");
    second.restore(state.clone()).unwrap();
    let mut heard = Vec::new();
    second.on_batch(0, batch(0, 6, 1), &mut Kept(&mut heard)).unwrap();
    assert_eq!(heard, ["0: UA|3|9"]);
    let anew = second.snapshot(CheckpointEpoch(2)).unwrap();
    assert_eq!(anew.len(), 2, "both shards are written in the new form");

    let refused = message(open("tally-v3").restore(state).unwrap_err());
    assert!(refused.contains("version 3 of tally cannot take over state of version 1"), "{refused}");
}

#[test]
fn event_time_closes_the_windows_of_every_shard() {
    let hour = 3_600_000_000i64;
    let mut rows = flights(0, 6).columns().to_vec();
    let times = (0..6).map(|n| n * hour / 2);
    rows.push(Arc::new(arrow::array::TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC")));
    let mut fields: Vec<_> = flights(0, 1).schema().fields().iter().cloned().collect();
    fields.push(Arc::new(ColumnType::Timestamp.to_field("time")));
    let schema = Arc::new(Schema::new(fields));
    let rows = RecordBatch::try_new(schema.clone(), rows).unwrap();
    let config = json!({"key": "carrier", "time": "time"});
    let plan = planned_with(&TALLY, &config, PATIENT, &relation(schema, false)).unwrap();
    let mut operator = plan.operator().unwrap();
    operator.open(OpenContext::default()).unwrap();
    let part = |partition: u32, from: usize| {
        let origin = Origin { source: "flights".into(), split: SplitId::new(partition.to_string()), offset: 0 };
        RowBatch { rows: rows.slice(from, 3), ops: None, origin: Some(origin), lineage: None }
    };
    let mut heard = Vec::new();
    operator.on_batch(0, part(0, 0), &mut Kept(&mut heard)).unwrap();
    operator.on_batch(0, part(1, 3), &mut Kept(&mut heard)).unwrap();
    heard.clear();
    assert_eq!(operator.on_watermark(0, Watermark(2 * hour), &mut Kept(&mut heard)).unwrap(), Progress::Done);
    let (zero, one, two) = ("1970-01-01T00:00:00Z", "1970-01-01T01:00:00Z", "1970-01-01T02:00:00Z");
    let of = |hour: &str, key: &str| format!("1: {hour}|{key}|1|0");
    assert_eq!(heard, [of(zero, "AA"), of(zero, "UA"), of(one, "B6"), of(one, "UA")]);
    heard.clear();
    operator.on_end(0, &mut Kept(&mut heard)).unwrap();
    assert_eq!(heard, [of(two, "AA"), of(two, "B6")]);
}

#[test]
fn transforms_type_what_they_make() {
    let schema = |columns: &[(&str, &str)]| {
        let fields = columns.iter().map(|(name, kind)| kind.parse::<ColumnType>().unwrap().to_field(name));
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    };
    let columns = [
        ("carrier", "string"),
        ("flight", "int32"),
        ("tailnum", "string"),
        ("dep_delay", "float64"),
        ("distance", "int64"),
    ];
    let input = relation(schema(&columns), true);
    let plan = planned_with(&module("records"), &Value::Null, PATIENT, &input).unwrap();
    assert!(plan.hidden() && plan.reads().contains(&"_key".to_owned()));
    let made = [("carrier", "string"), ("flight", "int32"), ("tailnum", "string"), ("minutes_per_mile", "float64")];
    assert_eq!(plan.outputs()[0].schema, schema(&made));
    let rows = RecordBatch::try_new(
        Arc::clone(&input.schema),
        vec![
            Arc::new(StringArray::from(vec!["UA", "AA", "B6"])),
            Arc::new(arrow::array::Int32Array::from(vec![1, 2, 3])),
            Arc::new(StringArray::from(vec![Some("N1"), None, Some("ä")])),
            Arc::new(Float64Array::from(vec![Some(10.0), None, Some(5.0)])),
            Arc::new(Int64Array::from(vec![100, 0, 50])),
        ],
    );
    let full = input.full_schema();
    let mut all = rows.unwrap().columns().to_vec();
    all.extend(full.fields().iter().skip(5).map(|field| arrow::array::new_null_array(field.data_type(), 3)));
    let rows = RecordBatch::try_new(full, all).unwrap();
    let said = said(&plan, &[RowBatch::inserts(rows)]).unwrap();
    assert_eq!(said.rows[0], ["UA|1|N1|0.1|null|null|null|null|[]", "B6|3|ä|0.1|null|null|null|null|[]"]);
    assert!(said.rejected[0].ends_with("flight 2 covers 0 miles"), "{:?}", said.rejected);
}

#[test]
fn what_a_module_is_decides_where_it_can_stand() {
    let functions = module("functions");
    let error = planned(&functions, Value::Null).unwrap_err();
    assert!(error.message.contains("scalar functions") && error.hint.unwrap().contains("`functions:`"));
    let error = crate::wasm::functions(&IDENTITY, None, PATIENT, Arc::new(Silent)).unwrap_err();
    assert!(error.message.contains("it is an operator"));
    let error = planned(&TALLY, json!({"key": "carier"})).unwrap_err();
    assert!(error.message.contains("carier"), "{error}");
    let map = DataType::Interval(arrow::datatypes::IntervalUnit::DayTime);
    let odd = Schema::new(vec![arrow::datatypes::Field::new("odd", map, true)]);
    let error = planned_with(&IDENTITY, &Value::Null, PATIENT, &relation(Arc::new(odd), false)).unwrap_err();
    assert!(error.message.contains("`odd`"), "{error}");
}
