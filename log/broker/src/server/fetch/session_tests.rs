//! Sessions: what each request gets, who gives way, and a model that holds for any history.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn wanted(partition: i32, offset: i64) -> Wanted {
    let asked = Asked { offset, max_bytes: 1, current_leader_epoch: -1, last_fetched_epoch: -1 };
    Wanted { topic: TopicKey::Name(Arc::from("t")), partition, asked }
}

fn request(id: i32, epoch: i32, partitions: std::ops::Range<i32>) -> SessionRequest {
    let wanted = partitions.map(|partition| wanted(partition, 0)).collect();
    SessionRequest { id, epoch, by_id: false, wanted, forgotten: Vec::new() }
}

const IDLE: Summary = Summary { is_error: false, has_records: false, diverges: false, high_watermark: 0, log_start: 0 };

/// Ids 1, 2, 3 and so on.
fn counter() -> impl FnMut() -> i32 {
    let mut id = 0;
    move || {
        id += 1;
        id
    }
}

/// Opens a session over so many partitions.
fn open(cache: &SessionCache, partitions: i32, now_ms: i64, id: i32) -> i32 {
    let turn = cache.begin(request(0, 0, 0..partitions), now_ms).unwrap();
    cache.finish(&turn, &vec![IDLE; partitions as usize], now_ms, || id).unwrap().session_id
}

#[test]
fn full_slots_give_way_to_what_is_larger_once_they_are_old_or_stale() {
    let cache = SessionCache::new(2);
    assert_eq!(open(&cache, 10, 0, 1), 1);
    assert_eq!(open(&cache, 20, 0, 2), 2);
    assert_eq!(open(&cache, 99, 1_000, 3), NO_SESSION, "both are young");
    // Both are used and grow old.
    for id in [1, 2] {
        cache.begin(request(id, 1, 0..0), MIN_EVICTION_MS + 1).unwrap();
    }
    let now = MIN_EVICTION_MS + 2;
    assert_eq!(open(&cache, 10, now, 3), NO_SESSION, "no larger than the smallest");
    assert_eq!(open(&cache, 11, now, 3), 3);
    assert_eq!(cache.begin(request(1, 2, 0..0), now).unwrap_err(), ResponseError::FetchSessionIdNotFound);
    assert!(cache.begin(request(2, 2, 0..0), now).is_ok());
    // Unused for long, the one that was used first goes whatever its size.
    assert_eq!(open(&cache, 1, now + MIN_EVICTION_MS + 1, 4), 4);
    assert!(cache.state.lock().sessions.contains_key(&4));
}

#[test]
fn epochs_must_follow_one_another_and_begin_again_after_the_last() {
    let cache = SessionCache::new(10);
    let id = open(&cache, 3, 0, 7);
    let error = |epoch| cache.begin(request(id, epoch, 0..0), 0).map(drop).unwrap_err();
    assert_eq!(error(2), ResponseError::InvalidFetchSessionEpoch);
    cache.begin(request(id, 1, 0..0), 0).unwrap();
    assert_eq!(error(1), ResponseError::InvalidFetchSessionEpoch);
    assert_eq!(next_epoch(i32::MAX), 1);
    let by_id = SessionRequest { by_id: true, ..request(id, 2, 0..0) };
    assert_eq!(cache.begin(by_id, 0).unwrap_err(), ResponseError::FetchSessionTopicIdError);
    // A request that is overtaken by the next one of its session is not answered for it.
    let slow = cache.begin(request(id, 2, 0..0), 0).unwrap();
    cache.begin(request(id, 3, 0..0), 0).unwrap();
    let late = cache.finish(&slow, &[IDLE; 3], 0, counter());
    assert_eq!(late, Err(ResponseError::InvalidFetchSessionEpoch));
}

#[test]
fn a_session_ends_when_it_is_closed_replaced_or_empty() {
    let cache = SessionCache::new(10);
    let closes: [fn(i32) -> SessionRequest; 3] = [
        |id| request(id, FINAL_EPOCH, 0..1),
        |id| request(id, INITIAL_EPOCH, 0..1),
        |id| SessionRequest { forgotten: vec![(wanted(0, 0).topic, 0)], ..request(id, 1, 0..0) },
    ];
    for (n, close) in closes.into_iter().enumerate() {
        let id = open(&cache, 1, 0, 100 + n as i32);
        cache.begin(close(id), 0).unwrap();
        assert_eq!(cache.begin(request(id, 1, 0..0), 0).unwrap_err(), ResponseError::FetchSessionIdNotFound, "{n}");
    }
    let state = cache.state.lock();
    assert!(state.sessions.is_empty() && state.by_use.is_empty() && state.evictable.is_empty());
    assert_eq!(state.partitions, 0);
}

