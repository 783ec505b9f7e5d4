//! What takes thousands of transactions to come about, brought about at once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use logmill_protocol::{BatchBuilder, BatchLimits, BatchOptions, ProducerEpoch, batches};

use super::*;
use crate::broker::{Broker, BrokerConfig};
use crate::types::{FetchRequest, Isolation, NewTopic};

fn batch(value: &str) -> Bytes {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    builder.append(Timestamp(1), None, Some(value.as_bytes()), &[]).unwrap();
    builder.finish().unwrap()
}

async fn values(broker: &Broker, partition: &TopicPartition) -> Vec<String> {
    let request = FetchRequest {
        partition: partition.clone(),
        offset: Offset(0),
        max_bytes: 1 << 20,
        isolation: Isolation::ReadCommitted,
    };
    let fetched = broker.fetch(&request).await.unwrap();
    assert!(fetched.aborted.is_empty());
    let mut values = Vec::new();
    for batch in batches(&fetched.batches).map(Result::unwrap).filter(|batch| !batch.header().is_control()) {
        for record in batch.records(&mut Vec::new(), &BatchLimits::STORED).unwrap() {
            values.push(String::from_utf8(record.unwrap().value.unwrap().to_vec()).unwrap());
        }
    }
    values
}

#[tokio::test]
async fn producer_ids_rotate_before_the_epoch_runs_out_and_no_record_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, _) = Broker::open(BrokerConfig::new(dir.path())).await.unwrap();
    let partition = TopicPartition::new("t", 0);
    broker.create_topic(NewTopic { name: "t".into(), partitions: 1, configs: vec![] }).await.unwrap();
    let first = broker.init_producer("id", 60_000).await.unwrap();
    let transactions = broker.transactions();
    let mut record = transactions.state.lock().get("id").unwrap().clone();
    record.epoch = ProducerEpoch(32_764);
    transactions.write(&mut transactions.state.lock(), "id", Some(record)).unwrap();

    let mut session = transactions.session("id").unwrap();
    let (mut written, mut epochs, mut old) = (Vec::new(), Vec::new(), Vec::new());
    for n in 0..5 {
        broker.append(&session, &partition, batch(&format!("{n}a"))).await.unwrap();
        broker.append(&session, &partition, batch(&format!("{n}b"))).await.unwrap();
        written.extend([format!("{n}a"), format!("{n}b")]);
        epochs.push((session.id == first.id, session.epoch.0));
        old.push(session.clone());
        session = broker.end_transaction(&session, true).await.unwrap();
    }
    assert_eq!(epochs, [(true, 32_764), (true, 32_765), (true, 32_766), (false, 0), (false, 1)]);
    let marked = broker.partition_for_test(&partition).log().producer_state(first.id).unwrap();
    assert_eq!(marked.epoch, ProducerEpoch(32_767), "the last epoch fences the id for ever");
    for session in &old {
        let error = broker.append(session, &partition, batch("zombie")).await.unwrap_err();
        assert!(matches!(error, BrokerError::Fenced(_)), "{error}");
    }
    assert_eq!(values(&broker, &partition).await, written);
    drop((transactions, broker));

    let (broker, _) = Broker::open(BrokerConfig::new(dir.path())).await.unwrap();
    assert_eq!(values(&broker, &partition).await, written);
    let again = broker.init_producer("id", 60_000).await.unwrap();
    assert_eq!((again.id, again.epoch.0), (session.id, session.epoch.0 + 1));
    let other = broker.init_producer("other", 60_000).await.unwrap();
    assert!(other.id > again.id, "ids that a dead process held are not handed out again");
}

#[tokio::test]
async fn what_power_loss_made_the_coordinator_forget_is_aborted() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, _) = Broker::open(BrokerConfig::new(dir.path())).await.unwrap();
    let partition = TopicPartition::new("t", 0);
    broker.create_topic(NewTopic { name: "t".into(), partitions: 1, configs: vec![] }).await.unwrap();
    let session = broker.init_producer("id", 60_000).await.unwrap();
    let transactions = broker.transactions();
    let before = transactions.state.lock().get("id").unwrap().clone();
    broker.append(&session, &partition, batch("lost")).await.unwrap();
    // As if the record that opened the transaction had not reached the disk.
    transactions.write(&mut transactions.state.lock(), "id", Some(before)).unwrap();
    drop((transactions, broker));

    let (broker, report) = Broker::open(BrokerConfig::new(dir.path())).await.unwrap();
    assert_eq!(report.transactions_aborted, 1);
    let log = Arc::clone(broker.partition_for_test(&partition).log());
    assert_eq!(log.last_stable_offset(), log.log_end());
    assert_eq!(log.aborted_transactions(Offset(0), log.log_end()).unwrap().len(), 1);
}

#[tokio::test]
async fn a_long_history_of_transactions_is_trimmed_and_open_ones_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, _) = Broker::open(BrokerConfig::new(dir.path())).await.unwrap();
    let partition = TopicPartition::new("t", 0);
    broker
        .create_topic(NewTopic { name: "t".into(), partitions: 1, configs: vec![("retention.ms".into(), "-1".into())] })
        .await
        .unwrap();
    let idle = broker.init_producer("idle", 60_000).await.unwrap();
    let session = broker.init_producer("id", 60_000).await.unwrap();
    let transactions = broker.transactions();
    let record = transactions.state.lock().get("idle").unwrap().clone();
    for _ in 0..10_000 {
        transactions.write(&mut transactions.state.lock(), "idle", Some(record.clone())).unwrap();
    }
    broker.append(&session, &partition, batch("open")).await.unwrap();
    let before = transactions.state.lock().clone();
    broker.apply_retention().await.unwrap();
    assert!(transactions.partitions[0].get().unwrap().log().log_start() > Offset(10_000));
    drop((transactions, broker));
    let (broker, _) = Broker::open(BrokerConfig::new(dir.path())).await.unwrap();
    assert_eq!(*broker.transactions().state.lock(), before);
    let session = broker.end_transaction(&session, true).await.unwrap();
    assert_eq!(session.epoch.0, 1);
    assert_eq!(values(&broker, &partition).await, ["open"]);
    assert_eq!(broker.end_transaction(&idle, true).await.unwrap(), idle);
}
