//! Consuming a topic from its beginning: how fast a server hands out what it holds.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

use super::figures::Figures;
use super::{CONNECT_TIMEOUT, client};

/// A server that sends nothing for so long has nothing more.
const SILENCE: Duration = Duration::from_secs(30);

/// The ends of a partition are asked for so often while nobody leads it.
const MAX_ATTEMPTS: u32 = 50;

#[derive(Debug, clap::Args)]
pub(in crate::cli::bench) struct Arguments {
    /// The topic.
    #[arg(long, default_value = "bench")]
    topic: String,
    /// Stop after so many records; by default at the end of the topic.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    records: Option<u64>,
    /// Most bytes of one partition in an answer.
    #[arg(long, default_value_t = 1_048_576, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    fetch_bytes: u32,
}

/// A consumer without a group.
pub(super) fn consumer(bootstrap: &str) -> ClientConfig {
    let mut config = client(bootstrap);
    config
        .set("group.id", "logmill-bench")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("fetch.wait.max.ms", "100")
        .set("check.crcs", "false");
    config
}

/// The first offset of a partition and its end. A topic that has just been made may not be led everywhere yet.
pub(super) fn ends(consumer: &BaseConsumer, topic: &str, partition: i32) -> anyhow::Result<(i64, i64)> {
    use RDKafkaErrorCode::{LeaderNotAvailable, NotLeaderForPartition, UnknownTopicOrPartition};
    let mut attempt = 1;
    loop {
        let error = match consumer.fetch_watermarks(topic, partition, CONNECT_TIMEOUT) {
            Ok(ends) => return Ok(ends),
            Err(error) => error,
        };
        let code = error.rdkafka_error_code();
        let is_passing = [LeaderNotAvailable, NotLeaderForPartition, UnknownTopicOrPartition].map(Some).contains(&code);
        if !is_passing || attempt == MAX_ATTEMPTS {
            return Err(anyhow::Error::from(error).context(format!("could not find the ends of `{topic}`")));
        }
        attempt += 1;
        std::thread::sleep(Duration::from_millis(100));
    }
}

pub(super) fn measure(arguments: &Arguments, bootstrap: &str) -> anyhow::Result<Figures> {
    let mut config = consumer(bootstrap);
    config
        .set("max.partition.fetch.bytes", arguments.fetch_bytes.to_string())
        .set("queued.min.messages", "1000000")
        .set("queued.max.messages.kbytes", "65536");
    let consumer: BaseConsumer = config.create().context("could not make a client")?;
    let topic = arguments.topic.as_str();
    let found = consumer.fetch_metadata(Some(topic), CONNECT_TIMEOUT);
    let found = found.with_context(|| format!("no server answers at {bootstrap}"))?;
    let partitions = found.topics().first().map(|topic| topic.partitions()).unwrap_or_default();
    let (mut assignment, mut held) = (TopicPartitionList::new(), 0);
    for partition in partitions {
        let (start, end) = ends(&consumer, topic, partition.id())?;
        held += u64::try_from(end - start).unwrap_or_default();
        assignment.add_partition_offset(topic, partition.id(), Offset::Offset(start))?;
    }
    let wanted = arguments.records.unwrap_or(held);
    if wanted == 0 || wanted > held {
        bail!("topic `{topic}` holds {held} records; `logmill bench kafka produce` writes some");
    }
    consumer.assign(&assignment)?;
    let (mut records, mut bytes, start) = (0, 0, Instant::now());
    while records < wanted {
        match consumer.poll(SILENCE) {
            Some(Ok(message)) => {
                records += 1;
                bytes += message.payload_len() as u64;
            }
            Some(Err(error)) => return Err(anyhow::Error::from(error).context("could not consume")),
            None => bail!("nothing came for {} s after {records} records", SILENCE.as_secs()),
        }
    }
    Ok(Figures { name: "consume", records, bytes, time: start.elapsed(), latencies: None })
}
