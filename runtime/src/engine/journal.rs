//! Keeps the manifest in the log: what changed is appended to the epoch's transaction, and committed with it.
//!
//! From time to time all of the manifest is written, and the topic is trimmed to that, so reading it stays cheap.

use std::sync::Arc;

use bytes::Bytes;
use logmill_connectors::log::{Isolation, Log, Membership, OffsetAt, TopicPartition};
use logmill_connectors::topic::RecordWriter;
use logmill_pipelines::flow::CheckpointEpoch;
use logmill_protocol::{Offset, Timestamp};
use xxhash_rust::xxh3::xxh3_64;

use super::error::EngineError;
use super::manifest::{self, Changes, MAX_RECORD_BYTES, Manifest, StateRef};
use super::store::CheckpointStore;
use super::transaction::EpochTransaction;

/// The manifest is written whole and its topic trimmed at the first commit of a run, and again after this many.
const REWRITE_COMMITS: u64 = 5_000;

/// Writes the manifest of one run.
pub(crate) struct Journal {
    pipeline: String,
    log: Arc<dyn Log>,
    store: CheckpointStore,
    transaction: Arc<EpochTransaction>,
    membership: Membership,
    attempt: String,
    topic: TopicPartition,
    records: RecordWriter,
    commits_since_rewrite: u64,
}

/// What a journal is made of.
pub(crate) struct JournalParts {
    pub(crate) pipeline: String,
    pub(crate) log: Arc<dyn Log>,
    pub(crate) store: CheckpointStore,
    pub(crate) transaction: Arc<EpochTransaction>,
    pub(crate) membership: Membership,
    /// Part of the names of the objects that it stores.
    pub(crate) attempt: String,
}

impl Journal {
    /// The journal of a run whose first commit is of `epoch`.
    pub(crate) fn new(parts: JournalParts, epoch: CheckpointEpoch) -> Self {
        let JournalParts { pipeline, log, store, transaction, membership, attempt } = parts;
        let topic = TopicPartition { topic: manifest::topic_of(&pipeline), partition: 0 };
        let records = RecordWriter::new(transaction.clone(), &topic.topic, 1, epoch);
        let commits_since_rewrite = REWRITE_COMMITS;
        Self { pipeline, log, store, transaction, membership, attempt, topic, records, commits_since_rewrite }
    }

    /// Lets the epoch after `epoch` append: for a commit that no epoch of the coordinator's makes.
    pub(crate) fn pass(&self, epoch: CheckpointEpoch) {
        self.transaction.pass(epoch);
    }

    /// Commits an epoch: its output, the offsets of the group, and the records of the shards that changed. Returns the
    /// objects of the store that held records which are replaced by now: nothing refers to them any more.
    pub(crate) async fn commit(
        &mut self,
        manifest: &mut Manifest,
        mut changes: Changes,
        epoch: CheckpointEpoch,
        offsets: &[(TopicPartition, Offset)],
    ) -> Result<Vec<String>, EngineError> {
        let mut replaced = Vec::new();
        let rewrite = self.commits_since_rewrite >= REWRITE_COMMITS;
        if rewrite {
            // What changed may be something that is gone: it is written once more, without content.
            changes.extend(manifest.all_shards());
            replaced.extend(std::mem::take(&mut manifest.objects).into_values());
        }
        let boundary = self.log.offset(&self.topic, OffsetAt::Latest(Isolation::ReadUncommitted)).await?;
        let mut records = manifest.records(&self.pipeline, &changes)?;
        // First what takes long: the transaction opens with the first record.
        for record in &mut records {
            replaced.extend(manifest.objects.remove(&record.key));
            if record.value.len() > MAX_RECORD_BYTES {
                let incarnation = manifest.plan.as_ref().map(|plan| plan.incarnation);
                let object = self.store_elsewhere(epoch, &record.key, std::mem::take(&mut record.value)).await?;
                record.value = manifest::elsewhere(&object, incarnation);
                manifest.objects.insert(record.key.clone(), object);
            }
        }
        for record in records {
            let now = Timestamp(chrono::Utc::now().timestamp_millis());
            let appended = self.records.append(Some(record.key.as_bytes()), Some(&record.value), &[], now).await;
            appended.map_err(|error| EngineError::sink("manifest", error))?;
        }
        let flushed = self.records.prepare(epoch).await;
        flushed.map_err(|error| EngineError::sink("manifest", error))?;
        self.transaction.commit(&self.membership, offsets).await?;
        self.commits_since_rewrite += 1;
        if rewrite {
            self.log.delete_records(&self.topic, boundary).await?;
            self.commits_since_rewrite = 0;
        }
        Ok(replaced.into_iter().map(|StateRef(name)| name).collect())
    }

