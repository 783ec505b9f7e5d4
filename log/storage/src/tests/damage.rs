//! Files beside the segments that are missing, cut, or full of garbage: rebuilt from the batches, or reported.

use std::path::PathBuf;

use logmill_protocol::{ControlKind, LeaderEpoch, Offset, Timestamp};

use super::{Partition, append, copy, files, small};
use crate::conformance::{LEADER, batch, end, idempotent, offsets, transactional};
use crate::{AbortedTxn, OpenTxn, PartitionLog};

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
    // A flipped bit looks like another version: the batches say all that it held, and the file is kept.
    copy(&left, &partition.dir());
    std::fs::write(&path, "1\n0\n").unwrap();
    assert_eq!(ask(&partition.reopen().0), answers);
    assert_eq!(std::fs::read(partition.dir().join("leader-epoch-checkpoint.damaged-1")).unwrap(), b"1\n0\n");
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
fn offset_checkpoints_that_are_damaged_are_made_again() {
    let (partition, left, answers) = scene();
    for name in ["recovery-point-offset-checkpoint", "log-start-offset-checkpoint"] {
        for text in ["", "0\n", "0\n1\nx\n", "0\n1\nt 0 -1\n", "1\n1\nt 0 3\n", "0\n1\nt 0 3\ncrc32c 00000000\n"] {
            copy(&left, &partition.dir());
            std::fs::write(partition.dir().join(name), text).unwrap();
            let (log, recovery) = partition.reopen();
            assert_eq!(ask(&log), answers, "{name} {text:?}");
            assert_eq!((recovery.rebuilt.len(), recovery.damage.len()), (1, 0), "{name} {text:?}: {recovery:?}");
            let kept = std::fs::read(partition.dir().join(format!("{name}.damaged-1"))).unwrap();
            assert_eq!(kept, text.as_bytes());
            log.close().unwrap();
            drop(log);
            assert!(partition.reopen().1.clean, "{name} {text:?}");
        }
        // Without a CRC, as earlier versions wrote it, a wrong number does not make the log jump.
        copy(&left, &partition.dir());
        std::fs::write(partition.dir().join(name), "0\n1\nt 0 999999\n").unwrap();
        assert_eq!(ask(&partition.reopen().0), answers, "{name}");
    }
}

#[test]
fn what_is_no_file_is_set_aside() {
    let (partition, left, answers) = scene();
    let names: Vec<_> = files(&left, "").iter().map(|p| p.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    for name in names.iter().filter(|name| !name.ends_with(".log")) {
        for is_loop in [false, true] {
            copy(&left, &partition.dir());
            let path = partition.dir().join(name);
            std::fs::remove_file(&path).unwrap();
            match is_loop {
                true => std::os::unix::fs::symlink(name, &path).unwrap(),
                false => std::fs::create_dir(&path).unwrap(),
            }
            let (log, recovery) = partition.reopen();
            assert_eq!(ask(&log), answers, "{name}");
            assert!(recovery.damage.is_empty(), "{name} {recovery:?}");
            log.append(&mut batch(900, 1), LeaderEpoch(3), Timestamp(0)).unwrap();
            log.close().unwrap();
            drop(log);
            assert!(partition.reopen().1.clean, "{name}");
        }
    }
}

#[test]
fn damage_in_a_closed_segment_is_set_aside_by_whoever_meets_it() {
    let (partition, left, _) = scene();
    let segment = files(&left, ".log")[1].file_name().unwrap().to_owned();
    let good = std::fs::read(left.join(&segment)).unwrap();
    let base: i64 = segment.to_str().unwrap()[..20].parse().unwrap();
    // The magic, whose value is known; a record, which only the CRC tells.
    for (at, value, is_lost) in [(16, 9, false), (good.len() - 1, good[good.len() - 1] ^ 1, true), (8, 0x70, false)] {
        copy(&left, &partition.dir());
        let mut bytes = good.clone();
        bytes[at] = value;
        std::fs::write(partition.dir().join(&segment), &bytes).unwrap();
        let (log, recovery) = partition.reopen();
        let before = read_intact(&log);
        assert_eq!(before.contains(&base), recovery.damage.is_empty() || !is_lost, "{at}: {before:?}");
        let found = log.find_damage().unwrap();
        let all: Vec<_> = recovery.damage.iter().chain(&found).collect();
        assert!(all.iter().all(|damage| damage.is_mended() != is_lost), "{at}: {all:?}");
        assert_eq!(log.damage().len(), usize::from(is_lost), "{at}");
        log.verify().unwrap();
        let lost = log.damage().first().map_or(0, |d| d.to.0 - d.from.0);
        assert_eq!(read_intact(&log).len() as i64, log.log_end().0 - lost, "{at}");
        assert_eq!(log.find_damage().unwrap(), [], "{at}");
    }
}

/// The offsets that can be read.
fn read_intact(log: &PartitionLog) -> Vec<i64> {
    let all = (log.log_start().0..log.log_end().0).map(Offset);
    all.filter(|offset| log.read(*offset, 1, log.log_end()).is_ok()).map(|offset| offset.0).collect()
}

#[test]
fn a_time_index_that_lies_misses_no_record() {
    let (partition, left, answers) = scene();
    for path in files(&left, ".timeindex") {
        let good = std::fs::read(&path).unwrap();
        let name = path.file_name().unwrap();
        for at in 0..good.len() {
            copy(&left, &partition.dir());
            let mut bytes = good.clone();
            bytes[at] ^= 0x10;
            std::fs::write(partition.dir().join(name), bytes).unwrap();
            assert_eq!(ask(&partition.reopen().0), answers, "{} at {at}", path.display());
        }
    }
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
