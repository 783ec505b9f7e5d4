//! `logmill group`: list, describe and delete consumer groups, and set their offsets.

use anyhow::{anyhow, bail};
use logmill_connectors::log::{Isolation, Log, OffsetAt, TopicPartition};
use logmill_pipelines::nearest;
use logmill_pipelines::terminal::escape_line;
use logmill_protocol::Offset;

use super::address::Address;
use super::consume::start;
use super::print;
use super::topic::find as find_topic;
use crate::remote_log::{Group, RemoteLog};

/// List, describe or delete consumer groups, or set their offsets.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List groups.
    List {
        /// Print JSON, one object a group.
        #[arg(long)]
        json: bool,
    },
    /// Show a group's members, and how far it has got.
    Describe {
        /// Its name.
        group: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Delete a group with its offsets. It must have no members.
    Delete {
        /// Its name.
        group: String,
    },
    /// Set where a group goes on in a topic. It must have no members.
    ResetOffsets {
        /// The group; one that does not exist is made.
        group: String,
        /// The topic.
        #[arg(long)]
        topic: String,
        /// Only this partition.
        #[arg(short, long)]
        partition: Option<i32>,
        /// earliest, latest, an offset, or a time such as 2026-01-31T12:00:00Z.
        #[arg(long)]
        to: String,
        /// Show what would be set, and set nothing.
        #[arg(long)]
        dry_run: bool,
    },
}

/// How far a group has got in a partition.
struct Progress {
    place: TopicPartition,
    committed: Offset,
    end: Offset,
}

impl Progress {
    fn lag(&self) -> i64 {
        (self.end.0 - self.committed.0).max(0)
    }
}

pub(super) async fn execute(command: Command, address: &Address) -> anyhow::Result<()> {
    let work = async |log: &RemoteLog| match command {
        Command::List { json } => list(log, json).await,
        Command::Describe { group, json } => describe(log, &group, json).await,
        Command::Delete { group } => {
            find(log, &group).await?;
            log.delete_group(&group).await?;
            print(&format!("deleted {group}\n"))
        }
        Command::ResetOffsets { group, topic, partition, to, dry_run } => {
            reset(log, &group, &topic, partition, &to, dry_run).await
        }
    };
    address.with_remote_log(work).await
}

/// A group that must be there; otherwise the message names the nearest.
async fn find(log: &RemoteLog, name: &str) -> anyhow::Result<Group> {
    if let Some(group) = log.group(name).await? {
        return Ok(group);
    }
    let groups = log.groups().await?;
    let hint = nearest(name, groups.iter().map(|group| group.name.as_str()));
    let hint = hint.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
    Err(anyhow!("group `{name}` does not exist{hint}"))
}

async fn list(log: &RemoteLog, json: bool) -> anyhow::Result<()> {
    let groups = log.groups().await?;
    let width = groups.iter().map(|group| group.name.len()).max().unwrap_or(0).max(5);
    if !json {
        print(&format!("{:width$}  state\n", "group"))?;
    }
    for group in groups {
        match json {
            true => print(&format!("{}\n", serde_json::json!({ "group": group.name, "state": group.state })))?,
            false => print(&format!("{:width$}  {}\n", escape_line(&group.name), group.state))?,
        }
    }
    Ok(())
}

async fn describe(log: &RemoteLog, name: &str, json: bool) -> anyhow::Result<()> {
    let group = find(log, name).await?;
    let mut offsets = Vec::new();
    for (place, committed) in log.all_committed(name).await? {
        let end = log.offset(&place, OffsetAt::Latest(Isolation::ReadUncommitted)).await?;
        offsets.push(Progress { place, committed, end });
    }
    match json {
        true => print(&format!("{}\n", to_json(&group, &offsets))),
        false => print(&to_text(&group, &offsets)),
    }
}

fn to_json(group: &Group, offsets: &[Progress]) -> serde_json::Value {
    let partition = |place: &TopicPartition| serde_json::json!({ "topic": place.topic, "partition": place.partition });
    let members = group.members.iter().map(|member| {
        serde_json::json!({
            "member": member.id, "instance": member.instance, "client": member.client, "host": member.host,
            "partitions": member.partitions.iter().map(partition).collect::<Vec<_>>(),
        })
    });
    let offsets = offsets.iter().map(|at| {
        serde_json::json!({
            "topic": at.place.topic, "partition": at.place.partition, "committed": at.committed.0,
            "log_end": at.end.0, "lag": at.lag(),
        })
    });
    serde_json::json!({
        "group": group.name, "state": group.state, "assignor": group.assignor,
        "members": members.collect::<Vec<_>>(), "offsets": offsets.collect::<Vec<_>>(),
    })
}

fn to_text(group: &Group, offsets: &[Progress]) -> String {
    let mut text = format!("group {}, state: {}", escape_line(&group.name), escape_line(&group.state));
    if !group.assignor.is_empty() {
        text.push_str(&format!(", assignor: {}", escape_line(&group.assignor)));
    }
    text.push('\n');
    for member in &group.members {
        let static_name = member.instance.as_ref().map(|name| format!(" ({})", escape_line(name))).unwrap_or_default();
        let places = member.partitions.iter().map(|place| format!("{}-{}", place.topic, place.partition));
        let places = places.collect::<Vec<_>>().join(", ");
        let (member, host) = (escape_line(&member.id), escape_line(&member.host));
        text.push_str(&format!("  member {member}{static_name} at {host}: {}\n", escape_line(&places)));
    }
    if !offsets.is_empty() {
        let width = offsets.iter().map(|at| at.place.topic.len()).max().unwrap_or(0).max(5);
        text.push_str(&format!("{:width$}  partition   committed     log end         lag\n", "topic"));
        for at in offsets {
            let (topic, partition) = (escape_line(&at.place.topic), at.place.partition);
            let (committed, end, lag) = (at.committed.0, at.end.0, at.lag());
            text.push_str(&format!("{topic:width$}  {partition:>9}  {committed:>10}  {end:>10}  {lag:>10}\n"));
        }
    }
    text
}

async fn reset(
    log: &RemoteLog,
    group: &str,
    topic: &str,
    partition: Option<i32>,
    to: &str,
    dry_run: bool,
) -> anyhow::Result<()> {
    let topic = find_topic(log, topic).await?;
    let partitions = match partition {
        None => 0..topic.partitions,
        Some(one) if (0..topic.partitions).contains(&one) => one..one + 1,
        Some(one) => bail!("topic `{}` has no partition {one}; it has {}", topic.name, topic.partitions),
    };
    let mut offsets = Vec::new();
    for partition in partitions {
        let place = TopicPartition { topic: topic.name.clone(), partition };
        let end = log.offset(&place, OffsetAt::Latest(Isolation::ReadUncommitted)).await?;
        let offset = start(log, &place, to).await?.min(end);
        offsets.push((place, offset));
    }
    if !dry_run {
        log.commit_offsets(group, &offsets).await?;
    }
    let verb = if dry_run { "would go on" } else { "goes on" };
    for (place, offset) in &offsets {
        print(&format!("{group} {verb} at {offset} in {}-{}\n", place.topic, place.partition))?;
    }
    Ok(())
}
