//! Kafka's rules of committed offsets, one invariant a test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use logmill_protocol::{Offset, ProducerId, Timestamp};

use super::harness::*;
use super::*;
use crate::types::TopicPartition;

fn commit(member: &str, generation: i32) -> Commit {
    Commit {
        group: "g".into(),
        member: member.into(),
        instance: None,
        generation,
        knows_unknown_group: true,
        offsets: vec![(TopicPartition::new("t", 0), CommittedOffset::new(Offset(5), Timestamp(1_000_000)))],
    }
}

fn take(harness: &mut Harness, commit: Commit) -> Result<(), GroupError> {
    let changes = harness.groups.commit(commit, harness.moment())?;
    changes.records.iter().for_each(|record| harness.groups.apply(record, None));
    harness.log.extend(changes.records);
    Ok(())
}

#[test]
fn members_commit_in_their_generation_only() {
    let mut harness = Harness::prompt();
    let (ids, generation) = harness.stable(1);
    let illegal = |generation| GroupError::IllegalGeneration { group: "g".into(), generation };
    take(&mut harness, commit(&ids[0], generation)).unwrap();
    let mut check = |commit: Commit, expected: GroupError| assert_eq!(take(&mut harness, commit), Err(expected));
    check(commit(&ids[0], generation - 1), illegal(generation - 1));
    check(commit(&ids[0], -1), illegal(-1));
    check(commit("stranger", generation), GroupError::UnknownMember);
    check(commit("", -1), GroupError::UnknownMember);
    check(Commit { instance: Some("i".into()), ..commit(&ids[0], generation) }, GroupError::UnknownMember);
    harness.enter();
    take(&mut harness, commit(&ids[0], generation)).unwrap();
    let waiter = harness.join(joining(&ids[0]));
    assert_eq!(harness.joined(waiter).generation, generation + 1);
    let early = take(&mut harness, commit(&ids[0], generation + 1));
    assert_eq!(early, Err(GroupError::RebalanceInProgress), "it does not know what it is assigned");
}

#[test]
fn a_group_without_members_keeps_offsets_for_anyone() {
    let mut harness = Harness::prompt();
    take(&mut harness, commit("", -1)).unwrap();
    assert_eq!(harness.state(), Some(GroupState::Empty));
    assert_eq!(harness.groups.list()[0].protocol_type, "");
    assert_eq!(take(&mut harness, commit("m", 3)), Err(GroupError::UnknownMember));
    let other = |knows_unknown_group| Commit { group: "h".into(), knows_unknown_group, ..commit("m", 3) };
    assert_eq!(take(&mut harness, other(true)), Err(GroupError::GroupNotFound("h".into())));
    let illegal = GroupError::IllegalGeneration { group: "h".into(), generation: 3 };
    assert_eq!(take(&mut harness, other(false)), Err(illegal));
}

#[test]
fn a_commit_is_a_sign_of_life() {
    let mut harness = Harness::prompt();
    let (ids, generation) = harness.stable(1);
    for _ in 0..3 {
        harness.pass(i64::from(SESSION_MS) - 1);
        take(&mut harness, commit(&ids[0], generation)).unwrap();
    }
    harness.pass(i64::from(SESSION_MS));
    assert_eq!(harness.state(), Some(GroupState::Empty));
}

#[test]
fn text_beside_an_offset_is_kept_up_to_its_limit() {
    let mut harness = Harness::prompt();
    let with = |partition, metadata: String| {
        let value = CommittedOffset { metadata, ..CommittedOffset::new(Offset(1), Timestamp(1)) };
        (TopicPartition::new("t", partition), value)
    };
    let offsets = vec![with(0, "x".repeat(4_096)), with(1, "x".repeat(4_097)), with(2, "é".repeat(4_096))];
    let changes = harness.groups.commit(Commit { offsets, ..commit("", -1) }, harness.moment()).unwrap();
    assert_eq!(changes.results, [Ok(()), Err(GroupError::MetadataTooLarge), Ok(())]);
    assert_eq!(changes.records.len(), 2);
}

