//! Tidiness, checked: the sizes of files and functions, and who may depend on whom.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};

const MAX_FILE_LINES: usize = 600;
const MAX_FUNCTION_LINES: usize = 70;

/// A crate's folder and the workspace crates it may use, as the architecture has it.
const MAY_USE: [(&str, &[&str]); 10] = [
    ("log/protocol", &[]),
    ("log/storage", &["protocol"]),
    ("log/broker", &["protocol", "storage"]),
    ("pipelines", &[]),
    ("operators/wasm", &[]),
    ("operators/guest", &[]),
    ("connectors/columns", &["pipelines"]),
    ("operators", &["columns", "pipelines", "wasm"]),
    ("connectors", &["columns", "pipelines", "protocol"]),
    ("runtime", &["broker", "connectors", "operators", "pipelines", "protocol", "wasm"]),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

fn sources() -> Vec<(PathBuf, String)> {
    let folders = MAY_USE.iter().map(|(folder, _)| *folder).chain(["tests"]);
    let files = folders.flat_map(|folder| rust_files(&root().join(folder)));
    files.map(|path| (path.strip_prefix(root()).unwrap().to_owned(), fs::read_to_string(&path).unwrap())).collect()
}

#[test]
fn files_stay_short_and_say_what_they_are_for() {
    for (path, text) in sources() {
        let lines = text.lines().count();
        assert!(lines <= MAX_FILE_LINES, "{} has {lines} lines", path.display());
        assert!(text.starts_with("//!"), "{} does not begin by saying its purpose", path.display());
    }
}

#[test]
fn functions_stay_short() {
    for (path, text) in sources() {
        let mut open: Option<(usize, usize, String)> = None;
        for (number, line) in text.lines().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let starts =
                line.trim_start().split(['(', '<']).next().is_some_and(|head| head.split(' ').any(|word| word == "fn"));
            if open.is_none() && starts && !line.trim_start().starts_with("//") && !line.ends_with(';') {
                open = Some((number, indent, line.trim().to_owned()));
            } else if let Some((start, at, name)) = &open
                && indent == *at
                && line.trim_start().starts_with('}')
            {
                let length = number - start + 1;
                assert!(length <= MAX_FUNCTION_LINES, "{}: {length} lines: {name}", path.display());
                open = None;
            }
        }
    }
}

#[test]
fn dependencies_run_one_way() {
    for (folder, allowed) in MAY_USE {
        let manifest = fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
        let regular = manifest.split("[dev-dependencies]").next().unwrap();
        for line in regular.lines().filter(|line| line.starts_with("logmill-")) {
            let used = line.trim_start_matches("logmill-").split(['.', ' ', '=']).next().unwrap();
            assert!(allowed.contains(&used), "{folder} must not use {used}");
        }
    }
}

#[test]
fn only_the_runtime_reads_the_environment() {
    for (path, text) in sources() {
        let exempt = path.starts_with("runtime") || path.starts_with("tests");
        let code = text.split("#[cfg(test)]").next().unwrap();
        let in_tests = path.components().any(|part| {
            ["tests", "tests.rs", "benches", "conformance"].contains(&&*part.as_os_str().to_string_lossy())
        });
        assert!(exempt || in_tests || !code.contains("env::var"), "{} reads the environment", path.display());
    }
}

#[test]
fn one_file_writes_to_stderr() {
    for (path, text) in sources() {
        if !path.starts_with("runtime/src") || path.ends_with("stderr.rs") {
            continue;
        }
        let imports = |line: &str| line.starts_with("use std::io") && line.contains("stderr");
        let writes = text.contains("io::stderr()") || text.lines().any(imports);
        assert!(!writes, "{} writes to stderr: `stderr.rs` does, and escapes names", path.display());
    }
}
