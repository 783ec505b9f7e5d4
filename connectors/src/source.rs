//! The Source and Reader traits: where rows come from.
//!
//! ```text
//!   discover ─▶ splits ─▶ open(split, position) ─▶ Reader ─ next ─▶ chunk, position after it ─▶ … ─▶ None
//!                                                                          │
//!                       epoch_safe(positions) ◀── the epoch's commit holds ┘
//! ```
//!
//! A pipeline that has never read the source first asks for `start_positions`, and saves them with its first commit. From
//! then on a split that has no saved position is a new one, and is read from its beginning.
//!
//! A source is shared by all tasks; each split has at most one reader at a time. A position that was part of a
//! committed checkpoint is what `open` is called with after a restart, so a reader resumed there must deliver exactly
//! the records that a reader which never stopped would have delivered next. A source that cannot promise this says so
//! through `ConnectorKind::needs_through` and is read by way of a topic.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use bytes::Bytes;
use logmill_pipelines::flow::{Position, Positions, SplitId};

use crate::error::ConnectorError;

/// What a discovery found.
#[derive(Clone, Debug, Default)]
pub struct Discovery {
    /// Splits that were not known, in the order they should be read.
    pub new: Vec<SplitId>,
    /// Whether no further splits will ever appear.
    pub complete: bool,
}

/// A piece of a split, of about [`CHUNK_BYTES`].
#[derive(Debug)]
pub struct Chunk {
    /// What it holds.
    pub data: ChunkData,
    /// Where the split goes on after it.
    pub position: Position,
    /// The bytes read from the source for it, compressed as they lay there; for progress.
    pub bytes_read: u64,
}

/// About how many bytes of values a reader puts in one chunk.
pub const CHUNK_BYTES: usize = 1 << 20;

/// The content of a chunk.
#[derive(Debug)]
pub enum ChunkData {
    /// Records that a decoder turns into rows.
    Records(Records),
    /// Rows, from a source whose data has columns already, and those between them that cannot be handed on.
    Rows(Rows, Vec<RejectedRow>),
}

/// A row of a source that cannot be handed on: one of its values does not fit its column, or is one that no text can show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RejectedRow {
    /// For a human: `flights.parquet, row 17`.
    pub place: String,
    /// Its number in the split, from 0.
    pub offset: i64,
    /// What is wrong with it.
    pub message: String,
    /// The row as JSON.
    pub value: Bytes,
}

/// Some rows of one split.
#[derive(Clone, Debug)]
pub struct Rows {
    /// The rows.
    pub rows: RecordBatch,
    /// The number of the first of them in the split, from 0.
    pub first_row: u64,
}

impl Rows {
    /// The number of rows.
    pub fn len(&self) -> usize {
        self.rows.num_rows()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A header of a record: where its name lies, and its value unless that is null.
pub type HeaderRange = (Range<u32>, Option<Range<u32>>);

/// Some records of one split: byte ranges of one shared buffer, so that nothing is copied or allocated per record.
#[derive(Clone, Debug, Default)]
pub struct Records {
    /// What the ranges point into.
    pub buffer: Bytes,
    /// The records' values; `None` is a null value (a tombstone).
    pub values: Vec<Option<Range<u32>>>,
    /// The records' keys, empty where no record has one.
    pub keys: Vec<Option<Range<u32>>>,
    /// The records' timestamps in milliseconds, -1 for none; empty where no record has one.
    pub timestamps: Vec<i64>,
    /// The records' headers, empty where no record has one: name and value of each.
    pub headers: Vec<Vec<HeaderRange>>,
    /// The records' offsets in the split: log offsets, or the byte offsets of lines. Ascending, one a record.
    pub offsets: Vec<i64>,
    /// The partition, -1 where there is none.
    pub partition: i32,
    /// For a human: `flights.ndjson` or `flights-0`. With an offset it names the place of a record.
    pub place: Arc<str>,
    /// The number of the first record's line in its file, from 1; 0 where lines are not counted.
    pub first_line: u64,
}

impl Records {
    /// The number of records.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Some of the records; their bytes are not copied.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Self {
        fn some<T: Clone>(of: &[T], range: Range<usize>) -> Vec<T> {
            of.get(range).map_or_else(Vec::new, <[T]>::to_vec)
        }
        Self {
            buffer: self.buffer.clone(),
            values: some(&self.values, range.clone()),
            keys: some(&self.keys, range.clone()),
            timestamps: some(&self.timestamps, range.clone()),
            headers: some(&self.headers, range.clone()),
            offsets: some(&self.offsets, range.clone()),
            partition: self.partition,
            place: self.place.clone(),
            first_line: if self.first_line == 0 { 0 } else { self.first_line + range.start as u64 },
        }
    }

    /// The value of record `index`, `None` if null or out of range.
    pub fn value(&self, index: usize) -> Option<&[u8]> {
        let range = self.values.get(index)?.as_ref()?;
        self.buffer.get(range.start as usize..range.end as usize)
    }

    /// The key of record `index`, `None` if null or out of range.
    pub fn key(&self, index: usize) -> Option<&[u8]> {
        let range = self.keys.get(index)?.as_ref()?;
        self.buffer.get(range.start as usize..range.end as usize)
    }
}

/// Where rows come from.
#[async_trait]
pub trait Source: Send + Sync {
    /// Learns where the splits of earlier runs go on. Called once, before the first `discover`. For sources whose splits are
    /// known by what was read of them, not by their names.
    fn resume(&self, _positions: &Positions) -> Result<(), ConnectorError> {
        Ok(())
    }

    /// The splits that are there now and not in `known`. Called at the start, and again from time to time until
    /// `complete`.
    async fn discover(&self, known: &BTreeSet<SplitId>) -> Result<Discovery, ConnectorError>;

    /// The splits that exist now, and the position from which a pipeline that has not read this source yet reads each. A
    /// split that is read from its beginning may be left out if its beginning is never deleted.
    async fn start_positions(&self) -> Result<Positions, ConnectorError>;

    /// Opens a split, at the position after its last committed chunk, or at its beginning.
    async fn open(&self, split: &SplitId, position: Option<&Position>) -> Result<Box<dyn Reader>, ConnectorError>;

    /// An epoch with these positions is committed: whatever lies before them is never read again.
    async fn epoch_safe(&self, positions: &Positions) -> Result<(), ConnectorError>;

    /// How much there is to read in all, in bytes of the source, if that is known and bounded; for progress.
    async fn size_hint(&self) -> Option<u64>;
}

/// Reads one split, in order.
#[async_trait]
pub trait Reader: Send {
    /// The next chunk; `None` at the end of a bounded split, and again at every later call. Waits for data where the
    /// split is followed. Cancel-safe: a call dropped before it returned has taken nothing. After a transient error the
    /// reader is dropped, and the split is opened again at the position of its last chunk.
    async fn next(&mut self) -> Result<Option<Chunk>, ConnectorError>;
}
