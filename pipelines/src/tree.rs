//! A YAML document as a tree in which every node knows its place: what the validator walks.

use serde_json::{Map, Number, Value};

use crate::diagnostics::Span;

/// A range of characters of the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    /// Index of the first character.
    pub(crate) start: usize,
    /// Index after the last one.
    pub(crate) end: usize,
}

/// How a scalar is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// Without quotes.
    Plain,
    /// In `'`.
    Single,
    /// In `"`.
    Double,
    /// After `|` or `>`.
    Block,
}

/// A part of an interpolated scalar: where it stands in the value, and where in the text as written. In characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) value_start: usize,
    pub(crate) written_start: usize,
    /// Whether the characters stand for themselves.
    pub(crate) literal: bool,
}

/// What an interpolated scalar was made from.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    /// The scalar with its `${}`.
    pub(crate) written: String,
    pub(crate) segments: Vec<Segment>,
    /// Whether a value came from the environment, and so must not be printed.
    pub(crate) secret: bool,
    /// Those values.
    pub(crate) values: Vec<String>,
}

/// How a scalar came about.
#[derive(Clone, Debug)]
pub(crate) struct Scalar {
    pub(crate) style: Style,
    /// Its text, interpolated.
    pub(crate) text: String,
    pub(crate) template: Option<Box<Template>>,
}

/// What a node holds.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    Null,
    Bool(bool),
    Number(Number),
    Text,
    List(Vec<Node>),
    Map(Vec<Entry>),
    /// Something went wrong here and was reported: nothing more is said about it.
    Broken,
}

/// A value of the document.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) content: Content,
    pub(crate) place: Place,
    /// For scalars.
    pub(crate) scalar: Option<Scalar>,
}

/// A key with its value.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_place: Place,
    pub(crate) value: Node,
}

impl Node {
    /// The value under a key of a mapping.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// The entry of a key of a mapping.
    pub(crate) fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| entry.key == key)
    }

    /// The entries of a mapping; none of anything else.
    pub(crate) fn entries(&self) -> &[Entry] {
        match &self.content {
            Content::Map(entries) => entries,
            _ => &[],
        }
    }

    /// A string's text.
    pub(crate) fn as_text(&self) -> Option<&str> {
        match (&self.content, &self.scalar) {
            (Content::Text, Some(scalar)) => Some(&scalar.text),
            _ => None,
        }
    }

    /// Whether the value came from the environment.
    pub(crate) fn is_secret(&self) -> bool {
        self.template().is_some_and(|template| template.secret)
    }

    /// What the scalar was interpolated from, if it was.
    pub(crate) fn template(&self) -> Option<&Template> {
        self.scalar.as_ref()?.template.as_deref()
    }

    /// A scalar for a message: `value`, or as written if the value must not be printed.
    pub(crate) fn shown(&self) -> String {
        let Some(scalar) = &self.scalar else { return String::new() };
        let text = match &scalar.template {
            Some(template) if template.secret => &template.written,
            _ => &scalar.text,
        };
        let mut short: String = text.chars().take(60).collect();
        if short.len() < text.len() {
            short.push('…');
        }
        short
    }

    /// The value, for serde.
    pub(crate) fn to_json(&self) -> Value {
        self.json(&|node| Value::String(node.scalar.as_ref().map_or_else(String::new, |s| s.text.clone())), false)
    }

    /// The value as it may be printed: with `${VAR}` in place of values from the environment.
    pub(crate) fn to_redacted_json(&self) -> Value {
        let shown = |node: &Node| {
            let scalar = node.scalar.as_ref();
            let written = node.template().filter(|template| template.secret).map(|template| template.written.clone());
            Value::String(written.or_else(|| scalar.map(|s| s.text.clone())).unwrap_or_default())
        };
        self.json(&shown, true)
    }

    fn json(&self, text: &dyn Fn(&Node) -> Value, redact: bool) -> Value {
        if redact && self.is_secret() {
            return text(self);
        }
        match &self.content {
            Content::Null | Content::Broken => Value::Null,
            Content::Bool(value) => Value::Bool(*value),
            Content::Number(number) => Value::Number(number.clone()),
            Content::Text => text(self),
            Content::List(items) => Value::Array(items.iter().map(|item| item.json(text, redact)).collect()),
            Content::Map(entries) => {
                let pairs = entries.iter().map(|entry| (entry.key.clone(), entry.value.json(text, redact)));
                Value::Object(pairs.collect::<Map<_, _>>())
            }
        }
    }
}

