//! Random operations on a log and on a plain model of it: both must always agree.

use std::os::unix::fs::FileExt;

use logmill_protocol::{LeaderEpoch, Offset, Timestamp};
use proptest::prelude::*;

use super::{Partition, files, small};
use crate::conformance::{batch, offsets, read_all};
use crate::{LogConfig, PartitionLog};

#[derive(Debug, Clone)]
enum Op {
    Append { counts: Vec<usize>, timestamp: i64 },
    Read { at: f64, max_bytes: usize, up_to: f64 },
    FindTime(i64),
    Sync,
    Roll,
    RaiseHighWatermark(f64),
    DeleteBefore(f64),
    Truncate(f64),
    Close,
    Kill,
    LosePower { kept: f64, garbage: usize },
}

fn op() -> impl Strategy<Value = Op> {
    let part = 0.0..=1.0f64;
    prop_oneof![
        8 => (prop::collection::vec(1usize..12, 1..4), 0i64..500)
            .prop_map(|(counts, timestamp)| Op::Append { counts, timestamp }),
        4 => (part.clone(), 0usize..2000, part.clone())
            .prop_map(|(at, max_bytes, up_to)| Op::Read { at, max_bytes, up_to }),
        2 => (-5i64..520).prop_map(Op::FindTime),
        2 => Just(Op::Sync),
        1 => Just(Op::Roll),
        2 => part.clone().prop_map(Op::RaiseHighWatermark),
        1 => part.clone().prop_map(Op::DeleteBefore),
        1 => part.clone().prop_map(Op::Truncate),
        1 => Just(Op::Close),
        1 => Just(Op::Kill),
        1 => (part, 0usize..200).prop_map(|(kept, garbage)| Op::LosePower { kept, garbage }),
    ]
}

/// One batch: base offset, record count, first timestamp.
type Batch = (i64, usize, i64);

struct Model {
    partition: Partition,
    log: PartitionLog,
    batches: Vec<Batch>,
    log_start: i64,
    high_watermark: i64,
    durable: i64,
}

impl Model {
    fn log_end(&self) -> i64 {
        self.batches.last().map_or(0, |(base, count, _)| base + *count as i64)
    }

