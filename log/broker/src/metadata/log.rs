//! This node's metadata: the durable command log, replayed at start, and the snapshot that keeps the replay short.
//!
//! A command is durable before it is applied, so what anyone has seen of the metadata survives power loss. The exception
//! are notes, whose loss costs work but no truth.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::BytesMut;
use logmill_protocol::{BatchBuilder, BatchLimits, BatchOptions, LeaderEpoch, Offset, Timestamp, batches};
use logmill_storage::{LogConfig, PartitionLog, Recovery, StorageError};
use parking_lot::{Mutex, RwLock};

use crate::data_dir::set_aside;
use crate::error::{BrokerError, Result};
use crate::metadata::snapshot::{self, Snapshot};
use crate::metadata::{Applied, Command, Metadata, Rejected};
use crate::types::TopicPartition;

/// After this many commands a snapshot is written and the log is trimmed.
const COMMANDS_PER_SNAPSHOT: i64 = 1000;
/// Bytes read at once when the log is replayed.
const READ_BYTES: usize = 1 << 20;
/// The log's folder.
const LOG: &str = "log";

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

/// What opening the metadata found.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) recovery: Recovery,
    /// How many commands are lost that no snapshot holds.
    pub(crate) commands_lost: i64,
}

impl MetadataLog {
    /// Opens or creates the log in `dir` and replays it. Damaged commands are skipped and reported.
    pub(crate) fn open(dir: &Path) -> Result<(Self, Found)> {
        std::fs::create_dir_all(dir).map_err(|e| BrokerError::io(format!("create {}", dir.display()), e))?;
        let snapshot = snapshot::load(dir)?;
        let snapshot_end = Offset(snapshot.next_offset);
        let (mut log, mut recovery) = open_log(dir, snapshot_end)?;
        if log.log_end() < snapshot_end {
            // The snapshot holds all that it said.
            drop(log);
            set_aside(&dir.join(LOG), "it ends below the snapshot")?;
            (log, recovery) = open_log(dir, snapshot_end)?;
        }
        let this = Self {
            dir: dir.to_owned(),
            name: TopicPartition::new("metadata", 0),
            log,
            writer: Mutex::new(snapshot_end),
            current: RwLock::new(Arc::new(snapshot.state)),
        };
        // A flipped bit in what is trusted must not be taken for a command.
        recovery.damage.extend(this.stored(this.log.find_damage())?);
        this.log.set_high_watermark(this.log.log_end());
        let commands_lost = this.replay(snapshot_end)?;
        if commands_lost > 0 {
            tracing::error!(
                commands_lost, log = %dir.display(),
                "commands of the metadata are lost; topics that they made are found by their folders"
            );
        }
        Ok((this, Found { recovery, commands_lost }))
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

    /// Makes everything durable, writes a snapshot as a second copy of it, and closes the log.
    pub(crate) fn close(&self) -> Result<()> {
        let snapshot_end = self.writer.lock();
        let synced = self.stored(self.log.sync());
        if synced.is_ok()
            && *snapshot_end < self.log.log_end()
            && let Err(error) = self.snapshot()
        {
            tracing::warn!(%error, "cannot write a metadata snapshot");
        }
        self.stored(self.log.close())
    }

    fn snapshot(&self) -> Result<Offset> {
        let end = self.log.log_end();
        let snapshot = Snapshot { next_offset: end.0, state: (*self.current()).clone() };
        let not_needed = Offset(snapshot::store(&self.dir, &snapshot)?);
        // What is lost in the log is in the snapshots, as far as it is known.
        self.stored(self.log.bridge_damage())?;
        self.stored(self.log.delete_records_before(not_needed))?;
        Ok(end)
    }

    /// Applies the commands from `from` on. Returns how many are lost.
    fn replay(&self, from: Offset) -> Result<i64> {
        let mut state = (*self.current()).clone();
        let mut next = from.max(self.log.log_start());
        let mut lost = next.0 - from.0;
        let mut scratch = Vec::new();
        while next < self.log.log_end() {
            let read = match self.log.read(next, READ_BYTES, self.log.log_end()) {
                Err(StorageError::Lost { to, .. }) => {
                    lost += to.0 - next.0;
                    next = to;
                    continue;
                }
                read => self.stored(read)?,
            };
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
                    match state.apply(&command) {
                        Ok(_) => {}
                        // It builds on what is lost.
                        Err(error) if lost > 0 => {
                            tracing::warn!(offset = %record.offset, %error, "command passed over")
                        }
                        Err(error) => return Err(BrokerError::corrupt(at, error)),
                    }
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
        Ok(lost)
    }

    fn stored<T>(&self, result: logmill_storage::Result<T>) -> Result<T> {
        result.map_err(|error| BrokerError::storage(&self.name, error))
    }
}

/// Opens the log, which begins at `start` if there is none.
fn open_log(dir: &Path, start: Offset) -> Result<(PartitionLog, Recovery)> {
    let path = dir.join(LOG);
    if !path.is_dir() {
        if path.symlink_metadata().is_ok() {
            set_aside(&path, "it is no folder")?;
        }
        if start > Offset(0) {
            tracing::error!(log = %path.display(), %start, "the metadata log is missing, going on behind the snapshot");
            PartitionLog::create_at(&path, start).map_err(|error| failed(&path, error))?;
        }
    }
    let config = LogConfig {
        segment_bytes: 16 << 20,
        retention: None,
        retention_bytes: None,
        preallocate: false,
        ..LogConfig::default()
    };
    PartitionLog::open(&path, config).map_err(|error| failed(&path, error))
}

fn failed(path: &Path, error: StorageError) -> BrokerError {
    BrokerError::corrupt(format!("the metadata log {} cannot be opened", path.display()), error)
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
    use std::collections::BTreeMap;

    use super::*;
    use crate::metadata::TopicId;

    const NOW: Timestamp = Timestamp(1);

    #[test]
    fn what_was_proposed_is_there_after_reopening_across_snapshots() {
        let dir = tempfile::tempdir().unwrap();
        let allocate = Command::AllocateProducerIds { count: 10 };
        let mut taken = 0;
        for _ in 0..5 {
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
    fn a_damaged_snapshot_is_no_fresh_start() {
        let dir = tempfile::tempdir().unwrap();
        let allocate = Command::AllocateProducerIds { count: 10 };
        for taken in [0, 10, 20, 30, 40, 50] {
            let (log, found) = MetadataLog::open(dir.path()).unwrap();
            assert_eq!(found.commands_lost, 0);
            let applied = log.propose(allocate.clone(), NOW).unwrap();
            assert_eq!(applied, Applied::ProducerIds { first: taken, count: 10 });
            log.close().unwrap();
            std::fs::write(dir.path().join("snapshot.json"), b"{").unwrap();
        }
    }

    #[test]
    fn commands_behind_a_damaged_one_are_applied() {
        let dir = tempfile::tempdir().unwrap();
        let (log, _) = MetadataLog::open(dir.path()).unwrap();
        for name in ["a", "b", "c"] {
            let (name, id, configs) = (name.to_owned(), TopicId::random(), BTreeMap::new());
            log.propose(Command::CreateTopic { name, id, partitions: 1, internal: false, configs }, NOW).unwrap();
        }
        drop(log);
        let path = dir.path().join("log/00000000000000000000.log");
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        for _ in 0..2 {
            let (log, found) = MetadataLog::open(dir.path()).unwrap();
            let names: Vec<_> = log.current().topics().keys().cloned().collect();
            assert_eq!((names, found.commands_lost), (vec!["a".to_owned(), "c".to_owned()], 1));
        }
        let (log, _) = MetadataLog::open(dir.path()).unwrap();
        log.close().unwrap();
        let (log, found) = MetadataLog::open(dir.path()).unwrap();
        assert_eq!((log.current().topics().len(), found.commands_lost), (2, 0), "the snapshot says what is left");
    }
}
