//! Why a run stopped before its end.

use logmill_connectors::error::{ConnectorError, LogError};
use logmill_operators::error::OperatorError;

/// Why a run stopped. Nothing that was committed is lost, and a later run goes on from the last commit.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// A source, a decoder or a sink failed.
    #[error("{kind} `{name}`")]
    Connector {
        /// `source`, `table` or `sink`.
        kind: &'static str,
        /// Its name in the pipeline.
        name: String,
        /// Why.
        source: ConnectorError,
    },
    /// An operator failed.
    #[error(transparent)]
    Operator(#[from] OperatorError),
    /// The log failed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A record could not be processed, and `on_error` says to stop.
    #[error(
        "{place}: {reason}\n  record: {record}\n  hint: mend the record, or what fails on it, and run again; or set `on_error: {{ dead_letter: <topic> }}` to put such records aside"
    )]
    Record {
        /// The source and the place of the record in it.
        place: String,
        /// What is wrong with it.
        reason: String,
        /// The record, shortened.
        record: String,
    },
    /// The pipeline does not fit the state of its earlier run.
    #[error("{0}")]
    Incompatible(String),
    /// A module does not take over what an earlier build of it remembered.
    #[error(
        "operator `{operator}` cannot go on from the state that earlier runs left\n  hint: go back to the module that left it, \
         let `restore` take its version, or give the pipeline another name; if the sources still hold all they ever \
         held, --fresh reads them again"
    )]
    StateRefused {
        /// The operator.
        operator: String,
        /// What the module said.
        source: OperatorError,
    },
    /// The manifest or the checkpoint store is damaged, or of a newer format.
    #[error("state of pipeline `{pipeline}`: {message}")]
    State {
        /// The pipeline.
        pipeline: String,
        /// What is wrong.
        message: String,
    },
    /// A local file of the engine could not be read or written.
    #[error("{context}")]
    Io {
        /// What was tried.
        context: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// What was staged under a committed manifest is gone, and so is the result.
    #[error(
        "sink `{sink}`: {what} is lost: it was staged and committed by the manifest, and neither it nor the result is \
         there any more\n  hint: put one of them back where it was and run again; if the sources still hold all they ever held, \
         --fresh reads them again"
    )]
    Lost {
        /// The sink.
        sink: String,
        /// What is gone.
        what: String,
    },
    /// Part of the engine stopped without saying why; a defect of Logmill.
    #[error("{0} stopped unexpectedly; this is a defect of Logmill")]
    Defect(&'static str),
}

impl EngineError {
    pub(crate) fn source(name: &str, source: ConnectorError) -> Self {
        Self::Connector { kind: "source", name: name.to_owned(), source }
    }

    pub(crate) fn sink(name: &str, source: ConnectorError) -> Self {
        Self::Connector { kind: "sink", name: name.to_owned(), source }
    }

    pub(crate) fn table(name: &str, source: ConnectorError) -> Self {
        Self::Connector { kind: "table", name: name.to_owned(), source }
    }

    /// An operator could not take over what it remembered. Another module helps only where the module itself said no: one
    /// that had too little time or memory for it may well do it with more.
    pub(crate) fn not_restored(operator: &str, source: OperatorError) -> Self {
        match source {
            OperatorError::StateRefused { .. } => Self::StateRefused { operator: operator.to_owned(), source },
            source => Self::Operator(source),
        }
    }

    /// Whether it is for want of space: nothing is lost, and running again with room goes on.
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::Log(LogError::DiskFull(_)) => true,
            Self::Connector { source, .. } => {
                matches!(source, ConnectorError::DiskFull(_) | ConnectorError::Log(LogError::DiskFull(_)))
            }
            Self::Io { source, .. } => matches!(source.kind(), std::io::ErrorKind::StorageFull),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_module_is_suggested_only_where_the_module_itself_said_no() {
        let (operator, message) = ("op".to_owned(), "no".to_owned());
        let refused = OperatorError::StateRefused { operator: operator.clone(), message: message.clone() };
        assert!(EngineError::not_restored("op", refused).to_string().contains("hint: go back to the module"));
        let late = OperatorError::Failed { operator, message };
        assert_eq!(EngineError::not_restored("op", late).to_string(), "operator `op`: no");
    }
}
