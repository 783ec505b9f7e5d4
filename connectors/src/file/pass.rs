//! One pass through one open file.
//!
//! ```text
//!   file ─ 1 MiB reads ─▶ buffer ─ cut after the last whole record ─▶ chunks that share it ─▶ channel ─▶ Reader
//!                            └── the rest stays, and is read on
//! ```

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bytes::{Buf, Bytes, BytesMut};

use super::config::Compression;
use super::framing::Line;
use super::identity::{FileId, FilePosition, HEAD_BYTES, TAIL_BYTES, decompress, digest, digest_at, unfinished_head};
use super::lines::{Chunks, Lines, Stand, Stop};
use super::pace::Pace;
use super::siblings;
use crate::error::ConnectorError;
use crate::source::{CHUNK_BYTES, Chunk, ChunkData, Records};

/// The longest record accepted, in bytes.
pub const MAX_LINE_BYTES: usize = 16 << 20;
/// What some editors put at the beginning of UTF-8 text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// How a pass ended.
pub(super) enum End {
    /// The split has ended.
    Complete,
    /// The file was read to its end, and the split goes on elsewhere.
    Next(Stand),
}

/// One pass through one open file.
pub(super) struct Pass<'a> {
    lines: &'a Lines,
    path: PathBuf,
    compression: Compression,
    file: File,
    id: FileId,
    input: Box<dyn Read>,
    position: FilePosition,
    /// Text that was read and not handed over yet.
    buffer: BytesMut,
    found: Vec<Line>,
}

impl<'a> Pass<'a> {
    /// Opens a file; `None` if it does not exist.
    pub(super) fn open(lines: &'a Lines, stand: &Stand) -> Result<Option<Self>, ConnectorError> {
        let Stand { path, position } = stand.clone();
        let failed = |error| lines.failed(&path, error);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let id = FileId::of(&file.metadata().map_err(failed)?);
        let compression = lines.compression_of(&path);
        let start = if compression == Compression::None { position.byte } else { 0 };
        file.seek(SeekFrom::Start(start)).map_err(failed)?;
        let mut input = decompress(file.try_clone().map_err(failed)?, compression).map_err(failed)?;
        let skip = position.byte - start;
        if io::copy(&mut input.by_ref().take(skip), &mut io::sink()).map_err(failed)? < skip {
            return Err(lines.gap("the file has shrunk"));
        }
        let mut tracked = lines.tracked.lock();
        tracked.path.clone_from(&path);
        tracked.position = FilePosition { file: Some(id), ..position.clone() };
        tracked.is_open = true;
        drop(tracked);
        let (buffer, found) = (BytesMut::new(), Vec::new());
        Ok(Some(Self { lines, path, compression, file, id, input, position, buffer, found }))
    }

    pub(super) fn run(&mut self, chunks: &Chunks) -> Result<End, Stop> {
        loop {
            let ended = self.fill()? == 0;
            if self.position.byte == 0 && self.buffer.starts_with(BYTE_ORDER_MARK) {
                self.buffer.advance(BYTE_ORDER_MARK.len());
                self.position.byte = BYTE_ORDER_MARK.len() as u64;
            }
            let waits = self.lines.follow && self.compression == Compression::None;
            // The last record of a file that ends need not have a newline.
            self.hand_over(ended && !waits, chunks)?;
            self.check_length()?;
            if !ended {
                continue;
            }
            if !waits {
                return self.finish();
            }
            let (is_over, is_replaced) = self.is_over()?;
            // What was written before the file was left is there by now.
            if is_over && self.fill()? == 0 {
                self.hand_over(true, chunks)?;
                return if is_replaced { self.finish() } else { Ok(End::Complete) };
            }
            if !is_over {
                self.lines.wait(chunks)?;
                if self.is_rewritten()? {
                    return self.rewritten(chunks);
                }
            }
        }
    }

