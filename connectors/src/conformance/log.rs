//! What every log keeps to, as far as readers, writers and administrators without a transaction can tell.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures::future::join;
use logmill_protocol::{BatchBuilder, BatchLimits, BatchOptions, Offset, Timestamp, batches};

use crate::error::LogError;
use crate::log::{ConfigChange, FetchRequest, Fetched, Isolation, Log, NewTopic, OffsetAt, TopicPartition};

const BOTH: [Isolation; 2] = [Isolation::ReadUncommitted, Isolation::ReadCommitted];

fn place(topic: &str, partition: i32) -> TopicPartition {
    TopicPartition { topic: topic.to_owned(), partition }
}

/// A batch of one record a value, its timestamps counting up from `first`.
fn batch(first: i64, values: &[&str]) -> Bytes {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    for (time, value) in (first..).zip(values) {
        let headers: [(&str, Option<&[u8]>); 2] = [("h", Some(b"1")), ("h", None)];
        builder.append(Timestamp(time), Some(b"k"), Some(value.as_bytes()), &headers).expect("a small record");
    }
    builder.finish().expect("a batch")
}

async fn make(log: &dyn Log, name: &str, partitions: i32) {
    let topic = NewTopic { name: name.to_owned(), partitions, configs: vec![("retention.ms".into(), "-1".into())] };
    log.create_topic(topic).await.expect("a new topic");
}

async fn fetch(log: &dyn Log, place: &TopicPartition, offset: i64, isolation: Isolation) -> Result<Fetched, LogError> {
    log.fetch(&FetchRequest { partition: place.clone(), offset: Offset(offset), max_bytes: 1 << 20, isolation }).await
}

/// Offsets and values, as they were fetched.
fn records(fetched: &Fetched) -> Vec<(i64, String)> {
    let mut found = Vec::new();
    for view in batches(&fetched.batches) {
        let mut scratch = Vec::new();
        let view = view.expect("a whole batch");
        for record in view.records(&mut scratch, &BatchLimits::STORED).expect("records") {
            let record = record.expect("a record");
            assert_eq!(record.key, Some(&b"k"[..]));
            found.push((record.offset.0, String::from_utf8_lossy(record.value.unwrap_or_default()).into_owned()));
        }
    }
    found
}

/// Runs all of it on a log. Topics and groups whose names begin with `conformance` must not be there.
///
/// # Panics
/// At the first thing that a log must not do.
pub async fn check(log: Arc<dyn Log>) {
    topics(&*log).await;
    reads_and_writes(&*log).await;
    waits(&log).await;
    groups(&*log).await;
}

async fn topics(log: &dyn Log) {
    let name = "conformance-topics";
    assert_eq!(log.topic(name).await.expect("an answer"), None);
    make(log, name, 2).await;
    let again = NewTopic { name: name.to_owned(), partitions: 1, configs: Vec::new() };
    assert!(matches!(log.create_topic(again).await, Err(LogError::TopicExists(_))));
    let found = log.topic(name).await.expect("an answer").expect("the topic");
    assert_eq!((found.partitions, found.internal), (2, false));
    assert_eq!(found.configs, [("retention.ms".to_owned(), "-1".to_owned())]);
    assert!(log.topics().await.expect("an answer").contains(&found));

    log.create_partitions(name, 3).await.expect("more partitions");
    let changes = [
        ConfigChange::Reset("retention.ms".to_owned()),
        ConfigChange::Set("segment.bytes".to_owned(), "1048576".to_owned()),
    ];
    log.alter_configs(name, &changes).await.expect("other configs");
    let found = log.topic(name).await.expect("an answer").expect("the topic");
    assert_eq!(found.partitions, 3);
    assert_eq!(found.configs, [("segment.bytes".to_owned(), "1048576".to_owned())]);

    log.delete_topic(name).await.expect("it goes");
    assert_eq!(log.topic(name).await.expect("an answer"), None);
    assert!(matches!(log.delete_topic(name).await, Err(LogError::UnknownTopic(_))));
    let gone = log.offset(&place(name, 0), OffsetAt::Earliest).await;
    assert!(matches!(gone, Err(LogError::UnknownTopic(_) | LogError::UnknownPartition { .. })), "{gone:?}");
}

