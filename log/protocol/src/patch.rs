//! Changes the log makes to a batch when it appends it, in place.

use crate::header::{
    ATTRIBUTES_AT, CRC_AT, LEADER_EPOCH_AT, LOG_APPEND_TIME, MAX_TIMESTAMP_AT, PRODUCER_ID_AT, TRANSACTIONAL,
};
use crate::{BatchError, BatchHeader, LeaderEpoch, Offset, ProducerStamp, Timestamp};

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
    write_crc(batch, &header);
    Ok(())
}

/// Puts a producer's identity and sequence on a batch that was built without one, says whether it is part of a
/// transaction, and recomputes the CRC. For a broker that writes on behalf of a producer in its own process.
///
/// # Errors
/// If `batch` does not start with a whole record batch.
pub fn restamp_producer(batch: &mut [u8], producer: ProducerStamp, transactional: bool) -> Result<(), BatchError> {
    let header = whole_batch(batch)?;
    let attributes = match transactional {
        true => header.attributes | TRANSACTIONAL,
        false => header.attributes & !TRANSACTIONAL,
    };
    write(batch, ATTRIBUTES_AT, &attributes.to_be_bytes());
    write(batch, PRODUCER_ID_AT, &producer.id.0.to_be_bytes());
    write(batch, PRODUCER_ID_AT + 8, &producer.epoch.0.to_be_bytes());
    write(batch, PRODUCER_ID_AT + 10, &producer.base_sequence.to_be_bytes());
    write_crc(batch, &header);
    Ok(())
}

fn write_crc(batch: &mut [u8], header: &BatchHeader) {
    let crc = batch.get(ATTRIBUTES_AT..header.total_len()).map_or(0, crc_fast::crc32_iscsi);
    write(batch, CRC_AT, &crc.to_be_bytes());
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{BatchBuilder, BatchLimits, BatchOptions, BatchView, ProducerEpoch, ProducerId};

    #[test]
    fn a_restamped_batch_equals_one_built_with_the_stamp() {
        let stamp = ProducerStamp { id: ProducerId(7), epoch: ProducerEpoch(3), base_sequence: 11 };
        let build = |options| {
            let mut builder = BatchBuilder::new(options);
            builder.append(Timestamp(5), Some(b"k"), Some(b"v"), &[]).unwrap();
            builder.finish().unwrap().to_vec()
        };
        for transactional in [true, false] {
            let mut batch = build(BatchOptions { transactional: !transactional, ..BatchOptions::default() });
            restamp_producer(&mut batch, stamp, transactional).unwrap();
            assert_eq!(batch, build(BatchOptions { producer: Some(stamp), transactional, ..BatchOptions::default() }));
            BatchView::parse(&batch).unwrap().0.validate(&BatchLimits::PRODUCE).unwrap();
        }
        assert!(restamp_producer(&mut [0; 20], stamp, true).is_err());
    }
}
