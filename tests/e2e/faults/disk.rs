//! A disk that is full, and one that is slow: an error or a delay for those who write, service for those who read.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use logmill_tests::checker::check;
use logmill_tests::load::batch::{batch, produce_frame, produced};
use logmill_tests::load::member::MemberSpec;
use logmill_tests::load::producer::{ProducerSpec, config};
use logmill_tests::load::raw::{Raw, frame};
use logmill_tests::load::reader::read_all;
use logmill_tests::load::recorder::Recorder;
use logmill_tests::load::run::{Load, create_topic};
use logmill_tests::node::Node;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext};

const LIMIT: Duration = Duration::from_secs(60);
const TOPIC: &str = "on-disk";

/// A file system of its own, of a size of its own; unmounted when dropped.
struct Disk {
    path: PathBuf,
}

impl Disk {
    fn new(path: &Path, mib: u32) -> Self {
        fs::create_dir_all(path).unwrap();
        let options = format!("size={mib}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(path).output().unwrap();
        let errors = String::from_utf8_lossy(&mounted.stderr);
        assert!(mounted.status.success(), "the tests of full disks mount one, as root: {errors}");
        Self { path: path.to_owned() }
    }

    /// Takes all the room that is left; gives it back when the file is deleted.
    fn fill(&self) -> PathBuf {
        let path = self.path.join("ballast");
        let mut file = File::create(&path).unwrap();
        let block = vec![0; 64 << 10];
        let mut size = block.len();
        while size > 0 {
            // In ever smaller pieces, to the last byte.
            if file.write_all(&block[..size]).is_err() {
                size /= 2;
            }
        }
        path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.path).output();
    }
}

/// Keeps how each record of a producer fared.
#[derive(Default)]
struct Fates(std::sync::Mutex<Vec<Result<(), KafkaError>>>);

impl rdkafka::ClientContext for Fates {}

impl ProducerContext for Fates {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        self.0.lock().unwrap().push(result.as_ref().map(|_| ()).map_err(|(error, _)| error.clone()));
    }
}

/// Sends records of a producer that never tries again, until one is refused; the refusal.
fn refused(bootstrap: &str, more: &Node) -> RDKafkaErrorCode {
    let mut config = config(bootstrap, "once");
    config.set("message.send.max.retries", "0").set("message.timeout.ms", "60000").set("linger.ms", "0");
    let producer: BaseProducer<Fates> = config.create_with_context(Fates::default()).unwrap();
    let payload = vec![b'x'; 100_000];
    let deadline = Instant::now() + LIMIT;
    loop {
        producer.send(BaseRecord::<(), _>::to("victim").partition(0).payload(&payload)).map_err(|(e, _)| e).unwrap();
        while producer.in_flight_count() > 0 {
            producer.poll(Duration::from_millis(10));
        }
        let fate = producer.context().0.lock().unwrap().pop();
        match fate {
            Some(Err(KafkaError::MessageProduction(code))) => return code,
            Some(Ok(())) => assert!(Instant::now() < deadline, "a full disk takes everything\n{more}"),
            other => panic!("{other:?}\n{more}"),
        }
    }
}

#[test]
fn a_full_disk_refuses_what_is_written_and_serves_what_is_read_until_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let mut node = Node::new(folder.path());
    let disk = Disk::new(node.data_dir(), 96);
    node.start();
    create_topic(&node.bootstrap(), "victim", 1, &[]);
    create_topic(&node.bootstrap(), TOPIC, 2, &[]);
    let mut producer = ProducerSpec::new(1, TOPIC, 2).set("enable.idempotence", true);
    (producer.rate, producer.value_len) = (200, 1000);
    let load = Load::start(&node.bootstrap(), vec![producer], &[MemberSpec::new("member 1", "disk", TOPIC)]);
    load.assert_goes_on(&node);
    for restart in [false, true] {
        let ballast = disk.fill();
        // An error that says that it is the disk, so that whoever wants to can try again.
        assert_eq!(refused(&node.bootstrap(), &node), RDKafkaErrorCode::KafkaStorageError, "{node}");
        // What is there can be read.
        let recorder = Recorder::default();
        let ends = read_all(&node.bootstrap(), &recorder, TOPIC, 2, LIMIT);
        assert!(ends.iter().sum::<i64>() > 0, "{ends:?}");
        if restart {
            // The node finds its log again on a disk that is still full.
            node.kill();
            node.start();
            read_all(&node.bootstrap(), &recorder, TOPIC, 2, LIMIT);
        }
        fs::remove_file(ballast).unwrap();
        load.assert_goes_on(&node);
    }
    check(&load.finish(&node)).assert_none(&node);
    assert_eq!(node.terminate(), Some(0), "{node}");
    drop(disk);
}

