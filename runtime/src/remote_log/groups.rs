//! Consumer groups, over the wire: what they are, and their offsets.

use std::collections::BTreeMap;
use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::consumer_protocol_assignment::ConsumerProtocolAssignment;
use kafka_protocol::messages::delete_groups_request::DeleteGroupsRequest;
use kafka_protocol::messages::describe_groups_request::DescribeGroupsRequest;
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::list_groups_request::ListGroupsRequest;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{OffsetFetchRequest, OffsetFetchRequestTopic};
use kafka_protocol::messages::{GroupId, OffsetFetchResponse};
use kafka_protocol::protocol::{Decodable, StrBytes};
use logmill_connectors::error::LogError;
use logmill_connectors::log::TopicPartition;
use logmill_protocol::Offset;

use super::RemoteLog;
use super::cluster::topic_name;
use super::error::{of_group, of_partition};

/// A group in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedGroup {
    /// The group.
    pub name: String,
    /// Its state by Kafka's names, such as `Stable`; empty if the server does not say.
    pub state: String,
}

/// What a group is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The group.
    pub name: String,
    /// Its state by Kafka's names, such as `Stable`.
    pub state: String,
    /// How partitions are assigned, such as `range`; empty without members.
    pub assignor: String,
    /// Its members.
    pub members: Vec<Member>,
}

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The id that the coordinator gave it.
    pub id: String,
    /// The name of a static member.
    pub instance: Option<String>,
    /// What the client calls itself.
    pub client: String,
    /// Where it connects from.
    pub host: String,
    /// The partitions that are its own.
    pub partitions: Vec<TopicPartition>,
}

fn group_id(group: &str) -> GroupId {
    GroupId(StrBytes::from_string(group.to_owned()))
}

impl RemoteLog {
    /// All groups of the cluster, by name.
    ///
    /// # Errors
    /// If a broker does not answer, or refuses.
    pub async fn groups(&self) -> Result<Vec<ListedGroup>, LogError> {
        let mut groups = BTreeMap::new();
        for broker in self.cluster.brokers().await? {
            let answer = self.cluster.call(&broker, &ListGroupsRequest::default(), Duration::ZERO).await?;
            if answer.error_code != 0 {
                return Err(of_group(answer.error_code, "*"));
            }
            for group in answer.groups {
                let name = group.group_id.0.to_string();
                groups.insert(name.clone(), ListedGroup { name, state: group.group_state.to_string() });
            }
        }
        Ok(groups.into_values().collect())
    }

    /// What a group is; `None` if there is none of the name.
    ///
    /// # Errors
    /// If its coordinator does not answer, or refuses.
    pub async fn group(&self, name: &str) -> Result<Option<Group>, LogError> {
        let request = DescribeGroupsRequest::default().with_groups(vec![group_id(name)]);
        let answer = self
            .cluster
            .call_coordinator(name, &request, |answer| answer.groups.first().map_or(0, |group| group.error_code));
        let Some(group) = answer.await?.groups.into_iter().next() else { return Ok(None) };
        match ResponseError::try_from_code(group.error_code) {
            // Kafka's word for a group that has never been.
            None if group.group_state.as_str() == "Dead" => Ok(None),
            None => Ok(Some(described(group))),
            Some(ResponseError::GroupIdNotFound) => Ok(None),
            Some(_) => Err(of_group(group.error_code, name)),
        }
    }

    /// Deletes a group with its offsets.
    ///
    /// # Errors
    /// If there is none of the name, or if it has members.
    pub async fn delete_group(&self, name: &str) -> Result<(), LogError> {
        let request = DeleteGroupsRequest::default().with_groups_names(vec![group_id(name)]);
        let answer = self
            .cluster
            .call_coordinator(name, &request, |answer| answer.results.first().map_or(0, |group| group.error_code));
        match answer.await?.results.first().map(|group| group.error_code) {
            Some(0) => Ok(()),
            Some(code) => Err(of_group(code, name)),
            None => Err(LogError::Invalid(format!("the server's answer says nothing of group `{name}`"))),
        }
    }

    /// Every offset that a group has committed.
    ///
    /// # Errors
    /// If its coordinator does not answer, or refuses.
    pub async fn all_committed(&self, group: &str) -> Result<Vec<(TopicPartition, Offset)>, LogError> {
        self.fetch_offsets(group, None).await
    }

