//! The conformance suite under different configurations, and what is particular to this implementation.

use std::sync::Arc;
use std::time::Duration;

use logmill_protocol::{LeaderEpoch, Offset, Timestamp, TimestampType};

use super::{Partition, append, small};
use crate::conformance::{self, Harness, LEADER, batch, offsets, read_all};
use crate::{DeletionReason, Flusher, LogConfig, PartitionLog, StorageError};

/// Closes the log before it is opened again: nothing is recovered.
struct Closing {
    partition: Partition,
    log: Option<Arc<PartitionLog>>,
}

impl Harness for Closing {
    type Log = Arc<PartitionLog>;

    fn open(&mut self) -> Arc<PartitionLog> {
        if let Some(log) = self.log.take() {
            log.close().unwrap();
        }
        let (log, recovery) = self.partition.reopen();
        assert!(recovery.clean || log.log_end() == Offset(0), "{recovery:?}");
        Arc::clone(self.log.insert(Arc::new(log)))
    }
}

#[test]
fn conforms_when_reopened_without_close() {
    conformance::check(|| Partition::new(LogConfig::default()));
}

#[test]
fn conforms_with_tiny_segments() {
    conformance::check(|| Partition::new(LogConfig { segment_bytes: 1, index_interval_bytes: 0, ..small() }));
}

#[test]
fn conforms_when_closed_before_reopening() {
    conformance::check(|| Closing { partition: Partition::new(small()), log: None });
}

#[test]
fn the_file_ends_where_the_batches_end() {
    let partition = Partition::new(LogConfig::default());
    let (log, _) = partition.reopen();
    let mut expected = Vec::new();
    for count in 1..5 {
        append(&log, batch(0, count));
        expected = read_all(&log, Offset(0), log.log_end());
        let file = partition.dir().join("00000000000000000000.log");
        assert_eq!(std::fs::read(&file).unwrap(), expected, "no zero tail");
    }
    assert_eq!(log.size_bytes(), expected.len() as u64);
    assert_eq!(log.verify().unwrap(), expected.len() as u64);
}

#[test]
fn log_append_time_stamps_every_record() {
    let partition = Partition::new(LogConfig { timestamp_type: TimestampType::LogAppendTime, ..small() });
    let (log, _) = partition.reopen();
    let appended = log.append(&mut batch(5, 3), LEADER, Timestamp(1000)).unwrap();
    assert_eq!(appended.log_append_time, Some(Timestamp(1000)));
    assert_eq!(log.offset_for_time(Timestamp(6)).unwrap(), Some((Offset(0), Timestamp(1000))));
    assert_eq!(offsets(&read_all(&log, Offset(0), Offset(3))), [0, 1, 2]);
}

#[test]
fn batches_over_the_limit_are_refused() {
    let partition = Partition::new(LogConfig { max_batch_bytes: 100, ..small() });
    let (log, _) = partition.reopen();
    append(&log, batch(0, 1));
    let refused = log.append(&mut batch(0, 9), LEADER, Timestamp(0));
    assert!(matches!(refused, Err(StorageError::TooLarge { max_bytes: 100, .. })), "{refused:?}");
    log.reconfigure(LogConfig { max_batch_bytes: 1000, ..small() }).unwrap();
    append(&log, batch(0, 9));
}

#[test]
fn segments_roll_by_size_and_by_age() {
    let partition = Partition::new(LogConfig { segment_age: Duration::from_millis(50), ..small() });
    let (log, _) = partition.reopen();
    let at = |now: i64| log.append(&mut batch(0, 1), LEADER, Timestamp(now)).map(|_| log.segment_count()).unwrap();
    assert_eq!([at(0), at(10), at(49), at(50), at(99), at(100)], [1, 1, 1, 2, 2, 3]);
    log.append(&mut batch(0, 80), LEADER, Timestamp(101)).unwrap();
    assert_eq!(log.segment_count(), 4, "what is larger than a segment gets one of its own");
    assert_eq!(offsets(&read_all(&log, Offset(0), log.log_end())).len(), 86);
}

