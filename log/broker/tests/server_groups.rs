//! Groups over the wire: every API, every version, several members at once, and what is left after a restart.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use kafka_protocol::messages::{
    DeleteGroupsRequest, DescribeGroupsRequest, FindCoordinatorRequest, HeartbeatRequest, LeaveGroupRequest,
    ListGroupsRequest, OffsetDeleteRequest, SyncGroupResponse,
};
use kafka_protocol::protocol::StrBytes;
use logmill_protocol::Offset;

use support::client::Client;
use support::groups::{Fixture, alone, commit, enter, error, fetch, group, join, start, sync, text, topic_name};
use support::{topic, tp};

fn heartbeat(name: &str, member: &StrBytes, generation: i32) -> HeartbeatRequest {
    let request = HeartbeatRequest::default().with_group_id(group(name));
    request.with_member_id(member.clone()).with_generation_id(generation)
}

#[tokio::test]
async fn the_coordinator_of_every_group_is_this_node() {
    let mut f = start().await;
    for version in 0..=6 {
        let request = FindCoordinatorRequest::default();
        if version < 4 {
            let found = f.client.call(version, &request.with_key(text("g"))).await;
            assert_eq!((found.error_code, found.node_id.0, found.port), (0, 1, 29092));
            assert_eq!(found.host.as_str(), "logmill.example");
        } else {
            let found = f.client.call(version, &request.with_coordinator_keys(vec![text("g"), text("h")])).await;
            let keys: Vec<_> = found.coordinators.iter().map(|c| (c.key.as_str(), c.node_id.0, c.error_code)).collect();
            assert_eq!(keys, [("g", 1, 0), ("h", 1, 0)]);
        }
        let unsupported = "transactions over the Kafka protocol are not supported yet";
        for (key_type, refusal, reason) in [
            (1, ResponseError::ClusterAuthorizationFailed, unsupported),
            (2, ResponseError::InvalidRequest, "there are no coordinators of type 2"),
        ] {
            let request = FindCoordinatorRequest::default().with_key_type(key_type);
            let (code, message) = match version {
                0 => continue,
                1..4 => {
                    let found = f.client.call(version, &request.with_key(text("id"))).await;
                    (found.error_code, found.error_message)
                }
                _ => {
                    let found = f.client.call(version, &request.with_coordinator_keys(vec![text("id")])).await;
                    let found = found.coordinators.into_iter().next().unwrap();
                    (found.error_code, found.error_message)
                }
            };
            assert_eq!(error(code), Some(refusal));
            assert_eq!(message.unwrap().as_str(), reason);
        }
    }
}

#[tokio::test]
async fn a_member_lives_its_life_in_every_version() {
    let mut f = start().await;
    for version in 0..=9 {
        let name = format!("g{version}");
        let mut request = join(&name, "");
        if version == 0 {
            // Has no rebalance timeout of its own.
            request.rebalance_timeout_ms = -1;
        }
        let mut joined = f.client.call(version, &request).await;
        if version >= 4 {
            assert_eq!(error(joined.error_code), Some(ResponseError::MemberIdRequired));
            joined = f.client.call(version, &request.with_member_id(joined.member_id)).await;
        }
        assert_eq!((joined.error_code, joined.generation_id, &joined.leader), (0, 1, &joined.member_id));
        assert!(joined.member_id.starts_with("test-"));
        assert_eq!(joined.protocol_name.unwrap().as_str(), "range");
        assert_eq!(joined.protocol_type.map(|t| t.to_string()), (version >= 7).then(|| "consumer".to_owned()));
        assert_eq!(joined.members.len(), 1);

        let member = joined.member_id;
        let mut request = sync(&name, &member, 1, &[(&member, "all")]);
        let sync_version = version.min(5);
        if sync_version >= 5 {
            request = request.with_protocol_type(Some(text("consumer"))).with_protocol_name(Some(text("range")));
        }
        let synced = f.client.call(sync_version, &request).await;
        assert_eq!((synced.error_code, &synced.assignment[..]), (0, &b"all"[..]));
        let lives = f.client.call(version.min(4), &heartbeat(&name, &member, 1)).await;
        assert_eq!(lives.error_code, 0);

        let request = LeaveGroupRequest::default().with_group_id(group(&name));
        let leave_version = version.min(5);
        let request = match leave_version < 3 {
            true => request.with_member_id(member),
            false => request.with_members(vec![MemberIdentity::default().with_member_id(member)]),
        };
        for expected in [None, Some(ResponseError::UnknownMemberId)] {
            let left = f.client.call(leave_version, &request).await;
            let code = left.members.first().map_or(left.error_code, |member| member.error_code);
            assert_eq!(error(code), expected, "version {leave_version}");
        }
    }
}

