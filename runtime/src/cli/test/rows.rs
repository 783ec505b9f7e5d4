//! Rows of a test to columns, the way a source's records become columns; and columns to rows that can be compared.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use bytes::{Bytes, BytesMut};
use logmill_connectors::decode::RowError;
use logmill_connectors::format::{self, Format};
use logmill_connectors::source::{HeaderRange, Records};
use logmill_pipelines::flow::META_COLUMNS;
use logmill_pipelines::spec::{SourceSpec, TestRow, UnknownFields};
use logmill_pipelines::{ColumnType, nearest};
use serde_json::Value;

use super::diff::Row;

/// How the rows of one source of a test become columns.
pub(super) struct Input<'a> {
    /// The source's name.
    pub(super) name: &'a str,
    /// What the pipeline says of it.
    pub(super) spec: &'a SourceSpec,
    /// Whether its rows have meta columns.
    pub(super) has_meta: bool,
    /// The rows.
    pub(super) rows: &'a [TestRow],
}

impl Input<'_> {
    /// The columns that the rows have, where the source does not declare them.
    pub(super) fn infer(&self) -> Result<SchemaRef, String> {
        let records = self.records()?;
        format::infer(&Format::Json, &records, None).map_err(|error| error.to_string())
    }

    /// The rows as columns of the source, with its meta columns.
    ///
    /// # Errors
    /// Every row that does not fit, one a line.
    pub(super) fn decode(&self, schema: &Schema) -> Result<RecordBatch, String> {
        let mut columns: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
        if self.has_meta {
            columns
                .extend(META_COLUMNS.iter().filter(|name| schema.index_of(name).is_err()).map(|name| (*name).into()));
        }
        let unknown = match self.spec.unknown {
            UnknownFields::Keep => UnknownFields::Keep,
            _ => UnknownFields::Error,
        };
        let (format, unknown) = match self.is_raw() {
            true => (Format::Raw, UnknownFields::Ignore),
            false => (Format::Json, unknown),
        };
        let decoder = format.decoder(schema, &columns, unknown);
        let decoded = decoder.and_then(|mut decoder| decoder.decode(&self.records().map_err(config)?));
        let decoded = decoded.map_err(|error| error.to_string())?;
        match decoded.errors.is_empty() {
            true => Ok(decoded.rows),
            false => Err(decoded.errors.iter().map(misfit).collect::<Vec<_>>().join("\n")),
        }
    }

    fn is_raw(&self) -> bool {
        matches!(Format::of(self.spec.format.as_ref(), &Format::Json), Ok(Format::Raw))
    }

    /// The rows as records: JSON objects, or the text of `value` where the source has no columns in its records.
    fn records(&self) -> Result<Records, String> {
        let mut buffer = Vec::new();
        let mut records = Records { place: self.name.into(), first_line: 1, ..Records::default() };
        for (number, row) in self.rows.iter().enumerate() {
            let wrong = |message: String| format!("row {}: {message}", number + 1);
            let (meta, mut values): (TestRow, TestRow) =
                row.clone().into_iter().partition(|(name, _)| self.has_meta && META_COLUMNS.contains(&name.as_str()));
            let value = match (self.is_raw(), values.shift_remove("value")) {
                (true, value) if values.is_empty() => match value {
                    Some(Value::String(text)) => Some(push(&mut buffer, text.as_bytes())),
                    None | Some(Value::Null) => None,
                    Some(_) => return Err(wrong("`value` is the text of the record".into())),
                },
                (true, _) => {
                    return Err(wrong("the records are bytes: give them as text in the column `value`".into()));
                }
                (false, value) => {
                    let row = match value {
                        None => values,
                        Some(_) => row.iter().filter(|(name, _)| !meta.contains_key(*name)).map(owned).collect(),
                    };
                    Some(push(&mut buffer, Value::Object(row).to_string().as_bytes()))
                }
            };
            records.values.push(value);
            records.offsets.push(number as i64);
            let text = |name: &str| match meta.get(name) {
                None | Some(Value::Null) => Ok(None),
                Some(Value::String(text)) => Ok(Some(text.as_str())),
                Some(_) => Err(wrong(format!("`{name}` is a text"))),
            };
            if let Some(name) = meta.keys().find(|name| matches!(name.as_str(), "_partition" | "_offset")) {
                return Err(wrong(format!(
                    "`{name}` is given by the test: rows of a source lie in partition 0, from offset 0"
                )));
            }
            records.keys.push(text("_key")?.map(|key| push(&mut buffer, key.as_bytes())));
            records.timestamps.push(match text("_timestamp")? {
                None => -1,
                Some(time) => chrono::DateTime::parse_from_rfc3339(time)
                    .map_err(|_| wrong(format!("`_timestamp` is a time such as 2013-01-01T05:00:00Z, not `{time}`")))?
                    .timestamp_millis(),
            });
            records.headers.push(headers(meta.get("_headers"), &mut buffer).map_err(wrong)?);
        }
        records.buffer = Bytes::from(buffer);
        Ok(records)
    }
}

/// What a decoder says of a row, without the place in a text that nobody has seen.
fn told(error: &RowError) -> &str {
    let message = error.message.split(", and `unknown: error`").next().unwrap_or_default();
    message.split(" (byte ").next().unwrap_or_default()
}

