//! Operators and functions, called as the engine does: Arrow streams in and out.

#![cfg(feature = "arrow")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use logmill_guest::arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray};
use logmill_guest::arrow::datatypes::{Float64Type, Int64Type, Schema};
use logmill_guest::arrow::ipc::{reader::StreamReader, writer::StreamWriter};
use logmill_guest::function::{self, Functions};
use logmill_guest::operator::{self, Failure, Operator, Outputs, Signature, StatefulOperator, WindowedOperator};

struct Counter {
    rows: i64,
}

impl Operator for Counter {
    type Config = Option<String>;

    fn new(input: &Schema, config: Self::Config) -> Result<(Self, Signature), String> {
        if config.is_some_and(|column| input.field_with_name(&column).is_err()) {
            return Err("no such column".to_owned());
        }
        let signature = Signature::new("rows", input.clone()).output("counts", input.clone()).reads(["number"]);
        Ok((Counter { rows: 0 }, signature))
    }

    fn on_batch(&mut self, batch: RecordBatch, out: &mut Outputs) -> Result<(), Failure> {
        let numbers = batch.column(0).as_primitive::<Int64Type>();
        if let Some(row) = numbers.iter().position(|number| number == Some(13)) {
            return Err(Failure::at(row, "an unlucky number"));
        }
        self.rows += batch.num_rows() as i64;
        out.push(batch);
        Ok(())
    }
}

impl StatefulOperator for Counter {
    const VERSION: u32 = 4;

    fn snapshot(&self) -> Result<Vec<u8>, String> {
        Ok(self.rows.to_le_bytes().to_vec())
    }

    fn restore(&mut self, version: u32, state: &[u8]) -> Result<(), String> {
        assert_eq!(version, 4);
        self.rows = i64::from_le_bytes(state.try_into().map_err(|_| "not 8 bytes")?);
        Ok(())
    }
}

impl WindowedOperator for Counter {
    fn on_watermark(&mut self, _time_us: i64, out: &mut Outputs) -> Result<(), Failure> {
        out.push_to("counts", numbers([Some(self.rows)]));
        Ok(())
    }
}

fn numbers(values: impl IntoIterator<Item = Option<i64>>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable([("number", Arc::new(Int64Array::from_iter(values)) as ArrayRef, true)])
        .unwrap()
}

fn stream(schema: &Schema, batches: &[RecordBatch]) -> Vec<u8> {
    let mut writer = StreamWriter::try_new(Vec::new(), schema).unwrap();
    batches.iter().for_each(|batch| writer.write(batch).unwrap());
    writer.into_inner().unwrap()
}

fn batches(stream: &[u8]) -> Vec<RecordBatch> {
    StreamReader::try_new(stream, None).unwrap().map(Result::unwrap).collect()
}

fn counter() -> operator::Running<Counter> {
    let running = operator::Running::new();
    let schema = numbers([]).schema();
    let signature = running.signature(&stream(&schema, &[]), "null").unwrap();
    assert_eq!(signature.reads, Some(vec!["number".to_owned()]));
    let names: Vec<_> = signature.outputs.iter().map(|port| port.name.as_str()).collect();
    assert_eq!(names, ["rows", "counts"]);
    assert_eq!(StreamReader::try_new(&*signature.outputs[0].schema, None).unwrap().schema(), schema);
    running
}

#[test]
fn batches_come_back_as_they_were_put_out() {
    let running = counter();
    let given = numbers([Some(1), None, Some(3)]);
    let outputs = running.on_batch(stream(&given.schema(), std::slice::from_ref(&given))).unwrap();
    assert_eq!((outputs.len(), outputs[0].name.as_str()), (1, "rows"));
    assert_eq!(batches(&outputs[0].rows), [given]);
}

#[test]
fn a_row_that_fails_is_named() {
    let given = numbers([Some(1), Some(13)]);
    let failure = counter().on_batch(stream(&given.schema(), &[given])).unwrap_err();
    assert_eq!((failure.message.as_str(), failure.row), ("an unlucky number", Some(1)));
}

