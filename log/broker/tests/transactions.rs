//! Transactions: atomic, isolated, fenced, and timed out.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::sync::Arc;

use logmill_broker::{Broker, BrokerConfig, BrokerError, Isolation, ManualClock, OffsetAt};
use logmill_protocol::{Offset, Timestamp};
use support::{batch, committed, open, topic, tp, uncommitted};

const TIMEOUT_MS: u64 = 60_000;

#[tokio::test]
async fn records_become_visible_together_or_never() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, _) = open(dir.path()).await;
    broker.create_topic(topic("a", 2, &[])).await.unwrap();
    broker.create_topic(topic("b", 1, &[("flush", "os")])).await.unwrap();
    let all = [tp("a", 0), tp("a", 1), tp("b", 0)];
    let mut session = broker.init_producer("id", TIMEOUT_MS).await.unwrap();
    for (round, commit) in [("1", true), ("2", false), ("3", true)] {
        for partition in &all {
            broker.append(&session, partition, batch(&[round])).await.unwrap();
            broker.append(&session, partition, batch(&[round, round])).await.unwrap();
        }
        let before = committed(&broker, &all[0]).await.len();
        assert!(!committed(&broker, &all[1]).await.contains(&round.to_owned()), "not before the end");
        session = broker.end_transaction(&session, commit).await.unwrap();
        assert_eq!(committed(&broker, &all[0]).await.len(), before + if commit { 3 } else { 0 });
    }
    for partition in &all {
        assert_eq!(committed(&broker, partition).await, ["1", "1", "1", "3", "3", "3"]);
        assert_eq!(uncommitted(&broker, partition).await.len(), 9);
    }
    drop(broker);
    let (broker, report) = open(dir.path()).await;
    assert_eq!((report.transactions_completed, report.transactions_aborted), (0, 0));
    for partition in &all {
        assert_eq!(committed(&broker, partition).await, ["1", "1", "1", "3", "3", "3"]);
    }
}

#[tokio::test]
async fn an_idle_producer_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, _) = open(dir.path()).await;
    let session = broker.init_producer("id", TIMEOUT_MS).await.unwrap();
    let state = tp(logmill_broker::TRANSACTIONS_TOPIC, 0);
    let end = async || broker.offset(&state, OffsetAt::Latest(Isolation::ReadUncommitted)).await.unwrap();
    let before = end().await;
    assert_eq!(broker.end_transaction(&session, true).await.unwrap(), session);
    assert_eq!(broker.end_transaction(&session, false).await.unwrap(), session);
    assert_eq!(end().await, before);
}

#[tokio::test]
async fn a_new_producer_fences_the_old_one_and_drops_what_it_left_open() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, _) = open(dir.path()).await;
    broker.create_topic(topic("t", 1, &[])).await.unwrap();
    let old = broker.init_producer("id", TIMEOUT_MS).await.unwrap();
    broker.append(&old, &tp("t", 0), batch(&["old"])).await.unwrap();
    let new = broker.init_producer("id", TIMEOUT_MS).await.unwrap();
    let is_fenced = |error: BrokerError| matches!(error, BrokerError::Fenced(id) if id == "id");
    assert!(is_fenced(broker.append(&old, &tp("t", 0), batch(&["x"])).await.unwrap_err()));
    assert!(is_fenced(broker.end_transaction(&old, true).await.unwrap_err()));
    broker.append(&new, &tp("t", 0), batch(&["new"])).await.unwrap();
    broker.end_transaction(&new, true).await.unwrap();
    assert_eq!(committed(&broker, &tp("t", 0)).await, ["new"]);

    let other = broker.init_producer("other", TIMEOUT_MS).await.unwrap();
    assert_ne!(other.id, new.id, "other transactional ids have other producer ids");
}

#[tokio::test]
async fn a_transaction_left_open_by_a_crash_is_aborted_when_its_producer_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, _) = open(dir.path()).await;
    broker.create_topic(topic("t", 1, &[])).await.unwrap();
    let old = broker.init_producer("id", TIMEOUT_MS).await.unwrap();
    broker.append(&old, &tp("t", 0), batch(&["old"])).await.unwrap();
    broker.produce(&tp("t", 0), batch(&["plain"])).await.unwrap();
    drop(broker);
    let (broker, _) = open(dir.path()).await;
    assert!(committed(&broker, &tp("t", 0)).await.is_empty(), "the open transaction holds the LSO back");
    let new = broker.init_producer("id", TIMEOUT_MS).await.unwrap();
    assert!(new.epoch > old.epoch && new.id == old.id);
    assert_eq!(committed(&broker, &tp("t", 0)).await, ["plain"]);
}

