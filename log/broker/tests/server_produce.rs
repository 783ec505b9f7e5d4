//! Produce over the wire: every version, every error, acknowledgements, and idempotent producers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::{
    ApiVersionsRequest, CreatePartitionsRequest, CreateTopicsRequest, DeleteRecordsRequest, DeleteTopicsRequest,
    IncrementalAlterConfigsRequest, InitProducerIdRequest, ProduceRequest, ProduceResponse, TopicName, TransactionalId,
};
use kafka_protocol::protocol::StrBytes;
use logmill_broker::server::{Server, ServerConfig};
use logmill_broker::{Broker, ConfigChange, Isolation, OFFSETS_TOPIC, OffsetAt};
use logmill_protocol::{
    BatchBuilder, BatchOptions, Compression, Offset, ProducerEpoch, ProducerId, ProducerStamp, Timestamp,
    patch_assigned, patch_log_append_time,
};
use tempfile::TempDir;
use uuid::Uuid;

use support::client::{Client, serve};
use support::{batch, open, topic, tp, uncommitted};

/// The newest version that names topics, and the one that has ids instead.
const BY_NAME: i16 = 12;
const BY_ID: i16 = 13;

struct Fixture {
    broker: Broker,
    server: Server,
    client: Client,
    dir: TempDir,
}

/// A broker with topic `t` of two partitions.
async fn start() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let (broker, _) = open(dir.path()).await;
    broker.create_topic(topic("t", 2, &[])).await.unwrap();
    let server = serve(&broker, ServerConfig::default()).await;
    let client = Client::connect(&server).await;
    Fixture { broker, server, client, dir }
}

impl Fixture {
    async fn set(&self, config: &str, value: &str) {
        let change = ConfigChange::Set(config.to_owned(), value.to_owned());
        self.broker.alter_configs("t", &[change]).await.unwrap();
    }

    async fn id(&self, topic: &str) -> Uuid {
        Uuid::try_parse(&self.broker.topic(topic).await.unwrap().unwrap().id).unwrap()
    }

    /// Produces one batch to partition 0 of `t`.
    async fn one(&mut self, version: i16, records: impl Into<Bytes>) -> PartitionProduceResponse {
        let name = Name::Named("t");
        let name = if version == BY_ID { Name::Id(self.id("t").await) } else { name };
        let response = self.client.call(version, &request(-1, name, vec![(0, Some(records.into()))])).await;
        response.responses[0].partition_responses[0].clone()
    }

    /// A producer id for a client.
    async fn producer_id(&mut self) -> i64 {
        let response = self.client.call(4, &init(-1, -1)).await;
        assert_eq!((response.error_code, response.producer_epoch), (0, 0));
        *response.producer_id
    }

    /// A new process with the same data.
    async fn restart(self) -> Self {
        drop(self.client);
        self.server.shutdown().await;
        self.broker.close().await.unwrap();
        drop(self.broker);
        let (broker, _) = open(self.dir.path()).await;
        let server = serve(&broker, ServerConfig::default()).await;
        let client = Client::connect(&server).await;
        Self { broker, server, client, dir: self.dir }
    }

    async fn log_end(&self) -> i64 {
        self.broker.offset(&tp("t", 0), OffsetAt::Latest(Isolation::ReadUncommitted)).await.unwrap().0
    }
}

