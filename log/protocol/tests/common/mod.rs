//! Owned records, and the way from them into batches and back, for every test of this crate.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use bytes::Bytes;
use logmill_protocol::{
    BatchBuilder, BatchError, BatchLimits, BatchOptions, BatchView, Compression, HEADER_LEN, ProducerEpoch, ProducerId,
    ProducerStamp, Timestamp,
};

/// A record that owns its bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    pub timestamp: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

/// Builds the batch of `records`.
pub fn build(builder: &mut BatchBuilder, records: &[Record]) -> Bytes {
    for record in records {
        let headers: Vec<_> = record.headers.iter().map(|(key, value)| (key.as_str(), value.as_deref())).collect();
        builder.append(Timestamp(record.timestamp), record.key.as_deref(), record.value.as_deref(), &headers).unwrap();
    }
    builder.finish().expect("a batch with records")
}

/// The only batch of `bytes`.
pub fn parse(bytes: &[u8]) -> BatchView<'_> {
    let (batch, rest) = BatchView::parse(bytes).unwrap();
    assert!(rest.is_empty());
    batch
}

/// Reads every record and header, or stops at what is wrong.
pub fn try_read(batch: &BatchView<'_>, limits: &BatchLimits) -> Result<Vec<(i64, Record)>, BatchError> {
    let mut scratch = Vec::new();
    let mut read = Vec::new();
    for record in batch.records(&mut scratch, limits)? {
        let record = record?;
        let mut headers = Vec::new();
        for header in record.headers() {
            let header = header?;
            headers.push((header.key_str().into_owned(), header.value.map(<[u8]>::to_vec)));
        }
        let key = record.key.map(<[u8]>::to_vec);
        let value = record.value.map(<[u8]>::to_vec);
        read.push((record.offset.0, Record { timestamp: record.timestamp.0, key, value, headers }));
    }
    Ok(read)
}

/// The records of a valid batch.
pub fn read(batch: &BatchView<'_>) -> Vec<Record> {
    try_read(batch, &BatchLimits::STORED).unwrap().into_iter().map(|(_, record)| record).collect()
}

/// The offsets of a valid batch.
pub fn offsets(batch: &BatchView<'_>) -> Vec<i64> {
    try_read(batch, &BatchLimits::STORED).unwrap().into_iter().map(|(offset, _)| offset).collect()
}

/// Records of every shape: without key, without value, with headers.
pub fn records(count: usize, value_len: usize) -> Vec<Record> {
    (0..count)
        .map(|at| Record {
            timestamp: 1000 + at as i64,
            key: (at % 3 != 0).then(|| format!("key-{at}").into_bytes()),
            value: (at % 5 != 4).then(|| (0..value_len).map(|byte| (byte / 9 + at) as u8).collect()),
            headers: (0..at % 4).map(|header| (format!("h{header}"), Some(vec![header as u8; header]))).collect(),
        })
        .collect()
}

/// A batch of such records, of a producer and its transaction.
pub fn batch(codec: Compression, count: usize, value_len: usize) -> Vec<u8> {
    let stamp = ProducerStamp { id: ProducerId(7), epoch: ProducerEpoch(3), base_sequence: 11 };
    let options = BatchOptions { compression: codec, level: None, producer: Some(stamp), transactional: true };
    build(&mut BatchBuilder::new(options), &records(count, value_len)).to_vec()
}

/// Makes header fields and checksum fit again, so that a change reaches the code behind them.
pub fn reseal(bytes: &mut [u8]) {
    if bytes.len() < HEADER_LEN {
        return;
    }
    let length = (bytes.len() - 12) as u32;
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    bytes[16] = 2;
    let crc = crc_fast::crc32_iscsi(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
}
