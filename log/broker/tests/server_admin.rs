//! Metadata and administration over the wire: every error, every version, and what is left after a restart.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_partitions_request::{CreatePartitionsAssignment, CreatePartitionsTopic};
use kafka_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    AlterConfigsRequest, BrokerId, CreatePartitionsRequest, CreateTopicsRequest, CreateTopicsResponse,
    DeleteTopicsRequest, DescribeClusterRequest, DescribeConfigsRequest, DescribeLogDirsRequest,
    DescribeProducersRequest, DescribeTopicPartitionsRequest, IncrementalAlterConfigsRequest, MetadataRequest,
    MetadataResponse, TopicName, alter_configs_request, describe_producers_request, describe_topic_partitions_request,
    incremental_alter_configs_request,
};
use kafka_protocol::protocol::{Message, StrBytes};
use logmill_broker::server::{Server, ServerConfig};
use logmill_broker::{Broker, OFFSETS_TOPIC};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use uuid::Uuid;

use support::client::{Client, serve};
use support::{batch, open, topic, tp};

const TOPIC: i8 = 2;
const NODE: i8 = 4;

/// A broker with its server, and a client of it.
struct Fixture {
    dir: TempDir,
    broker: Broker,
    server: Server,
    client: Client,
}

async fn start(config: ServerConfig) -> Fixture {
    start_in(tempfile::tempdir().unwrap(), config).await
}

async fn start_in(dir: TempDir, config: ServerConfig) -> Fixture {
    let (broker, _) = open(dir.path()).await;
    let server = serve(&broker, config).await;
    let client = Client::connect(&server).await;
    Fixture { dir, broker, server, client }
}

impl Fixture {
    async fn restart(self) -> Self {
        drop(self.client);
        self.server.shutdown().await;
        self.broker.close().await.unwrap();
        drop(self.broker);
        start_in(self.dir, ServerConfig::default()).await
    }
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn name(name: &str) -> TopicName {
    TopicName(text(name))
}

fn is(code: i16, expected: ResponseError) -> bool {
    code == expected.code()
}

fn error(code: i16) -> Option<ResponseError> {
    ResponseError::try_from_code(code)
}

fn by_name(names: &[&str]) -> MetadataRequest {
    let topics = names.iter().map(|n| MetadataRequestTopic::default().with_name(Some(name(n)))).collect();
    MetadataRequest::default().with_topics(Some(topics)).with_allow_auto_topic_creation(true)
}

fn names(response: &MetadataResponse) -> Vec<String> {
    response.topics.iter().map(|topic| topic.name.as_ref().unwrap().to_string()).collect()
}

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
    assert_eq!(codes, [None, invalid.clone(), invalid], "names that collide are not made, either");
}

fn new_topic(topic: &str, partitions: i32) -> CreatableTopic {
    CreatableTopic::default().with_name(name(topic)).with_num_partitions(partitions).with_replication_factor(-1)
}

fn with_configs(topic: CreatableTopic, configs: &[(&str, Option<&str>)]) -> CreatableTopic {
    let config =
        |(n, v): &(&str, Option<&str>)| CreatableTopicConfig::default().with_name(text(n)).with_value(v.map(text));
    topic.with_configs(configs.iter().map(config).collect())
}

fn assigned(topic: CreatableTopic, partitions: &[(i32, &[i32])]) -> CreatableTopic {
    let assignment = |(index, brokers): &(i32, &[i32])| {
        CreatableReplicaAssignment::default()
            .with_partition_index(*index)
            .with_broker_ids(brokers.iter().map(|id| BrokerId(*id)).collect())
    };
    topic.with_assignments(partitions.iter().map(assignment).collect())
}

fn create(topics: Vec<CreatableTopic>) -> CreateTopicsRequest {
    CreateTopicsRequest::default().with_topics(topics).with_timeout_ms(1000)
}

fn outcome(response: &CreateTopicsResponse) -> Vec<(&str, Option<ResponseError>, &str)> {
    let one = |topic| -> (&str, Option<ResponseError>, &str) {
        let topic: &kafka_protocol::messages::create_topics_response::CreatableTopicResult = topic;
        (topic.name.as_str(), error(topic.error_code), topic.error_message.as_deref().unwrap_or_default())
    };
    response.topics.iter().map(one).collect()
}

