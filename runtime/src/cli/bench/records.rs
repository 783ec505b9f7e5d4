//! The records that producing and consuming are measured with, as batches that are ready to be appended.

use anyhow::Context;
use bytes::Bytes;
use logmill_protocol::{BatchBuilder, BatchOptions, Compression, Timestamp};

/// So many bytes of distinct batches are kept at most; longer runs append them again and again.
const POOL_BYTES: usize = 64 << 20;

/// What is written and read.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Shape {
    /// How many records.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) records: u64,
    /// The size of a value.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(super) value_bytes: u32,
    /// The size of a batch, before compression.
    #[arg(long, default_value_t = 65_536, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(super) batch_bytes: u32,
    /// How many partitions the topic has.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..=10_000))]
    pub(super) partitions: i32,
    /// How many batches are on their way at a time.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(super) in_flight: u32,
    /// none, gzip, snappy, lz4 or zstd.
    #[arg(long, default_value = "none")]
    pub(super) compression: Compression,
}

/// Batches, to be appended in a circle, the last one cut short.
pub(super) struct Pool {
    batches: Vec<(Bytes, u64)>,
    records: u64,
}

impl Pool {
    /// Makes the batches of a shape, whose values are text that compresses as logs do.
    pub(super) fn new(shape: &Shape) -> anyhow::Result<Self> {
        let mut builder = BatchBuilder::new(BatchOptions { compression: shape.compression, ..BatchOptions::default() });
        let (mut batches, mut bytes, mut made) = (Vec::new(), 0, 0);
        let mut value = vec![b'.'; shape.value_bytes as usize];
        while made < shape.records && bytes < POOL_BYTES {
            let mut count = 0;
            while made + count < shape.records && (count == 0 || builder.size_bytes() < shape.batch_bytes as usize) {
                fill(&mut value, made + count);
                builder.append(Timestamp(1_700_000_000_000 + made as i64), None, Some(&value), &[])?;
                count += 1;
            }
            let batch = builder.finish().context("a batch without records")?;
            bytes += batch.len();
            made += count;
            batches.push((batch, count));
        }
        Ok(Self { batches, records: shape.records })
    }

    /// The batches in the order in which they are appended. Whole ones only: a few records more than asked for.
    pub(super) fn appends(&self) -> impl Iterator<Item = (Bytes, u64)> + '_ {
        let mut left = self.records;
        self.batches.iter().cycle().map_while(move |(batch, count)| {
            let go_on = left > 0;
            left = left.saturating_sub(*count);
            go_on.then(|| (batch.clone(), *count))
        })
    }

    /// How many records and bytes the appends have in all.
    pub(super) fn totals(&self) -> (u64, u64) {
        self.appends().fold((0, 0), |(records, bytes), (batch, count)| (records + count, bytes + batch.len() as u64))
    }
}

/// Numbers a value and puts a word of eight random letters into each 16 bytes of it.
fn fill(value: &mut [u8], number: u64) {
    let mut random = fastrand::Rng::with_seed(number);
    for chunk in value.chunks_mut(16) {
        for letter in chunk.iter_mut().take(8) {
            *letter = b'a' + random.u8(0..26);
        }
    }
    for (place, digit) in value.iter_mut().zip(format!("{number:012}").bytes()) {
        *place = digit;
    }
}
