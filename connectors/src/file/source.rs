//! The file source as the engine sees it.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use logmill_pipelines::flow::{Position, Positions, SplitId};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::config::{Compression, Config, OnGap};
use super::framing::Framing;
use super::identity::FilePosition;
use super::lines::{Chunks, Lines, Tracked};
use super::pace::Pace;
use super::parquet::RowPosition;
use super::splits::Splits;
use super::{discover, parquet};
use crate::blocking::blocking;
use crate::error::ConnectorError;
use crate::format::Format;
use crate::format::csv;
use crate::source::{Chunk, ChunkData, Discovery, Reader, Records, Source};

/// How many chunks wait between the reading thread and the engine.
const WAITING_CHUNKS: usize = 1;

/// Files that a configuration names, before they are read.
#[derive(Clone, Debug)]
pub struct Files {
    base: PathBuf,
    patterns: Vec<PathBuf>,
    config: Config,
    format: Format,
}

/// A source of the records, or rows, of files.
pub struct FileSource {
    files: Files,
    framing: Framing,
    pace: Option<Pace>,
    /// The columns of the rows of Parquet files.
    schema: SchemaRef,
    splits: Arc<Mutex<Splits>>,
}

impl Files {
    /// The files that the configuration names, relative to a folder. Does no I/O.
    pub fn new(config: Config, format: Format, base_dir: &Path) -> Self {
        Self { base: base_dir.to_owned(), patterns: config.path.patterns(), config, format }
    }

    /// What cannot work in the configuration: key and message. Does no I/O.
    pub fn check(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        let compressed = self.patterns.iter().any(|path| self.compression(path) != Compression::None);
        if self.patterns.is_empty() {
            problems.push(("path", "names no file".to_owned()));
        }
        if self.config.follow && compressed {
            problems.push(("follow", "compressed files cannot be followed, only read to their end".to_owned()));
        }
        if self.format == Format::Parquet {
            if self.config.follow {
                problems.push(("follow", "Parquet files cannot be followed, nothing is appended to them".to_owned()));
            }
            if self.config.rate.is_some() {
                problems.push(("rate", "is for files of lines, not for Parquet".to_owned()));
            }
            if compressed {
                problems.push(("compression", "Parquet files are compressed inside".to_owned()));
            }
        }
        if !self.config.follow && self.config.on_gap != OnGap::Stop {
            problems.push(("on_gap", "is for followed files".to_owned()));
        }
        problems
    }

    async fn list(&self) -> Result<Vec<PathBuf>, ConnectorError> {
        let files = self.clone();
        blocking(move || files.list_now(&|_| false)).await
    }

    fn list_now(&self, is_known: &dyn Fn(&Path) -> bool) -> Result<Vec<PathBuf>, ConnectorError> {
        discover::files(&self.base, &self.patterns, self.config.follow, is_known)
    }

    fn compression(&self, path: &Path) -> Compression {
        self.config.compression.unwrap_or_else(|| Compression::of(path))
    }

    fn lines(&self, path: &Path, framing: Framing) -> Lines {
        let path_here = self.base.join(path);
        Lines {
            tracked: Arc::new(Mutex::new(Tracked { path: path_here.clone(), ..Tracked::default() })),
            path: path_here,
            base: self.base.clone(),
            place: path.display().to_string().into(),
            compression: self.config.compression,
            follow: false,
            goes_on: false,
            on_gap: OnGap::Stop,
            pace: None,
            framing,
        }
    }

    /// The names in the first line of the first file: `None` where the format has no such line, or there is no file yet.
    pub async fn header(&self) -> Result<Option<Arc<[String]>>, ConnectorError> {
        let Format::Csv(options) = &self.format else { return Ok(None) };
        let Some(first) = self.list().await?.into_iter().next().filter(|_| options.header) else { return Ok(None) };
        let place = first.display().to_string();
        let lines = self.lines(&first, Framing::new(&self.format, None)?);
        let mut reader = spawn(move |chunks| lines.read(FilePosition::default(), &chunks))?;
        let Some(Chunk { data: ChunkData::Records(records), .. }) = reader.next().await? else {
            // A file without anything in it has no columns, and needs none.
            return Ok(None);
        };
        let dialect = options.dialect().map_err(ConnectorError::Config)?;
        let names = csv::header(records.value(0).unwrap_or_default(), &dialect);
        let names = names.map_err(|message| ConnectorError::Data { place: format!("{place}:1"), message })?;
        Ok(Some(names.into()))
    }

    /// The columns, inferred from the first records of the first file that has some. `header` is what
    /// [`Self::header`] found.
    pub async fn sample(&self, header: Option<&Arc<[String]>>) -> Result<SchemaRef, ConnectorError> {
        let files = self.list().await?;
        let Some(first) = files.first().cloned() else {
            return Err(ConnectorError::Config("there is no file yet to infer columns from; declare `schema:`".into()));
        };
        if self.format == Format::Parquet {
            let path = self.base.join(first);
            return blocking(move || parquet::schema(&path)).await;
        }
        let mut sample = Records { place: first.display().to_string().into(), ..Records::default() };
        for path in files {
            let lines = self.lines(&path, Framing::new(&self.format, header.cloned())?);
            let mut reader = spawn(move |chunks| lines.read(FilePosition::default(), &chunks))?;
            if let Some(Chunk { data: ChunkData::Records(records), .. }) = reader.next().await? {
                sample = records;
                break;
            }
        }
        Ok(Arc::new(self.format.infer(&sample, header.map(AsRef::as_ref))?))
    }
}

