//! Fetch over the wire: every version, long polls, limits, sessions, isolation and errors.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::{BrokerId, FetchRequest, FetchResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use logmill_broker::server::{Server, ServerConfig};
use logmill_broker::{Broker, Isolation};
use logmill_protocol::batches;
use tempfile::TempDir;
use uuid::Uuid;

use support::client::{Client, serve};
use support::{batch, open, topic, tp};

/// Long enough that a test which waits for it hangs.
const FOR_EVER_MS: i32 = 3_600_000;

struct Fixture {
    dir: TempDir,
    broker: Broker,
    server: Server,
    client: Client,
}

async fn start(topics: &[(&str, i32)]) -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let (broker, _) = open(dir.path()).await;
    for (name, partitions) in topics {
        broker.create_topic(topic(name, *partitions, &[("flush", "os")])).await.unwrap();
    }
    let server = serve(&broker, ServerConfig::default()).await;
    let client = Client::connect(&server).await;
    Fixture { dir, broker, server, client }
}

impl Fixture {
    async fn produce(&self, topic: &str, partition: i32, values: &[&str]) {
        self.broker.produce(&tp(topic, partition), batch(values)).await.unwrap();
    }

    async fn id(&self, topic: &str) -> Uuid {
        Uuid::parse_str(&self.broker.topic(topic).await.unwrap().unwrap().id).unwrap()
    }

    /// Names its topics as the version does.
    async fn fetch(&mut self, version: i16, mut request: FetchRequest) -> FetchResponse {
        if version >= 13 {
            for topic in &mut request.topics {
                topic.topic_id = self.id(&topic.topic).await;
            }
            for topic in &mut request.forgotten_topics_data {
                topic.topic_id = self.id(&topic.topic).await;
            }
        }
        self.client.call(version, &request).await
    }
}

fn name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

fn from(partition: i32, offset: i64) -> FetchPartition {
    FetchPartition::default().with_partition(partition).with_fetch_offset(offset).with_partition_max_bytes(1 << 20)
}

/// Fetches from partitions of a topic, without waiting.
fn fetch(topic: &str, partitions: Vec<FetchPartition>) -> FetchRequest {
    let topic = FetchTopic::default().with_topic(name(topic)).with_partitions(partitions);
    FetchRequest::default().with_min_bytes(1).with_max_bytes(10 << 20).with_topics(vec![topic])
}

fn partitions(response: &FetchResponse) -> Vec<&PartitionData> {
    response.responses.iter().flat_map(|topic| &topic.partitions).collect()
}

fn records(partition: &PartitionData) -> &Bytes {
    partition.records.as_ref().unwrap()
}

/// How many whole batches, nothing else, the answer for a partition holds.
fn batch_count(partition: &PartitionData) -> usize {
    batches(records(partition))
        .map(|batch| batch.unwrap().validate(&logmill_protocol::BatchLimits::STORED).unwrap())
        .count()
}

