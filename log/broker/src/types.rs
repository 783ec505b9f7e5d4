//! What callers pass to the broker and get back: the words of topics, reads, producers and groups.

use bytes::Bytes;
use logmill_protocol::{Offset, ProducerEpoch, ProducerId, Timestamp};
use serde::{Deserialize, Serialize};

/// A topic and one of its partitions.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TopicPartition {
    /// The topic's name.
    pub topic: String,
    /// The partition's index, from 0.
    pub partition: i32,
}

impl TopicPartition {
    /// Partition `partition` of `topic`.
    #[must_use]
    pub fn new(topic: impl Into<String>, partition: i32) -> Self {
        Self { topic: topic.into(), partition }
    }
}

impl std::fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
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
    /// Its id, which no later topic of the same name shares.
    pub id: String,
    /// How many partitions it has.
    pub partitions: i32,
    /// Whether it belongs to the system and is hidden from listings.
    pub internal: bool,
    /// The configs that differ from their defaults.
    pub configs: Vec<(String, String)>,
}

/// A partition that cannot be served, while everything else is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfflinePartition {
    /// The partition.
    pub partition: TopicPartition,
    /// Its folder.
    pub path: std::path::PathBuf,
    /// What keeps it from being served.
    pub reason: String,
}

/// Records of a partition that are lost, or a batch whose header was restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedPartition {
    /// The partition.
    pub partition: TopicPartition,
    /// What is lost, and where.
    pub damage: logmill_storage::Damage,
}

/// A change of one topic config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigChange {
    /// Sets the config.
    Set(String, String),
    /// Returns the config to its default.
    Reset(String),
    /// Adds items to a config that is a list: they are given separated by commas.
    Append(String, String),
    /// Takes items away from a config that is a list.
    Subtract(String, String),
}

/// A place in a partition, by kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetAt {
    /// The log start offset.
    Earliest,
    /// The end a reader of this isolation can see: HW, or LSO under `read_committed`.
    Latest(Isolation),
    /// The first record whose timestamp is this or later; the high watermark where there is none.
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

/// What a group is at one instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupInfo {
    /// The group.
    pub group: String,
    /// Its generation; 0 before the first member.
    pub generation: i32,
    /// Its members by id.
    pub members: Vec<String>,
    /// Its committed offsets, by topic and partition.
    pub offsets: Vec<(TopicPartition, Offset)>,
}