async fn reads_and_writes(log: &dyn Log) {
    let name = "conformance-records";
    make(log, name, 2).await;
    let at = place(name, 1);
    assert_eq!(log.produce(&at, batch(100, &["a", "b"])).await.expect("a base offset"), Offset(0));
    assert_eq!(log.produce(&at, batch(200, &["c"])).await.expect("a base offset"), Offset(2));
    for isolation in BOTH {
        let all = fetch(log, &at, 0, isolation).await.expect("records");
        let expected = [(0, "a".to_owned()), (1, "b".to_owned()), (2, "c".to_owned())];
        assert_eq!(records(&all), expected);
        assert_eq!((all.next_offset, all.high_watermark, all.last_stable_offset), (Offset(3), Offset(3), Offset(3)));
        assert_eq!(all.log_start, Offset(0));
        // Whole batches, even for an offset in their middle.
        assert_eq!(records(&fetch(log, &at, 1, isolation).await.expect("records")), expected);
        assert_eq!(records(&fetch(log, &at, 2, isolation).await.expect("records")), expected[2..]);
        let end = fetch(log, &at, 3, isolation).await.expect("nothing yet");
        assert!(end.batches.is_empty() && end.next_offset == Offset(3));
        assert_eq!(log.offset(&at, OffsetAt::Latest(isolation)).await.expect("an offset"), Offset(3));
    }
    assert_eq!(log.offset(&at, OffsetAt::Earliest).await.expect("an offset"), Offset(0));
    assert_eq!(log.offset(&at, OffsetAt::Time(Timestamp(200))).await.expect("an offset"), Offset(2));
    assert_eq!(log.offset(&at, OffsetAt::Time(Timestamp(i64::MAX))).await.expect("an offset"), Offset(3));
    assert_eq!(log.offset(&place(name, 0), OffsetAt::Time(Timestamp(0))).await.expect("an offset"), Offset(0));

    let beyond = fetch(log, &at, 9, Isolation::ReadUncommitted).await;
    assert!(
        matches!(beyond, Err(LogError::OffsetOutOfRange { offset: 9, log_start: 0, log_end: 3, .. })),
        "{beyond:?}"
    );
    let missing = log.produce(&place(name, 7), batch(1, &["x"])).await;
    assert!(matches!(missing, Err(LogError::UnknownPartition { partition: 7, .. })), "{missing:?}");
    let missing = log.produce(&place("conformance-none", 0), batch(1, &["x"])).await;
    assert!(matches!(missing, Err(LogError::UnknownTopic(_))), "{missing:?}");

    log.delete_records(&at, Offset(2)).await.expect("it moves");
    assert_eq!(log.offset(&at, OffsetAt::Earliest).await.expect("an offset"), Offset(2));
    let below = fetch(log, &at, 0, Isolation::ReadUncommitted).await;
    assert!(matches!(below, Err(LogError::OffsetOutOfRange { log_start: 2, .. })), "{below:?}");
}

async fn waits(log: &Arc<dyn Log>) {
    let name = "conformance-waits";
    make(&**log, name, 1).await;
    let at = place(name, 0);
    for (round, isolation) in (0..).zip(BOTH) {
        let mut waiting = log.wait(&at, Offset(round), isolation);
        // Begun, and not done: nothing is there.
        assert!(matches!(waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Pending));
        let (waited, produced) = join(waiting, log.produce(&at, batch(1, &["x"]))).await;
        waited.expect("it was woken");
        assert_eq!(produced.expect("a base offset"), Offset(round));
        // What is there already is not waited for, and a wait may be given up.
        log.wait(&at, Offset(round), isolation).await.expect("it is there");
        let mut given_up = log.wait(&at, Offset(round + 1), isolation);
        assert!(matches!(given_up.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Pending));
    }
}

async fn groups(log: &dyn Log) {
    let (name, group) = ("conformance-groups", "conformance");
    make(log, name, 3).await;
    let places: Vec<_> = (0..3).map(|partition| place(name, partition)).collect();
    assert_eq!(log.committed_offsets(group, &places).await.expect("an answer"), []);
    let offsets = [(place(name, 0), Offset(5)), (place(name, 2), Offset(0))];
    log.commit_offsets(group, &offsets).await.expect("they are kept");
    assert_eq!(log.committed_offsets(group, &places).await.expect("an answer"), offsets);
    assert_eq!(log.committed_offsets(group, &places[1..2]).await.expect("an answer"), []);
    log.commit_offsets(group, &[(place(name, 0), Offset(3))]).await.expect("back is a way, too");
    assert_eq!(log.committed_offsets(group, &places[..1]).await.expect("an answer"), [(place(name, 0), Offset(3))]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::memory_log::MemoryLog;

    #[tokio::test]
    async fn a_log_in_memory_is_a_log() {
        check(Arc::new(MemoryLog::default())).await;
    }
}
