//! A file of fixed-size entries in ascending order: the common shape of Kafka's offset, time and transaction indexes.
//!
//! The file of the active segment lives in memory and is written out from time to time; after its segment closed it is
//! searched on disk, so that old segments cost no memory.
//!
//! ```text
//!  entries (in memory while resident)
//!  [ e0 | e1 | e2 | e3 | e4 | e5 ]
//!    on disk -----^ written        the rest is written by flush()
//! ```

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::error::{Result, StorageError};
use crate::files;

/// One entry: `LEN` bytes, big-endian as all of Kafka's files.
pub(crate) trait Entry: Copy {
    /// Size of an encoded entry.
    const LEN: usize;

    fn encode(&self, out: &mut Vec<u8>);

    /// Decodes an entry from `LEN` bytes; `None` if they cannot be one.
    fn decode(bytes: &[u8]) -> Option<Self>;

    /// Whether `self` may directly follow `previous`.
    fn follows(&self, previous: &Self) -> bool;
}

/// Splits `N` bytes off the front of `bytes`.
pub(crate) fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = bytes.split_first_chunk::<N>()?;
    *bytes = tail;
    Some(*head)
}

#[derive(Debug)]
pub(crate) struct EntryFile<E> {
    path: PathBuf,
    /// All entries while resident, none otherwise.
    entries: Vec<E>,
    /// How many of the entries the file holds.
    written: usize,
    resident: bool,
    /// The file lacks entries, or has some that are to go.
    dirty: bool,
    /// The file was written to since it was last synced.
    unsynced: bool,
}

