//! A guest that remembers nothing: if it breaks, another takes its place.

use arrow::array::RecordBatch;
use logmill_wasm::Moment;

use super::live::{Failure, FailureKind, Live, Made, Moments, Spawn};
use super::narrow::Runner;
use super::patience::Patience;
use crate::error::OperatorError;

/// The guest of one worker.
pub(super) struct Stateless<G> {
    guest: Option<G>,
    patience: Patience,
}

impl<G> Default for Stateless<G> {
    fn default() -> Self {
        Self { guest: None, patience: Patience::default() }
    }
}

impl<G: Live> Stateless<G> {
    /// What processes rows with guests of `spawn`.
    pub(super) fn runner<'a, S: Spawn<Guest = G>>(
        &'a mut self,
        spawn: &'a S,
        moments: &'a mut Moments,
    ) -> StatelessRunner<'a, S> {
        StatelessRunner { stateless: self, spawn, moments }
    }
}

/// Calls the guest, and makes a new one after one that broke.
pub(super) struct StatelessRunner<'a, S: Spawn> {
    stateless: &'a mut Stateless<S::Guest>,
    spawn: &'a S,
    moments: &'a mut Moments,
}

impl<S: Spawn> StatelessRunner<'_, S> {
    /// Event time has reached `time_us`. No row is to blame if this fails.
    pub(super) fn watermark(&mut self, time_us: i64) -> Result<Made, OperatorError> {
        let called = self.call(|guest, at, made| guest.on_watermark(at, time_us, made))?;
        called.map_err(|failure| OperatorError::Failed {
            operator: self.spawn.operator().to_owned(),
            message: format!("its guest failed at an event-time watermark: {}", failure.message),
        })
    }

    fn call(
        &mut self,
        what: impl FnOnce(&mut S::Guest, Moment, &mut Made) -> Result<(), Failure>,
    ) -> Result<Result<Made, Failure>, OperatorError> {
        let at = self.moments.next();
        let mut guest = match self.stateless.guest.take() {
            Some(guest) => guest,
            None => self.spawn.spawn(at)?,
        };
        let mut made = Made::default();
        let called = what(&mut guest, at, &mut made);
        if called.as_ref().err().is_none_or(|failure| failure.kind == FailureKind::Refused) {
            self.stateless.guest = Some(guest);
        }
        Ok(called.map(|()| made))
    }
}

impl<S: Spawn> Runner for StatelessRunner<'_, S> {
    fn run(&mut self, rows: &RecordBatch) -> Result<Result<Made, Failure>, OperatorError> {
        self.call(|guest, at, made| guest.on_batch(at, rows, made))
    }

    fn patience(&mut self) -> &mut Patience {
        &mut self.stateless.patience
    }

    fn operator(&self) -> &str {
        self.spawn.operator()
    }
}
