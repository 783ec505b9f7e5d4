//! The virtual WASI: what a runtime may ask, and that two instances at one moment hear the same.

use logmill_wasm::{CallError, Level, Moment};

use crate::build::{AT, LIMITS, PATIENT, batch, component, host, load, operator_text, refuse, start};

const WIT: &str = "
    package test:guest;
    world guest {
        import wasi:random/random@0.2.3;
        import wasi:random/insecure-seed@0.2.3;
        import wasi:clocks/wall-clock@0.2.3;
        import wasi:clocks/monotonic-clock@0.2.3;
        import wasi:io/poll@0.2.3;
        import wasi:io/streams@0.2.3;
        import wasi:cli/stdin@0.2.3;
        import wasi:cli/stdout@0.2.3;
        import wasi:cli/stderr@0.2.3;
        import wasi:cli/environment@0.2.3;
        import wasi:cli/exit@0.2.3;
        import wasi:filesystem/types@0.2.3;
        import wasi:filesystem/preopens@0.2.3;
        import wasi:sockets/instance-network@0.2.3;
        import wasi:sockets/tcp-create-socket@0.2.3;
        include logmill:operator/operator@0.1.0;
    }
    package wasi:random@0.2.3 {
        interface random { get-random-bytes: func(len: u64) -> list<u8>; get-random-u64: func() -> u64; }
        interface insecure-seed { insecure-seed: func() -> tuple<u64, u64>; }
    }
    package wasi:clocks@0.2.3 {
        interface wall-clock { record datetime { seconds: u64, nanoseconds: u32 } now: func() -> datetime; }
        interface monotonic-clock {
            use wasi:io/poll@0.2.3.{pollable};
            now: func() -> u64;
            subscribe-duration: func(when: u64) -> pollable;
        }
    }
    package wasi:io@0.2.3 {
        interface poll { resource pollable { block: func(); } poll: func(in: list<borrow<pollable>>) -> list<u32>; }
        interface error { resource error; }
        interface streams {
            use error.{error};
            variant stream-error { last-operation-failed(error), closed }
            resource input-stream { blocking-read: func(len: u64) -> result<list<u8>, stream-error>; }
            resource output-stream {
                check-write: func() -> result<u64, stream-error>;
                blocking-write-and-flush: func(contents: list<u8>) -> result<_, stream-error>;
            }
        }
    }
    package wasi:cli@0.2.3 {
        interface stdin { use wasi:io/streams@0.2.3.{input-stream}; get-stdin: func() -> input-stream; }
        interface stdout { use wasi:io/streams@0.2.3.{output-stream}; get-stdout: func() -> output-stream; }
        interface stderr { use wasi:io/streams@0.2.3.{output-stream}; get-stderr: func() -> output-stream; }
        interface environment { get-environment: func() -> list<tuple<string, string>>; initial-cwd: func() -> option<string>; }
        interface exit { exit: func(status: result); }
    }
    package wasi:filesystem@0.2.3 {
        interface types { resource descriptor { get-flags: func() -> u32; } }
        interface preopens { use types.{descriptor}; get-directories: func() -> list<tuple<descriptor, string>>; }
    }
    package wasi:sockets@0.2.3 {
        interface network { resource network; enum error-code { unknown, access-denied, not-supported } }
        interface instance-network { use network.{network}; instance-network: func() -> network; }
        interface tcp { resource tcp-socket { is-listening: func() -> bool; } }
        interface tcp-create-socket {
            use network.{error-code};
            use tcp.{tcp-socket};
            create-tcp-socket: func(family: u8) -> result<tcp-socket, error-code>;
        }
    }
";

