//! Rotated files are read on, and not again.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use logmill_pipelines::flow::{Positions, SplitId};
use tempfile::TempDir;

use super::tests::{followed, gzip, raw, texts};
use crate::conformance::source::read;
use crate::source::Source;

fn write(folder: &Path, name: &str, text: &str) {
    fs::write(folder.join(name), text).unwrap();
}

fn append(folder: &Path, name: &str, text: &str) {
    OpenOptions::new().append(true).open(folder.join(name)).unwrap().write_all(text.as_bytes()).unwrap();
}

fn rename(folder: &Path, from: &str, to: &str) {
    fs::rename(folder.join(from), folder.join(to)).unwrap();
}

fn compress(folder: &Path, name: &str) {
    let bytes = fs::read(folder.join(name)).unwrap();
    fs::write(folder.join(format!("{name}.gz")), gzip(&bytes)).unwrap();
    fs::remove_file(folder.join(name)).unwrap();
}

/// Sets when a file was modified, in seconds before now.
fn modified_before(folder: &Path, name: &str, seconds: u64) {
    let at = SystemTime::now() - Duration::from_secs(seconds);
    File::options().append(true).open(folder.join(name)).unwrap().set_modified(at).unwrap();
}

/// The lines that a run reads which goes on from some positions; the positions are those of its end afterwards.
async fn run(folder: &Path, yaml: &str, positions: &mut Positions) -> Vec<String> {
    let files = raw(folder, yaml).await;
    files.resume(positions).unwrap();
    let mut lines = Vec::new();
    for split in files.discover(&BTreeSet::new()).await.unwrap().new {
        let (reached, content) = read(&files, &split, positions.get(&split)).await;
        positions.extend(reached.into_iter().next_back().map(|position| (split, position)));
        lines.extend(texts(&content));
    }
    lines.sort();
    lines
}

/// Lines that are more than what tells a file.
fn many(from: usize) -> String {
    (from..from + 300).map(|line| format!("line {line}\n")).collect()
}

#[tokio::test]
async fn files_of_a_glob_are_read_once_under_any_name() {
    let folder = TempDir::new().unwrap();
    let (folder, glob) = (folder.path(), "{path: 'app.log*'}");
    let mut positions = Positions::new();
    write(folder, "app.log", "1\n2\n");
    assert_eq!(run(folder, glob, &mut positions).await, ["1", "2"]);

    append(folder, "app.log", "3\n");
    rename(folder, "app.log", "app.log.1");
    write(folder, "app.log", "4\n");
    assert_eq!(run(folder, glob, &mut positions).await, ["3", "4"]);
    assert_eq!(run(folder, glob, &mut positions).await, [""; 0]);

    rename(folder, "app.log.1", "app.log.2");
    rename(folder, "app.log", "app.log.1");
    write(folder, "app.log", "5\n");
    assert_eq!(run(folder, glob, &mut positions).await, ["5"]);

    // The oldest goes, compressed or not, and what it held is not read again.
    compress(folder, "app.log.2");
    rename(folder, "app.log.1", "app.log.3");
    assert_eq!(run(folder, glob, &mut positions).await, [""; 0]);
    fs::remove_file(folder.join("app.log.2.gz")).unwrap();
    append(folder, "app.log", "6\n");
    compress(folder, "app.log");
    write(folder, "app.log", "7\n");
    assert_eq!(run(folder, glob, &mut positions).await, ["6", "7"]);
    assert_eq!(run(folder, glob, &mut positions).await, [""; 0]);
    let splits: Vec<_> = positions.keys().map(SplitId::as_str).collect();
    assert_eq!(splits, ["app.log", "app.log#2", "app.log#3", "app.log#4"]);
}

