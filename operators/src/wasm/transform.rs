//! Guests that turn single records into records: rows go in as packed messages, and come out as typed columns.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Int32Type, Int64Type, SchemaRef};
use logmill_wasm::{Content, Instance, Moment, readable};

use super::batches::{allow, instantiate, other_answer};
use super::live::{Allowed, Failure, FailureKind, GuestState, Live, Made, Spawn};
use super::messages::{self, Layout};
use super::packed::{self, Entries, Entry, Writer};
use super::plan::{Answer, Planned};
use super::values::{self, BadValue};
use crate::error::OperatorError;

/// Makes instances that have said what they put out.
pub(super) struct TransformSpawn {
    planned: Arc<Planned>,
    layout: Layout,
}

/// An instance, and how rows become messages and messages rows.
pub(super) struct TransformGuest {
    instance: Instance,
    planned: Arc<Planned>,
    layout: Layout,
    writer: Writer,
}

impl TransformSpawn {
    pub(super) fn new(planned: Arc<Planned>) -> Self {
        let layout = Layout::new(&planned.wanted);
        Self { planned, layout }
    }
}

impl Spawn for TransformSpawn {
    type Guest = TransformGuest;

    fn operator(&self) -> &str {
        &self.planned.operator
    }

    fn spawn(&self, at: Moment) -> Result<TransformGuest, OperatorError> {
        let planned = &self.planned;
        let mut instance = instantiate(planned)?;
        let Answer::Transform { ports } = &planned.answer else { return Err(other_answer(planned)) };
        match instance.outputs(at, &planned.config) {
            Ok(again) if again == *ports => {
                allow(&mut instance, planned, Allowed::Deadline);
                let (layout, writer) = (self.layout.clone(), Writer::default());
                Ok(TransformGuest { instance, planned: Arc::clone(planned), layout, writer })
            }
            Ok(_) => Err(other_answer(planned)),
            Err(source) => {
                Err(OperatorError::Execution { operator: planned.operator.to_string(), source: Box::new(source) })
            }
        }
    }

    fn state_version(&self) -> Option<u32> {
        None
    }
}

impl Live for TransformGuest {
    fn on_batch(&mut self, at: Moment, rows: &RecordBatch, made: &mut Made) -> Result<(), Failure> {
        let cannot_write = |message| Failure { kind: FailureKind::Refused, message, row: None };
        self.layout.write(rows, &mut self.writer).map_err(cannot_write)?;
        let Answer::Transform { ports } = &self.planned.answer else { return Ok(()) };
        let outputs = ports.iter().zip(&self.planned.full_outputs);
        let outputs: Vec<Output<'_>> = outputs
            .map(|(port, full)| Output { name: &port.name, content: &port.content, schema: &full.schema })
            .collect();
        let (layout, memory_bytes) = (&self.layout, self.planned.limits.memory_bytes);
        let mut take = |result: &[u8]| {
            let entries = packed::read(result, rows.num_rows(), outputs.len())?;
            made.bytes += check_size(&entries, result.len(), &outputs, memory_bytes)?;
            take(&entries, rows, layout, &outputs, made)
        };
        let done = self.instance.transform_packed(at, self.writer.finish(), &mut take);
        done.map_err(|failed| {
            let failure = Failure::from(failed.error);
            Failure { row: failed.row.or(failure.row), ..failure }
        })
    }

    fn on_watermark(&mut self, _: Moment, _: i64, _: &mut Made) -> Result<(), Failure> {
        Ok(())
    }

    fn allow(&mut self, time: Allowed) {
        allow(&mut self.instance, &self.planned, time);
    }

    fn snapshot(&mut self, _: Moment) -> Result<GuestState, Failure> {
        Err(keeps_no_state())
    }

    fn restore(&mut self, _: Moment, _: &GuestState) -> Result<(), Failure> {
        Err(keeps_no_state())
    }
}

fn keeps_no_state() -> Failure {
    Failure { kind: FailureKind::Refused, message: "a transform keeps no state".to_owned(), row: None }
}

