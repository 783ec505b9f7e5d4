//! Produce: batches from the frame into the log.

use bytes::BytesMut;
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use kafka_protocol::messages::{ApiKey, ProduceRequest, ProduceResponse};

use crate::server::api::{Begun, Refused, decode};
use crate::server::context::RequestContext;
use crate::server::errors;
use crate::server::reply::Reply;
use crate::types::TopicPartition;

/// Appends the request's batches.
pub(super) async fn begin(context: &RequestContext, version: i16, body: BytesMut) -> Result<Begun, Refused> {
    let request: ProduceRequest = decode(body, version)?;
    let mut topics = Vec::with_capacity(request.topic_data.len());
    for topic in request.topic_data {
        let mut partitions = Vec::with_capacity(topic.partition_data.len());
        for partition in topic.partition_data {
            let place = TopicPartition::new(topic.name.to_string(), partition.index);
            let response = PartitionProduceResponse::default().with_index(partition.index);
            let produced = context.broker().produce(&place, partition.records.unwrap_or_default()).await;
            partitions.push(match produced {
                Ok(offset) => response.with_base_offset(offset.0),
                Err(error) => response.with_error_code(errors::code(&error)).with_base_offset(-1),
            });
        }
        topics.push(TopicProduceResponse::default().with_name(topic.name).with_partition_responses(partitions));
    }
    if request.acks == 0 {
        return Ok(Begun::Unanswered);
    }
    let response = ProduceResponse::default().with_responses(topics);
    Ok(Begun::Done(Reply::encode(ApiKey::Produce, version, &response)?))
}
