//! The manifest: what a committed checkpoint consists of, as records of a topic.
//!
//! One record for each shard of each stage, keyed `<pipeline>/<stage>/<shard>`, so that an epoch writes only what changed
//! in it and workers that own some shards can later write theirs. All records of an epoch are part of its log transaction.
//!
//! ```text
//!   late-flights/plan/0             epoch, incarnation, plan, pinned schemas
//!   late-flights/source:flights/3   positions of the splits of shard 3
//!   late-flights/intake:flights/0   the same for a source that is played `through:` a topic
//!   late-flights/operator:scored/5  what the operator remembers of its shard 5
//!   late-flights/sink:lake/0        tokens not confirmed yet, carried state
//! ```

use std::collections::{BTreeMap, BTreeSet, HashSet};

use bytes::Bytes;
use logmill_pipelines::flow::{CheckpointEpoch, Position, Positions, SplitId};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::error::EngineError;
use super::incarnation::Incarnation;
use super::sink_state::SinkState;
use super::state::ShardState;
use super::topics::TopicEnds;
use crate::plan::PlanFingerprint;

/// The version of the records; a run refuses newer ones. In version 1, incarnations are counted and tokens have no rows.
const FORMAT: u32 = 2;
/// How many shards the splits of a source are cut into.
const POSITION_SHARDS: u64 = 16;
/// A record's value is at most this long; a larger one is stored in the checkpoint store and referred to.
pub(crate) const MAX_RECORD_BYTES: usize = 64 << 10;

/// A part of a pipeline that has a state of its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Stage {
    /// The pipeline as a whole.
    Plan,
    /// What the operators read.
    Source(String),
    /// What is played into a topic before the operators read it.
    Intake(String),
    /// An operator that has state.
    Operator(String),
    /// A sink.
    Sink(String),
}

impl Stage {
    fn parse(text: &str) -> Option<Self> {
        match text.split_once(':') {
            None if text == "plan" => Some(Self::Plan),
            Some(("source", name)) => Some(Self::Source(name.to_owned())),
            Some(("intake", name)) => Some(Self::Intake(name.to_owned())),
            Some(("operator", name)) => Some(Self::Operator(name.to_owned())),
            Some(("sink", name)) => Some(Self::Sink(name.to_owned())),
            _ => None,
        }
    }
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Plan => f.write_str("plan"),
            Self::Source(name) => write!(f, "source:{name}"),
            Self::Intake(name) => write!(f, "intake:{name}"),
            Self::Operator(name) => write!(f, "operator:{name}"),
            Self::Sink(name) => write!(f, "sink:{name}"),
        }
    }
}

/// The record of the pipeline as a whole.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct PlanRecord {
    /// A fresh start begins another.
    pub(crate) incarnation: Incarnation,
    /// The last committed epoch.
    pub(crate) epoch: CheckpointEpoch,
    /// Whether a bounded run has come to its end.
    pub(crate) finished: bool,
    /// What the pipeline was when it wrote this.
    pub(crate) plan: PlanFingerprint,
    /// Rows read from the sources in all runs of the incarnation.
    pub(crate) rows_read: u64,
    /// Records that a fresh start was asked to delete, until it has done so.
    #[serde(default, skip_serializing_if = "TopicEnds::is_empty")]
    pub(crate) to_delete: TopicEnds,
}

/// State by reference: the name of an object of the checkpoint store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct StateRef(pub(crate) String);

#[derive(Serialize, Deserialize)]
struct Envelope<T> {
    format: u32,
    incarnation: Incarnation,
    #[serde(flatten)]
    body: T,
}

#[derive(Serialize, Deserialize)]
struct PositionsBody {
    positions: Positions,
}

/// What a record holds whose value is an object of the checkpoint store.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Elsewhere {
    /// The object.
    pub(crate) object: StateRef,
    /// The incarnation that wrote it, so that those of earlier ones need not be loaded.
    #[serde(default)]
    pub(crate) incarnation: Option<Incarnation>,
}

/// A record to be written: key, value, and the stage and shard it belongs to.
#[derive(Debug)]
pub(crate) struct ManifestRecord {
    pub(crate) key: String,
    pub(crate) value: Bytes,
}

/// The committed state of a pipeline, as far as the records tell.
#[derive(Clone, Debug, Default)]
pub(crate) struct Manifest {
    /// The record of the whole; `None` before the first commit.
    pub(crate) plan: Option<PlanRecord>,
    /// The positions of each source and intake.
    pub(crate) positions: BTreeMap<Stage, Positions>,
    /// The state of each operator, by shard.
    pub(crate) operators: BTreeMap<String, BTreeMap<u32, ShardState>>,
    /// The state of each sink.
    pub(crate) sinks: BTreeMap<String, SinkState>,
    /// Objects that hold records too large for the topic, by key.
    pub(crate) objects: BTreeMap<String, StateRef>,
}

