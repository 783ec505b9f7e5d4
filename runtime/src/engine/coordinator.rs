//! The coordinator of one run: sends barriers, gathers what they bring back, and commits epochs.
//!
//! ```text
//!   barrier N ─▶ workers, intakes ─▶ writers
//!       positions, state ◀─┘             │
//!       tokens, carried state ◀──────────┘
//!   1 state objects durable
//!   2 one log transaction: output, dead letters, manifest, group offsets     ◀── the atomic point
//!   3 tokens committed, in epoch order for each sink
//!   4 sources told that the epoch is safe
//! ```
//!
//! Epochs are committed one after the other; an epoch in which nothing happened writes nothing. At a stop the barrier
//! halts whoever passes it, so that the last commits hold what the positions cover and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use logmill_connectors::log::{Isolation, Log, Membership, OffsetAt, TopicPartition};
use logmill_connectors::sink::Written;
use logmill_connectors::source::Source;
use logmill_pipelines::flow::{CheckpointEpoch, Positions};
use logmill_protocol::Offset;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::error::EngineError;
use super::event::{Barrier, Event, FeedId, Reached, WriterId};
use super::journal::Journal;
use super::manifest::{Changes, Manifest, Stage};
use super::retry;
use super::rounds::{Occasion, Rounds};
use super::sinks::{self, HandedOver, Settled, SinkHandle};
use super::state::{self, OperatorState};
use super::store::CheckpointStore;
use super::transaction::EpochTransaction;
use crate::metrics::Metrics;

/// The first barrier of a run comes after this, so that a short run shows its first rows at once.
const FIRST_EPOCH: Duration = Duration::from_millis(100);

/// A feed as the coordinator sees it.
pub(crate) struct FeedState {
    /// Where its positions are kept.
    pub(crate) stage: Stage,
    pub(crate) source: Arc<dyn Source>,
    /// The topic it reads, if it reads one: its offsets are committed for the group too.
    pub(crate) topic: Option<String>,
    /// For an intake: told the end offsets of its topic once the source has ended and all of it is committed.
    pub(crate) ends: Option<Ends>,
}

/// How the end of a source is passed on through its topic.
pub(crate) struct Ends {
    pub(crate) topic: String,
    pub(crate) partitions: i32,
    pub(crate) tell: watch::Sender<Option<BTreeMap<i32, i64>>>,
}

/// How a run came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// All input was read.
    Finished,
    /// It was asked to stop, and committed first.
    Stopped,
}

/// The coordinator of one run.
pub(crate) struct Coordinator {
    pub(crate) log: Arc<dyn Log>,
    pub(crate) transaction: Arc<EpochTransaction>,
    pub(crate) membership: Membership,
    pub(crate) store: CheckpointStore,
    pub(crate) attempt: String,
    pub(crate) manifest: Manifest,
    pub(crate) journal: Journal,
    pub(crate) feeds: Vec<FeedState>,
    pub(crate) sinks: Vec<SinkHandle>,
    /// The barrier channels of workers and intakes.
    pub(crate) barriers: Vec<mpsc::UnboundedSender<Barrier>>,
    pub(crate) events: mpsc::UnboundedReceiver<Event>,
    pub(crate) stop: watch::Receiver<bool>,
    /// The tasks that read the sources; aborted when the run stops.
    pub(crate) readers: JoinSet<()>,
    pub(crate) every: Duration,
    pub(crate) rounds: Rounds,
    /// Shards to be written with the next commit.
    pub(crate) changes: Changes,
    /// Sinks whose tokens are visible by now, which the manifest does not say yet: the next commit does, and an idle
    /// pipeline makes one for it.
    pub(crate) confirmed: BTreeSet<String>,
    /// Objects of the checkpoint store to be deleted after the next commit, which says that nothing refers to them.
    pub(crate) released: Vec<String>,
    /// What is visible of each writer once its sink's tokens are confirmed.
    pub(crate) staged: BTreeMap<WriterId, Written>,
    pub(crate) metrics: Arc<Metrics>,
}

impl Coordinator {
    /// Runs until the input has ended or a stop is asked for.
    pub(crate) async fn run(mut self) -> Result<Ending, EngineError> {
        let mut tick = tokio::time::interval_at(tokio::time::Instant::now() + FIRST_EPOCH.min(self.every), self.every);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut occasion = Occasion::Progress;
        let last = loop {
            if let Some(barrier) = self.rounds.begin(occasion) {
                self.checkpoint(barrier).await?;
                if barrier.halts() {
                    break barrier;
                }
            }
            occasion = tokio::select! {
                biased;
                () = stopping(&mut self.stop) => Occasion::Stop,
                event = self.events.recv() => {
                    self.rounds.note(event.ok_or(EngineError::Defect("every task"))?)?;
                    Occasion::Progress
                }
                _ = tick.tick() => Occasion::Tick,
            };
        };
        self.confirm().await?;
        Ok(if last.ends_input() { Ending::Finished } else { Ending::Stopped })
    }