#[tokio::test]
async fn every_version_returns_what_the_log_holds() {
    let mut fixture = start(&[("t", 2), ("u", 1)]).await;
    fixture.produce("t", 0, &["a", "b"]).await;
    fixture.produce("t", 0, &["c"]).await;
    let big = "x".repeat(100_000);
    fixture.produce("u", 0, &[&big]).await;
    for version in 4..=18 {
        let mut request = fetch("t", vec![from(0, 1), from(1, 0)]);
        request.topics.extend(fetch("u", vec![from(0, 0)]).topics);
        let response = fixture.fetch(version, request).await;
        assert_eq!((response.error_code, response.session_id, response.responses.len()), (0, 0, 2), "{version}");
        for (topic, expected) in response.responses.iter().zip(["t", "u"]) {
            match version {
                ..13 => assert_eq!(topic.topic, name(expected), "{version}"),
                _ => assert_eq!(topic.topic_id, fixture.id(expected).await, "{version}"),
            }
        }
        let [t0, t1, u0] = partitions(&response)[..] else { panic!("{response:?}") };
        let start = if version >= 5 { 0 } else { -1 };
        assert_eq!((t0.high_watermark, t0.last_stable_offset, t0.log_start_offset), (3, 3, start), "{version}");
        assert_eq!((batch_count(t0), batch_count(t1), batch_count(u0)), (2, 0, 1), "{version}");
        assert!(t0.aborted_transactions.is_none() && t0.preferred_read_replica == BrokerId(-1));
        let expected = fixture
            .broker
            .fetch(&logmill_broker::FetchRequest {
                partition: tp("u", 0),
                offset: logmill_protocol::Offset(0),
                max_bytes: 1 << 20,
                isolation: Isolation::ReadUncommitted,
            })
            .await
            .unwrap();
        assert_eq!(records(u0), &expected.batches);
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_partition_is_told_at_once() {
    let mut fixture = start(&[("t", 1), ("idle", 1)]).await;
    fixture.produce("t", 0, &["a"]).await;
    let unknown = ResponseError::UnknownTopicOrPartition;
    let cases = [
        (from(0, 2), ResponseError::OffsetOutOfRange),
        (from(0, -1), ResponseError::OffsetOutOfRange),
        (from(1, 0), unknown),
        (from(-1, 0), unknown),
        (from(0, 1).with_current_leader_epoch(1), ResponseError::UnknownLeaderEpoch),
        (from(0, 1).with_current_leader_epoch(-2), ResponseError::FencedLeaderEpoch),
    ];
    for version in [4, 12, 18] {
        for (partition, expected) in &cases {
            if version < 9 && partition.current_leader_epoch != -1 {
                continue;
            }
            // The other partition would wait.
            let mut request = fetch("idle", vec![from(0, 0)]).with_max_wait_ms(FOR_EVER_MS);
            request.topics.extend(fetch("t", vec![partition.clone()]).topics);
            let response = fixture.fetch(version, request).await;
            let found = partitions(&response)[1];
            assert_eq!((found.error_code, found.high_watermark), (expected.code(), -1), "{version} {partition:?}");
            assert!(records(found).is_empty() && found.aborted_transactions.is_none());
        }
    }
    let response = fixture.client.call(12, &fetch("none", vec![from(0, 0)]).with_max_wait_ms(FOR_EVER_MS)).await;
    assert_eq!(partitions(&response)[0].error_code, unknown.code());
    let mut request = fetch("t", vec![from(0, 0)]).with_max_wait_ms(FOR_EVER_MS);
    request.topics[0].topic_id = Uuid::from_u128(7);
    let response = fixture.client.call(13, &request).await;
    assert_eq!(partitions(&response)[0].error_code, ResponseError::UnknownTopicId.code());
    let mut replica = fetch("t", vec![from(0, 0)]);
    replica.replica_id = BrokerId(2);
    let response = fixture.fetch(12, replica).await;
    assert_eq!(partitions(&response)[0].error_code, ResponseError::NotLeaderOrFollower.code());
}

#[tokio::test]
async fn a_log_that_departs_from_the_clients_is_told() {
    let mut fixture = start(&[("t", 1)]).await;
    fixture.produce("t", 0, &["a"]).await;
    let response = fixture.fetch(12, fetch("t", vec![from(0, 1).with_last_fetched_epoch(0)])).await;
    assert_eq!(partitions(&response)[0].diverging_epoch.end_offset, -1);
    let beyond = fetch("t", vec![from(0, 5).with_last_fetched_epoch(0)]).with_max_wait_ms(FOR_EVER_MS);
    let response = fixture.fetch(18, beyond).await;
    let found = partitions(&response)[0];
    assert_eq!((found.diverging_epoch.epoch, found.diverging_epoch.end_offset), (0, 1));
    assert_eq!(found.error_code, 0);
}

#[tokio::test]
async fn a_fetch_waits_until_there_is_something() {
    let mut fixture = start(&[("t", 3)]).await;
    let all = vec![from(0, 0), from(1, 0), from(2, 0)];
    let waiting = fetch("t", all).with_max_wait_ms(FOR_EVER_MS);
    let mut other = Client::connect(&fixture.server).await;
    let fetched = tokio::spawn(async move { other.call(12, &waiting).await });
    // Nothing says when the fetch has begun to wait; it must be answered either way.
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!fetched.is_finished());
    fixture.produce("t", 1, &["a"]).await;
    let response = fetched.await.unwrap();
    assert_eq!(partitions(&response).iter().map(|p| batch_count(p)).collect::<Vec<_>>(), [0, 1, 0]);
    // Without anything it is answered when its time is up.
    let response = fixture.fetch(12, fetch("t", vec![from(0, 0)]).with_max_wait_ms(20)).await;
    assert_eq!(batch_count(partitions(&response)[0]), 0);
}

#[tokio::test]
async fn a_fetch_waits_for_as_many_bytes_as_it_wants() {
    let fixture = start(&[("t", 2)]).await;
    let one = batch(&["value"]).len() as i32;
    let id = fixture.id("t").await;
    let waiting = fetch("t", vec![from(0, 0), from(1, 0)]).with_max_wait_ms(FOR_EVER_MS).with_min_bytes(3 * one);
    let mut other = Client::connect(&fixture.server).await;
    let fetched = tokio::spawn(async move { other.call(18, &waiting_by_id(waiting, id)).await });
    for partition in [0, 1, 0] {
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!fetched.is_finished());
        fixture.produce("t", partition, &["value"]).await;
    }
    let response = fetched.await.unwrap();
    assert_eq!(partitions(&response).iter().map(|p| batch_count(p)).collect::<Vec<_>>(), [2, 1]);
}