#[tokio::test]
async fn topics_are_created_in_every_version_and_are_there_after_a_restart() {
    let mut fixture = start(ServerConfig { default_partitions: 2, ..ServerConfig::default() }).await;
    let mut ids = Vec::new();
    for version in 2..=CreateTopicsRequest::VERSIONS.max {
        let configured = with_configs(new_topic(&format!("c-{version}"), 3), &[("retention.ms", Some(" 77 "))]);
        let spread = assigned(new_topic(&format!("a-{version}"), -1), &[(1, &[1]), (0, &[1])]);
        let request = create(vec![new_topic(&format!("d-{version}"), -1), configured, spread]);
        let checked = fixture.client.call(version, &request.clone().with_validate_only(true)).await;
        assert!(checked.topics.iter().all(|topic| topic.error_code == 0 && topic.topic_id == Uuid::nil()));
        assert!(fixture.broker.topic(&format!("d-{version}")).await.unwrap().is_none(), "only validated");

        let response = fixture.client.call(version, &request).await;
        let made: Vec<_> =
            response.topics.iter().map(|t| (t.error_code, t.num_partitions, t.replication_factor)).collect();
        match version >= 5 {
            true => assert_eq!(made, [(0, 2, 1), (0, 3, 1), (0, 2, 1)]),
            false => assert_eq!(made, [(0, -1, -1); 3]),
        }
        let configs = response.topics[1].configs.as_ref().unwrap();
        let retention = configs.iter().find(|config| config.name == *"retention.ms");
        let retention = retention.map(|config| (config.value.as_deref().unwrap(), config.config_source));
        assert_eq!(retention, (version >= 5).then_some(("77", 1)));
        assert_eq!(response.topics[0].topic_id != Uuid::nil(), version >= 7);
        ids.push((version, response.topics[0].topic_id));
    }
    let mut fixture = fixture.restart().await;
    let (version, id) = *ids.last().unwrap();
    let response = fixture.client.call(13, &by_name(&[&format!("d-{version}")])).await;
    assert_eq!((response.topics[0].topic_id, response.topics[0].partitions.len()), (id, 2));
    let info = fixture.broker.topic("c-2").await.unwrap().unwrap();
    assert_eq!(info.configs, [("retention.ms".to_owned(), "77".to_owned())]);
}

