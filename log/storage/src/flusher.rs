//! Group commit: many producers wait, few disk syncs run, one for everyone who waited when it began.
//!
//! ```text
//! request(log A, 7) --.                                     worker 1: sync(A) ----> done(7), done(9)
//! request(log A, 9) ---+--> A: [7, 9]   queue: A, B  --->
//! request(log B, 3) --'     B: [3]                          worker 2: sync(B) ----> done(3)
//!
//!                           checkpoints due: A         ---> the checkpointer, for whom nobody waits
//! ```
//! While a log is being synced its new waiters gather for the next sync. Syncs of different logs run side by side: the
//! file system commits them together, so the more of them the less each costs.

use std::collections::{HashMap, HashSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

use logmill_protocol::Offset;
use parking_lot::{Condvar, Mutex};

use crate::error::{Result, StorageError};
use crate::log::PartitionLog;

/// How many callers may wait at once; more are refused with `Overloaded`.
pub const MAX_WAITERS: usize = 64 * 1024;

/// Threads that sync at most, for as many logs at a time. They are started as they are needed.
const MAX_WORKERS: usize = 64;

type Done = Box<dyn FnOnce(Result<Offset, Arc<StorageError>>) + Send>;

/// Lets callers wait for durability together. One for each data directory; dropping it serves who waits and ends it.
#[derive(Debug)]
pub struct Flusher {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    ready: Condvar,
    checkpoints: Mutex<Checkpoints>,
    checkpoint_due: Condvar,
}

#[derive(Default)]
struct Queue {
    /// Logs with waiters that no worker syncs at present, first come first served.
    order: VecDeque<usize>,
    waiting: HashMap<usize, Waiting>,
    waiters: usize,
    workers: usize,
    /// Workers that have nothing to do.
    idle: usize,
    stopping: bool,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("Queue");
        shown
            .field("logs", &self.waiting.len())
            .field("waiters", &self.waiters)
            .field("workers", &self.workers)
            .finish()
    }
}

struct Waiting {
    log: Arc<PartitionLog>,
    done: Vec<Done>,
}

/// The logs whose recovery point should be moved, each once.
#[derive(Debug, Default)]
struct Checkpoints {
    order: VecDeque<Arc<PartitionLog>>,
    queued: HashSet<usize>,
    stopping: bool,
}

impl Flusher {
    /// Starts the threads that are always needed.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start() -> Result<Self> {
        let flusher = Self { shared: Arc::new(Shared::default()), threads: Mutex::default() };
        let shared = Arc::clone(&flusher.shared);
        flusher.spawn("log-checkpoint".to_owned(), move || shared.work_on_checkpoints())?;
        flusher.shared.queue.lock().workers = 1;
        flusher.add_worker(1)?;
        Ok(flusher)
    }

    fn add_worker(&self, number: usize) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        self.spawn(format!("log-flush-{number}"), move || shared.work())
    }

    fn spawn(&self, name: String, work: impl FnOnce() + Send + 'static) -> Result<()> {
        let spawned = std::thread::Builder::new().name(name).spawn(work);
        let thread = spawned.map_err(|e| StorageError::io("start the thread", "log-flush".as_ref(), e))?;
        self.threads.lock().push(thread);
        Ok(())
    }

    /// Calls `done` once `log` is durable up to `offset` (exclusive), with the offset up to which it is, or with the
    /// error that stopped it. `done` runs on a flusher's thread, or at once on the caller's if nothing is left to do;
    /// it must not block. Never blocks.
    ///
    /// # Errors
    /// `Overloaded` if [`MAX_WAITERS`] wait; `done` is then dropped without a call.
    pub fn request<F>(&self, log: &Arc<PartitionLog>, offset: Offset, done: F) -> Result<()>
    where
        F: FnOnce(Result<Offset, Arc<StorageError>>) + Send + 'static,
    {
        let durable = log.durable();
        if durable >= offset {
            done(Ok(durable));
            return Ok(());
        }
        self.enqueue(log, Box::new(done))
    }

    fn enqueue(&self, log: &Arc<PartitionLog>, done: Done) -> Result<()> {
        let id = Arc::as_ptr(log).addr();
        let mut queue = self.shared.queue.lock();
        if queue.waiters >= MAX_WAITERS {
            return Err(StorageError::Overloaded { waiting: queue.waiters });
        }
        queue.waiters += 1;
        match queue.waiting.get_mut(&id) {
            Some(waiting) => waiting.done.push(done),
            None => {
                queue.waiting.insert(id, Waiting { log: Arc::clone(log), done: vec![done] });
                queue.order.push_back(id);
                self.shared.ready.notify_one();
            }
        }
        if queue.order.len() > queue.idle && queue.workers < MAX_WORKERS {
            queue.workers += 1;
            let number = queue.workers;
            drop(queue);
            if let Err(error) = self.add_worker(number) {
                self.shared.queue.lock().workers -= 1;
                tracing::warn!(%error, "syncs go on with the threads there are");
            }
        }
        Ok(())
    }

    /// Waits until `log` is durable up to `offset`, sharing the sync with others.
    ///
    /// # Errors
    /// The error that stopped the log, or `Overloaded`.
    pub fn flush(&self, log: &Arc<PartitionLog>, offset: Offset) -> Result<Offset, Arc<StorageError>> {
        let (send, receive) = std::sync::mpsc::sync_channel(1);
        // The receiver waits below, so there is always room.
        self.request(log, offset, move |result| drop(send.send(result))).map_err(Arc::new)?;
        receive.recv().unwrap_or_else(|_| Err(Arc::new(StorageError::Closed { path: log.dir().to_owned() })))
    }
}

