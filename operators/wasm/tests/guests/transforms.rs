//! Transforms, a record at a time and packed: from outside they look alike.

use std::sync::Arc;
use std::time::Duration;

use logmill_wasm::{CallError, Content, GuestLog, Instance, Level, Limits, Role, TransformError, TransformPort};

use crate::build::{AT, BASE, HOST_IMPORTS, LIMITS, PATIENT, component, load, start};

/// Two outputs: `out` of JSON with a column `out: ou`, and `not` of text.
const OUTPUTS: &str = r#"
    (func (export "logmill:transform/describe@0.1.0#outputs") (param $config i32) (param $length i32) (result i32)
        (if (i32.eqz (local.get $length)) (then (return (call $refuse))))
        (i32.store (i32.const 512) (i32.const 16)) (i32.store (i32.const 516) (i32.const 3))
        (i32.store8 (i32.const 520) (i32.const 0))
        (i32.store (i32.const 524) (i32.const 768)) (i32.store (i32.const 528) (i32.const 1))
        (i32.store (i32.const 532) (i32.const 32)) (i32.store (i32.const 536) (i32.const 3))
        (i32.store8 (i32.const 540) (i32.const 1))
        (i32.store (i32.const 768) (i32.const 16)) (i32.store (i32.const 772) (i32.const 3))
        (i32.store (i32.const 776) (i32.const 16)) (i32.store (i32.const 780) (i32.const 2))
        (call $give (i32.const 512) (i32.const 2)))
"#;

/// Gives each record back, but for those whose value begins with `d` (drops it), `e` (an error), `n` (goes to `not`),
/// `u` (goes to an output that is not there), `t` (traps).
fn by_record() -> Vec<u8> {
    let text = format!(
        r#"(module {BASE} {OUTPUTS}
        (func $transform (export "logmill:transform/record@0.1.0#transform")
            (param $key i32) (param $key_at i32) (param $key_length i32)
            (param $value i32) (param $value_at i32) (param $value_length i32)
            (param $headers_at i32) (param $headers_length i32)
            (param $timestamp i32) (param $time i64) (result i32)
            (local $first i32)
            (if (local.get $value) (then (local.set $first (i32.load8_u (local.get $value_at)))))
            (if (i32.eq (local.get $first) (i32.const 100)) (then (return (call $give (i32.const 512) (i32.const 0)))))
            (if (i32.eq (local.get $first) (i32.const 101)) (then (return (call $refuse))))
            (if (i32.eq (local.get $first) (i32.const 116)) (then unreachable))
            (i32.store8 (i32.const 512) (i32.or (i32.eq (local.get $first) (i32.const 110))
                (i32.eq (local.get $first) (i32.const 117))))
            (i32.store (i32.const 516) (i32.const 32))
            (i32.store (i32.const 520) (select (i32.const 3) (i32.const 8) (i32.eq (local.get $first) (i32.const 110))))
            (i32.store8 (i32.const 528) (local.get $key))
            (i32.store (i32.const 532) (local.get $key_at)) (i32.store (i32.const 536) (local.get $key_length))
            (i32.store8 (i32.const 540) (local.get $value))
            (i32.store (i32.const 544) (local.get $value_at)) (i32.store (i32.const 548) (local.get $value_length))
            (i32.store (i32.const 552) (local.get $headers_at)) (i32.store (i32.const 556) (local.get $headers_length))
            (i32.store8 (i32.const 560) (local.get $timestamp)) (i64.store (i32.const 568) (local.get $time))
            (call $give (i32.const 512) (i32.const 1))))"#
    );
    component("transform", "", &text)
}

fn packed() -> Vec<u8> {
    let text = format!(
        r#"(module {BASE} {OUTPUTS}
        (func (export "logmill:transform/packed@0.1.0#transform-packed") (param $at i32) (param $length i32) (result i32)
            (if (i32.eqz (local.get $length)) (then (return (call $refuse))))
            (call $give (local.get $at) (local.get $length))))"#
    );
    component("packed-transform", "", &text)
}