#[tokio::test]
async fn what_cannot_be_created_is_refused_for_itself() {
    use ResponseError::*;
    let mut fixture = start(ServerConfig::default()).await;
    fixture.broker.create_topic(topic("a.b", 1, &[])).await.unwrap();
    let plain = |name: &str| new_topic(name, 1);
    let cases: Vec<(CreatableTopic, Option<ResponseError>, &str)> = vec![
        (plain("good"), None, ""),
        (plain("a.b"), Some(TopicAlreadyExists), "topic `a.b` exists already"),
        (
            plain("a_b"),
            Some(InvalidTopicException),
            "topic name `a_b` collides with `a.b`: names that differ in `.` and `_` only are not allowed",
        ),
        (plain(""), Some(InvalidTopicException), "topic name `` is empty"),
        (plain("x").with_num_partitions(0), Some(InvalidPartitions), "the number of partitions must be positive"),
        (plain("x-2").with_num_partitions(-2), Some(InvalidPartitions), "the number of partitions must be positive"),
        (
            plain("rf").with_replication_factor(2),
            Some(InvalidReplicationFactor),
            "a replication factor of 2 needs as many nodes, there is 1",
        ),
        (
            plain("rf0").with_replication_factor(0),
            Some(InvalidReplicationFactor),
            "the replication factor must be positive",
        ),
        (
            with_configs(plain("c1"), &[("retention.m", Some("1"))]),
            Some(InvalidConfig),
            "there is no config `retention.m`, did you mean `retention.ms`?",
        ),
        (
            with_configs(plain("c2"), &[("cleanup.policy", Some("compact"))]),
            Some(InvalidConfig),
            "config `cleanup.policy`: compaction is not supported yet, use `delete`",
        ),
        (
            with_configs(plain("c3"), &[("remote.storage.enable", Some("true"))]),
            Some(InvalidConfig),
            "config `remote.storage.enable` is not supported: tiered storage is not supported yet",
        ),
        (with_configs(plain("c4"), &[("flush", None)]), Some(InvalidConfig), "config `flush` has no value"),
        (
            assigned(plain("as1"), &[(0, &[1])]),
            Some(InvalidRequest),
            "with a replica assignment, partitions and replication factor must both be -1",
        ),
        (
            assigned(new_topic("as2", -1), &[(0, &[1]), (1, &[2])]),
            Some(InvalidReplicaAssignment),
            "partition 1 is to be on [2], but the only node is 1",
        ),
        (
            assigned(new_topic("as3", -1), &[(0, &[1, 2])]),
            Some(InvalidReplicaAssignment),
            "partition 0 is to be on [1, 2], but the only node is 1",
        ),
        (
            assigned(new_topic("as4", -1), &[(1, &[1])]),
            Some(InvalidReplicaAssignment),
            "the partitions of a replica assignment must be numbered from 0, each once",
        ),
        (plain("also-good"), None, ""),
    ];
    for version in 2..=CreateTopicsRequest::VERSIONS.max {
        let request = create(cases.iter().map(|case| case.0.clone()).collect());
        let response = fixture.client.call(version, &request).await;
        let expected: Vec<_> = cases.iter().map(|case| (case.0.name.as_str(), case.1.clone(), case.2)).collect();
        assert_eq!(outcome(&response), expected);
        let good = vec!["good".to_owned(), "also-good".to_owned()];
        for name in good {
            fixture.broker.delete_topic(&name).await.expect("the others are made all the same");
        }
    }
    let twice = fixture.client.call(7, &create(vec![plain("twice"), plain("once"), plain("twice")])).await;
    let message = "the request names the topic more than once";
    assert_eq!(outcome(&twice), [("twice", Some(InvalidRequest), message), ("once", None, "")]);
    // Each of them would do alone.
    let collide = fixture.client.call(7, &create(vec![plain("x.y"), plain("x_y")])).await;
    assert_eq!(
        collide.topics.iter().map(|t| error(t.error_code)).collect::<Vec<_>>(),
        [None, Some(InvalidTopicException)]
    );
    let many = fixture.client.call(7, &create(vec![new_topic("m1", 6000), new_topic("m2", 6000)])).await;
    assert!(many.topics.iter().all(|topic| is(topic.error_code, PolicyViolation)));
    let huge = fixture.client.call(7, &create(vec![new_topic("huge", i32::MAX)])).await;
    assert_eq!(outcome(&huge)[0].1, Some(InvalidPartitions));
}

#[tokio::test]
async fn topics_are_deleted_by_name_and_by_id() {
    use ResponseError::*;
    let mut fixture = start(ServerConfig::default()).await;
    for version in 1..=5 {
        fixture.broker.create_topic(topic("t", 1, &[])).await.unwrap();
        fixture.broker.create_topic(topic("u", 1, &[])).await.unwrap();
        let topics = ["t", "x", "u", "u", OFFSETS_TOPIC].map(name).to_vec();
        let response = fixture.client.call(version, &DeleteTopicsRequest::default().with_topic_names(topics)).await;
        let codes: Vec<_> = response.responses.iter().map(|r| error(r.error_code)).collect();
        let refused = Some(InvalidRequest);
        assert_eq!(codes, [None, Some(UnknownTopicOrPartition), refused.clone(), refused.clone(), refused]);
        let message = response.responses[1].error_message.as_deref();
        assert_eq!(message, (version >= 5).then_some("topic `x` does not exist"));
        assert!(fixture.broker.topic("t").await.unwrap().is_none());
        fixture.broker.delete_topic("u").await.unwrap();
    }
    fixture.broker.create_topic(topic("t", 1, &[])).await.unwrap();
    fixture.broker.create_topic(topic("u", 1, &[])).await.unwrap();
    let id = fixture.client.call(13, &by_name(&["t"])).await.topics[0].topic_id;
    let state = |n: Option<&str>, id: u128| {
        DeleteTopicState::default().with_name(n.map(name)).with_topic_id(Uuid::from_u128(id))
    };
    let topics = vec![
        state(None, id.as_u128()),
        state(None, 7),
        state(Some("u"), 0),
        state(Some("u"), 7),
        state(None, 0),
        state(Some("x"), 0),
    ];
    let response = fixture.client.call(6, &DeleteTopicsRequest::default().with_topics(topics)).await;
    let codes: Vec<_> = response.responses.iter().map(|r| error(r.error_code)).collect();
    let refused = Some(InvalidRequest);
    let expected = [None, Some(UnknownTopicId), None, refused.clone(), refused, Some(UnknownTopicOrPartition)];
    assert_eq!(codes, expected);
    let first = &response.responses[0];
    assert_eq!((first.name.as_ref().unwrap().as_str(), first.topic_id), ("t", id), "with the name that it had");
    let mut fixture = fixture.restart().await;
    assert_eq!(names(&fixture.client.call(13, &MetadataRequest::default().with_topics(None)).await).len(), 2);
    let left = std::fs::read_dir(fixture.dir.path().join("topics")).unwrap().count();
    assert_eq!(left, 2, "and their files are gone");
}