impl<E: Entry> EntryFile<E> {
    /// An empty file that is not there yet.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, entries: Vec::new(), written: 0, resident: true, dirty: true, unsynced: false }
    }

    /// Reads the file. Returns `None` for the reason if it is missing, or holds what cannot be entries.
    pub(crate) fn load(path: PathBuf) -> Result<Option<Self>> {
        let bytes = match files::read_if_exists(&path) {
            Err(error) if files::is_no_file(&error) => files::set_aside(&path).map(|_| None)?,
            result => result?,
        };
        let Some(bytes) = bytes else { return Ok(None) };
        let mut entries: Vec<E> = Vec::with_capacity(bytes.len() / E::LEN);
        for chunk in bytes.chunks(E::LEN) {
            // A torn entry at the end is dropped, the file is cut when the next entries are written.
            let Some(chunk) = (chunk.len() == E::LEN).then_some(chunk) else { break };
            match E::decode(chunk) {
                Some(entry) if entries.last().is_none_or(|last| entry.follows(last)) => entries.push(entry),
                _ => return Ok(None),
            }
        }
        let written = entries.len();
        let dirty = written * E::LEN != bytes.len();
        Ok(Some(Self { path, entries, written, resident: true, dirty, unsynced: false }))
    }

    /// Opens a file that is not going to grow without reading more than its last entry, which is returned. `None` if it is
    /// missing, or its end makes no sense.
    pub(crate) fn open_closed(path: &Path) -> Result<Option<(Self, Option<E>)>> {
        let Ok(file) = File::open(path) else { return Ok(None) };
        let len = file.metadata().map_err(|e| StorageError::io("read the size of", path, e))?.len();
        let size = E::LEN as u64;
        if !file.metadata().is_ok_and(|metadata| metadata.is_file()) || len % size != 0 {
            return Ok(None);
        }
        let last = match len.checked_sub(size) {
            None => None,
            Some(position) => {
                let mut bytes = vec![0; E::LEN];
                files::read_at(&file, path, &mut bytes, position)?;
                let Some(last) = E::decode(&bytes) else { return Ok(None) };
                Some(last)
            }
        };
        let (path, written) = (path.to_owned(), (len / size) as usize);
        let this = Self { path, entries: Vec::new(), written, resident: false, dirty: false, unsynced: false };
        Ok(Some((this, last)))
    }

    /// Whether the file ended in the middle of an entry when it was loaded.
    pub(crate) fn was_torn(&self) -> bool {
        self.dirty && self.written == self.entries.len()
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    #[cfg(test)]
    pub(crate) fn is_resident(&self) -> bool {
        self.resident
    }

    /// The entries in memory: all while resident, none otherwise.
    pub(crate) fn entries(&self) -> &[E] {
        &self.entries
    }

    /// How many entries the file holds.
    pub(crate) fn written(&self) -> usize {
        self.written
    }

    pub(crate) fn push(&mut self, entry: E) {
        self.entries.push(entry);
        self.dirty = true;
    }

    /// Keeps the first `len` entries. Only while resident.
    pub(crate) fn truncate(&mut self, len: usize) {
        if len < self.entries.len() {
            self.entries.truncate(len);
            self.written = self.written.min(len);
            self.dirty = true;
        }
    }

    /// Forgets everything, in memory and (at the next flush) on disk.
    pub(crate) fn clear(&mut self) {
        self.entries.clear();
        self.written = 0;
        self.resident = true;
        self.dirty = true;
    }

    /// Writes what the file lacks. Does nothing if nothing changed.
    pub(crate) fn write_out(&mut self) -> Result<()> {
        if !self.dirty {
            return Ok(());
        }
        let file = files::open_or_create(&self.path)?;
        let mut bytes = Vec::with_capacity((self.entries.len() - self.written) * E::LEN);
        for entry in &self.entries[self.written..] {
            entry.encode(&mut bytes);
        }
        let position = (self.written * E::LEN) as u64;
        self.unsynced = true;
        files::set_len(&file, &self.path, position)?;
        files::write_at(&file, &self.path, &bytes, position)?;
        self.written = self.entries.len();
        self.dirty = false;
        Ok(())
    }

    /// Writes what the file lacks and makes it durable. Does nothing if nothing changed.
    pub(crate) fn flush(&mut self) -> Result<()> {
        self.write_out()?;
        let Some(path) = self.take_unsynced() else { return Ok(()) };
        let synced = files::open_or_create(&path).and_then(|file| files::sync_data(&file, &path));
        synced.inspect_err(|_| self.distrust_file())
    }

    /// The file's path if it was written to since it was last synced; it counts as synced from then on.
    pub(crate) fn take_unsynced(&mut self) -> Option<PathBuf> {
        std::mem::take(&mut self.unsynced).then(|| self.path.clone())
    }

    /// Makes the next flush write the whole file again: after a failed sync its content is unknown, and the next sync would
    /// not report it.
    pub(crate) fn distrust_file(&mut self) {
        if !self.resident {
            // What cannot be read is made again from the batches when the log is opened.
            let entries = Self::load(self.path.clone()).ok().flatten().map(|loaded| loaded.entries);
            (self.entries, self.resident) = (entries.unwrap_or_default(), true);
        }
        (self.written, self.dirty, self.unsynced) = (0, true, true);
    }

    /// Gives the memory back once everything is in the file.
    pub(crate) fn release(&mut self) {
        if !self.dirty {
            self.entries = Vec::new();
            self.resident = false;
        }
    }

    /// The last entry for which `before` holds. `before` must hold for a prefix of the entries.
    pub(crate) fn last_where(&self, before: impl Fn(&E) -> bool) -> Result<Option<E>> {
        if self.resident {
            let end = self.entries.partition_point(before);
            return Ok(end.checked_sub(1).and_then(|i| self.entries.get(i)).copied());
        }
        // The file may have gone since: the caller then starts from the segment's beginning.
        let Ok(file) = File::open(&self.path) else { return Ok(None) };
        let count = file.metadata().map_or(0, |m| m.len() as usize / E::LEN);
        let (mut low, mut high, mut found) = (0, count, None);
        let mut bytes = vec![0; E::LEN];
        while low < high {
            let middle = low + (high - low) / 2;
            files::read_at(&file, &self.path, &mut bytes, (middle * E::LEN) as u64)?;
            match E::decode(&bytes) {
                Some(entry) if before(&entry) => {
                    found = Some(entry);
                    low = middle + 1;
                }
                _ => high = middle,
            }
        }
        Ok(found)
    }
}
