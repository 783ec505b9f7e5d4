//! What the bytes of a damaged segment still hold: intact batches, and the places between them.
//!
//! ```text
//!  | batch | batch | ~~~~~~~~ | batch | batch | ~~~~      intact runs, and damage before, between and behind them
//!    run 0           damage     run 1           damage
//! ```
//! The CRC does not cover the first 21 bytes of a batch. If only its base offset, length or magic is damaged, the batches
//! around it say what it was, and the CRC proves the guess right, and nothing is lost.

use logmill_protocol::{BatchHeader, BatchLimits, BatchView, HEADER_LEN, Offset};

use crate::error::Result;
use crate::files;
use crate::segment::Segment;

/// Bytes searched at once for the next batch.
const SEARCH_BYTES: usize = 256 << 10;
/// The longest batch whose header is guessed.
const MAX_MENDED_BYTES: u64 = 128 << 20;
/// Bytes before the length's first byte, and before the first byte that the length counts.
const LENGTH_AT: usize = 8;
const LENGTH_COUNTS_FROM: usize = 12;
const MAGIC_AT: usize = 16;
const MAGIC: u8 = 2;

/// Batches that follow each other without a gap, all of them verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    /// Where the run lies in the file.
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// Its first offset, and the one after its last.
    pub(crate) base: Offset,
    pub(crate) next_offset: Offset,
    /// Headers to be written in place of the damaged ones, by position.
    pub(crate) mended: Vec<(u64, [u8; HEADER_LEN])>,
}

/// A part of the file that holds no batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hole {
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// The offset that should follow here.
    pub(crate) from: Offset,
    /// The offset of the batch behind it; `None` at the end of the file.
    pub(crate) to: Option<Offset>,
    pub(crate) reason: String,
}

/// What a segment holds, from a position on.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Survey {
    pub(crate) runs: Vec<Run>,
    pub(crate) holes: Vec<Hole>,
}

impl Survey {
    /// Whether the bytes need no change.
    pub(crate) fn is_sound(&self) -> bool {
        self.holes.is_empty() && self.runs.iter().all(|run| run.mended.is_empty())
    }

    /// The hole that reaches to the end of the file, if there is one.
    pub(crate) fn tail(&self) -> Option<&Hole> {
        self.holes.last().filter(|hole| hole.to.is_none())
    }
}

/// A batch that was found at a position.
#[derive(Debug, Clone, Copy)]
struct Batch {
    header: BatchHeader,
    start: u64,
}

impl Batch {
    fn end(&self) -> u64 {
        self.start + self.header.total_len() as u64
    }
}

/// Verifies every batch of `segment`, all of which have offsets from its base up to `limit`, exclusive: batches from there on
/// are in the next segment, too, and are left out.
pub(crate) fn survey(segment: &Segment, limit: Option<Offset>) -> Result<Survey> {
    survey_behind(segment, 0, segment.base, limit)
}

/// As [`survey`], of a segment whose batches are known to be sound up to `position`, where the batch of `expected` begins.
pub(crate) fn survey_behind(
    segment: &Segment,
    position: u64,
    expected: Offset,
    limit: Option<Offset>,
) -> Result<Survey> {
    let mut surveyor = Surveyor { segment, len: segment.len(), limit, survey: Survey::default() };
    if position > 0 {
        let (base, mended) = (segment.base, Vec::new());
        surveyor.survey.runs.push(Run { start: 0, end: position, base, next_offset: expected, mended });
    }
    surveyor.run(position, expected)?;
    Ok(surveyor.survey)
}

/// Whether `segment` holds a sound batch with an offset of at least `from`.
pub(crate) fn has_batch(segment: &Segment, from: Offset, limit: Option<Offset>) -> Result<bool> {
    let surveyor = Surveyor { segment, len: segment.len(), limit, survey: Survey::default() };
    Ok(surveyor.find(0, from)?.is_some())
}

struct Surveyor<'a> {
    segment: &'a Segment,
    len: u64,
    limit: Option<Offset>,
    survey: Survey,
}

