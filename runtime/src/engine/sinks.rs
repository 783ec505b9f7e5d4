//! What a run's sinks stage: taken over at a barrier, committed after the epoch, staged again where it is gone.
//!
//! ```text
//!   tokens, kept rows ─▶ manifest ─▶ commit ─┬▶ visible: the next manifest names them no more, then the rows go
//!                            ▲               └▶ lost ─▶ restage ─┐
//!                            └───────────────────────────────────┘   no token is committed that no manifest named
//! ```

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, stream};
use logmill_connectors::sink::{Attempt, Committed, Prepared, Restage, Sink, Token};
use logmill_pipelines::flow::CheckpointEpoch;
use uuid::Uuid;

use super::error::EngineError;
use super::manifest::{Changes, Manifest, Stage, StateRef};
use super::retry;
use super::sink_state::{SinkState, Staged};
use super::store::CheckpointStore;

/// A sink's carried state is merged into one object once it lies in this many.
const MAX_CARRIED_OBJECTS: usize = 64;

/// A sink as the coordinator sees it.
pub(crate) struct SinkHandle {
    pub(crate) name: String,
    pub(crate) sink: Arc<dyn Sink>,
}

/// What became of the tokens that the manifest named.
#[derive(Debug, Default)]
pub(crate) struct Settled {
    /// Sinks whose tokens are visible by now. The manifest in the log does not say so yet.
    pub(crate) confirmed: BTreeSet<String>,
    /// Sinks that have new tokens in the place of lost ones. They are committed once a manifest in the log names them.
    pub(crate) restaged: BTreeSet<String>,
    /// Objects of the store that nothing refers to once the log says that their tokens are confirmed.
    pub(crate) released: Vec<String>,
}

/// Commits the tokens of all sinks, those of one sink in the order of the epochs. A token that fails holds up neither
/// the other tokens of its epoch nor the other sinks. `epoch` is the one whose commit names what is staged again.
pub(crate) async fn commit_tokens(
    manifest: &mut Manifest,
    sinks: &[SinkHandle],
    store: &CheckpointStore,
    epoch: CheckpointEpoch,
) -> Result<Settled, EngineError> {
    let (mut settled, mut failed) = (Settled::default(), None);
    for handle in sinks {
        let Some(state) = manifest.sinks.get_mut(&handle.name).filter(|state| !state.staged.is_empty()) else {
            continue;
        };
        if let Err(error) = settle(handle, state, store, epoch, &mut settled).await {
            failed.get_or_insert(error);
        }
    }
    failed.map_or(Ok(settled), Err)
}

async fn settle(
    handle: &SinkHandle,
    state: &mut SinkState,
    store: &CheckpointStore,
    epoch: CheckpointEpoch,
    settled: &mut Settled,
) -> Result<(), EngineError> {
    for staged in &mut state.staged {
        let lost = commit_all(handle, &staged.tokens).await?;
        staged.tokens = match lost.first() {
            None => Vec::new(),
            Some((_, what)) => {
                let what = what.clone();
                let tokens = restage(handle, lost, &staged.rows, what, store, epoch).await?;
                settled.restaged.insert(handle.name.clone());
                tokens
            }
        };
    }
    for staged in state.staged.extract_if(.., |staged| staged.tokens.is_empty()) {
        settled.released.extend(staged.rows.into_iter().map(|StateRef(name)| name));
    }
    settled.confirmed.insert(handle.name.clone());
    Ok(())
}

/// Commits the tokens of an epoch, as many at once as the sink can; returns those that are lost, and what is gone.
async fn commit_all(handle: &SinkHandle, tokens: &[Token]) -> Result<Vec<(Token, String)>, EngineError> {
    let commits = tokens.iter().map(|token| commit_token(handle, token)).collect::<Vec<_>>();
    let committed: Vec<_> = stream::iter(commits).buffered(handle.sink.commits_at_once().max(1)).collect().await;
    let (mut lost, mut failed) = (Vec::new(), None);
    for (token, committed) in tokens.iter().zip(committed) {
        match committed {
            Ok(Committed::Done) => {}
            Ok(Committed::Lost(what)) => lost.push((token.clone(), what)),
            Err(error) => {
                failed.get_or_insert(error);
            }
        }
    }
    failed.map_or(Ok(lost), Err)
}

/// Makes visible what a token names.
pub(crate) async fn commit_token(handle: &SinkHandle, token: &Token) -> Result<Committed, EngineError> {
    let committed = retry::transient(|| handle.sink.commit(token)).await;
    committed.map_err(|error| EngineError::sink(&handle.name, error))
}

