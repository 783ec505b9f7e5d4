//! From a module and its input to a plan that workers instantiate: the module is asked what it reads and makes, and the
//! answer is checked.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use logmill_pipelines::ColumnType;
use logmill_pipelines::flow::{META_COLUMNS, RESERVED_PREFIX};
use logmill_wasm::{Content, Guest, GuestLog, Instance, Limits, Moment, Port, Role, Signature, TransformPort};

use super::batches::BatchSpawn;
use super::columns;
use super::error::PlanError;
use super::ipc;
use super::operator::{Parts, WasmOperator};
use super::select::Selector;
use super::transform::TransformSpawn;
use crate::error::OperatorError;
use crate::operator::{Operator, PortSchema, system_time_us};
use crate::sql::{Relation, meta_field};

/// A module, and where a pipeline puts it.
pub struct WasmRequest<'a> {
    /// The operator's name.
    pub operator: &'a str,
    /// The loaded module.
    pub guest: &'a Guest,
    /// What it is to read.
    pub input: &'a Relation,
    /// The `config:` of the operator.
    pub config: Option<&'a serde_json::Value>,
    /// What an instance may use.
    pub limits: Limits,
    /// Where its log lines go.
    pub log: Arc<dyn GuestLog>,
}

/// A planned operator. Cheap to clone; each worker takes its own [`WasmPlan::operator`].
#[derive(Clone)]
pub struct WasmPlan {
    inner: Arc<Planned>,
}

/// What the instances of an operator share.
pub(super) struct Planned {
    pub(super) operator: Arc<str>,
    pub(super) guest: Guest,
    pub(super) config: String,
    pub(super) limits: Limits,
    pub(super) log: Arc<dyn GuestLog>,
    input: PortSchema,
    reads: Vec<String>,
    /// What the guest gets of the input.
    pub(super) wanted: SchemaRef,
    pub(super) answer: Answer,
    outputs: Vec<PortSchema>,
    /// With the hidden columns.
    pub(super) full_outputs: Vec<PortSchema>,
    stateful: bool,
    watermarks: bool,
    pub(super) state_version: Option<u32>,
    /// How many workers have taken their share.
    workers: AtomicU64,
}

/// What the module said about itself. Each of its instances must say the same.
pub(super) enum Answer {
    Batches {
        /// The columns of the input, as the module was told of them.
        input: Vec<u8>,
        signature: Signature,
    },
    Transform {
        ports: Vec<TransformPort>,
    },
}

impl std::fmt::Debug for WasmPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WasmPlan").field("fingerprint", &self.fingerprint()).finish()
    }
}

/// Asks a module what it makes of an input.
///
/// # Errors
/// The module cannot be used there: it does not start, refuses its input or its configuration, or makes what cannot flow.
pub fn plan(request: WasmRequest<'_>) -> Result<WasmPlan, PlanError> {
    check_role(request.guest.role())?;
    let config = config_text(request.config);
    let mut instance = instantiate(request.guest, &request.limits, &request.log)?;
    let at = moment();
    match request.guest.role() {
        Role::Operator { stateful, watermarks } => {
            plan_operator(&request, config, &mut instance, at, stateful, watermarks)
        }
        Role::Transform { .. } | Role::Function => plan_transform(&request, config, &mut instance, at),
    }
}

/// Whether a pipeline has a use for a module of this role as an operator, as far as that alone tells.
fn check_role(role: Role) -> Result<(), PlanError> {
    match role {
        Role::Operator { stateful: false, watermarks: true } => {
            let message = "the module waits for event time (`watermark`), but remembers nothing (`state`)";
            let hint = "export `state` too, or leave `watermark` out: without state there is nothing that event time \
                        completes, and each worker's guest would be told of the end by itself";
            Err(PlanError::with_hint(message, hint))
        }
        Role::Function => {
            let hint = "name it under `functions:`, and call the function in an `sql` operator";
            Err(PlanError::with_hint("the module has scalar functions, and is no operator", hint))
        }
        Role::Operator { .. } | Role::Transform { .. } => Ok(()),
    }
}

