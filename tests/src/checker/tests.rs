//! Each anomaly in a history made by hand is found, it alone; and a history without any is left in peace.

use std::sync::Arc;

use super::history::{
    Assigned, Commit, Drained, EndTransaction, Event, From, History, Outcome, Partition, Poll, Process, Send, Time,
    Value,
};
use super::{Kind, check};

fn partition(index: i32) -> Partition {
    Partition { topic: Arc::from("t"), index }
}

fn value(sequence: u64) -> Value {
    Value { producer: 1, sequence }
}

/// A process that is written down line by line; each line happens a second after the one before.
#[derive(Clone)]
struct Lines {
    process: Process,
    now: u64,
}

impl Lines {
    fn named(name: &str) -> Self {
        Self { process: Process { name: name.to_owned(), ..Process::default() }, now: 0 }
    }

    fn member(name: &str) -> Self {
        let mut lines = Self::named(name);
        lines.process.group = Some("g".to_owned());
        lines
    }

    fn read_committed(mut self) -> Self {
        self.process.read_committed = true;
        self
    }

    fn at(mut self, seconds: u64) -> Self {
        self.now = seconds * 1_000_000;
        self
    }

    fn push(mut self, event: impl FnOnce(Time, Outcome) -> Event) -> Self {
        self.now += 1_000_000;
        let outcome = Outcome::Acknowledged { at: Time(self.now + 500_000) };
        self.process.events.push(event(Time(self.now), outcome));
        self
    }

    fn sent(self, sequence: u64, offset: i64) -> Self {
        self.sent_in(None, sequence, offset)
    }

    fn sent_in(self, transaction: Option<u64>, sequence: u64, offset: i64) -> Self {
        self.push(|called, outcome| {
            let (partition, value) = (partition(0), value(sequence));
            Event::Send(Send { partition, value, called, outcome, offset: Some(offset), transaction })
        })
    }

    fn sent_with(self, sequence: u64, outcome: Outcome) -> Self {
        self.push(|called, _| {
            let (partition, value) = (partition(0), value(sequence));
            Event::Send(Send { partition, value, called, outcome, offset: None, transaction: None })
        })
    }

    fn ended(self, transaction: u64, commit: bool) -> Self {
        self.push(|called, outcome| Event::EndTransaction(EndTransaction { transaction, commit, called, outcome }))
    }

    fn polled(self, records: &[(i64, u64)]) -> Self {
        let records = records.iter().map(|(offset, sequence)| (*offset, value(*sequence))).collect();
        self.push(|at, _| Event::Poll(Poll { partition: partition(0), at, records }))
    }

    fn assigned(self, from: From) -> Self {
        self.push(|at, _| Event::Assigned(Assigned { partition: partition(0), at, from }))
    }

    fn drained(self, end: i64) -> Self {
        self.push(|at, _| Event::Drained(Drained { partition: partition(0), at, end }))
    }

    fn committed(self, offset: i64) -> Self {
        self.push(|called, outcome| Event::Commit(Commit { partition: partition(0), offset, called, outcome }))
    }

    fn commit_unanswered(self, offset: i64) -> Self {
        let outcome = Outcome::Unknown;
        self.push(|called, _| Event::Commit(Commit { partition: partition(0), offset, called, outcome }))
    }
}

/// A producer of the values 0..count at the offsets of the same numbers.
fn producer(count: u64) -> Lines {
    (0..count).fold(Lines::named("p"), |lines, sequence| lines.sent(sequence, i64::try_from(sequence).unwrap()))
}

/// A reader of everything from the start.
fn reader(records: &[(i64, u64)]) -> Lines {
    Lines::named("r").at(100).assigned(From::Offset(0)).polled(records)
}

#[track_caller]
fn expect(processes: &[Lines], expected: &[Kind], evidence: &[&str]) {
    let history = History { processes: processes.iter().map(|lines| lines.process.clone()).collect() };
    let report = check(&history);
    assert_eq!(report.kinds(), expected, "{report}");
    let text = report.to_string();
    for part in evidence {
        assert!(text.contains(part), "no `{part}` in:\n{text}");
    }
}

const FOUR: [(i64, u64); 4] = [(0, 0), (1, 1), (2, 2), (3, 3)];

#[test]
fn a_sound_history_has_no_anomalies() {
    let member = Lines::member("m").assigned(From::Committed).at(9).polled(&FOUR[..2]).committed(2).polled(&FOUR[2..]);
    // The same records again, by another member that resumes at what was committed.
    let other = Lines::member("n").at(20).assigned(From::Committed).polled(&FOUR[2..]).committed(4);
    let reader = reader(&FOUR).drained(4);
    expect(&[producer(4), member, other, reader], &[], &["no anomalies"]);
}

