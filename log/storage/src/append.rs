//! Appending: check everything first, then one write, then make it visible.
//!
//! ```text
//! validate headers and CRC   (no lock)
//! check producers, assign offsets and leader epoch, roll if full
//! write                      on error: file cut back, memory untouched
//! note in indexes, producers, transactions
//! publish length, then LEO   readers see the batches from here on
//! ```

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use logmill_protocol::{
    BatchHeader, BatchLimits, ControlKind, ControlMarker, LeaderEpoch, Offset, ProducerEpoch, ProducerId, Timestamp,
    TimestampType, batches, control_batch, patch_assigned, patch_log_append_time,
};

use crate::config::{LogConfig, MAX_SEGMENT_BYTES};
use crate::error::{Result, StorageError};
use crate::log::{PartitionLog, Writer, store};
use crate::open_segments;
use crate::producers::ProducerState;
use crate::segment::Segment;
use crate::txn_index::AbortedTxn;

/// A partition with as many segments rolls only those that are not small, whatever its configuration: each segment costs
/// an open file, and some memory.
const MANY_SEGMENTS: usize = 1024;
/// A segment below this size is small.
const SMALL_SEGMENT_BYTES: u64 = 1 << 20;

/// What a producer sends in place of a timestamp.
const NO_TIMESTAMP: i64 = -1;

/// What an append did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Offset of the first record.
    pub base_offset: Offset,
    /// Offset of the last record.
    pub last_offset: Offset,
    /// The time given to the records, if the log's clock stamps them.
    pub log_append_time: Option<Timestamp>,
    /// The batches were there already, sent again by an idempotent producer; nothing was written.
    pub duplicate: bool,
}

/// The end of a producer's transaction in this partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndTransaction {
    /// The transactional producer.
    pub producer_id: ProducerId,
    /// Its epoch; a higher one than the log has seen fences the producer.
    pub producer_epoch: ProducerEpoch,
    /// How the transaction ends, and the coordinator that says so.
    pub marker: ControlMarker,
}

impl PartitionLog {
    /// Appends whole record batches with one write, patching the offsets and the leader epoch it assigns into them.
    ///
    /// `batches` are what a producer sent: one or more, each valid by itself. The bytes are in the page cache when
    /// this returns; [`PartitionLog::sync`] or a [`Flusher`](crate::Flusher) makes them durable. An append that fails
    /// leaves the log as it was (`batches` may have been patched); an idempotent one may be sent again.
    ///
    /// # Errors
    /// `InvalidBatch`, `TooLarge`, `Refused` for what may not be appended at all; `LeaderEpochFenced`,
    /// `ProducerFenced`, `OutOfOrderSequence`, `InvalidTransactionState` for what may not be appended now;
    /// `DiskFull`, `Io`, `Failed`, `Closed` if the disk or the log cannot take it.
    pub fn append(&self, batches: &mut [u8], leader_epoch: LeaderEpoch, now: Timestamp) -> Result<Appended> {
        let config = self.config();
        let mut headers = check_batches(batches, &config)?;
        let log_append_time = (config.timestamp_type == TimestampType::LogAppendTime).then_some(now);
        if log_append_time.is_none() {
            check_timestamps(batches, now, &config)?;
        }

        let mut writer = self.writer.lock();
        self.check_leader(&writer, leader_epoch)?;
        if let Some(appended) = duplicate(&writer, &headers, &config) {
            return Ok(appended);
        }
        let base_offset = self.log_end();
        let last_offset = assign(&mut headers, base_offset, leader_epoch, log_append_time)?;
        let producers = check_producers(&writer, &headers)?;
        patch(batches, &headers, log_append_time)?;

        let segment = self.write(&mut writer, batches, &headers, now, &config)?;
        let mut txns = self.txns.lock();
        for state in producers {
            let known = writer.producers.get(state.producer_id).and_then(|s| s.txn_first_offset);
            if let (None, Some(first_offset)) = (known, state.txn_first_offset) {
                txns.begin(first_offset, state.producer_id);
            }
            writer.producers.insert(state);
        }
        drop(txns);
        self.publish(&segment, batches.len(), last_offset.next());
        Ok(Appended { base_offset, last_offset, log_append_time, duplicate: false })
    }

