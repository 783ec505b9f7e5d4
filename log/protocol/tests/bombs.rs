//! Batches of a few hundred kilobytes that decompress to more than is allowed: refused, with memory up to the limit.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::alloc::System;
use std::io::Write;

use common::{batch, reseal};
use logmill_protocol::{BatchError, BatchLimits, BatchView, Compression, HEADER_LEN};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const MAX: usize = BatchLimits::DEFAULT_MAX_DECOMPRESSED_BYTES;
/// What codecs need besides the output: tables, windows and blocks.
const CODEC_BYTES: usize = 12 << 20;

/// A batch with this payload.
fn bomb(codec: Compression, payload: &[u8]) -> Vec<u8> {
    let mut bytes = batch(Compression::None, 1, 1)[..HEADER_LEN].to_vec();
    bytes[22] = codec.id();
    bytes.extend_from_slice(payload);
    reseal(&mut bytes);
    bytes
}

/// `content`, again and again: readers take what follows a stream for more of it, only LZ4 has one frame.
fn compress(codec: Compression, content: &[u8], repeats: usize) -> Vec<u8> {
    match codec {
        Compression::None => content.repeat(repeats),
        Compression::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
            encoder.write_all(content).unwrap();
            encoder.finish().unwrap().repeat(repeats)
        }
        Compression::Snappy => {
            let block = snap::raw::Encoder::new().compress_vec(content).unwrap();
            let length = (block.len() as u32).to_be_bytes();
            [&b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01"[..], &length, &block].concat().repeat(repeats)
        }
        Compression::Lz4 => {
            let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
            (0..repeats).for_each(|_| encoder.write_all(content).unwrap());
            encoder.finish().unwrap()
        }
        Compression::Zstd => zstd::bulk::compress(content, 3).unwrap().repeat(repeats),
    }
}

/// The only test here, since what it measures is the process's.
#[test]
fn bombs_of_every_codec_are_refused_with_no_more_memory_than_the_limit() {
    let content = vec![0; 40 << 20];
    for codec in Compression::ALL.into_iter().filter(|codec| *codec != Compression::None) {
        // All of it would be 4 times the limit.
        let bytes = bomb(codec, &compress(codec, &content, 13));
        assert!(bytes.len() < MAX / 4, "{codec}: {} bytes", bytes.len());
        let (view, rest) = BatchView::parse(&bytes).unwrap();
        assert!(rest.is_empty());
        let mut scratch = Vec::new();
        let region = Region::new(ALLOCATOR);
        let refused = view.records(&mut scratch, &BatchLimits::PRODUCE).map(Iterator::count);
        let allocated = region.change().bytes_allocated;
        assert!(matches!(refused, Err(BatchError::DecompressedTooLarge { max: MAX })), "{codec}: {refused:?}");
        assert!(scratch.capacity() <= MAX + 1, "{codec}: {} bytes are kept", scratch.capacity());
        assert!(allocated <= MAX + CODEC_BYTES, "{codec}: {allocated} bytes were allocated");

        let small = BatchLimits { max_decompressed_bytes: 1 << 20, ..BatchLimits::PRODUCE };
        let region = Region::new(ALLOCATOR);
        let refused = view.records(&mut Vec::new(), &small).map(Iterator::count);
        let allocated = region.change().bytes_allocated;
        assert!(matches!(refused, Err(BatchError::DecompressedTooLarge { max: 0x10_0000 })), "{codec}: {refused:?}");
        assert!(allocated <= (1 << 20) + CODEC_BYTES, "{codec}: {allocated} bytes were allocated");

        // Within the limit it is read, down to the first record, of zeros.
        let bytes = bomb(codec, &compress(codec, &content, 3));
        let read =
            BatchView::parse(&bytes).unwrap().0.records(&mut scratch, &BatchLimits::PRODUCE).map(Iterator::count);
        assert!(
            !matches!(read, Err(BatchError::DecompressedTooLarge { .. } | BatchError::Decompress { .. })),
            "{codec}"
        );
        assert_eq!(scratch.len(), 3 * content.len(), "{codec}");
    }
}
