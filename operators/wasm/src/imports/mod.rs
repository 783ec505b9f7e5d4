//! What guests may import, and clear words about what they may not.
//!
//! Components get `logmill:operator/host` and a virtual WASI 0.2; core modules get the few functions of their ABI. Anything
//! else is refused when a module is loaded, all of it at once and by name.

mod core;
mod names;
mod stubs;
mod wasi;

use wasmtime::component::types::{ComponentInstance, ComponentItem};
use wasmtime::component::{Component, ComponentType, InstancePre, Lift, Linker, LinkerInstance, WasmStr};
use wasmtime::{Engine, StoreContextMut};

use crate::error::WasmError;
use crate::log::{Level, cut};
use crate::state::State;

pub(crate) use self::core::link_module;
pub(crate) use self::names::Interface;

/// What a guest may log at once; the rest is cut off.
const MAX_LOG_BYTES: usize = 64 * 1024;
/// The minor version of our packages, of which every patch is accepted.
pub(crate) const OUR_VERSION: (u64, u64) = (0, 1);

// Its values are made of the guest's numbers.
#[allow(dead_code)]
#[derive(ComponentType, Lift, Clone, Copy)]
#[component(enum)]
#[repr(u8)]
enum HostLevel {
    #[component(name = "debug")]
    Debug,
    #[component(name = "info")]
    Info,
    #[component(name = "warn")]
    Warn,
    #[component(name = "error")]
    Error,
}

impl From<HostLevel> for Level {
    fn from(level: HostLevel) -> Level {
        match level {
            HostLevel::Debug => Level::Debug,
            HostLevel::Info => Level::Info,
            HostLevel::Warn => Level::Warn,
            HostLevel::Error => Level::Error,
        }
    }
}

/// Links a component to what it imports. An error names each import that it may not have.
pub(crate) fn link_component(engine: &Engine, component: &Component) -> Result<InstancePre<State>, WasmError> {
    let mut linker = Linker::<State>::new(engine);
    let mut refused = Vec::new();
    let ty = component.component_type();
    for (name, import) in ty.imports(engine) {
        let linked = match import.ty {
            ComponentItem::ComponentInstance(instance) => link_instance(engine, &mut linker, name, &instance),
            // Types that the world itself uses.
            ComponentItem::Type(_) => Ok(()),
            _ => Err(format!("`{name}`")),
        };
        refused.extend(linked.err());
    }
    if !refused.is_empty() {
        return Err(WasmError::Import(refused.join("; ")));
    }
    linker.instantiate_pre(component).map_err(|error| WasmError::Import(format!("{error:#}")))
}

fn link_instance(
    engine: &Engine,
    linker: &mut Linker<State>,
    name: &str,
    instance: &ComponentInstance,
) -> Result<(), String> {
    let Some(interface) = Interface::parse(name) else {
        return Err(format!("`{name}`"));
    };
    let mut linked = linker.instance(name).map_err(|error| format!("`{name}`: {error:#}"))?;
    let items = instance.exports(engine).map(|(item, found)| (item, found.ty));
    match (interface.package, interface.name) {
        ("logmill:operator", "host") => {
            if interface.version.map(|(major, minor, _)| (major, minor)) != Some(OUR_VERSION) {
                let (major, minor) = OUR_VERSION;
                return Err(format!("`{name}`: this engine knows version {major}.{minor} of logmill:operator"));
            }
            for (item, _) in items {
                link_host_function(&mut linked, item).map_err(|error| format!("`{name}`: `{item}`: {error}"))?;
            }
            Ok(())
        }
        // Types only.
        ("logmill:operator" | "logmill:transform", "types") => Ok(()),
        _ if interface.package.starts_with("wasi:") => {
            if let Some(hint) = wasi::refusal(&interface) {
                return Err(format!("`{name}` ({hint})"));
            }
            for (item, ty) in items {
                wasi::link(&mut linked, &interface, item, &ty)
                    .map_err(|error| format!("`{name}`: `{item}`: {error:#}"))?;
            }
            Ok(())
        }
        _ => Err(format!("`{name}`")),
    }
}

fn link_host_function(linked: &mut LinkerInstance<'_, State>, name: &str) -> Result<(), String> {
    let done = match name {
        "log" => linked.func_wrap("log", |mut context: Context<'_>, (level, message): (HostLevel, WasmStr)| {
            // All of it is checked to be a text, at the speed of reading it once; UTF-8 is not copied for that.
            let message = cut(&message.to_str(&context)?, MAX_LOG_BYTES).to_owned();
            context.data_mut().log.log(level.into(), &message);
            Ok(())
        }),
        "now" => linked.func_wrap("now", |context: Context<'_>, (): ()| Ok((context.data().moment.now_us,))),
        // A type, or something that a later version has and the linker will miss if it is a function.
        _ => Ok(()),
    };
    done.map_err(|error| format!("{error:#}"))
}

type Context<'a> = StoreContextMut<'a, State>;
