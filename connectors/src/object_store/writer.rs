//! The writer of one shard: encoding on threads that may block, uploads on the runtime.

use async_trait::async_trait;
use fail::fail_point;
use logmill_pipelines::flow::{CheckpointEpoch, RowBatch};

use super::files::Files;
use super::open_file::{Finished, Part};
use super::token::StagedFile;
use super::uploads::Uploads;
use crate::blocking::blocking;
use crate::error::ConnectorError;
use crate::sink::{Prepared, Taken, Token, Writer, Written};

/// Writes one shard.
pub(super) struct ObjectWriter {
    /// `None` while a thread has them, and for good once a call failed or was dropped half-way.
    files: Option<Box<Files>>,
    /// `None` where files are local.
    uploads: Option<Uploads>,
}

impl ObjectWriter {
    /// A writer of open files.
    pub(super) async fn new(
        open: impl FnOnce() -> Result<Files, ConnectorError> + Send + 'static,
        uploads: Option<Uploads>,
    ) -> Result<Self, ConnectorError> {
        let files = blocking(open).await?;
        let mut writer = Self { files: None, uploads };
        writer.take_back(Box::new(files)).await?;
        Ok(writer)
    }

    /// Works on the files on a thread that may block.
    pub(super) async fn run<T: Send + 'static>(
        &mut self,
        call: impl FnOnce(&mut Files) -> Result<T, ConnectorError> + Send + 'static,
    ) -> Result<T, ConnectorError> {
        let Some(mut files) = self.files.take() else {
            return Err(ConnectorError::Config("the writer failed before; open a new one".into()));
        };
        let (files, result) = blocking(move || {
            let result = call(&mut files)?;
            Ok((files, result))
        })
        .await?;
        self.take_back(files).await?;
        Ok(result)
    }

    async fn take_back(&mut self, mut files: Box<Files>) -> Result<(), ConnectorError> {
        let parts: Vec<Part> = files.take_parts();
        self.files = Some(files);
        if let Some(uploads) = &mut self.uploads {
            for part in parts {
                uploads.send(part).await?;
            }
        }
        Ok(())
    }

    /// Makes tokens of files that are whole and durable, or will be once their parts have arrived.
    pub(super) async fn stage(&mut self, finished: Vec<Finished>) -> Result<Vec<Token>, ConnectorError> {
        let mut tokens = Vec::with_capacity(finished.len());
        for finished in finished {
            let staged = match (&mut self.uploads, finished) {
                (_, Finished { name, rows, bytes, batches, local: Some(local), .. }) => {
                    StagedFile::Local { from: local.stage(), to: name, rows, bytes, batches }
                }
                (Some(uploads), finished) => uploads.stage(&finished).await?,
                (None, finished) => {
                    return Err(ConnectorError::Config(format!("{} was written nowhere", finished.name)));
                }
            };
            tokens.push(staged.token()?);
        }
        Ok(tokens)
    }
}

#[async_trait]
impl Writer for ObjectWriter {
    async fn write(&mut self, batch: RowBatch) -> Result<Taken, ConnectorError> {
        self.run(move |files| files.write(batch)).await
    }

    async fn prepare(&mut self, _epoch: CheckpointEpoch, last: bool) -> Result<Prepared, ConnectorError> {
        fail_point!("sink::before_stage");
        let end = self.run(move |files| files.prepare(last)).await?;
        let (rows, bytes) = (end.finished.iter().map(|file| file.rows), end.finished.iter().map(|file| file.bytes));
        let visible = Written { rows: rows.sum(), bytes: bytes.sum() };
        let tokens = self.stage(end.finished).await?;
        fail_point!("sink::after_stage");
        Ok(Prepared {
            tokens,
            kept: end.delta.kept,
            reset: end.delta.reset,
            carried: end.delta.frames,
            refused: end.refused,
            visible,
            carried_rows: end.carried_rows,
        })
    }
}
