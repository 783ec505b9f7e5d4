//! Reads what the last commit of a pipeline left in the log and the checkpoint store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use bytes::Bytes;
use logmill_connectors::log::{Isolation, Log, OffsetAt, TopicPartition};
use logmill_connectors::source::ChunkData;
use logmill_connectors::topic;
use tokio::sync::watch;

use super::error::EngineError;
use super::manifest::{self, Changes, Elsewhere, Manifest, ManifestReader, Stage, StateRef, topic_of};
use super::store::CheckpointStore;
use crate::plan::PlanFingerprint;

/// Reads the manifest. The caller has fenced its predecessors, so nothing is added to it meanwhile.
///
/// A fresh start takes nothing over but what sinks are owed: of what lies in the store, it is given no more than that.
pub(crate) async fn read_manifest(
    log: &Arc<dyn Log>,
    store: &CheckpointStore,
    pipeline: &str,
    fresh: bool,
) -> Result<Manifest, EngineError> {
    let topic = topic_of(pipeline);
    let place = TopicPartition { topic: topic.clone(), partition: 0 };
    let end = log.offset(&place, OffsetAt::Latest(Isolation::ReadUncommitted)).await?;
    while log.offset(&place, OffsetAt::Latest(Isolation::ReadCommitted)).await? < end {
        let stable = log.offset(&place, OffsetAt::Latest(Isolation::ReadCommitted)).await?;
        log.wait(&place, stable, Isolation::ReadCommitted).await?;
    }
    let (_keep, ends) = watch::channel(Some(BTreeMap::from([(0, end.0)])));
    let failed = |error| EngineError::source("manifest", error);
    let source = topic::bounded_source(log.clone(), &topic, ends);
    let known = BTreeSet::new();
    let mut reader = ManifestReader::default();
    for split in source.discover(&known).await.map_err(failed)?.new {
        let mut records = source.open(&split, None).await.map_err(failed)?;
        while let Some(chunk) = records.next().await.map_err(failed)? {
            let ChunkData::Records(records) = chunk.data else { continue };
            for index in 0..records.len() {
                if let Some(key) = records.key(index) {
                    reader.push(key, records.value(index));
                }
            }
        }
    }
    let plan = manifest::plan_key(pipeline);
    let mut stored = reader.elsewhere();
    if let Some(Elsewhere { object, .. }) = stored.get(&plan) {
        reader.resolve(&plan, value_of(store, object).await?);
    }
    let incarnation = reader.incarnation(pipeline)?;
    stored.retain(|key, stored| {
        let of_incarnation = stored.incarnation.is_none_or(|of| Some(of) == incarnation);
        let wanted = *key == plan || (of_incarnation && (!fresh || manifest::is_of_sink(pipeline, key)));
        if !wanted {
            reader.forget(key);
        }
        wanted
    });
    for (key, Elsewhere { object, .. }) in stored.iter().filter(|(key, _)| **key != plan) {
        reader.resolve(key, value_of(store, object).await?);
    }
    let mut manifest = reader.finish(pipeline)?;
    manifest.objects = stored.into_iter().map(|(key, stored)| (key, stored.object)).collect();
    Ok(manifest)
}

async fn value_of(store: &CheckpointStore, StateRef(name): &StateRef) -> Result<Bytes, EngineError> {
    Ok(store.get(name).await?.into_iter().next().unwrap_or_default())
}

/// Drops the positions of sources that the last plan did not have, or that this one does not: a source that is added is
/// read from its beginning, also where it was there before. Returns the shards that this changes.
pub(crate) fn forget_positions(manifest: &mut Manifest, now: &PlanFingerprint) -> Changes {
    let Manifest { plan: Some(before), positions, .. } = manifest else { return Changes::new() };
    let mut changes = Changes::new();
    positions.retain(|stage, positions| {
        let (Stage::Source(name) | Stage::Intake(name)) = stage else { return true };
        let kept = before.plan.sources.contains_key(name) && now.sources.contains_key(name);
        if !kept {
            changes.extend(positions.keys().map(|split| (stage.clone(), manifest::shard_of(split))));
        }
        kept
    });
    changes
}

/// The schemas that earlier runs read with: what was inferred once stays as it is.
pub(crate) fn pinned_schemas(manifest: &Manifest) -> BTreeMap<String, SchemaRef> {
    let Some(plan) = &manifest.plan else { return BTreeMap::new() };
    let mut pinned = BTreeMap::new();
    for (name, source) in &plan.plan.sources {
        let fields = source.schema.iter().map(|(name, kind)| kind.to_field(name));
        pinned.insert(name.clone(), Arc::new(Schema::new(fields.collect::<Vec<_>>())));
    }
    pinned
}

/// The state that a sink carried at the last commit, in the order it was handed over.
pub(crate) async fn carried(
    manifest: &Manifest,
    store: &CheckpointStore,
    sink: &str,
) -> Result<Vec<Bytes>, EngineError> {
    let mut parts = Vec::new();
    for StateRef(name) in manifest.sinks.get(sink).into_iter().flat_map(|state| &state.carried) {
        parts.extend(store.get(name).await?);
    }
    Ok(parts)
}
