//! Compiles modules in a child process: a module that exhausts memory, time or the stack ends that process and nothing else.
//!
//! ```text
//!   Host::load ── module ──▶ stdin   the program, as `Compiler` says ── compile_child ── rlimits, then artifact::compile
//!              ◀─ answer ── stdout   a byte (0 code, 1 no module, 2 not valid), and the code or the text
//! ```

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, nice, setrlimit};

use crate::artifact::{self, Artifact};
use crate::config;
use crate::error::WasmError;
use crate::host::MAX_MODULE_BYTES;
use crate::types::with_large_stack;

/// Processor time for any module, and for each MiB of it.
const CPU_SECONDS: u64 = 20;
const CPU_SECONDS_A_MIB: u64 = 10;
const MOST_CPU_SECONDS: u64 = 600;
/// Memory for any module, and for each byte of it.
const MEMORY_BYTES: u64 = 1536 * 1024 * 1024;
const MEMORY_FOR_A_BYTE: u64 = 100;
const MOST_MEMORY_BYTES: u64 = 8 * 1024 * 1024 * 1024;
/// How many times its processor time the process may take on a busy machine.
const PATIENCE: u32 = 10;
/// Code for any module, and for each byte of it.
const CODE_BYTES: u64 = 16 * 1024 * 1024;
const CODE_FOR_A_BYTE: u64 = 32;
/// How much less than others the process gets of a busy machine.
const NICENESS: i32 = 10;
const CODE: u8 = 0;
const NOT_WASM: u8 = 1;
const INVALID: u8 = 2;
const BYTES_A_MIB: u64 = 1024 * 1024;

/// The program that compiles, which calls [`compile_child`] when it is run with these arguments. It must be the program that is
/// running: what it gives is run as code.
#[derive(Clone, Debug)]
pub struct Compiler {
    /// Its file.
    pub program: PathBuf,
    /// What it is run with.
    pub arguments: Vec<String>,
}

/// What compiling a module may take.
struct Bounds {
    cpu_seconds: u64,
    memory_bytes: u64,
    code_bytes: u64,
}

impl Bounds {
    fn of(module_bytes: u64) -> Bounds {
        let cpu_seconds = CPU_SECONDS + module_bytes * CPU_SECONDS_A_MIB / BYTES_A_MIB;
        Bounds {
            cpu_seconds: cpu_seconds.min(MOST_CPU_SECONDS),
            memory_bytes: (MEMORY_BYTES + module_bytes * MEMORY_FOR_A_BYTE).min(MOST_MEMORY_BYTES),
            code_bytes: CODE_BYTES + module_bytes * CODE_FOR_A_BYTE,
        }
    }
}

/// The other side of a [`Compiler`]: reads a module from `input`, compiles it within the limits that it sets this process, and
/// writes what came of it to `output`. Nothing else may go on in this process.
///
/// # Errors
/// The limits cannot be set, or one of the two ends too early.
pub fn compile_child(input: &mut dyn Read, output: &mut dyn Write) -> std::io::Result<()> {
    let mut module = Vec::new();
    input.take(MAX_MODULE_BYTES + 1).read_to_end(&mut module)?;
    let bounds = Bounds::of(module.len() as u64);
    let limit = |resource, most| setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) });
    limit(Resource::Core, 0)?;
    // The soft limit comes first, and says by its signal that it was the processor's time.
    let cpu = Rlimit { current: Some(bounds.cpu_seconds), maximum: Some(bounds.cpu_seconds + 1) };
    setrlimit(Resource::Cpu, cpu)?;
    // Not the address space, of which allocators reserve much on machines with many cores.
    limit(Resource::Data, bounds.memory_bytes)?;
    // Whether others go first is no condition.
    let _ = nice(NICENESS);
    let (kind, answer) = match compile_here(&module) {
        Ok(artifact) => (CODE, artifact.code().to_vec()),
        Err(WasmError::NotWasm(message)) => (NOT_WASM, message.into_bytes()),
        Err(WasmError::Invalid(message)) => (INVALID, message.into_bytes()),
        Err(other) => (INVALID, other.to_string().into_bytes()),
    };
    output.write_all(&[kind])?;
    output.write_all(&answer)?;
    output.flush()
}

/// Compiles in this process, which makes no instances.
fn compile_here(module: &[u8]) -> Result<Artifact, WasmError> {
    let engine = config::compiler()?;
    let compiled = with_large_stack(|| artifact::compile(&engine, module));
    compiled.unwrap_or_else(|error| Err(WasmError::Invalid(error))).map_err(WasmError::bounded)
}

