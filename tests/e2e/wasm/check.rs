//! What `check` knows of modules before anything runs.

use super::{guest, site};

/// A pipeline with one module and one function.
fn pipeline(operator: &str, more: &str) -> String {
    format!(
        "pipeline: p\n\
         sources:\n\
        \x20 rows: {{ type: topic, topic: rows, until: end, format: json, schema: {{ a: int64, b: string }} }}\n\
         operators:\n\
        \x20 made: {{ wasm: {{ {operator} }} }}\n\
         sinks:\n\
        \x20 out: {{ type: blackhole, input: made }}\n\
         {more}"
    )
}

fn refuses(operator: &str, more: &str, expected: &[&str]) {
    let site = site();
    site.write("nonsense.wasm", b"\0asm\x0d\0\x01\0nonsense");
    site.write("text.wasm", "not a module");
    site.write("evil.wasm", wat::parse_str(EVIL).unwrap());
    site.write("p.yaml", pipeline(operator, more));
    site.run(&["check", "p.yaml"]).fails_with(expected);
    site.run(&["run", "p.yaml"]).fails_with(expected);
    assert!(!site.path().join("data/checkpoints").exists(), "a pipeline that does not check must not run");
}

/// A transform that wants to open files.
const EVIL: &str = r#"
(module
  (import "wasi_snapshot_preview1" "path_open" (func (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "env" "connect" (func (param i32)))
  (memory (export "memory") 1)
  (func (export "logmill_alloc") (param i32) (result i32) i32.const 0)
  (func (export "logmill_transform") (param i32 i32) (result i64) i64.const 0))
"#;

#[test]
fn modules_that_cannot_be_used_are_told_with_their_place() {
    let at = |module: &str| format!("module: {module}, input: rows");
    refuses(&at("gone.wasm"), "", &["p.yaml:5:27", "there is no file", "gone.wasm"]);
    refuses(&at("text.wasm"), "", &["p.yaml:5:27", "text.wasm"]);
    refuses(&at("nonsense.wasm"), "", &["p.yaml:5:27", "nonsense.wasm"]);
    refuses(&at(&guest("functions")), "", &["p.yaml:5:27", "functions:"]);
    let splitter = guest("splitter");
    let with = |config: &str| format!("module: {splitter}, input: rows, config: {config}");
    refuses(&with("{ column: c, from: 1 }"), "", &["p.yaml:5:27", "the input has no column `c`"]);
    refuses(&with("{ column: b, from: 1 }"), "", &["p.yaml:5:27", "not a number"]);
    refuses(&with("{ colum: a, from: 1 }"), "", &["p.yaml:5:", "error: config: ", "colum"]);
    refuses(&at(&splitter), "", &["p.yaml:5:27", "config: ", "it is configured with `config:`"]);
    let hostile = guest("hostile");
    let mode = |mode: &str, limits: &str| {
        format!("module: {hostile}, input: rows, config: {{ mode: {mode}, where: signature }}, {limits}")
    };
    refuses(&mode("loop", "deadline: 200ms"), "", &["p.yaml:5:27", "did not come back within 200ms"]);
    refuses(&mode("memory", "deadline: 10s, memory: 32MiB"), "", &["p.yaml:5:27", "memory"]);
    refuses(&mode("stack", "deadline: 10s"), "", &["p.yaml:5:27", "deeper"]);
    refuses(&mode("error", "deadline: 10s"), "", &["p.yaml:5:27", "refused as it was told to"]);
}

#[test]
fn what_a_guest_may_not_have_is_named() {
    let module = "module: evil.wasm, input: rows";
    refuses(module, "", &["p.yaml:5:27", "imports what guests do not get", "connect"]);
}

#[test]
fn names_that_lead_nowhere_get_a_hint() {
    let split = format!("module: {}, input: rows, config: {{ column: a, from: 1 }}", guest("splitter"));
    let sink = |input: &str| format!("  more: {{ type: topic, topic: t, input: {input} }}\n");
    refuses(&split, &sink("made.reject"), &["p.yaml:8:41", "has no output `reject`", "did you mean `made.rejects`?"]);
    refuses(&split, &sink("made.main"), &["p.yaml:8:41", "has no output `main`", "`made`, `made.rejects`"]);
    let identity = format!("module: {}, input: rows", guest("identity"));
    refuses(&identity, &sink("made.main"), &["p.yaml:8:41", "has no output `main`", "it has one output: `made`"]);
    let expects = |output: &str| {
        format!("tests:\n  - name: t\n    input: {{ rows: [{{ a: 1, b: x }}] }}\n    expect: {{ {output}: [] }}\n")
    };
    refuses(&split, &expects("made.reject"), &["p.yaml:11:15", "no output `reject`", "did you mean `made.rejects`?"]);
    refuses(&split, &expects("made.main"), &["p.yaml:11:15", "has no output `main`", "`made`, `made.rejects`"]);
    refuses(&split, &expects("zz"), &["p.yaml:11:15", "there is no operator `zz`", "there are rows, made"]);
    let functions = guest("functions");
    let function = |function: &str| format!("functions:\n  {function}\n");
    let named = |name: &str| function(&format!("{name}: {{ wasm: {functions} }}"));
    refuses(&identity, &named("geohas"), &["p.yaml:9:", "no function `geohas`", "`geohash`"]);
    refuses(&identity, &named("abs"), &["p.yaml:9:16", "no function `abs`"]);
    let built_in = function(&format!("abs: {{ wasm: {functions}, function: not_negative }}"));
    refuses(&identity, &built_in, &["p.yaml:9:3", "`abs`"]);
    refuses(&identity, &function("f: { wasm: gone.wasm }"), &["p.yaml:9:", "there is no file", "gone.wasm"]);
    let role = function(&format!("f: {{ wasm: {} }}", guest("identity")));
    refuses(&identity, &role, &["p.yaml:9:", "no scalar functions"]);
}

#[test]
fn explain_tells_what_modules_are() {
    let site = site();
    let split = format!(
        "module: {}, input: rows, config: {{ column: a, from: 1 }}, memory: 32MiB, deadline: 2s",
        guest("splitter")
    );
    let more = format!("functions:\n  geohash: {{ wasm: {} }}\n", guest("functions"));
    site.write("p.yaml", pipeline(&split, &more));
    let said = site.run(&["explain", "p.yaml"]).ok();
    for expected in [
        "columns: a int64, b string\n",
        "columns of made.rejects: a int64, b string, reason string\n",
        "splitter.wasm, sha256 ",
        "limits: memory 32MiB, 2s a call\n",
        "reads: a, b\n",
        "state: none\n",
        "function geohash(lat float64, lon float64, precision int64)\n",
        "returns: string\n",
    ] {
        assert!(said.contains(expected), "no `{expected}` in:\n{said}");
    }
    let said: serde_json::Value = serde_json::from_str(&site.run(&["explain", "--json", "p.yaml"]).ok()).unwrap();
    let operator = &said["operators"][0];
    assert_eq!(operator["module"]["stateful"], false);
    assert_eq!(operator["module"]["memory_bytes"], 32 << 20);
    assert_eq!(operator["module"]["sha256"].as_str().unwrap().len(), 64);
    assert_eq!(operator["outputs"]["made.rejects"]["reason"], "string");
    assert_eq!(said["functions"][0]["name"], "geohash");
    let tally = format!("module: {}, input: rows, config: {{ key: b, value: a }}", guest("tally"));
    site.write("p.yaml", pipeline(&tally, ""));
    let said = site.run(&["explain", "p.yaml"]).ok();
    assert!(said.contains("state: yes, of version 1, in 16 shards"), "{said}");
}
