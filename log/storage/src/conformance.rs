//! What every log must do, whatever it is stored on: one suite that each implementation runs.
//!
//! ```ignore
//! conformance::check(|| MyHarness::new());
//! ```
//! A check fails by panicking, as a test does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use logmill_protocol::{
    BatchBuilder, BatchLimits, BatchOptions, ControlKind, ControlMarker, LeaderEpoch, Offset, ProducerEpoch,
    ProducerId, ProducerStamp, Timestamp, batches,
};

use crate::{AbortedTxn, Appended, EndTransaction, PartitionLog, ReadBatches, Result, StorageError};

/// The operations that the suite exercises, as [`PartitionLog`] has them.
#[allow(missing_docs)]
pub trait Log {
    fn append(&self, batches: &mut [u8], leader_epoch: LeaderEpoch, now: Timestamp) -> Result<Appended>;
    fn append_control(&self, end: EndTransaction, leader_epoch: LeaderEpoch, now: Timestamp) -> Result<Appended>;
    fn read(&self, from: Offset, max_bytes: usize, up_to: Offset) -> Result<ReadBatches>;
    fn offset_for_time(&self, at: Timestamp) -> Result<Option<(Offset, Timestamp)>>;
    fn log_start(&self) -> Offset;
    fn log_end(&self) -> Offset;
    fn high_watermark(&self) -> Offset;
    fn set_high_watermark(&self, offset: Offset) -> Offset;
    fn last_stable_offset(&self) -> Offset;
    fn aborted_transactions(&self, from: Offset, to: Offset) -> Result<Vec<AbortedTxn>>;
    fn truncate_to(&self, offset: Offset) -> Result<Offset>;
    fn delete_records_before(&self, offset: Offset) -> Result<Offset>;
}

macro_rules! forward {
    ($($name:ident($($arg:ident: $type:ty),*) -> $out:ty;)*) => {
        impl Log for PartitionLog {
            $(fn $name(&self, $($arg: $type),*) -> $out { PartitionLog::$name(self, $($arg),*) })*
        }

        impl<L: Log> Log for std::sync::Arc<L> {
            $(fn $name(&self, $($arg: $type),*) -> $out { L::$name(self, $($arg),*) })*
        }
    };
}

forward! {
    append(batches: &mut [u8], leader_epoch: LeaderEpoch, now: Timestamp) -> Result<Appended>;
    append_control(end: EndTransaction, leader_epoch: LeaderEpoch, now: Timestamp) -> Result<Appended>;
    read(from: Offset, max_bytes: usize, up_to: Offset) -> Result<ReadBatches>;
    offset_for_time(at: Timestamp) -> Result<Option<(Offset, Timestamp)>>;
    log_start() -> Offset;
    log_end() -> Offset;
    high_watermark() -> Offset;
    set_high_watermark(offset: Offset) -> Offset;
    last_stable_offset() -> Offset;
    aborted_transactions(from: Offset, to: Offset) -> Result<Vec<AbortedTxn>>;
    truncate_to(offset: Offset) -> Result<Offset>;
    delete_records_before(offset: Offset) -> Result<Offset>;
}

/// Makes one log, and opens it again.
pub trait Harness {
    /// The implementation.
    type Log: Log;
    /// Opens the harness's log: empty the first time, afterwards as it was. The one opened before is dropped.
    fn open(&mut self) -> Self::Log;
}

/// A leader epoch for appends that do not care.
pub const LEADER: LeaderEpoch = LeaderEpoch(0);

/// A batch of records `value-0`, `value-1`, … with timestamps from `timestamp` on, one millisecond apart.
#[must_use]
pub fn batch(timestamp: i64, count: usize) -> Vec<u8> {
    build(BatchOptions::default(), timestamp, count)
}

