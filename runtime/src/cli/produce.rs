//! `logmill produce`: lines of a file or of stdin as records of a topic.

use std::fs::File;
use std::io::{self, Read, stdin};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use logmill_connectors::log::{Log, TopicPartition};
use logmill_protocol::{BatchBuilder, BatchOptions, Compression, Timestamp, partition_for_key};
use serde::Deserialize;
use tokio::sync::mpsc;

use super::address::Address;
use super::topic::find;
use crate::stderr;

/// A batch is appended once it has about this many bytes, before compression.
const BATCH_BYTES: usize = 256 << 10;
/// Records wait no longer than this for others of their batch.
const LINGER: Duration = Duration::from_millis(50);
/// So much is read at a time.
const READ_BYTES: usize = 256 << 10;
/// So many reads are ahead of the writes.
const CHUNKS: usize = 4;
/// The longest line; no topic takes records as large.
const MAX_LINE_BYTES: usize = 64 << 20;

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

pub(super) async fn execute(arguments: Arguments, address: &Address) -> anyhow::Result<()> {
    address
        .with_log(async |log| {
            let lines = match &arguments.file {
                None => read_lines(stdin()),
                Some(path) => {
                    read_lines(File::open(path).with_context(|| format!("could not open `{}`", path.display()))?)
                }
            };
            let stop = tokio::signal::ctrl_c();
            let count = produce(&arguments, log, lines, stop).await?;
            stderr::print_line(&format!("wrote {count} records to {}", arguments.topic));
            Ok(())
        })
        .await
}

/// Reads whole lines, as many at a time as there are, on a thread of its own: reading from a terminal cannot be stopped.
fn read_lines(mut input: impl Read + Send + 'static) -> mpsc::Receiver<io::Result<Vec<u8>>> {
    let (sender, lines) = mpsc::channel(CHUNKS);
    std::thread::spawn(move || {
        let mut chunk = Vec::new();
        loop {
            let start = chunk.len();
            chunk.resize(start + READ_BYTES, 0);
            let count = match input.read(chunk.get_mut(start..).unwrap_or_default()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
                Ok(0) => {
                    chunk.truncate(start);
                    let _ = sender.blocking_send(Ok(chunk));
                    return;
                }
                Ok(count) => count,
                Err(error) => {
                    let _ = sender.blocking_send(Err(error));
                    return;
                }
            };
            chunk.truncate(start + count);
            let end = chunk.iter().skip(start).rposition(|byte| *byte == b'\n').map(|at| start + at + 1);
            let rest = end.map(|end| chunk.split_off(end));
            if let Some(rest) = rest {
                if sender.blocking_send(Ok(std::mem::replace(&mut chunk, rest))).is_err() {
                    return;
                }
            } else if chunk.len() > MAX_LINE_BYTES {
                let long = format!("a line is longer than {} MiB", MAX_LINE_BYTES >> 20);
                let _ = sender.blocking_send(Err(io::Error::other(long)));
                return;
            }
        }
    });
    lines
}

/// Writes lines until they end or `stop` comes. What has been read is in the topic once this returns, and soon after the
/// lines pause.
async fn produce<S>(
    arguments: &Arguments,
    log: Arc<dyn Log>,
    mut lines: mpsc::Receiver<io::Result<Vec<u8>>>,
    stop: impl Future<Output = S>,
) -> anyhow::Result<u64> {
    let partitions = find(&*log, &arguments.topic).await?.partitions;
    let options = BatchOptions { compression: arguments.compression, ..BatchOptions::default() };
    let builders = (0..partitions).map(|_| BatchBuilder::new(options)).collect();
    let mut writer = Writer { arguments, log, builders, sticky: 0, count: 0 };
    tokio::pin!(stop);
    loop {
        let pending = writer.builders.iter().any(|builder| !builder.is_empty());
        let chunk = tokio::select! {
            chunk = lines.recv() => chunk,
            () = tokio::time::sleep(LINGER), if pending => {
                writer.flush().await?;
                continue;
            }
            _ = &mut stop => None,
        };
        let Some(chunk) = chunk else { break };
        let chunk = chunk.context("could not read the input")?;
        for line in chunk.split_inclusive(|byte| *byte == b'\n') {
            let text = line.strip_suffix(b"\n").unwrap_or(line);
            writer.write(text.strip_suffix(b"\r").unwrap_or(text)).await?;
        }
    }
    writer.flush().await?;
    Ok(writer.count)
}

/// Collects records into a batch a partition.
struct Writer<'a> {
    arguments: &'a Arguments,
    log: Arc<dyn Log>,
    builders: Vec<BatchBuilder>,
    /// Where records without a key go until that partition's batch is full.
    sticky: i32,
    count: u64,
}

