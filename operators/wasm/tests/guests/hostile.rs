//! Guests that harm, by mistake or on purpose: each ends in a clear error, within its limits, and hurts nobody else.

use logmill_wasm::{CallError, GuestLog, Level, Limits, WasmError};

use crate::build::{
    AT, HOST_IMPORTS, LIMITS, Lines, PATIENT, batch, component, host, identity, instance, load, operator,
    operator_text, start,
};
use std::sync::Arc;
use std::time::Duration;

/// What a call into an operator with this `on-batch` ends in.
fn fails(more: &str, body: &str) -> CallError {
    let mut bad = instance(&operator(more, body));
    let error = batch(&mut bad, b"rows").unwrap_err();
    let again = batch(&mut bad, b"rows").unwrap_err();
    assert_eq!(again, CallError::Trapped("an earlier call into this instance failed".into()));
    let mut good = instance(&identity());
    assert_eq!(batch(&mut good, b"rows").unwrap(), [("out".to_owned(), b"rows".to_vec())], "others go on");
    error
}

#[test]
fn an_endless_loop_meets_its_deadline() {
    let error = fails("", "(loop $again (br $again)) unreachable");
    assert_eq!(error, CallError::Deadline { deadline: LIMITS.deadline });
}

#[test]
fn endless_recursion_meets_the_end_of_the_stack() {
    let error = fails("(func $deeper (param i32) (call $deeper (i32.add (local.get 0) (i32.const 1))))", {
        "(call $deeper (i32.const 0)) (i32.const 0)"
    });
    assert_eq!(error, CallError::Stack);
}

#[test]
fn a_memory_bomb_meets_its_limit() {
    let error = fails("", "(loop $more (br_if $more (i32.ne (i32.const -1) (memory.grow (i32.const 1))))) unreachable");
    assert_eq!(error, CallError::Memory { limit_bytes: LIMITS.memory_bytes });
}

#[test]
fn a_guest_that_copes_without_more_memory_goes_on() {
    let module = operator("", "(drop (memory.grow (i32.const 1000))) (call $ok (local.get $rows) (local.get $length))");
    let mut guest = instance(&module);
    for _ in 0..3 {
        assert_eq!(batch(&mut guest, b"rows").unwrap(), [("out".to_owned(), b"rows".to_vec())]);
    }
}

#[test]
fn an_input_that_finds_no_room_is_a_matter_of_memory() {
    let mut guest = instance(&identity());
    let rows = vec![0; usize::try_from(LIMITS.memory_bytes).unwrap() + 1];
    assert_eq!(batch(&mut guest, &rows), Err(CallError::Memory { limit_bytes: LIMITS.memory_bytes }));
}

#[test]
fn a_table_does_not_grow_without_end() {
    let body = "(loop $more (br_if $more (i32.ne (i32.const -1) (table.grow $t (ref.null func) (i32.const 1000)))))
        (call $ok (local.get $rows) (table.size $t))";
    let mut guest = instance(&operator("(table $t 1 funcref)", body));
    let outputs = batch(&mut guest, b"rows");
    let elements = outputs.unwrap()[0].1.len();
    assert!((50_000..=100_000).contains(&elements), "{elements}");
}

#[test]
fn a_trap_says_what_happened_and_where() {
    let count = "(global $calls (mut i32) (i32.const 0))
        (func $boom (result i32) (i32.div_u (i32.const 1) (i32.const 0)))";
    let body = "(global.set $calls (i32.add (global.get $calls) (i32.const 1)))
        (if (i32.eq (global.get $calls) (i32.const 3)) (then (drop (call $boom))))
        (call $ok (local.get $rows) (local.get $length))";
    let mut guest = instance(&operator(count, body));
    assert!(batch(&mut guest, b"1").is_ok());
    assert!(batch(&mut guest, b"2").is_ok());
    let error = batch(&mut guest, b"3").unwrap_err();
    assert_eq!(error, CallError::Trapped("it divided by zero, in `boom` < `on_batch`".into()));
}

#[test]
fn a_trap_repeats_what_the_guest_said_before() {
    let more = r#"(data (i32.const 64) "index out of bounds")"#;
    let body = "(call $log (i32.const 3) (i32.const 64) (i32.const 19)) unreachable";
    let module = component("operator", "", &operator_text(HOST_IMPORTS, more, body));
    let error = batch(&mut instance(&module), b"").unwrap_err();
    let expected = "it panicked or aborted, in `on_batch`; it said: index out of bounds";
    assert_eq!(error, CallError::Trapped(expected.into()));
}