/// A batch of an idempotent producer.
#[must_use]
pub fn idempotent(id: i64, epoch: i16, base_sequence: i32, count: usize) -> Vec<u8> {
    build(BatchOptions { producer: Some(stamp(id, epoch, base_sequence)), ..BatchOptions::default() }, 0, count)
}

/// A batch in a transaction.
#[must_use]
pub fn transactional(id: i64, epoch: i16, base_sequence: i32, count: usize) -> Vec<u8> {
    let producer = Some(stamp(id, epoch, base_sequence));
    build(BatchOptions { producer, transactional: true, ..BatchOptions::default() }, 0, count)
}

/// The end of a transaction.
#[must_use]
pub fn end(id: i64, epoch: i16, kind: ControlKind) -> EndTransaction {
    let marker = ControlMarker { kind, coordinator_epoch: 0 };
    EndTransaction { producer_id: ProducerId(id), producer_epoch: ProducerEpoch(epoch), marker }
}

fn stamp(id: i64, epoch: i16, base_sequence: i32) -> ProducerStamp {
    ProducerStamp { id: ProducerId(id), epoch: ProducerEpoch(epoch), base_sequence }
}

/// A batch with any options.
#[must_use]
pub fn build(options: BatchOptions, timestamp: i64, count: usize) -> Vec<u8> {
    let mut builder = BatchBuilder::new(options);
    for i in 0..count {
        let value = format!("value-{i}");
        builder
            .append(Timestamp(timestamp + i as i64), None, Some(value.as_bytes()), &[])
            .expect("a small record fits");
    }
    builder.finish().expect("there is a record").to_vec()
}

/// The offsets of the records in `bytes`, after checking every batch.
#[must_use]
pub fn offsets(bytes: &[u8]) -> Vec<i64> {
    let mut found = Vec::new();
    for batch in batches(bytes) {
        let batch = batch.expect("reads return whole batches");
        batch.validate(&BatchLimits::STORED).expect("reads return sound batches");
        let mut scratch = Vec::new();
        let records = batch.records(&mut scratch, &BatchLimits::STORED).expect("records decode");
        found.extend(records.map(|r| r.expect("records decode").offset.0));
    }
    found
}

/// Reads everything in `from..up_to`, however often it takes.
pub fn read_all(log: &impl Log, from: Offset, up_to: Offset) -> Vec<u8> {
    let (mut next, mut bytes) = (from, Vec::new());
    while next < up_to {
        let read = log.read(next, 1 << 20, up_to).expect("the range can be read");
        assert!(read.next_offset > next, "a read below {up_to} makes progress");
        next = read.next_offset;
        bytes.extend_from_slice(&read.bytes);
    }
    bytes
}

/// Runs the whole suite, each check on a new log.
pub fn check<H: Harness>(make: impl Fn() -> H) {
    appends_assign_contiguous_offsets(make());
    reads_return_whole_batches(make());
    reads_outside_the_log_are_refused(make());
    damaged_batches_are_refused(make());
    high_watermark_only_rises(make());
    duplicates_return_their_offsets(make());
    lost_and_fenced_batches_are_refused(make());
    old_leaders_are_refused(make());
    transactions_hold_the_stable_offset(make());
    aborts_are_indexed(make());
    markers_of_old_coordinators_are_refused(make());
    timestamps_are_found_exactly(make());
    truncation_forgets_the_end(make());
    deletion_moves_the_start(make());
}

fn put(log: &impl Log, mut bytes: Vec<u8>) -> Result<Appended> {
    log.append(&mut bytes, LEADER, Timestamp(0))
}

fn finish(log: &impl Log, end: EndTransaction) -> Result<Appended> {
    log.append_control(end, LEADER, Timestamp(0))
}

