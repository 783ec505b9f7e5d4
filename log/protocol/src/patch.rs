//! Changes the log makes to a batch when it appends it, in place.

use crate::header::{ATTRIBUTES_AT, CRC_AT, LEADER_EPOCH_AT, LOG_APPEND_TIME, MAX_TIMESTAMP_AT};
use crate::{BatchError, BatchHeader, LeaderEpoch, Offset, Timestamp};

/// Writes the base offset and the leader epoch that the log assigns. Neither is covered by the CRC, so the batch
/// stays valid.
///
/// # Errors
/// If `batch` does not start with a whole record batch.
pub fn patch_assigned(batch: &mut [u8], base_offset: Offset, leader_epoch: LeaderEpoch) -> Result<(), BatchError> {
    whole_batch(batch)?;
    write(batch, 0, &base_offset.0.to_be_bytes());
    write(batch, LEADER_EPOCH_AT, &leader_epoch.0.to_be_bytes());
    Ok(())
}

/// Gives all records of the batch the time `now` at which the log appends them, and recomputes the CRC.
///
/// # Errors
/// If `batch` does not start with a whole record batch.
pub fn patch_log_append_time(batch: &mut [u8], now: Timestamp) -> Result<(), BatchError> {
    let header = whole_batch(batch)?;
    write(batch, ATTRIBUTES_AT, &(header.attributes | LOG_APPEND_TIME).to_be_bytes());
    write(batch, MAX_TIMESTAMP_AT, &now.0.to_be_bytes());
    let crc = batch.get(ATTRIBUTES_AT..header.total_len()).map_or(0, crc32c::crc32c);
    write(batch, CRC_AT, &crc.to_be_bytes());
    Ok(())
}

fn whole_batch(batch: &[u8]) -> Result<BatchHeader, BatchError> {
    let header = BatchHeader::peek(batch)?;
    if batch.len() < header.total_len() {
        return Err(BatchError::Truncated { needed: header.total_len(), available: batch.len() });
    }
    Ok(header)
}

/// Overwrites `field.len()` bytes; the caller has seen a whole header, so the range exists.
fn write(batch: &mut [u8], at: usize, field: &[u8]) {
    if let Some(place) = batch.get_mut(at..at + field.len()) {
        place.copy_from_slice(field);
    }
}
