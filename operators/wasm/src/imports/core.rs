//! What core modules with the transform ABI may import.

use wasmtime::{Caller, Engine, Extern, FuncType, InstancePre, Linker, Module, ValType, format_err};

use crate::error::WasmError;
use crate::log::{Level, cut};
use crate::state::State;

/// The longest text that a core module may hand over at once.
const MAX_TEXT_BYTES: usize = 64 * 1024;

/// Links a core module to what it imports. An error names each import that it may not have.
pub(crate) fn link_module(engine: &Engine, module: &Module) -> Result<InstancePre<State>, WasmError> {
    let mut linker = Linker::<State>::new(engine);
    define(&mut linker).map_err(|error| WasmError::Engine(format!("{error:#}")))?;
    let refused: Vec<String> = module
        .imports()
        .filter(|import| !offered(import.module(), import.name()))
        .map(|import| match hint(import.module()) {
            Some(hint) => format!("`{}.{}` ({hint})", import.module(), import.name()),
            None => format!("`{}.{}`", import.module(), import.name()),
        })
        .collect();
    if !refused.is_empty() {
        return Err(WasmError::Import(refused.join("; ")));
    }
    linker.instantiate_pre(module).map_err(|error| WasmError::Import(format!("{error:#}")))
}

fn offered(module: &str, name: &str) -> bool {
    matches!((module, name), ("logmill", "log" | "now") | ("env", "abort" | "seed" | "trace"))
}

fn hint(module: &str) -> Option<&'static str> {
    match module {
        "wasi_snapshot_preview1" | "wasi_unstable" => {
            Some("core modules get no WASI; build for a target without it, or make a component")
        }
        "wbg" | "__wbindgen_placeholder__" => Some("wasm-bindgen needs a JavaScript host"),
        _ => None,
    }
}

fn define(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.func_wrap("logmill", "log", |mut caller: Caller<'_, State>, level: i32, address: i32, length: i32| {
        let level = match level {
            0 => Level::Debug,
            1 => Level::Info,
            2 => Level::Warn,
            _ => Level::Error,
        };
        let bytes = read(&mut caller, address, length)?;
        caller.data_mut().log.log(level, &String::from_utf8_lossy(&bytes));
        wasmtime::Result::<()>::Ok(())
    })?;
    linker.func_wrap("logmill", "now", |caller: Caller<'_, State>| caller.data().moment.now_us)?;
    linker.func_wrap("env", "abort", abort)?;
    linker.func_wrap("env", "seed", |mut caller: Caller<'_, State>| {
        // The 53 bits of a double's fraction.
        (caller.data_mut().random_u64() >> 11) as f64
    })?;
    linker.func_new("env", "trace", trace_type(linker.engine()), |mut caller, values, _| {
        let message = values.first().and_then(wasmtime::Val::i32).unwrap_or(0);
        let count = values.get(1).and_then(wasmtime::Val::i32).and_then(|count| usize::try_from(count).ok());
        let numbers = values.iter().skip(2).take(count.unwrap_or(0)).filter_map(wasmtime::Val::f64);
        let numbers: Vec<String> = numbers.map(|number| number.to_string()).collect();
        let text = assembly_script_string(&mut caller, message).unwrap_or_default();
        let space = if numbers.is_empty() { "" } else { " " };
        caller.data_mut().log.log(Level::Debug, &format!("{text}{space}{}", numbers.join(", ")));
        Ok(())
    })?;
    Ok(())
}

/// AssemblyScript's `trace(message, count, five numbers)`.
fn trace_type(engine: &Engine) -> FuncType {
    let numbers = std::iter::repeat_n(ValType::F64, 5);
    FuncType::new(engine, [ValType::I32, ValType::I32].into_iter().chain(numbers), [])
}

/// AssemblyScript's `abort`: what it says is what the call failed of.
fn abort(mut caller: Caller<'_, State>, message: i32, file: i32, line: i32, column: i32) -> wasmtime::Result<()> {
    let text = assembly_script_string(&mut caller, message);
    let text = text.filter(|text| !text.is_empty()).unwrap_or_else(|| "it called abort".into());
    let place = match assembly_script_string(&mut caller, file) {
        Some(file) if !file.is_empty() => format!(" ({file}:{line}:{column})"),
        _ => String::new(),
    };
    Err(format_err!("{text}{place}"))
}

/// A string object: UTF-16, its length in bytes in the four bytes before it.
fn assembly_script_string(caller: &mut Caller<'_, State>, address: i32) -> Option<String> {
    if address == 0 {
        return None;
    }
    let header = read(caller, address.wrapping_sub(4), 4).ok()?;
    let length = i32::from_le_bytes(header.try_into().ok()?);
    let bytes = read(caller, address, length).ok()?;
    let units = bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
    let text: String = char::decode_utf16(units).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
    Some(cut(&text, MAX_TEXT_BYTES).to_owned())
}

/// Bytes of the guest's memory, at most as many as a text may have.
fn read(caller: &mut Caller<'_, State>, address: i32, length: i32) -> wasmtime::Result<Vec<u8>> {
    let memory = caller.get_export("memory").and_then(Extern::into_memory);
    let memory = memory.ok_or_else(|| format_err!("it has no memory to read a text from"))?;
    let (start, length) = (address as u32 as usize, length as u32 as usize);
    let bytes = memory.data(&*caller).get(start..).and_then(|rest| rest.get(..length));
    let bytes = bytes.ok_or_else(|| format_err!("it gave a text of {length} bytes at {start}, outside its memory"))?;
    Ok(bytes.get(..MAX_TEXT_BYTES).unwrap_or(bytes).to_vec())
}
