//! Tells the forms of guests apart, and says of other bytes what they are.

use wasmparser::{Encoding, Parser, Payload};
use wit_component::ComponentEncoder;

use crate::error::WasmError;
use crate::types::{check_nesting, check_types};

/// What a guest's bytes are.
pub(crate) enum Form {
    /// A component.
    Component,
    /// A core module that carries component types, made a component.
    Componentised(Vec<u8>),
    /// A core module without component types.
    Core,
}

/// `\0asm`, with which every module begins.
const MAGIC: &[u8] = b"\0asm";

/// Looks at what the bytes are.
pub(crate) fn form(bytes: &[u8]) -> Result<Form, WasmError> {
    if !bytes.starts_with(MAGIC) {
        return Err(WasmError::NotWasm(describe(bytes)));
    }
    let mut types = Vec::new();
    for payload in Parser::new(0).parse_all(bytes) {
        let payload = payload.map_err(|error| {
            let what = if error.offset() >= bytes.len() || error.message().contains("unexpected end") {
                format!("it is cut off after {} bytes", bytes.len())
            } else {
                error.message().to_owned()
            };
            WasmError::NotWasm(format!("{what} (at byte {})", error.offset()))
        })?;
        match payload {
            Payload::Version { encoding: Encoding::Component, .. } => {
                check_nesting(bytes).map_err(WasmError::Invalid)?;
                return Ok(Form::Component);
            }
            Payload::CustomSection(section) if section.name().starts_with("component-type") => {
                types.push(section.data())
            }
            _ => {}
        }
    }
    if types.is_empty() {
        return Ok(Form::Core);
    }
    let componentised = check_types(&types).and_then(|()| componentise(bytes));
    componentised
        .map(Form::Componentised)
        .map_err(|error| WasmError::Invalid(format!("its component types do not fit it: {error}")))
}

fn componentise(module: &[u8]) -> Result<Vec<u8>, String> {
    let encoder = ComponentEncoder::default().validate(true).module(module);
    encoder.and_then(|mut encoder| encoder.encode()).map_err(|error| {
        let text = format!("{error:#}");
        if text.contains("wasi_snapshot_preview1") {
            return format!("{text}; it was built for WASI 0.1: build for wasm32-unknown-unknown or wasm32-wasip2");
        }
        text
    })
}

fn describe(bytes: &[u8]) -> String {
    let start = bytes.trim_ascii_start();
    if bytes.is_empty() {
        "the file is empty".into()
    } else if MAGIC.starts_with(bytes) {
        format!("it is cut off after {} bytes", bytes.len())
    } else if [&b"(module"[..], b"(component", b";;", b"(;"].iter().any(|text| start.starts_with(text)) {
        "this is the text format; assemble it first, with `wat2wasm` or `wasm-tools parse`".into()
    } else if bytes.starts_with(b"\x7fELF") {
        "this is a native program or library; build for a wasm32 target".into()
    } else if bytes.starts_with(b"!<arch>") {
        "this is a static library; link it to a module".into()
    } else {
        "it does not begin as one".into()
    }
}
