//! How the parts of a pipeline hang together: names are the edges.
//!
//! ```text
//!   sources ─┐
//!            ├─▶ operators ─▶ operators ─▶ sinks      a table is read by operators, whole, before anything flows
//!   tables ──┘
//! ```
//!
//! An operator may have outputs with names of their own: `scored.rejects` is read from the operator `scored`. Which outputs
//! there are is known to those who load its module.
//!
//! Which relations a SQL query reads is known to those who parse SQL; they hand it in.

use std::collections::BTreeSet;

use indexmap::IndexMap;

use crate::checks::MAPS;
use crate::diagnostics::{Diagnostic, Diagnostics, Span};
use crate::names::relation_parts;
use crate::nearest::nearest;
use crate::pipeline::Pipeline;
use crate::spec::OperatorSpec;

/// A relation that an operator's SQL reads, and where the SQL says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableRef {
    /// The relation's name, as SQL resolves it.
    pub name: String,
    /// The line in the SQL text, from 1; 0 if the place isn't known.
    pub line: usize,
    /// The column in the SQL text, from 1.
    pub column: usize,
}

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NodeKind {
    /// A stream that comes in.
    Source,
    /// A bounded relation.
    Table,
    /// Something computed.
    Operator,
    /// A stream that goes out.
    Sink,
}

impl NodeKind {
    /// The map of the YAML that holds such nodes, and the word for one.
    pub const fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Source => MAPS[0],
            Self::Table => MAPS[1],
            Self::Operator => MAPS[2],
            Self::Sink => MAPS[3],
        }
    }
}

/// One part of a pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GraphNode {
    /// What it is.
    pub kind: NodeKind,
    /// The names of the parts it reads, each once, in the order in which it names them.
    pub inputs: Vec<String>,
    /// The relations it reads, as it names them: parts, or `part.output`.
    pub relations: Vec<String>,
}

/// The parts of a pipeline and what each reads. It has no cycle.
#[derive(Clone, Debug)]
pub struct Graph {
    /// Every part by name, each after all that it reads.
    pub nodes: IndexMap<String, GraphNode>,
    /// Parts that read, directly or through others, something that is missing or wrong, so that nothing can be said about
    /// what flows into them. Empty if there is no mistake.
    pub incomplete: BTreeSet<String>,
    /// What is probably not as meant.
    pub warnings: Vec<Diagnostic>,
}

/// An edge with the place that names it.
struct Edge {
    /// The part that it comes from.
    from: String,
    /// As it is named: the part, or `part.output`.
    relation: String,
    span: Span,
}

impl Edge {
    fn new(relation: &str, span: Span) -> Self {
        Self { from: relation_parts(relation).0.to_owned(), relation: relation.to_owned(), span }
    }
}

/// A part with its edges, before it is known that they lead anywhere.
struct Part<'a> {
    name: &'a str,
    kind: NodeKind,
    edges: Vec<Edge>,
}

impl Graph {
    /// Follows the names. `refs` says which relations an operator's SQL reads, by the operator's name; it isn't asked for
    /// other operators.
    ///
    /// # Errors
    /// Every name that leads nowhere, and every cycle.
    pub fn build(pipeline: &Pipeline, refs: &dyn Fn(&str) -> Vec<TableRef>) -> Result<Self, Diagnostics> {
        let (graph, found) = Self::follow(pipeline, refs);
        if found.has_errors() { Err(found) } else { Ok(graph) }
    }

    /// As [`Self::build`], for checking a pipeline further although something is wrong: edges that lead nowhere are left
    /// out of the graph, and so are parts that wait for themselves.
    pub fn follow(pipeline: &Pipeline, refs: &dyn Fn(&str) -> Vec<TableRef>) -> (Self, Diagnostics) {
        let parts = parts(pipeline, refs);
        let mut found = pipeline.diagnostics();
        for part in &parts {
            let wrong = part.edges.iter().filter_map(|edge| misdirected(pipeline, &parts, part, edge));
            found.extend(wrong.map(|diagnostic| pipeline.redacted_diagnostic(diagnostic)));
        }
        let (nodes, cycles) = sort(&parts);
        found.extend(cycles);
        let incomplete = incomplete(&parts, &nodes);
        // What has a mistake may be what was meant to read the idle part.
        let quiet = found.has_errors() || !pipeline.broken.is_empty();
        let warnings = if quiet { Vec::new() } else { unused(pipeline, &parts) };
        (Self { nodes, incomplete, warnings }, found)
    }

    /// The names of those that read a part.
    pub fn readers<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let reads = move |node: &GraphNode| node.inputs.iter().any(|input| input == name);
        self.nodes.iter().filter(move |(_, node)| reads(node)).map(|(reader, _)| reader.as_str())
    }
}

