//! What every exactly-once sink is held to: whatever the instant of a crash, each row is visible once in the end, and
//! nothing stays staged; what was staged may expire, another deployment may write to the same destination, and rows that
//! the destination can never take hold nothing up.
//!
//! A small engine plays the commit: it writes epochs of known rows, keeps the manifest as the log would, "crashes" by
//! dropping the sink with its writer, and starts again from the manifest.

use std::sync::Arc;

use arrow::array::{AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use async_trait::async_trait;
use bytes::Bytes;
use logmill_pipelines::flow::{CheckpointEpoch, Origin, RowBatch, SplitId};

use crate::error::ConnectorError;
use crate::sink::{Attempt, Committed, OpenWriter, RefusedRows, Restage, Sink, Token, Writer};

/// A row of the test: its number and its group, which is null for some.
pub type TestRow = (i64, Option<String>);

/// What a sink under test writes to.
#[async_trait]
pub trait Destination: Send + Sync {
    /// The sink as a new process of a deployment makes it.
    fn sink(&self, deployment: &str) -> Result<Arc<dyn Sink>, ConnectorError>;

    /// The rows that a reader sees, in any order.
    async fn visible(&self) -> Result<Vec<TestRow>, ConnectorError>;

    /// The names of what is staged, or was left behind by staging.
    async fn staged(&self) -> Result<Vec<String>, ConnectorError>;

    /// Removes what a token names, which is not committed yet, behind the sink's back.
    async fn expire(&self, token: &Token) -> Result<(), ConnectorError>;

    /// A group whose rows the destination can never take, if there is one.
    fn impossible_group(&self) -> Option<String>;
}

/// What goes wrong in an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A crash after rows were written and before anything is prepared.
    BeforePrepare,
    /// A crash after everything is staged, while no manifest names it.
    BeforeManifest,
    /// A crash after the manifest is durable, before any token is committed.
    BeforeCommit,
    /// A crash after the first token is committed, and before the others are.
    WithinCommit,
    /// A crash after every token is committed, while the manifest still names them.
    BeforeConfirm,
    /// What was staged expires before it is committed.
    Expiry,
    /// Every other token's staging expires, and there is a crash before any is committed.
    CrashAndExpiry,
    /// What was staged expires, there is a crash, and another one once the rows are staged again, while no manifest names
    /// that.
    ExpiryAndCrashes,
}

impl Fault {
    /// Every fault.
    pub const ALL: [Self; 8] = [
        Self::BeforePrepare,
        Self::BeforeManifest,
        Self::BeforeCommit,
        Self::WithinCommit,
        Self::BeforeConfirm,
        Self::Expiry,
        Self::CrashAndExpiry,
        Self::ExpiryAndCrashes,
    ];
}

/// The columns of the test's rows.
pub fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, false), Field::new("group", DataType::Utf8, true)]))
}

/// How many rows an epoch has.
const EPOCH_ROWS: i64 = 40;

/// How many rows a batch has.
const BATCH_ROWS: i64 = 7;

/// The first number of the rows of the deployment that runs beside the one under test.
const NEIGHBOUR: i64 = 1 << 32;

/// The first number of the rows that the destination cannot take.
const IMPOSSIBLE: i64 = 1 << 40;

/// The rows of an epoch.
fn rows_of(base: i64, epoch: u64) -> Vec<TestRow> {
    let first = base + i64::try_from(epoch).unwrap_or_default() * EPOCH_ROWS;
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
    staged: Vec<Staged>,
}

/// Tokens of one epoch, and the rows that are kept for them.
struct Staged {
    tokens: Vec<Token>,
    rows: Vec<Bytes>,
}

/// A deployment of the pipeline: its manifest, and its process.
struct Deployment<'a> {
    name: &'static str,
    base: i64,
    destination: &'a dyn Destination,
    manifest: Manifest,
    lives: u32,
    life: Option<Life>,
    /// What the writer returned in this epoch so far.
    refused: Vec<RefusedRows>,
    kept: Vec<Bytes>,
}

