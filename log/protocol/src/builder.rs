//! Builds record batches, byte for byte as Kafka's own client would, with memory that is reused.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

use crate::compression::Compressor;
use crate::header::{ATTRIBUTES_AT, CONTROL, CRC_AT, HEADER_LEN, LENGTH_PREFIX_LEN, MAGIC, TRANSACTIONAL};
use crate::{BatchError, BatchHeader, Compression, LeaderEpoch, Offset, ProducerEpoch, ProducerId, Timestamp, varint};

/// Largest batch in bytes before compression: its length must fit an `i32`, also after a codec has added its framing
/// to bytes that it could not compress.
const MAX_BYTES: usize = i32::MAX as usize - (64 << 20);

/// The identity that an idempotent or transactional producer puts on a batch (KIP-98).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerStamp {
    /// The producer.
    pub id: ProducerId,
    /// Its epoch.
    pub epoch: ProducerEpoch,
    /// Sequence number of the batch's first record.
    pub base_sequence: i32,
}

/// What all records of a batch share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchOptions {
    /// The codec of the records.
    pub compression: Compression,
    /// How hard to compress, by the codec's own levels; `None` for its default. For gzip and zstd.
    pub level: Option<i32>,
    /// The producer, if it is idempotent.
    pub producer: Option<ProducerStamp>,
    /// Whether the batch is part of the producer's transaction.
    pub transactional: bool,
}

/// Collects records into a batch; usable again after [`BatchBuilder::finish`].
///
/// Appending allocates only when the batch outgrows every batch before it.
pub struct BatchBuilder {
    options: BatchOptions,
    control: bool,
    compressor: Compressor,
    /// Room for the header, then the records, uncompressed.
    buffer: BytesMut,
    /// Where the codec writes; empty between batches.
    compressed: Vec<u8>,
    /// Size of the batch before, uncompressed: the next is likely to need as much.
    expected_bytes: usize,
    count: i32,
    base_timestamp: Timestamp,
    max_timestamp: Timestamp,
}

impl BatchBuilder {
    /// An empty batch with these options.
    #[must_use]
    pub fn new(options: BatchOptions) -> Self {
        Self {
            options,
            control: false,
            compressor: Compressor::new(options.compression, options.level),
            buffer: BytesMut::new(),
            compressed: Vec::new(),
            expected_bytes: 0,
            count: 0,
            base_timestamp: Timestamp::NONE,
            max_timestamp: Timestamp::NONE,
        }
    }

    /// An empty control batch.
    pub(crate) fn control(options: BatchOptions) -> Self {
        Self { control: true, ..Self::new(options) }
    }

    /// Sets the producer stamp of the batch being built and of those after it; sequences are the caller's to advance.
    pub fn set_producer(&mut self, producer: Option<ProducerStamp>) {
        self.options.producer = producer;
    }

    /// Sets whether the batch being built, and those after it, are part of a transaction.
    pub fn set_transactional(&mut self, transactional: bool) {
        self.options.transactional = transactional;
    }

