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

fn batch(value: &str) -> Bytes {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    builder.append(Timestamp(1), None, Some(value.as_bytes()), &[]).unwrap();
    builder.finish().unwrap()
}

async fn create_topics(broker: &Broker) {
    for (name, partitions) in [("a", 2), ("b", 1), ("in", 1)] {
        let configs = vec![("retention.ms".to_owned(), "-1".to_owned())];
        broker.create_topic(NewTopic { name: name.to_owned(), partitions, configs }).await.unwrap();
    }
}

async fn write(broker: &Broker, value: &str, offset: i64) -> ProducerSession {
    let member = broker.join_group("g", "worker").await.unwrap();
    let session = broker.init_producer("id", 60_000).await.unwrap();
    for partition in outputs() {
        broker.append(&session, &partition, batch(value)).await.unwrap();
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
fn lose_power(broker: Broker, keep: &mut dyn FnMut(&TopicPartition) -> f64) {
    let mut cuts: Vec<(PathBuf, Offset)> = Vec::new();
    for partition in broker.inner_topics().partitions() {
        let (durable, end) = (partition.log().durable(), partition.log().log_end());
        let kept = (keep(partition.name()) * (end.0 - durable.0 + 1) as f64) as i64;
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
    create_topics(&broker).await;
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
    lose_power(broker, &mut |_| keep());

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

/// Steps at which power is lost within the end of one of several transactions, and whether a commit has happened then.
const LATE_STEPS: [(&str, Option<bool>); 7] = [
    ("broker::before_prepare", Some(false)),
    ("broker::before_durable", None),
    ("broker::after_prepare", Some(true)),
    ("broker::between_markers", Some(true)),
    ("broker::after_markers", Some(true)),
    ("broker::after_complete", Some(true)),
    // Somewhere between the calls.
    ("", Some(false)),
];
const TRANSACTIONS: i64 = 3;

/// Which part of what was not synced survives.
#[derive(Clone, Copy, Debug)]
enum Loss {
    /// Nothing of the coordinator's log, and everything of the others.
    Coordinator,
    /// The other way round.
    Partitions,
    Random,
}

/// A transaction that writes its number to some outputs, having read the input up to an offset.
struct Sent {
    number: i64,
    written: Vec<TopicPartition>,
    read: Offset,
}

/// What the client knows of its transactions.
#[derive(Default)]
struct Told {
    committed: Vec<Sent>,
    unknown: Option<Sent>,
}

/// Runs several transactions, until the power fails at the `skip`th time that the step is reached. Returns whether it did.
async fn live(
    broker: &Broker,
    rng: &mut fastrand::Rng,
    (step, happens): (&str, Option<bool>),
    skip: usize,
    told: &mut Told,
    number: &mut i64,
) -> bool {
    let member = broker.join_group("g", "worker").await.unwrap();
    let mut session = broker.init_producer("id", 60_000).await.unwrap();
    let mut calls_left = if step.is_empty() { skip } else { usize::MAX };
    if !step.is_empty() {
        fail::cfg(step, &format!("{skip}*off->return")).unwrap();
    }
    for _ in 0..TRANSACTIONS {
        *number += 1;
        let mut written: Vec<_> = outputs().into_iter().filter(|_| rng.u8(..3) > 0).collect();
        if written.is_empty() {
            written.push(outputs()[0].clone());
        }
        for partition in &written {
            if calls_left == 0 {
                return true;
            }
            calls_left -= 1;
            broker.append(&session, partition, batch(&number.to_string())).await.unwrap();
            if rng.bool() {
                // As others that write to the partition have it synced.
                broker.partition_for_test(partition).log().sync().unwrap();
            }
        }
        // Visible, and not synced: as a producer has it that waits for the leader only.
        let appended = broker.partition_for_test(&input()).append(&mut batch("in").to_vec(), Timestamp(1)).unwrap();
        let sent = Sent { number: *number, written, read: appended.last_offset.next() };
        broker.commit_offsets_in_transaction(&session, &member, &[(input(), sent.read)]).await.unwrap();
        if calls_left == 0 {
            return true;
        }
        let commit = rng.u8(..3) > 0;
        match broker.end_transaction(&session, commit).await {
            Ok(next) => {
                session = next;
                told.committed.extend(commit.then_some(sent));
            }
            Err(_) => {
                match happens {
                    Some(happens) => told.committed.extend((commit && happens).then_some(sent)),
                    None => told.unknown = commit.then_some(sent),
                }
                return true;
            }
        }
    }
    false
}

async fn check(broker: &Broker, told: &mut Told, what: &str) {
    broker.init_producer("id", 60_000).await.unwrap();
    if let Some(sent) = told.unknown.take() {
        let first = values(broker, &sent.written[0]).await;
        told.committed.extend(first.contains(&sent.number.to_string()).then_some(sent));
    }
    for partition in outputs() {
        let of_partition = told.committed.iter().filter(|sent| sent.written.contains(&partition));
        let expected: Vec<_> = of_partition.map(|sent| sent.number.to_string()).collect();
        assert_eq!(values(broker, &partition).await, expected, "{partition}, {what}");
        let log = broker.partition_for_test(&partition);
        assert_eq!(log.visible_end(Isolation::ReadCommitted), log.visible_end(Isolation::ReadUncommitted), "{what}");
    }
    let offsets = broker.committed_offsets("g", &[input()]).await.unwrap();
    let read = told.committed.last().map(|sent| sent.read);
    assert_eq!(offsets, read.map(|read| (input(), read)).into_iter().collect::<Vec<_>>(), "{what}");
    let end = broker.partition_for_test(&input()).log().log_end();
    assert!(read.is_none_or(|read| read <= end), "{read:?} was committed, the input ends at {end}, {what}");
}

#[test]
fn of_several_transactions_each_ends_one_way_wherever_power_is_lost() {
    let scenario = fail::FailScenario::setup();
    FAILS.set(true);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for (step, happens) in LATE_STEPS {
        for loss in [Loss::Coordinator, Loss::Partitions, Loss::Random] {
            let dir = tempfile::tempdir().unwrap();
            let mut rng = fastrand::Rng::with_seed(7);
            let (mut told, mut number) = (Told::default(), 0);
            for skip in 0.. {
                let what = format!("{loss:?} at `{step}` after {skip}");
                let died = runtime.block_on(async {
                    let (broker, _) = Broker::open(BrokerConfig::new(dir.path())).await.unwrap();
                    if skip == 0 {
                        create_topics(&broker).await;
                    }
                    let died = live(&broker, &mut rng, (step, happens), skip, &mut told, &mut number).await;
                    if !step.is_empty() {
                        fail::remove(step);
                    }
                    lose_power(broker, &mut |partition| match loss {
                        Loss::Random => rng.f64(),
                        Loss::Coordinator if partition.topic == crate::names::TRANSACTIONS_TOPIC => 0.0,
                        Loss::Partitions if partition.topic != crate::names::TRANSACTIONS_TOPIC => 0.0,
                        _ => 1.0,
                    });
                    let (broker, _) = Broker::open(BrokerConfig::new(dir.path())).await.unwrap();
                    check(&broker, &mut told, &what).await;
                    died
                });
                if !died {
                    assert!(skip > 0, "`{step}` is never reached");
                    break;
                }
            }
        }
    }
    scenario.teardown();
}

#[test]
fn a_decision_that_is_on_its_way_to_the_disk_is_not_trimmed() {
    let scenario = fail::FailScenario::setup();
    FAILS.set(true);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let (broker, _) = Broker::open(BrokerConfig::new(dir.path())).await.unwrap();
        create_topics(&broker).await;
        let transactions = broker.transactions();
        let idle = broker.init_producer("idle", 60_000).await.unwrap();
        let record = transactions.state.lock().get(&idle.transactional_id).unwrap().clone();
        for _ in 0..10_000 {
            transactions.write(&mut transactions.state.lock(), "idle", Some(record.clone())).unwrap();
        }
        let session = write(&broker, "first", 1).await;
        // The decision is appended, and the disk has not confirmed it yet.
        fail::cfg("broker::before_durable", "return").unwrap();
        broker.end_transaction(&session, true).await.unwrap_err();
        fail::remove("broker::before_durable");
        transactions.trim().unwrap();
        assert!(transactions.partitions[0].get().unwrap().log().log_start() > Offset(10_000));
        let error = broker.append(&session, &outputs()[0], batch("late")).await.unwrap_err();
        assert!(matches!(error, BrokerError::Fenced(_)), "{error}");
        let error = broker.end_transaction(&session, false).await.unwrap_err();
        assert!(matches!(error, BrokerError::Invalid(_)), "it is decided: {error}");
        fail::cfg("broker::between_markers", "return").unwrap();
        broker.end_transaction(&session, true).await.unwrap_err();
        fail::remove("broker::between_markers");
        drop((transactions, broker));
        let (broker, report) = Broker::open(BrokerConfig::new(dir.path())).await.unwrap();
        assert_eq!(report.transactions_completed, 1);
        for partition in outputs() {
            assert_eq!(values(&broker, &partition).await, ["first"]);
        }
    });
    scenario.teardown();
}

#[test]
fn offsets_that_are_committed_lie_within_what_survives() {
    let scenario = fail::FailScenario::setup();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let (broker, _) = Broker::open(BrokerConfig::new(dir.path())).await.unwrap();
        create_topics(&broker).await;
        let configs = vec![("flush".to_owned(), "os".to_owned())];
        broker.create_topic(NewTopic { name: "os".to_owned(), partitions: 1, configs }).await.unwrap();
        let sources = [input(), TopicPartition::new("os", 0)];
        let member = broker.join_group("member", "worker").await.unwrap();
        for source in &sources {
            for n in 0..3 {
                broker.partition_for_test(source).append(&mut batch(&n.to_string()).to_vec(), Timestamp(1)).unwrap();
            }
        }
        broker.commit_offsets("g", &sources.clone().map(|source| (source, Offset(2)))).await.unwrap();
        broker.commit_offsets_as(&member, &[(input(), Offset(3))]).await.unwrap();
        // Of which there is nothing yet.
        broker.commit_offsets("beyond", &[(TopicPartition::new("a", 0), Offset(9))]).await.unwrap();
        lose_power(broker, &mut |_| 0.0);

        let (broker, _) = Broker::open(BrokerConfig::new(dir.path())).await.unwrap();
        for group in ["g", "member"] {
            for (source, offset) in broker.committed_offsets(group, &sources).await.unwrap() {
                let end = broker.partition_for_test(&source).log().log_end();
                assert!(offset <= end, "{group} has read {source} up to {offset}, it ends at {end}");
            }
        }
    });
    scenario.teardown();
}

#[test]
fn the_offsets_of_a_deleted_topic_do_not_come_back_for_another_of_its_name() {
    let scenario = fail::FailScenario::setup();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let (broker, _) = Broker::open(BrokerConfig::new(dir.path())).await.unwrap();
        create_topics(&broker).await;
        broker.commit_offsets("g", &[(input(), Offset(7))]).await.unwrap();
        broker.delete_topic("in").await.unwrap();
        let topic = NewTopic { name: "in".to_owned(), partitions: 1, configs: vec![] };
        broker.create_topic(topic).await.unwrap();
        lose_power(broker, &mut |_| 0.0);
        let (broker, _) = Broker::open(BrokerConfig::new(dir.path())).await.unwrap();
        assert_eq!(broker.committed_offsets("g", &[input()]).await.unwrap(), []);
    });
    scenario.teardown();
}
