//! OffsetForLeaderEpoch: where a leader epoch ends, by which a reader finds out that its log was truncated (KIP-320).

use std::cmp::Ordering;
use std::sync::Arc;

use kafka_protocol::messages::offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult};
use kafka_protocol::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};
use logmill_protocol::{LeaderEpoch, Offset};

use crate::blocking;
use crate::partition::Partition;
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
    let mut targets = Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        targets.extend(topic.partitions.iter().map(|asked| {
            let found = leader::partition(context, &topic.topic, asked.partition, asked.current_leader_epoch);
            found.map(|partition| (partition, LeaderEpoch(asked.leader_epoch)))
        }));
    }
    // Whoever appends has the epochs, for as long as the disk takes.
    let ends = blocking::run(move || {
        let end = |(partition, epoch): (Arc<Partition>, _)| end(&partition, epoch);
        Ok(targets.into_iter().map(|target| target.map(end)).collect::<Vec<_>>())
    });
    // It fails only where the runtime stops.
    let mut ends = ends.await.unwrap_or_default().into_iter();
    let topics = request.topics.into_iter().map(|topic| {
        let answers = topic.partitions.iter().zip(&mut ends).map(|(asked, end)| {
            let response = EpochEndOffset::default().with_partition(asked.partition);
            match end {
                Ok((epoch, end)) => response.with_leader_epoch(epoch.0).with_end_offset(end.0),
                Err(code) => response.with_error_code(code),
            }
        });
        let answers = answers.collect();
        OffsetForLeaderTopicResult::default().with_topic(topic.topic).with_partitions(answers)
    });
    OffsetForLeaderEpochResponse::default().with_topics(topics.collect())
}

/// The largest epoch up to `epoch` that has records, and where it ends; the leader's own ends with the log, also
/// while it has no records.
pub(super) fn end(partition: &Partition, epoch: LeaderEpoch) -> (LeaderEpoch, Offset) {
    let (log, current) = (partition.log(), partition.leader_epoch());
    match epoch.cmp(&current) {
        Ordering::Less => log.end_offset_for_epoch(epoch).unwrap_or(UNKNOWN),
        Ordering::Equal => (current, log.log_end()),
        Ordering::Greater => UNKNOWN,
    }
}
