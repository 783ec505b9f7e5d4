//! Puts a run together: takes the pipeline over from its predecessor, finds out where it stopped, and wires the tasks.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use logmill_connectors::log::Log;
use logmill_connectors::registry::{ConnectorContext, Registry, SourceHandle, registry};
use logmill_connectors::sink::{Attempt, Sink};
use logmill_operators::operator::StaticTable;
use logmill_pipelines::flow::CheckpointEpoch;
use logmill_pipelines::{Diagnostics, Pipeline};
use tokio::sync::watch;
use uuid::Uuid;

use super::begin::{Beginning, Begun};
use super::coordinator::Ending;
use super::error::EngineError;
use super::graph::Graph;
use super::journal::{Journal, JournalParts};
use super::manifest::Manifest;
use super::restore;
use super::retry;
use super::sink_state::SinkState;
use super::sinks::SinkHandle;
use super::state;
use super::store::CheckpointStore;
use super::topics;
use super::transaction::EpochTransaction;
use super::wire::{self, Wiring};
use crate::deployment::deployment_id;
use crate::metrics::Metrics;
use crate::modules::Modules;
use crate::plan::{self, Plan, PlanFingerprint, Verdict};

/// The shortest timeout of a transaction; a pipeline with rare commits gets three times their distance.
const MIN_TRANSACTION_TIMEOUT: Duration = Duration::from_secs(60);

/// A pipeline to be run in this process.
pub struct Run {
    /// What to run.
    pub pipeline: Pipeline,
    /// The modules that it names, loaded.
    pub modules: Modules,
    /// The log that holds its topics and its state.
    pub log: Arc<dyn Log>,
    /// The folder of the log; the checkpoint store lies in it.
    pub data_dir: PathBuf,
    /// The folder that relative paths in the pipeline start from.
    pub base_dir: PathBuf,
    /// Forget what earlier runs have read and begin a new incarnation.
    pub fresh: Option<FreshStart>,
    /// Told what happens, while it does.
    pub metrics: Arc<Metrics>,
    /// Becomes true when the run shall commit and stop.
    pub stop: watch::Receiver<bool>,
    /// Told, once, what the run takes over from earlier ones.
    pub on_start: Box<dyn Fn(&Takeover) + Send>,
}

/// Options of a fresh start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FreshStart {
    /// Delete all records of the topics that the sources are played through, whoever wrote them.
    pub delete_through_records: bool,
}

/// What a run found when it started.
#[derive(Clone, Debug, Default)]
pub struct Takeover {
    /// Rows that earlier runs of the incarnation have read.
    pub rows_before: u64,
    /// The last epoch that was committed; 0 if there is none.
    pub epoch_before: u64,
    /// What changed in the pipeline since then, and why that is accepted.
    pub accepted_changes: Vec<String>,
}

/// What became of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How it ended.
    pub ending: Ending,
    /// What it had taken over.
    pub takeover: Takeover,
}

/// Why a run did not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The pipeline does not fit its data: found once the schemas were known.
    #[error("the pipeline cannot run as it is written")]
    Invalid(Diagnostics),
    /// It could not start, or stopped.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// Everything a pipeline names, opened.
pub(crate) struct Opened {
    pub(crate) sources: Vec<OpenedSource>,
    pub(crate) tables: BTreeMap<String, StaticTable>,
    pub(crate) plan: Plan,
    /// The operators of each worker.
    pub(crate) graphs: Vec<Graph>,
}

/// A source, and the way its records take to the operators.
pub(crate) struct OpenedSource {
    pub(crate) name: String,
    /// What the operators read.
    pub(crate) read: SourceHandle,
    /// The topic that they read it from, if it is one.
    pub(crate) topic: Option<String>,
    /// What is played through a topic first.
    pub(crate) intake: Option<OpenedIntake>,
}

/// A source that is played through a topic.
pub(crate) struct OpenedIntake {
    pub(crate) source: SourceHandle,
    pub(crate) topic: String,
    pub(crate) ends: watch::Sender<Option<BTreeMap<i32, i64>>>,
}

/// Whether a data dir holds what runs of a pipeline left.
pub fn has_state(data_dir: &Path, pipeline: &str) -> bool {
    checkpoint_folder(data_dir, pipeline).is_dir()
}

fn checkpoint_folder(data_dir: &Path, pipeline: &str) -> PathBuf {
    data_dir.join("checkpoints").join(pipeline)
}

