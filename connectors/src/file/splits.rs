//! Which split a file belongs to. Names change as files are rotated, so a file is known by what it is: see `identity.rs`.
//!
//! ```text
//!   files of a glob ─▶ known inode? ─▶ same path and content? ─▶ content that another file held? ─▶ a new split
//! ```
//!
//! A split is named by the path that its file was found at. Where another split has that name already, since its file was
//! renamed, a number is added: `app.log`, `app.log#2`, …

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use logmill_pipelines::flow::SplitId;
use parking_lot::Mutex;

use super::config::Compression;
use super::identity::{FileId, FilePosition, HEAD_BYTES, TAIL_BYTES, digest, digest_at, unfinished_head};
use super::lines::Tracked;
use super::siblings::{are_related, is_copy_name};

/// How much of a file must have been read for its content alone to tell it, under a name that has nothing to do with its own.
const TELLING_BYTES: u64 = 1024;

/// The splits of a source of files.
pub(super) struct Splits {
    base: PathBuf,
    compression: Option<Compression>,
    /// Whether each path is one split for ever, whichever file lies there.
    by_path: bool,
    known: BTreeMap<SplitId, Arc<Mutex<Tracked>>>,
}

/// A file that was found.
struct FoundFile {
    /// As it was listed.
    name: PathBuf,
    path: PathBuf,
    id: FileId,
    owner: Option<Owner>,
}

#[derive(Clone, PartialEq)]
enum Owner {
    Split(SplitId),
    /// It is a copy of what another split reads, or the same file under a second name.
    Repeated,
}

/// The path in the name of a split, and its number.
fn parts(split: &SplitId) -> (&str, u64) {
    let numbered = split.as_str().rsplit_once('#').and_then(|(path, number)| Some((path, number.parse().ok()?)));
    numbered.unwrap_or((split.as_str(), 1))
}

impl Splits {
    pub(super) fn new(base: PathBuf, compression: Option<Compression>, by_path: bool) -> Self {
        Self { base, compression, by_path, known: BTreeMap::new() }
    }

    /// Whether each path is one split for ever, whichever file lies there.
    pub(super) fn is_by_path(&self) -> bool {
        self.by_path
    }

    /// Learns of a split of an earlier run.
    pub(super) fn resume(&mut self, split: &SplitId, position: FilePosition) {
        let tracked = self.tracked(split);
        let mut tracked = tracked.lock();
        if let Some(name) = &position.name {
            tracked.path = self.base.join(name);
        }
        tracked.position = position;
    }

    /// Whether a path is that of a split.
    pub(super) fn is_known(&self, path: &Path) -> bool {
        self.known.contains_key(&SplitId::new(path.to_string_lossy().as_ref()))
    }

    /// What is known of a split.
    pub(super) fn tracked(&mut self, split: &SplitId) -> Arc<Mutex<Tracked>> {
        let whole = self.base.join(split.as_str());
        let path = || if whole.exists() { whole.clone() } else { self.base.join(parts(split).0) };
        let new = || Arc::new(Mutex::new(Tracked { path: path(), ..Tracked::default() }));
        self.known.entry(split.clone()).or_insert_with(new).clone()
    }

    /// The splits of files, in their order.
    pub(super) fn assign(&mut self, names: Vec<PathBuf>) -> io::Result<Vec<SplitId>> {
        if self.by_path {
            let splits: Vec<_> = names.iter().map(|name| SplitId::new(name.to_string_lossy().as_ref())).collect();
            splits.iter().for_each(|split| drop(self.tracked(split)));
            return Ok(splits);
        }
        let mut files = Vec::with_capacity(names.len());
        for name in names {
            let path = self.base.join(&name);
            // One that was renamed since it was listed is found by its new name next time.
            if let Some(id) = FileId::at(&path)? {
                files.push(FoundFile { name, path, id, owner: None });
            }
        }
        self.assign_known(&mut files);
        self.assign_copies(&mut files);
        self.assign_new(&mut files);
        Ok(files
            .into_iter()
            .filter_map(|file| if let Some(Owner::Split(split)) = file.owner { Some(split) } else { None })
            .collect())
    }

    fn holds(&self, file: &FoundFile, position: &FilePosition) -> bool {
        let compression = self.compression.unwrap_or_else(|| Compression::of(&file.path));
        position.is_held_by(&file.path, compression).unwrap_or(false)
    }

    fn is_copy_in_the_making(&self, file: &FoundFile, of: &Path) -> io::Result<bool> {
        let compression = self.compression.unwrap_or_else(|| Compression::of(&file.path));
        if is_beginning(&file.path, of)? {
            return Ok(true);
        }
        let Some(head) = unfinished_head(&file.path, compression)? else { return Ok(false) };
        Ok(digest_at(&File::open(of)?, 0, head.len() as u64)? == digest(&head))
    }

