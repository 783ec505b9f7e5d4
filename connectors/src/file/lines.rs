//! Reads the lines of one split on a thread of its own, in chunks of whole records, wherever rotation takes the file.
//!
//! ```text
//!   path of a list     app.log ─ read to its end ─▶ renamed to app.log.1 ─ the rest of it ─▶ the new app.log ─▶ …
//!   file of a glob     app.log ─────────────────────▶ app.log.1 ─ it is followed under its new name ─▶ …
//! ```
//!
//! A path that is named outright is one split, whichever file lies there: it goes on with the next file once the last one is
//! read to its end. A file that a glob finds is a split of its own, whatever it is called.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::FRESH_HINT;
use super::config::{Compression, OnGap};
use super::framing::Framing;
use super::identity::{FileId, FilePosition};
use super::pace::Pace;
use super::pass::{End, Pass};
use super::siblings;
use crate::error::ConnectorError;
use crate::source::Chunk;

/// How often a followed file is looked at for more.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// What is known of a split: shared by its reader, and by discovery, which tells what new names belong to.
#[derive(Clone, Debug, Default)]
pub(super) struct Tracked {
    /// Where the file lies now.
    pub(super) path: PathBuf,
    /// How far it was read, and of which file.
    pub(super) position: FilePosition,
    /// Whether a reader has the file open.
    pub(super) is_open: bool,
    /// Whether it was read to its end, so that nobody reads it any more.
    pub(super) has_ended: bool,
}

/// What to read of a file, and how.
#[derive(Clone, Debug)]
pub(super) struct Lines {
    /// The folder that names of files start from.
    pub(super) base: PathBuf,
    /// Where the file lay when it was found; joined to `base` already.
    pub(super) path: PathBuf,
    /// How people know the file.
    pub(super) place: Arc<str>,
    /// How it is compressed, if the name does not tell.
    pub(super) compression: Option<Compression>,
    pub(super) follow: bool,
    /// Whether the split goes on with the file that takes the place of another.
    pub(super) goes_on: bool,
    pub(super) on_gap: OnGap,
    pub(super) pace: Option<Pace>,
    pub(super) framing: Framing,
    pub(super) tracked: Arc<Mutex<Tracked>>,
}

/// The sending end of the chunks; the reader at the other end may be gone.
pub(super) type Chunks = mpsc::Sender<Result<Chunk, ConnectorError>>;

/// What stops the thread: an error to be told, or nobody listening any more.
pub(super) enum Stop {
    Error(ConnectorError),
    Unwanted,
}

impl From<ConnectorError> for Stop {
    fn from(error: ConnectorError) -> Self {
        Self::Error(error)
    }
}

/// A file, and where to go on in it.
#[derive(Clone, Debug)]
pub(super) struct Stand {
    pub(super) path: PathBuf,
    pub(super) position: FilePosition,
}

impl Stand {
    /// At the beginning of a file.
    pub(super) fn at_start(path: &Path) -> Self {
        Self { path: path.to_owned(), position: FilePosition::default() }
    }
}

impl Lines {
    /// Reads from the position to the end, or for ever where the file is followed.
    pub(super) fn read(&self, from: FilePosition, chunks: &Chunks) {
        let read = self.read_all(from, chunks);
        let mut tracked = self.tracked.lock();
        (tracked.is_open, tracked.has_ended) = (false, read.is_ok());
        drop(tracked);
        if let Err(Stop::Error(error)) = read {
            // Whoever is gone does not want to know.
            let _ = chunks.blocking_send(Err(error));
        }
    }

    fn read_all(&self, from: FilePosition, chunks: &Chunks) -> Result<(), Stop> {
        let mut stand = self.find(from)?;
        let mut is_first = true;
        loop {
            let Some(mut pass) = Pass::open(self, &stand)? else {
                // The old file was moved away, and the new one is not there yet.
                if is_first {
                    return Err(self.failed(&stand.path, io::ErrorKind::NotFound.into()).into());
                }
                self.wait(chunks)?;
                stand = Stand::at_start(&self.path);
                continue;
            };
            match pass.run(chunks)? {
                End::Complete => return Ok(()),
                End::Next(next) => (stand, is_first) = (next, false),
            }
        }
    }

    /// The file that was read up to a position, wherever it is now.
    fn find(&self, from: FilePosition) -> Result<Stand, ConnectorError> {
        let path = self.tracked.lock().path.clone();
        let is_held_by = |path: &Path| from.is_held_by(path, self.compression_of(path)).unwrap_or(false);
        let id = FileId::at(&path).map_err(|error| self.failed(&path, error))?;
        let is_same = id.is_some_and(|id| from.is_of(id)) && is_held_by(&path);
        if from.byte == 0 || is_same {
            return Ok(Stand { path, position: from });
        }
        let is_found = |path: PathBuf| Ok(Stand { path, position: from.clone() });
        if self.follow {
            let moved = siblings::find_moved(&self.path, &from, self.compression);
            if let Some(moved) = moved.map_err(|error| self.failed(&path, error))? {
                return is_found(moved);
            }
        }
        if is_held_by(&path) {
            return is_found(path);
        }
        if self.follow {
            let copy = siblings::find_copy(&self.path, &from, self.compression);
            if let Some(copy) = copy.map_err(|error| self.failed(&path, error))? {
                return is_found(copy);
            }
        }
        let what = match id {
            None => "the file was moved away or removed",
            Some(_) if from.head_is_held_by(&path).unwrap_or(false) => "the file has shrunk or was written anew",
            Some(_) => "the file was replaced by another",
        };
        if !self.follow || self.on_gap == OnGap::Stop {
            return Err(self.gap(what));
        }
        tracing::warn!("{}: {what} while nobody was reading; reading it from its beginning", self.place);
        Ok(Stand::at_start(&self.path))
    }

    pub(super) fn compression_of(&self, path: &Path) -> Compression {
        self.compression.unwrap_or_else(|| Compression::of(path))
    }

    pub(super) fn wait(&self, chunks: &Chunks) -> Result<(), Stop> {
        if chunks.is_closed() {
            return Err(Stop::Unwanted);
        }
        std::thread::sleep(POLL_INTERVAL);
        Ok(())
    }

    pub(super) fn failed(&self, path: &Path, error: io::Error) -> ConnectorError {
        ConnectorError::io(format!("could not read `{}`", path.display()), error)
    }

    /// The file at a position is not the one that was read up to it.
    pub(super) fn gap(&self, what: &str) -> ConnectorError {
        let more = if self.follow { ", or set `on_gap: skip` to read the new file from its beginning" } else { "" };
        ConnectorError::Data {
            place: self.place.to_string(),
            message: format!("{what} since it was read; restore it{more}; {FRESH_HINT}"),
        }
    }
}