#[test]
fn an_error_is_told_each_time_and_what_follows_it_once() {
    let cache = SessionCache::new(1);
    let id = open(&cache, 2, 0, 1);
    let mut epoch = 0;
    let mut check = |second: Summary, expected: bool| {
        epoch += 1;
        let turn = cache.begin(request(id, epoch, 0..0), 0).unwrap();
        let answer = cache.finish(&turn, &[IDLE, second], 0, counter()).unwrap();
        assert_eq!(answer, Answer { session_id: id, included: vec![false, expected] }, "{second:?}");
    };
    let error = Summary { is_error: true, high_watermark: -1, log_start: -1, ..IDLE };
    check(IDLE, false);
    check(error, true);
    check(error, true);
    check(IDLE, true);
    check(IDLE, false);
    check(Summary { diverges: true, ..IDLE }, true);
    check(Summary { log_start: 5, ..IDLE }, true);
    check(Summary { log_start: 5, high_watermark: 9, ..IDLE }, true);
    check(Summary { log_start: 5, high_watermark: 9, ..IDLE }, false);
}

/// What a request of the model does to a partition.
#[derive(Clone, Debug)]
enum Step {
    Ask(i32, i64),
    Forget(i32),
}

proptest! {
    /// A session's partitions are those asked for and not forgotten, each with what was asked last, whatever returned
    /// records; one that did is behind all that did not.
    #[test]
    fn a_session_is_what_its_requests_said(
        turns in prop::collection::vec(
            (
                prop::collection::vec(
                    prop_oneof![
                        (0..12i32, 0..100i64).prop_map(|(p, o)| Step::Ask(p, o)),
                        (0..12i32).prop_map(Step::Forget),
                    ],
                    0..6,
                ),
                any::<u16>(),
            ),
            1..30,
        ),
    ) {
        let cache = SessionCache::new(1);
        // One that nobody forgets keeps the session alive.
        let mut model: BTreeMap<i32, i64> = [(100, 0)].into();
        let turn = cache.begin(request(0, 0, 100..101), 0).unwrap();
        let id = cache.finish(&turn, &[IDLE], 0, counter()).unwrap().session_id;
        let mut last_with_records: Vec<i32> = Vec::new();
        for (epoch, (steps, records)) in (1..).zip(turns) {
            let mut next = request(id, epoch, 0..0);
            for step in &steps {
                if let Step::Ask(partition, offset) = step {
                    next.wanted.push(wanted(*partition, *offset));
                    model.insert(*partition, *offset);
                }
            }
            for step in &steps {
                if let Step::Forget(partition) = step {
                    next.forgotten.push((wanted(0, 0).topic, *partition));
                    model.remove(partition);
                }
            }
            let known: Vec<i32> = model.keys().copied().collect();
            let turn = cache.begin(next, 0).unwrap();
            let order: Vec<i32> = turn.wanted.iter().map(|w| w.partition).collect();
            let asked: BTreeMap<i32, i64> = turn.wanted.iter().map(|w| (w.partition, w.asked.offset)).collect();
            prop_assert_eq!(&asked, &model);
            prop_assert_eq!(order.len(), known.len());
            let is_behind = |p: &i32| last_with_records.contains(p);
            let returned: Vec<i32> = order.iter().copied().filter(|p| is_behind(p)).collect();
            let kept: Vec<i32> = last_with_records.iter().copied().filter(|p| returned.contains(p)).collect();
            let forgotten_since = steps.iter().any(|step| matches!(step, Step::Forget(_)));
            prop_assert!(forgotten_since || returned == kept, "{:?} of {:?}", order, last_with_records);
            let read: Vec<Summary> = (0..order.len())
                .map(|n| Summary { has_records: records >> (n % 16) & 1 == 1, ..IDLE })
                .collect();
            last_with_records = order.iter().zip(&read).filter(|(_, r)| r.has_records).map(|(p, _)| *p).collect();
            let answer = cache.finish(&turn, &read, 0, counter()).unwrap();
            for ((included, read), partition) in answer.included.iter().zip(&read).zip(&order) {
                prop_assert!(*included || !read.has_records, "partition {} with records is left out", partition);
            }
        }
        let state = cache.state.lock();
        prop_assert_eq!(state.partitions, model.len());
    }
}
