//! The topics that are open: metadata first, folders after, and back again when a topic is deleted.
//!
//! ```text
//!  create:  CreateTopic durable ─▶ folders ─▶ PartitionsReady        a crash in between: the next start makes the rest
//!  delete:  DeleteTopic durable ─▶ folder renamed, removed ─▶ TopicPurged                 … removes the rest
//! ```
//!
//! Every call may wait for the disk, except those that look up. What is made durable for one request is so together.

mod change;
mod opening;
mod repair;
mod strays;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use logmill_protocol::{LeaderEpoch, Timestamp};
use logmill_storage::Flusher;
use parking_lot::{Mutex, RwLock};
use uuid::Uuid;

pub(crate) use self::change::Alteration;
use self::opening::OnFailure;
pub(crate) use self::opening::Opened;
pub use self::repair::Repair;
use crate::blocking;
use crate::data_dir::DataDir;
use crate::error::{BrokerError, Result};
use crate::metadata::{Applied, Command, MetadataLog, Topic};
use crate::offline::Slot;
use crate::partition::Partition;
use crate::topic_config::TopicConfig;
use crate::types::{DamagedPartition, OfflinePartition, TopicInfo, TopicPartition};

/// A topic and its open partitions. Replaced as a whole when it changes.
#[derive(Debug)]
pub(crate) struct OpenTopic {
    pub(crate) name: String,
    pub(crate) id: Uuid,
    pub(crate) internal: bool,
    pub(crate) config: TopicConfig,
    pub(crate) partitions: Vec<Slot>,
}

impl OpenTopic {
    /// One of its partitions.
    pub(crate) fn partition(&self, index: i32) -> Result<&Arc<Partition>> {
        let partition = usize::try_from(index).ok().and_then(|index| self.partitions.get(index));
        partition.ok_or_else(|| BrokerError::UnknownPartition { topic: self.name.clone(), partition: index })?.get()
    }

    /// The partitions that are open.
    fn online(&self) -> impl Iterator<Item = &Arc<Partition>> {
        self.partitions.iter().filter_map(Slot::online)
    }
}

/// The open topics, by what they are asked for.
#[derive(Debug, Default)]
struct Open {
    by_name: HashMap<String, Arc<OpenTopic>>,
    by_id: HashMap<Uuid, Arc<OpenTopic>>,
}

impl Open {
    fn insert(&mut self, topic: OpenTopic) {
        let topic = Arc::new(topic);
        self.by_id.insert(topic.id, Arc::clone(&topic));
        self.by_name.insert(topic.name.clone(), topic);
    }

    fn remove(&mut self, name: &str) -> Option<Arc<OpenTopic>> {
        let topic = self.by_name.remove(name)?;
        self.by_id.remove(&topic.id);
        Some(topic)
    }
}

/// All topics.
pub(crate) struct Topics {
    dir: Arc<DataDir>,
    flusher: Arc<Flusher>,
    metadata: MetadataLog,
    open: RwLock<Open>,
    /// One change of topics at a time, from the command to the folders.
    changing: Mutex<()>,
}

impl Topics {
    /// Opens the metadata and every partition it knows, and removes what was being deleted.
    pub(crate) fn open(dir: Arc<DataDir>, flusher: Arc<Flusher>, now: Timestamp) -> Result<(Self, Opened)> {
        let (metadata, found) = MetadataLog::open(&dir.metadata())?;
        let mut opened = Opened::default();
        let commands_lost = found.commands_lost;
        opened.add(&TopicPartition::new("metadata", 0), found.recovery);
        let topics = Self { dir, flusher, metadata, open: RwLock::default(), changing: Mutex::new(()) };
        let lost_topics = topics.find_strays(now)?;
        let state = topics.metadata.current();
        topics.open_topics(state.topics().iter(), OnFailure::GoOffline, &mut opened, now)?;
        let latest = topics.partitions().iter().map(|partition| partition.latest_epoch()).max();
        topics.dir.epoch().begin(latest, opened.unclean == 0 && opened.cut.is_empty());
        opened.commands_lost = (lost_topics || commands_lost > 0).then_some(commands_lost);
        let deleted = state.deleted().iter().map(|(id, name)| (name.as_str(), id));
        if let Err(error) = topics.purge(deleted, now) {
            tracing::warn!(%error, "the files of deleted topics cannot be removed, trying again at the next start");
        }
        Ok((topics, opened))
    }

    /// Hands out producer ids: the first of `count`.
    pub(crate) fn allocate_producer_ids(&self, count: i64, now: Timestamp) -> Result<i64> {
        match self.metadata.propose(Command::AllocateProducerIds { count }, now)? {
            Applied::ProducerIds { first, .. } => Ok(first),
            Applied::Done => Err(BrokerError::corrupt("no producer ids", "the metadata answered another command")),
        }
    }

