//! Rows of files that are not full yet, as state that the engine keeps: a delta an epoch.
//!
//! ```text
//!   epoch      1        2        3 (rolls)        4
//!   rows    ■■■■■     ■■■     ■■■■│■■          ■■■■
//!   handed  delta     delta   reset, delta      delta
//! ```
//!
//! A delta is a sequence of frames: magic, length of the body, xxh3 of the body, body. A body is a zstd-compressed Arrow
//! IPC stream. So deltas can be joined end to end, which is done now and then to keep their number small.
//!
//! The rows of an epoch that end up in finished files are handed over as well, apart from the delta: with the deltas
//! before, they are what the files can be made from again.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use crate::error::ConnectorError;

/// Rows in memory of this size, in bytes, are encoded, whether or not the epoch has ended.
const BACKLOG_BYTES: usize = 24 << 20;

/// Frames of finished files' rows are handed over at this size, in bytes, whether or not the epoch has ended.
const KEPT_BYTES: usize = 16 << 20;

/// Deltas up to this size together, in bytes, are joined rather than allowed to become many.
const JOIN_BYTES: usize = 4 << 20;

/// After this many deltas they are joined or, where too large for that, the files are finished early.
const MAX_DELTAS: usize = 64;

/// Fast rather than small: the state lives for as long as a file takes to fill.
const ZSTD_LEVEL: i32 = -3;

const MAGIC: [u8; 4] = *b"LMC1";

/// Bytes before a frame's body.
const HEAD_BYTES: usize = 16;

/// What is carried of the files that are open.
#[derive(Default)]
pub(super) struct Carried {
    backlog: Vec<RecordBatch>,
    backlog_bytes: usize,
    /// Frames of this epoch's rows that are in open files.
    delta: Vec<u8>,
    /// Frames of this epoch's rows that are in finished files.
    kept: Vec<u8>,
    /// What was handed over since the last reset, as long as it is small.
    handed: Vec<u8>,
    handed_is_whole: bool,
    deltas: usize,
}

/// What to hand over for an epoch.
pub(super) struct Delta {
    /// Whether it stands instead of all that was handed over before.
    pub(super) reset: bool,
    /// Frames of the epoch's rows that are in finished files, as far as `take_kept` has not taken them.
    pub(super) kept: Option<Bytes>,
    /// The frames, if any.
    pub(super) frames: Option<Bytes>,
}

impl Carried {
    /// Nothing is carried.
    pub(super) fn new() -> Self {
        Self { handed_is_whole: true, ..Self::default() }
    }

    /// All the rows so far are in finished files.
    pub(super) fn finish(&mut self) -> Result<(), ConnectorError> {
        self.encode()?;
        let mut kept = std::mem::take(&mut self.kept);
        kept.append(&mut self.delta);
        *self = Self { kept, ..Self::new() };
        Ok(())
    }

    /// Takes the rows that are in finished files, once they are many.
    pub(super) fn take_kept(&mut self) -> Option<Bytes> {
        (self.kept.len() >= KEPT_BYTES).then(|| std::mem::take(&mut self.kept).into())
    }

    /// Carries rows.
    pub(super) fn push(&mut self, rows: &RecordBatch) -> Result<(), ConnectorError> {
        self.backlog_bytes += rows.columns().iter().map(|column| column.get_buffer_memory_size()).sum::<usize>();
        self.backlog.push(rows.clone());
        if self.backlog_bytes >= BACKLOG_BYTES { self.encode() } else { Ok(()) }
    }

    /// Takes note of a delta handed over before a restart, and returns its rows.
    pub(super) fn restore(&mut self, frames: &[u8], schema: &SchemaRef) -> Result<Vec<RecordBatch>, ConnectorError> {
        let rows = decode(frames, schema)?;
        self.remember(frames);
        Ok(rows)
    }

    /// Whether the deltas have become too many to keep and too large to join, so that files must be finished.
    pub(super) fn must_roll(&self) -> bool {
        self.deltas >= MAX_DELTAS && !self.handed_is_whole
    }

    /// Hands over this epoch's rows. `rolled` says that files were finished since the last call.
    pub(super) fn hand_over(&mut self, rolled: bool) -> Result<Delta, ConnectorError> {
        self.encode()?;
        let delta = std::mem::take(&mut self.delta);
        let kept = Some(std::mem::take(&mut self.kept)).filter(|kept| !kept.is_empty()).map(Bytes::from);
        if delta.is_empty() {
            return Ok(Delta { reset: rolled, kept, frames: None });
        }
        if !rolled && self.deltas >= MAX_DELTAS && self.handed_is_whole {
            let mut all = std::mem::take(&mut self.handed);
            all.extend_from_slice(&delta);
            self.deltas = 0;
            self.remember(&all);
            return Ok(Delta { reset: true, kept, frames: Some(all.into()) });
        }
        self.remember(&delta);
        Ok(Delta { reset: rolled, kept, frames: Some(delta.into()) })
    }

    fn remember(&mut self, frames: &[u8]) {
        self.deltas += 1;
        if self.handed_is_whole && self.handed.len() + frames.len() <= JOIN_BYTES {
            self.handed.extend_from_slice(frames);
        } else {
            self.handed_is_whole = false;
            self.handed = Vec::new();
        }
    }