async fn restage(
    handle: &SinkHandle,
    lost: Vec<(Token, String)>,
    rows: &[StateRef],
    what: String,
    store: &CheckpointStore,
    epoch: CheckpointEpoch,
) -> Result<Vec<Token>, EngineError> {
    let gone = |what: String| EngineError::Lost { sink: handle.name.clone(), what };
    if rows.is_empty() {
        return Err(gone(what));
    }
    let mut kept: Vec<Bytes> = Vec::new();
    for StateRef(name) in rows {
        let parts = store.get(name).await;
        kept.extend(parts.map_err(|error| gone(format!("{what}, nor {name} of the checkpoint store ({error})")))?);
    }
    tracing::warn!(sink = handle.name, files = lost.len(), "{what} is there any more; its rows are staged again");
    let lost: Vec<Token> = lost.into_iter().map(|(token, _)| token).collect();
    let staged = retry::transient(|| {
        let attempt = Attempt(Uuid::new_v4().simple().to_string());
        handle.sink.restage(Restage { lost: lost.clone(), rows: kept.clone(), shard: 0, epoch, attempt })
    });
    staged.await.map_err(|error| EngineError::sink(&handle.name, error))
}

/// What a writer handed over at a barrier.
#[derive(Debug, Default)]
pub(crate) struct HandedOver {
    pub(crate) prepared: Prepared,
    /// The objects of the store that hold the rows which were handed over to be kept, in their order.
    pub(crate) kept: Vec<StateRef>,
}