#[tokio::test]
async fn refusals_are_told_in_every_version() {
    let mut f = start().await;
    for version in 0..=9 {
        let refused = f.client.call(version, &join("", "")).await;
        assert_eq!((error(refused.error_code), refused.generation_id), (Some(ResponseError::InvalidGroupId), -1));
        assert_eq!(refused.protocol_name.as_deref(), Some(""), "older clients cannot read null");
        let refused = f.client.call(version, &join("g", "stranger")).await;
        assert_eq!(error(refused.error_code), Some(ResponseError::UnknownMemberId));
        assert_eq!(refused.member_id.as_str(), "stranger");
        let refused = f.client.call(version, &join("g", "").with_session_timeout_ms(0)).await;
        assert_eq!(error(refused.error_code), Some(ResponseError::InvalidSessionTimeout));
    }
    for version in 0..=5 {
        let refused = f.client.call(version, &sync("", &text("m"), 1, &[])).await;
        assert_eq!(error(refused.error_code), Some(ResponseError::InvalidGroupId));
        let refused = f.client.call(version, &sync("g", &text("m"), 1, &[])).await;
        assert_eq!(error(refused.error_code), Some(ResponseError::UnknownMemberId));
    }
    for version in 0..=4 {
        let refused = f.client.call(version, &heartbeat("g", &text("m"), 1)).await;
        assert_eq!(error(refused.error_code), Some(ResponseError::UnknownMemberId));
    }
    for version in 0..=5 {
        let refused = f.client.call(version, &LeaveGroupRequest::default()).await;
        assert_eq!(error(refused.error_code), Some(ResponseError::InvalidGroupId));
    }
}

/// Two members of group `g`, each on a connection of its own: (leader's client, other's client, leader, other,
/// generation).
async fn two(f: &Fixture) -> (Client, Client, StrBytes, StrBytes, i32) {
    let (mut first, mut second) = (Client::connect(&f.server).await, Client::connect(&f.server).await);
    let (leader, generation) = alone(&mut first, "g").await;
    let joining = tokio::spawn(async move {
        let joined = enter(&mut second, "g").await;
        (second, joined)
    });
    loop {
        // The other one's join begins a rebalance some time.
        let lives = first.call(4, &heartbeat("g", &leader, generation)).await;
        match error(lives.error_code) {
            None => tokio::task::yield_now().await,
            Some(ResponseError::RebalanceInProgress) => break,
            Some(other) => panic!("{other:?}"),
        }
    }
    let rejoined = first.call(9, &join("g", &leader)).await;
    let (mut second, joined) = joining.await.unwrap();
    let (other, generation) = (joined.member_id, joined.generation_id);
    assert_eq!((rejoined.generation_id, &rejoined.leader, &joined.leader), (generation, &leader, &leader));
    assert_eq!((rejoined.members.len(), joined.members.len()), (2, 0));
    let follower = tokio::spawn({
        let request = sync("g", &other, generation, &[]);
        async move {
            let synced = second.call(5, &request).await;
            (second, synced)
        }
    });
    let assignments = [(&leader, "left"), (&other, "right")];
    let synced = first.call(5, &sync("g", &leader, generation, &assignments)).await;
    let (second, followed): (Client, SyncGroupResponse) = follower.await.unwrap();
    assert_eq!((&synced.assignment[..], &followed.assignment[..]), (&b"left"[..], &b"right"[..]));
    assert_eq!(followed.protocol_name.unwrap().as_str(), "range");
    (first, second, leader, other, generation)
}

