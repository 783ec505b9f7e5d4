//! Kafka's producer snapshots: the producer table as it was just before the offset in the file's name.
//!
//! ```text
//! | version i16 = 1 | crc32c u32 of the rest | count i32 |
//!   count x | producer id i64 | epoch i16 | last sequence i32 | last offset i64 | offset delta i32 |
//!           | timestamp i64 | coordinator epoch i32 | first offset of its open transaction i64, or -1 |   46 bytes
//! ```
//! Only the last batch of a producer is kept, as in Kafka. A snapshot saves recovery from reading the whole log; one
//! that is damaged is set aside, and an older one or the log itself takes its place.

use std::path::{Path, PathBuf};

use logmill_protocol::{Offset, ProducerEpoch, ProducerId, Timestamp};

use crate::entry_file::take;
use crate::error::{Result, StorageError};
use crate::producers::{BatchMeta, NO_SEQUENCE, ProducerState, Producers};
use crate::{files, names};

const VERSION: i16 = 1;
const ENTRIES_AT: usize = 6;
/// Snapshots kept besides the newest, for a log that is truncated a little.
const OLDER_KEPT: usize = 2;

/// Writes the snapshot at `offset` and removes those that are no longer needed.
pub(crate) fn write(dir: &Path, offset: Offset, producers: &[ProducerState]) -> Result<()> {
    files::write_atomically(&names::file(dir, offset, names::SNAPSHOT), &encode(producers))?;
    let mut older: Vec<_> = list(dir)?.into_iter().filter(|(at, _)| *at < offset).collect();
    older.truncate(older.len().saturating_sub(OLDER_KEPT));
    older.iter().try_for_each(|(_, path)| files::remove_if_exists(path))
}

/// Loads the newest sound snapshot in `from..=to`. Sets those that are damaged aside.
pub(crate) fn load_newest(dir: &Path, from: Offset, to: Offset) -> Result<Option<(Offset, Producers)>> {
    for (offset, path) in list(dir)?.into_iter().rev().filter(|(at, _)| (from..=to).contains(at)) {
        let bytes = match files::read_if_exists(&path) {
            Err(error) if files::is_no_file(&error) => None,
            result => result?,
        };
        match bytes.as_deref().and_then(decode) {
            Some(producers) => return Ok(Some((offset, producers))),
            None => {
                let kept_at = files::set_aside(&path)?;
                tracing::warn!(file = %path.display(), kept_at = %kept_at.display(), "producer snapshot is damaged, taking an older one");
            }
        }
    }
    Ok(None)
}

/// Removes snapshots above `offset`: the log that they describe is gone.
pub(crate) fn remove_above(dir: &Path, offset: Offset) -> Result<()> {
    let above: Vec<_> = list(dir)?.into_iter().filter(|(at, _)| *at > offset).collect();
    above.iter().try_for_each(|(_, path)| files::remove_if_exists(path))?;
    if above.is_empty() { Ok(()) } else { files::sync_dir(dir) }
}

/// The snapshots in `dir`, lowest offset first.
fn list(dir: &Path) -> Result<Vec<(Offset, PathBuf)>> {
    let read = || {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            if let Some(offset) = entry.file_name().to_str().and_then(|n| names::parse(n, names::SNAPSHOT)) {
                found.push((offset, entry.path()));
            }
        }
        found.sort_unstable();
        Ok(found)
    };
    read().map_err(|e| StorageError::io("list", dir, e))
}

fn encode(producers: &[ProducerState]) -> Vec<u8> {
    let mut out = Vec::with_capacity(ENTRIES_AT + 4 + producers.len() * 46);
    out.extend_from_slice(&VERSION.to_be_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&(producers.len() as i32).to_be_bytes());
    for state in producers {
        let last = state.batches().last().copied().unwrap_or(BatchMeta {
            last_sequence: NO_SEQUENCE,
            last_offset: Offset(-1),
            offset_delta: 0,
            timestamp: Timestamp::NONE,
        });
        out.extend_from_slice(&state.producer_id.0.to_be_bytes());
        out.extend_from_slice(&state.epoch.0.to_be_bytes());
        out.extend_from_slice(&last.last_sequence.to_be_bytes());
        out.extend_from_slice(&last.last_offset.0.to_be_bytes());
        out.extend_from_slice(&last.offset_delta.to_be_bytes());
        out.extend_from_slice(&state.last_timestamp.0.to_be_bytes());
        out.extend_from_slice(&state.coordinator_epoch.to_be_bytes());
        out.extend_from_slice(&state.txn_first_offset.map_or(-1, |o| o.0).to_be_bytes());
    }
    let crc = crc_fast::crc32_iscsi(&out[ENTRIES_AT..]);
    out[2..ENTRIES_AT].copy_from_slice(&crc.to_be_bytes());
    out
}

