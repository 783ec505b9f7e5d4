//! A worker's share of a guest: the guest itself, or one for each state shard whose rows the worker gets.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use arrow::array::RecordBatch;
use logmill_pipelines::flow::{CheckpointEpoch, Op, Origin, RowBatch, SplitId, Watermark, state_shard};

use super::live::{Made, Moments, Spawn};
use super::narrow::{Narrowed, narrow};
use super::patience::{BATCH_ROWS, Patience};
use super::select::{SelectError, Selector};
use super::shard::Shard;
use super::state;
use super::stateless::Stateless;
use crate::error::OperatorError;
use crate::operator::{
    Clock, OpenContext, Operator, Output, Port, PortSchema, Progress, StateBuffer, exact_origin, system_time_us,
};

/// What an operator is made of.
pub(super) struct Parts<S> {
    pub(super) spawn: S,
    /// The name and columns of the input.
    pub(super) input: PortSchema,
    /// What the guest gets of it.
    pub(super) wanted: Selector,
    /// With the hidden columns.
    pub(super) outputs: Vec<PortSchema>,
    pub(super) stateful: bool,
    /// Whether the guest wants to know of event time; for guests with state.
    pub(super) watermarks: bool,
    /// Differs between workers; `None` gives every call the same randomness.
    pub(super) number: Option<u64>,
}

/// A guest at work on a worker.
pub(super) struct WasmOperator<S: Spawn> {
    spawn: S,
    inputs: [PortSchema; 1],
    wanted: Selector,
    outputs: Vec<PortSchema>,
    watermarks: bool,
    guests: Guests<S::Guest>,
    number: Option<u64>,
    moments: Moments,
    /// How many rows are made ready for a guest at once: fewer after some that could not be.
    select_rows: usize,
    work: Option<Work>,
    pending: VecDeque<Put>,
}

enum Guests<G> {
    One(Box<Stateless<G>>),
    OneAShard {
        shards: BTreeMap<u32, Shard<G>>,
        /// Kept also for shards that are forgotten, as nothing but bad rows came to them.
        patience: BTreeMap<u32, Patience>,
    },
}

/// What is not done with.
enum Work {
    Rows {
        batch: RowBatch,
        next_row: usize,
    },
    /// The shards that it has to be told.
    Watermark {
        time: Watermark,
        shards: VecDeque<u32>,
    },
}

/// Something to say to the output.
enum Put {
    Emit(Port, RowBatch),
    Reject(RowBatch, String),
}

fn moments(clock: Clock, operator: &str, number: Option<u64>) -> Moments {
    match number {
        Some(number) => Moments::new(clock, operator, number),
        None => Moments::repeated(clock),
    }
}

impl<S: Spawn> WasmOperator<S> {
    pub(super) fn new(parts: Parts<S>) -> Self {
        let Parts { spawn, input, wanted, outputs, stateful, watermarks, number } = parts;
        let guests = match stateful {
            true => Guests::OneAShard { shards: BTreeMap::new(), patience: BTreeMap::new() },
            false => Guests::One(Box::new(Stateless::default())),
        };
        let moments = moments(Arc::new(system_time_us), spawn.operator(), number);
        let (work, pending) = (None, VecDeque::new());
        let inputs = [input];
        let select_rows = BATCH_ROWS;
        Self { spawn, inputs, wanted, outputs, watermarks, guests, number, moments, select_rows, work, pending }
    }

    fn failed(&self, message: impl Into<String>) -> OperatorError {
        OperatorError::Failed { operator: self.spawn.operator().to_owned(), message: message.into() }
    }

    fn has_port(&self, port: Port) -> Result<(), OperatorError> {
        if port == 0 { Ok(()) } else { Err(self.failed(format!("it has no input port {port}"))) }
    }

    fn is_idle(&self, call: &str) -> Result<(), OperatorError> {
        let idle = self.work.is_none() && self.pending.is_empty();
        if idle { Ok(()) } else { Err(self.failed(format!("{call} came before the last call was done"))) }
    }

    /// Puts out what is pending and goes on with the work at hand, until the output is full or nothing is left.
    fn drive(&mut self, out: &mut dyn Output) -> Result<Progress, OperatorError> {
        loop {
            while let Some(put) = self.pending.pop_front() {
                if out.is_full() {
                    self.pending.push_front(put);
                    return Ok(Progress::More);
                }
                match put {
                    Put::Emit(port, batch) => out.emit(port, batch),
                    Put::Reject(batch, reason) => out.reject(batch, &reason),
                }
            }
            match self.work.take() {
                None => return Ok(Progress::Done),
                Some(Work::Rows { batch, next_row }) => self.rows(batch, next_row)?,
                Some(Work::Watermark { time, shards }) => self.watermark(time, shards)?,
            }
        }
    }

