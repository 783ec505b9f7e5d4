//! DescribeTopicPartitions (KIP-966): topics by name, so many partitions at a time, and a cursor where to go on.

use std::collections::BTreeSet;
use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use kafka_protocol::messages::{BrokerId, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse, TopicName};

use super::{operations, topic_name};
use crate::names::{check_topic_name, is_internal};
use crate::offline::Slot;
use crate::server::context::RequestContext;
use crate::topics::OpenTopic;

/// Most partitions in a response (`max.request.partition.size.limit`).
const MAX_PARTITIONS_A_RESPONSE: usize = 2000;

/// Answers a DescribeTopicPartitions request.
pub(in crate::server) async fn describe_topic_partitions(
    context: &RequestContext,
    _version: i16,
    request: DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    let (from, from_partition) = match &request.cursor {
        Some(cursor) => (cursor.topic_name.to_string(), cursor.partition_index),
        None => (String::new(), 0),
    };
    let Ok(from_partition) = usize::try_from(from_partition) else {
        let invalid = |topic: &TopicName| failed(topic, ResponseError::InvalidRequest);
        let topics = request.topics.iter().map(|topic| invalid(&topic.name)).collect();
        return DescribeTopicPartitionsResponse::default().with_topics(topics);
    };
    let topics: Vec<Result<Arc<OpenTopic>, TopicName>> = match request.topics.is_empty() {
        true => context.broker().open_topics().into_iter().filter(|topic| topic.name >= from).map(Ok).collect(),
        false => {
            let names: BTreeSet<_> = request.topics.into_iter().map(|topic| topic.name).collect();
            let names = names.into_iter().filter(|name| name.as_str() >= from.as_str());
            names.map(|name| context.broker().open_topic(&name).map_err(|_| name)).collect()
        }
    };
    let mut left = usize::try_from(request.response_partition_limit).unwrap_or(0).clamp(1, MAX_PARTITIONS_A_RESPONSE);
    let mut response = DescribeTopicPartitionsResponse::default();
    for topic in topics {
        let name = match &topic {
            Ok(topic) => topic_name(&topic.name),
            Err(name) => name.clone(),
        };
        let first = if *name.0 == *from { from_partition } else { 0 };
        if left == 0 {
            response.next_cursor = Some(cursor(name, first));
            break;
        }
        let Ok(topic) = topic else {
            let is_valid = check_topic_name(&name).is_ok();
            let error = match is_valid {
                true => ResponseError::UnknownTopicOrPartition,
                false => ResponseError::InvalidTopicException,
            };
            response.topics.push(failed(&name, error));
            continue;
        };
        let end = topic.partitions.len().min(first.saturating_add(left));
        response.topics.push(describe(context, &topic, first, end));
        left -= end.saturating_sub(first);
        if end < topic.partitions.len() {
            response.next_cursor = Some(cursor(name, end));
            break;
        }
    }
    response
}

fn cursor(topic: TopicName, partition: usize) -> Cursor {
    let partition = i32::try_from(partition).unwrap_or(i32::MAX);
    Cursor::default().with_topic_name(topic).with_partition_index(partition)
}

fn describe(
    context: &RequestContext,
    topic: &OpenTopic,
    first: usize,
    end: usize,
) -> DescribeTopicPartitionsResponseTopic {
    let node = BrokerId(context.node.config.node_id);
    let partition = |index: usize| {
        let described = DescribeTopicPartitionsResponsePartition::default()
            .with_partition_index(i32::try_from(index).unwrap_or(i32::MAX))
            .with_leader_id(node)
            .with_leader_epoch(context.broker().leader_epoch().0)
            .with_replica_nodes(vec![node])
            .with_isr_nodes(vec![node])
            .with_eligible_leader_replicas(Some(Vec::new()))
            .with_last_known_elr(Some(Vec::new()));
        match topic.partitions.get(index).is_some_and(Slot::is_offline) {
            true => described
                .with_error_code(ResponseError::LeaderNotAvailable.code())
                .with_leader_id(BrokerId(-1))
                .with_isr_nodes(Vec::new())
                .with_offline_replicas(vec![node]),
            false => described,
        }
    };
    DescribeTopicPartitionsResponseTopic::default()
        .with_name(Some(topic_name(&topic.name)))
        .with_topic_id(topic.id)
        .with_is_internal(topic.internal)
        .with_partitions((first..end).map(partition).collect())
        .with_topic_authorized_operations(operations::on_topic(context.principal))
}

fn failed(name: &TopicName, error: ResponseError) -> DescribeTopicPartitionsResponseTopic {
    DescribeTopicPartitionsResponseTopic::default()
        .with_is_internal(is_internal(name))
        .with_name(Some(name.clone()))
        .with_error_code(error.code())
}