    /// The producer id that [`Topics::allocate_producer_ids`] hands out next.
    pub(crate) fn next_producer_id(&self) -> i64 {
        self.metadata.current().next_producer_id()
    }

    pub(crate) fn topic(&self, name: &str) -> Result<Arc<OpenTopic>> {
        self.open.read().by_name.get(name).cloned().ok_or_else(|| BrokerError::UnknownTopic(name.to_owned()))
    }

    pub(crate) fn topic_by_id(&self, id: Uuid) -> Result<Arc<OpenTopic>> {
        self.open.read().by_id.get(&id).cloned().ok_or(BrokerError::UnknownTopicId(id))
    }

    /// Every open topic, by name.
    pub(crate) fn all(&self) -> Vec<Arc<OpenTopic>> {
        let mut topics: Vec<_> = self.open.read().by_name.values().cloned().collect();
        topics.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        topics
    }

    pub(crate) fn partition(&self, name: &TopicPartition) -> Result<Arc<Partition>> {
        self.topic(&name.topic)?.partition(name.partition).cloned()
    }

    /// Every open partition.
    pub(crate) fn partitions(&self) -> Vec<Arc<Partition>> {
        self.open.read().by_name.values().flat_map(|topic| topic.online().cloned().collect::<Vec<_>>()).collect()
    }

    /// Every partition that is offline.
    pub(crate) fn offline(&self) -> Vec<Arc<OfflinePartition>> {
        let slot = |slot: &Slot| match slot {
            Slot::Online(_) => None,
            Slot::Offline(offline) => Some(Arc::clone(offline)),
        };
        self.all().iter().flat_map(|topic| topic.partitions.iter().filter_map(slot).collect::<Vec<_>>()).collect()
    }

    /// The damage that is known of in any partition.
    pub(crate) fn damage(&self) -> Vec<DamagedPartition> {
        let of = |partition: &Arc<Partition>| {
            let damaged = |damage| DamagedPartition { partition: partition.name().clone(), damage };
            partition.log().damage().into_iter().map(damaged).collect::<Vec<_>>()
        };
        self.all().iter().flat_map(|topic| topic.online().flat_map(of).collect::<Vec<_>>()).collect()
    }

    /// The configs of a topic that differ from their defaults, as they were set.
    pub(crate) fn configs(&self, name: &str) -> Result<BTreeMap<String, String>> {
        let topic = self.metadata.current().topic(name).map(|topic| topic.configs.clone());
        topic.ok_or_else(|| BrokerError::UnknownTopic(name.to_owned()))
    }

    pub(crate) fn describe(&self, name: &str) -> Option<TopicInfo> {
        self.metadata.current().topic(name).map(|topic| info(name, topic))
    }

    /// The epoch that this node leads every partition in.
    pub(crate) fn leader_epoch(&self) -> LeaderEpoch {
        self.dir.epoch().current()
    }

    pub(crate) fn cluster_id(&self) -> &str {
        self.dir.cluster_id()
    }

    pub(crate) fn list(&self) -> Vec<TopicInfo> {
        self.metadata.current().topics().iter().map(|(name, topic)| info(name, topic)).collect()
    }

    /// Closes every log. The first error is returned, but all are tried.
    pub(crate) fn close(&self) -> Result<()> {
        let _changing = self.changing.lock();
        // The error of one must not keep the others from being closed.
        let closed = blocking::side_by_side(&self.partitions(), |p| Ok(p.stored(p.log().close())))?;
        closed.into_iter().fold(self.metadata.close(), Result::and)?;
        self.dir.epoch().end()
    }

    /// Brings the open topic in line with the metadata.
    fn reopen(&self, name: &str, now: Timestamp) -> Result<()> {
        let topic =
            self.metadata.current().topics().get_key_value(name).map(|(name, topic)| (name.clone(), topic.clone()));
        let topics = topic.iter().map(|(name, topic)| (name, topic));
        self.open_topics(topics, OnFailure::Stop, &mut Opened::default(), now)
    }
}

fn parse(configs: &BTreeMap<String, String>, internal: bool) -> Result<TopicConfig> {
    TopicConfig::parse(configs.iter().map(|(name, value)| (name.as_str(), value.as_str())), internal)
}

fn info(name: &str, topic: &Topic) -> TopicInfo {
    TopicInfo {
        name: name.to_owned(),
        id: topic.id.0.clone(),
        partitions: topic.partitions,
        internal: topic.internal,
        configs: topic.configs.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
    }
}
