//! Slices of a segment's file, which a socket takes from the page cache without a copy through this process.
//!
//! ```text
//!  segment   | batch | batch | batch | batch | batch |  …           what is published never changes below the end
//!                    ^ position      ^ index entry at or below position + max_bytes: the slice ends at a batch
//! ```
//! A slice holds its file open: what retention deletes meanwhile is still read.

use std::fs::File;
use std::io::IoSliceMut;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use logmill_protocol::{BatchHeader, Offset};
use rustix::io::{Errno, ReadWriteFlags};

use crate::buffers::Buffer;
use crate::damage::lost_at;
use crate::error::{Result, StorageError};
use crate::files;
use crate::log::PartitionLog;
use crate::scan::{Scan, Step};
use crate::segment::Segment;

/// One byte in so many is asked for to find out whether a range is in the page cache: the kernel reads ahead as much.
const PROBE_STEP_BYTES: u64 = 128 << 10;
/// How long those who may not wait for the disk wait for a segment's indexes.
const INDEXES_PATIENCE: Duration = Duration::from_millis(1);
/// Bytes read at once to bring a range into the page cache.
const LOAD_STEP_BYTES: usize = 256 << 10;

/// What is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SliceRequest {
    /// The first offset wanted.
    pub from: Offset,
    /// The end, exclusive: the high watermark, the last stable offset or the log end.
    pub up_to: Offset,
    /// Most bytes wanted.
    pub max_bytes: usize,
    /// Whether the first batch is returned even if it is larger than `max_bytes`.
    pub first_whole: bool,
    /// Whether the disk may be waited for.
    pub may_wait: bool,
}

/// What was found.
#[derive(Debug, Clone)]
pub enum Sliced {
    /// Batches.
    Slice(LogSlice),
    /// No batch yet, or none that is small enough.
    Nothing,
    /// It is not in the page cache: to be asked again by someone who may wait.
    NotCached,
}

/// Whole record batches where they lie.
#[derive(Debug, Clone)]
pub struct LogSlice {
    segment: Arc<Segment>,
    position: u64,
    len: usize,
    next_offset: Offset,
    ends_segment: bool,
}

impl LogSlice {
    /// The file.
    #[must_use]
    pub fn file(&self) -> &Arc<File> {
        &self.segment.file
    }

    /// Where in the file it begins.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Its length in bytes, at least 1.
    #[must_use]
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Where to read on.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        self.next_offset
    }

    /// Its bytes.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn read(&self) -> Result<Bytes> {
        let mut buffer = Buffer::take(self.len);
        self.read_into(buffer.as_mut())?;
        Ok(buffer.freeze())
    }

    /// Fills `buffer`, at most as long as the slice, with its first bytes.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn read_into(&self, buffer: &mut [u8]) -> Result<()> {
        files::read_at(&self.segment.file, &self.segment.path, buffer, self.position)
    }

    /// Whether a part of it is in the page cache, as far as samples tell. What it takes to tell does not wait.
    #[must_use]
    pub fn is_cached(&self, part: Range<usize>) -> bool {
        let end = part.end.min(self.len);
        is_cached(&self.segment.file, self.position + part.start as u64, self.position + end as u64)
    }

    /// Brings a part of it into the page cache. Waits for the disk.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn load(&self, part: Range<usize>) -> Result<()> {
        let (mut at, end) = (part.start, part.end.min(self.len));
        let mut buffer = Buffer::take(LOAD_STEP_BYTES.min(end.saturating_sub(at)));
        while at < end {
            let want = LOAD_STEP_BYTES.min(end - at);
            let bytes = buffer.as_mut().get_mut(..want).unwrap_or_default();
            files::read_at(&self.segment.file, &self.segment.path, bytes, self.position + at as u64)?;
            at += want;
        }
        Ok(())
    }

    /// Whether it ends where it does because its segment does, though there may be more in the next one.
    #[must_use]
    pub fn ends_segment(&self) -> bool {
        self.ends_segment
    }
}

impl PartitionLog {
    /// Finds whole batches from the one that holds `from`, as [`PartitionLog::read`] does, without reading them.
    ///
    /// # Errors
    /// As [`PartitionLog::read`].
    pub fn slice(&self, request: SliceRequest) -> Result<Sliced> {
        match self.try_slice(request) {
            // Damage is set aside by someone who may wait.
            Err(StorageError::Corrupt { .. }) if !request.may_wait => Ok(Sliced::NotCached),
            Err(error) if self.met_damage(&error) => self.try_slice(request),
            result => result,
        }
    }

    fn try_slice(&self, request: SliceRequest) -> Result<Sliced> {
        let (log_start, log_end) = (self.log_start(), self.log_end());
        let SliceRequest { from, .. } = request;
        if from < log_start || from > log_end {
            return Err(StorageError::OffsetOutOfRange { requested: from, log_start, log_end });
        }
        let request = SliceRequest { up_to: request.up_to.min(log_end), ..request };
        if from < request.up_to {
            let around = self.segments_around(from);
            if let Some([before, next]) = &around
                && (before.next_offset()..next.base).contains(&from)
            {
                // What is kept of the lost records is looked for in the folder.
                if !request.may_wait {
                    return Ok(Sliced::NotCached);
                }
                if let Some(damage) = lost_at(&self.dir, &[before.clone(), next.clone()], 0, from) {
                    return Err(damage.error());
                }
            }
        }
        let mut after = None;
        while from < request.up_to
            && let Some(segment) = self.segment_for(from, after)
        {
            match self.slice_segment(&segment, request)? {
                // Everything up to its end lies before `from` (compaction leaves such gaps).
                Sliced::Nothing if segment.next_offset() <= from => after = Some(segment.base),
                found => return Ok(found),
            }
        }
        Ok(Sliced::Nothing)
    }

