//! LZ4 as Kafka's `KafkaLZ4BlockOutputStream` frames it: standard frames, independent blocks of 64 KiB.

use std::io::{self, Write};

use lz4_flex::frame::{BlockMode, BlockSize, FrameDecoder, FrameEncoder, FrameInfo};

use super::{DecompressError, read_bounded};

pub(super) fn decompress(input: &[u8], out: &mut Vec<u8>, max: usize) -> Result<(), DecompressError> {
    read_bounded(FrameDecoder::new(input), out, max)
}

pub(super) fn compress(input: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    // Kafka's reader refuses frames whose blocks depend on each other.
    let info = FrameInfo::new().block_mode(BlockMode::Independent).block_size(BlockSize::Max64KB);
    let mut encoder = FrameEncoder::with_frame_info(info, out);
    encoder.write_all(input)?;
    encoder.try_finish()?;
    Ok(())
}
