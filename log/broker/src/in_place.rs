//! Work on the page cache by the runtime's own threads, such that a disk that hangs stalls nobody else.
//!
//! A write to the page cache takes microseconds, a tenth of what it would take to hand it to another thread. Until the disk
//! falls behind: then the kernel holds the writer up, and a disk that hangs holds it for ever. So:
//!
//! 1. One of the runtime's threads is always spared, to serve everyone else.
//! 2. After work that was slow there is none in place for a while.
//! 3. A thread that blocks does not tell the others, and they may all be asleep while nobody looks after sockets and
//!    timers. A watcher wakes them. It sleeps itself as long as there is no such work.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, Once};
use tokio::runtime::Handle;

/// The page cache takes this long only if the disk is behind.
const SLOW: Duration = Duration::from_millis(50);
/// How long no work is done in place after work that was slow.
const PAUSE: Duration = Duration::from_secs(1);
/// How often the watcher looks, and how long work takes before it wakes the others.
const WATCH_EVERY: Duration = Duration::from_millis(10);

static PLACES: LazyLock<Places> = LazyLock::new(Places::default);

/// The work in place of all runtimes in this process.
#[derive(Default)]
struct Places {
    state: Mutex<State>,
    /// Told when there is work again.
    busy: Condvar,
    watcher: Once,
}

#[derive(Default)]
struct State {
    under_way: Vec<Work>,
    /// How many there have been.
    begun: u64,
    paused_until: Option<Instant>,
    is_watched: bool,
}

struct Work {
    number: u64,
    since: Instant,
    runtime: Handle,
}

/// Work that is being done in place, until this is dropped.
pub(crate) struct InPlace {
    places: &'static Places,
    number: u64,
}

impl InPlace {
    /// Begins, unless all threads of the runtime but one are at it already, or it is known to be slow.
    pub(crate) fn begin() -> Option<Self> {
        PLACES.begin()
    }
}

impl Places {
    fn begin(&'static self) -> Option<InPlace> {
        let runtime = Handle::try_current().ok()?;
        let threads = runtime.metrics().num_workers();
        let since = Instant::now();
        let mut state = self.state.lock();
        if state.paused_until.is_some_and(|until| since < until) {
            return None;
        }
        let others = state.under_way.iter().filter(|work| work.runtime.id() == runtime.id()).count();
        if others + 1 >= threads {
            return None;
        }
        state.begun += 1;
        let number = state.begun;
        state.under_way.push(Work { number, since, runtime });
        if !state.is_watched {
            state.is_watched = true;
            drop(state);
            self.watch();
        }
        Some(InPlace { places: self, number })
    }

    fn watch(&'static self) {
        self.watcher.call_once(|| {
            let started = std::thread::Builder::new().name("in-place-watch".to_owned()).spawn(|| self.run());
            if let Err(error) = started {
                tracing::warn!(%error, "no thread to watch for disks that hang");
            }
        });
        self.busy.notify_one();
    }

    fn run(&self) {
        let mut state = self.state.lock();
        loop {
            let begun = state.begun;
            self.busy.wait_for(&mut state, WATCH_EVERY);
            for work in state.under_way.iter().filter(|work| work.since.elapsed() >= WATCH_EVERY) {
                // Whichever thread runs this looks after sockets and timers from then on.
                work.runtime.spawn(std::future::ready(()));
            }
            if state.under_way.is_empty() && state.begun == begun {
                state.is_watched = false;
                while !state.is_watched {
                    self.busy.wait(&mut state);
                }
            }
        }
    }
}

impl Drop for InPlace {
    fn drop(&mut self) {
        let mut state = self.places.state.lock();
        let Some(at) = state.under_way.iter().position(|work| work.number == self.number) else { return };
        let work = state.under_way.swap_remove(at);
        let now = Instant::now();
        if now.saturating_duration_since(work.since) >= SLOW {
            state.paused_until = Some(now + PAUSE);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn places() -> &'static Places {
        Box::leak(Box::default())
    }

    fn runtime(threads: usize) -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build().unwrap()
    }

    #[test]
    fn one_thread_of_each_runtime_is_spared() {
        let (three, one) = (runtime(3), runtime(1));
        let _three = three.enter();
        let places = places();
        let (first, second) = (places.begin(), places.begin());
        assert!(first.is_some() && second.is_some() && places.begin().is_none());
        drop(first);
        assert!(places.begin().is_some());
        let _one = one.enter();
        assert!(places.begin().is_none());
    }

    #[test]
    fn a_thread_that_blocks_leaves_sockets_and_timers_to_the_others() {
        let runtime = runtime(2);
        let (send, receive) = std::sync::mpsc::channel::<()>();
        runtime.block_on(async {
            let blocked = tokio::spawn(async move {
                // Off the thread that the test began on, and after a timer, which the last thread to sleep looks after.
                tokio::time::sleep(Duration::from_millis(5)).await;
                let _in_place = places().begin().unwrap();
                receive.recv().unwrap();
            });
            let served = tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(50)).await;
                send.send(()).unwrap();
            });
            served.await.unwrap();
            blocked.await.unwrap();
        });
    }
}
