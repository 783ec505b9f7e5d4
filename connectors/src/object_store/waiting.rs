//! Rows that wait to be encoded: small batches are joined into chunks, and each row's origin stays known.

use std::collections::VecDeque;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use logmill_pipelines::flow::{Origin, RowBatch};

use crate::sink::RefusedRows;

/// Rows that wait, oldest first.
#[derive(Default)]
pub(super) struct Waiting {
    batches: VecDeque<(RecordBatch, Option<Origin>)>,
    rows: usize,
    bytes: usize,
}

/// Rows to be encoded together.
pub(super) struct Chunk {
    /// The rows.
    pub(super) rows: RecordBatch,
    /// Where they came from: how many rows, one after the other, share an origin.
    origins: Vec<(usize, Option<Origin>)>,
}

impl Waiting {
    /// Adds rows.
    pub(super) fn push(&mut self, rows: RecordBatch, origin: Option<Origin>) {
        self.rows += rows.num_rows();
        self.bytes += rows.get_array_memory_size();
        self.batches.push_back((rows, origin));
    }

    /// How many rows wait.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// The memory that they take, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes this many rows, or all of them if they are fewer.
    pub(super) fn take(&mut self, rows: usize, schema: &SchemaRef) -> Result<Chunk, ArrowError> {
        let (mut taken, mut origins, mut left) = (Vec::new(), Vec::new(), rows);
        while left > 0
            && let Some((batch, origin)) = self.batches.pop_front()
        {
            let count = left.min(batch.num_rows());
            self.bytes = self.bytes.saturating_sub(batch.get_array_memory_size());
            taken.push(batch.slice(0, count));
            origins.push((count, origin.clone()));
            left -= count;
            if count < batch.num_rows() {
                let rest = batch.slice(count, batch.num_rows() - count);
                self.bytes += rest.get_array_memory_size();
                self.batches.push_front((rest, origin));
            }
        }
        self.rows -= taken.iter().map(RecordBatch::num_rows).sum::<usize>();
        let rows = match taken.as_slice() {
            [only] => only.clone(),
            many => concat_batches(schema, many)?,
        };
        Ok(Chunk { rows, origins })
    }
}

impl Chunk {
    /// Rows that were kept as state: their origin is not known any more.
    pub(super) fn of_kept(rows: RecordBatch) -> Self {
        let origins = vec![(rows.num_rows(), None)];
        Self { rows, origins }
    }

    /// The rows of these ascending numbers, with the origin of each, for one reason.
    pub(super) fn refuse(&self, numbers: &[u32], reason: &str) -> Result<Vec<RefusedRows>, ArrowError> {
        let mut refused = Vec::new();
        let (mut start, mut numbers) = (0_usize, numbers);
        for (count, origin) in &self.origins {
            let end = start + count;
            let (of_origin, rest) = numbers.split_at(numbers.partition_point(|number| (*number as usize) < end));
            if !of_origin.is_empty() {
                let rows = take_record_batch(&self.rows, &UInt32Array::from(of_origin.to_vec()))?;
                let rows = RowBatch { origin: origin.clone(), ..RowBatch::inserts(rows) };
                refused.push(RefusedRows { rows, reason: reason.to_owned() });
            }
            (start, numbers) = (end, rest);
        }
        Ok(refused)
    }

    /// The chunk's rows without those of these ascending numbers.
    pub(super) fn without(&self, refused: &[u32]) -> Result<RecordBatch, ArrowError> {
        if refused.is_empty() {
            return Ok(self.rows.clone());
        }
        let mut refused = refused.iter().copied().peekable();
        let all = 0..u32::try_from(self.rows.num_rows()).unwrap_or(u32::MAX);
        let good: Vec<u32> = all.filter(|row| refused.next_if_eq(row).is_none()).collect();
        take_record_batch(&self.rows, &UInt32Array::from(good))
    }
}
