//! Reads YAML into a tree with places. Aliases and merge keys are resolved, within bounds, so that a small file can't
//! grow into a large tree.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span as ParserSpan, Tag};

use crate::align::align;
use crate::diagnostics::{Diagnostic, Span};
use crate::environment::Environment;
use crate::interpolate::interpolate;
use crate::tree::{Characters, Content, Entry, Node, Place, Scalar, Style, resolve_plain};

/// The longest text that is read, in bytes.
const MAX_TEXT_BYTES: usize = 4 << 20;
/// The deepest nesting of lists and mappings.
const MAX_DEPTH: usize = 64;
/// How much all aliases together may add: a node counts 1, and 1 more for every 16 bytes of its text.
const MAX_ALIAS_WEIGHT: usize = 100_000;

/// Reads the one document of a file. Mistakes that don't hide others are added to `problems`; `None` after one that does.
pub(crate) fn load(
    text: &str,
    characters: &Characters,
    environment: &dyn Environment,
    problems: &mut Vec<Diagnostic>,
) -> Option<Node> {
    if text.len() > MAX_TEXT_BYTES {
        let message = format!("the file is larger than {} MiB", MAX_TEXT_BYTES >> 20);
        problems.push(Diagnostic::error(Span::START, message));
        return None;
    }
    let mut loader = Loader {
        characters,
        environment,
        problems,
        stack: Vec::new(),
        anchors: HashMap::new(),
        alias_weight: 0,
        documents: Vec::new(),
    };
    let result = loader.run(text);
    let documents = std::mem::take(&mut loader.documents);
    if let Err(fatal) = result {
        problems.push(fatal);
        return None;
    }
    let mut documents = documents.into_iter();
    let first = documents.next();
    if let Some(second) = documents.next() {
        let span = characters.span(second.place);
        problems.push(
            Diagnostic::error(span, "the file holds more than one document")
                .with_hint("one file is one pipeline; put the next one in a file of its own"),
        );
    }
    match first {
        Some(node) if !matches!(node.content, Content::Null) => Some(node),
        _ => {
            let hint = "a pipeline has at least `pipeline`, `sources` and `sinks`";
            problems.push(Diagnostic::error(Span::START, "the file is empty").with_hint(hint));
            None
        }
    }
}

/// A collection that is being read.
struct Frame {
    place: Place,
    anchor: usize,
    kind: Open,
}

enum Open {
    List(Vec<Node>),
    Map { entries: Vec<Entry>, known: HashMap<String, Place>, key: Option<Key>, merges: Vec<Node> },
}

/// What stands before a colon.
enum Key {
    Name(String, Place),
    /// `<<`: the value's entries are the mapping's.
    Merge,
    /// Reported; the value is dropped.
    Broken,
}

/// An anchor's node and what a copy of it weighs.
struct Anchored {
    node: Node,
    weight: usize,
}

struct Loader<'a> {
    characters: &'a Characters,
    environment: &'a dyn Environment,
    problems: &'a mut Vec<Diagnostic>,
    stack: Vec<Frame>,
    anchors: HashMap<usize, Anchored>,
    alias_weight: usize,
    documents: Vec<Node>,
}

