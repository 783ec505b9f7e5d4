//! Wires the tasks of a run together and lets the coordinator drive them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use logmill_connectors::decode::Encoder;
use logmill_connectors::format;
use logmill_connectors::log::{Log, Membership};
use logmill_connectors::sink::{Attempt, OpenWriter};
use logmill_connectors::topic::RecordWriter;
use logmill_operators::operator::{OpenContext, Operator};
use logmill_pipelines::flow::{CheckpointEpoch, Positions};
use logmill_pipelines::spec::{OnError, PipelineSpec};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::coordinator::{Coordinator, Ending, Ends, FeedState, MANIFEST_REWRITE_COMMITS, SinkHandle};
use super::dead_letter::Provenance;
use super::error::EngineError;
use super::event::{Barrier, Event, FeedId, WriterId};
use super::feed::{Feed, Input};
use super::graph::{Graph, Route};
use super::intake::Intake;
use super::manifest::{Manifest, Stage, topic_of};
use super::queue::{self, Receiver, Sender};
use super::restore;
use super::start::{Opened, OpenedIntake};
use super::store::CheckpointStore;
use super::transaction::EpochTransaction;
use super::worker::{FeedDecoder, Worker, WorkerExit};
use super::writer::{Item, Target, WriterTask};
use crate::metrics::Metrics;
use crate::plan::Plan;

/// The bound of each worker's and each intake's input.
const INPUT_QUEUE_BYTES: u32 = 8 << 20;
/// The bound of what one worker may have waiting for one sink.
const WRITER_QUEUE_BYTES: u32 = 8 << 20;

/// What a run is made of, besides what the pipeline names.
pub(crate) struct Wiring<'a> {
    pub(crate) pipeline: String,
    pub(crate) spec: &'a PipelineSpec,
    pub(crate) log: Arc<dyn Log>,
    pub(crate) transaction: Arc<EpochTransaction>,
    pub(crate) membership: Membership,
    pub(crate) store: CheckpointStore,
    pub(crate) attempt: Attempt,
    pub(crate) manifest: Manifest,
    pub(crate) epoch: CheckpointEpoch,
    pub(crate) every: Duration,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) stop: watch::Receiver<bool>,
    pub(crate) rows_before: u64,
}

