//! Kafka's rules of membership, one invariant a test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use logmill_protocol::Timestamp;

use super::harness::*;
use super::*;

fn with_protocols(member: &str, names: &[&str]) -> JoinRequest {
    let protocols = names.iter().map(|name| protocol(name, subscription(&["t"]))).collect();
    JoinRequest { protocols, ..joining(member) }
}

fn static_member(instance: &str) -> JoinRequest {
    JoinRequest { instance: Some(instance.into()), new_member: String::new(), ..joining("") }
}

#[test]
fn a_join_that_no_group_can_take_is_refused() {
    let check = |change: &dyn Fn(&mut JoinRequest), expected: GroupError| {
        let mut harness = Harness::prompt();
        let mut request = joining("");
        change(&mut request);
        let waiter = harness.join(request);
        assert_eq!(harness.join_refused(waiter).0, expected);
    };
    check(&|r| r.group.clear(), GroupError::InvalidGroup);
    check(&|r| r.session_timeout_ms = 5_999, GroupError::InvalidSessionTimeout);
    check(&|r| r.session_timeout_ms = 1_800_001, GroupError::InvalidSessionTimeout);
    check(&|r| r.protocols.clear(), GroupError::InconsistentProtocol);
    check(&|r| r.protocol_type.clear(), GroupError::InconsistentProtocol);
    check(&|r| r.member = "stranger".into(), GroupError::UnknownMember);
}

#[test]
fn a_new_member_is_given_an_id_and_joins_with_it() {
    let mut harness = Harness::prompt();
    let (member, waiter) = harness.enter();
    let joined = harness.joined(waiter);
    assert_eq!((joined.generation, &joined.leader), (1, &member));
    assert_eq!(joined.protocol.as_deref(), Some("range"));
    assert_eq!(joined.members.len(), 1);

    let mut harness = Harness::prompt();
    let waiter = harness.join(JoinRequest { knows_required_id: false, ..joining("") });
    assert_eq!(harness.joined(waiter).generation, 1, "older clients join at once");
}

#[test]
fn an_id_that_is_not_used_within_the_session_timeout_is_taken_back() {
    let mut harness = Harness::prompt();
    let waiter = harness.join(joining(""));
    let (_, member) = harness.join_refused(waiter);
    harness.pass(i64::from(SESSION_MS));
    let waiter = harness.join(joining(&member));
    assert_eq!(harness.join_refused(waiter).0, GroupError::UnknownMember);
    assert!(harness.groups.names().is_empty());
}

#[test]
fn the_first_generation_waits_for_more_members_as_long_as_they_come() {
    let mut harness = Harness::new(GroupConfig::default());
    let (_, first) = harness.enter();
    harness.pass(2_999);
    assert!(harness.join_reply(first).is_none());
    let (_, second) = harness.enter();
    harness.pass(1);
    assert!(harness.join_reply(first).is_none(), "another one came: the wait is extended");
    harness.pass(3_000);
    assert_eq!((harness.joined(first).generation, harness.joined(second).generation), (1, 1));
}

#[test]
fn a_member_that_joins_makes_the_others_rejoin() {
    let mut harness = Harness::prompt();
    let (ids, generation) = harness.stable(2);
    let (newcomer, waiting) = harness.enter();
    assert_eq!(harness.state(), Some(GroupState::PreparingRebalance));
    for id in &ids {
        assert_eq!(harness.heartbeat(id, generation), Err(GroupError::RebalanceInProgress));
    }
    let first = harness.join(joining(&ids[0]));
    assert!(harness.join_reply(waiting).is_none(), "one is missing");
    let second = harness.join(joining(&ids[1]));
    let (a, b, c) = (harness.joined(first), harness.joined(second), harness.joined(waiting));
    assert_eq!([a.generation, b.generation, c.generation], [generation + 1; 3]);
    assert_eq!([&a.leader, &b.leader, &c.leader], [&ids[0]; 3]);
    let mut members: Vec<_> = a.members.iter().map(|peer| peer.member.clone()).collect();
    members.sort();
    let mut expected = vec![ids[0].clone(), ids[1].clone(), newcomer];
    expected.sort();
    assert_eq!(members, expected, "the leader sees everyone");
    assert!(b.members.is_empty() && c.members.is_empty(), "the others see nobody");
}

