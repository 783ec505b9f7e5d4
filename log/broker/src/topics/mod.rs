//! The topics that are open: metadata first, folders after, and back again when a topic is deleted.
//!
//! ```text
//!  create:  CreateTopic durable ─▶ folders ─▶ PartitionsReady        a crash in between: the next start makes the rest
//!  delete:  DeleteTopic durable ─▶ folder renamed, removed ─▶ TopicPurged                 … removes the rest
//! ```
//!
//! Every call may wait for the disk, except those that look up. What is made durable for one request is so together.

mod change;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use logmill_protocol::{Offset, Timestamp};
use logmill_storage::{CutTail, Flusher, Recovery};
use parking_lot::{Mutex, RwLock};
use uuid::Uuid;

pub(crate) use self::change::Alteration;
use crate::blocking;
use crate::data_dir::{DataDir, sync_dir};
use crate::error::{BrokerError, Result};
use crate::metadata::{Applied, Command, MetadataLog, Topic, TopicId};
use crate::partition::Partition;
use crate::topic_config::TopicConfig;
use crate::types::{TopicInfo, TopicPartition};

/// A topic and its open partitions. Replaced as a whole when it changes.
#[derive(Debug)]
pub(crate) struct OpenTopic {
    pub(crate) name: String,
    pub(crate) id: Uuid,
    pub(crate) internal: bool,
    pub(crate) config: TopicConfig,
    pub(crate) partitions: Vec<Arc<Partition>>,
}

