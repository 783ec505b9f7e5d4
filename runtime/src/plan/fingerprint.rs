//! What a plan was when it left its state, and whether an edited one may go on from there.

use std::collections::{BTreeMap, BTreeSet};

use indexmap::IndexMap;
use logmill_pipelines::ColumnType;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use xxhash_rust::xxh3::xxh3_64;

use super::{OperatorBody, Plan};

/// A plan as it is kept in the manifest.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PlanFingerprint {
    /// The sources by name.
    pub sources: BTreeMap<String, SourcePrint>,
    /// The digests of the static tables' contents, by name.
    pub tables: BTreeMap<String, String>,
    /// The operators by name.
    pub operators: BTreeMap<String, OperatorPrint>,
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
    /// The topic that it is played through, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub through: Option<String>,
}

/// An operator as it is kept in the manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OperatorPrint {
    /// The digest of a query's optimised plan.
    Query(String),
    /// A module.
    Module(ModulePrint),
}

/// A module as it is kept in the manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModulePrint {
    /// The SHA-256 of its file.
    pub module: String,
    /// What it computes: the module, its configuration, and what it says it reads and makes. Hashed, since it may hold
    /// secrets.
    pub identity: String,
    /// The relation that it reads.
    pub input: String,
    /// Whether it remembers something from batch to batch.
    pub stateful: bool,
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

/// How many digits of a digest people are shown.
const SHORT_DIGEST: usize = 12;

impl PlanFingerprint {
    /// The topics that sources are played through.
    pub fn played_through(&self) -> impl Iterator<Item = &String> {
        self.sources.values().filter_map(|source| source.through.as_ref())
    }

