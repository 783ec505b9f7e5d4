//! Arrow IPC streams, to guests and back.
//!
//! What comes back is not trusted: a guest may write anything. So a stream is checked before Arrow reads it (`layout.rs`), and
//! the values that Arrow has read are checked against the ranges of their types: dates, decimals, JSON.

mod layout;
mod types;

use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow::array::{Array, ArrayRef, MutableArrayData, RecordBatch, make_array};
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamDecoder;
use arrow::ipc::writer::StreamEncoder;
use logmill_columns::invalid_values;
use logmill_wasm::readable;

pub(super) use self::layout::Budget;
use self::layout::{Checked, check, invalid};

/// What ends a stream.
const END: [u8; 8] = [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];

/// A schema without rows.
pub(super) fn encode_schema(schema: &Schema) -> Result<Vec<u8>, ArrowError> {
    Ok(concat(&StreamEncoder::try_new(schema)?.finish()?))
}

/// A batch as a stream of its own.
pub(super) fn encode_rows(rows: &RecordBatch) -> Result<Vec<u8>, ArrowError> {
    let mut encoder = StreamEncoder::try_new(rows.schema_ref())?;
    let mut buffers = encoder.encode(rows)?;
    buffers.extend(encoder.finish()?);
    Ok(concat(&buffers))
}

fn concat(buffers: &[Buffer]) -> Vec<u8> {
    let mut stream = Vec::with_capacity(buffers.iter().map(Buffer::len).sum());
    for buffer in buffers {
        stream.extend_from_slice(buffer);
    }
    stream
}

/// The schema that a stream begins with; the error says what is wrong with it. Rows after it are of no interest.
pub(super) fn decode_schema(stream: &[u8]) -> Result<SchemaRef, String> {
    let checked = check(stream, &mut Budget::new(stream.len() as u64))?;
    Ok(checked.schema)
}

/// The batches of a stream of these columns, without copying them; the error says what is wrong with it. What they take in
/// this process is taken from the budget.
pub(super) fn decode_rows(
    stream: Vec<u8>,
    declared: &SchemaRef,
    budget: &mut Budget,
) -> Result<Vec<RecordBatch>, String> {
    let checked = check(&stream, budget)?;
    if let Some(difference) = difference(&checked.schema, declared) {
        return Err(difference);
    }
    let batches = decode(stream, checked.has_end)?.into_iter().filter(|rows| rows.num_rows() > 0);
    batches.map(|rows| adopt(&rows, declared, &checked)).collect()
}

/// Rows under the names and metadata of the signature's schema; an error if they are not what it says.
fn adopt(rows: &RecordBatch, declared: &SchemaRef, checked: &Checked) -> Result<RecordBatch, String> {
    // A guest that pads its rows holds no more of this process than its rows take.
    let columns = match checked.is_sparse {
        true => {
            rows.columns().iter().map(copy).collect::<Result<_, _>>().map_err(|error| invalid(&error.to_string()))?
        }
        false => rows.columns().to_vec(),
    };
    let adopted = RecordBatch::try_new(declared.clone(), columns);
    let adopted = adopted.map_err(|error| format!("its rows do not fit its signature: {error}"))?;
    match invalid_values(&adopted).first() {
        Some(bad) => Err(format!("its row {}: {}", bad.row, readable(&bad.message))),
        None => Ok(adopted),
    }
}

fn copy(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let data = column.to_data();
    let mut copy = MutableArrayData::new(vec![&data], false, column.len());
    copy.try_extend(0, 0, column.len())?;
    Ok(make_array(copy.freeze()))
}

/// How a schema differs from the one that was declared, as far as rows are concerned.
fn difference(found: &Schema, declared: &Schema) -> Option<String> {
    let (found, declared) = (found.fields(), declared.fields());
    let text = |name: &str, data_type: &DataType| format!("`{name}` of type {data_type}");
    for (found, declared) in found.iter().zip(declared) {
        if found.name() != declared.name() || found.data_type() != declared.data_type() {
            let found = text(found.name(), found.data_type());
            let declared = text(declared.name(), declared.data_type());
            return Some(format!("its rows have the column {found} where the signature has {declared}"));
        }
    }
    let (found, declared) = (found.len(), declared.len());
    (found != declared).then(|| format!("its rows have {found} columns, its signature {declared}"))
}

fn decode(mut stream: Vec<u8>, has_end: bool) -> Result<Vec<RecordBatch>, String> {
    if !has_end {
        stream.extend_from_slice(&END);
    }
    let decoded = catch_unwind(AssertUnwindSafe(|| {
        let (mut decoder, mut buffer) = (StreamDecoder::new(), Buffer::from_vec(stream));
        let mut batches = Vec::new();
        while let Some(rows) = decoder.decode(&mut buffer)? {
            batches.push(rows);
        }
        decoder.finish()?;
        Ok::<_, ArrowError>(batches)
    }));
    match decoded {
        Ok(Ok(batches)) => Ok(batches),
        Ok(Err(error)) => Err(invalid(&error.to_string())),
        Err(_) => Err(invalid("its messages contradict themselves")),
    }
}

#[cfg(test)]
pub(super) mod tests;
