//! Fetching a log from the page cache over loopback, against a plain `sendfile` loop over the same bytes.
//!
//! `cargo bench -p logmill-broker --bench fetch` prints MB/s and the ratio to the plain loop. The rounds take turns, so
//! that a busy machine slows all of them alike; each figure is the best of its rounds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Instant;

use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::{ApiKey, FetchRequest, RequestHeader, TopicName};
use kafka_protocol::protocol::{Encodable, StrBytes};
use logmill_broker::server::{Server, ServerConfig};
use logmill_broker::{Broker, BrokerConfig, NewTopic, TopicPartition};
use logmill_protocol::{BatchBuilder, BatchOptions, Timestamp};

const ROUNDS: usize = 7;
const TOTAL_BYTES: usize = 256 << 20;
const BATCH_BYTES: usize = 64 << 10;
/// `max.partition.fetch.bytes` of Kafka's consumers.
const FETCH_BYTES: i32 = 1 << 20;
const VERSION: i16 = 12;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (server, end) = runtime.block_on(prepare(dir.path()));
    let address = server.local_addrs()[0];
    let plain = dir.path().join("plain");
    let bytes = plain_file(&plain);
    let (mut raw, mut fetched, mut small) = (f64::MAX, f64::MAX, f64::MAX);
    for _ in 0..ROUNDS {
        raw = raw.min(sendfile_loop(&plain) / bytes as f64);
        let (seconds, read) = fetch_all(address, end, FETCH_BYTES);
        fetched = fetched.min(seconds / read as f64);
        let (seconds, read) = fetch_all(address, end, BATCH_BYTES as i32);
        small = small.min(seconds / read as f64);
    }
    let rate = |seconds_per_byte: f64| 1.0 / seconds_per_byte / 1e6;
    println!("plain sendfile, 1 MiB a call   {:7.0} MB/s", rate(raw));
    println!("fetches of 1 MiB               {:7.0} MB/s  {:4.0} %", rate(fetched), 100.0 * raw / fetched);
    println!("fetches of one batch, 64 KiB   {:7.0} MB/s  {:4.0} %", rate(small), 100.0 * raw / small);
    runtime.block_on(server.shutdown());
}

/// A server with a topic that holds the batches. Returns its log end, too.
async fn prepare(dir: &Path) -> (Server, i64) {
    let (broker, _) = Broker::open(BrokerConfig::new(dir)).await.unwrap();
    let configs = vec![("flush".to_owned(), "os".to_owned())];
    broker.create_topic(NewTopic { name: "t".to_owned(), partitions: 1, configs }).await.unwrap();
    let value = vec![b'x'; 1000];
    let mut builder = BatchBuilder::new(BatchOptions::default());
    (0..BATCH_BYTES / value.len()).for_each(|_| drop(builder.append(Timestamp(1), None, Some(&value), &[])));
    let batch = builder.finish().unwrap();
    let batches = TOTAL_BYTES / batch.len();
    for _ in 0..batches {
        broker.produce(&TopicPartition::new("t", 0), batch.clone()).await.unwrap();
    }
    let end = batches * (BATCH_BYTES / value.len());
    let config = ServerConfig { listen: vec!["127.0.0.1:0".to_owned()], ..ServerConfig::default() };
    (Server::start(broker, config).await.unwrap(), end as i64)
}

fn plain_file(path: &Path) -> usize {
    std::fs::write(path, vec![b'x'; TOTAL_BYTES]).unwrap();
    TOTAL_BYTES
}

/// Seconds that it takes to send the file to a reader that throws it away.
fn sendfile_loop(path: &Path) -> f64 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let file = File::open(path).unwrap();
    let sender = std::thread::spawn(move || {
        let (socket, _) = listener.accept().unwrap();
        let mut position = 0;
        while position < TOTAL_BYTES as u64 {
            rustix::fs::sendfile(&socket, &file, Some(&mut position), 1 << 20).unwrap();
        }
    });
    let mut socket = TcpStream::connect(address).unwrap();
    let mut buffer = vec![0; 1 << 20];
    let started = Instant::now();
    while socket.read(&mut buffer).unwrap() > 0 {}
    sender.join().unwrap();
    started.elapsed().as_secs_f64()
}

/// Seconds and bytes that it takes to fetch the topic, one request after another.
fn fetch_all(address: SocketAddr, end: i64, max_bytes: i32) -> (f64, usize) {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_nodelay(true).unwrap();
    let mut buffer = vec![0; 2 << 20];
    let (mut offset, mut read) = (0, 0);
    let started = Instant::now();
    while offset < end {
        socket.write_all(&request(offset, max_bytes)).unwrap();
        let mut len = [0; 4];
        socket.read_exact(&mut len).unwrap();
        let len = u32::from_be_bytes(len) as usize;
        let response = buffer.get_mut(..len).unwrap();
        socket.read_exact(response).unwrap();
        read += len;
        offset = next_offset(response);
    }
    (started.elapsed().as_secs_f64(), read)
}

fn request(offset: i64, max_bytes: i32) -> Bytes {
    let partition = FetchPartition::default().with_fetch_offset(offset).with_partition_max_bytes(max_bytes);
    let topic =
        FetchTopic::default().with_topic(TopicName(StrBytes::from_static_str("t"))).with_partitions(vec![partition]);
    let request = FetchRequest::default().with_min_bytes(1).with_max_wait_ms(500).with_topics(vec![topic]);
    let header = RequestHeader::default().with_request_api_key(1).with_request_api_version(VERSION);
    let mut frame = BytesMut::from(&[0; 4][..]);
    header.encode(&mut frame, ApiKey::Fetch.request_header_version(VERSION)).unwrap();
    request.encode(&mut frame, VERSION).unwrap();
    let len = frame.len() as u32 - 4;
    frame[..4].copy_from_slice(&len.to_be_bytes());
    frame.freeze()
}

/// The offset after the last batch, found by walking the batches' lengths. What precedes them has a fixed length but
/// for the length of the records itself.
fn next_offset(response: &[u8]) -> i64 {
    let mut rest = response;
    // Header, throttle time, error, session, array, topic `t`, array, index, error, three offsets, null array, replica.
    rest.advance(5 + 4 + 2 + 4 + 1 + 2 + 1 + 4 + 2 + 24 + 1 + 4);
    while rest.get_u8() >= 0x80 {}
    let mut next = 0;
    while rest.len() > 61 {
        let base = i64::from_be_bytes(rest[..8].try_into().unwrap());
        let len = i32::from_be_bytes(rest[8..12].try_into().unwrap()) as usize;
        next = base + i64::from(i32::from_be_bytes(rest[23..27].try_into().unwrap())) + 1;
        rest.advance(12 + len);
    }
    next
}
