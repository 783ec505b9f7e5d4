//! Where partitions begin, end and hold a time, over the wire: ListOffsets, OffsetForLeaderEpoch and DeleteRecords.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use kafka_protocol::messages::{
    BrokerId, DeleteRecordsRequest, ListOffsetsRequest, OffsetForLeaderEpochRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use logmill_broker::server::{Server, ServerConfig};
use logmill_broker::{Broker, OFFSETS_TOPIC};
use tempfile::TempDir;

use support::client::{Client, serve};
use support::{batch_at, open, topic, tp};

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;

struct Fixture {
    _dir: TempDir,
    broker: Broker,
    server: Server,
    client: Client,
}

/// A topic `t` with records stamped 1000, 1001, 1002, 5000, 2000, 2001 in its first partition.
async fn start() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let (broker, _) = open(dir.path()).await;
    broker.create_topic(topic("t", 2, &[])).await.unwrap();
    for (at, values) in [(1000, &["a", "b", "c"][..]), (5000, &["d"]), (2000, &["e", "f"])] {
        broker.produce(&tp("t", 0), batch_at(at, values)).await.unwrap();
    }
    let server = serve(&broker, ServerConfig::default()).await;
    let client = Client::connect(&server).await;
    Fixture { _dir: dir, broker, server, client }
}

fn name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

fn asks(topic: &str, partition: i32, time: i64, epoch: i32) -> ListOffsetsRequest {
    let partition = ListOffsetsPartition::default()
        .with_partition_index(partition)
        .with_timestamp(time)
        .with_current_leader_epoch(epoch);
    let topic = ListOffsetsTopic::default().with_name(name(topic)).with_partitions(vec![partition]);
    ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic])
}

/// Error, offset, timestamp and leader epoch of the first partition of the answer.
async fn list(client: &mut Client, version: i16, request: &ListOffsetsRequest) -> (i16, i64, i64, i32) {
    let response = client.call(version, request).await;
    let found = &response.topics[0].partitions[0];
    (found.error_code, found.offset, found.timestamp, found.leader_epoch)
}

