//! Picks the columns that a guest reads out of whatever batches come, in the types that guests know.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;

/// Why rows cannot be given to a guest.
#[derive(Debug)]
pub(super) enum SelectError {
    /// A value of theirs does not fit the type in which guests get it.
    Value(String),
    /// They lack a column.
    Columns(ArrowError),
}

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
    pub(super) fn select(&mut self, rows: &RecordBatch) -> Result<RecordBatch, SelectError> {
        let schema = rows.schema_ref();
        let indices = match self.found.take() {
            Some((of, indices)) if Arc::ptr_eq(&of, schema) => indices,
            _ => {
                let indices = self.wanted.fields().iter().map(|f| schema.index_of(f.name()));
                indices.collect::<Result<Vec<_>, _>>().map_err(SelectError::Columns)?
            }
        };
        let picked = indices.iter().zip(self.wanted.fields()).map(|(index, field)| {
            let column = rows.column(*index);
            if column.data_type() == field.data_type() {
                Ok(Arc::clone(column))
            } else {
                // A value that does not fit is no null.
                let cast =
                    cast_with_options(column, field.data_type(), &CastOptions { safe: false, ..Default::default() });
                cast.map_err(|error| SelectError::Value(format!("column `{}`: {error}", field.name())))
            }
        });
        let columns = picked.collect::<Result<Vec<_>, _>>();
        self.found = Some((Arc::clone(schema), indices));
        let columns = columns?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        RecordBatch::try_new_with_options(Arc::clone(&self.wanted), columns, &options).map_err(SelectError::Columns)
    }
}
