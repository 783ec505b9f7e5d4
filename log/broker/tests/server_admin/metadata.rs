//! Metadata: what there is, by name and by id, and topics that are made because they are asked for.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{BrokerId, MetadataRequest, TopicName};
use kafka_protocol::protocol::Message;
use logmill_broker::server::ServerConfig;
use tokio::io::AsyncWriteExt as _;
use uuid::Uuid;

use crate::support::topic;
use crate::{by_name, error, is, name, names, start};

#[tokio::test]
async fn metadata_tells_the_same_in_every_version() {
    let config = ServerConfig { rack: Some("east".to_owned()), ..ServerConfig::default() };
    let mut fixture = start(config).await;
    fixture.broker.create_topic(topic("b", 3, &[])).await.unwrap();
    fixture.broker.create_topic(topic("a", 1, &[])).await.unwrap();
    for version in 0..=MetadataRequest::VERSIONS.max {
        let mut request = by_name(&["b"]);
        if version < 4 {
            // The default, which older versions cannot say otherwise.
            request = request.with_allow_auto_topic_creation(true);
        }
        if version >= 8 {
            request = request.with_include_topic_authorized_operations(true);
        }
        let response = fixture.client.call(version, &request).await;
        let broker = &response.brokers[0];
        assert_eq!((broker.node_id, i32::from(fixture.server.local_addrs()[0].port())), (BrokerId(1), broker.port));
        assert_eq!(broker.rack.as_deref(), (version >= 1).then_some("east"));
        assert_eq!(response.controller_id, BrokerId(if version >= 1 { 1 } else { -1 }));
        let cluster_id = response.cluster_id.as_deref().map(str::to_owned);
        assert_eq!(cluster_id.as_deref(), (version >= 2).then_some(fixture.broker.cluster_id()));
        let topic = &response.topics[0];
        assert_eq!((topic.error_code, topic.name.as_ref().unwrap().as_str()), (0, "b"));
        assert_eq!(topic.topic_id != Uuid::nil(), version >= 10);
        assert_eq!(topic.topic_authorized_operations, if version >= 8 { 3576 } else { i32::MIN });
        let partitions: Vec<_> = topic.partitions.iter().map(|p| (p.partition_index, p.leader_id.0)).collect();
        assert_eq!(partitions, [(0, 1), (1, 1), (2, 1)]);
        let partition = &topic.partitions[2];
        assert_eq!((&partition.replica_nodes, &partition.isr_nodes), (&vec![BrokerId(1)], &vec![BrokerId(1)]));
        assert_eq!(partition.leader_epoch, if version >= 7 { 0 } else { -1 });
        assert!(partition.offline_replicas.is_empty());
    }
}

#[tokio::test]
async fn metadata_of_all_topics_of_none_and_of_what_is_not_there() {
    let mut fixture = start(ServerConfig { auto_create_topics: false, ..ServerConfig::default() }).await;
    fixture.broker.create_topic(topic("b", 1, &[])).await.unwrap();
    fixture.broker.create_topic(topic("a", 1, &[])).await.unwrap();
    let all = MetadataRequest::default().with_topics(None).with_allow_auto_topic_creation(true);
    let none = MetadataRequest::default().with_topics(Some(vec![])).with_allow_auto_topic_creation(true);
    for version in 0..=MetadataRequest::VERSIONS.max {
        let everything = ["__consumer_offsets", "__transaction_state", "a", "b"];
        if version == 0 {
            assert_eq!(names(&fixture.client.call(version, &none).await), everything);
        } else {
            let response = fixture.client.call(version, &all).await;
            assert_eq!(names(&response), everything);
            let internal: Vec<_> = response.topics.iter().map(|topic| topic.is_internal).collect();
            assert_eq!(internal, [true, true, false, false]);
            assert!(fixture.client.call(version, &none).await.topics.is_empty());
            // As librdkafka 2.16 does where it asks for all topics.
            let mut frame = fixture.client.frame(version, &all);
            frame.extend_from_slice(&[1, 0, 0]);
            let len = frame.len() as u32 - 4;
            frame[..4].copy_from_slice(&len.to_be_bytes());
            fixture.client.stream().write_all(&frame).await.unwrap();
            let (_, response) = fixture.client.receive::<MetadataRequest>(version).await;
            assert_eq!(names(&response), everything);
        }
        let response = fixture.client.call(version, &by_name(&["b", "x", "no/name", "b"])).await;
        assert_eq!(names(&response), ["b", "x", "no/name"], "each once, in the order of the request");
        assert!(is(response.topics[1].error_code, ResponseError::UnknownTopicOrPartition));
        assert!(is(response.topics[2].error_code, ResponseError::InvalidTopicException));
    }
}