fn plan_operator(
    request: &WasmRequest<'_>,
    config: String,
    instance: &mut Instance,
    at: Moment,
    stateful: bool,
    watermarks: bool,
) -> Result<WasmPlan, PlanError> {
    let visible = columns::visible(request.input);
    let input = ipc::encode_schema(&visible).map_err(|error| PlanError::new(error.to_string()))?;
    let signature = instance.signature(at, &input, &config).map_err(|error| PlanError::new(error.to_string()))?;
    let wanted = columns::read(request.input, signature.reads.as_deref())?;
    check_ports(signature.outputs.iter().map(|port| port.name.as_str()))?;
    let schema = |port: &Port| {
        let what = format!("the module's output `{}`", port.name);
        let schema = ipc::decode_schema(&port.schema).map_err(|why| PlanError::new(format!("{what}: {why}")))?;
        columns::check_made(&what, &schema)?;
        Ok((port.name.clone(), schema))
    };
    let outputs = signature.outputs.iter().map(schema).collect::<Result<Vec<_>, PlanError>>()?;
    let version = stateful.then(|| instance.state_version(at)).transpose();
    let state_version = version.map_err(|error| PlanError::new(error.to_string()))?;
    let outputs = named(request.operator, outputs);
    Ok(finish(
        request,
        config,
        Planning {
            wanted,
            answer: Answer::Batches { input, signature },
            full_outputs: outputs.clone(),
            outputs,
            stateful,
            watermarks,
            state_version,
        },
    ))
}

fn plan_transform(
    request: &WasmRequest<'_>,
    config: String,
    instance: &mut Instance,
    at: Moment,
) -> Result<WasmPlan, PlanError> {
    let ports = instance.outputs(at, &config).map_err(|error| PlanError::new(error.to_string()))?;
    check_ports(ports.iter().map(|port| port.name.as_str()))?;
    let outputs = ports.iter().map(|port| Ok((port.name.clone(), content_schema(port)?)));
    let outputs = named(request.operator, outputs.collect::<Result<Vec<_>, PlanError>>()?);
    let full = |port: &PortSchema| {
        let fields = port.schema.fields().iter().cloned();
        let fields: Fields = fields.chain(META_COLUMNS.map(|name| Arc::new(meta_field(name)))).collect();
        PortSchema { name: Arc::clone(&port.name), schema: Arc::new(Schema::new(fields)) }
    };
    let full_outputs = outputs.iter().map(full).collect();
    let all: Vec<String> = request.input.full_schema().fields().iter().map(|field| field.name().clone()).collect();
    Ok(finish(
        request,
        config,
        Planning {
            wanted: columns::read(request.input, Some(&all))?,
            answer: Answer::Transform { ports },
            outputs,
            full_outputs,
            stateful: false,
            watermarks: false,
            state_version: None,
        },
    ))
}

/// What a module's answer says.
struct Planning {
    wanted: SchemaRef,
    answer: Answer,
    outputs: Vec<PortSchema>,
    full_outputs: Vec<PortSchema>,
    stateful: bool,
    watermarks: bool,
    state_version: Option<u32>,
}

fn finish(request: &WasmRequest<'_>, config: String, planning: Planning) -> WasmPlan {
    let Planning { wanted, answer, outputs, full_outputs, stateful, watermarks, state_version } = planning;
    let mut reads: Vec<String> = wanted.fields().iter().map(|field| field.name().clone()).collect();
    if reads.is_empty() {
        // A batch must have something to count its rows by.
        reads.extend(request.input.schema.fields().first().map(|field| field.name().clone()));
    }
    let input = PortSchema { name: Arc::clone(&request.input.name), schema: request.input.full_schema() };
    let input = PortSchema { schema: project(&input.schema, &reads), ..input };
    WasmPlan {
        inner: Arc::new(Planned {
            operator: request.operator.into(),
            guest: request.guest.clone(),
            config,
            limits: request.limits,
            log: Arc::clone(&request.log),
            input,
            reads,
            wanted,
            answer,
            outputs,
            full_outputs,
            stateful,
            watermarks,
            state_version,
            workers: AtomicU64::new(0),
        }),
    }
}

