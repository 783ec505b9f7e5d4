//! Streams that come back, and those that must not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use arrow::array::{
    BooleanArray, Decimal128Array, FixedSizeBinaryArray, Int32Array, Int64Array, ListArray, StringArray, StructArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{Field, Fields, Int64Type, TimeUnit, UnionFields, UnionMode};
use arrow::ipc::{self, root_as_message};
use flatbuffers::FlatBufferBuilder;
use logmill_pipelines::ColumnType;
use proptest::prelude::*;

use super::*;

fn batch() -> RecordBatch {
    let list = ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1)]), None, Some(vec![])]);
    let names: ArrayRef = Arc::new(StringArray::from(vec![Some("ä"), None, Some("")]));
    let pair = StructArray::from(vec![(Arc::new(Field::new("name", DataType::Utf8, true)), Arc::clone(&names))]);
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("n", Arc::new(Int64Array::from(vec![Some(1), None, Some(3)]))),
        ("name", names),
        ("flag", Arc::new(BooleanArray::from(vec![true, false, true]))),
        ("list", Arc::new(list)),
        ("pair", Arc::new(pair)),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true))).unwrap()
}

/// What is read of a stream by a guest with 1 MiB of memory.
fn decoded(stream: Vec<u8>, declared: &SchemaRef) -> Result<Vec<RecordBatch>, String> {
    decode_rows(stream, declared, &mut Budget::new(1024 * 1024))
}

fn refused(rows: &RecordBatch, stream: Vec<u8>) -> String {
    decoded(stream, &rows.schema()).expect_err("a stream that is refused")
}

/// Where the record batch's message begins in a stream of a schema and a batch.
fn batch_message(stream: &[u8]) -> usize {
    let length = |at: usize| usize::try_from(u32::from_le_bytes(stream[at..at + 4].try_into().unwrap())).unwrap();
    let schema = length(4);
    8 + schema + 8
}

/// The stream of rows, with the numbers of its arrays (length, nulls) and of its buffers (offset, length) changed.
pub(in crate::wasm) fn forged(rows: &RecordBatch, change: impl Fn(&mut [[i64; 2]], &mut [[i64; 2]])) -> Vec<u8> {
    let mut stream = encode_rows(rows).unwrap();
    let at = batch_message(&stream);
    let (nodes, buffers) = {
        let batch = root_as_message(&stream[at..]).unwrap().header_as_record_batch().unwrap();
        let place = |bytes: &[u8]| (bytes.as_ptr() as usize - stream.as_ptr() as usize, bytes.len());
        (place(batch.nodes().unwrap().bytes()), place(batch.buffers().unwrap().bytes()))
    };
    let read = |(at, length): (usize, usize)| -> Vec<[i64; 2]> {
        let number = |bytes: &[u8]| i64::from_le_bytes(bytes.try_into().unwrap());
        stream[at..at + length].chunks(16).map(|pair| [number(&pair[..8]), number(&pair[8..])]).collect()
    };
    let (mut changed_nodes, mut changed_buffers) = (read(nodes), read(buffers));
    change(&mut changed_nodes, &mut changed_buffers);
    for ((at, _), pairs) in [(nodes, changed_nodes), (buffers, changed_buffers)] {
        for (index, number) in pairs.as_flattened().iter().enumerate() {
            stream[at + index * 8..at + index * 8 + 8].copy_from_slice(&number.to_le_bytes());
        }
    }
    stream
}

#[test]
fn rows_come_back() {
    let rows = batch();
    for rows in [rows.clone(), rows.slice(1, 2), rows.slice(0, 1)] {
        let stream = encode_rows(&rows).unwrap();
        assert_eq!(decoded(stream, &rows.schema()).unwrap(), [rows]);
    }
    let stream = encode_rows(&rows).unwrap();
    let without_end = stream[..stream.len() - END.len()].to_vec();
    assert_eq!(decoded(without_end, &rows.schema()).unwrap(), std::slice::from_ref(&rows));
    assert_eq!(decode_schema(&encode_schema(&rows.schema()).unwrap()).unwrap(), rows.schema());
    assert!(decoded(encode_rows(&rows.slice(0, 0)).unwrap(), &rows.schema()).unwrap().is_empty());
}

