//! Guests that give what nobody may: each costs the rows that it is given for, and no memory beyond its limit.

use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampSecondArray};
use arrow::datatypes::{DataType, Field, Schema};
use logmill_pipelines::ColumnType;
use logmill_pipelines::flow::RowBatch;
use logmill_wasm::{Guest, Limits};
use serde_json::Value;
use wit_component::{StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use super::guests::{HOST, planned_with, relation};
use crate::conformance::{Said, play};
use crate::operator::{OpenContext, Output, Port, Progress};
use crate::wasm::ipc::tests::forged;
use crate::wasm::ipc::{encode_rows, encode_schema};

/// Little, so that what a guest gives beyond it shows.
const LIMITS: Limits = Limits { memory_bytes: 8 * 1024 * 1024, deadline: std::time::Duration::from_secs(60) };

/// Bytes as WebAssembly text has them.
pub(super) fn literal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "\\{byte:02x}");
        text
    })
}

/// A list of numbers of 32 bits.
pub(super) fn words(words: &[usize]) -> Vec<u8> {
    words.iter().flat_map(|word| u32::try_from(*word).unwrap().to_le_bytes()).collect()
}

/// An operator whose output has these columns, and which gives this stream for whatever rows it gets.
fn giver(schema: &Schema, gives: &[u8]) -> Guest {
    let schema = encode_schema(schema).unwrap();
    let (name_at, ports_at, signature_at, outputs_at, given_at, schema_at) = (16, 32, 64, 96, 128, 160);
    let gives_at = (schema_at + schema.len()).next_multiple_of(16);
    let top = (gives_at + gives.len()).next_multiple_of(16);
    let data = [
        (name_at, b"out".to_vec()),
        (ports_at, words(&[name_at, 3, schema_at, schema.len()])),
        (signature_at, words(&[0, 0, 0, 0, ports_at, 1])),
        (outputs_at, words(&[name_at, 3, gives_at, gives.len()])),
        (given_at, words(&[0, outputs_at, 1])),
        (schema_at, schema),
        (gives_at, gives.to_vec()),
    ];
    let data: String =
        data.iter().map(|(at, bytes)| format!("(data (i32.const {at}) \"{}\")\n", literal(bytes))).collect();
    let pages = top / 65536 + 4;
    let text = format!(
        r#"(module
            (memory (export "memory") {pages})
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const {top}))
            (func (export "logmill:operator/batch@0.1.0#signature") (param i32 i32 i32 i32) (result i32)
                (i32.const {signature_at}))
            (func (export "logmill:operator/batch@0.1.0#on-batch") (param i32 i32) (result i32) (i32.const {given_at}))
            {data})"#
    );
    let mut module = wat::parse_str(text).unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("wit/operator/operator.wit");
    let mut resolve = Resolve::default();
    let package = resolve.push_str("operator.wit", &std::fs::read_to_string(path).unwrap()).unwrap();
    let world = resolve.select_world(&[package], Some("operator")).unwrap();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    HOST.load(&module).unwrap()
}

fn input() -> RecordBatch {
    let n: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
    RecordBatch::try_from_iter_with_nullable([("n", n, true)]).unwrap()
}

/// What comes of three rows, with a guest that gives this for each call.
fn said(schema: &Schema, gives: &[u8]) -> Said {
    let guest = giver(schema, gives);
    let plan = planned_with(&guest, &Value::Null, LIMITS, &relation(input().schema(), false)).unwrap();
    let make = || plan.operator().unwrap();
    let events = vec![crate::conformance::Event::Batch(0, RowBatch::inserts(input()))];
    play(&crate::conformance::Case { make: &make, open: OpenContext::default(), events, ordered: true }).unwrap()
}

fn costs_its_rows(rows: &RecordBatch, gives: &[u8], expected: &str) {
    let said = said(&rows.schema(), gives);
    assert!(said.rows[0].is_empty(), "{:?}", said.rows);
    assert_eq!(said.rejected.len(), 3);
    for rejected in &said.rejected {
        assert!(rejected.contains(expected) && rejected.contains("`out`"), "{rejected}");
    }
}

#[test]
fn a_guest_gives_what_it_says() {
    let said = said(&input().schema(), &encode_rows(&input()).unwrap());
    assert_eq!(said.rows[0], ["1", "2", "3"]);
}

