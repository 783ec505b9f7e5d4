//! Fuzzes the server over TCP: mutated requests of every API it serves, in pieces and pipelined. None may panic, stall
//! it or make it take memory out of proportion, and whoever comes after is served.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../../protocol/tests/common/fuzz.rs"]
mod fuzz;
mod support;

use std::sync::atomic::{AtomicUsize, Ordering};

use fastrand::Rng;
use kafka_protocol::messages::{ApiVersionsRequest, MetadataRequest};
use logmill_broker::server::{Server, ServerConfig};
use logmill_protocol::wire::testing::{described, random_frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use support::client::{Client, PATIENCE, serve};
use support::{open, topic};

/// Most bytes that a conversation may make the server allocate in all: a topic with its segments takes a few.
const MOST_ALLOCATED: usize = 256 << 20;

static PANICS: AtomicUsize = AtomicUsize::new(0);

#[test]
fn a_server_that_is_sent_mutated_requests_goes_on_serving() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (broker, server) = runtime.block_on(async {
        let (broker, _) = open(dir.path()).await;
        broker.create_topic(topic("flights", 2, &[])).await.unwrap();
        broker.create_topic(topic("g", 1, &[("compression.type", "zstd")])).await.unwrap();
        let config = ServerConfig { max_frame_bytes: 1 << 20, max_connections_per_ip: 1000, ..ServerConfig::default() };
        let server = serve(&broker, config).await;
        (broker, server)
    });
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        PANICS.fetch_add(1, Ordering::SeqCst);
        hook(panic);
    }));
    let all: Vec<_> = described().collect();
    let mut answers = 0;
    let make = |random: &mut Rng| {
        let mut sent = Vec::new();
        for _ in 0..random.usize(1..20) {
            let (api, version) = all[random.usize(..all.len())];
            let mut frame = random_frame(api, version, random);
            let donor = random_frame(api, version, random);
            // Most are whole, since the first that is not ends the connection.
            for _ in 0..random.usize(..30).saturating_sub(27) {
                let mut body = frame.split_off(8.min(frame.len()));
                fuzz::mutate(random, &mut body, &donor, 64);
                frame.extend(body);
            }
            let size = if random.u8(..100) == 0 { random.u32(..) } else { frame.len() as u32 };
            sent.extend_from_slice(&size.to_be_bytes());
            sent.extend(frame);
        }
        sent
    };
    fuzz::run("server", 500, make, |bytes, _| {
        answers += runtime.block_on(talk(&server, bytes));
        assert_eq!(PANICS.load(Ordering::SeqCst), 0, "the server panicked");
        MOST_ALLOCATED
    });
    assert!(answers > 1000, "{answers} answers");
    runtime.block_on(async {
        server.shutdown().await;
        broker.close().await.unwrap();
    });
    assert_eq!(PANICS.load(Ordering::SeqCst), 0);
}

/// Sends the bytes and nothing more, and counts the answers until the server closes. Then asks as another client.
async fn talk(server: &Server, bytes: &[u8]) -> usize {
    let conversation = async {
        let mut stream = TcpStream::connect(server.local_addrs()[0]).await.unwrap();
        let (mut read, mut write) = stream.split();
        let send = async {
            for piece in bytes.chunks(700) {
                // It may have closed already.
                if write.write_all(piece).await.is_err() {
                    break;
                }
            }
            let _ = write.shutdown().await;
        };
        let mut received = Vec::new();
        let (_, _) = tokio::join!(send, read.read_to_end(&mut received));
        count_frames(&received)
    };
    let answers = tokio::time::timeout(PATIENCE, conversation).await.expect("the connection ends");
    let mut other = Client::connect(server).await;
    let answered = async {
        other.call(0, &ApiVersionsRequest::default()).await;
        other.call(12, &MetadataRequest::default()).await;
    };
    tokio::time::timeout(PATIENCE, answered).await.expect("others are served");
    answers
}

/// The answers that came whole. A connection that is reset may cut the last one.
fn count_frames(mut received: &[u8]) -> usize {
    let mut count = 0;
    while let Some((size, rest)) = received.split_first_chunk::<4>() {
        let Some(rest) = rest.get(u32::from_be_bytes(*size) as usize..) else { break };
        received = rest;
        count += 1;
    }
    count
}
