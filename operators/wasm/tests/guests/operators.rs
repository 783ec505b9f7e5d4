//! Operators and functions as their packages describe them.

use logmill_wasm::{CallError, FunctionSignature, Port, Role, Signature};

use crate::build::{
    AT, BASE, HOST_IMPORTS, LIMITS, SIGNATURE, batch, component, identity, instance, load, operator_text, start,
};

/// Counts bytes: `on-batch` and `on-watermark` give as many as it has seen, a snapshot is the count in four bytes.
fn counter() -> Vec<u8> {
    let text = format!(
        r#"(module {BASE} {SIGNATURE}
        (global $seen (mut i32) (i32.const 0))
        (func (export "logmill:operator/batch@0.1.0#on-batch") (param $rows i32) (param $length i32) (result i32)
            (global.set $seen (i32.add (global.get $seen) (local.get $length)))
            (call $ok (i32.const 0) (global.get $seen)))
        (func (export "logmill:operator/watermark@0.1.0#on-watermark") (param $time i64) (result i32)
            (i64.store (i32.const 1024) (local.get $time))
            (i32.store (i32.const 1032) (global.get $seen))
            (call $ok (i32.const 1024) (i32.const 12)))
        (func (export "logmill:operator/state@0.1.0#state-version") (result i32) (i32.const 2))
        (func (export "logmill:operator/state@0.1.0#snapshot") (result i32)
            (i32.store (i32.const 1024) (global.get $seen))
            (call $give (i32.const 1024) (i32.const 4)))
        (func (export "logmill:operator/state@0.1.0#restore")
            (param $version i32) (param $at i32) (param $length i32) (result i32)
            (if (i32.gt_u (local.get $version) (i32.const 2)) (then (return (call $refuse))))
            (global.set $seen (i32.load (local.get $at)))
            (call $give (i32.const 0) (i32.const 0))))"#
    );
    component("windowed-operator", "", &text)
}

#[test]
fn an_operator_says_what_it_puts_out() {
    let guest = load(&identity());
    assert_eq!(guest.role(), Role::Operator { stateful: false, watermarks: false });
    let (mut instance, _) = start(&guest, &LIMITS);
    let signature = instance.signature(AT, b"a schema", "null").unwrap();
    let port = Port { name: "out".into(), schema: b"a schema".to_vec() };
    assert_eq!(signature, Signature { reads: None, outputs: vec![port] });
    assert_eq!(batch(&mut instance, b"rows").unwrap(), [("out".to_owned(), b"rows".to_vec())]);
}

#[test]
fn an_operator_keeps_state_and_waits_for_time() {
    let guest = load(&counter());
    assert_eq!(guest.role(), Role::Operator { stateful: true, watermarks: true });
    let (mut first, _) = start(&guest, &LIMITS);
    assert_eq!(batch(&mut first, b"12345").unwrap()[0].1.len(), 5);
    assert_eq!(first.state_version(AT).unwrap(), 2);
    let state = first.snapshot(AT).unwrap();
    assert_eq!(state, 5u32.to_le_bytes());

    let (mut second, _) = start(&guest, &LIMITS);
    second.restore(AT, 1, &state).unwrap();
    assert_eq!(batch(&mut second, b"678").unwrap()[0].1.len(), 8);
    let mut out = Vec::new();
    second
        .on_watermark(AT, i64::MAX, &mut |name, rows| {
            out.push((name.to_owned(), rows));
            Ok(())
        })
        .unwrap();
    let expected = [&i64::MAX.to_le_bytes()[..], &8u32.to_le_bytes()].concat();
    assert_eq!(out, [("out".to_owned(), expected)]);

    let refused = CallError::Refused { message: "not this one".into(), row: None };
    assert_eq!(start(&guest, &LIMITS).0.restore(AT, 3, &state).unwrap_err(), refused);
}

#[test]
fn what_a_guest_does_not_export_cannot_be_called() {
    let check = |error: CallError, what: &str| {
        assert_eq!(error, CallError::Output(format!("the guest does not export `{what}`")));
    };
    check(instance(&identity()).snapshot(AT).unwrap_err(), "snapshot");
    check(instance(&identity()).state_version(AT).unwrap_err(), "state-version");
    check(instance(&identity()).on_watermark(AT, 0, &mut |_, _| Ok(())).unwrap_err(), "on-watermark");
    check(instance(&identity()).outputs(AT, "null").unwrap_err(), "outputs");
    check(instance(&identity()).functions(AT, "null").unwrap_err(), "functions");
}

#[test]
fn names_of_outputs_differ_and_are_not_empty() {
    let signature = |more: &str, count: u32| {
        format!(
            r#"(module {BASE} {more}
            (func (export "logmill:operator/batch@0.1.0#signature") (param i32 i32 i32 i32) (result i32)
                (i32.store (i32.const 272) (i32.const 512))
                (i32.store (i32.const 276) (i32.const {count}))
                (i32.const 256))
            (func (export "logmill:operator/batch@0.1.0#on-batch") (param i32 i32) (result i32) (i32.const 256)))"#
        )
    };
    let check = |more: &str, count: u32, expected: &str| {
        let mut guest = instance(&component("operator", "", &signature(more, count)));
        assert_eq!(guest.signature(AT, b"", "null").unwrap_err(), CallError::Output(expected.into()));
    };
    check("", 0, "the guest does not name an output");
    check("", 1, "the guest has an output without a name");
    // Two ports whose name lies at 16.
    let twice = r#"(data (i32.const 512) "\10\00\00\00\03\00\00\00\00\00\00\00\00\00\00\00\10\00\00\00\03\00\00\00")"#;
    check(twice, 2, "the guest names an output `out` twice");
    check("", 100_000_000, "list pointer/length out of bounds of memory");
}

