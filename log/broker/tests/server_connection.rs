//! Connections that misbehave, stall or are too many: each costs itself only, and a shutdown answers what was begun.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{ApiVersionsRequest, FetchRequest, MetadataRequest, ProduceRequest, TopicName};
use kafka_protocol::protocol::StrBytes;
use logmill_broker::Broker;
use logmill_broker::server::{Server, ServerConfig};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use support::client::{Client, PATIENCE, serve};
use support::{batch, open, topic};

struct Fixture {
    broker: Broker,
    server: Server,
    _dir: TempDir,
}

/// A server of a broker with topic `t`.
async fn start(config: ServerConfig) -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let (broker, _) = open(dir.path()).await;
    broker.create_topic(topic("t", 1, &[("max.message.bytes", "20000000")])).await.unwrap();
    let server = serve(&broker, config).await;
    Fixture { broker, server, _dir: dir }
}

fn versions() -> ApiVersionsRequest {
    let word = StrBytes::from_static_str("test");
    ApiVersionsRequest::default().with_client_software_name(word.clone()).with_client_software_version(word)
}

fn produce(acks: i16, records: Bytes) -> ProduceRequest {
    let partition = PartitionProduceData::default().with_index(0).with_records(Some(records));
    let topic = TopicProduceData::default().with_name(name()).with_partition_data(vec![partition]);
    ProduceRequest::default().with_acks(acks).with_timeout_ms(30_000).with_topic_data(vec![topic])
}

fn fetch(offset: i64, max_wait_ms: i32) -> FetchRequest {
    let partition = FetchPartition::default().with_fetch_offset(offset).with_partition_max_bytes(64 << 20);
    let topic = FetchTopic::default().with_topic(name()).with_partitions(vec![partition]);
    FetchRequest::default()
        .with_max_wait_ms(max_wait_ms)
        .with_min_bytes(1)
        .with_max_bytes(64 << 20)
        .with_session_epoch(-1)
        .with_topics(vec![topic])
}

fn name() -> TopicName {
    TopicName(StrBytes::from_static_str("t"))
}

/// Whether the server still serves.
async fn check_served(server: &Server) {
    let response = tokio::time::timeout(PATIENCE, Client::connect(server).await.call(3, &versions())).await;
    assert_eq!(response.expect("others are served").error_code, 0);
}

