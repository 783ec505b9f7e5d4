//! Infers columns from a sample of records.

use std::io::Cursor;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use arrow::json::reader::infer_json_schema;
use serde_json::Value;

use super::Format;
use crate::error::ConnectorError;
use crate::source::Records;

/// How many records a sample has at most.
pub const SAMPLE_RECORDS: usize = 1000;
/// How many bytes a sample has at most, but for its last record.
pub const SAMPLE_BYTES: usize = 1 << 20;

/// The columns of the sampled records. `header` is the first line of a CSV file, if it has one.
pub fn infer(format: &Format, sample: &Records, header: Option<&str>) -> Result<SchemaRef, ConnectorError> {
    if let Some(fixed) = format.fixed_schema() {
        return Ok(fixed);
    }
    if sample.is_empty() {
        return Err(ConnectorError::Data {
            place: sample.place.to_string(),
            message: "there is no record to infer columns from; declare them with `schema:`".to_owned(),
        });
    }
    let text = (0..sample.len().min(SAMPLE_RECORDS)).filter_map(|index| sample.value(index));
    let wrong = |error: arrow::error::ArrowError| ConnectorError::Data {
        place: sample.place.to_string(),
        message: format!("could not infer columns: {error}"),
    };
    match format {
        Format::Csv(options) => {
            let mut lines = header.map_or_else(Vec::new, |header| format!("{header}\n").into_bytes());
            let mut scratch = Vec::new();
            for line in text {
                lines.extend_from_slice(options.without_nulls(line, &mut scratch));
                lines.push(b'\n');
            }
            let format = options.arrow().with_header(header.is_some());
            let (schema, _) = format.infer_schema(Cursor::new(lines), None).map_err(wrong)?;
            Ok(Arc::new(Schema::new(schema.fields().iter().map(|field| settled(field)).collect::<Vec<_>>())))
        }
        _ => {
            let lines = text.flat_map(|value| [value, b"\n"]).collect::<Vec<_>>().concat();
            let (schema, _) = infer_json_schema(Cursor::new(&lines), None).map_err(wrong)?;
            let fields = schema.fields().iter().map(|field| match times(field.name(), &lines) {
                true => Field::new(field.name(), timestamp(), true),
                false => settled(field),
            });
            Ok(Arc::new(Schema::new(fields.collect::<Vec<_>>())))
        }
    }
}

fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// The field with types that a pipeline can declare: what was always null becomes text, times get the usual unit.
fn settled(field: &Field) -> Field {
    Field::new(field.name(), settle(field.data_type()), true)
}

fn settle(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Null => DataType::Utf8,
        DataType::Timestamp(_, Some(_)) => timestamp(),
        DataType::Timestamp(_, None) => DataType::Timestamp(TimeUnit::Microsecond, None),
        DataType::List(item) => DataType::List(Arc::new(settled(item))),
        DataType::Struct(fields) => {
            DataType::Struct(fields.iter().map(|field| Arc::new(settled(field))).collect::<Fields>())
        }
        other => other.clone(),
    }
}

/// Whether all values of a column are RFC 3339 times, and there is one.
fn times(column: &str, lines: &[u8]) -> bool {
    let mut any = false;
    for line in lines.split(|byte| *byte == b'\n') {
        match serde_json::from_slice::<Value>(line).ok().and_then(|mut row| row.get_mut(column).map(Value::take)) {
            Some(Value::String(text)) if chrono::DateTime::parse_from_rfc3339(&text).is_ok() => any = true,
            None | Some(Value::Null) => {}
            Some(_) => return false,
        }
    }
    any
}
