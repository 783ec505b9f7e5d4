//! A pipeline that was read and found right, with the places of everything in its file.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::Value;

use crate::diagnostics::{Diagnostic, Diagnostics, SourceText};
use crate::spans::Spans;
use crate::spec::PipelineSpec;

/// A parsed and validated pipeline.
#[derive(Clone)]
pub struct Pipeline {
    /// What it says. Interpolated values are in here as they are: never print it, print [`Self::redacted`].
    pub spec: PipelineSpec,
    /// Where it says it.
    pub spans: Spans,
    /// The file.
    pub source: SourceText,
    /// What is probably not as meant.
    pub warnings: Vec<Diagnostic>,
    /// The tree as it may be printed.
    pub(crate) redacted: Value,
    /// Values from the environment, longest first.
    pub(crate) secrets: Vec<String>,
    /// Sources, tables, operators and sinks that were found wrong and are missing from the spec.
    pub(crate) broken: BTreeSet<String>,
    /// Functions that were found wrong and are missing from the spec.
    pub(crate) broken_functions: BTreeSet<String>,
}

impl Pipeline {
    /// What the file says, with `${VAR}` in place of the values from the environment.
    pub fn redacted(&self) -> &Value {
        &self.redacted
    }

    /// A text such as a connector's error, with `***` in place of values from the environment.
    pub fn redact(&self, text: &str) -> String {
        redact(&self.secrets, text)
    }

    /// The same mistake without values from the environment.
    pub(crate) fn redacted_diagnostic(&self, diagnostic: Diagnostic) -> Diagnostic {
        diagnostic.map_text(&|text| self.redact(text))
    }

    /// An error at the value at a path such as `["sources", "flights", "url"]`, with values from the environment
    /// taken out of the message.
    pub fn error_at(&self, path: &[&str], message: &str) -> Diagnostic {
        Diagnostic::error(self.spans.of(path), self.redact(message))
    }

    /// Names of parts that the file holds, that were found wrong, and that are therefore missing from the spec. Empty for
    /// a pipeline without mistakes.
    pub fn broken(&self) -> &BTreeSet<String> {
        &self.broken
    }

    /// As [`Self::broken`], of functions.
    pub fn broken_functions(&self) -> &BTreeSet<String> {
        &self.broken_functions
    }

    /// No mistakes yet in this pipeline's file; its warnings are not among them.
    pub fn diagnostics(&self) -> Diagnostics {
        Diagnostics::new(self.source.clone())
    }
}

/// A text with `***` in place of secrets.
pub(crate) fn redact(secrets: &[String], text: &str) -> String {
    secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), "***"))
}

impl fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipeline").field("source", &self.source).field("spec", &self.redacted).finish_non_exhaustive()
    }
}