/// One life of the sink's process.
struct Life {
    sink: Arc<dyn Sink>,
    writer: Box<dyn Writer>,
    attempt: Attempt,
}

impl<'a> Deployment<'a> {
    async fn new(name: &'static str, base: i64, destination: &'a dyn Destination) -> Result<Self, ConnectorError> {
        let (manifest, refused, kept) = (Manifest::default(), Vec::new(), Vec::new());
        let mut deployment = Self { name, base, destination, manifest, lives: 0, life: None, refused, kept };
        deployment.start().await?;
        Ok(deployment)
    }

    /// Starts a process: commits what the manifest names, sweeps the rest, opens the writer.
    async fn start(&mut self) -> Result<(), ConnectorError> {
        (self.life, self.refused, self.kept) = (None, Vec::new(), Vec::new());
        self.lives += 1;
        let sink = self.destination.sink(self.name)?;
        let attempt = Attempt(format!("life{}", self.lives));
        self.commit(&sink, usize::MAX).await?;
        sink.collect(&[], &attempt).await?;
        let open = OpenWriter {
            shard: 0,
            attempt: attempt.clone(),
            epoch: CheckpointEpoch(self.manifest.epoch + 1),
            carried: self.manifest.carried.clone(),
        };
        let writer = sink.open(open).await?;
        self.life = Some(Life { sink, writer, attempt });
        Ok(())
    }

    fn life(&mut self) -> Result<&mut Life, ConnectorError> {
        self.life.as_mut().ok_or_else(|| broken("the process is dead".into()))
    }

    async fn write(&mut self) -> Result<(), ConnectorError> {
        let epoch = self.manifest.epoch + 1;
        let mut rows = rows_of(self.base, epoch);
        if let Some(group) = self.destination.impossible_group() {
            rows.insert(11, (impossible(epoch), Some(group)));
        }
        for rows in rows.chunks(BATCH_ROWS as usize) {
            let offset = i64::try_from(epoch).unwrap_or_default();
            let origin = Origin { source: "s".into(), split: SplitId::new("0"), offset };
            let batch = RowBatch { origin: Some(origin), ..RowBatch::inserts(batch(rows)?) };
            let taken = self.life()?.writer.write(batch).await?;
            self.refused.extend(taken.refused);
            self.kept.extend(taken.kept);
        }
        Ok(())
    }

    /// Ends the epoch; returns false where the process died before the manifest was durable.
    async fn prepare(&mut self, last: bool, fault: Option<Fault>) -> Result<bool, ConnectorError> {
        let epoch = self.manifest.epoch + 1;
        let prepared = self.life()?.writer.prepare(CheckpointEpoch(epoch), last).await?;
        if fault == Some(Fault::BeforeManifest) {
            return Ok(false);
        }
        if last && (prepared.carried.is_some() || prepared.carried_rows > 0) {
            return Err(broken("rows are carried beyond the end of the input".into()));
        }
        self.refused.extend(prepared.refused);
        let expected = self.destination.impossible_group().map(|_| impossible(epoch));
        check_refused(&std::mem::take(&mut self.refused), epoch, expected)?;
        let mut rows = if prepared.reset { std::mem::take(&mut self.manifest.carried) } else { Vec::new() };
        rows.extend(self.kept.drain(..).chain(prepared.kept));
        if !prepared.tokens.is_empty() {
            self.manifest.staged.push(Staged { tokens: prepared.tokens, rows });
        }
        self.manifest.carried.extend(prepared.carried);
        self.manifest.epoch = epoch;
        Ok(true)
    }

    /// Commits so many tokens of those that the manifest names. What is lost is staged again, which goes through the
    /// manifest, and is committed then.
    async fn commit(&mut self, sink: &Arc<dyn Sink>, mut limit: usize) -> Result<(), ConnectorError> {
        while !self.manifest.staged.is_empty() {
            for number in 0..self.manifest.staged.len() {
                let lost = self.commit_epoch(sink, number, &mut limit).await?;
                if limit == 0 {
                    return Ok(());
                }
                let tokens = if lost.is_empty() { Vec::new() } else { self.restage(sink, number, lost).await? };
                if let Some(staged) = self.manifest.staged.get_mut(number) {
                    staged.tokens = tokens;
                }
            }
            self.manifest.staged.retain(|staged| !staged.tokens.is_empty());
        }
        Ok(())
    }

