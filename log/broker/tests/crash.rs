//! The process dies at each step of a transaction's end: it ends one way everywhere.
#![cfg(feature = "failpoints")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use logmill_broker::{Broker, BrokerError};
use logmill_protocol::Offset;
use support::{batch, committed, open, topic, tp};

const TIMEOUT_MS: u64 = 60_000;
/// The steps, and whether a commit that dies there has happened.
const STEPS: [(&str, bool); 5] = [
    ("broker::before_prepare", false),
    ("broker::after_prepare", true),
    ("broker::between_markers", true),
    ("broker::after_markers", true),
    ("broker::after_complete", true),
];

/// Everything that the transaction wrote, as a reader finds it.
async fn seen(broker: &Broker) -> (Vec<Vec<String>>, Option<Offset>) {
    let records = seen_records(broker).await;
    let offsets = broker.committed_offsets("g", &[tp("in", 0)]).await.unwrap();
    (records, offsets.first().map(|(_, offset)| *offset))
}

async fn write(broker: &Broker, value: &str, offset: i64) -> logmill_broker::ProducerSession {
    let member = broker.join_group("g", "worker").await.unwrap();
    let session = broker.init_producer("id", TIMEOUT_MS).await.unwrap();
    for partition in [tp("a", 0), tp("a", 1), tp("b", 0)] {
        broker.append(&session, &partition, batch(&[value])).await.unwrap();
    }
    let offsets = [(tp("in", 0), Offset(offset))];
    broker.commit_offsets_in_transaction(&session, &member, &offsets).await.unwrap();
    session
}

fn all(values: &[&str]) -> Vec<Vec<String>> {
    vec![values.iter().map(|value| (*value).to_owned()).collect(); 3]
}

#[tokio::test]
async fn a_transaction_ends_one_way_wherever_the_process_dies() {
    let scenario = fail::FailScenario::setup();
    for commit in [true, false] {
        for (step, happened) in STEPS {
            let dir = tempfile::tempdir().unwrap();
            let (broker, _) = open(dir.path()).await;
            broker.create_topic(topic("a", 2, &[])).await.unwrap();
            broker.create_topic(topic("b", 1, &[])).await.unwrap();
            broker.create_topic(topic("in", 1, &[])).await.unwrap();
            let session = write(&broker, "first", 1).await;
            broker.end_transaction(&session, true).await.unwrap();
            let session = write(&broker, "second", 2).await;
            fail::cfg(step, "return").unwrap();
            let error = broker.end_transaction(&session, commit).await.unwrap_err();
            assert!(matches!(error, BrokerError::Closed));
            fail::cfg(step, "off").unwrap();
            drop(broker);

            let (broker, report) = open(dir.path()).await;
            let is_decided = step != "broker::before_prepare" && step != "broker::after_complete";
            assert_eq!(report.transactions_completed, usize::from(is_decided), "{step}");
            if !happened {
                assert_eq!(seen_records(&broker).await, all(&["first"]), "{step}: open until its producer is back");
            }
            let session = broker.init_producer("id", TIMEOUT_MS).await.unwrap();
            let expected = if commit && happened { vec!["first", "second"] } else { vec!["first"] };
            let offset = Some(Offset(expected.len() as i64));
            assert_eq!(seen(&broker).await, (all(&expected), offset), "{step}, commit: {commit}");

            let again = [&expected[..], &["third"]].concat();
            broker.end_transaction(&session, true).await.unwrap();
            let session = write(&broker, "third", 3).await;
            broker.end_transaction(&session, true).await.unwrap();
            assert_eq!(seen(&broker).await, (all(&again), Some(Offset(3))), "{step}, commit: {commit}");
        }
    }
    scenario.teardown();
}

