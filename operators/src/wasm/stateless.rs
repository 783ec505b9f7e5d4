//! A guest that remembers nothing: if it breaks, another takes its place.

use arrow::array::RecordBatch;

use super::live::{Failure, FailureKind, Live, Made, Moments, Spawn};
use super::narrow::{Ran, Runner};
use super::patience::Patience;

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
    fn call(&mut self, rows: &RecordBatch) -> Ran {
        let at = self.moments.next();
        let mut guest = match self.stateless.guest.take() {
            Some(guest) => guest,
            None => self.spawn.spawn(at)?,
        };
        let mut made = Made::default();
        let called = guest.on_batch(at, rows, &mut made);
        if called.as_ref().err().is_none_or(|failure| failure.kind == FailureKind::Refused) {
            self.stateless.guest = Some(guest);
        }
        Ok(called.map(|()| made))
    }
}

impl<S: Spawn> Runner for StatelessRunner<'_, S> {
    fn run(&mut self, rows: &RecordBatch) -> Ran {
        self.call(rows)
    }

    fn run_again(&mut self, row: &RecordBatch, _: &Failure) -> Ran {
        // The guest that failed is gone: this is a new one, with all its memory.
        self.call(row)
    }

    fn patience(&mut self) -> &mut Patience {
        &mut self.stateless.patience
    }

    fn operator(&self) -> &str {
        self.spawn.operator()
    }
}
