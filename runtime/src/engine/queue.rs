//! A queue bounded in bytes, so that a slow consumer slows its producer and memory stays flat.
//!
//! An item counts from the moment it is accepted until the consumer drops its [`Lease`], so what is being worked on is
//! part of the bound. An item larger than the whole queue is let through alone.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// The sending end; cheap to clone.
pub(crate) struct Sender<T> {
    items: mpsc::UnboundedSender<Lease<T>>,
    room: Arc<Semaphore>,
    capacity_bytes: u32,
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self { items: self.items.clone(), room: self.room.clone(), capacity_bytes: self.capacity_bytes }
    }
}

/// The receiving end.
pub(crate) struct Receiver<T> {
    items: mpsc::UnboundedReceiver<Lease<T>>,
}

/// An item that still counts towards its queue's bound.
pub(crate) struct Lease<T> {
    /// The item.
    pub(crate) item: T,
    _room: Option<OwnedSemaphorePermit>,
}

/// The consumer is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Closed;

/// A queue for items of `capacity_bytes` in all.
pub(crate) fn channel<T>(capacity_bytes: u32) -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let room = Arc::new(Semaphore::new(capacity_bytes as usize));
    (Sender { items: sender, room, capacity_bytes }, Receiver { items: receiver })
}

impl<T> Sender<T> {
    /// Hands an item of `bytes` over once there is room for it. Cancel-safe.
    pub(crate) async fn send(&self, item: T, bytes: usize) -> Result<(), Closed> {
        let wanted = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.capacity_bytes);
        let permit = self.room.clone().acquire_many_owned(wanted).await.map_err(|_| Closed)?;
        if self.items.is_closed() {
            return Err(Closed);
        }
        self.items.send(Lease { item, _room: Some(permit) }).map_err(|_| Closed)
    }

    /// Hands over an item that takes no room, such as a barrier.
    pub(crate) fn send_weightless(&self, item: T) -> Result<(), Closed> {
        self.items.send(Lease { item, _room: None }).map_err(|_| Closed)
    }
}

impl<T> Receiver<T> {
    /// The next item, `None` once all senders are gone and the queue is empty. Cancel-safe.
    pub(crate) async fn recv(&mut self) -> Option<Lease<T>> {
        self.items.recv().await
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        // Whoever waits for room must learn that nobody is left to make any: dropping the queued leases frees it.
        self.items.close();
        while self.items.try_recv().is_ok() {}
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn a_full_queue_holds_its_producer_until_the_lease_ends() {
        let (sender, mut receiver) = channel::<u8>(10);
        sender.send(1, 6).await.unwrap();
        let second = sender.send(2, 6);
        tokio::pin!(second);
        assert!(futures::poll!(&mut second).is_pending());
        let lease = receiver.recv().await.unwrap();
        assert!(futures::poll!(&mut second).is_pending(), "the item is still being worked on");
        assert_eq!(lease.item, 1);
        drop(lease);
        second.await.unwrap();
        assert_eq!(receiver.recv().await.unwrap().item, 2);
    }

    #[tokio::test]
    async fn an_item_larger_than_the_queue_passes_alone() {
        let (sender, mut receiver) = channel::<u8>(10);
        sender.send(1, 1000).await.unwrap();
        let second = sender.send(2, 1);
        tokio::pin!(second);
        assert!(futures::poll!(&mut second).is_pending());
        drop(receiver.recv().await);
        second.await.unwrap();
    }

    #[tokio::test]
    async fn a_producer_that_waits_learns_that_the_consumer_is_gone() {
        let (sender, receiver) = channel::<u8>(10);
        sender.send(1, 10).await.unwrap();
        let second = tokio::spawn({
            let sender = sender.clone();
            async move { sender.send(2, 10).await }
        });
        tokio::task::yield_now().await;
        drop(receiver);
        assert_eq!(second.await.unwrap(), Err(Closed));
    }
}
