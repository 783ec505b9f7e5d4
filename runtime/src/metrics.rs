//! What a run has done so far: relaxed counters that tasks add to and the progress display reads.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

/// Counters of one run. All only grow.
#[derive(Debug, Default)]
pub struct Metrics {
    rows_read: AtomicU64,
    bytes_read: AtomicU64,
    rows_taken_in: AtomicU64,
    bytes_taken_in: AtomicU64,
    bytes_to_read: AtomicU64,
    dead_letters: AtomicU64,
    epoch: AtomicU64,
    commits: AtomicU64,
    sinks: Mutex<Vec<SinkMetrics>>,
}

/// What one sink has written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SinkMetrics {
    /// The sink's name.
    pub name: String,
    /// Rows that are visible.
    pub rows: u64,
    /// Their bytes as encoded.
    pub bytes: u64,
    /// Rows that it took by the last barrier and that are not visible before a later one.
    pub carried: u64,
}

/// The counters at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Rows the operators were given.
    pub rows_read: u64,
    /// Bytes read from the sources that the operators read.
    pub bytes_read: u64,
    /// Rows written to the topics that sources are played through.
    pub rows_taken_in: u64,
    /// Bytes read from the sources that are played through a topic.
    pub bytes_taken_in: u64,
    /// How many bytes the sources have in all, 0 if unknown.
    pub bytes_to_read: u64,
    /// Records put aside.
    pub dead_letters: u64,
    /// The last committed checkpoint epoch, 0 before the first.
    pub epoch: u64,
    /// How many commits the run has made.
    pub commits: u64,
    /// Each sink, in the order of the pipeline.
    pub sinks: Vec<SinkMetrics>,
}

impl Metrics {
    /// Counters at zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// Names the sinks, in the order that `written` numbers them.
    pub fn name_sinks(&self, names: impl IntoIterator<Item = String>) {
        *self.sinks.lock() = names.into_iter().map(|name| SinkMetrics { name, ..SinkMetrics::default() }).collect();
    }

    /// The sources have this many bytes in all.
    pub fn set_bytes_to_read(&self, bytes: u64) {
        self.bytes_to_read.store(bytes, Relaxed);
    }

    /// The operators were given rows, read from so many bytes of a source.
    pub fn read(&self, rows: u64, bytes: u64) {
        self.rows_read.fetch_add(rows, Relaxed);
        self.bytes_read.fetch_add(bytes, Relaxed);
    }

    /// Rows were written to the topic that their source is played through.
    pub fn taken_in(&self, rows: u64, bytes: u64) {
        self.rows_taken_in.fetch_add(rows, Relaxed);
        self.bytes_taken_in.fetch_add(bytes, Relaxed);
    }

    /// Rows of a sink became visible.
    pub fn written(&self, sink: usize, rows: u64, bytes: u64) {
        if let Some(sink) = self.sinks.lock().get_mut(sink) {
            sink.rows += rows;
            sink.bytes += bytes;
        }
    }

    /// A sink carries so many rows that are not visible yet.
    pub fn carried(&self, sink: usize, rows: u64) {
        if let Some(sink) = self.sinks.lock().get_mut(sink) {
            sink.carried = rows;
        }
    }

    /// Records were put aside.
    pub fn dead_letters(&self, records: u64) {
        self.dead_letters.fetch_add(records, Relaxed);
    }

    /// An epoch was committed.
    pub fn committed(&self, epoch: u64) {
        self.epoch.store(epoch, Relaxed);
        self.commits.fetch_add(1, Relaxed);
    }

    /// Rows the operators were given so far.
    pub fn rows_read(&self) -> u64 {
        self.rows_read.load(Relaxed)
    }

    /// The counters now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            rows_read: self.rows_read.load(Relaxed),
            bytes_read: self.bytes_read.load(Relaxed),
            rows_taken_in: self.rows_taken_in.load(Relaxed),
            bytes_taken_in: self.bytes_taken_in.load(Relaxed),
            bytes_to_read: self.bytes_to_read.load(Relaxed),
            dead_letters: self.dead_letters.load(Relaxed),
            epoch: self.epoch.load(Relaxed),
            commits: self.commits.load(Relaxed),
            sinks: self.sinks.lock().clone(),
        }
    }
}
