//! Groups: generations, committed offsets, and offsets within transactions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use logmill_broker::{Broker, BrokerError, Membership};
use logmill_protocol::Offset;
use support::{batch, committed, open, topic, tp};

const TIMEOUT_MS: u64 = 60_000;

fn at(partition: i32, offset: i64) -> (logmill_broker::TopicPartition, Offset) {
    (tp("in", partition), Offset(offset))
}

#[tokio::test]
async fn committed_offsets_are_kept_and_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, _) = open(dir.path()).await;
    broker.create_topic(topic("in", 2, &[])).await.unwrap();
    broker.commit_offsets("g", &[at(0, 3), at(1, 4)]).await.unwrap();
    broker.commit_offsets("g", &[at(0, 5)]).await.unwrap();
    broker.commit_offsets("h", &[at(0, 7)]).await.unwrap();
    let error = broker.commit_offsets("g", &[at(0, 9), at(2, 9)]).await.unwrap_err();
    assert!(matches!(error, BrokerError::UnknownPartition { partition: 2, .. }), "{error}");
    drop(broker);
    let (broker, _) = open(dir.path()).await;
    let offsets = broker.committed_offsets("g", &[tp("in", 0), tp("in", 1), tp("in", 2)]).await.unwrap();
    assert_eq!(offsets, [at(0, 5), at(1, 4)]);
    assert!(broker.committed_offsets("nobody", &[tp("in", 0)]).await.unwrap().is_empty());
    assert_eq!(broker.groups().await.unwrap(), ["g", "h"]);
    assert_eq!(broker.group("h").await.unwrap().unwrap().offsets, [at(0, 7)]);
}

#[tokio::test]
async fn generations_go_on_after_a_restart_and_the_members_of_the_dead_process_are_fenced() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, _) = open(dir.path()).await;
    broker.create_topic(topic("in", 1, &[])).await.unwrap();
    let first = broker.join_group("g", "worker").await.unwrap();
    let second = broker.join_group("g", "worker").await.unwrap();
    assert_eq!((first.generation, second.generation), (1, 2));
    let error = broker.commit_offsets_as(&first, &[at(0, 1)]).await.unwrap_err();
    assert_eq!(error.to_string(), "generation 1 of group `g` is not the current one");
    broker.commit_offsets_as(&second, &[at(0, 1)]).await.unwrap();
    drop(broker);

    let (broker, _) = open(dir.path()).await;
    let error = broker.commit_offsets_as(&second, &[at(0, 2)]).await.unwrap_err();
    assert!(matches!(error, BrokerError::IllegalGeneration { generation: 2, .. }), "{error}");
    let third = broker.join_group("g", "worker").await.unwrap();
    assert_eq!(third.generation, 3);
    broker.leave_group(&third).await.unwrap();
    assert!(matches!(broker.leave_group(&third).await, Err(BrokerError::IllegalGeneration { .. })));
    assert!(broker.group("g").await.unwrap().unwrap().members.is_empty());
}

