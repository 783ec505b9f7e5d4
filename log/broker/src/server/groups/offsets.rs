//! OffsetCommit, OffsetFetch and OffsetDelete.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_commit_request::OffsetCommitRequestPartition;
use kafka_protocol::messages::offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
use kafka_protocol::messages::offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions, OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{
    OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest, OffsetDeleteResponse, OffsetFetchRequest,
    OffsetFetchResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use logmill_protocol::{LeaderEpoch, Offset, Timestamp};

use crate::error::BrokerError;
use crate::groups::{Commit, CommittedOffset, GroupService, OffsetFound};
use crate::server::context::RequestContext;
use crate::server::errors;
use crate::server::groups::{code, owned, result_code, text};
use crate::types::TopicPartition;

/// The first version of OffsetCommit whose clients are told that a group does not exist.
const UNKNOWN_GROUP_VERSION: i16 = 9;
/// The first version of OffsetFetch that asks for many groups at once (KIP-709).
const MANY_VERSION: i16 = 8;
/// The most bytes of offsets in a response, in about: a request may name a group or a partition over and over. Groups
/// beyond it are refused.
const MAX_FOUND_BYTES: usize = 32 << 20;
/// What a response says where no offset is committed.
const NO_OFFSET: i64 = -1;

/// Whether the partition exists.
fn exists(context: &RequestContext, topic: &TopicName, partition: i32) -> bool {
    let partitions = context.broker().open_topic(topic).map_or(0, |topic| topic.partitions.len());
    usize::try_from(partition).is_ok_and(|partition| partition < partitions)
}

/// Answers an OffsetCommit request, once the offsets are on disk, and all records before them.
pub(in crate::server) async fn offset_commit(
    context: &RequestContext,
    version: i16,
    request: OffsetCommitRequest,
) -> OffsetCommitResponse {
    let named: Vec<_> = request
        .topics
        .iter()
        .flat_map(|topic| {
            let named = |p: &OffsetCommitRequestPartition| {
                (TopicPartition::new(topic.name.as_str(), p.partition_index), Offset(p.committed_offset))
            };
            topic.partitions.iter().map(named)
        })
        .collect();
    // Looked up once: topics come and go.
    let durable = context.broker().durable_before(&named).await;
    let mut results = match commit(context, version, &request, &durable).await {
        Ok(results) => results.into_iter(),
        Err(error_code) => vec![error_code; named.len()].into_iter(),
    };
    let mut durable = durable.into_iter();
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            let error_code = match durable.next() {
                Some(Ok(())) => results.next().unwrap_or(ResponseError::UnknownServerError.code()),
                Some(Err(error)) => source_code(&error),
                None => ResponseError::UnknownTopicOrPartition.code(),
            };
            OffsetCommitResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(error_code)
        });
        let partitions = partitions.collect();
        OffsetCommitResponseTopic::default().with_name(topic.name.clone()).with_partitions(partitions)
    });
    OffsetCommitResponse::default().with_topics(topics.collect())
}

/// The code for a partition that is not there, or whose records cannot be made durable.
fn source_code(error: &BrokerError) -> i16 {
    match error {
        BrokerError::Closed => code(error),
        other => errors::code(other),
    }
}

/// Commits the offsets before which all is durable, and returns the code of each, or of all.
async fn commit(
    context: &RequestContext,
    version: i16,
    request: &OffsetCommitRequest,
    durable: &[Result<(), BrokerError>],
) -> Result<Vec<i16>, i16> {
    let coordinator = context.broker().coordinator().map_err(|error| code(&error))?;
    let mut durable = durable.iter();
    let mut offsets = Vec::new();
    for topic in &request.topics {
        for partition in topic.partitions.iter().filter(|_| matches!(durable.next(), Some(Ok(())))) {
            let name = TopicPartition::new(topic.name.as_str(), partition.partition_index);
            offsets.push((name, committed(partition, request.retention_time_ms, coordinator.now.wall)));
        }
    }
    if offsets.is_empty() {
        return Ok(Vec::new());
    }
    let commit = Commit {
        group: request.group_id.as_str().to_owned(),
        member: request.member_id.as_str().to_owned(),
        instance: owned(request.group_instance_id.as_ref()),
        generation: request.generation_id_or_member_epoch,
        knows_unknown_group: version >= UNKNOWN_GROUP_VERSION,
        offsets,
    };
    let results = coordinator.service.commit(commit, coordinator.now).await.map_err(|error| code(&error))?;
    Ok(results.map_err(|error| error.code())?.iter().map(result_code).collect())
}

