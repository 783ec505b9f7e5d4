//! Where a run begins: after what the last one committed, or anew.
//!
//! ```text
//!   anew:   what sinks are owed ─▶ commit: a new incarnation and where it reads each source from ─▶ records deleted, if asked
//! ```
//!
//! Nothing of the last incarnation is deleted before the commit of the new one. That commit holds all that a later run needs to
//! continue, including what is still to be deleted.

use std::collections::BTreeSet;

use logmill_connectors::log::Log;
use logmill_connectors::sink::Committed;
use logmill_pipelines::flow::{CheckpointEpoch, Positions};

use super::error::EngineError;
use super::incarnation::Incarnation;
use super::journal::Journal;
use super::manifest::{Changes, Manifest, PlanRecord, Stage};
use super::sinks::{Settled, SinkHandle, commit_token, commit_tokens};
use super::start::OpenedSource;
use super::store::CheckpointStore;
use super::topics::{self, TopicEnds};
use super::{restore, retry};
use crate::plan::PlanFingerprint;

/// What a run starts from.
pub(crate) struct Beginning {
    /// What was committed.
    pub(crate) manifest: Manifest,
    /// Shards of it that are to be written with the first commit.
    pub(crate) changes: Changes,
    /// Sinks whose tokens are visible by now, which what was committed does not say.
    pub(crate) confirmed: BTreeSet<String>,
    /// Objects of the checkpoint store to be deleted after the first commit: what was committed refers to them.
    pub(crate) released: Vec<String>,
    /// The first epoch.
    pub(crate) epoch: CheckpointEpoch,
}

/// What begins.
pub(crate) struct Begun<'a> {
    pub(crate) log: &'a dyn Log,
    pub(crate) store: &'a CheckpointStore,
    pub(crate) sources: &'a [OpenedSource],
    pub(crate) plan: PlanFingerprint,
    pub(crate) sinks: &'a [SinkHandle],
    pub(crate) epoch: CheckpointEpoch,
}

impl Begun<'_> {
    /// Goes on after the last commit: makes visible what it names, and forgets sources that are gone.
    pub(crate) async fn go_on(self, mut manifest: Manifest) -> Result<Beginning, EngineError> {
        let settled = commit_tokens(&mut manifest, self.sinks, self.store, self.epoch).await?;
        let Settled { confirmed, restaged, released } = settled;
        let mut changes = restore::forget_positions(&mut manifest, &self.plan);
        changes.extend(restaged.into_iter().map(|sink| (Stage::Sink(sink), 0)));
        let before = manifest.plan.take();
        let known = before.iter().flat_map(|before| before.plan.sources.keys().cloned()).collect();
        self.begin_sources(&known, &mut manifest, &mut changes).await?;
        let first = PlanRecord {
            incarnation: Incarnation::new(),
            epoch: CheckpointEpoch(0),
            finished: false,
            plan: PlanFingerprint::default(),
            rows_read: 0,
            to_delete: TopicEnds::new(),
        };
        let mut plan = PlanRecord { plan: self.plan, ..before.unwrap_or(first) };
        topics::delete_records(self.log, &std::mem::take(&mut plan.to_delete)).await?;
        // The first commit of a run writes the whole manifest, so all of it moves to the new incarnation at once.
        if plan.incarnation.is_counted() {
            plan.incarnation = Incarnation::new();
        }
        manifest.plan = Some(plan);
        Ok(Beginning { manifest, changes, confirmed, released, epoch: self.epoch })
    }

    /// Begins a new incarnation, of which nothing is read and nothing written yet. `delete_through_records` says that the
    /// topics which sources are played through lose all of their records.
    pub(crate) async fn anew(
        self,
        last: Manifest,
        delete_through_records: bool,
        journal: &mut Journal,
    ) -> Result<Beginning, EngineError> {
        // What a manifest names is committed, come what may.
        settle(&last, &self.plan, self.sinks).await?;
        let mut to_delete = TopicEnds::new();
        for topic in self.plan.played_through().filter(|_| delete_through_records) {
            to_delete.insert(topic.clone(), topics::ends(self.log, topic).await?);
        }
        let plan = PlanRecord {
            incarnation: Incarnation::new(),
            epoch: self.epoch,
            finished: false,
            plan: self.plan.clone(),
            rows_read: 0,
            to_delete: to_delete.clone(),
        };
        let mut manifest = Manifest { plan: Some(plan), ..Manifest::default() };
        let mut changes = Changes::new();
        self.begin_sources(&BTreeSet::new(), &mut manifest, &mut changes).await?;
        fail::fail_point!("engine::before_new_incarnation");
        journal.commit(&mut manifest, changes, self.epoch, &[]).await?;
        journal.pass(self.epoch);
        fail::fail_point!("engine::after_new_incarnation");
        topics::delete_records(self.log, &to_delete).await?;
        if let Some(plan) = &mut manifest.plan {
            plan.to_delete.clear();
        }
        let (changes, confirmed, released) = (Changes::new(), BTreeSet::new(), Vec::new());
        Ok(Beginning { manifest, changes, confirmed, released, epoch: self.epoch.next() })
    }

    /// Fixes where the sources begin that are not `known`. The operators read of a topic that a source is played through what
    /// is appended from now on: what lies there was played by another source, or by an earlier incarnation of this one, and
    /// will be played again.
    async fn begin_sources(
        &self,
        known: &BTreeSet<String>,
        manifest: &mut Manifest,
        changes: &mut Changes,
    ) -> Result<(), EngineError> {
        for source in self.sources.iter().filter(|source| !known.contains(&source.name)) {
            let first = source.intake.as_ref().map_or(&source.read, |intake| &intake.source);
            let starts = retry::transient(|| first.source.start_positions()).await;
            let starts = starts.map_err(|error| EngineError::source(&source.name, error))?;
            let mut begin = |stage: Stage, positions: Positions| {
                for (split, position) in positions {
                    manifest.set_position(&stage, split, position, changes);
                }
            };
            match &source.intake {
                None => begin(Stage::Source(source.name.clone()), starts),
                Some(intake) => {
                    begin(Stage::Intake(source.name.clone()), starts);
                    let ends = topics::ends(self.log, &intake.topic).await?;
                    begin(Stage::Source(source.name.clone()), topics::positions(&ends));
                }
            }
        }
        Ok(())
    }
}