#[tokio::test]
async fn a_transaction_out_of_time_is_aborted_and_its_producer_fenced() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new(Timestamp(1_000_000)));
    let config = BrokerConfig { clock: clock.clone(), ..BrokerConfig::new(dir.path()) };
    let (broker, _) = Broker::open(config).await.unwrap();
    broker.create_topic(topic("t", 1, &[])).await.unwrap();
    assert!(matches!(broker.init_producer("id", 0).await, Err(BrokerError::Invalid(_))));
    assert!(matches!(broker.init_producer("id", 900_001).await, Err(BrokerError::Invalid(_))));
    let session = broker.init_producer("id", TIMEOUT_MS).await.unwrap();
    broker.append(&session, &tp("t", 0), batch(&["late"])).await.unwrap();
    broker.produce(&tp("t", 0), batch(&["plain"])).await.unwrap();
    clock.advance(60_000);
    broker.expire().await.unwrap();
    assert!(committed(&broker, &tp("t", 0)).await.is_empty());
    clock.advance(1);
    broker.expire().await.unwrap();
    assert_eq!(committed(&broker, &tp("t", 0)).await, ["plain"]);
    let error = broker.end_transaction(&session, true).await.unwrap_err();
    assert!(matches!(error, BrokerError::Fenced(_)), "{error}");
    let error = broker.append(&session, &tp("t", 0), batch(&["x"])).await.unwrap_err();
    assert!(matches!(error, BrokerError::Fenced(_)), "{error}");
}

#[tokio::test]
async fn the_broker_looks_at_timeouts_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let config = BrokerConfig { timeout_check_interval_ms: 5, ..BrokerConfig::new(dir.path()) };
    let (broker, _) = Broker::open(config).await.unwrap();
    broker.create_topic(topic("t", 1, &[])).await.unwrap();
    let session = broker.init_producer("id", 1).await.unwrap();
    broker.append(&session, &tp("t", 0), batch(&["late"])).await.unwrap();
    broker.wait(&tp("t", 0), Offset(0), Isolation::ReadCommitted).await.unwrap();
    assert!(committed(&broker, &tp("t", 0)).await.is_empty());
}

#[tokio::test]
async fn an_end_whose_caller_went_away_is_finished_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, _) = open(dir.path()).await;
    broker.create_topic(topic("t", 1, &[])).await.unwrap();
    let session = broker.init_producer("id", TIMEOUT_MS).await.unwrap();
    broker.append(&session, &tp("t", 0), batch(&["a"])).await.unwrap();
    tokio::select! {
        biased;
        _ = broker.end_transaction(&session, true) => panic!("it waits for the disk"),
        () = tokio::task::yield_now() => {}
    }
    broker.wait(&tp("t", 0), Offset(0), Isolation::ReadCommitted).await.unwrap();
    assert_eq!(committed(&broker, &tp("t", 0)).await, ["a"]);
    let next = broker.end_transaction(&session, true).await.unwrap();
    assert_eq!(next.epoch.0, session.epoch.0 + 1);
}

#[tokio::test]
async fn the_topic_of_an_open_transaction_may_be_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, _) = open(dir.path()).await;
    broker.create_topic(topic("a", 1, &[])).await.unwrap();
    broker.create_topic(topic("b", 1, &[])).await.unwrap();
    let session = broker.init_producer("id", TIMEOUT_MS).await.unwrap();
    broker.append(&session, &tp("a", 0), batch(&["a"])).await.unwrap();
    broker.append(&session, &tp("b", 0), batch(&["b"])).await.unwrap();
    broker.delete_topic("a").await.unwrap();
    broker.end_transaction(&session, true).await.unwrap();
    assert_eq!(committed(&broker, &tp("b", 0)).await, ["b"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn producers_side_by_side_do_not_mix() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, _) = open(dir.path()).await;
    broker.create_topic(topic("t", 2, &[])).await.unwrap();
    let mut tasks = Vec::new();
    for producer in 0..4 {
        let broker = broker.clone();
        tasks.push(tokio::spawn(async move {
            let mut session = broker.init_producer(&format!("id{producer}"), TIMEOUT_MS).await.unwrap();
            let mut kept = Vec::new();
            for round in 0..20 {
                let value = format!("{producer}-{round:02}");
                for partition in 0..2 {
                    broker.append(&session, &tp("t", partition), batch(&[&value])).await.unwrap();
                }
                let commit = (round + producer) % 3 != 0;
                session = broker.end_transaction(&session, commit).await.unwrap();
                if commit {
                    kept.push(value);
                }
            }
            kept
        }));
    }
    let mut expected = Vec::new();
    for task in tasks {
        expected.extend(task.await.unwrap());
    }
    expected.sort();
    for partition in 0..2 {
        let mut seen = committed(&broker, &tp("t", partition)).await;
        seen.sort();
        assert_eq!(seen, expected);
    }
    assert_eq!(broker.offset(&tp("t", 0), OffsetAt::Earliest).await.unwrap(), Offset(0));
}
