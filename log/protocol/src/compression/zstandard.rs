//! Zstandard frames (KIP-110), with one decoder kept per thread: making one costs more than decoding a small batch.

use std::cell::RefCell;
use std::io;

use zstd::zstd_safe::DCtx;

use super::{DecompressError, read_bounded};

/// Kafka's default level.
pub(super) const LEVEL: i32 = 3;

thread_local! {
    static DECODER: RefCell<Option<DCtx<'static>>> = const { RefCell::new(None) };
}

/// A frame's claim of its size is trusted with memory up to this multiple of the frame; logs rarely shrink as much.
const TRUSTED_RATIO: usize = 64;

/// A decoder that has grown beyond this, in bytes, is not kept: a frame may ask for a window of up to 128 MiB. Frames
/// of level 3 ask for 2 MiB, those of level 19 for 8.
const MAX_KEPT_BYTES: usize = 10 << 20;

pub(super) fn decompress(input: &[u8], out: &mut Vec<u8>, max: usize) -> Result<(), DecompressError> {
    DECODER.with_borrow_mut(|slot| {
        let context = match slot {
            Some(context) => context,
            None => slot.insert(DCtx::try_create().ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?),
        };
        let result = decompress_with(context, input, out, max);
        slot.take_if(|context| context.sizeof() > MAX_KEPT_BYTES);
        result
    })
}

fn decompress_with(
    context: &mut DCtx<'static>,
    input: &[u8],
    out: &mut Vec<u8>,
    max: usize,
) -> Result<(), DecompressError> {
    context.init().map_err(|code| io::Error::other(zstd::zstd_safe::get_error_name(code)))?;

    // With the size known, zstd writes into `out` directly instead of through its window.
    if let Ok(Some(claimed)) = zstd::zstd_safe::get_frame_content_size(input)
        && let Ok(claimed) = usize::try_from(claimed)
        && claimed <= max.min(input.len().saturating_mul(TRUSTED_RATIO))
    {
        out.reserve(claimed);
        if context.decompress(out, input).is_ok() {
            return if out.len() > max { Err(DecompressError::TooLarge) } else { Ok(()) };
        }
        // A false claim, or more frames than one: read it piece by piece, which also words the error.
        out.clear();
    }
    read_bounded(zstd::stream::read::Decoder::with_context(input, context), out, max)
}

pub(super) fn compress(
    compressor: &mut zstd::bulk::Compressor<'static>,
    input: &[u8],
    out: &mut Vec<u8>,
) -> io::Result<()> {
    let start = out.len();
    out.resize(start + zstd::zstd_safe::compress_bound(input.len()), 0);
    let place = out.get_mut(start..).unwrap_or_default();
    let written = compressor.compress_to_buffer(input, place)?;
    out.truncate(start + written);
    Ok(())
}
