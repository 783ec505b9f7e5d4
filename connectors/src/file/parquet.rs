//! Reads the rows of one Parquet file on a thread of its own.

use std::fs::File;
use std::path::Path;

use arrow::datatypes::SchemaRef;
use logmill_pipelines::flow::{Position, RowBatch};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::lines::Chunks;
use crate::error::ConnectorError;
use crate::source::{Chunk, ChunkData};

/// Rows a batch.
const BATCH_ROWS: usize = 8192;

fn open(path: &Path) -> Result<ParquetRecordBatchReaderBuilder<File>, ConnectorError> {
    let shown = path.display();
    let file = File::open(path).map_err(|error| ConnectorError::io(format!("could not open `{shown}`"), error))?;
    ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| ConnectorError::Data {
        place: shown.to_string(),
        message: format!("not a Parquet file that can be read: {error}"),
    })
}

/// The columns of a file.
pub(super) fn schema(path: &Path) -> Result<SchemaRef, ConnectorError> {
    Ok(open(path)?.schema().clone())
}

/// Reads the rows after the first `skip`.
pub(super) fn read(path: &Path, skip: u64, chunks: &Chunks) {
    if let Err(error) = read_all(path, skip, chunks) {
        // Whoever is gone does not want to know.
        let _ = chunks.blocking_send(Err(error));
    }
}

fn read_all(path: &Path, skip: u64, chunks: &Chunks) -> Result<(), ConnectorError> {
    let place = path.display().to_string();
    let data = |message: String| ConnectorError::Data { place: place.clone(), message };
    let builder = open(path)?;
    let rows = builder.metadata().file_metadata().num_rows().max(1) as u64;
    let bytes = builder.metadata().row_groups().iter().map(|group| group.compressed_size()).sum::<i64>().max(0) as u64;
    let reader = builder.with_batch_size(BATCH_ROWS).with_offset(usize::try_from(skip).unwrap_or(usize::MAX));
    let mut row = skip;
    for batch in reader.build().map_err(|error| data(error.to_string()))? {
        let batch = batch.map_err(|error| data(format!("after row {row}: {error}")))?;
        row += batch.num_rows() as u64;
        let bytes_read = bytes * batch.num_rows() as u64 / rows;
        let position = Position(serde_json::json!({ "row": row }));
        let chunk = Chunk { data: ChunkData::Rows(RowBatch::inserts(batch)), position, bytes_read };
        if chunks.blocking_send(Ok(chunk)).is_err() {
            return Ok(());
        }
    }
    Ok(())
}
