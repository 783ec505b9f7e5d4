//! Making appends durable, and the checkpoint that bounds what recovery must read.
//!
//! A checkpoint writes, each durable before the next: data, indexes, leader epochs, producer snapshot, recovery point. It
//! takes several syncs of the disk, during which the data is synced and acknowledged as ever.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use logmill_protocol::Offset;

use crate::checkpoint::AbortedCounts;
use crate::error::Result;
use crate::log::{CheckpointState, PartitionLog, load, store};
use crate::segment::Segment;
use crate::{checkpoint, files, names, snapshot};

/// The recovery point also moves after so many appended bytes. Damage below it is never taken for a torn tail.
const CHECKPOINT_INTERVAL_BYTES: u64 = 64 << 20;

impl PartitionLog {
    /// Makes every append that has returned durable, and moves the recovery point if that is due. Cheap if there is
    /// nothing to do. Returns the offset up to which the log is durable.
    ///
    /// # Errors
    /// If the disk refuses. What it holds is unknown then, and a second attempt may succeed without having written the
    /// data: so the log stops, and every later call fails with `Failed`.
    pub fn sync(&self) -> Result<Offset> {
        let durable = self.sync_only()?;
        self.checkpoint_if_due();
        Ok(durable)
    }

    /// As [`PartitionLog::sync`], without a checkpoint.
    pub(crate) fn sync_only(&self) -> Result<Offset> {
        self.check_usable()?;
        self.sync_data()
    }

    fn sync_data(&self) -> Result<Offset> {
        let _syncing = self.syncing.lock();
        // It may have failed while this thread waited.
        self.check_sound()?;
        let (durable, target) = (self.durable(), self.log_end());
        if target <= durable {
            return Ok(durable);
        }
        let dirty: Vec<Arc<Segment>> =
            self.segments.read().iter().rev().take_while(|s| s.next_offset() > durable).cloned().collect();
        fail::fail_point!("storage::before_sync");
        let sync_all = || {
            fail::fail_point!("storage::sync", |_| {
                Err(crate::StorageError::io("sync", &self.dir, std::io::Error::other("injected")))
            });
            dirty.iter().rev().try_for_each(|segment| files::sync_data(&segment.file, &segment.path))?;
            match self.dir_dirty.swap(false, Ordering::AcqRel) {
                true => files::sync_dir(&self.dir).inspect_err(|_| self.dir_dirty.store(true, Ordering::Release)),
                false => Ok(()),
            }
        };
        // The folder could not be opened: nothing is unknown, and the next sync tries again.
        sync_all().map_err(|error| if error.is_out_of_files() { error } else { self.stop(error) })?;
        fail::fail_point!("storage::after_sync");
        store(&self.marks.durable, target);
        Ok(target)
    }

    /// Whether so much was appended that the recovery point should be moved.
    pub(crate) fn is_checkpoint_due(&self) -> bool {
        self.bytes_since_checkpoint.load(Ordering::Relaxed) >= CHECKPOINT_INTERVAL_BYTES
    }

    /// Moves the recovery point if that is due, and neither another checkpoint nor a truncation or deletion is under way.
    pub(crate) fn checkpoint_if_due(&self) {
        let Some(mut state) = self.checkpoint.try_lock() else { return };
        if !self.is_checkpoint_due() || self.check_usable().is_err() {
            return;
        }
        // The data is durable; a checkpoint that has no room only makes recovery read more.
        if let Err(error) = self.checkpoint(&mut state) {
            tracing::warn!(log = %self.dir.display(), %error, "checkpoint failed, trying again later");
            self.bytes_since_checkpoint.store(0, Ordering::Relaxed);
        }
    }

    /// Moves the recovery point up to what is durable, and writes what changed beside it.
    pub(crate) fn checkpoint(&self, state: &mut CheckpointState) -> Result<()> {
        let durable = load(&self.marks.durable);
        let appended = self.bytes_since_checkpoint.load(Ordering::Relaxed);
        let (producers, epochs, producers_at) = {
            let writer = self.writer.lock();
            (writer.producers.sorted(), writer.epochs.clone(), self.log_end())
        };
        let segments = self.segments.read().clone();
        if let Some((active, closed)) = segments.split_last() {
            closed.iter().try_for_each(|s| s.flush_indexes(true))?;
            active.flush_indexes(false)?;
        }
        fail::fail_point!("storage::after_index_flush");
        if state.epochs != epochs {
            checkpoint::write_epochs(&self.dir.join(names::LEADER_EPOCHS), epochs.entries())?;
            state.epochs = epochs;
        }
        let aborted = count_aborted(&segments);
        if state.aborted != aborted {
            checkpoint::write_aborted(&self.dir.join(names::ABORTED), &aborted)?;
            state.aborted = aborted;
        }
        if state.snapshot_at != Some(producers_at) {
            snapshot::write(&self.dir, producers_at, &producers)?;
            state.snapshot_at = Some(producers_at);
        }
        fail::fail_point!("storage::before_recovery_point");
        if state.recovery_point != durable {
            checkpoint::write_offset(&self.dir, names::RECOVERY_POINT, durable)?;
            state.recovery_point = durable;
        }
        self.bytes_since_checkpoint.fetch_sub(appended, Ordering::Relaxed);
        Ok(())
    }

    /// Syncs, checkpoints and closes the log, so that the next open has nothing to recover. Appends and syncs fail
    /// from then on; reads go on.
    ///
    /// # Errors
    /// If the disk refuses. The log is closed all the same, and recovered when it is opened.
    pub fn close(&self) -> Result<()> {
        let mut state = self.checkpoint.lock();
        {
            let _no_append = self.writer.lock();
            self.check_usable()?;
            self.closed.store(true, Ordering::Release);
        }
        self.sync_data()?;
        self.active()?.seal();
        self.checkpoint(&mut state)
    }
}

/// How many aborted transactions each segment's index has on disk.
fn count_aborted(segments: &[Arc<Segment>]) -> AbortedCounts {
    let counts = segments.iter().map(|s| (s.base, s.indexes.lock().txns.written()));
    counts.filter(|(_, count)| *count > 0).collect()
}
