//! What lies in each request, as constants that follow Kafka's schemas (release 4.1) field by field.
//!
//! Only what can be null in a version is nullable in it. A test holds the constants against the decoders that are
//! generated from the same schemas.

mod admin;
mod groups;
mod records;

use std::ops::RangeInclusive;

use kafka_protocol::messages::ApiKey;

use crate::wire::shape::Message;

pub(super) use groups::{CONSUMER_PROTOCOL_ASSIGNMENT, CONSUMER_PROTOCOL_SUBSCRIPTION};

/// The requests that are described.
pub(super) static REQUESTS: [(ApiKey, Message); 29] = [
    (ApiKey::Produce, records::PRODUCE),
    (ApiKey::Fetch, records::FETCH),
    (ApiKey::ListOffsets, records::LIST_OFFSETS),
    (ApiKey::Metadata, admin::METADATA),
    (ApiKey::OffsetCommit, groups::OFFSET_COMMIT),
    (ApiKey::OffsetFetch, groups::OFFSET_FETCH),
    (ApiKey::FindCoordinator, groups::FIND_COORDINATOR),
    (ApiKey::JoinGroup, groups::JOIN_GROUP),
    (ApiKey::Heartbeat, groups::HEARTBEAT),
    (ApiKey::LeaveGroup, groups::LEAVE_GROUP),
    (ApiKey::SyncGroup, groups::SYNC_GROUP),
    (ApiKey::DescribeGroups, groups::DESCRIBE_GROUPS),
    (ApiKey::ListGroups, groups::LIST_GROUPS),
    (ApiKey::ApiVersions, admin::API_VERSIONS),
    (ApiKey::CreateTopics, admin::CREATE_TOPICS),
    (ApiKey::DeleteTopics, admin::DELETE_TOPICS),
    (ApiKey::DeleteRecords, records::DELETE_RECORDS),
    (ApiKey::InitProducerId, records::INIT_PRODUCER_ID),
    (ApiKey::OffsetForLeaderEpoch, records::OFFSET_FOR_LEADER_EPOCH),
    (ApiKey::DescribeConfigs, admin::DESCRIBE_CONFIGS),
    (ApiKey::AlterConfigs, admin::ALTER_CONFIGS),
    (ApiKey::DescribeLogDirs, admin::DESCRIBE_LOG_DIRS),
    (ApiKey::CreatePartitions, admin::CREATE_PARTITIONS),
    (ApiKey::DeleteGroups, groups::DELETE_GROUPS),
    (ApiKey::IncrementalAlterConfigs, admin::INCREMENTAL_ALTER_CONFIGS),
    (ApiKey::OffsetDelete, groups::OFFSET_DELETE),
    (ApiKey::DescribeCluster, admin::DESCRIBE_CLUSTER),
    (ApiKey::DescribeProducers, records::DESCRIBE_PRODUCERS),
    (ApiKey::DescribeTopicPartitions, admin::DESCRIBE_TOPIC_PARTITIONS),
];

fn find(api: ApiKey) -> Option<&'static Message> {
    REQUESTS.iter().find(|(key, _)| *key == api).map(|(_, message)| message)
}

/// The versions in which a request can be checked and decoded; `None` if it cannot at all. These are what a server may
/// advertise: [`ApiKey::valid_versions`] has versions that Kafka keeps unstable, for which there is no decoder.
#[must_use]
pub fn request_versions(api: ApiKey) -> Option<RangeInclusive<i16>> {
    find(api).map(|message| message.min..=message.max)
}

/// The description of a request's body in this version, if there is one.
pub(super) fn request(api: ApiKey, version: i16) -> Option<&'static Message> {
    let message = find(api)?;
    (message.min..=message.max).contains(&version).then_some(message)
}
