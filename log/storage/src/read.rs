//! Reading whole batches, as they stand in the log.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use logmill_protocol::{BatchHeader, Offset};

use crate::buffers::Buffer;
use crate::damage::lost_at;
use crate::error::{Result, StorageError};
use crate::files;
use crate::log::PartitionLog;
use crate::scan::{Scan, Step};
use crate::segment::{Floor, Segment};
use crate::txn_index::AbortedTxn;

/// Whole record batches as they stand in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadBatches {
    /// The batches, one after another. The first one may begin before the offset asked for.
    pub bytes: Bytes,
    /// Where to read on: one past the last offset of the last batch, or the offset asked for if there is none.
    pub next_offset: Offset,
}

impl PartitionLog {
    /// Reads whole batches from the one that holds `from`, as many as fit into `max_bytes` (but at least one) and end
    /// at or below `up_to`. Pass the high watermark, the last stable offset or the log end as `up_to`. A read ends with
    /// its segment, so it may return less than there is; it is empty only if `from` has reached `up_to`.
    ///
    /// # Errors
    /// `OffsetOutOfRange` if `from` is below the log start or above the log end; `Lost` for offsets whose records were
    /// damaged, `Corrupt` if what stands there is not a batch and could not be set aside.
    pub fn read(&self, from: Offset, max_bytes: usize, up_to: Offset) -> Result<ReadBatches> {
        match self.try_read(from, max_bytes, up_to) {
            Err(error) if self.met_damage(&error) => self.try_read(from, max_bytes, up_to),
            result => result,
        }
    }

    fn try_read(&self, from: Offset, max_bytes: usize, up_to: Offset) -> Result<ReadBatches> {
        // Held while reading: truncation waits, so a read never sees a file change below it.
        let segments = self.segments.read();
        let (log_start, log_end) = (self.log_start(), self.log_end());
        if from < log_start || from > log_end {
            return Err(StorageError::OffsetOutOfRange { requested: from, log_start, log_end });
        }
        let up_to = up_to.min(log_end);
        let first = segments.partition_point(|s| s.base <= from).saturating_sub(1);
        if from < up_to {
            if let Some(damage) = lost_at(&self.dir, &segments, first, from) {
                return Err(damage.error());
            }
            for segment in segments.iter().skip(first) {
                match self.read_segment(segment, from, max_bytes, up_to)? {
                    Some(found) => return Ok(found),
                    None if segment.next_offset() <= from => {}
                    None => break,
                }
            }
        }
        Ok(ReadBatches { bytes: Bytes::new(), next_offset: from })
    }

    fn read_segment(
        &self,
        segment: &Segment,
        from: Offset,
        max_bytes: usize,
        up_to: Offset,
    ) -> Result<Option<ReadBatches>> {
        let len = segment.len();
        let Some((header, position)) = self.find(segment, from, len)? else { return Ok(None) };
        if header.next_offset() > up_to {
            return Ok(None);
        }
        let available = usize::try_from(len - position).unwrap_or(usize::MAX);
        let want = max_bytes.max(header.total_len()).min(available);
        let mut buffer = Buffer::take(want);
        files::read_at(&segment.file, &segment.path, buffer.as_mut(), position)?;
        let (end, next_offset) = whole_batches(buffer.as_ref(), up_to)
            .map_err(|(at, reason)| segment.corrupt(position + at as u64, reason))?;
        segment.remember(next_offset, position + end as u64);
        Ok(Some(ReadBatches { bytes: buffer.freeze().slice(..end), next_offset }))
    }

    /// The batch that holds `target`, or the first one after it, within the first `len` bytes of the segment.
    pub(crate) fn find(&self, segment: &Segment, target: Offset, len: u64) -> Result<Option<(BatchHeader, u64)>> {
        if let Some(position) = segment.hint(target)
            && let Step::Batch { header, position } = self.header_at(segment, position, len)?
            && header.base_offset == target
        {
            return Ok(Some((header, position)));
        }
        let floor = segment.indexes.lock().floor(target)?;
        match self.find_from(segment, floor, target, len)? {
            Found::Batch(header, position) => Ok(Some((header, position))),
            Found::Nothing => Ok(None),
            Found::Bad(position, reason) if floor.last_offset.is_none() || segment.examined.load(Ordering::Acquire) => {
                Err(segment.corrupt(position, reason))
            }
            Found::Bad(..) => {
                tracing::warn!(segment = %segment.path.display(), "index does not match its segment, rebuilding it");
                let walked = segment.repair_indexes(self.config().index_interval_bytes)?;
                if let Some(reason) = walked.bad {
                    return Err(segment.corrupt(walked.end, reason));
                }
                let floor = segment.indexes.lock().floor(target)?;
                match self.find_from(segment, floor, target, len)? {
                    Found::Batch(header, position) => Ok(Some((header, position))),
                    Found::Nothing => Ok(None),
                    Found::Bad(position, reason) => Err(segment.corrupt(position, reason)),
                }
            }
        }
    }

