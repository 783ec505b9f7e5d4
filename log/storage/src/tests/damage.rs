//! Files beside the segments that are missing, cut, or full of garbage: rebuilt from the batches, or reported.

use std::path::PathBuf;

use logmill_protocol::{ControlKind, LeaderEpoch, Offset, Timestamp};

use super::{Partition, append, copy, files, small};
use crate::conformance::{LEADER, batch, end, idempotent, offsets, transactional};
use crate::{AbortedTxn, OpenTxn, PartitionLog, StorageError};

/// Everything that can be asked of a log.
#[derive(Debug, PartialEq)]
struct Answers {
    first_offsets: Vec<Vec<i64>>,
    times: Vec<Option<(Offset, Timestamp)>>,
    aborted: Vec<Vec<AbortedTxn>>,
    open: Vec<OpenTxn>,
    producers: Vec<(i64, i16, i32, Option<Offset>)>,
    epochs: Vec<(LeaderEpoch, Offset)>,
    last_stable: Offset,
}

fn ask(log: &PartitionLog) -> Answers {
    let log_end = log.set_high_watermark(log.log_end());
    let all = (log.log_start().0..log_end.0).map(Offset);
    Answers {
        first_offsets: all.clone().map(|o| offsets(&log.read(o, 0, log_end).unwrap().bytes)).collect(),
        times: (-1..400).step_by(7).map(|t| log.offset_for_time(Timestamp(t)).unwrap()).collect(),
        aborted: all.step_by(5).map(|o| log.aborted_transactions(o, o.plus(20)).unwrap()).collect(),
        open: log.open_transactions(),
        producers: log
            .producer_states()
            .iter()
            .map(|s| (s.producer_id.0, s.epoch.0, s.last_sequence(), s.txn_first_offset))
            .collect(),
        epochs: log.leader_epochs(),
        last_stable: log.last_stable_offset(),
    }
}

/// A closed log with several segments, transactions, producers and leader epochs; a copy of its files; its answers.
fn scene() -> (Partition, PathBuf, Answers) {
    let partition = Partition::new(small());
    let (log, _) = partition.reopen();
    for round in 0..8 {
        let now = Timestamp(i64::from(round) * 40);
        append(&log, batch(now.0, 4));
        append(&log, idempotent(50, 0, round * 2, 2));
        append(&log, transactional(i64::from(round), 1, 0, 2));
        append(&log, batch(now.0 / 2, 1));
        let kind = if round % 2 == 0 { ControlKind::Abort } else { ControlKind::Commit };
        if round != 6 && round != 5 {
            log.append_control(end(i64::from(round), 1, kind), LEADER, now).unwrap();
        }
    }
    log.append(&mut batch(400, 2), LeaderEpoch(3), Timestamp(0)).unwrap();
    assert!(log.segment_count() > 5);
    log.close().unwrap();
    let answers = ask(&log);
    assert!(answers.open.len() == 2 && answers.aborted.iter().flatten().count() > 4);
    drop(log);
    let left = partition.root.path().join("left");
    copy(&partition.dir(), &left);
    let (log, recovery) = partition.reopen();
    assert!(recovery.clean && recovery.rebuilt.is_empty(), "{recovery:?}");
    assert_eq!(ask(&log), answers);
    drop(log);
    (partition, left, answers)
}

/// Damages each file with one of `suffixes` in each way, opens, and expects the same answers.
fn check_rebuilt(suffix: &str) {
    let (partition, left, answers) = scene();
    let names: Vec<_> = files(&left, suffix).iter().map(|p| p.file_name().unwrap().to_owned()).collect();
    let some = [0, names.len() / 3, names.len() / 2, names.len() - 1].map(|i| names[i].clone());
    for name in std::collections::BTreeSet::from(some) {
        let good = std::fs::read(left.join(&name)).unwrap();
        let path = partition.dir().join(&name);
        let mut damaged: Vec<Option<Vec<u8>>> =
            vec![None, Some(vec![0xff; 24]), Some(vec![0; 96]), Some(b"x".to_vec())];
        damaged.push(Some([&good[..], &[0; 120]].concat()));
        damaged.extend((0..good.len()).map(|len| Some(good[..len].to_vec())));
        for bytes in damaged {
            copy(&left, &partition.dir());
            match &bytes {
                Some(bytes) => std::fs::write(&path, bytes).unwrap(),
                None => std::fs::remove_file(&path).unwrap(),
            }
            let (log, _) = partition.reopen();
            assert_eq!(ask(&log), answers, "{} as {bytes:?}", path.display());
            log.close().unwrap();
            let repaired = std::fs::read(&path).unwrap_or_default();
            assert!(repaired == good || suffix == ".snapshot" || suffix == ".index", "{}", path.display());
        }
    }
}

#[test]
fn offset_indexes_are_rebuilt() {
    check_rebuilt(".index");
}

#[test]
fn time_indexes_are_rebuilt() {
    check_rebuilt(".timeindex");
}

