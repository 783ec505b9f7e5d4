//! Exactly the poisonous rows are rejected, and the others are processed as if those had not been there.

use std::sync::atomic::Ordering;

use arrow::array::RecordBatch;
use logmill_pipelines::flow::{CheckpointEpoch, Op, RowBatch, Watermark};
use proptest::prelude::*;

use super::fake::{Nature, POISONOUS_TIME, batch, is_poison, numbers, operator, poison, values};
use crate::conformance::{Case, Event, check, play};
use crate::error::OperatorError;
use crate::operator::{OpenContext, Operator, Output, Port, Progress, StateBuffer};
use crate::wasm::live::{Failure, FailureKind, Made};
use crate::wasm::narrow::{Narrowed, Ran, Runner, narrow};
use crate::wasm::patience::Patience;

/// What an operator said, in order.
#[derive(Default)]
pub(super) struct Heard {
    pub(super) ports: [Vec<i64>; 2],
    pub(super) batches: usize,
    pub(super) rejected: Vec<(i64, String)>,
}

impl Output for Heard {
    fn emit(&mut self, port: Port, batch: RowBatch) {
        self.batches += 1;
        self.ports[port].extend(values(&batch.rows));
    }

    fn reject(&mut self, batch: RowBatch, reason: &str) {
        self.rejected.extend(values(&batch.rows).into_iter().map(|number| (number, reason.to_owned())));
    }

    fn is_full(&self) -> bool {
        false
    }
}

pub(super) fn opened(nature: Nature) -> Box<dyn Operator> {
    let mut operator = operator(nature);
    operator.open(OpenContext::default()).unwrap();
    operator
}

pub(super) fn message(error: OperatorError) -> String {
    let source = std::error::Error::source(&error).map(|source| format!(": {source}"));
    format!("{error}{}", source.unwrap_or_default())
}

/// Mostly good numbers, and few of those that are late, as a guest may be so only so often.
pub(super) fn some_numbers(most: usize) -> impl Strategy<Value = Vec<i64>> {
    let is_late = |number: &i64| poison(*number, 0).kind == FailureKind::Deadline;
    let bad = (-40..0i64).prop_filter("late", move |number| !is_late(number));
    let number = prop_oneof![720 => 0..1000i64, 60 => bad, 1 => Just(-2), 1 => Just(-10)];
    proptest::collection::vec(number, 0..most)
}

fn good(numbers: &[i64]) -> Vec<i64> {
    numbers.iter().copied().filter(|number| !is_poison(*number)).collect()
}

fn expected_rejects(numbers: &[i64]) -> Vec<(i64, String)> {
    let poison = numbers.iter().copied().filter(|number| is_poison(*number));
    poison.map(|number| (number, format!("{number} is poison"))).collect()
}

fn check_stateless(batches: &[Vec<i64>]) {
    let mut operator = opened(Nature::default());
    let mut heard = Heard::default();
    for numbers in batches {
        assert_eq!(operator.on_batch(0, batch(0, numbers), &mut heard).unwrap(), Progress::Done);
    }
    let all = batches.concat();
    assert_eq!(heard.ports[0], good(&all));
    assert_eq!(heard.ports[1], good(&all).into_iter().filter(|number| number % 2 == 1).collect::<Vec<_>>());
    assert_eq!(heard.rejected, expected_rejects(&all));
    assert!(operator.snapshot(CheckpointEpoch(1)).unwrap().is_empty());
}

#[test]
fn every_place_of_a_poisonous_row_is_found() {
    for length in 1..18i64 {
        for poison in 0..length {
            for kind in [-2, -4, -5, -6, -7, -10] {
                let numbers: Vec<i64> = (0..length).map(|n| if n == poison { kind } else { n }).collect();
                check_stateless(&[numbers]);
            }
        }
    }
}

#[test]
fn rows_between_bad_ones_come_out_as_one_batch() {
    let mut operator = opened(Nature::default());
    let mut heard = Heard::default();
    operator.on_batch(0, batch(0, &[2, -3, 4, -4, 6, -5, 8]), &mut heard).unwrap();
    assert_eq!((heard.batches, heard.ports[0].len()), (1, 4));
}

#[test]
fn a_row_the_guest_blames_is_not_searched_for() {
    let nature = Nature::default();
    let mut operator = opened(nature.clone());
    let mut numbers: Vec<i64> = (0..4096).collect();
    numbers[1000] = -1;
    operator.on_batch(0, batch(0, &numbers), &mut Heard::default()).unwrap();
    assert_eq!(nature.made.load(Ordering::Relaxed), 1);
}

