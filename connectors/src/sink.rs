//! The Sink and Writer traits: where rows go, in two phases.
//!
//! ```text
//!   open(shard, attempt, carried) ─▶ Writer ─ write* ─ prepare(N) ─▶ tokens, kept rows, carried state
//!                                                                     │ the epoch's log transaction holds all of it
//!                                        commit(token) ◀──────────────┤
//!                              restage(lost tokens, kept rows) ◀──────┘ where what was staged is gone
//! ```
//!
//! `prepare` makes everything written so far durable but invisible: either staged under a token, or handed to the
//! engine as carried state (rows of a file that has not rolled yet). The tokens become part of the manifest in the
//! epoch's log transaction, and only then are they committed, in epoch order for each shard, possibly more than once
//! (after a crash). What no manifest names is never committed; `collect` sweeps it away.
//!
//! The engine keeps the rows that a token was made from until the token is confirmed. Where the staged form expires or
//! is deleted, the sink stages those rows again; the new tokens go through a manifest like all others.
//!
//! A row that the destination can never take is refused before `prepare` returns, so that no token depends on it.

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

/// Rows that the destination can never take.
#[derive(Clone, Debug)]
pub struct RefusedRows {
    /// The rows as the writer was given them, with their origin.
    pub rows: RowBatch,
    /// Why the destination cannot take them.
    pub reason: String,
}

/// What a writer returns while it takes rows.
#[derive(Clone, Debug, Default)]
pub struct Taken {
    /// Rows that it does not write. They are in no token and in no state.
    pub refused: Vec<RefusedRows>,
    /// Rows to keep for the tokens of this epoch, handed over early to bound memory: see `Prepared::kept`.
    pub kept: Option<Bytes>,
}

/// What a writer hands over at a barrier.
#[derive(Clone, Debug, Default)]
pub struct Prepared {
    /// What was staged in this epoch, to be committed in this order.
    pub tokens: Vec<Token>,
    /// Rows that lie in `tokens` and were not handed over before. With the state that `reset` voids and with
    /// `Taken::kept`, in this order: all the rows that `Sink::restage` needs.
    pub kept: Option<Bytes>,
    /// Whether the state carried so far is void (its rows are in `tokens`, or there were none).
    pub reset: bool,
    /// State to carry on top of what was carried before (after `reset`, instead of it): rows that are not staged yet.
    pub carried: Option<Bytes>,
    /// Rows that it does not write, found since the last `write`.
    pub refused: Vec<RefusedRows>,
    /// What is visible once the epoch's transaction and all of `tokens` are committed.
    pub visible: Written,
    /// How many rows are carried: taken, and not visible before a later epoch.
    pub carried_rows: u64,
}

/// What became of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Committed {
    /// Its rows are visible, now or since an earlier call.
    Done,
    /// Neither what was staged nor the result is there any more; the text names it. The rows can be staged again.
    Lost(String),
}

/// Lost tokens, and the rows that they were made from.
#[derive(Clone, Debug)]
pub struct Restage {
    /// The tokens that are lost, of one epoch of one shard.
    pub lost: Vec<Token>,
    /// The rows of all the epoch's tokens, in the order they were handed over.
    pub rows: Vec<Bytes>,
    /// The shard that wrote them.
    pub shard: u32,
    /// The epoch whose commit is to name the new tokens.
    pub epoch: CheckpointEpoch,
    /// Part of the names of what is staged. Unique for each call, and no writer has it.
    pub attempt: Attempt,
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
    /// Fails where something else is found in the place of the result.
    async fn commit(&self, token: &Token) -> Result<Committed, ConnectorError>;

    /// How many tokens of one epoch may be committed at the same time, at least 1.
    fn commits_at_once(&self) -> usize;

    /// Stages the rows of lost tokens again, durable but invisible, as `Writer::prepare` does. Returns the tokens that
    /// take the place of the lost ones in a manifest before they are committed.
    async fn restage(&self, restage: Restage) -> Result<Vec<Token>, ConnectorError>;

    /// Removes staged leftovers of earlier attempts of this deployment that none of the `live` tokens names; what other
    /// deployments stage at the same destination stays. Called once at the start, after the live tokens were committed,
    /// and once more after a clean end.
    async fn collect(&self, live: &[Token], attempt: &Attempt) -> Result<(), ConnectorError>;
}

/// Why a sink without tokens cannot stage anything again.
pub(crate) fn stages_nothing(sink: &str) -> ConnectorError {
    ConnectorError::Data {
        place: sink.to_owned(),
        message: "it stages nothing, and yet something staged is to be committed".to_owned(),
    }
}

/// Writes one shard of a sink.
#[async_trait]
pub trait Writer: Send {
    /// Takes rows of the sink's schema. May wait: that is how a slow sink slows its sources.
    async fn write(&mut self, batch: RowBatch) -> Result<Taken, ConnectorError>;

    /// Ends the epoch: see the module. `last` says that the input has ended, so that nothing may be carried on.
    async fn prepare(&mut self, epoch: CheckpointEpoch, last: bool) -> Result<Prepared, ConnectorError>;
}

/// Rows, and their bytes as encoded for the destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// How many rows.
    pub rows: u64,
    /// How many bytes.
    pub bytes: u64,
}
