//! Latency from end to end at a fixed rate: from the instant a record was due until it was consumed.
//!
//! A record carries the instant at which it was *due*, not that at which it was sent: while a server (or the client) is
//! stuck, the records that pile up count with the whole time they were late. Nothing is omitted.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, Producer};
use rdkafka::{Offset, TopicPartitionList};

use super::consume::{consumer, ends as find_ends};
use super::figures::{Figures, Latencies};
use super::produce::{Acknowledged, send, wait_until};
use super::{CONNECT_TIMEOUT, MESSAGE_TIMEOUT_MS, ProducerArguments, TopicArguments};

/// A server that sends nothing for so long has lost what is missing.
const SILENCE: Duration = Duration::from_secs(30);

#[derive(Debug, clap::Args)]
pub(in crate::cli::bench) struct Arguments {
    #[command(flatten)]
    topic: TopicArguments,
    #[command(flatten)]
    producer: ProducerArguments,
    /// So many records a second.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// For so long.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Records of the first seconds are not counted.
    #[arg(long, default_value_t = 2)]
    warm_up_seconds: u32,
    /// How long records wait for others of their batch.
    #[arg(long, default_value_t = 1.0)]
    linger_ms: f64,
}

impl Arguments {
    /// Records that are not counted, and all.
    fn records(&self) -> (u64, u64) {
        let uncounted = u64::from(self.rate) * u64::from(self.warm_up_seconds);
        (uncounted, uncounted + u64::from(self.rate) * u64::from(self.seconds))
    }
}

pub(super) fn measure(arguments: &Arguments, bootstrap: &str) -> anyhow::Result<Figures> {
    let partitions = arguments.topic.prepare(bootstrap)?;
    let consumer: BaseConsumer = consumer(bootstrap).create().context("could not make a client")?;
    let mut ends = TopicPartitionList::new();
    for partition in partitions {
        let (_, end) = find_ends(&consumer, &arguments.topic.topic, partition)?;
        ends.add_partition_offset(&arguments.topic.topic, partition, Offset::Offset(end))?;
    }
    consumer.assign(&ends)?;
    let epoch = Instant::now();
    let (latencies, time) = std::thread::scope(|scope| {
        let producing = scope.spawn(|| produce(arguments, bootstrap, epoch));
        let consumed = consume(arguments, &consumer, epoch);
        let produced = producing.join().unwrap_or_else(|_| bail!("the producer panicked"));
        let time = produced?;
        Ok::<_, anyhow::Error>((consumed?, time))
    })?;
    let (uncounted, all) = arguments.records();
    let records = all - uncounted;
    let bytes = records * u64::from(arguments.producer.record_bytes);
    Ok(Figures { name: "latency", records, bytes, time, latencies: Some(latencies) })
}

/// Sends each record when it is due; how long the counted ones took.
fn produce(arguments: &Arguments, bootstrap: &str, epoch: Instant) -> anyhow::Result<Duration> {
    let config = arguments.producer.client(bootstrap, arguments.linger_ms)?;
    let producer: BaseProducer<Acknowledged> =
        config.create_with_context(Acknowledged::new(epoch)?).context("could not make a client")?;
    let topic = arguments.topic.topic.as_str();
    producer.client().fetch_metadata(Some(topic), CONNECT_TIMEOUT)?;
    let (uncounted, all) = arguments.records();
    let mut value = vec![b'.'; arguments.producer.record_bytes as usize];
    let (start, mut counted_from) = (Instant::now(), Instant::now());
    for number in 0..all {
        let due = start + Duration::from_secs_f64(number as f64 / f64::from(arguments.rate));
        wait_until(&producer, due);
        if number == uncounted {
            counted_from = Instant::now();
        }
        let due_micros = u64::try_from(due.saturating_duration_since(epoch).as_micros()).unwrap_or(u64::MAX);
        let stamps = due_micros.to_le_bytes().into_iter().chain(number.to_le_bytes());
        value.iter_mut().zip(stamps).for_each(|(byte, stamp)| *byte = stamp);
        send(&producer, topic, &value, due)?;
        producer.context().check()?;
    }
    producer
        .flush(Duration::from_millis(u64::from(MESSAGE_TIMEOUT_MS)))
        .context("not all records were acknowledged")?;
    producer.context().check()?;
    Ok(counted_from.elapsed())
}

/// Receives all records, and measures those that count.
fn consume(arguments: &Arguments, consumer: &BaseConsumer, epoch: Instant) -> anyhow::Result<Latencies> {
    let (uncounted, all) = arguments.records();
    let mut latencies = Latencies::new()?;
    for received in 0..all {
        match consumer.poll(SILENCE) {
            Some(Ok(message)) => {
                let now = u64::try_from(epoch.elapsed().as_micros()).unwrap_or(u64::MAX);
                let stamp = |at: usize| message.payload()?.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
                let (Some(due), Some(number)) = (stamp(0), stamp(8)) else { bail!("a record is not of this run") };
                if number >= uncounted {
                    latencies.record(now.saturating_sub(due));
                }
            }
            Some(Err(error)) => return Err(anyhow::Error::from(error).context("could not consume")),
            None => bail!("nothing came for {} s: {received} of {all} records arrived", SILENCE.as_secs()),
        }
    }
    Ok(latencies)
}
