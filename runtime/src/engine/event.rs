//! What tasks and workers tell the coordinator, and what it tells them.

use logmill_pipelines::flow::{CheckpointEpoch, Position, SplitId};

use super::error::EngineError;
use super::sinks::HandedOver;
use super::state::OperatorState;

/// A feed's number within the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct FeedId(pub(crate) usize);

/// A writer's number within the run: the sinks in the order of the plan, then the dead letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct WriterId(pub(crate) usize);

/// A barrier: what was processed before it belongs to its epoch, and nothing after it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Barrier {
    /// The epoch that it ends.
    pub(crate) epoch: CheckpointEpoch,
    /// What comes after it.
    pub(crate) kind: BarrierKind,
}

/// What comes after a barrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BarrierKind {
    /// The next epoch.
    Checkpoint,
    /// Nothing: the run stops, and a later one goes on from here.
    Halt,
    /// Nothing: the input has ended, so nothing may be held back.
    End,
}

impl Barrier {
    /// Whether a task that passes it processes nothing more.
    pub(crate) fn halts(self) -> bool {
        self.kind != BarrierKind::Checkpoint
    }

    /// Whether the input has ended.
    pub(crate) fn ends_input(self) -> bool {
        self.kind == BarrierKind::End
    }
}

/// The positions that one worker or intake reached since its last barrier.
pub(crate) type Reached = Vec<(FeedId, SplitId, Position)>;

/// What the coordinator is told.
pub(crate) enum Event {
    /// All splits of a feed were found and handed to the queues to their ends.
    FeedComplete {
        /// The feed.
        feed: FeedId,
        /// How many splits it has.
        splits: usize,
    },
    /// All of a split was processed.
    SplitProcessed {
        /// Whose split.
        feed: FeedId,
    },
    /// A worker or intake passed a barrier.
    Passed {
        /// The barrier's epoch.
        epoch: CheckpointEpoch,
        /// What it had processed by then.
        reached: Reached,
        /// Rows that its operators were given since its last barrier.
        rows_read: u64,
        /// What its operators remember, of the shards that changed since its last barrier.
        states: Vec<OperatorState>,
    },
    /// A writer passed a barrier: everything before it is durable.
    Prepared {
        /// The barrier's epoch.
        epoch: CheckpointEpoch,
        /// Which writer.
        writer: WriterId,
        /// What it hands over.
        handed: HandedOver,
    },
    /// The run cannot go on.
    Failed(EngineError),
}

/// Tells the coordinator if whoever holds it ends without having said that all is well, as by a panic.
pub(crate) struct Watchdog {
    events: tokio::sync::mpsc::UnboundedSender<Event>,
    what: &'static str,
    armed: bool,
}

impl Watchdog {
    /// A watchdog over `what`.
    pub(crate) fn new(what: &'static str, events: tokio::sync::mpsc::UnboundedSender<Event>) -> Self {
        Self { events, what, armed: true }
    }

    /// It ended as it should, or with an error that is told now.
    pub(crate) fn finish(mut self, result: Result<(), EngineError>) {
        self.armed = false;
        if let Err(error) = result {
            let _ = self.events.send(Event::Failed(error));
        }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        if self.armed {
            let _ = self.events.send(Event::Failed(EngineError::Defect(self.what)));
        }
    }
}
