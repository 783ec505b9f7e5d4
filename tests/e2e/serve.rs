//! `logmill serve`: how it starts, what it refuses, how it ends; and the commands that speak to it.

use std::io::Write;
use std::net::TcpListener;
use std::process::Stdio;
use std::time::{Duration, Instant};

use logmill_tests::site::{Finished, Running, Site};

const LIMIT: Duration = Duration::from_secs(60);

/// A server on a port of its own: the process and its address.
fn serve(site: &Site, name: &str, more: &[&str]) -> (Running, String) {
    let mut arguments = vec!["serve", "--listen", "127.0.0.1:0"];
    arguments.extend(more);
    let mut server = site.start(name, &arguments);
    let address = listening(&mut server);
    (server, address)
}

/// Waits until a server says where it listens.
fn listening(server: &mut Running) -> String {
    let deadline = Instant::now() + LIMIT;
    loop {
        let said = server.errors();
        if let Some((_, rest)) = said.split_once("logmill: listening on ")
            && let Some((address, _)) = rest.split_once(" (node ")
        {
            return address.to_owned();
        }
        assert!(server.ended().is_none() && Instant::now() < deadline, "it does not listen:\n{said}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_server_says_where_it_is_and_ends_well_when_told_to() {
    let site = Site::new();
    let (mut server, address) = serve(&site, "first", &[]);
    assert!(!address.ends_with(":0"), "{address}");
    assert!(server.errors().contains("(node 1, data dir "), "{}", server.errors());
    // The data dir has an owner now, and commands say who it is.
    site.run(&["serve", "--listen", "127.0.0.1:0"]).fails_with(&["in use by", "--data-dir"]);
    server.terminate();
    assert_eq!(server.wait(LIMIT), Some(0));
    // It was closed: the next one opens it, and ctrl-C does as SIGTERM.
    let (mut server, _) = serve(&site, "second", &[]);
    server.interrupt();
    assert_eq!(server.wait(LIMIT), Some(0));
}

#[test]
fn an_address_that_cannot_be_listened_on_is_explained() {
    let site = Site::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    site.run(&["serve", "--listen", &address]).fails_with(&[&address, "another process listens there", "--listen"]);
    let check = |arguments: &[&str], expected: &[&str]| {
        let mut all = vec!["serve"];
        all.extend(arguments);
        site.run(&all).fails_with(expected);
    };
    check(&["--listen", "127.0.0.1"], &["`127.0.0.1` is no address", "it has no port"]);
    check(&["--listen", "0.0.0.0:0"], &["`0.0.0.0:0`", "--advertise"]);
    check(&["--listen", "SSL://127.0.0.1:0"], &["TLS and SASL are not supported yet"]);
    check(&["--listen", "192.0.2.1:0"], &["no such address"]);
}

#[test]
fn mistakes_in_a_nodes_config_are_told_where_they_stand() {
    let site = Site::new();
    site.write("node.yaml", "node: { id: 3 }\nlisen: [127.0.0.1:0]\nlimits: { max_in_flight: many }\n");
    site.run(&["serve", "--config", "node.yaml"]).fails_with(&[
        "node.yaml:2:1",
        "unknown key `lisen`",
        "`listen`",
        "node.yaml:3:",
        "a whole number",
    ]);
    site.run(&["serve", "--config", "other.yaml"]).fails_with(&["could not read `other.yaml`", "No such file"]);
}

#[test]
fn a_file_configures_a_node_and_flags_stand_over_it() {
    let mut site = Site::new();
    site.unset_data_dir();
    site.write("etc/node.yaml", "node: { id: 3 }\nlisten: [\"${ADDRESS}\"]\ndata_dir: kept\n");
    site.set("ADDRESS", "127.0.0.1:0");
    let mut server = site.start("file", &["serve", "--config", "etc/node.yaml"]);
    listening(&mut server);
    assert!(server.errors().contains("(node 3, data dir etc/kept)"), "{}", server.errors());
    server.terminate();
    assert_eq!(server.wait(LIMIT), Some(0));
    assert!(site.path().join("etc/kept").is_dir());
    let mut server = site.start("flag", &["serve", "--config", "etc/node.yaml", "--data-dir", "flagged"]);
    listening(&mut server);
    assert!(server.errors().contains("(node 3, data dir flagged)"), "{}", server.errors());
}

fn feed(site: &Site, arguments: &[&str], input: &str) -> Finished {
    let mut child =
        site.command(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A command that takes no input may have ended already.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap().into()
}

/// What the commands print, one after the other, on a log that is empty at first.
fn tour(site: &Site, address: &[&str]) -> String {
    let mut said = String::new();
    let mut tell = |arguments: &[&str], input: &str| {
        let mut all = arguments.to_vec();
        all.extend(address);
        let finished = feed(site, &all, input);
        said.push_str(&format!("{arguments:?}: {:?}\n{}{}\n", finished.code, finished.stdout, finished.stderr));
    };
    tell(&["topic", "create", "orders", "--config", "retention.ms=-1"], "");
    tell(&["topic", "create", "orders"], "");
    tell(&["topic", "list"], "");
    tell(&["produce", "orders", "--header", "h=v"], "{\"id\":1,\"amount\":2.5}\n{\"id\":2,\"amount\":4}\n");
    tell(&["produce", "ordres"], "x\n");
    tell(&["consume", "orders", "--group", "g", "--max", "1"], "");
    tell(&["consume", "orders", "--group", "g"], "");
    tell(&["consume", "orders", "--from", "1", "--format", "key-value"], "");
    tell(&["sql", "SELECT count(*) AS n, sum(amount) AS total FROM orders WHERE _offset > 0"], "");
    tell(&["sql", "SELECT 1 FROM ordres"], "");
    tell(&["group", "list"], "");
    tell(&["group", "describe", "g"], "");
    tell(&["group", "describe", "gg", "--json"], "");
    tell(&["group", "reset-offsets", "g", "--topic", "orders", "--to", "1", "--dry-run"], "");
    tell(&["group", "reset-offsets", "g", "--topic", "orders", "--to", "1"], "");
    tell(&["group", "describe", "g", "--json"], "");
    tell(&["consume", "orders", "--group", "g"], "");
    tell(&["topic", "alter", "orders", "--partitions", "3", "--config", "retention.ms=", "--config", "flush=os"], "");
    tell(&["topic", "alter", "orders", "--config", "retention=1"], "");
    tell(&["topic", "describe", "orders", "--json"], "");
    tell(&["group", "delete", "g"], "");
    tell(&["group", "list"], "");
    tell(&["topic", "delete", "orders"], "");
    tell(&["topic", "describe", "orders"], "");
    said
}

#[test]
fn commands_do_the_same_over_a_server_as_on_a_data_dir() {
    let own = Site::new();
    let on_data_dir = tour(&own, &[]);
    let site = Site::new();
    let (mut server, address) = serve(&site, "server", &[]);
    let over_server = tour(&site, &["--bootstrap", &address]);
    assert_eq!(over_server, on_data_dir);
    for text in ["2.5", "wrote 2 records", "`orders` exists", "| 1 | 4.0   |", "\"committed\":1", "`orders`?"] {
        assert!(on_data_dir.contains(text), "{text} in:\n{on_data_dir}");
    }
    server.terminate();
    assert_eq!(server.wait(LIMIT), Some(0));
}

#[test]
fn a_consumer_over_a_server_follows_until_it_is_interrupted() {
    let site = Site::new();
    let (_server, address) = serve(&site, "server", &[]);
    site.run(&["topic", "create", "t", "--bootstrap", &address]).ok();
    let mut consumer = site.start("consumer", &["consume", "t", "--follow", "--group", "g", "--bootstrap", &address]);
    for round in ["one\n", "two\n"] {
        feed(&site, &["produce", "t", "--bootstrap", &address], round).ok();
        let deadline = Instant::now() + LIMIT;
        while !std::fs::read_to_string(site.path().join("consumer.out")).unwrap().ends_with(round) {
            assert!(consumer.ended().is_none() && Instant::now() < deadline, "{}", consumer.errors());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    consumer.interrupt();
    assert_eq!(consumer.wait(LIMIT), Some(0));
    let group = site.run(&["group", "describe", "g", "--json", "--bootstrap", &address]).ok();
    assert!(group.contains("\"committed\":2"), "{group}");
}

#[test]
fn where_the_log_is_must_be_clear() {
    let mut site = Site::new();
    site.run(&["topic", "list", "--bootstrap", "127.0.0.1:1"]).fails_with(&["no answer from 127.0.0.1:1", "refused"]);
    site.run(&["topic", "list", "--bootstrap", "x:1", "--data-dir", "d"]).fails_with(&["cannot be used with"]);
    site.run(&["serve", "--bootstrap", "x:1"]).fails_with(&["does not take --bootstrap"]);
    site.run(&["bench", "kafka", "produce"]).fails_with(&["--bootstrap HOST:PORT"]);
    site.set("LOGMILL_BOOTSTRAP", "127.0.0.1:1");
    site.run(&["topic", "list"]).fails_with(&["LOGMILL_DATA_DIR and LOGMILL_BOOTSTRAP are both set"]);
    site.run(&["topic", "list", "--data-dir", "d"]).ok();
    site.unset_data_dir();
    site.run(&["topic", "list"]).fails_with(&["no answer from 127.0.0.1:1"]);
}

#[test]
fn a_running_pipelines_topics_are_reached_by_clients() {
    let site = Site::new();
    site.write(
        "p.yaml",
        "pipeline: p\ntopics:\n  in: {}\n  out: {}\nsources:\n  \
         rows: { type: topic, topic: in, format: json, schema: { a: int64 } }\n\
         operators:\n  big: { sql: 'SELECT a * 2 AS b FROM rows WHERE a > 1' }\nsinks:\n  \
         out: { type: topic, topic: out, input: big, format: json }\ncommit: { every: 50ms }\n",
    );
    let mut run = site.start("run", &["run", "p.yaml", "--listen", "127.0.0.1:0"]);
    let address = listening(&mut run);
    let deadline = Instant::now() + LIMIT;
    while !site.run(&["topic", "list", "--bootstrap", &address]).ok().contains("out") {
        assert!(Instant::now() < deadline, "{}", run.errors());
    }
    feed(&site, &["produce", "in", "--bootstrap", &address], "{\"a\":1}\n{\"a\":2}\n").ok();
    while site.run(&["consume", "out", "--bootstrap", &address]).ok() != "{\"b\":4}\n" {
        assert!(run.ended().is_none() && Instant::now() < deadline, "{}", run.errors());
    }
    run.interrupt();
    assert_eq!(run.wait(LIMIT), Some(0));
}

#[test]
fn a_server_is_measured_by_a_kafka_client() {
    let site = Site::new();
    let (_server, address) = serve(&site, "server", &[]);
    let check = |arguments: &[&str], records: u64, has_latency: bool| {
        let mut all = vec!["bench", "kafka"];
        all.extend(arguments);
        all.extend(["--bootstrap", &address, "--json"]);
        let printed: serde_json::Value = serde_json::from_str(&site.run(&all).ok()).unwrap();
        assert_eq!(printed["records"], records, "{printed}");
        assert_eq!(printed["bytes"], records * 100, "{printed}");
        assert!(printed["bytes_per_second"].as_f64().unwrap() > 0.0, "{printed}");
        assert_eq!(printed["latency_us"]["p999"].as_u64().is_some(), has_latency, "{printed}");
    };
    check(&["produce", "--records", "1000", "--producers", "3", "--idempotent", "--compression", "lz4"], 1000, true);
    check(&["produce", "--records", "10", "--acks", "1", "--rate", "1000"], 10, true);
    check(&["consume"], 1010, false);
    check(&["latency", "--rate", "500", "--seconds", "1", "--warm-up-seconds", "1"], 500, true);
    site.run(&["bench", "kafka", "produce", "--idempotent", "--acks", "1", "--bootstrap", &address])
        .fails_with(&["--idempotent needs --acks all"]);
    site.run(&["bench", "kafka", "consume", "--topic", "none", "--bootstrap", &address]).fails_with(&["none"]);
}
