//! DescribeProducers: who writes to a partition, and which transactions are open in it.

use kafka_protocol::messages::describe_producers_response::{PartitionResponse, ProducerState, TopicResponse};
use kafka_protocol::messages::{DescribeProducersRequest, DescribeProducersResponse, ProducerId, TopicName};

use super::Refusal;
use crate::blocking;
use crate::server::context::RequestContext;

/// Answers a DescribeProducers request.
pub(in crate::server) async fn describe_producers(
    context: &RequestContext,
    _version: i16,
    request: DescribeProducersRequest,
) -> DescribeProducersResponse {
    let context = context.clone();
    // Elsewhere: it waits for an append that is under way, and so perhaps for the disk.
    blocking::run(move || Ok(answer(&context, request))).await.unwrap_or_default()
}

fn answer(context: &RequestContext, request: DescribeProducersRequest) -> DescribeProducersResponse {
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partition_indexes.iter().map(|index| {
            let response = PartitionResponse::default().with_partition_index(*index).with_error_message(None);
            match producers(context, &topic.name, *index) {
                Ok(producers) => response.with_active_producers(producers),
                Err(refusal) => response.with_error_code(refusal.code).with_error_message(refusal.text()),
            }
        });
        TopicResponse::default().with_partitions(partitions.collect()).with_name(topic.name.clone())
    });
    DescribeProducersResponse::default().with_topics(topics.collect())
}

fn producers(context: &RequestContext, topic: &TopicName, index: i32) -> Result<Vec<ProducerState>, Refusal> {
    let topic = context.broker().open_topic(topic)?;
    let states = topic.partition(index)?.log().producer_states();
    let describe = |state: &logmill_storage::ProducerState| {
        ProducerState::default()
            .with_producer_id(ProducerId(state.producer_id.0))
            .with_producer_epoch(state.epoch.0.into())
            .with_last_sequence(state.last_sequence())
            .with_last_timestamp(state.last_timestamp.0)
            .with_coordinator_epoch(state.coordinator_epoch)
            .with_current_txn_start_offset(state.txn_first_offset.map_or(-1, |offset| offset.0))
    };
    Ok(states.iter().map(describe).collect())
}