    pub(super) fn of(plan: &Plan, digests: &BTreeMap<String, String>) -> Self {
        let sources = plan.sources.iter().map(|source| {
            let spec = &source.spec;
            let identity = hash(&serde_json::json!([spec.r#type, spec.format, spec.through, essential(&spec.rest)]));
            let through = spec.through.as_ref().map(ToString::to_string);
            (source.name.clone(), SourcePrint { identity, schema: columns(source.schema.as_ref()), through })
        });
        let operators = plan.operators.iter().map(|operator| {
            let text = |text| hash(&Value::String(text));
            let print = match &operator.body {
                Some(OperatorBody::Sql(sql)) => OperatorPrint::Query(text(sql.fingerprint())),
                Some(OperatorBody::Wasm(wasm)) => OperatorPrint::Module(ModulePrint {
                    module: wasm.plan.digest().to_owned(),
                    identity: text(wasm.plan.fingerprint()),
                    input: wasm.input.clone(),
                    stateful: wasm.plan.is_stateful(),
                }),
                None => OperatorPrint::Query(String::new()),
            };
            (operator.name.clone(), print)
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

/// Whether the plan `now` may go on from the state that `before` left. `states` names the operators of which there is state.
pub fn compare(before: &PlanFingerprint, now: &PlanFingerprint, states: &BTreeSet<String>) -> Verdict {
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
        match compare_operators(name, was, is, states.contains(name)) {
            Some(Ok(reason)) => accepted.push(reason),
            Some(Err(reason)) => refused.push(reason),
            None => {}
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

/// What to say of an operator that changed: why that is accepted, or refused. Whether a module takes the state that another
/// has left is for the module to say, when it is given it.
fn compare_operators(
    name: &str,
    was: Option<&OperatorPrint>,
    is: Option<&OperatorPrint>,
    has_state: bool,
) -> Option<Result<String, String>> {
    if was == is {
        return None;
    }
    let module = |print: Option<&OperatorPrint>| match print {
        Some(OperatorPrint::Module(module)) => Some(module.clone()),
        _ => None,
    };
    let (was_module, is_module) = (module(was), module(is));
    let stateful = is_module.as_ref().is_some_and(|module| module.stateful);
    if has_state && !stateful {
        let now = if is.is_some() { "keeps no state any more" } else { "is gone" };
        return Some(Err(format!("operator `{name}` {now}, and earlier runs left state of it")));
    }
    Some(Ok(match (was, is, was_module, is_module) {
        (None, ..) => format!("operator `{name}` is new: it sees what is read from now on"),
        (_, None, ..) => format!("operator `{name}` is gone: it had no state"),
        (.., Some(was), Some(is)) if has_state && was.input != is.input => {
            let (was, is) = (was.input, is.input);
            return Some(Err(format!(
                "operator `{name}` reads `{is}` instead of `{was}`, and its state is of the latter"
            )));
        }
        (.., Some(was), Some(is)) if was.module != is.module => {
            let (from, to) = (short(&was.module), short(&is.module));
            let rest = match has_state {
                true => "its state goes on in the new one",
                false => "what the old one made stays as it is",
            };
            format!("operator `{name}` has another module, {to} instead of {from}: {rest}")
        }
        _ if has_state => {
            format!("operator `{name}` changed: its state goes on, and what it made before stays as it is")
        }
        _ => format!("operator `{name}` changed: it has no state, and what it made before stays as it is"),
    }))
}

/// The beginning of a digest, for people.
fn short(digest: &str) -> &str {
    digest.get(..SHORT_DIGEST).unwrap_or(digest)
}

/// The entries of two maps side by side.
fn pairs<'a, T>(
    before: &'a BTreeMap<String, T>,
    now: &'a BTreeMap<String, T>,
) -> impl Iterator<Item = (&'a String, Option<&'a T>, Option<&'a T>)> {
    let names: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
    names.into_iter().map(|name| (name, before.get(name), now.get(name)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn sample() -> PlanFingerprint {
        let schema = IndexMap::from([("a".to_owned(), ColumnType::Int64)]);
        PlanFingerprint {
            sources: BTreeMap::from([(
                "s".into(),
                SourcePrint { identity: "1".into(), schema: schema.clone(), through: None },
            )]),
            tables: BTreeMap::from([("t".into(), "d".into())]),
            operators: BTreeMap::from([("o".into(), OperatorPrint::Query("p".into()))]),
            sinks: BTreeMap::from([("k".into(), SinkPrint { identity: "1".into(), input: "o".into(), schema })]),
        }
    }

    fn check(edit: fn(&mut PlanFingerprint), expected: &str) {
        let mut now = sample();
        edit(&mut now);
        let verdict = format!("{:?}", compare(&sample(), &now, &BTreeSet::new()));
        assert!(verdict.contains(expected), "{expected}: {verdict}");
    }

    #[test]
    fn an_edit_is_accepted_or_refused_with_the_reason() {
        check(|_| {}, "Same");
        check(
            |now| drop(now.operators.insert("o".into(), OperatorPrint::Query("q".into()))),
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

    fn module(module: &str, identity: &str, input: &str, stateful: bool) -> OperatorPrint {
        let (module, identity, input) = (module.to_owned(), identity.to_owned(), input.to_owned());
        OperatorPrint::Module(ModulePrint { module, identity, input, stateful })
    }

    #[test]
    fn a_module_with_state_is_held_to_more() {
        let old = || Some(module("aaaaaaaaaaaaaaaa", "1", "s", true));
        let free = || Some(module("aaaaaaaaaaaaaaaa", "1", "s", false));
        let query = || Some(OperatorPrint::Query("q".into()));
        for (was, is, has_state, expected) in [
            (old(), old(), true, "None"),
            (None, old(), false, "Some(Ok(\"operator `o` is new"),
            (
                old(),
                Some(module("bbbbbbbbbbbbbbbb", "2", "s", true)),
                true,
                "another module, bbbbbbbbbbbb instead of aaaaaaaaaaaa: its state goes on in the new one\"))",
            ),
            (
                free(),
                Some(module("bbbbbbbbbbbbbbbb", "2", "s", false)),
                false,
                "aaaaaaaaaaaa: what the old one made stays as it is\"))",
            ),
            (
                old(),
                Some(module("aaaaaaaaaaaaaaaa", "2", "s", true)),
                true,
                "Some(Ok(\"operator `o` changed: its state goes on",
            ),
            (
                old(),
                Some(module("aaaaaaaaaaaaaaaa", "1", "t", true)),
                true,
                "Some(Err(\"operator `o` reads `t` instead of `s`",
            ),
            (
                old(),
                Some(module("aaaaaaaaaaaaaaaa", "1", "t", true)),
                false,
                "Some(Ok(\"operator `o` changed: it has no state",
            ),
            (old(), free(), true, "Some(Err(\"operator `o` keeps no state any more"),
            (old(), query(), true, "Some(Err(\"operator `o` keeps no state any more"),
            (old(), None, true, "Some(Err(\"operator `o` is gone, and earlier runs left state"),
            (old(), None, false, "Some(Ok(\"operator `o` is gone: it had no state"),
            (free(), old(), false, "Some(Ok(\"operator `o` changed"),
            (query(), old(), false, "Some(Ok(\"operator `o` changed"),
        ] {
            let said = format!("{:?}", compare_operators("o", was.as_ref(), is.as_ref(), has_state));
            assert!(said.contains(expected), "{expected}: {said}");
        }
    }

    #[test]
    fn prints_of_queries_are_read_as_they_always_were() {
        let print: OperatorPrint = serde_json::from_str("\"0123456789abcdef\"").unwrap();
        assert_eq!(print, OperatorPrint::Query("0123456789abcdef".into()));
        let module = module("a", "b", "c", true);
        let text = serde_json::to_string(&module).unwrap();
        assert_eq!(serde_json::from_str::<OperatorPrint>(&text).unwrap(), module);
    }
}