#[test]
fn rows_without_columns_are_counted() {
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(3));
    let rows = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options).unwrap();
    assert!(!encode_rows(&rows).unwrap().is_empty());
    assert!(refused(&rows, encode_rows(&rows).unwrap()).contains("rows without columns"));
}

#[test]
fn other_columns_than_declared_are_told() {
    let stream = encode_rows(&batch().project(&[0, 1]).unwrap()).unwrap();
    for (columns, expected) in [
        (vec![0], "its rows have 2 columns, its signature 1"),
        (vec![1, 0], "the column `n` of type Int64 where the signature has `name` of type Utf8"),
        (vec![0, 1, 2], "its rows have 2 columns, its signature 3"),
    ] {
        let declared = Arc::new(batch().schema().project(&columns).unwrap());
        let message = decoded(stream.clone(), &declared).unwrap_err();
        assert!(message.contains(expected), "{message}");
    }
    let strict = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
    let stream = encode_rows(&batch().project(&[0]).unwrap()).unwrap();
    assert!(decoded(stream, &strict).unwrap_err().contains("do not fit its signature"));
}

#[test]
fn what_is_no_stream_is_refused() {
    let stream = encode_rows(&batch()).unwrap();
    for bytes in [&b""[..], b"\0", b"hello, this is no Arrow at all", &stream[..stream.len() / 2]] {
        refused(&batch(), bytes.to_vec());
    }
    let twice = [stream.clone(), stream].concat();
    assert!(refused(&batch(), twice).contains("bytes follow its end"));
}

/// A few kilobytes that many columns share are not many times as many rows.
#[test]
fn buffers_do_not_share_bytes() {
    let text: ArrayRef = Arc::new(StringArray::from_iter_values((0..1000).map(|number| format!("row {number}"))));
    let rows = RecordBatch::try_from_iter((0..50).map(|n| (format!("c{n}"), Arc::clone(&text)))).unwrap();
    let stream = forged(&rows, |_, buffers| {
        let first: Vec<[i64; 2]> = buffers[..3].to_vec();
        for three in buffers.chunks_mut(3) {
            three.copy_from_slice(&first);
        }
    });
    let message = refused(&rows, stream);
    assert!(message.contains("the column `c1`: its buffers overlap"), "{message}");
    let by_one = forged(&rows, |_, buffers| buffers[4][0] = buffers[2][0] + buffers[2][1] - 1);
    assert!(refused(&rows, by_one).contains("overlap"));
}

#[test]
fn arrays_have_what_they_need_and_lie_within_their_message() {
    let rows = batch();
    type Pairs<'a> = &'a mut [[i64; 2]];
    let check = |change: &dyn Fn(Pairs<'_>, Pairs<'_>), expected: &str| {
        let message = refused(&rows, forged(&rows, change));
        assert!(message.contains(expected), "{message}");
    };
    check(&|nodes, _| nodes[0][0] = 1 << 31, "too few bits");
    check(&|nodes, _| nodes[0] = [1 << 31, 0], "too few bits");
    check(&|nodes, _| nodes[2][0] = 1 << 31, "bytes of values and needs");
    check(&|nodes, _| nodes[1][0] = -1, "a negative number of values");
    check(&|nodes, _| nodes[1][1] = -1, "it cannot have -1 nulls");
    check(&|nodes, _| nodes[0][1] = 4, "it cannot have 4 nulls among 3 values");
    check(&|nodes, _| nodes[0][1] = 2, "null_count");
    check(&|nodes, _| nodes[1][1] = 0, "it has nulls and says that it has none");
    check(&|nodes, _| nodes[2][0] = 2, "it has 2 values, the batch has 3 rows");
    check(&|nodes, _| nodes[6][0] = 2, "it has 2 values where 3 are expected");
    check(&|_, buffers| buffers[1] = [1 << 40, 24], "outside of its message");
    check(&|_, buffers| buffers[1] = [i64::MAX, 0], "outside of its message");
    check(&|_, buffers| buffers[1][0] = -8, "at a negative place");
    check(&|_, buffers| buffers[1][1] = 16, "16 bytes of values and needs 24");
    check(&|_, buffers| buffers[3][1] = 8, "bytes of offsets and needs 16");
}

