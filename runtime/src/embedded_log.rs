//! The broker in this process as the log of a pipeline.

use async_trait::async_trait;
use bytes::Bytes;
use logmill_broker::{self as broker, Broker, BrokerError};
use logmill_connectors::error::LogError;
use logmill_connectors::log::{
    ConfigChange, FetchRequest, Fetched, Isolation, Log, Membership, NewTopic, OffsetAt, ProducerSession, TopicInfo,
    TopicPartition,
};
use logmill_protocol::Offset;

/// The log of this process.
#[derive(Clone)]
pub struct EmbeddedLog {
    broker: Broker,
}

impl EmbeddedLog {
    /// The log that a broker keeps.
    pub fn new(broker: Broker) -> Self {
        Self { broker }
    }
}

fn error(error: BrokerError) -> LogError {
    match error {
        BrokerError::UnknownTopic(topic) => LogError::UnknownTopic(topic),
        BrokerError::UnknownPartition { topic, partition } => LogError::UnknownPartition { topic, partition },
        BrokerError::TopicExists(topic) => LogError::TopicExists(topic),
        BrokerError::Invalid(message) => LogError::Invalid(message),
        BrokerError::OffsetOutOfRange { topic, partition, offset, log_start, log_end } => {
            LogError::OffsetOutOfRange { topic, partition, offset, log_start, log_end }
        }
        BrokerError::Fenced(producer) => LogError::Fenced(producer),
        BrokerError::IllegalGeneration { group, generation } => LogError::IllegalGeneration { group, generation },
        BrokerError::DiskFull(message) => LogError::DiskFull(message),
        BrokerError::Storage { context, source } => LogError::Storage { context, source },
        offline @ BrokerError::Offline(_) => {
            LogError::Storage { context: "a partition cannot be served".to_owned(), source: offline.into() }
        }
        lost @ BrokerError::Lost { .. } => {
            LogError::Storage { context: "records are damaged".to_owned(), source: lost.into() }
        }
        BrokerError::Closed => LogError::Closed,
        // What a caller in this process can do nothing else about.
        other => LogError::Invalid(other.to_string()),
    }
}

fn place(partition: &TopicPartition) -> broker::TopicPartition {
    broker::TopicPartition { topic: partition.topic.clone(), partition: partition.partition }
}

fn isolation(isolation: Isolation) -> broker::Isolation {
    match isolation {
        Isolation::ReadUncommitted => broker::Isolation::ReadUncommitted,
        Isolation::ReadCommitted => broker::Isolation::ReadCommitted,
    }
}

fn info(topic: broker::TopicInfo) -> TopicInfo {
    TopicInfo { name: topic.name, partitions: topic.partitions, internal: topic.internal, configs: topic.configs }
}

fn session(session: &ProducerSession) -> broker::ProducerSession {
    broker::ProducerSession { transactional_id: session.transactional_id.clone(), id: session.id, epoch: session.epoch }
}

fn from_session(session: broker::ProducerSession) -> ProducerSession {
    ProducerSession { transactional_id: session.transactional_id, id: session.id, epoch: session.epoch }
}

fn membership(membership: &Membership) -> broker::Membership {
    broker::Membership {
        group: membership.group.clone(),
        member: membership.member.clone(),
        generation: membership.generation,
    }
}

fn places(offsets: &[(TopicPartition, Offset)]) -> Vec<(broker::TopicPartition, Offset)> {
    offsets.iter().map(|(partition, offset)| (place(partition), *offset)).collect()
}

#[async_trait]
impl Log for EmbeddedLog {
    async fn create_topic(&self, topic: NewTopic) -> Result<(), LogError> {
        let topic = broker::NewTopic { name: topic.name, partitions: topic.partitions, configs: topic.configs };
        self.broker.create_topic(topic).await.map_err(error)
    }

    async fn topic(&self, name: &str) -> Result<Option<TopicInfo>, LogError> {
        Ok(self.broker.topic(name).await.map_err(error)?.map(info))
    }

    async fn topics(&self) -> Result<Vec<TopicInfo>, LogError> {
        Ok(self.broker.topics().await.map_err(error)?.into_iter().map(info).collect())
    }

    async fn create_partitions(&self, topic: &str, partitions: i32) -> Result<(), LogError> {
        self.broker.create_partitions(topic, partitions).await.map_err(error)
    }

