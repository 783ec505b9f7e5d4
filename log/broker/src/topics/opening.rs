//! Opening partitions: each by itself, so that one that is damaged, missing or without room on its disk keeps no other from
//! being served.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use logmill_protocol::{Offset, Timestamp};
use logmill_storage::{CutTail, Recovery};

use crate::blocking;
use crate::data_dir::sync_dir;
use crate::error::{BrokerError, Result};
use crate::metadata::{Command, Topic, TopicId};
use crate::offline::Slot;
use crate::partition::Partition;
use crate::topic_config::TopicConfig;
use crate::topics::{OpenTopic, Topics, parse};
use crate::types::{DamagedPartition, OfflinePartition, TopicPartition};

/// What opening the topics found.
#[derive(Debug, Default)]
pub(crate) struct Opened {
    pub(crate) unclean: usize,
    pub(crate) cut: Vec<CutTail>,
    pub(crate) damage: Vec<DamagedPartition>,
    pub(crate) offline: Vec<Arc<OfflinePartition>>,
    /// The metadata lost so many commands, or topics that were found again.
    pub(crate) commands_lost: Option<i64>,
}

impl Opened {
    /// A log without a record has nothing to check, whether it was closed or is new.
    pub(super) fn add(&mut self, name: &TopicPartition, recovery: Recovery) {
        self.unclean += usize::from(!recovery.clean && recovery.log_end > Offset(0));
        self.cut.extend(recovery.cut);
        let damaged = |damage| DamagedPartition { partition: name.clone(), damage };
        self.damage.extend(recovery.damage.into_iter().map(damaged));
    }
}

/// What becomes of a partition that cannot be opened, and was not offline before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnFailure {
    /// The topic is not opened, and the caller that created the partition gets the error.
    Stop,
    /// It is offline.
    GoOffline,
}

/// A partition that is to be opened.
struct Missing {
    /// Its topic's place among those being opened.
    topic: usize,
    name: TopicPartition,
    path: PathBuf,
    config: TopicConfig,
    /// Its folder is known to have reached the disk.
    is_ready: bool,
    was_offline: bool,
}

impl Topics {
    /// Opens what an earlier error kept from being made, and tries those that are offline again.
    pub(crate) fn open_missing(&self, now: Timestamp) -> Result<()> {
        let _changing = self.changing.lock();
        let metadata = self.metadata.current();
        let is_missing = |(name, topic): &(&String, &Topic)| {
            let open = self.open.read();
            let online = open.by_name.get(*name).map_or(0, |open| open.online().count());
            // What the coordinators keep there is read when the node starts.
            !topic.internal && i32::try_from(online).is_ok_and(|online| online < topic.partitions)
        };
        let missing: Vec<_> = metadata.topics().iter().filter(is_missing).collect();
        match missing.is_empty() {
            true => Ok(()),
            false => self.open_topics(missing.into_iter(), OnFailure::GoOffline, &mut Opened::default(), now),
        }
    }

