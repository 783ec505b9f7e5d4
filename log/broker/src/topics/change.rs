//! Changes of topics, as clients ask for them: decided on the metadata, made durable, then carried out.

use std::collections::{BTreeMap, HashSet};

use logmill_protocol::Timestamp;

use crate::error::{BrokerError, Result};
use crate::metadata::{Command, Metadata, TopicId};
use crate::names::collide;
use crate::open_files;
use crate::topic_config::TopicConfig;
use crate::topics::{OnFailure, Opened, Topics, parse};
use crate::types::{ConfigChange, NewTopic};

/// A change of one topic's configs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Alteration {
    /// Some of them.
    Change(Vec<ConfigChange>),
    /// All of them: those that are not named return to their defaults.
    Replace(Vec<(String, String)>),
}

impl Topics {
    /// Makes topics: all of them, or none if one is refused.
    pub(crate) fn create(&self, topics: &[NewTopic], internal: bool, now: Timestamp) -> Result<()> {
        let commands = topics.iter().map(|topic| command(topic, internal)).collect::<Result<Vec<_>>>()?;
        let _changing = self.changing.lock();
        let metadata = self.metadata.current();
        topics.iter().try_for_each(|topic| check_collision(&metadata, &topic.name))?;
        drop(metadata);
        check_room(open_segments() + topics.iter().map(|topic| i64::from(topic.partitions)).sum::<i64>())?;
        self.make(commands, now)
    }

    /// Makes each of the topics that can be made, or with `validate_only` says only which can. All share their syncs.
    pub(crate) fn create_each(&self, topics: &[NewTopic], validate_only: bool, now: Timestamp) -> Vec<Result<()>> {
        let _changing = self.changing.lock();
        let current = self.metadata.current();
        // What the metadata would be with those that came before; a single one has none.
        let mut trial = (topics.len() > 1).then(|| (*current).clone());
        let mut commands = Vec::with_capacity(topics.len());
        let mut results: Vec<Result<()>> = Vec::with_capacity(topics.len());
        let mut segments = open_segments();
        for topic in topics {
            let fitting = command(topic, false).and_then(|command| {
                check_collision(trial.as_ref().unwrap_or(&current), &topic.name)?;
                check_room(segments + i64::from(topic.partitions))?;
                match &mut trial {
                    Some(trial) => trial.apply(&command).map(|_| ())?,
                    None => current.check(&command)?,
                }
                segments += i64::from(topic.partitions);
                Ok(command)
            });
            results.push(fitting.map(|command| commands.push(command)));
        }
        drop(current);
        if !validate_only && !commands.is_empty() {
            all_or_none(&mut results, self.make(commands, now));
        }
        results
    }

    /// Makes the topics of these commands. The caller holds the lock on changes.
    fn make(&self, commands: Vec<Command>, now: Timestamp) -> Result<()> {
        let named = |command: &Command| match command {
            Command::CreateTopic { name, .. } => Some(name.clone()),
            _ => None,
        };
        let names: Vec<_> = commands.iter().filter_map(named).collect();
        self.metadata.propose_with(now, |_| Ok(commands))?;
        let metadata = self.metadata.current();
        let made: Vec<_> = names.iter().filter_map(|name| Some((name, metadata.topic(name)?.clone()))).collect();
        drop(metadata);
        let made = made.iter().map(|(name, topic)| (*name, topic));
        let opened = self.open_topics(made, OnFailure::Stop, &mut Opened::default(), now);
        if opened.is_err() {
            // Most likely the disk is full. If not even this can be noted, maintenance makes the rest later.
            if let Err(error) = self.remove(&names, now) {
                tracing::warn!(topics = names.join(", "), %error, "topics are half made");
            }
        }
        opened
    }

    /// Deletes each of the topics that can be deleted. All share their syncs. `forget` is called with those that are; what it
    /// makes durable comes before another topic of the name can be created.
    pub(crate) fn delete_each(
        &self,
        names: &[String],
        now: Timestamp,
        forget: impl FnOnce(&[String]) -> Result<()>,
    ) -> Vec<Result<()>> {
        let _changing = self.changing.lock();
        let metadata = self.metadata.current();
        let (mut doomed, mut seen) = (Vec::with_capacity(names.len()), HashSet::new());
        let mut results: Vec<Result<()>> = names
            .iter()
            .map(|name| match metadata.topic(name) {
                None => Err(BrokerError::UnknownTopic(name.clone())),
                Some(topic) if topic.internal => {
                    Err(BrokerError::Invalid(format!("topic `{name}` is the broker's own and cannot be deleted")))
                }
                Some(_) if !seen.insert(name) => Err(BrokerError::UnknownTopic(name.clone())),
                Some(_) => {
                    doomed.push(name.clone());
                    Ok(())
                }
            })
            .collect();
        drop(metadata);
        if !doomed.is_empty() {
            let removed = self.remove(&doomed, now);
            let gone: Vec<_> = doomed.into_iter().filter(|name| self.describe(name).is_none()).collect();
            all_or_none(&mut results, removed.and(forget(&gone)));
        }
        results
    }

    fn remove(&self, names: &[String], now: Timestamp) -> Result<()> {
        let metadata = self.metadata.current();
        let gone: Vec<_> =
            names.iter().filter_map(|name| Some((name.clone(), metadata.topic(name)?.id.clone()))).collect();
        drop(metadata);
        let commands = names.iter().map(|name| Command::DeleteTopic { name: name.clone() }).collect();
        self.metadata.propose_with(now, |_| Ok(commands))?;
        for name in names {
            if let Some(open) = self.open.write().remove(name) {
                open.online().for_each(|partition| partition.mark_deleted());
            }
        }
        self.purge(gone.iter().map(|(name, id)| (name.as_str(), id)), now)
    }

