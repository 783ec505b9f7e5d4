//! Rows between host and guest: Arrow IPC streams, uncompressed and without dictionaries.
//!
//! ```text
//! stream   message…, ff ff ff ff 00 00 00 00
//! message  ff ff ff ff, i32 length of what follows until the body, flatbuffer `Message`, padding, body
//! ```
//!
//! Arrow's own reader and writer bring everything for dictionaries, unions and views with them, which makes a guest five times
//! as large; here is what occurs. Reading copies nothing, and writing copies every byte once.

#[path = "columns.rs"]
mod columns;

use std::sync::Arc;

use crate::arrow::array::{Array, ArrayData, RecordBatch};
use crate::arrow::buffer::{BooleanBuffer, Buffer};
use crate::arrow::datatypes::{ArrowNativeType, DataType, Schema, SchemaRef};
use crate::arrow::error::ArrowError;
use crate::arrow::ipc::convert::{fb_to_schema, schema_to_fb_offset};
use crate::arrow::ipc::{
    self, FieldNode, Message, MessageBuilder, MessageHeader, MetadataVersion, RecordBatchBuilder, root_as_message,
};
use flatbuffers::{FlatBufferBuilder, UnionWIPOffset, WIPOffset};

const CONTINUATION: [u8; 4] = [0xff; 4];
/// Every buffer begins at a multiple of this, counted from the stream's beginning.
const ALIGNMENT: usize = 64;

fn broken(what: &str) -> ArrowError {
    ArrowError::IpcError(what.to_owned())
}

/// The schema of a stream that may hold no rows.
pub(crate) fn schema(stream: &[u8]) -> Result<SchemaRef, ArrowError> {
    let mut reader = Reader { stream: Buffer::from(stream), at: 0 };
    match reader.next()? {
        Some((message, _)) => read_schema(root(&message)?),
        None => Err(broken("a stream without a schema")),
    }
}

/// The batches of a stream. They point into it; nothing is copied. A stream that contradicts itself within its columns ends in
/// a panic: nobody but the engine writes them.
pub(crate) fn read(stream: Vec<u8>) -> Result<Vec<RecordBatch>, ArrowError> {
    let mut reader = Reader { stream: Buffer::from_vec(stream), at: 0 };
    let (first, _) = reader.next()?.ok_or_else(|| broken("a stream without a schema"))?;
    let schema = read_schema(root(&first)?)?;
    let mut batches = Vec::with_capacity(1);
    while let Some((message, body)) = reader.next()? {
        let message = root(&message)?;
        let batch = message.header_as_record_batch().ok_or_else(|| broken("a message that is no record batch"))?;
        batches.push(columns::read(&schema, batch, &body)?);
    }
    Ok(batches)
}

struct Reader {
    stream: Buffer,
    at: usize,
}

impl Reader {
    /// The next message and its body; none at the end.
    fn next(&mut self) -> Result<Option<(Buffer, Buffer)>, ArrowError> {
        let rest = self.stream.get(self.at..).unwrap_or_default();
        let Some((marks, _)) = rest.split_first_chunk::<8>() else {
            return if rest.is_empty() { Ok(None) } else { Err(broken("a stream that ends early")) };
        };
        let (mark, length) = marks.split_at(4);
        let length = length.try_into().map(i32::from_le_bytes).unwrap_or_default();
        if mark != CONTINUATION {
            return Err(broken("what is no Arrow stream"));
        }
        if length == 0 {
            return Ok(None);
        }
        self.at += 8;
        let message = self.take(i64::from(length))?;
        let body_length = root(&message)?.bodyLength();
        Ok(Some((message, self.take(body_length)?)))
    }

    fn take(&mut self, length: i64) -> Result<Buffer, ArrowError> {
        let length = usize::try_from(length).map_err(|_| broken("a part of negative length"))?;
        if length > self.stream.len() - self.at {
            return Err(broken("a stream that ends early"));
        }
        let part = self.stream.slice_with_length(self.at, length);
        self.at += length;
        Ok(part)
    }
}

fn root(message: &[u8]) -> Result<Message<'_>, ArrowError> {
    root_as_message(message).map_err(|error| ArrowError::IpcError(error.to_string()))
}

fn read_schema(message: Message<'_>) -> Result<SchemaRef, ArrowError> {
    let schema = message.header_as_schema().ok_or_else(|| broken("a stream that does not begin with a schema"))?;
    Ok(Arc::new(fb_to_schema(schema)))
}

/// A stream of these batches, all of this schema.
pub(crate) fn write(schema: &Schema, batches: &[RecordBatch]) -> Result<Vec<u8>, ArrowError> {
    let parts: Vec<Parts> = batches.iter().map(parts).collect::<Result<_, _>>()?;
    let bytes: usize = parts.iter().flat_map(|parts| &parts.buffers).map(|buffer| padded(buffer.len())).sum();
    let mut stream = Vec::with_capacity(bytes + 1024 * (batches.len() + 1) + 256 * schema.fields().len());

    let mut builder = FlatBufferBuilder::new();
    let header = schema_to_fb_offset(&mut builder, schema).as_union_value();
    message(&mut stream, builder, (MessageHeader::Schema, header), 0);

    for (batch, Parts { nodes, buffers }) in batches.iter().zip(parts) {
        let mut builder = FlatBufferBuilder::new();
        let nodes = builder.create_vector(&nodes);
        let mut body_length = 0;
        let mut places = Vec::with_capacity(buffers.len());
        for buffer in &buffers {
            places.push(ipc::Buffer::new(body_length as i64, buffer.len() as i64));
            body_length += padded(buffer.len());
        }
        let places = builder.create_vector(&places);
        let mut header = RecordBatchBuilder::new(&mut builder);
        header.add_length(batch.num_rows() as i64);
        header.add_nodes(nodes);
        header.add_buffers(places);
        let header = header.finish().as_union_value();
        message(&mut stream, builder, (MessageHeader::RecordBatch, header), body_length);
        for buffer in buffers {
            stream.extend_from_slice(&buffer);
            stream.resize(padded(stream.len()), 0);
        }
    }
    stream.extend_from_slice(&CONTINUATION);
    stream.extend_from_slice(&[0; 4]);
    Ok(stream)
}

