//! What sinks write, sources read back equal: every type, every format, extreme values, as records and as files.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int8Array,
    Int16Array, Int32Array, Int64Array, ListArray, RecordBatch, RecordBatchOptions, StringArray, StructArray,
    Time64MicrosecondArray, TimestampMicrosecondArray, UInt8Array, UInt16Array, UInt32Array, UInt64Array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use bytes::BytesMut;
use logmill_columns::scalar::{DAYS, MICROS};
use logmill_pipelines::{ColumnType, SourceSpec, UnknownFields};
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::json;

use super::{CsvOptions, Format, schema_yaml};
use crate::conformance::decoder::records;
use crate::conformance::memory_log::{MemoryLog, MemoryTransaction};
use crate::lines::{LineEncoder, TextLines};
use crate::object_store::FileFormat;
use crate::registry::{ConnectorContext, registry};
use crate::source::ChunkData;

/// A value of any type.
#[derive(Clone, Debug)]
enum Datum {
    Null,
    Boolean(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    Bytes(Vec<u8>),
    /// Of a list or a struct.
    Nested(Vec<Datum>),
}

fn integer(least: i128, most: i128) -> BoxedStrategy<Datum> {
    let extremes = [least, least + 1, most - 1, most, 0].map(|value| value.clamp(least, most));
    prop_oneof![select(extremes.to_vec()), least..=most].prop_map(Datum::Integer).boxed()
}

fn text() -> BoxedStrategy<String> {
    let odd = [
        "", "NULL", "NA", "\"", "\"\"", ",", "\r", "\n", "\r\n", " ", "\u{feff}", "null", "a\nb", "\0", "\u{2028}",
        "ERROR: x",
    ];
    prop_oneof![select(odd.to_vec()).prop_map(str::to_owned), "[ -~]{0,8}", ".{0,8}", "[a,;\"\n\r\t\\\\]{0,6}"].boxed()
}

fn number(of: BoxedStrategy<f64>) -> BoxedStrategy<Datum> {
    let odd = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0, 5e-324, f64::MAX, f64::MIN_POSITIVE, 0.1, 1e22];
    prop_oneof![select(odd.to_vec()), of].prop_map(Datum::Float).boxed()
}

/// A JSON text as a writer writes it.
fn json_text() -> BoxedStrategy<Datum> {
    let texts = ["null", "true", "0", "-1.5e300", "{}", "[]", "{\"a\":[1,{\"b\":null}]}", "\"\\u0000\\n\"", "\"\""];
    let any = text().prop_map(|text| json!({ "k": [text, 1.5] }).to_string());
    prop_oneof![select(texts.to_vec()).prop_map(str::to_owned), any]
        // A JSON `null` and a null are the same once they are written.
        .prop_map(|text| if text == "null" { Datum::Null } else { Datum::Text(text) })
        .boxed()
}

fn datum(kind: &ColumnType) -> BoxedStrategy<Datum> {
    let values = match kind {
        ColumnType::Boolean => any::<bool>().prop_map(Datum::Boolean).boxed(),
        ColumnType::Int8 => integer(i8::MIN.into(), i8::MAX.into()),
        ColumnType::Int16 => integer(i16::MIN.into(), i16::MAX.into()),
        ColumnType::Int32 => integer(i32::MIN.into(), i32::MAX.into()),
        ColumnType::Int64 => integer(i64::MIN.into(), i64::MAX.into()),
        ColumnType::UInt8 => integer(0, u8::MAX.into()),
        ColumnType::UInt16 => integer(0, u16::MAX.into()),
        ColumnType::UInt32 => integer(0, u32::MAX.into()),
        ColumnType::UInt64 => integer(0, u64::MAX.into()),
        ColumnType::Float32 => number(any::<f32>().prop_map(f64::from).boxed()),
        ColumnType::Float64 => number(any::<f64>().boxed()),
        ColumnType::Decimal { precision, .. } => {
            let most = 10i128.pow(u32::from(*precision)) - 1;
            integer(-most, most)
        }
        ColumnType::String => text().prop_map(Datum::Text).boxed(),
        ColumnType::Json => json_text(),
        ColumnType::Binary => prop::collection::vec(any::<u8>(), 0..6).prop_map(Datum::Bytes).boxed(),
        ColumnType::Date => {
            let four_digits = integer(-719_528, 2_932_896);
            prop_oneof![integer((*DAYS.start()).into(), (*DAYS.end()).into()), four_digits].boxed()
        }
        ColumnType::Time => integer(0, 86_399_999_999),
        ColumnType::Timestamp | ColumnType::TimestampLocal => {
            let seconds =
                (-70_000_000_000i128..260_000_000_000).prop_map(|seconds| Datum::Integer(seconds * 1_000_000));
            prop_oneof![integer((*MICROS.start()).into(), (*MICROS.end()).into()), seconds].boxed()
        }
        ColumnType::List(item) => prop::collection::vec(datum(item), 0..3).prop_map(Datum::Nested).boxed(),
        ColumnType::Struct(fields) => {
            fields.iter().map(|(_, kind)| datum(kind)).collect::<Vec<_>>().prop_map(Datum::Nested).boxed()
        }
    };
    prop_oneof![1 => Just(Datum::Null), 6 => values].boxed()
}

