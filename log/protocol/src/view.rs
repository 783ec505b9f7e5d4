//! One record batch within borrowed bytes: bounds first, then as much checking as the caller asks for.

use crate::header::ATTRIBUTES_AT;
use crate::records::MIN_RECORD_LEN;
use crate::{BatchError, BatchHeader, ControlMarker, HEADER_LEN, ProducerEpoch, Records, TimestampType};

/// What a reader or the append path accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// Largest whole batch in bytes, as it stands on the wire.
    pub max_batch_bytes: usize,
    /// Largest size of a batch's records after decompression, in bytes.
    pub max_decompressed_bytes: usize,
    /// Whether the batch is already part of a log: control batches, log append time and offset gaps (from
    /// compaction) are legal there, and its base offset has been assigned.
    pub stored: bool,
}

impl BatchLimits {
    /// Kafka's default `message.max.bytes`: 1 MiB and the 12 bytes that the length field does not count.
    pub const DEFAULT_MAX_BATCH_BYTES: usize = 1024 * 1024 + 12;
    /// Default bound on what a batch may decompress to: 128 MiB.
    pub const DEFAULT_MAX_DECOMPRESSED_BYTES: usize = 128 * 1024 * 1024;

    /// What a producer may send.
    pub const PRODUCE: Self = Self {
        max_batch_bytes: Self::DEFAULT_MAX_BATCH_BYTES,
        max_decompressed_bytes: Self::DEFAULT_MAX_DECOMPRESSED_BYTES,
        stored: false,
    };

    /// What a log may hold: any size, since limits may have been larger when it was appended.
    pub const STORED: Self = Self {
        max_batch_bytes: usize::MAX,
        max_decompressed_bytes: Self::DEFAULT_MAX_DECOMPRESSED_BYTES,
        stored: true,
    };
}

impl Default for BatchLimits {
    /// [`BatchLimits::PRODUCE`].
    fn default() -> Self {
        Self::PRODUCE
    }
}

/// One whole record batch within borrowed bytes.
#[derive(Clone, Copy, Debug)]
pub struct BatchView<'a> {
    header: BatchHeader,
    bytes: &'a [u8],
}

impl<'a> BatchView<'a> {
    /// Takes the first batch off `bytes` and returns it with the rest. Checks bounds and magic only.
    ///
    /// # Errors
    /// [`BatchError::Truncated`] if `bytes` end inside the batch; otherwise as [`BatchHeader::peek`].
    pub fn parse(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), BatchError> {
        let header = BatchHeader::peek(bytes)?;
        match bytes.split_at_checked(header.total_len()) {
            Some((batch, rest)) => Ok((Self { header, bytes: batch }, rest)),
            None => Err(BatchError::Truncated { needed: header.total_len(), available: bytes.len() }),
        }
    }

