//! CreateTopics, DeleteTopics and CreatePartitions.

use std::collections::HashSet;

use kafka_protocol::ResponseError::{self, *};
use kafka_protocol::messages::create_partitions_request::{CreatePartitionsAssignment, CreatePartitionsTopic};
use kafka_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::{
    BrokerId, CreatePartitionsRequest, CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest, MetadataRequest,
};
use kafka_protocol::protocol::Message;
use logmill_broker::OFFSETS_TOPIC;
use logmill_broker::server::ServerConfig;
use uuid::Uuid;

use crate::support::client::Client;
use crate::support::{batch, topic, tp};
use crate::{by_name, error, is, name, names, start, text};

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

/// A topic: name, partitions, replication factor, assignment and configs; and what comes of it.
type Case = (
    &'static str,
    i32,
    i16,
    &'static [(i32, &'static [i32])],
    &'static [(&'static str, Option<&'static str>)],
    Option<ResponseError>,
    &'static str,
);

const CASES: &[Case] = &[
    ("good", 1, 1, &[], &[], None, ""),
    ("a.b", 1, 1, &[], &[], Some(TopicAlreadyExists), "topic `a.b` exists already"),
    (
        "a_b",
        1,
        1,
        &[],
        &[],
        Some(InvalidTopicException),
        "topic name `a_b` collides with `a.b`: names that differ in `.` and `_` only are not allowed",
    ),
    ("", 1, 1, &[], &[], Some(InvalidTopicException), "topic name `` is empty"),
    ("p0", 0, 1, &[], &[], Some(InvalidPartitions), "the number of partitions must be positive"),
    ("p-2", -2, 1, &[], &[], Some(InvalidPartitions), "the number of partitions must be positive"),
    (
        "rf2",
        1,
        2,
        &[],
        &[],
        Some(InvalidReplicationFactor),
        "a replication factor of 2 needs as many nodes, there is 1",
    ),
    ("rf0", 1, 0, &[], &[], Some(InvalidReplicationFactor), "the replication factor must be positive"),
    (
        "c1",
        1,
        1,
        &[],
        &[("retention.m", Some("1"))],
        Some(InvalidConfig),
        "there is no config `retention.m`, did you mean `retention.ms`?",
    ),
    (
        "c2",
        1,
        1,
        &[],
        &[("cleanup.policy", Some("compact"))],
        Some(InvalidConfig),
        "config `cleanup.policy`: compaction is not supported yet, use `delete`",
    ),
    (
        "c3",
        1,
        1,
        &[],
        &[("remote.storage.enable", Some("true"))],
        Some(InvalidConfig),
        "config `remote.storage.enable` is not supported: tiered storage is not supported yet",
    ),
    ("c4", 1, 1, &[], &[("flush", None)], Some(InvalidConfig), "config `flush` has no value"),
    (
        "as1",
        1,
        1,
        &[(0, &[1])],
        &[],
        Some(InvalidRequest),
        "with a replica assignment, partitions and replication factor must both be -1",
    ),
    (
        "as2",
        -1,
        -1,
        &[(0, &[1]), (1, &[2])],
        &[],
        Some(InvalidReplicaAssignment),
        "partition 1 is to be on [2], but the only node is 1",
    ),
    (
        "as3",
        -1,
        -1,
        &[(0, &[1, 2])],
        &[],
        Some(InvalidReplicaAssignment),
        "partition 0 is to be on [1, 2], but the only node is 1",
    ),
    (
        "as4",
        -1,
        -1,
        &[(1, &[1])],
        &[],
        Some(InvalidReplicaAssignment),
        "the partitions of a replica assignment must be numbered from 0, each once",
    ),
    ("also-good", 1, -1, &[], &[], None, ""),
];

