//! Opening a log: what was synced is trusted and completed, what was not is checked and cut where it breaks.
//!
//! ```text
//!   [ seg 0 ][ seg 1000 ][ seg 2000             ][ seg 3000       ]
//!   indexes loaded, tail   |     recovery point ^       torn here ^
//!   completed              '- checked whole: a bad batch below the recovery point is corruption,
//!                             above it the log is cut there and the bytes are kept beside the segment
//! ```

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use logmill_protocol::{LeaderEpoch, Offset};
use parking_lot::{Mutex, RwLock};

use crate::checkpoint::AbortedCounts;
use crate::config::LogConfig;
use crate::error::{Result, StorageError};
use crate::leader_epochs::LeaderEpochs;
use crate::log::{Marks, PartitionLog, SyncState, Writer, store};
use crate::replay::Replay;
use crate::segment::{IndexState, Segment, Walked};
use crate::{checkpoint, files, names, snapshot};

/// What opening a log found and did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    /// The log is new, had been closed, or was not written since its last checkpoint: nothing was checked.
    pub clean: bool,
    /// First offset that may be read.
    pub log_start: Offset,
    /// Log end offset.
    pub log_end: Offset,
    /// Bytes whose CRC was checked.
    pub verified_bytes: u64,
    /// What was cut off, in the order of the log. Never anything that had been reported durable, unless the disk lied.
    pub cut: Vec<CutTail>,
    /// Index and checkpoint files that were missing or wrong and have been made again from the batches.
    pub rebuilt: Vec<PathBuf>,
}

/// Bytes that recovery cut off because they were no sound continuation of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CutTail {
    /// The segment file.
    pub file: PathBuf,
    /// Where it was cut.
    pub position: u64,
    /// How many bytes were cut off.
    pub bytes: u64,
    /// Where they are kept.
    pub kept_at: PathBuf,
    /// What is wrong with them.
    pub reason: String,
}

impl PartitionLog {
    /// Opens the log in `dir`, creating folder and log if there is none, and recovers it after a crash.
    ///
    /// # Errors
    /// `Corrupt` with file and position if something below the recovery point is damaged: the log is left as it is.
    /// `UnknownFormat`, `InvalidConfig`, `Io`, `DiskFull`.
    pub fn open(dir: &Path, config: LogConfig) -> Result<(Self, Recovery)> {
        config.validate()?;
        create_dir(dir)?;
        let mut opening = Opening::new(dir, config)?;
        let segments = opening.open_segments()?;
        let (log, recovery) = opening.finish(segments)?;
        if !recovery.clean {
            log.settle(&recovery)?;
        }
        Ok((log, recovery))
    }

    /// Makes a recovered log durable, so that [`PartitionLog::durable`] is true: what a killed process had written may
    /// not be on disk yet. The recovery point moves at the next sync if much was checked, or else when it would anyway.
    fn settle(&self, recovery: &Recovery) -> Result<()> {
        let recovery_point = self.durable();
        for segment in self.segments.read().iter().filter(|s| s.next_offset() > recovery_point) {
            files::sync_data(&segment.file, &segment.path)?;
        }
        files::sync_dir(&self.dir)?;
        store(&self.marks.durable, self.log_end());
        self.bytes_since_checkpoint.store(recovery.verified_bytes, Ordering::Relaxed);
        Ok(())
    }
}

/// A log that is being opened.
struct Opening<'a> {
    dir: &'a Path,
    config: LogConfig,
    recovery_point: Offset,
    recovery: Recovery,
    /// Segments whose transaction index must be made again.
    txn_indexes_lost: Vec<Offset>,
    /// How many entries each transaction index had at the last checkpoint; `None` if that is not known any more.
    aborted: Option<AbortedCounts>,
    /// A segment was created that is not durable yet.
    dir_dirty: bool,
}

