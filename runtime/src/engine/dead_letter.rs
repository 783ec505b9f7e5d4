//! Records that could not be processed: they become dead letters, or stop the run.
//!
//! A dead letter holds the record as it came in: its key, its value, its time; and a row of a source of rows as JSON. Its
//! headers tell the pipeline, the source, the place, the offset and the error, and the operator that failed. A row that an
//! operator made of its state has no record: its letter holds the row that the next operator saw, as JSON.

use std::sync::Arc;

use bytes::Bytes;
use logmill_connectors::decode::RowError;
use logmill_connectors::error::ConnectorError;
use logmill_connectors::format::shown_rows;
use logmill_connectors::source::{Records, RejectedRow, Rows};
use logmill_operators::error::OperatorError;
use logmill_pipelines::flow::{Origin, RowBatch, SplitId};

use super::error::EngineError;
use super::in_flight::InFlight;

/// How much of a record is shown when it stops the pipeline.
const SHOWN_BYTES: usize = 200;

/// What happens to a record that cannot be processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnError {
    /// The run stops, with the record in the message.
    Stop,
    /// It becomes a dead letter.
    DeadLetter,
}

/// A record put aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeadLetter {
    pub(crate) key: Option<Bytes>,
    pub(crate) value: Option<Bytes>,
    pub(crate) timestamp_ms: i64,
    pub(crate) headers: Vec<(&'static str, String)>,
}

impl DeadLetter {
    /// What it counts for in a queue.
    pub(crate) fn size_bytes(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        headers + self.key.as_ref().map_or(0, Bytes::len) + self.value.as_ref().map_or(0, Bytes::len)
    }
}

/// A record of a source as it came in, or a row of a source of rows, as JSON.
pub(crate) struct Record {
    key: Option<Bytes>,
    value: Option<Bytes>,
    timestamp_ms: i64,
    /// For a human: the file and the line, or the partition and the offset.
    place: String,
    offset: i64,
}

impl Record {
    /// A record of a chunk.
    pub(crate) fn of(records: &Records, index: usize) -> Self {
        // A copy: a slice would keep the whole chunk for as long as the letter waits.
        let slice = |bytes: Option<&[u8]>| bytes.map(Bytes::copy_from_slice);
        Self {
            key: slice(records.key(index)),
            value: slice(records.value(index)),
            timestamp_ms: records.timestamps.get(index).copied().unwrap_or(-1),
            place: place(records, index),
            offset: records.offsets.get(index).copied().unwrap_or(-1),
        }
    }

    /// A row of a chunk of rows, of which those rejected are left out.
    pub(crate) fn of_row(
        split: &SplitId,
        rows: &Rows,
        rejected: &[RejectedRow],
        index: usize,
    ) -> Result<Self, EngineError> {
        let mut offset = i64::try_from(rows.first_row + index as u64).unwrap_or(i64::MAX);
        for row in rejected {
            offset += i64::from(row.offset <= offset);
        }
        let json =
            shown_rows(&rows.rows.slice(index, 1)).map_err(|error| EngineError::source(split.as_str(), error))?;
        let place = format!("{split}, row {}", offset + 1);
        Ok(Self { key: None, value: json.into_iter().next(), timestamp_ms: -1, place, offset })
    }

    /// A row that its source rejects.
    pub(crate) fn rejected(row: &RejectedRow) -> Self {
        let (value, place) = (Some(row.value.clone()), row.place.clone());
        Self { key: None, value, timestamp_ms: -1, place, offset: row.offset }
    }

    fn letter(self, mut headers: Vec<(&'static str, String)>) -> DeadLetter {
        headers.push(("logmill.place", self.place));
        if self.offset >= 0 {
            headers.push(("logmill.offset", self.offset.to_string()));
        }
        DeadLetter { key: self.key, value: self.value, timestamp_ms: self.timestamp_ms, headers }
    }

    fn stop(self, part: &str, reason: &str) -> EngineError {
        EngineError::Record {
            place: format!("{part}: {}", self.place),
            reason: reason.to_owned(),
            record: self.value.as_deref().map_or_else(|| "null".to_owned(), shown),
        }
    }
}

/// Where records came from, for messages and headers.
pub(crate) struct Provenance {
    pub(crate) pipeline: Arc<str>,
    pub(crate) source: Arc<str>,
}

impl Provenance {
    /// The dead letter of a record.
    pub(crate) fn letter(&self, record: Record, error: &str) -> DeadLetter {
        record.letter(vec![
            ("logmill.pipeline", self.pipeline.to_string()),
            ("logmill.source", self.source.to_string()),
            ("logmill.error", error.to_owned()),
        ])
    }

    /// The error that stops the run for a record.
    pub(crate) fn stop_at(&self, record: Record, error: &str) -> EngineError {
        record.stop(&format!("source `{}`", self.source), error)
    }

    /// The dead letter of a record that could not be decoded.
    pub(crate) fn undecoded(&self, records: &Records, error: &RowError) -> DeadLetter {
        self.letter(Record::of(records, error.index), &error.message)
    }

    /// The error that stops the run for such a record.
    pub(crate) fn stop(&self, records: &Records, error: &RowError) -> EngineError {
        self.stop_at(Record::of(records, error.index), &error.message)
    }

    /// The dead letter of a row that its source rejects.
    pub(crate) fn rejected(&self, row: &RejectedRow) -> DeadLetter {
        self.letter(Record::rejected(row), &row.message)
    }