    /// An offset between log start and log end.
    fn place(&self, part: f64) -> i64 {
        self.log_start + ((self.log_end() - self.log_start) as f64 * part) as i64
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Append { counts, timestamp } => self.append(counts, *timestamp),
            Op::Read { at, max_bytes, up_to } => self.read(self.place(*at), *max_bytes, self.place(*up_to)),
            Op::FindTime(at) => self.find_time(*at),
            Op::Sync => {
                assert_eq!(self.log.sync().unwrap().0, self.log_end());
                self.durable = self.log_end();
            }
            Op::Roll => self.log.roll().unwrap(),
            Op::RaiseHighWatermark(part) => {
                let offset = self.place(*part);
                self.high_watermark = self.high_watermark.max(offset);
                assert_eq!(self.log.set_high_watermark(Offset(offset)).0, self.high_watermark);
            }
            Op::DeleteBefore(part) => {
                let offset = self.place(*part).min(self.high_watermark).max(self.log_start);
                assert_eq!(self.log.delete_records_before(Offset(offset)).unwrap().0, offset);
                if offset > self.log_start && offset > self.durable {
                    self.durable = self.log_end();
                }
                self.log_start = offset;
            }
            Op::Truncate(part) => self.truncate(self.place(*part)),
            Op::Close => {
                self.log.close().unwrap();
                self.reopen(true);
            }
            Op::Kill => self.reopen(false),
            Op::LosePower { kept, garbage } => self.lose_power(*kept, *garbage),
        }
    }

    fn append(&mut self, counts: &[usize], timestamp: i64) {
        let mut bytes: Vec<u8> = counts.iter().flat_map(|count| batch(timestamp, *count)).collect();
        let appended = self.log.append(&mut bytes, LeaderEpoch(1), Timestamp(0)).unwrap();
        assert_eq!(appended.base_offset.0, self.log_end());
        for count in counts {
            self.batches.push((self.log_end(), *count, timestamp));
        }
        assert_eq!(appended.last_offset.0 + 1, self.log_end());
    }

    fn read(&self, from: i64, max_bytes: usize, up_to: i64) {
        let read = self.log.read(Offset(from), max_bytes, Offset(up_to)).unwrap();
        let holding: Vec<i64> = self
            .batches
            .iter()
            .filter(|(base, count, _)| base + *count as i64 > from && base + *count as i64 <= up_to)
            .flat_map(|(base, count, _)| *base..base + *count as i64)
            .collect();
        let found = offsets(&read.bytes);
        assert!(holding.starts_with(&found), "{from}..{up_to} gave {found:?} of {holding:?}");
        assert_eq!(found.is_empty(), holding.is_empty());
        assert_eq!(read.next_offset.0, found.last().map_or(from, |last| last + 1));
    }

    fn find_time(&self, at: i64) {
        let records =
            self.batches.iter().flat_map(|(base, count, t)| (0..*count as i64).map(move |i| (base + i, t + i)));
        let expected = records.into_iter().find(|(offset, t)| *offset >= self.log_start && *t >= at);
        let found = self.log.offset_for_time(Timestamp(at)).unwrap().map(|(o, t)| (o.0, t.0));
        assert_eq!(found, expected, "at {at}");
    }

    fn truncate(&mut self, offset: i64) {
        if offset < self.log_end() {
            self.batches.retain(|(base, count, _)| base + *count as i64 <= offset);
        }
        // A deleted beginning may still be on disk, but the log never ends before it starts.
        if self.log_end() < self.log_start {
            self.batches.clear();
        }
        let end = self.log.truncate_to(Offset(offset)).unwrap().0;
        if self.batches.is_empty() {
            assert!(end <= offset);
            self.batches.push((end, 0, 0));
        }
        assert_eq!(end, self.log_end());
        self.log_start = self.log_start.min(end);
        self.durable = self.durable.min(end);
        self.high_watermark = self.high_watermark.min(end);
    }

    fn reopen(&mut self, clean: bool) {
        let (log, recovery) = self.partition.reopen();
        assert_eq!(recovery.cut, []);
        assert!(!clean || recovery.clean, "{recovery:?}");
        self.log = log;
        self.durable = self.log_end();
        self.high_watermark = self.log_start;
    }

    /// Keeps a part of the active segment's bytes that were not synced, and adds garbage.
    fn lose_power(&mut self, kept: f64, garbage: usize) {
        let path = files(&self.partition.dir(), ".log").pop().unwrap();
        let base: i64 = path.file_stem().unwrap().to_str().unwrap().parse().unwrap();
        let mut position = 0;
        let mut safe = 0;
        let mut ends = Vec::new();
        let bytes = std::fs::read(&path).unwrap();
        for batch in logmill_protocol::batches(&bytes) {
            let batch = batch.unwrap();
            position += batch.bytes().len();
            let next = batch.header().next_offset().0;
            ends.push((position, next));
            if next <= self.durable {
                safe = position;
            }
        }
        let len = safe + ((bytes.len() - safe) as f64 * kept) as usize;
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(len as u64).unwrap();
        file.write_all_at(&vec![0xa5; garbage], len as u64).unwrap();
        let end = ends.iter().rev().find(|(position, _)| *position <= len).map_or(base, |(_, next)| *next);
        self.batches.retain(|(base, count, _)| base + *count as i64 <= end);
        if self.batches.is_empty() {
            self.batches.push((end, 0, 0));
        }
        let (log, recovery) = self.partition.reopen();
        let sound = ends.iter().rev().map(|(position, _)| *position).find(|p| *p <= len).unwrap_or(0);
        assert_eq!(recovery.cut.iter().map(|c| c.bytes).sum::<u64>(), (len + garbage - sound) as u64);
        self.log = log;
        self.durable = self.log_end();
        self.high_watermark = self.log_start;
    }

    fn check(&self) {
        let log = &self.log;
        assert_eq!((log.log_start().0, log.log_end().0), (self.log_start, self.log_end()));
        assert_eq!((log.high_watermark().0, log.durable().0), (self.high_watermark, self.durable));
        let bytes = read_all(log, log.log_start(), log.log_end());
        let all: Vec<i64> = offsets(&bytes).into_iter().filter(|o| *o >= self.log_start).collect();
        assert_eq!(all, (self.log_start..self.log_end()).collect::<Vec<_>>());
        log.verify().unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]
    #[test]
    fn the_log_agrees_with_its_model(
        ops in prop::collection::vec(op(), 1..60),
        segment_bytes in prop_oneof![Just(1u64), 200u64..3000],
        index_interval_bytes in 0u64..500,
        preallocate: bool,
    ) {
        let config = LogConfig { segment_bytes, index_interval_bytes, preallocate, ..small() };
        let partition = Partition::new(config);
        let (log, _) = partition.reopen();
        let mut model = Model { partition, log, batches: Vec::new(), log_start: 0, high_watermark: 0, durable: 0 };
        for op in &ops {
            model.apply(op);
            model.check();
        }
    }
}
