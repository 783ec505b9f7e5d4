//! The options of one partition's log. Each mirrors a Kafka topic config, named in its doc.

use std::time::Duration;

use logmill_protocol::{BatchLimits, TimestampType};

use crate::error::{Result, StorageError};

/// Options of a [`PartitionLog`](crate::PartitionLog). They may change while it is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogConfig {
    /// A segment that would grow beyond this rolls (`segment.bytes`). 1 to 2³¹−1: positions are 31-bit in Kafka's index.
    pub segment_bytes: u64,
    /// A segment whose first append is older than this rolls (`segment.ms`).
    pub segment_age: Duration,
    /// At least as many bytes lie between two index entries (`index.interval.bytes`).
    pub index_interval_bytes: u64,
    /// A segment one of whose indexes has reached this size rolls (`segment.index.bytes`).
    pub segment_index_bytes: u64,
    /// Segments whose newest record is older than this are deleted (`retention.ms`; `None` keeps them).
    pub retention: Option<Duration>,
    /// Oldest segments are deleted while the rest still holds as much (`retention.bytes`; `None` keeps them).
    pub retention_bytes: Option<u64>,
    /// Reserve disk space ahead of the log end without changing the file's length (`preallocate`).
    pub preallocate: bool,
    /// Largest record batch accepted (`max.message.bytes`).
    pub max_batch_bytes: usize,
    /// Whose clock stamps the records (`message.timestamp.type`).
    pub timestamp_type: TimestampType,
    /// Records stamped by their producers further behind the clock are refused (`message.timestamp.before.max.ms`).
    pub timestamp_before_max: Option<Duration>,
    /// Records stamped by their producers further ahead of the clock are refused (`message.timestamp.after.max.ms`).
    pub timestamp_after_max: Option<Duration>,
    /// A producer without appends for this long, and without an open transaction, is forgotten
    /// (`producer.id.expiration.ms`).
    pub producer_id_expiry: Duration,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            segment_bytes: 256 << 20,
            segment_age: Duration::from_secs(7 * 24 * 3600),
            index_interval_bytes: 4096,
            segment_index_bytes: 10 << 20,
            retention: Some(Duration::from_secs(7 * 24 * 3600)),
            retention_bytes: None,
            preallocate: true,
            max_batch_bytes: BatchLimits::DEFAULT_MAX_BATCH_BYTES,
            timestamp_type: TimestampType::CreateTime,
            timestamp_before_max: None,
            timestamp_after_max: None,
            producer_id_expiry: Duration::from_secs(24 * 3600),
        }
    }
}

/// Largest file position that Kafka's offset index can hold.
pub(crate) const MAX_SEGMENT_BYTES: u64 = i32::MAX as u64;

impl LogConfig {
    /// Checks every range.
    pub fn validate(&self) -> Result<()> {
        let check = |name, value, ok: bool, expected| match ok {
            true => Ok(()),
            false => Err(StorageError::InvalidConfig { name, value, expected }),
        };
        let segment = self.segment_bytes;
        check("segment_bytes", segment, (1..=MAX_SEGMENT_BYTES).contains(&segment), "1 to 2147483647")?;
        let batch = self.max_batch_bytes as u64;
        check("max_batch_bytes", batch, (1..=MAX_SEGMENT_BYTES).contains(&batch), "1 to 2147483647")?;
        let interval = self.index_interval_bytes;
        check("index_interval_bytes", interval, interval <= MAX_SEGMENT_BYTES, "0 to 2147483647")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn out_of_range_values_are_named() {
        let check = |config: LogConfig, expected: &str| {
            assert_eq!(config.validate().map_err(|e| e.to_string()), Err(expected.to_owned()));
        };
        let default = LogConfig::default();
        default.validate().unwrap();
        check(LogConfig { segment_bytes: 0, ..default }, "segment_bytes is 0, must be 1 to 2147483647");
        check(LogConfig { segment_bytes: 1 << 31, ..default }, "segment_bytes is 2147483648, must be 1 to 2147483647");
        check(LogConfig { max_batch_bytes: 0, ..default }, "max_batch_bytes is 0, must be 1 to 2147483647");
        check(
            LogConfig { index_interval_bytes: 1 << 32, ..default },
            "index_interval_bytes is 4294967296, must be 0 to 2147483647",
        );
    }
}
