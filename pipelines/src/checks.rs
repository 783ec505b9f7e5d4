//! What a schema can't say: names that are used twice, columns that aren't there, parts that don't exist yet.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use crate::column::ColumnType;
use crate::diagnostics::Diagnostic;
use crate::names::relation_parts;
use crate::nearest::nearest;
use crate::spans::Spans;
use crate::spec::{Columns, OnError, OperatorSpec, PipelineSpec};
use crate::units::{ByteSize, DurationSpec};

/// The least memory of a module's instance: a page of WebAssembly.
const LEAST_MEMORY: ByteSize = ByteSize(64 << 10);
/// The most: all that 32-bit WebAssembly can address.
const MOST_MEMORY: ByteSize = ByteSize(4 << 30);
/// How long a call may take at most: a call that never ends would hold every commit until then, and a stop as well.
const MOST_DEADLINE: DurationSpec = DurationSpec(Duration::from_secs(3600));

/// The most time between two commits. A transaction may stay open for three times as long, and Kafka's brokers and ours
/// allow 15 minutes (`transaction.max.timeout.ms`).
const MOST_COMMIT_EVERY: DurationSpec = DurationSpec(Duration::from_secs(300));

/// The maps whose keys share one namespace, and what their entries are called.
pub(crate) const MAPS: [(&str, &str); 4] =
    [("sources", "source"), ("tables", "table"), ("operators", "operator"), ("sinks", "sink")];

/// Checks a spec; entries in `broken` were found wrong before and are missing from it.
pub(crate) fn check(spec: &PipelineSpec, spans: &Spans, broken: &BTreeSet<String>) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    duplicate_names(spans, &mut found);
    event_times(spec, spans, &mut found);
    through_topics(spec, spans, &mut found);
    tests(spec, spans, broken, &mut found);
    for (name, operator) in &spec.operators {
        if let OperatorSpec::Wasm(wasm) = operator {
            limits(spans, &["operators", name, "wasm"], wasm.memory, wasm.deadline, &mut found);
        }
    }
    for (name, function) in &spec.functions {
        limits(spans, &["functions", name], function.memory, function.deadline, &mut found);
    }
    if spec.commit.every.0.is_zero() {
        let span = spans.of(&["commit", "every"]);
        found.push(Diagnostic::error(span, "`commit.every` must be longer than 0s").with_hint("1s is the default"));
    }
    if spec.commit.every > MOST_COMMIT_EVERY {
        let message = format!("`commit.every` must be at most {}", MOST_COMMIT_EVERY);
        let hint = "each commit is a transaction of the log, which ends those that stay open for 15m; files of a sink may \
                    still be rarer: set its `roll.every`";
        found.push(Diagnostic::error(spans.of(&["commit", "every"]), message).with_hint(hint));
    }
    found
}

/// A name may stand in one of the maps only.
fn duplicate_names(spans: &Spans, found: &mut Vec<Diagnostic>) {
    let mut first: HashMap<&str, (&str, &str)> = HashMap::new();
    for (map, word) in MAPS {
        for entry in spans.root().get(map).map_or(&[][..], |node| node.entries()) {
            if let Some((other, other_map)) = first.get(entry.key.as_str()) {
                let line = spans.key(&[other_map, &entry.key]).line;
                let article = if other.starts_with('o') { "an" } else { "a" };
                let message = format!("the {word} `{}` has the name of {article} {other}", entry.key);
                found.push(
                    Diagnostic::error(spans.key(&[map, &entry.key]), message)
                        .with_note(format!("the {other} `{}` stands in line {line}", entry.key))
                        .with_hint("sources, tables, operators and sinks share one namespace: rename one of them"),
                );
                continue;
            }
            first.insert(&entry.key, (word, map));
        }
    }
}

/// The column that tells the time must be there, and tell the time.
fn event_times(spec: &PipelineSpec, spans: &Spans, found: &mut Vec<Diagnostic>) {
    for (name, source) in &spec.sources {
        if let (Some(schema), Some(event_time)) = (&source.schema, &source.event_time) {
            let span = spans.of(&["sources", name, "event_time", "column"]);
            found.extend(event_time_column(schema, &event_time.column, name, span));
        }
    }
}