fn kind() -> BoxedStrategy<ColumnType> {
    let words = [
        "boolean",
        "int8",
        "int16",
        "int32",
        "int64",
        "uint8",
        "uint16",
        "uint32",
        "uint64",
        "float32",
        "float64",
        "string",
        "binary",
        "json",
        "date",
        "time",
        "timestamp",
        "timestamp_local",
        "decimal(38,0)",
        "decimal(38,38)",
        "decimal(5,2)",
        "decimal(1,0)",
    ];
    let leaf = select(words.to_vec()).prop_map(|word| word.parse::<ColumnType>().unwrap());
    let nested = leaf.clone().prop_recursive(3, 8, 3, |inner| {
        let fields = prop::collection::btree_map("[a-z ,\"`.]{1,4}", inner.clone(), 1..3);
        prop_oneof![
            inner.prop_map(|item| ColumnType::List(Box::new(item))),
            fields.prop_map(|fields| ColumnType::Struct(fields.into_iter().collect())),
        ]
    });
    prop_oneof![leaf, nested].boxed()
}

fn integers<T: TryFrom<i128>>(data: &[Datum]) -> impl Iterator<Item = Option<T>> + '_ {
    data.iter().map(|datum| match datum {
        Datum::Integer(value) => Some(T::try_from(*value).ok().unwrap()),
        _ => None,
    })
}

fn floats(data: &[Datum]) -> impl Iterator<Item = Option<f64>> + '_ {
    data.iter().map(|datum| if let Datum::Float(value) = datum { Some(*value) } else { None })
}

