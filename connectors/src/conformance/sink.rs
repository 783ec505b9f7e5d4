//! What every exactly-once sink is held to: whatever the instant of a crash, each row is visible once in the end, and
//! nothing stays staged.
//!
//! A small engine plays the commit: it writes epochs of known rows, keeps the manifest as the log would, "crashes" by
//! dropping the sink with its writer, and starts again from the manifest.

use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use bytes::Bytes;
use logmill_pipelines::flow::{CheckpointEpoch, RowBatch};

use crate::error::ConnectorError;
use crate::sink::{Attempt, Committed, OpenWriter, Sink, Token, Writer};

/// A row of the test: its number and its group, which is null for some.
pub type TestRow = (i64, Option<String>);

/// What a sink under test writes to.
#[async_trait]
pub trait Destination: Send + Sync {
    /// The sink as a new process makes it.
    fn sink(&self) -> Result<Arc<dyn Sink>, ConnectorError>;

    /// The rows that a reader sees, in any order.
    async fn visible(&self) -> Result<Vec<TestRow>, ConnectorError>;

    /// The names of what is staged, or was left behind by staging.
    async fn staged(&self) -> Result<Vec<String>, ConnectorError>;
}

/// An instant between the steps of an epoch's commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// Rows were written, nothing was prepared.
    BeforePrepare,
    /// Everything is staged, and no manifest names it.
    BeforeManifest,
    /// The manifest is durable, no token is committed.
    BeforeCommit,
    /// The first token is committed, the others are not.
    WithinCommit,
    /// Every token is committed, and the manifest still names them.
    BeforeConfirm,
}

impl Crash {
    /// Every instant.
    pub const ALL: [Self; 5] =
        [Self::BeforePrepare, Self::BeforeManifest, Self::BeforeCommit, Self::WithinCommit, Self::BeforeConfirm];
}

/// The columns of the test's rows.
pub fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, false), Field::new("group", DataType::Utf8, true)]))
}

/// How many rows an epoch has.
const EPOCH_ROWS: i64 = 40;

/// How many rows a batch has.
const BATCH_ROWS: i64 = 7;

/// The rows of an epoch.
fn rows_of(epoch: u64) -> Vec<TestRow> {
    let first = i64::try_from(epoch).unwrap_or_default() * EPOCH_ROWS;
    let group = |id: i64| (id % 5 != 4).then(|| ["AA", "B/6", "ü ="].get((id % 3) as usize).map(ToString::to_string));
    (first..first + EPOCH_ROWS).map(|id| (id, group(id).flatten())).collect()
}

/// Rows as a batch of `schema()`.
pub fn batch(rows: &[TestRow]) -> Result<RecordBatch, ConnectorError> {
    let ids: Int64Array = rows.iter().map(|(id, _)| *id).collect();
    let groups: StringArray = rows.iter().map(|(_, group)| group.as_deref()).collect();
    RecordBatch::try_new(schema(), vec![Arc::new(ids), Arc::new(groups)]).map_err(|error| ConnectorError::Permanent {
        context: "cannot make the rows of a test".into(),
        source: error.into(),
    })
}

/// What the log would hold of the sink.
#[derive(Default)]
struct Manifest {
    epoch: u64,
    carried: Vec<Bytes>,
    tokens: Vec<Token>,
}

/// One life of the sink's process.
struct Life {
    sink: Arc<dyn Sink>,
    writer: Box<dyn Writer>,
    attempt: Attempt,
}

/// Runs `epochs` epochs with a crash at each (epoch, instant) of `crashes`, in order, and says what is wrong in the end.
///
/// # Errors
/// Where the sink fails, loses what it staged, shows a row too early, twice or never, or leaves something staged.
pub async fn run(destination: &dyn Destination, epochs: u64, crashes: &[(u64, Crash)]) -> Result<(), ConnectorError> {
    let mut manifest = Manifest::default();
    let mut crashes = crashes.iter().copied().peekable();
    let mut lives = 0;
    let mut life = start(destination, &mut manifest, lives).await?;
    while manifest.epoch < epochs {
        let epoch = manifest.epoch + 1;
        let crash = crashes.next_if(|(at, _)| *at == epoch).map(|(_, crash)| crash);
        if !play_epoch(&mut life, &mut manifest, epoch == epochs, crash).await? {
            drop(life);
            lives += 1;
            life = start(destination, &mut manifest, lives).await?;
        }
        let mut seen = destination.visible().await?;
        seen.sort();
        seen.dedup_by(|a, b| a == b);
        if let Some(early) =
            seen.iter().find(|(id, _)| *id >= i64::try_from(manifest.epoch + 1).unwrap_or(0) * EPOCH_ROWS)
        {
            return Err(broken(format!(
                "row {early:?} is visible before its epoch {} is committed",
                manifest.epoch + 1
            )));
        }
    }
    let Life { sink, writer, attempt } = life;
    drop(writer);
    sink.collect(&manifest.tokens, &attempt).await?;
    check_end(destination, epochs).await
}

