//! What is wrong with a query, and where in its text.

use std::fmt;

use datafusion::common::{DataFusionError, SchemaError};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::ParserError;
use datafusion::sql::sqlparser::tokenizer::{Location, Token, Tokenizer};
use logmill_connectors::error::{ConnectorError, LogError};
use logmill_operators::sql::describe;
use logmill_pipelines::nearest;

/// Why a query has no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The text asks for what cannot be.
    #[error("{0}")]
    Sql(Mistake),
    /// A topic's records could not be read.
    #[error(transparent)]
    Connector(#[from] ConnectorError),
    /// The log refused or failed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Reading or computing failed on the way.
    #[error("the query failed: {0}")]
    Failed(String),
}

/// A mistake in the text of a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// What is wrong.
    pub message: String,
    /// Line and column within the text, both from 1, if they are known.
    pub place: Option<(u64, u64)>,
    /// What to write instead.
    pub hint: Option<String>,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((line, column)) = self.place {
            write!(f, "line {line}, column {column}: ")?;
        }
        write!(f, "{}", self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

impl QueryError {
    /// A mistake at a name in the text.
    pub(super) fn at_name(sql: &str, name: &str, message: impl Into<String>, hint: Option<String>) -> Self {
        Self::Sql(Mistake { message: message.into(), place: place_of(sql, name), hint })
    }

    /// What DataFusion found. `sql` is empty where it is found too late to have a place in the text.
    pub(super) fn of(error: &DataFusionError, sql: &str) -> Self {
        let place = error.diagnostic().and_then(|found| found.span).map(|span| (span.start.line, span.start.column));
        match error.find_root() {
            DataFusionError::SQL(error, _) => {
                let (ParserError::TokenizerError(text) | ParserError::ParserError(text)) = error.as_ref() else {
                    return Self::Sql(Mistake { message: "the query nests too deep".into(), place, hint: None });
                };
                let (message, at) = split_place(text);
                Self::Sql(Mistake { message: format!("syntax error: {message}"), place: at.or(place), hint: None })
            }
            DataFusionError::SchemaError(schema, _) => {
                let (message, hint) = of_columns(schema);
                Self::Sql(Mistake { message, place, hint })
            }
            root if !sql.is_empty() && is_of_text(root) => {
                let (message, hint) = match unknown_function(error) {
                    Some(name) => (format!("unknown function `{name}`"), None),
                    None => describe(root),
                };
                Self::Sql(Mistake { message, place, hint })
            }
            DataFusionError::Execution(message) => Self::Failed(first_line(message).to_owned()),
            other => Self::Failed(first_line(&other.strip_backtrace()).to_owned()),
        }
    }

    /// What went wrong after the query was planned, and so has no place in its text.
    pub fn running(error: &DataFusionError) -> Self {
        Self::of(error, "")
    }

    /// The same with a better hint, if there is one.
    pub(super) fn with_hint(self, hint: Option<String>) -> Self {
        match self {
            Self::Sql(mistake) => Self::Sql(Mistake { hint: hint.or(mistake.hint), ..mistake }),
            other => other,
        }
    }
}

/// Whether an error that planning ended in is one of the text: of arguments, it may be of the kind that running ends in.
fn is_of_text(root: &DataFusionError) -> bool {
    match root {
        DataFusionError::Plan(_) | DataFusionError::NotImplemented(_) => true,
        DataFusionError::Execution(message) => message.contains("coercion failed"),
        _ => false,
    }
}

/// `uper`, where what went wrong is that there is no such function.
pub(super) fn unknown_function(error: &DataFusionError) -> Option<&str> {
    let DataFusionError::Plan(message) = error.find_root() else { return None };
    first_line(message).strip_prefix("Invalid function '")?.strip_suffix("'.")
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or(text)
}

fn of_columns(error: &SchemaError) -> (String, Option<String>) {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let names = || valid_fields.iter().map(|column| column.name.as_str());
            let hint = match nearest(&field.name, names()) {
                Some(name) => format!("did you mean `{name}`?"),
                None if valid_fields.is_empty() => return (format!("there is no column `{field}`"), None),
                None => format!("the columns are {}", names().collect::<Vec<_>>().join(", ")),
            };
            (format!("there is no column `{}`", field.name), Some(hint))
        }
        SchemaError::AmbiguousReference { field } => (
            format!("more than one relation has a column `{}`", field.name),
            Some(format!("write which: `relation.{}`", field.name)),
        ),
        other => (first_line(&other.to_string()).to_owned(), None),
    }
}

/// Splits `message at Line: 1, Column: 7`, as the parser writes it.
fn split_place(text: &str) -> (&str, Option<(u64, u64)>) {
    let split = || {
        let (message, rest) = text.rsplit_once(" at Line: ")?;
        let (line, column) = rest.split_once(", Column: ")?;
        Some((message, (line.trim().parse().ok()?, column.trim().parse().ok()?)))
    };
    split().map_or((text, None), |(message, place)| (message, Some(place)))
}

/// Where a relation's name first stands in the text.
fn place_of(sql: &str, name: &str) -> Option<(u64, u64)> {
    let tokens = Tokenizer::new(&GenericDialect, sql).tokenize_with_location().ok()?;
    let found = tokens.iter().find(|token| match &token.token {
        Token::Word(word) if word.quote_style.is_some() => word.value == name,
        Token::Word(word) => word.value.to_lowercase() == name,
        Token::SingleQuotedString(text) => text == name,
        _ => false,
    });
    let Location { line, column } = found?.span.start;
    Some((line, column))
}
