//! A guest in plain Rust that fails on certain rows in every way that guests fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use logmill_pipelines::flow::{Origin, RowBatch, SplitId};
use logmill_wasm::Moment;

use crate::error::OperatorError;
use crate::operator::{Operator, PortSchema};
use crate::wasm::live::{Allowed, Failure, FailureKind, GuestState, Live, Made, Spawn};
use crate::wasm::operator::{Parts, WasmOperator};
use crate::wasm::select::Selector;

/// What the guests of a test are like.
#[derive(Clone, Debug, Default)]
pub(super) struct Nature {
    /// Puts out its running total instead of the rows themselves.
    pub(super) stateful: bool,
    /// Its replays differ.
    pub(super) fickle: bool,
    /// It runs into its deadline on more rows than this at once.
    pub(super) most_rows: Option<usize>,
    /// A row takes as long as its number says, and a call no longer than this.
    pub(super) deadline: Option<i64>,
    /// Its state, a unit for each row that it has seen, and a number must fit in here.
    pub(super) memory: Option<i64>,
    /// Snapshots, restores and calls made again take longer than the deadline of a call.
    pub(super) slow_state: bool,
    /// They take longer than that, or more memory.
    pub(super) stuck_state: Option<FailureKind>,
    /// It refuses states of other versions than this.
    pub(super) state_version: u32,
    /// How many guests were made.
    pub(super) made: Arc<AtomicUsize>,
    /// How many calls were late.
    pub(super) late: Arc<AtomicUsize>,
}

/// Adds numbers up. Negative ones are poison, in different ways.
pub(super) struct Fake {
    nature: Nature,
    total: i64,
    rows: i64,
    allowed: Allowed,
    /// Whether it must not be called any more.
    is_broken: bool,
}

impl Spawn for Nature {
    type Guest = Fake;

    fn operator(&self) -> &str {
        "sums"
    }

    fn spawn(&self, _: Moment) -> Result<Fake, OperatorError> {
        self.made.fetch_add(1, Ordering::Relaxed);
        Ok(Fake { nature: self.clone(), total: 0, rows: 0, allowed: Allowed::Deadline, is_broken: false })
    }

    fn state_version(&self) -> Option<u32> {
        self.stateful.then_some(self.state_version)
    }
}

pub(super) fn is_poison(number: i64) -> bool {
    number < 0
}

/// Why a poisonous number fails, and whether the guest says where.
pub(super) fn poison(number: i64, row: usize) -> Failure {
    let message = format!("{number} is poison");
    match (number % 40, number % 4) {
        (-6, _) => Failure { kind: FailureKind::Memory, message, row: None },
        // Rare: a guest may run into its deadline only so often.
        (-10, _) => Failure { kind: FailureKind::Deadline, message, row: Some(row) },
        (-2, _) => Failure { kind: FailureKind::Deadline, message, row: None },
        (_, 0) => Failure { kind: FailureKind::Refused, message, row: None },
        (_, -1) => Failure { kind: FailureKind::Refused, message, row: Some(row) },
        _ => Failure { kind: FailureKind::Broken, message, row: None },
    }
}

impl Fake {
    fn called(&self) {
        assert!(!self.is_broken, "a guest that broke is called again");
    }

    fn fails<T>(&mut self, kind: FailureKind, message: &str) -> Result<T, Failure> {
        self.is_broken = true;
        self.nature.late.fetch_add(usize::from(kind == FailureKind::Deadline), Ordering::Relaxed);
        Err(Failure { kind, message: message.to_owned(), row: None })
    }

    /// What is called on the operator's own account.
    fn on_own_account(&mut self) -> Result<(), Failure> {
        self.called();
        match self.nature.stuck_state {
            Some(kind) => self.fails(kind, "it is stuck"),
            None if self.nature.slow_state && self.allowed == Allowed::Deadline => {
                self.fails(FailureKind::Deadline, "it is slow")
            }
            None => Ok(()),
        }
    }
}