/// The shards of a stage that changed since the last commit.
pub(crate) type Changes = BTreeSet<(Stage, u64)>;

/// The shard a split's position is kept in.
pub(crate) fn shard_of(split: &SplitId) -> u64 {
    xxh3_64(split.as_str().as_bytes()) % POSITION_SHARDS
}

/// The key of the record of the pipeline as a whole.
pub(crate) fn plan_key(pipeline: &str) -> String {
    format!("{pipeline}/{}/0", Stage::Plan)
}

/// Whether a record's key is of a sink.
pub(crate) fn is_of_sink(pipeline: &str, key: &str) -> bool {
    let stage = key.strip_prefix(pipeline).and_then(|rest| rest.strip_prefix('/'));
    stage.is_some_and(|stage| stage.starts_with("sink:"))
}

/// The name of the topic that holds a pipeline's manifest.
pub(crate) fn topic_of(pipeline: &str) -> String {
    format!("__logmill_manifest_{pipeline}")
}

impl Manifest {
    /// Notes a position and which shard it changed.
    pub(crate) fn set_position(&mut self, stage: &Stage, split: SplitId, position: Position, changes: &mut Changes) {
        changes.insert((stage.clone(), shard_of(&split)));
        self.positions.entry(stage.clone()).or_default().insert(split, position);
    }

    /// Every shard there is: for a commit that writes all of it.
    pub(crate) fn all_shards(&self) -> Changes {
        let mut all = Changes::from([(Stage::Plan, 0)]);
        for (stage, positions) in &self.positions {
            all.extend(positions.keys().map(|split| (stage.clone(), shard_of(split))));
        }
        for (name, shards) in &self.operators {
            all.extend(shards.keys().map(|shard| (Stage::Operator(name.clone()), u64::from(*shard))));
        }
        all.extend(self.sinks.keys().map(|name| (Stage::Sink(name.clone()), 0)));
        all
    }

    /// The objects of the checkpoint store that the state refers to.
    pub(crate) fn references(&self) -> HashSet<String> {
        let of_sinks = self.sinks.values().flat_map(SinkState::objects);
        let shards = self.operators.values().flat_map(BTreeMap::values);
        of_sinks
            .chain(shards.flat_map(ShardState::objects))
            .chain(self.objects.values())
            .map(|StateRef(name)| name.clone())
            .collect()
    }

    /// The records that tell of the changes. A value above `MAX_RECORD_BYTES` is to be stored elsewhere by the caller.
    pub(crate) fn records(&self, pipeline: &str, changes: &Changes) -> Result<Vec<ManifestRecord>, EngineError> {
        let Some(plan) = &self.plan else { return Ok(Vec::new()) };
        let failed = |error: serde_json::Error| EngineError::State {
            pipeline: pipeline.to_owned(),
            message: format!("could not be written: {error}"),
        };
        let incarnation = plan.incarnation;
        let mut records = Vec::with_capacity(changes.len());
        for (stage, shard) in changes {
            let value = match stage {
                Stage::Plan => serde_json::to_vec(&Envelope { format: FORMAT, incarnation, body: PlanBody { plan } }),
                Stage::Source(_) | Stage::Intake(_) => {
                    let of_shard = self.positions.get(stage).into_iter().flatten();
                    let positions = of_shard.filter(|(split, _)| shard_of(split) == *shard);
                    let positions = positions.map(|(split, position)| (split.clone(), position.clone())).collect();
                    serde_json::to_vec(&Envelope { format: FORMAT, incarnation, body: PositionsBody { positions } })
                }
                Stage::Operator(name) => {
                    let of_shard = |(of, _): &(&u32, &ShardState)| u64::from(**of) == *shard;
                    let state = self.operators.get(name).into_iter().flatten().find(of_shard);
                    let body = StateBody { state: state.map(|(_, state)| state.clone()).unwrap_or_default() };
                    serde_json::to_vec(&Envelope { format: FORMAT, incarnation, body })
                }
                Stage::Sink(name) => {
                    let sink = self.sinks.get(name).cloned().unwrap_or_default();
                    serde_json::to_vec(&Envelope { format: FORMAT, incarnation, body: SinkBody { sink } })
                }
            };
            let value = Bytes::from(value.map_err(failed)?);
            records.push(ManifestRecord { key: format!("{pipeline}/{stage}/{shard}"), value });
        }
        Ok(records)
    }
}

