//! Wrong input gets a message that tells the place and the way out, and nothing is lost.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use logmill_tests::data::flights_of_the_week;
use logmill_tests::outcome;
use logmill_tests::site::Site;

/// A pipeline that reads `in.ndjson` with the columns `a` and `b` into a lake.
const PIPELINE: &str = "\
pipeline: p
sources:
  rows: { type: file, path: in.ndjson, format: json, schema: { a: int64, b: string } }
operators:
  all:
    sql: SELECT a, b FROM rows
sinks:
  lake: { type: object_store, input: all, url: ./lake, format: json }
";

fn refuses(yaml: &str, expected: &[&str]) {
    let site = Site::new();
    site.write("p.yaml", yaml);
    site.write("in.ndjson", "{\"a\":1,\"b\":\"x\"}\n");
    site.run(&["check", "p.yaml"]).fails_with(expected);
    site.run(&["run", "p.yaml"]).fails_with(expected);
    assert!(!site.path().join("lake").exists(), "a pipeline that does not check must not run");
}

#[test]
fn mistakes_in_the_yaml_are_told_with_their_places() {
    let with = |from: &str, to: &str| {
        assert!(PIPELINE.contains(from), "{from}");
        PIPELINE.replace(from, to)
    };
    refuses(&with("operators:", "operatros:"), &["p.yaml:4:1", "operatros", "operators"]);
    refuses(&with("path: in.ndjson", "path: 7.5"), &["p.yaml:3:", "path"]);
    refuses(&with("input: all", "input: al"), &["p.yaml:8:", "`al`", "all"]);
    refuses(&with("input: all, ", ""), &["p.yaml:8:", "input"]);
    refuses(&with("SELECT a, b", "SELECT a, c"), &["p.yaml:6:20", "c"]);
    refuses(&with("SELECT a, b FROM rows", "SELECT a, b FROM rows WHERE a"), &["p.yaml:6:"]);
    refuses(&with("./lake", "${NOT_SET_ANYWHERE}"), &["p.yaml:8:", "NOT_SET_ANYWHERE"]);
    refuses(&with("FROM rows", "FROM other\n  other:\n    sql: SELECT a, b FROM all"), &["p.yaml:", "other", "all"]);
    refuses(&with("  all:\n", "  rows:\n"), &["p.yaml:5:3", "rows"]);
    refuses(&with("SELECT a, b FROM rows", "SELECT b, count(*) AS n FROM rows GROUP BY b"), &["p.yaml:6:"]);
}

#[test]
fn all_mistakes_are_told_in_one_run() {
    let many =
        PIPELINE.replace("input: all", "input: al").replace("type: file", "type: fiel").replace("int64", "int63");
    refuses(&many, &["fiel", "`file`", "`al`", "int63"]);
    let many = PIPELINE.replace("input: all", "input: al").replace("SELECT a, b", "SELECT a, c");
    refuses(&many, &["`al`", "p.yaml:6:20"]);
}