    fn header_at(&self, segment: &Segment, position: u64, len: u64) -> Result<Step> {
        Scan::new(&segment.file, &segment.path, position, len).one_header()
    }

    fn find_from(&self, segment: &Segment, floor: Floor, target: Offset, len: u64) -> Result<Found> {
        let mut scan = Scan::new(&segment.file, &segment.path, floor.position, len);
        let mut expected = floor.last_offset;
        // Nothing protects base offsets but that each follows the last one. Compaction leaves gaps, in a segment that was found
        // to be sound in spite of them.
        let may_have_gaps = segment.examined.load(Ordering::Acquire);
        let mut next = expected.is_none().then_some(segment.base);
        loop {
            match scan.next_header()? {
                Step::Batch { header, position } => {
                    if expected.take().is_some_and(|last| last != header.last_offset()) {
                        return Ok(Found::Bad(position, "the index names another offset".to_owned()));
                    }
                    if let Some(next) = next.filter(|next| *next != header.base_offset)
                        && (!may_have_gaps || header.base_offset < next)
                    {
                        let reason = format!("offset {} does not follow {next}", header.base_offset);
                        return Ok(Found::Bad(position, reason));
                    }
                    if header.last_offset() >= target {
                        return Ok(Found::Batch(header, position));
                    }
                    next = Some(header.next_offset());
                }
                Step::End => return Ok(Found::Nothing),
                Step::Bad { position, reason } => return Ok(Found::Bad(position, reason)),
            }
        }
    }

    /// The aborted transactions that have records in `from..to`: what a `read_committed` reader of that range skips.
    ///
    /// # Errors
    /// If a transaction index cannot be read.
    pub fn aborted_transactions(&self, from: Offset, to: Offset) -> Result<Vec<AbortedTxn>> {
        let segments: Vec<Arc<Segment>> = {
            let segments = self.segments.read();
            let first = segments.partition_point(|s| s.base <= from).saturating_sub(1);
            segments.iter().skip(first).cloned().collect()
        };
        let mut aborted = Vec::new();
        for segment in segments {
            let indexes = segment.indexes.lock();
            for entry in indexes.txns.entries() {
                if entry.last_offset >= from && entry.first_offset < to {
                    aborted.push(*entry);
                }
                // Everything below it was stable by then: later aborts begin at or above `to`.
                if entry.last_stable_offset >= to {
                    return Ok(aborted);
                }
            }
        }
        Ok(aborted)
    }

    /// Reads every batch and checks its CRC and its offsets. Returns how many bytes were sound.
    ///
    /// # Errors
    /// `Corrupt` with file and position of the first damage.
    pub fn verify(&self) -> Result<u64> {
        let segments = self.segments.read().clone();
        let mut sound = 0;
        for segment in &segments {
            let mut scan = segment.scan(0);
            let mut next = segment.base;
            loop {
                match scan.next_verified()? {
                    Step::Batch { header, position } if header.base_offset < next => {
                        let reason = format!("offset {} does not follow {next}", header.base_offset);
                        return Err(segment.corrupt(position, reason));
                    }
                    Step::Batch { header, .. } => {
                        next = header.next_offset();
                        sound += header.total_len() as u64;
                    }
                    Step::End => break,
                    Step::Bad { position, reason } => return Err(segment.corrupt(position, reason)),
                }
            }
        }
        Ok(sound)
    }
}

enum Found {
    Batch(BatchHeader, u64),
    Nothing,
    Bad(u64, String),
}

/// The end of the last batch in `bytes` that is whole and ends at or below `up_to`, and the offset that follows it.
/// There is at least one. On error: where in `bytes`, and why.
fn whole_batches(bytes: &[u8], up_to: Offset) -> Result<(usize, Offset), (usize, String)> {
    let (mut end, mut next_offset) = (0, up_to);
    while let Some(rest) = bytes.get(end..).filter(|rest| !rest.is_empty()) {
        let header = match BatchHeader::peek(rest) {
            Ok(header) => header,
            Err(error) if error.is_truncated() => break,
            // What comes before it is sound.
            Err(_) if end > 0 => break,
            Err(error) => return Err((end, error.to_string())),
        };
        let follows = end == 0 || header.base_offset >= next_offset;
        if header.total_len() > rest.len() || header.next_offset() > up_to || !follows {
            break;
        }
        end += header.total_len();
        next_offset = header.next_offset();
    }
    Ok((end, next_offset))
}
