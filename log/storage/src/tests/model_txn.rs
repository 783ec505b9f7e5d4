//! Random transactions of several producers: the last stable offset and the aborted transactions that the log names
//! are those that follow from the whole history.

use logmill_protocol::{ControlKind, Offset, ProducerId, Timestamp};
use proptest::prelude::*;

use super::{Partition, append, small};
use crate::conformance::{LEADER, batch, end, transactional};
use crate::{AbortedTxn, LogConfig, OpenTxn, PartitionLog};

#[derive(Debug, Clone)]
enum Op {
    Plain,
    Write { id: i64, count: usize },
    End { id: i64, commit: bool },
    RaiseHighWatermark(f64),
    Truncate(f64),
    Roll,
    Sync,
    Close,
    Kill,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        2 => Just(Op::Plain),
        6 => (1i64..5, 1usize..4).prop_map(|(id, count)| Op::Write { id, count }),
        4 => (1i64..5, any::<bool>()).prop_map(|(id, commit)| Op::End { id, commit }),
        4 => (0.0..=1.0f64).prop_map(Op::RaiseHighWatermark),
        1 => (0.0..=1.0f64).prop_map(Op::Truncate),
        1 => Just(Op::Roll),
        1 => Just(Op::Sync),
        1 => Just(Op::Close),
        1 => Just(Op::Kill),
    ]
}

/// One batch of the history.
#[derive(Debug, Clone, Copy)]
struct Event {
    base: i64,
    count: i64,
    id: i64,
    /// How a marker ended the transaction.
    ended: Option<ControlKind>,
}

struct History {
    events: Vec<Event>,
    high_watermark: i64,
}

/// A transaction that has ended: producer, first offset, offset of the marker, whether it was aborted.
type Ended = (i64, i64, i64, bool);

impl History {
    fn log_end(&self) -> i64 {
        self.events.last().map_or(0, |e| e.base + e.count)
    }

    fn push(&mut self, count: usize, id: i64, ended: Option<ControlKind>) {
        self.events.push(Event { base: self.log_end(), count: count as i64, id, ended });
    }

    fn sequence(&self, id: i64) -> i32 {
        self.events.iter().filter(|e| e.id == id && e.ended.is_none()).map(|e| e.count as i32).sum()
    }

    /// What is open and what has ended after the first `len` events.
    fn transactions(&self, len: usize) -> (Vec<OpenTxn>, Vec<Ended>) {
        let (mut open, mut ended): (Vec<OpenTxn>, Vec<Ended>) = (Vec::new(), Vec::new());
        for event in self.events[..len].iter().filter(|e| e.id != 0) {
            let producer_id = ProducerId(event.id);
            let at = open.iter().position(|t| t.producer_id == producer_id);
            match (event.ended, at) {
                (None, None) => open.push(OpenTxn { first_offset: Offset(event.base), producer_id }),
                (Some(kind), Some(at)) => {
                    let first_offset = open.remove(at).first_offset.0;
                    ended.push((event.id, first_offset, event.base, kind == ControlKind::Abort));
                }
                _ => {}
            }
        }
        (open, ended)
    }

    fn last_stable(&self) -> i64 {
        let (open, ended) = self.transactions(self.events.len());
        let open = open.iter().map(|t| t.first_offset.0);
        let unreplicated = ended.iter().filter(|e| e.2 >= self.high_watermark).map(|e| e.1);
        open.chain(unreplicated).chain([self.high_watermark]).min().unwrap_or(0)
    }

    fn aborted(&self, from: i64, to: i64) -> Vec<AbortedTxn> {
        let stable_after = |marker: i64| {
            let len = self.events.iter().position(|e| e.base == marker).map_or(0, |i| i + 1);
            self.transactions(len).0.first().map_or(marker + 1, |t| t.first_offset.0)
        };
        let (_, ended) = self.transactions(self.events.len());
        let hit = ended.into_iter().filter(|(_, first, last, aborted)| *aborted && *last >= from && *first < to);
        hit.map(|(id, first, last, _)| AbortedTxn {
            producer_id: ProducerId(id),
            first_offset: Offset(first),
            last_offset: Offset(last),
            last_stable_offset: Offset(stable_after(last)),
        })
        .collect()
    }

    fn apply(&mut self, log: &PartitionLog, op: &Op) {
        match op {
            Op::Plain => {
                append(log, batch(0, 1));
                self.push(1, 0, None);
            }
            Op::Write { id, count } => {
                append(log, transactional(*id, 0, self.sequence(*id), *count));
                self.push(*count, *id, None);
            }
            Op::End { id, commit } => {
                let kind = if *commit { ControlKind::Commit } else { ControlKind::Abort };
                log.append_control(end(*id, 0, kind), LEADER, Timestamp(0)).unwrap();
                self.push(1, *id, Some(kind));
            }
            Op::RaiseHighWatermark(part) => {
                let offset = (self.log_end() as f64 * part) as i64;
                self.high_watermark = self.high_watermark.max(offset);
                log.set_high_watermark(Offset(offset));
            }
            Op::Truncate(part) => {
                let offset = (self.log_end() as f64 * part) as i64;
                self.events.retain(|e| e.base + e.count <= offset);
                self.high_watermark = self.high_watermark.min(self.log_end());
                assert_eq!(log.truncate_to(Offset(offset)).unwrap().0, self.log_end());
            }
            Op::Roll => log.roll().unwrap(),
            Op::Sync => drop(log.sync().unwrap()),
            Op::Close => log.close().unwrap(),
            Op::Kill => {}
        }
    }

    fn check(&self, log: &PartitionLog) {
        let (mut open, _) = self.transactions(self.events.len());
        open.sort_by_key(|t| t.first_offset);
        assert_eq!(log.open_transactions(), open);
        assert_eq!(log.last_stable_offset().0, self.last_stable());
        let end = self.log_end();
        for (from, to) in [(0, end), (end / 3, end / 2 + 1), (end / 2, end), (0, end / 2), (end / 2, end / 2 + 1)] {
            let found = log.aborted_transactions(Offset(from), Offset(to)).unwrap();
            assert_eq!(found, self.aborted(from, to), "{from}..{to} of {:?}", self.events);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]
    #[test]
    fn transactions_agree_with_the_whole_history(
        ops in prop::collection::vec(op(), 1..60),
        segment_bytes in prop_oneof![Just(1u64), 200u64..3000],
    ) {
        let partition = Partition::new(LogConfig { segment_bytes, ..small() });
        let (mut log, _) = partition.reopen();
        let mut history = History { events: Vec::new(), high_watermark: 0 };
        for op in &ops {
            history.apply(&log, op);
            if matches!(op, Op::Close | Op::Kill) {
                log = partition.reopen().0;
                // What a broker does whose log is the only replica. Like Kafka's, a snapshot does not tell ended
                // transactions whose marker is not replicated yet.
                history.high_watermark = log.set_high_watermark(log.log_end()).0;
            }
            history.check(&log);
        }
    }
}
