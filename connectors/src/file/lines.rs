//! Reads the lines of one file on a thread of its own, in chunks of whole records.
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
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use logmill_pipelines::flow::Position;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use xxhash_rust::xxh3::xxh3_64;

use super::config::{Compression, OnGap};
use super::framing::{Framing, Line};
use super::pace::Pace;
use crate::error::ConnectorError;
use crate::source::{CHUNK_BYTES, Chunk, ChunkData, Records};

/// The longest record that is taken for one, in bytes.
pub const MAX_LINE_BYTES: usize = 16 << 20;
/// How often a followed file is looked at for more.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// How much of a file's beginning tells it from another.
const HEAD_BYTES: u64 = 1024;
/// What some editors put at the beginning of UTF-8 text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// What to read of a file, and how.
#[derive(Clone, Debug)]
pub(super) struct Lines {
    pub(super) path: PathBuf,
    /// How people know the file.
    pub(super) place: Arc<str>,
    pub(super) compression: Compression,
    pub(super) follow: bool,
    pub(super) on_gap: OnGap,
    pub(super) pace: Option<Pace>,
    pub(super) framing: Framing,
}

/// Where a file goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FilePosition {
    /// Bytes of (uncompressed) text before it.
    byte: u64,
    /// Lines before it.
    line: u64,
    /// How many bytes of the file's head were digested, and what they gave.
    head: (u64, u64),
}

impl FilePosition {
    pub(super) fn parse(position: &Position, path: &Path) -> Result<Self, ConnectorError> {
        Self::deserialize(&position.0).map_err(|error| {
            ConnectorError::Config(format!("the saved position of `{}` is not one of a file: {error}", path.display()))
        })
    }

    fn to_position(&self) -> Result<Position, ConnectorError> {
        let value = serde_json::to_value(self);
        let context = "could not note a position".to_owned();
        Ok(Position(value.map_err(|error| ConnectorError::Permanent { context, source: error.into() })?))
    }
}

/// The sending end of the chunks; the reader at the other end may be gone.
pub(super) type Chunks = mpsc::Sender<Result<Chunk, ConnectorError>>;

/// What stops the thread: an error to be told, or nobody listening any more.
enum Stop {
    Error(ConnectorError),
    Unwanted,
}

impl From<ConnectorError> for Stop {
    fn from(error: ConnectorError) -> Self {
        Self::Error(error)
    }
}

impl Lines {
    /// Reads from the position to the end, or for ever where the file is followed.
    pub(super) fn read(&self, from: FilePosition, chunks: &Chunks) {
        if let Err(Stop::Error(error)) = self.read_all(from, chunks) {
            // Whoever is gone does not want to know.
            let _ = chunks.blocking_send(Err(error));
        }
    }

    fn read_all(&self, mut from: FilePosition, chunks: &Chunks) -> Result<(), Stop> {
        let mut rotated = false;
        loop {
            let mut pass = match Pass::open(self, from) {
                // The old file was moved away, and the new one is not there yet.
                Err(Opening::Missing(_)) if rotated => {
                    self.wait(chunks)?;
                    from = FilePosition::default();
                    continue;
                }
                Err(Opening::Missing(error) | Opening::Failed(error)) => return Err(Stop::Error(error)),
                Ok(pass) => pass,
            };
            match pass.run(chunks)? {
                End::Complete => return Ok(()),
                End::Replaced => (from, rotated) = (FilePosition::default(), true),
            }
        }
    }

    fn wait(&self, chunks: &Chunks) -> Result<(), Stop> {
        if chunks.is_closed() {
            return Err(Stop::Unwanted);
        }
        std::thread::sleep(POLL_INTERVAL);
        Ok(())
    }

    fn failed(&self, error: io::Error) -> ConnectorError {
        ConnectorError::io(format!("could not read `{}`", self.path.display()), error)
    }

    /// The file at a position is not the one that was read up to it.
    fn gap(&self, what: &str) -> ConnectorError {
        let more = if self.follow { ", or set `on_gap: skip` to read the new file from its beginning" } else { "" };
        ConnectorError::Data {
            place: self.place.to_string(),
            message: format!("{what} since it was read; restore it, start anew with --fresh{more}"),
        }
    }

    /// Whether the file is still the one of the position: `None` if so, else what happened to it.
    fn changed(&self, file: &mut File, position: &FilePosition) -> io::Result<Option<&'static str>> {
        if head(file, position.head.0)? != position.head.1 && position.head.0 > 0 {
            return Ok(Some("the file was replaced by another"));
        }
        let plain = self.compression == Compression::None;
        Ok((plain && file.metadata()?.len() < position.byte).then_some("the file has shrunk"))
    }
}

enum End {
    Complete,
    /// Another file has taken the place of a followed one, which was read to its end.
    Replaced,
}

/// Why a file could not be opened.
enum Opening {
    Missing(ConnectorError),
    Failed(ConnectorError),
}

