//! Picks the columns that a sink takes: rows may carry more, for other readers of the same relation.

use arrow::datatypes::{Schema, SchemaRef};
use logmill_pipelines::flow::RowBatch;

use super::error::EngineError;

/// Picks columns by name. They are looked up once a schema.
pub(crate) struct Picker {
    /// All that are there, if absent.
    wanted: Option<SchemaRef>,
    /// The schema of the last batch, and where the wanted columns are in it; nothing if they are all of it.
    found: Option<(SchemaRef, Option<Vec<usize>>)>,
}

impl Picker {
    /// Picks these columns, in their order.
    pub(crate) fn new(wanted: Option<SchemaRef>) -> Self {
        Self { wanted, found: None }
    }

    /// The rows with the wanted columns alone.
    pub(crate) fn pick(&mut self, batch: RowBatch) -> Result<RowBatch, EngineError> {
        let Some(wanted) = &self.wanted else { return Ok(batch) };
        let schema = batch.rows.schema_ref();
        let indices = match &self.found {
            Some((of, indices)) if std::sync::Arc::ptr_eq(of, schema) => indices,
            _ => {
                let indices = find(schema, wanted)?;
                &self.found.insert((schema.clone(), indices)).1
            }
        };
        let Some(indices) = indices else { return Ok(batch) };
        let rows = batch.rows.project(indices).map_err(|_| EngineError::Defect("the columns of a sink"))?;
        Ok(RowBatch { rows, ..batch })
    }
}

fn find(schema: &Schema, wanted: &Schema) -> Result<Option<Vec<usize>>, EngineError> {
    let names = |schema: &Schema| schema.fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>();
    if names(schema) == names(wanted) {
        return Ok(None);
    }
    let index = |name: &String| schema.index_of(name).map_err(|_| EngineError::Defect("the columns of a sink"));
    names(wanted).iter().map(index).collect::<Result<_, _>>().map(Some)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use arrow::array::{ArrayRef, Int32Array, RecordBatch};
    use arrow::datatypes::{DataType, Field};
    use std::sync::Arc;

    #[test]
    fn columns_are_picked_by_name_and_in_order() {
        let column = |n| -> ArrayRef { Arc::new(Int32Array::from(vec![n])) };
        let wanted = ["b", "a"].map(|name| Field::new(name, DataType::Int32, true));
        let mut picker = Picker::new(Some(Arc::new(Schema::new(wanted.to_vec()))));
        for (columns, expected) in [
            (vec![("b", 2), ("a", 1)], Some([2, 1])),
            (vec![("a", 1), ("_key", 9), ("b", 2)], Some([2, 1])),
            (vec![("a", 1)], None),
        ] {
            let rows = RecordBatch::try_from_iter(columns.iter().map(|(name, n)| (*name, column(*n)))).unwrap();
            let picked = picker.pick(RowBatch::inserts(rows)).ok().map(|batch| batch.rows);
            let expected = expected.map(|numbers| numbers.map(column).to_vec());
            assert_eq!(picked.map(|rows| rows.columns().to_vec()), expected, "{columns:?}");
        }
    }
}
