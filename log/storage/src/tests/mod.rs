//! Tests of the whole log. Formats and small parts are tested beside them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod basics;

use std::path::Path;

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

    pub(crate) fn dir(&self) -> std::path::PathBuf {
        self.root.path().join("topic-1").join("0")
    }

    pub(crate) fn reopen(&self) -> (PartitionLog, Recovery) {
        open(&self.dir(), self.config)
    }
}

impl Harness for Partition {
    type Log = PartitionLog;

    fn open(&mut self) -> PartitionLog {
        self.reopen().0
    }
}
