//! Fetch: batches from the log to the socket.

use bytes::BytesMut;
use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::{ApiKey, FetchRequest, FetchResponse};
use logmill_protocol::Offset;

use crate::server::api::{Refused, decode};
use crate::server::context::RequestContext;
use crate::server::errors;
use crate::server::reply::Reply;
use crate::types::{self, Isolation, TopicPartition};

/// Reads what there is.
pub(super) async fn fetch(context: &RequestContext, version: i16, body: BytesMut) -> Result<Reply, Refused> {
    let request: FetchRequest = decode(body, version)?;
    let isolation = if request.isolation_level == 1 { Isolation::ReadCommitted } else { Isolation::ReadUncommitted };
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in topic.partitions {
            let read = types::FetchRequest {
                partition: TopicPartition::new(topic.topic.to_string(), partition.partition),
                offset: Offset(partition.fetch_offset),
                max_bytes: usize::try_from(partition.partition_max_bytes).unwrap_or(0),
                isolation,
            };
            let response = PartitionData::default().with_partition_index(partition.partition);
            partitions.push(match context.broker().fetch(&read).await {
                Ok(fetched) => response
                    .with_high_watermark(fetched.high_watermark.0)
                    .with_last_stable_offset(fetched.last_stable_offset.0)
                    .with_log_start_offset(fetched.log_start.0)
                    .with_records(Some(fetched.batches)),
                Err(error) => response.with_error_code(errors::code(&error)).with_high_watermark(-1),
            });
        }
        topics.push(FetchableTopicResponse::default().with_topic(topic.topic).with_partitions(partitions));
    }
    let response = FetchResponse::default().with_responses(topics);
    Ok(Reply::encode(ApiKey::Fetch, version, &response)?)
}
