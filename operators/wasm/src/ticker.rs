//! The clock of deadlines: one thread that moves wasmtime's epoch on while calls run, and sleeps while none does.
//!
//! Guests look at the epoch in every loop and at every function's entry, which costs a load and a comparison; whether the
//! time is really up is asked of the clock only once the epoch says that it may be.
//!
//! ```text
//! calls    ──▓▓▓▓──▓▓──────────────────────────▓▓▓▓▓──
//! ticker   ──┼┼┼┼┼┼┼┼┼┼ lingers ─ parked ──────┼┼┼┼┼┼┼
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use wasmtime::Engine;

/// Time between two ticks, or a little more: the thread sleeps at least as long. A deadline is noticed at the first tick after it.
pub(crate) const TICK: Duration = Duration::from_millis(2);
/// Ticks without a call until the thread parks. Waking it costs a system call, which frequent calls shall not pay each time.
const LINGER_TICKS: u32 = 100;

struct Shared {
    running: AtomicUsize,
    parked: AtomicBool,
    stopped: AtomicBool,
}

/// Moves the epoch on while calls run. Its thread ends with it.
pub(crate) struct Ticker {
    shared: Arc<Shared>,
    thread: thread::Thread,
}

/// A call that runs; dropped when it has ended.
pub(crate) struct Running<'a>(&'a Shared);

impl Ticker {
    pub(crate) fn start(engine: &Engine) -> std::io::Result<Ticker> {
        let shared = Arc::new(Shared {
            running: AtomicUsize::new(0),
            parked: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
        });
        let (engine, seen) = (engine.weak(), Arc::clone(&shared));
        let tick = move || {
            // The engine outlives this loop only if someone still holds it.
            if let Some(engine) = engine.upgrade() {
                engine.increment_epoch();
            }
        };
        let handle = thread::Builder::new().name("wasm-ticker".into()).spawn(move || run(&seen, tick))?;
        Ok(Ticker { shared, thread: handle.thread().clone() })
    }

    /// A call begins.
    pub(crate) fn running(&self) -> Running<'_> {
        self.shared.running.fetch_add(1, Ordering::SeqCst);
        // Either the ticker sees the call above before it parks, or it is seen here to have said that it will.
        if self.shared.parked.load(Ordering::SeqCst) && self.shared.parked.swap(false, Ordering::SeqCst) {
            self.thread.unpark();
        }
        Running(&self.shared)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        self.thread.unpark();
    }
}

fn run(shared: &Shared, tick: impl Fn()) {
    let mut idle_ticks = 0;
    while !shared.stopped.load(Ordering::SeqCst) {
        thread::sleep(TICK);
        if shared.running.load(Ordering::SeqCst) > 0 {
            idle_ticks = 0;
            tick();
            continue;
        }
        idle_ticks += 1;
        if idle_ticks < LINGER_TICKS {
            continue;
        }
        shared.parked.store(true, Ordering::SeqCst);
        while shared.running.load(Ordering::SeqCst) == 0
            && shared.parked.load(Ordering::SeqCst)
            && !shared.stopped.load(Ordering::SeqCst)
        {
            thread::park();
        }
        shared.parked.store(false, Ordering::SeqCst);
        idle_ticks = 0;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::atomic::AtomicU64;
    use std::sync::mpsc;

    fn started() -> (Arc<Shared>, Arc<AtomicU64>, thread::JoinHandle<()>) {
        let shared = Arc::new(Shared {
            running: AtomicUsize::new(0),
            parked: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
        });
        let ticks = Arc::new(AtomicU64::new(0));
        let (seen, count) = (Arc::clone(&shared), Arc::clone(&ticks));
        let handle = thread::spawn(move || {
            run(&seen, || {
                count.fetch_add(1, Ordering::SeqCst);
            });
        });
        (shared, ticks, handle)
    }

    fn wait_until(what: impl Fn() -> bool) {
        while !what() {
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn it_parks_without_calls_and_ticks_again_with_one() {
        let (shared, ticks, handle) = started();
        let ticker = Ticker { shared, thread: handle.thread().clone() };
        wait_until(|| ticker.shared.parked.load(Ordering::SeqCst));
        assert_eq!(ticks.load(Ordering::SeqCst), 0, "no call has run");
        let call = ticker.running();
        wait_until(|| ticks.load(Ordering::SeqCst) > 2);
        drop(call);
        wait_until(|| ticker.shared.parked.load(Ordering::SeqCst));
        drop(ticker);
        handle.join().unwrap();
    }

    #[test]
    fn calls_of_many_threads_never_wait_for_a_tick_that_does_not_come() {
        let (shared, ticks, handle) = started();
        let ticker = Ticker { shared, thread: handle.thread().clone() };
        let (done, all_done) = mpsc::channel();
        thread::scope(|scope| {
            for _ in 0..4 {
                let (ticker, ticks, done) = (&ticker, &ticks, done.clone());
                scope.spawn(move || {
                    for _ in 0..20 {
                        let _call = ticker.running();
                        let before = ticks.load(Ordering::SeqCst);
                        wait_until(|| ticks.load(Ordering::SeqCst) > before);
                    }
                    done.send(()).unwrap();
                });
            }
        });
        drop(done);
        assert_eq!(all_done.iter().count(), 4);
        drop(ticker);
        handle.join().unwrap();
    }
}
