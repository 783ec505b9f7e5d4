//! Reads the lines of one file on a thread of its own, in chunks of whole lines.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use logmill_pipelines::flow::Position;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use xxhash_rust::xxh3::xxh3_64;

use super::config::{Compression, Rate};
use crate::error::ConnectorError;
use crate::source::{CHUNK_BYTES, Chunk, ChunkData, Records};

/// The longest line that is taken for one.
pub(super) const MAX_LINE_BYTES: usize = 16 << 20;
/// How often a followed file is looked at for more.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// A rated reader hands over this part of a second's rows at a time.
const RATE_STEPS: u64 = 20;
/// How much of a file's beginning tells it from another.
const HEAD_BYTES: u64 = 1024;

/// What to read of a file, and how.
#[derive(Clone, Debug)]
pub(super) struct Lines {
    pub(super) path: PathBuf,
    pub(super) compression: Compression,
    pub(super) follow: bool,
    pub(super) rate: Option<Rate>,
    /// The first line is not a record.
    pub(super) header: bool,
    /// Lines without anything are no records.
    pub(super) skip_blank: bool,
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
        serde_json::from_value(position.0.clone()).map_err(|error| {
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
        loop {
            let mut pass = Pass::open(self, from)?;
            match pass.run(chunks)? {
                End::Complete => return Ok(()),
                End::Replaced => from = FilePosition::default(),
            }
        }
    }

    fn failed(&self, error: io::Error) -> ConnectorError {
        ConnectorError::io(format!("could not read `{}`", self.path.display()), error)
    }
}

enum End {
    Complete,
    /// Another file has taken the place of a followed one, which was read to its end.
    Replaced,
}

/// One pass through one open file.
struct Pass<'a> {
    lines: &'a Lines,
    input: Box<dyn Read>,
    inode: u64,
    place: Arc<str>,
    position: FilePosition,
    /// Text that was read and not handed over yet.
    buffer: BytesMut,
    started: Instant,
    sent_rows: u64,
}

