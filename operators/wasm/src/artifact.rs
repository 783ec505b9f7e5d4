//! Machine code of a guest: what compiling gives, what the cache keeps, and what instances are made of.

use wasmtime::component::Component;
use wasmtime::{Engine, Module, Precompiled};

use crate::bounds;
use crate::error::WasmError;
use crate::sniff::{self, Form};

/// Code that this process's user may run: an [`Engine`] of these settings gave it. Only [`compile`], the process that a
/// [`crate::Compiler`] starts, and the cache, of what those two gave, make it.
pub(crate) struct Artifact(Vec<u8>);

/// What an artifact is the code of.
pub(crate) enum Compiled {
    Component(Component),
    Core(Module),
}

impl Artifact {
    /// `code` must be byte for byte what `compile` gave, in this or another process of this user.
    pub(crate) fn trusted(code: Vec<u8>) -> Artifact {
        Artifact(code)
    }

    pub(crate) fn code(&self) -> &[u8] {
        &self.0
    }

    /// The same, ready to be run. Fails for code of another version or of other settings.
    #[allow(unsafe_code)]
    pub(crate) fn load(&self, engine: &Engine) -> wasmtime::Result<Compiled> {
        match Engine::detect_precompiled(&self.0) {
            Some(Precompiled::Component) => {
                // SAFETY: `deserialize` wants bytes that an engine gave, unchanged. Artifacts are those: see `Artifact`. That the
                // engine is of the same version and settings is checked by `deserialize`, as is that it is a component.
                let component = unsafe { Component::deserialize(engine, &self.0)? };
                Ok(Compiled::Component(component))
            }
            Some(Precompiled::Module) => {
                // SAFETY: as for components, above.
                let module = unsafe { Module::deserialize(engine, &self.0)? };
                Ok(Compiled::Core(module))
            }
            None => Err(wasmtime::format_err!("it is no compiled code")),
        }
    }
}

/// Compiles a component, a core module that carries component types, or another core module, if it is within bounds.
pub(crate) fn compile(engine: &Engine, module: &[u8]) -> Result<Artifact, WasmError> {
    let form = sniff::form(module)?;
    let code = match &form {
        Form::Componentised(component) => {
            bounds::check(component).map_err(WasmError::Invalid)?;
            engine.precompile_component(component)
        }
        Form::Component => {
            bounds::check(module).map_err(WasmError::Invalid)?;
            engine.precompile_component(module)
        }
        Form::Core => {
            bounds::check(module).map_err(WasmError::Invalid)?;
            engine.precompile_module(module)
        }
    };
    code.map(Artifact).map_err(|error| WasmError::Invalid(format!("{error:#}")))
}
