//! DescribeCluster, DescribeTopicPartitions, DescribeLogDirs and DescribeProducers.

use kafka_protocol::ResponseError::{self, *};
use kafka_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
use kafka_protocol::messages::{
    BrokerId, DescribeClusterRequest, DescribeLogDirsRequest, DescribeProducersRequest, DescribeTopicPartitionsRequest,
    describe_producers_request, describe_topic_partitions_request,
};
use kafka_protocol::protocol::Message;
use logmill_broker::server::ServerConfig;
use uuid::Uuid;

use crate::support::{batch, open, topic, tp};
use crate::{error, is, name, start};

#[tokio::test]
async fn the_cluster_is_this_node() {
    let mut fixture = start(ServerConfig { node_id: 5, rack: Some("r".to_owned()), ..ServerConfig::default() }).await;
    let cluster_id = fixture.broker.cluster_id().to_owned();
    for version in 0..=DescribeClusterRequest::VERSIONS.max {
        let request = DescribeClusterRequest::default().with_include_cluster_authorized_operations(true);
        let response = fixture.client.call(version, &request).await;
        assert_eq!((response.error_code, response.controller_id), (0, BrokerId(5)));
        assert_eq!((response.cluster_id.as_str(), response.cluster_authorized_operations), (&*cluster_id, 8096));
        let broker = &response.brokers[0];
        assert_eq!(
            (broker.broker_id, broker.host.as_str(), broker.rack.as_deref()),
            (BrokerId(5), "127.0.0.1", Some("r"))
        );
        assert_eq!(broker.port, i32::from(fixture.server.local_addrs()[0].port()));
        let response = fixture.client.call(version, &DescribeClusterRequest::default()).await;
        assert_eq!(response.cluster_authorized_operations, i32::MIN);
        if version >= 1 {
            for (kind, expected) in [(2, MismatchedEndpointType), (3, UnsupportedEndpointType)] {
                let response = fixture.client.call(version, &request.clone().with_endpoint_type(kind)).await;
                assert_eq!((error(response.error_code), response.endpoint_type), (Some(expected), kind));
            }
        }
    }
    drop(fixture.client);
    fixture.server.shutdown().await;
    fixture.broker.close().await.unwrap();
    drop(fixture.broker);
    let (broker, _) = open(fixture.dir.path()).await;
    assert_eq!(broker.cluster_id(), cluster_id);
}

#[tokio::test]
async fn topic_partitions_are_described_page_by_page() {
    use describe_topic_partitions_request::{Cursor, TopicRequest};
    let mut fixture = start(ServerConfig::default()).await;
    for (t, partitions) in [("a", 3), ("b", 1), ("c", 2)] {
        fixture.broker.create_topic(topic(t, partitions, &[])).await.unwrap();
    }
    let ask = |topics: &[&str], limit: i32, cursor: Option<Cursor>| {
        DescribeTopicPartitionsRequest::default()
            .with_topics(topics.iter().map(|t| TopicRequest::default().with_name(name(t))).collect())
            .with_response_partition_limit(limit)
            .with_cursor(cursor)
    };
    for limit in 1..8 {
        let (mut seen, mut cursor) = (Vec::new(), None);
        loop {
            let response = fixture.client.call(0, &ask(&["c", "a", "b"], limit, cursor)).await;
            let mut count = 0;
            for topic in &response.topics {
                assert_eq!((topic.error_code, topic.topic_authorized_operations), (0, 3576));
                for partition in &topic.partitions {
                    seen.push(format!("{}-{}", topic.name.as_ref().unwrap().0, partition.partition_index));
                    count += 1;
                }
            }
            assert!(count <= limit);
            match response.next_cursor {
                Some(next) => {
                    let at = Cursor::default().with_topic_name(next.topic_name);
                    cursor = Some(at.with_partition_index(next.partition_index));
                }
                None => break,
            }
        }
        assert_eq!(seen, ["a-0", "a-1", "a-2", "b-0", "c-0", "c-1"]);
    }
    let all = fixture.client.call(0, &ask(&[], 2000, None)).await;
    let found: Vec<_> = all.topics.iter().map(|t| (t.name.as_ref().unwrap().as_str(), t.is_internal)).collect();
    let expected =
        [("__consumer_offsets", true), ("__transaction_state", true), ("a", false), ("b", false), ("c", false)];
    assert_eq!(found, expected);
    assert!(all.topics.iter().all(|topic| topic.topic_id != Uuid::nil()));
    let partition = &all.topics[2].partitions[1];
    assert_eq!((partition.leader_id, &partition.isr_nodes), (BrokerId(1), &vec![BrokerId(1)]));

    let missing = fixture.client.call(0, &ask(&["x", "a", "no/name"], 0, None)).await;
    let found: Vec<_> =
        missing.topics.iter().map(|t| (t.name.as_ref().unwrap().as_str(), error(t.error_code))).collect();
    assert_eq!(found, [("a", None)], "at least one partition");
    let rest = missing.next_cursor.map(|next| (next.topic_name.to_string(), next.partition_index));
    assert_eq!(rest, Some(("a".to_owned(), 1)));
    let missing = fixture.client.call(0, &ask(&["x", "no/name"], 9, None)).await;
    let found: Vec<_> =
        missing.topics.iter().map(|t| (t.name.as_ref().unwrap().as_str(), error(t.error_code))).collect();
    assert_eq!(found, [("no/name", Some(InvalidTopicException)), ("x", Some(UnknownTopicOrPartition))]);
    let negative = Cursor::default().with_topic_name(name("a")).with_partition_index(-1);
    let refused = fixture.client.call(0, &ask(&["a"], 9, Some(negative))).await;
    assert_eq!(error(refused.topics[0].error_code), Some(InvalidRequest));
}