fn decode(mut bytes: &[u8]) -> Option<Producers> {
    let version = i16::from_be_bytes(take(&mut bytes)?);
    let crc = u32::from_be_bytes(take(&mut bytes)?);
    if version != VERSION || crc_fast::crc32_iscsi(bytes) != crc {
        return None;
    }
    let count = i32::from_be_bytes(take(&mut bytes)?);
    let mut producers = Producers::default();
    for _ in 0..count {
        producers.insert(decode_entry(&mut bytes)?);
    }
    bytes.is_empty().then_some(producers)
}

fn decode_entry(bytes: &mut &[u8]) -> Option<ProducerState> {
    let producer_id = ProducerId(i64::from_be_bytes(take(bytes)?));
    let epoch = ProducerEpoch(i16::from_be_bytes(take(bytes)?));
    let last_sequence = i32::from_be_bytes(take(bytes)?);
    let last_offset = Offset(i64::from_be_bytes(take(bytes)?));
    let offset_delta = i32::from_be_bytes(take(bytes)?);
    let timestamp = Timestamp(i64::from_be_bytes(take(bytes)?));
    let coordinator_epoch = i32::from_be_bytes(take(bytes)?);
    let txn_first_offset = i64::from_be_bytes(take(bytes)?);
    let mut state = ProducerState::new(producer_id, epoch);
    if last_sequence != NO_SEQUENCE {
        state.push(BatchMeta { last_sequence, last_offset, offset_delta, timestamp });
    }
    state.last_timestamp = timestamp;
    state.coordinator_epoch = coordinator_epoch;
    state.txn_first_offset = (txn_first_offset >= 0).then_some(Offset(txn_first_offset));
    Some(state)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn state(id: i64) -> ProducerState {
        let mut state = ProducerState::new(ProducerId(id), ProducerEpoch(3));
        state.push(BatchMeta {
            last_sequence: 9,
            last_offset: Offset(40 + id),
            offset_delta: 4,
            timestamp: Timestamp(1000),
        });
        state.coordinator_epoch = 2;
        state.txn_first_offset = (id % 2 == 0).then_some(Offset(36));
        state
    }

    #[test]
    fn snapshots_round_trip() {
        let states = vec![state(1), state(2), ProducerState::new(ProducerId(3), ProducerEpoch(0))];
        let bytes = encode(&states);
        assert_eq!(bytes.len(), 10 + 3 * 46);
        assert_eq!(decode(&bytes).unwrap().sorted(), states);
    }

    #[test]
    fn every_damage_is_noticed() {
        let bytes = encode(&[state(1), state(2)]);
        for len in 0..bytes.len() {
            assert!(decode(&bytes[..len]).is_none(), "cut at {len}");
        }
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(decode(&damaged).is_none(), "flipped bit at {at}");
        }
    }

    #[test]
    fn the_newest_sound_snapshot_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        for offset in [10, 20, 30, 40] {
            write(dir.path(), Offset(offset), &[state(offset)]).unwrap();
        }
        let offsets = || list(dir.path()).unwrap().into_iter().map(|(o, _)| o.0).collect::<Vec<_>>();
        assert_eq!(offsets(), [20, 30, 40]);
        std::fs::write(names::file(dir.path(), Offset(30), names::SNAPSHOT), b"garbage").unwrap();
        let (offset, producers) = load_newest(dir.path(), Offset(0), Offset(39)).unwrap().unwrap();
        assert_eq!((offset, producers.sorted()), (Offset(20), vec![state(20)]));
        assert_eq!(offsets(), [20, 40]);
        remove_above(dir.path(), Offset(20)).unwrap();
        assert_eq!(offsets(), [20]);
        // A folder in a snapshot's place is no reason to fail: it is moved out of the way.
        std::fs::create_dir(names::file(dir.path(), Offset(10), names::SNAPSHOT)).unwrap();
        for offset in [30, 40] {
            write(dir.path(), Offset(offset), &[state(offset)]).unwrap();
        }
        assert_eq!(offsets(), [20, 30, 40]);
        remove_above(dir.path(), Offset(20)).unwrap();
        assert!(load_newest(dir.path(), Offset(21), Offset(99)).unwrap().is_none());
    }
}
