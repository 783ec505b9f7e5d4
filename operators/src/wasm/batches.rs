//! Guests that take row batches and give row batches.

use std::sync::Arc;

use arrow::array::RecordBatch;
use logmill_wasm::{CallError, Instance, Limits, Moment};

use super::ipc::{self, Budget};
use super::live::{Allowed, Failure, FailureKind, GuestState, Live, Made, Spawn, ample};
use super::plan::{Answer, Planned};
use crate::error::OperatorError;

/// Makes instances that have given their signature.
pub(super) struct BatchSpawn {
    planned: Arc<Planned>,
}

/// An instance, and what it promised.
pub(super) struct BatchGuest {
    instance: Instance,
    planned: Arc<Planned>,
}

impl BatchSpawn {
    pub(super) fn new(planned: Arc<Planned>) -> Self {
        Self { planned }
    }
}

/// An instance of a planned module, which has ample time to describe itself.
pub(super) fn instantiate(planned: &Planned) -> Result<Instance, OperatorError> {
    let limits = Limits { deadline: ample(planned.limits.deadline), ..planned.limits };
    let instance = planned.guest.instantiate(&limits, Arc::clone(&planned.log));
    instance
        .map_err(|source| OperatorError::Execution { operator: planned.operator.to_string(), source: Box::new(source) })
}

/// Sets how long calls into an instance may take.
pub(super) fn allow(instance: &mut Instance, planned: &Planned, time: Allowed) {
    let deadline = planned.limits.deadline;
    instance.set_deadline(if time == Allowed::Ample { ample(deadline) } else { deadline });
}

/// What is said where an instance describes itself in another way than when the pipeline was planned.
pub(super) fn other_answer(planned: &Planned) -> OperatorError {
    OperatorError::Failed {
        operator: planned.operator.to_string(),
        message:
            "an instance of its module reads or makes other columns than the one that was asked when the pipeline was \
                  planned; what a module says of itself must depend on its input and its configuration alone"
                .to_owned(),
    }
}

impl Spawn for BatchSpawn {
    type Guest = BatchGuest;

    fn operator(&self) -> &str {
        &self.planned.operator
    }

    fn spawn(&self, at: Moment) -> Result<BatchGuest, OperatorError> {
        let planned = &self.planned;
        let mut instance = instantiate(planned)?;
        let Answer::Batches { input, signature } = &planned.answer else { return Err(other_answer(planned)) };
        match instance.signature(at, input, &planned.config) {
            Ok(again) if again == *signature => {
                allow(&mut instance, planned, Allowed::Deadline);
                Ok(BatchGuest { instance, planned: Arc::clone(planned) })
            }
            Ok(_) => Err(other_answer(planned)),
            Err(source) => {
                Err(OperatorError::Execution { operator: planned.operator.to_string(), source: Box::new(source) })
            }
        }
    }

    fn state_version(&self) -> Option<u32> {
        self.planned.state_version
    }
}

impl BatchGuest {
    /// Takes an output of a call over into `made`.
    fn take(
        planned: &Planned,
        name: &str,
        stream: Vec<u8>,
        budget: &mut Budget,
        made: &mut Made,
    ) -> Result<(), String> {
        let Answer::Batches { signature, .. } = &planned.answer else { return Ok(()) };
        let port = signature.outputs.iter().position(|port| port.name == name).ok_or_else(|| {
            let names: Vec<String> = signature.outputs.iter().map(|port| format!("`{}`", port.name)).collect();
            format!("it made rows for an output `{name}`; its signature has {}", names.join(", "))
        })?;
        let Some(declared) = planned.full_outputs.get(port) else { return Ok(()) };
        made.bytes += stream.len();
        let rows = ipc::decode_rows(stream, &declared.schema, budget);
        let rows = rows.map_err(|why| format!("for its output `{name}`, {why}"))?;
        made.rows.extend(rows.into_iter().map(|rows| (port, rows)));
        Ok(())
    }
}

impl Live for BatchGuest {
    fn on_batch(&mut self, at: Moment, rows: &RecordBatch, made: &mut Made) -> Result<(), Failure> {
        let stream = ipc::encode_rows(rows).map_err(|error| Failure {
            kind: FailureKind::Broken,
            message: format!("the rows cannot be handed to the guest: {error}"),
            row: None,
        })?;
        let planned = &self.planned;
        let mut budget = Budget::new(planned.limits.memory_bytes);
        let mut take = |name: &str, stream: Vec<u8>| Self::take(planned, name, stream, &mut budget, made);
        Ok(self.instance.on_batch(at, &stream, &mut take)?)
    }

    fn on_watermark(&mut self, at: Moment, time_us: i64, made: &mut Made) -> Result<(), Failure> {
        let planned = &self.planned;
        let mut budget = Budget::new(planned.limits.memory_bytes);
        let mut take = |name: &str, stream: Vec<u8>| Self::take(planned, name, stream, &mut budget, made);
        Ok(self.instance.on_watermark(at, time_us, &mut take)?)
    }

    fn snapshot(&mut self, at: Moment) -> Result<GuestState, Failure> {
        let bytes = self.instance.snapshot(at)?.into();
        Ok(GuestState { version: self.planned.state_version.unwrap_or(0), bytes })
    }

    fn restore(&mut self, at: Moment, state: &GuestState) -> Result<(), Failure> {
        Ok(self.instance.restore(at, state.version, &state.bytes)?)
    }

    fn allow(&mut self, time: Allowed) {
        allow(&mut self.instance, &self.planned, time);
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        let kind = match &error {
            CallError::Refused { .. } => FailureKind::Refused,
            CallError::Deadline { .. } => FailureKind::Deadline,
            CallError::Memory { .. } => FailureKind::Memory,
            _ => FailureKind::Broken,
        };
        let row = match &error {
            CallError::Refused { row, .. } => row.and_then(|row| usize::try_from(row).ok()),
            _ => None,
        };
        let message = error.to_string();
        Self { kind, message: if message.is_empty() { "the guest gives no reason".to_owned() } else { message }, row }
    }
}