impl FileSource {
    /// A source of these files, whose records, or rows, have the columns of `schema`. `header` is what
    /// [`Files::header`] found.
    pub fn new(files: Files, schema: SchemaRef, header: Option<Arc<[String]>>) -> Result<Self, ConnectorError> {
        let header = match &files.format {
            // Where there was no file yet, files must name the columns as the schema does.
            Format::Csv(options) if options.header => {
                Some(header.unwrap_or_else(|| schema.fields().iter().map(|field| field.name().clone()).collect()))
            }
            _ => None,
        };
        let framing = Framing::new(&files.format, header)?;
        let pace = files.config.rate.map(Pace::new);
        let by_path = !files.patterns.iter().any(|pattern| discover::is_glob(&files.base, pattern));
        let splits = Splits::new(files.base.clone(), files.config.compression, by_path);
        Ok(Self { files, framing, pace, schema, splits: Arc::new(Mutex::new(splits)) })
    }
}

#[async_trait]
impl Source for FileSource {
    fn resume(&self, positions: &Positions) -> Result<(), ConnectorError> {
        let mut splits = self.splits.lock();
        for (split, position) in positions {
            let path = Path::new(split.as_str());
            let position = match self.files.format {
                Format::Parquet => RowPosition::parse(position, path)?.of_file(),
                _ => FilePosition::parse(position, path)?,
            };
            splits.resume(split, position);
        }
        Ok(())
    }

    async fn discover(&self, known: &BTreeSet<SplitId>) -> Result<Discovery, ConnectorError> {
        let (files, splits) = (self.files.clone(), self.splits.clone());
        let found = blocking(move || {
            let mut splits = splits.lock();
            // A file that was moved away, and whose successor is not there yet, is no mistake of the pipeline's.
            let names = files.list_now(&|path| files.config.follow && splits.is_known(path))?;
            splits.assign(names).map_err(|error| ConnectorError::io("could not look at the files of a source", error))
        });
        let new = found.await?.into_iter().filter(|split| !known.contains(split)).collect();
        Ok(Discovery { new, complete: !self.files.config.follow })
    }

    async fn start_positions(&self) -> Result<Positions, ConnectorError> {
        // Every file is read from its beginning, whenever it is found.
        Ok(Positions::new())
    }

    async fn open(&self, split: &SplitId, position: Option<&Position>) -> Result<Box<dyn Reader>, ConnectorError> {
        let name = Path::new(split.as_str());
        let (tracked, goes_on) = {
            let mut splits = self.splits.lock();
            (splits.tracked(split), splits.is_by_path())
        };
        let path = tracked.lock().path.clone();
        if self.files.format == Format::Parquet {
            let from = position.map(|position| RowPosition::parse(position, name)).transpose()?;
            let schema = self.schema.clone();
            return Ok(Box::new(spawn(move |chunks| parquet::read(&path, from, &schema, &chunks))?));
        }
        let from = position.map(|position| FilePosition::parse(position, name)).transpose()?.unwrap_or_default();
        let named = if goes_on { self.files.base.join(name) } else { path };
        let place = named.strip_prefix(&self.files.base).unwrap_or(&named).display().to_string();
        let lines = Lines {
            follow: self.files.config.follow,
            goes_on,
            on_gap: self.files.config.on_gap,
            pace: self.pace.clone(),
            place: place.into(),
            tracked,
            path: named,
            ..self.files.lines(name, self.framing.clone())
        };
        Ok(Box::new(spawn(move |chunks| lines.read(from, &chunks))?))
    }

    async fn epoch_safe(&self, _positions: &Positions) -> Result<(), ConnectorError> {
        // Files stay where they are, whoever has read them.
        Ok(())
    }

    async fn size_hint(&self) -> Option<u64> {
        if self.files.config.follow {
            return None;
        }
        let files = self.files.list().await.ok()?;
        // Progress is counted in uncompressed bytes, of which compressed files do not tell how many they hold.
        let plain = files.iter().all(|path| self.files.compression(path) == Compression::None);
        let base = self.files.base.clone();
        let sizes =
            blocking(move || Ok(files.iter().filter_map(|path| Some(base.join(path).metadata().ok()?.len())).sum()));
        if plain { sizes.await.ok() } else { None }
    }
}

/// Chunks from a thread that reads them.
struct ThreadReader {
    chunks: mpsc::Receiver<Result<Chunk, ConnectorError>>,
}

/// Starts a thread of its own: followed files keep theirs for as long as they are followed, so it may not be one of the
/// runtime's.
fn spawn(read: impl FnOnce(Chunks) + Send + 'static) -> Result<ThreadReader, ConnectorError> {
    let (sender, chunks) = mpsc::channel(WAITING_CHUNKS);
    let contained = move || {
        let told = sender.clone();
        if catch_unwind(AssertUnwindSafe(|| read(sender))).is_err() {
            // A reader that is gone without a word would look like the end of the file.
            let message = "a file's reader failed; the failure is printed above".to_owned();
            let _ = told.blocking_send(Err(ConnectorError::Data { place: "file source".to_owned(), message }));
        }
    };
    let thread = std::thread::Builder::new().name("file-reader".into()).spawn(contained);
    thread.map_err(|error| ConnectorError::io("could not start a thread to read a file", error))?;
    Ok(ThreadReader { chunks })
}

#[async_trait]
impl Reader for ThreadReader {
    async fn next(&mut self) -> Result<Option<Chunk>, ConnectorError> {
        self.chunks.recv().await.transpose()
    }
}