#[tokio::test]
async fn copies_that_rotation_makes_are_read_from_where_the_file_was_read_to() {
    let folder = TempDir::new().unwrap();
    let (folder, glob) = (folder.path(), "{path: 'app.log*'}");
    for is_compressed in [false, true] {
        let mut positions = Positions::new();
        write(folder, "app.log", &many(0));
        assert_eq!(run(folder, glob, &mut positions).await.len(), 300);
        append(folder, "app.log", "tail\n");
        fs::copy(folder.join("app.log"), folder.join("app.log.1")).unwrap();
        // The copy is there, and the file is not truncated yet.
        assert_eq!(run(folder, glob, &mut positions).await, ["tail"]);
        append(folder, "app.log", "later\n");
        fs::copy(folder.join("app.log"), folder.join("app.log.1")).unwrap();
        if is_compressed {
            compress(folder, "app.log.1");
        }
        // Written anew, with more than before: its length does not tell.
        write(folder, "app.log", &many(1000).repeat(2));
        let found = run(folder, glob, &mut positions).await;
        assert_eq!((found.len(), found[0].as_str()), (601, "later"));
        assert_eq!(run(folder, glob, &mut positions).await, [""; 0]);
        fs::remove_file(folder.join(if is_compressed { "app.log.1.gz" } else { "app.log.1" })).unwrap();
    }
}

#[tokio::test]
async fn files_that_look_alike_are_read_each() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    let mut positions = Positions::new();
    write(folder, "a.log", "start\n");
    write(folder, "b.log", "start\n");
    assert_eq!(run(folder, "{path: '*.log'}", &mut positions).await, ["start", "start"]);
    // Too short for any digest to tell, but another file.
    write(folder, "c.log", "start\nmore\n");
    assert_eq!(run(folder, "{path: '*.log'}", &mut positions).await, ["more", "start"]);
    rename(folder, "a.log", "a.1.log");
    write(folder, "a.log", "start\n");
    assert_eq!(run(folder, "{path: '*.log'}", &mut positions).await, ["start"]);
    assert_eq!(run(folder, "{path: '*.log'}", &mut positions).await, [""; 0]);
    // A second name of a file is no second file.
    fs::hard_link(folder.join("a.log"), folder.join("d.log")).unwrap();
    assert_eq!(run(folder, "{path: '*.log'}", &mut positions).await, [""; 0]);
}

#[tokio::test]
async fn positions_of_older_versions_are_those_of_the_file_of_that_name() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    let mut positions = Positions::new();
    write(folder, "a.log", "1\n2\n");
    run(folder, "{path: '*.log'}", &mut positions).await;
    for position in positions.values_mut() {
        let position = position.0.as_object_mut().unwrap();
        position.retain(|key, _| ["byte", "line", "head"].contains(&key.as_str()));
    }
    append(folder, "a.log", "3\n");
    assert_eq!(run(folder, "{path: '*.log'}", &mut positions).await, ["3"]);
    assert_eq!(run(folder, "{path: a.log}", &mut positions).await, [""; 0]);
}

#[tokio::test]
async fn a_followed_path_goes_on_through_all_that_happened_while_nobody_read() {
    let yaml = "{path: app.log, follow: true}";
    type Happen = fn(&Path);
    let cases: [(Happen, &[&str]); 6] = [
        (|folder| rename(folder, "app.log", "app.log.1"), &["2"]),
        (
            |folder| {
                rename(folder, "app.log", "app.log.1");
                write(folder, "app.log", "new\n");
            },
            &["2", "new"],
        ),
        (
            |folder| {
                rename(folder, "app.log", "app.log.2");
                modified_before(folder, "app.log.2", 20);
                write(folder, "app.log.1", "between\n");
                modified_before(folder, "app.log.1", 10);
                write(folder, "app.log.9", "before\n");
                modified_before(folder, "app.log.9", 30);
                write(folder, "app.log", "new\n");
            },
            &["2", "between", "new"],
        ),
        (
            |folder| {
                fs::copy(folder.join("app.log"), folder.join("app.log.1")).unwrap();
                write(folder, "app.log", "new\n");
            },
            &["2", "new"],
        ),
        (
            |folder| {
                compress(folder, "app.log");
                write(folder, "app.log", "new\n");
            },
            &["2", "new"],
        ),
        (
            |folder| {
                rename(folder, "app.log", "app-20240131.log");
                compress(folder, "app-20240131.log");
                write(folder, "app.log", "new\n");
            },
            &["2", "new"],
        ),
    ];
    for (number, (happen, expected)) in cases.into_iter().enumerate() {
        let folder = TempDir::new().unwrap();
        let folder = folder.path();
        write(folder, "app.log", "1\n");
        let mut positions = Positions::new();
        assert_eq!(run(folder, "{path: app.log}", &mut positions).await, ["1"]);
        append(folder, "app.log", "2\n");
        happen(folder);
        let files = raw(folder, yaml).await;
        files.resume(&positions).unwrap();
        let found = files.discover(&BTreeSet::new()).await.unwrap().new;
        assert_eq!(found, [SplitId::new("app.log")], "case {number}");
        let from = positions.get(&SplitId::new("app.log"));
        assert_eq!(followed(&files, "app.log", from, expected.len(), || {}).await, expected, "case {number}");
    }
}

