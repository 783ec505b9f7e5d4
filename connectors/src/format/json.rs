//! Decodes JSON objects, one a record.
//!
//! All records of a chunk go through one decoder. Only when it stumbles are they decoded one by one, to find out which of
//! them are to blame.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::json::ReaderBuilder;
use logmill_pipelines::UnknownFields;

use super::meta::Layout;
use crate::decode::{Decoded, Decoder, RowError};
use crate::error::ConnectorError;
use crate::source::Records;

/// A tombstone's message in a format that only appends.
pub(super) const NULL_VALUE: &str = "the value is null, and this format has no deletes";

/// Decodes JSON objects.
pub(super) struct JsonDecoder {
    layout: Layout,
    /// What is parsed: all columns where unknown fields are errors, else those that are wanted.
    parsed: SchemaRef,
    projection: Option<Vec<usize>>,
    strict: bool,
}

impl JsonDecoder {
    pub(super) fn new(layout: Layout, unknown: UnknownFields) -> Result<Self, ConnectorError> {
        let strict = match unknown {
            UnknownFields::Ignore => false,
            UnknownFields::Error => true,
            UnknownFields::Keep => {
                return Err(ConnectorError::Config(
                    "`unknown: keep` is not available yet for json; use ignore or error".to_owned(),
                ));
            }
        };
        let (parsed, projection) = match strict {
            false => (layout.values.clone(), None),
            true => {
                let index = |field: &arrow::datatypes::FieldRef| layout.all.index_of(field.name()).ok();
                (layout.all.clone(), Some(layout.values.fields().iter().filter_map(index).collect()))
            }
        };
        Ok(Self { layout, parsed, projection, strict })
    }

    fn parse<'a>(
        &self,
        records: &Records,
        which: impl Iterator<Item = &'a usize>,
        rows: usize,
    ) -> Result<RecordBatch, String> {
        let builder =
            ReaderBuilder::new(self.parsed.clone()).with_batch_size(rows.max(1) + 1).with_strict_mode(self.strict);
        let mut decoder = builder.build_decoder().map_err(|error| error.to_string())?;
        for index in which {
            let value = records.value(*index).unwrap_or_default();
            for piece in [value, b"\n"] {
                let taken = decoder.decode(piece).map_err(|error| reason(&error))?;
                if taken < piece.len() {
                    return Err("more than one value in the record".to_owned());
                }
            }
        }
        let batch = decoder.flush().map_err(|error| reason(&error))?;
        let batch = batch.unwrap_or_else(|| RecordBatch::new_empty(self.parsed.clone()));
        match batch.num_rows() == rows {
            true => Ok(batch),
            false => Err("not one JSON object".to_owned()),
        }
    }
}

/// Arrow's message without its prefix.
fn reason(error: &arrow::error::ArrowError) -> String {
    let text = error.to_string();
    text.split_once("error: ").map_or(text.clone(), |(_, reason)| reason.to_owned())
}

impl Decoder for JsonDecoder {
    fn schema(&self) -> SchemaRef {
        self.layout.output.clone()
    }

    fn decode(&mut self, records: &Records) -> Result<Decoded, ConnectorError> {
        let mut errors = Vec::new();
        let mut kept: Vec<usize> = (0..records.len()).collect();
        kept.retain(|index| {
            let present = records.value(*index).is_some();
            if !present {
                errors.push(RowError { index: *index, message: NULL_VALUE.to_owned() });
            }
            present
        });
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
        let batch = match &self.projection {
            None => batch,
            Some(columns) => batch.project(columns).map_err(|error| ConnectorError::Permanent {
                context: "could not pick the columns".to_owned(),
                source: error.into(),
            })?,
        };
        Ok(Decoded { rows: self.layout.assemble(&batch, records, &kept)?, errors })
    }
}