/// The tasks of a run while they are put together.
struct Tasks {
    events: mpsc::UnboundedSender<Event>,
    barriers: Vec<mpsc::UnboundedSender<Barrier>>,
    spawned: JoinSet<()>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

/// Runs what was opened until its input has ended or a stop is asked for.
pub(crate) async fn run(wiring: Wiring<'_>, opened: Opened, sinks: Vec<SinkHandle>) -> Result<Ending, EngineError> {
    let (events, told) = mpsc::unbounded_channel();
    let mut tasks = Tasks { events, barriers: Vec::new(), spawned: JoinSet::new(), threads: Vec::new() };
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let Opened { sources, tables, plan } = opened;

    wiring.metrics.name_sinks(sinks.iter().map(|sink| sink.name.clone()));
    let mut writer_queues = open_writers(&wiring, &sinks, workers, &mut tasks).await?;
    let writers = writer_queues.len();
    let letters = (writers > sinks.len()).then_some(WriterId(sinks.len()));
    let (inputs, queues): (Vec<_>, Vec<_>) = (0..workers).map(|_| queue::channel::<Input>(INPUT_QUEUE_BYTES)).unzip();
    for (number, input) in queues.into_iter().enumerate() {
        let mut decoders = Vec::with_capacity(sources.len());
        for source in &sources {
            let columns =
                plan.sources.iter().find(|planned| planned.name == source.name).map(|planned| &planned.columns);
            let decoder = source.read.decoder(columns.map_or(&[], Vec::as_slice));
            let provenance =
                Provenance { pipeline: wiring.pipeline.as_str().into(), source: source.name.as_str().into() };
            let decoder = decoder.map_err(|error| EngineError::source(&source.name, error))?;
            decoders.push(FeedDecoder { provenance, decoder });
        }
        let (barrier, barriers) = mpsc::unbounded_channel();
        tasks.barriers.push(barrier);
        let worker = Worker {
            pipeline: wiring.pipeline.as_str().into(),
            feeds: decoders,
            graph: graph(&plan, &tables)?,
            operators: plan.operators.iter().map(|operator| operator.name.clone()).collect(),
            input,
            barriers,
            exit: WorkerExit {
                writers: writer_queues.iter_mut().filter_map(Vec::pop).collect(),
                letters,
                runtime: Handle::current(),
            },
            events: tasks.events.clone(),
            metrics: wiring.metrics.clone(),
        };
        let started = worker.start(number);
        let context = "could not start a worker thread".to_owned();
        tasks.threads.push(started.map_err(|source| EngineError::Io { context, source })?);
    }

    let mut feeds = Vec::new();
    let mut intakes = Vec::new();
    for (number, source) in sources.into_iter().enumerate() {
        let stage = Stage::Source(source.name.clone());
        let id = FeedId(number);
        let positions = positions(&wiring.manifest, &stage);
        let from = source.read.source.clone();
        let feed = Feed { id, name: source.name.clone(), source: from.clone(), positions, outlets: inputs.clone() };
        tasks.spawned.spawn(feed.run(tasks.events.clone()));
        feeds.push(FeedState { stage, source: from, topic: source.topic, ends: None, splits: None, processed: 0 });
        intakes.extend(source.intake.map(|intake| (source.name, intake)));
    }
    for (name, intake) in intakes {
        let id = FeedId(feeds.len());
        feeds.push(start_intake(&wiring, id, name, intake, &mut tasks).await?);
    }
    drop(inputs);

    let manifest_topic = topic_of(&wiring.pipeline);
    let manifest_writer = RecordWriter::new(wiring.transaction.clone(), &manifest_topic, 1, wiring.epoch);
    let coordinator = Coordinator {
        pipeline: wiring.pipeline,
        log: wiring.log,
        transaction: wiring.transaction,
        membership: wiring.membership,
        store: wiring.store,
        attempt: wiring.attempt.0,
        manifest: wiring.manifest,
        manifest_writer,
        feeds,
        sinks,
        writers,
        barriers: tasks.barriers,
        events: told,
        stop: wiring.stop,
        every: wiring.every,
        epoch: wiring.epoch,
        changes: Default::default(),
        confirmed: Default::default(),
        rows_before: wiring.rows_before,
        commits_since_rewrite: MANIFEST_REWRITE_COMMITS,
        metrics: wiring.metrics,
    };
    let ending = coordinator.run().await;
    // Queues close as the tasks go, which ends the workers; whatever they still say is of no account.
    tasks.spawned.shutdown().await;
    let joined = tokio::task::spawn_blocking(move || tasks.threads.into_iter().try_for_each(|thread| thread.join()));
    if ending.is_ok() && !matches!(joined.await, Ok(Ok(()))) {
        return Err(EngineError::Defect("a worker"));
    }
    ending
}

/// Starts a writer's task for each sink, and one for dead letters if they are wanted; returns the queues to each, one
/// for each worker.
async fn open_writers(
    wiring: &Wiring<'_>,
    sinks: &[SinkHandle],
    workers: usize,
    tasks: &mut Tasks,
) -> Result<Vec<Vec<Sender<Item>>>, EngineError> {
    let mut targets = Vec::with_capacity(sinks.len() + 1);
    for handle in sinks {
        let carried = restore::carried(&wiring.manifest, &wiring.store, &handle.name).await?;
        let open = OpenWriter { shard: 0, attempt: wiring.attempt.clone(), epoch: wiring.epoch, carried };
        let writer = handle.sink.open(open).await.map_err(|error| EngineError::sink(&handle.name, error))?;
        targets.push((handle.name.clone(), Target::Sink(writer)));
    }
    if let OnError::DeadLetter(topic) = &wiring.spec.on_error {
        let topic = topic.as_str();
        let records =
            RecordWriter::new(wiring.transaction.clone(), topic, partitions(wiring, topic).await?, wiring.epoch);
        targets.push((topic.to_owned(), Target::Letters(records)));
    }
    let mut queues = Vec::with_capacity(targets.len());
    for (number, (name, target)) in targets.into_iter().enumerate() {
        let (senders, inputs): (Vec<_>, Vec<Receiver<Item>>) =
            (0..workers).map(|_| queue::channel(WRITER_QUEUE_BYTES)).unzip();
        let (id, events, metrics) = (WriterId(number), tasks.events.clone(), wiring.metrics.clone());
        tasks.spawned.spawn(WriterTask { id, name, target, inputs, events, metrics }.run());
        queues.push(senders);
    }
    Ok(queues)
}

async fn start_intake(
    wiring: &Wiring<'_>,
    id: FeedId,
    name: String,
    opened: OpenedIntake,
    tasks: &mut Tasks,
) -> Result<FeedState, EngineError> {
    let OpenedIntake { source, topic, ends } = opened;
    let partitions = partitions(wiring, &topic).await?;
    let stage = Stage::Intake(name.clone());
    let positions = positions(&wiring.manifest, &stage);
    let encoder: Option<Box<dyn Encoder>> = match source.reads_rows() {
        true => Some(format::json_encoder(&source.schema).map_err(|error| EngineError::source(&name, error))?),
        false => None,
    };
    let (outlet, input) = queue::channel(INPUT_QUEUE_BYTES);
    let (barrier, barriers) = mpsc::unbounded_channel();
    tasks.barriers.push(barrier);
    let records = RecordWriter::new(wiring.transaction.clone(), &topic, partitions, wiring.epoch);
    let (events, metrics) = (tasks.events.clone(), wiring.metrics.clone());
    tasks.spawned.spawn(Intake { name: name.clone(), records, encoder, input, barriers, events, metrics }.run());
    let feed = Feed { id, name, source: source.source.clone(), positions, outlets: vec![outlet] };
    tasks.spawned.spawn(feed.run(tasks.events.clone()));
    let ends = Some(Ends { topic, partitions, tell: ends });
    Ok(FeedState { stage, source: source.source, topic: None, ends, splits: None, processed: 0 })
}

async fn partitions(wiring: &Wiring<'_>, topic: &str) -> Result<i32, EngineError> {
    let info = wiring.log.topic(topic).await?;
    Ok(info.ok_or_else(|| logmill_connectors::error::LogError::UnknownTopic(topic.to_owned()))?.partitions)
}

fn positions(manifest: &Manifest, stage: &Stage) -> Positions {
    manifest.positions.get(stage).cloned().unwrap_or_default()
}

/// One worker's instance of the operators, opened.
pub(crate) fn graph(
    plan: &Plan,
    tables: &BTreeMap<String, logmill_operators::operator::StaticTable>,
) -> Result<Graph, EngineError> {
    let mut operators: Vec<(Box<dyn Operator>, Vec<Route>)> = Vec::with_capacity(plan.operators.len());
    for planned in &plan.operators {
        let sql = planned.sql.as_ref().ok_or(EngineError::Defect("the plan of an operator"))?;
        let mut operator = sql.operator();
        let wanted = sql.tables().iter().filter_map(|input| tables.get(input.relation.as_ref()).cloned());
        operator.open(OpenContext { tables: wanted.collect(), ..OpenContext::default() })?;
        operators.push((operator, routes(plan, &planned.name)));
    }
    let feeds = plan.sources.iter().map(|source| routes(plan, &source.name)).collect();
    Ok(Graph::new(operators, feeds))
}

/// Who reads what the relation of this name puts out.
fn routes(plan: &Plan, name: &str) -> Vec<Route> {
    let mut routes = Vec::new();
    for (number, operator) in plan.operators.iter().enumerate() {
        let inputs = operator.sql.iter().flat_map(|sql| sql.inputs());
        let ports = inputs.enumerate().filter(|(_, input)| input.relation.as_ref() == name);
        routes.extend(ports.map(|(port, _)| Route::Operator(number, port)));
    }
    let sinks = plan.sinks.iter().enumerate().filter(|(_, sink)| sink.input == name);
    routes.extend(sinks.map(|(number, _)| Route::Writer(WriterId(number))));
    routes
}
