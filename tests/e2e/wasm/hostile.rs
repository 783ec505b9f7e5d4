//! Hostile guests: whatever one does costs the rows that it does it on, within its limits, and nothing else.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use logmill_tests::data::flights_of_the_week;
use logmill_tests::load::raw::Raw;
use logmill_tests::outcome::{self, assert_same};
use logmill_tests::site::{Finished, Running};
use serde_json::{Map, Value};

use super::{POISON, SCHEMA, columns, flights, guest, normal, site, sorted};

/// Far more than any of these runs takes, on any machine.
const LIMIT: Duration = Duration::from_secs(120);
/// What a run may hold in memory, with guests that are allowed 48 MiB and the engine itself.
const MAX_MEMORY_BYTES: u64 = 900 << 20;
const API_VERSIONS: i16 = 18;

/// Dead letters, where a guest's rows go that it cannot process.
const LETTERS: &str = "on_error: { dead_letter: letters }";

fn pipeline(module: &str, config: &str, deadline: &str, on_error: &str) -> String {
    format!(
        "pipeline: hostile\n\
         sources:\n\
        \x20 flights: {{ type: file, path: {}, format: json, schema: {SCHEMA} }}\n\
         operators:\n\
        \x20 made:\n\
        \x20   wasm: {{ module: {}, input: flights, config: {config}, memory: 48MiB, deadline: {deadline} }}\n\
         sinks:\n\
        \x20 lake: {{ type: object_store, input: made, url: ./lake, format: json }}\n\
        \x20 out: {{ type: topic, input: made, topic: out }}\n\
         commit: {{ every: 100ms }}\n\
         {on_error}\n",
        flights_of_the_week().display(),
        guest(module),
    )
}

