//! Who waits for a partition to grow. A reader of thousands of partitions is one waiter, which is told which of them
//! did; waiting costs nothing until then.
//!
//! ```text
//!   partition a: [waiter 1, slot 0]                    a grows ─▶ waiter 1 is told of slot 0 and struck off a's list
//!   partition b: [waiter 1, slot 1] [waiter 2, slot 0]
//! ```

use std::sync::Arc;

use logmill_protocol::Offset;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::types::Isolation;

/// A reader who waits for any of its partitions. Each has a number that the reader chose, its slot.
#[derive(Debug, Default)]
pub(crate) struct Waiter {
    ready: Mutex<Vec<u32>>,
    told: Notify,
}

impl Waiter {
    /// Waits until there is something to look at, and returns the slots, each once. Cancel-safe.
    pub(crate) async fn ready(&self) -> Vec<u32> {
        loop {
            let mut ready = std::mem::take(&mut *self.ready.lock());
            if !ready.is_empty() {
                ready.sort_unstable();
                ready.dedup();
                return ready;
            }
            self.told.notified().await;
        }
    }

    pub(crate) fn tell(&self, slot: u32) {
        self.ready.lock().push(slot);
        self.told.notify_one();
    }
}

/// What a waiter wants of one partition.
#[derive(Debug)]
struct Entry {
    waiter: Arc<Waiter>,
    slot: u32,
    isolation: Isolation,
    offset: Offset,
}

/// The waiters of one partition.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    entries: Mutex<Vec<Entry>>,
}

impl Waiters {
    /// Has `waiter` told, once, when the end that the isolation sees moves past `offset`. The caller looks at the end
    /// after this, not before: what happened in between is missed otherwise.
    pub(crate) fn add(&self, waiter: &Arc<Waiter>, slot: u32, isolation: Isolation, offset: Offset) {
        self.entries.lock().push(Entry { waiter: Arc::clone(waiter), slot, isolation, offset });
    }

    /// Strikes a waiter off.
    pub(crate) fn remove(&self, waiter: &Arc<Waiter>) {
        let mut entries = self.entries.lock();
        entries.retain(|entry| !Arc::ptr_eq(&entry.waiter, waiter));
        if entries.is_empty() {
            *entries = Vec::new();
        }
    }

    /// Tells those whose offset is below the end that they see.
    pub(crate) fn wake(&self, high_watermark: Offset, last_stable_offset: Offset) {
        self.wake_if(|entry| {
            let end = match entry.isolation {
                Isolation::ReadUncommitted => high_watermark,
                Isolation::ReadCommitted => last_stable_offset,
            };
            end > entry.offset
        });
    }

    /// Tells everyone, to look again.
    pub(crate) fn wake_all(&self) {
        self.wake_if(|_| true);
    }

    fn wake_if(&self, is_due: impl Fn(&Entry) -> bool) {
        let mut entries = self.entries.lock();
        entries.retain(|entry| {
            let due = is_due(entry);
            if due {
                entry.waiter.tell(entry.slot);
            }
            !due
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_waiter_is_told_once_which_partitions_moved_past_its_offset() {
        let (a, b, waiter) = (Waiters::default(), Waiters::default(), Arc::new(Waiter::default()));
        a.add(&waiter, 0, Isolation::ReadUncommitted, Offset(5));
        b.add(&waiter, 1, Isolation::ReadCommitted, Offset(5));
        a.wake(Offset(5), Offset(5));
        b.wake(Offset(9), Offset(5));
        assert!(waiter.ready.lock().is_empty(), "nothing is past its offset");
        a.wake(Offset(6), Offset(0));
        b.wake(Offset(9), Offset(6));
        a.wake_all();
        assert_eq!(waiter.ready().await, [0, 1]);
        assert!(waiter.ready.lock().is_empty());
        assert!(a.entries.lock().is_empty() && b.entries.lock().is_empty());
    }

    #[tokio::test]
    async fn those_who_left_are_not_told() {
        let (partition, stays, leaves) = (Waiters::default(), Arc::new(Waiter::default()), Arc::new(Waiter::default()));
        for waiter in [&stays, &leaves] {
            partition.add(waiter, 7, Isolation::ReadUncommitted, Offset(0));
        }
        partition.remove(&leaves);
        partition.wake_all();
        assert_eq!(stays.ready().await, [7]);
        assert!(leaves.ready.lock().is_empty());
    }
}
