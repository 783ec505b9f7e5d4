//! What the host keeps for an instance: the moment of its call, its log, and the bounds that it may not leave.

use std::time::Instant;

use wasmtime::{ResourceLimiter, StoreContextMut, UpdateDeadline};

use crate::log::LogGate;
use crate::trap::Fault;

/// Time and randomness of a call: with the same moment and input a guest gives the same output, so a call can be replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Moment {
    /// Microseconds since the Unix epoch; stands still during the call.
    pub now_us: i64,
    /// What the guest's randomness is made from.
    pub seed: u64,
}

/// Elements that all tables of an instance may have together. A table holds a language's function pointers.
pub(crate) const MAX_TABLE_ELEMENTS: usize = 100_000;
/// Tables, core instances and memories of one component: those of languages with runtimes have a dozen, and one memory. All
/// instances of a process share what the pool has of them, so each may take a small part of it.
const MAX_TABLES: usize = 32;
const MAX_INSTANCES: usize = 32;
const MAX_MEMORIES: usize = 4;

pub(crate) struct State {
    pub(crate) moment: Moment,
    random: fastrand::Rng,
    pub(crate) log: LogGate,
    pub(crate) bounds: Bounds,
    /// When the current call must have come back.
    pub(crate) deadline: Instant,
}

impl State {
    pub(crate) fn new(log: LogGate, memory_bytes: u64) -> State {
        let bounds = Bounds { memory_bytes, ..Bounds::default() };
        let moment = Moment::default();
        State { moment, random: fastrand::Rng::with_seed(0), log, bounds, deadline: Instant::now() }
    }

    pub(crate) fn begin_call(&mut self, moment: Moment) {
        self.moment = moment;
        self.random = fastrand::Rng::with_seed(moment.seed);
        self.bounds.refused_bytes = None;
        self.log.begin_call();
    }

    /// An error if the current call should have come back by now. The epoch ends only what runs in the guest: a call that spent
    /// its time in the host, on texts that it logs and results that are copied, is found out here.
    pub(crate) fn in_time(&self) -> Result<(), Fault> {
        if Instant::now() < self.deadline { Ok(()) } else { Err(Fault::Late) }
    }

    pub(crate) fn random_u64(&mut self) -> u64 {
        self.random.u64(..)
    }

    pub(crate) fn random_bytes(&mut self, bytes: &mut [u8]) {
        self.random.fill(bytes);
    }
}

/// The epoch has come to the deadline: only the clock knows whether it has passed.
#[allow(clippy::unnecessary_wraps)]
pub(crate) fn at_epoch_deadline(context: StoreContextMut<'_, State>) -> wasmtime::Result<UpdateDeadline> {
    let passed = Instant::now() >= context.data().deadline;
    Ok(if passed { UpdateDeadline::Interrupt } else { UpdateDeadline::Continue(1) })
}

/// The limits of an instance's memories and tables, and what it has of them.
#[derive(Default)]
pub(crate) struct Bounds {
    pub(crate) memory_bytes: u64,
    used_bytes: u64,
    /// The growth that was allowed last.
    growth_bytes: u64,
    table_elements: usize,
    /// The growth of a table that was allowed last.
    growth_elements: usize,
    /// What memory would have been, had it not been refused during the current call; nothing once some was granted again.
    pub(crate) refused_bytes: Option<u64>,
}

impl ResourceLimiter for Bounds {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            // The memory's own maximum: not a matter of our limit.
            return Ok(false);
        }
        let growth_bytes = desired.saturating_sub(current) as u64;
        let wanted = self.used_bytes.saturating_add(growth_bytes);
        if wanted > self.memory_bytes {
            self.refused_bytes = Some(wanted);
            return Ok(false);
        }
        self.used_bytes = wanted;
        self.growth_bytes = growth_bytes;
        // A guest that gets by with less has not been hurt by what it was refused.
        self.refused_bytes = None;
        Ok(true)
    }

    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        // The machine has none left.
        self.refused_bytes = Some(self.used_bytes);
        self.used_bytes = self.used_bytes.saturating_sub(std::mem::take(&mut self.growth_bytes));
        Ok(())
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let growth_elements = desired.saturating_sub(current);
        let wanted = self.table_elements.saturating_add(growth_elements);
        if wanted > MAX_TABLE_ELEMENTS || maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        self.table_elements = wanted;
        self.growth_elements = growth_elements;
        Ok(true)
    }

    fn table_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.table_elements = self.table_elements.saturating_sub(std::mem::take(&mut self.growth_elements));
        Ok(())
    }

    fn instances(&self) -> usize {
        MAX_INSTANCES
    }

    fn tables(&self) -> usize {
        MAX_TABLES
    }

    fn memories(&self) -> usize {
        MAX_MEMORIES
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use wasmtime::component::{Component, Linker};
    use wasmtime::{Engine, Store};

    use super::*;
    use crate::log::{GuestLog, Level, Logs};

    struct Silent;

    impl GuestLog for Silent {
        fn line(&self, _: Level, _: &str) {}
    }

    #[test]
    fn no_component_takes_much_of_the_pool() {
        let engine = Engine::default();
        let starts = |module: &str, instances: usize| {
            let text = format!(
                "(component (core module $m {module}) {})",
                "(core instance (instantiate $m))".repeat(instances)
            );
            let component = Component::from_binary(&engine, &wat::parse_str(text).unwrap()).unwrap();
            let state = State::new(Logs::default().gate(Arc::new(Silent)), 1 << 30);
            let mut store = Store::new(&engine, state);
            store.limiter(|state| &mut state.bounds);
            Linker::new(&engine).instantiate(&mut store, &component).is_ok()
        };
        let memories = |count| starts("(memory 0)", count);
        assert_eq!((memories(MAX_MEMORIES), memories(MAX_MEMORIES + 1)), (true, false));
        let tables = |count| starts("(table 0 funcref) (table 0 funcref)", count);
        assert_eq!((tables(MAX_TABLES / 2), tables(MAX_TABLES / 2 + 1)), (true, false));
        let instances = |count| starts("", count);
        assert_eq!((instances(MAX_INSTANCES), instances(MAX_INSTANCES + 1)), (true, false));
    }
}