fn waiting_by_id(mut request: FetchRequest, id: Uuid) -> FetchRequest {
    request.topics[0].topic_id = id;
    request
}

#[tokio::test]
async fn a_topic_that_is_deleted_ends_the_wait() {
    let fixture = start(&[("t", 1)]).await;
    let waiting = fetch("t", vec![from(0, 0)]).with_max_wait_ms(FOR_EVER_MS);
    let mut other = Client::connect(&fixture.server).await;
    let fetched = tokio::spawn(async move { other.call(12, &waiting).await });
    tokio::time::sleep(Duration::from_millis(20)).await;
    fixture.broker.delete_topic("t").await.unwrap();
    let response = fetched.await.unwrap();
    assert_eq!(partitions(&response)[0].error_code, ResponseError::UnknownTopicOrPartition.code());
}

#[tokio::test]
async fn limits_hold_for_all_but_the_first_batch() {
    let mut fixture = start(&[("t", 3)]).await;
    let value = "x".repeat(1000);
    for partition in 0..3 {
        for _ in 0..4 {
            fixture.produce("t", partition, &[&value]).await;
        }
    }
    let one = batch(&[&value]).len() as i32;
    let all = || vec![from(0, 0), from(1, 0), from(2, 0)];
    let mut check = async |max_bytes: i32, partition_max: i32, expected: [usize; 3]| {
        let each = all().into_iter().map(|p| p.with_partition_max_bytes(partition_max)).collect();
        let response = fixture.fetch(12, fetch("t", each).with_max_bytes(max_bytes)).await;
        let found: Vec<_> = partitions(&response).iter().map(|p| batch_count(p)).collect();
        assert_eq!(found, expected, "{max_bytes} {partition_max}");
    };
    check(100 * one, 100 * one, [4, 4, 4]).await;
    check(100 * one, 2 * one, [2, 2, 2]).await;
    check(100 * one, 2 * one + 5, [2, 2, 2]).await;
    check(5 * one, 100 * one, [4, 1, 0]).await;
    check(10, 100 * one, [1, 0, 0]).await;
    check(100 * one, 10, [1, 0, 0]).await;
    check(0, 0, [1, 0, 0]).await;
}

