//! The loop over records for transforms that take one at a time: packed records in, packed results out, as PACKED.md says.

use std::time::Instant;

use wasmtime::Store;
use wasmtime::component::Func;

use crate::bindings::{Emitted, EmittedMessage, Header, Message};
use crate::exports::{RecordParams, RecordResult};
use crate::guest::Limits;
use crate::instance::begin;
use crate::state::{Moment, State};
use crate::trap::{Fault, readable};

/// The length that stands for null.
const NULL: u32 = u32::MAX;
/// The timestamp that stands for none.
const NO_TIMESTAMP: i64 = i64::MIN;
/// How many deadlines the records of a batch may take together.
const BATCH_DEADLINES: u32 = 30;
/// How many outputs are named to a guest that named another.
const MAX_KNOWN: usize = 10;
/// The seeds of neighbouring records are this far apart: an odd number with ones and zeros all over.
const SEED_STEP: u64 = 0x9e37_79b9_7f4a_7c15;
const KIND_RECORD: u8 = 0;
const KIND_ERROR: u8 = 1;

/// What is done with records.
pub(crate) struct Batch<'a> {
    pub(crate) at: Moment,
    pub(crate) limits: &'a Limits,
    /// The names that the guest gave its outputs.
    pub(crate) outputs: &'a [String],
    /// Packed.
    pub(crate) messages: &'a [u8],
}

/// Calls the guest for each of the packed messages. `running` is the index of the record that is with it; after a failure that
/// of the record that failed, if one did.
pub(crate) fn transform(
    store: &mut Store<State>,
    function: &Func,
    batch: &Batch<'_>,
    running: &mut Option<usize>,
) -> Result<Vec<u8>, Fault> {
    let function = function.typed::<RecordParams<'_>, (RecordResult,)>(&*store)?;
    let mut input = Reader { rest: batch.messages };
    let count = input.u32().ok_or_else(malformed)?;
    let mut results = Results::new(batch.limits.memory_bytes);
    let begun = Instant::now();
    let budget = batch.limits.deadline.saturating_mul(BATCH_DEADLINES);
    for index in 0..count {
        let message = input.message().ok_or_else(malformed)?;
        if begun.elapsed() > budget {
            return Err(Fault::Late);
        }
        *running = usize::try_from(index).ok();
        begin(store, of_record(batch.at, index), batch.limits);
        let (result,) = function.call(&mut *store, (message,))?;
        store.data().in_time()?;
        store.data_mut().log.end_call();
        *running = None;
        let emitted = result.and_then(|emitted| number(emitted, batch.outputs));
        match emitted {
            Ok(emitted) => emitted.iter().try_for_each(|(output, message)| results.record(index, *output, message)),
            Err(message) => results.error(index, &message),
        }
        .map_err(Fault::output)?;
    }
    if !input.rest.is_empty() {
        return Err(malformed());
    }
    Ok(results.finish())
}

fn malformed() -> Fault {
    Fault::output("the packed records handed to the guest are malformed")
}

/// The moment of a record: a call of its own, whose randomness does not depend on what the records before it drew, nor is the
/// same as that of an equal record.
fn of_record(at: Moment, index: u32) -> Moment {
    Moment { seed: at.seed ^ u64::from(index).wrapping_mul(SEED_STEP), ..at }
}

/// Gives each record the number of its output.
fn number(emitted: Vec<Emitted>, outputs: &[String]) -> Result<Vec<(u16, EmittedMessage)>, String> {
    let number = |emitted: Emitted| match emitted.output {
        None => Ok((0, emitted.message)),
        Some(name) => {
            let found = outputs.iter().position(|output| *output == name).and_then(|at| u16::try_from(at).ok());
            let known = || {
                let names: Vec<String> = outputs.iter().take(MAX_KNOWN).map(|output| format!("`{output}`")).collect();
                let more = outputs.len().saturating_sub(MAX_KNOWN);
                let more = if more > 0 { format!(" and {more} more") } else { String::new() };
                format!("{}{more}", names.join(", "))
            };
            match found {
                Some(found) => Ok((found, emitted.message)),
                None => Err(format!("the guest gave a record for output `{name}`, it has {}", known())),
            }
        }
    };
    emitted.into_iter().map(number).collect()
}

