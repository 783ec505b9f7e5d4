//! What operators put out is read by Arrow's own reader as it was, and what Arrow's own writer wrote is read by operators:
//! every type, with and without nulls, whole and in slices.

#![cfg(feature = "arrow")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use logmill_guest::arrow::array::*;
use logmill_guest::arrow::buffer::{NullBuffer, OffsetBuffer};
use logmill_guest::arrow::datatypes::{DataType, Field, Fields, Int32Type, Schema};
use logmill_guest::arrow::ipc::{reader::StreamReader, writer::StreamWriter};
use logmill_guest::operator::{Failure, Operator, Outputs, Running, Signature};

struct Identity;

impl Operator for Identity {
    type Config = ();

    fn new(input: &Schema, (): ()) -> Result<(Self, Signature), String> {
        Ok((Identity, Signature::new("out", input.clone())))
    }

    fn on_batch(&mut self, batch: RecordBatch, out: &mut Outputs) -> Result<(), Failure> {
        // In two parts, so that what is put out are slices.
        let middle = batch.num_rows() / 3;
        out.push(batch.slice(0, middle));
        out.push(batch.slice(middle, batch.num_rows() - middle));
        Ok(())
    }
}

/// So many rows of every type; every `nulls`th is null, none if that is 0.
fn columns(rows: usize, nulls: usize) -> RecordBatch {
    let valid = |row: usize| nulls == 0 || !row.is_multiple_of(nulls);
    let number = |row: usize| valid(row).then_some(row as i64 * 7 - 3);
    let texts: StringArray = (0..rows).map(|row| valid(row).then(|| "é".repeat(row % 5))).collect();
    let booleans: BooleanArray = (0..rows).map(|row| valid(row).then_some(row % 3 == 0)).collect();
    let int64s: Int64Array = (0..rows).map(number).collect();
    let decimals: Decimal128Array = (0..rows).map(|row| number(row).map(i128::from)).collect();
    let fixed: Vec<_> = (0..rows).map(|row| valid(row).then_some([row as u8; 3])).collect();
    let fixed = FixedSizeBinaryArray::try_from_sparse_iter_with_size(fixed.into_iter(), 3).unwrap();
    let lists = ListArray::from_iter_primitive::<Int32Type, _, _>(
        (0..rows).map(|row| valid(row).then(|| (0..row % 4).map(|item| Some(item as i32)).collect::<Vec<_>>())),
    );
    let pairs = FixedSizeListArray::from_iter_primitive::<Int32Type, _, _>(
        (0..rows).map(|row| valid(row).then(|| vec![Some(row as i32), None])),
        2,
    );
    let fields =
        Fields::from(vec![Field::new("key", DataType::Utf8, true), Field::new("value", DataType::Int64, true)]);
    let validity = NullBuffer::from_iter((0..rows).map(valid));
    let structs = StructArray::new(fields, vec![Arc::new(texts.clone()), Arc::new(int64s.clone())], Some(validity));
    let item = Arc::new(Field::new("item", structs.data_type().clone(), true));
    let ends = OffsetBuffer::<i64>::from_lengths((0..rows).map(|_| 1));
    let nested = LargeListArray::new(item, ends, Arc::new(structs.clone()), None);
    let times: TimestampMicrosecondArray = (0..rows).map(number).collect();
    let bytes: LargeBinaryArray = (0..rows).map(|row| valid(row).then(|| vec![row as u8; row % 6])).collect();
    let columns: [(&str, ArrayRef); 12] = [
        ("texts", Arc::new(texts)),
        ("booleans", Arc::new(booleans)),
        ("int64s", Arc::new(int64s)),
        ("decimals", Arc::new(decimals)),
        ("fixed", Arc::new(fixed)),
        ("lists", Arc::new(lists)),
        ("pairs", Arc::new(pairs)),
        ("structs", Arc::new(structs)),
        ("nested", Arc::new(nested)),
        ("times", Arc::new(times.with_timezone("UTC"))),
        ("bytes", Arc::new(bytes)),
        ("nothing", Arc::new(NullArray::new(rows))),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap()
}

fn stream(schema: &Schema, batches: &[RecordBatch]) -> Vec<u8> {
    let mut writer = StreamWriter::try_new(Vec::new(), schema).unwrap();
    batches.iter().for_each(|batch| writer.write(batch).unwrap());
    writer.into_inner().unwrap()
}

fn started(schema: &Schema) -> Running<Identity> {
    let running = Running::new();
    running.signature(&stream(schema, &[]), "null").unwrap();
    running
}

#[test]
fn every_type_goes_through_whole_and_in_slices() {
    for (rows, nulls) in [(0, 0), (1, 0), (2, 1), (100, 0), (100, 3), (1000, 1), (1000, 7)] {
        let given = columns(rows, nulls);
        for given in [given.clone(), given.slice(rows / 4, rows / 2)] {
            let outputs =
                started(&given.schema()).on_batch(stream(&given.schema(), std::slice::from_ref(&given))).unwrap();
            let schema = given.schema();
            let back = outputs.iter().flat_map(|output| StreamReader::try_new(&*output.rows, None).unwrap());
            let back: Vec<_> = back.map(Result::unwrap).collect();
            assert!(back.iter().all(|batch| batch.schema() == schema));
            let middle = given.num_rows() / 3;
            let expected = [given.slice(0, middle), given.slice(middle, given.num_rows() - middle)];
            assert_eq!(back, expected, "{rows} rows, every {nulls}th null");
        }
    }
}

#[test]
fn a_stream_that_is_cut_or_changed_anywhere_ends_in_an_error_or_in_rows() {
    let given = columns(20, 3);
    let whole = stream(&given.schema(), std::slice::from_ref(&given));
    let running = started(&given.schema());
    for length in (0..whole.len()).step_by(7) {
        // A stream may lack its last mark; what is cut before is refused.
        if let Ok(outputs) = running.on_batch(whole[..length].to_vec()) {
            assert!(outputs.is_empty() || length >= whole.len() - 8, "{length} of {} bytes", whole.len());
        }
    }
    assert!(running.on_batch(b"1234567890".to_vec()).is_err());
}

#[test]
fn a_type_that_cannot_be_put_out_is_named() {
    let views: ArrayRef = Arc::new(StringViewArray::from(vec!["a"]));
    let given = RecordBatch::try_from_iter([("views", views)]).unwrap();
    let failure = started(&given.schema()).on_batch(stream(&given.schema(), std::slice::from_ref(&given))).unwrap_err();
    assert!(failure.message.contains("Utf8View"), "{}", failure.message);
}