pub(crate) fn field(bytes: Option<&[u8]>) -> Vec<u8> {
    match bytes {
        None => u32::MAX.to_le_bytes().to_vec(),
        Some(bytes) => [&u32::try_from(bytes.len()).unwrap().to_le_bytes()[..], bytes].concat(),
    }
}

fn message(timestamp: i64, key: Option<&str>, value: Option<&str>, headers: &[(&str, Option<&str>)]) -> Vec<u8> {
    let mut bytes = timestamp.to_le_bytes().to_vec();
    bytes.extend(field(key.map(str::as_bytes)));
    bytes.extend(field(value.map(str::as_bytes)));
    bytes.extend(u32::try_from(headers.len()).unwrap().to_le_bytes());
    for (name, value) in headers {
        bytes.extend(field(Some(name.as_bytes())));
        bytes.extend(field(value.map(str::as_bytes)));
    }
    bytes
}

/// Counted messages or entries.
pub(crate) fn counted(parts: &[Vec<u8>]) -> Vec<u8> {
    [&u32::try_from(parts.len()).unwrap().to_le_bytes()[..], &parts.concat()].concat()
}

fn value(text: &str) -> Vec<u8> {
    message(1, None, Some(text), &[])
}

fn record(index: u32, output: u16, message: &[u8]) -> Vec<u8> {
    [&index.to_le_bytes()[..], &[0], &output.to_le_bytes(), message].concat()
}

fn error(index: u32, message: &str) -> Vec<u8> {
    [&index.to_le_bytes()[..], &[1], &field(Some(message.as_bytes()))].concat()
}

pub(crate) fn transform(instance: &mut Instance, messages: &[u8]) -> Result<Vec<u8>, CallError> {
    transform_or_row(instance, messages).map_err(|failed| failed.error)
}

fn transform_or_row(instance: &mut Instance, messages: &[u8]) -> Result<Vec<u8>, TransformError> {
    let mut result = Vec::new();
    instance.transform_packed(AT, messages, &mut |bytes| {
        result = bytes.to_vec();
        Ok(())
    })?;
    Ok(result)
}

#[test]
fn both_forms_say_what_they_put_out() {
    for (module, packed) in [(by_record(), false), (packed(), true)] {
        let guest = load(&module);
        assert_eq!(guest.role(), Role::Transform { packed });
        let (mut instance, _) = start(&guest, &LIMITS);
        let json = Content::Json(vec![("out".into(), "ou".into())]);
        let expected = [
            TransformPort { name: "out".into(), content: json },
            TransformPort { name: "not".into(), content: Content::Text },
        ];
        assert_eq!(instance.outputs(AT, "null").unwrap(), expected);
        let refused = CallError::Refused { message: "not this one".into(), row: None };
        assert_eq!(instance.outputs(AT, "").unwrap_err(), refused);
    }
}

#[test]
fn packed_records_go_through_as_they_are() {
    let mut guest = start(&load(&packed()), &LIMITS).0;
    assert_eq!(transform(&mut guest, b"whatever").unwrap(), b"whatever");
    let refused = CallError::Refused { message: "not this one".into(), row: None };
    assert_eq!(transform(&mut guest, b"").unwrap_err(), refused);
}

#[test]
fn every_part_of_a_record_goes_in_and_comes_out() {
    let mut guest = start(&load(&by_record()), &LIMITS).0;
    guest.outputs(AT, "null").unwrap();
    let messages = [
        message(17, Some("key"), Some("value"), &[("a", Some("1")), ("b", None), ("", Some(""))]),
        message(i64::MIN, None, None, &[]),
        message(-1, Some(""), Some(""), &[]),
    ];
    let entries: Vec<Vec<u8>> = (0..).zip(&messages).map(|(index, message)| record(index, 0, message)).collect();
    assert_eq!(transform(&mut guest, &counted(&messages)).unwrap(), counted(&entries));
    assert_eq!(transform(&mut guest, &counted(&[])).unwrap(), counted(&[]));
}