/// Reads packed messages, borrowing their parts. Nothing means that the bytes end too early or are not UTF-8.
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn bytes(&mut self) -> Option<Option<&'a [u8]>> {
        let length = self.u32()?;
        if length == NULL {
            return Some(None);
        }
        let (bytes, rest) = self.rest.split_at_checked(usize::try_from(length).ok()?)?;
        self.rest = rest;
        Some(Some(bytes))
    }

    fn message(&mut self) -> Option<Message<'a>> {
        let timestamp = self.take().map(i64::from_le_bytes)?;
        let (key, value) = (self.bytes()?, self.bytes()?);
        let mut headers = Vec::new();
        for _ in 0..self.u32()? {
            let name = std::str::from_utf8(self.bytes()??).ok()?;
            headers.push(Header { name, value: self.bytes()? });
        }
        Some(Message { key, value, headers, timestamp: (timestamp != NO_TIMESTAMP).then_some(timestamp) })
    }
}

/// Writes packed results.
struct Results {
    bytes: Vec<u8>,
    entries: u32,
    limit_bytes: u64,
}

impl Results {
    fn new(limit_bytes: u64) -> Results {
        // The number of entries comes first, and is known last.
        Results { bytes: vec![0; size_of::<u32>()], entries: 0, limit_bytes }
    }

    fn record(&mut self, index: u32, output: u16, message: &EmittedMessage) -> Result<(), String> {
        self.entry(index, KIND_RECORD)?;
        self.bytes.extend_from_slice(&output.to_le_bytes());
        self.bytes.extend_from_slice(&message.timestamp.unwrap_or(NO_TIMESTAMP).to_le_bytes());
        self.field(message.key.as_deref())?;
        self.field(message.value.as_deref())?;
        let headers = u32::try_from(message.headers.len()).map_err(|_| "a record has too many headers")?;
        self.bytes.extend_from_slice(&headers.to_le_bytes());
        for header in &message.headers {
            self.field(Some(header.name.as_bytes()))?;
            self.field(header.value.as_deref())?;
        }
        Ok(())
    }

    fn error(&mut self, index: u32, message: &str) -> Result<(), String> {
        self.entry(index, KIND_ERROR)?;
        self.field(Some(readable(message).as_bytes()))
    }

    fn entry(&mut self, index: u32, kind: u8) -> Result<(), String> {
        // A guest that takes all at once could not give more than its memory holds; neither does this one.
        if self.bytes.len() as u64 > self.limit_bytes {
            return Err(format!("it gave more than {} bytes for one batch", self.limit_bytes));
        }
        self.entries = self.entries.checked_add(1).ok_or("it gave too many records for one batch")?;
        self.bytes.extend_from_slice(&index.to_le_bytes());
        self.bytes.push(kind);
        Ok(())
    }

    fn field(&mut self, bytes: Option<&[u8]>) -> Result<(), String> {
        let length = match bytes {
            None => NULL,
            Some(bytes) => {
                let length = u32::try_from(bytes.len()).ok().filter(|length| *length != NULL);
                length.ok_or("a field is too long")?
            }
        };
        self.bytes.extend_from_slice(&length.to_le_bytes());
        self.bytes.extend_from_slice(bytes.unwrap_or_default());
        Ok(())
    }

    fn finish(mut self) -> Vec<u8> {
        if let Some(entries) = self.bytes.first_chunk_mut() {
            *entries = self.entries.to_le_bytes();
        }
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bindings::EmittedMessage;

    #[test]
    fn few_of_many_outputs_are_named() {
        let outputs: Vec<String> = (0..12).map(|number| format!("o{number}")).collect();
        let check = |name: &str, known: usize, expected: &str| {
            let message = EmittedMessage { key: None, value: None, headers: Vec::new(), timestamp: None };
            let emitted = vec![Emitted { output: Some(name.to_owned()), message }];
            let error = number(emitted, outputs.get(..known).unwrap_or_default()).err().unwrap_or_default();
            assert_eq!(error, expected);
        };
        check("o1", 2, "");
        check("x", 2, "the guest gave a record for output `x`, it has `o0`, `o1`");
        let ten = "`o0`, `o1`, `o2`, `o3`, `o4`, `o5`, `o6`, `o7`, `o8`, `o9`";
        check("x", 12, &format!("the guest gave a record for output `x`, it has {ten} and 2 more"));
    }
}
