//! An instance of a guest, and the calls into it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant as Clock};

use wasmtime::Store;
use wasmtime::component::{ComponentNamedList, ComponentType, Func, Lift, Lower};

use crate::bindings::{Content, FunctionSignature, Signature, TransformPort};
use crate::core_calls::CoreCalls;
use crate::error::{CallError, TransformError, WasmError};
use crate::exports::{
    Exports, FunctionsParams, FunctionsResult, InvokeParams, InvokeResult, OutputsParams, OutputsResult, PackedParams,
    PackedResult, RestoreParams, RestoreResult, RowsParams, RowsResult, SignatureParams, SignatureResult,
    SnapshotResult, StateExports, WatermarkParams,
};
use crate::guest::{Form, Limits};
use crate::host::Inner as Host;
use crate::log::{GuestLog, cut, one_line};
use crate::records;
use crate::state::{Moment, State, at_epoch_deadline};
use crate::trap::Fault;

/// No deadline is further away.
const MAX_DEADLINE: Duration = Duration::from_secs(24 * 60 * 60);
/// What the host takes over from a guest in one call, beyond what the guest's memory could hold once.
const EXTRA_RESULT_BYTES: u64 = 1024 * 1024;
/// The most outputs, columns or functions that a guest may name.
const MAX_NAMES: usize = 10_000;
/// The longest of these names.
const MAX_NAME_BYTES: usize = 255;
/// The longest type of a column, written out.
const MAX_TYPE_BYTES: usize = 16 * 1024;

/// An instance of a guest. After any [`CallError`] but `Refused` it must be thrown away; further calls fail.
pub struct Instance {
    host: Arc<Host>,
    store: Store<State>,
    calls: Calls,
    limits: Limits,
    failed: bool,
    /// The names of a transform's outputs, once they have been asked.
    outputs: Vec<String>,
}

enum Calls {
    Component(Exports<Func>),
    Core(CoreCalls),
}

/// Whoever takes the rows of an operator's outputs, one after the other: the output's name, and an Arrow IPC stream as the
/// guest gave it.
pub type TakeRows<'a> = &'a mut dyn FnMut(&str, Vec<u8>) -> Result<(), String>;

impl Instance {
    pub(crate) fn new(
        host: &Arc<Host>,
        form: &Form,
        limits: Limits,
        log: Arc<dyn GuestLog>,
    ) -> Result<Instance, WasmError> {
        let mut store = Store::new(&host.engine, State::new(host.logs.gate(log), limits.memory_bytes));
        store.limiter(|state| &mut state.bounds);
        store.epoch_deadline_callback(at_epoch_deadline);
        let result_bytes = limits.memory_bytes.saturating_add(EXTRA_RESULT_BYTES);
        store.set_hostcall_fuel(usize::try_from(result_bytes).unwrap_or(usize::MAX));
        // What runs now cannot be repeated at another time: it runs at no time, and always finds the same randomness.
        begin(&mut store, Moment::default(), &limits);
        let running = host.ticker.running();
        let calls = instantiate(&mut store, form);
        drop(running);
        store.data_mut().log.end_call();
        match calls {
            Ok(calls) => {
                Ok(Instance { host: Arc::clone(host), store, calls, limits, failed: false, outputs: Vec::new() })
            }
            Err(fault) => Err(start_error(fault, store.data(), &limits)),
        }
    }

    /// From now on calls may take this long, whatever the limits said.
    pub fn set_deadline(&mut self, deadline: Duration) {
        self.limits.deadline = deadline;
    }

    /// What an operator reads and puts out. `input` is an Arrow IPC stream without rows that has the input's columns, `config`
    /// the JSON text of the operator's configuration, `null` if it has none. The first call into a new instance.
    pub fn signature(&mut self, at: Moment, input: &[u8], config: &str) -> Result<Signature, CallError> {
        self.enter(at, |inside| {
            let Exports::Operator { signature, .. } = inside.exports("signature")? else {
                return Err(missing("signature"));
            };
            let result: SignatureResult = inside.call::<SignatureParams<'_>, _>(signature, (input, config))?;
            let signature = result.map_err(Fault::refused)?;
            check_names("an output", signature.outputs.iter().map(|port| port.name.as_str()), true)?;
            check_names("a column to read", signature.reads.iter().flatten().map(String::as_str), false)?;
            Ok(signature)
        })
    }

