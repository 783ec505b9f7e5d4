//! DeleteTopics, by name or by id.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{DeleteTopicsRequest, DeleteTopicsResponse};
use uuid::Uuid;

use super::{Refusal, counts, topic_name};
use crate::names::check_not_of_engine;
use crate::server::context::RequestContext;

/// The version from which on a request may name topics by id.
const BY_ID_VERSION: i16 = 6;

/// Answers a DeleteTopics request.
pub(in crate::server) async fn delete_topics(
    context: &RequestContext,
    version: i16,
    request: DeleteTopicsRequest,
) -> DeleteTopicsResponse {
    let asked: Vec<_> = match version >= BY_ID_VERSION {
        true => request.topics,
        false => {
            let named = |name| DeleteTopicState::default().with_name(Some(name));
            request.topic_names.into_iter().map(named).collect()
        }
    };
    let found: Vec<_> = asked.iter().map(|topic| find(context, topic)).collect();
    let names = counts(found.iter().filter_map(|found| found.as_ref().ok().map(|(name, _)| name.clone())));
    let checked = found.into_iter().map(|found| {
        found.and_then(|(name, id)| match names.get(&name) {
            Some(1) => Ok((name, id)),
            _ => Err(Refusal::new(ResponseError::InvalidRequest, "the request names the topic more than once")),
        })
    });
    let checked: Vec<_> = checked.collect();
    let doomed = checked.iter().filter_map(|topic| topic.as_ref().ok().map(|(name, _)| name.clone())).collect();
    let mut done = context.broker().delete_topics(doomed).await.into_iter();
    let results = asked.into_iter().zip(checked).map(|(asked, topic)| {
        let deleted = topic.and_then(|(name, id)| match done.next() {
            Some(result) => result.map(|()| (name, id)).map_err(Refusal::from),
            None => Err(Refusal::new(ResponseError::UnknownServerError, "the topic was not seen to")),
        });
        let mut result = DeletableTopicResult::default().with_name(asked.name);
        if version >= BY_ID_VERSION {
            result.topic_id = asked.topic_id;
        }
        match deleted {
            Ok((name, id)) => {
                tracing::info!(topic = name, client = ?context.client_id, "topic deleted");
                result.name = Some(topic_name(&name));
                if version >= BY_ID_VERSION {
                    result.topic_id = id;
                }
            }
            Err(refusal) => {
                result.error_code = refusal.code;
                if version >= 5 {
                    result.error_message = refusal.text();
                }
            }
        }
        result
    });
    DeleteTopicsResponse::default().with_responses(results.collect())
}

/// The topic that is meant.
fn find(context: &RequestContext, asked: &DeleteTopicState) -> Result<(String, Uuid), Refusal> {
    let is_by_id = asked.topic_id != Uuid::nil();
    let topic = match &asked.name {
        Some(_) if is_by_id => {
            let message = "a topic is named by its name or by its id, not by both";
            return Err(Refusal::new(ResponseError::InvalidRequest, message));
        }
        Some(name) => context.broker().open_topic(name)?,
        None if is_by_id => context.broker().open_topic_by_id(asked.topic_id)?,
        None => return Err(Refusal::new(ResponseError::InvalidRequest, "neither the name nor the id of a topic")),
    };
    check_not_of_engine(&topic.name)?;
    Ok((topic.name.clone(), topic.id))
}
