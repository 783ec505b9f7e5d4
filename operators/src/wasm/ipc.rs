//! Arrow IPC streams, to guests and back.
//!
//! What comes back is not trusted: a guest may write anything. So a stream is walked before Arrow reads it: its messages
//! lie within it, none holds a dictionary or is compressed, and none claims more rows than its bytes can hold. Nothing that
//! is read is larger than what the guest wrote, which its memory limit bounds.

use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamDecoder;
use arrow::ipc::writer::StreamEncoder;
use arrow::ipc::{MessageHeader, root_as_message};

/// What begins a message, before its length.
const CONTINUATION: [u8; 4] = [0xff; 4];
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

/// The schema that a stream begins with; the error says what is wrong with it.
pub(super) fn decode_schema(stream: &[u8]) -> Result<SchemaRef, String> {
    let (schema, _) = decode(stream.to_vec())?;
    Ok(schema)
}

/// The batches of a stream of these columns, without copying them; the error says what is wrong with it.
pub(super) fn decode_rows(stream: Vec<u8>, declared: &SchemaRef) -> Result<Vec<RecordBatch>, String> {
    let (schema, batches) = decode(stream)?;
    if let Some(difference) = difference(&schema, declared) {
        return Err(difference);
    }
    let adopt = |rows: RecordBatch| {
        // The signature's schema has the names and metadata; this checks that what may not be null is not.
        let adopted = RecordBatch::try_new(declared.clone(), rows.columns().to_vec());
        adopted.map_err(|error| format!("its rows do not fit its signature: {error}"))
    };
    batches.into_iter().filter(|rows| rows.num_rows() > 0).map(adopt).collect()
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

fn decode(mut stream: Vec<u8>) -> Result<(SchemaRef, Vec<RecordBatch>), String> {
    if !check(&stream)? {
        stream.extend_from_slice(&END);
    }
    let mut buffer = Buffer::from_vec(stream);
    // Arrow trusts the schemas and buffer lists of messages in places, and panics where they make no sense.
    let decoded = catch_unwind(AssertUnwindSafe(|| {
        let mut decoder = StreamDecoder::new();
        let mut batches = Vec::new();
        while let Some(rows) = decoder.decode(&mut buffer)? {
            batches.push(rows);
        }
        decoder.finish()?;
        Ok::<_, ArrowError>((decoder.schema(), batches))
    }));
    match decoded {
        Ok(Ok((Some(schema), batches))) => Ok((schema, batches)),
        Ok(Ok((None, _))) => Err("an Arrow IPC stream without a schema".to_owned()),
        Ok(Err(error)) => Err(format!("no valid Arrow IPC stream: {error}")),
        Err(_) => Err("no valid Arrow IPC stream: its messages contradict themselves".to_owned()),
    }
}

/// Walks the messages of a stream, and says whether it has an end-of-stream marker. Not all writers write one.
fn check(stream: &[u8]) -> Result<bool, String> {
    let invalid = |what: &str| format!("no valid Arrow IPC stream: {what}");
    let mut rest = stream;
    let mut messages = 0;
    loop {
        rest = rest.strip_prefix(&CONTINUATION).unwrap_or(rest);
        let Some((length, after)) = rest.split_first_chunk::<4>() else {
            return if rest.is_empty() && messages > 0 { Ok(false) } else { Err(invalid("it is cut off")) };
        };
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        if length == 0 {
            return if after.is_empty() { Ok(true) } else { Err(invalid("bytes follow its end")) };
        }
        let (message, after) = after.split_at_checked(length).ok_or_else(|| invalid("a message is cut off"))?;
        let message = root_as_message(message).map_err(|error| invalid(&error.to_string()))?;
        let body_bytes = usize::try_from(message.bodyLength()).map_err(|_| invalid("a body of negative length"))?;
        rest = after.get(body_bytes..).ok_or_else(|| invalid("a body is cut off"))?;
        messages += 1;
        match message.header_type() {
            MessageHeader::Schema if messages == 1 => {}
            MessageHeader::RecordBatch if messages > 1 => {
                let batch = message.header_as_record_batch().ok_or_else(|| invalid("a message without a header"))?;
                if batch.compression().is_some() {
                    return Err("a compressed Arrow IPC stream; write it uncompressed".to_owned());
                }
                // A row takes a bit at the least.
                if usize::try_from(batch.length()).map_or(true, |rows| rows / 8 > body_bytes) {
                    return Err(invalid("it claims more rows than it holds"));
                }
            }
            MessageHeader::DictionaryBatch => {
                return Err("an Arrow IPC stream with dictionaries; write plain columns".to_owned());
            }
            other => return Err(invalid(&format!("an unexpected message {other:?}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::sync::Arc;

    use arrow::array::{ArrayRef, BooleanArray, Int64Array, ListArray, StringArray, StructArray};
    use arrow::datatypes::{Field, Int64Type};
    use proptest::prelude::*;

    use super::*;

    fn batch() -> RecordBatch {
        let list = ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1)]), None, Some(vec![])]);
        let names: ArrayRef = Arc::new(StringArray::from(vec![Some("ä"), None, Some("")]));
        let pair = StructArray::from(vec![(Arc::new(Field::new("name", DataType::Utf8, true)), Arc::clone(&names))]);
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("n", Arc::new(Int64Array::from(vec![Some(1), None, Some(3)]))),
            ("name", names),
            ("flag", Arc::new(BooleanArray::from(vec![true, false, true]))),
            ("list", Arc::new(list)),
            ("pair", Arc::new(pair)),
        ];
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true))).unwrap()
    }

    #[test]
    fn rows_come_back() {
        let rows = batch();
        for rows in [rows.clone(), rows.slice(1, 2), rows.slice(0, 1)] {
            let stream = encode_rows(&rows).unwrap();
            assert_eq!(decode_rows(stream, &rows.schema()).unwrap(), [rows]);
        }
        let stream = encode_rows(&rows).unwrap();
        let without_end = stream[..stream.len() - END.len()].to_vec();
        assert_eq!(decode_rows(without_end, &rows.schema()).unwrap(), std::slice::from_ref(&rows));
        assert_eq!(decode_schema(&encode_schema(&rows.schema()).unwrap()).unwrap(), rows.schema());
        assert!(decode_rows(encode_rows(&rows.slice(0, 0)).unwrap(), &rows.schema()).unwrap().is_empty());
    }

    #[test]
    fn rows_without_columns_are_counted() {
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(3));
        let rows = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options).unwrap();
        assert!(!encode_rows(&rows).unwrap().is_empty());
    }

    #[test]
    fn other_columns_than_declared_are_told() {
        let stream = encode_rows(&batch().project(&[0, 1]).unwrap()).unwrap();
        for (columns, expected) in [
            (vec![0], "its rows have 2 columns, its signature 1"),
            (vec![1, 0], "the column `n` of type Int64 where the signature has `name` of type Utf8"),
            (vec![0, 1, 2], "its rows have 2 columns, its signature 3"),
        ] {
            let declared = Arc::new(batch().schema().project(&columns).unwrap());
            let message = decode_rows(stream.clone(), &declared).unwrap_err();
            assert!(message.contains(expected), "{message}");
        }
        let strict = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
        let stream = encode_rows(&batch().project(&[0]).unwrap()).unwrap();
        assert!(decode_rows(stream, &strict).unwrap_err().contains("do not fit its signature"));
    }

    #[test]
    fn what_is_no_stream_is_refused() {
        let stream = encode_rows(&batch()).unwrap();
        for bytes in [&b""[..], b"\0", b"hello, this is no Arrow at all", &stream[..stream.len() / 2]] {
            decode_rows(bytes.to_vec(), &batch().schema()).unwrap_err();
        }
        let twice = [stream.clone(), stream].concat();
        assert!(decode_rows(twice, &batch().schema()).unwrap_err().contains("bytes follow its end"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(bytes: Vec<u8>) {
            decode_rows(bytes, &batch().schema()).unwrap_err();
        }

        /// Whatever is changed in a stream: it is read within its size, or refused.
        #[test]
        fn damaged_streams_are_answered(at in any::<prop::sample::Index>(), byte: u8, more in 0usize..4) {
            let mut stream = encode_rows(&batch()).unwrap();
            for n in 0..=more {
                let place = (at.index(stream.len()) + n * 37) % stream.len();
                stream[place] = byte.wrapping_add(u8::try_from(n).unwrap());
            }
            let bytes = stream.len();
            if let Ok(batches) = decode_rows(stream, &batch().schema()) {
                for rows in batches {
                    prop_assert!(rows.num_rows() <= 8 * bytes);
                    for column in rows.columns() {
                        column.to_data().validate_full().unwrap();
                    }
                }
            }
        }
    }
}