impl Shared {
    fn work(&self) {
        while let Some((id, log, done)) = self.next() {
            let result = log.sync_only().map_err(Arc::new);
            let count = done.len();
            for done in done {
                // A caller that panics must not take the others' answers with it; the panic is reported as any.
                let _ = catch_unwind(AssertUnwindSafe(|| done(result.clone())));
            }
            self.finish(id, count);
            if log.is_checkpoint_due() {
                self.queue_checkpoint(log);
            }
        }
    }

    fn queue_checkpoint(&self, log: Arc<PartitionLog>) {
        let mut checkpoints = self.checkpoints.lock();
        if checkpoints.queued.insert(Arc::as_ptr(&log).addr()) {
            checkpoints.order.push_back(log);
            self.checkpoint_due.notify_one();
        }
    }

    fn work_on_checkpoints(&self) {
        let mut checkpoints = self.checkpoints.lock();
        while !checkpoints.stopping {
            let Some(log) = checkpoints.order.pop_front() else {
                self.checkpoint_due.wait(&mut checkpoints);
                continue;
            };
            drop(checkpoints);
            log.checkpoint_if_due();
            checkpoints = self.checkpoints.lock();
            checkpoints.queued.remove(&Arc::as_ptr(&log).addr());
        }
    }

    /// The next log to sync with everyone who waits for it; `None` when the flusher stops and nobody waits.
    fn next(&self) -> Option<(usize, Arc<PartitionLog>, Vec<Done>)> {
        let mut queue = self.queue.lock();
        loop {
            if let Some(id) = queue.order.pop_front() {
                if let Some(waiting) = queue.waiting.get_mut(&id) {
                    return Some((id, Arc::clone(&waiting.log), std::mem::take(&mut waiting.done)));
                }
            } else if queue.stopping {
                return None;
            } else {
                queue.idle += 1;
                self.ready.wait(&mut queue);
                queue.idle -= 1;
            }
        }
    }

    /// Queues the log again if someone came while it was synced.
    fn finish(&self, id: usize, served: usize) {
        let mut queue = self.queue.lock();
        queue.waiters -= served;
        match queue.waiting.get_mut(&id) {
            Some(waiting) if !waiting.done.is_empty() => {
                queue.order.push_back(id);
                self.ready.notify_one();
            }
            _ => drop(queue.waiting.remove(&id)),
        }
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.shared.queue.lock().stopping = true;
        self.shared.ready.notify_all();
        self.shared.checkpoints.lock().stopping = true;
        self.shared.checkpoint_due.notify_all();
        for thread in self.threads.get_mut().drain(..) {
            // The threads never panic.
            let _ = thread.join();
        }
    }
}
