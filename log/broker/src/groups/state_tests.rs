//! What the group coordinator promises the engine, and what it promises about offsets, one invariant a test.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::groups::CommittedOffset;

const T0: Timestamp = Timestamp(1_000);

fn join(groups: &mut Groups, instance: &str, member: &str) -> Membership {
    let joined = groups.plan_local_join("g", instance, member.into(), T0).unwrap();
    groups.apply(&joined.record, None);
    joined.membership
}

fn offset(partition: i32, offset: i64) -> GroupRecord {
    let value = Some(CommittedOffset::new(Offset(offset), T0));
    GroupRecord::Offset { group: "g".into(), partition: TopicPartition::new("t", partition), value }
}

fn stable(groups: &Groups, partition: i32) -> Option<Option<i64>> {
    let found = groups.stable_offsets("g", &[TopicPartition::new("t", partition)])?;
    Some(found.first().map(|(_, offset)| offset.0))
}

fn apply_all(groups: &mut Groups, records: &[GroupRecord]) {
    records.iter().for_each(|record| groups.apply(record, None));
}

#[test]
fn every_change_of_the_engines_members_begins_a_generation_and_fences_the_one_before() {
    let mut groups = Groups::default();
    let a = join(&mut groups, "i", "a");
    assert_eq!(a.generation, 1);
    groups.check_member(&a).unwrap();

    let b = join(&mut groups, "i", "b");
    assert_eq!(b.generation, 2);
    assert!(groups.check_member(&a).is_err(), "the instance's earlier member is fenced");
    assert_eq!(groups.info("g").unwrap().members, ["b"]);

    let c = join(&mut groups, "other", "c");
    assert!(groups.check_member(&b).is_err(), "of an earlier generation");
    assert_eq!(groups.info("g").unwrap().members, ["b", "c"]);

    let record = groups.plan_local_leave(&c, T0).unwrap();
    groups.apply(&record, None);
    assert!(groups.check_member(&c).is_err());
    assert_eq!(groups.info("g").unwrap().generation, 4);
    assert!(groups.plan_local_leave(&c, T0).is_err(), "it left already");
}

#[test]
fn the_engines_members_have_no_session_but_die_with_the_process() {
    let mut groups = Groups::default();
    let local = join(&mut groups, "i", "a");
    assert_eq!(groups.next_deadline(), None);
    groups.start(crate::clock::Now { wall: T0, steady: T0 });
    assert!(groups.check_member(&local).is_err());
    assert_eq!(groups.state("g"), Some(GroupState::Empty));
    assert_eq!(join(&mut groups, "i", "b").generation, 2, "generations go on after a restart");
}

#[test]
fn offsets_of_a_transaction_are_pending_until_it_ends() {
    let mut groups = Groups::default();
    groups.apply(&offset(0, 5), None);
    groups.apply(&offset(0, 9), Some(ProducerId(1)));
    assert_eq!(stable(&groups, 0), None, "one is pending");
    assert_eq!(stable(&groups, 1), Some(None), "others are not held up");
    let both = [TopicPartition::new("t", 0), TopicPartition::new("t", 1)];
    let five = OffsetFound::Committed(CommittedOffset::new(Offset(5), T0));
    assert_eq!(groups.offsets("g", &both, true), [OffsetFound::Unstable, OffsetFound::None]);
    assert_eq!(groups.offsets("g", &both, false), [five, OffsetFound::None]);
    assert!(groups.end_transaction(ProducerId(1), true));
    assert_eq!(stable(&groups, 0), Some(Some(9)));

    groups.apply(&offset(0, 20), Some(ProducerId(2)));
    assert!(groups.end_transaction(ProducerId(2), false));
    assert_eq!(stable(&groups, 0), Some(Some(9)), "an aborted transaction commits nothing");
    assert!(!groups.end_transaction(ProducerId(2), true), "a marker sent again changes nothing");
    assert_eq!(stable(&groups, 0), Some(Some(9)));
}

#[test]
fn a_deleted_topic_takes_its_offsets_along_pending_ones_too() {
    let mut groups = Groups::default();
    groups.apply(&offset(0, 5), None);
    groups.apply(&offset(1, 6), Some(ProducerId(1)));
    let records = groups.plan_forget_topics(&["t".to_owned()]);
    apply_all(&mut groups, &records);
    groups.end_transaction(ProducerId(1), true);
    assert_eq!((stable(&groups, 0), stable(&groups, 1)), (Some(None), Some(None)));
    assert!(groups.topics().is_empty());
    assert!(groups.names().is_empty(), "nothing is left of a group that only kept offsets");
}

