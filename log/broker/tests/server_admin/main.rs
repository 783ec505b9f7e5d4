//! Metadata and administration over the wire: every error, every version, and what is left after a restart.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod configs;
mod describe;
mod metadata;
#[path = "../support/mod.rs"]
mod support;
mod topics;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{MetadataRequest, MetadataResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use logmill_broker::Broker;
use logmill_broker::server::{Server, ServerConfig};
use tempfile::TempDir;

use support::client::{Client, serve};
use support::open;

/// A broker with its server, and a client of it.
struct Fixture {
    dir: TempDir,
    broker: Broker,
    server: Server,
    client: Client,
}

async fn start(config: ServerConfig) -> Fixture {
    start_in(tempfile::tempdir().unwrap(), config).await
}

async fn start_in(dir: TempDir, config: ServerConfig) -> Fixture {
    let (broker, _) = open(dir.path()).await;
    let server = serve(&broker, config).await;
    let client = Client::connect(&server).await;
    Fixture { dir, broker, server, client }
}

impl Fixture {
    async fn restart(self) -> Self {
        drop(self.client);
        self.server.shutdown().await;
        self.broker.close().await.unwrap();
        drop(self.broker);
        start_in(self.dir, ServerConfig::default()).await
    }
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn name(name: &str) -> TopicName {
    TopicName(text(name))
}

fn is(code: i16, expected: ResponseError) -> bool {
    code == expected.code()
}

fn error(code: i16) -> Option<ResponseError> {
    ResponseError::try_from_code(code)
}

fn by_name(names: &[&str]) -> MetadataRequest {
    let topics = names.iter().map(|n| MetadataRequestTopic::default().with_name(Some(name(n)))).collect();
    MetadataRequest::default().with_topics(Some(topics)).with_allow_auto_topic_creation(true)
}

fn names(response: &MetadataResponse) -> Vec<String> {
    response.topics.iter().map(|topic| topic.name.as_ref().unwrap().to_string()).collect()
}
