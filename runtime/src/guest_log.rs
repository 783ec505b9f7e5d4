//! The lines that guests log, on their way to this process's log: by a thread of their own, as a log that takes lines slowly (a
//! full pipe, a terminal that is stopped) must not take a guest's time. Lines that find no room are counted and left out.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use logmill_wasm::{GuestLog, Level};

/// Lines that may wait, of at most 8 KiB each.
const WAITING_LINES: usize = 1024;
/// How long the end of the process waits for lines to be written.
const FLUSH: Duration = Duration::from_secs(1);
/// How long repeated lines are counted before that is written.
const REPEATS: Duration = Duration::from_secs(1);

/// The lines that a guest logs become events of this process's log, with the names of the pipeline and of the part.
pub(crate) fn guest_log(pipeline: &str, part: &str) -> Arc<dyn GuestLog> {
    let place = Arc::new(Place { pipeline: pipeline.to_owned(), part: part.to_owned() });
    Arc::new(Lines { queue: queue(), place })
}

/// Waits until the lines that were logged so far are written, for a second at most.
pub(crate) fn flush() {
    if let Some(Some(queue)) = QUEUE.get() {
        queue.flush(FLUSH);
    }
}

static QUEUE: OnceLock<Option<Queue>> = OnceLock::new();

/// The way to the thread that writes; nothing if there is none, and whoever logs writes.
fn queue() -> Option<&'static Queue> {
    let start = || {
        let (queue, items) = Queue::new(WAITING_LINES);
        let left_out = Arc::clone(&queue.left_out);
        let thread = thread::Builder::new().name("guest-log".into()).spawn(move || write_all(&items, &left_out));
        thread.ok().map(|_| queue)
    };
    QUEUE.get_or_init(start).as_ref()
}

/// Who logs.
#[derive(PartialEq, Eq)]
struct Place {
    pipeline: String,
    part: String,
}

struct Lines {
    queue: Option<&'static Queue>,
    place: Arc<Place>,
}

impl GuestLog for Lines {
    fn line(&self, level: Level, message: &str) {
        if !is_wanted(level) {
            return;
        }
        match self.queue {
            Some(queue) => queue.line(Line { level, place: Arc::clone(&self.place), message: message.to_owned() }),
            None => write(level, &self.place, message),
        }
    }
}

#[derive(PartialEq, Eq)]
struct Line {
    level: Level,
    place: Arc<Place>,
    message: String,
}

enum Item {
    Line(Line),
    /// Whoever sent it waits for all before it.
    Flush(SyncSender<()>),
}

struct Queue {
    items: SyncSender<Item>,
    left_out: Arc<AtomicU64>,
}

impl Queue {
    fn new(lines: usize) -> (Self, Receiver<Item>) {
        let (items, receiver) = sync_channel(lines);
        (Self { items, left_out: Arc::default() }, receiver)
    }

    fn line(&self, line: Line) {
        if self.items.try_send(Item::Line(line)).is_err() {
            self.left_out.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn flush(&self, patience: Duration) {
        let until = Instant::now() + patience;
        let (done, all_done) = sync_channel(1);
        let mut item = Item::Flush(done);
        while let Err(TrySendError::Full(back)) = self.items.try_send(item) {
            if Instant::now() >= until {
                return;
            }
            item = back;
            thread::sleep(Duration::from_millis(5));
        }
        let _ = all_done.recv_timeout(until.saturating_duration_since(Instant::now()));
    }
}

fn write_all(items: &Receiver<Item>, left_out: &AtomicU64) {
    let mut last = Last::default();
    loop {
        let item = match items.recv_timeout(if last.repeated > 0 { REPEATS } else { Duration::MAX }) {
            Ok(item) => item,
            Err(RecvTimeoutError::Timeout) => {
                last.tell();
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return last.tell(),
        };
        match left_out.swap(0, Ordering::Relaxed) {
            0 => {}
            lines => {
                tracing::warn!(target: "guest", "{lines} lines of guests left out: this log takes them too slowly")
            }
        }
        match item {
            Item::Line(line) => last.write(line),
            Item::Flush(done) => {
                last.tell();
                let _ = done.try_send(());
            }
        }
    }
}

/// The line that was written last. A guest that fails says the same at each step of the search for the row: once is enough.
#[derive(Default)]
struct Last {
    line: Option<Line>,
    repeated: u64,
}

impl Last {
    fn write(&mut self, line: Line) {
        if self.line.as_ref() == Some(&line) {
            self.repeated += 1;
            return;
        }
        self.tell();
        write(line.level, &line.place, &line.message);
        self.line = Some(line);
    }

    fn tell(&mut self) {
        if let (Some(line), 1..) = (&self.line, self.repeated) {
            let times = if self.repeated == 1 { "once".to_owned() } else { format!("{} times", self.repeated) };
            write(line.level, &line.place, &format!("the same {times} more"));
        }
        self.repeated = 0;
    }
}

fn is_wanted(level: Level) -> bool {
    match level {
        Level::Debug => tracing::enabled!(target: "guest", tracing::Level::DEBUG),
        Level::Info => tracing::enabled!(target: "guest", tracing::Level::INFO),
        Level::Warn => tracing::enabled!(target: "guest", tracing::Level::WARN),
        Level::Error => tracing::enabled!(target: "guest", tracing::Level::ERROR),
    }
}

fn write(level: Level, place: &Place, message: &str) {
    let Place { pipeline, part } = place;
    match level {
        Level::Debug => tracing::debug!(target: "guest", pipeline, part, "{message}"),
        Level::Info => tracing::info!(target: "guest", pipeline, part, "{message}"),
        Level::Warn => tracing::warn!(target: "guest", pipeline, part, "{message}"),
        Level::Error => tracing::error!(target: "guest", pipeline, part, "{message}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(message: &str) -> Line {
        let place = Arc::new(Place { pipeline: "p".to_owned(), part: "o".to_owned() });
        Line { level: Level::Info, place, message: message.to_owned() }
    }

    #[test]
    fn lines_that_find_no_room_are_counted_and_nobody_waits() {
        let (queue, items) = Queue::new(2);
        for message in ["a", "b", "c", "d", "e"] {
            queue.line(line(message));
        }
        queue.flush(Duration::ZERO);
        assert_eq!(queue.left_out.load(Ordering::Relaxed), 3);
        let waiting: Vec<String> = items
            .try_iter()
            .filter_map(|item| match item {
                Item::Line(line) => Some(line.message),
                Item::Flush(_) => None,
            })
            .collect();
        assert_eq!(waiting, ["a", "b"]);
    }

    #[test]
    fn what_is_said_again_is_counted() {
        let mut last = Last::default();
        for message in ["a", "a", "a", "b"] {
            last.write(line(message));
        }
        assert_eq!((last.line.as_ref().map(|line| line.message.as_str()), last.repeated), (Some("b"), 0));
        last.write(line("b"));
        assert_eq!(last.repeated, 1);
        last.tell();
        assert_eq!(last.repeated, 0);
        assert!(last.line.is_some(), "what is said once more is still the same");
    }

    #[test]
    fn a_flush_ends_once_all_before_it_is_written() {
        let (queue, items) = Queue::new(2);
        let left_out = Arc::clone(&queue.left_out);
        queue.line(line("a"));
        queue.line(line("b"));
        queue.line(line("c"));
        let writer = thread::spawn(move || write_all(&items, &left_out));
        queue.flush(Duration::from_secs(60));
        assert_eq!(queue.left_out.load(Ordering::Relaxed), 0, "what was left out has been told");
        drop(queue);
        assert!(writer.join().is_ok());
    }
}