#[tokio::test]
async fn members_share_a_group_and_go_on_in_it_after_a_restart() {
    let f = start().await;
    let (first, second, leader, other, generation) = two(&f).await;
    drop((first, second));
    let mut f = f.restart().await;
    for (member, assignment) in [(&leader, "left"), (&other, "right")] {
        let lives = f.client.call(4, &heartbeat("g", member, generation)).await;
        assert_eq!(lives.error_code, 0);
        let synced = f.client.call(5, &sync("g", member, generation, &[])).await;
        assert_eq!((synced.error_code, &synced.assignment[..]), (0, assignment.as_bytes()));
    }
    let described = f.client.call(6, &DescribeGroupsRequest::default().with_groups(vec![group("g")])).await;
    let described = &described.groups[0];
    assert_eq!((described.group_state.as_str(), described.protocol_data.as_str()), ("Stable", "range"));
    assert_eq!(described.members.len(), 2);
    assert_eq!(described.members[0].client_id.as_str(), "test");
    assert_eq!(described.members[0].client_host.as_str(), "/127.0.0.1");
}

#[tokio::test]
async fn a_member_that_falls_silent_makes_room_without_anyone_asking() {
    let mut f = start().await;
    let short = join("g", "").with_session_timeout_ms(50);
    let joined = f.client.call(3, &short).await;
    f.client.call(3, &sync("g", &joined.member_id, 1, &[])).await;
    // Waits until the first one's session has ended, and no longer than its rebalance timeout of a minute.
    let next = enter(&mut f.client, "g").await;
    assert_eq!((next.error_code, &next.leader), (0, &next.member_id));
    assert_eq!(next.members.len(), 1);
}

#[tokio::test]
async fn whoever_waits_for_others_is_told_when_the_server_drains() {
    let f = start().await;
    let (_first, mut second, _, _, _) = two(&f).await;
    let third = join("g", "");
    let waiting = tokio::spawn(async move {
        let id = second.call(9, &third).await.member_id;
        second.call(9, &join("g", &id)).await
    });
    let mut looking = Client::connect(&f.server).await;
    loop {
        let request = DescribeGroupsRequest::default().with_groups(vec![group("g")]);
        match looking.call(5, &request).await.groups[0].group_state.as_str() {
            "PreparingRebalance" => break,
            _ => tokio::task::yield_now().await,
        }
    }
    drop(looking);
    f.server.shutdown().await;
    let told = waiting.await.unwrap();
    assert_eq!(error(told.error_code), Some(ResponseError::CoordinatorNotAvailable));
    f.broker.close().await.unwrap();
}

#[tokio::test]
async fn static_members_are_told_apart_by_their_instance() {
    let mut f = start().await;
    let request = join("g", "").with_group_instance_id(Some(text("i")));
    let joined = f.client.call(9, &request).await;
    assert!(joined.member_id.starts_with("i-"));
    let old = joined.member_id;
    f.client.call(5, &sync("g", &old, 1, &[(&old, "all")])).await;
    let back = f.client.call(9, &request).await;
    assert_eq!((back.error_code, back.generation_id, back.skip_assignment), (0, 1, true));
    assert_eq!(back.members[0].group_instance_id.as_deref(), Some("i"));
    let fenced = heartbeat("g", &old, 1).with_group_instance_id(Some(text("i")));
    assert_eq!(error(f.client.call(4, &fenced).await.error_code), Some(ResponseError::FencedInstanceId));
    let leaver = MemberIdentity::default().with_group_instance_id(Some(text("i")));
    let request = LeaveGroupRequest::default().with_group_id(group("g")).with_members(vec![leaver.clone(), leaver]);
    let left = f.client.call(5, &request).await;
    let codes: Vec<_> = left.members.iter().map(|member| error(member.error_code)).collect();
    assert_eq!(codes, [None, Some(ResponseError::UnknownMemberId)]);
}

