//! CSV and raw against the contract; what is encoded comes back; schemas that are inferred.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Date32Array, ListArray, RecordBatch, StructArray};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use bytes::BytesMut;
use logmill_pipelines::{ColumnType, FormatSpec, UnknownFields};
use proptest::prelude::*;

use super::{CsvOptions, Format, check_ranges, json_encoder, schema_yaml};
use crate::conformance::decoder::{check, records};

fn schema(columns: &[(&str, &str)]) -> SchemaRef {
    let fields = columns.iter().map(|(name, kind)| kind.parse::<ColumnType>().unwrap().to_field(name));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn csv(nulls: &[&str]) -> Format {
    Format::Csv(CsvOptions { null_values: nulls.iter().map(|null| (*null).into()).collect(), ..CsvOptions::default() })
}

fn names(schema: &SchemaRef) -> Vec<String> {
    schema.fields().iter().map(|field| field.name().clone()).collect()
}

fn encode(format: &Format, rows: &RecordBatch) -> Vec<Vec<u8>> {
    let (mut buffer, mut values) = (BytesMut::from("before"), Vec::new());
    format.encoder(&rows.schema()).unwrap().encode(rows, &mut buffer, &mut values).unwrap();
    values.into_iter().map(|range| buffer[range].to_vec()).collect()
}

fn decode(format: &Format, schema: &SchemaRef, values: &[Vec<u8>]) -> Result<RecordBatch, String> {
    let values: Vec<_> = values.iter().map(|value| Some(value.as_slice())).collect();
    let mut decoder = format.decoder(schema, &names(schema), UnknownFields::Ignore).unwrap();
    let decoded = decoder.decode(&records(&values)).unwrap();
    decoded.errors.first().map_or(Ok(decoded.rows), |error| Err(error.message.clone()))
}

#[test]
fn csv_holds_the_contract() {
    let schema = schema(&[("a", "int32"), ("b", "string"), ("c", "timestamp"), ("d", "list<int32>")]);
    let values: [Option<&[u8]>; 10] = [
        Some(b"1,x,2013-01-01T05:00:00Z,\"[1, 2]\""),
        Some(b"NA,\"NA\",NA,NA\r"),
        Some(b"2,\"a \"\"quoted\"\", text\",,"),
        Some(b",,,"),
        None,
        Some(b"x,y,,"),
        Some(b"1,2"),
        Some(b"1,\"open,,"),
        Some(b"1,\xff,,"),
        Some(b"1,\"a\"b,,"),
    ];
    let format = csv(&["", "NA"]);
    check(&schema, &values, &|columns| format.decoder(&schema, columns, UnknownFields::Ignore).unwrap());
}

#[test]
fn csv_errors_name_the_column() {
    let schema = schema(&[("a", "int32"), ("b", "boolean")]);
    for (line, expected) in [
        ("1.5,true", "column `a`: expected an integer, found \"1.5\""),
        ("1,maybe", "column `b`: expected a boolean, found \"maybe\""),
        ("1", "the record has 1 field, expected 2"),
        ("1,true,3", "the record has 3 fields, expected 2"),
        ("1,\"true", "field 2: a quoted field is not closed"),
    ] {
        assert_eq!(decode(&csv(&[""]), &schema, &[line.into()]).unwrap_err(), expected, "{line}");
    }
}

#[test]
fn the_header_says_which_field_is_which() {
    let schema = schema(&[("b", "string"), ("a", "int32"), ("missing", "string")]);
    let header = ["a", "other", "b"].map(str::to_owned);
    let decoder = csv(&[""]).decoder_of_fields(&schema, &names(&schema), UnknownFields::Ignore, Some(&header));
    let rows = decoder.unwrap().decode(&records(&[Some(b"1,2,3")])).unwrap().rows;
    assert_eq!(rows.column(0).as_string::<i32>().value(0), "3");
    assert_eq!(rows.column(2).null_count(), 1);
    let refused = csv(&[""]).decoder_of_fields(&schema, &[], UnknownFields::Error, Some(&header)).err().unwrap();
    assert_eq!(refused.to_string(), "field `other` is not in the schema, and `unknown: error` forbids such");
}

#[test]
fn raw_holds_the_contract() {
    for kind in ["string", "binary"] {
        let schema = schema(&[("line", kind)]);
        let values: [Option<&[u8]>; 4] = [Some(b"a line "), Some(b""), None, Some(b"\xff")];
        let decoder = |columns: &[String]| Format::Raw.decoder(&schema, columns, UnknownFields::Ignore).unwrap();
        check(&schema, &values[..if kind == "string" { 4 } else { 3 }], &decoder);
    }
}

#[test]
fn records_with_timestamps_beyond_the_calendar_are_errors_where_those_are_read() {
    let schema = schema(&[("line", "string")]);
    let mut found = records(&[Some(b"a"), Some(b"\xff"), Some(b"b"), Some(b"c")]);
    found.timestamps = vec![0, i64::MAX, i64::MAX, -1];
    let decoder = |columns: &[&str]| {
        let columns: Vec<_> = columns.iter().map(|name| (*name).to_owned()).collect();
        Format::Raw.decoder(&schema, &columns, UnknownFields::Ignore).unwrap()
    };
    let decoded = decoder(&["line", "_timestamp"]).decode(&found).unwrap();
    let errors: Vec<_> = decoded.errors.iter().map(|error| (error.index, error.message.as_str())).collect();
    let expected = "column `_timestamp`: 9223372036854775807 ms from 1970 is after the year 262141";
    assert_eq!(errors, [(1, "the value is not UTF-8; declare the column as binary"), (2, expected)]);
    assert_eq!(decoded.rows.column(0).as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["a", "c"]);
    assert_eq!(decoder(&["line"]).decode(&found).unwrap().errors.len(), 1);
}

#[test]
fn a_column_that_is_not_there_is_named_with_the_nearest() {
    let schema = schema(&[("carrier", "string")]);
    let error = Format::Json.decoder(&schema, &["carier".into()], UnknownFields::Ignore).err().unwrap();
    assert_eq!(error.to_string(), "there is no column `carier`, did you mean `carrier`?");
}

#[test]
fn formats_are_read_with_their_options() {
    let of = |text: &str| Format::of(Some(&serde_json::from_str::<FormatSpec>(text).unwrap()), &Format::Json);
    assert_eq!(of("\"lines\"").unwrap(), Format::Raw);
    let options = CsvOptions { delimiter: ';', header: false, ..CsvOptions::default() };
    assert_eq!(of(r#"{"type":"csv","delimiter":";","header":false}"#).unwrap(), Format::Csv(options));
    for (text, expected) in [
        (r#""jsn""#, "there is no format `jsn`; did you mean `json`?"),
        (r#"{"type":"csv","delimiter":"→"}"#, "format csv: `delimiter` must be one ASCII character and no line end"),
        (r#"{"type":"csv","delimiter":"\""}"#, "format csv: `delimiter` and `quote` must differ"),
    ] {
        assert_eq!(of(text).unwrap_err().to_string(), expected, "{text}");
    }
    assert!(of(r#"{"type":"json","x":1}"#).unwrap_err().to_string().starts_with("format json: unknown field `x`"));
}

/// Columns of every scalar type, and nested ones.
const COLUMNS: [(&str, &str); 9] = [
    ("b", "boolean"),
    ("i", "int64"),
    ("u", "uint64"),
    ("f", "float64"),
    ("d", "decimal(20,3)"),
    ("s", "string"),
    ("y", "binary"),
    ("t", "timestamp"),
    ("j", "json"),
];

/// A row of them as JSON.
fn row() -> impl Strategy<Value = String> {
    let number = (-1e15..1e15f64).prop_map(|number| format!("{number:?}"));
    let text = prop_oneof!["[ -~]{0,8}", ".{0,8}", "[a,\"\n\r]{0,6}"];
    let values = (any::<bool>(), any::<i64>(), any::<u64>(), number, any::<i32>(), text, any::<u32>(), 0i64..1 << 50);
    (values, any::<u16>()).prop_map(|((b, i, u, f, d, s, y, t), nulls)| {
        let text = serde_json::Value::from(s).to_string();
        let time = chrono::DateTime::from_timestamp_micros(t).unwrap().to_rfc3339();
        let values = [
            b.to_string(),
            i.to_string(),
            u.to_string(),
            f,
            format!("{}.{:03}", d / 1000, d.unsigned_abs() % 1000),
            text.clone(),
            format!("\"{y:08x}\""),
            format!("\"{time}\""),
            format!("{{\"k\":[{text},1]}}"),
        ];
        let members = COLUMNS.iter().zip(values).enumerate().map(|(index, ((name, _), value))| {
            format!("\"{name}\":{}", if nulls >> index & 1 == 1 { "null".to_owned() } else { value })
        });
        format!("{{{}}}", members.collect::<Vec<_>>().join(","))
    })
}

proptest! {
    #[test]
    fn what_is_encoded_comes_back(lines in prop::collection::vec(row(), 0..12)) {
        let schema = schema(&COLUMNS);
        let lines: Vec<_> = lines.into_iter().map(String::into_bytes).collect();
        let rows = decode(&Format::Json, &schema, &lines).unwrap();
        for format in [Format::Json, csv(&[""]), csv(&["NA", ""])] {
            let encoded = encode(&format, &rows);
            prop_assert_eq!(encoded.len(), rows.num_rows());
            if format == Format::Json {
                prop_assert!(encoded.iter().all(|value| !value.contains(&b'\n')));
            }
            prop_assert_eq!(&decode(&format, &schema, &encoded).unwrap(), &rows, "{}", format.name());
        }
    }
}

#[test]
fn json_is_written_with_all_columns_and_times_of_rfc_3339() {
    let schema = schema(&[("a", "int32"), ("t", "timestamp"), ("j", "json"), ("y", "binary")]);
    let line = br#"{"a":null,"t":"2013-01-01T05:00:00+01:00","j":{"x": [1]},"y":"0aff"}"#.to_vec();
    let rows = decode(&Format::Json, &schema, &[line]).unwrap();
    let written = encode(&Format::Json, &rows);
    let expected = r#"{"a":null,"t":"2013-01-01T04:00:00Z","j":{"x": [1]},"y":"0aff"}"#;
    assert_eq!(String::from_utf8_lossy(&written[0]), expected);
    assert!(json_encoder(&rows.schema()).is_ok());
}

/// What lies under nulls is nobody's value: fields of null structs, items of null lists, and what an offset skips. Here
/// it is nothing that a format could write.
#[test]
fn what_lies_under_nulls_is_neither_written_nor_checked() {
    let beyond = Date32Array::from(vec![i32::MAX, 1, i32::MIN, 2, i32::MAX]);
    let fields = Fields::from(vec![Field::new("day", DataType::Date32, true)]);
    let valid = |bits: [bool; 5]| Some(NullBuffer::from(bits.to_vec()));
    let structs = StructArray::new(fields, vec![Arc::new(beyond.clone())], valid([false, true, false, true, false]));
    let item = Arc::new(Field::new("item", DataType::Date32, true));
    let offsets = OffsetBuffer::new(vec![1, 1, 2, 3, 3, 3].into());
    let lists = ListArray::new(item, offsets, Arc::new(beyond), valid([true, true, false, true, false]));
    let columns: [(&str, ArrayRef); 2] = [("s", Arc::new(structs)), ("l", Arc::new(lists))];
    let rows = RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap();
    check_ranges(&rows).unwrap();
    let json = encode(&Format::Json, &rows);
    let text: Vec<&str> = json.iter().map(|row| std::str::from_utf8(row).unwrap()).collect();
    let expected = [
        r#"{"s":null,"l":[]}"#,
        r#"{"s":{"day":"1970-01-02"},"l":["1970-01-02"]}"#,
        r#"{"s":null,"l":null}"#,
        r#"{"s":{"day":"1970-01-03"},"l":[]}"#,
        r#"{"s":null,"l":null}"#,
    ];
    assert_eq!(text, expected);
    assert_eq!(encode(&Format::Json, &rows.slice(2, 3)), json[2..]);
    let lines = encode(&csv(&[""]), &rows);
    assert_eq!([&lines[0], &lines[2], &lines[4]], [b",[]".as_slice(), b",", b","]);
    assert_eq!(encode(&csv(&[""]), &rows.slice(2, 3)), lines[2..]);
}

fn inferred(format: &Format, lines: &[&str], header: Option<&[String]>) -> String {
    let values: Vec<_> = lines.iter().map(|line| Some(line.as_bytes())).collect();
    match format.infer(&records(&values), header) {
        Ok(schema) => schema_yaml(&schema, 2),
        Err(error) => error.to_string(),
    }
}

#[test]
fn json_columns_are_inferred_as_wide_as_their_values() {
    let lines = [
        r#"{"i":1,"f":1,"t":"2013-01-01T05:00:00Z","s":"2013-01-01T05:00:00Z","n":null,"mixed":1,"l":[],"o":{"a":1}}"#,
        r#"{"i":-2,"f":1.5,"t":null,"s":"x","n":null,"mixed":"x","l":[1,null],"o":{"b":true},"late":18446744073709551615}"#,
        "broken",
        r#"{"yes":false,"two words":"","_offset":7}"#,
    ];
    let expected = "  schema:
    i: int64
    f: float64
    t: timestamp
    s: string
    \"n\": string
    mixed: json
    l: list<int64>
    o: \"struct{a:int64,b:boolean}\"
    late: uint64
    \"yes\": boolean
    \"two words\": string
";
    assert_eq!(inferred(&Format::Json, &lines, None), expected);
}

#[test]
fn csv_columns_are_inferred_from_their_text() {
    let header = ["flight", "delay", "tail", "at", "zip", "none"].map(str::to_owned);
    let lines = ["1,2.5,N1,2013-01-01T05:00:00Z,01234,NA", "2,NA,7,NA,1,NA"];
    let expected = "  schema:
    flight: int64
    delay: float64
    tail: string
    at: timestamp
    zip: string
    none: string
";
    assert_eq!(inferred(&csv(&["NA"]), &lines, Some(&header)), expected);
    assert_eq!(inferred(&csv(&["NA"]), &["1,x"], None), "  schema:\n    column_1: int64\n    column_2: string\n");
}

#[test]
fn an_inferred_schema_can_be_pasted_and_decodes_its_sample() {
    let line = r#"{"a":{"b":[{"c":1}]},"d e":1.5}"#;
    let values = [Some(line.as_bytes())];
    let schema = Arc::new(Format::Json.infer(&records(&values), None).unwrap());
    let yaml: serde_json::Map<String, serde_json::Value> = serde_yaml::from_str(&schema_yaml(&schema, 0)).unwrap();
    for (name, kind) in yaml["schema"].as_object().unwrap() {
        let kind: ColumnType = kind.as_str().unwrap().parse().unwrap();
        assert_eq!(kind.to_field(name), *schema.field_with_name(name).unwrap());
    }
    assert_eq!(decode(&Format::Json, &schema, &[line.into()]).unwrap().num_rows(), 1);
}

#[test]
fn nothing_can_be_inferred_from_an_empty_sample() {
    let expected = "sample: cannot infer the columns: there are no records yet; declare them, as in \
                    `schema: { name: string, at: timestamp }`";
    assert_eq!(inferred(&Format::Json, &[], None), expected);
    assert!(inferred(&Format::Json, &["x"], None).contains("the one record is not of its format"));
}
