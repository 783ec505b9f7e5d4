//! Every topic config in one table, by name: what it is called, what it means, its default, and how its value is read.
//! Parsing, DescribeConfigs and the hints in error messages all draw on it.

use logmill_protocol::{Compression, TimestampType};

use super::{Flush, TopicConfig};

/// What a config's value is, by the numbers that DescribeConfigs uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConfigType {
    Boolean = 1,
    String = 2,
    Int = 3,
    Long = 5,
    List = 7,
}

/// A topic config.
#[derive(Debug)]
pub(crate) struct ConfigDef {
    pub(crate) name: &'static str,
    /// What Kafka calls the node's config that gives topics their default.
    pub(crate) node_name: Option<&'static str>,
    pub(crate) kind: ConfigType,
    pub(crate) default: &'static str,
    /// What it does, for people.
    pub(crate) doc: &'static str,
    pub(super) set: fn(&mut TopicConfig, Value<'_>) -> Result<(), String>,
}

/// The config of this name.
pub(crate) fn find(name: &str) -> Option<&'static ConfigDef> {
    TOPIC_CONFIGS.iter().find(|config| config.name == name)
}

/// The topic configs that have an effect, by name.
pub(crate) static TOPIC_CONFIGS: &[ConfigDef] = &[
    ConfigDef {
        name: "cleanup.policy",
        node_name: Some("log.cleanup.policy"),
        kind: ConfigType::List,
        default: "delete",
        doc: "What becomes of old records: `delete` removes segments that are out of retention.",
        set: |_, value| value.cleanup_policy(),
    },
    ConfigDef {
        name: "compression.gzip.level",
        node_name: Some("compression.gzip.level"),
        kind: ConfigType::Int,
        default: "-1",
        doc: "How hard gzip compresses where `compression.type` is `gzip`: 1 to 9, or -1 for its own default.",
        set: |config, value| {
            config.gzip_level = if value.text == "-1" { None } else { Some(value.integer(1, 9)?) };
            Ok(())
        },
    },
    ConfigDef {
        name: "compression.type",
        node_name: Some("compression.type"),
        kind: ConfigType::String,
        default: "producer",
        doc: "The codec that batches are stored with: `uncompressed`, `gzip`, `snappy`, `lz4`, `zstd`, or `producer` to \
              keep the producer's.",
        set: |config, value| value.codec().map(|codec| config.compression = codec),
    },
    ConfigDef {
        name: "compression.zstd.level",
        node_name: Some("compression.zstd.level"),
        kind: ConfigType::Int,
        default: "3",
        doc: "How hard zstd compresses where `compression.type` is `zstd`: -131072 to 22.",
        set: |config, value| value.integer(-131_072, 22).map(|level| config.zstd_level = level),
    },
    ConfigDef {
        name: "flush",
        node_name: None,
        kind: ConfigType::String,
        default: "sync",
        doc: "When acks=all is acknowledged: `sync` after fdatasync, `os` once the records are in the page cache, which \
              survives the death of the process but not of the machine. Before a group's offset is committed, the records \
              that it says have been read are synced with either.",
        set: |config, value| {
            config.flush = value.choice(&[("sync", Flush::Sync), ("os", Flush::Os)])?;
            Ok(())
        },
    },
    ConfigDef {
        name: "flush.messages",
        node_name: Some("log.flush.interval.messages"),
        kind: ConfigType::Long,
        default: "9223372036854775807",
        doc: "A partition is synced to disk once so many of its records are not.",
        set: |config, value| value.number(1, i64::MAX as u64).map(|n| config.flush_messages = n),
    },
    ConfigDef {
        name: "flush.ms",
        node_name: Some("log.flush.interval.ms"),
        kind: ConfigType::Long,
        default: "9223372036854775807",
        doc: "A partition is synced to disk so many milliseconds after a record was appended, at the latest.",
        set: |config, value| value.number(0, i64::MAX as u64).map(|n| config.flush_ms = n),
    },
    ConfigDef {
        name: "index.interval.bytes",
        node_name: Some("log.index.interval.bytes"),
        kind: ConfigType::Int,
        default: "4096",
        doc: "At least so many bytes of records lie between two entries of the offset index.",
        set: |config, value| value.number(0, i32::MAX as u64).map(|n| config.index_interval_bytes = n),
    },
    ConfigDef {
        name: "max.message.bytes",
        node_name: Some("message.max.bytes"),
        kind: ConfigType::Int,
        default: "1048588",
        doc: "Largest record batch that is accepted, compressed as it was sent.",
        set: |config, value| value.number(1, i32::MAX as u64).map(|n| config.max_message_bytes = n),
    },
    ConfigDef {
        name: "message.timestamp.after.max.ms",
        node_name: Some("log.message.timestamp.after.max.ms"),
        kind: ConfigType::Long,
        default: "3600000",
        doc: "Records whose timestamps lie further ahead of the node's clock are refused; for CreateTime only.",
        set: |config, value| value.number(0, i64::MAX as u64).map(|n| config.timestamp_after_max_ms = n),
    },
    ConfigDef {
        name: "message.timestamp.before.max.ms",
        node_name: Some("log.message.timestamp.before.max.ms"),
        kind: ConfigType::Long,
        default: "9223372036854775807",
        doc: "Records whose timestamps lie further behind the node's clock are refused; for CreateTime only.",
        set: |config, value| value.number(0, i64::MAX as u64).map(|n| config.timestamp_before_max_ms = n),
    },
    ConfigDef {
        name: "message.timestamp.type",
        node_name: Some("log.message.timestamp.type"),
        kind: ConfigType::String,
        default: "CreateTime",
        doc: "Whose clock stamps the records: the producer's (`CreateTime`) or the node's (`LogAppendTime`).",
        set: |config, value| {
            let choices = [("CreateTime", TimestampType::CreateTime), ("LogAppendTime", TimestampType::LogAppendTime)];
            config.timestamp_type = value.choice(&choices)?;
            Ok(())
        },
    },
    ConfigDef {
        name: "min.insync.replicas",
        node_name: Some("min.insync.replicas"),
        kind: ConfigType::Int,
        default: "1",
        doc: "With fewer replicas in sync than this, acks=all is refused.",
        set: |config, value| value.number(1, i32::MAX as u64).map(|n| config.min_insync_replicas = n as i32),
    },
    ConfigDef {
        name: "preallocate",
        node_name: Some("log.preallocate"),
        kind: ConfigType::Boolean,
        default: "true",
        doc: "Whether disk space is reserved ahead of the log end. Files never grow by it.",
        set: |config, value| value.boolean().map(|is| config.preallocate = is),
    },
    ConfigDef {
        name: "retention.bytes",
        node_name: Some("log.retention.bytes"),
        kind: ConfigType::Long,
        default: "-1",
        doc: "Oldest segments of a partition are deleted while the rest still holds so many bytes; -1 for no limit.",
        set: |config, value| value.unlimited().map(|n| config.retention_bytes = n),
    },
    ConfigDef {
        name: "retention.ms",
        node_name: Some("log.retention.ms"),
        kind: ConfigType::Long,
        default: "604800000",
        doc: "Segments whose newest record is older are deleted; -1 keeps records for ever.",
        set: |config, value| value.unlimited().map(|n| config.retention_ms = n),
    },
    ConfigDef {
        name: "segment.bytes",
        node_name: Some("log.segment.bytes"),
        kind: ConfigType::Int,
        default: "268435456",
        doc: "A segment that would grow beyond this rolls.",
        set: |config, value| value.number(super::MIN_SEGMENT_BYTES, i32::MAX as u64).map(|n| config.segment_bytes = n),
    },
    ConfigDef {
        name: "segment.index.bytes",
        node_name: Some("log.index.size.max.bytes"),
        kind: ConfigType::Int,
        default: "10485760",
        doc: "A segment one of whose indexes has reached this size rolls.",
        set: |config, value| value.number(4, i32::MAX as u64).map(|n| config.segment_index_bytes = n),
    },
    ConfigDef {
        name: "segment.jitter.ms",
        node_name: Some("log.roll.jitter.ms"),
        kind: ConfigType::Long,
        default: "0",
        doc: "Segments roll up to so much before `segment.ms`, each partition at its own time.",
        set: |config, value| value.number(0, i64::MAX as u64).map(|n| config.segment_jitter_ms = n),
    },
    ConfigDef {
        name: "segment.ms",
        node_name: Some("log.roll.ms"),
        kind: ConfigType::Long,
        default: "604800000",
        doc: "A segment whose first append is older rolls, so that retention can take it.",
        set: |config, value| value.number(1, i64::MAX as u64).map(|n| config.segment_ms = n),
    },
    ConfigDef {
        name: "unclean.leader.election.enable",
        node_name: Some("unclean.leader.election.enable"),
        kind: ConfigType::Boolean,
        default: "false",
        doc: "Whether a replica that lags may become leader and lose records: it may not.",
        set: |_, value| match value.boolean()? {
            true => Err(value.says("an unclean leader is not supported yet, use `false`")),
            false => Ok(()),
        },
    },
];

