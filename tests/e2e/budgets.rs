//! Memory stays flat whatever the file's length, and small whatever the number of partitions.

use std::fs;
use std::time::Duration;

use logmill_tests::data::{flights_of_the_week, flights_of_the_year};
use logmill_tests::load::run::create_topic;
use logmill_tests::node::Node;
use logmill_tests::site::Site;

/// The peak of resident memory of a run over a file, in MB.
fn peak_mb(input: &std::path::Path) -> u64 {
    let site = Site::new();
    site.write(
        "pipeline.yaml",
        format!(
            "pipeline: year\n\
             sources: {{ flights: {{ type: file, path: '{}', format: json }} }}\n\
             operators: {{ late: {{ sql: SELECT * FROM flights WHERE dep_delay > 15 }} }}\n\
             sinks: {{ lake: {{ type: object_store, input: late, url: ./lake, format: parquet, partition_by: [carrier] }} }}\n",
            input.display()
        ),
    );
    let mut run = site.start("run", &["run", "pipeline.yaml"]);
    let status = format!("/proc/{}/status", run.pid());
    let mut peak = 0;
    let code = loop {
        // The kernel's own high-water mark; the last reading before the end is as good as final.
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        peak = peak.max(kib.unwrap_or(0) / 1024);
        if let Some(code) = run.ended() {
            break code;
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    assert_eq!(code, Some(0), "{}", run.errors());
    peak
}

#[test]
fn a_year_takes_no_more_memory_than_its_bound() {
    let (week, year) = (peak_mb(&flights_of_the_week()), peak_mb(flights_of_the_year()));
    assert!(week > 0 && year > 0);
    assert!(year < 300, "a year took {year} MB, a week {week} MB");
}

#[test]
fn a_node_with_two_thousand_idle_partitions_stays_within_its_bound() {
    let folder = tempfile::tempdir().unwrap();
    let mut node = Node::new(folder.path());
    node.start();
    for topic in 0..20 {
        create_topic(&node.bootstrap(), &format!("topic-{topic}"), 100, &[]);
    }
    let within_bound = |node: &Node, when: &str| {
        let megabytes = node.memory_bytes() >> 20;
        assert!((1..300).contains(&megabytes), "{megabytes} MB {when}");
    };
    within_bound(&node, "after they were made");
    assert_eq!(node.terminate(), Some(0), "{node}");
    node.start();
    within_bound(&node, "after a restart");
    node.kill();
    node.start();
    within_bound(&node, "after a crash");
}
