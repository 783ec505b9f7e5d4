//! Makes a row of each item of a list, and columns of the fields of a struct.
//!
//! Several lists of a row are unnested side by side; the shorter ones are filled up with nulls.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, UInt32Array, UInt64Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::{NullHandling, Result, exec_err};

use super::chain::Flow;
use super::evaluation::Evaluation;
use super::fields::masked;
use super::row_size::widest_row;

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
    pub(super) fn apply(
        &self,
        flow: &Flow,
        evaluation: &Evaluation,
        next: &mut dyn FnMut(Flow) -> Result<()>,
    ) -> Result<()> {
        let lists = self.columns.iter().filter_map(|column| match column {
            Unnested::Items(index) => flow.rows.columns().get(*index).map(Lists::new),
            _ => None,
        });
        let lists = lists.collect::<Result<Vec<_>>>()?;
        if lists.is_empty() {
            return next(self.assemble(flow, None, &[])?);
        }
        let repeated = self.columns.iter().filter_map(|column| match column {
            Unnested::Repeat(index) | Unnested::Fields(index) => flow.rows.columns().get(*index).cloned(),
            Unnested::Items(_) => None,
        });
        let at_once = evaluation.rows_of_bytes(widest_row(&repeated.collect::<Vec<_>>()));
        let (mut rows, mut items) = (Vec::new(), vec![Vec::new(); lists.len()]);
        for row in 0..flow.rows.num_rows() {
            let count = lists.iter().map(|list| list.rows(row, &self.nulls)).max().unwrap_or(0);
            for item in 0..count {
                rows.push(row as u32);
                for (list, items) in lists.iter().zip(&mut items) {
                    let (start, end) = list.range(row);
                    items.push((start + item < end).then_some(start + item));
                }
                if rows.len() >= at_once {
                    next(self.take(flow, &lists, std::mem::take(&mut rows), &mut items)?)?;
                }
            }
        }
        if rows.is_empty() { Ok(()) } else { next(self.take(flow, &lists, rows, &mut items)?) }
    }

    /// Rows, each with the items at some places of the lists, or null for one that is too short.
    fn take(&self, flow: &Flow, lists: &[Lists], rows: Vec<u32>, items: &mut [Vec<Option<u64>>]) -> Result<Flow> {
        let take_items = |(list, items): (&Lists, &mut Vec<Option<u64>>)| {
            Ok(take(&list.items, &UInt64Array::from(std::mem::take(items)), None)?)
        };
        let items = lists.iter().zip(items).map(take_items).collect::<Result<Vec<ArrayRef>>>()?;
        self.assemble(flow, Some(&UInt32Array::from(rows)), &items)
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
                    // What a null struct holds is not its fields' value.
                    Some(fields) => {
                        let fields = fields.columns().iter().map(|field| masked(field, fields.nulls()));
                        columns.extend(fields.collect::<Result<Vec<_>>>()?);
                    }
                    None => return exec_err!("column {index} is no struct"),
                },
            }
        }
        match indices {
            Some(indices) => flow.at(indices, columns, &self.schema),
            None => flow.with_columns(columns, &self.schema),
        }
    }
}
