//! Joins a stream with a static table: a hash table over the table, probed by whole batches.
//!
//! ```text
//!   heads[hash & mask] ─▶ row ─next─▶ row ─next─▶ end        rows of one bucket, in the order of the table
//!   candidates have the same 64-bit hash; a comparator of the key columns decides
//! ```
//!
//! The hash table is built once, when the first worker opens, and shared by all of them.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use arrow::array::{
    Array, ArrayRef, BooleanArray, BooleanBufferBuilder, DynComparator, RecordBatch, UInt32Array, make_comparator,
};
use arrow::buffer::NullBuffer;
use arrow::compute::{SortOptions, concat_batches, take};
use arrow::datatypes::SchemaRef;
use datafusion::common::hash_utils::{RandomState, create_hashes};
use datafusion::common::{Result, exec_datafusion_err};

use super::chain::{CHUNK_ROWS, Chain, Flow, batch};
use super::compile::{Compiled, evaluate, select};

/// The end of a bucket.
const END: u32 = u32::MAX;

/// Which rows come out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum JoinKind {
    /// Pairs that match.
    Inner,
    /// Pairs that match, and rows of the stream without a match, with nulls.
    Outer,
    /// Rows of the stream that have a match.
    Semi,
    /// Rows of the stream that have none. With SQL's `NOT IN`, a null is neither in nor not in a list.
    Anti {
        /// Whether it is `NOT IN`.
        null_aware: bool,
    },
    /// All rows of the stream, and whether each has a match.
    Mark,
}

/// A column of what comes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum JoinColumn {
    /// Of the stream.
    Probe(usize),
    /// Of the table.
    Build(usize),
    /// Whether there was a match.
    Mark,
}

/// A condition on pairs, beside the equality of keys.
#[derive(Debug)]
pub(super) struct JoinFilter {
    pub(super) predicate: Compiled,
    /// The columns it reads, in the order of its schema.
    pub(super) columns: Vec<JoinColumn>,
    pub(super) schema: SchemaRef,
}

/// A join of a stream with a static side.
#[derive(Clone, Debug)]
pub(super) struct Join {
    pub(super) kind: JoinKind,
    pub(super) build: Arc<BuildSide>,
    /// The stream's keys.
    pub(super) keys: Vec<Compiled>,
    pub(super) filter: Option<Arc<JoinFilter>>,
    pub(super) columns: Vec<JoinColumn>,
    pub(super) schema: SchemaRef,
    /// The join, for people.
    pub(super) text: String,
}

/// The static side of a join.
#[derive(Debug)]
pub(super) struct BuildSide {
    /// Its index among the static sides of the query.
    pub(super) id: usize,
    /// What its rows are made of.
    pub(super) chains: Vec<Chain>,
    pub(super) keys: Vec<Compiled>,
    pub(super) schema: SchemaRef,
    /// Whether a null key equals a null key.
    pub(super) nulls_match: bool,
    /// The hash table, while some worker holds it.
    pub(super) shared: SharedTable,
}

/// A hash table that is shared by all who open the same plan over the same rows.
#[derive(Debug, Default)]
pub(super) struct SharedTable(Mutex<Option<(Vec<ArrayRef>, Weak<Built>)>>);

impl SharedTable {
    /// The table built over these very arrays, or a new one.
    pub(super) fn get_or_build(
        &self,
        arrays: Vec<ArrayRef>,
        build: impl FnOnce() -> Result<Built>,
    ) -> Result<Arc<Built>> {
        // A poisoned lock only means that another worker's build failed by a panic; the slot holds no half table.
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, table)) = slot.as_ref()
            && known.len() == arrays.len()
            && known.iter().zip(&arrays).all(|(a, b)| Arc::ptr_eq(a, b))
            && let Some(table) = table.upgrade()
        {
            return Ok(table);
        }
        let table = Arc::new(build()?);
        *slot = Some((arrays, Arc::downgrade(&table)));
        Ok(table)
    }
}

/// A hash table over the rows of a static side.
#[derive(Debug)]
pub(super) struct Built {
    rows: RecordBatch,
    keys: Vec<ArrayRef>,
    hashes: Vec<u64>,
    heads: Vec<u32>,
    next: Vec<u32>,
    has_null_key: bool,
}