/// The value of a plain scalar by YAML 1.2's core schema: `no` and `on` are text. `None` if it is text.
pub(crate) fn resolve_plain(text: &str) -> Option<Content> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Some(Content::Null),
        "true" | "True" | "TRUE" => return Some(Content::Bool(true)),
        "false" | "False" | "FALSE" => return Some(Content::Bool(false)),
        _ => {}
    }
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    if let Some(hex) = text.strip_prefix("0x") {
        return u64::from_str_radix(hex, 16).ok().map(|value| Content::Number(value.into()));
    }
    if let Some(octal) = text.strip_prefix("0o") {
        return u64::from_str_radix(octal, 8).ok().map(|value| Content::Number(value.into()));
    }
    if digits.chars().all(|c| c.is_ascii_digit()) {
        let signed = text.parse::<i64>().map(Number::from);
        let whole = signed.or_else(|_| text.parse::<u64>().map(Number::from)).ok();
        return whole.or_else(|| Number::from_f64(text.parse().ok()?)).map(Content::Number);
    }
    let float = digits.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-'));
    if !float || !digits.chars().any(|c| c.is_ascii_digit()) {
        return None;
    }
    Number::from_f64(text.parse().ok()?).map(Content::Number)
}

/// The characters of a file and where its lines begin.
#[derive(Clone, Debug)]
pub(crate) struct Characters {
    pub(crate) chars: Vec<char>,
    line_starts: Vec<usize>,
}

impl Characters {
    pub(crate) fn new(text: &str) -> Self {
        let chars: Vec<char> = text.chars().collect();
        let breaks = chars.iter().enumerate().filter(|(_, c)| **c == '\n').map(|(index, _)| index + 1);
        let line_starts = std::iter::once(0).chain(breaks).collect();
        Self { chars, line_starts }
    }

    /// The text of a line, counted from 1.
    pub(crate) fn line(&self, line: usize) -> String {
        let first = self.line_starts.get(line.saturating_sub(1)).copied().unwrap_or(self.chars.len());
        self.chars.iter().skip(first).take_while(|c| **c != '\n').collect()
    }

    /// The place as people read it: on one line, without trailing blanks.
    pub(crate) fn span(&self, place: Place) -> Span {
        let start = place.start.min(self.chars.len());
        let line = self.line_starts.partition_point(|first| *first <= start);
        let first = self.line_starts.get(line.saturating_sub(1)).copied().unwrap_or(0);
        let end = place.end.clamp(start, self.chars.len());
        let on_line = self.chars.get(start..end).unwrap_or_default();
        let until = on_line.iter().position(|c| *c == '\n').unwrap_or(on_line.len());
        let length = on_line.iter().take(until).rposition(|c| !c.is_whitespace()).map_or(0, |last| last + 1);
        Span { line, column: start - first + 1, length }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_resolve_by_the_core_schema() {
        for (text, json) in [
            ("", "null"),
            ("~", "null"),
            ("true", "true"),
            ("no", "\"no\""),
            ("on", "\"on\""),
            ("12", "12"),
            ("-7", "-7"),
            ("0x1F", "31"),
            ("0o17", "15"),
            ("18446744073709551615", "18446744073709551615"),
            ("1.5e3", "1500.0"),
            (".5", "0.5"),
            ("1.2.3", "\"1.2.3\""),
            (".", "\".\""),
            ("-", "\"-\""),
            ("2013-01-01", "\"2013-01-01\""),
            (".inf", "\".inf\""),
            ("1e999", "\"1e999\""),
        ] {
            let content = resolve_plain(text).unwrap_or(Content::Text);
            let scalar = Scalar { style: Style::Plain, text: text.to_owned(), template: None };
            let node = Node { content, place: Place::default(), scalar: Some(scalar) };
            assert_eq!(node.to_json().to_string(), json, "{text}");
        }
    }
}
