//! Killed at any instant, a guest remembers what it would have remembered had it never been killed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use logmill_tests::outcome::{self, assert_same};
use logmill_tests::site::Site;

use super::{POISON, SCHEMA, deal_out, forget, guest, site};
use crate::exactly_once::{POINTS, die_at};

/// A guest that numbers the rows of each shard, and fails on some; one that totals them by key and hour and tells at the end.
fn pipeline(site: &Site, rate: Option<&str>, roll: &str) {
    let rate = rate.map_or(String::new(), |rate| format!("rate: {rate}, "));
    let text = format!(
        "pipeline: counted\n\
         topics:\n\
        \x20 out: {{ partitions: 3 }}\n\
         sources:\n\
        \x20 flights: {{ type: file, path: in/*.ndjson, {rate}format: json, schema: {SCHEMA} }}\n\
         operators:\n\
        \x20 numbered:\n\
        \x20   wasm:\n\
        \x20     module: {hostile}\n\
        \x20     input: flights\n\
        \x20     config: {{ mode: panic, when: {{ column: flight, equals: {POISON} }} }}\n\
        \x20 totals:\n\
        \x20   wasm: {{ module: {tally}, input: numbered, config: {{ key: carrier, value: distance, time: time_hour }} }}\n\
         sinks:\n\
        \x20 lake: {{ type: object_store, input: numbered, url: ./lake, format: parquet, roll: {roll} }}\n\
        \x20 out: {{ type: topic, input: numbered, topic: out, key: flight }}\n\
        \x20 hours: {{ type: topic, input: totals.hourly, topic: hours }}\n\
         on_error: {{ dead_letter: letters }}\n\
         commit: {{ every: 100ms }}\n",
        hostile = guest("hostile-stateful"),
        tally = guest("tally"),
    );
    site.write("pipeline.yaml", text);
}

/// What came out of a run to the end.
#[derive(PartialEq)]
struct Outcome {
    lake: Vec<String>,
    out: Vec<String>,
    hours: Vec<String>,
    letters: Vec<String>,
}

fn finish(site: &Site) -> Outcome {
    site.run(&["run", "pipeline.yaml"]).ok();
    let lake = site.path().join("lake");
    assert_eq!(outcome::hidden_files(&lake), Vec::<PathBuf>::new(), "staged leftovers");
    Outcome {
        lake: outcome::rows(&lake),
        out: outcome::topic(site, "out"),
        hours: outcome::topic(site, "hours"),
        letters: outcome::topic(site, "letters"),
    }
}

fn undisturbed() -> Outcome {
    let site = site();
    deal_out(&site);
    pipeline(&site, None, "{ every: 300ms }");
    let outcome = finish(&site);
    assert_same("the topic", &outcome.out, &outcome.lake);
    assert_eq!(outcome.letters.len(), 3, "poisoned flights");
    assert_eq!(outcome.out.len() + 3, super::flights().len());
    assert!(outcome.hours.len() > 100, "{} hours", outcome.hours.len());
    outcome
}

fn same(found: &Outcome, expected: &Outcome) {
    assert_same("the lake", &found.lake, &expected.lake);
    assert_same("the topic", &found.out, &expected.out);
    assert_same("the hours", &found.hours, &expected.hours);
    assert_same("the dead letters", &found.letters, &expected.letters);
}

#[test]
fn killed_again_and_again_a_guest_remembers() {
    let expected = undisturbed();
    let site = site();
    deal_out(&site);
    pipeline(&site, Some("400/s"), "{ every: 300ms }");
    let mut random = fastrand::Rng::with_seed(11);
    for blow in 0..24 {
        let mut run = site.start("run", &["run", "pipeline.yaml"]);
        std::thread::sleep(Duration::from_millis(random.u64(200..900)));
        assert!(run.ended().is_none(), "the run ended before blow {blow}: {}", run.errors());
        run.kill();
    }
    let rows = outcome::topic(&site, "out").len();
    assert!(rows > 0 && rows < expected.out.len(), "{rows} rows were committed between the blows");
    pipeline(&site, None, "{ every: 300ms }");
    same(&finish(&site), &expected);
    // What was told at the end is not told again where nothing new came in.
    same(&finish(&site), &expected);
}

#[test]
fn died_at_each_point_of_the_commit_a_guest_remembers() {
    let expected = undisturbed();
    let mut site = site();
    deal_out(&site);
    pipeline(&site, Some("20000/s"), "{ rows: 200 }");
    for point in POINTS {
        forget(&site);
        die_at(&mut site, point, 1);
        same(&finish(&site), &expected);
    }
}

#[test]
fn each_partition_has_a_state_of_its_own_from_run_to_run() {
    let site = site();
    site.write(
        "pipeline.yaml",
        format!(
            "pipeline: parts\n\
             sources:\n\
            \x20 flights: {{ type: topic, topic: flights, until: end, format: json, schema: {SCHEMA} }}\n\
             operators:\n\
            \x20 placed: {{ sql: \"SELECT flight, _partition AS place FROM flights\" }}\n\
            \x20 numbered:\n\
            \x20   wasm:\n\
            \x20     module: {}\n\
            \x20     input: placed\n\
            \x20     config: {{ mode: error, when: {{ column: flight, equals: {POISON} }} }}\n\
             sinks:\n\
            \x20 out: {{ type: topic, input: numbered, topic: out }}\n\
             on_error: {{ dead_letter: letters }}\n",
            guest("hostile-stateful")
        ),
    );
    site.run(&["topic", "create", "flights", "--partitions", "5"]).ok();
    let keyed = |line: String| format!("{}|{line}", super::columns(&line)["carrier"].as_str().unwrap());
    let keyed: Vec<String> = super::flights().into_iter().map(keyed).collect();
    let file = site.write("keyed", keyed.join("\n") + "\n").display().to_string();
    for _ in 0..3 {
        site.run(&["produce", "flights", "--key-separator", "|", "--file", &file]).ok();
        site.run(&["run", "pipeline.yaml"]).ok();
    }
    let mut seen: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    for row in outcome::topic(&site, "out") {
        let row: serde_json::Value = serde_json::from_str(&row).unwrap();
        seen.entry(row["place"].as_i64().unwrap()).or_default().push(row["seen"].as_i64().unwrap());
    }
    assert!(seen.len() > 2, "{} partitions", seen.len());
    assert_eq!(seen.values().map(Vec::len).sum::<usize>() + 9, keyed.len() * 3);
    for (partition, mut seen) in seen {
        seen.sort_unstable();
        let expected: Vec<i64> = (1..=seen.len() as i64).collect();
        assert_eq!(seen, expected, "partition {partition}");
    }
}
