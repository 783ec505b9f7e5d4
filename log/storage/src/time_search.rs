//! Finding records by their timestamps: the first one at or after a time, and the newest one.

use logmill_protocol::{BatchError, BatchLimits, BatchView, Offset, Timestamp};

use crate::error::Result;
use crate::log::PartitionLog;
use crate::scan::Step;
use crate::segment::Segment;

impl PartitionLog {
    /// The offset and timestamp of the first record, in offset order, whose timestamp is `at` or later; `None` if all
    /// are earlier.
    ///
    /// # Errors
    /// If the log cannot be read, or the records of a batch that may hold it cannot be decoded.
    pub fn offset_for_time(&self, at: Timestamp) -> Result<Option<(Offset, Timestamp)>> {
        match self.try_offset_for_time(at) {
            Err(error) if self.met_damage(&error) => self.try_offset_for_time(at),
            result => result,
        }
    }

    fn try_offset_for_time(&self, at: Timestamp) -> Result<Option<(Offset, Timestamp)>> {
        // Not locked: a search may wait for the disk for long, and whoever rolls the log would wait with everyone else.
        let segments = self.segments.read().clone();
        let log_end = self.log_end();
        for segment in segments.iter().filter(|s| s.max_timestamp() >= at) {
            if let Some(found) = self.first_record_at(segment, at)? {
                return Ok(Some(found).filter(|(offset, _)| *offset < log_end));
            }
        }
        Ok(None)
    }

    fn first_record_at(&self, segment: &Segment, at: Timestamp) -> Result<Option<(Offset, Timestamp)>> {
        let log_start = self.log_start();
        let mut scan = segment.scan(self.time_floor(segment, at)?);
        loop {
            match scan.next_header()? {
                Step::Batch { header, position } => {
                    if header.max_timestamp < at || header.last_offset() < log_start {
                        continue;
                    }
                    let bytes = scan.batch_bytes(&header, position)?;
                    let found = first_record_in(bytes, at, log_start);
                    if let Some(found) = found.map_err(|e| segment.corrupt(position, e.to_string()))? {
                        return Ok(Some(found));
                    }
                }
                Step::End => return Ok(None),
                Step::Bad { position, reason } => return Err(segment.corrupt(position, reason)),
            }
        }
    }

    /// A position in the segment up to which no record is as late as `at`. What the index says is held against the batch that it
    /// names: were it wrong, records would be missed.
    fn time_floor(&self, segment: &Segment, at: Timestamp) -> Result<u64> {
        for is_rebuilt in [false, true] {
            let entry = segment.indexes.lock().times.last_where(|e| e.timestamp < at.0)?;
            let Some(entry) = entry else { break };
            let offset = segment.base.plus(i64::from(entry.relative_offset));
            match self.find(segment, offset, segment.len())? {
                Some((header, position))
                    if header.last_offset() == offset && header.max_timestamp.0 == entry.timestamp =>
                {
                    return Ok(position);
                }
                _ if is_rebuilt => break,
                _ => {
                    tracing::warn!(segment = %segment.path.display(), "time index does not match its segment, rebuilding it");
                    segment.repair_indexes(self.config().index_interval_bytes)?;
                }
            }
        }
        Ok(0)
    }

    /// The offset and timestamp of the record with the largest timestamp, the first of them if there are several
    /// (KIP-734); `None` if the log holds no record.
    ///
    /// # Errors
    /// As [`PartitionLog::offset_for_time`].
    pub fn offset_of_max_timestamp(&self) -> Result<Option<(Offset, Timestamp)>> {
        let segments = self.segments.read().clone();
        let log_start = self.log_start();
        let mut newest = None;
        for segment in &segments {
            // The first segment may begin with records that are deleted already.
            newest = newest.max(match segment.base < log_start {
                true => self.max_timestamp_from(segment, log_start)?,
                false => Some(segment.max_timestamp()).filter(|max| max.0 >= 0),
            });
        }
        match newest {
            Some(newest) => self.offset_for_time(newest),
            None => Ok(None),
        }
    }

    /// The largest timestamp of the segment's records from `offset` on.
    fn max_timestamp_from(&self, segment: &Segment, offset: Offset) -> Result<Option<Timestamp>> {
        let floor = segment.indexes.lock().floor(offset)?;
        let mut scan = segment.scan(floor.position);
        let mut newest = None;
        loop {
            match scan.next_header()? {
                Step::Batch { header, .. } if header.last_offset() < offset => {}
                Step::Batch { header, position } if header.base_offset < offset => {
                    let bytes = scan.batch_bytes(&header, position)?;
                    let found = max_timestamp_in(bytes, offset);
                    newest = newest.max(found.map_err(|e| segment.corrupt(position, e.to_string()))?);
                }
                Step::Batch { header, .. } => {
                    newest = newest.max(Some(header.max_timestamp).filter(|max| max.0 >= 0));
                }
                Step::End => return Ok(newest),
                Step::Bad { position, reason } => return Err(segment.corrupt(position, reason)),
            }
        }
    }
}

/// The first record of a batch whose timestamp is `at` or later.
fn first_record_in(bytes: &[u8], at: Timestamp, log_start: Offset) -> Result<Option<(Offset, Timestamp)>, BatchError> {
    let (batch, _) = BatchView::parse(bytes)?;
    let mut scratch = Vec::new();
    for record in batch.records(&mut scratch, &BatchLimits::STORED)? {
        let record = record?;
        if record.timestamp >= at && record.offset >= log_start {
            return Ok(Some((record.offset, record.timestamp)));
        }
    }
    Ok(None)
}

/// The largest timestamp of a batch's records from `offset` on.
fn max_timestamp_in(bytes: &[u8], offset: Offset) -> Result<Option<Timestamp>, BatchError> {
    let (batch, _) = BatchView::parse(bytes)?;
    let mut scratch = Vec::new();
    let mut newest = None;
    for record in batch.records(&mut scratch, &BatchLimits::STORED)? {
        let record = record?;
        if record.offset >= offset && record.timestamp.0 >= 0 {
            newest = newest.max(Some(record.timestamp));
        }
    }
    Ok(newest)
}