#[test]
fn a_late_row_that_is_named_costs_two_deadlines() {
    let nature = Nature::default();
    let mut operator = opened(nature.clone());
    let mut numbers: Vec<i64> = (0..4096).collect();
    numbers[1000] = -10;
    let mut heard = Heard::default();
    operator.on_batch(0, batch(0, &numbers), &mut heard).unwrap();
    assert_eq!((nature.late.load(Ordering::Relaxed), heard.rejected.len(), heard.ports[0].len()), (2, 1, 4095));
}

#[test]
fn a_guest_that_never_comes_back_stops_the_pipeline_soon() {
    for stateful in [false, true] {
        let nature = Nature { stateful, ..Nature::default() };
        let mut operator = opened(nature.clone());
        let error = operator.on_batch(0, batch(0, &[-2; 10_000]), &mut Heard::default()).unwrap_err();
        assert!(message(error).contains("its guest runs into its deadline too often"));
        assert!(nature.made.load(Ordering::Relaxed) < 100);
    }
}

#[test]
fn a_slow_guest_gets_batches_that_it_is_done_with_in_time() {
    for stateful in [false, true] {
        let nature = Nature { stateful, most_rows: Some(300), ..Nature::default() };
        let mut operator = opened(nature.clone());
        let mut heard = Heard::default();
        for _ in 0..10 {
            operator.on_batch(0, batch(0, &[0; 1000]), &mut heard).unwrap();
        }
        assert_eq!((heard.ports[0].len(), heard.rejected.len()), (10_000, 0));
        // The first batch fails as a whole and in halves, and later batches not at all.
        assert!(nature.made.load(Ordering::Relaxed) <= 4);
    }
}

/// Hands batches of rows, each of which takes as long as its number says, to a guest; returns how often it was late.
fn late_calls(stateful: bool, deadline: i64, batches: &[Vec<i64>]) -> Result<usize, String> {
    let nature = Nature { stateful, deadline: Some(deadline), ..Nature::default() };
    let mut operator = opened(nature.clone());
    let mut heard = Heard::default();
    for numbers in batches {
        operator.on_batch(0, batch(0, numbers), &mut heard).map_err(message)?;
    }
    let all = batches.concat();
    let good: Vec<i64> = all.iter().copied().filter(|took| *took <= deadline).collect();
    assert_eq!(heard.ports[0].len(), good.len(), "rows are lost");
    let late = all.iter().filter(|took| **took > deadline);
    assert!(heard.rejected.iter().map(|(took, _)| took).eq(late), "other rows are rejected than those that are late");
    Ok(nature.late.load(Ordering::Relaxed))
}

#[test]
fn a_guest_is_never_stopped_for_being_slow() {
    for rows in [1, 100, 1000, 8192] {
        for took in [1, 7, 100, 501, 1000] {
            let batches = vec![vec![took; rows]; 40_000 / rows];
            let late = late_calls(false, 1000, &batches).unwrap();
            let calls = (rows * batches.len()).div_ceil(usize::try_from(1000 / took).unwrap());
            // The search for its speed, and now and then a trial whether it has become faster.
            assert!(late <= 14 + calls / 32, "{rows} rows of {took}: {late} of {calls} calls were late");
        }
    }
}

#[test]
fn a_row_that_hangs_costs_the_search_for_it_and_no_speed() {
    let mut batches = vec![vec![0; 8192]; 200];
    batches[20][5000] = 2000;
    batches[100][0] = 2000;
    batches[180][8191] = 2000;
    assert!(late_calls(false, 1000, &batches).unwrap() <= 3 * 15);
}

#[test]
fn a_slow_guest_may_hang_on_rows_too() {
    let numbers: Vec<i64> = (0..500).map(|n| if n % 100 == 7 { 2000 } else { 900 }).collect();
    late_calls(false, 1000, &vec![numbers; 20]).unwrap();
}

#[test]
fn a_row_that_was_late_once_is_tried_again() {
    /// Late on the first calls, as after the machine stood still.
    struct Paused(usize, Patience);

    impl Runner for Paused {
        fn run(&mut self, rows: &RecordBatch) -> Ran {
            if self.0 > 0 {
                self.0 -= 1;
                return Ok(Err(Failure { kind: FailureKind::Deadline, message: "late".to_owned(), row: None }));
            }
            Ok(Ok(Made { rows: vec![(0, rows.clone())], ..Made::default() }))
        }

        fn run_again(&mut self, row: &RecordBatch, _: &Failure) -> Ran {
            self.run(row)
        }

        fn patience(&mut self) -> &mut Patience {
            &mut self.1
        }

        fn operator(&self) -> &str {
            "paused"
        }
    }

    for (late, rejected) in [(0, 0), (1, 0), (2, 1)] {
        let Narrowed { made, .. } = narrow(&mut Paused(late, Patience::default()), &numbers(&[1])).unwrap();
        assert_eq!(made.rejected.len(), rejected, "late {late} times");
    }
}

