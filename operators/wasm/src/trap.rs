//! Narrows what wasmtime says about a failed call down to one of ours, in words of whoever wrote the guest.

use wasmtime::{Trap, WasmBacktrace};

use crate::error::{CallError, WasmError};
use crate::guest::Limits;
use crate::log::{cut, one_line};
use crate::state::State;

/// How many of the guest's functions are named.
const MAX_FRAMES: usize = 4;
/// The longest message.
pub(crate) const MAX_MESSAGE_BYTES: usize = 4 * 1024;
/// How much of a name is looked at: one of a module may be as long as it is.
const MAX_MANGLED_BYTES: usize = 1024;
/// The longest name of a function.
const MAX_NAME_BYTES: usize = 120;

/// Why a call gave nothing: the engine ended it, or we found something wrong with what it gave.
pub(crate) enum Fault {
    Engine(wasmtime::Error),
    Call(CallError),
    /// It came back, but later than it may.
    Late,
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
            Fault::Late => CallError::Deadline { deadline: limits.deadline },
        }
        .bounded()
    }
}

impl CallError {
    /// The same, fit to be read: what a guest says may be as large as its memory, and may hold anything.
    fn bounded(mut self) -> CallError {
        if let CallError::Refused { message, .. } | CallError::Trapped(message) | CallError::Output(message) = &mut self
        {
            *message = readable(message);
        }
        self
    }
}

impl WasmError {
    /// The same, fit to be read: the names in a module may be as long as it is, and may hold anything.
    pub(crate) fn bounded(mut self) -> WasmError {
        if let WasmError::NotWasm(message)
        | WasmError::Invalid(message)
        | WasmError::Import(message)
        | WasmError::Export(message)
        | WasmError::Start(message) = &mut self
        {
            *message = readable(message);
        }
        self
    }
}

/// What a guest says, or what is said of it with names of its own, as it can be put into an error: one line without control
/// characters, at most 4 KiB of it, and `...` if there was more. All errors of this crate are so; what lies in packed results is
/// as the guest wrote it.
pub fn readable(message: &str) -> String {
    let message = message.trim_end();
    // A byte more than is kept shows that it was longer; what is cut off need not be read.
    let shown = one_line(cut(message, MAX_MESSAGE_BYTES + 1));
    if shown.len() <= MAX_MESSAGE_BYTES && message.len() <= MAX_MESSAGE_BYTES {
        return shown.into_owned();
    }
    format!("{}...", cut(&shown, MAX_MESSAGE_BYTES))
}

fn narrow(error: &wasmtime::Error, state: &State, limits: &Limits) -> CallError {
    let place = error.downcast_ref::<WasmBacktrace>().map(place).unwrap_or_default();
    let Some(trap) = error.downcast_ref::<Trap>() else {
        if error.downcast_ref::<WasmBacktrace>().is_some() {
            // A function of ours ended the call: `abort`, or one that guests do not get.
            return CallError::Trapped(format!("{}{place}{}", error.root_cause(), refused(state)));
        }
        let text = format!("{error:#}");
        // What wasmtime says when a result exceeds what it was told to copy at most; its type has no name.
        if text.contains("fuel allocated for hostcalls") {
            return CallError::Output("it gave more than its memory can hold".into());
        }
        return CallError::Output(format!("{text}{}", refused(state)));
    };
    let what = match trap {
        Trap::Interrupt => return CallError::Deadline { deadline: limits.deadline },
        Trap::StackOverflow => return CallError::Stack,
        // What runtimes do that cannot go on without the memory.
        Trap::UnreachableCodeReached if state.bounds.refused_bytes.is_some() => {
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
        other => return CallError::Trapped(format!("{other}{place}{}{}", refused(state), said(state))),
    };
    CallError::Trapped(format!("{what}{place}{}{}", refused(state), said(state)))
}

/// A guest that got no more memory may have failed of it, or of something else.
fn refused(state: &State) -> &'static str {
    if state.bounds.refused_bytes.is_some() { "; it was refused memory before (raise `memory:`)" } else { "" }
}

fn said(state: &State) -> String {
    state.log.last_words().map(|words| format!("; it said: {words}")).unwrap_or_default()
}

/// `, in score < on_batch`: where it happened, innermost first. Nothing if the module has no names.
fn place(backtrace: &WasmBacktrace) -> String {
    let names = backtrace.frames().iter().filter_map(|frame| frame.func_name());
    let names = names.map(|name| format!("{:#}", rustc_demangle::demangle(cut(name, MAX_MANGLED_BYTES))));
    let names: Vec<String> = names
        .filter(|name| !is_noise(name))
        .take(MAX_FRAMES)
        .map(|name| format!("`{}`", cut(&name, MAX_NAME_BYTES)))
        .collect();
    if names.is_empty() { String::new() } else { format!(", in {}", names.join(" < ")) }
}

/// What languages put between a mistake and the trap, and around the exported function.
fn is_noise(name: &str) -> bool {
    let libraries = ["__rustc::", "alloc::", "core::", "std::", "<alloc::", "<core::", "<std::"];
    let panics = ["abort", "rust_panic", "__rust_start_panic", "rust_begin_unwind"];
    libraries.iter().any(|prefix| name.starts_with(prefix)) || panics.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_guests_say_is_one_line_and_no_more_than_anyone_reads() {
        let check = |message: &str, expected: &str| assert_eq!(readable(message), expected);
        check("no such key", "no such key");
        check("two\r\nlines\nand\tmore\n", "two lines and\tmore");
        check("\u{1b}[2Jred", "\u{fffd}[2Jred");
        check("abc\u{202e}fdp\u{2066}", "abc\u{fffd}fdp\u{fffd}");
        let long = "a".repeat(MAX_MESSAGE_BYTES);
        check(&long, &long);
        check(&format!("{long}b"), &format!("{long}..."));
        let cut_character = format!("{}é", &long[1..]);
        check(&cut_character, &format!("{}...", &long[1..]));
        let growing = readable(&"\u{1}".repeat(10 * MAX_MESSAGE_BYTES));
        assert!(growing.len() <= MAX_MESSAGE_BYTES + 3, "{} bytes", growing.len());
    }

    #[test]
    fn functions_of_libraries_are_not_to_blame() {
        let check = |name: &str, expected: bool| {
            let name = format!("{:#}", rustc_demangle::demangle(name));
            assert_eq!(is_noise(&name), expected, "{name}");
        };
        check("_ZN4core9panicking9panic_fmt17h7b5a7b5b5f5c1f5aE", true);
        check("_RNvCs5QKde7ScR4_7___rustc12___rust_abort", true);
        check("rust_panic", true);
        check("_ZN5score9transform17h0123456789abcdefE", false);
        check("~lib/rt/itcms/__new", false);
        check("on_batch", false);
    }
}