impl Built {
    /// Builds it over the rows of a static side.
    pub(super) fn new(side: &BuildSide, batches: &[RecordBatch]) -> Result<Self> {
        let rows = concat_batches(&side.schema, batches)?;
        let keys = side.keys.iter().map(|key| evaluate(key, &rows)).collect::<Result<Vec<_>>>()?;
        let count = u32::try_from(rows.num_rows()).ok().filter(|count| *count < END);
        let count = count.ok_or_else(|| exec_datafusion_err!("a static table has more than {END} rows"))?;
        let mut hashes = vec![0; rows.num_rows()];
        create_hashes(&keys, &RandomState::default(), &mut hashes)?;
        let null_keys = if side.nulls_match { None } else { null_rows(&keys) };
        let mut heads = vec![END; (rows.num_rows() * 2).next_power_of_two().max(16)];
        let mut next = vec![END; rows.num_rows()];
        let mask = heads.len() - 1;
        for (row, (hash, next)) in (0..count).zip(hashes.iter().zip(&mut next)).rev() {
            if null_keys.as_ref().is_some_and(|nulls| nulls.is_null(row as usize)) {
                continue;
            }
            *next = std::mem::replace(&mut heads[bucket(*hash, mask)], row);
        }
        let has_null_key = null_keys.is_some_and(|nulls| nulls.null_count() > 0);
        Ok(Self { rows, keys, hashes, heads, next, has_null_key })
    }

    /// The rows whose key has this hash, in order.
    fn candidates(&self, hash: u64) -> impl Iterator<Item = u32> {
        let mut row = self.heads[bucket(hash, self.heads.len() - 1)];
        std::iter::from_fn(move || {
            while row != END {
                let found = row;
                row = self.next[found as usize];
                if self.hashes[found as usize] == hash {
                    return Some(found);
                }
            }
            None
        })
    }
}

/// The low bits of a hash; `mask` is one less than a power of two.
fn bucket(hash: u64, mask: usize) -> usize {
    (hash & mask as u64) as usize
}

/// Which rows have a null among their keys.
fn null_rows(keys: &[ArrayRef]) -> Option<NullBuffer> {
    keys.iter().fold(None, |nulls, key| NullBuffer::union(nulls.as_ref(), key.logical_nulls().as_ref()))
}

/// Pairs of a row of the stream and a row of the table, in the order of the stream.
#[derive(Default)]
struct Pairs {
    probe: Vec<u32>,
    build: Vec<u32>,
}

impl Join {
    /// Hands the rows that come out for `flow` to `next`, in its order.
    pub(super) fn probe(&self, flow: &Flow, table: &Built, next: &mut dyn FnMut(Flow) -> Result<()>) -> Result<()> {
        let keys = self.keys.iter().map(|key| evaluate(key, &flow.rows)).collect::<Result<Vec<_>>>()?;
        let mut hashes = vec![0; flow.rows.num_rows()];
        create_hashes(&keys, &RandomState::default(), &mut hashes)?;
        let comparators = keys.iter().zip(&table.keys).map(|(a, b)| make_comparator(a, b, SortOptions::default()));
        let comparators = comparators.collect::<Result<Vec<DynComparator>, _>>()?;
        let null_keys = if self.build.nulls_match { None } else { null_rows(&keys) };
        let is_null = |row: usize| null_keys.as_ref().is_some_and(|nulls| nulls.is_null(row));

        let mut pairs = Pairs::default();
        let mut start = 0;
        for (row, hash) in hashes.iter().enumerate() {
            if pairs.probe.len() >= CHUNK_ROWS {
                next(self.finish(flow, start..row, std::mem::take(&mut pairs), table, &is_null)?)?;
                start = row;
            }
            if is_null(row) {
                continue;
            }
            for found in table.candidates(*hash) {
                if comparators.iter().all(|compare| compare(row, found as usize).is_eq()) {
                    pairs.probe.push(row as u32);
                    pairs.build.push(found);
                }
            }
        }
        next(self.finish(flow, start..hashes.len(), pairs, table, &is_null)?)
    }