#[test]
fn members_that_do_not_rejoin_in_time_are_out() {
    let mut harness = Harness::prompt();
    let (ids, generation) = harness.stable(2);
    let (_, waiting) = harness.enter();
    // The leader stays alive, and busy.
    for _ in 0..REBALANCE_MS / SESSION_MS {
        assert!(harness.join_reply(waiting).is_none());
        let _ = harness.heartbeat(&ids[0], generation);
        let _ = harness.heartbeat(&ids[1], generation);
        harness.pass(i64::from(SESSION_MS) - 1);
    }
    harness.pass(10);
    let joined = harness.joined(waiting);
    assert_eq!((joined.generation, joined.members.len()), (generation + 1, 1), "and leads itself");
    assert_eq!(harness.heartbeat(&ids[0], generation), Err(GroupError::UnknownMember));
}

#[test]
fn a_member_that_falls_silent_is_out_and_the_others_rebalance() {
    let mut harness = Harness::prompt();
    let (ids, generation) = harness.stable(2);
    harness.pass(i64::from(SESSION_MS) - 1);
    harness.heartbeat(&ids[0], generation).unwrap();
    harness.pass(1);
    assert_eq!(harness.heartbeat(&ids[1], generation), Err(GroupError::UnknownMember));
    assert_eq!(harness.heartbeat(&ids[0], generation), Err(GroupError::RebalanceInProgress));
    let waiter = harness.join(joining(&ids[0]));
    assert_eq!(harness.joined(waiter).generation, generation + 1);
}

#[test]
fn nobody_expires_while_waiting_for_the_others() {
    let mut harness = Harness::prompt();
    let (ids, generation) = harness.stable(2);
    let leader = harness.join(joining(&ids[0]));
    for _ in 0..5 {
        let _ = harness.heartbeat(&ids[1], generation);
        harness.pass(i64::from(SESSION_MS) - 1);
    }
    assert!(harness.join_reply(leader).is_none());
    let other = harness.join(joining(&ids[1]));
    assert_eq!(harness.joined(other).generation, generation + 1);
    assert_eq!(harness.joined(leader).members.len(), 2);
    // Waiting for the leader's assignment is waiting as well.
    let follower = harness.sync(&ids[1], generation + 1, &[]);
    for _ in 0..3 {
        harness.heartbeat(&ids[0], generation + 1).unwrap();
        harness.pass(i64::from(SESSION_MS) - 1);
    }
    harness.sync(&ids[0], generation + 1, &[(&ids[1], "x")]);
    assert_eq!(harness.assignment(follower), "x");
    harness.pass(i64::from(SESSION_MS) - 1);
    harness.heartbeat(&ids[1], generation + 1).unwrap();
}

#[test]
fn a_new_member_whose_client_may_have_gone_while_it_waited_is_given_up() {
    let mut harness = Harness::prompt();
    let patient = JoinRequest { knows_required_id: false, rebalance_timeout_ms: 1_000_000, ..joining("") };
    let waiter = harness.join(patient);
    let member = harness.joined(waiter).member;
    harness.sync(&member, 1, &[]);
    let (_, waiting) = harness.enter();
    // The other one lives, and does not rejoin.
    for _ in 0..50 {
        assert!(harness.answer(waiting).is_none());
        assert_eq!(harness.heartbeat(&member, 1), Err(GroupError::RebalanceInProgress));
        harness.pass(6_000);
    }
    assert_eq!(harness.join_refused(waiting).0, GroupError::UnknownMember);
}