#[tokio::test]
async fn large_batches_come_whole() {
    let mut fixture = start(&[("t", 2)]).await;
    let value = "x".repeat(900_000);
    for partition in [0, 1, 0, 1, 0] {
        fixture.produce("t", partition, &[&value]).await;
    }
    let mut seen = [0, 0];
    for version in [4, 11, 12, 18] {
        let whole = |partition, offset| from(partition, offset).with_partition_max_bytes(10 << 20);
        let response = fixture.fetch(version, fetch("t", vec![whole(0, 1), whole(1, 0)])).await;
        for (count, partition) in seen.iter_mut().zip(partitions(&response)) {
            *count += batch_count(partition);
        }
    }
    assert_eq!(seen, [8, 8]);
}

#[tokio::test]
async fn read_committed_stops_at_open_transactions_and_names_the_aborted() {
    let mut fixture = start(&[("t", 1)]).await;
    let committed = |offset| fetch("t", vec![from(0, offset)]).with_isolation_level(1);
    let mut session = fixture.broker.init_producer("id", 60_000).await.unwrap();
    fixture.produce("t", 0, &["before"]).await;
    fixture.broker.append(&session, &tp("t", 0), batch(&["aborted"])).await.unwrap();
    fixture.produce("t", 0, &["after"]).await;
    for version in [4, 12, 18] {
        let response = fixture.fetch(version, committed(0)).await;
        let found = partitions(&response)[0];
        assert_eq!((batch_count(found), found.high_watermark, found.last_stable_offset), (1, 3, 1));
        assert!(found.aborted_transactions.as_ref().unwrap().is_empty());
        let response = fixture.fetch(version, fetch("t", vec![from(0, 0)])).await;
        assert_eq!(batch_count(partitions(&response)[0]), 3, "read_uncommitted sees it");
    }
    // A reader that waits is told when the transaction ends.
    let mut other = Client::connect(&fixture.server).await;
    let waiting = committed(1).with_max_wait_ms(FOR_EVER_MS);
    let fetched = tokio::spawn(async move { other.call(12, &waiting).await });
    tokio::time::sleep(Duration::from_millis(20)).await;
    fixture.produce("t", 0, &["more"]).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(!fetched.is_finished(), "the last stable offset has not moved");
    session = fixture.broker.end_transaction(&session, false).await.unwrap();
    let response = fetched.await.unwrap();
    let found = partitions(&response)[0];
    let aborted: Vec<_> =
        found.aborted_transactions.iter().flatten().map(|a| (a.producer_id.0, a.first_offset)).collect();
    assert_eq!(aborted, [(session.id.0, 1)]);
    assert_eq!((batch_count(found), found.last_stable_offset), (4, 5));
}

