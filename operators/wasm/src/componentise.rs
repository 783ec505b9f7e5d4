//! Makes components of core modules that carry their component types.
//!
//! The library that does so trusts these types: packages that need one another in a circle, or chains of them that are long
//! enough, end in a recursion without end, which would end the process. So the types are bounded and looked at first, and what
//! remains runs on a thread of its own, with a stack that is large enough for all that fits into the bounds.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;

use wit_component::ComponentEncoder;
use wit_parser::decoding::decode_world;

use crate::error::WasmError;

/// What all component types of a module may take; those of a guest with all of WASI take a tenth.
const MAX_TYPES_BYTES: usize = 256 * 1024;
/// WIT packages that they may name.
const MAX_PACKAGES: usize = 200;
const STACK_BYTES: usize = 256 * 1024 * 1024;
/// What a section of the historical form begins with, which current tools no longer write.
const HISTORICAL: u8 = 0x03;

/// Makes a component of a core module, whose sections of component types are these.
pub(crate) fn componentise(module: &[u8], types: &[&[u8]]) -> Result<Vec<u8>, WasmError> {
    let invalid = |what: String| WasmError::Invalid(format!("its component types do not fit it: {what}"));
    if types.iter().map(|section| section.len()).sum::<usize>() > MAX_TYPES_BYTES {
        return Err(invalid(format!("they take more than {MAX_TYPES_BYTES} bytes")));
    }
    let encoded = thread::scope(|scope| {
        let work = || {
            check_packages(types)?;
            encode(module)
        };
        let thread = thread::Builder::new().name("wasm-types".into()).stack_size(STACK_BYTES).spawn_scoped(scope, work);
        match thread {
            Ok(thread) => thread.join().unwrap_or_else(|_| Err("they contradict themselves".into())),
            Err(error) => Err(format!("there is no thread to look at them: {error}")),
        }
    });
    encoded.map_err(invalid)
}

fn encode(module: &[u8]) -> Result<Vec<u8>, String> {
    let encoder = ComponentEncoder::default().validate(true).module(module);
    encoder.and_then(|mut encoder| encoder.encode()).map_err(|error| {
        let text = format!("{error:#}");
        if text.contains("wasi_snapshot_preview1") {
            return format!("{text}; it was built for WASI 0.1: build for wasm32-unknown-unknown or wasm32-wasip2");
        }
        text
    })
}

/// Checks that the packages are not too many, and that none needs itself, be it by way of others.
fn check_packages(types: &[&[u8]]) -> Result<(), String> {
    let mut needs: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for section in types {
        if section.first() == Some(&HISTORICAL) {
            return Err("they are of a form that is no longer read; build with a current wit-bindgen".into());
        }
        let (resolve, _) = decode_world(section).map_err(|error| format!("{error:#}"))?;
        if resolve.packages.len() > MAX_PACKAGES {
            return Err(format!("they name more than {MAX_PACKAGES} packages"));
        }
        for (id, package) in resolve.packages.iter() {
            let others = resolve.package_direct_deps(id).map(|other| resolve.packages[other].name.to_string());
            needs.entry(package.name.to_string()).or_default().extend(others);
        }
    }
    // Each round takes away those that need no other; what is left in the end needs itself.
    loop {
        let free: Vec<String> =
            needs.iter().filter(|(_, others)| others.is_empty()).map(|(name, _)| name.clone()).collect();
        if free.is_empty() {
            break;
        }
        for name in free {
            needs.remove(&name);
            for others in needs.values_mut() {
                others.remove(&name);
            }
        }
    }
    match needs.keys().next() {
        Some(name) => Err(format!("package `{name}` needs itself")),
        None => Ok(()),
    }
}