#[tokio::test]
async fn partitions_are_added() {
    use ResponseError::*;
    let mut fixture = start(ServerConfig::default()).await;
    let ask = |topic: &str, count: i32, nodes: Option<&[i32]>| {
        let assignment = |id: &i32| CreatePartitionsAssignment::default().with_broker_ids(vec![BrokerId(*id)]);
        CreatePartitionsTopic::default()
            .with_name(name(topic))
            .with_count(count)
            .with_assignments(nodes.map(|nodes| nodes.iter().map(assignment).collect()))
    };
    for version in 0..=CreatePartitionsRequest::VERSIONS.max {
        for t in ["a", "b", "c", "d"] {
            fixture.broker.create_topic(topic(t, 2, &[])).await.unwrap();
        }
        let topics = vec![
            ask("a", 3, None),
            ask("b", 4, Some(&[1, 1])),
            ask("c", 2, None),
            ask("d", 4, Some(&[1])),
            ask("x", 4, None),
            ask(OFFSETS_TOPIC, 9, None),
        ];
        let request = CreatePartitionsRequest::default().with_topics(topics);
        let expected = vec![
            (None, ""),
            (None, ""),
            (Some(InvalidPartitions), "the topic has 2 partitions already"),
            (Some(InvalidReplicaAssignment), "2 partitions are to be added, 1 are assigned"),
            (Some(UnknownTopicOrPartition), "topic `x` does not exist"),
            (
                Some(InvalidRequest),
                "topic `__consumer_offsets` is the broker's own and cannot grow: what it holds is spread over the \
                 partitions it was made with",
            ),
        ];
        for validate_only in [true, false] {
            let response = fixture.client.call(version, &request.clone().with_validate_only(validate_only)).await;
            let results = response.results.iter();
            let results: Vec<_> =
                results.map(|r| (error(r.error_code), r.error_message.as_deref().unwrap_or_default())).collect();
            assert_eq!(results, expected);
            let now = fixture.broker.topic("b").await.unwrap().unwrap().partitions;
            assert_eq!(now, if validate_only { 2 } else { 4 });
        }
        let topics = vec![
            ask("a", 1, None),
            ask("c", 99_999, None),
            ask("d", 3, Some(&[2])),
            ask("b", 5, None),
            ask("b", 6, None),
        ];
        let response = fixture.client.call(version, &CreatePartitionsRequest::default().with_topics(topics)).await;
        let results: Vec<_> = response.results.iter().map(|r| (r.name.as_str(), error(r.error_code))).collect();
        let invalid = Some(InvalidPartitions);
        let expected = [
            ("a", invalid.clone()),
            ("c", invalid),
            ("d", Some(InvalidReplicaAssignment)),
            ("b", Some(InvalidRequest)),
        ];
        assert_eq!(results, expected);
        for t in ["a", "b", "c", "d"] {
            fixture.broker.delete_topic(t).await.unwrap();
        }
    }
    fixture.broker.create_topic(topic("t", 1, &[])).await.unwrap();
    let request = CreatePartitionsRequest::default().with_topics(vec![ask("t", 5, None)]);
    fixture.client.call(3, &request).await;
    fixture.broker.produce(&tp("t", 4), batch(&["a"])).await.unwrap();
    let mut fixture = fixture.restart().await;
    assert_eq!(fixture.client.call(13, &by_name(&["t"])).await.topics[0].partitions.len(), 5);
}