/// The buffer of a column's values, to write into.
fn with_values(rows: &RecordBatch, buffer: usize, values: &[u8]) -> Vec<u8> {
    let mut stream = encode_rows(rows).unwrap();
    let at = batch_message(&stream);
    let length = usize::try_from(u32::from_le_bytes(stream[at - 4..at].try_into().unwrap())).unwrap();
    let batch = root_as_message(&stream[at..]).unwrap().header_as_record_batch().unwrap();
    let place = at + length + usize::try_from(batch.buffers().unwrap().get(buffer).offset()).unwrap();
    stream[place..place + values.len()].copy_from_slice(values);
    stream
}

#[test]
fn offsets_and_texts_are_checked() {
    let texts: ArrayRef = Arc::new(StringArray::from(vec!["ab", "cd", "ef"]));
    let rows = RecordBatch::try_from_iter([("text", texts)]).unwrap();
    let offsets = |offsets: [i32; 4]| offsets.map(i32::to_le_bytes).concat();
    for (offsets, expected) in [
        (offsets([0, 4, 2, 6]), "Offset invariant failure"),
        (offsets([0, 2, 4, 1 << 20]), "bytes of values and needs"),
        (offsets([0, -2, 4, 6]), "ffset"),
        (offsets([0, 2, 4, -1]), "bytes of values and needs"),
    ] {
        let message = refused(&rows, with_values(&rows, 1, &offsets));
        assert!(message.contains(expected), "{message}");
    }
    let message = refused(&rows, with_values(&rows, 2, &[0xff; 6]));
    assert!(message.to_lowercase().contains("utf8") || message.to_lowercase().contains("utf-8"), "{message}");
}

#[test]
fn types_that_cannot_flow_are_refused() {
    let int = || Arc::new(Field::new("item", DataType::Int64, true));
    let texts = || Arc::new(Field::new("values", DataType::Utf8, true));
    let entries =
        Fields::from(vec![Field::new("keys", DataType::Utf8, false), Field::new("values", DataType::Utf8, true)]);
    let entries = Arc::new(Field::new("entries", DataType::Struct(entries), false));
    let union = UnionFields::try_new(vec![0], vec![Field::new("a", DataType::Int64, true)]).unwrap();
    let twice = Fields::from(vec![Field::new("a", DataType::Int64, true), Field::new("a", DataType::Utf8, true)]);
    let deep = (0..40).fold(DataType::Int64, |item, _| DataType::List(Arc::new(Field::new("item", item, true))));
    for (data_type, expected) in [
        (DataType::Null, "the Arrow type Null"),
        (DataType::Utf8View, "the Arrow type Utf8View"),
        (DataType::BinaryView, "the Arrow type BinaryView"),
        (DataType::ListView(int()), "the Arrow type ListView"),
        (DataType::LargeListView(int()), "the Arrow type LargeListView"),
        (DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::Utf8)), "a dictionary"),
        (DataType::RunEndEncoded(Arc::new(Field::new("run_ends", DataType::Int32, false)), texts()), "RunEndEncoded"),
        (DataType::Map(entries, false), "the Arrow type Map"),
        (DataType::Union(union, UnionMode::Dense), "the Arrow type Union"),
        (DataType::FixedSizeBinary(0), "the Arrow type FixedSizeBinary"),
        (DataType::FixedSizeList(int(), 0), "the Arrow type FixedSizeList"),
        (DataType::Struct(Fields::empty()), "the Arrow type Struct"),
        (DataType::Struct(twice), "has two fields `a`"),
        (deep, "nests more than 32 deep"),
        (DataType::Duration(TimeUnit::Second), "the Arrow type Duration"),
        (DataType::Decimal256(50, 2), "the Arrow type Decimal"),
        (DataType::Decimal128(39, 2), "decimal(39,2)"),
        (DataType::Decimal128(10, -2), "decimal(10,-2)"),
        (DataType::Decimal128(10, 11), "decimal(10,11)"),
        (DataType::Timestamp(TimeUnit::Second, Some("Mars/Phobos".into())), "`Mars/Phobos`, which is unknown"),
        (
            DataType::List(Arc::new(Field::new("item", DataType::Null, true))),
            "has `item`, which is of the Arrow type Null",
        ),
    ] {
        let schema = Schema::new(vec![Field::new("c", data_type.clone(), true)]);
        let message = decode_schema(&encode_schema(&schema).unwrap()).unwrap_err();
        assert!(message.contains("`c`") && message.contains(expected), "{data_type}: {message}");
    }
    for zone in ["UTC", "+02:00", "Europe/Berlin"] {
        let data_type = DataType::Timestamp(TimeUnit::Microsecond, Some(zone.into()));
        let schema = Schema::new(vec![Field::new("c", data_type, true)]);
        decode_schema(&encode_schema(&schema).unwrap()).unwrap();
    }
}