/// Takes over the tokens of a sink, the rows that are kept for them, and the state that it carries. `prefix` begins the
/// names of new objects.
pub(crate) async fn take_over(
    manifest: &mut Manifest,
    changes: &mut Changes,
    store: &CheckpointStore,
    prefix: &str,
    sink: &str,
    handed: HandedOver,
) -> Result<(), EngineError> {
    let HandedOver { prepared, kept } = handed;
    if prepared.tokens.is_empty() && !prepared.reset && prepared.carried.is_none() {
        return Ok(());
    }
    let state = manifest.sinks.entry(sink.to_owned()).or_default();
    changes.insert((Stage::Sink(sink.to_owned()), 0));
    let mut rows = if prepared.reset { std::mem::take(&mut state.carried) } else { Vec::new() };
    if !prepared.tokens.is_empty() {
        rows.extend(kept);
        state.staged.push(Staged { tokens: prepared.tokens, rows });
    }
    let Some(carried) = prepared.carried else { return Ok(()) };
    let mut parts = Vec::new();
    if state.carried.len() >= MAX_CARRIED_OBJECTS {
        for StateRef(name) in state.carried.drain(..) {
            parts.extend(store.get(&name).await?);
        }
    }
    parts.push(carried);
    let name = format!("{prefix}-{sink}");
    state.carried.push(StateRef(name.clone()));
    store.put(name, parts).await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::{BTreeMap, HashSet};

    use async_trait::async_trait;
    use logmill_connectors::error::ConnectorError;
    use logmill_connectors::sink::{Accepts, OpenWriter, Writer};
    use parking_lot::Mutex;
    use serde_json::json;

    use super::*;

    /// Commits numbers: 7 always fails, odd ones below 100 are lost, and what is staged again counts from 100.
    #[derive(Default)]
    struct Numbers {
        committed: Mutex<Vec<u64>>,
        at_once: Mutex<(usize, usize)>,
    }

    #[async_trait]
    impl Sink for Numbers {
        fn accepts(&self) -> Accepts {
            Accepts::Append
        }

        async fn open(&self, _: OpenWriter) -> Result<Box<dyn Writer>, ConnectorError> {
            Err(ConnectorError::Config("nobody writes".into()))
        }

        async fn commit(&self, token: &Token) -> Result<Committed, ConnectorError> {
            {
                let mut at_once = self.at_once.lock();
                at_once.0 += 1;
                at_once.1 = at_once.1.max(at_once.0);
            }
            tokio::task::yield_now().await;
            self.at_once.lock().0 -= 1;
            match token.0.as_u64().unwrap() {
                7 => Err(ConnectorError::Config("seven".into())),
                number if number < 100 && number % 2 == 1 => Ok(Committed::Lost(format!("neither {number}"))),
                number => {
                    self.committed.lock().push(number);
                    Ok(Committed::Done)
                }
            }
        }

        fn commits_at_once(&self) -> usize {
            3
        }

        async fn restage(&self, restage: Restage) -> Result<Vec<Token>, ConnectorError> {
            assert_eq!(restage.rows, [Bytes::from_static(b"rows")]);
            Ok(restage.lost.iter().map(|token| Token(json!(token.0.as_u64().unwrap() + 100))).collect())
        }

        async fn collect(&self, _: &[Token], _: &Attempt) -> Result<(), ConnectorError> {
            Ok(())
        }
    }

    struct Site {
        store: CheckpointStore,
        sink: Arc<Numbers>,
        _folder: tempfile::TempDir,
    }

    impl Site {
        async fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let store = CheckpointStore::open(folder.path().to_owned()).await.unwrap();
            store.put("rows".into(), vec![Bytes::from_static(b"rows")]).await.unwrap();
            Self { store, sink: Arc::default(), _folder: folder }
        }

        async fn commit(&self, manifest: &mut Manifest) -> Result<Settled, EngineError> {
            let handle = |name: &str| SinkHandle { name: name.to_owned(), sink: self.sink.clone() };
            commit_tokens(manifest, &[handle("a"), handle("b")], &self.store, CheckpointEpoch(5)).await
        }

        /// Sorted: tokens of one epoch are committed side by side.
        fn committed(&self) -> Vec<u64> {
            let mut committed = self.sink.committed.lock().clone();
            committed.sort_unstable();
            committed
        }
    }

    fn manifest(sinks: &[(&str, &[&[u64]])]) -> Manifest {
        let staged = |numbers: &&[u64]| Staged {
            tokens: numbers.iter().map(|number| Token(json!(number))).collect(),
            rows: vec![StateRef("rows".into())],
        };
        let state = |epochs: &[&[u64]]| SinkState { staged: epochs.iter().map(staged).collect(), carried: Vec::new() };
        let sinks = sinks.iter().map(|(name, epochs)| ((*name).to_owned(), state(epochs)));
        Manifest { sinks: sinks.collect::<BTreeMap<_, _>>(), ..Manifest::default() }
    }

    #[tokio::test]
    async fn lost_tokens_are_staged_again_and_committed_only_once_a_manifest_names_them() {
        let site = Site::new().await;
        let mut manifest = manifest(&[("a", &[&[2, 3, 4], &[6]])]);
        let settled = site.commit(&mut manifest).await.unwrap();
        assert_eq!(site.committed(), [2, 4, 6]);
        assert_eq!(settled.restaged, BTreeSet::from(["a".to_owned()]));
        assert_eq!(settled.released, ["rows"], "of the epoch that is visible");
        assert_eq!(manifest.sinks["a"].tokens().cloned().collect::<Vec<_>>(), [Token(json!(103))]);
        assert_eq!(manifest.references(), HashSet::from(["rows".to_owned()]), "of the epoch that is not");
        let settled = site.commit(&mut manifest).await.unwrap();
        assert_eq!(site.committed(), [2, 4, 6, 103]);
        assert!(settled.restaged.is_empty() && manifest.references().is_empty());
    }

    #[tokio::test]
    async fn a_token_that_fails_holds_up_no_other_of_its_epoch_and_no_other_sink() {
        let site = Site::new().await;
        let mut manifest = manifest(&[("a", &[&[2, 7, 4], &[6]]), ("b", &[&[8]])]);
        assert!(site.commit(&mut manifest).await.is_err());
        assert_eq!(site.committed(), [2, 4, 8], "but what comes after it waits");
        assert_eq!(site.sink.at_once.lock().1, 3, "tokens committed at once");
    }

    #[tokio::test]
    async fn where_the_rows_are_gone_too_it_is_told() {
        let site = Site::new().await;
        let mut manifest = manifest(&[("a", &[&[1]])]);
        site.store.delete(vec!["rows".into()]).await.unwrap();
        let error = site.commit(&mut manifest).await.unwrap_err().to_string();
        assert!(error.starts_with("sink `a`: neither 1, nor rows of the checkpoint store"), "{error}");
        manifest.sinks.get_mut("a").unwrap().staged[0].rows.clear();
        let error = site.commit(&mut manifest).await.unwrap_err().to_string();
        assert!(error.starts_with("sink `a`: neither 1 is lost"), "{error}");
    }

    #[tokio::test]
    async fn rows_are_kept_with_the_tokens_that_they_went_into() {
        let site = Site::new().await;
        let (mut manifest, mut changes) = (Manifest::default(), Changes::new());
        let mut take = async |epoch: u32, prepared: Prepared, kept: &[&str]| {
            let kept = kept.iter().map(|name| StateRef((*name).to_owned())).collect();
            let handed = HandedOver { prepared, kept };
            let prefix = format!("{epoch}-x");
            take_over(&mut manifest, &mut changes, &site.store, &prefix, "a", handed).await.unwrap();
            manifest.sinks["a"].clone()
        };
        let carried = || Some(Bytes::from_static(b"carried"));
        take(1, Prepared { carried: carried(), ..Prepared::default() }, &[]).await;
        let tokens = vec![Token(json!(2))];
        let state = take(2, Prepared { tokens, reset: true, carried: carried(), ..Prepared::default() }, &["k"]).await;
        let names = |refs: &[StateRef]| refs.iter().map(|StateRef(name)| name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&state.staged[0].rows), ["1-x-a", "k"]);
        assert_eq!(names(&state.carried), ["2-x-a"]);
        // Deltas that were joined void those before, and belong to no token.
        let state = take(3, Prepared { reset: true, carried: carried(), ..Prepared::default() }, &[]).await;
        assert_eq!((state.staged.len(), names(&state.carried)), (1, vec!["3-x-a".to_owned()]));
    }
}
