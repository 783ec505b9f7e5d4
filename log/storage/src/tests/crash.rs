//! Crashes: the log stopped at any byte of its last writes, and is opened again.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use logmill_protocol::{ControlKind, HEADER_LEN, LeaderEpoch, Offset, Timestamp};

use super::{Partition, append, copy, files, small};
use crate::conformance::{batch, end, offsets, read_all, transactional};
use crate::{Damage, LogConfig, PartitionLog, Recovery, StorageError};

/// A log with three batches of three records in one segment. The first two are below the recovery point.
struct Scene {
    partition: Partition,
    /// What the crash left, before it is damaged further.
    left: PathBuf,
    log_file: PathBuf,
    /// Where the third batch begins, and where it ends.
    last: u64,
    end: u64,
}

fn scene() -> Scene {
    let partition = Partition::new(LogConfig { segment_bytes: 1 << 20, index_interval_bytes: 0, ..small() });
    let (log, _) = partition.reopen();
    append(&log, batch(0, 3));
    append(&log, batch(10, 3));
    log.close().unwrap();
    let last = log.size_bytes();
    drop(log);
    let (log, recovery) = partition.reopen();
    assert!(recovery.clean);
    append(&log, batch(20, 3));
    let end = log.size_bytes();
    let left = partition.root.path().join("left");
    copy(&partition.dir(), &left);
    let log_file = partition.dir().join("00000000000000000000.log");
    Scene { partition, left, log_file, last, end }
}

impl Scene {
    /// Opens the log after the crash and `damage` to its segment file.
    fn open(&self, damage: impl Fn(&std::fs::File)) -> Result<(PartitionLog, Recovery), StorageError> {
        copy(&self.left, &self.partition.dir());
        damage(&OpenOptions::new().read(true).write(true).open(&self.log_file).unwrap());
        PartitionLog::open(&self.partition.dir(), self.partition.config)
    }

    /// The log recovers to the two first batches, keeps what it cut, and goes on.
    fn check_cut(&self, what: &str, damage: impl Fn(&std::fs::File)) {
        copy(&self.left, &self.partition.dir());
        damage(&OpenOptions::new().read(true).write(true).open(&self.log_file).unwrap());
        let before = std::fs::read(&self.log_file).unwrap();
        let (log, recovery) = PartitionLog::open(&self.partition.dir(), self.partition.config).unwrap();
        assert_eq!((log.log_end(), log.durable()), (Offset(6), Offset(6)), "{what}");
        assert!(!recovery.clean, "{what}");
        assert_eq!(std::fs::metadata(&self.log_file).unwrap().len(), self.last, "{what}");
        let kept: Vec<u8> = recovery.cut.iter().flat_map(|c| std::fs::read(&c.kept_at).unwrap()).collect();
        assert_eq!(kept, before[self.last as usize..], "{what}: the cut bytes are kept");
        for cut in &recovery.cut {
            assert_eq!((&cut.file, cut.position, cut.bytes), (&self.log_file, self.last, kept.len() as u64), "{what}");
            assert!(!cut.reason.is_empty());
        }
        assert_eq!(append(&log, batch(30, 1)).base_offset, Offset(6), "{what}");
        assert_eq!(offsets(&read_all(&log, Offset(0), Offset(7))), [0, 1, 2, 3, 4, 5, 6], "{what}");
    }
}

#[test]
fn a_sound_tail_is_kept() {
    let scene = scene();
    let (log, recovery) = scene.open(|_| ()).unwrap();
    assert_eq!((log.log_end(), log.durable(), recovery.cut.len()), (Offset(9), Offset(9), 0));
    let from_index_entry = scene.end - scene.last / 2;
    assert_eq!(
        (recovery.clean, recovery.verified_bytes),
        (false, from_index_entry),
        "the synced part is not read again"
    );
}

