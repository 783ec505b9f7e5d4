//! DeleteRecords: moves log starts up, so that what lies below them can be deleted.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult};
use kafka_protocol::messages::{DeleteRecordsRequest, DeleteRecordsResponse};
use logmill_protocol::Offset;

use crate::error::BrokerError;
use crate::server::context::RequestContext;
use crate::server::errors;
use crate::types::TopicPartition;

/// Stands for the high watermark.
const TO_HIGH_WATERMARK: i64 = -1;
const UNKNOWN_LOW_WATERMARK: i64 = -1;

/// Answers a DeleteRecords request. There is one replica, so nothing has to be waited for (`timeout_ms`).
pub(super) async fn delete_records(
    context: &RequestContext,
    _: i16,
    request: DeleteRecordsRequest,
) -> DeleteRecordsResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for asked in topic.partitions {
            let partition = TopicPartition::new(topic.name.to_string(), asked.partition_index);
            let deleted = delete(context, &partition, asked.offset).await;
            let result = DeleteRecordsPartitionResult::default().with_partition_index(asked.partition_index);
            partitions.push(match deleted {
                Ok(log_start) => result.with_low_watermark(log_start.0),
                Err(code) => result.with_low_watermark(UNKNOWN_LOW_WATERMARK).with_error_code(code),
            });
        }
        topics.push(DeleteRecordsTopicResult::default().with_name(topic.name).with_partitions(partitions));
    }
    DeleteRecordsResponse::default().with_topics(topics)
}

/// Deletes what lies below `before`, and returns the log start.
async fn delete(context: &RequestContext, partition: &TopicPartition, before: i64) -> Result<Offset, i16> {
    let code = |error: BrokerError| errors::code(&error);
    let topic = context.broker().open_topic(&partition.topic).map_err(code)?;
    let open = topic.partition(partition.partition).map_err(code)?;
    // The broker reads its own topics back from their start.
    if topic.internal {
        return Err(ResponseError::InvalidTopicException.code());
    }
    let before = match before {
        TO_HIGH_WATERMARK => open.log().high_watermark(),
        before if before < 0 => return Err(ResponseError::OffsetOutOfRange.code()),
        before => Offset(before),
    };
    context.broker().delete_records(partition, before).await.map_err(code)?;
    Ok(open.log().log_start())
}