    /// The segment that may hold `from`, and the one behind it; `None` if that is the last.
    fn segments_around(&self, from: Offset) -> Option<[Arc<Segment>; 2]> {
        let segments = self.segments.read();
        let first = segments.partition_point(|s| s.base <= from).saturating_sub(1);
        Some([Arc::clone(segments.get(first)?), Arc::clone(segments.get(first + 1)?)])
    }

    /// The segment that may hold `from`, or the one that follows the segment at `after`. It is not locked: what is read
    /// lies below the high watermark, which truncation does not touch while there are readers.
    fn segment_for(&self, from: Offset, after: Option<Offset>) -> Option<Arc<Segment>> {
        let segments = self.segments.read();
        let index = match after {
            Some(base) => segments.partition_point(|s| s.base <= base),
            None => segments.partition_point(|s| s.base <= from).saturating_sub(1),
        };
        segments.get(index).cloned()
    }

    fn slice_segment(&self, segment: &Arc<Segment>, request: SliceRequest) -> Result<Sliced> {
        // The length first: what is published after it counts as beyond the end.
        let (len, known) = (segment.len(), segment.next_offset());
        if !request.may_wait && !self.is_way_cached(segment, request, len)? {
            return Ok(Sliced::NotCached);
        }
        let (end, end_offset) = match request.up_to >= known {
            true => (len, known),
            false => self.end_of(segment, request.up_to, len)?,
        };
        let Some((header, position)) = self.find(segment, request.from, end)? else { return Ok(Sliced::Nothing) };
        let first_end = position + header.total_len() as u64;
        let limit = position.saturating_add(request.max_bytes as u64);
        if header.next_offset() > request.up_to || (first_end > limit && !request.first_whole) {
            return Ok(Sliced::Nothing);
        }
        let limit = limit.max(first_end);
        let (end, next_offset) = match limit >= end {
            true => (end, end_offset),
            false => self.cut_at(segment, &header, position, limit)?,
        };
        segment.remember(next_offset, end);
        let bytes = usize::try_from(end - position).unwrap_or(usize::MAX);
        let ends_segment = end == len;
        Ok(Sliced::Slice(LogSlice { segment: Arc::clone(segment), position, len: bytes, next_offset, ends_segment }))
    }

    /// Where in the segment the batches end that lie below `up_to`, and the offset that follows them.
    fn end_of(&self, segment: &Segment, up_to: Offset, len: u64) -> Result<(u64, Offset)> {
        Ok(match self.find(segment, up_to, len)? {
            Some((header, position)) => {
                segment.remember(up_to.min(header.base_offset), position);
                (position, up_to.min(header.base_offset))
            }
            None => (len, up_to),
        })
    }

    /// The last place where a batch begins at or below `limit`, after the one at `position`, and its offset.
    fn cut_at(&self, segment: &Segment, first: &BatchHeader, position: u64, limit: u64) -> Result<(u64, Offset)> {
        let mut cut = (position + first.total_len() as u64, first.next_offset());
        let entry = segment.indexes.lock().offsets.last_where(|e| u64::from(e.position) <= limit)?;
        if let Some(entry) = entry.filter(|e| u64::from(e.position) > cut.0) {
            let at = u64::from(entry.position);
            let last_offset = segment.base.plus(i64::from(entry.relative_offset));
            // An index that does not match is left to a search for an offset, which rebuilds it.
            if let Step::Batch { header, .. } =
                Scan::new(&segment.file, &segment.path, at, segment.len()).one_header()?
                && header.last_offset() == last_offset
            {
                return Ok((at, header.base_offset));
            }
        }
        // The index has no entry between the batches that fit, so they are few.
        let mut scan = segment.scan(cut.0);
        while let Step::Batch { header, position } = scan.next_header()? {
            let end = position + header.total_len() as u64;
            if end > limit {
                break;
            }
            cut = (end, header.next_offset());
        }
        Ok(cut)
    }

    /// Whether finding and reading what is wanted needs no disk, as far as samples tell.
    fn is_way_cached(&self, segment: &Segment, request: SliceRequest, len: u64) -> Result<bool> {
        // Held for long only by whoever closes the segment and writes them out.
        let Some(indexes) = segment.indexes.try_lock_for(INDEXES_PATIENCE) else { return Ok(false) };
        let from = match segment.hint(request.from) {
            Some(position) => position,
            None => indexes.floor(request.from)?.position,
        };
        drop(indexes);
        let end = from.saturating_add(request.max_bytes as u64).min(len);
        Ok(is_cached(&segment.file, from, end))
    }
}

/// Whether `start..end` is in the page cache, as far as samples tell. A file system that cannot say is not waited for.
fn is_cached(file: &File, start: u64, end: u64) -> bool {
    let mut byte = [0];
    let mut probe = |position: u64| {
        let read = rustix::io::preadv2(file, &mut [IoSliceMut::new(&mut byte)], position, ReadWriteFlags::NOWAIT);
        read != Err(Errno::AGAIN)
    };
    let mut position = start;
    while position < end {
        if !probe(position) {
            return false;
        }
        position += PROBE_STEP_BYTES;
    }
    start >= end || probe(end - 1)
}