/// What is wrong with a row. That fields must be known is a rule of tests, which the source need not have.
fn misfit(error: &RowError) -> String {
    format!("row {}: {}", error.index + 1, told(error))
}

fn owned((name, value): (&String, &Value)) -> (String, Value) {
    (name.clone(), value.clone())
}

fn config(message: String) -> logmill_connectors::error::ConnectorError {
    logmill_connectors::error::ConnectorError::Config(message)
}

fn push(buffer: &mut Vec<u8>, bytes: &[u8]) -> Range<u32> {
    let start = buffer.len() as u32;
    buffer.extend_from_slice(bytes);
    start..buffer.len() as u32
}

fn headers(given: Option<&Value>, buffer: &mut Vec<u8>) -> Result<Vec<HeaderRange>, String> {
    let wrong = || Err("`_headers` is a mapping of names to texts".to_owned());
    match given {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Object(headers)) => {
            let header = |(name, value): (&String, &Value)| match value {
                Value::Null => Ok((push(buffer, name.as_bytes()), None)),
                Value::String(text) => Ok((push(buffer, name.as_bytes()), Some(push(buffer, text.as_bytes())))),
                _ => wrong().map(|(): ()| (0..0, None)),
            };
            headers.iter().map(header).collect()
        }
        Some(_) => wrong().map(|(): ()| Vec::new()),
    }
}

/// Rows that came out, as JSON writes them. Columns whose type has no JSON are left out; keys of records are text.
pub(super) fn encode(rows: &RecordBatch) -> Result<Vec<Row>, String> {
    let mut fields = Vec::new();
    let mut columns = Vec::new();
    for (field, column) in rows.schema().fields().iter().zip(rows.columns()) {
        if field.name() == "_key" && field.data_type() == &DataType::Binary {
            let text =
                column.as_binary::<i32>().iter().map(|key| key.map(|key| String::from_utf8_lossy(key).into_owned()));
            columns.push(Arc::new(text.collect::<arrow::array::StringArray>()) as _);
            fields.push(Arc::new(field.as_ref().clone().with_data_type(DataType::Utf8)));
        } else if ColumnType::from_field(field).is_ok() {
            columns.push(column.clone());
            fields.push(field.clone());
        }
    }
    if fields.is_empty() {
        return Ok(vec![Row::new(); rows.num_rows()]);
    }
    let schema: SchemaRef = Arc::new(Schema::new(fields));
    let encoded = || {
        let rows = RecordBatch::try_new(schema.clone(), columns).map_err(|error| error.to_string())?;
        let (mut buffer, mut values) = (BytesMut::new(), Vec::new());
        let mut encoder = format::json_encoder(&schema).map_err(|error| error.to_string())?;
        encoder.encode(&rows, &mut buffer, &mut values).map_err(|error| error.to_string())?;
        let row = |range: Range<usize>| serde_json::from_slice(buffer.get(range).unwrap_or_default());
        values.into_iter().map(row).collect::<Result<Vec<Row>, _>>().map_err(|error| error.to_string())
    };
    encoded().map_err(|error: String| format!("the rows cannot be compared: {error}"))
}

/// An expected row as it would come out: `5` for a float is `5.0`, a time is in UTC.
///
/// # Errors
/// A column that the rows do not have, or a value that is none of its type.
pub(super) fn as_it_would_come(expected: &TestRow, schema: &Schema) -> Result<Row, String> {
    let mut fields = Vec::new();
    for name in expected.keys() {
        let Ok(field) = schema.field_with_name(name) else {
            let names = || schema.fields().iter().map(|field| field.name().as_str());
            let hint = match nearest(name, names()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("there are {}", names().collect::<Vec<_>>().join(", ")),
            };
            return Err(format!("there is no column `{name}`; {hint}"));
        };
        let text_key = name == "_key" && field.data_type() == &DataType::Binary;
        let data_type = if text_key { DataType::Utf8 } else { field.data_type().clone() };
        ColumnType::from_field(field).map_err(|error| format!("column `{name}` cannot be compared: {error}"))?;
        fields.push(field.clone().with_data_type(data_type).with_nullable(true));
    }
    if fields.is_empty() {
        return Ok(Row::new());
    }
    // Meta columns are columns like others here, which the decoder would take from the record.
    let plain = |name: &str| name.replacen('_', "meta_", usize::from(name.starts_with('_')));
    let renamed = fields.iter().map(|field| field.clone().with_name(plain(field.name())));
    let schema = Schema::new(renamed.collect::<Vec<_>>());
    let columns: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
    let row: TestRow = expected.iter().map(|(name, value)| (plain(name), value.clone())).collect();
    let mut buffer = Vec::new();
    let value = push(&mut buffer, Value::Object(row).to_string().as_bytes());
    let mut records = Records { values: vec![Some(value)], offsets: vec![0], ..Records::default() };
    records.buffer = Bytes::from(buffer);
    let decoder = Format::Json.decoder(&schema, &columns, UnknownFields::Error);
    let decoded = decoder.and_then(|mut decoder| decoder.decode(&records)).map_err(|error| error.to_string())?;
    if let Some(error) = decoded.errors.first() {
        return Err(told(error).to_owned());
    }
    let row = encode(&decoded.rows)?.pop().unwrap_or_default();
    Ok(fields.iter().filter_map(|field| Some((field.name().clone(), row.get(&plain(field.name()))?.clone()))).collect())
}