fn describe(resource_type: i8, resource: &str, keys: Option<&[&str]>) -> DescribeConfigsRequest {
    let keys = keys.map(|keys| keys.iter().map(|key| text(key)).collect());
    let resource = DescribeConfigsResource::default()
        .with_resource_type(resource_type)
        .with_resource_name(text(resource))
        .with_configuration_keys(keys);
    DescribeConfigsRequest::default().with_resources(vec![resource])
}

#[tokio::test]
async fn configs_are_described_with_their_sources_synonyms_and_documentation() {
    use ResponseError::*;
    let mut fixture = start(ServerConfig { default_partitions: 7, ..ServerConfig::default() }).await;
    fixture.broker.create_topic(topic("t", 1, &[("retention.ms", "5")])).await.unwrap();
    for version in 1..=DescribeConfigsRequest::VERSIONS.max {
        let request = describe(TOPIC, "t", None).with_include_synonyms(true).with_include_documentation(version >= 3);
        let response = fixture.client.call(version, &request).await;
        let configs = &response.results[0].configs;
        let find = |name: &str| configs.iter().find(|config| config.name == *name).unwrap();
        let retention = find("retention.ms");
        assert_eq!((retention.value.as_deref(), retention.config_source, retention.read_only), (Some("5"), 1, false));
        let synonyms: Vec<_> =
            retention.synonyms.iter().map(|s| (s.name.as_str(), s.value.as_deref(), s.source)).collect();
        assert_eq!(synonyms, [("retention.ms", Some("5"), 1), ("log.retention.ms", Some("604800000"), 5)]);
        let cleanup = find("cleanup.policy");
        assert_eq!((cleanup.value.as_deref(), cleanup.config_source), (Some("delete"), 5));
        assert_eq!(cleanup.config_type, if version >= 3 { 7 } else { 0 });
        let has_text = cleanup.documentation.as_deref().is_some_and(|text| text.contains("old records"));
        assert_eq!(has_text, version >= 3);

        let request = describe(TOPIC, "t", Some(&["flush", "nonsense", "segment.bytes"]));
        let response = fixture.client.call(version, &request).await;
        let names: Vec<_> = response.results[0].configs.iter().map(|config| config.name.as_str()).collect();
        assert_eq!(names, ["flush", "segment.bytes"]);
        assert!(response.results[0].configs.iter().all(|config| config.synonyms.is_empty()));

        let response = fixture.client.call(version, &describe(NODE, "1", None)).await;
        let configs = &response.results[0].configs;
        let find = |name: &str| configs.iter().find(|config| config.name == *name).unwrap();
        let partitions = find("num.partitions");
        assert_eq!((partitions.value.as_deref(), partitions.config_source), (Some("7"), 4));
        assert_eq!(find("log.retention.ms").config_source, 5);
        assert!(configs.iter().all(|config| config.read_only));

        let refused = [
            (TOPIC, "x", UnknownTopicOrPartition),
            (TOPIC, "a/b", InvalidTopicException),
            (NODE, "2", InvalidRequest),
            (NODE, "one", InvalidRequest),
            (8, "1", InvalidRequest),
            (99, "1", InvalidRequest),
        ];
        for (kind, name, expected) in refused {
            let response = fixture.client.call(version, &describe(kind, name, None)).await;
            let result = &response.results[0];
            assert_eq!((error(result.error_code), result.resource_type), (Some(expected), kind));
            assert!(!result.error_message.as_deref().unwrap().is_empty());
        }
        let shared = fixture.client.call(version, &describe(NODE, "", None)).await;
        assert_eq!((shared.results[0].error_code, shared.results[0].configs.len()), (0, 0));
    }
}

/// What an incremental change does: (operation, config, value).
type Operation<'a> = (i8, &'a str, Option<&'a str>);

