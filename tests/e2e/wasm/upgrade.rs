//! A module is replaced by another build while its state stays, or the run does not start and says why.

use logmill_tests::outcome;
use logmill_tests::site::Site;
use serde_json::Value;

use super::{guest, site};

/// Totals by key of a topic of one partition, so of one shard.
fn pipeline(site: &Site, module: &str) {
    site.write(
        "p.yaml",
        format!(
            "pipeline: totals\n\
             sources:\n\
            \x20 rows: {{ type: topic, topic: in, until: end, format: json, schema: {{ k: string, v: int64 }} }}\n\
             operators:\n\
            \x20 totals: {{ wasm: {{ module: {module}, input: rows, config: {{ key: k, value: v }} }} }}\n\
             sinks:\n\
            \x20 out: {{ type: topic, input: totals, topic: out }}\n",
        ),
    );
}

/// A site with a copy of the guests, so that a module is replaced in place.
fn with_totals() -> Site {
    let site = site();
    site.run(&["topic", "create", "in"]).ok();
    install(&site, "tally");
    pipeline(&site, "totals.wasm");
    site
}

fn install(site: &Site, name: &str) {
    site.write("totals.wasm", std::fs::read(guest(name)).unwrap());
}

fn produce(site: &Site, rows: &[(&str, i64)]) {
    let lines: Vec<String> = rows.iter().map(|(k, v)| serde_json::json!({ "k": k, "v": v }).to_string()).collect();
    let file = site.write("rows.ndjson", lines.join("\n") + "\n");
    site.run(&["produce", "in", "--file", &file.display().to_string()]).ok();
}

/// The last total of each key.
fn totals(site: &Site) -> Vec<(String, i64, i64)> {
    let mut last = std::collections::BTreeMap::new();
    for row in outcome::topic(site, "out") {
        let row: Value = serde_json::from_str(&row).unwrap();
        let number = |name: &str| row[name].as_i64().unwrap();
        let key = row["key"].as_str().unwrap().to_owned();
        let of_key: &mut (i64, i64) = last.entry(key).or_default();
        // Rows only ever grow in number.
        *of_key = (*of_key).max((number("rows"), number("total")));
    }
    last.into_iter().map(|(key, (rows, total))| (key, rows, total)).collect()
}

fn total(key: &str, rows: i64, total: i64) -> (String, i64, i64) {
    (key.to_owned(), rows, total)
}

#[test]
fn a_new_build_goes_on_with_the_state_of_the_old_one_or_refuses_it() {
    let site = with_totals();
    produce(&site, &[("a", 1), ("b", 10), ("a", 2)]);
    site.run(&["run", "p.yaml"]).ok();
    assert_eq!(totals(&site), [total("a", 2, 3), total("b", 1, 10)]);

    install(&site, "tally-v2");
    produce(&site, &[("a", 4), ("c", 7)]);
    let run = site.run(&["run", "p.yaml"]);
    assert!(run.stderr.contains("operator `totals` has another module"), "{}", run.stderr);
    assert!(run.stderr.contains("its state goes on in the new one"), "{}", run.stderr);
    run.ok();
    assert_eq!(totals(&site), [total("a", 3, 7), total("b", 1, 10), total("c", 1, 7)]);

    // Version 3 takes no other's state; nothing is done, and version 2 goes on as if nothing had been.
    install(&site, "tally-v3");
    produce(&site, &[("a", 8)]);
    let refused = site.run(&["run", "p.yaml"]);
    let refused =
        refused.fails_with(&["operator `totals` cannot go on", "cannot take over state of version", "--fresh"]);
    assert!(!refused.stderr.contains("another module"), "an edit was told that was not made: {}", refused.stderr);
    assert_eq!(totals(&site).len(), 3);
    install(&site, "tally-v2");
    site.run(&["run", "p.yaml"]).ok();
    assert_eq!(totals(&site), [total("a", 4, 15), total("b", 1, 10), total("c", 1, 7)]);

    // State that version 2 wrote is unknown to version 1.
    install(&site, "tally");
    site.run(&["run", "p.yaml"]).fails_with(&["cannot take over state of version 2"]);
    site.run(&["run", "p.yaml", "--fresh"]).ok();
    assert_eq!(totals(&site), [total("a", 4, 15), total("b", 1, 10), total("c", 1, 7)]);
}

