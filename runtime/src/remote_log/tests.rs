//! A log behind a server is a log as the one in this process is.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use logmill_broker::server::{Server, ServerConfig};
use logmill_broker::{Broker, BrokerConfig};
use logmill_connectors::conformance::log::check;
use logmill_connectors::error::LogError;
use logmill_connectors::log::{Log, NewTopic, TopicPartition};
use logmill_protocol::Offset;

use super::RemoteLog;
use crate::embedded_log::EmbeddedLog;

/// Does some work with a log behind a server.
async fn served(work: impl AsyncFnOnce(RemoteLog, EmbeddedLog)) {
    let dir = tempfile::tempdir().unwrap();
    let (broker, _) = Broker::open(BrokerConfig::new(dir.path())).await.unwrap();
    let config = ServerConfig { listen: vec!["127.0.0.1:0".to_owned()], ..ServerConfig::default() };
    let server = Server::start(broker.clone(), config).await.unwrap();
    let address = server.local_addrs()[0].to_string();
    work(RemoteLog::new(&address), EmbeddedLog::new(broker.clone())).await;
    server.shutdown().await;
    broker.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn it_keeps_to_what_every_log_does() {
    served(async |remote, _| check(Arc::new(remote)).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_in_this_process_keeps_to_it_too() {
    served(async |_, embedded| check(Arc::new(embedded)).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_are_listed_described_and_deleted() {
    served(async |remote, embedded| {
        let topic = NewTopic { name: "t".into(), partitions: 1, configs: Vec::new() };
        embedded.create_topic(topic).await.unwrap();
        let place = TopicPartition { topic: "t".into(), partition: 0 };
        assert_eq!(remote.groups().await.unwrap(), []);
        assert_eq!(remote.group("g").await.unwrap(), None);
        embedded.commit_offsets("g", &[(place.clone(), Offset(0))]).await.unwrap();
        assert_eq!(remote.groups().await.unwrap()[0].name, "g");
        let group = remote.group("g").await.unwrap().unwrap();
        assert_eq!((group.state.as_str(), group.members.as_slice()), ("Empty", &[][..]));
        assert_eq!(remote.all_committed("g").await.unwrap(), [(place, Offset(0))]);
        remote.delete_group("g").await.unwrap();
        assert_eq!(remote.group("g").await.unwrap(), None);
        let gone = remote.delete_group("g").await.unwrap_err().to_string();
        assert_eq!(gone, "group `g` does not exist");
    })
    .await;
}

#[tokio::test]
async fn what_is_not_there_yet_is_refused_in_words() {
    let log = RemoteLog::new("127.0.0.1:1");
    let refused = log.init_producer("p", 1_000).await.unwrap_err();
    assert!(refused.to_string().contains("not supported over --bootstrap yet"), "{refused}");
    let nobody = log.topics().await.unwrap_err();
    assert!(matches!(nobody, LogError::Unreachable { .. }), "{nobody}");
    assert_eq!(nobody.to_string(), "no answer from 127.0.0.1:1");
}
