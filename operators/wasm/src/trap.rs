//! Narrows what wasmtime says about a failed call down to one of ours, in words of whoever wrote the guest.

use wasmtime::{Trap, WasmBacktrace};

use crate::error::CallError;
use crate::guest::Limits;
use crate::log::cut;
use crate::state::State;

/// How many of the guest's functions are named.
const MAX_FRAMES: usize = 4;
/// The longest name of one.
const MAX_NAME_BYTES: usize = 120;

/// Why a call gave nothing: the engine ended it, or we found something wrong with what it gave.
pub(crate) enum Fault {
    Engine(wasmtime::Error),
    Call(CallError),
}

impl From<wasmtime::Error> for Fault {
    fn from(error: wasmtime::Error) -> Fault {
        Fault::Engine(error)
    }
}

impl From<CallError> for Fault {
    fn from(error: CallError) -> Fault {
        Fault::Call(error)
    }
}

impl Fault {
    /// The guest said no.
    pub(crate) fn refused(message: String) -> Fault {
        Fault::Call(CallError::Refused { message, row: None })
    }

    /// What it gave is of no use.
    pub(crate) fn output(message: impl Into<String>) -> Fault {
        Fault::Call(CallError::Output(message.into()))
    }

    pub(crate) fn narrow(self, state: &State, limits: &Limits) -> CallError {
        match self {
            Fault::Call(error) => error,
            Fault::Engine(error) => narrow(&error, state, limits),
        }
    }
}

fn narrow(error: &wasmtime::Error, state: &State, limits: &Limits) -> CallError {
    let place = error.downcast_ref::<WasmBacktrace>().map(place).unwrap_or_default();
    let Some(trap) = error.downcast_ref::<Trap>() else {
        if error.downcast_ref::<WasmBacktrace>().is_some() {
            // A function of ours ended the call: `abort`, or one that guests do not get.
            return CallError::Trapped(format!("{}{place}", error.root_cause()));
        }
        if state.bounds.refused_bytes.is_some() {
            return CallError::Memory { limit_bytes: limits.memory_bytes };
        }
        let text = format!("{error:#}");
        // What wasmtime says when a result exceeds what it was told to copy at most; its type has no name.
        if text.contains("fuel allocated for hostcalls") {
            return CallError::Output("it gave more than its memory can hold".into());
        }
        return CallError::Output(text);
    };
    let what = match trap {
        Trap::Interrupt => return CallError::Deadline { deadline: limits.deadline },
        Trap::StackOverflow => return CallError::Stack,
        _ if state.bounds.refused_bytes.is_some() => {
            return CallError::Memory { limit_bytes: limits.memory_bytes };
        }
        Trap::UnreachableCodeReached => "it panicked or aborted",
        Trap::MemoryOutOfBounds => "it read or wrote outside its memory",
        Trap::TableOutOfBounds => "it called or read outside its table of functions",
        Trap::IndirectCallToNull => "it called a function pointer that is null",
        Trap::BadSignature => "it called a function pointer with the wrong types",
        Trap::IntegerDivisionByZero => "it divided by zero",
        Trap::IntegerOverflow => "an integer division overflowed",
        Trap::BadConversionToInteger => "it made an integer of a number that is too large or none",
        other => return CallError::Trapped(format!("{other}{place}{}", said(state))),
    };
    CallError::Trapped(format!("{what}{place}{}", said(state)))
}

fn said(state: &State) -> String {
    state.log.last_words().map(|words| format!("; it said: {words}")).unwrap_or_default()
}

/// `, in score < on_batch`: where it happened, innermost first. Nothing if the module has no names.
fn place(backtrace: &WasmBacktrace) -> String {
    let names = backtrace.frames().iter().filter_map(|frame| frame.func_name());
    let names = names.map(|name| format!("{:#}", rustc_demangle::demangle(name)));
    let names: Vec<String> = names
        .filter(|name| !is_noise(name))
        .take(MAX_FRAMES)
        .map(|name| format!("`{}`", cut(&name, MAX_NAME_BYTES)))
        .collect();
    if names.is_empty() { String::new() } else { format!(", in {}", names.join(" < ")) }
}

/// What languages put between a mistake and the trap, and around the exported function.
fn is_noise(name: &str) -> bool {
    let within = ["core::panicking::", "std::panicking::", "std::sys::", "std::process::", "std::alloc::", "alloc::"];
    let exact = ["abort", "rust_panic", "__rust_start_panic", "__rust_foreign_exception", "rust_begin_unwind"];
    within.iter().any(|prefix| name.starts_with(prefix)) || exact.contains(&name) || name.contains("panic_handler")
}