#[test]
fn a_send_that_was_never_answered_may_be_there_or_not() {
    let unknown = producer(4).sent_with(4, Outcome::Unknown);
    expect(&[unknown.clone(), reader(&FOUR).drained(4)], &[], &[]);
    expect(&[unknown, reader(&FOUR).polled(&[(4, 4)]).drained(5)], &[], &[]);
}

#[test]
fn lost_write() {
    let missing = [(0, 0), (1, 1), (3, 3)];
    // Without the place of the reader it is not a skip: nobody says that it read on from 1.
    let readers = [Lines::named("r").at(50).polled(&missing[..2]), Lines::named("s").at(50).polled(&missing[2..])];
    let evidence = ["lost-write: 1 times", "1#2 of t-0 was never polled, but 3 was: sent by p at 3.000000 s"];
    expect(&[producer(4), readers[0].clone(), readers[1].clone()], &[Kind::LostWrite], &evidence);
}

#[test]
fn unseen() {
    let evidence = ["1#3 of t-0 was never polled, but 2 was", "acknowledged at 4.500000 s with offset 3"];
    expect(&[producer(4), reader(&FOUR[..3])], &[Kind::Unseen], &evidence);
    // The log has become shorter: someone had read what the last reader does not find.
    let before = Lines::named("b").at(20).polled(&FOUR);
    let evidence = ["t-0 ended at 3 for r at 103.000000 s, but 1#3 (acknowledged to p at 4.500000 s) had been at 3"];
    expect(&[producer(4), before, reader(&FOUR[..3]).drained(3)], &[Kind::Unseen], &evidence);
}

#[test]
fn inconsistent_offsets() {
    let before = Lines::named("b").at(20).polled(&[(0, 0), (1, 1), (2, 3)]);
    let kinds = [Kind::InconsistentOffsets, Kind::Duplicate];
    let evidence = ["t-0@2 held 1#2 (acknowledged to p at 3.500000 s) and 1#3 (polled by b at 21.000000 s)"];
    expect(&[producer(4), before, reader(&FOUR)], &kinds, &evidence);
    // The acknowledgements alone prove it.
    let twins = producer(2).sent(2, 1);
    expect(&[twins, reader(&FOUR[..2])], &[Kind::Unseen, Kind::InconsistentOffsets], &[]);
}

#[test]
fn duplicate() {
    let evidence = ["t-0 holds 1#1 at {1, 4}, sent by p at 2.000000 s"];
    expect(&[producer(4), reader(&FOUR).polled(&[(4, 1)])], &[Kind::Duplicate], &evidence);
}

#[test]
fn phantom() {
    let evidence = ["t-0@4 held 1#77 (polled by r at 103.000000 s): nobody sent it"];
    expect(&[producer(4), reader(&FOUR).polled(&[(4, 77)])], &[Kind::Phantom], &evidence);
}

#[test]
fn aborted_read() {
    let refused = producer(4).sent_with(4, Outcome::Failed { at: Time(9_000_000) });
    let evidence = ["r polled 1#4 at t-0@4 at 103.000000 s, which was refused: sent by p at 5.000000 s"];
    expect(&[refused, reader(&FOUR).polled(&[(4, 4)])], &[Kind::AbortedRead], &evidence);
    let aborted = producer(4).sent_in(Some(7), 4, 4).ended(7, false).sent_in(Some(8), 5, 6).ended(8, true);
    let all = reader(&FOUR).polled(&[(4, 4), (6, 5)]);
    let evidence = ["which is of an aborted transaction"];
    expect(&[aborted.clone(), all.clone().read_committed()], &[Kind::AbortedRead], &evidence);
    // Whoever reads uncommitted records may see it, and whoever reads committed ones goes past it.
    expect(&[aborted.clone(), all], &[], &[]);
    expect(&[aborted, reader(&FOUR).polled(&[(6, 5)]).read_committed()], &[], &[]);
}

#[test]
fn nonmonotonic_send() {
    let swapped = Lines::named("p").sent(0, 0).sent(1, 2).sent(2, 1);
    let evidence = ["p sent 1#1 (at 2.000000 s) and then 1#2 (at 3.000000 s) to t-0, where they lie at 2 and 1"];
    expect(&[swapped, reader(&[(0, 0), (1, 2), (2, 1)])], &[Kind::NonmonotonicSend], &evidence);
    // The place of one that was never answered is known from who read it.
    let unknown = Lines::named("p").sent(0, 0).sent_with(1, Outcome::Unknown).sent(2, 1);
    expect(&[unknown, reader(&[(0, 0), (1, 2), (2, 1)])], &[Kind::NonmonotonicSend], &[]);
    let within = Lines::named("p").sent_in(Some(1), 0, 1).sent_in(Some(1), 1, 0).ended(1, true);
    expect(&[within, reader(&[(0, 1), (1, 0)])], &[Kind::IntNonmonotonicSend], &[]);
}

