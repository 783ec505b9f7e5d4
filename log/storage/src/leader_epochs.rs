//! The first offset of each leader epoch, by which replicas find where their logs diverge (KIP-101).

use logmill_protocol::{LeaderEpoch, Offset};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LeaderEpochs {
    /// Ascending in both.
    entries: Vec<(LeaderEpoch, Offset)>,
}

impl LeaderEpochs {
    pub(crate) fn new(entries: Vec<(LeaderEpoch, Offset)>) -> Self {
        Self { entries }
    }

    pub(crate) fn entries(&self) -> &[(LeaderEpoch, Offset)] {
        &self.entries
    }

    pub(crate) fn latest(&self) -> LeaderEpoch {
        self.entries.last().map_or(LeaderEpoch::NONE, |e| e.0)
    }

    /// Notes that `epoch` has a batch at `offset`. An epoch no newer than the latest changes nothing.
    pub(crate) fn assign(&mut self, epoch: LeaderEpoch, offset: Offset) {
        if epoch > self.latest() {
            self.entries.push((epoch, offset));
        }
    }

    /// The largest known epoch up to `epoch`, and the offset where the next one begins (`log_end` if none does). An epoch
    /// before the first known one ended where that begins, as in Kafka. `None` only for a negative epoch.
    pub(crate) fn end_offset(&self, epoch: LeaderEpoch, log_end: Offset) -> Option<(LeaderEpoch, Offset)> {
        if epoch < LeaderEpoch(0) {
            return None;
        }
        let next = self.entries.partition_point(|e| e.0 <= epoch);
        let end = self.entries.get(next).map_or(log_end, |e| e.1);
        let found = next.checked_sub(1).and_then(|at| self.entries.get(at)).map_or(epoch, |e| e.0);
        Some((found, end))
    }

    /// The epoch that the record at `offset` was written in, if that is known.
    pub(crate) fn of(&self, offset: Offset) -> Option<LeaderEpoch> {
        let after = self.entries.partition_point(|e| e.1 <= offset);
        self.entries.get(after.checked_sub(1)?).map(|e| e.0)
    }

    /// Forgets epochs that begin at `offset` or later.
    pub(crate) fn truncate_from_end(&mut self, offset: Offset) {
        self.entries.retain(|e| e.1 < offset);
    }

    /// Forgets epochs that end at `offset` or before; the one that spans it now begins there.
    pub(crate) fn truncate_from_start(&mut self, offset: Offset) {
        let spanning = self.entries.partition_point(|e| e.1 <= offset).saturating_sub(1);
        self.entries.drain(..spanning);
        if let Some(first) = self.entries.first_mut() {
            first.1 = first.1.max(offset);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epochs(entries: &[(i32, i64)]) -> LeaderEpochs {
        LeaderEpochs::new(entries.iter().map(|(e, o)| (LeaderEpoch(*e), Offset(*o))).collect())
    }

    #[test]
    fn an_epoch_ends_where_the_next_begins() {
        let known = epochs(&[(1, 0), (3, 10), (4, 25)]);
        let check = |epoch: i32, expected: Option<(i32, i64)>| {
            let found = known.end_offset(LeaderEpoch(epoch), Offset(30));
            assert_eq!(found, expected.map(|(e, o)| (LeaderEpoch(e), Offset(o))), "epoch {epoch}");
        };
        check(-1, None);
        check(0, Some((0, 0)));
        check(1, Some((1, 10)));
        check(2, Some((1, 10)));
        check(3, Some((3, 25)));
        check(4, Some((4, 30)));
        check(9, Some((4, 30)));
    }

    #[test]
    fn an_epoch_without_records_ends_with_the_log() {
        let end = epochs(&[]).end_offset(LeaderEpoch(2), Offset(7));
        assert_eq!(end, Some((LeaderEpoch(2), Offset(7))));
    }

    #[test]
    fn a_record_belongs_to_the_epoch_that_began_last() {
        let known = epochs(&[(1, 5), (3, 10), (4, 25)]);
        let check = |offset: i64, expected: Option<i32>| {
            assert_eq!(known.of(Offset(offset)), expected.map(LeaderEpoch), "offset {offset}");
        };
        check(4, None);
        check(5, Some(1));
        check(9, Some(1));
        check(10, Some(3));
        check(99, Some(4));
    }

    #[test]
    fn only_newer_epochs_are_noted() {
        let mut known = epochs(&[]);
        for (epoch, offset) in [(2, 0), (2, 5), (1, 7), (5, 9)] {
            known.assign(LeaderEpoch(epoch), Offset(offset));
        }
        assert_eq!(known, epochs(&[(2, 0), (5, 9)]));
    }

    #[test]
    fn truncation_keeps_the_spanning_epoch() {
        let check_end = |offset: i64, expected: &[(i32, i64)]| {
            let mut known = epochs(&[(1, 0), (3, 10), (4, 25)]);
            known.truncate_from_end(Offset(offset));
            assert_eq!(known, epochs(expected), "end {offset}");
        };
        check_end(0, &[]);
        check_end(10, &[(1, 0)]);
        check_end(11, &[(1, 0), (3, 10)]);
        let check_start = |offset: i64, expected: &[(i32, i64)]| {
            let mut known = epochs(&[(1, 0), (3, 10), (4, 25)]);
            known.truncate_from_start(Offset(offset));
            assert_eq!(known, epochs(expected), "start {offset}");
        };
        check_start(0, &[(1, 0), (3, 10), (4, 25)]);
        check_start(9, &[(1, 9), (3, 10), (4, 25)]);
        check_start(10, &[(3, 10), (4, 25)]);
        check_start(99, &[(4, 99)]);
    }
}
