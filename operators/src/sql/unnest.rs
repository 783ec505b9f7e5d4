//! Makes a row of each item of a list, and columns of the fields of a struct.
//!
//! Several lists of a row are unnested side by side; the shorter ones are filled up with nulls.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, UInt32Array, UInt64Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::{NullHandling, Result, exec_datafusion_err, exec_err};

use super::chain::{CHUNK_ROWS, Flow, batch};

/// What becomes of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unnested {
    /// It is repeated for each item.
    Repeat(usize),
    /// Its items become rows.
    Items(usize),
    /// Its fields become columns.
    Fields(usize),
}

/// Unnests some columns.
#[derive(Debug)]
pub(super) struct Unnest {
    /// In the order of the output.
    pub(super) columns: Vec<Unnested>,
    /// What becomes of a list that is null or empty.
    pub(super) nulls: NullHandling,
    pub(super) schema: SchemaRef,
    /// What is unnested, for people.
    pub(super) text: String,
}

/// Whether lists of this type can be unnested.
pub(super) fn is_list(data_type: &DataType) -> bool {
    matches!(data_type, DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..))
}

/// A list column: where each row's items lie.
struct Lists {
    array: ArrayRef,
    items: ArrayRef,
}

impl Lists {
    fn new(array: &ArrayRef) -> Result<Self> {
        let items = match array.data_type() {
            DataType::List(_) => Arc::clone(array.as_list::<i32>().values()),
            DataType::LargeList(_) => Arc::clone(array.as_list::<i64>().values()),
            DataType::FixedSizeList(..) => Arc::clone(array.as_fixed_size_list().values()),
            other => return exec_err!("{other} is no list"),
        };
        Ok(Self { array: Arc::clone(array), items })
    }

    /// The first item of a row and one past its last. A null list has none.
    fn range(&self, row: usize) -> (u64, u64) {
        if self.array.is_null(row) {
            return (0, 0);
        }
        match self.array.data_type() {
            DataType::List(_) => {
                let offsets = self.array.as_list::<i32>().value_offsets();
                (offsets[row].unsigned_abs().into(), offsets[row + 1].unsigned_abs().into())
            }
            DataType::LargeList(_) => {
                let offsets = self.array.as_list::<i64>().value_offsets();
                (offsets[row].unsigned_abs(), offsets[row + 1].unsigned_abs())
            }
            _ => {
                let lists = self.array.as_fixed_size_list();
                let start = lists.value_offset(row).unsigned_abs();
                (u64::from(start), u64::from(start) + u64::from(lists.value_length().unsigned_abs()))
            }
        }
    }

    /// How many rows a row becomes because of this list.
    fn rows(&self, row: usize, nulls: &NullHandling) -> u64 {
        let (start, end) = self.range(row);
        match nulls {
            NullHandling::Drop => end - start,
            NullHandling::Preserve if self.array.is_null(row) => 1,
            NullHandling::Preserve => end - start,
            NullHandling::PreserveAndExpandEmpty => (end - start).max(1),
        }
    }
}

impl Unnest {
    /// Hands the items of `flow` to `next`, in order.
    pub(super) fn apply(&self, flow: &Flow, next: &mut dyn FnMut(Flow) -> Result<()>) -> Result<()> {
        let lists = self.columns.iter().filter_map(|column| match column {
            Unnested::Items(index) => flow.rows.columns().get(*index).map(Lists::new),
            _ => None,
        });
        let lists = lists.collect::<Result<Vec<_>>>()?;
        if lists.is_empty() {
            let indices = None;
            return next(self.assemble(flow, indices, &[])?);
        }
        let mut start = 0;
        while start < flow.rows.num_rows() {
            let (repeats, end) = self.next_chunk(flow, &lists, start)?;
            if !repeats.is_empty() {
                let items = lists.iter().map(|list| unnested_items(list, &repeats)).collect::<Result<Vec<_>>>()?;
                next(self.assemble(flow, Some(&UInt32Array::from(repeats)), &items)?)?;
            }
            start = end;
        }
        Ok(())
    }

    /// The rows from `start` on, each repeated as often as it has items, until there are enough for a chunk.
    fn next_chunk(&self, flow: &Flow, lists: &[Lists], start: usize) -> Result<(Vec<u32>, usize)> {
        let mut repeats: Vec<u32> = Vec::new();
        for row in start..flow.rows.num_rows() {
            let count = lists.iter().map(|list| list.rows(row, &self.nulls)).max().unwrap_or(0);
            let count = usize::try_from(count).map_err(|_| exec_datafusion_err!("a list is too long"))?;
            if !repeats.is_empty() && repeats.len() + count > CHUNK_ROWS {
                return Ok((repeats, row));
            }
            let row = u32::try_from(row).map_err(|_| exec_datafusion_err!("a batch has too many rows"))?;
            repeats.extend(std::iter::repeat_n(row, count));
        }
        Ok((repeats, flow.rows.num_rows()))
    }

    fn assemble(&self, flow: &Flow, indices: Option<&UInt32Array>, items: &[ArrayRef]) -> Result<Flow> {
        let mut items = items.iter();
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.schema.fields().len());
        let repeat = |index: usize| -> Result<ArrayRef> {
            match indices {
                Some(indices) => Ok(take(flow.rows.column(index), indices, None)?),
                None => Ok(Arc::clone(flow.rows.column(index))),
            }
        };
        for column in &self.columns {
            match *column {
                Unnested::Repeat(index) => columns.push(repeat(index)?),
                Unnested::Items(_) => columns.extend(items.next().cloned()),
                Unnested::Fields(index) => match repeat(index)?.as_struct_opt() {
                    Some(fields) => columns.extend(fields.columns().iter().cloned()),
                    None => return exec_err!("column {index} is no struct"),
                },
            }
        }
        let (rows, ops) = match indices {
            Some(indices) => (indices.len(), flow.take_ops(indices)?),
            None => (flow.rows.num_rows(), flow.ops.clone()),
        };
        Ok(Flow { rows: batch(&self.schema, columns, rows)?, ops })
    }
}

/// The items of a list for rows that are repeated, null where it has fewer items than repetitions.
fn unnested_items(list: &Lists, repeats: &[u32]) -> Result<ArrayRef> {
    let mut previous = None;
    let mut position = (0, 0);
    let index = |row: &u32| {
        if previous != Some(*row) {
            previous = Some(*row);
            position = list.range(*row as usize);
        }
        let (at, end) = position;
        position.0 += 1;
        (at < end).then_some(at)
    };
    let indices: UInt64Array = repeats.iter().map(index).collect();
    Ok(take(&list.items, &indices, None)?)
}