#[test]
fn a_write_torn_at_any_byte_is_cut() {
    let scene = scene();
    for len in scene.last + 1..scene.end {
        scene.check_cut(&format!("torn at {len}"), |file| file.set_len(len).unwrap());
    }
    let (log, recovery) = scene.open(|file| file.set_len(scene.last).unwrap()).unwrap();
    assert_eq!((log.log_end(), recovery.clean), (Offset(6), true), "nothing of it had reached the disk");
}

fn flip(file: &std::fs::File, at: u64) {
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
}

/// Bytes of a batch that its CRC does not cover: what stands there, its neighbours tell. Nobody tells the leader epoch.
const UNCOVERED: [std::ops::Range<u64>; 2] = [0..12, 16..17];
/// A batch with another offset at the end of the log is a leftover.
const BASE_OFFSET: std::ops::Range<u64> = 0..8;
const LEADER_EPOCH: std::ops::Range<u64> = 12..16;

#[test]
fn a_flipped_bit_anywhere_in_the_tail_is_cut_or_mended() {
    let scene = scene();
    for at in scene.last..scene.end {
        let place = at - scene.last;
        if LEADER_EPOCH.contains(&place) {
            continue;
        }
        if UNCOVERED.iter().any(|range| range.contains(&place)) && !BASE_OFFSET.contains(&place) {
            let (log, recovery) = scene.open(|file| flip(file, at)).unwrap();
            assert_eq!((log.log_end(), recovery.cut.len()), (Offset(9), 0), "flipped at {at}");
            assert!(recovery.damage.iter().all(Damage::is_mended) && !recovery.damage.is_empty(), "flipped at {at}");
            assert_eq!(offsets(&read_all(&log, Offset(0), Offset(9))), (0..9).collect::<Vec<_>>(), "flipped at {at}");
            continue;
        }
        scene.check_cut(&format!("flipped at {at}"), |file| flip(file, at));
    }
}

#[test]
fn a_tail_that_the_disk_filled_with_zeros_is_cut() {
    let scene = scene();
    for from in [scene.last, scene.last + 1, scene.last + HEADER_LEN as u64, scene.end - 2] {
        scene.check_cut(&format!("zeros from {from}"), |file| {
            file.write_all_at(&vec![0; (scene.end - from) as usize], from).unwrap();
        });
    }
}

#[test]
fn garbage_after_the_last_batch_is_cut() {
    let scene = scene();
    let stale = batch(0, 3);
    for garbage in [vec![0], vec![0; 61], vec![0; 5000], vec![0xff; 61], b"not a batch".repeat(9), stale] {
        copy(&scene.left, &scene.partition.dir());
        let file = OpenOptions::new().write(true).open(&scene.log_file).unwrap();
        file.write_all_at(&garbage, scene.end).unwrap();
        let (log, recovery) = scene.partition.reopen();
        assert_eq!(log.log_end(), Offset(9));
        let cut = &recovery.cut[0];
        assert_eq!((cut.position, std::fs::read(&cut.kept_at).unwrap()), (scene.end, garbage));
    }
}

#[test]
fn a_recovered_log_is_clean_the_next_time() {
    let scene = scene();
    let (log, recovery) = scene.open(|file| file.set_len(scene.end - 1).unwrap()).unwrap();
    assert_eq!((recovery.clean, recovery.cut.len()), (false, 1));
    drop(log);
    let (log, recovery) = scene.partition.reopen();
    assert!(recovery.clean && recovery.cut.is_empty(), "{recovery:?}");
    append(&log, batch(0, 1));
    drop(log);
    let (log, recovery) = scene.partition.reopen();
    assert!(!recovery.clean && recovery.cut.is_empty(), "{recovery:?}");
    log.close().unwrap();
    let (log, recovery) = scene.partition.reopen();
    assert!(recovery.clean, "{recovery:?}");
    assert_eq!(log.log_end(), Offset(7));
}

