//! What the broker's tests share: batches of strings, and a reader that follows Kafka's rules.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code, unreachable_pub, missing_docs)]

pub mod client;
pub mod groups;

use std::collections::HashSet;
use std::path::Path;

use bytes::Bytes;
use logmill_broker::{Broker, BrokerConfig, FetchRequest, Isolation, NewTopic, OffsetAt, StartReport, TopicPartition};
use logmill_protocol::{BatchBuilder, BatchLimits, BatchOptions, ProducerId, Timestamp, batches};

pub async fn open(dir: &Path) -> (Broker, StartReport) {
    Broker::open(BrokerConfig::new(dir)).await.unwrap()
}

pub fn tp(topic: &str, partition: i32) -> TopicPartition {
    TopicPartition::new(topic, partition)
}

pub fn topic(name: &str, partitions: i32, configs: &[(&str, &str)]) -> NewTopic {
    let configs = configs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    NewTopic { name: name.to_owned(), partitions, configs }
}

/// A batch of records with these values, one millisecond apart from `at` on.
pub fn batch_at(at: i64, values: &[&str]) -> Bytes {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    for (n, value) in values.iter().enumerate() {
        builder.append(Timestamp(at + n as i64), None, Some(value.as_bytes()), &[]).unwrap();
    }
    builder.finish().unwrap()
}

pub fn batch(values: &[&str]) -> Bytes {
    batch_at(1_000, values)
}

/// All values that a consumer of the isolation sees, from the log start on.
pub async fn read(broker: &Broker, partition: &TopicPartition, isolation: Isolation) -> Vec<String> {
    let mut offset = broker.offset(partition, OffsetAt::Earliest).await.unwrap();
    let mut values = Vec::new();
    loop {
        let request = FetchRequest { partition: partition.clone(), offset, max_bytes: 100, isolation };
        let fetched = broker.fetch(&request).await.unwrap();
        if fetched.batches.is_empty() {
            return values;
        }
        let mut aborted = fetched.aborted.clone();
        let mut dropped: HashSet<ProducerId> = HashSet::new();
        for batch in batches(&fetched.batches) {
            let batch = batch.unwrap();
            let header = batch.header();
            aborted.retain(|(id, first)| {
                let begins = *first <= header.last_offset();
                if begins {
                    dropped.insert(*id);
                }
                !begins
            });
            if header.is_control() {
                dropped.remove(&header.producer_id);
                continue;
            }
            if header.is_transactional() && dropped.contains(&header.producer_id) {
                continue;
            }
            for record in batch.records(&mut Vec::new(), &BatchLimits::STORED).unwrap() {
                let record = record.unwrap();
                if record.offset >= offset {
                    values.push(String::from_utf8(record.value.unwrap().to_vec()).unwrap());
                }
            }
        }
        offset = fetched.next_offset;
    }
}

pub async fn committed(broker: &Broker, partition: &TopicPartition) -> Vec<String> {
    read(broker, partition, Isolation::ReadCommitted).await
}

pub async fn uncommitted(broker: &Broker, partition: &TopicPartition) -> Vec<String> {
    read(broker, partition, Isolation::ReadUncommitted).await
}
