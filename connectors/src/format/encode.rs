//! Writes rows as JSON objects, and as raw values.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef};
use arrow::error::ArrowError;
use arrow::json::writer::{LineDelimited, NullableEncoder};
use arrow::json::{EncoderFactory, EncoderOptions, WriterBuilder};
use bytes::{BufMut, BytesMut};
use logmill_pipelines::ColumnType;
use memchr::memchr_iter;

use crate::decode::Encoder;
use crate::error::ConnectorError;

/// Writes each row as one JSON object with all its columns, nulls included. Times follow RFC 3339, bytes are hexadecimal
/// digits, columns of type `json` are put in as they are.
pub(crate) struct JsonEncoder;

/// Puts JSON text in as JSON.
#[derive(Debug)]
struct Verbatim;

/// One column of JSON text.
struct VerbatimColumn<'a>(&'a arrow::array::StringArray);

impl arrow::json::Encoder for VerbatimColumn<'_> {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        // A line end can only be white space in JSON; in a value it would end the record.
        out.extend(self.0.value(row).bytes().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte }));
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
        let mut start = buffer.len();
        let builder = WriterBuilder::new().with_explicit_nulls(true).with_encoder_factory(Arc::new(Verbatim));
        let mut writer = builder.build::<_, LineDelimited>(buffer.writer());
        let written = writer.write(rows).and_then(|()| writer.finish());
        written.map_err(|error| ConnectorError::Permanent {
            context: "cannot write rows as JSON".into(),
            source: error.into(),
        })?;
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
        let binary: ArrayRef = cast(column, &DataType::Binary).map_err(|error| ConnectorError::Permanent {
            context: "cannot write rows as raw values".into(),
            source: error.into(),
        })?;
        for value in binary.as_binary::<i32>() {
            let start = buffer.len();
            buffer.put_slice(value.unwrap_or_default());
            values.push(start..buffer.len());
        }
        Ok(())
    }
}

/// Why rows of this many columns cannot be written raw.
pub(crate) fn raw_message(columns: usize) -> String {
    format!("the format raw writes one column, of type string or binary; the input has {columns}, select one of them")
}
