//! The whole record in one column: `value`, text or binary.

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryBuilder, RecordBatch, RecordBatchOptions, StringBuilder};
use arrow::datatypes::{DataType, SchemaRef};

use super::meta::Layout;
use crate::decode::{Decoded, Decoder, RowError};
use crate::error::ConnectorError;
use crate::source::Records;

/// Takes records as they are. A null value is a null.
pub(super) struct RawDecoder {
    layout: Layout,
}

impl RawDecoder {
    pub(super) fn new(layout: Layout) -> Self {
        Self { layout }
    }
}

impl Decoder for RawDecoder {
    fn schema(&self) -> SchemaRef {
        self.layout.output.clone()
    }

    fn decode(&mut self, records: &Records) -> Result<Decoded, ConnectorError> {
        let binary = self.layout.values.fields().first().is_some_and(|field| *field.data_type() == DataType::Binary);
        let (mut kept, mut errors) = (Vec::with_capacity(records.len()), Vec::new());
        let column: ArrayRef = if binary {
            let mut values = BinaryBuilder::with_capacity(records.len(), records.buffer.len());
            for index in 0..records.len() {
                kept.push(index);
                values.append_option(records.value(index));
            }
            Arc::new(values.finish())
        } else {
            let mut values = StringBuilder::with_capacity(records.len(), records.buffer.len());
            for index in 0..records.len() {
                match records.value(index).map(simdutf8::basic::from_utf8).transpose() {
                    Ok(text) => {
                        kept.push(index);
                        values.append_option(text);
                    }
                    Err(_) => errors.push(RowError {
                        index,
                        message: "not UTF-8; declare `schema: { value: binary }` to take any bytes".to_owned(),
                    }),
                }
            }
            Arc::new(values.finish())
        };
        let columns = if self.layout.values.fields().is_empty() { Vec::new() } else { vec![column] };
        let options = RecordBatchOptions::new().with_row_count(Some(kept.len()));
        let batch = RecordBatch::try_new_with_options(self.layout.values.clone(), columns, &options);
        let batch =
            batch.map_err(|error| ConnectorError::Config(format!("format raw has one column, `value`: {error}")))?;
        Ok(Decoded { rows: self.layout.assemble(&batch, records, &kept)?, errors })
    }
}
