//! One partition as the broker serves it: its log, and whoever waits for it to grow.
//!
//! There is one replica, so the high watermark follows the log end at once.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use logmill_protocol::{ControlMarker, LeaderEpoch, Offset, ProducerEpoch, ProducerId, Timestamp};
use logmill_storage::{Appended, EndTransaction, Flusher, PartitionLog, Recovery, StorageError};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::data_dir::DataDir;
use crate::error::{BrokerError, Result};
use crate::topic_config::TopicConfig;
use crate::types::{Isolation, OffsetAt, TopicPartition};
use crate::waiters::{Place, Waiter, Waiters};

/// Epoch of the transaction coordinator, which has never moved either.
const COORDINATOR_EPOCH: i32 = 0;
/// A partition that cannot be read is logged at most this often.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// A partition's log and its waiters.
#[derive(Debug)]
pub(crate) struct Partition {
    name: TopicPartition,
    log: Arc<PartitionLog>,
    /// Told when the HW or the LSO moves past what they have, or the partition is gone.
    waiters: Waiters,
    deleted: AtomicBool,
    flusher: Arc<Flusher>,
    /// `flush.messages`.
    flush_messages: AtomicU64,
    /// `flush.ms`.
    flush_ms: AtomicU64,
    /// A sync by the clock is due (`flush.ms`).
    flush_due: Arc<AtomicBool>,
    /// When its damage was last logged.
    told_at: Mutex<Option<Instant>>,
    /// Knows the leader epoch; stays locked while anyone may still write to it.
    dir: Arc<DataDir>,
}

impl Partition {
    /// Opens or makes the log in `path`.
    pub(crate) fn open(
        name: TopicPartition,
        path: &std::path::Path,
        config: &TopicConfig,
        flusher: &Arc<Flusher>,
        dir: Arc<DataDir>,
    ) -> Result<(Self, Recovery)> {
        let log_config = config.log_config(jitter(&name));
        let (log, recovery) = PartitionLog::open(path, log_config).map_err(|e| BrokerError::storage(&name, e))?;
        log.set_high_watermark(log.log_end());
        let this = Self {
            name,
            log: Arc::new(log),
            waiters: Waiters::default(),
            deleted: AtomicBool::new(false),
            flusher: Arc::clone(flusher),
            flush_messages: AtomicU64::new(config.flush_messages),
            flush_ms: AtomicU64::new(config.flush_ms),
            flush_due: Arc::default(),
            told_at: Mutex::default(),
            dir,
        };
        this.dir.epoch().raise(this.latest_epoch());
        Ok((this, recovery))
    }

    pub(crate) fn name(&self) -> &TopicPartition {
        &self.name
    }

    pub(crate) fn log(&self) -> &Arc<PartitionLog> {
        &self.log
    }

    /// The epoch that this node leads the partition in.
    pub(crate) fn leader_epoch(&self) -> LeaderEpoch {
        self.dir.epoch().current()
    }

    /// The latest leader epoch that the log has records of.
    pub(crate) fn latest_epoch(&self) -> LeaderEpoch {
        self.log.leader_epochs().last().map_or(LeaderEpoch::NONE, |(epoch, _)| *epoch)
    }

    /// Appends batches to the page cache and makes them visible. They may be patched.
    pub(crate) fn append(&self, batches: &mut [u8], now: Timestamp) -> Result<Appended> {
        self.check_exists()?;
        let appended = self.stored(self.log.append(batches, self.dir.epoch().for_append()?, now))?;
        self.publish();
        Ok(appended)
    }

    /// Appends the marker that ends a producer's transaction.
    pub(crate) fn append_marker(
        &self,
        producer_id: ProducerId,
        producer_epoch: ProducerEpoch,
        kind: logmill_protocol::ControlKind,
        now: Timestamp,
    ) -> Result<Appended> {
        let marker = ControlMarker { kind, coordinator_epoch: COORDINATOR_EPOCH };
        let end = EndTransaction { producer_id, producer_epoch, marker };
        let appended = self.stored(self.log.append_control(end, self.dir.epoch().for_append()?, now))?;
        self.publish();
        Ok(appended)
    }

