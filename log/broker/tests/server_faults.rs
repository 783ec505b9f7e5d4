//! The disk is slow, stuck or full, or a handler panics: who is affected, and who is not.
#![cfg(feature = "failpoints")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use fail::FailScenario;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{MetadataRequest, ProduceRequest, ProduceResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use logmill_broker::server::{Server, ServerConfig};
use logmill_broker::{Broker, Isolation, OffsetAt};
use tempfile::TempDir;
use tokio::sync::watch;

use support::client::{Client, PATIENCE, serve};
use support::{batch, open, topic, tp};

struct Fixture {
    broker: Broker,
    server: Server,
    _dir: TempDir,
}

async fn start() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let (broker, _) = open(dir.path()).await;
    broker.create_topic(topic("t", 2, &[])).await.unwrap();
    let server = serve(&broker, ServerConfig::default()).await;
    Fixture { broker, server, _dir: dir }
}

fn produce(acks: i16, timeout_ms: i32, partition: i32, records: Bytes) -> ProduceRequest {
    let data = PartitionProduceData::default().with_index(partition).with_records(Some(records));
    let name = TopicName(StrBytes::from_static_str("t"));
    let topic = TopicProduceData::default().with_name(name).with_partition_data(vec![data]);
    ProduceRequest::default().with_acks(acks).with_timeout_ms(timeout_ms).with_topic_data(vec![topic])
}

fn outcome(response: &ProduceResponse) -> Result<i64, ResponseError> {
    let partition = &response.responses[0].partition_responses[0];
    ResponseError::try_from_code(partition.error_code).map_or(Ok(partition.base_offset), Err)
}

/// Stops whoever passes a point, until it is opened, and counts them.
struct Gate {
    passed: Arc<AtomicUsize>,
    open: Arc<(parking_lot::Mutex<bool>, parking_lot::Condvar)>,
}

impl Gate {
    fn at(point: &str) -> Self {
        let gate = Self { passed: Arc::default(), open: Arc::default() };
        let (passed, open) = (Arc::clone(&gate.passed), Arc::clone(&gate.open));
        fail::cfg_callback(point, move || {
            passed.fetch_add(1, Ordering::SeqCst);
            let mut is_open = open.0.lock();
            while !*is_open {
                open.1.wait(&mut is_open);
            }
        })
        .unwrap();
        gate
    }

    fn passed(&self) -> usize {
        self.passed.load(Ordering::SeqCst)
    }

    fn open(&self) {
        *self.open.0.lock() = true;
        self.open.1.notify_all();
    }
}

