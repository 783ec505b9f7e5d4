//! A module that is compiled and checked, of which instances can be made.

use std::sync::Arc;
use std::time::Duration;

use wasmtime::component::ComponentExportIndex;
use wasmtime::component::InstancePre as ComponentPre;

use crate::error::WasmError;
use crate::exports::Exports;
use crate::host::Inner as HostInner;
use crate::instance::Instance;
use crate::log::GuestLog;
use crate::state::State;

/// What a module is, by what it exports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// It takes batches of rows.
    Operator {
        /// Whether it remembers something from batch to batch.
        stateful: bool,
        /// Whether it waits for event time.
        watermarks: bool,
    },
    /// It takes records.
    Transform {
        /// Whether it takes many at a call. If not, the host calls it for each; callers see no difference.
        packed: bool,
    },
    /// It has functions for SQL.
    Function,
}

/// What an instance may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// All its memories together.
    pub memory_bytes: u64,
    /// How long a call into it may take, making the instance included. Noticed at the first tick of a clock of 2 ms after it, or
    /// when what the host does for the guest is done: that is bounded, too.
    pub deadline: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { memory_bytes: 128 * 1024 * 1024, deadline: Duration::from_secs(1) }
    }
}

/// A module that is compiled and checked. Cheap to clone.
#[derive(Clone)]
pub struct Guest {
    inner: Arc<Inner>,
}

struct Inner {
    host: Arc<HostInner>,
    form: Form,
    digest: String,
}

pub(crate) enum Form {
    Component { pre: ComponentPre<State>, exports: Exports<ComponentExportIndex> },
    Core(wasmtime::InstancePre<State>),
}

impl Guest {
    pub(crate) fn new(host: Arc<HostInner>, form: Form, digest: String) -> Guest {
        Guest { inner: Arc::new(Inner { host, form, digest }) }
    }

    /// SHA-256 of the bytes it was loaded from, in hexadecimal.
    pub fn digest(&self) -> &str {
        &self.inner.digest
    }

    /// What it is.
    pub fn role(&self) -> Role {
        match &self.inner.form {
            Form::Component { exports, .. } => exports.role(),
            Form::Core(_) => Role::Transform { packed: true },
        }
    }

    /// What it imports: the interfaces of a component, the functions of a core module.
    pub fn imports(&self) -> Vec<String> {
        match &self.inner.form {
            Form::Component { pre, .. } => {
                let component = pre.component();
                let ty = component.component_type();
                ty.imports(component.engine()).map(|(name, _)| name.to_owned()).collect()
            }
            Form::Core(pre) => {
                pre.module().imports().map(|import| format!("{}.{}", import.module(), import.name())).collect()
            }
        }
    }

    /// Makes an instance, with a memory of its own. Fails if its start function does, or if it needs more than the limits.
    pub fn instantiate(&self, limits: &Limits, log: Arc<dyn GuestLog>) -> Result<Instance, WasmError> {
        Instance::new(&self.inner.host, &self.inner.form, *limits, log)
    }
}

impl std::fmt::Debug for Guest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guest").field("digest", &self.inner.digest).field("role", &self.role()).finish_non_exhaustive()
    }
}