#[tokio::test]
async fn sessions_tell_of_what_changed() {
    for version in [7, 12, 13, 18] {
        let mut fixture = start(&[("t", 3)]).await;
        fixture.produce("t", 0, &["a"]).await;
        let full = fetch("t", vec![from(0, 0), from(1, 0), from(2, 0)]).with_session_epoch(0);
        let response = fixture.fetch(version, full).await;
        let session = response.session_id;
        assert!(session > 0 && partitions(&response).len() == 3, "{version}");
        let next = |epoch, topics: Vec<FetchTopic>| {
            let base = fetch("t", Vec::new()).with_topics(topics);
            base.with_session_id(session).with_session_epoch(epoch)
        };
        let indexes = |response: &FetchResponse| -> Vec<i32> {
            assert_eq!((response.error_code, response.session_id), (0, session));
            partitions(response).iter().map(|p| p.partition_index).collect()
        };
        // The position of the partition that was read moves on; nothing else is new.
        let response = fixture.fetch(version, next(1, fetch("t", vec![from(0, 1)]).topics)).await;
        assert_eq!(indexes(&response), Vec::<i32>::new(), "{version}");
        fixture.produce("t", 0, &["b"]).await;
        assert_eq!(indexes(&fixture.fetch(version, next(2, Vec::new())).await), [0], "{version}");
        for partition in [2, 0, 1] {
            fixture.produce("t", partition, &["c"]).await;
        }
        // The one that returned records comes last, so that those after it are not starved.
        let response = fixture.fetch(version, next(3, fetch("t", vec![from(0, 2)]).topics)).await;
        assert_eq!(indexes(&response), [1, 2, 0], "{version}");
        let forget = ForgottenTopic::default().with_topic(name("t")).with_partitions(vec![1]);
        let moved = fetch("t", vec![from(0, 3), from(2, 1)]).topics;
        let request = next(4, moved).with_forgotten_topics_data(vec![forget]);
        assert_eq!(indexes(&fixture.fetch(version, request).await), Vec::<i32>::new(), "{version}");
        fixture.produce("t", 1, &["d"]).await;
        assert_eq!(indexes(&fixture.fetch(version, next(5, Vec::new())).await), Vec::<i32>::new(), "forgotten");
        fixture.broker.delete_records(&tp("t", 2), logmill_protocol::Offset(1)).await.unwrap();
        assert_eq!(indexes(&fixture.fetch(version, next(6, Vec::new())).await), [2], "its log start moved");

        let error = |response: FetchResponse| (response.error_code, response.responses.len());
        let wrong = fixture.fetch(version, next(6, Vec::new())).await;
        assert_eq!(error(wrong), (ResponseError::InvalidFetchSessionEpoch.code(), 0));
        let other = next(7, Vec::new()).with_session_id(session ^ 1);
        assert_eq!(error(fixture.fetch(version, other).await), (ResponseError::FetchSessionIdNotFound.code(), 0));
        let by_other_key = if version < 13 { 13 } else { 12 };
        let mixed = fixture.fetch(by_other_key, next(7, Vec::new())).await;
        assert_eq!(error(mixed), (ResponseError::FetchSessionTopicIdError.code(), 0));
        // The last epoch ends the session.
        let last = fixture.fetch(version, next(-1, fetch("t", vec![from(0, 3)]).topics)).await;
        assert_eq!((last.error_code, last.session_id, partitions(&last).len()), (0, 0, 1));
        let gone = fixture.fetch(version, next(7, Vec::new())).await;
        assert_eq!(error(gone), (ResponseError::FetchSessionIdNotFound.code(), 0));
    }
}

#[tokio::test]
async fn a_session_waits_for_any_of_its_partitions() {
    let mut fixture = start(&[("t", 3)]).await;
    let full = fetch("t", vec![from(0, 0), from(1, 0), from(2, 0)]).with_session_epoch(0);
    let session = fixture.fetch(12, full).await.session_id;
    let next = fetch("t", Vec::new()).with_topics(Vec::new()).with_session_id(session).with_session_epoch(1);
    let Fixture { broker, mut client, .. } = fixture;
    let fetched = tokio::spawn(async move { client.call(12, &next.with_max_wait_ms(FOR_EVER_MS)).await });
    tokio::time::sleep(Duration::from_millis(20)).await;
    broker.produce(&tp("t", 2), batch(&["a"])).await.unwrap();
    let response = fetched.await.unwrap();
    assert_eq!(partitions(&response).iter().map(|p| p.partition_index).collect::<Vec<_>>(), [2]);
}

