//! The state of a guest is that of one that never met the rows that were skipped, wherever snapshots are taken.

use std::collections::BTreeMap;

use logmill_pipelines::flow::{CheckpointEpoch, STATE_SHARDS, Watermark};
use proptest::prelude::*;

use super::fake::{Nature, batch, is_poison};
use super::narrowing::{Heard, message, opened, some_numbers};
use crate::error::OperatorError;
use crate::operator::{Operator, StateBuffer};
use crate::wasm::live::{FailureKind, GuestState};
use crate::wasm::state::{self, Kept as KeptOfShard};

/// What happens to a guest.
#[derive(Clone, Debug)]
enum Step {
    Rows(u32, Vec<i64>),
    Watermark,
    Snapshot,
    /// The process dies and goes on from the last snapshots.
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        5 => (0..40u32, some_numbers(60)).prop_map(|(partition, numbers)| Step::Rows(partition, numbers)),
        1 => Just(Step::Watermark),
        2 => Just(Step::Snapshot),
        1 => Just(Step::Crash),
    ];
    proptest::collection::vec(step, 0..16)
}

fn stateful() -> Nature {
    Nature { stateful: true, state_version: 3, ..Nature::default() }
}

fn total(buffer: &StateBuffer) -> i64 {
    let state = state::decode(&buffer.data).unwrap().state;
    assert_eq!((state.version, &*buffer.table), (3, "state"));
    i64::from_le_bytes(state.bytes.as_ref().try_into().unwrap())
}

/// The snapshots that the engine keeps.
type Kept = BTreeMap<u32, StateBuffer>;

fn snapshot(operator: &mut dyn Operator, kept: &mut Kept) -> usize {
    let buffers = operator.snapshot(CheckpointEpoch(1)).unwrap();
    let changed = buffers.len();
    kept.extend(buffers.into_iter().map(|buffer| (buffer.shard, buffer)));
    changed
}

fn totals(kept: &Kept) -> BTreeMap<u32, i64> {
    kept.iter().map(|(shard, buffer)| (*shard, total(buffer))).collect()
}

proptest! {
    #[test]
    fn state_equals_that_of_the_good_rows(steps in steps()) {
        let mut operator = opened(stateful());
        let (mut heard, mut kept) = (Heard::default(), Kept::new());
        // What is true now, what was at the last snapshot, and what was to come out since the beginning.
        let (mut now, mut then) = (BTreeMap::<u32, i64>::new(), BTreeMap::new());
        let mut expected = Vec::new();
        for step in &steps {
            match step {
                Step::Rows(partition, numbers) => {
                    operator.on_batch(0, batch(*partition, numbers), &mut heard).unwrap();
                    for number in numbers.iter().filter(|number| !is_poison(**number)) {
                        let total = now.entry(partition % STATE_SHARDS).or_default();
                        *total += number;
                        expected.push(*total);
                    }
                }
                Step::Watermark => {
                    operator.on_watermark(0, Watermark(5), &mut heard).unwrap();
                    expected.extend(now.values());
                }
                Step::Snapshot => {
                    snapshot(operator.as_mut(), &mut kept);
                    then = now.clone();
                    prop_assert_eq!(totals(&kept), now.clone());
                }
                Step::Crash => {
                    operator = opened(stateful());
                    operator.restore(kept.values().cloned().collect()).unwrap();
                    now.clone_from(&then);
                }
            }
        }
        prop_assert_eq!(heard.ports[0].clone(), expected);
    }
}

#[test]
fn only_shards_that_changed_are_snapshot() {
    let mut operator = opened(stateful());
    let (mut heard, mut kept) = (Heard::default(), Kept::new());
    for partition in [0, 1, 2, 17] {
        operator.on_batch(0, batch(partition, &[10]), &mut heard).unwrap();
    }
    assert_eq!(snapshot(operator.as_mut(), &mut kept), 3);
    assert_eq!(totals(&kept), BTreeMap::from([(0, 10), (1, 20), (2, 10)]));
    assert_eq!(snapshot(operator.as_mut(), &mut kept), 0);
    operator.on_batch(0, batch(2, &[5, -3]), &mut heard).unwrap();
    operator.on_batch(0, batch(1, &[-3]), &mut heard).unwrap();
    assert_eq!(snapshot(operator.as_mut(), &mut kept), 1);
    assert_eq!(totals(&kept), BTreeMap::from([(0, 10), (1, 20), (2, 15)]));
}