fn event_time_column(
    schema: &Columns,
    column: &str,
    source: &str,
    span: crate::diagnostics::Span,
) -> Option<Diagnostic> {
    if column == "_timestamp" {
        return None;
    }
    let Some(column_type) = schema.get(column) else {
        let message = format!("the source `{source}` has no column `{column}`");
        let hint = match nearest(column, schema.keys().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("its columns are {}", schema.keys().cloned().collect::<Vec<_>>().join(", ")),
        };
        return Some(Diagnostic::error(span, message).with_hint(hint));
    };
    if matches!(column_type, ColumnType::Timestamp | ColumnType::TimestampLocal) {
        return None;
    }
    let message = format!("event time needs a column of type timestamp; `{column}` is {column_type}");
    Some(Diagnostic::error(span, message))
}

/// A module needs room and time for anything at all.
fn limits(
    spans: &Spans,
    path: &[&str],
    memory: Option<ByteSize>,
    deadline: Option<DurationSpec>,
    found: &mut Vec<Diagnostic>,
) {
    for (key, problem, hint) in limit_problems(memory, deadline) {
        found.push(Diagnostic::error(spans.of(&[path, &[key]].concat()), format!("`{key}` {problem}")).with_hint(hint));
    }
}

/// What is wrong with the limits of a module: `memory` or `deadline`, the rule that it breaks, and a hint.
pub fn limit_problems(
    memory: Option<ByteSize>,
    deadline: Option<DurationSpec>,
) -> impl Iterator<Item = (&'static str, String, &'static str)> {
    let memory = memory.and_then(|memory| match memory.bytes() {
        bytes if bytes < LEAST_MEMORY.bytes() => Some(format!("must be at least {LEAST_MEMORY}")),
        bytes if bytes > MOST_MEMORY.bytes() => Some(format!("must be at most {MOST_MEMORY}")),
        _ => None,
    });
    let deadline = deadline.and_then(|deadline| match deadline.0 {
        Duration::ZERO => Some("must be longer than 0s".to_owned()),
        longer if longer > MOST_DEADLINE.0 => Some(format!("must be at most {MOST_DEADLINE}")),
        _ => None,
    });
    let memory = memory.map(|problem| ("memory", problem, "128MiB is the default"));
    memory.into_iter().chain(deadline.map(|problem| ("deadline", problem, "1s is the default")))
}

/// Two sources that wrote to the same topic would read each other's records.
fn through_topics(spec: &PipelineSpec, spans: &Spans, found: &mut Vec<Diagnostic>) {
    let mut users: HashMap<&str, &str> = HashMap::new();
    for (name, source) in &spec.sources {
        let Some(topic) = &source.through else { continue };
        if let Some(other) = users.insert(topic, name) {
            let span = spans.of(&["sources", name, "through"]);
            let message = format!("the sources `{other}` and `{name}` both go through the topic `{topic}`");
            found.push(Diagnostic::error(span, message).with_hint("give each a topic of its own"));
        }
    }
}

/// Tests feed sources and look at operators.
fn tests(spec: &PipelineSpec, spans: &Spans, broken: &BTreeSet<String>, found: &mut Vec<Diagnostic>) {
    for (index, test) in spec.tests.iter().enumerate() {
        let index = index.to_string();
        let sources = || spec.sources.keys().map(String::as_str);
        let operators = || spec.operators.keys().map(String::as_str);
        let relations = || sources().chain(operators());
        for name in test.input.keys().filter(|name| !spec.sources.contains_key(*name) && !broken.contains(*name)) {
            let span = spans.key(&["tests", &index, "input", name]);
            let near = nearest(name, sources()).map(|near| format!("did you mean `{near}`?"));
            found.push(Diagnostic::error(span, format!("there is no source `{name}`")).with_hint_opt(near));
        }
        let is_wasm = |name: &str| matches!(spec.operators.get(name), Some(OperatorSpec::Wasm(_)));
        let letters = match &spec.on_error {
            OnError::DeadLetter(topic) => Some(topic.as_str()),
            OnError::Stop => None,
        };
        let known = |name: &String| match relation_parts(name) {
            _ if letters == Some(name.as_str()) => true,
            (part, Some(_)) => is_wasm(part) || broken.contains(part),
            (part, None) => spec.sources.contains_key(part) || spec.operators.contains_key(part),
        };
        for name in test.expect.keys().filter(|name| !known(name) && !broken.contains(*name)) {
            let span = spans.key(&["tests", &index, "expect", name]);
            let hint = match nearest(name, relations()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("there are {}", relations().collect::<Vec<_>>().join(", ")),
            };
            found.push(Diagnostic::error(span, format!("there is no operator `{name}`")).with_hint(hint));
        }
    }
}
