//! The JSON decoder against the contract, and against Arrow's own on the same records.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, Schema, SchemaRef};
use arrow::json::ReaderBuilder;
use logmill_pipelines::{ColumnType, UnknownFields};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::conformance::decoder::{check, records};
use crate::decode::Decoded;
use crate::format::Format;

fn schema(columns: &[(&str, &str)]) -> SchemaRef {
    let fields = columns.iter().map(|(name, kind)| kind.parse::<ColumnType>().unwrap().to_field(name));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn decode(schema: &SchemaRef, unknown: UnknownFields, lines: &[&str]) -> Decoded {
    let names: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
    let values: Vec<_> = lines.iter().map(|line| Some(line.as_bytes())).collect();
    let mut decoder = Format::Json.decoder(schema, &names, unknown).unwrap();
    decoder.decode(&records(&values)).unwrap()
}

/// The value of a one-column record of type `kind`, as it prints; or the error.
fn one(kind: &str, value: &str) -> Result<String, String> {
    let schema = schema(&[("c", kind)]);
    let decoded = decode(&schema, UnknownFields::Ignore, &[&format!("{{\"c\":{value}}}")]);
    match decoded.errors.first() {
        Some(error) => Err(error.message.clone()),
        None => {
            let column = decoded.rows.column(0);
            Ok(match column.is_null(0) {
                true => "null".into(),
                false => arrow::util::display::array_value_to_string(column, 0).unwrap(),
            })
        }
    }
}

#[test]
fn every_type_takes_its_values() {
    for (kind, value, expected) in [
        ("boolean", "true", "true"),
        ("int8", "-128", "-128"),
        ("int32", "2147483647", "2147483647"),
        ("int64", "-9223372036854775808", "-9223372036854775808"),
        ("uint64", "18446744073709551615", "18446744073709551615"),
        ("float32", "0.1", "0.1"),
        ("float64", "1e3", "1000.0"),
        ("float64", "7", "7.0"),
        ("decimal(10,2)", "12.5", "12.50"),
        ("decimal(10,2)", "\"12.5\"", "12.50"),
        ("string", r#""a\n\u00e9\ud83d\ude00\"""#, "a\né😀\""),
        ("string", "\"\"", ""),
        ("binary", "\"00ff\"", "00ff"),
        ("json", r#"{ "a": [1, null] }"#, r#"{ "a": [1, null] }"#),
        ("date", "\"2013-01-31\"", "2013-01-31"),
        ("time", "\"17:30:00.5\"", "17:30:00.500"),
        ("timestamp", "\"2013-01-31T17:30:00+01:00\"", "2013-01-31T16:30:00Z"),
        ("timestamp_local", "\"2013-01-31 17:30:00\"", "2013-01-31T17:30:00"),
        ("list<int32>", "[1, null, 3]", "[1, , 3]"),
        ("list<string>", "[]", "[]"),
        ("struct{a: int32, b: string}", r#"{"b":"x","z":[{}]}"#, "{a: , b: x}"),
        ("int32", "null", "null"),
    ] {
        assert_eq!(one(kind, value).as_deref(), Ok(expected), "{kind} {value}");
    }
}

#[test]
fn what_does_not_fit_is_told_with_its_column_and_byte() {
    for (kind, value, expected) in [
        ("int32", "1.5", "column `c`: expected int32, found 1.5 (byte 8 of the record)"),
        ("int32", "2147483648", "column `c`: expected int32, found 2147483648 (byte 15 of the record)"),
        ("uint8", "-1", "column `c`: expected uint8, found -1 (byte 7 of the record)"),
        ("int32", "\"1\"", "column `c`: expected an integer, found \"1\" (byte 8 of the record)"),
        ("int32", "true", "column `c`: expected an integer, found a boolean (byte 5 of the record)"),
        ("string", "1", "column `c`: expected a string, found the number 1 (byte 5 of the record)"),
        ("timestamp", "1357032600", "column `c`: expected timestamp, found 1357032600 (byte 15 of the record)"),
        ("boolean", "\"yes\"", "column `c`: expected a boolean, found a string (byte 5 of the record)"),
        ("list<int32>", "[1, \"x\"]", "column `c`: expected an integer, found \"x\" (byte 12 of the record)"),
        (
            "struct{a: int32}",
            "{\"a\":{}}",
            "column `c`: field `a`: expected an integer, found an object (byte 10 of the record)",
        ),
        ("string", "\"abc", "column `c`: the record ends inside of a string (byte 5 of the record)"),
        ("int32", "1,", "expected a string, found `}` (byte 7 of the record)"),
        ("int32", "nul", "column `c`: expected an integer, found null (byte 5 of the record)"),
    ] {
        assert_eq!(one(kind, value).unwrap_err(), expected, "{kind} {value}");
    }
}

#[test]
fn records_that_are_cut_off_are_bad_whatever_is_wanted() {
    let schema = schema(&[("a", "int32"), ("b", "struct{c: string}")]);
    let nested = r#"{"a":1,"b":{"c":"x"},"d":[1,2]}"#;
    let flat = r#"{"a":1,"e":"} \" ]","b":null,"d":"x}","f":"}"}"#;
    let choices = [vec!["a".to_owned()], vec!["b".to_owned()], vec![]];
    for (columns, line) in choices.iter().flat_map(|columns| [(columns, nested), (columns, flat)]) {
        let mut decoder = Format::Json.decoder(&schema, columns, UnknownFields::Ignore).unwrap();
        for end in 0..line.len() {
            let decoded = decoder.decode(&records(&[Some(&line.as_bytes()[..end])])).unwrap();
            assert_eq!(decoded.errors.len(), 1, "{columns:?} of {}", &line[..end]);
        }
        assert_eq!(decoder.decode(&records(&[Some(line.as_bytes())])).unwrap().rows.num_rows(), 1);
    }
}

#[test]
fn unknown_fields_are_ignored_refused_or_kept() {
    let lines = [r#"{"a":1}"#, r#"{"x":[1],"a":2,"y":{"z":"ü"}}"#, r#"{"a":3,"x":null}"#];
    let known = schema(&[("a", "int64")]);
    assert_eq!(decode(&known, UnknownFields::Ignore, &lines).rows.num_rows(), 3);
    let refused = decode(&known, UnknownFields::Error, &lines).errors;
    assert_eq!(refused.iter().map(|error| error.index).collect::<Vec<_>>(), [1, 2]);
    assert!(refused[0].message.contains("field \"x\" is not in the schema"), "{}", refused[0].message);
    let columns = [("a".to_owned(), ColumnType::Int64)].into_iter().collect();
    let kept = Format::Json.declared_schema(Some(&columns), UnknownFields::Keep).unwrap();
    let rows = decode(&Arc::new(kept), UnknownFields::Keep, &lines).rows;
    let kept = rows.column_by_name("_unknown").unwrap().as_string::<i32>();
    let kept: Vec<_> = kept.iter().collect();
    assert_eq!(kept, [None, Some(r#"{"x":[1],"y":{"z":"ü"}}"#), Some(r#"{"x":null}"#)]);
}

#[test]
fn of_a_key_that_comes_twice_the_first_counts() {
    let schema = schema(&[("a", "int32")]);
    let rows = decode(&schema, UnknownFields::Ignore, &[r#"{"a":1,"a":2}"#, r#"{"a":3,"a":"x"}"#]).rows;
    assert_eq!(rows.column(0).as_primitive::<Int32Type>().values().to_vec(), [1, 3]);
}

#[test]
fn the_contract_holds_for_good_and_bad_records() {
    let schema = schema(&[("a", "int32"), ("b", "string"), ("c", "list<struct{d: float64}>"), ("e", "timestamp")]);
    let values: [Option<&[u8]>; 12] = [
        Some(br#"{"a":1,"b":"x","c":[{"d":1.5}],"e":"2013-01-01T05:00:00Z"}"#),
        Some(br#" { "e" : null , "c" : [ ] , "b" : "\u0041" } "#),
        Some(b""),
        None,
        Some(br#"{"a":1.5,"b":"x"}"#),
        Some(b"{\"a\":2,\"b\":\"\xff\"}"),
        Some(b"{\"a\":2,\"b\":\"\xc3\",\"c\":null}"),
        Some(b"{\"a\":2,\"b\":\"\xa9\"}"),
        Some(br#"{"a":3,"b":"y"} {}"#),
        Some(br#"[1]"#),
        Some(br#"{"\u0061":4,"zz":{"a":[true,false,"x\"}"]}}"#),
        Some(br#"{"a":5,"c":[{"d":1},{"d":"x"}]}"#),
    ];
    check(&schema, &values, &|columns| Format::Json.decoder(&schema, columns, UnknownFields::Ignore).unwrap());
}

/// Some value that fits none, one or several types.
fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1000i64..1000).prop_map(Value::from),
        any::<f64>().prop_map(|number| json!(number)),
        ".{0,20}".prop_map(Value::from),
        "[a-z\"\\\\\n]{0,12}".prop_map(Value::from),
        prop::collection::vec(any::<i32>(), 0..4).prop_map(|items| json!({ "a": items, "b": "x" })),
    ]
}

/// What Arrow's decoder makes of one record that it accepts.
fn arrow(schema: &SchemaRef, line: &str) -> Option<RecordBatch> {
    let mut decoder = ReaderBuilder::new(schema.clone()).build_decoder().unwrap();
    decoder.decode(line.as_bytes()).ok()?;
    decoder.flush().ok()?
}

proptest! {
    #[test]
    fn rows_are_those_of_arrow(
        rows in prop::collection::vec(
            (prop::option::of(any::<i64>()), prop::option::of(any::<f64>()), prop::option::of(".{0,12}"), any::<u8>()),
            0..20,
        ),
        spaced: bool,
    ) {
        let schema = schema(&[("int", "int64"), ("float", "float64"), ("text", "string"), ("items", "list<int64>")]);
        let names = ["int", "float", "text", "items"];
        let mut lines = Vec::new();
        for (int, float, text, shape) in &rows {
            let members = [json!(int), json!(float), json!(text), json!([int, null])];
            let mut object = Map::new();
            for step in 0..4usize {
                // Another order, and keys left out, now and then.
                let index = (step + usize::from(shape & 3)) % 4;
                if shape >> 4 != index as u8 {
                    object.insert(names[index].into(), members[index].clone());
                }
            }
            lines.push(match spaced {
                true => serde_json::to_string_pretty(&object).unwrap(),
                false => serde_json::to_string(&object).unwrap(),
            });
        }
        let texts: Vec<&str> = lines.iter().map(String::as_str).collect();
        let decoded = decode(&schema, UnknownFields::Ignore, &texts);
        prop_assert_eq!(&decoded.errors, &Vec::new());
        let expected: Vec<_> = lines.iter().map(|line| arrow(&schema, line).expect("arrow reads it, too")).collect();
        prop_assert_eq!(decoded.rows, arrow::compute::concat_batches(&schema, &expected).unwrap());
    }

    #[test]
    fn any_json_is_a_row_or_an_error_and_never_half_of_one(
        objects in prop::collection::vec(prop::collection::vec(("[abc]", value()), 0..5), 0..12),
    ) {
        let schema = schema(&[("a", "int64"), ("b", "string"), ("c", "struct{a: list<int32>}")]);
        let lines: Vec<String> = objects.iter().map(|members| {
            let members: Vec<_> = members.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
            format!("{{{}}}", members.join(","))
        }).collect();
        let values: Vec<_> = lines.iter().map(|line| Some(line.as_bytes())).collect();
        check(&schema, &values, &|columns| Format::Json.decoder(&schema, columns, UnknownFields::Ignore).unwrap());
    }

    #[test]
    fn any_bytes_are_answered(lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..8)) {
        let schema = schema(&[("a", "int64"), ("b", "json")]);
        let values: Vec<_> = lines.iter().map(|line| Some(line.as_slice())).collect();
        check(&schema, &values, &|columns| Format::Json.decoder(&schema, columns, UnknownFields::Ignore).unwrap());
    }

    /// What the decoder steps over it holds to the grammar that serde_json knows, but for control characters in strings
    /// and the UTF-8 of what nobody reads.
    #[test]
    fn json_is_what_serde_takes_for_it(text in r#"[\[\]{}",:0-9tfn.e\-a ]{0,16}"#) {
        let line = format!("{{\"z\":{text}}}");
        let schema = schema(&[("a", "int64")]);
        let good = decode(&schema, UnknownFields::Ignore, &[&line]).errors.is_empty();
        prop_assert_eq!(good, serde_json::from_str::<Map<String, Value>>(&line).is_ok(), "{}", line);
    }
}