#[tokio::test]
async fn offsets_are_committed_with_the_transaction() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, _) = open(dir.path()).await;
    broker.create_topic(topic("in", 3, &[])).await.unwrap();
    broker.create_topic(topic("out", 1, &[])).await.unwrap();
    let member = broker.join_group("g", "worker").await.unwrap();
    let mut session = broker.init_producer("id", TIMEOUT_MS).await.unwrap();
    let offset = async |broker: &Broker| {
        broker.committed_offsets("g", &[tp("in", 0)]).await.unwrap().first().map(|(_, offset)| offset.0)
    };
    for (n, commit, expected) in [(1, true, Some(1)), (2, false, Some(1)), (3, true, Some(3))] {
        broker.append(&session, &tp("out", 0), batch(&[&n.to_string()])).await.unwrap();
        broker.commit_offsets_in_transaction(&session, &member, &[at(0, n)]).await.unwrap();
        broker.commit_offsets_in_transaction(&session, &member, &[at(1, n), at(2, n)]).await.unwrap();
        let waiting = tokio::spawn({
            let broker = broker.clone();
            async move { broker.committed_offsets("g", &[tp("in", 0)]).await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished(), "an offset is pending");
        session = broker.end_transaction(&session, commit).await.unwrap();
        let found = waiting.await.unwrap().unwrap();
        assert_eq!(found.first().map(|(_, offset)| offset.0), expected);
    }
    assert_eq!(committed(&broker, &tp("out", 0)).await, ["1", "3"]);
    broker.commit_offsets_in_transaction(&session, &member, &[at(0, 9)]).await.unwrap();
    drop(broker);
    let (broker, _) = open(dir.path()).await;
    broker.init_producer("id", TIMEOUT_MS).await.unwrap();
    assert_eq!(offset(&broker).await, Some(3), "what was pending at the crash is aborted");
}

#[tokio::test]
async fn a_worker_of_an_earlier_generation_cannot_commit_in_a_transaction() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, _) = open(dir.path()).await;
    broker.create_topic(topic("in", 1, &[])).await.unwrap();
    let zombie = broker.join_group("g", "worker").await.unwrap();
    let session = broker.init_producer("zombie", TIMEOUT_MS).await.unwrap();
    broker.append(&session, &tp("in", 0), batch(&["zombie"])).await.unwrap();
    let current = broker.join_group("g", "worker").await.unwrap();
    let stranger = Membership { member: "stranger".to_owned(), ..current.clone() };
    for member in [&zombie, &stranger] {
        let error = broker.commit_offsets_in_transaction(&session, member, &[at(0, 5)]).await.unwrap_err();
        assert!(matches!(error, BrokerError::IllegalGeneration { .. }), "{error}");
    }
    broker.end_transaction(&session, false).await.unwrap();
    let session = broker.init_producer("id", TIMEOUT_MS).await.unwrap();
    broker.commit_offsets_in_transaction(&session, &current, &[at(0, 6)]).await.unwrap();
    broker.end_transaction(&session, true).await.unwrap();
    assert_eq!(broker.committed_offsets("g", &[tp("in", 0)]).await.unwrap(), [at(0, 6)]);
    assert!(committed(&broker, &tp("in", 0)).await.is_empty());
}

#[tokio::test]
async fn internal_topics_are_kept_short_without_losing_anything() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, _) = open(dir.path()).await;
    broker.create_topic(topic("in", 10, &[])).await.unwrap();
    let many: Vec<_> = (0..2_000).map(|partition| at(partition % 10, i64::from(partition))).collect();
    for _ in 0..6 {
        broker.commit_offsets("g", &many).await.unwrap();
    }
    broker.commit_offsets("h", &[at(0, 7)]).await.unwrap();
    let member = broker.join_group("g", "worker").await.unwrap();
    let start = async |broker: &Broker| {
        broker.offset(&tp("__consumer_offsets", 0), logmill_broker::OffsetAt::Earliest).await.unwrap().0
    };
    let session = broker.init_producer("id", TIMEOUT_MS).await.unwrap();
    broker.commit_offsets_in_transaction(&session, &member, &[at(3, 1)]).await.unwrap();
    broker.apply_retention().await.unwrap();
    assert_eq!(start(&broker).await, 0, "not while an offset is pending");
    broker.end_transaction(&session, true).await.unwrap();
    broker.apply_retention().await.unwrap();
    assert!(start(&broker).await > 12_000);
    let all: Vec<_> = (0..10).map(|partition| tp("in", partition)).collect();
    let expected = broker.committed_offsets("g", &all).await.unwrap();
    assert_eq!(expected.len(), 10);
    assert_eq!(expected[3], at(3, 1));
    drop(broker);
    let (broker, _) = open(dir.path()).await;
    assert_eq!(broker.committed_offsets("g", &all).await.unwrap(), expected);
    assert_eq!(broker.committed_offsets("h", &all).await.unwrap(), [at(0, 7)]);
    assert_eq!(broker.join_group("g", "worker").await.unwrap().generation, 2);
}
