//! What the operator asks of a guest, whatever its kind: so that narrowing and replaying know nothing of WebAssembly.

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use logmill_wasm::Moment;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::error::OperatorError;
use crate::operator::{Clock, Port};

/// A guest at work. After a failure that is not [`FailureKind::Refused`] it must not be called again.
pub(super) trait Live: Send {
    /// Processes rows; what it makes goes to `made`, which counts for nothing after a failure.
    fn on_batch(&mut self, at: Moment, rows: &RecordBatch, made: &mut Made) -> Result<(), Failure>;

    /// Event time has reached `time_us`.
    fn on_watermark(&mut self, at: Moment, time_us: i64, made: &mut Made) -> Result<(), Failure>;

    /// The state, which this does not change.
    fn snapshot(&mut self, at: Moment) -> Result<GuestState, Failure>;

    /// Takes a state over, before anything else.
    fn restore(&mut self, at: Moment, state: &GuestState) -> Result<(), Failure>;
}

/// Makes guests that are as at the beginning.
pub(super) trait Spawn: Send {
    /// What it makes.
    type Guest: Live;

    /// The name of the operator they are of.
    fn operator(&self) -> &str;

    /// A new guest.
    fn spawn(&self, at: Moment) -> Result<Self::Guest, OperatorError>;

    /// The version of the state that the guests' snapshots have.
    fn state_version(&self) -> Option<u32>;
}

/// A state as a guest gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GuestState {
    /// Of its form; the guest's own.
    pub(super) version: u32,
    pub(super) bytes: bytes::Bytes,
}

/// Why a guest did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) kind: FailureKind,
    pub(super) message: String,
    /// The row that the guest blames.
    pub(super) row: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FailureKind {
    /// It said no, and is as it was, unless it has state.
    Refused,
    /// It broke.
    Broken,
    /// It broke, as it took too long.
    Deadline,
}

/// What came of rows.
#[derive(Debug, Default)]
pub(super) struct Made {
    /// Rows of the outputs, in order.
    pub(super) rows: Vec<(Port, RecordBatch)>,
    /// Rows of the input that came to nothing.
    pub(super) rejected: Vec<Rejected>,
}

/// Neighbouring rows of the input that were rejected for the same reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rejected {
    pub(super) first: usize,
    pub(super) rows: usize,
    pub(super) reason: String,
}

impl Made {
    /// Appends what came of later rows, the first of which is the row `offset`.
    pub(super) fn append(&mut self, later: Self, offset: usize) {
        self.rows.extend(later.rows);
        let moved = later.rejected.into_iter();
        self.rejected.extend(moved.map(|rejected| Rejected { first: rejected.first + offset, ..rejected }));
    }

    /// Notes a row that came to nothing.
    pub(super) fn reject(&mut self, row: usize, reason: String) {
        self.rejected.push(Rejected { first: row, rows: 1, reason });
    }

    /// Brings rejected rows into their order, and puts those together that were rejected for the same reason.
    pub(super) fn merge_rejected(&mut self) {
        self.rejected.sort_by_key(|rejected| rejected.first);
        let mut merged: Vec<Rejected> = Vec::with_capacity(self.rejected.len());
        for rejected in self.rejected.drain(..) {
            match merged.last_mut() {
                Some(last) if last.first + last.rows == rejected.first && last.reason == rejected.reason => {
                    last.rows += rejected.rows;
                }
                _ => merged.push(rejected),
            }
        }
        self.rejected = merged;
    }

    /// Puts the rows of each port together, so that a few bad rows do not make small batches.
    pub(super) fn merge_rows(&mut self) -> Result<(), arrow::error::ArrowError> {
        let ports = self.rows.iter().map(|(port, _)| *port + 1).max().unwrap_or(0);
        let mut merged = Vec::with_capacity(ports);
        for port in 0..ports {
            let pieces = || self.rows.iter().filter(|(of, _)| *of == port).map(|(_, rows)| rows);
            let Some(first) = pieces().next() else { continue };
            merged.push((port, concat_batches(&first.schema(), pieces())?));
        }
        self.rows = merged;
        Ok(())
    }
}

/// The moments of one operator's calls: no two calls have the same randomness.
pub(super) struct Moments {
    clock: Clock,
    seed: u64,
}

impl Moments {
    pub(super) fn new(clock: Clock, operator: &str) -> Self {
        Self { clock, seed: xxh3_64(operator.as_bytes()) }
    }

    pub(super) fn next(&mut self) -> Moment {
        let now_us = (self.clock)();
        // The clock is part of it, so that guests do not draw the same after a restart.
        self.seed = xxh3_64_with_seed(&now_us.to_le_bytes(), self.seed);
        Moment { now_us, seed: self.seed }
    }
}