impl Surveyor<'_> {
    fn run(&mut self, mut position: u64, mut expected: Offset) -> Result<()> {
        while position < self.len {
            let batch = match self.verify(position)? {
                Ok(batch) if self.is_beyond(batch.header.base_offset) && self.follows(&batch)? => return Ok(()),
                Ok(batch) if batch.header.base_offset == expected => batch,
                found => {
                    let next = self.find(position + 1, expected)?;
                    let mended = self.mend(position, expected, next.as_ref())?;
                    match (mended, found) {
                        (Some(mended), _) => {
                            self.add(mended, Some(mended.header.encode()));
                            (position, expected) = (mended.end(), mended.header.next_offset());
                            continue;
                        }
                        // Compaction leaves such gaps.
                        (None, Ok(batch)) if batch.header.base_offset > expected && leads_to(&batch, next.as_ref()) => {
                            batch
                        }
                        (None, found) => {
                            let reason = match found {
                                Ok(batch) => format!("offset {} does not follow {expected}", batch.header.base_offset),
                                Err(reason) => reason,
                            };
                            let (end, to) = next.map_or((self.len, None), |n| (n.start, Some(n.header.base_offset)));
                            let from = expected;
                            self.survey.holes.push(Hole { start: position, end, from, to, reason });
                            (position, expected) = (end, to.unwrap_or(expected));
                            continue;
                        }
                    }
                }
            };
            self.add(batch, None);
            (position, expected) = (batch.end(), batch.header.next_offset());
        }
        Ok(())
    }

    /// Adds a batch to the run that it follows, or begins one with it.
    fn add(&mut self, batch: Batch, mended: Option<[u8; HEADER_LEN]>) {
        let mended = mended.map(|header| (batch.start, header));
        let (start, end) = (batch.start, batch.end());
        let next_offset = batch.header.next_offset();
        match self.survey.runs.last_mut().filter(|run| run.end == start) {
            Some(run) => {
                (run.end, run.next_offset) = (end, next_offset);
                run.mended.extend(mended);
            }
            None => {
                let (base, mended) = (batch.header.base_offset, mended.into_iter().collect());
                self.survey.runs.push(Run { start, end, base, next_offset, mended });
            }
        }
    }

    /// The batch at `position`, with its CRC verified, or what is wrong with it.
    fn verify(&self, position: u64) -> Result<Result<Batch, String>> {
        let mut head = vec![0; HEADER_LEN.min((self.len - position) as usize)];
        self.read(&mut head, position)?;
        let header = match BatchHeader::peek(&head) {
            Ok(header) => header,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let len = header.total_len() as u64;
        if len > self.len - position {
            let left = self.len - position;
            return Ok(Err(format!("the batch claims {len} bytes, only {left} follow")));
        }
        let mut bytes = vec![0; header.total_len()];
        self.read(&mut bytes, position)?;
        let sound = BatchView::parse(&bytes).and_then(|(batch, _)| batch.validate(&BatchLimits::STORED));
        let relative = header.last_offset().0.saturating_sub(self.segment.base.0);
        Ok(match sound {
            Err(error) => Err(error.to_string()),
            Ok(()) if header.base_offset < self.segment.base || relative > i64::from(i32::MAX) => {
                Err(format!("offset {} cannot be in this segment", header.base_offset))
            }
            Ok(()) => Ok(Batch { header, start: position }),
        })
    }

    fn is_beyond(&self, offset: Offset) -> bool {
        self.limit.is_some_and(|limit| offset >= limit)
    }

    /// Whether what lies behind `batch` goes on where it ends, or is nothing that tells.
    fn follows(&self, batch: &Batch) -> Result<bool> {
        if batch.end() >= self.len {
            return Ok(true);
        }
        let behind = self.verify(batch.end())?;
        Ok(behind.map_or(true, |behind| behind.header.base_offset >= batch.header.next_offset()))
    }

    /// The first sound batch that begins at or after `position`, with an offset of at least `from`.
    fn find(&self, position: u64, from: Offset) -> Result<Option<Batch>> {
        let mut at = position;
        let mut chunk = Vec::new();
        while at + HEADER_LEN as u64 <= self.len {
            let want = (self.len - at).min((SEARCH_BYTES + HEADER_LEN) as u64) as usize;
            chunk.resize(want, 0);
            self.read(&mut chunk, at)?;
            for (offset, window) in chunk.windows(HEADER_LEN).enumerate() {
                if window.get(MAGIC_AT) != Some(&MAGIC) || !self.is_plausible(window, from) {
                    continue;
                }
                if let Ok(batch) = self.verify(at + offset as u64)?
                    && self.follows(&batch)?
                {
                    return Ok(Some(batch));
                }
            }
            at += (want - HEADER_LEN + 1) as u64;
        }
        Ok(None)
    }

    /// Whether a batch's first bytes may be those of one with an offset that can stand here.
    fn is_plausible(&self, head: &[u8], from: Offset) -> bool {
        let Some(bytes) = head.first_chunk::<8>() else { return false };
        let base = Offset(i64::from_be_bytes(*bytes));
        base >= from && base.0.saturating_sub(self.segment.base.0) <= i64::from(i32::MAX) && !self.is_beyond(base)
    }

    /// The batch at `position` if only what its CRC does not cover is damaged.
    fn mend(&self, position: u64, expected: Offset, next: Option<&Batch>) -> Result<Option<Batch>> {
        let end = next.map_or(self.len, |next| next.start);
        let len = end - position;
        if len < HEADER_LEN as u64 || len > MAX_MENDED_BYTES {
            return Ok(None);
        }
        let mut bytes = vec![0; len as usize];
        self.read(&mut bytes, position)?;
        // Where no batch follows, a sound batch of another offset is a leftover.
        if next.is_none() && !bytes.starts_with(&expected.0.to_be_bytes()) {
            return Ok(None);
        }
        let length = (len as usize - LENGTH_COUNTS_FROM) as u32;
        let guess = [(0, &expected.0.to_be_bytes()[..]), (LENGTH_AT, &length.to_be_bytes()), (MAGIC_AT, &[MAGIC])];
        for (at, field) in guess {
            if let Some(place) = bytes.get_mut(at..at + field.len()) {
                place.copy_from_slice(field);
            }
        }
        let Ok((batch, _)) = BatchView::parse(&bytes) else { return Ok(None) };
        let header = *batch.header();
        let mended = Batch { header, start: position };
        let is_sound = (next.is_none() || leads_to(&mended, next)) && batch.validate(&BatchLimits::STORED).is_ok();
        Ok(is_sound.then_some(mended))
    }

    fn read(&self, buffer: &mut [u8], position: u64) -> Result<()> {
        files::read_at(&self.segment.file, &self.segment.path, buffer, position)
    }
}

/// Whether `next` goes on where `batch` ends.
fn leads_to(batch: &Batch, next: Option<&Batch>) -> bool {
    next.is_some_and(|next| next.start == batch.end() && next.header.base_offset == batch.header.next_offset())
}
