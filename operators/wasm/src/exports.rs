//! What a component exports for us: which interfaces, of which version, and that their functions have the right types.

use std::collections::BTreeMap;

use wasmtime::Engine;
use wasmtime::component::types::{Component as ComponentTypes, ComponentInstance, ComponentItem};
use wasmtime::component::{
    Component, ComponentExportIndex, ComponentNamedList, ComponentType, Func, Instance, Lift, Lower,
};

use crate::bindings::{Emitted, Failure, FunctionSignature, Message, OutputRows, RecordPort, Signature};
use crate::error::WasmError;
use crate::guest::Role;
use crate::imports::{Interface, OUR_VERSION};

/// The parameters and results of each function. Results are lists of bytes: a copy out of the guest's memory, which the
/// guest may free and reuse as soon as its function has returned.
pub(crate) type SignatureParams<'a> = (&'a [u8], &'a str);
pub(crate) type SignatureResult = Result<Signature, String>;
pub(crate) type RowsParams<'a> = (&'a [u8],);
pub(crate) type RowsResult = Result<Vec<OutputRows>, Failure>;
pub(crate) type WatermarkParams = (i64,);
pub(crate) type SnapshotResult = Result<Vec<u8>, String>;
pub(crate) type RestoreParams<'a> = (u32, &'a [u8]);
pub(crate) type RestoreResult = Result<(), String>;
pub(crate) type OutputsParams<'a> = (&'a str,);
pub(crate) type OutputsResult = Result<Vec<RecordPort>, String>;
pub(crate) type RecordParams<'a> = (Message<'a>,);
pub(crate) type RecordResult = Result<Vec<Emitted>, String>;
pub(crate) type PackedParams<'a> = (&'a [u8],);
pub(crate) type PackedResult = Result<Vec<u8>, String>;
pub(crate) type FunctionsParams<'a> = (&'a str,);
pub(crate) type FunctionsResult = Result<Vec<FunctionSignature>, String>;
pub(crate) type InvokeParams<'a> = (&'a str, &'a [u8]);
pub(crate) type InvokeResult = Result<Vec<u8>, Failure>;

/// The functions of a component, `F` being an index into a component or a function of an instance.
pub(crate) enum Exports<F> {
    Operator { signature: F, on_batch: F, on_watermark: Option<F>, state: Option<StateExports<F>> },
    Record { outputs: F, transform: F },
    Packed { outputs: F, transform: F },
    Function { functions: F, invoke: F },
}

pub(crate) struct StateExports<F> {
    pub(crate) version: F,
    pub(crate) snapshot: F,
    pub(crate) restore: F,
}

impl<F> Exports<F> {
    pub(crate) fn role(&self) -> Role {
        match self {
            Exports::Operator { on_watermark, state, .. } => {
                Role::Operator { stateful: state.is_some(), watermarks: on_watermark.is_some() }
            }
            Exports::Record { .. } => Role::Transform { packed: false },
            Exports::Packed { .. } => Role::Transform { packed: true },
            Exports::Function { .. } => Role::Function,
        }
    }

    /// The same functions, each made something else.
    fn try_map<G>(&self, mut map: impl FnMut(&F) -> Option<G>) -> Option<Exports<G>> {
        Some(match self {
            Exports::Operator { signature, on_batch, on_watermark, state } => Exports::Operator {
                signature: map(signature)?,
                on_batch: map(on_batch)?,
                on_watermark: match on_watermark {
                    Some(on_watermark) => Some(map(on_watermark)?),
                    None => None,
                },
                state: match state {
                    Some(StateExports { version, snapshot, restore }) => {
                        Some(StateExports { version: map(version)?, snapshot: map(snapshot)?, restore: map(restore)? })
                    }
                    None => None,
                },
            },
            Exports::Record { outputs, transform } => {
                Exports::Record { outputs: map(outputs)?, transform: map(transform)? }
            }
            Exports::Packed { outputs, transform } => {
                Exports::Packed { outputs: map(outputs)?, transform: map(transform)? }
            }
            Exports::Function { functions, invoke } => {
                Exports::Function { functions: map(functions)?, invoke: map(invoke)? }
            }
        })
    }
}

impl Exports<ComponentExportIndex> {
    /// The functions of an instance of the component.
    pub(crate) fn of<T: 'static>(&self, instance: &Instance, store: &mut wasmtime::Store<T>) -> Option<Exports<Func>> {
        self.try_map(|index| instance.get_func(&mut *store, index))
    }
}

/// Our interfaces that a component exports, by package and name.
struct Found<'a> {
    engine: &'a Engine,
    component: &'a Component,
    types: &'a ComponentTypes,
    interfaces: BTreeMap<(&'a str, &'a str), (&'a str, ComponentInstance)>,
}