/// A node whose disk does each of these slowly once: everyone who does not wait for it goes on meanwhile.
fn slow(point: &str, acks: i16) {
    let folder = tempfile::tempdir().unwrap();
    let mut node = Node::new(folder.path());
    node.start();
    create_topic(&node.bootstrap(), "victim", 1, &[]);
    create_topic(&node.bootstrap(), "quick", 1, &[]);
    node.kill();
    // Long enough that a machine with much else to do gets through what follows meanwhile.
    node.set("FAILPOINTS", format!("{point}=1*sleep(20000)"));
    node.start();
    let one = batch(0, &[14, 0, 0, 0, 1, 2, b'v', 0]);
    let mut waiting = Raw::connect(node.port()).unwrap();
    waiting.send(&produce_frame("victim", acks, &one)).unwrap();
    // The first to come is the one that is held up.
    std::thread::sleep(Duration::from_millis(500));
    let mut quick = Raw::connect(node.port()).unwrap();
    for round in 0..200 {
        quick.send(&produce_frame("quick", 1, &one)).unwrap();
        let answer = quick.answer().unwrap().unwrap_or_else(|| panic!("closed in round {round}\n{node}"));
        assert_eq!(produced(&answer, "quick"), 0, "round {round}\n{node}");
        quick.send(&frame(3, 1, &[0, 0, 0, 0])).unwrap();
        assert!(quick.answer().unwrap().is_some(), "round {round}\n{node}");
    }
    waiting.stream.set_nonblocking(true).unwrap();
    let early = waiting.answer();
    assert!(early.is_err(), "{point}: the slow one is answered first: {early:?}\n{node}");
    waiting.stream.set_nonblocking(false).unwrap();
    let answer = waiting.answer().unwrap().unwrap_or_else(|| panic!("{point}: closed\n{node}"));
    assert_eq!(produced(&answer, "victim"), 0, "{node}");
}

#[test]
fn a_slow_sync_holds_up_only_those_who_wait_for_the_disk() {
    slow("storage::before_sync", -1);
}

#[test]
fn a_slow_write_holds_up_only_those_who_write_there() {
    slow("storage::before_append_write", 1);
}

#[test]
fn a_partition_whose_disk_failed_says_so_until_the_node_is_restarted_and_the_others_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut node = Node::new(folder.path());
    node.start();
    create_topic(&node.bootstrap(), "victim", 1, &[]);
    create_topic(&node.bootstrap(), "other", 1, &[]);
    node.kill();
    node.set("FAILPOINTS", "storage::sync=1*return");
    node.start();
    let one = batch(0, &[14, 0, 0, 0, 1, 2, b'v', 0]);
    let produce = |node: &Node, topic: &str, acks: i16| {
        let mut raw = Raw::connect(node.port()).unwrap();
        raw.send(&produce_frame(topic, acks, &one)).unwrap();
        produced(&raw.answer().unwrap().unwrap_or_else(|| panic!("closed\n{node}")), topic)
    };
    let storage_error = 56;
    assert_eq!(produce(&node, "victim", -1), storage_error, "{node}");
    for _ in 0..10 {
        // What a failed sync left in the page cache may never reach the disk: nothing is built on it.
        assert_eq!(produce(&node, "victim", -1), storage_error, "{node}");
        assert_eq!(produce(&node, "victim", 1), storage_error, "{node}");
        assert_eq!(produce(&node, "other", -1), 0, "{node}");
    }
    read_all(&node.bootstrap(), &Recorder::default(), "victim", 1, LIMIT);
    node.kill();
    node.unset("FAILPOINTS");
    node.start();
    assert_eq!(produce(&node, "victim", -1), 0, "{node}");
}
