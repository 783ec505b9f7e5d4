//! What guests make: outputs with names, records that keep what they are marked with, functions in SQL.

use logmill_tests::data::flights_of_the_week;
use logmill_tests::outcome::{self, assert_same};
use logmill_tests::site::Site;
use serde_json::{Map, Value};

use super::{SCHEMA, columns, flights, guest, site, sorted};

#[test]
fn outputs_with_names_are_read_by_sinks_queries_and_guests() {
    let site = site();
    let yaml = format!(
        "pipeline: split\n\
         sources:\n\
        \x20 flights: {{ type: file, path: {}, format: json, schema: {SCHEMA} }}\n\
         operators:\n\
        \x20 scored: {{ wasm: {{ module: {split}, input: flights, config: {{ column: distance, from: 500 }} }} }}\n\
        \x20 short: {{ sql: \"SELECT carrier, flight, reason FROM scored.rejects WHERE distance < 200\" }}\n\
        \x20 both: {{ sql: \"SELECT flight FROM scored UNION ALL SELECT flight FROM scored.rejects\" }}\n\
        \x20 again: {{ wasm: {{ module: {identity}, input: scored.rejects }} }}\n\
         sinks:\n\
        \x20 far: {{ type: object_store, input: scored, url: ./far, format: parquet }}\n\
        \x20 rejects: {{ type: topic, input: scored.rejects, topic: rejects }}\n\
        \x20 short: {{ type: object_store, input: short, url: ./short, format: json }}\n\
        \x20 both: {{ type: object_store, input: both, url: ./both, format: json }}\n\
        \x20 again: {{ type: object_store, input: again, url: ./again, format: json }}\n",
        flights_of_the_week().display(),
        split = guest("splitter"),
        identity = guest("identity"),
    );
    // A sink may not have the name of an operator.
    let yaml = yaml.replace("  short: { type", "  near: { type").replace("  both: { type", "  all: { type");
    let yaml = yaml.replace("  again: { type", "  twice: { type");
    site.write("p.yaml", yaml);
    site.run(&["run", "p.yaml"]).ok();

    let rows: Vec<Map<String, Value>> = flights().iter().map(|line| columns(line)).collect();
    let distance = |row: &Map<String, Value>| row["distance"].as_i64().unwrap();
    let with_reason = |row: &Map<String, Value>| {
        let mut row = row.clone();
        row.insert("reason".into(), "distance is below 500".into());
        row
    };
    let only = |mut row: Map<String, Value>, names: &[&str]| {
        row.retain(|name, _| names.contains(&name.as_str()));
        row
    };
    let far = sorted(rows.iter().filter(|row| distance(row) >= 500).cloned());
    let rejects = sorted(rows.iter().filter(|row| distance(row) < 500).map(with_reason));
    let short = rows.iter().filter(|row| distance(row) < 200).map(with_reason);
    let short = sorted(short.map(|row| only(row, &["carrier", "flight", "reason"])));
    assert!(far.len() > 1000 && rejects.len() > 1000 && short.len() > 100);
    assert_same("far", &outcome::rows(&site.path().join("far")), &far);
    assert_same("the rejects", &outcome::topic(&site, "rejects"), &rejects);
    assert_same("near", &outcome::rows(&site.path().join("short")), &short);
    let numbers = sorted(rows.iter().map(|row| only(row.clone(), &["flight"])));
    assert_same("all", &outcome::rows(&site.path().join("both")), &numbers);
    assert_same("twice", &outcome::rows(&site.path().join("again")), &rejects);
}

/// Produces records with keys, headers and times to the topic `in`, of one partition.
fn produce(site: &Site) {
    site.run(&["topic", "create", "in", "--partitions", "1"]).ok();
    let record = |n: usize| {
        let key = if n.is_multiple_of(7) { Value::Null } else { Value::from(format!("k{}", n % 5)) };
        let value = serde_json::json!({ "n": n }).to_string();
        serde_json::json!({
            "key": key,
            "value": value,
            "timestamp": 1_357_000_000_000_u64 + n as u64,
            "headers": { "number": n.to_string(), "from": "test" },
        })
    };
    let lines: Vec<String> = (0..500).map(|n| record(n).to_string()).collect();
    let file = site.write("records.ndjson", lines.join("\n") + "\n");
    site.run(&["produce", "in", "--json-records", "--file", &file.display().to_string()]).ok();
}