    /// Commits tokens of one epoch; returns those that are lost.
    async fn commit_epoch(
        &self,
        sink: &Arc<dyn Sink>,
        number: usize,
        limit: &mut usize,
    ) -> Result<Vec<Token>, ConnectorError> {
        let mut lost = Vec::new();
        for token in self.manifest.staged.get(number).map_or(&[][..], |staged| &staged.tokens) {
            if *limit == 0 {
                break;
            }
            *limit -= 1;
            if let Committed::Lost(_) = sink.commit(token).await? {
                lost.push(token.clone());
            }
        }
        Ok(lost)
    }

    async fn restage(
        &mut self,
        sink: &Arc<dyn Sink>,
        number: usize,
        lost: Vec<Token>,
    ) -> Result<Vec<Token>, ConnectorError> {
        self.lives += 1;
        let restage = Restage {
            lost,
            rows: self.manifest.staged.get(number).map_or_else(Vec::new, |staged| staged.rows.clone()),
            shard: 0,
            epoch: CheckpointEpoch(self.manifest.epoch + 1),
            attempt: Attempt(format!("again{}", self.lives)),
        };
        sink.restage(restage).await
    }

    /// Plays one epoch up to its end, or up to a crash: then it returns false.
    async fn play_epoch(&mut self, last: bool, fault: Option<Fault>) -> Result<bool, ConnectorError> {
        self.write().await?;
        if fault == Some(Fault::BeforePrepare) {
            return Ok(false);
        }
        if !self.prepare(last, fault).await? {
            return Ok(false);
        }
        let tokens: Vec<Token> = self.manifest.staged.iter().flat_map(|staged| staged.tokens.clone()).collect();
        for (number, token) in tokens.iter().enumerate() {
            match fault {
                Some(Fault::Expiry | Fault::ExpiryAndCrashes) => self.destination.expire(token).await?,
                Some(Fault::CrashAndExpiry) if number % 2 == 0 => self.destination.expire(token).await?,
                _ => {}
            }
        }
        let sink = self.life()?.sink.clone();
        match fault {
            Some(Fault::BeforeCommit | Fault::CrashAndExpiry) => return Ok(false),
            Some(Fault::WithinCommit) => {
                self.commit(&sink, 1).await?;
                return Ok(false);
            }
            Some(Fault::BeforeConfirm) => {
                for token in &tokens {
                    sink.commit(token).await?;
                }
                return Ok(false);
            }
            Some(Fault::ExpiryAndCrashes) => {
                self.life = None;
                let sink = self.destination.sink(self.name)?;
                for number in 0..self.manifest.staged.len() {
                    let lost = self.commit_epoch(&sink, number, &mut usize::MAX.clone()).await?;
                    if !lost.is_empty() {
                        self.restage(&sink, number, lost).await?;
                    }
                }
                return Ok(false);
            }
            _ => {}
        }
        self.commit(&sink, usize::MAX).await?;
        Ok(true)
    }

    async fn end(self) -> Result<(), ConnectorError> {
        let Some(Life { sink, writer, attempt }) = self.life else { return Ok(()) };
        drop(writer);
        sink.collect(&[], &attempt).await
    }
}

/// The number of an epoch's row that the destination cannot take.
fn impossible(epoch: u64) -> i64 {
    IMPOSSIBLE + i64::try_from(epoch).unwrap_or_default()
}

