//! Rows that a sink refuses: put aside with the reason, or a reason to stop before anything of their epoch is committed.

use logmill_connectors::sink::RefusedRows;

use super::dead_letter::{self, DeadLetter};
use super::error::EngineError;

/// The dead letters of rows that a sink refused.
pub(crate) fn letters(pipeline: &str, sink: &str, refused: &RefusedRows) -> Result<Vec<DeadLetter>, EngineError> {
    let RefusedRows { rows, reason } = refused;
    let mut letters = dead_letter::of_rows(pipeline, sink, &rows.rows, rows.origin.as_ref(), reason)?;
    for (name, _) in letters.iter_mut().flat_map(|letter| &mut letter.headers) {
        if *name == "logmill.operator" {
            *name = "logmill.sink";
        }
    }
    Ok(letters)
}

/// The error that stops the run for them.
pub(crate) fn stop(sink: &str, refused: &RefusedRows) -> Result<EngineError, EngineError> {
    let RefusedRows { rows, reason } = refused;
    let error = dead_letter::stop_at_rows(sink, &rows.rows, rows.origin.as_ref(), reason)?;
    Ok(match error {
        EngineError::Record { place, reason, record } => {
            EngineError::Record { place: place.replacen("operator `", "sink `", 1), reason, record }
        }
        error => error,
    })
}
