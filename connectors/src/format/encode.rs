//! Writes rows as JSON objects, and as raw values.
//!
//! Arrow's writer shows a value that it cannot format as an error text in its place. So the ranges of a batch are checked
//! before it is written, and a value out of range is an error with its row.

use std::io::Write as _;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, ListArray, PrimitiveArray, RecordBatch, RecordBatchOptions,
};
use arrow::compute::cast;
use arrow::datatypes::{ArrowNativeType, DataType, Field, FieldRef, Fields, Float32Type, Float64Type, Schema};
use arrow::error::ArrowError;
use arrow::json::writer::{LineDelimited, NullableEncoder, make_encoder};
use arrow::json::{EncoderFactory, EncoderOptions, WriterBuilder};
use bytes::{BufMut, Bytes, BytesMut};
use logmill_columns::out_of_range;
use logmill_pipelines::ColumnType;
use memchr::memchr_iter;

use crate::decode::Encoder;
use crate::error::ConnectorError;

/// Writes each row as one JSON object with all its columns, nulls included. Times follow RFC 3339, bytes are hexadecimal
/// digits, columns of type `json` are put in as they are, floats that JSON has no number for are the strings `NaN`, `Infinity`
/// and `-Infinity`.
pub(crate) struct JsonEncoder;

/// Writes what Arrow's writer would lose: JSON text as JSON, and floats that are no numbers.
#[derive(Debug)]
struct Lossless;

/// One column of JSON text.
struct JsonColumn<'a>(&'a arrow::array::StringArray);

impl arrow::json::Encoder for JsonColumn<'_> {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        // A line end can only be white space in JSON; in a value it would end the record.
        out.extend(self.0.value(row).bytes().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte }));
    }
}

/// One column of lists. Arrow's own writer does not hand the field of the items on, which says that they are JSON.
struct ListColumn<'a> {
    lists: &'a ListArray,
    items: NullableEncoder<'a>,
}

impl arrow::json::Encoder for ListColumn<'_> {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        let at = |row: usize| self.lists.value_offsets().get(row).map_or(0, |offset| offset.as_usize());
        let (start, end) = (at(row), at(row + 1));
        out.push(b'[');
        for item in start..end {
            if item > start {
                out.push(b',');
            }
            match self.items.is_null(item) {
                true => out.extend_from_slice(b"null"),
                false => self.items.encode(item, out),
            }
        }
        out.push(b']');
    }
}

/// A column of floats some of which are no numbers.
struct FloatColumn<'a, T: ArrowPrimitiveType>(&'a PrimitiveArray<T>);

impl<T: ArrowPrimitiveType<Native: Into<f64>>> arrow::json::Encoder for FloatColumn<'_, T> {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        let value = self.0.value(row);
        let wide: f64 = value.into();
        // Writing to memory does not fail.
        let _ = match (wide.is_finite(), wide.is_nan(), wide > 0.0) {
            (true, ..) => write!(out, "{value:?}"),
            (_, true, _) => write!(out, "\"NaN\""),
            (.., true) => write!(out, "\"Infinity\""),
            (.., false) => write!(out, "\"-Infinity\""),
        };
    }
}

/// An encoder of floats, where some are no numbers.
fn float_encoder<T: ArrowPrimitiveType<Native: Into<f64>>>(array: &dyn Array) -> Option<NullableEncoder<'_>> {
    let values = array.as_primitive_opt::<T>()?;
    let all_numbers = values.values().iter().all(|value| Into::<f64>::into(*value).is_finite());
    (!all_numbers).then(|| NullableEncoder::new(Box::new(FloatColumn(values)), values.nulls().cloned()))
}

impl EncoderFactory for Lossless {
    fn make_default_encoder<'a>(
        &self,
        field: &'a FieldRef,
        array: &'a dyn Array,
        options: &'a EncoderOptions,
    ) -> Result<Option<NullableEncoder<'a>>, ArrowError> {
        if let (DataType::List(item), Some(lists)) = (field.data_type(), array.as_list_opt::<i32>()) {
            let items = make_encoder(item, lists.values().as_ref(), options)?;
            return Ok(Some(NullableEncoder::new(Box::new(ListColumn { lists, items }), lists.nulls().cloned())));
        }
        match array.data_type() {
            DataType::Float32 => return Ok(float_encoder::<Float32Type>(array)),
            DataType::Float64 => return Ok(float_encoder::<Float64Type>(array)),
            _ if ColumnType::from_field(field) != Ok(ColumnType::Json) => return Ok(None),
            _ => {}
        }
        let texts = array.as_string_opt::<i32>();
        Ok(texts.map(|texts| NullableEncoder::new(Box::new(JsonColumn(texts)), texts.nulls().cloned())))
    }
}

/// How one column's values are written as JSON.
pub(super) fn json_options() -> EncoderOptions {
    EncoderOptions::default().with_explicit_nulls(true).with_encoder_factory(Arc::new(Lossless))
}

/// The writer of one column's values as JSON.
pub(super) fn json_values<'a>(
    field: &'a FieldRef,
    column: &'a ArrayRef,
    options: &'a EncoderOptions,
) -> Result<NullableEncoder<'a>, ArrowError> {
    make_encoder(field, column.as_ref(), options)
}

