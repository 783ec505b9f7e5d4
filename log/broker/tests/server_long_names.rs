//! Strings at Kafka's bound of 32,767 bytes, and beyond it where versions allow that: every request is answered.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use fastrand::Rng;
use kafka_protocol::messages::{ApiKey, FetchRequest, fetch_request};
use logmill_broker::server::ServerConfig;
use logmill_protocol::wire::testing::{Values, described, made_frame};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use support::client::{Client, PATIENCE, serve};
use support::groups::topic_name;
use support::{batch, open, topic};

/// Puts the text everywhere.
struct Long<'r> {
    random: &'r mut Rng,
    text: String,
}

impl Values for Long<'_> {
    fn random(&mut self) -> &mut Rng {
        self.random
    }

    fn number(&mut self, field: &str, _: usize) -> i128 {
        match field {
            "session_timeout_ms" => 6_000,
            "partition" | "partition_index" | "partition_indexes" | "index" => 0,
            "resource_type" => 2,
            "session_id" | "key_type" | "group_type" => 0,
            "session_epoch" => -1,
            _ => 1,
        }
    }

    fn string(&mut self, _: &str) -> String {
        self.text.clone()
    }

    fn bytes(&mut self, field: &str) -> Vec<u8> {
        if field == "records" { batch(&["a"]).to_vec() } else { vec![0; 10] }
    }

    fn count(&mut self, _: &str) -> usize {
        2
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_of_the_longest_strings_are_answered() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, _) = open(dir.path()).await;
    broker.create_topic(topic("t", 1, &[])).await.unwrap();
    let server = serve(&broker, ServerConfig::default()).await;
    for (api, version) in described() {
        let is_flexible = api.request_header_version(version) >= 2;
        // What is cut may be cut in the middle of a character.
        let texts = ["x".repeat(32_767), "ü".repeat(16_383), if is_flexible { "ü".repeat(50_000) } else { "ü".into() }];
        for text in texts {
            let mut random = Rng::with_seed(3);
            let (frame, len) = {
                let len = text.len();
                (made_frame(api, version, &mut Long { random: &mut random, text }), len)
            };
            let mut stream = TcpStream::connect(server.local_addrs()[0]).await.unwrap();
            stream.write_all(&(frame.len() as u32).to_be_bytes()).await.unwrap();
            stream.write_all(&frame).await.unwrap();
            let answer = tokio::time::timeout(PATIENCE, stream.read_u32()).await.expect("an answer in time");
            assert!(answer.is_ok(), "{api:?} version {version}, {len} bytes: {answer:?}");
        }
    }
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_begun_with_long_names_goes_on_in_a_version_of_short_ones() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, _) = open(dir.path()).await;
    let server = serve(&broker, ServerConfig::default()).await;
    let mut client = Client::connect(&server).await;
    let partition = fetch_request::FetchPartition::default().with_partition(0).with_partition_max_bytes(100);
    let long = topic_name(&"ü".repeat(50_000));
    let named = fetch_request::FetchTopic::default().with_topic(long).with_partitions(vec![partition]);
    let request = FetchRequest::default().with_session_epoch(0).with_max_bytes(1_000).with_topics(vec![named]);
    let begun = client.call(12, &request).await;
    assert_ne!(begun.session_id, 0);
    let request = FetchRequest::default().with_session_id(begun.session_id).with_session_epoch(1).with_max_bytes(1_000);
    let next = client.call(11, &request).await;
    assert_eq!(next.responses.len(), 1, "{:?}", ApiKey::Fetch);
    server.shutdown().await;
}
