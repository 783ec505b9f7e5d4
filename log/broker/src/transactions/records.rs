//! The records of `__transaction_state`, in Kafka's own schema (TransactionLogKey/Value version 0).

use std::collections::{BTreeMap, BTreeSet};

use bytes::BufMut;
use logmill_protocol::{ProducerEpoch, ProducerId, Timestamp};

use crate::transactions::state::{Transaction, TxnStatus};
use crate::types::TopicPartition;
use crate::wire::{Fields, WireError, put_count, put_string};

const VERSION: i16 = 0;

/// The key of a transactional id's records.
pub(crate) fn key(transactional_id: &str) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_i16(VERSION);
    put_string(&mut out, transactional_id);
    out
}

/// The value that holds a transaction.
pub(crate) fn value(transaction: &Transaction) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_i16(VERSION);
    out.put_i64(transaction.producer_id.0);
    out.put_i16(transaction.epoch.0);
    out.put_i32(i32::try_from(transaction.timeout_ms).unwrap_or(i32::MAX));
    out.put_i8(status_code(transaction.status));
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for partition in &transaction.partitions {
        topics.entry(&partition.topic).or_default().push(partition.partition);
    }
    put_count(&mut out, topics.len());
    for (topic, partitions) in topics {
        put_string(&mut out, topic);
        put_count(&mut out, partitions.len());
        partitions.into_iter().for_each(|partition| out.put_i32(partition));
    }
    out.put_i64(transaction.updated_at.0);
    out.put_i64(transaction.started_at.0);
    out
}

/// Reads a record; no value is a transactional id that has been forgotten.
pub(crate) fn decode(key: &[u8], value: Option<&[u8]>) -> Result<(String, Option<Transaction>), WireError> {
    let mut key = Fields(key);
    let version = key.i16("version")?;
    if version != VERSION {
        return Err(WireError::Version(version));
    }
    Ok((key.string("transactional id")?, value.map(read_value).transpose()?))
}

fn read_value(value: &[u8]) -> Result<Transaction, WireError> {
    let mut value = Fields(value);
    let version = value.i16("version")?;
    if version != VERSION {
        return Err(WireError::Version(version));
    }
    let producer_id = ProducerId(value.i64("producer id")?);
    let epoch = ProducerEpoch(value.i16("producer epoch")?);
    let timeout_ms = u64::try_from(value.i32("timeout")?).map_err(|_| WireError::Value("timeout"))?;
    let status = status_of(value.i8("status")?)?;
    let mut partitions = BTreeSet::new();
    for _ in 0..value.count("topics")? {
        let topic = value.string("topic")?;
        for _ in 0..value.count("partitions")? {
            partitions.insert(TopicPartition::new(topic.as_str(), value.i32("partition")?));
        }
    }
    let updated_at = Timestamp(value.i64("last update")?);
    let started_at = Timestamp(value.i64("start")?);
    Ok(Transaction { producer_id, epoch, timeout_ms, status, partitions, updated_at, started_at })
}

fn status_code(status: TxnStatus) -> i8 {
    match status {
        TxnStatus::Empty => 0,
        TxnStatus::Ongoing => 1,
        TxnStatus::PrepareCommit => 2,
        TxnStatus::PrepareAbort => 3,
        TxnStatus::CompleteCommit => 4,
        TxnStatus::CompleteAbort => 5,
    }
}

fn status_of(code: i8) -> Result<TxnStatus, WireError> {
    Ok(match code {
        0 => TxnStatus::Empty,
        1 => TxnStatus::Ongoing,
        2 => TxnStatus::PrepareCommit,
        3 => TxnStatus::PrepareAbort,
        4 => TxnStatus::CompleteCommit,
        5 => TxnStatus::CompleteAbort,
        _ => return Err(WireError::Value("status")),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_transaction_is_written_as_kafka_writes_it() {
        let transaction = Transaction {
            producer_id: ProducerId(7),
            epoch: ProducerEpoch(2),
            timeout_ms: 60_000,
            status: TxnStatus::Ongoing,
            partitions: [TopicPartition::new("t", 1), TopicPartition::new("t", 3)].into(),
            updated_at: Timestamp(9),
            started_at: Timestamp(8),
        };
        assert_eq!(key("id"), b"\0\0\0\x02id");
        let expected = [
            &b"\0\0\0\0\0\0\0\0\0\x07\0\x02\0\0\xea\x60\x01"[..],
            b"\0\0\0\x01\0\x01t\0\0\0\x02\0\0\0\x01\0\0\0\x03",
            b"\0\0\0\0\0\0\0\x09\0\0\0\0\0\0\0\x08",
        ]
        .concat();
        assert_eq!(value(&transaction), expected);
    }

    proptest! {
        #[test]
        fn records_survive_the_round_trip(
            id in "[a-z]{1,9}", producer_id in any::<i64>(), epoch in any::<i16>(), timeout_ms in 0..i32::MAX as u64,
            code in 0..6i8, partitions in prop::collection::btree_set(("[a-z]{1,3}", any::<i32>()), 0..5),
            updated_at in any::<i64>(), started_at in any::<i64>(),
        ) {
            let transaction = Transaction {
                producer_id: ProducerId(producer_id),
                epoch: ProducerEpoch(epoch),
                timeout_ms,
                status: status_of(code).unwrap(),
                partitions: partitions.into_iter().map(|(t, p)| TopicPartition::new(t, p)).collect(),
                updated_at: Timestamp(updated_at),
                started_at: Timestamp(started_at),
            };
            let decoded = decode(&key(&id), Some(&value(&transaction))).unwrap();
            prop_assert_eq!(decoded, (id, Some(transaction)));
        }

        #[test]
        fn any_bytes_are_read_or_refused(key in any::<Vec<u8>>(), value in any::<Vec<u8>>()) {
            let _ = decode(&[&[0, 0][..], &key].concat(), Some(&[&[0, 0][..], &value].concat()));
        }
    }
}
