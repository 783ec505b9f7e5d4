//! OffsetForLeaderEpoch: where a leader epoch ends, by which a reader finds out that its log was truncated (KIP-320).

use kafka_protocol::messages::offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult};
use kafka_protocol::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};
use logmill_protocol::{LeaderEpoch, Offset};

use crate::blocking;
use crate::partition::{LEADER_EPOCH, Partition};
use crate::server::context::RequestContext;
use crate::server::leader;

/// An epoch, or an end, that is not known.
const UNKNOWN: (LeaderEpoch, Offset) = (LeaderEpoch::NONE, Offset(-1));

/// Answers an OffsetForLeaderEpoch request.
pub(super) async fn offset_for_leader_epoch(
    context: &RequestContext,
    _: i16,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let context = context.clone();
    // Elsewhere: it waits for an append that is under way, and so perhaps for the disk.
    blocking::run(move || Ok(answer(&context, request))).await.unwrap_or_default()
}

fn answer(context: &RequestContext, request: OffsetForLeaderEpochRequest) -> OffsetForLeaderEpochResponse {
    let topics = request.topics.into_iter().map(|topic| {
        let ends = topic.partitions.iter().map(|asked| {
            let response = EpochEndOffset::default().with_partition(asked.partition);
            match leader::partition(context, &topic.topic, asked.partition, asked.current_leader_epoch) {
                Ok(partition) => {
                    let (epoch, end) = end(&partition, LeaderEpoch(asked.leader_epoch));
                    response.with_leader_epoch(epoch.0).with_end_offset(end.0)
                }
                Err(code) => response.with_error_code(code),
            }
        });
        let ends = ends.collect();
        OffsetForLeaderTopicResult::default().with_topic(topic.topic).with_partitions(ends)
    });
    OffsetForLeaderEpochResponse::default().with_topics(topics.collect())
}

/// The largest epoch up to `epoch` that has records, and where it ends; the leader's own ends with the log, also
/// while it has none.
pub(super) fn end(partition: &Partition, epoch: LeaderEpoch) -> (LeaderEpoch, Offset) {
    let log = partition.log();
    match log.end_offset_for_epoch(epoch) {
        Some(found) if epoch <= LEADER_EPOCH => found,
        None if epoch == LEADER_EPOCH => (LEADER_EPOCH, log.log_end()),
        _ => UNKNOWN,
    }
}
