//! Topic configs: Kafka's names and values, parsed and checked before they are stored.

mod table;

use std::collections::BTreeMap;
use std::time::Duration;

use logmill_protocol::{Compression, TimestampType};
use logmill_storage::LogConfig;

use self::table::Value;
pub(crate) use self::table::{ConfigDef, ConfigType, TOPIC_CONFIGS, find};
use crate::error::{BrokerError, Result};
use crate::wire::MAX_STRING_LEN;

/// When `acks=all` is acknowledged (`flush`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// After `fdatasync`.
    Sync,
    /// In the page cache: survives the death of the process, not of the machine. Transactions are synced all the same, and
    /// so are the records before an offset that a group commits.
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
    /// `compression.gzip.level`; `None` for gzip's own default.
    pub gzip_level: Option<i32>,
    /// `compression.zstd.level`.
    pub zstd_level: i32,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// `max.message.bytes`: of a whole batch, as Kafka counts it.
    pub max_message_bytes: u64,
    /// `flush`.
    pub flush: Flush,
    /// `flush.messages`; the largest number for no limit.
    pub flush_messages: u64,
    /// `flush.ms`; the largest number for no limit.
    pub flush_ms: u64,
    /// `index.interval.bytes`.
    pub index_interval_bytes: u64,
    /// `segment.index.bytes`.
    pub segment_index_bytes: u64,
    /// `segment.jitter.ms`.
    pub segment_jitter_ms: u64,
    /// `message.timestamp.before.max.ms`.
    pub timestamp_before_max_ms: u64,
    /// `message.timestamp.after.max.ms`.
    pub timestamp_after_max_ms: u64,
    /// `min.insync.replicas`: with more than the one replica there is, `acks=all` is refused.
    pub min_insync_replicas: i32,
    /// `preallocate`.
    pub preallocate: bool,
}

impl Default for TopicConfig {
    fn default() -> Self {
        Self {
            retention_ms: Some(7 * 24 * 3_600_000),
            retention_bytes: None,
            segment_bytes: 256 << 20,
            segment_ms: 7 * 24 * 3_600_000,
            compression: None,
            gzip_level: None,
            zstd_level: 3,
            timestamp_type: TimestampType::CreateTime,
            max_message_bytes: 1_048_588,
            flush: Flush::Sync,
            flush_messages: i64::MAX as u64,
            flush_ms: i64::MAX as u64,
            index_interval_bytes: 4096,
            segment_index_bytes: 10 << 20,
            segment_jitter_ms: 0,
            timestamp_before_max_ms: i64::MAX as u64,
            timestamp_after_max_ms: 3_600_000,
            min_insync_replicas: 1,
            preallocate: true,
        }
    }
}

/// How Kafka writes that there is no limit, where a number must stand.
const UNLIMITED: &str = "9223372036854775807";

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

    fn set(&mut self, name: &str, text: &str, internal: bool) -> Result<(), String> {
        let config = table::find(name).ok_or_else(|| unknown(name))?;
        if text.len() > MAX_STRING_LEN {
            return Err(format!("the value of config `{name}` is longer than {MAX_STRING_LEN} bytes"));
        }
        (config.set)(self, Value { name: config.name, text, internal })
    }

    /// Checks that there is a config of this name.
    ///
    /// # Errors
    /// `Invalid`, with the nearest name.
    pub fn check_name(name: &str) -> Result<()> {
        match table::find(name) {
            Some(_) => Ok(()),
            None => Err(BrokerError::Invalid(unknown(name))),
        }
    }

    /// The level of the codec that batches are stored with; `None` for its default.
    pub(crate) fn level(&self) -> Option<i32> {
        match self.compression? {
            Compression::Gzip => self.gzip_level,
            Compression::Zstd => Some(self.zstd_level),
            Compression::None | Compression::Snappy | Compression::Lz4 => None,
        }
    }

    /// What a partition's log needs to know of it. `jitter` is the partition's own, any number, for `segment.jitter.ms`.
    #[must_use]
    pub fn log_config(&self, jitter: u64) -> LogConfig {
        // Modulo one more than the jitter, which is at most 2^63: all of it may be taken off.
        let jitter_ms = jitter % (self.segment_jitter_ms + 1);
        let limit = |ms: u64| (ms < i64::MAX as u64).then_some(Duration::from_millis(ms));
        LogConfig {
            segment_bytes: self.segment_bytes,
            segment_age: Duration::from_millis(self.segment_ms.saturating_sub(jitter_ms).max(1)),
            index_interval_bytes: self.index_interval_bytes,
            segment_index_bytes: self.segment_index_bytes,
            preallocate: self.preallocate,
            timestamp_before_max: limit(self.timestamp_before_max_ms),
            timestamp_after_max: limit(self.timestamp_after_max_ms),
            retention: self.retention_ms.map(Duration::from_millis),
            retention_bytes: self.retention_bytes,
            max_batch_bytes: usize::try_from(self.max_message_bytes).unwrap_or(usize::MAX),
            timestamp_type: self.timestamp_type,
            ..LogConfig::default()
        }
    }
}