/// A guest may give as much for each row as its memory holds: not all of it is held at once.
#[test]
fn a_guest_that_makes_very_much_of_few_rows_is_taken_in_parts() {
    struct Lavish(Patience);

    impl Runner for Lavish {
        fn run(&mut self, rows: &RecordBatch) -> Ran {
            if rows.num_rows() > 1 {
                let message = "one at a time".to_owned();
                return Ok(Err(Failure { kind: FailureKind::Broken, message, row: None }));
            }
            Ok(Ok(Made { bytes: 40 << 20, rows: vec![(0, rows.clone())], ..Made::default() }))
        }

        fn run_again(&mut self, row: &RecordBatch, _: &Failure) -> Ran {
            self.run(row)
        }

        fn patience(&mut self) -> &mut Patience {
            &mut self.0
        }

        fn operator(&self) -> &str {
            "lavish"
        }
    }

    let rows = numbers(&[1, 2, 3, 4, 5]);
    let Narrowed { made, done } = narrow(&mut Lavish(Patience::default()), &rows).unwrap();
    assert_eq!(done, 2);
    assert_eq!(made.rows, [(0, rows.slice(0, 2))]);
    assert!(made.rejected.is_empty());
}

#[test]
fn what_is_known_of_a_guest_outlives_shards_that_are_forgotten() {
    let nature = Nature { stateful: true, ..Nature::default() };
    let mut operator = opened(nature.clone());
    let run = (0..100).try_for_each(|_| operator.on_batch(0, batch(0, &[-2]), &mut Heard::default()).map(drop));
    assert!(message(run.unwrap_err()).contains("runs into its deadline too often"));
}

#[test]
fn what_breaks_the_contract_is_refused() {
    let changes = |op: Op| {
        let mut batch = batch(0, &[1]);
        batch.ops = Some(vec![op as i8].into());
        batch
    };
    let refused = |stateful: bool, batch: RowBatch, port: Port| {
        let mut operator = opened(Nature { stateful, ..Nature::default() });
        message(operator.on_batch(port, batch, &mut Heard::default()).unwrap_err())
    };
    assert!(refused(false, changes(Op::Delete), 0).contains("is given changes of rows"));
    assert!(refused(true, batch(0, &[1]), 1).contains("it has no input port 1"));
    let mut operator = opened(Nature::default());
    operator.on_batch(0, changes(Op::Insert), &mut Heard::default()).unwrap();
    let state = StateBuffer { table: "state".into(), shard: 0, data: vec![1, 0, 0, 0, 0].into() };
    assert!(message(operator.restore(vec![state]).unwrap_err()).contains("its module keeps no state"));
}

#[test]
fn no_row_is_to_blame_for_a_watermark() {
    let mut operator = opened(Nature { stateful: true, ..Nature::default() });
    operator.on_batch(0, batch(3, &[1, 2]), &mut Heard::default()).unwrap();
    let error = operator.on_watermark(0, Watermark(POISONOUS_TIME), &mut Heard::default()).unwrap_err();
    assert!(message(error).contains("its guest failed at an event-time watermark: time is poison"));
}

proptest! {
    #[test]
    fn a_guest_that_is_done_with_a_row_in_time_gets_through(
        stateful: bool,
        batches in proptest::collection::vec((1..1500usize, 0..=1000i64, 1..=1000i64), 1..8),
    ) {
        let spread = |(rows, least, step): &(usize, i64, i64)| {
            (0..*rows).map(|row| (least + step * row as i64) % 1001).collect::<Vec<_>>()
        };
        let batches: Vec<Vec<i64>> = batches.iter().map(spread).collect();
        late_calls(stateful && batches.concat().len() < 2000, 1000, &batches).map_err(TestCaseError::fail)?;
    }

    #[test]
    fn a_stateless_guest_loses_only_poison(batches in proptest::collection::vec(some_numbers(200), 0..5)) {
        check_stateless(&batches);
    }

    #[test]
    fn operators_on_guests_hold_their_contract(
        stateful: bool,
        calls in proptest::collection::vec((0..20u32, some_numbers(12), 0..500i64), 0..5),
    ) {
        let make = || operator(Nature { stateful, ..Nature::default() });
        let event = |(partition, numbers, time): &(u32, Vec<i64>, i64)| {
            [Event::Batch(0, batch(*partition, numbers)), Event::Watermark(0, Watermark(*time))]
        };
        let events = calls.iter().flat_map(event).collect();
        let case = Case { make: &make, open: OpenContext::default(), events, ordered: true };
        check(&case).map_err(TestCaseError::fail)?;
        let all: Vec<i64> = calls.iter().flat_map(|(_, numbers, _)| numbers.clone()).collect();
        prop_assert_eq!(play(&case).unwrap().rejected.len(), expected_rejects(&all).len());
    }
}
