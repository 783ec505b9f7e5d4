//! Mistakes, with their places, as people and programs read them.
//!
//! ```text
//!   late.yaml:12:5: error: unknown key `retenton`          <- editors jump from this line
//!      |
//!   12 |     retenton: 7d
//!      |     ^^^^^^^^
//!      |
//!      = help: did you mean `retention`?
//! ```

use std::fmt;
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use serde::Serialize;

use crate::terminal::{escape, escape_line};

/// How wide a rendered source line may be before it is cut, in characters.
const TERM_WIDTH: usize = 140;

/// How many mistakes of one file are kept; the others are counted.
const MAX_KEPT: usize = 500;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The pipeline can't run.
    Error,
    /// The pipeline runs, and probably not as meant.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// A place in a file. Lines and columns count from 1, columns and lengths in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Span {
    /// The line on which it begins.
    pub line: usize,
    /// The column at which it begins.
    pub column: usize,
    /// How many characters it covers; 0 for a place between two.
    pub length: usize,
}

impl Span {
    /// The beginning of a file.
    pub const START: Self = Self { line: 1, column: 1, length: 0 };
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong: lower-case, no full stop.
    pub message: String,
    /// Where.
    #[serde(flatten)]
    pub span: Span,
    /// What to write instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// What else helps to understand it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl Diagnostic {
    /// An error at a place.
    pub fn error(span: Span, message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, message: message.into(), span, hint: None, notes: Vec::new() }
    }

    /// A warning at a place.
    pub fn warning(span: Span, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(span, message) }
    }

    /// The same, with what to write instead.
    #[must_use]
    pub fn with_hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// The same, with a hint if there is one.
    #[must_use]
    pub fn with_hint_opt(self, hint: Option<String>) -> Self {
        Self { hint: hint.or(self.hint), ..self }
    }

    /// The same, with every text of it changed.
    pub(crate) fn map_text(self, change: &dyn Fn(&str) -> String) -> Self {
        Self {
            message: change(&self.message),
            hint: self.hint.as_deref().map(change),
            notes: self.notes.iter().map(|note| change(note)).collect(),
            ..self
        }
    }

    /// The same, with one more note.
    #[must_use]
    pub fn with_note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }
}

/// A file's name and text, shared by all that points into it.
#[derive(Clone)]
pub struct SourceText {
    name: Arc<str>,
    text: Arc<str>,
}

impl SourceText {
    /// A text and the name to call it by, such as a path as the user gave it.
    pub fn new(name: &str, text: &str) -> Self {
        Self { name: Arc::from(name), text: Arc::from(text) }
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for SourceText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} bytes)", self.name, self.text.len())
    }
}

/// The mistakes of one file, in the order of their places. `Display` renders them with their source lines.
#[derive(Clone, Debug)]
pub struct Diagnostics {
    source: SourceText,
    items: Vec<Diagnostic>,
    /// How many errors and warnings are not among the items.
    dropped: (usize, usize),
}

impl Diagnostics {
    /// No mistakes, yet.
    pub fn new(source: SourceText) -> Self {
        Self { source, items: Vec::new(), dropped: (0, 0) }
    }

