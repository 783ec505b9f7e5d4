//! Agreement with Apache Kafka's own Java client: see `testdata/README.md` for how the files were made.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{Record, build, offsets, parse, read};
use logmill_protocol::{
    BatchBuilder, BatchError, BatchLimits, BatchOptions, Compression, ControlKind, ControlMarker, LeaderEpoch, Offset,
    ProducerEpoch, ProducerId, ProducerStamp, Timestamp, TimestampType, control_batch, murmur2, partition_for_key,
    patch_assigned,
};

const T: i64 = 1_700_000_000_000;

fn golden(name: &str) -> Vec<u8> {
    let path = format!("{}/testdata/{name}.bin", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn record(timestamp: i64, key: Option<&[u8]>, value: Option<&[u8]>) -> Record {
    Record { timestamp, key: key.map(<[u8]>::to_vec), value: value.map(<[u8]>::to_vec), headers: Vec::new() }
}

fn small() -> Vec<Record> {
    let mut with_headers = record(T + 300, Some(b""), Some(b""));
    with_headers.headers = vec![
        ("a".to_owned(), Some(b"1".to_vec())),
        ("a".to_owned(), None),
        (String::new(), Some(Vec::new())),
        ("ü".to_owned(), Some(vec![0, 0xff])),
    ];
    vec![
        record(T, Some(b"k1"), Some(b"v1")),
        record(T + 5, None, Some(b"no key")),
        record(T - 10, Some(b"tombstone"), None),
        with_headers,
    ]
}

fn big() -> Vec<Record> {
    let value: Vec<u8> = (0..70_000u32).map(|at| ((at / 7) % 251) as u8).collect();
    let mut records = small();
    records.push(record(T + 400, Some(b"big"), Some(&value)));
    records
}

#[test]
fn kafkas_batches_of_every_codec_read_as_they_were_written() {
    for codec in Compression::ALL {
        let bytes = golden(&format!("small-{codec}"));
        let batch = parse(&bytes);
        batch.validate(&BatchLimits::PRODUCE).unwrap();
        assert_eq!(batch.header().compression().unwrap(), codec);
        assert_eq!(read(&batch), small(), "{codec}");
        if codec != Compression::None {
            let bytes = golden(&format!("big-{codec}"));
            parse(&bytes).validate(&BatchLimits::PRODUCE).unwrap();
            assert_eq!(read(&parse(&bytes)), big(), "{codec}");
        }
    }
}

#[test]
fn uncompressed_batches_are_kafkas_byte_for_byte() {
    let check = |options: BatchOptions, base_offset: i64, leader_epoch: i32, expected: &str| {
        let mut bytes = build(&mut BatchBuilder::new(options), &small()).to_vec();
        patch_assigned(&mut bytes, Offset(base_offset), LeaderEpoch(leader_epoch)).unwrap();
        assert_eq!(bytes, golden(expected), "{expected}");
    };
    check(BatchOptions::default(), 0, -1, "small-none");
    check(BatchOptions::default(), 1000, 5, "assigned");
    let stamp = ProducerStamp { id: ProducerId(4242), epoch: ProducerEpoch(7), base_sequence: 100 };
    let options = BatchOptions { producer: Some(stamp), transactional: true, ..BatchOptions::default() };
    check(options, 0, -1, "transactional");
}

#[test]
fn append_time_counts_for_every_record() {
    let bytes = golden("log-append-time");
    let batch = parse(&bytes);
    batch.validate(&BatchLimits::STORED).unwrap();
    assert!(matches!(batch.validate(&BatchLimits::PRODUCE), Err(BatchError::LogAppendTimeNotAllowed)));
    assert_eq!(batch.header().timestamp_type(), TimestampType::LogAppendTime);
    assert!(read(&batch).iter().all(|record| record.timestamp == T + 9999));
}

#[test]
fn a_compacted_batch_keeps_its_offsets_and_its_end() {
    let bytes = golden("compacted");
    let batch = parse(&bytes);
    batch.validate(&BatchLimits::STORED).unwrap();
    assert!(matches!(
        batch.validate(&BatchLimits::PRODUCE),
        Err(BatchError::Count { record_count: 2, last_offset_delta: 10 })
    ));
    assert_eq!(offsets(&batch), [50, 53]);
    assert_eq!(batch.header().next_offset(), Offset(61));
    assert_eq!(batch.header().leader_epoch, LeaderEpoch(3));
}

#[test]
fn markers_are_kafkas_byte_for_byte() {
    for (kind, name) in [(ControlKind::Commit, "commit"), (ControlKind::Abort, "abort")] {
        let bytes = golden(name);
        let marker = ControlMarker { kind, coordinator_epoch: 13 };
        assert_eq!(control_batch(marker, ProducerId(4242), ProducerEpoch(7), Timestamp(T)), bytes, "{name}");
        let batch = parse(&bytes);
        batch.validate(&BatchLimits::STORED).unwrap();
        assert_eq!(batch.control_record().unwrap(), marker);
    }
}

#[test]
fn other_control_batches_are_no_markers() {
    let bytes = golden("leader-change");
    let batch = parse(&bytes);
    batch.validate(&BatchLimits::STORED).unwrap();
    assert!(matches!(batch.control_record(), Err(BatchError::NotAMarker(_))));
}

#[test]
fn keys_hash_and_spread_as_kafka_does() {
    let table = include_str!("../testdata/murmur2.tsv");
    let mut rows = 0;
    for row in table.lines() {
        let [hex, hash, partition] = row.split('\t').collect::<Vec<_>>().try_into().expect("three columns");
        let key: Vec<u8> =
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
        assert_eq!(murmur2(&key), hash.parse::<i32>().unwrap(), "{hex}");
        assert_eq!(partition_for_key(&key, 7), partition.parse::<i32>().unwrap(), "{hex}");
        rows += 1;
    }
    assert_eq!(rows, 40);
}