const IMPORTS: &str = r#"
    (import "wasi:random/random@0.2.3" "get-random-bytes" (func $random_bytes (param i64 i32)))
    (import "wasi:random/random@0.2.3" "get-random-u64" (func $random (result i64)))
    (import "wasi:random/insecure-seed@0.2.3" "insecure-seed" (func $hash_seed (param i32)))
    (import "wasi:clocks/wall-clock@0.2.3" "now" (func $wall (param i32)))
    (import "wasi:clocks/monotonic-clock@0.2.3" "now" (func $monotonic (result i64)))
    (import "wasi:clocks/monotonic-clock@0.2.3" "subscribe-duration" (func $sleep (param i64) (result i32)))
    (import "wasi:io/poll@0.2.3" "[method]pollable.block" (func $block (param i32)))
    (import "wasi:io/poll@0.2.3" "poll" (func $poll (param i32 i32 i32)))
    (import "wasi:io/streams@0.2.3" "[method]input-stream.blocking-read" (func $read (param i32 i64 i32)))
    (import "wasi:io/streams@0.2.3" "[method]output-stream.blocking-write-and-flush"
        (func $write (param i32 i32 i32 i32)))
    (import "wasi:io/streams@0.2.3" "[method]output-stream.check-write" (func $check_write (param i32 i32)))
    (import "wasi:cli/stdin@0.2.3" "get-stdin" (func $stdin (result i32)))
    (import "wasi:cli/stdout@0.2.3" "get-stdout" (func $stdout (result i32)))
    (import "wasi:cli/stderr@0.2.3" "get-stderr" (func $stderr (result i32)))
    (import "wasi:cli/environment@0.2.3" "get-environment" (func $environment (param i32)))
    (import "wasi:cli/environment@0.2.3" "initial-cwd" (func $cwd (param i32)))
    (import "wasi:cli/exit@0.2.3" "exit" (func $exit (param i32)))
    (import "wasi:filesystem/types@0.2.3" "[method]descriptor.get-flags" (func $flags (param i32) (result i32)))
    (import "wasi:filesystem/preopens@0.2.3" "get-directories" (func $directories (param i32)))
    (import "wasi:sockets/instance-network@0.2.3" "instance-network" (func $network (result i32)))
    (import "wasi:sockets/tcp-create-socket@0.2.3" "create-tcp-socket" (func $socket (param i32 i32)))
"#;

fn guest(more: &str, body: &str) -> Vec<u8> {
    component("guest", WIT, &operator_text(IMPORTS, more, body))
}

/// Writes what it can learn of time and chance.
const LEARN: &str = "
    (i64.store (i32.const 1024) (call $random))
    (call $random_bytes (i64.const 16) (i32.const 2048))
    (i64.store (i32.const 1032) (i64.load (i32.load (i32.const 2048))))
    (call $wall (i32.const 1040))
    (i32.store (i32.const 1052) (i32.const 0))
    (i64.store (i32.const 1056) (call $monotonic))
    (call $hash_seed (i32.const 1064))
    (call $ok (i32.const 1024) (i32.const 56))";

#[test]
fn time_and_chance_are_those_of_the_moment() {
    let guest = load(&guest("", LEARN));
    let learn = |at: Moment| {
        let mut learnt = Vec::new();
        let (mut instance, _) = start(&guest, &LIMITS);
        let mut take = |_: &str, rows| {
            learnt = rows;
            Ok(())
        };
        instance.on_batch(at, b"", &mut take).unwrap();
        let word = |at: usize| u64::from_le_bytes(learnt[at..at + 8].try_into().unwrap());
        [0, 8, 16, 24, 32, 40, 48].map(word)
    };
    let one = learn(AT);
    assert_eq!(one, learn(AT), "another instance at the same moment");
    let [_, _, seconds, nanoseconds, monotonic_ns, ..] = one;
    assert_eq!((seconds, nanoseconds, monotonic_ns), (1_700_000_000, 123_456_000, 1_700_000_000_123_456_000));
    let other = learn(Moment { seed: 8, ..AT });
    assert!(one[0] != other[0] && one[1] != other[1], "another seed");
    assert_eq!(one[2..], other[2..], "hash tables have one seed for ever");
    let later = learn(Moment { now_us: AT.now_us + 1, ..AT });
    assert_eq!((later[0], later[3], later[4]), (one[0], nanoseconds + 1_000, monotonic_ns + 1_000));
}

