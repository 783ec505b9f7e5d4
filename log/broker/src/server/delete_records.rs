//! DeleteRecords: moves log starts up, so that what lies below them can be deleted.

use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult};
use kafka_protocol::messages::{DeleteRecordsRequest, DeleteRecordsResponse};
use logmill_protocol::Offset;

use crate::error::BrokerError;
use crate::names::is_of_engine;
use crate::partition::Partition;
use crate::server::context::RequestContext;
use crate::server::errors;

/// Stands for the high watermark.
const TO_HIGH_WATERMARK: i64 = -1;
const UNKNOWN_LOW_WATERMARK: i64 = -1;

/// Answers a DeleteRecords request. There is one replica, so nothing has to be waited for (`timeout_ms`).
pub(super) async fn delete_records(
    context: &RequestContext,
    _: i16,
    request: DeleteRecordsRequest,
) -> DeleteRecordsResponse {
    let mut topics: Vec<DeleteRecordsTopicResult> = Vec::with_capacity(request.topics.len());
    let (mut targets, mut places) = (Vec::new(), Vec::new());
    for topic in request.topics {
        let mut results = Vec::with_capacity(topic.partitions.len());
        for asked in &topic.partitions {
            let index = asked.partition_index;
            results.push(match target(context, &topic.name, index, asked.offset) {
                Ok(target) => {
                    targets.push(target);
                    places.push((topics.len(), results.len()));
                    result(index, Ok(Offset(UNKNOWN_LOW_WATERMARK)))
                }
                Err(code) => result(index, Err(code)),
            });
        }
        topics.push(DeleteRecordsTopicResult::default().with_name(topic.name).with_partitions(results));
    }
    let mut deleted = context.broker().delete_records_of(targets).await.map(Vec::into_iter);
    for (topic, position) in places {
        let log_start = match &mut deleted {
            Ok(deleted) => deleted.next().unwrap_or(Err(BrokerError::Closed)).map_err(|error| errors::code(&error)),
            Err(error) => Err(errors::code(error)),
        };
        if let Some(slot) = topics.get_mut(topic).and_then(|topic| topic.partitions.get_mut(position)) {
            *slot = result(slot.partition_index, log_start);
        }
    }
    DeleteRecordsResponse::default().with_topics(topics)
}

fn result(index: i32, log_start: Result<Offset, i16>) -> DeleteRecordsPartitionResult {
    let result = DeleteRecordsPartitionResult::default().with_partition_index(index);
    match log_start {
        Ok(log_start) => result.with_low_watermark(log_start.0),
        Err(code) => result.with_low_watermark(UNKNOWN_LOW_WATERMARK).with_error_code(code),
    }
}

/// The partition, and the offset below which its records are to be deleted.
fn target(context: &RequestContext, topic: &str, index: i32, before: i64) -> Result<(Arc<Partition>, Offset), i16> {
    let code = |error: BrokerError| errors::code(&error);
    let topic = context.broker().open_topic(topic).map_err(code)?;
    let partition = topic.partition(index).map_err(code)?;
    // The broker and the engine read their own topics back from their start.
    if topic.internal || is_of_engine(&topic.name) {
        return Err(ResponseError::InvalidTopicException.code());
    }
    let before = match before {
        TO_HIGH_WATERMARK => partition.log().high_watermark(),
        before if before < 0 => return Err(ResponseError::OffsetOutOfRange.code()),
        before => Offset(before),
    };
    Ok((Arc::clone(partition), before))
}
