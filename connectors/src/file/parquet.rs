//! Reads the rows of one Parquet file on a thread of its own, in the types that are wanted.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{Schema, SchemaRef};
use logmill_pipelines::ColumnType;
use logmill_pipelines::flow::{Position, RowBatch};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde::{Deserialize, Serialize};

use super::lines::Chunks;
use crate::error::ConnectorError;
use crate::source::{Chunk, ChunkData};

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
}

impl RowPosition {
    pub(super) fn parse(position: &Position, path: &Path) -> Result<Self, ConnectorError> {
        Self::deserialize(&position.0).map_err(|error| {
            let shown = path.display();
            ConnectorError::Config(format!("the saved position of `{shown}` is not one of a Parquet file: {error}"))
        })
    }
}

fn open(path: &Path) -> Result<(ParquetRecordBatchReaderBuilder<File>, u64), ConnectorError> {
    let shown = path.display();
    let failed = |error| ConnectorError::io(format!("could not open `{shown}`"), error);
    let file = File::open(path).map_err(failed)?;
    let bytes = file.metadata().map_err(failed)?.len();
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| ConnectorError::Data {
        place: shown.to_string(),
        message: format!("not a Parquet file that can be read: {error}"),
    })?;
    Ok((builder, bytes))
}

/// The columns of a file, in the types that a pipeline's columns have.
pub(super) fn schema(path: &Path) -> Result<SchemaRef, ConnectorError> {
    let (builder, _) = open(path)?;
    let field = |field: &Arc<arrow::datatypes::Field>| {
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
    if let Err(error) = read_all(path, from, wanted, chunks) {
        // Whoever is gone does not want to know.
        let _ = chunks.blocking_send(Err(error));
    }
}

fn read_all(path: &Path, from: Option<RowPosition>, wanted: &SchemaRef, chunks: &Chunks) -> Result<(), ConnectorError> {
    let place = path.display().to_string();
    let data = |message: String| ConnectorError::Data { place: place.clone(), message };
    let (builder, file_bytes) = open(path)?;
    let file_rows = u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(0);
    let start = RowPosition { row: from.map_or(0, |from| from.row), file_rows, file_bytes };
    if from.is_some_and(|from| from != start) {
        return Err(data(
            "the file was replaced by another since it was read; restore it, or start anew with --fresh".into(),
        ));
    }
    // Whole row groups before the position are not even opened.
    let (mut row, mut groups) = (0, Vec::new());
    let mut skipped = 0;
    for (index, group) in builder.metadata().row_groups().iter().enumerate() {
        let rows = u64::try_from(group.num_rows()).unwrap_or(0);
        if row + rows > start.row {
            groups.push(index);
        } else {
            skipped = row + rows;
        }
        row += rows;
    }
    let names: Vec<&str> = wanted.fields().iter().map(|field| field.name().as_str()).collect();
    let roots =
        builder.schema().fields().iter().enumerate().filter(|(_, field)| names.contains(&field.name().as_str()));
    let roots: Vec<usize> = roots.map(|(index, _)| index).collect();
    let mask = ProjectionMask::roots(builder.parquet_schema(), roots);
    let offset = usize::try_from(start.row - skipped).unwrap_or(usize::MAX);
    let reader = builder.with_projection(mask).with_row_groups(groups).with_batch_size(BATCH_ROWS).with_offset(offset);
    let mut row = start.row;
    for batch in reader.build().map_err(|error| data(error.to_string()))? {
        let batch = batch.map_err(|error| data(format!("after row {row}: {error}")))?;
        let batch = fit(&batch, wanted)
            .map_err(|(column, error)| data(format!("after row {row}, column `{column}`: {error}")))?;
        let rows = batch.num_rows() as u64;
        row += rows;
        let position = serde_json::to_value(RowPosition { row, ..start }).map_err(|error| data(error.to_string()))?;
        // Each row counts for its part of the file.
        let bytes_read = file_bytes * row / file_rows.max(1) - file_bytes * (row - rows) / file_rows.max(1);
        let data = ChunkData::Rows(RowBatch::inserts(batch));
        if chunks.blocking_send(Ok(Chunk { data, position: Position(position), bytes_read })).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// The rows with the columns and types that are wanted.
fn fit(rows: &RecordBatch, wanted: &SchemaRef) -> Result<RecordBatch, (String, arrow::error::ArrowError)> {
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    let column = |field: &Arc<arrow::datatypes::Field>| -> Result<ArrayRef, (String, arrow::error::ArrowError)> {
        match rows.column_by_name(field.name()) {
            None => Ok(new_null_array(field.data_type(), rows.num_rows())),
            Some(column) if column.data_type() == field.data_type() => Ok(column.clone()),
            Some(column) => {
                cast_with_options(column, field.data_type(), &strict).map_err(|error| (field.name().clone(), error))
            }
        }
    };
    let columns = wanted.fields().iter().map(column).collect::<Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    RecordBatch::try_new_with_options(wanted.clone(), columns, &options).map_err(|error| (String::new(), error))
}