impl OpenTopic {
    /// One of its partitions.
    pub(crate) fn partition(&self, index: i32) -> Result<&Arc<Partition>> {
        let partition = usize::try_from(index).ok().and_then(|index| self.partitions.get(index));
        partition.ok_or_else(|| BrokerError::UnknownPartition { topic: self.name.clone(), partition: index })
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

/// What opening the topics found.
#[derive(Debug, Default)]
pub(crate) struct Opened {
    pub(crate) unclean: usize,
    pub(crate) cut: Vec<CutTail>,
}

impl Opened {
    /// A log without a record has nothing to check, whether it was closed or is new.
    fn add(&mut self, recovery: Recovery) {
        self.unclean += usize::from(!recovery.clean && recovery.log_end > Offset(0));
        self.cut.extend(recovery.cut);
    }
}

impl Topics {
    /// Opens the metadata and every partition it knows, and removes what was being deleted.
    pub(crate) fn open(dir: Arc<DataDir>, flusher: Arc<Flusher>, now: Timestamp) -> Result<(Self, Opened)> {
        let (metadata, recovery) = MetadataLog::open(&dir.metadata())?;
        let mut opened = Opened::default();
        opened.add(recovery);
        let topics = Self { dir, flusher, metadata, open: RwLock::default(), changing: Mutex::new(()) };
        let state = topics.metadata.current();
        topics.open_topics(state.topics().iter(), &mut opened, now)?;
        topics.purge(state.deleted().iter().map(|(id, name)| (name.as_str(), id)), now)?;
        Ok((topics, opened))
    }

    /// Makes what the metadata knows and an earlier error kept from being made.
    pub(crate) fn open_missing(&self, now: Timestamp) -> Result<()> {
        let _changing = self.changing.lock();
        let metadata = self.metadata.current();
        let is_missing = |(name, topic): &(&String, &Topic)| {
            let open = self.open.read().by_name.get(*name).map_or(0, |open| open.partitions.len());
            i32::try_from(open).is_ok_and(|open| open < topic.partitions)
        };
        let missing: Vec<_> = metadata.topics().iter().filter(is_missing).collect();
        match missing.is_empty() {
            true => Ok(()),
            false => self.open_topics(missing.into_iter(), &mut Opened::default(), now),
        }
    }

    /// Hands out producer ids: the first of `count`.
    pub(crate) fn allocate_producer_ids(&self, count: i64, now: Timestamp) -> Result<i64> {
        match self.metadata.propose(Command::AllocateProducerIds { count }, now)? {
            Applied::ProducerIds { first, .. } => Ok(first),
            Applied::Done => Err(BrokerError::corrupt("no producer ids", "the metadata answered another command")),
        }
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
        self.open.read().by_name.values().flat_map(|topic| topic.partitions.iter().cloned()).collect()
    }

    /// The configs of a topic that differ from their defaults, as they were set.
    pub(crate) fn configs(&self, name: &str) -> Result<BTreeMap<String, String>> {
        let topic = self.metadata.current().topic(name).map(|topic| topic.configs.clone());
        topic.ok_or_else(|| BrokerError::UnknownTopic(name.to_owned()))
    }

    pub(crate) fn describe(&self, name: &str) -> Option<TopicInfo> {
        self.metadata.current().topic(name).map(|topic| info(name, topic))
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
        closed.into_iter().fold(self.metadata.close(), Result::and)
    }

    /// Brings the open topic in line with the metadata.
    fn reopen(&self, name: &str, now: Timestamp) -> Result<()> {
        let topic =
            self.metadata.current().topics().get_key_value(name).map(|(name, topic)| (name.clone(), topic.clone()));
        self.open_topics(topic.iter().map(|(name, topic)| (name, topic)), &mut Opened::default(), now)
    }

    /// Opens the partitions of these topics that are not open yet, making those that are new, and applies configs to
    /// those that are.
    fn open_topics<'a>(
        &self,
        topics: impl Iterator<Item = (&'a String, &'a Topic)>,
        opened: &mut Opened,
        now: Timestamp,
    ) -> Result<()> {
        let mut opening = Vec::new();
        let mut missing = Vec::new();
        for (name, topic) in topics {
            let config = parse(&topic.configs, topic.internal)?;
            let path = self.dir.topic(name, &topic.id);
            let partitions = self.open.read().by_name.get(name).map(|open| open.partitions.clone()).unwrap_or_default();
            partitions.iter().try_for_each(|partition| partition.reconfigure(&config))?;
            for partition in partitions.len() as i32..topic.partitions {
                let path = path.join(partition.to_string());
                let name = TopicPartition::new(name, partition);
                if partition < topic.ready_partitions && !path.exists() {
                    return Err(lost(&name, &path));
                }
                // Not durable before `ready` has synced the folders above.
                std::fs::create_dir_all(&path).map_err(|e| BrokerError::io(format!("create {}", path.display()), e))?;
                missing.push((opening.len(), name, path, config));
            }
            let (id, internal) = (topic.id.uuid()?, topic.internal);
            opening.push((name, topic, OpenTopic { name: name.clone(), id, internal, config, partitions }));
        }
        let made = blocking::side_by_side(&missing, |(_, name, path, config)| {
            Partition::open(name.clone(), path, config, &self.flusher, Arc::clone(&self.dir))
        })?;
        for ((of, ..), (partition, recovery)) in missing.iter().zip(made) {
            opened.add(recovery);
            if let Some((_, _, open)) = opening.get_mut(*of) {
                open.partitions.push(Arc::new(partition));
            }
        }
        self.ready(opening.iter().map(|(name, topic, _)| (name.as_str(), *topic)), now)?;
        let mut all = self.open.write();
        opening.into_iter().for_each(|(_, _, open)| all.insert(open));
        Ok(())
    }

    /// Notes that the topics' folders are on disk, so that their loss will be noticed.
    fn ready<'a>(&self, topics: impl Iterator<Item = (&'a str, &'a Topic)>, now: Timestamp) -> Result<()> {
        let (mut notes, mut folders) = (Vec::new(), Vec::new());
        for (name, topic) in topics.filter(|(_, topic)| topic.ready_partitions < topic.partitions) {
            folders.push(self.dir.topic(name, &topic.id));
            notes.push(Command::PartitionsReady { id: topic.id.clone(), partitions: topic.partitions });
        }
        if notes.is_empty() {
            return Ok(());
        }
        folders.push(self.dir.topics());
        blocking::side_by_side(&folders, |folder| sync_dir(folder))?;
        self.metadata.note(&notes, now)
    }

    /// Removes the files of deleted topics.
    fn purge<'a>(&self, topics: impl Iterator<Item = (&'a str, &'a TopicId)>, now: Timestamp) -> Result<()> {
        let topics: Vec<_> = topics.collect();
        if topics.is_empty() {
            return Ok(());
        }
        blocking::side_by_side(&topics, |(name, id)| self.dir.remove_topic(name, id))?;
        sync_dir(&self.dir.topics())?;
        let purged: Vec<_> = topics.iter().map(|(_, id)| Command::TopicPurged { id: (*id).clone() }).collect();
        self.metadata.note(&purged, now)
    }
}

fn parse(configs: &BTreeMap<String, String>, internal: bool) -> Result<TopicConfig> {
    TopicConfig::parse(configs.iter().map(|(name, value)| (name.as_str(), value.as_str())), internal)
}

fn lost(name: &TopicPartition, path: &Path) -> BrokerError {
    let reason = format!("its folder {} is missing; restore it, or delete the topic", path.display());
    BrokerError::corrupt(format!("partition {name} is lost"), reason)
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