/// Offsets start at 0, follow each other without gaps across appends of several batches, and survive a reopen.
pub fn appends_assign_contiguous_offsets(mut harness: impl Harness) {
    let log = harness.open();
    assert_eq!((log.log_start(), log.log_end()), (Offset(0), Offset(0)));
    let first = put(&log, batch(0, 3)).unwrap();
    assert_eq!((first.base_offset, first.last_offset, first.duplicate), (Offset(0), Offset(2), false));
    let both = put(&log, [batch(0, 2), batch(0, 1)].concat()).unwrap();
    assert_eq!((both.base_offset, both.last_offset), (Offset(3), Offset(5)));
    assert_eq!(offsets(&read_all(&log, Offset(0), Offset(6))), [0, 1, 2, 3, 4, 5]);
    drop(log);
    let log = harness.open();
    assert_eq!(log.log_end(), Offset(6));
    assert_eq!(put(&log, batch(0, 1)).unwrap().base_offset, Offset(6));
    assert_eq!(offsets(&read_all(&log, Offset(0), Offset(7))), [0, 1, 2, 3, 4, 5, 6]);
}

/// A read begins with the batch that holds the offset, returns at least one batch and none beyond its bounds.
pub fn reads_return_whole_batches(mut harness: impl Harness) {
    let log = harness.open();
    for _ in 0..4 {
        put(&log, batch(0, 3)).unwrap();
    }
    let size = batch(0, 3).len();
    let check = |from: i64, max_bytes: usize, up_to: i64, expected: &[i64], next: i64| {
        let read = log.read(Offset(from), max_bytes, Offset(up_to)).unwrap();
        let found = offsets(&read.bytes);
        // A read may end early, with its segment, but never empty-handed.
        assert!(expected.starts_with(&found), "{from} {max_bytes} {up_to} gave {found:?}");
        assert_eq!(found.is_empty(), expected.is_empty(), "{from} {max_bytes} {up_to}");
        assert_eq!(read.next_offset.0, found.last().map_or(next, |last| last + 1));
    };
    check(0, 2 * size, 12, &[0, 1, 2, 3, 4, 5], 6);
    check(1, 0, 12, &[0, 1, 2], 3);
    check(5, 2 * size - 1, 12, &[3, 4, 5], 6);
    check(4, 2 * size, 6, &[3, 4, 5], 6);
    check(4, 2 * size, 5, &[], 4);
    check(12, 2 * size, 99, &[], 12);
    check(3, 2 * size, 3, &[], 3);
    check(9, 9 * size, 99, &[9, 10, 11], 12);
}

/// Offsets below the log start or above the log end are errors that name the range.
pub fn reads_outside_the_log_are_refused(mut harness: impl Harness) {
    let log = harness.open();
    put(&log, batch(0, 3)).unwrap();
    for from in [-1, 4] {
        match log.read(Offset(from), 100, Offset(100)) {
            Err(StorageError::OffsetOutOfRange { requested, log_start, log_end }) => {
                assert_eq!((requested, log_start, log_end), (Offset(from), Offset(0), Offset(3)));
            }
            other => panic!("reading {from} gave {other:?}"),
        }
    }
}

/// Bytes that are not whole and sound batches change nothing.
pub fn damaged_batches_are_refused(mut harness: impl Harness) {
    let log = harness.open();
    let good = batch(0, 3);
    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let cut = good[..good.len() - 1].to_vec();
    let half = [good.clone(), flipped.clone()].concat();
    for bytes in [flipped, cut, half, Vec::new(), vec![0; 100]] {
        assert!(put(&log, bytes.clone()).is_err(), "{} bytes were taken", bytes.len());
    }
    assert_eq!(log.log_end(), Offset(0));
    put(&log, good).unwrap();
}

/// The high watermark follows what it is told, between its last value and the log end.
pub fn high_watermark_only_rises(mut harness: impl Harness) {
    let log = harness.open();
    put(&log, batch(0, 5)).unwrap();
    let steps = [(3, 3), (2, 3), (9, 5)];
    for (told, expected) in steps {
        assert_eq!(log.set_high_watermark(Offset(told)), Offset(expected));
        assert_eq!((log.high_watermark(), log.last_stable_offset()), (Offset(expected), Offset(expected)));
    }
}

