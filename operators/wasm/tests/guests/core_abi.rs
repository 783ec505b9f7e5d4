//! Plain core modules with the transform ABI, as languages make them that cannot make components.

use logmill_wasm::{CallError, Content, Level, Role, TransformPort};

use crate::build::{AT, LIMITS, Lines, load, refuse, start};
use crate::transforms::transform;

/// A module with this body of `logmill_transform`, which has `$at` and `$length`, and whatever `more` adds.
fn module(imports: &str, more: &str, body: &str) -> Vec<u8> {
    let text = format!(
        r#"(module {imports}
        (memory (export "memory") 2)
        (func (export "logmill_alloc") (param $size i32) (result i32) (i32.const 1024))
        (func $pack (param $at i32) (param $length i32) (result i64)
            (i64.or (i64.shl (i64.extend_i32_u (local.get $at)) (i64.const 32)) (i64.extend_i32_u (local.get $length))))
        {more}
        (func $transform (export "logmill_transform") (param $at i32) (param $length i32) (result i64) {body}))"#
    );
    wat::parse_str(text).unwrap()
}

/// Gives what it got: the byte before the input says that it went well.
const ECHO: &str = "(call $pack (i32.sub (local.get $at) (i32.const 1)) (i32.add (local.get $length) (i32.const 1)))";

fn outputs(json: &str) -> Vec<u8> {
    let (text, length) = (json.replace('"', "\\\""), json.len() + 1);
    let more = format!(
        r#"(data (i32.const 64) "\00{text}")
        (func (export "logmill_outputs") (param i32 i32) (result i64) (call $pack (i32.const 64) (i32.const {length})))"#
    );
    module("", &more, ECHO)
}

#[test]
fn records_go_in_and_come_out() {
    let guest = load(&module("", "", ECHO));
    assert_eq!(guest.role(), Role::Transform { packed: true });
    let (mut instance, _) = start(&guest, &LIMITS);
    let text = TransformPort { name: "output".into(), content: Content::Text };
    assert_eq!(instance.outputs(AT, "null").unwrap(), [text]);
    assert_eq!(transform(&mut instance, b"packed").unwrap(), b"packed");
    assert_eq!(transform(&mut instance, b"").unwrap(), b"");
}

#[test]
fn outputs_are_described_in_json() {
    let json = r#"[{"name":"a","json":{"z":"int32","y":"string"}},{"name":"b","text":true},{"name":"c","bytes":true}]"#;
    let (mut instance, _) = start(&load(&outputs(json)), &LIMITS);
    let columns = [("z", "int32"), ("y", "string")].map(|(name, ty)| (name.to_owned(), ty.to_owned()));
    let expected = [("a", Content::Json(columns.to_vec())), ("b", Content::Text), ("c", Content::Bytes)];
    let expected = expected.map(|(name, content)| TransformPort { name: name.into(), content });
    assert_eq!(instance.outputs(AT, "null").unwrap(), expected);
}

