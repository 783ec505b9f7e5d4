//! Encodes rows as the values of records.

use std::ops::Range;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::csv::WriterBuilder as CsvWriterBuilder;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::json::LineDelimitedWriter;
use bytes::{BufMut, BytesMut};

use super::csv::CsvOptions;
use crate::decode::Encoder;
use crate::error::ConnectorError;

/// One JSON object a row; null columns are left out.
pub(super) struct JsonEncoder;

/// One line of separated values a row, without a header.
pub(super) struct CsvEncoder {
    options: CsvOptions,
}

/// The only column as it is.
pub(super) struct RawEncoder {
    binary: bool,
}

impl CsvEncoder {
    pub(super) fn new(options: CsvOptions) -> Self {
        Self { options }
    }
}

impl RawEncoder {
    pub(super) fn new(schema: &SchemaRef) -> Result<Self, ConnectorError> {
        match schema.fields().as_ref() {
            [field] if *field.data_type() == DataType::Utf8 => Ok(Self { binary: false }),
            [field] if *field.data_type() == DataType::Binary => Ok(Self { binary: true }),
            _ => Err(ConnectorError::Config(
                "format raw writes exactly one column of text or bytes; select one, or use another format".to_owned(),
            )),
        }
    }
}

fn failed(error: arrow::error::ArrowError) -> ConnectorError {
    ConnectorError::Permanent { context: "could not encode rows".to_owned(), source: error.into() }
}

/// Notes the ranges of the lines from `start` on. Neither JSON nor CSV, as written here, has a bare newline in a line:
/// JSON escapes it, and CSV rows that hold one are told apart by their quotes.
fn note_lines(buffer: &BytesMut, start: usize, quote: Option<u8>, values: &mut Vec<Range<usize>>) {
    let (mut from, mut quoted) = (start, false);
    for (index, byte) in buffer.iter().enumerate().skip(start) {
        if Some(*byte) == quote {
            quoted = !quoted;
        } else if *byte == b'\n' && !quoted {
            values.push(from..index);
            from = index + 1;
        }
    }
}

impl Encoder for JsonEncoder {
    fn encode(
        &mut self,
        rows: &RecordBatch,
        buffer: &mut BytesMut,
        values: &mut Vec<Range<usize>>,
    ) -> Result<(), ConnectorError> {
        let start = buffer.len();
        let mut writer = LineDelimitedWriter::new(buffer.writer());
        writer.write(rows).map_err(failed)?;
        writer.finish().map_err(failed)?;
        note_lines(buffer, start, None, values);
        Ok(())
    }
}

impl Encoder for CsvEncoder {
    fn encode(
        &mut self,
        rows: &RecordBatch,
        buffer: &mut BytesMut,
        values: &mut Vec<Range<usize>>,
    ) -> Result<(), ConnectorError> {
        let start = buffer.len();
        let null = self.options.null_values.first().cloned().unwrap_or_default();
        let builder = CsvWriterBuilder::new()
            .with_header(false)
            .with_delimiter(self.options.delimiter as u8)
            .with_quote(self.options.quote as u8)
            .with_null(null);
        let mut writer = builder.build(buffer.writer());
        writer.write(rows).map_err(failed)?;
        drop(writer);
        note_lines(buffer, start, Some(self.options.quote as u8), values);
        Ok(())
    }
}

impl Encoder for RawEncoder {
    fn encode(
        &mut self,
        rows: &RecordBatch,
        buffer: &mut BytesMut,
        values: &mut Vec<Range<usize>>,
    ) -> Result<(), ConnectorError> {
        let column = rows.column(0);
        for row in 0..rows.num_rows() {
            let start = buffer.len();
            if column.is_valid(row) {
                match self.binary {
                    true => buffer.extend_from_slice(column.as_binary::<i32>().value(row)),
                    false => buffer.extend_from_slice(column.as_string::<i32>().value(row).as_bytes()),
                }
            }
            values.push(start..buffer.len());
        }
        Ok(())
    }
}
