//! What the broker refused or failed to do, one variant for each thing a caller can do about it.

use std::path::PathBuf;
use std::sync::Arc;

use logmill_protocol::{BatchError, Offset};
use logmill_storage::StorageError;

use crate::names::is_internal;
use crate::types::{OfflinePartition, TopicPartition};

/// Any error, as a source.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Result of a broker operation.
pub type Result<T, E = BrokerError> = std::result::Result<T, E>;

/// Why a producer is refused: one kind for each of Kafka's error codes that tell producers apart what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The bytes were damaged on their way: sending them again may help.
    CorruptMessage,
    /// The batch is larger than the topic allows.
    MessageTooLarge,
    /// The batch or one of its records breaks a rule.
    InvalidRecord,
    /// A codec that does not exist, or not for this version of the request.
    UnsupportedCompression,
    /// A timestamp, or kind of timestamp, that the topic does not take.
    InvalidTimestamp,
    /// A sequence number was skipped: records may be missing.
    OutOfOrderSequence,
    /// A plain batch inside an open transaction of the same producer.
    InvalidTransactionState,
    /// A producer id that the cluster has not handed out.
    UnknownProducer,
    /// The producer id of a transactional producer, under which no client may write.
    ForeignProducer,
    /// A topic that only the broker writes.
    InvalidTopic,
    /// Fewer replicas than the topic wants to hear from.
    NotEnoughReplicas,
    /// A number of acknowledgements that is none.
    InvalidRequiredAcks,
    /// Transactions, which are not served to clients.
    Transactions,
    /// The disk did not confirm in the time that the producer allows.
    TimedOut,
}

/// What the broker refused or failed to do.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// No topic of this name.
    #[error("topic `{0}` does not exist")]
    UnknownTopic(String),
    /// No topic of this id.
    #[error("there is no topic of the id {0}")]
    UnknownTopicId(uuid::Uuid),
    /// The topic has no such partition.
    #[error("topic `{topic}` has no partition {partition}")]
    UnknownPartition {
        /// The topic.
        topic: String,
        /// The partition asked for.
        partition: i32,
    },
    /// The topic exists already.
    #[error("topic `{0}` exists already")]
    TopicExists(String),
    /// The topic's name is too like that of another.
    #[error("{0}")]
    TopicCollides(String),
    /// The process could not keep the files of so many segments open; each partition has one or more.
    #[error(
        "{segments} segments would need as many open files, of which this process may have {open_files}; raise the \
         limit (ulimit -n) and restart"
    )]
    TooManySegments {
        /// How many there would be.
        segments: i64,
        /// The limit of open files.
        open_files: u64,
    },
    /// A name, config, record batch or call that the broker refuses.
    #[error("{0}")]
    Invalid(String),
    /// Record batches, or a request of a producer, that the broker refuses; the kind tells what the producer can do.
    #[error("{message}")]
    Refused {
        /// What the producer can do about it.
        kind: Refusal,
        /// What is wrong, of which partition.
        message: String,
        /// Which record of the batch is at fault, counted from 0, if it is one.
        record: Option<i32>,
    },
    /// The offset is below the log start or above the log end.
    #[error("offset {offset} of {topic}-{partition} is out of range: the log holds {log_start} to {log_end}")]
    OffsetOutOfRange {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The offset asked for.
        offset: i64,
        /// The first offset held.
        log_start: i64,
        /// The offset after the last one held.
        log_end: i64,
    },
    /// A newer producer has taken over the transactional id, or its transaction timed out.
    #[error("producer `{0}` was fenced: a newer one of the same transactional id is at work, or it timed out")]
    Fenced(String),
    /// The group's generation has moved on, or the member left it.
    #[error("generation {generation} of group `{group}` is not the current one")]
    IllegalGeneration {
        /// The group.
        group: String,
        /// The generation the call was made under.
        generation: i32,
    },
    /// The disk is full. What was acknowledged is kept, and writing goes on when there is room.
    #[error("no space left for the log: {0}")]
    DiskFull(String),
    /// The partition cannot be served, while everything else is.
    #[error(
        "partition {} is offline: {}; restore {} and restart{}",
        .0.partition, .0.reason, .0.path.display(), repair_hint(&.0.partition.topic, "begin it anew")
    )]
    Offline(Arc<OfflinePartition>),
    /// The records at the offset were damaged; those before and behind them can be read.
    #[error(
        "{partition}: {reason}; restore the files from a backup{}", repair_hint(&partition.topic, "let readers pass over them")
    )]
    Lost {
        /// The partition.
        partition: TopicPartition,
        /// Which records, and where the damage is.
        reason: String,
    },
    /// A file is damaged, or the disk failed.
    #[error("{context}")]
    Storage {
        /// What was tried, on what.
        context: String,
        /// Why it failed.
        source: BoxError,
    },
    /// Another process works on the data dir.
    #[error("data dir {} is in use by {holder}; stop it or choose another --data-dir", path.display())]
    DataDirLocked {
        /// The data dir.
        path: PathBuf,
        /// Who holds it, as it wrote itself into the lock file.
        holder: String,
    },
    /// The data dir was written by a newer version.
    #[error(
        "data dir {} has format {found}, written by logmill {written_by}, and this logmill {} reads up to format \
         {supported}; use logmill {written_by} or newer", path.display(), env!("CARGO_PKG_VERSION")
    )]
    NewerFormat {
        /// The data dir.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format understood.
        supported: u32,
        /// The version that wrote it.
        written_by: String,
    },
    /// The broker is shutting down.
    #[error("the log is shutting down")]
    Closed,
}

