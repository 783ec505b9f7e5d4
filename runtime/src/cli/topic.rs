//! `logmill topic`: create, list, describe, alter and delete topics.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use logmill_broker::{BrokerConfig, Damage};
use logmill_connectors::log::{ConfigChange, Isolation, Log, NewTopic, OffsetAt, TopicInfo, TopicPartition};
use logmill_pipelines::nearest;
use logmill_pipelines::terminal::escape_line;

use super::address::{Address, with_broker};
use super::print;
use crate::embedded_log::EmbeddedLog;

/// Create, list, describe, alter or delete topics.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Create a topic.
    Create {
        /// Its name.
        topic: String,
        /// How many partitions it has.
        #[arg(long, default_value_t = 1)]
        partitions: i32,
        /// A config by Kafka's name, such as retention.ms=86400000; may be given several times.
        #[arg(long = "config", value_name = "NAME=VALUE")]
        configs: Vec<String>,
    },
    /// List topics.
    List {
        /// Those that belong to the system as well.
        #[arg(long)]
        all: bool,
        /// Print JSON, one object a topic.
        #[arg(long)]
        json: bool,
    },
    /// Show a topic's partitions, offsets and configs.
    Describe {
        /// Its name.
        topic: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Give a topic more partitions, or other configs.
    Alter {
        /// Its name.
        topic: String,
        /// How many partitions it shall have in all.
        #[arg(long, required_unless_present = "configs")]
        partitions: Option<i32>,
        /// A config by Kafka's name, such as retention.ms=86400000, or retention.ms= for its default; may be given several
        /// times. All of them change, or none.
        #[arg(long = "config", value_name = "NAME=VALUE")]
        configs: Vec<String>,
    },
    /// Delete a topic and all its records.
    Delete {
        /// Its name.
        topic: String,
    },
    /// Verify every record of a topic of the data dir, and give up what is damaged: readers pass over lost records, and
    /// a partition whose folder is missing is created again. Damaged bytes are kept beside the log.
    Repair {
        /// Its name.
        topic: String,
    },
}

pub(super) async fn execute(command: Command, address: &Address) -> anyhow::Result<()> {
    let command = match (command, address) {
        (Command::Repair { topic }, Address::DataDir(data_dir)) => return repair(data_dir, &topic).await,
        (Command::Repair { .. }, Address::Bootstrap(_)) => {
            bail!("`logmill topic repair` works on a data dir: stop the node, and say --data-dir")
        }
        (Command::Describe { topic, json }, Address::DataDir(data_dir)) => {
            return with_broker(BrokerConfig::new(data_dir), async |broker| {
                let damaged = broker.damaged_partitions().await?;
                let of_topic = damaged.into_iter().filter(|damaged| damaged.partition.topic == topic);
                let damage = of_topic.map(|damaged| (damaged.partition.partition, damaged.damage)).collect();
                let log: Arc<dyn Log> = Arc::new(EmbeddedLog::new(broker));
                describe(&log, &topic, damage, json).await
            })
            .await;
        }
        (command, _) => command,
    };
    let work = async |log: Arc<dyn Log>| match command {
        Command::Create { topic, partitions, configs } => {
            let configs = configs.iter().map(|text| parse_config(text)).collect::<anyhow::Result<_>>()?;
            log.create_topic(NewTopic { name: topic.clone(), partitions, configs }).await?;
            print(&format!("created {topic}\n"))
        }
        Command::List { all, json } => list(&*log, all, json).await,
        Command::Describe { topic, json } => describe(&log, &topic, Vec::new(), json).await,
        Command::Alter { topic, partitions, configs } => alter(&*log, &topic, partitions, &configs).await,
        Command::Delete { topic } => {
            find(&*log, &topic).await?;
            log.delete_topic(&topic).await?;
            print(&format!("deleted {topic}\n"))
        }
        Command::Repair { .. } => Ok(()),
    };
    address.with_log(work).await
}

async fn alter(log: &dyn Log, topic: &str, partitions: Option<i32>, configs: &[String]) -> anyhow::Result<()> {
    find(log, topic).await?;
    if !configs.is_empty() {
        let change = |text: &String| {
            let (name, value) = parse_config(text)?;
            Ok(if value.is_empty() { ConfigChange::Reset(name) } else { ConfigChange::Set(name, value) })
        };
        let changes = configs.iter().map(change).collect::<anyhow::Result<Vec<_>>>()?;
        log.alter_configs(topic, &changes).await?;
        let now = find(log, topic).await?.configs;
        let now: Vec<_> = now.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let now = if now.is_empty() { "defaults only".to_owned() } else { now.join(", ") };
        print(&format!("{topic} has configs {now}\n"))?;
    }
    if let Some(partitions) = partitions {
        log.create_partitions(topic, partitions).await?;
        print(&format!("{topic} has {partitions} partitions\n"))?;
    }
    Ok(())
}

fn parse_config(text: &str) -> anyhow::Result<(String, String)> {
    let (name, value) = text.split_once('=').with_context(|| format!("`{text}` is not NAME=VALUE"))?;
    Ok((name.to_owned(), value.to_owned()))
}

/// A topic that must be there; otherwise the message names the nearest.
pub(super) async fn find(log: &dyn Log, name: &str) -> anyhow::Result<TopicInfo> {
    if let Some(topic) = log.topic(name).await? {
        return Ok(topic);
    }
    let topics = log.topics().await?;
    let hint = nearest(name, topics.iter().map(|topic| topic.name.as_str()));
    let hint = hint.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
    Err(anyhow!("topic `{name}` does not exist{hint}"))
}

