//! Wires the tasks of a run together and lets the coordinator drive them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use logmill_connectors::decode::Encoder;
use logmill_connectors::error::LogError;
use logmill_connectors::format;
use logmill_connectors::log::{Log, Membership};
use logmill_connectors::sink::{Attempt, OpenWriter};
use logmill_connectors::topic::{BatchLimit, RecordWriter};
use logmill_operators::operator::{Clock, OpenContext, StateBuffer, StaticTable};
use logmill_pipelines::flow::{Origin, Positions, STATE_SHARDS, SplitId};
use logmill_pipelines::spec::{OnError, PipelineSpec};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::begin::Beginning;
use super::coordinator::{Coordinator, Ending, Ends, FeedState};
use super::dead_letter::Provenance;
use super::decoding::FeedDecoder;
use super::error::EngineError;
use super::event::{Barrier, Event, FeedId, WriterId};
use super::feed::{Feed, Input};
use super::graph::{Graph, GraphParts, Route, RoutedOperator};
use super::intake::Intake;
use super::journal::Journal;
use super::manifest::{Manifest, Stage};
use super::queue::{self, Receiver, Sender};
use super::restore;
use super::rounds::Rounds;
use super::sinks::SinkHandle;
use super::start::{Opened, OpenedIntake, OpenedSource};
use super::state;
use super::store::CheckpointStore;
use super::transaction::EpochTransaction;
use super::worker::{Worker, WorkerExit};
use super::writer::{Item, Target, WriterSide, WriterTask};
use crate::metrics::Metrics;
use crate::plan::{OperatorBody, Plan};

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
    pub(crate) journal: Journal,
    pub(crate) beginning: Beginning,
    pub(crate) every: Duration,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) stop: watch::Receiver<bool>,
}

