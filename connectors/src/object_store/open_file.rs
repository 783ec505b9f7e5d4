//! One open file: rows in, bytes out to a temporary file or to the parts of an upload.

use std::ops::Range;

use arrow::array::RecordBatch;
use bytes::Bytes;

use super::encode::{FileEncoder, RefusedRow};
use super::local::LocalFile;
use crate::error::ConnectorError;

/// The size of an upload's parts, in bytes; S3 wants 5 MiB at least.
pub(super) const PART_BYTES: usize = 5 << 20;

/// A piece of an upload, in order for each file.
pub(super) struct Part {
    /// The file's number.
    pub(super) file: u64,
    /// The file's name, from the sink's folder.
    pub(super) name: String,
    /// The piece.
    pub(super) bytes: Bytes,
}

/// A whole file.
pub(super) struct Finished {
    /// The file's number.
    pub(super) file: u64,
    /// Its name, from the sink's folder.
    pub(super) name: String,
    /// Its rows.
    pub(super) rows: u64,
    /// Its size in bytes.
    pub(super) bytes: u64,
    /// The kept batches that its rows are among, numbered from 0 since the last reset.
    pub(super) batches: Range<u64>,
    /// The temporary file, if it was written to one.
    pub(super) local: Option<LocalFile>,
}

/// Where the bytes of an open file go.
pub(super) enum Output {
    /// A temporary file.
    Local(LocalFile),
    /// Parts of an upload, of which this one is not full.
    Parts(Vec<u8>),
}

/// An open file.
pub(super) struct OpenFile {
    pub(super) file: u64,
    pub(super) name: String,
    pub(super) encoder: FileEncoder,
    pub(super) output: Output,
    pub(super) rows: u64,
    pub(super) bytes: u64,
    pub(super) batches: Range<u64>,
}

impl OpenFile {
    /// Adds rows of the kept batch of this number; returns the rows that cannot be encoded.
    pub(super) fn write(
        &mut self,
        rows: &RecordBatch,
        batch: u64,
        parts: &mut Vec<Part>,
    ) -> Result<Vec<RefusedRow>, ConnectorError> {
        let refused = self.encoder.write(rows)?;
        if refused.len() < rows.num_rows() {
            self.rows += (rows.num_rows() - refused.len()) as u64;
            self.batches.end = batch + 1;
        }
        self.drain(parts)?;
        Ok(refused)
    }

    /// The first kept batches, this many, are numbered no more.
    pub(super) fn renumber(&mut self, before: u64) {
        self.batches = self.batches.start - before..self.batches.end - before;
    }

    /// About how large the file would be if it ended here.
    pub(super) fn size_bytes(&self) -> u64 {
        self.bytes + self.encoder.unfinished_bytes() as u64
    }

    /// Ends the row group, to free the memory that it takes.
    pub(super) fn flush(&mut self, parts: &mut Vec<Part>) -> Result<(), ConnectorError> {
        self.encoder.flush()?;
        self.drain(parts)
    }

    /// Moves the bytes that are final out of the encoder.
    fn drain(&mut self, parts: &mut Vec<Part>) -> Result<(), ConnectorError> {
        let bytes = self.encoder.take()?;
        self.push(&bytes, parts)
    }

    fn push(&mut self, bytes: &[u8], parts: &mut Vec<Part>) -> Result<(), ConnectorError> {
        self.bytes += bytes.len() as u64;
        match &mut self.output {
            Output::Local(file) => file.write(bytes)?,
            Output::Parts(buffer) => {
                buffer.extend_from_slice(bytes);
                // All parts but the last are of one size: some stores insist.
                while buffer.len() > PART_BYTES {
                    let rest = buffer.split_off(PART_BYTES);
                    let part = std::mem::replace(buffer, rest);
                    parts.push(Part { file: self.file, name: self.name.clone(), bytes: part.into() });
                }
            }
        }
        Ok(())
    }

    /// The bytes that wait to become a part.
    pub(super) fn buffered(&self) -> usize {
        match &self.output {
            Output::Local(_) => 0,
            Output::Parts(buffer) => buffer.len(),
        }
    }

    /// Ends the file.
    pub(super) fn finish(mut self, parts: &mut Vec<Part>) -> Result<Finished, ConnectorError> {
        let rest = self.encoder.finish()?;
        self.push(&rest, parts)?;
        let Self { file, name, output, rows, bytes, batches, .. } = self;
        let local = match output {
            Output::Local(local) => Some(local),
            Output::Parts(buffer) => {
                parts.push(Part { file, name: name.clone(), bytes: buffer.into() });
                None
            }
        };
        Ok(Finished { file, name, rows, bytes, batches, local })
    }
}