    fn check_length(&self) -> Result<(), Stop> {
        if self.buffer.len() <= MAX_LINE_BYTES {
            return Ok(());
        }
        let hint = self.lines.framing.long_record_hint();
        Err(Stop::Error(ConnectorError::Data {
            place: format!("{}:{}, byte {}", self.lines.place, self.position.line + 1, self.position.byte),
            message: format!("the record is longer than {MAX_LINE_BYTES} bytes{hint}"),
        }))
    }

    /// Reads about a chunk; returns how many bytes there were.
    fn fill(&mut self) -> Result<usize, Stop> {
        let before = self.buffer.len();
        self.buffer.resize(before + CHUNK_BYTES, 0);
        let read = loop {
            match self.input.read(self.buffer.get_mut(before..).unwrap_or_default()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        let read = read.map_err(|error| self.lines.failed(&self.path, error))?;
        self.buffer.truncate(before + read);
        Ok(read)
    }

    /// Whether nothing more will be written to a followed file: another has taken its place and has something in it, or it is
    /// removed; and whether it was the former.
    fn is_over(&self) -> Result<(bool, bool), Stop> {
        let failed = |error| self.lines.failed(&self.path, error);
        if !self.lines.goes_on {
            return Ok((self.file.metadata().map_err(failed)?.nlink() == 0, false));
        }
        match std::fs::metadata(&self.lines.path) {
            Ok(now) => {
                let is_replaced = FileId::of(&now) != self.id && now.len() > 0;
                Ok((is_replaced, is_replaced))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok((false, false)),
            Err(error) => Err(failed(error).into()),
        }
    }

    /// What comes after a file that was read to its end.
    fn finish(&self) -> Result<End, Stop> {
        if !self.lines.follow || !self.lines.goes_on {
            return Ok(End::Complete);
        }
        let failed = |error| self.lines.failed(&self.path, error);
        let modified = self.file.metadata().and_then(|metadata| metadata.modified()).map_err(failed)?;
        let rotated = siblings::next_rotated(&self.lines.path, self.id, modified, |path| self.is_no_next(path));
        let rotated = rotated.map_err(failed)?;
        Ok(End::Next(Stand::at_start(&rotated.unwrap_or_else(|| self.lines.path.clone()))))
    }

    /// Whether a rotated file cannot be the next one after this, which was read to its end: it is compressed, and holds what this
    /// one does, or is not whole yet. What it is being made of stands beside it.
    fn is_no_next(&self, path: &Path) -> bool {
        let compression = self.lines.compression_of(path);
        if compression == Compression::None {
            return false;
        }
        let is_plain = self.compression == Compression::None && self.position.byte > 0;
        is_plain && self.position.is_held_by(path, compression).unwrap_or(false)
            || unfinished_head(path, compression).is_ok_and(|head| head.is_some())
    }

    /// Whether something else stands now where the file was read.
    fn is_rewritten(&self) -> Result<bool, Stop> {
        let failed = |error| self.lines.failed(&self.path, error);
        let (length, read) =
            (self.file.metadata().map_err(failed)?.len(), self.position.byte + self.buffer.len() as u64);
        Ok(length < read || (length > read && !self.position.tail_is_held_by(&self.file).map_err(failed)?))
    }

    /// Goes on after the file was truncated: what was not read of it may stand in a copy, which rotation has made.
    fn rewritten(&mut self, chunks: &Chunks) -> Result<End, Stop> {
        let path = self.lines.tracked.lock().path.clone();
        let copy = match self.position.byte {
            0 => Ok(None),
            _ => siblings::find_copy(&path, &self.position, self.lines.compression),
        };
        if let Some(copy) = copy.map_err(|error| self.lines.failed(&path, error))? {
            return Ok(End::Next(Stand { path: copy, position: self.position.clone() }));
        }
        self.hand_over(true, chunks)?;
        tracing::warn!(
            "{}: the file was truncated, and no copy of it is there; lines written between are lost, if there were any",
            self.lines.place
        );
        // A later run must not look for what is known to be gone.
        let (file, name) = (Some(self.id), self.position.name.clone());
        let position = FilePosition { file, name, ..FilePosition::default() }.to_position()?;
        let none = Records { partition: -1, place: self.lines.place.clone(), ..Records::default() };
        let chunk = Chunk { data: ChunkData::Records(none), position, bytes_read: 0 };
        chunks.blocking_send(Ok(chunk)).map_err(|_| Stop::Unwanted)?;
        Ok(End::Next(Stand::at_start(&path)))
    }

    /// Hands over the whole records of the buffer; with `all`, what remains after them counts as one, too.
    fn hand_over(&mut self, all: bool, chunks: &Chunks) -> Result<(), Stop> {
        let mut found = std::mem::take(&mut self.found);
        let whole = self.lines.framing.cut(&self.buffer, all, &mut found);
        let text = self.buffer.split_to(whole).freeze();
        let most = self.lines.pace.as_ref().map_or(usize::MAX, Pace::step_rows);
        let (mut first, mut at) = (0, 0);
        for (index, line) in found.iter().enumerate() {
            let value = text.get(line.start..line.end).unwrap_or_default();
            let header = index == 0 && self.position.line == 0 && self.lines.framing.has_header();
            if header {
                self.lines.framing.check_header(value, &self.lines.place)?;
            }
            // Line numbers count on from the first of a chunk: what is no record, or more than a line, ends the chunk.
            let no_record = header || self.lines.framing.is_blank(value);
            if no_record || line.lines > 1 || index + 1 - first >= most {
                let records = found.get(first..index + usize::from(!no_record)).unwrap_or_default();
                self.send(records, &text, at..line.next, chunks)?;
                (first, at) = (index + 1, line.next);
            }
        }
        self.send(found.get(first..).unwrap_or_default(), &text, at..text.len(), chunks)?;
        self.found = found;
        Ok(())
    }

    /// Sends the records in a range of the text, whose start is our position, and goes on behind the range.
    fn send(&mut self, found: &[Line], text: &Bytes, range: Range<usize>, chunks: &Chunks) -> Result<(), Stop> {
        let text = text.slice(range.clone());
        let bytes_read = text.len() as u64;
        let mut records = Records {
            partition: -1,
            place: self.lines.place.clone(),
            first_line: self.position.line + 1,
            ..Records::default()
        };
        for line in found {
            let (start, end) = (line.start - range.start, line.end - range.start);
            // A text is at most a chunk and a record long.
            records.values.push(Some(start as u32..end as u32));
            records.offsets.push((self.position.byte + start as u64) as i64);
        }
        self.position.byte += bytes_read;
        self.position.tail = Some(digest(text.get(text.len().saturating_sub(TAIL_BYTES)..).unwrap_or_default()));
        self.position.line += memchr::memchr_iter(b'\n', &text).count() as u64;
        records.buffer = text;
        if found.is_empty() {
            return Ok(());
        }
        self.note_file()?;
        if let Some(pace) = &self.lines.pace {
            pace.wait(records.len());
        }
        let position = self.position.to_position()?;
        let chunk = Chunk { data: ChunkData::Records(records), position, bytes_read };
        chunks.blocking_send(Ok(chunk)).map_err(|_| Stop::Unwanted)
    }

    /// Notes which file it is that was read so far, as long as its head grows.
    fn note_file(&mut self) -> Result<(), Stop> {
        let failed = |error| self.lines.failed(&self.path, error);
        if self.position.head.0 < HEAD_BYTES {
            let length = match self.compression {
                Compression::None => self.position.byte,
                _ => self.file.metadata().map_err(failed)?.len(),
            };
            self.position.head = digest_at(&self.file, 0, length.min(HEAD_BYTES)).map_err(failed)?;
        }
        self.position.file = Some(self.id);
        let mut tracked = self.lines.tracked.lock();
        let name = tracked.path.strip_prefix(&self.lines.base).unwrap_or(&tracked.path);
        let name = (tracked.path != self.lines.path).then(|| name.to_string_lossy());
        if self.position.name.as_deref() != name.as_deref() {
            self.position.name = name.map(std::borrow::Cow::into_owned);
        }
        tracked.position.clone_from(&self.position);
        Ok(())
    }
}