#[tokio::test]
async fn what_cannot_be_created_is_refused_for_itself() {
    let mut fixture = start(ServerConfig::default()).await;
    fixture.broker.create_topic(topic("a.b", 1, &[])).await.unwrap();
    let plain = |name: &str| new_topic(name, 1);
    let wanted = |case: &Case| {
        let topic = new_topic(case.0, case.1).with_replication_factor(case.2);
        with_configs(assigned(topic, case.3), case.4)
    };
    for version in 2..=CreateTopicsRequest::VERSIONS.max {
        let request = create(CASES.iter().map(wanted).collect());
        let response = fixture.client.call(version, &request).await;
        let expected: Vec<_> = CASES.iter().map(|case| (case.0, case.5, case.6)).collect();
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
    let mut fixture = start(ServerConfig::default()).await;
    for version in 1..=5 {
        fixture.broker.create_topic(topic("t", 1, &[])).await.unwrap();
        fixture.broker.create_topic(topic("u", 1, &[])).await.unwrap();
        let topics = ["t", "x", "u", "u", OFFSETS_TOPIC].map(name).to_vec();
        let response = fixture.client.call(version, &DeleteTopicsRequest::default().with_topic_names(topics)).await;
        let codes: Vec<_> = response.responses.iter().map(|r| error(r.error_code)).collect();
        let refused = Some(InvalidRequest);
        assert_eq!(codes, [None, Some(UnknownTopicOrPartition), refused, refused, refused]);
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
    let expected = [None, Some(UnknownTopicId), None, refused, refused, Some(UnknownTopicOrPartition)];
    assert_eq!(codes, expected);
    let first = &response.responses[0];
    assert_eq!((first.name.as_ref().unwrap().as_str(), first.topic_id), ("t", id), "with the name that it had");
    let mut fixture = fixture.restart().await;
    assert_eq!(names(&fixture.client.call(13, &MetadataRequest::default().with_topics(None)).await).len(), 2);
    let left = std::fs::read_dir(fixture.dir.path().join("topics")).unwrap().count();
    assert_eq!(left, 2, "and their files are gone");
}

fn ask(topic: &str, count: i32, nodes: Option<&[i32]>) -> CreatePartitionsTopic {
    let assignment = |id: &i32| CreatePartitionsAssignment::default().with_broker_ids(vec![BrokerId(*id)]);
    CreatePartitionsTopic::default()
        .with_name(name(topic))
        .with_count(count)
        .with_assignments(nodes.map(|nodes| nodes.iter().map(assignment).collect()))
}

#[tokio::test]
async fn partitions_are_added() {
    let mut fixture = start(ServerConfig::default()).await;
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
        let expected =
            [("a", invalid), ("c", invalid), ("d", Some(InvalidReplicaAssignment)), ("b", Some(InvalidRequest))];
        assert_eq!(results, expected);
        for t in ["a", "b", "c", "d"] {
            fixture.broker.delete_topic(t).await.unwrap();
        }
    }
}

#[tokio::test]
async fn added_partitions_are_there_after_a_restart() {
    let mut fixture = start(ServerConfig::default()).await;
    fixture.broker.create_topic(topic("t", 1, &[])).await.unwrap();
    let request = CreatePartitionsRequest::default().with_topics(vec![ask("t", 5, None)]);
    fixture.client.call(3, &request).await;
    fixture.broker.produce(&tp("t", 4), batch(&["a"])).await.unwrap();
    let mut fixture = fixture.restart().await;
    assert_eq!(fixture.client.call(13, &by_name(&["t"])).await.topics[0].partitions.len(), 5);
}

#[tokio::test]
async fn hundreds_of_topics_are_made_and_deleted_in_one_request_each() {
    let mut fixture = start(ServerConfig::default()).await;
    let wanted: Vec<_> = (0..500).map(|n| format!("topic-{n:03}")).collect();
    let response = fixture.client.call(7, &create(wanted.iter().map(|name| new_topic(name, 2)).collect())).await;
    assert!(response.topics.iter().all(|topic| topic.error_code == 0));
    let mut fixture = fixture.restart().await;
    let all = MetadataRequest::default().with_topics(None);
    let found = fixture.client.call(13, &all).await;
    assert_eq!(names(&found)[2..], wanted, "by name, after the two of the broker's own");
    for (made, found) in response.topics.iter().zip(&found.topics[2..]) {
        assert_eq!((made.topic_id, 2), (found.topic_id, found.partitions.len()));
    }
    let doomed = DeleteTopicsRequest::default().with_topic_names(wanted.iter().map(|topic| name(topic)).collect());
    let response = fixture.client.call(5, &doomed).await;
    assert!(response.responses.iter().all(|topic| topic.error_code == 0));
    let mut fixture = fixture.restart().await;
    assert_eq!(names(&fixture.client.call(13, &all).await).len(), 2);
}

#[tokio::test]
async fn of_many_who_create_the_same_topic_one_does() {
    let fixture = start(ServerConfig::default()).await;
    let mut clients = Vec::new();
    for _ in 0..8 {
        let mut client = Client::connect(&fixture.server).await;
        clients.push(tokio::spawn(async move {
            let response = client.call(7, &create(vec![new_topic("t", 1)])).await;
            let asked = client.call(12, &by_name(&["auto"])).await;
            (response.topics[0].error_code, asked.topics[0].error_code, asked.topics[0].topic_id)
        }));
    }
    let (mut created, mut ids) = (0, HashSet::new());
    for client in clients {
        let (code, asked, id) = client.await.unwrap();
        created += usize::from(code == 0);
        assert!(code == 0 || is(code, TopicAlreadyExists));
        assert_eq!(asked, 0, "a topic that is asked for is there whoever made it");
        ids.insert(id);
    }
    assert_eq!((created, ids.len()), (1, 1));
}