    /// Appends the marker that ends a producer's transaction. An abort is noted in the transaction index. A marker
    /// for a producer without an open transaction is appended, too: it may carry the fence of a new epoch.
    ///
    /// # Errors
    /// `ProducerFenced` or `CoordinatorFenced` if someone newer has been seen, and as [`PartitionLog::append`].
    pub fn append_control(&self, end: EndTransaction, leader_epoch: LeaderEpoch, now: Timestamp) -> Result<Appended> {
        let config = self.config();
        let mut bytes = control_batch(end.marker, end.producer_id, end.producer_epoch, now).to_vec();
        let mut header = BatchHeader::peek(&bytes)?;

        let mut writer = self.writer.lock();
        self.check_leader(&writer, leader_epoch)?;
        let mut state = writer.producers.get_or_new(end.producer_id);
        state.check_marker(end.producer_epoch, end.marker.coordinator_epoch)?;
        let offset = self.log_end();
        assign(std::slice::from_mut(&mut header), offset, leader_epoch, None)?;
        patch(&mut bytes, &[header], None)?;

        let segment = self.write(&mut writer, &bytes, &[header], now, &config)?;
        let first_offset = state.record_marker(&header, end.marker.coordinator_epoch);
        writer.producers.insert(state);
        if let Some(first_offset) = first_offset {
            let aborted = (end.marker.kind == ControlKind::Abort).then(|| AbortedTxn {
                producer_id: end.producer_id,
                first_offset,
                last_offset: offset,
                last_stable_offset: self.txns.lock().stable_after(first_offset, offset),
            });
            // Noted before the transaction counts as ended: the LSO never passes an abort that readers cannot see.
            if let Some(aborted) = aborted {
                segment.indexes.lock().txns.push(aborted);
            }
            self.txns.lock().end(first_offset, offset);
        }
        self.publish(&segment, bytes.len(), offset.next());
        Ok(Appended { base_offset: offset, last_offset: offset, log_append_time: None, duplicate: false })
    }

    /// Closes the active segment and begins a new one. Does nothing if it is empty.
    ///
    /// # Errors
    /// If the new file cannot be created; then the old one stays active.
    pub fn roll(&self) -> Result<()> {
        let mut writer = self.writer.lock();
        self.check_usable()?;
        self.roll_active(&mut writer).map(|_| ())
    }

    pub(crate) fn roll_active(&self, writer: &mut Writer) -> Result<Arc<Segment>> {
        let active = self.active()?;
        if active.len() == 0 {
            return Ok(active);
        }
        fail::fail_point!("storage::before_roll");
        let next = Arc::new(Segment::create(&self.dir, self.log_end())?);
        fail::fail_point!("storage::after_roll_create");
        active.seal();
        self.dir_dirty.store(true, Ordering::Release);
        self.segments.write().push(Arc::clone(&next));
        writer.segment_since = None;
        fail::fail_point!("storage::after_roll");
        Ok(next)
    }

    /// Rolls, unless that would make too many small segments or there is no file to be had: then the active segment goes
    /// on. Returns the active segment.
    pub(crate) fn roll_if_possible(&self, writer: &mut Writer) -> Result<Arc<Segment>> {
        let active = self.active()?;
        let is_one_of_many = self.segment_count() >= MANY_SEGMENTS && active.len() < SMALL_SEGMENT_BYTES;
        if is_one_of_many || !open_segments::has_room() {
            return Ok(active);
        }
        match self.roll_active(writer) {
            Err(error) if error.is_out_of_files() => {
                tracing::warn!(log = %self.dir.display(), %error, "going on with the segment there is");
                Ok(active)
            }
            rolled => rolled,
        }
    }

