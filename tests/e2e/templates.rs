//! Every template is written, built with its language's ordinary tools, checked, tested and run.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use logmill_tests::data::target_folder;
use logmill_tests::site::{Finished, Site};

/// Writes a guest, builds it, and runs what comes with it.
fn check(arguments: &[&str], module: &str, build: impl Fn(&Path), says: &[&str]) -> Site {
    let site = Site::new();
    let new = [&["new", "wasm", "my-guest"], arguments].concat();
    assert!(site.run(&new).ok().contains("logmill test pipeline.yaml"));
    let folder = site.path().join("my-guest");
    let before = site.run(&["test", "my-guest/pipeline.yaml"]);
    before.fails_with(&["my-guest/pipeline.yaml", module]);
    build(&folder);
    let module = format!("my-guest/{module}");
    let checked = site.run(&["wasm", "check", &module]).ok();
    for text in says.iter().copied().chain(["sha256:", "imports", "limits"]) {
        assert!(checked.contains(text), "no `{text}` in\n{checked}");
    }
    let tested = site.run(&["test", "my-guest"]).ok();
    assert!(tested.contains("… ok") && !tested.contains("FAILED"), "{tested}");
    let printed = site.run(&["run", "my-guest/pipeline.yaml", "--quiet"]).ok();
    assert!(printed.lines().count() >= 4, "{printed}");
    site
}

fn feed(site: &Site, arguments: &[&str], input: &str) -> Finished {
    let mut child =
        site.command(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap().into()
}

fn run(folder: &Path, program: impl AsRef<std::ffi::OsStr>, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).current_dir(folder).stdin(Stdio::null()).output().unwrap();
    let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{arguments:?}:\n{}{}", shown(&output.stdout), shown(&output.stderr));
}

fn npm(folder: &Path) {
    run(folder, "npm", &["install", "--no-audit", "--no-fund", "--loglevel", "error"]);
    run(folder, "npm", &["run", "build"]);
}

/// Builds with the target that rustup has, or with what the script brings along. What the guests build upon is built once,
/// in a folder that stays.
fn cargo(folder: &Path) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../operators/guest/toolchain.sh").canonicalize().unwrap();
    let shared = target_folder().join("templates");
    run(folder, script, &["build", "--release", "--target-dir", &shared.display().to_string()]);
    let module = folder.join(RUST);
    std::fs::create_dir_all(module.parent().unwrap()).unwrap();
    std::fs::copy(shared.join(Path::new(RUST).strip_prefix("target").unwrap()), module).unwrap();
}

fn pip(folder: &Path) {
    run(folder, "python3", &["-m", "venv", ".venv"]);
    let bin: PathBuf = folder.join(".venv/bin");
    run(folder, bin.join("pip"), &["install", "--quiet", "--disable-pip-version-check", "-r", "requirements.txt"]);
    std::fs::create_dir(folder.join("build")).unwrap();
    let arguments = ["-d", "wit", "-w", "transform", "componentize", "transform", "-o", "build/my-guest.wasm"];
    run(folder, bin.join("componentize-py"), &arguments);
}

#[test]
fn assemblyscript() {
    let _ = check(&["--lang", "assemblyscript"], "build/my-guest.wasm", npm, &["a transform", "my-guest.unchanged"]);
}

#[test]
fn js() {
    let _ = check(&["--lang", "js"], "build/my-guest.wasm", npm, &["a transform", "masked: int32", "my-guest.rejects"]);
}

#[test]
fn python() {
    let _ =
        check(&["--lang", "python"], "build/my-guest.wasm", pip, &["a transform", "masked: int32", "my-guest.rejects"]);
}

const RUST: &str = "target/wasm32-unknown-unknown/release/my_guest.wasm";

#[test]
fn rust_transform() {
    check(&["--lang", "rust"], RUST, cargo, &["a transform", "masked: int32", "my_guest.rejects"]);
}

#[test]
fn rust_operator() {
    check(&["--lang", "rust", "--kind", "operator"], RUST, cargo, &["an operator", "with state"]);
}

#[test]
fn rust_function() {
    let site = check(
        &["--lang", "rust", "--kind", "function"],
        RUST,
        cargo,
        &["functions for SQL", "mask(text: string) -> string", "room(text: string) -> int64"],
    );
    let module = format!("my-guest/{RUST}");
    let sql = |function: &str, query: &str| site.run(&["sql", "--function", function, "--format", "json", query]);
    let query = "SELECT stars(text) AS t FROM 'my-guest/messages.ndjson' WHERE author = 'joe'";
    assert_eq!(sql(&format!("stars={module}#mask"), query).ok(), "{\"t\":\"room ***, second floor\"}\n");
    sql(&format!("stars={module}"), query).fails_with(&["stars", "mask, words, room"]);
    sql(&format!("upper={module}#mask"), query).fails_with(&["upper", "another name"]);
    sql(&format!("stars={module}#mask"), "SELECT stras('a')")
        .fails_with(&["unknown function `stras`", "did you mean `stars`?"]);
    sql(&format!("stars={module}#mask"), "SELECT stars(1)")
        .fails_with(&["error: argument 1 of `stars(string)` is of type int64; cast it\n"]);
    let lines = "[\"room 101\"]\n{\"text\":\"noon\"}\n[\"room service\"]\n{\"txt\":1}\n";
    let called = feed(&site, &["wasm", "run", &module, "--function", "room"], lines);
    let printed = called.stdout.clone();
    called.fails_with(&[
        "line 3: `room`: no room has the number `service`",
        "line 4: the function has no argument `txt`; there are text",
        "2 lines failed",
    ]);
    assert_eq!(printed, "{\"room\":101}\n{\"room\":null}\n");
}

/// Rows of an operator are typed as its input is: by what the command line says, or by the first lines.
#[test]
fn rust_operator_alone() {
    let site = Site::new();
    site.run(&["new", "wasm", "my-guest", "--lang", "rust", "--kind", "operator"]).ok();
    cargo(&site.path().join("my-guest"));
    let module = format!("my-guest/{RUST}");
    let lines = "{\"author\":\"ann\",\"text\":\"hi\"}\n\n{\"author\":null,\"text\":\"?\"}\n{\"author\":\"ann\",\"text\":\"ho\"}\n";
    let typed = feed(&site, &["wasm", "run", &module, "--schema", "author: string, text: string"], lines);
    let printed = typed.stdout.clone();
    typed.fails_with(&["line 3: a message without an author", "1 line failed"]);
    let expected =
        "{\"author\":\"ann\",\"messages\":1,\"characters\":2}\n{\"author\":\"ann\",\"messages\":2,\"characters\":4}\n";
    assert_eq!(printed, expected);
    let inferred = feed(&site, &["wasm", "run", &module], lines);
    assert_eq!(inferred.stdout, expected);
    let checked = site.run(&["wasm", "check", &module, "--schema", "author: string, text: string"]).ok();
    assert!(checked.contains("messages: int64") && checked.contains("version 1"), "{checked}");
    site.run(&["wasm", "check", &module, "--schema", "author: int64, text: string"])
        .fails_with(&["`author`", "string"]);
}