/// A column of these values.
fn column(kind: &ColumnType, data: &[Datum]) -> ArrayRef {
    let texts = || data.iter().map(|datum| if let Datum::Text(text) = datum { Some(text.as_str()) } else { None });
    let bytes = || data.iter().map(|datum| if let Datum::Bytes(bytes) = datum { Some(bytes.as_slice()) } else { None });
    let nested = |datum: &Datum| if let Datum::Nested(values) = datum { values.clone() } else { Vec::new() };
    let valid = || NullBuffer::from_iter(data.iter().map(|datum| !matches!(datum, Datum::Null)));
    match (kind, kind.to_arrow()) {
        (ColumnType::Boolean, _) => Arc::new(BooleanArray::from_iter(
            data.iter().map(|datum| if let Datum::Boolean(value) = datum { Some(*value) } else { None }),
        )),
        (ColumnType::Int8, _) => Arc::new(Int8Array::from_iter(integers(data))),
        (ColumnType::Int16, _) => Arc::new(Int16Array::from_iter(integers(data))),
        (ColumnType::Int32, _) => Arc::new(Int32Array::from_iter(integers(data))),
        (ColumnType::Int64, _) => Arc::new(Int64Array::from_iter(integers(data))),
        (ColumnType::UInt8, _) => Arc::new(UInt8Array::from_iter(integers(data))),
        (ColumnType::UInt16, _) => Arc::new(UInt16Array::from_iter(integers(data))),
        (ColumnType::UInt32, _) => Arc::new(UInt32Array::from_iter(integers(data))),
        (ColumnType::UInt64, _) => Arc::new(UInt64Array::from_iter(integers(data))),
        (ColumnType::Float32, _) => {
            Arc::new(Float32Array::from_iter(floats(data).map(|value| value.map(|value| value as f32))))
        }
        (ColumnType::Float64, _) => Arc::new(Float64Array::from_iter(floats(data))),
        (ColumnType::Decimal { .. }, kind) => {
            Arc::new(Decimal128Array::from_iter(integers::<i128>(data)).with_data_type(kind))
        }
        (ColumnType::String | ColumnType::Json, _) => Arc::new(StringArray::from_iter(texts())),
        (ColumnType::Binary, _) => Arc::new(BinaryArray::from_iter(bytes())),
        (ColumnType::Date, _) => Arc::new(Date32Array::from_iter(integers(data))),
        (ColumnType::Time, _) => Arc::new(Time64MicrosecondArray::from_iter(integers(data))),
        (ColumnType::Timestamp | ColumnType::TimestampLocal, kind) => {
            Arc::new(TimestampMicrosecondArray::from_iter(integers(data)).with_data_type(kind))
        }
        (ColumnType::List(item), DataType::List(field)) => {
            let lists: Vec<_> = data.iter().map(nested).collect();
            let offsets = OffsetBuffer::from_lengths(lists.iter().map(Vec::len));
            let items: Vec<_> = lists.into_iter().flatten().collect();
            Arc::new(ListArray::new(field, offsets, column(item, &items), Some(valid())))
        }
        (ColumnType::Struct(kinds), DataType::Struct(fields)) => {
            let of = |(index, (_, kind)): (usize, &(String, ColumnType))| {
                let values: Vec<_> =
                    data.iter().map(|d| nested(d).get(index).cloned().unwrap_or(Datum::Null)).collect();
                column(kind, &values)
            };
            let columns = kinds.iter().enumerate().map(of).collect();
            Arc::new(StructArray::new(fields, columns, Some(valid())))
        }
        (kind, _) => panic!("{kind} is of another Arrow type"),
    }
}

fn rows() -> BoxedStrategy<RecordBatch> {
    let columns = prop::collection::btree_map("[a-z ,\"`.é]{1,4}", kind(), 1..4);
    let data = (columns, 0usize..6).prop_flat_map(|(columns, rows)| {
        let data: Vec<_> = columns.values().map(|kind| prop::collection::vec(datum(kind), rows)).collect();
        (Just(columns), data)
    });
    data.prop_map(|(columns, data)| {
        let fields: Vec<_> = columns.iter().map(|(name, kind)| kind.to_field(name)).collect();
        let arrays: Vec<_> = columns.values().zip(&data).map(|(kind, data)| column(kind, data)).collect();
        RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap()
    })
    .boxed()
}

/// The schema as `explain` prints it and a pipeline declares it.
fn printed(schema: &SchemaRef) -> serde_json::Value {
    let yaml: serde_json::Value = serde_yaml::from_str(&schema_yaml(schema, 0)).unwrap();
    yaml["schema"].clone()
}

/// The rows of all files of a source that declares these columns.
async fn read(folder: &Path, spec: serde_json::Value) -> RecordBatch {
    let spec: SourceSpec = serde_json::from_value(spec).unwrap();
    registry().check_source(&spec).unwrap();
    let log = Arc::new(MemoryLog::default());
    let transaction = Arc::new(MemoryTransaction::begin(log.clone()).await.unwrap());
    let context = ConnectorContext {
        log,
        transaction,
        base_dir: folder.to_owned(),
        deployment: "d".into(),
        pipeline: "p".into(),
    };
    let handle = registry().open_source("s", &spec, None, &context).await.unwrap();
    let names: Vec<_> = handle.schema.fields().iter().map(|field| field.name().clone()).collect();
    let mut decoder = handle.decoder(&names).unwrap();
    let mut batches = Vec::new();
    for split in handle.source.discover(&Default::default()).await.unwrap().new {
        let mut reader = handle.source.open(&split, None).await.unwrap();
        while let Some(chunk) = reader.next().await.unwrap() {
            batches.push(match (chunk.data, &mut decoder) {
                (ChunkData::Rows(batch, rejected), _) => {
                    assert_eq!(rejected, []);
                    batch.rows
                }
                (ChunkData::Records(records), Some(decoder)) => {
                    let decoded = decoder.decode(&records).unwrap();
                    assert_eq!(decoded.errors, []);
                    decoded.rows
                }
                _ => panic!("records without a decoder"),
            });
        }
    }
    concat_batches(&handle.schema, &batches).unwrap()
}