#[test]
fn a_rejoin_without_news_gets_the_generation_as_it_is() {
    let mut harness = Harness::prompt();
    let (ids, generation) = harness.stable(2);
    let follower = harness.join(joining(&ids[1]));
    assert_eq!(harness.joined(follower).generation, generation, "no rebalance");
    assert_eq!(harness.state(), Some(GroupState::Stable));
    let changed = harness.join(with_protocols(&ids[1], &["range", "roundrobin"]));
    assert_eq!(harness.state(), Some(GroupState::PreparingRebalance), "it has something new to say");
    let leader = harness.join(joining(&ids[0]));
    assert_eq!(harness.joined(changed).generation, generation + 1);
    assert_eq!(harness.joined(leader).members.len(), 2);
    // The answers were lost: both ask again while assignments are awaited.
    let (again, leader) =
        (harness.join(with_protocols(&ids[1], &["range", "roundrobin"])), harness.join(joining(&ids[0])));
    assert_eq!(harness.joined(again).generation, generation + 1);
    assert_eq!(harness.joined(leader).members.len(), 2, "the leader must be able to assign");
}

#[test]
fn a_leader_that_rejoins_causes_a_rebalance() {
    let mut harness = Harness::prompt();
    let (ids, generation) = harness.stable(2);
    let leader = harness.join(joining(&ids[0]));
    assert_eq!(harness.state(), Some(GroupState::PreparingRebalance));
    let follower = harness.join(joining(&ids[1]));
    assert_eq!(harness.joined(leader).generation, generation + 1);
    assert_eq!(harness.joined(follower).generation, generation + 1);
}

#[test]
fn a_join_repeated_while_it_waits_replaces_the_first() {
    let mut harness = Harness::prompt();
    let (ids, _) = harness.stable(2);
    let first = harness.join(joining(&ids[0]));
    let second = harness.join(joining(&ids[0]));
    assert_eq!(harness.join_refused(first).0, GroupError::RebalanceInProgress);
    harness.join(joining(&ids[1]));
    harness.joined(second);
}

#[test]
fn the_protocol_is_the_one_most_members_prefer_among_those_all_support() {
    let check = |members: &[&[&str]], expected: &str| {
        let mut harness = Harness::new(GroupConfig::default());
        let ids: Vec<_> = members
            .iter()
            .map(|names| {
                let waiter = harness.join(with_protocols("", names));
                let (_, id) = harness.join_refused(waiter);
                harness.join(with_protocols(&id, names))
            })
            .collect();
        harness.pass(60_000);
        assert_eq!(harness.joined(ids[0]).protocol.as_deref(), Some(expected));
    };
    check(&[&["range"]], "range");
    check(&[&["a", "b"], &["b", "a"], &["b", "a"]], "b");
    check(&[&["a", "b"], &["a", "b"], &["b", "c"]], "b");
    check(&[&["a", "b", "c"], &["c", "b"]], "b");
}

#[test]
fn a_member_that_shares_no_protocol_with_the_others_is_refused() {
    let mut harness = Harness::prompt();
    harness.stable(1);
    let mut check = |request: JoinRequest| {
        let waiter = harness.join(request);
        assert_eq!(harness.join_refused(waiter).0, GroupError::InconsistentProtocol);
    };
    check(with_protocols("", &["sticky"]));
    check(JoinRequest { protocol_type: "connect".into(), ..joining("") });
    check(JoinRequest { protocol_type: LOCAL.into(), ..joining("") });
}

