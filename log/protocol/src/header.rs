//! The 61-byte header of a record batch: read without a copy of the rest, written once per batch.

use crate::{BatchError, Compression, LeaderEpoch, Offset, ProducerEpoch, ProducerId, Timestamp};

/// Bytes before the records.
pub const HEADER_LEN: usize = 61;
/// Bytes that the length field does not count: base offset and the field itself.
pub(crate) const LENGTH_PREFIX_LEN: usize = 12;
/// The only record batch format there is since Kafka 0.11.
pub(crate) const MAGIC: i8 = 2;

pub(crate) const LEADER_EPOCH_AT: usize = 12;
pub(crate) const CRC_AT: usize = 17;
/// Where the bytes that the CRC covers begin.
pub(crate) const ATTRIBUTES_AT: usize = 21;
pub(crate) const MAX_TIMESTAMP_AT: usize = 35;
/// Producer id, then epoch, then base sequence.
pub(crate) const PRODUCER_ID_AT: usize = 43;

pub(crate) const COMPRESSION_MASK: u16 = 0b111;
pub(crate) const LOG_APPEND_TIME: u16 = 1 << 3;
pub(crate) const TRANSACTIONAL: u16 = 1 << 4;
pub(crate) const CONTROL: u16 = 1 << 5;

/// Who sets the timestamps of a batch's records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TimestampType {
    /// Each record keeps the time its producer gave it.
    CreateTime,
    /// All records carry the time the leader appended them, the header's max timestamp.
    LogAppendTime,
}

/// The fields of a record batch header, as they stand on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the batch's first record, 0 until the log assigns one.
    pub base_offset: Offset,
    /// Bytes after the length field itself: 49 or more.
    pub batch_length: u32,
    /// Epoch of the leader that appended the batch.
    pub leader_epoch: LeaderEpoch,
    /// Format version, always 2.
    pub magic: i8,
    /// CRC32C of everything after it.
    pub crc: u32,
    /// Codec (bits 0-2), log append time (3), transactional (4), control (5), delete horizon (6).
    pub attributes: u16,
    /// Offset of the last record minus the base offset; compaction keeps it.
    pub last_offset_delta: i32,
    /// What the records' timestamps count from.
    pub base_timestamp: Timestamp,
    /// Largest timestamp of the records, or the append time.
    pub max_timestamp: Timestamp,
    /// The producer, or [`ProducerId::NONE`].
    pub producer_id: ProducerId,
    /// The producer's epoch, or [`ProducerEpoch::NONE`].
    pub producer_epoch: ProducerEpoch,
    /// The producer's sequence number of the first record, or `-1`.
    pub base_sequence: i32,
    /// Records in the batch; fewer than offsets after compaction.
    pub record_count: i32,
}

impl BatchHeader {
    /// Reads the header at the start of `bytes` without checking the CRC and without needing the records.
    ///
    /// # Errors
    /// [`BatchError::Truncated`] below 61 bytes, [`BatchError::Magic`] and [`BatchError::Length`] for a header that
    /// cannot be one. Other fields are taken as they are; [`BatchView::validate`](crate::BatchView::validate) judges
    /// them.
    pub fn peek(bytes: &[u8]) -> Result<Self, BatchError> {
        let Some(raw) = bytes.first_chunk::<HEADER_LEN>() else {
            return Err(BatchError::Truncated { needed: HEADER_LEN, available: bytes.len() });
        };
        let header = Self::decode(raw);
        if header.magic != MAGIC {
            return Err(BatchError::Magic(header.magic));
        }
        let length = header.batch_length as i32;
        if length < (HEADER_LEN - LENGTH_PREFIX_LEN) as i32 {
            return Err(BatchError::Length(length));
        }
        Ok(header)
    }

    /// Offset of the batch's last record.
    #[must_use]
    pub fn last_offset(&self) -> Offset {
        self.base_offset.plus(i64::from(self.last_offset_delta))
    }

