//! The engine of a process: compiles guests and measures their time.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest, Sha256};
use wasmtime::component::Component;
use wasmtime::{Engine, Module};

use crate::cache::{CodeCache, Compiled, Key, hexadecimal};
use crate::core_calls;
use crate::error::WasmError;
use crate::guest::{Form as GuestForm, Guest};
use crate::imports::{link_component, link_module};
use crate::log::Logs;
use crate::sniff::{self, Form};
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
    pub fn new(cache_dir: Option<&Path>) -> Result<Host, WasmError> {
        let engine = config::engine()?;
        let ticker = Ticker::start(&engine).map_err(|error| WasmError::Engine(format!("no thread: {error}")))?;
        Ok(Host {
            inner: Arc::new(Inner {
                engine,
                ticker,
                logs: Logs::default(),
                cache: cache_dir.and_then(CodeCache::open),
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
        let form = with_large_stack(|| match sniff::form(module)? {
            Form::Component => self.load_component(module),
            Form::Componentised(component) => self.load_component(&component),
            Form::Core => self.load_core(module),
        });
        let form = form.unwrap_or_else(|error| Err(WasmError::Invalid(error)))?;
        let digest = hexadecimal(&Sha256::digest(module));
        Ok(Guest::new(Arc::clone(&self.inner), form, digest))
    }

    /// What a module was compiled to before, or is compiled to now.
    fn compiled<C: Compiled>(
        &self,
        bytes: &[u8],
        compile: fn(&Engine, &[u8]) -> wasmtime::Result<C>,
    ) -> Result<C, WasmError> {
        let Inner { engine, cache, compiling, .. } = &*self.inner;
        let cache = cache.as_ref().map(|cache| (cache, Key::new(engine, bytes)));
        let kept = || cache.as_ref().and_then(|(cache, key)| cache.get(engine, key));
        if let Some(compiled) = kept() {
            return Ok(compiled);
        }
        let alone = compiling.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever was waited for may have compiled the same.
        if let Some(compiled) = kept() {
            return Ok(compiled);
        }
        let compiled = compile(engine, bytes).map_err(invalid)?;
        if let Some((cache, key)) = &cache {
            cache.put(key, &compiled);
        }
        drop(alone);
        Ok(compiled)
    }

    fn load_component(&self, bytes: &[u8]) -> Result<GuestForm, WasmError> {
        let engine = &self.inner.engine;
        let component = self.compiled(bytes, Component::from_binary)?;
        // What it imports comes first: a module for another host is told apart by it best.
        let pre = link_component(engine, &component)?;
        Ok(GuestForm::Component { exports: exports::find(engine, &component)?, pre })
    }

    fn load_core(&self, bytes: &[u8]) -> Result<GuestForm, WasmError> {
        let engine = &self.inner.engine;
        let module = self.compiled(bytes, Module::from_binary)?;
        core_calls::check(&module)?;
        Ok(GuestForm::Core(link_module(engine, &module)?))
    }
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").finish_non_exhaustive()
    }
}

fn invalid(error: wasmtime::Error) -> WasmError {
    WasmError::Invalid(format!("{error:#}"))
}
