//! What a client may ask of a group, and what it may not: memory, names, timeouts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use logmill_protocol::Timestamp;

use super::harness::*;
use super::*;

#[test]
fn a_group_without_a_leader_is_not_looked_at_over_and_over() {
    for rebalance_timeout_ms in [i32::MIN, -1, 0, 1] {
        let mut harness = Harness::prompt();
        let request = |instance: &str| JoinRequest {
            instance: Some(instance.into()),
            new_member: format!("{instance}-1"),
            rebalance_timeout_ms,
            session_timeout_ms: 1_800_000,
            ..joining("")
        };
        harness.join(request("a"));
        harness.join(request("b"));
        let steady = harness.now;
        // Static members that do not come back are waited for until their sessions end.
        let mut looks = 0;
        while harness.now.0 < steady.0 + 60_000 {
            let Some(next) = harness.groups.next_deadline() else { break };
            harness.now = Timestamp(next.0.max(harness.now.0));
            while let Some(effects) = harness.groups.expire(harness.moment()) {
                harness.settle(effects);
                looks += 1;
                assert!(looks < 200, "{looks} looks within {} ms", harness.now.0 - steady.0);
            }
        }
    }
}

#[test]
fn ids_that_were_given_out_and_what_members_tell_each_other_are_bounded() {
    let limits = GroupConfig {
        max_pending: 3,
        max_group_bytes: 20_000,
        max_groups: 3,
        max_bytes: 60_000,
        ..Harness::prompt().config
    };
    let mut harness = Harness::new(limits);
    let new = |n: i32| JoinRequest { new_member: format!("m{n}"), ..joining("") };
    for n in 0..3 {
        let waiter = harness.join(new(n));
        assert_eq!(harness.join_refused(waiter).0, GroupError::MemberIdRequired);
    }
    let waiter = harness.join(new(3));
    assert_eq!(harness.join_refused(waiter).0, GroupError::GroupMaxSize, "too many ids are given out");

    let large = |group: &str, bytes: usize| JoinRequest {
        group: group.into(),
        new_member: "m".into(),
        knows_required_id: false,
        protocols: vec![protocol("range", vec![0; bytes].into())],
        ..joining("")
    };
    let waiter = harness.join(large("a", 30_000));
    assert_eq!(harness.join_refused(waiter).0, GroupError::GroupMaxSize, "too much for a group");
    for group in ["a", "b"] {
        let waiter = harness.join(large(group, 15_000));
        harness.joined(waiter);
    }
    let waiter = harness.join(large("c", 1));
    assert_eq!(harness.join_refused(waiter).0, GroupError::GroupMaxSize, "too many groups");
    let again = JoinRequest { member: "m".into(), ..large("a", 15_000) };
    let waiter = harness.join(again);
    harness.joined(waiter);

    for group in [String::new(), "x".repeat(1_025)] {
        let waiter = harness.join(JoinRequest { group, ..new(9) });
        assert_eq!(harness.join_refused(waiter).0, GroupError::InvalidGroup);
    }
    let waiter = harness.join(JoinRequest { group: "logmill-p".into(), ..new(9) });
    assert_eq!(harness.join_refused(waiter).0, GroupError::InconsistentProtocol, "that of a pipeline");
    let waiter = harness.join(JoinRequest { instance: Some("i".repeat(40_000)), ..new(9) });
    assert_eq!(harness.join_refused(waiter).0, GroupError::TextTooLong);
}