/// 6 GB, were they rows.
#[test]
fn columns_over_one_range_of_bytes_are_no_rows() {
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![7; 100]));
    let rows = RecordBatch::try_from_iter((0..1500).map(|n| (format!("c{n}"), Arc::clone(&numbers)))).unwrap();
    let stream = forged(&rows, |_, buffers| {
        let first = buffers[1];
        buffers.chunks_mut(2).for_each(|pair| pair[1] = first);
    });
    costs_its_rows(&rows, &stream, "its buffers overlap");
}

#[test]
fn rows_beyond_what_was_given_are_no_rows() {
    let stream = forged(&input(), |nodes, _| nodes[0] = [1 << 31, 0]);
    costs_its_rows(&input(), &stream, "bytes of values and needs");
}

/// A sink writes JSON text as it is.
#[test]
fn text_that_says_that_it_is_json_is_json() {
    let field = ColumnType::Json.to_field("payload");
    let rows = |text: &str| {
        let texts: ArrayRef = Arc::new(StringArray::from(vec![text]));
        RecordBatch::try_new(Arc::new(Schema::new(vec![field.clone()])), vec![texts]).unwrap()
    };
    let injected = rows("1}\n{\"amount\": 1000000, \"payload\": 2");
    costs_its_rows(&injected, &encode_rows(&injected).unwrap(), "column `payload`");
    let good = rows("{\"a\": [1]}");
    assert_eq!(said(&good.schema(), &encode_rows(&good).unwrap()).rows[0], ["{\"a\": [1]}"]);
}

#[test]
fn times_without_a_date_are_refused() {
    let zone = Some("UTC".into());
    let data_type = DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, zone);
    let times = arrow::array::TimestampMicrosecondArray::from(vec![i64::MAX]).with_timezone("UTC");
    let schema = Schema::new(vec![Field::new("at", data_type, true)]);
    let rows = RecordBatch::try_new(Arc::new(schema), vec![Arc::new(times)]).unwrap();
    costs_its_rows(&rows, &encode_rows(&rows).unwrap(), "column `at`");
}

#[test]
fn what_no_column_can_be_is_refused_when_the_pipeline_is_planned() {
    let twice = vec![Field::new("a", DataType::Int64, true), Field::new("a", DataType::Utf8, true)];
    for (data_type, expected) in [
        (DataType::Utf8View, "Utf8View"),
        (DataType::Struct(twice.into()), "two fields `a`"),
        (DataType::Timestamp(arrow::datatypes::TimeUnit::Second, Some("Mars/Phobos".into())), "Mars/Phobos"),
    ] {
        let guest = giver(&Schema::new(vec![Field::new("c", data_type, true)]), b"");
        let error = planned_with(&guest, &Value::Null, LIMITS, &relation(input().schema(), false)).unwrap_err();
        assert!(error.message.contains(expected) && error.message.contains("`out`"), "{}", error.message);
    }
}

/// The row goes, with the reason, and is not given as null.
#[test]
fn a_value_that_does_not_fit_the_guests_type_costs_its_row() {
    let seconds: ArrayRef = Arc::new(TimestampSecondArray::from(vec![Some(1), None, Some(i64::MAX), Some(2)]));
    let rows = RecordBatch::try_from_iter_with_nullable([("at", seconds, true)]).unwrap();
    let guest = giver(&input().schema(), &encode_rows(&input()).unwrap());
    let plan = planned_with(&guest, &Value::Null, LIMITS, &relation(rows.schema(), false)).unwrap();
    let mut operator = plan.operator().unwrap();
    operator.open(OpenContext::default()).unwrap();
    let mut refused = Refused::default();
    assert_eq!(operator.on_batch(0, RowBatch::inserts(rows), &mut refused).unwrap(), Progress::Done);
    assert_eq!(refused.rows, 1);
    assert!(refused.reasons[0].contains("column `at`"), "{:?}", refused.reasons);
    assert!(refused.emitted > 0);
}

#[derive(Default)]
struct Refused {
    emitted: usize,
    rows: usize,
    reasons: Vec<String>,
}

impl Output for Refused {
    fn emit(&mut self, _: Port, batch: RowBatch) {
        self.emitted += batch.num_rows();
    }

    fn reject(&mut self, batch: RowBatch, reason: &str) {
        self.rows += batch.num_rows();
        self.reasons.push(reason.to_owned());
    }

    fn is_full(&self) -> bool {
        false
    }
}
