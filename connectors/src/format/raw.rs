//! The raw format: a record's value as it is, in one column of text or bytes.

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, StringArray};
use arrow::datatypes::{DataType, Field, Schema};

use super::meta::{DecodedValues, ValueDecoder};
use crate::decode::RowError;
use crate::error::ConnectorError;
use crate::source::Records;

/// The name of the column if no schema gives it one.
pub(crate) const COLUMN: &str = "value";

/// The columns if no schema is declared.
pub(crate) fn default_schema() -> Schema {
    Schema::new(vec![Field::new(COLUMN, DataType::Utf8, true)])
}

/// Why a schema is not one of this format.
pub(crate) fn check_schema(schema: &Schema) -> Option<String> {
    let fits = matches!(schema.fields().iter().as_slice(), [field] if is_text_or_bytes(field.data_type()));
    (!fits).then(|| "the format raw has one column, of type string or binary".into())
}

fn is_text_or_bytes(kind: &DataType) -> bool {
    matches!(kind, DataType::Utf8 | DataType::Binary)
}

/// Decodes values into one column, or none.
pub(crate) struct RawDecoder {
    wanted: Option<DataType>,
}

impl RawDecoder {
    /// A decoder of the fields of `wanted`, which are those of a checked schema.
    pub(crate) fn new(wanted: &Schema) -> Self {
        Self { wanted: wanted.fields().first().map(|field| field.data_type().clone()) }
    }
}

impl ValueDecoder for RawDecoder {
    fn decode_values(&mut self, records: &Records) -> Result<DecodedValues, ConnectorError> {
        let mut errors = Vec::new();
        let mut good = Vec::with_capacity(records.len());
        let text = self.wanted != Some(DataType::Binary);
        for index in 0..records.len() {
            let message = match records.value(index) {
                None => "the value is null, which means a deletion that an append-only format cannot express",
                Some(value) if text && self.wanted.is_some() && std::str::from_utf8(value).is_err() => {
                    "the value is not UTF-8; declare the column as binary"
                }
                Some(value) => {
                    good.push(value);
                    continue;
                }
            };
            errors.push(RowError { index, message: message.into() });
        }
        let column: ArrayRef = match &self.wanted {
            None => return Ok(DecodedValues { columns: Vec::new(), errors }),
            Some(DataType::Binary) => Arc::new(BinaryArray::from_iter_values(good)),
            Some(_) => {
                let texts = good.into_iter().filter_map(|value| std::str::from_utf8(value).ok());
                Arc::new(StringArray::from_iter_values(texts))
            }
        };
        Ok(DecodedValues { columns: vec![column], errors })
    }
}