#[test]
fn records_are_dropped_refused_and_sent_to_outputs() {
    let mut guest = start(&load(&by_record()), &LIMITS).0;
    guest.outputs(AT, "null").unwrap();
    let messages = [value("a"), value("drop"), value("error"), value("not"), value("unknown"), value("z")];
    let expected = [
        record(0, 0, &value("a")),
        error(2, "not this one"),
        record(3, 1, &value("not")),
        error(4, "the guest gave a record for output `not this`, it has `out`, `not`"),
        record(5, 0, &value("z")),
    ];
    assert_eq!(transform(&mut guest, &counted(&messages)).unwrap(), counted(&expected));
}

#[test]
fn a_record_that_traps_ends_the_call() {
    let mut guest = start(&load(&by_record()), &LIMITS).0;
    guest.outputs(AT, "null").unwrap();
    let failed = transform_or_row(&mut guest, &counted(&[value("a"), value("trap"), value("b")])).unwrap_err();
    let error = CallError::Trapped("it panicked or aborted, in `transform`".into());
    assert_eq!(failed, TransformError { error, row: Some(1) });
}

/// A transform of single records, with this body: it may import the log and WASI's randomness.
fn record_by_record(body: &str) -> Vec<u8> {
    let wit = "package test:guest;
        world guest { import wasi:random/random@0.2.3; include logmill:transform/transform@0.1.0; }
        package wasi:random@0.2.3 { interface random { get-random-u64: func() -> u64; } }";
    let text = format!(
        r#"(module {HOST_IMPORTS} (import "wasi:random/random@0.2.3" "get-random-u64" (func $random (result i64)))
        {BASE} {OUTPUTS}
        (data (i32.const 64) "what is this")
        (func $transform (export "logmill:transform/record@0.1.0#transform")
            (param $key i32) (param $key_at i32) (param $key_length i32)
            (param $value i32) (param $value_at i32) (param $value_length i32)
            (param $headers_at i32) (param $headers_length i32)
            (param $timestamp i32) (param $time i64) (result i32)
            {body}))"#
    );
    component("guest", wit, &text)
}

#[test]
fn a_record_explains_itself_and_nothing_else_does() {
    let check = |body: &str, expected: CallError, row: Option<usize>| {
        let (mut guest, _) = start(&load(&record_by_record(body)), &LIMITS);
        guest.outputs(AT, "null").unwrap();
        let failed = transform_or_row(&mut guest, &counted(&[value("a"), value("b"), value("c")])).unwrap_err();
        assert_eq!(failed, TransformError { error: expected, row }, "{body}");
    };
    let is_first = "(i32.eq (i32.load8_u (local.get $value_at)) (i32.const 97))";
    let is_last = "(i32.eq (i32.load8_u (local.get $value_at)) (i32.const 99))";
    let goes_on = "(call $give (i32.const 512) (i32.const 0))";
    let logs = "(call $log (i32.const 3) (i32.const 64) (i32.const 12))";
    let trapped = |message: &str| CallError::Trapped(message.into());
    check(
        &format!("(if {is_first} (then {logs})) (if {is_last} (then unreachable)) {goes_on}"),
        trapped("it panicked or aborted, in `transform`"),
        Some(2),
    );
    check(
        &format!("(if {is_last} (then {logs} unreachable)) {goes_on}"),
        trapped("it panicked or aborted, in `transform`; it said: what is this"),
        Some(2),
    );
    check(
        &format!(
            "(if {is_first} (then (drop (memory.grow (i32.const 1000))))) (if {is_last} (then unreachable)) {goes_on}"
        ),
        trapped("it panicked or aborted, in `transform`"),
        Some(2),
    );
    let memory = CallError::Memory { limit_bytes: LIMITS.memory_bytes };
    check(&format!("(drop (memory.grow (i32.const 1000))) (if {is_last} (then unreachable)) {goes_on}"), memory, None);
    let deadline = CallError::Deadline { deadline: LIMITS.deadline };
    check(&format!("(if {is_last} (then (loop $again (br $again)))) {goes_on}"), deadline, Some(2));
    check(
        &format!("(if {is_last} (then (return (i32.const -8)))) {goes_on}"),
        CallError::Output("pointer out of bounds of memory".into()),
        Some(2),
    );
}

