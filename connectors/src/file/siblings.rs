//! Where the content of a file went: the names that rotation gives, and the files in the folder that bear them.

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::config::Compression;
use super::identity::{FileId, FilePosition};

/// Endings that compression adds.
const COMPRESSED: [&str; 4] = [".gz", ".gzip", ".zst", ".zstd"];

fn name_of(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

fn without_compression(name: &str) -> &str {
    COMPRESSED.iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(name)
}

/// Whether this is what rotation puts in a name: a number or a time behind a `.`, `-` or `_`.
fn is_rotation(part: &str) -> bool {
    part.starts_with(['.', '-', '_'])
        && part.contains(|c: char| c.is_ascii_digit())
        && part.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | '-' | '_' | ':' | 'T' | 'Z'))
}

/// Whether rotation gives such a name to a file that was called `of`: `app.log.1`, `app.log-20240131.gz`, `app-1.log`,
/// `app.log.gz`.
pub(super) fn is_rotated_name(name: &str, of: &str) -> bool {
    let plain = without_compression(name);
    if plain == of {
        return name != of;
    }
    if plain.strip_prefix(of).is_some_and(is_rotation) {
        return true;
    }
    let Some((stem, ending)) = of.rsplit_once('.') else { return false };
    let part = plain.strip_prefix(stem).and_then(|rest| rest.strip_suffix(ending)?.strip_suffix('.'));
    part.is_some_and(is_rotation)
}

/// Whether both names may be given by rotation to the same file, one after the other.
pub(super) fn is_related(name: &str, of: &str) -> bool {
    let of = without_compression(of);
    let end = of.trim_end_matches(|c: char| c.is_ascii_digit() || matches!(c, '.' | '-' | '_' | ':' | 'T' | 'Z'));
    is_rotated_name(name, of) || (!end.is_empty() && (name == end || is_rotated_name(name, end)))
}

/// Whether the names of two paths in one folder are related.
pub(super) fn are_related(path: &Path, of: &Path) -> bool {
    path.parent() == of.parent() && is_related(name_of(path), name_of(of))
}

/// Whether rotation gives such a path to a file that stays where it is, as a copy.
pub(super) fn is_copy_name(path: &Path, of: &Path) -> bool {
    path.parent() == of.parent() && is_rotated_name(name_of(path), name_of(of))
}

/// A file beside another.
struct Sibling {
    path: PathBuf,
    id: FileId,
    modified: SystemTime,
}

impl Sibling {
    /// Whether it holds what was read. One that cannot be read does not; if it was just moved away, its new name is another
    /// candidate.
    fn holds(&self, position: &FilePosition, compression: Option<Compression>) -> bool {
        let compression = compression.unwrap_or_else(|| Compression::of(&self.path));
        position.is_held_by(&self.path, compression).unwrap_or(false)
    }
}

/// The files of the folder that a file is in, or was.
fn around(path: &Path) -> io::Result<Vec<Sibling>> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        // A file may go away while the folder is read.
        if let Ok(metadata) = std::fs::metadata(&path)
            && metadata.is_file()
        {
            found.push(Sibling { id: FileId::of(&metadata), modified: metadata.modified()?, path });
        }
    }
    Ok(found)
}

/// The file that was read up to a position, under another name in the folder of `path`.
pub(super) fn find_moved(
    path: &Path,
    position: &FilePosition,
    compression: Option<Compression>,
) -> io::Result<Option<PathBuf>> {
    let of_same_file = |sibling: &Sibling| sibling.path != path && position.is_of(sibling.id);
    Ok(around(path)?
        .into_iter()
        .filter(of_same_file)
        .find(|sibling| sibling.holds(position, compression))
        .map(|s| s.path))
}

/// A copy of the file that was read up to a position, compressed or not, under a name that rotation gives to `path`.
pub(super) fn find_copy(
    path: &Path,
    position: &FilePosition,
    compression: Option<Compression>,
) -> io::Result<Option<PathBuf>> {
    let may_be_copy = |sibling: &Sibling| sibling.path != path && are_related(&sibling.path, path);
    Ok(around(path)?
        .into_iter()
        .filter(may_be_copy)
        .find(|sibling| sibling.holds(position, compression))
        .map(|s| s.path))
}

/// The next file after one that was read to its end, of those that were rotated away from `path` since: the oldest that was
/// modified later, and is neither `finished`, nor the one at the path, nor excluded.
pub(super) fn next_rotated(
    path: &Path,
    finished: FileId,
    modified: SystemTime,
    is_excluded: impl Fn(&Path) -> bool,
) -> io::Result<Option<PathBuf>> {
    let current = FileId::at(path)?;
    let later = around(path)?.into_iter().filter(|sibling| {
        is_copy_name(&sibling.path, path)
            && sibling.modified > modified
            && sibling.id != finished
            && Some(sibling.id) != current
            && !is_excluded(&sibling.path)
            // One that has just been compressed gets the time of what it was made of at last.
            && std::fs::metadata(&sibling.path).and_then(|now| now.modified()).is_ok_and(|now| now > modified)
    });
    Ok(later.min_by_key(|sibling| sibling.modified).map(|sibling| sibling.path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_rotation_are_known() {
        for (name, of, expected) in [
            ("app.log.1", "app.log", true),
            ("app.log.10.gz", "app.log", true),
            ("app.log-20240131", "app.log", true),
            ("app.log-2024-01-31T05:00:00.zst", "app.log", true),
            ("app-1.log", "app.log", true),
            ("app.2024-01-31.log.gz", "app.log", true),
            ("app.log.gz", "app.log", true),
            ("app.log", "app.log", false),
            ("app.log.bak", "app.log", false),
            ("app.log.", "app.log", false),
            ("application.log", "app.log", false),
            ("app.log1", "app.log", false),
            ("app.log", "app.log.1", false),
        ] {
            assert_eq!(is_rotated_name(name, of), expected, "{name} of {of}");
        }
        for (name, of, expected) in
            [("app.log.2.gz", "app.log.1", true), ("app.log", "app.log.1", true), ("other.log.1", "app.log.1", false)]
        {
            assert_eq!(is_related(name, of), expected, "{name} of {of}");
        }
    }
}
