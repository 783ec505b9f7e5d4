//! What a request's version demands of the batches in it, before the log judges them.

use logmill_protocol::{BatchError, BatchHeader, Compression, Offset};

use crate::error::{BrokerError, Refusal};
use crate::types::TopicPartition;

/// Zstandard needs clients that know of it (KIP-110).
const ZSTD_VERSION: i16 = 7;

/// The codec of a batch, as far as it can be told.
pub(super) fn codec(batch: &[u8]) -> Option<Compression> {
    BatchHeader::peek(batch).ok()?.compression().ok()
}

/// Why transactional batches are refused.
pub(super) fn transactions() -> BrokerError {
    let message = "transactions are not supported yet; produce without a transactional id".to_owned();
    BrokerError::Refused { kind: Refusal::Transactions, message, record: None }
}

/// Checks that the bytes are one batch that such a request may hold. Kafka's `ProduceRequest.validateRecords`, and what
/// its log demands of clients alone.
pub(super) fn check(partition: &TopicPartition, batch: &[u8], version: i16) -> Result<(), BrokerError> {
    let refuse = |kind, reason: &str| Err(BrokerError::refused(kind, partition, reason));
    let header = match BatchHeader::peek(batch) {
        Ok(header) => header,
        Err(BatchError::Truncated { .. }) if batch.is_empty() => {
            return refuse(Refusal::InvalidRecord, "the request holds no record batch for it");
        }
        Err(error) => return Err(BrokerError::batch(partition, &error)),
    };
    if header.total_len() < batch.len() {
        return refuse(Refusal::InvalidRecord, "the request holds more than one record batch for it");
    }
    if version < ZSTD_VERSION && header.compression().is_ok_and(|codec| codec == Compression::Zstd) {
        return refuse(Refusal::UnsupportedCompression, "zstd needs a newer version of Produce, from 7 on");
    }
    if header.base_offset != Offset(0) {
        return refuse(Refusal::InvalidRecord, "the base offset of a producer's batch must be 0");
    }
    if header.is_transactional() {
        return Err(transactions());
    }
    Ok(())
}
