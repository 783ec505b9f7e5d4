//! Stages files again that are gone before they were committed, out of the rows that the engine kept.
//!
//! ```text
//!   kept rows   │ 0 │ 1 │ 2 │ 3 │ 4 │      batches, in the order in which they were written
//!   lost file       └ carrier=AA ┘         its folder's rows of batches 1 to 3
//! ```

use std::sync::Arc;

use super::files::{FileSpec, Files, Target};
use super::token::StagedFile;
use super::uploads::Uploads;
use super::writer::ObjectWriter;
use crate::error::ConnectorError;
use crate::sink::{Restage, Token};

/// Makes the files of lost tokens again. `prefix` is what a file's name from the sink's folder is preceded by in tokens.
pub(super) async fn restage(
    spec: Arc<FileSpec>,
    target: Target,
    uploads: Option<Uploads>,
    prefix: &str,
    restage: Restage,
) -> Result<Vec<Token>, ConnectorError> {
    let Restage { lost, rows, shard, epoch, attempt } = restage;
    let lost: Vec<StagedFile> = lost.iter().map(StagedFile::read).collect::<Result<_, _>>()?;
    let expected: u64 = lost.iter().map(StagedFile::rows).sum();
    let first = lost.first().map(|file| file.to().to_owned()).unwrap_or_default();
    let mut writer = ObjectWriter::new(move || Files::new(spec, target, shard, &attempt, epoch), uploads).await?;
    let lost: Arc<[StagedFile]> = lost.into();
    for kept in rows {
        let (lost, prefix) = (lost.clone(), prefix.to_owned());
        let wanted = move |folder: &str, batch| lost.iter().any(|file| file.holds(&prefix, folder, batch));
        writer.run(move |files| files.remake(&kept, &wanted)).await?;
    }
    let finished = writer.run(Files::finish_remade).await?;
    let found: u64 = finished.iter().map(|file| file.rows).sum();
    if found != expected {
        return Err(ConnectorError::Data {
            place: first,
            message: format!("it is gone, and of the {expected} rows lost with it {found} were kept"),
        });
    }
    writer.stage(finished).await
}
