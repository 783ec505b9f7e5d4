//! What a plan was when it left its state, and whether an edited one may go on from there.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use logmill_pipelines::ColumnType;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use xxhash_rust::xxh3::xxh3_64;

use super::Plan;

/// A plan as it is kept in the manifest.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PlanFingerprint {
    /// The sources by name.
    pub sources: BTreeMap<String, SourcePrint>,
    /// The digests of the static tables' contents, by name.
    pub tables: BTreeMap<String, String>,
    /// Digests of the operators' optimised plans, by name.
    pub operators: BTreeMap<String, String>,
    /// The sinks by name.
    pub sinks: BTreeMap<String, SinkPrint>,
}

/// A source as it is kept in the manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourcePrint {
    /// What decides whether positions fit: the connector, its keys, the topic it is played through. Hashed, since it may
    /// hold secrets.
    pub identity: String,
    /// The columns, declared or inferred: a later run reads with the same.
    pub schema: IndexMap<String, ColumnType>,
}

/// A sink as it is kept in the manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SinkPrint {
    /// What decides whether carried rows and tokens fit: the connector, its keys, its format. Hashed, since it may hold
    /// secrets.
    pub identity: String,
    /// What it writes.
    pub input: String,
    /// Its columns.
    pub schema: IndexMap<String, ColumnType>,
}

/// Whether a plan may go on from the state of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is the same.
    Same,
    /// It differs, and the state still fits.
    Compatible {
        /// What changed, and why that is accepted.
        reasons: Vec<String>,
    },
    /// The state does not fit.
    Incompatible {
        /// What changed, and why that is refused.
        reasons: Vec<String>,
    },
}

/// Keys of connectors that say how fast or how far to read, or when to finish files, and not what.
const TUNING_KEYS: [&str; 5] = ["rate", "roll", "follow", "compression", "options"];

