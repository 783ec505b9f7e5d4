//! Everything that can go wrong with one partition's log, so that a broker can map each case to a Kafka error code.

use std::io;
use std::path::{Path, PathBuf};

use logmill_protocol::{BatchError, LeaderEpoch, Offset, ProducerEpoch, ProducerId};

/// Result of a storage operation.
pub type Result<T, E = StorageError> = std::result::Result<T, E>;

/// Why a storage operation failed. After any error but [`StorageError::Failed`] the log is as it was before the call.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The operating system refused a file operation.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was attempted, as a verb ("read", "create").
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The disk or its quota is full. The log is as before, and appends work again when there is room.
    #[error("no space left on the disk that holds {}, free some or lower retention", path.display())]
    DiskFull {
        /// The file that could not grow.
        path: PathBuf,
    },
    /// Bytes that had reached the disk do not make sense any more.
    #[error("{} is corrupt at position {position}: {reason}", path.display())]
    Corrupt {
        /// The damaged file.
        path: PathBuf,
        /// Byte position in the file.
        position: u64,
        /// What is wrong there.
        reason: String,
    },
    /// The records at the offset were damaged and are lost; those before and behind them can be read.
    #[error("records {from} to {} are lost: {reason} ({} at position {position})", to.plus(-1), path.display())]
    Lost {
        /// The damaged file, or the last one before the lost records.
        path: PathBuf,
        /// Byte position in the file.
        position: u64,
        /// The first offset lost.
        from: Offset,
        /// The offset after the last one lost.
        to: Offset,
        /// What is wrong.
        reason: String,
    },
    /// The partition's folder holds something that this version does not read.
    #[error("{} has format version {found}, this version reads {supported}; use a newer logmill", path.display())]
    UnknownFormat {
        /// The file.
        path: PathBuf,
        /// The version it names.
        found: i64,
        /// The version understood.
        supported: i64,
    },
    /// The offset is not in the log: below the log start offset or above the log end offset.
    #[error("offset {requested} is out of range, the log holds {log_start}..{log_end}")]
    OffsetOutOfRange {
        /// The offset asked for.
        requested: Offset,
        /// First offset held.
        log_start: Offset,
        /// One past the last offset held.
        log_end: Offset,
    },
    /// A record batch is malformed.
    #[error("invalid record batch")]
    InvalidBatch(#[from] BatchError),
    /// A record batch is well-formed but may not be appended in this way.
    #[error("record batch refused: {reason}")]
    Refused {
        /// The rule it breaks.
        reason: &'static str,
    },
    /// A record batch exceeds `max_batch_bytes`, or an append exceeds what a segment can address.
    #[error("record batch of {size_bytes} bytes is larger than the limit of {max_bytes}, raise max.message.bytes")]
    TooLarge {
        /// Size of the batch or append.
        size_bytes: u64,
        /// The limit.
        max_bytes: u64,
    },
    /// A record's timestamp is too far from the log's clock.
    #[error(
        "timestamp {found} is further from the log's clock, {now}, than message.timestamp.{limit}.max.ms, {max_ms}, allows"
    )]
    InvalidTimestamp {
        /// The record's timestamp.
        found: i64,
        /// The log's clock.
        now: i64,
        /// Which limit: `before` or `after`.
        limit: &'static str,
        /// How far away it may be.
        max_ms: i64,
    },
    /// A sequence number was skipped or repeated, so that records may be missing.
    #[error("producer {producer_id} sent sequence {found}, expected {expected}")]
    OutOfOrderSequence {
        /// The producer.
        producer_id: ProducerId,
        /// The sequence that would have followed.
        expected: i32,
        /// The batch's first sequence.
        found: i32,
    },
    /// A newer instance of the producer has taken over.
    #[error("producer {producer_id} is fenced: epoch {found} is older than {current}")]
    ProducerFenced {
        /// The producer.
        producer_id: ProducerId,
        /// The batch's or marker's producer epoch.
        found: ProducerEpoch,
        /// The epoch that the log has seen.
        current: ProducerEpoch,
    },
    /// A transaction marker comes from a coordinator that has been replaced.
    #[error("transaction coordinator is fenced: epoch {found} is older than {current}")]
    CoordinatorFenced {
        /// The marker's coordinator epoch.
        found: i32,
        /// The coordinator epoch that the log has seen.
        current: i32,
    },
    /// A plain batch inside an open transaction of the same producer.
    #[error("producer {producer_id} sent a non-transactional batch while its transaction is open")]
    InvalidTransactionState {
        /// The producer.
        producer_id: ProducerId,
    },
    /// The append carries an older leader epoch than the log has seen.
    #[error("leader epoch {found} is older than {current}")]
    LeaderEpochFenced {
        /// The append's leader epoch.
        found: LeaderEpoch,
        /// The latest leader epoch of the log.
        current: LeaderEpoch,
    },
    /// The log stopped for good: what reached the disk is unknown after a failed sync. Reopen the log to recover.
    #[error("log {} has stopped: {reason}; restart to recover it", path.display())]
    Failed {
        /// The partition's folder.
        path: PathBuf,
        /// The failure that stopped it.
        reason: String,
    },
    /// The log was closed.
    #[error("log {} is closed", path.display())]
    Closed {
        /// The partition's folder.
        path: PathBuf,
    },
    /// Too many callers wait for durability.
    #[error("{waiting} callers already wait for the disk, try again later")]
    Overloaded {
        /// How many wait.
        waiting: usize,
    },
    /// A configuration value is out of its range.
    #[error("{name} is {value}, must be {expected}")]
    InvalidConfig {
        /// The option.
        name: &'static str,
        /// The value given.
        value: u64,
        /// The range.
        expected: &'static str,
    },
}

impl StorageError {
    /// Wraps a system error, telling a full disk apart from everything else.
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path: path.to_owned() },
            _ => Self::Io { action, path: path.to_owned(), source },
        }
    }

    /// Whether the process or the system has no file left to open: others may close theirs.
    pub(crate) fn is_out_of_files(&self) -> bool {
        use rustix::io::Errno;
        let Self::Io { source, .. } = self else { return false };
        let error = source.raw_os_error();
        [Errno::MFILE, Errno::NFILE].iter().any(|errno| error == Some(errno.raw_os_error()))
    }

    pub(crate) fn corrupt(path: &Path, position: u64, reason: impl Into<String>) -> Self {
        Self::Corrupt { path: path.to_owned(), position, reason: reason.into() }
    }
}