#[test]
fn earlier_cuts_are_never_overwritten() {
    let scene = scene();
    copy(&scene.left, &scene.partition.dir());
    for round in 1..4 {
        let file = OpenOptions::new().write(true).open(&scene.log_file).unwrap();
        file.write_all_at(&[round; 10], scene.end).unwrap();
        scene.partition.reopen();
    }
    let kept: Vec<_> =
        files(&scene.partition.dir(), "").into_iter().filter(|p| p.to_string_lossy().contains(".cut-")).collect();
    assert_eq!(kept.len(), 3, "{kept:?}");
}

#[test]
fn damage_below_the_recovery_point_is_kept_and_reported_and_the_rest_is_served() {
    let scene = scene();
    let second = scene.last / 2;
    for at in 0..scene.last {
        let batch_start = if at < second { 0 } else { second };
        if LEADER_EPOCH.contains(&(at - batch_start)) {
            continue;
        }
        let what = format!("flipped at {at}");
        copy(&scene.left, &scene.partition.dir());
        flip(&OpenOptions::new().read(true).write(true).open(&scene.log_file).unwrap(), at);
        let before = std::fs::read(&scene.log_file).unwrap();
        let (log, recovery) = scene.partition.reopen();
        // The first batch lies below the index entry that the check begins at: only a whole check finds what is wrong with it.
        let found = if recovery.damage.is_empty() { log.find_damage().unwrap() } else { recovery.damage };
        assert_eq!((found.len(), found[0].position, &found[0].file), (1, batch_start, &scene.log_file), "{what}");
        assert_eq!(std::fs::read(found[0].kept_at.as_ref().unwrap()).unwrap(), before, "{what}: everything is kept");
        let intact: Vec<i64> = match UNCOVERED.iter().any(|range| range.contains(&(at - batch_start))) {
            true => (0..9).collect(),
            false if batch_start == 0 => (3..9).collect(),
            false => (0..3).chain(6..9).collect(),
        };
        check_reads(&log, &intact, &what);
        assert_eq!(append(&log, batch(30, 1)).base_offset, Offset(9), "{what}: no offset is used again");
        drop(log);
        let (log, recovery) = scene.partition.reopen();
        assert!(recovery.cut.is_empty(), "{what}");
        check_reads(&log, &intact.iter().copied().chain([9]).collect::<Vec<_>>(), &what);
    }
}

/// Exactly these offsets can be read; the others between them are told to be lost.
fn check_reads(log: &PartitionLog, intact: &[i64], what: &str) {
    let end = log.log_end();
    for offset in (log.log_start().0..end.0).map(Offset) {
        match log.read(offset, 1, end) {
            Ok(read) => {
                assert!(offsets(&read.bytes).contains(&offset.0) && intact.contains(&offset.0), "{what} {offset}")
            }
            Err(StorageError::Lost { from, to, .. }) => {
                assert!(from <= offset && offset < to && !intact.contains(&offset.0), "{what}: {offset} is lost");
            }
            Err(other) => panic!("{what}: {offset} gave {other:?}"),
        }
    }
    assert_eq!(log.log_start().0, intact[0], "{what}");
}

#[test]
fn a_log_that_ends_below_the_recovery_point_goes_on_behind_it() {
    let scene = scene();
    let second = scene.last / 2;
    for len in [0, 1, second, second + 1, scene.last - 1] {
        let (log, recovery) = scene.open(|file| file.set_len(len).unwrap()).unwrap();
        let kept = if len < second { 0 } else { 3 };
        let lost = recovery.damage.iter().find(|d| d.to == Offset(6)).unwrap();
        assert_eq!((lost.from, log.log_end()), (Offset(kept), Offset(6)), "cut to {len}");
        assert_eq!(append(&log, batch(30, 1)).base_offset, Offset(6), "cut to {len}");
        for offset in kept..6 {
            let lost = log.read(Offset(offset), 1, log.log_end()).unwrap_err();
            assert!(matches!(lost, StorageError::Lost { .. } | StorageError::OffsetOutOfRange { .. }), "{lost:?}");
        }
    }
    copy(&scene.left, &scene.partition.dir());
    std::fs::remove_file(&scene.log_file).unwrap();
    let (log, recovery) = scene.partition.reopen();
    assert_eq!((log.log_start(), log.log_end()), (Offset(6), Offset(6)));
    assert!(recovery.damage[0].to_string().contains("records up to 5 were synced"), "{recovery:?}");
}

