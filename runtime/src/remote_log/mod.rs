//! A log behind a server: any cluster that speaks Kafka, reached over TCP.
//!
//! ```text
//!   RemoteLog ──▶ Cluster ──▶ Connection      which broker ─▶ one request at a time, the next on another connection
//! ```
//!
//! Record batches pass through as they are, in both directions: what is fetched is what lies in the broker's segments, with
//! its offsets, control batches and aborted transactions, as the trait wants it. So this speaks the protocol itself; a
//! client library would hand out single records. A wait is a fetch that the broker holds back.
//!
//! Not served over the wire yet, and refused: transactions, and groups that a pipeline joins.

mod admin;
mod cluster;
mod connection;
mod error;
mod groups;
mod records;
#[cfg(test)]
mod tests;

use async_trait::async_trait;
use bytes::Bytes;
use logmill_connectors::error::LogError;
use logmill_connectors::log::{
    ConfigChange, FetchRequest, Fetched, Isolation, Log, Membership, NewTopic, OffsetAt, ProducerSession, TopicInfo,
    TopicPartition,
};
use logmill_protocol::Offset;

use self::cluster::Cluster;
pub use self::groups::{Group, ListedGroup, Member};

/// The log of a cluster.
pub struct RemoteLog {
    cluster: Cluster,
}

impl RemoteLog {
    /// The log behind these `host:port`s, separated by commas. Connects when it is first asked something.
    #[must_use]
    pub fn new(bootstrap: &str) -> Self {
        Self { cluster: Cluster::new(bootstrap) }
    }
}

fn not_yet<T>(what: &str) -> Result<T, LogError> {
    Err(LogError::Unsupported(format!("{what} is not supported over --bootstrap yet: use --data-dir")))
}

#[async_trait]
impl Log for RemoteLog {
    async fn create_topic(&self, topic: NewTopic) -> Result<(), LogError> {
        self.make_topic(topic).await
    }

    async fn topic(&self, name: &str) -> Result<Option<TopicInfo>, LogError> {
        self.find_topic(name).await
    }

    async fn topics(&self) -> Result<Vec<TopicInfo>, LogError> {
        self.all_topics().await
    }

    async fn create_partitions(&self, topic: &str, partitions: i32) -> Result<(), LogError> {
        self.add_partitions(topic, partitions).await
    }

    async fn alter_configs(&self, topic: &str, changes: &[ConfigChange]) -> Result<(), LogError> {
        self.change_configs(topic, changes).await
    }

    async fn delete_topic(&self, topic: &str) -> Result<(), LogError> {
        self.remove_topic(topic).await
    }

    async fn offset(&self, partition: &TopicPartition, at: OffsetAt) -> Result<Offset, LogError> {
        self.find_offset(partition, at).await
    }

    async fn fetch(&self, request: &FetchRequest) -> Result<Fetched, LogError> {
        self.read(request).await
    }

    async fn wait(&self, partition: &TopicPartition, offset: Offset, isolation: Isolation) -> Result<(), LogError> {
        self.wait_past(partition, offset, isolation).await
    }

    async fn delete_records(&self, partition: &TopicPartition, before: Offset) -> Result<(), LogError> {
        self.remove_records(partition, before).await
    }

    async fn produce(&self, partition: &TopicPartition, batch: Bytes) -> Result<Offset, LogError> {
        self.write(partition, batch).await
    }

    async fn init_producer(&self, _transactional_id: &str, _timeout_ms: u64) -> Result<ProducerSession, LogError> {
        not_yet("a transaction")
    }

    async fn append(
        &self,
        _session: &ProducerSession,
        _partition: &TopicPartition,
        _batch: Bytes,
    ) -> Result<Offset, LogError> {
        not_yet("a transaction")
    }

    async fn commit_offsets_in_transaction(
        &self,
        _session: &ProducerSession,
        _membership: &Membership,
        _offsets: &[(TopicPartition, Offset)],
    ) -> Result<(), LogError> {
        not_yet("a transaction")
    }

    async fn end_transaction(&self, _session: &ProducerSession, _commit: bool) -> Result<ProducerSession, LogError> {
        not_yet("a transaction")
    }

    async fn join_group(&self, _group: &str, _instance: &str) -> Result<Membership, LogError> {
        not_yet("joining a group")
    }

    async fn leave_group(&self, _membership: &Membership) -> Result<(), LogError> {
        not_yet("joining a group")
    }

    async fn committed_offsets(
        &self,
        group: &str,
        partitions: &[TopicPartition],
    ) -> Result<Vec<(TopicPartition, Offset)>, LogError> {
        self.fetch_offsets(group, Some(partitions)).await
    }

    async fn commit_offsets(&self, group: &str, offsets: &[(TopicPartition, Offset)]) -> Result<(), LogError> {
        self.write_offsets(group, offsets).await
    }
}
