//! The checker and the load judged by the original: Apache Kafka, killed once under the same load, is beyond reproach.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use logmill_tests::data::repository;
use logmill_tests::load::run::{Load, create_topic};

use super::kill::{PARTITIONS, TOPIC, members, producers};

/// Runs `tests/kafka/kafka.sh`.
fn kafka(arguments: &[&str]) {
    let script = repository().join("tests/kafka/kafka.sh");
    let output = Command::new(script).env("KAFKA_HEAP", "512m").args(arguments).output().unwrap();
    assert!(output.status.success(), "kafka.sh {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A node; killed when dropped.
struct Kafka<'a> {
    folder: &'a str,
    port: String,
}

impl Kafka<'_> {
    fn start(&self) {
        // Its default is three seconds, to let a large group gather.
        kafka(&["start", self.folder, &self.port, "group.initial.rebalance.delay.ms=0"]);
    }
}

impl Drop for Kafka<'_> {
    fn drop(&mut self) {
        let script = repository().join("tests/kafka/kafka.sh");
        let _ = Command::new(script).args(["kill", self.folder]).output();
    }
}

#[test]
fn the_checker_finds_nothing_in_what_apache_kafka_does() {
    let folder = tempfile::tempdir().unwrap();
    let folder: &Path = folder.path();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let node = Kafka { folder: folder.to_str().unwrap(), port: port.to_string() };
    node.start();
    let bootstrap = format!("127.0.0.1:{port}");
    create_topic(&bootstrap, TOPIC, PARTITIONS, &[]);
    let settings = [("enable.idempotence", "true"), ("acks", "all")];
    let load = Load::start(&bootstrap, producers(&settings), &members("cooperative-sticky"));
    let log = "see the node's own log";
    load.assert_goes_on(&log);
    kafka(&["kill", node.folder]);
    node.start();
    load.assert_goes_on(&log);
    load.check(&log).assert_none(log);
}
