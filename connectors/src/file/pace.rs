//! Holds all readers of a source to one rate.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::config::Rate;

/// This part of a second's rows is handed over at a time.
const STEPS: u64 = 20;
/// A source that was held up makes up for this much of the time.
const MAX_CATCH_UP: Duration = Duration::from_secs(1);

/// A rate, shared by the readers of a source.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    rate: Rate,
    /// When the next rows are due.
    due: Arc<Mutex<Option<Instant>>>,
}

impl Pace {
    pub(super) fn new(rate: Rate) -> Self {
        Self { rate, due: Arc::default() }
    }

    /// How many rows to hand over at a time.
    pub(super) fn step_rows(&self) -> usize {
        usize::try_from(self.rate.0.get() / STEPS).unwrap_or(usize::MAX).max(1)
    }

    /// Waits until so many rows more are due.
    pub(super) fn wait(&self, rows: usize) {
        let due = {
            let mut due = self.due.lock();
            let now = Instant::now();
            let from = due.unwrap_or(now).max(now.checked_sub(MAX_CATCH_UP).unwrap_or(now));
            let next = from + Duration::from_secs_f64(rows as f64 / self.rate.0.get() as f64);
            *due = Some(next);
            next
        };
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
}
