//! One segment: a file of record batches and its indexes. Appends come one at a time, reads at any time.
//!
//! ```text
//!  position 0                                             len (published after the bytes are written)
//!  | batch base..   | batch        | batch        | batch |  reserved disk space, beyond the file's end
//!       ^ index entry                  ^ index entry
//! ```
//! The segment's own lock covers its indexes only; who may append is decided by the log.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use logmill_protocol::{BatchHeader, Offset, Timestamp};
use parking_lot::Mutex;

use crate::entry_file::{Entry as _, EntryFile};
use crate::error::{Result, StorageError};
use crate::index::{OffsetEntry, TimeEntry};
use crate::open_segments::Counted;
use crate::scan::{Scan, Step};
use crate::txn_index::AbortedTxn;
use crate::{files, names};

#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) base: Offset,
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<File>,
    /// Bytes that readers may see.
    len: AtomicU64,
    /// End of the disk space reserved for the file.
    reserved: AtomicU64,
    next_offset: AtomicI64,
    max_timestamp: AtomicI64,
    pub(crate) indexes: Mutex<Indexes>,
    /// Where the last reads ended, so that a reader who goes on needs no search.
    hints: Mutex<Hints>,
    /// A reader met damage, and the whole segment was verified since.
    pub(crate) examined: AtomicBool,
    _counted: Counted,
}

/// Offset and position just after the last reads, written round robin; as many as readers usually follow a segment.
#[derive(Debug, Default)]
struct Hints {
    ends: [(Offset, u64); 8],
    next: usize,
}

/// The three indexes of a segment.
#[derive(Debug)]
pub(crate) struct Indexes {
    base: Offset,
    pub(crate) offsets: EntryFile<OffsetEntry>,
    pub(crate) times: EntryFile<TimeEntry>,
    pub(crate) txns: EntryFile<AbortedTxn>,
    /// Largest timestamp so far and the last offset of the batch that has it.
    pub(crate) max_timestamp: TimeEntry,
}

/// Where to start looking for an offset: at a batch whose last offset the index names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Floor {
    pub(crate) position: u64,
    /// `None` at the segment's beginning, which needs no index.
    pub(crate) last_offset: Option<Offset>,
}

const NO_TIME: TimeEntry = TimeEntry { timestamp: -1, relative_offset: 0 };

impl Indexes {
    fn new(dir: &Path, base: Offset) -> Self {
        Self {
            base,
            offsets: EntryFile::new(names::file(dir, base, names::INDEX)),
            times: EntryFile::new(names::file(dir, base, names::TIME_INDEX)),
            txns: EntryFile::new(names::file(dir, base, names::TXN_INDEX)),
            max_timestamp: NO_TIME,
        }
    }

    /// Notes a batch that stands at `position`; adds index entries if enough bytes lie since the last one.
    pub(crate) fn note(&mut self, header: &BatchHeader, position: u64, interval_bytes: u64) {
        let relative_offset = (header.last_offset().0 - self.base.0) as u32;
        if header.max_timestamp.0 > self.max_timestamp.timestamp {
            self.max_timestamp = TimeEntry { timestamp: header.max_timestamp.0, relative_offset };
        }
        let last = self.offsets.entries().last().map_or(0, |e| u64::from(e.position));
        if position > last && position - last > interval_bytes {
            self.offsets.push(OffsetEntry { relative_offset, position: position as u32 });
            self.note_time();
        }
    }

    /// Adds a time entry if the largest timestamp has grown since the last one.
    pub(crate) fn note_time(&mut self) {
        let last = self.times.entries().last().map_or(NO_TIME.timestamp, |e| e.timestamp);
        if self.max_timestamp.timestamp > last {
            self.times.push(self.max_timestamp);
        }
    }

    fn write_out(&mut self) -> Result<()> {
        self.offsets.write_out()?;
        self.times.write_out()?;
        self.txns.write_out()
    }