    async fn alter_configs(&self, topic: &str, changes: &[ConfigChange]) -> Result<(), LogError> {
        let change = |change: &ConfigChange| match change {
            ConfigChange::Set(name, value) => broker::ConfigChange::Set(name.clone(), value.clone()),
            ConfigChange::Reset(name) => broker::ConfigChange::Reset(name.clone()),
        };
        let changes: Vec<_> = changes.iter().map(change).collect();
        self.broker.alter_configs(topic, &changes).await.map_err(error)
    }

    async fn delete_topic(&self, topic: &str) -> Result<(), LogError> {
        self.broker.delete_topic(topic).await.map_err(error)
    }

    async fn offset(&self, partition: &TopicPartition, at: OffsetAt) -> Result<Offset, LogError> {
        let at = match at {
            OffsetAt::Earliest => broker::OffsetAt::Earliest,
            OffsetAt::Latest(level) => broker::OffsetAt::Latest(isolation(level)),
            OffsetAt::Time(time) => broker::OffsetAt::Time(time),
        };
        self.broker.offset(&place(partition), at).await.map_err(error)
    }

    async fn fetch(&self, request: &FetchRequest) -> Result<Fetched, LogError> {
        let request = broker::FetchRequest {
            partition: place(&request.partition),
            offset: request.offset,
            max_bytes: request.max_bytes,
            isolation: isolation(request.isolation),
        };
        let fetched = self.broker.fetch(&request).await.map_err(error)?;
        Ok(Fetched {
            batches: fetched.batches,
            next_offset: fetched.next_offset,
            aborted: fetched.aborted,
            high_watermark: fetched.high_watermark,
            last_stable_offset: fetched.last_stable_offset,
            log_start: fetched.log_start,
        })
    }

    async fn wait(&self, partition: &TopicPartition, offset: Offset, level: Isolation) -> Result<(), LogError> {
        self.broker.wait(&place(partition), offset, isolation(level)).await.map_err(error)
    }

    async fn delete_records(&self, partition: &TopicPartition, before: Offset) -> Result<(), LogError> {
        self.broker.delete_records(&place(partition), before).await.map_err(error)
    }

    async fn produce(&self, partition: &TopicPartition, batch: Bytes) -> Result<Offset, LogError> {
        self.broker.produce(&place(partition), batch).await.map_err(error)
    }

    async fn init_producer(&self, transactional_id: &str, timeout_ms: u64) -> Result<ProducerSession, LogError> {
        self.broker.init_producer(transactional_id, timeout_ms).await.map(from_session).map_err(error)
    }

    async fn append(
        &self,
        producer: &ProducerSession,
        partition: &TopicPartition,
        batch: Bytes,
    ) -> Result<Offset, LogError> {
        self.broker.append(&session(producer), &place(partition), batch).await.map_err(error)
    }

    async fn commit_offsets_in_transaction(
        &self,
        producer: &ProducerSession,
        member: &Membership,
        offsets: &[(TopicPartition, Offset)],
    ) -> Result<(), LogError> {
        let (session, member, offsets) = (session(producer), membership(member), places(offsets));
        self.broker.commit_offsets_in_transaction(&session, &member, &offsets).await.map_err(error)
    }

    async fn end_transaction(&self, producer: &ProducerSession, commit: bool) -> Result<ProducerSession, LogError> {
        self.broker.end_transaction(&session(producer), commit).await.map(from_session).map_err(error)
    }

    async fn join_group(&self, group: &str, instance: &str) -> Result<Membership, LogError> {
        let joined = self.broker.join_group(group, instance).await.map_err(error)?;
        Ok(Membership { group: joined.group, member: joined.member, generation: joined.generation })
    }

    async fn leave_group(&self, member: &Membership) -> Result<(), LogError> {
        self.broker.leave_group(&membership(member)).await.map_err(error)
    }

    async fn committed_offsets(
        &self,
        group: &str,
        partitions: &[TopicPartition],
    ) -> Result<Vec<(TopicPartition, Offset)>, LogError> {
        let partitions: Vec<_> = partitions.iter().map(place).collect();
        let found = self.broker.committed_offsets(group, &partitions).await.map_err(error)?;
        let back = |partition: broker::TopicPartition| TopicPartition {
            topic: partition.topic,
            partition: partition.partition,
        };
        Ok(found.into_iter().map(|(partition, offset)| (back(partition), offset)).collect())
    }

    async fn commit_offsets(&self, group: &str, offsets: &[(TopicPartition, Offset)]) -> Result<(), LogError> {
        self.broker.commit_offsets(group, &places(offsets)).await.map_err(error)
    }
}