/// Runs once, edits the pipeline, and expects the next run to be refused with a hint.
fn refuses(edits: &[(&str, &str)], expected: &[&str]) {
    let site = with_totals();
    produce(&site, &[("a", 1)]);
    site.run(&["run", "p.yaml"]).ok();
    let before = std::fs::read_to_string(site.path().join("p.yaml")).unwrap();
    assert!(edits.iter().all(|(from, _)| before.contains(from)), "{before}");
    site.write("p.yaml", edits.iter().fold(before.clone(), |text, (from, to)| text.replace(from, to)));
    site.run(&["run", "p.yaml"]).fails_with(expected).fails_with(&["--fresh"]);
    site.write("p.yaml", before);
    produce(&site, &[("a", 2)]);
    site.run(&["run", "p.yaml"]).ok();
    assert_eq!(totals(&site), [total("a", 2, 3)]);
}

#[test]
fn an_edit_that_would_lose_state_is_refused() {
    let wasm = "wasm: { module: totals.wasm, input: rows, config: { key: k, value: v } }";
    let query = "sql: \"SELECT k AS key, v AS rows, v AS total FROM rows\"";
    refuses(&[(wasm, query)], &["operator `totals` keeps no state any more"]);
    let identity = format!("wasm: {{ module: {}, input: both }}", guest("identity"));
    let stateless = format!("{identity} }}\n  both: {{ sql: \"SELECT k AS key, v AS rows, v AS total FROM rows\"");
    refuses(&[(wasm, &stateless)], &["operator `totals` keeps no state any more"]);
    let renamed = [("  totals: {", "  sums: {"), ("input: totals,", "input: sums,")];
    refuses(&renamed, &["operator `totals` is gone, and earlier runs left state of it"]);
    let moved = "wasm: { module: totals.wasm, input: other, config: { key: k, value: v } } }\n  other: { sql: \"SELECT * FROM rows\"";
    refuses(&[(wasm, moved)], &["operator `totals` reads `other` instead of `rows`"]);
}

#[test]
fn a_changed_configuration_keeps_the_state_and_a_module_without_state_is_free() {
    let site = with_totals();
    produce(&site, &[("a", 1)]);
    site.run(&["run", "p.yaml"]).ok();
    let before = std::fs::read_to_string(site.path().join("p.yaml")).unwrap();
    site.write("p.yaml", before.replace(", value: v", ""));
    produce(&site, &[("a", 5)]);
    let run = site.run(&["run", "p.yaml"]);
    assert!(run.stderr.contains("operator `totals` changed: its state goes on"), "{}", run.stderr);
    run.ok();
    assert_eq!(totals(&site), [total("a", 2, 1)], "values are counted no more, the total stays");

    let site = super::site();
    site.run(&["topic", "create", "in"]).ok();
    site.write("m.wasm", std::fs::read(guest("identity")).unwrap());
    pipeline(&site, "m.wasm");
    let yaml =
        std::fs::read_to_string(site.path().join("p.yaml")).unwrap().replace("key: k, value: v", "column: v, from: 2");
    site.write("p.yaml", yaml.replace(", config: { column: v, from: 2 }", ""));
    produce(&site, &[("a", 1)]);
    site.run(&["run", "p.yaml"]).ok();
    site.write("m.wasm", std::fs::read(guest("splitter")).unwrap());
    site.write("p.yaml", yaml);
    produce(&site, &[("a", 1), ("a", 3)]);
    let run = site.run(&["run", "p.yaml"]);
    assert!(run.stderr.contains("another module") && run.stderr.contains("stays as it is"), "{}", run.stderr);
    run.ok();
    assert_eq!(outcome::topic(&site, "out"), [r#"{"k":"a","v":1}"#, r#"{"k":"a","v":3}"#]);
}