#[test]
fn retention_deletes_by_age_up_to_the_high_watermark() {
    let partition =
        Partition::new(LogConfig { retention: Some(Duration::from_millis(100)), segment_bytes: 1, ..small() });
    let (log, _) = partition.reopen();
    for timestamp in [0, 10, 20, 200] {
        append(&log, batch(timestamp, 1));
    }
    let delete = |now: i64| -> Vec<(i64, DeletionReason)> {
        log.apply_retention(Timestamp(now)).unwrap().iter().map(|d| (d.base_offset.0, d.reason)).collect()
    };
    assert_eq!(delete(1000), [], "nothing is below the high watermark");
    log.set_high_watermark(Offset(3));
    assert_eq!(delete(110), [(0, DeletionReason::Age)]);
    assert_eq!(delete(1000), [(1, DeletionReason::Age), (2, DeletionReason::Age)]);
    assert_eq!((log.log_start(), log.log_end()), (Offset(3), Offset(4)));
    log.set_high_watermark(Offset(4));
    assert_eq!(delete(300), [], "the active segment has not expired");
    assert_eq!(delete(301), [(3, DeletionReason::Age)]);
    assert_eq!((log.log_start(), log.log_end(), log.segment_count()), (Offset(4), Offset(4), 1));
    drop(log);
    let (log, _) = partition.reopen();
    assert_eq!((log.log_start(), log.log_end()), (Offset(4), Offset(4)));
}

#[test]
fn retention_deletes_by_size_but_never_the_active_segment() {
    let size = batch(0, 1).len() as u64;
    let config = LogConfig { retention: None, retention_bytes: Some(2 * size), segment_bytes: 1, ..small() };
    let partition = Partition::new(config);
    let (log, _) = partition.reopen();
    for _ in 0..5 {
        append(&log, batch(0, 1));
    }
    log.set_high_watermark(Offset(5));
    assert_eq!(log.apply_retention(Timestamp(0)).unwrap().len(), 3);
    assert_eq!(log.size_bytes(), 2 * size);
    log.reconfigure(LogConfig { retention_bytes: Some(0), ..config }).unwrap();
    assert_eq!(log.apply_retention(Timestamp(0)).unwrap().len(), 1);
    assert_eq!((log.log_start(), log.size_bytes()), (Offset(4), size));
}

#[test]
fn idle_producers_expire_unless_their_transaction_is_open() {
    let partition = Partition::new(LogConfig { producer_id_expiry: Duration::from_millis(100), ..small() });
    let (log, _) = partition.reopen();
    append(&log, conformance::idempotent(1, 0, 0, 1));
    append(&log, conformance::transactional(2, 0, 0, 1));
    let ids = || log.producer_states().iter().map(|s| s.producer_id.0).collect::<Vec<_>>();
    log.apply_retention(Timestamp(99)).unwrap();
    assert_eq!(ids(), [1, 2]);
    log.apply_retention(Timestamp(100)).unwrap();
    assert_eq!(ids(), [2]);
    assert_eq!(log.open_transactions().len(), 1);
}

#[test]
fn leader_epochs_are_remembered() {
    let partition = Partition::new(small());
    let (log, _) = partition.reopen();
    for epoch in [1, 1, 4, 4] {
        log.append(&mut batch(0, 5), LeaderEpoch(epoch), Timestamp(0)).unwrap();
    }
    let expected = vec![(LeaderEpoch(1), Offset(0)), (LeaderEpoch(4), Offset(10))];
    assert_eq!(log.leader_epochs(), expected);
    assert_eq!(log.end_offset_for_epoch(LeaderEpoch(2)), Some((LeaderEpoch(1), Offset(10))));
    assert_eq!(log.end_offset_for_epoch(LeaderEpoch(4)), Some((LeaderEpoch(4), Offset(20))));
    log.close().unwrap();
    let (log, recovery) = partition.reopen();
    assert!(recovery.clean);
    assert_eq!(log.leader_epochs(), expected);
    log.truncate_to(Offset(10)).unwrap();
    assert_eq!(log.leader_epochs(), expected[..1]);
}

#[test]
fn sync_makes_everything_appended_durable() {
    let partition = Partition::new(small());
    let (log, _) = partition.reopen();
    assert_eq!(log.sync().unwrap(), Offset(0));
    for _ in 0..20 {
        append(&log, batch(0, 5));
    }
    assert_eq!(log.durable(), Offset(0));
    assert_eq!(log.sync().unwrap(), Offset(100));
    assert_eq!(log.durable(), Offset(100));
}