/// Makes visible what the last incarnation committed, where its sinks are still there. What cannot be made visible any
/// more is told and left, since all of it is read again.
async fn settle(last: &Manifest, now: &PlanFingerprint, sinks: &[SinkHandle]) -> Result<(), EngineError> {
    for (name, state) in last.sinks.iter().filter(|(_, state)| state.tokens().next().is_some()) {
        let was = last.plan.as_ref().and_then(|plan| plan.plan.sinks.get(name)).map(|sink| &sink.identity);
        let is = now.sinks.get(name).map(|sink| &sink.identity);
        let Some(handle) = sinks.iter().find(|handle| handle.name == *name).filter(|_| was == is) else {
            tracing::warn!(
                "sink `{name}` is gone, or writes elsewhere now: what an earlier run had staged for it never becomes \
                 visible"
            );
            continue;
        };
        for token in state.tokens() {
            if let Committed::Lost(what) = commit_token(handle, token).await? {
                tracing::warn!("sink `{name}`: {what} is lost, which an earlier run had staged and committed");
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use super::*;
    use crate::engine::sink_state::{SinkState, Staged};
    use crate::plan::SinkPrint;
    use logmill_connectors::error::ConnectorError;
    use logmill_connectors::sink::{Accepts, Attempt, OpenWriter, Restage, Sink, Token, Writer};
    use parking_lot::Mutex;
    use serde_json::json;

    /// Commits what it is asked to, and has lost `0`.
    #[derive(Default)]
    struct Forgetful(Mutex<Vec<Token>>);

    #[async_trait::async_trait]
    impl Sink for Forgetful {
        fn accepts(&self) -> Accepts {
            Accepts::Append
        }

        async fn open(&self, _: OpenWriter) -> Result<Box<dyn Writer>, ConnectorError> {
            Err(ConnectorError::Data { place: "here".into(), message: "nobody writes".into() })
        }

        async fn commit(&self, token: &Token) -> Result<Committed, ConnectorError> {
            if token.0 == json!(0) {
                return Ok(Committed::Lost("a file".into()));
            }
            self.0.lock().push(token.clone());
            Ok(Committed::Done)
        }

        fn commits_at_once(&self) -> usize {
            1
        }

        async fn restage(&self, _: Restage) -> Result<Vec<Token>, ConnectorError> {
            Err(ConnectorError::Data { place: "here".into(), message: "nothing is kept".into() })
        }

        async fn collect(&self, _: &[Token], _: &Attempt) -> Result<(), ConnectorError> {
            Ok(())
        }
    }

    fn plan(sinks: &[(&str, &str)]) -> PlanFingerprint {
        let print = |identity: &str| SinkPrint {
            identity: identity.to_owned(),
            input: "s".to_owned(),
            schema: Default::default(),
        };
        let sinks = sinks.iter().map(|(name, identity)| ((*name).to_owned(), print(identity)));
        PlanFingerprint { sinks: sinks.collect(), ..PlanFingerprint::default() }
    }

    #[tokio::test]
    async fn a_fresh_start_commits_what_its_sinks_are_owed_and_can_still_commit() {
        let state = |tokens: &[u32]| {
            let tokens = tokens.iter().map(|token| Token(json!(token))).collect();
            SinkState { staged: vec![Staged { tokens, rows: Vec::new() }], carried: Vec::new() }
        };
        let last = Manifest {
            plan: Some(PlanRecord {
                incarnation: Incarnation::new(),
                epoch: CheckpointEpoch(1),
                finished: false,
                plan: plan(&[("same", "1"), ("moved", "1"), ("gone", "1")]),
                rows_read: 0,
                to_delete: TopicEnds::new(),
            }),
            sinks: [("same", state(&[0, 1, 2])), ("moved", state(&[3])), ("gone", state(&[4]))]
                .map(|(name, state)| (name.to_owned(), state))
                .into(),
            ..Manifest::default()
        };
        let sink = Arc::new(Forgetful::default());
        let handle = |name: &str| SinkHandle { name: name.to_owned(), sink: sink.clone() };
        settle(&last, &plan(&[("same", "1"), ("moved", "2")]), &[handle("same"), handle("moved")]).await.unwrap();
        assert_eq!(*sink.0.lock(), [Token(json!(1)), Token(json!(2))]);
    }
}
