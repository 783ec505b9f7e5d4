//! What clients are told of partitions that are offline, or have lost records.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::path::PathBuf;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    BrokerId, DescribeTopicPartitionsRequest, FetchRequest, FindCoordinatorRequest, ListOffsetsRequest,
    MetadataRequest, ProduceRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use logmill_broker::server::{Server, ServerConfig};
use logmill_broker::{Broker, OFFSETS_TOPIC};
use logmill_protocol::Offset;
use support::client::{Client, serve};
use support::{batch, open, topic, tp};
use tempfile::TempDir;

const OFFLINE: i16 = 56;
const DAMAGED: i16 = 2;

struct Fixture {
    _dir: TempDir,
    broker: Broker,
    _server: Server,
    client: Client,
}

/// The folder of a partition.
async fn folder(broker: &Broker, dir: &TempDir, name: &str, partition: i32) -> PathBuf {
    let id = broker.topic(name).await.unwrap().unwrap().id;
    dir.path().join(format!("topics/{name}-{id}/{partition}"))
}

/// A server over a topic with two partitions, each of three batches, after `harm` was done to the first one's folder.
async fn start(harm: impl Fn(PathBuf)) -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let (broker, _) = open(dir.path()).await;
    broker.create_topic(topic("t", 2, &[])).await.unwrap();
    for partition in [0, 1] {
        for values in [["a", "b"], ["c", "d"], ["e", "f"]] {
            broker.produce(&tp("t", partition), batch(&values)).await.unwrap();
        }
    }
    let path = folder(&broker, &dir, "t", 0).await;
    broker.close().await.unwrap();
    drop(broker);
    harm(path);
    let (broker, _) = open(dir.path()).await;
    let server = serve(&broker, ServerConfig::default()).await;
    let client = Client::connect(&server).await;
    Fixture { _dir: dir, broker, _server: server, client }
}

fn name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

impl Fixture {
    /// Fetches from both partitions; of each, the error's code and the bytes.
    async fn fetch(&mut self, offsets: [i64; 2]) -> Vec<(i16, Bytes)> {
        let partition = |(index, offset)| {
            FetchPartition::default().with_partition(index).with_fetch_offset(offset).with_partition_max_bytes(1 << 20)
        };
        let partitions = (0..).zip(offsets).map(partition).collect();
        let asked = FetchTopic::default().with_topic(name("t")).with_partitions(partitions);
        let request = FetchRequest::default().with_min_bytes(1).with_max_bytes(1 << 20).with_topics(vec![asked]);
        let response = self.client.call(12, &request).await;
        let mut partitions = response.responses[0].partitions.clone();
        partitions.sort_by_key(|partition| partition.partition_index);
        partitions.into_iter().map(|p| (p.error_code, p.records.unwrap_or_default())).collect()
    }

    async fn produce(&mut self, partition: i32) -> (i16, i64) {
        let data = PartitionProduceData::default().with_index(partition).with_records(Some(batch(&["new"])));
        let data = TopicProduceData::default().with_name(name("t")).with_partition_data(vec![data]);
        let request = ProduceRequest::default().with_acks(-1).with_timeout_ms(30_000).with_topic_data(vec![data]);
        let response = self.client.call(9, &request).await;
        let partition = &response.responses[0].partition_responses[0];
        (partition.error_code, partition.base_offset)
    }
}

#[tokio::test]
async fn an_offline_partition_says_so_and_the_others_are_served() {
    let mut fixture = start(|path| std::fs::remove_dir_all(path).unwrap()).await;
    for version in [1, 5, 12] {
        let asked = MetadataRequestTopic::default().with_name(Some(name("t")));
        let request = MetadataRequest::default().with_topics(Some(vec![asked]));
        let response = fixture.client.call(version, &request).await;
        let (found, node) = (&response.topics[0], response.brokers[0].node_id);
        assert_eq!(found.error_code, 0);
        let [offline, online] = &found.partitions[..] else { panic!("{found:?}") };
        let expected = (ResponseError::LeaderNotAvailable.code(), BrokerId(-1), vec![]);
        assert_eq!((offline.error_code, offline.leader_id, offline.isr_nodes.clone()), expected);
        assert_eq!(offline.offline_replicas, if version >= 5 { vec![node] } else { vec![] });
        assert_eq!((online.error_code, online.leader_id, online.offline_replicas.len()), (0, node, 0));
    }
    let request = DescribeTopicPartitionsRequest::default().with_response_partition_limit(100).with_topics(vec![]);
    let response = fixture.client.call(0, &request).await;
    let described = response.topics.iter().find(|t| t.name == Some(name("t"))).unwrap();
    let codes: Vec<_> = described.partitions.iter().map(|p| (p.error_code, p.leader_id.0 < 0)).collect();
    assert_eq!(codes, [(ResponseError::LeaderNotAvailable.code(), true), (0, false)]);

    assert_eq!(fixture.produce(0).await.0, OFFLINE);
    assert_eq!(fixture.produce(1).await, (0, 6));
    let fetched = fixture.fetch([0, 0]).await;
    assert_eq!((fetched[0].0, fetched[1].0, fetched[1].1.is_empty()), (OFFLINE, 0, false));
    assert_eq!(fixture.fetch([0, 7]).await[0].0, OFFLINE, "also where nothing else is to be told");
    let asked = ListOffsetsPartition::default().with_partition_index(0).with_timestamp(-1);
    let asked = ListOffsetsTopic::default().with_name(name("t")).with_partitions(vec![asked]);
    let response = fixture.client.call(4, &ListOffsetsRequest::default().with_topics(vec![asked])).await;
    assert_eq!(response.topics[0].partitions[0].error_code, OFFLINE);
}