/// What is kept of a shard whose input goes on.
fn data(version: u32, bytes: &[u8]) -> bytes::Bytes {
    let state = GuestState { version, bytes: bytes.to_vec().into() };
    state::encode(&KeptOfShard { state, ended: false })
}

#[test]
fn a_new_module_takes_an_old_state_or_refuses_it() {
    let old = StateBuffer { table: "state".into(), shard: 4, data: data(2, &7i64.to_le_bytes()) };
    let mut operator = opened(stateful());
    operator.restore(vec![old.clone()]).unwrap();
    let mut kept = Kept::new();
    assert_eq!(snapshot(operator.as_mut(), &mut kept), 1, "it is written anew, in the new version");
    assert_eq!(totals(&kept), BTreeMap::from([(4, 7)]));

    let newer = StateBuffer { data: data(9, &[]), ..old.clone() };
    let refused = message(opened(stateful()).restore(vec![newer]).unwrap_err());
    assert!(refused.contains("does not take its state of version 9: version 9 is too new"), "{refused}");
    let other = StateBuffer { table: "windows".into(), ..old.clone() };
    assert!(message(opened(stateful()).restore(vec![other]).unwrap_err()).contains("state of table `windows`"));
    let twice = message(opened(stateful()).restore(vec![old.clone(), old.clone()]).unwrap_err());
    assert!(twice.contains("the state of shard 4 twice"));
    let torn = StateBuffer { data: vec![1, 2].into(), ..old };
    assert!(message(opened(stateful()).restore(vec![torn]).unwrap_err()).contains("cannot be read"));
}

#[test]
fn a_guest_that_does_not_do_the_same_twice_stops_the_pipeline() {
    let mut operator = opened(Nature { fickle: true, ..stateful() });
    let mut heard = Heard::default();
    operator.on_batch(0, batch(0, &[1, 2]), &mut heard).unwrap();
    let error = message(operator.on_batch(0, batch(0, &[-3, 4]), &mut heard).unwrap_err());
    assert!(error.contains("its guest does not do the same twice"), "{error}");
    assert!(error.contains("put out something else"), "{error}");
}

#[test]
fn the_end_is_told_once_and_rows_of_a_shard_stay_in_it() {
    let mut operator = opened(stateful());
    let mut heard = Heard::default();
    operator.on_batch(0, batch(5, &[1, 2]), &mut heard).unwrap();
    operator.on_batch(0, batch(9, &[4]), &mut heard).unwrap();
    operator.on_watermark(0, Watermark::END, &mut heard).unwrap();
    operator.on_end(0, &mut heard).unwrap();
    assert_eq!(heard.ports[0], [1, 3, 4, 3, 4]);
}

/// Goes on from what was kept, with more rows, to the end; returns what comes out.
fn another_run(kept: &mut Kept, more: &[(u32, &[i64])], workers: u32) -> Vec<i64> {
    let mut heard = Heard::default();
    for worker in 0..workers {
        let mut operator = opened(stateful());
        let own = kept.values().filter(|buffer| buffer.shard % workers == worker).cloned();
        operator.restore(own.collect()).unwrap();
        for (partition, numbers) in more.iter().filter(|(partition, _)| partition % workers == worker) {
            operator.on_batch(0, batch(*partition, numbers), &mut heard).unwrap();
        }
        operator.on_end(0, &mut heard).unwrap();
        snapshot(operator.as_mut(), kept);
    }
    heard.ports[0].sort_unstable();
    std::mem::take(&mut heard.ports[0])
}

