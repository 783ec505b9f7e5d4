//! Builds guests out of a few lines of WebAssembly text each.
//!
//! A guest is the text of a core module that exports the functions of a world by their canonical names; the component types
//! are taken from our WIT packages and put into it, so what is tested is what they say.

use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use logmill_wasm::{CallError, Guest, GuestLog, Host, Instance, Level, Limits, Moment};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// Time in which the tests' good guests are done, and for which their endless ones run.
pub(crate) const LIMITS: Limits = Limits { memory_bytes: 4 * 1024 * 1024, deadline: Duration::from_millis(200) };
/// For guests that are slow, not endless.
pub(crate) const PATIENT: Limits = Limits { memory_bytes: 4 * 1024 * 1024, deadline: Duration::from_secs(60) };
pub(crate) const AT: Moment = Moment { now_us: 1_700_000_000_123_456, seed: 7 };

pub(crate) fn host() -> &'static Host {
    static HOST: OnceLock<Host> = OnceLock::new();
    HOST.get_or_init(|| Host::new(None).unwrap())
}

/// The lines that guests logged.
#[derive(Default)]
pub(crate) struct Lines(Mutex<Vec<(Level, String)>>);

impl GuestLog for Lines {
    fn line(&self, level: Level, message: &str) {
        self.0.lock().unwrap().push((level, message.to_owned()));
    }
}

impl Lines {
    pub(crate) fn all(&self) -> Vec<(Level, String)> {
        self.0.lock().unwrap().clone()
    }
}

pub(crate) fn load(module: &[u8]) -> Guest {
    host().load(module).unwrap_or_else(|error| panic!("{error}"))
}

/// The error with which a module is not loaded.
pub(crate) fn refuse(module: &[u8]) -> String {
    host().load(module).expect_err("a module that is refused").to_string()
}

pub(crate) fn instance(module: &[u8]) -> Instance {
    start(&load(module), &LIMITS).0
}

pub(crate) fn start(guest: &Guest, limits: &Limits) -> (Instance, Arc<Lines>) {
    let lines = Arc::new(Lines::default());
    let log: Arc<dyn GuestLog> = lines.clone();
    (guest.instantiate(limits, log).unwrap_or_else(|error| panic!("{error}")), lines)
}

/// The outputs of a call on a batch.
pub(crate) fn batch(instance: &mut Instance, rows: &[u8]) -> Result<Vec<(String, Vec<u8>)>, CallError> {
    let mut outputs = Vec::new();
    instance.on_batch(AT, rows, &mut |name, rows| {
        outputs.push((name.to_owned(), rows));
        Ok(())
    })?;
    Ok(outputs)
}

/// A core module that carries the component types of a world of ours, or of one that `wit` adds.
pub(crate) fn typed(world: &str, wit: &str, text: &str) -> Vec<u8> {
    let mut resolve = Resolve::default();
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../wit");
    let mut package = None;
    for file in ["operator/operator.wit", "transform/transform.wit", "function/function.wit"] {
        let id = resolve.push_str(file, &std::fs::read_to_string(dir.join(file)).unwrap()).unwrap();
        let worlds = &resolve.packages[id].worlds;
        package = package.or(worlds.contains_key(world).then_some(id));
    }
    if !wit.is_empty() {
        package = Some(resolve.push_str("test.wit", wit).unwrap_or_else(|error| panic!("{error:?}")));
    }
    let world = resolve.select_world(&[package.expect("a package with the world")], Some(world)).unwrap();
    let mut module = wat::parse_str(text).unwrap_or_else(|error| panic!("{error}"));
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    module
}

/// The same as a component.
pub(crate) fn component(world: &str, wit: &str, text: &str) -> Vec<u8> {
    let module = typed(world, wit, text);
    ComponentEncoder::default().validate(true).module(&module).unwrap().encode().unwrap()
}

