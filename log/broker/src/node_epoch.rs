//! The leader epoch of this node, which leads every partition: a new one after each stop that was not clean.
//!
//! Power loss takes records that clients may have read already, and others get their offsets. Those have a later epoch,
//! so a client that went on from the lost ones finds out (KIP-320). An epoch is on disk before any record is written in it;
//! so none has records twice, whatever else the disk lost.
//!
//! ```text
//! <data>/leader-epoch.json    {"leader_epoch":3,"stopped_cleanly":false,"crc32c":…}      false while a broker runs
//! ```

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use logmill_protocol::LeaderEpoch;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::data_dir::{set_aside, write_durably};
use crate::error::{BrokerError, Result};

const FILE: &str = "leader-epoch.json";

/// The node's leader epoch, and the file that remembers it.
#[derive(Debug)]
pub(crate) struct NodeEpoch {
    dir: PathBuf,
    /// What the file says, as far as it can be read.
    found: Option<Stored>,
    current: AtomicI32,
    /// The file says so.
    noted: AtomicBool,
    writing: Mutex<()>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stored {
    leader_epoch: i32,
    stopped_cleanly: bool,
    /// Of the fields above.
    crc32c: u32,
}

impl Stored {
    fn new(leader_epoch: i32, stopped_cleanly: bool) -> Self {
        let crc32c = crc_fast::crc32_iscsi(format!("{leader_epoch} {stopped_cleanly}").as_bytes());
        Self { leader_epoch, stopped_cleanly, crc32c }
    }

    fn is_sound(&self) -> bool {
        *self == Self::new(self.leader_epoch, self.stopped_cleanly)
    }
}

impl NodeEpoch {
    /// Reads what the last broker left in the data dir. A damaged file is as good as none.
    pub(crate) fn read(dir: &Path) -> Self {
        let path = dir.join(FILE);
        let found = match std::fs::read(&path).map(|bytes| serde_json::from_slice::<Stored>(&bytes)) {
            Ok(Ok(found)) if found.is_sound() => Some(found),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            damaged => {
                if let Err(error) = set_aside(&path, &format!("the leader epoch is lost: {damaged:?}")) {
                    tracing::warn!(file = %path.display(), %error, "cannot set a damaged file aside");
                }
                None
            }
        };
        let (current, noted) = (AtomicI32::new(LeaderEpoch::NONE.0), AtomicBool::new(false));
        Self { dir: dir.to_owned(), found, current, noted, writing: Mutex::new(()) }
    }

    /// The epoch that this node leads in; none before it begins.
    pub(crate) fn current(&self) -> LeaderEpoch {
        LeaderEpoch(self.current.load(Ordering::Acquire))
    }

    /// The epoch to write records in.
    ///
    /// # Errors
    /// If it is not on disk and cannot be written there.
    pub(crate) fn for_append(&self) -> Result<LeaderEpoch> {
        if !self.noted.load(Ordering::Acquire) {
            self.write(false)?;
        }
        Ok(self.current())
    }

    /// Begins to lead, before anything is served: in the epoch of the last broker if it stopped cleanly, else in a later
    /// one. `highest` is the latest epoch that any log has records of, if there is any log; `all_closed` says whether
    /// every log had been closed.
    pub(crate) fn begin(&self, highest: Option<LeaderEpoch>, all_closed: bool) {
        let known = highest.unwrap_or(LeaderEpoch(0)).0.max(0);
        self.lead_in(match self.found {
            Some(found) if found.stopped_cleanly && all_closed && found.leader_epoch >= known => found.leader_epoch,
            Some(found) => found.leader_epoch.max(known).saturating_add(1),
            None if highest.is_none() => 0,
            None => known.saturating_add(1),
        });
    }

    /// A log was opened that has records of this epoch. Does nothing before the node leads.
    pub(crate) fn raise(&self, found: LeaderEpoch) {
        if found > self.current() && self.current() != LeaderEpoch::NONE {
            self.lead_in(found.0);
        }
    }

    fn lead_in(&self, epoch: i32) {
        self.noted.store(false, Ordering::Release);
        self.current.store(epoch, Ordering::Release);
        if let Err(error) = self.write(false) {
            // A full disk does not keep what is on it from being read.
            tracing::warn!(%error, "cannot note the leader epoch, nothing is appended until that can be done");
        }
    }

    /// Notes that every log was closed.
    pub(crate) fn end(&self) -> Result<()> {
        self.write(true)
    }

    fn write(&self, stopped_cleanly: bool) -> Result<()> {
        let _writing = self.writing.lock();
        let leader_epoch = self.current().0;
        let json = serde_json::to_vec(&Stored::new(leader_epoch, stopped_cleanly))
            .map_err(|error| BrokerError::corrupt("the leader epoch cannot be encoded", error))?;
        write_durably(&self.dir, FILE, &json)?;
        self.noted.store(self.current().0 == leader_epoch, Ordering::Release);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_start_after_an_unclean_stop_has_an_epoch_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let check = |highest: Option<i32>, all_closed: bool, expected: i32| {
            let epoch = NodeEpoch::read(dir.path());
            epoch.begin(highest.map(LeaderEpoch), all_closed);
            assert_eq!(epoch.current().0, expected, "{highest:?}");
            epoch
        };
        check(None, true, 0).end().unwrap();
        check(Some(-1), true, 0);
        check(Some(0), true, 1);
        // Whatever had been written in epoch 1 is lost.
        check(Some(0), true, 2).end().unwrap();
        check(Some(2), true, 2).end().unwrap();
        check(Some(2), false, 3).end().unwrap();
        check(Some(5), true, 6).end().unwrap();
        std::fs::write(dir.path().join(FILE), b"{").unwrap();
        check(Some(6), true, 7).end().unwrap();
        std::fs::remove_file(dir.path().join(FILE)).unwrap();
        check(Some(-1), true, 1);
        std::fs::remove_file(dir.path().join(FILE)).unwrap();
        std::fs::create_dir(dir.path().join(FILE)).unwrap();
        assert_eq!(check(Some(3), true, 4).for_append().unwrap(), LeaderEpoch(4));
        check(Some(-1), true, 5);
    }
}