    async fn store_elsewhere(&self, epoch: CheckpointEpoch, key: &str, value: Bytes) -> Result<StateRef, EngineError> {
        // Keys can be longer than names of files.
        let object = StateRef(format!("{epoch}-{}-record-{:016x}", self.attempt, xxh3_64(key.as_bytes())));
        self.store.put(object.0.clone(), vec![value]).await?;
        Ok(object)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::incarnation::Incarnation;
    use super::super::manifest::{PlanRecord, Stage};
    use super::super::restore;
    use super::super::sink_state::{SinkState, Staged};
    use super::*;
    use crate::plan::PlanFingerprint;
    use logmill_connectors::conformance::memory_log::MemoryLog;
    use logmill_connectors::log::NewTopic;
    use logmill_connectors::sink::Token;
    use serde_json::json;

    struct Site {
        log: Arc<dyn Log>,
        folder: tempfile::TempDir,
        store: CheckpointStore,
    }

    impl Site {
        async fn new() -> Self {
            let log = Arc::new(MemoryLog::default());
            let topic = NewTopic { name: manifest::topic_of("p"), partitions: 1, configs: Vec::new() };
            log.create_topic(topic).await.unwrap();
            let folder = tempfile::tempdir().unwrap();
            let store = CheckpointStore::open(folder.path().to_owned()).await.unwrap();
            Self { log, folder, store }
        }

        async fn journal(&self, attempt: &str) -> Journal {
            let session = self.log.init_producer("p", 60_000).await.unwrap();
            let transaction = EpochTransaction::new(self.log.clone(), session, CheckpointEpoch(1));
            let parts = JournalParts {
                pipeline: "p".into(),
                log: self.log.clone(),
                store: self.store.clone(),
                transaction: Arc::new(transaction),
                membership: self.log.join_group("p", "w").await.unwrap(),
                attempt: attempt.into(),
            };
            Journal::new(parts, CheckpointEpoch(1))
        }

        fn objects(&self) -> Vec<String> {
            let entries = std::fs::read_dir(self.folder.path()).unwrap();
            let mut names: Vec<_> =
                entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
            names.sort();
            names
        }
    }

    fn manifest(incarnation: Incarnation) -> Manifest {
        let plan = PlanRecord {
            incarnation,
            epoch: CheckpointEpoch(0),
            finished: false,
            plan: PlanFingerprint::default(),
            rows_read: 0,
            to_delete: Default::default(),
        };
        let large = Token(json!("x".repeat(MAX_RECORD_BYTES)));
        let sink = SinkState { staged: vec![Staged { tokens: vec![large], rows: Vec::new() }], carried: Vec::new() };
        Manifest { plan: Some(plan), sinks: [("lake".to_owned(), sink)].into(), ..Manifest::default() }
    }

    #[tokio::test]
    async fn an_object_that_held_a_record_goes_when_the_record_is_replaced() {
        let site = Site::new().await;
        let mut journal = site.journal("a").await;
        let mut manifest = manifest(Incarnation::new());
        let changes = || Changes::from([(Stage::Sink("lake".into()), 0)]);
        let object = |run: &str| format!("{run}-record-{:016x}", xxh3_64(b"p/sink:lake/0"));
        for (epoch, expected) in [(1, object("1-a")), (2, object("2-a")), (3, object("3-a"))] {
            let replaced = journal.commit(&mut manifest, changes(), CheckpointEpoch(epoch), &[]).await.unwrap();
            journal.pass(CheckpointEpoch(epoch));
            site.store.delete(replaced).await.unwrap();
            assert_eq!(site.objects(), [expected]);
        }
        // So it does at the first commit of the next run, which writes everything.
        let mut manifest = restore::read_manifest(&site.log, &site.store, "p", false).await.unwrap();
        let replaced = site.journal("b").await.commit(&mut manifest, changes(), CheckpointEpoch(1), &[]).await.unwrap();
        assert_eq!(replaced, [object("3-a")]);
        manifest.sinks.clear();
        let mut journal = site.journal("c").await;
        assert_eq!(journal.commit(&mut manifest, changes(), CheckpointEpoch(1), &[]).await.unwrap(), [object("1-b")]);
        assert_eq!(manifest.references(), Default::default());
    }

    #[tokio::test]
    async fn objects_of_an_earlier_incarnation_are_not_needed() {
        let site = Site::new().await;
        let first = Incarnation::new();
        site.journal("a").await.commit(&mut manifest(first), Changes::new(), CheckpointEpoch(1), &[]).await.unwrap();
        // Only the plan is written, and the topic is not trimmed: as after a crash between the two.
        let mut journal = site.journal("b").await;
        journal.commits_since_rewrite = 0;
        let plan = Manifest { sinks: Default::default(), ..manifest(Incarnation::new()) };
        let changes = Changes::from([(Stage::Plan, 0)]);
        journal.commit(&mut plan.clone(), changes, CheckpointEpoch(1), &[]).await.unwrap();
        site.store.sweep(plan.references()).await.unwrap();
        let read = restore::read_manifest(&site.log, &site.store, "p", false).await.unwrap();
        assert!(read.sinks.is_empty() && read.objects.is_empty());
        assert_eq!(read.plan.unwrap().incarnation, plan.plan.unwrap().incarnation);
    }

    #[tokio::test]
    async fn a_fresh_start_needs_no_more_than_what_the_sinks_are_owed() {
        let site = Site::new().await;
        let mut manifest = manifest(Incarnation::new());
        let positions = (0..2000).map(|n| {
            let split = logmill_pipelines::flow::SplitId::new(format!("{n}-{}", "x".repeat(1000)));
            (split, logmill_pipelines::flow::Position(json!(n)))
        });
        manifest.positions.insert(Stage::Source("s".into()), positions.collect());
        site.journal("a").await.commit(&mut manifest, Changes::new(), CheckpointEpoch(1), &[]).await.unwrap();
        let of_sink = format!("{:016x}", xxh3_64(b"p/sink:lake/0"));
        let others = site.objects().into_iter().filter(|name| !name.ends_with(&of_sink));
        site.store.delete(others.collect()).await.unwrap();
        let read = |fresh| restore::read_manifest(&site.log, &site.store, "p", fresh);
        assert!(read(false).await.unwrap_err().to_string().contains("could not read a checkpoint"));
        assert_eq!(read(true).await.unwrap().sinks, manifest.sinks);
    }
}
