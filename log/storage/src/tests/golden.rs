//! A log written by the first version, kept for ever: every later version must read it, and write the same batches and
//! indexes.

use std::path::{Path, PathBuf};

use logmill_protocol::{
    BatchOptions, Compression, ControlKind, LeaderEpoch, Offset, ProducerEpoch, ProducerId, ProducerStamp, Timestamp,
};

use super::{Partition, copy, files, small};
use crate::conformance::{build, end, offsets, read_all};
use crate::{LogConfig, PartitionLog};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join("v0")
}

fn config() -> LogConfig {
    LogConfig { segment_bytes: 700, index_interval_bytes: 150, ..small() }
}

/// The history of the golden log: two leader epochs, plain, idempotent and transactional batches, an abort, a commit, a
/// transaction left open, a log start above the first segment.
fn write(log: &PartitionLog) {
    let stamp = |id: i64, base_sequence: i32| {
        Some(ProducerStamp { id: ProducerId(id), epoch: ProducerEpoch(2), base_sequence })
    };
    let append = |options: BatchOptions, timestamp: i64, count: usize, leader_epoch: i32| {
        let mut bytes = build(options, 1_700_000_000_000 + timestamp, count);
        log.append(&mut bytes, LeaderEpoch(leader_epoch), Timestamp(0)).unwrap();
    };
    let plain = BatchOptions::default();
    let with = |producer, transactional| BatchOptions { producer, transactional, ..plain };
    for round in 0..4 {
        let (time, leader) = (i64::from(round) * 1000, if round < 2 { 3 } else { 7 });
        append(plain, time, 3, leader);
        append(BatchOptions { compression: Compression::Snappy, ..plain }, time / 2, 5, leader);
        append(with(stamp(10, round * 2), false), time, 2, leader);
        append(with(stamp(100 + i64::from(round), 0), true), time, 2, leader);
        if round < 3 {
            let kind = if round == 1 { ControlKind::Commit } else { ControlKind::Abort };
            let now = Timestamp(1_700_000_000_500 + time);
            log.append_control(end(100 + i64::from(round), 2, kind), LeaderEpoch(leader), now).unwrap();
        }
    }
    log.set_high_watermark(log.log_end());
    log.delete_records_before(Offset(15)).unwrap();
    log.close().unwrap();
}

#[test]
fn the_golden_log_is_read() {
    let partition = Partition::new(config());
    copy(&golden(), &partition.dir());
    let (log, recovery) = partition.reopen();
    assert!(recovery.clean && recovery.rebuilt.is_empty(), "{recovery:?}");
    assert_eq!((log.log_start(), log.log_end()), (Offset(15), Offset(51)));
    let found: Vec<i64> = offsets(&read_all(&log, Offset(15), Offset(51)));
    assert_eq!(found.iter().copied().filter(|o| *o >= 15).collect::<Vec<_>>(), (15..51).collect::<Vec<_>>());
    assert_eq!(log.leader_epochs(), [(LeaderEpoch(3), Offset(15)), (LeaderEpoch(7), Offset(26))]);
    let aborted = log.aborted_transactions(Offset(15), Offset(51)).unwrap();
    let aborted: Vec<_> = aborted.iter().map(|a| (a.producer_id.0, a.first_offset.0, a.last_offset.0)).collect();
    assert_eq!(aborted, [(102, 36, 38)]);
    assert_eq!(log.open_transactions()[0].first_offset, Offset(49));
    log.set_high_watermark(Offset(51));
    assert_eq!(log.last_stable_offset(), Offset(49));
    assert_eq!(log.producer_state(ProducerId(10)).unwrap().last_sequence(), 7);
    let at = Timestamp(1_700_000_002_001);
    assert_eq!(log.offset_for_time(at).unwrap(), Some((Offset(27), at)));
    log.verify().unwrap();
}

#[test]
fn the_same_history_is_written_as_the_same_bytes() {
    let partition = Partition::new(config());
    write(&partition.reopen().0);
    let dir = partition.dir();
    let names = |dir: &Path| -> Vec<String> {
        files(dir, "").iter().map(|p| p.file_name().unwrap().to_string_lossy().into_owned()).collect()
    };
    assert_eq!(names(&dir), names(&golden()));
    for name in names(&dir) {
        let (ours, theirs) = (std::fs::read(dir.join(&name)).unwrap(), std::fs::read(golden().join(&name)).unwrap());
        // Offset checkpoints have got a CRC since.
        let ours = match ours.windows(6).position(|window| window == b"crc32c") {
            Some(crc) if name.ends_with("offset-checkpoint") => &ours[..crc],
            _ => &ours[..],
        };
        assert_eq!(ours, theirs, "{name}");
    }
}
