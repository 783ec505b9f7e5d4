//! `logmill bench kafka`: one client, librdkafka, against any server that speaks Kafka, so that servers compare.
//!
//! ```text
//!   produce   threads ──▶ librdkafka ──▶ server ──ack──▶        throughput, and latency from send to acknowledgement
//!   consume   server ──▶ librdkafka ──▶ thread                  throughput
//!   latency   paced thread ──▶ server ──▶ consuming thread      latency from the instant a record was due
//! ```

mod consume;
mod figures;
mod latency;
mod produce;

use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use logmill_protocol::Compression;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::RDKafkaErrorCode;

use crate::cli::print;

/// How long a server may take to answer the first request.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A record that is not acknowledged after so long has failed.
const MESSAGE_TIMEOUT_MS: u32 = 60_000;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Produce records as fast as the server acknowledges them.
    Produce(produce::Arguments),
    /// Consume a topic from its beginning.
    Consume(consume::Arguments),
    /// Produce and consume at a fixed rate, and measure from when each record was due until it was consumed.
    Latency(latency::Arguments),
}

/// The topic to measure on, made if it is missing.
#[derive(Debug, clap::Args)]
struct TopicArguments {
    /// The topic; made if it is missing.
    #[arg(long, default_value = "bench")]
    topic: String,
    /// Partitions of the topic, if it is made.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(i32).range(1..=10_000))]
    partitions: i32,
    /// A config of the topic, if it is made; may be given several times.
    #[arg(long, value_name = "NAME=VALUE")]
    topic_config: Vec<String>,
}

/// How records are produced.
#[derive(Debug, clap::Args)]
struct ProducerArguments {
    /// The size of a value; values have no key.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(16..=1_000_000))]
    record_bytes: u32,
    /// 0, 1 or all.
    #[arg(long, default_value = "all", value_parser = ["0", "1", "all"])]
    acks: String,
    /// Number the records, so that a retry writes none twice.
    #[arg(long)]
    idempotent: bool,
    /// none, gzip, snappy, lz4 or zstd.
    #[arg(long, default_value = "none")]
    compression: Compression,
    /// The size of a batch, before compression.
    #[arg(long, default_value_t = 65_536, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    batch_bytes: u32,
}

impl ProducerArguments {
    fn client(&self, bootstrap: &str, linger_ms: f64) -> anyhow::Result<ClientConfig> {
        if self.idempotent && self.acks != "all" {
            bail!("--idempotent needs --acks all: without it the server does not say what is safe");
        }
        let mut config = client(bootstrap);
        config
            .set("acks", &self.acks)
            .set("enable.idempotence", self.idempotent.to_string())
            .set("compression.type", self.compression.to_string())
            .set("batch.size", self.batch_bytes.to_string())
            .set("batch.num.messages", "1000000")
            .set("linger.ms", linger_ms.to_string())
            .set("queue.buffering.max.kbytes", "131072")
            .set("queue.buffering.max.messages", "1000000")
            .set("message.timeout.ms", MESSAGE_TIMEOUT_MS.to_string());
        Ok(config)
    }
}

fn client(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("client.id", "logmill-bench").set("socket.nagle.disable", "true");
    config
}

pub(super) fn execute(command: &Command, bootstrap: &str, json: bool) -> anyhow::Result<()> {
    let figures = match command {
        Command::Produce(arguments) => produce::measure(arguments, bootstrap)?,
        Command::Consume(arguments) => consume::measure(arguments, bootstrap)?,
        Command::Latency(arguments) => latency::measure(arguments, bootstrap)?,
    };
    match json {
        true => print(&format!("{}\n", figures.json())),
        false => print(&figures.text()),
    }
}

impl TopicArguments {
    /// Makes the topic if it is missing, and returns its partitions.
    fn prepare(&self, bootstrap: &str) -> anyhow::Result<Vec<i32>> {
        let admin: AdminClient<DefaultClientContext> = client(bootstrap).create().context("could not make a client")?;
        if partitions(&admin, bootstrap, &self.topic)?.is_none() {
            let mut topic = NewTopic::new(&self.topic, self.partitions, TopicReplication::Fixed(1));
            for text in &self.topic_config {
                let (name, value) = text.split_once('=').with_context(|| format!("`{text}` is not NAME=VALUE"))?;
                topic = topic.set(name, value);
            }
            let options = AdminOptions::new().operation_timeout(Some(CONNECT_TIMEOUT));
            let made = futures::executor::block_on(admin.create_topics([&topic], &options))?;
            if let Some(Err((_, code))) = made.into_iter().next()
                && code != RDKafkaErrorCode::TopicAlreadyExists
            {
                bail!("could not make topic `{}`: {code}", self.topic);
            }
        }
        // A new topic is not known at once everywhere.
        for _ in 0..100 {
            match partitions(&admin, bootstrap, &self.topic)? {
                Some(found) if !found.is_empty() => return Ok(found),
                _ => std::thread::sleep(Duration::from_millis(50)),
            }
        }
        Err(anyhow!("topic `{}` was made, but has no partition that is led", self.topic))
    }
}

/// The partitions of a topic that have a leader; `None` if there is no such topic.
fn partitions(
    admin: &AdminClient<DefaultClientContext>,
    bootstrap: &str,
    name: &str,
) -> anyhow::Result<Option<Vec<i32>>> {
    let found = admin.inner().fetch_metadata(None, CONNECT_TIMEOUT);
    let found = found.with_context(|| format!("no server answers at {bootstrap}"))?;
    let topic = found.topics().iter().find(|topic| topic.name() == name);
    Ok(topic.map(|topic| topic.partitions().iter().filter(|p| p.leader() >= 0).map(|p| p.id()).collect()))
}