/// The tasks of a run while they are put together.
struct Tasks {
    events: mpsc::UnboundedSender<Event>,
    barriers: Vec<mpsc::UnboundedSender<Barrier>>,
    readers: JoinSet<()>,
    spawned: JoinSet<()>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

/// Runs what was opened until its input has ended or a stop is asked for. When it returns, no task of the run is left.
pub(crate) async fn run(wiring: Wiring<'_>, opened: Opened, sinks: Vec<SinkHandle>) -> Result<Ending, EngineError> {
    let (events, told) = mpsc::unbounded_channel();
    let mut tasks =
        Tasks { events, barriers: Vec::new(), readers: JoinSet::new(), spawned: JoinSet::new(), threads: Vec::new() };
    let ending = match start(wiring, opened, sinks, told, &mut tasks).await {
        Ok(coordinator) => coordinator.run().await,
        Err(error) => Err(error),
    };
    // Queues and barrier channels close as the tasks go, which ends the workers; what they still say is of no account.
    let Tasks { barriers, mut readers, mut spawned, threads, .. } = tasks;
    drop(barriers);
    readers.shutdown().await;
    spawned.shutdown().await;
    let joined = tokio::task::spawn_blocking(move || threads.into_iter().try_for_each(|thread| thread.join()));
    if ending.is_ok() && !matches!(joined.await, Ok(Ok(()))) {
        return Err(EngineError::Defect("a worker"));
    }
    ending
}

/// Starts the tasks of a run, and puts its coordinator together.
async fn start(
    wiring: Wiring<'_>,
    opened: Opened,
    sinks: Vec<SinkHandle>,
    told: mpsc::UnboundedReceiver<Event>,
    tasks: &mut Tasks,
) -> Result<Coordinator, EngineError> {
    let Opened { sources, plan, graphs, .. } = opened;
    let workers = graphs.len();

    wiring.metrics.name_sinks(sinks.iter().map(|sink| sink.name.clone()));
    let played = sources.iter().filter(|source| source.intake.is_some()).count();
    let (writer_queues, letters_of_intakes) = open_writers(&wiring, &sinks, workers, played, tasks).await?;
    let mut letters_of_intakes = letters_of_intakes.into_iter();
    let writers = writer_queues.len();
    let letters = (writers > sinks.len()).then_some(WriterId(sinks.len()));
    let inputs = start_workers(&wiring, &sources, &plan, graphs, writer_queues, letters, tasks)?;
    let mut feeds = Vec::new();
    let mut intakes = Vec::new();
    for (number, source) in sources.into_iter().enumerate() {
        let stage = Stage::Source(source.name.clone());
        let id = FeedId(number);
        let positions = positions(&wiring.beginning.manifest, &stage);
        let from = source.read.source.clone();
        let (name, outlets, by_shard) = (source.name.clone(), inputs.clone(), plan.is_stateful());
        let feed = Feed { id, name, source: from.clone(), positions, outlets, by_shard };
        tasks.readers.spawn(feed.run(tasks.events.clone()));
        feeds.push(FeedState { stage, source: from, topic: source.topic, ends: None });
        intakes.extend(source.intake.map(|intake| (source.name, intake)));
    }
    for (name, intake) in intakes {
        let id = FeedId(feeds.len());
        feeds.push(start_intake(&wiring, id, name, intake, letters_of_intakes.next(), tasks).await?);
    }
    drop(inputs);

    let Beginning { manifest, changes, confirmed, released, epoch } = wiring.beginning;
    let barriers = std::mem::take(&mut tasks.barriers);
    let mut rounds = Rounds::new(epoch, barriers.len(), writers);
    feeds.iter().for_each(|feed| rounds.add_feed(feed.ends.is_some()));
    Ok(Coordinator {
        log: wiring.log,
        transaction: wiring.transaction,
        membership: wiring.membership,
        store: wiring.store,
        attempt: wiring.attempt.0,
        manifest,
        journal: wiring.journal,
        feeds,
        sinks,
        barriers,
        events: told,
        stop: wiring.stop,
        readers: std::mem::take(&mut tasks.readers),
        every: wiring.every,
        rounds,
        changes,
        confirmed,
        released,
        staged: BTreeMap::new(),
        metrics: wiring.metrics,
    })
}

/// Starts the worker threads; returns the queues to their inputs.
fn start_workers(
    wiring: &Wiring<'_>,
    sources: &[OpenedSource],
    plan: &Plan,
    graphs: Vec<Graph>,
    mut writer_queues: Vec<Vec<Sender<Item>>>,
    letters: Option<WriterId>,
    tasks: &mut Tasks,
) -> Result<Vec<Sender<Input>>, EngineError> {
    let workers = graphs.len();
    let (inputs, queues): (Vec<_>, Vec<_>) = (0..workers).map(|_| queue::channel::<Input>(INPUT_QUEUE_BYTES)).unzip();
    for (number, (input, graph)) in queues.into_iter().zip(graphs).enumerate() {
        let mut decoders = Vec::with_capacity(sources.len());
        for source in sources {
            let columns =
                plan.sources.iter().find(|planned| planned.name == source.name).map(|planned| &planned.columns);
            let (read, columns) = (source.read.clone(), columns.cloned().unwrap_or_default());
            let provenance =
                Provenance { pipeline: wiring.pipeline.as_str().into(), source: source.name.as_str().into() };
            decoders.push(FeedDecoder::new(provenance, Box::new(move || read.decoder(&columns)))?);
        }
        let (barrier, barriers) = mpsc::unbounded_channel();
        tasks.barriers.push(barrier);
        let worker = Worker {
            chunks: 0,
            pipeline: wiring.pipeline.as_str().into(),
            feeds: decoders,
            graph,
            operators: plan.operators.iter().map(|operator| operator.name.clone()).collect(),
            input,
            barriers,
            exit: WorkerExit {
                writers: writer_queues.iter_mut().filter_map(Vec::pop).collect(),
                letters,
                runtime: Handle::current(),
                metrics: wiring.metrics.clone(),
            },
            events: tasks.events.clone(),
            metrics: wiring.metrics.clone(),
        };
        let started = worker.start(number);
        let context = "could not start a worker thread".to_owned();
        tasks.threads.push(started.map_err(|source| EngineError::Io { context, source })?);
    }
    Ok(inputs)
}

/// Starts a writer's task for each sink, and one for dead letters if they are wanted; returns the queues to each, one
/// for each worker, and those from `intakes` intakes to the writer of the dead letters.
async fn open_writers(
    wiring: &Wiring<'_>,
    sinks: &[SinkHandle],
    workers: usize,
    intakes: usize,
    tasks: &mut Tasks,
) -> Result<(Vec<Vec<Sender<Item>>>, Vec<Sender<Item>>), EngineError> {
    let mut targets = Vec::with_capacity(sinks.len() + 1);
    for handle in sinks {
        let carried = restore::carried(&wiring.beginning.manifest, &wiring.store, &handle.name).await?;
        let open = OpenWriter { shard: 0, attempt: wiring.attempt.clone(), epoch: wiring.beginning.epoch, carried };
        let writer = handle.sink.open(open).await.map_err(|error| EngineError::sink(&handle.name, error))?;
        targets.push((handle.name.clone(), Target::Sink(writer)));
    }
    if let OnError::DeadLetter(topic) = &wiring.spec.on_error {
        targets.push((topic.to_string(), Target::Letters(record_writer(wiring, topic.as_str()).await?)));
    }
    // From each sink's writer and each intake to the writer of the dead letters, which comes last.
    let others = if targets.len() > sinks.len() { sinks.len() + intakes } else { 0 };
    let (mut to_letters, from_others): (Vec<_>, Vec<_>) =
        (0..others).map(|_| queue::channel(WRITER_QUEUE_BYTES)).unzip();
    let letters_of_intakes = to_letters.split_off(to_letters.len().min(sinks.len()));
    let (mut to_letters, mut from_others) = (to_letters.into_iter(), Some(from_others));
    let mut queues = Vec::with_capacity(targets.len());
    for (number, (name, target)) in targets.into_iter().enumerate() {
        let (senders, mut inputs): (Vec<_>, Vec<Receiver<Item>>) =
            (0..workers).map(|_| queue::channel(WRITER_QUEUE_BYTES)).unzip();
        if matches!(target, Target::Letters(_)) {
            inputs.extend(from_others.take().unwrap_or_default());
        }
        let (id, events) = (WriterId(number), tasks.events.clone());
        let side = WriterSide {
            pipeline: wiring.pipeline.as_str().into(),
            letters: to_letters.next(),
            metrics: wiring.metrics.clone(),
            store: wiring.store.clone(),
            attempt: wiring.attempt.0.clone(),
            kept: 0,
        };
        tasks.spawned.spawn(WriterTask { id, name, target, inputs, events, side }.run());
        queues.push(senders);
    }
    Ok((queues, letters_of_intakes))
}

async fn start_intake(
    wiring: &Wiring<'_>,
    id: FeedId,
    name: String,
    opened: OpenedIntake,
    letters: Option<Sender<Item>>,
    tasks: &mut Tasks,
) -> Result<FeedState, EngineError> {
    let OpenedIntake { source, topic, ends } = opened;
    let records = record_writer(wiring, &topic).await?;
    let partitions = records.partitions();
    let stage = Stage::Intake(name.clone());
    let positions = positions(&wiring.beginning.manifest, &stage);
    let encoder: Option<Box<dyn Encoder>> = match source.reads_rows() {
        true => Some(format::json_encoder(&source.schema).map_err(|error| EngineError::source(&name, error))?),
        false => None,
    };
    let (outlet, input) = queue::channel(INPUT_QUEUE_BYTES);
    let (barrier, barriers) = mpsc::unbounded_channel();
    tasks.barriers.push(barrier);
    let (events, metrics) = (tasks.events.clone(), wiring.metrics.clone());
    let provenance = Provenance { pipeline: wiring.pipeline.as_str().into(), source: name.as_str().into() };
    let intake = Intake { provenance, records, encoder, letters, input, barriers, events, metrics };
    tasks.spawned.spawn(intake.run());
    let feed = Feed { id, name, source: source.source.clone(), positions, outlets: vec![outlet], by_shard: false };
    tasks.readers.spawn(feed.run(tasks.events.clone()));
    let ends = Some(Ends { topic, partitions, tell: ends });
    Ok(FeedState { stage, source: source.source, topic: None, ends })
}

/// Writes records into a topic, from the first epoch on.
async fn record_writer(wiring: &Wiring<'_>, topic: &str) -> Result<RecordWriter, EngineError> {
    let info = wiring.log.topic(topic).await?.ok_or_else(|| LogError::UnknownTopic(topic.to_owned()))?;
    let (transaction, epoch) = (wiring.transaction.clone(), wiring.beginning.epoch);
    Ok(RecordWriter::new(transaction, topic, info.partitions, epoch).with_limit(BatchLimit::of(&info)))
}

fn positions(manifest: &Manifest, stage: &Stage) -> Positions {
    manifest.positions.get(stage).cloned().unwrap_or_default()
}

/// How many workers a plan runs on: one a core, but no more than there are shards, where operators have state.
pub(crate) fn workers(plan: &Plan) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if plan.is_stateful() { cores.min(STATE_SHARDS as usize) } else { cores }
}

