//! Formats: how the bytes of a record become columns, and back.
//!
//! ```text
//!   Records ─▶ json/ | csv.rs | raw.rs ─▶ logmill-columns ─▶ Arrow columns ─ meta.rs ─▶ RecordBatch
//!   sample  ─▶ infer.rs ─▶ schema              rows ─▶ encode.rs | csv_encode.rs ─▶ values
//! ```
//!
//! All decoders put values into the same columns, so a type means the same in each format. Parquet is none of them: it
//! has columns already, and is read by the file source.

pub(crate) mod csv;
mod csv_encode;
pub(crate) mod encode;
mod infer;
pub(crate) mod json;
pub(crate) mod meta;
pub(crate) mod raw;
#[cfg(test)]
mod round_trip;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use logmill_columns::UnsupportedColumn;
use logmill_pipelines::{ColumnType, Columns, FormatKind, FormatSpec, UnknownFields};
use schemars::{JsonSchema, schema_for};
use serde::{Deserialize, Serialize};

pub use csv::CsvOptions;
pub use encode::{check_ranges, shown_rows};
pub use infer::{SAMPLE_BYTES, SAMPLE_RECORDS, schema_yaml};
pub use logmill_columns::UNKNOWN_COLUMN;
pub use meta::meta_field;

use crate::decode::{Decoder, Encoder};
use crate::error::ConnectorError;
use crate::source::Records;

/// The field of [`UNKNOWN_COLUMN`].
fn unknown_field() -> Field {
    ColumnType::Json.to_field(UNKNOWN_COLUMN)
}

fn unsupported(error: UnsupportedColumn) -> ConnectorError {
    ConnectorError::Config(error.to_string())
}

/// A format with its options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a record.
    Json,
    /// One line of CSV a record.
    Csv(CsvOptions),
    /// The value as it is, in one column.
    Raw,
    /// A file of columns.
    Parquet,
}

/// A format without options.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NoOptions {}

/// The formats that a pipeline can name.
pub fn kinds() -> Vec<FormatKind> {
    let plain = || schema_for!(NoOptions);
    vec![
        FormatKind { name: "json", summary: "one JSON object a record; lines of them in files", schema: plain },
        FormatKind { name: "ndjson", summary: "another name of json", schema: plain },
        FormatKind { name: "csv", summary: "separated values, RFC 4180", schema: || schema_for!(CsvOptions) },
        FormatKind { name: "raw", summary: "the bytes of the record, in the column `value`", schema: plain },
        FormatKind { name: "lines", summary: "another name of raw", schema: plain },
        FormatKind { name: "parquet", summary: "columns in files", schema: plain },
    ]
}

impl Format {
    /// What the pipeline says, or the default of its place. Does no I/O.
    ///
    /// # Errors
    /// `Config`, for a format that doesn't exist or options that cannot be.
    pub fn of(spec: Option<&FormatSpec>, default: &Self) -> Result<Self, ConnectorError> {
        let Some(spec) = spec else { return Ok(default.clone()) };
        let name = spec.r#type.as_str();
        let wrong = |message: String| ConnectorError::Config(format!("format {name}: {message}"));
        let format = match name {
            "json" | "ndjson" => Self::Json,
            "csv" => {
                let options: CsvOptions = spec.config().map_err(|error| wrong(error.to_string()))?;
                options.dialect().map_err(wrong)?;
                return Ok(Self::Csv(options));
            }
            "raw" | "lines" => Self::Raw,
            "parquet" => Self::Parquet,
            _ => {
                let known = ["json", "ndjson", "csv", "raw", "lines", "parquet"];
                let hint = logmill_pipelines::nearest(name, known).map_or_else(
                    || format!("there are {}", known.join(", ")),
                    |near| format!("did you mean `{near}`?"),
                );
                return Err(ConnectorError::Config(format!("there is no format `{name}`; {hint}")));
            }
        };
        spec.config::<NoOptions>().map_err(|error| wrong(error.to_string()))?;
        Ok(format)
    }