fn committed(partition: &OffsetCommitRequestPartition, retention_ms: i64, now: Timestamp) -> CommittedOffset {
    CommittedOffset {
        offset: Offset(partition.committed_offset),
        leader_epoch: LeaderEpoch(partition.committed_leader_epoch),
        metadata: owned(partition.committed_metadata.as_ref()).unwrap_or_default(),
        committed_at: now,
        // Old clients bring a retention time of their own.
        expires_at: (retention_ms >= 0).then(|| Timestamp(now.0.saturating_add(retention_ms))),
    }
}

/// What is committed of a partition, as both kinds of responses say it.
struct Found {
    topic: TopicName,
    partition: i32,
    offset: i64,
    leader_epoch: i32,
    metadata: StrBytes,
    error_code: i16,
}

impl Found {
    fn new(topic: TopicName, partition: i32, found: OffsetFound) -> Self {
        let none = Self {
            topic,
            partition,
            offset: NO_OFFSET,
            leader_epoch: LeaderEpoch::NONE.0,
            metadata: StrBytes::new(),
            error_code: 0,
        };
        match found {
            OffsetFound::None => none,
            OffsetFound::Unstable => Self { error_code: ResponseError::UnstableOffsetCommit.code(), ..none },
            OffsetFound::Committed(committed) => Self {
                offset: committed.offset.0,
                leader_epoch: committed.leader_epoch.0,
                metadata: text(committed.metadata),
                ..none
            },
        }
    }
}

/// Answers an OffsetFetch request. A group that nobody knows has no offsets, which is no error.
pub(in crate::server) async fn offset_fetch(
    context: &RequestContext,
    version: i16,
    request: OffsetFetchRequest,
) -> OffsetFetchResponse {
    let coordinator = context.broker().coordinator();
    let mut left = MAX_FOUND_BYTES;
    let mut find = |group: &str, topics: Option<Vec<(TopicName, Vec<i32>)>>| {
        let coordinator = coordinator.as_ref().map_err(code)?;
        // A group that cannot be read must not pass for one that never committed.
        coordinator.service.partition(group).map_err(|error| code(&error))?;
        find(coordinator.service, group, topics, request.require_stable, &mut left)
    };
    if version >= MANY_VERSION {
        let groups = request.groups.into_iter().map(|group| {
            let topics = group.topics.map(|topics| topics.into_iter().map(|t| (t.name, t.partition_indexes)).collect());
            let (found, error_code) = code_beside(find(&group.group_id, topics));
            let topics = found.chunk_by(same_topic).map(topic_of_many).collect();
            let response = OffsetFetchResponseGroup::default().with_group_id(group.group_id);
            response.with_topics(topics).with_error_code(error_code)
        });
        return OffsetFetchResponse::default().with_groups(groups.collect());
    }
    let topics: Option<Vec<_>> =
        request.topics.map(|topics| topics.into_iter().map(|t| (t.name, t.partition_indexes)).collect());
    // Version 1 has no code for the whole: each partition gets it.
    let asked = if version < 2 { topics.clone() } else { None };
    let (mut found, error_code) = code_beside(find(&request.group_id, topics));
    if error_code != 0 {
        found = none(&asked.unwrap_or_default(), error_code);
    }
    let topics = found.chunk_by(same_topic).map(topic_of_one).collect();
    let response = OffsetFetchResponse::default().with_topics(topics);
    if version >= 2 { response.with_error_code(error_code) } else { response }
}

/// What was found, if anything, and the code of the whole.
fn code_beside(found: Result<Vec<Found>, i16>) -> (Vec<Found>, i16) {
    found.map_or_else(|code| (Vec::new(), code), |found| (found, 0))
}

