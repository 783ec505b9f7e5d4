//! What the operator asks of a guest, whatever its kind: so that narrowing and replaying know nothing of WebAssembly.

use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use logmill_wasm::Moment;
use xxhash_rust::xxh3::xxh3_64_with_seed;

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

    /// From now on calls may take ample time, or no more than the pipeline's `deadline:`, as at the beginning. What the
    /// operator does on its own account (snapshots, states restored, calls made again) is not held to a deadline that was
    /// chosen for a batch of rows.
    fn allow(&mut self, time: Allowed);
}

/// How long a call may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Allowed {
    /// What the pipeline's `deadline:` says.
    Deadline,
    /// As long as [`ample`] says.
    Ample,
}

/// The least that is ample.
const LEAST_AMPLE: Duration = Duration::from_secs(30);

/// What a call may take that holds up nothing but a restart or a commit: far longer than a call on rows.
pub(super) fn ample(deadline: Duration) -> Duration {
    deadline.saturating_mul(10).max(LEAST_AMPLE)
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
    /// It broke for want of memory.
    Memory,
}

impl FailureKind {
    /// Whether the next guest may well do what this one did not: the machine was held up, or the memory was used up by
    /// what came before.
    pub(super) fn may_pass(self) -> bool {
        matches!(self, Self::Deadline | Self::Memory)
    }
}

/// Reasons are given in full until they, or rows, take this much.
const LONG_REASONS_BYTES: usize = 16 * 1024 * 1024;
/// What is kept of the reasons after that.
const SHORT_REASON_BYTES: usize = 256;

/// What came of rows.
#[derive(Debug, Default)]
pub(super) struct Made {
    /// Rows of the outputs, in order.
    pub(super) rows: Vec<(Port, RecordBatch)>,
    /// Rows of the input that came to nothing.
    pub(super) rejected: Vec<Rejected>,
    /// What all that takes, about.
    pub(super) bytes: usize,
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
        self.bytes += later.bytes;
        let moved = later.rejected.into_iter();
        self.rejected.extend(moved.map(|rejected| Rejected { first: rejected.first + offset, ..rejected }));
    }

    /// Notes a row that came to nothing.
    pub(super) fn reject(&mut self, row: usize, mut reason: String) {
        if self.bytes > LONG_REASONS_BYTES {
            reason.truncate(reason.floor_char_boundary(SHORT_REASON_BYTES));
        }
        self.bytes += reason.len();
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

/// The moments of one operator's calls on one worker: no two calls have the same randomness, on whichever workers they are.
pub(super) struct Moments {
    clock: Clock,
    seed: u64,
    /// Whether the seed stays.
    is_repeated: bool,
}

impl Moments {
    /// `number` differs between the operator's workers, whose clocks may say the same.
    pub(super) fn new(clock: Clock, operator: &str, number: u64) -> Self {
        Self { clock, seed: xxh3_64_with_seed(operator.as_bytes(), number), is_repeated: false }
    }

    /// Moments that differ in time alone.
    pub(super) fn repeated(clock: Clock) -> Self {
        Self { clock, seed: 0, is_repeated: true }
    }

    pub(super) fn next(&mut self) -> Moment {
        let now_us = (self.clock)();
        // The clock is part of it, so that guests do not draw the same after a restart.
        if !self.is_repeated {
            self.seed = xxh3_64_with_seed(&now_us.to_le_bytes(), self.seed);
        }
        Moment { now_us, seed: self.seed }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::sync::Arc;

    use super::*;

    #[test]
    fn no_two_calls_have_the_same_randomness_on_any_worker() {
        let seeds = |number: u64| {
            let mut moments = Moments::new(Arc::new(|| 5), "op", number);
            [moments.next(), moments.next()].map(|moment| moment.seed)
        };
        let mut all = [seeds(0), seeds(1), seeds(2)].concat();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 6);
        assert_eq!(seeds(1), seeds(1), "with the same clock it is the same again");
    }

    #[test]
    fn what_is_no_call_on_rows_has_ample_time() {
        for (deadline, expected) in [(1, 30), (4, 40), (u64::MAX, u64::MAX)] {
            assert_eq!(ample(Duration::from_secs(deadline)).as_secs(), expected);
        }
    }
}
