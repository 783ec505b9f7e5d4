//! The file source as the engine sees it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use logmill_pipelines::flow::{Position, Positions, SplitId};
use tokio::sync::mpsc;

use super::config::{Compression, Config};
use super::lines::{Chunks, FilePosition, Lines};
use super::{discover, parquet};
use crate::error::ConnectorError;
use crate::format::{self, Format};
use crate::source::{Chunk, ChunkData, Discovery, Reader, Records, Source};

/// How many chunks wait between the reading thread and the engine.
const WAITING_CHUNKS: usize = 2;

/// Files of this machine.
pub struct FileSource {
    patterns: Vec<PathBuf>,
    config: Config,
    format: Format,
}

impl FileSource {
    /// The files that the configuration names, relative to a folder. Does no I/O.
    pub fn new(config: Config, format: Format, base_dir: &Path) -> Self {
        Self { patterns: config.path.resolve(base_dir), config, format }
    }

    /// The columns, inferred from the first records of the first file.
    pub async fn sample(&self) -> Result<SchemaRef, ConnectorError> {
        let (patterns, follow) = (self.patterns.clone(), self.config.follow);
        let files = blocking(move || discover::files(&patterns, follow)).await?;
        let Some(first) = files.into_iter().next() else {
            return Err(ConnectorError::Config("there is no file yet to infer columns from; declare `schema:`".into()));
        };
        if self.format == Format::Parquet {
            return blocking(move || parquet::schema(&first)).await;
        }
        let header = self.header(&first).await?;
        let lines = Lines { follow: false, rate: None, ..self.lines(first) };
        let mut reader = spawn(move |chunks| lines.read(FilePosition::default(), &chunks));
        let records = match reader.next().await? {
            Some(Chunk { data: ChunkData::Records(records), .. }) => records,
            _ => Records {
                place: self.patterns.first().map(|path| path.display().to_string()).unwrap_or_default().into(),
                ..Records::default()
            },
        };
        format::infer(&self.format, &records, header.as_deref())
    }

    /// The first line of a CSV file that has a header.
    async fn header(&self, path: &Path) -> Result<Option<String>, ConnectorError> {
        if !matches!(&self.format, Format::Csv(options) if options.header) {
            return Ok(None);
        }
        let lines = Lines { header: false, follow: false, rate: None, ..self.lines(path.to_owned()) };
        let mut reader = spawn(move |chunks| lines.read(FilePosition::default(), &chunks));
        let Some(Chunk { data: ChunkData::Records(records), .. }) = reader.next().await? else { return Ok(None) };
        Ok(records.value(0).map(|line| String::from_utf8_lossy(line).into_owned()))
    }

    fn lines(&self, path: PathBuf) -> Lines {
        Lines {
            compression: self.config.compression.unwrap_or_else(|| Compression::of(&path)),
            follow: self.config.follow,
            rate: self.config.rate,
            header: matches!(&self.format, Format::Csv(options) if options.header),
            skip_blank: !matches!(self.format, Format::Raw),
            path,
        }
    }
}

#[async_trait]
impl Source for FileSource {
    async fn discover(&self, known: &BTreeSet<SplitId>) -> Result<Discovery, ConnectorError> {
        let (patterns, follow) = (self.patterns.clone(), self.config.follow);
        let files = blocking(move || discover::files(&patterns, follow)).await?;
        let splits = files.iter().map(|path| SplitId::new(path.to_string_lossy().as_ref()));
        let new = splits.filter(|split| !known.contains(split)).collect();
        Ok(Discovery { new, complete: !follow })
    }

    async fn open(&self, split: &SplitId, position: Option<&Position>) -> Result<Box<dyn Reader>, ConnectorError> {
        let path = PathBuf::from(split.as_str());
        if self.format == Format::Parquet {
            let row = position.and_then(|position| position.0.get("row")?.as_u64()).unwrap_or(0);
            return Ok(Box::new(spawn(move |chunks| parquet::read(&path, row, &chunks))));
        }
        let from = position.map(|position| FilePosition::parse(position, &path)).transpose()?.unwrap_or_default();
        let lines = self.lines(path);
        Ok(Box::new(spawn(move |chunks| lines.read(from, &chunks))))
    }

    async fn epoch_safe(&self, _positions: &Positions) -> Result<(), ConnectorError> {
        // Files stay where they are, whoever has read them.
        Ok(())
    }

    async fn size_hint(&self) -> Option<u64> {
        if self.config.follow {
            return None;
        }
        let patterns = self.patterns.clone();
        let compressed = self.config.compression;
        blocking(move || {
            let files = discover::files(&patterns, false)?;
            let plain =
                files.iter().all(|path| compressed.unwrap_or_else(|| Compression::of(path)) == Compression::None);
            let sizes = files.iter().filter_map(|path| Some(path.metadata().ok()?.len()));
            Ok(plain.then(|| sizes.sum()))
        })
        .await
        .ok()
        .flatten()
    }
}

/// Chunks from a thread that reads them.
struct ThreadReader {
    chunks: mpsc::Receiver<Result<Chunk, ConnectorError>>,
}

fn spawn(read: impl FnOnce(Chunks) + Send + 'static) -> ThreadReader {
    let (sender, chunks) = mpsc::channel(WAITING_CHUNKS);
    tokio::task::spawn_blocking(move || read(sender));
    ThreadReader { chunks }
}

#[async_trait]
impl Reader for ThreadReader {
    async fn next(&mut self) -> Result<Option<Chunk>, ConnectorError> {
        self.chunks.recv().await.transpose()
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ConnectorError> + Send + 'static,
) -> Result<T, ConnectorError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|panic| {
        Err(ConnectorError::Permanent {
            context: "reading files stopped unexpectedly".to_owned(),
            source: panic.into(),
        })
    })
}
