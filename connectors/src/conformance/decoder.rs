//! What every decoder is held to.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use arrow::array::Array;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use logmill_pipelines::flow::META_COLUMNS;

use crate::decode::{Decoded, Decoder};
use crate::source::Records;

/// Makes a decoder of the named columns.
pub type MakeDecoder<'a> = &'a dyn Fn(&[String]) -> Box<dyn Decoder>;

/// Records of these values, laid out as a reader lays them out.
pub fn records(values: &[Option<&[u8]>]) -> Records {
    let mut buffer = Vec::new();
    let mut records = Records { place: "sample".into(), first_line: 1, partition: 3, ..Records::default() };
    for value in values {
        let start = buffer.len() as u32;
        records.offsets.push(i64::from(start));
        buffer.extend_from_slice(value.unwrap_or_default());
        records.values.push(value.map(|_| start..buffer.len() as u32));
        buffer.push(b'\n');
    }
    records.buffer = buffer.into();
    records
}

/// Holds a decoder to the contract on some records, of which some may be bad.
///
/// # Panics
/// Where the decoder breaks it.
pub fn check(schema: &SchemaRef, values: &[Option<&[u8]>], make: MakeDecoder<'_>) {
    let names: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
    let all = decode(make(&names), &records(values));
    errors_are_in_order(&all, values.len());
    each_record_alone_gives_the_same(&names, &all, values, make);
    a_decoder_keeps_nothing_of_what_it_decoded(&names, values, make);
    fewer_columns_are_a_part_of_all(&names, &all, values, make);
    no_records_make_no_rows(&names, make);
    meta_columns_belong_to_the_good_records(&all, values, make);
}

fn decode(mut decoder: Box<dyn Decoder>, records: &Records) -> Decoded {
    let decoded = decoder.decode(records).expect("records are good or bad, never an error");
    assert_eq!(decoded.rows.schema(), decoder.schema(), "rows have the schema that was promised");
    decoded
}

fn errors_are_in_order(all: &Decoded, count: usize) {
    assert!(all.errors.is_sorted_by(|left, right| left.index < right.index), "{:?}", all.errors);
    assert_eq!(all.rows.num_rows() + all.errors.len(), count, "each record is a row or an error");
}

fn each_record_alone_gives_the_same(names: &[String], all: &Decoded, values: &[Option<&[u8]>], make: MakeDecoder<'_>) {
    let mut rows = vec![all.rows.slice(0, 0)];
    let mut errors = Vec::new();
    for (index, value) in values.iter().enumerate() {
        let one = decode(make(names), &records(&[*value]));
        errors.extend(one.errors.into_iter().map(|error| (index, error.message)));
        rows.push(one.rows);
    }
    assert_eq!(concat_batches(&all.rows.schema(), &rows).unwrap(), all.rows);
    let together: Vec<_> = all.errors.iter().map(|error| (error.index, error.message.clone())).collect();
    assert_eq!(errors, together, "a record's error does not depend on its neighbours");
}

fn a_decoder_keeps_nothing_of_what_it_decoded(names: &[String], values: &[Option<&[u8]>], make: MakeDecoder<'_>) {
    let mut decoder = make(names);
    let first = decoder.decode(&records(values)).unwrap();
    let second = decoder.decode(&records(values)).unwrap();
    assert_eq!((first.rows, first.errors), (second.rows, second.errors));
}

/// A record that is good with all columns is good with fewer, and gives the same values.
fn fewer_columns_are_a_part_of_all(names: &[String], all: &Decoded, values: &[Option<&[u8]>], make: MakeDecoder<'_>) {
    let good: Vec<_> = (0..values.len()).filter(|index| all.errors.iter().all(|error| error.index != *index)).collect();
    let good: Vec<_> = good.into_iter().filter_map(|index| values.get(index).copied()).collect();
    let mut choices: Vec<Vec<String>> = names.iter().map(|name| vec![name.clone()]).collect();
    choices.push(names.iter().rev().cloned().collect());
    choices.push(Vec::new());
    for columns in choices {
        let some = decode(make(&columns), &records(&good));
        assert_eq!(some.errors, Vec::new(), "with {columns:?}");
        assert_eq!(some.rows.num_rows(), all.rows.num_rows());
        for name in &columns {
            assert_eq!(some.rows.column_by_name(name), all.rows.column_by_name(name), "{name} of {columns:?}");
        }
    }
}

fn no_records_make_no_rows(names: &[String], make: MakeDecoder<'_>) {
    let none = decode(make(names), &records(&[]));
    assert_eq!((none.rows.num_rows(), none.errors.len()), (0, 0));
}

fn meta_columns_belong_to_the_good_records(all: &Decoded, values: &[Option<&[u8]>], make: MakeDecoder<'_>) {
    let mut with_meta: Vec<String> = META_COLUMNS.map(str::to_owned).to_vec();
    with_meta.extend(all.rows.schema().fields().iter().map(|field| field.name().clone()));
    let records = records(values);
    let rows = decode(make(&with_meta), &records).rows;
    let offsets = rows.column_by_name("_offset").unwrap();
    let offsets: &arrow::array::Int64Array = offsets.as_any().downcast_ref().unwrap();
    let bad = |index: &usize| all.errors.iter().any(|error| error.index == *index);
    let expected: Vec<_> = (0..values.len()).filter(|index| !bad(index)).map(|index| records.offsets[index]).collect();
    assert_eq!(offsets.values().to_vec(), expected);
    for name in ["_key", "_timestamp"] {
        assert_eq!(rows.column_by_name(name).unwrap().null_count(), rows.num_rows(), "{name}");
    }
}
