//! WebAssembly modules: read from their files, compiled and checked, each once for a pipeline.
//!
//! Compiled code is kept between runs, beside the data it is used for. Reading modules is the caller's I/O: the plan itself
//! does none, and is handed what was loaded.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Error, ErrorKind, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use logmill_pipelines::{ByteSize, DurationSpec, OperatorSpec, PipelineSpec};
use logmill_wasm::{Compiler, Guest, Host, Limits, MAX_MODULE_BYTES};
use rustix::fs::OFlags;

/// The modules that a pipeline names, loaded or not.
#[derive(Clone, Default)]
pub struct Modules {
    /// By the path that the pipeline says; why it cannot be used, if it cannot.
    loaded: BTreeMap<String, Result<Guest, String>>,
}

impl Modules {
    /// Loads every module that a pipeline names. Relative paths start from `base_dir`; compiled code is kept in `cache_dir`.
    pub fn load(spec: &PipelineSpec, base_dir: &Path, cache_dir: Option<&Path>) -> Self {
        let operators = spec.operators.values().filter_map(|operator| match operator {
            OperatorSpec::Wasm(wasm) => Some(&wasm.module),
            OperatorSpec::Sql(_) => None,
        });
        let mut loaded = BTreeMap::new();
        for path in operators.chain(spec.functions.values().map(|function| &function.wasm)) {
            loaded.entry(path.clone()).or_insert_with(|| load(&base_dir.join(path), path, cache_dir));
        }
        Self { loaded }
    }

    /// The module of a path, as the pipeline says it.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn get(&self, path: &str) -> Result<&Guest, String> {
        match self.loaded.get(path) {
            Some(guest) => guest.as_ref().map_err(Clone::clone),
            None => Err(format!("the module `{path}` was not loaded")),
        }
    }
}

/// Loads one module. `shown` is what messages call it.
///
/// # Errors
/// Why it cannot be used.
pub fn load(path: &Path, shown: &str, cache_dir: Option<&Path>) -> Result<Guest, String> {
    compile(&read(path)?, shown, cache_dir)
}

/// The bytes of a module's file.
///
/// # Errors
/// Why it cannot be read.
pub fn read(path: &Path) -> Result<Vec<u8>, String> {
    at_most(path, MAX_MODULE_BYTES).map_err(|error| match error.kind() {
        ErrorKind::NotFound => format!("there is no file `{}`", path.display()),
        _ => format!("could not read `{}`: {error}", path.display()),
    })
}

/// A module of these bytes. `shown` is what messages call it.
///
/// # Errors
/// Why it cannot be used.
pub fn compile(bytes: &[u8], shown: &str, cache_dir: Option<&Path>) -> Result<Guest, String> {
    host(cache_dir)?.load(bytes).map_err(|error| format!("`{shown}`: {error}"))
}

/// The bytes of a file, at most one more than allowed. Only regular files are read: opening a pipe waits for its other end, and
/// a device may have no end.
fn at_most(path: &Path, most: u64) -> std::io::Result<Vec<u8>> {
    check_kind(&std::fs::metadata(path)?)?;
    // Should the path name a pipe by now, nobody waits for it.
    let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(nonblocking).open(path)?;
    check_kind(&file.metadata()?)?;
    read_at_most(file, most)
}

fn check_kind(found: &std::fs::Metadata) -> std::io::Result<()> {
    let kind = found.file_type();
    let what = match kind {
        _ if kind.is_file() => return Ok(()),
        _ if kind.is_dir() => "a folder",
        _ if kind.is_fifo() => "a pipe",
        _ if kind.is_socket() => "a socket",
        _ => "a device",
    };
    Err(Error::new(ErrorKind::InvalidInput, format!("it is {what}, and modules are read from files")))
}

fn read_at_most(file: File, most: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The one host of this process. Where it keeps compiled code is what its first user says.
///
/// # Errors
/// WebAssembly cannot be run on this machine.
pub fn host(cache_dir: Option<&Path>) -> Result<Host, String> {
    static HOST: OnceLock<Result<Host, String>> = OnceLock::new();
    let open = || match COMPILER.get() {
        Some(compiler) => Host::with_compiler(cache_dir, compiler.clone()),
        None => Host::new(cache_dir),
    };
    HOST.get_or_init(|| open().map_err(|error| error.to_string())).clone()
}

static COMPILER: OnceLock<Compiler> = OnceLock::new();

/// From now on modules are compiled by processes of the program that is running, which has the subcommand `command` for it.
pub fn compile_by(command: &str) {
    // The file that is running, also after another version took its place.
    let running = Path::new("/proc/self/exe");
    let program = match running.exists() {
        true => Some(running.to_owned()),
        false => std::env::current_exe().ok(),
    };
    if let Some(program) = program {
        COMPILER.get_or_init(|| Compiler { program, arguments: vec![command.to_owned()] });
    }
}

/// Where compiled code is kept: in the data dir if there is one, else among the user's caches.
pub fn cache_dir(data_dir: &Path) -> Option<PathBuf> {
    if data_dir.is_dir() {
        return Some(cache_of(data_dir));
    }
    user_cache_dir()
}

/// Where compiled code is kept where there is no data dir.
pub fn user_cache_dir() -> Option<PathBuf> {
    let named = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let caches = named("XDG_CACHE_HOME").or_else(|| Some(named("HOME")?.join(".cache")));
    Some(caches?.join("logmill").join("wasm"))
}

/// Where compiled code is kept in a data dir.
pub fn cache_of(data_dir: &Path) -> PathBuf {
    data_dir.join("cache").join("wasm")
}

/// What an instance may use: what the pipeline says, or the defaults.
pub fn limits(memory: Option<ByteSize>, deadline: Option<DurationSpec>) -> Limits {
    let default = Limits::default();
    Limits {
        memory_bytes: memory.map_or(default.memory_bytes, |memory| memory.bytes()),
        deadline: deadline.map_or(default.deadline, |deadline| -> Duration { deadline.0 }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn nothing_but_files_is_read_and_nobody_waits() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe.wasm");
        let mode = rustix::fs::Mode::RUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        for (path, expected) in [
            (pipe.as_path(), "it is a pipe"),
            (dir.path(), "it is a folder"),
            (Path::new("/dev/zero"), "it is a device"),
        ] {
            let message = read(path).unwrap_err();
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn of_a_file_that_is_too_large_no_more_is_read_than_shows_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.wasm");
        std::fs::write(&path, b"0123456789").unwrap();
        for (most, read_bytes) in [(0, 1), (4, 5), (9, 10), (10, 10), (u64::MAX, 10)] {
            assert_eq!(at_most(&path, most).unwrap().len(), read_bytes, "{most} allowed");
        }
    }
}
