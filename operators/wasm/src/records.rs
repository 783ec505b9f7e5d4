//! The loop over records for transforms that take one at a time: packed records in, packed results out, as PACKED.md says.

use wasmtime::Store;
use wasmtime::component::Func;

use crate::bindings::{Emitted, EmittedMessage, Header, Message};
use crate::exports::{RecordParams, RecordResult};
use crate::guest::Limits;
use crate::instance::set_deadline;
use crate::log::cut;
use crate::state::State;
use crate::trap::{Fault, MAX_MESSAGE_BYTES};

/// The length that stands for null.
const NULL: u32 = u32::MAX;
/// The timestamp that stands for none.
const NO_TIMESTAMP: i64 = i64::MIN;
const KIND_RECORD: u8 = 0;
const KIND_ERROR: u8 = 1;

/// Calls the guest for each of the packed messages. `outputs` are the names that it gave them.
pub(crate) fn transform(
    store: &mut Store<State>,
    function: &Func,
    limits: &Limits,
    outputs: &[String],
    messages: &[u8],
) -> Result<Vec<u8>, Fault> {
    let function = function.typed::<RecordParams<'_>, (RecordResult,)>(&*store)?;
    let mut input = Reader { rest: messages };
    let count = input.u32().ok_or_else(malformed)?;
    let mut results = Results::new(limits.memory_bytes);
    for index in 0..count {
        let message = input.message().ok_or_else(malformed)?;
        // A record is a call of its own, with all the time that one may take.
        set_deadline(store, limits);
        let (result,) = function.call(&mut *store, (message,))?;
        let emitted = result.and_then(|emitted| number(emitted, outputs));
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

/// Gives each record the number of its output.
fn number(emitted: Vec<Emitted>, outputs: &[String]) -> Result<Vec<(u16, EmittedMessage)>, String> {
    let number = |emitted: Emitted| match emitted.output {
        None => Ok((0, emitted.message)),
        Some(name) => {
            let found = outputs.iter().position(|output| *output == name).and_then(|at| u16::try_from(at).ok());
            let known = || outputs.iter().map(|output| format!("`{output}`")).collect::<Vec<_>>().join(", ");
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
        self.field(Some(cut(message, MAX_MESSAGE_BYTES).as_bytes()))
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
