//! Judges what clients did and saw against what a log promises.
//!
//! The checks are named after the anomalies of the Jepsen workload for Kafka (`jepsen.redpanda.workload.queue`), and
//! mean what they mean there; those that look at committed offsets are ours. [`Kind`] explains each.
//!
//! ```text
//!  clients ──events──▶ History ──▶ Known (which value lies where) ──▶ writes, reads, commits ──▶ Report
//! ```
//!
//! Three facts carry the checks. A value is sent once, so that a value found twice is a duplicate. A log only grows, so
//! that an offset holds the same value for ever, whoever looks and whenever. And an acknowledgement or a poll proves
//! that a value lies in the log, so that nobody may miss it who reads past it.

mod commits;
pub mod history;
mod known;
mod reads;
#[cfg(test)]
mod tests;
mod writes;

use std::collections::BTreeMap;
use std::fmt;

use history::History;
use known::Known;

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A value was acknowledged, a value behind it in the same partition was read, and nobody ever read it.
    LostWrite,
    /// A value was acknowledged or read, and does not come up to the end of the log although it was read to the end:
    /// no one ever read it, or the log has become shorter.
    Unseen,
    /// One offset of a partition held two values: an offset was given out again.
    InconsistentOffsets,
    /// One value lies at two offsets.
    Duplicate,
    /// A value was read that nobody sent, or that was sent to another partition.
    Phantom,
    /// A value was read whose sender was told that it took no effect, or, by a reader of committed records only, a
    /// value of a transaction that was aborted.
    AbortedRead,
    /// A process sent two values to a partition one after the other, and they lie there the other way round.
    NonmonotonicSend,
    /// The same, within one transaction.
    IntNonmonotonicSend,
    /// A process polled and went back in a partition, although it was not assigned anew.
    NonmonotonicPoll,
    /// The same, within one poll.
    IntNonmonotonicPoll,
    /// A process polled and went past a value that is known to lie there.
    PollSkip,
    /// The same, within one poll.
    IntPollSkip,
    /// A group's committed offset went back: a commit was acknowledged that was called after a higher one had been.
    NonmonotonicCommit,
    /// A group committed an offset although no member had read a value below it: the group will never see that value.
    CommitSkip,
    /// A member resumed below an offset whose commit had been acknowledged.
    LostCommit,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LostWrite => "lost-write",
            Self::Unseen => "unseen",
            Self::InconsistentOffsets => "inconsistent-offsets",
            Self::Duplicate => "duplicate",
            Self::Phantom => "phantom",
            Self::AbortedRead => "aborted-read",
            Self::NonmonotonicSend => "nonmonotonic-send",
            Self::IntNonmonotonicSend => "int-nonmonotonic-send",
            Self::NonmonotonicPoll => "nonmonotonic-poll",
            Self::IntNonmonotonicPoll => "int-nonmonotonic-poll",
            Self::PollSkip => "poll-skip",
            Self::IntPollSkip => "int-poll-skip",
            Self::NonmonotonicCommit => "nonmonotonic-commit",
            Self::CommitSkip => "commit-skip",
            Self::LostCommit => "lost-commit",
        })
    }
}

/// One thing that went wrong, and the evidence.
#[derive(Clone, Debug)]
pub struct Anomaly {
    pub kind: Kind,
    pub evidence: String,
}

/// All that went wrong.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub anomalies: Vec<Anomaly>,
}

impl Report {
    fn add(&mut self, kind: Kind, evidence: String) {
        self.anomalies.push(Anomaly { kind, evidence });
    }

    /// The kinds of what went wrong, each once.
    pub fn kinds(&self) -> Vec<Kind> {
        let mut kinds: Vec<_> = self.anomalies.iter().map(|anomaly| anomaly.kind).collect();
        kinds.sort_unstable();
        kinds.dedup();
        kinds
    }

    /// What is left if `kinds` are allowed, as duplicates are to producers that are not idempotent.
    #[must_use]
    pub fn except(mut self, kinds: &[Kind]) -> Self {
        self.anomalies.retain(|anomaly| !kinds.contains(&anomaly.kind));
        self
    }

    /// Fails with the evidence, if anything went wrong.
    #[track_caller]
    pub fn assert_none(&self, more: impl fmt::Display) {
        assert!(self.anomalies.is_empty(), "{self}\n{more}");
    }
}

/// Anomalies of a kind that are printed in full.
const PRINTED: usize = 8;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.anomalies.is_empty() {
            return f.write_str("no anomalies");
        }
        let mut by_kind: BTreeMap<Kind, Vec<&str>> = BTreeMap::new();
        for anomaly in &self.anomalies {
            by_kind.entry(anomaly.kind).or_default().push(&anomaly.evidence);
        }
        for (kind, evidence) in by_kind {
            writeln!(f, "{kind}: {} times", evidence.len())?;
            for line in evidence.iter().take(PRINTED) {
                writeln!(f, "  {line}")?;
            }
        }
        Ok(())
    }
}

/// Looks for every anomaly in a history.
pub fn check(history: &History) -> Report {
    let known = Known::new(history);
    let mut report = Report::default();
    writes::check(history, &known, &mut report);
    reads::check(history, &known, &mut report);
    commits::check(history, &known, &mut report);
    report
}