    fn encode(&mut self) -> Result<(), ConnectorError> {
        let Some(first) = self.backlog.first() else { return Ok(()) };
        let encoder = zstd::stream::write::Encoder::new(Vec::new(), ZSTD_LEVEL).map_err(state_error)?;
        let mut stream = StreamWriter::try_new(encoder, &first.schema()).map_err(state_error)?;
        for rows in &self.backlog {
            stream.write(rows).map_err(state_error)?;
        }
        let body = stream.into_inner().map_err(state_error)?.finish().map_err(state_error)?;
        let length = u32::try_from(body.len()).map_err(state_error)?;
        self.delta.extend_from_slice(&MAGIC);
        self.delta.extend_from_slice(&length.to_le_bytes());
        self.delta.extend_from_slice(&xxh3_64(&body).to_le_bytes());
        self.delta.extend_from_slice(&body);
        self.backlog.clear();
        self.backlog_bytes = 0;
        Ok(())
    }
}

/// The batches of rows that frames hold, as they were carried.
pub(super) fn decode(mut frames: &[u8], schema: &SchemaRef) -> Result<Vec<RecordBatch>, ConnectorError> {
    let mut rows = Vec::new();
    while !frames.is_empty() {
        let (head, rest) = frames.split_first_chunk::<HEAD_BYTES>().ok_or_else(|| damaged("it ends within a frame"))?;
        let [m0, m1, m2, m3, l0, l1, l2, l3, sum @ ..] = *head;
        if [m0, m1, m2, m3] != MAGIC {
            return Err(damaged("a frame does not begin as it should"));
        }
        let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        let (body, rest) = rest.split_at_checked(length).ok_or_else(|| damaged("it ends within a frame"))?;
        // The readers below are not made for damaged bytes.
        if xxh3_64(body) != u64::from_le_bytes(sum) {
            return Err(damaged("a frame's checksum does not match"));
        }
        let decoder = zstd::stream::read::Decoder::with_buffer(body).map_err(damaged)?;
        for batch in StreamReader::try_new(decoder, None).map_err(damaged)? {
            let batch = batch.map_err(damaged)?;
            if batch.schema().fields() != schema.fields() {
                return Err(damaged("its columns are not those of the sink"));
            }
            rows.push(batch);
        }
        frames = rest;
    }
    Ok(rows)
}

fn state_error(error: impl Into<crate::error::BoxError>) -> ConnectorError {
    ConnectorError::Permanent { context: "cannot encode the rows of unfinished files".into(), source: error.into() }
}

fn damaged(reason: impl std::fmt::Display) -> ConnectorError {
    ConnectorError::Data {
        place: "rows of unfinished files".into(),
        message: format!("the state is damaged: {reason}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use proptest::prelude::*;

    use super::*;
    use crate::conformance::sink::{batch, schema};

    fn rows(ids: &[i64]) -> RecordBatch {
        batch(&ids.iter().map(|id| (*id, Some(format!("group {id}")))).collect::<Vec<_>>()).unwrap()
    }

    proptest! {
        #[test]
        fn rows_come_back_in_order_however_they_were_handed_over(epochs in prop::collection::vec(any::<Vec<i64>>(), 0..80)) {
            let mut carried = Carried::new();
            let mut kept: Vec<Bytes> = Vec::new();
            for epoch in &epochs {
                for ids in epoch.chunks(3) {
                    carried.push(&rows(ids)).unwrap();
                }
                let delta = carried.hand_over(false).unwrap();
                if delta.reset {
                    kept.clear();
                }
                kept.extend(delta.frames);
            }
            prop_assert!(kept.len() <= MAX_DELTAS + 1);
            let mut restored = Vec::new();
            for delta in &kept {
                restored.extend(Carried::new().restore(delta, &schema()).unwrap());
            }
            let expected = rows(&epochs.concat());
            prop_assert_eq!(arrow::compute::concat_batches(&schema(), &restored).unwrap(), expected);
        }

        #[test]
        fn damaged_state_is_told_and_never_taken_for_rows(at in any::<prop::sample::Index>(), cut in any::<bool>(), flip in 1u8..) {
            let mut carried = Carried::new();
            carried.push(&rows(&[1, 2, 3])).unwrap();
            let mut frames = carried.hand_over(false).unwrap().frames.unwrap().to_vec();
            let at = at.index(frames.len());
            if cut { frames.truncate(at) } else { frames[at] ^= flip }
            let restored = Carried::new().restore(&frames, &schema());
            prop_assert!(restored.is_err() || (cut && at == 0));
        }
    }

    #[test]
    fn what_is_rolled_is_handed_over_apart() {
        let mut carried = Carried::new();
        carried.push(&rows(&[1])).unwrap();
        carried.finish().unwrap();
        assert_eq!(carried.take_kept(), None, "a few bytes wait for the end of the epoch");
        let delta = carried.hand_over(true).unwrap();
        assert!(delta.reset && delta.frames.is_none());
        assert_eq!(decode(&delta.kept.unwrap(), &schema()).unwrap(), [rows(&[1])]);
        carried.push(&rows(&[2])).unwrap();
        assert!(!carried.hand_over(false).unwrap().reset);
    }
}
