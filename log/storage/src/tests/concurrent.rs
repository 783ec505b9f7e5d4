//! Readers, a writer, a flusher and retention at work on one log at the same time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use logmill_protocol::{Offset, Timestamp};

use super::{Partition, append, small};
use crate::conformance::{batch, offsets};
use crate::{Flusher, LogConfig, PartitionLog, StorageError};

const APPENDS: i64 = 1500;

/// Follows the log to its end; starts again at the log start when retention overtakes it.
fn follow(log: &PartitionLog, seed: i64) -> i64 {
    let (mut next, mut seen) = (Offset(0), 0);
    while next.0 < APPENDS * 3 {
        match log.read(next, 100 + (seed as usize) * 300, log.high_watermark()) {
            Ok(read) => {
                let found = offsets(&read.bytes);
                let first = found.first().copied().unwrap_or(next.0);
                assert!(first <= next.0 && found.iter().copied().eq(first..read.next_offset.0.max(first)));
                seen += found.len() as i64;
                next = read.next_offset;
            }
            Err(StorageError::OffsetOutOfRange { log_start, .. }) => {
                assert!(log_start > next);
                next = log_start;
            }
            Err(error) => panic!("{error:?}"),
        }
    }
    seen
}

#[test]
fn readers_see_whole_batches_whatever_else_goes_on() {
    let config = LogConfig { segment_bytes: 3000, retention: None, retention_bytes: Some(20_000), ..small() };
    let partition = Partition::new(config);
    let log = Arc::new(partition.reopen().0);
    let flusher = Flusher::start().unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..3)
            .map(|seed| {
                scope.spawn({
                    let log = &log;
                    move || follow(log, seed)
                })
            })
            .collect();
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                log.apply_retention(Timestamp(0)).unwrap();
                let _ = log.offset_for_time(Timestamp(log.log_end().0 / 2)).unwrap();
                std::thread::yield_now();
            }
        });
        for i in 0..APPENDS {
            let end = append(&log, batch(i * 3, 3)).last_offset.next();
            log.set_high_watermark(end);
            if i % 50 == 0 {
                assert!(flusher.flush(&log, end).unwrap() >= end);
            }
        }
        assert!(readers.into_iter().all(|reader| reader.join().unwrap() > 0));
        done.store(true, Ordering::Release);
    });
    log.apply_retention(Timestamp(0)).unwrap();
    assert_eq!(log.log_end(), Offset(APPENDS * 3));
    assert!(log.log_start() > Offset(0) && log.size_bytes() < 30_000);
    log.verify().unwrap();
}
