//! Deleting the log's beginning: by age, by size, or up to an offset. Only whole segments below the high watermark go.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use logmill_protocol::{Offset, Timestamp};

use crate::append::{is_aged, millis};
use crate::config::LogConfig;
use crate::error::{Result, StorageError};
use crate::log::{PartitionLog, store};
use crate::segment::Segment;
use crate::{checkpoint, files, names};

/// Why a segment was deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeletionReason {
    /// Its newest record is older than `retention`.
    Age,
    /// The rest of the log holds `retention_bytes` without it.
    Size,
    /// It lies below the log start offset.
    BelowLogStart,
}

/// A segment that was deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeletedSegment {
    /// Its first offset.
    pub base_offset: Offset,
    /// One past its last offset.
    pub next_offset: Offset,
    /// Its record batches in bytes.
    pub size_bytes: u64,
    /// Why it went.
    pub reason: DeletionReason,
}

impl PartitionLog {
    /// Deletes what retention no longer keeps, closes an active segment whose age is up, and forgets idle producers.
    /// Call it from time to time.
    ///
    /// A segment is deleted by age once its newest record is: the active one as well, replaced by an empty one. By size
    /// only closed segments are deleted. Nothing at or above the high watermark is.
    ///
    /// # Errors
    /// If a file cannot be created or removed; what was deleted until then stays deleted.
    pub fn apply_retention(&self, now: Timestamp) -> Result<Vec<DeletedSegment>> {
        let config = self.config();
        let _state = self.checkpoint.lock();
        self.check_usable()?;
        {
            let mut writer = self.writer.lock();
            let active = self.active()?;
            let removable = active.next_offset() <= self.high_watermark() && is_expired(&active, now, &config);
            if is_aged(&writer, now, &config) || removable {
                self.roll_if_possible(&mut writer)?;
            }
        }
        let deleted = self.delete(&self.doomed(now, &config))?;
        self.writer.lock().producers.expire(now, millis(config.producer_id_expiry));
        Ok(deleted)
    }

    /// Moves the log start to `offset` and deletes the segments that lie below it. Returns the log start.
    ///
    /// # Errors
    /// `OffsetOutOfRange` above the high watermark.
    pub fn delete_records_before(&self, offset: Offset) -> Result<Offset> {
        let _state = self.checkpoint.lock();
        let (log_start, high_watermark) = (self.log_start(), self.high_watermark());
        if offset > high_watermark {
            return Err(StorageError::OffsetOutOfRange { requested: offset, log_start, log_end: high_watermark });
        }
        if offset <= log_start {
            return Ok(log_start);
        }
        if offset > self.durable() {
            // Recovery must never find a log that ends before it starts.
            self.sync_only()?;
        }
        self.check_usable()?;
        checkpoint::write_offset(&self.dir, names::LOG_START, offset)?;
        fail::fail_point!("storage::after_log_start_checkpoint");
        self.advance_log_start(offset);
        let doomed: Vec<_> = {
            let segments = self.segments.read();
            let below = segments.windows(2).take_while(|pair| pair[1].base <= offset);
            below.map(|pair| (Arc::clone(&pair[0]), DeletionReason::BelowLogStart)).collect()
        };
        self.delete(&doomed)?;
        Ok(offset)
    }

    /// The oldest segments that retention does not keep.
    fn doomed(&self, now: Timestamp, config: &LogConfig) -> Vec<(Arc<Segment>, DeletionReason)> {
        let segments = self.segments.read();
        let high_watermark = self.high_watermark();
        let mut size: u64 = segments.iter().map(|s| s.len()).sum();
        let mut doomed = Vec::new();
        let Some((_active, closed)) = segments.split_last() else { return doomed };
        for segment in closed.iter().take_while(|s| s.next_offset() <= high_watermark) {
            let rest = size - segment.len();
            let reason = if is_expired(segment, now, config) {
                DeletionReason::Age
            } else if config.retention_bytes.is_some_and(|keep| rest >= keep) {
                DeletionReason::Size
            } else {
                break;
            };
            size = rest;
            doomed.push((Arc::clone(segment), reason));
        }
        doomed
    }

    /// Deletes the first segments, oldest first, so that a crash midway leaves a contiguous log.
    fn delete(&self, doomed: &[(Arc<Segment>, DeletionReason)]) -> Result<Vec<DeletedSegment>> {
        let Some((last, _)) = doomed.last() else { return Ok(Vec::new()) };
        // The folder must not forget the segments that stay and remember that these went.
        {
            // Whoever syncs a segment meanwhile must not take the folder for synced already.
            let _syncing = self.syncing.lock();
            if self.dir_dirty.swap(false, Ordering::AcqRel) {
                files::sync_dir(&self.dir).inspect_err(|_| self.dir_dirty.store(true, Ordering::Release))?;
            }
        }
        if last.next_offset() > self.log_start() {
            // So that a first segment that is missing is told from one that was deleted.
            checkpoint::write_offset(&self.dir, names::LOG_START, last.next_offset())?;
        }
        self.advance_log_start(last.next_offset());
        let mut deleted = Vec::with_capacity(doomed.len());
        for (segment, reason) in doomed {
            fail::fail_point!("storage::before_segment_delete");
            segment.remove()?;
            self.segments.write().retain(|s| s.base != segment.base);
            let (base_offset, next_offset) = (segment.base, segment.next_offset());
            tracing::debug!(segment = %segment.path.display(), ?reason, "segment deleted");
            deleted.push(DeletedSegment { base_offset, next_offset, size_bytes: segment.len(), reason: *reason });
        }
        self.dir_dirty.store(true, Ordering::Release);
        Ok(deleted)
    }

    pub(crate) fn advance_log_start(&self, offset: Offset) {
        let mut writer = self.writer.lock();
        let offset = offset.max(self.log_start());
        store(&self.marks.log_start, offset);
        writer.epochs.truncate_from_start(offset);
        let mut txns = self.txns.lock();
        self.refresh_last_stable(&mut txns);
    }
}

fn is_expired(segment: &Segment, now: Timestamp, config: &LogConfig) -> bool {
    let Some(retention) = config.retention else { return false };
    let newest = segment.max_timestamp();
    // Without any timestamp there is no age.
    newest.0 >= 0 && segment.len() > 0 && now.0.saturating_sub(newest.0) > millis(retention)
}
