//! A log in memory: topics, transactions with markers, fetches that wait. For tests of what reads and writes the log.
//!
//! Faithful where readers can tell: whole batches as they would lie in a segment, control batches among them, the
//! last stable offset held back by open transactions, aborted transactions listed. One producer at a time; groups have
//! offsets but no members to speak of.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use logmill_pipelines::flow::CheckpointEpoch;
use logmill_protocol::{
    BatchHeader, ControlKind, ControlMarker, LeaderEpoch, Offset, ProducerEpoch, ProducerId, ProducerStamp, Timestamp,
    control_batch, patch_assigned, restamp_producer,
};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::error::{BoxError, ConnectorError, LogError};
use crate::log::{
    ConfigChange, FetchRequest, Fetched, Isolation, Log, Membership, NewTopic, OffsetAt, ProducerSession, TopicInfo,
    TopicPartition,
};
use crate::transaction::Transaction;

/// A log in memory.
#[derive(Default)]
pub struct MemoryLog {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    topics: BTreeMap<String, Vec<Partition>>,
    configs: BTreeMap<String, BTreeMap<String, String>>,
    groups: BTreeMap<(String, TopicPartition), Offset>,
    generations: BTreeMap<String, i32>,
    sequence: i32,
}

#[derive(Default)]
struct Partition {
    log_start: i64,
    batches: Vec<(BatchHeader, Bytes)>,
    /// First offset of the open transaction of each producer.
    open: BTreeMap<ProducerId, Offset>,
    /// Producer, first offset, and the offset of the abort marker.
    aborted: Vec<(ProducerId, Offset, Offset)>,
}

impl Partition {
    fn end(&self) -> Offset {
        self.batches.last().map_or(Offset(self.log_start), |(header, _)| header.next_offset())
    }

    fn stable_end(&self) -> Offset {
        self.open.values().min().copied().unwrap_or_else(|| self.end())
    }

    fn visible_end(&self, isolation: Isolation) -> Offset {
        match isolation {
            Isolation::ReadCommitted => self.stable_end(),
            Isolation::ReadUncommitted => self.end(),
        }
    }

    fn append(&mut self, batch: &[u8]) -> Result<Offset, LogError> {
        let mut batch = batch.to_vec();
        let base = self.end();
        patch_assigned(&mut batch, base, LeaderEpoch(0)).map_err(invalid)?;
        let header = BatchHeader::peek(&batch).map_err(invalid)?;
        self.batches.push((header, batch.into()));
        Ok(base)
    }
}

fn invalid(error: impl Into<BoxError>) -> LogError {
    LogError::Storage { context: "a batch that is none".into(), source: error.into() }
}

impl State {
    fn partition(&mut self, place: &TopicPartition) -> Result<&mut Partition, LogError> {
        let topic = self.topics.get_mut(&place.topic).ok_or_else(|| LogError::UnknownTopic(place.topic.clone()))?;
        let unknown = LogError::UnknownPartition { topic: place.topic.clone(), partition: place.partition };
        usize::try_from(place.partition).ok().and_then(|index| topic.get_mut(index)).ok_or(unknown)
    }
}

#[async_trait]
impl Log for MemoryLog {
    async fn create_topic(&self, topic: NewTopic) -> Result<(), LogError> {
        let mut state = self.state.lock();
        if state.topics.contains_key(&topic.name) {
            return Err(LogError::TopicExists(topic.name));
        }
        let partitions = (0..topic.partitions).map(|_| Partition::default()).collect();
        state.configs.insert(topic.name.clone(), topic.configs.into_iter().collect());
        state.topics.insert(topic.name, partitions);
        Ok(())
    }

    async fn topic(&self, name: &str) -> Result<Option<TopicInfo>, LogError> {
        Ok(self.topics().await?.into_iter().find(|topic| topic.name == name))
    }

    async fn topics(&self) -> Result<Vec<TopicInfo>, LogError> {
        let state = self.state.lock();
        let info = |(name, partitions): (&String, &Vec<Partition>)| TopicInfo {
            name: name.clone(),
            partitions: i32::try_from(partitions.len()).unwrap_or(i32::MAX),
            internal: false,
            configs: state.configs.get(name).into_iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect(),
        };
        Ok(state.topics.iter().map(info).collect())
    }