#[test]
fn a_sync_is_answered_when_the_leader_has_assigned() {
    let mut harness = Harness::prompt();
    let (ids, generation) = harness.stable(2);
    let joins = [harness.join(joining(&ids[0])), harness.join(joining(&ids[1]))];
    joins.into_iter().for_each(|waiter| drop(harness.joined(waiter)));
    let generation = generation + 1;
    let follower = harness.sync(&ids[1], generation, &[(&ids[1], "a follower's own idea")]);
    assert!(harness.answer(follower).is_none());
    let leader = harness.sync(&ids[0], generation, &[(&ids[0], "a"), (&ids[1], "b"), ("stranger", "c")]);
    assert_eq!((harness.assignment(leader), harness.assignment(follower)), ("a".into(), "b".into()));
    let again = harness.sync(&ids[1], generation, &[]);
    assert_eq!(harness.assignment(again), "b", "as often as it asks");
    // Whom the leader forgets is assigned nothing.
    let joins = [harness.join(joining(&ids[0])), harness.join(joining(&ids[1]))];
    joins.into_iter().for_each(|waiter| drop(harness.joined(waiter)));
    let follower = harness.sync(&ids[1], generation + 1, &[]);
    harness.sync(&ids[0], generation + 1, &[(&ids[0], "all")]);
    assert_eq!(harness.assignment(follower), "");
}

#[test]
fn a_sync_that_is_out_of_place_is_refused() {
    let mut harness = Harness::prompt();
    let (ids, generation) = harness.stable(1);
    let request = SyncRequest {
        group: "g".into(),
        member: ids[0].clone(),
        instance: None,
        generation,
        protocol_type: Some("consumer".into()),
        protocol: Some("range".into()),
        assignments: std::collections::HashMap::new(),
        waiter: Waiter(0),
    };
    let mut check = |request: SyncRequest, expected: Result<(), GroupError>| {
        let waiter = harness.sync_with(request);
        assert_eq!(harness.sync_reply(waiter).unwrap().map(drop), expected);
    };
    let illegal = GroupError::IllegalGeneration { group: "g".into(), generation: generation + 1 };
    check(request.clone(), Ok(()));
    check(SyncRequest { group: String::new(), ..request.clone() }, Err(GroupError::InvalidGroup));
    check(SyncRequest { group: "h".into(), ..request.clone() }, Err(GroupError::UnknownMember));
    check(SyncRequest { member: "x".into(), ..request.clone() }, Err(GroupError::UnknownMember));
    check(SyncRequest { instance: Some("i".into()), ..request.clone() }, Err(GroupError::UnknownMember));
    check(SyncRequest { generation: generation + 1, ..request.clone() }, Err(illegal));
    let other = Some("other".to_owned());
    check(SyncRequest { protocol_type: other.clone(), ..request.clone() }, Err(GroupError::InconsistentProtocol));
    check(SyncRequest { protocol: other, ..request.clone() }, Err(GroupError::InconsistentProtocol));
    harness.enter();
    let waiter = harness.sync_with(request);
    assert_eq!(harness.sync_reply(waiter).unwrap(), Err(GroupError::RebalanceInProgress));
}

#[test]
fn members_that_never_ask_for_their_assignment_are_out() {
    let mut harness = Harness::prompt();
    let (ids, generation) = harness.stable(2);
    let joins = [harness.join(joining(&ids[0])), harness.join(joining(&ids[1]))];
    joins.into_iter().for_each(|waiter| drop(harness.joined(waiter)));
    let generation = generation + 1;
    let follower = harness.sync(&ids[1], generation, &[]);
    // The leader lives, but does not assign.
    for _ in 0..REBALANCE_MS / 9_000 + 1 {
        let _ = harness.heartbeat(&ids[0], generation);
        harness.pass(9_000);
    }
    assert_eq!(harness.sync_reply(follower).unwrap(), Err(GroupError::RebalanceInProgress));
    assert_eq!(harness.heartbeat(&ids[0], generation), Err(GroupError::UnknownMember));
    let waiter = harness.join(joining(&ids[1]));
    assert_eq!(harness.joined(waiter).leader, ids[1]);
}