#[test]
fn transaction_indexes_are_rebuilt() {
    check_rebuilt(".txnindex");
}

#[test]
fn counts_of_aborted_transactions_are_counted_again() {
    check_rebuilt("aborted-txn-checkpoint");
}

#[test]
fn producer_snapshots_are_replaced_by_the_batches() {
    check_rebuilt(".snapshot");
}

#[test]
fn leader_epochs_are_rebuilt() {
    let (partition, left, answers) = scene();
    let path = partition.dir().join("leader-epoch-checkpoint");
    let good = std::fs::read(&path).unwrap();
    let mut damaged: Vec<Vec<u8>> = (0..good.len()).map(|len| good[..len].to_vec()).collect();
    damaged.extend([b"\xff\xff".to_vec(), b"0\n1\n-5 0\n".to_vec(), b"0\nx\n".to_vec()]);
    for bytes in damaged {
        copy(&left, &partition.dir());
        std::fs::write(&path, &bytes).unwrap();
        let (log, recovery) = partition.reopen();
        assert_eq!(ask(&log), answers, "{bytes:?}");
        assert_eq!(recovery.rebuilt, std::slice::from_ref(&path), "{bytes:?}");
    }
    copy(&left, &partition.dir());
    std::fs::remove_file(&path).unwrap();
    assert_eq!(ask(&partition.reopen().0), answers);
    std::fs::write(&path, "1\n0\n").unwrap();
    let newer = PartitionLog::open(&partition.dir(), partition.config);
    assert!(matches!(newer, Err(StorageError::UnknownFormat { found: 1, .. })), "{newer:?}");
}

#[test]
fn everything_is_rebuilt_from_the_segments_alone() {
    let (partition, left, answers) = scene();
    copy(&left, &partition.dir());
    for path in files(&partition.dir(), "") {
        if !path.to_string_lossy().ends_with(".log") {
            std::fs::remove_file(path).unwrap();
        }
    }
    let (log, recovery) = partition.reopen();
    assert!(!recovery.clean && recovery.cut.is_empty());
    assert_eq!(ask(&log), answers);
    log.close().unwrap();
    for name in [".log", ".timeindex", ".txnindex", "-checkpoint"] {
        for (ours, theirs) in files(&partition.dir(), name).iter().zip(files(&left, name)) {
            assert_eq!(std::fs::read(ours).unwrap(), std::fs::read(theirs).unwrap(), "{}", ours.display());
        }
    }
}

#[test]
fn a_damaged_recovery_point_is_reported() {
    let (partition, left, _) = scene();
    for name in ["recovery-point-offset-checkpoint", "log-start-offset-checkpoint"] {
        for text in ["", "0\n", "0\n1\nx\n", "0\n1\nt 0 -1\n", "0\n1\nt 0 999999\n"] {
            copy(&left, &partition.dir());
            std::fs::write(partition.dir().join(name), text).unwrap();
            let opened = PartitionLog::open(&partition.dir(), partition.config);
            assert!(matches!(opened, Err(StorageError::Corrupt { .. })), "{name} {text:?} gave {opened:?}");
        }
    }
}

#[test]
fn damage_in_a_closed_segment_is_reported_by_whoever_meets_it() {
    let (partition, left, _) = scene();
    copy(&left, &partition.dir());
    let segment = &files(&partition.dir(), ".log")[1];
    let mut bytes = std::fs::read(segment).unwrap();
    bytes[16] = 9;
    std::fs::write(segment, &bytes).unwrap();
    let position = |e: StorageError| match e {
        StorageError::Corrupt { path, position, .. } => {
            assert_eq!(&path, segment);
            position
        }
        other => panic!("{other:?}"),
    };
    match PartitionLog::open(&partition.dir(), partition.config) {
        Err(error) => assert_eq!(position(error), 0),
        Ok((log, _)) => {
            let base = Offset(segment.file_stem().unwrap().to_str().unwrap().parse().unwrap());
            assert_eq!(position(log.read(base, 100, log.log_end()).unwrap_err()), 0);
            assert_eq!(position(log.verify().unwrap_err()), 0);
        }
    }
    bytes[16] = 2;
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(segment, &bytes).unwrap();
    let (log, _) = partition.reopen();
    assert!(position(log.verify().unwrap_err()) > 0, "a flipped bit in a record is found by its CRC");
}

#[test]
fn an_index_that_goes_bad_while_open_is_rebuilt() {
    let (partition, left, answers) = scene();
    copy(&left, &partition.dir());
    let (log, _) = partition.reopen();
    for path in files(&partition.dir(), ".index") {
        let len = std::fs::metadata(&path).unwrap().len() as usize;
        std::fs::write(&path, (0..len / 8).flat_map(|i| [0, 0, 0, i as u8, 0, 0, 0, 7 + i as u8]).collect::<Vec<u8>>())
            .unwrap();
    }
    assert_eq!(ask(&log), answers);
}
