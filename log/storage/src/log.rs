//! The partition's log: what it consists of, and its marks. Each operation has its own file.
//!
//! Locks are taken in this order. Only the first two are held while the disk syncs:
//!
//! ```text
//! checkpoint  one checkpoint, truncation or deletion at a time
//!  syncing    one sync of the segments at a time
//!   writer    one append at a time: producers, leader epochs
//!    segments   the list of segments (shared by readers, exclusive to change the list)
//!     indexes   of one segment
//!      txns     open transactions, high watermark, LSO
//! ```

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use logmill_protocol::{LeaderEpoch, Offset, ProducerId, Timestamp};
use parking_lot::{Mutex, RwLock};

use crate::checkpoint::AbortedCounts;
use crate::config::LogConfig;
use crate::error::{Result, StorageError};
use crate::leader_epochs::LeaderEpochs;
use crate::producers::{ProducerState, Producers};
use crate::segment::Segment;
use crate::transactions::{OpenTxn, Transactions};

/// One partition's log on one disk. See the crate's documentation for its promises.
#[derive(Debug)]
pub struct PartitionLog {
    pub(crate) dir: PathBuf,
    pub(crate) config: RwLock<LogConfig>,
    pub(crate) checkpoint: Mutex<CheckpointState>,
    pub(crate) syncing: Mutex<()>,
    pub(crate) writer: Mutex<Writer>,
    /// By base offset, contiguous, never empty; the last one is active.
    pub(crate) segments: RwLock<Vec<Arc<Segment>>>,
    pub(crate) txns: Mutex<Transactions>,
    pub(crate) marks: Marks,
    /// Bytes appended since the recovery point was last written.
    pub(crate) bytes_since_checkpoint: AtomicU64,
    /// A segment was created that the folder may forget on power loss.
    pub(crate) dir_dirty: AtomicBool,
    pub(crate) closed: AtomicBool,
    /// Set once a sync failed: what is on disk is unknown from then on.
    pub(crate) failed: OnceLock<String>,
}

/// State of whoever appends.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) producers: Producers,
    pub(crate) epochs: LeaderEpochs,
    /// When the active segment got its first append, as far as this process knows.
    pub(crate) segment_since: Option<Timestamp>,
}

/// What the files beside the segments hold.
#[derive(Debug)]
pub(crate) struct CheckpointState {
    /// The persisted recovery point.
    pub(crate) recovery_point: Offset,
    /// The persisted leader epochs.
    pub(crate) epochs: LeaderEpochs,
    /// The persisted counts of aborted transactions.
    pub(crate) aborted: AbortedCounts,
    /// Offset of the newest producer snapshot.
    pub(crate) snapshot_at: Option<Offset>,
}

/// The offsets that everyone asks for, readable without a lock.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    pub(crate) log_start: AtomicI64,
    pub(crate) log_end: AtomicI64,
    pub(crate) high_watermark: AtomicI64,
    pub(crate) last_stable: AtomicI64,
    pub(crate) durable: AtomicI64,
}

pub(crate) fn load(mark: &AtomicI64) -> Offset {
    Offset(mark.load(Ordering::Acquire))
}

pub(crate) fn store(mark: &AtomicI64, offset: Offset) {
    mark.store(offset.0, Ordering::Release);
}

impl PartitionLog {
    /// The partition's folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The configuration in force.
    #[must_use]
    pub fn config(&self) -> LogConfig {
        *self.config.read()
    }

    /// Changes the configuration from the next operation on.
    ///
    /// # Errors
    /// If a value is out of its range; then nothing changes.
    pub fn reconfigure(&self, config: LogConfig) -> Result<()> {
        config.validate()?;
        *self.config.write() = config;
        Ok(())
    }

    /// First offset that may be read.
    #[must_use]
    pub fn log_start(&self) -> Offset {
        load(&self.marks.log_start)
    }

    /// Log end offset (LEO): the offset the next record will get.
    #[must_use]
    pub fn log_end(&self) -> Offset {
        load(&self.marks.log_end)
    }

