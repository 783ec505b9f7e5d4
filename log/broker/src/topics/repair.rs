//! Repairs a topic on its owner's request: readers skip lost records from then on.

use std::sync::Arc;

use logmill_protocol::Offset;
use logmill_storage::{Damage, PartitionLog};

use crate::data_dir::set_aside;
use crate::error::{BrokerError, Result};
use crate::offline::Slot;
use crate::partition::Partition;
use crate::topics::{OpenTopic, Topics};
use crate::types::{OfflinePartition, TopicPartition};

/// What a repair did with a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Repair {
    /// Every record batch is as it was written.
    Sound,
    /// A batch's header was damaged and is restored; no record is lost.
    Mended(Damage),
    /// Readers pass over these lost records from now on.
    Bridged(Damage),
    /// What kept the partition offline is gone.
    Reopened,
    /// The partition was lost and is created again, starting at this offset: the furthest that any group had committed.
    Recreated(Offset),
}

impl std::fmt::Display for Repair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sound => write!(f, "every record batch is sound"),
            Self::Mended(damage) => write!(f, "{damage}"),
            Self::Bridged(damage) => write!(f, "readers pass over lost records from now on: {damage}"),
            Self::Reopened => write!(f, "is served again"),
            Self::Recreated(offset) => write!(f, "was lost and is created again, empty, from offset {offset}"),
        }
    }
}

impl Topics {
    /// Verifies every batch of the topic, and gives up what is lost. `committed` says up to where groups have read a
    /// partition.
    pub(crate) fn repair(
        &self,
        name: &str,
        committed: impl Fn(&TopicPartition) -> Offset,
    ) -> Result<Vec<(TopicPartition, Repair)>> {
        let _changing = self.changing.lock();
        let open = self.topic(name)?;
        let mut partitions = Vec::with_capacity(open.partitions.len());
        let mut repairs = Vec::new();
        for slot in &open.partitions {
            let place = slot.name().clone();
            match slot {
                Slot::Online(partition) => {
                    let found = partition.stored(partition.log().find_damage())?;
                    let bridged = partition.stored(partition.log().bridge_damage())?;
                    let mended = found.into_iter().filter(Damage::is_mended).map(Repair::Mended);
                    let done: Vec<_> = mended.chain(bridged.into_iter().map(Repair::Bridged)).collect();
                    match done.is_empty() {
                        true => repairs.push((place, Repair::Sound)),
                        false => repairs.extend(done.into_iter().map(|repair| (place.clone(), repair))),
                    }
                    partition.wake();
                    partitions.push(slot.clone());
                }
                Slot::Offline(offline) => {
                    let (partition, repair) = self.restore(&open, offline, &committed)?;
                    repairs.push((place, repair));
                    partitions.push(Slot::Online(Arc::new(partition)));
                }
            }
        }
        let OpenTopic { id, internal, config, .. } = *open;
        self.open.write().insert(OpenTopic { name: open.name.clone(), id, internal, config, partitions });
        Ok(repairs)
    }

    /// Opens a partition that was offline, and if its folder is gone, begins it anew.
    fn restore(
        &self,
        topic: &OpenTopic,
        offline: &OfflinePartition,
        committed: &impl Fn(&TopicPartition) -> Offset,
    ) -> Result<(Partition, Repair)> {
        let (name, path) = (&offline.partition, &offline.path);
        let open = || {
            let dir = Arc::clone(&self.dir);
            Partition::open(name.clone(), path, &topic.config, &self.flusher, dir).map(|(partition, _)| partition)
        };
        if path.is_dir() {
            return Ok((open()?, Repair::Reopened));
        }
        for place in [Some(path.as_path()), path.parent()].into_iter().flatten() {
            if !place.is_dir() && place.symlink_metadata().is_ok() {
                set_aside(place, "it is no folder")?;
            }
        }
        let start = committed(name);
        PartitionLog::create_at(path, start).map_err(|error| BrokerError::storage(name, error))?;
        Ok((open()?, Repair::Recreated(start)))
    }
}