/// Connects until the server takes the connection in.
async fn admitted(server: &Server) -> Client {
    tokio::time::timeout(PATIENCE, async {
        loop {
            let mut client = Client::connect(server).await;
            let frame = client.frame(3, &versions());
            let mut size = [0; 4];
            let taken = client.stream().write_all(&frame).await.is_ok();
            if taken && client.stream().read_exact(&mut size).await.is_ok() {
                let mut rest = vec![0; u32::from_be_bytes(size) as usize];
                client.stream().read_exact(&mut rest).await.unwrap();
                return client;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("there is room for a connection")
}

async fn send(server: &Server, bytes: &[u8]) -> Client {
    let mut client = Client::connect(server).await;
    client.stream().write_all(bytes).await.unwrap();
    client
}

fn framed(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32).to_be_bytes(), body].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_request_ends_its_connection_and_no_other() {
    let fixture = start(ServerConfig { max_frame_bytes: 1 << 20, ..ServerConfig::default() }).await;
    let mut bystander = Client::connect(&fixture.server).await;
    let mut metadata = Client::connect(&fixture.server).await.frame(12, &MetadataRequest::default()).to_vec();
    let len = metadata.len();
    // A count of topics that no memory holds.
    metadata.truncate(len - 4);
    metadata.extend_from_slice(&[0xff, 0xff, 0xff, 0xff, 0x07, 1, 0, 0]);
    let size = (metadata.len() as u32 - 4).to_be_bytes();
    metadata[..4].copy_from_slice(&size);
    let header = |api: i16, version: i16| {
        let mut body = BytesMut::new();
        body.put_i16(api);
        body.put_i16(version);
        body.put_i32(1);
        body.put_i16(-1);
        body.to_vec()
    };
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("a negative size", (-1_i32).to_be_bytes().to_vec()),
        ("a huge size", i32::MAX.to_be_bytes().to_vec()),
        ("a size beyond the limit", ((1 << 20) + 1_i32).to_be_bytes().to_vec()),
        ("an empty request", framed(&[])),
        ("a part of a header", framed(&[0, 0, 0])),
        ("an unknown api", framed(&header(999, 0))),
        ("an api that is not served", framed(&header(4, 0))),
        ("a version that is not served", framed(&header(0, 2))),
        ("a body that is cut off", framed(&header(0, 8))),
        ("garbage", framed(&[0x55; 300])),
        ("a client id beyond the request", framed(&[0, 3, 0, 1, 0, 0, 0, 1, 0x7f, 0xff])),
        ("a huge array", metadata),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
    ];
    for (what, bytes) in cases {
        let mut client = send(&fixture.server, &bytes).await;
        assert!(client.closed().await.is_empty(), "{what}");
        assert_eq!(bystander.call(3, &versions()).await.error_code, 0, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_came_before_a_malformed_request_is_answered() {
    let fixture = start(ServerConfig::default()).await;
    let mut client = Client::connect(&fixture.server).await;
    let mut bytes = client.frame(9, &produce(-1, batch(&["a"])));
    bytes.extend_from_slice(&framed(&[0x55; 30]));
    client.stream().write_all(&bytes).await.unwrap();
    let (_, response) = client.receive::<ProduceRequest>(9).await;
    assert_eq!(response.responses[0].partition_responses[0].base_offset, 0);
    assert!(client.closed().await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_in_any_pieces_are_understood() {
    let fixture = start(ServerConfig::default()).await;
    let mut client = Client::connect(&fixture.server).await;
    let mut bytes = client.frame(3, &versions());
    bytes.unsplit(client.frame(9, &produce(1, batch(&[&"x".repeat(100_000)]))));
    bytes.unsplit(client.frame(3, &versions()));
    for piece in bytes.chunks(777) {
        client.stream().write_all(piece).await.unwrap();
        client.stream().flush().await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(client.receive::<ApiVersionsRequest>(3).await.0, 1);
    assert_eq!(client.receive::<ProduceRequest>(9).await.0, 2);
    assert_eq!(client.receive::<ApiVersionsRequest>(3).await.0, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_never_arrives_whole_ends_its_connection() {
    let fixture = start(ServerConfig { frame_timeout_ms: 200, ..ServerConfig::default() }).await;
    for bytes in [&[0, 0][..], &[0, 0, 0, 100, 0, 3]] {
        assert!(send(&fixture.server, bytes).await.closed().await.is_empty());
    }
    check_served(&fixture.server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_connection_is_closed_and_a_busy_one_is_not() {
    let fixture = start(ServerConfig { max_idle_ms: 300, ..ServerConfig::default() }).await;
    let mut busy = Client::connect(&fixture.server).await;
    busy.send(11, &fetch(0, 1_500)).await;
    let mut idle = Client::connect(&fixture.server).await;
    assert!(idle.closed().await.is_empty());
    busy.receive::<FetchRequest>(11).await;
    assert!(busy.closed().await.is_empty(), "it is idle from then on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_is_closed_while_others_are_served() {
    let config = ServerConfig { write_timeout_ms: 500, max_connections: 3, ..ServerConfig::default() };
    let fixture = start(config).await;
    let mut writer = Client::connect(&fixture.server).await;
    let records = batch(&[&"x".repeat(15_000_000)]);
    let response = writer.call(9, &produce(1, records)).await;
    assert_eq!(response.responses[0].partition_responses[0].error_code, 0);

    let mut reader = Client::connect(&fixture.server).await;
    let requests = 20;
    for _ in 0..requests {
        reader.send(11, &fetch(0, 0)).await;
    }
    let mut other = Client::connect(&fixture.server).await;
    assert_eq!(other.call(3, &versions()).await.error_code, 0, "others are served");
    // There is room for one more only when the server has given up on who does not read.
    admitted(&fixture.server).await;
    let got = reader.closed().await;
    assert!(got.len() < requests * 15_000_000, "{} bytes", got.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_bounded_and_their_places_are_free_again_when_they_end() {
    let bounds = [
        ServerConfig { max_connections: 2, ..ServerConfig::default() },
        ServerConfig { max_connections_per_ip: 2, ..ServerConfig::default() },
    ];
    for config in bounds {
        let fixture = start(config).await;
        let mut first = admitted(&fixture.server).await;
        let second = admitted(&fixture.server).await;
        assert!(Client::connect(&fixture.server).await.closed().await.is_empty());
        assert_eq!(first.call(3, &versions()).await.error_code, 0);
        drop(second);
        admitted(&fixture.server).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_goes_away_while_it_waits_frees_its_place() {
    let fixture = start(ServerConfig { max_connections: 1, ..ServerConfig::default() }).await;
    let mut waiting = admitted(&fixture.server).await;
    waiting.send(11, &fetch(0, 3_600_000)).await;
    drop(waiting);
    admitted(&fixture.server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_client_sent_before_it_went_away_takes_effect() {
    let fixture = start(ServerConfig::default()).await;
    let mut client = Client::connect(&fixture.server).await;
    for n in 0..50 {
        client.send(9, &produce(0, batch(&[&n.to_string()]))).await;
    }
    client.stream().shutdown().await.unwrap();
    assert!(client.closed().await.is_empty());
    let end = logmill_broker::OffsetAt::Latest(logmill_broker::Isolation::ReadUncommitted);
    assert_eq!(fixture.broker.offset(&support::tp("t", 0), end).await.unwrap().0, 50);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_requests_wait_for_memory_and_small_ones_do_not_wait_for_them() {
    let fixture = start(ServerConfig { max_request_bytes: 8 << 20, ..ServerConfig::default() }).await;
    // Both claim more than there is.
    let mut clients = Vec::new();
    for _ in 0..2 {
        let mut client = Client::connect(&fixture.server).await;
        let frame = client.frame(9, &produce(1, batch(&[&"x".repeat(7_000_000)])));
        client.stream().write_all(&frame[..100_000]).await.unwrap();
        clients.push((client, frame));
    }
    check_served(&fixture.server).await;
    // Nor do small ones wait for all the others that never arrive whole.
    let mut half = Vec::new();
    for _ in 0..20 {
        let mut client = Client::connect(&fixture.server).await;
        let frame = client.frame(9, &produce(1, batch(&[&"x".repeat(900_000)])));
        client.stream().write_all(&frame[..1_000]).await.unwrap();
        half.push(client);
    }
    check_served(&fixture.server).await;
    // One of them has the room; the other gets it then, whichever comes first.
    let answers = clients.into_iter().map(|(mut client, frame)| {
        tokio::spawn(async move {
            client.stream().write_all(&frame[100_000..]).await.unwrap();
            client.receive::<ProduceRequest>(9).await.1.responses[0].partition_responses[0].base_offset
        })
    });
    let mut offsets = Vec::new();
    for answer in answers.collect::<Vec<_>>() {
        offsets.push(tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap());
    }
    offsets.sort_unstable();
    assert_eq!(offsets, [0, 1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_answers_what_was_begun_and_closes_every_connection() {
    let fixture = start(ServerConfig::default()).await;
    let address = fixture.server.local_addrs()[0];
    let mut idle = admitted(&fixture.server).await;
    let mut polling = admitted(&fixture.server).await;
    polling.send(11, &fetch(0, 3_600_000)).await;
    let mut producing = admitted(&fixture.server).await;
    let mut sent = 0;
    for n in 0..20 {
        producing.send(9, &produce(-1, batch(&[&n.to_string()]))).await;
        sent += 1;
    }
    producing.receive::<ProduceRequest>(9).await;
    tokio::time::timeout(PATIENCE, fixture.server.shutdown()).await.expect("the server stops");
    assert!(idle.closed().await.is_empty());
    polling.receive::<FetchRequest>(11).await;
    assert!(polling.closed().await.is_empty());
    // Those that were begun have been answered; the rest never was.
    let answers = producing.closed().await;
    let end = logmill_broker::OffsetAt::Latest(logmill_broker::Isolation::ReadUncommitted);
    let appended = fixture.broker.offset(&support::tp("t", 0), end).await.unwrap().0;
    let mut answered = 1;
    let mut rest = &answers[..];
    while let Some((size, after)) = rest.split_first_chunk::<4>() {
        rest = &after[u32::from_be_bytes(*size) as usize..];
        answered += 1;
    }
    assert_eq!(appended, answered);
    assert!(appended <= sent);
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
    fixture.broker.close().await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_listened_on_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, _) = open(dir.path()).await;
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap().to_string();
    for (listen, expected) in [
        (vec!["SASL_SSL://127.0.0.1:0".to_owned()], "TLS and SASL are not supported yet"),
        (vec![taken], "cannot listen on"),
        (vec![], "there is no address to listen on"),
    ] {
        let error = Server::start(broker.clone(), ServerConfig { listen, ..ServerConfig::default() }).await;
        let error = error.map(drop).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
