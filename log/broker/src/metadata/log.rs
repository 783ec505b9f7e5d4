//! This node's metadata: the durable command log, replayed at start, and the snapshot that keeps the replay short.
//!
//! A command is durable before it is applied, so what anyone has seen of the metadata survives power loss. The exception
//! are notes, whose loss costs work but no truth.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::BytesMut;
use logmill_protocol::{BatchBuilder, BatchLimits, BatchOptions, LeaderEpoch, Offset, Timestamp, batches};
use logmill_storage::{LogConfig, PartitionLog, Recovery};
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};

use crate::data_dir::write_durably;
use crate::error::{BrokerError, Result};
use crate::metadata::{Applied, Command, Metadata, Rejected};
use crate::types::TopicPartition;

/// After this many commands a snapshot is written and the log is trimmed.
const COMMANDS_PER_SNAPSHOT: i64 = 1000;
/// Bytes read at once when the log is replayed.
const READ_BYTES: usize = 1 << 20;

/// The metadata and the log that feeds it. Every call may wait for the disk, except [`MetadataLog::current`].
pub(crate) struct MetadataLog {
    dir: PathBuf,
    /// Names the log in errors.
    name: TopicPartition,
    log: PartitionLog,
    /// Serialises proposals: the offset after the last command in the snapshot.
    writer: Mutex<Offset>,
    current: RwLock<Arc<Metadata>>,
}

#[derive(Serialize, Deserialize)]
struct Snapshot {
    /// The offset after the last command that the state holds.
    next_offset: i64,
    state: Metadata,
}

impl MetadataLog {
    /// Opens or makes the log in `dir` and replays it.
    pub(crate) fn open(dir: &Path) -> Result<(Self, Recovery)> {
        let name = TopicPartition::new("metadata", 0);
        std::fs::create_dir_all(dir).map_err(|e| BrokerError::io(format!("create {}", dir.display()), e))?;
        let config = LogConfig {
            segment_bytes: 16 << 20,
            retention: None,
            retention_bytes: None,
            preallocate: false,
            ..LogConfig::default()
        };
        let snapshot = read_snapshot(&dir.join("snapshot.json"))?;
        let (log, recovery) =
            PartitionLog::open(&dir.join("log"), config).map_err(|error| BrokerError::storage(&name, error))?;
        log.set_high_watermark(log.log_end());
        let replay_from = Offset(snapshot.next_offset);
        if replay_from > log.log_end() || log.log_start() > replay_from {
            let context = format!("the metadata in {} is incomplete", dir.display());
            let gap =
                format!("the snapshot ends at {replay_from}, the log holds {} to {}", log.log_start(), log.log_end());
            return Err(BrokerError::corrupt(context, gap));
        }
        let this = Self {
            dir: dir.to_owned(),
            name,
            log,
            writer: Mutex::new(replay_from),
            current: RwLock::new(Arc::new(snapshot.state)),
        };
        this.replay(replay_from)?;
        Ok((this, recovery))
    }

    /// The metadata as it is now.
    pub(crate) fn current(&self) -> Arc<Metadata> {
        Arc::clone(&self.current.read())
    }

    /// Makes a command durable and applies it.
    pub(crate) fn propose(&self, command: Command, now: Timestamp) -> Result<Applied> {
        self.propose_with(now, |_| Ok(vec![command]))
    }

    /// Makes the commands that `decide` draws from the metadata durable and applies them, all or none; no other
    /// proposal comes between. Returns what the last of them did.
    pub(crate) fn propose_with(
        &self,
        now: Timestamp,
        decide: impl FnOnce(&Metadata) -> Result<Vec<Command>>,
    ) -> Result<Applied> {
        let mut snapshot_end = self.writer.lock();
        let commands = decide(&self.current())?;
        self.check(&commands)?;
        self.append(&commands, now)?;
        self.stored(self.log.sync())?;
        let applied = self.apply(&commands)?;
        if self.log.log_end().0 - snapshot_end.0 >= COMMANDS_PER_SNAPSHOT {
            // The commands are done whatever becomes of the snapshot: without one the next start replays more.
            match self.snapshot() {
                Ok(end) => *snapshot_end = end,
                Err(error) => tracing::warn!(error = %error, "cannot write a metadata snapshot"),
            }
        }
        Ok(applied)
    }

    /// Applies commands that only note what may be found out again; they become durable with the next that is.
    pub(crate) fn note(&self, commands: &[Command], now: Timestamp) -> Result<()> {
        let _writer = self.writer.lock();
        self.check(commands)?;
        self.append(commands, now)?;
        self.apply(commands).map(drop)
    }

    /// Checks that all of the commands can be applied, one after another.
    fn check(&self, commands: &[Command]) -> Result<()> {
        let current = self.current();
        if let [command] = commands {
            return Ok(current.check(command)?);
        }
        let mut next = (*current).clone();
        commands.iter().try_for_each(|command| next.apply(command).map(drop))?;
        Ok(())
    }

    /// Applies commands that fit, in place unless someone holds the metadata as it was.
    fn apply(&self, commands: &[Command]) -> Result<Applied> {
        let mut current = self.current.write();
        let metadata = Arc::make_mut(&mut *current);
        let mut applied = Applied::Done;
        for command in commands {
            applied = metadata.apply(command)?;
        }
        Ok(applied)
    }

