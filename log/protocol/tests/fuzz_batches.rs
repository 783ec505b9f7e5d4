//! Fuzzes what reads record batches: bounds, checks, codecs, records, markers, patches, and building them again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;
#[path = "common/fuzz.rs"]
mod fuzz;

use bytes::Bytes;
use common::{batch, build, parse, read, reseal, try_read};
use fastrand::Rng;
use logmill_protocol::{
    BatchBuilder, BatchError, BatchHeader, BatchLimits, BatchOptions, BatchView, Compression, ControlKind,
    ControlMarker, HEADER_LEN, LeaderEpoch, Offset, ProducerEpoch, ProducerId, ProducerStamp, Timestamp, batches,
    control_batch, patch_assigned, patch_log_append_time, restamp_producer,
};

/// Small enough that mutated batches reach it.
const LIMITS: BatchLimits = BatchLimits { max_decompressed_bytes: 64 * 1024, ..BatchLimits::STORED };

/// What the mutated batches led to; every way must have been taken, or the test tests nothing.
#[derive(Debug, Default)]
struct Seen {
    unparsable: usize,
    invalid: usize,
    valid: usize,
    too_large: usize,
    codec_errors: usize,
    record_errors: usize,
    readable: usize,
    markers: usize,
}

#[test]
fn mutated_batches_are_read_or_refused_within_bounds() {
    let mut corpus: Vec<Bytes> = Vec::new();
    for codec in Compression::ALL {
        for (count, value_len) in [(1, 0), (5, 30), (40, 900), (2, 70_000)] {
            corpus.push(batch(codec, count, value_len).into());
        }
    }
    let marker = ControlMarker { kind: ControlKind::Abort, coordinator_epoch: 3 };
    corpus.push(control_batch(marker, ProducerId(1), ProducerEpoch(1), Timestamp(1)));

    let make = |random: &mut Rng| {
        let mut bytes = corpus[random.usize(..corpus.len())].to_vec();
        for _ in 0..random.usize(..6) {
            let donor = &corpus[random.usize(..corpus.len())];
            match random.u8(..8) {
                // Another codec, other attributes.
                0 if bytes.len() > 22 => bytes[22] = random.u8(..64),
                _ => fuzz::mutate(random, &mut bytes, donor, HEADER_LEN + 40),
            }
        }
        if random.u8(..4) != 0 {
            reseal(&mut bytes);
        }
        bytes
    };
    let mut seen = Seen::default();
    fuzz::run("record batches", 3_000, make, |bytes, random| {
        let read = exercise(bytes, random, &mut seen);
        // A batch is decompressed a few times, and its records are copied; codecs have buffers of up to 4 MiB.
        (read + 1) * (32 << 20)
    });
    let all = [
        seen.unparsable,
        seen.invalid,
        seen.valid,
        seen.too_large,
        seen.codec_errors,
        seen.record_errors,
        seen.readable,
        seen.markers,
    ];
    assert!(all.iter().all(|&count| count > 0), "{seen:?}");
}

/// Returns how many batches there were.
fn exercise(bytes: &[u8], random: &mut Rng, seen: &mut Seen) -> usize {
    let _ = BatchHeader::peek(bytes).map(|header| {
        (header.total_len(), header.last_offset(), header.next_offset(), header.last_sequence(), header.compression())
    });
    let mut count = 0;
    for found in batches(bytes) {
        let Ok(view) = found else {
            seen.unparsable += 1;
            continue;
        };
        count += 1;
        assert!(view.bytes().len() <= bytes.len());
        check_both(&view, seen);
        if view.control_record().is_ok() {
            seen.markers += 1;
        }
        let mut scratch = Vec::new();
        let read = view.records(&mut scratch, &LIMITS).map(Iterator::count);
        assert!(scratch.capacity() <= 2 * LIMITS.max_decompressed_bytes, "{} bytes", scratch.capacity());
        match read.and_then(|_| try_read(&view, &LIMITS)) {
            Ok(found) => {
                assert_eq!(found.len(), usize::try_from(view.header().record_count.max(0)).unwrap());
                seen.readable += 1;
                build_again(found.into_iter().map(|(_, record)| record).collect(), random);
            }
            Err(BatchError::DecompressedTooLarge { .. }) => seen.too_large += 1,
            Err(BatchError::Record { .. } | BatchError::RecordHeader(_)) => seen.record_errors += 1,
            Err(_) => seen.codec_errors += 1,
        }
        patch(&view);
    }
    count
}

fn check_both(view: &BatchView<'_>, seen: &mut Seen) {
    match (view.validate(&BatchLimits::STORED), view.validate(&BatchLimits::PRODUCE)) {
        (Ok(()), _) => seen.valid += 1,
        // Stored offsets must be possible, sent ones mean nothing.
        (Err(error), Ok(())) => assert!(matches!(error, BatchError::OffsetRange { .. }), "{error}"),
        (Err(_), Err(_)) => seen.invalid += 1,
    }
}

/// Whatever could be read can be written, and is read again.
fn build_again(records: Vec<common::Record>, random: &mut Rng) {
    if records.is_empty() {
        return;
    }
    let compression = random.choice(Compression::ALL).unwrap();
    let built = build(&mut BatchBuilder::new(BatchOptions { compression, ..BatchOptions::default() }), &records);
    let view = parse(&built);
    view.validate(&BatchLimits { max_batch_bytes: usize::MAX, ..BatchLimits::PRODUCE }).unwrap();
    assert_eq!(read(&view), records);
}

fn patch(view: &BatchView<'_>) {
    let mut patched = view.bytes().to_vec();
    patch_assigned(&mut patched, Offset(5), LeaderEpoch(6)).unwrap();
    patch_log_append_time(&mut patched, Timestamp(7)).unwrap();
    parse(&patched).verify_crc().unwrap();
    let stamp = ProducerStamp { id: ProducerId(1), epoch: ProducerEpoch(2), base_sequence: 3 };
    restamp_producer(&mut patched, stamp, true).unwrap();
    parse(&patched).verify_crc().unwrap();
}