/// Every part in the order of the file's maps. Where a name is used twice, the first.
fn parts<'a>(pipeline: &'a Pipeline, refs: &dyn Fn(&str) -> Vec<TableRef>) -> Vec<Part<'a>> {
    let spec = &pipeline.spec;
    let spans = &pipeline.spans;
    let leaf = |name: &'a String, kind| Part { name, kind, edges: Vec::new() };
    let mut parts: Vec<Part<'a>> = spec.sources.keys().map(|name| leaf(name, NodeKind::Source)).collect();
    parts.extend(spec.tables.keys().map(|name| leaf(name, NodeKind::Table)));
    for (name, operator) in &spec.operators {
        let edges = match operator {
            OperatorSpec::Sql(_) => refs(name).into_iter().map(|table| sql_edge(pipeline, name, table)).collect(),
            OperatorSpec::Wasm(wasm) => {
                vec![Edge::new(&wasm.input, spans.of(&["operators", name, "wasm", "input"]))]
            }
        };
        parts.push(Part { name, kind: NodeKind::Operator, edges });
    }
    for (name, sink) in &spec.sinks {
        let edge = Edge::new(&sink.input, spans.of(&["sinks", name, "input"]));
        parts.push(Part { name, kind: NodeKind::Sink, edges: vec![edge] });
    }
    let mut known = std::collections::HashSet::new();
    parts.retain(|part| known.insert(part.name));
    parts
}

fn sql_edge(pipeline: &Pipeline, operator: &str, table: TableRef) -> Edge {
    let path = ["operators", operator, "sql"];
    let span = match table.line {
        0 => pipeline.spans.of(&path),
        line => pipeline.spans.inside_block(&path, line, table.column),
    };
    Edge::new(&table.name, span)
}