impl Live for Fake {
    fn on_batch(&mut self, _: Moment, rows: &RecordBatch, made: &mut Made) -> Result<(), Failure> {
        self.called();
        let took: i64 = rows.column(0).as_primitive::<Int64Type>().values().iter().sum();
        if self.nature.most_rows.is_some_and(|most| rows.num_rows() > most)
            || self.nature.deadline.is_some_and(|deadline| took > deadline)
        {
            return self.fails(FailureKind::Deadline, "it is slow");
        }
        let (mut sums, mut odd) = (Vec::new(), Vec::new());
        for (row, number) in rows.column(0).as_primitive::<Int64Type>().values().iter().enumerate() {
            if is_poison(*number) {
                let failure = poison(*number, row);
                self.nature.late.fetch_add(usize::from(failure.kind == FailureKind::Deadline), Ordering::Relaxed);
                self.is_broken = self.nature.stateful || failure.kind != FailureKind::Refused;
                return Err(failure);
            }
            if self.nature.memory.is_some_and(|memory| self.total + self.rows + number > memory) {
                return self.fails(FailureKind::Memory, "it is full");
            }
            self.total += number;
            self.rows += 1;
            if number % 2 == 1 {
                odd.push(*number);
            }
            let once = if self.nature.fickle { self.nature.made.load(Ordering::Relaxed) as i64 } else { 0 };
            sums.push(if self.nature.stateful { self.total + once } else { *number });
        }
        made.rows.push((0, numbers(&sums)));
        made.rows.push((1, numbers(&odd)));
        Ok(())
    }

    fn on_watermark(&mut self, _: Moment, time_us: i64, made: &mut Made) -> Result<(), Failure> {
        self.called();
        if time_us == POISONOUS_TIME {
            self.is_broken = true;
            return Err(Failure { kind: FailureKind::Broken, message: "time is poison".to_owned(), row: None });
        }
        made.rows.push((0, numbers(&[self.total])));
        Ok(())
    }

    fn allow(&mut self, time: Allowed) {
        self.allowed = time;
    }

    fn snapshot(&mut self, _: Moment) -> Result<GuestState, Failure> {
        self.on_own_account()?;
        let bytes = self.total.to_le_bytes().to_vec().into();
        Ok(GuestState { version: self.nature.state_version, bytes })
    }

    fn restore(&mut self, _: Moment, state: &GuestState) -> Result<(), Failure> {
        self.on_own_account()?;
        if state.version > self.nature.state_version {
            let message = format!("version {} is too new", state.version);
            return Err(Failure { kind: FailureKind::Refused, message, row: None });
        }
        self.total = i64::from_le_bytes(state.bytes.as_ref().try_into().unwrap());
        Ok(())
    }
}

/// The watermark that the guest breaks at.
pub(super) const POISONOUS_TIME: i64 = 666;

pub(super) fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]))
}

pub(super) fn numbers(numbers: &[i64]) -> RecordBatch {
    let column: ArrayRef = Arc::new(Int64Array::from(numbers.to_vec()));
    RecordBatch::try_new(schema(), vec![column]).unwrap()
}

/// The numbers of a batch.
pub(super) fn values(rows: &RecordBatch) -> Vec<i64> {
    rows.column(0).as_primitive::<Int64Type>().values().to_vec()
}

/// Numbers of a partition.
pub(super) fn batch(partition: u32, of: &[i64]) -> RowBatch {
    let origin = Origin { source: "numbers".into(), split: SplitId::new(partition.to_string()), offset: 0 };
    RowBatch { rows: numbers(of), ops: None, origin: Some(origin), lineage: None }
}

pub(super) fn operator(nature: Nature) -> Box<dyn Operator> {
    let port = |name: &str| PortSchema { name: name.into(), schema: schema() };
    let stateful = nature.stateful;
    Box::new(WasmOperator::new(Parts {
        spawn: nature,
        input: port("numbers"),
        wanted: Selector::new(schema()),
        outputs: vec![port("sums"), port("sums.odd")],
        stateful,
        watermarks: stateful,
        number: Some(0),
    }))
}