#[test]
fn streams_are_lines_of_the_log() {
    let more = r#"(data (i32.const 64) "one\ntwo\n\nthr") (data (i32.const 80) "oops\n")"#;
    let body = "
        (call $check_write (call $stdout) (i32.const 2048))
        (call $write (call $stdout) (i32.const 64) (i32.const 12) (i32.const 1024))
        (call $write (call $stderr) (i32.const 80) (i32.const 5) (i32.const 1024))
        (call $ok (i32.const 1024) (i32.load8_u (i32.const 1024)))";
    let (mut instance, lines) = start(&load(&guest(more, body)), &LIMITS);
    assert_eq!(batch(&mut instance, b"").unwrap()[0].1, b"", "writing went well");
    let expected = [(Level::Info, "one"), (Level::Info, "two"), (Level::Warn, "oops"), (Level::Info, "thr")];
    assert_eq!(lines.all(), expected.map(|(level, line)| (level, line.to_owned())));
}

#[test]
fn what_went_to_stderr_explains_the_trap() {
    let more = r#"(data (i32.const 64) "thread panicked at lib.rs:1:\nno such key\n")"#;
    let body = "(call $write (call $stderr) (i32.const 64) (i32.const 41) (i32.const 1024)) unreachable";
    let error = batch(&mut start(&load(&guest(more, body)), &LIMITS).0, b"").unwrap_err();
    let expected = "it panicked or aborted, in `on_batch`; it said: thread panicked at lib.rs:1: no such key";
    assert_eq!(error, CallError::Trapped(expected.into()));
}

#[test]
fn there_is_nothing_to_read_and_nowhere_to_go() {
    let body = "
        (call $environment (i32.const 1024))
        (i32.store8 (i32.const 2048) (i32.load (i32.const 1028)))
        (call $directories (i32.const 1024))
        (i32.store8 (i32.const 2049) (i32.load (i32.const 1028)))
        (call $cwd (i32.const 1024))
        (i32.store8 (i32.const 2050) (i32.load8_u (i32.const 1024)))
        (drop (call $network))
        (call $socket (i32.const 0) (i32.const 1024))
        (i32.store8 (i32.const 2051) (i32.load8_u (i32.const 1024)))
        (i32.store8 (i32.const 2052) (i32.load8_u (i32.const 1028)))
        (call $read (call $stdin) (i64.const 10) (i32.const 1024))
        (i32.store8 (i32.const 2053) (i32.load8_u (i32.const 1024)))
        (i32.store8 (i32.const 2054) (i32.load8_u (i32.const 1028)))
        (call $ok (i32.const 2048) (i32.const 7))";
    let (mut instance, _) = start(&load(&guest("", body)), &LIMITS);
    // No variables, no directories, no working directory; sockets give error 1, access-denied; stdin error 1, closed.
    assert_eq!(batch(&mut instance, b"").unwrap()[0].1, [0, 0, 0, 1, 1, 1, 1]);
}

#[test]
fn sleeping_takes_no_time() {
    let body = "
        (local $until i32)
        (local.set $until (call $sleep (i64.const 3600000000000)))
        (call $block (local.get $until))
        (i32.store (i32.const 1024) (local.get $until))
        (i32.store (i32.const 1028) (call $sleep (i64.const 1)))
        (call $poll (i32.const 1024) (i32.const 2) (i32.const 2048))
        (call $ok (i32.load (i32.const 2048)) (i32.mul (i32.const 4) (i32.load (i32.const 2052))))";
    let (mut instance, _) = start(&load(&guest("", body)), &LIMITS);
    assert_eq!(batch(&mut instance, b"").unwrap()[0].1, [0, 0, 0, 0, 1, 0, 0, 0], "both are ready");
}

#[test]
fn what_cannot_be_had_ends_the_call() {
    let check = |body: &str, expected: &str| {
        let (mut instance, _) = start(&load(&guest("", body)), &PATIENT);
        match batch(&mut instance, b"").unwrap_err() {
            CallError::Trapped(message) => assert!(message.contains(expected), "{message}"),
            other => panic!("{other:?}"),
        }
    };
    check("(call $exit (i32.const 1)) (i32.const 0)", "it called exit, with failure");
    check("(call $poll (i32.const 0) (i32.const 0) (i32.const 1024)) (i32.const 0)", "nothing to wait for");
    check("(call $random_bytes (i64.const -1) (i32.const 1024)) (i32.const 0)", "random bytes were asked for at once");
    check("(loop $more (drop (call $stdout)) (br $more)) unreachable", "handle limit");
    check("(drop (call $flags (i32.const 7))) (i32.const 0)", "unknown handle");
}

