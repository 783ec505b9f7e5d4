//! Control batches: the marker that ends a transaction in a partition (KIP-98).

use bytes::{BufMut, Bytes};

use crate::builder::{BatchBuilder, BatchOptions, ProducerStamp};
use crate::{BatchError, ProducerEpoch, ProducerId, RecordView, Timestamp};

/// Version of the marker's key and value that we write.
const VERSION: i16 = 0;

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ControlKind {
    /// Its records are dropped by `read_committed` readers.
    Abort,
    /// Its records are part of the log.
    Commit,
}

/// The marker that ends a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ControlMarker {
    /// How it ended.
    pub kind: ControlKind,
    /// Epoch of the transaction coordinator that decided so.
    pub coordinator_epoch: i32,
}

impl ControlMarker {
    /// Reads the marker from the record of a control batch.
    ///
    /// # Errors
    /// [`BatchError::NotAMarker`] for control records that end no transaction, or with missing fields. Fields that a
    /// later version adds at the end are ignored.
    pub fn from_record(record: &RecordView<'_>) -> Result<Self, BatchError> {
        let Some([v1, v0, t1, t0, ..]) = record.key else {
            return Err(BatchError::NotAMarker("its key is shorter than 4 bytes"));
        };
        if i16::from_be_bytes([*v1, *v0]) < 0 {
            return Err(BatchError::NotAMarker("its key has a negative version"));
        }
        let kind = match i16::from_be_bytes([*t1, *t0]) {
            0 => ControlKind::Abort,
            1 => ControlKind::Commit,
            _ => return Err(BatchError::NotAMarker("its control type is neither abort nor commit")),
        };
        let Some([_, _, e3, e2, e1, e0, ..]) = record.value else {
            return Err(BatchError::NotAMarker("its value is shorter than 6 bytes"));
        };
        Ok(Self { kind, coordinator_epoch: i32::from_be_bytes([*e3, *e2, *e1, *e0]) })
    }

    fn key(self) -> [u8; 4] {
        let kind: i16 = match self.kind {
            ControlKind::Abort => 0,
            ControlKind::Commit => 1,
        };
        let mut key = [0; 4];
        let mut at = &mut key[..];
        at.put_i16(VERSION);
        at.put_i16(kind);
        key
    }

    fn value(self) -> [u8; 6] {
        let mut value = [0; 6];
        let mut at = &mut value[..];
        at.put_i16(VERSION);
        at.put_i32(self.coordinator_epoch);
        value
    }
}

/// The batch that ends the transaction of a producer: one control record, base offset 0, byte for byte what Kafka's
/// `MemoryRecords.withEndTransactionMarker` writes.
#[must_use]
pub fn control_batch(marker: ControlMarker, id: ProducerId, epoch: ProducerEpoch, now: Timestamp) -> Bytes {
    let mut builder = BatchBuilder::control(BatchOptions {
        producer: Some(ProducerStamp { id, epoch, base_sequence: -1 }),
        transactional: true,
        ..BatchOptions::default()
    });
    // A first record of 10 bytes always fits.
    let _ = builder.append(now, Some(&marker.key()), Some(&marker.value()), &[]);
    builder.finish().unwrap_or_default()
}
