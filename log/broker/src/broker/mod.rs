//! The broker's handle: every call that clients make, in process.
//!
//! Calls check what they are given, then hand over to [topics](crate::topics), groups or transactions. A call that waits
//! for the disk does so without holding up the runtime's threads.

mod admin;
mod groups;
mod maintenance;
mod open;
mod producing;
mod records;
mod transactions;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use logmill_protocol::Timestamp;
use logmill_storage::Flusher;
use tokio::sync::Notify;
use uuid::Uuid;

pub(crate) use open::internal_configs;
pub use open::{BrokerConfig, StartReport};
pub(crate) use producing::{Acknowledged, Acks, Producing};
pub(crate) use records::internal;

use crate::blocking;
use crate::error::{BrokerError, Result};
use crate::groups::GroupService;
use crate::topics::{Alteration, OpenTopic, Repair, Topics};
use crate::transactions::TransactionService;
use crate::types::{ConfigChange, DamagedPartition, NewTopic, OfflinePartition, TopicInfo, TopicPartition};

/// An open broker. Clones are handles to the same one.
///
/// [`Broker::close`] drains and closes it, so that the next start has nothing to recover. Dropping the last handle
/// instead is like a crash: nothing acknowledged is lost, and the next start recovers.
#[derive(Clone)]
pub struct Broker {
    inner: Arc<Inner>,
}

struct Inner {
    config: BrokerConfig,
    topics: Arc<Topics>,
    groups: Arc<GroupService>,
    transactions: Arc<TransactionService>,
    flusher: Arc<Flusher>,
    closed: AtomicBool,
    /// Calls under way.
    calls: AtomicUsize,
    /// Told when the last of them ends.
    idle: Notify,
}

/// Counts a call as under way.
struct Call<'a>(&'a Inner);

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

impl Inner {
    /// Begins a call, unless the broker is closing.
    fn enter(&self) -> Result<Call<'_>> {
        self.calls.fetch_add(1, Ordering::AcqRel);
        let call = Call(self);
        match self.closed.load(Ordering::Acquire) {
            true => Err(BrokerError::Closed),
            false => Ok(call),
        }
    }

    /// Ends a call.
    fn leave(&self) {
        if self.calls.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.idle.notify_waiters();
        }
    }

    fn now(&self) -> Timestamp {
        self.config.clock.now()
    }

    /// Runs a change of topics on a thread that may wait for the disk.
    async fn change_topics<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Topics, Timestamp) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (topics, now) = (Arc::clone(&self.topics), self.now());
        blocking::run(move || change(&topics, now)).await
    }
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Broker").field("data_dir", &self.inner.config.data_dir).finish_non_exhaustive()
    }
}

impl Broker {
    /// Makes a topic.
    ///
    /// # Errors
    /// `TopicExists` where there is one of the name already, whatever its configs; `Invalid` with every mistake.
    pub async fn create_topic(&self, topic: NewTopic) -> Result<()> {
        let _call = self.inner.enter()?;
        self.inner.change_topics(move |topics, now| topics.create(&[topic], false, now)).await
    }

    /// What a topic is; `None` where there is none of the name.
    ///
    /// # Errors
    /// `Closed`.
    pub async fn topic(&self, name: &str) -> Result<Option<TopicInfo>> {
        let _call = self.inner.enter()?;
        Ok(self.inner.topics.describe(name))
    }

    /// What the topic of this id is; `None` where there is none, be it that it was deleted.
    ///
    /// # Errors
    /// `Closed`.
    pub async fn topic_by_id(&self, id: Uuid) -> Result<Option<TopicInfo>> {
        let _call = self.inner.enter()?;
        Ok(self.inner.topics.topic_by_id(id).ok().and_then(|topic| self.inner.topics.describe(&topic.name)))
    }

    /// The id of the cluster whose data this is: 22 characters of base64, as Kafka's own. It stays with the data dir.
    #[must_use]
    pub fn cluster_id(&self) -> &str {
        self.inner.topics.cluster_id()
    }

    /// The topic with its partitions, as the server's handlers work on it.
    pub(crate) fn open_topic(&self, name: &str) -> Result<Arc<OpenTopic>> {
        self.inner.topics.topic(name)
    }

    /// The topic of this id.
    pub(crate) fn open_topic_by_id(&self, id: Uuid) -> Result<Arc<OpenTopic>> {
        self.inner.topics.topic_by_id(id)
    }

