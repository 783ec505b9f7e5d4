//! Which of a decoder's columns come from the record's value and which from what surrounds it.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, Int32Array, Int64Array, ListBuilder, RecordBatch, RecordBatchOptions, StringBuilder,
    StructBuilder, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use logmill_pipelines::flow::META_COLUMNS;

use crate::error::ConnectorError;
use crate::source::Records;

/// The columns of a decoder's rows, and where each comes from.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    /// All columns of the records' values.
    pub(super) all: SchemaRef,
    /// The columns that are wanted of the values, in the order they are wanted.
    pub(super) values: SchemaRef,
    /// All that is wanted.
    pub(super) output: SchemaRef,
    columns: Vec<Column>,
}

#[derive(Clone, Copy, Debug)]
enum Column {
    Value(usize),
    Meta(usize),
}

impl Layout {
    pub(super) fn new(all: &SchemaRef, columns: &[String]) -> Result<Self, ConnectorError> {
        let (mut values, mut output, mut places) = (Vec::new(), Vec::new(), Vec::new());
        for name in columns {
            if let Some(number) = META_COLUMNS.iter().position(|meta| meta == name) {
                output.push(Arc::new(Field::new(name, meta_type(number), true)));
                places.push(Column::Meta(number));
            } else {
                let field = all.fields().iter().find(|field| field.name() == name);
                let field = field.ok_or_else(|| ConnectorError::Config(format!("there is no column `{name}`")))?;
                places.push(Column::Value(values.len()));
                values.push(field.clone());
                output.push(field.clone());
            }
        }
        Ok(Self {
            all: all.clone(),
            values: Arc::new(Schema::new(values)),
            output: Arc::new(Schema::new(output)),
            columns: places,
        })
    }

    /// Puts the value columns of the records at `kept` together with their meta columns.
    pub(super) fn assemble(
        &self,
        values: &RecordBatch,
        records: &Records,
        kept: &[usize],
    ) -> Result<RecordBatch, ConnectorError> {
        let column = |column: &Column| match column {
            Column::Value(index) => values.column(*index).clone(),
            Column::Meta(number) => meta_column(*number, records, kept),
        };
        let columns = self.columns.iter().map(column).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(kept.len()));
        RecordBatch::try_new_with_options(self.output.clone(), columns, &options).map_err(|error| {
            ConnectorError::Permanent { context: "could not put decoded columns together".into(), source: error.into() }
        })
    }
}

fn header_fields() -> Fields {
    Fields::from(vec![Field::new("key", DataType::Utf8, true), Field::new("value", DataType::Binary, true)])
}

fn meta_type(number: usize) -> DataType {
    match number {
        0 => DataType::Binary,
        1 => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        2 => DataType::Int32,
        3 => DataType::Int64,
        _ => DataType::List(Arc::new(Field::new("item", DataType::Struct(header_fields()), true))),
    }
}

fn meta_column(number: usize, records: &Records, kept: &[usize]) -> ArrayRef {
    let rows = kept.iter().copied();
    match number {
        0 => {
            let mut keys = BinaryBuilder::with_capacity(kept.len(), 0);
            rows.for_each(|index| keys.append_option(records.key(index)));
            Arc::new(keys.finish())
        }
        1 => {
            let micros = |index: usize| {
                records.timestamps.get(index).filter(|ms| **ms >= 0).and_then(|ms: &i64| ms.checked_mul(1000))
            };
            Arc::new(rows.map(micros).collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
        }
        2 => Arc::new(Int32Array::from_iter(rows.map(|_| (records.partition >= 0).then_some(records.partition)))),
        3 => Arc::new(rows.map(|index| records.offsets.get(index).copied()).collect::<Int64Array>()),
        _ => headers(records, kept),
    }
}

fn headers(records: &Records, kept: &[usize]) -> ArrayRef {
    let bytes = |range: &std::ops::Range<u32>| records.buffer.get(range.start as usize..range.end as usize);
    let entry = StructBuilder::from_fields(header_fields(), kept.len());
    let mut list = ListBuilder::new(entry);
    for index in kept {
        for (name, value) in records.headers.get(*index).into_iter().flatten() {
            let entry = list.values();
            if let Some(names) = entry.field_builder::<StringBuilder>(0) {
                names.append_option(bytes(name).map(String::from_utf8_lossy));
            }
            if let Some(values) = entry.field_builder::<BinaryBuilder>(1) {
                values.append_option(value.as_ref().and_then(bytes));
            }
            entry.append(true);
        }
        list.append(true);
    }
    Arc::new(list.finish())
}
