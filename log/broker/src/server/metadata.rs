//! Metadata: brokers, topics and where their partitions' leaders are.

use std::collections::HashSet;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{BrokerId, MetadataRequest, MetadataResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use crate::error::BrokerError;
use crate::names::{check_topic_name, is_of_engine};
use crate::offline::Slot;
use crate::server::admin::create_topics::MAX_PARTITIONS_A_REQUEST;
use crate::server::admin::operations;
use crate::server::context::{Node, RequestContext};
use crate::server::errors;
use crate::topics::OpenTopic;
use crate::types::NewTopic;

/// The first version in which a request may name topics by their ids alone.
const BY_ID_VERSION: i16 = 12;
/// The first version that tells which replicas are offline.
const OFFLINE_REPLICAS_VERSION: i16 = 5;
const NO_LEADER: BrokerId = BrokerId(-1);

/// Answers a Metadata request.
pub(super) async fn metadata(context: &RequestContext, version: i16, request: MetadataRequest) -> MetadataResponse {
    let node = &context.node;
    let describe = Describe {
        node: BrokerId(node.config.node_id),
        version,
        operations: (version >= 8 && request.include_topic_authorized_operations)
            .then(|| operations::on_topic(context.principal)),
    };
    let topics = match &request.topics {
        // In version 0 an empty list means all; it cannot be null.
        Some(topics) if version > 0 || !topics.is_empty() => asked_for(context, &describe, &request).await,
        _ => node.broker.open_topics().iter().map(|topic| describe.topic(topic)).collect(),
    };
    let mut response = MetadataResponse::default().with_brokers(vec![this_broker(node, version)]).with_topics(topics);
    if version >= 1 {
        response.controller_id = describe.node;
    }
    if version >= 2 {
        response.cluster_id = Some(StrBytes::from_string(node.broker.cluster_id().to_owned()));
    }
    if (8..=10).contains(&version) && request.include_cluster_authorized_operations {
        response.cluster_authorized_operations = operations::on_cluster(context.principal);
    }
    response
}

fn this_broker(node: &Node, version: i16) -> MetadataResponseBroker {
    let broker = MetadataResponseBroker::default()
        .with_node_id(BrokerId(node.config.node_id))
        .with_host(StrBytes::from_string(node.advertised.host.clone()))
        .with_port(node.advertised.port.into());
    match &node.config.rack {
        Some(rack) if version >= 1 => broker.with_rack(Some(StrBytes::from_string(rack.clone()))),
        _ => broker,
    }
}

/// The topics that the request names, each once, in its order; those that are missing are made if that is allowed.
async fn asked_for(
    context: &RequestContext,
    describe: &Describe,
    request: &MetadataRequest,
) -> Vec<MetadataResponseTopic> {
    let is_allowed = describe.version < 4 || request.allow_auto_topic_creation;
    let may_create = is_allowed && context.node.config.auto_create_topics;
    let broker = context.broker();
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    let (mut names, mut ids) = (HashSet::new(), HashSet::new());
    for topic in request.topics.iter().flatten() {
        let by_id = topic.topic_id != Uuid::nil();
        if describe.version < BY_ID_VERSION && (by_id || topic.name.is_none()) {
            let name = topic.name.clone().unwrap_or_default();
            found.push(failed(Some(name), ResponseError::InvalidRequest.code()));
        } else if by_id {
            if ids.insert(topic.topic_id) {
                let open = broker.open_topic_by_id(topic.topic_id);
                let unknown = || failed(None, ResponseError::UnknownTopicId.code()).with_topic_id(topic.topic_id);
                found.push(open.map_or_else(|_| unknown(), |open| describe.topic(&open)));
            }
        } else if let Some(name) = &topic.name {
            if names.insert(name.clone()) {
                let open = broker.open_topic(name);
                if open.is_err() && may_create && check_topic_name(name).is_ok() && !is_of_engine(name) {
                    missing.push((found.len(), name.clone()));
                }
                found.push(open.map_or_else(|_| unknown(name), |open| describe.topic(&open)));
            }
        } else {
            // Neither name nor id.
            found.push(failed(None, ResponseError::UnknownTopicId.code()));
        }
    }
    for (at, made) in make(context, describe, missing).await {
        if let Some(topic) = found.get_mut(at) {
            *topic = made;
        }
    }
    found
}

fn unknown(name: &TopicName) -> MetadataResponseTopic {
    let error = match check_topic_name(name) {
        Ok(()) => ResponseError::UnknownTopicOrPartition,
        Err(_) => ResponseError::InvalidTopicException,
    };
    failed(Some(name.clone()), error.code())
}

/// Makes topics that a client asked for, all at once. Each has a place in the response.
async fn make(
    context: &RequestContext,
    describe: &Describe,
    missing: Vec<(usize, TopicName)>,
) -> Vec<(usize, MetadataResponseTopic)> {
    let partitions = context.node.config.default_partitions;
    // What is beyond the bound is made when the client asks again.
    let at_most = usize::try_from(MAX_PARTITIONS_A_REQUEST / i64::from(partitions.max(1))).unwrap_or(usize::MAX);
    let missing: Vec<_> = missing.into_iter().take(at_most).collect();
    if missing.is_empty() {
        return Vec::new();
    }
    let new = missing.iter().map(|(_, name)| NewTopic { name: name.to_string(), partitions, configs: Vec::new() });
    let results = context.broker().create_topics(new.collect(), false).await;
    let described = missing.into_iter().zip(results).map(|((at, name), result)| {
        let error = |code: i16| failed(Some(name.clone()), code);
        let topic = match (result, context.broker().open_topic(&name)) {
            // Be it that another client made it at the same time.
            (_, Ok(open)) => describe.topic(&open),
            (Ok(()), Err(_)) => error(ResponseError::LeaderNotAvailable.code()),
            (Err(BrokerError::Invalid(reason) | BrokerError::TopicCollides(reason)), _) => {
                tracing::debug!(topic = %name.0, reason, "a topic that a client asked for is not made");
                error(ResponseError::InvalidTopicException.code())
            }
            (Err(other), _) => error(errors::code(&other)),
        };
        (at, topic)
    });
    described.collect()
}

fn failed(name: Option<TopicName>, code: i16) -> MetadataResponseTopic {
    MetadataResponseTopic::default().with_name(name).with_error_code(code)
}

/// How topics are described to a client: what its version can say, and what it asked for.
struct Describe {
    node: BrokerId,
    version: i16,
    /// What the client may do with a topic, if it asks and its version can hear it.
    operations: Option<i32>,
}

impl Describe {
    fn topic(&self, topic: &OpenTopic) -> MetadataResponseTopic {
        let partitions = (0..).zip(&topic.partitions).map(|(index, slot)| self.partition(index, slot)).collect();
        let mut described = MetadataResponseTopic::default()
            .with_name(Some(TopicName(StrBytes::from_string(topic.name.clone()))))
            .with_partitions(partitions);
        if self.version >= 1 {
            described.is_internal = topic.internal;
        }
        if self.version >= 10 {
            described.topic_id = topic.id;
        }
        if let Some(operations) = self.operations {
            described.topic_authorized_operations = operations;
        }
        described
    }

    /// This node is every partition's leader and only replica, as long as it can serve it.
    fn partition(&self, index: i32, slot: &Slot) -> MetadataResponsePartition {
        let Slot::Online(partition) = slot else {
            let described = MetadataResponsePartition::default()
                .with_error_code(ResponseError::LeaderNotAvailable.code())
                .with_partition_index(index)
                .with_leader_id(NO_LEADER)
                .with_replica_nodes(vec![self.node]);
            return match self.version >= OFFLINE_REPLICAS_VERSION {
                true => described.with_offline_replicas(vec![self.node]),
                false => described,
            };
        };
        let described = MetadataResponsePartition::default()
            .with_partition_index(index)
            .with_leader_id(self.node)
            .with_replica_nodes(vec![self.node])
            .with_isr_nodes(vec![self.node]);
        match self.version >= 7 {
            true => described.with_leader_epoch(partition.leader_epoch().0),
            false => described,
        }
    }
}
