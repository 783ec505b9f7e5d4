//! CreateTopics.

use std::collections::HashSet;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
use kafka_protocol::messages::{CreateTopicsRequest, CreateTopicsResponse, TopicName};

use super::{Refusal, check_partitions, check_replicas, configs, counts, text};
use crate::names::{check_not_of_engine, check_topic_name};
use crate::server::config::ServerConfig;
use crate::server::context::RequestContext;
use crate::topic_config::TopicConfig;
use crate::types::NewTopic;

/// Most partitions that one request may make, as in Kafka: it holds up other changes while it runs.
pub(in crate::server) const MAX_PARTITIONS_A_REQUEST: i64 = 10_000;

/// Answers a CreateTopics request.
pub(in crate::server) async fn create_topics(
    context: &RequestContext,
    version: i16,
    request: CreateTopicsRequest,
) -> CreateTopicsResponse {
    let counts = counts(request.topics.iter().map(|topic| topic.name.clone()));
    let mut seen = HashSet::new();
    let distinct = request.topics.iter().filter(|topic| seen.insert(topic.name.clone()));
    let mut checked: Vec<(TopicName, Result<NewTopic, Refusal>)> = distinct
        .map(|topic| {
            let is_repeated = counts.get(&topic.name).is_some_and(|count| *count > 1);
            let refuse = || Refusal::new(ResponseError::InvalidRequest, "the request names the topic more than once");
            let new = if is_repeated { Err(refuse()) } else { check(&context.node.config, topic) };
            (topic.name.clone(), new)
        })
        .collect();
    let wanted = |new: &Result<NewTopic, Refusal>| new.as_ref().map_or(0, |new| i64::from(new.partitions));
    if checked.iter().map(|(_, new)| wanted(new)).sum::<i64>() > MAX_PARTITIONS_A_REQUEST {
        let message = format!("the request makes more than {MAX_PARTITIONS_A_REQUEST} partitions, split it");
        let refusal = Refusal::new(ResponseError::PolicyViolation, message);
        checked.iter_mut().for_each(|(_, new)| *new = Err(refusal.clone()));
    }
    let new: Vec<_> = checked.iter().filter_map(|(_, new)| new.as_ref().ok().cloned()).collect();
    let mut done = context.broker().create_topics(new, request.validate_only).await.into_iter();
    let results = checked.into_iter().map(|(name, new)| {
        let made = new.and_then(|new| match done.next() {
            Some(result) => result.map(|()| new).map_err(Refusal::from),
            None => Err(Refusal::new(ResponseError::UnknownServerError, "the topic was not seen to")),
        });
        match made {
            Ok(new) => created(context, version, name, &new, request.validate_only),
            Err(refusal) => failed(version, name, &refusal),
        }
    });
    CreateTopicsResponse::default().with_topics(results.collect())
}

/// What is to be made, if it can be as far as the request tells.
fn check(node: &ServerConfig, topic: &CreatableTopic) -> Result<NewTopic, Refusal> {
    let refuse = |error, message: &str| Err(Refusal::new(error, message));
    check_topic_name(&topic.name)
        .map_err(|error| Refusal::new(ResponseError::InvalidTopicException, error.to_string()))?;
    check_not_of_engine(&topic.name)?;
    let partitions = match topic.assignments.is_empty() {
        false if topic.num_partitions != -1 || topic.replication_factor != -1 => {
            let message = "with a replica assignment, partitions and replication factor must both be -1";
            return refuse(ResponseError::InvalidRequest, message);
        }
        false => assigned(node, topic)?,
        true if topic.num_partitions == -1 => node.default_partitions,
        true => topic.num_partitions,
    };
    check_partitions(partitions)?;
    match topic.replication_factor {
        -1 | 1 => {}
        ..=0 => {
            return refuse(ResponseError::InvalidReplicationFactor, "the replication factor must be positive");
        }
        more => {
            let message = format!("a replication factor of {more} needs as many nodes, there is 1");
            return refuse(ResponseError::InvalidReplicationFactor, &message);
        }
    }
    let mut configs = Vec::with_capacity(topic.configs.len());
    for config in &topic.configs {
        let Some(value) = &config.value else {
            let message = format!("config `{}` has no value", config.name);
            return refuse(ResponseError::InvalidConfig, &message);
        };
        configs.push((config.name.to_string(), value.to_string()));
    }
    TopicConfig::parse(configs.iter().map(|(name, value)| (name.as_str(), value.as_str())), false)
        .map_err(|error| Refusal::new(ResponseError::InvalidConfig, error.to_string()))?;
    Ok(NewTopic { name: topic.name.to_string(), partitions, configs })
}

/// How many partitions the assignment has, if it is one for this node.
fn assigned(node: &ServerConfig, topic: &CreatableTopic) -> Result<i32, Refusal> {
    let mut indexes: Vec<_> = topic.assignments.iter().map(|assignment| assignment.partition_index).collect();
    indexes.sort_unstable();
    if !indexes.iter().copied().eq((0..).take(indexes.len())) {
        let message = "the partitions of a replica assignment must be numbered from 0, each once";
        return Err(Refusal::new(ResponseError::InvalidReplicaAssignment, message));
    }
    for assignment in &topic.assignments {
        check_replicas(node.node_id, assignment.partition_index, &assignment.broker_ids)?;
    }
    Ok(i32::try_from(indexes.len()).unwrap_or(i32::MAX))
}

fn created(
    context: &RequestContext,
    version: i16,
    name: TopicName,
    new: &NewTopic,
    validate_only: bool,
) -> CreatableTopicResult {
    let mut result = CreatableTopicResult::default().with_name(name).with_error_message(None);
    if version >= 5 {
        let set = new.configs.iter().map(|(name, value)| (name.clone(), value.trim().to_owned())).collect();
        let described = configs::of_topic(&set).into_iter().map(|config| {
            CreatableTopicConfigs::default()
                .with_name(text(config.name))
                .with_value(config.value.as_deref().map(text))
                .with_read_only(config.read_only)
                .with_config_source(config.source as i8)
        });
        result.num_partitions = new.partitions;
        result.replication_factor = 1;
        result.configs = Some(described.collect());
    }
    if version >= 7 && !validate_only {
        // Unless someone has deleted it already.
        result.topic_id = context.broker().open_topic(&new.name).map(|topic| topic.id).unwrap_or_default();
    }
    if !validate_only {
        tracing::info!(topic = new.name, partitions = new.partitions, client = ?context.client_id, "topic created");
    }
    result
}

fn failed(version: i16, name: TopicName, refusal: &Refusal) -> CreatableTopicResult {
    let result = CreatableTopicResult::default()
        .with_name(name)
        .with_error_code(refusal.code)
        .with_error_message(refusal.text());
    match version >= 5 {
        true => result.with_configs(None),
        false => result,
    }
}
