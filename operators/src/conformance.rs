//! What every operator must hold to, as checks that its tests run.
//!
//! A [`Case`] says how to make the operator and what flows in. [`check`] plays it undisturbed, and then again with an
//! output that is full after every batch, with batches cut into pieces, with snapshots between calls, and with the
//! operator killed and restored from its last snapshots, at every point and over and over. What comes out must not differ.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use arrow::array::{Int8Array, RecordBatch};
use arrow::datatypes::SchemaRef;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use logmill_pipelines::flow::{CheckpointEpoch, RowBatch, Watermark};

use crate::error::OperatorError;
use crate::operator::{OpenContext, Operator, Output, Port, Progress, StateBuffer};

/// More `resume` calls than this without an end are taken for an endless loop.
const MAX_RESUMES: usize = 1_000_000;

/// Something that happens to an operator.
#[derive(Clone, Debug)]
pub enum Event {
    /// Rows arrive on a port.
    Batch(Port, RowBatch),
    /// Event time advances on a port.
    Watermark(Port, Watermark),
    /// Processing time advances, in µs since the Unix epoch.
    Timer(i64),
}

/// An operator, and what happens to it between `open` and the end of its inputs.
pub struct Case<'a> {
    /// Makes a fresh instance.
    pub make: &'a dyn Fn() -> Box<dyn Operator>,
    /// What each instance opens with.
    pub open: OpenContext,
    /// What happens, in order.
    pub events: Vec<Event>,
    /// Whether the rows of a port come out in the same order however the input is cut. Otherwise only which rows
    /// come out is compared.
    pub ordered: bool,
}

/// What an operator said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// The rows that each port put out, as text, each with its changelog op.
    pub rows: Vec<Vec<String>>,
    /// The rows that it rejected, as text, each with the reason.
    pub rejected: Vec<String>,
}

/// Plays a case undisturbed.
///
/// # Errors
/// The operator failed, or broke its contract.
pub fn play(case: &Case<'_>) -> Result<Said, String> {
    Player::open(case, Pace::Unhindered)?.finish(&case.events)
}

/// Plays each event on an instance that is restored from the snapshots taken before it.
///
/// # Errors
/// The operator failed, or broke its contract.
pub fn play_restored(case: &Case<'_>) -> Result<Said, String> {
    killed_often(case)
}

/// Plays a case with batches of fewer rows.
///
/// # Errors
/// The operator failed, or broke its contract.
pub fn play_in_pieces(case: &Case<'_>, rows: usize) -> Result<Said, String> {
    let pieces: Vec<Event> = case.events.iter().flat_map(|event| cut(event, rows)).collect();
    Player::open(case, Pace::Unhindered)?.finish(&pieces)
}

/// Holds an operator to its contract.
///
/// # Errors
/// Which promise it broke, and how.
pub fn check(case: &Case<'_>) -> Result<(), String> {
    let wanted = play(case)?.comparable(case.ordered);
    let compare = |said: Said, how: &str| {
        let said = said.comparable(case.ordered);
        if said == wanted { Ok(()) } else { Err(format!("{how}, it said {said:#?}\ninstead of {wanted:#?}")) }
    };
    compare(play(case)?, "played again")?;
    compare(Player::open(case, Pace::OneAtATime)?.finish(&case.events)?, "with an output that is soon full")?;
    for rows in [1, 3] {
        compare(play_in_pieces(case, rows)?, &format!("with batches of {rows} rows"))?;
    }
    let mut snapshots = Player::open(case, Pace::OneAtATime)?;
    snapshots.snapshot_always = true;
    compare(snapshots.finish(&case.events)?, "with a snapshot after every call")?;
    for at in 0..=case.events.len() {
        compare(killed(case, at)?, &format!("killed and restored after {at} events"))?;
    }
    compare(play_restored(case)?, "killed and restored after every event")?;
    refuses_unknown_port(case)
}

/// Plays a case up to an event, and the rest on an instance that is restored from a snapshot taken there.
fn killed(case: &Case<'_>, at: usize) -> Result<Said, String> {
    let (before, after) = case.events.split_at(at);
    let mut first = Player::open(case, Pace::Unhindered)?;
    first.play(before)?;
    let state = first.operator.snapshot(CheckpointEpoch(1)).map_err(|e| told("snapshot", &e))?;
    let mut second = Player::open(case, Pace::Unhindered)?;
    second.operator.restore(state).map_err(|e| told("restore", &e))?;
    second.sink.said = first.sink.said;
    second.finish(after)
}