#[tokio::test]
async fn an_end_that_failed_is_asked_for_again_or_finished_by_the_broker() {
    let scenario = fail::FailScenario::setup();
    for (step, _) in STEPS {
        let dir = tempfile::tempdir().unwrap();
        let (broker, _) = open(dir.path()).await;
        broker.create_topic(topic("a", 2, &[])).await.unwrap();
        broker.create_topic(topic("b", 1, &[])).await.unwrap();
        broker.create_topic(topic("in", 1, &[])).await.unwrap();
        let session = write(&broker, "first", 1).await;
        fail::cfg(step, "1*return->off").unwrap();
        broker.end_transaction(&session, true).await.unwrap_err();
        let next = broker.end_transaction(&session, true).await.unwrap();
        assert_eq!((next.id, next.epoch.0), (session.id, session.epoch.0 + 1), "{step}");
        assert_eq!(seen(&broker).await, (all(&["first"]), Some(Offset(1))), "{step}");

        let session = write(&broker, "second", 2).await;
        fail::cfg(step, "1*return->off").unwrap();
        broker.end_transaction(&session, true).await.unwrap_err();
        if step == "broker::after_complete" {
            let next = broker.end_transaction(&session, true).await.unwrap();
            broker.append(&next, &tp("a", 0), batch(&["dropped"])).await.unwrap();
            broker.end_transaction(&next, false).await.unwrap();
            continue;
        }
        if step != "broker::before_prepare" {
            broker.expire().await.unwrap();
            assert_eq!(seen(&broker).await, (all(&["first", "second"]), Some(Offset(2))), "{step}");
        }
        broker.end_transaction(&session, true).await.unwrap();
        assert_eq!(seen(&broker).await, (all(&["first", "second"]), Some(Offset(2))), "{step}");
    }
    scenario.teardown();
}

async fn seen_records(broker: &Broker) -> Vec<Vec<String>> {
    let mut records = Vec::new();
    for partition in [tp("a", 0), tp("a", 1), tp("b", 0)] {
        records.push(committed(broker, &partition).await);
    }
    records
}

#[tokio::test]
async fn a_full_disk_is_named_and_nothing_is_lost_or_half_done_when_there_is_room_again() {
    let scenario = fail::FailScenario::setup();
    let dir = tempfile::tempdir().unwrap();
    let (broker, _) = open(dir.path()).await;
    broker.create_topic(topic("a", 2, &[])).await.unwrap();
    broker.create_topic(topic("b", 1, &[])).await.unwrap();
    broker.create_topic(topic("in", 1, &[])).await.unwrap();
    let full = |at: usize| fail::cfg("storage::append_write", &format!("{at}*off->return")).unwrap();
    let room = || fail::cfg("storage::append_write", "off").unwrap();
    let is_full = |error: BrokerError| matches!(error, BrokerError::DiskFull(_));

    full(0);
    assert!(is_full(broker.produce(&tp("a", 0), batch(&["x"])).await.unwrap_err()));
    assert!(is_full(broker.create_topic(topic("c", 1, &[])).await.unwrap_err()));
    assert!(is_full(broker.commit_offsets("g", &[(tp("in", 0), Offset(9))]).await.unwrap_err()));
    assert!(is_full(broker.join_group("g", "worker").await.unwrap_err()));
    assert!(is_full(broker.init_producer("id", TIMEOUT_MS).await.unwrap_err()));
    room();
    broker.create_topic(topic("c", 1, &[])).await.unwrap();
    assert!(broker.committed_offsets("g", &[tp("in", 0)]).await.unwrap().is_empty());

    // The disk fills up at each write of a transaction's end in turn: decision, four markers, completion.
    let mut expected = Vec::new();
    for at in 0..6 {
        let value = at.to_string();
        let session = write(&broker, &value, at as i64 + 1).await;
        full(at);
        assert!(is_full(broker.end_transaction(&session, true).await.unwrap_err()), "write {at}");
        room();
        broker.end_transaction(&session, true).await.unwrap();
        expected.push(value.as_str().to_owned());
        let values: Vec<_> = expected.iter().map(String::as_str).collect();
        assert_eq!(seen(&broker).await, (all(&values), Some(Offset(at as i64 + 1))), "write {at}");
    }
    let session = write(&broker, "last", 9).await;
    full(6);
    broker.end_transaction(&session, true).await.unwrap();
    room();
    drop(broker);
    let (broker, _) = open(dir.path()).await;
    expected.push("last".to_owned());
    let values: Vec<_> = expected.iter().map(String::as_str).collect();
    assert_eq!(seen(&broker).await, (all(&values), Some(Offset(9))));
    scenario.teardown();
}