const COMPACTION: &str = "compaction is not supported yet";
const TIERED: &str = "tiered storage is not supported yet";
const REPLICATION: &str = "replication is not supported yet";

/// Kafka's other topic configs, and why they are refused: known, so that they are not taken for typing errors.
pub(super) const UNSUPPORTED: &[(&str, &str)] = &[
    ("compression.lz4.level", "lz4 has one level here"),
    ("delete.retention.ms", COMPACTION),
    ("file.delete.delay.ms", "deleted segments are removed at once, readers under way keep them"),
    ("follower.replication.throttled.replicas", REPLICATION),
    ("leader.replication.throttled.replicas", REPLICATION),
    ("local.retention.bytes", TIERED),
    ("local.retention.ms", TIERED),
    ("max.compaction.lag.ms", COMPACTION),
    ("message.downconversion.enable", "old message formats are not supported, as in Kafka 4"),
    ("message.format.version", "old message formats are not supported, as in Kafka 4"),
    ("message.timestamp.difference.max.ms", "use message.timestamp.before.max.ms and message.timestamp.after.max.ms"),
    ("min.cleanable.dirty.ratio", COMPACTION),
    ("min.compaction.lag.ms", COMPACTION),
    ("remote.log.copy.disable", TIERED),
    ("remote.log.delete.on.disable", TIERED),
    ("remote.storage.enable", TIERED),
];