impl<'a> Pass<'a> {
    fn open(lines: &'a Lines, mut position: FilePosition) -> Result<Self, Stop> {
        let failed = |error| lines.failed(error);
        let mut file = File::open(&lines.path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if head(&mut file, position.head.0).map_err(failed)? != position.head.1 && position.head.0 > 0 {
            let shown = lines.path.display();
            if !lines.follow {
                return Err(Stop::Error(ConnectorError::Data {
                    place: shown.to_string(),
                    message: "this is another file than the one that was read so far; undo that, or start anew with \
                              --fresh"
                        .to_owned(),
                }));
            }
            tracing::warn!("`{shown}` was replaced while nobody was reading; reading the new file from its beginning");
            position = FilePosition::default();
        }
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
        let mut input: Box<dyn Read> = match lines.compression {
            Compression::None => {
                file.seek(SeekFrom::Start(position.byte)).map_err(failed)?;
                Box::new(file)
            }
            Compression::Gzip => Box::new(flate2::read::MultiGzDecoder::new(io::BufReader::new(file))),
            Compression::Zstd => Box::new(zstd::Decoder::new(file).map_err(failed)?),
        };
        if lines.compression != Compression::None {
            io::copy(&mut input.by_ref().take(position.byte), &mut io::sink()).map_err(failed)?;
        }
        let place = lines.path.display().to_string().into();
        let (buffer, started) = (BytesMut::with_capacity(CHUNK_BYTES), Instant::now());
        Ok(Self { lines, input, inode: metadata.ino(), place, position, buffer, started, sent_rows: 0 })
    }

    fn run(&mut self, chunks: &Chunks) -> Result<End, Stop> {
        loop {
            let ended = self.fill()? == 0;
            let whole = match memrchr_newline(&self.buffer) {
                Some(newline) => newline + 1,
                // The last line of a file that ends need not have a newline.
                None if ended && !self.lines.follow => self.buffer.len(),
                None => 0,
            };
            let whole = if ended && !self.lines.follow { self.buffer.len() } else { whole };
            if whole > 0 {
                self.hand_over(whole, chunks)?;
            } else if self.buffer.len() > MAX_LINE_BYTES {
                return Err(Stop::Error(ConnectorError::Data {
                    place: format!("{}:{}, byte {}", self.place, self.position.line + 1, self.position.byte),
                    message: format!("the line is longer than {MAX_LINE_BYTES} bytes"),
                }));
            }
            if ended {
                if !self.lines.follow {
                    return Ok(End::Complete);
                }
                if self.replaced()? && self.fill()? == 0 {
                    return Ok(End::Replaced);
                }
                if chunks.is_closed() {
                    return Err(Stop::Unwanted);
                }
                std::thread::sleep(POLL_INTERVAL);
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
            Ok(now) => {
                let shrunk = self.lines.compression == Compression::None && now.len() < self.position.byte;
                Ok(now.ino() != self.inode || shrunk)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Stop::Error(self.lines.failed(error))),
        }
    }

    /// Hands the first `whole` bytes over: lines, the last of which may lack its newline.
    fn hand_over(&mut self, whole: usize, chunks: &Chunks) -> Result<(), Stop> {
        let text = self.buffer.split_to(whole).freeze();
        let most = self.lines.rate.map_or(usize::MAX, |rate| (rate.0.get() / RATE_STEPS).max(1) as usize);
        let mut records = self.records(&text);
        let mut start = 0;
        while start < text.len() {
            let rest = text.get(start..).unwrap_or_default();
            let end = start + memchr_newline(rest).map_or(rest.len(), |newline| newline + 1);
            let line = text.get(start..end).unwrap_or_default().trim_ascii_end();
            let is_header = self.lines.header && self.position.line == 0;
            let is_blank = self.lines.skip_blank && line.trim_ascii_start().is_empty();
            if is_header || is_blank {
                // Line numbers count on from the first of a chunk, so what is left out ends the chunk.
                self.send(&mut records, &text, chunks)?;
            }
            if !is_header && !is_blank {
                records.values.push(Some(start as u32..(start + line.len()) as u32));
                records.offsets.push(self.position.byte as i64);
            }
            self.position.byte += (end - start) as u64;
            self.position.line += 1;
            start = end;
            if is_header || is_blank {
                records = self.records(&text);
            } else if records.len() >= most {
                self.send(&mut records, &text, chunks)?;
                records = self.records(&text);
            }
        }
        self.send(&mut records, &text, chunks)
    }

    fn records(&self, text: &bytes::Bytes) -> Records {
        Records {
            buffer: text.clone(),
            partition: -1,
            place: self.place.clone(),
            first_line: self.position.line + 1,
            ..Records::default()
        }
    }

    fn send(&mut self, records: &mut Records, text: &bytes::Bytes, chunks: &Chunks) -> Result<(), Stop> {
        let records = std::mem::replace(records, self.records(text));
        if records.is_empty() {
            return Ok(());
        }
        let mut position = self.position.clone();
        if position.head.0 < HEAD_BYTES {
            let mut file = File::open(&self.lines.path).map_err(|error| self.lines.failed(error))?;
            let length = match self.lines.compression {
                Compression::None => position.byte.min(HEAD_BYTES),
                _ => file.metadata().map_err(|error| self.lines.failed(error))?.len().min(HEAD_BYTES),
            };
            position.head = (length, head(&mut file, length).map_err(|error| self.lines.failed(error))?);
            self.position.head = position.head;
        }
        if let Some(rate) = self.lines.rate {
            self.sent_rows += records.len() as u64;
            let due = Duration::from_secs_f64(self.sent_rows as f64 / rate.0.get() as f64);
            std::thread::sleep(due.saturating_sub(self.started.elapsed()));
        }
        let from = records.offsets.first().copied().unwrap_or(0) as u64;
        let bytes_read = position.byte.saturating_sub(from);
        let chunk = Chunk { data: ChunkData::Records(records), position: position.to_position()?, bytes_read };
        chunks.blocking_send(Ok(chunk)).map_err(|_| Stop::Unwanted)
    }
}

fn memchr_newline(text: &[u8]) -> Option<usize> {
    memchr::memchr(b'\n', text)
}

fn memrchr_newline(text: &[u8]) -> Option<usize> {
    memchr::memrchr(b'\n', text)
}

/// A digest of the first bytes of a file as it lies on disk.
fn head(file: &mut File, length: u64) -> io::Result<u64> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.take(length).read_to_end(&mut bytes)?;
    Ok(xxh3_64(&bytes))
}
