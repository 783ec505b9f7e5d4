//! The checks themselves: a good operator passes, and each broken promise is found.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};

use super::*;
use crate::operator::PortSchema;

/// What is wrong with the operator.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bug {
    None,
    IgnoresFullOutput,
    ForgetsItsState,
    SnapshotsOnce,
    SnapshotsTwice,
    CountsBatches,
    EmitsNothingAsABatch,
    RejectsWithoutReason,
    HasEveryPort,
    DeclaresOtherColumns,
    NeverDone,
}

/// Puts out the running total of its numbers, and rejects negative ones. Its state is the total.
struct Totals {
    bug: Bug,
    ports: Vec<PortSchema>,
    declared: Vec<PortSchema>,
    total: i64,
    /// Whether its state was not what it began with.
    had_state: bool,
    pending: Vec<RowBatch>,
}

fn numbers(values: &[i64]) -> RowBatch {
    let schema = Schema::new(vec![Field::new("n", DataType::Int64, false)]);
    let column: ArrayRef = Arc::new(Int64Array::from(values.to_vec()));
    RowBatch::inserts(RecordBatch::try_new(Arc::new(schema), vec![column]).unwrap())
}

fn totals(bug: Bug) -> Box<dyn Operator> {
    let port = PortSchema { name: "numbers".into(), schema: numbers(&[]).rows.schema() };
    let other = PortSchema { name: "numbers".into(), schema: Arc::new(Schema::empty()) };
    let declared = vec![if bug == Bug::DeclaresOtherColumns { other } else { port.clone() }];
    Box::new(Totals { bug, ports: vec![port], declared, total: 0, had_state: false, pending: Vec::new() })
}

impl Operator for Totals {
    fn inputs(&self) -> &[PortSchema] {
        &self.ports
    }

    fn outputs(&self) -> &[PortSchema] {
        &self.declared
    }

    fn open(&mut self, _: OpenContext) -> Result<(), OperatorError> {
        Ok(())
    }

    fn on_batch(&mut self, port: Port, batch: RowBatch, out: &mut dyn Output) -> Result<Progress, OperatorError> {
        if port > 0 && self.bug != Bug::HasEveryPort {
            return Err(OperatorError::Failed { operator: "totals".to_owned(), message: "no such port".to_owned() });
        }
        let column = Arc::clone(batch.rows.column(0));
        for value in column.as_primitive::<Int64Type>().values() {
            if *value < 0 {
                let reason = if self.bug == Bug::RejectsWithoutReason { "" } else { "it is negative" };
                out.reject(numbers(&[*value]), reason);
                continue;
            }
            self.total += value;
            self.pending.push(numbers(&[self.total]));
        }
        if self.bug == Bug::CountsBatches {
            self.total += 1;
        }
        if self.bug == Bug::EmitsNothingAsABatch {
            self.pending.push(numbers(&[]));
        }
        self.resume(out)
    }

    fn resume(&mut self, out: &mut dyn Output) -> Result<Progress, OperatorError> {
        while !self.pending.is_empty() {
            if out.is_full() && self.bug != Bug::IgnoresFullOutput {
                return Ok(Progress::More);
            }
            out.emit(0, self.pending.remove(0));
        }
        Ok(if self.bug == Bug::NeverDone { Progress::More } else { Progress::Done })
    }

    fn on_watermark(&mut self, _: Port, _: Watermark, _: &mut dyn Output) -> Result<Progress, OperatorError> {
        Ok(Progress::Done)
    }

    fn on_timer(&mut self, _: i64, _: &mut dyn Output) -> Result<Progress, OperatorError> {
        Ok(Progress::Done)
    }

    fn next_timer(&self) -> Option<i64> {
        None
    }

    fn on_end(&mut self, _: Port, _: &mut dyn Output) -> Result<Progress, OperatorError> {
        Ok(Progress::Done)
    }

    fn snapshot(&mut self, _: CheckpointEpoch) -> Result<Vec<StateBuffer>, OperatorError> {
        let data = bytes::Bytes::copy_from_slice(&self.total.to_le_bytes());
        let buffer = StateBuffer { table: "total".into(), shard: 0, data };
        Ok(match self.bug {
            Bug::SnapshotsOnce if self.had_state => Vec::new(),
            Bug::SnapshotsTwice => vec![buffer.clone(), buffer],
            _ => vec![buffer],
        })
    }

    fn restore(&mut self, state: Vec<StateBuffer>) -> Result<(), OperatorError> {
        if self.bug != Bug::ForgetsItsState {
            self.had_state = true;
            self.total = i64::from_le_bytes(state[0].data.as_ref().try_into().unwrap());
        }
        Ok(())
    }
}

fn check_bug(bug: Bug) -> Result<(), String> {
    let make = || totals(bug);
    let events = vec![
        Event::Batch(0, numbers(&[1, 2, -7, 3])),
        Event::Watermark(0, Watermark(5)),
        Event::Timer(6),
        Event::Batch(0, numbers(&[4])),
        Event::Batch(0, numbers(&[5])),
    ];
    check(&Case { make: &make, open: OpenContext::default(), events, ordered: true })
}

#[test]
fn an_operator_that_keeps_its_promises_passes() {
    check_bug(Bug::None).unwrap();
    let make = || totals(Bug::None);
    let events = vec![Event::Batch(0, numbers(&[1, -7, 3]))];
    let said = play(&Case { make: &make, open: OpenContext::default(), events, ordered: true }).unwrap();
    assert_eq!(
        said,
        Said { rows: vec![vec!["1".to_owned(), "4".to_owned()]], rejected: vec!["-7: it is negative".to_owned()] }
    );
}

#[test]
fn each_broken_promise_is_found() {
    let cases = [
        (Bug::IgnoresFullOutput, "it emitted although the output was full"),
        (Bug::ForgetsItsState, "killed and restored after 1 events"),
        (Bug::SnapshotsOnce, "killed and restored after every event"),
        (Bug::SnapshotsTwice, "a snapshot has shard 0 of the table `total` twice"),
        (Bug::CountsBatches, "with batches of 1 rows"),
        (Bug::EmitsNothingAsABatch, "it emitted a batch without rows"),
        (Bug::RejectsWithoutReason, "it rejected rows without a reason"),
        (Bug::HasEveryPort, "it took a batch for input port 1"),
        (Bug::DeclaresOtherColumns, "it emitted other columns on port 0 than it declared"),
        (Bug::NeverDone, "it has more to say without an end"),
    ];
    for (bug, expected) in cases {
        let broken = check_bug(bug).unwrap_err();
        assert!(broken.contains(expected), "{broken}");
    }
}
