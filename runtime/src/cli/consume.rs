//! `logmill consume`: the records of a topic, printed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::{Context, bail};
use logmill_connectors::log::{Isolation, Log, OffsetAt, TopicPartition};
use logmill_connectors::source::{ChunkData, Reader, Records, Source};
use logmill_connectors::topic as topic_source;
use logmill_pipelines::flow::{Position, SplitId};
use logmill_protocol::{Offset, Timestamp};
use tokio::sync::{mpsc, watch};

use super::address::Address;
use super::print;
use super::topic::find;

/// Print the records of a topic, by default from its beginning to its end.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The topic.
    topic: String,
    /// earliest, latest, an offset, or a time such as 2026-01-31T12:00:00Z.
    #[arg(long, default_value = "earliest")]
    from: String,
    /// Only this partition.
    #[arg(short, long)]
    partition: Option<i32>,
    /// Stop after this many records.
    #[arg(short = 'n', long, value_name = "N")]
    max: Option<u64>,
    /// Wait for more at the end.
    #[arg(short, long)]
    follow: bool,
    /// Go on where this group has got to, and commit what was printed.
    #[arg(short, long)]
    group: Option<String>,
    /// What to print of a record.
    #[arg(long, value_enum, default_value_t = Format::Value)]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// The value.
    Value,
    /// Key, tab, value.
    KeyValue,
    /// A JSON object with topic, partition, offset, timestamp, key, value and headers.
    Json,
}

pub(super) async fn execute(arguments: Arguments, address: &Address) -> anyhow::Result<()> {
    address.with_log(async |log| consume(&arguments, log).await).await
}

async fn consume(arguments: &Arguments, log: Arc<dyn Log>) -> anyhow::Result<()> {
    let topic = find(&*log, &arguments.topic).await?;
    let partitions: Vec<i32> = match arguments.partition {
        None => (0..topic.partitions).collect(),
        Some(partition) if (0..topic.partitions).contains(&partition) => vec![partition],
        Some(partition) => bail!("topic `{}` has no partition {partition}; it has {}", topic.name, topic.partitions),
    };
    let places: Vec<TopicPartition> = partitions
        .iter()
        .map(|partition| TopicPartition { topic: topic.name.clone(), partition: *partition })
        .collect();
    let committed: BTreeMap<i32, Offset> = match &arguments.group {
        None => BTreeMap::new(),
        Some(group) => {
            let found = log.committed_offsets(group, &places).await?;
            found.into_iter().map(|(place, offset)| (place.partition, offset)).collect()
        }
    };
    let (mut starts, mut ends) = (BTreeMap::new(), BTreeMap::new());
    for place in &places {
        let start = match committed.get(&place.partition) {
            Some(offset) => *offset,
            None => start(&*log, place, &arguments.from).await?,
        };
        starts.insert(place.partition, start);
        ends.insert(place.partition, log.offset(place, OffsetAt::Latest(Isolation::ReadCommitted)).await?.0);
    }
    let ends = (!arguments.follow).then_some(ends);
    let (_keep, told) = watch::channel(ends);
    let source = topic_source::bounded_source(log.clone(), &topic.name, told);
    let mut printed = print_all(arguments, &source, &starts).await?;
    if let Some(group) = &arguments.group {
        printed.retain(|_, offset| offset.0 > 0);
        let place = |partition| TopicPartition { topic: topic.name.clone(), partition };
        let offsets: Vec<_> = printed.into_iter().map(|(partition, offset)| (place(partition), offset)).collect();
        log.commit_offsets(group, &offsets).await?;
    }
    Ok(())
}

pub(super) async fn start(log: &dyn Log, place: &TopicPartition, from: &str) -> anyhow::Result<Offset> {
    let at = match from {
        "earliest" => OffsetAt::Earliest,
        "latest" => OffsetAt::Latest(Isolation::ReadCommitted),
        other => {
            if let Ok(offset) = other.parse::<i64>() {
                let first = log.offset(place, OffsetAt::Earliest).await?;
                return Ok(Offset(offset.max(first.0)));
            }
            let time = chrono::DateTime::parse_from_rfc3339(other)
                .with_context(|| format!("`{other}` is not earliest, latest, an offset or a time"))?;
            OffsetAt::Time(Timestamp(time.timestamp_millis()))
        }
    };
    Ok(log.offset(place, at).await?)
}

/// Prints what the partitions hold, each in its order; returns where each has got to.
async fn print_all(
    arguments: &Arguments,
    source: &Arc<dyn Source>,
    starts: &BTreeMap<i32, Offset>,
) -> anyhow::Result<BTreeMap<i32, Offset>> {
    let (sender, mut chunks) = mpsc::channel(4);
    for split in source.discover(&BTreeSet::new()).await?.new {
        let Some((partition, offset)) = start_of(&split, starts) else { continue };
        let position = Position(serde_json::json!({ "offset": offset.0 }));
        let mut reader: Box<dyn Reader> = source.open(&split, Some(&position)).await?;
        let sender = sender.clone();
        tokio::spawn(async move {
            loop {
                let next = reader.next().await.transpose();
                let Some(next) = next else { return };
                if sender.send((partition, next)).await.is_err() {
                    return;
                }
            }
        });
    }
    drop(sender);
    let mut reached = starts.clone();
    let mut left = arguments.max.unwrap_or(u64::MAX);
    let stop = tokio::signal::ctrl_c();
    tokio::pin!(stop);
    while left > 0 {
        // What was printed is still committed to the group.
        let next = tokio::select! {
            next = chunks.recv() => next,
            _ = &mut stop => None,
        };
        let Some((partition, chunk)) = next else { break };
        let ChunkData::Records(records) = chunk?.data else { continue };
        let count = records.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let mut out = Vec::new();
        for index in 0..count {
            line(&mut out, arguments, partition, &records, index);
        }
        print(&String::from_utf8_lossy(&out))?;
        if let Some(last) = count.checked_sub(1).and_then(|last| records.offsets.get(last)) {
            reached.insert(partition, Offset(last + 1));
        }
        left -= count as u64;
    }
    Ok(reached)
}

fn start_of(split: &SplitId, starts: &BTreeMap<i32, Offset>) -> Option<(i32, Offset)> {
    let partition = split.as_str().parse().ok()?;
    Some((partition, *starts.get(&partition)?))
}

fn line(out: &mut Vec<u8>, arguments: &Arguments, partition: i32, records: &Records, index: usize) {
    let text = |bytes: Option<&[u8]>| bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    match arguments.format {
        Format::Value => out.extend_from_slice(records.value(index).unwrap_or_default()),
        Format::KeyValue => {
            out.extend_from_slice(records.key(index).unwrap_or_default());
            out.push(b'\t');
            out.extend_from_slice(records.value(index).unwrap_or_default());
        }
        Format::Json => {
            let slice = |range: &std::ops::Range<u32>| records.buffer.get(range.start as usize..range.end as usize);
            let headers = records.headers.get(index).into_iter().flatten();
            let header = |(name, value): &(_, Option<_>)| serde_json::json!({ "key": text(slice(name)), "value": text(value.as_ref().and_then(slice)) });
            let headers: Vec<_> = headers.map(header).collect();
            let record = serde_json::json!({
                "topic": arguments.topic,
                "partition": partition,
                "offset": records.offsets.get(index),
                "timestamp": records.timestamps.get(index),
                "key": text(records.key(index)),
                "value": text(records.value(index)),
                "headers": headers,
            });
            out.extend_from_slice(record.to_string().as_bytes());
        }
    }
    out.push(b'\n');
}
