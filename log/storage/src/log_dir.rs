//! The folder of a log: made durably, its segments listed, its checkpoints read, and what makes no sense in it set aside.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use logmill_protocol::Offset;

use crate::error::{Result, StorageError};
use crate::{files, names};

/// Reads a checkpoint. One that is damaged is set aside, and what it held is found out otherwise.
pub(crate) fn read_checkpoint<T>(
    dir: &Path,
    name: &str,
    rebuilt: &mut Vec<PathBuf>,
    read: impl FnOnce(&Path) -> Result<Option<T>>,
) -> Result<Option<T>> {
    let path = dir.join(name);
    let error = match read(&path) {
        Err(error @ (StorageError::Corrupt { .. } | StorageError::UnknownFormat { .. })) => error,
        Err(error) if files::is_no_file(&error) => error,
        result => return result,
    };
    let kept_at = files::set_aside(&path)?;
    tracing::warn!(file = %path.display(), kept_at = %kept_at.display(), %error, "checkpoint is damaged, making it again");
    rebuilt.push(path);
    Ok(None)
}

/// Creates a folder and those above it, durably.
pub(crate) fn create_dir(dir: &Path) -> Result<()> {
    if dir.is_dir() || dir.as_os_str().is_empty() {
        return Ok(());
    }
    let parent = dir.parent().unwrap_or(Path::new(""));
    create_dir(parent)?;
    match std::fs::create_dir(dir) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(StorageError::io("create", dir, e)),
        _ if parent.as_os_str().is_empty() => files::sync_dir(Path::new(".")),
        _ => files::sync_dir(parent),
    }
}

/// The base offsets of the segments in `dir`, ascending. Removes temporary files, and indexes without a segment.
pub(crate) fn list_segments(dir: &Path) -> Result<Vec<Offset>> {
    let read = || -> io::Result<Vec<String>> {
        std::fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    };
    let found = read().map_err(|e| StorageError::io("list", dir, e))?;
    let mut bases: Vec<Offset> = found.iter().filter_map(|name| names::parse(name, names::LOG)).collect();
    bases.sort_unstable();
    for name in &found {
        let kinds = [names::INDEX, names::TIME_INDEX, names::TXN_INDEX];
        let orphan = kinds.iter().find_map(|k| names::parse(name, k)).is_some_and(|o| bases.binary_search(&o).is_err());
        if orphan || name.ends_with(names::TEMP_SUFFIX) {
            // What cannot be removed is in nobody's way.
            let _ = files::remove_if_exists(&dir.join(name));
        }
    }
    Ok(bases)
}

/// The base offsets of the segments that are files. What is something else, or empty though others follow, is set aside; says
/// whether there was any.
pub(crate) fn readable_segments(dir: &Path) -> Result<(Vec<Offset>, bool)> {
    let all = list_segments(dir)?;
    let last = all.last().copied();
    let mut bases = Vec::with_capacity(all.len());
    for base in &all {
        let path = names::file(dir, *base, names::LOG);
        let opened = File::open(&path).and_then(|file| file.metadata());
        let is_file = match opened.map_err(|e| StorageError::io("open", &path, e)) {
            Ok(metadata) => metadata.is_file() && (metadata.len() > 0 || Some(*base) == last),
            Err(error) if files::is_no_file(&error) => false,
            Err(error) => return Err(error),
        };
        if is_file {
            bases.push(*base);
            continue;
        }
        let kept_at = files::set_aside(&path)?;
        tracing::error!(file = %path.display(), kept_at = %kept_at.display(), "the segment holds no records, set aside");
    }
    let set_aside = bases.len() < all.len();
    Ok((bases, set_aside))
}
