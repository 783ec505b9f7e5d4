//! The writer of one shard: encoding on threads that may block, uploads on the runtime.

use async_trait::async_trait;
use fail::fail_point;
use logmill_pipelines::flow::{CheckpointEpoch, RowBatch};

use super::files::{Files, Finished};
use super::token::StagedFile;
use super::uploads::Uploads;
use crate::blocking::blocking;
use crate::error::ConnectorError;
use crate::sink::{Prepared, Token, Writer, Written};

/// Writes one shard.
pub(super) struct ObjectWriter {
    /// `None` while a thread has them, and for good once a call failed or was dropped half-way.
    files: Option<Box<Files>>,
    /// `None` where files are local.
    uploads: Option<Uploads>,
    written: Written,
}

impl ObjectWriter {
    /// A writer of open files.
    pub(super) async fn new(
        open: impl FnOnce() -> Result<Files, ConnectorError> + Send + 'static,
        uploads: Option<Uploads>,
    ) -> Result<Self, ConnectorError> {
        let files = blocking(open).await?;
        let mut writer = Self { files: None, uploads, written: files.written() };
        writer.take_back(Box::new(files)).await?;
        Ok(writer)
    }

    async fn run<T: Send + 'static>(
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
        if let Some(uploads) = &mut self.uploads {
            for part in files.take_parts() {
                uploads.send(part).await?;
            }
        }
        self.written = files.written();
        self.files = Some(files);
        Ok(())
    }

    async fn stage(&mut self, finished: Finished) -> Result<Token, ConnectorError> {
        let staged = match (&mut self.uploads, finished) {
            (_, Finished { name, rows, bytes, local: Some(local), .. }) => {
                StagedFile::Local { from: local.stage(), to: name, rows, bytes }
            }
            (Some(uploads), finished) => uploads.stage(&finished).await?,
            (None, finished) => {
                return Err(ConnectorError::Config(format!("{} was written nowhere", finished.name)));
            }
        };
        staged.token()
    }
}

#[async_trait]
impl Writer for ObjectWriter {
    async fn write(&mut self, batch: RowBatch) -> Result<(), ConnectorError> {
        self.run(move |files| files.write(&batch.rows)).await
    }

    async fn prepare(&mut self, _epoch: CheckpointEpoch, last: bool) -> Result<Prepared, ConnectorError> {
        fail_point!("sink::before_stage");
        let end = self.run(move |files| files.prepare(last)).await?;
        let mut tokens = Vec::with_capacity(end.finished.len());
        for finished in end.finished {
            tokens.push(self.stage(finished).await?);
        }
        fail_point!("sink::after_stage");
        Ok(Prepared { tokens, reset: end.delta.reset, carried: end.delta.frames })
    }

    fn written(&self) -> Written {
        self.written
    }
}