    /// Hands an operator a batch, an Arrow IPC stream of the columns it reads, and its outputs to `out`.
    pub fn on_batch(&mut self, at: Moment, rows: &[u8], out: TakeRows<'_>) -> Result<(), CallError> {
        self.enter(at, |inside| {
            let Exports::Operator { on_batch, .. } = inside.exports("on-batch")? else {
                return Err(missing("on-batch"));
            };
            let result: RowsResult = inside.call::<RowsParams<'_>, _>(on_batch, (rows,))?;
            take_rows(result, out)
        })
    }

    /// Tells an operator that event time has reached `time_us`, and hands its outputs to `out`.
    pub fn on_watermark(&mut self, at: Moment, time_us: i64, out: TakeRows<'_>) -> Result<(), CallError> {
        self.enter(at, |inside| {
            let Exports::Operator { on_watermark: Some(on_watermark), .. } = inside.exports("on-watermark")? else {
                return Err(missing("on-watermark"));
            };
            let result: RowsResult = inside.call::<WatermarkParams, _>(on_watermark, (time_us,))?;
            take_rows(result, out)
        })
    }

    /// The version of the state that `snapshot` gives.
    pub fn state_version(&mut self, at: Moment) -> Result<u32, CallError> {
        self.enter(at, |inside| {
            let version = &inside.state("state-version")?.version;
            inside.call::<(), u32>(version, ())
        })
    }

    /// The state of an operator.
    pub fn snapshot(&mut self, at: Moment) -> Result<Vec<u8>, CallError> {
        self.enter(at, |inside| {
            let snapshot = &inside.state("snapshot")?.snapshot;
            let result: SnapshotResult = inside.call(snapshot, ())?;
            result.map_err(Fault::refused)
        })
    }

    /// Gives an operator a state that `snapshot` gave, of this module or of an earlier build of it.
    pub fn restore(&mut self, at: Moment, version: u32, state: &[u8]) -> Result<(), CallError> {
        self.enter(at, |inside| {
            let restore = &inside.state("restore")?.restore;
            let result: RestoreResult = inside.call::<RestoreParams<'_>, _>(restore, (version, state))?;
            result.map_err(Fault::refused)
        })
    }

    /// The outputs of a transform. The first call into a new instance.
    pub fn outputs(&mut self, at: Moment, config: &str) -> Result<Vec<TransformPort>, CallError> {
        let ports = self.enter(at, |inside| {
            let ports = match inside.calls {
                Calls::Core(core) => core.outputs(inside.store, config)?,
                Calls::Component(Exports::Record { outputs, .. } | Exports::Packed { outputs, .. }) => {
                    let result: OutputsResult = inside.call::<OutputsParams<'_>, _>(outputs, (config,))?;
                    result.map_err(Fault::refused)?.into_iter().map(TransformPort::from).collect()
                }
                Calls::Component(_) => return Err(missing("outputs")),
            };
            check_names("an output", ports.iter().map(|port| port.name.as_str()), true)?;
            for port in &ports {
                if let Content::Json(columns) = &port.content {
                    check_names("a column", columns.iter().map(|(name, _)| name.as_str()), true)?;
                    if let Some((name, _)) = columns.iter().find(|(_, data_type)| data_type.len() > MAX_TYPE_BYTES) {
                        let message = format!("the type of its column `{name}` has more than {MAX_TYPE_BYTES} bytes");
                        return Err(Fault::output(message));
                    }
                }
            }
            Ok(ports)
        })?;
        self.outputs = ports.iter().map(|port| port.name.clone()).collect();
        Ok(ports)
    }

