//! Small file operations that must be exact: atomic replacement, whole writes, preallocation, syncing a folder.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::FallocateFlags;

use crate::error::{Result, StorageError};
use crate::names;

/// Space reserved ahead grows with the file between these bounds, so that a quiet partition costs little disk.
const MIN_PREALLOCATE_BYTES: u64 = 64 << 10;
const MAX_PREALLOCATE_BYTES: u64 = 64 << 20;

/// Makes renames, creations and removals in `dir` durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<()> {
    let handle = File::open(dir).map_err(|e| StorageError::io("open", dir, e))?;
    handle.sync_all().map_err(|e| StorageError::io("sync", dir, e))
}

/// Replaces `path` with `bytes`; after a crash it holds either the old content or the new, never a mix.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut temp = path.as_os_str().to_owned();
    temp.push(names::TEMP_SUFFIX);
    let temp = Path::new(&temp);
    let write = || {
        let mut file = File::create(temp)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fail::fail_point!("storage::before_checkpoint_rename");
        std::fs::rename(temp, path)
    };
    write().map_err(|e| StorageError::io("write", path, e))?;
    match path.parent() {
        Some(dir) => sync_dir(dir),
        None => Ok(()),
    }
}

/// The whole content of `path`, or `None` if there is no such file.
pub(crate) fn read_if_exists(path: &Path) -> Result<Option<Vec<u8>>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(StorageError::io("read", path, e)),
    }
}

/// Moves what makes no sense at `path` out of the way, where it is kept. Returns where.
pub(crate) fn set_aside(path: &Path) -> Result<PathBuf> {
    let kept_at = names::damaged(path);
    std::fs::rename(path, &kept_at).map_err(|e| StorageError::io("rename", path, e))?;
    Ok(kept_at)
}

/// Whether `error` says that something else than a file is in a file's place.
pub(crate) fn is_no_file(error: &StorageError) -> bool {
    let StorageError::Io { source, .. } = error else { return false };
    matches!(source.kind(), io::ErrorKind::IsADirectory | io::ErrorKind::NotADirectory)
        || source.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error())
}

/// Removes `path`; a file that is not there is fine. A folder in its place is moved out of the way, where it is kept.
pub(crate) fn remove_if_exists(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::IsADirectory => {
            let kept_at = set_aside(path)?;
            tracing::warn!(folder = %path.display(), kept_at = %kept_at.display(), "a folder is in the place of a file");
            Ok(())
        }
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(StorageError::io("remove", path, e)),
        _ => Ok(()),
    }
}

/// Opens `path` for reading and writing, creating it if missing.
pub(crate) fn open_or_create(path: &Path) -> Result<File> {
    let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
    open.map_err(|e| StorageError::io("open", path, e))
}

/// Creates `path` for reading and writing; one that is there already is never overwritten.
pub(crate) fn create_new(path: &Path) -> Result<File> {
    let open = OpenOptions::new().read(true).write(true).create_new(true).open(path);
    open.map_err(|e| StorageError::io("create", path, e))
}

/// Cuts or extends `file` to `len` bytes and gives space reserved beyond it back.
pub(crate) fn set_len(file: &File, path: &Path, len: u64) -> Result<()> {
    file.set_len(len).map_err(|e| StorageError::io("truncate", path, e))
}

/// Makes the content and length of `file` durable.
pub(crate) fn sync_data(file: &File, path: &Path) -> Result<()> {
    file.sync_data().map_err(|e| StorageError::io("sync", path, e))
}

/// Has `file` written out and forgotten by the page cache, so that what is read next is what the disk holds.
///
/// A sync that fails here changes nothing: the kernel counts the pages as written, so they are forgotten, too.
pub(crate) fn forget_cached(file: &File, path: &Path) {
    if let Err(error) = file.sync_data() {
        tracing::warn!(file = %path.display(), %error, "the disk refused what a process had written before it ended");
    }
    fail::fail_point!("storage::forget_cached");
    if let Err(error) = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed) {
        tracing::warn!(file = %path.display(), %error, "the page cache keeps what is to be read from the disk");
    }
}

/// Fills `buffer` from `position`.
pub(crate) fn read_at(file: &File, path: &Path, buffer: &mut [u8], position: u64) -> Result<()> {
    file.read_exact_at(buffer, position).map_err(|e| StorageError::io("read", path, e))
}

/// Writes all of `bytes` at `position`.
pub(crate) fn write_at(file: &File, path: &Path, bytes: &[u8], position: u64) -> Result<()> {
    file.write_all_at(bytes, position).map_err(|e| StorageError::io("write", path, e))
}

/// Reserves space so that `needed` bytes fit, and some more up to `limit`, without changing the file's length.
/// Returns the end of the reserved space. A file system that cannot, or has no room, reserves nothing: the write decides.
pub(crate) fn preallocate(file: &File, reserved: u64, needed: u64, limit: u64) -> u64 {
    let step = needed.clamp(MIN_PREALLOCATE_BYTES, MAX_PREALLOCATE_BYTES);
    let end = needed.saturating_add(step).min(limit).max(needed);
    match rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, reserved, end - reserved) {
        Ok(()) => end,
        // Do not ask again for every append.
        Err(_) => needed.saturating_add(MIN_PREALLOCATE_BYTES),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn preallocation_keeps_the_length_and_truncation_gives_it_back() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let file = open_or_create(&path).unwrap();
        write_at(&file, &path, b"hello", 0).unwrap();
        let end = preallocate(&file, 0, 5, 1 << 30);
        assert_eq!(end, 5 + MIN_PREALLOCATE_BYTES);
        assert_eq!(file.metadata().unwrap().len(), 5);
        let reserved = file.metadata().unwrap().blocks();
        set_len(&file, &path, 5).unwrap();
        assert!(file.metadata().unwrap().blocks() < reserved.max(9), "space beyond the end is given back");
        assert_eq!(std::fs::read(&path).unwrap(), b"hello");
    }

    #[test]
    fn atomic_write_leaves_no_temporary_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("checkpoint");
        write_atomically(&path, b"one").unwrap();
        write_atomically(&path, b"two").unwrap();
        assert_eq!(read_if_exists(&path).unwrap().unwrap(), b"two");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        remove_if_exists(&path).unwrap();
        remove_if_exists(&path).unwrap();
        assert_eq!(read_if_exists(&path).unwrap(), None);
    }
}