fn project(schema: &SchemaRef, names: &[String]) -> SchemaRef {
    let fields = names.iter().filter_map(|name| schema.field_with_name(name).ok().cloned());
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// Names the outputs as a pipeline does.
fn named(operator: &str, outputs: Vec<(String, SchemaRef)>) -> Vec<PortSchema> {
    let name = |(index, (name, schema)): (usize, (String, SchemaRef))| {
        let name = if index == 0 { operator.into() } else { format!("{operator}.{name}").into() };
        PortSchema { name, schema }
    };
    outputs.into_iter().enumerate().map(name).collect()
}

/// There is an output, their names differ, and a pipeline can write them.
fn check_ports<'a>(names: impl Iterator<Item = &'a str>) -> Result<(), PlanError> {
    let mut seen = HashSet::new();
    for name in names {
        let of_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if !name.starts_with(|c: char| c.is_ascii_lowercase()) || !name.chars().all(of_name) || name.len() > 128 {
            let hint =
                "a name is lower-case letters, digits and `_`, begins with a letter, and has at most 128 characters";
            return Err(PlanError::with_hint(format!("the module calls an output `{name}`"), hint));
        }
        if !seen.insert(name) {
            return Err(PlanError::new(format!("the module has two outputs `{name}`")));
        }
    }
    if seen.is_empty() { Err(PlanError::new("the module has no outputs")) } else { Ok(()) }
}

/// The columns of what a transform puts out.
fn content_schema(port: &TransformPort) -> Result<SchemaRef, PlanError> {
    let fields = match &port.content {
        Content::Text => vec![Field::new("value", DataType::Utf8, true)],
        Content::Bytes => vec![Field::new("value", DataType::Binary, true)],
        Content::Json(columns) => {
            let field = |(name, text): &(String, String)| {
                let what = || format!("the module's output `{}` has the column `{name}`", port.name);
                if name.starts_with(RESERVED_PREFIX) {
                    return Err(PlanError::new(format!("{}: names that begin with `_` are reserved", what())));
                }
                let column_type: ColumnType =
                    text.parse().map_err(|error| PlanError::new(format!("{}: {error}", what())))?;
                Ok(column_type.to_field(name))
            };
            columns.iter().map(field).collect::<Result<Vec<_>, _>>()?
        }
    };
    let schema = Schema::new(fields);
    columns::check_made(&format!("the module's output `{}`", port.name), &schema)?;
    Ok(Arc::new(schema))
}

/// The configuration as guests get it.
pub(super) fn config_text(config: Option<&serde_json::Value>) -> String {
    config.map_or_else(|| "null".to_owned(), ToString::to_string)
}

pub(super) fn instantiate(guest: &Guest, limits: &Limits, log: &Arc<dyn GuestLog>) -> Result<Instance, PlanError> {
    guest.instantiate(limits, Arc::clone(log)).map_err(|error| PlanError::new(error.to_string()))
}

/// The moment at which a module is asked about itself.
pub(super) fn moment() -> Moment {
    Moment { now_us: system_time_us(), seed: 0 }
}

impl WasmPlan {
    /// What it puts out: the first by the operator's name, others as `operator.port`. Without hidden columns.
    #[must_use]
    pub fn outputs(&self) -> &[PortSchema] {
        &self.inner.outputs
    }

