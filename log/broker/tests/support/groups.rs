//! What the tests of groups over the wire share: a server of prompt groups, and requests.

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::offset_fetch_response::{OffsetFetchResponseTopic, OffsetFetchResponseTopics};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    GroupId, JoinGroupRequest, JoinGroupResponse, OffsetCommitRequest, OffsetFetchRequest, SyncGroupRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use logmill_broker::server::{Advertised, Server, ServerConfig};
use logmill_broker::{Broker, BrokerConfig, GroupConfig};
use tempfile::TempDir;

use crate::support::client::{Client, serve};
use crate::support::topic;

pub struct Fixture {
    pub dir: TempDir,
    pub broker: Broker,
    pub server: Server,
    pub client: Client,
}

/// Groups whose first generation begins at once, and whose sessions may be short.
pub fn prompt() -> GroupConfig {
    GroupConfig { initial_rebalance_delay_ms: 0, min_session_timeout_ms: 1, ..GroupConfig::default() }
}

pub async fn start_in(dir: TempDir) -> Fixture {
    let config = BrokerConfig { groups: prompt(), ..BrokerConfig::new(dir.path()) };
    let (broker, _) = Broker::open(config).await.unwrap();
    let advertise = Some(Advertised { host: "logmill.example".into(), port: 29092 });
    let server = serve(&broker, ServerConfig { advertise, ..ServerConfig::default() }).await;
    let client = Client::connect(&server).await;
    Fixture { dir, broker, server, client }
}

pub async fn start() -> Fixture {
    let fixture = start_in(tempfile::tempdir().unwrap()).await;
    fixture.broker.create_topic(topic("t", 3, &[])).await.unwrap();
    fixture
}

impl Fixture {
    pub async fn restart(self) -> Self {
        drop(self.client);
        self.server.shutdown().await;
        self.broker.close().await.unwrap();
        drop(self.broker);
        start_in(self.dir).await
    }
}

pub fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

pub fn group(name: &str) -> GroupId {
    GroupId(text(name))
}

pub fn topic_name(name: &str) -> TopicName {
    TopicName(text(name))
}

pub fn error(code: i16) -> Option<ResponseError> {
    ResponseError::try_from_code(code)
}

pub fn join(name: &str, member: &str) -> JoinGroupRequest {
    let subscription = b"\0\0\0\0\0\x01\0\x01t\xff\xff\xff\xff";
    let range = JoinGroupRequestProtocol::default().with_name(text("range"));
    JoinGroupRequest::default()
        .with_group_id(group(name))
        .with_member_id(text(member))
        .with_session_timeout_ms(30_000)
        .with_rebalance_timeout_ms(60_000)
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![range.with_metadata(Bytes::from_static(subscription))])
}

pub fn sync(
    name: &str,
    member: &StrBytes,
    generation: i32,
    assignments: &[(&StrBytes, &'static str)],
) -> SyncGroupRequest {
    let assignment = |(member, assignment): &(&StrBytes, &'static str)| {
        let assignment = Bytes::from_static(assignment.as_bytes());
        SyncGroupRequestAssignment::default().with_member_id((*member).clone()).with_assignment(assignment)
    };
    SyncGroupRequest::default()
        .with_group_id(group(name))
        .with_member_id(member.clone())
        .with_generation_id(generation)
        .with_assignments(assignments.iter().map(assignment).collect())
}

/// Joins as a new dynamic member.
pub async fn enter(client: &mut Client, name: &str) -> JoinGroupResponse {
    let first = client.call(9, &join(name, "")).await;
    assert_eq!(error(first.error_code), Some(ResponseError::MemberIdRequired));
    client.call(9, &join(name, &first.member_id)).await
}

/// A stable group of one member: its id and generation.
pub async fn alone(client: &mut Client, name: &str) -> (StrBytes, i32) {
    let joined = enter(client, name).await;
    assert_eq!((joined.error_code, &joined.leader), (0, &joined.member_id));
    let (member, generation) = (joined.member_id, joined.generation_id);
    let synced = client.call(5, &sync(name, &member, generation, &[(&member, "all")])).await;
    assert_eq!((synced.error_code, &synced.assignment[..]), (0, &b"all"[..]));
    (member, generation)
}

pub fn commit(name: &str, partitions: &[(&str, i32, i64)]) -> OffsetCommitRequest {
    let topics = partitions.iter().map(|(topic, partition, offset)| {
        let partition = OffsetCommitRequestPartition::default()
            .with_partition_index(*partition)
            .with_committed_offset(*offset)
            .with_committed_metadata(Some(text("note")));
        OffsetCommitRequestTopic::default().with_name(topic_name(topic)).with_partitions(vec![partition])
    });
    OffsetCommitRequest::default().with_group_id(group(name)).with_topics(topics.collect())
}

/// What is committed, as (topic, partition, offset, error), in any version.
pub async fn fetch(
    client: &mut Client,
    version: i16,
    name: &str,
    asked: Option<&[(&str, &[i32])]>,
    stable: bool,
) -> Vec<(String, i32, i64, Option<ResponseError>)> {
    let request = OffsetFetchRequest::default().with_require_stable(stable && version >= 7);
    if version < 8 {
        let topics = asked.map(|asked| {
            let topic = |(topic, partitions): &(&str, &[i32])| {
                let request = OffsetFetchRequestTopic::default().with_name(topic_name(topic));
                request.with_partition_indexes(partitions.to_vec())
            };
            asked.iter().map(topic).collect()
        });
        let found = client.call(version, &request.with_group_id(group(name)).with_topics(topics)).await;
        assert_eq!(found.error_code, 0);
        let partitions = |topic: OffsetFetchResponseTopic| {
            let name = topic.name.to_string();
            topic.partitions.into_iter().map(move |p| {
                let is_committed = p.committed_offset >= 0;
                assert_eq!(p.metadata.as_deref(), Some(if is_committed { "note" } else { "" }));
                (name.clone(), p.partition_index, p.committed_offset, error(p.error_code))
            })
        };
        return found.topics.into_iter().flat_map(partitions).collect();
    }
    let topics = asked.map(|asked| {
        let topic = |(topic, partitions): &(&str, &[i32])| {
            let request = OffsetFetchRequestTopics::default().with_name(topic_name(topic));
            request.with_partition_indexes(partitions.to_vec())
        };
        asked.iter().map(topic).collect()
    });
    let asked = OffsetFetchRequestGroup::default().with_group_id(group(name)).with_topics(topics);
    let unknown = OffsetFetchRequestGroup::default().with_group_id(group("unknown")).with_topics(None);
    let found = client.call(version, &request.with_groups(vec![asked, unknown])).await;
    assert_eq!((found.groups.len(), found.groups[1].error_code, found.groups[1].topics.len()), (2, 0, 0));
    let partitions = |topic: OffsetFetchResponseTopics| {
        let name = topic.name.to_string();
        topic
            .partitions
            .into_iter()
            .map(move |p| (name.clone(), p.partition_index, p.committed_offset, error(p.error_code)))
    };
    let topics = found.groups.into_iter().next().unwrap().topics;
    topics.into_iter().flat_map(partitions).collect()
}