/// The formats of text, with what the YAML says of each.
fn text_formats() -> Vec<(Format, serde_json::Value)> {
    let csv = |options: serde_json::Value| {
        let parsed: CsvOptions = serde_json::from_value(options.clone()).unwrap();
        let mut spec = options;
        spec["type"] = "csv".into();
        (Format::Csv(parsed), spec)
    };
    vec![
        (Format::Json, json!("json")),
        csv(json!({ "null_values": ["NULL", "", "NA"] })),
        csv(json!({ "null_values": ["", "null"], "delimiter": ";", "quote": "'" })),
        csv(json!({ "header": false, "null_values": ["NULL"] })),
    ]
}

/// Whether CSV cannot hold the rows: a null in the only column, which would be an empty line.
fn is_empty_line(format: &Format, rows: &RecordBatch) -> bool {
    let Format::Csv(options) = format else { return false };
    let names_null = options.null_values.iter().any(|null| !null.is_empty());
    !names_null && rows.num_columns() == 1 && rows.column(0).null_count() > 0
}

proptest! {
    #[test]
    fn records_come_back(rows in rows()) {
        let names: Vec<_> = rows.schema().fields().iter().map(|field| field.name().clone()).collect();
        for (format, _) in text_formats() {
            if is_empty_line(&format, &rows) {
                continue;
            }
            let (mut buffer, mut ranges) = (BytesMut::new(), Vec::new());
            format.encoder(&rows.schema()).unwrap().encode(&rows, &mut buffer, &mut ranges).unwrap();
            let values: Vec<_> = ranges.into_iter().map(|range| Some(&buffer[range])).collect();
            let mut decoder = format.decoder(&rows.schema(), &names, UnknownFields::Error).unwrap();
            let decoded = decoder.decode(&records(&values)).unwrap();
            prop_assert_eq!(decoded.errors, vec![], "{}", format.name());
            prop_assert_eq!(&decoded.rows, &rows, "{}", format.name());
        }
    }

    #[test]
    fn files_come_back(rows in rows()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let folder = tempfile::TempDir::new().unwrap();
        for (format, spec) in text_formats() {
            if is_empty_line(&format, &rows) {
                continue;
            }
            let header = match &format {
                Format::Csv(options) if options.header => Some(options.header_line(&rows.schema()).unwrap()),
                _ => None,
            };
            let lines = TextLines { header, encoder: format.encoder(&rows.schema()).unwrap() };
            let mut text = Vec::new();
            LineEncoder::new(lines).encode(&rows, &mut text).unwrap();
            std::fs::write(folder.path().join("rows"), &text).unwrap();
            let spec = json!({ "type": "file", "path": "rows", "format": spec, "schema": printed(&rows.schema()) });
            let found = runtime.block_on(read(folder.path(), spec));
            prop_assert_eq!(&found, &rows, "{}: {}", format.name(), String::from_utf8_lossy(&text));
        }
        let mut encoder = FileFormat::Parquet.encoder(None, &rows.schema()).unwrap();
        assert_eq!(encoder.write(&rows).unwrap(), [], "rows that are refused");
        std::fs::write(folder.path().join("rows.parquet"), encoder.finish().unwrap()).unwrap();
        let file = json!({ "type": "file", "path": "rows.parquet", "format": "parquet" });
        let mut declared = file.clone();
        declared["schema"] = printed(&rows.schema());
        prop_assert_eq!(&runtime.block_on(read(folder.path(), declared)), &rows);
        let inferred = runtime.block_on(read(folder.path(), file));
        prop_assert_eq!(&inferred, &rows, "a Parquet file tells its types");
    }

    #[test]
    fn values_out_of_range_are_errors_with_their_row_and_never_text(
        value in prop_oneof![Just(i64::MAX), Just(i64::MIN), *MICROS.end() + 1..i64::MAX],
        kind in select(vec!["timestamp", "timestamp_local", "time"]),
        before in 0usize..3,
    ) {
        let kind: ColumnType = kind.parse().unwrap();
        let data: Vec<_> = std::iter::repeat_n(Datum::Integer(0), before).chain([Datum::Integer(value.into())]).collect();
        for nested in [false, true] {
            let kind = if nested { ColumnType::List(Box::new(kind.clone())) } else { kind.clone() };
            let data: Vec<_> =
                data.iter().map(|datum| if nested { Datum::Nested(vec![datum.clone()]) } else { datum.clone() }).collect();
            let schema = Arc::new(Schema::new(vec![kind.to_field("at")]));
            let rows = RecordBatch::try_new_with_options(
                schema.clone(), vec![column(&kind, &data)], &RecordBatchOptions::default(),
            ).unwrap();
            for (format, _) in text_formats() {
                let written = format.encoder(&schema).unwrap().encode(&rows, &mut BytesMut::new(), &mut Vec::new());
                let message = written.unwrap_err().to_string();
                let place = format!("row {} of {}: column `at`: the time", before + 1, before + 1);
                prop_assert!(message.starts_with(&place), "{}", message);
            }
            let shown = super::shown_rows(&rows).unwrap();
            let last: serde_json::Value = serde_json::from_slice(shown.last().unwrap()).unwrap();
            let at = if nested { last["at"][0].clone() } else { last["at"].clone() };
            prop_assert_eq!(at, json!(value));
        }
    }
}

