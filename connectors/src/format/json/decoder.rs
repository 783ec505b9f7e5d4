//! Decodes JSON objects of records into columns.

use arrow::datatypes::Schema;
use logmill_columns::{BadObject, Decoded, JsonColumns};
use logmill_pipelines::UnknownFields;

use crate::decode::RowError;
use crate::error::ConnectorError;
use crate::format::meta::{DecodedValues, ValueDecoder};
use crate::format::{UNKNOWN_COLUMN, unknown_field, unsupported};
use crate::source::Records;

/// Decodes JSON objects.
pub(crate) struct JsonDecoder(JsonColumns);

impl JsonDecoder {
    /// A decoder of the `wanted` columns of a schema.
    pub(crate) fn new(schema: &Schema, wanted: &Schema, unknown: UnknownFields) -> Result<Self, ConnectorError> {
        JsonColumns::new(schema, wanted, unknown).map(Self).map_err(unsupported)
    }
}

impl ValueDecoder for JsonDecoder {
    fn decode_values(&mut self, records: &Records) -> Result<DecodedValues, ConnectorError> {
        let decoded = self.0.decode((0..records.len()).map(|index| records.value(index)));
        let Decoded { columns, errors } = decoded.map_err(|error| ConnectorError::Permanent {
            context: format!("cannot make columns of {}", records.place),
            source: error.into(),
        })?;
        let error = |bad: BadObject| RowError { index: bad.index, message: message(&bad) };
        Ok(DecodedValues { columns, errors: errors.into_iter().map(error).collect() })
    }
}

fn message(bad: &BadObject) -> String {
    let column = bad.column.as_ref().map_or(String::new(), |name| format!("column `{name}`: "));
    let rule = if bad.unknown.is_some() { ", and `unknown: error` forbids such" } else { "" };
    let place = bad.at.map_or(String::new(), |at| format!(" (byte {at} of the record)"));
    format!("{column}{}{rule}{place}", bad.problem)
}

/// The schema with the column of unknown fields, if those are kept.
pub(crate) fn with_unknown(schema: Schema, unknown: UnknownFields) -> Schema {
    if unknown != UnknownFields::Keep || schema.field_with_name(UNKNOWN_COLUMN).is_ok() {
        return schema;
    }
    let mut fields = schema.fields().to_vec();
    fields.push(unknown_field().into());
    Schema::new(fields)
}
