//! Metadata: brokers, topics and where their partitions' leaders are.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{BrokerId, MetadataRequest, MetadataResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use crate::server::context::RequestContext;
use crate::server::errors;
use crate::types::{NewTopic, TopicInfo};

/// Answers a Metadata request.
pub(super) async fn metadata(context: &RequestContext, version: i16, request: MetadataRequest) -> MetadataResponse {
    let node = &context.node;
    let id = BrokerId(node.config.node_id);
    let broker = MetadataResponseBroker::default()
        .with_node_id(id)
        .with_host(StrBytes::from_string(node.advertised.host.clone()))
        .with_port(node.advertised.port.into());
    let topics = match request.topics {
        // In version 0 an empty list means all.
        Some(topics) if version > 0 || !topics.is_empty() => {
            let mut found = Vec::with_capacity(topics.len());
            for topic in topics {
                found.push(named(context, version, topic, request.allow_auto_topic_creation || version < 4).await);
            }
            found
        }
        _ => match context.broker().topics().await {
            Ok(all) => all.into_iter().map(|topic| describe(id, &topic, version)).collect(),
            Err(_) => Vec::new(),
        },
    };
    MetadataResponse::default().with_brokers(vec![broker]).with_controller_id(id).with_topics(topics)
}

async fn named(
    context: &RequestContext,
    version: i16,
    topic: MetadataRequestTopic,
    may_create: bool,
) -> MetadataResponseTopic {
    let id = BrokerId(context.node.config.node_id);
    let error =
        |name: Option<TopicName>, code: i16| MetadataResponseTopic::default().with_name(name).with_error_code(code);
    let Some(name) = topic.name else {
        return error(None, ResponseError::UnknownTopicId.code()).with_topic_id(topic.topic_id);
    };
    match context.broker().topic(&name).await {
        Ok(Some(found)) => return describe(id, &found, version),
        Ok(None) => {}
        Err(failed) => return error(Some(name), errors::code(&failed)),
    }
    if !(may_create && context.node.config.auto_create_topics) {
        return error(Some(name), ResponseError::UnknownTopicOrPartition.code());
    }
    let partitions = context.node.config.default_partitions;
    let new = NewTopic { name: name.to_string(), partitions, configs: Vec::new() };
    match context.broker().create_topic(new).await {
        Ok(()) => error(Some(name), ResponseError::LeaderNotAvailable.code()),
        Err(failed) => error(Some(name), errors::code(&failed)),
    }
}

fn describe(node: BrokerId, topic: &TopicInfo, version: i16) -> MetadataResponseTopic {
    let partition = |index: i32| {
        let partition = MetadataResponsePartition::default()
            .with_partition_index(index)
            .with_leader_id(node)
            .with_replica_nodes(vec![node])
            .with_isr_nodes(vec![node]);
        if version >= 7 { partition.with_leader_epoch(0) } else { partition }
    };
    let described = MetadataResponseTopic::default()
        .with_name(Some(TopicName(StrBytes::from_string(topic.name.clone()))))
        .with_is_internal(topic.internal)
        .with_partitions((0..topic.partitions).map(partition).collect());
    match Uuid::try_parse(&topic.id) {
        Ok(id) if version >= 10 => described.with_topic_id(id),
        _ => described,
    }
}