#[derive(Clone, Copy)]
enum Name {
    Named(&'static str),
    Id(Uuid),
}

fn request(acks: i16, name: Name, partitions: Vec<(i32, Option<Bytes>)>) -> ProduceRequest {
    let partition = |(index, records)| PartitionProduceData::default().with_index(index).with_records(records);
    let data = TopicProduceData::default().with_partition_data(partitions.into_iter().map(partition).collect());
    let data = match name {
        Name::Named(name) => data.with_name(TopicName(StrBytes::from_static_str(name))),
        Name::Id(id) => data.with_topic_id(id),
    };
    ProduceRequest::default().with_acks(acks).with_timeout_ms(30_000).with_topic_data(vec![data])
}

fn partitions(response: &ProduceResponse) -> Vec<(i32, Option<ResponseError>, i64)> {
    let partitions = response.responses.iter().flat_map(|topic| &topic.partition_responses);
    partitions.map(|p| (p.index, ResponseError::try_from_code(p.error_code), p.base_offset)).collect()
}

fn error(response: &PartitionProduceResponse) -> Option<ResponseError> {
    ResponseError::try_from_code(response.error_code)
}

fn built(options: BatchOptions, records: i64) -> Vec<u8> {
    let mut builder = BatchBuilder::new(options);
    for n in 0..records {
        builder.append(Timestamp(1_000 + n), None, Some(b"v"), &[]).unwrap();
    }
    builder.finish().unwrap().to_vec()
}

fn stamped(id: i64, epoch: i16, base_sequence: i32, records: i64) -> Vec<u8> {
    let producer = Some(ProducerStamp { id: ProducerId(id), epoch: ProducerEpoch(epoch), base_sequence });
    built(BatchOptions { producer, ..BatchOptions::default() }, records)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_are_appended_in_every_version_and_for_every_acks() {
    let mut fixture = start().await;
    let id = fixture.id("t").await;
    let mut next = 0;
    for version in 3..=BY_ID {
        for acks in [-1, 1] {
            let name = if version == BY_ID { Name::Id(id) } else { Name::Named("t") };
            let request = request(acks, name, vec![(0, Some(batch(&["a", "b"]))), (7, Some(batch(&["c"])))]);
            let response = fixture.client.call(version, &request).await;
            let unknown = Some(ResponseError::UnknownTopicOrPartition);
            assert_eq!(partitions(&response), [(0, None, next), (7, unknown, -1)], "{version}");
            let topic = &response.responses[0];
            match version {
                BY_ID => assert_eq!(topic.topic_id, id),
                _ => assert_eq!(topic.name.as_str(), "t"),
            }
            let first = &topic.partition_responses[0];
            assert_eq!((first.log_append_time_ms, first.log_start_offset), (-1, if version >= 5 { 0 } else { -1 }));
            next += 2;
        }
    }
    assert_eq!(fixture.log_end().await, next);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_producer_without_acks_gets_no_answer_and_is_closed_on_an_error() {
    let mut fixture = start().await;
    for n in 0..3 {
        fixture.client.send(9, &request(0, Name::Named("t"), vec![(0, Some(batch(&["a"])))])).await;
        // The next answer is that of the next request.
        let id = fixture.client.send(3, &software("test", "1")).await;
        assert_eq!(fixture.client.receive::<ApiVersionsRequest>(3).await.0, id);
        assert_eq!(fixture.log_end().await, n + 1);
    }
    fixture.client.send(9, &request(0, Name::Named("t"), vec![(5, Some(batch(&["a"])))])).await;
    assert!(fixture.client.closed().await.is_empty());
}

/// A request of a producer that has this identity, -1 for none.
fn init(id: i64, epoch: i16) -> InitProducerIdRequest {
    let request = InitProducerIdRequest::default().with_producer_id(id.into()).with_producer_epoch(epoch);
    request.with_transactional_id(None)
}

fn software(name: &'static str, version: &'static str) -> ApiVersionsRequest {
    ApiVersionsRequest::default()
        .with_client_software_name(StrBytes::from_static_str(name))
        .with_client_software_version(StrBytes::from_static_str(version))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_fault_has_kafkas_error_and_leaves_the_log_as_it_was() {
    let mut fixture = start().await;
    let sound = batch(&["a"]).to_vec();
    let changed = |at: usize, byte: u8| {
        let mut bytes = sound.clone();
        bytes[at] = byte;
        bytes
    };
    let mut with_offset = sound.clone();
    patch_assigned(&mut with_offset, Offset(5), logmill_protocol::LeaderEpoch(0)).unwrap();
    let mut append_time = sound.clone();
    patch_log_append_time(&mut append_time, Timestamp(5)).unwrap();
    let zstd = built(BatchOptions { compression: Compression::Zstd, ..BatchOptions::default() }, 3);
    let two = [&sound[..], &sound[..]].concat();
    let large = batch(&[&"x".repeat(1_100_000)]).to_vec();
    let id = fixture.producer_id().await;
    let mut cases: Vec<(&str, i16, Vec<u8>, ResponseError)> = vec![
        ("a flipped bit", BY_NAME, changed(sound.len() - 1, b'x'), ResponseError::CorruptMessage),
        ("magic 1", BY_NAME, changed(16, 1), ResponseError::InvalidRecord),
        ("nothing", BY_NAME, Vec::new(), ResponseError::InvalidRecord),
        ("a part", BY_NAME, sound[..sound.len() - 1].to_vec(), ResponseError::InvalidRecord),
        ("two batches", BY_NAME, two, ResponseError::InvalidRecord),
        ("a base offset", BY_NAME, with_offset, ResponseError::InvalidRecord),
        ("log append time", BY_NAME, append_time, ResponseError::InvalidTimestamp),
        ("zstd before it was known", 6, zstd.clone(), ResponseError::UnsupportedCompressionType),
        ("too large", BY_NAME, large, ResponseError::MessageTooLarge),
        ("an epoch without sequence", BY_NAME, stamped(id, 0, -1, 1), ResponseError::InvalidRecord),
    ];
    // 61 bytes that would take up two thousand million offsets.
    for codec in 0..5 {
        let mut empty = sound[..61].to_vec();
        empty[8..12].copy_from_slice(&49i32.to_be_bytes());
        empty[22] = codec;
        empty[23..27].copy_from_slice(&(i32::MAX - 1).to_be_bytes());
        empty[57..61].copy_from_slice(&i32::MAX.to_be_bytes());
        let crc = crc_of(&empty);
        empty[17..21].copy_from_slice(&crc.to_be_bytes());
        cases.push(("a count of records that are not there", BY_NAME, empty, ResponseError::InvalidRecord));
    }
    let producer = Some(ProducerStamp { id: ProducerId(1), epoch: ProducerEpoch(0), base_sequence: 0 });
    let options = BatchOptions { producer, transactional: true, ..BatchOptions::default() };
    let refused = ResponseError::TransactionalIdAuthorizationFailed;
    cases.push(("a transaction", BY_NAME, built(options, 1), refused));
    for (what, version, bytes, expected) in cases {
        let response = fixture.one(version, bytes).await;
        assert_eq!((error(&response), response.base_offset), (Some(expected), -1), "{what}");
        assert_eq!(response.error_message.is_some(), version >= 8, "{what}");
    }
    assert_eq!(fixture.log_end().await, 0);
    assert_eq!(error(&fixture.one(7, zstd).await), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_are_wrong_as_a_whole_are_refused_for_each_partition() {
    let mut fixture = start().await;
    let parts = || vec![(0, Some(batch(&["a"]))), (1, None)];
    let check = |response: ProduceResponse, expected: ResponseError| {
        assert_eq!(partitions(&response), [(0, Some(expected), -1), (1, Some(expected), -1)]);
    };
    for acks in [2, -2, i16::MAX] {
        let response = fixture.client.call(BY_NAME, &request(acks, Name::Named("t"), parts())).await;
        check(response, ResponseError::InvalidRequiredAcks);
    }
    let transactional = request(-1, Name::Named("t"), parts())
        .with_transactional_id(Some(TransactionalId(StrBytes::from_static_str("x"))));
    let response = fixture.client.call(BY_NAME, &transactional).await;
    check(response, ResponseError::TransactionalIdAuthorizationFailed);
    let response = fixture.client.call(BY_NAME, &request(1, Name::Named("none"), parts())).await;
    check(response, ResponseError::UnknownTopicOrPartition);
    let response = fixture.client.call(BY_ID, &request(1, Name::Id(Uuid::from_u128(9)), parts())).await;
    check(response, ResponseError::UnknownTopicId);
    let own = request(1, Name::Named(OFFSETS_TOPIC), vec![(0, Some(batch(&["a"])))]);
    let response = fixture.client.call(BY_NAME, &own).await;
    assert_eq!(partitions(&response), [(0, Some(ResponseError::InvalidTopicException), -1)]);
    let response = fixture.client.call(BY_NAME, &request(1, Name::Named("t"), vec![(0, None)])).await;
    assert_eq!(partitions(&response), [(0, Some(ResponseError::InvalidRecord), -1)]);
    assert_eq!(fixture.log_end().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_may_only_read_the_engines_topics() {
    const MANIFEST: &str = "__logmill_manifest_p";
    let mut fixture = start().await;
    let refused = Some(ResponseError::InvalidTopicException);
    let name = || TopicName(StrBytes::from_static_str(MANIFEST));
    let create = CreatableTopic::default().with_name(name()).with_num_partitions(1).with_replication_factor(1);
    let create = CreateTopicsRequest::default().with_topics(vec![create]).with_timeout_ms(1_000);
    let made = fixture.client.call(7, &create).await;
    assert_eq!(ResponseError::try_from_code(made.topics[0].error_code), refused, "made before its pipeline starts");

    fixture.broker.create_topic(topic(MANIFEST, 1, &[])).await.unwrap();
    let records = vec![(0, Some(batch(&["a"])))];
    let produced = fixture.client.call(BY_NAME, &request(-1, Name::Named(MANIFEST), records)).await;
    assert_eq!(partitions(&produced), [(0, refused, -1)]);
    for by_id in [false, true] {
        let doomed = match by_id {
            false => DeleteTopicState::default().with_name(Some(name())),
            true => DeleteTopicState::default().with_name(None).with_topic_id(fixture.id(MANIFEST).await),
        };
        let request = DeleteTopicsRequest::default().with_topics(vec![doomed]).with_timeout_ms(1_000);
        let deleted = fixture.client.call(6, &request).await;
        assert_eq!(ResponseError::try_from_code(deleted.responses[0].error_code), refused);
    }
    let partition = DeleteRecordsPartition::default().with_partition_index(0).with_offset(-1);
    let doomed = DeleteRecordsTopic::default().with_name(name()).with_partitions(vec![partition]);
    let deleted = fixture.client.call(2, &DeleteRecordsRequest::default().with_topics(vec![doomed])).await;
    assert_eq!(ResponseError::try_from_code(deleted.topics[0].partitions[0].error_code), refused);
    let grow = CreatePartitionsTopic::default().with_name(name()).with_count(2);
    let grown = fixture.client.call(3, &CreatePartitionsRequest::default().with_topics(vec![grow])).await;
    assert_eq!(ResponseError::try_from_code(grown.results[0].error_code), refused);
    let config = AlterableConfig::default().with_name(StrBytes::from_static_str("retention.ms"));
    let config = config.with_value(Some(StrBytes::from_static_str("0")));
    let resource = AlterConfigsResource::default().with_resource_type(2).with_configs(vec![config]);
    let resource = resource.with_resource_name(StrBytes::from_static_str(MANIFEST));
    let altered =
        fixture.client.call(1, &IncrementalAlterConfigsRequest::default().with_resources(vec![resource])).await;
    assert_eq!(ResponseError::try_from_code(altered.responses[0].error_code), refused);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_configs_shape_what_is_appended() {
    let mut fixture = start().await;
    fixture.set("message.timestamp.type", "LogAppendTime").await;
    let id = fixture.producer_id().await;
    let response = fixture.one(BY_NAME, stamped(id, 0, 0, 1)).await;
    assert!(response.log_append_time_ms > 1_000_000_000_000);
    let again = fixture.one(BY_NAME, stamped(id, 0, 0, 1)).await;
    assert_eq!(again, response, "the answer to what was sent again is that of the first time");

    fixture.set("compression.type", "zstd").await;
    let plain = batch(&[&"a".repeat(10_000), "b"]);
    let response = fixture.one(BY_NAME, plain.clone()).await;
    assert_eq!((error(&response), response.base_offset), (None, 1));
    let request = logmill_broker::FetchRequest {
        partition: tp("t", 0),
        offset: Offset(1),
        max_bytes: 1 << 20,
        isolation: Isolation::ReadUncommitted,
    };
    let stored = fixture.broker.fetch(&request).await.unwrap().batches;
    assert!(stored.len() < 1_000 && plain.len() > 10_000);
    assert_eq!(uncommitted(&fixture.broker, &tp("t", 0)).await[1..], ["a".repeat(10_000), "b".to_owned()]);

    // A batch whose checksum is right, and whose records are not.
    let mut bad = plain.to_vec();
    bad[61] = 0xff;
    let crc = crc_of(&bad);
    bad[17..21].copy_from_slice(&crc.to_be_bytes());
    let response = fixture.one(BY_NAME, bad).await;
    assert_eq!(error(&response), Some(ResponseError::InvalidRecord));
    assert_eq!(response.record_errors[0].batch_index, 0);

    fixture.set("min.insync.replicas", "2").await;
    assert_eq!(error(&fixture.one(BY_NAME, batch(&["c"])).await), Some(ResponseError::NotEnoughReplicas));
    let response =
        fixture.client.call(BY_NAME, &self::request(1, Name::Named("t"), vec![(0, Some(batch(&["c"])))])).await;
    assert_eq!(partitions(&response), [(0, None, 3)]);
}

/// The checksum that the batch should have.
fn crc_of(batch: &[u8]) -> u32 {
    let error = logmill_protocol::BatchView::parse(batch).unwrap().0.verify_crc().unwrap_err();
    match error {
        logmill_protocol::BatchError::Crc { computed, .. } => computed,
        other => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idempotent_producers_are_held_to_their_sequence() {
    let mut fixture = start().await;
    let (first, second) = (fixture.producer_id().await, fixture.producer_id().await);
    assert!(first >= 0 && first != second);
    // (epoch, sequence, records), then the answer.
    let steps = [
        ((0, 0, 2), Ok(0)),
        ((0, 2, 3), Ok(2)),
        ((0, 0, 2), Ok(0)),
        ((0, 2, 3), Ok(2)),
        ((0, 6, 1), Err(ResponseError::OutOfOrderSequenceNumber)),
        ((0, 1, 1), Err(ResponseError::OutOfOrderSequenceNumber)),
        ((0, 5, 1), Ok(5)),
        ((1, 3, 1), Err(ResponseError::OutOfOrderSequenceNumber)),
        ((1, 0, 1), Ok(6)),
        ((0, 6, 1), Err(ResponseError::InvalidProducerEpoch)),
    ];
    for ((epoch, sequence, records), expected) in steps {
        let response = fixture.one(BY_NAME, stamped(first, epoch, sequence, records)).await;
        let found = error(&response).map_or(Ok(response.base_offset), Err);
        assert_eq!(found, expected, "epoch {epoch}, sequence {sequence}");
    }
    // A producer that is not known here may begin anywhere: what it sent before may have been deleted.
    assert_eq!(fixture.one(BY_NAME, stamped(second, 0, 9, 1)).await.base_offset, 7);
    assert_eq!(fixture.log_end().await, 8);
}

/// The code with which a batch of this producer is refused on both partitions.
async fn refusal(fixture: &mut Fixture, id: i64, epoch: i16) -> Option<ResponseError> {
    let records = || Some(Bytes::from(stamped(id, epoch, 0, 1)));
    let request = request(-1, Name::Named("t"), vec![(0, records()), (1, records())]);
    let answers = partitions(&fixture.client.call(BY_NAME, &request).await);
    assert_eq!(answers[0].1, answers[1].1);
    answers[0].1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_write_under_ids_that_were_handed_out_to_clients_only() {
    let mut fixture = start().await;
    let own = fixture.producer_id().await;
    assert_eq!(error(&fixture.one(BY_NAME, stamped(own, 0, 0, 1)).await), None);
    let mut session = fixture.broker.init_producer("pipeline", 60_000).await.unwrap();
    for round in 0..3 {
        fixture.broker.append(&session, &tp("t", 0), batch(&["a"])).await.unwrap();
        let (id, epoch) = (session.id.0, session.epoch.0);
        for epoch in [i16::MAX, epoch, epoch + 1, 0] {
            let foreign = Some(ResponseError::InvalidProducerIdMapping);
            assert_eq!(refusal(&mut fixture, id, epoch).await, foreign, "{round} {epoch}");
        }
        // The next one that is handed out may be a pipeline's.
        // After a restart those that the last process had in hand are nobody's.
        let next = if round < 2 { id + 1 } else { 1_000 };
        for unknown in [next, id + 5_000, i64::MAX] {
            let refused = refusal(&mut fixture, unknown, i16::MAX).await;
            assert_eq!(refused, Some(ResponseError::UnknownProducerId), "{round} {unknown}");
        }
        for negative in [-2, i64::MIN] {
            assert_eq!(refusal(&mut fixture, negative, 0).await, Some(ResponseError::InvalidRecord));
        }
        session = fixture.broker.end_transaction(&session, round != 1).await.unwrap();
        let foreign = Some(ResponseError::InvalidProducerIdMapping);
        assert_eq!(refusal(&mut fixture, session.id.0, i16::MAX).await, foreign, "between two transactions");
        if round == 1 {
            fixture = fixture.restart().await;
            assert_eq!(refusal(&mut fixture, session.id.0, i16::MAX).await, foreign, "after a restart");
            session = fixture.broker.init_producer("pipeline", 60_000).await.unwrap();
        }
    }
    assert_eq!(error(&fixture.one(BY_NAME, stamped(own, 0, 1, 1)).await), None, "ids of clients survive restarts");
    let expected = ["v", "a", "a", "v"];
    assert_eq!(support::committed(&fixture.broker, &tp("t", 0)).await, expected);
    // A client that uses up its epochs harms only itself.
    assert_eq!(error(&fixture.one(BY_NAME, stamped(own, i16::MAX, 0, 1)).await), None);
    assert_eq!(error(&fixture.one(BY_NAME, stamped(own, 0, 2, 1)).await), Some(ResponseError::InvalidProducerEpoch));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sequences_wrap_at_their_end() {
    let mut fixture = start().await;
    let id = fixture.producer_id().await;
    let last = i32::MAX;
    for (sequence, records, offset) in [(last - 1, 2, 0), (0, 1, 2), (1, 3, 3), (last - 1, 2, 0)] {
        let response = fixture.one(BY_NAME, stamped(id, 0, sequence, records)).await;
        assert_eq!((error(&response), response.base_offset), (None, offset), "{sequence}");
    }
    let across = fixture.producer_id().await;
    for (sequence, records, offset) in [(last, 3, 6), (2, 1, 9), (last, 3, 6)] {
        let response = fixture.one(BY_NAME, stamped(across, 0, sequence, records)).await;
        assert_eq!((error(&response), response.base_offset), (None, offset), "{sequence}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn producer_ids_are_given_in_every_version_and_never_for_transactions() {
    let mut fixture = start().await;
    let mut given = Vec::new();
    for version in 0..=5 {
        let response = fixture.client.call(version, &init(-1, -1)).await;
        assert_eq!((response.error_code, response.producer_epoch), (0, 0));
        given.push(*response.producer_id);
        for (id, code) in
            [("", ResponseError::InvalidRequest), ("x", ResponseError::TransactionalIdAuthorizationFailed)]
        {
            let request = init(-1, -1).with_transactional_id(Some(TransactionalId(StrBytes::from_static_str(id))));
            let response = fixture.client.call(version, &request).await;
            assert_eq!((response.error_code, *response.producer_id), (code.code(), -1));
        }
    }
    // One that has run out of epochs gets a new identity; half an identity is none.
    for version in 3..=5 {
        let spent = init(given[0], i16::MAX - 1);
        let response = fixture.client.call(version, &spent).await;
        assert_eq!((response.error_code, response.producer_epoch), (0, 0));
        given.push(*response.producer_id);
        let half = init(given[0], -1);
        assert_eq!(fixture.client.call(version, &half).await.error_code, ResponseError::InvalidRequest.code());
    }
    let count = given.len();
    given.sort_unstable();
    given.dedup();
    assert_eq!(given.len(), count, "no producer id is given twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_are_pipelined_take_effect_and_are_answered_in_order() {
    let mut fixture = start().await;
    let mut other = Client::connect(&fixture.server).await;
    let mut sent = Vec::new();
    for n in 0..100_i64 {
        let acks = if n % 3 == 0 { -1 } else { 1 };
        let value = n.to_string();
        let request = request(acks, Name::Named("t"), vec![(0, Some(batch(&[&value])))]);
        sent.push((fixture.client.send(9, &request).await, n));
        if n % 10 == 0 {
            // Someone else in between, on the other partition.
            other.call(9, &self::request(-1, Name::Named("t"), vec![(1, Some(batch(&["x"])))])).await;
        }
    }
    for (id, offset) in sent {
        let (found, response) = fixture.client.receive::<ProduceRequest>(9).await;
        assert_eq!((found, partitions(&response)), (id, vec![(0, None, offset)]));
    }
    let expected: Vec<_> = (0..100).map(|n: i64| n.to_string()).collect();
    assert_eq!(uncommitted(&fixture.broker, &tp("t", 0)).await, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_are_told_as_each_version_of_the_question_demands() {
    let mut fixture = start().await;
    for version in 0..=4 {
        let response = fixture.client.call(version, &software("apache-kafka-java", "4.1.0")).await;
        assert_eq!(response.error_code, 0);
        let versions = |key: i16| {
            let found = response.api_keys.iter().find(|api| api.api_key == key);
            found.map(|api| (api.min_version, api.max_version))
        };
        assert_eq!((versions(0), versions(18), versions(22)), (Some((0, 13)), Some((0, 4)), Some((0, 5))));
        assert_eq!(versions(24), None, "transactions are not served");
        assert!(response.unknown_tagged_fields.is_empty());
        assert_eq!((response.supported_features.len(), response.finalized_features.len()), (0, 0));
    }
    for (name, version) in [("", "1"), ("a b", "1"), ("a", "-")] {
        let response = fixture.client.call(3, &software(name, version)).await;
        assert_eq!(response.error_code, ResponseError::InvalidRequest.code());
    }
    // A version of the future is answered in version 0.
    let mut frame = fixture.client.frame(4, &software("a", "1"));
    frame[6..8].copy_from_slice(&99_i16.to_be_bytes());
    tokio::io::AsyncWriteExt::write_all(fixture.client.stream(), &frame).await.unwrap();
    let (_, response) = fixture.client.receive::<ApiVersionsRequest>(0).await;
    assert_eq!(response.error_code, ResponseError::UnsupportedVersion.code());
    let keys: Vec<_> = response.api_keys.iter().map(|api| (api.api_key, api.max_version)).collect();
    assert_eq!(keys, [(18, 4)]);
}