impl Run {
    /// Runs the pipeline until its input has ended or a stop is asked for.
    pub async fn execute(self) -> Result<Outcome, RunError> {
        let registry = registry();
        let name = self.pipeline.spec.pipeline.clone();
        let id = format!("logmill-{name}");
        let every = self.pipeline.spec.commit.every.0;
        topics::create(&*self.log, &self.pipeline.spec).await?;

        // From here on no predecessor can commit anything: what is read next is what it left for good.
        let timeout = MIN_TRANSACTION_TIMEOUT.max(every * 3);
        let session = self.log.init_producer(&id, timeout.as_millis() as u64).await.map_err(EngineError::from)?;
        let membership = self.log.join_group(&id, "worker-0").await.map_err(EngineError::from)?;
        let store = CheckpointStore::open(checkpoint_folder(&self.data_dir, &name)).await?;
        let fresh = self.fresh.is_some();
        let found = restore::read_manifest(&self.log, &store, &name, fresh).await?;
        let epoch = found.plan.as_ref().map_or(CheckpointEpoch(1), |plan| plan.epoch.next());
        let transaction = Arc::new(EpochTransaction::new(self.log.clone(), session, epoch));
        let context = self.context(transaction.clone())?;

        let pinned = if fresh { BTreeMap::new() } else { restore::pinned_schemas(&found) };
        let mut opened = self.open(&registry, &context, &pinned).await?;
        let fingerprint = opened.plan.fingerprint();
        let takeover = take_over(&found, &fingerprint, fresh)?;
        // A module that refuses the state of an earlier build does so before anything is done.
        let nothing = Manifest::default();
        let left = if fresh { &nothing } else { &found };
        opened.graphs = wire::graphs(&opened.plan, &opened.tables, left, &store).await?;
        let sinks = open_sinks(&opened.plan, &registry, &context).await?;

        let attempt = Attempt(Uuid::new_v4().simple().to_string());
        let parts = JournalParts {
            pipeline: name.clone(),
            log: self.log.clone(),
            store: store.clone(),
            transaction: transaction.clone(),
            membership: membership.clone(),
            attempt: attempt.0.clone(),
        };
        let mut journal = Journal::new(parts, epoch);
        let (log, sources) = (&*self.log, &opened.sources);
        let begun = Begun { log, store: &store, sources, plan: fingerprint, sinks: &sinks, epoch };
        let beginning = match self.fresh {
            Some(FreshStart { delete_through_records }) => {
                begun.anew(found, delete_through_records, &mut journal).await
            }
            None => begun.go_on(found).await,
        };
        let beginning = or_give_up(&transaction, beginning).await?;
        sweep(&sinks, &store, &beginning, &attempt).await?;
        (self.on_start)(&takeover);
        let wiring = Wiring {
            pipeline: name,
            spec: &self.pipeline.spec,
            log: self.log.clone(),
            transaction: transaction.clone(),
            membership,
            store,
            attempt,
            journal,
            beginning,
            every,
            metrics: self.metrics.clone(),
            stop: self.stop.clone(),
        };
        let ending = or_give_up(&transaction, wire::run(wiring, opened, sinks).await).await?;
        Ok(Outcome { ending, takeover })
    }

    fn context(&self, transaction: Arc<EpochTransaction>) -> Result<ConnectorContext, EngineError> {
        let deployment = deployment_id(&self.data_dir).map_err(|source| EngineError::Io {
            context: format!("could not read or make the deployment id of {}", self.data_dir.display()),
            source,
        })?;
        let (log, base_dir) = (self.log.clone(), self.base_dir.clone());
        Ok(ConnectorContext { log, transaction, base_dir, deployment, pipeline: self.pipeline.spec.pipeline.clone() })
    }

