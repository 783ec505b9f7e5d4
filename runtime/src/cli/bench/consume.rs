//! Reads of a topic, beside reading its segment files.

use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use logmill_connectors::log::{FetchRequest, Isolation, Log, TopicPartition};
use logmill_protocol::{BatchLimits, Offset, batches};

use super::records::{Pool, Shape};
use super::report::Report;
use super::{TOPIC, new_log, produce};

/// So much is read at a time.
const READ_BYTES: usize = 1 << 20;

pub(super) async fn measure(shape: &Shape, rounds: u32, scratch: &Path) -> anyhow::Result<Report> {
    let pool = Pool::new(shape)?;
    let (records, bytes) = pool.totals();
    let dir = scratch.join("log");
    let (broker, log) = new_log(&dir, shape.partitions).await?;
    produce::fill(&*log, &pool, shape).await?;
    drop(pool);
    let segments = segments(&dir.join("topics"))?;
    let mut report = Report::new(format!(
        "consume {records} records of {} bytes, {} partitions, compression {}, {} MiB at a time, from the page cache",
        shape.value_bytes,
        shape.partitions,
        shape.compression,
        READ_BYTES >> 20
    ));
    let limit = report.figure("pread of the segments", bytes, records, None);
    let fetched = report.figure("fetch", bytes, records, Some(limit));
    let walked = report.figure("fetch and look at every record", bytes, records, Some(limit));
    for _ in 0..rounds {
        report.took(limit, plain(&segments)?);
        let (time, _) = read(&*log, shape.partitions, false).await?;
        report.took(fetched, time);
        let (time, seen) = read(&*log, shape.partitions, true).await?;
        report.took(walked, time);
        ensure!(seen == records, "{seen} of {records} records were read");
    }
    drop(log);
    broker.close().await?;
    Ok(report)
}

/// The segment files below a folder; no other topic is there, but for the system's, which holds next to nothing.
fn segments(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| format!("could not read `{}`", folder.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "log") {
                found.push(path);
            }
        }
    }
    Ok(found)
}

fn plain(segments: &[PathBuf]) -> anyhow::Result<Duration> {
    let mut buffer = vec![0; READ_BYTES];
    let start = Instant::now();
    for path in segments {
        let file = File::open(path)?;
        let mut at = 0;
        loop {
            let count = file.read_at(&mut buffer, at)?;
            black_box(&buffer);
            at += count as u64;
            if count == 0 {
                break;
            }
        }
    }
    Ok(start.elapsed())
}

/// Reads all partitions; counts the records if they shall be looked at.
async fn read(log: &dyn Log, partitions: i32, walk: bool) -> anyhow::Result<(Duration, u64)> {
    let (mut seen, mut scratch) = (0, Vec::new());
    let start = Instant::now();
    for partition in 0..partitions {
        let partition = TopicPartition { topic: TOPIC.to_owned(), partition };
        let (offset, isolation) = (Offset(0), Isolation::ReadCommitted);
        let mut request = FetchRequest { partition, offset, max_bytes: READ_BYTES, isolation };
        loop {
            let fetched = log.fetch(&request).await?;
            if fetched.batches.is_empty() {
                break;
            }
            if walk {
                for batch in batches(&fetched.batches) {
                    for record in batch?.records(&mut scratch, &BatchLimits::STORED)? {
                        black_box(record?.value);
                        seen += 1;
                    }
                }
            } else {
                black_box(&fetched.batches);
            }
            request.offset = fetched.next_offset;
        }
    }
    Ok((start.elapsed(), seen))
}