/// What a group has committed of the topics, or of all; as long as it takes no more than the bytes that are `left`.
fn find(
    service: &GroupService,
    group: &str,
    topics: Option<Vec<(TopicName, Vec<i32>)>>,
    must_be_stable: bool,
    left: &mut usize,
) -> Result<Vec<Found>, i16> {
    let partitions: Option<Vec<_>> = topics.map(|topics| {
        let partitions = |(topic, partitions): (TopicName, Vec<i32>)| {
            partitions.into_iter().map(move |partition| TopicPartition::new(topic.as_str(), partition))
        };
        topics.into_iter().flat_map(partitions).collect()
    });
    service.read(|groups| {
        let mut all = Vec::new();
        if *left == 0 {
            return Err(ResponseError::InvalidRequest.code());
        }
        for place in partitions.unwrap_or_else(|| groups.committed_partitions(group)) {
            let found = groups.offset(group, &place, must_be_stable);
            let found = Found::new(TopicName(text(place.topic)), place.partition, found);
            *left = left.saturating_sub(size_of::<Found>() + found.topic.len() + found.metadata.len());
            if *left == 0 {
                return Err(ResponseError::InvalidRequest.code());
            }
            all.push(found);
        }
        Ok(all)
    })
}

fn none(topics: &[(TopicName, Vec<i32>)], error_code: i16) -> Vec<Found> {
    let places = topics.iter().flat_map(|(topic, partitions)| partitions.iter().map(move |p| (topic, *p)));
    places.map(|(topic, p)| Found { error_code, ..Found::new(topic.clone(), p, OffsetFound::None) }).collect()
}

fn same_topic(a: &Found, b: &Found) -> bool {
    a.topic == b.topic
}

fn topic_of_one(found: &[Found]) -> OffsetFetchResponseTopic {
    let partitions = found.iter().map(|found| {
        OffsetFetchResponsePartition::default()
            .with_partition_index(found.partition)
            .with_committed_offset(found.offset)
            .with_committed_leader_epoch(found.leader_epoch)
            .with_metadata(Some(found.metadata.clone()))
            .with_error_code(found.error_code)
    });
    let name = found.first().map(|found| found.topic.clone()).unwrap_or_default();
    OffsetFetchResponseTopic::default().with_name(name).with_partitions(partitions.collect())
}

fn topic_of_many(found: &[Found]) -> OffsetFetchResponseTopics {
    let partitions = found.iter().map(|found| {
        OffsetFetchResponsePartitions::default()
            .with_partition_index(found.partition)
            .with_committed_offset(found.offset)
            .with_committed_leader_epoch(found.leader_epoch)
            .with_metadata(Some(found.metadata.clone()))
            .with_error_code(found.error_code)
    });
    let name = found.first().map(|found| found.topic.clone()).unwrap_or_default();
    OffsetFetchResponseTopics::default().with_name(name).with_partitions(partitions.collect())
}

/// Answers an OffsetDelete request.
pub(in crate::server) async fn offset_delete(
    context: &RequestContext,
    _version: i16,
    request: OffsetDeleteRequest,
) -> OffsetDeleteResponse {
    let (mut known, mut existing) = (Vec::new(), Vec::new());
    for topic in &request.topics {
        for partition in topic.partitions.iter().map(|partition| partition.partition_index) {
            let exists = exists(context, &topic.name, partition);
            known.push(exists);
            existing.extend(exists.then(|| TopicPartition::new(topic.name.as_str(), partition)));
        }
    }
    let mut results = match delete(context, &request.group_id, &existing).await {
        Ok(results) => results.into_iter(),
        Err(error_code) => return OffsetDeleteResponse::default().with_error_code(error_code),
    };
    let mut known = known.into_iter();
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            let result = if known.next().unwrap_or(false) { results.next() } else { None };
            OffsetDeleteResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(result.unwrap_or(ResponseError::UnknownTopicOrPartition.code()))
        });
        let partitions = partitions.collect();
        OffsetDeleteResponseTopic::default().with_name(topic.name.clone()).with_partitions(partitions)
    });
    OffsetDeleteResponse::default().with_topics(topics.collect())
}

async fn delete(context: &RequestContext, group: &str, partitions: &[TopicPartition]) -> Result<Vec<i16>, i16> {
    let coordinator = context.broker().coordinator().map_err(|error| code(&error))?;
    let results = coordinator.service.delete_offsets(group, partitions, coordinator.now.wall).await;
    let results = results.map_err(|error| code(&error))?.map_err(|error| error.code())?;
    Ok(results.iter().map(result_code).collect())
}
