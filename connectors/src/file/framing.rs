//! Where records of a text file begin and end, and which lines are none.

use std::sync::Arc;

use memchr::memchr;

use crate::error::ConnectorError;
use crate::format::Format;
use crate::format::csv::{self, Dialect};

/// One record in a text: its bytes, the place behind its line end, and how many lines it covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) next: usize,
    pub(super) lines: u64,
}

/// How text is cut into records.
#[derive(Clone, Debug)]
pub(super) enum Framing {
    /// One a line; lines without anything are none.
    Json,
    /// Each line as it is.
    Raw,
    /// One a line, unless a line end is quoted.
    Csv {
        /// How it is written.
        dialect: Dialect,
        /// What each file's first line must name, if it has such a line.
        header: Option<Arc<[String]>>,
    },
}

impl Framing {
    /// The framing of a format of lines. `header` holds the names in the first line of CSV files that have one.
    pub(super) fn new(format: &Format, header: Option<Arc<[String]>>) -> Result<Self, ConnectorError> {
        Ok(match format {
            Format::Csv(options) => Self::Csv { dialect: options.dialect().map_err(ConnectorError::Config)?, header },
            Format::Raw => Self::Raw,
            Format::Json | Format::Parquet => Self::Json,
        })
    }

    /// Finds the records of a text, and where the last whole one ends. With `all`, what remains counts as one, too.
    pub(super) fn cut(&self, text: &[u8], all: bool, found: &mut Vec<Line>) -> usize {
        found.clear();
        let mut start = 0;
        while let Some(rest) = text.get(start..).filter(|rest| !rest.is_empty()) {
            let end = match self {
                Self::Csv { dialect, .. } => csv::record_end(rest, dialect.quote),
                _ => memchr(b'\n', rest).map(|end| (end, 1)),
            };
            let (end, lines, next) = match end {
                Some((end, lines)) => (end, lines, start + end + 1),
                None if all => (rest.len(), memchr::memchr_iter(b'\n', rest).count() as u64 + 1, text.len()),
                None => break,
            };
            let returned = usize::from(rest.get(..end).unwrap_or_default().ends_with(b"\r"));
            found.push(Line { start, end: start + end - returned, next, lines });
            start = next;
        }
        start
    }

    /// Whether the first record of a file names the columns.
    pub(super) fn has_header(&self) -> bool {
        matches!(self, Self::Csv { header: Some(_), .. })
    }

    /// Whether the text of a line is no record.
    pub(super) fn is_blank(&self, text: &[u8]) -> bool {
        match self {
            Self::Raw => false,
            Self::Json => text.first().is_none_or(u8::is_ascii_whitespace) && text.trim_ascii().is_empty(),
            Self::Csv { .. } => text.is_empty(),
        }
    }

    /// Holds the first line of a file to the names that are expected.
    pub(super) fn check_header(&self, line: &[u8], place: &str) -> Result<(), ConnectorError> {
        let Self::Csv { dialect, header: Some(expected) } = self else { return Ok(()) };
        let data = |message| ConnectorError::Data { place: format!("{place}:1"), message };
        let names = csv::header(line, dialect).map_err(data)?;
        if *names == **expected {
            return Ok(());
        }
        Err(data(format!(
            "the header is `{}`, but `{}` was expected: all files of a source have the same columns, in the same order",
            names.join(", "),
            expected.join(", ")
        )))
    }

    /// What may be wrong with a record that does not end.
    pub(super) fn long_record_hint(&self) -> &'static str {
        match self {
            Self::Csv { .. } => "; is a quote not closed?",
            _ => "",
        }
    }
}