impl Compiler {
    /// Compiles a module, and waits for it.
    pub(crate) fn compile(&self, module: &[u8]) -> Result<Artifact, WasmError> {
        let bounds = Bounds::of(module.len() as u64);
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().map_err(|error| no_process(&error))?;
        let (answer, status) = exchange(&mut child, module, &bounds)?;
        if !status.success() {
            return Err(ended(status, &bounds));
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match answer.split_first() {
            Some((&CODE, code)) if answer.len() as u64 <= bounds.code_bytes => Ok(Artifact::trusted(code.to_vec())),
            Some((&CODE, _)) => {
                Err(WasmError::Invalid(format!("compiled, it has more than {} bytes", bounds.code_bytes)))
            }
            Some((&NOT_WASM, message)) => Err(WasmError::NotWasm(text(message))),
            Some((&INVALID, message)) => Err(WasmError::Invalid(text(message))),
            Some(_) => {
                Err(WasmError::Engine("the process that compiles gave an answer that cannot be read".to_owned()))
            }
            None => Err(WasmError::Engine("the process that compiles gave no answer".to_owned())),
        }
    }
}

/// Hands the module over and takes the answer, in time. The process has ended then, whatever came of it.
fn exchange(child: &mut Child, module: &[u8], bounds: &Bounds) -> Result<(Vec<u8>, ExitStatus), WasmError> {
    let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(WasmError::Engine("the process that compiles has no pipes".to_owned()));
    };
    let (done, answer) = mpsc::channel();
    let answer = std::thread::scope(|scope| {
        // One that ends early does not read all of it, and says so by how it ended.
        scope.spawn(move || stdin.write_all(module));
        let most = bounds.code_bytes.saturating_add(1);
        scope.spawn(move || {
            let mut bytes = Vec::new();
            let read = stdout.take(most).read_to_end(&mut bytes);
            let _ = done.send(read.map(|_| bytes));
        });
        let patience = Duration::from_secs(bounds.cpu_seconds).saturating_mul(PATIENCE);
        let answer = answer.recv_timeout(patience);
        if answer.is_err() {
            let _ = child.kill();
        }
        answer
    });
    // Whatever it still writes finds nobody: it ends.
    let status = child.wait().map_err(|error| no_process(&error))?;
    match answer {
        Ok(Ok(bytes)) => Ok((bytes, status)),
        Ok(Err(error)) => Err(no_process(&error)),
        Err(_) => Err(too_long(bounds)),
    }
}

fn no_process(error: &std::io::Error) -> WasmError {
    WasmError::Engine(format!("there is no process to compile the module: {error}"))
}

fn too_long(bounds: &Bounds) -> WasmError {
    WasmError::Invalid(format!("it takes more than {} s of a processor to compile", bounds.cpu_seconds))
}

/// Why a process that compiles ended without an answer.
fn ended(status: ExitStatus, bounds: &Bounds) -> WasmError {
    use rustix::process::Signal;
    use std::os::unix::process::ExitStatusExt;
    let signal = status.signal();
    let is = |known: Signal| signal == Some(known.as_raw());
    if is(Signal::XCPU) {
        return too_long(bounds);
    }
    if is(Signal::KILL) {
        return WasmError::Engine(
            "the process that compiles was killed: by somebody, or for want of memory on this machine; try again"
                .to_owned(),
        );
    }
    if is(Signal::ABORT) {
        let mib = bounds.memory_bytes / BYTES_A_MIB;
        return WasmError::Invalid(format!(
            "compiling it was aborted, most likely as it takes more than {mib} MiB of memory; split it up"
        ));
    }
    WasmError::Engine(format!("the process that compiles failed ({status}); please report it with the module"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_process_that_ends_without_an_answer_says_why() {
        let cases = [
            // Over the soft limit of processor time, as the kernel ends it.
            ("ulimit -S -t 1; while :; do :; done", "s of a processor to compile"),
            ("kill -KILL $$", "was killed"),
            ("kill -ABRT $$", "most likely as it takes more than"),
            ("kill -SEGV $$", "failed (signal: 11"),
            ("exit 3", "failed (exit status: 3)"),
            ("printf text", "cannot be read"),
            ("true", "gave no answer"),
        ];
        for (script, expected) in cases {
            let compiler = Compiler { program: "sh".into(), arguments: vec!["-c".into(), script.into()] };
            let error = compiler.compile(b"a module").map(drop).unwrap_err().to_string();
            assert!(error.contains(expected), "{script}: {error}");
        }
    }
}