impl<'a> Opening<'a> {
    fn new(dir: &'a Path, config: LogConfig) -> Result<Self> {
        let recovery_point = checkpoint::read_offset(&dir.join(names::RECOVERY_POINT))?.unwrap_or_default();
        let log_start = checkpoint::read_offset(&dir.join(names::LOG_START))?.unwrap_or_default();
        let recovery = Recovery {
            clean: true,
            log_start,
            log_end: log_start,
            verified_bytes: 0,
            cut: Vec::new(),
            rebuilt: Vec::new(),
        };
        let aborted = match checkpoint::read_aborted(&dir.join(names::ABORTED)) {
            Ok(counts) => Some(counts.unwrap_or_default()),
            Err(StorageError::Corrupt { .. }) => None,
            Err(error) => return Err(error),
        };
        Ok(Self { dir, config, recovery_point, recovery, txn_indexes_lost: Vec::new(), aborted, dir_dirty: false })
    }

    /// Opens and checks every segment.
    fn open_segments(&mut self) -> Result<Vec<Arc<Segment>>> {
        let bases = list_segments(self.dir)?;
        if bases.is_empty() {
            if self.recovery_point.0 > 0 {
                let reason = format!("its segments are missing, they reached offset {}", self.recovery_point);
                return Err(StorageError::corrupt(self.dir, 0, reason));
            }
            self.dir_dirty = true;
            return Ok(vec![Arc::new(Segment::create(self.dir, self.recovery.log_start)?)]);
        }
        let mut segments: Vec<Arc<Segment>> = Vec::with_capacity(bases.len());
        for (i, base) in bases.iter().enumerate() {
            let segment = Segment::open(self.dir, *base)?;
            let synced = bases.get(i + 1).is_some_and(|next| *next <= self.recovery_point);
            if let Some(reason) = gap(segments.last(), *base) {
                let end = segments.last().map_or(*base, |s| s.next_offset());
                if end.min(*base) < self.recovery_point {
                    return Err(segment.corrupt(0, reason));
                }
                self.cut_segments(&bases[i..], &reason)?;
                break;
            }
            let is_last = i + 1 == bases.len();
            let whole = match synced {
                true => self.trust(&segment)?,
                false => self.check(&segment, is_last)?,
            };
            segments.push(Arc::new(segment));
            if !whole {
                self.cut_segments(&bases[i + 1..], "the segment before it was cut")?;
                break;
            }
        }
        let log_end = segments.last().map_or(self.recovery.log_start, |s| s.next_offset());
        if log_end < self.recovery_point {
            let (segment, lost) = (segments.last(), self.recovery_point);
            let position = segment.map_or(0, |s| s.len());
            let path = segment.map_or(self.dir, |s| s.path.as_path());
            let reason = format!("it ends at offset {log_end}, records up to {lost} were synced");
            return Err(StorageError::corrupt(path, position, reason));
        }
        Ok(segments)
    }

    /// Takes a segment that was synced whole.
    fn trust(&mut self, segment: &Segment) -> Result<bool> {
        let (walked, state) = self.load_indexes(segment)?;
        if let Some(reason) = walked.bad {
            return Err(segment.corrupt(walked.end, reason));
        }
        self.note_indexes(segment, state);
        // What a roll adds when it closes a segment.
        segment.indexes.lock().note_time();
        segment.flush_indexes(true)?;
        Ok(true)
    }

    /// Checks a segment that may not have been synced whole. Returns whether all of it is sound.
    fn check(&mut self, segment: &Segment, is_last: bool) -> Result<bool> {
        let (walked, state) = self.load_indexes(segment)?;
        if is_last && walked.bad.is_none() && walked.next_offset == self.recovery_point {
            self.note_indexes(segment, state);
            return Ok(true);
        }
        self.recovery.clean = false;
        if !state.txns {
            self.txn_indexes_lost.push(segment.base);
        }
        let walked = segment.rebuild_indexes(self.config.index_interval_bytes, true)?;
        self.recovery.verified_bytes += walked.end;
        if !is_last && walked.bad.is_none() {
            segment.indexes.lock().note_time();
        }
        match &walked.bad {
            None => Ok(true),
            Some(reason) if walked.next_offset < self.recovery_point => Err(segment.corrupt(walked.end, reason)),
            Some(_) => self.cut_tail(segment, &walked).map(|()| false),
        }
    }

