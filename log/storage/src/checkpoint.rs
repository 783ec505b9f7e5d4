//! Kafka's text checkpoints: a version line, a count line, then one entry a line. They are replaced atomically, so
//! one that does not parse is damage and never a crash's leftover.
//!
//! ```text
//! 0                 version          0            version
//! 2                 entries          1            entries
//! 5 0               leader epoch 5   flights 0 42 topic, partition, offset
//! 6 4711            starts at 4711   crc32c …     of the lines above; not Kafka's, and missing in older files
//! ```

use std::fmt::{Display, Write};
use std::path::Path;

use logmill_protocol::{LeaderEpoch, Offset};

use crate::error::{Result, StorageError};
use crate::files;

const VERSION: i64 = 0;

/// What stands before the CRC of an offset checkpoint.
const CRC_PREFIX: &str = "crc32c ";

/// An offset of a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Recorded {
    pub(crate) offset: Offset,
    /// A CRC says that it is what was written; checkpoints of earlier versions have none.
    pub(crate) is_checked: bool,
}

/// Reads an offset checkpoint that holds one entry; `None` if there is no file.
pub(crate) fn read_offset(path: &Path) -> Result<Option<Recorded>> {
    let Some(text) = read_text(path)? else { return Ok(None) };
    let (text, is_checked) = match text.rsplit_once(CRC_PREFIX) {
        Some((text, crc)) if crc == format!("{:08x}\n", crc_fast::crc32_iscsi(text.as_bytes())) => (text, true),
        Some(_) => return Err(StorageError::corrupt(path, 0, "the checkpoint does not match its CRC")),
        None => (text.as_str(), false),
    };
    let entries = parse_entries(path, text)?;
    match entries.as_slice() {
        // The topic's name may hold anything but the offset is the last word.
        [entry] => match entry.rsplit(' ').next().and_then(|word| word.parse().ok()) {
            Some(offset) if offset >= 0 => Ok(Some(Recorded { offset: Offset(offset), is_checked })),
            _ => Err(StorageError::corrupt(path, 0, format!("entry {entry:?} has no offset"))),
        },
        _ => Err(StorageError::corrupt(path, 0, format!("expected one entry, found {}", entries.len()))),
    }
}

/// Writes an offset checkpoint. `dir` is the partition's folder, whose parent is named after the topic.
pub(crate) fn write_offset(dir: &Path, file_name: &str, offset: Offset) -> Result<()> {
    let name = |path: Option<&Path>| {
        let name = path.and_then(Path::file_name).map(|n| n.to_string_lossy().replace(char::is_whitespace, "_"));
        name.unwrap_or_else(|| "-".to_owned())
    };
    let mut text = format!("{VERSION}\n1\n{} {} {}\n", name(dir.parent()), name(Some(dir)), offset.0);
    let crc = crc_fast::crc32_iscsi(text.as_bytes());
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{CRC_PREFIX}{crc:08x}");
    files::write_atomically(&dir.join(file_name), text.as_bytes())
}

/// How many aborted transactions each segment's index names, by the segment's base offset; those without are left
/// out. An index that was emptied would otherwise look like that of a segment without aborts. Not one of Kafka's files.
pub(crate) type AbortedCounts = Vec<(Offset, usize)>;

/// Reads the counts of aborted transactions; `None` if there is no file.
pub(crate) fn read_aborted(path: &Path) -> Result<Option<AbortedCounts>> {
    read_pairs(path, |base, count| Some((Offset(base.parse().ok()?), count.parse().ok()?)))
}

/// Writes the counts of aborted transactions.
pub(crate) fn write_aborted(path: &Path, counts: &AbortedCounts) -> Result<()> {
    write_pairs(path, counts.iter().map(|(base, count)| (base.0, *count)))
}

/// Reads the first offset of each leader epoch; `None` if there is no file.
pub(crate) fn read_epochs(path: &Path) -> Result<Option<Vec<(LeaderEpoch, Offset)>>> {
    let parse = |epoch: &str, offset: &str| Some((LeaderEpoch(epoch.parse().ok()?), Offset(offset.parse().ok()?)));
    let Some(epochs) = read_pairs(path, parse)? else { return Ok(None) };
    match epochs.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1) {
        true => Ok(Some(epochs)),
        false => Err(StorageError::corrupt(path, 0, "leader epochs are out of order")),
    }
}

/// Writes the first offset of each leader epoch.
pub(crate) fn write_epochs(path: &Path, epochs: &[(LeaderEpoch, Offset)]) -> Result<()> {
    write_pairs(path, epochs.iter().map(|(epoch, offset)| (epoch.0, offset.0)))
}

