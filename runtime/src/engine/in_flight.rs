//! The chunk that runs through a worker's operators: what a row that fails on its way was made from.

use arrow::array::{RecordBatch, UInt32Array};
use logmill_connectors::decode::RowError;
use logmill_connectors::source::{ChunkData, Records};
use logmill_pipelines::flow::{RowBatch, SplitId};
use logmill_pipelines::lineage::Lineage;

use super::dead_letter::{Provenance, Record};
use super::error::EngineError;

/// A chunk, from the time it is decoded until all that comes of it has left the operators.
pub(crate) struct InFlight<'a> {
    /// Tells the chunks of a worker apart.
    pub(crate) chunk: u64,
    pub(crate) provenance: &'a Provenance,
    pub(crate) split: &'a SplitId,
    pub(crate) data: &'a ChunkData,
}

impl<'a> InFlight<'a> {
    /// The record that a row of a batch was made from, by its number in the chunk; `None` if that is not known.
    pub(crate) fn record_of(&self, batch: &RowBatch, row: usize) -> Option<usize> {
        let lineage = batch.lineage.as_ref().filter(|lineage| lineage.chunk() == self.chunk)?;
        lineage.record(row).filter(|record| *record < self.len())
    }

    /// A record of the chunk as it came in.
    pub(crate) fn record(&self, index: usize) -> Result<Record, EngineError> {
        match self.data {
            ChunkData::Records(records) => Ok(Record::of(records, index)),
            ChunkData::Rows(rows, rejected) => Record::of_row(self.split, rows, rejected, index),
        }
    }

    fn len(&self) -> usize {
        match self.data {
            ChunkData::Records(records) => records.len(),
            ChunkData::Rows(rows, _) => rows.len(),
        }
    }
}

/// The lineage of the rows that were decoded from records. A decoder makes one row of each record that it can decode.
pub(crate) fn lineage_of_decoded(
    chunk: u64,
    records: &Records,
    rows: &RecordBatch,
    errors: &[RowError],
) -> Option<Lineage> {
    if rows.num_rows() + errors.len() != records.len() {
        return None;
    }
    if errors.is_empty() {
        return Some(Lineage::of_chunk(chunk));
    }
    let mut bad = errors.iter().map(|error| error.index).peekable();
    let decoded = (0..records.len() as u32).filter(|index| bad.next_if_eq(&(*index as usize)).is_none());
    Some(Lineage::of_records(chunk, UInt32Array::from_iter_values(decoded)))
}
