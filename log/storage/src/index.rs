//! Entries of Kafka's sparse indexes. Offsets are relative to the segment's base, so that they fit 32 bits.
//!
//! ```text
//! .index      | relative last offset u32 | batch position u32 |     one entry per index_interval_bytes
//! .timeindex  | timestamp i64 | relative offset u32 |               the batch that first reached the timestamp
//! ```
//! An offset entry names the last offset of the batch that starts at its position; a time entry says that no batch
//! up to its offset has a later timestamp.

use crate::entry_file::{Entry, take};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OffsetEntry {
    pub(crate) relative_offset: u32,
    pub(crate) position: u32,
}

impl Entry for OffsetEntry {
    const LEN: usize = 8;

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.relative_offset.to_be_bytes());
        out.extend_from_slice(&self.position.to_be_bytes());
    }

    fn decode(mut bytes: &[u8]) -> Option<Self> {
        let relative_offset = u32::from_be_bytes(take(&mut bytes)?);
        let position = u32::from_be_bytes(take(&mut bytes)?);
        Some(Self { relative_offset, position })
    }

    fn follows(&self, previous: &Self) -> bool {
        self.relative_offset > previous.relative_offset && self.position > previous.position
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TimeEntry {
    pub(crate) timestamp: i64,
    pub(crate) relative_offset: u32,
}

impl Entry for TimeEntry {
    const LEN: usize = 12;

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.timestamp.to_be_bytes());
        out.extend_from_slice(&self.relative_offset.to_be_bytes());
    }

    fn decode(mut bytes: &[u8]) -> Option<Self> {
        let timestamp = i64::from_be_bytes(take(&mut bytes)?);
        let relative_offset = u32::from_be_bytes(take(&mut bytes)?);
        Some(Self { timestamp, relative_offset })
    }

    fn follows(&self, previous: &Self) -> bool {
        self.timestamp > previous.timestamp && self.relative_offset > previous.relative_offset
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::entry_file::EntryFile;

    #[test]
    fn entries_have_kafkas_bytes() {
        let mut out = Vec::new();
        OffsetEntry { relative_offset: 0x0102_0304, position: 0x0506_0708 }.encode(&mut out);
        assert_eq!(out, [1, 2, 3, 4, 5, 6, 7, 8]);
        let mut out = Vec::new();
        TimeEntry { timestamp: 0x0102_0304_0506_0708, relative_offset: 0x090a_0b0c }.encode(&mut out);
        assert_eq!(out, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
    }

    fn entry(n: u32) -> OffsetEntry {
        OffsetEntry { relative_offset: n * 10, position: n * 100 }
    }

    #[test]
    fn search_agrees_in_memory_and_on_disk() {
        let dir = tempfile::tempdir().unwrap();
        for count in [0u32, 1, 2, 7, 64] {
            let mut index = EntryFile::new(dir.path().join(format!("{count}.index")));
            (0..count).for_each(|n| index.push(entry(n)));
            index.flush().unwrap();
            let search = |index: &EntryFile<OffsetEntry>| -> Vec<_> {
                (0..count * 10 + 5).map(|o| index.last_where(|e| e.relative_offset <= o).unwrap()).collect()
            };
            let in_memory = search(&index);
            index.release();
            assert!(!index.is_resident());
            assert_eq!(search(&index), in_memory);
        }
    }

    #[test]
    fn a_file_whose_sync_failed_is_written_anew() {
        let dir = tempfile::tempdir().unwrap();
        for release in [false, true] {
            let path = dir.path().join("x.index");
            let mut index = EntryFile::new(path.clone());
            (0..3).for_each(|n| index.push(entry(n)));
            index.write_out().unwrap();
            let bytes = std::fs::read(&path).unwrap();
            if release {
                index.release();
            }
            index.distrust_file();
            std::fs::write(&path, b"what the disk holds").unwrap();
            index.flush().unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), bytes, "released: {release}");
        }
    }

    #[test]
    fn torn_entries_are_dropped_and_nonsense_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.index");
        let mut index = EntryFile::new(path.clone());
        (0..3).for_each(|n| index.push(entry(n)));
        index.flush().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        for len in 0..=bytes.len() {
            std::fs::write(&path, &bytes[..len]).unwrap();
            let mut loaded = EntryFile::<OffsetEntry>::load(path.clone()).unwrap().unwrap();
            assert_eq!(loaded.entries().len(), len / 8);
            loaded.push(entry(9));
            loaded.flush().unwrap();
            assert_eq!(std::fs::read(&path).unwrap().len(), (len / 8 + 1) * 8);
        }
        // Kafka preallocates its index with zeros; after a crash they are still there.
        std::fs::write(&path, [bytes.clone(), vec![0; 16]].concat()).unwrap();
        assert!(EntryFile::<OffsetEntry>::load(path.clone()).unwrap().is_none());
        std::fs::remove_file(&path).unwrap();
        assert!(EntryFile::<OffsetEntry>::load(path).unwrap().is_none());
    }
}
