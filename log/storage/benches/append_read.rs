//! Appends and reads against plain `pwrite` and `pread` of the same bytes, in the same run.
//!
//! `cargo bench -p logmill-storage` prints MB/s and the ratio to the limit. Every figure is the best of several rounds
//! that take turns, so that a busy machine slows all of them alike.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use logmill_protocol::{BatchBuilder, BatchOptions, LeaderEpoch, Offset, Timestamp};
use logmill_storage::{LogConfig, PartitionLog};
use rustix::fs::FallocateFlags;

const ROUNDS: usize = 7;
const CHUNK_BYTES: usize = 1 << 20;
const BATCH_BYTES: usize = 64 << 10;
const TOTAL_BYTES: usize = 256 << 20;

fn main() {
    let chunk = chunk();
    let appends = TOTAL_BYTES / chunk.len();
    let bytes = appends * chunk.len();
    println!("{appends} appends of {} KiB in batches of about {} KiB", chunk.len() >> 10, BATCH_BYTES >> 10);
    let mut best = [f64::MAX; 7];
    for _ in 0..ROUNDS {
        let root = tempfile::tempdir().unwrap();
        let mut note = |row: usize, seconds: f64| best[row] = best[row].min(seconds);
        note(0, pwrite(&root.path().join("fresh"), &chunk, appends, false));
        note(1, pwrite(&root.path().join("reserved"), &chunk, appends, true));
        let log = open(&root.path().join("a").join("0"), bytes as u64, false);
        note(2, append(&log, &chunk, appends));
        drop(log);
        let log = open(&root.path().join("b").join("0"), bytes as u64, true);
        note(3, append(&log, &chunk, appends));
        note(4, pread(&root.path().join("reserved"), chunk.len(), bytes));
        note(5, read(&log, chunk.len()));
        drop(log);
        // Nothing was synced, as after a kill that came before the first sync: all of it is checked.
        let start = Instant::now();
        black_box(open(&root.path().join("b").join("0"), bytes as u64, true).log_end());
        note(6, start.elapsed().as_secs_f64());
    }
    let rows = [
        ("pwrite, fresh file", 0, 0),
        ("append, no preallocation", 2, 0),
        ("pwrite, preallocated file", 1, 1),
        ("append, preallocated", 3, 1),
        ("pread", 4, 4),
        ("read", 5, 4),
        ("open after a kill", 6, 4),
    ];
    println!("{:<28} {:>9} {:>7}", "", "MB/s", "ratio");
    for (name, row, limit) in rows {
        let rate = bytes as f64 / best[row] / 1e6;
        println!("{name:<28} {rate:>9.0} {:>6.0}%", 100.0 * best[limit] / best[row]);
    }
}

/// About `CHUNK_BYTES` of batches, each about `BATCH_BYTES` large.
fn chunk() -> Vec<u8> {
    let value = vec![7; 1000];
    let mut builder = BatchBuilder::new(BatchOptions::default());
    let mut chunk = Vec::with_capacity(CHUNK_BYTES);
    while chunk.len() < CHUNK_BYTES {
        while builder.size_bytes() < BATCH_BYTES - 1100 {
            builder.append(Timestamp(1_700_000_000_000), Some(b"key"), Some(&value), &[]).unwrap();
        }
        chunk.extend_from_slice(&builder.finish().unwrap());
    }
    chunk
}

fn open(dir: &Path, bytes: u64, preallocate: bool) -> PartitionLog {
    // The whole run fits one segment, as the plain files do.
    let config = LogConfig { preallocate, segment_bytes: bytes, ..LogConfig::default() };
    PartitionLog::open(dir, config).unwrap().0
}

fn append(log: &PartitionLog, chunk: &[u8], appends: usize) -> f64 {
    let mut chunk = chunk.to_vec();
    let start = Instant::now();
    for _ in 0..appends {
        log.append(&mut chunk, LeaderEpoch(0), Timestamp(0)).unwrap();
    }
    start.elapsed().as_secs_f64()
}

fn read(log: &PartitionLog, max_bytes: usize) -> f64 {
    let end = log.log_end();
    let start = Instant::now();
    let mut next = Offset(0);
    while next < end {
        let read = log.read(next, max_bytes, end).unwrap();
        next = read.next_offset;
        black_box(&read.bytes);
    }
    start.elapsed().as_secs_f64()
}

fn pwrite(path: &Path, chunk: &[u8], count: usize, preallocate: bool) -> f64 {
    let file = File::create(path).unwrap();
    if preallocate {
        rustix::fs::fallocate(&file, FallocateFlags::KEEP_SIZE, 0, (chunk.len() * count) as u64).unwrap();
    }
    let start = Instant::now();
    for i in 0..count {
        file.write_all_at(chunk, (i * chunk.len()) as u64).unwrap();
    }
    start.elapsed().as_secs_f64()
}

fn pread(path: &Path, chunk_len: usize, bytes: usize) -> f64 {
    let file = File::open(path).unwrap();
    let mut buffer = vec![0; chunk_len];
    let start = Instant::now();
    for i in 0..bytes / chunk_len {
        file.read_exact_at(&mut buffer, (i * chunk_len) as u64).unwrap();
        black_box(&buffer);
    }
    start.elapsed().as_secs_f64()
}