/// Finds what a component exports for us.
pub(crate) fn find(engine: &Engine, component: &Component) -> Result<Exports<ComponentExportIndex>, WasmError> {
    let types = component.component_type();
    let mut found = Found { engine, component, types: &types, interfaces: BTreeMap::new() };
    let mut others = Vec::new();
    for (name, export) in types.exports(engine) {
        match (Interface::parse(name), export.ty) {
            (Some(interface), ComponentItem::ComponentInstance(instance))
                if interface.package.starts_with("logmill:") =>
            {
                check_version(name, &interface)?;
                let other = found.interfaces.insert((interface.package, interface.name), (name, instance));
                if let Some((other, _)) = other {
                    return Err(WasmError::Export(format!("it exports both `{other}` and `{name}`; one is called")));
                }
            }
            _ => others.push(format!("`{name}`")),
        }
    }
    let batch = found.interfaces.contains_key(&("logmill:operator", "batch"));
    let describe = found.interfaces.contains_key(&("logmill:transform", "describe"));
    let scalar = found.interfaces.contains_key(&("logmill:function", "scalar"));
    match (batch, describe, scalar) {
        (true, false, false) => found.operator(),
        (false, true, false) => found.transform(),
        (false, false, true) => found.function(),
        (false, false, false) => Err(WasmError::Export(nothing_of_ours(&found, &others))),
        _ => Err(WasmError::Export(
            "it is more than one of operator, transform and function; make a module of each".into(),
        )),
    }
}

fn check_version(name: &str, interface: &Interface<'_>) -> Result<(), WasmError> {
    let (major, minor) = OUR_VERSION;
    match interface.version {
        Some((found_major, found_minor, _)) if (found_major, found_minor) == OUR_VERSION => Ok(()),
        Some(_) => Err(WasmError::Export(format!("it exports `{name}`, this engine knows version {major}.{minor}"))),
        None => {
            Err(WasmError::Export(format!("it exports `{name}` without a version, `@{major}.{minor}.0` is missing")))
        }
    }
}

fn nothing_of_ours(found: &Found<'_>, others: &[String]) -> String {
    let (major, minor) = OUR_VERSION;
    let version = format!("@{major}.{minor}.0");
    let ours = found.interfaces.values().map(|(name, _)| format!("`{name}`"));
    let all: Vec<String> = ours.chain(others.iter().cloned()).collect();
    let exports = if all.is_empty() { "nothing".to_owned() } else { all.join(", ") };
    format!(
        "it exports {exports}; an operator exports `logmill:operator/batch{version}`, a transform \
         `logmill:transform/describe{version}` with `record` or `packed`, functions `logmill:function/scalar{version}`"
    )
}

impl Found<'_> {
    fn operator(&self) -> Result<Exports<ComponentExportIndex>, WasmError> {
        let (operator, batch) = ("logmill:operator", "batch");
        let watermark = self.interfaces.contains_key(&(operator, "watermark"));
        let state = self.interfaces.contains_key(&(operator, "state"));
        Ok(Exports::Operator {
            signature: self.function_of::<SignatureParams<'_>, SignatureResult>((operator, batch), "signature")?,
            on_batch: self.function_of::<RowsParams<'_>, RowsResult>((operator, batch), "on-batch")?,
            on_watermark: match watermark {
                true => Some(self.function_of::<WatermarkParams, RowsResult>((operator, "watermark"), "on-watermark")?),
                false => None,
            },
            state: match state {
                true => Some(StateExports {
                    version: self.function_of::<(), u32>((operator, "state"), "state-version")?,
                    snapshot: self.function_of::<(), SnapshotResult>((operator, "state"), "snapshot")?,
                    restore: self.function_of::<RestoreParams<'_>, RestoreResult>((operator, "state"), "restore")?,
                }),
                false => None,
            },
        })
    }

    fn transform(&self) -> Result<Exports<ComponentExportIndex>, WasmError> {
        let transform = "logmill:transform";
        let outputs = self.function_of::<OutputsParams<'_>, OutputsResult>((transform, "describe"), "outputs")?;
        if self.interfaces.contains_key(&(transform, "packed")) {
            let packed =
                self.function_of::<PackedParams<'_>, PackedResult>((transform, "packed"), "transform-packed")?;
            return Ok(Exports::Packed { outputs, transform: packed });
        }
        if !self.interfaces.contains_key(&(transform, "record")) {
            let what = "it exports `logmill:transform/describe`, and neither `record` nor `packed` beside it";
            return Err(WasmError::Export(what.into()));
        }
        let record = self.function_of::<RecordParams<'_>, RecordResult>((transform, "record"), "transform")?;
        Ok(Exports::Record { outputs, transform: record })
    }

    fn function(&self) -> Result<Exports<ComponentExportIndex>, WasmError> {
        let scalar = ("logmill:function", "scalar");
        Ok(Exports::Function {
            functions: self.function_of::<FunctionsParams<'_>, FunctionsResult>(scalar, "functions")?,
            invoke: self.function_of::<InvokeParams<'_>, InvokeResult>(scalar, "invoke")?,
        })
    }

    /// A function of an interface; an error if it is missing or has other types.
    fn function_of<P, R>(&self, interface: (&str, &str), function: &str) -> Result<ComponentExportIndex, WasmError>
    where
        P: ComponentNamedList + Lower,
        R: ComponentType + Lift,
    {
        let missing = || WasmError::Export(format!("`{}/{}` has no function `{function}`", interface.0, interface.1));
        let (name, instance) = self.interfaces.get(&interface).ok_or_else(missing)?;
        let Some(ComponentItem::ComponentFunc(ty)) = instance.get_export(self.engine, function).map(|found| found.ty)
        else {
            return Err(missing());
        };
        ty.typecheck::<P, (R,)>(&self.types.instance_type()).map_err(|error| {
            WasmError::Export(format!("`{function}` of `{name}` has other types than it should: {error:#}"))
        })?;
        let parent = self.component.get_export_index(None, name);
        parent.and_then(|parent| self.component.get_export_index(Some(&parent), function)).ok_or_else(missing)
    }
}
