//! The metadata state machine: the same commands in the same order give the same state everywhere.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use crate::names::check_topic_name;

/// Most partitions one topic may have.
pub const MAX_PARTITIONS: i32 = 10_000;

/// A topic's identity: 32 hexadecimal digits, never used again for another topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TopicId(pub String);

impl TopicId {
    /// A new id. Drawn by the proposer, since the state machine knows no randomness.
    #[must_use]
    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4().simple().to_string())
    }

    /// The id as a number, as Kafka's protocol sends it.
    ///
    /// # Errors
    /// `Rejected::Invalid` if it is malformed, which no id of a topic is.
    pub fn uuid(&self) -> Result<uuid::Uuid, Rejected> {
        uuid::Uuid::try_parse(&self.0).map_err(|_| Rejected::Invalid(format!("topic id `{}` is malformed", self.0)))
    }

    pub(crate) fn is_valid(&self) -> bool {
        self.0.len() == 32 && self.0.bytes().all(|b| b.is_ascii_hexdigit())
    }
}

/// A topic as the metadata knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topic {
    /// Its identity.
    pub id: TopicId,
    /// How many partitions it has.
    pub partitions: i32,
    /// How many of them, from the first on, are known to have reached the disk: their loss is an error.
    pub ready_partitions: i32,
    /// Whether it is the broker's own.
    pub internal: bool,
    /// The configs that differ from their defaults.
    pub configs: BTreeMap<String, String>,
}

/// A change of the metadata. Stored as JSON: variants and fields may be added, never changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Command {
    /// Makes a topic.
    CreateTopic {
        /// Its name.
        name: String,
        /// Its identity.
        id: TopicId,
        /// How many partitions.
        partitions: i32,
        /// Whether it is the broker's own.
        internal: bool,
        /// Its configs, checked by the proposer.
        configs: BTreeMap<String, String>,
    },
    /// Says that a topic's first partitions have folders on disk.
    PartitionsReady {
        /// The topic.
        id: TopicId,
        /// How many.
        partitions: i32,
    },
    /// Adds partitions to a topic.
    CreatePartitions {
        /// The topic's name.
        name: String,
        /// How many it has then in all.
        partitions: i32,
    },
    /// Replaces a topic's configs.
    AlterConfigs {
        /// The topic's name.
        name: String,
        /// All configs that differ from their defaults from now on.
        configs: BTreeMap<String, String>,
    },
    /// Deletes a topic. Its files go later, until [`Command::TopicPurged`].
    DeleteTopic {
        /// Its name.
        name: String,
    },
    /// Says that a deleted topic's files are gone.
    TopicPurged {
        /// The topic that was.
        id: TopicId,
    },
    /// Hands out producer ids.
    AllocateProducerIds {
        /// How many.
        count: i64,
    },
}

/// What a command did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// The change, and nothing more to say.
    Done,
    /// Producer ids from `first` on, `count` of them, are the proposer's.
    ProducerIds {
        /// The first.
        first: i64,
        /// How many.
        count: i64,
    },
}

/// Why a command changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// No topic of the name.
    #[error("topic `{0}` does not exist")]
    UnknownTopic(String),
    /// The name is taken.
    #[error("topic `{0}` exists already")]
    TopicExists(String),
    /// The command makes no sense.
    #[error("{0}")]
    Invalid(String),
}

/// The state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Stored")]
pub struct Metadata {
    topics: BTreeMap<String, Topic>,
    /// Deleted topics whose files may still be there, with the name they had.
    deleted: BTreeMap<TopicId, String>,
    next_producer_id: i64,
    /// The names of the topics, by id.
    #[serde(skip)]
    names: HashMap<TopicId, String>,
}

/// The state as it is read from a snapshot.
#[derive(Deserialize)]
struct Stored {
    topics: BTreeMap<String, Topic>,
    deleted: BTreeMap<TopicId, String>,
    next_producer_id: i64,
}

impl From<Stored> for Metadata {
    fn from(stored: Stored) -> Self {
        let Stored { topics, deleted, next_producer_id } = stored;
        let names = topics.iter().map(|(name, topic)| (topic.id.clone(), name.clone())).collect();
        Self { topics, deleted, next_producer_id, names }
    }
}

impl Metadata {
    /// The topics by name.
    #[must_use]
    pub fn topics(&self) -> &BTreeMap<String, Topic> {
        &self.topics
    }

    /// One topic.
    #[must_use]
    pub fn topic(&self, name: &str) -> Option<&Topic> {
        self.topics.get(name)
    }

    /// Deleted topics whose files may still be there, with the name they had.
    #[must_use]
    pub fn deleted(&self) -> &BTreeMap<TopicId, String> {
        &self.deleted
    }

    /// The producer id that is handed out next; those before it have been, or never will be.
    #[must_use]
    pub fn next_producer_id(&self) -> i64 {
        self.next_producer_id
    }

    /// The name of the topic that has this id.
    #[must_use]
    pub fn name_of(&self, id: &TopicId) -> Option<&str> {
        self.names.get(id).map(String::as_str)
    }

