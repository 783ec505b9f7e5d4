//! Other people's clients, unchanged: each goes through its scenarios, and reads what the others wrote.

use logmill_tests::client::{self, WRITERS};
use logmill_tests::node::Node;

/// A node that need not wait for a large group to gather.
fn node(folder: &tempfile::TempDir) -> Node {
    let config = folder.path().join("node.yaml");
    std::fs::write(&config, "groups: { initial_rebalance_delay: 0s }\n").unwrap();
    let mut node = Node::new(folder.path());
    node.arguments(&["--config", config.to_str().unwrap()]);
    node.start();
    node
}

#[track_caller]
fn scenarios_of(client: &str) {
    let folder = tempfile::tempdir().unwrap();
    let mut node = node(&folder);
    client::run(client, &mut node, &[]);
    assert!(!node.log().contains("panicked"), "{node}");
}

#[test]
fn kcat_sees_a_kafka_broker() {
    scenarios_of("kcat");
}

#[test]
fn confluent_kafka_sees_a_kafka_broker() {
    scenarios_of("confluent");
}

#[test]
fn kafka_python_sees_a_kafka_broker() {
    scenarios_of("kafka-python");
}

#[test]
fn aiokafka_sees_a_kafka_broker() {
    scenarios_of("aiokafka");
}

#[test]
fn the_java_client_of_3_9_sees_a_kafka_broker() {
    scenarios_of("java-3.9");
}

#[test]
fn the_java_client_of_4_1_sees_a_kafka_broker() {
    scenarios_of("java-4.1");
}

#[test]
fn franz_go_sees_a_kafka_broker() {
    scenarios_of("franz-go");
}

#[test]
fn kafkajs_sees_a_kafka_broker() {
    scenarios_of("kafkajs");
}

#[test]
fn kafkas_own_tools_see_a_kafka_broker_and_read_its_segments() {
    scenarios_of("kafka-tools");
}

#[test]
fn what_one_client_writes_every_other_reads() {
    let folder = tempfile::tempdir().unwrap();
    let mut node = node(&folder);
    for client in WRITERS {
        client::run(client, &mut node, &["write_matrix"]);
    }
    for client in WRITERS.iter().chain(&["kcat"]) {
        client::run(client, &mut node, &["read_matrix"]);
    }
}