    /// Ends an epoch and commits what happened in it.
    async fn checkpoint(&mut self, barrier: Barrier) -> Result<(), EngineError> {
        if barrier.halts() {
            self.readers.abort_all();
        }
        for channel in &self.barriers {
            // Whoever is gone has told why, and that event ends the wait below.
            let _ = channel.send(barrier);
        }
        let round = loop {
            if let Some(round) = self.rounds.complete() {
                break round;
            }
            let event = self.events.recv().await.ok_or(EngineError::Defect("every task"))?;
            self.rounds.note(event)?;
        };
        let read_on = self.take_positions(round.reached);
        let mut stale = self.take_state(barrier.epoch, round.states, round.prepared).await?;
        let finished = barrier.ends_input();
        if let Some(plan) = &mut self.manifest.plan {
            plan.rows_read += round.rows_read;
            if plan.finished != finished && (finished || !self.changes.is_empty() || self.transaction.has_output()) {
                plan.finished = finished;
                self.changes.insert((Stage::Plan, 0));
            }
        }
        if self.changes.is_empty() && self.confirmed.is_empty() && !self.transaction.has_output() {
            self.transaction.pass(barrier.epoch);
        } else {
            stale.extend(self.commit(barrier.epoch, &read_on).await?);
            self.commit_tokens(barrier.epoch).await?;
            // Only now: output of the next epoch would open its transaction, whose time is for records, not for files.
            self.transaction.pass(barrier.epoch);
            for (feed, positions) in &read_on {
                if let Some(feed) = self.feeds.get(feed.0) {
                    let safe = retry::transient(|| feed.source.epoch_safe(positions)).await;
                    safe.map_err(|error| EngineError::source(&feed.stage.to_string(), error))?;
                }
            }
            self.store.delete(stale).await?;
        }
        self.pass_ends_on(&round.ended).await
    }

    fn take_positions(&mut self, reached: Reached) -> BTreeMap<FeedId, Positions> {
        let mut read_on: BTreeMap<FeedId, Positions> = BTreeMap::new();
        for (feed, split, position) in reached {
            let Some(state) = self.feeds.get(feed.0) else { continue };
            self.manifest.set_position(&state.stage, split.clone(), position.clone(), &mut self.changes);
            read_on.entry(feed).or_default().insert(split, position);
        }
        read_on
    }

    /// Makes the state of operators and writers durable; returns the objects that nothing refers to after the commit.
    async fn take_state(
        &mut self,
        epoch: CheckpointEpoch,
        states: Vec<OperatorState>,
        prepared: BTreeMap<WriterId, HandedOver>,
    ) -> Result<Vec<String>, EngineError> {
        fail::fail_point!("engine::before_state");
        let before = self.manifest.references();
        let prefix = format!("{epoch}-{}", self.attempt);
        state::keep(&mut self.manifest, &mut self.changes, &self.store, &prefix, states).await?;
        self.take_prepared(&prefix, prepared).await?;
        fail::fail_point!("engine::after_state");
        let after = self.manifest.references();
        Ok(before.difference(&after).cloned().collect())
    }

    /// Takes tokens over and stores carried state.
    async fn take_prepared(
        &mut self,
        prefix: &str,
        prepared: BTreeMap<WriterId, HandedOver>,
    ) -> Result<(), EngineError> {
        for (writer, handed) in prepared {
            let Some(handle) = self.sinks.get(writer.0) else { continue };
            let staged = self.staged.entry(writer).or_default();
            staged.rows += handed.prepared.visible.rows;
            staged.bytes += handed.prepared.visible.bytes;
            self.metrics.carried(writer.0, handed.prepared.carried_rows);
            let (manifest, changes) = (&mut self.manifest, &mut self.changes);
            sinks::take_over(manifest, changes, &self.store, prefix, &handle.name, handed).await?;
        }
        Ok(())
    }

