//! Walks the record batches of a segment file: headers only, or whole batches with their CRC.

use std::fs::File;
use std::path::Path;

use logmill_protocol::{BatchHeader, BatchLimits, BatchView, HEADER_LEN};

use crate::error::Result;
use crate::files;

/// Bytes read at once when batches are small enough that several fit.
const CHUNK_BYTES: usize = 64 << 10;
/// Bytes read for the header of a batch that is larger than a chunk.
const HEADER_CHUNK_BYTES: usize = 4 << 10;

/// What the walk found next.
#[derive(Debug)]
pub(crate) enum Step {
    /// A batch that lies wholly within the file.
    Batch { header: BatchHeader, position: u64 },
    /// The file ends exactly where a batch would begin.
    End,
    /// From `position` on there is no sound batch.
    Bad { position: u64, reason: String },
}

/// A walk from one position to the end of a file.
#[derive(Debug)]
pub(crate) struct Scan<'a> {
    file: &'a File,
    path: &'a Path,
    position: u64,
    end: u64,
    /// Bytes of the file from `chunk_start` on.
    chunk: Vec<u8>,
    chunk_start: u64,
    last_batch_len: usize,
    /// Bytes read at once.
    ahead: usize,
}

impl<'a> Scan<'a> {
    /// Walks `file` from `position`, where a batch begins, up to `end`.
    pub(crate) fn new(file: &'a File, path: &'a Path, position: u64, end: u64) -> Self {
        Self {
            file,
            path,
            position,
            end,
            chunk: Vec::new(),
            chunk_start: position,
            last_batch_len: 0,
            ahead: CHUNK_BYTES,
        }
    }

    /// The next batch by its header alone.
    pub(crate) fn next_header(&mut self) -> Result<Step> {
        if self.position >= self.end {
            return Ok(Step::End);
        }
        let step = match BatchHeader::peek(self.bytes(HEADER_LEN)?) {
            Ok(header) => self.accept(header),
            Err(error) => self.bad(error.to_string()),
        };
        Ok(step)
    }

    /// The next batch by its header alone, with nothing read beyond it: nobody goes on from there.
    pub(crate) fn one_header(&mut self) -> Result<Step> {
        self.ahead = HEADER_LEN;
        self.next_header()
    }

    /// The next batch with its bytes, checked as [`BatchView::validate`] does, CRC included.
    pub(crate) fn next_verified(&mut self) -> Result<Step> {
        let start = self.position;
        match self.next_header()? {
            Step::Batch { header, position } => {
                let bytes = self.batch_bytes(&header, position)?;
                let verdict = BatchView::parse(bytes).and_then(|(batch, _)| batch.validate(&BatchLimits::STORED));
                Ok(match verdict {
                    Ok(()) => Step::Batch { header, position },
                    Err(error) => Step::Bad { position: start, reason: error.to_string() },
                })
            }
            other => Ok(other),
        }
    }

    /// The bytes of a batch that a step has just returned.
    pub(crate) fn batch_bytes(&mut self, header: &BatchHeader, position: u64) -> Result<&[u8]> {
        let after = self.position;
        self.position = position;
        let len = header.total_len();
        self.bytes(len)?;
        self.position = after;
        let from = (position - self.chunk_start) as usize;
        Ok(self.chunk.get(from..from + len).unwrap_or_default())
    }

    fn accept(&mut self, header: BatchHeader) -> Step {
        let position = self.position;
        let len = header.total_len() as u64;
        if len > self.end - position {
            return self.bad(format!("the batch claims {len} bytes, only {} follow", self.end - position));
        }
        if header.base_offset.0 < 0 || header.last_offset_delta < 0 {
            return self.bad("the batch has a negative offset".to_owned());
        }
        self.last_batch_len = header.total_len();
        self.position += len;
        Step::Batch { header, position }
    }

    fn bad(&self, reason: String) -> Step {
        Step::Bad { position: self.position, reason }
    }

    /// At least `len` bytes at the current position, or as many as there are before the end.
    fn bytes(&mut self, len: usize) -> Result<&[u8]> {
        let available = usize::try_from(self.end - self.position).unwrap_or(usize::MAX);
        let len = len.min(available);
        let chunk_end = self.chunk_start + self.chunk.len() as u64;
        if self.position < self.chunk_start || self.position + len as u64 > chunk_end {
            let ahead = if self.last_batch_len > CHUNK_BYTES { HEADER_CHUNK_BYTES } else { self.ahead };
            let want = len.max(ahead).min(available);
            self.chunk.resize(want, 0);
            self.chunk_start = self.position;
            files::read_at(self.file, self.path, &mut self.chunk, self.position)?;
        }
        let from = (self.position - self.chunk_start) as usize;
        Ok(self.chunk.get(from..from + len).unwrap_or_default())
    }
}
