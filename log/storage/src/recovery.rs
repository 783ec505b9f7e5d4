//! Opening a log: what was synced is trusted and completed, what was not is checked. A torn tail is cut; damage with sound
//! batches behind it is set aside.
//!
//! ```text
//!   [ seg 0 ][ seg 1000 ][ seg 2000             ][ seg 3000       ]
//!   indexes loaded, tail   |     recovery point ^       torn here ^
//!   completed              '- verified from the index entry below the recovery point on
//! ```
//! - Bad from there to the end of the log, at or above the recovery point: a torn tail. It is cut and kept beside the segment.
//! - Anything else is damage: the intact batches around it stay where they are, see [`crate::damage`], and the offsets of
//!   the lost ones are not given to others. The log never ends below the recovery point.
//!
//! What is checked is read from the disk. A sync that fails leaves pages in memory that the kernel counts as written: a
//! process that is started again would find everything there, and the disk would not hold it.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use logmill_protocol::{LeaderEpoch, Offset};
use parking_lot::{Mutex, RwLock};

use crate::checkpoint::{AbortedCounts, Recorded};
use crate::config::LogConfig;
use crate::damage::{Damage, gaps, index_parts, split, told};
use crate::error::{Result, StorageError};
use crate::leader_epochs::LeaderEpochs;
use crate::log::{CheckpointState, Marks, PartitionLog, Writer, store};
use crate::log_dir::{create_dir, list_segments, read_checkpoint, readable_segments};
use crate::replay::Replay;
use crate::segment::{IndexState, Segment, Walked};
use crate::survey::{Survey, has_batch, survey, survey_behind};
use crate::transactions::Transactions;
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
    /// What is damaged: found now, or known from earlier.
    pub damage: Vec<Damage>,
    /// Index and checkpoint files that were missing or wrong and have been made again, as far as the batches tell.
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
    /// What is damaged does not keep the log from opening: see [`Recovery::damage`].
    ///
    /// # Errors
    /// `InvalidConfig`, `Io`, `DiskFull`.
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

    /// Creates a log that starts at `start`, where none exists: the records below are lost.
    ///
    /// # Errors
    /// `Refused` if there is a log already; `Io`, `DiskFull`.
    pub fn create_at(dir: &Path, start: Offset) -> Result<()> {
        create_dir(dir)?;
        if !list_segments(dir)?.is_empty() {
            return Err(StorageError::Refused { reason: "there is a log already" });
        }
        checkpoint::write_offset(dir, names::LOG_START, start)
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

/// What a segment turned out to be.
enum Found {
    Sound,
    /// From here to the end of the log there is no sound batch, and none had been synced.
    Torn(Walked),
    Damaged(Survey),
}

/// A log that is being opened.
struct Opening<'a> {
    dir: &'a Path,
    config: LogConfig,
    recovery_point: Offset,
    /// Recovery point and log start, as the checkpoints say.
    recorded: [Option<Recorded>; 2],
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
        let mut rebuilt = Vec::new();
        let recovery_point = read_checkpoint(dir, names::RECOVERY_POINT, &mut rebuilt, checkpoint::read_offset)?;
        let log_start = read_checkpoint(dir, names::LOG_START, &mut rebuilt, checkpoint::read_offset)?;
        let aborted_damaged = rebuilt.len();
        let aborted = read_checkpoint(dir, names::ABORTED, &mut rebuilt, checkpoint::read_aborted)?;
        let aborted = (rebuilt.len() == aborted_damaged).then(|| aborted.unwrap_or_default());
        let start = log_start.map_or(Offset(0), |start| start.offset);
        let recovery = Recovery {
            clean: true,
            log_start: start,
            log_end: start,
            verified_bytes: 0,
            cut: Vec::new(),
            damage: Vec::new(),
            rebuilt,
        };
        Ok(Self {
            dir,
            config,
            recovery_point: recovery_point.map_or(Offset(0), |point| point.offset),
            recorded: [recovery_point, log_start],
            recovery,
            txn_indexes_lost: Vec::new(),
            aborted,
            dir_dirty: false,
        })
    }

    /// Opens and checks every segment.
    fn open_segments(&mut self) -> Result<Vec<Arc<Segment>>> {
        let (bases, set_aside) = readable_segments(self.dir)?;
        self.recovery.clean &= !set_aside;
        let mut segments: Vec<Arc<Segment>> = Vec::with_capacity(bases.len());
        for (i, base) in bases.iter().enumerate() {
            let segment = Segment::open(self.dir, *base)?;
            let behind = &bases[i + 1..];
            let is_synced = behind.first().is_some_and(|next| *next <= self.recovery_point);
            let found = match is_synced {
                true => self.trust(&segment, behind)?,
                false => self.check(&segment, behind)?,
            };
            match found {
                Found::Sound => segments.push(Arc::new(segment)),
                Found::Damaged(survey) => segments.extend(self.set_aside(&segment, &survey, behind)?),
                Found::Torn(walked) => {
                    self.cut_tail(&segment, &walked)?;
                    segments.push(Arc::new(segment));
                    self.cut_segments(behind, "the segment before it was cut")?;
                    break;
                }
            }
        }
        self.end_segments(&mut segments)?;
        Ok(segments)
    }

    /// Notes the offsets that are missing, and ensures that the log ends after everything that was synced.
    fn end_segments(&mut self, segments: &mut Vec<Arc<Segment>>) -> Result<()> {
        let log_end = segments.last().map_or(self.recovery.log_start, |s| s.next_offset());
        if let Some(first) = segments.first().map(|s| s.base) {
            self.distrust_beyond(log_end, first);
        }
        self.undo_rolls(segments)?;
        let log_end = segments.last().map_or(log_end, |s| s.next_offset());
        let end = log_end.max(self.recovery_point).max(self.recovery.log_start);
        if log_end < end {
            let (file, position) = match segments.last() {
                Some(last) => (last.path.clone(), last.len()),
                None => (self.dir.to_owned(), 0),
            };
            let mut kept_at = None;
            if segments.last().is_some_and(|last| last.len() == 0) {
                kept_at = Some(files::set_aside(&file)?);
                segments.pop();
            }
            let reason = format!("the log ends at offset {log_end}, records up to {} were synced", end.plus(-1));
            self.note_damage(Damage { file, position, from: log_end, to: end, kept_at, reason });
        }
        if segments.is_empty() || log_end < end {
            self.recovery.clean &= log_end >= end;
            self.dir_dirty = true;
            segments.push(Arc::new(Segment::create(self.dir, end)?));
        }
        if let Some(first) = segments.first().map(|s| s.base).filter(|first| *first > self.recovery.log_start) {
            let (file, reason) = (self.dir.to_owned(), format!("the first segment begins at offset {first}"));
            let (from, kept_at) = (self.recovery.log_start, None);
            // Older versions deleted segments without noting where the log begins; their checkpoints have no CRC.
            let recorded: Vec<_> = self.recorded.iter().flatten().collect();
            if recorded.is_empty() || recorded.iter().any(|recorded| recorded.is_checked) {
                self.note_damage(Damage { file, position: 0, from, to: first, kept_at, reason });
            }
            // Told once.
            checkpoint::write_offset(self.dir, names::LOG_START, first)?;
        }
        gaps(self.dir, segments).into_iter().for_each(|gap| self.note_damage(gap));
        self.recovery.damage.sort_by_key(|damage| damage.from);
        self.recovery.damage.iter().for_each(told);
        Ok(())
    }

    /// Removes empty segments behind records that did not reach the disk and were not synced: the disk kept the roll alone.
    fn undo_rolls(&mut self, segments: &mut Vec<Arc<Segment>>) -> Result<()> {
        let synced = self.recovery_point.max(self.recovery.log_start);
        while let [.., before, last] = segments.as_slice()
            && last.len() == 0
            && before.next_offset() < last.base
            && before.next_offset() >= synced
        {
            let base = last.base;
            segments.pop();
            self.cut_segments(&[base], "the records before it did not reach the disk")?;
        }
        Ok(())
    }

    /// Ignores checkpoints that name an offset beyond the log and have no CRC: a wrong number is as likely as lost records.
    fn distrust_beyond(&mut self, log_end: Offset, first: Offset) {
        let is_wrong = |recorded: Option<Recorded>| recorded.is_some_and(|r| !r.is_checked && r.offset > log_end);
        let [point, start] = self.recorded.map(is_wrong);
        if point || start {
            tracing::warn!(log = %self.dir.display(), %log_end, "a checkpoint names an offset beyond the log, it is ignored");
        }
        self.recovery_point = if point { log_end } else { self.recovery_point };
        self.recovery.log_start = if start { first } else { self.recovery.log_start };
    }

    /// Notes damage, unless more is known of it already.
    fn note_damage(&mut self, damage: Damage) {
        let is_known = |known: &Damage| (known.from, known.to) == (damage.from, damage.to) && !known.is_mended();
        if !self.recovery.damage.iter().any(is_known) {
            self.recovery.damage.push(damage);
        }
    }

    /// Takes a segment that was synced whole.
    fn trust(&mut self, segment: &Segment, behind: &[Offset]) -> Result<Found> {
        if let Some(walked) = segment.open_closed_indexes(self.config.index_interval_bytes)?
            && behind.first().is_none_or(|next| walked.next_offset <= *next)
            && self.keep_aborted(segment)
        {
            return Ok(Found::Sound);
        }
        let (walked, state) = self.load_indexes(segment)?;
        self.note_indexes(segment, state);
        if walked.bad.is_some() || behind.first().is_some_and(|next| walked.next_offset > *next) {
            return survey(segment, behind.first().copied()).map(Found::Damaged);
        }
        // What a roll adds when it closes a segment.
        segment.indexes.lock().note_time();
        segment.flush_indexes(true)?;
        Ok(Found::Sound)
    }

    /// Checks a segment that may not have been synced whole.
    fn check(&mut self, segment: &Segment, behind: &[Offset]) -> Result<Found> {
        let (walked, state) = self.load_indexes(segment)?;
        let is_last = behind.is_empty();
        if is_last && walked.bad.is_none() && walked.next_offset == self.recovery_point {
            self.note_indexes(segment, state);
            return Ok(Found::Sound);
        }
        self.recovery.clean = false;
        if !state.txns {
            self.txn_indexes_lost.push(segment.base);
        }
        segment.forget_cached();
        let (walked, verified) = segment.verify_from(self.recovery_point, self.config.index_interval_bytes)?;
        self.recovery.verified_bytes += verified;
        let next = behind.first().copied();
        if walked.bad.is_none() && next.is_none_or(|next| walked.next_offset <= next) {
            if !is_last {
                segment.indexes.lock().note_time();
            }
            return Ok(Found::Sound);
        }
        // The index entry that the check began at may be what is wrong.
        let starts_sound = walked.end > 0 && walked.next_offset > segment.base;
        let (position, expected) = if starts_sound { (walked.end, walked.next_offset) } else { (0, segment.base) };
        let found = survey_behind(segment, position, expected, next)?;
        if found.is_sound() {
            segment.rebuild_indexes(self.config.index_interval_bytes, true)?;
            return Ok(Found::Sound);
        }
        let is_tail = found.tail().is_some_and(|tail| tail.start == walked.end && tail.from >= self.recovery_point);
        match is_tail && !self.has_batch_in(behind, walked.next_offset)? {
            true => Ok(Found::Torn(walked)),
            false => Ok(Found::Damaged(found)),
        }
    }

    /// Whether any of these segments holds a sound batch.
    fn has_batch_in(&self, bases: &[Offset], from: Offset) -> Result<bool> {
        for (i, base) in bases.iter().enumerate() {
            let segment = Segment::open(self.dir, *base)?;
            if has_batch(&segment, from.max(*base), bases.get(i + 1).copied())? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Sets a damaged segment aside, and returns what is intact of it, each part a segment of its own.
    fn set_aside(&mut self, segment: &Segment, found: &Survey, behind: &[Offset]) -> Result<Vec<Arc<Segment>>> {
        self.recovery.clean = false;
        let intact_end = found.runs.last().map_or(segment.base, |run| run.next_offset);
        let tail = found.tail().filter(|hole| hole.from >= self.recovery_point);
        let is_torn = tail.is_some() && !self.has_batch_in(behind, intact_end)?;
        let end = match behind.first() {
            Some(next) => *next,
            None => intact_end.max(self.recovery_point),
        };
        let (parts, mut damage) = split(self.dir, segment, found, if is_torn { intact_end } else { end })?;
        index_parts(segment, &parts, self.config.index_interval_bytes)?;
        // A torn tail lost nothing that had been synced.
        if let Some(tail) = tail.filter(|_| is_torn)
            && let Some(kept_at) = damage.last().and_then(|damage| damage.kept_at.clone())
        {
            damage.retain(|damage| damage.position != tail.start);
            let (file, bytes) = (segment.path.clone(), tail.end - tail.start);
            self.note_cut(CutTail { file, position: tail.start, bytes, kept_at, reason: tail.reason.clone() });
        }
        self.recovery.damage.extend(damage);
        Ok(parts.into_iter().map(Arc::new).collect())
    }

    /// Loads the segment's indexes, and drops a transaction index that has lost entries since the last checkpoint.
    fn load_indexes(&self, segment: &Segment) -> Result<(Walked, IndexState)> {
        let (walked, mut state) = segment.load_indexes(self.config.index_interval_bytes)?;
        if !self.keep_aborted(segment) {
            segment.indexes.lock().txns.clear();
            state.txns = false;
        }
        Ok((walked, state))
    }

    /// Whether the segment's transaction index has as many entries as at the last checkpoint.
    fn keep_aborted(&self, segment: &Segment) -> bool {
        let recorded = |counts: &AbortedCounts| counts.iter().find(|c| c.0 == segment.base).map_or(0, |c| c.1);
        let found = segment.indexes.lock().txns.entries().len();
        self.aborted.as_ref().is_some_and(|counts| found >= recorded(counts))
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
        segment.cut_behind(walked.end)?;
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
        snapshot::remove_above(self.dir, log_end)?;
        let epochs = self.read_epochs(log_end)?;
        let (mut replay, txns, segments) = self.run_replay(log_end, epochs.as_ref(), segments)?;
        replay.epochs.truncate_from_start(log_start);
        (self.recovery.log_start, self.recovery.log_end) = (log_start, log_end);
        let writer = Writer { producers: replay.producers, epochs: replay.epochs, segment_since: None };
        let state = CheckpointState {
            recovery_point: self.recovery_point,
            epochs: epochs.unwrap_or_default(),
            aborted: self.aborted.unwrap_or_default(),
            snapshot_at: replay.snapshot_at,
        };
        let log = PartitionLog {
            dir: self.dir.to_owned(),
            config: RwLock::new(self.config),
            checkpoint: Mutex::new(state),
            syncing: Mutex::new(()),
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

    /// Replays the batches. Damage in what was trusted is set aside when it is met.
    fn run_replay(
        &mut self,
        log_end: Offset,
        epochs: Option<&LeaderEpochs>,
        mut segments: Vec<Arc<Segment>>,
    ) -> Result<(Replay, Transactions, Vec<Arc<Segment>>)> {
        loop {
            let mut replay = self.replay(log_end, epochs.cloned())?;
            let error = match replay.run(&segments) {
                Ok(txns) => return Ok((replay, txns, segments)),
                Err(error) => error,
            };
            let StorageError::Corrupt { path, .. } = &error else { return Err(error) };
            let Some(at) = segments.iter().position(|s| s.path == *path) else { return Err(error) };
            let segment = Arc::clone(&segments[at]);
            let behind: Vec<Offset> = segments.iter().skip(at + 1).map(|s| s.base).collect();
            let found = survey(&segment, behind.first().copied())?;
            if found.is_sound() {
                return Err(error);
            }
            let known = self.recovery.damage.len();
            let parts = self.set_aside(&segment, &found, &behind)?;
            self.recovery.damage.iter().skip(known).for_each(told);
            segments.splice(at..=at, parts);
        }
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
        let read_epochs = |path: &Path| match checkpoint::read_epochs(path)? {
            Some(entries) if entries.iter().any(|(epoch, at)| *epoch < LeaderEpoch(0) || at.0 < 0) => {
                Err(StorageError::corrupt(path, 0, "leader epochs are negative"))
            }
            entries => Ok(entries),
        };
        let known = self.recovery.rebuilt.len();
        let Some(entries) = read_checkpoint(self.dir, names::LEADER_EPOCHS, &mut self.recovery.rebuilt, read_epochs)?
        else {
            // A crash before the first checkpoint leaves none.
            if self.recovery.rebuilt.len() == known && log_end.0 > 0 {
                tracing::debug!(file = %path.display(), "leader epochs are missing, reading the batches");
                self.recovery.rebuilt.push(path);
            }
            return Ok(None);
        };
        let mut epochs = LeaderEpochs::new(entries);
        let known = epochs.entries().len();
        epochs.truncate_from_end(log_end);
        if epochs.entries().len() < known {
            // Other records will take these offsets, perhaps of another epoch.
            checkpoint::write_epochs(&path, epochs.entries())?;
        }
        Ok(Some(epochs))
    }
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