#[tokio::test]
async fn thousands_of_partitions_are_fetched_at_once() {
    const PARTITIONS: i32 = 5_000;
    let mut fixture = start(&[("t", PARTITIONS)]).await;
    for partition in [7, 4_999, 2_500] {
        fixture.produce("t", partition, &["a"]).await;
    }
    let holds = |response: &FetchResponse| -> Vec<i32> {
        partitions(response).iter().filter(|p| batch_count(p) > 0).map(|p| p.partition_index).collect()
    };
    let all = (0..PARTITIONS).map(|partition| from(partition, 0)).collect();
    let response = fixture.fetch(12, fetch("t", all)).await;
    assert_eq!(partitions(&response).len(), PARTITIONS as usize);
    assert_eq!(holds(&response), [7, 2_500, 4_999]);
    let end = |partition| i64::from([7, 4_999, 2_500].contains(&partition));
    let idle = (0..PARTITIONS).map(|partition| from(partition, end(partition))).collect();
    let waiting = fetch("t", idle).with_max_wait_ms(FOR_EVER_MS);
    let mut other = Client::connect(&fixture.server).await;
    let fetched = tokio::spawn(async move { other.call(12, &waiting).await });
    tokio::time::sleep(Duration::from_millis(20)).await;
    fixture.produce("t", 4_321, &["b"]).await;
    assert_eq!(holds(&fetched.await.unwrap()), [4_321]);
}

#[tokio::test]
async fn a_partition_that_is_named_twice_is_answered_once_as_it_was_asked_last() {
    let mut fixture = start(&[("t", 2)]).await;
    fixture.produce("t", 0, &["a"]).await;
    for version in [4, 12, 13, 18] {
        let mut request = fetch("t", vec![from(0, 1), from(1, 0), from(0, 0)]);
        request.topics.extend(fetch("t", vec![from(1, 7)]).topics);
        let response = fixture.fetch(version, request).await;
        let found: Vec<_> = partitions(&response).iter().map(|p| (p.partition_index, p.error_code)).collect();
        assert_eq!(found, [(0, 0), (1, ResponseError::OffsetOutOfRange.code())], "{version}");
        assert_eq!(batch_count(partitions(&response)[0]), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_see_every_record_once_and_in_order_while_it_is_written() {
    let fixture = start(&[("t", 1)]).await;
    let broker = Arc::new(fixture.broker.clone());
    const BATCHES: i64 = 400;
    let writer = tokio::spawn(async move {
        for n in 0..BATCHES {
            let value = "x".repeat((n as usize * 97) % 30_000);
            broker.produce(&tp("t", 0), batch(&[&value])).await.unwrap();
        }
    });
    let mut readers = Vec::new();
    for max_bytes in [1, 10_000, 1 << 20] {
        let mut client = Client::connect(&fixture.server).await;
        readers.push(tokio::spawn(async move {
            let mut offset = 0;
            while offset < BATCHES {
                let partition = from(0, offset).with_partition_max_bytes(max_bytes);
                let response = client.call(12, &fetch("t", vec![partition]).with_max_wait_ms(FOR_EVER_MS)).await;
                let found = partitions(&response)[0].clone();
                for read in batches(records(&found)) {
                    let read = read.unwrap();
                    read.validate(&logmill_protocol::BatchLimits::STORED).unwrap();
                    assert_eq!(read.header().base_offset.0, offset);
                    offset += 1;
                }
                assert!(offset <= found.high_watermark);
            }
        }));
    }
    writer.await.unwrap();
    for reader in readers {
        reader.await.unwrap();
    }
}

/// Drops the topic's files from the page cache, as far as the file system can.
async fn evict(dir: &std::path::Path) {
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "log") {
                let file = std::fs::File::open(path).unwrap();
                file.sync_all().unwrap();
                rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
            }
        }
    }
}

#[tokio::test]
async fn what_is_not_in_the_page_cache_is_read_from_the_disk() {
    let mut fixture = start(&[("t", 2)]).await;
    let value = "x".repeat(500_000);
    for _ in 0..8 {
        fixture.produce("t", 0, &[&value]).await;
    }
    fixture.produce("t", 1, &["small"]).await;
    for version in [4, 12, 18] {
        evict(fixture.dir.path()).await;
        let whole = from(0, 0).with_partition_max_bytes(10 << 20);
        let response = fixture.fetch(version, fetch("t", vec![whole, from(1, 0)])).await;
        let found: Vec<_> = partitions(&response).iter().map(|p| batch_count(p)).collect();
        assert_eq!(found, [8, 1], "version {version}");
    }
}
