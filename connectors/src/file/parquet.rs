//! Reads the rows of one Parquet file on a thread of its own, in the types that are wanted.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use logmill_pipelines::ColumnType;
use logmill_pipelines::flow::Position;
use parquet::arrow::arrow_reader::{
    ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder, RowGroups, RowSelection, RowSelector,
};
use parquet::arrow::{ProjectionMask, parquet_to_arrow_field_levels};
use parquet::errors::ParquetError;
use serde::{Deserialize, Serialize};

use super::FRESH_HINT;
use super::fit::fit;
use super::identity::{Digest, FileId, FilePosition, TAIL_BYTES, digest_at};
use super::lines::Chunks;
use super::parquet_guard::{footer_problem, page_problem};
use super::parquet_pages::CheckedRowGroups;
use crate::error::ConnectorError;
use crate::source::{Chunk, ChunkData, Rows};

/// Rows a batch.
const BATCH_ROWS: usize = 8192;

/// Where a file goes on, and what it was when it was read so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RowPosition {
    /// Rows before it.
    row: u64,
    /// All rows of the file.
    file_rows: u64,
    /// The size of the file.
    file_bytes: u64,
    /// The file. Positions of older versions know it by the name of the split only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    file: Option<FileId>,
    /// The end of the file, where Parquet says what is in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tail: Option<Digest>,
}

impl RowPosition {
    pub(super) fn parse(position: &Position, path: &Path) -> Result<Self, ConnectorError> {
        Self::deserialize(&position.0).map_err(|error| {
            let shown = path.display();
            ConnectorError::Config(format!("the saved position of `{shown}` is not one of a Parquet file: {error}"))
        })
    }

    /// The place behind the whole file, by which the file is known.
    pub(super) fn of_file(&self) -> FilePosition {
        FilePosition { byte: self.file_bytes, tail: self.tail, file: self.file, ..FilePosition::default() }
    }

    /// At the beginning of a file of so many rows.
    fn at_start(file: &File, file_rows: u64) -> std::io::Result<Self> {
        let metadata = file.metadata()?;
        let file_bytes = metadata.len();
        let tail = digest_at(file, file_bytes.saturating_sub(TAIL_BYTES as u64), TAIL_BYTES as u64)?;
        Ok(Self { row: 0, file_rows, file_bytes, file: Some(FileId::of(&metadata)), tail: Some(tail) })
    }

    /// Whether the position is one in the file that the other is of.
    fn is_in(&self, other: &Self) -> bool {
        let is_same_end = self.tail.is_none_or(|tail| other.tail == Some(tail));
        is_same_end && (self.file_rows, self.file_bytes) == (other.file_rows, other.file_bytes)
    }
}

fn open(path: &Path) -> Result<(ParquetRecordBatchReaderBuilder<File>, RowPosition), ConnectorError> {
    let shown = path.display();
    let failed = |error| ConnectorError::io(format!("could not open `{shown}`"), error);
    let file = File::open(path).map_err(failed)?;
    let copy = file.try_clone().map_err(failed)?;
    if let Some(problem) = footer_problem(&file).map_err(failed)? {
        return Err(damaged(path, &problem));
    }
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| ConnectorError::Data {
        place: shown.to_string(),
        message: format!("not a Parquet file that can be read: {error}"),
    })?;
    let rows = u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(0);
    let start = RowPosition::at_start(&copy, rows).map_err(failed)?;
    Ok((builder, start))
}

/// The columns of a file, in the types that a pipeline's columns have.
pub(super) fn schema(path: &Path) -> Result<SchemaRef, ConnectorError> {
    let (builder, _) = contained(path, || open(path))?;
    let field = |field: &Arc<Field>| {
        let kind = ColumnType::from_field(field).map_err(|error| ConnectorError::Data {
            place: format!("{}, column `{}`", path.display(), field.name()),
            message: error.to_string(),
        })?;
        Ok(kind.to_field(field.name()))
    };
    let fields = builder.schema().fields().iter().map(field).collect::<Result<Vec<_>, ConnectorError>>()?;
    Ok(Arc::new(Schema::new(fields)))
}

/// Reads the rows behind a position, with the columns of `wanted`: those that the file lacks are null.
pub(super) fn read(path: &Path, from: Option<RowPosition>, wanted: &SchemaRef, chunks: &Chunks) {
    if let Err(error) = contained(path, || read_all(path, from, wanted, chunks)) {
        // Whoever is gone does not want to know.
        let _ = chunks.blocking_send(Err(error));
    }
}

fn damaged(path: &Path, problem: &str) -> ConnectorError {
    ConnectorError::Data {
        place: path.display().to_string(),
        message: format!("the Parquet file is damaged: {problem}"),
    }
}