/// One pass through one open file.
struct Pass<'a> {
    lines: &'a Lines,
    input: Box<dyn Read>,
    inode: u64,
    position: FilePosition,
    /// Text that was read and not handed over yet.
    buffer: BytesMut,
    found: Vec<Line>,
}

impl<'a> Pass<'a> {
    fn open(lines: &'a Lines, mut position: FilePosition) -> Result<Self, Opening> {
        let failed = |error| Opening::Failed(lines.failed(error));
        let mut file = File::open(&lines.path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Opening::Missing(lines.failed(error)),
            _ => failed(error),
        })?;
        let metadata = file.metadata().map_err(failed)?;
        if let Some(what) = lines.changed(&mut file, &position).map_err(failed)? {
            if !lines.follow || lines.on_gap == OnGap::Stop {
                return Err(Opening::Failed(lines.gap(what)));
            }
            tracing::warn!("{}: {what} while nobody was reading; reading it from its beginning", lines.place);
            position = FilePosition::default();
        }
        let start = if lines.compression == Compression::None { position.byte } else { 0 };
        file.seek(SeekFrom::Start(start)).map_err(failed)?;
        let mut input: Box<dyn Read> = match lines.compression {
            Compression::None => Box::new(file),
            Compression::Gzip => Box::new(flate2::read::MultiGzDecoder::new(io::BufReader::new(file))),
            Compression::Zstd => Box::new(zstd::Decoder::new(file).map_err(failed)?),
        };
        let skip = position.byte - start;
        if io::copy(&mut input.by_ref().take(skip), &mut io::sink()).map_err(failed)? < skip {
            return Err(Opening::Failed(lines.gap("the file has shrunk")));
        }
        Ok(Self { lines, input, inode: metadata.ino(), position, buffer: BytesMut::new(), found: Vec::new() })
    }

    fn run(&mut self, chunks: &Chunks) -> Result<End, Stop> {
        loop {
            let ended = self.fill()? == 0;
            if self.position.byte == 0 && self.buffer.starts_with(BYTE_ORDER_MARK) {
                self.buffer.advance(BYTE_ORDER_MARK.len());
                self.position.byte = BYTE_ORDER_MARK.len() as u64;
            }
            // The last record of a file that ends need not have a newline.
            self.hand_over(ended && !self.lines.follow, chunks)?;
            if self.buffer.len() > MAX_LINE_BYTES {
                let hint = self.lines.framing.long_record_hint();
                return Err(Stop::Error(ConnectorError::Data {
                    place: format!("{}:{}, byte {}", self.lines.place, self.position.line + 1, self.position.byte),
                    message: format!("the record is longer than {MAX_LINE_BYTES} bytes{hint}"),
                }));
            }
            if ended {
                if !self.lines.follow {
                    return Ok(End::Complete);
                }
                if self.replaced()? && self.fill()? == 0 {
                    self.hand_over(true, chunks)?;
                    return Ok(End::Replaced);
                }
                self.lines.wait(chunks)?;
            }
        }
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
        let read = read.map_err(|error| self.lines.failed(error))?;
        self.buffer.truncate(before + read);
        Ok(read)
    }

    /// Whether the path leads to another file by now, or the file has shrunk.
    fn replaced(&self) -> Result<bool, Stop> {
        match std::fs::metadata(&self.lines.path) {
            Ok(now) => Ok(now.ino() != self.inode || now.len() < self.position.byte),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Stop::Error(self.lines.failed(error))),
        }
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
        self.position.line += memchr::memchr_iter(b'\n', &text).count() as u64;
        records.buffer = text;
        if found.is_empty() {
            return Ok(());
        }
        self.note_head()?;
        if let Some(pace) = &self.lines.pace {
            pace.wait(records.len());
        }
        let position = self.position.to_position()?;
        let chunk = Chunk { data: ChunkData::Records(records), position, bytes_read };
        chunks.blocking_send(Ok(chunk)).map_err(|_| Stop::Unwanted)
    }

    /// Digests the file's head, as long as it grows.
    fn note_head(&mut self) -> Result<(), Stop> {
        if self.position.head.0 >= HEAD_BYTES {
            return Ok(());
        }
        let failed = |error| self.lines.failed(error);
        let mut file = File::open(&self.lines.path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        // Where another file has taken its place, what was noted before must do.
        if metadata.ino() == self.inode {
            let length = match self.lines.compression {
                Compression::None => self.position.byte.min(HEAD_BYTES),
                _ => metadata.len().min(HEAD_BYTES),
            };
            self.position.head = (length, head(&mut file, length).map_err(failed)?);
        }
        Ok(())
    }
}

/// A digest of the first bytes of a file as it lies on disk.
fn head(file: &mut File, length: u64) -> io::Result<u64> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.take(length).read_to_end(&mut bytes)?;
    Ok(xxh3_64(&bytes))
}