    async fn create_partitions(&self, topic: &str, partitions: i32) -> Result<(), LogError> {
        let mut state = self.state.lock();
        let found = state.topics.get_mut(topic).ok_or_else(|| LogError::UnknownTopic(topic.to_owned()))?;
        found.resize_with(usize::try_from(partitions).unwrap_or(0), Partition::default);
        Ok(())
    }

    async fn alter_configs(&self, topic: &str, changes: &[ConfigChange]) -> Result<(), LogError> {
        let mut state = self.state.lock();
        let configs = state.configs.get_mut(topic).ok_or_else(|| LogError::UnknownTopic(topic.to_owned()))?;
        for change in changes {
            match change {
                ConfigChange::Set(name, value) => drop(configs.insert(name.clone(), value.clone())),
                ConfigChange::Reset(name) => drop(configs.remove(name)),
            }
        }
        Ok(())
    }

    async fn delete_topic(&self, topic: &str) -> Result<(), LogError> {
        self.state.lock().configs.remove(topic);
        self.state.lock().topics.remove(topic).map(|_| ()).ok_or_else(|| LogError::UnknownTopic(topic.to_owned()))
    }

    async fn offset(&self, partition: &TopicPartition, at: OffsetAt) -> Result<Offset, LogError> {
        let mut state = self.state.lock();
        let found = state.partition(partition)?;
        Ok(match at {
            OffsetAt::Earliest => Offset(found.log_start),
            OffsetAt::Latest(isolation) => found.visible_end(isolation),
            // Of the batch, not of the record: near enough for tests of one record a batch.
            OffsetAt::Time(time) => (found.batches.iter())
                .find(|(header, _)| !header.is_control() && header.max_timestamp >= time)
                .map_or(found.end(), |(header, _)| header.base_offset),
        })
    }

    async fn fetch(&self, request: &FetchRequest) -> Result<Fetched, LogError> {
        let mut state = self.state.lock();
        let found = state.partition(&request.partition)?;
        let (offset, end) = (request.offset, found.visible_end(request.isolation));
        if offset.0 < found.log_start || offset > found.end() {
            return Err(LogError::OffsetOutOfRange {
                topic: request.partition.topic.clone(),
                partition: request.partition.partition,
                offset: offset.0,
                log_start: found.log_start,
                log_end: found.end().0,
            });
        }
        let mut batches = Vec::new();
        let mut next_offset = offset;
        for (header, batch) in &found.batches {
            let fits = batches.is_empty() || batches.len() + batch.len() <= request.max_bytes;
            if header.next_offset() > offset && header.base_offset < end {
                if !fits {
                    break;
                }
                batches.extend_from_slice(batch);
                next_offset = header.next_offset();
            }
        }
        let mut aborted: Vec<(ProducerId, Offset)> = match request.isolation {
            Isolation::ReadUncommitted => Vec::new(),
            Isolation::ReadCommitted => (found.aborted.iter())
                .filter(|(_, first, last)| *first < next_offset && *last >= offset)
                .map(|(producer, first, _)| (*producer, *first))
                .collect(),
        };
        aborted.sort_by_key(|(_, first)| *first);
        Ok(Fetched {
            batches: batches.into(),
            next_offset,
            aborted,
            high_watermark: found.end(),
            last_stable_offset: found.stable_end(),
            log_start: Offset(found.log_start),
        })
    }

    async fn wait(&self, partition: &TopicPartition, offset: Offset, isolation: Isolation) -> Result<(), LogError> {
        loop {
            let changed = self.changed.notified();
            if self.state.lock().partition(partition)?.visible_end(isolation) > offset {
                return Ok(());
            }
            changed.await;
        }
    }

    async fn delete_records(&self, partition: &TopicPartition, before: Offset) -> Result<(), LogError> {
        let mut state = self.state.lock();
        let found = state.partition(partition)?;
        found.log_start = found.log_start.max(before.0);
        Ok(())
    }

    async fn produce(&self, partition: &TopicPartition, batch: Bytes) -> Result<Offset, LogError> {
        let base = self.state.lock().partition(partition)?.append(&batch);
        self.changed.notify_waiters();
        base
    }