    /// Opens the partitions of these topics that are not open, making those that are new, and applies configs to those
    /// that are.
    pub(super) fn open_topics<'a>(
        &self,
        topics: impl Iterator<Item = (&'a String, &'a Topic)>,
        on_failure: OnFailure,
        opened: &mut Opened,
        now: Timestamp,
    ) -> Result<()> {
        let (mut opening, mut missing) = (Vec::new(), Vec::new());
        for (name, topic) in topics {
            let config = parse(&topic.configs, topic.internal)?;
            let path = self.dir.topic(name, &topic.id);
            let known = self.open.read().by_name.get(name).map(|open| open.partitions.clone()).unwrap_or_default();
            known.iter().filter_map(Slot::online).try_for_each(|partition| partition.reconfigure(&config))?;
            for partition in 0..topic.partitions {
                let slot = known.get(partition as usize);
                if slot.is_some_and(|slot| !slot.is_offline()) {
                    continue;
                }
                let was_offline = slot.is_some();
                let (path, is_ready) = (path.join(partition.to_string()), partition < topic.ready_partitions);
                let name = TopicPartition::new(name, partition);
                missing.push(Missing { topic: opening.len(), name, path, config, is_ready, was_offline });
            }
            let (id, internal) = (topic.id.uuid()?, topic.internal);
            opening.push((name, topic, OpenTopic { name: name.clone(), id, internal, config, partitions: known }));
        }
        let made = blocking::side_by_side(&missing, |missing| Ok(self.open_partition(missing)))?;
        for (missing, made) in missing.into_iter().zip(made) {
            let Some((_, _, open)) = opening.get_mut(missing.topic) else { continue };
            let slot = match made {
                Ok((partition, recovery)) => {
                    opened.add(partition.name(), recovery);
                    Slot::Online(Arc::new(partition))
                }
                Err(error) if on_failure == OnFailure::Stop && !missing.was_offline => return Err(error),
                Err(error) => Slot::offline(missing.name, missing.path, &error),
            };
            open.put(slot, opened);
        }
        let is_whole = |open: &OpenTopic| !open.partitions.iter().any(Slot::is_offline);
        let topics = opening.iter().map(|(name, topic, open)| (name.as_str(), *topic, is_whole(open)));
        self.ready(topics, now)?;
        let mut all = self.open.write();
        opening.into_iter().for_each(|(_, _, open)| all.insert(open));
        Ok(())
    }

    fn open_partition(&self, missing: &Missing) -> Result<(Partition, Recovery)> {
        let Missing { name, path, config, is_ready, .. } = missing;
        if *is_ready && path.symlink_metadata().is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound) {
            return Err(lost(name, path));
        }
        // Not durable before `ready` has synced the folders above.
        std::fs::create_dir_all(path).map_err(|e| BrokerError::io(format!("create {}", path.display()), e))?;
        Partition::open(name.clone(), path, config, &self.flusher, Arc::clone(&self.dir))
    }

    /// Takes an internal partition out of service that can be opened, but not be understood.
    pub(crate) fn take_offline(&self, partition: &TopicPartition, error: &BrokerError) -> Option<Slot> {
        let mut open = self.open.write();
        let topic = open.by_name.get(&partition.topic)?;
        let (id, internal, config) = (topic.id, topic.internal, topic.config);
        let mut changed =
            OpenTopic { name: topic.name.clone(), id, internal, config, partitions: topic.partitions.clone() };
        let slot = changed.partitions.get_mut(usize::try_from(partition.partition).ok()?)?;
        let path = slot.get().ok()?.log().dir().to_owned();
        *slot = Slot::offline(partition.clone(), path, error);
        let slot = slot.clone();
        open.insert(changed);
        if let Slot::Offline(offline) = &slot {
            tell(offline);
        }
        Some(slot)
    }

    /// Makes the topics' folders durable, and notes it of those that are whole, so that the loss of a folder will be noticed.
    fn ready<'a>(&self, topics: impl Iterator<Item = (&'a str, &'a Topic, bool)>, now: Timestamp) -> Result<()> {
        let (mut notes, mut folders) = (Vec::new(), Vec::new());
        for (name, topic, is_whole) in topics.filter(|(_, topic, _)| topic.ready_partitions < topic.partitions) {
            folders.push(self.dir.topic(name, &topic.id));
            if is_whole {
                notes.push(Command::PartitionsReady { id: topic.id.clone(), partitions: topic.partitions });
            }
        }
        folders.retain(|folder| folder.is_dir());
        if folders.is_empty() {
            return Ok(());
        }
        folders.push(self.dir.topics());
        blocking::side_by_side(&folders, |folder| sync_dir(folder))?;
        if notes.is_empty() { Ok(()) } else { self.metadata.note(&notes, now) }
    }

    /// Removes the files of deleted topics.
    pub(super) fn purge<'a>(&self, topics: impl Iterator<Item = (&'a str, &'a TopicId)>, now: Timestamp) -> Result<()> {
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

impl OpenTopic {
    /// Puts a partition in its place, which is the next one, or that of one that is offline.
    fn put(&mut self, slot: Slot, opened: &mut Opened) {
        let index = usize::try_from(slot.name().partition).unwrap_or_default();
        let before = self.partitions.get(index);
        match (&slot, before) {
            (Slot::Offline(now), Some(Slot::Offline(before))) if now == before => {}
            (Slot::Offline(now), _) => tell(now),
            (Slot::Online(partition), Some(Slot::Offline(_))) => {
                tracing::info!(partition = %partition.name(), "the partition is served again");
            }
            _ => {}
        }
        if let Slot::Offline(offline) = &slot {
            opened.offline.push(Arc::clone(offline));
        }
        match self.partitions.get_mut(index) {
            Some(place) => *place = slot,
            None => self.partitions.push(slot),
        }
    }
}

fn tell(offline: &Arc<OfflinePartition>) {
    tracing::error!("{}", BrokerError::Offline(Arc::clone(offline)));
}

fn lost(name: &TopicPartition, path: &Path) -> BrokerError {
    BrokerError::corrupt(format!("partition {name} is lost"), format!("its folder {} is missing", path.display()))
}