    /// Offset after the batch's last record: the base offset of the batch that follows.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        self.last_offset().next()
    }

    /// Size of the whole batch in bytes.
    #[must_use]
    pub fn total_len(&self) -> usize {
        LENGTH_PREFIX_LEN.saturating_add(self.batch_length as usize)
    }

    /// The codec of the records.
    ///
    /// # Errors
    /// [`BatchError::Codec`] for an id that Kafka has not assigned.
    pub fn compression(&self) -> Result<Compression, BatchError> {
        let id = (self.attributes & COMPRESSION_MASK) as u8;
        Compression::from_id(id).ok_or(BatchError::Codec(id))
    }

    /// Whether the batch is part of a transaction.
    #[must_use]
    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL != 0
    }

    /// Whether the batch holds a marker of the broker instead of data.
    #[must_use]
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL != 0
    }

    /// Who sets the timestamps.
    #[must_use]
    pub fn timestamp_type(&self) -> TimestampType {
        if self.attributes & LOG_APPEND_TIME == 0 { TimestampType::CreateTime } else { TimestampType::LogAppendTime }
    }

    /// Whether a producer stamped the batch with its id.
    #[must_use]
    pub fn has_producer_id(&self) -> bool {
        self.producer_id != ProducerId::NONE
    }

    /// The producer's sequence number of the last record, or `-1` without one.
    #[must_use]
    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence < 0 {
            return -1;
        }
        advance_sequence(self.base_sequence, self.last_offset_delta)
    }

    /// The header's bytes; the inverse of [`BatchHeader::peek`].
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut raw = [0; HEADER_LEN];
        set::<0, 8>(&mut raw, self.base_offset.0.to_be_bytes());
        set::<8, 4>(&mut raw, self.batch_length.to_be_bytes());
        set::<LEADER_EPOCH_AT, 4>(&mut raw, self.leader_epoch.0.to_be_bytes());
        set::<16, 1>(&mut raw, self.magic.to_be_bytes());
        set::<CRC_AT, 4>(&mut raw, self.crc.to_be_bytes());
        set::<ATTRIBUTES_AT, 2>(&mut raw, self.attributes.to_be_bytes());
        set::<23, 4>(&mut raw, self.last_offset_delta.to_be_bytes());
        set::<27, 8>(&mut raw, self.base_timestamp.0.to_be_bytes());
        set::<MAX_TIMESTAMP_AT, 8>(&mut raw, self.max_timestamp.0.to_be_bytes());
        set::<PRODUCER_ID_AT, 8>(&mut raw, self.producer_id.0.to_be_bytes());
        set::<51, 2>(&mut raw, self.producer_epoch.0.to_be_bytes());
        set::<53, 4>(&mut raw, self.base_sequence.to_be_bytes());
        set::<57, 4>(&mut raw, self.record_count.to_be_bytes());
        raw
    }

    fn decode(raw: &[u8; HEADER_LEN]) -> Self {
        Self {
            base_offset: Offset(i64::from_be_bytes(get::<0, 8>(raw))),
            batch_length: u32::from_be_bytes(get::<8, 4>(raw)),
            leader_epoch: LeaderEpoch(i32::from_be_bytes(get::<LEADER_EPOCH_AT, 4>(raw))),
            magic: i8::from_be_bytes(get::<16, 1>(raw)),
            crc: u32::from_be_bytes(get::<CRC_AT, 4>(raw)),
            attributes: u16::from_be_bytes(get::<ATTRIBUTES_AT, 2>(raw)),
            last_offset_delta: i32::from_be_bytes(get::<23, 4>(raw)),
            base_timestamp: Timestamp(i64::from_be_bytes(get::<27, 8>(raw))),
            max_timestamp: Timestamp(i64::from_be_bytes(get::<MAX_TIMESTAMP_AT, 8>(raw))),
            producer_id: ProducerId(i64::from_be_bytes(get::<PRODUCER_ID_AT, 8>(raw))),
            producer_epoch: ProducerEpoch(i16::from_be_bytes(get::<51, 2>(raw))),
            base_sequence: i32::from_be_bytes(get::<53, 4>(raw)),
            record_count: i32::from_be_bytes(get::<57, 4>(raw)),
        }
    }
}

/// The sequence number `count` records after `sequence`: they wrap from `i32::MAX` to 0.
#[must_use]
pub fn advance_sequence(sequence: i32, count: i32) -> i32 {
    // Both are non-negative wherever this is called with valid input; the mask keeps the rest in range, too.
    (sequence.wrapping_add(count)) & i32::MAX
}

fn get<const AT: usize, const N: usize>(raw: &[u8; HEADER_LEN]) -> [u8; N] {
    const { assert!(AT + N <= HEADER_LEN) };
    let mut field = [0; N];
    field.copy_from_slice(&raw[AT..AT + N]);
    field
}

fn set<const AT: usize, const N: usize>(raw: &mut [u8; HEADER_LEN], field: [u8; N]) {
    const { assert!(AT + N <= HEADER_LEN) };
    raw[AT..AT + N].copy_from_slice(&field);
}
