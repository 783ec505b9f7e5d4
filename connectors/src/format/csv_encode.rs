//! Writes rows as CSV.
//!
//! Each value is written such that the CSV decoder reads it back under the same type: lists and structs as JSON, text that could
//! be taken for null in quotes. A row of one column that would be an empty line is quoted, or an error where that would change
//! its meaning, since readers skip empty lines.

use std::fmt::Write as _;
use std::ops::Range;

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use arrow::json::EncoderOptions;
use arrow::json::writer::NullableEncoder;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use bytes::{BufMut, BytesMut};
use memchr::{memchr, memchr3};

use super::csv::Dialect;
use super::encode::{check_ranges, json_options, json_values, write_error};
use crate::decode::Encoder;
use crate::error::ConnectorError;

/// Writes rows as CSV.
pub(crate) struct CsvEncoder {
    dialect: Dialect,
    /// What null is written as.
    null: Vec<u8>,
    nested: EncoderOptions,
    text: Vec<u8>,
}

/// How the values of one column are written.
enum Values<'a> {
    Text(ArrayFormatter<'a>),
    /// As JSON.
    Nested(NullableEncoder<'a>),
}

impl CsvEncoder {
    /// An encoder of rows of these columns.
    ///
    /// # Errors
    /// `Config` if the dialect has no text for null.
    pub(crate) fn new(dialect: Dialect, schema: &SchemaRef) -> Result<Self, ConnectorError> {
        // One column that is null must not become an empty line.
        let wanted = |text: &&Vec<u8>| schema.fields().len() > 1 || !text.is_empty();
        let null = dialect.nulls.iter().find(wanted).or(dialect.nulls.first()).cloned();
        let null = null.ok_or_else(|| {
            ConnectorError::Config("`null_values` is empty, so there is no text that null could be written as".into())
        })?;
        Ok(Self { dialect, null, nested: json_options(), text: Vec::new() })
    }
}

/// Appends a field that is not null, quoted where needed.
pub(super) fn put(text: &[u8], dialect: &Dialect, out: &mut BytesMut) {
    let Dialect { delimiter, quote, nulls } = dialect;
    // What looks like a byte order mark would be dropped at the beginning of a file.
    let is_marked = text.starts_with(b"\xef\xbb\xbf");
    let plain = memchr3(*delimiter, *quote, b'\n', text).is_none() && memchr(b'\r', text).is_none() && !is_marked;
    if plain && !nulls.iter().any(|null| null == text) {
        out.put_slice(text);
    } else {
        put_quoted(text, *quote, out);
    }
}

fn put_quoted(text: &[u8], quote: u8, out: &mut BytesMut) {
    out.put_u8(quote);
    for byte in text {
        if *byte == quote {
            out.put_u8(quote);
        }
        out.put_u8(*byte);
    }
    out.put_u8(quote);
}

impl Encoder for CsvEncoder {
    fn encode(
        &mut self,
        rows: &RecordBatch,
        buffer: &mut BytesMut,
        values: &mut Vec<Range<usize>>,
    ) -> Result<(), ConnectorError> {
        check_ranges(rows)?;
        let failed = |error: ArrowError| write_error("CSV", error);
        let options = FormatOptions::new().with_display_error(false);
        let schema = rows.schema();
        let columns = schema.fields().iter().zip(rows.columns()).map(|(field, column)| {
            let values = match column.data_type() {
                DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) | DataType::Struct(_) => {
                    Values::Nested(json_values(field, column, &self.nested)?)
                }
                _ => Values::Text(ArrayFormatter::try_new(column.as_ref(), &options)?),
            };
            Ok((column, values))
        });
        let mut columns = columns.collect::<Result<Vec<_>, _>>().map_err(failed)?;
        let is_one = columns.len() == 1;
        for row in 0..rows.num_rows() {
            let start = buffer.len();
            for (index, (column, values)) in columns.iter_mut().enumerate() {
                if index > 0 {
                    buffer.put_u8(self.dialect.delimiter);
                }
                if column.is_null(row) {
                    if is_one && self.null.is_empty() {
                        return Err(ConnectorError::Data {
                            place: format!("row {} of {}", row + 1, rows.num_rows()),
                            message:
                                "its only column is null, which would be an empty line, and readers skip those; name a \
                                      text for null, such as `null_values: [\"NULL\"]`"
                                    .into(),
                        });
                    }
                    buffer.put_slice(&self.null);
                    continue;
                }
                self.text.clear();
                match values {
                    Values::Text(formatter) => {
                        let mut text = Utf8Writer(&mut self.text);
                        write!(text, "{}", formatter.value(row)).map_err(|error| write_error("CSV", error))?;
                    }
                    Values::Nested(encoder) => encoder.encode(row, &mut self.text),
                }
                match is_one && self.text.is_empty() {
                    true => put_quoted(&self.text, self.dialect.quote, buffer),
                    false => put(&self.text, &self.dialect, buffer),
                }
            }
            values.push(start..buffer.len());
        }
        Ok(())
    }
}

/// Formatted text as bytes.
struct Utf8Writer<'a>(&'a mut Vec<u8>);

impl std::fmt::Write for Utf8Writer<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}
