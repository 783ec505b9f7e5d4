//! Bytes that are no modules, and modules that are damaged: whatever they are, they end in errors.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use logmill_wasm::{Host, Limits, Moment, Role};
use proptest::prelude::*;

use crate::build::{Lines, component, host, operator_text, typed};

/// A module of each form.
fn modules() -> &'static [Vec<u8>] {
    static MODULES: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    MODULES.get_or_init(|| {
        let text = operator_text("", "", "(call $ok (local.get $rows) (local.get $length))");
        let core = r#"(module
            (memory (export "memory") 1)
            (func (export "logmill_alloc") (param i32) (result i32) (i32.const 1024))
            (func (export "logmill_outputs") (param i32 i32) (result i64) (i64.const 0x40_0000_0002))
            (func (export "logmill_transform") (param i32 i32) (result i64)
                (i64.or (i64.shl (i64.extend_i32_u (local.get 0)) (i64.const 32)) (i64.extend_i32_u (local.get 1))))
            (data (i32.const 64) "\00[]"))"#;
        let core = wat::parse_str(core).unwrap();
        vec![typed("operator", "", &text), component("operator", "", &text), core]
    })
}

/// Loads, starts and calls; the outcome is of no interest.
fn exercise(host: &Host, module: &[u8]) {
    let Ok(guest) = host.load(module) else {
        return;
    };
    let limits = Limits { memory_bytes: 1 << 20, deadline: Duration::from_millis(20) };
    let Ok(mut instance) = guest.instantiate(&limits, Arc::new(Lines::default())) else {
        return;
    };
    let at = Moment::default();
    match guest.role() {
        Role::Operator { .. } => {
            let _ = instance.signature(at, b"schema", "null");
            let _ = instance.on_batch(at, b"rows", &mut |_, _| Ok(()));
        }
        Role::Transform { .. } => {
            let _ = instance.outputs(at, "null");
            let _ = instance.transform_packed(at, &[0; 4], &mut |_| Ok(()));
        }
        Role::Function => {
            let _ = instance.functions(at, "null");
            let _ = instance.invoke(at, "f", b"", &mut |_| Ok(()));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_end_in_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200), magic in any::<bool>()) {
        let module = if magic { [b"\0asm\x01\0\0\0", &bytes[..]].concat() } else { bytes };
        exercise(host(), &module);
    }

    #[test]
    fn damaged_modules_end_in_errors(
        which in 0usize..3,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        length in prop::option::weighted(0.2, any::<prop::sample::Index>()),
    ) {
        let mut module = modules()[which].clone();
        for (at, byte) in changes {
            let at = at.index(module.len());
            module[at] = byte;
        }
        if let Some(length) = length {
            module.truncate(length.index(module.len()));
        }
        exercise(host(), &module);
    }
}

/// Packages that need one another cannot be written as WIT, but nothing keeps a module from saying so.
#[test]
fn component_types_that_go_in_circles_are_refused() {
    let wit = "package test:guest;
        world guest { import acme:a/x; import acme:b/z; include logmill:operator/operator@0.1.0; }
        package acme:a { interface x { use acme:b/y.{t}; f: func(t: t); } }
        package acme:b { interface y { record t { i: u8 } } interface z { use acme:c/w.{u}; g: func(u: u); } }
        package acme:c { interface w { record u { i: u8 } } }";
    let mut module = typed("guest", wit, &operator_text("", "", "(i32.const 0)"));
    let (name, other) = (b"acme:c/w", b"acme:a/w");
    let places: Vec<usize> = (0..module.len() - name.len()).filter(|at| module[*at..].starts_with(name)).collect();
    assert!(!places.is_empty());
    for at in places {
        module[at..at + name.len()].copy_from_slice(other);
    }
    let error = host().load(&module).unwrap_err().to_string();
    assert!(error.contains("package `acme:a` needs itself"), "{error}");
}

/// A number as WebAssembly writes it.
fn leb128(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(0x80 | u8::try_from(number & 0x7f).unwrap());
        number >>= 7;
    }
    bytes.push(u8::try_from(number).unwrap());
    bytes
}

/// A component with one type: a component type within a component type, and so on.
fn nested(depth: usize) -> Vec<u8> {
    let types = [&[1][..], &[0x41, 1, 1].repeat(depth), &[0x41, 0]].concat();
    [b"\0asm\x0d\0\x01\0\x07", &leb128(types.len())[..], &types].concat()
}

#[test]
fn types_that_nest_too_deep_are_refused() {
    for depth in [1, 10, 1_000, 9_999, 100_000, 1_000_000] {
        let component = nested(depth);
        exercise(host(), &component);
        let types = [&b"\x0ecomponent-type"[..], &component].concat();
        let module = [b"\0asm\x01\0\0\0\0", &leb128(types.len())[..], &types].concat();
        exercise(host(), &module);
    }
    let error = host().load(&nested(10_000)).unwrap_err().to_string();
    assert_eq!(error, "the module is not valid: its types nest too deep");
}