    /// What it is called.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Csv(_) => "csv",
            Self::Raw => "raw",
            Self::Parquet => "parquet",
        }
    }

    /// What is wrong with declared columns for this format: key and message.
    pub fn check(&self, columns: Option<&Columns>, unknown: UnknownFields) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        if unknown == UnknownFields::Keep && *self != Self::Json {
            problems.push(("unknown", format!("`keep` is for json; {} takes ignore or error", self.name())));
        }
        if unknown != UnknownFields::Ignore && columns.is_none() && *self == Self::Json {
            problems.push(("unknown", "needs a `schema` that says which fields are known".into()));
        }
        if let (Self::Raw, Some(columns)) = (self, columns)
            && let Some(message) = raw::check_schema(&declared(columns))
        {
            problems.push(("schema", message));
        }
        problems
    }

    /// The columns that are declared, if any are.
    pub fn declared_schema(&self, columns: Option<&Columns>, unknown: UnknownFields) -> Option<Schema> {
        match (columns, self) {
            (Some(columns), Self::Json) => Some(json::with_unknown(declared(columns), unknown)),
            (Some(columns), _) => Some(declared(columns)),
            (None, Self::Raw) => Some(raw::default_schema()),
            (None, _) => None,
        }
    }

    /// Infers the columns from a sample of records. `header` are the names of CSV's fields, where a line of a file gives
    /// them.
    ///
    /// # Errors
    /// `Data` if the sample is empty.
    pub fn infer(&self, sample: &Records, header: Option<&[String]>) -> Result<Schema, ConnectorError> {
        match self {
            Self::Json => infer::json(sample),
            Self::Csv(options) => infer::csv(sample, header, &options.dialect().map_err(ConnectorError::Config)?),
            Self::Raw => Ok(infer::raw(sample)),
            Self::Parquet => Err(not_records()),
        }
    }

    /// A decoder of the wanted `columns` (of `schema` and meta columns, in any order) of records. CSV's fields are those of
    /// the schema, in its order.
    ///
    /// # Errors
    /// `Config` for a column that does not exist.
    pub fn decoder(
        &self,
        schema: &Schema,
        columns: &[String],
        unknown: UnknownFields,
    ) -> Result<Box<dyn Decoder>, ConnectorError> {
        self.decoder_of_fields(schema, columns, unknown, None)
    }

    /// As [`Self::decoder`], where `header` may name CSV's fields in their order.
    ///
    /// # Errors
    /// `Config` for a column that does not exist, or a field that the schema doesn't name where that is forbidden.
    pub fn decoder_of_fields(
        &self,
        schema: &Schema,
        columns: &[String],
        unknown: UnknownFields,
        header: Option<&[String]>,
    ) -> Result<Box<dyn Decoder>, ConnectorError> {
        let wanted = meta::wanted_fields(schema, columns)?;
        Ok(match self {
            Self::Json => {
                Box::new(meta::WithMeta::new(schema, columns, json::JsonDecoder::new(schema, &wanted, unknown)?)?)
            }
            Self::Csv(options) => {
                let dialect = options.dialect().map_err(ConnectorError::Config)?;
                let names: Vec<_> = schema.fields().iter().map(|field| field.name().clone()).collect();
                let order = header.unwrap_or(&names);
                let values = csv::CsvDecoder::new(schema, &wanted, order, dialect, unknown)?;
                Box::new(meta::WithMeta::new(schema, columns, values)?)
            }
            Self::Raw => Box::new(meta::WithMeta::new(schema, columns, raw::RawDecoder::new(&wanted))?),
            Self::Parquet => return Err(not_records()),
        })
    }

    /// An encoder of rows of `schema`.
    ///
    /// # Errors
    /// `Config` if the format cannot hold them.
    pub fn encoder(&self, schema: &SchemaRef) -> Result<Box<dyn Encoder>, ConnectorError> {
        Ok(match self {
            Self::Json => json_encoder(schema)?,
            Self::Csv(options) => {
                let dialect = options.dialect().map_err(ConnectorError::Config)?;
                check_columns(schema, "CSV")?;
                Box::new(csv_encode::CsvEncoder::new(dialect, schema)?)
            }
            Self::Raw => match encode::raw_problem(schema) {
                None => Box::new(encode::RawEncoder),
                Some(problem) => return Err(ConnectorError::Config(problem)),
            },
            Self::Parquet => return Err(not_records()),
        })
    }
}

/// The columns of sampled records. `header` is the first line of a CSV file, if it has one.
///
/// # Errors
/// `Data` if the sample is empty, or the header is none.
pub fn infer(format: &Format, sample: &Records, header: Option<&str>) -> Result<SchemaRef, ConnectorError> {
    let names = match (format, header) {
        (Format::Csv(options), Some(line)) => {
            let dialect = options.dialect().map_err(ConnectorError::Config)?;
            let names = csv::header(line.as_bytes(), &dialect);
            Some(names.map_err(|message| ConnectorError::Data { place: sample.place.to_string(), message })?)
        }
        _ => None,
    };
    format.infer(sample, names.as_deref()).map(Arc::new)
}

/// An encoder of rows as JSON objects.
///
/// # Errors
/// `Config` if a column's type has no JSON.
pub fn json_encoder(schema: &SchemaRef) -> Result<Box<dyn Encoder>, ConnectorError> {
    check_columns(schema, "JSON")?;
    Ok(Box::new(encode::JsonEncoder))
}

/// Holds columns to the types that a schema can declare: what has none could not be read back.
fn check_columns(schema: &Schema, format: &str) -> Result<(), ConnectorError> {
    for field in schema.fields() {
        ColumnType::from_field(field).map_err(|error| {
            ConnectorError::Config(format!("column `{}` cannot be written as {format}: {error}", field.name()))
        })?;
    }
    Ok(())
}

fn declared(columns: &Columns) -> Schema {
    Schema::new(columns.iter().map(|(name, kind)| kind.to_field(name)).collect::<Vec<_>>())
}

fn not_records() -> ConnectorError {
    ConnectorError::Config("parquet is a format of files, not of records".into())
}
