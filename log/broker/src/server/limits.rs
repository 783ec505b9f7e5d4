//! What all connections share that is bounded: memory for requests, and connections of one address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A request up to this size, in bytes, has room of its own.
const SMALL_FRAME_BYTES: usize = 1 << 20;

/// Room for requests, in bytes. Those who wait get it in the order they came.
#[derive(Debug)]
pub(super) struct RequestMemory {
    small: Share,
    large: Share,
}

#[derive(Debug)]
struct Share {
    bytes: usize,
    free: Arc<Semaphore>,
}

impl Share {
    fn new(bytes: usize) -> Self {
        let bytes = bytes.clamp(1, u32::MAX as usize);
        Self { bytes, free: Arc::new(Semaphore::new(bytes)) }
    }
}

/// Room that is taken until it is dropped.
pub(super) type Room = OwnedSemaphorePermit;

/// Waits for room; keeps its place in the queue as long as it is kept.
pub(super) type WaitForRoom = Pin<Box<dyn Future<Output = Room> + Send>>;

impl RequestMemory {
    /// Divides `max_bytes` between small and large requests.
    pub(super) fn new(max_bytes: usize) -> Self {
        let small = max_bytes / 4;
        Self { small: Share::new(small), large: Share::new(max_bytes - small) }
    }

    /// Room for a request of `bytes`, at once or later. One that is larger than all there is gets all there is.
    pub(super) fn room(&self, bytes: usize) -> Result<Room, WaitForRoom> {
        let share = if bytes <= SMALL_FRAME_BYTES { &self.small } else { &self.large };
        let bytes = u32::try_from(bytes.min(share.bytes)).unwrap_or(u32::MAX);
        match Arc::clone(&share.free).try_acquire_many_owned(bytes) {
            Ok(room) => Ok(room),
            Err(_) => {
                let free = Arc::clone(&share.free);
                Err(Box::pin(async move {
                    match free.acquire_many_owned(bytes).await {
                        Ok(room) => room,
                        // It is never closed.
                        Err(_) => std::future::pending().await,
                    }
                }))
            }
        }
    }
}

/// Counts connections by their address.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    open: Mutex<HashMap<IpAddr, usize>>,
}

/// A connection that is counted until this is dropped.
#[derive(Debug)]
pub(super) struct Counted {
    addresses: Arc<Addresses>,
    ip: IpAddr,
}

impl Addresses {
    /// Counts a connection, unless its address has `max` already.
    pub(super) fn count(self: &Arc<Self>, ip: IpAddr, max: usize) -> Option<Counted> {
        let mut open = self.open.lock();
        let count = open.entry(ip).or_default();
        if *count >= max {
            return None;
        }
        *count += 1;
        Some(Counted { addresses: Arc::clone(self), ip })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut open = self.addresses.open.lock();
        if let Some(count) = open.get_mut(&self.ip) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.ip);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn large_requests_wait_in_turn_and_leave_small_ones_their_share() {
        let memory = RequestMemory::new(16 << 20);
        let first = memory.room(12 << 20).ok().unwrap();
        let mut second = memory.room(64 << 20).err().unwrap();
        let small = memory.room(4096).ok().unwrap();
        assert!(tokio::time::timeout(std::time::Duration::ZERO, &mut second).await.is_err());
        drop(first);
        let _second = second.await;
        assert!(memory.room((1 << 20) + 1).is_err(), "one that is larger than its share has all of it");
        drop(small);
    }

    #[test]
    fn connections_are_counted_until_they_end() {
        let addresses = Arc::new(Addresses::default());
        let ip = IpAddr::from([127, 0, 0, 1]);
        let held = (addresses.count(ip, 2), addresses.count(ip, 2));
        assert!(addresses.count(ip, 2).is_none());
        assert!(addresses.count(IpAddr::from([127, 0, 0, 2]), 2).is_some());
        drop(held);
        assert!(addresses.open.lock().is_empty());
    }
}