/// Starts a process: commits what the manifest names, sweeps the rest, opens the writer.
async fn start(destination: &dyn Destination, manifest: &mut Manifest, life: u32) -> Result<Life, ConnectorError> {
    let sink = destination.sink()?;
    let attempt = Attempt(format!("life{life}"));
    commit(sink.as_ref(), &manifest.tokens).await?;
    sink.collect(&manifest.tokens, &attempt).await?;
    manifest.tokens.clear();
    let open = OpenWriter {
        shard: 0,
        attempt: attempt.clone(),
        epoch: CheckpointEpoch(manifest.epoch + 1),
        carried: manifest.carried.clone(),
    };
    let writer = sink.open(open).await?;
    Ok(Life { sink, writer, attempt })
}

/// Plays one epoch up to its end, or up to a crash: then it returns false.
async fn play_epoch(
    life: &mut Life,
    manifest: &mut Manifest,
    last: bool,
    crash: Option<Crash>,
) -> Result<bool, ConnectorError> {
    let epoch = manifest.epoch + 1;
    for rows in rows_of(epoch).chunks(BATCH_ROWS as usize) {
        life.writer.write(RowBatch::inserts(batch(rows)?)).await?;
    }
    if crash == Some(Crash::BeforePrepare) {
        return Ok(false);
    }
    let prepared = life.writer.prepare(CheckpointEpoch(epoch), last).await?;
    if crash == Some(Crash::BeforeManifest) {
        return Ok(false);
    }
    if last && prepared.carried.is_some() {
        return Err(broken("rows are carried beyond the end of the input".into()));
    }
    if prepared.reset {
        manifest.carried.clear();
    }
    manifest.carried.extend(prepared.carried);
    manifest.tokens = prepared.tokens;
    manifest.epoch = epoch;
    let commits = match crash {
        Some(Crash::BeforeCommit) => 0,
        Some(Crash::WithinCommit) => 1,
        _ => manifest.tokens.len(),
    };
    commit(life.sink.as_ref(), manifest.tokens.get(..commits.min(manifest.tokens.len())).unwrap_or_default()).await?;
    if crash.is_some() {
        return Ok(false);
    }
    manifest.tokens.clear();
    Ok(true)
}

async fn commit(sink: &dyn Sink, tokens: &[Token]) -> Result<(), ConnectorError> {
    for token in tokens {
        match sink.commit(token).await? {
            Committed::Done { rejected } if rejected.is_empty() => {}
            Committed::Done { rejected } => return Err(broken(format!("{} rows were rejected", rejected.len()))),
            Committed::Lost(what) => return Err(broken(format!("lost: {what}"))),
        }
    }
    Ok(())
}

async fn check_end(destination: &dyn Destination, epochs: u64) -> Result<(), ConnectorError> {
    let mut expected: Vec<TestRow> = (1..=epochs).flat_map(rows_of).collect();
    let mut seen = destination.visible().await?;
    expected.sort();
    seen.sort();
    if seen != expected {
        let missing = expected.iter().find(|row| !seen.contains(row));
        let twice = seen.windows(2).find(|pair| pair.first() == pair.last());
        return Err(broken(format!(
            "{} rows are visible instead of {}; missing {missing:?}, twice {twice:?}",
            seen.len(),
            expected.len()
        )));
    }
    let staged = destination.staged().await?;
    if staged.is_empty() { Ok(()) } else { Err(broken(format!("left staged: {staged:?}"))) }
}

fn broken(message: String) -> ConnectorError {
    ConnectorError::Data { place: "sink under test".into(), message }
}

/// Every instant in the first, the middle and the last of five epochs, several in a row; then `random` runs of crashes
/// at random.
///
/// # Errors
/// The first scenario that fails, named.
pub async fn check(
    make: impl Fn() -> Result<Box<dyn Destination>, ConnectorError>,
    random: u64,
) -> Result<(), ConnectorError> {
    let mut scenarios: Vec<Vec<(u64, Crash)>> = vec![Vec::new()];
    for crash in Crash::ALL {
        scenarios.push(vec![(1, crash), (5, crash)]);
        scenarios.push(vec![(3, Crash::BeforeManifest), (3, crash), (4, crash)]);
    }
    for seed in 0..random {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut crashes = Vec::new();
        for epoch in 1..=5 {
            while rng.f32() < 0.5 {
                crashes.push((
                    epoch,
                    Crash::ALL.get(rng.usize(..Crash::ALL.len())).copied().unwrap_or(Crash::BeforeCommit),
                ));
            }
        }
        scenarios.push(crashes);
    }
    for crashes in scenarios {
        let destination = make()?;
        if let Err(error) = run(destination.as_ref(), 5, &crashes).await {
            return Err(broken(format!("with crashes at {crashes:?}: {error}")));
        }
    }
    Ok(())
}
