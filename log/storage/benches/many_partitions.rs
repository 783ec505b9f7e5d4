//! Producers of a thousand partitions, each of which waits for the disk before it sends again (`acks=all`).
//!
//! `cargo bench -p logmill-storage --bench many_partitions` prints acknowledgements a second and how long one took, for
//! some numbers of partitions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use logmill_protocol::{BatchBuilder, BatchOptions, LeaderEpoch, Timestamp};
use logmill_storage::{Flusher, LogConfig, PartitionLog};

const RUN_FOR: Duration = Duration::from_secs(5);
const BATCH_BYTES: usize = 1000;

fn main() {
    println!("{:>10} {:>10} {:>12} {:>12}", "partitions", "acks/s", "median ms", "99 % ms");
    for partitions in [1, 10, 100, 1000] {
        let mut latencies = run(partitions);
        latencies.sort_unstable();
        let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
        let rate = latencies.len() as f64 / RUN_FOR.as_secs_f64();
        println!("{partitions:>10} {rate:>10.0} {:>12.1} {:>12.1}", at(0.5), at(0.99));
    }
}

/// How long each acknowledgement took.
fn run(partitions: usize) -> Vec<Duration> {
    let root = tempfile::tempdir().unwrap();
    let open = |n: usize| {
        let dir = root.path().join("t").join(n.to_string());
        Arc::new(PartitionLog::open(&dir, LogConfig::default()).unwrap().0)
    };
    let logs: Vec<_> = (0..partitions).map(open).collect();
    let mut builder = BatchBuilder::new(BatchOptions::default());
    builder.append(Timestamp(1), None, Some(&[7; BATCH_BYTES]), &[]).unwrap();
    let batch = builder.finish().unwrap().to_vec();
    let flusher = Flusher::start().unwrap();
    let (send, acknowledged) = channel();
    let produce = |n: usize| {
        let (sent, send) = (Instant::now(), send.clone());
        let appended = logs[n].append(&mut batch.clone(), LeaderEpoch(0), Timestamp(1)).unwrap();
        let done = move |result: Result<_, _>| {
            result.unwrap();
            send.send((n, sent.elapsed())).unwrap();
        };
        flusher.request(&logs[n], appended.last_offset.next(), done).unwrap();
    };
    (0..partitions).for_each(produce);
    // The first round creates and grows every file.
    (0..partitions).for_each(|_| produce(acknowledged.recv().unwrap().0));
    let start = Instant::now();
    let mut latencies = Vec::new();
    while start.elapsed() < RUN_FOR {
        let (n, latency) = acknowledged.recv().unwrap();
        latencies.push(latency);
        produce(n);
    }
    acknowledged.iter().take(partitions).for_each(|_| ());
    latencies
}
