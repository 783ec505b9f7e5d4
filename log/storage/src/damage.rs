//! Damage in the middle of a log: the damaged bytes are set aside, and the intact batches around them stay readable.
//!
//! ```text
//!  before   00.log              | batch 0 | batch 5 | ~~~~ | batch 15 | batch 20 |
//!  after    00.log              | batch 0 | batch 5 |
//!           00.log.damaged-1    | batch 0 | batch 5 | ~~~~ | batch 15 | batch 20 |        everything, as it was found
//!           15.log                                         | batch 15 | batch 20 |
//! ```
//! So no segment holds known damage: damaged offsets are those between two segments. Reading them is an
//! error, and they are never given to other records.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use logmill_protocol::{
    BatchHeader, BatchLimits, BatchView, HEADER_LEN, LeaderEpoch, Offset, ProducerEpoch, ProducerId,
};

use crate::error::{Result, StorageError};
use crate::log::{CheckpointState, PartitionLog};
use crate::segment::Segment;
use crate::survey::{Run, Survey, survey};
use crate::{checkpoint, files, names};

/// Offsets whose records are lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The file that is damaged or missing, or the last one before the lost records.
    pub file: PathBuf,
    /// Where in the file.
    pub position: u64,
    /// The first offset lost.
    pub from: Offset,
    /// The offset after the last one lost; `from` if a batch's header was damaged and could be restored.
    pub to: Offset,
    /// Where the damaged bytes are kept, if there are any.
    pub kept_at: Option<PathBuf>,
    /// What is wrong.
    pub reason: String,
}

impl Damage {
    /// Whether no record is lost.
    #[must_use]
    pub fn is_mended(&self) -> bool {
        self.from >= self.to
    }

    /// What a reader of the lost offsets is told.
    pub(crate) fn error(&self) -> StorageError {
        let reason = match &self.kept_at {
            Some(kept_at) => format!("{}, the bytes are kept in {}", self.reason, kept_at.display()),
            None => self.reason.clone(),
        };
        StorageError::Lost { path: self.file.clone(), position: self.position, from: self.from, to: self.to, reason }
    }
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { file, position, from, to, kept_at, reason } = self;
        match self.is_mended() {
            true => write!(f, "{} at position {position}: {reason}; nothing is lost", file.display())?,
            false => {
                let last = to.plus(-1);
                write!(f, "{} at position {position}: {reason}; records {from} to {last} are lost", file.display())?;
            }
        }
        match kept_at {
            Some(kept_at) => write!(f, ", the damaged bytes are kept in {}", kept_at.display()),
            None => Ok(()),
        }
    }
}

impl PartitionLog {
    /// The offsets whose records are lost, as far as is known.
    #[must_use]
    pub fn damage(&self) -> Vec<Damage> {
        gaps(&self.dir, &self.segments.read())
    }

    /// Reads every batch, checks its CRC, and sets what is damaged aside. Returns the damage found now; what is known
    /// already is in [`PartitionLog::damage`]. Appends and reads go on meanwhile.
    ///
    /// # Errors
    /// If the disk refuses; what was set aside until then stays so.
    pub fn find_damage(&self) -> Result<Vec<Damage>> {
        let mut state = self.checkpoint.lock();
        let bases: Vec<Offset> = self.segments.read().iter().map(|s| s.base).collect();
        let mut found = Vec::new();
        for base in bases {
            found.extend(self.set_aside(&mut state, base)?);
        }
        Ok(found)
    }

    /// Has readers pass over the lost offsets: an empty batch takes their place. Returns what was bridged.
    ///
    /// # Errors
    /// If the disk refuses; what was bridged until then stays so.
    pub fn bridge_damage(&self) -> Result<Vec<Damage>> {
        let _state = self.checkpoint.lock();
        let mut bridged = Vec::new();
        for damage in self.damage() {
            let (previous, next) = {
                let segments = self.segments.read();
                let at = segments.partition_point(|s| s.base <= damage.from && s.next_offset() <= damage.from);
                (at.checked_sub(1).and_then(|at| segments.get(at)).cloned(), segments.get(at).cloned())
            };
            let timestamp = [&previous, &next].into_iter().flatten().map(|s| s.max_timestamp().0).find(|t| *t >= 0);
            let epoch = self.epoch_of(damage.from.plus(-1)).unwrap_or(LeaderEpoch(0));
            let bytes = bridge(damage.from, damage.to, epoch, timestamp.unwrap_or(0))?;
            write_new(&self.dir, damage.from, &bytes)?;
            files::sync_dir(&self.dir)?;
            let segment = Segment::open(&self.dir, damage.from)?;
            segment.rebuild_indexes(self.config().index_interval_bytes, true)?;
            let mut segments = self.segments.write();
            let at = segments.partition_point(|s| s.base < damage.from);
            segments.insert(at, Arc::new(segment));
            drop(segments);
            bridged.push(damage);
        }
        Ok(bridged)
    }