/// First offset, end, and last stable offset of a partition.
async fn offsets(log: &dyn Log, topic: &TopicInfo, partition: i32) -> anyhow::Result<[i64; 3]> {
    let place = TopicPartition { topic: topic.name.clone(), partition };
    let at = async |at| Ok::<_, anyhow::Error>(log.offset(&place, at).await?.0);
    Ok([
        at(OffsetAt::Earliest).await?,
        at(OffsetAt::Latest(Isolation::ReadUncommitted)).await?,
        at(OffsetAt::Latest(Isolation::ReadCommitted)).await?,
    ])
}

async fn list(log: &dyn Log, all: bool, json: bool) -> anyhow::Result<()> {
    let topics: Vec<TopicInfo> = log.topics().await?.into_iter().filter(|topic| all || !is_hidden(topic)).collect();
    let width = topics.iter().map(|topic| topic.name.len()).max().unwrap_or(0).max(5);
    if !json {
        print(&format!("{:width$}  partitions  offsets\n", "topic"))?;
    }
    let mut failed = Vec::new();
    for topic in &topics {
        let (mut held, mut offline) = (0, Vec::new());
        for partition in 0..topic.partitions {
            match offsets(log, topic, partition).await {
                Ok([start, end, _]) => held += end - start,
                Err(error) => offline.push((partition, super::chain(&error))),
            }
        }
        if json {
            let mut row = serde_json::json!({ "topic": topic.name, "partitions": topic.partitions, "offsets": held });
            if !offline.is_empty() {
                let offline = offline.iter().map(|(p, why)| serde_json::json!({ "partition": p, "reason": why }));
                row["offline"] = offline.collect();
            }
            print(&format!("{row}\n"))?;
        } else {
            let note = if offline.is_empty() { String::new() } else { format!("  {} offline", offline.len()) };
            print(&format!("{:width$}  {:>10}  {held:>7}{note}\n", escape_line(&topic.name), topic.partitions))?;
            failed.extend(offline.into_iter().map(|(_, why)| why));
        }
    }
    failed.iter().try_for_each(|why| print(&format!("{why}\n")))
}

fn is_hidden(topic: &TopicInfo) -> bool {
    topic.internal || topic.name.starts_with("__")
}

async fn describe(log: &Arc<dyn Log>, name: &str, damage: Vec<(i32, Damage)>, json: bool) -> anyhow::Result<()> {
    let topic = find(&**log, name).await?;
    let mut partitions = Vec::new();
    for partition in 0..topic.partitions {
        partitions.push(offsets(&**log, &topic, partition).await.map_err(|error| super::chain(&error)));
    }
    if json {
        let lost = |partition: usize| {
            let of = damage.iter().filter(|(of, _)| usize::try_from(*of) == Ok(partition));
            let lost = of.map(|(_, damage)| {
                let (from, to) = (damage.from.0, damage.to.0);
                serde_json::json!({ "from": from, "to": to, "reason": damage.to_string() })
            });
            lost.collect::<Vec<_>>()
        };
        let partitions = partitions.iter().enumerate().map(|(partition, offsets)| {
            let mut row = match offsets {
                Ok([start, end, stable]) => serde_json::json!({
                    "partition": partition, "log_start": start, "high_watermark": end, "last_stable_offset": stable,
                }),
                Err(why) => serde_json::json!({ "partition": partition, "offline": why }),
            };
            let lost = lost(partition);
            if !lost.is_empty() {
                row["lost"] = lost.into();
            }
            row
        });
        let partitions = partitions.collect::<Vec<_>>();
        let configs: indexmap::IndexMap<_, _> = topic.configs.into_iter().collect();
        let row = serde_json::json!({ "topic": topic.name, "configs": configs, "partitions": partitions });
        return print(&format!("{row}\n"));
    }
    let mut text = format!("topic {}, partitions: {}\n", escape_line(&topic.name), topic.partitions);
    for (name, value) in &topic.configs {
        text.push_str(&format!("  {} = {}\n", escape_line(name), escape_line(value)));
    }
    text.push_str("partition   log start  high watermark  last stable\n");
    for (partition, offsets) in partitions.iter().enumerate() {
        text.push_str(&match offsets {
            Ok([start, end, stable]) => format!("{partition:>9}  {start:>10}  {end:>14}  {stable:>11}\n"),
            Err(why) => format!("{partition:>9}  {why}\n"),
        });
    }
    for (partition, damage) in &damage {
        text.push_str(&format!("partition {partition}: {damage}\n"));
    }
    // The progress of a pipeline is not given up: it would repeat or miss records.
    if !damage.is_empty() && (topic.internal || !is_hidden(&topic)) {
        text.push_str(&format!(
            "restore the files from a backup, or have `logmill topic repair {}` let readers pass over what is lost\n",
            topic.name
        ));
    }
    print(&text)
}

async fn repair(data_dir: &Path, topic: &str) -> anyhow::Result<()> {
    with_broker(BrokerConfig::new(data_dir), async |broker| {
        find(&EmbeddedLog::new(broker.clone()), topic).await?;
        for (place, repair) in broker.repair_topic(topic).await? {
            print(&format!("partition {}: {repair}\n", place.partition))?;
        }
        Ok(())
    })
    .await
}