    /// Checks that a command fits the state.
    ///
    /// # Errors
    /// Why it does not.
    pub fn check(&self, command: &Command) -> Result<(), Rejected> {
        match command {
            Command::CreateTopic { name, id, partitions, .. } => self.check_new(name, id, *partitions),
            Command::CreatePartitions { name, partitions } => {
                check_count(*partitions)?;
                let has = self.existing(name)?.partitions;
                if *partitions <= has {
                    let hint = "the number of partitions can only grow";
                    return Err(Rejected::Invalid(format!("topic `{name}` has {has} partitions already; {hint}")));
                }
                Ok(())
            }
            Command::AlterConfigs { name, .. } | Command::DeleteTopic { name } => self.existing(name).map(drop),
            Command::AllocateProducerIds { count } => {
                let next = self.next_producer_id.checked_add(*count).filter(|_| *count > 0);
                next.map(drop).ok_or_else(|| Rejected::Invalid(format!("cannot hand out {count} producer ids")))
            }
            // The topic may have been deleted meanwhile.
            Command::PartitionsReady { .. } | Command::TopicPurged { .. } => Ok(()),
        }
    }

    /// Applies a command.
    ///
    /// # Errors
    /// If the command does not fit the state, which is then unchanged.
    pub fn apply(&mut self, command: &Command) -> Result<Applied, Rejected> {
        self.check(command)?;
        match command {
            Command::CreateTopic { name, id, partitions, internal, configs } => {
                let (partitions, internal, configs) = (*partitions, *internal, configs.clone());
                let topic = Topic { id: id.clone(), partitions, ready_partitions: 0, internal, configs };
                self.topics.insert(name.clone(), topic);
                self.names.insert(id.clone(), name.clone());
            }
            Command::PartitionsReady { id, partitions } => {
                if let Some(topic) = self.names.get(id).and_then(|name| self.topics.get_mut(name)) {
                    topic.ready_partitions = topic.ready_partitions.max(*partitions).min(topic.partitions);
                }
            }
            Command::CreatePartitions { name, partitions } => self.topic_mut(name)?.partitions = *partitions,
            Command::AlterConfigs { name, configs } => self.topic_mut(name)?.configs.clone_from(configs),
            Command::DeleteTopic { name } => {
                let topic = self.topics.remove(name).ok_or_else(|| Rejected::UnknownTopic(name.clone()))?;
                self.names.remove(&topic.id);
                self.deleted.insert(topic.id, name.clone());
            }
            Command::TopicPurged { id } => {
                self.deleted.remove(id);
            }
            Command::AllocateProducerIds { count } => {
                let first = self.next_producer_id;
                self.next_producer_id = first.saturating_add(*count);
                return Ok(Applied::ProducerIds { first, count: *count });
            }
        }
        Ok(Applied::Done)
    }

    fn check_new(&self, name: &str, id: &TopicId, partitions: i32) -> Result<(), Rejected> {
        check_topic_name(name).map_err(|error| Rejected::Invalid(error.to_string()))?;
        check_count(partitions)?;
        if !id.is_valid() || self.deleted.contains_key(id) || self.names.contains_key(id) {
            return Err(Rejected::Invalid(format!("topic id `{}` is malformed or taken", id.0)));
        }
        match self.topics.contains_key(name) {
            true => Err(Rejected::TopicExists(name.to_owned())),
            false => Ok(()),
        }
    }

    fn existing(&self, name: &str) -> Result<&Topic, Rejected> {
        self.topics.get(name).ok_or_else(|| Rejected::UnknownTopic(name.to_owned()))
    }

    fn topic_mut(&mut self, name: &str) -> Result<&mut Topic, Rejected> {
        self.topics.get_mut(name).ok_or_else(|| Rejected::UnknownTopic(name.to_owned()))
    }
}

