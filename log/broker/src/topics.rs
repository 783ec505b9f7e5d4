//! The topics that are open: metadata first, folders after, and back again when a topic is deleted.
//!
//! ```text
//!  create:  CreateTopic durable ─▶ folders ─▶ PartitionsReady        a crash in between: the next start makes the rest
//!  delete:  DeleteTopic durable ─▶ folder renamed, removed ─▶ TopicPurged                 … removes the rest
//! ```
//!
//! Every call may wait for the disk, except those that look up.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use logmill_protocol::{Offset, Timestamp};
use logmill_storage::{CutTail, Recovery};
use parking_lot::{Mutex, RwLock};

use crate::data_dir::{DataDir, sync_dir};
use crate::error::{BrokerError, Result};
use crate::metadata::{Applied, Command, MetadataLog, Topic, TopicId};
use crate::partition::Partition;
use crate::topic_config::TopicConfig;
use crate::types::{ConfigChange, TopicInfo, TopicPartition};

/// A topic and its open partitions. Replaced as a whole when it changes.
#[derive(Debug)]
pub(crate) struct OpenTopic {
    id: TopicId,
    pub(crate) config: TopicConfig,
    pub(crate) partitions: Vec<Arc<Partition>>,
}

/// All topics.
pub(crate) struct Topics {
    dir: Arc<DataDir>,
    metadata: MetadataLog,
    open: RwLock<HashMap<String, Arc<OpenTopic>>>,
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
    pub(crate) fn open(dir: Arc<DataDir>, now: Timestamp) -> Result<(Self, Opened)> {
        let (metadata, recovery) = MetadataLog::open(&dir.metadata())?;
        let mut opened = Opened::default();
        opened.add(recovery);
        let topics = Self { dir, metadata, open: RwLock::default(), changing: Mutex::new(()) };
        let state = topics.metadata.current();
        for (name, topic) in state.topics() {
            let open = topics.open_topic(name, topic, &[], &mut opened)?;
            topics.publish(name, open);
            topics.ready(name, topic, now)?;
        }
        for (id, name) in state.deleted() {
            topics.purge(name, id, now)?;
        }
        Ok((topics, opened))
    }

    pub(crate) fn create(
        &self,
        name: &str,
        partitions: i32,
        configs: &[(String, String)],
        internal: bool,
        now: Timestamp,
    ) -> Result<()> {
        TopicConfig::parse(configs.iter().map(|(name, value)| (name.as_str(), value.as_str())), internal)?;
        let configs = configs.iter().map(|(name, value)| (name.clone(), value.trim().to_owned())).collect();
        let _changing = self.changing.lock();
        let command =
            Command::CreateTopic { name: name.to_owned(), id: TopicId::random(), partitions, internal, configs };
        self.metadata.propose(&command, now)?;
        self.reopen(name, now)
    }

    pub(crate) fn create_partitions(&self, name: &str, partitions: i32, now: Timestamp) -> Result<()> {
        let _changing = self.changing.lock();
        self.metadata.propose(&Command::CreatePartitions { name: name.to_owned(), partitions }, now)?;
        self.reopen(name, now)
    }

    pub(crate) fn alter_configs(&self, name: &str, changes: &[ConfigChange], now: Timestamp) -> Result<()> {
        let _changing = self.changing.lock();
        self.metadata.propose_with(now, |metadata| {
            let topic = metadata.topic(name).ok_or_else(|| BrokerError::UnknownTopic(name.to_owned()))?;
            let mut configs = topic.configs.clone();
            for change in changes {
                match change {
                    ConfigChange::Set(config, value) => configs.insert(config.clone(), value.trim().to_owned()),
                    // Only what exists can be reset: a misspelt name must not pass for done.
                    ConfigChange::Reset(config) => {
                        TopicConfig::check_name(config)?;
                        configs.remove(config)
                    }
                };
            }
            parse(&configs, topic.internal)?;
            Ok(Command::AlterConfigs { name: name.to_owned(), configs })
        })?;
        self.reopen(name, now)
    }

    pub(crate) fn delete(&self, name: &str, now: Timestamp) -> Result<()> {
        let _changing = self.changing.lock();
        if self.metadata.current().topic(name).is_some_and(|topic| topic.internal) {
            return Err(BrokerError::Invalid(format!("topic `{name}` is the broker's own and cannot be deleted")));
        }
        self.metadata.propose(&Command::DeleteTopic { name: name.to_owned() }, now)?;
        let Some(open) = self.open.write().remove(name) else { return Ok(()) };
        open.partitions.iter().for_each(|partition| partition.mark_deleted());
        self.purge(name, &open.id, now)
    }