impl Writer<'_> {
    async fn write(&mut self, text: &[u8]) -> anyhow::Result<()> {
        let (arguments, partitions) = (self.arguments, self.builders.len() as i32);
        let json;
        let record = if arguments.json_records {
            json = serde_json::from_slice(text).with_context(|| format!("line {} is not a record", self.count + 1))?;
            from_json(&json)
        } else {
            from_line(arguments, text).with_context(|| format!("line {}", self.count + 1))?
        };
        let partition = record.partition.or(arguments.partition).unwrap_or(match &record.key {
            Some(key) => partition_for_key(key, partitions),
            None => self.sticky,
        });
        let Some(builder) = usize::try_from(partition).ok().and_then(|index| self.builders.get_mut(index)) else {
            bail!("topic `{}` has no partition {partition}; it has {partitions}", arguments.topic);
        };
        let now = Timestamp(record.timestamp.unwrap_or_else(|| chrono::Utc::now().timestamp_millis()));
        builder.append(now, record.key.as_deref(), record.value.as_deref(), &record.headers)?;
        if builder.size_bytes() >= BATCH_BYTES {
            append(&*self.log, &arguments.topic, partition, builder).await?;
            self.sticky = (self.sticky + 1) % partitions.max(1);
        }
        self.count += 1;
        Ok(())
    }

    async fn flush(&mut self) -> anyhow::Result<()> {
        for (partition, builder) in (0..).zip(&mut self.builders) {
            append(&*self.log, &self.arguments.topic, partition, builder).await?;
        }
        Ok(())
    }
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use clap::Parser;
    use logmill_connectors::conformance::memory_log::MemoryLog;
    use logmill_connectors::log::{Isolation, NewTopic, OffsetAt};

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    async fn log() -> Arc<dyn Log> {
        let log: Arc<dyn Log> = Arc::new(MemoryLog::default());
        log.create_topic(NewTopic { name: "t".into(), partitions: 1, configs: Vec::new() }).await.unwrap();
        log
    }

    async fn held(log: &dyn Log) -> i64 {
        let place = TopicPartition { topic: "t".into(), partition: 0 };
        log.offset(&place, OffsetAt::Latest(Isolation::ReadCommitted)).await.unwrap().0
    }

    fn check(input: &'static [u8], expected: &[&[u8]]) {
        // One byte at a time is the worst that a pipe can do.
        struct Slow(&'static [u8]);
        impl Read for Slow {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                let Some((first, rest)) = self.0.split_first() else { return Ok(0) };
                self.0 = rest;
                buffer[0] = *first;
                Ok(1)
            }
        }
        for chunks in [read_lines(input), read_lines(Slow(input))] {
            let mut chunks = chunks;
            let mut read = Vec::new();
            while let Some(chunk) = chunks.blocking_recv() {
                let chunk = chunk.unwrap();
                read.extend(chunk.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec));
            }
            assert_eq!(read, expected);
        }
    }

    #[test]
    fn lines_are_whole_however_they_arrive() {
        check(b"", &[]);
        check(b"a\nbc\n", &[b"a\n", b"bc\n"]);
        check(b"\n\na", &[b"\n", b"\n", b"a"]);
    }

    #[tokio::test]
    async fn records_are_in_the_topic_soon_after_the_lines_pause_and_when_stopped() {
        let log = log().await;
        let arguments = Line::try_parse_from(["produce", "t"]).unwrap().arguments;
        let (sender, lines) = mpsc::channel(4);
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let writing = tokio::spawn({
            let log = log.clone();
            async move { produce(&arguments, log, lines, stopped).await }
        });
        sender.send(Ok(b"one\ntwo\r\n".to_vec())).await.unwrap();
        // The input has not ended: it pauses.
        let place = TopicPartition { topic: "t".into(), partition: 0 };
        log.wait(&place, logmill_protocol::Offset(0), Isolation::ReadCommitted).await.unwrap();
        assert_eq!(held(&*log).await, 2);
        stop.send(()).unwrap();
        assert_eq!(writing.await.unwrap().unwrap(), 2);
    }

    #[tokio::test]
    async fn a_line_that_is_no_record_is_named() {
        let log = log().await;
        let arguments = Line::try_parse_from(["produce", "t", "--json-records"]).unwrap().arguments;
        let lines = read_lines(&b"{\"value\":1}\n{\"walue\":1}\n"[..]);
        let error = produce(&arguments, log, lines, std::future::pending::<()>()).await.unwrap_err();
        assert!(format!("{error:#}").contains("line 2 is not a record"), "{error:#}");
    }
}