#[tokio::test]
async fn lines_that_come_to_a_renamed_file_are_read_before_the_new_file() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    write(folder, "app.log", "1\n");
    let files = raw(folder, "{path: app.log, follow: true}").await;
    files.discover(&BTreeSet::new()).await.unwrap();
    let rotate = || {
        rename(folder, "app.log", "app.log.1");
        append(folder, "app.log.1", "2\n");
        // The new file has nothing in it yet: the writer still writes to the old one.
        write(folder, "app.log", "");
        append(folder, "app.log.1", "3\n");
    };
    let found = followed(&files, "app.log", None, 3, rotate).await;
    assert_eq!(found, ["1", "2", "3"]);
    fs::remove_file(folder.join("app.log")).unwrap();
    // That the path leads nowhere for a while is no mistake.
    files.discover(&BTreeSet::new()).await.unwrap();
}

#[tokio::test]
async fn followed_files_of_a_glob_are_followed_under_their_new_names() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    write(folder, "app.log", "1\n");
    let files = raw(folder, "{path: 'app.log*', follow: true}").await;
    let known: BTreeSet<_> = files.discover(&BTreeSet::new()).await.unwrap().new.into_iter().collect();
    let rotate = || {
        rename(folder, "app.log", "app.log.1");
        append(folder, "app.log.1", "2\n");
        write(folder, "app.log", "3\n");
    };
    assert_eq!(followed(&files, "app.log", None, 2, rotate).await, ["1", "2"]);
    let new = files.discover(&known).await.unwrap().new;
    assert_eq!(new, [SplitId::new("app.log#2")]);
    assert_eq!(followed(&files, "app.log#2", None, 1, || {}).await, ["3"]);
}

#[tokio::test]
async fn a_truncated_file_goes_on_after_the_rest_of_its_copy() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    for yaml in ["{path: app.log, follow: true}", "{path: '*.log', follow: true}"] {
        write(folder, "app.log", "1\n2\n");
        let files = raw(folder, yaml).await;
        files.discover(&BTreeSet::new()).await.unwrap();
        let truncate = || {
            write(folder, "app.log.1", "1\n2\n3\n");
            write(folder, "app.log", "4\n");
        };
        let count = if yaml.contains('*') { 3 } else { 4 };
        let found = followed(&files, "app.log", None, count, truncate).await;
        assert_eq!(found, ["1", "2", "3", "4"][..count], "{yaml}");
        if count == 3 {
            // The content goes on as the split that it was; what is under the old name is another.
            let new = files.discover(&BTreeSet::from([SplitId::new("app.log")])).await.unwrap().new;
            assert_eq!(new, [SplitId::new("app.log#2")]);
        }
        fs::remove_file(folder.join("app.log.1")).unwrap();
    }
}

#[tokio::test]
async fn a_folder_is_the_same_however_it_is_named() {
    let folder = TempDir::new().unwrap();
    let depth = std::env::current_dir().unwrap().components().count() - 1;
    let relative = Path::new(&"../".repeat(depth)).join(folder.path().strip_prefix("/").unwrap());
    for yaml in ["{path: a.log, follow: false}", "{path: '*.log*'}"] {
        for [first, second] in [[folder.path(), &relative], [&relative, folder.path()], [&relative, &relative]] {
            write(folder.path(), "a.log", &many(0));
            let mut positions = Positions::new();
            assert_eq!(run(first, yaml, &mut positions).await.len(), many(0).lines().count());
            assert_eq!(run(second, yaml, &mut positions).await, Vec::<String>::new());
            if yaml.contains('*') {
                rename(folder.path(), "a.log", "a.log.1");
                append(folder.path(), "a.log.1", "more\n");
                assert_eq!(run(second, yaml, &mut positions).await, ["more"]);
                assert_eq!(run(first, yaml, &mut positions).await, Vec::<String>::new());
                std::fs::remove_file(folder.path().join("a.log.1")).unwrap();
            }
        }
    }
}