#[test]
fn an_assignment_that_cannot_be_written_is_taken_back() {
    let mut harness = Harness::prompt();
    let (ids, generation) = harness.stable(2);
    let joins = [harness.join(joining(&ids[0])), harness.join(joining(&ids[1]))];
    joins.into_iter().for_each(|waiter| drop(harness.joined(waiter)));
    let follower = harness.sync(&ids[1], generation + 1, &[]);
    harness.log_refuses = true;
    let leader = harness.sync(&ids[0], generation + 1, &[(&ids[0], "a"), (&ids[1], "b")]);
    assert_eq!(harness.sync_reply(follower).unwrap(), Err(GroupError::NotWritten));
    assert_eq!(harness.sync_reply(leader).unwrap(), Err(GroupError::NotWritten));
    assert_eq!(harness.state(), Some(GroupState::PreparingRebalance));
}

#[test]
fn leaving_is_told_of_each() {
    let mut harness = Harness::prompt();
    let (ids, generation) = harness.stable(2);
    assert_eq!(harness.leave("stranger", None), Err(GroupError::UnknownMember));
    assert_eq!(harness.leave("", None), Err(GroupError::UnknownMember));
    assert_eq!(harness.leave(&ids[0], Some("i")), Err(GroupError::UnknownMember));
    assert_eq!(harness.state(), Some(GroupState::Stable));
    harness.leave(&ids[0], None).unwrap();
    assert_eq!(harness.heartbeat(&ids[1], generation), Err(GroupError::RebalanceInProgress));
    let waiter = harness.join(joining(&ids[1]));
    let joined = harness.joined(waiter);
    assert_eq!((joined.generation, joined.leader), (generation + 1, ids[1].clone()), "the other leads");
    harness.leave(&ids[1], None).unwrap();
    assert_eq!(harness.state(), Some(GroupState::Empty));
    let GroupRecord::Group { value: Some(meta), .. } = harness.log.last().unwrap() else { panic!() };
    assert_eq!((meta.generation, meta.members.len(), &meta.leader), (generation + 2, 0, &None));
}

#[test]
fn a_member_that_leaves_while_its_join_waits_is_told() {
    let mut harness = Harness::prompt();
    harness.stable(1);
    let (member, waiting) = harness.enter();
    harness.leave(&member, None).unwrap();
    assert_eq!(harness.join_refused(waiting), (GroupError::UnknownMember, String::new()));
    let asked = harness.join(joining(""));
    let (_, pending) = harness.join_refused(asked);
    harness.leave(&pending, None).unwrap();
    let waiter = harness.join(joining(&pending));
    assert_eq!(harness.join_refused(waiter).0, GroupError::UnknownMember);
}

#[test]
fn a_group_takes_so_many_members() {
    let config = GroupConfig { initial_rebalance_delay_ms: 0, max_size: 2, ..GroupConfig::default() };
    let mut harness = Harness::new(config);
    let (ids, _) = harness.stable(2);
    let waiter = harness.join(joining(""));
    assert_eq!(harness.join_refused(waiter).0, GroupError::GroupMaxSize);
    let waiter = harness.join(joining(&ids[1]));
    harness.joined(waiter);
}

fn two_static(harness: &mut Harness) -> (String, String, i32) {
    let first = harness.join(static_member("a"));
    let leader = harness.joined(first).member;
    let second = harness.join(static_member("b"));
    let rejoin = harness.join(JoinRequest { instance: Some("a".into()), ..joining(&leader) });
    let generation = harness.joined(rejoin).generation;
    let follower = harness.joined(second).member;
    let sync = harness.sync(&leader, generation, &[(&leader, "A"), (&follower, "B")]);
    assert_eq!(harness.assignment(sync), "A");
    let sync = harness.sync(&follower, generation, &[]);
    assert_eq!(harness.assignment(sync), "B");
    (leader, follower, generation)
}