impl PlanFingerprint {
    pub(super) fn of(plan: &Plan, digests: &BTreeMap<String, String>) -> Self {
        let sources = plan.sources.iter().map(|source| {
            let spec = &source.spec;
            let identity = hash(&serde_json::json!([spec.r#type, spec.format, spec.through, essential(&spec.rest)]));
            (source.name.clone(), SourcePrint { identity, schema: columns(source.schema.as_ref()) })
        });
        let operators = plan.operators.iter().map(|operator| {
            let text = operator.sql.as_ref().map(|sql| sql.fingerprint()).unwrap_or_default();
            (operator.name.clone(), hash(&Value::String(text)))
        });
        let sinks = plan.sinks.iter().map(|sink| {
            let identity = hash(&serde_json::json!([sink.spec.r#type, sink.spec.format, essential(&sink.spec.rest)]));
            let print = SinkPrint { identity, input: sink.input.clone(), schema: columns(sink.schema.as_ref()) };
            (sink.name.clone(), print)
        });
        Self {
            sources: sources.collect(),
            tables: digests.clone(),
            operators: operators.collect(),
            sinks: sinks.collect(),
        }
    }
}

fn essential(rest: &serde_json::Map<String, Value>) -> BTreeMap<&String, &Value> {
    rest.iter().filter(|(key, _)| !TUNING_KEYS.contains(&key.as_str())).collect()
}

fn hash(value: &Value) -> String {
    format!("{:016x}", xxh3_64(value.to_string().as_bytes()))
}

fn columns(schema: Option<&arrow::datatypes::SchemaRef>) -> IndexMap<String, ColumnType> {
    let fields = schema.into_iter().flat_map(|schema| schema.fields().iter());
    fields.filter_map(|field| Some((field.name().clone(), ColumnType::from_field(field).ok()?))).collect()
}

/// Whether the plan `now` may go on from the state that `before` left.
pub fn compare(before: &PlanFingerprint, now: &PlanFingerprint) -> Verdict {
    let (mut accepted, mut refused) = (Vec::new(), Vec::new());
    for (name, was, is) in pairs(&before.sources, &now.sources) {
        match (was, is) {
            (None, Some(_)) => accepted.push(format!("source `{name}` is new: read from its beginning")),
            (Some(_), None) => accepted.push(format!("source `{name}` is gone: its positions are forgotten")),
            (Some(was), Some(is)) if was.identity != is.identity => refused.push(format!(
                "source `{name}` reads something else, or reads it in another way: its saved positions do not fit"
            )),
            (Some(was), Some(is)) if was.schema != is.schema => accepted
                .push(format!("source `{name}` has other columns: what was read before was read with the old ones")),
            _ => {}
        }
    }
    for (name, was, is) in pairs(&before.tables, &now.tables) {
        if was != is {
            accepted.push(format!("table `{name}` has other rows: what was joined before keeps the old ones"));
        }
    }
    for (name, was, is) in pairs(&before.operators, &now.operators) {
        if was != is {
            accepted.push(match (was, is) {
                (None, _) => format!("operator `{name}` is new: it sees what is read from now on"),
                (_, None) => format!("operator `{name}` is gone: it had no state"),
                _ => format!("operator `{name}` changed: it has no state, and what it made before stays as it is"),
            });
        }
    }
    for (name, was, is) in pairs(&before.sinks, &now.sinks) {
        match (was, is) {
            (None, Some(_)) => accepted.push(format!("sink `{name}` is new: it gets what is read from now on")),
            (Some(_), None) => refused.push(format!("sink `{name}` is gone: rows that it was given may not be written yet")),
            (Some(was), Some(is)) if was.identity != is.identity || was.schema != is.schema => refused.push(format!(
                "sink `{name}` writes elsewhere, otherwise or other columns: rows that it was given may not be written yet"
            )),
            (Some(was), Some(is)) if was.input != is.input => {
                accepted.push(format!("sink `{name}` reads `{}` instead of `{}` from now on", is.input, was.input));
            }
            _ => {}
        }
    }
    match (refused.is_empty(), accepted.is_empty()) {
        (true, true) => Verdict::Same,
        (true, false) => Verdict::Compatible { reasons: accepted },
        (false, _) => Verdict::Incompatible { reasons: refused },
    }
}

/// The entries of two maps side by side.
fn pairs<'a, T>(
    before: &'a BTreeMap<String, T>,
    now: &'a BTreeMap<String, T>,
) -> impl Iterator<Item = (&'a String, Option<&'a T>, Option<&'a T>)> {
    let names: std::collections::BTreeSet<&String> = before.keys().chain(now.keys()).collect();
    names.into_iter().map(|name| (name, before.get(name), now.get(name)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn sample() -> PlanFingerprint {
        let schema = IndexMap::from([("a".to_owned(), ColumnType::Int64)]);
        PlanFingerprint {
            sources: BTreeMap::from([("s".into(), SourcePrint { identity: "1".into(), schema: schema.clone() })]),
            tables: BTreeMap::from([("t".into(), "d".into())]),
            operators: BTreeMap::from([("o".into(), "p".into())]),
            sinks: BTreeMap::from([("k".into(), SinkPrint { identity: "1".into(), input: "o".into(), schema })]),
        }
    }

    fn check(edit: fn(&mut PlanFingerprint), expected: &str) {
        let mut now = sample();
        edit(&mut now);
        let verdict = format!("{:?}", compare(&sample(), &now));
        assert!(verdict.contains(expected), "{expected}: {verdict}");
    }

    #[test]
    fn an_edit_is_accepted_or_refused_with_the_reason() {
        check(|_| {}, "Same");
        check(
            |now| drop(now.operators.insert("o".into(), "q".into())),
            "Compatible { reasons: [\"operator `o` changed",
        );
        check(|now| drop(now.tables.insert("t".into(), "e".into())), "Compatible { reasons: [\"table `t`");
        check(|now| drop(now.sources.remove("s")), "Compatible { reasons: [\"source `s` is gone");
        check(|now| now.sinks.get_mut("k").unwrap().input = "x".into(), "Compatible { reasons: [\"sink `k` reads `x`");
        check(
            |now| now.sources.get_mut("s").unwrap().identity = "2".into(),
            "Incompatible { reasons: [\"source `s` reads something else",
        );
        check(
            |now| now.sinks.get_mut("k").unwrap().identity = "2".into(),
            "Incompatible { reasons: [\"sink `k` writes elsewhere",
        );
        check(|now| drop(now.sinks.remove("k")), "Incompatible { reasons: [\"sink `k` is gone");
    }
}
