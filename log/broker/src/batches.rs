//! What the broker does to a producer's batches before it appends them: stamp, recompress, or nothing.

use bytes::{Bytes, BytesMut};
use logmill_protocol::{
    BatchBuilder, BatchError, BatchLimits, BatchOptions, BatchView, Compression, ProducerEpoch, ProducerId,
    ProducerStamp, advance_sequence, restamp_producer,
};

/// Whose transaction a batch belongs to, and the sequence of its first record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stamp {
    pub(crate) id: ProducerId,
    pub(crate) epoch: ProducerEpoch,
    pub(crate) sequence: i32,
}

/// Makes batches ready for appending: their own memory where nobody else holds it, a copy otherwise.
pub(crate) fn own(batches: Bytes) -> BytesMut {
    batches.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]))
}

/// Puts the transaction's stamp on each batch. Returns the sequence after the last record.
pub(crate) fn stamp(mut batches: &mut [u8], stamp: Stamp) -> Result<i32, BatchError> {
    let mut sequence = stamp.sequence;
    while !batches.is_empty() {
        let (view, _) = BatchView::parse(batches)?;
        let (len, count) = (view.bytes().len(), view.header().last_offset_delta.saturating_add(1));
        let (batch, rest) = batches.split_at_mut(len);
        let producer = ProducerStamp { id: stamp.id, epoch: stamp.epoch, base_sequence: sequence };
        restamp_producer(batch, producer, true)?;
        sequence = advance_sequence(sequence, count);
        batches = rest;
    }
    Ok(sequence)
}

/// Whether any batch says that it is part of a transaction.
pub(crate) fn is_transactional(batches: &[u8]) -> Result<bool, BatchError> {
    for batch in logmill_protocol::batches(batches) {
        if batch?.header().is_transactional() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Builds the batches anew with another codec (`compression.type`) at its level; `None` if they have the codec already.
pub(crate) fn recompress(
    batches: &[u8],
    codec: Compression,
    level: Option<i32>,
) -> Result<Option<BytesMut>, BatchError> {
    let mut done = true;
    for batch in logmill_protocol::batches(batches) {
        done &= batch?.header().compression()? == codec;
    }
    if done {
        return Ok(None);
    }
    let mut out = BytesMut::with_capacity(batches.len());
    let mut scratch = Vec::new();
    for batch in logmill_protocol::batches(batches) {
        let batch = batch?;
        batch.verify_crc()?;
        out.extend_from_slice(&rebuild(&batch, (codec, level), &mut scratch)?);
    }
    Ok(Some(out))
}

fn rebuild(
    batch: &BatchView<'_>,
    (compression, level): (Compression, Option<i32>),
    scratch: &mut Vec<u8>,
) -> Result<Bytes, BatchError> {
    let header = batch.header();
    let producer = header.has_producer_id().then_some(ProducerStamp {
        id: header.producer_id,
        epoch: header.producer_epoch,
        base_sequence: header.base_sequence,
    });
    let options = BatchOptions { compression, level, producer, transactional: header.is_transactional() };
    let mut builder = BatchBuilder::new(options);
    for record in batch.records(scratch, &BatchLimits::PRODUCE)? {
        let record = record?;
        let headers: Vec<_> = record.headers().collect::<Result<_, _>>()?;
        let keys: Vec<_> = headers.iter().map(|header| header.key_str()).collect();
        let headers: Vec<_> = keys.iter().zip(&headers).map(|(key, header)| (key.as_ref(), header.value)).collect();
        builder.append(record.timestamp, record.key, record.value, &headers)?;
    }
    Ok(builder.finish().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use logmill_protocol::Timestamp;

    use super::*;

    fn batch(records: i64, compression: Compression) -> Bytes {
        let mut builder = BatchBuilder::new(BatchOptions { compression, ..BatchOptions::default() });
        for n in 0..records {
            builder.append(Timestamp(n), Some(b"k"), Some(b"vvvvvvvvvvvvvvvvvv"), &[("h", Some(b"x"))]).unwrap();
        }
        builder.finish().unwrap()
    }

    #[test]
    fn sequences_run_on_through_the_batches_and_wrap() {
        let mut two = BytesMut::from(&[&batch(3, Compression::None)[..], &batch(2, Compression::None)].concat()[..]);
        let given = Stamp { id: ProducerId(1), epoch: ProducerEpoch(2), sequence: i32::MAX - 1 };
        assert_eq!(stamp(&mut two, given).unwrap(), 3);
        let headers: Vec<_> = logmill_protocol::batches(&two).map(|b| *b.unwrap().header()).collect();
        assert_eq!(headers.iter().map(|h| h.base_sequence).collect::<Vec<_>>(), [i32::MAX - 1, 1]);
        assert!(headers.iter().all(|h| h.is_transactional()));
        logmill_protocol::batches(&two).for_each(|b| b.unwrap().verify_crc().unwrap());
    }

    #[test]
    fn recompressed_batches_hold_the_same_records() {
        let plain = batch(50, Compression::None);
        let zstd = recompress(&plain, Compression::Zstd, None).unwrap().unwrap();
        assert!(zstd.len() < plain.len());
        assert_eq!(recompress(&zstd, Compression::None, None).unwrap().unwrap(), plain);
        assert_eq!(recompress(&zstd, Compression::Zstd, None).unwrap(), None, "nothing to do");
    }

    #[test]
    fn a_higher_level_makes_batches_smaller() {
        let mut builder = BatchBuilder::new(BatchOptions::default());
        for n in 0..2000i64 {
            let value = format!("the {} of {} and {}", n % 7, n * n % 1000, n % 13);
            builder.append(Timestamp(n), None, Some(value.as_bytes()), &[]).unwrap();
        }
        let plain = builder.finish().unwrap();
        for (codec, low, high) in [(Compression::Gzip, 1, 9), (Compression::Zstd, -50, 19)] {
            let [low, high] = [low, high].map(|level| recompress(&plain, codec, Some(level)).unwrap().unwrap());
            assert!(high.len() < low.len(), "{codec:?}: {} and {}", high.len(), low.len());
            assert_eq!(recompress(&high, Compression::None, None).unwrap().unwrap(), plain);
        }
    }
}
