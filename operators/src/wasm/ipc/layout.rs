//! Checks the structure of an Arrow IPC stream of a guest, before Arrow reads it.
//!
//! ```text
//!   schema message ─▶ types.rs: only types that can flow, each with what its type needs
//!   batch message ──▶ nodes and buffers as the schema asks for them, none missing, none left over
//!                     body  │ buffer │pad│ buffer │ buffer │pad│   each begins where the one before it has ended
//! ```
//!
//! Buffers that share bytes would grow when rows are copied. As none do, and as every row takes at least a bit of some buffer,
//! decoded rows are no larger than the stream, which the guest's memory bounds.

use arrow::datatypes::{DataType, SchemaRef};
use arrow::ipc::convert::fb_to_schema;
use arrow::ipc::{Endianness, FieldNode, Message, MessageHeader, RecordBatch, root_as_message_with_opts};
use flatbuffers::VerifierOptions;

use super::types;

/// What begins a message, before its length.
const CONTINUATION: [u8; 4] = [0xff; 4];
/// What an array counts beside its values.
const ARRAY_BYTES: u64 = 256;
/// What the results of a call may take beside what the guest's memory holds, for what arrays count.
const EXTRA_BYTES: u64 = 4 * 1024 * 1024;
/// How many times a message's size its parts may add up to: those that share bytes count for each time.
const MAX_SHARING: usize = 8;
/// What the parts of the smallest message may take.
const MIN_APPARENT_BYTES: usize = 4096;
/// What is not worth a copy, however much of a stream is not rows.
const SMALL_BYTES: usize = 64 * 1024;

/// What the results of one call may take in this process.
#[derive(Debug)]
pub(in crate::wasm) struct Budget {
    limit_bytes: u64,
    left_bytes: u64,
}

impl Budget {
    /// For a guest with this much memory.
    pub(in crate::wasm) fn new(memory_bytes: u64) -> Self {
        let limit_bytes = memory_bytes.saturating_add(EXTRA_BYTES);
        Self { limit_bytes, left_bytes: limit_bytes }
    }

    fn take(&mut self, bytes: u64) -> Result<(), String> {
        match self.left_bytes.checked_sub(bytes) {
            Some(left) => {
                self.left_bytes = left;
                Ok(())
            }
            None => {
                Err(format!("its rows take more than {} bytes, which is all that its limit allows", self.limit_bytes))
            }
        }
    }
}

/// What is known of a stream that was checked.
pub(super) struct Checked {
    pub(super) schema: SchemaRef,
    /// Whether it has an end-of-stream marker. Not all writers write one.
    pub(super) has_end: bool,
    /// Whether most of it is neither rows nor what they need.
    pub(super) is_sparse: bool,
}

/// Walks the messages of a stream.
pub(super) fn check(stream: &[u8], budget: &mut Budget) -> Result<Checked, String> {
    budget.take(stream.len() as u64)?;
    let (mut rest, mut schema, mut used_bytes) = (stream, None, 0);
    let has_end = loop {
        rest = rest.strip_prefix(&CONTINUATION).unwrap_or(rest);
        let Some((length, after)) = rest.split_first_chunk::<4>() else {
            break if rest.is_empty() && schema.is_some() { Ok(false) } else { Err(invalid("it is cut off")) };
        };
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        if length == 0 {
            break if after.is_empty() { Ok(true) } else { Err(invalid("bytes follow its end")) };
        }
        let (message, after) = after.split_at_checked(length).ok_or_else(|| invalid("a message is cut off"))?;
        let message = verified(message)?;
        let body_bytes = usize::try_from(message.bodyLength()).map_err(|_| invalid("a body of negative length"))?;
        let (body, after) = after.split_at_checked(body_bytes).ok_or_else(|| invalid("a body is cut off"))?;
        rest = after;
        match (&schema, message.header_type()) {
            (None, MessageHeader::Schema) => schema = Some(read_schema(&message)?),
            (Some(schema), MessageHeader::RecordBatch) => used_bytes += check_batch(&message, schema, body, budget)?,
            (_, MessageHeader::DictionaryBatch) => {
                return Err("an Arrow IPC stream with dictionaries; write plain columns".to_owned());
            }
            (_, other) => return Err(invalid(&format!("an unexpected message {other:?}"))),
        }
    }?;
    let schema = schema.ok_or("an Arrow IPC stream without a schema")?;
    let is_sparse = stream.len() > 2 * used_bytes + SMALL_BYTES;
    Ok(Checked { schema, has_end, is_sparse })
}

