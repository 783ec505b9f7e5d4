//! Modules that would exhaust whoever loads them, and what `wasm check` finds out by trying.

use std::fs;
use std::process::Stdio;

use super::{guest, site};

/// A component of a few bytes whose innermost part is instantiated 2^26 times.
fn doubling() -> Vec<u8> {
    let levels = (1..=26).map(|level| {
        let below = level - 1;
        format!(
            "(component $c{level} (alias outer $top $c{below} (component $below))
                (instance (instantiate $below)) (instance (instantiate $below)))"
        )
    });
    let levels: String = levels.collect();
    wat::parse_str(format!("(component $top (component $c0) {levels} (instance (instantiate $c26)))")).unwrap()
}

#[test]
fn a_component_that_multiplies_itself_is_refused_at_once() {
    let site = site();
    let bomb = doubling();
    assert!(bomb.len() < 2_000, "{} bytes", bomb.len());
    site.write("bomb.wasm", bomb);
    site.write(
        "p.yaml",
        "pipeline: p\n\
         sources:\n\
        \x20 rows: { type: topic, topic: rows, format: json, schema: { a: int64 } }\n\
         operators:\n\
        \x20 made: { wasm: { module: bomb.wasm, input: rows } }\n\
         sinks:\n\
        \x20 out: { type: blackhole, input: made }\n",
    );
    let expected = "each counted as often as it is instantiated";
    site.run(&["wasm", "check", "bomb.wasm"]).fails_with(&["bomb.wasm", expected]);
    site.run(&["check", "p.yaml"]).fails_with(&["p.yaml:5:27", expected]);
    site.run(&["run", "p.yaml"]).fails_with(&["p.yaml:5:27", expected]);
}

#[test]
fn pipes_and_folders_are_no_modules() {
    let site = site();
    let pipe = site.path().join("pipe.wasm");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
    fs::create_dir(site.path().join("folder.wasm")).unwrap();
    site.run(&["wasm", "check", "pipe.wasm"]).fails_with(&["pipe.wasm", "it is a pipe"]);
    site.run(&["wasm", "run", "pipe.wasm"]).fails_with(&["pipe.wasm", "it is a pipe"]);
    site.run(&["wasm", "check", "folder.wasm"]).fails_with(&["folder.wasm", "it is a folder"]);
    site.run(&["wasm", "check", "/dev/zero"]).fails_with(&["/dev/zero", "it is a device"]);
}

/// Modules are compiled by a process of their own, which has a memory and a time of its own.
#[test]
fn the_process_that_compiles_answers_with_code_or_with_what_is_wrong() {
    let site = site();
    let answer = |module: &[u8]| {
        let mut command = site.command(&["compile-module"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), module).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        output.stdout
    };
    let code = answer(&fs::read(guest("copy")).unwrap());
    assert_eq!(code.first(), Some(&0));
    assert!(code.len() > 1000, "{} bytes", code.len());
    assert_eq!(answer(b"no module"), [&[1][..], b"it does not begin as one"].concat());
    assert_eq!(answer(&doubling()).first(), Some(&2));
}

#[test]
fn names_in_modules_do_nothing_to_a_terminal() {
    let site = site();
    let import =
        "(module (import \"env\" \"\\1b[2J\\0aok: all is well\\e2\\80\\ae\" (func)) (memory (export \"memory\") 1)
        (func (export \"logmill_alloc\") (param i32) (result i32) unreachable)
        (func (export \"logmill_transform\") (param i32 i32) (result i64) unreachable))";
    site.write("names.wasm", wat::parse_str(import).unwrap());
    let said =
        site.run(&["wasm", "check", "names.wasm"]).fails_with(&["imports what guests do not get", "all is well"]);
    assert!(!said.stderr.contains(['\u{1b}', '\u{202e}']), "{:?}", said.stderr);
    assert!(!said.stderr.lines().any(|line| line.starts_with("ok:")), "{:?}", said.stderr);
}

#[test]
fn check_tries_modules_on_rows() {
    let site = site();
    let schema = ["--schema", "carrier: string, delay: int64"];
    let check = |module: &str, config: &str| {
        let module = guest(module);
        site.run(&[&["wasm", "check", &module, "--config", config, "--deadline", "30s"][..], &schema].concat())
    };
    let said = check("identity", "null").ok();
    assert!(said.contains("tried    64 rows that are made up, 0 refused: does the same again\n"), "{said}");
    assert!(!said.contains("batches "), "{said}");
    let said = check("tally", "{\"key\": \"carrier\", \"value\": \"delay\"}").ok();
    assert!(
        said.contains("goes on from its snapshots") && said.contains("batches  what it puts out depends"),
        "{said}"
    );
    check("hostile-stateful", "{\"mode\": \"hidden\"}")
        .fails_with(&["restored from its snapshot", "all that the guest remembers"]);
}
