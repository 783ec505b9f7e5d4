//! Where everything of a pipeline stands in its file.

use std::fmt;
use std::sync::Arc;

use crate::align::align;
use crate::diagnostics::Span;
use crate::tree::{Characters, Content, Node, Place, Template};

/// The places of a pipeline's keys and values, by path: mapping keys, and indices of lists as text.
#[derive(Clone)]
pub struct Spans {
    inner: Arc<Inner>,
}

struct Inner {
    characters: Characters,
    root: Node,
}

/// A node found by its path, with the key that leads to it.
struct Found<'a> {
    node: &'a Node,
    key: Option<Place>,
}

impl Spans {
    pub(crate) fn new(characters: Characters, root: Node) -> Self {
        Self { inner: Arc::new(Inner { characters, root }) }
    }

    pub(crate) fn root(&self) -> &Node {
        &self.inner.root
    }

    /// The place of the value at a path such as `["operators", "late", "sql"]`. Of a list or a mapping it is the key's.
    /// What isn't there has the place of the nearest thing around it.
    pub fn of(&self, path: &[&str]) -> Span {
        let (found, whole) = self.find(path);
        let place = match (&found.node.content, found.key) {
            (Content::Map(_) | Content::List(_), Some(key)) => key,
            (Content::Null, Some(key)) => key,
            (_, Some(key)) if !whole => key,
            (_, None) if matches!(found.node.content, Content::Map(_)) => Place::default(),
            _ => found.node.place,
        };
        self.inner.characters.span(place)
    }

    /// The place of the key at a path; as [`Self::of`] if it has none.
    pub fn key(&self, path: &[&str]) -> Span {
        let (found, _) = self.find(path);
        found.key.map_or_else(|| self.of(path), |key| self.inner.characters.span(key))
    }

    /// The place of a word inside a scalar's value, such as a column's name in a SQL block: line and column of the
    /// value, counted from 1. Indentation, folding, escapes and interpolation are accounted for.
    pub fn inside_block(&self, path: &[&str], line: usize, column: usize) -> Span {
        self.inside(path, line, column, None)
    }

    /// As [`Self::inside_block`], for a place that ends before the second line and column, or with that line.
    pub fn inside_range(&self, path: &[&str], from: (usize, usize), until: (usize, usize)) -> Span {
        self.inside(path, from.0, from.1, Some(until))
    }

    fn inside(&self, path: &[&str], line: usize, column: usize, until: Option<(usize, usize)>) -> Span {
        let (found, whole) = self.find(path);
        let Some(scalar) = found.node.scalar.as_ref().filter(|_| whole) else { return self.of(path) };
        let template = scalar.template.as_deref();
        let written = template.map_or(scalar.text.as_str(), |template| template.written.as_str());
        let chars = &self.inner.characters.chars;
        let Some(places) = align(chars, found.node.place, scalar.style, written) else { return self.of(path) };
        let file_index = |index: usize| {
            let index = template.map_or(index, |template| written_index(template, index));
            places.get(index).or(places.last()).copied().unwrap_or(found.node.place.start)
        };
        let first = value_index(&scalar.text, line, column);
        let last = match until {
            Some((line, column)) => value_index(&scalar.text, line, column),
            None => first + word_length(&scalar.text, first),
        };
        let start = file_index(first);
        // The end is the place after the last character, not the place of the next one: that may be a line further.
        let end = if last > first { file_index(last - 1) + 1 } else { start };
        self.inner.characters.span(Place { start, end: end.max(start) })
    }

    /// The node at a path, or the last one on the way, and whether the whole path led to it.
    fn find(&self, path: &[&str]) -> (Found<'_>, bool) {
        let mut found = Found { node: &self.inner.root, key: None };
        for step in path {
            let next = match &found.node.content {
                Content::Map(_) => {
                    found.node.entry(step).map(|entry| Found { node: &entry.value, key: Some(entry.key_place) })
                }
                Content::List(items) => {
                    let item = step.parse().ok().and_then(|index: usize| items.get(index));
                    item.map(|node| Found { node, key: None })
                }
                _ => None,
            };
            match next {
                Some(next) => found = next,
                None => return (found, false),
            }
        }
        (found, true)
    }
}

/// The index of a character of a value, from its line and column; the end of the line or value if it is beyond.
fn value_index(text: &str, line: usize, column: usize) -> usize {
    let mut index = 0;
    for (number, content) in text.split('\n').enumerate() {
        let length = content.chars().count();
        if number + 1 >= line {
            return index + column.saturating_sub(1).min(length);
        }
        index += length + 1;
    }
    text.chars().count()
}

/// How far a name or number goes from a place; 1 where there is none.
fn word_length(text: &str, from: usize) -> usize {
    text.chars().skip(from).take_while(|c| c.is_alphanumeric() || *c == '_').count().max(1)
}

/// The index in the text as written, of a character of the interpolated value.
fn written_index(template: &Template, index: usize) -> usize {
    let after = template.segments.partition_point(|segment| segment.value_start <= index);
    let Some(segment) = after.checked_sub(1).and_then(|last| template.segments.get(last)) else { return 0 };
    if segment.literal { segment.written_start + (index - segment.value_start) } else { segment.written_start }
}

impl fmt::Debug for Spans {
    /// Says nothing of the content, which may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spans").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::environment::MemoryEnvironment;
    use crate::yaml;
    use proptest::prelude::*;

