//! A node that runs out of files: nothing stops for good, and what was begun goes on once there are files again. The only
//! test of its process, whose limit it lowers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs::File;

use kafka_protocol::messages::MetadataRequest;
use logmill_broker::server::ServerConfig;
use logmill_broker::{BrokerError, Isolation, OffsetAt};
use rustix::process::{Resource, Rlimit, setrlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use support::client::{Client, PATIENCE, serve};
use support::{batch, open, topic, tp, uncommitted};

/// Files that the process may open.
const LIMIT: u64 = 400;

/// Opens files until there are none left.
fn take_all() -> Vec<File> {
    std::iter::from_fn(|| File::open("/dev/null").ok()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_files_goes_on_when_there_are_some_again() {
    setrlimit(Resource::Nofile, Rlimit { current: Some(LIMIT), maximum: Some(LIMIT) }).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (broker, _) = open(dir.path()).await;
    // Each batch fills a segment.
    broker.create_topic(topic("evil", 1, &[("segment.bytes", "14"), ("flush", "os")])).await.unwrap();
    broker.create_topic(topic("t", 1, &[("segment.bytes", "14"), ("flush", "os")])).await.unwrap();
    for n in 0..LIMIT as usize * 2 {
        broker.produce(&tp("evil", 0), batch(&[&n.to_string()])).await.expect("the segment there is goes on");
    }
    let segments = logmill_storage::open_segments();
    assert!(segments <= LIMIT * 3 / 4, "{segments} segments are open");
    broker.produce(&tp("t", 0), batch(&["a"])).await.unwrap();
    let refused = broker.create_topic(topic("more", 1, &[])).await.unwrap_err();
    assert!(matches!(refused, BrokerError::TooManySegments { .. }), "{refused}");

    // Connections are refused before they take the last files.
    let server = serve(&broker, ServerConfig::default()).await;
    let mut client = Client::connect(&server).await;
    client.call(12, &MetadataRequest::default()).await;
    let mut others = Vec::new();
    while let Ok(stream) = TcpStream::connect(server.local_addrs()[0]).await {
        others.push(stream);
        if others.len() > LIMIT as usize {
            break;
        }
    }
    client.call(12, &MetadataRequest::default()).await;

    // Not one file left: whatever fails fails for now.
    let taken = take_all();
    for _ in 0..5 {
        let _ = broker.produce(&tp("t", 0), batch(&["b"])).await;
        let _ = broker.produce(&tp("evil", 0), batch(&["b"])).await;
    }
    client.call(12, &MetadataRequest::default()).await;
    drop((taken, others));
    let end = broker.offset(&tp("t", 0), OffsetAt::Latest(Isolation::ReadUncommitted)).await.unwrap();
    let offset = broker.produce(&tp("t", 0), batch(&["c"])).await.expect("the partition goes on");
    assert_eq!(offset, end);
    broker.produce(&tp("evil", 0), batch(&["c"])).await.expect("the other one as well");
    assert_eq!(uncommitted(&broker, &tp("t", 0)).await.last().unwrap(), "c");
    let frame = client.frame(12, &MetadataRequest::default());
    let again = async {
        loop {
            let mut stream = TcpStream::connect(server.local_addrs()[0]).await.unwrap();
            // That those before have been closed may not have been noticed yet.
            if stream.write_all(&frame).await.is_ok() && stream.read_u32().await.is_ok() {
                break;
            }
        }
    };
    tokio::time::timeout(PATIENCE, again).await.expect("connections are accepted again");
    server.shutdown().await;
    broker.close().await.unwrap();
    drop(broker);
    let (broker, report) = open(dir.path()).await;
    assert_eq!((report.unclean_logs, report.cut.len()), (0, 0));
    broker.close().await.unwrap();
}
