//! Formats: how the bytes of a record become columns, and back.
//!
//! ```text
//!   json   one object a record             decode, encode, infer
//!   csv    one line a record, no newline inside a field   decode, encode, infer
//!   raw    the whole record in the column `value`          decode, encode
//!   parquet   files only: they deal in rows
//! ```

mod csv;
mod encode;
mod infer;
mod json;
mod meta;
mod raw;

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use logmill_pipelines::{FormatKind, FormatSpec, UnknownFields};
use schemars::{JsonSchema, schema_for};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::decode::{Decoder, Encoder};
use crate::error::ConnectorError;

pub use csv::CsvOptions;
pub use infer::{SAMPLE_BYTES, SAMPLE_RECORDS, infer};

/// A format with its options.
#[derive(Clone, Debug, PartialEq)]
pub enum Format {
    /// One JSON object a record.
    Json,
    /// One line of separated values a record.
    Csv(CsvOptions),
    /// The bytes of the record.
    Raw,
    /// Columns in files.
    Parquet,
}

/// A format without options of its own.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NoOptions {}

/// The formats that a pipeline can name.
pub fn kinds() -> Vec<FormatKind> {
    let plain = || schema_for!(NoOptions);
    vec![
        FormatKind { name: "json", summary: "one JSON object a record; lines of them in files", schema: plain },
        FormatKind { name: "ndjson", summary: "another name of json", schema: plain },
        FormatKind {
            name: "csv",
            summary: "one line of separated values a record",
            schema: || schema_for!(CsvOptions),
        },
        FormatKind { name: "raw", summary: "the bytes of the record, in the column `value`", schema: plain },
        FormatKind { name: "lines", summary: "another name of raw", schema: plain },
        FormatKind { name: "parquet", summary: "columns in files", schema: plain },
    ]
}

impl Format {
    /// What the file says, or the default of its place.
    pub fn of(spec: Option<&FormatSpec>, default: &Format) -> Result<Self, ConnectorError> {
        let Some(spec) = spec else { return Ok(default.clone()) };
        Ok(match spec.r#type.as_str() {
            "json" | "ndjson" => Self::Json,
            "csv" => Self::Csv(
                serde_json::from_value(Value::Object(spec.rest.clone()))
                    .map_err(|error| ConnectorError::Config(format!("format csv: {error}")))?,
            ),
            "raw" | "lines" => Self::Raw,
            "parquet" => Self::Parquet,
            other => return Err(ConnectorError::Config(format!("format `{other}` is not known"))),
        })
    }

    /// The columns of a format whose columns are always the same.
    pub fn fixed_schema(&self) -> Option<SchemaRef> {
        let value = Field::new("value", DataType::Utf8, true);
        matches!(self, Self::Raw).then(|| Arc::new(Schema::new(vec![value])))
    }

    /// A decoder that makes the named columns, in their order. `schema` holds all columns of the records; meta columns
    /// may be named beside them.
    pub fn decoder(
        &self,
        schema: &SchemaRef,
        columns: &[String],
        unknown: UnknownFields,
    ) -> Result<Box<dyn Decoder>, ConnectorError> {
        let layout = meta::Layout::new(schema, columns)?;
        Ok(match self {
            Self::Json => Box::new(json::JsonDecoder::new(layout, unknown)?),
            Self::Csv(options) => Box::new(csv::CsvDecoder::new(layout, options.clone())?),
            Self::Raw => Box::new(raw::RawDecoder::new(layout)),
            Self::Parquet => return Err(ConnectorError::Config("parquet is a format of files, not of records".into())),
        })
    }

    /// An encoder of rows with these columns.
    pub fn encoder(&self, schema: &SchemaRef) -> Result<Box<dyn Encoder>, ConnectorError> {
        match self {
            Self::Json => Ok(Box::new(encode::JsonEncoder)),
            Self::Csv(options) => Ok(Box::new(encode::CsvEncoder::new(options.clone()))),
            Self::Raw => Ok(Box::new(encode::RawEncoder::new(schema)?)),
            Self::Parquet => Err(ConnectorError::Config("parquet is a format of files, not of records".into())),
        }
    }
}

/// Encodes rows as JSON: for records of sources that deliver rows.
pub fn json_encoder(schema: &SchemaRef) -> Result<Box<dyn Encoder>, ConnectorError> {
    Format::Json.encoder(schema)
}