    /// Runs the next rows of a batch.
    fn rows(&mut self, batch: RowBatch, next_row: usize) -> Result<(), OperatorError> {
        let rows = self.select_rows.min(batch.num_rows() - next_row);
        if rows == 0 {
            return Ok(());
        }
        let piece = batch.slice(next_row, rows);
        let selected = match self.wanted.select(&piece.rows) {
            Ok(selected) => selected,
            // A row that no guest can be given is found as the guests' own are: by fewer at once.
            Err(SelectError::Value(_)) if rows > 1 => {
                self.select_rows = rows.div_ceil(2);
                self.work = Some(Work::Rows { batch, next_row });
                return Ok(());
            }
            Err(SelectError::Value(reason)) => {
                let mut made = Made::default();
                made.reject(0, reason);
                self.put(made, &piece)?;
                self.work = Some(Work::Rows { batch, next_row: next_row + 1 });
                return Ok(());
            }
            Err(SelectError::Columns(source)) => {
                let operator = self.spawn.operator().to_owned();
                return Err(OperatorError::Execution { operator, source: Box::new(source) });
            }
        };
        self.select_rows = BATCH_ROWS.min(self.select_rows.saturating_mul(2));
        let shard = batch.origin.as_ref().map_or(0, |origin| state_shard(&origin.split));
        let Narrowed { made, done } = match &mut self.guests {
            Guests::One(guest) => narrow(&mut guest.runner(&self.spawn, &mut self.moments), &selected)?,
            Guests::OneAShard { shards, patience } => {
                let guest = shards.entry(shard).or_insert_with(|| Shard::new(self.moments.next()));
                let patience = patience.entry(shard).or_default();
                let narrowed = narrow(&mut guest.runner(&self.spawn, &mut self.moments, patience), &selected)?;
                if guest.is_blank() {
                    shards.remove(&shard);
                }
                narrowed
            }
        };
        self.put(made, &piece)?;
        self.work = Some(Work::Rows { batch, next_row: next_row + done });
        Ok(())
    }

    /// Tells the guest of the next shard what event time it is.
    fn watermark(&mut self, time: Watermark, mut shards: VecDeque<u32>) -> Result<(), OperatorError> {
        let Some(shard) = shards.pop_front() else { return Ok(()) };
        let Guests::OneAShard { shards: guests, patience } = &mut self.guests else { return Ok(()) };
        let Some(guest) = guests.get_mut(&shard) else { return Ok(()) };
        let patience = patience.entry(shard).or_default();
        let made = guest.runner(&self.spawn, &mut self.moments, patience).watermark(time)?;
        // The rows of a shard belong to it in every operator they flow through: its number is the name of a split of it.
        let split = SplitId::new(shard.to_string());
        let origin = Origin { source: Arc::clone(&self.inputs[0].name), split, offset: -1 };
        let no_rows = RowBatch::inserts(RecordBatch::new_empty(Arc::clone(&self.inputs[0].schema)));
        self.put(made, &RowBatch { origin: Some(origin), ..no_rows })?;
        self.work = Some(Work::Watermark { time, shards });
        Ok(())
    }

    /// Queues what a guest made of rows of the input.
    fn put(&mut self, made: Made, input: &RowBatch) -> Result<(), OperatorError> {
        for (port, rows) in made.rows {
            if port >= self.outputs.len() {
                return Err(self.failed(format!("its guest made rows for the output {port}, which it does not have")));
            }
            for start in (0..rows.num_rows()).step_by(BATCH_ROWS) {
                let rows = rows.slice(start, BATCH_ROWS.min(rows.num_rows() - start));
                self.pending.push_back(Put::Emit(
                    port,
                    RowBatch { rows, ops: None, origin: input.origin.clone(), lineage: None },
                ));
            }
        }
        for rejected in made.rejected {
            let batch = input.slice(rejected.first, rejected.rows);
            let origin = batch.origin.as_ref().map(|origin| exact_origin(origin, &batch.rows));
            self.pending.push_back(Put::Reject(RowBatch { ops: None, origin, ..batch }, rejected.reason));
        }
        Ok(())
    }

