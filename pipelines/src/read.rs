//! From a file's text to a pipeline: YAML, interpolation, schema, then everything else, with all mistakes of all steps.
//!
//! A part with a mistake (a source, an operator) is left out for the steps that follow, and remembered by name, so that
//! its mistakes hide no others and cause none.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::catalog::Catalog;
use crate::checks::{MAPS, check};
use crate::diagnostics::{Diagnostic, Diagnostics, SourceText, Span};
use crate::environment::Environment;
use crate::pipeline::{Pipeline, redact};
use crate::spans::Spans;
use crate::spec::PipelineSpec;
use crate::tree::{Characters, Content, Node};
use crate::validate::{Mistake, validate};
use crate::yaml;

/// Values from the environment that are shorter than this are not searched for in texts: they would hit by chance.
const MIN_SECRET_CHARS: usize = 4;

/// Maps whose entries are no parts that rows flow through.
const OTHER_MAPS: [&str; 2] = ["topics", FUNCTIONS];
const FUNCTIONS: &str = "functions";

/// What reading a file gave.
#[derive(Debug)]
pub struct Reading {
    /// The pipeline, less what is wrong in it; `None` if nothing of it could be made out. Only if `diagnostics` holds no
    /// error may it be run.
    pub pipeline: Option<Pipeline>,
    /// Every mistake and warning.
    pub diagnostics: Diagnostics,
}

/// Reads a pipeline for running it.
///
/// # Errors
/// Every mistake, if there is an error among them.
pub fn parse(
    file_name: &str,
    text: &str,
    catalog: &Catalog,
    environment: &dyn Environment,
) -> Result<Pipeline, Diagnostics> {
    let reading = read(file_name, text, catalog, environment);
    match reading.pipeline {
        Some(pipeline) if !reading.diagnostics.has_errors() => Ok(pipeline),
        _ => Err(reading.diagnostics),
    }
}

/// Reads a pipeline for checking it: what is right in it can be checked further although something is wrong.
pub fn read(file_name: &str, text: &str, catalog: &Catalog, environment: &dyn Environment) -> Reading {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let source = SourceText::new(file_name, text);
    let characters = Characters::new(text);
    let mut diagnostics = Diagnostics::new(source.clone());
    let mut problems = Vec::new();
    let root = yaml::load(text, &characters, environment, &mut problems);
    diagnostics.extend(problems);
    let Some(mut root) = root else { return Reading { pipeline: None, diagnostics } };
    let mistakes = validate("the pipeline", catalog.schema(), &mut root, &characters);
    let broken = broken(&root, &mistakes);
    diagnostics.extend(mistakes.into_iter().map(|mistake| mistake.diagnostic));
    let redacted = root.to_redacted_json();
    let mut secrets = Vec::new();
    collect_secrets(&root, &mut secrets);
    secrets.sort_by_key(|secret: &String| std::cmp::Reverse(secret.len()));
    let value = sound(&root, &broken, diagnostics.has_errors());
    let spans = Spans::new(characters, root);
    let spec: PipelineSpec = match serde_json::from_value(value) {
        Ok(spec) => spec,
        Err(err) => {
            if !diagnostics.has_errors() {
                diagnostics.push(Diagnostic::error(Span::START, redact(&secrets, &err.to_string())));
            }
            return Reading { pipeline: None, diagnostics };
        }
    };
    let found = check(&spec, &spans, &broken.parts).into_iter();
    diagnostics.extend(found.map(|diagnostic| diagnostic.map_text(&|text| redact(&secrets, text))));
    let warnings = diagnostics.items().iter().filter(|item| item.severity == crate::Severity::Warning);
    let warnings = warnings.cloned().collect();
    let Broken { parts: broken, functions: broken_functions, .. } = broken;
    let pipeline = Pipeline { spec, spans, source, warnings, redacted, secrets, broken, broken_functions };
    Reading { pipeline: Some(pipeline), diagnostics }
}

/// What must be left out because of mistakes.
struct Broken {
    /// Names of sources, tables, operators and sinks.
    parts: BTreeSet<String>,
    /// Names of functions.
    functions: BTreeSet<String>,
    /// Entries of the maps, and keys of the pipeline.
    paths: BTreeSet<(String, Option<String>)>,
}

fn broken(root: &Node, mistakes: &[Mistake]) -> Broken {
    let mut paths: BTreeSet<(String, Option<String>)> = BTreeSet::new();
    for mistake in mistakes {
        if let Some(first) = mistake.path.first() {
            paths.insert((first.clone(), mistake.path.get(1).cloned()));
        }
    }
    for entry in root.entries() {
        if has_broken(&entry.value) {
            let inner = entry.value.entries().iter().filter(|inner| has_broken(&inner.value));
            let mut found = false;
            for inner in inner {
                found = true;
                paths.insert((entry.key.clone(), Some(inner.key.clone())));
            }
            if !found {
                paths.insert((entry.key.clone(), None));
            }
        }
    }
    let in_maps = paths.iter().filter(|(map, _)| MAPS.iter().any(|(name, _)| name == map));
    let parts = in_maps.filter_map(|(_, name)| name.clone()).collect();
    let functions = paths.iter().filter(|(map, _)| map == FUNCTIONS);
    let functions = functions.filter_map(|(_, name)| name.clone()).collect();
    Broken { parts, functions, paths }
}

/// Whether something in it could not be read.
fn has_broken(node: &Node) -> bool {
    match &node.content {
        Content::Broken => true,
        Content::List(items) => items.iter().any(has_broken),
        Content::Map(entries) => entries.iter().any(|entry| has_broken(&entry.value)),
        _ => false,
    }
}

/// The document as a value, less what is broken; keys that must be there are put in if something is wrong anyway.
fn sound(root: &Node, broken: &Broken, has_errors: bool) -> Value {
    let Value::Object(mut all) = root.to_json() else { return Value::Null };
    for (key, inner) in &broken.paths {
        match (all.get_mut(key), inner) {
            (Some(Value::Object(entries)), Some(name))
                if MAPS.iter().any(|(map, _)| map == key) || OTHER_MAPS.contains(&key.as_str()) =>
            {
                entries.shift_remove(name);
            }
            (Some(Value::Array(tests)), Some(index)) if key == "tests" => {
                // An empty test keeps the places of those that follow.
                let test = index.parse().ok().and_then(|index: usize| tests.get_mut(index));
                if let Some(test) = test {
                    *test = json!({ "name": "", "input": {}, "expect": {} });
                }
            }
            _ => {
                all.shift_remove(key);
            }
        }
    }
    if has_errors {
        all.entry("pipeline").or_insert_with(|| json!("unnamed"));
        for key in ["sources", "sinks"] {
            all.entry(key).or_insert_with(|| Value::Object(Map::new()));
        }
    }
    all.retain(|_, value| !value.is_null());
    Value::Object(all)
}

fn collect_secrets(node: &Node, secrets: &mut Vec<String>) {
    if let Some(scalar) = node.scalar.as_ref().filter(|_| node.is_secret()) {
        let values = scalar.template.iter().flat_map(|template| template.values.iter());
        secrets.extend(values.filter(|value| value.chars().count() >= MIN_SECRET_CHARS).cloned());
    }
    match &node.content {
        Content::List(items) => items.iter().for_each(|item| collect_secrets(item, secrets)),
        Content::Map(entries) => entries.iter().for_each(|entry| collect_secrets(&entry.value, secrets)),
        _ => {}
    }
}
