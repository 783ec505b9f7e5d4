//! How many segments this process has open, and how many it may: each holds a file open, of which there are only so many.
//!
//! A log that may not open another one goes on with the segment it has. So a topic of many small segments takes no files
//! from those who need them: partitions that are made, connections, the console.

use std::sync::atomic::{AtomicU64, Ordering};

static OPEN: AtomicU64 = AtomicU64::new(0);
static LIMIT: AtomicU64 = AtomicU64::new(u64::MAX);

/// How many segments are open in this process.
#[must_use]
pub fn open_segments() -> u64 {
    OPEN.load(Ordering::Relaxed)
}

/// Has logs roll no segment for its size or age while `limit` of them are open in this process.
pub fn limit_open_segments(limit: u64) {
    LIMIT.store(limit, Ordering::Relaxed);
}

/// Whether another segment may be opened that could wait.
pub(crate) fn has_room() -> bool {
    open_segments() < LIMIT.load(Ordering::Relaxed)
}

/// A segment that is counted until this is dropped.
#[derive(Debug)]
pub(crate) struct Counted(());

impl Counted {
    pub(crate) fn new() -> Self {
        OPEN.fetch_add(1, Ordering::Relaxed);
        Self(())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        OPEN.fetch_sub(1, Ordering::Relaxed);
    }
}
