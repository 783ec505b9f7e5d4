//! Topics that lie on the disk and that the metadata does not know, because a part of its log was damaged.
//!
//! A folder is made after its topic is durable in the metadata, and renamed before the metadata forgets it: so a folder
//! that the metadata does not know is a topic that it lost.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use logmill_protocol::Timestamp;

use crate::data_dir::MAX_NAME_IN_DIR;
use crate::error::{BrokerError, Result};
use crate::metadata::{Command, Metadata, TopicId};
use crate::names::is_internal;
use crate::partition::Partition;
use crate::producer_ids::BLOCK;
use crate::topics::Topics;

/// What marks the folder of a topic that was being deleted.
const DELETED: &str = ".deleted";

impl Topics {
    /// Brings topics that are on the disk back into the metadata. Returns whether there were any.
    pub(super) fn find_strays(&self, now: Timestamp) -> Result<bool> {
        let metadata = self.metadata.current();
        let mut commands = Vec::new();
        let mut trial = (*metadata).clone();
        for name in folders(&self.dir.topics())? {
            for command in self.commands_of(&metadata, &name)? {
                match trial.apply(&command) {
                    Ok(_) => commands.push(command),
                    Err(error) => tracing::error!(folder = name, %error, "a folder among the topics belongs to none"),
                }
            }
        }
        if commands.is_empty() {
            return Ok(false);
        }
        self.metadata.propose_with(now, |_| Ok(commands)).map(|_| true)
    }

    /// Skips every producer id that was handed out: by the `commands_lost` commands that are lost, up to `known`, and those
    /// that partitions have seen.
    pub(crate) fn skip_producer_ids(&self, commands_lost: i64, known: Option<i64>, now: Timestamp) -> Result<()> {
        let ids =
            |partition: &Arc<Partition>| partition.log().producer_states().last().map(|state| state.producer_id.0);
        let seen = self.partitions().iter().filter_map(ids).chain(known).max();
        let after = |id: i64| (id / BLOCK + 1).saturating_mul(BLOCK);
        let next = self.metadata.current().next_producer_id();
        let lost = next.saturating_add(commands_lost.saturating_mul(BLOCK));
        let count = seen.map_or(0, after).max(lost) - next;
        match count > 0 {
            true => self.metadata.propose(Command::AllocateProducerIds { count }, now).map(drop),
            false => Ok(()),
        }
    }

    /// What the metadata must be told of a folder among the topics.
    fn commands_of(&self, metadata: &Metadata, folder: &str) -> Result<Vec<Command>> {
        if let Some(id) = folder.strip_suffix(DELETED) {
            let id = TopicId(id.to_owned());
            let Some(name) = metadata.name_of(&id) else { return Ok(Vec::new()) };
            tracing::warn!(
                topic = name,
                "the metadata lost that the topic was being deleted; its deletion is completed"
            );
            return Ok(vec![Command::DeleteTopic { name: name.to_owned() }]);
        }
        let Some((name, id)) = folder.rsplit_once('-') else { return Ok(Vec::new()) };
        let id = TopicId(id.to_owned());
        if !id.is_valid() || metadata.name_of(&id).is_some() || metadata.deleted().contains_key(&id) {
            return Ok(Vec::new());
        }
        let partitions = folders(&self.dir.topics().join(folder))?;
        let partitions = partitions.iter().filter_map(|name| name.parse::<i32>().ok()).max();
        let Some(partitions) = partitions.and_then(|last| last.checked_add(1)) else { return Ok(Vec::new()) };
        let is_cut = name.len() == MAX_NAME_IN_DIR;
        tracing::error!(
            topic = name,
            partitions,
            name_may_be_cut = is_cut,
            "the metadata lost this topic; it is served again, and keeps its records until its configs are set"
        );
        let internal = is_internal(name);
        let configs = match internal {
            true => crate::broker::internal_configs(),
            // What its configs were is lost, and no record may be, by a retention that was not its own.
            false => vec![("retention.ms".to_owned(), "-1".to_owned())],
        };
        let configs: BTreeMap<_, _> = configs.into_iter().collect();
        let create = Command::CreateTopic { name: name.to_owned(), id: id.clone(), partitions, internal, configs };
        Ok(vec![create, Command::PartitionsReady { id, partitions }])
    }
}

/// The names of the folders in `path`, ascending.
fn folders(path: &Path) -> Result<Vec<String>> {
    let read = || -> std::io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(path)? {
            let entry = entry?;
            if entry.file_type()?.is_dir()
                && let Ok(name) = entry.file_name().into_string()
            {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    };
    read().map_err(|error| BrokerError::io(format!("list {}", path.display()), error))
}