    /// Files that were read under this inode, and then those that lie where they were read.
    fn assign_known(&self, files: &mut [FoundFile]) {
        let mut taken = BTreeSet::new();
        for is_by_inode in [true, false] {
            for index in 0..files.len() {
                let Some(file) = files.get(index).filter(|file| file.owner.is_none()) else { continue };
                let is_it = |(split, tracked): &(&SplitId, &Arc<Mutex<Tracked>>)| {
                    let known = tracked.lock().clone();
                    // A file that is open keeps its inode.
                    let is_same = match is_by_inode {
                        true => known.position.is_of(file.id) && (known.is_open || self.holds(file, &known.position)),
                        false => known.path == file.path && !known.is_open && self.holds(file, &known.position),
                    };
                    is_same && !taken.contains(*split)
                };
                let Some((split, tracked)) = self.known.iter().find(is_it) else { continue };
                let mut tracked = tracked.lock();
                if tracked.path != file.path {
                    tracing::info!("{} is called {} now", tracked.path.display(), file.path.display());
                    tracked.path.clone_from(&file.path);
                }
                taken.insert(split.clone());
                let (id, owner) = (file.id, Owner::Split(split.clone()));
                for other in files.iter_mut().filter(|other| other.id == id && other.owner.is_none()) {
                    other.owner = Some(Owner::Repeated);
                }
                if let Some(file) = files.get_mut(index) {
                    file.owner = Some(owner);
                }
            }
        }
    }

    /// Files that hold what was read of another: in its place if that is gone, and besides it if rotation copies it.
    fn assign_copies(&self, files: &mut [FoundFile]) {
        for index in 0..files.len() {
            let Some(file) = files.get(index).filter(|file| file.owner.is_none()) else { continue };
            let mut owner = None;
            for (split, tracked) in &self.known {
                let known = tracked.lock().clone();
                // The reader of a file that was moved out of sight still reads it.
                let is_standing =
                    known.is_open || files.iter().any(|file| file.owner == Some(Owner::Split(split.clone())));
                let may_be = match is_standing {
                    true => is_copy_name(&file.path, &known.path),
                    // What lies where a rotated file was before is a new file.
                    false => {
                        let is_next = is_copy_name(&known.path, &file.path);
                        are_related(&file.path, &known.path) && !is_next || known.position.byte >= TELLING_BYTES
                    }
                };
                if known.position.byte == 0 || !may_be {
                    continue;
                }
                if self.holds(file, &known.position) {
                    if !is_standing {
                        tracing::info!("{} holds what was {}", file.path.display(), known.path.display());
                        tracked.lock().path.clone_from(&file.path);
                    }
                    owner = Some(if is_standing { Owner::Repeated } else { Owner::Split(split.clone()) });
                    break;
                }
                // A copy that is being made is not whole yet.
                if is_standing && self.is_copy_in_the_making(file, &known.path).unwrap_or(false) {
                    owner = Some(Owner::Repeated);
                }
            }
            if let Some(file) = files.get_mut(index) {
                file.owner = owner;
            }
        }
    }

    /// Files that were not read before. One that lies where a split's file was, which is nowhere any more, belongs to that split:
    /// its reader says what is missing. A split that was read to its end in this run has no reader any more.
    fn assign_new(&mut self, files: &mut [FoundFile]) {
        for index in 0..files.len() {
            let Some(file) = files.get(index).filter(|file| file.owner.is_none()) else { continue };
            let (name, path, id) = (file.name.to_string_lossy().into_owned(), file.path.clone(), file.id);
            let numbers = self.known.keys().map(parts).filter(|(path, _)| *path == name).map(|(_, number)| number);
            let last = numbers.max();
            let split = |number: u64| SplitId::new(if number == 1 { name.clone() } else { format!("{name}#{number}") });
            let owner_of_path = last.map(split).filter(|split| {
                let is_standing = files.iter().any(|file| file.owner == Some(Owner::Split(split.clone())));
                let is_here = self.known.get(split).is_some_and(|tracked| {
                    let tracked = tracked.lock();
                    tracked.path == path && !tracked.is_open && !tracked.has_ended
                });
                is_here && !is_standing
            });
            let split = owner_of_path.unwrap_or_else(|| split(last.map_or(1, |last| last + 1)));
            let tracked = self.tracked(&split);
            tracked.lock().path = path;
            for other in files.iter_mut().filter(|other| other.id == id && other.owner.is_none()) {
                other.owner = Some(Owner::Repeated);
            }
            if let Some(file) = files.get_mut(index) {
                file.owner = Some(Owner::Split(split));
            }
        }
    }
}

/// Whether a file is shorter than another and has so far what that one has.
fn is_beginning(path: &Path, of: &Path) -> io::Result<bool> {
    let (file, of) = (File::open(path)?, File::open(of)?);
    let length = file.metadata()?.len();
    let tail = length.min(TAIL_BYTES as u64);
    let is_same = |start, bytes| Ok::<_, io::Error>(digest_at(&file, start, bytes)? == digest_at(&of, start, bytes)?);
    Ok(length < of.metadata()?.len() && is_same(0, length.min(HEAD_BYTES))? && is_same(length - tail, tail)?)
}