pub(super) fn invalid(what: &str) -> String {
    format!("no valid Arrow IPC stream: {what}")
}

/// A message whose parts lie within it, and do not share more of it than parts of messages do.
fn verified(message: &[u8]) -> Result<Message<'_>, String> {
    let max_apparent_size = message.len().saturating_mul(MAX_SHARING).saturating_add(MIN_APPARENT_BYTES);
    let options = VerifierOptions { max_apparent_size, max_tables: message.len(), ..VerifierOptions::default() };
    root_as_message_with_opts(&options, message).map_err(|error| invalid(&error.to_string()))
}

fn read_schema(message: &Message<'_>) -> Result<SchemaRef, String> {
    let schema = message.header_as_schema().ok_or_else(|| invalid("a message without a header"))?;
    if schema.endianness() != Endianness::Little {
        return Err("an Arrow IPC stream of big-endian numbers".to_owned());
    }
    let fields = schema.fields().ok_or_else(|| invalid("a schema without columns"))?;
    types::check(fields.iter())?;
    Ok(fb_to_schema(schema).into())
}

/// Checks a batch of these columns; how many bytes its rows need.
fn check_batch(message: &Message<'_>, schema: &SchemaRef, body: &[u8], budget: &mut Budget) -> Result<usize, String> {
    let batch = message.header_as_record_batch().ok_or_else(|| invalid("a message without a header"))?;
    if batch.compression().is_some() {
        return Err("a compressed Arrow IPC stream; write it uncompressed".to_owned());
    }
    let rows = usize::try_from(batch.length()).map_err(|_| invalid("a batch of a negative number of rows"))?;
    if rows > 0 && schema.fields().is_empty() {
        return Err(invalid("rows without columns"));
    }
    budget.take(ARRAY_BYTES)?;
    let mut parts = Parts::new(&batch, body, budget);
    for field in schema.fields() {
        let found = parts.array(field.data_type()).and_then(|found| match found == rows {
            true => Ok(()),
            false => Err(format!("it has {found} values, the batch has {rows} rows")),
        });
        found.map_err(|why| invalid(&format!("the column `{}`: {why}", field.name())))?;
    }
    if parts.is_done() { Ok(parts.used_bytes) } else { Err(invalid("a batch with more arrays than columns")) }
}

/// The arrays and buffers of a batch that have not been looked at.
struct Parts<'a, 'b> {
    batch: RecordBatch<'a>,
    node: usize,
    buffer: usize,
    body: &'a [u8],
    /// Where the last buffer ended.
    end: usize,
    used_bytes: usize,
    budget: &'b mut Budget,
}

impl<'a, 'b> Parts<'a, 'b> {
    fn new(batch: &RecordBatch<'a>, body: &'a [u8], budget: &'b mut Budget) -> Self {
        Self { batch: *batch, node: 0, buffer: 0, body, end: 0, used_bytes: 0, budget }
    }

    fn is_done(&self) -> bool {
        let nodes = self.batch.nodes().map_or(0, |nodes| nodes.len());
        let buffers = self.batch.buffers().map_or(0, |buffers| buffers.len());
        let views = self.batch.variadicBufferCounts().map_or(0, |counts| counts.len());
        self.node == nodes && self.buffer == buffers && views == 0
    }

    /// Checks the next array and its children; how many values it has.
    fn array(&mut self, data_type: &DataType) -> Result<usize, String> {
        self.budget.take(ARRAY_BYTES)?;
        let node = self.next_node()?;
        let length = usize::try_from(node.length()).map_err(|_| "a negative number of values")?;
        self.validity(length, node.null_count())?;
        match data_type {
            DataType::Boolean => self.values(length.div_ceil(8))?,
            DataType::Utf8 | DataType::Binary => self.texts::<4>(length)?,
            DataType::LargeUtf8 | DataType::LargeBinary => self.texts::<8>(length)?,
            DataType::FixedSizeBinary(bytes) => self.fixed(length, usize::try_from(*bytes).unwrap_or(0))?,
            DataType::List(item) => self.list::<4>(length, item.data_type())?,
            DataType::LargeList(item) => self.list::<8>(length, item.data_type())?,
            DataType::FixedSizeList(item, size) => {
                let wanted = usize::try_from(*size).ok().and_then(|size| size.checked_mul(length));
                self.child(item.data_type(), wanted.ok_or("too many values")?)?;
            }
            DataType::Struct(fields) => {
                for field in fields {
                    self.child(field.data_type(), length).map_err(|why| format!("`{}`: {why}", field.name()))?;
                }
            }
            other => match other.primitive_width() {
                Some(bytes) => self.fixed(length, bytes)?,
                None => return Err(format!("the Arrow type {other}, which guests cannot use")),
            },
        }
        Ok(length)
    }