#[tokio::test]
async fn groups_are_listed_and_described_in_every_version() {
    let mut f = start().await;
    let (member, generation) = alone(&mut f.client, "busy").await;
    f.client.call(9, &commit("simple", &[("t", 0, 5)])).await;
    for version in 0..=5 {
        let listed = f.client.call(version, &ListGroupsRequest::default()).await;
        let rows: Vec<_> = listed
            .groups
            .iter()
            .map(|g| {
                (
                    g.group_id.to_string(),
                    g.protocol_type.to_string(),
                    g.group_state.to_string(),
                    g.group_type.to_string(),
                )
            })
            .collect();
        let state = |state: &str| if version >= 4 { state.to_owned() } else { String::new() };
        let classic = || if version >= 5 { "classic".to_owned() } else { String::new() };
        assert_eq!(
            rows,
            [
                ("busy".to_owned(), "consumer".to_owned(), state("Stable"), classic()),
                ("simple".to_owned(), String::new(), state("Empty"), classic()),
            ]
        );
    }
    let mut check = async |states: &[&str], types: &[&str], expected: &[&str]| {
        let all = |texts: &[&str]| texts.iter().map(|t| text(t)).collect::<Vec<_>>();
        let request = ListGroupsRequest::default().with_states_filter(all(states)).with_types_filter(all(types));
        let listed = f.client.call(5, &request).await;
        assert_eq!(listed.groups.iter().map(|g| g.group_id.as_str()).collect::<Vec<_>>(), expected);
    };
    check(&["stable"], &[], &["busy"]).await;
    check(&["Empty", "Dead"], &["Classic"], &["simple"]).await;
    check(&[], &["consumer"], &[]).await;
    check(&["Nonsense"], &[], &[]).await;

    for version in 0..=6 {
        let groups = vec![group("busy"), group("simple"), group("unknown")];
        let request = DescribeGroupsRequest::default().with_groups(groups);
        let described = f.client.call(version, &request.with_include_authorized_operations(version >= 3)).await;
        let [busy, simple, unknown] = &described.groups[..] else { panic!() };
        assert_eq!((busy.group_state.as_str(), busy.protocol_type.as_str()), ("Stable", "consumer"));
        assert_eq!((busy.protocol_data.as_str(), busy.members.len()), ("range", 1));
        assert_eq!((&busy.members[0].member_id, &busy.members[0].member_assignment[..]), (&member, &b"all"[..]));
        assert_eq!(busy.authorized_operations, if version >= 3 { 3_400 } else { i32::MIN });
        assert_eq!((simple.error_code, simple.group_state.as_str(), simple.members.len()), (0, "Empty", 0));
        assert_eq!(unknown.group_state.as_str(), "Dead");
        let expected = (version >= 6).then_some(ResponseError::GroupIdNotFound);
        assert_eq!(error(unknown.error_code), expected);
        assert_eq!(unknown.error_message.is_some(), version >= 6);
    }
    f.client.call(9, &join("busy", &member)).await;
    let described = f.client.call(6, &DescribeGroupsRequest::default().with_groups(vec![group("busy")])).await;
    assert_eq!(described.groups[0].group_state.as_str(), "CompletingRebalance");
    assert!(described.groups[0].members[0].member_metadata.is_empty(), "only of a stable group");
    let lives = f.client.call(4, &heartbeat("busy", &member, generation + 1)).await;
    assert_eq!(lives.error_code, 0);
}

