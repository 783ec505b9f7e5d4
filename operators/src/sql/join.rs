//! Joins a stream with a static table: a hash table over the table, probed by whole batches.
//!
//! The hash table is built once, when the first worker opens, and shared by all of them.
//!
//! `x IN (SELECT …)` is true, false or null. A row without a match is one for which it is false, unless `x` is null and
//! there are rows to look among, or one of those is null: then it is null, which `NOT IN` does not let pass either.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use arrow::array::{Array, ArrayRef, BooleanArray, BooleanBufferBuilder, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take};
use arrow::datatypes::SchemaRef;
use datafusion::common::{Result, internal_err, resources_err};

use super::chain::{Chain, Flow, OUTCOME_BYTES};
use super::compile::{Compiled, evaluate};
use super::evaluation::Evaluation;
use super::hash_table::{HashTable, normalized, null_rows};
use super::row_size::widest_row;

/// Which rows come out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum JoinKind {
    /// Pairs that match.
    Inner,
    /// Pairs that match, and rows of the stream without a match, with nulls.
    Outer,
    /// Rows of the stream that have a match.
    Semi,
    /// Rows of the stream that have none, and for which `IN` is not null where the join is one of `NOT IN`.
    Anti,
    /// All rows of the stream, and whether each has a match.
    Mark,
    /// All rows of the stream, and whether `IN` is null for each.
    MarkUnknown,
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
    /// The key that `IN` compares, where null means that it is not known; the others say among which rows it looks.
    pub(super) in_key: Option<usize>,
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

/// The rows of a static side, by their keys.
#[derive(Debug)]
pub(super) struct Built {
    rows: RecordBatch,
    by_keys: HashTable,
    /// For `IN`: its rows by the keys beside that of `IN`.
    groups: Option<Groups>,
    widest_row: usize,
}

/// The rows among which `IN` looks, by the keys that say which they are: those with a null, and all of them.
#[derive(Debug)]
struct Groups {
    nulls: HashTable,
    all: HashTable,
}

impl Built {
    /// Builds it over the rows of a static side.
    pub(super) fn new(side: &BuildSide, batches: &[RecordBatch]) -> Result<Self> {
        let rows = concat_batches(&side.schema, batches)?;
        let count = rows.num_rows();
        let keys = side.keys.iter().map(|key| evaluate(key, &rows).map(normalized)).collect::<Result<Vec<_>>>()?;
        let groups = match side.in_key.filter(|index| *index < keys.len()) {
            None => None,
            Some(index) => {
                let (others, in_key) = without_key(&keys, index);
                let others_null = null_rows(&others);
                let in_group = |row: usize| others_null.as_ref().is_none_or(|nulls| nulls.is_valid(row));
                let is_null = in_key.logical_nulls();
                let holds_null = |row: usize| in_group(row) && is_null.as_ref().is_some_and(|n| n.is_null(row));
                let nulls = HashTable::new(others.clone(), count, holds_null)?;
                Some(Groups { nulls, all: HashTable::new(others, count, in_group)? })
            }
        };
        let null_keys = if side.nulls_match { None } else { null_rows(&keys) };
        let holds = |row: usize| null_keys.as_ref().is_none_or(|nulls| nulls.is_valid(row));
        let by_keys = HashTable::new(keys, count, holds)?;
        let widest_row = widest_row(rows.columns());
        Ok(Self { rows, by_keys, groups, widest_row })
    }
}

/// The keys beside the one of `IN`, and that.
fn without_key(keys: &[ArrayRef], in_key: usize) -> (Vec<ArrayRef>, ArrayRef) {
    let others = keys.iter().enumerate().filter(|(index, _)| *index != in_key).map(|(_, key)| Arc::clone(key));
    (others.collect(), Arc::clone(&keys[in_key]))
}

/// Pairs of a row of the stream and a row of the table, in the order of the stream.
#[derive(Default)]
struct Pairs {
    probe: Vec<u32>,
    build: Vec<u32>,
}

impl Pairs {
    fn push(&mut self, probe: usize, build: u32) {
        self.probe.push(probe as u32);
        self.build.push(build);
    }
}

/// Takes the rows that come out, in order.
type Next<'a> = &'a mut dyn FnMut(Flow) -> Result<()>;

impl Join {
    /// Hands the rows that come out for `flow` to `next`, in its order.
    pub(super) fn probe(&self, flow: &Flow, table: &Built, evaluation: &Evaluation, next: Next<'_>) -> Result<()> {
        let keys = self.keys.iter().map(|key| evaluation.evaluate(key, flow).map(normalized));
        let keys = keys.collect::<Result<Vec<_>>>()?;
        let rows = flow.rows.num_rows();
        let probe = table.by_keys.probe(&keys, rows)?;
        let null_keys = if self.build.nulls_match { None } else { null_rows(&keys) };
        let probing = Probing { join: self, flow, table, evaluation, keys: &keys };
        let pair_bytes = table.widest_row.saturating_add(widest_row(flow.rows.columns())).max(1);
        let (at_once, most) = (evaluation.rows_of_bytes(pair_bytes), OUTCOME_BYTES / pair_bytes);
        let mut pairs = Pairs::default();
        let mut start = 0;
        for row in 0..rows {
            if null_keys.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
                continue;
            }
            for found in probe.matches(row) {
                pairs.push(row, found);
                if pairs.probe.len() >= at_once && self.kind == JoinKind::Inner {
                    next(probing.finish(start..row, std::mem::take(&mut pairs))?)?;
                } else if pairs.probe.len() > most {
                    return resources_err!("its matches take more than {} MiB", OUTCOME_BYTES >> 20);
                }
            }
            if pairs.probe.len() >= at_once {
                next(probing.finish(start..row + 1, std::mem::take(&mut pairs))?)?;
                start = row + 1;
            }
        }
        next(probing.finish(start..rows, pairs)?)
    }
}