fn padded(length: usize) -> usize {
    length.next_multiple_of(ALIGNMENT)
}

/// Adds a message, so that its body begins at a multiple of the alignment.
fn message(
    stream: &mut Vec<u8>,
    mut builder: FlatBufferBuilder<'_>,
    (kind, header): (MessageHeader, WIPOffset<UnionWIPOffset>),
    body_length: usize,
) {
    let mut message = MessageBuilder::new(&mut builder);
    message.add_version(MetadataVersion::V5);
    message.add_header_type(kind);
    message.add_header(header);
    message.add_bodyLength(body_length as i64);
    let message = message.finish();
    builder.finish(message, None);
    let bytes = builder.finished_data();
    let body = padded(stream.len() + 8 + bytes.len());
    let length = (body - stream.len() - 8) as i32;
    stream.extend_from_slice(&CONTINUATION);
    stream.extend_from_slice(&length.to_le_bytes());
    stream.extend_from_slice(bytes);
    stream.resize(body, 0);
}

/// What a batch's columns are made of, in the order of the format.
#[derive(Default)]
struct Parts {
    nodes: Vec<FieldNode>,
    buffers: Vec<Buffer>,
}

fn parts(batch: &RecordBatch) -> Result<Parts, ArrowError> {
    let mut parts = Parts::default();
    for column in batch.columns() {
        parts.column(&column.to_data())?;
    }
    Ok(parts)
}

impl Parts {
    fn column(&mut self, data: &ArrayData) -> Result<(), ArrowError> {
        let (offset, length) = (data.offset(), data.len());
        if *data.data_type() == DataType::Null {
            self.nodes.push(FieldNode::new(length as i64, length as i64));
            return Ok(());
        }
        self.nodes.push(FieldNode::new(length as i64, data.null_count() as i64));
        // An empty buffer says that there are no nulls.
        self.buffers.push(data.nulls().map_or_else(Buffer::default, |nulls| nulls.inner().sliced()));
        match data.data_type() {
            DataType::Boolean => {
                self.buffers.push(BooleanBuffer::new(data.buffers()[0].clone(), offset, length).sliced());
            }
            DataType::Utf8 | DataType::Binary => self.offsets_and_bytes::<i32>(data),
            DataType::LargeUtf8 | DataType::LargeBinary => self.offsets_and_bytes::<i64>(data),
            DataType::List(_) | DataType::Map(..) => self.offsets_and_items::<i32>(data)?,
            DataType::LargeList(_) => self.offsets_and_items::<i64>(data)?,
            DataType::FixedSizeList(_, size) => {
                let size = usize::try_from(*size).unwrap_or_default();
                self.column(&data.child_data()[0].slice(offset * size, length * size))?;
            }
            DataType::Struct(_) => {
                // They have been sliced with it, unlike those of lists.
                data.child_data().iter().try_for_each(|child| self.column(child))?;
            }
            DataType::FixedSizeBinary(size) => {
                self.fixed(data, usize::try_from(*size).unwrap_or_default());
            }
            other => match other.primitive_width() {
                Some(width) => self.fixed(data, width),
                None => return Err(ArrowError::NotYetImplemented(format!("a column of type {other} in an output"))),
            },
        }
        Ok(())
    }

    fn fixed(&mut self, data: &ArrayData, width: usize) {
        self.buffers.push(data.buffers()[0].slice_with_length(data.offset() * width, data.len() * width));
    }

    /// The offsets, counted from 0, and the range of values that they point into.
    fn offsets<O: ArrowNativeType + std::ops::Sub<Output = O>>(&mut self, data: &ArrayData) -> (usize, usize) {
        let offsets = data.buffer::<O>(0);
        // A column without rows may come without offsets.
        let offsets = offsets.get(..=data.len()).unwrap_or_default();
        let (Some(&first), Some(&last)) = (offsets.first(), offsets.last()) else {
            self.buffers.push(Buffer::from(&[0; 8][..size_of::<O>()]));
            return (0, 0);
        };
        self.buffers.push(if first == O::default() {
            data.buffers()[0].slice_with_length(data.offset() * size_of::<O>(), size_of_val(offsets))
        } else {
            offsets.iter().map(|offset| *offset - first).collect()
        });
        (first.as_usize(), last.as_usize())
    }

    fn offsets_and_bytes<O: ArrowNativeType + std::ops::Sub<Output = O>>(&mut self, data: &ArrayData) {
        let (first, last) = self.offsets::<O>(data);
        self.buffers.push(data.buffers()[1].slice_with_length(first, last - first));
    }

    fn offsets_and_items<O: ArrowNativeType + std::ops::Sub<Output = O>>(
        &mut self,
        data: &ArrayData,
    ) -> Result<(), ArrowError> {
        let (first, last) = self.offsets::<O>(data);
        self.column(&data.child_data()[0].slice(first, last - first))
    }
}