    fn check_leader(&self, writer: &Writer, found: LeaderEpoch) -> Result<()> {
        self.check_usable()?;
        let current = writer.epochs.latest();
        if found < current {
            return Err(StorageError::LeaderEpochFenced { found, current });
        }
        Ok(())
    }

    /// Writes `bytes` into the active segment, rolling first if they do not fit, and notes them in its indexes.
    fn write(
        &self,
        writer: &mut Writer,
        bytes: &[u8],
        headers: &[BatchHeader],
        now: Timestamp,
        config: &LogConfig,
    ) -> Result<Arc<Segment>> {
        let (Some(first), Some(last)) = (headers.first(), headers.last()) else {
            return Err(StorageError::Refused { reason: "it holds no record batch" });
        };
        let mut segment = self.active()?;
        if !fits(&segment, bytes.len() as u64, last.last_offset()) {
            segment = self.roll_active(writer)?;
        } else if is_due_to_roll(&segment, writer, bytes.len() as u64, now, config) {
            segment = self.roll_if_possible(writer)?;
        }
        if last.last_offset().0 - segment.base.0 > i64::from(i32::MAX) {
            return Err(StorageError::Refused { reason: "it holds more offsets than a segment can index" });
        }
        fail::fail_point!("storage::before_append_write");
        let mut position = segment.len();
        segment.write(bytes, config.preallocate.then_some(config.segment_bytes)).map_err(|error| match error {
            StorageError::Failed { .. } => self.stop(error),
            other => other,
        })?;
        fail::fail_point!("storage::after_append_write");
        let mut indexes = segment.indexes.lock();
        for header in headers {
            indexes.note(header, position, config.index_interval_bytes);
            position += header.total_len() as u64;
        }
        drop(indexes);
        writer.epochs.assign(first.leader_epoch, first.base_offset);
        writer.segment_since.get_or_insert(now);
        Ok(segment)
    }

    fn publish(&self, segment: &Segment, bytes: usize, next_offset: Offset) {
        segment.publish(bytes as u64, next_offset);
        self.bytes_since_checkpoint.fetch_add(bytes as u64, Ordering::Relaxed);
        store(&self.marks.log_end, next_offset);
    }
}

/// Reads and checks the header of every batch, CRC included.
fn check_batches(bytes: &[u8], config: &LogConfig) -> Result<Vec<BatchHeader>> {
    if bytes.len() as u64 > MAX_SEGMENT_BYTES {
        return Err(StorageError::TooLarge { size_bytes: bytes.len() as u64, max_bytes: MAX_SEGMENT_BYTES });
    }
    let limits = BatchLimits { max_batch_bytes: config.max_batch_bytes, ..BatchLimits::PRODUCE };
    let mut headers = Vec::new();
    for batch in batches(bytes) {
        let batch = batch?;
        let size_bytes = batch.bytes().len() as u64;
        if size_bytes > limits.max_batch_bytes as u64 {
            return Err(StorageError::TooLarge { size_bytes, max_bytes: limits.max_batch_bytes as u64 });
        }
        batch.validate(&limits)?;
        headers.push(*batch.header());
    }
    if headers.is_empty() {
        return Err(StorageError::Refused { reason: "it holds no record batch" });
    }
    Ok(headers)
}

/// Checks the producers' timestamps against the clock. A record without one is fine.
fn check_timestamps(bytes: &[u8], now: Timestamp, config: &LogConfig) -> Result<()> {
    if let Some(max) = config.timestamp_after_max {
        for batch in batches(bytes) {
            let found = batch?.header().max_timestamp.0;
            if found.saturating_sub(now.0) > millis(max) {
                return Err(StorageError::InvalidTimestamp { found, now: now.0, limit: "after", max_ms: millis(max) });
            }
        }
    }
    let Some(max) = config.timestamp_before_max else { return Ok(()) };
    let mut scratch = Vec::new();
    for batch in batches(bytes) {
        // The header does not say what the earliest timestamp is.
        for record in batch?.records(&mut scratch, &BatchLimits::PRODUCE)? {
            let found = record?.timestamp.0;
            if found != NO_TIMESTAMP && now.0.saturating_sub(found) > millis(max) {
                return Err(StorageError::InvalidTimestamp { found, now: now.0, limit: "before", max_ms: millis(max) });
            }
        }
    }
    Ok(())
}