#[test]
fn what_was_synced_long_ago_is_not_read_again_after_a_crash() {
    let partition = Partition::new(LogConfig { segment_bytes: 1 << 20, ..small() });
    let (log, _) = partition.reopen();
    for n in 0..500 {
        append(&log, batch(n, 10));
    }
    log.close().unwrap();
    drop(log);
    let (log, _) = partition.reopen();
    let before = log.size_bytes();
    append(&log, batch(9_000, 1));
    let unsynced = log.size_bytes() - before;
    let answers: Vec<_> = (0..9_001).step_by(100).map(|t| log.offset_for_time(Timestamp(t)).unwrap()).collect();
    drop(log);
    let (log, recovery) = partition.reopen();
    let batch_bytes = before / 500;
    let most = unsynced + 2 * batch_bytes + partition.config.index_interval_bytes;
    assert!((unsynced..=most).contains(&recovery.verified_bytes), "{} of {before}", recovery.verified_bytes);
    assert_eq!(log.log_end(), Offset(5_001));
    let again: Vec<_> = (0..9_001).step_by(100).map(|t| log.offset_for_time(Timestamp(t)).unwrap()).collect();
    assert_eq!(again, answers, "the indexes go on where they were");
}

#[test]
fn an_emptied_last_segment_is_passed_over_once_it_is_bridged() {
    let (partition, segments) = unsynced();
    partition.reopen().0.close().unwrap();
    let last = segments.last().unwrap();
    std::fs::write(last, b"").unwrap();
    let (log, recovery) = partition.reopen();
    assert_eq!((recovery.damage.len(), log.log_end()), (1, Offset(120)), "{recovery:?}");
    assert_eq!(log.bridge_damage().unwrap().len(), 1);
    append(&log, batch(0, 1));
    let intact: Vec<_> = (0..base(last)).chain([120]).collect();
    assert_eq!(offsets(&read_all(&log, Offset(0), Offset(121))), intact);
    log.close().unwrap();
    drop(log);
    let (log, recovery) = partition.reopen();
    assert!(recovery.clean && recovery.damage.is_empty(), "{recovery:?}");
    assert_eq!(offsets(&read_all(&log, Offset(0), Offset(121))), intact);
}

#[test]
fn readers_pass_over_lost_records_once_they_are_bridged() {
    let scene = scene();
    let (log, recovery) = scene.open(|file| flip(file, scene.last / 2 + 30)).unwrap();
    assert_eq!((recovery.damage[0].from, recovery.damage[0].to), (Offset(3), Offset(6)));
    assert_eq!(log.bridge_damage().unwrap().len(), 1);
    let check = |log: &PartitionLog| {
        assert_eq!(offsets(&read_all(log, Offset(0), Offset(9))), [0, 1, 2, 6, 7, 8]);
        assert_eq!(log.damage(), []);
        assert_eq!(log.offset_for_time(Timestamp(12)).unwrap().map(|(o, _)| o), Some(Offset(6)));
        log.verify().unwrap();
    };
    check(&log);
    log.close().unwrap();
    let (log, recovery) = scene.partition.reopen();
    assert!(recovery.clean && recovery.damage.is_empty(), "{recovery:?}");
    check(&log);
}

/// A log of many segments, none of which was ever synced.
fn unsynced() -> (Partition, Vec<PathBuf>) {
    let partition = Partition::new(small());
    let (log, _) = partition.reopen();
    for i in 0..12 {
        append(&log, batch(i * 10, 10));
    }
    drop(log);
    let segments = files(&partition.dir(), ".log");
    assert!(segments.len() >= 4);
    (partition, segments)
}