async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let wait = async {
        while !is_so().await {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}

async fn log_end(broker: &Broker, partition: i32) -> i64 {
    broker.offset(&tp("t", partition), OffsetAt::Latest(Isolation::ReadUncommitted)).await.unwrap().0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_who_wait_share_one_sync_and_appends_go_on_meanwhile() {
    let scenario = FailScenario::setup();
    let fixture = start().await;
    let syncs = Gate::at("storage::before_sync");
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(Client::connect(&fixture.server).await);
    }
    clients[0].send(9, &produce(-1, 30_000, 0, batch(&["first"]))).await;
    until("the first sync begins", async || syncs.passed() == 1).await;
    // Five at a time on each connection: none of them waits for those before it.
    for client in &mut clients {
        for _ in 0..5 {
            client.send(9, &produce(-1, 30_000, 0, batch(&["x"]))).await;
        }
    }
    until("all are appended", async || log_end(&fixture.broker, 0).await == 41).await;
    assert_eq!(syncs.passed(), 1);
    syncs.open();
    let mut offsets = vec![outcome(&clients[0].receive::<ProduceRequest>(9).await.1).unwrap()];
    for client in &mut clients {
        for _ in 0..5 {
            offsets.push(outcome(&client.receive::<ProduceRequest>(9).await.1).unwrap());
        }
    }
    assert_eq!(syncs.passed(), 2, "one for the first, one for everyone who came meanwhile");
    offsets.sort_unstable();
    assert!(offsets.into_iter().eq(0..41));
    scenario.teardown();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_does_not_confirm_in_time_is_told_and_the_other_acks_do_not_wait() {
    let scenario = FailScenario::setup();
    let fixture = start().await;
    let syncs = Gate::at("storage::before_sync");
    let mut client = Client::connect(&fixture.server).await;
    let late = client.call(9, &produce(-1, 50, 0, batch(&["a"]))).await;
    assert_eq!(outcome(&late), Err(ResponseError::RequestTimedOut));
    assert_eq!(outcome(&client.call(9, &produce(1, 50, 0, batch(&["b"]))).await), Ok(1));
    // A producer that tries again then is told where its batch is.
    syncs.open();
    assert_eq!(outcome(&client.call(9, &produce(-1, 30_000, 0, batch(&["c"]))).await), Ok(2));
    scenario.teardown();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_hangs_holds_up_only_those_who_write() {
    let scenario = FailScenario::setup();
    let fixture = start().await;
    let writes = Gate::at("storage::before_append_write");
    let mut writers = Vec::new();
    for n in 0..8 {
        let mut client = Client::connect(&fixture.server).await;
        client.send(9, &produce(1, 30_000, n % 2, batch(&["x"]))).await;
        writers.push(client);
    }
    until("writers hang", async || writes.passed() >= 2).await;
    for _ in 0..20 {
        let mut other = Client::connect(&fixture.server).await;
        let answer = tokio::time::timeout(PATIENCE, other.call(9, &MetadataRequest::default().with_topics(None))).await;
        assert!(answer.is_ok(), "others are served");
    }
    writes.open();
    for writer in &mut writers {
        outcome(&writer.receive::<ProduceRequest>(9).await.1).unwrap();
    }
    assert_eq!((log_end(&fixture.broker, 0).await, log_end(&fixture.broker, 1).await), (4, 4));
    scenario.teardown();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_told_and_appends_work_again_when_there_is_room() {
    let scenario = FailScenario::setup();
    let fixture = start().await;
    let mut client = Client::connect(&fixture.server).await;
    assert_eq!(outcome(&client.call(9, &produce(-1, 30_000, 0, batch(&["a"]))).await), Ok(0));
    fail::cfg("storage::append_write", "return").unwrap();
    for acks in [-1, 1] {
        let full = client.call(9, &produce(acks, 30_000, 0, batch(&["b"]))).await;
        assert_eq!(outcome(&full), Err(ResponseError::KafkaStorageError));
    }
    fail::remove("storage::append_write");
    assert_eq!(outcome(&client.call(9, &produce(-1, 30_000, 0, batch(&["c"]))).await), Ok(1));
    scenario.teardown();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sync_that_fails_acknowledges_nothing() {
    let scenario = FailScenario::setup();
    let fixture = start().await;
    fail::cfg("storage::sync", "return").unwrap();
    let mut client = Client::connect(&fixture.server).await;
    for _ in 0..2 {
        let failed = client.call(9, &produce(-1, 30_000, 0, batch(&["a"]))).await;
        assert_eq!(outcome(&failed), Err(ResponseError::KafkaStorageError));
    }
    fail::remove("storage::sync");
    assert_eq!(outcome(&client.call(9, &produce(-1, 30_000, 1, batch(&["a"]))).await), Ok(0), "others are as before");
    scenario.teardown();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_ends_its_connection_only() {
    let scenario = FailScenario::setup();
    let fixture = start().await;
    let mut other = Client::connect(&fixture.server).await;
    let mut client = Client::connect(&fixture.server).await;
    fail::cfg("server::begin", "1*panic").unwrap();
    client.send(9, &MetadataRequest::default().with_topics(None)).await;
    assert!(client.closed().await.is_empty());
    assert!(!other.call(9, &MetadataRequest::default().with_topics(None)).await.topics.is_empty());
    scenario.teardown();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_waits_for_the_disk_to_confirm_what_was_appended() {
    let scenario = FailScenario::setup();
    let Fixture { broker, server, _dir } = start().await;
    let syncs = Gate::at("storage::before_sync");
    let mut client = Client::connect(&server).await;
    client.send(9, &produce(-1, 30_000, 0, batch(&["a"]))).await;
    until("the sync begins", async || syncs.passed() == 1).await;
    let (done, is_done) = watch::channel(false);
    let shutdown = tokio::spawn(async move {
        server.shutdown().await;
        done.send_replace(true);
        broker.close().await.unwrap();
    });
    assert!(!*is_done.borrow());
    syncs.open();
    assert_eq!(outcome(&client.receive::<ProduceRequest>(9).await.1), Ok(0));
    assert!(client.closed().await.is_empty());
    tokio::time::timeout(PATIENCE, shutdown).await.unwrap().unwrap();
    assert!(*is_done.borrow());
    scenario.teardown();
}