/// What is wrong with where an edge comes from.
fn misdirected(pipeline: &Pipeline, parts: &[Part<'_>], part: &Part<'_>, edge: &Edge) -> Option<Diagnostic> {
    if pipeline.broken.contains(&edge.from) {
        return None;
    }
    let (_, word) = part.kind.names();
    let reader = part.name;
    let name = &edge.from;
    match parts.iter().find(|part| part.name == name).map(|part| part.kind) {
        Some(NodeKind::Sink) => {
            let message = format!("the {word} `{reader}` reads `{name}`, which is a sink");
            Some(Diagnostic::error(edge.span, message).with_hint(format!("read what `{name}` reads: its `input`")))
        }
        Some(NodeKind::Table) if part.kind == NodeKind::Sink => {
            let message = format!("the sink `{reader}` reads `{name}`, which is a table");
            Some(Diagnostic::error(edge.span, message).with_hint("a table is for operators to join with"))
        }
        Some(NodeKind::Table) if is_module(pipeline, reader) => {
            let message = format!("the wasm operator `{reader}` reads `{name}`, which is a table");
            Some(Diagnostic::error(edge.span, message).with_hint("join the table in an `sql` operator, and read that"))
        }
        Some(_) => without_outputs(pipeline, reader, word, edge),
        None => {
            let readable = parts
                .iter()
                .filter(|part| part.kind != NodeKind::Sink && (word != "sink" || part.kind != NodeKind::Table))
                .map(|part| part.name)
                .filter(|candidate| *candidate != reader);
            let what = if word == "sink" { "source or operator" } else { "source, table or operator" };
            let relation = &edge.relation;
            let message = format!("the {word} `{reader}` reads `{relation}`, but there is no such {what}");
            let output = relation.strip_prefix(name.as_str()).unwrap_or_default();
            let hint = match nearest(name, readable.clone()) {
                Some(near) => format!("did you mean `{near}{output}`?"),
                None => {
                    format!("there are {}", readable.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "))
                }
            };
            Some(Diagnostic::error(edge.span, message).with_hint(hint))
        }
    }
}

fn is_module(pipeline: &Pipeline, name: &str) -> bool {
    matches!(pipeline.spec.operators.get(name), Some(OperatorSpec::Wasm(_)))
}

/// What is wrong with an edge that names an output of a part whose only output goes by its own name.
fn without_outputs(pipeline: &Pipeline, reader: &str, word: &str, edge: &Edge) -> Option<Diagnostic> {
    let (name, relation) = (&edge.from, &edge.relation);
    if is_module(pipeline, name) || name == relation {
        return None;
    }
    let message = format!("the {word} `{reader}` reads `{relation}`, but only wasm operators have outputs with names");
    Some(Diagnostic::error(edge.span, message).with_hint(format!("read `{name}`")))
}

/// The parts, each after what it reads, and the cycles that hinder it.
fn sort(parts: &[Part<'_>]) -> (IndexMap<String, GraphNode>, Vec<Diagnostic>) {
    let mut nodes: IndexMap<String, GraphNode> = IndexMap::new();
    let mut waiting: Vec<&Part<'_>> = parts.iter().collect();
    loop {
        let before = nodes.len();
        waiting.retain(|part| {
            // Nothing comes out of a sink; an edge from one is a mistake of its own.
            let known = |name: &str| parts.iter().any(|part| part.name == name && part.kind != NodeKind::Sink);
            let ready = part.edges.iter().all(|edge| nodes.contains_key(&edge.from) || !known(&edge.from));
            if ready {
                let mut node = GraphNode { kind: part.kind, inputs: Vec::new(), relations: Vec::new() };
                for edge in part.edges.iter().filter(|edge| known(&edge.from)) {
                    if !node.inputs.contains(&edge.from) {
                        node.inputs.push(edge.from.clone());
                    }
                    if !node.relations.contains(&edge.relation) {
                        node.relations.push(edge.relation.clone());
                    }
                }
                nodes.insert(part.name.to_owned(), node);
            }
            !ready
        });
        if nodes.len() == before {
            return (nodes, cycles(&waiting));
        }
    }
}

/// The parts that a mistake reaches. In the order of `nodes`, each comes after what it reads.
fn incomplete(parts: &[Part<'_>], nodes: &IndexMap<String, GraphNode>) -> BTreeSet<String> {
    let mut reached: BTreeSet<String> = BTreeSet::new();
    let waiting = parts.iter().filter(|part| !nodes.contains_key(part.name)).map(|part| part.name.to_owned());
    reached.extend(waiting);
    for (name, node) in nodes {
        let edges = parts.iter().find(|part| part.name == name).map_or(&[][..], |part| &part.edges);
        let lost = edges.iter().any(|edge| !node.inputs.contains(&edge.from));
        if lost || node.inputs.iter().any(|input| reached.contains(input)) {
            reached.insert(name.clone());
        }
    }
    reached
}

/// Each loop among parts that wait for one another, once.
fn cycles(waiting: &[&Part<'_>]) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let mut seen: Vec<&str> = Vec::new();
    for part in waiting {
        let mut path: Vec<&Part<'_>> = vec![part];
        // Everything that waits reads something that waits, so a walk against the flow ends in a loop.
        let start = loop {
            let Some(last) = path.last() else { break None };
            let next = last.edges.iter().find_map(|edge| waiting.iter().find(|part| part.name == edge.from));
            let Some(next) = next else { break None };
            if let Some(at) = path.iter().position(|part| part.name == next.name) {
                break Some(at);
            }
            path.push(next);
        };
        let Some(members) = start.and_then(|start| path.get(start..)) else { continue };
        if members.iter().any(|part| seen.contains(&part.name)) {
            continue;
        }
        seen.extend(members.iter().map(|part| part.name));
        found.extend(cycle(members));
    }
    found
}

/// A loop, in the direction in which rows would flow, from the member that stands first in the file.
fn cycle(members: &[&Part<'_>]) -> Option<Diagnostic> {
    let mut names: Vec<&str> = members.iter().rev().map(|part| part.name).collect();
    let spans =
        |part: &Part<'_>| part.edges.iter().find(|edge| names.contains(&edge.from.as_str())).map(|edge| edge.span);
    let (first, span) =
        members.iter().filter_map(|part| Some((part.name, spans(part)?))).min_by_key(|(_, span)| *span)?;
    let at = names.iter().position(|name| *name == first)?;
    names.rotate_left(at);
    names.push(first);
    let message = match names.as_slice() {
        [only, _] => format!("the operator `{only}` reads itself"),
        _ => format!("operators read each other in a cycle: {}", names.join(" -> ")),
    };
    let hint = "rows flow one way; to feed results back, write them to a topic and read that topic as a source";
    Some(Diagnostic::error(span, message).with_hint(hint))
}

/// Parts that nothing reads.
fn unused(pipeline: &Pipeline, parts: &[Part<'_>]) -> Vec<Diagnostic> {
    let read = |name: &str| parts.iter().any(|part| part.edges.iter().any(|edge| edge.from == name));
    let idle = parts.iter().filter(|part| part.kind != NodeKind::Sink && !read(part.name));
    idle.map(|part| {
        let (map, word) = part.kind.names();
        let span = pipeline.spans.key(&[map, part.name]);
        Diagnostic::warning(span, format!("no operator or sink reads the {word} `{}`", part.name))
    })
    .collect()
}
