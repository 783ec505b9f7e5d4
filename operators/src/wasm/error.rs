//! Why a module does not fit where a pipeline puts it.

/// What is wrong, found before anything runs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct PlanError {
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl PlanError {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None }
    }

    pub(super) fn with_hint(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: Some(hint.into()) }
    }
}

/// What a guest's complaints about its configuration begin with: those of the Rust SDK, and of who follows it.
const ABOUT_CONFIG: &str = "config: ";

/// Whether a module complains about its configuration.
pub fn is_about_config(error: &PlanError) -> bool {
    error.message.starts_with(ABOUT_CONFIG)
}