#[test]
fn names_with_line_breaks_and_escapes_do_not_begin_lines_of_their_own() {
    let site = Site::new();
    let name = "x\nerror: all is well\u{1b}[2J";
    let said = site.run(&["run", &format!("{name}.yaml")]).fails_with(&["could not read"]);
    site.write("p.yaml", PIPELINE);
    site.write("in.ndjson", "{\"a\":1,\"b\":\"x\"}\n");
    let ran = site.run(&["run", "p.yaml", "--data-dir", name]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    for stderr in [said.stderr, ran.stderr] {
        assert!(stderr.contains("all is well"), "{stderr:?}");
        assert!(!stderr.contains('\u{1b}'), "{stderr:?}");
        assert!(!stderr.lines().any(|line| line.starts_with("error: all")), "{stderr:?}");
    }
}

#[test]
fn a_folder_in_place_of_a_pipeline_gets_a_hint() {
    let site = Site::new();
    site.write("pipelines/p.yaml", PIPELINE);
    site.run(&["run", "pipelines"]).fails_with(&["`pipelines` is a folder", "YAML file"]);
}

#[test]
fn a_pipeline_without_mistakes_checks() {
    let site = Site::new();
    site.write("p.yaml", PIPELINE);
    site.run(&["check", "p.yaml"]).ok();
    site.run(&["check", "."]).ok();
    let early = PIPELINE.replace("b: string }", "b: string, t: timestamp }, event_time: { column: t }");
    site.write("p.yaml", early);
    let checked = site.run(&["check", "p.yaml"]);
    assert!(checked.stderr.contains("p.yaml:3:") && checked.stderr.contains("no effect yet"), "{checked:?}");
    checked.ok();
}

fn site_with(pipeline: &str, input: &str) -> Site {
    let site = Site::new();
    site.write("p.yaml", pipeline);
    site.write("in.ndjson", input);
    site
}

#[test]
fn a_file_that_is_not_there_or_not_a_file_is_named() {
    let site = Site::new();
    site.write("p.yaml", PIPELINE);
    site.write("im.ndjson", "");
    site.run(&["run", "p.yaml"]).fails_with(&["in.ndjson", "im.ndjson"]);
    fs::create_dir(site.path().join("in.ndjson")).unwrap();
    site.run(&["run", "p.yaml"]).fails_with(&["in.ndjson", "directory"]);
    site.run(&["run", "no.yaml"]).fails_with(&["no.yaml"]);
    site.run(&["check", "no.yaml"]).fails_with(&["no.yaml"]);
}

#[test]
fn a_file_that_cannot_be_read_says_why() {
    if rustix::process::geteuid().is_root() {
        // Root reads everything: a loop of symbolic links cannot be read by anyone.
        let site = Site::new();
        site.write("p.yaml", PIPELINE);
        std::os::unix::fs::symlink("in.ndjson", site.path().join("in.ndjson")).unwrap();
        site.run(&["run", "p.yaml"]).fails_with(&["in.ndjson"]);
    } else {
        let site = site_with(PIPELINE, "{}");
        fs::set_permissions(site.path().join("in.ndjson"), fs::Permissions::from_mode(0o000)).unwrap();
        site.run(&["run", "p.yaml"]).fails_with(&["in.ndjson", "ermission denied"]);
    }
}

const THREE_LINES: &str = "{\"a\":1,\"b\":\"x\"}\n{\"a\":oops}\n{\"a\":3,\"b\":\"z\"}\n";

#[test]
fn a_malformed_line_stops_the_run_with_its_place() {
    let site = site_with(PIPELINE, THREE_LINES);
    site.run(&["run", "p.yaml"]).fails_with(&["in.ndjson:2", "byte 16", "oops", "dead_letter"]);
    assert_eq!(outcome::rows(&site.path().join("lake")), Vec::<String>::new());
    // Once mended, the run goes on as if nothing had been.
    site.write("in.ndjson", THREE_LINES.replace("oops", "2"));
    site.run(&["run", "p.yaml"]).ok();
    assert_eq!(outcome::rows(&site.path().join("lake")).len(), 3);
}

#[test]
fn a_malformed_line_becomes_a_dead_letter() {
    let site = site_with(&format!("{PIPELINE}on_error: {{ dead_letter: bad }}\n"), THREE_LINES);
    site.run(&["run", "p.yaml"]).ok();
    let expected = [r#"{"a":1,"b":"x"}"#, r#"{"a":3,"b":"z"}"#];
    assert_eq!(outcome::rows(&site.path().join("lake")), expected);
    let letters = site.run(&["consume", "bad", "--format", "json"]).ok();
    assert_eq!(letters.lines().count(), 1);
    for text in ["oops", "in.ndjson:2", "logmill.error", "rows"] {
        assert!(letters.contains(text), "no {text} in {letters}");
    }
}

#[test]
fn a_row_that_an_operator_fails_on_is_told_or_put_aside() {
    let failing = PIPELINE.replace("SELECT a, b", "SELECT CAST(b AS int) / a AS q");
    let input = "{\"a\":1,\"b\":\"8\"}\n{\"a\":0,\"b\":\"7\"}\n{\"a\":2,\"b\":\"x\"}\n{\"a\":2,\"b\":\"8\"}\n";
    site_with(&failing, input).run(&["run", "p.yaml"]).fails_with(&["`all`", "zero"]);
    let site = site_with(&format!("{failing}on_error: {{ dead_letter: bad }}\n"), input);
    site.run(&["run", "p.yaml"]).ok();
    assert_eq!(outcome::rows(&site.path().join("lake")), [r#"{"q":4}"#, r#"{"q":8}"#]);
    assert_eq!(site.run(&["consume", "bad", "--format", "value"]).ok().lines().count(), 2);
}

#[test]
fn an_edited_pipeline_is_accepted_or_refused_with_the_reason() {
    let site = site_with(PIPELINE, "{\"a\":1,\"b\":\"x\"}\n");
    site.run(&["run", "p.yaml"]).ok();
    site.write("p.yaml", PIPELINE.replace("SELECT a, b", "SELECT a + 1 AS a, b"));
    let second = site.run(&["run", "p.yaml"]);
    assert!(format!("{}{}", second.stdout, second.stderr).contains("`all`"), "{second:?}");
    second.ok();
    site.write("other.ndjson", "{\"a\":5,\"b\":\"y\"}\n");
    site.write("p.yaml", PIPELINE.replace("in.ndjson", "other.ndjson"));
    site.run(&["run", "p.yaml"]).fails_with(&["`rows`", "--fresh"]);
    site.run(&["run", "p.yaml", "--fresh"]).ok();
    assert_eq!(outcome::rows(&site.path().join("lake")).len(), 2);
}

#[test]
fn a_data_directory_in_use_or_too_new_is_refused() {
    let slow = PIPELINE.replace("path: in.ndjson", "path: in.ndjson, rate: 1/s");
    let site = site_with(&slow, &"{\"a\":1,\"b\":\"x\"}\n".repeat(1000));
    let mut run = site.start("run", &["run", "p.yaml"]);
    let topics = site.path().join("data/topics");
    let started = || {
        fs::read_dir(&topics).is_ok_and(|mut entries| {
            entries.any(|entry| entry.unwrap().file_name().to_string_lossy().starts_with("__logmill_manifest"))
        })
    };
    while !started() {
        assert!(run.ended().is_none(), "{}", run.errors());
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    site.run(&["topic", "list"]).fails_with(&[&run.pid().to_string(), "logmill"]);
    run.kill();
    site.run(&["topic", "list"]).ok();
    // The data dir says twice what it is.
    for file in ["data/meta.json", "data/metadata/meta.json"] {
        let path = site.path().join(file);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace("\"format\": 1", "\"format\": 999")).unwrap();
    }
    site.run(&["topic", "list"]).fails_with(&["999", "newer"]);
}

/// A filesystem of a few megabytes: the disk that fills up. `None` where the machine does not let us mount one.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(at: std::path::PathBuf) -> Option<Self> {
        fs::create_dir_all(&at).unwrap();
        let mounted =
            std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "size=6m", "tmpfs"]).arg(&at).status();
        mounted.is_ok_and(|status| status.success()).then_some(Self(at))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_stops_the_run_which_goes_on_when_there_is_room() {
    let site = Site::new();
    let Some(disk) = SmallDisk::mount(site.path().join("small")) else {
        eprintln!("skipped: this machine does not allow mounting");
        return;
    };
    let pipeline = PIPELINE.replace("./lake", "./small/lake").replace("SELECT a, b", "SELECT a, repeat(b, 20) AS b");
    site.write("p.yaml", pipeline);
    let week = fs::read_to_string(flights_of_the_week()).unwrap();
    let lines: Vec<String> =
        week.lines().enumerate().map(|(n, _)| format!("{{\"a\":{n},\"b\":\"row {n}, padded\"}}\n")).collect();
    site.write("in.ndjson", lines.concat());
    let ballast = disk.0.join("ballast");
    fs::write(&ballast, vec![1; 5 << 20]).unwrap();
    site.run(&["run", "p.yaml"]).fails_with(&["no space left"]);
    fs::remove_file(&ballast).unwrap();
    site.run(&["run", "p.yaml"]).ok();
    assert_eq!(outcome::rows(&disk.0.join("lake")).len(), lines.len());
    assert!(outcome::hidden_files(&disk.0.join("lake")).is_empty());
}