/// The operators of each worker, opened, with what they remembered at the last commit.
pub(crate) async fn graphs(
    plan: &Plan,
    tables: &BTreeMap<String, StaticTable>,
    manifest: &Manifest,
    store: &CheckpointStore,
) -> Result<Vec<Graph>, EngineError> {
    let workers = workers(plan);
    let mut states = Vec::new();
    for planned in &plan.operators {
        let pipeline = &plan.pipeline.spec.pipeline;
        states.push(state::restore(manifest, store, pipeline, &planned.name).await?);
    }
    let mut graphs = Vec::with_capacity(workers);
    for worker in 0..workers {
        let own = |buffer: &&StateBuffer| buffer.shard as usize % workers == worker;
        let own = |of: &Vec<StateBuffer>| of.iter().filter(own).cloned().collect();
        let start = GraphStart { worker, states: states.iter().map(own).collect(), clock: None };
        graphs.push(graph(plan, tables, start)?);
    }
    Ok(graphs)
}

/// What one worker's operators start with.
#[derive(Default)]
pub(crate) struct GraphStart {
    /// The worker's number.
    pub(crate) worker: usize,
    /// What each operator remembers of the worker's shards, in the order of the plan; none remembers anything if empty.
    pub(crate) states: Vec<Vec<StateBuffer>>,
    /// The clock that guests are shown; the system's if absent.
    pub(crate) clock: Option<Clock>,
}

