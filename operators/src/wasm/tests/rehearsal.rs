//! What trying a module finds out.

use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use logmill_wasm::Guest;
use serde_json::{Value, json};
use wit_component::{StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use super::guests::{HOST, PATIENT, Silent, module, planned_with, relation};
use super::hostile::{literal, words};
use crate::wasm::ipc::{encode_rows, encode_schema};
use crate::wasm::{Rehearsal, functions, rehearse};

fn tried(name: &str, config: &Value) -> Result<Rehearsal, String> {
    let fields = vec![Field::new("carrier", DataType::Utf8, true), Field::new("delay", DataType::Int64, true)];
    let input = relation(Arc::new(Schema::new(fields)), true);
    rehearse(&planned_with(&module(name), config, PATIENT, &input).unwrap())
}

#[test]
fn guests_that_keep_their_word_pass() {
    let found = tried("identity", &Value::Null).unwrap();
    assert_eq!(found, Rehearsal { rows: 64, refused: 0, depends_on_batches: None });
    let found = tried("tally", &json!({"key": "carrier", "value": "delay"})).unwrap();
    assert!(found.refused > 0, "its key is null in some rows");
    assert!(found.depends_on_batches.is_some(), "it puts out a total for each batch");
}

#[test]
fn a_snapshot_that_leaves_something_out_is_found() {
    let message = tried("hostile-stateful", &json!({"mode": "hidden"})).unwrap_err();
    assert!(message.starts_with("restored from its snapshot, it gives"), "{message}");
    let found = tried("hostile", &json!({"mode": "hidden"})).unwrap();
    assert!(found.depends_on_batches.is_some(), "without state it is cut off at any row");
}

/// A number that stands in a result where the guest puts the number of its call.
const PLACE: i64 = 0x1122_3344_5566_7788;

/// The function `count()`, which gives how often it was called, or always 0.
fn counter(counts: bool) -> Guest {
    let none = encode_schema(&Schema::new(vec![Field::new("n", DataType::Int64, true)])).unwrap();
    let column: ArrayRef = Arc::new(Int64Array::from(vec![PLACE]));
    let rows = encode_rows(&RecordBatch::try_from_iter_with_nullable([("n", column, true)]).unwrap()).unwrap();
    let place = rows.windows(8).position(|bytes| bytes == PLACE.to_le_bytes()).unwrap();
    let (name_at, signature_at, functions_at, result_at, none_at) = (16, 32, 64, 96, 128);
    let rows_at = (none_at + none.len()).next_multiple_of(16);
    let top = (rows_at + rows.len()).next_multiple_of(16);
    let data = [
        (name_at, b"count".to_vec()),
        (signature_at, words(&[name_at, 5, none_at, none.len(), none_at, none.len(), 1])),
        (functions_at, words(&[0, signature_at, 1])),
        (result_at, words(&[0, rows_at, rows.len()])),
        (none_at, none),
        (rows_at, rows),
    ];
    let data = data.iter().fold(String::new(), |mut text, (at, bytes)| {
        let _ = write!(text, "(data (i32.const {at}) \"{}\")", literal(bytes));
        text
    });
    let (step, place) = (i32::from(counts), rows_at + place);
    let text = format!(
        r#"(module (memory (export "memory") 4) (global $calls (mut i64) (i64.const 0))
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const {top}))
            (func (export "logmill:function/scalar@0.1.0#functions") (param i32 i32) (result i32)
                (i32.const {functions_at}))
            (func (export "logmill:function/scalar@0.1.0#invoke") (param i32 i32 i32 i32) (result i32)
                (global.set $calls (i64.add (global.get $calls) (i64.const {step})))
                (i64.store (i32.const {place}) (global.get $calls))
                (i32.const {result_at}))
            {data})"#
    );
    let mut module = wat::parse_str(text).unwrap();
    let wit = Path::new(env!("CARGO_MANIFEST_DIR")).join("wit");
    let mut resolve = Resolve::default();
    let mut push = |file: &str| resolve.push_str(file, &std::fs::read_to_string(wit.join(file)).unwrap()).unwrap();
    push("operator/operator.wit");
    let package = push("function/function.wit");
    let world = resolve.select_world(&[package], Some("function")).unwrap();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    HOST.load(&module).unwrap()
}

#[test]
fn a_function_that_is_said_to_be_deterministic_is_called_again() {
    let try_it = |counts: bool| {
        let functions = functions(&counter(counts), None, PATIENT, Arc::new(Silent)).unwrap();
        assert!(functions[0].is_deterministic());
        functions[0].rehearse()
    };
    let message = try_it(true).unwrap_err();
    assert!(message.starts_with("it says that it is deterministic, and gives "), "{message}");
    assert!(message.contains("when it is called again with "), "{message}");
    // It gives one result for whatever it gets, so that calls with more rows fail.
    assert!(try_it(false).unwrap_err().contains("an error instead of 0"));
}

#[test]
fn functions_that_are_deterministic_pass() {
    for function in functions(&module("functions"), None, PATIENT, Arc::new(Silent)).unwrap() {
        function.rehearse().unwrap_or_else(|error| panic!("`{}`: {error}", function.name()));
    }
}