/// Plays each event on an instance of its own. What is restored is what the engine keeps: of each shard of a table the
/// last snapshot, as an operator gives those only that have changed.
fn killed_often(case: &Case<'_>) -> Result<Said, String> {
    let mut kept: BTreeMap<(Arc<str>, u32), StateBuffer> = BTreeMap::new();
    let mut player = Player::open(case, Pace::Unhindered)?;
    for event in &case.events {
        player.play(std::slice::from_ref(event))?;
        let state = player.operator.snapshot(CheckpointEpoch(1)).map_err(|e| told("snapshot", &e))?;
        let mut shards = HashSet::new();
        for buffer in state {
            let shard = (Arc::clone(&buffer.table), buffer.shard);
            if !shards.insert(shard.clone()) {
                return Err(format!("a snapshot has shard {} of the table `{}` twice", shard.1, shard.0));
            }
            kept.insert(shard, buffer);
        }
        let mut next = Player::open(case, Pace::Unhindered)?;
        next.operator.restore(kept.values().cloned().collect()).map_err(|e| told("restore", &e))?;
        next.sink.said = player.sink.said;
        player = next;
    }
    player.finish(&[])
}

/// A port that does not exist is an error, not a panic.
fn refuses_unknown_port(case: &Case<'_>) -> Result<(), String> {
    let Some(batch) = case.events.iter().find_map(|event| match event {
        Event::Batch(_, batch) => Some(batch.clone()),
        _ => None,
    }) else {
        return Ok(());
    };
    let mut player = Player::open(case, Pace::Unhindered)?;
    let port = player.operator.inputs().len();
    match player.operator.on_batch(port, batch, &mut player.sink) {
        Err(_) => Ok(()),
        Ok(_) => Err(format!("it took a batch for input port {port}, which it does not have")),
    }
}

/// Cuts a batch into pieces.
fn cut(event: &Event, rows: usize) -> Vec<Event> {
    let Event::Batch(port, batch) = event else { return vec![event.clone()] };
    let starts = (0..batch.num_rows()).step_by(rows);
    let piece = |start: usize| Event::Batch(*port, batch.slice(start, rows.min(batch.num_rows() - start)));
    starts.map(piece).collect()
}

/// How fast the output takes what the operator says.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// It is never full.
    Unhindered,
    /// It is full after each batch.
    OneAtATime,
}

struct Player {
    operator: Box<dyn Operator>,
    sink: Recorder,
    snapshot_always: bool,
}

impl Player {
    fn open(case: &Case<'_>, pace: Pace) -> Result<Self, String> {
        let mut operator = (case.make)();
        if operator.outputs().is_empty() {
            return Err("it has no output port".to_owned());
        }
        operator.open(case.open.clone()).map_err(|e| told("open", &e))?;
        let said = Said { rows: vec![Vec::new(); operator.outputs().len()], rejected: Vec::new() };
        let schemas = operator.outputs().iter().map(|port| Arc::clone(&port.schema)).collect();
        let sink = Recorder { pace, schemas, taken: 0, said, broken: None };
        Ok(Self { operator, sink, snapshot_always: false })
    }

    fn play(&mut self, events: &[Event]) -> Result<(), String> {
        for event in events {
            let progress = match event.clone() {
                Event::Batch(port, batch) => self.operator.on_batch(port, batch, &mut self.sink),
                Event::Watermark(port, time) => self.operator.on_watermark(port, time, &mut self.sink),
                Event::Timer(now) => self.operator.on_timer(now, &mut self.sink),
            };
            self.settle(progress, "a call")?;
        }
        Ok(())
    }

    fn finish(mut self, events: &[Event]) -> Result<Said, String> {
        self.play(events)?;
        for port in 0..self.operator.inputs().len() {
            let progress = self.operator.on_watermark(port, Watermark::END, &mut self.sink);
            self.settle(progress, "on_watermark at the end")?;
            let progress = self.operator.on_end(port, &mut self.sink);
            self.settle(progress, "on_end")?;
        }
        Ok(self.sink.said)
    }

