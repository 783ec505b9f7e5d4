//! What can be wrong with the bytes of a record batch.

use std::io;

use crate::Compression;

/// Why bytes are not an acceptable record batch, or a record could not be built into one.
///
/// [`BatchError::Truncated`] alone means that more bytes could make the batch whole (a torn tail, or the cut at the
/// end of a fetch); every other kind stays wrong whatever follows.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BatchError {
    /// The bytes end inside the batch.
    #[error("record batch is cut off: it needs {needed} bytes, {available} are there")]
    Truncated {
        /// Bytes the batch (or, below 61, its header) needs.
        needed: usize,
        /// Bytes there are.
        available: usize,
    },
    /// Not record batch format v2.
    #[error("record batch has magic {0}, only 2 is supported")]
    Magic(i8),
    /// The length field cannot be that of a batch.
    #[error("record batch length field is {0}, it must be 49 or more")]
    Length(i32),
    /// The batch is larger than allowed.
    #[error("record batch of {bytes} bytes is over the limit of {max}")]
    TooLarge {
        /// Size of the whole batch in bytes.
        bytes: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// The CRC32C does not match: bytes were damaged.
    #[error("record batch checksum is {computed:#010x}, its header says {stored:#010x}")]
    Crc {
        /// The checksum in the header.
        stored: u32,
        /// The checksum of the bytes.
        computed: u32,
    },
    /// A codec id that Kafka has not assigned.
    #[error("record batch has unknown compression codec {0}")]
    Codec(u8),
    /// The record count and the offsets contradict each other, or one of them is negative.
    #[error("record batch claims {record_count} records but a last offset delta of {last_offset_delta}")]
    Count {
        /// The header's record count.
        record_count: i32,
        /// The header's last offset delta.
        last_offset_delta: i32,
    },
    /// The header counts more records than the payload can hold: a record takes 7 bytes or more, decompressed.
    #[error("record batch claims {record_count} records, but its {payload_bytes} bytes hold at most {max}")]
    CountBeyondPayload {
        /// The header's record count.
        record_count: i32,
        /// Bytes after the header.
        payload_bytes: usize,
        /// The most records that so many bytes can hold with the batch's codec.
        max: usize,
    },
    /// The batch's offsets are negative or run past `i64::MAX`.
    #[error("record batch has impossible offsets: base {base_offset}, last offset delta {last_offset_delta}")]
    OffsetRange {
        /// The header's base offset.
        base_offset: i64,
        /// The header's last offset delta.
        last_offset_delta: i32,
    },
    /// Producer id, epoch and sequence contradict each other, or a transactional batch has no producer id.
    #[error(
        "record batch has an invalid producer stamp: id {producer_id}, epoch {producer_epoch}, \
         sequence {base_sequence}, transactional {transactional}"
    )]
    Producer {
        /// The header's producer id.
        producer_id: i64,
        /// The header's producer epoch.
        producer_epoch: i16,
        /// The header's base sequence.
        base_sequence: i32,
        /// Whether the batch is part of a transaction.
        transactional: bool,
    },
    /// A control batch where only the broker itself may write one.
    #[error("control batches are written by the broker only")]
    ControlNotAllowed,
    /// A batch that claims log append time before the log has appended it.
    #[error("record batch claims log append time, which only the broker sets")]
    LogAppendTimeNotAllowed,
    /// Control data was asked for, or found, where there is none that we know.
    #[error("not a transaction marker: {0}")]
    NotAMarker(&'static str),
    /// The compressed records would grow beyond the allowed size.
    #[error("records decompress to more than the limit of {max} bytes")]
    DecompressedTooLarge {
        /// The limit in bytes.
        max: usize,
    },
    /// The codec rejects the compressed records.
    #[error("records cannot be decompressed with {codec}")]
    Decompress {
        /// The batch's codec.
        codec: Compression,
        /// The codec's own words.
        source: io::Error,
    },
    /// A record breaks the format.
    #[error("record {index} of the batch is malformed: {reason}")]
    Record {
        /// Which record, counted from 0 within the batch.
        index: i32,
        /// What is wrong.
        reason: &'static str,
    },
    /// A record header breaks the format.
    #[error("record header is malformed: {0}")]
    RecordHeader(&'static str),
    /// A record cannot be appended because the batch would pass 2 GiB or its counters would overflow.
    #[error("record of {bytes} bytes does not fit into a record batch that holds {batch_bytes} bytes")]
    BatchFull {
        /// Size of the record, encoded.
        bytes: usize,
        /// Size of the batch so far.
        batch_bytes: usize,
    },
}

impl BatchError {
    /// Whether more bytes could make the batch whole.
    #[must_use]
    pub fn is_truncated(&self) -> bool {
        matches!(self, Self::Truncated { .. })
    }
}