    async fn init_producer(&self, transactional_id: &str, _timeout_ms: u64) -> Result<ProducerSession, LogError> {
        let session = ProducerSession {
            transactional_id: transactional_id.to_owned(),
            id: ProducerId(7),
            epoch: ProducerEpoch(0),
        };
        self.end_transaction(&session, false).await
    }

    async fn append(
        &self,
        session: &ProducerSession,
        partition: &TopicPartition,
        batch: Bytes,
    ) -> Result<Offset, LogError> {
        let mut state = self.state.lock();
        let stamp = ProducerStamp { id: session.id, epoch: session.epoch, base_sequence: state.sequence };
        let mut batch = batch.to_vec();
        restamp_producer(&mut batch, stamp, true).map_err(invalid)?;
        let found = state.partition(partition)?;
        let base = found.append(&batch)?;
        found.open.entry(session.id).or_insert(base);
        self.changed.notify_waiters();
        Ok(base)
    }

    async fn commit_offsets_in_transaction(
        &self,
        _session: &ProducerSession,
        membership: &Membership,
        offsets: &[(TopicPartition, Offset)],
    ) -> Result<(), LogError> {
        self.commit_offsets(&membership.group, offsets).await
    }

    async fn end_transaction(&self, session: &ProducerSession, commit: bool) -> Result<ProducerSession, LogError> {
        let mut state = self.state.lock();
        for partition in state.topics.values_mut().flatten() {
            let Some(first) = partition.open.remove(&session.id) else { continue };
            let kind = if commit { ControlKind::Commit } else { ControlKind::Abort };
            let marker = ControlMarker { kind, coordinator_epoch: 0 };
            let marker = control_batch(marker, session.id, session.epoch, Timestamp(0));
            let at = partition.append(&marker)?;
            if !commit {
                partition.aborted.push((session.id, first, at));
            }
        }
        self.changed.notify_waiters();
        Ok(session.clone())
    }

    async fn join_group(&self, group: &str, instance: &str) -> Result<Membership, LogError> {
        let mut state = self.state.lock();
        let generation = state.generations.entry(group.to_owned()).or_default();
        *generation += 1;
        Ok(Membership { group: group.to_owned(), member: instance.to_owned(), generation: *generation })
    }

    async fn leave_group(&self, _membership: &Membership) -> Result<(), LogError> {
        Ok(())
    }

    async fn committed_offsets(
        &self,
        group: &str,
        partitions: &[TopicPartition],
    ) -> Result<Vec<(TopicPartition, Offset)>, LogError> {
        let state = self.state.lock();
        let committed = partitions.iter().filter_map(|partition| {
            let offset = state.groups.get(&(group.to_owned(), partition.clone()))?;
            Some((partition.clone(), *offset))
        });
        Ok(committed.collect())
    }

    async fn commit_offsets(&self, group: &str, offsets: &[(TopicPartition, Offset)]) -> Result<(), LogError> {
        let mut state = self.state.lock();
        for (partition, offset) in offsets {
            state.groups.insert((group.to_owned(), partition.clone()), *offset);
        }
        Ok(())
    }
}

/// Epochs of one transactional producer of a log in memory. The test ends them.
pub struct MemoryTransaction {
    log: Arc<MemoryLog>,
    session: ProducerSession,
}

impl MemoryTransaction {
    /// Fences the producer's predecessor and aborts what it left.
    pub async fn begin(log: Arc<MemoryLog>) -> Result<Self, LogError> {
        let session = log.init_producer("test", 60_000).await?;
        Ok(Self { log, session })
    }

    /// Ends the transaction.
    pub async fn end(&self, commit: bool) -> Result<(), LogError> {
        self.log.end_transaction(&self.session, commit).await.map(|_| ())
    }
}

#[async_trait]
impl Transaction for MemoryTransaction {
    async fn append(
        &self,
        _epoch: CheckpointEpoch,
        partition: &TopicPartition,
        batch: Bytes,
    ) -> Result<(), ConnectorError> {
        self.log.append(&self.session, partition, batch).await?;
        Ok(())
    }
}