/// The alternative to a backup. None is offered for the progress of a pipeline: without it, records are repeated or missed.
fn repair_hint(topic: &str, what: &str) -> String {
    match topic.starts_with("__") && !is_internal(topic) {
        true => String::new(),
        false => format!(", or have `logmill topic repair {topic}` {what}"),
    }
}

impl BrokerError {
    /// A failed call on files that are no partition's: a full disk is told apart from the rest.
    pub(crate) fn io(context: impl Into<String>, error: std::io::Error) -> Self {
        let context = context.into();
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                Self::DiskFull(format!("cannot {context}"))
            }
            _ => Self::Storage { context: format!("cannot {context}"), source: error.into() },
        }
    }

    /// A file whose content makes no sense.
    pub(crate) fn corrupt(context: impl Into<String>, source: impl Into<BoxError>) -> Self {
        Self::Storage { context: context.into(), source: source.into() }
    }

    /// What storage said of a partition. A fenced producer is named by the caller, who knows its transactional id.
    pub(crate) fn storage(partition: &TopicPartition, error: StorageError) -> Self {
        match error {
            StorageError::DiskFull { .. } => Self::DiskFull(error.to_string()),
            StorageError::OffsetOutOfRange { requested, log_start, log_end } => {
                Self::out_of_range(partition, requested, log_start, log_end)
            }
            StorageError::Closed { .. } => Self::Closed,
            StorageError::Lost { .. } | StorageError::Corrupt { .. } => {
                Self::Lost { partition: partition.clone(), reason: error.to_string() }
            }
            StorageError::InvalidBatch(error) => Self::batch(partition, &error),
            StorageError::ProducerFenced { producer_id, .. } => Self::Fenced(format!("producer id {producer_id}")),
            StorageError::InvalidTimestamp { .. } => Self::refused(Refusal::InvalidTimestamp, partition, error),
            StorageError::Refused { .. } => Self::refused(Refusal::InvalidRecord, partition, error),
            StorageError::TooLarge { .. } => Self::refused(Refusal::MessageTooLarge, partition, error),
            StorageError::OutOfOrderSequence { .. } => Self::refused(Refusal::OutOfOrderSequence, partition, error),
            StorageError::InvalidTransactionState { .. } => {
                Self::refused(Refusal::InvalidTransactionState, partition, error)
            }
            StorageError::InvalidConfig { .. } => Self::Invalid(format!("{partition}: {error}")),
            other => Self::Storage { context: format!("partition {partition} failed"), source: other.into() },
        }
    }

    /// A record batch that may not be appended.
    pub(crate) fn batch(partition: &TopicPartition, error: &BatchError) -> Self {
        let kind = match error {
            BatchError::Crc { .. } | BatchError::Length(_) => Refusal::CorruptMessage,
            BatchError::TooLarge { .. } | BatchError::DecompressedTooLarge { .. } => Refusal::MessageTooLarge,
            BatchError::Codec(_) => Refusal::UnsupportedCompression,
            BatchError::LogAppendTimeNotAllowed => Refusal::InvalidTimestamp,
            _ => Refusal::InvalidRecord,
        };
        let record = match error {
            BatchError::Record { index, .. } => Some(*index),
            _ => None,
        };
        Self::Refused { kind, message: format!("{partition}: {error}"), record }
    }

    /// Something of a producer that the partition does not take.
    pub(crate) fn refused(kind: Refusal, partition: &TopicPartition, reason: impl std::fmt::Display) -> Self {
        Self::Refused { kind, message: format!("{partition}: {reason}"), record: None }
    }

    pub(crate) fn out_of_range(partition: &TopicPartition, offset: Offset, log_start: Offset, log_end: Offset) -> Self {
        Self::OffsetOutOfRange {
            topic: partition.topic.clone(),
            partition: partition.partition,
            offset: offset.0,
            log_start: log_start.0,
            log_end: log_end.0,
        }
    }
}