#[test]
fn a_static_member_comes_back_without_a_rebalance_and_its_old_id_is_fenced() {
    let mut harness = Harness::prompt();
    let (leader, follower, generation) = two_static(&mut harness);
    let back = harness.join(static_member("b"));
    let joined = harness.joined(back);
    assert_eq!((joined.generation, &joined.leader), (generation, &leader));
    assert_ne!(joined.member, follower);
    assert!(!joined.skip_assignment && joined.members.is_empty());
    assert_eq!(harness.state(), Some(GroupState::Stable));
    let sync = harness.sync(&joined.member, generation, &[]);
    assert_eq!(harness.assignment(sync), "B", "it goes on with what it was assigned");
    let fenced = harness.heartbeat_as(&follower, Some("b"), generation);
    assert_eq!(fenced, Err(GroupError::FencedInstance));
    assert_eq!(harness.leave(&follower, Some("b")), Err(GroupError::FencedInstance));
    let rejoin = harness.join(JoinRequest { instance: Some("b".into()), ..joining(&follower) });
    assert_eq!(harness.join_refused(rejoin).0, GroupError::FencedInstance);
    // The new id is in the log.
    harness.restart();
    harness.heartbeat_as(&joined.member, Some("b"), generation).unwrap();
}

#[test]
fn a_static_leader_that_comes_back_keeps_the_assignment() {
    let mut harness = Harness::prompt();
    let (leader, _, generation) = two_static(&mut harness);
    let back = harness.join(static_member("a"));
    let joined = harness.joined(back);
    assert_eq!((joined.generation, &joined.leader), (generation, &joined.member));
    assert!(joined.skip_assignment);
    assert_eq!(joined.members.len(), 2);
    // A client that cannot be told to skip it is made to believe that another leads.
    let back = harness.join(JoinRequest { knows_skipped_assignment: false, ..static_member("a") });
    let again = harness.joined(back);
    assert_eq!((&again.leader, again.skip_assignment), (&joined.member, false));
    assert_ne!(again.leader, again.member);
    assert_ne!(again.leader, leader);
    assert!(again.members.is_empty());
}

#[test]
fn a_static_member_that_comes_back_with_another_protocol_causes_a_rebalance() {
    let mut harness = Harness::prompt();
    let first = harness.join(JoinRequest { instance: Some("a".into()), ..with_protocols("", &["x", "y"]) });
    let leader = harness.joined(first).member;
    harness.sync(&leader, 1, &[]);
    let back = harness.join(JoinRequest { instance: Some("a".into()), ..with_protocols("", &["y", "x"]) });
    let joined = harness.joined(back);
    assert_eq!((joined.generation, joined.protocol.as_deref()), (2, Some("y")));
}

#[test]
fn whoever_waits_under_a_static_members_old_id_is_fenced() {
    let mut harness = Harness::prompt();
    let (leader, _, _) = two_static(&mut harness);
    let waiting = harness.join(JoinRequest { instance: Some("a".into()), ..joining(&leader) });
    assert!(harness.answer(waiting).is_none());
    let other = harness.join(static_member("a"));
    assert_eq!(harness.join_refused(waiting), (GroupError::FencedInstance, leader));
    assert!(harness.answer(other).is_none(), "the rebalance goes on");
}

#[test]
fn a_static_member_that_starts_over_while_it_waits_may_wait_on() {
    let mut harness = Harness::prompt();
    let (ids, generation) = harness.stable(1);
    harness.join(static_member("a"));
    let again = harness.join(static_member("a"));
    for _ in 0..3 {
        let _ = harness.heartbeat(&ids[0], generation);
        harness.pass(i64::from(SESSION_MS) - 1);
    }
    let leader = harness.join(joining(&ids[0]));
    assert_eq!(harness.joined(again).generation, generation + 1);
    assert_eq!(harness.joined(leader).members.len(), 2);
}