#[test]
fn each_record_has_randomness_of_its_own() {
    // The value is eight random bytes, after three more have been drawn for a value that is not empty.
    let body = "
        (if (local.get $value_length) (then (drop (call $random)) (drop (call $random)) (drop (call $random))))
        (i64.store (i32.const 1024) (call $random))
        (i32.store8 (i32.const 512) (i32.const 0)) (i32.store8 (i32.const 528) (i32.const 0))
        (i32.store8 (i32.const 540) (i32.const 1))
        (i32.store (i32.const 544) (i32.const 1024)) (i32.store (i32.const 548) (i32.const 8))
        (i32.store (i32.const 552) (i32.const 0)) (i32.store (i32.const 556) (i32.const 0))
        (i32.store8 (i32.const 560) (i32.const 0))
        (call $give (i32.const 512) (i32.const 1))";
    let guest = load(&record_by_record(body));
    let drawn = |messages: &[Vec<u8>]| {
        let (mut instance, _) = start(&guest, &LIMITS);
        instance.outputs(AT, "null").unwrap();
        let result = transform(&mut instance, &counted(messages)).unwrap();
        let entry = (result.len() - 4) / messages.len();
        let value = |entry: &[u8]| entry[entry.len() - 12..entry.len() - 4].to_vec();
        result[4..].chunks(entry).map(value).collect::<Vec<_>>()
    };
    let same = drawn(&[value(""), value("")]);
    assert_ne!(same[0], same[1], "equal records draw differently");
    assert_eq!(same, drawn(&[value(""), value("")]), "the same call again");
    assert_eq!(same[1], drawn(&[value("more"), value("")])[1], "what the first draws is of no matter to the second");
}

/// Takes its time over each line.
struct Slow(Duration);

impl GuestLog for Slow {
    fn line(&self, _: Level, _: &str) {
        std::thread::sleep(self.0);
    }
}

#[test]
fn records_that_are_slow_all_together_end_in_a_deadline() {
    let body = "(call $give (i32.const 512) (i32.const 0)) (call $log (i32.const 1) (i32.const 64) (i32.const 12))";
    let limits = Limits { deadline: Duration::from_millis(40), ..LIMITS };
    let log = Arc::new(Slow(Duration::from_millis(15)));
    let mut guest = load(&record_by_record(body)).instantiate(&limits, log).unwrap();
    guest.outputs(AT, "null").unwrap();
    // Each is in time; what all of them may take is 30 times as long as one.
    let error = transform(&mut guest, &counted(&vec![value("a"); 99])).unwrap_err();
    assert_eq!(error, CallError::Deadline { deadline: limits.deadline });
}

#[test]
fn malformed_messages_are_told_apart_from_the_guests_faults() {
    let malformed = CallError::Output("the packed records handed to the guest are malformed".into());
    let whole = counted(&[message(17, Some("k"), Some("v"), &[("a", None)])]);
    for length in 0..whole.len() {
        let mut guest = start(&load(&by_record()), &LIMITS).0;
        assert_eq!(transform(&mut guest, &whole[..length]).unwrap_err(), malformed, "{length} bytes");
    }
    let mut guest = start(&load(&by_record()), &LIMITS).0;
    assert_eq!(transform(&mut guest, &[&whole[..], b"x"].concat()).unwrap_err(), malformed);
    let absurd = [&u32::MAX.to_le_bytes()[..], &whole[4..]].concat();
    assert_eq!(transform(&mut start(&load(&by_record()), &LIMITS).0, &absurd).unwrap_err(), malformed);
}

#[test]
fn more_than_a_memorys_worth_of_results_is_refused() {
    // Each gives an entry of 27 bytes, and takes none of the guest's memory.
    let mut guest = start(&load(&by_record()), &PATIENT).0;
    let count = usize::try_from(LIMITS.memory_bytes).unwrap() / 27 + 2;
    let messages = vec![message(1, None, None, &[]); count];
    let error = transform(&mut guest, &counted(&messages)).unwrap_err();
    assert_eq!(error, CallError::Output("it gave more than 4194304 bytes for one batch".into()));
}