/// The row that the destination cannot take must be refused once, whole, with its origin and a reason.
fn check_refused(refused: &[RefusedRows], epoch: u64, expected: Option<i64>) -> Result<(), ConnectorError> {
    let ids = refused.iter().flat_map(|refused| {
        refused.rows.rows.columns().first().map(|ids| ids.as_primitive::<Int64Type>().values().to_vec())
    });
    let ids: Vec<i64> = ids.flatten().collect();
    let explained = refused.iter().all(|refused| {
        let offset = refused.rows.origin.as_ref().and_then(|origin| u64::try_from(origin.offset).ok());
        !refused.reason.is_empty()
            && offset == Some(epoch)
            && refused.rows.rows.num_columns() == schema().fields().len()
    });
    if explained && ids == Vec::from_iter(expected) {
        return Ok(());
    }
    Err(broken(format!("refused in epoch {epoch}: {refused:?}, instead of {expected:?}")))
}

/// Runs `epochs` epochs with a fault at each (epoch, fault) of `faults`, in order, and says what is wrong in the end.
/// Another deployment writes to the same destination all the while, and has something staged whenever this one commits,
/// crashes or sweeps.
///
/// # Errors
/// Where the sink fails, loses what it staged, shows a row too early, twice or never, or leaves something staged.
pub async fn run(destination: &dyn Destination, epochs: u64, faults: &[(u64, Fault)]) -> Result<(), ConnectorError> {
    let mut faults = faults.iter().copied().peekable();
    let mut tested = Deployment::new("a", 0, destination).await?;
    let mut neighbour = Deployment::new("b", NEIGHBOUR, destination).await?;
    while tested.manifest.epoch < epochs {
        let epoch = tested.manifest.epoch + 1;
        let neighbour_plays = neighbour.manifest.epoch < epoch;
        if neighbour_plays {
            neighbour.write().await?;
            neighbour.prepare(epoch == epochs, None).await?;
        }
        let fault = faults.next_if(|(at, _)| *at == epoch).map(|(_, fault)| fault);
        if !tested.play_epoch(epoch == epochs, fault).await? {
            tested.start().await?;
        }
        if neighbour_plays {
            let sink = neighbour.life()?.sink.clone();
            neighbour.commit(&sink, usize::MAX).await?;
        }
        let seen = destination.visible().await?;
        let next = i64::try_from(tested.manifest.epoch + 1).unwrap_or(0) * EPOCH_ROWS;
        if let Some(early) = seen.iter().find(|(id, _)| (next..NEIGHBOUR).contains(id)) {
            return Err(broken(format!("row {early:?} is visible before epoch {} is", tested.manifest.epoch + 1)));
        }
    }
    tested.end().await?;
    neighbour.end().await?;
    check_end(destination, epochs).await
}

async fn check_end(destination: &dyn Destination, epochs: u64) -> Result<(), ConnectorError> {
    let of_both = (1..=epochs).flat_map(|epoch| rows_of(0, epoch).into_iter().chain(rows_of(NEIGHBOUR, epoch)));
    let mut expected: Vec<TestRow> = of_both.collect();
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

/// Every fault in the first, the middle and the last of five epochs, several in a row; then `random` runs of faults at
/// random.
///
/// # Errors
/// The first scenario that fails, named.
pub async fn check(
    make: impl Fn() -> Result<Box<dyn Destination>, ConnectorError>,
    random: u64,
) -> Result<(), ConnectorError> {
    let mut scenarios: Vec<Vec<(u64, Fault)>> = vec![Vec::new()];
    for fault in Fault::ALL {
        scenarios.push(vec![(1, fault), (5, fault)]);
        scenarios.push(vec![(3, Fault::BeforeManifest), (3, fault), (4, fault)]);
    }
    for seed in 0..random {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut faults = Vec::new();
        for epoch in 1..=5 {
            while rng.f32() < 0.5 {
                let fault = Fault::ALL.get(rng.usize(..Fault::ALL.len()));
                faults.push((epoch, fault.copied().unwrap_or(Fault::BeforeCommit)));
            }
        }
        scenarios.push(faults);
    }
    for faults in scenarios {
        let destination = make()?;
        if let Err(error) = run(destination.as_ref(), 5, &faults).await {
            return Err(broken(format!("with faults at {faults:?}: {error}")));
        }
    }
    Ok(())
}