impl Loader<'_> {
    fn run(&mut self, text: &str) -> Result<(), Diagnostic> {
        let mut parser = Parser::new_from_str(text);
        while let Some(next) = parser.next_event() {
            let (event, span) = next.map_err(|err| self.syntax_error(&err))?;
            if matches!(event, Event::StreamEnd) {
                break;
            }
            self.event(event, place_of(&span))?;
        }
        Ok(())
    }

    fn event(&mut self, event: Event<'_>, place: Place) -> Result<(), Diagnostic> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let node = self.scalar(&text, style, tag.as_deref(), place);
                self.finish(node, anchor);
            }
            Event::SequenceStart(anchor, tag) => self.open(place, anchor, tag.as_deref(), Open::List(Vec::new()))?,
            Event::MappingStart(anchor, tag) => {
                let kind = Open::Map { entries: Vec::new(), known: HashMap::new(), key: None, merges: Vec::new() };
                self.open(place, anchor, tag.as_deref(), kind)?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(frame) = self.stack.pop() {
                    let anchor = frame.anchor;
                    let node = self.close(frame, place);
                    self.finish(node, anchor);
                }
            }
            Event::Alias(anchor) => {
                let node = self.alias(anchor, place)?;
                self.finish(node, 0);
            }
            _ => {}
        }
        Ok(())
    }

    fn open(&mut self, place: Place, anchor: usize, tag: Option<&Tag>, kind: Open) -> Result<(), Diagnostic> {
        if let Some(tag) = tag.filter(|tag| !tag.is_yaml_core_schema()) {
            self.refuse_tag(tag, place);
        }
        if self.stack.len() >= MAX_DEPTH {
            let message = format!("lists and mappings are nested more than {MAX_DEPTH} deep");
            return Err(Diagnostic::error(self.characters.span(place), message));
        }
        self.stack.push(Frame { place, anchor, kind });
        Ok(())
    }

    fn close(&mut self, frame: Frame, end: Place) -> Node {
        let place = Place { start: frame.place.start, end: end.end.max(frame.place.start) };
        let content = match frame.kind {
            Open::List(items) => Content::List(items),
            Open::Map { mut entries, known, merges, .. } => {
                self.merge(&mut entries, &known, merges);
                Content::Map(entries)
            }
        };
        Node { content, place, scalar: None }
    }

    /// Puts a finished node where it belongs: under its key, into its list, or on top.
    fn finish(&mut self, node: Node, anchor: usize) {
        if anchor > 0 {
            let weight = weight(&node);
            self.anchors.insert(anchor, Anchored { node: node.clone(), weight });
        }
        let Some(frame) = self.stack.last_mut() else {
            self.documents.push(node);
            return;
        };
        match &mut frame.kind {
            Open::List(items) => items.push(node),
            Open::Map { entries, known, key, merges } => match key.take() {
                Some(Key::Broken) => {}
                Some(Key::Merge) => merges.push(node),
                Some(Key::Name(name, key_place)) => {
                    if let Some(first) = known.get(&name) {
                        let first = self.characters.span(*first);
                        self.problems.push(
                            Diagnostic::error(
                                self.characters.span(key_place),
                                format!("key `{name}` stands here twice"),
                            )
                            .with_note(format!("it first stands in line {}, column {}", first.line, first.column)),
                        );
                        return;
                    }
                    known.insert(name.clone(), key_place);
                    entries.push(Entry { key: name, key_place, value: node });
                }
                None => *key = Some(as_key(node, self.characters, self.problems)),
            },
        }
    }
}

