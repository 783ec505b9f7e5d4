//! Committed offsets over the wire: every version, who may commit, and what comes back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::{OffsetCommitRequest, OffsetFetchRequest};
use kafka_protocol::protocol::StrBytes;
use logmill_protocol::Offset;

use support::groups::{alone, commit, error, fetch, group, join, start, text, topic_name};
use support::tp;

#[tokio::test]
async fn offsets_are_committed_and_found_in_every_version() {
    let mut f = start().await;
    for version in 2..=9 {
        let name = format!("g{version}");
        let request = commit(&name, &[("t", 0, 5), ("t", 3, 1), ("nothing", 0, 1), ("t", 2, 7)]);
        let committed = f.client.call(version, &request).await;
        let codes: Vec<_> = committed.topics.iter().map(|topic| error(topic.partitions[0].error_code)).collect();
        let unknown = Some(ResponseError::UnknownTopicOrPartition);
        assert_eq!(codes, [None, unknown, unknown, None]);
    }
    let at = |partition, offset| ("t".to_owned(), partition, offset, None);
    for version in 1..=9 {
        let asked: &[(&str, &[i32])] = &[("t", &[0, 1, 2])];
        let found = fetch(&mut f.client, version, "g5", Some(asked), false).await;
        assert_eq!(found, [at(0, 5), at(1, -1), at(2, 7)]);
        let found = fetch(&mut f.client, version, "nobody", Some(asked), false).await;
        assert_eq!(found, [at(0, -1), at(1, -1), at(2, -1)], "an unknown group is no error");
        if version >= 2 {
            let found = fetch(&mut f.client, version, "g5", None, false).await;
            assert_eq!(found, [at(0, 5), at(2, 7)], "all there are");
        }
    }
    let mut f = f.restart().await;
    assert_eq!(fetch(&mut f.client, 9, "g9", None, false).await, [at(0, 5), at(2, 7)]);
    let found = f.broker.committed_offsets("g9", &[tp("t", 0)]).await.unwrap();
    assert_eq!(found, [(tp("t", 0), Offset(5))], "the engine sees the same");
}

#[tokio::test]
async fn what_is_committed_beside_an_offset_comes_back_with_it() {
    let mut f = start().await;
    let mut request = commit("g", &[("t", 0, 5)]);
    let partition = &mut request.topics[0].partitions[0];
    (partition.committed_leader_epoch, partition.committed_metadata) = (3, None);
    assert_eq!(f.client.call(9, &request).await.topics[0].partitions[0].error_code, 0);
    let asked = OffsetFetchRequestGroup::default().with_group_id(group("g")).with_topics(None);
    let found = f.client.call(9, &OffsetFetchRequest::default().with_groups(vec![asked])).await;
    let found = &found.groups[0].topics[0].partitions[0];
    assert_eq!((found.committed_offset, found.committed_leader_epoch, found.metadata.as_deref()), (5, 3, Some("")));

    request.topics[0].partitions[0].committed_metadata = Some(text(&"x".repeat(4_097)));
    let refused = f.client.call(9, &request).await.topics[0].partitions[0].error_code;
    assert_eq!(error(refused), Some(ResponseError::OffsetMetadataTooLarge));
}

#[tokio::test]
async fn only_current_members_commit_to_a_group_at_work() {
    let mut f = start().await;
    let (member, generation) = alone(&mut f.client, "g").await;
    let request = commit("g", &[("t", 0, 5), ("t", 1, 6)]);
    let mut check = async |version: i16, request: OffsetCommitRequest, expected: Option<ResponseError>| {
        let committed = f.client.call(version, &request).await;
        let codes: Vec<_> = committed.topics.iter().map(|topic| error(topic.partitions[0].error_code)).collect();
        assert_eq!(codes, [expected, expected]);
    };
    let by = |member: &StrBytes, generation| {
        request.clone().with_member_id(member.clone()).with_generation_id_or_member_epoch(generation)
    };
    check(8, request.clone(), Some(ResponseError::UnknownMemberId)).await;
    check(8, by(&text("stranger"), generation), Some(ResponseError::UnknownMemberId)).await;
    check(8, by(&member, generation + 1), Some(ResponseError::IllegalGeneration)).await;
    check(8, by(&member, generation), None).await;
    let elsewhere = by(&member, generation).with_group_id(group("h"));
    check(8, elsewhere.clone(), Some(ResponseError::IllegalGeneration)).await;
    check(9, elsewhere, Some(ResponseError::GroupIdNotFound)).await;
}

