//! What the transaction coordinator promises, one invariant a test.
#![allow(clippy::unwrap_used, clippy::panic)]

use proptest::prelude::*;

use super::*;

const NOW: Timestamp = Timestamp(1_000);
const TIMEOUT_MS: u64 = 60_000;

/// The machine with its records applied as the service would, and the producer ids it was given.
#[derive(Default)]
struct Driver {
    state: Transactions,
    fresh_ids: i64,
    markers: Vec<(TopicPartition, Ending, ProducerId, ProducerEpoch)>,
}

impl Driver {
    fn fresh(&mut self) -> ProducerId {
        self.fresh_ids += 1;
        ProducerId(self.fresh_ids - 1)
    }

    fn init(&mut self) -> ProducerSession {
        loop {
            let fresh = match self.state.init("id", TIMEOUT_MS, NOW, None) {
                InitStep::NeedProducerId => Some(self.fresh()),
                _ => None,
            };
            match self.state.init("id", TIMEOUT_MS, NOW, fresh) {
                InitStep::NeedProducerId => panic!("it was given one"),
                InitStep::End(ending) => self.drive(Some(ending), usize::MAX),
                InitStep::Begin(record) => {
                    self.state.apply("id", Some(record));
                    return self.state.session("id").unwrap();
                }
            }
        }
    }

    fn add(&mut self, session: &ProducerSession, partition: i32) -> Result<(), TxnError> {
        if let Some(record) = self.state.add_partition(session, &TopicPartition::new("t", partition), NOW)? {
            self.state.apply("id", Some(record));
        }
        Ok(())
    }

    /// Follows at most `steps` steps, then stops as a crash would.
    fn drive(&mut self, ending: Option<Ending>, steps: usize) {
        for _ in 0..steps {
            let fresh = match self.state.step("id", ending, NOW, None) {
                Step::NeedProducerId => Some(self.fresh()),
                _ => None,
            };
            match self.state.step("id", ending, NOW, fresh) {
                Step::Done => return,
                Step::NeedProducerId => panic!("it was given one"),
                Step::Prepare { record, .. } => self.state.apply("id", Some(record)),
                Step::Complete { partitions, ending, producer_id, epoch, record } => {
                    self.markers.extend(partitions.into_iter().map(|p| (p, ending, producer_id, epoch)));
                    self.state.apply("id", Some(record));
                }
            }
        }
    }

    fn end(&mut self, session: &ProducerSession, ending: Ending) -> Result<ProducerSession, TxnError> {
        if self.state.request_end(session, ending)? == EndRequest::Proceed {
            self.drive(Some(ending), usize::MAX);
        }
        Ok(self.state.session("id").unwrap())
    }
}

#[test]
fn a_commit_syncs_the_data_before_the_decision_and_marks_every_partition() {
    let mut driver = Driver::default();
    let session = driver.init();
    driver.add(&session, 0).unwrap();
    driver.add(&session, 1).unwrap();
    let Step::Prepare { sync, record } = driver.state.step("id", Some(Ending::Commit), NOW, None) else { panic!() };
    assert_eq!(sync.len(), 2);
    assert_eq!((record.status, record.epoch), (TxnStatus::PrepareCommit, ProducerEpoch(1)));
    let next = driver.end(&session, Ending::Commit).unwrap();
    assert_eq!((next.id, next.epoch), (session.id, ProducerEpoch(1)));
    let marked: Vec<_> = driver.markers.iter().map(|m| (m.0.partition, m.1, m.3.0)).collect();
    assert_eq!(marked, [(0, Ending::Commit, 1), (1, Ending::Commit, 1)]);
    assert!(driver.state.get("id").unwrap().partitions.is_empty());
}

#[test]
fn without_an_open_transaction_ending_changes_nothing() {
    let mut driver = Driver::default();
    let session = driver.init();
    let before = driver.state.clone();
    assert_eq!(driver.end(&session, Ending::Commit).unwrap(), session);
    assert_eq!(driver.end(&session, Ending::Abort).unwrap(), session);
    assert_eq!(driver.state, before);
}

#[test]
fn a_new_producer_aborts_and_fences_its_predecessor() {
    let mut driver = Driver::default();
    let old = driver.init();
    driver.add(&old, 0).unwrap();
    let new = driver.init();
    assert_eq!(driver.markers.last().unwrap().1, Ending::Abort);
    assert!(new.epoch > old.epoch);
    let fenced = Err(TxnError::Fenced("id".into()));
    assert_eq!(driver.add(&old, 0), fenced);
    assert_eq!(driver.end(&old, Ending::Commit).map(|_| ()), fenced);
    assert_eq!(driver.end(&old, Ending::Abort).map(|_| ()), fenced);
    driver.add(&new, 0).unwrap();
}

#[test]
fn a_decided_transaction_ends_as_decided_after_a_crash() {
    for (ending, completed) in [(Ending::Commit, TxnStatus::CompleteCommit), (Ending::Abort, TxnStatus::CompleteAbort)]
    {
        let mut driver = Driver::default();
        let session = driver.init();
        driver.add(&session, 0).unwrap();
        driver.drive(Some(ending), 1);
        assert_eq!(driver.state.prepared(), ["id"]);
        driver.drive(None, usize::MAX);
        assert_eq!(driver.state.get("id").unwrap().status, completed);
        assert_eq!(driver.markers.len(), 1);
    }
}

