//! Stops the log at each named point between its file steps, as a kill would, and opens it again; and makes the disk
//! refuse at the points where it may.
//!
//! A panic leaves the files as they are at that instant, as SIGKILL does: nothing is cleaned up on the way out.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use fail::FailScenario;
use logmill_protocol::{BatchBuilder, BatchOptions, LeaderEpoch, Offset, Timestamp, batches};
use logmill_storage::{Flusher, LogConfig, PartitionLog, StorageError};

const POINTS: &[&str] = &[
    "storage::before_append_write",
    "storage::after_append_write",
    "storage::before_roll",
    "storage::after_roll_create",
    "storage::after_roll",
    "storage::before_sync",
    "storage::after_sync",
    "storage::after_index_flush",
    "storage::before_checkpoint_rename",
    "storage::before_recovery_point",
    "storage::before_truncate",
    "storage::after_truncate",
    "storage::after_log_start_checkpoint",
    "storage::before_segment_delete",
];

fn config() -> LogConfig {
    LogConfig { segment_bytes: 400, index_interval_bytes: 100, ..LogConfig::default() }
}

fn batch(count: usize) -> Vec<u8> {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    for _ in 0..count {
        builder.append(Timestamp(1), None, Some(b"some value"), &[]).unwrap();
    }
    builder.finish().unwrap().to_vec()
}

fn append(log: &PartitionLog, count: usize) -> Result<Offset, StorageError> {
    log.append(&mut batch(count), LeaderEpoch(2), Timestamp(5)).map(|a| a.last_offset.next())
}

/// What must hold of the log after a crash, whenever it came.
struct Promise {
    /// Everything below was reported durable.
    durable: Offset,
    /// No record beyond was ever appended.
    appended: Offset,
    /// A truncation or deletion may have begun that reaches down or up to here.
    lowest_end: Offset,
    highest_start: Offset,
}

/// One life of a log: appends over several segments, syncs, deletes, truncates, closes.
fn live(dir: &Path, promise: &mut Promise) {
    let (log, _) = PartitionLog::open(dir, config()).unwrap();
    promise.durable = log.durable();
    promise.appended = log.log_end();
    promise.lowest_end = log.log_end();
    promise.highest_start = log.log_start();
    for round in 0..6 {
        promise.appended = promise.appended.plus(3);
        assert_eq!(append(&log, 3).unwrap(), promise.appended);
        promise.lowest_end = promise.durable;
        if round % 2 == 1 {
            promise.durable = log.sync().unwrap();
            promise.lowest_end = promise.durable;
        }
    }
    log.set_high_watermark(promise.durable);
    promise.highest_start = log.log_start().plus(7);
    log.delete_records_before(promise.highest_start).unwrap();
    // In the middle of the last batch but one: that goes, too.
    promise.lowest_end = promise.durable.plus(-6);
    promise.durable = log.truncate_to(promise.durable.plus(-4)).unwrap();
    assert_eq!(promise.durable, promise.lowest_end);
    promise.appended = promise.durable;
    log.close().unwrap();
}

fn check(dir: &Path, promise: &Promise, what: &str) {
    let (log, recovery) = PartitionLog::open(dir, config()).unwrap_or_else(|e| panic!("{what}: {e:?}"));
    assert!(log.log_end() >= promise.lowest_end.min(promise.durable), "{what}: {recovery:?}");
    assert!(log.log_end() <= promise.appended, "{what}: {recovery:?}");
    assert!(log.log_start() <= promise.highest_start, "{what}");
    log.verify().unwrap();
    let (mut next, mut expected) = (log.log_start(), None);
    while next < log.log_end() {
        let read = log.read(next, 1 << 20, log.log_end()).unwrap();
        for batch in batches(&read.bytes) {
            let header = *batch.unwrap().header();
            assert!(expected.is_none_or(|e| e == header.base_offset), "{what}: offsets are contiguous");
            expected = Some(header.next_offset());
        }
        next = read.next_offset;
    }
    let leftovers =
        std::fs::read_dir(dir).unwrap().filter(|e| e.as_ref().unwrap().path().extension().is_some_and(|x| x == "tmp"));
    assert_eq!(leftovers.count(), 0, "{what}");
    assert_eq!(append(&log, 1).unwrap(), log.log_end());
    log.truncate_to(log.log_end().plus(-1)).unwrap();
}

#[test]
fn stopped_at_any_point_it_recovers() {
    let scenario = FailScenario::setup();
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !info.payload_as_str().is_some_and(|message| message.starts_with("failpoint")) {
            report(info);
        }
    }));
    for point in POINTS {
        let mut reached = 0;
        for skip in 0..24 {
            let root = tempfile::tempdir().unwrap();
            let dir = root.path().join("t-1").join("0");
            let mut promise =
                Promise { durable: Offset(0), appended: Offset(0), lowest_end: Offset(0), highest_start: Offset(0) };
            live(&dir, &mut promise);
            fail::cfg(*point, &format!("{skip}*off->1*panic")).unwrap();
            let died = catch_unwind(AssertUnwindSafe(|| live(&dir, &mut promise))).is_err();
            fail::remove(*point);
            if !died {
                break;
            }
            reached += 1;
            check(&dir, &promise, &format!("{point} after {skip}"));
        }
        assert!(reached > 0, "{point} was never reached");
    }
    drop(std::panic::take_hook());
    scenario.teardown();
}

