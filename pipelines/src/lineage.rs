//! Which records of a chunk the rows of a batch were made from.
//!
//! ```text
//!   records of chunk 7     0   1   2   3   4   5
//!   decoded rows           0   1   ✗   2   3   4        lineage: 0 1 3 4 5
//!   after a filter             0           1            lineage: 1 5
//! ```
//!
//! A chunk runs through all operators of a worker before the next one does. An operator that makes a row of one row of its
//! input takes the lineage along, so that a row that fails later on can be traced to its record. An operator that mixes
//! rows, or makes rows of its state, puts out batches without a lineage.

use std::sync::Arc;

use arrow::array::UInt32Array;

/// The records of one chunk that the rows of a batch were made from.
#[derive(Clone, Debug, PartialEq)]
pub struct Lineage {
    chunk: u64,
    records: Records,
}

#[derive(Clone, Debug, PartialEq)]
enum Records {
    /// Row n was made from this record and n.
    From(u32),
    /// Row n was made from record `[n]`.
    At(Arc<UInt32Array>),
}

impl Lineage {
    /// Row n was made from record n of the chunk.
    #[must_use]
    pub fn of_chunk(chunk: u64) -> Self {
        Self { chunk, records: Records::From(0) }
    }

    /// Row n was made from record `records[n]` of the chunk. No item is null.
    #[must_use]
    pub fn of_records(chunk: u64, records: UInt32Array) -> Self {
        Self { chunk, records: Records::At(Arc::new(records)) }
    }

    /// The chunk's number, by which a worker tells its chunks apart.
    #[must_use]
    pub fn chunk(&self) -> u64 {
        self.chunk
    }

    /// The record that a row was made from; `None` if there is no such row.
    #[must_use]
    pub fn record(&self, row: usize) -> Option<usize> {
        match &self.records {
            Records::From(first) => Some(*first as usize + row),
            Records::At(records) => records.values().get(row).map(|record| *record as usize),
        }
    }

    /// The lineage of `length` rows from `offset` on, without copying. Panics if there are fewer, as Arrow's slices do.
    #[must_use]
    pub fn slice(&self, offset: usize, length: usize) -> Self {
        let records = match &self.records {
            Records::From(first) => Records::From(first + offset as u32),
            Records::At(records) => Records::At(Arc::new(records.slice(offset, length))),
        };
        Self { chunk: self.chunk, records }
    }

    /// The lineage of rows that were made from the rows `rows` of the batch. No item is null; each is a row of the batch.
    #[must_use]
    pub fn take(&self, rows: &UInt32Array) -> Self {
        let records = match &self.records {
            Records::From(0) => rows.clone(),
            Records::From(first) => rows.values().iter().map(|row| first + row).collect(),
            Records::At(records) => {
                let of_row = |row: &u32| records.values().get(*row as usize).copied().unwrap_or(u32::MAX);
                rows.values().iter().map(of_row).collect()
            }
        };
        Self::of_records(self.chunk, records)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(lineage: &Lineage, rows: usize) -> Vec<Option<usize>> {
        (0..rows).map(|row| lineage.record(row)).collect()
    }

    #[test]
    fn rows_are_traced_through_slices_and_selections() {
        let same = Lineage::of_chunk(7);
        assert_eq!(records(&same, 3), [Some(0), Some(1), Some(2)]);
        assert_eq!(records(&same.slice(2, 2), 2), [Some(2), Some(3)]);
        let some = same.slice(2, 4).take(&UInt32Array::from(vec![0, 3, 3]));
        assert_eq!(records(&some, 4), [Some(2), Some(5), Some(5), None]);
        let again = some.slice(1, 2).take(&UInt32Array::from(vec![1]));
        assert_eq!((records(&again, 1), again.chunk()), (vec![Some(5)], 7));
        let decoded = Lineage::of_records(8, UInt32Array::from(vec![0, 1, 3]));
        assert_eq!(records(&decoded.take(&UInt32Array::from(vec![2])), 1), [Some(3)]);
    }
}