#[tokio::test]
async fn lost_records_are_told_and_those_around_them_are_read() {
    let damage = |path: PathBuf| {
        let path = path.join("00000000000000000000.log");
        let mut bytes = std::fs::read(&path).unwrap();
        let (second, middle) = (bytes.len() / 3, bytes.len() / 2);
        // The length of the second batch, and a record of it.
        bytes[second + 8] ^= 0x40;
        bytes[middle + 20] ^= 1;
        std::fs::write(path, bytes).unwrap();
    };
    let mut fixture = start(damage).await;
    let before = fixture.fetch([0, 6]).await;
    assert_eq!((before[0].0, support_offsets(&before[0].1)), (0, vec![0, 1]));
    for offset in [2, 3] {
        assert_eq!(fixture.fetch([offset, 6]).await[0].0, DAMAGED, "offset {offset}");
    }
    let behind = fixture.fetch([4, 6]).await;
    assert_eq!((behind[0].0, support_offsets(&behind[0].1)), (0, vec![4, 5]));
    assert_eq!(fixture.produce(0).await, (0, 6));
    fixture.broker.repair_topic("t").await.unwrap();
    let bridged = fixture.fetch([2, 6]).await;
    assert_eq!(bridged[0].0, 0);
    assert_eq!(support_offsets(&bridged[0].1), Vec::<i64>::new(), "an empty batch takes the place of what is lost");
}

fn support_offsets(bytes: &[u8]) -> Vec<i64> {
    let mut offsets = Vec::new();
    for batch in logmill_protocol::batches(bytes) {
        let batch = batch.unwrap();
        batch.verify_crc().unwrap();
        let mut scratch = Vec::new();
        let records = batch.records(&mut scratch, &logmill_protocol::BatchLimits::STORED).unwrap();
        offsets.extend(records.map(|record| record.unwrap().offset.0));
    }
    offsets
}

#[tokio::test]
async fn groups_whose_partition_is_offline_are_not_taken_for_new_ones() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, _) = open(dir.path()).await;
    broker.create_topic(topic("t", 1, &[])).await.unwrap();
    broker.produce(&tp("t", 0), batch(&["a"])).await.unwrap();
    broker.commit_offsets("g", &[(tp("t", 0), Offset(1))]).await.unwrap();
    let path = folder(&broker, &dir, OFFSETS_TOPIC, 0).await;
    broker.close().await.unwrap();
    drop(broker);
    let away = dir.path().join("away");
    std::fs::rename(&path, &away).unwrap();
    let (broker, report) = open(dir.path()).await;
    assert_eq!(report.offline[0].partition, tp(OFFSETS_TOPIC, 0));
    broker.produce(&tp("t", 0), batch(&["b"])).await.unwrap();
    broker.committed_offsets("g", &[tp("t", 0)]).await.unwrap_err();
    broker.commit_offsets("g", &[(tp("t", 0), Offset(2))]).await.unwrap_err();
    let server = serve(&broker, ServerConfig::default()).await;
    let mut client = Client::connect(&server).await;
    let request = FindCoordinatorRequest::default().with_key(StrBytes::from_static_str("g"));
    assert_eq!(client.call(3, &request).await.error_code, ResponseError::CoordinatorNotAvailable.code());
    let request = kafka_protocol::messages::OffsetFetchRequest::default()
        .with_group_id(kafka_protocol::messages::GroupId(StrBytes::from_static_str("g")));
    assert_ne!(client.call(7, &request.with_topics(None)).await.error_code, 0);
    drop(client);
    server.shutdown().await;
    broker.close().await.unwrap();
    drop(broker);
    std::fs::rename(&away, &path).unwrap();
    let (broker, report) = open(dir.path()).await;
    assert_eq!(report.offline, []);
    let committed = broker.committed_offsets("g", &[tp("t", 0)]).await.unwrap();
    assert_eq!(committed, [(tp("t", 0), Offset(1))]);
}

#[tokio::test]
async fn a_transaction_that_cannot_end_holds_up_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let clock = std::sync::Arc::new(logmill_broker::ManualClock::new(logmill_protocol::Timestamp(1_000_000)));
    let open = || {
        let clock = clock.clone();
        Broker::open(logmill_broker::BrokerConfig { clock, ..logmill_broker::BrokerConfig::new(dir.path()) })
    };
    let (broker, _) = open().await.unwrap();
    for name in ["t", "u"] {
        broker.create_topic(topic(name, 1, &[])).await.unwrap();
    }
    for (id, place) in [("a", tp("t", 0)), ("b", tp("u", 0))] {
        let session = broker.init_producer(id, 60_000).await.unwrap();
        broker.append(&session, &place, batch(&[id])).await.unwrap();
    }
    let path = folder(&broker, &dir, "t", 0).await;
    broker.close().await.unwrap();
    drop(broker);
    let away = dir.path().join("away");
    std::fs::rename(&path, &away).unwrap();
    let (broker, _) = open().await.unwrap();
    clock.advance(120_000);
    let stable = logmill_broker::OffsetAt::Latest(logmill_broker::Isolation::ReadCommitted);
    assert_eq!(broker.offset(&tp("u", 0), stable).await.unwrap(), Offset(0));
    broker.expire().await.unwrap_err();
    assert_eq!(broker.offset(&tp("u", 0), stable).await.unwrap(), Offset(2), "the record, and the marker behind it");
    std::fs::rename(&away, &path).unwrap();
    broker.expire().await.unwrap();
    assert_eq!(broker.offset(&tp("t", 0), stable).await.unwrap(), Offset(2), "it is ended once it can be");
}
