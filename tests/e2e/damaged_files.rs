//! The commands over a data dir in which any one file is damaged: they say what is wrong, serve the rest, and the repair that
//! they advise works. What is lost of which damage is told by the broker's own test of all kinds of files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use logmill_tests::site::Site;

/// One case in so many runs always; all of them with `LOGMILL_TEST_LONG=1`.
const SLICE: usize = 29;
const PIPELINE: &str = "\
pipeline: p
sources:
  rows: { type: file, path: in.ndjson, format: json, schema: { a: int64 }, through: rows }
operators:
  all:
    sql: SELECT a FROM rows
sinks:
  lake: { type: object_store, input: all, url: ./lake, format: json, roll: { every: 1h } }
  out: { type: topic, input: all, topic: out, format: json }
";
const HARMS: [&str; 7] = ["delete", "empty", "halve", "flip the middle", "append", "make a folder of", "loop"];

fn is_long() -> bool {
    std::env::var_os("LOGMILL_TEST_LONG").is_some_and(|value| !value.is_empty() && value != "0")
}

fn inflict(harm: &str, path: &Path) {
    let good = fs::read(path).unwrap();
    let middle = good.len() / 2;
    match harm {
        "delete" => fs::remove_file(path).unwrap(),
        "empty" => fs::write(path, b"").unwrap(),
        "halve" => fs::write(path, &good[..middle]).unwrap(),
        "flip the middle" => {
            let mut bytes = good;
            if let Some(byte) = bytes.get_mut(middle) {
                *byte ^= 0x10;
            }
            fs::write(path, bytes).unwrap();
        }
        "append" => fs::write(path, [&good[..], b"garbage that nobody wrote"].concat()).unwrap(),
        "make a folder of" => fs::remove_file(path).and_then(|()| fs::create_dir(path)).unwrap(),
        _ => {
            fs::remove_file(path).unwrap();
            std::os::unix::fs::symlink(path.file_name().unwrap(), path).unwrap();
        }
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        match entry.path().is_dir() {
            true => found.extend(files(&entry.path())),
            false => found.push(entry.path()),
        }
    }
    found.sort();
    found
}

fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    assert!(Command::new("cp").arg("-a").args([from, to]).stdin(Stdio::null()).status().unwrap().success());
}

/// A data dir with a topic, a group, and a pipeline that has run.
fn site() -> Site {
    let site = Site::new();
    let lines: String = (0..200).map(|n| format!("{{\"a\":{n}}}\n")).collect();
    site.write("in.ndjson", &lines);
    site.write("p.yaml", PIPELINE);
    site.run(&["topic", "create", "orders", "--partitions", "2"]).ok();
    site.run(&["produce", "orders", "--file", "in.ndjson"]).ok();
    site.run(&["group", "reset-offsets", "g", "--topic", "orders", "--to", "latest"]).ok();
    site.run(&["run", "p.yaml"]).ok();
    site
}

#[test]
fn whatever_file_is_damaged_the_commands_work_and_say_so() {
    let site = site();
    let (data, left) = (site.path().join("data"), site.path().join("left"));
    copy(&data, &left);
    let cases = files(&left).into_iter().flat_map(|file| HARMS.map(|harm| (file.clone(), harm)));
    for (n, (file, harm)) in cases.enumerate() {
        if !is_long() && n % SLICE != 0 {
            continue;
        }
        copy(&left, &data);
        let file = file.strip_prefix(&left).unwrap();
        inflict(harm, &data.join(file));
        let what = format!("{harm} {}", file.display());
        let check = |arguments: &[&str]| {
            let done = site.run(arguments);
            let said = format!("{what}: {arguments:?} printed\n{}\n{}", done.stdout, done.stderr);
            assert!(!said.contains("panicked"), "{said}");
            assert_eq!(done.code, Some(0), "{said}");
            done.stdout
        };
        let listed = check(&["topic", "list", "--all"]);
        for topic in ["orders", "out", "rows", "__consumer_offsets"] {
            assert!(listed.contains(topic), "{what}: {listed}");
            check(&["topic", "describe", topic]);
        }
        // A pipeline whose own files are damaged says so, and stops; no other does.
        let run = site.run(&["run", "p.yaml"]);
        assert!(run.code.is_some() && !run.stderr.contains("panicked"), "{what}: {run:?}");
        assert!(run.code == Some(0) || !run.stderr.trim().is_empty(), "{what}: {run:?}");
        for topic in ["orders", "out", "rows", "__consumer_offsets", "__transaction_state"] {
            check(&["topic", "repair", topic]);
        }
        let consumed = check(&["consume", "orders"]).lines().count();
        let is_of_orders = file.to_string_lossy().contains("/orders-");
        assert!(consumed == 200 || is_of_orders, "{what}: {consumed} of 200 records are left");
        assert!(!check(&["topic", "list"]).contains("offline"), "{what}");
        check(&["topic", "delete", "orders"]);
    }
}

#[test]
fn an_offline_partition_is_listed_with_its_reason_and_repaired() {
    let site = Site::new();
    site.write("in.ndjson", "{\"a\":1}\n");
    site.run(&["topic", "create", "orders", "--partitions", "1"]).ok();
    site.run(&["topic", "create", "other"]).ok();
    site.run(&["produce", "other", "--file", "in.ndjson"]).ok();
    let topics = site.path().join("data/topics");
    let folder = fs::read_dir(&topics).unwrap().map(|entry| entry.unwrap().path());
    let folder = folder.into_iter().find(|path| path.to_string_lossy().contains("/orders-")).unwrap().join("0");
    fs::remove_dir_all(&folder).unwrap();
    let listed = site.run(&["topic", "list"]).ok();
    let path = folder.display().to_string();
    for text in ["1 offline", "partition orders-0 is offline", &path, "`logmill topic repair orders`"] {
        assert!(listed.contains(text), "no `{text}` in {listed}");
    }
    assert!(site.run(&["topic", "describe", "orders"]).ok().contains("is missing"));
    let json = site.run(&["topic", "describe", "orders", "--json"]).ok();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert!(json["partitions"][0]["offline"].as_str().unwrap().contains(&path), "{json}");
    assert_eq!(site.run(&["consume", "other"]).ok(), "{\"a\":1}\n");
    site.run(&["produce", "orders", "--file", "in.ndjson"]).fails_with(&["partition orders-0 is offline"]);
    let repaired = site.run(&["topic", "repair", "orders"]).ok();
    assert!(repaired.contains("created again, empty, from offset 0"), "{repaired}");
    site.run(&["produce", "orders", "--file", "in.ndjson"]).ok();
    assert!(!site.run(&["topic", "list"]).ok().contains("offline"));
}
