//! Rows between host and guest: Arrow IPC streams, read without copying.

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamDecoder;
use arrow::ipc::writer::StreamWriter;

/// The schema of a stream that may hold no rows.
pub(crate) fn schema(stream: &[u8]) -> Result<SchemaRef, ArrowError> {
    let mut decoder = StreamDecoder::new();
    let mut rest = Buffer::from(stream);
    while decoder.schema().is_none() && !rest.is_empty() {
        decoder.decode(&mut rest)?;
    }
    decoder.schema().ok_or_else(|| ArrowError::IpcError("a stream without a schema".to_owned()))
}

/// The batches of a stream. They point into it; nothing is copied.
pub(crate) fn read(stream: Vec<u8>) -> Result<Vec<RecordBatch>, ArrowError> {
    let mut decoder = StreamDecoder::new();
    let mut rest = Buffer::from_vec(stream);
    let mut batches = Vec::with_capacity(1);
    while !rest.is_empty() {
        if let Some(batch) = decoder.decode(&mut rest)? {
            batches.push(batch);
        }
    }
    decoder.finish()?;
    Ok(batches)
}

/// A stream of these batches, all of this schema.
pub(crate) fn write(schema: &Schema, batches: &[RecordBatch]) -> Result<Vec<u8>, ArrowError> {
    // Room for the columns and some for the stream's own words, so that the buffer does not grow by copying.
    let bytes: usize = batches.iter().map(sliced_size).sum();
    let buffer = Vec::with_capacity(bytes + 1024 + 256 * schema.fields().len());
    let mut writer = StreamWriter::try_new(buffer, schema)?;
    for batch in batches {
        writer.write(batch)?;
    }
    writer.into_inner()
}

fn sliced_size(batch: &RecordBatch) -> usize {
    let columns = batch.columns().iter();
    columns.map(|column| column.to_data().get_slice_memory_size().unwrap_or_default()).sum()
}