    /// Whether its batches carry the `META_COLUMNS` after the columns of their output, so that readers may name them.
    #[must_use]
    pub fn hidden(&self) -> bool {
        matches!(self.inner.answer, Answer::Transform { .. })
    }

    /// The columns it needs of its input, the hidden ones included. Never empty, unless the input has no columns.
    #[must_use]
    pub fn reads(&self) -> &[String] {
        &self.inner.reads
    }

    /// Whether it has state: an instance for each state shard, whose snapshots the engine keeps.
    #[must_use]
    pub fn is_stateful(&self) -> bool {
        self.inner.stateful
    }

    /// The version of the state of this module's snapshots.
    #[must_use]
    pub fn state_version(&self) -> Option<u32> {
        self.inner.state_version
    }

    /// Whether it waits for event time.
    #[must_use]
    pub fn waits_for_event_time(&self) -> bool {
        self.inner.watermarks
    }

    /// The module's SHA-256, in hexadecimal digits.
    #[must_use]
    pub fn digest(&self) -> &str {
        self.inner.guest.digest()
    }

    /// A stable text of what is computed: the module, its configuration, and what it said it reads and makes.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let Planned { config, reads, full_outputs, state_version, .. } = self.inner.as_ref();
        let columns = |port: &PortSchema| {
            let columns = port.schema.fields().iter().map(|field| format!("{}: {}", field.name(), field.data_type()));
            format!("{} ({})", port.name, columns.collect::<Vec<_>>().join(", "))
        };
        let outputs = full_outputs.iter().map(columns).collect::<Vec<_>>().join("; ");
        let state = state_version.map_or_else(|| "none".to_owned(), |version| version.to_string());
        let digest = self.digest();
        format!("wasm {digest}\nconfig {config}\nreads {}\nmakes {outputs}\nstate {state}", reads.join(", "))
    }

    /// A worker's share of the operator. Its guests are made when they are needed.
    ///
    /// # Errors
    /// None today; a module that cannot be prepared for calls.
    pub fn operator(&self) -> Result<Box<dyn Operator>, OperatorError> {
        let number = self.inner.workers.fetch_add(1, Ordering::Relaxed);
        Ok(self.numbered(Some(number)))
    }

    /// As [`WasmPlan::operator`], and all its calls have the same randomness.
    pub(super) fn rehearsed(&self) -> Box<dyn Operator> {
        self.numbered(None)
    }

    fn numbered(&self, number: Option<u64>) -> Box<dyn Operator> {
        let planned = &self.inner;
        match &planned.answer {
            Answer::Batches { .. } => {
                let spawn = BatchSpawn::new(Arc::clone(planned));
                Box::new(WasmOperator::new(self.parts(spawn, number)))
            }
            Answer::Transform { .. } => {
                let spawn = TransformSpawn::new(Arc::clone(planned));
                Box::new(WasmOperator::new(self.parts(spawn, number)))
            }
        }
    }

    fn parts<S>(&self, spawn: S, number: Option<u64>) -> Parts<S> {
        let planned = &self.inner;
        Parts {
            spawn,
            input: planned.input.clone(),
            wanted: Selector::new(Arc::clone(&planned.wanted)),
            outputs: planned.full_outputs.clone(),
            stateful: planned.stateful,
            watermarks: planned.watermarks,
            number,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn modules_are_operators_by_what_they_export() {
        for (role, expected) in [
            (Role::Operator { stateful: false, watermarks: false }, None),
            (Role::Operator { stateful: true, watermarks: false }, None),
            (Role::Operator { stateful: true, watermarks: true }, None),
            (Role::Operator { stateful: false, watermarks: true }, Some("remembers nothing (`state`)")),
            (Role::Function, Some("is no operator")),
        ] {
            let refused = check_role(role).err().map(|error| error.to_string());
            match (refused, expected) {
                (None, None) => {}
                (refused, expected) => assert!(refused.unwrap().contains(expected.unwrap())),
            }
        }
    }
}
