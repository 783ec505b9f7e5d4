//! Batches of a few hundred kilobytes that would fill the memory once decompressed: an error for who sent or asks for
//! them, service for the others.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{BrokerId, ListOffsetsRequest, ProduceRequest, TopicName};
use kafka_protocol::protocol::StrBytes;
use logmill_broker::server::{Server, ServerConfig};
use logmill_protocol::{BatchBuilder, BatchLimits, BatchOptions, Compression, Timestamp};

use support::client::{Client, serve};
use support::{batch, open, topic};

/// Three records that together pass what a batch may decompress to.
fn bomb(compression: Compression) -> Bytes {
    let mut builder = BatchBuilder::new(BatchOptions { compression, ..BatchOptions::default() });
    let value = vec![0; BatchLimits::DEFAULT_MAX_DECOMPRESSED_BYTES / 3 + 1];
    for at in 0..3 {
        builder.append(Timestamp(1000 + at), None, Some(&value), &[]).unwrap();
    }
    builder.finish().unwrap()
}

fn name(topic: &str) -> TopicName {
    TopicName(StrBytes::from_string(topic.to_owned()))
}

/// Error and offset of what was appended.
async fn produce(server: &Server, topic: &str, records: Bytes) -> (Option<ResponseError>, i64) {
    let partition = PartitionProduceData::default().with_index(0).with_records(Some(records));
    let data = TopicProduceData::default().with_name(name(topic)).with_partition_data(vec![partition]);
    let request = ProduceRequest::default().with_acks(-1).with_timeout_ms(30_000).with_topic_data(vec![data]);
    let response = Client::connect(server).await.call(12, &request).await;
    let partition = &response.responses[0].partition_responses[0];
    (ResponseError::try_from_code(partition.error_code), partition.base_offset)
}

/// Error and offset of the first record at that time or later.
async fn offset_at(server: &Server, topic: &str, time: i64) -> (Option<ResponseError>, i64) {
    let partition = ListOffsetsPartition::default().with_timestamp(time).with_current_leader_epoch(-1);
    let topic = ListOffsetsTopic::default().with_name(name(topic)).with_partitions(vec![partition]);
    let request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic]);
    let response = Client::connect(server).await.call(7, &request).await;
    let partition = &response.topics[0].partitions[0];
    (ResponseError::try_from_code(partition.error_code), partition.offset)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bombs_that_have_to_be_recompressed_are_refused_while_others_are_served() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, _) = open(dir.path()).await;
    let size = ("max.message.bytes", "20000000");
    broker.create_topic(topic("plain", 1, &[size])).await.unwrap();
    broker.create_topic(topic("packed", 1, &[size, ("compression.type", "uncompressed")])).await.unwrap();
    let server = serve(&broker, ServerConfig::default()).await;
    for codec in [Compression::Gzip, Compression::Zstd] {
        let bytes = bomb(codec);
        let bombs =
            async { tokio::join!(produce(&server, "packed", bytes.clone()), produce(&server, "packed", bytes)) };
        let (refused, served) = tokio::join!(bombs, produce(&server, "plain", batch(&["a"])));
        for (error, offset) in [refused.0, refused.1] {
            assert!(error.is_some_and(|error| !error.is_retriable()), "{codec}: {error:?}, which is sent again");
            assert_eq!(offset, -1, "{codec}");
        }
        assert_eq!(served.0, None, "{codec}");
    }
    assert_eq!(produce(&server, "packed", batch(&["b"])).await, (None, 0), "nothing of them was appended");
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bomb_that_was_stored_hurts_only_who_searches_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, _) = open(dir.path()).await;
    broker.create_topic(topic("t", 1, &[("max.message.bytes", "20000000")])).await.unwrap();
    let server = serve(&broker, ServerConfig::default()).await;
    // Nothing is decompressed on the way in.
    assert_eq!(produce(&server, "t", bomb(Compression::Zstd)).await, (None, 0));
    assert_eq!(produce(&server, "t", support::batch_at(9000, &["a"])).await, (None, 3));
    let (error, offset) = offset_at(&server, "t", 1001).await;
    assert!(error.is_some() && offset == -1, "{error:?} {offset}");
    assert_eq!(offset_at(&server, "t", 5000).await, (None, 3), "behind it");
    assert_eq!(produce(&server, "t", batch(&["b"])).await, (None, 4), "the partition goes on");
    server.shutdown().await;
}