/// Memory, an allocator that only goes up, and where the tests' guests put results: at 256, their lists at 512.
pub(crate) const BASE: &str = r#"
    (memory (export "memory") 2)
    (global $top (mut i32) (i32.const 8192))
    (func $alloc (param $size i32) (result i32)
        (local $at i32)
        (local.set $at (global.get $top))
        (global.set $top (i32.and (i32.add (i32.add (local.get $at) (local.get $size)) (i32.const 7)) (i32.const -8)))
        (block $room
            (br_if $room (i32.le_u (global.get $top) (i32.shl (memory.size) (i32.const 16))))
            (br_if $room (i32.ne (i32.const -1)
                (memory.grow (i32.add (i32.const 1) (i32.shr_u (local.get $size) (i32.const 16))))))
            unreachable)
        (local.get $at))
    (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (call $alloc (local.get 3)))
    (data (i32.const 16) "out")
    (data (i32.const 32) "not this one")
    ;; result<_, string or failure>: an error that says `not this one`, and blames row 5 where there is room for it
    (func $refuse (result i32)
        (i32.store8 (i32.const 256) (i32.const 1))
        (i32.store (i32.const 260) (i32.const 32))
        (i32.store (i32.const 264) (i32.const 12))
        (i32.store8 (i32.const 268) (i32.const 1))
        (i32.store (i32.const 272) (i32.const 5))
        (i32.const 256))
    ;; result<list<u8>, _> and others that hold a pointer and a length
    (func $give (param $at i32) (param $length i32) (result i32)
        (i32.store8 (i32.const 256) (i32.const 0))
        (i32.store (i32.const 260) (local.get $at))
        (i32.store (i32.const 264) (local.get $length))
        (i32.const 256))
    ;; a list of one output `out` with these rows
    (func $ok (param $rows i32) (param $length i32) (result i32)
        (i32.store (i32.const 512) (i32.const 16))
        (i32.store (i32.const 516) (i32.const 3))
        (i32.store (i32.const 520) (local.get $rows))
        (i32.store (i32.const 524) (local.get $length))
        (call $give (i32.const 512) (i32.const 1)))
"#;

/// An operator's `signature`: one output, `out`, with the schema of the input; it reads all.
pub(crate) const SIGNATURE: &str = r#"
    (func (export "logmill:operator/batch@0.1.0#signature")
        (param $at i32) (param $length i32) (param $config i32) (param $config_length i32) (result i32)
        (i32.store8 (i32.const 256) (i32.const 0))
        (i32.store8 (i32.const 260) (i32.const 0))
        (i32.store (i32.const 512) (i32.const 16))
        (i32.store (i32.const 516) (i32.const 3))
        (i32.store (i32.const 520) (local.get $at))
        (i32.store (i32.const 524) (local.get $length))
        (i32.store (i32.const 272) (i32.const 512))
        (i32.store (i32.const 276) (i32.const 1))
        (i32.const 256))
"#;

/// What imports the log and the clock: it must come before anything else of a module.
pub(crate) const HOST_IMPORTS: &str = r#"
    (import "logmill:operator/host@0.1.0" "log" (func $log (param i32 i32 i32)))
    (import "logmill:operator/host@0.1.0" "now" (func $now (result i64)))
"#;

/// The text of an operator: imports, further definitions, and the body of `on-batch`, which has `$rows` and `$length`.
pub(crate) fn operator_text(imports: &str, more: &str, body: &str) -> String {
    format!(
        r#"(module {imports} {BASE} {SIGNATURE} {more}
            (func $on_batch (export "logmill:operator/batch@0.1.0#on-batch")
                (param $rows i32) (param $length i32) (result i32) {body}))"#
    )
}

/// A stateless operator with this `on-batch`.
pub(crate) fn operator(more: &str, body: &str) -> Vec<u8> {
    component("operator", "", &operator_text("", more, body))
}

/// An operator that gives what it gets.
pub(crate) fn identity() -> Vec<u8> {
    operator("", "(call $ok (local.get $rows) (local.get $length))")
}