fn base(path: &Path) -> i64 {
    path.file_stem().unwrap().to_str().unwrap().parse().unwrap()
}

#[test]
fn what_is_sound_behind_a_torn_segment_is_kept() {
    let (partition, segments) = unsynced();
    let torn = &segments[1];
    let len = std::fs::metadata(torn).unwrap().len();
    OpenOptions::new().write(true).open(torn).unwrap().set_len(len - 1).unwrap();
    let (log, recovery) = partition.reopen();
    assert_eq!((log.log_end(), recovery.cut.len(), recovery.damage.len()), (Offset(120), 0, 1));
    let lost = &recovery.damage[0];
    assert_eq!((lost.to, &lost.file), (Offset(base(&segments[2])), torn));
    assert_eq!(append(&log, batch(0, 1)).base_offset, Offset(120));
    let intact: Vec<_> = (0..121).filter(|offset| !(lost.from.0..lost.to.0).contains(offset)).collect();
    check_reads(&log, &intact, "torn");
}

#[test]
fn rolls_that_the_disk_kept_without_the_records_before_them_are_undone() {
    for keeps_a_batch in [false, true] {
        let (partition, segments) = unsynced();
        let bytes = std::fs::read(&segments[1]).unwrap();
        let batch_bytes = 12 + u32::from_be_bytes(bytes[8..12].try_into().unwrap());
        let kept = if keeps_a_batch { u64::from(batch_bytes) } else { 0 };
        assert!(kept < bytes.len() as u64);
        OpenOptions::new().write(true).open(&segments[1]).unwrap().set_len(kept).unwrap();
        for later in &segments[2..] {
            std::fs::write(later, []).unwrap();
        }
        let (log, recovery) = partition.reopen();
        let end = Offset(base(&segments[1]) + if keeps_a_batch { 10 } else { 0 });
        assert_eq!((log.log_end(), recovery.damage.as_slice()), (end, [].as_slice()));
        assert_eq!(append(&log, batch(0, 1)).base_offset, end);
        assert_eq!(offsets(&read_all(&log, Offset(0), log.log_end())), (0..=end.0).collect::<Vec<_>>());
    }
}

#[test]
fn what_is_torn_up_to_the_end_of_the_log_is_cut_over_several_segments() {
    let (partition, segments) = unsynced();
    let torn = &segments[1];
    let len = std::fs::metadata(torn).unwrap().len();
    OpenOptions::new().write(true).open(torn).unwrap().set_len(len - 1).unwrap();
    for later in &segments[2..] {
        std::fs::write(later, [0; 300]).unwrap();
    }
    let (log, recovery) = partition.reopen();
    assert!(log.log_end() < Offset(base(&segments[2])));
    assert_eq!((recovery.cut.len(), recovery.damage.len()), (segments.len() - 1, 0));
    let kept: Vec<u8> = recovery.cut[1..].iter().flat_map(|c| std::fs::read(&c.kept_at).unwrap()).collect();
    assert_eq!(kept, vec![0; 300 * (segments.len() - 2)]);
    assert_eq!(log.segment_count(), 2);
    let end = log.log_end();
    assert_eq!(append(&log, batch(0, 1)).base_offset, end);
    assert_eq!(offsets(&read_all(&log, Offset(0), log.log_end())), (0..=end.0).collect::<Vec<_>>());
}

