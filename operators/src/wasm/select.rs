//! Picks the columns that a guest reads out of whatever batches come, in the types that guests know.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::compute::cast;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;

/// The columns that a guest reads.
#[derive(Clone, Debug)]
pub(super) struct Selector {
    wanted: SchemaRef,
    /// The schema of the last batch, and where the wanted columns are in it.
    found: Option<(SchemaRef, Vec<usize>)>,
}

impl Selector {
    pub(super) fn new(wanted: SchemaRef) -> Self {
        Self { wanted, found: None }
    }

    /// The wanted columns. They are looked up by name once a schema.
    pub(super) fn select(&mut self, rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
        let schema = rows.schema_ref();
        let indices = match self.found.take() {
            Some((of, indices)) if Arc::ptr_eq(&of, schema) => indices,
            _ => self.wanted.fields().iter().map(|f| schema.index_of(f.name())).collect::<Result<Vec<_>, _>>()?,
        };
        let picked = indices.iter().zip(self.wanted.fields()).map(|(index, field)| {
            let column = rows.column(*index);
            if column.data_type() == field.data_type() {
                Ok(Arc::clone(column))
            } else {
                cast(column, field.data_type())
            }
        });
        let columns = picked.collect::<Result<Vec<_>, _>>()?;
        self.found = Some((Arc::clone(schema), indices));
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        RecordBatch::try_new_with_options(Arc::clone(&self.wanted), columns, &options)
    }
}
