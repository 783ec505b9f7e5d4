//! Topic configs: Kafka's names and values, parsed and checked before they are stored.

use std::collections::BTreeMap;
use std::time::Duration;

use logmill_protocol::{Compression, TimestampType};
use logmill_storage::LogConfig;

use crate::error::{BrokerError, Result};

/// When `acks=all` is acknowledged (`flush`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// After `fdatasync`.
    Sync,
    /// In the page cache: survives the death of the process, not of the machine. Transactions are synced all the same.
    Os,
}

/// A topic's configs, parsed; defaults where nothing is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicConfig {
    /// `retention.ms`; `None` keeps records for ever.
    pub retention_ms: Option<u64>,
    /// `retention.bytes` of each partition; `None` for no limit.
    pub retention_bytes: Option<u64>,
    /// `segment.bytes`.
    pub segment_bytes: u64,
    /// `segment.ms`.
    pub segment_ms: u64,
    /// `compression.type`: the codec that batches are stored with; `None` keeps the producer's.
    pub compression: Option<Compression>,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// `max.message.bytes`: of a whole batch, as Kafka counts it.
    pub max_message_bytes: u64,
    /// `flush`.
    pub flush: Flush,
}

impl Default for TopicConfig {
    fn default() -> Self {
        Self {
            retention_ms: Some(7 * 24 * 3_600_000),
            retention_bytes: None,
            segment_bytes: 256 << 20,
            segment_ms: 7 * 24 * 3_600_000,
            compression: None,
            timestamp_type: TimestampType::CreateTime,
            max_message_bytes: 1_048_588,
            flush: Flush::Sync,
        }
    }
}

/// The configs that have an effect.
const SUPPORTED: [&str; 9] = [
    "cleanup.policy",
    "compression.type",
    "flush",
    "max.message.bytes",
    "message.timestamp.type",
    "retention.bytes",
    "retention.ms",
    "segment.bytes",
    "segment.ms",
];

/// Kafka's other configs: known, so that they are not taken for typing errors.
const UNSUPPORTED: [&str; 16] = [
    "delete.retention.ms",
    "file.delete.delay.ms",
    "flush.messages",
    "flush.ms",
    "follower.replication.throttled.replicas",
    "index.interval.bytes",
    "leader.replication.throttled.replicas",
    "local.retention.bytes",
    "local.retention.ms",
    "max.compaction.lag.ms",
    "min.cleanable.dirty.ratio",
    "min.compaction.lag.ms",
    "min.insync.replicas",
    "preallocate",
    "remote.storage.enable",
    "unclean.leader.election.enable",
];

/// Smallest `segment.bytes` that Kafka accepts.
const MIN_SEGMENT_BYTES: u64 = 14;

impl TopicConfig {
    /// Parses a topic's configs. Every mistake is in the message.
    ///
    /// # Errors
    /// `Invalid` for unknown and unsupported configs and for values that are none.
    pub fn parse<'a>(configs: impl IntoIterator<Item = (&'a str, &'a str)>, internal: bool) -> Result<Self> {
        let mut parsed = Self::default();
        let mut mistakes = Vec::new();
        let mut seen = BTreeMap::new();
        for (name, value) in configs {
            if seen.insert(name, value).is_some() {
                mistakes.push(format!("config `{name}` is set twice"));
            } else if let Err(mistake) = parsed.set(name, value.trim(), internal) {
                mistakes.push(mistake);
            }
        }
        match mistakes.is_empty() {
            true => Ok(parsed),
            false => Err(BrokerError::Invalid(mistakes.join("; "))),
        }
    }

    fn set(&mut self, name: &str, value: &str, internal: bool) -> Result<(), String> {
        match name {
            "retention.ms" => self.retention_ms = unlimited(name, value)?,
            "retention.bytes" => self.retention_bytes = unlimited(name, value)?,
            "segment.bytes" => self.segment_bytes = number(name, value, MIN_SEGMENT_BYTES, i32::MAX as u64)?,
            "segment.ms" => self.segment_ms = number(name, value, 1, i64::MAX as u64)?,
            "max.message.bytes" => self.max_message_bytes = number(name, value, 1, i32::MAX as u64)?,
            "compression.type" => self.compression = codec(value)?,
            "message.timestamp.type" => {
                self.timestamp_type = match value {
                    "CreateTime" => TimestampType::CreateTime,
                    "LogAppendTime" => TimestampType::LogAppendTime,
                    _ => return Err(choice(name, value, &["CreateTime", "LogAppendTime"])),
                }
            }
            "flush" => {
                self.flush = match value {
                    "sync" => Flush::Sync,
                    "os" => Flush::Os,
                    _ => return Err(choice(name, value, &["sync", "os"])),
                }
            }
            "cleanup.policy" => match value {
                "delete" => {}
                "compact" if internal => {}
                "compact" | "compact,delete" | "delete,compact" => {
                    return Err("config `cleanup.policy`: compaction is not supported yet, use `delete`".to_owned());
                }
                _ => return Err(choice(name, value, &["delete"])),
            },
            _ => return Err(unknown(name)),
        }
        Ok(())
    }

    /// Checks that there is a config of this name.
    ///
    /// # Errors
    /// `Invalid`, with the nearest name.
    pub fn check_name(name: &str) -> Result<()> {
        match SUPPORTED.contains(&name) {
            true => Ok(()),
            false => Err(BrokerError::Invalid(unknown(name))),
        }
    }

    /// What the partitions' logs need to know of it.
    #[must_use]
    pub fn log_config(&self) -> LogConfig {
        LogConfig {
            segment_bytes: self.segment_bytes,
            segment_age: Duration::from_millis(self.segment_ms),
            retention: self.retention_ms.map(Duration::from_millis),
            retention_bytes: self.retention_bytes,
            max_batch_bytes: usize::try_from(self.max_message_bytes).unwrap_or(usize::MAX),
            timestamp_type: self.timestamp_type,
            ..LogConfig::default()
        }
    }
}

