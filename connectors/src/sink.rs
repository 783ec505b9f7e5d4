//! The Sink and Writer traits: where rows go, in two phases.
//!
//! ```text
//!   open(shard, attempt, carried) ─▶ Writer ─ write* ─ prepare(N) ─▶ tokens + carried state
//!                                                                     │ the epoch's log transaction holds both
//!                                        commit(token) ◀──────────────┘
//! ```
//!
//! `prepare` makes everything written so far durable but invisible: either staged under a token, or handed to the
//! engine as carried state (rows of a file that has not rolled yet). The tokens become part of the manifest in the
//! epoch's log transaction, and only then are they committed, in epoch order for each shard, possibly more than once
//! (after a crash). What no manifest names is never committed; `collect` sweeps it away.

use async_trait::async_trait;
use bytes::Bytes;
use logmill_pipelines::flow::{CheckpointEpoch, RowBatch};
use serde::{Deserialize, Serialize};

use crate::error::ConnectorError;

/// What a sink can take of a changelog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepts {
    /// Inserts only.
    Append,
    /// The latest row of each key, and deletes by key.
    Upsert,
    /// Every op.
    Changelog,
}

/// Names something staged: a small JSON value that only its own sink understands. Committing it is idempotent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Token(pub serde_json::Value);

/// What a writer hands over at a barrier.
#[derive(Clone, Debug, Default)]
pub struct Prepared {
    /// What was staged in this epoch, to be committed in this order.
    pub tokens: Vec<Token>,
    /// Whether the state carried so far is void (its rows are in `tokens`, or there were none).
    pub reset: bool,
    /// State to carry on top of what was carried before (after `reset`, instead of it): rows that are not staged yet.
    pub carried: Option<Bytes>,
}

/// What became of a token.
#[derive(Clone, Debug)]
pub enum Committed {
    /// Its rows are visible, now or since an earlier call.
    Done {
        /// Rows that the destination refused, with the reason: they are dead-lettered.
        rejected: Vec<(RowBatch, String)>,
    },
    /// Neither what was staged nor the result is there any more; the text names it.
    Lost(String),
}

/// Distinguishes writers that died from those that live: part of every staged name. Unique for each run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt(pub String);

/// What a writer needs to open.
#[derive(Clone, Debug)]
pub struct OpenWriter {
    /// The shard of the sink that it writes.
    pub shard: u32,
    /// This run's attempt.
    pub attempt: Attempt,
    /// The epoch its first rows belong to.
    pub epoch: CheckpointEpoch,
    /// The state that was carried at the last commit, in the order it was handed over.
    pub carried: Vec<Bytes>,
}

/// Where rows go.
#[async_trait]
pub trait Sink: Send + Sync {
    /// What it can take.
    fn accepts(&self) -> Accepts;

    /// Opens the writer of a shard. At most one lives for each shard.
    async fn open(&self, open: OpenWriter) -> Result<Box<dyn Writer>, ConnectorError>;

    /// Makes what a token names visible. Idempotent: also after a crash that hid whether an earlier call succeeded.
    async fn commit(&self, token: &Token) -> Result<Committed, ConnectorError>;

    /// Removes staged leftovers of earlier attempts that none of the `live` tokens names. Called once at the start,
    /// after the live tokens were committed, and once more after a clean end.
    async fn collect(&self, live: &[Token], attempt: &Attempt) -> Result<(), ConnectorError>;
}

/// Writes one shard of a sink.
#[async_trait]
pub trait Writer: Send {
    /// Takes rows of the sink's schema. May wait: that is how a slow sink slows its sources.
    async fn write(&mut self, batch: RowBatch) -> Result<(), ConnectorError>;

    /// Ends the epoch: see the module. `last` says that the input has ended, so that nothing may be carried on.
    async fn prepare(&mut self, epoch: CheckpointEpoch, last: bool) -> Result<Prepared, ConnectorError>;

    /// Rows and bytes written to the destination so far, for progress.
    fn written(&self) -> Written;
}

/// How much a writer has written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Rows taken.
    pub rows: u64,
    /// Bytes encoded.
    pub bytes: u64,
}
