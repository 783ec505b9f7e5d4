//! `logmill bench`: how fast this machine lets Logmill be, each figure beside its limit, measured in the same run; and how
//! fast a server is for Kafka clients ([`kafka`]).
//!
//! Limits and measurements take turns, so that a busy machine slows all of them alike; the best round of each counts.
//! Everything happens in a folder of its own beside the data dir, on the same disk, and is deleted at the end.

mod consume;
mod kafka;
mod pipeline;
mod produce;
mod records;
mod report;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use logmill_broker::{Broker, BrokerConfig};
use logmill_connectors::log::{Log, NewTopic};
use tempfile::TempDir;

use self::report::Report;
use super::address::{Address, Said};
use super::print;
use crate::embedded_log::EmbeddedLog;
use crate::stderr;

/// Measure this machine: what Logmill does beside what the disk and the libraries could do.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: What,
    /// Print the figures as JSON.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Durable appends to a topic, beside writing and syncing the same bytes to a file.
    Produce(Rounds<records::Shape>),
    /// Reading a topic, beside reading its segment files.
    Consume(Rounds<records::Shape>),
    /// A file of JSON lines through a SQL filter into Parquet, beside DataFusion's batch query over the same file.
    Pipeline(Rounds<pipeline::Shape>),
    /// A server, by a Kafka client: Logmill or any other, named by --bootstrap.
    #[command(subcommand)]
    Kafka(kafka::Command),
}

/// What is measured, several times.
#[derive(Debug, clap::Args)]
struct Rounds<S: clap::Args> {
    #[command(flatten)]
    shape: S,
    /// How often each measurement is made; the best one counts.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
}

pub(super) async fn execute(arguments: Arguments, said: &Said) -> anyhow::Result<()> {
    let json = arguments.json;
    match arguments.what {
        What::Produce(it) => local(said, json, async |dir| produce::measure(&it.shape, it.rounds, dir).await).await,
        What::Consume(it) => local(said, json, async |dir| consume::measure(&it.shape, it.rounds, dir).await).await,
        What::Pipeline(it) => local(said, json, async |dir| pipeline::measure(&it.shape, it.rounds, dir).await).await,
        What::Kafka(command) => {
            let Address::Bootstrap(servers) = said.address()? else {
                bail!("which server shall be measured? say so with --bootstrap HOST:PORT")
            };
            warn_of_dev_build(json);
            tokio::task::block_in_place(|| kafka::execute(&command, &servers, json))
        }
    }
}

/// Measures in this process, in a folder that is gone afterwards.
async fn local(
    said: &Said,
    json: bool,
    measure: impl AsyncFnOnce(&Path) -> anyhow::Result<Report>,
) -> anyhow::Result<()> {
    // The folder goes away with this block, however it ends.
    let report = async {
        let scratch = scratch(&said.own_data_dir("bench")?)?;
        measure(scratch.path()).await
    };
    let report = tokio::select! {
        report = report => report?,
        _ = tokio::signal::ctrl_c() => bail!("interrupted; nothing was left behind"),
    };
    warn_of_dev_build(json);
    match json {
        true => print(&format!("{}\n", report.json())),
        false => print(&report.table()),
    }
}

fn warn_of_dev_build(json: bool) {
    if cfg!(debug_assertions) && !json {
        stderr::print_line(
            "warning: this is a dev build, which is many times slower: measure with `cargo run --release`",
        );
    }
}

/// A folder on the disk of the data dir.
fn scratch(data_dir: &Path) -> anyhow::Result<TempDir> {
    let beside: PathBuf = match data_dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let made = tempfile::Builder::new().prefix("logmill-bench-").tempdir_in(&beside);
    made.with_context(|| format!("could not make a folder in `{}`", beside.display()))
}

/// The topic that is measured.
const TOPIC: &str = "bench";

/// A new log with the topic.
async fn new_log(dir: &Path, partitions: i32) -> anyhow::Result<(Broker, Arc<dyn Log>)> {
    let (broker, _) = Broker::open(BrokerConfig::new(dir)).await?;
    let log: Arc<dyn Log> = Arc::new(EmbeddedLog::new(broker.clone()));
    log.create_topic(NewTopic { name: TOPIC.to_owned(), partitions, configs: Vec::new() }).await?;
    Ok((broker, log))
}

#[cfg(test)]
mod tests;