    /// The error that stops the run for such a row.
    pub(crate) fn stop_at_row(&self, row: &RejectedRow) -> EngineError {
        self.stop_at(Record::rejected(row), &row.message)
    }
}

/// The part of a pipeline that could not take rows.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Part<'a> {
    Operator(&'a str),
    Sink(&'a str),
}

impl Part<'_> {
    fn failed(self, error: ConnectorError) -> EngineError {
        match self {
            Self::Operator(operator) => EngineError::Operator(OperatorError::Failed {
                operator: operator.to_owned(),
                message: error.to_string(),
            }),
            Self::Sink(name) => EngineError::sink(name, error),
        }
    }
}

impl std::fmt::Display for Part<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Operator(name) => write!(f, "operator `{name}`"),
            Self::Sink(name) => write!(f, "sink `{name}`"),
        }
    }
}

/// Rows that an operator or a sink failed on, and the chunk that they came of.
pub(crate) struct FailedRows<'a> {
    pub(crate) pipeline: &'a str,
    pub(crate) part: Part<'a>,
    pub(crate) batch: &'a RowBatch,
    pub(crate) reason: &'a str,
    /// `None` if they come of no chunk, as at the end of the input, or if the chunk is not at hand, as in a sink.
    pub(crate) chunk: Option<&'a InFlight<'a>>,
}

impl FailedRows<'_> {
    /// Their dead letters: the records that they were made from, each once; a row that cannot be traced, as JSON.
    pub(crate) fn letters(&self) -> Result<Vec<DeadLetter>, EngineError> {
        let mut letters = Vec::with_capacity(self.batch.num_rows());
        let mut last = None;
        for row in 0..self.batch.num_rows() {
            match self.traced(row) {
                Some(record) if last == Some(record) => {}
                Some(record) => letters.extend(self.letter_of(record)?),
                None => letters.push(self.letter_of_row(row)?),
            }
            last = self.traced(row);
        }
        Ok(letters)
    }

    /// The error that stops the run for the first of them.
    pub(crate) fn stop(&self) -> Result<EngineError, EngineError> {
        let Some((chunk, record)) = self.chunk.zip(self.traced(0)) else {
            return self.stop_at_row();
        };
        let part = format!("{}, source `{}`", self.part, chunk.provenance.source);
        Ok(chunk.record(record)?.stop(&part, self.reason))
    }

    fn traced(&self, row: usize) -> Option<usize> {
        self.chunk?.record_of(self.batch, row)
    }

    fn letter_of(&self, record: usize) -> Result<Option<DeadLetter>, EngineError> {
        let Some(chunk) = self.chunk else { return Ok(None) };
        let mut headers = self.headers();
        headers.push(("logmill.source", chunk.provenance.source.to_string()));
        Ok(Some(chunk.record(record)?.letter(headers)))
    }

    fn letter_of_row(&self, row: usize) -> Result<DeadLetter, EngineError> {
        let mut headers = self.headers();
        if let Some(origin) = &self.batch.origin {
            headers.push(("logmill.source", origin.source.to_string()));
            headers.push(("logmill.place", near(origin)));
        }
        let json = shown_rows(&self.batch.rows.slice(row, 1)).map_err(|error| self.part.failed(error))?;
        Ok(DeadLetter { key: None, value: json.into_iter().next(), timestamp_ms: -1, headers })
    }

    /// The error that stops the run for the first row, which cannot be traced.
    fn stop_at_row(&self) -> Result<EngineError, EngineError> {
        let first = self.batch.rows.slice(0, self.batch.num_rows().min(1));
        let first = shown_rows(&first).map_err(|error| self.part.failed(error))?.into_iter().next().unwrap_or_default();
        let origin = self.batch.origin.as_ref();
        let from = origin.map(|origin| format!(", source `{}`: {}", origin.source, near(origin)));
        Ok(EngineError::Record {
            place: format!("{}{}", self.part, from.unwrap_or_default()),
            reason: self.reason.to_owned(),
            record: shown(&first),
        })
    }

    fn headers(&self) -> Vec<(&'static str, String)> {
        let part = match self.part {
            Part::Operator(name) => ("logmill.operator", name.to_owned()),
            Part::Sink(name) => ("logmill.sink", name.to_owned()),
        };
        let error = ("logmill.error", self.reason.to_owned());
        vec![("logmill.pipeline", self.pipeline.to_owned()), part, error]
    }
}

fn place(records: &Records, index: usize) -> String {
    let offset = records.offsets.get(index).copied().unwrap_or(-1);
    match records.first_line {
        0 => format!("{}, offset {offset}", records.place),
        first => format!("{}:{}, byte {offset}", records.place, first + index as u64),
    }
}

/// Where the batch began that rows were in; `split` is a file or the number of a partition.
fn near(origin: &Origin) -> String {
    let Origin { split, offset, .. } = origin;
    let split = match split.as_str().parse::<u32>() {
        Ok(partition) => format!("partition {partition}"),
        Err(_) => split.to_string(),
    };
    format!("{split}, in the batch from offset {offset} on")
}

/// The beginning of a record as it is, so that it can be tried again; only what would not print is written otherwise.
fn shown(bytes: &[u8]) -> String {
    let head = bytes.get(..SHOWN_BYTES).unwrap_or(bytes);
    let mut text = String::with_capacity(head.len());
    for c in String::from_utf8_lossy(head).chars() {
        match c.is_control() {
            true => text.extend(c.escape_debug()),
            false => text.push(c),
        }
    }
    if head.len() < bytes.len() {
        text.push('…');
    }
    text
}