impl Loader<'_> {
    fn scalar(&mut self, text: &str, style: ScalarStyle, tag: Option<&Tag>, place: Place) -> Node {
        let style = match style {
            ScalarStyle::Plain => Style::Plain,
            ScalarStyle::SingleQuoted => Style::Single,
            ScalarStyle::DoubleQuoted => Style::Double,
            ScalarStyle::Literal | ScalarStyle::Folded => Style::Block,
        };
        let mut is_text = style != Style::Plain;
        if let Some(tag) = tag {
            is_text |= tag.suffix == "str";
            if !tag.is_yaml_core_schema() {
                self.refuse_tag(tag, place);
            }
        }
        let content = if is_text { Content::Text } else { resolve_plain(text).unwrap_or(Content::Text) };
        let scalar = Scalar { style, text: text.to_owned(), template: None };
        let node = Node { content, place, scalar: Some(scalar) };
        let is_key = matches!(self.stack.last(), Some(Frame { kind: Open::Map { key: None, .. }, .. }));
        if is_key { node } else { self.interpolated(node) }
    }

    /// The scalar with its references filled; what an unquoted one is then depends on what is wanted there.
    fn interpolated(&mut self, mut node: Node) -> Node {
        let Some(scalar) = &mut node.scalar else { return node };
        match interpolate(&scalar.text, self.environment) {
            Ok(None) => {}
            Ok(Some((text, template))) => {
                scalar.text = text;
                scalar.template = Some(Box::new(template));
                node.content = Content::Text;
            }
            Err(mistakes) => {
                let places = align(&self.characters.chars, node.place, scalar.style, &scalar.text);
                for mistake in mistakes {
                    let at = |index: usize| places.as_ref().and_then(|places| places.get(index).copied());
                    let place = match (at(mistake.at), at(mistake.at + mistake.length)) {
                        (Some(start), Some(end)) => Place { start, end },
                        _ => node.place,
                    };
                    let span = self.characters.span(place);
                    self.problems.push(Diagnostic::error(span, mistake.message).with_hint_opt(mistake.hint));
                }
                node.content = Content::Broken;
            }
        }
        node
    }

    fn alias(&mut self, anchor: usize, place: Place) -> Result<Node, Diagnostic> {
        let span = self.characters.span(place);
        let Some(Anchored { node, weight }) = self.anchors.get(&anchor) else {
            return Err(Diagnostic::error(span, "the alias stands inside what it refers to"));
        };
        self.alias_weight += weight;
        if self.alias_weight > MAX_ALIAS_WEIGHT {
            let message = "the aliases of this file expand to too much";
            return Err(Diagnostic::error(span, message).with_hint("write the repeated parts out, or split the file"));
        }
        Ok(node.clone())
    }

    /// Adds the entries of `<<: *base` that the mapping doesn't have itself; the first base wins.
    fn merge(&mut self, entries: &mut Vec<Entry>, known: &HashMap<String, Place>, merges: Vec<Node>) {
        let mut known: std::collections::HashSet<String> = known.keys().cloned().collect();
        for node in merges {
            let bases = match node.content {
                Content::List(items) => items,
                _ => vec![node],
            };
            for base in bases {
                let Content::Map(inherited) = base.content else {
                    let span = self.characters.span(base.place);
                    self.problems.push(Diagnostic::error(span, "`<<` takes a mapping or a list of mappings"));
                    continue;
                };
                entries.extend(inherited.into_iter().filter(|entry| known.insert(entry.key.clone())));
            }
        }
    }

    fn refuse_tag(&mut self, tag: &Tag, place: Place) {
        let span = self.characters.span(place);
        self.problems.push(Diagnostic::error(span, format!("the YAML tag `{tag}` has no meaning here")));
    }

    fn syntax_error(&self, err: &ScanError) -> Diagnostic {
        let at = err.marker().index();
        let span = self.characters.span(Place { start: at, end: at + 1 });
        let line = self.characters.line(span.line);
        let info = err.info();
        let hint = if info.contains("tab") {
            Some("indent with spaces")
        } else if info.contains("flow mapping") && line.contains("${") {
            Some("inside `{ }` and `[ ]`, a value with `${...}` needs quotes")
        } else if info.contains("mapping values are not allowed") {
            Some("a value with `: ` in it needs quotes")
        } else if info.contains("unexpected character") || info.contains("cannot start any token") {
            Some("a value that begins with this character needs quotes")
        } else if info.contains("did not find expected key") || info.contains("did not find expected '-'") {
            Some("keys of one mapping, and items of one list, begin in the same column")
        } else {
            None
        };
        Diagnostic::error(span, format!("not YAML: {info}")).with_hint_opt(hint.map(str::to_owned))
    }
}

/// A node that stands where a key belongs.
fn as_key(node: Node, characters: &Characters, problems: &mut Vec<Diagnostic>) -> Key {
    match node.scalar {
        Some(scalar) if scalar.text == "<<" && scalar.style == Style::Plain => return Key::Merge,
        Some(scalar) => return Key::Name(scalar.text, node.place),
        None => {}
    }
    let span = characters.span(node.place);
    problems.push(Diagnostic::error(span, "a key must be text, not a list or a mapping"));
    Key::Broken
}

fn place_of(span: &ParserSpan) -> Place {
    Place { start: span.start.index(), end: span.end.index().max(span.start.index()) }
}

/// What a copy of a node adds to the tree.
fn weight(node: &Node) -> usize {
    let own = 1 + node.scalar.as_ref().map_or(0, |scalar| scalar.text.len() / 16);
    let below: usize = match &node.content {
        Content::List(items) => items.iter().map(weight).sum(),
        Content::Map(entries) => entries.iter().map(|entry| 1 + entry.key.len() / 16 + weight(&entry.value)).sum(),
        _ => 0,
    };
    own + below
}