    /// Hands out producer ids: the first of `count`.
    pub(crate) fn allocate_producer_ids(&self, count: i64, now: Timestamp) -> Result<i64> {
        match self.metadata.propose(&Command::AllocateProducerIds { count }, now)? {
            Applied::ProducerIds { first, .. } => Ok(first),
            Applied::Done => Err(BrokerError::corrupt("no producer ids", "the metadata answered another command")),
        }
    }

    pub(crate) fn topic(&self, name: &str) -> Result<Arc<OpenTopic>> {
        self.open.read().get(name).cloned().ok_or_else(|| BrokerError::UnknownTopic(name.to_owned()))
    }

    pub(crate) fn partition(&self, name: &TopicPartition) -> Result<Arc<Partition>> {
        let topic = self.topic(&name.topic)?;
        let index = usize::try_from(name.partition).ok();
        let partition = index.and_then(|index| topic.partitions.get(index)).cloned();
        partition.ok_or_else(|| BrokerError::UnknownPartition { topic: name.topic.clone(), partition: name.partition })
    }

    /// Every open partition.
    pub(crate) fn partitions(&self) -> Vec<Arc<Partition>> {
        self.open.read().values().flat_map(|topic| topic.partitions.iter().cloned()).collect()
    }

    pub(crate) fn describe(&self, name: &str) -> Option<TopicInfo> {
        self.metadata.current().topic(name).map(|topic| info(name, topic))
    }

    pub(crate) fn list(&self) -> Vec<TopicInfo> {
        self.metadata.current().topics().iter().map(|(name, topic)| info(name, topic)).collect()
    }

    /// Closes every log. The first error is returned, but all are tried.
    pub(crate) fn close(&self) -> Result<()> {
        let _changing = self.changing.lock();
        let closed = self.partitions().into_iter().map(|partition| partition.stored(partition.log().close()));
        let metadata = std::iter::once_with(|| self.metadata.close());
        closed.chain(metadata).fold(Ok(()), |first, result| first.and(result))
    }

    /// Brings the open topic in line with the metadata.
    fn reopen(&self, name: &str, now: Timestamp) -> Result<()> {
        let metadata = self.metadata.current();
        let topic = metadata.topic(name).ok_or_else(|| BrokerError::UnknownTopic(name.to_owned()))?;
        let known = self.open.read().get(name).map(|open| open.partitions.clone()).unwrap_or_default();
        let open = self.open_topic(name, topic, &known, &mut Opened::default())?;
        for partition in &known {
            partition.reconfigure(&open.config)?;
        }
        self.publish(name, open);
        self.ready(name, topic, now)
    }

    /// Opens the partitions that are not among `known`, making those that are new.
    fn open_topic(
        &self,
        name: &str,
        topic: &Topic,
        known: &[Arc<Partition>],
        opened: &mut Opened,
    ) -> Result<OpenTopic> {
        let config = parse(&topic.configs, topic.internal)?;
        let path = self.dir.topic(name, &topic.id);
        std::fs::create_dir_all(&path).map_err(|e| BrokerError::io(format!("create {}", path.display()), e))?;
        let mut partitions = known.to_vec();
        for partition in known.len() as i32..topic.partitions {
            let name = TopicPartition::new(name, partition);
            let path = path.join(partition.to_string());
            if partition < topic.ready_partitions && !path.exists() {
                return Err(missing(&name, path));
            }
            let (partition, recovery) = Partition::open(name, &path, config.log_config(), Arc::clone(&self.dir))?;
            opened.add(recovery);
            partitions.push(Arc::new(partition));
        }
        Ok(OpenTopic { id: topic.id.clone(), config, partitions })
    }

    fn publish(&self, name: &str, topic: OpenTopic) {
        self.open.write().insert(name.to_owned(), Arc::new(topic));
    }

    /// Notes that the topic's folders are on disk, so that their loss will be noticed.
    fn ready(&self, name: &str, topic: &Topic, now: Timestamp) -> Result<()> {
        if topic.ready_partitions == topic.partitions {
            return Ok(());
        }
        sync_dir(&self.dir.topic(name, &topic.id))?;
        sync_dir(&self.dir.topics())?;
        let command = Command::PartitionsReady { id: topic.id.clone(), partitions: topic.partitions };
        self.metadata.propose(&command, now).map(drop)
    }

    fn purge(&self, name: &str, id: &TopicId, now: Timestamp) -> Result<()> {
        self.dir.remove_topic(name, id)?;
        self.metadata.propose(&Command::TopicPurged { id: id.clone() }, now).map(drop)
    }
}

fn parse(configs: &BTreeMap<String, String>, internal: bool) -> Result<TopicConfig> {
    TopicConfig::parse(configs.iter().map(|(name, value)| (name.as_str(), value.as_str())), internal)
}

fn missing(name: &TopicPartition, path: PathBuf) -> BrokerError {
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