    /// High watermark, exclusive. After opening it is the log start until the broker, who knows the replicas, sets it.
    #[must_use]
    pub fn high_watermark(&self) -> Offset {
        load(&self.marks.high_watermark)
    }

    /// Last stable offset, exclusive: below it, and below the high watermark, every transaction has ended.
    #[must_use]
    pub fn last_stable_offset(&self) -> Offset {
        load(&self.marks.last_stable)
    }

    /// Everything below this offset survives power loss.
    #[must_use]
    pub fn durable(&self) -> Offset {
        load(&self.marks.durable)
    }

    /// Raises the high watermark to `offset`, at most to the log end. A lower value than the present one is ignored:
    /// only truncation lowers it. Returns the high watermark.
    pub fn set_high_watermark(&self, offset: Offset) -> Offset {
        let mut txns = self.txns.lock();
        let raised = offset.min(self.log_end()).max(self.high_watermark());
        store(&self.marks.high_watermark, raised);
        self.refresh_last_stable(&mut txns);
        raised
    }

    /// Recomputes the LSO after the high watermark, the log start or the transactions changed.
    pub(crate) fn refresh_last_stable(&self, txns: &mut Transactions) {
        let high_watermark = self.high_watermark();
        txns.replicated(high_watermark);
        let stable = txns.first_unstable().map_or(high_watermark, |o| o.min(high_watermark));
        store(&self.marks.last_stable, stable.max(self.log_start()));
    }

    /// The first offset of each leader epoch that has records.
    #[must_use]
    pub fn leader_epochs(&self) -> Vec<(LeaderEpoch, Offset)> {
        self.writer.lock().epochs.entries().to_vec()
    }

    /// The largest leader epoch up to `epoch` that has records, and where it ends (KIP-101, OffsetForLeaderEpoch).
    #[must_use]
    pub fn end_offset_for_epoch(&self, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        self.writer.lock().epochs.end_offset(epoch, self.log_end())
    }

    /// The leader epoch that the record at `offset` was written in, if that is known.
    #[must_use]
    pub fn epoch_of(&self, offset: Offset) -> Option<LeaderEpoch> {
        self.writer.lock().epochs.of(offset)
    }

    /// What is known of every producer, by id.
    #[must_use]
    pub fn producer_states(&self) -> Vec<ProducerState> {
        self.writer.lock().producers.sorted()
    }

    /// What is known of one producer.
    #[must_use]
    pub fn producer_state(&self, id: ProducerId) -> Option<ProducerState> {
        self.writer.lock().producers.get(id).copied()
    }

    /// Transactions that have records here and no marker yet, oldest first.
    #[must_use]
    pub fn open_transactions(&self) -> Vec<OpenTxn> {
        self.txns.lock().open()
    }

    /// Bytes of record batches on disk.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.segments.read().iter().map(|s| s.len()).sum()
    }

    /// How many segments the log has.
    #[must_use]
    pub fn segment_count(&self) -> usize {
        self.segments.read().len()
    }

    /// The segment that is appended to.
    pub(crate) fn active(&self) -> Result<Arc<Segment>> {
        let last = self.segments.read().last().cloned();
        last.ok_or_else(|| StorageError::Failed { path: self.dir.clone(), reason: "it has no segment".to_owned() })
    }

    /// Refuses a log that failed.
    pub(crate) fn check_sound(&self) -> Result<()> {
        match self.failed.get() {
            Some(reason) => Err(StorageError::Failed { path: self.dir.clone(), reason: reason.clone() }),
            None => Ok(()),
        }
    }

    /// Refuses a log that failed or was closed.
    pub(crate) fn check_usable(&self) -> Result<()> {
        self.check_sound()?;
        match self.closed.load(Ordering::Acquire) {
            true => Err(StorageError::Closed { path: self.dir.clone() }),
            false => Ok(()),
        }
    }

    /// Stops the log for good because of `error`, which is returned.
    pub(crate) fn stop(&self, error: StorageError) -> StorageError {
        let mut reason = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            reason = format!("{reason}: {cause}");
            source = cause.source();
        }
        tracing::error!(log = %self.dir.display(), reason, "the log stops");
        let _ = self.failed.set(reason);
        error
    }
}
