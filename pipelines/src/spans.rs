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
