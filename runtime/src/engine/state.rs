//! What operators remember, as the manifest keeps it: a record for each shard, with small state in it and large state by
//! reference to the checkpoint store.
//!
//! A snapshot brings back only the shards that changed, so an epoch writes no others.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use futures::future::try_join_all;
use logmill_operators::operator::StateBuffer;
use serde::{Deserialize, Serialize};

use super::error::EngineError;
use super::manifest::{Changes, Manifest, Stage, StateRef};
use super::store::CheckpointStore;

/// State up to this size stands in the manifest's record itself, which it fills half, being longer as base64.
const MAX_INLINE_BYTES: usize = 24 << 10;

/// The frozen state of the shards of an operator that changed since its last snapshot.
#[derive(Debug)]
pub(crate) struct OperatorState {
    /// The operator's name.
    pub(crate) operator: String,
    pub(crate) buffers: Vec<StateBuffer>,
}

/// The state of one shard of an operator, by table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct ShardState(BTreeMap<String, Stored>);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Stored {
    /// The bytes, as base64.
    Inline(String),
    /// An object of the checkpoint store, of one part.
    Object(StateRef),
}

impl ShardState {
    /// The state of one small table.
    #[cfg(test)]
    pub(crate) fn inline(table: &str, data: &[u8]) -> Self {
        Self(BTreeMap::from([(table.to_owned(), Stored::Inline(BASE64.encode(data)))]))
    }

    /// The objects that hold parts of it.
    pub(crate) fn objects(&self) -> impl Iterator<Item = &StateRef> {
        self.0.values().filter_map(|stored| match stored {
            Stored::Object(object) => Some(object),
            Stored::Inline(_) => None,
        })
    }
}

/// Takes over what operators remember at a barrier. Large state is durable when it returns, in objects whose names begin with
/// `prefix`, which no other epoch and no other run uses.
pub(crate) async fn keep(
    manifest: &mut Manifest,
    changes: &mut Changes,
    store: &CheckpointStore,
    prefix: &str,
    states: Vec<OperatorState>,
) -> Result<(), EngineError> {
    let mut puts = Vec::new();
    for OperatorState { operator, buffers } in states {
        let shards = manifest.operators.entry(operator.clone()).or_default();
        for StateBuffer { table, shard, data } in buffers {
            let stored = if data.len() <= MAX_INLINE_BYTES {
                Stored::Inline(BASE64.encode(&data))
            } else {
                let name = format!("{prefix}-{operator}.{table}.{shard}");
                puts.push(store.put(name.clone(), vec![data]));
                Stored::Object(StateRef(name))
            };
            shards.entry(shard).or_default().0.insert(table.to_string(), stored);
            changes.insert((Stage::Operator(operator.clone()), u64::from(shard)));
        }
    }
    try_join_all(puts).await.map(drop)
}

/// What an operator remembered at the last commit.
pub(crate) async fn restore(
    manifest: &Manifest,
    store: &CheckpointStore,
    pipeline: &str,
    operator: &str,
) -> Result<Vec<StateBuffer>, EngineError> {
    let damaged = |message: String| EngineError::State { pipeline: pipeline.to_owned(), message };
    let mut buffers = Vec::new();
    for (shard, state) in manifest.operators.get(operator).into_iter().flatten() {
        for (table, stored) in &state.0 {
            let data = match stored {
                Stored::Inline(text) => BASE64.decode(text).map(Bytes::from).map_err(|error| {
                    damaged(format!("the state of operator `{operator}`, shard {shard}, is damaged: {error}"))
                })?,
                Stored::Object(StateRef(name)) => match store.get(name).await?.as_slice() {
                    [data] => data.clone(),
                    parts => {
                        return Err(damaged(format!("checkpoint `{name}` has {} parts instead of one", parts.len())));
                    }
                },
            };
            buffers.push(StateBuffer { table: table.as_str().into(), shard: *shard, data });
        }
    }
    Ok(buffers)
}

/// The operators of which there is state.
pub(crate) fn owners(manifest: &Manifest) -> BTreeSet<String> {
    let owned = manifest.operators.iter().filter(|(_, shards)| !shards.is_empty());
    owned.map(|(name, _)| name.clone()).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn buffer(shard: u32, data: Vec<u8>) -> StateBuffer {
        StateBuffer { table: "state".into(), shard, data: data.into() }
    }

    #[tokio::test]
    async fn small_and_large_state_comes_back_as_it_was_last_kept() {
        let folder = tempfile::tempdir().unwrap();
        let store = CheckpointStore::open(folder.path().to_owned()).await.unwrap();
        let (mut manifest, mut changes) = (Manifest::default(), Changes::new());
        let large: Vec<u8> = (0..MAX_INLINE_BYTES + 1).map(|n| n as u8).collect();
        let first = vec![buffer(0, b"zero".to_vec()), buffer(1, large.clone()), buffer(2, vec![])];
        let second = vec![buffer(0, large.clone()), buffer(1, b"one".to_vec())];
        for (prefix, buffers) in [("1-a", first), ("2-a", second)] {
            let states = vec![OperatorState { operator: "o".into(), buffers }];
            keep(&mut manifest, &mut changes, &store, prefix, states).await.unwrap();
        }
        let restored = restore(&manifest, &store, "p", "o").await.unwrap();
        let restored: Vec<_> = restored.into_iter().map(|buffer| (buffer.shard, buffer.data.to_vec())).collect();
        assert_eq!(restored, [(0, large), (1, b"one".to_vec()), (2, vec![])]);
        assert_eq!(manifest.references(), std::collections::HashSet::from(["2-a-o.state.0".to_owned()]));
        assert_eq!(changes.len(), 3);
        assert_eq!(owners(&manifest), BTreeSet::from(["o".to_owned()]));
        assert!(restore(&manifest, &store, "p", "other").await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn damaged_state_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let store = CheckpointStore::open(folder.path().to_owned()).await.unwrap();
        let mut manifest = Manifest::default();
        for (stored, expected) in [
            (Stored::Inline("%".into()), "damaged"),
            (Stored::Object(StateRef("gone".into())), "could not read a checkpoint"),
        ] {
            let state = ShardState(BTreeMap::from([("state".to_owned(), stored)]));
            manifest.operators.insert("o".into(), BTreeMap::from([(0, state)]));
            let error = restore(&manifest, &store, "p", "o").await.unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