    /// Sets the damage that a reader met aside, once for each segment. Returns whether the reader may try again.
    pub(crate) fn met_damage(&self, error: &StorageError) -> bool {
        let StorageError::Corrupt { path, .. } = error else { return false };
        let segment = self.segments.read().iter().find(|s| s.path == *path).cloned();
        let Some(segment) = segment.filter(|s| !s.examined.swap(true, Ordering::AcqRel)) else { return false };
        match self.set_aside(&mut self.checkpoint.lock(), segment.base) {
            // Even if nothing is wrong: compaction leaves gaps that look like damage.
            Ok(_) => true,
            Err(error) => {
                tracing::warn!(segment = %segment.path.display(), %error, "cannot set damage aside");
                false
            }
        }
    }

    /// Verifies a segment and sets what is damaged aside. The caller holds the lock on checkpoints, so no segment is deleted.
    fn set_aside(&self, _state: &mut CheckpointState, base: Offset) -> Result<Vec<Damage>> {
        let segment = self.segments.read().iter().find(|s| s.base == base).cloned();
        let Some(segment) = segment else { return Ok(Vec::new()) };
        if segment.len() == 0 || survey(&segment, None)?.is_sound() {
            return Ok(Vec::new());
        }
        let is_active = self.segments.read().last().is_some_and(|last| last.base == base);
        if is_active {
            self.check_usable()?;
            self.roll_active(&mut self.writer.lock())?;
            files::sync_data(&segment.file, &segment.path).map_err(|error| self.stop(error))?;
        }
        let end = segment.next_offset();
        let found = survey(&segment, Some(end))?;
        let (parts, damage) = split(&self.dir, &segment, &found, end)?;
        let interval = self.config().index_interval_bytes;
        index_parts(&segment, &parts, interval)?;
        let mut segments = self.segments.write();
        let at = segments.partition_point(|s| s.base < base);
        segments.splice(at..=at, parts.into_iter().map(Arc::new));
        let first = segments.first().map_or(end, |s| s.base);
        drop(segments);
        if first > self.log_start() {
            checkpoint::write_offset(&self.dir, names::LOG_START, first)?;
            self.advance_log_start(first);
        }
        damage.iter().for_each(told);
        Ok(damage)
    }
}

/// Logs the damage.
pub(crate) fn told(damage: &Damage) {
    match damage.is_mended() {
        true => tracing::warn!("{damage}"),
        false => tracing::error!("{damage}"),
    }
}

/// The offsets between segments.
pub(crate) fn gaps(dir: &Path, segments: &[Arc<Segment>]) -> Vec<Damage> {
    let gaps = segments.windows(2).filter(|pair| pair[0].next_offset() < pair[1].base);
    gaps.map(|pair| gap(dir, &pair[0], pair[1].base)).collect()
}

/// The damage at `offset`, if that lies between the segment at `index` and the next one.
pub(crate) fn lost_at(dir: &Path, segments: &[Arc<Segment>], index: usize, offset: Offset) -> Option<Damage> {
    let (before, next) = (segments.get(index)?, segments.get(index + 1)?);
    (before.next_offset() <= offset && offset < next.base).then(|| gap(dir, before, next.base))
}

/// The offsets that are lost between a segment and the next one.
fn gap(dir: &Path, before: &Segment, to: Offset) -> Damage {
    let from = before.next_offset();
    let kept_at = kept_before(dir, to);
    let reason = match &kept_at {
        Some(_) => "a damaged place was found here".to_owned(),
        None => format!("the log has no batch between here and offset {to}"),
    };
    Damage { file: before.path.clone(), position: before.len(), from, to, kept_at, reason }
}

/// The damaged file that held offsets just below `offset`, if one is kept.
fn kept_before(dir: &Path, offset: Offset) -> Option<PathBuf> {
    let entries = std::fs::read_dir(dir).ok()?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let damaged = names.filter_map(|name| Some((names::parse_damaged(&name)?, name)));
    let nearest = damaged.filter(|(base, _)| *base < offset).max()?;
    Some(dir.join(nearest.1))
}