#[test]
fn the_clock_of_the_host_is_the_moment_of_the_call() {
    let body = "(i64.store (i32.const 1024) (call $now)) (call $ok (i32.const 1024) (i32.const 8))";
    let mut guest = instance(&component("operator", "", &operator_text(HOST_IMPORTS, "", body)));
    assert_eq!(batch(&mut guest, b"").unwrap()[0].1, AT.now_us.to_le_bytes());
}

#[test]
fn lines_reach_the_log_with_their_level() {
    let more = r#"(data (i32.const 64) "line\n")"#;
    let body = "(call $log (i32.const 0) (i32.const 64) (i32.const 5))
        (call $log (i32.const 2) (i32.const 64) (i32.const 4))
        (call $ok (local.get $rows) (local.get $length))";
    let guest = load(&component("operator", "", &operator_text(HOST_IMPORTS, more, body)));
    let (mut instance, lines) = start(&guest, &LIMITS);
    batch(&mut instance, b"").unwrap();
    assert_eq!(lines.all(), [(logmill_wasm::Level::Debug, "line".into()), (logmill_wasm::Level::Warn, "line".into())]);
}

#[test]
fn a_line_cannot_pretend_to_be_two() {
    let more = r#"(data (i32.const 64) "one\r\n\n\1b[2Jtwo\tthree")"#;
    let body = "(call $log (i32.const 1) (i32.const 64) (i32.const 19))
        (call $log (i32.const 1) (i32.const 65536) (i32.const 65536))
        (call $ok (local.get $rows) (local.get $length))";
    let guest = load(&component("operator", "", &operator_text(HOST_IMPORTS, more, body)));
    let (mut instance, lines) = start(&guest, &LIMITS);
    batch(&mut instance, b"").unwrap();
    let lines: Vec<String> = lines.all().into_iter().map(|(_, line)| line).collect();
    assert_eq!(lines[..2], ["one", "\u{fffd}[2Jtwo\tthree"]);
    // Each NUL of it is shown as a character of three bytes.
    assert_eq!(lines[2].len(), 8 * 1024 / 3 * 3, "a long line is cut");
    assert_eq!(lines.len(), 3);
}

#[test]
fn what_a_guest_says_is_cut_to_what_one_reads() {
    let body = "(drop (call $refuse)) (i32.store (i32.const 260) (i32.const 65536)) (i32.store (i32.const 264) (i32.const 65536))
        (i32.const 256)";
    match batch(&mut instance(&crate::build::operator("", body)), b"").unwrap_err() {
        CallError::Refused { message, row } => {
            assert!(message.ends_with("\u{fffd}...") && message.len() < 5_000, "{} bytes", message.len());
            assert_eq!(row, Some(5));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn functions_are_listed_and_invoked() {
    let text = format!(
        r#"(module {BASE}
        (func (export "logmill:function/scalar@0.1.0#functions") (param $config i32) (param $length i32) (result i32)
            (if (i32.eqz (local.get $length)) (then (return (call $refuse))))
            (i32.store (i32.const 512) (i32.const 16)) (i32.store (i32.const 516) (i32.const 3))
            (i32.store (i32.const 520) (local.get $config)) (i32.store (i32.const 524) (local.get $length))
            (i32.store (i32.const 528) (i32.const 16)) (i32.store (i32.const 532) (i32.const 2))
            (i32.store8 (i32.const 536) (i32.const 1))
            (call $give (i32.const 512) (i32.const 1)))
        (func (export "logmill:function/scalar@0.1.0#invoke")
            (param $name i32) (param $name_length i32) (param $at i32) (param $length i32) (result i32)
            (if (i32.ne (local.get $name_length) (i32.const 3)) (then (return (call $refuse))))
            (call $give (local.get $at) (local.get $length))))"#
    );
    let guest = load(&component("function", "", &text));
    assert_eq!(guest.role(), Role::Function);
    let (mut instance, _) = start(&guest, &LIMITS);
    let functions = instance.functions(AT, "null").unwrap();
    let expected = FunctionSignature {
        name: "out".into(),
        arguments: b"null".to_vec(),
        returns: b"ou".to_vec(),
        deterministic: true,
    };
    assert_eq!(functions, [expected]);
    let mut invoke = |name: &str| {
        let mut result = Vec::new();
        instance.invoke(AT, name, b"arguments", &mut |rows| {
            result = rows;
            Ok(())
        })?;
        Ok(result)
    };
    assert_eq!(invoke("out"), Ok(b"arguments".to_vec()));
    assert_eq!(invoke("other"), Err(CallError::Refused { message: "not this one".into(), row: Some(5) }));
    assert_eq!(invoke("out"), Ok(b"arguments".to_vec()), "an error is no failure");
    let refused = CallError::Refused { message: "not this one".into(), row: None };
    assert_eq!(instance.functions(AT, "").unwrap_err(), refused);
}