#[test]
fn a_schema_is_no_larger_than_its_bytes() {
    let columns = |count: usize| {
        let fields: Vec<Field> = (0..count).map(|n| Field::new(format!("c{n}"), DataType::Int8, true)).collect();
        encode_schema(&Schema::new(fields)).unwrap()
    };
    assert_eq!(decode_schema(&columns(10_000)).unwrap().fields().len(), 10_000);
    assert!(decode_schema(&columns(10_001)).unwrap_err().contains("more than 10000"));
    // One column that is named in thousands of places.
    let mut builder = FlatBufferBuilder::new();
    let name = builder.create_string("a column with a long name, that takes as much each time");
    let int = ipc::Int::create(&mut builder, &ipc::IntArgs { bitWidth: 8, is_signed: true });
    let children = builder.create_vector::<flatbuffers::WIPOffset<ipc::Field<'_>>>(&[]);
    let field = ipc::FieldArgs {
        name: Some(name),
        nullable: true,
        type_type: ipc::Type::Int,
        type_: Some(int.as_union_value()),
        children: Some(children),
        ..ipc::FieldArgs::default()
    };
    let field = ipc::Field::create(&mut builder, &field);
    let fields = builder.create_vector(&vec![field; 9_000]);
    let schema = ipc::SchemaArgs { fields: Some(fields), ..ipc::SchemaArgs::default() };
    let schema = ipc::Schema::create(&mut builder, &schema);
    let message = ipc::MessageArgs {
        version: ipc::MetadataVersion::V5,
        header_type: ipc::MessageHeader::Schema,
        header: Some(schema.as_union_value()),
        ..ipc::MessageArgs::default()
    };
    let message = ipc::Message::create(&mut builder, &message);
    builder.finish(message, None);
    let bytes = builder.finished_data();
    let length = u32::try_from(bytes.len()).unwrap();
    let stream = [&[0xff; 4][..], &length.to_le_bytes(), bytes, &END].concat();
    assert!(decode_schema(&stream).is_err());
}

#[test]
fn what_many_small_arrays_take_is_counted() {
    let column: ArrayRef = Arc::new(BooleanArray::from(vec![true]));
    let rows = RecordBatch::try_from_iter((0..2000).map(|n| (format!("c{n}"), Arc::clone(&column)))).unwrap();
    let mut budget = Budget::new(1024 * 1024);
    let stream = encode_rows(&rows).unwrap();
    let mut read = 0;
    let message = loop {
        match decode_rows(stream.clone(), &rows.schema(), &mut budget) {
            Ok(_) => read += 1,
            Err(message) => break message,
        }
    };
    assert!((2..20).contains(&read), "{read} results");
    assert!(message.contains("all that its limit allows"), "{message}");
}

#[test]
fn rows_hold_no_more_than_they_take() {
    let rows = RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from(vec![7; 100_000])) as ArrayRef)]).unwrap();
    let one = rows.slice(0, 1);
    // A batch of one row in a body for many.
    let stream = forged(&rows, |nodes, _| nodes[0][0] = 1);
    let at = batch_message(&stream);
    let batch = root_as_message(&stream[at..]).unwrap().header_as_record_batch().unwrap();
    assert_eq!(batch.length(), 100_000);
    let length_at = stream.windows(8).position(|bytes| bytes == 100_000i64.to_le_bytes()).unwrap();
    let mut stream = stream;
    stream[length_at..length_at + 8].copy_from_slice(&1i64.to_le_bytes());
    let found = decoded(stream, &rows.schema()).unwrap();
    assert_eq!(found, [one]);
    assert!(found[0].get_array_memory_size() < 1000, "{} bytes", found[0].get_array_memory_size());
}

