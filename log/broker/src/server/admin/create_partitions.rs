//! CreatePartitions: more of them in topics that exist.

use std::collections::HashSet;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::{CreatePartitionsRequest, CreatePartitionsResponse};

use super::{Refusal, check_partitions, check_replicas, counts};
use crate::names::check_not_of_engine;
use crate::server::context::RequestContext;

/// Answers a CreatePartitions request.
pub(in crate::server) async fn create_partitions(
    context: &RequestContext,
    _version: i16,
    request: CreatePartitionsRequest,
) -> CreatePartitionsResponse {
    let counts = counts(request.topics.iter().map(|topic| topic.name.clone()));
    let mut seen = HashSet::new();
    let mut results = Vec::with_capacity(counts.len());
    for topic in request.topics.iter().filter(|topic| seen.insert(topic.name.clone())) {
        let is_repeated = counts.get(&topic.name).is_some_and(|count| *count > 1);
        let done = match is_repeated {
            true => Err(Refusal::new(ResponseError::InvalidRequest, "the request names the topic more than once")),
            false => grow(context, topic, request.validate_only).await,
        };
        let result = CreatePartitionsTopicResult::default().with_name(topic.name.clone()).with_error_message(None);
        results.push(match done {
            Ok(()) => result,
            Err(refusal) => result.with_error_code(refusal.code).with_error_message(refusal.text()),
        });
    }
    CreatePartitionsResponse::default().with_results(results)
}

async fn grow(context: &RequestContext, topic: &CreatePartitionsTopic, validate_only: bool) -> Result<(), Refusal> {
    let open = context.broker().open_topic(&topic.name)?;
    check_not_of_engine(&topic.name)?;
    let has = open.partitions.len();
    let invalid = |message| Err(Refusal::new(ResponseError::InvalidPartitions, message));
    let Some(more) = usize::try_from(topic.count).ok().and_then(|count| count.checked_sub(has)) else {
        return invalid(format!("the topic has {has} partitions, more than the {} asked for", topic.count));
    };
    if more == 0 {
        return invalid(format!("the topic has {has} partitions already"));
    }
    check_partitions(topic.count)?;
    if let Some(assignments) = &topic.assignments {
        if assignments.len() != more {
            let message = format!("{more} partitions are to be added, {} are assigned", assignments.len());
            return Err(Refusal::new(ResponseError::InvalidReplicaAssignment, message));
        }
        let node = context.node.config.node_id;
        for (index, assignment) in (has as i32..).zip(assignments) {
            check_replicas(node, index, &assignment.broker_ids)?;
        }
    }
    Ok(context.broker().grow_topic(&topic.name, topic.count, validate_only).await?)
}
