//! Owned records, and the way from them into batches and back, for every test of this crate.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use bytes::Bytes;
use logmill_protocol::{BatchBuilder, BatchError, BatchLimits, BatchView, Timestamp};

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
