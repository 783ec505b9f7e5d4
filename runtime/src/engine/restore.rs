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
use super::manifest::{Manifest, ManifestReader, StateRef, topic_of};
use super::store::CheckpointStore;

/// Reads the manifest. The caller has fenced its predecessors, so nothing is added to it meanwhile.
pub(crate) async fn read_manifest(
    log: &Arc<dyn Log>,
    store: &CheckpointStore,
    pipeline: &str,
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
    let objects = reader.objects();
    for (key, StateRef(name)) in &objects {
        let value = store.get(name).await?.into_iter().next().unwrap_or_default();
        reader.resolve(key, value);
    }
    let mut manifest = reader.finish(pipeline)?;
    manifest.objects = objects;
    Ok(manifest)
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