/// Gives the headers their place in the log. Returns the offset of the last record.
fn assign(
    headers: &mut [BatchHeader],
    base_offset: Offset,
    leader_epoch: LeaderEpoch,
    log_append_time: Option<Timestamp>,
) -> Result<Offset> {
    let mut next = base_offset;
    for header in headers {
        header.base_offset = next;
        header.leader_epoch = leader_epoch;
        header.max_timestamp = log_append_time.unwrap_or(header.max_timestamp);
        next = header.next_offset();
        if next.0 == i64::MAX {
            return Err(StorageError::Refused { reason: "the partition has no offsets left" });
        }
    }
    Ok(next.plus(-1))
}

/// Writes what [`assign`] decided into the bytes.
fn patch(mut bytes: &mut [u8], headers: &[BatchHeader], log_append_time: Option<Timestamp>) -> Result<()> {
    for header in headers {
        let (batch, rest) = bytes.split_at_mut(header.total_len().min(bytes.len()));
        patch_assigned(batch, header.base_offset, header.leader_epoch)?;
        if let Some(now) = log_append_time {
            patch_log_append_time(batch, now)?;
        }
        bytes = rest;
    }
    Ok(())
}

/// The offsets of the batches, if all of them are remembered from an earlier append.
fn duplicate(writer: &Writer, headers: &[BatchHeader], config: &LogConfig) -> Option<Appended> {
    let find = |h: &BatchHeader| writer.producers.get(h.producer_id)?.duplicate_of(h);
    let (first, last) = (find(headers.first()?)?, find(headers.last()?)?);
    headers.iter().all(|h| find(h).is_some()).then_some(Appended {
        base_offset: first.base_offset(),
        last_offset: last.last_offset,
        // What is remembered of a batch is its time as it was appended.
        log_append_time: (config.timestamp_type == TimestampType::LogAppendTime).then_some(last.timestamp),
        duplicate: true,
    })
}

/// Checks the batches against their producers. Returns the states to remember once they are written.
fn check_producers(writer: &Writer, headers: &[BatchHeader]) -> Result<Vec<ProducerState>> {
    let mut states: Vec<ProducerState> = Vec::new();
    for header in headers.iter().filter(|h| h.has_producer_id()) {
        let found = states.iter().position(|s| s.producer_id == header.producer_id);
        let mut state = match found.and_then(|i| states.get(i)) {
            Some(state) => *state,
            None => writer.producers.get_or_new(header.producer_id),
        };
        state.check(header)?;
        state.record(header);
        match found.and_then(|i| states.get_mut(i)) {
            Some(slot) => *slot = state,
            None => states.push(state),
        }
    }
    Ok(states)
}

/// Whether the segment can take the bytes and address their offsets at all; an empty one is not replaced.
fn fits(segment: &Segment, bytes: u64, last_offset: Offset) -> bool {
    let is_addressable = last_offset.0 - segment.base.0 <= i64::from(i32::MAX);
    segment.len() == 0 || (is_addressable && segment.len() + bytes <= MAX_SEGMENT_BYTES)
}

/// Whether the configuration wants the bytes in another segment.
fn is_due_to_roll(segment: &Segment, writer: &Writer, bytes: u64, now: Timestamp, config: &LogConfig) -> bool {
    let is_full = segment.len() + bytes > config.segment_bytes;
    segment.len() > 0 && (is_full || is_aged(writer, now, config) || segment.is_index_full(config.segment_index_bytes))
}

/// Whether the active segment got its first append longer ago than `segment_age`.
pub(crate) fn is_aged(writer: &Writer, now: Timestamp, config: &LogConfig) -> bool {
    writer.segment_since.is_some_and(|since| now.0.saturating_sub(since.0) >= millis(config.segment_age))
}

pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
