//! How fast record batches are built, checked and read, beside the memcpy and the CRC that bound them.
//!
//! `cargo bench -p logmill-protocol` prints the best of several passes for each piece of work, in MB (10^6 bytes) of
//! uncompressed batch a second; `of limit` sets it against the fastest way to touch the same bytes, from the same run.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use logmill_protocol::{
    BatchBuilder, BatchLimits, BatchOptions, BatchView, Compression, HEADER_LEN, LeaderEpoch, Offset, Timestamp,
    batches, patch_assigned,
};

/// Uncompressed size at which a batch is closed, as a client with a large `batch.size` does.
const BATCH_BYTES: usize = 256 * 1024;
const LIMITS: BatchLimits = BatchLimits { max_batch_bytes: usize::MAX, ..BatchLimits::PRODUCE };

struct Work {
    records: Vec<(Vec<u8>, Vec<u8>)>,
    /// Repeats of each measurement.
    passes: usize,
}

fn main() {
    // Without `--bench` this runs as a test of itself: once, on little.
    let measured = std::env::args().any(|argument| argument == "--bench");
    let (total_bytes, passes) = if measured { (64 << 20, 5) } else { (1 << 20, 1) };
    println!("{:<8} {:<22} {:>10} {:>9} {:>12}", "value", "work", "MB/s", "of limit", "ns/record");
    for value_bytes in [100, 1000] {
        let work = Work { records: records(value_bytes, total_bytes / value_bytes), passes };
        uncompressed(&work, value_bytes);
        for codec in Compression::ALL.into_iter().filter(|codec| *codec != Compression::None) {
            compressed(&work, value_bytes, codec);
        }
    }
}

/// Records as a service logs them: a key of 8 bytes, a value that compresses about threefold.
fn records(value_bytes: usize, count: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut random = fastrand::Rng::with_seed(1);
    let words = ["carrier", "flight", "origin", "delay", "scheduled", "departed", "2013-01-01T05", "EWR", "JFK"];
    let value = |random: &mut fastrand::Rng| {
        let mut value = Vec::with_capacity(value_bytes + 20);
        while value.len() < value_bytes {
            value.extend_from_slice(words[random.usize(..words.len())].as_bytes());
            value.extend_from_slice(format!(":{},", random.u16(..)).as_bytes());
        }
        value.truncate(value_bytes);
        value
    };
    (0..count as u64).map(|at| (at.to_be_bytes().to_vec(), value(&mut random))).collect()
}

fn build(work: &Work, codec: Compression, mut take: impl FnMut(&[u8])) {
    let mut builder = BatchBuilder::new(BatchOptions { compression: codec, ..BatchOptions::default() });
    for (at, (key, value)) in work.records.iter().enumerate() {
        builder.append(Timestamp(1_700_000_000_000 + at as i64), Some(key), Some(value), &[]).unwrap();
        if builder.size_bytes() >= BATCH_BYTES {
            take(&builder.finish().unwrap());
        }
    }
    if let Some(batch) = builder.finish() {
        take(&batch);
    }
}

fn log(work: &Work, codec: Compression) -> Vec<u8> {
    let mut log = Vec::new();
    build(work, codec, |batch| log.extend_from_slice(batch));
    log
}

/// The shortest of the passes.
fn best(passes: usize, mut pass: impl FnMut()) -> Duration {
    let mut shortest = Duration::MAX;
    for _ in 0..passes {
        let start = Instant::now();
        pass();
        shortest = shortest.min(start.elapsed());
    }
    shortest
}

fn validate(log: &[u8]) {
    for batch in batches(log) {
        batch.unwrap().validate(&LIMITS).unwrap();
    }
}

fn iterate(log: &[u8], scratch: &mut Vec<u8>) {
    let mut seen = 0usize;
    for batch in batches(log) {
        for record in batch.unwrap().records(scratch, &LIMITS).unwrap() {
            let record = record.unwrap();
            seen += record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len);
        }
    }
    black_box(seen);
}

fn uncompressed(work: &Work, value_bytes: usize) {
    let mut log = log(work, Compression::None);
    let bytes = log.len();
    let mut copy = vec![1u8; bytes];
    let mut scratch = Vec::new();

    let memcpy = best(work.passes, || copy.copy_from_slice(black_box(&log)));
    let crc = best(work.passes, || {
        black_box(crc_fast::crc32_iscsi(black_box(&log)));
    });
    let copy_and_crc = memcpy + crc;
    let encode = best(work.passes, || {
        build(work, Compression::None, |batch| {
            black_box(batch);
        });
    });
    let check = best(work.passes, || validate(black_box(&log)));
    let read = best(work.passes, || iterate(black_box(&log), &mut scratch));
    let patch = best(work.passes, || {
        let mut at = 0;
        while let Some(batch) = log.get_mut(at..).filter(|rest| !rest.is_empty()) {
            patch_assigned(batch, Offset(at as i64), LeaderEpoch(1)).unwrap();
            at += BatchView::parse(batch).unwrap().0.bytes().len();
        }
    });

    let row = |name: &str, time, limit: Option<Duration>| print_row(work, value_bytes, name, bytes, time, limit);
    row("memcpy", memcpy, None);
    row("crc32c", crc, None);
    row("encode (copy + crc)", encode, Some(copy_and_crc));
    row("validate (crc)", check, Some(crc));
    row("iterate (memcpy)", read, Some(memcpy));
    println!("{value_bytes:<8} {:<22} {:>10.1} ns/batch", "patch offset, epoch", {
        let count = batches(&log).count() as f64;
        patch.as_nanos() as f64 / count
    });
}

/// A codec's own speed, on the same bytes in the same pieces, is the limit of building and reading with it.
fn compressed(work: &Work, value_bytes: usize, codec: Compression) {
    let plain = log(work, Compression::None);
    let log = log(work, codec);
    let mut scratch = Vec::new();
    let encode = best(work.passes, || {
        build(work, codec, |batch| {
            black_box(batch);
        });
    });
    let read = best(work.passes, || iterate(black_box(&log), &mut scratch));
    let decompress = best(work.passes, || {
        for batch in batches(&log) {
            black_box(batch.unwrap().records(&mut scratch, &LIMITS).unwrap().bytes_left());
        }
    });
    let row = |name: String, time, limit| print_row(work, value_bytes, &name, plain.len(), time, limit);
    row(format!("{codec} encode"), encode, None);
    row(format!("{codec} decompress"), decompress, None);
    row(format!("{codec} iterate"), read, Some(decompress));
    let batch_count = batches(&plain).count();
    let ratio = (plain.len() - batch_count * HEADER_LEN) as f64 / (log.len() - batch_count * HEADER_LEN) as f64;
    println!("{value_bytes:<8} {:<22} {ratio:>10.2}", format!("{codec} ratio"));
}

fn print_row(work: &Work, value_bytes: usize, name: &str, bytes: usize, time: Duration, limit: Option<Duration>) {
    let seconds = time.as_secs_f64();
    let share = limit.map_or(String::new(), |limit| format!("{:.0} %", 100.0 * limit.as_secs_f64() / seconds));
    println!(
        "{value_bytes:<8} {name:<22} {:>10.0} {share:>9} {:>12.1}",
        bytes as f64 / 1e6 / seconds,
        time.as_nanos() as f64 / work.records.len() as f64
    );
}