#[tokio::test]
async fn groups_and_offsets_are_deleted_when_nobody_uses_them() {
    let mut f = start().await;
    let (member, _) = alone(&mut f.client, "busy").await;
    f.broker.create_topic(topic("dropped", 1, &[])).await.unwrap();
    f.broker.commit_offsets("busy", &[(tp("t", 0), Offset(1)), (tp("dropped", 0), Offset(2))]).await.unwrap();
    let delete = |name: &str, topics: &[(&str, i32)]| {
        let topic = |(topic, partition): &(&str, i32)| {
            let partition = OffsetDeleteRequestPartition::default().with_partition_index(*partition);
            OffsetDeleteRequestTopic::default().with_name(topic_name(topic)).with_partitions(vec![partition])
        };
        let topics = topics.iter().map(topic).collect();
        OffsetDeleteRequest::default().with_group_id(group(name)).with_topics(topics)
    };
    let deleted = f.client.call(0, &delete("busy", &[("t", 0), ("dropped", 0), ("t", 9)])).await;
    let codes: Vec<_> = deleted.topics.iter().map(|topic| error(topic.partitions[0].error_code)).collect();
    let (subscribed, unknown) = (ResponseError::GroupSubscribedToTopic, ResponseError::UnknownTopicOrPartition);
    assert_eq!((deleted.error_code, codes), (0, vec![Some(subscribed), None, Some(unknown)]));
    let unknown = f.client.call(0, &delete("unknown", &[("t", 0)])).await;
    assert_eq!(error(unknown.error_code), Some(ResponseError::GroupIdNotFound));

    let names = ["busy", "unknown", "busy"];
    let request = DeleteGroupsRequest::default().with_groups_names(names.iter().map(|name| group(name)).collect());
    for version in 0..=2 {
        let deleted = f.client.call(version, &request).await;
        let codes: Vec<_> = deleted.results.iter().map(|group| error(group.error_code)).collect();
        assert_eq!(codes, [Some(ResponseError::NonEmptyGroup), Some(ResponseError::GroupIdNotFound)]);
    }
    let leaver = MemberIdentity::default().with_member_id(member);
    f.client.call(5, &LeaveGroupRequest::default().with_group_id(group("busy")).with_members(vec![leaver])).await;
    let deleted = f.client.call(2, &request).await;
    assert_eq!(deleted.results[0].error_code, 0);
    let mut f = f.restart().await;
    assert!(f.client.call(5, &ListGroupsRequest::default()).await.groups.is_empty());
    assert!(fetch(&mut f.client, 9, "busy", None, false).await.is_empty());
}

#[tokio::test]
async fn a_group_may_be_large_but_not_without_bounds() {
    let mut f = start().await;
    // What the members tell each other, and what is assigned to them, is one record.
    let too_much = Some(ResponseError::UnknownServerError);
    for (metadata_bytes, assigned_bytes, expected) in [(2 << 20, 0, None), (6 << 20, 6 << 20, too_much)] {
        let mut request = join(&format!("g{metadata_bytes}"), "");
        request.protocols[0].metadata = vec![0; metadata_bytes].into();
        let joined = f.client.call(3, &request).await;
        let mut sync = sync(&request.group_id, &joined.member_id, 1, &[(&joined.member_id, "")]);
        sync.assignments[0].assignment = vec![0; assigned_bytes].into();
        let synced = f.client.call(3, &sync).await;
        assert_eq!(error(synced.error_code), expected);
    }
    let mut request = join("more", "");
    request.protocols[0].metadata = vec![0; 9 << 20].into();
    let refused = f.client.call(3, &request).await;
    assert_eq!(error(refused.error_code), Some(ResponseError::GroupMaxSizeReached));
    let mut f = f.restart().await;
    let request = DescribeGroupsRequest::default().with_groups(vec![group(&format!("g{}", 2 << 20))]);
    let described = f.client.call(6, &request).await;
    assert_eq!(described.groups[0].members[0].member_metadata.len(), 2 << 20, "it is read back");
}
