//! Decodes lines of separated values. A record is one line, so no field may hold a newline.

use arrow::array::RecordBatch;
use arrow::csv::ReaderBuilder;
use arrow::csv::reader::Format as ArrowFormat;
use arrow::datatypes::SchemaRef;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::json::NULL_VALUE;
use super::meta::Layout;
use crate::decode::{Decoded, Decoder, RowError};
use crate::error::ConnectorError;
use crate::source::Records;

/// How values are separated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CsvOptions {
    /// The character between two values.
    pub delimiter: char,
    /// The character around a value that holds the delimiter.
    pub quote: char,
    /// Whether the first line of a file names the columns. Records of a topic have none.
    pub header: bool,
    /// What stands for null, besides nothing at all.
    pub null_values: Vec<String>,
}

impl Default for CsvOptions {
    fn default() -> Self {
        Self { delimiter: ',', quote: '"', header: true, null_values: Vec::new() }
    }
}

impl CsvOptions {
    /// Refuses what cannot work.
    pub fn check(&self) -> Result<(), ConnectorError> {
        for (name, character) in [("delimiter", self.delimiter), ("quote", self.quote)] {
            if !character.is_ascii() {
                return Err(ConnectorError::Config(format!("format csv: `{name}` must be one ASCII character")));
            }
        }
        Ok(())
    }

    /// The line that names the columns.
    pub fn header_line(&self, schema: &SchemaRef) -> String {
        let name = |name: &String| match name.contains([self.delimiter, self.quote, '\n']) {
            true => format!("{0}{1}{0}", self.quote, name.replace(self.quote, &self.quote.to_string().repeat(2))),
            false => name.clone(),
        };
        let names: Vec<String> = schema.fields().iter().map(|field| name(field.name())).collect();
        names.join(&self.delimiter.to_string())
    }

    pub(super) fn arrow(&self) -> ArrowFormat {
        ArrowFormat::default().with_delimiter(self.delimiter as u8).with_quote(self.quote as u8)
    }

    fn is_null(&self, field: &[u8]) -> bool {
        self.null_values.iter().any(|null| null.as_bytes() == field)
    }

    /// A line without the values that stand for null; only made where there are such values.
    pub(super) fn without_nulls<'a>(&self, line: &'a [u8], scratch: &'a mut Vec<u8>) -> &'a [u8] {
        if self.null_values.is_empty() {
            return line;
        }
        scratch.clear();
        let (mut start, mut quoted) = (0, false);
        for index in 0..=line.len() {
            let byte = line.get(index).copied();
            if byte == Some(self.quote as u8) {
                quoted = !quoted;
            }
            if byte.is_none() || (byte == Some(self.delimiter as u8) && !quoted) {
                let field = line.get(start..index).unwrap_or_default();
                if !self.is_null(field) {
                    scratch.extend_from_slice(field);
                }
                scratch.extend(byte);
                start = index + 1;
            }
        }
        scratch
    }
}

/// Decodes lines.
pub(super) struct CsvDecoder {
    layout: Layout,
    options: CsvOptions,
    projection: Vec<usize>,
}

impl CsvDecoder {
    pub(super) fn new(layout: Layout, options: CsvOptions) -> Result<Self, ConnectorError> {
        options.check()?;
        let index = |field: &arrow::datatypes::FieldRef| layout.all.index_of(field.name()).ok();
        let projection = layout.values.fields().iter().filter_map(index).collect();
        Ok(Self { layout, options, projection })
    }

    fn parse<'a>(
        &self,
        records: &Records,
        which: impl Iterator<Item = &'a usize>,
        rows: usize,
    ) -> Result<RecordBatch, String> {
        let mut builder = ReaderBuilder::new(self.layout.all.clone())
            .with_batch_size(rows.max(1) + 1)
            .with_delimiter(self.options.delimiter as u8)
            .with_quote(self.options.quote as u8);
        builder = builder.with_projection(self.projection.clone());
        let mut decoder = builder.build_decoder();
        let mut scratch = Vec::new();
        for index in which {
            let line = self.options.without_nulls(records.value(*index).unwrap_or_default(), &mut scratch);
            for piece in [line, b"\n"] {
                let mut rest = piece;
                while !rest.is_empty() {
                    let taken = decoder.decode(rest).map_err(|error| reason(&error))?;
                    if taken == 0 {
                        return Err("not one line".to_owned());
                    }
                    rest = rest.get(taken..).unwrap_or_default();
                }
            }
        }
        let batch = decoder.flush().map_err(|error| reason(&error))?;
        match batch {
            Some(batch) if batch.num_rows() == rows => Ok(batch),
            None if rows == 0 => Ok(RecordBatch::new_empty(self.layout.values.clone())),
            _ => Err("not one line of values".to_owned()),
        }
    }
}

fn reason(error: &arrow::error::ArrowError) -> String {
    let text = error.to_string();
    text.split_once("error: ").map_or(text.clone(), |(_, reason)| reason.to_owned())
}

impl Decoder for CsvDecoder {
    fn schema(&self) -> SchemaRef {
        self.layout.output.clone()
    }

    fn decode(&mut self, records: &Records) -> Result<Decoded, ConnectorError> {
        let mut errors = Vec::new();
        let mut kept: Vec<usize> = (0..records.len()).filter(|index| records.value(*index).is_some()).collect();
        if kept.len() < records.len() {
            let missing = (0..records.len()).filter(|index| records.value(*index).is_none());
            errors.extend(missing.map(|index| RowError { index, message: NULL_VALUE.to_owned() }));
        }
        let batch = match self.parse(records, kept.iter(), kept.len()) {
            Ok(batch) => batch,
            Err(_) => {
                kept.retain(|index| match self.parse(records, [index].into_iter(), 1) {
                    Ok(_) => true,
                    Err(message) => {
                        errors.push(RowError { index: *index, message });
                        false
                    }
                });
                errors.sort_by_key(|error| error.index);
                self.parse(records, kept.iter(), kept.len())
                    .map_err(|message| ConnectorError::Data { place: records.place.to_string(), message })?
            }
        };
        // The reader projects in the order of the file; the layout wants its own.
        let order: Vec<usize> =
            self.layout.values.fields().iter().filter_map(|field| batch.schema().index_of(field.name()).ok()).collect();
        let batch = batch.project(&order).map_err(|error| ConnectorError::Permanent {
            context: "could not pick the columns".to_owned(),
            source: error.into(),
        })?;
        Ok(Decoded { rows: self.layout.assemble(&batch, records, &kept)?, errors })
    }
}
