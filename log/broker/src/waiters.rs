//! Who waits for a partition to grow. A reader of thousands of partitions is one waiter, which is told which of them
//! did; waiting costs nothing until then.
//!
//! ```text
//!   partition a: [waiter 1, slot 0]                    a grows ─▶ waiter 1 is told of slot 0 and struck off a's list
//!   partition b: [waiter 1, slot 1] [waiter 2, slot 0]
//! ```

use std::collections::BTreeMap;
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

/// A waiter's place on a partition's lists, by which it is struck off.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    isolation: Isolation,
    key: Key,
}

/// The offset that is waited for, and a number of its own.
type Key = (Offset, u64);

/// The waiters of one partition, those first who wait for the lowest offset: growing looks at those whom it concerns only.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    lists: Mutex<Lists>,
}

#[derive(Debug, Default)]
struct Lists {
    uncommitted: BTreeMap<Key, (Arc<Waiter>, u32)>,
    committed: BTreeMap<Key, (Arc<Waiter>, u32)>,
    added: u64,
}

impl Lists {
    fn of(&mut self, isolation: Isolation) -> &mut BTreeMap<Key, (Arc<Waiter>, u32)> {
        match isolation {
            Isolation::ReadUncommitted => &mut self.uncommitted,
            Isolation::ReadCommitted => &mut self.committed,
        }
    }
}

impl Waiters {
    /// Has `waiter` told, once, when the end that the isolation sees moves past `offset`. The caller looks at the end
    /// after this, not before: what happened in between is missed otherwise.
    pub(crate) fn add(&self, waiter: &Arc<Waiter>, slot: u32, isolation: Isolation, offset: Offset) -> Place {
        let mut lists = self.lists.lock();
        lists.added += 1;
        let key = (offset, lists.added);
        lists.of(isolation).insert(key, (Arc::clone(waiter), slot));
        Place { isolation, key }
    }

    /// Removes a waiter, if it has not been woken yet.
    pub(crate) fn remove(&self, place: Place) {
        self.lists.lock().of(place.isolation).remove(&place.key);
    }

    /// Tells those whose offset is below the end that they see.
    pub(crate) fn wake(&self, high_watermark: Offset, last_stable_offset: Offset) {
        let mut lists = self.lists.lock();
        tell_below(&mut lists.uncommitted, high_watermark);
        tell_below(&mut lists.committed, last_stable_offset);
    }

    /// Tells everyone, to look again.
    pub(crate) fn wake_all(&self) {
        let lists = std::mem::take(&mut *self.lists.lock());
        lists
            .uncommitted
            .into_values()
            .chain(lists.committed.into_values())
            .for_each(|(waiter, slot)| waiter.tell(slot));
    }
}

fn tell_below(list: &mut BTreeMap<Key, (Arc<Waiter>, u32)>, end: Offset) {
    while let Some(first) = list.first_entry()
        && first.key().0 < end
    {
        let (waiter, slot) = first.remove();
        waiter.tell(slot);
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
        assert_eq!((len(&a), len(&b)), (0, 0));
    }

    #[tokio::test]
    async fn those_who_left_are_not_told() {
        let (partition, stays, leaves) = (Waiters::default(), Arc::new(Waiter::default()), Arc::new(Waiter::default()));
        let [_, place] =
            [&stays, &leaves].map(|waiter| partition.add(waiter, 7, Isolation::ReadUncommitted, Offset(0)));
        partition.remove(place);
        partition.wake_all();
        partition.remove(place);
        assert_eq!(stays.ready().await, [7]);
        assert!(leaves.ready.lock().is_empty());
    }

    fn len(waiters: &Waiters) -> usize {
        let lists = waiters.lists.lock();
        lists.uncommitted.len() + lists.committed.len()
    }

    #[test]
    fn growing_tells_those_whom_it_concerns_and_leaves_the_others() {
        let partition = Waiters::default();
        let waiters: Vec<_> = (0..100).map(|_| Arc::new(Waiter::default())).collect();
        for (n, waiter) in waiters.iter().enumerate() {
            let isolation = if n % 2 == 0 { Isolation::ReadUncommitted } else { Isolation::ReadCommitted };
            partition.add(waiter, n as u32, isolation, Offset(n as i64 / 10));
        }
        partition.wake(Offset(5), Offset(3));
        for (n, waiter) in waiters.iter().enumerate() {
            let end = if n % 2 == 0 { 5 } else { 3 };
            let told = std::mem::take(&mut *waiter.ready.lock());
            assert_eq!(told, if (n / 10) < end { vec![n as u32] } else { vec![] }, "{n}");
        }
        assert_eq!(len(&partition), 60);
        partition.wake(Offset(5), Offset(3));
        assert!(waiters.iter().all(|waiter| waiter.ready.lock().is_empty()), "nobody is told twice");
    }
}