#[test]
fn a_full_disk_refuses_the_append_and_nothing_else() {
    let scenario = FailScenario::setup();
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("t-1").join("0");
    let (log, _) = PartitionLog::open(&dir, LogConfig { segment_bytes: 1 << 20, ..config() }).unwrap();
    append(&log, 3).unwrap();
    let segment = dir.join("00000000000000000000.log");
    let before = std::fs::read(&segment).unwrap();
    fail::cfg("storage::append_write", "return").unwrap();
    for _ in 0..3 {
        match append(&log, 5) {
            Err(StorageError::DiskFull { path }) => assert_eq!(path, segment),
            other => panic!("{other:?}"),
        }
        assert_eq!((log.log_end(), log.size_bytes()), (Offset(3), before.len() as u64));
        assert_eq!(std::fs::read(&segment).unwrap(), before, "the part that was written is gone");
    }
    assert_eq!(log.sync().unwrap(), Offset(3));
    fail::remove("storage::append_write");
    assert_eq!(append(&log, 5).unwrap(), Offset(8), "it works again when there is room");
    drop(log);
    let (log, recovery) = PartitionLog::open(&dir, config()).unwrap();
    assert_eq!((log.log_end(), recovery.cut.len()), (Offset(8), 0));
    scenario.teardown();
}

#[test]
fn a_failed_sync_stops_the_log_and_reaches_every_waiter() {
    let scenario = FailScenario::setup();
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("t-1").join("0");
    let (log, _) = PartitionLog::open(&dir, config()).unwrap();
    let log = Arc::new(log);
    append(&log, 3).unwrap();
    log.sync().unwrap();
    let end = append(&log, 3).unwrap();
    fail::cfg("storage::sync", "return").unwrap();
    let flusher = Flusher::start().unwrap();
    let (send, receive) = std::sync::mpsc::channel();
    for _ in 0..10 {
        let send = send.clone();
        flusher.request(&log, end, move |result| send.send(result.is_err()).unwrap()).unwrap();
    }
    drop(send);
    assert_eq!(receive.iter().collect::<Vec<_>>(), [true; 10]);
    fail::remove("storage::sync");
    let failed = |r: Result<Offset, StorageError>| match r {
        Err(StorageError::Failed { reason, .. }) => assert!(reason.contains("injected"), "{reason}"),
        other => panic!("a second attempt must not succeed: {other:?}"),
    };
    failed(log.sync());
    failed(append(&log, 1));
    assert_eq!(log.durable(), Offset(3));
    assert!(!log.read(Offset(0), 100, end).unwrap().bytes.is_empty(), "reads go on");
    assert_eq!(flusher.flush(&log, Offset(2)).unwrap(), Offset(3), "what was durable before still is");
    scenario.teardown();
}

#[test]
fn what_only_the_page_cache_holds_is_not_trusted_after_a_restart() {
    let scenario = FailScenario::setup();
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("t-1").join("0");
    let config = LogConfig { segment_bytes: 1 << 20, ..config() };
    let (log, _) = PartitionLog::open(&dir, config).unwrap();
    append(&log, 3).unwrap();
    log.close().unwrap();
    let kept = log.size_bytes();
    let (log, _) = PartitionLog::open(&dir, config).unwrap();
    append(&log, 3).unwrap();
    fail::cfg("storage::sync", "return").unwrap();
    log.sync().unwrap_err();
    fail::remove("storage::sync");
    let len = log.size_bytes();
    drop(log);
    // The kernel took the pages for written when the sync failed: they go from memory, and the disk never had them.
    let segment = dir.join("00000000000000000000.log");
    let path = segment.clone();
    fail::cfg_callback("storage::forget_cached", move || {
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &vec![0; (len - kept) as usize], kept).unwrap();
    })
    .unwrap();
    let (log, recovery) = PartitionLog::open(&dir, config).unwrap();
    fail::remove("storage::forget_cached");
    assert_eq!((log.log_end(), log.durable(), recovery.cut.len()), (Offset(3), Offset(3), 1), "{recovery:?}");
    log.verify().unwrap();
    append(&log, 1).unwrap();
    assert_eq!(log.sync().unwrap(), Offset(4));
    drop(log);
    assert!(std::fs::metadata(&segment).unwrap().len() > kept);
    let (log, _) = PartitionLog::open(&dir, config).unwrap();
    assert_eq!(log.log_end(), Offset(4));
    scenario.teardown();
}

#[test]
fn a_checkpoint_holds_up_neither_acknowledgements_nor_appends() {
    let scenario = FailScenario::setup();
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("t-1").join("0");
    let (log, _) = PartitionLog::open(&dir, LogConfig::default()).unwrap();
    let log = Arc::new(log);
    let flusher = Flusher::start().unwrap();
    let ((entered, enter), (release, released)) = (std::sync::mpsc::channel(), std::sync::mpsc::channel::<()>());
    let released = std::sync::Mutex::new(released);
    fail::cfg_callback("storage::after_index_flush", move || {
        entered.send(()).unwrap();
        // It goes on when the test has ended, however it did.
        let _ = released.lock().unwrap().recv();
    })
    .unwrap();
    let mut builder = BatchBuilder::new(BatchOptions::default());
    builder.append(Timestamp(1), None, Some(&[7; 900 << 10]), &[]).unwrap();
    let large = builder.finish().unwrap();
    // A checkpoint is due after 64 MiB.
    for _ in 0..75 {
        log.append(&mut large.to_vec(), LeaderEpoch(2), Timestamp(5)).unwrap();
    }
    flusher.flush(&log, log.log_end()).unwrap();
    enter.recv().unwrap();
    for _ in 0..3 {
        let end = append(&log, 3).unwrap();
        assert_eq!(flusher.flush(&log, end).unwrap(), end, "while the checkpoint is being written");
        assert_eq!(log.sync().unwrap(), end);
    }
    drop(release);
    drop(flusher);
    fail::remove("storage::after_index_flush");
    scenario.teardown();
}
