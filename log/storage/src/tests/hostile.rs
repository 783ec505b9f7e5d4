//! Arbitrary bytes in a partition's files: every open, read and append answers, with an error at worst.

use logmill_protocol::{Offset, Timestamp};
use proptest::prelude::*;

use super::{Partition, append, copy, files, small};
use crate::PartitionLog;
use crate::conformance::{LEADER, batch, idempotent, transactional};

/// Damage to one file: some bytes overwritten, then cut or extended.
#[derive(Debug, Clone)]
struct Damage {
    file: prop::sample::Index,
    at: prop::sample::Index,
    bytes: Vec<u8>,
    len: Option<prop::sample::Index>,
}

fn damage() -> impl Strategy<Value = Damage> {
    let bytes = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..80),
        // Extremes of the integers that the formats are made of.
        prop::sample::select(vec![
            vec![0xff; 8],
            vec![0x7f, 0xff, 0xff, 0xff],
            vec![0x80, 0, 0, 0, 0, 0, 0, 0],
            vec![0; 70]
        ]),
    ];
    (any::<prop::sample::Index>(), any::<prop::sample::Index>(), bytes, prop::option::of(any::<prop::sample::Index>()))
        .prop_map(|(file, at, bytes, len)| Damage { file, at, bytes, len })
}

fn inflict(damage: &Damage, all: &[std::path::PathBuf]) {
    let path = damage.file.get(all);
    let mut content = std::fs::read(path).unwrap();
    let at = damage.at.index(content.len() + 1);
    content.resize(content.len().max(at + damage.bytes.len()), 0);
    content[at..at + damage.bytes.len()].copy_from_slice(&damage.bytes);
    if let Some(len) = &damage.len {
        content.truncate(len.index(content.len() + 1));
    }
    std::fs::write(path, content).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn damaged_files_never_panic(damages in prop::collection::vec(damage(), 1..4), closed: bool) {
        let partition = Partition::new(small());
        let (log, _) = partition.reopen();
        for round in 0..4 {
            append(&log, batch(i64::from(round) * 10, 4));
            append(&log, idempotent(50, 0, round * 2, 2));
            append(&log, transactional(i64::from(round), 0, 0, 1));
        }
        if closed {
            log.close().unwrap();
        } else {
            log.roll().unwrap();
        }
        let left = partition.root.path().join("left");
        copy(&partition.dir(), &left);
        drop(log);
        copy(&left, &partition.dir());
        let all = files(&partition.dir(), "");
        for damage in &damages {
            inflict(damage, &all);
        }
        if let Ok((log, _)) = PartitionLog::open(&partition.dir(), partition.config) {
            log.set_high_watermark(log.log_end());
            for offset in [0, 3, 9, 20, i64::MAX] {
                let _ = log.read(Offset(offset), 500, log.log_end());
                let _ = log.aborted_transactions(Offset(offset), log.log_end());
            }
            let _ = (log.verify(), log.offset_for_time(Timestamp(15)));
            let _ = log.append(&mut batch(0, 2), LEADER, Timestamp(0));
            let _ = log.truncate_to(log.log_start().plus(5));
            let _ = log.close();
        }
    }
}
