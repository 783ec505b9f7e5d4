//! The columns of a record batch, read from the body of its message without copying.

use std::sync::Arc;

use crate::arrow::array::{
    ArrayRef, ArrowPrimitiveType, BooleanArray, FixedSizeBinaryArray, FixedSizeListArray, GenericByteArray,
    GenericListArray, MapArray, NullArray, OffsetSizeTrait, PrimitiveArray, RecordBatch, RecordBatchOptions,
    StructArray,
};
use crate::arrow::buffer::{BooleanBuffer, Buffer, MutableBuffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use crate::arrow::datatypes::{
    ArrowNativeType, BinaryType, ByteArrayType, DataType, Date32Type, Date64Type, Decimal128Type,
    DurationMicrosecondType, Field, Fields, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    LargeBinaryType, LargeUtf8Type, SchemaRef, Time32MillisecondType, Time32SecondType, Time64MicrosecondType,
    Time64NanosecondType, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type, Utf8Type,
};
use crate::arrow::error::ArrowError;
use crate::arrow::ipc;

use super::broken;

/// The batch whose buffers lie in this body.
pub(super) fn read(schema: &SchemaRef, batch: ipc::RecordBatch<'_>, body: &Buffer) -> Result<RecordBatch, ArrowError> {
    if batch.compression().is_some() {
        return Err(broken("a batch that is compressed"));
    }
    let missing = || broken("a batch without its places");
    let nodes = batch.nodes().ok_or_else(missing)?;
    let places = batch.buffers().ok_or_else(missing)?;
    let mut columns = Columns { nodes: nodes.into_iter(), places: places.into_iter(), body };
    let columns = schema.fields().iter().map(|field| columns.column(field)).collect::<Result<_, _>>()?;
    let rows = usize::try_from(batch.length()).map_err(|_| broken("a batch of negative length"))?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
}

struct Columns<'a, N, P> {
    nodes: N,
    places: P,
    body: &'a Buffer,
}

