//! The checker, the load and the reader judged by the original: Apache Kafka, killed once under the same load, is beyond
//! reproach, and what it wrote can be read.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use logmill_protocol::{BatchLimits, batches};
use logmill_storage::{LogConfig, PartitionLog};
use logmill_tests::data::repository;
use logmill_tests::load::producer;
use logmill_tests::load::run::{Load, create_topic};
use rdkafka::consumer::{BaseConsumer, Consumer};

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
fn the_checker_finds_nothing_in_what_apache_kafka_does_and_its_segments_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let folder: &Path = folder.path();
    let port = logmill_tests::port::free();
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

    let client: BaseConsumer = producer::config(&bootstrap, "ends").create().unwrap();
    let end = |partition| client.fetch_watermarks(TOPIC, partition, Duration::from_secs(30)).unwrap().1;
    let ends: Vec<i64> = (0..PARTITIONS).map(end).collect();
    kafka(&["stop", node.folder]);
    for (partition, end) in ends.into_iter().enumerate() {
        assert_eq!(records_of(&find(folder, &format!("{TOPIC}-{partition}"))), end, "partition {partition}");
    }
}

/// A folder of this name below `folder`.
fn find(folder: &Path, name: &str) -> PathBuf {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()) {
            if path.file_name().is_some_and(|found| found == name) {
                return path;
            }
            folders.push(path);
        }
    }
    panic!("no folder {name}")
}

/// How many records our storage finds in a partition's folder that Kafka wrote, each of them decoded.
fn records_of(folder: &Path) -> i64 {
    let (log, recovery) = PartitionLog::open(folder, LogConfig::default()).unwrap();
    assert!(recovery.cut.is_empty(), "{:?}", recovery.cut);
    log.verify().unwrap();
    let (mut records, mut next, mut scratch) = (0, log.log_start(), Vec::new());
    while next < log.log_end() {
        let read = log.read(next, 1 << 20, log.log_end()).unwrap();
        for batch in batches(&read.bytes) {
            for record in batch.unwrap().records(&mut scratch, &BatchLimits::STORED).unwrap() {
                assert!(record.unwrap().value.is_some());
                records += 1;
            }
        }
        next = read.next_offset;
    }
    records
}
