//! What the group coordinator promises, one invariant a test.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

const T0: Timestamp = Timestamp(1_000);

fn join(groups: &mut Groups, instance: Option<&str>, member: &str, session_timeout_ms: Option<u64>) -> Membership {
    let request = JoinRequest { group: "g", instance, session_timeout_ms, member: member.into() };
    let joined = groups.plan_join(request, T0);
    groups.apply(&joined.record, None);
    joined.membership
}

fn offset(partition: i32, offset: i64) -> GroupRecord {
    let value = Some(CommittedOffset { offset: Offset(offset), committed_at: T0 });
    GroupRecord::Offset { group: "g".into(), partition: TopicPartition::new("t", partition), value }
}

fn stable(groups: &Groups, partition: i32) -> Option<Option<i64>> {
    let found = groups.stable_offsets("g", &[TopicPartition::new("t", partition)])?;
    Some(found.first().map(|(_, offset)| offset.0))
}

#[test]
fn every_change_of_members_begins_a_generation_and_fences_the_one_before() {
    let mut groups = Groups::default();
    let a = join(&mut groups, Some("i"), "a", None);
    assert_eq!(a.generation, 1);
    groups.check_member(&a).unwrap();

    let b = join(&mut groups, Some("i"), "b", None);
    assert_eq!(b.generation, 2);
    assert!(groups.check_member(&a).is_err(), "the instance's earlier member is fenced");
    assert_eq!(groups.describe("g").unwrap().members, ["b"]);

    let c = join(&mut groups, Some("other"), "c", None);
    assert!(groups.check_member(&b).is_err(), "of an earlier generation");
    assert_eq!(groups.describe("g").unwrap().members, ["b", "c"]);

    let record = groups.plan_leave(&c, T0).unwrap();
    groups.apply(&record, None);
    assert!(groups.check_member(&c).is_err());
    assert_eq!(groups.describe("g").unwrap().generation, 4);
    assert!(groups.plan_leave(&c, T0).is_err(), "it left already");
}

#[test]
fn a_silent_member_is_expelled_after_its_session_and_a_heard_one_is_not() {
    let mut groups = Groups::default();
    let member = join(&mut groups, None, "a", Some(100));
    assert!(groups.plan_expiry(Timestamp(T0.0 + 100)).is_empty());
    groups.heartbeat(&member, Timestamp(T0.0 + 50)).unwrap();
    assert!(groups.plan_expiry(Timestamp(T0.0 + 150)).is_empty());
    let records = groups.plan_expiry(Timestamp(T0.0 + 151));
    assert_eq!(records.len(), 1);
    groups.apply(&records[0], None);
    assert!(groups.check_member(&member).is_err());
    assert!(groups.heartbeat(&member, T0).is_err());
}

#[test]
fn members_without_a_session_do_not_expire_but_die_with_the_process() {
    let mut groups = Groups::default();
    let local = join(&mut groups, Some("i"), "a", None);
    assert!(groups.plan_expiry(Timestamp(i64::MAX)).is_empty());
    groups.forget_local_members();
    assert!(groups.check_member(&local).is_err());
    assert_eq!(join(&mut groups, Some("i"), "b", None).generation, 2, "generations go on after a restart");
}

#[test]
fn offsets_of_a_transaction_are_pending_until_it_ends() {
    let mut groups = Groups::default();
    groups.apply(&offset(0, 5), None);
    groups.apply(&offset(0, 9), Some(ProducerId(1)));
    assert_eq!(stable(&groups, 0), None, "one is pending");
    assert_eq!(stable(&groups, 1), Some(None), "others are not held up");
    assert!(groups.end_transaction(ProducerId(1), true));
    assert_eq!(stable(&groups, 0), Some(Some(9)));

    groups.apply(&offset(0, 20), Some(ProducerId(2)));
    assert!(groups.end_transaction(ProducerId(2), false));
    assert_eq!(stable(&groups, 0), Some(Some(9)), "an aborted transaction commits nothing");
    assert!(!groups.end_transaction(ProducerId(2), true), "a marker sent again changes nothing");
    assert_eq!(stable(&groups, 0), Some(Some(9)));
}

#[test]
fn a_deleted_topic_takes_its_offsets_along() {
    let mut groups = Groups::default();
    groups.apply(&offset(0, 5), None);
    for record in groups.plan_forget_topic("t") {
        groups.apply(&record, None);
    }
    assert_eq!(stable(&groups, 0), Some(None));
    assert!(groups.topics().is_empty());
}

proptest! {
    #[test]
    fn generations_only_grow(steps in prop::collection::vec((0..3usize, 0..3usize), 1..60)) {
        let mut groups = Groups::default();
        let mut live: Vec<Membership> = Vec::new();
        let mut last = 0;
        for (n, (step, who)) in steps.into_iter().enumerate() {
            match (step, live.get(who).cloned()) {
                (0 | 1, _) | (_, None) => {
                    let instance = format!("i{who}");
                    live.push(join(&mut groups, Some(&instance), &format!("m{n}"), None));
                }
                (_, Some(member)) => {
                    if let Ok(record) = groups.plan_leave(&member, T0) {
                        groups.apply(&record, None);
                    }
                }
            }
            let generation = groups.describe("g").unwrap().generation;
            prop_assert!(generation >= last);
            last = generation;
            let valid = live.iter().filter(|m| groups.check_member(m).is_ok()).count();
            prop_assert!(valid <= 1, "of the members a join returned, only the newest is current");
        }
    }

    #[test]
    fn a_snapshot_replays_to_the_same_state(
        steps in prop::collection::vec((0..4i32, 0..100i64, 0..3i64, any::<bool>()), 0..40),
    ) {
        let mut groups = Groups::default();
        for (partition, at, producer, commit) in steps {
            match producer {
                0 => groups.apply(&offset(partition, at), None),
                _ if at % 3 == 0 => { groups.end_transaction(ProducerId(producer), commit); }
                _ => groups.apply(&offset(partition, at), Some(ProducerId(producer))),
            }
        }
        groups.end_transaction(ProducerId(1), true);
        groups.end_transaction(ProducerId(2), false);
        join(&mut groups, Some("i"), "m", Some(10));
        let mut replayed = Groups::default();
        for record in groups.snapshot(|_| true) {
            replayed.apply(&record, None);
        }
        prop_assert_eq!(replayed, groups);
    }
}