#[test]
fn a_segment_that_vanished_leaves_the_others_readable() {
    let (partition, segments) = unsynced();
    let left = partition.root.path().join("left");
    copy(&partition.dir(), &left);
    for synced in [false, true] {
        for gone in 0..segments.len() {
            copy(&left, &partition.dir());
            if synced {
                partition.reopen().0.close().unwrap();
            }
            std::fs::remove_file(&segments[gone]).unwrap();
            let (log, recovery) = partition.reopen();
            let from = base(&segments[gone]);
            let to = segments.get(gone + 1).map_or(120, |next| base(next));
            let what = format!("segment {gone} gone, synced: {synced}");
            let is_last_empty = std::fs::metadata(&segments[segments.len() - 1]).is_ok_and(|last| last.len() == 0);
            if !synced && (gone + 1 == segments.len() || gone + 2 == segments.len() && is_last_empty) {
                // Nothing says that there ever was more.
                assert_eq!((log.log_end(), recovery.damage.len()), (Offset(from), 0), "{what}");
                continue;
            }
            let lost = &recovery.damage[0];
            assert_eq!((lost.from, lost.to, recovery.cut.len()), (Offset(from), Offset(to), 0), "{what}");
            assert_eq!(append(&log, batch(0, 1)).base_offset, Offset(120), "{what}");
            let intact: Vec<_> = (0..121).filter(|offset| !(from..to).contains(offset)).collect();
            check_reads(&log, &intact, &what);
        }
    }
}

#[test]
fn what_is_known_of_lost_records_is_forgotten() {
    let partition = Partition::new(LogConfig { segment_bytes: 1 << 20, ..small() });
    let (log, _) = partition.reopen();
    append(&log, transactional(1, 0, 0, 2));
    let kept = log.size_bytes();
    log.append_control(end(1, 0, ControlKind::Abort), LeaderEpoch(5), Timestamp(0)).unwrap();
    append_at(&log, 5, batch(0, 1));
    log.close().unwrap();
    // Everything beside the segment reached the disk, the segment's end and the recovery point did not.
    let segment = files(&partition.dir(), ".log").pop().unwrap();
    OpenOptions::new().write(true).open(segment).unwrap().set_len(kept).unwrap();
    std::fs::remove_file(partition.dir().join("recovery-point-offset-checkpoint")).unwrap();
    let (log, recovery) = partition.reopen();
    assert_eq!((log.log_end(), recovery.cut.len(), log.open_transactions().len()), (Offset(2), 0, 1));
    append_at(&log, 3, batch(0, 1));
    log.append_control(end(1, 0, ControlKind::Commit), LeaderEpoch(6), Timestamp(0)).unwrap();
    append_at(&log, 6, batch(0, 1));
    let check = |log: &PartitionLog| {
        assert_eq!(log.aborted_transactions(Offset(0), Offset(5)).unwrap(), []);
        let expected = [(0, 0), (3, 2), (6, 3)].map(|(epoch, offset)| (LeaderEpoch(epoch), Offset(offset)));
        assert_eq!(log.leader_epochs(), expected);
        assert_eq!((log.log_end(), log.open_transactions()), (Offset(5), vec![]));
    };
    check(&log);
    drop(log);
    check(&partition.reopen().0);
}

fn append_at(log: &PartitionLog, leader_epoch: i32, mut bytes: Vec<u8>) {
    log.append(&mut bytes, LeaderEpoch(leader_epoch), Timestamp(0)).unwrap();
}

#[test]
fn leftovers_of_interrupted_work_are_removed() {
    let scene = scene();
    copy(&scene.left, &scene.partition.dir());
    let dir = scene.partition.dir();
    for name in ["leader-epoch-checkpoint.tmp", "00000000000000000077.index", "00000000000000000077.txnindex"] {
        std::fs::write(dir.join(name), b"leftover").unwrap();
    }
    std::fs::write(dir.join("00000000000000000077.snapshot"), b"leftover").unwrap();
    std::fs::write(dir.join("README.txt"), b"not ours").unwrap();
    let (log, _) = scene.partition.reopen();
    assert_eq!(log.log_end(), Offset(9));
    let names: Vec<_> = files(&dir, "").iter().map(|p| p.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    assert!(!names.iter().any(|n| n.ends_with(".tmp") || n.contains("77")), "{names:?}");
    assert!(names.iter().any(|n| n == "README.txt"));
}