#[test]
fn nonmonotonic_poll() {
    let evidence = ["r polled 1#1 at t-0@1 at 103.000000 s, but the next was to be 4"];
    expect(&[producer(4), reader(&FOUR).polled(&FOUR[1..])], &[Kind::NonmonotonicPoll], &evidence);
    // Within one poll.
    let back = [(0, 0), (1, 1), (2, 2), (1, 1), (2, 2), (3, 3)];
    expect(&[producer(4), reader(&back)], &[Kind::IntNonmonotonicPoll], &[]);
    // Assigned anew, it may go back.
    let again = reader(&FOUR).assigned(From::Offset(1)).polled(&FOUR[1..]);
    expect(&[producer(4), again], &[], &[]);
    let below = reader(&FOUR).assigned(From::Offset(2)).polled(&FOUR[1..]);
    expect(&[producer(4), below], &[Kind::NonmonotonicPoll], &["but it was to begin at 2"]);
}

#[test]
fn poll_skip() {
    let all = Lines::named("all").at(50).polled(&FOUR);
    let evidence = ["r went from t-0@1 to 3 at 103.000000 s, past 1#1 (acknowledged to p at 2.500000 s) at 1"];
    let skips = reader(&FOUR[..1]).polled(&FOUR[3..]);
    expect(&[producer(4), all.clone(), skips], &[Kind::PollSkip], &evidence);
    let within = reader(&[(0, 0), (2, 2), (3, 3)]);
    expect(&[producer(4), all.clone(), within], &[Kind::IntPollSkip], &[]);
    // To the end, and from where it was assigned.
    expect(&[producer(4), all.clone(), reader(&FOUR[..2]).drained(4)], &[Kind::PollSkip], &[]);
    expect(&[producer(4), all.clone(), reader(&FOUR[1..])], &[Kind::PollSkip], &[]);
    // Offsets at which nothing is known to lie may be skipped.
    let gap = Lines::named("p").sent(0, 0).sent(1, 5);
    expect(&[gap, reader(&[(0, 0), (5, 1)])], &[], &[]);
}

#[test]
fn nonmonotonic_commit() {
    let member = Lines::member("m").assigned(From::Committed).at(9).polled(&FOUR).committed(4).committed(2);
    let evidence = ["group g of t-0: m committed 2 from 12.000000 s to 12.500000 s, after m had \
                     committed 4 at 11.500000 s"];
    expect(&[producer(4), member], &[Kind::NonmonotonicCommit], &evidence);
    // At the same time, either may come first.
    let one = Lines::member("m").at(9).polled(&FOUR).committed(4);
    let two = Lines::member("n").at(10).committed(2);
    expect(&[producer(4), one.clone(), two], &[], &[]);
    let late = Lines::member("n").at(20).committed(2);
    expect(&[producer(4), one, late], &[Kind::NonmonotonicCommit], &[]);
}

#[test]
fn commit_skip() {
    // The reader is not a member: what it polled does not count.
    let member = Lines::member("m").at(9).polled(&FOUR[..3]).committed(4);
    let evidence = ["group g of t-0: m committed 4 at 11.000000 s, but no member had polled 1#3"];
    expect(&[producer(4), member, reader(&FOUR)], &[Kind::CommitSkip], &evidence);
    // Nor does what a member polled afterwards.
    let early = Lines::member("m").at(9).polled(&FOUR[..3]).committed(4).polled(&FOUR[3..]);
    expect(&[producer(4), early], &[Kind::CommitSkip], &[]);
}

#[test]
fn lost_commit() {
    let first = Lines::member("m").at(9).assigned(From::Committed).polled(&FOUR).committed(4);
    let second = Lines::member("n").at(20).assigned(From::Committed).polled(&FOUR[1..]);
    let evidence =
        ["n was assigned at 21.000000 s and resumed at 1 at 22.000000 s, below 4, acknowledged at 12.500000"];
    expect(&[producer(4), first.clone(), second.clone()], &[Kind::LostCommit], &evidence);
    // A commit that was not answered may be lost, or not.
    let unanswered = Lines::member("m").at(9).assigned(From::Committed).polled(&FOUR).commit_unanswered(4);
    expect(&[producer(4), unanswered.clone(), second], &[], &[]);
    let later = Lines::member("n").at(20).assigned(From::Committed).polled(&[(4, 4)]);
    expect(&[producer(5), unanswered, later], &[], &[]);
    // Above everything that may have been committed: a record is skipped.
    let above = Lines::member("n").at(20).assigned(From::Committed).polled(&FOUR[3..]);
    let all = reader(&FOUR);
    let below = Lines::member("m").at(9).assigned(From::Committed).polled(&FOUR[..2]).committed(2);
    expect(&[producer(4), below, above, all], &[Kind::PollSkip], &["no more than 2 was ever committed"]);
}