impl<'n, 'p, N: Iterator<Item = &'n ipc::FieldNode>, P: Iterator<Item = &'p ipc::Buffer>> Columns<'_, N, P> {
    fn column(&mut self, field: &Field) -> Result<ArrayRef, ArrowError> {
        let node = self.nodes.next().ok_or_else(|| broken("a batch with too few columns"))?;
        let length = usize::try_from(node.length()).map_err(|_| broken("a column of negative length"))?;
        if *field.data_type() == DataType::Null {
            return Ok(Arc::new(NullArray::new(length)));
        }
        let validity = self.buffer(length.div_ceil(8) * usize::from(node.null_count() > 0), 1)?;
        let nulls = (node.null_count() > 0).then(|| NullBuffer::new(BooleanBuffer::new(validity, 0, length)));
        Ok(match field.data_type() {
            DataType::Boolean => {
                let values = self.buffer(length.div_ceil(8), 1)?;
                Arc::new(BooleanArray::new(BooleanBuffer::new(values, 0, length), nulls))
            }
            DataType::Utf8 => Arc::new(self.bytes::<Utf8Type>(length, nulls)?),
            DataType::Binary => Arc::new(self.bytes::<BinaryType>(length, nulls)?),
            DataType::LargeUtf8 => Arc::new(self.bytes::<LargeUtf8Type>(length, nulls)?),
            DataType::LargeBinary => Arc::new(self.bytes::<LargeBinaryType>(length, nulls)?),
            DataType::List(item) => Arc::new(self.list::<i32>(item, length, nulls)?),
            DataType::LargeList(item) => Arc::new(self.list::<i64>(item, length, nulls)?),
            DataType::Map(entries, sorted) => {
                let offsets = self.offsets::<i32>(length)?;
                let items = self.structs(entries)?;
                Arc::new(MapArray::try_new(Arc::clone(entries), offsets, items, nulls, *sorted)?)
            }
            DataType::FixedSizeList(item, size) => {
                let items = self.column(item)?;
                Arc::new(FixedSizeListArray::try_new(Arc::clone(item), *size, items, nulls)?)
            }
            DataType::Struct(fields) => Arc::new(self.structure(fields, length, nulls)?),
            DataType::FixedSizeBinary(size) => {
                let width = usize::try_from(*size).map_err(|_| broken("values of negative size"))?;
                Arc::new(FixedSizeBinaryArray::try_new(*size, self.buffer(length * width, 1)?, nulls)?)
            }
            _ => self.fixed(field, length, nulls)?,
        })
    }

    fn fixed(&mut self, field: &Field, length: usize, nulls: Option<NullBuffer>) -> Result<ArrayRef, ArrowError> {
        let data_type = field.data_type();
        macro_rules! numbers {
            ($($pattern:pat => $type:ty),* $(,)?) => {
                match data_type {
                    $($pattern => Arc::new(self.numbers::<$type>(data_type, length, nulls)?),)*
                    other => {
                        let text = format!("column `{}`: a guest cannot read the type {other}", field.name());
                        return Err(ArrowError::NotYetImplemented(text));
                    }
                }
            };
        }
        Ok(numbers! {
            DataType::Int8 => Int8Type,
            DataType::Int16 => Int16Type,
            DataType::Int32 => Int32Type,
            DataType::Int64 => Int64Type,
            DataType::UInt8 => UInt8Type,
            DataType::UInt16 => UInt16Type,
            DataType::UInt32 => UInt32Type,
            DataType::UInt64 => UInt64Type,
            DataType::Float32 => Float32Type,
            DataType::Float64 => Float64Type,
            DataType::Decimal128(..) => Decimal128Type,
            DataType::Date32 => Date32Type,
            DataType::Date64 => Date64Type,
            DataType::Time32(TimeUnit::Second) => Time32SecondType,
            DataType::Time32(_) => Time32MillisecondType,
            DataType::Time64(TimeUnit::Microsecond) => Time64MicrosecondType,
            DataType::Time64(_) => Time64NanosecondType,
            DataType::Timestamp(TimeUnit::Second, _) => TimestampSecondType,
            DataType::Timestamp(TimeUnit::Millisecond, _) => TimestampMillisecondType,
            DataType::Timestamp(TimeUnit::Microsecond, _) => TimestampMicrosecondType,
            DataType::Timestamp(TimeUnit::Nanosecond, _) => TimestampNanosecondType,
            DataType::Duration(TimeUnit::Microsecond) => DurationMicrosecondType,
        })
    }

    fn numbers<T: ArrowPrimitiveType>(
        &mut self,
        data_type: &DataType,
        length: usize,
        nulls: Option<NullBuffer>,
    ) -> Result<PrimitiveArray<T>, ArrowError> {
        let values =
            ScalarBuffer::new(self.buffer(length * size_of::<T::Native>(), align_of::<T::Native>())?, 0, length);
        Ok(PrimitiveArray::try_new(values, nulls)?.with_data_type(data_type.clone()))
    }

    fn bytes<T: ByteArrayType>(
        &mut self,
        length: usize,
        nulls: Option<NullBuffer>,
    ) -> Result<GenericByteArray<T>, ArrowError> {
        let offsets = self.offsets::<T::Offset>(length)?;
        let values = self.buffer(offsets.last().map_or(0, |last| last.as_usize()), 1)?;
        GenericByteArray::try_new(offsets, values, nulls)
    }

    fn list<O: OffsetSizeTrait>(
        &mut self,
        item: &Arc<Field>,
        length: usize,
        nulls: Option<NullBuffer>,
    ) -> Result<GenericListArray<O>, ArrowError> {
        let offsets = self.offsets::<O>(length)?;
        let items = self.column(item)?;
        GenericListArray::try_new(Arc::clone(item), offsets, items, nulls)
    }

    /// The pairs of a map.
    fn structs(&mut self, entries: &Field) -> Result<StructArray, ArrowError> {
        let pairs = self.column(entries)?;
        let pairs = pairs.as_any().downcast_ref::<StructArray>();
        pairs.cloned().ok_or_else(|| broken("a map whose entries are no structs"))
    }

    fn structure(
        &mut self,
        fields: &Fields,
        length: usize,
        nulls: Option<NullBuffer>,
    ) -> Result<StructArray, ArrowError> {
        let columns = fields.iter().map(|field| self.column(field)).collect::<Result<_, _>>()?;
        StructArray::try_new_with_length(fields.clone(), columns, nulls, length)
    }

    fn offsets<O: OffsetSizeTrait>(&mut self, length: usize) -> Result<OffsetBuffer<O>, ArrowError> {
        if length == 0 {
            // Arrow lets the only offset of no rows be absent.
            self.buffer(0, 1)?;
            return Ok(OffsetBuffer::new_empty());
        }
        let offsets = self.buffer((length + 1) * size_of::<O>(), align_of::<O>())?;
        Ok(OffsetBuffer::new(ScalarBuffer::new(offsets, 0, length + 1)))
    }

    /// The next buffer, of at least so many bytes.
    fn buffer(&mut self, bytes: usize, alignment: usize) -> Result<Buffer, ArrowError> {
        let place = self.places.next().ok_or_else(|| broken("a batch with too few buffers"))?;
        let (Ok(offset), Ok(length)) = (usize::try_from(place.offset()), usize::try_from(place.length())) else {
            return Err(broken("a buffer at a negative place"));
        };
        let end = offset.checked_add(length).filter(|end| *end <= self.body.len());
        if end.is_none() || length < bytes {
            return Err(broken("a buffer that is too short"));
        }
        let buffer = self.body.slice_with_length(offset, length);
        // What the allocator gave for the whole may be aligned less than 16 bytes numbers need.
        if buffer.as_ptr().align_offset(alignment) == 0 {
            return Ok(buffer);
        }
        let mut aligned = MutableBuffer::with_capacity(length);
        aligned.extend_from_slice(&buffer);
        Ok(aligned.into())
    }
}