#[tokio::test]
async fn places_are_found_in_every_version() {
    let mut fixture = start().await;
    for version in 1..=10 {
        let epoch = if version >= 4 { 0 } else { -1 };
        let none = ResponseError::UnsupportedVersion.code();
        let since = |first: i16, expected| if version >= first { expected } else { (none, -1, -1, -1) };
        let cases = [
            (0, EARLIEST, (0, 0, -1, epoch)),
            (0, LATEST, (0, 6, -1, epoch)),
            (0, 0, (0, 0, 1000, epoch)),
            (0, 1001, (0, 1, 1001, epoch)),
            (0, 1003, (0, 3, 5000, epoch)),
            (0, 5001, (0, -1, -1, -1)),
            (0, MAX_TIMESTAMP, since(7, (0, 3, 5000, epoch))),
            (0, EARLIEST_LOCAL, since(8, (0, 0, -1, epoch))),
            (0, LATEST_TIERED, since(9, (0, -1, -1, -1))),
            (0, -6, (none, -1, -1, -1)),
            (1, EARLIEST, (0, 0, -1, -1)),
            (1, LATEST, (0, 0, -1, epoch)),
            (1, 0, (0, -1, -1, -1)),
            (1, MAX_TIMESTAMP, since(7, (0, -1, -1, -1))),
        ];
        for (partition, time, expected) in cases {
            let found = list(&mut fixture.client, version, &asks("t", partition, time, -1)).await;
            assert_eq!(found, expected, "version {version}, partition {partition}, time {time}");
        }
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_question_is_told() {
    let mut fixture = start().await;
    let mut check = async |request: ListOffsetsRequest, expected: ResponseError| {
        let found = list(&mut fixture.client, 10, &request).await;
        assert_eq!(found, (expected.code(), -1, -1, -1), "{request:?}");
    };
    check(asks("none", 0, LATEST, -1), ResponseError::UnknownTopicOrPartition).await;
    check(asks("t", 2, 1000, -1), ResponseError::UnknownTopicOrPartition).await;
    check(asks("t", -1, LATEST, -1), ResponseError::UnknownTopicOrPartition).await;
    check(asks("t", 0, LATEST, 1), ResponseError::UnknownLeaderEpoch).await;
    check(asks("t", 0, LATEST, -2), ResponseError::FencedLeaderEpoch).await;
    let mut twice = asks("t", 0, LATEST, -1);
    let again = twice.topics[0].partitions[0].clone();
    twice.topics[0].partitions.push(again);
    check(twice, ResponseError::InvalidRequest).await;
}

#[tokio::test]
async fn read_committed_sees_no_further_than_the_last_stable_offset() {
    let mut fixture = start().await;
    let producer = fixture.broker.init_producer("p", 60_000).await.unwrap();
    fixture.broker.append(&producer, &tp("t", 0), batch_at(9000, &["open"])).await.unwrap();
    let committed = |time| asks("t", 0, time, -1).with_isolation_level(1);
    assert_eq!(list(&mut fixture.client, 10, &committed(LATEST)).await, (0, 6, -1, 0));
    assert_eq!(list(&mut fixture.client, 10, &asks("t", 0, LATEST, -1)).await, (0, 7, -1, 0));
    assert_eq!(list(&mut fixture.client, 10, &committed(9000)).await, (0, -1, -1, -1));
    assert_eq!(list(&mut fixture.client, 10, &asks("t", 0, 9000, -1)).await, (0, 6, 9000, 0));
}

#[tokio::test]
async fn leader_epochs_end_with_the_log() {
    let mut fixture = start().await;
    for version in 2..=4 {
        for (topic, partition, current, epoch, expected) in [
            ("t", 0, -1, 0, (0, 0, 6)),
            ("t", 0, 0, 0, (0, 0, 6)),
            ("t", 1, 0, 0, (0, 0, 0)),
            ("t", 0, -1, 3, (0, -1, -1)),
            ("t", 0, 3, 0, (ResponseError::UnknownLeaderEpoch.code(), -1, -1)),
            ("t", 9, -1, 0, (ResponseError::UnknownTopicOrPartition.code(), -1, -1)),
            ("none", 0, -1, 0, (ResponseError::UnknownTopicOrPartition.code(), -1, -1)),
        ] {
            let partition = OffsetForLeaderPartition::default()
                .with_partition(partition)
                .with_current_leader_epoch(current)
                .with_leader_epoch(epoch);
            let topic = OffsetForLeaderTopic::default().with_topic(name(topic)).with_partitions(vec![partition]);
            let request = OffsetForLeaderEpochRequest::default().with_topics(vec![topic]);
            let response = fixture.client.call(version, &request);
            let found = response.await.topics[0].partitions[0].clone();
            assert_eq!((found.error_code, found.leader_epoch, found.end_offset), expected, "version {version}");
        }
    }
}

#[tokio::test]
async fn records_are_deleted_up_to_an_offset() {
    let fixture = start().await;
    let mut deleting = fixture.client;
    let mut listing = Client::connect(&fixture.server).await;
    let mut check = async |version, topic: &str, partition, offset, expected: (Option<ResponseError>, i64)| {
        let asked = DeleteRecordsPartition::default().with_partition_index(partition).with_offset(offset);
        let asked = DeleteRecordsTopic::default().with_name(name(topic)).with_partitions(vec![asked]);
        let request = DeleteRecordsRequest::default().with_topics(vec![asked]).with_timeout_ms(1000);
        let response = deleting.call(version, &request).await;
        let deleted = &response.topics[0].partitions[0];
        let code = expected.0.map_or(0, |error| error.code());
        assert_eq!((deleted.error_code, deleted.low_watermark), (code, expected.1), "{topic}-{partition} to {offset}");
    };
    check(0, "t", 0, 2, (None, 2)).await;
    check(1, "t", 0, 1, (None, 2)).await;
    check(2, "t", 0, 7, (Some(ResponseError::OffsetOutOfRange), -1)).await;
    check(2, "t", 0, -2, (Some(ResponseError::OffsetOutOfRange), -1)).await;
    check(2, "t", 5, 0, (Some(ResponseError::UnknownTopicOrPartition), -1)).await;
    check(2, "none", 0, 0, (Some(ResponseError::UnknownTopicOrPartition), -1)).await;
    check(2, OFFSETS_TOPIC, 0, 0, (Some(ResponseError::InvalidTopicException), -1)).await;
    // In the middle of a batch, whose newest record is not among the deleted ones.
    check(2, "t", 0, 5, (None, 5)).await;
    assert_eq!(list(&mut listing, 10, &asks("t", 0, MAX_TIMESTAMP, -1)).await, (0, 5, 2001, 0));
    assert_eq!(list(&mut listing, 10, &asks("t", 0, 0, -1)).await, (0, 5, 2001, 0));
    check(2, "t", 0, -1, (None, 6)).await;
    assert_eq!(list(&mut listing, 10, &asks("t", 0, MAX_TIMESTAMP, -1)).await, (0, -1, -1, -1));
    assert_eq!(list(&mut listing, 10, &asks("t", 0, EARLIEST, -1)).await, (0, 6, -1, 0));
}