/// Each of the last five batches of a producer may be sent again; older ones are out of order.
pub fn duplicates_return_their_offsets(mut harness: impl Harness) {
    let log = harness.open();
    for sequence in 0..6 {
        put(&log, idempotent(7, 0, sequence * 2, 2)).unwrap();
    }
    for sequence in 1..6 {
        let again = put(&log, idempotent(7, 0, sequence * 2, 2)).unwrap();
        let base = i64::from(sequence) * 2;
        assert_eq!((again.base_offset, again.last_offset, again.duplicate), (Offset(base), Offset(base + 1), true));
    }
    assert!(matches!(put(&log, idempotent(7, 0, 0, 2)), Err(StorageError::OutOfOrderSequence { expected: 12, .. })));
    assert_eq!(log.log_end(), Offset(12));
    drop(log);
    let log = harness.open();
    assert!(put(&log, idempotent(7, 0, 10, 2)).unwrap().duplicate, "the last batch is recognised after a reopen");
    assert!(!put(&log, idempotent(7, 0, 12, 1)).unwrap().duplicate);
}

/// A gap in the sequence, an old producer epoch, and a new epoch that does not begin at 0 are errors.
pub fn lost_and_fenced_batches_are_refused(mut harness: impl Harness) {
    let log = harness.open();
    put(&log, idempotent(7, 1, 40, 2)).unwrap();
    let out_of_order = |r: Result<Appended>| matches!(r, Err(StorageError::OutOfOrderSequence { .. }));
    assert!(out_of_order(put(&log, idempotent(7, 1, 43, 1))));
    assert!(out_of_order(put(&log, idempotent(7, 1, 41, 1))));
    assert!(matches!(put(&log, idempotent(7, 0, 42, 1)), Err(StorageError::ProducerFenced { .. })));
    assert!(out_of_order(put(&log, idempotent(7, 2, 42, 1))));
    put(&log, idempotent(7, 1, 42, 1)).unwrap();
    put(&log, idempotent(7, 2, 0, 1)).unwrap();
    assert!(matches!(put(&log, idempotent(7, 1, 43, 1)), Err(StorageError::ProducerFenced { .. })));
    let wrapping = put(&log, idempotent(8, 0, i32::MAX, 1)).unwrap();
    assert_eq!(put(&log, idempotent(8, 0, 0, 1)).unwrap().base_offset, wrapping.last_offset.next());
    assert_eq!(log.log_end(), Offset(6));
}

/// A leader whose epoch is older than the log's is refused.
pub fn old_leaders_are_refused(mut harness: impl Harness) {
    let log = harness.open();
    log.append(&mut batch(0, 1), LeaderEpoch(3), Timestamp(0)).unwrap();
    let refused = log.append(&mut batch(0, 1), LeaderEpoch(2), Timestamp(0));
    assert!(matches!(refused, Err(StorageError::LeaderEpochFenced { .. })), "{refused:?}");
    drop(log);
    let log = harness.open();
    assert!(log.append(&mut batch(0, 1), LeaderEpoch(2), Timestamp(0)).is_err());
    log.append(&mut batch(0, 1), LeaderEpoch(3), Timestamp(0)).unwrap();
}