/// An output of a transform.
pub(super) struct Output<'a> {
    pub(super) name: &'a str,
    pub(super) content: &'a Content,
    /// With the hidden columns.
    pub(super) schema: &'a SchemaRef,
}

/// What all columns of a result may take, if the guest's memory is smaller than that.
const LEAST_RESULT_BYTES: u64 = 64 * 1024 * 1024;

/// What the columns of a result take, about. An error if that is too much: a record of a few bytes is a row of all columns.
fn check_size(
    entries: &Entries<'_>,
    result_bytes: usize,
    outputs: &[Output<'_>],
    memory_bytes: u64,
) -> Result<usize, String> {
    let columns = outputs.iter().enumerate().map(|(port, output)| {
        let row_bytes: usize = output.schema.fields().iter().map(|field| values::least_bytes(field.data_type())).sum();
        entries.of_port(port).count().saturating_mul(row_bytes)
    });
    let bytes = columns.fold(result_bytes, usize::saturating_add);
    let most = memory_bytes.max(LEAST_RESULT_BYTES);
    if bytes as u64 <= most {
        return Ok(bytes);
    }
    Err(format!("its records take {bytes} bytes as columns, of which {most} are allowed"))
}

/// Makes rows of what a guest gave. An input row is one unit: if it failed, or any value that was made of it cannot be
/// read, the row is rejected and nothing comes of it.
pub(super) fn take(
    entries: &Entries<'_>,
    rows: &RecordBatch,
    layout: &Layout,
    outputs: &[Output<'_>],
    made: &mut Made,
) -> Result<(), String> {
    let mut rejected = vec![false; rows.num_rows()];
    let mut reject = |row: usize, reason: String, rejected: &mut Vec<bool>| {
        if let Some(known) = rejected.get_mut(row)
            && !std::mem::replace(known, true)
        {
            made.reject(row, reason);
        }
    };
    for (row, reason) in entries.failed() {
        let reason = readable(reason);
        let reason = if reason.is_empty() { "the guest gives no reason".to_owned() } else { reason };
        reject(row, reason, &mut rejected);
    }
    let mut port_values = Vec::with_capacity(outputs.len());
    while port_values.len() < outputs.len() {
        port_values.clear();
        for (port, output) in outputs.iter().enumerate() {
            let of_port: Vec<Entry> = entries.of_port(port).filter(|of| is_left(&rejected, *of)).collect();
            let visible = output.schema.fields().len().saturating_sub(values::HIDDEN);
            let of_values = of_port.iter().map(|of| entries.read(*of).value);
            match values::read(output.content, output.schema, visible, of_values) {
                Ok(columns) => port_values.push((of_port, columns)),
                Err(values::ReadError::Values(bad)) => {
                    for BadValue { index, reason } in bad {
                        let Some(row) = of_port.get(index).map(|of| of.message()) else { continue };
                        reject(row, format!("what it made for the output `{}` {reason}", output.name), &mut rejected);
                    }
                    break;
                }
                Err(values::ReadError::All(message)) => return Err(message),
            }
        }
    }
    let (partitions, offsets) = messages::places(rows, layout);
    for (port, ((of_port, mut columns), output)) in port_values.into_iter().zip(outputs).enumerate() {
        if of_port.is_empty() {
            continue;
        }
        let messages = || of_port.iter().map(|of| entries.read(*of));
        columns.push(values::binary(messages().map(|message| message.key))?);
        columns.push(values::timestamps(messages().map(|message| message.timestamp_us)));
        let rows_of = || of_port.iter().map(|of| of.message());
        columns.push(values::numbers::<Int32Type>(partitions.as_ref(), rows_of()));
        columns.push(values::numbers::<Int64Type>(offsets.as_ref(), rows_of()));
        columns.push(values::headers(messages().map(|message| message.headers))?);
        let made_rows = RecordBatch::try_new(Arc::clone(output.schema), columns).map_err(|error| error.to_string())?;
        made.rows.push((port, made_rows));
    }
    Ok(())
}

/// Whether the row that an entry comes from is not rejected.
fn is_left(rejected: &[bool], entry: Entry) -> bool {
    rejected.get(entry.message()) == Some(&false)
}