#[test]
fn values_are_those_of_their_types() {
    let json = ColumnType::Json.to_field("c").with_nullable(true);
    let micros = |zone: Option<&str>| DataType::Timestamp(TimeUnit::Microsecond, zone.map(Into::into));
    let field = |data_type: DataType| Field::new("c", data_type, true);
    let text = |text: &str| Arc::new(StringArray::from(vec![Some("1"), None, Some(text)])) as ArrayRef;
    let cases: Vec<(Field, ArrayRef, bool)> = vec![
        (json.clone(), text(r#"{"a": [1, null]}"#), true),
        (json.clone(), text(r#"1, "injected": 2"#), false),
        (json.clone(), text("{"), false),
        (json.clone(), text(""), false),
        (json, text("{\"a\": 1}\n{\"b\": 2}"), false),
        (
            field(micros(Some("UTC"))),
            Arc::new(TimestampMicrosecondArray::from(vec![i64::MAX]).with_timezone("UTC")),
            false,
        ),
        (field(micros(None)), Arc::new(TimestampMicrosecondArray::from(vec![i64::MIN])), false),
        (field(micros(None)), Arc::new(TimestampMicrosecondArray::from(vec![Some(0), None])), true),
        (field(DataType::Date32), Arc::new(arrow::array::Date32Array::from(vec![i32::MAX])), false),
        (
            field(DataType::Time64(TimeUnit::Microsecond)),
            Arc::new(arrow::array::Time64MicrosecondArray::from(vec![86_400_000_000])),
            false,
        ),
        (
            field(DataType::Decimal128(3, 1)),
            Arc::new(Decimal128Array::from(vec![999, -999]).with_precision_and_scale(3, 1).unwrap()),
            true,
        ),
        (
            field(DataType::Decimal128(3, 1)),
            Arc::new(Decimal128Array::from(vec![1000]).with_precision_and_scale(3, 1).unwrap()),
            false,
        ),
    ];
    for (field, column, is_good) in cases {
        let shown = format!("{field}: {column:?}");
        let rows = RecordBatch::try_new(Arc::new(Schema::new(vec![field])), vec![column]).unwrap();
        let found = decoded(encode_rows(&rows).unwrap(), &rows.schema());
        match found {
            Ok(found) => assert!(is_good && found == [rows], "{shown}"),
            Err(message) => assert!(!is_good && message.contains("column `c`"), "{shown}: {message}"),
        }
    }
}

#[test]
fn fixed_widths_come_back() {
    let bytes: ArrayRef = Arc::new(FixedSizeBinaryArray::try_from_iter([[1u8; 3], [2; 3]].into_iter()).unwrap());
    let items: ArrayRef = Arc::new(Int32Array::from(vec![1, 2, 3, 4]));
    let item = Arc::new(Field::new("item", DataType::Int32, true));
    let lists: ArrayRef = Arc::new(arrow::array::FixedSizeListArray::try_new(item, 2, items, None).unwrap());
    let rows = RecordBatch::try_from_iter([("bytes", bytes), ("lists", lists)]).unwrap();
    assert_eq!(decoded(encode_rows(&rows).unwrap(), &rows.schema()).unwrap(), [rows]);
}

proptest! {
    #[test]
    fn any_bytes_are_answered(bytes: Vec<u8>) {
        decoded(bytes, &batch().schema()).unwrap_err();
    }

    /// Whatever is changed in a stream: it is read within its size, or refused.
    #[test]
    fn damaged_streams_are_answered(at in any::<prop::sample::Index>(), byte: u8, more in 0usize..4) {
        let mut stream = encode_rows(&batch()).unwrap();
        for n in 0..=more {
            let place = (at.index(stream.len()) + n * 37) % stream.len();
            stream[place] = byte.wrapping_add(u8::try_from(n).unwrap());
        }
        let bytes = stream.len();
        if let Ok(batches) = decoded(stream, &batch().schema()) {
            for rows in batches {
                prop_assert!(rows.num_rows() <= 8 * bytes);
                for column in rows.columns() {
                    column.to_data().validate_full().unwrap();
                }
            }
        }
    }
}