#[tokio::test]
async fn offsets_that_a_transaction_may_change_are_unstable() {
    let mut f = start().await;
    f.client.call(9, &commit("g", &[("t", 0, 5), ("t", 1, 6)])).await;
    let member = f.broker.join_group("g", "worker").await.unwrap();
    let session = f.broker.init_producer("id", 60_000).await.unwrap();
    f.broker.commit_offsets_in_transaction(&session, &member, &[(tp("t", 0), Offset(9))]).await.unwrap();
    let unstable = Some(ResponseError::UnstableOffsetCommit);
    let row = |partition, offset, error| ("t".to_owned(), partition, offset, error);
    for version in 7..=9 {
        for asked in [None, Some(&[("t", &[0, 1][..])][..])] {
            let found = fetch(&mut f.client, version, "g", asked, true).await;
            assert_eq!(found, [row(0, -1, unstable), row(1, 6, None)]);
            let found = fetch(&mut f.client, version, "g", asked, false).await;
            assert_eq!(found, [row(0, 5, None), row(1, 6, None)]);
        }
    }
    f.broker.end_transaction(&session, true).await.unwrap();
    let asked = OffsetFetchRequestGroup::default().with_group_id(group("g")).with_topics(None);
    let request = OffsetFetchRequest::default().with_groups(vec![asked]).with_require_stable(true);
    let found = f.client.call(9, &request).await;
    assert_eq!(found.groups[0].topics[0].partitions[0].committed_offset, 9);
    // And the engine's group is its own.
    let refused = f.client.call(3, &join("g", "")).await;
    assert_eq!(error(refused.error_code), Some(ResponseError::InconsistentGroupProtocol));
    let (member, _) = alone(&mut f.client, "clients").await;
    let refused = f.broker.join_group("clients", "worker").await.unwrap_err();
    assert_eq!(refused.to_string(), "group `clients` is in use by Kafka clients; name another");
    drop(member);
}

#[tokio::test]
async fn an_answer_about_offsets_is_bounded_however_often_one_is_named() {
    let mut f = start().await;
    let mut request = commit("g", &[("t", 0, 7)]);
    request.topics[0].partitions[0].committed_metadata = Some(text(&"m".repeat(4_096)));
    assert_eq!(f.client.call(8, &request).await.topics[0].partitions[0].error_code, 0);
    for version in [1, 7, 9] {
        for (times, expected) in [(100, None), (20_000, Some(ResponseError::InvalidRequest))] {
            let partitions = vec![0; times];
            let mut request = OffsetFetchRequest::default();
            if version < 8 {
                let topic = OffsetFetchRequestTopic::default().with_name(topic_name("t"));
                request = request.with_group_id(group("g"));
                request = request.with_topics(Some(vec![topic.with_partition_indexes(partitions)]));
            } else {
                let topic = OffsetFetchRequestTopics::default().with_name(topic_name("t"));
                let topics = Some(vec![topic.with_partition_indexes(partitions)]);
                let named = OffsetFetchRequestGroup::default().with_group_id(group("g")).with_topics(topics);
                request = request.with_groups(vec![named]);
            }
            let found = f.client.call(version, &request).await;
            let code = match version {
                1 => found.topics[0].partitions[times - 1].error_code,
                7 => found.error_code,
                _ => found.groups[0].error_code,
            };
            assert_eq!(error(code), expected, "version {version}, {times} times");
        }
    }
    let long = commit(&"g".repeat(1_025), &[("t", 0, 7)]);
    let refused = f.client.call(8, &long).await;
    assert_eq!(error(refused.topics[0].partitions[0].error_code), Some(ResponseError::InvalidGroupId));
}
