//! ListOffsets: where a partition begins and ends, and where a time is.

use std::collections::HashSet;
use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::list_offsets_request::ListOffsetsPartition;
use kafka_protocol::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use kafka_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse};
use logmill_protocol::{LeaderEpoch, Offset, Timestamp};

use crate::blocking;
use crate::error::Result;
use crate::partition::Partition;
use crate::server::context::RequestContext;
use crate::server::{errors, leader};
use crate::types::Isolation;

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
/// The record with the largest timestamp (KIP-734).
const MAX_TIMESTAMP: i64 = -3;
/// Where what is not tiered begins (KIP-405): nothing is tiered, so it is the log start.
const EARLIEST_LOCAL: i64 = -4;
/// Where what is tiered ends (KIP-1005).
const LATEST_TIERED: i64 = -5;

/// An answer: an offset, the timestamp of the record there if that was looked for, and the record's leader epoch.
type Found = (Offset, Timestamp, LeaderEpoch);

const NOTHING: Found = (Offset(-1), Timestamp::NONE, LeaderEpoch::NONE);

/// An answer, or the partition that has to be searched for it.
enum Answer {
    Now(Result<Found, i16>),
    Search(Arc<Partition>),
}

/// A search, and where in the response its result belongs.
struct Search {
    topic: usize,
    position: usize,
    partition: Arc<Partition>,
    time: i64,
}

/// Answers a ListOffsets request.
pub(super) async fn list_offsets(
    context: &RequestContext,
    version: i16,
    request: ListOffsetsRequest,
) -> ListOffsetsResponse {
    let isolation = if request.isolation_level == 1 { Isolation::ReadCommitted } else { Isolation::ReadUncommitted };
    let mut topics: Vec<ListOffsetsTopicResponse> = Vec::with_capacity(request.topics.len());
    let (mut starts, mut searches) = (Vec::new(), Vec::new());
    let repeated = repeated(&request);
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for asked in &topic.partitions {
            let answer = match repeated.contains(&(topic.name.to_string(), asked.partition_index)) {
                true => Answer::Now(Err(ResponseError::InvalidRequest.code())),
                false => answer(context, version, &topic.name, asked, isolation),
            };
            let found = match answer {
                Answer::Now(found) => found,
                Answer::Search(partition) => {
                    let (topic, position) = (topics.len(), partitions.len());
                    let to_do = if is_start(asked.timestamp) { &mut starts } else { &mut searches };
                    to_do.push(Search { topic, position, partition, time: asked.timestamp });
                    Ok(NOTHING)
                }
            };
            partitions.push(response(version, asked.partition_index, found));
        }
        topics.push(ListOffsetsTopicResponse::default().with_name(topic.name).with_partitions(partitions));
    }
    for searches in [starts, searches].into_iter().filter(|searches| !searches.is_empty()) {
        for (topic, position, found) in search(searches, isolation).await {
            if let Some(slot) = topics.get_mut(topic).and_then(|topic| topic.partitions.get_mut(position)) {
                *slot = response(version, slot.partition_index, found);
            }
        }
    }
    ListOffsetsResponse::default().with_topics(topics)
}

/// The partitions that the request names more than once, which Kafka does not answer.
fn repeated(request: &ListOffsetsRequest) -> HashSet<(String, i32)> {
    let mut seen = HashSet::new();
    let all = request
        .topics
        .iter()
        .flat_map(|topic| topic.partitions.iter().map(|partition| (topic.name.as_str(), partition.partition_index)));
    all.filter(|named| !seen.insert(*named)).map(|(name, index)| (name.to_owned(), index)).collect()
}

fn answer(
    context: &RequestContext,
    version: i16,
    topic: &str,
    asked: &ListOffsetsPartition,
    isolation: Isolation,
) -> Answer {
    if !is_known(asked.timestamp, version) {
        return Answer::Now(Err(ResponseError::UnsupportedVersion.code()));
    }
    let found = leader::partition(context, topic, asked.partition_index, asked.current_leader_epoch);
    let partition = match found {
        Ok(partition) => partition,
        Err(code) => return Answer::Now(Err(code)),
    };
    Answer::Now(Ok(match asked.timestamp {
        LATEST => (partition.visible_end(isolation), Timestamp::NONE, partition.leader_epoch()),
        LATEST_TIERED => NOTHING,
        _ => return Answer::Search(partition),
    }))
}

/// Whether the time stands for the log start. This reads no record, but it does read the leader epoch, whose lock an append
/// may hold for as long as the disk takes.
fn is_start(time: i64) -> bool {
    matches!(time, EARLIEST | EARLIEST_LOCAL)
}

/// Whether a request of this version may name the time.
fn is_known(time: i64, version: i16) -> bool {
    match time {
        LATEST | EARLIEST => true,
        MAX_TIMESTAMP => version >= 7,
        EARLIEST_LOCAL => version >= 8,
        LATEST_TIERED => version >= 9,
        time => time >= 0,
    }
}

/// Searches one after another. Searches by time take their turn with all that decompress; log starts do not.
async fn search(searches: Vec<Search>, isolation: Isolation) -> Vec<(usize, usize, Result<Found, i16>)> {
    let places: Vec<_> = searches.iter().map(|search| (search.topic, search.position)).collect();
    let may_decompress = searches.iter().any(|search| !is_start(search.time));
    let run = move || {
        let one = |search: &Search| {
            let found = find(&search.partition, search.time, isolation);
            (search.topic, search.position, found.map_err(|error| errors::code(&error)))
        };
        Ok(searches.iter().map(one).collect())
    };
    let found = if may_decompress { blocking::decompressing(run).await } else { blocking::unless_small(0, run).await };
    found.unwrap_or_else(|error| {
        let code = errors::code(&error);
        places.into_iter().map(|(topic, position)| (topic, position, Err(code))).collect()
    })
}

fn find(partition: &Partition, time: i64, isolation: Isolation) -> Result<Found> {
    // The end first: what is appended meanwhile is not asked for.
    let end = partition.visible_end(isolation);
    let log = partition.log();
    let epoch_of = |offset| log.epoch_of(offset).unwrap_or(LeaderEpoch::NONE);
    let found = partition.stored(match time {
        EARLIEST | EARLIEST_LOCAL => {
            let start = log.log_start();
            return Ok((start, Timestamp::NONE, epoch_of(start)));
        }
        MAX_TIMESTAMP => log.offset_of_max_timestamp(),
        time => log.offset_for_time(Timestamp(time)),
    })?;
    let visible = found.filter(|(offset, _)| *offset < end);
    Ok(visible.map_or(NOTHING, |(offset, time)| (offset, time, epoch_of(offset))))
}

fn response(version: i16, index: i32, found: Result<Found, i16>) -> ListOffsetsPartitionResponse {
    let response = ListOffsetsPartitionResponse::default().with_partition_index(index);
    let (response, (offset, time, epoch)) = match found {
        Ok(found) => (response, found),
        Err(code) => (response.with_error_code(code), NOTHING),
    };
    let response = response.with_offset(offset.0).with_timestamp(time.0);
    if version >= 4 { response.with_leader_epoch(epoch.0) } else { response }
}