/// The text that a config is set to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Value<'a> {
    pub(super) name: &'static str,
    pub(super) text: &'a str,
    /// Whether the topic is the broker's own.
    pub(super) internal: bool,
}

impl Value<'_> {
    fn says(&self, what: &str) -> String {
        format!("config `{}`: {what}", self.name)
    }

    fn must_be(&self, what: &str) -> String {
        format!("config `{}` is `{}`, it must be {what}", self.name, self.text)
    }

    fn number(&self, min: u64, max: u64) -> Result<u64, String> {
        match self.text.parse::<u64>() {
            Ok(number) if (min..=max).contains(&number) => Ok(number),
            _ => Err(self.must_be(&format!("a number from {min} to {max}"))),
        }
    }

    fn integer(&self, min: i32, max: i32) -> Result<i32, String> {
        match self.text.parse::<i32>() {
            Ok(number) if (min..=max).contains(&number) => Ok(number),
            _ => Err(self.must_be(&format!("a number from {min} to {max}"))),
        }
    }

    /// A number where -1 means no limit.
    fn unlimited(&self) -> Result<Option<u64>, String> {
        match self.text.parse::<i64>() {
            Ok(-1) => Ok(None),
            Ok(number) if number >= 0 => Ok(Some(number.unsigned_abs())),
            _ => Err(self.must_be("-1 (no limit) or a number from 0 on")),
        }
    }

    fn boolean(&self) -> Result<bool, String> {
        self.choice(&[("true", true), ("false", false)])
    }

    fn choice<T: Copy>(&self, choices: &[(&str, T)]) -> Result<T, String> {
        let found = choices.iter().find(|(name, _)| *name == self.text);
        found.map(|(_, value)| *value).ok_or_else(|| {
            let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
            self.must_be(&format!("one of: {}", names.join(", ")))
        })
    }

    fn codec(&self) -> Result<Option<Compression>, String> {
        self.choice(&[
            ("producer", None),
            ("uncompressed", Some(Compression::None)),
            ("gzip", Some(Compression::Gzip)),
            ("snappy", Some(Compression::Snappy)),
            ("lz4", Some(Compression::Lz4)),
            ("zstd", Some(Compression::Zstd)),
        ])
    }

    fn cleanup_policy(&self) -> Result<(), String> {
        let policies: Vec<_> = self.text.split(',').map(str::trim).collect();
        if policies == ["delete"] || (self.internal && policies == ["compact"]) {
            return Ok(());
        }
        match policies.iter().all(|policy| ["compact", "delete"].contains(policy)) && policies.contains(&"compact") {
            true => Err(self.says("compaction is not supported yet, use `delete`")),
            false => self.choice(&[("delete", ())]),
        }
    }
}