#[test]
fn a_value_of_csv_that_begins_as_a_byte_order_mark_is_quoted() {
    let schema = Arc::new(Schema::new(vec![ColumnType::String.to_field("a")]));
    let rows = RecordBatch::try_new(schema.clone(), vec![Arc::new(StringArray::from(vec!["\u{feff}x"]))]).unwrap();
    let mut buffer = BytesMut::new();
    Format::Csv(CsvOptions::default()).encoder(&schema).unwrap().encode(&rows, &mut buffer, &mut Vec::new()).unwrap();
    assert_eq!(&buffer[..], "\"\u{feff}x\"".as_bytes());
}

#[test]
fn a_null_that_would_be_an_empty_line_of_csv_is_an_error() {
    let schema = Arc::new(Schema::new(vec![ColumnType::String.to_field("a")]));
    let rows = RecordBatch::try_new(schema.clone(), vec![Arc::new(StringArray::from(vec![Some(""), None]))]).unwrap();
    let format = Format::Csv(CsvOptions::default());
    let error = format.encoder(&schema).unwrap().encode(&rows, &mut BytesMut::new(), &mut Vec::new()).unwrap_err();
    assert!(error.to_string().starts_with("row 2 of 2: its only column is null"), "{error}");
}

#[test]
fn columns_that_a_format_cannot_carry_are_refused_before_a_run() {
    use arrow::datatypes::{Field, IntervalUnit, TimeUnit};
    let csv_without_null = Format::Csv(CsvOptions { null_values: Vec::new(), ..CsvOptions::default() });
    let of = |kind: DataType| Arc::new(Schema::new(vec![Field::new("c", kind, true)]));
    for (format, kind, expected) in [
        (Format::Json, DataType::Duration(TimeUnit::Microsecond), "column `c` cannot be written as JSON"),
        (
            Format::Csv(CsvOptions::default()),
            DataType::Interval(IntervalUnit::MonthDayNano),
            "column `c` cannot be written as CSV",
        ),
        (csv_without_null, DataType::Utf8, "`null_values` is empty"),
        (Format::Raw, DataType::Int64, "the format raw writes one column, of type string or binary"),
    ] {
        let error = format.encoder(&of(kind)).err().unwrap().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
}
