//! The commands for topics, records and queries, as their user meets them.

use std::io::Write;
use std::process::Stdio;

use logmill_tests::site::{Finished, Site};

fn feed(site: &Site, arguments: &[&str], input: &str) -> Finished {
    let mut child =
        site.command(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap().into()
}

#[test]
fn topics_are_made_listed_described_widened_and_deleted() {
    let site = Site::new();
    site.run(&["topic", "create", "orders", "--partitions", "3"]).ok();
    site.run(&["topic", "create", "orders"]).fails_with(&["`orders`", "exists"]);
    site.run(&["topic", "create", "bad name"]).fails_with(&["bad name"]);
    assert!(site.run(&["topic", "list"]).ok().contains("orders"));
    assert!(site.run(&["topic", "describe", "orders"]).ok().contains('3'));
    site.run(&["topic", "alter", "orders", "--partitions", "2"]).fails_with(&["orders"]);
    site.run(&["topic", "alter", "orders", "--partitions", "5"]).ok();
    assert!(site.run(&["topic", "describe", "orders"]).ok().contains('5'));
    site.run(&["topic", "delete", "orders"]).ok();
    assert!(!site.run(&["topic", "list"]).ok().contains("orders"));
    site.run(&["topic", "describe", "orders"]).fails_with(&["`orders`"]);
}

#[test]
fn what_is_produced_is_consumed_and_queried() {
    let site = Site::new();
    site.run(&["topic", "create", "orders", "--partitions", "2"]).ok();
    feed(&site, &["produce", "orders"], "{\"id\":1,\"amount\":2.5}\n{\"id\":2,\"amount\":4}\n").ok();
    feed(&site, &["produce", "orders", "--key-separator", ":"], "k:{\"id\":3,\"amount\":1}\n").ok();
    let mut lines: Vec<_> = site.run(&["consume", "orders"]).ok().lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["{\"id\":1,\"amount\":2.5}", "{\"id\":2,\"amount\":4}", "{\"id\":3,\"amount\":1}"]);
    let sum = site.run(&["sql", "SELECT count(*) AS n, sum(amount) AS total FROM orders", "--format", "csv"]).ok();
    assert_eq!(sum, "n,total\n3,7.5\n");
    let keyed = site.run(&["sql", "SELECT id FROM orders WHERE _key IS NOT NULL", "--format", "json"]).ok();
    assert_eq!(keyed, "{\"id\":3}\n");
    site.run(&["sql", "SELECT amout FROM orders"]).fails_with(&["amout", "amount"]);
    site.run(&["sql", "SELECT 1 FROM ordres"]).fails_with(&["ordres", "orders"]);
    site.run(&["sql", "SELEC 1"]).fails_with(&["SELEC"]);
}

#[test]
fn the_schema_of_pipelines_is_json_schema() {
    let schema: serde_json::Value = serde_json::from_str(&Site::new().run(&["schema"]).ok()).unwrap();
    assert!(schema["$schema"].as_str().unwrap().contains("2020-12"));
    let text = schema.to_string();
    for word in ["sources", "object_store", "partition_by", "through"] {
        assert!(text.contains(word), "{word}");
    }
}

#[test]
fn a_plan_is_explained_with_its_columns() {
    let site = Site::new();
    site.write(
        "p.yaml",
        "pipeline: p\nsources:\n  rows: { type: file, path: a.ndjson, format: json, schema: { a: int64, b: string } }\n\
         operators:\n  some: { sql: 'SELECT a FROM rows WHERE a > 1' }\nsinks:\n  out: { type: stdout, input: some }\n",
    );
    site.write(
        "u.yaml",
        "pipeline: p\nsources:\n  rows: { type: file, path: a.ndjson }\nsinks:\n  out: { type: stdout, input: rows }\n",
    );
    site.write("a.ndjson", "{\"n\":1,\"t\":\"2026-01-01T00:00:00Z\",\"l\":[1.5]}\n");
    assert!(site.run(&["explain", "u.yaml"]).ok().contains("unknown"));
    let sampled = site.run(&["explain", "u.yaml", "--connect"]).ok();
    assert!(sampled.contains("      n: int64\n      t: timestamp\n      l: list<float64>\n"), "{sampled}");
    let explained = site.run(&["explain", "p.yaml"]).ok();
    for text in ["rows", "some", "out", "a", "int64"] {
        assert!(explained.contains(text), "no {text} in:\n{explained}");
    }
}

#[test]
fn nobody_listening_is_no_reason_to_panic() {
    let site = Site::new();
    site.run(&["topic", "create", "t"]).ok();
    feed(&site, &["produce", "t"], &"line\n".repeat(50_000)).ok();
    let mut child = site.command(&["consume", "t"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output: Finished = child.wait_with_output().unwrap().into();
    assert!(!output.stderr.contains("panicked"), "{}", output.stderr);
}