#[test]
fn rows_that_are_no_stream_are_refused() {
    for garbage in [&b"garbage"[..], &[0xff; 64]] {
        assert!(counter().on_batch(garbage.to_vec()).is_err());
    }
}

#[test]
fn state_goes_from_one_instance_to_the_next() {
    let first = counter();
    let given = numbers([Some(1), Some(2)]);
    first.on_batch(stream(&given.schema(), &[given])).unwrap();
    let second = counter();
    second.restore(4, &first.snapshot().unwrap()).unwrap();
    let outputs = second.on_watermark(0).unwrap();
    assert_eq!(outputs[0].name, "counts");
    assert_eq!(batches(&outputs[0].rows), [numbers([Some(2)])]);
    assert_eq!(second.restore(4, b"short").unwrap_err(), "not 8 bytes");
}

#[test]
fn nothing_works_before_the_signature() {
    let running = operator::Running::<Counter>::new();
    assert_eq!(running.snapshot().unwrap_err(), "`signature` has not been called");
    let schema = numbers([]).schema();
    assert_eq!(running.signature(&stream(&schema, &[]), r#""absent""#).unwrap_err(), "no such column");
}

logmill_guest::functions! {
    fn half(number: i64) -> Result<f64, String> {
        if number < 0 { Err(format!("{number} is negative")) } else { Ok(number as f64 / 2.0) }
    }

    fn greeting(name: Option<&str>, polite: bool) -> Option<String> {
        if polite { Some(format!("dear {}", name.unwrap_or("stranger"))) } else { None }
    }
}

struct Columns;

impl Functions for Columns {
    type Config = i64;

    fn new(config: i64) -> Result<Self, String> {
        if config == 0 { Ok(Columns) } else { Err("not 0".to_owned()) }
    }

    fn functions(&self) -> Vec<function::Function> {
        let int64 = logmill_guest::arrow::datatypes::DataType::Int64;
        vec![function::Function::new("same", [("number", int64.clone())], int64).volatile()]
    }

    fn invoke(&mut self, name: &str, arguments: &RecordBatch) -> Result<ArrayRef, Failure> {
        assert_eq!(name, "same");
        Ok(Arc::clone(arguments.column(0)))
    }
}

#[test]
fn functions_over_columns_say_what_they_are() {
    let running = function::Running::<Columns>::new();
    assert_eq!(running.functions("1").unwrap_err(), "not 0");
    let described = running.functions("0").unwrap();
    assert_eq!((described[0].name.as_str(), described[0].deterministic), ("same", false));
    let given = numbers([Some(4), None]);
    let result = running.invoke("same", stream(&given.schema(), std::slice::from_ref(&given))).unwrap();
    assert_eq!(batches(&result)[0].column(0), given.column(0));
}

#[test]
fn functions_over_rows_pass_nulls_and_errors_on() {
    assert_eq!(greeting(None, true).as_deref(), Some("dear stranger"));
    assert_eq!(half(3), Ok(1.5));

    let halves = function::rows::<f64>(3, |row| [Some(1.0), None, Some(2.0)][row]).unwrap();
    assert_eq!(halves.as_primitive::<Float64Type>(), &Float64Array::from(vec![Some(1.0), None, Some(2.0)]));
    let failed =
        function::rows::<Result<i64, String>>(2, |row| Some(if row == 1 { Err("no".to_owned()) } else { Ok(1) }));
    assert_eq!(failed.unwrap_err(), Failure { message: "no".to_owned(), row: Some(1) });

    let names: ArrayRef = Arc::new(StringArray::from(vec![Some("ann"), None]));
    let batch = RecordBatch::try_from_iter_with_nullable([("name", names, true)]).unwrap();
    assert_eq!(function::column::<&str>(&batch, 0).unwrap().value(0), "ann");
    let wrong = function::column::<i64>(&batch, 0).unwrap_err();
    assert_eq!(wrong.message, "argument 0 is of type Utf8");
    assert_eq!(function::column::<i64>(&batch, 1).unwrap_err().message, "argument 1 is missing");
}
