//! What the YAML of a topic source and of a topic sink may say.

use chrono::{DateTime, Utc};
use indexmap::IndexMap;
use logmill_pipelines::{ByteSize, Compression, TopicName};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Records of a topic of the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceConfig {
    /// The topic.
    pub topic: TopicName,
    /// Where to begin when the pipeline runs for the first time; later runs go on where the last one was committed.
    #[serde(default)]
    pub from: From,
    /// Where to end. If absent, the topic is followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Until>,
    /// What to do when records were deleted before they were read.
    #[serde(default)]
    pub on_gap: OnGap,
    /// What to see of transactions.
    #[serde(default)]
    pub isolation: ReadIsolation,
}

/// Where to begin reading.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum From {
    /// At the oldest record.
    #[default]
    Earliest,
    /// With what comes from now on.
    Latest,
    /// At the first record of this time or later.
    Time(#[schemars(with = "String")] DateTime<Utc>),
    /// At this offset of each partition.
    Offset(u64),
    /// Where this consumer group stands; at the oldest record where it has no offset.
    Group(String),
}

/// Where to end reading.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Until {
    /// At what is the end when the pipeline starts.
    End,
    /// Before the first record of this time or later.
    Time(#[schemars(with = "String")] DateTime<Utc>),
}

/// What to do when a position lies before the log's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnGap {
    /// Stop the pipeline and say what is missing.
    #[default]
    Stop,
    /// Go on with the oldest record there is.
    Skip,
}

/// What a reader sees of transactions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReadIsolation {
    /// Only what was committed.
    #[default]
    ReadCommitted,
    /// Everything, as soon as it is replicated.
    ReadUncommitted,
}

/// Rows as records of a topic of the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SinkConfig {
    /// The topic.
    pub topic: TopicName,
    /// The column that becomes the records' key, and so chooses the partition as Kafka's clients do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The column that becomes the records' timestamp; the time of writing by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<String>,
    /// Headers of the records: their names, and the columns whose values they take; or `_headers`, for those of the
    /// records that were read.
    #[serde(default, skip_serializing_if = "Headers::is_empty")]
    pub headers: Headers,
    /// The codec of the record batches.
    #[serde(default = "lz4")]
    pub compression: Compression,
    /// About how large a record batch becomes before it is compressed.
    #[serde(default = "batch_bytes")]
    pub batch_bytes: ByteSize,
}

/// Where the headers of records come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Headers {
    /// A column that holds all of them, as `_headers` does.
    All(String),
    /// A column for each, by the header's name.
    Each(IndexMap<String, String>),
}

impl Default for Headers {
    fn default() -> Self {
        Self::Each(IndexMap::new())
    }
}

impl Headers {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The columns that are read.
    pub(super) fn columns(&self) -> Vec<&String> {
        match self {
            Self::All(column) => vec![column],
            Self::Each(columns) => columns.values().collect(),
        }
    }
}

fn lz4() -> Compression {
    Compression::Lz4
}

fn batch_bytes() -> ByteSize {
    ByteSize(super::batches::BATCH_BYTES as u64)
}
