//! Decides when an epoch ends, how, and when all of its parts have arrived. Without I/O or a clock.
//!
//! ```text
//!   tick, stop, ended feeds ─▶ begin ─▶ barrier N ─▶ workers, intakes ─▶ writers
//!                                                          │                │
//!                     complete ─▶ round N ◀───── note ◀────┴── positions ───┴── tokens
//! ```
//!
//! Three rules keep what is committed equal to what the positions cover:
//! - One round at a time: a barrier is sent only when the round before it was committed.
//! - Nothing is processed after a barrier that halts. So the transaction that follows it holds no output.
//! - The end of an intake is passed on by a round that began after the end was reached: all that the intake appended lies
//!   before that round's barrier, and is committed with it.

use std::collections::BTreeMap;

use logmill_pipelines::flow::CheckpointEpoch;

use super::error::EngineError;
use super::event::{Barrier, BarrierKind, Event, FeedId, Reached, WriterId};
use super::sinks::HandedOver;
use super::state::OperatorState;

/// How far a feed has come.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    /// How many splits it has, once all are read.
    splits: Option<usize>,
    /// How many of them were processed to their ends.
    processed: usize,
    /// Whether its end is to be passed on to those who read its topic.
    passes_end_on: bool,
}

impl Progress {
    fn has_ended(&self) -> bool {
        self.splits == Some(self.processed)
    }
}

/// The rounds of one run: in each, a barrier goes out and what was done before it comes back.
#[derive(Debug)]
pub(crate) struct Rounds {
    epoch: CheckpointEpoch,
    feeds: Vec<Progress>,
    /// How many workers and intakes pass a barrier.
    passing: usize,
    /// How many writers do.
    writers: usize,
    open: Option<Round>,
    halted: bool,
}

/// What a barrier brought back.
#[derive(Debug)]
pub(crate) struct Round {
    /// The barrier.
    pub(crate) barrier: Barrier,
    /// Intakes all of whose input lies before the barrier.
    pub(crate) ended: Vec<FeedId>,
    /// The positions at the barrier, of the splits that moved.
    pub(crate) reached: Reached,
    /// Rows that the operators were given since the last barrier.
    pub(crate) rows_read: u64,
    /// What operators remember, of the shards that changed.
    pub(crate) states: Vec<OperatorState>,
    /// What the writers hand over.
    pub(crate) prepared: BTreeMap<WriterId, HandedOver>,
    passed: usize,
}

/// Why a round may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Occasion {
    /// Something was noted.
    Progress,
    /// It is time for a checkpoint.
    Tick,
    /// The run has to stop.
    Stop,
}

impl Rounds {
    /// Rounds from `epoch` on, of so many workers and intakes, and writers.
    pub(crate) fn new(epoch: CheckpointEpoch, passing: usize, writers: usize) -> Self {
        Self { epoch, feeds: Vec::new(), passing, writers, open: None, halted: false }
    }

    /// Adds a feed. `passes_end_on` says that it is an intake, whose topic another feed reads.
    pub(crate) fn add_feed(&mut self, passes_end_on: bool) {
        self.feeds.push(Progress { passes_end_on, ..Progress::default() });
    }

    /// The epoch that the next barrier ends.
    pub(crate) fn epoch(&self) -> CheckpointEpoch {
        self.epoch
    }

    /// Begins a round, if there is reason to: the barrier to be sent.
    pub(crate) fn begin(&mut self, occasion: Occasion) -> Option<Barrier> {
        if self.halted || self.open.is_some() {
            return None;
        }
        let ended = |feed: &Progress| feed.passes_end_on && feed.has_ended();
        let kind = if self.feeds.iter().all(Progress::has_ended) {
            BarrierKind::End
        } else if occasion == Occasion::Stop {
            BarrierKind::Halt
        } else if occasion == Occasion::Tick || self.feeds.iter().any(ended) {
            BarrierKind::Checkpoint
        } else {
            return None;
        };
        let barrier = Barrier { epoch: self.epoch, kind };
        let numbered = self.feeds.iter_mut().enumerate().filter(|(_, feed)| ended(feed));
        let ended = numbered.map(|(number, feed)| {
            feed.passes_end_on = false;
            FeedId(number)
        });
        self.open = Some(Round {
            barrier,
            ended: ended.collect(),
            reached: Reached::new(),
            rows_read: 0,
            states: Vec::new(),
            prepared: BTreeMap::new(),
            passed: 0,
        });
        self.halted = barrier.halts();
        Some(barrier)
    }