#[derive(Serialize)]
struct PlanBody<'a> {
    plan: &'a PlanRecord,
}

#[derive(Deserialize)]
struct OwnedPlanBody {
    plan: PlanRecord,
}

#[derive(Serialize, Deserialize)]
struct SinkBody {
    sink: SinkState,
}

#[derive(Serialize, Deserialize)]
struct StateBody {
    state: ShardState,
}

/// Reads a manifest back from its records, in the order of the log: a later record of a key replaces an earlier one.
#[derive(Default)]
pub(crate) struct ManifestReader {
    latest: BTreeMap<String, Bytes>,
}

impl ManifestReader {
    /// Takes a record.
    pub(crate) fn push(&mut self, key: &[u8], value: Option<&[u8]>) {
        let key = String::from_utf8_lossy(key).into_owned();
        match value {
            Some(value) => self.latest.insert(key, Bytes::copy_from_slice(value)),
            None => self.latest.remove(&key),
        };
    }

    /// The records whose values lie in the checkpoint store, by key: each is to be loaded and put back with `resolve`,
    /// or left out with `forget`.
    pub(crate) fn elsewhere(&self) -> BTreeMap<String, Elsewhere> {
        let stored = |value: &Bytes| serde_json::from_slice::<Elsewhere>(value).ok();
        self.latest.iter().filter_map(|(key, value)| Some((key.clone(), stored(value)?))).collect()
    }

    /// The incarnation that the plan's record tells, which has been resolved; `None` before the first commit.
    pub(crate) fn incarnation(&self, pipeline: &str) -> Result<Option<Incarnation>, EngineError> {
        let Some(value) = self.latest.get(&plan_key(pipeline)) else { return Ok(None) };
        Ok(Some(parse::<OwnedPlanBody>(pipeline, "plan", value)?.body.plan.incarnation))
    }

    /// Leaves a record out.
    pub(crate) fn forget(&mut self, key: &str) {
        self.latest.remove(key);
    }

    /// Puts the value of a record that was stored elsewhere in its place.
    pub(crate) fn resolve(&mut self, key: &str, value: Bytes) {
        self.latest.insert(key.to_owned(), value);
    }

    /// The manifest that the records tell. Records of earlier incarnations are ignored.
    pub(crate) fn finish(self, pipeline: &str) -> Result<Manifest, EngineError> {
        let prefix = format!("{pipeline}/");
        let mut manifest = Manifest::default();
        if let Some(value) = self.latest.get(&plan_key(pipeline)) {
            manifest.plan = Some(parse::<OwnedPlanBody>(pipeline, "plan", value)?.body.plan);
        }
        let Some(incarnation) = manifest.plan.as_ref().map(|plan| plan.incarnation) else { return Ok(manifest) };
        for (key, value) in &self.latest {
            let parts = key.strip_prefix(&prefix).and_then(|rest| rest.rsplit_once('/'));
            let parts = parts.and_then(|(stage, shard)| Some((Stage::parse(stage)?, shard.parse::<u32>().ok()?)));
            let Some((stage, shard)) = parts else {
                return Err(EngineError::State {
                    pipeline: pipeline.to_owned(),
                    message: format!("its manifest holds a record `{key}` that this version does not know"),
                });
            };
            match stage {
                Stage::Plan => {}
                Stage::Operator(name) => {
                    let record = parse::<StateBody>(pipeline, key, value)?;
                    if record.incarnation == incarnation {
                        manifest.operators.entry(name).or_default().insert(shard, record.body.state);
                    }
                }
                Stage::Sink(name) => {
                    let record = parse::<SinkBody>(pipeline, key, value)?;
                    if record.incarnation == incarnation {
                        manifest.sinks.insert(name, record.body.sink);
                    }
                }
                stage => {
                    let record = parse::<PositionsBody>(pipeline, key, value)?;
                    if record.incarnation == incarnation {
                        manifest.positions.entry(stage).or_default().extend(record.body.positions);
                    }
                }
            }
        }
        Ok(manifest)
    }
}

/// What a record holds whose value lies in the checkpoint store.
pub(crate) fn elsewhere(object: &StateRef, incarnation: Option<Incarnation>) -> Bytes {
    Bytes::from(serde_json::json!({ "object": object.0, "incarnation": incarnation }).to_string())
}

