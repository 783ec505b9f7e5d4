//! The engine of a process: compiles guests and measures their time.

use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use wasmtime::component::Component;
use wasmtime::{Engine, Module};

use crate::core_calls;
use crate::error::WasmError;
use crate::guest::{Form as GuestForm, Guest};
use crate::imports::{link_component, link_module};
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
}

impl Host {
    /// Sets the engine up. Compiled code is kept in `cache_dir`, by digest of the module and version and settings of the
    /// engine; old entries are removed by and by. Without a directory, or with one that cannot be used, nothing is kept. What is
    /// found there is run: nobody else must be able to write to it.
    pub fn new(cache_dir: Option<&Path>) -> Result<Host, WasmError> {
        let engine = config::engine(cache_dir)?;
        let ticker = Ticker::start(&engine).map_err(|error| WasmError::Engine(format!("no thread: {error}")))?;
        Ok(Host { inner: Arc::new(Inner { engine, ticker }) })
    }

    /// Compiles a component, a core module that carries component types, or a plain core module with the transform ABI.
    /// Checks what it imports and exports, and runs nothing of it.
    pub fn load(&self, module: &[u8]) -> Result<Guest, WasmError> {
        let form = with_large_stack(|| match sniff::form(module)? {
            Form::Component => self.load_component(module),
            Form::Componentised(component) => self.load_component(&component),
            Form::Core => self.load_core(module),
        });
        let form = form.unwrap_or_else(|error| Err(WasmError::Invalid(error)))?;
        let digest = Sha256::digest(module).iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Guest::new(Arc::clone(&self.inner), form, digest))
    }

    fn load_component(&self, bytes: &[u8]) -> Result<GuestForm, WasmError> {
        let engine = &self.inner.engine;
        let component = Component::from_binary(engine, bytes).map_err(invalid)?;
        // What it imports comes first: a module for another host is told apart by it best.
        let pre = link_component(engine, &component)?;
        Ok(GuestForm::Component { exports: exports::find(engine, &component)?, pre })
    }

    fn load_core(&self, bytes: &[u8]) -> Result<GuestForm, WasmError> {
        let engine = &self.inner.engine;
        let module = Module::from_binary(engine, bytes).map_err(invalid)?;
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