#[test]
fn a_group_that_only_keeps_offsets_forgets_each_by_its_own_age() {
    let config = GroupConfig { offsets_retention_ms: 100, ..GroupConfig::default() };
    let mut groups = Groups::new(config);
    let at = |partition, at, expires_at: Option<i64>| GroupRecord::Offset {
        group: "g".into(),
        partition: TopicPartition::new("t", partition),
        value: Some(CommittedOffset {
            expires_at: expires_at.map(Timestamp),
            ..CommittedOffset::new(Offset(1), Timestamp(at))
        }),
    };
    apply_all(&mut groups, &[at(0, 0, None), at(1, 50, None), at(2, 0, Some(130))]);
    let mut left = |now| {
        let records = groups.plan_expiry(Timestamp(now));
        apply_all(&mut groups, &records);
        groups.committed_partitions("g").iter().map(|p| p.partition).collect::<Vec<_>>()
    };
    assert_eq!(left(99), [0, 1, 2]);
    assert_eq!(left(100), [1, 2]);
    assert_eq!(left(130), [1], "at the time its client asked for");
    assert!(left(150).is_empty());
    assert!(groups.names().is_empty());
}

#[test]
fn the_engines_offsets_do_not_expire() {
    let mut groups = Groups::default();
    let member = join(&mut groups, "i", "a");
    groups.apply(&offset(0, 5), None);
    let record = groups.plan_local_leave(&member, T0).unwrap();
    groups.apply(&record, None);
    assert!(groups.plan_expiry(Timestamp(i64::MAX)).is_empty(), "a pipeline may be stopped for as long as one likes");
}

#[test]
fn a_deleted_group_leaves_nothing() {
    let mut groups = Groups::default();
    let member = join(&mut groups, "i", "a");
    groups.apply(&offset(0, 5), None);
    groups.apply(&offset(1, 6), Some(ProducerId(1)));
    assert_eq!(groups.plan_delete("g"), Err(GroupError::NonEmptyGroup("g".into())));
    assert_eq!(groups.plan_delete("h"), Err(GroupError::GroupNotFound("h".into())));
    let record = groups.plan_local_leave(&member, T0).unwrap();
    groups.apply(&record, None);
    let records = groups.plan_delete("g").unwrap();
    apply_all(&mut groups, &records);
    groups.end_transaction(ProducerId(1), true);
    assert!(groups.names().is_empty());
}

#[test]
fn what_groups_take_in_memory_is_counted_and_let_go_of() {
    let mut groups = Groups::default();
    for round in 0..3 {
        for group in ["a", "b"] {
            let long = CommittedOffset { metadata: "x".repeat(1_000), ..CommittedOffset::new(Offset(round), T0) };
            let partition = TopicPartition::new("t", round as i32 % 2);
            groups.apply(&GroupRecord::Offset { group: group.into(), partition, value: Some(long) }, None);
        }
        let least = 2 * 1_000 * (1 + usize::from(round > 0));
        assert!((least..least + 10_000).contains(&groups.bytes), "{} after {round}", groups.bytes);
    }
    let records: Vec<_> = ["a", "b"].iter().flat_map(|group| groups.plan_delete(group).unwrap()).collect();
    apply_all(&mut groups, &records);
    assert_eq!((groups.bytes, groups.groups.len()), (0, 0));
}

proptest! {
    #[test]
    fn generations_only_grow(steps in prop::collection::vec((0..3usize, 0..3usize), 1..60)) {
        let mut groups = Groups::default();
        let mut live: Vec<Membership> = Vec::new();
        let mut last = 0;
        for (n, (step, who)) in steps.into_iter().enumerate() {
            match (step, live.get(who).cloned()) {
                (0 | 1, _) | (_, None) => live.push(join(&mut groups, &format!("i{who}"), &format!("m{n}"))),
                (_, Some(member)) => {
                    if let Ok(record) = groups.plan_local_leave(&member, T0) {
                        groups.apply(&record, None);
                    }
                }
            }
            let generation = groups.info("g").unwrap().generation;
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
        join(&mut groups, "i", "m");
        let mut replayed = Groups::default();
        let records = groups.snapshot(|_| true);
        apply_all(&mut replayed, &records);
        prop_assert_eq!(replayed.snapshot(|_| true), records);
        prop_assert_eq!(replayed.describe("g"), groups.describe("g"));
    }
}
