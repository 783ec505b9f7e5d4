//! What it costs to have a guest: to load it, to make an instance of it, and to call it.
//!
//! The guests do next to nothing, so what is measured is the host. Of a number of rounds the median counts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[allow(dead_code)]
#[path = "../tests/guests/build.rs"]
mod build;

use std::sync::Arc;
use std::time::{Duration, Instant};

use logmill_wasm::{Guest, Host, Instance, Limits};

use crate::build::{AT, BASE, Lines, SIGNATURE, component, identity};

const LIMITS: Limits = Limits { memory_bytes: 128 * 1024 * 1024, deadline: Duration::from_secs(10) };
const RECORDS: u32 = 1_000;
const RECORD_BYTES: usize = 200;
const BATCH_BYTES: usize = 800 * 1024;

/// The tests' base, but its allocator gives the same room each time, so that calls can be repeated.
fn base() -> String {
    BASE.replace("(global.set $top", "(drop")
        .replace(r#"(memory (export "memory") 2)"#, r#"(memory (export "memory") 20)"#)
}

/// An operator that gives what it gets.
fn echo() -> Vec<u8> {
    let base = base();
    let text = format!(
        r#"(module {base} {SIGNATURE}
        (func (export "logmill:operator/batch@0.1.0#on-batch") (param i32 i32) (result i32)
            (call $ok (local.get 0) (local.get 1))))"#
    );
    component("operator", "", &text)
}

/// A transform of single records that drops them all.
fn dropping() -> Vec<u8> {
    let base = base();
    let text = format!(
        r#"(module {base}
        (func (export "logmill:transform/describe@0.1.0#outputs") (param i32 i32) (result i32) unreachable)
        (func (export "logmill:transform/record@0.1.0#transform")
            (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i64) (result i32) (call $give (i32.const 0) (i32.const 0))))"#
    );
    component("transform", "", &text)
}

fn core() -> Vec<u8> {
    wat::parse_str(
        r#"(module (memory (export "memory") 20)
        (func (export "logmill_alloc") (param i32) (result i32) (i32.const 1024))
        (func (export "logmill_transform") (param i32 i32) (result i64)
            (i64.or (i64.shl (i64.const 1023) (i64.const 32)) (i64.extend_i32_u (i32.add (local.get 1) (i32.const 1))))))"#,
    )
    .unwrap()
}

fn median(rounds: u32, mut work: impl FnMut()) -> Duration {
    let mut times: Vec<Duration> = (0..rounds)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed()
        })
        .collect();
    times.sort();
    times[times.len() / 2]
}

fn instance(guest: &Guest) -> Instance {
    guest.instantiate(&LIMITS, Arc::new(Lines::default())).unwrap()
}

fn main() {
    // `cargo bench` says so; anything else only wants to see that it runs.
    let rounds = if std::env::args().any(|arg| arg == "--bench") { 1_001 } else { 3 };
    let cache = tempfile::tempdir().unwrap();
    let say = |what: &str, time: Duration| println!("{what:<48} {:>10.2} us", time.as_secs_f64() * 1e6);

    let operator = identity();
    say("load a component of 2 KB", median(rounds.min(51), || drop(Host::new(None).unwrap().load(&operator).unwrap())));
    let host = Host::new(Some(cache.path())).unwrap();
    host.load(&operator).unwrap();
    say("the same, from the cache", median(rounds.min(51), || drop(host.load(&operator).unwrap())));

    let guest = host.load(&operator).unwrap();
    say("make an instance of it", median(rounds, || drop(instance(&guest))));
    let core = host.load(&core()).unwrap();
    say("make an instance of a core module", median(rounds, || drop(instance(&core))));

    let records = host.load(&dropping()).unwrap();
    let mut refusing = instance(&records);
    let nothing = 0u32.to_le_bytes();
    let call = median(rounds, || refusing.transform_packed(AT, &nothing, &mut |_| Ok(())).unwrap());
    say("a call without a record", call);
    let mut fields = 0i64.to_le_bytes().to_vec();
    fields.extend(u32::MAX.to_le_bytes());
    fields.extend(u32::try_from(RECORD_BYTES).unwrap().to_le_bytes());
    fields.extend([b'x'; RECORD_BYTES]);
    fields.extend(0u32.to_le_bytes());
    let messages = [&RECORDS.to_le_bytes()[..], &fields.repeat(RECORDS as usize)].concat();
    let time = median(rounds.min(201), || refusing.transform_packed(AT, &messages, &mut |_| Ok(())).unwrap());
    say("a record of 200 bytes, called one at a time", time / RECORDS);

    let mut operator = instance(&host.load(&echo()).unwrap());
    let batch = vec![7; BATCH_BYTES];
    let mut rows = Vec::new();
    let time = median(rounds.min(201), || {
        let mut take = |_: &str, taken| {
            rows = taken;
            Ok(())
        };
        operator.on_batch(AT, &batch, &mut take).unwrap();
    });
    assert_eq!(rows, batch);
    say("800 KB into a component, and out of it", time);
    let mut echo = instance(&core);
    let mut seen = 0;
    let mut take = |bytes: &[u8]| {
        seen = bytes.len();
        Ok(())
    };
    say("800 KB into a core module", median(rounds.min(201), || echo.transform_packed(AT, &batch, &mut take).unwrap()));
    assert_eq!(seen, BATCH_BYTES);
    let copy = median(rounds.min(201), || drop(std::hint::black_box(batch.clone())));
    say("800 KB copied, for comparison", copy);
}