/// One worker's instances of the operators, opened, with the state of each.
pub(crate) fn graph(
    plan: &Plan,
    tables: &BTreeMap<String, StaticTable>,
    start: GraphStart,
) -> Result<Graph, EngineError> {
    let GraphStart { worker, states, clock } = start;
    let mut operators: Vec<RoutedOperator> = Vec::with_capacity(plan.operators.len());
    let mut states = states.into_iter();
    for planned in &plan.operators {
        let body = planned.body.as_ref().ok_or(EngineError::Defect("the plan of an operator"))?;
        let mut operator = body.instance()?;
        let wanted = body.tables().filter_map(|table| tables.get(table).cloned());
        let context = OpenContext::default();
        let clock = clock.clone().unwrap_or(context.clock);
        operator.open(OpenContext { tables: wanted.collect(), clock })?;
        let state = states.next().unwrap_or_default();
        if !state.is_empty() {
            operator.restore(state).map_err(|source| EngineError::not_restored(&planned.name, source))?;
        }
        let outputs = body.outputs(&planned.name);
        operators.push((operator, outputs.iter().map(|output| routes(plan, &output.name)).collect()));
    }
    let feeds = plan.sources.iter().map(|source| routes(plan, &source.name)).collect();
    let sinks = plan.sinks.iter().map(|sink| sink.schema.clone()).collect();
    // A split of this name belongs to the shard of that number, which is this worker's.
    let home = Origin { source: "".into(), split: SplitId::new(worker.to_string()), offset: -1 };
    Ok(Graph::new(GraphParts { operators, feeds, sinks, home }))
}

/// Who reads the relation of this name.
fn routes(plan: &Plan, name: &str) -> Vec<Route> {
    let mut routes = Vec::new();
    for (number, operator) in plan.operators.iter().enumerate() {
        let inputs = operator.body.iter().flat_map(OperatorBody::inputs);
        let ports = inputs.enumerate().filter(|(_, input)| input.relation == name);
        routes.extend(ports.map(|(port, _)| Route::Operator(number, port)));
    }
    let sinks = plan.sinks.iter().enumerate().filter(|(_, sink)| sink.input == name);
    routes.extend(sinks.map(|(number, _)| Route::Writer(WriterId(number))));
    routes
}
