//! Calls a guest on the machine itself, through the same packing and unpacking as in an instance.

use std::fmt;

use serde::de::DeserializeOwned;

use crate::message::{Message, Messages, NO_TIMESTAMP, put_bytes};
use crate::transform::{Running, Transform};
use crate::wit::transform::exports::logmill::transform::describe;

/// A record: one to give to a transform, or one that it put out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value.
    pub value: Option<Vec<u8>>,
    /// The headers, in order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// Microseconds since the Unix epoch, UTC.
    pub timestamp_us: Option<i64>,
}

impl Record {
    /// A record with this value and nothing else.
    #[must_use]
    pub fn of(value: impl AsRef<[u8]>) -> Self {
        Record { value: Some(value.as_ref().to_vec()), ..Record::default() }
    }

    /// The value as JSON.
    ///
    /// # Errors
    /// What does not fit.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, String> {
        serde_json::from_slice(self.value.as_deref().unwrap_or(b"null")).map_err(|error| error.to_string())
    }
}

impl From<Message<'_>> for Record {
    fn from(message: Message<'_>) -> Self {
        Record {
            key: message.key().map(<[u8]>::to_vec),
            value: message.value().map(<[u8]>::to_vec),
            headers: message.headers().map(|(name, value)| (name.to_owned(), value.map(<[u8]>::to_vec))).collect(),
            timestamp_us: message.timestamp_us(),
        }
    }
}

/// What became of one of the records: a record in an output, or the reason why it was set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Which of the records, from 0.
    pub index: usize,
    /// The output's name with what was put there, or the reason.
    pub what: Result<(String, Record), String>,
}

/// A transform at work.
pub struct Transforming<T> {
    running: Running<T>,
    outputs: Vec<String>,
}

// Not derived, because transforms need not have it, and tests want `unwrap_err`.
impl<T> fmt::Debug for Transforming<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Transforming").field("outputs", &self.outputs).finish_non_exhaustive()
    }
}

impl<T: Transform> Transforming<T> {
    /// Makes the transform with a configuration: JSON text, `null` for none.
    ///
    /// # Errors
    /// What the transform says of the configuration.
    pub fn new(config: &str) -> Result<Self, String> {
        let running = Running::new();
        let outputs = running.outputs(config)?.into_iter().map(|describe::Port { name, .. }| name).collect();
        Ok(Transforming { running, outputs })
    }

    /// Gives it records.
    ///
    /// # Errors
    /// If the call as a whole failed; reasons of single records are entries.
    pub fn transform(&self, records: &[Record]) -> Result<Vec<Entry>, String> {
        let mut packed = (records.len() as u32).to_le_bytes().to_vec();
        for record in records {
            packed.extend_from_slice(&record.timestamp_us.unwrap_or(NO_TIMESTAMP).to_le_bytes());
            put_bytes(&mut packed, record.key.as_deref());
            put_bytes(&mut packed, record.value.as_deref());
            packed.extend_from_slice(&(record.headers.len() as u32).to_le_bytes());
            for (name, value) in &record.headers {
                put_bytes(&mut packed, Some(name.as_bytes()));
                put_bytes(&mut packed, value.as_deref());
            }
        }
        let result = self.running.transform_packed(&packed)?;
        let mut entries = Messages::new(&result)?;
        (0..entries.count).map(|_| self.entry(&mut entries)).collect()
    }

    fn entry(&self, entries: &mut Messages<'_>) -> Result<Entry, String> {
        let (index, kind) = entries.entry()?;
        let what = match kind {
            None => Err(String::from_utf8_lossy(entries.text()?).into_owned()),
            Some(port) => {
                let name = self.outputs.get(usize::from(port)).ok_or("an output that there is not")?;
                Ok((name.clone(), entries.next()?.into()))
            }
        };
        Ok(Entry { index: index as usize, what })
    }
}
