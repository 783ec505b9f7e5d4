//! The columns every source of records has beside those of its schema: where a record lies, and what it is marked with.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanArray, Int32Array, Int64Array, ListBuilder, RecordBatch, RecordBatchOptions,
};
use arrow::array::{StringBuilder, StructBuilder, TimestampMicrosecondArray};
use arrow::compute::filter;
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use logmill_columns::scalar::{MICROS, YEARS};

use crate::decode::{Decoded, Decoder, RowError};
use crate::error::ConnectorError;
use crate::source::Records;

/// One of the meta columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meta {
    Key,
    Timestamp,
    Partition,
    Offset,
    Headers,
}

impl Meta {
    const ALL: [(&'static str, Self); 5] = [
        ("_key", Self::Key),
        ("_timestamp", Self::Timestamp),
        ("_partition", Self::Partition),
        ("_offset", Self::Offset),
        ("_headers", Self::Headers),
    ];

    fn data_type(self) -> DataType {
        match self {
            Self::Key => DataType::Binary,
            Self::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Self::Partition => DataType::Int32,
            Self::Offset => DataType::Int64,
            Self::Headers => DataType::List(Arc::new(Field::new("item", DataType::Struct(header_fields()), true))),
        }
    }

    /// The column of the records at `rows`.
    fn column(self, records: &Records, rows: &[usize]) -> ArrayRef {
        match self {
            Self::Key => {
                let mut keys = BinaryBuilder::new();
                rows.iter().for_each(|row| keys.append_option(records.key(*row)));
                Arc::new(keys.finish())
            }
            Self::Timestamp => {
                let timestamp = |row: &usize| records.timestamps.get(*row).copied().filter(|millis| *millis >= 0);
                let micros = rows.iter().map(|row| timestamp(row).and_then(|millis| millis.checked_mul(1000)));
                Arc::new(TimestampMicrosecondArray::from_iter(micros).with_timezone("UTC"))
            }
            Self::Partition => Arc::new(Int32Array::from_value(records.partition, rows.len())),
            Self::Offset => Arc::new(Int64Array::from_iter(rows.iter().map(|row| records.offsets.get(*row).copied()))),
            Self::Headers => headers(records, rows),
        }
    }
}

fn header_fields() -> Fields {
    Fields::from(vec![Field::new("key", DataType::Utf8, true), Field::new("value", DataType::Binary, true)])
}

fn headers(records: &Records, rows: &[usize]) -> ArrayRef {
    let part = |range: &std::ops::Range<u32>| records.buffer.get(range.start as usize..range.end as usize);
    let mut lists = ListBuilder::new(StructBuilder::from_fields(header_fields(), 0));
    for row in rows {
        for (key, value) in records.headers.get(*row).into_iter().flatten() {
            let header = lists.values();
            if let Some(names) = header.field_builder::<StringBuilder>(0) {
                names.append_value(String::from_utf8_lossy(part(key).unwrap_or_default()));
            }
            if let Some(values) = header.field_builder::<BinaryBuilder>(1) {
                values.append_option(value.as_ref().and_then(part));
            }
            header.append(true);
        }
        lists.append(true);
    }
    Arc::new(lists.finish())
}

/// The field of a meta column; `None` if it is none.
pub fn meta_field(name: &str) -> Option<Field> {
    let (_, meta) = Meta::ALL.iter().find(|(known, _)| *known == name)?;
    Some(Field::new(name, meta.data_type(), true))
}

/// What became of the values of some records.
pub(crate) struct DecodedValues {
    /// The columns, of those that could be decoded.
    pub(crate) columns: Vec<ArrayRef>,
    /// Those that could not.
    pub(crate) errors: Vec<RowError>,
}

/// Decodes the values of records, without their meta columns.
pub(crate) trait ValueDecoder: Send {
    /// Decodes all the values.
    fn decode_values(&mut self, records: &Records) -> Result<DecodedValues, ConnectorError>;
}

/// A decoder of values and meta columns, in the order that they are wanted.
pub(crate) struct WithMeta<V> {
    schema: SchemaRef,
    outputs: Vec<Output>,
    values: V,
}

enum Output {
    Value(usize),
    Meta(Meta),
}

/// The fields of the wanted columns that are no meta columns, in their order.
///
/// # Errors
/// `Config` if there is no column of a name.
pub(crate) fn wanted_fields(schema: &Schema, columns: &[String]) -> Result<Schema, ConnectorError> {
    let mut fields = Vec::with_capacity(columns.len());
    for name in columns {
        match schema.field_with_name(name) {
            Ok(field) => fields.push(field.clone()),
            Err(_) if meta_field(name).is_some() => {}
            Err(_) => return Err(no_column(schema, name)),
        }
    }
    Ok(Schema::new(fields))
}

/// There is no column of this name.
pub(crate) fn no_column(schema: &Schema, name: &str) -> ConnectorError {
    let known = schema.fields().iter().map(|field| field.name().as_str());
    match logmill_pipelines::nearest(name, known.clone()) {
        Some(near) => ConnectorError::Config(format!("there is no column `{name}`, did you mean `{near}`?")),
        None => {
            let known: Vec<_> = known.collect();
            ConnectorError::Config(format!("there is no column `{name}`; there are {}", known.join(", ")))
        }
    }
}

impl<V: ValueDecoder> WithMeta<V> {
    /// `values` decodes the fields of `wanted_fields`.
    pub(crate) fn new(schema: &Schema, columns: &[String], values: V) -> Result<Self, ConnectorError> {
        let (mut fields, mut outputs, mut next) = (Vec::new(), Vec::new(), 0);
        for name in columns {
            match (schema.field_with_name(name), Meta::ALL.iter().find(|(known, _)| known == name)) {
                (Ok(field), _) => {
                    fields.push(field.clone());
                    outputs.push(Output::Value(next));
                    next += 1;
                }
                (Err(_), Some((_, meta))) => {
                    fields.push(Field::new(name, meta.data_type(), true));
                    outputs.push(Output::Meta(*meta));
                }
                (Err(_), None) => return Err(no_column(schema, name)),
            }
        }
        Ok(Self { schema: Arc::new(Schema::new(fields)), outputs, values })
    }
}

/// Leaves out the records whose timestamps no text can show.
fn without_bad_timestamps(decoded: DecodedValues, records: &Records) -> Result<DecodedValues, ConnectorError> {
    let last = MICROS.end() / 1000;
    if !records.timestamps.iter().any(|millis| *millis > last) {
        return Ok(decoded);
    }
    let DecodedValues { columns, errors } = decoded;
    let mut failed = errors.into_iter().peekable();
    let (mut errors, mut kept) = (Vec::new(), Vec::new());
    for index in 0..records.len() {
        if let Some(error) = failed.next_if(|error| error.index == index) {
            errors.push(error);
            continue;
        }
        let outside = records.timestamps.get(index).filter(|millis| **millis > last);
        kept.push(outside.is_none());
        if let Some(millis) = outside {
            let message = format!("column `_timestamp`: {millis} ms from 1970 is after the year {}", YEARS.end());
            errors.push(RowError { index, message });
        }
    }
    let kept = BooleanArray::from(kept);
    let columns = columns.iter().map(|column| filter(column, &kept)).collect::<Result<Vec<_>, _>>();
    let columns = columns.map_err(|error| ConnectorError::Permanent {
        context: format!("cannot leave records of {} out", records.place),
        source: error.into(),
    })?;
    Ok(DecodedValues { columns, errors })
}

impl<V: ValueDecoder> Decoder for WithMeta<V> {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn decode(&mut self, records: &Records) -> Result<Decoded, ConnectorError> {
        let mut decoded = self.values.decode_values(records)?;
        if self.outputs.iter().any(|output| matches!(output, Output::Meta(Meta::Timestamp))) {
            decoded = without_bad_timestamps(decoded, records)?;
        }
        let DecodedValues { columns, errors } = decoded;
        let count = records.len() - errors.len().min(records.len());
        let needs_rows = self.outputs.iter().any(|output| matches!(output, Output::Meta(_)));
        let rows: Vec<usize> = if needs_rows {
            let mut bad = errors.iter().map(|error| error.index).peekable();
            (0..records.len()).filter(|row| bad.next_if_eq(row).is_none()).collect()
        } else {
            Vec::new()
        };
        let arrays = self.outputs.iter().filter_map(|output| match output {
            Output::Value(index) => columns.get(*index).cloned(),
            Output::Meta(meta) => Some(meta.column(records, &rows)),
        });
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        let rows = RecordBatch::try_new_with_options(self.schema.clone(), arrays.collect(), &options);
        let rows = rows.map_err(|error| ConnectorError::Permanent {
            context: format!("cannot put the decoded columns of {} together", records.place),
            source: error.into(),
        })?;
        Ok(Decoded { rows, errors })
    }
}
