//! Bytes from a broken disk or a malicious client: every answer is an error or a valid read, and memory stays bounded.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{batch, parse, read, records, reseal, try_read};
use logmill_protocol::{
    BatchBuilder, BatchError, BatchLimits, BatchOptions, BatchView, Compression, HEADER_LEN, LeaderEpoch, Offset,
    Timestamp, batches, patch_assigned, patch_log_append_time,
};

/// Small enough that mutated batches reach it.
const LIMITS: BatchLimits = BatchLimits { max_decompressed_bytes: 64 * 1024, ..BatchLimits::STORED };

/// A batch with this codec id and these bytes as its records.
fn with_payload(codec: Compression, payload: &[u8]) -> Vec<u8> {
    let mut bytes = batch(Compression::None, 1, 1)[..HEADER_LEN].to_vec();
    bytes[22] = codec.id();
    bytes.extend_from_slice(payload);
    reseal(&mut bytes);
    bytes
}

#[test]
fn a_batch_cut_anywhere_is_truncated() {
    for codec in Compression::ALL {
        let whole = batch(codec, 6, 50);
        for len in 0..whole.len() {
            let cut = &whole[..len];
            match BatchView::parse(cut) {
                Err(BatchError::Truncated { needed, available }) => {
                    assert_eq!(available, len);
                    assert_eq!(needed, if len < HEADER_LEN { HEADER_LEN } else { whole.len() });
                }
                other => panic!("{codec} cut to {len}: {other:?}"),
            }
            assert!(patch_assigned(&mut cut.to_vec(), Offset(1), LeaderEpoch(1)).is_err());
            assert!(patch_log_append_time(&mut cut.to_vec(), Timestamp(1)).is_err());
            assert_eq!(batches(cut).count(), usize::from(len > 0));
        }
    }
}

#[test]
fn every_flipped_bit_is_noticed_except_where_the_log_patches() {
    let whole = batch(Compression::None, 3, 20);
    for at in (8..12).chain(16..whole.len()) {
        for bit in 0..8 {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << bit;
            let valid = BatchView::parse(&bytes).and_then(|(batch, _)| batch.validate(&BatchLimits::STORED));
            assert!(valid.is_err(), "byte {at} bit {bit}");
        }
    }
}

#[test]
fn records_cut_short_inside_a_whole_batch_are_errors() {
    for codec in Compression::ALL {
        let whole = batch(codec, 6, 50);
        for len in HEADER_LEN..whole.len() {
            let mut bytes = whole[..len].to_vec();
            reseal(&mut bytes);
            let view = parse(&bytes);
            view.verify_crc().unwrap();
            match try_read(&view, &LIMITS) {
                // The end of a stream may be cut without losing a record: trailers and end marks.
                Ok(found) => assert_eq!(found.len(), 6, "{codec} cut to {len}"),
                Err(error) => assert!(!error.is_truncated(), "{codec} cut to {len}: {error}"),
            }
        }
    }
}

#[test]
fn a_count_that_the_payload_cannot_hold_is_refused() {
    let check = |codec: Compression, payload: usize, count: i32, expected: Option<usize>| {
        let mut bytes = with_payload(codec, &vec![0; payload]);
        bytes[23..27].copy_from_slice(&(count - 1).to_be_bytes());
        bytes[57..61].copy_from_slice(&count.to_be_bytes());
        reseal(&mut bytes);
        match (parse(&bytes).validate(&BatchLimits::PRODUCE), expected) {
            (Ok(()), None) => {}
            (Err(BatchError::CountBeyondPayload { max, .. }), Some(expected)) => assert_eq!(max, expected, "{codec}"),
            (found, _) => panic!("{codec}, {payload} bytes, {count} records: {found:?}"),
        }
    };
    for codec in Compression::ALL {
        check(codec, 0, 1, Some(0));
        check(codec, 0, i32::MAX, Some(0));
        check(codec, 7, 1, None);
    }
    check(Compression::None, 700, 100, None);
    check(Compression::None, 700, 101, Some(100));
    check(Compression::Gzip, 70, 10_320, None);
    check(Compression::Gzip, 70, 10_321, Some(10_320));
    // However few bytes: no more than may be decompressed.
    let most = BatchLimits::DEFAULT_MAX_DECOMPRESSED_BYTES / 7;
    check(Compression::Zstd, 100_000, i32::MAX, Some(most));
    check(Compression::Zstd, 100_000, most as i32, None);
}

#[test]
fn the_smallest_records_compressed_best_pass() {
    for codec in Compression::ALL {
        let levels: &[Option<i32>] = match codec {
            Compression::Gzip => &[None, Some(9)],
            Compression::Zstd => &[None, Some(19)],
            _ => &[None],
        };
        for level in levels {
            let options = BatchOptions { compression: codec, level: *level, ..BatchOptions::default() };
            let mut builder = BatchBuilder::new(options);
            for _ in 0..100_000 {
                builder.append(Timestamp(0), None, None, &[]).unwrap();
            }
            let limits = BatchLimits { max_batch_bytes: usize::MAX, ..BatchLimits::PRODUCE };
            parse(&builder.finish().unwrap()).validate(&limits).unwrap();
        }
        // One record of one byte, as often as it takes: the best that the codec can do.
        let mut builder = BatchBuilder::new(BatchOptions { compression: codec, ..BatchOptions::default() });
        builder.append(Timestamp(0), None, Some(&vec![0; 10 << 20]), &[]).unwrap();
        let bytes = builder.finish().unwrap();
        let ratio = (10 << 20) / (bytes.len() - HEADER_LEN);
        assert!(ratio <= codec.max_ratio(), "{codec}: {ratio}");
    }
}

