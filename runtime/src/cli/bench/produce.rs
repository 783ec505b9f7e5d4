//! Appends, each acknowledged once it is durable, beside writing and syncing the same bytes to a plain file.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use logmill_connectors::log::{Isolation, Log, OffsetAt, TopicPartition};
use rustix::fs::FallocateFlags;

use super::records::{Pool, Shape};
use super::report::Report;
use super::{TOPIC, new_log};

pub(super) async fn measure(shape: &Shape, rounds: u32, scratch: &Path) -> anyhow::Result<Report> {
    let pool = Pool::new(shape)?;
    let (records, bytes) = pool.totals();
    let mut report = Report::new(format!(
        "produce {records} records of {} bytes, batches of {} KiB, {} in flight, {} partitions, compression {}",
        shape.value_bytes,
        shape.batch_bytes >> 10,
        shape.in_flight,
        shape.partitions,
        shape.compression
    ));
    let name = format!("pwrite, fdatasync every {} batches", shape.in_flight);
    let limit = report.figure(&name, bytes, records, None);
    let produced = report.figure("produce, acknowledged when durable", bytes, records, Some(limit));
    let mut fastest = Duration::MAX;
    for round in 0..rounds {
        report.took(limit, plain(&pool, shape, bytes, &scratch.join(format!("plain-{round}")))?);
        let dir = scratch.join(format!("log-{round}"));
        let (broker, log) = new_log(&dir, shape.partitions).await?;
        let start = Instant::now();
        let latencies = fill(&*log, &pool, shape).await?;
        let time = start.elapsed();
        report.took(produced, time);
        if time < fastest {
            fastest = time;
            report.note("acknowledged after", percentiles(latencies));
        }
        ensure!(held(&log, shape.partitions).await? == records, "records are missing in the topic");
        drop(log);
        broker.close().await?;
        std::fs::remove_dir_all(&dir).context("could not remove what was written")?;
    }
    Ok(report)
}

/// The limit: as many syncs as a producer with so many batches in flight cannot do without.
fn plain(pool: &Pool, shape: &Shape, bytes: u64, path: &Path) -> anyhow::Result<Duration> {
    let file = File::create(path).with_context(|| format!("could not make `{}`", path.display()))?;
    rustix::fs::fallocate(&file, FallocateFlags::KEEP_SIZE, 0, bytes).context("could not reserve space")?;
    let start = Instant::now();
    let (mut at, mut unsynced) = (0, 0);
    for (batch, _) in pool.appends() {
        file.write_all_at(&batch, at)?;
        at += batch.len() as u64;
        unsynced += 1;
        if unsynced == shape.in_flight {
            file.sync_data()?;
            unsynced = 0;
        }
    }
    file.sync_data()?;
    let time = start.elapsed();
    std::fs::remove_file(path)?;
    Ok(time)
}

/// Appends all batches, to one partition after another; returns how long each took to be acknowledged.
pub(super) async fn fill(log: &dyn Log, pool: &Pool, shape: &Shape) -> anyhow::Result<Vec<Duration>> {
    let places: Vec<_> =
        (0..shape.partitions).map(|partition| TopicPartition { topic: TOPIC.to_owned(), partition }).collect();
    let appends = pool.appends().zip(places.iter().cycle()).map(|((batch, _), place)| async move {
        let start = Instant::now();
        log.produce(place, batch).await?;
        Ok::<_, anyhow::Error>(start.elapsed())
    });
    stream::iter(appends).buffer_unordered(shape.in_flight as usize).try_collect().await
}

/// How many records the topic holds.
async fn held(log: &Arc<dyn Log>, partitions: i32) -> anyhow::Result<u64> {
    let mut held = 0;
    for partition in 0..partitions {
        let place = TopicPartition { topic: TOPIC.to_owned(), partition };
        held += log.offset(&place, OffsetAt::Latest(Isolation::ReadCommitted)).await?.0;
    }
    Ok(u64::try_from(held)?)
}

fn percentiles(mut latencies: Vec<Duration>) -> String {
    latencies.sort_unstable();
    let at = |share: f64| {
        let index = (latencies.len() as f64 * share) as usize;
        let found = latencies.get(index.min(latencies.len().saturating_sub(1))).copied().unwrap_or_default();
        found.as_secs_f64() * 1e3
    };
    format!("p50 {:.2} ms, p99 {:.2} ms, at most {:.2} ms", at(0.5), at(0.99), at(1.0))
}