    /// Adds partitions to a topic, up to `partitions` in all, or with `validate_only` says only whether it can be done.
    pub(crate) fn create_partitions(
        &self,
        name: &str,
        partitions: i32,
        validate_only: bool,
        now: Timestamp,
    ) -> Result<()> {
        let _changing = self.changing.lock();
        if self.metadata.current().topic(name).is_some_and(|topic| topic.internal) {
            let why = "what it holds is spread over the partitions it was made with";
            return Err(BrokerError::Invalid(format!("topic `{name}` is the broker's own and cannot grow: {why}")));
        }
        let has = self.open.read().by_name.get(name).map_or(0, |topic| topic.partitions.len() as i64);
        check_room(open_segments().saturating_add(i64::from(partitions) - has))?;
        let command = Command::CreatePartitions { name: name.to_owned(), partitions };
        if validate_only {
            return Ok(self.metadata.current().check(&command)?);
        }
        self.metadata.propose(command, now)?;
        self.reopen(name, now)
    }

    /// Changes configs of a topic: all of them, or none if one is refused.
    pub(crate) fn alter_configs(
        &self,
        name: &str,
        alteration: &Alteration,
        validate_only: bool,
        now: Timestamp,
    ) -> Result<()> {
        let _changing = self.changing.lock();
        let metadata = self.metadata.current();
        let topic = metadata.topic(name).ok_or_else(|| BrokerError::UnknownTopic(name.to_owned()))?;
        let configs = altered(&topic.configs, alteration)?;
        parse(&configs, topic.internal)?;
        if validate_only || configs == topic.configs {
            return Ok(());
        }
        drop(metadata);
        self.metadata.propose(Command::AlterConfigs { name: name.to_owned(), configs }, now)?;
        self.reopen(name, now)
    }
}

fn command(topic: &NewTopic, internal: bool) -> Result<Command> {
    let configs = topic.configs.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    TopicConfig::parse(configs, internal)?;
    let trimmed = |(name, value): &(String, String)| (name.clone(), value.trim().to_owned());
    let configs = topic.configs.iter().map(trimmed).collect();
    let (name, partitions, id) = (topic.name.clone(), topic.partitions, TopicId::random());
    Ok(Command::CreateTopic { name, id, partitions, internal, configs })
}

/// How many segments are open: one for each partition, at least.
fn open_segments() -> i64 {
    i64::try_from(logmill_storage::open_segments()).unwrap_or(i64::MAX)
}

/// Checks that so many segments can be kept open.
fn check_room(segments: i64) -> Result<()> {
    let Some((room, open_files)) = open_files::segments_at_most() else { return Ok(()) };
    match u64::try_from(segments).is_ok_and(|segments| segments > room) {
        true => Err(BrokerError::TooManySegments { segments, open_files }),
        false => Ok(()),
    }
}

/// Names that differ in `.` and `_` only would have the same metrics. Topics that are older than this rule stay.
fn check_collision(metadata: &Metadata, name: &str) -> Result<()> {
    if !name.contains(['.', '_']) {
        return Ok(());
    }
    let other = metadata.topics().keys().find(|other| other.as_str() != name && collide(other, name));
    other.map_or(Ok(()), |other| {
        let why = "names that differ in `.` and `_` only are not allowed";
        Err(BrokerError::TopicCollides(format!("topic name `{name}` collides with `{other}`: {why}")))
    })
}

fn altered(configs: &BTreeMap<String, String>, alteration: &Alteration) -> Result<BTreeMap<String, String>> {
    let changes = match alteration {
        Alteration::Replace(configs) => {
            return Ok(configs.iter().map(|(name, value)| (name.clone(), value.trim().to_owned())).collect());
        }
        Alteration::Change(changes) => changes,
    };
    let mut configs = configs.clone();
    for change in changes {
        match change {
            ConfigChange::Set(config, value) => {
                configs.insert(config.clone(), value.trim().to_owned());
            }
            ConfigChange::Reset(config) => {
                // Only what exists can be reset: a misspelt name must not pass for done.
                TopicConfig::check_name(config)?;
                configs.remove(config);
            }
            ConfigChange::Append(config, items) => {
                let mut list = list(&configs, config)?;
                for item in split(items) {
                    if !list.contains(&item) {
                        list.push(item);
                    }
                }
                configs.insert(config.clone(), list.join(","));
            }
            ConfigChange::Subtract(config, items) => {
                let mut list = list(&configs, config)?;
                list.retain(|item| !split(items).contains(item));
                configs.insert(config.clone(), list.join(","));
            }
        }
    }
    Ok(configs)
}

fn split(items: &str) -> Vec<String> {
    items.split(',').map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()).collect()
}

/// The items of a config that is a list.
fn list(configs: &BTreeMap<String, String>, name: &str) -> Result<Vec<String>> {
    TopicConfig::check_name(name)?;
    match crate::topic_config::find(name) {
        Some(config) if config.kind == crate::topic_config::ConfigType::List => {
            Ok(split(configs.get(name).map_or(config.default, String::as_str)))
        }
        _ => {
            Err(BrokerError::Invalid(format!("config `{name}` is no list: it can be set, not added to or taken from")))
        }
    }
}

/// What went well so far did so only if `done`.
fn all_or_none(results: &mut [Result<()>], done: Result<()>) {
    let Err(error) = done else { return };
    for result in results.iter_mut().filter(|result| result.is_ok()) {
        *result = Err(match &error {
            BrokerError::DiskFull(reason) => BrokerError::DiskFull(reason.clone()),
            BrokerError::Closed => BrokerError::Closed,
            other => BrokerError::corrupt(other.to_string(), "it was to be done with others"),
        });
    }
}
