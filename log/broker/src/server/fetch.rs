//! Fetch: batches from the log to the socket.

use std::time::Duration;

use bytes::BytesMut;
use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::{ApiKey, FetchRequest, FetchResponse};
use logmill_protocol::Offset;
use tokio::time::Instant;

use crate::server::api::{Refused, decode};
use crate::server::context::RequestContext;
use crate::server::errors;
use crate::server::reply::Reply;
use crate::types::{self, Isolation, TopicPartition};

/// Reads what there is, once there is something or the client's patience is over.
pub(super) async fn fetch(context: &RequestContext, version: i16, body: BytesMut) -> Result<Reply, Refused> {
    let request: FetchRequest = decode(body, version)?;
    let deadline = Instant::now() + Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
    loop {
        let (response, has_more) = read(context, request.clone()).await;
        if has_more || Instant::now() >= deadline {
            return Ok(Reply::encode(ApiKey::Fetch, version, &response)?);
        }
        tokio::time::sleep_until(deadline.min(Instant::now() + Duration::from_millis(5))).await;
    }
}

async fn read(context: &RequestContext, request: FetchRequest) -> (FetchResponse, bool) {
    let mut is_due = false;
    let isolation = if request.isolation_level == 1 { Isolation::ReadCommitted } else { Isolation::ReadUncommitted };
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        let name = match topic.topic_id.is_nil() {
            true => topic.topic.to_string(),
            false => {
                context.broker().topic_by_id(topic.topic_id).await.ok().flatten().map_or_else(String::new, |t| t.name)
            }
        };
        for partition in topic.partitions {
            let read = types::FetchRequest {
                partition: TopicPartition::new(name.clone(), partition.partition),
                offset: Offset(partition.fetch_offset),
                max_bytes: usize::try_from(partition.partition_max_bytes).unwrap_or(0),
                isolation,
            };
            let response = PartitionData::default().with_partition_index(partition.partition);
            let fetched = context.broker().fetch(&read).await;
            is_due |= fetched.as_ref().map_or(true, |fetched| !fetched.batches.is_empty());
            partitions.push(match fetched {
                Ok(fetched) => response
                    .with_high_watermark(fetched.high_watermark.0)
                    .with_last_stable_offset(fetched.last_stable_offset.0)
                    .with_log_start_offset(fetched.log_start.0)
                    .with_records(Some(fetched.batches)),
                Err(error) => response.with_error_code(errors::code(&error)).with_high_watermark(-1),
            });
        }
        topics.push(
            FetchableTopicResponse::default()
                .with_topic(topic.topic)
                .with_topic_id(topic.topic_id)
                .with_partitions(partitions),
        );
    }
    (FetchResponse::default().with_responses(topics), is_due)
}