#[test]
fn offsets_that_members_consume_are_not_deleted() {
    let mut harness = Harness::prompt();
    let (ids, generation) = harness.stable(1);
    let other = TopicPartition::new("other", 0);
    let value = CommittedOffset::new(Offset(1), harness.wall());
    let mut both = commit(&ids[0], generation);
    both.offsets.push((other.clone(), value));
    take(&mut harness, both).unwrap();
    let partitions = [TopicPartition::new("t", 0), other.clone(), TopicPartition::new("other", 7)];
    let changes = harness.groups.plan_delete_offsets("g", &partitions).unwrap();
    assert_eq!(changes.results, [Err(GroupError::SubscribedToTopic), Ok(()), Ok(())]);
    let record = GroupRecord::Offset { group: "g".into(), partition: other, value: None };
    assert_eq!(changes.records, [record]);
    harness.leave(&ids[0], None).unwrap();
    let changes = harness.groups.plan_delete_offsets("g", &partitions).unwrap();
    assert_eq!(changes.results, [Ok(()), Ok(()), Ok(())]);
    let unknown = harness.groups.plan_delete_offsets("h", &partitions).unwrap_err();
    assert_eq!(unknown, GroupError::GroupNotFound("h".into()));
    assert_eq!(harness.groups.plan_delete_offsets("", &partitions).unwrap_err(), GroupError::InvalidGroup);
}

#[test]
fn groups_of_other_kinds_are_left_alone_while_they_have_members() {
    let mut harness = Harness::prompt();
    let request = JoinRequest { protocol_type: "connect".into(), knows_required_id: false, ..joining("") };
    let waiter = harness.join(request);
    harness.joined(waiter);
    let refused = harness.groups.plan_delete_offsets("g", &[TopicPartition::new("t", 0)]).unwrap_err();
    assert_eq!(refused, GroupError::NonEmptyGroup("g".into()));
}

#[test]
fn consumers_whose_subscription_cannot_be_read_may_consume_anything() {
    let mut harness = Harness::prompt();
    let protocols = vec![protocol("own", bytes::Bytes::from_static(b"?"))];
    let waiter = harness.join(JoinRequest { protocols, knows_required_id: false, ..joining("") });
    harness.joined(waiter);
    let changes = harness.groups.plan_delete_offsets("g", &[TopicPartition::new("t", 0)]).unwrap();
    assert_eq!(changes.results, [Err(GroupError::SubscribedToTopic)]);
}

#[test]
fn offsets_of_a_group_expire_together_once_it_has_been_empty_for_long() {
    let mut harness = Harness::prompt();
    let (ids, generation) = harness.stable(1);
    take(&mut harness, commit(&ids[0], generation)).unwrap();
    let week_ms = 7 * 24 * 3_600_000;
    for _ in 0..2 {
        harness.now = Timestamp(harness.now.0 + week_ms);
        harness.heartbeat(&ids[0], generation).unwrap();
        assert!(harness.groups.plan_expiry(harness.wall()).is_empty(), "in use, however old");
    }
    harness.leave(&ids[0], None).unwrap();
    let emptied = harness.wall();
    assert!(harness.groups.plan_expiry(Timestamp(emptied.0 + week_ms - 1)).is_empty());
    let records = harness.groups.plan_expiry(Timestamp(emptied.0 + week_ms));
    assert_eq!(records.len(), 2, "the offset, and the group");
    harness.log.extend(records.iter().cloned());
    records.iter().for_each(|record| harness.groups.apply(record, None));
    assert!(harness.groups.names().is_empty());
    harness.restart();
    assert!(harness.groups.names().is_empty());
}

#[test]
fn of_a_group_at_work_only_offsets_of_topics_it_has_dropped_expire() {
    let mut harness = Harness::prompt();
    let (ids, generation) = harness.stable(1);
    let mut both = commit(&ids[0], generation);
    both.offsets.push((TopicPartition::new("dropped", 0), CommittedOffset::new(Offset(1), harness.wall())));
    take(&mut harness, both).unwrap();
    let records = harness.groups.plan_expiry(Timestamp(harness.wall().0 + 7 * 24 * 3_600_000));
    let dropped = GroupRecord::Offset { group: "g".into(), partition: TopicPartition::new("dropped", 0), value: None };
    assert_eq!(records, [dropped]);
}

#[test]
fn an_offset_that_a_transaction_may_change_does_not_expire() {
    let mut harness = Harness::prompt();
    take(&mut harness, commit("", -1)).unwrap();
    let (partition, value) = commit("", -1).offsets.remove(0);
    let record = GroupRecord::Offset { group: "g".into(), partition, value: Some(value) };
    harness.groups.apply(&record, Some(ProducerId(1)));
    assert!(harness.groups.plan_expiry(Timestamp(i64::MAX)).is_empty());
    harness.groups.end_transaction(ProducerId(1), false);
    assert_eq!(harness.groups.plan_expiry(Timestamp(i64::MAX)).len(), 1);
}
