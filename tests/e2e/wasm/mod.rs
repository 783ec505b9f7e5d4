//! WebAssembly operators and functions, by the guests of `tests/guests`: what they make, what they cannot break, what they
//! remember.

mod check;
mod hostile;
mod kill;
mod modules;
mod outputs;
mod upgrade;

use std::fs;
use std::path::PathBuf;

use logmill_tests::data::{flights_of_the_week, repository, target_folder};
use logmill_tests::site::Site;
use serde_json::{Map, Value};

/// The columns of the flights that these tests read.
const SCHEMA: &str = "{ time_hour: timestamp, carrier: string, flight: int32, origin: string, distance: int64 }";
/// A flight number that three flights of the week have.
const POISON: i64 = 1545;
/// Files whose splits belong to shards of their own, so that each has a state of its own.
const FILES: [&str; 4] = ["a", "b", "c", "d"];

/// The path of a built guest.
fn guest(name: &str) -> String {
    let path: PathBuf = repository().join("tests/guests/built").join(format!("{name}.wasm"));
    assert!(path.is_file(), "{} is missing: build it with tests/guests/build.sh", path.display());
    path.display().to_string()
}

/// A site whose compiled modules are shared with the other tests, as compiling them takes seconds.
fn site() -> Site {
    let site = Site::new();
    let shared = target_folder().join("test-data/wasm-cache");
    fs::create_dir_all(&shared).unwrap();
    fs::create_dir(site.path().join("data")).unwrap();
    std::os::unix::fs::symlink(shared, site.path().join("data/cache")).unwrap();
    site
}

/// Forgets all runs, but not what was compiled.
fn forget(site: &Site) {
    for entry in fs::read_dir(site.path().join("data")).unwrap().map(Result::unwrap) {
        if entry.file_name() != "cache" {
            let path = entry.path();
            if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
        }
    }
    let _ = fs::remove_dir_all(site.path().join("lake"));
}

/// The lines of the week's flights.
fn flights() -> Vec<String> {
    fs::read_to_string(flights_of_the_week()).unwrap().lines().map(str::to_owned).collect()
}

/// A flight with the columns of `SCHEMA` alone.
fn columns(line: &str) -> Map<String, Value> {
    let mut row: Map<String, Value> = serde_json::from_str(line).unwrap();
    row.retain(|name, _| ["time_hour", "carrier", "flight", "origin", "distance"].contains(&name.as_str()));
    row
}

/// A row as the sinks' rows are compared.
fn normal(row: &Map<String, Value>) -> String {
    logmill_tests::outcome::normal(&Value::Object(row.clone()).to_string(), &[])
}

/// Rows as sorted lines.
fn sorted(rows: impl IntoIterator<Item = Map<String, Value>>) -> Vec<String> {
    let mut rows: Vec<String> = rows.into_iter().map(|row| normal(&row)).collect();
    rows.sort_unstable();
    rows
}

/// Deals the flights out to the files of `in/`, so that a shard's rows are a file's.
fn deal_out(site: &Site) {
    let flights = flights();
    for (number, name) in FILES.iter().enumerate() {
        let lines: Vec<&str> = flights.iter().skip(number).step_by(FILES.len()).map(String::as_str).collect();
        site.write(&format!("in/{name}.ndjson"), lines.join("\n") + "\n");
    }
}
