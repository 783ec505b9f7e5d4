//! Calls into plain core modules: the transform ABI of PACKED.md, which any language can speak that compiles to WebAssembly.

use serde_json::Value;
use wasmtime::{ExternType, Instance, Memory, Module, Store, TypedFunc, ValType};

use crate::bindings::{Content, TransformPort};
use crate::error::{CallError, WasmError};
use crate::state::State;
use crate::trap::{Fault, MAX_MESSAGE_BYTES};

const MEMORY: &str = "memory";
const ALLOC: &str = "logmill_alloc";
const OUTPUTS: &str = "logmill_outputs";
const TRANSFORM: &str = "logmill_transform";
/// What some languages' libraries want called before anything else.
const INITIALIZE: &str = "_initialize";
/// The longest description of outputs.
const MAX_OUTPUTS_BYTES: usize = 1024 * 1024;

/// Checks that a module exports the ABI, with the right types.
pub(crate) fn check(module: &Module) -> Result<(), WasmError> {
    let wanted = [
        (ALLOC, true, &[ValType::I32][..], ValType::I32),
        (TRANSFORM, true, &[ValType::I32, ValType::I32], ValType::I64),
        (OUTPUTS, false, &[ValType::I32, ValType::I32], ValType::I64),
    ];
    let mut wrong = Vec::new();
    match module.get_export(MEMORY) {
        Some(ExternType::Memory(_)) => {}
        Some(_) => wrong.push(format!("its `{MEMORY}` is not one")),
        None => wrong.push(format!("`{MEMORY}` is missing")),
    }
    for (name, required, params, result) in wanted {
        match module.get_export(name) {
            Some(ExternType::Func(ty)) => {
                let same = ty.params().len() == params.len()
                    && ty.params().zip(params).all(|(found, wanted)| ValType::eq(&found, wanted))
                    && ty.results().len() == 1
                    && ty.results().all(|found| ValType::eq(&found, &result));
                if !same {
                    let params: Vec<String> = params.iter().map(ToString::to_string).collect();
                    wrong
                        .push(format!("`{name}` should be a function ({}) -> {result}, it is {ty}", params.join(", ")));
                }
            }
            Some(_) => wrong.push(format!("`{name}` is not a function")),
            None if required => wrong.push(format!("`{name}` is missing")),
            None => {}
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    Err(WasmError::Export(format!(
        "it is a core module without component types, which must export the transform ABI: {}",
        wrong.join("; ")
    )))
}

/// The functions of an instance of a core module.
pub(crate) struct CoreCalls {
    memory: Memory,
    alloc: TypedFunc<i32, i32>,
    outputs: Option<TypedFunc<(i32, i32), i64>>,
    transform: TypedFunc<(i32, i32), i64>,
}

impl CoreCalls {
    /// Finds them, and lets the module's library set itself up.
    pub(crate) fn new(instance: &Instance, store: &mut Store<State>) -> Result<CoreCalls, Fault> {
        if let Ok(initialize) = instance.get_typed_func::<(), ()>(&mut *store, INITIALIZE) {
            initialize.call(&mut *store, ())?;
        }
        let memory = instance.get_memory(&mut *store, MEMORY);
        Ok(CoreCalls {
            memory: memory.ok_or_else(|| Fault::output("its memory is missing"))?,
            alloc: instance.get_typed_func(&mut *store, ALLOC)?,
            outputs: match instance.get_func(&mut *store, OUTPUTS) {
                Some(outputs) => Some(outputs.typed(&*store)?),
                None => None,
            },
            transform: instance.get_typed_func(&mut *store, TRANSFORM)?,
        })
    }

    /// The outputs of the transform; one of text if it does not say.
    pub(crate) fn outputs(&self, store: &mut Store<State>, config: &str) -> Result<Vec<TransformPort>, Fault> {
        let Some(outputs) = self.outputs.clone() else {
            return Ok(vec![TransformPort { name: "output".into(), content: Content::Text }]);
        };
        let text = self.call(store, &outputs, OUTPUTS, config.as_bytes())?;
        parse_outputs(text).map_err(|error| Fault::output(format!("what `{OUTPUTS}` gave: {error}")))
    }

    /// The packed result for packed messages, where the guest left it.
    pub(crate) fn transform<'a>(&self, store: &'a mut Store<State>, messages: &[u8]) -> Result<&'a [u8], Fault> {
        self.call(store, &self.transform, TRANSFORM, messages)
    }

    fn call<'a>(
        &self,
        store: &'a mut Store<State>,
        function: &TypedFunc<(i32, i32), i64>,
        name: &str,
        input: &[u8],
    ) -> Result<&'a [u8], Fault> {
        // Addresses and lengths are unsigned, whatever WebAssembly calls them.
        let length = u32::try_from(input.len()).map_err(|_| Fault::output("the input is larger than any memory"))?;
        let address = self.alloc.call(&mut *store, length.cast_signed())?.cast_unsigned();
        if address == 0 && store.data().bounds.refused_bytes.is_some() {
            return Err(CallError::Memory { limit_bytes: store.data().bounds.memory_bytes }.into());
        }
        let size = self.memory.data_size(&*store);
        if address == 0 || self.memory.write(&mut *store, address as usize, input).is_err() {
            let message = format!("`{ALLOC}` gave {address} for {length} bytes, its memory has {size}");
            return Err(Fault::output(message));
        }
        let result = function.call(&mut *store, (address.cast_signed(), length.cast_signed()))?.cast_unsigned();
        store.data().in_time()?;
        let (address, length) = ((result >> 32) as usize, (result & u64::from(u32::MAX)) as usize);
        let memory = self.memory.data(&*store);
        let bytes = memory.get(address..).and_then(|rest| rest.get(..length)).ok_or_else(|| {
            let size = memory.len();
            Fault::output(format!("`{name}` gave {length} bytes at {address}, its memory has {size}"))
        })?;
        match bytes.split_first() {
            Some((0, result)) => Ok(result),
            Some((1, message)) => {
                // A byte more than is kept shows that it was longer; what is cut off need not be read.
                let message = message.get(..=MAX_MESSAGE_BYTES).unwrap_or(message);
                Err(Fault::refused(String::from_utf8_lossy(message).into_owned()))
            }
            Some((other, _)) => Err(Fault::output(format!("what `{name}` gave begins with {other}, not with 0 or 1"))),
            None => Err(Fault::output(format!("`{name}` gave nothing, not even a first byte 0 for success"))),
        }
    }
}