    fn child(&mut self, data_type: &DataType, wanted: usize) -> Result<(), String> {
        match self.array(data_type)? {
            found if found == wanted => Ok(()),
            found => Err(format!("it has {found} values where {wanted} are expected")),
        }
    }

    fn fixed(&mut self, length: usize, bytes_each: usize) -> Result<(), String> {
        self.values(length.checked_mul(bytes_each).ok_or("too many values")?)
    }

    /// The bits that say which values are null.
    fn validity(&mut self, length: usize, null_count: i64) -> Result<(), String> {
        let bits = self.next_buffer()?;
        match usize::try_from(null_count) {
            Ok(0) if bits.is_empty() => Ok(()),
            Ok(nulls) if nulls <= length && bits.len() >= length.div_ceil(8) => {
                self.used_bytes += length.div_ceil(8);
                // Arrow itself counts them where there shall be some, and looks at none where there shall not.
                let wrong = nulls == 0 && !all_set(bits, length);
                if wrong { Err("it has nulls and says that it has none".to_owned()) } else { Ok(()) }
            }
            Ok(nulls) if nulls <= length => Err("it has too few bits for its nulls".to_owned()),
            _ => Err(format!("it cannot have {null_count} nulls among {length} values")),
        }
    }

    fn values(&mut self, needed: usize) -> Result<(), String> {
        self.used_bytes += needed;
        let found = self.next_buffer()?.len();
        if found >= needed { Ok(()) } else { Err(format!("it has {found} bytes of values and needs {needed}")) }
    }

    /// Ends of values, of `N` bytes each; where the last value ends.
    fn ends<const N: usize>(&mut self, length: usize) -> Result<usize, String> {
        let ends = self.next_buffer()?;
        if length == 0 && ends.is_empty() {
            return Ok(0);
        }
        let needed = length.checked_add(1).and_then(|ends| ends.checked_mul(N)).ok_or("too many values")?;
        let Some(last) = ends.get(..needed).and_then(|ends| ends.last_chunk::<N>()) else {
            return Err(format!("it has {} bytes of offsets and needs {needed}", ends.len()));
        };
        self.used_bytes += needed;
        let mut wide = [0; 8];
        wide.iter_mut().zip(last).for_each(|(to, from)| *to = *from);
        usize::try_from(u64::from_le_bytes(wide)).map_err(|_| "an offset beyond all memory".to_owned())
    }

    fn texts<const N: usize>(&mut self, length: usize) -> Result<(), String> {
        let needed = self.ends::<N>(length)?;
        self.values(needed)
    }

    fn list<const N: usize>(&mut self, length: usize, item: &DataType) -> Result<(), String> {
        let needed = self.ends::<N>(length)?;
        let found = self.array(item)?;
        if found >= needed { Ok(()) } else { Err(format!("its lists end at {needed}, it has {found} items")) }
    }

    fn next_node(&mut self) -> Result<FieldNode, String> {
        let nodes = self.batch.nodes().filter(|nodes| self.node < nodes.len()).ok_or("it is missing")?;
        let node = *nodes.get(self.node);
        self.node += 1;
        Ok(node)
    }

    fn next_buffer(&mut self) -> Result<&'a [u8], String> {
        let buffers = self.batch.buffers().filter(|buffers| self.buffer < buffers.len());
        let buffer = buffers.ok_or("a buffer is missing")?.get(self.buffer);
        self.buffer += 1;
        let (start, length) = (usize::try_from(buffer.offset()), usize::try_from(buffer.length()));
        let (Ok(start), Ok(length)) = (start, length) else { return Err("a buffer at a negative place".to_owned()) };
        let bytes = self.body.get(start..).and_then(|rest| rest.get(..length));
        let bytes = bytes.ok_or("a buffer that lies outside of its message")?;
        if bytes.is_empty() {
            return Ok(bytes);
        }
        if start < self.end {
            return Err("its buffers overlap, or are not in the order of the columns".to_owned());
        }
        self.end = start + length;
        Ok(bytes)
    }
}

/// Whether the first bits are all set.
fn all_set(bits: &[u8], length: usize) -> bool {
    let (whole, last) = bits.split_at(length / 8);
    let mask = (1u8 << (length % 8)) - 1;
    whole.iter().all(|byte| *byte == u8::MAX) && last.first().is_none_or(|byte| byte & mask == mask)
}