    /// Applies the topic's configs from the next operation on.
    pub(crate) fn reconfigure(&self, config: &TopicConfig) -> Result<()> {
        self.stored(self.log.reconfigure(config.log_config(jitter(&self.name))))?;
        self.flush_messages.store(config.flush_messages, Ordering::Relaxed);
        self.flush_ms.store(config.flush_ms, Ordering::Relaxed);
        Ok(())
    }

    /// Whether so many records are not on disk yet that the topic wants them there before more are acknowledged
    /// (`flush.messages`).
    pub(crate) fn must_flush(&self) -> bool {
        let unflushed = self.log.log_end().0 - self.log.durable().0;
        u64::try_from(unflushed).is_ok_and(|records| records >= self.flush_messages.load(Ordering::Relaxed))
    }

    /// Sees to it that what was appended reaches the disk as the topic wants it, whatever the producer waits for.
    fn flush_by_config(&self) {
        if self.must_flush() {
            // One that cannot be queued is asked for again by the next append.
            let _ = self.flusher.request(&self.log, self.log.log_end(), drop);
        }
        let flush_ms = self.flush_ms.load(Ordering::Relaxed);
        if flush_ms == i64::MAX as u64 || self.flush_due.swap(true, Ordering::AcqRel) {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        // Neither is kept open for it: a partition that is closed has nothing to sync.
        let (log, flusher) = (Arc::downgrade(&self.log), Arc::downgrade(&self.flusher));
        let due = Arc::clone(&self.flush_due);
        runtime.spawn(async move {
            tokio::time::sleep(Duration::from_millis(flush_ms)).await;
            due.store(false, Ordering::Release);
            if let (Some(log), Some(flusher)) = (log.upgrade(), flusher.upgrade()) {
                let _ = flusher.request(&log, log.log_end(), drop);
            }
        });
    }

    /// The end that a reader of the isolation sees, exclusive.
    pub(crate) fn visible_end(&self, isolation: Isolation) -> Offset {
        match isolation {
            Isolation::ReadUncommitted => self.log.high_watermark(),
            Isolation::ReadCommitted => self.log.last_stable_offset(),
        }
    }

    /// Where a place is. May read the disk.
    pub(crate) fn offset(&self, at: OffsetAt) -> Result<Offset> {
        self.check_exists()?;
        let end = self.log.high_watermark();
        match at {
            OffsetAt::Earliest => Ok(self.log.log_start()),
            OffsetAt::Latest(isolation) => Ok(self.visible_end(isolation)),
            OffsetAt::Time(time) => {
                let found = self.stored(self.log.offset_for_time(time))?;
                Ok(found.map_or(end, |(offset, _)| offset).min(end))
            }
        }
    }

    /// Waits until a reader of the isolation sees a record at `offset` or later, or something else of interest to it
    /// may have happened: the caller asks again.
    pub(crate) async fn readable(&self, offset: Offset, isolation: Isolation, closed: &AtomicBool) -> Result<()> {
        let waiter = Arc::new(Waiter::default());
        loop {
            let _waits = self.enlist(&waiter, isolation, offset);
            self.check_exists()?;
            if closed.load(Ordering::Acquire) {
                return Err(BrokerError::Closed);
            }
            if self.visible_end(isolation) > offset {
                return Ok(());
            }
            waiter.ready().await;
        }
    }

    /// Puts a waiter on the list until the guard is dropped.
    fn enlist(&self, waiter: &Arc<Waiter>, isolation: Isolation, offset: Offset) -> Enlisted<'_> {
        Enlisted { partition: self, place: self.waiters.add(waiter, 0, isolation, offset) }
    }

    /// Has `waiter` told of its slot when a reader of the isolation sees past `offset`, at once if it does already, or
    /// when the topic is deleted.
    pub(crate) fn watch(&self, waiter: &Arc<Waiter>, slot: u32, isolation: Isolation, offset: Offset) -> Place {
        let place = self.waiters.add(waiter, slot, isolation, offset);
        // Looked at after joining the list: a change in between is not missed.
        if self.visible_end(isolation) > offset || self.deleted.load(Ordering::Acquire) {
            waiter.tell(slot);
        }
        place
    }