    /// The files that were written to since they were last synced, and now count as synced.
    fn take_unsynced(&mut self) -> Vec<PathBuf> {
        [self.offsets.take_unsynced(), self.times.take_unsynced(), self.txns.take_unsynced()]
            .into_iter()
            .flatten()
            .collect()
    }

    fn distrust_files(&mut self) {
        self.offsets.distrust_file();
        self.times.distrust_file();
        self.txns.distrust_file();
    }

    /// Where to start looking for `target`.
    pub(crate) fn floor(&self, target: Offset) -> Result<Floor> {
        let relative = u32::try_from(target.0 - self.base.0).unwrap_or(u32::MAX);
        Ok(match self.offsets.last_where(|e| e.relative_offset <= relative)? {
            Some(e) => Floor {
                position: u64::from(e.position),
                last_offset: Some(self.base.plus(i64::from(e.relative_offset))),
            },
            None => Floor { position: 0, last_offset: None },
        })
    }
}

impl Segment {
    /// Creates the empty segment at `base`. Its index files are written when first flushed.
    pub(crate) fn create(dir: &Path, base: Offset) -> Result<Self> {
        let path = names::file(dir, base, names::LOG);
        let file = files::create_new(&path)?;
        Self::assemble(dir, base, path, file, 0)
    }

    /// Opens the segment at `base` with empty indexes; [`Segment::load_indexes`] or a scan fills them.
    pub(crate) fn open(dir: &Path, base: Offset) -> Result<Self> {
        let path = names::file(dir, base, names::LOG);
        let file = files::open_or_create(&path)?;
        let len = file.metadata().map_err(|e| StorageError::io("read the size of", &path, e))?.len();
        Self::assemble(dir, base, path, file, len)
    }

    fn assemble(dir: &Path, base: Offset, path: PathBuf, file: File, len: u64) -> Result<Self> {
        Ok(Self {
            base,
            path,
            file: Arc::new(file),
            len: AtomicU64::new(len),
            reserved: AtomicU64::new(len),
            next_offset: AtomicI64::new(base.0),
            max_timestamp: AtomicI64::new(NO_TIME.timestamp),
            indexes: Mutex::new(Indexes::new(dir, base)),
            hints: Mutex::new(Hints::default()),
            examined: AtomicBool::new(false),
            _counted: Counted::new(),
        })
    }

    /// Bytes of record batches.
    pub(crate) fn len(&self) -> u64 {
        self.len.load(Ordering::Acquire)
    }

    /// One past the segment's last offset.
    pub(crate) fn next_offset(&self) -> Offset {
        Offset(self.next_offset.load(Ordering::Acquire))
    }

    /// Largest timestamp of its batches, `-1` if it has none.
    pub(crate) fn max_timestamp(&self) -> Timestamp {
        Timestamp(self.max_timestamp.load(Ordering::Acquire))
    }

    /// The position of the batch that begins at `offset`, if a read has just ended there.
    pub(crate) fn hint(&self, offset: Offset) -> Option<u64> {
        let hints = self.hints.lock();
        hints.ends.iter().find(|(o, position)| *o == offset && *position > 0).map(|(_, position)| *position)
    }

    /// Remembers that a read ended before `offset`, which stands at `position`.
    pub(crate) fn remember(&self, offset: Offset, position: u64) {
        let mut hints = self.hints.lock();
        let next = hints.next % hints.ends.len();
        if let Some(slot) = hints.ends.get_mut(next) {
            *slot = (offset, position);
        }
        hints.next = next + 1;
    }

    /// Whether an index of this active segment has no room for another entry within `max_bytes`.
    pub(crate) fn is_index_full(&self, max_bytes: u64) -> bool {
        let indexes = self.indexes.lock();
        let is_full = |entries: usize, size: usize| (entries * size + size) as u64 > max_bytes;
        is_full(indexes.offsets.entries().len(), OffsetEntry::LEN)
            || is_full(indexes.times.entries().len(), TimeEntry::LEN)
    }