#[test]
fn more_than_may_be_written_at_once_is_not_read() {
    let write = |length: usize| {
        let body = format!(
            "(call $write (call $stdout) (i32.const 0) (i32.const {length}) (i32.const 1024))
            (call $ok (i32.const 0) (i32.const 0))"
        );
        batch(&mut start(&load(&guest("", &body)), &LIMITS).0, b"")
    };
    assert!(write(4096).is_ok());
    let expected = CallError::Trapped("it wrote 4097 bytes at once, 4096 are allowed, in `on_batch`".into());
    assert_eq!(write(4097).unwrap_err(), expected);
}

#[test]
fn what_only_calls_itself_wasi_is_refused_when_loaded() {
    let check = |wit: &str, import: &str, expected: &str| {
        let wit = format!("package test:guest; world guest {{ {wit}");
        let imports = format!("(import {import})");
        let error = refuse(&component("guest", &wit, &operator_text(&imports, "", "(i32.const 0)")));
        assert!(error.contains(expected), "{error}");
    };
    let world = "include logmill:operator/operator@0.1.0; }";
    check(
        &format!(
            "import wasi:cli/environment@0.2.3; {world}
            package wasi:cli@0.2.3 {{ interface environment {{ take: func(all: list<list<u8>>); }} }}"
        ),
        r#""wasi:cli/environment@0.2.3" "take" (func (param i32 i32))"#,
        "`wasi:cli/environment@0.2.3`: `take`: WASI 0.2 has no such function",
    );
    check(
        &format!(
            "import wasi:sockets/tcp-create-socket@0.2.3; {world}
            package wasi:sockets@0.2.3 {{ interface tcp-create-socket {{
                flags many {{ a, b, c }}
                create-tcp-socket: func(all: list<many>);
            }} }}"
        ),
        r#""wasi:sockets/tcp-create-socket@0.2.3" "create-tcp-socket" (func (param i32 i32))"#,
        "its arguments are not those that WASI 0.2 gives it",
    );
}

#[test]
fn a_resource_that_nobody_has_cannot_be_made_by_giving_it_to_a_function() {
    let wit = WIT
        .replace(
            "resource descriptor { get-flags: func() -> u32; }",
            "resource descriptor { write: func(all: list<list<u8>>); }",
        )
        .replace("get-directories: func() -> list<tuple<descriptor, string>>", "get-directories: func() -> descriptor");
    let imports = IMPORTS
        .replace("get-flags\" (func $flags (param i32) (result i32))", "write\" (func $write_all (param i32 i32 i32))")
        .replace("(func $directories (param i32))", "(func $directories (result i32))");
    let made = |body: &str| {
        let module = component("guest", &wit, &operator_text(&imports, "", body));
        batch(&mut start(&load(&module), &LIMITS).0, b"").unwrap_err().to_string()
    };
    let error = made("(drop (call $directories)) (i32.const 0)");
    assert!(error.contains("it called `get-directories`, which guests do not get"), "{error}");
    let error = made("(call $write_all (i32.const 1) (i32.const 0) (i32.const 0)) (i32.const 0)");
    assert!(error.contains("unknown handle"), "{error}");
}

#[test]
fn a_call_that_other_types_give_is_refused_when_loaded() {
    let wit = WIT.replace("get-random-u64: func() -> u64", "get-random-u64: func() -> u32");
    let imports =
        IMPORTS.replace("\"get-random-u64\" (func $random (result i64))", "\"get-random-u64\" (func $r (result i32))");
    let module = component("guest", &wit, &operator_text(&imports, "", "(i32.const 0)"));
    let error = host().load(&module).unwrap_err().to_string();
    assert!(error.contains("wasi:random/random@0.2.3"), "{error}");
}