    /// Resumes until the operator is done, and checks what it said.
    fn settle(&mut self, progress: Result<Progress, OperatorError>, call: &str) -> Result<(), String> {
        let mut progress = progress.map_err(|e| told(call, &e))?;
        let mut resumes = 0;
        while progress == Progress::More {
            resumes += 1;
            if resumes > MAX_RESUMES {
                return Err(format!("after {call}, it has more to say without an end"));
            }
            self.sink.taken = 0;
            progress = self.operator.resume(&mut self.sink).map_err(|e| told("resume", &e))?;
        }
        self.sink.taken = 0;
        if self.snapshot_always {
            self.operator.snapshot(CheckpointEpoch(1)).map_err(|e| told("snapshot", &e))?;
        }
        if let Some(broken) = self.sink.broken.take() {
            return Err(broken);
        }
        Ok(())
    }
}

fn told(call: &str, error: &OperatorError) -> String {
    let source = std::error::Error::source(error).map(|source| format!(": {source}"));
    format!("{call} failed: {error}{}", source.unwrap_or_default())
}

/// Takes down what an operator says.
struct Recorder {
    pace: Pace,
    /// The columns of each output port.
    schemas: Vec<SchemaRef>,
    /// Batches since it last had room.
    taken: usize,
    said: Said,
    /// The first promise that was broken.
    broken: Option<String>,
}

impl Recorder {
    fn check(&mut self, batch: &RowBatch, what: &str) {
        let broken = if batch.num_rows() == 0 {
            format!("it {what} a batch without rows")
        } else if batch.ops.as_ref().is_some_and(|ops| ops.len() != batch.num_rows()) {
            format!("it {what} a batch with other ops than rows")
        } else {
            return;
        };
        self.broken.get_or_insert(broken);
    }
}

impl Output for Recorder {
    fn emit(&mut self, port: Port, batch: RowBatch) {
        if self.is_full() {
            self.broken.get_or_insert("it emitted although the output was full".to_owned());
        }
        self.taken += 1;
        self.check(&batch, "emitted");
        if self.schemas.get(port).is_some_and(|schema| *schema != batch.rows.schema()) {
            self.broken.get_or_insert(format!("it emitted other columns on port {port} than it declared"));
        }
        match self.said.rows.get_mut(port) {
            Some(rows) => rows.extend(as_text(&batch.rows, batch.ops.as_ref())),
            None => {
                self.broken.get_or_insert(format!("it emitted on port {port}, which it does not have"));
            }
        }
    }

    fn reject(&mut self, batch: RowBatch, reason: &str) {
        self.check(&batch, "rejected");
        if reason.is_empty() {
            self.broken.get_or_insert("it rejected rows without a reason".to_owned());
        }
        let rows = as_text(&batch.rows, batch.ops.as_ref()).into_iter();
        self.said.rejected.extend(rows.map(|row| format!("{row}: {reason}")));
    }

    fn is_full(&self) -> bool {
        self.pace == Pace::OneAtATime && self.taken > 0
    }
}

impl Said {
    fn comparable(mut self, ordered: bool) -> Self {
        self.rejected.sort_unstable();
        if !ordered {
            self.rows.iter_mut().for_each(|rows| rows.sort_unstable());
        }
        self
    }
}

/// Each row as text: `1|a|null`, after its op if there are any.
pub fn as_text(rows: &RecordBatch, ops: Option<&Int8Array>) -> Vec<String> {
    let options = FormatOptions::new().with_null("null").with_display_error(true);
    let columns = rows.columns().iter().map(|column| ArrayFormatter::try_new(column.as_ref(), &options));
    let columns: Vec<_> = columns.collect();
    let cell = |column: &Result<ArrayFormatter<'_>, _>, row: usize| match column {
        Ok(column) => column.value(row).to_string(),
        Err(_) => "?".to_owned(),
    };
    let text = |row: usize| {
        let cells: Vec<String> = columns.iter().map(|column| cell(column, row)).collect();
        match ops {
            Some(ops) => format!("{}:{}", ops.values().get(row).copied().unwrap_or(-1), cells.join("|")),
            None => cells.join("|"),
        }
    };
    (0..rows.num_rows()).map(text).collect()
}

#[cfg(test)]
mod tests;