    fn spans(text: &str) -> (Spans, String) {
        let characters = Characters::new(text);
        let environment = MemoryEnvironment {
            vars: [("LONG".to_owned(), "some longer text".to_owned())].into(),
            ..MemoryEnvironment::default()
        };
        let mut problems = Vec::new();
        let root = yaml::load(text, &characters, &environment, &mut problems).expect("a document");
        assert!(problems.is_empty(), "{text}: {problems:?}");
        let value = root.get("sql").and_then(Node::as_text).unwrap_or_default().to_owned();
        (Spans::new(characters, root), value)
    }

    /// The value's `HERE` is where the file says `HERE`.
    fn check(text: &str) {
        let (spans, value) = spans(text);
        let at = value.find("HERE").unwrap_or_else(|| panic!("{text:?} has no HERE in {value:?}"));
        let before = &value[..at];
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
        let span = spans.inside_block(&["sql"], line, column);
        let file_line = text.split('\n').nth(span.line - 1).unwrap();
        let found: String = file_line.chars().skip(span.column - 1).take(span.length).collect();
        assert_eq!(found, "HERE", "{text:?}");
    }

    #[test]
    fn a_word_is_found_however_its_scalar_is_written() {
        for text in [
            "sql: SELECT HERE FROM a",
            "sql:   SELECT\n  a,\n  HERE\n  FROM t # c",
            "sql: 'it''s HERE'",
            "sql: 'it''s\n\n  HERE'",
            "sql: \"a\\tb \\u00fc HERE\"",
            "sql: \"a \\\n   HERE\"",
            "sql: \"a\\n  \\n HERE\"",
            "sql: \"a\n\n  b\\n HERE\"",
            "sql: |\n  SELECT a,\n    HERE\n  FROM t\n",
            "sql: |-  # comment | > HERE not\n\n\n  HERE\n",
            "sql: |2\n    a\n   HERE\n",
            "a: 1\nsql: |+1\n   a\n\n HERE\n\n\n",
            "sql: >\n  SELECT a\n  HERE\n",
            "sql: >-\n  SELECT a\n\n  b\n    more\n  HERE c\n",
            "sql: >2-\n   SELECT a\n  HERE c\n",
            "sql: &x SELECT HERE",
            "sql: &x |\n  SELECT\n  HERE",
            "sql: !!str &x 'SELECT HERE'",
            "sql: |\n  &x HERE",
            "sql: |\n  | HERE",
            "sql: >\n  | HERE",
            "sql: |\r\n  SELECT a,\r\n  HERE\r\n",
            "{ sql: SELECT HERE }",
            "sql: SELECT ${LONG} HERE",
            "sql: |\n  SELECT $$a ${X:-defaults} ${LONG}\n  ${LONG} HERE, ${LONG}",
            "sql: \"ü ${LONG} ü HERE\"",
            "x: &a |\n  SELECT\n  HERE\nsql: *a\n",
        ] {
            check(text);
        }
    }

    #[test]
    fn a_place_inside_a_value_from_outside_is_its_reference() {
        let (spans, _) = spans("sql: SELECT ${LONG} x");
        let span = spans.inside_block(&["sql"], 1, 13);
        assert_eq!((span.line, span.column), (1, 13));
    }

    #[test]
    fn a_place_beyond_the_value_is_its_end() {
        let (spans, _) = spans("sql: |\n  SELECT a\n  FROM\nx: 1\n");
        let end = spans.inside_block(&["sql"], 2, 5);
        assert_eq!((end.line, end.column), (3, 7));
        let beyond = spans.inside_block(&["sql"], 9, 9);
        assert_eq!(beyond.line, 4);
        let range = spans.inside_range(&["sql"], (1, 1), (2, 5));
        assert_eq!((range.line, range.column, range.length), (2, 3, 8));
    }

    #[test]
    fn keys_and_values_have_their_places() {
        let (spans, _) = spans("a:\n  b: [x, { c: 1 }]\n  d:\n");
        for (path, expected) in [
            (&["a"][..], (1, 1, 1)),
            (&["a", "b"], (2, 3, 1)),
            (&["a", "b", "0"], (2, 7, 1)),
            (&["a", "b", "1", "c"], (2, 15, 1)),
            (&["a", "d"], (3, 3, 1)),
            (&["a", "nothing", "here"], (1, 1, 1)),
            (&["nothing"], (1, 1, 0)),
        ] {
            let span = spans.of(path);
            assert_eq!((span.line, span.column, span.length), expected, "{path:?}");
        }
        assert_eq!(spans.key(&["a", "b", "1", "c"]).column, 12);
    }

    proptest! {
        /// Whatever the layout, every character that isn't blank is found where the file has it.
        #[test]
        fn every_character_of_a_block_is_found(
            lines in proptest::collection::vec("[a-z]{1,5}( {1,3}[a-zü'\"#]{1,4}){0,3}", 1..6),
            extra in proptest::collection::vec(0usize..3, 6),
            indent in 1usize..5,
            style in proptest::sample::select(vec!["|", ">", "|-", ">+"]),
        ) {
            let mut text = format!("sql: {style}\n");
            for (index, line) in lines.iter().enumerate() {
                let deeper = if index == 0 { 0 } else { extra[index] };
                text.push_str(&format!("{}{line}\n{}", " ".repeat(indent + deeper), "\n".repeat(deeper)));
            }
            let (spans, value) = spans(&text);
            let rows: Vec<Vec<char>> = text.split('\n').map(|row| row.chars().collect()).collect();
            for (number, line) in value.split('\n').enumerate() {
                for (at, c) in line.chars().enumerate().filter(|(_, c)| !c.is_whitespace()) {
                    let span = spans.inside_block(&["sql"], number + 1, at + 1);
                    prop_assert_eq!(rows[span.line - 1][span.column - 1], c);
                }
            }
        }
    }
}
