//! Producing as fast as the server acknowledges: each producer is a thread with a client of its own.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use parking_lot::Mutex;
use rdkafka::client::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};

use super::figures::{Figures, Latencies};
use super::{CONNECT_TIMEOUT, MESSAGE_TIMEOUT_MS, ProducerArguments, TopicArguments};

/// Acknowledgements are looked at after so many records.
const POLL_EVERY: u64 = 256;

#[derive(Debug, clap::Args)]
pub(in crate::cli::bench) struct Arguments {
    #[command(flatten)]
    topic: TopicArguments,
    #[command(flatten)]
    producer: ProducerArguments,
    /// How many records, of all producers together.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    records: u64,
    /// How many producers, each with a connection of its own.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    producers: u32,
    /// At most so many records a second, of all producers together.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// How long records wait for others of their batch.
    #[arg(long, default_value_t = 5.0)]
    linger_ms: f64,
}

/// Counts acknowledgements and their latencies. Called back on the producer's own thread.
pub(super) struct Acknowledged {
    epoch: Instant,
    latencies: Mutex<Latencies>,
    count: AtomicU64,
    failed: Mutex<Option<KafkaError>>,
}

impl Acknowledged {
    pub(super) fn new(epoch: Instant) -> anyhow::Result<Self> {
        let latencies = Mutex::new(Latencies::new()?);
        Ok(Self { epoch, latencies, count: AtomicU64::new(0), failed: Mutex::new(None) })
    }

    /// An instant as microseconds since the epoch.
    fn micros(&self, instant: Instant) -> u64 {
        u64::try_from(instant.saturating_duration_since(self.epoch).as_micros()).unwrap_or(u64::MAX)
    }

    pub(super) fn check(&self) -> anyhow::Result<()> {
        match self.failed.lock().take() {
            Some(error) => Err(anyhow!(error).context("a record was not acknowledged")),
            None => Ok(()),
        }
    }
}

impl ClientContext for Acknowledged {}

impl ProducerContext for Acknowledged {
    /// When it was handed to the client, or due if there is a rate, in microseconds since the epoch.
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, sent_micros: usize) {
        match result {
            Ok(_) => {
                let now_micros = self.micros(Instant::now());
                self.latencies.lock().record(now_micros.saturating_sub(sent_micros as u64));
                self.count.fetch_add(1, Ordering::Relaxed);
            }
            Err((error, _)) => *self.failed.lock() = Some(error.clone()),
        }
    }
}

pub(super) fn measure(arguments: &Arguments, bootstrap: &str) -> anyhow::Result<Figures> {
    arguments.topic.prepare(bootstrap)?;
    let producers = u64::from(arguments.producers);
    let ready = Barrier::new(arguments.producers as usize);
    let results = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..producers)
            .map(|index| {
                let share = arguments.records / producers + u64::from(index < arguments.records % producers);
                let ready = &ready;
                scope.spawn(move || produce(arguments, bootstrap, share, ready))
            })
            .collect();
        let joined = threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| bail!("a producer panicked")));
        joined.collect::<anyhow::Result<Vec<_>>>()
    })?;
    let mut latencies = Latencies::new()?;
    for (_, own) in &results {
        latencies.add(own)?;
    }
    Ok(Figures {
        name: "produce",
        records: arguments.records,
        bytes: arguments.records * u64::from(arguments.producer.record_bytes),
        time: results.iter().map(|(time, _)| *time).max().unwrap_or_default(),
        latencies: Some(latencies),
    })
}

/// One producer's share: how long it took from the common start, and the latencies of its acknowledgements.
fn produce(
    arguments: &Arguments,
    bootstrap: &str,
    records: u64,
    ready: &Barrier,
) -> anyhow::Result<(Duration, Latencies)> {
    let connected = connect(arguments, bootstrap);
    ready.wait();
    let producer = connected?;
    let start = Instant::now();
    let pace = arguments.rate.map(|rate| f64::from(arguments.producers) / f64::from(rate));
    let mut value = vec![b'.'; arguments.producer.record_bytes as usize];
    for number in 0..records {
        // With a rate, latency counts from when a record was due: what waits behind a stuck server counts in full.
        let since = match pace {
            None => Instant::now(),
            Some(seconds) => start + Duration::from_secs_f64(seconds * number as f64),
        };
        wait_until(&producer, since);
        stamp(&mut value, number);
        send(&producer, &arguments.topic.topic, &value, since)?;
        if number.is_multiple_of(POLL_EVERY) {
            producer.poll(Duration::ZERO);
            producer.context().check()?;
        }
    }
    producer
        .flush(Duration::from_millis(u64::from(MESSAGE_TIMEOUT_MS)))
        .context("not all records were acknowledged")?;
    let time = start.elapsed();
    let context = producer.context();
    context.check()?;
    let acknowledged = context.count.load(Ordering::Relaxed);
    if acknowledged != records {
        bail!("{acknowledged} of {records} records were acknowledged");
    }
    let latencies = std::mem::replace(&mut *context.latencies.lock(), Latencies::new()?);
    Ok((time, latencies))
}

/// A client that has met the server.
fn connect(arguments: &Arguments, bootstrap: &str) -> anyhow::Result<BaseProducer<Acknowledged>> {
    let config = arguments.producer.client(bootstrap, arguments.linger_ms)?;
    let context = Acknowledged::new(Instant::now())?;
    let producer: BaseProducer<Acknowledged> =
        config.create_with_context(context).context("could not make a client")?;
    let topic = Some(arguments.topic.topic.as_str());
    producer.client().fetch_metadata(topic, CONNECT_TIMEOUT).with_context(|| format!("no answer from {bootstrap}"))?;
    Ok(producer)
}

/// Looks at acknowledgements until it is time for the next record.
pub(super) fn wait_until(producer: &BaseProducer<Acknowledged>, time: Instant) {
    while let Some(left) = time.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        producer.poll(Duration::ZERO);
        std::thread::sleep(left.min(Duration::from_millis(1)));
    }
}

/// Values differ, and compress as text does.
fn stamp(value: &mut [u8], number: u64) {
    for (byte, digit) in value.iter_mut().zip(format!("{number:016}").bytes()) {
        *byte = digit;
    }
}

/// Hands a record to the client, waiting while its queue is full. Its latency counts from `since`.
pub(super) fn send(
    producer: &BaseProducer<Acknowledged>,
    topic: &str,
    value: &[u8],
    since: Instant,
) -> anyhow::Result<()> {
    let sent_micros = usize::try_from(producer.context().micros(since)).unwrap_or(usize::MAX);
    let mut record = BaseRecord::<(), [u8], usize>::with_opaque_to(topic, sent_micros).payload(value);
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                record = back;
                producer.poll(Duration::from_millis(1));
                producer.context().check()?;
            }
            Err((error, _)) => return Err(anyhow!(error).context("could not produce")),
        }
    }
}