    /// Adds one. The same message at the same place is kept once.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        let known = |item: &Diagnostic| item.span == diagnostic.span && item.message == diagnostic.message;
        if self.items.iter().any(known) {
            return;
        }
        if self.items.len() >= MAX_KEPT {
            match diagnostic.severity {
                Severity::Error => self.dropped.0 += 1,
                Severity::Warning => self.dropped.1 += 1,
            }
            return;
        }
        let key = |item: &Diagnostic| (item.span.line, item.span.column, item.severity);
        let at = self.items.partition_point(|item| key(item) <= key(&diagnostic));
        self.items.insert(at, diagnostic);
    }

    /// Adds those of the same file.
    pub fn extend(&mut self, others: impl IntoIterator<Item = Diagnostic>) {
        others.into_iter().for_each(|item| self.push(item));
    }

    /// The first 500 of them, in the order of their places.
    pub fn items(&self) -> &[Diagnostic] {
        &self.items
    }

    /// The file they are about.
    pub fn source(&self) -> &SourceText {
        &self.source
    }

    /// How many are errors.
    pub fn errors(&self) -> usize {
        self.items.iter().filter(|item| item.severity == Severity::Error).count() + self.dropped.0
    }

    /// How many are warnings.
    pub fn warnings(&self) -> usize {
        self.items.iter().filter(|item| item.severity == Severity::Warning).count() + self.dropped.1
    }

    /// Whether the pipeline can't run.
    pub fn has_errors(&self) -> bool {
        self.errors() > 0
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// For people; with ANSI colours if asked for.
    pub fn render(&self, colours: bool) -> String {
        let renderer = if colours { Renderer::styled() } else { Renderer::plain() }.term_width(TERM_WIDTH);
        let mut blocks: Vec<String> = self.items.iter().map(|item| self.render_one(item, &renderer)).collect();
        let more = self.dropped.0 + self.dropped.1;
        if more > 0 {
            blocks.push(format!("{}: and {more} more", self.source.name));
        }
        blocks.join("\n\n")
    }

    fn render_one(&self, item: &Diagnostic, renderer: &Renderer) -> String {
        let Span { line, column, .. } = item.span;
        let name = escape_line(&self.source.name);
        let head = format!("{name}:{line}:{column}: {}: {}", item.severity, escape(&item.message));
        let level = match item.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let mut group = Group::with_level(level);
        let text = line_at(&self.source.text, line);
        let has_line = !text.trim().is_empty();
        if has_line {
            let annotation = AnnotationKind::Primary.span(byte_range(text, column, item.span.length));
            group = group.element(Snippet::source(text).line_start(line).fold(false).annotation(annotation));
        }
        let notes = item.notes.iter().map(|note| Level::NOTE.message(escape(note)));
        let hints = item.hint.iter().map(|hint| Level::HELP.message(escape(hint)));
        group = group.elements(notes).elements(hints);
        if group.is_empty() {
            return head;
        }
        let body = renderer.render(&[group]);
        format!("{head}\n{}", body.trim_end())
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Diagnostics {}

/// As a program reads it: a list of objects with `file`, `line`, `column`, `length`, `severity`, `message`, `hint`, `notes`.
impl Serialize for Diagnostics {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Line<'a> {
            file: &'a str,
            #[serde(flatten)]
            item: &'a Diagnostic,
        }
        serializer.collect_seq(self.items.iter().map(|item| Line { file: &self.source.name, item }))
    }
}

/// The text of a line, without its line break. Empty if there is no such line.
fn line_at(text: &str, line: usize) -> &str {
    text.split('\n').nth(line.saturating_sub(1)).map_or("", |found| found.strip_suffix('\r').unwrap_or(found))
}

/// The bytes of a line that a place covers, cut at the line's end.
fn byte_range(line: &str, column: usize, length: usize) -> std::ops::Range<usize> {
    let at = |chars: usize| line.char_indices().nth(chars).map_or(line.len(), |(byte, _)| byte);
    let first = column.saturating_sub(1);
    at(first)..at(first.saturating_add(length))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn sample() -> Diagnostics {
        let mut all = Diagnostics::new(SourceText::new("a.yaml", "a: 1\nbeta: zwölf # x\r\n"));
        all.push(
            Diagnostic::error(Span { line: 2, column: 7, length: 5 }, "no number").with_hint("write 12").with_note("n"),
        );
        all.push(Diagnostic::warning(Span { line: 1, column: 1, length: 1 }, "odd"));
        all.push(Diagnostic::warning(Span { line: 1, column: 1, length: 1 }, "odd"));
        all.push(Diagnostic::error(Span { line: 9, column: 1, length: 4 }, "past the end"));
        all
    }

    #[test]
    fn they_are_rendered_in_order_with_their_lines() {
        let expected = "\
a.yaml:1:1: warning: odd
  |
1 | a: 1
  | ^

a.yaml:2:7: error: no number
  |
2 | beta: zwölf # x
  |       ^^^^^
  |
  = note: n
  = help: write 12

a.yaml:9:1: error: past the end";
        assert_eq!(sample().to_string(), expected);
    }

    #[test]
    fn what_is_too_much_is_counted() {
        let mut all = Diagnostics::new(SourceText::new("a.yaml", "x\n"));
        (1..=510).for_each(|line| all.push(Diagnostic::error(Span { line, column: 1, length: 1 }, "wrong")));
        assert_eq!((all.items().len(), all.errors(), all.warnings()), (500, 510, 0));
        assert!(all.to_string().ends_with("a.yaml: and 10 more"));
    }

    #[test]
    fn a_program_reads_one_flat_object_each() {
        let json = serde_json::to_value(sample()).unwrap();
        assert_eq!(
            json[1],
            serde_json::json!({ "file": "a.yaml", "severity": "error", "message": "no number", "line": 2, "column": 7,
                "length": 5, "hint": "write 12", "notes": ["n"] })
        );
        assert_eq!(json.as_array().unwrap().len(), 3);
    }
}