    /// Hands a transform packed messages, and its packed result to `out`, once. Neither is looked at but where the guest
    /// takes records one at a time: then each record is a call, with a deadline and randomness of its own, and the batch ends in
    /// [`CallError::Deadline`] once its records have taken 30 deadlines together.
    pub fn transform_packed(
        &mut self,
        at: Moment,
        messages: &[u8],
        out: &mut dyn FnMut(&[u8]) -> Result<(), String>,
    ) -> Result<(), TransformError> {
        let (limits, outputs) = (self.limits, std::mem::take(&mut self.outputs));
        let mut row = None;
        let done = self.enter(at, |inside| {
            match inside.calls {
                Calls::Core(core) => out(core.transform(inside.store, messages)?),
                Calls::Component(Exports::Packed { transform, .. }) => {
                    let result: PackedResult = inside.call::<PackedParams<'_>, _>(transform, (messages,))?;
                    out(&result.map_err(Fault::refused)?)
                }
                Calls::Component(Exports::Record { transform, .. }) => {
                    let batch = records::Batch { at, limits: &limits, outputs: &outputs, messages };
                    out(&records::transform(inside.store, transform, &batch, &mut row)?)
                }
                Calls::Component(_) => return Err(missing("transform")),
            }
            .map_err(Fault::output)
        });
        self.outputs = outputs;
        done.map_err(|error| {
            // What ran out of memory may have used it up long before.
            let row = row.filter(|_| !matches!(error, CallError::Memory { .. }));
            TransformError { error, row }
        })
    }

    /// The functions of a module. The first call into a new instance.
    pub fn functions(&mut self, at: Moment, config: &str) -> Result<Vec<FunctionSignature>, CallError> {
        self.enter(at, |inside| {
            let Exports::Function { functions, .. } = inside.exports("functions")? else {
                return Err(missing("functions"));
            };
            let result: FunctionsResult = inside.call::<FunctionsParams<'_>, _>(functions, (config,))?;
            let functions = result.map_err(Fault::refused)?;
            check_names("a function", functions.iter().map(|function| function.name.as_str()), true)?;
            Ok(functions)
        })
    }

    /// Calls a function over columns, an Arrow IPC stream of its arguments, and hands that of the results to `out`, once.
    pub fn invoke(
        &mut self,
        at: Moment,
        name: &str,
        arguments: &[u8],
        out: &mut dyn FnMut(Vec<u8>) -> Result<(), String>,
    ) -> Result<(), CallError> {
        self.enter(at, |inside| {
            let Exports::Function { invoke, .. } = inside.exports("invoke")? else {
                return Err(missing("invoke"));
            };
            let result: InvokeResult = inside.call::<InvokeParams<'_>, _>(invoke, (name, arguments))?;
            out(result.map_err(CallError::from)?).map_err(Fault::output)
        })
    }

    /// Runs what calls into the guest, with the clock of its deadline running.
    fn enter<R>(&mut self, at: Moment, call: impl FnOnce(&mut Inside<'_>) -> Result<R, Fault>) -> Result<R, CallError> {
        if self.failed {
            return Err(CallError::Trapped("an earlier call into this instance failed".into()));
        }
        begin(&mut self.store, at, &self.limits);
        let running = self.host.ticker.running();
        // A panic of whoever takes the outputs must not leave an instance behind that goes on in the middle of a call.
        self.failed = true;
        let done = call(&mut Inside { store: &mut self.store, calls: &self.calls });
        drop(running);
        self.store.data_mut().log.end_call();
        let done = done.map_err(|fault| fault.narrow(self.store.data(), &self.limits));
        self.failed = !matches!(done, Ok(_) | Err(CallError::Refused { .. }));
        done
    }
}

impl std::fmt::Debug for Instance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Instance").field("limits", &self.limits).field("failed", &self.failed).finish_non_exhaustive()
    }
}

/// An instance while a call into it runs.
struct Inside<'a> {
    store: &'a mut Store<State>,
    calls: &'a Calls,
}

