//! What the broker does by the clock: timeouts, retention, and keeping internal topics short.
//!
//! One task, which holds no handle: it ends with the broker.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::blocking;
use crate::broker::{Broker, Inner};
use crate::clock::Now;
use crate::error::Result;

/// Starts the task.
pub(super) fn start(inner: &Arc<Inner>) {
    let timeouts_every = Duration::from_millis(inner.config.timeout_check_interval_ms.max(1));
    let retention_every = Duration::from_millis(inner.config.retention_check_interval_ms.max(1));
    tokio::spawn(run(Arc::downgrade(inner), timeouts_every, retention_every));
}

async fn run(inner: Weak<Inner>, timeouts_every: Duration, retention_every: Duration) {
    let ticker = |every| {
        let mut ticks = interval_at(Instant::now() + every, every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks
    };
    let (mut timeouts, mut retention) = (ticker(timeouts_every), ticker(retention_every));
    loop {
        let is_retention = tokio::select! {
            _ = timeouts.tick() => false,
            _ = retention.tick() => true,
        };
        let Some(inner) = inner.upgrade().filter(|inner| !inner.closed.load(Ordering::Acquire)) else { return };
        let broker = Broker { inner };
        let done = if is_retention { broker.apply_retention().await } else { broker.expire().await };
        if let Err(error) = done {
            tracing::warn!(%error, "maintenance of the log failed, trying again later");
        }
    }
}

impl Broker {
    /// Looks at timeouts now: aborts transactions that are out of time, ends decided ones that an error cut short, and
    /// expels members whose session has expired, and makes topics that an error left half made. The broker does so by itself from time to time.
    ///
    /// # Errors
    /// `DiskFull`, `Storage`; what could not be done is tried again the next time.
    pub async fn expire(&self) -> Result<()> {
        let _call = self.inner.enter()?;
        let (topics, now) = (Arc::clone(&self.inner.topics), self.inner.now());
        let opened = blocking::run(move || topics.open_missing(now)).await;
        self.inner.groups.expire(Now::of(&*self.inner.config.clock)).await;
        self.inner.transactions.tick().await.and(opened)
    }

    /// Applies retention to every partition and trims internal topics now. The broker does so by itself from time to
    /// time.
    ///
    /// # Errors
    /// The first of any partition's; the others are seen to all the same.
    pub async fn apply_retention(&self) -> Result<()> {
        let _call = self.inner.enter()?;
        let (topics, groups) = (Arc::clone(&self.inner.topics), Arc::clone(&self.inner.groups));
        let (transactions, now) = (Arc::clone(&self.inner.transactions), self.inner.now());
        blocking::run(move || {
            let mut first = Ok(());
            for partition in topics.partitions() {
                match partition.stored(partition.log().apply_retention(now)) {
                    Ok(deleted) if !deleted.is_empty() => {
                        tracing::info!(partition = %partition.name(), segments = deleted.len(), "retention");
                        partition.wake();
                    }
                    result => first = first.and(result.map(drop)),
                }
            }
            first.and(groups.trim(now)).and(transactions.trim())
        })
        .await
    }
}