    /// Appends the commands. The caller holds the writer's lock.
    fn append(&self, commands: &[Command], now: Timestamp) -> Result<()> {
        let mut batch = BatchBuilder::new(BatchOptions::default());
        for command in commands {
            let json = serde_json::to_vec(command)
                .map_err(|error| BrokerError::corrupt("a metadata command cannot be encoded", error))?;
            batch.append(now, None, Some(&json), &[]).map_err(|error| BrokerError::batch(&self.name, &error))?;
        }
        if let Some(batch) = batch.finish() {
            self.stored(self.log.append(&mut BytesMut::from(batch), LeaderEpoch(0), now))?;
            self.log.set_high_watermark(self.log.log_end());
        }
        Ok(())
    }

    /// Makes everything durable and closes the log.
    pub(crate) fn close(&self) -> Result<()> {
        let _writer = self.writer.lock();
        self.stored(self.log.close())
    }

    fn snapshot(&self) -> Result<Offset> {
        let end = self.log.log_end();
        let snapshot = Snapshot { next_offset: end.0, state: (*self.current()).clone() };
        let json = serde_json::to_vec(&snapshot)
            .map_err(|error| BrokerError::corrupt("the metadata cannot be encoded", error))?;
        write_durably(&self.dir, "snapshot.json", &json)?;
        self.stored(self.log.delete_records_before(end))?;
        Ok(end)
    }

    fn replay(&self, from: Offset) -> Result<()> {
        let mut state = (*self.current()).clone();
        let mut next = from;
        let mut scratch = Vec::new();
        while next < self.log.log_end() {
            let read = self.stored(self.log.read(next, READ_BYTES, self.log.log_end()))?;
            for batch in batches(&read.bytes) {
                let batch = batch.map_err(|error| BrokerError::batch(&self.name, &error))?;
                let records = batch.records(&mut scratch, &BatchLimits::STORED);
                for record in records.map_err(|error| BrokerError::batch(&self.name, &error))? {
                    let record = record.map_err(|error| BrokerError::batch(&self.name, &error))?;
                    if record.offset < next {
                        continue;
                    }
                    let at = format!("the metadata command at offset {} cannot be read", record.offset);
                    let command: Command = serde_json::from_slice(record.value.unwrap_or_default())
                        .map_err(|error| BrokerError::corrupt(at.clone(), error))?;
                    state.apply(&command).map_err(|error| BrokerError::corrupt(at, error))?;
                }
            }
            if read.next_offset <= next {
                return Err(BrokerError::corrupt(
                    "the metadata log cannot be read to its end",
                    format!("stuck at {next}"),
                ));
            }
            next = read.next_offset;
        }
        *self.current.write() = Arc::new(state);
        Ok(())
    }

    fn stored<T>(&self, result: logmill_storage::Result<T>) -> Result<T> {
        result.map_err(|error| BrokerError::storage(&self.name, error))
    }
}

fn read_snapshot(path: &Path) -> Result<Snapshot> {
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
            BrokerError::corrupt(format!("the metadata snapshot {} is damaged", path.display()), error)
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Ok(Snapshot { next_offset: 0, state: Metadata::default() })
        }
        Err(error) => Err(BrokerError::io(format!("read {}", path.display()), error)),
    }
}

impl From<Rejected> for BrokerError {
    fn from(rejected: Rejected) -> Self {
        match rejected {
            Rejected::UnknownTopic(name) => Self::UnknownTopic(name),
            Rejected::TopicExists(name) => Self::TopicExists(name),
            Rejected::Invalid(message) => Self::Invalid(message),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const NOW: Timestamp = Timestamp(1);

    #[test]
    fn what_was_proposed_is_there_after_reopening_across_snapshots() {
        let dir = tempfile::tempdir().unwrap();
        let allocate = Command::AllocateProducerIds { count: 10 };
        let mut taken = 0;
        for _ in 0..3 {
            let (log, _) = MetadataLog::open(dir.path()).unwrap();
            for _ in 0..COMMANDS_PER_SNAPSHOT / 2 {
                let applied = log.propose(allocate.clone(), NOW).unwrap();
                assert_eq!(applied, Applied::ProducerIds { first: taken, count: 10 });
                taken += 10;
            }
        }
        assert!(dir.path().join("snapshot.json").exists());
        let (log, _) = MetadataLog::open(dir.path()).unwrap();
        assert!(log.log.log_start() > Offset(0), "the log was trimmed");
        assert_eq!(log.propose(allocate.clone(), NOW).unwrap(), Applied::ProducerIds { first: taken, count: 10 });
    }

    #[test]
    fn a_damaged_snapshot_is_an_error_not_a_fresh_start() {
        let dir = tempfile::tempdir().unwrap();
        drop(MetadataLog::open(dir.path()).unwrap());
        std::fs::write(dir.path().join("snapshot.json"), b"{").unwrap();
        let error = MetadataLog::open(dir.path()).err().unwrap().to_string();
        assert!(error.starts_with("the metadata snapshot ") && error.ends_with("is damaged"), "{error}");
    }
}
