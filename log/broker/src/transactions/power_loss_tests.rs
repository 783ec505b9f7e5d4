//! Power is lost at each step of a transaction's end: of what was not synced, every file keeps an arbitrary part.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::cell::Cell;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

use logmill_protocol::{BatchBuilder, BatchLimits, BatchOptions, batches};
use logmill_storage::{LogConfig, PartitionLog};
use proptest::test_runner::{Config, TestCaseError, TestRunner};

use super::*;
use crate::broker::{Broker, BrokerConfig};
use crate::types::{FetchRequest, Isolation, NewTopic};

/// Where the power fails: after each step, and once the call has returned.
const STEPS: [&str; 6] = [
    "broker::before_prepare",
    "broker::after_prepare",
    "broker::between_markers",
    "broker::after_markers",
    "broker::after_complete",
    "",
];

thread_local! {
    /// Whether the steps fail on this thread.
    pub(super) static FAILS: Cell<bool> = const { Cell::new(false) };
}

fn outputs() -> [TopicPartition; 3] {
    [("a", 0), ("a", 1), ("b", 0)].map(|(topic, partition)| TopicPartition::new(topic, partition))
}

fn input() -> TopicPartition {
    TopicPartition::new("in", 0)
}

async fn write(broker: &Broker, value: &str, offset: i64) -> ProducerSession {
    let member = broker.join_group("g", "worker").await.unwrap();
    let session = broker.init_producer("id", 60_000).await.unwrap();
    for partition in outputs() {
        let mut builder = BatchBuilder::new(BatchOptions::default());
        builder.append(Timestamp(1), None, Some(value.as_bytes()), &[]).unwrap();
        broker.append(&session, &partition, builder.finish().unwrap()).await.unwrap();
    }
    broker.commit_offsets_in_transaction(&session, &member, &[(input(), Offset(offset))]).await.unwrap();
    session
}

/// The committed values of a partition.
async fn values(broker: &Broker, partition: &TopicPartition) -> Vec<String> {
    let (partition, isolation) = (partition.clone(), Isolation::ReadCommitted);
    let request = FetchRequest { partition, offset: Offset(0), max_bytes: 1 << 20, isolation };
    let fetched = broker.fetch(&request).await.unwrap();
    let (mut aborted, mut dropped, mut values) = (fetched.aborted, HashSet::new(), Vec::new());
    for batch in batches(&fetched.batches).map(Result::unwrap) {
        let header = batch.header();
        aborted.retain(|(id, first)| *first > header.base_offset || !dropped.insert(*id));
        if header.is_control() {
            dropped.remove(&header.producer_id);
        } else if !dropped.contains(&header.producer_id) {
            let mut scratch = Vec::new();
            let records = batch.records(&mut scratch, &BatchLimits::STORED).unwrap();
            values.extend(records.map(|r| String::from_utf8(r.unwrap().value.unwrap().to_vec()).unwrap()));
        }
    }
    values
}

/// Drops the broker and of each log everything from somewhere between what is durable and its end.
fn lose_power(broker: Broker, keep: &mut dyn FnMut() -> f64) {
    let mut cuts: Vec<(PathBuf, Offset)> = Vec::new();
    for partition in broker.inner_topics().partitions() {
        let (durable, end) = (partition.log().durable(), partition.log().log_end());
        let kept = (keep() * (end.0 - durable.0 + 1) as f64) as i64;
        cuts.push((partition.log().dir().to_owned(), durable.plus(kept).min(end)));
    }
    drop(broker);
    for (dir, cut) in cuts {
        let (log, _) = PartitionLog::open(&dir, LogConfig::default()).unwrap();
        if cut < log.log_end() {
            log.truncate_to(cut).unwrap();
        }
    }
}

async fn case(dir: &Path, step: &str, commit: bool, keep: &mut dyn FnMut() -> f64) -> Result<(), TestCaseError> {
    let (broker, _) = Broker::open(BrokerConfig::new(dir)).await.unwrap();
    for (name, partitions) in [("a", 2), ("b", 1), ("in", 1)] {
        let configs = vec![("retention.ms".to_owned(), "-1".to_owned())];
        broker.create_topic(NewTopic { name: name.to_owned(), partitions, configs }).await.unwrap();
    }
    let session = write(&broker, "first", 1).await;
    broker.end_transaction(&session, true).await.unwrap();
    let session = write(&broker, "second", 2).await;
    if !step.is_empty() {
        fail::cfg(step, "return").unwrap();
    }
    let ended = broker.end_transaction(&session, commit).await;
    assert_eq!(ended.is_ok(), step.is_empty());
    if !step.is_empty() {
        fail::cfg(step, "off").unwrap();
    }
    lose_power(broker, keep);

    let (broker, _) = Broker::open(BrokerConfig::new(dir)).await.unwrap();
    broker.init_producer("id", 60_000).await.unwrap();
    let happened = commit && step != "broker::before_prepare";
    let expected = if happened { vec!["first", "second"] } else { vec!["first"] };
    for partition in outputs() {
        assert_eq!(values(&broker, &partition).await, expected, "{partition} at `{step}`, commit: {commit}");
        let log = broker.partition_for_test(&partition);
        assert_eq!(log.visible_end(Isolation::ReadCommitted), log.visible_end(Isolation::ReadUncommitted));
    }
    let offsets = broker.committed_offsets("g", &[input()]).await.unwrap();
    assert_eq!(offsets, [(input(), Offset(expected.len() as i64))], "at `{step}`, commit: {commit}");
    Ok(())
}

#[test]
fn a_transaction_ends_one_way_whatever_part_of_the_unsynced_bytes_survives() {
    let scenario = fail::FailScenario::setup();
    FAILS.set(true);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut runner = TestRunner::new(Config { cases: 3, failure_persistence: None, ..Config::default() });
    let kept = proptest::collection::vec(0.0..1.0f64, 32);
    runner
        .run(&kept, |kept| {
            for step in STEPS {
                for commit in [true, false] {
                    let dir = tempfile::tempdir().unwrap();
                    let mut next = kept.iter().cycle().copied();
                    runtime.block_on(case(dir.path(), step, commit, &mut || next.next().unwrap()))?;
                }
            }
            Ok(())
        })
        .unwrap();
    scenario.teardown();
}
