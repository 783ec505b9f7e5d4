//! Records and offsets of partitions, over the wire.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic,
};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchRequest as WireFetch, FetchTopic};
use kafka_protocol::messages::fetch_response::{FetchResponse, PartitionData};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, ProduceRequest, TopicProduceData};
use kafka_protocol::messages::{BrokerId, ListOffsetsResponse};
use logmill_connectors::error::LogError;
use logmill_connectors::log::{FetchRequest, Fetched, Isolation, OffsetAt, TopicPartition};
use logmill_protocol::{BatchView, Offset, ProducerId};

use super::RemoteLog;
use super::cluster::topic_name;
use super::error::of_partition;

/// How long a broker holds a fetch back while there is nothing to read.
const LONG_POLL: Duration = Duration::from_secs(10);
/// How long a produce may take to be durable on all replicas.
const PRODUCE_TIMEOUT_MS: i32 = 30_000;
/// ListOffsets' names for the ends of a partition.
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
/// No broker.
const NO_REPLICA: BrokerId = BrokerId(-1);

const fn level(isolation: Isolation) -> i8 {
    match isolation {
        Isolation::ReadUncommitted => 0,
        Isolation::ReadCommitted => 1,
    }
}

impl RemoteLog {
    pub(super) async fn find_offset(&self, place: &TopicPartition, at: OffsetAt) -> Result<Offset, LogError> {
        let (timestamp, isolation) = match at {
            OffsetAt::Earliest => (EARLIEST, Isolation::ReadUncommitted),
            OffsetAt::Latest(isolation) => (LATEST, isolation),
            OffsetAt::Time(time) => (time.0, Isolation::ReadUncommitted),
        };
        match self.list_offset(place, timestamp, isolation).await? {
            -1 => Ok(Offset(self.list_offset(place, LATEST, isolation).await?)),
            offset => Ok(Offset(offset)),
        }
    }

    async fn list_offset(&self, place: &TopicPartition, timestamp: i64, isolation: Isolation) -> Result<i64, LogError> {
        let partition = ListOffsetsPartition::default().with_partition_index(place.partition).with_timestamp(timestamp);
        let topic = ListOffsetsTopic::default().with_name(topic_name(&place.topic)).with_partitions(vec![partition]);
        let request = ListOffsetsRequest::default()
            .with_replica_id(NO_REPLICA)
            .with_isolation_level(level(isolation))
            .with_topics(vec![topic]);
        let of = |answer: &ListOffsetsResponse| {
            answer.topics.first().and_then(|topic| topic.partitions.first()).map(|p| (p.error_code, p.offset))
        };
        let code = |answer: &ListOffsetsResponse| of(answer).map_or(0, |(code, _)| code);
        let answer = self.cluster.call_leader(place, &request, Duration::ZERO, code).await?;
        match of(&answer) {
            Some((0, offset)) => Ok(offset),
            Some((code, _)) => Err(of_partition(code, place, None)),
            None => Err(silent(place)),
        }
    }

    pub(super) async fn read(&self, request: &FetchRequest) -> Result<Fetched, LogError> {
        let place = &request.partition;
        let max_bytes = i32::try_from(request.max_bytes).unwrap_or(i32::MAX);
        let found = self.fetch_once(place, request.offset, max_bytes, request.isolation, Duration::ZERO).await?;
        let batches = found.records.unwrap_or_default();
        let (whole, next_offset) = whole_batches(&batches, request.offset).map_err(|error| LogError::Storage {
            context: format!("{}-{} has a batch that cannot be read", place.topic, place.partition),
            source: error.into(),
        })?;
        let aborted = found.aborted_transactions.unwrap_or_default();
        let mut aborted: Vec<_> =
            aborted.iter().map(|txn| (ProducerId(txn.producer_id.0), Offset(txn.first_offset))).collect();
        aborted.sort_by_key(|(_, first)| *first);
        Ok(Fetched {
            batches: batches.slice(..whole),
            next_offset,
            aborted,
            high_watermark: Offset(found.high_watermark),
            last_stable_offset: Offset(found.last_stable_offset),
            log_start: Offset(found.log_start_offset),
        })
    }

    /// Waits until there is something past `offset`: the broker holds the fetch back until there is.
    pub(super) async fn wait_past(
        &self,
        place: &TopicPartition,
        offset: Offset,
        isolation: Isolation,
    ) -> Result<(), LogError> {
        loop {
            let found = self.fetch_once(place, offset, 1, isolation, LONG_POLL).await?;
            let end = match isolation {
                Isolation::ReadUncommitted => found.high_watermark,
                Isolation::ReadCommitted => found.last_stable_offset,
            };
            if end > offset.0 {
                return Ok(());
            }
        }
    }

