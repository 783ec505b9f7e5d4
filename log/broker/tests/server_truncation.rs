//! Power loss takes records that a client has read, and others get their offsets: the client finds out by their leader
//! epoch (KIP-320).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::path::Path;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use kafka_protocol::messages::{
    BrokerId, FetchRequest, MetadataRequest, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use logmill_broker::Broker;
use logmill_broker::server::{Server, ServerConfig};
use logmill_protocol::Offset;
use logmill_storage::{LogConfig, PartitionLog};

use support::client::{Client, serve};
use support::{batch, open, topic, tp};

fn name() -> TopicName {
    TopicName(StrBytes::from_static_str("t"))
}

async fn start(dir: &Path) -> (Broker, Server, Client) {
    let (broker, _) = open(dir).await;
    let server = serve(&broker, ServerConfig::default()).await;
    let client = Client::connect(&server).await;
    (broker, server, client)
}

/// Lets go of the broker without closing it.
async fn crash(broker: Broker, server: Server, client: Client) {
    drop((broker, client));
    server.shutdown().await;
}

/// The leader epoch that clients are told of the partition.
async fn leader_epoch(client: &mut Client) -> i32 {
    let topic = MetadataRequestTopic::default().with_name(Some(name()));
    let response = client.call(7, &MetadataRequest::default().with_topics(Some(vec![topic]))).await;
    response.topics[0].partitions[0].leader_epoch
}

/// Error, epoch and end of an epoch.
async fn end_of(client: &mut Client, current: i32, epoch: i32) -> (i16, i32, i64) {
    let partition = OffsetForLeaderPartition::default().with_current_leader_epoch(current).with_leader_epoch(epoch);
    let topic = OffsetForLeaderTopic::default().with_topic(name()).with_partitions(vec![partition]);
    let request = OffsetForLeaderEpochRequest::default().with_topics(vec![topic]);
    let response: OffsetForLeaderEpochResponse = client.call(4, &request).await;
    let found = &response.topics[0].partitions[0];
    (found.error_code, found.leader_epoch, found.end_offset)
}

async fn fetch(client: &mut Client, offset: i64, current: i32, last_fetched: i32) -> PartitionData {
    let partition = FetchPartition::default()
        .with_fetch_offset(offset)
        .with_partition_max_bytes(1 << 20)
        .with_current_leader_epoch(current)
        .with_last_fetched_epoch(last_fetched);
    let topic = FetchTopic::default().with_topic(name()).with_partitions(vec![partition]);
    let request = FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_bytes(1 << 20)
        .with_session_epoch(-1)
        .with_topics(vec![topic]);
    client.call(12, &request).await.responses[0].partitions[0].clone()
}

/// Power is lost: the partition keeps the records below `kept`.
fn lose(dir: &Path, kept: i64) {
    let topic = std::fs::read_dir(dir.join("topics")).unwrap().map(|entry| entry.unwrap().path());
    let topic = topic.into_iter().find(|path| path.file_name().unwrap().to_string_lossy().starts_with("t-")).unwrap();
    let (log, _) = PartitionLog::open(&topic.join("0"), LogConfig::default()).unwrap();
    log.truncate_to(Offset(kept)).unwrap();
}

#[tokio::test]
async fn a_client_that_read_what_power_loss_took_is_told_where_its_log_ends() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, server, mut client) = start(dir.path()).await;
    broker.create_topic(topic("t", 1, &[])).await.unwrap();
    for n in 0..10 {
        broker.produce(&tp("t", 0), batch(&[&n.to_string()])).await.unwrap();
    }
    assert_eq!(leader_epoch(&mut client).await, 0);
    assert_eq!(fetch(&mut client, 10, 0, 0).await.error_code, 0);
    crash(broker, server, client).await;
    lose(dir.path(), 5);

    let (broker, server, mut client) = start(dir.path()).await;
    assert_eq!(leader_epoch(&mut client).await, 1);
    let fenced = ResponseError::FencedLeaderEpoch.code();
    for _ in 0..2 {
        assert_eq!(fetch(&mut client, 10, 0, -1).await.error_code, fenced);
        assert_eq!(end_of(&mut client, 0, 0).await, (fenced, -1, -1));
        assert_eq!(end_of(&mut client, 1, 0).await, (0, 0, 5));
        let diverging = fetch(&mut client, 10, 1, 0).await.diverging_epoch;
        assert_eq!((diverging.epoch, diverging.end_offset), (0, 5));
        // Other records take the offsets.
        broker.produce(&tp("t", 0), batch(&["x"; 20])).await.unwrap();
    }
    assert_eq!(end_of(&mut client, 1, 1).await, (0, 1, 45));
    let next = fetch(&mut client, 5, 1, 0).await;
    assert_eq!((next.error_code, next.diverging_epoch.epoch), (0, -1));
    assert!(next.records.is_some_and(|records| !records.is_empty()));
    crash(broker, server, client).await;
    // Whatever was written in epoch 1 is lost, which must not make it be used again.
    lose(dir.path(), 5);

    let (broker, server, mut client) = start(dir.path()).await;
    assert_eq!(leader_epoch(&mut client).await, 2);
    broker.produce(&tp("t", 0), batch(&["y"; 50])).await.unwrap();
    assert_eq!(end_of(&mut client, 2, 1).await, (0, 0, 5));
    let open = broker.clone();
    crash(broker, server, client).await;
    open.close().await.unwrap();
    drop(open);

    let (_broker, _server, mut client) = start(dir.path()).await;
    assert_eq!(leader_epoch(&mut client).await, 2, "nothing can be lost by a clean stop");
    assert_eq!(end_of(&mut client, 2, 2).await, (0, 2, 55));
}
