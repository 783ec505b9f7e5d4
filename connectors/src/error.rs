//! The errors of connectors and of the log, sorted by what the engine should do about them.

use std::fmt;

/// What a connector could not do.
#[derive(Debug, thiserror::Error)]
pub enum ConnectorError {
    /// The pipeline's YAML asks for something that cannot be: say what and how to mend it.
    #[error("{0}")]
    Config(String),
    /// The data is not what it was said to be, at a place worth naming.
    #[error("{place}: {message}")]
    Data {
        /// File, partition, line or offset.
        place: String,
        /// What is wrong there.
        message: String,
    },
    /// The storage is full: nothing is lost, and the pipeline goes on when run again with room.
    #[error("no space left: {0}")]
    DiskFull(String),
    /// A call that may succeed when tried again.
    #[error("{context}")]
    Transient {
        /// What was tried, on what.
        context: String,
        /// Why it failed.
        source: BoxError,
    },
    /// A call that will not succeed when tried again.
    #[error("{context}")]
    Permanent {
        /// What was tried, on what.
        context: String,
        /// Why it failed.
        source: BoxError,
    },
    /// The log refused or failed.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// Any error, as a source.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl ConnectorError {
    /// A failed call on files: a full disk is told apart from the rest.
    pub fn io(context: impl fmt::Display, error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                Self::DiskFull(format!("{context}: {error}"))
            }
            std::io::ErrorKind::Interrupted | std::io::ErrorKind::TimedOut => {
                Self::Transient { context: context.to_string(), source: error.into() }
            }
            _ => Self::Permanent { context: context.to_string(), source: error.into() },
        }
    }

    /// Whether the same call may succeed when it is made again.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Transient { .. } | Self::Log(LogError::Unreachable { .. }))
    }
}

/// What the log refused or failed to do.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// No topic of this name.
    #[error("topic `{0}` does not exist")]
    UnknownTopic(String),
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
    /// A topic, config or name that the log refuses.
    #[error("{0}")]
    Invalid(String),
    /// The offset is below the log start or above the end.
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
    /// A newer producer has taken over the transactional id.
    #[error("producer `{0}` was fenced: a newer one of the same transactional id is at work")]
    Fenced(String),
    /// The group's generation has moved on: the worker lost its shards.
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
    /// A segment is damaged, or the disk failed.
    #[error("{context}")]
    Storage {
        /// What was tried, on what.
        context: String,
        /// Why it failed.
        source: BoxError,
    },
    /// The log's server does not answer: it may later.
    #[error("{context}")]
    Unreachable {
        /// Who was asked.
        context: String,
        /// Why there is no answer.
        source: BoxError,
    },
    /// This kind of log cannot do it.
    #[error("{0}")]
    Unsupported(String),
    /// The log is shutting down.
    #[error("the log is shutting down")]
    Closed,
}