#[test]
fn results_that_cannot_be_read_are_named() {
    let check = |body: &str, expected: &str| match fails("", body) {
        CallError::Output(message) => assert!(message.contains(expected), "{body}: {message}"),
        other => panic!("{body}: {other:?}"),
    };
    check("(i32.const -8)", "out of bounds");
    check("(i32.const 257)", "not aligned");
    check("(call $give (i32.const 512) (i32.const -1))", "out of bounds");
    check("(call $ok (i32.const -4) (i32.const 8))", "out of bounds");
    check("(call $ok (i32.const 0) (i32.const -1))", "out of bounds");
    check("(i32.store8 (i32.const 256) (i32.const 9)) (i32.const 256)", "discriminant");
    check(
        "(drop (call $ok (i32.const 0) (i32.const 0))) (i32.store (i32.const 16) (i32.const -1)) (i32.const 256)",
        "utf-8",
    );
}

#[test]
fn a_result_larger_than_its_memory_is_not_taken_over() {
    // Each of 1000 outputs is the same 100 KB.
    let body = "(local $i i32)
        (loop $next
            (i32.store (i32.add (i32.const 65536) (i32.mul (local.get $i) (i32.const 16))) (i32.const 16))
            (i32.store (i32.add (i32.const 65540) (i32.mul (local.get $i) (i32.const 16))) (i32.const 3))
            (i32.store (i32.add (i32.const 65544) (i32.mul (local.get $i) (i32.const 16))) (i32.const 0))
            (i32.store (i32.add (i32.const 65548) (i32.mul (local.get $i) (i32.const 16))) (i32.const 100000))
            (local.set $i (i32.add (local.get $i) (i32.const 1)))
            (br_if $next (i32.lt_u (local.get $i) (i32.const 1000))))
        (call $give (i32.const 65536) (i32.const 1000))";
    match fails("", body) {
        CallError::Output(message) => assert!(message.contains("more than its memory can hold"), "{message}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_flood_of_lines_is_dammed() {
    let more = r#"(data (i32.const 64) "again and again")"#;
    let body = "(local $i i32)
        (loop $next
            (call $log (i32.const 1) (i32.const 64) (i32.const 15))
            (local.set $i (i32.add (local.get $i) (i32.const 1)))
            (br_if $next (i32.lt_u (local.get $i) (i32.const 20000))))
        (call $ok (local.get $rows) (local.get $length))";
    let guest = load(&component("operator", "", &operator_text(HOST_IMPORTS, more, body)));
    let (mut flood, lines) = start(&guest, &PATIENT);
    batch(&mut flood, b"rows").unwrap();
    drop(flood);
    let lines = lines.all();
    let said = lines.iter().filter(|(_, line)| line == "again and again").count();
    let left_out = lines.iter().filter_map(|(_, line)| line.strip_suffix(" lines of the guest left out"));
    let left_out: usize = left_out.map(|count| count.parse::<usize>().unwrap()).sum();
    assert!(said >= 100, "{said} lines");
    assert_eq!(said + left_out, 20_000, "each line is said or counted");
    assert!(left_out > 10_000, "{left_out} lines left out");
}

/// Takes its time over each line.
struct Slow(Duration);

impl GuestLog for Slow {
    fn line(&self, _: Level, _: &str) {
        std::thread::sleep(self.0);
    }
}

/// An operator that logs and returns at once.
fn logs_once() -> Vec<u8> {
    let body =
        "(call $ok (local.get $rows) (local.get $length)) (call $log (i32.const 1) (i32.const 32) (i32.const 3))";
    component("operator", "", &operator_text(HOST_IMPORTS, "", body))
}

#[test]
fn time_spent_in_the_host_counts_as_well() {
    let log = Arc::new(Slow(LIMITS.deadline * 2));
    let mut guest = load(&logs_once()).instantiate(&LIMITS, log).unwrap();
    assert_eq!(batch(&mut guest, b"rows").unwrap_err(), CallError::Deadline { deadline: LIMITS.deadline });
    let none = Limits { deadline: Duration::ZERO, ..LIMITS };
    let error = load(&identity()).instantiate(&none, Arc::new(Lines::default())).unwrap_err();
    assert_eq!(error.to_string(), "the module does not start: the guest did not come back within 0ns");
}

#[test]
fn instances_with_one_log_share_its_rate() {
    let more = r#"(data (i32.const 64) "again and again")"#;
    let body = "(local $i i32)
        (loop $next
            (call $log (i32.const 1) (i32.const 64) (i32.const 15))
            (local.set $i (i32.add (local.get $i) (i32.const 1)))
            (br_if $next (i32.lt_u (local.get $i) (i32.const 200))))
        unreachable";
    let guest = load(&component("operator", "", &operator_text(HOST_IMPORTS, more, body)));
    let lines = Arc::new(Lines::default());
    for _ in 0..100 {
        let log: Arc<dyn GuestLog> = lines.clone();
        batch(&mut guest.instantiate(&PATIENT, log).unwrap(), b"rows").unwrap_err();
    }
    let said = lines.all().len();
    assert!((100..5_000).contains(&said), "{said} of 20000 lines");
}

#[test]
fn what_comes_after_a_refused_growth_keeps_its_reason() {
    let check = |body: &str, expected: &str| assert_eq!(fails("", body), CallError::Trapped(expected.into()), "{body}");
    let refused = "(drop (memory.grow (i32.const 1000)))";
    check(
        &format!("{refused} (i32.div_u (i32.const 1) (i32.const 0))"),
        "it divided by zero, in `on_batch`; it was refused memory before (raise `memory:`)",
    );
    check(
        &format!("{refused} (drop (memory.grow (i32.const 1))) unreachable"),
        "it panicked or aborted, in `on_batch`",
    );
}

#[test]
fn a_table_that_is_at_its_own_maximum_costs_nothing_of_the_limit() {
    let body = "(local $i i32)
        (loop $next
            (drop (table.grow $small (ref.null func) (i32.const 1000)))
            (local.set $i (i32.add (local.get $i) (i32.const 1)))
            (br_if $next (i32.lt_u (local.get $i) (i32.const 200))))
        (drop (table.grow $t (ref.null func) (i32.const 50000)))
        (call $ok (local.get $rows) (table.size $t))";
    let mut guest = instance(&operator("(table $small 1 10 funcref) (table $t 1 funcref)", body));
    assert_eq!(batch(&mut guest, b"rows").unwrap()[0].1.len(), 50_001);
}

#[test]
fn a_taker_that_panics_leaves_no_instance_behind() {
    let mut guest = instance(&identity());
    let panics = std::panic::AssertUnwindSafe(|| guest.on_batch(AT, b"rows", &mut |_, _| panic!("on purpose")));
    assert!(std::panic::catch_unwind(panics).is_err());
    let again = CallError::Trapped("an earlier call into this instance failed".into());
    assert_eq!(batch(&mut guest, b"rows").unwrap_err(), again);
}

#[test]
fn what_the_taker_says_of_an_output_ends_the_call() {
    let mut guest = instance(&identity());
    let error = guest.on_batch(AT, b"rows", &mut |_, _| Err("not an IPC stream".into())).unwrap_err();
    assert_eq!(error, CallError::Output("not an IPC stream".into()));
}

#[test]
fn a_guest_that_refuses_stays_good() {
    let body = "(if (i32.eqz (local.get $length)) (then (return (call $refuse))))
        (call $ok (local.get $rows) (local.get $length))";
    let mut guest = instance(&operator("", body));
    let refused = CallError::Refused { message: "not this one".into(), row: Some(5) };
    assert_eq!(batch(&mut guest, b"").unwrap_err(), refused);
    assert_eq!(batch(&mut guest, b"rows").unwrap(), [("out".to_owned(), b"rows".to_vec())]);
}

#[test]
fn a_guest_that_begins_too_large_does_not_start() {
    let guest = load(&identity());
    let limits = Limits { memory_bytes: 65_536, ..LIMITS };
    let error = guest.instantiate(&limits, Arc::new(Lines::default())).unwrap_err();
    assert!(matches!(error, WasmError::Memory { needed_bytes: 131_072, limit_bytes: 65_536 }), "{error}");
}

#[test]
fn a_guest_that_starts_without_end_does_not_start() {
    let more = "(func $init (loop $again (br $again))) (start $init)";
    let module = operator(more, "(call $ok (local.get $rows) (local.get $length))");
    let error = host().load(&module).unwrap().instantiate(&LIMITS, Arc::new(Lines::default())).unwrap_err();
    assert_eq!(error.to_string(), "the module does not start: the guest did not come back within 200ms");
}

#[test]
fn thousands_of_instances_live_side_by_side() {
    fn moves<T: Send>(value: T) -> T {
        value
    }
    let guest = load(&identity());
    let mut instances: Vec<_> = (0..2_000).map(|_| moves(start(&guest, &LIMITS).0)).collect();
    for instance in &mut instances {
        assert_eq!(batch(instance, b"rows").unwrap()[0].1, b"rows");
    }
}

#[test]
fn instances_share_nothing() {
    let count = "(global $calls (mut i32) (i32.const 0))";
    let body = "(global.set $calls (i32.add (global.get $calls) (i32.const 1)))
        (call $ok (i32.const 0) (global.get $calls))";
    let guest = load(&operator(count, body));
    let (mut one, mut other) = (start(&guest, &LIMITS).0, start(&guest, &LIMITS).0);
    let mut calls = |which: usize| {
        let instance = if which == 0 { &mut one } else { &mut other };
        batch(instance, b"").unwrap()[0].1.len()
    };
    assert_eq!([calls(0), calls(0), calls(1), calls(0), calls(1)], [1, 2, 1, 3, 2]);
}
