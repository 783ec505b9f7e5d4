//! Records that could not be processed: put aside with the reason, or a reason to stop.
//!
//! A dead letter holds the record as it came, or, where an operator failed on it, the row that the operator saw as JSON;
//! its headers tell the pipeline, the source, the place, the offset and the error.

use std::sync::Arc;

use arrow::array::RecordBatch;
use bytes::Bytes;
use logmill_connectors::decode::RowError;
use logmill_connectors::format::shown_rows;
use logmill_connectors::source::{Records, RejectedRow};
use logmill_operators::error::OperatorError;
use logmill_pipelines::flow::Origin;

use super::error::EngineError;

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

/// Where records came from, for messages and headers.
pub(crate) struct Provenance {
    pub(crate) pipeline: Arc<str>,
    pub(crate) source: Arc<str>,
}

impl Provenance {
    /// The dead letter of a record that could not be decoded.
    pub(crate) fn undecoded(&self, records: &Records, error: &RowError) -> DeadLetter {
        let slice = |bytes: Option<&[u8]>| bytes.map(|bytes| records.buffer.slice_ref(bytes));
        let mut headers = self.headers(&error.message);
        headers.push(("logmill.place", place(records, error.index)));
        if let Some(offset) = records.offsets.get(error.index) {
            headers.push(("logmill.offset", offset.to_string()));
        }
        DeadLetter {
            key: slice(records.key(error.index)),
            value: slice(records.value(error.index)),
            timestamp_ms: records.timestamps.get(error.index).copied().unwrap_or(-1),
            headers,
        }
    }

    /// The error that stops the run for such a record.
    pub(crate) fn stop(&self, records: &Records, error: &RowError) -> EngineError {
        EngineError::Record {
            place: format!("source `{}`: {}", self.source, place(records, error.index)),
            reason: error.message.clone(),
            record: records.value(error.index).map_or_else(|| "null".to_owned(), shown),
        }
    }

    /// The dead letter of a row that its source rejects.
    pub(crate) fn rejected(&self, row: &RejectedRow) -> DeadLetter {
        let mut headers = self.headers(&row.message);
        headers.push(("logmill.place", row.place.clone()));
        headers.push(("logmill.offset", row.offset.to_string()));
        DeadLetter { key: None, value: Some(row.value.clone()), timestamp_ms: -1, headers }
    }

    /// The error that stops the run for such a row.
    pub(crate) fn stop_at_row(&self, row: &RejectedRow) -> EngineError {
        EngineError::Record {
            place: format!("source `{}`: {}", self.source, row.place),
            reason: row.message.clone(),
            record: shown(&row.value),
        }
    }

    fn headers(&self, error: &str) -> Vec<(&'static str, String)> {
        vec![
            ("logmill.pipeline", self.pipeline.to_string()),
            ("logmill.source", self.source.to_string()),
            ("logmill.error", error.to_owned()),
        ]
    }
}

/// The dead letters of rows that an operator failed on.
pub(crate) fn of_rows(
    pipeline: &str,
    operator: &str,
    rows: &RecordBatch,
    origin: Option<&Origin>,
    reason: &str,
) -> Result<Vec<DeadLetter>, EngineError> {
    let mut letters = Vec::with_capacity(rows.num_rows());
    for row in json_rows(operator, rows)? {
        let mut headers = vec![
            ("logmill.pipeline", pipeline.to_owned()),
            ("logmill.operator", operator.to_owned()),
            ("logmill.error", reason.to_owned()),
        ];
        if let Some(origin) = origin {
            headers.push(("logmill.source", origin.source.to_string()));
            headers.push(("logmill.place", near(origin)));
        }
        letters.push(DeadLetter { key: None, value: Some(row), timestamp_ms: -1, headers });
    }
    Ok(letters)
}

/// The error that stops the run for rows that an operator failed on.
pub(crate) fn stop_at_rows(
    operator: &str,
    rows: &RecordBatch,
    origin: Option<&Origin>,
    reason: &str,
) -> Result<EngineError, EngineError> {
    let first = json_rows(operator, &rows.slice(0, rows.num_rows().min(1)))?.into_iter().next().unwrap_or_default();
    let from = origin.map(|origin| format!(", source `{}`: {}", origin.source, near(origin)));
    Ok(EngineError::Record {
        place: format!("operator `{operator}`{}", from.unwrap_or_default()),
        reason: reason.to_owned(),
        record: shown(&first),
    })
}

fn json_rows(operator: &str, rows: &RecordBatch) -> Result<Vec<Bytes>, EngineError> {
    shown_rows(rows).map_err(|error| {
        EngineError::Operator(OperatorError::Failed { operator: operator.to_owned(), message: error.to_string() })
    })
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