    /// Every topic, by name.
    pub(crate) fn open_topics(&self) -> Vec<Arc<OpenTopic>> {
        self.inner.topics.all()
    }

    /// All topics, internal ones included, by name.
    ///
    /// # Errors
    /// `Closed`.
    pub async fn topics(&self) -> Result<Vec<TopicInfo>> {
        let _call = self.inner.enter()?;
        Ok(self.inner.topics.list())
    }

    /// Adds partitions to a topic, up to `partitions` in all.
    ///
    /// # Errors
    /// `UnknownTopic`; `Invalid` if it has as many already.
    pub async fn create_partitions(&self, topic: &str, partitions: i32) -> Result<()> {
        let _call = self.inner.enter()?;
        let topic = topic.to_owned();
        self.inner.change_topics(move |topics, now| topics.create_partitions(&topic, partitions, false, now)).await
    }

    /// Changes configs of a topic: all of them, or none if one is refused.
    ///
    /// # Errors
    /// `UnknownTopic`; `Invalid` with every mistake.
    pub async fn alter_configs(&self, topic: &str, changes: &[ConfigChange]) -> Result<()> {
        let _call = self.inner.enter()?;
        let (topic, changes) = (topic.to_owned(), Alteration::Change(changes.to_vec()));
        self.inner.change_topics(move |topics, now| topics.alter_configs(&topic, &changes, false, now)).await
    }

    /// Deletes a topic with all its records and the offsets that groups have committed of it.
    ///
    /// # Errors
    /// `UnknownTopic`; `Invalid` for internal topics.
    pub async fn delete_topic(&self, topic: &str) -> Result<()> {
        self.delete_topics(vec![topic.to_owned()]).await.pop().unwrap_or(Err(BrokerError::Closed))
    }

    /// Verifies every record batch of a topic, and lets readers skip lost records. A partition whose folder is missing is
    /// created again, starting at the furthest offset that a group has committed. Returns what was done with each partition.
    ///
    /// # Errors
    /// `UnknownTopic`; `Storage`, `DiskFull` if a partition still cannot be opened.
    pub async fn repair_topic(&self, topic: &str) -> Result<Vec<(TopicPartition, Repair)>> {
        let _call = self.inner.enter()?;
        let (topic, groups) = (topic.to_owned(), Arc::clone(&self.inner.groups));
        let repair = move |topics: &Topics, _| topics.repair(&topic, |place| groups.read(|all| all.furthest(place)));
        self.inner.change_topics(repair).await
    }

    /// The partitions that cannot be served.
    ///
    /// # Errors
    /// `Closed`.
    pub async fn offline_partitions(&self) -> Result<Vec<Arc<OfflinePartition>>> {
        let _call = self.inner.enter()?;
        Ok(self.inner.topics.offline())
    }

    /// The damage that is known of.
    ///
    /// # Errors
    /// `Closed`.
    pub async fn damaged_partitions(&self) -> Result<Vec<DamagedPartition>> {
        let _call = self.inner.enter()?;
        let inner = Arc::clone(&self.inner);
        blocking::run(move || Ok(inner.topics.damage())).await
    }

    /// Refuses new calls, wakes those that wait for records, lets the others end, and closes every log.
    ///
    /// # Errors
    /// If the disk refuses; the rest is closed all the same. `Closed` if it is closed already.
    pub async fn close(&self) -> Result<()> {
        let inner = &self.inner;
        if inner.closed.swap(true, Ordering::AcqRel) {
            return Err(BrokerError::Closed);
        }
        inner.groups.wake();
        inner.topics.partitions().iter().for_each(|partition| partition.wake());
        loop {
            let idle = inner.idle.notified();
            if inner.calls.load(Ordering::Acquire) == 0 {
                break;
            }
            idle.await;
        }
        let topics = Arc::clone(&inner.topics);
        blocking::run(move || topics.close()).await
    }
}

#[cfg(test)]
impl Broker {
    pub(crate) fn transactions(&self) -> Arc<TransactionService> {
        Arc::clone(&self.inner.transactions)
    }

    #[cfg(feature = "failpoints")]
    pub(crate) fn inner_topics(&self) -> Arc<Topics> {
        Arc::clone(&self.inner.topics)
    }

    pub(crate) fn partition_for_test(&self, name: &crate::types::TopicPartition) -> Arc<crate::partition::Partition> {
        self.inner.topics.partition(name).unwrap_or_else(|error| unreachable!("{error}"))
    }
}
