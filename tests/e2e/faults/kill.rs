//! Killed under load, again and again: the checker finds nothing.

use std::fs::OpenOptions;
use std::path::PathBuf;
use std::time::Duration;

use logmill_tests::checker::Kind;
use logmill_tests::load::member::MemberSpec;
use logmill_tests::load::producer::ProducerSpec;
use logmill_tests::load::run::{Load, create_topic};
use logmill_tests::node::{Node, Signal};
use logmill_tests::outcome;

pub(super) const TOPIC: &str = "killed";
pub(super) const PARTITIONS: i32 = 6;
const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];

/// Eight producers of which no two are alike.
pub(super) fn producers(settings: &[(&'static str, &str)]) -> Vec<ProducerSpec> {
    let producer = |id: u32| {
        let at = usize::try_from(id).unwrap();
        let mut spec = ProducerSpec::new(id, TOPIC, PARTITIONS)
            .set("compression.type", CODECS[at % CODECS.len()])
            .set("linger.ms", [0, 2, 20][at % 3])
            .set("max.in.flight.requests.per.connection", [5, 1, 3][at % 3]);
        spec.value_len = [60, 400, 2000][at % 3];
        spec.rate = 300;
        settings.iter().fold(spec, |spec, (key, value)| spec.set(key, value))
    };
    (0..8).map(producer).collect()
}

/// Three members of one group: one that keeps its place through restarts, one that reads in small bites, and one that
/// waits for large ones.
pub(super) fn members(strategy: &str) -> Vec<MemberSpec> {
    let settings: [(&str, &str); 3] =
        [("group.instance.id", "the-first"), ("fetch.message.max.bytes", "4096"), ("fetch.min.bytes", "100000")];
    let member = |(number, (key, value))| member(number, strategy).set(key, value);
    (1..).zip(settings).map(member).collect()
}

fn member(number: u32, strategy: &str) -> MemberSpec {
    let spec = MemberSpec::new(&format!("member {number}"), "readers", TOPIC);
    spec.set("partition.assignment.strategy", strategy)
}

/// How many kills lie between two changes of the group.
const KILLS_PER_CHANGE: u32 = 7;

/// Kills the node at random moments, each after everyone has made progress since the last.
fn kill(node: &mut Node, load: &mut Load, times: u32, strategy: &str) {
    let mut random = fastrand::Rng::with_seed(times.into());
    for nth in 1..=times {
        load.await_progress(&load.progress(), 30, node);
        std::thread::sleep(Duration::from_millis(random.u64(0..400)));
        if nth % KILLS_PER_CHANGE == 0 {
            load.replace_member(&member(10 + nth, strategy));
        }
        node.kill();
        node.start();
    }
    load.assert_goes_on(node);
}

#[test]
fn killed_twenty_times_it_loses_and_doubles_nothing_that_idempotent_producers_sent_to_disk() {
    let folder = tempfile::tempdir().unwrap();
    let mut node = Node::new(folder.path());
    node.start();
    create_topic(&node.bootstrap(), TOPIC, PARTITIONS, &[("segment.bytes", "1048576")]);
    let settings = [("enable.idempotence", "true"), ("acks", "all")];
    let strategy = "range,roundrobin";
    let mut load = Load::start(&node.bootstrap(), producers(&settings), &members(strategy));
    kill(&mut node, &mut load, 20, strategy);
    load.check(&node).assert_none(&node);
}

#[test]
fn killed_it_loses_nothing_that_was_acknowledged_from_the_page_cache_either() {
    let folder = tempfile::tempdir().unwrap();
    let mut node = Node::new(folder.path());
    node.start();
    create_topic(&node.bootstrap(), TOPIC, PARTITIONS, &[("segment.bytes", "1048576")]);
    let strategy = "cooperative-sticky";
    let mut load = Load::start(&node.bootstrap(), producers(&[("acks", "1")]), &members(strategy));
    kill(&mut node, &mut load, 8, strategy);
    // The page cache outlives the process. A producer that is not idempotent sends again what was not acknowledged, and
    // so it may come twice, and after what was sent later.
    let allowed = [Kind::Duplicate, Kind::NonmonotonicSend];
    load.check(&node).except(&allowed).assert_none(&node);
}

/// Where the largest log of the topic lies: the folder of its partition holds one segment.
fn largest_segment(node: &Node) -> PathBuf {
    let segments = outcome::files(node.data_dir()).into_iter().filter(|path| {
        path.extension().is_some_and(|extension| extension == "log") && path.to_string_lossy().contains(TOPIC)
    });
    segments.max_by_key(|path| path.metadata().unwrap().len()).unwrap()
}

#[test]
fn were_acknowledged_records_to_vanish_it_would_be_found_out() {
    let folder = tempfile::tempdir().unwrap();
    let mut node = Node::new(folder.path());
    node.start();
    create_topic(&node.bootstrap(), TOPIC, 1, &[]);
    // Small batches, of which only one at a time is not acknowledged.
    let producer = ProducerSpec::new(1, TOPIC, 1).set("acks", "all").set("batch.num.messages", 5);
    let producer = producer.set("max.in.flight.requests.per.connection", 1);
    let load = Load::start(&node.bootstrap(), vec![producer], &[]);
    load.await_progress(&load.progress(), 200, &node);
    node.kill();
    // Two thirds of the log go, as if they had never been on disk; their offsets are given out again.
    let segment = OpenOptions::new().write(true).open(largest_segment(&node)).unwrap();
    segment.set_len(segment.metadata().unwrap().len() / 3).unwrap();
    node.start();
    load.assert_goes_on(&node);
    let found = load.check(&node).kinds();
    assert!(found.contains(&Kind::LostWrite) && found.contains(&Kind::InconsistentOffsets), "{found:?}\n{node}");
}

/// Every named point between two steps of the log's work on its files that load leads to.
const POINTS: [&str; 7] = [
    "storage::before_append_write",
    "storage::after_append_write",
    "storage::before_roll",
    "storage::after_roll_create",
    "storage::after_roll",
    "storage::before_sync",
    "storage::after_sync",
];

/// Those that the end of the node leads to.
const POINTS_OF_THE_END: [&str; 3] =
    ["storage::after_index_flush", "storage::before_checkpoint_rename", "storage::before_recovery_point"];

#[test]
fn died_at_each_step_of_the_log_under_load_it_loses_and_doubles_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut node = Node::new(folder.path());
    node.start();
    // Small segments, so that there are many rolls.
    create_topic(&node.bootstrap(), TOPIC, PARTITIONS, &[("segment.bytes", "65536")]);
    let settings = [("enable.idempotence", "true"), ("acks", "all")];
    let load = Load::start(&node.bootstrap(), producers(&settings), &members("roundrobin"));
    for (nth, point) in POINTS.iter().chain(&POINTS_OF_THE_END).enumerate() {
        load.assert_goes_on(&node);
        node.kill();
        // Not always at the first passing.
        node.set("FAILPOINTS", format!("{point}={}*off->panic", nth % 4));
        node.spawn();
        if POINTS_OF_THE_END.contains(point) {
            node.await_ready();
            node.signal(Signal::TERM);
        }
        assert_eq!(node.wait(), None, "nobody died at {point}\n{node}");
        node.unset("FAILPOINTS");
        node.start();
    }
    load.assert_goes_on(&node);
    load.check(&node).assert_none(&node);
}