/// Fails with the first row that holds a value which text cannot show.
///
/// # Errors
/// `Data`, with the row's place in the batch.
pub fn check_ranges(rows: &RecordBatch) -> Result<(), ConnectorError> {
    match out_of_range(rows).into_iter().next() {
        None => Ok(()),
        Some(bad) => Err(ConnectorError::Data {
            place: format!("row {} of {}", bad.row + 1, rows.num_rows()),
            message: bad.message,
        }),
    }
}

/// Rows as JSON objects for people to look at, one each: times that no text can show are shown as the integers they are.
///
/// # Errors
/// If a column's type has no JSON.
pub fn shown_rows(rows: &RecordBatch) -> Result<Vec<Bytes>, ConnectorError> {
    let failed = |error: ArrowError| write_error("JSON", error);
    let rows = if out_of_range(rows).is_empty() { rows.clone() } else { with_integers(rows).map_err(failed)? };
    let (mut buffer, mut ranges) = (BytesMut::new(), Vec::new());
    JsonEncoder.encode(&rows, &mut buffer, &mut ranges)?;
    let text = buffer.freeze();
    Ok(ranges.into_iter().map(|range| text.slice(range)).collect())
}

/// The rows with integers in place of times, and text in place of decimals.
fn with_integers(rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    fn integers(field: &Field) -> Field {
        let nested = |field: &FieldRef| Arc::new(integers(field));
        let kind = match field.data_type() {
            DataType::Date32 | DataType::Time32(_) => DataType::Int32,
            DataType::Date64 | DataType::Time64(_) | DataType::Timestamp(..) => DataType::Int64,
            DataType::Decimal128(..) => DataType::Utf8,
            DataType::List(item) => DataType::List(nested(item)),
            DataType::Struct(fields) => DataType::Struct(fields.iter().map(nested).collect::<Fields>()),
            other => other.clone(),
        };
        field.clone().with_data_type(kind)
    }
    let schema = rows.schema();
    let fields: Vec<_> = schema.fields().iter().map(|field| integers(field)).collect();
    let columns = rows.columns().iter().zip(&fields).map(|(column, field)| cast(column, field.data_type()));
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)
}

pub(super) fn write_error(format: &str, error: impl Into<crate::error::BoxError>) -> ConnectorError {
    ConnectorError::Permanent { context: format!("cannot write rows as {format}"), source: error.into() }
}

impl Encoder for JsonEncoder {
    fn encode(
        &mut self,
        rows: &RecordBatch,
        buffer: &mut BytesMut,
        values: &mut Vec<Range<usize>>,
    ) -> Result<(), ConnectorError> {
        if rows.num_columns() == 0 {
            for _ in 0..rows.num_rows() {
                values.push(buffer.len()..buffer.len() + 2);
                buffer.put_slice(b"{}");
            }
            return Ok(());
        }
        check_ranges(rows)?;
        let mut start = buffer.len();
        let builder = WriterBuilder::new().with_explicit_nulls(true).with_encoder_factory(Arc::new(Lossless));
        let mut writer = builder.build::<_, LineDelimited>(buffer.writer());
        let written = writer.write(rows).and_then(|()| writer.finish());
        written.map_err(|error| write_error("JSON", error))?;
        drop(writer);
        // Strings hold no line end, it is escaped in them.
        let first = start;
        let text = buffer.get(first..).unwrap_or_default();
        values.reserve(rows.num_rows());
        for end in memchr_iter(b'\n', text) {
            values.push(start..first + end);
            start = first + end + 1;
        }
        Ok(())
    }
}

/// Writes the one column of each row as it is; a null becomes an empty value.
pub(crate) struct RawEncoder;

impl Encoder for RawEncoder {
    fn encode(
        &mut self,
        rows: &RecordBatch,
        buffer: &mut BytesMut,
        values: &mut Vec<Range<usize>>,
    ) -> Result<(), ConnectorError> {
        let [column] = rows.columns() else {
            return Err(ConnectorError::Config(raw_message(rows.num_columns())));
        };
        let binary: ArrayRef = cast(column, &DataType::Binary).map_err(|error| write_error("raw values", error))?;
        for value in binary.as_binary::<i32>() {
            let start = buffer.len();
            buffer.put_slice(value.unwrap_or_default());
            values.push(start..buffer.len());
        }
        Ok(())
    }
}

/// Why rows of these columns cannot be written raw, if they cannot.
pub(crate) fn raw_problem(schema: &Schema) -> Option<String> {
    match schema.fields().iter().as_slice() {
        [field] => match ColumnType::from_field(field) {
            Ok(ColumnType::String | ColumnType::Json | ColumnType::Binary) => None,
            _ => Some(format!(
                "the format raw writes one column, of type string or binary; `{}` is of another type, cast it",
                field.name()
            )),
        },
        fields => Some(raw_message(fields.len())),
    }
}

fn raw_message(columns: usize) -> String {
    format!("the format raw writes one column, of type string or binary; the input has {columns}, select one of them")
}