fn read_pairs<T>(path: &Path, parse: impl Fn(&str, &str) -> Option<T>) -> Result<Option<Vec<T>>> {
    let Some(entries) = read_entries(path)? else { return Ok(None) };
    let pair = |entry: &String| {
        let parsed = entry.split_once(' ').and_then(|(a, b)| parse(a, b));
        parsed.ok_or_else(|| StorageError::corrupt(path, 0, format!("entry {entry:?} is not two numbers")))
    };
    entries.iter().map(pair).collect::<Result<_>>().map(Some)
}

fn write_pairs(path: &Path, pairs: impl ExactSizeIterator<Item = (impl Display, impl Display)>) -> Result<()> {
    let mut text = format!("{VERSION}\n{}\n", pairs.len());
    for (first, second) in pairs {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{first} {second}");
    }
    files::write_atomically(path, text.as_bytes())
}

fn read_entries(path: &Path) -> Result<Option<Vec<String>>> {
    read_text(path)?.map(|text| parse_entries(path, &text)).transpose()
}

fn read_text(path: &Path) -> Result<Option<String>> {
    let Some(bytes) = files::read_if_exists(path)? else { return Ok(None) };
    let text = String::from_utf8(bytes);
    text.map(Some).map_err(|_| StorageError::corrupt(path, 0, "the checkpoint is not text"))
}

fn parse_entries(path: &Path, text: &str) -> Result<Vec<String>> {
    let corrupt = |reason: &str| StorageError::corrupt(path, 0, reason);
    let mut lines = text.lines();
    let version: i64 =
        lines.next().and_then(|l| l.parse().ok()).ok_or_else(|| corrupt("the version line is missing"))?;
    if version != VERSION {
        return Err(StorageError::UnknownFormat { path: path.to_owned(), found: version, supported: VERSION });
    }
    let count: usize = lines.next().and_then(|l| l.parse().ok()).ok_or_else(|| corrupt("the count line is missing"))?;
    let entries: Vec<String> = lines.map(str::to_owned).collect();
    match entries.len() == count && text.ends_with('\n') {
        true => Ok(entries),
        false => Err(corrupt("the number of entries differs from the count line")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn offsets_round_trip_in_kafkas_form() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("flights-x").join("3");
        std::fs::create_dir_all(&dir).unwrap();
        assert_eq!(read_offset(&dir.join("c")).unwrap(), None);
        write_offset(&dir, "c", Offset(4711)).unwrap();
        let text = std::fs::read_to_string(dir.join("c")).unwrap();
        assert!(text.starts_with("0\n1\nflights-x 3 4711\ncrc32c "), "{text}");
        let read = || read_offset(&dir.join("c"));
        assert_eq!(read().unwrap(), Some(Recorded { offset: Offset(4711), is_checked: true }));
        std::fs::write(dir.join("c"), "0\n1\nflights-x 3 4711\n").unwrap();
        assert_eq!(read().unwrap(), Some(Recorded { offset: Offset(4711), is_checked: false }), "an older file");
        for at in 0..text.len() {
            let mut damaged = text.clone().into_bytes();
            damaged[at] ^= 1;
            std::fs::write(dir.join("c"), damaged).unwrap();
            let found = read();
            assert!(!matches!(found, Ok(Some(Recorded { is_checked: true, .. }))), "a bit at {at} gave {found:?}");
        }
    }

    #[test]
    fn epochs_round_trip_in_kafkas_form() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("leader-epoch-checkpoint");
        let epochs = vec![(LeaderEpoch(5), Offset(0)), (LeaderEpoch(6), Offset(4711))];
        write_epochs(&path, &epochs).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "0\n2\n5 0\n6 4711\n");
        assert_eq!(read_epochs(&path).unwrap(), Some(epochs));
    }

    #[test]
    fn damage_is_told_from_absence() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c");
        let check = |text: &str, expected: &str| {
            std::fs::write(&path, text).unwrap();
            let message = read_epochs(&path).unwrap_err().to_string();
            assert!(message.contains(expected), "{text:?} gave {message}");
        };
        check("", "version line is missing");
        check("0\n", "count line is missing");
        check("0\n2\n5 0\n", "number of entries");
        check("0\n1\n5 0", "number of entries");
        check("0\n1\nx y\n", "is not two numbers");
        check("0\n2\n6 0\n5 1\n", "out of order");
        check("7\n0\n", "format version 7");
        std::fs::write(&path, b"0\n1\nt 0 \xff\n").unwrap();
        assert!(read_offset(&path).unwrap_err().to_string().contains("not text"));
        std::fs::write(&path, b"0\n1\nt 0 -4\n").unwrap();
        assert!(read_offset(&path).unwrap_err().to_string().contains("has no offset"));
    }
}
