//! Whatever is built reads back the same, through every codec.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{Record, build, offsets, parse, read};
use logmill_protocol::{
    BatchBuilder, BatchLimits, BatchOptions, Compression, ControlKind, ControlMarker, LeaderEpoch, Offset,
    ProducerEpoch, ProducerId, ProducerStamp, Timestamp, TimestampType, advance_sequence, batches, control_batch,
    patch_assigned, patch_log_append_time,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

fn any_record() -> impl Strategy<Value = Record> {
    let bytes = || option::of(prop_oneof![vec(any::<u8>(), 0..40), vec(97u8..100, 0..3000)]);
    (any::<i64>(), bytes(), bytes(), vec((".{0,10}", option::of(vec(any::<u8>(), 0..20))), 0..4))
        .prop_map(|(timestamp, key, value, headers)| Record { timestamp, key, value, headers })
}

fn any_codec() -> impl Strategy<Value = Compression> {
    prop::sample::select(&Compression::ALL[..])
}

proptest! {
    #[test]
    fn records_survive_every_codec_and_the_builder_is_reusable(
        codec in any_codec(),
        groups in vec(vec(any_record(), 1..20), 1..4),
        transactional: bool,
    ) {
        let stamp = ProducerStamp { id: ProducerId(7), epoch: ProducerEpoch(3), base_sequence: 11 };
        let mut builder =
            BatchBuilder::new(BatchOptions { compression: codec, level: None, producer: Some(stamp), transactional });
        for records in groups {
            let bytes = build(&mut builder, &records);
            prop_assert!(builder.is_empty());
            let batch = parse(&bytes);
            batch.validate(&BatchLimits { max_batch_bytes: usize::MAX, ..BatchLimits::PRODUCE }).unwrap();
            let header = batch.header();
            prop_assert_eq!(header.compression().unwrap(), codec);
            prop_assert_eq!(header.is_transactional(), transactional);
            prop_assert_eq!(header.record_count as usize, records.len());
            prop_assert_eq!(header.max_timestamp.0, records.iter().map(|record| record.timestamp).max().unwrap());
            prop_assert_eq!(header.last_sequence(), 11 + records.len() as i32 - 1);
            prop_assert_eq!(read(&batch), records);
        }
    }
}

fn sample(codec: Compression) -> Vec<u8> {
    let mut builder = BatchBuilder::new(BatchOptions { compression: codec, ..BatchOptions::default() });
    for at in 0..5 {
        builder.append(Timestamp(100 + at), Some(b"key"), Some(b"value"), &[("h", None), ("h", Some(b"2"))]).unwrap();
    }
    builder.finish().unwrap().to_vec()
}

#[test]
fn assigning_offsets_keeps_the_batch_valid() {
    for codec in Compression::ALL {
        let mut bytes = sample(codec);
        patch_assigned(&mut bytes, Offset(1000), LeaderEpoch(4)).unwrap();
        let batch = parse(&bytes);
        batch.validate(&BatchLimits::STORED).unwrap();
        assert_eq!(batch.header().base_offset, Offset(1000));
        assert_eq!(batch.header().last_offset(), Offset(1004));
        assert_eq!(batch.header().next_offset(), Offset(1005));
        assert_eq!(batch.header().leader_epoch, LeaderEpoch(4));
        assert_eq!(offsets(&batch), [1000, 1001, 1002, 1003, 1004]);
    }
}

#[test]
fn log_append_time_replaces_every_timestamp_and_the_checksum() {
    let mut bytes = sample(Compression::None);
    patch_log_append_time(&mut bytes, Timestamp(5000)).unwrap();
    let batch = parse(&bytes);
    batch.validate(&BatchLimits::STORED).unwrap();
    assert_eq!(batch.header().timestamp_type(), TimestampType::LogAppendTime);
    assert_eq!(batch.header().max_timestamp, Timestamp(5000));
    assert!(read(&batch).iter().all(|record| record.timestamp == 5000));
}

#[test]
fn markers_round_trip_and_only_the_log_may_hold_them() {
    for kind in [ControlKind::Commit, ControlKind::Abort] {
        let marker = ControlMarker { kind, coordinator_epoch: 9 };
        let bytes = control_batch(marker, ProducerId(5), ProducerEpoch(2), Timestamp(77));
        let batch = parse(&bytes);
        assert!(batch.header().is_control() && batch.header().is_transactional());
        assert_eq!(batch.control_record().unwrap(), marker);
        batch.validate(&BatchLimits::STORED).unwrap();
        assert!(batch.validate(&BatchLimits::PRODUCE).is_err());
    }
}

#[test]
fn data_holds_no_marker() {
    assert!(parse(&sample(Compression::None)).control_record().is_err());
}

#[test]
fn batches_come_one_by_one_and_a_cut_one_is_named() {
    let mut bytes = sample(Compression::Lz4);
    bytes.extend_from_slice(&sample(Compression::None));
    assert_eq!(batches(&bytes).filter(Result::is_ok).count(), 2);
    bytes.pop();
    let found: Vec<_> = batches(&bytes).collect();
    assert_eq!(found.len(), 2);
    assert!(found[0].is_ok());
    assert!(found[1].as_ref().is_err_and(logmill_protocol::BatchError::is_truncated));
    assert_eq!(batches(&[]).count(), 0);
}

#[test]
fn an_empty_builder_builds_nothing() {
    assert!(BatchBuilder::new(BatchOptions::default()).finish().is_none());
}

#[test]
fn the_memory_of_a_dropped_batch_is_used_again_and_that_of_a_held_one_is_not() {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    let mut build = |value: &[u8]| {
        builder.append(Timestamp(0), None, Some(value), &[]).unwrap();
        builder.finish().unwrap()
    };
    let dropped = build(&[1; 50_000]).as_ptr();
    let held = build(&[2; 50_000]);
    assert_eq!(held.as_ptr(), dropped);
    let next = build(&[3; 50_000]);
    assert_ne!(next.as_ptr(), held.as_ptr());
    assert_eq!(read(&parse(&held))[0].value, Some(vec![2; 50_000]));
}

#[test]
fn sequences_wrap_to_zero() {
    assert_eq!(advance_sequence(i32::MAX - 1, 1), i32::MAX);
    assert_eq!(advance_sequence(i32::MAX, 1), 0);
    assert_eq!(advance_sequence(i32::MAX, 5), 4);
}

#[test]
fn codec_names_are_kafkas() {
    for codec in Compression::ALL {
        assert_eq!(codec.to_string().parse(), Ok(codec));
        assert_eq!(Compression::from_id(codec.id()), Some(codec));
    }
    assert_eq!("uncompressed".parse(), Ok(Compression::None));
    assert_eq!(
        "lzo".parse::<Compression>().unwrap_err().to_string(),
        "unknown compression \"lzo\", expected none, gzip, snappy, lz4 or zstd"
    );
}
