//! Rows as messages for transforms: key, timestamp and headers from the hidden columns, the value from all others.

use std::sync::Arc;

use arrow::array::{Array, AsArray, BinaryArray, ListArray, RecordBatch, StructArray};
use arrow::datatypes::{DataType, Field, FieldRef, Int32Type, Int64Type, Schema, TimestampMicrosecondType};
use arrow::error::ArrowError;
use arrow::json::writer::{NullableEncoder, make_encoder};
use arrow::json::{EncoderFactory, EncoderOptions};
use logmill_pipelines::ColumnType;
use logmill_pipelines::flow::META_COLUMNS;

use super::packed::{TooLarge, Writer};
use crate::sql::meta_field;

/// Where the parts of a message are in the rows that a transform reads.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    key: Option<usize>,
    timestamp: Option<usize>,
    headers: Option<usize>,
    pub(super) partition: Option<usize>,
    pub(super) offset: Option<usize>,
    value: Vec<usize>,
}

impl Layout {
    pub(super) fn new(schema: &Schema) -> Self {
        // Whether parts of nested types can be null is of no matter.
        let is_alike = |a: &DataType, b: &DataType| std::mem::discriminant(a) == std::mem::discriminant(b);
        let is_meta = |field: &Field| {
            META_COLUMNS.contains(&field.name().as_str())
                && is_alike(meta_field(field.name()).data_type(), field.data_type())
        };
        let meta = |name: &str| schema.fields().iter().position(|field| field.name() == name && is_meta(field));
        let fields = schema.fields().iter().enumerate();
        Self {
            key: meta("_key"),
            timestamp: meta("_timestamp"),
            headers: meta("_headers"),
            partition: meta("_partition"),
            offset: meta("_offset"),
            value: fields.filter(|(_, field)| !is_meta(field)).map(|(index, _)| index).collect(),
        }
    }

    /// Writes rows as messages.
    pub(super) fn write(&self, rows: &RecordBatch, writer: &mut Writer) -> Result<(), String> {
        let column = |index: Option<usize>| index.and_then(|index| rows.columns().get(index));
        let keys = column(self.key).and_then(|keys| keys.as_binary_opt::<i32>());
        let timestamps = column(self.timestamp).and_then(|times| times.as_primitive_opt::<TimestampMicrosecondType>());
        let headers = column(self.headers).and_then(|headers| Headers::new(headers.as_list_opt::<i32>()?));
        let value = rows.project(&self.value).map_err(|error| error.to_string())?;
        let object = StructArray::from(value.clone());
        let field: FieldRef = Arc::new(Field::new("value", object.data_type().clone(), false));
        let options = EncoderOptions::default().with_explicit_nulls(true).with_encoder_factory(Arc::new(Verbatim));
        let mut values = Values::new(&value, &field, &object, &options).map_err(|error| error.to_string())?;
        let mut write = || {
            writer.begin(rows.num_rows())?;
            for row in 0..rows.num_rows() {
                let at = |nullable: &dyn Array| nullable.is_valid(row);
                writer.timestamp(timestamps.filter(|times| at(*times)).map(|times| times.value(row)));
                writer.bytes(keys.filter(|keys| at(*keys)).map(|keys| keys.value(row)))?;
                values.write(row, writer)?;
                match &headers {
                    Some(headers) => headers.write(row, writer)?,
                    None => writer.count(0)?,
                }
            }
            Ok::<(), TooLarge>(())
        };
        write().map_err(|TooLarge| "a row is larger than 4 GiB".to_owned())
    }
}

/// The partitions and offsets of the records that rows are of.
pub(super) fn places(rows: &RecordBatch, layout: &Layout) -> (Option<Places<Int32Type>>, Option<Places<Int64Type>>) {
    let column = |index: Option<usize>| index.and_then(|index| rows.columns().get(index));
    let partitions = column(layout.partition).and_then(|column| column.as_primitive_opt::<Int32Type>());
    let offsets = column(layout.offset).and_then(|column| column.as_primitive_opt::<Int64Type>());
    (partitions.cloned(), offsets.cloned())
}

/// A column of numbers.
type Places<T> = arrow::array::PrimitiveArray<T>;

/// The values of messages.
enum Values<'a> {
    /// The one column, as it is.
    Text(&'a arrow::array::StringArray),
    Bytes(&'a BinaryArray),
    /// Each row as a JSON object.
    Json(NullableEncoder<'a>),
    /// There are no columns.
    Empty,
}

impl<'a> Values<'a> {
    fn new(
        rows: &'a RecordBatch,
        field: &'a FieldRef,
        object: &'a StructArray,
        options: &'a EncoderOptions,
    ) -> Result<Self, ArrowError> {
        Ok(match rows.columns() {
            [] => Self::Empty,
            [one] if *one.data_type() == DataType::Utf8 => Self::Text(one.as_string()),
            [one] if *one.data_type() == DataType::Binary => Self::Bytes(one.as_binary()),
            _ => Self::Json(make_encoder(field, object, options)?),
        })
    }

    fn write(&mut self, row: usize, writer: &mut Writer) -> Result<(), TooLarge> {
        match self {
            Self::Text(texts) => writer.bytes(texts.is_valid(row).then(|| texts.value(row).as_bytes())),
            Self::Bytes(bytes) => writer.bytes(bytes.is_valid(row).then(|| bytes.value(row))),
            Self::Json(encoder) => writer.written(|out| encoder.encode(row, out)),
            Self::Empty => writer.bytes(Some(b"{}")),
        }
    }
}

/// The headers of rows.
struct Headers<'a> {
    lists: &'a ListArray,
    names: &'a arrow::array::StringArray,
    values: &'a BinaryArray,
}

impl<'a> Headers<'a> {
    fn new(lists: &'a ListArray) -> Option<Self> {
        let pairs = lists.values().as_struct_opt()?;
        let [names, values] = pairs.columns() else { return None };
        Some(Self { lists, names: names.as_string_opt()?, values: values.as_binary_opt()? })
    }

    fn write(&self, row: usize, writer: &mut Writer) -> Result<(), TooLarge> {
        let offsets = self.lists.value_offsets();
        let end = |row: usize| offsets.get(row).and_then(|end| usize::try_from(*end).ok()).unwrap_or(0);
        let range = if self.lists.is_valid(row) { end(row)..end(row + 1) } else { 0..0 };
        writer.count(range.len())?;
        for index in range {
            let name = if self.names.is_valid(index) { self.names.value(index) } else { "" };
            writer.bytes(Some(name.as_bytes()))?;
            writer.bytes(self.values.is_valid(index).then(|| self.values.value(index)))?;
        }
        Ok(())
    }
}

/// Puts JSON text in as JSON.
#[derive(Debug)]
struct Verbatim;

/// One column of JSON text.
struct VerbatimColumn<'a>(&'a arrow::array::StringArray);

impl arrow::json::Encoder for VerbatimColumn<'_> {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(self.0.value(row).as_bytes());
    }
}

impl EncoderFactory for Verbatim {
    fn make_default_encoder<'a>(
        &self,
        field: &'a FieldRef,
        array: &'a dyn Array,
        _options: &'a EncoderOptions,
    ) -> Result<Option<NullableEncoder<'a>>, ArrowError> {
        if ColumnType::from_field(field) != Ok(ColumnType::Json) {
            return Ok(None);
        }
        let texts = array.as_string_opt::<i32>();
        Ok(texts.map(|texts| NullableEncoder::new(Box::new(VerbatimColumn(texts)), texts.nulls().cloned())))
    }
}
