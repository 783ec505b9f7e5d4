//! Snapshots of the metadata: the newest, and the one before it, which takes its place if it is damaged.
//!
//! ```text
//!   log    | trimmed | commands …             | commands …          |
//!                    ^ snapshot-previous.json ^ snapshot.json
//! ```

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::data_dir::{set_aside, write_durably};
use crate::error::{BrokerError, Result};
use crate::metadata::Metadata;

const NEWEST: &str = "snapshot.json";
const PREVIOUS: &str = "snapshot-previous.json";
/// What stands before the CRC, on the last line. Older snapshots have none.
const CRC_PREFIX: &str = "\ncrc32c ";

/// The metadata at a point of its log.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Snapshot {
    /// The offset after the last command that the state holds.
    pub(super) next_offset: i64,
    pub(super) state: Metadata,
}

/// The newest sound snapshot in `dir`. Those that are damaged are set aside.
pub(super) fn load(dir: &Path) -> Result<Snapshot> {
    for name in [NEWEST, PREVIOUS] {
        let path = dir.join(name);
        let reason = match std::fs::read(&path) {
            Ok(bytes) => match decode(&bytes) {
                Ok(snapshot) => return Ok(snapshot),
                Err(reason) => reason,
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) if path.is_file() => return Err(BrokerError::io(format!("read {}", path.display()), error)),
            Err(error) => error.to_string(),
        };
        set_aside(&path, &reason)?;
    }
    Ok(Snapshot::default())
}

/// Writes a snapshot; the newest one until now becomes the previous one. Returns the offset up to which the log is not needed
/// any more: what the previous one holds.
pub(super) fn store(dir: &Path, snapshot: &Snapshot) -> Result<i64> {
    let (newest, previous) = (dir.join(NEWEST), dir.join(PREVIOUS));
    let before = std::fs::read(&newest).ok().and_then(|bytes| decode(&bytes).ok());
    if before.is_some() {
        std::fs::rename(&newest, &previous).map_err(|e| BrokerError::io(format!("rename {}", newest.display()), e))?;
    }
    let json = serde_json::to_string(snapshot)
        .map_err(|error| BrokerError::corrupt("the metadata cannot be encoded", error))?;
    let crc = crc_fast::crc32_iscsi(json.as_bytes());
    write_durably(dir, NEWEST, format!("{json}{CRC_PREFIX}{crc:08x}\n").as_bytes())?;
    Ok(before.map_or(0, |before| before.next_offset))
}

fn decode(bytes: &[u8]) -> Result<Snapshot, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    let json = match text.rsplit_once(CRC_PREFIX) {
        Some((json, crc)) if crc == format!("{:08x}\n", crc_fast::crc32_iscsi(json.as_bytes())) => json,
        Some(_) => return Err("it does not match its CRC".to_owned()),
        None => text,
    };
    serde_json::from_str(json).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn at(next_offset: i64) -> Snapshot {
        Snapshot { next_offset, state: Metadata::default() }
    }

    #[test]
    fn any_damage_to_the_newest_leads_to_the_previous() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(store(dir.path(), &at(10)).unwrap(), 0);
        assert_eq!(store(dir.path(), &at(20)).unwrap(), 10);
        let newest = std::fs::read(dir.path().join(NEWEST)).unwrap();
        let previous = std::fs::read(dir.path().join(PREVIOUS)).unwrap();
        let cut = (0..newest.len()).map(|len| newest[..len].to_vec());
        let flipped = (0..newest.len()).map(|at| {
            let mut bytes = newest.clone();
            bytes[at] ^= 1;
            bytes
        });
        for damaged in cut.chain(flipped) {
            std::fs::write(dir.path().join(NEWEST), &damaged).unwrap();
            std::fs::write(dir.path().join(PREVIOUS), &previous).unwrap();
            let found = load(dir.path()).unwrap().next_offset;
            // Without its last line it is what an earlier version wrote.
            let is_whole_json = damaged.trim_ascii_end() == &newest[..newest.len() - CRC_PREFIX.len() - 9];
            assert_eq!(found, if is_whole_json { 20 } else { 10 }, "{:?}", String::from_utf8_lossy(&damaged));
        }
    }

    #[test]
    fn a_damaged_previous_snapshot_is_not_missed() {
        let dir = tempfile::tempdir().unwrap();
        store(dir.path(), &at(10)).unwrap();
        store(dir.path(), &at(20)).unwrap();
        std::fs::write(dir.path().join(PREVIOUS), b"{").unwrap();
        assert_eq!(load(dir.path()).unwrap().next_offset, 20);
    }
}