#[tokio::test]
async fn a_file_that_is_being_compressed_is_not_read_again() {
    let text = many(0);
    let (whole, older) = (gzip(text.as_bytes()), gzip(many(1000).as_bytes()));
    for length in [0, 10, whole.len() / 2, whole.len()] {
        let folder = TempDir::new().unwrap();
        let folder = folder.path();
        write(folder, "app.log", &text);
        modified_before(folder, "app.log", 10);
        let rotate = || {
            rename(folder, "app.log", "app.log.1");
            fs::write(folder.join("app.log.1.gz"), &whole[..length]).unwrap();
            // An older one is compressed late.
            fs::write(folder.join("app.log.2.gz"), &older[..length.min(older.len() - 1)]).unwrap();
            write(folder, "app.log", "new\n");
        };
        let files = raw(folder, "{path: app.log, follow: true}").await;
        files.discover(&BTreeSet::new()).await.unwrap();
        let found = followed(&files, "app.log", None, 301, rotate).await;
        assert_eq!(found.last().map(String::as_str), Some("new"), "{length}");
    }
}

#[tokio::test]
async fn a_file_of_a_glob_that_is_being_compressed_is_not_read_again() {
    let text = many(0);
    let whole = gzip(text.as_bytes());
    for length in [0, 10, whole.len() / 2, whole.len()] {
        let folder = TempDir::new().unwrap();
        let folder = folder.path();
        write(folder, "app.log", &text);
        let files = raw(folder, "{path: 'app.log*', follow: true}").await;
        let known: BTreeSet<_> = files.discover(&BTreeSet::new()).await.unwrap().new.into_iter().collect();
        followed(&files, "app.log", None, 300, || {}).await;
        rename(folder, "app.log", "app.log.1");
        fs::write(folder.join("app.log.1.gz"), &whole[..length]).unwrap();
        write(folder, "app.log", "new\n");
        assert_eq!(files.discover(&known).await.unwrap().new, [SplitId::new("app.log#2")], "{length}");
    }
}

#[tokio::test]
async fn a_file_that_is_made_anew_after_it_was_removed_is_read() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    write(folder, "a.log", "1\n");
    let files = raw(folder, "{path: '*.log', follow: true}").await;
    let known: BTreeSet<_> = files.discover(&BTreeSet::new()).await.unwrap().new.into_iter().collect();
    let mut reader = files.open(&SplitId::new("a.log"), None).await.unwrap();
    assert!(reader.next().await.unwrap().is_some());
    fs::remove_file(folder.join("a.log")).unwrap();
    assert!(reader.next().await.unwrap().is_none());
    files.discover(&known).await.unwrap();
    write(folder, "a.log", "2\n3\n");
    assert_eq!(files.discover(&known).await.unwrap().new, [SplitId::new("a.log#2")]);
    assert_eq!(followed(&files, "a.log#2", None, 2, || {}).await, ["2", "3"]);
}

#[tokio::test]
async fn a_file_that_was_truncated_while_it_was_followed_is_no_gap_later() {
    for yaml in ["{path: app.log, follow: true}", "{path: '*.log', follow: true}"] {
        let folder = TempDir::new().unwrap();
        let folder = folder.path();
        let split = SplitId::new("app.log");
        write(folder, "app.log", "1\n2\n");
        let files = raw(folder, yaml).await;
        files.discover(&BTreeSet::new()).await.unwrap();
        let mut reader = files.open(&split, None).await.unwrap();
        reader.next().await.unwrap().unwrap();
        write(folder, "app.log", "");
        let reached = reader.next().await.unwrap().unwrap().position;
        let files = raw(folder, yaml).await;
        files.resume(&Positions::from([(split.clone(), reached.clone())])).unwrap();
        assert_eq!(files.discover(&BTreeSet::new()).await.unwrap().new, [split], "{yaml}");
        write(folder, "app.log", "3\n");
        assert_eq!(followed(&files, "app.log", Some(&reached), 1, || {}).await, ["3"], "{yaml}");
    }
}