    /// Walks the segment's batches from `position`.
    pub(crate) fn scan(&self, position: u64) -> Scan<'_> {
        Scan::new(&self.file, &self.path, position, self.len())
    }

    /// Writes `bytes` at the end. On error the file is as before, unless that fails, too: then `Err(Failed)`.
    pub(crate) fn write(&self, bytes: &[u8], preallocate_to: Option<u64>) -> Result<()> {
        let len = self.len();
        let end = len + bytes.len() as u64;
        let reserved = self.reserved.load(Ordering::Relaxed);
        if let Some(limit) = preallocate_to.filter(|_| end > reserved) {
            self.reserved.store(files::preallocate(&self.file, reserved.max(len), end, limit), Ordering::Relaxed);
        }
        let Err(error) = self.write_bytes(bytes, len) else { return Ok(()) };
        self.reserved.store(len, Ordering::Relaxed);
        files::set_len(&self.file, &self.path, len).map_err(|undo| StorageError::Failed {
            path: self.path.clone(),
            reason: format!("{error}, and the part written could not be removed: {undo}"),
        })?;
        Err(error)
    }

    fn write_bytes(&self, bytes: &[u8], position: u64) -> Result<()> {
        fail::fail_point!("storage::append_write", |_| {
            files::write_at(&self.file, &self.path, &bytes[..bytes.len() / 2], position)?;
            Err(StorageError::io("write", &self.path, std::io::ErrorKind::StorageFull.into()))
        });
        files::write_at(&self.file, &self.path, bytes, position)
    }

    /// Makes `bytes` more visible to readers, after they were written and noted in the indexes.
    pub(crate) fn publish(&self, bytes: u64, next_offset: Offset) {
        self.max_timestamp.store(self.indexes.lock().max_timestamp.timestamp, Ordering::Release);
        self.next_offset.store(next_offset.0, Ordering::Release);
        self.len.fetch_add(bytes, Ordering::Release);
    }

    /// Ends appends: completes the time index, writes the indexes and gives reserved space back. Failing here costs
    /// memory or space but no data, and is made up for at the next checkpoint.
    pub(crate) fn seal(&self) {
        let mut indexes = self.indexes.lock();
        indexes.note_time();
        // Appends wait for this; the next checkpoint syncs the files.
        let written = indexes.write_out();
        let trimmed = files::set_len(&self.file, &self.path, self.len());
        self.reserved.store(self.len(), Ordering::Relaxed);
        indexes.offsets.release();
        indexes.times.release();
        if let Err(error) = written.and(trimmed) {
            tracing::warn!(segment = %self.path.display(), %error, "closed segment keeps its index in memory");
        }
    }

    /// Writes the indexes out and makes them durable; appends go on meanwhile. `closed` segments then drop them from
    /// memory.
    pub(crate) fn flush_indexes(&self, closed: bool) -> Result<()> {
        let unsynced = {
            let mut indexes = self.indexes.lock();
            indexes.write_out()?;
            indexes.take_unsynced()
        };
        let synced = unsynced.iter().try_for_each(|path| files::sync_data(&files::open_or_create(path)?, path));
        let mut indexes = self.indexes.lock();
        if synced.is_err() {
            indexes.distrust_files();
        }
        if closed && synced.is_ok() {
            indexes.offsets.release();
            indexes.times.release();
        }
        synced
    }

    /// Trusts neither the page cache nor the index files from here on: the batches are read from the disk, and the indexes
    /// are written anew.
    pub(crate) fn forget_cached(&self) {
        self.indexes.lock().distrust_files();
        files::forget_cached(&self.file, &self.path);
    }

    /// Rebuilds offset and time index from the batches' headers, or with `verify` from whole batches, while nobody
    /// appends. Returns where the sound batches end: at the segment's length if nothing is wrong.
    pub(crate) fn rebuild_indexes(&self, interval_bytes: u64, verify: bool) -> Result<Walked> {
        let mut indexes = self.indexes.lock();
        indexes.max_timestamp = NO_TIME;
        let walked = self.rewalk(&mut indexes, interval_bytes, verify)?;
        self.adopt(&mut indexes, &walked)?;
        Ok(walked)
    }

    /// Takes the indexes of a segment that was closed as they lie on the disk, without reading them: only what they say of the
    /// segment's end is checked. `None` if that is not right and whole: then [`Segment::load_indexes`] makes it so.
    pub(crate) fn open_closed_indexes(&self, interval_bytes: u64) -> Result<Option<Walked>> {
        let mut indexes = self.indexes.lock();
        let Some((offsets, last)) = EntryFile::<OffsetEntry>::open_closed(indexes.offsets.path())? else {
            return Ok(None);
        };
        let Some((times, newest)) = EntryFile::<TimeEntry>::open_closed(indexes.times.path())? else { return Ok(None) };
        let Some(newest) = newest else { return Ok(None) };
        if !load_txns(&mut indexes, self.base)? {
            return Ok(None);
        }
        // As when they are loaded, from the batch that was the latest, or the last index entry.
        let after_time = offsets.last_where(|entry| entry.relative_offset <= newest.relative_offset)?;
        let start = [last, after_time].map(|entry| entry.map_or(0, |entry| u64::from(entry.position)));
        let start = start.into_iter().min().unwrap_or(0);
        if start >= self.len() && self.len() > 0 {
            return Ok(None);
        }
        let names_batch = match (after_time, self.scan(start).next_header()?) {
            (Some(entry), Step::Batch { header, .. }) => self.relative(&header) == i64::from(entry.relative_offset),
            (None, _) => true,
            _ => false,
        };
        // A walk that knows the last entry alone adds others where the files lack them.
        let mut known = Indexes::new(Path::new(""), self.base);
        last.into_iter().for_each(|entry| known.offsets.push(entry));
        let walked = self.walk(&mut known, start, interval_bytes, false)?;
        let is_whole = known.offsets.entries().len() == usize::from(last.is_some());
        if !names_batch || !is_whole || known.max_timestamp != newest || walked.bad.is_some() {
            return Ok(None);
        }
        (indexes.offsets, indexes.times, indexes.max_timestamp) = (offsets, times, newest);
        self.adopt(&mut indexes, &walked)?;
        Ok(Some(walked))
    }

    /// Verifies the batches from the last index entry below `trusted` on, and makes the index entries behind it again from
    /// them. Returns as [`Segment::rebuild_indexes`], and how many bytes were verified.
    pub(crate) fn verify_from(&self, trusted: Offset, interval_bytes: u64) -> Result<(Walked, u64)> {
        let mut indexes = self.indexes.lock();
        let relative = u32::try_from(trusted.0 - self.base.0).unwrap_or(0);
        let kept = indexes.offsets.entries().partition_point(|e| e.relative_offset < relative);
        let last = kept.checked_sub(1).and_then(|last| indexes.offsets.entries().get(last)).copied();
        let kept_times = last
            .map_or(0, |last| indexes.times.entries().partition_point(|e| e.relative_offset <= last.relative_offset));
        indexes.offsets.truncate(kept);
        indexes.times.truncate(kept_times);
        indexes.max_timestamp = indexes.times.entries().last().copied().unwrap_or(NO_TIME);
        let start = last.map_or(0, |last| u64::from(last.position));
        let walked = self.walk(&mut indexes, start, interval_bytes, true)?;
        self.adopt(&mut indexes, &walked)?;
        Ok((walked, self.len() - start))
    }

    /// Takes over what is known of aborted transactions from the segment that this one was cut out of, durably. A marker that
    /// is lost counts as standing at the next intact batch.
    pub(crate) fn adopt_aborted(&self, whole: &Segment, known_from: Offset) -> Result<()> {
        let entries: Vec<AbortedTxn> = whole.indexes.lock().txns.entries().to_vec();
        let mut indexes = self.indexes.lock();
        let mut next = self.base;
        for entry in entries.iter().filter(|e| e.last_offset >= known_from && e.last_offset < self.next_offset()) {
            let last_offset = entry.last_offset.max(next);
            indexes.txns.push(AbortedTxn { last_offset, ..*entry });
            next = last_offset.next();
        }
        indexes.txns.flush()
    }

    /// Replaces indexes that turned out not to match the batches, while appends may go on.
    pub(crate) fn repair_indexes(&self, interval_bytes: u64) -> Result<Walked> {
        self.rewalk(&mut self.indexes.lock(), interval_bytes, false)
    }

    fn rewalk(&self, indexes: &mut Indexes, interval_bytes: u64, verify: bool) -> Result<Walked> {
        indexes.offsets.clear();
        indexes.times.clear();
        self.walk(indexes, 0, interval_bytes, verify)
    }

    /// Loads the index files, checks their last entries against the batches and adds what they lack; rebuilds
    /// what is missing or wrong.
    pub(crate) fn load_indexes(&self, interval_bytes: u64) -> Result<(Walked, IndexState)> {
        let mut indexes = self.indexes.lock();
        let state = IndexState {
            offsets: self.load_offsets(&mut indexes)?,
            times: self.load_times(&mut indexes)?,
            txns: load_txns(&mut indexes, self.base)?,
        };
        // Whatever came after the last entry of either index is not known yet.
        let after_time = match indexes.times.entries().last() {
            Some(entry) => indexes.floor(self.base.plus(i64::from(entry.relative_offset)))?.position,
            None => 0,
        };
        let last = indexes.offsets.entries().last().map_or(0, |e| u64::from(e.position));
        let walked = self.walk(&mut indexes, last.min(after_time), interval_bytes, false)?;
        self.adopt(&mut indexes, &walked)?;
        Ok((walked, state))
    }

    fn adopt(&self, indexes: &mut Indexes, walked: &Walked) -> Result<()> {
        // An index may reach the disk before the markers it names. Entries of lost ones must be gone from there, too,
        // before other records take their offsets.
        let sound = indexes.txns.entries().partition_point(|t| t.last_offset < walked.next_offset);
        if sound < indexes.txns.entries().len() {
            indexes.txns.truncate(sound);
            indexes.txns.flush()?;
        }
        self.next_offset.store(walked.next_offset.0, Ordering::Release);
        self.max_timestamp.store(indexes.max_timestamp.timestamp, Ordering::Release);
        Ok(())
    }

    fn load_offsets(&self, indexes: &mut Indexes) -> Result<bool> {
        if let Some(loaded) = EntryFile::<OffsetEntry>::load(indexes.offsets.path().to_owned())? {
            let sound = match loaded.entries().last() {
                None => true,
                Some(last) if u64::from(last.position) >= self.len() => false,
                Some(last) => matches!(
                    self.scan(u64::from(last.position)).next_header()?,
                    Step::Batch { header, .. } if self.relative(&header) == i64::from(last.relative_offset)
                ),
            };
            if sound {
                indexes.offsets = loaded;
                return Ok(true);
            }
        }
        indexes.offsets.clear();
        // Where time entries were made depends on the offset index, so one is not kept without the other.
        indexes.times.clear();
        Ok(false)
    }

    fn load_times(&self, indexes: &mut Indexes) -> Result<bool> {
        let Some(loaded) = EntryFile::<TimeEntry>::load(indexes.times.path().to_owned())? else {
            indexes.times.clear();
            return Ok(false);
        };
        let Some(last) = loaded.entries().last().copied() else {
            indexes.times = loaded;
            return Ok(true);
        };
        let target = self.base.plus(i64::from(last.relative_offset));
        let mut scan = self.scan(indexes.floor(target)?.position);
        while let Step::Batch { header, .. } = scan.next_header()? {
            if header.last_offset() >= target {
                if header.last_offset() == target && header.max_timestamp.0 == last.timestamp {
                    indexes.max_timestamp = last;
                    indexes.times = loaded;
                    return Ok(true);
                }
                break;
            }
        }
        indexes.times.clear();
        Ok(false)
    }

    fn relative(&self, header: &BatchHeader) -> i64 {
        header.last_offset().0 - self.base.0
    }

    /// Walks from `start` to the end, filling in index entries that the loaded ones lack.
    fn walk(&self, indexes: &mut Indexes, start: u64, interval_bytes: u64, verify: bool) -> Result<Walked> {
        let mut scan = self.scan(start);
        let mut walked = Walked { next_offset: self.base, end: start, bad: None };
        let mut known = indexes.offsets.entries().partition_point(|e| u64::from(e.position) < start);
        loop {
            let step = if verify { scan.next_verified()? } else { scan.next_header()? };
            let (header, position) = match step {
                Step::Batch { header, position } => (header, position),
                Step::End => return Ok(walked),
                Step::Bad { reason, .. } => {
                    walked.bad = Some(reason);
                    return Ok(walked);
                }
            };
            let follows = match verify {
                // What is verified was appended and never compacted: its offsets have no gaps.
                true if position > 0 && position == start => header.base_offset > self.base,
                true => header.base_offset == walked.next_offset,
                false => position == start || header.base_offset >= walked.next_offset,
            };
            if !follows || header.base_offset < self.base || self.relative(&header) > i64::from(i32::MAX) {
                walked.bad = Some(format!("offset {} does not follow {}", header.base_offset, walked.next_offset));
                return Ok(walked);
            }
            indexes.note(&header, position, interval_bytes);
            // An entry that was loaded marks a place where a time entry was due, too.
            if indexes.offsets.entries().get(known).is_some_and(|e| u64::from(e.position) == position) {
                known += 1;
                indexes.note_time();
            }
            walked.next_offset = header.next_offset();
            walked.end = position + header.total_len() as u64;
        }
    }

    /// Cuts the segment to `len` bytes, where a batch ends, and its indexes with it.
    pub(crate) fn cut(&self, len: u64, interval_bytes: u64) -> Result<()> {
        self.cut_behind(len)?;
        self.rebuild_indexes(interval_bytes, false).map(drop)
    }

    /// Cuts the segment to `len` bytes, where the batches end that its indexes know.
    pub(crate) fn cut_behind(&self, len: u64) -> Result<()> {
        files::set_len(&self.file, &self.path, len)?;
        self.len.store(len, Ordering::Release);
        self.reserved.store(len, Ordering::Relaxed);
        *self.hints.lock() = Hints::default();
        Ok(())
    }

    /// The damage at `position` as an error.
    pub(crate) fn corrupt(&self, position: u64, reason: impl Into<String>) -> StorageError {
        StorageError::corrupt(&self.path, position, reason)
    }

    /// Removes the segment's files. Readers that hold the file keep reading it.
    pub(crate) fn remove(&self) -> Result<()> {
        files::remove_if_exists(&self.path)?;
        self.remove_indexes()
    }

    /// Removes the files of the segment's indexes.
    pub(crate) fn remove_indexes(&self) -> Result<()> {
        let indexes = self.indexes.lock();
        files::remove_if_exists(indexes.offsets.path())?;
        files::remove_if_exists(indexes.times.path())?;
        files::remove_if_exists(indexes.txns.path())
    }
}

fn load_txns(indexes: &mut Indexes, base: Offset) -> Result<bool> {
    match EntryFile::<AbortedTxn>::load(indexes.txns.path().to_owned())? {
        Some(loaded) if loaded.entries().first().is_none_or(|t| t.last_offset >= base) && !loaded.was_torn() => {
            indexes.txns = loaded;
            Ok(true)
        }
        _ => {
            indexes.txns.clear();
            Ok(false)
        }
    }
}

/// How far a walk came.
#[derive(Debug)]
pub(crate) struct Walked {
    /// One past the last offset of the sound batches.
    pub(crate) next_offset: Offset,
    /// Where the sound batches end.
    pub(crate) end: u64,
    /// What is wrong at `end`, if that is not the end of the file.
    pub(crate) bad: Option<String>,
}

/// Which index files were sound.
#[derive(Debug, Clone, Copy)]
pub(crate) struct IndexState {
    pub(crate) offsets: bool,
    pub(crate) times: bool,
    pub(crate) txns: bool,
}