#[tokio::test]
async fn log_dirs_say_what_topics_and_disk_hold() {
    let mut fixture = start(ServerConfig::default()).await;
    fixture.broker.create_topic(topic("t", 2, &[])).await.unwrap();
    let one = batch(&["some value"]);
    fixture.broker.produce(&tp("t", 1), one.clone()).await.unwrap();
    for version in 1..=DescribeLogDirsRequest::VERSIONS.max {
        let response = fixture.client.call(version, &DescribeLogDirsRequest::default().with_topics(None)).await;
        let [dir] = &response.results[..] else { panic!("one folder") };
        assert_eq!((dir.error_code, dir.log_dir.as_str()), (0, fixture.dir.path().to_str().unwrap()));
        assert_eq!(dir.topics.len(), 3);
        let t = &dir.topics[2];
        let sizes: Vec<_> = t.partitions.iter().map(|p| (p.partition_index, p.partition_size, p.offset_lag)).collect();
        assert_eq!((t.name.as_str(), sizes), ("t", vec![(0, 0, 0), (1, one.len() as i64, 0)]));
        match version >= 4 {
            true => assert!(dir.total_bytes >= dir.usable_bytes && dir.usable_bytes > 0),
            false => assert_eq!((dir.total_bytes, dir.usable_bytes), (-1, -1)),
        }
        let asked = |t: &str, partitions: &[i32]| {
            DescribableLogDirTopic::default().with_topic(name(t)).with_partitions(partitions.to_vec())
        };
        let request = vec![asked("t", &[1, 9, -1, 1]), asked("x", &[0])];
        let response =
            fixture.client.call(version, &DescribeLogDirsRequest::default().with_topics(Some(request))).await;
        let topics = &response.results[0].topics;
        assert_eq!(topics.len(), 1);
        assert_eq!(topics[0].partitions.iter().map(|p| p.partition_index).collect::<Vec<_>>(), [1]);
    }
}

#[tokio::test]
async fn producers_and_their_transactions_are_described() {
    use describe_producers_request::TopicRequest;
    let mut fixture = start(ServerConfig::default()).await;
    fixture.broker.create_topic(topic("t", 2, &[])).await.unwrap();
    let session = fixture.broker.init_producer("id", 60_000).await.unwrap();
    fixture.broker.append(&session, &tp("t", 1), batch(&["a", "b"])).await.unwrap();
    let topics = [("t", vec![0, 1, 7]), ("x", vec![0])];
    let topics =
        topics.map(|(t, partitions)| TopicRequest::default().with_name(name(t)).with_partition_indexes(partitions));
    let request = DescribeProducersRequest::default().with_topics(topics.to_vec());
    let response = fixture.client.call(0, &request).await;
    let [idle, busy, none] = &response.topics[0].partitions[..] else { panic!("three partitions") };
    assert_eq!((idle.error_code, idle.active_producers.len()), (0, 0));
    let [producer] = &busy.active_producers[..] else { panic!("one producer") };
    assert_eq!((producer.producer_id.0, producer.producer_epoch), (session.id.0, i32::from(session.epoch.0)));
    assert_eq!((producer.last_sequence, producer.current_txn_start_offset), (1, 0));
    for missing in [none, &response.topics[1].partitions[0]] {
        assert!(is(missing.error_code, ResponseError::UnknownTopicOrPartition));
        assert!(missing.error_message.is_some());
    }
    fixture.broker.end_transaction(&session, true).await.unwrap();
    let response = fixture.client.call(0, &request).await;
    assert_eq!(response.topics[0].partitions[1].active_producers[0].current_txn_start_offset, -1);
}