    /// Opens what the pipeline reads, and plans it.
    async fn open(
        &self,
        registry: &Registry,
        context: &ConnectorContext,
        pinned: &BTreeMap<String, SchemaRef>,
    ) -> Result<Opened, RunError> {
        let spec = &self.pipeline.spec;
        let mut schemas: BTreeMap<String, SchemaRef> = BTreeMap::new();
        let mut digests = BTreeMap::new();
        let mut tables = BTreeMap::new();
        for (name, table) in &spec.tables {
            let loaded = registry.load_table(table, context).await;
            let loaded = loaded.map_err(|error| EngineError::table(name, error))?;
            schemas.insert(name.clone(), loaded.schema.clone());
            digests.insert(name.clone(), loaded.digest);
            let table = StaticTable { name: name.as_str().into(), schema: loaded.schema, batches: loaded.batches };
            tables.insert(name.clone(), table);
        }
        let mut sources = Vec::new();
        for (name, source) in &spec.sources {
            let failed = |error| EngineError::source(name, error);
            let handle =
                registry.open_source(name, source, pinned.get(name).cloned(), context).await.map_err(failed)?;
            schemas.insert(name.clone(), handle.schema.clone());
            let opened = match &source.through {
                None => {
                    let topic = topics::topic_of_source(source);
                    OpenedSource { name: name.clone(), read: handle, topic, intake: None }
                }
                Some(topic) => {
                    let topic = topic.to_string();
                    let (ends, told) = watch::channel(None);
                    let schema = handle.schema.clone();
                    let read = registry.open_topic_source(&topic, source, schema, told, context).await;
                    let read = read.map_err(failed)?;
                    let intake = Some(OpenedIntake { source: handle, topic: topic.clone(), ends });
                    OpenedSource { name: name.clone(), read, topic: Some(topic), intake }
                }
            };
            sources.push(opened);
        }
        let plan = plan::plan(self.pipeline.clone(), registry, &schemas, &self.modules).map_err(RunError::Invalid)?;
        let mut bytes = 0;
        for source in &sources {
            let from = source.intake.as_ref().map_or(&source.read, |intake| &intake.source);
            bytes += from.source.size_hint().await.unwrap_or(0);
        }
        self.metrics.set_bytes_to_read(bytes);
        Ok(Opened { sources, tables, plan: plan.with_table_digests(digests), graphs: Vec::new() })
    }
}

/// Deletes what runs that died had staged or stored and no manifest names.
async fn sweep(
    sinks: &[SinkHandle],
    store: &CheckpointStore,
    beginning: &Beginning,
    attempt: &Attempt,
) -> Result<(), EngineError> {
    let Beginning { manifest, released, .. } = beginning;
    for handle in sinks {
        let live: Vec<_> = manifest.sinks.get(&handle.name).into_iter().flat_map(SinkState::tokens).cloned().collect();
        let swept = retry::transient(|| handle.sink.collect(&live, attempt)).await;
        swept.map_err(|error| EngineError::sink(&handle.name, error))?;
    }
    store.sweep(manifest.references().into_iter().chain(released.iter().cloned()).collect()).await
}

/// Aborts the epoch that failed. The next run's first act does the same; this lets readers of the topics go on at once.
async fn or_give_up<T>(transaction: &EpochTransaction, result: Result<T, EngineError>) -> Result<T, RunError> {
    if result.is_err()
        && let Err(second) = transaction.abort().await
    {
        tracing::debug!("could not abort the transaction of the failed epoch: {second}");
    }
    result.map_err(RunError::from)
}

/// Whether the pipeline fits the state that earlier runs left, and what it takes over.
fn take_over(manifest: &Manifest, now: &PlanFingerprint, fresh: bool) -> Result<Takeover, EngineError> {
    let Some(before) = manifest.plan.as_ref().filter(|_| !fresh) else { return Ok(Takeover::default()) };
    let accepted_changes = match plan::compare(&before.plan, now, &state::owners(manifest)) {
        Verdict::Same => Vec::new(),
        Verdict::Compatible { reasons } => reasons,
        Verdict::Incompatible { reasons } => {
            return Err(EngineError::Incompatible(format!(
                "the pipeline was edited, and its saved state does not fit any more\n  {}\n  hint: undo the change, or give \
                 the edited pipeline another name; if the sources still hold all they ever held, --fresh reads them again",
                reasons.join("\n  ")
            )));
        }
    };
    Ok(Takeover { rows_before: before.rows_read, epoch_before: before.epoch.0, accepted_changes })
}

async fn open_sinks(
    plan: &Plan,
    registry: &Registry,
    context: &ConnectorContext,
) -> Result<Vec<SinkHandle>, EngineError> {
    let mut sinks = Vec::new();
    for planned in &plan.sinks {
        let Some(schema) = planned.schema.clone() else { return Err(EngineError::Defect("the plan of a sink")) };
        let sink = registry.open_sink(&planned.name, &planned.spec, schema, context).await;
        let sink: Arc<dyn Sink> = sink.map_err(|error| EngineError::sink(&planned.name, error))?;
        sinks.push(SinkHandle { name: planned.name.clone(), sink });
    }
    Ok(sinks)
}
