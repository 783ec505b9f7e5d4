//! Tests of the whole log. Formats and small parts are tested beside them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod basics;
mod concurrent;
mod crash;
mod damage;
mod golden;
mod hostile;
mod model;
mod model_txn;
mod slices;

use std::path::{Path, PathBuf};

use logmill_protocol::Timestamp;
use tempfile::TempDir;

use crate::conformance::{Harness, LEADER};
use crate::{Appended, LogConfig, PartitionLog, Recovery};

/// Small segments and indexes, so that little data makes many of them.
pub(crate) fn small() -> LogConfig {
    LogConfig { segment_bytes: 600, index_interval_bytes: 100, preallocate: false, ..LogConfig::default() }
}

pub(crate) fn open(dir: &Path, config: LogConfig) -> (PartitionLog, Recovery) {
    PartitionLog::open(dir, config).unwrap()
}

pub(crate) fn append(log: &PartitionLog, mut bytes: Vec<u8>) -> Appended {
    log.append(&mut bytes, LEADER, Timestamp(0)).unwrap()
}

/// A partition in a folder of its own.
pub(crate) struct Partition {
    pub(crate) root: TempDir,
    pub(crate) config: LogConfig,
}

impl Partition {
    pub(crate) fn new(config: LogConfig) -> Self {
        Self { root: tempfile::tempdir().unwrap(), config }
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.root.path().join("topic-1").join("0")
    }

    pub(crate) fn reopen(&self) -> (PartitionLog, Recovery) {
        open(&self.dir(), self.config)
    }
}

/// Copies the files of one partition into another's folder.
pub(crate) fn copy(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// The names of the files in `dir` that end in `suffix`, sorted.
pub(crate) fn files(dir: &Path, suffix: &str) -> Vec<PathBuf> {
    let all = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    let mut found: Vec<_> = all.filter(|p| p.to_string_lossy().ends_with(suffix)).collect();
    found.sort();
    found
}

impl Harness for Partition {
    type Log = PartitionLog;

    fn open(&mut self) -> PartitionLog {
        self.reopen().0
    }
}