#[test]
fn a_closed_log_can_be_read_but_not_changed() {
    let partition = Partition::new(small());
    let (log, _) = partition.reopen();
    append(&log, batch(0, 5));
    log.close().unwrap();
    assert_eq!(log.durable(), Offset(5));
    assert_eq!(offsets(&read_all(&log, Offset(0), Offset(5))).len(), 5);
    let closed = |r: crate::Result<()>| assert!(matches!(r, Err(StorageError::Closed { .. })), "{r:?}");
    closed(log.append(&mut batch(0, 1), LEADER, Timestamp(0)).map(drop));
    closed(log.sync().map(drop));
    closed(log.roll());
    closed(log.close());
    closed(log.truncate_to(Offset(0)).map(drop));
}

#[test]
fn many_waiters_share_the_flusher() {
    let partitions: Vec<_> = (0..6).map(|_| Partition::new(small())).collect();
    let logs: Vec<_> = partitions.iter().map(|p| Arc::new(p.reopen().0)).collect();
    let flusher = Flusher::start().unwrap();
    std::thread::scope(|scope| {
        for thread in 0..12 {
            let (log, flusher) = (&logs[thread % logs.len()], &flusher);
            scope.spawn(move || {
                for _ in 0..20 {
                    let appended = append(log, batch(0, 2));
                    let durable = flusher.flush(log, appended.last_offset.next()).unwrap();
                    assert!(durable > appended.last_offset && log.durable() >= durable);
                }
            });
        }
    });
    for log in &logs {
        assert_eq!((log.log_end(), log.durable()), (Offset(80), Offset(80)));
    }
}

#[test]
fn dropping_the_flusher_serves_everyone_who_waits() {
    let partition = Partition::new(small());
    let log = Arc::new(partition.reopen().0);
    let flusher = Flusher::start().unwrap();
    let (send, receive) = std::sync::mpsc::channel();
    for _ in 0..50 {
        let end = append(&log, batch(0, 1)).last_offset.next();
        let send = send.clone();
        flusher.request(&log, end, move |result| send.send(result.unwrap() >= end).unwrap()).unwrap();
    }
    drop((flusher, send));
    assert_eq!(receive.iter().filter(|durable| *durable).count(), 50);
}

#[test]
fn a_segment_whose_index_is_full_rolls() {
    // Two entries of the offset index, which gets one for each of these batches.
    let config = LogConfig { index_interval_bytes: 0, segment_index_bytes: 16, ..LogConfig::default() };
    let partition = Partition::new(config);
    let (log, _) = partition.reopen();
    for _ in 0..7 {
        append(&log, batch(1, 1));
    }
    let bases: Vec<_> = log.segments.read().iter().map(|segment| segment.base.0).collect();
    let gaps: Vec<_> = bases.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.len() >= 2 && gaps.iter().all(|gap| (2..=3).contains(gap)), "{bases:?}");
}

#[test]
fn timestamps_are_held_against_the_clock() {
    let limit = Some(Duration::from_millis(1000));
    let config = LogConfig { timestamp_before_max: limit, timestamp_after_max: limit, ..LogConfig::default() };
    let partition = Partition::new(config);
    let (log, _) = partition.reopen();
    let now = Timestamp(10_000);
    let check = |mut bytes: Vec<u8>, expected: Option<&str>| {
        let error = log.append(&mut bytes, LEADER, now).err().map(|error| error.to_string());
        assert_eq!(error.as_deref(), expected);
    };
    check(batch(9_000, 1), None);
    check(batch(11_000, 1), None);
    check(
        batch(8_999, 1),
        Some(
            "timestamp 8999 is further from the log's clock, 10000, than message.timestamp.before.max.ms, 1000, allows",
        ),
    );
    // Its last record is a millisecond too far ahead.
    check(
        batch(11_000, 2),
        Some(
            "timestamp 11001 is further from the log's clock, 10000, than message.timestamp.after.max.ms, 1000, allows",
        ),
    );
    // Without a timestamp there is nothing to hold against it.
    check(batch(-1, 1), None);
    // The header tells the first timestamp only: a later record may be earlier.
    let mut builder = logmill_protocol::BatchBuilder::new(logmill_protocol::BatchOptions::default());
    builder.append(Timestamp(10_000), None, None, &[]).unwrap();
    builder.append(Timestamp(5), None, None, &[]).unwrap();
    check(
        builder.finish().unwrap().to_vec(),
        Some("timestamp 5 is further from the log's clock, 10000, than message.timestamp.before.max.ms, 1000, allows"),
    );
    assert_eq!(log.log_end(), Offset(3));
}