/// Runs what reads a file whose bytes may be anything: where the Parquet reader panics at them, that is an error of the file.
fn contained<T>(path: &Path, read: impl FnOnce() -> Result<T, ConnectorError>) -> Result<T, ConnectorError> {
    catch_unwind(AssertUnwindSafe(read))
        .unwrap_or_else(|_| Err(damaged(path, "its reader failed on it; the failure is printed above")))
}

fn read_all(path: &Path, from: Option<RowPosition>, wanted: &SchemaRef, chunks: &Chunks) -> Result<(), ConnectorError> {
    let place = path.display().to_string();
    let data = |message: String| ConnectorError::Data { place: place.clone(), message };
    let (builder, start) = open(path)?;
    let RowPosition { file_rows, file_bytes, .. } = start;
    let start = RowPosition { row: from.map_or(0, |from| from.row), ..start };
    if from.is_some_and(|from| !from.is_in(&start)) {
        return Err(data(format!("the file was replaced by another since it was read; restore it; {FRESH_HINT}")));
    }
    let mut row = start.row;
    for batch in rows_after(path, builder, row, wanted)? {
        let batch = batch.map_err(|error| data(format!("after row {row}: {error}")))?;
        let rows = batch.num_rows() as u64;
        let (batch, rejected) = fit(&batch, wanted).map_err(|error| data(format!("after row {row}: {error}")))?;
        let rejected = rejected.into_iter().map(|rejected| rejected.at(&place, row)).collect();
        let before = row;
        row = row.saturating_add(rows);
        let position = serde_json::to_value(RowPosition { row, ..start }).map_err(|error| data(error.to_string()))?;
        // Each row counts for its part of the file.
        let part = |row: u64| u128::from(file_bytes) * u128::from(row) / u128::from(file_rows.max(1));
        let bytes_read = u64::try_from(part(row).saturating_sub(part(before))).unwrap_or(0);
        let data = ChunkData::Rows(Rows { rows: batch, first_row: before }, rejected);
        if chunks.blocking_send(Ok(Chunk { data, position: Position(position), bytes_read })).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// The wanted columns of the rows from `start` on.
pub(super) fn rows_after(
    path: &Path,
    builder: ParquetRecordBatchReaderBuilder<File>,
    start: u64,
    wanted: &SchemaRef,
) -> Result<ParquetRecordBatchReader, ConnectorError> {
    // Whole row groups before the position are not even opened.
    let (mut row, mut groups) = (0u64, Vec::new());
    let mut skipped = 0;
    for (index, group) in builder.metadata().row_groups().iter().enumerate() {
        let rows = u64::try_from(group.num_rows()).unwrap_or(0);
        let end = row.saturating_add(rows);
        if end > start {
            groups.push(index);
        } else {
            skipped = end;
        }
        row = end;
    }
    let names: Vec<&str> = wanted.fields().iter().map(|field| field.name().as_str()).collect();
    let roots =
        builder.schema().fields().iter().enumerate().filter(|(_, field)| names.contains(&field.name().as_str()));
    let roots: Vec<usize> = roots.map(|(index, _)| index).collect();
    let mask = ProjectionMask::roots(builder.parquet_schema(), roots);
    let file =
        File::open(path).map_err(|error| ConnectorError::io(format!("could not open `{}`", path.display()), error))?;
    check_pages(path, &file, &builder, &mask, &groups)?;
    let failed = |error: ParquetError| damaged(path, &error.to_string());
    let levels = parquet_to_arrow_field_levels(builder.parquet_schema(), mask, Some(builder.schema().fields()));
    let groups = CheckedRowGroups::new(file, Arc::clone(builder.metadata()), groups);
    let before = usize::try_from(start.saturating_sub(skipped)).unwrap_or(usize::MAX).min(groups.num_rows());
    let selection = [RowSelector::skip(before), RowSelector::select(groups.num_rows() - before)];
    let selection = (before > 0).then(|| RowSelection::from(selection.to_vec()));
    let levels = levels.map_err(failed)?;
    ParquetRecordBatchReader::try_new_with_row_groups(&levels, &groups, BATCH_ROWS, selection).map_err(failed)
}

/// Holds the pages of the columns that will be read to what their headers claim.
fn check_pages(
    path: &Path,
    file: &File,
    builder: &ParquetRecordBatchReaderBuilder<File>,
    mask: &ProjectionMask,
    groups: &[usize],
) -> Result<(), ConnectorError> {
    let read = groups.iter().filter_map(|group| builder.metadata().row_groups().get(*group));
    for group in read {
        let columns = group.columns().iter().enumerate().filter(|(leaf, _)| mask.leaf_included(*leaf));
        for (_, column) in columns {
            let (start, length) = column.byte_range();
            let problem = page_problem(file, start..start.saturating_add(length));
            if let Some(problem) = problem.map_err(|error| damaged(path, &error.to_string()))? {
                return Err(damaged(path, &format!("column `{}`: {problem}", column.column_path().string())));
            }
        }
    }
    Ok(())
}
