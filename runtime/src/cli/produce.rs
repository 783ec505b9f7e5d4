//! `logmill produce`: lines of a file or of stdin as records of a topic.

use std::fs::File;
use std::io::{BufRead, BufReader, stdin};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use logmill_connectors::log::{Log, TopicPartition};
use logmill_protocol::{BatchBuilder, BatchOptions, Compression, Timestamp, partition_for_key};
use serde::Deserialize;

use super::topic::find;
use super::with_log;

/// A batch is appended once it has about this many bytes, before compression.
const BATCH_BYTES: usize = 256 << 10;

/// Write lines of a file or of stdin to a topic.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The topic.
    topic: String,
    /// Read this file instead of stdin.
    #[arg(short, long)]
    file: Option<PathBuf>,
    /// The key stands before this text, the value behind it.
    #[arg(long, value_name = "TEXT", conflicts_with = "json_records")]
    key_separator: Option<String>,
    /// Every record has this key.
    #[arg(long, conflicts_with_all = ["key_separator", "json_records"])]
    key: Option<String>,
    /// A header of every record; may be given several times.
    #[arg(long = "header", value_name = "NAME=VALUE")]
    headers: Vec<String>,
    /// Write to this partition, not to the one that the key chooses.
    #[arg(short, long)]
    partition: Option<i32>,
    /// Each line is an object with `value` and, if wanted, `key`, `headers`, `timestamp` (ms) and `partition`. A value or
    /// key that is no text is written as JSON; null is null.
    #[arg(long)]
    json_records: bool,
    /// none, gzip, snappy, lz4 or zstd.
    #[arg(long, default_value = "lz4")]
    compression: Compression,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonRecord {
    #[serde(default)]
    key: serde_json::Value,
    value: serde_json::Value,
    #[serde(default)]
    headers: indexmap::IndexMap<String, Option<String>>,
    timestamp: Option<i64>,
    partition: Option<i32>,
}

/// A record with its place.
struct Record<'a> {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(&'a str, Option<&'a [u8]>)>,
    timestamp: Option<i64>,
    partition: Option<i32>,
}

pub(super) async fn execute(arguments: Arguments, data_dir: &Path) -> anyhow::Result<()> {
    with_log(data_dir, async |log| {
        let input: Box<dyn BufRead> = match &arguments.file {
            None => Box::new(stdin().lock()),
            Some(path) => {
                let file = File::open(path).with_context(|| format!("could not open `{}`", path.display()))?;
                Box::new(BufReader::new(file))
            }
        };
        let count = produce(&arguments, log, input).await?;
        eprintln!("wrote {count} records to {}", arguments.topic);
        Ok(())
    })
    .await
}

async fn produce(arguments: &Arguments, log: Arc<dyn Log>, mut input: impl BufRead) -> anyhow::Result<u64> {
    let partitions = find(&*log, &arguments.topic).await?.partitions;
    let builders = (0..partitions)
        .map(|_| BatchBuilder::new(BatchOptions { compression: arguments.compression, ..BatchOptions::default() }));
    let mut builders: Vec<BatchBuilder> = builders.collect();
    let (mut line, mut count, mut sticky) = (Vec::new(), 0_u64, 0);
    while input.read_until(b'\n', &mut line).context("could not read the input")? > 0 {
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        let json;
        let record = if arguments.json_records {
            json = serde_json::from_slice(text).with_context(|| format!("line {} is not a record", count + 1))?;
            from_json(&json)
        } else {
            from_line(arguments, text).with_context(|| format!("line {}", count + 1))?
        };
        let partition = record.partition.or(arguments.partition).unwrap_or(match &record.key {
            Some(key) => partition_for_key(key, partitions),
            None => sticky,
        });
        let Some(builder) = usize::try_from(partition).ok().and_then(|index| builders.get_mut(index)) else {
            bail!("topic `{}` has no partition {partition}; it has {partitions}", arguments.topic);
        };
        let now = Timestamp(record.timestamp.unwrap_or_else(|| chrono::Utc::now().timestamp_millis()));
        builder.append(now, record.key.as_deref(), record.value.as_deref(), &record.headers)?;
        if builder.size_bytes() >= BATCH_BYTES {
            append(&*log, &arguments.topic, partition, builder).await?;
            sticky = (sticky + 1) % partitions.max(1);
        }
        count += 1;
        line.clear();
    }
    for (partition, builder) in (0..).zip(&mut builders) {
        append(&*log, &arguments.topic, partition, builder).await?;
    }
    Ok(count)
}

async fn append(log: &dyn Log, topic: &str, partition: i32, builder: &mut BatchBuilder) -> anyhow::Result<()> {
    if let Some(batch) = builder.finish() {
        log.produce(&TopicPartition { topic: topic.to_owned(), partition }, batch).await?;
    }
    Ok(())
}

fn from_line<'a>(arguments: &'a Arguments, text: &[u8]) -> anyhow::Result<Record<'a>> {
    let (key, value) = match &arguments.key_separator {
        None => (arguments.key.clone().map(String::into_bytes), text.to_vec()),
        Some(separator) if separator.is_empty() => bail!("the key separator is empty"),
        Some(separator) => {
            let at = text.windows(separator.len()).position(|window| window == separator.as_bytes());
            let at = at.with_context(|| format!("there is no `{separator}` between key and value"))?;
            let (key, rest) = text.split_at(at);
            (Some(key.to_vec()), rest.get(separator.len()..).unwrap_or_default().to_vec())
        }
    };
    let header = |text: &'a String| {
        let (name, value) = text.split_once('=').with_context(|| format!("header `{text}` is not NAME=VALUE"))?;
        Ok((name, Some(value.as_bytes())))
    };
    let headers = arguments.headers.iter().map(header).collect::<anyhow::Result<_>>()?;
    Ok(Record { key, value: Some(value), headers, timestamp: None, partition: None })
}

fn from_json(json: &JsonRecord) -> Record<'_> {
    let bytes = |value: &serde_json::Value| match value {
        serde_json::Value::Null => None,
        serde_json::Value::String(text) => Some(text.clone().into_bytes()),
        other => Some(other.to_string().into_bytes()),
    };
    let headers = json.headers.iter().map(|(name, value)| (name.as_str(), value.as_ref().map(String::as_bytes)));
    Record {
        key: bytes(&json.key),
        value: bytes(&json.value),
        headers: headers.collect(),
        timestamp: json.timestamp,
        partition: json.partition,
    }
}
