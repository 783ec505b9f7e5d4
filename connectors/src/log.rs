//! The log as the engine and the topic connector see it: one small trait, two addresses.
//!
//! Its first implementation is the broker in the same process, the second a client of any Kafka-compatible cluster. So nothing here goes beyond what Kafka's protocol can express (KIP-98 transactions, KIP-447 offsets fenced
//! by generation).
//!
//! ```text
//!   log start        last stable offset   high watermark   log end
//!      │ ◀── read_committed ──▶│                │             │      every end is exclusive
//! ```
//!
//! A transaction: `init_producer` once, then for each epoch any number of `append` and `commit_offsets_in_transaction`
//! in any order, then `end_transaction`. It opens at the first append after the last end.

use async_trait::async_trait;
use bytes::Bytes;
use logmill_protocol::{Offset, ProducerEpoch, ProducerId, Timestamp};

use crate::error::LogError;

/// A topic and one of its partitions.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic's name.
    pub topic: String,
    /// The partition's index, from 0.
    pub partition: i32,
}

/// A topic to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTopic {
    /// The topic's name, by Kafka's rules.
    pub name: String,
    /// How many partitions, at least 1.
    pub partitions: i32,
    /// Topic configs by Kafka's names, such as `retention.ms`.
    pub configs: Vec<(String, String)>,
}

/// What a topic is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicInfo {
    /// The topic's name.
    pub name: String,
    /// How many partitions it has.
    pub partitions: i32,
    /// Whether it belongs to the system and is hidden from listings.
    pub internal: bool,
    /// The configs that differ from their defaults.
    pub configs: Vec<(String, String)>,
}

/// A change of one topic config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigChange {
    /// Sets the config.
    Set(String, String),
    /// Returns the config to its default.
    Reset(String),
}

/// A place in a partition, by kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetAt {
    /// The log start offset.
    Earliest,
    /// The end a reader of this isolation can see: HW, or LSO under `read_committed`.
    Latest(Isolation),
    /// The first record whose timestamp is this or later; the end where there is none.
    Time(Timestamp),
}

/// What a reader sees of transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Everything below the high watermark.
    ReadUncommitted,
    /// Everything below the last stable offset, less aborted transactions.
    ReadCommitted,
}

/// A read of one partition.
#[derive(Clone, Debug)]
pub struct FetchRequest {
    /// What to read.
    pub partition: TopicPartition,
    /// From where.
    pub offset: Offset,
    /// About how many bytes at most; the first batch is returned whatever its size.
    pub max_bytes: usize,
    /// What to see of transactions.
    pub isolation: Isolation,
}

/// What a read returned.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// Whole record batches (v2), as they lie in the segment; the first may begin before the offset asked for, and
    /// control batches are among them.
    pub batches: Bytes,
    /// Where to read on: after the last batch returned.
    pub next_offset: Offset,
    /// The aborted transactions that overlap the bytes: (producer id, first offset), by first offset. Empty under
    /// `ReadUncommitted`.
    pub aborted: Vec<(ProducerId, Offset)>,
    /// The partition's high watermark.
    pub high_watermark: Offset,
    /// The partition's last stable offset.
    pub last_stable_offset: Offset,
    /// The partition's log start offset.
    pub log_start: Offset,
}

/// A transactional producer after its initialisation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerSession {
    /// The transactional id.
    pub transactional_id: String,
    /// The producer id that the log gave it.
    pub id: ProducerId,
    /// The producer epoch that the log gave it.
    pub epoch: ProducerEpoch,
}

/// A member of a consumer group in one of its generations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The group.
    pub group: String,
    /// The member's id.
    pub member: String,
    /// The generation it was assigned partitions in.
    pub generation: i32,
}

/// The log, as far as a pipeline needs it.
#[async_trait]
pub trait Log: Send + Sync {
    /// Makes a topic. `TopicExists` where there is one of the name already, whatever its configs.
    async fn create_topic(&self, topic: NewTopic) -> Result<(), LogError>;

    /// What a topic is; `None` where there is none of the name.
    async fn topic(&self, name: &str) -> Result<Option<TopicInfo>, LogError>;

    /// All topics, by name.
    async fn topics(&self) -> Result<Vec<TopicInfo>, LogError>;

    /// Adds partitions to a topic, up to `partitions` in all.
    async fn create_partitions(&self, topic: &str, partitions: i32) -> Result<(), LogError>;

    /// Changes configs of a topic: all of them, or none if one is refused.
    async fn alter_configs(&self, topic: &str, changes: &[ConfigChange]) -> Result<(), LogError>;

    /// Deletes a topic and all its records.
    async fn delete_topic(&self, topic: &str) -> Result<(), LogError>;

    /// Where a place is.
    async fn offset(&self, partition: &TopicPartition, at: OffsetAt) -> Result<Offset, LogError>;

    /// Reads; returns at once, with empty `batches` where nothing is to be read yet.
    async fn fetch(&self, request: &FetchRequest) -> Result<Fetched, LogError>;

    /// Waits until the partition can be read past `offset` under the isolation. Cancel-safe; does not poll.
    async fn wait(&self, partition: &TopicPartition, offset: Offset, isolation: Isolation) -> Result<(), LogError>;

    /// Moves the log start offset up; what lies below may be deleted.
    async fn delete_records(&self, partition: &TopicPartition, before: Offset) -> Result<(), LogError>;

    /// Appends a record batch without a transaction and returns its base offset once it is durable (`acks=all`).
    async fn produce(&self, partition: &TopicPartition, batch: Bytes) -> Result<Offset, LogError>;

    /// Begins a producer's life under a transactional id: aborts what its predecessor left open and fences it.
    async fn init_producer(&self, transactional_id: &str, timeout_ms: u64) -> Result<ProducerSession, LogError>;

    /// Appends a batch to the session's transaction. The batch's producer id, epoch and sequence are stamped by the
    /// callee. The caller keeps one append at a time for each partition.
    async fn append(
        &self,
        session: &ProducerSession,
        partition: &TopicPartition,
        batch: Bytes,
    ) -> Result<Offset, LogError>;

    /// Commits a group's offsets with the session's transaction, refused where the generation is no longer current.
    async fn commit_offsets_in_transaction(
        &self,
        session: &ProducerSession,
        membership: &Membership,
        offsets: &[(TopicPartition, Offset)],
    ) -> Result<(), LogError>;

    /// Ends the transaction: once it returns, all of its records and offsets are durable and visible, or (`commit` is
    /// false) none ever will be. Without an open transaction it does nothing. Returns the session to go on with: the
    /// producer epoch may have been bumped, or the producer id rotated.
    async fn end_transaction(&self, session: &ProducerSession, commit: bool) -> Result<ProducerSession, LogError>;

    /// Joins a group as its only member of this instance name and returns the new generation; an earlier member of the
    /// same instance is fenced by it.
    async fn join_group(&self, group: &str, instance: &str) -> Result<Membership, LogError>;

    /// Leaves the group.
    async fn leave_group(&self, membership: &Membership) -> Result<(), LogError>;

    /// The offsets a group has committed; partitions without one are left out. Waits until no offset of an open
    /// transaction is pending on them.
    async fn committed_offsets(
        &self,
        group: &str,
        partitions: &[TopicPartition],
    ) -> Result<Vec<(TopicPartition, Offset)>, LogError>;

    /// Commits a group's offsets outside of a transaction.
    async fn commit_offsets(&self, group: &str, offsets: &[(TopicPartition, Offset)]) -> Result<(), LogError>;
}