    /// Loads the segment's indexes, and drops a transaction index that has lost entries since the last checkpoint.
    fn load_indexes(&self, segment: &Segment) -> Result<(Walked, IndexState)> {
        let (walked, mut state) = segment.load_indexes(self.config.index_interval_bytes)?;
        let recorded = |counts: &AbortedCounts| counts.iter().find(|c| c.0 == segment.base).map_or(0, |c| c.1);
        let mut indexes = segment.indexes.lock();
        if self.aborted.as_ref().is_none_or(|counts| indexes.txns.entries().len() < recorded(counts)) {
            indexes.txns.clear();
            state.txns = false;
        }
        drop(indexes);
        Ok((walked, state))
    }

    fn note_indexes(&mut self, segment: &Segment, state: IndexState) {
        let indexes = segment.indexes.lock();
        let files = [
            (state.offsets, indexes.offsets.path()),
            (state.times, indexes.times.path()),
            (state.txns, indexes.txns.path()),
        ];
        for (_, path) in files.iter().filter(|(sound, _)| !sound) {
            // A crash before the first checkpoint leaves none.
            match path.exists() {
                true => tracing::warn!(file = %path.display(), "index was damaged, rebuilding it"),
                false => tracing::debug!(file = %path.display(), "index was missing, rebuilding it"),
            }
            self.recovery.rebuilt.push(path.to_path_buf());
        }
        if !state.txns {
            self.txn_indexes_lost.push(segment.base);
        }
    }

    /// Cuts `segment` where its sound batches end and keeps the rest beside it.
    fn cut_tail(&mut self, segment: &Segment, walked: &Walked) -> Result<()> {
        let kept_at = names::cut(&segment.path, walked.end);
        copy_tail(segment, walked.end, &kept_at)?;
        let cut = CutTail {
            file: segment.path.clone(),
            position: walked.end,
            bytes: segment.len() - walked.end,
            kept_at,
            reason: walked.bad.clone().unwrap_or_default(),
        };
        segment.cut(walked.end, self.config.index_interval_bytes)?;
        self.note_cut(cut);
        Ok(())
    }

    /// Takes whole segments away from the end of the log, keeping their batches in renamed files.
    fn cut_segments(&mut self, bases: &[Offset], reason: &str) -> Result<()> {
        for base in bases {
            let segment = Segment::open(self.dir, *base)?;
            self.recovery.clean = false;
            if segment.len() > 0 {
                let kept_at = names::cut(&segment.path, 0);
                std::fs::rename(&segment.path, &kept_at).map_err(|e| StorageError::io("rename", &segment.path, e))?;
                let (file, bytes) = (segment.path.clone(), segment.len());
                self.note_cut(CutTail { file, position: 0, bytes, kept_at, reason: reason.to_owned() });
            }
            segment.remove()?;
        }
        files::sync_dir(self.dir)
    }

    fn note_cut(&mut self, cut: CutTail) {
        tracing::warn!(
            file = %cut.file.display(), position = cut.position, bytes = cut.bytes, kept_at = %cut.kept_at.display(),
            reason = cut.reason, "cut a torn tail off the log"
        );
        self.recovery.cut.push(cut);
    }

