//! The engine of a process: compiles guests and measures their time.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::artifact::{self, Compiled};
use crate::cache::{CodeCache, Key, hexadecimal};
use crate::compiler::Compiler;
use crate::core_calls;
use crate::error::WasmError;
use crate::guest::{Form as GuestForm, Guest};
use crate::imports::{link_component, link_module};
use crate::log::Logs;
use crate::ticker::Ticker;
use crate::types::with_large_stack;
use crate::{config, exports};

/// WebAssembly for a process: one is enough, and its clones are it.
#[derive(Clone)]
pub struct Host {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) engine: Engine,
    pub(crate) ticker: Ticker,
    pub(crate) logs: Logs,
    cache: Option<CodeCache>,
    /// The process that compiles; nothing: this one.
    compiler: Option<Compiler>,
    /// Held while a module is compiled: each alone takes all processors, and memory by its size.
    compiling: Mutex<()>,
}

/// The largest module that is loaded, in bytes.
pub const MAX_MODULE_BYTES: u64 = 256 * 1024 * 1024;

impl Host {
    /// Sets the engine up. Compiled code is kept in `cache_dir`, by digest of the module and version and settings of the
    /// engine, up to 1 GiB of it: what was used longest ago is removed. What is found there is run, so a directory that belongs to
    /// another user or that others may write to is not used, and an entry that is not what was written is compiled anew. Without
    /// a directory, or with one that cannot be used, nothing is kept.
    ///
    /// Modules are compiled in this process, which a hostile one may exhaust: see [`Host::with_compiler`].
    pub fn new(cache_dir: Option<&Path>) -> Result<Host, WasmError> {
        Host::open(cache_dir, None)
    }

    /// As [`Host::new`], and modules are compiled in a process of their own, within limits.
    pub fn with_compiler(cache_dir: Option<&Path>, compiler: Compiler) -> Result<Host, WasmError> {
        Host::open(cache_dir, Some(compiler))
    }

    fn open(cache_dir: Option<&Path>, compiler: Option<Compiler>) -> Result<Host, WasmError> {
        let engine = config::engine()?;
        let ticker = Ticker::start(&engine).map_err(|error| WasmError::Engine(format!("no thread: {error}")))?;
        Ok(Host {
            inner: Arc::new(Inner {
                engine,
                ticker,
                logs: Logs::default(),
                cache: cache_dir.and_then(CodeCache::open),
                compiler,
                compiling: Mutex::new(()),
            }),
        })
    }

    /// Compiles a component, a core module that carries component types, or a plain core module with the transform ABI.
    /// Checks what it imports and exports, and runs nothing of it. Waits for other modules that are being compiled.
    pub fn load(&self, module: &[u8]) -> Result<Guest, WasmError> {
        self.load_unbounded(module).map_err(WasmError::bounded)
    }

    fn load_unbounded(&self, module: &[u8]) -> Result<Guest, WasmError> {
        if module.len() as u64 > MAX_MODULE_BYTES {
            let message = format!("it has more than the {MAX_MODULE_BYTES} bytes that are allowed");
            return Err(WasmError::Invalid(message));
        }
        let form = with_large_stack(|| self.form(&self.compiled(module)?));
        let form = form.unwrap_or_else(|error| Err(WasmError::Invalid(error)))?;
        let digest = hexadecimal(&Sha256::digest(module));
        Ok(Guest::new(Arc::clone(&self.inner), form, digest))
    }

    /// What a module was compiled to before, or is compiled to now.
    fn compiled(&self, module: &[u8]) -> Result<Compiled, WasmError> {
        let Inner { engine, cache, compiler, compiling, .. } = &*self.inner;
        let cache = cache.as_ref().map(|cache| (cache, Key::new(engine, module)));
        let kept = || cache.as_ref().and_then(|(cache, key)| cache.get(key, |artifact| artifact.load(engine)));
        if let Some(compiled) = kept() {
            return Ok(compiled);
        }
        let alone = compiling.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever was waited for may have compiled the same.
        if let Some(compiled) = kept() {
            return Ok(compiled);
        }
        let artifact = match compiler {
            Some(compiler) => compiler.compile(module)?,
            None => artifact::compile(engine, module)?,
        };
        let compiled = artifact.load(engine).map_err(|error| WasmError::Engine(format!("{error:#}")))?;
        if let Some((cache, key)) = &cache {
            cache.put(key, &artifact);
        }
        drop(alone);
        Ok(compiled)
    }

    /// A guest's form, linked to what it imports, if it exports what it should.
    fn form(&self, compiled: &Compiled) -> Result<GuestForm, WasmError> {
        let engine = &self.inner.engine;
        match compiled {
            Compiled::Component(component) => component_form(engine, component),
            Compiled::Core(module) => {
                core_calls::check(module)?;
                Ok(GuestForm::Core(link_module(engine, module)?))
            }
        }
    }
}

fn component_form(engine: &Engine, component: &Component) -> Result<GuestForm, WasmError> {
    // What it imports comes first: a module for another host is told apart by it best.
    let pre = link_component(engine, component)?;
    Ok(GuestForm::Component { exports: exports::find(engine, component)?, pre })
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").finish_non_exhaustive()
    }
}