fn parse<T: for<'a> Deserialize<'a>>(pipeline: &str, key: &str, value: &Bytes) -> Result<Envelope<T>, EngineError> {
    let damaged = |message: String| EngineError::State { pipeline: pipeline.to_owned(), message };
    #[derive(Deserialize)]
    struct Version {
        format: u32,
    }
    let version: Version = serde_json::from_slice(value)
        .map_err(|error| damaged(format!("manifest record `{key}` is damaged: {error}")))?;
    if version.format > FORMAT {
        return Err(damaged(format!(
            "manifest record `{key}` has format {}, and this version of Logmill knows {FORMAT} at most; run a newer Logmill",
            version.format
        )));
    }
    serde_json::from_slice(value).map_err(|error| damaged(format!("manifest record `{key}` is damaged: {error}")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::sink_state::Staged;
    use super::*;
    use logmill_connectors::sink::Token;
    use serde_json::json;

    fn sample() -> Manifest {
        let mut manifest = Manifest {
            plan: Some(PlanRecord {
                incarnation: Incarnation::new(),
                epoch: CheckpointEpoch(7),
                finished: false,
                plan: PlanFingerprint::default(),
                rows_read: 5,
                to_delete: TopicEnds::new(),
            }),
            ..Manifest::default()
        };
        let mut changes = Changes::new();
        for n in 0..40 {
            let split = SplitId::new(format!("file-{n}"));
            manifest.set_position(&Stage::Source("s".into()), split, Position(json!({ "byte": n })), &mut changes);
        }
        let state = ShardState::inline("state", b"counts");
        manifest.operators.insert("o".into(), BTreeMap::from([(5, state)]));
        let staged = Staged { tokens: vec![Token(json!(1))], rows: vec![StateRef("7-a-kept".into())] };
        manifest.sinks.insert("lake".into(), SinkState { staged: vec![staged], carried: vec![] });
        manifest
    }

    #[test]
    fn records_tell_the_manifest_they_were_made_from() {
        let manifest = sample();
        let mut reader = ManifestReader::default();
        for record in manifest.records("p", &manifest.all_shards()).unwrap() {
            reader.push(record.key.as_bytes(), Some(&record.value));
        }
        let read = reader.finish("p").unwrap();
        assert_eq!(read.positions, manifest.positions);
        assert_eq!(read.sinks, manifest.sinks);
        assert_eq!(read.operators, manifest.operators);
        assert_eq!(read.plan.unwrap().epoch, CheckpointEpoch(7));
    }

    #[test]
    fn records_of_an_earlier_incarnation_are_ignored() {
        let mut manifest = sample();
        let mut reader = ManifestReader::default();
        for record in manifest.records("p", &manifest.all_shards()).unwrap() {
            reader.push(record.key.as_bytes(), Some(&record.value));
        }
        manifest.plan.as_mut().unwrap().incarnation = Incarnation::new();
        for record in manifest.records("p", &Changes::from([(Stage::Plan, 0)])).unwrap() {
            reader.push(record.key.as_bytes(), Some(&record.value));
        }
        let read = reader.finish("p").unwrap();
        assert!(read.positions.is_empty() && read.sinks.is_empty() && read.operators.is_empty());
    }

    /// What format 1 looked like, to the letter.
    #[test]
    fn records_of_format_1_are_read() {
        let records = [
            (
                "p/plan/0",
                r#"{"format":1,"incarnation":2,"plan":{"incarnation":2,"epoch":7,"finished":false,"plan":{"sources":{},"tables":{},"operators":{},"sinks":{}},"rows_read":5}}"#,
            ),
            ("p/sink:lake/0", r#"{"format":1,"incarnation":2,"sink":{"tokens":[1,2],"carried":["6-a-lake"]}}"#),
            ("p/sink:old/0", r#"{"format":1,"incarnation":1,"sink":{"tokens":[3],"carried":[]}}"#),
        ];
        let mut reader = ManifestReader::default();
        for (key, value) in records {
            reader.push(key.as_bytes(), Some(value.as_bytes()));
        }
        let manifest = reader.finish("p").unwrap();
        assert!(manifest.plan.unwrap().incarnation.is_counted());
        let staged = Staged { tokens: vec![Token(json!(1)), Token(json!(2))], rows: Vec::new() };
        let lake = SinkState { staged: vec![staged], carried: vec![StateRef("6-a-lake".into())] };
        assert_eq!(manifest.sinks, BTreeMap::from([("lake".to_owned(), lake)]));
    }

    #[test]
    fn a_newer_format_and_damage_are_refused() {
        for (value, expected) in [(r#"{"format":99}"#, "run a newer Logmill"), ("{", "damaged")] {
            let mut reader = ManifestReader::default();
            reader.push(b"p/plan/0", Some(value.as_bytes()));
            let message = reader.finish("p").unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
