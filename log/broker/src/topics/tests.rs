//! What topic configs do, seen from where it cannot be seen on the wire.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use bytes::Bytes;
use logmill_protocol::{BatchBuilder, BatchOptions, Offset, Timestamp};

use crate::error::Refusal;
use crate::types::{ConfigChange, NewTopic, TopicPartition};
use crate::{Broker, BrokerConfig, BrokerError};

fn batch(values: i64, at: i64) -> Bytes {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    for n in 0..values {
        builder.append(Timestamp(at + n), None, Some(b"v"), &[]).unwrap();
    }
    builder.finish().unwrap()
}

fn now() -> i64 {
    chrono::Utc::now().timestamp_millis()
}

async fn broker(configs: &[(&str, &str)]) -> (tempfile::TempDir, Broker, TopicPartition) {
    let dir = tempfile::tempdir().unwrap();
    let (broker, _) = Broker::open(BrokerConfig::new(dir.path())).await.unwrap();
    let configs = configs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    broker.create_topic(NewTopic { name: "t".to_owned(), partitions: 1, configs }).await.unwrap();
    (dir, broker, TopicPartition::new("t", 0))
}

/// Waits until the partition is durable up to `offset`; for ever if it never is.
async fn durable(broker: &Broker, partition: &TopicPartition, offset: i64) {
    let partition = broker.partition_for_test(partition);
    while partition.log().durable() < Offset(offset) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_partition_is_synced_after_so_many_records() {
    let (_dir, broker, t) = broker(&[("flush", "os"), ("flush.messages", "3")]).await;
    let partition = broker.partition_for_test(&t);
    broker.produce(&t, batch(2, now())).await.unwrap();
    assert!(!partition.must_flush());
    assert_eq!(partition.log().durable(), Offset(0), "the page cache is enough for this topic");
    // Now there are enough, and whoever waits for an acknowledgement waits for the disk.
    broker.produce(&t, batch(1, now())).await.unwrap();
    assert_eq!(partition.log().durable(), Offset(3));
    // Nobody waits for it: it is synced all the same.
    partition.append(&mut crate::batches::own(batch(5, now())), Timestamp(now())).unwrap();
    durable(&broker, &t, 8).await;
}

#[tokio::test]
async fn a_partition_is_synced_after_so_much_time() {
    let (_dir, broker, t) = broker(&[("flush", "os"), ("flush.ms", "1")]).await;
    for n in 1..4 {
        broker.produce(&t, batch(1, now())).await.unwrap();
        durable(&broker, &t, n).await;
    }
}

#[tokio::test]
async fn changed_limits_on_syncs_count_from_then_on() {
    let (_dir, broker, t) = broker(&[("flush", "os")]).await;
    broker.produce(&t, batch(1, now())).await.unwrap();
    let partition = broker.partition_for_test(&t);
    assert!(!partition.must_flush());
    let change = ConfigChange::Set("flush.messages".to_owned(), "1".to_owned());
    broker.alter_configs("t", &[change]).await.unwrap();
    assert!(partition.must_flush());
}

#[tokio::test]
async fn timestamps_too_far_from_the_clock_are_refused() {
    let (_dir, broker, t) = broker(&[("message.timestamp.before.max.ms", "100000")]).await;
    let refused = |error: BrokerError| matches!(error, BrokerError::Refused { kind: Refusal::InvalidTimestamp, .. });
    assert!(refused(broker.produce(&t, batch(1, now() + 3_700_000)).await.unwrap_err()), "an hour by default");
    assert!(refused(broker.produce(&t, batch(1, now() - 101_000)).await.unwrap_err()));
    broker.produce(&t, batch(1, now() - 50_000)).await.unwrap();
    broker.produce(&t, batch(1, now() + 3_500_000)).await.unwrap();
    let change = ConfigChange::Set("message.timestamp.type".to_owned(), "LogAppendTime".to_owned());
    broker.alter_configs("t", &[change]).await.unwrap();
    broker.produce(&t, batch(1, 0)).await.expect("the producer's clock does not matter");
}

#[tokio::test]
async fn more_partitions_than_files_can_be_open_are_refused() {
    let (_dir, broker, _) = broker(&[]).await;
    let Some((room, _)) = crate::open_files::segments_at_most() else { return };
    // Each topic has at most so many partitions; only validated, as making them takes long.
    let topics =
        (0..room / 10_000 + 1).map(|n| NewTopic { name: format!("n{n}"), partitions: 10_000, configs: vec![] });
    let results = broker.create_topics(topics.collect(), true).await;
    let refused = results.last().unwrap().as_ref().unwrap_err();
    assert!(matches!(refused, BrokerError::TooManySegments { .. }), "{refused}");
}

#[tokio::test]
async fn batches_are_stored_at_the_level_of_their_topic() {
    let mut sizes = Vec::new();
    for level in ["-100", "19"] {
        let (_dir, broker, t) = broker(&[("compression.type", "zstd"), ("compression.zstd.level", level)]).await;
        broker.produce(&t, batch(5000, now())).await.unwrap();
        sizes.push(broker.partition_for_test(&t).log().size_bytes());
    }
    assert!(sizes[1] < sizes[0], "{sizes:?}");
}