    /// Undoes [`Partition::watch`].
    pub(crate) fn unwatch(&self, place: Place) {
        self.waiters.remove(place);
    }

    /// Wakes everyone who waits, to look again.
    pub(crate) fn wake(&self) {
        self.waiters.wake_all();
    }

    /// Says that the topic is gone.
    pub(crate) fn mark_deleted(&self) {
        self.deleted.store(true, Ordering::Release);
        self.wake();
    }

    /// Waits until everything appended so far is on disk; many callers share one sync.
    pub(crate) async fn flush(&self, flusher: &Flusher) -> Result<()> {
        self.requested(self.request_durable(flusher, self.log.log_end())).await
    }

    /// Whether its damage may be logged now, which not every reader that meets it does.
    pub(crate) fn may_tell(&self) -> bool {
        let mut told_at = self.told_at.lock();
        let may = told_at.is_none_or(|at| at.elapsed() >= TELL_EVERY);
        if may {
            *told_at = Some(Instant::now());
        }
        may
    }

    pub(crate) fn stored<T>(&self, result: logmill_storage::Result<T>) -> Result<T> {
        result.map_err(|error| BrokerError::storage(&self.name, error))
    }

    fn publish(&self) {
        self.log.set_high_watermark(self.log.log_end());
        self.waiters.wake(self.log.high_watermark(), self.log.last_stable_offset());
        self.flush_by_config();
    }

    pub(crate) fn check_exists(&self) -> Result<()> {
        match self.deleted.load(Ordering::Acquire) {
            true => Err(BrokerError::UnknownTopic(self.name.topic.clone())),
            false => Ok(()),
        }
    }

    /// Asks for everything below `end` to be on disk; [`Partition::requested`] tells when it is.
    pub(crate) fn request_durable(&self, flusher: &Flusher, end: Offset) -> logmill_storage::Result<FlushRequest> {
        let (done, receive) = oneshot::channel();
        // A receiver that is gone has been cancelled: it does not want to know.
        flusher.request(&self.log, end, move |result| drop(done.send(result.map(drop))))?;
        Ok(receive)
    }

    /// Waits for a flush that was asked for.
    pub(crate) async fn requested(&self, request: logmill_storage::Result<FlushRequest>) -> Result<()> {
        match self.stored(request)?.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) if self.check_exists().is_err() => self.check_exists(),
            Ok(Err(error)) => Err(match &*error {
                StorageError::DiskFull { .. } => BrokerError::DiskFull(error.to_string()),
                StorageError::Closed { .. } => BrokerError::Closed,
                _ => BrokerError::corrupt(format!("partition {} failed", self.name), error),
            }),
            Err(_) => Err(BrokerError::Closed),
        }
    }
}

/// A waiter on a partition's list.
struct Enlisted<'a> {
    partition: &'a Partition,
    place: Place,
}

impl Drop for Enlisted<'_> {
    fn drop(&mut self) {
        self.partition.unwatch(self.place);
    }
}

/// A number of the partition's own, for `segment.jitter.ms`.
fn jitter(name: &TopicPartition) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

/// A flush that was asked for.
pub(crate) type FlushRequest = oneshot::Receiver<FlushResult>;
type FlushResult = Result<(), Arc<StorageError>>;

/// Waits until each of the partitions is on disk up to its offset, or to its end if the offset lies beyond; they are
/// synced side by side, and those that are on disk already need no sync. Nor do partitions of topics that are deleted
/// meanwhile.
pub(crate) async fn make_durable(ends: Vec<(Arc<Partition>, Offset)>, flusher: &Flusher) -> Result<()> {
    let requests: Vec<_> = ends
        .into_iter()
        .map(|(partition, end)| {
            let request = partition.request_durable(flusher, end.min(partition.log().log_end()));
            (partition, request)
        })
        .collect();
    for (partition, request) in requests {
        match partition.requested(request).await {
            Err(BrokerError::UnknownTopic(_)) => {}
            result => result?,
        }
    }
    Ok(())
}
