//! What an operator could not do.

/// An error that stops the pipeline. Rows that cannot be processed are no errors: they go to `Output::reject`.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// The operator was called against its contract, or its state does not fit.
    #[error("operator `{operator}`: {message}")]
    Failed {
        /// The operator's name in the pipeline.
        operator: String,
        /// What is wrong.
        message: String,
    },
    /// The operator's code says that it does not take over the state that an earlier run left.
    #[error("operator `{operator}`: {message}")]
    StateRefused {
        /// The operator's name in the pipeline.
        operator: String,
        /// What it said.
        message: String,
    },
    /// An expression or a conversion failed in a way that no single row is to blame for.
    #[error("operator `{operator}` failed")]
    Execution {
        /// The operator's name in the pipeline.
        operator: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
