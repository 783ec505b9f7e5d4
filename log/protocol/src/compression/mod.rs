//! The five codecs of record batches, bounded on the way out: a batch of a few bytes must not fill the memory.

mod lz4;
mod snappy;
mod zstandard;

use std::fmt;
use std::io::{self, Read, Write};
use std::str::FromStr;

use crate::BatchError;

/// How the records of a batch are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// gzip, level 6.
    Gzip,
    /// Snappy blocks in the xerial framing.
    Snappy,
    /// LZ4 frames with independent blocks of 64 KiB.
    Lz4,
    /// Zstandard, level 3 (KIP-110).
    Zstd,
}

/// A name that is none of Kafka's codec names.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown compression {0:?}, expected none, gzip, snappy, lz4 or zstd")]
pub struct UnknownCompression(pub String);

impl Compression {
    /// All codecs, in the order of their ids.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// The codec's id in a batch's attributes.
    #[must_use]
    pub const fn id(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Snappy => 2,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }

    /// The codec with this id, if Kafka has assigned it.
    #[must_use]
    pub const fn from_id(id: u8) -> Option<Self> {
        match id {
            0 => Some(Self::None),
            1 => Some(Self::Gzip),
            2 => Some(Self::Snappy),
            3 => Some(Self::Lz4),
            4 => Some(Self::Zstd),
            _ => None,
        }
    }

    /// Kafka's name of the codec, as in `compression.type`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    /// Bytes that a byte of the codec's output can stand for, at most. Each follows from the codec's format.
    #[must_use]
    pub const fn max_ratio(self) -> usize {
        match self {
            Self::None => 1,
            // Two bits, a length and a distance, repeat 258 bytes.
            Self::Gzip => 1032,
            // Three bytes repeat 64.
            Self::Snappy => 22,
            // A byte lengthens a match by 255.
            Self::Lz4 => 255,
            // Four bytes are a block of one byte 128 Ki times.
            Self::Zstd => 32 << 10,
        }
    }

    /// Decompresses `input` into `scratch` and returns it, or returns `input` itself if it is not compressed.
    pub(crate) fn decompress<'s>(
        self,
        input: &'s [u8],
        scratch: &'s mut Vec<u8>,
        max: usize,
    ) -> Result<&'s [u8], BatchError> {
        if self == Self::None {
            return Ok(input);
        }
        scratch.clear();
        let result = match self {
            Self::None | Self::Gzip => read_bounded(flate2::bufread::MultiGzDecoder::new(input), scratch, max),
            Self::Snappy => snappy::decompress(input, scratch, max),
            Self::Lz4 => lz4::decompress(input, scratch, max),
            Self::Zstd => zstandard::decompress(input, scratch, max),
        };
        match result {
            Ok(()) => Ok(scratch),
            Err(DecompressError::TooLarge) => Err(BatchError::DecompressedTooLarge { max }),
            Err(DecompressError::Codec(source)) => Err(BatchError::Decompress { codec: self, source }),
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Compression {
    type Err = UnknownCompression;

    /// Takes Kafka's names; `uncompressed`, its topic-level word for `none`, as well.
    fn from_str(name: &str) -> Result<Self, Self::Err> {
        if name == "uncompressed" {
            return Ok(Self::None);
        }
        Self::ALL.into_iter().find(|codec| codec.name() == name).ok_or_else(|| UnknownCompression(name.to_owned()))
    }
}

/// Why a codec stopped.
enum DecompressError {
    TooLarge,
    Codec(io::Error),
}

impl From<io::Error> for DecompressError {
    fn from(error: io::Error) -> Self {
        Self::Codec(error)
    }
}

/// Makes room for `needed` more bytes, of at most `end` in all: twice as much each time, as `Vec` does, but never for more
/// than `end`.
fn reserve_bounded(out: &mut Vec<u8>, needed: usize, end: usize) {
    if out.capacity() - out.len() < needed {
        let room = out.len().max(MIN_GROWTH).min(end.saturating_sub(out.len()));
        out.reserve_exact(room.max(needed));
    }
}

/// The least by which the output grows, in bytes.
const MIN_GROWTH: usize = 4096;

/// Reads all of `decoder`, at most `max` bytes, into no more memory than that.
fn read_bounded(mut decoder: impl Read, out: &mut Vec<u8>, max: usize) -> Result<(), DecompressError> {
    // One byte more than allowed tells "exactly full" from "too large".
    let end = max.saturating_add(1);
    loop {
        reserve_bounded(out, 1, end);
        let room = (out.capacity() - out.len()).min(end.saturating_sub(out.len()));
        let read = decoder.by_ref().take(room as u64).read_to_end(out)?;
        if out.len() > max {
            return Err(DecompressError::TooLarge);
        }
        if read < room {
            return Ok(());
        }
    }
}

/// A compressor with the memory of its codec, kept from batch to batch.
pub(crate) enum Compressor {
    None,
    Gzip(flate2::Compression),
    Snappy(Box<snap::raw::Encoder>),
    Lz4,
    Zstd(Box<zstd::bulk::Compressor<'static>>),
}

impl Compressor {
    /// A compressor for `codec`. If zstd cannot allocate its context, batches stay uncompressed.
    pub(crate) fn new(codec: Compression, level: Option<i32>) -> Self {
        match codec {
            Compression::None => Self::None,
            Compression::Gzip => {
                let level = level.and_then(|level| u32::try_from(level).ok()).map(|level| level.min(9));
                Self::Gzip(level.map_or_else(flate2::Compression::default, flate2::Compression::new))
            }
            Compression::Snappy => Self::Snappy(Box::new(snap::raw::Encoder::new())),
            Compression::Lz4 => Self::Lz4,
            Compression::Zstd => match zstd::bulk::Compressor::new(level.unwrap_or(zstandard::LEVEL)) {
                Ok(compressor) => Self::Zstd(Box::new(compressor)),
                Err(_) => Self::None,
            },
        }
    }

    /// The codec that this compressor writes.
    pub(crate) fn codec(&self) -> Compression {
        match self {
            Self::None => Compression::None,
            Self::Gzip(_) => Compression::Gzip,
            Self::Snappy(_) => Compression::Snappy,
            Self::Lz4 => Compression::Lz4,
            Self::Zstd(_) => Compression::Zstd,
        }
    }

    /// Appends `input`, compressed, to `out`.
    pub(crate) fn compress(&mut self, input: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        match self {
            Self::None => {
                out.extend_from_slice(input);
                Ok(())
            }
            Self::Gzip(level) => {
                let mut encoder = flate2::write::GzEncoder::new(out, *level);
                encoder.write_all(input)?;
                encoder.finish().map(drop)
            }
            Self::Snappy(encoder) => snappy::compress(encoder, input, out),
            Self::Lz4 => lz4::compress(input, out),
            Self::Zstd(compressor) => zstandard::compress(compressor, input, out),
        }
    }
}