    /// Makes the output of some rows of the stream from their pairs.
    fn finish(
        &self,
        flow: &Flow,
        rows: std::ops::Range<usize>,
        mut pairs: Pairs,
        table: &Built,
        is_null: &dyn Fn(usize) -> bool,
    ) -> Result<Flow> {
        if let Some(filter) = &self.filter {
            pairs = filter.apply(pairs, flow, table)?;
        }
        if self.kind == JoinKind::Inner {
            let probe = UInt32Array::from(pairs.probe);
            return self.assemble(flow, table, &probe, &UInt32Array::from(pairs.build), None);
        }
        if self.kind == JoinKind::Outer {
            let (probe, build) = with_unmatched(rows, &pairs);
            return self.assemble(flow, table, &UInt32Array::from(probe), &build, None);
        }
        let mut matched = BooleanBufferBuilder::new(flow.rows.num_rows());
        matched.append_n(flow.rows.num_rows(), false);
        for row in &pairs.probe {
            matched.set_bit(*row as usize, true);
        }
        let matched = BooleanArray::new(matched.finish(), None);
        let passes = |row: &usize| match self.kind {
            JoinKind::Semi => matched.value(*row),
            JoinKind::Anti { null_aware: true } if table.rows.num_rows() > 0 => {
                !matched.value(*row) && !table.has_null_key && !is_null(*row)
            }
            JoinKind::Anti { .. } => !matched.value(*row),
            _ => true,
        };
        let probe: UInt32Array = rows.filter(passes).map(|row| row as u32).collect();
        let mark: ArrayRef = Arc::new(matched);
        self.assemble(flow, table, &probe, &UInt32Array::from(Vec::<u32>::new()), Some(&mark))
    }

    fn assemble(
        &self,
        flow: &Flow,
        table: &Built,
        probe: &UInt32Array,
        build: &UInt32Array,
        mark: Option<&ArrayRef>,
    ) -> Result<Flow> {
        let columns = gather(&self.columns, flow, table, probe, build, mark)?;
        let ops = if is_identity(probe, flow.rows.num_rows()) { flow.ops.clone() } else { flow.take_ops(probe)? };
        Ok(Flow { rows: batch(&self.schema, columns, probe.len())?, ops })
    }
}

impl JoinFilter {
    /// The pairs for which the condition is true.
    fn apply(&self, pairs: Pairs, flow: &Flow, table: &Built) -> Result<Pairs> {
        let (probe, build) = (UInt32Array::from(pairs.probe), UInt32Array::from(pairs.build));
        let columns = gather(&self.columns, flow, table, &probe, &build, None)?;
        let candidates = batch(&self.schema, columns, probe.len())?;
        let mask = select(&self.predicate, &candidates)?;
        let passing = |array: &UInt32Array| match &mask {
            None => array.values().to_vec(),
            Some(mask) => mask.values().set_indices().filter_map(|i| array.values().get(i).copied()).collect(),
        };
        Ok(Pairs { probe: passing(&probe), build: passing(&build) })
    }
}

/// All rows of a range with the rows they are paired with, or with none.
fn with_unmatched(rows: std::ops::Range<usize>, pairs: &Pairs) -> (Vec<u32>, UInt32Array) {
    let mut probe = Vec::with_capacity(rows.len().max(pairs.probe.len()));
    let mut build = Vec::with_capacity(probe.capacity());
    let mut paired = pairs.probe.iter().zip(&pairs.build).peekable();
    for row in rows {
        let row = row as u32;
        let before = probe.len();
        while let Some((_, found)) = paired.next_if(|(of, _)| **of == row) {
            probe.push(row);
            build.push(Some(*found));
        }
        if probe.len() == before {
            probe.push(row);
            build.push(None);
        }
    }
    (probe, UInt32Array::from(build))
}

fn gather(
    columns: &[JoinColumn],
    flow: &Flow,
    table: &Built,
    probe: &UInt32Array,
    build: &UInt32Array,
    mark: Option<&ArrayRef>,
) -> Result<Vec<ArrayRef>> {
    // A lookup that finds one row for each keeps the stream's columns as they are.
    let identity = is_identity(probe, flow.rows.num_rows());
    let of_stream = |array: &ArrayRef| if identity { Ok(Arc::clone(array)) } else { take(array, probe, None) };
    let column = |column: &JoinColumn| match *column {
        JoinColumn::Probe(index) => of_stream(flow.rows.column(index)),
        JoinColumn::Build(index) => take(table.rows.column(index), build, None),
        JoinColumn::Mark => {
            mark.map_or_else(|| Ok(Arc::new(BooleanArray::from(vec![true; probe.len()])) as _), of_stream)
        }
    };
    Ok(columns.iter().map(column).collect::<Result<Vec<_>, _>>()?)
}

fn is_identity(indices: &UInt32Array, rows: usize) -> bool {
    indices.len() == rows && indices.values().iter().enumerate().all(|(at, index)| at == *index as usize)
}