/// The LSO stays below the first open transaction, and below one whose marker is above the high watermark.
pub fn transactions_hold_the_stable_offset(mut harness: impl Harness) {
    let log = harness.open();
    put(&log, batch(0, 2)).unwrap();
    put(&log, transactional(1, 0, 0, 2)).unwrap();
    put(&log, transactional(2, 0, 0, 2)).unwrap();
    log.set_high_watermark(Offset(6));
    assert_eq!(log.last_stable_offset(), Offset(2));
    finish(&log, end(1, 0, ControlKind::Commit)).unwrap();
    assert_eq!(log.last_stable_offset(), Offset(2), "the marker is not replicated yet");
    log.set_high_watermark(Offset(7));
    assert_eq!(log.last_stable_offset(), Offset(4));
    drop(log);
    let log = harness.open();
    log.set_high_watermark(Offset(7));
    assert_eq!(log.last_stable_offset(), Offset(4));
    let plain = put(&log, idempotent(2, 0, 2, 1));
    assert!(matches!(plain, Err(StorageError::InvalidTransactionState { .. })), "{plain:?}");
    for foreign in [idempotent(2, i16::MAX, 0, 1), idempotent(2, 1, 0, 1), transactional(2, i16::MAX, 0, 1)] {
        let foreign = put(&log, foreign);
        assert!(matches!(foreign, Err(StorageError::InvalidTransactionState { .. })), "{foreign:?}");
    }
    put(&log, transactional(2, 0, 2, 1)).unwrap();
    finish(&log, end(2, 0, ControlKind::Commit)).unwrap();
    log.set_high_watermark(Offset(9));
    assert_eq!(log.last_stable_offset(), Offset(9));
    assert_eq!(log.aborted_transactions(Offset(0), Offset(9)).unwrap(), []);
}

/// Aborted transactions are found by every range that has records of theirs, also after a reopen.
pub fn aborts_are_indexed(mut harness: impl Harness) {
    let log = harness.open();
    put(&log, transactional(1, 0, 0, 2)).unwrap();
    put(&log, transactional(2, 0, 0, 2)).unwrap();
    finish(&log, end(1, 0, ControlKind::Abort)).unwrap();
    finish(&log, end(3, 0, ControlKind::Abort)).unwrap();
    finish(&log, end(2, 1, ControlKind::Abort)).unwrap();
    let aborted = |id: i64, first: i64, last: i64, stable: i64| AbortedTxn {
        producer_id: ProducerId(id),
        first_offset: Offset(first),
        last_offset: Offset(last),
        last_stable_offset: Offset(stable),
    };
    let (one, two) = (aborted(1, 0, 4, 2), aborted(2, 2, 6, 7));
    let check_all = |log: &H1<'_>| {
        let check = |from: i64, to: i64, expected: &[AbortedTxn]| {
            assert_eq!(log(from, to), expected, "{from}..{to}");
        };
        check(0, 7, &[one, two]);
        check(0, 2, &[one]);
        check(5, 7, &[two]);
        check(0, 1, &[one]);
        check(4, 7, &[one, two]);
    };
    type H1<'a> = dyn Fn(i64, i64) -> Vec<AbortedTxn> + 'a;
    check_all(&|from, to| log.aborted_transactions(Offset(from), Offset(to)).unwrap());
    assert!(matches!(put(&log, transactional(2, 0, 2, 1)), Err(StorageError::ProducerFenced { .. })));
    drop(log);
    let log = harness.open();
    check_all(&|from, to| log.aborted_transactions(Offset(from), Offset(to)).unwrap());
    assert!(matches!(put(&log, transactional(2, 0, 2, 1)), Err(StorageError::ProducerFenced { .. })));
    put(&log, transactional(2, 1, 0, 1)).unwrap();
}

/// A marker of a coordinator that has been replaced is refused.
pub fn markers_of_old_coordinators_are_refused(mut harness: impl Harness) {
    let log = harness.open();
    let by = |coordinator_epoch: i32| {
        let marker = ControlMarker { kind: ControlKind::Commit, coordinator_epoch };
        finish(&log, EndTransaction { marker, ..end(1, 0, ControlKind::Commit) })
    };
    put(&log, transactional(1, 0, 0, 1)).unwrap();
    by(5).unwrap();
    put(&log, transactional(1, 0, 1, 1)).unwrap();
    assert!(matches!(by(4), Err(StorageError::CoordinatorFenced { found: 4, current: 5 })));
    by(5).unwrap();
    let old = finish(&log, end(1, -1, ControlKind::Abort));
    assert!(matches!(old, Err(StorageError::ProducerFenced { .. })), "{old:?}");
}