/// Waits for a run to end, and looks at its memory meanwhile; returns the most it held, in bytes.
fn watch(run: &mut Running) -> u64 {
    let status = format!("/proc/{}/status", run.pid());
    let started = Instant::now();
    let mut peak_bytes = 0;
    loop {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        peak_bytes = kib.map_or(peak_bytes, |kib| kib * 1024);
        if let Some(code) = run.ended() {
            assert_eq!(code, Some(0), "{}", run.errors());
            return peak_bytes;
        }
        assert!(started.elapsed() < LIMIT, "still running; it said:\n{}", run.errors());
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The flights as a guest that adds the number of rows seen, if it has state, must put them out without the poisoned ones.
fn good_rows(stateful: bool) -> Vec<String> {
    let good = flights().into_iter().map(|line| columns(&line)).filter(|row| row["flight"] != POISON);
    sorted(good.enumerate().map(|(number, mut row)| {
        if stateful {
            row.insert("seen".into(), Value::from(number + 1));
        }
        row
    }))
}

/// Runs a guest that misbehaves on the flights of one number; those, and only those, become dead letters.
fn costs_its_rows(module: &str, mode: &str, reason: &str) {
    let site = site();
    let config = format!("{{ mode: {mode}, when: {{ column: flight, equals: {POISON} }} }}");
    // Time enough for all but the one that takes it.
    let deadline = if mode == "loop" { "100ms" } else { "10s" };
    site.write("p.yaml", pipeline(module, &config, deadline, LETTERS));
    let peak_bytes = watch(&mut site.start("run", &["run", "p.yaml"]));
    assert!(peak_bytes < MAX_MEMORY_BYTES, "{mode}: {} MiB", peak_bytes >> 20);
    let good = good_rows(module == "hostile-stateful");
    assert_same(mode, &outcome::rows(&site.path().join("lake")), &good);
    assert_same(mode, &outcome::topic(&site, "out"), &good);
    let poisoned = flights().into_iter().map(|line| columns(&line)).filter(|row| row["flight"] == POISON);
    assert_same(mode, &rows_of(&outcome::topic(&site, "letters")), &rows_of(&sorted(poisoned)));
    let letters = site.run(&["consume", "letters", "--format", "json"]).ok();
    for letter in letters.lines() {
        let letter: Value = serde_json::from_str(letter).unwrap();
        let headers = letter["headers"].to_string();
        assert!(headers.contains("\"made\"") && headers.contains(reason), "{mode}: no `{reason}` in {headers}");
    }
}

/// Rows as sets of what they have in common, however their times are written.
fn rows_of(lines: &[String]) -> Vec<String> {
    let row = |line: &String| {
        let mut row: Map<String, Value> = serde_json::from_str(line).unwrap();
        row.retain(|name, _| ["carrier", "flight", "origin", "distance"].contains(&name.as_str()));
        normal(&row)
    };
    let mut rows: Vec<String> = lines.iter().map(row).collect();
    rows.sort_unstable();
    rows
}

/// What a guest can do to its call, and a part of what is said about it.
const MODES: [(&str, &str); 11] = [
    ("loop", "did not come back within 100ms"),
    ("memory", "memory"),
    ("stack", "deeper"),
    ("panic", "hostile as it was told to be"),
    ("abort", "the guest failed"),
    ("error", "refused as it was told to"),
    ("blind", "refused as it was told to"),
    ("garbage", "output"),
    ("truncated", "output"),
    ("name", "unheard-of"),
    ("schema", "unheard_of"),
];

#[test]
fn each_misdeed_costs_its_rows_and_no_others() {
    for (mode, reason) in MODES {
        costs_its_rows("hostile", mode, reason);
    }
}

#[test]
fn each_misdeed_of_a_guest_with_state_costs_its_rows_and_leaves_the_state() {
    for (mode, reason) in MODES {
        costs_its_rows("hostile-stateful", mode, reason);
    }
}

#[test]
fn a_gigabyte_of_output_stays_within_the_limits() {
    costs_its_rows("hostile", "huge", "");
    costs_its_rows("hostile-stateful", "huge", "");
}

/// An error, and no panic but the guest's.
fn stops_with(run: Finished, expected: &[&str]) {
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    for text in expected {
        assert!(run.stderr.contains(text), "no `{text}` in:\n{}", run.stderr);
    }
}

#[test]
fn without_a_topic_for_dead_letters_the_first_misdeed_stops_the_run_with_the_row() {
    for module in ["hostile", "hostile-stateful"] {
        for (mode, reason) in [("panic", "hostile as it was told to be"), ("loop", "did not come back")] {
            let site = site();
            let config = format!("{{ mode: {mode}, when: {{ column: flight, equals: {POISON} }} }}");
            site.write("p.yaml", pipeline(module, &config, "100ms", ""));
            let row = "\"flight\":1545";
            stops_with(site.run(&["run", "p.yaml"]), &["operator `made`", reason, row, "dead_letter"]);
        }
    }
}

#[test]
fn a_guest_that_cannot_tell_its_state_stops_the_run_with_the_reason() {
    let site = site();
    let config = "{ mode: panic, where: snapshot }";
    site.write("p.yaml", pipeline("hostile-stateful", config, "1s", LETTERS));
    stops_with(site.run(&["run", "p.yaml"]), &["operator `made`", "snapshot", "hostile as it was told to be"]);
    assert!(outcome::data_files(&site.path().join("lake")).is_empty(), "nothing may be committed");
}

#[test]
fn lines_are_logged_at_a_rate() {
    let site = site();
    let config = format!("{{ mode: log, lines: 100000, when: {{ column: flight, equals: {POISON} }} }}");
    site.write("p.yaml", pipeline("hostile", &config, "30s", ""));
    let run = site.run(&["run", "p.yaml"]);
    let lines = run.stderr.lines().filter(|line| line.contains("line ")).count();
    assert!((10..5_000).contains(&lines), "{lines} lines of the guest");
    assert!(run.stderr.contains("hostile") && run.stderr.contains("made"), "{}", &run.stderr[..2000]);
    run.ok();
}

/// A guest that never returns, on any row, holds up its own pipeline, and that for a time alone.
#[test]
fn a_node_answers_beside_a_guest_that_never_returns() {
    let site = site();
    site.run(&["topic", "create", "flights", "--partitions", "4"]).ok();
    let file = flights_of_the_week();
    site.run(&["produce", "flights", "--file", &file.display().to_string()]).ok();
    let yaml = pipeline("hostile", "{ mode: loop }", "300ms", LETTERS);
    let source = format!("type: file, path: {}", Path::new(&file).display());
    let yaml = yaml.replace(&source, "type: topic, topic: flights");
    site.write("p.yaml", yaml);
    let port = logmill_tests::port::free();
    let listen = format!("127.0.0.1:{port}");
    let mut run = site.start("run", &["run", "p.yaml", "--listen", &listen]);
    let deadline = Instant::now() + LIMIT;
    let mut answers = 0;
    while run.ended().is_none() {
        let answer = Raw::connect(port).and_then(|mut raw| raw.ask(API_VERSIONS, 0, &[]));
        answers += usize::from(answer.is_ok_and(|answer| answer.is_some()));
        assert!(Instant::now() < deadline, "{answers} answers; it said:\n{}", run.errors());
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(answers > 100, "{answers} answers while the guest did not return");
    assert_eq!(run.wait(LIMIT), Some(1), "{}", run.errors());
    let said = run.errors();
    assert!(said.contains("operator `made`") && said.contains("runs into its deadline too often"), "{said}");
    // The log has taken no harm.
    let topic = site.run(&["consume", "flights"]).ok();
    assert_eq!(topic.lines().count(), flights().len());
}

/// A guest is shown a clock and randomness that are the same when a call is made again, so that it makes the same.
#[test]
fn what_a_guest_puts_out_depends_on_nothing_but_its_input() {
    let runs: BTreeSet<Vec<String>> = (0..2)
        .map(|_| {
            let site = site();
            let config = format!("{{ mode: panic, when: {{ column: flight, equals: {POISON} }} }}");
            site.write("p.yaml", pipeline("hostile-stateful", &config, "10s", LETTERS));
            site.run(&["run", "p.yaml"]).ok();
            outcome::topic(&site, "out")
        })
        .collect();
    assert_eq!(runs.len(), 1, "two runs differ");
}