/// Replaces a segment by its intact runs, each a segment of its own, and keeps the whole file beside them. `end` is where
/// the segment's offsets end. A crash at any point is made up for when the log is opened.
pub(crate) fn split(dir: &Path, segment: &Segment, found: &Survey, end: Offset) -> Result<(Vec<Segment>, Vec<Damage>)> {
    for run in &found.runs {
        copy_run(dir, segment, run)?;
    }
    let kept_at = names::damaged(&segment.path);
    std::fs::hard_link(&segment.path, &kept_at).map_err(|e| StorageError::io("link", &kept_at, e))?;
    segment.remove_indexes()?;
    for run in found.runs.iter().rev() {
        let path = names::file(dir, run.base, names::LOG);
        let temp = temporary(&path);
        std::fs::rename(&temp, &path).map_err(|e| StorageError::io("rename", &temp, e))?;
    }
    if found.runs.first().is_none_or(|run| run.base != segment.base) {
        files::remove_if_exists(&segment.path)?;
    }
    files::sync_dir(dir)?;
    let parts = found.runs.iter().map(|run| Segment::open(dir, run.base)).collect::<Result<Vec<_>>>()?;
    Ok((parts, damage_of(segment, found, end, &kept_at)))
}

fn damage_of(segment: &Segment, found: &Survey, end: Offset, kept_at: &Path) -> Vec<Damage> {
    let damage = |position, from, to, reason| {
        let (file, kept_at) = (segment.path.clone(), Some(kept_at.to_owned()));
        Damage { file, position, from, to, kept_at, reason }
    };
    let mended = found.runs.iter().flat_map(|run| &run.mended);
    let mended = mended.filter_map(|(position, header)| {
        let at = BatchHeader::peek(header).ok()?.base_offset;
        Some(damage(*position, at, at, format!("the header of the batch at offset {at} was damaged and is restored")))
    });
    let holes = found
        .holes
        .iter()
        .map(|hole| damage(hole.start, hole.from, hole.to.unwrap_or(end).max(hole.from), hole.reason.clone()));
    mended.chain(holes).collect()
}

/// Makes the indexes of a segment's parts.
pub(crate) fn index_parts(whole: &Segment, parts: &[Segment], interval_bytes: u64) -> Result<()> {
    let mut known_from = whole.base;
    for part in parts {
        part.rebuild_indexes(interval_bytes, false)?;
        part.adopt_aborted(whole, known_from)?;
        part.indexes.lock().note_time();
        known_from = part.next_offset();
    }
    Ok(())
}

/// Copies a run's batches to a temporary file, durably.
fn copy_run(dir: &Path, segment: &Segment, run: &Run) -> Result<()> {
    let temp = temporary(&names::file(dir, run.base, names::LOG));
    let copy = || {
        let mut from = File::open(&segment.path)?;
        from.seek(SeekFrom::Start(run.start))?;
        let mut out = File::create(&temp)?;
        io::copy(&mut from.take(run.end - run.start), &mut out)?;
        for (position, header) in &run.mended {
            out.seek(SeekFrom::Start(position - run.start))?;
            out.write_all(header)?;
        }
        out.sync_all()
    };
    copy().map_err(|e| StorageError::io("copy intact batches to", &temp, e))
}

fn temporary(path: &Path) -> PathBuf {
    let mut temp = path.as_os_str().to_owned();
    temp.push(names::TEMP_SUFFIX);
    temp.into()
}

/// Writes a new segment file, durably.
fn write_new(dir: &Path, base: Offset, bytes: &[u8]) -> Result<()> {
    let path = names::file(dir, base, names::LOG);
    let temp = temporary(&path);
    let write = || {
        let mut file = File::create(&temp)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temp, &path)
    };
    write().map_err(|e| StorageError::io("write", &path, e))
}

/// Batches without records that take the offsets `from..to`, as compaction leaves them.
fn bridge(from: Offset, to: Offset, leader_epoch: LeaderEpoch, timestamp: i64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut next = from;
    while next < to {
        let offsets = (to.0 - next.0).min(i64::from(i32::MAX));
        let mut header = BatchHeader {
            base_offset: next,
            batch_length: (HEADER_LEN - LENGTH_COUNTS_FROM) as u32,
            leader_epoch,
            magic: 2,
            crc: 0,
            attributes: 0,
            last_offset_delta: (offsets - 1) as i32,
            base_timestamp: logmill_protocol::Timestamp(timestamp),
            max_timestamp: logmill_protocol::Timestamp(timestamp),
            producer_id: ProducerId::NONE,
            producer_epoch: ProducerEpoch::NONE,
            base_sequence: -1,
            record_count: 0,
        };
        header.crc = crc_fast::crc32_iscsi(&header.encode()[CRC_COVERS_FROM..]);
        let encoded = header.encode();
        BatchView::parse(&encoded)?.0.validate(&BatchLimits::STORED)?;
        bytes.extend_from_slice(&encoded);
        next = next.plus(offsets);
        if next.0 - from.0 > i64::from(i32::MAX) {
            return Err(StorageError::Refused { reason: "more offsets are lost than a segment can hold" });
        }
    }
    Ok(bytes)
}

/// Bytes before what the length counts, and before what the CRC covers.
const LENGTH_COUNTS_FROM: usize = 12;
const CRC_COVERS_FROM: usize = 21;