    /// Adds a record. Headers keep their order and may repeat a key.
    ///
    /// # Errors
    /// [`BatchError::BatchFull`], and the batch is unchanged, if it would pass the 2 GiB that the format allows.
    pub fn append(
        &mut self,
        timestamp: Timestamp,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&str, Option<&[u8]>)],
    ) -> Result<(), BatchError> {
        let base_timestamp = if self.count == 0 { timestamp } else { self.base_timestamp };
        // Wraps like the reader's addition, so even the extremes of i64 survive.
        let timestamp_delta = timestamp.0.wrapping_sub(base_timestamp.0);
        let headers_len = headers.iter().fold(0usize, |sum, (key, value)| {
            sum.saturating_add(field_len(Some(key.as_bytes()))).saturating_add(field_len(*value))
        });
        let body_len = (1 + varint::len_i64(timestamp_delta) + varint::len_i32(self.count))
            .saturating_add(field_len(key))
            .saturating_add(field_len(value))
            .saturating_add(varint::len_i32(headers.len() as i32))
            .saturating_add(headers_len);
        let batch_bytes = self.size_bytes();
        if body_len.saturating_add(varint::MAX_LEN_32).saturating_add(batch_bytes) > MAX_BYTES || self.count == i32::MAX
        {
            return Err(BatchError::BatchFull { bytes: body_len, batch_bytes });
        }

        if self.buffer.is_empty() {
            // Here and not in `finish`: by now the batch before may have been dropped, and its memory is free again.
            self.buffer.reserve(self.expected_bytes.max(HEADER_LEN));
            self.buffer.put_bytes(0, HEADER_LEN);
        }
        self.buffer.reserve(varint::MAX_LEN_32 + body_len);
        // At most 5 + 1 + 10 + 5 + 5 bytes.
        let mut front = varint::Stack::new();
        front.i32(body_len as i32);
        front.byte(0);
        front.i64(timestamp_delta);
        front.i32(self.count);
        put_field(&mut self.buffer, front, key);
        put_field(&mut self.buffer, varint::Stack::new(), value);
        let mut front = varint::Stack::new();
        front.i32(headers.len() as i32);
        self.buffer.extend_from_slice(front.as_slice());
        for (key, value) in headers {
            put_field(&mut self.buffer, varint::Stack::new(), Some(key.as_bytes()));
            put_field(&mut self.buffer, varint::Stack::new(), *value);
        }
        self.max_timestamp = if self.count == 0 { timestamp } else { self.max_timestamp.max(timestamp) };
        self.base_timestamp = base_timestamp;
        self.count += 1;
        Ok(())
    }

    /// Size of the batch so far in bytes, header included, before compression.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.buffer.len().max(HEADER_LEN)
    }

    /// Records so far.
    #[must_use]
    pub fn count(&self) -> usize {
        usize::try_from(self.count).unwrap_or(0)
    }

    /// Whether there are no records.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The batch, with base offset 0 and no leader epoch, or `None` without records. The builder is empty again.
    ///
    /// Should the codec fail (only for want of memory), the batch is left uncompressed: still a valid batch with the
    /// same records.
    #[must_use]
    pub fn finish(&mut self) -> Option<Bytes> {
        if self.is_empty() {
            return None;
        }
        self.expected_bytes = self.buffer.len();
        let codec = self.compress();
        let batch = if codec == Compression::None { &mut self.buffer[..] } else { &mut self.compressed[..] };
        let header = seal_header(&self.options, self.control, codec, self.count, batch.len());
        let header = BatchHeader { base_timestamp: self.base_timestamp, max_timestamp: self.max_timestamp, ..header };
        seal(batch, &header);

        let finished = if codec == Compression::None {
            self.buffer.split().freeze()
        } else {
            Bytes::copy_from_slice(&self.compressed)
        };
        self.clear();
        Some(finished)
    }

    /// Drops all records.
    pub fn clear(&mut self) {
        self.buffer.clear();
        self.compressed.clear();
        self.count = 0;
        self.base_timestamp = Timestamp::NONE;
        self.max_timestamp = Timestamp::NONE;
    }

    /// Compresses the records behind room for a header, and says with which codec.
    fn compress(&mut self) -> Compression {
        let codec = self.compressor.codec();
        if codec == Compression::None {
            return codec;
        }
        self.compressed.clear();
        self.compressed.resize(HEADER_LEN, 0);
        let records = self.buffer.get(HEADER_LEN..).unwrap_or_default();
        match self.compressor.compress(records, &mut self.compressed) {
            Ok(()) => codec,
            Err(_) => Compression::None,
        }
    }
}

impl fmt::Debug for BatchBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchBuilder")
            .field("options", &self.options)
            .field("count", &self.count)
            .field("size_bytes", &self.size_bytes())
            .finish_non_exhaustive()
    }
}

/// The header of a finished batch of `len` bytes, without its timestamps and CRC.
fn seal_header(options: &BatchOptions, control: bool, codec: Compression, count: i32, len: usize) -> BatchHeader {
    let producer = options.producer.unwrap_or(ProducerStamp {
        id: ProducerId::NONE,
        epoch: ProducerEpoch::NONE,
        base_sequence: -1,
    });
    let mut attributes = u16::from(codec.id());
    if options.transactional {
        attributes |= TRANSACTIONAL;
    }
    if control {
        attributes |= CONTROL;
    }
    BatchHeader {
        base_offset: Offset(0),
        batch_length: len.saturating_sub(LENGTH_PREFIX_LEN) as u32,
        leader_epoch: LeaderEpoch::NONE,
        magic: MAGIC,
        crc: 0,
        attributes,
        last_offset_delta: count - 1,
        base_timestamp: Timestamp::NONE,
        max_timestamp: Timestamp::NONE,
        producer_id: producer.id,
        producer_epoch: producer.epoch,
        base_sequence: producer.base_sequence,
        record_count: count,
    }
}

/// Writes the header over the room left for it, and then the CRC.
fn seal(batch: &mut [u8], header: &BatchHeader) {
    if let Some(place) = batch.first_chunk_mut::<HEADER_LEN>() {
        *place = header.encode();
    }
    let crc = batch.get(ATTRIBUTES_AT..).map_or(0, crc_fast::crc32_iscsi);
    if let Some(place) = batch.get_mut(CRC_AT..ATTRIBUTES_AT) {
        place.copy_from_slice(&crc.to_be_bytes());
    }
}

/// Bytes of a field with its length; null is a length of -1.
#[inline]
fn field_len(field: Option<&[u8]>) -> usize {
    match field {
        None => 1,
        // A field too long for an i32 is refused by the caller's bound on the batch, whatever is added here.
        Some(bytes) => bytes.len().saturating_add(varint::len_u64((bytes.len() as u64) << 1)),
    }
}

/// Appends `front`, the length of `field`, and `field`.
#[inline]
fn put_field(buffer: &mut BytesMut, mut front: varint::Stack, field: Option<&[u8]>) {
    match field {
        None => {
            front.i32(-1);
            buffer.extend_from_slice(front.as_slice());
        }
        Some(bytes) => {
            front.i32(bytes.len() as i32);
            buffer.extend_from_slice(front.as_slice());
            buffer.extend_from_slice(bytes);
        }
    }
}