/// What a topic holds, without the places.
fn records(site: &Site, topic: &str) -> Vec<String> {
    let printed = site.run(&["consume", topic, "--format", "json"]).ok();
    let record = |line: &str| {
        let mut record: Map<String, Value> = serde_json::from_str(line).unwrap();
        record.retain(|name, _| ["key", "value", "timestamp", "headers"].contains(&name.as_str()));
        Value::Object(record).to_string()
    };
    let mut records: Vec<String> = printed.lines().map(record).collect();
    records.sort_unstable();
    records
}

#[test]
fn keys_times_and_headers_go_through_transforms_and_straight_to_sinks() {
    let site = site();
    produce(&site);
    let marks = "format: raw, key: _key, timestamp: _timestamp, headers: _headers";
    site.write(
        "p.yaml",
        format!(
            "pipeline: marks\n\
             sources:\n\
            \x20 records: {{ type: topic, topic: in, until: end, format: raw, schema: {{ value: string }} }}\n\
             operators:\n\
            \x20 copied: {{ wasm: {{ module: {}, input: records }} }}\n\
             sinks:\n\
            \x20 guest: {{ type: topic, input: copied, topic: guest, {marks} }}\n\
            \x20 plain: {{ type: topic, input: records, topic: plain, {marks} }}\n",
            guest("copy")
        ),
    );
    site.run(&["run", "p.yaml"]).ok();
    let expected = records(&site, "in");
    assert_eq!(expected.len(), 500);
    assert_same("what the guest copied", &records(&site, "guest"), &expected);
    assert_same("what went straight", &records(&site, "plain"), &expected);
}

#[test]
fn functions_of_guests_are_called_from_sql() {
    let site = site();
    site.write(
        "p.yaml",
        format!(
            "pipeline: functions\n\
             sources:\n\
            \x20 flights: {{ type: file, path: {}, format: json, schema: {SCHEMA} }}\n\
             functions:\n\
            \x20 multiply_add: {{ wasm: {module} }}\n\
            \x20 turned: {{ wasm: {module}, function: reverse_words }}\n\
            \x20 not_negative: {{ wasm: {module}, memory: 16MiB, deadline: 1s }}\n\
             operators:\n\
            \x20 computed:\n\
            \x20   sql: |\n\
            \x20     SELECT flight, multiply_add(CAST(distance AS DOUBLE), 2.0, 1.0) AS twice, turned(carrier || ' ' || origin) AS words,\n\
            \x20       not_negative(distance - 200) AS beyond\n\
            \x20     FROM flights\n\
             sinks:\n\
            \x20 out: {{ type: object_store, input: computed, url: ./out, format: json }}\n\
             on_error: {{ dead_letter: letters }}\n",
            flights_of_the_week().display(),
            module = guest("functions"),
        ),
    );
    site.run(&["run", "p.yaml"]).ok();
    let rows: Vec<Map<String, Value>> = flights().iter().map(|line| columns(line)).collect();
    let distance = |row: &Map<String, Value>| row["distance"].as_i64().unwrap();
    let computed = |row: &Map<String, Value>| {
        let text = |name: &str| row[name].as_str().unwrap().to_owned();
        let value = serde_json::json!({
            "flight": row["flight"],
            "twice": distance(row) as f64 * 2.0 + 1.0,
            "words": format!("{} {}", text("origin"), text("carrier")),
            "beyond": distance(row) - 200,
        });
        value.as_object().unwrap().clone()
    };
    let (good, bad): (Vec<_>, Vec<_>) = rows.iter().partition(|row| distance(row) >= 200);
    assert!(bad.len() > 50, "{}", bad.len());
    assert_same("computed", &outcome::rows(&site.path().join("out")), &sorted(good.into_iter().map(computed)));
    let letters = site.run(&["consume", "letters", "--format", "json"]).ok();
    assert_eq!(letters.lines().count(), bad.len());
    assert!(letters.lines().all(|line| line.contains("is negative") && line.contains("computed")), "{letters}");
}