fn change(resource_type: i8, resource: &str, operations: &[Operation<'_>]) -> IncrementalAlterConfigsRequest {
    use incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
    let config = |(operation, name, value): &Operation<'_>| {
        AlterableConfig::default().with_config_operation(*operation).with_name(text(name)).with_value(value.map(text))
    };
    let resource = AlterConfigsResource::default()
        .with_resource_type(resource_type)
        .with_resource_name(text(resource))
        .with_configs(operations.iter().map(config).collect());
    IncrementalAlterConfigsRequest::default().with_resources(vec![resource])
}

fn replace(resource_type: i8, resource: &str, configs: &[(&str, Option<&str>)]) -> AlterConfigsRequest {
    use alter_configs_request::{AlterConfigsResource, AlterableConfig};
    let config = |(name, value): &(&str, Option<&str>)| {
        AlterableConfig::default().with_name(text(name)).with_value(value.map(text))
    };
    let resource = AlterConfigsResource::default()
        .with_resource_type(resource_type)
        .with_resource_name(text(resource))
        .with_configs(configs.iter().map(config).collect());
    AlterConfigsRequest::default().with_resources(vec![resource])
}

async fn set_configs(fixture: &Fixture) -> Vec<String> {
    let configs = fixture.broker.topic("t").await.unwrap().unwrap().configs;
    configs.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

#[tokio::test]
async fn configs_are_changed_one_by_one_or_as_a_whole() {
    let mut fixture = start(ServerConfig::default()).await;
    for version in 0..=1 {
        fixture.broker.create_topic(topic("t", 1, &[("flush", "os"), ("retention.ms", "1")])).await.unwrap();
        let operations: &[Operation<'_>] = &[
            (0, "retention.ms", Some("5")),
            (1, "flush", None),
            (2, "cleanup.policy", Some("delete")),
            (3, "cleanup.policy", Some("compact")),
        ];
        let request = change(TOPIC, "t", &operations[..3]);
        let response = fixture.client.call(version, &request.clone().with_validate_only(true)).await;
        assert_eq!(response.responses[0].error_code, 0);
        assert_eq!(set_configs(&fixture).await, ["flush=os", "retention.ms=1"]);
        let response = fixture.client.call(version, &request).await;
        assert_eq!((response.responses[0].error_code, &response.responses[0].error_message), (0, &None));
        assert_eq!(set_configs(&fixture).await, ["cleanup.policy=delete", "retention.ms=5"]);
        let response = fixture.client.call(version, &change(TOPIC, "t", &operations[3..])).await;
        assert_eq!(response.responses[0].error_code, 0);
        assert_eq!(set_configs(&fixture).await, ["cleanup.policy=delete", "retention.ms=5"]);
        fixture.broker.delete_topic("t").await.unwrap();
    }
    fixture.broker.create_topic(topic("t", 1, &[])).await.unwrap();
    for version in 0..=2 {
        let value = version.to_string();
        let request = replace(TOPIC, "t", &[("flush.ms", Some(&value)), ("segment.ms", Some("9"))]);
        assert_eq!(fixture.client.call(version, &request).await.responses[0].error_code, 0);
        assert_eq!(set_configs(&fixture).await, [format!("flush.ms={value}"), "segment.ms=9".to_owned()]);
        let request = replace(TOPIC, "t", &[("preallocate", Some("false"))]);
        let response = fixture.client.call(version, &request.clone().with_validate_only(true)).await;
        assert_eq!((response.responses[0].error_code, set_configs(&fixture).await.len()), (0, 2));
        assert_eq!(fixture.client.call(version, &request).await.responses[0].error_code, 0);
        assert_eq!(set_configs(&fixture).await, ["preallocate=false"]);
    }
    let fixture = fixture.restart().await;
    assert_eq!(set_configs(&fixture).await, ["preallocate=false"]);
}

#[tokio::test]
async fn config_changes_that_cannot_be_made_say_why() {
    use ResponseError::*;
    let mut fixture = start(ServerConfig::default()).await;
    fixture.broker.create_topic(topic("t", 1, &[("flush", "os")])).await.unwrap();
    let cases: &[(i8, &str, &[Operation<'_>], ResponseError, &str)] = &[
        (
            TOPIC,
            "t",
            &[(0, "retention.ms", Some("x")), (0, "flush", Some("sync"))],
            InvalidConfig,
            "config `retention.ms` is `x`, it must be -1 (no limit) or a number from 0 on",
        ),
        (TOPIC, "t", &[(1, "flsh", None)], InvalidConfig, "there is no config `flsh`, did you mean `flush`?"),
        (
            TOPIC,
            "t",
            &[(2, "cleanup.policy", Some("compact"))],
            InvalidConfig,
            "config `cleanup.policy`: compaction is not supported yet, use `delete`",
        ),
        (
            TOPIC,
            "t",
            &[(3, "cleanup.policy", Some("delete"))],
            InvalidConfig,
            "config `cleanup.policy` is ``, it must be one of: delete",
        ),
        (
            TOPIC,
            "t",
            &[(2, "flush.ms", Some("7"))],
            InvalidConfig,
            "config `flush.ms` is no list: it can be set, not added to or taken from",
        ),
        (
            TOPIC,
            "t",
            &[(0, "unclean.leader.election.enable", Some("true"))],
            InvalidConfig,
            "config `unclean.leader.election.enable`: an unclean leader is not supported yet, use `false`",
        ),
        (
            TOPIC,
            "t",
            &[(0, "flush", Some("os")), (1, "flush", None)],
            InvalidRequest,
            "config `flush` is named more than once",
        ),
        (TOPIC, "t", &[(0, "flush", None)], InvalidRequest, "config `flush` has no value"),
        (TOPIC, "t", &[(9, "flush", None)], InvalidRequest, "config `flush`: there is no operation 9"),
        (TOPIC, "x", &[(1, "flush", None)], UnknownTopicOrPartition, "topic `x` does not exist"),
        (
            TOPIC,
            "a b",
            &[(1, "flush", None)],
            InvalidTopicException,
            "topic name `a b` may only contain ASCII letters, digits, `.`, `_` and `-`",
        ),
        (
            TOPIC,
            OFFSETS_TOPIC,
            &[(0, "retention.ms", Some("1"))],
            InvalidRequest,
            "topic `__consumer_offsets` is the broker's own, its configs cannot be changed",
        ),
        (
            NODE,
            "1",
            &[(0, "num.partitions", Some("3"))],
            InvalidConfig,
            "config `num.partitions` cannot be changed while the node runs: set it in its config and restart it",
        ),
        (
            NODE,
            "",
            &[(0, "num.partition", Some("3"))],
            InvalidConfig,
            "there is no config `num.partition` of a node, did you mean `num.partitions`?",
        ),
        (NODE, "2", &[(0, "x", Some("3"))], InvalidRequest, "there is no node `2` here, this is node 1"),
        (
            8,
            "1",
            &[(0, "root", Some("DEBUG"))],
            InvalidRequest,
            "log levels of a running node are not supported yet, they are set when it starts",
        ),
    ];
    for (kind, resource, operations, expected, message) in cases {
        for version in 0..=1 {
            let response = fixture.client.call(version, &change(*kind, resource, operations)).await;
            let response = &response.responses[0];
            let outcome = (error(response.error_code), response.error_message.as_deref().unwrap());
            assert_eq!(outcome, (Some(expected.clone()), *message));
            assert_eq!((response.resource_type, response.resource_name.as_str()), (*kind, *resource));
        }
        // What replaces everything is refused for the same reasons, as far as it can say the same.
        if operations.iter().all(|operation| operation.0 == 0) {
            let configs: Vec<_> = operations.iter().map(|(_, name, value)| (*name, *value)).collect();
            for version in 0..=2 {
                let response = fixture.client.call(version, &replace(*kind, resource, &configs)).await;
                let response = &response.responses[0];
                let outcome = (error(response.error_code), response.error_message.as_deref().unwrap());
                assert_eq!(outcome, (Some(expected.clone()), *message));
            }
        }
        assert_eq!(set_configs(&fixture).await, ["flush=os"], "nothing has changed");
    }
    let mut twice = change(TOPIC, "t", &[(0, "flush", Some("sync"))]);
    twice.resources.push(twice.resources[0].clone());
    let response = fixture.client.call(1, &twice).await;
    assert!(response.responses.iter().all(|response| is(response.error_code, InvalidRequest)));
}

#[tokio::test]
async fn the_cluster_is_this_node() {
    use ResponseError::*;
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
    use ResponseError::*;
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