    /// Offsets that a group has committed, of these partitions or of all.
    pub(super) async fn fetch_offsets(
        &self,
        group: &str,
        partitions: Option<&[TopicPartition]>,
    ) -> Result<Vec<(TopicPartition, Offset)>, LogError> {
        let topics = partitions.map(|partitions| {
            let topics = by_topic(partitions.iter().map(|place| (place, place.partition)));
            let topic = |(name, indexes)| {
                OffsetFetchRequestTopic::default().with_name(topic_name(name)).with_partition_indexes(indexes)
            };
            topics.into_iter().map(topic).collect()
        });
        let request =
            OffsetFetchRequest::default().with_group_id(group_id(group)).with_topics(topics).with_require_stable(true);
        let unstable = ResponseError::UnstableOffsetCommit.code();
        loop {
            let answer = self.cluster.call_coordinator(group, &request, |answer| answer.error_code).await?;
            if answer.error_code != 0 {
                return Err(of_group(answer.error_code, group));
            }
            // An open transaction may change them: it ends soon, or times out.
            let pending = answer.topics.iter().flat_map(|topic| &topic.partitions).any(|p| p.error_code == unstable);
            match pending {
                true => tokio::time::sleep(Duration::from_millis(100)).await,
                false => return committed(answer),
            }
        }
    }

    pub(super) async fn write_offsets(
        &self,
        group: &str,
        offsets: &[(TopicPartition, Offset)],
    ) -> Result<(), LogError> {
        if offsets.is_empty() {
            return Ok(());
        }
        let partition = |partition: i32, offset: Offset| {
            let to = OffsetCommitRequestPartition::default().with_partition_index(partition);
            to.with_committed_offset(offset.0)
                .with_committed_leader_epoch(-1)
                .with_committed_metadata(Some(StrBytes::new()))
        };
        let topics = by_topic(offsets.iter().map(|(place, offset)| (place, partition(place.partition, *offset))));
        let topic = |(name, partitions)| {
            OffsetCommitRequestTopic::default().with_name(topic_name(name)).with_partitions(partitions)
        };
        let request = OffsetCommitRequest::default()
            .with_group_id(group_id(group))
            .with_generation_id_or_member_epoch(-1)
            .with_retention_time_ms(-1)
            .with_topics(topics.into_iter().map(topic).collect());
        let answer = self.cluster.call_coordinator(group, &request, |answer| {
            let partition = answer.topics.first().and_then(|topic| topic.partitions.first());
            partition.map_or(0, |partition| partition.error_code)
        });
        for topic in answer.await?.topics {
            let Some(refused) = topic.partitions.iter().find(|partition| partition.error_code != 0) else { continue };
            let place = TopicPartition { topic: topic.name.0.to_string(), partition: refused.partition_index };
            return Err(match ResponseError::try_from_code(refused.error_code) {
                Some(ResponseError::UnknownTopicOrPartition) => of_partition(refused.error_code, &place, None),
                _ => of_group(refused.error_code, group),
            });
        }
        Ok(())
    }
}

/// Things of partitions, by topic.
fn by_topic<'a, T>(things: impl Iterator<Item = (&'a TopicPartition, T)>) -> BTreeMap<&'a str, Vec<T>> {
    let mut topics: BTreeMap<&str, Vec<T>> = BTreeMap::new();
    for (place, thing) in things {
        topics.entry(&place.topic).or_default().push(thing);
    }
    topics
}

fn committed(answer: OffsetFetchResponse) -> Result<Vec<(TopicPartition, Offset)>, LogError> {
    let mut offsets = Vec::new();
    for topic in &answer.topics {
        for partition in &topic.partitions {
            let place = TopicPartition { topic: topic.name.0.to_string(), partition: partition.partition_index };
            match (partition.error_code, partition.committed_offset) {
                (0, 0..) => offsets.push((place, Offset(partition.committed_offset))),
                (0, _) => {}
                // No such partition is no offset, as in a log of this process.
                (code, _) if code == ResponseError::UnknownTopicOrPartition.code() => {}
                (code, _) => return Err(of_partition(code, &place, None)),
            }
        }
    }
    offsets.sort();
    Ok(offsets)
}

fn described(group: DescribedGroup) -> Group {
    Group {
        name: group.group_id.0.to_string(),
        state: group.group_state.to_string(),
        assignor: group.protocol_data.to_string(),
        members: group.members.into_iter().map(member).collect(),
    }
}

fn member(member: DescribedGroupMember) -> Member {
    Member {
        id: member.member_id.to_string(),
        instance: member.group_instance_id.map(|instance| instance.to_string()),
        client: member.client_id.to_string(),
        host: member.client_host.to_string(),
        partitions: assigned(member.member_assignment),
    }
}

/// The partitions of an assignment; none if it is not a consumer's.
fn assigned(mut bytes: bytes::Bytes) -> Vec<TopicPartition> {
    if bytes.len() < 2 {
        return Vec::new();
    }
    let version = bytes::Buf::get_i16(&mut bytes).clamp(0, 3);
    let Ok(assignment) = ConsumerProtocolAssignment::decode(&mut bytes, version) else { return Vec::new() };
    let mut partitions = Vec::new();
    for topic in assignment.assigned_partitions {
        let place = |partition: &i32| TopicPartition { topic: topic.topic.0.to_string(), partition: *partition };
        partitions.extend(topic.partitions.iter().map(place));
    }
    partitions.sort();
    partitions
}
