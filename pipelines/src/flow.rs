//! What flows through a pipeline: row batches, event-time watermarks, barriers and positions.
//!
//! ```text
//!   split ──chunk──▶ decoder ──RowBatch──▶ operators ──RowBatch──▶ writer
//!          position of the split after the chunk; barrier N falls between two chunks
//! ```
//!
//! A *position* says where to resume a split; it is opaque to everyone but the source that made it. A *barrier*
//! ends a checkpoint epoch: everything before it belongs to the epoch's commit, nothing after it does.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayData, Int8Array, RecordBatch};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::lineage::Lineage;

/// The name of a hidden column is reserved: it begins with this.
pub const RESERVED_PREFIX: char = '_';

/// The columns a query may name on any source of records, beside those of its schema.
///
/// `_key` binary, `_timestamp` timestamp µs UTC (null if unset), `_partition` int32, `_offset` int64,
/// `_headers` list of {key utf8, value binary or null}.
pub const META_COLUMNS: [&str; 5] = ["_key", "_timestamp", "_partition", "_offset", "_headers"];

/// Names one parallel unit of a source, such as a partition or a file. Stable across restarts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SplitId(pub Arc<str>);

impl SplitId {
    /// A split of this name.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SplitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How many shards the state of an operator is cut into.
pub const STATE_SHARDS: u32 = 16;

/// The shard of state that the rows of a split belong to, below [`STATE_SHARDS`]. It is the same at every start, so that a
/// split always meets the state it has left. Partitions are dealt out by number, everything else by its name's hash.
pub fn state_shard(split: &SplitId) -> u32 {
    let number = split.as_str().parse::<u64>().unwrap_or_else(|_| xxh3_64(split.as_str().as_bytes()));
    (number % u64::from(STATE_SHARDS)) as u32
}

/// Where to resume a split: a small JSON value that only the split's own source understands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Position(pub serde_json::Value);

/// The positions of a source's splits.
pub type Positions = BTreeMap<SplitId, Position>;

/// Counts checkpoints of one pipeline; never goes back. The first is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CheckpointEpoch(pub u64);

impl CheckpointEpoch {
    /// The epoch after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for CheckpointEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A point in event time: no row that comes later is expected to be older. Microseconds since the Unix epoch, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Watermark(pub i64);

impl Watermark {
    /// The watermark of the end of input: flushes every window, is never saved as progress.
    pub const END: Self = Self(i64::MAX);
}

/// What a row of a changelog does to the row of the same key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i8)]
pub enum Op {
    /// A row appears.
    Insert = 0,
    /// The old image of a row that changes; an `UpdateAfter` follows it.
    UpdateBefore = 1,
    /// The new image of a row that changes.
    UpdateAfter = 2,
    /// A row disappears.
    Delete = 3,
}

/// Where the rows of a batch came from, as far as it is still known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The source's name in the pipeline.
    pub source: Arc<str>,
    /// The split they were read from.
    pub split: SplitId,
    /// The offset of the first record: a log offset, or a byte offset in a file.
    pub offset: i64,
}

/// Some rows, 4 to 64 thousand of them where the source provides so many.
#[derive(Clone, Debug)]
pub struct RowBatch {
    /// The rows.
    pub rows: RecordBatch,
    /// One `Op` a row; `None` means that all are inserts.
    pub ops: Option<Int8Array>,
    /// Where they came from; `None` once an operator mixed origins.
    pub origin: Option<Origin>,
    /// Which records of the chunk at hand they were made from; `None` if that is not known.
    pub lineage: Option<Lineage>,
}

impl RowBatch {
    /// Inserts of unknown origin.
    pub fn inserts(rows: RecordBatch) -> Self {
        Self { rows, ops: None, origin: None, lineage: None }
    }

    /// Some of the rows, without copying.
    #[must_use]
    pub fn slice(&self, offset: usize, length: usize) -> Self {
        Self {
            rows: self.rows.slice(offset, length),
            ops: self.ops.as_ref().map(|ops| ops.slice(offset, length)),
            origin: self.origin.clone(),
            lineage: self.lineage.as_ref().map(|lineage| lineage.slice(offset, length)),
        }
    }

    /// The number of rows.
    pub fn num_rows(&self) -> usize {
        self.rows.num_rows()
    }

    /// The memory the rows hold, in bytes: see [`size_bytes`].
    pub fn size_bytes(&self) -> usize {
        size_bytes(&self.rows)
    }
}

/// The memory that rows hold, in bytes: what queues count. Columns that lie in one allocation, as those of an Arrow IPC
/// message do, count once.
pub fn size_bytes(rows: &RecordBatch) -> usize {
    let mut allocations = Vec::new();
    for column in rows.columns() {
        allocations_of(&column.to_data(), &mut allocations);
    }
    allocations.sort_unstable();
    allocations.dedup_by_key(|(address, _)| *address);
    allocations.into_iter().map(|(_, bytes)| bytes).sum()
}

/// The address and the bytes of each allocation that an array lies in.
fn allocations_of(array: &ArrayData, allocations: &mut Vec<(usize, usize)>) {
    let buffers = array.buffers().iter().chain(array.nulls().map(|nulls| nulls.buffer()));
    allocations.extend(buffers.map(|buffer| (buffer.data_ptr().addr().get(), buffer.capacity())));
    for child in array.child_data() {
        allocations_of(child, allocations);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, ListArray, StringArray};
    use arrow::buffer::{Buffer, ScalarBuffer};
    use arrow::datatypes::Int64Type;

    use super::*;

    #[test]
    fn memory_that_columns_share_counts_once() {
        let buffer = Buffer::from_vec((0..1024i64).collect::<Vec<_>>());
        let column = |from| Arc::new(Int64Array::new(ScalarBuffer::new(buffer.clone(), from, 256), None)) as ArrayRef;
        let columns = [("a", column(0)), ("b", column(256)), ("c", column(0))];
        let rows = RowBatch::inserts(RecordBatch::try_from_iter(columns).unwrap());
        assert_eq!(rows.size_bytes(), buffer.capacity());
    }

    #[test]
    fn columns_of_their_own_count_each() {
        let list: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1)]), None]));
        let text: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None]));
        let both = |columns: Vec<(&str, ArrayRef)>| {
            let columns = columns.into_iter().map(|(name, column)| (name, column, true));
            RowBatch::inserts(RecordBatch::try_from_iter_with_nullable(columns).unwrap()).size_bytes()
        };
        let (one, other) = (both(vec![("list", list.clone())]), both(vec![("text", text.clone())]));
        assert!(one > 0 && other > 0);
        assert_eq!(both(vec![("list", list), ("text", text)]), one + other);
    }

    /// Committed state lies in these shards: the numbers must never change.
    #[test]
    fn a_split_belongs_to_the_same_shard_for_ever() {
        for (split, shard) in [("0", 0), ("15", 15), ("16", 0), ("37", 5), ("flights.ndjson", 9), ("", 2)] {
            assert_eq!(state_shard(&SplitId::new(split)), shard, "{split}");
        }
    }
}