/// The first record in offset order at or after a timestamp, also when timestamps are out of order.
pub fn timestamps_are_found_exactly(mut harness: impl Harness) {
    let log = harness.open();
    for timestamp in [100, 300, 200, 300, 500] {
        put(&log, batch(timestamp, 3)).unwrap();
    }
    let check = |log: &dyn Fn(i64) -> Option<(i64, i64)>| {
        let expectations = [
            (-1, Some((0, 100))),
            (100, Some((0, 100))),
            (101, Some((1, 101))),
            (103, Some((3, 300))),
            (200, Some((3, 300))),
            (301, Some((4, 301))),
            (303, Some((12, 500))),
            (502, Some((14, 502))),
            (503, None),
        ];
        for (at, expected) in expectations {
            assert_eq!(log(at), expected, "at {at}");
        }
    };
    check(&|at| log.offset_for_time(Timestamp(at)).unwrap().map(|(o, t)| (o.0, t.0)));
    drop(log);
    let log = harness.open();
    check(&|at| log.offset_for_time(Timestamp(at)).unwrap().map(|(o, t)| (o.0, t.0)));
}

/// Truncation removes batches, producers' sequences and transactions together.
pub fn truncation_forgets_the_end(mut harness: impl Harness) {
    let log = harness.open();
    put(&log, idempotent(7, 0, 0, 2)).unwrap();
    put(&log, transactional(8, 0, 0, 2)).unwrap();
    put(&log, idempotent(7, 0, 2, 2)).unwrap();
    finish(&log, end(8, 0, ControlKind::Abort)).unwrap();
    log.set_high_watermark(Offset(7));
    assert_eq!(log.truncate_to(Offset(9)).unwrap(), Offset(7));
    assert_eq!(log.truncate_to(Offset(5)).unwrap(), Offset(4));
    assert_eq!((log.log_end(), log.high_watermark(), log.last_stable_offset()), (Offset(4), Offset(4), Offset(2)));
    assert_eq!(log.aborted_transactions(Offset(0), Offset(9)).unwrap(), []);
    assert_eq!(put(&log, idempotent(7, 0, 2, 1)).unwrap().base_offset, Offset(4));
    drop(log);
    let log = harness.open();
    assert_eq!(log.log_end(), Offset(5));
    assert_eq!(log.truncate_to(Offset(0)).unwrap(), Offset(0));
    assert_eq!(put(&log, idempotent(7, 0, 50, 1)).unwrap().base_offset, Offset(0));
    log.set_high_watermark(Offset(1));
    assert_eq!(log.last_stable_offset(), Offset(1));
}

/// Deleted records cannot be read, up to the high watermark, also after a reopen.
pub fn deletion_moves_the_start(mut harness: impl Harness) {
    let log = harness.open();
    for _ in 0..3 {
        put(&log, batch(0, 3)).unwrap();
    }
    log.set_high_watermark(Offset(6));
    assert!(matches!(log.delete_records_before(Offset(7)), Err(StorageError::OffsetOutOfRange { .. })));
    assert_eq!(log.delete_records_before(Offset(4)).unwrap(), Offset(4));
    assert_eq!(log.delete_records_before(Offset(2)).unwrap(), Offset(4));
    assert!(matches!(log.read(Offset(3), 100, Offset(9)), Err(StorageError::OffsetOutOfRange { .. })));
    assert_eq!(log.offset_for_time(Timestamp(0)).unwrap(), Some((Offset(4), Timestamp(1))));
    drop(log);
    let log = harness.open();
    assert_eq!((log.log_start(), log.log_end()), (Offset(4), Offset(9)));
    assert_eq!(offsets(&log.read(Offset(4), 1, Offset(9)).unwrap().bytes), [3, 4, 5]);
}