    /// The epoch's log transaction. Returns the objects that nothing refers to any more.
    async fn commit(
        &mut self,
        epoch: CheckpointEpoch,
        read_on: &BTreeMap<FeedId, Positions>,
    ) -> Result<Vec<String>, EngineError> {
        if let Some(plan) = &mut self.manifest.plan {
            plan.epoch = epoch;
        }
        self.changes.insert((Stage::Plan, 0));
        self.changes.extend(std::mem::take(&mut self.confirmed).into_iter().map(|name| (Stage::Sink(name), 0)));
        let (changes, offsets) = (std::mem::take(&mut self.changes), self.group_offsets(read_on));
        let mut replaced = self.journal.commit(&mut self.manifest, changes, epoch, &offsets).await?;
        replaced.append(&mut self.released);
        self.metrics.committed(epoch.0);
        Ok(replaced)
    }

    fn group_offsets(&self, read_on: &BTreeMap<FeedId, Positions>) -> Vec<(TopicPartition, Offset)> {
        let mut offsets = Vec::new();
        for (feed, positions) in read_on {
            let Some(topic) = self.feeds.get(feed.0).and_then(|feed| feed.topic.as_ref()) else { continue };
            for (split, position) in positions {
                let partition = split.as_str().parse::<i32>();
                let offset = position.0.get("offset").and_then(serde_json::Value::as_i64);
                if let (Ok(partition), Some(offset)) = (partition, offset) {
                    offsets.push((TopicPartition { topic: topic.clone(), partition }, Offset(offset)));
                }
            }
        }
        offsets
    }

    /// Makes visible what the committed manifest names.
    async fn commit_tokens(&mut self, epoch: CheckpointEpoch) -> Result<(), EngineError> {
        fail::fail_point!("engine::before_tokens");
        let settled = sinks::commit_tokens(&mut self.manifest, &self.sinks, &self.store, epoch.next()).await?;
        let Settled { confirmed, restaged, released } = settled;
        self.confirmed.extend(confirmed);
        self.released.extend(released);
        for (writer, staged) in &mut self.staged {
            if self.sinks.get(writer.0).is_some_and(|handle| !restaged.contains(&handle.name)) {
                let Written { rows, bytes } = std::mem::take(staged);
                self.metrics.written(writer.0, rows, bytes);
            }
        }
        self.changes.extend(restaged.into_iter().map(|name| (Stage::Sink(name), 0)));
        fail::fail_point!("engine::after_tokens");
        Ok(())
    }

    /// Tells the readers of these intakes' topics where they end, now that all that the intakes appended is committed.
    ///
    /// The end is that of all records, not the last stable offset: an open transaction of another producer may hold that
    /// back below records of the intake.
    async fn pass_ends_on(&mut self, ended: &[FeedId]) -> Result<(), EngineError> {
        for feed in ended {
            let Some(ends) = self.feeds.get_mut(feed.0).and_then(|feed| feed.ends.take()) else { continue };
            let mut offsets = BTreeMap::new();
            for partition in 0..ends.partitions {
                let place = TopicPartition { topic: ends.topic.clone(), partition };
                let end = self.log.offset(&place, OffsetAt::Latest(Isolation::ReadUncommitted)).await?;
                offsets.insert(partition, end.0);
            }
            ends.tell.send_replace(Some(offsets));
        }
        Ok(())
    }

    /// Writes the manifest without the tokens that are visible by now, sweeps, and leaves the group. Workers, intakes and
    /// writers have passed a barrier that halts, so the open transaction holds nothing of theirs.
    async fn confirm(&mut self) -> Result<(), EngineError> {
        if self.transaction.has_output() {
            return Err(EngineError::Defect("the epoch's order"));
        }
        let (mut epoch, mut stale) = (self.rounds.epoch(), Vec::new());
        // What was staged again is committed once the log names it, and may be lost again.
        while !self.confirmed.is_empty() || !self.changes.is_empty() {
            stale.extend(self.commit(epoch, &BTreeMap::new()).await?);
            self.commit_tokens(epoch).await?;
            self.transaction.pass(epoch);
            epoch = epoch.next();
        }
        self.store.delete(stale).await?;
        let attempt = logmill_connectors::sink::Attempt(self.attempt.clone());
        for handle in &self.sinks {
            let swept = retry::transient(|| handle.sink.collect(&[], &attempt)).await;
            swept.map_err(|error| EngineError::sink(&handle.name, error))?;
        }
        self.store.sweep(self.manifest.references()).await?;
        self.log.leave_group(&self.membership).await?;
        Ok(())
    }
}

/// Ends when a stop is asked for; never, where nobody is left to ask.
async fn stopping(stop: &mut watch::Receiver<bool>) {
    let gone = stop.wait_for(|stop| *stop).await.is_err();
    if gone {
        std::future::pending::<()>().await;
    }
}