#[tokio::test]
async fn topics_are_found_by_id_where_the_version_allows_it() {
    let mut fixture = start(ServerConfig::default()).await;
    fixture.broker.create_topic(topic("a", 1, &[])).await.unwrap();
    let id = fixture.client.call(10, &by_name(&["a"])).await.topics[0].topic_id;
    assert_eq!(fixture.broker.topic_by_id(id).await.unwrap().unwrap().name, "a");
    let ask = |id: Uuid, name: Option<TopicName>| {
        let topic = MetadataRequestTopic::default().with_topic_id(id).with_name(name);
        MetadataRequest::default().with_topics(Some(vec![topic]))
    };
    for version in 12..=13 {
        let found = fixture.client.call(version, &ask(id, None)).await;
        assert_eq!((names(&found), found.topics[0].topic_id), (vec!["a".to_owned()], id));
        let unknown = fixture.client.call(version, &ask(Uuid::from_u128(7), None)).await;
        assert!(is(unknown.topics[0].error_code, ResponseError::UnknownTopicId));
        assert_eq!((unknown.topics[0].topic_id, &unknown.topics[0].name), (Uuid::from_u128(7), &None));
        let nothing = fixture.client.call(version, &ask(Uuid::nil(), None)).await;
        assert!(is(nothing.topics[0].error_code, ResponseError::UnknownTopicId));
    }
    for version in 10..=11 {
        for request in [ask(id, Some(name("a"))), ask(id, None)] {
            let refused = fixture.client.call(version, &request).await;
            assert!(is(refused.topics[0].error_code, ResponseError::InvalidRequest));
        }
    }
    fixture.broker.delete_topic("a").await.unwrap();
    let gone = fixture.client.call(13, &ask(id, None)).await;
    assert!(is(gone.topics[0].error_code, ResponseError::UnknownTopicId));
    assert!(fixture.broker.topic_by_id(id).await.unwrap().is_none());
}

#[tokio::test]
async fn a_topic_that_is_asked_for_is_made_if_client_and_node_allow_it() {
    let mut fixture = start(ServerConfig { default_partitions: 3, ..ServerConfig::default() }).await;
    let refused = by_name(&["t"]).with_allow_auto_topic_creation(false);
    for version in 4..=MetadataRequest::VERSIONS.max {
        let response = fixture.client.call(version, &refused).await;
        assert!(is(response.topics[0].error_code, ResponseError::UnknownTopicOrPartition));
    }
    for version in 0..=MetadataRequest::VERSIONS.max {
        let response = fixture.client.call(version, &by_name(&[&format!("t-{version}")])).await;
        let made = &response.topics[0];
        assert_eq!((made.error_code, made.partitions.len()), (0, 3));
    }
    let response = fixture.client.call(9, &by_name(&["a.b", "a_b", "a b"])).await;
    let codes: Vec<_> = response.topics.iter().map(|topic| error(topic.error_code)).collect();
    let invalid = Some(ResponseError::InvalidTopicException);
    assert_eq!(codes, [None, invalid, invalid], "names that collide are not made, either");
}

#[tokio::test]
async fn many_topics_are_made_for_one_request_in_its_order() {
    let mut fixture = start(ServerConfig { default_partitions: 2, ..ServerConfig::default() }).await;
    let wanted = ["c", "no/name", "a", "x.y", "x_y", "b"];
    let response = fixture.client.call(9, &by_name(&wanted)).await;
    assert_eq!(names(&response), wanted);
    let partitions: Vec<_> = response.topics.iter().map(|topic| topic.partitions.len()).collect();
    assert_eq!(partitions, [2, 0, 2, 2, 0, 2]);
    assert!(is(response.topics[4].error_code, ResponseError::InvalidTopicException), "it collides with the one before");
}

#[tokio::test]
async fn more_topics_than_a_request_may_make_are_left_out() {
    let mut fixture = start(ServerConfig { default_partitions: 10_001, ..ServerConfig::default() }).await;
    let response = fixture.client.call(9, &by_name(&["a"])).await;
    assert!(is(response.topics[0].error_code, ResponseError::UnknownTopicOrPartition));
}
