//! What is wrong with a query, and where in its text.

use datafusion::common::Span as DataFusionSpan;
use datafusion::sql::sqlparser::tokenizer::Span;

/// A mistake in a query, or something in it that is not supported.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SqlError {
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
    /// The line within the text, from 1.
    pub line: u32,
    /// The column within the line, in characters from 1.
    pub column: u32,
    /// How many characters of the line are meant; at least 1.
    pub length: u32,
}

/// Some characters of one line of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Place {
    pub(super) line: u32,
    pub(super) column: u32,
    pub(super) length: u32,
}

impl Place {
    /// The first character of the text: for what has no better place.
    pub(super) const START: Self = Self { line: 1, column: 1, length: 1 };

    /// The place of a span of the parser; of one over several lines, its first character.
    pub(super) fn of(span: Span) -> Option<Self> {
        if span.start.line == 0 {
            return None;
        }
        let same_line = span.start.line == span.end.line && span.end.column > span.start.column;
        let length = if same_line { span.end.column - span.start.column } else { 1 };
        Some(Self { line: narrow(span.start.line), column: narrow(span.start.column), length: narrow(length) })
    }

    /// The place of a span of a DataFusion diagnostic.
    pub(super) fn of_diagnostic(span: DataFusionSpan) -> Option<Self> {
        let location = |at: datafusion::common::Location| datafusion::sql::sqlparser::tokenizer::Location {
            line: at.line,
            column: at.column,
        };
        Self::of(Span { start: location(span.start), end: location(span.end) })
    }

    /// An error at this place.
    pub(super) fn error(self, message: impl Into<String>, hint: Option<String>) -> SqlError {
        SqlError { message: message.into(), hint, line: self.line, column: self.column, length: self.length }
    }
}

fn narrow(n: u64) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
