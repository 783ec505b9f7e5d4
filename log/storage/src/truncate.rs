//! Cutting the log's end off: what a follower does when its leader's history differs.

use std::sync::Arc;

use logmill_protocol::Offset;

use crate::error::{Result, StorageError};
use crate::log::{CheckpointState, PartitionLog, Writer, store};
use crate::replay::Replay;
use crate::scan::Step;
use crate::segment::Segment;
use crate::{checkpoint, files, names, snapshot};

impl PartitionLog {
    /// Removes the batch that holds `offset` and everything after it, also below the high watermark. Returns the new
    /// log end, which is lower than `offset` if that was in the middle of a batch.
    ///
    /// # Errors
    /// `OffsetOutOfRange` below the log start. If the disk refuses midway the log stops.
    pub fn truncate_to(&self, offset: Offset) -> Result<Offset> {
        let mut state = self.checkpoint.lock();
        let _syncing = self.syncing.lock();
        let mut writer = self.writer.lock();
        self.check_usable()?;
        let (log_start, log_end) = (self.log_start(), self.log_end());
        if offset >= log_end {
            return Ok(log_end);
        }
        if offset < log_start {
            return Err(StorageError::OffsetOutOfRange { requested: offset, log_start, log_end });
        }
        self.truncate(&mut state, &mut writer, offset).map_err(|error| self.stop(error))
    }

    fn truncate(&self, state: &mut CheckpointState, writer: &mut Writer, offset: Offset) -> Result<Offset> {
        let mut segments = self.segments.write();
        let kept = segments.partition_point(|s| s.base <= offset).max(1);
        let Some(last) = segments.get(kept - 1).cloned() else { return Ok(self.log_end()) };
        let (new_end, position) = first_batch_at(&last, offset)?;
        // A crash from here on must not find the recovery point, or a snapshot, above what is left.
        if state.recovery_point > new_end {
            checkpoint::write_offset(&self.dir, names::RECOVERY_POINT, new_end)?;
            state.recovery_point = new_end;
        }
        if self.log_start() > new_end {
            // The batch that holds the log start goes: what is left of it had been deleted already.
            checkpoint::write_offset(&self.dir, names::LOG_START, new_end)?;
            store(&self.marks.log_start, new_end);
        }
        snapshot::remove_above(&self.dir, new_end)?;
        state.snapshot_at = state.snapshot_at.filter(|at| *at <= new_end);
        writer.epochs.truncate_from_end(new_end);
        checkpoint::write_epochs(&self.dir.join(names::LEADER_EPOCHS), writer.epochs.entries())?;
        state.epochs = writer.epochs.clone();
        fail::fail_point!("storage::before_truncate");
        segments.drain(kept..).rev().try_for_each(|s| s.remove())?;
        last.cut(position, self.config().index_interval_bytes)?;
        last.flush_indexes(false)?;
        files::sync_data(&last.file, &last.path)?;
        files::sync_dir(&self.dir)?;
        fail::fail_point!("storage::after_truncate");
        self.rewind(writer, &segments, new_end)?;
        Ok(new_end)
    }

    /// Sets everything in memory to a log that ends at `new_end`.
    fn rewind(&self, writer: &mut Writer, segments: &[Arc<Segment>], new_end: Offset) -> Result<()> {
        let mut replay = Replay::prepare(&self.dir, new_end, Some(writer.epochs.clone()), false)?;
        let mut txns = self.txns.lock();
        *txns = replay.run(segments)?;
        writer.producers = replay.producers;
        writer.segment_since = None;
        store(&self.marks.log_end, new_end);
        store(&self.marks.durable, self.durable().min(new_end));
        store(&self.marks.high_watermark, self.high_watermark().min(new_end));
        self.refresh_last_stable(&mut txns);
        Ok(())
    }
}

/// Base offset and position of the first batch in the segment that ends at or after `offset`.
fn first_batch_at(segment: &Segment, offset: Offset) -> Result<(Offset, u64)> {
    let floor = segment.indexes.lock().floor(offset)?;
    let mut scan = segment.scan(floor.position);
    let mut end = segment.base;
    loop {
        match scan.next_header()? {
            Step::Batch { header, position } if header.last_offset() >= offset => {
                return Ok((header.base_offset.min(offset), position));
            }
            Step::Batch { header, .. } => end = header.next_offset(),
            Step::End => return Ok((end, segment.len())),
            Step::Bad { position, reason } => return Err(segment.corrupt(position, reason)),
        }
    }
}