#[test]
fn outputs_that_make_no_sense_are_named() {
    let check = |json: &str, expected: &str| {
        let (mut instance, _) = start(&load(&outputs(json)), &LIMITS);
        match instance.outputs(AT, "null") {
            Err(CallError::Output(message)) => assert!(message.contains(expected), "{json}: {message}"),
            other => panic!("{json}: {other:?}"),
        }
    };
    check("", "not JSON");
    check("{}", "not a list");
    check("[]", "does not name an output");
    check(r#"[{"text":true}]"#, "without a name");
    check(r#"[{"name":"","text":true}]"#, "an output without a name");
    check(r#"[{"name":"a","text":false}]"#, "none of `json`, `text` and `bytes`");
    check(r#"[{"name":"a","text":true},{"name":"a","text":true}]"#, "`a` twice");
    check(r#"[{"name":"a","json":{"x":1}}]"#, "column `x`");
    check(r#"[{"name":"a","json":{}}]"#, "does not name a column");
    check(r#"[{"name":"a","json":[]}]"#, "names no columns");
}

#[test]
fn descriptions_that_are_too_large_are_not_read() {
    let described = |more: &str, length: usize| {
        let more = format!(
            r#"{more} (func (export "logmill_outputs") (param i32 i32) (result i64)
                (drop (memory.grow (i32.const 30))) (call $pack (i32.const 64) (i32.const {length})))"#
        );
        let (mut instance, _) = start(&load(&module("", &more, ECHO)), &LIMITS);
        instance.outputs(AT, "null").unwrap_err().to_string()
    };
    let error = described("", (1 << 20) + 2);
    assert!(error.contains("a text of 1048577 bytes, 1048576 are allowed"), "{error}");
    let name = "n".repeat(256);
    let text = format!(r#"[{{\22name\22:\22{name}\22,\22text\22:true}}]"#);
    let error = described(&format!(r#"(data (i32.const 64) "\00{text}")"#), text.replace("\\22", "'").len() + 1);
    assert!(error.contains("a name of more than 255 bytes, `nnn"), "{error}");
}

#[test]
fn what_a_guest_says_is_one_line_and_cut() {
    let said = |more: &str, length: usize| {
        let body = format!("(call $pack (i32.const 2048) (i32.const {length}))");
        let (mut instance, _) = start(&load(&module("", more, &body)), &LIMITS);
        transform(&mut instance, b"").unwrap_err().to_string()
    };
    assert_eq!(said(r#"(data (i32.const 2048) "\01no\0d\0away\1b[2J")"#, 12), "no way\u{fffd}[2J");
    let long = format!(r#"(data (i32.const 2048) "\01{}")"#, "a".repeat(10_000));
    assert_eq!(said(&long, 10_001), format!("{}...", "a".repeat(4096)));
}

#[test]
fn results_that_cannot_be_read_are_named() {
    let check = |body: &str, expected: CallError| {
        let (mut instance, _) = start(&load(&module("", r#"(data (i32.const 64) "\01no\02")"#, body)), &LIMITS);
        assert_eq!(transform(&mut instance, b"packed").unwrap_err(), expected, "{body}");
    };
    let output = |message: &str| CallError::Output(message.into());
    check("(call $pack (i32.const 64) (i32.const 3))", CallError::Refused { message: "no".into(), row: None });
    check("(i64.const 0)", output("`logmill_transform` gave nothing, not even a first byte 0 for success"));
    check(
        "(call $pack (i32.const 67) (i32.const 1))",
        output("what `logmill_transform` gave begins with 2, not with 0 or 1"),
    );
    check("(i64.const -1)", output("`logmill_transform` gave 4294967295 bytes at 4294967295, its memory has 131072"));
    check(
        "(call $pack (i32.const 131071) (i32.const 2))",
        output("`logmill_transform` gave 2 bytes at 131071, its memory has 131072"),
    );
    check("unreachable", CallError::Trapped("it panicked or aborted, in `transform`".into()));
    check("(loop $again (br $again)) unreachable", CallError::Deadline { deadline: LIMITS.deadline });
    check("(call $transform (local.get $at) (local.get $length))", CallError::Stack);
}

#[test]
fn an_input_without_room_is_named() {
    let with_alloc = |body: &str| {
        let text = format!(
            r#"(module (memory (export "memory") 1)
            (func (export "logmill_alloc") (param $size i32) (result i32) {body})
            (func (export "logmill_transform") (param i32 i32) (result i64) (i64.const 0)))"#
        );
        let (mut instance, _) = start(&load(&wat::parse_str(text).unwrap()), &LIMITS);
        transform(&mut instance, b"packed").unwrap_err()
    };
    let gave =
        |address: u32| CallError::Output(format!("`logmill_alloc` gave {address} for 6 bytes, its memory has 65536"));
    assert_eq!(with_alloc("(i32.const 0)"), gave(0));
    assert_eq!(with_alloc("(i32.const -1)"), gave(u32::MAX));
    assert_eq!(with_alloc("(i32.const 65531)"), gave(65_531));
    let memory = CallError::Memory { limit_bytes: LIMITS.memory_bytes };
    assert_eq!(with_alloc("(drop (memory.grow (i32.const 60000))) (i32.const 0)"), memory);
}

#[test]
fn imports_of_the_abi_do_what_they_say() {
    let imports = r#"
        (import "logmill" "log" (func $log (param i32 i32 i32)))
        (import "logmill" "now" (func $now (result i64)))
        (import "env" "seed" (func $seed (result f64)))
        (import "env" "trace" (func $trace (param i32 i32 f64 f64 f64 f64 f64)))"#;
    let body = r#"
        (call $log (i32.const 3) (i32.const 64) (i32.const 2))
        (call $trace (i32.const 100) (i32.const 2) (f64.const 1.5) (f64.const 2) (f64.const 3) (f64.const 4) (f64.const 5))
        (i32.store8 (i32.const 1023) (i32.const 0))
        (i64.store (i32.const 1024) (call $now))
        (f64.store (i32.const 1032) (call $seed))
        (call $pack (i32.const 1023) (i32.const 17))"#;
    let more = r#"(data (i32.const 64) "hi") (data (i32.const 96) "\04\00\00\00h\00o\00")"#;
    let guest = load(&module(imports, more, body));
    let run = || {
        let (mut instance, lines) = start(&guest, &LIMITS);
        (transform(&mut instance, b"").unwrap(), lines.all())
    };
    let (result, lines) = run();
    assert_eq!(lines, [(Level::Error, "hi".to_owned()), (Level::Debug, "ho 1.5, 2".to_owned())]);
    assert_eq!(result[..8], AT.now_us.to_le_bytes());
    assert_eq!(run(), (result, lines), "the same moment gives the same");
}

#[test]
fn what_assembly_script_aborts_with_is_the_error() {
    let imports = r#"(import "env" "abort" (func $abort (param i32 i32 i32 i32)))"#;
    let more =
        r#"(data (i32.const 60) "\06\00\00\00b\00a\00d\00") (data (i32.const 96) "\08\00\00\00a\00.\00t\00s\00")"#;
    let check = |body: &str, expected: &str| {
        let (mut instance, _) = start(&load(&module(imports, more, &format!("{body} unreachable"))), &LIMITS);
        assert_eq!(transform(&mut instance, b"").unwrap_err(), CallError::Trapped(expected.into()));
    };
    check("(call $abort (i32.const 64) (i32.const 100) (i32.const 3) (i32.const 7))", "bad (a.ts:3:7), in `transform`");
    check("(call $abort (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))", "it called abort, in `transform`");
    check("(call $abort (i32.const -2) (i32.const -2) (i32.const 0) (i32.const 0))", "it called abort, in `transform`");
}

#[test]
fn a_library_sets_itself_up_first() {
    let more = r#"(global $ready (mut i32) (i32.const 7))
        (func (export "_initialize") (global.set $ready (i32.const 0)))"#;
    let body = "(i32.store8 (i32.const 1023) (global.get $ready)) (call $pack (i32.const 1023) (i32.const 1))";
    let (mut instance, _) = start(&load(&module("", more, body)), &LIMITS);
    assert_eq!(transform(&mut instance, b"").unwrap(), b"");
    let fails = module("", r#"(func $init (export "_initialize") unreachable)"#, ECHO);
    let error = load(&fails).instantiate(&LIMITS, std::sync::Arc::new(Lines::default())).unwrap_err();
    assert_eq!(error.to_string(), "the module does not start: the guest failed: it panicked or aborted, in `init`");
}

#[test]
fn modules_without_the_abi_are_told_what_is_missing() {
    let check = |text: &str, expected: &str| {
        let error = refuse(&wat::parse_str(text).unwrap());
        assert!(error.contains(expected), "{text}: {error}");
    };
    check("(module)", "`memory` is missing; `logmill_alloc` is missing; `logmill_transform` is missing");
    check(r#"(module (memory (export "memory") 1))"#, "transform ABI: `logmill_alloc` is missing");
    check(r#"(module (func (export "memory")))"#, "its `memory` is not one");
    check(r#"(module (func (export "logmill_alloc")))"#, "`logmill_alloc` should be a function (i32) -> i32, it is");
    check(r#"(module (memory (export "logmill_transform") 1))"#, "`logmill_transform` is not a function");
}

#[test]
fn imports_that_core_modules_do_not_get_are_named() {
    let imports = r#"
        (import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32)))
        (import "env" "system" (func (param i32)))"#;
    let error = refuse(&module(imports, "", ECHO));
    assert!(error.contains("`wasi_snapshot_preview1.fd_write` (core modules get no WASI"), "{error}");
    assert!(error.contains("`env.system`"), "{error}");
    let wrong = r#"(import "logmill" "now" (func (result i32)))"#;
    assert!(refuse(&module(wrong, "", ECHO)).contains("now"), "the type differs");
}