#[test]
fn after_the_end_only_shards_with_new_rows_are_told_of_it_again() {
    for workers in [1, 2, 16] {
        let mut kept = Kept::new();
        assert_eq!(another_run(&mut kept, &[(0, &[10]), (1, &[20])], workers), [10, 10, 20, 20]);
        assert_eq!(another_run(&mut kept, &[], workers), [0; 0]);
        assert_eq!(another_run(&mut kept, &[(1, &[1])], workers), [21, 21]);
        // Rows that were put aside are none that a guest has seen.
        assert_eq!(another_run(&mut kept, &[(1, &[-3, -4])], workers), [0; 0]);
        // A run that was killed before it was committed is told of the end again.
        assert_eq!(another_run(&mut kept.clone(), &[(0, &[5])], workers), [15, 15]);
        assert_eq!(another_run(&mut kept, &[(0, &[5])], workers), [15, 15]);
    }
}

#[test]
fn snapshots_and_restored_states_are_not_held_to_the_deadline_of_a_call() {
    let slow = Nature { slow_state: true, ..stateful() };
    let mut operator = opened(slow.clone());
    let (mut heard, mut kept) = (Heard::default(), Kept::new());
    operator.on_batch(0, batch(0, &[1, 2]), &mut heard).unwrap();
    operator.on_batch(0, batch(0, &[3, -5, 4]), &mut heard).unwrap();
    assert_eq!(snapshot(operator.as_mut(), &mut kept), 1);
    opened(slow).restore(kept.into_values().collect()).unwrap();
    assert_eq!(heard.ports[0], [1, 3, 6, 10]);
}

#[test]
fn what_stops_a_pipeline_on_its_own_account_says_what_to_do() {
    let restored = |stuck: FailureKind| {
        let buffer = StateBuffer { table: "state".into(), shard: 4, data: data(3, &7i64.to_le_bytes()) };
        let stuck = Nature { stuck_state: Some(stuck), ..stateful() };
        opened(stuck).restore(vec![buffer]).unwrap_err()
    };
    for (stuck, expected) in [
        (FailureKind::Refused, "does not take its state of version 3: it is stuck"),
        (FailureKind::Broken, "fails while it takes over its state of version 3: it is stuck"),
        (FailureKind::Deadline, "fails while it takes over its state of version 3: it is stuck; raise `deadline:`"),
    ] {
        let error = restored(stuck);
        assert_eq!(matches!(error, OperatorError::StateRefused { .. }), stuck == FailureKind::Refused);
        assert!(message(error).contains(expected), "{stuck:?}");
    }
    let mut operator = opened(Nature { stuck_state: Some(FailureKind::Deadline), ..stateful() });
    operator.on_batch(0, batch(0, &[1]), &mut Heard::default()).unwrap();
    let error = message(operator.snapshot(CheckpointEpoch(1)).unwrap_err());
    assert!(error.contains("gives no snapshot of its state: it is stuck; raise `deadline:`"), "{error}");
}

#[test]
fn a_state_that_is_full_stops_the_pipeline_and_loses_no_row() {
    let full = Nature { memory: Some(100), ..stateful() };
    let mut operator = opened(full);
    let mut heard = Heard::default();
    // What is left over of rows is no state: there is room again on a new guest.
    for _ in 0..9 {
        operator.on_batch(0, batch(0, &[1; 10]), &mut heard).unwrap();
    }
    assert_eq!((heard.ports[0].len(), heard.rejected.len()), (90, 0));
    // What no guest has room for is the row's own fault.
    operator.on_batch(0, batch(0, &[1, 101, 1]), &mut heard).unwrap();
    assert_eq!(heard.rejected, [(101, "it is full".to_owned())]);
    let error = message(operator.on_batch(0, batch(0, &[1, 50]), &mut heard).unwrap_err());
    assert!(error.contains("the state of its guest leaves no room for a row"), "{error}");
    assert_eq!(heard.rejected.len(), 1);
}
