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
        which in 1usize..3,
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