    /// The batch's header.
    #[must_use]
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// All bytes of the batch, header included.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The records' bytes, compressed as they stand.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        self.bytes.get(HEADER_LEN..).unwrap_or_default()
    }

    /// Compares the CRC32C in the header with that of the bytes it covers.
    ///
    /// # Errors
    /// [`BatchError::Crc`] if they differ.
    pub fn verify_crc(&self) -> Result<(), BatchError> {
        let computed = self.bytes.get(ATTRIBUTES_AT..).map_or(0, crc_fast::crc32_iscsi);
        if computed == self.header.crc {
            return Ok(());
        }
        Err(BatchError::Crc { stored: self.header.crc, computed })
    }

    /// Checks everything that can be checked without looking at the records: size, CRC, codec, counts against
    /// offsets, the producer stamp, and who may write such a batch. What a producer sends must not count more records
    /// than its bytes can hold, either.
    ///
    /// # Errors
    /// The first rule that the batch breaks.
    pub fn validate(&self, limits: &BatchLimits) -> Result<(), BatchError> {
        if self.bytes.len() > limits.max_batch_bytes {
            return Err(BatchError::TooLarge { bytes: self.bytes.len(), max: limits.max_batch_bytes });
        }
        self.verify_crc()?;
        self.header.compression()?;
        self.check_counts(limits)?;
        if !limits.stored {
            if self.header.is_control() {
                return Err(BatchError::ControlNotAllowed);
            }
            if self.header.timestamp_type() == TimestampType::LogAppendTime {
                return Err(BatchError::LogAppendTimeNotAllowed);
            }
        }
        self.check_producer()
    }

    fn check_counts(&self, limits: &BatchLimits) -> Result<(), BatchError> {
        let BatchHeader { base_offset, last_offset_delta, record_count, .. } = self.header;
        let offsets = i64::from(last_offset_delta) + 1;
        let count_fits = if limits.stored {
            record_count >= 0 && i64::from(record_count) <= offsets
        } else {
            record_count > 0 && i64::from(record_count) == offsets
        };
        if last_offset_delta < 0 || !count_fits {
            return Err(BatchError::Count { record_count, last_offset_delta });
        }
        if !limits.stored {
            let payload_bytes = self.payload().len();
            let decompressed = payload_bytes.saturating_mul(self.header.compression()?.max_ratio());
            let max = decompressed.min(limits.max_decompressed_bytes.max(payload_bytes)) / MIN_RECORD_LEN;
            if usize::try_from(record_count).unwrap_or(0) > max {
                return Err(BatchError::CountBeyondPayload { record_count, payload_bytes, max });
            }
        }
        // A producer's base offset means nothing yet; a stored one is where the log says it is.
        if limits.stored && (base_offset.0 < 0 || base_offset.0.checked_add(offsets).is_none()) {
            return Err(BatchError::OffsetRange { base_offset: base_offset.0, last_offset_delta });
        }
        Ok(())
    }

    fn check_producer(&self) -> Result<(), BatchError> {
        let header = &self.header;
        let valid = if header.has_producer_id() {
            // Markers carry no sequence: they come from the coordinator, not from the producer.
            let sequence_fits = header.base_sequence >= 0 || (header.is_control() && header.base_sequence == -1);
            header.producer_id.0 >= 0 && header.producer_epoch > ProducerEpoch::NONE && sequence_fits
        } else {
            !header.is_transactional()
        };
        if valid {
            return Ok(());
        }
        Err(BatchError::Producer {
            producer_id: header.producer_id.0,
            producer_epoch: header.producer_epoch.0,
            base_sequence: header.base_sequence,
            transactional: header.is_transactional(),
        })
    }

    /// The records. Compressed ones are decompressed into `scratch` (its old content is dropped, its memory reused),
    /// at most `limits.max_decompressed_bytes` of them; uncompressed ones are read in place.
    ///
    /// # Errors
    /// If the codec is unknown, rejects the bytes, or would pass the limit. Faults in single records come from the
    /// iterator.
    pub fn records<'s>(&self, scratch: &'s mut Vec<u8>, limits: &BatchLimits) -> Result<Records<'s>, BatchError>
    where
        'a: 's,
    {
        let codec = self.header.compression()?;
        let payload = codec.decompress(self.payload(), scratch, limits.max_decompressed_bytes)?;
        Ok(Records::new(&self.header, payload))
    }

    /// The marker that a control batch holds.
    ///
    /// # Errors
    /// [`BatchError::NotAMarker`] if the batch is no control batch or its record no end of a transaction.
    pub fn control_record(&self) -> Result<ControlMarker, BatchError> {
        if !self.header.is_control() {
            return Err(BatchError::NotAMarker("the batch is not a control batch"));
        }
        let mut scratch = Vec::new();
        let limits = BatchLimits { max_decompressed_bytes: MAX_CONTROL_BYTES, ..BatchLimits::STORED };
        match self.records(&mut scratch, &limits)?.next() {
            Some(record) => ControlMarker::from_record(&record?),
            None => Err(BatchError::NotAMarker("the control batch is empty")),
        }
    }
}

/// Bound on a control batch's records in bytes; a marker takes about twenty.
const MAX_CONTROL_BYTES: usize = 64 * 1024;

/// The batches that `bytes` hold one after another.
///
/// Stops after the first error. The batch that `bytes` end in the middle of, as at the end of a fetch or in a torn
/// segment, is [`BatchError::Truncated`].
pub fn batches(bytes: &[u8]) -> impl Iterator<Item = Result<BatchView<'_>, BatchError>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        match BatchView::parse(rest) {
            Ok((batch, tail)) => {
                rest = tail;
                Some(Ok(batch))
            }
            Err(error) => {
                rest = &[];
                Some(Err(error))
            }
        }
    })
}
