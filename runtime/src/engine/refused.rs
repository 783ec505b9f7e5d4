//! Rows that a sink refuses: they become dead letters, or stop the run before anything of their epoch is committed.

use logmill_connectors::sink::RefusedRows;

use super::dead_letter::{DeadLetter, FailedRows, Part};
use super::error::EngineError;

/// The dead letters of rows that a sink refused.
pub(crate) fn letters(pipeline: &str, sink: &str, refused: &RefusedRows) -> Result<Vec<DeadLetter>, EngineError> {
    failed(pipeline, sink, refused).letters()
}

/// The error that stops the run for them.
pub(crate) fn stop(pipeline: &str, sink: &str, refused: &RefusedRows) -> Result<EngineError, EngineError> {
    failed(pipeline, sink, refused).stop()
}

fn failed<'a>(pipeline: &'a str, sink: &'a str, refused: &'a RefusedRows) -> FailedRows<'a> {
    let RefusedRows { rows, reason } = refused;
    FailedRows { pipeline, part: Part::Sink(sink), batch: rows, reason, chunk: None }
}