    async fn fetch_once(
        &self,
        place: &TopicPartition,
        offset: Offset,
        max_bytes: i32,
        isolation: Isolation,
        wait: Duration,
    ) -> Result<PartitionData, LogError> {
        let partition = FetchPartition::default()
            .with_partition(place.partition)
            .with_current_leader_epoch(-1)
            .with_fetch_offset(offset.0)
            .with_partition_max_bytes(max_bytes);
        let topic = FetchTopic::default().with_topic(topic_name(&place.topic)).with_partitions(vec![partition]);
        let request = WireFetch::default()
            .with_replica_id(NO_REPLICA)
            .with_max_wait_ms(i32::try_from(wait.as_millis()).unwrap_or(i32::MAX))
            .with_min_bytes(i32::from(!wait.is_zero()))
            .with_max_bytes(max_bytes)
            .with_isolation_level(level(isolation))
            .with_session_epoch(-1)
            .with_topics(vec![topic]);
        let code = |answer: &FetchResponse| {
            let partition = answer.responses.first().and_then(|topic| topic.partitions.first());
            partition.map_or(answer.error_code, |partition| partition.error_code)
        };
        let answer = self.cluster.call_leader(place, &request, wait, code).await?;
        let code = code(&answer);
        if code == ResponseError::OffsetOutOfRange.code() {
            return Err(self.out_of_range(place, offset).await?);
        }
        if code != 0 {
            return Err(of_partition(code, place, None));
        }
        let topic = answer.responses.into_iter().next();
        topic.and_then(|topic| topic.partitions.into_iter().next()).ok_or_else(|| silent(place))
    }

    async fn out_of_range(&self, place: &TopicPartition, offset: Offset) -> Result<LogError, LogError> {
        Ok(LogError::OffsetOutOfRange {
            topic: place.topic.clone(),
            partition: place.partition,
            offset: offset.0,
            log_start: self.list_offset(place, EARLIEST, Isolation::ReadUncommitted).await?,
            log_end: self.list_offset(place, LATEST, Isolation::ReadUncommitted).await?,
        })
    }

    pub(super) async fn write(&self, place: &TopicPartition, batch: Bytes) -> Result<Offset, LogError> {
        let partition = PartitionProduceData::default().with_index(place.partition).with_records(Some(batch));
        let topic =
            TopicProduceData::default().with_name(topic_name(&place.topic)).with_partition_data(vec![partition]);
        let request =
            ProduceRequest::default().with_acks(-1).with_timeout_ms(PRODUCE_TIMEOUT_MS).with_topic_data(vec![topic]);
        let wait = Duration::from_millis(PRODUCE_TIMEOUT_MS.unsigned_abs().into());
        let answer = self.cluster.call_leader(place, &request, wait, |answer| {
            let partition = answer.responses.first().and_then(|topic| topic.partition_responses.first());
            partition.map_or(0, |partition| partition.error_code)
        });
        let answer = answer.await?;
        match answer.responses.first().and_then(|topic| topic.partition_responses.first()) {
            Some(done) if done.error_code == 0 => Ok(Offset(done.base_offset)),
            Some(done) => Err(of_partition(done.error_code, place, done.error_message.as_deref())),
            None => Err(silent(place)),
        }
    }

    pub(super) async fn remove_records(&self, place: &TopicPartition, before: Offset) -> Result<(), LogError> {
        let partition = DeleteRecordsPartition::default().with_partition_index(place.partition).with_offset(before.0);
        let topic = DeleteRecordsTopic::default().with_name(topic_name(&place.topic)).with_partitions(vec![partition]);
        let request = DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(PRODUCE_TIMEOUT_MS);
        let wait = Duration::from_millis(PRODUCE_TIMEOUT_MS.unsigned_abs().into());
        let answer = self.cluster.call_leader(place, &request, wait, |answer| {
            answer.topics.first().and_then(|topic| topic.partitions.first()).map_or(0, |p| p.error_code)
        });
        let answer = answer.await?;
        match answer.topics.first().and_then(|topic| topic.partitions.first()).map(|partition| partition.error_code) {
            Some(0) => Ok(()),
            Some(code) if code == ResponseError::OffsetOutOfRange.code() => {
                Err(self.out_of_range(place, before).await?)
            }
            Some(code) => Err(of_partition(code, place, None)),
            None => Err(silent(place)),
        }
    }
}

/// How many bytes are whole batches (a broker may cut the last one off), and the offset after them.
fn whole_batches(bytes: &[u8], from: Offset) -> Result<(usize, Offset), logmill_protocol::BatchError> {
    let (mut rest, mut next) = (bytes, from);
    while !rest.is_empty() {
        match BatchView::parse(rest) {
            Ok((batch, after)) => {
                next = next.max(batch.header().next_offset());
                rest = after;
            }
            Err(logmill_protocol::BatchError::Truncated { .. }) => break,
            Err(error) => return Err(error),
        }
    }
    Ok((bytes.len() - rest.len(), next))
}

fn silent(place: &TopicPartition) -> LogError {
    LogError::Invalid(format!("the server's answer says nothing of {}-{}", place.topic, place.partition))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use logmill_protocol::{BatchBuilder, BatchOptions, Timestamp};

    use super::*;

    #[test]
    fn a_batch_that_was_cut_off_is_left_for_the_next_fetch() {
        let mut builder = BatchBuilder::new(BatchOptions::default());
        builder.append(Timestamp(1), None, Some(b"one"), &[]).unwrap();
        builder.append(Timestamp(1), None, Some(b"two"), &[]).unwrap();
        let batch = builder.finish().unwrap();
        let check =
            |bytes: &[u8], expected: (usize, Offset)| assert_eq!(whole_batches(bytes, Offset(0)).unwrap(), expected);
        check(&[], (0, Offset(0)));
        check(&batch, (batch.len(), Offset(2)));
        check(&[&batch[..], &batch[..40]].concat(), (batch.len(), Offset(2)));
        check(&batch[..batch.len() - 1], (0, Offset(0)));
        check(&batch[..5], (0, Offset(0)));
        let mut bad = batch.to_vec();
        bad[16] = 0;
        assert!(whole_batches(&bad, Offset(0)).is_err());
    }
}