fn parse_outputs(text: &[u8]) -> Result<Vec<TransformPort>, String> {
    // Read, a text takes dozens of times as much, and none of it counts as the guest's memory.
    if text.len() > MAX_OUTPUTS_BYTES {
        return Err(format!("a text of {} bytes, {MAX_OUTPUTS_BYTES} are allowed", text.len()));
    }
    let value: Value = serde_json::from_slice(text).map_err(|error| format!("not JSON: {error}"))?;
    let ports = value.as_array().ok_or("not a list of outputs")?;
    ports.iter().map(parse_output).collect()
}

fn parse_output(port: &Value) -> Result<TransformPort, String> {
    let name = port.get("name").and_then(Value::as_str).ok_or_else(|| format!("an output without a name: {port}"))?;
    let is_set = |key| port.get(key).and_then(Value::as_bool) == Some(true);
    let content = match port.get("json") {
        Some(columns) => {
            let columns = columns.as_object().ok_or_else(|| format!("`json` of `{name}` names no columns"))?;
            let column = |(column, data_type): (&String, &Value)| match data_type.as_str() {
                Some(data_type) => Ok((column.clone(), data_type.to_owned())),
                None => Err(format!("the type of column `{column}` of `{name}` is not a text")),
            };
            Content::Json(columns.iter().map(column).collect::<Result<_, _>>()?)
        }
        None if is_set("text") => Content::Text,
        None if is_set("bytes") => Content::Bytes,
        None => return Err(format!("output `{name}` has none of `json`, `text` and `bytes`")),
    };
    Ok(TransformPort { name: name.to_owned(), content })
}