#[test]
fn headers_that_contradict_themselves_are_refused() {
    let check = |at: usize, field: &[u8], expected: &str| {
        let mut bytes = batch(Compression::None, 3, 10);
        bytes[at..at + field.len()].copy_from_slice(field);
        let crc = crc_fast::crc32_iscsi(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        let error = BatchView::parse(&bytes).and_then(|(batch, _)| batch.validate(&BatchLimits::PRODUCE)).unwrap_err();
        assert_eq!(error.to_string(), expected);
    };
    check(8, &48i32.to_be_bytes(), "record batch length field is 48, it must be 49 or more");
    check(8, &(-1i32).to_be_bytes(), "record batch length field is -1, it must be 49 or more");
    check(16, &[1], "record batch has magic 1, only 2 is supported");
    check(22, &[0b0001_0101], "record batch has unknown compression codec 5");
    check(22, &[0b0011_0000], "control batches are written by the broker only");
    check(22, &[0b0001_1000], "record batch claims log append time, which only the broker sets");
    check(23, &3i32.to_be_bytes(), "record batch claims 3 records but a last offset delta of 3");
    check(23, &(-1i32).to_be_bytes(), "record batch claims 3 records but a last offset delta of -1");
    check(57, &0i32.to_be_bytes(), "record batch claims 0 records but a last offset delta of 2");
    let stamp = |id, epoch, sequence| {
        format!(
            "record batch has an invalid producer stamp: id {id}, epoch {epoch}, sequence {sequence}, \
             transactional true"
        )
    };
    check(43, &(-1i64).to_be_bytes(), &stamp(-1, 3, 11));
    check(43, &(-2i64).to_be_bytes(), &stamp(-2, 3, 11));
    check(51, &(-1i16).to_be_bytes(), &stamp(7, -1, 11));
    check(53, &(-1i32).to_be_bytes(), &stamp(7, 3, -1));
}

#[test]
fn a_batch_over_the_limit_is_refused_before_its_checksum_is_read() {
    let mut bytes = batch(Compression::None, 3, 10);
    let limits = BatchLimits { max_batch_bytes: bytes.len(), ..BatchLimits::PRODUCE };
    parse(&bytes).validate(&limits).unwrap();
    let limits = BatchLimits { max_batch_bytes: bytes.len() - 1, ..limits };
    bytes[HEADER_LEN] ^= 1;
    assert!(matches!(parse(&bytes).validate(&limits), Err(BatchError::TooLarge { .. })));
}

#[test]
fn stored_offsets_must_be_possible() {
    let mut bytes = batch(Compression::None, 3, 10);
    for (base, fits) in [(0, true), (-1, false), (i64::MAX - 3, true), (i64::MAX - 2, false)] {
        patch_assigned(&mut bytes, Offset(base), LeaderEpoch(0)).unwrap();
        let stored = parse(&bytes).validate(&BatchLimits::STORED);
        assert_eq!(stored.is_ok(), fits, "{base}");
        // What a producer writes there is overwritten anyway.
        parse(&bytes).validate(&BatchLimits::PRODUCE).unwrap();
    }
}

#[test]
fn decompression_stops_at_the_limit() {
    for codec in Compression::ALL.into_iter().filter(|codec| *codec != Compression::None) {
        let value = vec![0u8; 8 << 20];
        let mut builder = BatchBuilder::new(BatchOptions { compression: codec, ..BatchOptions::default() });
        builder.append(Timestamp(0), None, Some(&value), &[]).unwrap();
        let exact = builder.size_bytes() - HEADER_LEN;
        let bytes = builder.finish().unwrap();
        let view = parse(&bytes);

        let mut scratch = Vec::new();
        let limits = BatchLimits { max_decompressed_bytes: exact, ..BatchLimits::PRODUCE };
        assert_eq!(view.records(&mut scratch, &limits).unwrap().count(), 1, "{codec}");

        for max in [exact - 1, 1 << 20, 0] {
            let mut scratch = Vec::new();
            let limits = BatchLimits { max_decompressed_bytes: max, ..BatchLimits::PRODUCE };
            let error = view.records(&mut scratch, &limits).map(Iterator::count).unwrap_err();
            assert!(matches!(error, BatchError::DecompressedTooLarge { .. }), "{codec} {max}: {error}");
            assert!(scratch.capacity() <= 2 * max + (1 << 20), "{codec} {max}: {} bytes", scratch.capacity());
        }
    }
}

#[test]
fn snappy_blocks_cannot_claim_more_than_they_can_hold() {
    // The raw length of 64 KiB, and then next to nothing.
    let lie = [0x80, 0x80, 0x04, 0x00, 0x61];
    let bytes = with_payload(Compression::Snappy, &lie);
    let mut scratch = Vec::new();
    let error = parse(&bytes).records(&mut scratch, &LIMITS).map(Iterator::count).unwrap_err();
    assert!(matches!(error, BatchError::Decompress { codec: Compression::Snappy, .. }), "{error}");
    assert!(scratch.capacity() < 64 * 1024);
}

#[test]
fn raw_and_concatenated_snappy_read_like_framed() {
    let plain = batch(Compression::None, 6, 50);
    let records_bytes = &plain[HEADER_LEN..];
    let raw = |bytes: &[u8]| snap::raw::Encoder::new().compress_vec(bytes).unwrap();
    let framed = |bytes: &[u8]| {
        let block = raw(bytes);
        let mut stream = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01".to_vec();
        stream.extend_from_slice(&(block.len() as u32).to_be_bytes());
        stream.extend_from_slice(&block);
        stream
    };
    let (first, second) = records_bytes.split_at(records_bytes.len() / 2);
    for payload in [raw(records_bytes), framed(records_bytes), [framed(first), framed(second)].concat()] {
        let mut bytes = plain[..HEADER_LEN].to_vec();
        bytes[22] |= Compression::Snappy.id();
        bytes.extend_from_slice(&payload);
        reseal(&mut bytes);
        assert_eq!(read(&parse(&bytes)), records(6, 50));
    }
}

#[test]
fn a_huge_record_count_costs_nothing() {
    let mut bytes = batch(Compression::None, 3, 10);
    bytes[23..27].copy_from_slice(&i32::MAX.to_be_bytes());
    bytes[57..61].copy_from_slice(&i32::MAX.to_be_bytes());
    reseal(&mut bytes);
    let view = parse(&bytes);
    let mut scratch = Vec::new();
    let records = view.records(&mut scratch, &LIMITS).unwrap();
    assert!(records.size_hint().1.unwrap() < bytes.len());
    let read: Vec<_> = records.collect();
    assert_eq!(read.len(), 4);
    assert!(matches!(read[3], Err(BatchError::Record { index: 3, .. })));
}

#[test]
fn malformed_records_say_what_is_wrong() {
    let check = |payload: &[u8], expected: &str| {
        let bytes = with_payload(Compression::None, payload);
        assert_eq!(try_read(&parse(&bytes), &LIMITS).unwrap_err().to_string(), expected);
    };
    // length, attributes, timestamp delta, offset delta, key, value, header count; 1 is the varint of -1.
    check(&[], "record 0 of the batch is malformed: its length is cut off or too long");
    check(&[1], "record 0 of the batch is malformed: its length is negative");
    check(&[0], "record 0 of the batch is malformed: it is empty");
    check(&[14, 0, 0, 0, 1, 1, 0], "record 0 of the batch is malformed: it runs past the batch");
    check(&[12, 0, 0, 1, 1, 1, 0], "record 0 of the batch is malformed: its offset does not ascend");
    check(&[12, 0, 0, 2, 1, 1, 0], "record 0 of the batch is malformed: its offset is beyond the batch's last");
    check(&[12, 0, 0, 0, 8, 1, 0], "record 0 of the batch is malformed: its key runs past it");
    check(&[12, 0, 0, 0, 1, 8, 0], "record 0 of the batch is malformed: its value runs past it");
    check(&[12, 0, 0, 0, 1, 1, 1], "record 0 of the batch is malformed: its header count is negative");
    check(&[12, 0, 0, 0, 1, 1, 2], "record 0 of the batch is malformed: it claims more headers than fit");
    check(&[14, 0, 0, 0, 1, 1, 0, 9], "record 0 of the batch is malformed: bytes follow its last field");
    check(&[12, 0, 0, 0, 1, 1, 0, 9], "record 1 of the batch is malformed: bytes follow the batch's last record");
    check(&[16, 0, 0, 0, 1, 1, 2, 1, 1], "record header is malformed: its key is null");
    check(&[16, 0, 0, 0, 1, 1, 2, 4, 1], "record header is malformed: its key runs past the record");
    check(&[18, 0, 0, 0, 1, 1, 2, 2, 97, 4], "record header is malformed: its value runs past the record");
    check(&[20, 0, 0, 0, 1, 1, 2, 2, 97, 1, 7], "record header is malformed: bytes follow the last header");
}

#[test]
fn zstd_frames_that_ask_for_a_larger_window_than_any_level_are_refused() {
    // Magic; no content size, no checksum; a window of 2^31 bytes; a last block of one raw byte.
    let frame = b"\x28\xb5\x2f\xfd\x00\xa8\x09\x00\x00a";
    let bytes = with_payload(Compression::Zstd, frame);
    let refused = parse(&bytes).records(&mut Vec::new(), &BatchLimits::PRODUCE).map(Iterator::count);
    assert!(matches!(refused, Err(BatchError::Decompress { .. })), "{refused:?}");
}