/// All topic configs as a Markdown table: name, default, and what it does.
#[must_use]
pub fn topic_config_table() -> String {
    let row = |config: &ConfigDef| {
        let default = if config.default == UNLIMITED { "no limit" } else { config.default };
        format!("| `{}` | {default} | {} |\n", config.name, config.doc)
    };
    let rows: String = TOPIC_CONFIGS.iter().map(row).collect();
    format!("| config | default | |\n|---|---|---|\n{rows}")
}

fn unknown(name: &str) -> String {
    if let Some((_, why)) = table::UNSUPPORTED.iter().find(|(unsupported, _)| *unsupported == name) {
        return format!("config `{name}` is not supported: {why}");
    }
    match nearest(name, TOPIC_CONFIGS.iter().map(|config| config.name)) {
        Some(known) => format!("there is no config `{name}`, did you mean `{known}`?"),
        None => {
            let names: Vec<_> = TOPIC_CONFIGS.iter().map(|config| config.name).collect();
            format!("there is no config `{name}`; supported are {}", names.join(", "))
        }
    }
}

/// The name that was most likely meant.
pub(crate) fn nearest(name: &str, known: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    // A name that is longer than any is no typing error, and comparing it takes long.
    let near = known
        .filter(|_| name.len() <= 100)
        .map(|known| (strsim::jaro_winkler(known, name), known))
        .filter(|(likeness, _)| *likeness > 0.8);
    near.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, known)| known)
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
        expected.log_config(7).validate().unwrap();
    }

    #[test]
    fn mistakes_are_named_with_a_hint() {
        let check = |configs: &[(&str, &str)], expected: &str| {
            let error = TopicConfig::parse(configs.iter().copied(), false).unwrap_err();
            assert_eq!(error.to_string(), expected);
        };
        check(&[("retention.m", "1")], "there is no config `retention.m`, did you mean `retention.ms`?");
        check(
            &[("min.compaction.lag.ms", "1")],
            "config `min.compaction.lag.ms` is not supported: compaction is not supported yet",
        );
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
    fn the_defaults_of_the_table_are_those_of_the_struct() {
        let defaults = TOPIC_CONFIGS.iter().map(|config| (config.name, config.default));
        assert_eq!(TopicConfig::parse(defaults, false).unwrap(), TopicConfig::default());
        assert!(TOPIC_CONFIGS.is_sorted_by_key(|config| config.name));
        for config in TOPIC_CONFIGS {
            assert!(config.doc.ends_with('.') && !config.doc.contains("  "), "{}: {}", config.name, config.doc);
        }
    }

    #[test]
    fn every_config_but_those_with_one_value_changes_what_it_names() {
        for config in TOPIC_CONFIGS {
            let other = match (config.name, config.kind) {
                ("cleanup.policy" | "unclean.leader.election.enable", _) => continue,
                ("compression.type", _) => "lz4",
                ("compression.gzip.level" | "compression.zstd.level", _) => "9",
                ("flush", _) => "os",
                ("message.timestamp.type", _) => "LogAppendTime",
                (_, ConfigType::Boolean) => "false",
                _ => "12345",
            };
            let parsed = TopicConfig::parse([(config.name, other)], false).unwrap();
            assert_ne!(parsed, TopicConfig::default(), "{}", config.name);
        }
    }

    #[test]
    fn jitter_spreads_the_age_at_which_segments_roll() {
        let config = TopicConfig::parse([("segment.ms", "1000"), ("segment.jitter.ms", "999")], false).unwrap();
        let ages = |jitter| config.log_config(jitter).segment_age.as_millis();
        assert_eq!([ages(0), ages(1), ages(999), ages(1000)], [1000, 999, 1, 1000]);
        assert_eq!(TopicConfig::default().log_config(77).segment_age, Duration::from_secs(7 * 24 * 3600));
    }

    #[test]
    fn internal_topics_may_say_compact() {
        TopicConfig::parse([("cleanup.policy", "compact")], true).unwrap();
    }
}
