//! Snappy in the xerial framing that Kafka's clients write, and raw Snappy that some clients write as well.
//!
//! ```text
//! 0x82 "SNAPPY" 0x00 | version: i32 | compatible version: i32 | ( block length: i32 | raw Snappy block )*
//! ```
//!
//! Format: xerial's snappy-java `SnappyOutputStream`; integers are big-endian.

use std::io;

use super::{DecompressError, reserve_bounded};

const MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
const VERSION: i32 = 1;
/// Magic, version and compatible version.
const STREAM_HEADER_LEN: usize = 16;
/// Uncompressed size of a block, snappy-java's default.
const BLOCK_LEN: usize = 32 * 1024;
/// No Snappy element makes more of a byte than this: a copy of 64 bytes takes 3.
const MAX_RATIO: usize = 22;

pub(super) fn decompress(input: &[u8], out: &mut Vec<u8>, max: usize) -> Result<(), DecompressError> {
    if !input.starts_with(&MAGIC) {
        return decompress_block(input, out, max);
    }
    let mut rest = input;
    while !rest.is_empty() {
        // Concatenated streams repeat the header; its first four bytes are no possible block length.
        if rest.starts_with(&MAGIC) {
            rest = rest.get(STREAM_HEADER_LEN..).ok_or_else(|| malformed("the stream header is cut off"))?;
            continue;
        }
        let (len, after) = rest.split_first_chunk::<4>().ok_or_else(|| malformed("a block length is cut off"))?;
        let len = usize::try_from(i32::from_be_bytes(*len)).map_err(|_| malformed("a block length is negative"))?;
        let (block, after) = after.split_at_checked(len).ok_or_else(|| malformed("a block is cut off"))?;
        decompress_block(block, out, max)?;
        rest = after;
    }
    Ok(())
}

fn decompress_block(block: &[u8], out: &mut Vec<u8>, max: usize) -> Result<(), DecompressError> {
    let len = snap::raw::decompress_len(block).map_err(io::Error::other)?;
    let start = out.len();
    if len > max.saturating_sub(start) {
        return Err(DecompressError::TooLarge);
    }
    if len > block.len().saturating_mul(MAX_RATIO) {
        return Err(malformed("a block claims more than it can hold").into());
    }
    reserve_bounded(out, len, max);
    out.resize(start + len, 0);
    let place = out.get_mut(start..).unwrap_or_default();
    let written = snap::raw::Decoder::new().decompress(block, place).map_err(io::Error::other)?;
    out.truncate(start + written);
    Ok(())
}

pub(super) fn compress(encoder: &mut snap::raw::Encoder, input: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&VERSION.to_be_bytes());
    out.extend_from_slice(&VERSION.to_be_bytes());
    for block in input.chunks(BLOCK_LEN) {
        let length_at = out.len();
        let block_at = length_at + 4;
        out.resize(block_at + snap::raw::max_compress_len(block.len()), 0);
        let place = out.get_mut(block_at..).unwrap_or_default();
        let written = encoder.compress(block, place).map_err(io::Error::other)?;
        out.truncate(block_at + written);
        if let Some(length) = out.get_mut(length_at..block_at) {
            // A block of 32 KiB compresses to far less than 2 GiB.
            length.copy_from_slice(&(written as u32).to_be_bytes());
        }
    }
    Ok(())
}

fn malformed(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}