impl<'a> Inside<'a> {
    fn exports(&self, what: &str) -> Result<&'a Exports<Func>, Fault> {
        match self.calls {
            Calls::Component(exports) => Ok(exports),
            Calls::Core(_) => Err(missing(what)),
        }
    }

    fn state(&self, what: &str) -> Result<&'a StateExports<Func>, Fault> {
        match self.exports(what)? {
            Exports::Operator { state: Some(state), .. } => Ok(state),
            _ => Err(missing(what)),
        }
    }

    fn call<P, R>(&mut self, function: &Func, params: P) -> Result<R, Fault>
    where
        P: ComponentNamedList + Lower,
        R: ComponentType + Lift,
    {
        let function = function.typed::<P, (R,)>(&*self.store)?;
        let (result,) = function.call(&mut *self.store, params)?;
        self.store.data().in_time()?;
        Ok(result)
    }
}

fn instantiate(store: &mut Store<State>, form: &Form) -> Result<Calls, Fault> {
    match form {
        Form::Component { pre, exports } => {
            let instance = pre.instantiate(&mut *store)?;
            store.data().in_time()?;
            let functions = exports.of(&instance, store);
            functions.map(Calls::Component).ok_or_else(|| Fault::output("a function is missing"))
        }
        Form::Core(pre) => {
            let instance = pre.instantiate(&mut *store)?;
            let calls = CoreCalls::new(&instance, store)?;
            store.data().in_time()?;
            Ok(Calls::Core(calls))
        }
    }
}

fn start_error(fault: Fault, state: &State, limits: &Limits) -> WasmError {
    let (limit_bytes, refused_bytes) = (limits.memory_bytes, state.bounds.refused_bytes);
    match fault.narrow(state, limits) {
        CallError::Memory { .. } => {
            WasmError::Memory { needed_bytes: refused_bytes.unwrap_or(limit_bytes), limit_bytes }
        }
        // The engine makes no instance of what was refused its first memory.
        CallError::Output(message) => match refused_bytes {
            Some(needed_bytes) => WasmError::Memory { needed_bytes, limit_bytes },
            None => WasmError::Start(message),
        },
        other => WasmError::Start(other.to_string()),
    }
}

/// A call begins, with all the time that one may take.
pub(crate) fn begin(store: &mut Store<State>, at: Moment, limits: &Limits) {
    store.data_mut().begin_call(at);
    store.data_mut().deadline = Clock::now() + limits.deadline.min(MAX_DEADLINE);
    // The clock is asked at every tick: ticks come later than they should, so many of them are no measure of time.
    store.set_epoch_deadline(1);
}

fn take_rows(result: RowsResult, out: TakeRows<'_>) -> Result<(), Fault> {
    for output in result.map_err(CallError::from)? {
        out(&output.name, output.rows).map_err(Fault::output)?;
    }
    Ok(())
}

fn missing(what: &str) -> Fault {
    Fault::output(format!("the guest does not export `{what}`"))
}

/// Checks that names are not empty, differ, and are not absurdly many; `some`: that there is at least one. `what` they name
/// comes with its article.
fn check_names<'a>(what: &str, names: impl Iterator<Item = &'a str>, some: bool) -> Result<(), Fault> {
    let mut seen = HashSet::new();
    for name in names {
        if name.len() > MAX_NAME_BYTES {
            let begin = cut(name, MAX_NAME_BYTES);
            let message = format!("the guest has {what} with a name of more than {MAX_NAME_BYTES} bytes, `{begin}...`");
            return Err(Fault::output(message));
        }
        if *one_line(name) != *name {
            return Err(Fault::output(format!("the guest has {what} with control characters in its name, `{name}`")));
        }
        if name.is_empty() {
            return Err(Fault::output(format!("the guest has {what} without a name")));
        }
        if !seen.insert(name) {
            return Err(Fault::output(format!("the guest names {what} `{name}` twice")));
        }
        if seen.len() > MAX_NAMES {
            return Err(Fault::output(format!("the guest names {what} more than {MAX_NAMES} times")));
        }
    }
    if some && seen.is_empty() {
        return Err(Fault::output(format!("the guest does not name {what}")));
    }
    Ok(())
}