#[test]
fn an_end_that_failed_may_be_asked_for_again_but_not_turned_around() {
    let mut driver = Driver::default();
    let session = driver.init();
    driver.add(&session, 0).unwrap();
    driver.drive(Some(Ending::Commit), 1);
    assert_eq!(driver.end(&session, Ending::Abort), Err(TxnError::OtherEnding("id".into())));
    assert_eq!(driver.add(&session, 1), Err(TxnError::Fenced("id".into())), "it is decided");
    let next = driver.end(&session, Ending::Commit).unwrap();
    assert_eq!(driver.end(&session, Ending::Commit).unwrap(), next, "asked again after it has succeeded");
    assert_eq!(driver.markers.len(), 1);
    assert_eq!(driver.end(&session, Ending::Abort), Err(TxnError::Fenced("id".into())));
}

#[test]
fn producer_ids_are_rotated_before_the_epoch_runs_out() {
    let mut driver = Driver::default();
    let first = driver.init();
    let mut session = ProducerSession { epoch: ProducerEpoch(32_765), ..first.clone() };
    let mut record = driver.state.get("id").unwrap().clone();
    record.epoch = session.epoch;
    driver.state.apply("id", Some(record));

    let commit = |driver: &mut Driver, session: &ProducerSession| {
        driver.add(session, 0).unwrap();
        driver.end(session, Ending::Commit).unwrap()
    };
    session = commit(&mut driver, &session);
    assert_eq!((session.id, session.epoch.0), (first.id, 32_766));
    let last_of_id = session.clone();
    session = commit(&mut driver, &session);
    assert_eq!(driver.markers.last().unwrap().3.0, 32_767, "the last epoch only fences");
    assert_ne!(session.id, first.id);
    assert_eq!(session.epoch.0, 0);
    assert_eq!(driver.add(&last_of_id, 0), Err(TxnError::Fenced("id".into())));
    session = commit(&mut driver, &session);
    assert_eq!(session.epoch.0, 1);
}

#[test]
fn a_new_producer_at_the_last_epoch_gets_a_new_id() {
    for epoch in [32_766, 32_767] {
        let mut driver = Driver::default();
        let first = driver.init();
        let mut record = driver.state.get("id").unwrap().clone();
        record.epoch = ProducerEpoch(epoch);
        driver.state.apply("id", Some(record));
        let next = driver.init();
        assert_ne!(next.id, first.id);
        assert_eq!(next.epoch, ProducerEpoch(0));
    }
}

#[test]
fn only_open_transactions_time_out_and_only_idle_ids_are_forgotten() {
    let mut driver = Driver::default();
    let session = driver.init();
    let late = Timestamp(NOW.0 + 60_001);
    assert!(driver.state.timed_out(late).is_empty());
    assert_eq!(driver.state.idle(late, TIMEOUT_MS), ["id"]);
    driver.add(&session, 0).unwrap();
    assert!(driver.state.timed_out(Timestamp(NOW.0 + 60_000)).is_empty());
    assert_eq!(driver.state.timed_out(late), ["id"]);
    assert!(driver.state.idle(late, TIMEOUT_MS).is_empty());
}

proptest! {
    /// Whatever is asked in whatever order, with crashes between the steps: at most one session works, the (id, epoch)
    /// of sessions only moves forward, epochs stay in range, and a partition's markers all belong to one ending each.
    #[test]
    fn sessions_move_forward_and_one_works(
        start in 32_700..32_767i16,
        moves in prop::collection::vec((0..5u8, 0..3i32, 0..4usize), 1..200),
    ) {
        let mut driver = Driver::default();
        let mut sessions = vec![driver.init()];
        let mut record = driver.state.get("id").unwrap().clone();
        record.epoch = ProducerEpoch(start.min(LAST_CLIENT_EPOCH.0));
        driver.state.apply("id", Some(record));
        sessions.push(driver.state.session("id").unwrap());
        for (kind, partition, steps) in moves {
            let session = sessions.last().unwrap().clone();
            match kind {
                0 => sessions.push(driver.init()),
                1 | 2 => { let _ = driver.add(&session, partition); }
                3 => if let Ok(next) = driver.end(&session, Ending::Commit) { sessions.push(next) },
                _ => {
                    driver.drive(Some(Ending::Abort), steps);
                    driver.drive(None, usize::MAX);
                    sessions.push(driver.state.session("id").unwrap());
                }
            }
            let at = |s: &ProducerSession| (s.id, s.epoch);
            prop_assert!(sessions.is_sorted_by_key(at));
            let working: std::collections::BTreeSet<_> =
                sessions.iter().filter(|s| driver.state.current(s).is_ok()).map(at).collect();
            prop_assert!(working.len() <= 1);
            let current = driver.state.get("id").unwrap();
            prop_assert!(current.epoch <= LAST_CLIENT_EPOCH || matches!(
                current.status, TxnStatus::PrepareCommit | TxnStatus::PrepareAbort
            ));
        }
        let mut endings = std::collections::HashMap::new();
        for (_, ending, id, epoch) in &driver.markers {
            prop_assert_eq!(*endings.entry((*id, *epoch)).or_insert(*ending), *ending);
        }
    }
}
