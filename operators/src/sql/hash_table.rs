//! A hash table over the rows of a static table, probed by whole batches.
//!
//! ```text
//!   heads[hash & mask] ─▶ row ─next─▶ row ─next─▶ end        rows of one bucket, in the order of the table
//!   candidates have the same 64-bit hash; a comparator of the key columns decides
//! ```

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, DynComparator, make_comparator};
use arrow::buffer::NullBuffer;
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use datafusion::common::hash_utils::{RandomState, create_hashes};
use datafusion::common::{Result, exec_datafusion_err};

/// The end of a bucket.
const END: u32 = u32::MAX;

/// Some rows of a table, by the hash of their keys.
#[derive(Debug)]
pub(super) struct HashTable {
    keys: Vec<ArrayRef>,
    hashes: Vec<u64>,
    heads: Vec<u32>,
    next: Vec<u32>,
}

impl HashTable {
    /// A table of those of `rows` rows that `holds` names, by their keys.
    pub(super) fn new(keys: Vec<ArrayRef>, rows: usize, holds: impl Fn(usize) -> bool) -> Result<Self> {
        let count = u32::try_from(rows).ok().filter(|count| *count < END);
        let count = count.ok_or_else(|| exec_datafusion_err!("a static table has more than {END} rows"))?;
        let hashes = hash(&keys, rows)?;
        let mut heads = vec![END; (rows * 2).next_power_of_two().max(16)];
        let mut next = vec![END; rows];
        let mask = heads.len() - 1;
        for (row, (hash, next)) in (0..count).zip(hashes.iter().zip(&mut next)).rev() {
            if holds(row as usize) {
                *next = std::mem::replace(&mut heads[bucket(*hash, mask)], row);
            }
        }
        Ok(Self { keys, hashes, heads, next })
    }

    /// Looks up keys, which must have the types of the table's.
    pub(super) fn probe<'a>(&'a self, keys: &[ArrayRef], rows: usize) -> Result<Probe<'a>> {
        let comparators = keys.iter().zip(&self.keys).map(|(a, b)| make_comparator(a, b, SortOptions::default()));
        Ok(Probe { table: self, hashes: hash(keys, rows)?, comparators: comparators.collect::<Result<_, _>>()? })
    }
}

/// Keys that are looked up in a table.
pub(super) struct Probe<'a> {
    table: &'a HashTable,
    hashes: Vec<u64>,
    comparators: Vec<DynComparator>,
}

impl Probe<'_> {
    /// The rows of the table that have the keys of a row, in order.
    pub(super) fn matches(&self, row: usize) -> impl Iterator<Item = u32> {
        let (table, hash) = (self.table, self.hashes[row]);
        let mut at = table.heads[bucket(hash, table.heads.len() - 1)];
        let candidates = std::iter::from_fn(move || {
            while at != END {
                let found = at;
                at = table.next[found as usize];
                if table.hashes[found as usize] == hash {
                    return Some(found);
                }
            }
            None
        });
        candidates.filter(move |found| self.comparators.iter().all(|compare| compare(row, *found as usize).is_eq()))
    }
}

fn hash(keys: &[ArrayRef], rows: usize) -> Result<Vec<u64>> {
    let mut hashes = vec![0; rows];
    create_hashes(keys, &RandomState::default(), &mut hashes)?;
    Ok(hashes)
}

/// The low bits of a hash; `mask` is one less than a power of two.
fn bucket(hash: u64, mask: usize) -> usize {
    (hash & mask as u64) as usize
}

/// Which rows have a null among their keys.
pub(super) fn null_rows(keys: &[ArrayRef]) -> Option<NullBuffer> {
    keys.iter().fold(None, |nulls, key| NullBuffer::union(nulls.as_ref(), key.logical_nulls().as_ref()))
}

/// A key column of which equal values have equal bits: 0.0 is -0.0, and NaN is NaN, as PostgreSQL has it.
pub(super) fn normalized(key: ArrayRef) -> ArrayRef {
    match key.data_type() {
        DataType::Float32 => {
            let one = |x: f32| if x.is_nan() { f32::NAN } else { x + 0.0 };
            Arc::new(key.as_primitive::<Float32Type>().unary::<_, Float32Type>(one))
        }
        DataType::Float64 => {
            let one = |x: f64| if x.is_nan() { f64::NAN } else { x + 0.0 };
            Arc::new(key.as_primitive::<Float64Type>().unary::<_, Float64Type>(one))
        }
        _ => key,
    }
}