fn number(name: &str, value: &str, min: u64, max: u64) -> Result<u64, String> {
    match value.parse::<u64>() {
        Ok(number) if (min..=max).contains(&number) => Ok(number),
        _ => Err(format!("config `{name}` is `{value}`, it must be a number from {min} to {max}")),
    }
}

/// A number where -1 means no limit.
fn unlimited(name: &str, value: &str) -> Result<Option<u64>, String> {
    match value.parse::<i64>() {
        Ok(-1) => Ok(None),
        Ok(number) if number >= 0 => Ok(Some(number.unsigned_abs())),
        _ => Err(format!("config `{name}` is `{value}`, it must be -1 (no limit) or a number from 0 on")),
    }
}

fn codec(value: &str) -> Result<Option<Compression>, String> {
    Ok(Some(match value {
        "producer" => return Ok(None),
        "uncompressed" => Compression::None,
        "gzip" => Compression::Gzip,
        "snappy" => Compression::Snappy,
        "lz4" => Compression::Lz4,
        "zstd" => Compression::Zstd,
        _ => {
            let choices = ["producer", "uncompressed", "gzip", "snappy", "lz4", "zstd"];
            return Err(choice("compression.type", value, &choices));
        }
    }))
}

fn choice(name: &str, value: &str, choices: &[&str]) -> String {
    format!("config `{name}` is `{value}`, it must be one of: {}", choices.join(", "))
}

fn unknown(name: &str) -> String {
    if UNSUPPORTED.contains(&name) {
        return format!("config `{name}` is not supported yet");
    }
    let nearest = SUPPORTED
        .iter()
        .map(|known| (strsim::jaro_winkler(known, name), known))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    match nearest {
        Some((_, known)) => format!("there is no config `{name}`, did you mean `{known}`?"),
        None => format!("there is no config `{name}`; supported are {}", SUPPORTED.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn values_are_parsed() {
        let configs = [
            ("retention.ms", "-1"),
            ("retention.bytes", "1000"),
            ("segment.bytes", "65536"),
            ("compression.type", "zstd"),
            ("message.timestamp.type", "LogAppendTime"),
            ("flush", "os"),
            ("cleanup.policy", "delete"),
        ];
        let expected = TopicConfig {
            retention_ms: None,
            retention_bytes: Some(1000),
            segment_bytes: 65536,
            compression: Some(Compression::Zstd),
            timestamp_type: TimestampType::LogAppendTime,
            flush: Flush::Os,
            ..TopicConfig::default()
        };
        assert_eq!(TopicConfig::parse(configs, false).unwrap(), expected);
        expected.log_config().validate().unwrap();
    }

    #[test]
    fn mistakes_are_named_with_a_hint() {
        let check = |configs: &[(&str, &str)], expected: &str| {
            let error = TopicConfig::parse(configs.iter().copied(), false).unwrap_err();
            assert_eq!(error.to_string(), expected);
        };
        check(&[("retention.m", "1")], "there is no config `retention.m`, did you mean `retention.ms`?");
        check(&[("min.insync.replicas", "1")], "config `min.insync.replicas` is not supported yet");
        check(
            &[("retention.ms", "-2")],
            "config `retention.ms` is `-2`, it must be -1 (no limit) or a number from 0 on",
        );
        check(
            &[("cleanup.policy", "compact")],
            "config `cleanup.policy`: compaction is not supported yet, use `delete`",
        );
        check(
            &[("flush", "never"), ("segment.bytes", "1")],
            "config `flush` is `never`, it must be one of: sync, os; config `segment.bytes` is `1`, it must be a \
             number from 14 to 2147483647",
        );
        check(&[("flush", "os"), ("flush", "sync")], "config `flush` is set twice");
    }

    #[test]
    fn internal_topics_may_say_compact() {
        TopicConfig::parse([("cleanup.policy", "compact")], true).unwrap();
    }
}
