//! Identifies a file whatever its name: by its inode, and by digests of what was read of it.
//!
//! ```text
//!   0        ≤ 1024                 byte - ≤ 256    byte
//!   │ head ────│ ......................│ tail ───────│ not read yet
//! ```
//!
//! An inode alone is used again once its file is gone, and changes when a file is copied; a head alone may be that of many
//! files. A file *holds* what was read up to a position if its head and the bytes before the position are the same.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use logmill_pipelines::flow::Position;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::config::Compression;
use crate::error::ConnectorError;

/// How much of a file's beginning tells it from another.
pub(super) const HEAD_BYTES: u64 = 1024;
/// How much before a position tells that the file is still the one that was read.
pub(super) const TAIL_BYTES: usize = 256;

/// Identifies a file on this machine until the file is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
    /// When it was created, in nanoseconds, if the file system records that. Distinguishes a file from an earlier one with
    /// the same inode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    born_ns: Option<u64>,
}

impl FileId {
    pub(super) fn of(metadata: &Metadata) -> Self {
        let born = metadata.created().ok().and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
        let born_ns = born.and_then(|since| u64::try_from(since.as_nanos()).ok());
        Self { device: metadata.dev(), inode: metadata.ino(), born_ns }
    }

    /// The id of the file that a path leads to; `None` if there is none.
    pub(super) fn at(path: &Path) -> io::Result<Option<Self>> {
        match std::fs::metadata(path) {
            Ok(metadata) => Ok(Some(Self::of(&metadata))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// How many bytes were digested, and what they gave.
pub(super) type Digest = (u64, u64);

/// Where a file goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FilePosition {
    /// Bytes of (uncompressed) text before it.
    pub(super) byte: u64,
    /// Lines before it.
    pub(super) line: u64,
    /// The file's head, as it lies on disk.
    pub(super) head: Digest,
    /// The text right before it. Positions of older versions have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) tail: Option<Digest>,
    /// The file. Positions of older versions know it by the name of the split only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) file: Option<FileId>,
    /// What the file was called when it was last read, if that was not the name of the split.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
}

impl FilePosition {
    pub(super) fn parse(position: &Position, path: &Path) -> Result<Self, ConnectorError> {
        Self::deserialize(&position.0).map_err(|error| {
            ConnectorError::Config(format!("the saved position of `{}` is not one of a file: {error}", path.display()))
        })
    }

    pub(super) fn to_position(&self) -> Result<Position, ConnectorError> {
        let value = serde_json::to_value(self);
        let context = "could not note a position".to_owned();
        Ok(Position(value.map_err(|error| ConnectorError::Permanent { context, source: error.into() })?))
    }

    /// Whether the file is the one of the position, as far as its inode tells.
    pub(super) fn is_of(&self, file: FileId) -> bool {
        self.file == Some(file)
    }

    /// Whether a file holds what was read up to the position, which it does too if nothing was read.
    pub(super) fn is_held_by(&self, path: &Path, compression: Compression) -> io::Result<bool> {
        let file = File::open(path)?;
        if self.head.0 == 0 || digest_at(&file, 0, self.head.0)? == self.head {
            return match compression {
                Compression::None => Ok(file.metadata()?.len() >= self.byte && self.tail_is_held_by(&file)?),
                // Whether it is long enough is seen when it is decompressed.
                _ => Ok(self.head.0 > 0 || self.byte == 0),
            };
        }
        // It may hold in compressed form what was read before it was compressed.
        match compression {
            Compression::None => Ok(false),
            _ => Ok(self.is_held_by_text(decompress(file, compression)?).unwrap_or(false)),
        }
    }

    /// Whether a file begins with what was read first.
    pub(super) fn head_is_held_by(&self, path: &Path) -> io::Result<bool> {
        Ok(digest_at(&File::open(path)?, 0, self.head.0)? == self.head)
    }

    /// Whether the text before the position is still there in a file that is not compressed.
    pub(super) fn tail_is_held_by(&self, file: &File) -> io::Result<bool> {
        let Some(tail) = self.tail else { return Ok(true) };
        Ok(digest_at(file, self.byte.saturating_sub(tail.0), tail.0)? == tail)
    }

    fn is_held_by_text(&self, mut text: impl Read) -> io::Result<bool> {
        let Some(tail) = self.tail else { return Ok(false) };
        let mut head = Vec::new();
        text.by_ref().take(self.head.0).read_to_end(&mut head)?;
        if (head.len() as u64, xxh3_64(&head)) != self.head {
            return Ok(false);
        }
        // The tail may begin within the head.
        let start = self.byte.saturating_sub(tail.0);
        let skip = start.saturating_sub(self.head.0);
        if io::copy(&mut text.by_ref().take(skip), &mut io::sink())? < skip {
            return Ok(false);
        }
        let mut bytes = head.split_off(usize::try_from(start.min(self.head.0)).unwrap_or(0).min(head.len()));
        text.take(self.byte.saturating_sub(self.head.0.max(start))).read_to_end(&mut bytes)?;
        bytes.truncate(usize::try_from(tail.0).unwrap_or(0));
        Ok((bytes.len() as u64, xxh3_64(&bytes)) == tail)
    }
}

/// How a compressed file begins that is not whole, as while it is being written: as far as that can be told, up to the length of
/// a head. `None` if it is whole, or not compressed.
pub(super) fn unfinished_head(path: &Path, compression: Compression) -> io::Result<Option<Vec<u8>>> {
    if compression == Compression::None {
        return Ok(None);
    }
    let file = File::open(path)?;
    let is_empty = file.metadata()?.len() == 0;
    let mut text = decompress(file, compression)?;
    let mut head = Vec::new();
    let read = text.by_ref().take(HEAD_BYTES).read_to_end(&mut head);
    let is_cut_short = is_empty || read.and_then(|_| io::copy(&mut text, &mut io::sink())).is_err();
    Ok(is_cut_short.then_some(head))
}

/// The text of a file.
pub(super) fn decompress(file: File, compression: Compression) -> io::Result<Box<dyn Read>> {
    Ok(match compression {
        Compression::None => Box::new(file),
        Compression::Gzip => Box::new(flate2::read::MultiGzDecoder::new(io::BufReader::new(file))),
        Compression::Zstd => Box::new(zstd::Decoder::new(file)?),
    })
}

/// The digest of some text.
pub(super) fn digest(text: &[u8]) -> Digest {
    (text.len() as u64, xxh3_64(text))
}

/// The digest of bytes of a file as it lies on disk, of as many as there are.
pub(super) fn digest_at(file: &File, start: u64, length: u64) -> io::Result<Digest> {
    let mut bytes = vec![0; usize::try_from(length.min(HEAD_BYTES)).unwrap_or(0)];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, start + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(digest(&bytes))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::io::Write;

    use super::*;

    fn position(text: &[u8], byte: usize) -> FilePosition {
        let read = &text[..byte];
        FilePosition {
            byte: byte as u64,
            head: digest(&read[..byte.min(HEAD_BYTES as usize)]),
            tail: Some(digest(&read[byte.saturating_sub(TAIL_BYTES)..])),
            ..FilePosition::default()
        }
    }

    #[test]
    fn a_file_holds_what_was_read_in_plain_or_compressed_form() {
        let folder = tempfile::TempDir::new().unwrap();
        let text: Vec<u8> = (0..2000).flat_map(|line| format!("line {line}\n").into_bytes()).collect();
        let mut other = text.clone();
        other[9_000] = b'x';
        let (plain, changed, gz) = (folder.path().join("a"), folder.path().join("b"), folder.path().join("a.gz"));
        std::fs::write(&plain, &text).unwrap();
        std::fs::write(&changed, &other).unwrap();
        let mut encoder = flate2::write::GzEncoder::new(File::create(&gz).unwrap(), flate2::Compression::default());
        encoder.write_all(&text).unwrap();
        encoder.finish().unwrap();
        for byte in [0, 1, 200, 256, 300, 1023, 1024, 1025, 1200, 1280, 5000, 9100, text.len()] {
            let position = position(&text, byte);
            assert!(position.is_held_by(&plain, Compression::None).unwrap(), "{byte}");
            assert!(position.is_held_by(&gz, Compression::Gzip).unwrap() || byte == 0, "{byte}");
            let is_changed = (9_000..9_000 + TAIL_BYTES).contains(&byte);
            assert_eq!(position.is_held_by(&changed, Compression::None).unwrap(), !is_changed, "{byte}");
        }
        std::fs::write(&plain, &text[..100]).unwrap();
        assert!(!position(&text, 101).is_held_by(&plain, Compression::None).unwrap());
    }
}