/// A probe of a table with some rows of the stream.
struct Probing<'a> {
    join: &'a Join,
    flow: &'a Flow,
    table: &'a Built,
    evaluation: &'a Evaluation,
    keys: &'a [ArrayRef],
}

impl Probing<'_> {
    /// Makes the output of some rows of the stream from their pairs.
    fn finish(&self, rows: Range<usize>, pairs: Pairs) -> Result<Flow> {
        let pairs = self.passing(pairs)?;
        if self.join.kind == JoinKind::Inner {
            let probe = UInt32Array::from(pairs.probe);
            return self.assemble(&probe, &UInt32Array::from(pairs.build), None);
        }
        if self.join.kind == JoinKind::Outer {
            let (probe, build) = with_unmatched(rows, &pairs);
            return self.assemble(&UInt32Array::from(probe), &build, None);
        }
        let matched = self.marked(&pairs.probe);
        let unknown = if self.join.asks_for_unknown() { Some(self.unknown(rows.clone(), &matched)?) } else { None };
        let is_unknown = |row: usize| unknown.as_ref().is_some_and(|unknown| unknown.value(row));
        let passes = |row: &usize| match self.join.kind {
            JoinKind::Semi => matched.value(*row),
            JoinKind::Anti => !matched.value(*row) && !is_unknown(*row),
            _ => true,
        };
        let probe: UInt32Array = rows.filter(passes).map(|row| row as u32).collect();
        let mark: ArrayRef = match unknown {
            Some(unknown) if self.join.kind == JoinKind::MarkUnknown => Arc::new(unknown),
            _ => Arc::new(matched),
        };
        self.assemble(&probe, &UInt32Array::from(Vec::<u32>::new()), Some(&mark))
    }

    /// The pairs for which the join's further condition is true.
    fn passing(&self, pairs: Pairs) -> Result<Pairs> {
        match &self.join.filter {
            Some(filter) => filter.apply(pairs, self.flow, self.table, self.evaluation),
            None => Ok(pairs),
        }
    }

    /// For which of the rows without a match `IN` is null: its value is, and there are rows to look among; or there is a
    /// null among those.
    fn unknown(&self, rows: Range<usize>, matched: &BooleanArray) -> Result<BooleanArray> {
        let (Some(groups), Some(in_key)) = (&self.table.groups, self.join.build.in_key) else {
            return internal_err!("IN without its key");
        };
        let (others, value) = without_key(self.keys, in_key);
        let (others_null, value_null) = (null_rows(&others), value.logical_nulls());
        let count = self.flow.rows.num_rows();
        let (nulls, all) = (groups.nulls.probe(&others, count)?, groups.all.probe(&others, count)?);
        let at_once = self.evaluation.rows_of_bytes(self.table.widest_row);
        let (mut found, mut pairs) = (Vec::new(), Pairs::default());
        let open =
            rows.filter(|row| !matched.value(*row) && others_null.as_ref().is_none_or(|nulls| nulls.is_valid(*row)));
        for row in open {
            let is_null = value_null.as_ref().is_some_and(|nulls| nulls.is_null(row));
            for candidate in if is_null { all.matches(row) } else { nulls.matches(row) } {
                pairs.push(row, candidate);
                if self.join.filter.is_none() {
                    break;
                }
                if pairs.probe.len() >= at_once {
                    found.extend(self.passing(std::mem::take(&mut pairs))?.probe);
                }
            }
        }
        found.extend(self.passing(pairs)?.probe);
        Ok(self.marked(&found))
    }

    /// True for these rows of the stream.
    fn marked(&self, rows: &[u32]) -> BooleanArray {
        let mut marked = BooleanBufferBuilder::new(self.flow.rows.num_rows());
        marked.append_n(self.flow.rows.num_rows(), false);
        rows.iter().for_each(|row| marked.set_bit(*row as usize, true));
        BooleanArray::new(marked.finish(), None)
    }

    fn assemble(&self, probe: &UInt32Array, build: &UInt32Array, mark: Option<&ArrayRef>) -> Result<Flow> {
        let columns = gather(&self.join.columns, self.flow, self.table, probe, build, mark)?;
        match is_identity(probe, self.flow.rows.num_rows()) {
            true => self.flow.with_columns(columns, &self.join.schema),
            false => self.flow.at(probe, columns, &self.join.schema),
        }
    }
}

impl Join {
    /// Whether it must know of rows without a match whether `IN` is null for them.
    fn asks_for_unknown(&self) -> bool {
        self.build.in_key.is_some() && matches!(self.kind, JoinKind::Anti | JoinKind::MarkUnknown)
    }
}

impl JoinFilter {
    /// The pairs for which the condition is true.
    fn apply(&self, pairs: Pairs, flow: &Flow, table: &Built, evaluation: &Evaluation) -> Result<Pairs> {
        if pairs.probe.is_empty() {
            return Ok(pairs);
        }
        let (probe, build) = (UInt32Array::from(pairs.probe), UInt32Array::from(pairs.build));
        let columns = gather(&self.columns, flow, table, &probe, &build, None)?;
        let candidates = flow.at(&probe, columns, &self.schema)?;
        let mask = evaluation.select(&self.predicate, &candidates)?;
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