    /// Tells the shards what event time it is, but for those that know that their input has ended: whether a shard is told
    /// so depends on its rows alone, and not on how often a run was begun again, or on how many cores.
    fn tell_time(&mut self, time: Watermark, out: &mut dyn Output) -> Result<Progress, OperatorError> {
        let Guests::OneAShard { shards, .. } = &self.guests else { return Ok(Progress::Done) };
        if !self.watermarks {
            return Ok(Progress::Done);
        }
        let told = shards.iter().filter(|(_, shard)| !shard.has_ended()).map(|(number, _)| *number);
        self.work = Some(Work::Watermark { time, shards: told.collect() });
        self.drive(out)
    }
}

impl<S: Spawn> Operator for WasmOperator<S> {
    fn inputs(&self) -> &[PortSchema] {
        &self.inputs
    }

    fn outputs(&self) -> &[PortSchema] {
        &self.outputs
    }

    fn open(&mut self, context: OpenContext) -> Result<(), OperatorError> {
        self.moments = moments(context.clock, self.spawn.operator(), self.number);
        Ok(())
    }

    fn on_batch(&mut self, port: Port, batch: RowBatch, out: &mut dyn Output) -> Result<Progress, OperatorError> {
        self.has_port(port)?;
        self.is_idle("a batch")?;
        if batch.ops.as_ref().is_some_and(|ops| ops.values().iter().any(|op| *op != Op::Insert as i8)) {
            return Err(self.failed("it takes rows that are appended, but is given changes of rows"));
        }
        self.work = Some(Work::Rows { batch, next_row: 0 });
        self.drive(out)
    }

    fn resume(&mut self, out: &mut dyn Output) -> Result<Progress, OperatorError> {
        self.drive(out)
    }

    fn on_watermark(&mut self, port: Port, time: Watermark, out: &mut dyn Output) -> Result<Progress, OperatorError> {
        self.has_port(port)?;
        self.is_idle("a watermark")?;
        self.tell_time(time, out)
    }

    fn on_timer(&mut self, _: i64, _: &mut dyn Output) -> Result<Progress, OperatorError> {
        Ok(Progress::Done)
    }

    fn next_timer(&self) -> Option<i64> {
        None
    }

    fn on_end(&mut self, port: Port, out: &mut dyn Output) -> Result<Progress, OperatorError> {
        self.has_port(port)?;
        self.is_idle("the end of the input")?;
        self.tell_time(Watermark::END, out)
    }

    fn snapshot(&mut self, _: CheckpointEpoch) -> Result<Vec<StateBuffer>, OperatorError> {
        self.is_idle("a snapshot")?;
        let Guests::OneAShard { shards, patience } = &mut self.guests else { return Ok(Vec::new()) };
        let mut buffers = Vec::new();
        for (number, shard) in shards {
            let patience = patience.entry(*number).or_default();
            if let Some(kept) = shard.runner(&self.spawn, &mut self.moments, patience).changed_state()? {
                buffers.push(StateBuffer { table: state::TABLE.into(), shard: *number, data: state::encode(&kept) });
            }
        }
        Ok(buffers)
    }

    fn restore(&mut self, buffers: Vec<StateBuffer>) -> Result<(), OperatorError> {
        for buffer in buffers {
            let StateBuffer { table, shard, data } = buffer;
            let unknown = |why: &str| {
                let hint = "undo the edit of the pipeline, or give the edited one another name";
                self.failed(format!("it is given the state of table `{table}`, but {why}: {hint}"))
            };
            match &self.guests {
                Guests::One(_) => return Err(unknown("its module keeps no state")),
                Guests::OneAShard { .. } if *table != *state::TABLE => return Err(unknown("has no such table")),
                Guests::OneAShard { shards, .. } if shards.contains_key(&shard) => {
                    return Err(self.failed(format!("it is given the state of shard {shard} twice")));
                }
                Guests::OneAShard { .. } => {}
            }
            let kept = state::decode(&data);
            let kept = kept.map_err(|why| self.failed(format!("the state of shard {shard} cannot be read: {why}")))?;
            let restored = Shard::restored(&self.spawn, self.moments.next(), kept)?;
            if let Guests::OneAShard { shards, .. } = &mut self.guests {
                shards.insert(shard, restored);
            }
        }
        Ok(())
    }
}