#[test]
fn a_static_members_new_id_that_cannot_be_written_is_not_given_out() {
    let mut harness = Harness::prompt();
    let (_, follower, generation) = two_static(&mut harness);
    harness.log_refuses = true;
    let back = harness.join(static_member("b"));
    assert_eq!(harness.join_refused(back).0, GroupError::NotWritten);
    harness.heartbeat_as(&follower, Some("b"), generation).unwrap();
}

#[test]
fn static_members_are_waited_for_until_their_sessions_end_and_leave_by_name() {
    let mut harness = Harness::prompt();
    let (leader, follower, generation) = two_static(&mut harness);
    let waiting = harness.join(JoinRequest { instance: Some("a".into()), ..joining(&leader) });
    harness.pass(i64::from(SESSION_MS) - 1);
    let alive = harness.heartbeat_as(&follower, Some("b"), generation);
    assert_eq!(alive, Err(GroupError::RebalanceInProgress));
    harness.pass(i64::from(SESSION_MS));
    assert_eq!(harness.joined(waiting).members.len(), 1);
    harness.leave("", Some("a")).unwrap();
    assert_eq!(harness.leave("", Some("a")), Err(GroupError::UnknownMember));
    assert_eq!(harness.state(), Some(GroupState::Empty));
}

#[test]
fn members_go_on_after_a_restart_without_a_rebalance() {
    let mut harness = Harness::prompt();
    let (ids, generation) = harness.stable(2);
    harness.pass(i64::from(SESSION_MS) - 1);
    let before = harness.groups.describe("g");
    // The broker is away for longer than their sessions.
    harness.now = Timestamp(harness.now.0 + 1_000_000);
    harness.restart();
    assert_eq!(harness.groups.describe("g"), before);
    for id in &ids {
        harness.heartbeat(id, generation).unwrap();
    }
    let sync = harness.sync(&ids[1], generation, &[]);
    assert_eq!(harness.assignment(sync), "1");
    harness.pass(i64::from(SESSION_MS));
    assert_eq!(harness.state(), Some(GroupState::Empty), "sessions end as ever");
}

#[test]
fn kafkas_members_and_the_engines_do_not_mix() {
    let mut harness = Harness::prompt();
    harness.stable(1);
    let refused = harness.groups.plan_local_join("g", "worker", "w-1".into(), harness.now);
    assert_eq!(refused, Err(GroupError::InconsistentProtocol));

    let mut harness = Harness::prompt();
    let local = harness.groups.plan_local_join("g", "worker", "w-1".into(), harness.now).unwrap();
    harness.groups.apply(&local.record, None);
    let waiter = harness.join(joining(""));
    assert_eq!(harness.join_refused(waiter).0, GroupError::InconsistentProtocol);
    assert_eq!(harness.leave("w-1", None), Err(GroupError::UnknownMember), "nor are the engine's sent away");
    assert_eq!(harness.leave("", Some("worker")), Err(GroupError::UnknownMember));
    harness.groups.check_member(&local.membership).unwrap();
    let record = harness.groups.plan_local_leave(&local.membership, harness.wall()).unwrap();
    harness.groups.apply(&record, None);
    let (_, waiter) = harness.enter();
    assert_eq!(harness.joined(waiter).generation, 3, "an empty group is anyone's");
}

#[test]
fn a_thousand_idle_groups_are_looked_at_only_when_something_is_due() {
    let mut harness = Harness::prompt();
    for n in 0..1_000 {
        let request = JoinRequest { group: format!("g{n}"), knows_required_id: false, ..joining("") };
        let waiter = harness.join(request);
        harness.joined(waiter);
    }
    assert!(harness.groups.expire(harness.moment()).is_none());
    harness.now = Timestamp(harness.now.0 + i64::from(SESSION_MS));
    let mut looks = 0;
    while let Some(effects) = harness.groups.expire(harness.moment()) {
        harness.settle(effects);
        looks += 1;
    }
    assert_eq!(looks, 1_000);
    assert_eq!(harness.groups.next_deadline(), None);
}