    /// Takes what a task tells.
    pub(crate) fn note(&mut self, event: Event) -> Result<(), EngineError> {
        match event {
            Event::Failed(error) => return Err(error),
            Event::FeedComplete { feed, splits } => {
                if let Some(feed) = self.feeds.get_mut(feed.0) {
                    feed.splits = Some(splits);
                }
            }
            Event::SplitProcessed { feed } => {
                if let Some(feed) = self.feeds.get_mut(feed.0) {
                    feed.processed += 1;
                }
            }
            Event::Passed { epoch, reached, rows_read, states } => {
                let round = self.round(epoch)?;
                round.passed += 1;
                round.reached.extend(reached);
                round.rows_read += rows_read;
                round.states.extend(states);
            }
            Event::Prepared { epoch, writer, handed } => {
                self.round(epoch)?.prepared.insert(writer, handed);
            }
        }
        Ok(())
    }

    fn round(&mut self, epoch: CheckpointEpoch) -> Result<&mut Round, EngineError> {
        let open = self.open.as_mut().filter(|round| round.barrier.epoch == epoch);
        open.ok_or(EngineError::Defect("the epoch's order"))
    }

    /// The open round, once everything of it is there. The next one may begin when the caller has committed it.
    pub(crate) fn complete(&mut self) -> Option<Round> {
        let is_complete = |round: &mut Round| round.passed >= self.passing && round.prepared.len() >= self.writers;
        let round = self.open.take_if(is_complete)?;
        self.epoch = self.epoch.next();
        Some(round)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Rounds of one worker and one intake without writers; the worker reads the topic of the intake.
    fn rounds() -> Rounds {
        let mut rounds = Rounds::new(CheckpointEpoch(5), 2, 0);
        rounds.add_feed(false);
        rounds.add_feed(true);
        rounds
    }

    const READING: FeedId = FeedId(0);
    const INTAKE: FeedId = FeedId(1);

    fn end(rounds: &mut Rounds, feed: FeedId) {
        rounds.note(Event::SplitProcessed { feed }).unwrap();
        rounds.note(Event::FeedComplete { feed, splits: 1 }).unwrap();
    }

    /// Both pass the open barrier: the round.
    fn pass(rounds: &mut Rounds) -> Round {
        for _ in 0..2 {
            assert!(rounds.complete().is_none());
            let epoch = rounds.epoch();
            rounds.note(Event::Passed { epoch, reached: vec![], rows_read: 3, states: vec![] }).unwrap();
        }
        rounds.complete().unwrap()
    }

    fn begin(rounds: &mut Rounds, occasion: Occasion) -> Option<(u64, BarrierKind)> {
        rounds.begin(occasion).map(|barrier| (barrier.epoch.0, barrier.kind))
    }

    #[test]
    fn an_end_is_passed_on_by_the_round_that_began_after_it() {
        let mut rounds = rounds();
        assert_eq!(begin(&mut rounds, Occasion::Progress), None);
        assert_eq!(begin(&mut rounds, Occasion::Tick), Some((5, BarrierKind::Checkpoint)));
        // The intake goes on behind the barrier, and comes to its end there.
        end(&mut rounds, INTAKE);
        assert_eq!(begin(&mut rounds, Occasion::Tick), None, "a round is open");
        let round = pass(&mut rounds);
        assert_eq!((round.ended, round.rows_read), (vec![], 6));
        // It asks for a round of its own.
        assert_eq!(begin(&mut rounds, Occasion::Progress), Some((6, BarrierKind::Checkpoint)));
        assert_eq!(pass(&mut rounds).ended, [INTAKE]);
        assert_eq!(begin(&mut rounds, Occasion::Progress), None, "it is passed on once");
        assert_eq!(begin(&mut rounds, Occasion::Tick), Some((7, BarrierKind::Checkpoint)));
        assert_eq!(pass(&mut rounds).ended, []);
        end(&mut rounds, READING);
        assert_eq!(begin(&mut rounds, Occasion::Progress), Some((8, BarrierKind::End)));
    }

    #[test]
    fn after_a_barrier_that_halts_no_other_follows() {
        for ended in [false, true] {
            let mut rounds = rounds();
            if ended {
                end(&mut rounds, INTAKE);
                end(&mut rounds, READING);
            }
            let kind = if ended { BarrierKind::End } else { BarrierKind::Halt };
            assert_eq!(begin(&mut rounds, Occasion::Stop), Some((5, kind)));
            pass(&mut rounds);
            for occasion in [Occasion::Progress, Occasion::Tick, Occasion::Stop] {
                assert_eq!(begin(&mut rounds, occasion), None);
            }
        }
    }

    #[test]
    fn what_belongs_to_no_open_round_is_a_defect() {
        let mut rounds = rounds();
        let passed =
            |epoch| Event::Passed { epoch: CheckpointEpoch(epoch), reached: vec![], rows_read: 0, states: vec![] };
        assert!(rounds.note(passed(5)).is_err());
        rounds.begin(Occasion::Tick).unwrap();
        assert!(rounds.note(passed(6)).is_err());
        rounds.note(passed(5)).unwrap();
    }
}