fn check_count(partitions: i32) -> Result<(), Rejected> {
    match partitions {
        1..=MAX_PARTITIONS => Ok(()),
        _ => Err(Rejected::Invalid(format!("{partitions} partitions: a topic has 1 to {MAX_PARTITIONS}"))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn id(n: u8) -> TopicId {
        TopicId(format!("{n:032x}"))
    }

    fn create(name: &str, n: u8, partitions: i32) -> Command {
        Command::CreateTopic { name: name.into(), id: id(n), partitions, internal: false, configs: BTreeMap::new() }
    }

    #[test]
    fn commands_that_do_not_fit_are_rejected() {
        let mut state = Metadata::default();
        state.apply(&create("a", 1, 2)).unwrap();
        let check = |command: Command, expected: &str| {
            let mut after = state.clone();
            assert_eq!(after.apply(&command).unwrap_err().to_string(), expected);
            assert_eq!(after, state, "a rejected command changes nothing");
        };
        check(create("a", 2, 1), "topic `a` exists already");
        check(create("b", 1, 1), &format!("topic id `{}` is malformed or taken", id(1).0));
        check(create("b", 2, 0), "0 partitions: a topic has 1 to 10000");
        check(create("b/c", 2, 1), "topic name `b/c` may only contain ASCII letters, digits, `.`, `_` and `-`");
        check(Command::DeleteTopic { name: "b".into() }, "topic `b` does not exist");
        check(
            Command::CreatePartitions { name: "a".into(), partitions: 2 },
            "topic `a` has 2 partitions already; the number of partitions can only grow",
        );
        check(Command::AllocateProducerIds { count: 0 }, "cannot hand out 0 producer ids");
    }

    #[test]
    fn a_deleted_topic_is_remembered_until_its_files_are_gone() {
        let mut state = Metadata::default();
        state.apply(&create("a", 1, 1)).unwrap();
        state.apply(&Command::DeleteTopic { name: "a".into() }).unwrap();
        assert!(state.topic("a").is_none());
        assert_eq!(state.deleted().get(&id(1)).map(String::as_str), Some("a"));
        state.apply(&create("a", 2, 1)).unwrap();
        state.apply(&Command::TopicPurged { id: id(1) }).unwrap();
        assert!(state.deleted().is_empty());
        assert!(state.topic("a").is_some());
    }

    #[test]
    fn commands_and_state_on_disk_are_read_for_ever() {
        let id = |n: u8| format!("{n:032x}");
        let commands = [
            format!(
                r#"{{"type":"create_topic","name":"a","id":"{}","partitions":2,"internal":false,"configs":{{"flush":"os"}}}}"#,
                id(1)
            ),
            format!(r#"{{"type":"partitions_ready","id":"{}","partitions":2}}"#, id(1)),
            r#"{"type":"create_partitions","name":"a","partitions":3}"#.to_owned(),
            r#"{"type":"alter_configs","name":"a","configs":{"retention.ms":"-1"}}"#.to_owned(),
            format!(
                r#"{{"type":"create_topic","name":"b","id":"{}","partitions":1,"internal":true,"configs":{{}}}}"#,
                id(2)
            ),
            r#"{"type":"delete_topic","name":"b"}"#.to_owned(),
            r#"{"type":"allocate_producer_ids","count":1000}"#.to_owned(),
        ];
        let mut state = Metadata::default();
        for json in &commands {
            let command: Command = serde_json::from_str(json).unwrap();
            assert_eq!(serde_json::to_string(&command).unwrap(), *json, "what is written is what is read");
            state.apply(&command).unwrap();
        }
        let golden = format!(
            r#"{{"topics":{{"a":{{"id":"{}","partitions":3,"ready_partitions":2,"internal":false,"configs":{{"retention.ms":"-1"}}}}}},"deleted":{{"{}":"b"}},"next_producer_id":1000}}"#,
            id(1),
            id(2)
        );
        assert_eq!(serde_json::to_string(&state).unwrap(), golden);
        assert_eq!(serde_json::from_str::<Metadata>(&golden).unwrap(), state);
        let purged = format!(r#"{{"type":"topic_purged","id":"{}"}}"#, id(2));
        state.apply(&serde_json::from_str(&purged).unwrap()).unwrap();
        assert!(state.deleted().is_empty());
    }

    fn command() -> impl Strategy<Value = Command> {
        let name = prop::sample::select(vec!["a", "b", "c", "bad name"]).prop_map(str::to_owned);
        prop_oneof![
            (name.clone(), 0..9u8, -1..5).prop_map(|(name, n, partitions)| create(&name, n, partitions)),
            (0..9u8, 0..9).prop_map(|(n, partitions)| Command::PartitionsReady { id: id(n), partitions }),
            (name.clone(), -1..9).prop_map(|(name, partitions)| Command::CreatePartitions { name, partitions }),
            name.prop_map(|name| Command::DeleteTopic { name }),
            (0..9u8).prop_map(|n| Command::TopicPurged { id: id(n) }),
            (-1..5i64).prop_map(|count| Command::AllocateProducerIds { count }),
        ]
    }

    proptest! {
        #[test]
        fn a_state_replayed_from_a_snapshot_and_the_rest_equals_the_original(
            commands in prop::collection::vec(command(), 0..40), cut in 0..40usize,
        ) {
            let mut whole = Metadata::default();
            let mut snapshot = None;
            let mut rest = Vec::new();
            for (i, command) in commands.iter().enumerate() {
                if i == cut.min(commands.len() - 1) {
                    snapshot = Some(serde_json::to_vec(&whole).unwrap());
                }
                if whole.apply(command).is_ok() && snapshot.is_some() {
                    rest.push(serde_json::to_vec(command).unwrap());
                }
            }
            let mut replayed: Metadata =
                snapshot.map_or_else(Metadata::default, |bytes| serde_json::from_slice(&bytes).unwrap());
            for command in rest {
                replayed.apply(&serde_json::from_slice(&command).unwrap()).unwrap();
            }
            prop_assert_eq!(replayed, whole);
        }

        #[test]
        fn producer_ids_are_handed_out_once(counts in prop::collection::vec(1..1000i64, 1..20)) {
            let mut state = Metadata::default();
            let mut next = 0;
            for count in counts {
                let applied = state.apply(&Command::AllocateProducerIds { count }).unwrap();
                prop_assert_eq!(applied, Applied::ProducerIds { first: next, count });
                next += count;
            }
        }
    }
}