    /// Rebuilds what lives in memory and assembles the log.
    fn finish(mut self, segments: Vec<Arc<Segment>>) -> Result<(PartitionLog, Recovery)> {
        let first = segments.first().map_or(Offset(0), |s| s.base);
        let log_end = segments.last().map_or(first, |s| s.next_offset());
        let log_start = self.recovery.log_start.max(first);
        if log_start > log_end {
            let reason = format!("it names offset {log_start}, the log ends at {log_end}");
            return Err(StorageError::corrupt(&self.dir.join(names::LOG_START), 0, reason));
        }
        snapshot::remove_above(self.dir, log_end)?;
        let epochs = self.read_epochs(log_end)?;
        let mut replay = self.replay(log_end, epochs.clone())?;
        let txns = replay.run(&segments)?;
        replay.epochs.truncate_from_start(log_start);
        (self.recovery.log_start, self.recovery.log_end) = (log_start, log_end);
        let writer = Writer { producers: replay.producers, epochs: replay.epochs, segment_since: None };
        let state = SyncState {
            recovery_point: self.recovery_point,
            epochs: epochs.unwrap_or_default(),
            aborted: self.aborted.unwrap_or_default(),
            snapshot_at: replay.snapshot_at,
        };
        let log = PartitionLog {
            dir: self.dir.to_owned(),
            config: RwLock::new(self.config),
            sync: Mutex::new(state),
            writer: Mutex::new(writer),
            segments: RwLock::new(segments),
            txns: Mutex::new(txns),
            marks: Marks {
                log_start: AtomicI64::new(log_start.0),
                log_end: AtomicI64::new(log_end.0),
                high_watermark: AtomicI64::new(log_start.0),
                last_stable: AtomicI64::new(log_start.0),
                durable: AtomicI64::new(self.recovery_point.min(log_end).0),
            },
            bytes_since_checkpoint: AtomicU64::new(0),
            dir_dirty: AtomicBool::new(self.dir_dirty),
            closed: AtomicBool::new(false),
            failed: OnceLock::new(),
        };
        Ok((log, self.recovery))
    }

    /// Decides where the replay starts: at the newest snapshot, unless an older transaction index is lost.
    fn replay(&self, log_end: Offset, epochs: Option<LeaderEpochs>) -> Result<Replay> {
        let replay = Replay::prepare(self.dir, log_end, epochs.clone(), false)?;
        match self.txn_indexes_lost.iter().any(|base| *base < replay.producers_from) {
            // The snapshot is above markers that the index must name again.
            true => Replay::prepare(self.dir, log_end, epochs, true),
            false => Ok(replay),
        }
    }

    /// The leader epochs of the checkpoint; `None` if they must be read from the batches.
    fn read_epochs(&mut self, log_end: Offset) -> Result<Option<LeaderEpochs>> {
        let path = self.dir.join(names::LEADER_EPOCHS);
        match checkpoint::read_epochs(&path) {
            Ok(Some(entries)) if entries.iter().all(|(epoch, at)| *epoch >= LeaderEpoch(0) && at.0 >= 0) => {
                let mut epochs = LeaderEpochs::new(entries);
                let known = epochs.entries().len();
                epochs.truncate_from_end(log_end);
                if epochs.entries().len() < known {
                    // Other records will take these offsets, perhaps of another epoch.
                    checkpoint::write_epochs(&path, epochs.entries())?;
                }
                Ok(Some(epochs))
            }
            Ok(None) if log_end.0 == 0 => Ok(None),
            // A crash before the first checkpoint leaves none.
            Ok(None) => {
                tracing::debug!(file = %path.display(), "leader epochs are missing, reading the batches");
                self.recovery.rebuilt.push(path);
                Ok(None)
            }
            Ok(_) | Err(StorageError::Corrupt { .. }) => {
                tracing::warn!(file = %path.display(), "leader epochs are damaged, reading the batches");
                self.recovery.rebuilt.push(path);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// Why a segment at `base` cannot follow `previous`.
fn gap(previous: Option<&Arc<Segment>>, base: Offset) -> Option<String> {
    let end = previous?.next_offset();
    (end != base).then(|| format!("the segment begins at offset {base}, the one before it ends at {end}"))
}

/// Creates a folder and those above it, durably.
fn create_dir(dir: &Path) -> Result<()> {
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
fn list_segments(dir: &Path) -> Result<Vec<Offset>> {
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
            files::remove_if_exists(&dir.join(name))?;
        }
    }
    Ok(bases)
}

/// Copies the segment's bytes from `position` on to a file of their own, durably.
fn copy_tail(segment: &Segment, position: u64, to: &Path) -> Result<()> {
    let copy = || {
        let mut from = File::open(&segment.path)?;
        io::Seek::seek(&mut from, io::SeekFrom::Start(position))?;
        let mut out = File::create(to)?;
        io::copy(&mut from, &mut out)?;
        out.sync_all()
    };
    copy().map_err(|e| StorageError::io("copy the torn tail to", to, e))
}
